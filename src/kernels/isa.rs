//! Run-time selection of the instruction set.

use super::simd::tiles::TileKernel;
use super::simd::{self, Kernel, Simd};
use std::fmt;
use std::sync::OnceLock;

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug)]
pub enum Isa {
    /// Plain Rust, autovectorized for the target's baseline.
    Portable,
    /// AVX2 with FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2(simd::Avx2),
    /// AVX-512 F, BW, DQ, VL and VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512(simd::Avx512),
    /// AVX-512 with AMX-BF16 and AMX-INT8.
    #[cfg(target_arch = "x86_64")]
    Amx(simd::Amx),
    /// NEON.
    #[cfg(target_arch = "aarch64")]
    Neon(simd::Neon<false>),
    /// NEON with `sdot`, the product of bytes.
    #[cfg(target_arch = "aarch64")]
    NeonDotprod(simd::Neon<true>),
    /// Plain Rust for vectors and tiles, to test what runs on tiles.
    #[cfg(test)]
    EmulatedTiles,
}

impl Isa {
    /// Returns all instruction sets that this machine supports, the best first.
    pub fn available() -> Vec<Isa> {
        #[allow(unused_mut)]
        let mut all = vec![Isa::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(simd::Avx2::detect().map(Isa::Avx2));
            all.extend(simd::Avx512::detect().map(Isa::Avx512));
            all.extend(simd::Amx::detect().map(Isa::Amx));
        }
        #[cfg(target_arch = "aarch64")]
        {
            all.push(Isa::Neon(simd::Neon::<false>::detect()));
            all.extend(simd::Neon::<true>::detect().map(Isa::NeonDotprod));
        }
        all.reverse();
        all
    }

    /// The name of the instruction set in the environment variable `HORNBOOK_ISA`.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(_) => "amx",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(_) => "neon",
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod(_) => "neon-dotprod",
            #[cfg(test)]
            Isa::EmulatedTiles => "emulated tiles",
        }
    }

    /// Returns the instruction set that the environment variable `HORNBOOK_ISA` names; if it is unset or
    /// empty, the best one that this machine supports.
    ///
    /// # Errors
    /// [`UnsupportedIsa`] if this machine does not support the instruction set that `HORNBOOK_ISA` names.
    pub fn choose() -> Result<Isa, UnsupportedIsa> {
        let available = Isa::available();
        let Some(name) = std::env::var_os("HORNBOOK_ISA").filter(|name| !name.is_empty()) else {
            return Ok(available[0]);
        };
        let selected = available.iter().find(|isa| name == *isa.name());
        selected.copied().ok_or_else(|| {
            let names: Vec<_> = available.iter().map(|isa| isa.name()).collect();
            UnsupportedIsa {
                found: name.to_string_lossy().into_owned(),
                expected: format!("one of {} on this machine", names.join(", ")),
            }
        })
    }

    /// Returns the instruction set of computations without a thread pool: that of [`Isa::choose`], chosen
    /// once. Where `HORNBOOK_ISA` names none of this machine, the program has ended with that error before; a
    /// library that ignored it gets the best one.
    pub fn of_process() -> Isa {
        static CHOSEN: OnceLock<Isa> = OnceLock::new();
        *CHOSEN.get_or_init(|| Isa::choose().unwrap_or_else(|_| Isa::available()[0]))
    }

    /// Whether there are enough registers for large register tiles, [`Simd::WIDE`].
    pub(super) fn is_wide(self) -> bool {
        match self {
            Isa::Portable => simd::Portable::WIDE,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => simd::Avx2::WIDE,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) | Isa::Amx(_) => simd::Avx512::WIDE,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(_) | Isa::NeonDotprod(_) => simd::Neon::<false>::WIDE,
            #[cfg(test)]
            Isa::EmulatedTiles => simd::Portable::WIDE,
        }
    }

    /// Whether there are instructions that multiply bfloat16 operands directly.
    pub(super) fn has_bf16_dot(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(simd) => simd::Avx512Bf16::detect(simd).is_some(),
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(_) => true,
            _ => false,
        }
    }

    /// Whether [`Simd::dot_u8i8`] needs its inputs widened to 16 bits.
    pub(super) fn needs_i16_pairs(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => true,
            _ => false,
        }
    }

    /// Runs a kernel compiled for this instruction set.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Isa::Portable => simd::run_portable(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(simd) => simd.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(simd) => simd.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(amx) => amx.run(kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(simd) => simd.run(kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod(simd) => simd.run(kernel),
            #[cfg(test)]
            Isa::EmulatedTiles => simd::run_portable(kernel),
        }
    }

    /// Whether there are tile registers.
    pub(super) fn has_tiles(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(_) => true,
            #[cfg(test)]
            Isa::EmulatedTiles => true,
            _ => false,
        }
    }

    /// Runs a kernel on tiles. Panics unless the instruction set [has them](Isa::has_tiles).
    #[allow(unused_variables)] // without a tile backend
    pub(super) fn run_tiled(self, kernel: impl TileKernel) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(amx) => amx.run_tiled(kernel),
            #[cfg(test)]
            Isa::EmulatedTiles => {
                simd::run_portable(simd::tiles::WithTiles(kernel, simd::tiles::EmulatedTiles::default()));
            }
            _ => unreachable!("{self} has no tiles"),
        }
    }
}

/// The environment variable `HORNBOOK_ISA` names an instruction set that this machine does not support.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsupportedIsa {
    /// The variable's value.
    pub found: String,
    /// The instruction sets of this machine, as a phrase.
    pub expected: String,
}

impl fmt::Display for UnsupportedIsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HORNBOOK_ISA: found {}, expected {}", self.found, self.expected)
    }
}

impl std::error::Error for UnsupportedIsa {}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
