//! A model's weights in the precision it computes with: as stored in the checkpoint, or converted when
//! loaded.

use super::{Operation, Precision};
use crate::Result;
use crate::checkpoint::adapter::Target;
use crate::checkpoint::{BlockWeights, LayerNormWeights, LinearWeights, Tensor, Weights};
use crate::kernels::activation::Activation;
use crate::kernels::embedding::copy_row;
use crate::kernels::formats::WeightMatrix;
use crate::kernels::linear::Matrix;
use crate::kernels::mlp::Mlp;

/// The weights of the forward pass.
pub(super) struct ModelWeights {
    /// Token embeddings, `[vocab_size, n_embd]`.
    pub(super) wte: Tensor,
    /// Position embeddings, `[n_positions, n_embd]`.
    pub(super) wpe: Option<Tensor>,
    pub(super) blocks: Vec<Block>,
    pub(super) ln_f: LayerNormWeights,
    pub(super) lm_head: LmHead,
}

pub(super) struct Block {
    pub(super) ln_1: LayerNormWeights,
    pub(super) c_attn: Linear,
    pub(super) attn_proj: Linear,
    pub(super) ln_2: LayerNormWeights,
    pub(super) c_fc: Linear,
    pub(super) mlp_proj: Linear,
}

impl Block {
    /// The weights of the MLP.
    pub(super) fn mlp(&self, activation: Activation) -> Mlp<'_> {
        Mlp {
            c_fc: self.c_fc.weight_matrix(),
            c_fc_bias: self.c_fc.bias(),
            activation,
            c_proj: self.mlp_proj.weight_matrix(),
            c_proj_bias: self.mlp_proj.bias(),
        }
    }
}

/// The LM head: the embedding table as stored, or quantized and transposed to a linear layer `[n_embd,
/// vocab_size]` without a bias.
pub(super) enum LmHead {
    Embedding(Tensor),
    Quantized(Linear),
}

/// A linear layer.
pub(super) struct Linear {
    /// `[in, out]`
    weight: Tensor,
    bias: Bias,
}

#[derive(Clone)]
enum Bias {
    Tensor(Tensor),
    Zero(Vec<f32>),
}

impl ModelWeights {
    /// Takes the weights as the checkpoint stores them, or converts the matrices to another precision, with
    /// the errors of [`Tensor::into_precision`].
    pub(super) fn new(weights: Weights, precision: Option<Precision>) -> Result<Self> {
        let table = weights.lm_head.unwrap_or_else(|| weights.wte.clone());
        let lm_head = LmHead::new(table, precision)?;
        let block = |block: BlockWeights| {
            Ok(Block {
                ln_1: block.ln_1,
                c_attn: Linear::new(block.attn.c_attn, precision)?,
                attn_proj: Linear::new(block.attn.c_proj, precision)?,
                ln_2: block.ln_2,
                c_fc: Linear::new(block.mlp.c_fc, precision)?,
                mlp_proj: Linear::new(block.mlp.c_proj, precision)?,
            })
        };
        let mut all = Self {
            wte: weights.wte,
            wpe: weights.wpe,
            blocks: weights.h.into_iter().map(block).collect::<Result<_>>()?,
            ln_f: weights.ln_f,
            lm_head,
        };
        all.make_contiguous();
        Ok(all)
    }

    /// These weights with the matrices in another precision, with the errors of [`Tensor::into_precision`].
    ///
    /// # Panics
    /// If they are quantized.
    pub(super) fn converted(&self, precision: Precision) -> Result<Self> {
        let linear = |linear: &Linear| linear.converted(precision);
        let block = |block: &Block| {
            Ok(Block {
                ln_1: block.ln_1.clone(),
                c_attn: linear(&block.c_attn)?,
                attn_proj: linear(&block.attn_proj)?,
                ln_2: block.ln_2.clone(),
                c_fc: linear(&block.c_fc)?,
                mlp_proj: linear(&block.mlp_proj)?,
            })
        };
        let LmHead::Embedding(table) = &self.lm_head else { panic!("a quantized LM head") };
        let mut all = Self {
            wte: self.wte.clone(),
            wpe: self.wpe.clone(),
            blocks: self.blocks.iter().map(block).collect::<Result<_>>()?,
            ln_f: self.ln_f.clone(),
            lm_head: LmHead::new(table.clone(), Some(precision))?,
        };
        all.make_contiguous();
        Ok(all)
    }

    /// Whether the embeddings and the last layer norm have the same bits as another model's.
    pub(super) fn embeds_as(&self, other: &Self) -> bool {
        fn tensors(w: &ModelWeights) -> [Option<&Tensor>; 4] {
            [Some(&w.wte), w.wpe.as_ref(), Some(&w.ln_f.weight), Some(&w.ln_f.bias)]
        }
        tensors(self).into_iter().zip(tensors(other)).all(|pair| match pair {
            (Some(a), Some(b)) => a.has_same_bits(b),
            (a, b) => a.is_none() && b.is_none(),
        })
    }

    /// All tensors, in the order of the pass.
    pub(super) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        fn norm(norm: &LayerNormWeights) -> [&Tensor; 2] {
            [&norm.weight, &norm.bias]
        }
        let head = match &self.lm_head {
            LmHead::Embedding(table) => table,
            LmHead::Quantized(layer) => &layer.weight,
        };
        let blocks = self.blocks.iter().flat_map(|b| {
            let linears = [&b.c_attn, &b.attn_proj, &b.c_fc, &b.mlp_proj];
            norm(&b.ln_1)
                .into_iter()
                .chain(norm(&b.ln_2))
                .chain(linears.into_iter().flat_map(Linear::tensors))
        });
        [&self.wte].into_iter().chain(&self.wpe).chain(blocks).chain(norm(&self.ln_f)).chain([head])
    }

    /// A linear layer of a block.
    pub(super) fn linear(&self, layer: usize, target: Target) -> &Linear {
        let block = &self.blocks[layer];
        target.of([&block.c_attn, &block.attn_proj, &block.c_fc, &block.mlp_proj])
    }

    /// The precision of the blocks' matrices.
    pub(super) fn precision(&self) -> Precision {
        self.blocks.first().map_or(Precision::F32, |block| block.c_attn.precision())
    }

    /// Moves the converted matrices next to one another in memory, in the order of the pass.
    fn make_contiguous(&mut self) {
        let head = match &mut self.lm_head {
            LmHead::Embedding(table) => table,
            LmHead::Quantized(layer) => &mut layer.weight,
        };
        let blocks = self.blocks.iter_mut();
        let layers = blocks.flat_map(|b| [&mut b.c_attn, &mut b.attn_proj, &mut b.c_fc, &mut b.mlp_proj]);
        Tensor::coalesce(layers.map(|layer| &mut layer.weight).chain([head]));
    }
}

impl ModelWeights {
    /// Bytes of weights that an operation reads, regardless of the number of tokens; for the embeddings, the
    /// rows of one token.
    pub(super) fn operation_bytes(&self, operation: Operation) -> usize {
        let norm = |norm: &LayerNormWeights| norm.weight.stored_bytes() + norm.bias.stored_bytes();
        let row = |table: &Tensor| table.stored_bytes() / table.shape()[0];
        match operation {
            Operation::Embed => row(&self.wte) + self.wpe.as_ref().map_or(0, row),
            Operation::Ln1(layer) => norm(&self.blocks[layer].ln_1),
            Operation::CAttn(layer) => self.blocks[layer].c_attn.bytes(),
            Operation::KvAppend(_) | Operation::Attention(_) => 0,
            Operation::AttnProj(layer) => self.blocks[layer].attn_proj.bytes(),
            Operation::Ln2(layer) => norm(&self.blocks[layer].ln_2),
            Operation::CFc(layer) => self.blocks[layer].c_fc.bytes(),
            Operation::MlpProj(layer) => self.blocks[layer].mlp_proj.bytes(),
            Operation::LnF => norm(&self.ln_f),
            Operation::LmHead => match &self.lm_head {
                LmHead::Embedding(table) => table.stored_bytes(),
                LmHead::Quantized(layer) => layer.bytes(),
            },
        }
    }

    /// Bytes that every pass reads: the blocks, the last layer norm and the LM head, but not the embeddings,
    /// of which a token reads one row.
    pub(super) fn pass_bytes(&self) -> usize {
        let operations =
            Operation::in_pass(self.blocks.len()).filter(|&operation| operation != Operation::Embed);
        operations.map(|operation| self.operation_bytes(operation)).sum()
    }
}

impl LmHead {
    fn new(table: Tensor, precision: Option<Precision>) -> Result<Self> {
        Ok(match precision.map(Precision::lm_head) {
            _ if table.precision().is_quantized() => Self::Quantized(Linear::lm_head(table)),
            Some(precision) if precision.is_quantized() => {
                Self::Quantized(Linear::lm_head(table.quantized_lm_head(precision)?))
            }
            Some(precision) => Self::Embedding(table.into_precision(precision)?),
            None => Self::Embedding(table),
        })
    }

    /// The row of a token, `[n_embd]`, with the values that the LM head multiplies by.
    pub(super) fn row(&self, id: usize, row: &mut [f32]) {
        match self {
            LmHead::Embedding(table) => copy_row(table.elements(), id, row),
            LmHead::Quantized(layer) => {
                let weights = layer.weight_matrix();
                row.iter_mut().enumerate().for_each(|(k, x)| *x = weights.weight(k, id));
            }
        }
    }
}

impl Linear {
    fn new(layer: LinearWeights, precision: Option<Precision>) -> Result<Self> {
        let weight = match precision {
            Some(precision) => layer.weight.into_precision(precision)?,
            None => layer.weight,
        };
        Ok(Self { weight, bias: Bias::Tensor(layer.bias) })
    }

    fn converted(&self, precision: Precision) -> Result<Self> {
        Ok(Self { weight: self.weight.clone().into_precision(precision)?, bias: self.bias.clone() })
    }

    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let bias = match &self.bias {
            Bias::Tensor(bias) => Some(bias),
            Bias::Zero(_) => None,
        };
        [&self.weight].into_iter().chain(bias)
    }

    /// A transposed LM head, `[n_embd, vocab_size]`, with a zero bias.
    fn lm_head(weight: Tensor) -> Self {
        let bias = Bias::Zero(vec![0.0; weight.shape()[1]]);
        Self { weight, bias }
    }

    /// The weight matrix as the kernels take it.
    pub(super) fn weight_matrix(&self) -> WeightMatrix<'_> {
        self.weight.weight_matrix()
    }

    /// The precision of its weights.
    pub(super) fn precision(&self) -> Precision {
        self.weight.precision()
    }

    /// Bytes of its weights and bias.
    fn bytes(&self) -> usize {
        self.weight.stored_bytes() + size_of_val(self.bias())
    }

    /// `[out]`
    pub(super) fn bias(&self) -> &[f32] {
        match &self.bias {
            Bias::Tensor(bias) => bias.as_f32(),
            Bias::Zero(zeros) => zeros,
        }
    }
}

/// A tensor as the kernels take it.
pub(super) fn matrix(tensor: &Tensor) -> Matrix<'_> {
    Matrix::new(tensor.elements(), tensor.shape()[0], tensor.shape()[1])
}
