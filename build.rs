//! Tells the program which commit it was built from, where that can be known: from the environment, from what Cargo
//! writes into a published crate, or from git.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=HORNBOOK_COMMIT");
    let named = std::env::var("HORNBOOK_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = named.or_else(published).or_else(checked_out);
    let short = commit.map(|commit| commit.trim().chars().take(12).collect::<String>());
    println!("cargo::rustc-env=HORNBOOK_COMMIT={}", short.unwrap_or_default());
}

/// The commit of a crate that was packed by Cargo.
fn published() -> Option<String> {
    let info = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let hash = info.split("\"sha1\"").nth(1)?.split('"').nth(1)?;
    Some(hash.to_string())
}

/// The commit of a working tree, and a note to look again when another one is there.
fn checked_out() -> Option<String> {
    // In a tree within another one, git would speak of that.
    if !Path::new(".git").exists() {
        return None;
    }
    let git = |arguments: &[&str]| -> Option<String> {
        let output =
            Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok().map(|text| text.trim().to_string())
    };
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "HEAD"])
}
