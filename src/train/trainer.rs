//! A model that learns: weights, their gradients, and the moments of AdamW.

use super::activations::Activations;
use super::backward::Workspace;
use super::layout::{Layout, TensorPlace};
use super::pass::{Batch, Pass};
use crate::checkpoint::{Checkpoint, Config, F32Tensor};
use crate::kernels::aligned_vec::AlignedVec;
use crate::kernels::embedding::copy_row;
use crate::kernels::optimizers::adamw::{AdamW, Parameters};
use crate::kernels::optimizers::gradient_norm::gradient_norm;
use crate::kernels::positions::sinusoidal;
use crate::kernels::thread_pool::ThreadPool;
use crate::{Error, Result};

/// A GPT-2 and what training it needs: four numbers per weight, and the activations of a micro-batch.
pub struct Trainer {
    config: Config,
    layout: Layout,
    pool: ThreadPool,
    weights: AlignedVec<f32>,
    gradients: AlignedVec<f32>,
    m: AlignedVec<f32>,
    v: AlignedVec<f32>,
    /// Steps taken.
    step: u32,
    sinusoidal: Vec<f32>,
    activations: Activations,
    workspace: Workspace,
}

impl Trainer {
    /// Takes the weights of a checkpoint, in f32. Micro-batches have at most `max_tokens` tokens.
    ///
    /// # Errors
    /// [`Error::Parameter`] for quantized weights, which cannot move by small steps.
    pub fn new(checkpoint: &Checkpoint, pool: ThreadPool, max_tokens: usize) -> Result<Self> {
        let config = checkpoint.config.clone();
        let layout = Layout::new(&config);
        let mut weights = AlignedVec::zeroed(layout.len());
        for (place, tensor) in layout.tensors.iter().zip(checkpoint.weights.tensors()) {
            if tensor.precision().is_quantized() {
                return Err(Error::Parameter {
                    name: "model".into(),
                    found: format!("{} weights", tensor.precision()),
                    expected: "f32, f16 or bf16 weights, which can move by small steps".into(),
                });
            }
            copy_row(tensor.elements(), 0, &mut weights[place.range.clone()]);
        }
        let zeros = || AlignedVec::zeroed(layout.len());
        let sinusoidal = match layout.wpe {
            Some(_) => vec![],
            None => sinusoidal(config.n_positions, config.n_embd),
        };
        Ok(Self {
            activations: Activations::new(&config, max_tokens),
            weights,
            gradients: zeros(),
            m: zeros(),
            v: zeros(),
            step: 0,
            sinusoidal,
            workspace: Workspace::default(),
            config,
            layout,
            pool,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The places of the tensors in weights and gradients.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// All weights.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// The gradients since the last step.
    pub fn gradients(&self) -> &[f32] {
        &self.gradients
    }

    /// Steps taken.
    pub fn step(&self) -> u32 {
        self.step
    }

    /// Returns the loss of a batch: the weighted sum of the cross-entropy of its predictions, in nats.
    ///
    /// # Errors
    /// [`Error::TokenId`] and [`Error::ContextOverflow`].
    pub fn loss(&mut self, batch: &Batch) -> Result<f64> {
        self.run(batch, |pass, a, _, workspace| pass.loss(a, workspace))
    }

    /// Returns the loss of a batch and adds its gradients to those of earlier ones since the last step.
    ///
    /// # Errors
    /// As [`Trainer::loss`].
    pub fn accumulate(&mut self, batch: &Batch) -> Result<f64> {
        self.run(batch, |pass, a, gradients, workspace| pass.backward(a, gradients, workspace))
    }

    fn run(
        &mut self,
        batch: &Batch,
        after: impl FnOnce(&Pass, &mut Activations, &mut [f32], &mut Workspace) -> f64,
    ) -> Result<f64> {
        self.validate(batch)?;
        let Self { config, layout, pool, weights, gradients, sinusoidal, activations, workspace, .. } = self;
        activations.set_n_tokens(batch.len());
        let pass = Pass { pool, config, layout, weights, sinusoidal, batch };
        pass.forward(activations);
        Ok(after(&pass, activations, gradients, workspace))
    }

    fn validate(&self, batch: &Batch) -> Result<()> {
        let Config { vocab_size, n_positions, .. } = self.config;
        if let Some(&id) = batch.ids.iter().chain(&batch.targets).find(|&&id| id as usize >= vocab_size) {
            return Err(Error::TokenId { id, vocab_size });
        }
        match batch.sequences.iter().map(|rows| rows.len()).find(|&n| n > n_positions) {
            Some(prompt_tokens) => Err(Error::ContextOverflow { prompt_tokens, n_positions }),
            None => Ok(()),
        }
    }

    /// The norm of the accumulated gradients, as if they were one vector.
    pub fn gradient_norm(&self) -> f64 {
        gradient_norm(&self.pool, &[&self.gradients])
    }

    /// Moves the weights by the accumulated gradients times `factor`, and starts to accumulate from zero.
    /// Weight decay applies to matrices and tables alone, as in nanoGPT.
    pub fn update(&mut self, adamw: &AdamW, factor: f32) {
        self.step += 1;
        for place in &self.layout.tensors {
            let weight_decay = if place.is_matrix() { adamw.weight_decay } else { 0.0 };
            let parameters = Parameters {
                weights: &mut self.weights[place.range.clone()],
                gradient: &self.gradients[place.range.clone()],
                m: &mut self.m[place.range.clone()],
                v: &mut self.v[place.range.clone()],
            };
            AdamW { weight_decay, ..*adamw }.step(&self.pool, self.step, factor, parameters);
        }
        self.gradients.fill(0.0);
    }

    /// All weights, as a checkpoint stores them.
    pub fn tensors(&self) -> Vec<F32Tensor<'_>> {
        let tensor = |place: &'_ TensorPlace| F32Tensor {
            name: place.name.clone(),
            shape: place.shape.clone(),
            values: &self.weights[place.range.clone()],
        };
        self.layout.tensors.iter().map(tensor).collect()
    }

    /// What [`Trainer::save`] saves.
    pub(super) fn state(&self) -> [&[f32]; 3] {
        [&self.weights, &self.m, &self.v]
    }

    /// What [`Trainer::restore`] restores, for a number of steps taken.
    pub(super) fn state_mut(&mut self, step: u32) -> [&mut [f32]; 3] {
        self.step = step;
        [&mut self.weights, &mut self.m, &mut self.v]
    }
}
