//! The keys and values of a layer, in the precision one asks for.
//!
//! 2 · n_embd numbers a position: 6 KiB for GPT-2 in f32, 3 KiB in f16, 1.6 KiB in int8. There every head's key, and every
//! head's value, is rounded to multiples of a scale of its own, its largest number / 127: what a token leaves behind does
//! not depend on its neighbours.

use super::panels::Panels;
use crate::kernels::rows::Rows;
use crate::kernels::threads::Team;
use half::f16;
use std::fmt;

/// The capacity is a multiple of it: kernels may read whole panels, pairs of them and blocks of so many positions without
/// asking where the past ends.
pub(super) const BLOCK: usize = 64;

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
