//! A model's weights in the precision it computes with: as the checkpoint stores them, or rounded when it is loaded.

use super::{Operation, Precision};
use crate::checkpoint::{BlockWeights, Dtype, LayerNormWeights, LinearWeights, Tensor, Weights};
use crate::kernels::embedding::copy_row;
use crate::kernels::linear::{self, Matrix};

/// What the forward pass needs.
pub(super) struct ModelWeights {
    /// `[vocab_size, n_embd]`, to look tokens up in.
    pub(super) wte: Tensor,
    /// `[n_positions, n_embd]`
    pub(super) wpe: Option<Tensor>,
    pub(super) blocks: Vec<Block>,
    pub(super) ln_f: LayerNormWeights,
    pub(super) head: Head,
}

pub(super) struct Block {
    pub(super) ln_1: LayerNormWeights,
    pub(super) c_attn: Linear,
    pub(super) attn_proj: Linear,
    pub(super) ln_2: LayerNormWeights,
    pub(super) c_fc: Linear,
    pub(super) mlp_proj: Linear,
}

/// The head: the table as it is, or rounded and turned into a linear layer `[n_embd, vocab_size]` without a bias.
pub(super) enum Head {
    Table(Tensor),
    Rounded(Linear),
}

/// A linear layer.
pub(super) struct Linear {
    /// `[in, out]`
    weight: Tensor,
    bias: Bias,
}

enum Bias {
    Tensor(Tensor),
    Zero(Vec<f32>),
}

impl ModelWeights {
    /// As the checkpoint stores them, or in another precision.
    pub(super) fn new(weights: Weights, precision: Option<Precision>) -> Self {
        let table = weights.lm_head.unwrap_or_else(|| weights.wte.clone());
        let head = match precision {
            _ if !table.dtype().is_plain() => Head::Rounded(Linear::head(table)),
            Some(precision) if !precision.dtype().is_plain() => {
                Head::Rounded(Linear::head(table.quantized_lm_head(precision.dtype())))
            }
            plain => Head::Table(stored_as(table, plain)),
        };
        let block = |block: BlockWeights| Block {
            ln_1: block.ln_1,
            c_attn: Linear::new(block.attn.c_attn, precision),
            attn_proj: Linear::new(block.attn.c_proj, precision),
            ln_2: block.ln_2,
            c_fc: Linear::new(block.mlp.c_fc, precision),
            mlp_proj: Linear::new(block.mlp.c_proj, precision),
        };
        let mut all = Self {
            wte: weights.wte,
            wpe: weights.wpe,
            blocks: weights.h.into_iter().map(block).collect(),
            ln_f: weights.ln_f,
            head,
        };
        all.gather();
        all
    }

    /// Brings the matrices that were converted together, in the order of the pass.
    fn gather(&mut self) {
        let head = match &mut self.head {
            Head::Table(table) => table,
            Head::Rounded(layer) => &mut layer.weight,
        };
        let blocks = self.blocks.iter_mut();
        let layers = blocks.flat_map(|b| [&mut b.c_attn, &mut b.attn_proj, &mut b.c_fc, &mut b.mlp_proj]);
        Tensor::coalesce(layers.map(|layer| &mut layer.weight).chain([head]));
    }
}

impl ModelWeights {
    /// Bytes of weights that an operation reads, however many tokens go through together; of the embeddings, the rows
    /// of one token.
    pub(super) fn bytes_of(&self, operation: Operation) -> usize {
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
            Operation::Head => match &self.head {
                Head::Table(table) => table.stored_bytes(),
                Head::Rounded(layer) => layer.bytes(),
            },
        }
    }

    /// Bytes that every pass reads: the blocks, the last layer norm and the head, not the embeddings, of which a token
    /// reads one row.
    pub(super) fn pass_bytes(&self) -> usize {
        let whole = Operation::of_pass(self.blocks.len()).filter(|&operation| operation != Operation::Embed);
        whole.map(|operation| self.bytes_of(operation)).sum()
    }
}

impl Head {
    /// The row of a token, `[n_embd]`, as the head computes with it.
    pub(super) fn row(&self, id: usize, row: &mut [f32]) {
        match self {
            Head::Table(table) => copy_row(table.elements(), id, row),
            Head::Rounded(layer) => {
                let weights = layer.weight_matrix();
                row.iter_mut().enumerate().for_each(|(k, x)| *x = weights.weight(k, id));
            }
        }
    }
}

impl Linear {
    fn new(layer: LinearWeights, precision: Option<Precision>) -> Self {
        Self { weight: stored_as(layer.weight, precision), bias: Bias::Tensor(layer.bias) }
    }

    /// A head that was turned over, `[n_embd, vocab_size]`.
    fn head(weight: Tensor) -> Self {
        let bias = Bias::Zero(vec![0.0; weight.shape()[1]]);
        Self { weight, bias }
    }

    /// As the kernels take it.
    pub(super) fn weight_matrix(&self) -> linear::WeightMatrix<'_> {
        self.weight.weight_matrix()
    }

    /// What its matrix is stored in.
    pub(super) fn dtype(&self) -> Dtype {
        self.weight.dtype()
    }

    /// Bytes that reading all of it reads.
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

/// A tensor in a precision, or as it is.
fn stored_as(tensor: Tensor, precision: Option<Precision>) -> Tensor {
    match precision {
        Some(precision) => tensor.into_dtype(precision.dtype()),
        None => tensor,
    }
}

/// A checkpoint's tensor as the kernels take it.
pub(super) fn matrix(tensor: &Tensor) -> Matrix<'_> {
    Matrix::new(tensor.elements(), tensor.shape()[0], tensor.shape()[1])
}
