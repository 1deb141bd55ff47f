//! Architecture rules: dependencies between modules are acyclic, `unsafe` is confined and explained, and
//! files are short.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{read_dir, read_to_string};
use std::path::{Path, PathBuf};

/// The modules each lower module may depend on. Top-level modules may depend on all of these and on the
/// engine, but not on one another.
const LOWER_MODULES: [(&str, &[&str]); 15] = [
    ("error", &["kernels"]),
    ("text_file", &["error"]),
    ("atomic_file", &["error"]),
    ("batch", &["error", "text_file"]),
    ("memory", &["error"]),
    ("kernels", &[]), // a crate of its own
    ("checkpoint", &["error", "text_file", "atomic_file", "kernels", "sampling"]),
    ("tokenizer", &["error", "text_file"]),
    ("sampling", &["error", "kernels"]),
    ("model", &["error", "kernels", "checkpoint"]),
    ("train", &["error", "text_file", "memory", "kernels", "checkpoint", "tokenizer", "sampling", "chat"]),
    ("generate", &["error", "kernels", "checkpoint", "tokenizer", "sampling", "model"]),
    ("lens", &["error", "kernels", "checkpoint", "tokenizer", "sampling", "model", "generate"]),
    ("bench", &["error", "kernels", "checkpoint", "sampling", "model", "generate", "train"]),
    ("chat", &["error", "text_file", "kernels", "checkpoint", "tokenizer", "sampling", "model", "generate"]),
];
const ENGINE: &str = "engine";
const TOP_MODULES: [&str; 2] = ["server", "hub"];
const CLI: &str = "cli";

const MAX_FILE_LINES: usize = 450;
const MAX_LINE_WIDTH: usize = 110;
/// The modules that may use `unsafe`: vector instructions and threads, and memory-mapped files.
const UNSAFE_MODULES: [&str; 2] = ["kernels", "checkpoint"];
/// The maximum distance in lines from a SAFETY comment to the `unsafe` it explains.
const MAX_SAFETY_DISTANCE: usize = 5;

fn may_depend_on(module: &str, other: &str) -> bool {
    let is_lower = |name: &str| LOWER_MODULES.iter().any(|(module, _)| *module == name);
    match LOWER_MODULES.iter().find(|(name, _)| *name == module) {
        Some((_, allowed)) => allowed.contains(&other),
        None if module == ENGINE => is_lower(other),
        None if TOP_MODULES.contains(&module) => is_lower(other) || other == ENGINE,
        None if module == CLI => true,
        None => panic!("src/{module} is new: add its allowed dependencies to this test"),
    }
}

/// A source file under src.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// The path components below src, without `mod.rs` and the extension.
    fn module(&self) -> Vec<String> {
        let path = self.path.with_extension("");
        let mut parts: Vec<String> =
            path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        parts.pop_if(|last| last == "mod");
        parts
    }

    /// The text without comments, string contents and test modules. Line numbers are preserved.
    fn code(&self) -> String {
        let mut tests_end: Option<String> = None;
        let mut after_cfg_test = false;
        let mut code = String::new();
        for line in self.text.lines() {
            let stripped = without_comments_and_strings(line);
            let indent: String = line.chars().take_while(|c| *c == ' ').collect();
            if let Some(end) = &tests_end {
                if line == end {
                    tests_end = None;
                }
            } else if stripped.trim() == "#[cfg(test)]" {
                after_cfg_test = true;
            } else if after_cfg_test && !stripped.trim().starts_with("#[") && !stripped.trim().is_empty() {
                after_cfg_test = false;
                if !stripped.trim_end().ends_with(';') {
                    tests_end = Some(indent + "}");
                }
            } else if !after_cfg_test {
                code += &stripped;
            }
            code.push('\n');
        }
        assert!(tests_end.is_none(), "{}: found no end of the tests", self.path.display());
        code
    }
}

fn without_comments_and_strings(line: &str) -> String {
    let (mut stripped, mut in_string) = (String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if in_string => drop(chars.next()),
            '"' => in_string = !in_string,
            '/' if !in_string && chars.peek() == Some(&'/') => break,
            '\'' if !in_string && chars.peek() == Some(&'"') => drop(chars.next()), // '"'
            c if !in_string => stripped.push(c),
            _ => {}
        }
    }
    stripped
}

/// Reads the Rust files below `folder` into `all`, with paths relative to `root`.
fn collect_sources(root: &Path, folder: &Path, all: &mut Vec<Source>) {
    for entry in read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_sources(root, &path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = read_to_string(&path).unwrap();
            all.push(Source { path: path.strip_prefix(root).unwrap().to_path_buf(), text });
        }
    }
}

/// The files under src.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = vec![];
    collect_sources(&root, &root, &mut all);
    all.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(all.len() > 40);
    all
}

/// Every path in `code` that starts with `crate` or `super`, as components from the crate root, one for each
/// leaf of a `use` tree.
fn paths(code: &str, module: &[String]) -> Vec<Vec<String>> {
    let mut all = vec![];
    // The kernels are a crate of their own, whose root is src/kernels.
    let root = module.iter().take(1).filter(|first| *first == "kernels").cloned().collect();
    for (keyword, start) in [("crate::", root), ("super::", module[..module.len() - 1].to_vec())] {
        let mut offset = 0;
        while let Some(found) = code[offset..].find(keyword).map(|found| found + offset) {
            offset = found + keyword.len();
            let previous = code[..found].chars().next_back();
            if previous.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | ':')) {
                continue; // the end of another identifier, or a later component of a path
            }
            collect_leaves(&mut code[offset..].chars().peekable(), start.clone(), &mut all);
        }
    }
    all
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Parses one `use` tree or path and adds its leaves to `all`.
fn collect_leaves(rest: &mut Chars, mut path: Vec<String>, all: &mut Vec<Vec<String>>) {
    loop {
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        if rest.next_if_eq(&'{').is_some() {
            loop {
                while rest.next_if(|c| c.is_whitespace() || *c == ',').is_some() {}
                if rest.next_if_eq(&'}').is_some() || rest.peek().is_none() {
                    return;
                }
                collect_leaves(rest, path.clone(), all);
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
            skip_alias(rest);
            return all.push(path);
        }
    }
}

/// Skips ` as name`.
fn skip_alias(rest: &mut Chars) {
    let mut lookahead = rest.clone();
    let next: String = lookahead.by_ref().take(4).collect();
    if next == " as " {
        while lookahead.next_if(|c| c.is_alphanumeric() || *c == '_').is_some() {}
        *rest = lookahead;
    }
}

/// The names that lib.rs re-exports, and the modules that define them.
fn reexports(sources: &[Source]) -> BTreeMap<String, String> {
    let lib = sources.iter().find(|source| source.path == Path::new("lib.rs")).unwrap().code();
    let mut reexports = BTreeMap::new();
    for item in lib.split(';').filter_map(|item| item.trim().strip_prefix("pub use ")) {
        let mut paths = vec![];
        collect_leaves(&mut item.chars().peekable(), vec![], &mut paths);
        for path in paths {
            reexports.insert(path[path.len() - 1].clone(), path[0].clone());
        }
    }
    assert_eq!(reexports.get("Hornbook").map(String::as_str), Some("generate"));
    reexports
}

#[test]
fn module_dependencies_follow_layers() {
    let sources = sources();
    let reexports = reexports(&sources);
    let (mut violations, mut edges) = (vec![], BTreeMap::new());
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
            // Of the kernels, a checkpoint uses types, threads and a table, but computes with none.
            let is_no_kernel = (&*module[0], &**other) != ("checkpoint", "kernels")
                || path.iter().any(|part| {
                    ["parallel", "sinusoidal"].contains(&&**part) || part.starts_with(char::is_uppercase)
                });
            if !may_depend_on(&module[0], other) || !is_no_kernel {
                violations.push(format!("src/{} uses {}", source.path.display(), path.join("::")));
            }
        }
    }
    assert!(violations.is_empty(), "forbidden dependencies:\n{}", violations.join("\n"));
    // Known dependencies must be among those found.
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

/// `HORNBOOK_ISA` forces a whole run: nothing but the kernels' SIMD backends asks the processor for its
/// features or is compiled for others than the target's.
#[test]
fn only_simd_backends_depend_on_cpu_features() {
    let words = ["target_feature", "is_x86_feature_detected", "cpuid", "multiversion"];
    let mut found_in_backends = 0;
    for source in sources() {
        let count = words.iter().filter(|word| source.code().contains(**word)).count();
        if source.path.starts_with("kernels/simd") {
            found_in_backends += count;
        } else {
            assert_eq!(count, 0, "src/{} depends on CPU features", source.path.display());
        }
    }
    assert!(found_in_backends > 3);
}

/// The files that form a circle with `start`: it uses them and they use it, directly or through others.
fn circle(start: &[String], uses: &BTreeMap<Vec<String>, BTreeSet<Vec<String>>>) -> Vec<Vec<String>> {
    let reachable = |from: &[String]| {
        let (mut seen, mut stack) = (BTreeSet::new(), vec![from.to_vec()]);
        while let Some(file) = stack.pop() {
            for next in uses.get(&file).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    stack.push(next.clone());
                }
            }
        }
        seen
    };
    reachable(start).into_iter().filter(|file| file != start && reachable(file).contains(start)).collect()
}

/// Files do not use one another in circles. A folder's `mod.rs` and the files in it may use each other.
#[test]
fn files_do_not_form_circles() {
    let sources = sources();
    let modules: BTreeSet<Vec<String>> = sources.iter().map(Source::module).collect();
    let mut uses: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    for source in &sources {
        let module = source.module();
        for path in paths(&source.code(), &module) {
            // The file that defines the item: the longest prefix that is a module.
            let defined_in = (1..=path.len()).rev().map(|n| &path[..n]).find(|part| modules.contains(*part));
            let Some(file) = defined_in else { continue };
            if !module.starts_with(file) && !file.starts_with(&module) {
                uses.entry(module.clone()).or_default().insert(file.to_vec());
            }
        }
    }
    assert!(uses.values().map(BTreeSet::len).sum::<usize>() > 300, "the paths of `use` are not found");
    let mut circles: Vec<String> = vec![];
    for file in uses.keys() {
        let others = circle(file, &uses);
        if !others.is_empty() {
            let others: Vec<String> = others.iter().map(|other| other.join("/")).collect();
            circles.push(format!("{}: {}", file.join("/"), others.join(", ")));
        }
    }
    assert!(circles.is_empty(), "files that use one another in a circle:\n{}", circles.join("\n"));
}

/// Every module that the rules name exists.
#[test]
fn rules_name_modules_that_exist() {
    let sources = sources();
    let exists = |name: &&str| sources.iter().any(|source| source.module()[0] == **name);
    let lower =
        LOWER_MODULES.iter().flat_map(|(name, others)| [*name].into_iter().chain(others.iter().copied()));
    let unknown: Vec<&str> = lower
        .chain(TOP_MODULES)
        .chain(UNSAFE_MODULES)
        .chain([ENGINE, CLI])
        .filter(|name| !exists(name))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn use_paths_are_resolved_from_crate_root() {
    let module = ["generate".to_string(), "beams".to_string()];
    let code = "use crate::{Error, model::{self, KvCache as Cache}, kernels::rows::*};\n\
                use super::Hornbook;\nuse super::super::server::Queue;\n\
                let x = crate::cli::run(super::beams::y);\n\
                pub(in crate::kernels) fn f() {}";
    let mut resolved: Vec<String> = paths(code, &module).iter().map(|path| path.join("::")).collect();
    resolved.sort();
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
    assert_eq!(resolved, expected);
    assert!(
        may_depend_on("cli", "server")
            && may_depend_on("server", "engine")
            && may_depend_on("engine", "generate")
    );
    assert!(
        !may_depend_on("server", "hub")
            && !may_depend_on("generate", "engine")
            && !may_depend_on("kernels", "model")
    );
}

#[test]
fn unsafe_is_confined_and_explained() {
    let (mut violations, mut count) = (vec![], 0);
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (i, line) in source.code().lines().enumerate() {
            let is_unsafe = |word: &str| word == "unsafe";
            if !line.split(|c: char| !c.is_alphanumeric() && c != '_').any(is_unsafe) {
                continue;
            }
            count += 1;
            let location = format!("src/{}:{}", source.path.display(), i + 1);
            if !UNSAFE_MODULES.contains(&source.module()[0].as_str()) {
                let allowed = UNSAFE_MODULES.join(" and ");
                violations.push(format!("{location}: unsafe is only allowed in {allowed}"));
            }
            // An unsafe function documents the caller's obligations.
            let documentation = (0..i).rev().take_while(|&j| lines[j].trim().starts_with(['/', '#']));
            let is_documented = line.contains("unsafe fn")
                && documentation
                    .into_iter()
                    .any(|j| lines[j].contains("# Safety") || lines[j].contains("SAFETY"));
            let nearby = &lines[i.saturating_sub(MAX_SAFETY_DISTANCE)..=i];
            let is_explained = nearby.iter().any(|line| line.contains("SAFETY:"));
            if !is_documented && !is_explained {
                violations.push(format!("{location}: no SAFETY comment: {}", lines[i].trim()));
            }
        }
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
    assert!(count > 20, "found only {count} lines with unsafe");
}

/// The standard library's macros panic if nobody reads standard output or standard error.
#[test]
fn panicking_print_macros_are_not_used() {
    let mut uses = vec![];
    for source in sources() {
        for (i, line) in source.code().lines().enumerate() {
            if ["println!", "print!", "eprintln!", "eprint!", "dbg!"].iter().any(|name| line.contains(name)) {
                uses.push(format!("src/{}:{}: {}", source.path.display(), i + 1, line.trim()));
            }
        }
    }
    assert!(uses.is_empty(), "use stderr_line! or write_line instead:\n{}", uses.join("\n"));
}

/// A module with files of its own is `x/mod.rs`, never `x.rs` beside `x/`.
#[test]
fn modules_have_one_style() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let both: Vec<_> = sources()
        .iter()
        .map(|source| source.path.with_extension(""))
        .filter(|module| root.join(module).is_dir())
        .collect();
    assert!(both.is_empty(), "{both:?} have both a file and a folder");
}

#[test]
fn source_files_are_short() {
    let too_long: Vec<String> = sources()
        .iter()
        .map(|source| (source.path.display().to_string(), source.text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_FILE_LINES)
        .map(|(path, lines)| format!("src/{path} has {lines} lines, expected at most {MAX_FILE_LINES}"))
        .collect();
    assert!(too_long.is_empty(), "{}", too_long.join("\n"));
}

#[test]
fn source_lines_are_at_most_110_characters() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let build = PathBuf::from("build.rs");
    let mut files = vec![Source { text: read_to_string(root.join(&build)).unwrap(), path: build }];
    for folder in ["src", "tests", "benches", "python/src"] {
        collect_sources(root, &root.join(folder), &mut files);
    }
    let mut too_wide = vec![];
    for file in &files {
        for (i, line) in file.text.lines().enumerate() {
            let width = line.chars().count();
            if width > MAX_LINE_WIDTH {
                let path = file.path.display();
                let limit = MAX_LINE_WIDTH;
                too_wide.push(format!("{path}:{}: {width} characters, expected at most {limit}", i + 1));
            }
        }
    }
    assert!(too_wide.is_empty(), "{}", too_wide.join("\n"));
}
