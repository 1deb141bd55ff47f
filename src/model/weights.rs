//! A model's weights in the precision it computes with: as the checkpoint stores them, or rounded when it is loaded.

use crate::checkpoint::{BlockWeights, LayerNormWeights, LinearWeights, Tensor, Weights};
use crate::kernels::elements::{Element, Elements};
use crate::kernels::linear::{self, Matrix};
use crate::kernels::quantised::{Int4, Int8, Line};
use crate::kernels::simd::LANES;
use half::f16;

/// The precision a model computes its matrices in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As the checkpoint stores them: f32, f16 or bf16, used where they lie.
    #[default]
    Stored,
    /// Eight bits a weight, a scale a column.
    Int8,
    /// Four bits a weight, a scale for every 32; the head in eight.
    Int4,
}

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
    weight: Stored,
    bias: Bias,
}

enum Bias {
    Tensor(Tensor),
    Zero(Vec<f32>),
}

enum Stored {
    Plain(Tensor),
    Int8 { lines: Vec<Line>, scales: Vec<f32>, shape: [usize; 2] },
    Int4 { lines: Vec<Line>, scales: Vec<[f16; LANES]>, shape: [usize; 2] },
}

impl ModelWeights {
    pub(super) fn new(weights: Weights, precision: Precision) -> Self {
        let table = weights.lm_head.unwrap_or_else(|| weights.wte.clone());
        let head = match precision {
            Precision::Stored => Head::Table(table),
            Precision::Int8 | Precision::Int4 => Head::Rounded(Linear::rounded_head(&table)),
        };
        let block = |block: BlockWeights| Block {
            ln_1: block.ln_1,
            c_attn: Linear::new(block.attn.c_attn, precision),
            attn_proj: Linear::new(block.attn.c_proj, precision),
            ln_2: block.ln_2,
            c_fc: Linear::new(block.mlp.c_fc, precision),
            mlp_proj: Linear::new(block.mlp.c_proj, precision),
        };
        Self {
            wte: weights.wte,
            wpe: weights.wpe,
            blocks: weights.h.into_iter().map(block).collect(),
            ln_f: weights.ln_f,
            head,
        }
    }
}

impl Linear {
    fn new(layer: LinearWeights, precision: Precision) -> Self {
        let shape = [layer.weight.shape()[0], layer.weight.shape()[1]];
        let at = |k: usize, j: usize| k * shape[1] + j;
        let weight = match precision {
            Precision::Stored => Stored::Plain(layer.weight),
            Precision::Int8 => int8(layer.weight.elements(), shape, at),
            Precision::Int4 => int4(layer.weight.elements(), shape, at),
        };
        Self { weight, bias: Bias::Tensor(layer.bias) }
    }

    /// The head's table `[vocab_size, n_embd]`, turned over and rounded to eight bits.
    fn rounded_head(table: &Tensor) -> Self {
        let [vocab_size, n_embd] = [table.shape()[0], table.shape()[1]];
        let weight = int8(table.elements(), [n_embd, vocab_size], |k, j| j * n_embd + k);
        Self { weight, bias: Bias::Zero(vec![0.0; vocab_size]) }
    }

    /// As the kernels take it.
    pub(super) fn weights(&self) -> linear::Weights<'_> {
        match &self.weight {
            Stored::Plain(tensor) => linear::Weights::Plain(matrix(tensor)),
            Stored::Int8 { lines, scales, shape } => {
                linear::Weights::Int8(Int8::new(lines, scales, shape[0], shape[1]))
            }
            Stored::Int4 { lines, scales, shape } => {
                linear::Weights::Int4(Int4::new(lines, scales, shape[0], shape[1]))
            }
        }
    }

    /// `[out]`
    pub(super) fn bias(&self) -> &[f32] {
        match &self.bias {
            Bias::Tensor(bias) => bias.as_f32(),
            Bias::Zero(zeros) => zeros,
        }
    }
}

fn int8(elements: Elements, shape: [usize; 2], at: impl Fn(usize, usize) -> usize + Sync) -> Stored {
    let [rows, columns] = shape;
    let (lines, scales) = match elements {
        Elements::F32(e) => Int8::quantise(rows, columns, |k, j| e[at(k, j)]),
        Elements::F16(e) => Int8::quantise(rows, columns, |k, j| Element::to_f32(e[at(k, j)])),
        Elements::Bf16(e) => Int8::quantise(rows, columns, |k, j| Element::to_f32(e[at(k, j)])),
    };
    Stored::Int8 { lines, scales, shape }
}

fn int4(elements: Elements, shape: [usize; 2], at: impl Fn(usize, usize) -> usize + Sync) -> Stored {
    let [rows, columns] = shape;
    let (lines, scales) = match elements {
        Elements::F32(e) => Int4::quantise(rows, columns, |k, j| e[at(k, j)]),
        Elements::F16(e) => Int4::quantise(rows, columns, |k, j| Element::to_f32(e[at(k, j)])),
        Elements::Bf16(e) => Int4::quantise(rows, columns, |k, j| Element::to_f32(e[at(k, j)])),
    };
    Stored::Int4 { lines, scales, shape }
}

/// A checkpoint's tensor as the kernels take it.
pub(super) fn matrix(tensor: &Tensor) -> Matrix<'_> {
    Matrix::new(tensor.elements(), tensor.shape()[0], tensor.shape()[1])
}
