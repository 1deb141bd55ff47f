//! The examples at the end of the help pages run, in their order, in one folder per page.

use super::commands::run;
use std::process::{Command, Output};

/// Parts of examples that cannot be tried here: they need another model, an adapter or the network, serve
/// until they are stopped, need another program's prompt, or measure for long.
const SKIPPED: [&str; 11] = [
    "gpt2",
    "--adapter",
    "hornbook pull",
    "hornbook serve",
    "hornbook health",
    "curl",
    "--against torch",
    "$PROFILE",
    "man -l",
    "jq ",
    "hornbook bench",
];

fn help(page: &[String]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_hornbook")).args(page).arg("--help").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Help pages, by the subcommands that lead to them.
fn pages(page: &[String]) -> Vec<Vec<String>> {
    let text = help(page);
    let listed = text.split_once("\nCommands:\n").map_or("", |(_, list)| list.split("\n\n").next().unwrap());
    let names = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    let below = names.flat_map(|name| pages(&[page, &[name.to_string()]].concat()));
    [page.to_vec()].into_iter().chain(below).collect()
}

/// The lines of a page's examples without their descriptions, which follow at least two spaces.
fn examples(text: &str) -> Vec<&str> {
    let lines = text.lines().skip_while(|line| !line.starts_with("Examples")).skip(1);
    let lines = lines.take_while(|line| !line.is_empty()).map(str::trim);
    lines.map(|line| line.split("  ").next().unwrap()).collect()
}

#[test]
#[cfg(unix)]
#[cfg_attr(debug_assertions, ignore = "takes minutes without optimization")]
fn help_page_examples_run() {
    let (mut count, mut wrong) = (0, vec![]);
    for page in pages(&[]) {
        let text = help(&page);
        let lines = examples(&text);
        let is_tried = |line: &&&str| !SKIPPED.iter().any(|part| line.contains(part));
        let tried: Vec<&str> = lines.iter().filter(is_tried).copied().collect();
        count += tried.len();
        let Output { status, stderr, .. } = run(&tried.join("\n"));
        if !status.success() {
            let stderr = String::from_utf8_lossy(&stderr);
            wrong.push(format!("hornbook {} --help: {status}\n{stderr}", page.join(" ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 60, "only {count} examples");
}

#[test]
fn examples_are_separated_from_descriptions() {
    let text = "Usage: x\n\nExamples:\n  a \"b c\"   a description\n  d | e\n\nEnvironment:\n  F  g";
    assert_eq!(examples(text), ["a \"b c\"", "d | e"]);
    assert!(pages(&[]).contains(&vec!["bench".into(), "attention".into()]));
}
