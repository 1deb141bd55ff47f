//! One head's attention. A token sees none that come after it, so the map is a triangle, and each token's name stands at
//! its end: the row to its left is what it attends to, the column below it who attends to it.

use crate::cli::screen::{Screen, display_width, fit_to_width, shade};
use crate::lens::Inspection;

/// Columns for each token, where there is room for all: a number, a block, or half of one.
const CELLS: [usize; 3] = [4, 2, 1];
const LONGEST: usize = 12;

/// The map, of the last tokens where there is no room for all.
pub fn attention(seen: &Inspection, screen: Screen, label: impl Fn(u32) -> String) -> String {
    let n = seen.capture.len();
    let labels: Vec<String> = seen.capture.tokens.iter().map(|&id| label(id)).collect();
    let name = labels.iter().map(|label| display_width(label)).max().unwrap_or(0).min(LONGEST);
    let room = screen.width - name - 1;
    let cell = CELLS.into_iter().find(|cell| cell * n <= room).unwrap_or(1);
    let shown = n - n.min(room / cell)..n;

    let pattern = seen.capture.pattern(seen.shown.layer, seen.shown.head);
    let mut text = screen.title("Attention", &seen.why());
    let note = match shown.start {
        0 => "left of a token: what it attends to, in %; below it: who attends to it".to_string(),
        _ => format!("the last {} tokens of {n}; --html shows all", shown.len()),
    };
    text += &screen.note(&note);
    for i in shown.clone() {
        for j in shown.start..=i {
            text += &drawn(screen, cell, pattern[[i, j]]);
        }
        text += &format!(" {}\n", fit_to_width(&labels[i], name).trim_end());
    }
    text
}

fn drawn(screen: Screen, cell: usize, share: f32) -> String {
    let percent = (100.0 * share).round() as u32;
    let text = match (screen.color, cell, percent) {
        (true, 4, 0) | (true, 2 | 1, _) => " ".repeat(cell),
        (true, ..) => format!("{percent:>3} "),
        (false, 4, 0) => format!("{}   ", shade(0.0)),
        (false, 4, 100..) => "███ ".into(),
        // A dot and a digit would read as one number.
        (false, 4, _) => format!("{}{percent:<2} ", shade(share)).replace('·', " "),
        (false, ..) => shade(share).to_string().repeat(cell),
    };
    screen.on_heat_color(&text, share)
}
