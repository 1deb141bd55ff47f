//! AMX (Sapphire Rapids and later): eight tile registers of sixteen rows of sixty-four bytes, and
//! instructions that multiply two of them into a third. Everything else on such a machine runs on AVX-512.
//!
//! The compiler does not allocate tile registers. Each function here is therefore one `asm!` block that
//! loads, multiplies and stores tiles and keeps nothing in them.

use super::{Avx512, Kernel};
use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::marker::PhantomData;
use std::sync::LazyLock;

/// Rows of a tile; also the 32-bit columns of an accumulator tile.
pub const TILE_ROWS: usize = 16;

/// Four f32 accumulator tiles, for 32 tokens and 32 outputs, in memory: `[2, 32, 16]`, output vector, token,
/// output.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct F32Tiles(pub [[[f32; TILE_ROWS]; 2 * TILE_ROWS]; 2]);

impl F32Tiles {
    /// Zeros.
    pub const ZERO: Self = Self([[[0.0; TILE_ROWS]; 2 * TILE_ROWS]; 2]);
}

/// Four i32 accumulator tiles, laid out as [`F32Tiles`].
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct I32Tiles(pub [[[i32; TILE_ROWS]; 2 * TILE_ROWS]; 2]);

impl I32Tiles {
    /// Zeros.
    pub const ZERO: Self = Self([[[0; TILE_ROWS]; 2 * TILE_ROWS]; 2]);
}

/// AVX-512 with AMX-BF16 and AMX-INT8. Constructed only by [`Amx::detect`].
#[derive(Clone, Copy, Debug)]
pub struct Amx(Avx512);

impl Amx {
    /// Returns the instruction set if the machine has it and the operating system permits this process to use
    /// it.
    pub fn detect() -> Option<Self> {
        static IS_USABLE: LazyLock<bool> = LazyLock::new(|| has_amx() && request_amx_permission());
        Avx512::detect().filter(|_| *IS_USABLE).map(Self)
    }

    /// Runs `kernel` compiled for AVX-512.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        self.0.run(kernel)
    }

    /// Returns this thread's tile registers, not configured yet.
    pub(crate) fn tile_registers(self) -> TileRegisters {
        TileRegisters { tokens: 0, _not_send: PhantomData }
    }
}

/// Whether CPUID leaf 7 reports AMX-TILE, AMX-BF16 and AMX-INT8 (Intel's manual).
fn has_amx() -> bool {
    const BITS: u32 = 1 << 24 | 1 << 22 | 1 << 25;
    #[allow(unused_unsafe)] // safe from Rust 1.94 on
    // SAFETY: called only where AVX-512 was found, which is reported by the same leaf.
    let leaf = unsafe { __cpuid_count(7, 0) };
    leaf.edx & BITS == BITS
}

/// Requests Linux's permission to use tile data, which adds 8 KiB to the saved state of every thread.
#[cfg(target_os = "linux")]
fn request_amx_permission() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: the call takes two integers and touches no memory of ours. Older kernels return an error.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn request_amx_permission() -> bool {
    false
}

/// The operand of `ldtilecfg`: rows and bytes per row of the eight tiles.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// This thread's tile registers, released on drop. Tiles 0 to 3 are accumulators (tokens 0 to 15 in the first
/// two), 4 and 5 hold activations, 6 and 7 weights.
pub struct TileRegisters {
    /// Tokens the tiles are configured for, up to 32; 0 before the first configuration.
    tokens: usize,
    _not_send: PhantomData<*const ()>,
}

impl TileRegisters {
    /// Returns the number of tokens the tiles are configured for.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Configures the tiles for `tokens` tokens, 1 to 32.
    pub(crate) fn configure(&mut self, tokens: usize) {
        assert!((1..=2 * TILE_ROWS).contains(&tokens), "{tokens} tokens");
        if self.tokens == tokens {
            return;
        }
        self.tokens = tokens;
        let (first, second) = (tokens.min(TILE_ROWS) as u8, tokens.saturating_sub(TILE_ROWS) as u8);
        let all = TILE_ROWS as u8;
        let mut config =
            Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        config.rows[..8].copy_from_slice(&[first, first, second, second, first, second, all, all]);
        for i in 0..8 {
            // An unused tile has neither rows nor columns.
            config.row_bytes[i] = if config.rows[i] > 0 { 64 } else { 0 };
        }
        // SAFETY: `Amx` exists only where tiles do; palette 1 is supported, and no tile exceeds 16 rows of 64
        // bytes.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &config,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags, readonly));
        }
    }

    /// Multiplies `blocks` blocks of 64 bf16 inputs and adds the products to `acc`, or to zeros if
    /// `zero_acc`.
    ///
    /// The instruction sums 32 inputs from zero, even inputs in one chain and odd inputs in another, adds the
    /// two, and adds the result to the accumulator.
    ///
    /// # Safety
    /// For each block, `x` points to 128 bytes of activations for each of the configured tokens, the next
    /// block `x_stride` bytes later; `w` to 32 packed rows of weights (two 64-byte vectors each), the next
    /// block behind them.
    pub(crate) unsafe fn dot_bf16(
        &mut self,
        blocks: usize,
        x: *const u8,
        x_stride: usize,
        w: *const u8,
        acc: &mut F32Tiles,
        zero_acc: bool,
    ) {
        /// Loads and multiplies 32 inputs (half a block), for the first two accumulator tiles or for all
        /// four. `$x` and `$w` are byte offsets into the block's activations and weights.
        macro_rules! half_block {
            (16, $x:literal, $w:literal) => {
                concat!(
                    "tileloadd tmm4, [{x} + {row}*2 + ",
                    $x,
                    "]\n",
                    "tileloadd tmm6, [{w} + {row}*2 + ",
                    $w,
                    "]\n",
                    "tdpbf16ps tmm0, tmm4, tmm6\n",
                    "tileloadd tmm7, [{w} + {row}*2 + ",
                    $w,
                    " + 64]\n",
                    "tdpbf16ps tmm1, tmm4, tmm7\n",
                )
            };
            (32, $x:literal, $w:literal) => {
                concat!(
                    half_block!(16, $x, $w),
                    "tileloadd tmm5, [{x} + {row}*2 + 2048 + ",
                    $x,
                    "]\n",
                    "tdpbf16ps tmm2, tmm5, tmm6\n",
                    "tdpbf16ps tmm3, tmm5, tmm7\n",
                )
            };
        }
        let row_bytes = 64usize;
        assert!(blocks > 0 && self.tokens > 0);
        if self.tokens <= TILE_ROWS {
            // SAFETY: tiles 0, 1, 4, 6 and 7 are configured with rows of 64 bytes, sixteen or one for each
            // token; the caller guarantees that their memory operands are valid.
            unsafe {
                asm!(
                    "tilezero tmm0", "tilezero tmm1",
                    "test {zero_acc:e}, {zero_acc:e}",
                    "jnz 2f",
                    "tileloadd tmm0, [{acc} + {row}]",
                    "tileloadd tmm1, [{acc} + {row} + 2048]",
                    "2:",
                    half_block!(16, "0", "0"),
                    half_block!(16, "64", "2048"),
                    "add {x}, {x_stride}",
                    "add {w}, 4096",
                    "dec {blocks}",
                    "jnz 2b",
                    "tilestored [{acc} + {row}], tmm0",
                    "tilestored [{acc} + {row} + 2048], tmm1",
                    zero_acc = in(reg) u32::from(zero_acc), row = in(reg) row_bytes, acc = in(reg) acc,
                    x_stride = in(reg) x_stride,
                    x = inout(reg) x => _, w = inout(reg) w => _, blocks = inout(reg) blocks => _,
                    out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        } else {
            // SAFETY: as above, for all tiles.
            unsafe {
                asm!(
                    "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                    "test {zero_acc:e}, {zero_acc:e}",
                    "jnz 2f",
                    "tileloadd tmm0, [{acc} + {row}]",
                    "tileloadd tmm1, [{acc} + {row} + 2048]",
                    "tileloadd tmm2, [{acc} + {row} + 1024]",
                    "tileloadd tmm3, [{acc} + {row} + 3072]",
                    "2:",
                    half_block!(32, "0", "0"),
                    half_block!(32, "64", "2048"),
                    "add {x}, {x_stride}",
                    "add {w}, 4096",
                    "dec {blocks}",
                    "jnz 2b",
                    "tilestored [{acc} + {row}], tmm0",
                    "tilestored [{acc} + {row} + 2048], tmm1",
                    "tilestored [{acc} + {row} + 1024], tmm2",
                    "tilestored [{acc} + {row} + 3072], tmm3",
                    zero_acc = in(reg) u32::from(zero_acc), row = in(reg) row_bytes, acc = in(reg) acc,
                    x_stride = in(reg) x_stride,
                    x = inout(reg) x => _, w = inout(reg) w => _, blocks = inout(reg) blocks => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    }

    /// Multiplies 64 inputs, i8 on both sides, into i32 accumulators.
    ///
    /// # Safety
    /// `x` points to 64 bytes of activations for each configured token, `x_stride` bytes apart; `w` to 16
    /// packed rows of weights (two 64-byte vectors each).
    #[inline(always)]
    pub(crate) unsafe fn dot_i8(&mut self, x: *const u8, x_stride: usize, w: *const u8, acc: &mut I32Tiles) {
        assert!(self.tokens > 0);
        let row_bytes = 64usize;
        if self.tokens <= TILE_ROWS {
            // SAFETY: tiles 0, 1, 4, 6 and 7 are configured with rows of 64 bytes, sixteen or one for each
            // token; the caller guarantees that their memory operands are valid.
            unsafe {
                asm!(
                    "tilezero tmm0", "tilezero tmm1",
                    "tileloadd tmm4, [{x} + {x_stride}]",
                    "tileloadd tmm6, [{w} + {row}*2]",
                    "tdpbssd tmm0, tmm4, tmm6",
                    "tilestored [{acc} + {row}], tmm0",
                    "tileloadd tmm7, [{w} + {row}*2 + 64]",
                    "tdpbssd tmm1, tmm4, tmm7",
                    "tilestored [{acc} + {row} + 2048], tmm1",
                    row = in(reg) row_bytes, acc = in(reg) acc, w = in(reg) w,
                    x = in(reg) x, x_stride = in(reg) x_stride,
                    out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, preserves_flags),
                );
            }
        } else {
            // SAFETY: as above, for all tiles; the remaining tokens follow the first sixteen.
            unsafe {
                asm!(
                    "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                    "tileloadd tmm4, [{x} + {x_stride}]",
                    "tileloadd tmm6, [{w} + {row}*2]",
                    "tdpbssd tmm0, tmm4, tmm6",
                    "tilestored [{acc} + {row}], tmm0",
                    "tileloadd tmm7, [{w} + {row}*2 + 64]",
                    "tdpbssd tmm1, tmm4, tmm7",
                    "tilestored [{acc} + {row} + 2048], tmm1",
                    "tileloadd tmm5, [{x_high} + {x_stride}]",
                    "tdpbssd tmm2, tmm5, tmm6",
                    "tilestored [{acc} + {row} + 1024], tmm2",
                    "tdpbssd tmm3, tmm5, tmm7",
                    "tilestored [{acc} + {row} + 3072], tmm3",
                    row = in(reg) row_bytes, acc = in(reg) acc, w = in(reg) w,
                    x = in(reg) x, x_high = in(reg) x.add(TILE_ROWS * x_stride), x_stride = in(reg) x_stride,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, preserves_flags),
                );
            }
        }
    }
}

impl Drop for TileRegisters {
    fn drop(&mut self) {
        if self.tokens > 0 {
            // SAFETY: tiles exist, and this value alone uses them on this thread.
            unsafe {
                asm!("tilerelease",
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, preserves_flags, nomem));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random_values;
    use half::bf16;

    /// The index of weight `(k, j)` in packed rows `[k / n, 2, 16, n]` of `n` adjacent inputs.
    fn packed_index(k: usize, j: usize, n: usize) -> usize {
        (k / n * 2 + j / TILE_ROWS) * TILE_ROWS * n + j % TILE_ROWS * n + k % n
    }

    #[test]
    fn amx_dot_bf16_sums_in_documented_order() {
        let Some(amx) = Amx::detect() else { return };
        let (blocks, height) = (3, 2 * TILE_ROWS);
        let rounded =
            |seed, n| -> Vec<bf16> { random_values(seed, n).into_iter().map(bf16::from_f32).collect() };
        let (x, w) = (rounded(1, blocks * height * 64), rounded(2, blocks * 64 * 2 * TILE_ROWS));
        let mut tiles = amx.tile_registers();
        for tokens in [32, 1, 16, 17, 5] {
            tiles.configure(tokens);
            let mut acc = F32Tiles([[[f32::NAN; TILE_ROWS]; 2 * TILE_ROWS]; 2]);
            let stride = height * 128;
            // SAFETY: `x` and `w` hold the configured tokens and blocks.
            unsafe {
                tiles.dot_bf16(1, x.as_ptr().cast(), stride, w.as_ptr().cast(), &mut acc, true);
                let (x, w) = (x.as_ptr().add(height * 64), w.as_ptr().add(64 * 2 * TILE_ROWS));
                tiles.dot_bf16(2, x.cast(), stride, w.cast(), &mut acc, false);
            }
            for (m, j) in (0..tokens).flat_map(|m| (0..2 * TILE_ROWS).map(move |j| (m, j))) {
                let mut expected = 0.0;
                for start in (0..64 * blocks).step_by(32) {
                    let mut chains = [0.0f32; 2];
                    for k in start..start + 32 {
                        let x = x[(k / 64 * height + m) * 64 + k % 64].to_f32();
                        chains[k % 2] = x.mul_add(w[packed_index(k, j, 2)].to_f32(), chains[k % 2]);
                    }
                    expected += chains[0] + chains[1];
                }
                assert_eq!(
                    acc.0[j / TILE_ROWS][m][j % TILE_ROWS],
                    expected,
                    "token {m} of {tokens}, output {j}"
                );
            }
        }
    }

    #[test]
    fn amx_dot_i8_is_exact() {
        let Some(amx) = Amx::detect() else { return };
        let bytes =
            |seed, n| -> Vec<i8> { random_values(seed, n).into_iter().map(|x| (x * 127.0) as i8).collect() };
        let (stride, w) = (80, bytes(2, 64 * 2 * TILE_ROWS));
        let x = bytes(1, 2 * TILE_ROWS * stride);
        let mut tiles = amx.tile_registers();
        for tokens in [1, 16, 30, 32] {
            tiles.configure(tokens);
            let mut acc = I32Tiles::ZERO;
            // SAFETY: `x` and `w` hold the configured tokens and blocks.
            unsafe { tiles.dot_i8(x.as_ptr().cast(), stride, w.as_ptr().cast(), &mut acc) };
            for (m, j) in (0..tokens).flat_map(|m| (0..2 * TILE_ROWS).map(move |j| (m, j))) {
                let expected: i32 =
                    (0..64).map(|k| i32::from(x[m * stride + k]) * i32::from(w[packed_index(k, j, 4)])).sum();
                assert_eq!(
                    acc.0[j / TILE_ROWS][m][j % TILE_ROWS],
                    expected,
                    "token {m} of {tokens}, output {j}"
                );
            }
        }
    }
}
