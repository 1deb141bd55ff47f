//! What comes next, and who speaks for it, as bars.

use crate::cli::screen::{Screen, display_width, fit_to_width};
use crate::lens::Inspection;
use crate::lens::surprisal::NATS_PER_BIT;

/// Parts that are shown.
const PARTS: usize = 10;
const LONGEST: usize = 16;

/// The likeliest next tokens.
pub fn candidates(seen: &Inspection, screen: Screen, label: impl Fn(u32) -> String) -> String {
    let Some(reading) = seen.readings.last() else { return String::new() };
    let note = format!(
        "entropy {:.2} bits: as unsure as among {:.0} equally likely tokens",
        reading.entropy / NATS_PER_BIT,
        libm::expf(reading.entropy).round().max(1.0)
    );
    let names: Vec<String> = reading.best.iter().map(|&(id, _)| label(id)).collect();
    let name = names.iter().map(|name| display_width(name)).max().unwrap_or(0).min(LONGEST);
    let room = screen.width - name - 11;
    let largest = reading.best.first().map_or(1.0, |best| libm::expf(best.1));
    let mut text = screen.title("Next token", &note);
    for ((_, logprob), label) in reading.best.iter().zip(names) {
        let p = libm::expf(*logprob);
        let bar = screen.bar(p / largest, room.min(50), false);
        text += format!("{} {:>6.2} %  {bar}", fit_to_width(&label, name), 100.0 * p).trim_end();
        text.push('\n');
    }
    text
}

/// The parts that speak loudest for or against the target at the text's end.
pub fn contributions(seen: &Inspection, screen: Screen, label: impl Fn(u32) -> String) -> String {
    let Some(last) = seen.contributions.last() else { return String::new() };
    let mut all: Vec<(String, f32)> =
        seen.parts.iter().map(ToString::to_string).zip(last.relative.iter().copied()).collect();
    all.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    let rest: f32 = all.iter().skip(PARTS).map(|part| part.1).sum();
    let others = all.len().saturating_sub(PARTS);
    all.truncate(PARTS);
    let largest = all.first().map_or(1.0, |part| part.1.abs().max(f32::MIN_POSITIVE));
    let note = format!(
        "logit {:.2}, which is {:+.2} from the average token's; what each part adds to the difference",
        last.logit,
        last.logit - last.mean_logit
    );
    let target = label(last.target);
    let target = fit_to_width(&target, display_width(&target).min(LONGEST));
    let mut text = screen.title(&format!("What speaks for {target}"), &note);
    let (name, room) = (11, screen.width - 23);
    for (part, amount) in all {
        let bar = screen.bar(amount.abs() / largest, room.min(50), amount < 0.0);
        text += format!("{} {amount:>+7.2}  {bar}", fit_to_width(&part, name)).trim_end();
        text.push('\n');
    }
    if others > 0 {
        text += &format!(
            "{}\n",
            screen.dim(&format!("{} {rest:>+7.2}", fit_to_width(&format!("{others} others"), name)))
        );
    }
    text
}
