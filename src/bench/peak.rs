//! Peak FLOP/s: f32 fused multiply-adds on all threads.

use crate::kernels::isa::Isa;
use crate::kernels::simd::{Kernel, LANES, Simd};
use crate::kernels::thread_pool::ThreadPool;
use std::hint::black_box;
use std::time::Instant;

/// Iterations per task: about a tenth of a millisecond.
const ITERATIONS: usize = 20_000;
/// Tasks per thread.
const TASKS_PER_THREAD: usize = 100;

/// Computes fused multiply-adds in registers on all threads, with the machine's best instruction set. Returns
/// f32 FLOP/s; a fused multiply-add counts as two.
pub fn fma_peak(pool: &ThreadPool) -> f64 {
    let isa = Isa::available()[0];
    let tasks = TASKS_PER_THREAD * pool.threads();
    let start = Instant::now();
    let chains = isa.run(FmaChains { iterations: 0 }).chains;
    pool.run(tasks, |_| {
        black_box(isa.run(FmaChains { iterations: black_box(ITERATIONS) }));
    });
    (tasks * ITERATIONS * chains * LANES * 2) as f64 / start.elapsed().as_secs_f64()
}

/// Independent chains of dependent multiply-adds.
struct FmaChains {
    iterations: usize,
}

struct ChainSum {
    chains: usize,
    /// Keeps the compiler from removing the computation.
    #[allow(dead_code)]
    sum: f32,
}

impl Kernel for FmaChains {
    type Output = ChainSum;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> ChainSum {
        // Enough to hide the latency of the FMA units, and few enough for the registers.
        if S::WIDE { self.chains::<S, 12>(simd) } else { self.chains::<S, 6>(simd) }
    }
}

impl FmaChains {
    #[inline(always)]
    fn chains<S: Simd, const N: usize>(self, simd: S) -> ChainSum {
        // x ← x · a + b stays near b / (1 − a) = 1: no infinities, no subnormals.
        let (a, b) = (simd.splat(black_box(0.5)), simd.splat(black_box(0.5)));
        let mut x = [simd.splat(black_box(2.0)); N];
        for _ in 0..self.iterations {
            for x in &mut x {
                *x = simd.mul_add(*x, a, b);
            }
        }
        let sum = x.into_iter().fold(0.0, |sum, x| sum + simd.reduce_add(x));
        ChainSum { chains: N, sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chain_converges_to_one() {
        for isa in Isa::available() {
            let ChainSum { chains, sum } = isa.run(FmaChains { iterations: 100 });
            assert_eq!(sum, (chains * LANES) as f32, "every lane is 1 on {isa}");
            assert_ne!(isa.run(FmaChains { iterations: 1 }).sum, sum);
        }
    }

    #[test]
    fn measured_peak_is_plausible() {
        let peak = fma_peak(&ThreadPool::new(1, Isa::Portable));
        assert!((1e7..1e13).contains(&peak), "{peak} FLOP/s");
    }
}
