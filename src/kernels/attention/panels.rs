//! The layout of keys and values: panels of sixteen (see `gemm/microkernel.rs`), keys sixteen *positions*
//! wide and values sixteen *dimensions* wide, so that scores and outputs use the same microkernel as GEMM:
//!
//! ```text
//! keys   [capacity / 16, head_dim, 16]      sixteen scores at once, summed over head_dim
//! values [head_dim / 16, capacity, 16]      sixteen dimensions at once, summed over positions
//! ```
//!
//! A head's values follow its keys, and the next head follows them. Decode reads a head's keys as one
//! sequential stream, and its values as one stream per panel.

use crate::aligned_vec::AlignedVec;
use crate::elements::Element;
use crate::rows::Rows;
use crate::simd::{Kernel, LANES, Simd};
use crate::thread_pool::ThreadPool;
use std::ops::Range;

/// The largest quantized magnitude; -128 is not used, so that the range is symmetric.
const INT8_MAX: f32 = 127.0;

/// One layer's keys and values.
#[derive(Clone, Debug)]
pub(super) struct Panels<E: Element> {
    /// For each head its keys, then its values.
    data: AlignedVec<E>,
    /// The scales of keys and of values, `[n_head, capacity]` each; empty unless the elements are quantized.
    key_scales: Vec<f32>,
    value_scales: Vec<f32>,
    head_dim: usize,
    capacity: usize,
}

/// Returns the elements of one head's keys and values.
fn head_len(head_dim: usize, capacity: usize) -> usize {
    capacity * (head_dim + head_dim.next_multiple_of(LANES))
}

impl<E: Element> Panels<E> {
    pub(super) fn new(n_head: usize, head_dim: usize, capacity: usize) -> Self {
        let scales = if E::SCALED { n_head * capacity } else { 0 };
        Self {
            data: AlignedVec::zeroed(n_head * head_len(head_dim, capacity)),
            key_scales: bytemuck::zeroed_vec(scales),
            value_scales: bytemuck::zeroed_vec(scales),
            head_dim,
            capacity,
        }
    }

    pub(super) fn n_head(&self) -> usize {
        self.data.len() / head_len(self.head_dim, self.capacity)
    }

    pub(super) fn head_dim(&self) -> usize {
        self.head_dim
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn bytes(&self) -> usize {
        let scales = size_of_val(&self.key_scales[..]) + size_of_val(&self.value_scales[..]);
        size_of_val(&self.data[..]) + scales
    }

    pub(super) fn copy_from(&mut self, other: &Panels<E>, positions: usize) {
        /// Copies the first `n` elements of every chunk; the chunks of `to` and `from` have these lengths.
        fn copy<T: Copy>(to: &mut [T], from: &[T], [to_len, from_len]: [usize; 2], n: usize) {
            for (to, from) in to.chunks_mut(to_len).zip(from.chunks(from_len)) {
                to[..n].copy_from_slice(&from[..n]);
            }
        }
        let (capacities, head_dim) = ([self.capacity, other.capacity], self.head_dim);
        let head_lens = capacities.map(|capacity| head_len(head_dim, capacity));
        let key_lens = capacities.map(|capacity| capacity * head_dim);
        for (to, from) in self.data.chunks_mut(head_lens[0]).zip(other.data.chunks(head_lens[1])) {
            let whole_panels = positions.next_multiple_of(LANES);
            copy(&mut to[..key_lens[0]], &from[..key_lens[1]], key_lens, whole_panels * head_dim);
            let value_panel_lens = capacities.map(|capacity| capacity * LANES);
            copy(&mut to[key_lens[0]..], &from[key_lens[1]..], value_panel_lens, positions * LANES);
        }
        copy(&mut self.key_scales, &other.key_scales, capacities, positions);
        copy(&mut self.value_scales, &other.value_scales, capacities, positions);
    }

    pub(super) fn append(&mut self, pool: &ThreadPool, position: usize, k: Rows, v: Rows) {
        let (head_dim, capacity) = (self.head_dim, self.capacity);
        let scale = |scales: &mut [f32], x: Rows| {
            for (h, scales) in scales.chunks_mut(capacity).enumerate() {
                for t in 0..x.len() {
                    let x = &x.row(t)[h * head_dim..][..head_dim];
                    let scale = pool.isa().run(AbsMax(x)) / INT8_MAX;
                    // A subnormal scale has no finite reciprocal; the row is stored as zeros.
                    scales[position + t] = if scale < f32::MIN_POSITIVE { 0.0 } else { scale };
                }
            }
        };
        scale(&mut self.key_scales, k);
        scale(&mut self.value_scales, v);
        let (key_scales, value_scales) = (&self.key_scales[..], &self.value_scales[..]);
        pool.for_each_chunk(&mut self.data, head_len(head_dim, capacity), |h, data| {
            let [key_rows, value_rows] = [(k, key_scales), (v, value_scales)].map(|(x, scales)| {
                let scales = scales.chunks(capacity).nth(h).unwrap_or(&[]);
                HeadRows { x: x.columns(h * head_dim, head_dim), position, scales }
            });
            let (keys, values) = data.split_at_mut(capacity * head_dim);
            pool.isa().run(StoreKeys { keys, rows: key_rows });
            pool.isa().run(StoreValues { values, capacity, rows: value_rows });
        });
    }

    pub(super) fn to_f32_vecs(&self, h: usize, positions: usize) -> (Vec<f32>, Vec<f32>) {
        let dequantize = |x: E, scales: &[f32], t: usize| match scales.get(h * self.capacity + t) {
            Some(scale) => x.to_f32() * scale,
            None => x.to_f32(),
        };
        let elements = |t: usize| (0..self.head_dim).map(move |d| (t, d));
        let key = |(t, d): (usize, usize)| {
            dequantize(self.keys(h, t / LANES)[d * LANES + t % LANES], &self.key_scales, t)
        };
        let value = |(t, d): (usize, usize)| {
            dequantize(self.values(h, d / LANES, t)[d % LANES], &self.value_scales, t)
        };
        let keys = (0..positions).flat_map(elements).map(key).collect();
        (keys, (0..positions).flat_map(elements).map(value).collect())
    }

    /// Returns a panel of head `h`'s keys, positions `16 · panel..`: `[head_dim, 16]`.
    #[inline(always)]
    pub(super) fn keys(&self, h: usize, panel: usize) -> &[E] {
        let start = h * head_len(self.head_dim, self.capacity) + panel * LANES * self.head_dim;
        &self.data[start..][..self.head_dim * LANES]
    }

    /// Returns a panel of head `h`'s values, dimensions `16 · panel..`, from `position`: `[capacity -
    /// position, 16]`.
    #[inline(always)]
    pub(super) fn values(&self, h: usize, panel: usize, position: usize) -> &[E] {
        let (head, keys) = (h * head_len(self.head_dim, self.capacity), self.capacity * self.head_dim);
        let start = head + keys + (panel * self.capacity + position) * LANES;
        &self.data[start..][..(self.capacity - position) * LANES]
    }

    /// Returns the scales of head `h`'s keys at positions `16 · panel..`; for quantized elements only.
    #[inline(always)]
    pub(super) fn key_scales(&self, h: usize, panel: usize) -> &[f32; LANES] {
        let scales = &self.key_scales[h * self.capacity + panel * LANES..];
        scales.first_chunk().expect("the capacity is a multiple of sixteen")
    }

    /// Returns the scales of head `h`'s values from `position`; for quantized elements only.
    #[inline(always)]
    pub(super) fn value_scales(&self, h: usize, position: usize) -> &[f32] {
        &self.value_scales[h * self.capacity + position..(h + 1) * self.capacity]
    }
}

/// The largest magnitude of a slice; NaN if an element is NaN or infinite.
struct AbsMax<'a>(&'a [f32]);

impl Kernel for AbsMax<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let zero = simd.splat(0.0);
        let (mut max, mut zero_or_nan) = (zero, zero);
        for x in self.0.chunks(LANES) {
            let x = simd.load_partial(x);
            max = simd.max(simd.max(x, simd.sub(zero, x)), max); // ignores NaN
            zero_or_nan = simd.mul_add(x, zero, zero_or_nan);
        }
        simd.reduce_max(max) + simd.reduce_add(zero_or_nan)
    }
}

/// One head's new keys or values, `[n, head_dim]`, for the tokens from `position`, and the scales of all
/// positions, if quantized.
struct HeadRows<'a> {
    x: Rows<'a>,
    position: usize,
    scales: &'a [f32],
}

impl HeadRows<'_> {
    /// Loads sixteen elements of token `t` from `start`, zero-padded and divided by their scale.
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

    /// Calls `store` for every vector of sixteen elements of `tokens`, with the token's position, the
    /// vector's index and the converted elements.
    #[inline(always)]
    fn for_each<S: Simd, E: Element>(
        &self,
        simd: S,
        tokens: Range<usize>,
        mut store: impl FnMut(usize, usize, &[E; LANES]),
    ) {
        for t in tokens {
            for (i, start) in (0..self.x.width()).step_by(LANES).enumerate() {
                let mut converted = [E::zeroed(); LANES];
                E::store(simd, self.load::<S, E>(simd, t, start), &mut converted);
                store(self.position + t, i, &converted);
            }
        }
    }

    /// Transposes and stores sixteen tokens from `first`, `[16, head_dim]`, as `[head_dim, 16]`.
    #[inline(always)]
    fn store_transposed<S: Simd, E: Element>(&self, simd: S, first: usize, to: &mut [[E; LANES]]) {
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

/// Stores new keys in their panels.
struct StoreKeys<'a, E> {
    /// `[capacity / 16, head_dim, 16]`
    keys: &'a mut [E],
    rows: HeadRows<'a>,
}

impl<E: Element> Kernel for StoreKeys<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let head_dim = self.rows.x.width();
        let (vectors, _) = self.keys.as_chunks_mut::<LANES>();
        let end = self.rows.position + self.rows.x.len();
        let mut start = self.rows.position;
        while start < end {
            let panel = &mut vectors[start / LANES * head_dim..][..head_dim];
            let next = (start + 1).next_multiple_of(LANES).min(end);
            let tokens = start - self.rows.position..next - self.rows.position;
            if tokens.len() == LANES {
                self.rows.store_transposed(simd, tokens.start, panel);
            } else {
                // Each element of a token goes to another cache line; without prefetching, they would be
                // loaded in series.
                panel.iter().for_each(|vector| simd.prefetch(vector));
                self.rows.for_each(simd, tokens, |position, i, key: &[E; LANES]| {
                    let vectors = panel[i * LANES..].iter_mut();
                    vectors.zip(key).for_each(|(vector, &x)| vector[position % LANES] = x);
                });
            }
            start = next;
        }
    }
}

/// Stores new values in their panels.
struct StoreValues<'a, E> {
    /// `[head_dim / 16, capacity, 16]`
    values: &'a mut [E],
    capacity: usize,
    rows: HeadRows<'a>,
}

impl<E: Element> Kernel for StoreValues<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (vectors, _) = self.values.as_chunks_mut::<LANES>();
        self.rows.for_each(simd, 0..self.rows.x.len(), |position, i, value: &[E; LANES]| {
            vectors[i * self.capacity + position] = *value;
        });
    }
}
