//! A run from beginning to end: what it needs is opened, then it is trained, measured, logged and saved.

use super::folder::{Folder, Plan};
use super::options::Execution;
use super::progress::Progress;
use crate::chat::ChatTemplate;
use crate::checkpoint::Checkpoint;
use crate::cli::args::memory;
use crate::cli::args::open::{open_checkpoint, thread_pool};
use crate::kernels::thread_pool::ThreadPool;
use crate::tokenizer::Tokenizer;
use crate::train::{Activations, Dataset, DocumentReader, Evaluation, Length, Run, Trainer};
use crate::{Error, Result};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The exit code of a program that Ctrl-C has stopped.
const INTERRUPTED: u8 = 130;
/// The part of the data that is held out if there is no other.
const HELD_OUT_SHARE: f64 = 0.05;
/// The number of evaluations in a short run, and the most steps between two of a long one.
const EVALUATIONS: u32 = 10;
const MAX_STEPS_PER_EVALUATION: u32 = 250;
/// The numbers that training keeps for each weight: itself, its gradient and two moments.
const NUMBERS_PER_WEIGHT: usize = 4;

/// Carries out a run, or what is left of it, until it is finished or interrupted.
pub fn carry_out(folder: Folder, plan: Plan, inputs: Inputs, execution: &Execution) -> Result<ExitCode> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    let _ = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed));
    let mut job = Job::new(folder, plan, inputs, thread_pool(execution.threads)?)?;
    let save_interval = Duration::from_secs(execution.save_every);
    let finished = job.train(save_interval, || interrupted.load(Ordering::Relaxed))?;
    let shown = job.folder.path().display().to_string();
    if !finished {
        stderr_line!(
            "hornbook: stopped after step {}; go on with hornbook train --resume {shown}",
            job.run.trainer().step()
        );
        return Ok(ExitCode::from(INTERRUPTED));
    }
    job.finish()?;
    stderr_line!("hornbook: wrote {shown}; try hornbook generate --model {shown} \"…\"");
    Ok(ExitCode::SUCCESS)
}

/// What a run reads: its model and texts.
pub struct Inputs {
    pub checkpoint: Checkpoint,
    pub texts: Texts,
}

impl Inputs {
    /// Opens the model and reads the texts.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`], and those of the files.
    pub fn open(plan: &Plan) -> Result<Self> {
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
    training: Dataset,
    validation: Dataset,
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

    /// A hash of all tokens and how much they count.
    fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(bytemuck::cast_slice(self.training.ids()));
        hash.update(bytemuck::cast_slice(self.training.weights()));
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The number of predictions in all sequences.
fn n_tokens(dataset: &Dataset) -> usize {
    (0..dataset.n_sources()).map(|source| dataset.n_tokens(source)).sum()
}

/// A run with its folder.
struct Job {
    folder: Folder,
    run: Run,
    checkpoint: Checkpoint,
    /// The names of the held-out texts.
    held_out: Vec<String>,
    log: File,
}

impl Job {
    /// Writes down what the run does, or restores the state of a run that goes on, and says what it will do.
    fn new(mut folder: Folder, mut plan: Plan, inputs: Inputs, pool: ThreadPool) -> Result<Self> {
        let Inputs { checkpoint, texts } = inputs;
        let hash = texts.sha256();
        if plan.data_sha256.as_ref().is_some_and(|expected| *expected != hash) {
            let problem = "found other texts than the run began with, which it needs to go on";
            return Err(Error::invalid_file(&plan.data[0], problem));
        }
        let n_weights = checkpoint
            .weights
            .tensors()
            .map(|tensor| tensor.shape().iter().product::<usize>())
            .sum::<usize>();
        let config = &checkpoint.config;
        // A sequence is never cut, so a micro-batch has room for the longest.
        let max_tokens = plan.settings.micro_batch_tokens.max(config.n_positions);
        let bytes_per_token = Activations::bytes_per_token(config);
        let bytes = NUMBERS_PER_WEIGHT * n_weights * size_of::<f32>() + max_tokens * bytes_per_token;
        memory::check("--batch", &plan.settings.batch_tokens.to_string(), &[bytes])?;

        let names = if plan.valid.is_empty() { &plan.data } else { &plan.valid };
        let held_out = names.iter().map(|path| path.display().to_string()).collect();
        let Texts { training, validation } = texts;
        let (sequences, tokens) = (training.len(), n_tokens(&training));
        let tokens_held_out = n_tokens(&validation);
        let trainer = Trainer::new(&checkpoint, pool, max_tokens)?;
        let mut run = Run::new(trainer, training, validation, plan.settings.clone())?;
        if plan.data_sha256.is_none() {
            // A model that is trained from nothing is in the output folder, where better ones replace it.
            if Path::new(&plan.model) == folder.path() {
                run.save(&folder.state())?;
            }
            plan.data_sha256 = Some(hash);
            folder.write_plan(&plan)?;
        } else if folder.state().exists() {
            run.restore(&folder.state())?;
        }
        let log = folder.log(run.trainer().step())?;
        stderr_line!(
            "hornbook: {}: {:.1} million weights, all trained; {:.0} MB of memory",
            checkpoint.name,
            n_weights as f64 / 1e6,
            bytes as f64 / 1e6
        );
        let files: Vec<_> = plan.data.iter().map(|path| path.display().to_string()).collect();
        stderr_line!(
            "hornbook: {}: {sequences} sequences of {tokens} tokens; {tokens_held_out} tokens held out",
            files.join(", ")
        );
        let length = match plan.settings.length {
            Length::Epochs(n) => format!("{n} epochs"),
            Length::Tokens(n) => format!("{:.1} million tokens", n as f64 / 1e6),
        };
        stderr_line!(
            "hornbook: {length}, {} steps of about {} tokens",
            run.steps(),
            plan.settings.batch_tokens
        );
        Ok(Self { folder, run, checkpoint, held_out, log })
    }

    /// Takes all steps that are left. Returns whether it was not interrupted.
    fn train(&mut self, save_interval: Duration, is_interrupted: impl Fn() -> bool) -> Result<bool> {
        let steps = self.run.steps();
        let steps_per_evaluation = steps.div_ceil(EVALUATIONS).min(MAX_STEPS_PER_EVALUATION);
        let mut progress = Progress::new(steps, self.run.trainer().step());
        if self.run.trainer().step() == 0 {
            let evaluation = self.run.evaluate()?;
            self.report(evaluation, &mut progress)?;
        }
        let mut saved = Instant::now();
        while !self.run.is_finished() && !is_interrupted() {
            let report = self.run.step()?;
            progress.step(&report);
            self.write_log(&json!(report))?;
            if report.step.is_multiple_of(steps_per_evaluation) || report.step == steps {
                let evaluation = self.run.evaluate()?;
                if evaluation.as_ref().is_some_and(|evaluation| evaluation.is_best) {
                    self.write_model(self.folder.path())?;
                }
                self.report(evaluation, &mut progress)?;
            }
            if saved.elapsed() >= save_interval {
                self.run.save(&self.folder.state())?;
                saved = Instant::now();
            }
        }
        progress.finish();
        self.run.save(&self.folder.state())?;
        Ok(self.run.is_finished())
    }

    fn report(&mut self, evaluation: Option<Evaluation>, progress: &mut Progress) -> Result<()> {
        let Some(Evaluation { losses, loss, .. }) = evaluation else { return Ok(()) };
        progress.evaluated(loss);
        let step = self.run.trainer().step();
        let mut line = json!({"step": step, "held_out_loss": loss});
        if let [_, _, ..] = losses[..] {
            line["held_out_losses"] =
                losses.iter().map(|&(source, loss)| (self.held_out[source].clone(), loss)).collect();
        }
        self.write_log(&line)
    }

    fn write_log(&mut self, line: &serde_json::Value) -> Result<()> {
        let path = self.folder.path().join("log.jsonl");
        writeln!(self.log, "{line}").map_err(|source| Error::Io { path, action: "write", source })
    }

    fn write_model(&self, folder: &Path) -> Result<()> {
        self.checkpoint.write_trained(folder, &self.run.trainer().tensors())
    }

    /// Writes the best model to the folder: that of an evaluation, or the mean of the last steps. The model
    /// of the last step, if it is another, goes into its folder `last`.
    fn finish(&mut self) -> Result<()> {
        let root = self.folder.path().to_path_buf();
        let last = self.run.evaluate()?; // again, for a run that was killed after its last step
        let last_is_best = last.as_ref().is_none_or(|evaluation| evaluation.is_best);
        if last_is_best {
            self.write_model(&root)?;
        }
        let mut average_is_best = false;
        if self.run.swap_average() {
            average_is_best = self.run.evaluate()?.is_none_or(|evaluation| evaluation.is_best);
            if average_is_best {
                self.write_model(&root)?;
            }
            self.run.swap_average();
        }
        if average_is_best || !last_is_best {
            self.write_model(&root.join("last"))?;
        }
        Ok(())
    }
}
