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
//! In decode both are read front to back. 2 · n_embd numbers a position: 6 KiB for GPT-2 in f32, 3 KiB in f16.

use crate::kernels::elements::Element;
use crate::kernels::rows::Rows;
use crate::kernels::simd::LANES;
use crate::kernels::threads::Team;
use half::f16;

/// Positions in one step of the online softmax; the capacity is a multiple of it.
pub(super) const BLOCK: usize = 64;

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvPrecision {
    /// As computed.
    #[default]
    F32,
    /// Rounded to binary16: half the memory, and half the time at long contexts.
    F16,
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
}

#[derive(Clone, Debug)]
pub(super) struct Panels<E> {
    keys: Vec<E>,
    values: Vec<E>,
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
        }
    }

    /// Bytes they take, filled or not.
    pub fn bytes(&self) -> usize {
        match &self.store {
            Store::F32(panels) => panels.bytes(),
            Store::F16(panels) => panels.bytes(),
        }
    }

    /// Becomes a copy of the first `positions` tokens of another of the same shape and precision.
    pub fn copy_from(&mut self, other: &KeyValues, positions: usize) {
        assert_eq!((self.n_head, self.head_dim), (other.n_head, other.head_dim));
        assert!(positions <= self.capacity && positions <= other.capacity);
        match (&mut self.store, &other.store) {
            (Store::F32(to), Store::F32(from)) => to.copy_from(from, positions),
            (Store::F16(to), Store::F16(from)) => to.copy_from(from, positions),
            _ => panic!("caches of different precisions"),
        }
    }

    /// Stores the keys and values of tokens from `position`; `k` and `v` are `[n, n_embd]`.
    pub fn append(&mut self, team: &Team, position: usize, k: Rows, v: Rows) {
        assert!(position + k.len() <= self.capacity && k.len() == v.len());
        assert_eq!((k.width(), v.width()), (self.n_head * self.head_dim, self.n_head * self.head_dim));
        match &mut self.store {
            Store::F32(panels) => panels.append(team, position, k, v),
            Store::F16(panels) => panels.append(team, position, k, v),
        }
    }
}

impl<E: Element> Panels<E> {
    fn new(n_head: usize, head_dim: usize, capacity: usize) -> Self {
        // Zeroed by the system page by page, when a page is first used.
        Self {
            keys: bytemuck::zeroed_vec(n_head * capacity * head_dim),
            values: bytemuck::zeroed_vec(n_head * capacity * head_dim.next_multiple_of(LANES)),
            head_dim,
            capacity,
        }
    }

    fn bytes(&self) -> usize {
        size_of_val(&self.keys[..]) + size_of_val(&self.values[..])
    }

    fn copy_from(&mut self, other: &Panels<E>, positions: usize) {
        // Head by head of the keys, panel by panel of the values; whole panels of keys.
        let keys = positions.next_multiple_of(LANES) * self.head_dim;
        let mine = self.keys.chunks_mut(self.capacity * self.head_dim);
        for (to, from) in mine.zip(other.keys.chunks(other.capacity * self.head_dim)) {
            to[..keys].copy_from_slice(&from[..keys]);
        }
        let mine = self.values.chunks_mut(self.capacity * LANES);
        for (to, from) in mine.zip(other.values.chunks(other.capacity * LANES)) {
            to[..positions * LANES].copy_from_slice(&from[..positions * LANES]);
        }
    }

    fn append(&mut self, team: &Team, position: usize, k: Rows, v: Rows) {
        let (head_dim, capacity) = (self.head_dim, self.capacity);
        let of_head = capacity * head_dim;
        team.for_each_piece(&mut self.keys, of_head, |h, keys| {
            for t in 0..k.len() {
                let at = position + t;
                let panel = &mut keys[at / LANES * head_dim * LANES..];
                for (d, x) in k.row(t)[h * head_dim..][..head_dim].iter().enumerate() {
                    panel[d * LANES + at % LANES] = E::from_f32(*x);
                }
            }
        });
        let of_head = capacity * head_dim.next_multiple_of(LANES);
        team.for_each_piece(&mut self.values, of_head, |h, values| {
            for t in 0..v.len() {
                for (panel, x) in v.row(t)[h * head_dim..][..head_dim].chunks(LANES).enumerate() {
                    let to = &mut values[(panel * capacity + position + t) * LANES..];
                    to.iter_mut().zip(x).for_each(|(to, x)| *to = E::from_f32(*x));
                }
            }
        });
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
}
