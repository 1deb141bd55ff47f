//! What a run reads: its model and its texts.

use super::folder::Plan;
use crate::chat::ChatTemplate;
use crate::checkpoint::{Checkpoint, Config, Tensor};
use crate::tokenizer::Tokenizer;
use crate::train::{Dataset, DocumentReader};
use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// The part of the data that is held out if there is no other.
const HELD_OUT_SHARE: f64 = 0.05;

/// What a run reads: its model and texts.
pub struct Inputs {
    /// The model.
    pub checkpoint: Checkpoint,
    /// The texts.
    pub texts: Texts,
}

impl Inputs {
    /// Opens the model and reads the texts.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`], and those of the files.
    pub fn open(plan: &Plan) -> Result<Self> {
        let checkpoint = Checkpoint::open(&plan.model)?;
        checkpoint.weights.tensors().try_for_each(Tensor::check_finite)?; // or no loss would be a number
        let tokenizer = Tokenizer::from_files(&checkpoint.tokenizer_files()?)?;
        let tokenizer = tokenizer.ok_or_else(|| Error::NoTokenizer {
            model: plan.model.clone(),
            problem: "has no tokenizer".into(),
            hint: "expected one, to read texts",
        })?;
        let config = &checkpoint.config;
        let end_of_text = end_of_text(&tokenizer, config);
        let chat_template =
            || ChatTemplate::from_files(&checkpoint.chat_template_files(), &checkpoint.generation_config()?);
        let reader = DocumentReader {
            tokenizer: &tokenizer,
            vocab_size: config.vocab_size,
            end_of_text,
            prompt_loss_weight: plan.prompt_loss_weight,
            chat_template: &chat_template,
        };
        let texts = Texts::read(plan, &reader, config.n_positions)?;
        Ok(Self { checkpoint, texts })
    }
}

/// What a model is trained on, and what it is measured on.
pub struct Texts {
    pub(super) training: Dataset,
    pub(super) validation: Dataset,
}

impl Texts {
    /// Reads the texts as tokens, for sequences of at most `context`.
    ///
    /// # Errors
    /// Those of the files.
    pub fn read(plan: &Plan, reader: &DocumentReader, context: usize) -> Result<Self> {
        let read = |paths: &[PathBuf]| -> Result<Dataset> {
            let mut dataset = Dataset::default();
            for path in paths {
                dataset.add(&reader.read(path)?, context, reader.end_of_text);
            }
            Ok(dataset)
        };
        let mut training = read(&plan.data)?;
        let validation = match plan.valid[..] {
            [] => training.split_off(HELD_OUT_SHARE),
            _ => read(&plan.valid)?,
        };
        Ok(Self { training, validation })
    }

    /// What is trained on.
    pub fn training(&self) -> &Dataset {
        &self.training
    }

    /// A hash of all tokens and how much they count.
    pub(super) fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(bytemuck::cast_slice(self.training.ids()));
        hash.update(bytemuck::cast_slice(self.training.weights()));
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The token that ends a text, if the model has one.
pub(super) fn end_of_text(tokenizer: &Tokenizer, config: &Config) -> Option<u32> {
    let named = tokenizer.special_tokens().eos.as_ref().and_then(|eos| tokenizer.token_to_id(&eos.text));
    let id = named.or(config.eos_token_ids.first().copied());
    id.filter(|&id| (id as usize) < config.vocab_size)
}

/// The number of predictions in all sequences.
pub(super) fn n_tokens(dataset: &Dataset) -> usize {
    (0..dataset.n_sources()).map(|source| dataset.n_tokens(source)).sum()
}
