//! Backward of [layer normalization](crate::layer_norm). Mean and variance depend on every element of the
//! row, so every element of the gradient depends on two sums over it (Ba, Kiros and Hinton 2016; written out
//! as in llm.c).
//!
//! ```text
//! n[t, i]    = (x[t, i] − mean[t]) · rstd[t],   rstd = 1 / √(var + ε)
//! y          = n · weight + bias
//! g          = dy · weight                                          the gradient of n
//! dx[t]      = rstd[t] · (g[t] − mean(g[t]) − n[t] · mean(g[t] · n[t]))
//! dweight[i] = Σ_t dy[t, i] · n[t, i]
//! dbias[i]   = Σ_t dy[t, i]
//! ```
//!
//! [`input_gradient`] computes mean and rstd again, which takes two passes over a row that it reads anyway
//! and leaves the forward pass as it is. It hands them to [`weight_gradients`], which runs down the columns.
//! Both are bound by memory: six streams of n_tokens · n_embd elements.

use super::linear::{MAX_COLUMNS_PER_CHUNK, TOKENS_PER_BLOCK, columns_per_chunk, prefetch_below};
use crate::layer_norm::mean_and_variance;
use crate::rows::{Rows, RowsMut};
use crate::simd::{Kernel, LANES, Simd};
use crate::thread_pool::{DisjointSlice, ThreadPool};
use std::ops::Range;

/// The gradients of a layer normalization.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// `[n_tokens, n_embd]`
    pub dx: Vec<f64>,
    /// `[n_embd]`
    pub dweight: Vec<f64>,
    /// `[n_embd]`
    pub dbias: Vec<f64>,
}

/// The formulas: `x` and `dy` are `[n_tokens, n_embd]`, `weight` is `[n_embd]`.
pub fn reference(x: &[f64], weight: &[f64], dy: &[f64], epsilon: f64) -> Gradients {
    let n_embd = weight.len();
    let mean = |x: &[f64]| x.iter().sum::<f64>() / n_embd as f64;
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).collect::<Vec<f64>>();
    let (mut dx, mut dweight, mut dbias) = (vec![], vec![0.0; n_embd], vec![0.0; n_embd]);
    for (x, dy) in x.chunks(n_embd).zip(dy.chunks(n_embd)) {
        let x_mean = mean(x);
        let centered: Vec<f64> = x.iter().map(|x| x - x_mean).collect();
        let rstd = 1.0 / (mean(&product(&centered, &centered)) + epsilon).sqrt();
        let n: Vec<f64> = centered.iter().map(|x| x * rstd).collect();
        let g = product(dy, weight);
        let (g_mean, gn_mean) = (mean(&g), mean(&product(&g, &n)));
        for i in 0..n_embd {
            dx.push(rstd * (g[i] - g_mean - n[i] * gn_mean));
            dweight[i] += dy[i] * n[i];
            dbias[i] += dy[i];
        }
    }
    Gradients { dx, dweight, dbias }
}

/// The mean and the reciprocal standard deviation of a token's vector.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Statistics {
    mean: f32,
    rstd: f32,
}

/// Adds the gradient of `x` to `dx`, since the input of a layer normalization is the residual stream, which
/// has a gradient of its own. Writes the statistics of every token. Panics if the shapes do not match.
pub fn input_gradient(
    pool: &ThreadPool,
    x: Rows,
    weight: &[f32],
    epsilon: f32,
    dy: Rows,
    mut dx: RowsMut,
    statistics: &mut [Statistics],
) {
    assert_eq!((x.len(), x.width()), (dx.len(), dx.width()), "dx has the shape of x");
    assert_eq!((x.len(), x.width()), (dy.len(), dy.width()), "dy has the shape of x");
    assert_eq!((weight.len(), statistics.len()), (x.width(), x.len()), "weight is [n_embd]");
    const ROWS_PER_CHUNK: usize = 8;
    let dx = dx.as_disjoint();
    pool.for_each_chunk(statistics, ROWS_PER_CHUNK, |i, statistics| {
        for (statistics, t) in statistics.iter_mut().zip(i * ROWS_PER_CHUNK..) {
            // SAFETY: only this chunk of work writes row `t`.
            let dx = unsafe { dx.row_slice(t, 0, x.width()) };
            *statistics = pool.isa().run(InputGradient { x: x.row(t), weight, epsilon, dy: dy.row(t), dx });
        }
    });
}

/// The gradient of one token.
struct InputGradient<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    epsilon: f32,
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl Kernel for InputGradient<'_> {
    type Output = Statistics;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Statistics {
        let n = self.x.len() as f32;
        let (mean, variance) = mean_and_variance(simd, self.x);
        let rstd = 1.0 / (variance + self.epsilon).sqrt();
        let (means, rstds) = (simd.splat(mean), simd.splat(rstd));
        let (mut g_sum, mut gn_sum) = (simd.splat(0.0), simd.splat(0.0));
        for i in 0..self.x.len().div_ceil(LANES) {
            let (n, g) = self.vectors(simd, i, means, rstds); // beyond the row g is 0
            g_sum = simd.add(g_sum, g);
            gn_sum = simd.mul_add(g, n, gn_sum);
        }
        let g_mean = simd.splat(simd.reduce_add(g_sum) / n);
        let minus_gn_mean = simd.splat(-simd.reduce_add(gn_sum) / n);
        for i in 0..self.x.len().div_ceil(LANES) {
            let (n, g) = self.vectors(simd, i, means, rstds);
            let dn = simd.mul_add(n, minus_gn_mean, simd.sub(g, g_mean));
            let dx = &mut self.dx[lanes(self.x.len(), i)];
            simd.store_partial(simd.mul_add(dn, rstds, simd.load_partial(dx)), dx);
        }
        Statistics { mean, rstd }
    }
}

impl InputGradient<'_> {
    /// Returns vector `i` of n and of g.
    #[inline(always)]
    fn vectors<S: Simd>(&self, simd: S, i: usize, means: S::F32s, rstds: S::F32s) -> (S::F32s, S::F32s) {
        let lanes = lanes(self.x.len(), i);
        let x = simd.load_partial(&self.x[lanes.clone()]);
        let g = simd.mul(simd.load_partial(&self.dy[lanes.clone()]), simd.load_partial(&self.weight[lanes]));
        (simd.mul(simd.sub(x, means), rstds), g)
    }
}

/// Returns the elements of vector `i` in a row of `n`.
#[inline(always)]
fn lanes(n: usize, i: usize) -> Range<usize> {
    i * LANES..n.min((i + 1) * LANES)
}

/// Adds the gradients of weight and bias to `dweight` and `dbias`, with the statistics of
/// [`input_gradient`]. Panics if the shapes do not match.
pub fn weight_gradients(
    pool: &ThreadPool,
    x: Rows,
    dy: Rows,
    statistics: &[Statistics],
    dweight: &mut [f32],
    dbias: &mut [f32],
) {
    let width = x.width();
    assert_eq!((x.len(), width, x.len()), (dy.len(), dy.width(), statistics.len()), "dy has the shape of x");
    assert_eq!((dweight.len(), dbias.len()), (width, width), "dweight and dbias are [n_embd]");
    let (dweight, dbias) = (DisjointSlice::new(dweight), DisjointSlice::new(dbias));
    let columns_per_chunk = columns_per_chunk(pool, width);
    pool.run(width.div_ceil(columns_per_chunk), |i| {
        let columns = i * columns_per_chunk..width.min((i + 1) * columns_per_chunk);
        let [x, dy] = [x, dy].map(|rows| rows.columns(columns.start, columns.len()));
        // SAFETY: only this chunk of work writes these columns.
        let (dweight, dbias) = unsafe { (dweight.slice(columns.clone()), dbias.slice(columns)) };
        pool.isa().run(WeightGradients { x, dy, statistics, dweight, dbias });
    });
}

/// The gradients of at most [`MAX_COLUMNS_PER_CHUNK`] columns.
struct WeightGradients<'a> {
    x: Rows<'a>,
    dy: Rows<'a>,
    statistics: &'a [Statistics],
    dweight: &'a mut [f32],
    dbias: &'a mut [f32],
}

impl Kernel for WeightGradients<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for first in (0..self.x.len()).step_by(TOKENS_PER_BLOCK) {
            let mut sums = [[simd.splat(0.0); 2]; MAX_COLUMNS_PER_CHUNK / LANES];
            for t in first..self.x.len().min(first + TOKENS_PER_BLOCK) {
                let Statistics { mean, rstd } = self.statistics[t];
                let (mean, rstd) = (simd.splat(mean), simd.splat(rstd));
                let row = self.x.row(t).chunks(LANES).zip(self.dy.row(t).chunks(LANES));
                for ([dweight, dbias], (x, dy)) in sums.iter_mut().zip(row) {
                    prefetch_below(simd, x, self.x.stride());
                    prefetch_below(simd, dy, self.dy.stride());
                    let (x, dy) = (simd.load_partial(x), simd.load_partial(dy));
                    *dweight = simd.mul_add(dy, simd.mul(simd.sub(x, mean), rstd), *dweight);
                    *dbias = simd.add(*dbias, dy);
                }
            }
            for (i, sums) in sums.into_iter().enumerate() {
                for (sum, total) in sums.into_iter().zip([&mut *self.dweight, &mut *self.dbias]) {
                    if let Some(total) = total.chunks_mut(LANES).nth(i) {
                        simd.store_partial(simd.add(simd.load_partial(total), sum), total);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer_norm;
    use crate::testing::{assert_gradient, assert_relative, assert_same_bits, random_values, to_f32, to_f64};

    /// Layer normalization in f64.
    fn forward(x: &[f64], weight: &[f64], bias: &[f64], epsilon: f64) -> Vec<f64> {
        let n = weight.len() as f64;
        let normalize = |x: &[f64]| {
            let mean = x.iter().sum::<f64>() / n;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            let scale = 1.0 / (variance + epsilon).sqrt();
            x.iter().zip(weight).zip(bias).map(|((x, w), b)| (x - mean) * scale * w + b).collect::<Vec<f64>>()
        };
        x.chunks(weight.len()).flat_map(normalize).collect()
    }

    #[test]
    fn reference_is_the_derivative_of_layer_norm() {
        for (n, width) in [(1, 2), (3, 5), (4, 17)] {
            let [x, weight, bias, dy] = [(1, n * width), (2, width), (3, width), (4, n * width)]
                .map(|(seed, n)| random_values(seed, n));
            let normed = x.chunks(width).flat_map(|x| layer_norm::reference(x, &weight, &bias, 1e-2));
            let normed: Vec<f32> = normed.collect();
            let epsilon = f64::from(1e-2f32);
            let [x, weight, bias, dy] = [x, weight, bias, dy].map(|x| to_f64(&x));
            assert_eq!(to_f32(&forward(&x, &weight, &bias, epsilon)), normed);
            let loss = |x: &[f64], weight: &[f64], bias: &[f64]| -> f64 {
                forward(x, weight, bias, epsilon).iter().zip(&dy).map(|(y, dy)| y * dy).sum()
            };
            let Gradients { dx, dweight, dbias } = reference(&x, &weight, &dy, epsilon);
            assert_gradient(|x| loss(x, &weight, &bias), &x, &dx);
            assert_gradient(|weight| loss(&x, weight, &bias), &weight, &dweight);
            assert_gradient(|bias| loss(&x, &weight, bias), &bias, &dbias);
        }
    }

    #[test]
    fn gradients_match_reference_with_identical_bits_on_every_isa_and_thread_count() {
        for width in [2, 5, 16, 20, 48, 100, 256] {
            for n in [1, 3, 17, 130] {
                let (x, weight, dy) =
                    (random_values(1, n * width), random_values(2, width), random_values(3, n * width));
                let before = random_values(4, n * width);
                let gradients = assert_same_bits(|pool| {
                    let (mut dx, mut statistics) = (before.clone(), vec![Statistics::default(); n]);
                    let (x, dy) = (Rows::dense(&x, width), Rows::dense(&dy, width));
                    let dx_rows = RowsMut::dense(&mut dx, width);
                    input_gradient(pool, x, &weight, 1e-5, dy, dx_rows, &mut statistics);
                    let (mut dweight, mut dbias) = (before[..width].to_vec(), before[..width].to_vec());
                    weight_gradients(pool, x, dy, &statistics, &mut dweight, &mut dbias);
                    [dx, dweight, dbias].concat()
                });
                let expected = reference(&to_f64(&x), &to_f64(&weight), &to_f64(&dy), f64::from(1e-5f32));
                let (dx, rest) = gradients.split_at(n * width);
                let (dweight, dbias) = rest.split_at(width);
                for (found, expected) in
                    [(dx, &expected.dx), (dweight, &expected.dweight), (dbias, &expected.dbias)]
                {
                    let added = expected.iter().zip(&before).map(|(e, &before)| e + f64::from(before));
                    assert_relative(found, &added.collect::<Vec<f64>>(), 1e-5);
                }
            }
        }
    }
}
