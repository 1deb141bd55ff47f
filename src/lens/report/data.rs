//! The data of a report, as JSON for its scripts.

use crate::Hornbook;
use crate::lens::intervention::{Intervention, Outcome};
use crate::lens::packed_patterns::PackedPatterns;
use crate::lens::surprisal::NATS_PER_BIT;
use crate::lens::{Inspection, Prediction, label, saliency};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Returns the data that the page's scripts read. Values are rounded to the displayed precision.
pub(super) fn to_json(hornbook: &Hornbook, inspection: &Inspection, outcome: Option<&Outcome>) -> Value {
    let config = hornbook.config();
    let heads = (0..config.n_layer).flat_map(|layer| (0..config.n_head).map(move |head| (layer, head)));
    let saliency =
        heads.map(|(layer, head)| rounded(saliency::head_saliency(&inspection.activations, layer, head), 3));
    let bits = (0..inspection.activations.len())
        .map(|t| inspection.surprisal(t).map(|nats| rounded(nats / NATS_PER_BIT, 2)));
    let predictions = |predictions: &Vec<Prediction>| predictions.iter().map(prediction).collect::<Vec<_>>();
    let logits = |values: &[f32]| values.iter().map(|&x| rounded(x, 3)).collect::<Vec<_>>();
    let norms = inspection
        .residual_norms
        .rows()
        .into_iter()
        .map(|row| row.iter().map(|&x| rounded(x, 2)).collect::<Vec<_>>());
    let attributions = &inspection.logit_attributions;
    json!({
        "model": hornbook.name(),
        "layers": config.n_layer,
        "heads": config.n_head,
        "vocab": config.vocab_size,
        "layer": inspection.head.layer,
        "head": inspection.head.head,
        "head_description": inspection.head_description(),
        "intervention": outcome.map(intervention),
        "saliency": saliency.collect::<Vec<_>>(),
        "tokens": inspection.activations.tokens,
        "labels": labels(hornbook, inspection, outcome),
        "surprisal_bits": bits.collect::<Vec<_>>(),
        "logit_lens": inspection.logit_lens.iter().map(predictions).collect::<Vec<_>>(),
        "residual_norms": norms.collect::<Vec<_>>(),
        "components": inspection.components.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "targets": attributions.iter().map(|target| target.target).collect::<Vec<_>>(),
        "logits": attributions.iter().map(|target| rounded(target.logit, 3)).collect::<Vec<_>>(),
        "mean_logits": attributions.iter().map(|target| rounded(target.mean_logit, 3)).collect::<Vec<_>>(),
        "contributions": attributions.iter().map(|target| logits(&target.contributions)).collect::<Vec<_>>(),
        "centered": attributions.iter().map(|target| logits(&target.centered)).collect::<Vec<_>>(),
        "attention": STANDARD.encode(PackedPatterns::new(&inspection.activations).bytes()),
    })
}

/// `[ids of the most likely tokens, their probabilities, entropy in bits, [probability, rank] of the next
/// token]`
fn prediction(prediction: &Prediction) -> Value {
    let ids: Vec<u32> = prediction.top.iter().map(|top| top.0).collect();
    let probabilities: Vec<f64> = prediction.top.iter().map(|top| rounded(libm::expf(top.1), 4)).collect();
    let next = prediction.target.map(|next| (rounded(libm::expf(next.logprob), 6), next.rank));
    json!([ids, probabilities, rounded(prediction.entropy / NATS_PER_BIT, 2), next])
}

/// The interventions, and next tokens as `[id, probability before, probability after]`.
fn intervention(Outcome { interventions, effect }: &Outcome) -> Value {
    let next = effect.next.iter().map(|shift| {
        let [before, after] = [shift.before, shift.after].map(|p| rounded(p, 6));
        json!([shift.id, before, after])
    });
    json!({
        "edits": interventions.iter().map(Intervention::to_string).collect::<Vec<_>>(),
        "kl_divergence": effect.kl_divergence,
        "next_token": next.collect::<Vec<_>>(),
    })
}

/// The labels of all tokens on the page.
fn labels(hornbook: &Hornbook, inspection: &Inspection, outcome: Option<&Outcome>) -> BTreeMap<u32, String> {
    let predicted = inspection.logit_lens.iter().flatten();
    let predicted = predicted.flat_map(|prediction| prediction.top.iter().map(|top| top.0));
    let targets = inspection.logit_attributions.iter().map(|target| target.target);
    let shifted = outcome.iter().flat_map(|outcome| outcome.effect.next.iter().map(|shift| shift.id));
    let ids = inspection.activations.tokens.iter().copied().chain(predicted).chain(targets).chain(shifted);
    ids.map(|id| (id, label(hornbook, id))).collect()
}

/// Rounds to a number of decimals.
fn rounded(x: f32, decimals: i32) -> f64 {
    let unit = 10f64.powi(decimals);
    (f64::from(x) * unit).round() / unit
}
