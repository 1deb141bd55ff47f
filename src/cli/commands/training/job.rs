//! A run with its folder: what is said before it starts, the loop, and what it leaves.

use super::folder::{Folder, Plan};
use super::progress::Progress;
use crate::checkpoint::Checkpoint;
use crate::cli::args::memory;
use crate::cli::args::open::open_checkpoint;
use crate::kernels::thread_pool::ThreadPool;
use crate::tokenizer::Tokenizer;
use crate::train::{Activations, Dataset, Run, Trainer, read_documents};
use crate::{Error, Result};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// The part of the data that is held out if there is no other.
const HELD_OUT_SHARE: f64 = 0.05;
/// The number of evaluations in a run.
const EVALUATIONS: u32 = 10;
/// The numbers that training keeps for each weight: itself, its gradient and two moments.
const NUMBERS_PER_WEIGHT: usize = 4;

/// A run with its folder.
pub struct Job {
    pub folder: Folder,
    pub run: Run,
    checkpoint: Checkpoint,
    log: File,
}

/// What a run reads: its model and texts.
pub struct Inputs {
    checkpoint: Checkpoint,
    training: Dataset,
    validation: Dataset,
}

impl Job {
    /// Writes down what the run does, or restores the state of a run that goes on, and says what it will do.
    pub fn new(mut folder: Folder, mut plan: Plan, inputs: Inputs, pool: ThreadPool) -> Result<Self> {
        let Inputs { checkpoint, training, validation } = inputs;
        let hash = sha256(&training);
        if plan.data_sha256.as_ref().is_some_and(|expected| *expected != hash) {
            let problem = "found other texts than the run began with, which it needs to go on";
            return Err(Error::invalid_file(&plan.data, problem));
        }
        let n_weights = checkpoint
            .weights
            .tensors()
            .map(|tensor| tensor.shape().iter().product::<usize>())
            .sum::<usize>();
        let config = &checkpoint.config;
        let bytes_per_token = Activations::bytes_per_token(config);
        // A sequence is never cut, so a micro-batch has room for the longest.
        let max_tokens =
            plan.settings.micro_batch_tokens.min(plan.settings.batch_tokens).max(config.n_positions);
        let bytes = NUMBERS_PER_WEIGHT * n_weights * size_of::<f32>() + max_tokens * bytes_per_token;
        memory::check("--batch", &plan.settings.batch_tokens.to_string(), &[bytes])?;

        let mut trainer = Trainer::new(&checkpoint, pool, max_tokens)?;
        if plan.data_sha256.is_none() {
            plan.data_sha256 = Some(hash);
            folder.write_plan(&plan)?;
        } else if folder.state().exists() {
            trainer.restore(&folder.state())?;
        }
        let log = folder.log(trainer.step())?;
        let (sequences, tokens, held_out) = (training.len(), training.n_tokens(), validation.n_tokens());
        let run = Run::new(trainer, training, validation, plan.settings.clone())?;
        stderr_line!(
            "hornbook: {}: {:.1} million weights, all trained; {:.0} MB of memory",
            checkpoint.name,
            n_weights as f64 / 1e6,
            bytes as f64 / 1e6
        );
        stderr_line!(
            "hornbook: {}: {sequences} sequences of {tokens} tokens; {held_out} tokens held out",
            plan.data.display()
        );
        stderr_line!(
            "hornbook: {} epochs, {} steps of at most {} tokens",
            plan.settings.epochs,
            run.steps(),
            plan.settings.batch_tokens
        );
        Ok(Self { folder, run, checkpoint, log })
    }

    /// Takes all steps that are left. Returns whether it was not interrupted.
    pub fn train(&mut self, save_interval: Duration, is_interrupted: impl Fn() -> bool) -> Result<bool> {
        let steps = self.run.steps();
        let mut progress = Progress::new(steps, self.run.trainer().step());
        if self.run.trainer().step() == 0 {
            self.evaluate(&mut progress)?;
        }
        let mut saved = Instant::now();
        while !self.run.is_finished() && !is_interrupted() {
            let report = self.run.step()?;
            progress.step(&report);
            self.write_log(&json!(report))?;
            if report.step.is_multiple_of(steps.div_ceil(EVALUATIONS)) || report.step == steps {
                self.evaluate(&mut progress)?;
            }
            if saved.elapsed() >= save_interval {
                self.run.trainer().save(&self.folder.state())?;
                saved = Instant::now();
            }
        }
        progress.finish();
        self.run.trainer().save(&self.folder.state())?;
        Ok(self.run.is_finished())
    }

    fn evaluate(&mut self, progress: &mut Progress) -> Result<()> {
        let step = self.run.trainer().step();
        if let Some(loss) = self.run.evaluate()? {
            progress.evaluated(loss);
            self.write_log(&json!({"step": step, "held_out_loss": loss}))?;
        }
        Ok(())
    }

    fn write_log(&mut self, line: &serde_json::Value) -> Result<()> {
        let path = self.folder.path().join("log.jsonl");
        writeln!(self.log, "{line}").map_err(|source| Error::Io { path, action: "write", source })
    }

    /// Writes the model to the folder.
    pub fn write_model(&self) -> Result<()> {
        let trainer = self.run.trainer();
        self.checkpoint.write_trained(self.folder.path(), &trainer.tensors())
    }
}

impl Inputs {
    /// Opens the model and reads the texts.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`], and those of the files.
    pub fn read(plan: &Plan) -> Result<Self> {
        let checkpoint = open_checkpoint(&plan.model)?;
        let tokenizer = Tokenizer::from_files(&checkpoint.tokenizer_files()?)?;
        let tokenizer = tokenizer.ok_or_else(|| Error::NoTokenizer {
            model: plan.model.clone(),
            problem: "has no tokenizer".into(),
            hint: "expected one, to read texts",
        })?;
        let config = &checkpoint.config;
        let named = tokenizer.special_tokens().eos.as_ref().and_then(|eos| tokenizer.token_to_id(&eos.text));
        let end_of_text = named.or(config.eos_token_ids.first().copied());
        let end_of_text = end_of_text.filter(|&id| (id as usize) < config.vocab_size);
        let read = |path: &Path| -> Result<Dataset> {
            let documents = read_documents(path, &tokenizer, plan.prompt_loss_weight)?;
            Ok(Dataset::new(&documents, config.n_positions, end_of_text))
        };
        let mut training = read(&plan.data)?;
        let validation = match &plan.valid {
            Some(valid) => read(valid)?,
            None => training.split_off(HELD_OUT_SHARE),
        };
        Ok(Self { checkpoint, training, validation })
    }
}

/// A hash of all tokens and how much they count.
fn sha256(dataset: &Dataset) -> String {
    let mut hash = Sha256::new();
    hash.update(bytemuck::cast_slice(dataset.ids()));
    hash.update(bytemuck::cast_slice(dataset.weights()));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
