//! Attention kernels as values of an option.

use crate::kernels::attention::{AttentionKernel, KERNELS, by_name};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

/// Parses a kernel's name; `--help` lists the kernels with their descriptions.
pub fn parser() -> impl TypedValueParser<Value = &'static dyn AttentionKernel> {
    let values = KERNELS.iter().map(|kernel| PossibleValue::new(kernel.name()).help(kernel.description()));
    PossibleValuesParser::new(values).try_map(|name| by_name(&name))
}
