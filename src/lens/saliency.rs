//! Which head is most worth a look?
//!
//! Most heads of a GPT-2 do something that position alone explains: they attend to the first token (which is how a head
//! rests), to the token before, or to the token itself. A head that looks hard at *one other* token has found
//! something in the text. So a head's score is
//!
//! ```text
//! score = mean over tokens i ≥ 3 of  max { pattern[i, j] : 0 < j < i − 1 }
//! ```
//!
//! the largest share of its attention that a token gives one that is neither the first, nor the one before, nor itself.
//! It is a number to sort by and no more: it does not say that the head matters for the answer.

use super::ActivationCache;

/// A head and its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadSaliency {
    /// Its block.
    pub layer: usize,
    /// Its number.
    pub head: usize,
    /// From 0 to 1; 0 for all heads of a text of three tokens or less.
    pub score: f32,
}

/// The score of a head.
pub fn head_saliency(capture: &ActivationCache, layer: usize, head: usize) -> f32 {
    let pattern = capture.pattern(layer, head);
    let tokens = 3..capture.len();
    if tokens.is_empty() {
        return 0.0;
    }
    let n = tokens.len() as f32;
    let largest = |i: usize| (1..i - 1).map(|j| pattern[[i, j]]).fold(0.0, f32::max);
    tokens.map(largest).sum::<f32>() / n
}

/// The head with the largest score, of one block or of all; the first among equals.
pub fn most_salient_head(capture: &ActivationCache, layer: Option<usize>) -> HeadSaliency {
    let (n_layer, n_head, ..) = capture.patterns.dim();
    let layers = layer.map_or(0..n_layer, |layer| layer..layer + 1);
    let heads = layers.flat_map(|layer| (0..n_head).map(move |head| (layer, head)));
    let scored =
        heads.map(|(layer, head)| HeadSaliency { layer, head, score: head_saliency(capture, layer, head) });
    let better = |best: HeadSaliency, next: HeadSaliency| if next.score > best.score { next } else { best };
    scored.reduce(better).unwrap_or(HeadSaliency { layer: 0, head: 0, score: 0.0 })
}
