//! Text from files and standard input: byte order marks, other encodings, and `-`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hornbook");
const BOM: &str = "\u{feff}";

/// Runs the program with `input` as standard input, in a folder.
fn run_in(folder: &Path, args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(PROGRAM)
        .args(args)
        .current_dir(folder)
        .env_remove("HORNBOOK_ISA")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(input); // a program that fails early does not read it
    child.wait_with_output().unwrap()
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[test]
fn byte_order_mark_is_no_part_of_the_text() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("bom.txt"), format!("{BOM}The king was old.\n")).unwrap();
    let expected = run_in(folder, &["tokens", "The king was old.", "--json"], b"").stdout;
    assert!(!expected.is_empty());
    let piped = format!("{BOM}The king was old.\n");
    for (args, input) in [
        (&["tokens", "--json", "--prompt-file", "bom.txt"][..], ""),
        (&["tokens", "--json", "--prompt-file", "-"], &piped),
        (&["tokens", "--json", "-"], &piped),
        (&["tokens", "--json"], &piped),
        (&["tokens", "--json", "\u{feff}The king was old."], ""),
    ] {
        let output = run_in(folder, args, input.as_bytes());
        assert_eq!(output.stdout, expected, "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let perplexity = |input: &str| {
        let output = run_in(folder, &["perplexity", "-", "--json"], input.as_bytes()).stdout;
        let json: serde_json::Value = serde_json::from_slice(&output).unwrap();
        (json["perplexity"].clone(), json["tokens"].clone())
    };
    assert_eq!(perplexity(&piped), perplexity(piped.trim_start_matches(BOM)));
}

#[test]
fn byte_order_mark_is_skipped_in_settings_keys_templates_and_conversations() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), format!("{BOM}{text}")).unwrap();
    write("hornbook.toml", "threads = 1\n");
    write("keys.toml", "# none yet\n");
    write("chat.jinja", "{% for m in messages %}{{ m.content }}{% endfor %}");
    write("talk.json", r#"{"messages": [{"role": "user", "content": "Hi"}]}"#);
    for args in [
        &["config"][..],
        &["keys", "list"],
        &["keys", "add", "alice"],
        &["chat", "--template", "chat.jinja", "--load", "talk.json"],
    ] {
        let output = run_in(folder, args, format!("{BOM}/set\n").as_bytes());
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn dash_is_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let greedy = |args: &[&str], input: &str| {
        let options = ["generate", "--temperature", "0", "--max-tokens", "4"];
        let output = run_in(folder.path(), &[&options[..], args].concat(), input.as_bytes());
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let expected = greedy(&["the king"], "");
    assert_eq!(greedy(&["-"], "the king\n"), expected);
    assert_eq!(greedy(&["--prompt-file", "-"], "the king\n"), expected);
    for option in ["--load", "--template"] {
        let output = run_in(folder.path(), &["chat", option, "-"], b"Hi\n");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.starts_with(&format!("hornbook: {option}: found -, expected a file")), "{stderr}");
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn utf16_is_named_with_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (text, encoding) in [("\u{feff}The king", "UTF-16"), ("The king", "UTF-16LE")] {
        std::fs::write(folder.join("wide.txt"), utf16(text)).unwrap();
        for (args, name) in [
            (&["tokens", "--prompt-file", "wide.txt"][..], "wide.txt"),
            (&["tokens", "-"], "standard input"),
            (&["perplexity", "wide.txt"], "wide.txt"),
            (&["batch", "wide.txt"], "wide.txt: line 1"),
            (&["chat", "--load", "wide.txt"], "wide.txt"),
            (&["chat", "--template", "wide.txt"], "wide.txt"),
            (&["chat"], "standard input: line 1"),
            (&["keys", "list", "--keys", "wide.txt"], "wide.txt"),
        ] {
            let output = run_in(folder, args, &utf16(text));
            let stderr = String::from_utf8(output.stderr).unwrap();
            let expected = format!(
                "hornbook: {name}: found {encoding} text, expected UTF-8; convert it, e.g. with \
                 iconv -f {encoding} -t UTF-8\n"
            );
            assert_eq!((stderr, output.status.code()), (expected, Some(1)), "{args:?}");
        }
    }
}

/// A device that never ends does not fill the memory.
#[cfg(target_os = "linux")]
#[test]
fn text_without_end_is_one_line_error() {
    for (args, place) in [
        (&["perplexity", "/dev/zero"][..], "cannot read"),
        (&["chat", "--template", "/dev/zero"], "cannot read"),
        (&["batch", "/dev/zero"], "line 1"),
    ] {
        let output = run_in(Path::new("."), args, b"");
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        let problem = "found more than 1073741824 bytes, the maximum for a text";
        assert_eq!(message, format!("hornbook: /dev/zero: {place}: {problem}\n"), "{args:?}");
    }
}
