//! Every kernel of the registry against the formula, and against itself on other machines.

use super::*;
use crate::kernels::check::numbers;
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

    /// The queries in spans of `chunk`.
    fn by(&self, kernel: &dyn AttentionKernel, team: &Team, past: &KeyValues, chunk: usize) -> Vec<f32> {
        let mut z = vec![f32::NAN; self.q.len()];
        let span = |i| Span { row: i * chunk, n: chunk.min(self.n - i * chunk), position: i * chunk, past };
        let spans = Spans::new(self.n.div_ceil(chunk), &span);
        let (q, z_rows) = (Rows::dense(&self.q, self.width()), RowsMut::dense(&mut z, self.width()));
        attention(kernel, team, q, spans, self.scale(), z_rows);
        z
    }

    /// The formula on what is stored, head by head: z `[n, n_embd]` and the patterns `[n_head, n, n]`.
    fn formula(&self, mask: Mask, past: &KeyValues) -> (Vec<f64>, Vec<f64>) {
        let mut z = vec![0.0; self.q.len()];
        let mut patterns = vec![0.0; self.n_head * self.n * self.n];
        for h in 0..self.n_head {
            let (k, v) = past.stored(h, self.n);
            let [k, v] = [&k, &v].map(|x| Rows::dense(x, self.head_dim));
            for i in 0..self.n {
                let (seen, at) = (mask.seen(i), i * self.width() + h * self.head_dim);
                let [k, v] = [k, v].map(|x| x.range(seen.start, seen.len()));
                let (zs, ps) = formula(&self.q[at..][..self.head_dim], k, v, self.scale());
                z[at..][..self.head_dim].copy_from_slice(&zs);
                patterns[(h * self.n + i) * self.n..][seen].copy_from_slice(&ps);
            }
        }
        (z, patterns)
    }
}

fn assert_close(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len());
    for (i, (&f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(f) - e).abs() <= tolerance, "{what}: [{i}] is {f}, expected {e}");
    }
}

/// Lengths on both sides of a panel, a block of keys, a block of queries, a stretch and a window; every head size.
const SHAPES: [(usize, usize, usize); 10] = [
    (1, 1, 16),
    (2, 3, 8),
    (15, 2, 20),
    (64, 2, 64),
    (65, 1, 32),
    (130, 2, 48),
    (200, 1, 128),
    (257, 2, 16),
    (300, 1, 80),
    (1024, 1, 24),
];

#[test]
fn every_kernel_holds_to_the_formula_with_the_same_bits_everywhere() {
    for (n, n_head, head_dim) in SHAPES {
        let case = Case::new(n, n_head, head_dim);
        for precision in KvPrecision::ALL {
            let past = case.past(&Team::new(1, Isa::Portable), precision);
            for kernel in KERNELS.iter().copied() {
                let what = format!("{} on {n} x {n_head} x {head_dim}, {precision}", kernel.name());
                let (expected, _) = case.formula(kernel.mask(), &past);
                let mut first: Option<Vec<f32>> = None;
                for (isa, threads) in Isa::available().into_iter().flat_map(|isa| [(isa, 1), (isa, 3)]) {
                    let team = Team::new(threads, isa);
                    let z = case.by(kernel, &team, &past, n);
                    assert_close(&z, &expected, 1e-5, &what);
                    assert!(*first.get_or_insert_with(|| z.clone()) == z, "{what}: {isa}, {threads} threads");
                }
            }
        }
    }
}

#[test]
fn chunks_of_queries_give_the_same_bits() {
    let case = Case::new(300, 3, 24);
    for isa in Isa::available() {
        let team = Team::new(2, isa);
        for precision in KvPrecision::ALL {
            let past = case.past(&team, precision);
            for kernel in KERNELS.iter().copied() {
                let whole = case.by(kernel, &team, &past, case.n);
                for chunk in [1, 7, 64] {
                    let chunked = case.by(kernel, &team, &past, chunk);
                    assert!(chunked == whole, "{} on {isa}, {precision}, by {chunk}", kernel.name());
                }
            }
        }
    }
}

#[test]
fn keys_and_values_are_stored_as_near_as_their_precision_allows() {
    let mut case = Case::new(70, 2, 20);
    case.k[20..40].fill(0.0); // a head's key that is nothing
    case.v[40..60].iter_mut().for_each(|x| *x *= 1e-39);
    let team = Team::new(2, Isa::available()[0]);
    for precision in KvPrecision::ALL {
        let past = case.past(&team, precision);
        assert_eq!((past.precision(), past.capacity()), (precision, 128));
        assert!(past.bytes() >= 2 * 128 * precision.bytes(20));
        for h in 0..2 {
            let (keys, values) = past.stored(h, 70);
            for (stored, given) in [(keys, &case.k), (values, &case.v)] {
                let given = Rows::dense(given, 40).columns(h * 20, 20);
                for (t, stored) in stored.chunks(20).enumerate() {
                    let largest = given.row(t).iter().fold(0.0f32, |max, x| max.max(x.abs()));
                    for (&x, stored) in given.row(t).iter().zip(stored) {
                        let error = (x - stored).abs();
                        match precision {
                            KvPrecision::F32 => assert_eq!(error, 0.0),
                            KvPrecision::F16 => assert_eq!(*stored, half::f16::from_f32(x).to_f32()),
                            KvPrecision::Int8 => assert!(error <= largest / 253.0 + 1e-38, "{x} is {stored}"),
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_copy_attends_as_the_original() {
    let case = Case::new(90, 2, 24);
    let team = Team::new(1, Isa::available()[0]);
    for precision in KvPrecision::ALL {
        let past = case.past(&team, precision);
        let mut copy = KeyValues::new(2, 24, 200, precision);
        copy.copy_from(&past, 90);
        assert!(case.by(&Flash, &team, &copy, 90) == case.by(&Flash, &team, &past, 90), "{precision}");
    }
}

#[test]
fn a_later_token_changes_nothing_before_it() {
    let case = Case::new(80, 1, 16);
    let team = Team::new(1, Isa::available()[0]);
    for kernel in KERNELS.iter().copied() {
        let mut past = case.past(&team, KvPrecision::F32);
        let before = case.by(kernel, &team, &past, 80);
        let other = numbers(9, 16);
        past.append(&team, 79, Rows::dense(&other, 16), Rows::dense(&other, 16));
        let after = case.by(kernel, &team, &past, 80);
        assert_eq!(before[..79 * 16], after[..79 * 16], "{}", kernel.name());
        assert_ne!(before[79 * 16..], after[79 * 16..], "{}", kernel.name());
    }
}

#[test]
fn patterns_are_the_shares_of_the_formula() {
    let case = Case::new(90, 2, 20);
    for mask in [Mask::Causal, Mask::Window(30)] {
        for (isa, precision) in Isa::available().into_iter().zip(KvPrecision::ALL) {
            let past = case.past(&Team::new(1, isa), precision);
            let span = Span { row: 0, n: 90, position: 0, past: &past };
            let found = patterns(isa, Rows::dense(&case.q, case.width()), span, case.scale(), mask);
            assert_close(&found, &case.formula(mask, &past).1, 1e-6, &format!("{mask:?}, {isa}"));
        }
    }
}

#[test]
fn a_kernel_goes_by_its_name_alone() {
    for kernel in KERNELS {
        assert_eq!(named(kernel.name()).unwrap().name(), kernel.name());
        assert_eq!(KERNELS.iter().filter(|other| other.name() == kernel.name()).count(), 1);
    }
    assert_eq!(
        named("Flash").unwrap_err(),
        "expected one of textbook, blocks, two-pass, streaming, flash, split-kv, window"
    );
}

#[test]
fn scratch_is_what_the_kernel_took() {
    let case = Case::new(256, 2, 16);
    let team = Team::new(2, Isa::Portable);
    let past = case.past(&team, KvPrecision::F32);
    let span = |_| Span { row: 0, n: 256, position: 0, past: &past };
    let taken = |kernel: &dyn AttentionKernel| {
        let mut z = vec![0.0; case.q.len()];
        let (q, z) = (Rows::dense(&case.q, 32), RowsMut::dense(&mut z, 32));
        attention(kernel, &team, q, Spans::new(1, &span), 0.25, z)
    };
    // Two threads, each with a row of 272 numbers and a mixture of 16 for each of 256 queries.
    assert_eq!(taken(&Textbook), 2 * 4 * 256 * (272 + 16));
    // A tile of six queries, each with the scores of a block and a mixture.
    assert_eq!(taken(&Flash), 2 * 4 * 6 * (256 + 16));
    assert!(taken(&Blocks) < taken(&Textbook) / 3);
}
