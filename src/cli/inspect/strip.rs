//! The tokens in a row, and how much each surprised the model.

use crate::cli::screen::{Screen, display_width, fit_to_width};
use crate::lens::Inspection;
use crate::lens::surprisal::NATS_PER_BIT;

/// More rows of tokens than this are left to the report.
const MOST_ROWS: usize = 8;
/// A surprise that is painted in full, in bits.
const FULL: f32 = 16.0;
const LONGEST: usize = 16;

/// The tokens, each above its surprise in bits.
pub fn tokens(seen: &Inspection, screen: Screen, label: impl Fn(u32) -> String) -> String {
    let bits: Vec<Option<f32>> =
        (0..seen.capture.len()).map(|t| seen.surprisal(t).map(|nats| nats / NATS_PER_BIT)).collect();
    let known: Vec<f32> = bits.iter().flatten().copied().collect();
    let note = match known.len() {
        0 => "nothing came before the first, so it has no surprise".to_string(),
        n => {
            let mean = known.iter().sum::<f32>() / n as f32;
            format!("below each, how much it surprised the model, in bits: {mean:.1} in the mean")
        }
    };
    let mut rows: Vec<(String, String)> = vec![];
    let mut used = screen.width;
    for (&id, bits) in seen.capture.tokens.iter().zip(&bits) {
        let label = label(id);
        let wide = display_width(&label).clamp(4, LONGEST);
        if used + wide + 1 > screen.width {
            rows.push((String::new(), String::new()));
            used = 0;
        }
        used += wide + 1;
        let Some((above, below)) = rows.last_mut() else { continue };
        let share = bits.map_or(0.0, |bits| bits / FULL);
        *above += &format!("{} ", screen.on_heat_color(&fit_to_width(&label, wide), share * share));
        let bits = bits.map_or("–".into(), |bits| format!("{bits:.1}"));
        *below += &format!("{bits:<wide$} ");
    }
    let skipped = rows.len().saturating_sub(MOST_ROWS);
    let mut text = screen.title("Tokens", &note);
    if skipped > 0 {
        text += &screen.note(&format!("({skipped} rows before; --html shows all)"));
    }
    for (above, below) in &rows[skipped..] {
        text += &format!("{}\n{}\n", above.trim_end(), screen.dim(below.trim_end()));
    }
    text
}
