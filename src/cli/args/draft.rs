//! The option for drafts by a quantized copy of the model.

use super::values;
use crate::model::Precision;
use crate::{Hornbook, Result};
use clap::Args;

/// How texts are drafted.
#[derive(Args, Debug)]
pub struct DraftArgs {
    /// Speculative decoding: draft by a copy of the model, quantized to P
    ///
    /// The output is the same, bit for bit. A model that is larger than the caches writes up to about twice
    /// as fast in f32; where drafts do not pay, as for many texts at once, they are left out. What the text
    /// repeats is drafted without the copy, which takes memory, and time when the model is loaded.
    #[arg(
        long,
        value_name = "P",
        value_parser = values::quantized_precision(),
        help_heading = "Speculative decoding"
    )]
    draft: Option<Precision>,
}

impl DraftArgs {
    /// Makes a model draft as the option says.
    ///
    /// # Errors
    /// As [`Hornbook::with_draft`].
    pub fn apply(&self, hornbook: Hornbook) -> Result<Hornbook> {
        match self.draft {
            Some(precision) => hornbook.with_draft(precision),
            None => Ok(hornbook),
        }
    }
}
