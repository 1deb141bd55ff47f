//! Precisions as values of an option.

use crate::model::Precision;
use clap::builder::{PossibleValuesParser, TypedValueParser};

/// Parses a precision that a model can run in.
pub fn parser() -> impl TypedValueParser<Value = Precision> {
    one_of(&Precision::ALL)
}

/// Parses a precision that weights can be quantized to.
pub fn quantized_parser() -> impl TypedValueParser<Value = Precision> {
    one_of(&[Precision::Int8, Precision::Int4])
}

fn one_of(precisions: &[Precision]) -> impl TypedValueParser<Value = Precision> + use<> {
    let names = precisions.iter().map(|precision| precision.name());
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Precision>())
}
