//! Blocks that run: `sh run` must succeed, and `console` must print what it shows.

use super::documents;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs a script in an empty folder, with the program just built on the path, without network and without the
/// settings of the person who runs the tests. A server that it starts on port 8080 gets a free port instead,
/// and is stopped at the end.
pub fn run(script: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let script = script.replace("8080", &port.to_string());
    let script = format!("trap '[ -z \"${{!:-}}\" ] || kill $! 2> /dev/null || :' EXIT\n{script}");
    let program = Path::new(env!("CARGO_BIN_EXE_hornbook")).parent().unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([program.to_path_buf()].into_iter().chain(std::env::split_paths(&path)))
        .unwrap();
    let mut command = Command::new("sh");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HORNBOOK_") {
            command.env_remove(name);
        }
    }
    command
        .args(["-eu", "-c", &script])
        .current_dir(folder.path())
        .env("PATH", path)
        .env("HOME", folder.path())
        .env("HF_HUB_OFFLINE", "1")
        .env_remove("XDG_CONFIG_HOME")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
#[cfg(unix)]
fn runnable_blocks_succeed() {
    let mut count = 0;
    for document in documents() {
        for block in document.blocks.iter().filter(|block| block.info == "sh run") {
            count += 1;
            let Output { status, stderr, .. } = run(&block.text);
            assert!(
                status.success(),
                "{}: {status}\n{}{}",
                document.at(block.line),
                block.text,
                String::from_utf8_lossy(&stderr)
            );
        }
    }
    assert!(count >= 10, "only {count} blocks are marked as runnable");
}

#[test]
#[cfg(unix)]
fn console_blocks_show_what_is_printed() {
    let (mut count, mut wrong) = (0, vec![]);
    for document in documents() {
        for block in document.blocks.iter().filter(|block| block.info == "console") {
            for session in format!("\n{}", block.text).split("\n$ ").skip(1) {
                count += 1;
                let (command, expected) = session.split_once('\n').unwrap_or((session, ""));
                let shown = expected.lines().any(|line| !line.trim().is_empty() && line != "...");
                assert!(shown, "{}: $ {command}: shows no output", document.at(block.line));
                let Output { stdout, .. } = run(&format!("{{ {command}\n}} 2>&1"));
                let printed = String::from_utf8_lossy(&stdout).into_owned();
                let lines = |text: &str| -> Vec<String> {
                    text.trim_end().lines().map(|line| line.trim_end().to_string()).collect()
                };
                if !matches(&lines(expected), &lines(&printed)) {
                    wrong.push(format!("{}: $ {command}\n{printed}", document.at(block.line)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "these print something else:\n{}", wrong.join("\n"));
    assert!(count >= 3, "only {count} commands with their output");
}

/// Whether lines are as expected: a line `...` stands for any lines, `[..]` for any part of one.
fn matches(expected: &[String], printed: &[String]) -> bool {
    match (expected.split_first(), printed.split_first()) {
        (None, rest) => rest.is_none(),
        (Some((first, rest)), _) if first == "..." => {
            (0..=printed.len()).any(|skipped| matches(rest, &printed[skipped..]))
        }
        (Some(_), None) => false,
        (Some((first, rest)), Some((line, lines))) => line_matches(first, line) && matches(rest, lines),
    }
}

fn line_matches(expected: &str, line: &str) -> bool {
    let mut parts = expected.split("[..]");
    let Some(mut rest) = parts.next().and_then(|start| line.strip_prefix(start)) else { return false };
    let mut open = false;
    for part in parts {
        match (part.is_empty(), rest.find(part)) {
            (true, _) => {}
            (false, Some(at)) => rest = &rest[at + part.len()..],
            (false, None) => return false,
        }
        open = part.is_empty();
    }
    open || rest.is_empty()
}

#[test]
fn wildcards_match_lines_and_parts_of_them() {
    let lines = |text: &str| text.lines().map(String::from).collect::<Vec<_>>();
    let same = |expected, printed| matches(&lines(expected), &lines(printed));
    assert!(same("a\n...\nd", "a\nb\nc\nd") && same("a\n...", "a") && same("load [..] ms", "load 4.0 ms"));
    assert!(same("[..] ms, [..]", "1 ms, fast") && same("...", ""));
    assert!(!same("a\n...\nd", "a\nb") && !same("load [..] ms", "load 4.0 s") && !same("a", "a\nb"));
    assert!(!same("a", "ab") && !same("a\nb", "a"));
}
