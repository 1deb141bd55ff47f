//! The attention benchmark: attention alone, on random queries, keys and values of any shape.
//!
//! In decode, as in chunked prefill, a model reads another KV cache in every layer, so the benchmark cycles
//! through as many caches as GPT-2 has layers: a single one would stay in the processor's cache, which never
//! happens in a model.

use super::Summary;
use crate::kernels::attention::{
    AttentionKernel, KeyValues, KvPrecision, Mask, Segment, Segments, attention, reference,
};
use crate::kernels::rows::{Rows, RowsMut};
use crate::kernels::thread_pool::ThreadPool;
use std::time::Instant;

/// Layers that decode and chunked prefill cycle through, as long as their caches fit in [`MAX_KV_BYTES`].
const DECODE_LAYERS: usize = 12;
const MAX_KV_BYTES: usize = 1 << 30;
/// The minimum time of a sample in seconds; short calls are repeated.
const MIN_SAMPLE_SECONDS: f64 = 5e-3;
/// Queries per head that are compared with the reference, which takes seconds for all of a long sequence.
const CHECKED_QUERIES: usize = 24;

/// The phase of inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionPhase {
    /// All tokens of a sequence at once.
    Prefill,
    /// The last tokens of a sequence, onto the KV cache of those before them.
    ChunkedPrefill {
        /// Tokens in the chunk, at least one.
        chunk: usize,
    },
    /// The last token of a sequence.
    Decode,
}

impl AttentionPhase {
    /// Returns `prefill`, `chunked-prefill` or `decode`.
    pub fn name(self) -> &'static str {
        match self {
            AttentionPhase::Prefill => "prefill",
            AttentionPhase::ChunkedPrefill { .. } => "chunked-prefill",
            AttentionPhase::Decode => "decode",
        }
    }
}

/// The shape of an attention benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Prefill, chunked prefill or decode.
    pub phase: AttentionPhase,
    /// Tokens per sequence, at least one.
    pub seq: usize,
    /// Sequences, at least one.
    pub batch: usize,
    /// Attention heads.
    pub heads: usize,
    /// Elements of a head's query, key or value.
    pub head_dim: usize,
    /// The precision of keys and values.
    pub kv_precision: KvPrecision,
}

impl AttentionShape {
    /// Returns the queries per sequence.
    pub fn queries(&self) -> usize {
        match self.phase {
            AttentionPhase::Prefill => self.seq,
            AttentionPhase::ChunkedPrefill { chunk } => chunk.min(self.seq),
            AttentionPhase::Decode => 1,
        }
    }

    fn n_embd(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Returns the bytes of one layer's keys and values.
    fn kv_bytes(&self) -> usize {
        self.batch * self.seq * self.heads * self.kv_precision.bytes_per_head(self.head_dim)
    }

    /// Returns the number of layers, each with its own KV cache, that the benchmark cycles through.
    pub fn layers(&self) -> usize {
        match self.phase {
            AttentionPhase::Prefill => 1,
            AttentionPhase::ChunkedPrefill { .. } | AttentionPhase::Decode => {
                (MAX_KV_BYTES / self.kv_bytes().max(1)).clamp(1, DECODE_LAYERS)
            }
        }
    }

    /// Returns the minimum FLOPs (a multiply-add is two): Q·Kᵀ and P·V for every unmasked query-key pair.
    pub fn flops(&self, mask: Mask) -> f64 {
        let first = self.seq - self.queries();
        let pairs: usize = (first..self.seq).map(|position| mask.visible(position).len()).sum();
        4.0 * (self.batch * pairs * self.n_embd()) as f64
    }

    /// Returns the minimum memory traffic in bytes: queries, outputs, and the unmasked keys and values once.
    pub fn bytes(&self, mask: Mask) -> f64 {
        let first = mask.visible(self.seq - self.queries()).start;
        let visible_fraction = (self.seq - first) as f64 / self.seq as f64;
        let q_and_out = 2 * self.batch * self.queries() * self.n_embd() * size_of::<f32>();
        visible_fraction * self.kv_bytes() as f64 + q_and_out as f64
    }
}

/// The measurements of a kernel on a shape.
#[derive(Clone, Debug)]
pub struct AttentionMeasurement {
    /// Seconds per call.
    pub seconds: Summary,
    /// Bytes of workspace that the kernel used besides its inputs and output.
    pub workspace_bytes: usize,
    /// The maximum absolute error of an output element, against the f64 reference on unrounded keys and
    /// values.
    pub max_absolute_error: f64,
    /// The maximum relative error of an output row: its maximum absolute error over its maximum magnitude.
    pub max_relative_error: f64,
}

/// Random queries, keys and values of a shape.
pub struct AttentionBenchmark {
    shape: AttentionShape,
    /// `[batch · queries, n_embd]`
    q: Vec<f32>,
    /// The first sequence's keys and values, `[seq, n_embd]` each.
    k: Vec<f32>,
    v: Vec<f32>,
    /// `[layers][batch]`
    caches: Vec<Vec<KeyValues>>,
    /// `[batch · queries, n_embd]`
    out: Vec<f32>,
}

impl AttentionBenchmark {
    /// Generates random sequences, the same every time.
    pub fn new(pool: &ThreadPool, shape: AttentionShape) -> Self {
        let n_embd = shape.n_embd();
        let (mut k, mut v) = (vec![], vec![]);
        let caches = (0..shape.layers()).rev().map(|layer| {
            let cache = |sequence: usize| {
                let seed = 2 + 2 * (layer * shape.batch + sequence) as u64;
                k = random(seed, shape.seq * n_embd);
                v = random(seed + 1, shape.seq * n_embd);
                let mut kv = KeyValues::new(shape.heads, shape.head_dim, shape.seq, shape.kv_precision);
                kv.append(pool, 0, Rows::dense(&k, n_embd), Rows::dense(&v, n_embd));
                kv
            };
            let mut layer_caches: Vec<_> = (0..shape.batch).rev().map(cache).collect();
            layer_caches.reverse();
            layer_caches
        });
        let mut caches: Vec<_> = caches.collect();
        caches.reverse();
        let rows = shape.batch * shape.queries();
        Self { q: random(1, rows * n_embd), out: vec![0.0; rows * n_embd], k, v, caches, shape }
    }

    /// Measures a kernel `repeat` times (at least once) after a warm-up. `on_repetition` is called after
    /// every repetition.
    pub fn measure(
        &mut self,
        kernel: &dyn AttentionKernel,
        pool: &ThreadPool,
        repeat: usize,
        mut on_repetition: impl FnMut(),
    ) -> AttentionMeasurement {
        let workspace_bytes = self.warm_up(kernel, pool);
        let (max_absolute_error, max_relative_error) = self.max_errors(kernel, pool);
        let sweeps = self.sweeps_per_sample(kernel, pool);
        let mut sample = || {
            let seconds = self.sample(kernel, pool, sweeps);
            on_repetition();
            seconds
        };
        let seconds: Vec<f64> = (0..repeat.max(1)).map(|_| sample()).collect();
        let seconds = Summary::new(&seconds);
        AttentionMeasurement { seconds, workspace_bytes, max_absolute_error, max_relative_error }
    }

    /// Calls the kernel once per layer. Returns the bytes of workspace that it used.
    pub fn warm_up(&mut self, kernel: &dyn AttentionKernel, pool: &ThreadPool) -> usize {
        self.sweep(kernel, pool)
    }

    /// Calls the kernel once per layer. Returns how often that is to be done for a sample that is long
    /// enough.
    pub fn sweeps_per_sample(&mut self, kernel: &dyn AttentionKernel, pool: &ThreadPool) -> usize {
        let start = Instant::now();
        self.sweep(kernel, pool);
        (MIN_SAMPLE_SECONDS / start.elapsed().as_secs_f64()).ceil().max(1.0) as usize
    }

    /// Calls the kernel once per layer, so many times. Returns the seconds of a call.
    pub fn sample(&mut self, kernel: &dyn AttentionKernel, pool: &ThreadPool, sweeps: usize) -> f64 {
        let start = Instant::now();
        for _ in 0..sweeps {
            self.sweep(kernel, pool);
        }
        start.elapsed().as_secs_f64() / (sweeps * self.shape.layers()) as f64
    }

    /// Calls the kernel once per layer; returns the workspace of the last call in bytes.
    fn sweep(&mut self, kernel: &dyn AttentionKernel, pool: &ThreadPool) -> usize {
        (0..self.shape.layers()).map(|layer| self.call(kernel, pool, layer)).last().unwrap_or(0)
    }

    fn call(&mut self, kernel: &dyn AttentionKernel, pool: &ThreadPool, layer: usize) -> usize {
        let (len, n_embd) = (self.shape.queries(), self.shape.n_embd());
        let position = self.shape.seq - len;
        let segment = |i: usize| Segment { first_row: i * len, len, position, kv: &self.caches[layer][i] };
        let (segments, scale) = (Segments::new(self.shape.batch, &segment), self.scale());
        let (q, out) = (Rows::dense(&self.q, n_embd), RowsMut::dense(&mut self.out, n_embd));
        attention(kernel, pool, q, segments, scale, out)
    }

    fn scale(&self) -> f32 {
        1.0 / (self.shape.head_dim as f32).sqrt()
    }

    /// Returns the maximum absolute and relative error over some queries of the first sequence, the first and
    /// the last included.
    pub fn max_errors(&mut self, kernel: &dyn AttentionKernel, pool: &ThreadPool) -> (f64, f64) {
        self.call(kernel, pool, 0);
        let AttentionShape { seq, heads, head_dim, .. } = self.shape;
        let (n, n_embd) = (self.shape.queries(), self.shape.n_embd());
        let (k, v) = (Rows::dense(&self.k, n_embd), Rows::dense(&self.v, n_embd));
        let checked = n.min(CHECKED_QUERIES);
        let rows = (0..checked).map(|i| i * (n - 1) / (checked - 1).max(1));
        let (mut max_absolute, mut max_relative) = (0.0f64, 0.0f64);
        for (row, head) in rows.flat_map(|row| (0..heads).map(move |head| (row, head))) {
            let visible = kernel.mask().visible(seq - n + row);
            let [k, v] =
                [k, v].map(|x| x.columns(head * head_dim, head_dim).row_range(visible.start, visible.len()));
            let offset = row * n_embd + head * head_dim;
            let q = Rows::dense(&self.q[offset..][..head_dim], head_dim);
            let (expected, _) = reference(q, k, v, self.scale());
            let actual = self.out[offset..][..head_dim].iter().zip(&expected);
            let error = actual.map(|(&a, e)| (f64::from(a) - e).abs()).fold(0.0, f64::max);
            let magnitude = expected.iter().fold(0.0f64, |max, e| max.max(e.abs()));
            max_absolute = max_absolute.max(error);
            max_relative = max_relative.max(error / magnitude);
        }
        (max_absolute, max_relative)
    }
}

/// Fits the exponent a of time ≈ c · seq^a: the least-squares slope on logarithmic axes. Returns none for
/// fewer than two lengths.
pub fn scaling_exponent(times: &[(usize, f64)]) -> Option<f64> {
    let points: Vec<(f64, f64)> = times.iter().map(|&(n, t)| ((n as f64).ln(), t.ln())).collect();
    let n = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / n, y + point.1 / n));
    let variance: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let slope: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    (variance > 0.0).then(|| slope / variance)
}

/// Returns `n` values of mean 0 and variance 1, so that scores have variance 1 too; deterministic for a seed.
fn random(seed: u64, n: usize) -> Vec<f32> {
    // xorshift64 (Marsaglia 2003); a uniform value on ±√3 has variance 1.
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let scale = 3f32.sqrt() / (1u64 << 31) as f32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u32 as i32 as f32 * scale
    };
    (0..n).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::attention::KERNELS;
    use crate::kernels::isa::Isa;

    fn shape(phase: AttentionPhase) -> AttentionShape {
        AttentionShape { phase, seq: 300, batch: 2, heads: 3, head_dim: 20, kv_precision: KvPrecision::F32 }
    }

    #[test]
    fn every_kernel_is_measured_within_its_error_tolerance() {
        let pool = ThreadPool::new(2, Isa::available()[0]);
        let chunked = AttentionPhase::ChunkedPrefill { chunk: 37 };
        for phase in [AttentionPhase::Prefill, chunked, AttentionPhase::Decode] {
            for (kv_precision, tolerance) in
                [(KvPrecision::F32, 1e-5), (KvPrecision::F16, 2e-3), (KvPrecision::Int8, 3e-2)]
            {
                let shape = AttentionShape { kv_precision, ..shape(phase) };
                let mut benchmark = AttentionBenchmark::new(&pool, shape);
                for kernel in KERNELS.iter().copied() {
                    let mut repetitions = 0;
                    let m = benchmark.measure(kernel, &pool, 2, || repetitions += 1);
                    assert!(repetitions == 2 && m.seconds.median > 0.0);
                    let case = format!("{} {kv_precision} {}", kernel.name(), m.max_absolute_error);
                    assert!(m.max_absolute_error > 0.0, "{case}");
                    assert!(m.max_absolute_error < tolerance, "{case}");
                    assert!(m.max_relative_error > 0.0, "{case}");
                    assert!(m.max_relative_error < 10.0 * tolerance, "{case}");
                }
            }
        }
    }

    #[test]
    fn flops_and_bytes_match_hand_count() {
        let (prefill, decode) = (shape(AttentionPhase::Prefill), shape(AttentionPhase::Decode));
        assert_eq!(prefill.flops(Mask::Causal), (4 * 2 * 60 * 300 * 301 / 2) as f64);
        assert_eq!(decode.flops(Mask::Causal), (4 * 2 * 60 * 300) as f64);
        assert_eq!(decode.flops(Mask::SlidingWindow(256)), (4 * 2 * 60 * 256) as f64);
        assert_eq!(decode.bytes(Mask::Causal), (2 * 300 * 60 * 2 * 4 + 2 * 2 * 60 * 4) as f64);
        assert_eq!(
            prefill.bytes(Mask::SlidingWindow(10)),
            (2 * 300 * 60 * 2 * 4 + 2 * 2 * 300 * 60 * 4) as f64
        );
        let chunked = shape(AttentionPhase::ChunkedPrefill { chunk: 2 });
        assert_eq!(chunked.flops(Mask::Causal), (4 * 2 * 60 * (299 + 300)) as f64);
        assert_eq!(shape(AttentionPhase::ChunkedPrefill { chunk: 999 }).queries(), 300);
        assert_eq!((prefill.layers(), chunked.layers(), decode.layers()), (1, 12, 12));
    }

    #[test]
    fn scaling_exponent_recovers_power_law() {
        let times = |exponent: f64| [128, 256, 1024].map(|n| (n, 3e-9 * (n as f64).powf(exponent)));
        assert!((scaling_exponent(&times(2.0)).unwrap() - 2.0).abs() < 1e-9);
        assert!((scaling_exponent(&times(0.5)).unwrap() - 0.5).abs() < 1e-9);
        assert_eq!(scaling_exponent(&times(1.0)[..1]), None);
        assert_eq!(scaling_exponent(&[(5, 1.0), (5, 2.0)]), None);
    }
}
