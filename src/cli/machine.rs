//! Which model, and what to compute with it: the options that every subcommand with a prompt has.

use super::kv::Kv;
use super::{kernel, team};
use crate::checkpoint::Checkpoint;
use crate::kernels::attention::AttentionKernel;
use crate::model::Precision;
use crate::{Hornbook, Result};
use clap::Args;
use std::num::NonZeroUsize;

/// A model and its machine.
#[derive(Args, Debug)]
pub struct ModelArgs {
    /// fable (built in), a checkpoint's folder, or a Hugging Face name in the local cache
    #[arg(short, long, default_value = "fable")]
    pub model: String,

    /// Convert the weights when loading: f32, f16, bf16, bf16-dot, int8 or int4 [default: as they are stored]
    #[arg(long, value_name = "P", help_heading = "Machine")]
    pub precision: Option<Precision>,

    /// Threads to compute with [default: one for each core]
    #[arg(long, value_name = "N", help_heading = "Machine")]
    pub threads: Option<NonZeroUsize>,

    /// How attention is computed; hornbook bench attention measures them
    #[arg(long, value_name = "NAME", value_parser = kernel::parser(), default_value = "flash", help_heading = "Machine")]
    pub attention: &'static dyn AttentionKernel,

    /// How keys and values are stored; f16 takes half of f32's memory, int8 a quarter [default: f16 with
    /// bf16-dot, int8 and int4, else f32]
    #[arg(long, value_name = "PRECISION", value_enum, help_heading = "Machine")]
    pub kv_precision: Option<Kv>,
}

impl ModelArgs {
    /// Opens the model.
    ///
    /// # Errors
    /// As [`Hornbook::with_precision`], and for too many threads.
    pub fn open(&self) -> Result<Hornbook> {
        let team = team(self.threads)?;
        let hornbook = Hornbook::with_precision(Checkpoint::open(&self.model)?, team, self.precision)?;
        Ok(hornbook.with_attention(self.attention))
    }
}
