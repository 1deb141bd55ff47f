//! `--kv-precision`.

use crate::kernels::attention::KvPrecision;
use clap::ValueEnum;

/// Precision of the KV cache.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum KvPrecisionArg {
    /// 32-bit floating point
    F32,
    /// 16-bit floating point
    F16,
    /// 8-bit integers with one scale per head and token
    Int8,
}

impl From<KvPrecisionArg> for KvPrecision {
    fn from(precision: KvPrecisionArg) -> Self {
        match precision {
            KvPrecisionArg::F32 => KvPrecision::F32,
            KvPrecisionArg::F16 => KvPrecision::F16,
            KvPrecisionArg::Int8 => KvPrecision::Int8,
        }
    }
}
