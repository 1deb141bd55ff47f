//! Attention: every token has a query, and all tokens up to it have a key and a value. A token's output is
//! the average of these values, weighted by how well their keys match its query.
//!
//! ```text
//! score[i, j] = (q[i] · k[j]) · scale          for j ≤ i: no later tokens (causal mask)
//! p[i, ·]     = softmax(score[i, 0..=i])       the attention weights
//! out[i]      = Σ_j p[i, j] · v[j]             (Vaswani et al. 2017, section 3.2.1)
//! ```
//!
//! Every head does so on its own head_dim columns of q, k and v; scale is 1/√head_dim. For n tokens that is 2
//! · n² · n_embd multiply-adds in prefill (half of them masked); in decode, 4 · n_embd FLOPs per cached token
//! on 2 · n_embd cached elements: memory bandwidth is the limit.
//!
//! [`KeyValues`] stores keys and values such that one microkernel computes scores and outputs. [`KERNELS`]
//! lists the implementations, each in a file of its own, to be read in this order: [`Textbook`], [`Blocks`],
//! [`TwoPass`], [`Streaming`], [`Flash`] (the default), [`SplitKv`], [`SlidingWindow`]. A new one is a file
//! and a line in that list: it is then tested with the others, measured by `hornbook bench attention` and
//! selected by `--attention NAME`.

mod attention_weights;
mod kernel;
mod key_values;
mod panels;
mod primitives;

/// Declares kernels: the module and its kernel, and an entry of [`KERNELS`].
macro_rules! kernels {
    ($($module:ident::$kernel:ident $({ $field:ident: $value:expr })?,)*) => {
        $(
            mod $module;
            pub use $module::$kernel;
        )*

        /// The kernels that `--attention` accepts.
        pub static KERNELS: &[&dyn AttentionKernel] = &[$(&$kernel $({ $field: $value })?),*];
    };
}

kernels! {
    textbook::Textbook,
    blocks::Blocks,
    two_pass::TwoPass,
    streaming::Streaming,
    flash::Flash,
    split_kv::SplitKv,
    sliding_window::SlidingWindow { tokens: 256 },
}

pub use attention_weights::attention_weights;
pub use kernel::{AttentionKernel, AttentionParams, Mask, OutputBlock, QueryBlock, Segment, Segments};
pub use key_values::{KeyValues, KvPrecision};
pub use primitives::exp_and_sum;

use super::rows::{Rows, RowsMut};
use super::thread_pool::ThreadPool;

/// Returns the kernel of that name.
///
/// # Errors
/// A message that lists the known names.
pub fn by_name(name: &str) -> Result<&'static dyn AttentionKernel, String> {
    KERNELS.iter().copied().find(|kernel| kernel.name() == name).ok_or_else(|| {
        let names: Vec<_> = KERNELS.iter().map(|kernel| kernel.name()).collect();
        format!("expected one of {}", names.join(", "))
    })
}

/// The formula in f64, for one head: `k` and `v` are `[kv_len, head_dim]`, and `q`, `[n, head_dim]`, are the
/// queries of the last n positions. Returns out, `[n, head_dim]`, and p, `[n, kv_len]`.
pub fn reference(q: Rows, k: Rows, v: Rows, scale: f32) -> (Vec<f64>, Vec<f64>) {
    let (n, kv_len, head_dim) = (q.len(), k.len(), v.width());
    let (mut out, mut p) = (vec![0.0; n * head_dim], vec![0.0; n * kv_len]);
    for i in 0..n {
        let p = &mut p[i * kv_len..][..kv_len - n + i + 1]; // the causal mask: the rest of the row stays 0
        for (j, score) in p.iter_mut().enumerate() {
            let products = q.row(i).iter().zip(k.row(j)).map(|(&q, &k)| f64::from(q) * f64::from(k));
            *score = products.sum::<f64>() * f64::from(scale);
        }
        let max = p.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        p.iter_mut().for_each(|score| *score = libm::exp(*score - max));
        let sum: f64 = p.iter().sum();
        p.iter_mut().for_each(|e| *e /= sum);
        for (j, p) in p.iter().enumerate() {
            let out = out[i * head_dim..][..head_dim].iter_mut();
            out.zip(v.row(j)).for_each(|(out, &v)| *out += p * f64::from(v));
        }
    }
    (out, p)
}

/// Computes attention with a kernel. `q` and `out` are `[n_tokens, n_embd]`, heads concatenated; the rows of
/// every segment are written. Returns the bytes of workspace that the kernel used.
pub fn attention(
    kernel: &dyn AttentionKernel,
    pool: &ThreadPool,
    q: Rows,
    segments: Segments,
    scale: f32,
    mut out: RowsMut,
) -> usize {
    let mut params = AttentionParams::new(pool, q, segments, scale, &mut out);
    kernel.attend(&mut params);
    params.workspace_bytes()
}

#[cfg(test)]
mod tests;
