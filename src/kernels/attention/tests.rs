//! Every registered kernel against the reference, and against itself on other instruction sets and thread
//! counts.

use super::*;
use crate::isa::Isa;
use crate::testing::random_values;

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
        let random = |seed, scale: f32| -> Vec<f32> {
            random_values(seed, n * n_head * head_dim).iter().map(|x| x * scale).collect()
        };
        Self { n, n_head, head_dim, q: random(1, 3.0), k: random(2, 3.0), v: random(3, 1.0) }
    }

    fn width(&self) -> usize {
        self.n_head * self.head_dim
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    fn key_values(&self, pool: &ThreadPool, precision: KvPrecision) -> KeyValues {
        let mut kv = KeyValues::new(self.n_head, self.head_dim, self.n, precision);
        let (k, v) = (Rows::dense(&self.k, self.width()), Rows::dense(&self.v, self.width()));
        kv.append(pool, 0, k, v);
        kv
    }

    /// Returns the output of a kernel that gets the queries in segments of `chunk`.
    fn attend(
        &self,
        kernel: &dyn AttentionKernel,
        pool: &ThreadPool,
        kv: &KeyValues,
        chunk: usize,
    ) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.q.len()];
        let segment = |i| {
            let first = i * chunk;
            Segment { first_row: first, len: chunk.min(self.n - first), position: first, kv }
        };
        let segments = Segments::new(self.n.div_ceil(chunk), &segment);
        let (q, out_rows) = (Rows::dense(&self.q, self.width()), RowsMut::dense(&mut out, self.width()));
        attention(kernel, pool, q, segments, self.scale(), out_rows);
        out
    }

    /// Returns the reference on the stored keys and values, head by head: the output `[n, n_embd]` and the
    /// attention weights `[n_head, n, n]`.
    fn reference(&self, mask: Mask, kv: &KeyValues) -> (Vec<f64>, Vec<f64>) {
        let mut out = vec![0.0; self.q.len()];
        let mut weights = vec![0.0; self.n_head * self.n * self.n];
        for h in 0..self.n_head {
            let (k, v) = kv.to_f32_vecs(h, self.n);
            let [k, v] = [&k, &v].map(|x| Rows::dense(x, self.head_dim));
            for i in 0..self.n {
                let (visible, offset) = (mask.visible(i), i * self.width() + h * self.head_dim);
                let [k, v] = [k, v].map(|x| x.row_range(visible.start, visible.len()));
                let q = Rows::dense(&self.q[offset..][..self.head_dim], self.head_dim);
                let (row, p) = reference(q, k, v, self.scale());
                out[offset..][..self.head_dim].copy_from_slice(&row);
                weights[(h * self.n + i) * self.n..][visible].copy_from_slice(&p);
            }
        }
        (out, weights)
    }
}

fn assert_close(actual: &[f32], expected: &[f64], tolerance: f64, case: &str) {
    assert_eq!(actual.len(), expected.len());
    for (i, (&a, e)) in actual.iter().zip(expected).enumerate() {
        assert!((f64::from(a) - e).abs() <= tolerance, "{case}: [{i}] is {a}, expected {e}");
    }
}

/// n, n_head, head_dim: lengths on both sides of a panel, a KV block, a query block, a split and a window.
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
fn every_kernel_matches_reference_with_identical_bits_on_every_isa_and_thread_count() {
    for (n, n_head, head_dim) in SHAPES {
        let case = Case::new(n, n_head, head_dim);
        for precision in KvPrecision::ALL {
            let kv = case.key_values(&ThreadPool::new(1, Isa::Portable), precision);
            for kernel in KERNELS.iter().copied() {
                let case_name = format!("{} on {n} x {n_head} x {head_dim}, {precision}", kernel.name());
                let (expected, _) = case.reference(kernel.mask(), &kv);
                let mut first: Option<Vec<f32>> = None;
                for (isa, threads) in Isa::available().into_iter().flat_map(|isa| [(isa, 1), (isa, 3)]) {
                    let pool = ThreadPool::new(threads, isa);
                    let out = case.attend(kernel, &pool, &kv, n);
                    assert_close(&out, &expected, 1e-5, &case_name);
                    assert!(
                        *first.get_or_insert_with(|| out.clone()) == out,
                        "{case_name}: {isa}, {threads} threads"
                    );
                }
            }
        }
    }
}

#[test]
fn chunked_queries_give_identical_bits() {
    let case = Case::new(300, 3, 24);
    for isa in Isa::available() {
        let pool = ThreadPool::new(2, isa);
        for precision in KvPrecision::ALL {
            let kv = case.key_values(&pool, precision);
            for kernel in KERNELS.iter().copied() {
                let whole = case.attend(kernel, &pool, &kv, case.n);
                for chunk in [1, 7, 64] {
                    let chunked = case.attend(kernel, &pool, &kv, chunk);
                    assert!(chunked == whole, "{} on {isa}, {precision}, chunks of {chunk}", kernel.name());
                }
            }
        }
    }
}

#[test]
fn stored_keys_and_values_are_within_rounding_of_their_precision() {
    let mut case = Case::new(70, 2, 20);
    case.k[20..40].fill(0.0); // an all-zero key
    case.v[40..60].iter_mut().for_each(|x| *x *= 1e-39);
    let pool = ThreadPool::new(2, Isa::available()[0]);
    for precision in KvPrecision::ALL {
        let kv = case.key_values(&pool, precision);
        assert_eq!((kv.precision(), kv.capacity()), (precision, 128));
        assert!(kv.bytes() >= 2 * 128 * precision.bytes_per_head(20));
        for h in 0..2 {
            let (keys, values) = kv.to_f32_vecs(h, 70);
            for (stored, given) in [(keys, &case.k), (values, &case.v)] {
                let given = Rows::dense(given, 40).columns(h * 20, 20);
                for (t, stored) in stored.chunks(20).enumerate() {
                    let absmax = given.row(t).iter().fold(0.0f32, |max, x| max.max(x.abs()));
                    for (&x, stored) in given.row(t).iter().zip(stored) {
                        let error = (x - stored).abs();
                        match precision {
                            KvPrecision::F32 => assert_eq!(error, 0.0),
                            KvPrecision::F16 => assert_eq!(*stored, half::f16::from_f32(x).to_f32()),
                            KvPrecision::Int8 => assert!(error <= absmax / 253.0 + 1e-38, "{x} is {stored}"),
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn copied_key_values_give_identical_output() {
    let case = Case::new(90, 2, 24);
    let pool = ThreadPool::new(1, Isa::available()[0]);
    for precision in KvPrecision::ALL {
        let kv = case.key_values(&pool, precision);
        let mut copy = KeyValues::new(2, 24, 200, precision);
        copy.copy_from(&kv, 90);
        assert!(case.attend(&Flash, &pool, &copy, 90) == case.attend(&Flash, &pool, &kv, 90), "{precision}");
    }
}

#[test]
fn key_values_without_positions_accept_no_tokens() {
    let pool = ThreadPool::new(1, Isa::available()[0]);
    for precision in KvPrecision::ALL {
        let mut kv = KeyValues::new(2, 16, 0, precision);
        kv.append(&pool, 0, Rows::dense(&[], 32), Rows::dense(&[], 32));
        kv.copy_from(&KeyValues::new(2, 16, 0, precision), 0);
        assert_eq!((kv.capacity(), kv.to_f32_vecs(1, 0)), (0, (vec![], vec![])));
    }
}

#[test]
fn later_token_leaves_earlier_outputs_unchanged() {
    let case = Case::new(80, 1, 16);
    let pool = ThreadPool::new(1, Isa::available()[0]);
    for kernel in KERNELS.iter().copied() {
        let mut kv = case.key_values(&pool, KvPrecision::F32);
        let before = case.attend(kernel, &pool, &kv, 80);
        let other = random_values(9, 16);
        kv.append(&pool, 79, Rows::dense(&other, 16), Rows::dense(&other, 16));
        let after = case.attend(kernel, &pool, &kv, 80);
        assert_eq!(before[..79 * 16], after[..79 * 16], "{}", kernel.name());
        assert_ne!(before[79 * 16..], after[79 * 16..], "{}", kernel.name());
    }
}

#[test]
fn attention_weights_match_reference() {
    let case = Case::new(90, 2, 20);
    for mask in [Mask::Causal, Mask::SlidingWindow(30)] {
        for (isa, precision) in Isa::available().into_iter().zip(KvPrecision::ALL) {
            let kv = case.key_values(&ThreadPool::new(1, isa), precision);
            let segment = Segment { first_row: 0, len: 90, position: 0, kv: &kv };
            let weights =
                attention_weights(isa, Rows::dense(&case.q, case.width()), segment, case.scale(), mask);
            assert_close(&weights, &case.reference(mask, &kv).1, 1e-6, &format!("{mask:?}, {isa}"));
        }
    }
}

#[test]
fn kernel_names_are_unique_and_resolve() {
    for kernel in KERNELS {
        assert_eq!(by_name(kernel.name()).unwrap().name(), kernel.name());
        assert_eq!(KERNELS.iter().filter(|other| other.name() == kernel.name()).count(), 1);
    }
    let error = by_name("Flash").unwrap_err();
    assert!(error.starts_with("expected one of textbook, ") && error.contains(", flash, "), "{error}");
}

#[test]
fn reported_workspace_is_what_the_kernel_used() {
    let case = Case::new(256, 2, 16);
    let pool = ThreadPool::new(2, Isa::Portable);
    let kv = case.key_values(&pool, KvPrecision::F32);
    let segment = |_| Segment { first_row: 0, len: 256, position: 0, kv: &kv };
    let workspace_bytes = |kernel: &dyn AttentionKernel| {
        let mut out = vec![0.0; case.q.len()];
        let (q, out) = (Rows::dense(&case.q, 32), RowsMut::dense(&mut out, 32));
        attention(kernel, &pool, q, Segments::new(1, &segment), 0.25, out)
    };
    // Two threads, each with 256 scores in f64 for each of 256 queries.
    assert_eq!(workspace_bytes(&Textbook), 2 * 8 * 256 * 256);
    // Two threads, each with a score row of 272 elements and an accumulator of 16 for each of 64 queries.
    assert_eq!(workspace_bytes(&Blocks), 2 * 4 * 64 * (272 + 16));
    // A query block of six, each with the scores of a KV block and an accumulator.
    assert_eq!(workspace_bytes(&Flash), 2 * 4 * 6 * (256 + 16));
}
