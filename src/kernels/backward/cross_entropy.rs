//! Cross-entropy of the next token, with the LM head before it and the gradients of both: the one operation
//! of training whose forward and backward pass are computed together.
//!
//! ```text
//! logits = x · wteᵀ
//! loss = Σ_t weight[t] · (log Σ_v e^logits[t, v] − logits[t, target[t]])
//!
//! dlogits[t, v] = weight[t] · (softmax(logits[t])[v] − [v = target[t]])
//! dx = dlogits · wte         dwte = dlogitsᵀ · x
//! ```
//!
//! The logits of all tokens would be the largest matrix of training: 1.6 GB for 8192 tokens of GPT-2. Tokens
//! are therefore processed in blocks of 256, whose gradients follow at once: 51 MB, and as much to pack them.
//! Tokens of weight 0 are left out. The three products take 6 · n_embd · vocab_size FLOPs per token, all of
//! them as GEMM. dwte is summed over a block's tokens for some rows of the table at a time, so that sums
//! between K-blocks stay in the L2 cache.

use crate::gemm::{gemm, gemm_nt, gemm_tn};
use crate::linear::Epilogue;
use crate::rows::{Rows, RowsMut, row_stride};
use crate::simd::{Kernel, LANES, Simd};
use crate::softmax::{exp_and_add, max_of};
use crate::thread_pool::{DisjointSlice, ThreadPool};

/// Tokens whose logits are in memory at once.
const TOKENS_PER_BLOCK: usize = 256;
/// Rows of the table whose gradient one chunk of work computes.
const TABLE_ROWS_PER_CHUNK: usize = 512;

/// The token that follows each token, and how much its loss counts.
#[derive(Clone, Copy, Debug)]
pub struct Targets<'a> {
    /// The ids of the next tokens, `[n_tokens]`. The id of a token with weight 0 is not read.
    pub ids: &'a [u32],
    /// The weights, `[n_tokens]`: 1 / n for the mean of n tokens, 0 for tokens that do not count.
    pub weights: &'a [f32],
}

/// The loss and its gradients.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// The weighted sum over all tokens.
    pub loss: f64,
    /// `[n_tokens, n_embd]`
    pub dx: Vec<f64>,
    /// `[vocab_size, n_embd]`
    pub dwte: Vec<f64>,
}

/// The formulas: `x` is `[n_tokens, n_embd]`, `wte` is `[vocab_size, n_embd]`.
pub fn reference(x: &[f64], wte: &[f64], n_embd: usize, targets: Targets) -> Gradients {
    let (mut loss, mut dx, mut dwte) = (0.0, vec![0.0; x.len()], vec![0.0; wte.len()]);
    for (t, x) in x.chunks(n_embd).enumerate() {
        let (target, weight) = (targets.ids[t] as usize, f64::from(targets.weights[t]));
        if weight == 0.0 {
            continue;
        }
        let dot = |row: &[f64]| x.iter().zip(row).map(|(x, w)| x * w).sum::<f64>();
        let logits: Vec<f64> = wte.chunks(n_embd).map(dot).collect();
        let sum: f64 = logits.iter().map(|&logit| libm::exp(logit)).sum();
        loss += weight * (libm::log(sum) - logits[target]);
        for (v, logit) in logits.iter().enumerate() {
            let one_hot = f64::from(u8::from(v == target));
            let dlogit = weight * (libm::exp(*logit) / sum - one_hot);
            for i in 0..n_embd {
                dx[t * n_embd + i] += dlogit * wte[v * n_embd + i];
                dwte[v * n_embd + i] += dlogit * x[i];
            }
        }
    }
    Gradients { loss, dx, dwte }
}

/// Buffers for one block of tokens, reused between calls.
#[derive(Debug, Default)]
pub struct Workspace {
    /// `[TOKENS_PER_BLOCK, n_embd]`
    x: Vec<f32>,
    /// `[TOKENS_PER_BLOCK, n_embd]`
    dx: Vec<f32>,
    /// Logits, then their gradients, `[TOKENS_PER_BLOCK, row_stride(vocab_size)]`.
    logits: Vec<f32>,
    /// The weighted loss of each token, and its weight if its prediction is right, `[TOKENS_PER_BLOCK]`.
    losses: Vec<[f64; 2]>,
    accuracy: f64,
}

impl Workspace {
    /// The weighted sum of the tokens of the last call that had the highest logit: the share of right
    /// predictions, where the weights are those of a mean.
    pub fn accuracy(&self) -> f64 {
        self.accuracy
    }
}

/// Returns the loss of the tokens' final vectors `x`, `[n_tokens, n_embd]`, for the table `wte`,
/// `[vocab_size, n_embd]`, summed in the order of the tokens.
///
/// # Panics
/// If the shapes do not match, or a target is not in the vocabulary.
pub fn loss(pool: &ThreadPool, x: Rows, wte: &[f32], targets: Targets, workspace: &mut Workspace) -> f64 {
    let wte = Rows::dense(wte, x.width());
    workspace.accuracy = 0.0;
    let counted = counted_tokens(x, wte, targets);
    let blocks = counted.chunks(TOKENS_PER_BLOCK);
    blocks.map(|tokens| workspace.logits_to_gradients(pool, x, wte, targets, tokens)).sum()
}

/// Writes the gradient of `x` to `dx`, adds that of `wte` to `dwte` if it is trained, and returns the loss.
/// Panics as [`loss`] does.
pub fn loss_and_gradients(
    pool: &ThreadPool,
    x: Rows,
    wte: &[f32],
    targets: Targets,
    mut dx: RowsMut,
    dwte: Option<&mut [f32]>,
    workspace: &mut Workspace,
) -> f64 {
    assert_eq!((dx.len(), dx.width()), (x.len(), x.width()), "dx has the shape of x");
    assert!(dwte.as_ref().is_none_or(|dwte| dwte.len() == wte.len()), "dwte has the shape of wte");
    let (n_embd, table) = (x.width(), Rows::dense(wte, x.width()));
    let (vocab_size, stride) = (table.len(), row_stride(table.len()));
    let (bias, dwte) = (vec![0.0; n_embd], dwte.map(DisjointSlice::new));
    (0..dx.len()).for_each(|t| dx.row_mut(t).fill(0.0));
    let mut loss = 0.0;
    workspace.accuracy = 0.0;
    for tokens in counted_tokens(x, table, targets).chunks(TOKENS_PER_BLOCK) {
        let n = tokens.len();
        loss += workspace.logits_to_gradients(pool, x, table, targets, tokens);
        let dlogits = Rows::new(&workspace.logits, n, vocab_size, stride);
        let mut block_dx = RowsMut::dense(&mut workspace.dx[..n * n_embd], n_embd);
        gemm(pool, dlogits, wte, &bias, Epilogue::Store, &mut block_dx);
        for (i, &t) in tokens.iter().enumerate() {
            dx.row_mut(t).copy_from_slice(block_dx.row_mut(i));
        }
        let Some(dwte) = &dwte else { continue };
        let block_x = Rows::dense(&workspace.x[..n * n_embd], n_embd);
        pool.run(vocab_size.div_ceil(TABLE_ROWS_PER_CHUNK), |i| {
            let first = i * TABLE_ROWS_PER_CHUNK;
            let rows = TABLE_ROWS_PER_CHUNK.min(vocab_size - first);
            // SAFETY: only this chunk of work writes these rows of the table's gradient.
            let dwte = unsafe { dwte.slice(first * n_embd..(first + rows) * n_embd) };
            gemm_tn(pool, dlogits.columns(first, rows), block_x, &mut RowsMut::dense(dwte, n_embd));
        });
    }
    loss
}

/// Returns the tokens whose weight is not 0.
fn counted_tokens(x: Rows, wte: Rows, targets: Targets) -> Vec<usize> {
    let Targets { ids, weights } = targets;
    assert_eq!((ids.len(), weights.len()), (x.len(), x.len()), "every token has a target and a weight");
    let counted: Vec<usize> = (0..x.len()).filter(|&t| weights[t] != 0.0).collect();
    assert!(counted.iter().all(|&t| (ids[t] as usize) < wte.len()), "targets are in the vocabulary");
    counted
}

impl Workspace {
    /// Computes the gradients of the logits of a block of tokens, counts its right predictions, and returns
    /// its loss.
    fn logits_to_gradients(
        &mut self,
        pool: &ThreadPool,
        x: Rows,
        wte: Rows,
        targets: Targets,
        tokens: &[usize],
    ) -> f64 {
        let (n, n_embd, vocab_size, stride) = (tokens.len(), x.width(), wte.len(), row_stride(wte.len()));
        for buffer in [&mut self.x, &mut self.dx] {
            buffer.resize(TOKENS_PER_BLOCK * n_embd, 0.0);
        }
        self.logits.resize(TOKENS_PER_BLOCK * stride, 0.0);
        self.losses.resize(TOKENS_PER_BLOCK, [0.0; 2]);
        for (&t, row) in tokens.iter().zip(self.x.chunks_mut(n_embd)) {
            row.copy_from_slice(x.row(t));
        }
        let x = Rows::dense(&self.x[..n * n_embd], n_embd);
        gemm_nt(pool, x, wte, &mut RowsMut::new(&mut self.logits, n, vocab_size, stride));
        let losses = DisjointSlice::new(&mut self.losses[..n]);
        pool.for_each_chunk(&mut self.logits[..n * stride], stride, |i, logits| {
            let (target, weight) = (targets.ids[tokens[i]] as usize, targets.weights[tokens[i]]);
            let logits = &mut logits[..vocab_size.next_multiple_of(LANES)];
            logits[vocab_size..].fill(f32::NEG_INFINITY);
            let target_logit = logits[target];
            let [max, log_sum_exp] = pool.isa().run(WeightedSoftmax { logits, weight });
            logits[target] -= weight;
            let (target_logit, weight) = (f64::from(target_logit), f64::from(weight));
            let is_right = if target_logit == max { 1.0 } else { 0.0 };
            // SAFETY: only this chunk of work writes the loss of its token.
            let loss = unsafe { losses.slice(i..i + 1) };
            loss[0] = [weight * (log_sum_exp - target_logit), weight * is_right];
        });
        self.accuracy += self.losses[..n].iter().map(|[_, right]| right).sum::<f64>();
        self.losses[..n].iter().map(|[loss, _]| loss).sum()
    }
}

/// Replaces the logits of a token by their softmax, multiplied with the token's weight; returns their maximum
/// and log Σ e^logit.
struct WeightedSoftmax<'a> {
    logits: &'a mut [f32],
    weight: f32,
}

impl Kernel for WeightedSoftmax<'_> {
    type Output = [f64; 2];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> [f64; 2] {
        let logits = self.logits.as_chunks_mut::<LANES>().0;
        let max = simd.reduce_max(max_of(simd, simd.splat(f32::NEG_INFINITY), logits));
        let sum = simd.reduce_add(exp_and_add(simd, logits, simd.splat(max), simd.splat(0.0)));
        let factor = simd.splat(self.weight / sum);
        for e in logits {
            simd.store(simd.mul(simd.load(e), factor), e);
        }
        let max = f64::from(max);
        [max, max + libm::log(f64::from(sum))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elements::Elements;
    use crate::linear::Matrix;
    use crate::logits;
    use crate::testing::{assert_gradient, assert_relative, assert_same_bits, random_values, to_f32, to_f64};

    /// The loss in f64, from logits that the LM head's own reference confirms.
    fn forward(x: &[f64], wte: &[f64], n_embd: usize, targets: Targets) -> f64 {
        let token_loss = |(t, x): (usize, &[f64])| {
            let dot = |row: &[f64]| x.iter().zip(row).map(|(x, w)| x * w).sum::<f64>();
            let logits: Vec<f64> = wte.chunks(n_embd).map(dot).collect();
            let p = libm::exp(logits[targets.ids[t] as usize])
                / logits.iter().map(|&logit| libm::exp(logit)).sum::<f64>();
            -f64::from(targets.weights[t]) * libm::log(p)
        };
        x.chunks(n_embd).enumerate().map(token_loss).sum()
    }

    #[test]
    fn reference_is_the_derivative_of_the_loss() {
        for (n, n_embd, vocab_size) in [(1, 1, 2), (3, 4, 7), (5, 6, 11)] {
            let [x, wte] =
                [(1, n * n_embd), (2, vocab_size * n_embd)].map(|(seed, n)| random_values(seed, n));
            let mut weights = random_values(3, n);
            if n > 1 {
                weights[1] = 0.0;
            }
            let ids: Vec<u32> = (0..n).map(|t| (t * 5 % vocab_size) as u32).collect();
            let targets = Targets { ids: &ids, weights: &weights };
            let (x, wte) = (to_f64(&x), to_f64(&wte));
            let Gradients { loss, dx, dwte } = reference(&x, &wte, n_embd, targets);
            assert!((loss - forward(&x, &wte, n_embd, targets)).abs() < 1e-12);
            assert_gradient(|x| forward(x, &wte, n_embd, targets), &x, &dx);
            assert_gradient(|wte| forward(&x, wte, n_embd, targets), &wte, &dwte);
        }
    }

    #[test]
    fn loss_is_that_of_the_lm_head() {
        let (x, wte) = (random_values(1, 20), random_values(2, 20 * 50));
        let table = Matrix::new(Elements::F32(&wte), 50, 20);
        let p = crate::softmax::reference(&logits::reference(&x, table));
        let targets = Targets { ids: &[13], weights: &[2.0] };
        let expected = -2.0 * libm::log(f64::from(p[13]));
        let found = assert_same_bits(|pool| {
            let x = Rows::dense(&x, 20);
            vec![loss(pool, x, &wte, targets, &mut Workspace::default()) as f32]
        });
        assert_relative(&found, &[expected], 1e-6);
    }

    #[test]
    fn accuracy_is_the_weight_of_right_predictions() {
        // Token 0 predicts 1, token 1 predicts 0, token 2 does not count.
        let (x, wte) = ([1.0, 2.0, 5.0], [-1.0, 1.0]);
        let targets = Targets { ids: &[1, 0, 1], weights: &[0.25, 0.5, 0.0] };
        assert_same_bits(|pool| {
            let mut workspace = Workspace::default();
            for _ in 0..2 {
                loss(pool, Rows::dense(&x, 1), &wte, targets, &mut workspace);
                assert_eq!(workspace.accuracy(), 0.25);
            }
            vec![]
        });
    }

    #[test]
    fn gradients_match_reference_with_identical_bits_on_every_isa_and_thread_count() {
        for (n, n_embd, vocab_size) in [(1, 1, 2), (3, 20, 33), (17, 48, 100), (150, 16, 64), (330, 24, 600)]
        {
            let x = random_values(1, n * n_embd);
            let [wte, before] = [2, 3].map(|seed| random_values(seed, vocab_size * n_embd));
            // Every fifth token does not count, and its target is none.
            let weights: Vec<f32> = (0..n).map(|t| if t % 5 == 4 { 0.0 } else { 1.0 / n as f32 }).collect();
            let ids: Vec<u32> =
                (0..n).map(|t| if t % 5 == 4 { u32::MAX } else { (t * 7 % vocab_size) as u32 }).collect();
            let targets = Targets { ids: &ids, weights: &weights };
            let found = assert_same_bits(|pool| {
                let (mut dx, mut dwte) = (vec![f32::NAN; n * n_embd], before.clone());
                let (x, dx_rows) = (Rows::dense(&x, n_embd), RowsMut::dense(&mut dx, n_embd));
                let workspace = &mut Workspace::default();
                let sum = loss_and_gradients(pool, x, &wte, targets, dx_rows, Some(&mut dwte), workspace);
                assert_eq!(sum, loss(pool, x, &wte, targets, workspace));
                [vec![sum as f32], dx, dwte].concat()
            });
            let expected = reference(&to_f64(&x), &to_f64(&wte), n_embd, targets);
            let (dx, dwte) = found[1..].split_at(n * n_embd);
            assert_relative(&found[..1], &[expected.loss], 1e-6);
            assert_relative(dx, &expected.dx, 1e-5);
            let added = expected.dwte.iter().zip(&before).map(|(e, &before)| e + f64::from(before));
            assert_relative(dwte, &added.collect::<Vec<f64>>(), 1e-5);
            let without_before: Vec<f64> = dwte
                .iter()
                .zip(&before)
                .map(|(&dwte, &before)| f64::from(dwte) - f64::from(before))
                .collect();
            assert_relative(&to_f32(&without_before), &expected.dwte, 1e-4);
        }
    }
}
