//! Attention: every token asks a question (its query), all tokens up to it offer an answer (a key to be found by, a
//! value to be taken), and each token takes a mixture of the values whose keys match its query best.
//!
//! ```text
//! score[i, j] = (q[i] · k[j]) · scale          for j ≤ i: no token sees the future
//! p[i, ·]     = softmax(score[i, 0..=i])
//! z[i]        = Σ_j p[i, j] · v[j]             (Vaswani et al. 2017, section 3.2.1)
//! ```
//!
//! Every head does so on its own head_dim columns of q, k and v; scale is 1/√head_dim. For n tokens that is
//! 2 · n² · n_embd multiply-adds in prefill (half of it behind the mask); in decode, 4 · n_embd operations for each
//! token of the past, over 2 · n_embd cached numbers: a race against memory.
//!
//! [`textbook`] holds the whole score matrix. [`attention`] is the fast form (`online.rs`), which never does. Keys and
//! values lie in [`KeyValues`], arranged for it.

mod key_values;
mod online;
mod patterns;

pub use key_values::{KeyValues, KvPrecision};
pub use patterns::patterns;

use super::rows::{Rows, RowsMut};
use super::softmax;
use super::threads::Team;

/// Consecutive tokens of one sequence that look back on it.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// The row of the first of them among the queries.
    pub row: usize,
    /// How many.
    pub n: usize,
    /// The position of the first of them in the sequence.
    pub position: usize,
    /// The sequence's keys and values, those of these tokens included.
    pub past: &'a KeyValues,
}

/// The formula as it stands, for one head: `q`, `k`, `v` are `[n, head_dim]`; returns z `[n, head_dim]` and p `[n, n]`.
pub fn textbook(q: Rows, k: Rows, v: Rows, scale: f32) -> (Vec<f32>, Vec<f32>) {
    let n = q.len();
    let mut p = vec![0.0; n * n];
    let mut z = vec![0.0; n * q.width()];
    for i in 0..n {
        let score = |j| q.row(i).iter().zip(k.row(j)).map(|(q, k)| q * k).sum::<f32>() * scale;
        let scores: Vec<f32> = (0..=i).map(score).collect();
        p[i * n..][..=i].copy_from_slice(&softmax::textbook(&scores));
        for j in 0..=i {
            for (z, v) in z[i * q.width()..].iter_mut().zip(v.row(j)) {
                *z += p[i * n + j] * v;
            }
        }
    }
    (z, p)
}

/// The spans of a batch, walked through by every thread.
pub trait Spans<'a>: Iterator<Item = Span<'a>> + Clone + Sync {}
impl<'a, I: Iterator<Item = Span<'a>> + Clone + Sync> Spans<'a> for I {}

/// The fast form. `q` and `z` are `[n_tokens, n_embd]`, the heads side by side; every span's rows of `z` are written.
pub fn attention<'a>(team: &Team, q: Rows, spans: impl Spans<'a>, scale: f32, mut z: RowsMut) {
    assert_eq!((q.width(), q.len()), (z.width(), z.len()), "z has the shape of q");
    for span in spans.clone() {
        assert_eq!(q.width(), span.past.n_head() * span.past.head_dim(), "q is [n_tokens, n_embd]");
        assert!(span.row + span.n <= q.len() && span.position + span.n <= span.past.capacity());
    }
    online::attention(team, q, spans, scale, &z.share());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::check::{assert_close, numbers};
    use crate::kernels::isa::Isa;

    struct Case {
        n: usize,
        n_head: usize,
        head_dim: usize,
        q: Vec<f32>,
        k: Vec<f32>,
        v: Vec<f32>,
    }

    impl Case {
        fn new(n: usize, n_head: usize, head_dim: usize) -> Self {
            let of = |seed, scale: f32| -> Vec<f32> {
                numbers(seed, n * n_head * head_dim).iter().map(|x| x * scale).collect()
            };
            Self { n, n_head, head_dim, q: of(1, 3.0), k: of(2, 3.0), v: of(3, 1.0) }
        }

        fn width(&self) -> usize {
            self.n_head * self.head_dim
        }

        fn scale(&self) -> f32 {
            1.0 / (self.head_dim as f32).sqrt()
        }

        fn past(&self, team: &Team, precision: KvPrecision) -> KeyValues {
            let mut past = KeyValues::new(self.n_head, self.head_dim, self.n, precision);
            let (k, v) = (Rows::dense(&self.k, self.width()), Rows::dense(&self.v, self.width()));
            past.append(team, 0, k, v);
            past
        }

        /// The fast form, the queries in spans of `chunk`.
        fn fast(&self, team: &Team, past: &KeyValues, chunk: usize) -> Vec<f32> {
            let mut z = vec![f32::NAN; self.q.len()];
            let q = Rows::dense(&self.q, self.width());
            let span = |row| Span { row, n: chunk.min(self.n - row), position: row, past };
            let spans = (0..self.n).step_by(chunk).map(span);
            attention(team, q, spans, self.scale(), RowsMut::dense(&mut z, self.width()));
            z
        }

        /// The textbook, head by head: z and the patterns `[n_head, n, n]`.
        fn textbook(&self) -> (Vec<f32>, Vec<f32>) {
            let (mut z, mut p) = (vec![0.0; self.q.len()], vec![]);
            for h in 0..self.n_head {
                let head = |x| Rows::dense(x, self.width()).columns(h * self.head_dim, self.head_dim);
                let (zs, ps) = textbook(head(&self.q), head(&self.k), head(&self.v), self.scale());
                for (i, zs) in zs.chunks(self.head_dim).enumerate() {
                    z[i * self.width() + h * self.head_dim..][..self.head_dim].copy_from_slice(zs);
                }
                p.extend(ps);
            }
            (z, p)
        }
    }

    #[test]
    fn fast_form_holds_to_the_textbook() {
        for (n, n_head, head_dim) in
            [(1, 1, 16), (2, 3, 8), (15, 2, 20), (64, 2, 64), (65, 1, 32), (130, 2, 48), (200, 1, 128)]
        {
            let case = Case::new(n, n_head, head_dim);
            let (expected, patterns_expected) = case.textbook();
            let mut first: Option<Vec<f32>> = None;
            for (isa, threads) in Isa::available().into_iter().flat_map(|isa| [(isa, 1), (isa, 3)]) {
                let team = Team::new(threads, isa);
                let past = case.past(&team, KvPrecision::F32);
                let z = case.fast(&team, &past, n);
                assert_close(&z, &expected, 2e-5);
                assert_eq!(first.get_or_insert_with(|| z.clone()), &z, "{isa}, {threads} threads");
                let span = Span { row: 0, n, position: 0, past: &past };
                let p = patterns(isa, Rows::dense(&case.q, case.width()), span, case.scale());
                assert_close(&p, &patterns_expected, 2e-5);
            }
        }
    }

    #[test]
    fn chunks_of_queries_give_the_same_bits() {
        let case = Case::new(150, 3, 24);
        for isa in Isa::available() {
            let team = Team::new(2, isa);
            for precision in [KvPrecision::F32, KvPrecision::F16] {
                let past = case.past(&team, precision);
                let whole = case.fast(&team, &past, case.n);
                for chunk in [1, 7, 64] {
                    assert_eq!(case.fast(&team, &past, chunk), whole, "{isa}, {precision:?}, by {chunk}");
                }
            }
        }
    }

    #[test]
    fn half_precision_keys_and_values_are_those_rounded() {
        let mut case = Case::new(70, 2, 16);
        let team = Team::new(1, Isa::available()[0]);
        let z = case.fast(&team, &case.past(&team, KvPrecision::F16), 70);
        for x in case.k.iter_mut().chain(&mut case.v) {
            *x = half::f16::from_f32(*x).to_f32();
        }
        assert_eq!(z, case.fast(&team, &case.past(&team, KvPrecision::F32), 70));
    }

    #[test]
    fn a_later_token_changes_nothing_before_it() {
        let case = Case::new(80, 1, 16);
        let team = Team::new(1, Isa::available()[0]);
        let mut past = case.past(&team, KvPrecision::F32);
        let before = case.fast(&team, &past, 80);
        let other = numbers(9, 16);
        past.append(&team, 79, Rows::dense(&other, 16), Rows::dense(&other, 16));
        let after = case.fast(&team, &past, 80);
        assert_eq!(before[..79 * 16], after[..79 * 16]);
        assert_ne!(before[79 * 16..], after[79 * 16..]);
    }
}
