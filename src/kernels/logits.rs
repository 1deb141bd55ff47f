//! LM head: the dot products of a token's final vector with every row of the vocabulary's table.
//!
//! ```text
//! logits[t, v] = Σ_k x[t, k] · wte[v, k]
//! ```
//!
//! GPT-2 ties its LM head to the token embedding, `[vocab_size, n_embd]`, so the sum is a dot product *along*
//! a row of the table, whereas that of a linear layer runs down a column. With one accumulator, each
//! multiply-add would wait for the previous one; with one per lane of a register, the result would depend on
//! the vector width. Every ISA therefore uses sixteen accumulators, lane i for k = i, i + 16, …, reduced at
//! the end by one fixed tree.
//!
//! At 2 · n_embd · vocab_size FLOPs per token, the LM head is a third of GPT-2 small's FLOPs, so it is
//! computed only for the tokens whose logits are requested.

use super::elements::{Element, Elements, load_partial};
use super::gemm::blocking::{block_range, with_mr};
use super::gemm::microkernel::{VectorLhs, microkernel};
use super::linear::Matrix;
use super::rows::{DisjointRows, Rows, RowsMut};
use super::simd::{Kernel, LANES, Simd};
use super::thread_pool::ThreadPool;

/// Table rows per chunk of work. They stay in the L2 cache while all blocks of tokens are multiplied with
/// them.
const ROWS_PER_CHUNK: usize = 64;
/// The token count up to which all tokens' vectors fit in the L1 cache beside a table row and form one block.
/// Larger batches are split into blocks of as many tokens as fit in registers.
const MAX_L1_TOKENS: usize = 8;
/// Prefetch distance of the table, in bytes, for wide vectors or few tokens.
const PREFETCH_DISTANCE_BYTES: usize = 16 << 10;

/// The formula in f64 for one token: `x` is `[n_embd]`, the result `[vocab_size]`.
pub fn reference(x: &[f32], table: Matrix) -> Vec<f32> {
    let logit =
        |v| -> f64 { x.iter().enumerate().map(|(k, &x)| f64::from(x) * f64::from(table.weight(v, k))).sum() };
    (0..table.rows).map(|v| logit(v) as f32).collect()
}

/// Computes the logits `y`, `[n, vocab_size]`, of `x`, `[n, n_embd]`, for `table`, `[vocab_size, n_embd]`.
pub fn logits(pool: &ThreadPool, x: Rows, table: Matrix, mut y: RowsMut) {
    assert_eq!((x.width(), x.len()), (table.columns, y.len()), "x is [n, n_embd]");
    assert_eq!(y.width(), table.rows, "y is [n, vocab_size]");
    match table.elements {
        Elements::F32(e) => logits_for_elements(pool, x, e, &mut y),
        Elements::F16(e) => logits_for_elements(pool, x, e, &mut y),
        Elements::Bf16(e) => logits_for_elements(pool, x, e, &mut y),
    }
}

fn logits_for_elements<E: Element>(pool: &ThreadPool, x: Rows, table: &[E], y: &mut RowsMut) {
    let (tokens, vocab_size, isa) = (x.len(), y.width(), pool.isa());
    let y = y.as_disjoint();
    pool.run(vocab_size.div_ceil(ROWS_PER_CHUNK), |i| {
        let start = i * ROWS_PER_CHUNK;
        let rows = ROWS_PER_CHUNK.min(vocab_size - start);
        let max_tokens = if tokens <= MAX_L1_TOKENS { MAX_L1_TOKENS } else { dot_mr(isa.is_wide()) };
        for t in (0..tokens).step_by(max_tokens) {
            let n = max_tokens.min(tokens - t);
            isa.run(LogitBlock { x, table, y: &y, start, rows, t, n });
        }
    });
}

/// MR, the maximum tokens of a register tile: with three table rows on 32 registers, with two on 16.
const fn dot_mr(wide: bool) -> usize {
    if wide { 8 } else { 3 }
}

/// Whether [`LogitBlock`] uses register tiles of `mr` tokens and `nr` rows: those of its `run`, and single
/// rows.
const fn is_used(wide: bool, mr: usize, nr: usize) -> bool {
    match (wide, nr) {
        (_, 1) => mr <= dot_mr(wide),
        (true, 8) | (false, 4) => mr == 1,
        (true, 4) => mr == 2 || mr == 3,
        (true, 3) => mr >= 4 && mr <= dot_mr(true),
        (false, 2) => mr == 2 || mr == 3,
        _ => false,
    }
}

/// The logits of `n` tokens from `t` for `rows` rows of the table from `start`.
#[derive(Clone, Copy)]
struct LogitBlock<'a, E> {
    x: Rows<'a>,
    table: &'a [E],
    y: &'a DisjointRows<'a>,
    start: usize,
    rows: usize,
    t: usize,
    n: usize,
}

impl<E: Element> Kernel for LogitBlock<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // Several tokens reuse each loaded row; a single token processes more rows at once instead.
        let done = if S::WIDE {
            match self.n {
                1 => self.row_groups::<S, 8>(simd),
                2 | 3 => self.row_groups::<S, 4>(simd),
                _ => self.row_groups::<S, 3>(simd),
            }
        } else {
            match self.n {
                1 => self.row_groups::<S, 4>(simd),
                _ => self.row_groups::<S, 2>(simd),
            }
        };
        for row in done..self.rows {
            self.row_group::<S, 1>(simd, self.start + row);
        }
    }
}

impl<E: Element> LogitBlock<'_, E> {
    /// Processes as many table rows as there are in whole groups of `NR`, and returns their number.
    #[inline(always)]
    fn row_groups<S: Simd, const NR: usize>(&self, simd: S) -> usize {
        let end = self.rows / NR * NR;
        for row in (0..end).step_by(NR) {
            self.row_group::<S, NR>(simd, self.start + row);
        }
        end
    }

    /// Processes `NR` rows for all tokens, in register tiles. The first tile loads the rows from memory, and
    /// the others find them in the cache.
    #[inline(always)]
    fn row_group<S: Simd, const NR: usize>(&self, simd: S, row: usize) {
        let max = dot_mr(S::WIDE);
        for i in 0..self.n.div_ceil(max) {
            let (t, n) = block_range(self.n, max, i);
            if S::WIDE || i == 0 && self.x.len() <= MAX_L1_TOKENS {
                with_mr!(n, MR => self.tile::<S, MR, NR, true>(simd, row, self.t + t));
            } else {
                with_mr!(n, MR => self.tile::<S, MR, NR, false>(simd, row, self.t + t));
            }
        }
    }

    /// Computes the dot products of `MR` tokens and `NR` table rows.
    #[inline(always)]
    fn tile<S: Simd, const MR: usize, const NR: usize, const PREFETCH: bool>(
        &self,
        simd: S,
        row: usize,
        t: usize,
    ) {
        if const { !is_used(S::WIDE, MR, NR) } {
            unreachable!("a register tile of {MR} tokens and {NR} rows");
        }
        let width = self.x.width();
        let rows: [&[E]; NR] = std::array::from_fn(|r| &self.table[(row + r) * width..][..width]);
        let xs: [&[f32]; MR] = std::array::from_fn(|m| self.x.row(t + m));
        let prefetch = |k: usize| {
            if PREFETCH && (k * size_of::<[E; LANES]>()).is_multiple_of(64) {
                for row in rows {
                    let distance = PREFETCH_DISTANCE_BYTES / size_of::<E>();
                    simd.prefetch(row.as_ptr().wrapping_add(k * LANES + distance));
                }
            }
        };
        let mut acc = [[simd.splat(0.0); NR]; MR];
        let (lhs, panels) = (VectorLhs(xs.map(<[f32]>::as_ptr)), rows.map(<[E]>::as_ptr));
        // SAFETY: the rows of the table and of `x` have `width` elements.
        unsafe { microkernel(simd, lhs, width / LANES, panels, LANES, &mut acc, prefetch) };
        let tail = width / LANES * LANES;
        if tail < width {
            for m in 0..MR {
                let x = simd.load_partial(&xs[m][tail..]);
                for r in 0..NR {
                    acc[m][r] = simd.mul_add(x, load_partial(simd, &rows[r][tail..]), acc[m][r]);
                }
            }
        }
        for m in 0..MR {
            // SAFETY: only this chunk of work writes the logits of these table rows.
            let y = unsafe { self.y.row_slice(t + m, row, NR) };
            for r in 0..NR {
                y[r] = simd.reduce_add(acc[m][r]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::{assert_close, random_values};
    use half::{bf16, f16};

    #[test]
    fn logits_match_reference_with_identical_bits_on_every_isa_and_thread_count() {
        for (width, vocab) in [(8, 5), (16, 130), (20, 33), (48, 17), (100, 300), (256, 40)] {
            for n in [1, 2, 3, 4, 5, 8, 9] {
                let (x, table) = (random_values(1, n * width), random_values(2, vocab * width));
                let f16s: Vec<f16> = table.iter().map(|&w| f16::from_f32(w)).collect();
                let bf16s: Vec<bf16> = table.iter().map(|&w| bf16::from_f32(w)).collect();
                for elements in [Elements::F32(&table), Elements::F16(&f16s), Elements::Bf16(&bf16s)] {
                    let table = Matrix::new(elements, vocab, width);
                    let run = |threads, isa, x: &[f32]| {
                        let mut y = vec![0.0; x.len() / width * vocab];
                        let (x, y_rows) = (Rows::dense(x, width), RowsMut::dense(&mut y, vocab));
                        logits(&ThreadPool::new(threads, isa), x, table, y_rows);
                        y
                    };
                    let one_by_one: Vec<f32> =
                        x.chunks(width).flat_map(|x| run(1, Isa::Portable, x)).collect();
                    let expected: Vec<f32> = x.chunks(width).flat_map(|x| reference(x, table)).collect();
                    assert_close(&one_by_one, &expected, 2e-5);
                    for (isa, threads) in Isa::available().into_iter().flat_map(|isa| [(isa, 1), (isa, 2)]) {
                        let y = run(threads, isa, &x);
                        assert_eq!(y, one_by_one, "{width} x {vocab}, {n} tokens, {isa}, {threads} threads");
                    }
                }
            }
        }
    }
}
