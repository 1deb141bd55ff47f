//! The logit lens as a table: downwards the depth, to the right the text.

use crate::cli::screen::{Screen, display_width, fit_to_width};
use crate::lens::Inspection;

/// Columns of the depth's name.
const DEPTH: usize = 9;
/// Columns of a probability: a space and up to `100%`.
const PERCENT: usize = 5;
const LONGEST: usize = 11;

/// What the model would answer at each depth, for as many of the last tokens as there is room for.
pub fn logit_lens(seen: &Inspection, screen: Screen, label: impl Fn(u32) -> String) -> String {
    let n = seen.capture.len();
    let best = |depth: usize, t: usize| seen.lens[depth][t].best.first().copied();
    let mut widths = vec![]; // of the last tokens, the last one first
    let mut room = screen.width - DEPTH;
    for t in (0..n).rev() {
        let answers =
            (0..seen.lens.len()).filter_map(|depth| best(depth, t)).map(|(id, _)| display_width(&label(id)));
        let wide = answers.max().unwrap_or(0).clamp(4, LONGEST) + PERCENT;
        if wide + 1 > room {
            break;
        }
        room -= wide + 1;
        widths.push(wide);
    }
    widths.reverse();
    let first = n - widths.len();

    let note = match first {
        0 => "what the model would answer after each token if it stopped at this depth".to_string(),
        _ => format!(
            "what the model would answer if it stopped at this depth, after the last {} tokens",
            widths.len()
        ),
    };
    let mut text = screen.title("Logit lens", &note);
    let mut header = fit_to_width("after", DEPTH);
    for (t, wide) in (first..n).zip(&widths) {
        header += &format!("{} ", fit_to_width(&label(seen.capture.tokens[t]), *wide));
    }
    text += &format!("{}\n", screen.bold(header.trim_end()));
    for depth in 0..seen.lens.len() {
        let mut line = match depth {
            0 => fit_to_width("embed", DEPTH),
            block => fit_to_width(&format!("block {}", block - 1), DEPTH),
        };
        for (t, wide) in (first..n).zip(&widths) {
            let Some((id, logprob)) = best(depth, t) else { continue };
            let p = libm::expf(logprob);
            let cell = format!("{}{:>4}%", fit_to_width(&label(id), wide - PERCENT), (100.0 * p).round());
            line += &format!("{} ", screen.on_heat_color(&cell, p));
        }
        text += &format!("{}\n", line.trim_end());
    }
    text
}
