//! What a changed model writes, beside what the model as it is would have written.

use super::Generate;
use super::output::OutputFormat;
use crate::cli::interventions::{self, COMPARED};
use crate::generate::{FinishReason, Generation};
use crate::lens::intervention::{Effect, Interventions, Outcome};
use crate::lens::label::label;
use crate::{Hornbook, Result};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};

/// Before and after.
pub struct BeforeAfter {
    outcome: Outcome,
    before: Vec<Written>,
}

/// A completion of the model as it is.
struct Written {
    ids: Vec<u32>,
    text: String,
    finish_reason: Option<FinishReason>,
}

impl BeforeAfter {
    /// Writes what the model as it is would have written, with the same seed, and compares the first predictions.
    pub fn new(
        generate: &Generate,
        hornbook: &Hornbook,
        mut plain: Generation,
        after: &Generation<Interventions>,
        interrupted: &AtomicBool,
    ) -> Result<Self> {
        let effect = Effect::measure(plain.prompt_logits(), after.prompt_logits(), COMPARED);
        let outcome = Outcome { changes: generate.interventions.list(), effect };
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
        let changed = Self { outcome, before };
        if !generate.json {
            changed.table(hornbook);
        }
        Ok(changed)
    }

    /// The predictions side by side, on standard error.
    fn table(&self, hornbook: &Hornbook) {
        let Outcome { effect, .. } = &self.outcome;
        eprintln!("{}\n", self.outcome);
        eprintln!("next token           before    after");
        for shift in &effect.next {
            eprintln!("{:18} {:8.4} {:8.4}", label(hornbook, shift.id), shift.before, shift.after);
        }
        eprintln!("KL divergence      {:8.4} nats", effect.kl_divergence);
    }

    /// What was written before, and a line that says that what follows was written after.
    pub fn print_before(&self, index: usize, form: OutputFormat) {
        let Written { ids, text, .. } = &self.before[index];
        let written = match form {
            OutputFormat::Text => text.trim_end_matches('\n').to_string(),
            OutputFormat::Ids => ids.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
        };
        eprintln!("\n--- before\n{written}\n\n--- after");
    }

    /// All of it, as a program reads it.
    pub fn json(&self, hornbook: &Hornbook) -> Value {
        let before = self.before.iter().map(|written| {
            let Written { ids, text, finish_reason } = written;
            json!({"text": text, "token_ids": ids, "finish_reason": finish_reason})
        });
        let mut json = interventions::json(&self.outcome, hornbook);
        json["before"] = before.collect();
        json
    }
}
