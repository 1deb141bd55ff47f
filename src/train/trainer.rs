//! A model that learns: weights, their gradients, and the moments of AdamW.

use super::activations::Activations;
use super::backward::Workspace;
use super::layout::{Layout, TensorPlace};
use super::pass::{Batch, Pass};
use super::trained::{Scope, Trained, TrainedGradients};
use crate::checkpoint::adapter::Adapter;
use crate::checkpoint::{Checkpoint, Config, F32Tensor};
use crate::kernels::aligned_vec::AlignedVec;
use crate::kernels::embedding::copy_row;
use crate::kernels::optimizers::adamw::{AdamW, Parameters};
use crate::kernels::optimizers::gradient_norm::gradient_norm;
use crate::kernels::optimizers::muon::{self, Muon};
use crate::kernels::positions::sinusoidal;
use crate::kernels::thread_pool::ThreadPool;
use crate::{Error, Result};

/// What moves the weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Optimizers {
    /// For tables, biases and layer norms, and for the blocks' matrices if there is no Muon.
    pub adamw: AdamW,
    /// For the blocks' matrices.
    pub muon: Option<Muon>,
}

/// A GPT-2 and what training it needs: four numbers per trained weight, and the activations of a micro-batch.
pub struct Trainer {
    config: Config,
    layout: Layout,
    pool: ThreadPool,
    weights: AlignedVec<f32>,
    trained: Trained,
    /// Of what is trained, as are the moments and the average.
    gradients: AlignedVec<f32>,
    m: AlignedVec<f32>,
    v: AlignedVec<f32>,
    /// The mean of what is trained after some steps, and their number; empty if there are none.
    average: AlignedVec<f32>,
    n_averaged: u32,
    /// Steps taken.
    step: u32,
    muon_workspace: muon::Workspace,
    sinusoidal: Vec<f32>,
    activations: Activations,
    workspace: Workspace,
}

impl Trainer {
    /// Takes the weights of a checkpoint, in f32, to train all of them. Micro-batches have at most
    /// `max_tokens` tokens.
    ///
    /// # Errors
    /// [`Error::Parameter`] for quantized weights, which cannot move by small steps.
    pub fn new(checkpoint: &Checkpoint, pool: ThreadPool, max_tokens: usize) -> Result<Self> {
        Self::with_scope(checkpoint, pool, max_tokens, &Scope::All, 0)
    }

    /// Takes the weights of a checkpoint, in f32, to train what `scope` says. An adapter begins with numbers
    /// that depend on the seed.
    ///
    /// # Errors
    /// [`Error::Parameter`] for quantized weights, and for a scope that the model does not have.
    pub fn with_scope(
        checkpoint: &Checkpoint,
        pool: ThreadPool,
        max_tokens: usize,
        scope: &Scope,
        seed: u64,
    ) -> Result<Self> {
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
        let trained = Trained::new(scope, seed, &config, &layout, &weights)?;
        let zeros = || AlignedVec::zeroed(trained.len());
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
            trained,
            average: AlignedVec::zeroed(0),
            n_averaged: 0,
            step: 0,
            muon_workspace: muon::Workspace::default(),
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

    /// The places of the tensors in the weights.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// All weights.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// The tensors that are trained, and their places in the gradients.
    pub fn trained(&self) -> &[TensorPlace] {
        &self.trained.tensors
    }

    /// Replaces the values of what is trained, at the places of [`Trainer::trained`].
    ///
    /// # Panics
    /// If there are more or fewer.
    pub fn set_trained(&mut self, values: &[f32]) {
        self.trained.values_mut(&mut self.weights).copy_from_slice(values);
        self.trained.apply(&self.pool, &mut self.weights);
    }

    /// The gradients of what is trained since the last step.
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
        self.run(batch, |pass, a, trained, workspace| pass.backward(a, trained, workspace))
    }

    /// Returns the weighted sum of the predictions of the last batch that were right: the most likely token
    /// was the next one.
    pub fn accuracy(&self) -> f64 {
        self.workspace.accuracy()
    }

    /// Returns the logits of the token that follows `ids`, `[vocab_size]`.
    ///
    /// # Errors
    /// As [`Trainer::loss`].
    pub fn next_logits(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        let mut batch = Batch::default();
        batch.push(&[ids, &[0]].concat(), 0.0);
        self.run(&batch, |pass, a, _, _| pass.next_logits(a))
    }

    fn run<T>(
        &mut self,
        batch: &Batch,
        after: impl FnOnce(&Pass, &mut Activations, TrainedGradients, &mut Workspace) -> T,
    ) -> Result<T> {
        self.validate(batch)?;
        let Self { config, layout, pool, weights, sinusoidal, activations, workspace, .. } = self;
        let gradients = TrainedGradients { trained: &self.trained, values: &mut self.gradients };
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
    pub fn update(&mut self, optimizers: &Optimizers, factor: f32) {
        self.step += 1;
        let Self { weights, trained, gradients, m, v, muon_workspace, pool, .. } = self;
        let tensors = std::mem::take(&mut trained.tensors);
        let values = trained.values_mut(weights);
        for place in &tensors {
            let range = || place.range.clone();
            let (weights, gradient, m) = (&mut values[range()], &gradients[range()], &mut m[range()]);
            if let (Some(muon), Some(parts)) = (optimizers.muon, place.parts()) {
                let inputs = place.shape[0];
                let parameters = muon::Parameters { weights, gradient, momentum: m, inputs, parts };
                muon.step(pool, factor, parameters, muon_workspace);
            } else {
                let weight_decay = if place.is_matrix() { optimizers.adamw.weight_decay } else { 0.0 };
                let parameters = Parameters { weights, gradient, m, v: &mut v[range()] };
                AdamW { weight_decay, ..optimizers.adamw }.step(pool, self.step, factor, parameters);
            }
        }
        gradients.fill(0.0);
        trained.tensors = tensors;
        trained.apply(pool, weights);
    }

    /// Adds what is trained to the mean of its values after earlier steps (Izmailov et al. 2018, "stochastic
    /// weight averaging").
    pub fn average(&mut self) {
        if self.average.is_empty() {
            self.average = AlignedVec::zeroed(self.trained.len());
        }
        self.n_averaged += 1;
        let part = 1.0 / self.n_averaged as f32;
        const ELEMENTS_PER_CHUNK: usize = 1 << 14;
        let values = self.trained.values(&self.weights);
        self.pool.for_each_chunk(&mut self.average, ELEMENTS_PER_CHUNK, |i, average| {
            let values = &values[i * ELEMENTS_PER_CHUNK..];
            average.iter_mut().zip(values).for_each(|(average, x)| *average += part * (x - *average));
        });
    }

    /// Exchanges the weights and their mean. Returns whether there is one.
    pub fn swap_average(&mut self) -> bool {
        let has_average = self.n_averaged > 0;
        if has_average {
            let Self { weights, trained, average, .. } = self;
            trained.values_mut(weights).swap_with_slice(average);
            trained.apply(&self.pool, weights);
        }
        has_average
    }

    /// The adapter, if one is trained.
    pub fn adapter(&self) -> Option<Adapter> {
        self.trained.adapter()
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

    /// The vectors of the state by name, and the numbers of steps taken and averaged.
    pub(super) fn state(&self) -> (Vec<(&'static str, &[f32])>, [u32; 2]) {
        let values = self.trained.values(&self.weights);
        let mut vectors: Vec<(_, &[f32])> = vec![("weights", values), ("m", &self.m), ("v", &self.v)];
        if self.n_averaged > 0 {
            vectors.push(("average", &self.average));
        }
        (vectors, [self.step, self.n_averaged])
    }

    /// Fills the vectors of a state with these numbers of steps, by `fill`.
    ///
    /// # Errors
    /// The first of `fill`.
    pub(super) fn set_state(
        &mut self,
        [step, n_averaged]: [u32; 2],
        fill: impl Fn(&str, &mut [f32]) -> Result<()>,
    ) -> Result<()> {
        (self.step, self.n_averaged) = (step, n_averaged);
        fill("weights", self.trained.values_mut(&mut self.weights))?;
        fill("m", &mut self.m)?;
        fill("v", &mut self.v)?;
        if n_averaged > 0 {
            self.average = AlignedVec::zeroed(self.trained.len());
            fill("average", &mut self.average)?;
        }
        self.trained.apply(&self.pool, &mut self.weights);
        Ok(())
    }
}
