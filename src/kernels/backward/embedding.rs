//! Backward of the [embedding](crate::embedding): a row of the table receives the sum of the gradients of all
//! tokens that have read it. The same holds for the table of positions.
//!
//! ```text
//! x[t]       = table[id[t]]
//! dtable[id] = Σ_{t: id[t] = id} dx[t]
//! ```
//!
//! Tokens are sorted by id, stably, so that a row is summed by one thread in the order of the tokens: without
//! the sort, the sum would depend on which thread comes first. n_tokens · n_embd additions.

use crate::rows::Rows;
use crate::simd::{Kernel, LANES, Simd};
use crate::thread_pool::{DisjointSlice, ThreadPool};

/// The formula: `dx` is `[n_tokens, n_embd]`, the result `[rows, n_embd]`.
pub fn reference(ids: &[u32], dx: &[f64], n_embd: usize, rows: usize) -> Vec<f64> {
    let mut dtable = vec![0.0; rows * n_embd];
    for (&id, dx) in ids.iter().zip(dx.chunks(n_embd)) {
        let row = &mut dtable[id as usize * n_embd..][..n_embd];
        row.iter_mut().zip(dx).for_each(|(sum, dx)| *sum += dx);
    }
    dtable
}

/// Adds the gradients of the tokens, `dx`, to the rows `ids` of `dtable`, `[rows, n_embd]`: token ids for
/// wte, positions for wpe. Panics if the shapes do not match or an id is not in the table.
pub fn embedding(pool: &ThreadPool, ids: &[u32], dx: Rows, dtable: &mut [f32]) {
    let width = dx.width();
    assert_eq!(ids.len(), dx.len(), "every token has an id");
    let mut tokens: Vec<usize> = (0..ids.len()).collect();
    tokens.sort_by_key(|&t| ids[t]); // stable
    let dtable = DisjointSlice::new(dtable);
    let by_id: Vec<&[usize]> = tokens.chunk_by(|&a, &b| ids[a] == ids[b]).collect();
    pool.run(by_id.len(), |i| {
        let id = ids[by_id[i][0]] as usize;
        // SAFETY: only this chunk of work writes the row of this id.
        let row = unsafe { dtable.slice(id * width..(id + 1) * width) };
        pool.isa().run(AddRows { dx, tokens: by_id[i], row });
    });
}

/// Adds some rows of `dx` to `row`.
struct AddRows<'a> {
    dx: Rows<'a>,
    tokens: &'a [usize],
    row: &'a mut [f32],
}

impl Kernel for AddRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for &t in self.tokens {
            for (dx, sum) in self.dx.row(t).chunks(LANES).zip(self.row.chunks_mut(LANES)) {
                simd.store_partial(simd.add(simd.load_partial(sum), simd.load_partial(dx)), sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_gradient, assert_relative, assert_same_bits, random_values, to_f64};

    #[test]
    fn reference_is_the_derivative_of_the_lookup() {
        let (ids, table, dx) = ([2, 0, 2, 4, 2], random_values(1, 5 * 3), random_values(2, 5 * 3));
        let (table, dx) = (to_f64(&table), to_f64(&dx));
        let loss = |table: &[f64]| -> f64 {
            let row = |(&id, dx): (&u32, &[f64])| -> f64 {
                table[id as usize * 3..][..3].iter().zip(dx).map(|(x, dx)| x * dx).sum()
            };
            ids.iter().zip(dx.chunks(3)).map(row).sum()
        };
        assert_gradient(loss, &table, &reference(&ids, &dx, 3, 5));
    }

    #[test]
    fn gradient_matches_reference_with_identical_bits_on_every_isa_and_thread_count() {
        for (n, width, rows) in [(0, 4, 3), (1, 1, 1), (7, 20, 5), (200, 33, 11), (300, 16, 1000)] {
            let ids: Vec<u32> = (0..n as u32).map(|t| t * t * 31 % rows as u32).collect();
            let (dx, before) = (random_values(1, n * width), random_values(2, rows * width));
            let found = assert_same_bits(|pool| {
                let mut dtable = before.clone();
                embedding(pool, &ids, Rows::dense(&dx, width), &mut dtable);
                dtable
            });
            let mut expected = reference(&ids, &to_f64(&dx), width, rows);
            expected.iter_mut().zip(&before).for_each(|(sum, &before)| *sum += f64::from(before));
            assert_relative(&found, &expected, 1e-6);
        }
    }
}
