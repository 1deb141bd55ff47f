//! Attention weights for observers: most kernels never hold the whole matrix themselves.

use super::kernel::{Mask, Segment};
use crate::isa::Isa;
use crate::rows::Rows;
use crate::simd::mul_add;
use crate::softmax::softmax;

/// Returns the attention weights `[n_head, len, position + len]` of a segment: each row sums to 1, masked
/// positions are 0.
pub fn attention_weights(isa: Isa, q: Rows, segment: Segment, scale: f32, mask: Mask) -> Vec<f32> {
    let (n_head, head_dim) = (segment.kv.n_head(), segment.kv.head_dim());
    let kv_len = segment.position + segment.len;
    let mut weights = vec![0.0; n_head * segment.len * kv_len];
    for (h, head) in weights.chunks_mut(segment.len.max(1) * kv_len).enumerate() {
        let (keys, _) = segment.kv.to_f32_vecs(h, kv_len);
        for (t, row) in head.chunks_mut(kv_len).enumerate() {
            let q = &q.row(segment.first_row + t)[h * head_dim..][..head_dim];
            let visible = mask.visible(segment.position + t);
            let row = &mut row[visible.clone()];
            for (score, key) in row.iter_mut().zip(keys.chunks(head_dim).skip(visible.start)) {
                *score = q.iter().zip(key).fold(0.0, |sum, (q, k)| mul_add(*q, *k, sum)) * scale;
            }
            softmax(isa, row);
        }
    }
    weights
}
