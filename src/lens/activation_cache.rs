//! One forward pass, kept.

use crate::kernels::attention::KvPrecision;
use crate::model::{KvCache, LogitsWanted, Model, Observer, Segment, Site, Workspace};
use crate::{Error, Result};
use ndarray::{Array2, Array3, Array4, ArrayView2, ArrayViewMutD, s};

/// What one pass over a text computed. Taking it changes no bit of the pass.
#[derive(Clone, Debug)]
pub struct ActivationCache {
    /// The text.
    pub tokens: Vec<u32>,
    /// Token embeddings, `[n, n_embd]`.
    pub embed: Array2<f32>,
    /// The residual stream before the first block and after each, `[n_layer + 1, n, n_embd]`.
    pub residuals: Array3<f32>,
    /// Attention patterns, `[n_layer, n_head, n, n]`: row i is how token i's attention is shared out.
    pub patterns: Array4<f32>,
    /// What each head brings before `c_proj`, `[n_layer, n, n_embd]`, the heads side by side.
    pub z: Array3<f32>,
    /// What each MLP adds to the residual stream, `[n_layer, n, n_embd]`.
    pub mlp_out: Array3<f32>,
    /// The answers, `[n, vocab_size]`.
    pub logits: Array2<f32>,
}

impl ActivationCache {
    /// Runs a text of at least one token through the model. `first` sees each site before it is kept, so whatever it
    /// changes is what is captured; `()` changes nothing.
    ///
    /// # Errors
    /// [`Error::Message`] for no tokens, [`Error::TokenId`], [`Error::ContextOverflow`].
    pub fn capture(
        model: &Model,
        tokens: &[u32],
        kv_precision: impl Into<Option<KvPrecision>>,
        first: &mut impl Observer,
    ) -> Result<Self> {
        let config = model.config();
        if tokens.is_empty() {
            return Err(Error::Message("there is no token to look at".into()));
        }
        if tokens.len() > config.n_positions {
            // Said before room is made for it.
            let (prompt_tokens, n_positions) = (tokens.len(), config.n_positions);
            return Err(Error::ContextOverflow { prompt_tokens, n_positions });
        }
        let (n, n_layer, n_embd) = (tokens.len(), config.n_layer, config.n_embd);
        let capture = Self {
            tokens: tokens.to_vec(),
            embed: Array2::zeros((n, n_embd)),
            residuals: Array3::zeros((n_layer + 1, n, n_embd)),
            patterns: Array4::zeros((n_layer, config.n_head, n, n)),
            z: Array3::zeros((n_layer, n, n_embd)),
            mlp_out: Array3::zeros((n_layer, n, n_embd)),
            logits: Array2::zeros((n, config.vocab_size)),
        };
        let mut keeper = Keeper { first, capture };
        let mut cache = KvCache::new(config, n, kv_precision.into().unwrap_or(model.kv_precision()));
        let segment = Segment { tokens, cache: &mut cache, logits: LogitsWanted::All };
        model.forward(&mut [segment], &mut Workspace::new(), &mut keeper)?;
        Ok(keeper.capture)
    }

    /// How many tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is none; a capture has at least one.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// One head's attention pattern, `[n, n]`.
    ///
    /// # Panics
    /// Where there is no such head.
    pub fn pattern(&self, layer: usize, head: usize) -> ArrayView2<'_, f32> {
        self.patterns.slice(s![layer, head, .., ..])
    }

    /// The lengths of the residual stream's vectors, `[n_layer + 1, n]`.
    pub fn residual_norms(&self) -> Array2<f32> {
        let norm = |x: ndarray::ArrayView1<f32>| {
            x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt() as f32
        };
        self.residuals.map_axis(ndarray::Axis(2), norm)
    }
}

/// Keeps what it sees, after another observer has had its way with it.
struct Keeper<'f, O> {
    first: &'f mut O,
    capture: ActivationCache,
}

impl<O: Observer> Keeper<'_, O> {
    fn keeps(site: Site) -> bool {
        use Site::*;
        matches!(site, Embed | ResidPre(0) | Pattern(_) | Z(_) | MlpOut(_) | ResidPost(_) | Logits)
    }
}

impl<O: Observer> Observer for Keeper<'_, O> {
    fn is_interested(&self, site: Site) -> bool {
        Self::keeps(site) || (O::ENABLED && self.first.is_interested(site))
    }

    fn observe(&mut self, site: Site, mut values: ArrayViewMutD<'_, f32>) {
        if O::ENABLED && self.first.is_interested(site) {
            self.first.observe(site, values.view_mut());
        }
        let ActivationCache { embed, residuals, patterns, z, mlp_out, logits, .. } = &mut self.capture;
        let to = match site {
            Site::Embed => embed.view_mut().into_dyn(),
            Site::ResidPre(0) => residuals.slice_mut(s![0, .., ..]).into_dyn(),
            Site::ResidPost(layer) => residuals.slice_mut(s![layer + 1, .., ..]).into_dyn(),
            Site::Pattern(layer) => patterns.slice_mut(s![layer, .., .., ..]).into_dyn(),
            Site::Z(layer) => z.slice_mut(s![layer, .., ..]).into_dyn(),
            Site::MlpOut(layer) => mlp_out.slice_mut(s![layer, .., ..]).into_dyn(),
            Site::Logits => logits.view_mut().into_dyn(),
            _ => return,
        };
        let mut to = to;
        to.assign(&values);
    }
}
