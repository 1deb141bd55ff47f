//! The report: everything there is to see of one text, in one file for a browser.
//!
//! The page is written by hand and kept beside this file as what it is: `page.html`, `style.css` and three scripts. It asks
//! nothing of a network, and its own policy forbids it to. The numbers lie in it as JSON, the attention patterns packed
//! into bytes (`data.rs`); whatever comes from a text is put on the page by the scripts, as text and never as markup.

mod data;

use super::Inspection;
use super::intervention::Outcome;
use crate::Hornbook;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
/// In the order they run.
const SCRIPTS: [&str; 3] = [include_str!("page.js"), include_str!("attention.js"), include_str!("panels.js")];

/// The report, whole. Where the model was changed, what that did stands at its top.
pub fn html(hornbook: &Hornbook, seen: &Inspection, outcome: Option<&Outcome>) -> String {
    let title = format!("{} – {}", escaped(&excerpt(hornbook, seen)), escaped(hornbook.name()));
    let (data, script) = (in_script(&data::of(hornbook, seen, outcome).to_string()), SCRIPTS.concat());
    let fill = |place: &str| match place {
        "title" => title.as_str(),
        "style" => STYLE,
        "data" => &data,
        "script" => &script,
        other => unreachable!("page.html has no place for {other}"),
    };
    // One pass over the page, so that nothing that is filled in is searched for places.
    let mut pieces = PAGE.split("{{");
    let mut html = pieces.next().unwrap_or_default().to_string();
    for piece in pieces {
        let (place, rest) = piece.split_once("}}").unwrap_or((piece, ""));
        html += fill(place);
        html += rest;
    }
    html
}

/// The text's beginning.
fn excerpt(hornbook: &Hornbook, seen: &Inspection) -> String {
    const LONGEST: usize = 60;
    let text = hornbook.try_tokenizer().map(|tokenizer| tokenizer.decode(&seen.capture.tokens));
    let text = text.unwrap_or_else(|| format!("{} tokens", seen.capture.len()));
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut start: String = plain.take(LONGEST).collect();
    if text.chars().count() > LONGEST {
        start.push('…');
    }
    start
}

/// Text between tags.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// JSON inside a script element: no `<` that could end it or begin a comment. In JSON they only occur within strings.
fn in_script(json: &str) -> String {
    json.replace('<', "\\u003c")
}
