//! Values that several views show, as JSON.

use crate::Hornbook;
use crate::lens::Prediction;
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
    predictions.iter().map(|prediction| to_json(hornbook, prediction)).collect()
}

fn to_json(hornbook: &Hornbook, prediction: &Prediction) -> Value {
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
