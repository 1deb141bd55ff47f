//! FMA peak: how many f32 operations a second the threads' multipliers can do.

use crate::kernels::isa::Isa;
use crate::kernels::simd::{Kernel, LANES, Simd};
use crate::kernels::thread_pool::ThreadPool;
use std::hint::black_box;
use std::time::Instant;

/// Turns of the loop in one piece of work: about a tenth of a millisecond.
const TURNS: usize = 20_000;
/// Pieces for each thread.
const PIECES: usize = 100;

/// Multiplies and adds in registers on every thread of the pool, with the machine's best instructions. Returns f32
/// operations a second; a fused multiply-add counts as two.
pub fn fma_peak(pool: &ThreadPool) -> f64 {
    let isa = Isa::available()[0];
    let pieces = PIECES * pool.threads();
    let start = Instant::now();
    let sums = isa.run(Chains { turns: 0 }).chains;
    pool.run(pieces, |_| {
        black_box(isa.run(Chains { turns: black_box(TURNS) }));
    });
    (pieces * TURNS * sums * LANES * 2) as f64 / start.elapsed().as_secs_f64()
}

/// Chains of multiply-adds, side by side: each waits only for its own last one.
struct Chains {
    turns: usize,
}

struct Done {
    chains: usize,
    /// Keeps the compiler from leaving the work out.
    #[allow(dead_code)]
    sum: f32,
}

impl Kernel for Chains {
    type Output = Done;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Done {
        // Enough to hide the latency of any multiplier, and few enough for the registers.
        if S::WIDE { self.chains::<S, 12>(simd) } else { self.chains::<S, 6>(simd) }
    }
}

impl Chains {
    #[inline(always)]
    fn chains<S: Simd, const N: usize>(self, simd: S) -> Done {
        // x ← x · a + b stays near b / (1 − a) = 1: no infinities and nothing subnormal.
        let (a, b) = (simd.splat(black_box(0.5)), simd.splat(black_box(0.5)));
        let mut x = [simd.splat(black_box(2.0)); N];
        for _ in 0..self.turns {
            for x in &mut x {
                *x = simd.mul_add(*x, a, b);
            }
        }
        let sum = x.into_iter().fold(0.0, |sum, x| sum + simd.reduce_add(x));
        Done { chains: N, sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chains_are_computed() {
        for isa in Isa::available() {
            let Done { chains, sum } = isa.run(Chains { turns: 100 });
            assert_eq!(sum, (chains * LANES) as f32, "every lane has come to 1 on {isa}");
            assert_ne!(isa.run(Chains { turns: 1 }).sum, sum);
        }
    }

    #[test]
    fn a_plausible_number_comes_out() {
        let peak = fma_peak(&ThreadPool::new(1, Isa::Portable));
        assert!((1e7..1e13).contains(&peak), "{peak} operations/s");
    }
}
