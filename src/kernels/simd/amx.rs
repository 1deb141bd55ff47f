//! AMX (Sapphire Rapids and later): eight tile registers of sixteen rows of sixty-four bytes, and
//! instructions that multiply two of them into a third. Everything else on such a machine runs on AVX-512.
//!
//! The compiler does not allocate tile registers. Each function here is therefore one `asm!` block that
//! loads, multiplies and stores tiles and keeps nothing in them.

use super::tiles::{AccumulatorTiles, TILE_ROWS, TileKernel, Tiles, WithTiles};
use super::{Avx512, Kernel};
use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::marker::PhantomData;
use std::sync::LazyLock;

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

    /// Runs `kernel` compiled for AVX-512, on this thread's tile registers.
    pub(crate) fn run_tiled(self, kernel: impl TileKernel) {
        self.0.run(WithTiles(kernel, TileRegisters { tokens: 0, _not_send: PhantomData }));
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

/// Bytes of a row of a tile.
const ROW_BYTES: usize = 64;

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
struct TileRegisters {
    /// Tokens the tiles are configured for, up to 32; 0 before the first configuration.
    tokens: usize,
    _not_send: PhantomData<*const ()>,
}

/// A line of assembly for the second sixteen tokens, a comment where there are no more than sixteen.
macro_rules! if_32 {
    (16, $line:expr) => {
        concat!("# ", $line, "\n")
    };
    (32, $line:expr) => {
        $line
    };
}

/// Zeros, loads or stores the accumulator tile `$tile`, at `$offset` bytes of the accumulators.
macro_rules! zero {
    ($tile:literal, $offset:literal) => {
        concat!("tilezero tmm", $tile, "\n")
    };
}
macro_rules! load {
    ($tile:literal, $offset:literal) => {
        concat!("tileloadd tmm", $tile, ", [{acc} + {row} + ", $offset, "]\n")
    };
}
macro_rules! store {
    ($tile:literal, $offset:literal) => {
        concat!("tilestored [{acc} + {row} + ", $offset, "], tmm", $tile, "\n")
    };
}
macro_rules! nothing {
    ($tile:literal, $offset:literal) => {
        ""
    };
}

/// One of the above for every accumulator tile.
macro_rules! accumulators {
    ($tokens:tt, $line:ident) => {
        concat!(
            $line!("0", "0"),
            $line!("1", "2048"),
            if_32!($tokens, $line!("2", "1024")),
            if_32!($tokens, $line!("3", "3072")),
        )
    };
}

/// Loads and multiplies 64 bytes of inputs of sixteen or 32 tokens by the instruction `$dot`. `$x` and
/// `$x_high` are the addresses of the first and the second sixteen tokens, `$w` is the byte offset of the
/// weights, and `$then` follows each product.
macro_rules! products {
    ($tokens:tt, $dot:literal, $x:expr, $x_high:expr, $w:literal, $then:ident) => {
        concat!(
            concat!("tileloadd tmm4, [", $x, "]\n"),
            concat!("tileloadd tmm6, [{w} + {row}*2 + ", $w, "]\n"),
            concat!($dot, " tmm0, tmm4, tmm6\n"),
            $then!("0", "0"),
            concat!("tileloadd tmm7, [{w} + {row}*2 + ", $w, " + 64]\n"),
            concat!($dot, " tmm1, tmm4, tmm7\n"),
            $then!("1", "2048"),
            if_32!($tokens, concat!("tileloadd tmm5, [", $x_high, "]\n")),
            if_32!($tokens, concat!($dot, " tmm2, tmm5, tmm6\n")),
            if_32!($tokens, $then!("2", "1024")),
            if_32!($tokens, concat!($dot, " tmm3, tmm5, tmm7\n")),
            if_32!($tokens, $then!("3", "3072")),
        )
    };
}
/// An `asm!` block that keeps nothing in the tiles, for up to sixteen tokens and for more.
macro_rules! tile_asm {
    ($self:ident, $text:ident, $($operands:tt)*) => {
        if $self.tokens <= TILE_ROWS {
            tile_asm!(@ $text!(16), $($operands)*)
        } else {
            tile_asm!(@ $text!(32), $($operands)*)
        }
    };
    (@ $text:expr, $($operands:tt)*) => {
        asm!($text, $($operands)*
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack))
    };
}

impl Tiles for TileRegisters {
    fn tokens(&self) -> usize {
        self.tokens
    }

    fn configure(&mut self, tokens: usize) {
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

    /// # Safety
    /// As for the trait.
    unsafe fn dot_bf16(
        &mut self,
        blocks: usize,
        x: *const u8,
        x_stride: usize,
        w: *const u8,
        acc: &mut AccumulatorTiles<f32>,
        zero_acc: bool,
    ) {
        macro_rules! text {
            ($tokens:tt) => {
                concat!(
                    accumulators!($tokens, zero),
                    "test {zero_acc:e}, {zero_acc:e}\n",
                    "jnz 2f\n",
                    accumulators!($tokens, load),
                    "2:\n",
                    products!($tokens, "tdpbf16ps", "{x} + {row}*2", "{x} + {row}*2 + 2048", "0", nothing),
                    products!(
                        $tokens,
                        "tdpbf16ps",
                        "{x} + {row}*2 + 64",
                        "{x} + {row}*2 + 2048 + 64",
                        "2048",
                        nothing
                    ),
                    "add {x}, {x_stride}\n",
                    "add {w}, 4096\n",
                    "dec {blocks}\n",
                    "jnz 2b\n",
                    accumulators!($tokens, store),
                )
            };
        }
        assert!(blocks > 0 && self.tokens > 0);
        // SAFETY: tiles 0, 1, 4, 6 and 7 are configured with rows of 64 bytes, sixteen or one for each token,
        // and the others, which only more than sixteen tokens use, for the remaining tokens; the caller
        // guarantees that their memory operands are valid.
        unsafe {
            tile_asm!(self, text,
                zero_acc = in(reg) u32::from(zero_acc), row = in(reg) ROW_BYTES, acc = in(reg) acc,
                x_stride = in(reg) x_stride,
                x = inout(reg) x => _, w = inout(reg) w => _, blocks = inout(reg) blocks => _,);
        }
    }

    /// # Safety
    /// As for the trait.
    #[inline(always)]
    unsafe fn dot_i8(
        &mut self,
        x: *const u8,
        x_stride: usize,
        w: *const u8,
        acc: &mut AccumulatorTiles<i32>,
    ) {
        macro_rules! text {
            ($tokens:tt) => {
                concat!(
                    accumulators!($tokens, zero),
                    products!($tokens, "tdpbssd", "{x} + {x_stride}", "{x_high} + {x_stride}", "0", store),
                )
            };
        }
        assert!(self.tokens > 0);
        // SAFETY: as above; the remaining tokens follow the first sixteen.
        unsafe {
            tile_asm!(self, text,
                row = in(reg) ROW_BYTES, acc = in(reg) acc, w = in(reg) w, x = in(reg) x,
                x_high = in(reg) x.wrapping_add(TILE_ROWS * x_stride), x_stride = in(reg) x_stride,);
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
    use super::super::tiles::EmulatedTiles;
    use super::*;
    use crate::simd::Simd;
    use crate::testing::random_values;
    use half::bf16;

    /// Computes a few products of both kinds; the accumulators of tokens that are not configured stay zero.
    struct Products<'a>(&'a mut Vec<(AccumulatorTiles<f32>, AccumulatorTiles<i32>)>);

    impl TileKernel for Products<'_> {
        fn run<S: Simd, T: Tiles>(self, _: S, mut tiles: T) {
            let values = |seed, n| random_values(seed, n).into_iter();
            let bf16s = |seed, n| -> Vec<bf16> { values(seed, n).map(bf16::from_f32).collect() };
            let i8s = |seed, n| -> Vec<i8> { values(seed, n).map(|x| (x * 127.0) as i8).collect() };
            let (blocks, height) = (3, 2 * TILE_ROWS);
            let (x, w) = (bf16s(1, blocks * height * 64), bf16s(2, blocks * 64 * 2 * TILE_ROWS));
            let (x_i8, w_i8, stride_i8) = (i8s(1, height * 80), i8s(2, 64 * 2 * TILE_ROWS), 80);
            for tokens in [32, 1, 16, 17, 5] {
                tiles.configure(tokens);
                let (mut acc, mut acc_i32) = <(AccumulatorTiles<f32>, AccumulatorTiles<i32>)>::default();
                let stride = height * 128;
                // SAFETY: `x` and `w` hold the configured tokens and blocks.
                unsafe {
                    tiles.dot_bf16(1, x.as_ptr().cast(), stride, w.as_ptr().cast(), &mut acc, true);
                    let (x, w) = (x.as_ptr().add(height * 64), w.as_ptr().add(64 * 2 * TILE_ROWS));
                    tiles.dot_bf16(2, x.cast(), stride, w.cast(), &mut acc, false);
                    tiles.dot_i8(x_i8.as_ptr().cast(), stride_i8, w_i8.as_ptr().cast(), &mut acc_i32);
                }
                self.0.push((acc, acc_i32));
            }
        }
    }

    #[test]
    fn amx_computes_what_emulation_does() {
        let Some(amx) = Amx::detect() else { return };
        let (mut found, mut expected) = (vec![], vec![]);
        amx.run_tiled(Products(&mut found));
        Products(&mut expected).run(crate::simd::Portable, EmulatedTiles::default());
        for ((found, found_i32), (expected, expected_i32)) in found.iter().zip(&expected) {
            assert_eq!((found.0, found_i32.0), (expected.0, expected_i32.0));
        }
    }
}
