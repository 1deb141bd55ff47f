//! The precisions a model can compute its matrices in.

use crate::checkpoint::Dtype;
use std::fmt;
use std::str::FromStr;

/// What a model's matrices are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// bfloat16.
    Bf16,
    /// Eight bits a weight, a scale a column; a token's inputs are rounded likewise.
    Int8,
    /// Four bits a weight, a scale for every 32; the head in eight bits; a token's inputs in eight.
    Int4,
    /// bfloat16, a token's inputs too: faster than [`Precision::Bf16`] where many tokens go through together.
    Bf16Dot,
}

impl Precision {
    /// All there are.
    pub const ALL: [Precision; 6] = [
        Precision::F32,
        Precision::F16,
        Precision::Bf16,
        Precision::Bf16Dot,
        Precision::Int8,
        Precision::Int4,
    ];

    /// As a user types it.
    pub fn name(self) -> &'static str {
        self.dtype().name()
    }

    /// What tensors are stored in.
    pub fn dtype(self) -> Dtype {
        match self {
            Precision::F32 => Dtype::F32,
            Precision::F16 => Dtype::F16,
            Precision::Bf16 => Dtype::Bf16,
            Precision::Int8 => Dtype::Int8,
            Precision::Int4 => Dtype::Int4,
            Precision::Bf16Dot => Dtype::Bf16Dot,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        Self::ALL.into_iter().find(|precision| precision.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|precision| precision.name()).collect();
            format!("expected one of {}", names.join(", "))
        })
    }
}
