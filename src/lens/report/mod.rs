//! The HTML report: all analyses of one text in one self-contained file.
//!
//! The page is built from `page.html`, `style.css` and three scripts in this folder. It loads nothing from
//! the network, and its content security policy forbids it to. The data is embedded as JSON (`data.rs`), with
//! the attention patterns packed into bytes. The scripts insert text from the prompt only as text, never as
//! markup.

mod data;

use super::Inspection;
use super::intervention::Outcome;
use crate::Hornbook;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = concat!(include_str!("drawing.css"), include_str!("style.css"));
/// In order of execution; the first two are modules, which the server's page imports.
const SCRIPTS: [&str; 5] = [
    include_str!("drawing.js"),
    include_str!("attention_map.js"),
    include_str!("page.js"),
    include_str!("attention.js"),
    include_str!("panels.js"),
];

/// Returns the report. The effect of interventions, if any, is at its top.
pub fn html(hornbook: &Hornbook, inspection: &Inspection, outcome: Option<&Outcome>) -> String {
    let title = format!("{} – {}", escape_html(&excerpt(hornbook, inspection)), escape_html(hornbook.name()));
    let data = escape_script_json(&data::to_json(hornbook, inspection, outcome).to_string());
    let script = single_script();
    let value = |placeholder: &str| match placeholder {
        "title" => title.as_str(),
        "style" => STYLE,
        "data" => &data,
        "script" => &script,
        other => unreachable!("unknown placeholder {other} in page.html"),
    };
    // A single pass over the template, so that inserted text is not searched for placeholders.
    let mut segments = PAGE.split("{{");
    let mut html = segments.next().unwrap_or_default().to_string();
    for segment in segments {
        let (placeholder, rest) = segment.split_once("}}").unwrap_or((segment, ""));
        html += value(placeholder);
        html += rest;
    }
    html
}

/// The scripts as one: modules without their imports and the word `export`.
fn single_script() -> String {
    let mut script = "\"use strict\";\n".to_string();
    let mut in_import = false;
    for line in SCRIPTS.iter().flat_map(|script| script.lines()) {
        in_import |= line.starts_with("import ");
        if !in_import {
            script += line.strip_prefix("export ").unwrap_or(line);
            script.push('\n');
        }
        in_import &= !line.ends_with(".js\";");
    }
    script
}

/// The beginning of the text.
fn excerpt(hornbook: &Hornbook, inspection: &Inspection) -> String {
    const MAX_CHARS: usize = 60;
    let text = hornbook.try_tokenizer().map(|tokenizer| tokenizer.decode(&inspection.activations.tokens));
    let text = text.unwrap_or_else(|| format!("{} tokens", inspection.activations.len()));
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut start: String = printable.take(MAX_CHARS).collect();
    if text.chars().count() > MAX_CHARS {
        start.push('…');
    }
    start
}

/// Escapes text for HTML.
fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Escapes JSON for a script element: `<`, which could end the element or start a comment, occurs only in
/// strings.
fn escape_script_json(json: &str) -> String {
    json.replace('<', "\\u003c")
}
