//! The KV cache of one layer, in a selectable precision.
//!
//! 2 · n_embd elements per position: 6 KiB for GPT-2 in f32, 3 KiB in f16, 1.6 KiB in int8. In int8 every
//! head's key and every head's value is rounded to multiples of its own scale, its absmax / 127: what is
//! stored for a token does not depend on its neighbors.

use super::panels::Panels;
use crate::rows::Rows;
use crate::thread_pool::ThreadPool;
use half::f16;
use std::fmt;

/// The divisor of every capacity: kernels may read whole panels, pairs of panels and blocks of this many
/// positions without checking where the sequence ends.
pub(super) const BLOCK: usize = 64;

/// The precision of stored keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvPrecision {
    /// As computed.
    F32,
    /// Rounded to binary16: half the memory, and half the time at long contexts.
    F16,
    /// Rounded to eight bits with one scale per head, position and key or value: a quarter of the memory.
    Int8,
}

impl KvPrecision {
    /// All precisions.
    pub const ALL: [KvPrecision; 3] = [KvPrecision::F32, KvPrecision::F16, KvPrecision::Int8];

    /// Returns the name that a user types.
    pub fn name(self) -> &'static str {
        match self {
            KvPrecision::F32 => "f32",
            KvPrecision::F16 => "f16",
            KvPrecision::Int8 => "int8",
        }
    }

    /// Returns the bytes of one head's key and value at one position, scales included.
    pub fn bytes_per_head(self, head_dim: usize) -> usize {
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
    pub(super) storage: Storage,
}

#[derive(Clone, Debug)]
pub(super) enum Storage {
    F32(Panels<f32>),
    F16(Panels<f16>),
    Int8(Panels<i8>),
}

/// Evaluates `$body` with `$panels` bound to the storage's panels, whatever their element type.
macro_rules! with_panels {
    ($storage:expr, $panels:ident => $body:expr) => {
        match $storage {
            $crate::attention::key_values::Storage::F32($panels) => $body,
            $crate::attention::key_values::Storage::F16($panels) => $body,
            $crate::attention::key_values::Storage::Int8($panels) => $body,
        }
    };
}
pub(super) use with_panels;

impl KeyValues {
    /// Allocates room for at least `positions` tokens.
    pub fn new(n_head: usize, head_dim: usize, positions: usize, precision: KvPrecision) -> Self {
        let capacity = positions.next_multiple_of(BLOCK);
        let storage = match precision {
            KvPrecision::F32 => Storage::F32(Panels::new(n_head, head_dim, capacity)),
            KvPrecision::F16 => Storage::F16(Panels::new(n_head, head_dim, capacity)),
            KvPrecision::Int8 => Storage::Int8(Panels::new(n_head, head_dim, capacity)),
        };
        Self { n_head, head_dim, capacity, storage }
    }

    /// Returns the number of heads.
    pub fn n_head(&self) -> usize {
        self.n_head
    }

    /// Returns the elements of a head's key.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Returns the number of positions there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns the precision of the stored keys and values.
    pub fn precision(&self) -> KvPrecision {
        match self.storage {
            Storage::F32(_) => KvPrecision::F32,
            Storage::F16(_) => KvPrecision::F16,
            Storage::Int8(_) => KvPrecision::Int8,
        }
    }

    /// Returns the bytes allocated, filled or not.
    pub fn bytes(&self) -> usize {
        with_panels!(&self.storage, panels => panels.bytes())
    }

    /// Returns head `h`'s first `positions` keys and values, converted back to f32: `[positions, head_dim]`
    /// each.
    pub fn to_f32_vecs(&self, h: usize, positions: usize) -> (Vec<f32>, Vec<f32>) {
        assert!(h < self.n_head && positions <= self.capacity);
        with_panels!(&self.storage, panels => panels.to_f32_vecs(h, positions))
    }

    /// Copies the first `positions` tokens of another cache of the same shape and precision.
    pub fn copy_from(&mut self, other: &KeyValues, positions: usize) {
        assert_eq!((self.n_head, self.head_dim), (other.n_head, other.head_dim));
        assert!(positions <= self.capacity && positions <= other.capacity);
        if positions == 0 {
            return;
        }
        match (&mut self.storage, &other.storage) {
            (Storage::F32(to), Storage::F32(from)) => to.copy_from(from, positions),
            (Storage::F16(to), Storage::F16(from)) => to.copy_from(from, positions),
            (Storage::Int8(to), Storage::Int8(from)) => to.copy_from(from, positions),
            _ => panic!("caches of different precisions"),
        }
    }

    /// Stores the keys and values of the tokens from `position`; `k` and `v` are `[n, n_embd]`.
    pub fn append(&mut self, pool: &ThreadPool, position: usize, k: Rows, v: Rows) {
        assert!(position + k.len() <= self.capacity && k.len() == v.len());
        assert_eq!((k.width(), v.width()), (self.n_head * self.head_dim, self.n_head * self.head_dim));
        if !k.is_empty() {
            with_panels!(&mut self.storage, panels => panels.append(pool, position, k, v));
        }
    }
}
