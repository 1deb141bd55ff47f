//! The page at `/`: write, look, learn and train in a browser. Its files are part of the program and load
//! nothing from elsewhere, which the content security policy also forbids; all it shows comes from the routes
//! that any other client uses.

use super::AppState;
use super::error::ApiError;
use crate::lens::source_doc::SOURCES;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// What the page may load: its own files and this server's answers.
const POLICY: &str = "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; \
                      base-uri 'none'; form-action 'none'";
const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page's files, by name: those of this folder, and the drawing code that reports have too.
const FILES: &[(&str, &str, &str)] = &[
    ("style.css", CSS, include_str!("style.css")),
    ("page.js", SCRIPT, include_str!("page.js")),
    ("api.js", SCRIPT, include_str!("api.js")),
    ("write.js", SCRIPT, include_str!("write.js")),
    ("settings.js", SCRIPT, include_str!("settings.js")),
    ("editor.js", SCRIPT, include_str!("editor.js")),
    ("history.js", SCRIPT, include_str!("history.js")),
    ("code.js", SCRIPT, include_str!("code.js")),
    ("files.js", SCRIPT, include_str!("files.js")),
    ("label.js", SCRIPT, include_str!("label.js")),
    ("generation.js", SCRIPT, include_str!("generation.js")),
    ("chat.js", SCRIPT, include_str!("chat.js")),
    ("train.js", SCRIPT, include_str!("train.js")),
    ("job.js", SCRIPT, include_str!("job.js")),
    ("loss_curve.js", SCRIPT, include_str!("loss_curve.js")),
    ("learn.html", HTML, include_str!("learn.html")),
    ("learn.js", SCRIPT, include_str!("learn.js")),
    ("figures.js", SCRIPT, include_str!("figures.js")),
    ("activation_plot.js", SCRIPT, include_str!("activation_plot.js")),
    ("alternatives.js", SCRIPT, include_str!("alternatives.js")),
    ("scroll_hint.js", SCRIPT, include_str!("scroll_hint.js")),
    ("head_words.js", SCRIPT, include_str!("head_words.js")),
    ("look.js", SCRIPT, include_str!("look.js")),
    ("look_panel.js", SCRIPT, include_str!("look_panel.js")),
    ("measure.css", CSS, include_str!("measure.css")),
    ("measure.js", SCRIPT, include_str!("measure.js")),
    ("roofline.js", SCRIPT, include_str!("roofline.js")),
    ("attention_kernels.js", SCRIPT, include_str!("attention_kernels.js")),
    ("chart.js", SCRIPT, include_str!("chart.js")),
    ("drawing.css", CSS, include_str!("../../lens/report/drawing.css")),
    ("drawing.js", SCRIPT, include_str!("../../lens/report/drawing.js")),
    ("attention_map.js", SCRIPT, include_str!("../../lens/report/attention_map.js")),
];

/// Returns the page, which is told whether the server has a store, without which there is no training.
pub async fn index(State(app): State<Arc<AppState>>) -> Response {
    let html = include_str!("index.html");
    match app.fine_tuning.is_some() {
        true => file(HTML, html.replacen("<html ", "<html data-store ", 1)),
        false => file(HTML, html),
    }
}

/// Returns a file of the page.
pub async fn asset(Path(name): Path<String>) -> Response {
    match FILES.iter().find(|(file, ..)| *file == name) {
        Some((_, content_type, text)) => file(content_type, *text),
        None => ApiError::not_found("GET", &format!("/page/{name}")).into_response(),
    }
}

/// Returns a source file that a lesson links, with the line of its `reference` marked.
pub async fn source(Path(name): Path<String>) -> Response {
    let Some((name, text)) = SOURCES.iter().find(|(file, _)| *file == name) else {
        return ApiError::not_found("GET", &format!("/page/source/{name}")).into_response();
    };
    let mut html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>src/{name}</title>\
         <link rel=stylesheet href=/page/drawing.css><h1>src/{name}</h1><pre>"
    );
    for line in text.lines() {
        let line = line.replace('&', "&amp;").replace('<', "&lt;");
        html += &match line.trim_start().starts_with("pub fn reference") {
            true => format!("<mark id=reference>{line}</mark>\n"),
            false => line + "\n",
        };
    }
    file(HTML, html + "</pre></html>")
}

fn file(content_type: &'static str, text: impl IntoResponse) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // A newer program has other files under the same names.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_is_small_and_has_no_inline_script() {
        let index = include_str!("index.html");
        let bytes: usize = FILES.iter().map(|(.., text)| text.len()).sum::<usize>() + index.len();
        assert!(bytes < 250_000, "{bytes} bytes");
        assert!(!index.contains("<script>") && !index.contains(" style=") && !index.contains(" onclick"));
        for (name, _, text) in FILES.iter().filter(|(name, ..)| name.ends_with(".js")) {
            for (from, _) in text.split("from \"./").skip(1).filter_map(|rest| rest.split_once('"')) {
                assert!(FILES.iter().any(|(file, ..)| *file == from), "{name} imports {from}");
            }
        }
    }
}
