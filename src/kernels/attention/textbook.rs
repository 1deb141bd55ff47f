//! Attention as the formula is written: the whole score matrix, a softmax of every row, then the weighted
//! values. No threads within a head, no SIMD, no blocks: it is the [`reference`] that every other kernel is
//! tested against.
//!
//! ```text
//! S = Q · Kᵀ · scale     P = softmax(S + mask)     O = P · V          (Vaswani et al. 2017, section 3.2.1)
//! ```
//!
//! - Memory: n · kv_len scores in f64 per head on every thread: 8 MiB for 1024 tokens, 128 MiB for 4096.
//! - Cost: 4 · head_dim FLOPs per unmasked query-key pair, one at a time.

use super::kernel::{AttentionKernel, AttentionParams};
use super::reference;
use crate::rows::Rows;

/// The formula in f64, with the whole score matrix.
#[derive(Clone, Copy, Debug)]
pub struct Textbook;

impl AttentionKernel for Textbook {
    fn name(&self) -> &'static str {
        "textbook"
    }

    fn description(&self) -> &'static str {
        "full score matrix in f64, as the formula is written"
    }

    fn score_matrix_len(&self, queries: usize, kv_len: usize) -> usize {
        (size_of::<f64>() / size_of::<f32>()).saturating_mul(queries.saturating_mul(kv_len))
    }

    fn attend(&self, params: &mut AttentionParams) {
        params.record_workspace(self.score_matrix_len(params.max_query_len(), params.max_kv_len()));
        params.for_each_query_block(
            usize::MAX,
            |_| 0,
            |block, _, out| {
                let (k, v) = block.kv.to_f32_vecs(block.head, block.kv_len());
                let [k, v] = [&k, &v].map(|x| Rows::dense(x, block.q.width()));
                let (rows, _) = reference(block.q, k, v, block.scale);
                for (m, row) in rows.chunks(block.q.width()).enumerate() {
                    out.row_mut(m).iter_mut().zip(row).for_each(|(out, &x)| *out = x as f32);
                }
            },
        );
    }
}
