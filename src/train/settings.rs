//! The settings of a run.

use super::order::Stage;
use super::schedule::Decay;
use super::trained::Scope;
use super::trainer::Optimizers;
use crate::kernels::optimizers::adamw::AdamW;
use crate::kernels::optimizers::muon::Muon;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// How much a run reads.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Length {
    /// Every sequence so many times.
    Epochs(u64),
    /// So many tokens.
    Tokens(u64),
}

/// What moves the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// AdamW for all weights.
    #[default]
    AdamW,
    /// Muon for the blocks' matrices, AdamW for all others.
    Muon,
}

/// The settings that determine the result, together with the model and the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// What is trained.
    pub scope: Scope,
    /// How much is read.
    pub length: Length,
    /// The mixture of the sources, in stages; none if each is read in proportion to its size.
    pub stages: Vec<Stage>,
    /// The tokens of a batch, whose gradients make one step: about so many, for no sequence is cut.
    pub batch_tokens: usize,
    /// The most tokens of a micro-batch, whose activations are in memory at once.
    pub micro_batch_tokens: usize,
    /// What moves the weights.
    pub optimizer: Optimizer,
    /// AdamW's highest learning rate.
    pub learning_rate: f32,
    /// Muon's highest learning rate.
    pub muon_learning_rate: f32,
    /// The part of all steps in which the learning rate rises.
    pub warmup_share: f64,
    /// How the learning rate falls.
    pub decay: Decay,
    /// The part of all steps in which it falls linearly.
    pub decay_share: f64,
    /// The decay of matrices and tables.
    pub weight_decay: f32,
    /// The largest norm of the gradient; a larger one is shortened to it.
    pub max_norm: f64,
    /// The part of all steps, the last ones, whose weights are averaged.
    pub average_share: f64,
    /// The seed of the data's order.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            scope: Scope::All,
            length: Length::Epochs(3),
            stages: vec![],
            batch_tokens: 4096,
            micro_batch_tokens: 4096,
            optimizer: Optimizer::AdamW,
            learning_rate: 3e-4,
            muon_learning_rate: 0.02,
            warmup_share: 0.05,
            decay: Decay::Wsd,
            decay_share: 0.5,
            weight_decay: 0.1,
            max_norm: 1.0,
            average_share: 0.0,
            seed: 0,
        }
    }
}

/// The steps in which Muon's momentum rises from 0.85 to 0.95, as in Jordan's runs of modded-nanogpt.
const MOMENTUM_WARMUP: f32 = 300.0;

impl Settings {
    /// The optimizers of a step, counted from 1, whose learning rates are `factor` times the highest.
    pub fn optimizers(&self, step: u32, factor: f32) -> Optimizers {
        let adamw = AdamW {
            learning_rate: factor * self.learning_rate,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            weight_decay: self.weight_decay,
        };
        let muon = Muon {
            learning_rate: factor * self.muon_learning_rate,
            momentum: 0.85 + 0.1 * (step as f32 / MOMENTUM_WARMUP).min(1.0),
            weight_decay: self.weight_decay,
        };
        Optimizers { adamw, muon: (self.optimizer == Optimizer::Muon).then_some(muon) }
    }

    /// Checks the ranges, for data from so many sources.
    ///
    /// # Errors
    /// [`Error::Parameter`] for the first that is wrong.
    pub fn validate(&self, n_sources: usize) -> Result<()> {
        let check = |name: &str, found: String, is_valid: bool, expected: &str| match is_valid {
            true => Ok(()),
            false => Err(Error::Parameter { name: name.into(), found, expected: expected.into() }),
        };
        for (name, rate) in
            [("learning_rate", self.learning_rate), ("muon_learning_rate", self.muon_learning_rate)]
        {
            check(name, rate.to_string(), rate > 0.0 && rate.is_finite(), "a positive number")?;
        }
        let decay = self.weight_decay;
        check("weight_decay", decay.to_string(), decay >= 0.0 && decay.is_finite(), "a non-negative number")?;
        check("max_norm", self.max_norm.to_string(), self.max_norm > 0.0, "a positive number")?;
        let shares = [
            ("warmup_share", self.warmup_share),
            ("decay_share", self.decay_share),
            ("average_share", self.average_share),
        ];
        for (name, share) in shares {
            check(name, share.to_string(), (0.0..=1.0).contains(&share), "a number from 0 to 1")?;
        }
        let is_share = |share: &f64| *share >= 0.0 && share.is_finite();
        for Stage { share, mixture } in &self.stages {
            check("stages", share.to_string(), is_share(share) && *share > 0.0, "positive numbers")?;
            let is_mixture = mixture.iter().all(is_share) && mixture.iter().sum::<f64>() > 0.0;
            let expected = format!("a number for each of the {n_sources} sources, one of them above 0");
            let is_valid = mixture.len() == n_sources && is_mixture;
            check("mixture", format!("{mixture:?}"), is_valid, &expected)?;
        }
        let (Length::Epochs(n) | Length::Tokens(n)) = self.length;
        check("length", n.to_string(), n > 0, "at least 1")
    }
}
