//! Beam search: the model runs on all beams at once, each with its own past.

use super::{ContextPolicy, FinishReason, Hornbook, Options, Plan};
use crate::Result;
use crate::model::{KvCache, LogitsWanted, Segment, Workspace};
use crate::sampling::{BeamParams, BeamSearch};
use crate::tokenizer::Utf8Decoder;

/// A finished hypothesis.
#[derive(Clone, Debug, PartialEq)]
pub struct Beam {
    /// The completion's tokens, one that ended it included.
    pub ids: Vec<u32>,
    /// Their text; empty without a tokenizer.
    pub text: String,
    /// The sum of logprobs over `length ^ length_penalty`.
    pub score: f64,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// The best completions of `prompt`, best first, as transformers' `generate(num_beams=…)` finds them. Penalties and
/// n-gram bans of `options` apply; its temperature, filters and stop strings have no meaning here, and beams end with the
/// context.
///
/// # Errors
/// As [`Hornbook::generate`], and [`Error::Parameter`](crate::Error::Parameter) for `params` out of range.
pub fn beam_search(
    hornbook: &Hornbook,
    prompt: &[u32],
    params: BeamParams,
    options: &Options,
) -> Result<Vec<Beam>> {
    let Plan { prompt, sampling, max_tokens, .. } =
        hornbook.plan(prompt, &Options { context: ContextPolicy::Stop, ..options.clone() })?;
    let (stop_ids, beams) = (sampling.stop_ids.clone(), params.num_beams);
    if max_tokens == 0 {
        let empty =
            Beam { ids: vec![], text: String::new(), score: 0.0, finish_reason: FinishReason::Length };
        return Ok(vec![empty]);
    }
    let mut search = BeamSearch::new(params, sampling, &prompt, max_tokens)?;

    let mut session = hornbook.session(prompt.len(), options);
    let positions = prompt.len() + max_tokens;
    let precision = options.kv_precision.unwrap_or(hornbook.model().kv_precision());
    let new = || KvCache::new(hornbook.config(), positions, precision);
    let (mut pasts, mut spare): (Vec<_>, Vec<_>) = (0..beams).map(|_| (new(), new())).unzip();
    let first = session.feed(&prompt)?;
    let mut step = search.step(&[first]);
    // In the first step every beam continues the prompt itself.
    pasts[0].copy_from(session.cache());
    let mut workspace = Workspace::new();
    while let Some(next) = step {
        for (to, &parent) in spare.iter_mut().zip(&next.parents) {
            to.copy_from(&pasts[parent]);
        }
        std::mem::swap(&mut pasts, &mut spare);
        let mut batch: Vec<Segment> = pasts
            .iter_mut()
            .zip(next.tokens.chunks(1))
            .map(|(cache, tokens)| Segment { tokens, cache, logits: LogitsWanted::Last })
            .collect();
        hornbook.model().forward(&mut batch, &mut workspace, &mut ())?;
        let running = batch.len();
        let logits: Vec<&[f32]> = (0..running).map(|i| workspace.logits().row(i)).collect();
        step = search.step(&logits);
    }

    let hypotheses = search.into_hypotheses();
    Ok(hypotheses
        .into_iter()
        .map(|hypothesis| {
            let ended = hypothesis.tokens.last().is_some_and(|id| stop_ids.contains(id));
            let shown = &hypothesis.tokens[..hypothesis.tokens.len() - usize::from(ended)];
            let mut characters = Utf8Decoder::new();
            let mut text = String::new();
            if let Some(tokenizer) = hornbook.try_tokenizer() {
                shown.iter().for_each(|&id| text += &characters.push(tokenizer.token_bytes(id)));
                text += &characters.finish();
            }
            let finish_reason = if ended { FinishReason::Stop } else { FinishReason::Length };
            Beam { text, ids: hypothesis.tokens, score: hypothesis.score, finish_reason }
        })
        .collect())
}
