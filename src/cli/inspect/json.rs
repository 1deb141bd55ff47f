//! All numbers, for a program.

use crate::Hornbook;
use crate::cli::interventions;
use crate::lens::intervention::Outcome;
use crate::lens::surprisal::NATS_PER_BIT;
use crate::lens::{Inspection, Prediction};
use serde_json::{Value, json};

/// One object. Logprobs, entropies and contributions are in nats, `surprise_bits` in bits.
pub fn of(hornbook: &Hornbook, seen: &Inspection, outcome: Option<&Outcome>) -> Value {
    let config = hornbook.config();
    let tokens = seen.capture.tokens.iter().enumerate().map(|(t, &id)| {
        let mut token = token(hornbook, id);
        token["surprise_bits"] = json!(seen.surprisal(t).map(|nats| nats / NATS_PER_BIT));
        token
    });
    let rows = |rows: ndarray::ArrayView2<f32>| -> Vec<Vec<f32>> {
        rows.rows().into_iter().map(|row| row.to_vec()).collect()
    };
    let lens = |readings: &Vec<Prediction>| -> Vec<Value> {
        readings.iter().map(|reading| answer(hornbook, reading)).collect()
    };
    let contributions = seen.contributions.iter().map(|at| {
        json!({
            "target": token(hornbook, at.target),
            "logit": at.logit,
            "mean_logit": at.mean_logit,
            "direct": at.direct,
            "relative": at.relative,
        })
    });
    json!({
        "model": hornbook.name(),
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "tokens": tokens.collect::<Vec<_>>(),
        "attention": {
            "layer": seen.shown.layer,
            "head": seen.shown.head,
            "score": seen.shown.score,
            "why": seen.why(),
            "pattern": rows(seen.capture.pattern(seen.shown.layer, seen.shown.head)),
        },
        "answers": lens(&seen.readings),
        "logit_lens": seen.lens.iter().map(lens).collect::<Vec<_>>(),
        "residual_norms": rows(seen.norms.view()),
        "parts": seen.parts.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "contributions": contributions.collect::<Vec<_>>(),
        "intervention": outcome.map(|outcome| interventions::json(outcome, hornbook)),
    })
}

fn token(hornbook: &Hornbook, id: u32) -> Value {
    let bytes = hornbook.try_tokenizer().map(|tokenizer| tokenizer.token_bytes(id));
    json!({ "id": id, "text": bytes.map(String::from_utf8_lossy), "bytes": bytes })
}

fn answer(hornbook: &Hornbook, reading: &Prediction) -> Value {
    let best = reading.best.iter().map(|&(id, logprob)| {
        let mut best = token(hornbook, id);
        best["logprob"] = json!(logprob);
        best
    });
    json!({
        "entropy": reading.entropy,
        "best": best.collect::<Vec<_>>(),
        "next": reading.target.map(|next| json!({
            "id": next.id, "logprob": next.logprob, "rank": next.rank,
        })),
    })
}
