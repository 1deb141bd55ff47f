//! The kernel lab: attention alone, on random queries, keys and values of any shape.
//!
//! In decode a model reads another cache in every layer, so as many caches are read in turn here as GPT-2 has layers:
//! a single one would be found in the processor's own cache, where no model finds it.

use super::Summary;
use crate::kernels::attention::{
    AttentionKernel, KeyValues, KvPrecision, Mask, Segment, Segments, attention, reference,
};
use crate::kernels::rows::{Rows, RowsMut};
use crate::kernels::thread_pool::ThreadPool;
use std::time::Instant;

/// Caches that decode reads in turn, where they take no more than [`MOST_BYTES`].
const LAYERS: usize = 12;
const MOST_BYTES: usize = 1 << 30;
/// The least that one sample takes; short calls are repeated.
const SAMPLE: f64 = 5e-3;
/// Queries of each head that are compared with the reference, which takes seconds for all of a long text.
const CHECKED: usize = 24;

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionPhase {
    /// Every token of a text at once.
    Prefill,
    /// The last token of a text.
    Decode,
}

impl AttentionPhase {
    /// prefill or decode.
    pub fn name(self) -> &'static str {
        match self {
            AttentionPhase::Prefill => "prefill",
            AttentionPhase::Decode => "decode",
        }
    }
}

/// A shape of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// What is computed.
    pub phase: AttentionPhase,
    /// Tokens of each text, at least one.
    pub seq: usize,
    /// Texts, at least one.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Numbers in a head's key.
    pub head_dim: usize,
    /// How keys and values are stored.
    pub kv_precision: KvPrecision,
}

impl AttentionShape {
    /// Queries of each text.
    fn queries(&self) -> usize {
        match self.phase {
            AttentionPhase::Prefill => self.seq,
            AttentionPhase::Decode => 1,
        }
    }

    fn n_embd(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Bytes of one layer's keys and values.
    fn kv_bytes(&self) -> usize {
        self.batch * self.seq * self.heads * self.kv_precision.bytes_per_head(self.head_dim)
    }

    /// Caches that are read in turn.
    pub fn layers(&self) -> usize {
        match self.phase {
            AttentionPhase::Prefill => 1,
            AttentionPhase::Decode => (MOST_BYTES / self.kv_bytes().max(1)).clamp(1, LAYERS),
        }
    }

    /// Operations that cannot be left out (a multiply-add is two): a score and a share of a value for every pair that
    /// the mask leaves.
    pub fn operations(&self, mask: Mask) -> f64 {
        let first = self.seq - self.queries();
        let pairs: usize = (first..self.seq).map(|position| mask.visible(position).len()).sum();
        4.0 * (self.batch * pairs * self.n_embd()) as f64
    }

    /// Bytes that must come from memory or go there: queries, mixtures, and once the keys and values that are seen.
    pub fn bytes(&self, mask: Mask) -> f64 {
        let first = mask.visible(self.seq - self.queries()).start;
        let seen = (self.seq - first) as f64 / self.seq as f64;
        let queries = 2 * self.batch * self.queries() * self.n_embd() * size_of::<f32>();
        seen * self.kv_bytes() as f64 + queries as f64
    }
}

/// What was found out about a kernel on a shape.
#[derive(Clone, Copy, Debug)]
pub struct AttentionMeasurement {
    /// Seconds that a call takes.
    pub seconds: Summary,
    /// Bytes of memory that the kernel took besides its input and output.
    pub scratch_bytes: usize,
    /// The largest error of a number, against the formula in f64 on what was given (not on what was stored).
    pub absolute_error: f64,
    /// The largest error of a mixture: its numbers' largest error over its largest number.
    pub relative_error: f64,
}

/// Random texts of a shape.
pub struct AttentionLab {
    shape: AttentionShape,
    /// `[batch · queries, n_embd]`
    q: Vec<f32>,
    /// Of the first text, `[seq, n_embd]` each.
    k: Vec<f32>,
    v: Vec<f32>,
    /// `[layers][batch]`
    pasts: Vec<Vec<KeyValues>>,
    z: Vec<f32>,
}

impl AttentionLab {
    /// Random texts, the same every time.
    pub fn new(pool: &ThreadPool, shape: AttentionShape) -> Self {
        let n_embd = shape.n_embd();
        let (mut k, mut v) = (vec![], vec![]);
        let pasts = (0..shape.layers()).rev().map(|layer| {
            let past = |text: usize| {
                let seed = 2 + 2 * (layer * shape.batch + text) as u64;
                k = random(seed, shape.seq * n_embd);
                v = random(seed + 1, shape.seq * n_embd);
                let mut past = KeyValues::new(shape.heads, shape.head_dim, shape.seq, shape.kv_precision);
                past.append(pool, 0, Rows::dense(&k, n_embd), Rows::dense(&v, n_embd));
                past
            };
            let mut texts: Vec<_> = (0..shape.batch).rev().map(past).collect();
            texts.reverse();
            texts
        });
        let mut pasts: Vec<_> = pasts.collect();
        pasts.reverse();
        let rows = shape.batch * shape.queries();
        Self { q: random(1, rows * n_embd), z: vec![0.0; rows * n_embd], k, v, pasts, shape }
    }

    /// Measures a kernel `repeat` times (at least once), after one time that does not count. `each` is called after
    /// every repetition.
    pub fn measure(
        &mut self,
        kernel: &dyn AttentionKernel,
        pool: &ThreadPool,
        repeat: usize,
        mut each: impl FnMut(),
    ) -> AttentionMeasurement {
        let scratch_bytes = self.sweep(kernel, pool);
        let (absolute_error, relative_error) = self.errors(kernel, pool);
        let start = Instant::now();
        self.sweep(kernel, pool);
        let sweeps = (SAMPLE / start.elapsed().as_secs_f64()).ceil().max(1.0) as usize;
        let mut sample = || {
            let start = Instant::now();
            for _ in 0..sweeps {
                self.sweep(kernel, pool);
            }
            let seconds = start.elapsed().as_secs_f64() / (sweeps * self.shape.layers()) as f64;
            each();
            seconds
        };
        let seconds: Vec<f64> = (0..repeat.max(1)).map(|_| sample()).collect();
        AttentionMeasurement { seconds: Summary::of(&seconds), scratch_bytes, absolute_error, relative_error }
    }

    /// One call for every layer; returns the scratch of the last.
    fn sweep(&mut self, kernel: &dyn AttentionKernel, pool: &ThreadPool) -> usize {
        (0..self.shape.layers()).map(|layer| self.call(kernel, pool, layer)).last().unwrap_or(0)
    }

    fn call(&mut self, kernel: &dyn AttentionKernel, pool: &ThreadPool, layer: usize) -> usize {
        let (n, n_embd) = (self.shape.queries(), self.shape.n_embd());
        let position = self.shape.seq - n;
        let segment = |i: usize| Segment { first_row: i * n, len: n, position, kv: &self.pasts[layer][i] };
        let (segments, scale) = (Segments::new(self.shape.batch, &segment), self.scale());
        let (q, z) = (Rows::dense(&self.q, n_embd), RowsMut::dense(&mut self.z, n_embd));
        attention(kernel, pool, q, segments, scale, z)
    }

    fn scale(&self) -> f32 {
        1.0 / (self.shape.head_dim as f32).sqrt()
    }

    /// The largest errors of some queries of the first text, the first and the last among them.
    fn errors(&mut self, kernel: &dyn AttentionKernel, pool: &ThreadPool) -> (f64, f64) {
        self.call(kernel, pool, 0);
        let AttentionShape { seq, heads, head_dim, .. } = self.shape;
        let (n, n_embd) = (self.shape.queries(), self.shape.n_embd());
        let (k, v) = (Rows::dense(&self.k, n_embd), Rows::dense(&self.v, n_embd));
        let checked = n.min(CHECKED);
        let rows = (0..checked).map(|i| i * (n - 1) / (checked - 1).max(1));
        let (mut absolute, mut relative) = (0.0f64, 0.0f64);
        for (row, head) in rows.flat_map(|row| (0..heads).map(move |head| (row, head))) {
            let seen = kernel.mask().visible(seq - n + row);
            let [k, v] =
                [k, v].map(|x| x.columns(head * head_dim, head_dim).row_range(seen.start, seen.len()));
            let at = row * n_embd + head * head_dim;
            let (expected, _) = reference(&self.q[at..][..head_dim], k, v, self.scale());
            let found = self.z[at..][..head_dim].iter().zip(&expected);
            let error = found.map(|(&z, e)| (f64::from(z) - e).abs()).fold(0.0, f64::max);
            let largest = expected.iter().fold(0.0f64, |largest, e| largest.max(e.abs()));
            absolute = absolute.max(error);
            relative = relative.max(error / largest);
        }
        (absolute, relative)
    }
}

/// The exponent a of time ≈ c · seq^a: the slope of a line through the logarithms (least squares). None for fewer than
/// two lengths.
pub fn growth(times: &[(usize, f64)]) -> Option<f64> {
    let points: Vec<(f64, f64)> = times.iter().map(|&(n, t)| ((n as f64).ln(), t.ln())).collect();
    let n = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / n, y + point.1 / n));
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let slope: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    (spread > 0.0).then(|| slope / spread)
}

/// `n` numbers of mean 0 and variance 1, so that scores have variance 1 too; the same for the same seed.
fn random(seed: u64, n: usize) -> Vec<f32> {
    // xorshift64 (Marsaglia 2003); a uniform number on ±√3 has variance 1.
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
    fn every_kernel_is_measured_and_its_error_seen() {
        let pool = ThreadPool::new(2, Isa::available()[0]);
        for phase in [AttentionPhase::Prefill, AttentionPhase::Decode] {
            for (kv_precision, most) in
                [(KvPrecision::F32, 1e-5), (KvPrecision::F16, 2e-3), (KvPrecision::Int8, 3e-2)]
            {
                let mut lab = AttentionLab::new(&pool, AttentionShape { kv_precision, ..shape(phase) });
                for kernel in KERNELS.iter().copied() {
                    let mut repetitions = 0;
                    let found = lab.measure(kernel, &pool, 2, || repetitions += 1);
                    assert!(repetitions == 2 && found.seconds.median > 0.0);
                    let what = format!("{} {kv_precision} {}", kernel.name(), found.absolute_error);
                    assert!(found.absolute_error > most / 1e3 && found.absolute_error < most, "{what}");
                    assert!(found.relative_error > 0.0 && found.relative_error < 10.0 * most, "{what}");
                }
            }
        }
    }

    #[test]
    fn costs_by_hand() {
        let (prefill, decode) = (shape(AttentionPhase::Prefill), shape(AttentionPhase::Decode));
        assert_eq!(prefill.operations(Mask::Causal), (4 * 2 * 60 * 300 * 301 / 2) as f64);
        assert_eq!(decode.operations(Mask::Causal), (4 * 2 * 60 * 300) as f64);
        assert_eq!(decode.operations(Mask::SlidingWindow(256)), (4 * 2 * 60 * 256) as f64);
        assert_eq!(decode.bytes(Mask::Causal), (2 * 300 * 60 * 2 * 4 + 2 * 2 * 60 * 4) as f64);
        assert_eq!(
            prefill.bytes(Mask::SlidingWindow(10)),
            (2 * 300 * 60 * 2 * 4 + 2 * 2 * 300 * 60 * 4) as f64
        );
        assert_eq!((prefill.layers(), decode.layers()), (1, 12));
    }

    #[test]
    fn growth_is_the_exponent() {
        let times = |exponent: f64| [128, 256, 1024].map(|n| (n, 3e-9 * (n as f64).powf(exponent)));
        assert!((growth(&times(2.0)).unwrap() - 2.0).abs() < 1e-9);
        assert!((growth(&times(0.5)).unwrap() - 0.5).abs() < 1e-9);
        assert_eq!(growth(&times(1.0)[..1]), None);
        assert_eq!(growth(&[(5, 1.0), (5, 2.0)]), None);
    }
}
