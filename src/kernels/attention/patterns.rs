//! Attention patterns to look at: the shares the fast forms mix with, which most of them never hold themselves.

use super::kernel::{Mask, Span};
use crate::kernels::isa::Isa;
use crate::kernels::rows::Rows;
use crate::kernels::softmax::softmax;

/// The patterns `[n_head, n, position + n]` of a span: row i's shares of what it sees, zero behind the mask.
pub fn patterns(isa: Isa, q: Rows, span: Span, scale: f32, mask: Mask) -> Vec<f32> {
    let (n_head, head_dim) = (span.past.n_head(), span.past.head_dim());
    let width = span.position + span.n;
    let mut all = vec![0.0; n_head * span.n * width];
    for (h, all) in all.chunks_mut(span.n.max(1) * width).enumerate() {
        let (keys, _) = span.past.stored(h, width);
        for (t, shares) in all.chunks_mut(width).enumerate() {
            let q = &q.row(span.row + t)[h * head_dim..][..head_dim];
            let seen = mask.seen(span.position + t);
            let shares = &mut shares[seen.clone()];
            for (share, key) in shares.iter_mut().zip(keys.chunks(head_dim).skip(seen.start)) {
                *share = q.iter().zip(key).fold(0.0f32, |sum, (q, k)| q.mul_add(*k, sum)) * scale;
            }
            softmax(isa, shares);
        }
    }
    all
}
