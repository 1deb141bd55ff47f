//! The backward pass: the forward pass read from its last line to its first. Where the forward pass adds to
//! the residual stream, the gradient goes both ways: `dx` stays, and flows into what was added.

use super::activations::Activations;
use super::layout::WeightAndBias;
use super::pass::Pass;
use super::profile::{Operation, finished};
use super::trained::TrainedGradients;
use crate::kernels::backward;
use crate::kernels::backward::attention::Batch as AttentionBatch;
use crate::kernels::backward::cross_entropy::{self, Targets};
use crate::kernels::backward::layer_norm::Statistics;
use crate::kernels::backward::low_rank;
use crate::kernels::rows::{Rows, RowsMut};

/// The buffers of the loss and of the layer norms.
#[derive(Debug, Default)]
pub struct Workspace {
    cross_entropy: cross_entropy::Workspace,
    statistics: Vec<Statistics>,
    low_rank: low_rank::Workspace,
}

impl Workspace {
    /// The weighted sum of right predictions of the last pass.
    pub(super) fn accuracy(&self) -> f64 {
        self.cross_entropy.accuracy()
    }
}

impl Pass<'_> {
    /// Returns the loss of a forward pass.
    pub(super) fn loss(&self, a: &Activations, workspace: &mut Workspace) -> f64 {
        let head = &self.weights[self.layout.head().clone()];
        cross_entropy::loss(self.pool, a.normed.rows(), head, self.targets(), &mut workspace.cross_entropy)
    }

    /// Adds the gradients of the loss to `gradients`, and returns the loss of a forward pass.
    pub(super) fn backward(
        &self,
        a: &mut Activations,
        gradients: TrainedGradients,
        workspace: &mut Workspace,
    ) -> f64 {
        let first_layer = gradients.trained.first_layer();
        let mut backward = Backward { pass: self, gradients, workspace };
        let loss = backward.lm_head(a);
        for layer in (first_layer..self.config.n_layer).rev() {
            backward.block(layer, a);
        }
        backward.embed(a);
        loss
    }

    fn targets(&self) -> Targets<'_> {
        Targets { ids: &self.batch.targets, weights: &self.batch.weights }
    }
}

struct Backward<'a> {
    pass: &'a Pass<'a>,
    gradients: TrainedGradients<'a>,
    workspace: &'a mut Workspace,
}

impl Backward<'_> {
    /// The loss, the LM head and the last layer norm, down to `dx`.
    fn lm_head(&mut self, a: &mut Activations) -> f64 {
        let Pass { pool, weights, layout, .. } = *self.pass;
        let Activations { resid_final, normed, dx, dy, .. } = a;
        let (head, dhead) = (&weights[layout.head().clone()], self.gradients.of(layout.head()));
        let targets = self.pass.targets();
        let workspace = &mut self.workspace.cross_entropy;
        let loss = cross_entropy::loss_and_gradients(
            pool,
            normed.rows(),
            head,
            targets,
            dy.rows_mut(),
            dhead,
            workspace,
        );
        finished(Operation::CrossEntropy);
        dx.as_mut_slice().fill(0.0);
        self.layer_norm(resid_final.rows(), &layout.ln_f, dy.rows(), dx.rows_mut());
        loss
    }

    /// One block: MLP, then attention.
    fn block(&mut self, layer: usize, a: &mut Activations) {
        let (pass, w) = (self.pass, &self.pass.layout.blocks[layer]);
        let Activations { blocks, normed, hidden, dx, dy, dqkv, dhidden, .. } = a;
        let block = &blocks[layer];

        // x += mlp(layer_norm(x))
        self.linear_input(&w.mlp_proj, dx.rows(), dhidden.rows_mut()); // [n_tokens, n_inner]
        self.activation(block.pre.rows(), hidden.rows_mut(), dhidden.rows_mut()); // [n_tokens, n_inner]
        self.linear_weights(hidden.rows(), &w.mlp_proj, dx.rows());
        pass.layer_norm(block.resid_mid.rows(), &w.ln_2, normed.rows_mut()); // as in the forward pass
        self.linear(normed.rows(), &w.c_fc, dhidden.rows(), dy.rows_mut()); // [n_tokens, n_embd]
        self.layer_norm(block.resid_mid.rows(), &w.ln_2, dy.rows(), dx.rows_mut()); // dx += ...

        // x += attention(layer_norm(x))
        self.linear(block.z.rows(), &w.attn_proj, dx.rows(), dy.rows_mut()); // [n_tokens, n_embd]
        self.attention(layer, block.qkv.rows(), block.z.rows(), dy.rows(), dqkv.rows_mut());
        pass.layer_norm(block.resid_pre.rows(), &w.ln_1, normed.rows_mut()); // as in the forward pass
        self.linear(normed.rows(), &w.c_attn, dqkv.rows(), dy.rows_mut()); // [n_tokens, n_embd]
        self.layer_norm(block.resid_pre.rows(), &w.ln_1, dy.rows(), dx.rows_mut()); // dx += ...
    }

    /// The tables of token and position embeddings.
    fn embed(&mut self, a: &Activations) {
        let Pass { pool, layout, batch, .. } = *self.pass;
        let dx = a.dx.rows();
        if let Some(dwte) = self.gradients.of(&layout.wte) {
            backward::embedding::embedding(pool, &batch.ids, dx, dwte);
        }
        if let Some(dwpe) = layout.wpe.as_ref().and_then(|wpe| self.gradients.of(wpe)) {
            backward::embedding::embedding(pool, &batch.positions, dx, dwpe);
        }
        finished(Operation::EmbeddingGradient);
    }

    /// `y = x · W + b`: writes dx, and adds to the gradients of W and b, or of what is added to W.
    fn linear(&mut self, x: Rows, w: &WeightAndBias, dy: Rows, dx: RowsMut) {
        self.linear_input(w, dy, dx);
        self.linear_weights(x, w, dy);
    }

    fn linear_input(&self, w: &WeightAndBias, dy: Rows, dx: RowsMut) {
        backward::linear::input_gradient(self.pass.pool, dy, &self.pass.weights[w.weight.clone()], dx);
        finished(Operation::LinearInputGradient);
    }

    fn linear_weights(&mut self, x: Rows, w: &WeightAndBias, dy: Rows) {
        let (pool, gradients) = (self.pass.pool, &mut self.gradients);
        if let Some(dw) = gradients.of(&w.weight) {
            backward::linear::weight_gradient(pool, x, dy, dw);
            finished(Operation::LinearWeightGradient);
        }
        if let Some(db) = gradients.of(&w.bias) {
            backward::linear::bias_gradient(pool, dy, db);
            finished(Operation::LinearBiasGradient);
        }
        if let Some((change, [a, b])) = gradients.trained.change(w) {
            let (before_b, from_b) = gradients.values.split_at_mut(b.start);
            let gradients = [&mut before_b[a], &mut from_b[..b.len()]];
            low_rank::gradients(pool, x, dy, change, gradients, &mut self.workspace.low_rank);
            finished(Operation::LinearWeightGradient);
        }
    }

    /// Adds to dx, and to the gradients of weight and bias.
    fn layer_norm(&mut self, x: Rows, w: &WeightAndBias, dy: Rows, dx: RowsMut) {
        let (pool, weight) = (self.pass.pool, &self.pass.weights[w.weight.clone()]);
        let epsilon = self.pass.config.layer_norm_epsilon;
        self.workspace.statistics.resize(x.len(), Statistics::default());
        let statistics = &mut self.workspace.statistics[..];
        backward::layer_norm::input_gradient(pool, x, weight, epsilon, dy, dx, statistics);
        if let Some(gradients) = self.gradients.of(&(w.weight.start..w.bias.end)) {
            let (dweight, rest) = gradients.split_at_mut(w.bias.start - w.weight.start);
            let dweight = &mut dweight[..w.weight.len()];
            backward::layer_norm::weight_gradients(pool, x, dy, statistics, dweight, rest);
        }
        finished(Operation::LayerNormGradient);
    }

    /// Writes the neurons as in the forward pass, and multiplies their gradient with the derivative.
    fn activation(&self, pre: Rows, hidden: RowsMut, dhidden: RowsMut) {
        let activation = self.pass.config.activation_function;
        backward::activation::activation(self.pass.pool, activation, pre, hidden, dhidden);
        finished(Operation::ActivationGradient);
    }

    fn attention(&self, layer: usize, qkv: Rows, z: Rows, dz: Rows, dqkv: RowsMut) {
        let config = self.pass.config;
        let (sequences, n_head) = (&self.pass.batch.sequences[..], config.n_head);
        let batch = AttentionBatch { sequences, n_head, scale: config.attention_scale(layer) };
        backward::attention::attention(self.pass.pool, batch, qkv, z, dz, dqkv);
        finished(Operation::AttentionGradient);
    }
}
