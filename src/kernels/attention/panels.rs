//! Where keys and values lie: in panels of sixteen (see [`tile`](crate::kernels::tile)), the keys sixteen *positions* wide
//! and the values sixteen *dimensions* wide, so that scores and mixtures are the same inner loop as a linear layer:
//!
//! ```text
//! keys   [capacity / 16, head_dim, 16]      score of 16 positions at once, summed over head_dim
//! values [head_dim / 16, capacity, 16]      16 dimensions at once, summed over positions
//! ```
//!
//! A head's values follow its keys, and the next head follows them: decode reads front to back.

use super::aligned::Aligned;
use crate::kernels::elements::Element;
use crate::kernels::rows::Rows;
use crate::kernels::simd::{Kernel, LANES, Simd};
use crate::kernels::threads::Team;
use std::ops::Range;

/// The largest number in eight bits.
const MOST: f32 = 127.0;

/// A layer's keys and values.
#[derive(Clone, Debug)]
pub(super) struct Panels<E: Element> {
    /// Head by head, its keys and then its values.
    numbers: Aligned<E>,
    /// The scales of keys and of values, `[n_head, capacity]` each; none where numbers are stored as they are.
    key_scales: Vec<f32>,
    value_scales: Vec<f32>,
    head_dim: usize,
    capacity: usize,
}

/// Elements of a head's keys and values.
fn of_head(head_dim: usize, capacity: usize) -> usize {
    capacity * (head_dim + head_dim.next_multiple_of(LANES))
}

impl<E: Element> Panels<E> {
    pub(super) fn new(n_head: usize, head_dim: usize, capacity: usize) -> Self {
        let scales = if E::SCALED { n_head * capacity } else { 0 };
        Self {
            numbers: Aligned::zeroed(n_head * of_head(head_dim, capacity)),
            key_scales: bytemuck::zeroed_vec(scales),
            value_scales: bytemuck::zeroed_vec(scales),
            head_dim,
            capacity,
        }
    }

    pub(super) fn n_head(&self) -> usize {
        self.numbers.len() / of_head(self.head_dim, self.capacity)
    }

    pub(super) fn head_dim(&self) -> usize {
        self.head_dim
    }

    pub(super) fn bytes(&self) -> usize {
        let scales = size_of_val(&self.key_scales[..]) + size_of_val(&self.value_scales[..]);
        size_of_val(&self.numbers[..]) + scales
    }

    pub(super) fn copy_from(&mut self, other: &Panels<E>, positions: usize) {
        /// The first `n` elements of every stretch.
        fn copy<T: Copy>(to: &mut [T], from: &[T], [mine, theirs]: [usize; 2], n: usize) {
            for (to, from) in to.chunks_mut(mine).zip(from.chunks(theirs)) {
                to[..n].copy_from_slice(&from[..n]);
            }
        }
        let (capacities, head_dim) = ([self.capacity, other.capacity], self.head_dim);
        let of_head = capacities.map(|capacity| of_head(head_dim, capacity));
        let keys = capacities.map(|capacity| capacity * head_dim);
        for (to, from) in self.numbers.chunks_mut(of_head[0]).zip(other.numbers.chunks(of_head[1])) {
            let whole_panels = positions.next_multiple_of(LANES);
            copy(&mut to[..keys[0]], &from[..keys[1]], keys, whole_panels * head_dim);
            let of_panel = capacities.map(|capacity| capacity * LANES);
            copy(&mut to[keys[0]..], &from[keys[1]..], of_panel, positions * LANES);
        }
        copy(&mut self.key_scales, &other.key_scales, capacities, positions);
        copy(&mut self.value_scales, &other.value_scales, capacities, positions);
    }

    pub(super) fn append(&mut self, team: &Team, position: usize, k: Rows, v: Rows) {
        let (head_dim, capacity) = (self.head_dim, self.capacity);
        let scale = |scales: &mut [f32], x: Rows| {
            for (h, scales) in scales.chunks_mut(capacity).enumerate() {
                for t in 0..x.len() {
                    let x = &x.row(t)[h * head_dim..][..head_dim];
                    let scale = team.isa().run(Largest(x)) / MOST;
                    // What is smaller has no reciprocal, and is nothing.
                    scales[position + t] = if scale < f32::MIN_POSITIVE { 0.0 } else { scale };
                }
            }
        };
        scale(&mut self.key_scales, k);
        scale(&mut self.value_scales, v);
        let (key_scales, value_scales) = (&self.key_scales[..], &self.value_scales[..]);
        team.for_each_piece(&mut self.numbers, of_head(head_dim, capacity), |h, numbers| {
            let [of_keys, of_values] = [(k, key_scales), (v, value_scales)].map(|(x, scales)| {
                let scales = scales.chunks(capacity).nth(h).unwrap_or(&[]);
                OfHead { x: x.columns(h * head_dim, head_dim), position, scales }
            });
            let (keys, values) = numbers.split_at_mut(capacity * head_dim);
            team.isa().run(StoreKeys { keys, of: of_keys });
            team.isa().run(StoreValues { values, capacity, of: of_values });
        });
    }

    pub(super) fn stored(&self, h: usize, positions: usize) -> (Vec<f32>, Vec<f32>) {
        let widened = |x: E, scales: &[f32], at: usize| match scales.get(h * self.capacity + at) {
            Some(scale) => x.to_f32() * scale,
            None => x.to_f32(),
        };
        let every = |at: usize| (0..self.head_dim).map(move |d| (at, d));
        let key = |(at, d): (usize, usize)| {
            widened(self.keys(h, at / LANES)[d * LANES + at % LANES], &self.key_scales, at)
        };
        let value = |(at, d): (usize, usize)| {
            widened(self.values(h, d / LANES, at)[d % LANES], &self.value_scales, at)
        };
        let keys = (0..positions).flat_map(every).map(key).collect();
        (keys, (0..positions).flat_map(every).map(value).collect())
    }

    /// The panel of head `h`'s keys for positions `16 · panel..`: `[head_dim, 16]`.
    #[inline(always)]
    pub(super) fn keys(&self, h: usize, panel: usize) -> &[E] {
        let start = h * of_head(self.head_dim, self.capacity) + panel * LANES * self.head_dim;
        &self.numbers[start..][..self.head_dim * LANES]
    }

    /// The panel of head `h`'s values for dimensions `16 · panel..`, the positions from `position`:
    /// `[capacity - position, 16]`.
    #[inline(always)]
    pub(super) fn values(&self, h: usize, panel: usize, position: usize) -> &[E] {
        let (head, keys) = (h * of_head(self.head_dim, self.capacity), self.capacity * self.head_dim);
        let start = head + keys + (panel * self.capacity + position) * LANES;
        &self.numbers[start..][..(self.capacity - position) * LANES]
    }

    /// What head `h`'s keys of positions `16 · panel..` are multiples of; only where they are.
    #[inline(always)]
    pub(super) fn key_scales(&self, h: usize, panel: usize) -> &[f32; LANES] {
        let scales = &self.key_scales[h * self.capacity + panel * LANES..];
        scales.first_chunk().expect("the capacity is a multiple of sixteen")
    }

    /// What head `h`'s values of the positions from `position` are multiples of; only where they are.
    #[inline(always)]
    pub(super) fn value_scales(&self, h: usize, position: usize) -> &[f32] {
        &self.value_scales[h * self.capacity + position..(h + 1) * self.capacity]
    }
}

/// The largest of some numbers, without their signs.
struct Largest<'a>(&'a [f32]);

impl Kernel for Largest<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let zero = simd.splat(0.0);
        let mut largest = zero;
        for x in self.0.chunks(LANES) {
            let x = simd.load_partial(x);
            largest = simd.max(simd.max(x, simd.sub(zero, x)), largest); // whatever is not a number is passed over
        }
        simd.reduce_max(largest)
    }
}

/// One head's keys or values, `[n, head_dim]`, of tokens from `position`, and the scales of all positions, if any.
struct OfHead<'a> {
    x: Rows<'a>,
    position: usize,
    scales: &'a [f32],
}

impl OfHead<'_> {
    /// Sixteen numbers of token `t`, the missing ones zero, as they are before they are stored.
    #[inline(always)]
    fn load<S: Simd, E: Element>(&self, simd: S, t: usize, start: usize) -> S::F32s {
        let row = &self.x.row(t)[start..];
        let x = simd.load_partial(&row[..row.len().min(LANES)]);
        if !E::SCALED {
            return x;
        }
        match self.scales[self.position + t] {
            0.0 => x,
            scale => simd.mul(x, simd.splat(1.0 / scale)),
        }
    }

    /// Calls `store` with the position of every one of `tokens`, the number of a sixteen of its numbers, and these as they
    /// are stored.
    #[inline(always)]
    fn for_each<S: Simd, E: Element>(
        &self,
        simd: S,
        tokens: Range<usize>,
        mut store: impl FnMut(usize, usize, &[E; LANES]),
    ) {
        for t in tokens {
            for (i, start) in (0..self.x.width()).step_by(LANES).enumerate() {
                let mut stored = [E::zeroed(); LANES];
                E::store(simd, self.load::<S, E>(simd, t, start), &mut stored);
                store(self.position + t, i, &stored);
            }
        }
    }

    /// Stores sixteen tokens from `first`, `[16, head_dim]`, as `[head_dim, 16]`.
    #[inline(always)]
    fn store_columns<S: Simd, E: Element>(&self, simd: S, first: usize, to: &mut [[E; LANES]]) {
        for (i, to) in to.chunks_mut(LANES).enumerate() {
            let mut rows = [simd.splat(0.0); LANES];
            for m in 0..LANES {
                rows[m] = self.load::<S, E>(simd, first + m, i * LANES);
            }
            let columns = simd.transpose(rows);
            for d in 0..to.len() {
                E::store(simd, columns[d], &mut to[d]);
            }
        }
    }
}

/// Puts keys into their panels.
struct StoreKeys<'a, E> {
    /// `[capacity / 16, head_dim, 16]`
    keys: &'a mut [E],
    of: OfHead<'a>,
}

impl<E: Element> Kernel for StoreKeys<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let head_dim = self.of.x.width();
        let (rows, _) = self.keys.as_chunks_mut::<LANES>();
        let end = self.of.position + self.of.x.len();
        let mut start = self.of.position;
        while start < end {
            let panel = &mut rows[start / LANES * head_dim..][..head_dim];
            let next = (start + 1).next_multiple_of(LANES).min(end);
            let tokens = start - self.of.position..next - self.of.position;
            if tokens.len() == LANES {
                self.of.store_columns(simd, tokens.start, panel);
            } else {
                // A token's numbers go to as many cache lines, which would otherwise arrive one after the other.
                panel.iter().for_each(|row| simd.prefetch(row));
                self.of.for_each(simd, tokens, |at, i, stored: &[E; LANES]| {
                    let rows = panel[i * LANES..].iter_mut();
                    rows.zip(stored).for_each(|(row, &x)| row[at % LANES] = x);
                });
            }
            start = next;
        }
    }
}

/// Puts values into theirs.
struct StoreValues<'a, E> {
    /// `[head_dim / 16, capacity, 16]`
    values: &'a mut [E],
    capacity: usize,
    of: OfHead<'a>,
}

impl<E: Element> Kernel for StoreValues<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (rows, _) = self.values.as_chunks_mut::<LANES>();
        let tokens = 0..self.of.x.len();
        self.of.for_each(simd, tokens, |at, i, stored: &[E; LANES]| rows[i * self.capacity + at] = *stored);
    }
}
