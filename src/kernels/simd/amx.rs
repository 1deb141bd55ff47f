//! AMX: eight registers that hold a matrix each, sixteen rows of sixty-four bytes, and one instruction that multiplies two
//! of them (Sapphire Rapids and later). Everything else such a machine does with AVX-512.
//!
//! The compiler knows these registers only by name, so what is done in them is done in one piece of assembly each: tiles
//! are loaded, multiplied and stored before anything else runs.

use super::{Avx512, Kernel};
use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::marker::PhantomData;
use std::sync::LazyLock;

/// Rows of a tile, and columns of the sums: 32-bit numbers.
pub const TILE: usize = 16;

/// The sums of two tiles of tokens and two of outputs, `[2, 32, 16]`: vector of outputs, token, output.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct TileSums(pub [[[f32; TILE]; 2 * TILE]; 2]);

impl TileSums {
    /// Zeros.
    pub const ZERO: Self = Self([[[0.0; TILE]; 2 * TILE]; 2]);
}

/// The same of whole numbers.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct TileProducts(pub [[[i32; TILE]; 2 * TILE]; 2]);

impl TileProducts {
    /// Zeros.
    pub const ZERO: Self = Self([[[0; TILE]; 2 * TILE]; 2]);
}

/// AVX-512 with tiles of bfloat16 and of bytes. Made only by [`Amx::detect`].
#[derive(Clone, Copy, Debug)]
pub struct Amx(Avx512);

impl Amx {
    /// The instruction set, where the machine has it and the system lets this process use it.
    pub fn detect() -> Option<Self> {
        static MAY: LazyLock<bool> = LazyLock::new(|| has_tiles() && ask_the_system());
        Avx512::detect().filter(|_| *MAY).map(Self)
    }

    /// Runs `kernel` compiled for AVX-512.
    pub(in crate::kernels) fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        self.0.enter(kernel)
    }

    /// Takes this thread's tiles into use.
    pub(in crate::kernels) fn tiles(self) -> TileRegisters {
        TileRegisters { tokens: 0, _of_one_thread: PhantomData }
    }
}

/// AMX-TILE, AMX-BF16 and AMX-INT8 (Intel's manual, CPUID leaf 7).
fn has_tiles() -> bool {
    const BITS: u32 = 1 << 24 | 1 << 22 | 1 << 25;
    #[allow(unused_unsafe)] // safe from Rust 1.94 on
    // SAFETY: asked only where AVX-512 was found, whose leaf this is, too.
    let leaf = unsafe { __cpuid_count(7, 0) };
    leaf.edx & BITS == BITS
}

/// Tiles are 8 KiB more for the system to keep of every thread, so a process has to ask for them.
#[cfg(target_os = "linux")]
fn ask_the_system() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: the call takes two numbers and touches no memory of ours. Older systems answer that they do not know it.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn ask_the_system() -> bool {
    false
}

/// How the eight tiles are cut, as `ldtilecfg` reads it: their rows, and the bytes of a row.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// This thread's tiles, given back when this is dropped. Sums are in tiles 0 to 3, of tokens 0 to 15 in the first two;
/// tokens in 4 and 5, weights in 6 and 7.
pub struct TileRegisters {
    /// As many as there are rows for, up to 32; 0 before any.
    tokens: usize,
    _of_one_thread: PhantomData<*const ()>,
}

impl TileRegisters {
    /// How many tokens the tiles are cut for.
    pub(in crate::kernels) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Cuts the tiles for so many tokens, 1 to 32.
    pub(in crate::kernels) fn cut(&mut self, tokens: usize) {
        assert!((1..=2 * TILE).contains(&tokens), "{tokens} tokens");
        if self.tokens == tokens {
            return;
        }
        self.tokens = tokens;
        let (first, second) = (tokens.min(TILE) as u8, tokens.saturating_sub(TILE) as u8);
        let all = TILE as u8;
        let mut config =
            Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        config.rows[..8].copy_from_slice(&[first, first, second, second, first, second, all, all]);
        for i in 0..8 {
            // A tile that is not used has neither rows nor columns.
            config.row_bytes[i] = if config.rows[i] > 0 { 64 } else { 0 };
        }
        // SAFETY: `Amx` exists only where tiles do; the palette is theirs, and no tile is larger than 16 rows of 64 bytes.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &config,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags, readonly));
        }
    }

    /// Adds the products of some blocks of 64 inputs, bfloat16 on both sides, to `sums`; to zeros if these are `fresh`.
    ///
    /// The sum of 32 inputs begins at zero, those with even numbers in one chain, the others in another, which are added
    /// to each other and then to the sum so far.
    ///
    /// # Safety
    /// For each of `blocks` blocks, `x` points to 128 bytes of inputs for as many tokens as the tiles are cut for, the next
    /// block `x_stride` bytes on; `w` to 64 lines of weights, those of two vectors side by side, the next block behind them.
    pub(in crate::kernels) unsafe fn add_bf16(
        &mut self,
        blocks: usize,
        x: *const u8,
        x_stride: usize,
        w: *const u8,
        sums: &mut TileSums,
        fresh: bool,
    ) {
        /// What is done with the two upper tiles alone, and with all four: the inputs are at `$x` of a block, the weights
        /// at `$w`.
        macro_rules! half {
            (16, $x:literal, $w:literal) => {
                concat!(
                    "tileloadd tmm4, [{x} + {line}*2 + ",
                    $x,
                    "]\n",
                    "tileloadd tmm6, [{w} + {line}*2 + ",
                    $w,
                    "]\n",
                    "tdpbf16ps tmm0, tmm4, tmm6\n",
                    "tileloadd tmm7, [{w} + {line}*2 + ",
                    $w,
                    " + 64]\n",
                    "tdpbf16ps tmm1, tmm4, tmm7\n",
                )
            };
            (32, $x:literal, $w:literal) => {
                concat!(
                    half!(16, $x, $w),
                    "tileloadd tmm5, [{x} + {line}*2 + 2048 + ",
                    $x,
                    "]\n",
                    "tdpbf16ps tmm2, tmm5, tmm6\n",
                    "tdpbf16ps tmm3, tmm5, tmm7\n",
                )
            };
        }
        let line = 64usize;
        assert!(blocks > 0 && self.tokens > 0);
        if self.tokens <= TILE {
            // SAFETY: tiles 0, 1, 4, 6 and 7 are cut to rows of 64 bytes, sixteen of them or as many as there are tokens;
            // what they are loaded from is there, as the caller promises.
            unsafe {
                asm!(
                    "tilezero tmm0", "tilezero tmm1",
                    "test {fresh:e}, {fresh:e}",
                    "jnz 2f",
                    "tileloadd tmm0, [{sums} + {line}]",
                    "tileloadd tmm1, [{sums} + {line} + 2048]",
                    "2:",
                    half!(16, "0", "0"),
                    half!(16, "64", "2048"),
                    "add {x}, {x_stride}",
                    "add {w}, 4096",
                    "dec {blocks}",
                    "jnz 2b",
                    "tilestored [{sums} + {line}], tmm0",
                    "tilestored [{sums} + {line} + 2048], tmm1",
                    fresh = in(reg) u32::from(fresh), line = in(reg) line, sums = in(reg) sums, x_stride = in(reg) x_stride,
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
                    "test {fresh:e}, {fresh:e}",
                    "jnz 2f",
                    "tileloadd tmm0, [{sums} + {line}]",
                    "tileloadd tmm1, [{sums} + {line} + 2048]",
                    "tileloadd tmm2, [{sums} + {line} + 1024]",
                    "tileloadd tmm3, [{sums} + {line} + 3072]",
                    "2:",
                    half!(32, "0", "0"),
                    half!(32, "64", "2048"),
                    "add {x}, {x_stride}",
                    "add {w}, 4096",
                    "dec {blocks}",
                    "jnz 2b",
                    "tilestored [{sums} + {line}], tmm0",
                    "tilestored [{sums} + {line} + 2048], tmm1",
                    "tilestored [{sums} + {line} + 1024], tmm2",
                    "tilestored [{sums} + {line} + 3072], tmm3",
                    fresh = in(reg) u32::from(fresh), line = in(reg) line, sums = in(reg) sums, x_stride = in(reg) x_stride,
                    x = inout(reg) x => _, w = inout(reg) w => _, blocks = inout(reg) blocks => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    }

    /// The products of 64 inputs, bytes with a sign on both sides.
    ///
    /// # Safety
    /// `x` points to 64 inputs of as many tokens as the tiles are cut for, `x_stride` bytes apart; `w` to 32 lines of weights,
    /// those of two vectors side by side.
    #[inline(always)]
    pub(in crate::kernels) unsafe fn multiply_bytes(
        &mut self,
        x: *const u8,
        x_stride: usize,
        w: *const u8,
        to: &mut TileProducts,
    ) {
        assert!(self.tokens > 0);
        let line = 64usize;
        if self.tokens <= TILE {
            // SAFETY: tiles 0, 1, 4, 6 and 7 are cut to rows of 64 bytes, sixteen of them or as many as there are tokens;
            // what they are loaded from is there, as the caller promises.
            unsafe {
                asm!(
                    "tilezero tmm0", "tilezero tmm1",
                    "tileloadd tmm4, [{x} + {x_stride}]",
                    "tileloadd tmm6, [{w} + {line}*2]",
                    "tdpbssd tmm0, tmm4, tmm6",
                    "tilestored [{to} + {line}], tmm0",
                    "tileloadd tmm7, [{w} + {line}*2 + 64]",
                    "tdpbssd tmm1, tmm4, tmm7",
                    "tilestored [{to} + {line} + 2048], tmm1",
                    line = in(reg) line, x = in(reg) x, x_stride = in(reg) x_stride, w = in(reg) w, to = in(reg) to,
                    out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, preserves_flags),
                );
            }
        } else {
            // SAFETY: as above, for all tiles; behind the first sixteen tokens there are the others.
            unsafe {
                asm!(
                    "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                    "tileloadd tmm4, [{x} + {x_stride}]",
                    "tileloadd tmm6, [{w} + {line}*2]",
                    "tdpbssd tmm0, tmm4, tmm6",
                    "tilestored [{to} + {line}], tmm0",
                    "tileloadd tmm7, [{w} + {line}*2 + 64]",
                    "tdpbssd tmm1, tmm4, tmm7",
                    "tilestored [{to} + {line} + 2048], tmm1",
                    "tileloadd tmm5, [{y} + {x_stride}]",
                    "tdpbssd tmm2, tmm5, tmm6",
                    "tilestored [{to} + {line} + 1024], tmm2",
                    "tdpbssd tmm3, tmm5, tmm7",
                    "tilestored [{to} + {line} + 3072], tmm3",
                    line = in(reg) line, x = in(reg) x, y = in(reg) x.add(TILE * x_stride), x_stride = in(reg) x_stride,
                    w = in(reg) w, to = in(reg) to,
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
            // SAFETY: tiles exist, and nobody else of this thread uses them.
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
    use crate::kernels::check::numbers;
    use half::bf16;

    /// Lines of weights, `[k / n, 2, 16, n]`, where `n` inputs are side by side.
    fn at(k: usize, j: usize, n: usize) -> usize {
        (k / n * 2 + j / TILE) * TILE * n + j % TILE * n + k % n
    }

    #[test]
    fn bfloat16_adds_up_in_the_order_it_says() {
        let Some(amx) = Amx::detect() else { return };
        let (blocks, height) = (3, 2 * TILE);
        let rounded = |seed, n| -> Vec<bf16> { numbers(seed, n).into_iter().map(bf16::from_f32).collect() };
        let (x, w) = (rounded(1, blocks * height * 64), rounded(2, blocks * 64 * 2 * TILE));
        let mut tiles = amx.tiles();
        for tokens in [32, 1, 16, 17, 5] {
            tiles.cut(tokens);
            let mut sums = TileSums([[[f32::NAN; TILE]; 2 * TILE]; 2]);
            let stride = height * 128;
            // SAFETY: both are as large as is said.
            unsafe {
                tiles.add_bf16(1, x.as_ptr().cast(), stride, w.as_ptr().cast(), &mut sums, true);
                let (x, w) = (x.as_ptr().add(height * 64), w.as_ptr().add(64 * 2 * TILE));
                tiles.add_bf16(2, x.cast(), stride, w.cast(), &mut sums, false);
            }
            for (m, j) in (0..tokens).flat_map(|m| (0..2 * TILE).map(move |j| (m, j))) {
                let mut expected = 0.0;
                for start in (0..64 * blocks).step_by(32) {
                    let mut chains = [0.0f32; 2];
                    for k in start..start + 32 {
                        let x = x[(k / 64 * height + m) * 64 + k % 64].to_f32();
                        chains[k % 2] = x.mul_add(w[at(k, j, 2)].to_f32(), chains[k % 2]);
                    }
                    expected += chains[0] + chains[1];
                }
                assert_eq!(sums.0[j / TILE][m][j % TILE], expected, "token {m} of {tokens}, output {j}");
            }
        }
    }

    #[test]
    fn bytes_are_multiplied_exactly() {
        let Some(amx) = Amx::detect() else { return };
        let bytes =
            |seed, n| -> Vec<i8> { numbers(seed, n).into_iter().map(|x| (x * 127.0) as i8).collect() };
        let (stride, w) = (80, bytes(2, 64 * 2 * TILE));
        let x = bytes(1, 2 * TILE * stride);
        let mut tiles = amx.tiles();
        for tokens in [1, 16, 30, 32] {
            tiles.cut(tokens);
            let mut products = TileProducts::ZERO;
            // SAFETY: both are as large as is said.
            unsafe { tiles.multiply_bytes(x.as_ptr().cast(), stride, w.as_ptr().cast(), &mut products) };
            for (m, j) in (0..tokens).flat_map(|m| (0..2 * TILE).map(move |j| (m, j))) {
                let expected: i32 =
                    (0..64).map(|k| i32::from(x[m * stride + k]) * i32::from(w[at(k, j, 4)])).sum();
                assert_eq!(products.0[j / TILE][m][j % TILE], expected, "token {m} of {tokens}, output {j}");
            }
        }
    }
}
