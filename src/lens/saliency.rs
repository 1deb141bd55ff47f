//! Head saliency: a heuristic for which attention head to look at first.
//!
//! Most heads of a GPT-2 mainly attend to positions: to the first token (an attention sink), to the previous
//! token, or to the token itself. A head with a large attention weight on one *other* token responds to the
//! content of the text. The saliency of a head is
//!
//! ```text
//! saliency = mean over tokens i ≥ 3 of  max { pattern[i, j] : 0 < j < i − 1 }
//! ```
//!
//! the mean over tokens of the largest attention weight on a token that is not the first, the previous or the
//! token itself. It serves to sort heads; it does not measure how much a head matters for the prediction.

use super::ActivationCache;

/// A head and its saliency.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadSaliency {
    /// The layer, from 0.
    pub layer: usize,
    /// The head within the layer, from 0.
    pub head: usize,
    /// The saliency, from 0 to 1; 0 for a text of at most three tokens.
    pub saliency: f32,
}

/// Returns the saliency of a head.
pub fn head_saliency(cache: &ActivationCache, layer: usize, head: usize) -> f32 {
    let pattern = cache.pattern(layer, head);
    let tokens = 3..cache.len();
    if tokens.is_empty() {
        return 0.0;
    }
    let n = tokens.len() as f32;
    let largest = |i: usize| (1..i - 1).map(|j| pattern[[i, j]]).fold(0.0, f32::max);
    tokens.map(largest).sum::<f32>() / n
}

/// Returns the head with the largest saliency in one layer or in all layers; the first one in case of ties.
pub fn most_salient_head(cache: &ActivationCache, layer: Option<usize>) -> HeadSaliency {
    let (n_layer, n_head, ..) = cache.patterns.dim();
    let layers = layer.map_or(0..n_layer, |layer| layer..layer + 1);
    let heads = layers.flat_map(|layer| (0..n_head).map(move |head| (layer, head)));
    let candidates =
        heads.map(|(layer, head)| HeadSaliency { layer, head, saliency: head_saliency(cache, layer, head) });
    let max =
        |best: HeadSaliency, next: HeadSaliency| if next.saliency > best.saliency { next } else { best };
    candidates.reduce(max).unwrap_or(HeadSaliency { layer: 0, head: 0, saliency: 0.0 })
}
