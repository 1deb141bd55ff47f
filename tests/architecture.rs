//! The house's rules: arrows between modules point one way, `unsafe` stays where it is explained, and every file can
//! be read in one sitting.

use std::collections::BTreeMap;
use std::fs::{read_dir, read_to_string};
use std::path::{Path, PathBuf};

/// What each module may know. What stands on top may know everything but its neighbours.
const BELOW: [(&str, &[&str]); 9] = [
    ("error", &[]),
    ("atomic_file", &["error"]),
    ("kernels", &["error"]),
    ("checkpoint", &["error", "atomic_file", "kernels"]),
    ("tokenizer", &["error"]),
    ("sampling", &["error"]),
    ("model", &["error", "kernels", "checkpoint"]),
    ("generate", &["error", "kernels", "checkpoint", "tokenizer", "sampling", "model"]),
    ("chat", &["error", "kernels", "checkpoint", "tokenizer", "sampling", "model", "generate"]),
];
const ENGINE: &str = "engine";
const ON_TOP: [&str; 5] = ["server", "lens", "bench", "train", "hub"];
const CLI: &str = "cli";

const LONGEST_FILE: usize = 450;
/// Where `unsafe` may be: vector instructions and threads, and the memory map.
const UNSAFE: [&str; 2] = ["kernels", "checkpoint"];
/// Lines between a reason and what it is the reason for.
const NEARBY: usize = 5;

fn may_know(module: &str, other: &str) -> bool {
    let below = |name: &str| BELOW.iter().any(|(module, _)| *module == name);
    match BELOW.iter().find(|(name, _)| *name == module) {
        Some((_, allowed)) => allowed.contains(&other),
        None if module == ENGINE => below(other),
        None if ON_TOP.contains(&module) => below(other) || other == ENGINE,
        None if module == CLI => true,
        None => panic!("src/{module} is new: say in this test what it may know"),
    }
}

/// A file under src.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// Path components below src, `mod.rs` and the extension taken off.
    fn module(&self) -> Vec<String> {
        let path = self.path.with_extension("");
        let mut parts: Vec<String> =
            path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        parts.pop_if(|last| last == "mod");
        parts
    }

    /// The text without comments and tests, string literals emptied; line numbers stay.
    fn code(&self) -> String {
        let mut tests: Option<String> = None;
        let mut marked = false;
        let mut code = String::new();
        for line in self.text.lines() {
            let bare = without_comments_and_strings(line);
            let indent: String = line.chars().take_while(|c| *c == ' ').collect();
            if let Some(end) = &tests {
                if line == end {
                    tests = None;
                }
            } else if bare.trim() == "#[cfg(test)]" {
                marked = true;
            } else if marked && !bare.trim().starts_with("#[") && !bare.trim().is_empty() {
                marked = false;
                if !bare.trim_end().ends_with(';') {
                    tests = Some(indent + "}");
                }
            } else if !marked {
                code += &bare;
            }
            code.push('\n');
        }
        assert!(tests.is_none(), "{}: where do the tests end?", self.path.display());
        code
    }
}

fn without_comments_and_strings(line: &str) -> String {
    let (mut bare, mut in_string) = (String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if in_string => drop(chars.next()),
            '"' => in_string = !in_string,
            '/' if !in_string && chars.peek() == Some(&'/') => break,
            '\'' if !in_string && chars.peek() == Some(&'"') => drop(chars.next()), // '"'
            c if !in_string => bare.push(c),
            _ => {}
        }
    }
    bare
}

fn sources() -> Vec<Source> {
    fn walk(root: &Path, folder: &Path, all: &mut Vec<Source>) {
        for entry in read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, all);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = read_to_string(&path).unwrap();
                all.push(Source { path: path.strip_prefix(root).unwrap().to_path_buf(), text });
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = vec![];
    walk(&root, &root, &mut all);
    all.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(all.len() > 40);
    all
}

/// Every path in `code` that starts at the crate's root or climbs out of its file, as components from the root, one
/// for each leaf of a `use` tree.
fn paths(code: &str, module: &[String]) -> Vec<Vec<String>> {
    let mut all = vec![];
    for (keyword, start) in [("crate::", vec![]), ("super::", module[..module.len() - 1].to_vec())] {
        let mut from = 0;
        while let Some(at) = code[from..].find(keyword).map(|at| at + from) {
            from = at + keyword.len();
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | ':')) {
                continue; // the end of another name, or a later part of a path
            }
            leaves(&mut code[from..].chars().peekable(), start.clone(), &mut all);
        }
    }
    all
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Reads one `use` tree or path, and adds its leaves.
fn leaves(rest: &mut Chars, mut path: Vec<String>, all: &mut Vec<Vec<String>>) {
    loop {
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        if rest.next_if_eq(&'{').is_some() {
            loop {
                while rest.next_if(|c| c.is_whitespace() || *c == ',').is_some() {}
                if rest.next_if_eq(&'}').is_some() || rest.peek().is_none() {
                    return;
                }
                leaves(rest, path.clone(), all);
            }
        }
        let mut name = String::new();
        while let Some(c) = rest.next_if(|c| c.is_alphanumeric() || matches!(c, '_' | '*')) {
            name.push(c);
        }
        match name.as_str() {
            "super" => drop(path.pop()),
            "self" => {}
            "" => drop(rest.next()), // a macro's `$name`
            _ => path.push(name),
        }
        if rest.next_if_eq(&':').is_none() || rest.next_if_eq(&':').is_none() {
            skip_rename(rest);
            return all.push(path);
        }
    }
}

/// ` as name`
fn skip_rename(rest: &mut Chars) {
    let mut ahead = rest.clone();
    let next: String = ahead.by_ref().take(4).collect();
    if next == " as " {
        while ahead.next_if(|c| c.is_alphanumeric() || *c == '_').is_some() {}
        *rest = ahead;
    }
}

/// Names that lib.rs lifts to the root, and the modules they come from.
fn reexports(sources: &[Source]) -> BTreeMap<String, String> {
    let lib = sources.iter().find(|source| source.path == Path::new("lib.rs")).unwrap().code();
    let mut found = BTreeMap::new();
    for item in lib.split(';').filter_map(|item| item.trim().strip_prefix("pub use ")) {
        let mut all = vec![];
        leaves(&mut item.chars().peekable(), vec![], &mut all);
        for path in all {
            found.insert(path[path.len() - 1].clone(), path[0].clone());
        }
    }
    assert_eq!(found.get("Hornbook").map(String::as_str), Some("generate"));
    found
}

#[test]
fn arrows_point_one_way() {
    let sources = sources();
    let reexports = reexports(&sources);
    let (mut wrong, mut edges) = (vec![], BTreeMap::new());
    for source in &sources {
        let module = source.module();
        if module == ["lib"] || module == ["main"] {
            continue;
        }
        for path in paths(&source.code(), &module) {
            let Some(first) = path.first() else { continue };
            let other = reexports.get(first).unwrap_or(first);
            if *other == module[0] {
                continue;
            }
            *edges.entry((module[0].clone(), other.clone())).or_insert(0) += 1;
            let types_only =
                module[0] != "checkpoint" || path.iter().any(|part| part.starts_with(char::is_uppercase));
            if !may_know(&module[0], other) || !types_only {
                wrong.push(format!("src/{} uses {}", source.path.display(), path.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that point the wrong way:\n{}", wrong.join("\n"));
    // The reading above has found the arrows everyone knows of.
    for (from, to) in [
        ("checkpoint", "kernels"),
        ("model", "checkpoint"),
        ("model", "kernels"),
        ("generate", "model"),
        ("generate", "sampling"),
        ("generate", "tokenizer"),
        ("cli", "generate"),
        ("sampling", "error"),
    ] {
        assert!(edges.contains_key(&(from.into(), to.into())), "{from} -> {to} was not found in {edges:?}");
    }
}

#[test]
fn a_path_is_read_as_the_compiler_reads_it() {
    let module = ["generate".to_string(), "beams".to_string()];
    let code = "use crate::{Error, model::{self, KvCache as Cache}, kernels::rows::*};\n\
                use super::Hornbook;\nuse super::super::server::Queue;\nlet x = crate::cli::run(super::beams::y);\n\
                pub(in crate::kernels) fn f() {}";
    let mut found: Vec<String> = paths(code, &module).iter().map(|path| path.join("::")).collect();
    found.sort();
    let expected = [
        "Error",
        "cli::run",
        "generate::Hornbook",
        "generate::beams::y",
        "kernels",
        "kernels::rows::*",
        "model",
        "model::KvCache",
        "server::Queue",
    ];
    assert_eq!(found, expected);
    assert!(may_know("cli", "server") && may_know("server", "engine") && may_know("engine", "generate"));
    assert!(!may_know("server", "lens") && !may_know("generate", "engine") && !may_know("kernels", "model"));
}

#[test]
fn unsafe_is_where_it_may_be_and_says_why() {
    let (mut wrong, mut found) = (vec![], 0);
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (i, line) in source.code().lines().enumerate() {
            let is_word = |word: &str| word == "unsafe";
            if !line.split(|c: char| !c.is_alphanumeric() && c != '_').any(is_word) {
                continue;
            }
            found += 1;
            let place = format!("src/{}:{}", source.path.display(), i + 1);
            if !UNSAFE.contains(&source.module()[0].as_str()) {
                wrong.push(format!("{place}: unsafe may only be in {}", UNSAFE.join(" and ")));
            }
            // For a function, its documentation says what the caller promises.
            let documentation = (0..i).rev().take_while(|&j| lines[j].trim().starts_with(['/', '#']));
            let promised = line.contains("unsafe fn")
                && documentation
                    .into_iter()
                    .any(|j| lines[j].contains("# Safety") || lines[j].contains("SAFETY"));
            let explained = lines[i.saturating_sub(NEARBY)..=i].iter().any(|line| line.contains("SAFETY:"));
            if !promised && !explained {
                wrong.push(format!("{place}: no SAFETY comment: {}", lines[i].trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(found > 20, "only {found} lines with unsafe were found");
}

#[test]
fn every_file_can_be_read_in_one_sitting() {
    let long: Vec<String> = sources()
        .iter()
        .map(|source| (source.path.display().to_string(), source.text.lines().count()))
        .filter(|(_, lines)| *lines > LONGEST_FILE)
        .map(|(path, lines)| format!("src/{path} has {lines} lines, expected at most {LONGEST_FILE}"))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}
