//! The norm of all gradients, as if they were one vector. A step whose norm exceeds a limit is shortened to
//! it (Pascanu, Mikolov and Bengio 2013), so that one bad batch does not throw the weights far off.
//!
//! ```text
//! norm = √(Σ_tensors Σ_i g[i]²)        g ← g · min(1, limit / norm)
//! ```
//!
//! The sum is in f64: the square of an f32 is exact there. Sixteen partial sums per chunk of 4096 elements
//! are added in order, then those of the chunks pairwise. One read of all gradients.

use crate::simd::{Kernel, LANES, Simd};
use crate::thread_pool::ThreadPool;

/// Elements whose squares one chunk of work sums.
const ELEMENTS_PER_CHUNK: usize = 4096;

/// The formula.
pub fn reference(gradients: &[&[f32]]) -> f64 {
    gradients.iter().copied().flatten().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt()
}

/// Returns the norm of all gradients together.
pub fn gradient_norm(pool: &ThreadPool, gradients: &[&[f32]]) -> f64 {
    gradients.iter().map(|gradient| squared_norm(pool, gradient)).sum::<f64>().sqrt()
}

fn squared_norm(pool: &ThreadPool, gradient: &[f32]) -> f64 {
    let mut sums = vec![0.0; gradient.len().div_ceil(ELEMENTS_PER_CHUNK)];
    pool.for_each_chunk(&mut sums, 1, |i, sum| {
        let rest = &gradient[i * ELEMENTS_PER_CHUNK..];
        sum[0] = pool.isa().run(SumOfSquares(&rest[..rest.len().min(ELEMENTS_PER_CHUNK)]));
    });
    pairwise_sum(&sums)
}

fn pairwise_sum(x: &[f64]) -> f64 {
    match x {
        [] => 0.0,
        [x] => *x,
        _ => {
            let (left, right) = x.split_at(x.len() / 2);
            pairwise_sum(left) + pairwise_sum(right)
        }
    }
}

struct SumOfSquares<'a>(&'a [f32]);

impl Kernel for SumOfSquares<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        let (vectors, tail) = self.0.as_chunks::<LANES>();
        let mut sums = [0.0; LANES];
        for x in vectors {
            for i in 0..LANES {
                sums[i] += f64::from(x[i]) * f64::from(x[i]); // exact, so fusing would change nothing
            }
        }
        for (sum, &x) in sums.iter_mut().zip(tail) {
            *sum += f64::from(x) * f64::from(x);
        }
        sums.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_same_bits, random_values};

    #[test]
    fn norm_matches_reference_with_identical_bits_on_every_isa_and_thread_count() {
        for lengths in [vec![], vec![0], vec![1], vec![5, 0, 100], vec![4096, 4097, 3], vec![50_000]] {
            let tensors: Vec<Vec<f32>> = lengths.iter().map(|&n| random_values(n as u64, n)).collect();
            let gradients: Vec<&[f32]> = tensors.iter().map(Vec::as_slice).collect();
            let expected = reference(&gradients);
            assert_same_bits(|pool| {
                let norm = gradient_norm(pool, &gradients);
                assert!((norm - expected).abs() <= 1e-12 * expected, "found {norm}, expected {expected}");
                // Both halves of the f64.
                vec![norm as f32, (norm - f64::from(norm as f32)) as f32]
            });
        }
    }

    #[test]
    fn norm_of_huge_gradients_is_finite_and_of_nan_nan() {
        assert_same_bits(|pool| {
            assert!(gradient_norm(pool, &[&[3e38], &[f32::MIN]]).is_finite());
            assert!(gradient_norm(pool, &[&[1.0, f32::NAN]]).is_nan());
            vec![gradient_norm(pool, &[&[3.0], &[-4.0]]) as f32]
        });
    }
}
