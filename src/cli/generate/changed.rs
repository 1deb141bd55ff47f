//! What a changed model writes, beside what the model as it is would have written.

use super::output::Form;
use super::{Generate, decode};
use crate::generate::{FinishReason, Generation};
use crate::lens::ablate::{Change, Changes, Effect};
use crate::lens::label::label;
use crate::{Hornbook, Result};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};

/// How many of either prediction's most likely tokens are compared.
const TOKENS: usize = 5;

/// Before and after.
pub struct Changed {
    changes: Vec<Change>,
    effect: Effect,
    before: Vec<Written>,
}

/// A completion of the model as it is.
struct Written {
    ids: Vec<u32>,
    text: String,
    finish_reason: Option<FinishReason>,
}

impl Changed {
    /// Writes what the model as it is would have written, with the same seed, and compares the first predictions.
    pub fn new(
        generate: &Generate,
        hornbook: &Hornbook,
        mut plain: Generation,
        after: &Generation<Changes>,
        interrupted: &AtomicBool,
    ) -> Result<Self> {
        let effect = Effect::of(plain.prompt_logits(), after.prompt_logits(), TOKENS);
        let mut before = vec![];
        for index in 0..generate.n.get() {
            if index > 0 {
                plain.restart()?;
            }
            let mut text = String::new();
            while let Some(token) = plain.next() {
                text += &token?.text;
                if interrupted.load(Ordering::SeqCst) {
                    text += &plain.finish();
                }
            }
            let (ids, finish_reason) = (plain.generated().to_vec(), plain.finish_reason());
            before.push(Written { ids, text, finish_reason });
        }
        let changed = Self { changes: generate.changes.list(), effect, before };
        if !generate.json {
            changed.table(hornbook);
        }
        Ok(changed)
    }

    /// The predictions side by side, on standard error.
    fn table(&self, hornbook: &Hornbook) {
        let changes: Vec<String> = self.changes.iter().map(Change::to_string).collect();
        eprintln!("changed: {}\n", changes.join(", "));
        eprintln!("next token           before    after");
        for shift in &self.effect.next {
            eprintln!("{:18} {:8.4} {:8.4}", label(hornbook, shift.id), shift.before, shift.after);
        }
        eprintln!("KL divergence      {:8.4} nats", self.effect.kl_divergence);
    }

    /// What was written before, and a line that says that what follows was written after.
    pub fn show_before(&self, index: usize, form: Form) {
        let Written { ids, text, .. } = &self.before[index];
        let written = match form {
            Form::Text => text.trim_end_matches('\n').to_string(),
            Form::Ids => ids.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
        };
        eprintln!("\n--- before\n{written}\n\n--- after");
    }

    /// All of it, as a program reads it.
    pub fn json(&self, hornbook: &Hornbook) -> Value {
        let next = self.effect.next.iter().map(|shift| {
            let token = decode(hornbook, &[shift.id]);
            json!({"id": shift.id, "token": token, "before": shift.before, "after": shift.after})
        });
        let before = self.before.iter().map(|written| {
            let Written { ids, text, finish_reason } = written;
            json!({"text": text, "token_ids": ids, "finish_reason": finish_reason})
        });
        json!({
            "changes": self.changes.iter().map(Change::to_string).collect::<Vec<_>>(),
            "next": next.collect::<Vec<_>>(),
            "kl_divergence": self.effect.kl_divergence,
            "before": before.collect::<Vec<_>>(),
        })
    }
}
