//! Tile registers, which a matrix unit such as Intel's AMX has beside the vectors. A [`TileKernel`] is
//! written once, generic over [`Tiles`], as a kernel is over [`Simd`].

use super::{Kernel, Simd};

/// Rows of a tile; also the 32-bit columns of an accumulator tile.
pub const TILE_ROWS: usize = 16;

/// Four accumulator tiles, for 32 tokens and 32 outputs, in memory: `[2, 32, 16]`, output vector, token,
/// output.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct AccumulatorTiles<T>(pub [[[T; TILE_ROWS]; 2 * TILE_ROWS]; 2]);

/// A thread's tile registers, which keep nothing from one call to the next but their configuration.
pub trait Tiles {
    /// Returns the number of tokens the tiles are configured for; 0 before the first configuration.
    fn tokens(&self) -> usize;

    /// Configures the tiles for `tokens` tokens, 1 to 32.
    fn configure(&mut self, tokens: usize);

    /// Multiplies `blocks` blocks of 64 bf16 inputs and adds the products to `acc`, or to zeros if
    /// `zero_acc`.
    ///
    /// AMX sums 32 inputs from zero, even inputs in one chain and odd inputs in another, adds the two, and
    /// adds the result to the accumulator.
    ///
    /// # Safety
    /// For each block, `x` points to 128 bytes of activations for each of the configured tokens, the next
    /// block `x_stride` bytes later; `w` to 32 packed rows of weights (two 64-byte vectors each), the next
    /// block behind them.
    unsafe fn dot_bf16(
        &mut self,
        blocks: usize,
        x: *const u8,
        x_stride: usize,
        w: *const u8,
        acc: &mut AccumulatorTiles<f32>,
        zero_acc: bool,
    );

    /// Multiplies 64 inputs, i8 on both sides, into i32 accumulators.
    ///
    /// # Safety
    /// `x` points to 64 bytes of activations for each configured token, `x_stride` bytes apart; `w` to 16
    /// packed rows of weights (two 64-byte vectors each).
    unsafe fn dot_i8(&mut self, x: *const u8, x_stride: usize, w: *const u8, acc: &mut AccumulatorTiles<i32>);
}

/// A computation on tiles that `Isa::run_tiled` compiles, as
/// [`Isa::run`](crate::isa::Isa::run) does a [`Kernel`].
pub trait TileKernel {
    /// Runs the computation.
    fn run<S: Simd, T: Tiles>(self, simd: S, tiles: T);
}

/// A tile kernel with the tiles it runs on.
pub struct WithTiles<K, T>(pub K, pub T);

impl<K: TileKernel, T: Tiles> Kernel for WithTiles<K, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.0.run(simd, self.1);
    }
}

#[cfg(test)]
pub use emulation::EmulatedTiles;

#[cfg(test)]
mod emulation {
    use super::*;
    use crate::simd::mul_add;
    use half::bf16;

    /// Tiles in plain Rust: what AMX computes, for machines that lack it.
    #[derive(Default)]
    pub struct EmulatedTiles(usize);

    impl Tiles for EmulatedTiles {
        fn tokens(&self) -> usize {
            self.0
        }

        fn configure(&mut self, tokens: usize) {
            assert!((1..=2 * TILE_ROWS).contains(&tokens), "{tokens} tokens");
            self.0 = tokens;
        }

        unsafe fn dot_bf16(
            &mut self,
            blocks: usize,
            x: *const u8,
            x_stride: usize,
            w: *const u8,
            acc: &mut AccumulatorTiles<f32>,
            zero_acc: bool,
        ) {
            // SAFETY: the caller guarantees these rows.
            let x = |m, k| unsafe { *x.add(k / 64 * x_stride + m * 128).cast::<bf16>().add(k % 64) };
            let w = |k, j| unsafe { *w.cast::<bf16>().add(packed_index(k, j, 2)) };
            for (m, j) in (0..self.0).flat_map(|m| (0..2 * TILE_ROWS).map(move |j| (m, j))) {
                let acc = &mut acc.0[j / TILE_ROWS][m][j % TILE_ROWS];
                if zero_acc {
                    *acc = 0.0;
                }
                for start in (0..64 * blocks).step_by(32) {
                    let mut chains = [0.0f32; 2];
                    for k in start..start + 32 {
                        chains[k % 2] = mul_add(x(m, k).to_f32(), w(k, j).to_f32(), chains[k % 2]);
                    }
                    *acc += chains[0] + chains[1];
                }
            }
        }

        unsafe fn dot_i8(
            &mut self,
            x: *const u8,
            x_stride: usize,
            w: *const u8,
            acc: &mut AccumulatorTiles<i32>,
        ) {
            // SAFETY: the caller guarantees these rows.
            let x = |m, k| i32::from(unsafe { *x.cast::<i8>().add(m * x_stride + k) });
            let w = |k, j| i32::from(unsafe { *w.cast::<i8>().add(packed_index(k, j, 4)) });
            for (m, j) in (0..self.0).flat_map(|m| (0..2 * TILE_ROWS).map(move |j| (m, j))) {
                acc.0[j / TILE_ROWS][m][j % TILE_ROWS] = (0..64).map(|k| x(m, k) * w(k, j)).sum();
            }
        }
    }

    /// The index of weight `(k, j)` in packed rows `[k / n, 2, 16, n]` of `n` adjacent inputs.
    fn packed_index(k: usize, j: usize, n: usize) -> usize {
        (k / n * 2 + j / TILE_ROWS) * TILE_ROWS * n + j % TILE_ROWS * n + k % n
    }
}
