//! The activations of one forward pass (TransformerLens' `ActivationCache`).

use crate::kernels::attention::KvPrecision;
use crate::model::{LogitsWanted, Model, Observer, Segment, Site, Workspace};
use crate::{Error, Result};
use ndarray::{Array2, Array3, Array4, ArrayView2, ArrayViewMutD, s};

/// The activations of one pass over a text. Capturing them changes no bit of the pass.
#[derive(Clone, Debug)]
pub struct ActivationCache {
    /// The tokens of the text, `[n]`.
    pub tokens: Vec<u32>,
    /// Token embeddings, `[n, n_embd]`.
    pub embed: Array2<f32>,
    /// The residual stream before the first block and after each, `[n_layer + 1, n, n_embd]`.
    pub residuals: Array3<f32>,
    /// Attention patterns, `[n_layer, n_head, n, n]`: row i holds the attention weights of token i.
    pub patterns: Array4<f32>,
    /// The output of each head before `c_proj` (`hook_z`), `[n_layer, n, n_embd]`, heads concatenated.
    pub z: Array3<f32>,
    /// The output of each MLP, `[n_layer, n, n_embd]`.
    pub mlp_out: Array3<f32>,
    /// The logits, `[n, vocab_size]`.
    pub logits: Array2<f32>,
}

impl ActivationCache {
    /// Runs a text of at least one token through the model. `observer` is called at each site before the
    /// activations are recorded, so its changes are recorded too; `()` changes nothing.
    ///
    /// # Errors
    /// [`Error::Prompt`] for no tokens, [`Error::TokenId`], [`Error::ContextOverflow`].
    pub fn capture(
        model: &Model,
        tokens: &[u32],
        kv_precision: impl Into<Option<KvPrecision>>,
        observer: &mut impl Observer,
    ) -> Result<Self> {
        let config = model.config();
        if tokens.is_empty() {
            return Err(Error::Prompt("the text has no tokens, expected at least one".into()));
        }
        if tokens.len() > config.n_positions {
            // Checked before memory is allocated for it.
            let (prompt_tokens, n_positions) = (tokens.len(), config.n_positions);
            return Err(Error::ContextOverflow { prompt_tokens, n_positions });
        }
        let (n, n_layer, n_embd) = (tokens.len(), config.n_layer, config.n_embd);
        let cache = Self {
            tokens: tokens.to_vec(),
            embed: Array2::zeros((n, n_embd)),
            residuals: Array3::zeros((n_layer + 1, n, n_embd)),
            patterns: Array4::zeros((n_layer, config.n_head, n, n)),
            z: Array3::zeros((n_layer, n, n_embd)),
            mlp_out: Array3::zeros((n_layer, n, n_embd)),
            logits: Array2::zeros((n, config.vocab_size)),
        };
        let mut recorder = Recorder { inner: observer, cache };
        let mut kv_cache = model.kv_cache(n, kv_precision);
        let segment = Segment { tokens, cache: &mut kv_cache, logits: LogitsWanted::All };
        let mut workspace = Workspace::new();
        model.forward(&mut [segment], &mut workspace, &mut recorder)?;
        model.check_finite(workspace.logits(), &kv_cache)?;
        Ok(recorder.cache)
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Always false: a text has at least one token.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// One head's attention pattern, `[n, n]`.
    ///
    /// # Panics
    /// Panics if there is no such head.
    pub fn pattern(&self, layer: usize, head: usize) -> ArrayView2<'_, f32> {
        self.patterns.slice(s![layer, head, .., ..])
    }

    /// The norms of the residual stream's vectors, `[n_layer + 1, n]`.
    pub fn residual_norms(&self) -> Array2<f32> {
        let norm = |x: ndarray::ArrayView1<f32>| {
            x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt() as f32
        };
        self.residuals.map_axis(ndarray::Axis(2), norm)
    }
}

/// Records activations after an inner observer has changed them.
struct Recorder<'f, O> {
    inner: &'f mut O,
    cache: ActivationCache,
}

impl<O: Observer> Recorder<'_, O> {
    fn records(site: Site) -> bool {
        use Site::*;
        matches!(site, Embed | ResidPre(0) | Pattern(_) | Z(_) | MlpOut(_) | ResidPost(_) | Logits)
    }
}

impl<O: Observer> Observer for Recorder<'_, O> {
    fn is_interested(&self, site: Site) -> bool {
        Self::records(site) || (O::ENABLED && self.inner.is_interested(site))
    }

    fn observe(&mut self, site: Site, mut values: ArrayViewMutD<'_, f32>) {
        if O::ENABLED && self.inner.is_interested(site) {
            self.inner.observe(site, values.view_mut());
        }
        let ActivationCache { embed, residuals, patterns, z, mlp_out, logits, .. } = &mut self.cache;
        let mut target = match site {
            Site::Embed => embed.view_mut().into_dyn(),
            Site::ResidPre(0) => residuals.slice_mut(s![0, .., ..]).into_dyn(),
            Site::ResidPost(layer) => residuals.slice_mut(s![layer + 1, .., ..]).into_dyn(),
            Site::Pattern(layer) => patterns.slice_mut(s![layer, .., .., ..]).into_dyn(),
            Site::Z(layer) => z.slice_mut(s![layer, .., ..]).into_dyn(),
            Site::MlpOut(layer) => mlp_out.slice_mut(s![layer, .., ..]).into_dyn(),
            Site::Logits => logits.view_mut().into_dyn(),
            _ => return,
        };
        target.assign(&values);
    }
}
