//! The microkernel that linear layers, the LM head and attention share: it computes one register tile, a few
//! rows times a few panels.
//!
//! A *panel* is sixteen columns of a matrix stored contiguously, `[k, 16]`. For `MR` rows of `x` and
//! `NR_VECS` panels (NR = 16 · `NR_VECS` columns),
//!
//! ```text
//! acc[m][v] += Σ_k x[m, k] · panel[v][k, 0..16]
//! ```
//!
//! takes `MR · NR_VECS` multiply-adds per `MR + NR_VECS` loads, so a large enough tile is bound by
//! arithmetic, not by loads. In the LM head, where the sums run along the rows of a table, a row is the panel
//! `[k / 16, 16]`, and x contributes sixteen elements at a time. Each lane is one chain of fused
//! multiply-adds in the order of k, whose bits do not depend on the tile shape.

use crate::elements::Element;
use crate::simd::{LANES, Simd};

/// The left operand of the microkernel: what row m contributes to the sixteen lanes in step k.
pub(crate) trait Lhs: Copy {
    /// Loads sixteen lanes.
    ///
    /// # Safety
    /// The operand has more than `m` rows and more than `k` steps.
    unsafe fn load<S: Simd>(self, simd: S, m: usize, k: usize) -> S::F32s;
}

/// One element per row and step, for all lanes: the lanes of an accumulator are sixteen outputs. Element k of
/// row m is at `ptr + m · row_stride + k · k_stride`.
///
/// For packed rows, `[k, MR]`, both strides are constants and every element is at a fixed offset from one
/// register. Unpacked rows take an address computation per row and k, which costs as much as a multiply-add.
#[derive(Clone, Copy)]
pub(crate) struct StridedLhs {
    pub ptr: *const f32,
    pub row_stride: usize,
    pub k_stride: usize,
}

impl Lhs for StridedLhs {
    /// # Safety
    /// As for the trait.
    #[inline(always)]
    unsafe fn load<S: Simd>(self, simd: S, m: usize, k: usize) -> S::F32s {
        // SAFETY: the caller guarantees that this row and step exist.
        simd.splat(unsafe { *self.ptr.add(m * self.row_stride + k * self.k_stride) })
    }
}

/// Sixteen elements per row and step: the lanes of an accumulator are partial sums of one output, over every
/// sixteenth element.
#[derive(Clone, Copy)]
pub(crate) struct VectorLhs<const MR: usize>(pub [*const f32; MR]);

impl<const MR: usize> Lhs for VectorLhs<MR> {
    /// # Safety
    /// As for the trait.
    #[inline(always)]
    unsafe fn load<S: Simd>(self, simd: S, m: usize, k: usize) -> S::F32s {
        // SAFETY: the caller guarantees that this row and step exist.
        simd.load(unsafe { &*self.0[m].add(k * LANES).cast::<[f32; LANES]>() })
    }
}

/// Adds the product of `MR` rows and `NR_VECS` panels to `acc`. The rows of a panel are `panel_stride`
/// elements apart: sixteen, unless GEMV reads the weights where they are. The caller's `prefetch(k)` comes
/// before each step: a few prefetch instructions between the multiply-adds cost no time.
///
/// # Safety
/// `x` has `MR` rows of at least `depth` steps; each panel has at least `depth` rows of sixteen elements.
#[inline(always)]
pub(crate) unsafe fn microkernel<S: Simd, E: Element, const MR: usize, const NR_VECS: usize>(
    simd: S,
    x: impl Lhs,
    depth: usize,
    panels: [*const E; NR_VECS],
    panel_stride: usize,
    acc: &mut [[S::F32s; NR_VECS]; MR],
    mut prefetch: impl FnMut(usize),
) {
    for k in 0..depth {
        prefetch(k);
        let mut w = [simd.splat(0.0); NR_VECS];
        for v in 0..NR_VECS {
            // SAFETY: `k < depth`, and the panel holds `depth` rows of sixteen.
            w[v] = E::load(simd, unsafe { &*panels[v].add(k * panel_stride).cast::<[E; LANES]>() });
        }
        for m in 0..MR {
            // SAFETY: row `m < MR` has at least `depth` steps.
            let x = unsafe { x.load(simd, m, k) };
            for v in 0..NR_VECS {
                acc[m][v] = simd.mul_add(x, w[v], acc[m][v]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::blocking::{assert_mr, mr, with_mr};
    use super::*;
    use crate::isa::Isa;
    use crate::simd::Kernel;
    use crate::testing::{assert_close, random_values};

    /// A tile of `MR` rows of `x`, `[MR, depth]`, and two panels, `[2, depth, 16]`.
    struct Tile<'a, const MR: usize>(&'a [f32], &'a [f32], usize);

    impl<const MR: usize> Kernel for Tile<'_, MR> {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> Vec<f32> {
            assert_mr::<S, MR>();
            let Tile(x, panels, depth) = self;
            assert!(x.len() == MR * depth && panels.len() == 2 * depth * LANES);
            let lhs = StridedLhs { ptr: x.as_ptr(), row_stride: depth, k_stride: 1 };
            let panels = [panels.as_ptr(), panels[depth * LANES..].as_ptr()];
            let mut acc = [[simd.splat(0.0); 2]; MR];
            // SAFETY: the lengths were asserted above.
            unsafe { microkernel(simd, lhs, depth, panels, LANES, &mut acc, |_| {}) };
            let mut out = [[0.0; LANES]; 2];
            acc.iter()
                .flat_map(|acc| {
                    (0..2).for_each(|v| simd.store(acc[v], &mut out[v]));
                    out.as_flattened().to_vec()
                })
                .collect()
        }
    }

    #[test]
    fn register_tiles_match_formula_on_every_isa() {
        for (isa, depth) in Isa::available().into_iter().flat_map(|isa| [(isa, 1), (isa, 37)]) {
            for rows in 1..=mr(isa.is_wide()) {
                let (x, panels) = (random_values(1, rows * depth), random_values(2, 2 * depth * LANES));
                let expected: Vec<f32> = (0..rows * 2 * LANES)
                    .map(|i| {
                        let (m, v, lane) = (i / (2 * LANES), i / LANES % 2, i % LANES);
                        let product = |k| {
                            f64::from(x[m * depth + k]) * f64::from(panels[(v * depth + k) * LANES + lane])
                        };
                        (0..depth).map(product).sum::<f64>() as f32
                    })
                    .collect();
                let found = with_mr!(rows, MR => isa.run(Tile::<MR>(&x, &panels, depth)));
                assert_close(&found, &expected, 1e-5);
            }
        }
    }
}
