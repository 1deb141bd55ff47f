//! The option for drafts by a quantized copy of the model.

use super::model::ModelArgs;
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
    /// as fast in f32; where drafts do not pay, they are left out. The copy takes memory, and time when the
    /// model is loaded.
    #[arg(
        long,
        value_name = "P",
        value_parser = values::quantized_precision(),
        help_heading = "Speculative decoding"
    )]
    draft: Option<Precision>,
}

impl DraftArgs {
    /// Opens a model that drafts as the option says.
    ///
    /// # Errors
    /// As [`ModelArgs::open`] and [`Hornbook::with_draft`].
    pub fn open(&self, model: &ModelArgs) -> Result<Hornbook> {
        let hornbook = model.open()?;
        match self.draft {
            Some(precision) => hornbook.with_draft(precision),
            None => Ok(hornbook),
        }
    }
}
