//! Linear layer: every output is a weighted sum of all inputs, plus a bias.
//!
//! ```text
//! y[t, j] = Σ_k x[t, k] · W[k, j] + b[j]
//! ```
//!
//! `x` is `[n_tokens, in]`, `W` is `[in, out]` (GPT-2's Conv1D layout, as the checkpoint stores it), `y` is
//! `[n_tokens, out]`. 2 · n_tokens · in · out operations over in · out weights: one token reads every weight for two
//! operations, so decode waits for memory; five hundred tokens use every weight a thousand times, so prefill waits for
//! the multipliers. Hence two fast forms: `stream.rs` reads the weights once, in the order they lie in memory; `tiles.rs`
//! copies them panel by panel into the cache and works from there.
//!
//! The inputs are cut into segments of a few hundred. Each segment's sum is one chain of fused multiply-adds in the
//! order of k; the segments' sums are added up in their order, then the bias. Where the cuts are depends on the number
//! of inputs alone, so one token or many, one thread or eight, any vector width: the same bits. The `[in, out]` layout
//! makes that the fast order too: sixteen neighbouring outputs share every `x[k]`, and no sum ever runs across a vector.

mod packed;
mod segments;
mod stream;
mod tiles;

use super::elements::{Element, Elements};
pub use super::epilogue::Then;
use super::epilogue::finish;
use super::quantized::{self, Bf16Dot, Int4, Int8};
use super::rows::{Rows, RowsMut};
use super::simd::{LANES, Simd};
use super::threads::Team;
use segments::segments;
use std::ops::Range;

/// A weight matrix `[rows, columns]`, row-major.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// The weights.
    pub elements: Elements<'a>,
    /// Inputs.
    pub rows: usize,
    /// Outputs.
    pub columns: usize,
}

impl<'a> Matrix<'a> {
    /// A matrix of `rows · columns` elements. Panics where they are not as many.
    pub fn new(elements: Elements<'a>, rows: usize, columns: usize) -> Self {
        assert_eq!(elements.len(), rows * columns);
        Self { elements, rows, columns }
    }

    /// The weight of input `k` for output `j`.
    pub fn weight(&self, k: usize, j: usize) -> f32 {
        match self.elements {
            Elements::F32(e) => e[k * self.columns + j],
            Elements::F16(e) => e[k * self.columns + j].to_f32(),
            Elements::Bf16(e) => e[k * self.columns + j].to_f32(),
        }
    }
}

/// The weights of a layer, in any precision.
#[derive(Clone, Copy, Debug)]
pub enum Weights<'a> {
    /// f32, f16 or bf16.
    Plain(Matrix<'a>),
    /// Eight bits.
    Int8(Int8<'a>),
    /// Four bits.
    Int4(Int4<'a>),
    /// bfloat16, inputs too.
    Bf16Dot(Bf16Dot<'a>),
}

impl<'a> From<Matrix<'a>> for Weights<'a> {
    fn from(matrix: Matrix<'a>) -> Self {
        Weights::Plain(matrix)
    }
}

impl Weights<'_> {
    /// The weight of input `k` for output `j`, as it is stored.
    pub fn weight(&self, k: usize, j: usize) -> f32 {
        match self {
            Weights::Plain(w) => w.weight(k, j),
            Weights::Int8(w) => w.weight(k, j),
            Weights::Int4(w) => w.weight(k, j),
            Weights::Bf16Dot(w) => w.weight(k, j),
        }
    }
}

/// The formula as it stands.
pub fn textbook(x: Rows, w: Matrix, bias: &[f32], then: Then, y: &mut RowsMut) {
    for t in 0..x.len() {
        for j in 0..w.columns {
            let chain = |k: Range<usize>| k.fold(0.0f32, |sum, k| x.row(t)[k].mul_add(w.weight(k, j), sum));
            let sum = segments(w.rows).map(chain).reduce(|sum, segment| sum + segment).unwrap_or(0.0);
            let y = &mut y.row_mut(t)[j];
            match then {
                Then::Store => *y = sum + bias[j],
                Then::Activate(f) => *y = f.of(sum + bias[j]),
                Then::Add => *y += sum + bias[j],
            }
        }
    }
}

/// The most tokens for which reading the weights in place beats copying them into the cache first: two groups of as many
/// as a tile can have (at 16 tokens it takes five sixths of the time, at 35 as long or a quarter more).
const STREAM_TOKENS: usize = 28;

/// The fast form, for weights in any precision. Panics where the shapes do not fit together.
pub fn linear<'a>(team: &Team, x: Rows, w: impl Into<Weights<'a>>, bias: &[f32], then: Then, mut y: RowsMut) {
    match w.into() {
        Weights::Plain(w) => plain(team, x, w, bias, then, &mut y),
        Weights::Int8(w) => quantized::linear(team, x, w, bias, then, &mut y),
        Weights::Int4(w) => quantized::linear(team, x, w, bias, then, &mut y),
        Weights::Bf16Dot(w) => quantized::linear(team, x, w, bias, then, &mut y),
    }
}

fn plain(team: &Team, x: Rows, w: Matrix, bias: &[f32], then: Then, y: &mut RowsMut) {
    assert_eq!((x.width(), x.len()), (w.rows, y.len()), "x is [n_tokens, in]");
    assert_eq!((y.width(), bias.len()), (w.columns, w.columns), "y is [n_tokens, out]");
    if x.is_empty() {
        return;
    }
    match w.elements {
        Elements::F32(e) => of_elements(team, x, e, bias, then, y),
        Elements::F16(e) => of_elements(team, x, e, bias, then, y),
        Elements::Bf16(e) => of_elements(team, x, e, bias, then, y),
    }
}

fn of_elements<E: Element>(team: &Team, x: Rows, w: &[E], bias: &[f32], then: Then, y: &mut RowsMut) {
    if x.len() <= STREAM_TOKENS {
        stream::linear(team, x, w, bias, then, y);
    } else {
        tiles::linear(team, x, w, bias, then, y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::activation::Activation;
    use crate::kernels::check::{assert_close, numbers};
    use crate::kernels::isa::Isa;
    use crate::kernels::rows::row_stride;
    use half::{bf16, f16};

    /// Every form on every instruction set and team, for one shape: the textbook's bits.
    fn check(n: usize, inputs: usize, outputs: usize, then: Then) {
        let weights = numbers(1, inputs * outputs);
        let f16s: Vec<f16> = weights.iter().map(|&w| f16::from_f32(w)).collect();
        let bf16s: Vec<bf16> = weights.iter().map(|&w| bf16::from_f32(w)).collect();
        let (bias, before) = (numbers(2, outputs), numbers(3, n * outputs));
        let stride = row_stride(inputs);
        let data = numbers(4, n * stride);
        let x = Rows::new(&data, n, inputs, stride);
        for elements in [Elements::F32(&weights), Elements::F16(&f16s), Elements::Bf16(&bf16s)] {
            let w = Matrix::new(elements, inputs, outputs);
            let mut expected = before.clone();
            textbook(x, w, &bias, then, &mut RowsMut::dense(&mut expected, outputs));
            let mut first: Option<Vec<f32>> = None;
            for (isa, threads) in Isa::available().into_iter().flat_map(|isa| [(isa, 1), (isa, 3)]) {
                let mut y = before.clone();
                linear(&Team::new(threads, isa), x, w, &bias, then, RowsMut::dense(&mut y, outputs));
                match then {
                    Then::Activate(_) => assert_close(&y, &expected, 1e-5),
                    _ => assert_eq!(y, expected, "{n} x {inputs} x {outputs}, {isa}, {threads} threads"),
                }
                assert_eq!(first.get_or_insert_with(|| y.clone()), &y, "{isa}, {threads} threads");
            }
        }
    }

    #[test]
    fn fast_forms_equal_the_textbook_bit_for_bit() {
        for n in [1, 2, 3, 6, 8, 12, 13, 14, 15, 29, 42, 43, 47, 85] {
            for (inputs, outputs) in [(1, 1), (7, 5), (8, 16), (20, 60), (33, 70), (64, 192)] {
                check(n, inputs, outputs, Then::Store);
            }
        }
    }

    #[test]
    fn large_layers_are_cut_into_pieces() {
        check(1, 24, 1200, Then::Store);
        check(5, 24, 1200, Then::Add);
        check(14, 20, 2400, Then::Add);
        check(20, 24, 300, Then::Add);
        check(42, 20, 1200, Then::Add);
        check(50, 24, 300, Then::Add);
        check(1, 600, 100, Then::Add);
        check(3, 1040, 40, Then::Store);
        check(15, 1040, 40, Then::Store);
        check(43, 1040, 40, Then::Store);
        check(90, 300, 40, Then::Add);
        check(171, 1040, 20, Then::Store);
        check(100, 1000, 20, Then::Add);
    }

    #[test]
    fn what_becomes_of_the_sum() {
        for n in [1, 17, 45] {
            check(n, 20, 50, Then::Add);
            check(n, 20, 50, Then::Activate(Activation::GeluTanh));
            check(n, 20, 50, Then::Activate(Activation::Relu));
        }
    }

    #[test]
    fn tokens_do_not_depend_on_their_company() {
        let (inputs, outputs, n) = (48, 80, 60);
        let (weights, bias, x) = (numbers(1, inputs * outputs), numbers(2, outputs), numbers(3, n * inputs));
        let w = Matrix::new(Elements::F32(&weights), inputs, outputs);
        let team = Team::new(2, Isa::available()[0]);
        let run = |x: &[f32]| {
            let mut y = vec![0.0; x.len() / inputs * outputs];
            linear(&team, Rows::dense(x, inputs), w, &bias, Then::Store, RowsMut::dense(&mut y, outputs));
            y
        };
        let together = run(&x);
        for (size, name) in [(1, "alone"), (7, "by sevens"), (13, "by thirteens"), (31, "by thirty-ones")] {
            let apart: Vec<f32> = x.chunks(size * inputs).flat_map(run).collect();
            assert_eq!(apart, together, "{name}");
        }
    }
}
