//! The tokens with their surprisals.

use crate::Hornbook;
use crate::cli::output::screen::{Screen, display_width, fit_to_width};
use crate::lens::surprisal::NATS_PER_BIT;
use crate::lens::{Inspection, values};
use serde_json::{Value, json};

/// The maximum number of rows; earlier rows are only in the report.
const MAX_ROWS: usize = 8;
/// The surprisal with the strongest color, in bits.
const MAX_COLOR_BITS: f32 = 16.0;
const MAX_LABEL_WIDTH: usize = 16;

/// The tokens, each above its surprisal in bits.
pub fn tokens(inspection: &Inspection, screen: Screen, label: impl Fn(u32) -> String) -> String {
    let bits: Vec<Option<f32>> = (0..inspection.activations.len())
        .map(|t| inspection.surprisal(t).map(|nats| nats / NATS_PER_BIT))
        .collect();
    let known: Vec<f32> = bits.iter().flatten().copied().collect();
    let note = match known.len() {
        0 => "the first token has no surprisal".to_string(),
        n => {
            let mean = known.iter().sum::<f32>() / n as f32;
            format!("surprisal in bits below each token, {mean:.1} on average")
        }
    };
    let mut rows: Vec<(String, String)> = vec![];
    let mut used = screen.width;
    for (&id, bits) in inspection.activations.tokens.iter().zip(&bits) {
        let label = label(id);
        let width = display_width(&label).clamp(4, MAX_LABEL_WIDTH);
        if used + width + 1 > screen.width {
            rows.push((String::new(), String::new()));
            used = 0;
        }
        used += width + 1;
        let Some((above, below)) = rows.last_mut() else { continue };
        let heat = bits.map_or(0.0, |bits| bits / MAX_COLOR_BITS);
        *above += &format!("{} ", screen.on_heat_color(&fit_to_width(&label, width), heat * heat));
        let bits = bits.map_or("–".into(), |bits| format!("{bits:.1}"));
        *below += &format!("{bits:<width$} ");
    }
    let skipped = rows.len().saturating_sub(MAX_ROWS);
    let mut text = screen.title("Tokens", &note);
    if skipped > 0 {
        text += &screen.note(&format!("({skipped} earlier rows omitted; --html shows all)"));
    }
    for (above, below) in &rows[skipped..] {
        text += &format!("{}\n{}\n", above.trim_end(), screen.dim(below.trim_end()));
    }
    text
}

/// The tokens with `surprisal_bits`.
pub fn tokens_json(hornbook: &Hornbook, inspection: &Inspection) -> Vec<Value> {
    let tokens = inspection.activations.tokens.iter().enumerate().map(|(t, &id)| {
        let mut token = values::token(hornbook, id);
        token["surprisal_bits"] = json!(inspection.surprisal(t).map(|nats| nats / NATS_PER_BIT));
        token
    });
    tokens.collect()
}
