//! The numbers of a report.

use crate::Hornbook;
use crate::lens::intervention::{Intervention, Outcome};
use crate::lens::surprisal::NATS_PER_BIT;
use crate::lens::{ActivationCache, Inspection, Prediction, label, saliency};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What the page's scripts read. Numbers are rounded to what can be seen.
pub(super) fn of(hornbook: &Hornbook, seen: &Inspection, outcome: Option<&Outcome>) -> Value {
    let config = hornbook.config();
    let heads = (0..config.n_layer).flat_map(|layer| (0..config.n_head).map(move |head| (layer, head)));
    let scores = heads.map(|(layer, head)| rounded(saliency::head_saliency(&seen.capture, layer, head), 3));
    let bits = (0..seen.capture.len()).map(|t| seen.surprisal(t).map(|nats| rounded(nats / NATS_PER_BIT, 2)));
    let lens = |readings: &Vec<Prediction>| readings.iter().map(reading).collect::<Vec<_>>();
    let amounts = |amounts: &[f32]| amounts.iter().map(|&x| rounded(x, 3)).collect::<Vec<_>>();
    let norms =
        seen.norms.rows().into_iter().map(|row| row.iter().map(|&x| rounded(x, 2)).collect::<Vec<_>>());
    let at = &seen.contributions;
    json!({
        "model": hornbook.name(),
        "layers": config.n_layer,
        "heads": config.n_head,
        "vocab": config.vocab_size,
        "layer": seen.shown.layer,
        "head": seen.shown.head,
        "why": seen.why(),
        "changed": outcome.map(changed),
        "scores": scores.collect::<Vec<_>>(),
        "tokens": seen.capture.tokens,
        "labels": labels(hornbook, seen, outcome),
        "bits": bits.collect::<Vec<_>>(),
        "lens": seen.lens.iter().map(lens).collect::<Vec<_>>(),
        "norms": norms.collect::<Vec<_>>(),
        "parts": seen.parts.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "targets": at.iter().map(|at| at.target).collect::<Vec<_>>(),
        "logits": at.iter().map(|at| rounded(at.logit, 3)).collect::<Vec<_>>(),
        "means": at.iter().map(|at| rounded(at.mean_logit, 3)).collect::<Vec<_>>(),
        "direct": at.iter().map(|at| amounts(&at.direct)).collect::<Vec<_>>(),
        "relative": at.iter().map(|at| amounts(&at.relative)).collect::<Vec<_>>(),
        "attention": STANDARD.encode(packed(&seen.capture)),
    })
}

/// `[ids of the best, their probabilities, entropy in bits, the next token's probability and rank]`
fn reading(reading: &Prediction) -> Value {
    let ids: Vec<u32> = reading.best.iter().map(|best| best.0).collect();
    let shares: Vec<f64> = reading.best.iter().map(|best| rounded(libm::expf(best.1), 4)).collect();
    let next = reading.target.map(|next| (rounded(libm::expf(next.logprob), 6), next.rank));
    json!([ids, shares, rounded(reading.entropy / NATS_PER_BIT, 2), next])
}

/// What was changed, and next tokens as `[id, probability before, and after]`.
fn changed(Outcome { changes, effect }: &Outcome) -> Value {
    let next = effect.next.iter().map(|shift| {
        let [before, after] = [shift.before, shift.after].map(|p| rounded(p, 6));
        json!([shift.id, before, after])
    });
    json!({
        "changes": changes.iter().map(Intervention::to_string).collect::<Vec<_>>(),
        "kl": effect.kl_divergence,
        "next": next.collect::<Vec<_>>(),
    })
}

/// The labels of all tokens that are spoken of.
fn labels(hornbook: &Hornbook, seen: &Inspection, outcome: Option<&Outcome>) -> BTreeMap<u32, String> {
    let answers = seen.lens.iter().flatten().flat_map(|reading| reading.best.iter().map(|best| best.0));
    let targets = seen.contributions.iter().map(|at| at.target);
    let shifted = outcome.iter().flat_map(|outcome| outcome.effect.next.iter().map(|shift| shift.id));
    let ids = seen.capture.tokens.iter().copied().chain(answers).chain(targets).chain(shifted);
    ids.map(|id| (id, label(hornbook, id))).collect()
}

/// Attention patterns, a byte a share: head by head the rows, each up to its own token, after which all is zero. A byte
/// is 255 times the root of the share, so that small ones can be told apart; 1 is a share of 0.000015.
fn packed(capture: &ActivationCache) -> Vec<u8> {
    let mut bytes = vec![];
    for (row, shares) in capture.patterns.rows().into_iter().enumerate() {
        let seen = row % capture.len() + 1;
        bytes.extend(shares.iter().take(seen).map(|share| (255.0 * share.max(0.0).sqrt()).round() as u8));
    }
    bytes
}

/// To so many decimals; what is no number is none in JSON too.
fn rounded(x: f32, decimals: i32) -> f64 {
    let unit = 10f64.powi(decimals);
    (f64::from(x) * unit).round() / unit
}
