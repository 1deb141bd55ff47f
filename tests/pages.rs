//! The HTML pages of `inspect` and `heads`, in a headless browser where there is one.

use std::fs::{read_to_string, write};
use std::path::Path;
use std::process::Command;

/// Writes a page with `args --html`, in a folder of its own.
fn page(args: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("page.html");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hornbook"));
    let output = command.args(args).arg("--html").arg(&file).env("HORNBOOK_CONFIG", "").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    read_to_string(file).unwrap()
}

/// Returns the document that a browser makes of a page, or `None` without a browser.
fn rendered(html: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("page.html");
    write(&file, html).unwrap();
    let run = |browser: &str, file: &Path| {
        let mut command = Command::new(browser);
        let flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync \
                     --disable-background-networking --disable-component-update --virtual-time-budget=4000";
        command.args(flags.split_whitespace()).arg("--dump-dom");
        command.arg(format!("--user-data-dir={}", folder.path().join("profile").display()));
        command.arg(format!("file://{}", file.display())).output().ok()
    };
    let output = ["chromium", "chromium-browser", "google-chrome"].iter().find_map(|name| run(name, &file));
    let Some(output) = output else {
        eprintln!("skipped: no Chromium");
        return None;
    };
    Some(String::from_utf8(output.stdout).unwrap())
}

/// The text of the first element with this id.
fn text_of(html: &str, id: &str) -> String {
    let (_, rest) = html.split_once(&format!("id=\"{id}\">")).unwrap_or_else(|| panic!("no {id}: {html}"));
    let (element, _) = rest.split_once("</p>").unwrap();
    element.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text)).collect()
}

#[test]
fn color_scales_have_legends() {
    let report = page(&["inspect", "The cat sat"]);
    assert!(report.contains(">Color: the square root of the attention weight</div>"));
    assert!(report.contains(">Color: the square root of the probability</div>"));
    let Some(document) = rendered(&report) else { return };
    // The color of 25 % is halfway.
    assert_eq!(document.matches("<span class=\"\" style=\"left: 50%;\">25 %</span>").count(), 2);
    assert!(page(&["heads", "--sequences", "1"]).contains("Color: the square root of the score"));
}

#[test]
fn report_headline_follows_selected_token() {
    let report = page(&["inspect", "The cat sat"]);
    let Some(last) = rendered(&report) else { return };
    assert!(text_of(&last, "summary").starts_with("The most likely token after ·sat is "));
    let clicked = report.replace("</body>", "<script>selectToken(1)</script></body>");
    let first = text_of(&rendered(&clicked).unwrap(), "summary");
    assert!(first.starts_with("The most likely token after ·cat is "), "{first}");
}

#[test]
fn heads_page_fits_420_pixels() {
    let escaped = page(&["heads", "--sequences", "1"]).replace('&', "&amp;").replace('"', "&quot;");
    let frame = format!(
        "<p id=\"overflows\"></p><iframe width=420 height=900 srcdoc=\"{escaped}\"></iframe><script>\
         onload = () => {{ const page = document.querySelector('iframe').contentDocument; \
         const boxes = [page.documentElement, ...page.querySelectorAll('.scroll')]; \
         document.getElementById('overflows').textContent = \
         boxes.map((box) => box.scrollWidth - box.clientWidth).join(' '); }};</script>"
    );
    let Some(document) = rendered(&frame) else { return };
    assert_eq!(text_of(&document, "overflows"), "0 0 0 0 0 0");
}
