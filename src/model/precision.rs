//! The precisions of a model's weight matrices.

use crate::checkpoint::Dtype;
use std::fmt;
use std::str::FromStr;

/// The precision of a model's weight matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// bfloat16.
    Bf16,
    /// 8 bits per weight with one scale per column; activations are quantized to 8 bits with one scale per
    /// token.
    Int8,
    /// 4 bits per weight with one scale per 32 weights; the LM head and the activations in 8 bits.
    Int4,
    /// bfloat16 for weights and activations; faster than [`Precision::Bf16`] for many tokens per pass.
    Bf16Dot,
}

impl Precision {
    /// All precisions.
    pub const ALL: [Precision; 6] = [
        Precision::F32,
        Precision::F16,
        Precision::Bf16,
        Precision::Bf16Dot,
        Precision::Int8,
        Precision::Int4,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        self.dtype().name()
    }

    /// The corresponding tensor type.
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
