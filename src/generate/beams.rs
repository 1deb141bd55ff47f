//! Beam search: one forward pass per step over all beams, each with its own KV cache.

use super::{ContextPolicy, FinishReason, Hornbook, Options, Plan};
use crate::model::{LogitsWanted, Segment, Workspace};
use crate::sampling::{BeamParams, BeamSearch};
use crate::{Error, Result};

/// A finished hypothesis.
#[derive(Clone, Debug, PartialEq)]
pub struct Beam {
    /// The completion's tokens, including an end-of-text token.
    pub ids: Vec<u32>,
    /// The completion's text; empty without a tokenizer.
    pub text: String,
    /// Sum of logprobs divided by `length ^ length_penalty`.
    pub score: f64,
    /// Finish reason.
    pub finish_reason: FinishReason,
}

/// Returns the best completions of `prompt`, best first, as transformers' `generate(num_beams=…)` does.
/// Penalties and n-gram bans of `options` apply; temperature, filters, stop strings and context shift do not.
///
/// # Errors
/// As [`Hornbook::generate`], [`Error::Parameter`] for `params` out of range, and [`Error::Prompt`] if
/// every first token is banned.
pub fn beam_search(
    hornbook: &Hornbook,
    prompt: &[u32],
    params: BeamParams,
    options: &Options,
) -> Result<Vec<Beam>> {
    beam_search_unless(|| false, hornbook, prompt, params, options)
}

/// As [`beam_search`], unless `is_interrupted` says so between two steps.
///
/// # Errors
/// As [`beam_search`], and [`Error::Aborted`] if it is interrupted.
pub fn beam_search_unless(
    mut is_interrupted: impl FnMut() -> bool,
    hornbook: &Hornbook,
    prompt: &[u32],
    params: BeamParams,
    options: &Options,
) -> Result<Vec<Beam>> {
    let Plan { prompt, sampling, max_tokens, .. } =
        hornbook.plan(prompt, &Options { context: ContextPolicy::Stop, ..options.clone() })?;
    let (stop_ids, num_beams) = (sampling.stop_ids.clone(), params.num_beams);
    if max_tokens == 0 {
        let empty =
            Beam { ids: vec![], text: String::new(), score: 0.0, finish_reason: FinishReason::Length };
        return Ok(vec![empty]);
    }
    let mut search = BeamSearch::new(params, sampling, &prompt, max_tokens)?;

    let mut session = hornbook.session(prompt.len(), options);
    let positions = prompt.len() + max_tokens - 1; // the last token is not computed
    let new = || hornbook.model().kv_cache(positions, options.kv_precision);
    // Two sets of caches, swapped in each step: the next beams' are copied from those of their parents.
    let (mut caches, mut next_caches): (Vec<_>, Vec<_>) = (0..num_beams).map(|_| (new(), new())).unzip();
    let first = session.feed(&prompt)?;
    let mut step = search.step(&[first]);
    // In the first step every beam continues the prompt.
    caches[0].copy_from(session.cache());
    let mut workspace = Workspace::new();
    while let Some(next) = step {
        if is_interrupted() {
            return Err(Error::Aborted { reason: "the search was interrupted".into() });
        }
        for (to, &parent) in next_caches.iter_mut().zip(&next.parents) {
            to.copy_from(&caches[parent]);
        }
        std::mem::swap(&mut caches, &mut next_caches);
        let mut batch: Vec<Segment> = caches
            .iter_mut()
            .zip(next.tokens.chunks(1))
            .map(|(cache, tokens)| Segment { tokens, cache, logits: LogitsWanted::Last })
            .collect();
        hornbook.model().forward(&mut batch, &mut workspace, &mut ())?;
        let running = batch.len();
        let logits = workspace.logits();
        for (i, cache) in caches[..running].iter().enumerate() {
            hornbook.model().check_finite(logits.row_range(i, 1), cache)?;
        }
        let logits: Vec<&[f32]> = (0..running).map(|i| logits.row(i)).collect();
        step = search.step(&logits);
    }

    let hypotheses = search.into_hypotheses();
    if hypotheses.is_empty() {
        return Err(Error::Prompt(
            "no token may follow the prompt: logit biases, no_repeat_ngram_size or min_tokens ban all of them"
                .into(),
        ));
    }
    Ok(hypotheses
        .into_iter()
        .map(|hypothesis| {
            let ended = hypothesis.tokens.last().is_some_and(|id| stop_ids.contains(id));
            let text_ids = &hypothesis.tokens[..hypothesis.tokens.len() - usize::from(ended)];
            let mut text = String::new();
            if let Some(tokenizer) = hornbook.try_tokenizer() {
                let (_, mut utf8) = tokenizer.decode_complete(&prompt);
                text_ids.iter().for_each(|&id| text += &utf8.push(tokenizer.token_bytes(id)));
                text += &utf8.finish();
            }
            let finish_reason = if ended { FinishReason::Stop } else { FinishReason::Length };
            Beam { text, ids: hypothesis.tokens, score: hypothesis.score, finish_reason }
        })
        .collect())
}
