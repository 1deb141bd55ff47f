//! A model's weights in the precision it computes with: as the checkpoint stores them, or rounded when it is loaded.

use super::Precision;
use crate::checkpoint::{BlockWeights, Dtype, LayerNormWeights, LinearWeights, Tensor, Weights};
use crate::kernels::elements::{Element, Elements};
use crate::kernels::linear::{self, Matrix};
use crate::kernels::quantised::{Int4, Int8, Line};
use crate::kernels::simd::LANES;
use half::f16;

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
    /// As the checkpoint stores them, or in another precision.
    pub(super) fn new(weights: Weights, precision: Option<Precision>) -> Self {
        let table = weights.lm_head.unwrap_or_else(|| weights.wte.clone());
        let head = match precision {
            Some(Precision::Int8 | Precision::Int4) => Head::Rounded(Linear::rounded_head(&table)),
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
        Self {
            wte: weights.wte,
            wpe: weights.wpe,
            blocks: weights.h.into_iter().map(block).collect(),
            ln_f: weights.ln_f,
            head,
        }
    }
}

impl ModelWeights {
    /// Bytes that every pass reads: the blocks, the last layer norm and the head, not the embeddings, of which a token
    /// reads one row.
    pub(super) fn pass_bytes(&self) -> usize {
        let norm = |norm: &LayerNormWeights| norm.weight.stored_bytes() + norm.bias.stored_bytes();
        let layers = |b: &Block| {
            [&b.c_attn, &b.attn_proj, &b.c_fc, &b.mlp_proj].map(Linear::bytes).iter().sum::<usize>()
        };
        let blocks = self.blocks.iter().map(|b| norm(&b.ln_1) + norm(&b.ln_2) + layers(b));
        let head = match &self.head {
            Head::Table(table) => table.stored_bytes(),
            Head::Rounded(layer) => layer.bytes(),
        };
        blocks.sum::<usize>() + norm(&self.ln_f) + head
    }
}

impl Linear {
    fn new(layer: LinearWeights, precision: Option<Precision>) -> Self {
        let shape = [layer.weight.shape()[0], layer.weight.shape()[1]];
        let at = |k: usize, j: usize| k * shape[1] + j;
        let weight = match precision {
            Some(Precision::Int8) => int8(layer.weight.elements(), shape, at),
            Some(Precision::Int4) => int4(layer.weight.elements(), shape, at),
            plain => Stored::Plain(stored_as(layer.weight, plain)),
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

    /// Bytes that reading all of it reads.
    fn bytes(&self) -> usize {
        let weight = match &self.weight {
            Stored::Plain(tensor) => tensor.stored_bytes(),
            Stored::Int8 { lines, scales, .. } => size_of_val(&lines[..]) + size_of_val(&scales[..]),
            Stored::Int4 { lines, scales, .. } => size_of_val(&lines[..]) + size_of_val(&scales[..]),
        };
        weight + size_of_val(self.bias())
    }

    /// `[out]`
    pub(super) fn bias(&self) -> &[f32] {
        match &self.bias {
            Bias::Tensor(bias) => bias.as_f32(),
            Bias::Zero(zeros) => zeros,
        }
    }
}

/// A tensor in a plain precision, or as it is.
fn stored_as(tensor: Tensor, precision: Option<Precision>) -> Tensor {
    match precision {
        Some(Precision::F32) => tensor.converted(Dtype::F32),
        Some(Precision::F16) => tensor.converted(Dtype::F16),
        Some(Precision::Bf16) => tensor.converted(Dtype::Bf16),
        _ => tensor,
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
