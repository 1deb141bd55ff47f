//! A training run: batches in their order, steps, evaluation.

use super::dataset::Dataset;
use super::pass::Batch;
use super::schedule::Schedule;
use super::trainer::Trainer;
use crate::kernels::optimizers::adamw::AdamW;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// The most tokens that an evaluation reads: it takes a small part of the run.
const MAX_EVALUATION_TOKENS: usize = 1 << 15;

/// The settings that determine the result, together with the model and the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The most tokens of a batch, whose gradients make one step.
    pub batch_tokens: usize,
    /// The most tokens of a micro-batch, whose activations are in memory at once.
    pub micro_batch_tokens: usize,
    /// How often each sequence is read.
    pub epochs: u64,
    /// The learning rate between warm-up and decay.
    pub learning_rate: f32,
    /// The part of all steps in which the learning rate rises.
    pub warmup_share: f64,
    /// The part of all steps in which the learning rate falls to zero.
    pub decay_share: f64,
    /// The decay of matrices and tables.
    pub weight_decay: f32,
    /// The largest norm of the gradient; a larger one is shortened to it.
    pub max_norm: f64,
    /// The seed of the data's order.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch_tokens: 4096,
            micro_batch_tokens: 4096,
            epochs: 3,
            learning_rate: 3e-4,
            warmup_share: 0.05,
            decay_share: 0.5,
            weight_decay: 0.1,
            max_norm: 1.0,
            seed: 0,
        }
    }
}

impl Settings {
    fn validate(&self) -> Result<()> {
        let check = |name: &str, value: f64, is_valid: bool, expected: &str| match is_valid {
            true => Ok(()),
            false => Err(Error::Parameter {
                name: name.into(),
                found: value.to_string(),
                expected: expected.into(),
            }),
        };
        let rate = f64::from(self.learning_rate);
        check("learning_rate", rate, rate > 0.0 && rate.is_finite(), "a positive number")?;
        let decay = f64::from(self.weight_decay);
        check("weight_decay", decay, decay >= 0.0 && decay.is_finite(), "a non-negative number")?;
        check("max_norm", self.max_norm, self.max_norm > 0.0, "a positive number")?;
        for (name, share) in [("warmup_share", self.warmup_share), ("decay_share", self.decay_share)] {
            check(name, share, (0.0..=1.0).contains(&share), "a number from 0 to 1")?;
        }
        Ok(())
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StepReport {
    /// The step, counted from 1.
    pub step: u32,
    /// The mean cross-entropy of the batch before the step, in nats per token.
    pub loss: f64,
    /// The learning rate.
    pub learning_rate: f32,
    /// The norm of the gradient, before it was shortened.
    pub gradient_norm: f64,
    /// The tokens read.
    pub tokens: usize,
}

/// A run: a trainer, its data, and the order in which it reads them.
pub struct Run {
    trainer: Trainer,
    training: Dataset,
    /// What is held out, to be measured.
    validation: Dataset,
    settings: Settings,
    schedule: Schedule,
    /// The batches of the epoch that the next step is in, and the steps before it.
    epoch: Vec<Vec<usize>>,
    epoch_start: u32,
    epoch_number: u64,
}

impl Run {
    /// Prepares a run that goes on after the trainer's last step.
    ///
    /// # Errors
    /// [`Error::Parameter`] for settings out of range, and for data without a single prediction that counts.
    pub fn new(trainer: Trainer, training: Dataset, validation: Dataset, settings: Settings) -> Result<Self> {
        settings.validate()?;
        let all: Vec<usize> = (0..training.len()).collect();
        if training.weight(&all) <= 0.0 {
            return Err(Error::Parameter {
                name: "data".into(),
                found: "no token to predict".into(),
                expected: "at least one".into(),
            });
        }
        let batches = |epoch| training.batches(&training.order(settings.seed, epoch), settings.batch_tokens);
        let per_epoch: Vec<u32> = (0..settings.epochs).map(|epoch| batches(epoch).len() as u32).collect();
        let steps = per_epoch.iter().sum();
        let part = |share: f64| (f64::from(steps) * share).round() as u32;
        let schedule = Schedule {
            learning_rate: settings.learning_rate,
            warmup: part(settings.warmup_share).max(1),
            decay: part(settings.decay_share),
            steps,
        };
        let (mut epoch_number, mut epoch_start) = (0, 0);
        for n in per_epoch {
            if trainer.step() < epoch_start + n {
                break;
            }
            (epoch_number, epoch_start) = (epoch_number + 1, epoch_start + n);
        }
        let epoch = batches(epoch_number);
        Ok(Self { trainer, training, validation, schedule, epoch, epoch_start, epoch_number, settings })
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
        self.trainer.step() >= self.schedule.steps
    }

    /// Takes one step.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a loss or gradient that is not a finite number; the weights are those before
    /// the step.
    pub fn step(&mut self) -> Result<StepReport> {
        let step = self.trainer.step() + 1;
        if step > self.epoch_start + self.epoch.len() as u32 {
            self.epoch_start += self.epoch.len() as u32;
            self.epoch_number += 1;
            let order = self.training.order(self.settings.seed, self.epoch_number);
            self.epoch = self.training.batches(&order, self.settings.batch_tokens);
        }
        let sequences = &self.epoch[(step - 1 - self.epoch_start) as usize];
        let total = self.training.weight(sequences).max(f64::MIN_POSITIVE);
        let (mut loss, mut tokens) = (0.0, 0);
        for micro_batch in self.training.batches(sequences, self.settings.micro_batch_tokens) {
            let batch = self.training.gather(&micro_batch, total);
            loss += self.trainer.accumulate(&batch)?;
            tokens += batch.len();
        }
        let learning_rate = self.schedule.learning_rate(step);
        let adamw = AdamW {
            learning_rate,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            weight_decay: self.settings.weight_decay,
        };
        let gradient_norm = self.trainer.gradient_norm();
        if !(loss + gradient_norm).is_finite() {
            return Err(Error::Parameter {
                name: "learning_rate".into(),
                found: format!("a loss of {loss} at step {step}"),
                expected: "finite numbers; try a smaller learning rate".into(),
            });
        }
        self.trainer.update(&adamw, (self.settings.max_norm / gradient_norm).min(1.0) as f32);
        Ok(StepReport { step, loss, learning_rate, gradient_norm, tokens })
    }

    /// Returns the mean cross-entropy of the held-out sequences, in nats per token; none if none is held out.
    ///
    /// # Errors
    /// As [`Trainer::loss`].
    pub fn evaluate(&mut self) -> Result<Option<f64>> {
        let Self { trainer, validation, settings, .. } = self;
        let all: Vec<usize> = (0..validation.len()).collect();
        let some = validation.batches(&all, MAX_EVALUATION_TOKENS).into_iter().next().unwrap_or_default();
        let total = validation.weight(&some);
        if total <= 0.0 {
            return Ok(None);
        }
        let batches = validation.batches(&some, settings.micro_batch_tokens);
        let losses = batches.iter().map(|batch| -> Result<f64> {
            let batch: Batch = validation.gather(batch, total);
            trainer.loss(&batch)
        });
        losses.sum::<Result<f64>>().map(Some)
    }
}
