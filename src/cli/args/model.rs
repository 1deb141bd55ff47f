//! The options for a model and its execution.

use crate::cli::args::open::open_hornbook;
use crate::cli::args::open::thread_pool;
use crate::cli::args::open::with_adapter;
use crate::cli::args::values;
use crate::cli::args::values::KvPrecisionArg;
use crate::kernels::attention::AttentionKernel;
use crate::model::Precision;
use crate::{Hornbook, Result};
use clap::Args;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// The model, and how it is run.
#[derive(Args, Debug)]
pub struct ModelArgs {
    /// Model: fable (built in), a checkpoint folder, or a Hugging Face model in the local cache
    #[arg(short, long, default_value = "fable")]
    pub model: String,

    /// LoRA adapter for the model: a folder in peft's format
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,

    #[command(flatten)]
    pub execution: ExecutionArgs,
}

/// How models are run.
#[derive(Args, Debug)]
pub struct ExecutionArgs {
    /// Convert the weights on load [default: as stored]
    #[arg(long, value_name = "P", value_parser = values::precision(), help_heading = "Execution")]
    pub precision: Option<Precision>,

    /// Number of threads [default: one per core]
    #[arg(long, value_name = "N", help_heading = "Execution")]
    pub threads: Option<NonZeroUsize>,

    /// Attention kernel (compare them with hornbook bench attention)
    #[arg(
        long,
        value_name = "NAME",
        value_parser = values::attention_kernel(),
        default_value = "flash",
        help_heading = "Execution",
    )]
    pub attention: &'static dyn AttentionKernel,

    #[arg(
        long,
        value_name = "PRECISION",
        value_enum,
        help = values::kv_precision_help("; f16 takes half the memory of f32, int8 a quarter"),
        help_heading = "Execution",
    )]
    pub kv_precision: Option<KvPrecisionArg>,
}

impl ModelArgs {
    /// Opens the model.
    ///
    /// # Errors
    /// As [`Hornbook::with_precision`] and [`Hornbook::with_adapter`];
    /// [`Error::Parameter`](crate::Error::Parameter) for too many threads.
    pub fn open(&self) -> Result<Hornbook> {
        with_adapter(self.execution.open(&self.model)?, self.adapter.as_deref())
    }
}

impl ExecutionArgs {
    /// Opens a model.
    ///
    /// # Errors
    /// As [`ModelArgs::open`], without an adapter.
    pub fn open(&self, model: &str) -> Result<Hornbook> {
        let pool = thread_pool(self.threads)?;
        Ok(open_hornbook(model, pool, self.precision)?.with_attention(self.attention))
    }
}
