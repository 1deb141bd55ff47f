//! `--kv-precision`.

use crate::kernels::attention::KvPrecision;
use clap::ValueEnum;

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Kv {
    /// As computed
    F32,
    /// Rounded to binary16
    F16,
    /// Rounded to eight bits, each head's key and value with a scale of its own
    Int8,
}

impl From<Kv> for KvPrecision {
    fn from(kv: Kv) -> Self {
        match kv {
            Kv::F32 => KvPrecision::F32,
            Kv::F16 => KvPrecision::F16,
            Kv::Int8 => KvPrecision::Int8,
        }
    }
}
