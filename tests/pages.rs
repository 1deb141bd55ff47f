//! The HTML pages of `inspect` and `heads`, in headless Chromium where it is installed.

use std::fs::{read_to_string, write};
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

/// Returns the document that Chromium makes of a page.
fn rendered(html: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("page.html");
    write(&file, html).unwrap();
    let flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync \
                 --disable-background-networking --disable-component-update --virtual-time-budget=4000";
    let mut chromium = Command::new("chromium");
    chromium.args(flags.split_whitespace()).arg("--dump-dom");
    chromium.arg(format!("--user-data-dir={}", folder.path().join("profile").display()));
    let output = chromium.arg(format!("file://{}", file.display())).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
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
    assert!(page(&["heads", "--sequences", "1"]).contains("Color: the square root of the score"));
}

#[test_with::executable(chromium)]
#[test]
fn quarter_is_halfway_along_a_legend() {
    let document = rendered(&page(&["inspect", "The cat sat"]));
    assert_eq!(document.matches("<span class=\"\" style=\"left: 50%;\">25 %</span>").count(), 2);
}

#[test_with::executable(chromium)]
#[test]
fn report_headline_follows_selected_token() {
    let report = page(&["inspect", "The cat sat"]);
    let last = rendered(&report);
    assert!(text_of(&last, "summary").starts_with("The most likely token after ·sat is "));
    let clicked = report.replace("</body>", "<script>selectToken(1)</script></body>");
    let first = text_of(&rendered(&clicked), "summary");
    assert!(first.starts_with("The most likely token after ·cat is "), "{first}");
}

#[test_with::executable(chromium)]
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
    let document = rendered(&frame);
    assert_eq!(text_of(&document, "overflows"), "0 0 0 0 0 0");
}
