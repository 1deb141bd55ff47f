//! Values of options: attention kernels, precisions, byte sizes.

use crate::kernels::attention::{AttentionKernel, KERNELS, KvPrecision, by_name};
use crate::model::Precision;
use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

/// Parses a kernel's name; `--help` lists the kernels with their descriptions.
pub fn attention_kernel() -> impl TypedValueParser<Value = &'static dyn AttentionKernel> {
    let values = KERNELS.iter().map(|kernel| PossibleValue::new(kernel.name()).help(kernel.description()));
    PossibleValuesParser::new(values).try_map(|name| by_name(&name))
}

/// Parses a precision that a model can run in.
pub fn precision() -> impl TypedValueParser<Value = Precision> {
    one_of(Precision::ALL.into_iter())
}

/// Parses a precision that weights can be quantized to.
pub fn quantized_precision() -> impl TypedValueParser<Value = Precision> {
    one_of(Precision::in_files())
}

fn one_of(precisions: impl Iterator<Item = Precision>) -> impl TypedValueParser<Value = Precision> {
    PossibleValuesParser::new(precisions.map(Precision::name)).try_map(|name| name.parse::<Precision>())
}

/// Describes `--kv-precision`; `note` follows the first words.
pub fn kv_precision_help(note: &str) -> String {
    let quantized = Precision::ALL.into_iter().filter(|precision| precision.is_quantized());
    let quantized = enumerate(quantized.map(|precision| precision.to_string()), "and");
    format!("Precision of the KV cache{note} [default: f16 with {quantized}, otherwise f32]")
}

/// Joins words: "a, b and c"; a single one stays as it is.
pub fn enumerate(words: impl Iterator<Item = String>, conjunction: &str) -> String {
    let words: Vec<String> = words.collect();
    let (last, rest) = words.split_last().expect("at least one word");
    match rest {
        [] => last.clone(),
        _ => format!("{} {conjunction} {last}", rest.join(", ")),
    }
}

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

/// Parses a byte size: `256MiB`, `1GiB`, `64KiB`, `100000`.
pub fn byte_size(text: &str) -> Result<usize, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err(format!("unknown unit '{unit}'; expected a size such as 256MiB")),
    };
    let bytes = number.parse::<usize>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "expected a size such as 256MiB".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_size_with_unit_is_parsed() {
        assert_eq!(byte_size("256MiB"), Ok(256 << 20));
        assert_eq!(byte_size("1g"), Ok(1 << 30));
        assert_eq!((byte_size("0"), byte_size("64 KiB")), (Ok(0), Ok(64 << 10)));
        for wrong in ["", "MiB", "1TB", "-1", "1.5MiB", "99999999999999999999", "99999999999GiB"] {
            assert!(byte_size(wrong).is_err(), "{wrong}");
        }
    }
}
