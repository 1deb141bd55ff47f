//! Bar charts of the next-token prediction and of the logit attribution.

use crate::Hornbook;
use crate::cli::output::screen::{Screen, display_width, fit_to_width};
use crate::lens::surprisal::NATS_PER_BIT;
use crate::lens::{Inspection, values};
use serde_json::Value;

/// The number of components to show.
const MAX_COMPONENTS: usize = 10;
const MAX_LABEL_WIDTH: usize = 16;

/// The most likely next tokens.
pub fn next_token(inspection: &Inspection, screen: Screen, label: impl Fn(u32) -> String) -> String {
    let Some(prediction) = inspection.predictions.last() else { return String::new() };
    let note = format!(
        "entropy {:.2} bits, as for {:.0} equally likely tokens",
        prediction.entropy / NATS_PER_BIT,
        libm::expf(prediction.entropy).round().max(1.0)
    );
    let names: Vec<String> = prediction.top.iter().map(|&(id, _)| label(id)).collect();
    let name_width = names.iter().map(|name| display_width(name)).max().unwrap_or(0).min(MAX_LABEL_WIDTH);
    let bar_width = screen.width - name_width - 11;
    let largest = prediction.top.first().map_or(1.0, |top| libm::expf(top.1));
    let mut text = screen.title("Next token", &note);
    for ((_, logprob), label) in prediction.top.iter().zip(names) {
        let p = libm::expf(*logprob);
        let bar = screen.bar(p / largest, bar_width.min(50), false);
        text += format!("{} {:>6.2} %  {bar}", fit_to_width(&label, name_width), 100.0 * p).trim_end();
        text.push('\n');
    }
    text
}

/// The components with the largest contributions to the logit of the target after the last token.
pub fn logit_attribution(inspection: &Inspection, screen: Screen, label: impl Fn(u32) -> String) -> String {
    let Some(last) = inspection.logit_attributions.last() else { return String::new() };
    let mut all: Vec<(String, f32)> =
        inspection.components.iter().map(ToString::to_string).zip(last.centered.iter().copied()).collect();
    all.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    let rest: f32 = all.iter().skip(MAX_COMPONENTS).map(|component| component.1).sum();
    let others = all.len().saturating_sub(MAX_COMPONENTS);
    all.truncate(MAX_COMPONENTS);
    let largest = all.first().map_or(1.0, |component| component.1.abs().max(f32::MIN_POSITIVE));
    let note = format!(
        "logit {:.2}, {:+.2} relative to the mean logit; direct contribution of each component",
        last.logit,
        last.logit - last.mean_logit
    );
    let target = label(last.target);
    let target = fit_to_width(&target, display_width(&target).min(MAX_LABEL_WIDTH));
    let mut text = screen.title(&format!("Logit attribution of {target}"), &note);
    let (name_width, bar_width) = (11, screen.width - 23);
    for (component, contribution) in all {
        let bar = screen.bar(contribution.abs() / largest, bar_width.min(50), contribution < 0.0);
        text += format!("{} {contribution:>+7.2}  {bar}", fit_to_width(&component, name_width)).trim_end();
        text.push('\n');
    }
    if others > 0 {
        text += &format!(
            "{}\n",
            screen.dim(&format!("{} {rest:>+7.2}", fit_to_width(&format!("{others} others"), name_width)))
        );
    }
    text
}

/// The contributions of all components after each token, in nats.
pub fn logit_attribution_json(hornbook: &Hornbook, inspection: &Inspection) -> Vec<Value> {
    inspection.logit_attributions.iter().map(|one| values::attribution(hornbook, one)).collect()
}
