//! Where a layer's keys and values lie.
//!
//! Both are kept in panels of sixteen (see [`tile`](super::super::tile)), the keys sixteen *positions* wide and the
//! values sixteen *dimensions* wide, so that scores and mixtures are the same inner loop as a linear layer:
//!
//! ```text
//! keys   [n_head, capacity / 16, head_dim, 16]      score of 16 positions at once, summed over head_dim
//! values [n_head, head_dim / 16, capacity, 16]      16 dimensions at once, summed over positions
//! ```
//!
//! In decode both are read front to back. 2 · n_embd numbers a position: 6 KiB for GPT-2 in f32, 3 KiB in f16, 1.6 KiB in
//! int8. There every head's key, and every head's value, is rounded to multiples of a scale of its own, its largest
//! number / 127: what a token leaves behind does not depend on its neighbours.

use super::aligned::Aligned;
use crate::kernels::elements::Element;
use crate::kernels::rows::Rows;
use crate::kernels::simd::{Kernel, LANES, Simd};
use crate::kernels::threads::Team;
use half::f16;
use std::fmt;

/// The capacity is a multiple of it: kernels may read whole panels, pairs of them and blocks of so many positions without
/// asking where the past ends.
pub(super) const BLOCK: usize = 64;
/// The largest number in eight bits.
const MOST: f32 = 127.0;

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvPrecision {
    /// As computed.
    F32,
    /// Rounded to binary16: half the memory, and half the time at long contexts.
    F16,
    /// Rounded to eight bits, each head's key and value with a scale of its own: a quarter of the memory.
    Int8,
}

impl KvPrecision {
    /// All there are.
    pub const ALL: [KvPrecision; 3] = [KvPrecision::F32, KvPrecision::F16, KvPrecision::Int8];

    /// As a user types it.
    pub fn name(self) -> &'static str {
        match self {
            KvPrecision::F32 => "f32",
            KvPrecision::F16 => "f16",
            KvPrecision::Int8 => "int8",
        }
    }

    /// Bytes of one head's key and value, scales included.
    pub fn bytes(self, head_dim: usize) -> usize {
        match self {
            KvPrecision::F32 => 2 * head_dim * size_of::<f32>(),
            KvPrecision::F16 => 2 * head_dim * size_of::<f16>(),
            KvPrecision::Int8 => 2 * (head_dim + size_of::<f32>()),
        }
    }
}

impl fmt::Display for KvPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The keys and values of one layer of one sequence.
#[derive(Clone, Debug)]
pub struct KeyValues {
    n_head: usize,
    head_dim: usize,
    capacity: usize,
    pub(super) store: Store,
}

#[derive(Clone, Debug)]
pub(super) enum Store {
    F32(Panels<f32>),
    F16(Panels<f16>),
    Int8(Panels<i8>),
}

/// Runs `$call` with `$panels` as the store's panels, whatever they are made of.
macro_rules! with_panels {
    ($store:expr, $panels:ident => $call:expr) => {
        match $store {
            Store::F32($panels) => $call,
            Store::F16($panels) => $call,
            Store::Int8($panels) => $call,
        }
    };
}
pub(super) use with_panels;

#[derive(Clone, Debug)]
pub(super) struct Panels<E: Element> {
    keys: Aligned<E>,
    values: Aligned<E>,
    /// The scales of keys and of values, `[n_head, capacity]` each; none where numbers are stored as they are.
    key_scales: Vec<f32>,
    value_scales: Vec<f32>,
    head_dim: usize,
    capacity: usize,
}

impl KeyValues {
    /// Room for at least `positions` tokens.
    pub fn new(n_head: usize, head_dim: usize, positions: usize, precision: KvPrecision) -> Self {
        let capacity = positions.next_multiple_of(BLOCK);
        let store = match precision {
            KvPrecision::F32 => Store::F32(Panels::new(n_head, head_dim, capacity)),
            KvPrecision::F16 => Store::F16(Panels::new(n_head, head_dim, capacity)),
            KvPrecision::Int8 => Store::Int8(Panels::new(n_head, head_dim, capacity)),
        };
        Self { n_head, head_dim, capacity, store }
    }

    /// Heads.
    pub fn n_head(&self) -> usize {
        self.n_head
    }

    /// Numbers in a head's key.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Positions there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How they are stored.
    pub fn precision(&self) -> KvPrecision {
        match self.store {
            Store::F32(_) => KvPrecision::F32,
            Store::F16(_) => KvPrecision::F16,
            Store::Int8(_) => KvPrecision::Int8,
        }
    }

    /// Bytes they take, filled or not.
    pub fn bytes(&self) -> usize {
        with_panels!(&self.store, panels => panels.bytes())
    }

    /// Head `h`'s first `positions` keys and values as they were stored, widened: `[positions, head_dim]` each.
    pub fn stored(&self, h: usize, positions: usize) -> (Vec<f32>, Vec<f32>) {
        assert!(h < self.n_head && positions <= self.capacity);
        with_panels!(&self.store, panels => panels.stored(h, positions))
    }

    /// Becomes a copy of the first `positions` tokens of another of the same shape and precision.
    pub fn copy_from(&mut self, other: &KeyValues, positions: usize) {
        assert_eq!((self.n_head, self.head_dim), (other.n_head, other.head_dim));
        assert!(positions <= self.capacity && positions <= other.capacity);
        match (&mut self.store, &other.store) {
            (Store::F32(to), Store::F32(from)) => to.copy_from(from, positions),
            (Store::F16(to), Store::F16(from)) => to.copy_from(from, positions),
            (Store::Int8(to), Store::Int8(from)) => to.copy_from(from, positions),
            _ => panic!("caches of different precisions"),
        }
    }

    /// Stores the keys and values of tokens from `position`; `k` and `v` are `[n, n_embd]`.
    pub fn append(&mut self, team: &Team, position: usize, k: Rows, v: Rows) {
        assert!(position + k.len() <= self.capacity && k.len() == v.len());
        assert_eq!((k.width(), v.width()), (self.n_head * self.head_dim, self.n_head * self.head_dim));
        with_panels!(&mut self.store, panels => panels.append(team, position, k, v));
    }
}

impl<E: Element> Panels<E> {
    fn new(n_head: usize, head_dim: usize, capacity: usize) -> Self {
        let scales = if E::SCALED { n_head * capacity } else { 0 };
        Self {
            keys: Aligned::zeroed(n_head * capacity * head_dim),
            values: Aligned::zeroed(n_head * capacity * head_dim.next_multiple_of(LANES)),
            key_scales: bytemuck::zeroed_vec(scales),
            value_scales: bytemuck::zeroed_vec(scales),
            head_dim,
            capacity,
        }
    }

    fn bytes(&self) -> usize {
        let scales = size_of_val(&self.key_scales[..]) + size_of_val(&self.value_scales[..]);
        size_of_val(&self.keys[..]) + size_of_val(&self.values[..]) + scales
    }

    fn copy_from(&mut self, other: &Panels<E>, positions: usize) {
        /// The first `n` elements of every stretch of a head or a panel.
        fn copy<T: Copy>(to: &mut [T], from: &[T], [mine, theirs]: [usize; 2], n: usize) {
            for (to, from) in to.chunks_mut(mine).zip(from.chunks(theirs)) {
                to[..n].copy_from_slice(&from[..n]);
            }
        }
        let (capacities, head_dim) = ([self.capacity, other.capacity], self.head_dim);
        let keys = positions.next_multiple_of(LANES) * head_dim; // whole panels
        copy(&mut self.keys, &other.keys, capacities.map(|capacity| capacity * head_dim), keys);
        let of_panel = capacities.map(|capacity| capacity * LANES);
        copy(&mut self.values, &other.values, of_panel, positions * LANES);
        copy(&mut self.key_scales, &other.key_scales, capacities, positions);
        copy(&mut self.value_scales, &other.value_scales, capacities, positions);
    }

    fn append(&mut self, team: &Team, position: usize, k: Rows, v: Rows) {
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
        let (key_scales, value_scales) = (&self.key_scales, &self.value_scales);
        team.for_each_piece(&mut self.keys, capacity * head_dim, |h, keys| {
            let scales = key_scales.chunks(capacity).nth(h).unwrap_or(&[]);
            let of = OfHead { x: k.columns(h * head_dim, head_dim), position, scales };
            team.isa().run(StoreKeys { keys, of });
        });
        team.for_each_piece(&mut self.values, capacity * head_dim.next_multiple_of(LANES), |h, values| {
            let scales = value_scales.chunks(capacity).nth(h).unwrap_or(&[]);
            let of = OfHead { x: v.columns(h * head_dim, head_dim), position, scales };
            team.isa().run(StoreValues { values, capacity, of });
        });
    }

    fn stored(&self, h: usize, positions: usize) -> (Vec<f32>, Vec<f32>) {
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
        &self.keys[(h * self.capacity + panel * LANES) * self.head_dim..][..self.head_dim * LANES]
    }

    /// The panel of head `h`'s values for dimensions `16 · panel..`, the positions from `position`:
    /// `[capacity - position, 16]`.
    #[inline(always)]
    pub(super) fn values(&self, h: usize, panel: usize, position: usize) -> &[E] {
        let panels = self.head_dim.div_ceil(LANES);
        let start = ((h * panels + panel) * self.capacity + position) * LANES;
        &self.values[start..][..(self.capacity - position) * LANES]
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
    /// Calls `store` with a token's position, the number of a sixteen of its numbers, and these as they are stored.
    #[inline(always)]
    fn for_each<S: Simd, E: Element>(&self, simd: S, mut store: impl FnMut(usize, usize, &[E; LANES])) {
        for t in 0..self.x.len() {
            let at = self.position + t;
            // What a number is multiplied by before it is rounded.
            let unit = match self.scales.get(at) {
                Some(0.0) | None => 1.0,
                Some(scale) => 1.0 / scale,
            };
            for (i, x) in self.x.row(t).chunks(LANES).enumerate() {
                let x = simd.load_partial(x);
                let x = if E::SCALED { simd.mul(x, simd.splat(unit)) } else { x };
                let mut stored = [E::zeroed(); LANES];
                E::store(simd, x, &mut stored);
                store(at, i, &stored);
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
        self.of.for_each(simd, |at, i, stored: &[E; LANES]| {
            let rows = &mut rows[at / LANES * head_dim..][..head_dim][i * LANES..];
            rows.iter_mut().zip(stored).for_each(|(row, &x)| row[at % LANES] = x);
        });
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
        self.of.for_each(simd, |at, i, stored: &[E; LANES]| rows[i * self.capacity + at] = *stored);
    }
}
