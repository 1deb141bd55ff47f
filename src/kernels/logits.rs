//! The head: how well does a token's final vector match each row of the vocabulary's table?
//!
//! ```text
//! logits[t, v] = Σ_k x[t, k] · wte[v, k]
//! ```
//!
//! GPT-2 ties its head to the token embedding, `[vocab_size, n_embd]`, so the sum runs *along* a row of the table, a
//! dot product, where a linear layer's runs down a column. A dot product kept in one number would wait for every
//! multiply-add to finish before the next; kept in as many as a register holds it would depend on the register. So it
//! has sixteen partial sums on every machine, lane i taking k = i, i + 16, …, folded at the end by one fixed tree.
//!
//! At 2 · n_embd · vocab_size operations the head is a third of GPT-2's work for a token, so it is computed only for
//! tokens whose logits are wanted.

use super::elements::{Element, Elements, load_partial};
use super::linear::Matrix;
use super::microkernel::{block_range, with_mr};
use super::rows::{DisjointRows, Rows, RowsMut};
use super::simd::{Kernel, LANES, Simd};
use super::thread_pool::ThreadPool;

/// Table rows in one piece of work. The second-level cache holds them while all bands of tokens pass over them.
const PIECE: usize = 64;
/// The most tokens that meet a row of the table together: their vectors fit in the first-level cache beside it. Of more
/// tokens, as many as registers can hold take all rows of a piece before the next do.
const FEW: usize = 8;
/// How many bytes ahead the table is asked for, where vectors are wide or tokens few.
const AHEAD: usize = 16 << 10;

/// The formula with its sixteen partial sums, for one token and one row of the table.
pub fn reference(x: &[f32], row: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for (k, (x, w)) in x.iter().zip(row).enumerate() {
        lanes[k % LANES] = x.mul_add(*w, lanes[k % LANES]);
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    lanes[0]
}

/// The fast form: `x` is `[n, n_embd]`, `table` `[vocab_size, n_embd]`, `y` `[n, vocab_size]`.
pub fn logits(pool: &ThreadPool, x: Rows, table: Matrix, mut y: RowsMut) {
    assert_eq!((x.width(), x.len()), (table.columns, y.len()), "x is [n, n_embd]");
    assert_eq!(y.width(), table.rows, "y is [n, vocab_size]");
    match table.elements {
        Elements::F32(e) => of_elements(pool, x, e, &mut y),
        Elements::F16(e) => of_elements(pool, x, e, &mut y),
        Elements::Bf16(e) => of_elements(pool, x, e, &mut y),
    }
}

fn of_elements<E: Element>(pool: &ThreadPool, x: Rows, table: &[E], y: &mut RowsMut) {
    let (tokens, vocab_size, isa) = (x.len(), y.width(), pool.isa());
    let y = y.as_disjoint();
    pool.run(vocab_size.div_ceil(PIECE), |i| {
        let start = i * PIECE;
        let most = if tokens <= FEW { FEW } else { dot_tokens(isa.is_wide()) };
        for t in (0..tokens).step_by(most) {
            let n = most.min(tokens - t);
            isa.run(Band { x, table, y: &y, start, rows: PIECE.min(vocab_size - start), t, n });
        }
    });
}

/// The most tokens whose sums with three rows (with two, where registers are few) stay in registers.
const fn dot_tokens(wide: bool) -> usize {
    if wide { 8 } else { 3 }
}

/// The logits of `n` tokens from `t` for `rows` rows of the table from `start`.
#[derive(Clone, Copy)]
struct Band<'a, E> {
    x: Rows<'a>,
    table: &'a [E],
    y: &'a DisjointRows<'a>,
    start: usize,
    rows: usize,
    t: usize,
    n: usize,
}

impl<E: Element> Kernel for Band<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // Several tokens share each row they load; one token alone takes more rows at once instead.
        match (S::WIDE, self.n) {
            (true, 1) => self.rows::<S, 8>(simd),
            (true, 2 | 3) | (false, 1) => self.rows::<S, 4>(simd),
            (true, _) => self.rows::<S, 3>(simd),
            (false, _) => self.rows::<S, 2>(simd),
        }
    }
}

impl<E: Element> Band<'_, E> {
    /// All rows, `R` at a time.
    #[inline(always)]
    fn rows<S: Simd, const R: usize>(&self, simd: S) {
        let whole = self.rows / R * R;
        for row in (0..whole).step_by(R) {
            self.tiles::<S, R>(simd, self.start + row);
        }
        for row in whole..self.rows {
            self.tiles::<S, 1>(simd, self.start + row);
        }
    }

    /// `R` rows for all tokens, as many at a time as registers can hold: the rows have come from memory once when the
    /// others meet them.
    #[inline(always)]
    fn tiles<S: Simd, const R: usize>(&self, simd: S, row: usize) {
        let most = dot_tokens(S::WIDE);
        for i in 0..self.n.div_ceil(most) {
            let (t, n) = block_range(self.n, most, i);
            // The first tile is the one that would wait for memory.
            if i == 0 && (S::WIDE || self.x.len() <= FEW) {
                with_mr!(n, M => self.dots::<S, M, R, true>(simd, row, self.t + t));
            } else {
                with_mr!(n, M => self.dots::<S, M, R, false>(simd, row, self.t + t));
            }
        }
    }

    #[inline(always)]
    fn dots<S: Simd, const M: usize, const R: usize, const ASKS: bool>(&self, simd: S, row: usize, t: usize) {
        if const { M * R > if S::WIDE { 24 } else { 6 } } {
            unreachable!("{M} tokens and {R} rows");
        }
        let width = self.x.width();
        let rows: [&[E]; R] = std::array::from_fn(|r| &self.table[(row + r) * width..][..width]);
        let xs: [&[f32]; M] = std::array::from_fn(|m| self.x.row(t + m));
        let mut acc = [[simd.splat(0.0); M]; R];
        for k in (0..width / LANES * LANES).step_by(LANES) {
            let mut w = [simd.splat(0.0); R];
            for r in 0..R {
                if ASKS && (k * size_of::<E>()).is_multiple_of(64) {
                    simd.prefetch(rows[r].as_ptr().wrapping_add(k + AHEAD / size_of::<E>()));
                }
                // SAFETY: every row of the table is `width` long, and `k + LANES <= width`.
                w[r] = E::load(simd, unsafe { &*rows[r].as_ptr().add(k).cast::<[E; LANES]>() });
            }
            for m in 0..M {
                // SAFETY: as above, for the rows of `x`.
                let x = simd.load(unsafe { &*xs[m].as_ptr().add(k).cast::<[f32; LANES]>() });
                for r in 0..R {
                    acc[r][m] = simd.mul_add(x, w[r], acc[r][m]);
                }
            }
        }
        let tail = width / LANES * LANES;
        if tail < width {
            for m in 0..M {
                let x = simd.load_partial(&xs[m][tail..]);
                for r in 0..R {
                    acc[r][m] = simd.mul_add(x, load_partial(simd, &rows[r][tail..]), acc[r][m]);
                }
            }
        }
        for m in 0..M {
            // SAFETY: these rows of the table are this band's own, and so are their logits.
            let y = unsafe { self.y.row_slice(t + m, row, R) };
            for r in 0..R {
                y[r] = simd.reduce_add(acc[r][m]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::isa::Isa;
    use crate::kernels::testing::random_values;
    use half::{bf16, f16};

    #[test]
    fn fast_form_equals_the_textbook_bit_for_bit() {
        for (width, vocab) in [(8, 5), (16, 130), (20, 33), (48, 17), (100, 300), (256, 40)] {
            for n in [1, 2, 3, 4, 5, 8, 9] {
                let (x, table) = (random_values(1, n * width), random_values(2, vocab * width));
                let f16s: Vec<f16> = table.iter().map(|&w| f16::from_f32(w)).collect();
                let bf16s: Vec<bf16> = table.iter().map(|&w| bf16::from_f32(w)).collect();
                let widened = [
                    table.clone(),
                    f16s.iter().map(|w| w.to_f32()).collect(),
                    bf16s.iter().map(|w| w.to_f32()).collect(),
                ];
                let stored = [Elements::F32(&table), Elements::F16(&f16s), Elements::Bf16(&bf16s)];
                for (elements, wide) in stored.into_iter().zip(widened) {
                    let expected: Vec<f32> = x
                        .chunks(width)
                        .flat_map(|x| wide.chunks(width).map(move |row| reference(x, row)))
                        .collect();
                    for (isa, threads) in Isa::available().into_iter().flat_map(|isa| [(isa, 1), (isa, 2)]) {
                        let mut y = vec![0.0; n * vocab];
                        let rows = Rows::dense(&x, width);
                        let matrix = Matrix::new(elements, vocab, width);
                        logits(&ThreadPool::new(threads, isa), rows, matrix, RowsMut::dense(&mut y, vocab));
                        assert_eq!(y, expected, "{width} x {vocab}, {n} tokens, {isa}");
                    }
                }
            }
        }
    }
}
