//! README.md and the documents in docs/: their commands run, their sample outputs are what the program
//! prints, and every path, anchor, subcommand, flag, variable and route they name exists. The examples of the
//! help pages run too.

mod commands;
mod examples;
mod markdown;
mod names;

use markdown::Document;
use std::collections::BTreeSet;
use std::fs::{read_dir, read_to_string};
use std::path::{Path, PathBuf};

/// The most lines of README.md: one sitting.
const MAX_README_LINES: usize = 200;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document for people, by its path from the root.
fn documents() -> Vec<Document> {
    let mut paths: Vec<PathBuf> = [
        "README.md",
        "CONTRIBUTING.md",
        "deploy/kubernetes/README.md",
        "fuzz/README.md",
        "models/fable/MODEL_CARD.md",
    ]
    .map(PathBuf::from)
    .into();
    for entry in read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name();
        if Path::new(&name).extension().is_some_and(|extension| extension == "md") {
            paths.push(Path::new("docs").join(name));
        }
    }
    paths.sort();
    assert!(paths.len() >= 10, "{paths:?}");
    paths.into_iter().map(|path| Document::read(root(), path)).collect()
}

#[test]
fn readme_fits_one_sitting() {
    let lines = read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(lines <= MAX_README_LINES, "README.md has {lines} lines, expected at most {MAX_README_LINES}");
}

#[test]
fn table_of_contents_lists_every_document() {
    let documents = documents();
    let contents = documents.iter().find(|document| document.path == Path::new("docs/README.md")).unwrap();
    let listed: BTreeSet<PathBuf> =
        contents.links.iter().map(|link| Path::new("docs").join(&link.text)).collect();
    for document in documents.iter().filter(|document| document.path.starts_with("docs")) {
        assert!(
            document.path == contents.path || listed.contains(&document.path),
            "docs/README.md does not list {}",
            document.path.display()
        );
    }
}

#[test]
fn code_map_lists_the_modules_there_are() {
    let documents = documents();
    let architecture =
        documents.iter().find(|document| document.path == Path::new("docs/architecture.md")).unwrap();
    let map = architecture.blocks.iter().find(|block| block.text.starts_with("src/")).expect("a code map");
    let listed: BTreeSet<String> =
        map.text.lines().filter_map(|line| line.split_whitespace().next()).map(String::from).collect();
    let present: BTreeSet<String> = read_dir(root().join("src"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() { format!("src/{name}/") } else { format!("src/{name}") }
        })
        .collect();
    assert_eq!(listed, present, "{}", architecture.at(map.line));
}
