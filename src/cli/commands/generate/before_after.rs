//! The completions of a model with interventions beside those without.

use super::Generate;
use super::output::OutputFormat;
use crate::generate::{FinishReason, Generation};
use crate::lens::intervention::{COMPARED_TOKENS, Effect, Interventions, Outcome};
use crate::lens::label::label;
use crate::lens::values;
use crate::{Hornbook, Result};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};

/// The completions without interventions, and the effect of the interventions on the first prediction.
pub struct BeforeAfter {
    outcome: Outcome,
    before: Vec<Completion>,
}

/// A completion without interventions.
struct Completion {
    ids: Vec<u32>,
    text: String,
    finish_reason: Option<FinishReason>,
}

impl BeforeAfter {
    /// Generates the completions without interventions, with the same seed, and compares the first
    /// predictions.
    pub fn new(
        generate: &Generate,
        hornbook: &Hornbook,
        mut baseline: Generation,
        after: &Generation<Interventions>,
        interrupted: &AtomicBool,
    ) -> Result<Self> {
        let effect = Effect::measure(baseline.prompt_logits(), after.prompt_logits(), COMPARED_TOKENS);
        let outcome = Outcome { interventions: generate.interventions.list(), effect };
        let mut before = vec![];
        for index in 0..generate.n.get() {
            if index > 0 {
                baseline.restart()?;
            }
            let mut text = String::new();
            while let Some(token) = baseline.next() {
                text += &token?.text;
                if interrupted.load(Ordering::SeqCst) {
                    text += &baseline.finish();
                }
            }
            let (ids, finish_reason) = (baseline.generated().to_vec(), baseline.finish_reason());
            before.push(Completion { ids, text, finish_reason });
        }
        let before_after = Self { outcome, before };
        if !generate.json {
            before_after.print_table(hornbook);
        }
        Ok(before_after)
    }

    /// Prints both predictions side by side to standard error.
    fn print_table(&self, hornbook: &Hornbook) {
        let Outcome { effect, .. } = &self.outcome;
        stderr_line!("{}\n", self.outcome);
        stderr_line!("next token           before    after");
        for shift in &effect.next {
            stderr_line!("{:18} {:8.4} {:8.4}", label(hornbook, shift.id), shift.before, shift.after);
        }
        stderr_line!("KL divergence      {:8.4} nats", effect.kl_divergence);
    }

    /// Prints a completion without interventions and the heading of the one with interventions.
    pub fn print_before(&self, index: usize, format: OutputFormat) {
        let Completion { ids, text, .. } = &self.before[index];
        let text = match format {
            OutputFormat::Text => text.trim_end_matches('\n').to_string(),
            OutputFormat::Ids => ids.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
        };
        stderr_line!("\n--- before\n{text}\n\n--- after");
    }

    /// The interventions, their effect and the completions without them, as JSON.
    pub fn to_json(&self, hornbook: &Hornbook) -> Value {
        let before = self.before.iter().map(|completion| {
            let Completion { ids, text, finish_reason } = completion;
            json!({"text": text, "token_ids": ids, "finish_reason": finish_reason})
        });
        let mut json = values::outcome(hornbook, &self.outcome);
        json["before"] = before.collect();
        json
    }
}
