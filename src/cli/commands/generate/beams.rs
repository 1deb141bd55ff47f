//! `--beams`: beam search instead of sampling.

use super::output::Output;
use super::{Generate, Stats, decode_prompt};
use crate::generate::beam_search;
use crate::generate::completion::{Choice, Completion};
use crate::memory;
use crate::model::KvCache;
use crate::{Error, Hornbook, Result};
use std::process::ExitCode;

impl Generate {
    /// Runs the search, then writes the `-n` best completions.
    pub(super) fn search(&self, hornbook: &Hornbook, prompt: &[u32], stats: &mut Stats) -> Result<ExitCode> {
        let (params, options) = (self.beam_params(), self.options(hornbook));
        if self.n.get() > params.num_beams {
            return Err(Error::Parameter {
                name: "-n".into(),
                found: self.n.to_string(),
                expected: format!("at most --beams, {}", params.num_beams),
            });
        }
        let (kv_precision, config) = (hornbook.model().kv_precision(), hornbook.config());
        let plan = hornbook.plan(prompt, &options)?;
        let positions = plan.prompt().len() + options.max_tokens.unwrap_or(config.n_positions);
        let cache = KvCache::byte_factors(
            config,
            positions.min(config.n_positions),
            options.kv_precision.unwrap_or(kv_precision),
        );
        // Two sets of caches, and about as much for the logits as one.
        let (n, logits) = (params.num_beams, config.vocab_size * 3 * size_of::<f32>());
        let cache_bytes = 2 * cache.iter().product::<usize>() + logits;
        memory::check("--beams", &n.to_string(), &[n, cache_bytes])?;
        let beams = beam_search(hornbook, prompt, params, &options)?;
        stats.search_finished(beams.iter().map(|beam| beam.ids.len()).sum());
        let mut output = Output::new(hornbook, self.output, self.json);
        let mut choices = vec![];
        for (index, beam) in beams.into_iter().take(self.n.get()).enumerate() {
            if index > 0 {
                output.separator()?;
            }
            let mut text = beam.text;
            let (prompt_text, rest) = decode_prompt(hornbook, prompt);
            if self.echo || output.is_terminal() {
                output.prompt(prompt)?;
                if beam.ids.is_empty() {
                    text += &rest;
                }
            }
            match self.output.is_text() {
                true => output.text(&text)?,
                false => output.ids(&beam.ids)?,
            }
            output.end(&text, &beam.ids, beam.finish_reason)?;
            choices.push(Choice {
                text: if self.echo { prompt_text + &text } else { text },
                index,
                logprobs: None,
                finish_reason: Some(beam.finish_reason),
                token_ids: Some(beam.ids),
            });
        }
        if self.json {
            output.json(
                &Completion::new(hornbook.name(), choices, prompt.len(), options.sampling.seed),
                None,
            )?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
