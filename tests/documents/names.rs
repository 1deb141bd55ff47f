//! Names in documents: paths, anchors, subcommands, flags, environment variables and routes.

use super::markdown::{Document, Located};
use super::{documents, root};
use crate::server::client::fable;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{read_dir, read_to_string};
use std::path::Path;
use std::process::Command;

/// Panics where anything is missing, all at once.
fn report(missing: Vec<String>) {
    assert!(missing.is_empty(), "named but not there:\n{}", missing.join("\n"));
}

#[test]
fn named_paths_exist() {
    let top: Vec<String> = read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| format!("{}/", entry.file_name().to_string_lossy()))
        .collect();
    let (mut missing, mut found) = (vec![], 0);
    for document in documents() {
        for Located { text, line } in words(&document) {
            if text.starts_with("target/") || !top.iter().any(|folder| text.starts_with(folder)) {
                continue;
            }
            found += 1;
            let whole = !text.contains(['*', '{', '<']);
            let path = if whole { Path::new(&text) } else { Path::new(&text).parent().unwrap() };
            if !root().join(path).exists() {
                missing.push(format!("{}: {text}", document.at(line)));
            }
        }
    }
    report(missing);
    assert!(found > 40, "only {found} paths");
}

#[test]
fn links_lead_to_files_and_headings() {
    let documents = documents();
    let (mut missing, mut found) = (vec![], 0);
    for document in &documents {
        for Located { text, line } in &document.links {
            if text.contains("://") {
                continue;
            }
            found += 1;
            let (path, anchor) = text.split_once('#').unwrap_or((text, ""));
            let target = match path {
                "" => document.path.clone(),
                path => normalized(&document.path.parent().unwrap().join(path)),
            };
            let anchors = documents.iter().find(|other| other.path == target).map(|other| &other.anchors);
            let there = root().join(&target).exists()
                && (anchor.is_empty() || anchors.is_some_and(|anchors| anchors.iter().any(|a| a == anchor)));
            if !there {
                missing.push(format!("{}: {text}", document.at(*line)));
            }
        }
    }
    report(missing);
    assert!(found > 20, "only {found} links");
}

/// A relative path without `..`.
fn normalized(path: &Path) -> std::path::PathBuf {
    let mut parts = vec![];
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.into_iter().collect()
}

#[test]
fn named_subcommands_and_flags_exist() {
    let mut help = Help::default();
    let scripts = all_text("scripts") + &all_text("tests/clients") + &all_text(".ci");
    let (mut missing, mut found) = (vec![], 0);
    for document in documents() {
        for Located { text, line } in commands(&document) {
            found += 1;
            missing.extend(help.unknown(&text).map(|word| format!("{}: {word}: {text}", document.at(line))));
        }
        for Located { text, line } in &document.spans {
            // A longer span may be another program's arguments.
            let mut words = text.split([' ', '=']);
            let flag = words.next().unwrap_or_default();
            if flag.starts_with("--") && words.count() <= 1 && !help.anywhere(flag) && !scripts.contains(flag)
            {
                missing.push(format!("{}: {flag}", document.at(*line)));
            }
        }
    }
    report(missing);
    assert!(found > 40, "only {found} commands");
}

#[test]
fn named_environment_variables_are_read() {
    let output = Command::new(env!("CARGO_BIN_EXE_hornbook")).arg("config").output().unwrap();
    let settings = String::from_utf8(output.stdout).unwrap();
    let read = all_text("src") + &all_text("scripts") + &all_text("tests/clients") + &all_text("build.rs");
    let (mut missing, mut found) = (vec![], 0);
    for document in documents() {
        for Located { text, line } in words(&document) {
            let name = text.split('=').next().unwrap_or_default();
            let Some(setting) = name.strip_prefix("HORNBOOK_") else { continue };
            found += 1;
            let setting = setting.to_lowercase();
            let is_setting = settings
                .lines()
                .filter_map(|line| line.split_whitespace().next())
                .any(|known| known.rsplit('.').next() == Some(&setting));
            if !is_setting && !read.contains(name) {
                missing.push(format!("{}: {name}", document.at(line)));
            }
        }
    }
    report(missing);
    assert!(found >= 5, "only {found} environment variables");
}

#[test]
fn named_routes_are_served() {
    let server = fable();
    let (mut missing, mut found) = (vec![], 0);
    for document in documents() {
        for Located { text, line } in words(&document) {
            let path = match text.split_once("http://127.0.0.1:8080") {
                Some((_, path)) => path,
                None => &text,
            };
            let is_route = ["/v1/", "/health", "/metrics", "/openapi.json", "/tokenize", "/detokenize"]
                .iter()
                .any(|start| path.starts_with(start));
            if !is_route {
                continue;
            }
            found += 1;
            let response = server.get(&path.replace("{model}", "fable").replace("{engine}", "fable"));
            if response.text.contains("unknown_url") {
                missing.push(format!("{}: {path}", document.at(line)));
            }
        }
    }
    report(missing);
    assert!(found >= 8, "only {found} routes");
}

/// Words of inline code and of `sh`, `console` and `text` blocks.
fn words(document: &Document) -> Vec<Located> {
    let mut words = vec![];
    let mut add = |text: &str, line: usize| {
        let separators = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '(' | ')' | ',' | '`');
        for word in text.split(separators).map(|word| word.trim_end_matches(['.', ':', ';'])) {
            words.push(Located { text: word.into(), line });
        }
    };
    for span in &document.spans {
        add(&span.text, span.line);
    }
    for block in &document.blocks {
        if ["sh", "console", "text"].contains(&block.info.split(' ').next().unwrap_or_default()) {
            add(&block.text, block.line);
        }
    }
    words
}

/// Commands of `sh` and `console` blocks, and of inline code, that run the program, from its name on.
fn commands(document: &Document) -> Vec<Located> {
    let mut texts: Vec<(String, usize)> =
        document.spans.iter().map(|span| (span.text.clone(), span.line)).collect();
    for block in &document.blocks {
        let text = block.text.replace("\\\n", " "); // a command on several lines
        let lines = text.lines();
        match block.info.split(' ').next() {
            Some("sh") => texts.extend(lines.map(|line| (line.to_string(), block.line))),
            Some("console") => {
                let typed = lines.filter_map(|line| line.strip_prefix("$ "));
                texts.extend(typed.map(|line| (line.to_string(), block.line)));
            }
            _ => {}
        }
    }
    let mut commands = vec![];
    for (text, line) in texts {
        for part in text.replace("cargo run --release --", "hornbook").split(" | ") {
            let is_setting = |word: &&str| {
                word.split_once('=').is_some_and(|(name, _)| {
                    !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
                })
            };
            let command: Vec<&str> = part.trim().split(' ').skip_while(is_setting).collect();
            if command.first() == Some(&"hornbook") {
                commands.push(Located { text: command.join(" "), line });
            }
        }
    }
    commands
}

/// Help pages by subcommand, as the program prints them.
#[derive(Default)]
struct Help(BTreeMap<Vec<String>, Page>);

#[derive(Clone, Default)]
struct Page {
    subcommands: BTreeSet<String>,
    flags: BTreeSet<String>,
}

impl Help {
    fn page(&mut self, path: &[String]) -> &Page {
        self.0.entry(path.to_vec()).or_insert_with(|| {
            let mut help = Command::new(env!("CARGO_BIN_EXE_hornbook"));
            let output = help.args(path).arg("--help").output().unwrap();
            assert!(output.status.success(), "hornbook {} --help", path.join(" "));
            Page::read(&String::from_utf8(output.stdout).unwrap())
        })
    }

    /// The first word of a command line that the program does not know.
    fn unknown(&mut self, command: &str) -> Option<String> {
        let Some(words) = shlex::split(command) else { return Some("unbalanced quotes".into()) };
        let mut path = vec![];
        let mut words = words.into_iter().skip(1).peekable();
        while let Some(word) = words.next_if(|word| self.page(&path).subcommands.contains(word)) {
            path.push(word);
        }
        let page = self.page(&path).clone();
        if path.is_empty() {
            let known = words.peek().is_none_or(|word| word.starts_with('-'));
            return (!known).then(|| format!("no subcommand {}", words.next().unwrap_or_default()));
        }
        let options = words.take_while(|word| word != "--");
        options.filter(|word| word.starts_with('-') && word.parse::<f64>().is_err()).find_map(|word| {
            let flag = word.split('=').next().unwrap_or_default().to_string();
            (flag != "-" && !page.flags.contains(&flag)).then_some(flag)
        })
    }

    /// Whether any subcommand has a flag.
    fn anywhere(&mut self, flag: &str) -> bool {
        let mut open = vec![vec![]];
        while let Some(path) = open.pop() {
            let page = self.page(&path).clone();
            if page.flags.contains(flag) {
                return true;
            }
            for name in page.subcommands.iter().filter(|name| *name != "help") {
                open.push([path.as_slice(), std::slice::from_ref(name)].concat());
            }
        }
        false
    }
}

impl Page {
    fn read(help: &str) -> Self {
        let mut page = Self::default();
        let mut section = "";
        for line in help.lines() {
            if !line.starts_with(' ') {
                section = line;
            } else if section == "Commands:" && line.starts_with("  ") && !line.starts_with("   ") {
                page.subcommands.extend(line.split_whitespace().next().map(String::from));
            } else if line.trim_start().starts_with('-') {
                let names = line.trim_start().split("  ").next().unwrap_or_default();
                let names = names.split([',', ' ', '[', '=']).filter(|word| word.starts_with('-'));
                page.flags.extend(names.map(String::from));
            }
        }
        page
    }
}

/// The text of all files below a folder, or of one file.
fn all_text(path: &str) -> String {
    let path = root().join(path);
    if path.is_file() {
        return read_to_string(&path).unwrap_or_default();
    }
    let entries = read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
    let relative = |path: &Path| path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
    entries.map(|path| all_text(&relative(&path))).collect::<Vec<_>>().join("\n")
}
