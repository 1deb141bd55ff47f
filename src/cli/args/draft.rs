//! The option for drafts by another model.

use super::open::open_checkpoint;
use crate::model::Precision;
use crate::{Hornbook, Result};
use clap::Args;

/// How texts are drafted.
#[derive(Args, Debug)]
pub struct DraftArgs {
    /// Speculative decoding: draft by a copy of the model, quantized to int4 or int8, or by another model
    ///
    /// The output is the same, bit for bit. A model that is larger than the caches writes up to about twice
    /// as fast in f32; where drafts do not pay, as for many texts at once, they are left out. What the text
    /// repeats is drafted without the draft model. A copy takes memory, and time when the model is loaded;
    /// one that `hornbook quantize` wrote takes no time, and drafts better if it is calibrated. Any smaller
    /// model with the same vocabulary can draft, too, such as distilgpt2 for gpt2-xl.
    #[arg(long, value_name = "P|MODEL", help_heading = "Speculative decoding")]
    draft: Option<String>,
}

impl DraftArgs {
    /// Makes a model draft as the option says.
    ///
    /// # Errors
    /// As [`with_draft`].
    pub fn apply(&self, hornbook: Hornbook) -> Result<Hornbook> {
        match &self.draft {
            Some(draft) => with_draft(hornbook, draft),
            None => Ok(hornbook),
        }
    }
}

/// Makes a model draft by its copy in a precision, or by another model.
///
/// # Errors
/// As [`Hornbook::with_draft`], [`open_checkpoint`] and [`Hornbook::with_draft_model`].
pub fn with_draft(hornbook: Hornbook, draft: &str) -> Result<Hornbook> {
    match draft.parse::<Precision>() {
        Ok(precision) => hornbook.with_draft(precision),
        Err(_) => hornbook.with_draft_model(open_checkpoint(draft)?),
    }
}
