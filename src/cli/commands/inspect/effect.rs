//! The effect of `--ablate` and `--scale` on the prediction.

use crate::cli::output::screen::{Screen, display_width, fit_to_width};
use crate::lens::intervention::Outcome;

const MAX_LABEL_WIDTH: usize = 16;

/// The most likely tokens before and after the interventions.
pub fn before_and_after(outcome: &Outcome, screen: Screen, label: impl Fn(u32) -> String) -> String {
    let effect = &outcome.effect;
    let names: Vec<String> = effect.next.iter().map(|shift| label(shift.id)).collect();
    let name_width = names.iter().map(|name| display_width(name)).max().unwrap_or(0).min(MAX_LABEL_WIDTH);
    let bar_width = (screen.width - name_width - 18).min(50);
    let probabilities = effect.next.iter().flat_map(|shift| [shift.before, shift.after]);
    let largest = probabilities.fold(f32::MIN_POSITIVE, f32::max);
    let note = format!("{outcome}; all sections above show the model with interventions");
    let mut text = screen.title("Effect of the intervention", &note);
    for (shift, label) in effect.next.iter().zip(names) {
        for (label, when, p, after) in
            [(&label[..], "before", shift.before, false), ("", "after", shift.after, true)]
        {
            let bar = screen.bar(p / largest, bar_width, after);
            text += format!("{} {when:6} {:>6.2} %  {bar}", fit_to_width(label, name_width), 100.0 * p)
                .trim_end();
            text.push('\n');
        }
    }
    text + &screen.note(&format!("KL divergence {:.4} nats", effect.kl_divergence))
}
