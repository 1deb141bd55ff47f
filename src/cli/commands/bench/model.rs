//! The model that is measured: its options, and what a report says of it.

use crate::Result;
use crate::bench::ModelShape;
use crate::checkpoint::Checkpoint;
use crate::cli::args::open::open_checkpoint;
use clap::Args;
use serde_json::{Value, json};

/// A model of the user's, or random weights.
#[derive(Args, Debug)]
pub struct BenchModel {
    /// Model: fable (built in), a checkpoint folder, or a Hugging Face model in the local cache
    #[arg(short, long, default_value = "fable", conflicts_with = "shape")]
    model: String,

    /// Use random weights of this model's shape: gpt2, gpt2-medium, gpt2-large or gpt2-xl
    #[arg(long, value_name = "NAME")]
    shape: Option<ModelShape>,
}

impl BenchModel {
    /// Opens the model, or creates it.
    ///
    /// # Errors
    /// As [`open_checkpoint`] and [`ModelShape::random_checkpoint`].
    pub fn open(&self) -> Result<Checkpoint> {
        match self.shape {
            Some(shape) => shape.random_checkpoint(),
            None => open_checkpoint(&self.model),
        }
    }

    /// Whether the weights are random.
    pub fn is_random(&self) -> bool {
        self.shape.is_some()
    }
}

/// The fields of a report in JSON.
pub fn describe(checkpoint: &Checkpoint, is_random: bool) -> Value {
    let config = &checkpoint.config;
    json!({
        "name": checkpoint.name,
        "random_weights": is_random,
        "parameters": checkpoint.parameter_counts().total(),
        "n_layer": config.n_layer,
        "n_embd": config.n_embd,
        "n_head": config.n_head,
    })
}

/// The first line of a report, from those fields.
pub fn title(model: &Value) -> String {
    format!(
        "{}{}: {:.1}M parameters, {} layers, width {}\n",
        model["name"].as_str().unwrap_or_default(),
        if model["random_weights"] == true { " (random weights)" } else { "" },
        model["parameters"].as_f64().unwrap_or_default() / 1e6,
        model["n_layer"],
        model["n_embd"],
    )
}
