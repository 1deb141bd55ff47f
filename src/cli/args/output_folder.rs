//! The folder that a command writes a model to.

use crate::checkpoint::Checkpoint;
use crate::{Error, Result};
use clap::Args;
use std::path::PathBuf;

/// The output folder.
#[derive(Args, Debug)]
pub struct OutputFolder {
    /// Output folder
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,

    /// Overwrite an existing model
    #[arg(long)]
    force: bool,
}

impl OutputFolder {
    /// Checks that no model is overwritten by mistake, least of all `model`, the one that is read.
    ///
    /// # Errors
    /// [`Error::Checkpoint`]
    pub fn check(&self, model: &Checkpoint) -> Result<()> {
        let is_output = |folder: &PathBuf| {
            folder.canonicalize().ok().is_some_and(|f| Some(f) == self.output.canonicalize().ok())
        };
        let problem = if model.folder.as_ref().is_some_and(is_output) {
            "found the model's own folder, expected another one"
        } else if !self.force
            && ["model.safetensors", "model.safetensors.index.json", "config.json"]
                .iter()
                .any(|name| self.output.join(name).exists())
        {
            "found a model, expected an empty or new folder; use --force to replace it"
        } else {
            return Ok(());
        };
        Err(Error::Checkpoint { file: self.output.clone(), problem: problem.into() })
    }
}
