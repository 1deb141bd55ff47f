//! Attention: every token asks a question (its query), all tokens up to it offer an answer (a key to be found by, a
//! value to be taken), and each token takes a mixture of the values whose keys match its query best.
//!
//! ```text
//! score[i, j] = (q[i] · k[j]) · scale          for j ≤ i: no token sees the future
//! p[i, ·]     = softmax(score[i, 0..=i])
//! z[i]        = Σ_j p[i, j] · v[j]             (Vaswani et al. 2017, section 3.2.1)
//! ```
//!
//! Every head does so on its own head_dim columns of q, k and v; scale is 1/√head_dim. For n tokens that is
//! 2 · n² · n_embd multiply-adds in prefill (half of it behind the mask); in decode, 4 · n_embd operations for each
//! token of the past, over 2 · n_embd cached numbers: a race against memory.
//!
//! Keys and values lie in [`KeyValues`], arranged so that scores and mixtures are one inner loop. [`KERNELS`] are the
//! ways to get from the one to the other, each in a file of its own, to be read in this order: [`Textbook`], [`Blocks`],
//! [`TwoPass`], [`Streaming`], [`Flash`] (the default), [`SplitKv`], [`SlidingWindow`]. A new one is a file and a line in that list: it
//! is then tested with the others, measured by `hornbook bench attention`, and `--attention NAME` writes with it.

mod ahead;
mod aligned;
mod blocks;
mod flash;
mod kernel;
mod key_values;
mod panels;
mod patterns;
mod pieces;
mod split_kv;
mod streaming;
mod textbook;
mod two_pass;
mod window;

pub use blocks::Blocks;
pub use flash::Flash;
pub use kernel::{AttentionKernel, Call, Mask, Mixtures, Span, Spans, Tile};
pub use key_values::{KeyValues, KvPrecision};
pub use patterns::patterns;
pub use pieces::weigh;
pub use split_kv::SplitKv;
pub use streaming::Streaming;
pub use textbook::Textbook;
pub use two_pass::TwoPass;
pub use window::SlidingWindow;

use super::rows::{Rows, RowsMut};
use super::threads::Team;

/// The kernels that `--attention` knows.
pub static KERNELS: &[&dyn AttentionKernel] =
    &[&Textbook, &Blocks, &TwoPass, &Streaming, &Flash, &SplitKv, &SlidingWindow { tokens: 256 }];

/// The kernel of a name.
///
/// # Errors
/// A line that lists the names there are.
pub fn named(name: &str) -> Result<&'static dyn AttentionKernel, String> {
    KERNELS.iter().copied().find(|kernel| kernel.name() == name).ok_or_else(|| {
        let names: Vec<_> = KERNELS.iter().map(|kernel| kernel.name()).collect();
        format!("expected one of {}", names.join(", "))
    })
}

/// The formula as it stands, in f64, for one query of one head: what it sees are the rows of `k` and `v`, `[n,
/// head_dim]` each. Returns its mixture `[head_dim]` and its shares `[n]`. Every kernel is held to it.
pub fn formula(q: &[f32], k: Rows, v: Rows, scale: f32) -> (Vec<f64>, Vec<f64>) {
    let dot = |j| q.iter().zip(k.row(j)).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>();
    let scores: Vec<f64> = (0..k.len()).map(|j| dot(j) * f64::from(scale)).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = scores.iter().map(|score| libm::exp(score - max)).collect();
    let sum: f64 = e.iter().sum();
    let p: Vec<f64> = e.iter().map(|e| e / sum).collect();
    let mut z = vec![0.0; v.width()];
    for (j, p) in p.iter().enumerate() {
        z.iter_mut().zip(v.row(j)).for_each(|(z, &v)| *z += p * f64::from(v));
    }
    (z, p)
}

/// Attention by a kernel. `q` and `z` are `[n_tokens, n_embd]`, the heads side by side; every span's rows of `z` are
/// written. Returns the bytes of scratch that the kernel took.
pub fn attention(
    kernel: &dyn AttentionKernel,
    team: &Team,
    q: Rows,
    spans: Spans,
    scale: f32,
    mut z: RowsMut,
) -> usize {
    let mut call = Call::new(team, q, spans, scale, &mut z);
    kernel.attend(&mut call);
    call.scratch_bytes()
}

#[cfg(test)]
mod tests;
