//! The forward pass, as a list of operations. Each reads a buffer, with one row per token of the batch, and
//! writes another: `Store` replaces it, `Add` adds to it. `X` is the residual stream. `Ln1(layer)` and the
//! like name the operation for observers and timers.

use super::pass::Pass;
use super::workspace::Buffer::{Hidden, Logits, Normed, Positions, Qkv, X, Z};
use super::{Config, Model, Observer, Operation, Segment, Site, Workspace};
use crate::kernels::linear::Epilogue::{Activate, Add, Store};
use crate::{Error, Result};
use Operation::{AttnProj, CAttn, CFc, Ln1, Ln2, LnF, MlpProj};

impl Model {
    /// Runs the new tokens of any number of sequences through the model. Appends their keys and values to
    /// their caches and leaves the requested logits in `workspace`, in the order of the segments. Whether
    /// these are finite numbers is for [`Model::check_finite`] to say, for each sequence by itself.
    ///
    /// # Errors
    /// [`Error::TokenId`] and [`Error::ContextOverflow`]; both are checked before anything is computed or
    /// cached.
    pub fn forward(
        &self,
        batch: &mut [Segment],
        workspace: &mut Workspace,
        observer: &mut impl Observer,
    ) -> Result<()> {
        self.validate(batch)?;
        workspace.prepare(batch);
        let mut pass = Pass { model: self, batch, workspace, observer };
        pass.embed(); // x, [n_tokens, n_embd]
        for layer in 0..self.config.n_layer {
            pass.block(layer); // x += ..., [n_tokens, n_embd]
        }
        pass.lm_head(); // logits, [n_logits, vocab_size]
        for segment in batch {
            segment.cache.advance(segment.tokens.len());
        }
        Ok(())
    }

    fn validate(&self, batch: &[Segment]) -> Result<()> {
        let &Config { vocab_size, n_positions, .. } = &self.config;
        for Segment { tokens, cache, .. } in batch {
            if let Some(&id) = tokens.iter().find(|&&id| id as usize >= vocab_size) {
                return Err(Error::TokenId { id, vocab_size });
            }
            if cache.len() + tokens.len() > n_positions.min(cache.capacity()) {
                let prompt_tokens = cache.len() + tokens.len();
                return Err(Error::ContextOverflow { prompt_tokens, n_positions });
            }
        }
        Ok(())
    }
}

impl<O: Observer> Pass<'_, '_, O> {
    /// The residual stream `x` before the first block: token embeddings plus position embeddings.
    fn embed(&mut self) {
        self.embedding(Model::wte, |segment, t| segment.tokens[t] as usize, X); // [n_tokens, n_embd]
        self.emit(Site::Embed, X);
        self.embedding(Model::wpe, |segment, t| segment.cache.len() + t, Positions); // [n_tokens, n_embd]
        self.emit(Site::PosEmbed, Positions);
        self.add(Positions, X); // x += wpe[positions]: [n_tokens, n_embd]
        self.probe(Operation::Embed, X);
    }

    /// One transformer block: attention, then MLP; each adds its output to the residual stream `x`.
    fn block(&mut self, layer: usize) {
        let w = &self.model.weights.blocks[layer];
        let activation = Activate(self.model.config.activation_function);

        // x += attention(layer_norm(x))
        self.layer_norm(X, &w.ln_1, Normed, Ln1(layer)); // [n_tokens, n_embd]
        self.linear(Normed, &w.c_attn, Store, Qkv, CAttn(layer)); // q, k and v: [n_tokens, 3 * n_embd]
        self.append_to_cache(Qkv, layer); // k and v, after those of earlier tokens
        self.attention(Qkv, Z, layer); // every head's softmax(q · k · scale) · v: [n_tokens, n_embd]
        self.linear(Z, &w.attn_proj, Add, X, AttnProj(layer)); // x += z · W + b: [n_tokens, n_embd]

        // x += mlp(layer_norm(x))
        self.layer_norm(X, &w.ln_2, Normed, Ln2(layer)); // [n_tokens, n_embd]
        self.linear(Normed, &w.c_fc, activation, Hidden, CFc(layer)); // activation(…): [n_tokens, n_inner]
        self.linear(Hidden, &w.mlp_proj, Add, X, MlpProj(layer)); // x += hidden · W + b: [n_tokens, n_embd]
    }

    /// The requested logits: the last layer norm, then the dot product with every token's row.
    fn lm_head(&mut self) {
        self.layer_norm(X, &self.model.weights.ln_f, Normed, LnF); // [n_tokens, n_embd]
        self.unembed(Normed, Logits); // [n_logits, vocab_size]
    }
}
