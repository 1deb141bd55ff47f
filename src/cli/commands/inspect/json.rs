//! The JSON report.

use crate::Hornbook;
use crate::cli::args::interventions;
use crate::lens::intervention::Outcome;
use crate::lens::surprisal::NATS_PER_BIT;
use crate::lens::{Inspection, Prediction};
use serde_json::{Value, json};

/// Returns the report. Logprobs, entropies and logit contributions are in nats, `surprisal_bits` in bits.
pub fn report(hornbook: &Hornbook, inspection: &Inspection, outcome: Option<&Outcome>) -> Value {
    let config = hornbook.config();
    let tokens = inspection.activations.tokens.iter().enumerate().map(|(t, &id)| {
        let mut token = token(hornbook, id);
        token["surprisal_bits"] = json!(inspection.surprisal(t).map(|nats| nats / NATS_PER_BIT));
        token
    });
    let rows = |rows: ndarray::ArrayView2<f32>| -> Vec<Vec<f32>> {
        rows.rows().into_iter().map(|row| row.to_vec()).collect()
    };
    let predictions = |predictions: &Vec<Prediction>| -> Vec<Value> {
        predictions.iter().map(|prediction| to_json(hornbook, prediction)).collect()
    };
    let logit_attributions = inspection.logit_attributions.iter().map(|attribution| {
        json!({
            "target": token(hornbook, attribution.target),
            "logit": attribution.logit,
            "mean_logit": attribution.mean_logit,
            "contributions": attribution.contributions,
            "centered": attribution.centered,
        })
    });
    json!({
        "model": hornbook.name(),
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "tokens": tokens.collect::<Vec<_>>(),
        "attention": {
            "layer": inspection.head.layer,
            "head": inspection.head.head,
            "saliency": inspection.head.saliency,
            "description": inspection.head_description(),
            "pattern": rows(inspection.activations.pattern(inspection.head.layer, inspection.head.head)),
        },
        "predictions": predictions(&inspection.predictions),
        "logit_lens": inspection.logit_lens.iter().map(predictions).collect::<Vec<_>>(),
        "residual_norms": rows(inspection.residual_norms.view()),
        "components": inspection.components.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "direct_logit_attribution": logit_attributions.collect::<Vec<_>>(),
        "intervention": outcome.map(|outcome| interventions::to_json(outcome, hornbook)),
    })
}

fn token(hornbook: &Hornbook, id: u32) -> Value {
    let bytes = hornbook.try_tokenizer().map(|tokenizer| tokenizer.token_bytes(id));
    json!({ "id": id, "text": bytes.map(String::from_utf8_lossy), "bytes": bytes })
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
