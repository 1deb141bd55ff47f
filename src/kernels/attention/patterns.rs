//! Attention patterns to look at: the shares the fast form mixes with, which it never holds itself.

use super::Span;
use super::key_values::{Panels, Store};
use crate::kernels::elements::Element;
use crate::kernels::isa::Isa;
use crate::kernels::rows::Rows;
use crate::kernels::simd::LANES;
use crate::kernels::softmax::softmax;

/// The patterns `[n_head, n, position + n]` of a span: row i's shares of what it sees, zero behind the mask.
pub fn patterns(isa: Isa, q: Rows, span: Span, scale: f32) -> Vec<f32> {
    match &span.past.store {
        Store::F32(past) => of_elements(isa, q, span, past, scale),
        Store::F16(past) => of_elements(isa, q, span, past, scale),
    }
}

fn of_elements<E: Element>(isa: Isa, q: Rows, span: Span, past: &Panels<E>, scale: f32) -> Vec<f32> {
    let (n_head, head_dim) = (span.past.n_head(), span.past.head_dim());
    let width = span.position + span.n;
    let mut all = vec![0.0; n_head * span.n * width];
    for (i, shares) in all.chunks_mut(width).enumerate() {
        let (h, t) = (i / span.n, i % span.n);
        let q = &q.row(span.row + t)[h * head_dim..][..head_dim];
        let seen = &mut shares[..=span.position + t];
        for (j, score) in seen.iter_mut().enumerate() {
            let keys = past.keys(h, j / LANES);
            let key = |d: usize| keys[d * LANES + j % LANES].to_f32();
            *score = q.iter().enumerate().fold(0.0f32, |sum, (d, q)| q.mul_add(key(d), sum)) * scale;
        }
        softmax(isa, seen);
    }
    all
}
