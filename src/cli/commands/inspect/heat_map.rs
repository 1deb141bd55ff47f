//! The attention pattern of one head. Because of the causal mask it is a triangle, with each token's label at
//! the end of its row: to the left are the weights with which it attends to other tokens, below are those
//! with which others attend to it.

use crate::cli::output::screen::{Screen, display_width, fit_to_width, shade};
use crate::lens::{Inspection, values};
use serde_json::{Value, json};

/// Possible widths of a cell: a percentage, a square block, or half a block.
const CELL_WIDTHS: [usize; 3] = [4, 2, 1];
const MAX_LABEL_WIDTH: usize = 12;

/// The heat map, of as many of the last tokens as fit.
pub fn attention(inspection: &Inspection, screen: Screen, label: impl Fn(u32) -> String) -> String {
    let n = inspection.activations.len();
    let labels: Vec<String> = inspection.activations.tokens.iter().map(|&id| label(id)).collect();
    let name_width = labels.iter().map(|label| display_width(label)).max().unwrap_or(0).min(MAX_LABEL_WIDTH);
    let available = screen.width - name_width - 1;
    let cell = CELL_WIDTHS.into_iter().find(|cell| cell * n <= available).unwrap_or(1);
    let shown = n - n.min(available / cell)..n;

    let pattern = inspection.activations.pattern(inspection.head.layer, inspection.head.head);
    let mut text = screen.title("Attention", &inspection.head_description());
    let note = match shown.start {
        0 => "left of a token: what it attends to, in %; below it: the tokens that attend to it".to_string(),
        _ => format!("the last {} tokens of {n}; --html shows all", shown.len()),
    };
    text += &screen.note(&note);
    for i in shown.clone() {
        for j in shown.start..=i {
            text += &render_cell(screen, cell, pattern[[i, j]]);
        }
        text += &format!(" {}\n", fit_to_width(&labels[i], name_width).trim_end());
    }
    text
}

fn render_cell(screen: Screen, cell: usize, weight: f32) -> String {
    let percent = (100.0 * weight).round() as u32;
    let text = match (screen.color, cell, percent) {
        (true, 4, 0) | (true, 2 | 1, _) => " ".repeat(cell),
        (true, ..) => format!("{percent:>3} "),
        (false, 4, 0) => format!("{}   ", shade(0.0)),
        (false, 4, 100..) => "███ ".into(),
        // A dot before a digit would look like a decimal point.
        (false, 4, _) => format!("{}{percent:<2} ", shade(weight)).replace('·', " "),
        (false, ..) => shade(weight).to_string().repeat(cell),
    };
    screen.on_heat_color(&text, weight)
}

/// The head shown and its attention weights.
pub fn attention_json(inspection: &Inspection) -> Value {
    let head = &inspection.head;
    json!({
        "layer": head.layer,
        "head": head.head,
        "saliency": head.saliency,
        "description": inspection.head_description(),
        "pattern": values::rows(inspection.activations.pattern(head.layer, head.head)),
    })
}
