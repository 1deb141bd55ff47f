//! Sets `HORNBOOK_COMMIT` to the commit that is built, taken from the environment, from the metadata of a
//! packaged crate or from git; empty where none of them knows it.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=HORNBOOK_COMMIT");
    let from_env = std::env::var("HORNBOOK_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = from_env.or_else(packaged_commit).or_else(git_commit);
    let short = commit.map(|commit| commit.trim().chars().take(12).collect::<String>());
    println!("cargo::rustc-env=HORNBOOK_COMMIT={}", short.unwrap_or_default());
}

/// The commit recorded by `cargo package`.
fn packaged_commit() -> Option<String> {
    let info = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let hash = info.split("\"sha1\"").nth(1)?.split('"').nth(1)?;
    Some(hash.to_string())
}

/// The commit checked out in the working tree; tells Cargo to rerun this script when it changes.
fn git_commit() -> Option<String> {
    // Without a repository of its own, the tree may lie within another one, whose commit git would report.
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
