//! The logit lens: what would the model answer if it stopped here?
//!
//! ```text
//! lens[l, t] = head(ln_f(residual[l, t]))          l = 0 before the first block, n_layer after the last
//! ```
//!
//! Every block adds to the same vector, so the end of the model can read that vector at any depth (nostalgebraist,
//! "interpreting GPT: the logit lens", 2020). Early on it says little; the depth at which the answer appears says where it
//! was decided. The last row is the model's own answer, to the bit.
//!
//! 2 · n_embd · vocab_size operations a layer and token, as much as the head costs for a token.

use super::surprisal::targets;
use super::{ActivationCache, Prediction};
use crate::kernels::rows::Rows;
use crate::model::Model;
use ndarray::s;

/// Tokens whose logits are held at once.
const CHUNK: usize = 32;

/// Reads the residual stream at every depth, `[n_layer + 1][n]`: the `best` likeliest next tokens, and what is thought of
/// the token that came next (`after` for the last). `each` is told how many readings were added.
pub fn logit_lens(
    model: &Model,
    capture: &ActivationCache,
    best: usize,
    after: Option<u32>,
    mut each: impl FnMut(usize),
) -> Vec<Vec<Prediction>> {
    let (n_embd, vocab_size) = (model.config().n_embd, model.config().vocab_size);
    let targets = targets(&capture.tokens, after);
    let mut lens = vec![];
    for layer in capture.residuals.outer_iter() {
        let mut readings = vec![Prediction::default(); capture.len()];
        for (i, readings) in readings.chunks_mut(CHUNK).enumerate() {
            let tokens = i * CHUNK..i * CHUNK + readings.len();
            let rows = layer.slice(s![tokens.clone(), ..]);
            let logits = model.unembed_residual(Rows::dense(rows.to_slice().unwrap_or_default(), n_embd));
            model.pool().for_each_chunk(readings, 1, |t, reading| {
                let logits = &logits[t * vocab_size..][..vocab_size];
                reading[0] = Prediction::from_logits(logits, best, targets[tokens.start + t]);
            });
            each(readings.len());
        }
        lens.push(readings);
    }
    lens
}
