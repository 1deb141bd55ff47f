//! Direct logit attribution: how much does each component of the model contribute to a token's logit?
//!
//! The residual stream is a sum: token embedding, position embedding, and the outputs of all heads and MLPs.
//! The last layer norm and the LM head are linear once the layer norm's scale is held fixed, so a token's
//! logit is a sum over the same components:
//!
//! ```text
//! logit(v) = Σ_c  (c − mean(c)) · w / σ · W[v]   +   b · W[v]          c over the components
//! ```
//!
//! with σ = √(var(x) + ε) of the full stream x, w and b the weight and bias of `ln_f`, and W the LM head
//! (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"). The effect of a component
//! *through later components* is not included; ablation shows it.
//!
//! A component that raises all logits equally changes no probability. [`LogitAttribution::centered`]
//! therefore subtracts the component's mean contribution over the vocabulary.

use super::ActivationCache;
use crate::model::Model;
use ndarray::s;
use std::fmt;

/// A component of the model that adds to the residual stream or to the logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Component {
    /// The token embedding.
    Embed,
    /// The position embedding.
    Position,
    /// One attention head.
    Head {
        /// The layer, from 0.
        layer: usize,
        /// The head within the layer, from 0.
        head: usize,
    },
    /// The bias of attention's `c_proj` in a layer, which belongs to no head.
    AttnBias(usize),
    /// The MLP of a layer, including its bias.
    Mlp(usize),
    /// The bias of `ln_f`, which the LM head reads directly.
    NormBias,
}

impl fmt::Display for Component {
    /// `L3H1`, `mlp3`, `embed`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Component::Embed => write!(f, "embed"),
            Component::Position => write!(f, "position"),
            Component::Head { layer, head } => write!(f, "L{layer}H{head}"),
            Component::AttnBias(layer) => write!(f, "bias{layer}"),
            Component::Mlp(layer) => write!(f, "mlp{layer}"),
            Component::NormBias => write!(f, "ln_f"),
        }
    }
}

/// Direct logit attribution for a model.
pub struct DirectLogitAttribution<'m> {
    model: &'m Model,
    /// The mean row of the LM head, `[n_embd]`.
    mean: Vec<f64>,
}

/// The contributions of all components to one token's logit.
#[derive(Clone, Debug, PartialEq)]
pub struct LogitAttribution {
    /// The token id.
    pub target: u32,
    /// Its logit.
    pub logit: f32,
    /// The mean of all tokens' logits.
    pub mean_logit: f32,
    /// The contribution of each component to the token's logit, in the order of
    /// [`DirectLogitAttribution::components`]. They sum to the logit, up to rounding; with quantized
    /// activations (int8, int4, bf16-dot), up to the quantization error.
    pub contributions: Vec<f32>,
    /// The contributions minus their means over the vocabulary. They sum to `logit − mean_logit`.
    pub centered: Vec<f32>,
}

impl<'m> DirectLogitAttribution<'m> {
    /// Computes the mean row of the LM head.
    pub fn new(model: &'m Model) -> Self {
        Self { model, mean: model.mean_unembedding_row() }
    }

    /// All components: the embeddings, then per layer the heads, their common bias and the MLP, and last the
    /// bias of `ln_f`.
    pub fn components(&self) -> Vec<Component> {
        let config = self.model.config();
        let block = |layer| {
            let heads = (0..config.n_head).map(move |head| Component::Head { layer, head });
            heads.chain([Component::AttnBias(layer), Component::Mlp(layer)])
        };
        let blocks = (0..config.n_layer).flat_map(block);
        [Component::Embed, Component::Position]
            .into_iter()
            .chain(blocks)
            .chain([Component::NormBias])
            .collect()
    }

    /// Attributes the logit of `target` at one token of the text to the components.
    ///
    /// # Panics
    /// Panics if there is no such token in the text or in the vocabulary.
    pub fn attribute(&self, cache: &ActivationCache, token: usize, target: u32) -> LogitAttribution {
        let config = self.model.config();
        let (weight, bias) = self.model.ln_f();
        let x: Vec<f64> = cache.residuals.slice(s![config.n_layer, token, ..]).iter().map(to_f64).collect();
        let row: Vec<f64> = self.model.unembedding_row(target).iter().map(to_f64).collect();
        let directions = LogitDirections {
            target: LogitDirection::new(&row, weight, bias, &x, config.layer_norm_epsilon),
            mean: LogitDirection::new(&self.mean, weight, bias, &x, config.layer_norm_epsilon),
        };

        let mut all = vec![];
        let embed: Vec<f64> = cache.embed.row(token).iter().map(to_f64).collect();
        let start = cache.residuals.slice(s![0, token, ..]);
        let position: Vec<f64> = start.iter().map(to_f64).zip(&embed).map(|(x, embed)| x - embed).collect();
        all.push(directions.project(&embed));
        all.push(directions.project(&position));
        for layer in 0..config.n_layer {
            let z = cache.z.slice(s![layer, token, ..]);
            let heads = self.model.head_results(layer, z.to_slice().unwrap_or_default());
            let attn_proj_bias = self.model.attn_proj_bias(layer);
            let mlp_out = cache.mlp_out.slice(s![layer, token, ..]);
            let outputs = heads.chunks(config.n_embd).chain([&*attn_proj_bias]).chain(mlp_out.to_slice());
            let project = |output: &[f32]| directions.project(&output.iter().map(to_f64).collect::<Vec<_>>());
            all.extend(outputs.map(project));
        }
        all.push((directions.target.bias, directions.mean.bias));

        let logits = cache.logits.row(token);
        LogitAttribution {
            target,
            logit: logits[target as usize],
            mean_logit: (logits.iter().map(to_f64).sum::<f64>() / logits.len() as f64) as f32,
            contributions: all.iter().map(|(target, _)| *target as f32).collect(),
            centered: all.iter().map(|(target, mean)| (target - mean) as f32).collect(),
        }
    }
}

/// The logit directions of the target token and of the mean over the vocabulary.
struct LogitDirections {
    target: LogitDirection,
    mean: LogitDirection,
}

impl LogitDirections {
    fn project(&self, output: &[f64]) -> (f64, f64) {
        (self.target.project(output), self.mean.project(output))
    }
}

/// One row of the LM head, folded with `ln_f` at a fixed scale: the direction of the residual stream that
/// raises the logit.
struct LogitDirection {
    /// `[n_embd]`, with mean 0, which removes the mean of the component's output.
    weights: Vec<f64>,
    bias: f64,
}

impl LogitDirection {
    fn new(row: &[f64], weight: &[f32], bias: &[f32], x: &[f64], epsilon: f32) -> Self {
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
        let scale = 1.0 / (variance + f64::from(epsilon)).sqrt();
        let mut weights: Vec<f64> = row.iter().zip(weight).map(|(row, w)| row * to_f64(w) * scale).collect();
        let mean = weights.iter().sum::<f64>() / n;
        weights.iter_mut().for_each(|weight| *weight -= mean);
        Self { weights, bias: row.iter().zip(bias).map(|(row, b)| row * to_f64(b)).sum() }
    }

    fn project(&self, output: &[f64]) -> f64 {
        self.weights.iter().zip(output).map(|(weight, x)| weight * x).sum()
    }
}

fn to_f64(x: &f32) -> f64 {
    f64::from(*x)
}
