//! What the command line and the page show, as JSON.

use super::intervention::{Intervention, Outcome, ProbabilityShift};
use super::{LogitAttribution, Prediction};
use crate::Hornbook;
use ndarray::ArrayView2;
use serde_json::{Value, json};

/// The rows of a matrix.
pub fn rows(matrix: ArrayView2<f32>) -> Vec<Vec<f32>> {
    matrix.rows().into_iter().map(|row| row.to_vec()).collect()
}

/// A token by its id, text and bytes.
pub fn token(hornbook: &Hornbook, id: u32) -> Value {
    let bytes = hornbook.try_tokenizer().map(|tokenizer| tokenizer.token_bytes(id));
    json!({ "id": id, "text": bytes.map(String::from_utf8_lossy), "bytes": bytes })
}

/// Predictions after each token, in nats.
pub fn predictions(hornbook: &Hornbook, predictions: &[Prediction]) -> Vec<Value> {
    predictions.iter().map(|one| prediction(hornbook, one)).collect()
}

/// A prediction, in nats.
pub fn prediction(hornbook: &Hornbook, prediction: &Prediction) -> Value {
    let top_logprobs = prediction.top.iter().map(|&(id, logprob)| {
        let mut token = token(hornbook, id);
        token["logprob"] = json!(logprob);
        token
    });
    json!({
        "entropy": prediction.entropy,
        "top_logprobs": top_logprobs.collect::<Vec<_>>(),
        "target": prediction.target.map(|target| json!({
            "id": target.id, "logprob": target.logprob, "rank": target.rank,
        })),
    })
}

/// The contributions to a token's logit, in the order of the components.
pub fn attribution(hornbook: &Hornbook, attribution: &LogitAttribution) -> Value {
    json!({
        "target": token(hornbook, attribution.target),
        "logit": attribution.logit,
        "mean_logit": attribution.mean_logit,
        "contributions": attribution.contributions,
        "centered": attribution.centered,
    })
}

/// Interventions and their effect.
pub fn outcome(hornbook: &Hornbook, outcome: &Outcome) -> Value {
    let shift = |&ProbabilityShift { id, before, after }: &ProbabilityShift| {
        let token = hornbook.try_tokenizer().map(|tokenizer| tokenizer.decode(&[id]));
        json!({"id": id, "token": token, "before": before, "after": after})
    };
    json!({
        "edits": outcome.interventions.iter().map(Intervention::to_string).collect::<Vec<_>>(),
        "next_token": outcome.effect.next.iter().map(shift).collect::<Vec<_>>(),
        "kl_divergence": outcome.effect.kl_divergence,
    })
}
