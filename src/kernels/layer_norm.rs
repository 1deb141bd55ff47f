//! Layer normalization: gives each token's vector mean 0 and variance 1, then scales and shifts it (Ba, Kiros
//! and Hinton 2016).
//!
//! ```text
//! y = (x − mean(x)) / √(var(x) + ε) · weight + bias,   var(x) = mean((x − mean(x))²)
//! ```
//!
//! Three passes over n_embd elements that stay in the L1 cache: about 8 · n_embd FLOPs per token.

use super::rows::{Rows, RowsMut};
use super::simd::{Kernel, LANES, Simd};
use super::thread_pool::ThreadPool;

/// Evaluates the formula in f64.
pub fn reference(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32) -> Vec<f32> {
    let n = x.len() as f64;
    let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    let scale = 1.0 / (variance + f64::from(epsilon)).sqrt();
    let normalize = |((&x, &w), &b): ((&f32, &f32), &f32)| {
        ((f64::from(x) - mean) * scale * f64::from(w) + f64::from(b)) as f32
    };
    x.iter().zip(weight).zip(bias).map(normalize).collect()
}

/// Normalizes every row of `x` into the same row of `y`. Panics if the shapes do not match.
pub fn layer_norm(pool: &ThreadPool, x: Rows, weight: &[f32], bias: &[f32], epsilon: f32, mut y: RowsMut) {
    assert_eq!((x.len(), x.width()), (y.len(), y.width()), "y has the shape of x");
    assert_eq!((weight.len(), bias.len()), (x.width(), x.width()), "weight and bias are [n_embd]");
    // Normalizing a single row takes less time than dispatching it to another thread.
    const ROWS_PER_CHUNK: usize = 8;
    let y = y.as_disjoint();
    pool.run(x.len().div_ceil(ROWS_PER_CHUNK), |i| {
        for t in i * ROWS_PER_CHUNK..x.len().min((i + 1) * ROWS_PER_CHUNK) {
            // SAFETY: only this chunk of work writes row `t`.
            let y = unsafe { y.row_slice(t, 0, x.width()) };
            pool.isa().run(LayerNormRow { x: x.row(t), weight, bias, epsilon, y });
        }
    });
}

struct LayerNormRow<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    epsilon: f32,
    y: &'a mut [f32],
}

impl Kernel for LayerNormRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (mean, variance) = mean_and_variance(simd, self.x);
        let (xs, tail) = self.x.as_chunks::<LANES>();
        let means = simd.splat(mean);
        let scale = simd.splat(1.0 / (variance + self.epsilon).sqrt());
        let (weights, weight_tail) = self.weight.as_chunks::<LANES>();
        let (biases, bias_tail) = self.bias.as_chunks::<LANES>();
        let (ys, y_tail) = self.y.as_chunks_mut::<LANES>();
        for (((x, w), b), y) in xs.iter().zip(weights).zip(biases).zip(ys) {
            let normed = simd.mul(simd.sub(simd.load(x), means), scale);
            simd.store(simd.mul_add(normed, simd.load(w), simd.load(b)), y);
        }
        let (w, b) = (simd.load_partial(weight_tail), simd.load_partial(bias_tail));
        let normed = simd.mul(simd.sub(simd.load_partial(tail), means), scale);
        simd.store_partial(simd.mul_add(normed, w, b), y_tail);
    }
}

/// Returns the mean and the variance of a row.
#[inline(always)]
pub(super) fn mean_and_variance<S: Simd>(simd: S, x: &[f32]) -> (f32, f32) {
    let n = x.len() as f32;
    let (xs, tail) = x.as_chunks::<LANES>();

    let mut sum = simd.splat(0.0);
    for x in xs {
        sum = simd.add(sum, simd.load(x));
    }
    let mean = simd.reduce_add(simd.add(sum, simd.load_partial(tail))) / n;

    let means = simd.splat(mean);
    let mut squares = simd.splat(0.0);
    for x in xs {
        let d = simd.sub(simd.load(x), means);
        squares = simd.mul_add(d, d, squares);
    }
    let mut tail_deviations = [0.0; LANES];
    for (d, x) in tail_deviations.iter_mut().zip(tail) {
        *d = x - mean;
    }
    let d = simd.load(&tail_deviations);
    (mean, simd.reduce_add(simd.mul_add(d, d, squares)) / n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::{assert_close, random_values};

    #[test]
    fn layer_norm_matches_reference_on_every_isa_and_thread_count() {
        for width in [1, 5, 16, 20, 48, 100, 256, 768] {
            for n in [1, 3, 17] {
                let (x, weight, bias) =
                    (random_values(1, n * width), random_values(2, width), random_values(3, width));
                let rows = Rows::dense(&x, width);
                let mut first: Option<Vec<f32>> = None;
                for (isa, threads) in Isa::available().into_iter().flat_map(|isa| [(isa, 1), (isa, 3)]) {
                    let mut y = vec![0.0; n * width];
                    let pool = ThreadPool::new(threads, isa);
                    layer_norm(&pool, rows, &weight, &bias, 1e-5, RowsMut::dense(&mut y, width));
                    for (t, y) in y.chunks(width).enumerate() {
                        assert_close(y, &reference(rows.row(t), &weight, &bias, 1e-5), 2e-6);
                    }
                    assert_eq!(first.get_or_insert_with(|| y.clone()), &y, "{isa}, {threads} threads");
                }
            }
        }
    }
}
