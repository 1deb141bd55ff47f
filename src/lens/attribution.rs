//! Direct logit attribution: which parts of the model speak for a token?
//!
//! The residual stream is a sum: the embedding, the position, what every head and every MLP added. The last layer norm
//! and the head are linear once the layer norm's scale is taken as it came out, so a token's logit is a sum of the same
//! parts:
//!
//! ```text
//! logit(v) = Σ_c  (c − mean(c)) · w / σ · W[v]   +   b · W[v]          c over the parts of the residual stream
//! ```
//!
//! with σ = √(var(x) + ε) of the whole stream x, w and b the weight and bias of `ln_f`, W the head. (Elhage et al. 2021,
//! "A Mathematical Framework for Transformer Circuits".) What a part does *through later parts* is not in it: that is
//! what taking the part out shows.
//!
//! A part that raises all logits alike changes no probability. [`LogitAttribution::relative`] therefore leaves out what
//! it gives the average token.

use super::ActivationCache;
use crate::model::Model;
use ndarray::s;
use std::fmt;

/// A part of the model that adds to the residual stream, or to the logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Component {
    /// The token's row of `wte`.
    Embed,
    /// The position's row of `wpe`.
    Position,
    /// One attention head.
    Head {
        /// Its block.
        layer: usize,
        /// Its number.
        head: usize,
    },
    /// The bias of attention's `c_proj`, which belongs to no head.
    AttnBias(usize),
    /// A block's MLP, its bias included.
    Mlp(usize),
    /// The bias of `ln_f`, which reaches the head as it is.
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

/// How to attribute a model's logits.
pub struct DirectLogitAttribution<'m> {
    model: &'m Model,
    /// The head's mean row, `[n_embd]`.
    mean: Vec<f64>,
}

/// What each part gives one token's logit.
#[derive(Clone, Debug, PartialEq)]
pub struct LogitAttribution {
    /// The token.
    pub target: u32,
    /// Its logit.
    pub logit: f32,
    /// The mean of all tokens' logits.
    pub mean_logit: f32,
    /// What each part gives the token's logit, in the order of [`DirectLogitAttribution::parts`]. Their sum is the logit, up to
    /// rounding; with weights that round their inputs (int8, int4, bf16-dot), up to that rounding.
    pub direct: Vec<f32>,
    /// The same less what the part gives the average token. Their sum is `logit − mean_logit`.
    pub relative: Vec<f32>,
}

impl<'m> DirectLogitAttribution<'m> {
    /// Looks through the head once.
    pub fn new(model: &'m Model) -> Self {
        Self { model, mean: model.mean_unembedding_row() }
    }

    /// The parts: embedding and position, then block by block the heads, their common bias and the MLP, and the last
    /// layer norm's bias.
    pub fn parts(&self) -> Vec<Component> {
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

    /// What each part gives the logit of `target` at a token of the text.
    ///
    /// # Panics
    /// Where there is no such token, in the text or in the vocabulary.
    pub fn attribute(&self, capture: &ActivationCache, token: usize, target: u32) -> LogitAttribution {
        let config = self.model.config();
        let (weight, bias) = self.model.ln_f();
        let x: Vec<f64> = capture.residuals.slice(s![config.n_layer, token, ..]).iter().map(widen).collect();
        let row: Vec<f64> = self.model.unembedding_row(target).iter().map(widen).collect();
        let read = Readers {
            target: Reader::new(&row, weight, bias, &x, config.layer_norm_epsilon),
            mean: Reader::new(&self.mean, weight, bias, &x, config.layer_norm_epsilon),
        };

        let mut all = vec![];
        let embed: Vec<f64> = capture.embed.row(token).iter().map(widen).collect();
        let start = capture.residuals.slice(s![0, token, ..]);
        let position: Vec<f64> = start.iter().map(widen).zip(&embed).map(|(x, embed)| x - embed).collect();
        all.push(read.part(&embed));
        all.push(read.part(&position));
        for layer in 0..config.n_layer {
            let z = capture.z.slice(s![layer, token, ..]);
            let heads = self.model.head_results(layer, z.to_slice().unwrap_or_default());
            let mlp_out = capture.mlp_out.slice(s![layer, token, ..]);
            let parts = heads
                .chunks(config.n_embd)
                .chain([self.model.attn_proj_bias(layer)])
                .chain(mlp_out.to_slice());
            all.extend(parts.map(|part| read.part(&part.iter().map(widen).collect::<Vec<f64>>())));
        }
        all.push((read.target.bias, read.mean.bias));

        let logits = capture.logits.row(token);
        LogitAttribution {
            target,
            logit: logits[target as usize],
            mean_logit: (logits.iter().map(widen).sum::<f64>() / logits.len() as f64) as f32,
            direct: all.iter().map(|(direct, _)| *direct as f32).collect(),
            relative: all.iter().map(|(direct, mean)| (direct - mean) as f32).collect(),
        }
    }
}

/// What turns a part into its logit, for the target and for the mean of all tokens.
struct Readers {
    target: Reader,
    mean: Reader,
}

impl Readers {
    fn part(&self, part: &[f64]) -> (f64, f64) {
        (self.target.part(part), self.mean.part(part))
    }
}

/// `ln_f` with its scale held fixed, and one row of the head: a weighted sum.
struct Reader {
    /// `[n_embd]`; taking off its own mean is taking off the part's.
    weights: Vec<f64>,
    bias: f64,
}

impl Reader {
    fn new(row: &[f64], weight: &[f32], bias: &[f32], x: &[f64], epsilon: f32) -> Self {
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
        let scale = 1.0 / (variance + f64::from(epsilon)).sqrt();
        let mut weights: Vec<f64> = row.iter().zip(weight).map(|(row, w)| row * widen(w) * scale).collect();
        let mean = weights.iter().sum::<f64>() / n;
        weights.iter_mut().for_each(|weight| *weight -= mean);
        Self { weights, bias: row.iter().zip(bias).map(|(row, b)| row * widen(b)).sum() }
    }

    fn part(&self, part: &[f64]) -> f64 {
        self.weights.iter().zip(part).map(|(weight, x)| weight * x).sum()
    }
}

fn widen(x: &f32) -> f64 {
    f64::from(*x)
}
