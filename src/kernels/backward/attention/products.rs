//! The matrix products of one head, on the microkernel. They read and write two layouts:
//!
//! - *panels*, `[head_dim / 16, n, 16]`: queries, keys, gradients; as right operands they are summed over
//!   positions. *Transposed panels*, `[n / 16, head_dim, 16]`: keys and values, summed over head_dim.
//! - *blocks*, `[QUERIES, KEYS]`, of P and dS: as left operands by rows (dQ) and by columns (dK, dV).
//!
//! Register tiles skip what the causal mask makes zero. That changes no bits: each sum is one chain of
//! multiply-adds in the order of positions, and 0 · x adds nothing.

use crate::gemm::blocking::{assert_mr, block_range, mr, with_mr};
use crate::gemm::microkernel::{StridedLhs, microkernel};
use crate::simd::{AlignedLanes, Kernel, LANES, Simd};

/// Queries of a block.
pub(super) const QUERIES: usize = 84;
/// Keys of a block: whole vectors, and an odd number of cache lines, since products with a transposed block
/// read down its columns.
pub(super) const KEYS: usize = 112;

/// A matrix `[n, head_dim]` as panels.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a> {
    pub data: &'a [AlignedLanes],
    pub n: usize,
}

impl Panels<'_> {
    /// Returns panel `i` from `row` on.
    #[inline(always)]
    fn rows(&self, i: usize, row: usize) -> &[AlignedLanes] {
        &self.data[i * self.n..][row..self.n]
    }
}

/// Some consecutive queries, and consecutive keys that at least the last of these sees.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub first_query: usize,
    /// The number of queries.
    pub queries: usize,
    pub first_key: usize,
    /// The number of keys.
    pub keys: usize,
}

impl Block {
    /// Returns how many keys the query in row `i` sees.
    #[inline(always)]
    pub fn visible(self, i: usize) -> usize {
        (self.first_query + i + 1).saturating_sub(self.first_key).min(self.keys)
    }
}

/// `elements[i, j] = (x[first_query + i] · y[first_key + j]) · factor` for the visible keys of each register
/// tile.
pub(super) struct Scores<'a> {
    pub block: Block,
    /// `[n, head_dim]`
    pub x: Panels<'a>,
    /// `[n, head_dim]` as transposed panels.
    pub y: &'a [AlignedLanes],
    pub head_dim: usize,
    pub factor: f32,
    /// `[QUERIES, KEYS]`
    pub elements: &'a mut [f32],
}

impl Kernel for Scores<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        for tile in 0..self.block.queries.div_ceil(mr(S::WIDE)) {
            let (row, rows) = block_range(self.block.queries, mr(S::WIDE), tile);
            let (panels, mut panel) = (self.block.visible(row + rows - 1).div_ceil(LANES), 0);
            while S::WIDE && panel + 2 <= panels {
                with_mr!(rows, MR => self.tile::<S, MR, 2>(simd, row, panel));
                panel += 2;
            }
            while panel < panels {
                with_mr!(rows, MR => self.tile::<S, MR, 1>(simd, row, panel));
                panel += 1;
            }
        }
    }
}

impl Scores<'_> {
    /// Computes `MR` rows from `row` of the `NR_VECS` panels from `panel`.
    #[inline(always)]
    fn tile<S: Simd, const MR: usize, const NR_VECS: usize>(&mut self, simd: S, row: usize, panel: usize) {
        assert_mr::<S, MR>();
        let first = self.block.first_key / LANES + panel;
        let mut acc = [[simd.splat(0.0); NR_VECS]; MR];
        for (i, start) in (0..self.head_dim).step_by(LANES).enumerate() {
            let depth = LANES.min(self.head_dim - start);
            let x = &self.x.rows(i, self.block.first_query + row)[..MR];
            let lhs = StridedLhs { ptr: x.as_ptr().cast(), row_stride: LANES, k_stride: 1 };
            // A loop: a call to `array::map` that is not inlined would spill all accumulators.
            let mut y = [std::ptr::null::<f32>(); NR_VECS];
            for v in 0..NR_VECS {
                y[v] = self.y[(first + v) * self.head_dim + start..][..depth].as_ptr().cast();
            }
            // SAFETY: `x` has `MR` rows of sixteen elements, and each `y` has `depth` rows of sixteen.
            unsafe { microkernel(simd, lhs, depth, y, LANES, &mut acc, |_| {}) };
        }
        for m in 0..MR {
            let to = self.elements[(row + m) * KEYS + panel * LANES..].as_chunks_mut().0;
            for v in 0..NR_VECS {
                simd.store(simd.mul(acc[m][v], simd.splat(self.factor)), &mut to[v]);
            }
        }
    }
}

/// `sums[i] += Σ_j elements[i, j] · y[first_key + j]`, over the visible keys of each register tile. If
/// `TRANSPOSED`, `sums[first_key + j] += Σ_i elements[i, j] · y[first_query + i]`, over the queries that see
/// a key of the register tile.
pub(super) struct Accumulate<'a, const TRANSPOSED: bool> {
    pub block: Block,
    /// `[QUERIES, KEYS]`
    pub elements: &'a [f32],
    /// `[n, head_dim]`
    pub y: Panels<'a>,
    /// Panels of `sum_rows` rows: [`QUERIES`], or n if `TRANSPOSED`.
    pub sums: &'a mut [AlignedLanes],
    pub sum_rows: usize,
}

impl<const TRANSPOSED: bool> Kernel for Accumulate<'_, TRANSPOSED> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let panels = self.sums.len() / self.sum_rows;
        let n = if TRANSPOSED { self.block.keys } else { self.block.queries };
        for tile in 0..n.div_ceil(mr(S::WIDE)) {
            let (row, rows) = block_range(n, mr(S::WIDE), tile);
            let mut panel = 0;
            while S::WIDE && panel + 2 <= panels {
                with_mr!(rows, MR => self.tile::<S, MR, 2>(simd, row, panel));
                panel += 2;
            }
            while panel < panels {
                with_mr!(rows, MR => self.tile::<S, MR, 1>(simd, row, panel));
                panel += 1;
            }
        }
    }
}

impl<const TRANSPOSED: bool> Accumulate<'_, TRANSPOSED> {
    /// Accumulates `MR` rows from `row` of the `NR_VECS` panels from `panel`.
    #[inline(always)]
    fn tile<S: Simd, const MR: usize, const NR_VECS: usize>(&mut self, simd: S, row: usize, panel: usize) {
        assert_mr::<S, MR>();
        let Block { first_query, queries, first_key, .. } = self.block;
        let (elements, depth, y_row, sum_row) = if TRANSPOSED {
            let first = (first_key + row).saturating_sub(first_query); // queries before see none of the keys
            let elements = &self.elements[first * KEYS + row..queries * KEYS];
            (elements, queries - first, first_query + first, first_key + row)
        } else {
            let elements = &self.elements[row * KEYS..(row + MR) * KEYS];
            (elements, self.block.visible(row + MR - 1), first_key, row)
        };
        let (row_stride, k_stride) = if TRANSPOSED { (1, KEYS) } else { (KEYS, 1) };
        let lhs = StridedLhs { ptr: elements.as_ptr(), row_stride, k_stride };
        let y: [*const f32; NR_VECS] =
            std::array::from_fn(|v| self.y.rows(panel + v, y_row)[..depth].as_ptr().cast());
        let index = |v| (panel + v) * self.sum_rows + sum_row;
        let mut acc = [[simd.splat(0.0); NR_VECS]; MR];
        for v in 0..NR_VECS {
            let sums: &[AlignedLanes; MR] = self.sums[index(v)..].first_chunk().expect("MR rows");
            for m in 0..MR {
                acc[m][v] = simd.load(&sums[m].0);
            }
        }
        // SAFETY: there are `MR` rows (columns) of at least `depth` elements, and each `y` has as many rows.
        unsafe { microkernel(simd, lhs, depth, y, LANES, &mut acc, |_| {}) };
        for v in 0..NR_VECS {
            let sums: &mut [AlignedLanes; MR] = self.sums[index(v)..].first_chunk_mut().expect("MR rows");
            for m in 0..MR {
                simd.store(acc[m][v], &mut sums[m].0);
            }
        }
    }
}
