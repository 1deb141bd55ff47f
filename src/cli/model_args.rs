//! The options for the model and its execution, common to the subcommands that take a prompt.

use super::kv_precision::KvPrecisionArg;
use super::{attention_kernel, open_hornbook, precision, thread_pool};
use crate::kernels::attention::AttentionKernel;
use crate::model::Precision;
use crate::{Hornbook, Result};
use clap::Args;
use std::num::NonZeroUsize;

/// The model, and how it is run.
#[derive(Args, Debug)]
pub struct ModelArgs {
    /// Model: fable (built in), a checkpoint folder, or a Hugging Face model in the local cache
    #[arg(short, long, default_value = "fable")]
    pub model: String,

    /// Convert the weights on load [default: as stored]
    #[arg(long, value_name = "P", value_parser = precision::parser(), help_heading = "Execution")]
    pub precision: Option<Precision>,

    /// Number of threads [default: one per core]
    #[arg(long, value_name = "N", help_heading = "Execution")]
    pub threads: Option<NonZeroUsize>,

    /// Attention kernel (compare them with hornbook bench attention)
    #[arg(
        long,
        value_name = "NAME",
        value_parser = attention_kernel::parser(),
        default_value = "flash",
        help_heading = "Execution",
    )]
    pub attention: &'static dyn AttentionKernel,

    /// Precision of the KV cache; f16 takes half the memory of f32, int8 a quarter [default: f16 with
    /// bf16-dot, int8 and int4, otherwise f32]
    #[arg(long, value_name = "PRECISION", value_enum, help_heading = "Execution")]
    pub kv_precision: Option<KvPrecisionArg>,
}

impl ModelArgs {
    /// Opens the model.
    ///
    /// # Errors
    /// As [`Hornbook::with_precision`]; [`Error::Parameter`](crate::Error::Parameter) for too many threads.
    pub fn open(&self) -> Result<Hornbook> {
        let pool = thread_pool(self.threads)?;
        Ok(open_hornbook(&self.model, pool, self.precision)?.with_attention(self.attention))
    }
}
