//! The logit lens as a table with a row per depth and a column per token.

use crate::Hornbook;
use crate::cli::output::screen::{Screen, display_width, fit_to_width};
use crate::lens::{Inspection, values};
use serde_json::Value;

/// Width of the row label.
const DEPTH_WIDTH: usize = 9;
/// Width of a probability: a space and up to `100%`.
const PERCENT_WIDTH: usize = 5;
const MAX_LABEL_WIDTH: usize = 11;

/// The most likely next token at each depth, for as many of the last tokens as fit.
pub fn logit_lens(inspection: &Inspection, screen: Screen, label: impl Fn(u32) -> String) -> String {
    let n = inspection.activations.len();
    let top_token = |depth: usize, t: usize| inspection.logit_lens[depth][t].top.first().copied();
    let mut widths = vec![]; // in reverse order
    let mut available = screen.width - DEPTH_WIDTH;
    for t in (0..n).rev() {
        let label_widths = (0..inspection.logit_lens.len())
            .filter_map(|depth| top_token(depth, t))
            .map(|(id, _)| display_width(&label(id)));
        let width = label_widths.max().unwrap_or(0).clamp(4, MAX_LABEL_WIDTH) + PERCENT_WIDTH;
        if width + 1 > available {
            break;
        }
        available -= width + 1;
        widths.push(width);
    }
    widths.reverse();
    let first = n - widths.len();

    let note = match first {
        0 => "the prediction after each token, decoded after each block".to_string(),
        _ => {
            format!("the prediction after each of the last {} tokens, decoded after each block", widths.len())
        }
    };
    let mut text = screen.title("Logit lens", &note);
    let mut header = fit_to_width("after", DEPTH_WIDTH);
    for (t, width) in (first..n).zip(&widths) {
        header += &format!("{} ", fit_to_width(&label(inspection.activations.tokens[t]), *width));
    }
    text += &format!("{}\n", screen.bold(header.trim_end()));
    for depth in 0..inspection.logit_lens.len() {
        let mut line = match depth {
            0 => fit_to_width("embed", DEPTH_WIDTH),
            block => fit_to_width(&format!("block {}", block - 1), DEPTH_WIDTH),
        };
        for (t, width) in (first..n).zip(&widths) {
            let Some((id, logprob)) = top_token(depth, t) else { continue };
            let p = libm::expf(logprob);
            let cell =
                format!("{}{:>4}%", fit_to_width(&label(id), width - PERCENT_WIDTH), (100.0 * p).round());
            line += &format!("{} ", screen.on_heat_color(&cell, p));
        }
        text += &format!("{}\n", line.trim_end());
    }
    text
}

/// The predictions at each depth.
pub fn logit_lens_json(hornbook: &Hornbook, inspection: &Inspection) -> Vec<Vec<Value>> {
    inspection.logit_lens.iter().map(|predictions| values::predictions(hornbook, predictions)).collect()
}
