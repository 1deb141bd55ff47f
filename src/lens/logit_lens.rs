//! The logit lens: the prediction at every depth of the model.
//!
//! ```text
//! lens[l, t] = lm_head(ln_f(residual[l, t]))          l = 0 before the first block, n_layer after the last
//! ```
//!
//! Every block adds to the same vector, so the last layer norm and the LM head can be applied at any depth
//! (nostalgebraist, "interpreting GPT: the logit lens", 2020). The depth at which a prediction appears shows
//! which layers computed it. The last row equals the model's own prediction, bit for bit.
//!
//! Cost: 2 · n_embd · vocab_size FLOPs per layer and token, the same as the LM head.

use super::surprisal::next_tokens;
use super::{ActivationCache, Prediction};
use crate::kernels::rows::Rows;
use crate::model::Model;
use ndarray::s;

/// The number of tokens whose logits are in memory at once.
const CHUNK: usize = 32;

/// Returns the predictions at every depth, `[n_layer + 1][n]`: the `top` most likely next tokens, and the
/// logprob and rank of the actual next token (`after` for the last one). `progress` is called with the number
/// of predictions added.
pub fn logit_lens(
    model: &Model,
    cache: &ActivationCache,
    top: usize,
    after: Option<u32>,
    mut progress: impl FnMut(usize),
) -> Vec<Vec<Prediction>> {
    let (n_embd, vocab_size) = (model.config().n_embd, model.config().vocab_size);
    let targets = next_tokens(&cache.tokens, after);
    let mut lens = vec![];
    for layer in cache.residuals.outer_iter() {
        let mut predictions = vec![Prediction::default(); cache.len()];
        for (i, predictions) in predictions.chunks_mut(CHUNK).enumerate() {
            let tokens = i * CHUNK..i * CHUNK + predictions.len();
            let rows = layer.slice(s![tokens.clone(), ..]);
            let logits = model.unembed_residual(Rows::dense(rows.to_slice().unwrap_or_default(), n_embd));
            model.pool().for_each_chunk(predictions, 1, |t, prediction| {
                let logits = &logits[t * vocab_size..][..vocab_size];
                prediction[0] = Prediction::from_logits(logits, top, targets[tokens.start + t]);
            });
            progress(predictions.len());
        }
        lens.push(predictions);
    }
    lens
}

/// Returns the predictions at every depth after one token, `[n_layer + 1]`; `next` is the token to rank.
///
/// # Panics
/// Panics if there is no such token.
pub fn logit_lens_of(
    model: &Model,
    cache: &ActivationCache,
    token: usize,
    top: usize,
    next: u32,
) -> Vec<Prediction> {
    let at_depth = |layer: ndarray::ArrayView2<f32>| {
        let row = layer.row(token);
        let row = Rows::dense(row.to_slice().unwrap_or_default(), model.config().n_embd);
        Prediction::from_logits(&model.unembed_residual(row), top, Some(next))
    };
    cache.residuals.outer_iter().map(at_depth).collect()
}
