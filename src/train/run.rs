//! A training run: steps in their order, and evaluation.

use super::dataset::Dataset;
use super::order::Order;
use super::schedule::Schedule;
use super::settings::{Length, Settings};
use super::trainer::Trainer;
use crate::{Error, Result};
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, Instant};

/// The most tokens of a source that an evaluation reads: it takes a small part of the run.
const MAX_EVALUATION_TOKENS: usize = 1 << 15;

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StepReport {
    /// The step, counted from 1.
    pub step: u32,
    /// The mean cross-entropy of the batch before the step, in nats per token.
    pub loss: f64,
    /// The share of the batch's tokens, weighted as in the loss, that were the most likely ones.
    pub accuracy: f64,
    /// The learning rate.
    pub learning_rate: f32,
    /// The norm of the gradient, before it was shortened.
    pub gradient_norm: f64,
    /// The tokens read.
    pub tokens: usize,
}

/// What an evaluation found.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The held-out sources and their mean cross-entropy, in nats per token.
    pub losses: Vec<(usize, f64)>,
    /// The mean of these.
    pub loss: f64,
    /// The share of their tokens, weighted as in the loss, that were the most likely ones.
    pub accuracy: f64,
    /// Whether no earlier one was lower.
    pub is_best: bool,
}

/// A run: a trainer, its data, and the order in which it reads them.
pub struct Run {
    trainer: Trainer,
    training: Dataset,
    /// What is held out, to be measured.
    validation: Dataset,
    settings: Settings,
    order: Order,
    schedule: Schedule,
    /// The lowest held-out loss.
    best_loss: Option<f64>,
}

impl Run {
    /// Prepares a run that goes on after the trainer's last step.
    ///
    /// # Errors
    /// [`Error::Parameter`] for settings out of range, and for data without a single prediction that counts.
    pub fn new(trainer: Trainer, training: Dataset, validation: Dataset, settings: Settings) -> Result<Self> {
        settings.validate(training.n_sources())?;
        let all: Vec<usize> = (0..training.len()).collect();
        if training.weight(&all) <= 0.0 {
            return Err(Error::Parameter {
                name: "data".into(),
                found: "no token to predict".into(),
                expected: "at least one".into(),
            });
        }
        let in_all = || (0..training.n_sources()).map(|source| training.n_tokens(source) as u64).sum::<u64>();
        let tokens = match settings.length {
            Length::Epochs(epochs) => epochs * in_all(),
            Length::Tokens(tokens) => tokens,
        };
        let order = Order::new(&training, tokens, settings.batch_tokens, &settings.stages, settings.seed);
        let part = |share: f64| (f64::from(order.steps()) * share).round() as u32;
        let schedule = Schedule {
            decay: settings.decay,
            warmup: part(settings.warmup_share).max(1),
            decay_steps: part(settings.decay_share),
            steps: order.steps(),
        };
        Ok(Self { trainer, training, validation, order, schedule, settings, best_loss: None })
    }

    /// The trainer.
    pub fn trainer(&self) -> &Trainer {
        &self.trainer
    }

    /// The number of steps in all.
    pub fn steps(&self) -> u32 {
        self.schedule.steps
    }

    /// Whether all steps are taken.
    pub fn is_finished(&self) -> bool {
        self.trainer.step() >= self.steps()
    }

    /// Takes one step, and calls `pause` after each micro-batch with the time that it took.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for a loss or gradient that is not a finite number; the weights are those before
    /// the step.
    pub fn step(&mut self, pause: &mut dyn FnMut(Duration)) -> Result<StepReport> {
        let step = self.trainer.step() + 1;
        let sequences = self.order.sequences(&self.training, step);
        let total = self.training.weight(&sequences).max(f64::MIN_POSITIVE);
        let (mut loss, mut accuracy, mut tokens) = (0.0, 0.0, 0);
        for micro_batch in self.training.batches(&sequences, self.settings.micro_batch_tokens) {
            let start = Instant::now();
            let batch = self.training.gather(&micro_batch, total);
            loss += self.trainer.accumulate(&batch)?;
            accuracy += self.trainer.accuracy();
            tokens += batch.len();
            pause(start.elapsed());
        }
        let factor = self.schedule.factor(step);
        let gradient_norm = self.trainer.gradient_norm();
        if !(loss + gradient_norm).is_finite() {
            return Err(Error::NotFinite(format!(
                "step {step}: found a loss of {loss} and a gradient of norm {gradient_norm}, expected finite \
                 numbers; try a smaller learning rate"
            )));
        }
        let optimizers = self.settings.optimizers(step, factor);
        self.trainer.update(&optimizers, (self.settings.max_norm / gradient_norm).min(1.0) as f32);
        if f64::from(self.steps() - step) < self.settings.average_share * f64::from(self.steps()) {
            self.trainer.average();
        }
        let learning_rate = factor * self.settings.learning_rate;
        Ok(StepReport { step, loss, accuracy, learning_rate, gradient_norm, tokens })
    }

    /// Measures the held-out sequences, a part of those of a large source; none if none is held out. Calls
    /// `pause` as [`Run::step`] does.
    ///
    /// # Errors
    /// As [`Trainer::loss`].
    pub fn evaluate(&mut self, pause: &mut dyn FnMut(Duration)) -> Result<Option<Evaluation>> {
        let (mut losses, mut accuracies) = (vec![], vec![]);
        for source in 0..self.validation.n_sources() {
            if let Some([loss, accuracy]) = self.held_out_loss(source, pause)? {
                losses.push((source, loss));
                accuracies.push(accuracy);
            }
        }
        if losses.is_empty() {
            return Ok(None);
        }
        let n = losses.len() as f64;
        let loss = losses.iter().map(|(_, loss)| loss).sum::<f64>() / n;
        let accuracy = accuracies.iter().sum::<f64>() / n;
        // The model that a run begins with is not one of its results.
        let is_best = self.trainer.step() > 0 && self.best_loss.is_none_or(|best| loss <= best);
        if is_best {
            self.best_loss = Some(loss);
        }
        Ok(Some(Evaluation { losses, loss, accuracy, is_best }))
    }

    /// The mean loss and accuracy of a source.
    fn held_out_loss(&mut self, source: usize, pause: &mut dyn FnMut(Duration)) -> Result<Option<[f64; 2]>> {
        let Self { trainer, validation, settings, .. } = self;
        let sequences = validation.sample(source, MAX_EVALUATION_TOKENS);
        let total = validation.weight(&sequences);
        if total <= 0.0 {
            return Ok(None);
        }
        let batches = validation.batches(&sequences, settings.micro_batch_tokens);
        let [mut loss, mut accuracy] = [0.0; 2];
        for batch in batches {
            let start = Instant::now();
            loss += trainer.loss(&validation.gather(&batch, total))?;
            accuracy += trainer.accuracy();
            pause(start.elapsed());
        }
        Ok(Some([loss, accuracy]))
    }

    /// The lowest held-out loss so far.
    pub fn best_loss(&self) -> Option<f64> {
        self.best_loss
    }

    /// Returns the logits of the token that follows `ids`, `[vocab_size]`.
    ///
    /// # Errors
    /// As [`Trainer::next_logits`].
    pub fn next_logits(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        self.trainer.next_logits(ids)
    }

    /// Exchanges the weights and their mean over the last steps. Returns whether there is one.
    pub fn swap_average(&mut self) -> bool {
        self.trainer.swap_average()
    }

    /// Writes what the next step depends on.
    ///
    /// # Errors
    /// As [`Trainer::save`].
    pub fn save(&self, file: &Path) -> Result<()> {
        self.trainer.save(file, self.best_loss)
    }

    /// Goes on from what [`Run::save`] wrote.
    ///
    /// # Errors
    /// As [`Trainer::restore`].
    pub fn restore(&mut self, file: &Path) -> Result<()> {
        self.best_loss = self.trainer.restore(file)?;
        Ok(())
    }
}
