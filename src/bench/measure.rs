//! Prefill, decode, and decode of several sequences at once, each beside the machine's limits.
//!
//! What is timed is the forward pass. Choosing a token from its logits is not part of it.

use super::{Cost, ReadBandwidth, Summary, fma_peak};
use crate::Result;
use crate::kernels::attention::KvPrecision;
use crate::model::{KvCache, LogitsWanted, Model, Segment, Session, Workspace};
use std::time::Instant;

/// Tokens decoded in one repetition, or as many as the context has room for.
pub const DECODE_STEPS: usize = 16;
/// Tokens that go through the model together to fill a cache.
const PREFILL: usize = 512;

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A prompt of so many tokens, to the logits of its last.
    Prefill {
        /// Tokens.
        prompt: usize,
    },
    /// Tokens one by one, after so many.
    Decode {
        /// Tokens that are there already.
        depth: usize,
    },
    /// Tokens one by one for several sequences at once.
    Batch {
        /// How many.
        sequences: usize,
        /// Tokens that are there already in each.
        depth: usize,
    },
}

impl Phase {
    /// prefill, decode or batch.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Prefill { .. } => "prefill",
            Phase::Decode { .. } => "decode",
            Phase::Batch { .. } => "batch",
        }
    }
}

/// How fast something went.
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    /// What was measured.
    pub phase: Phase,
    /// Tokens a second, those of all sequences together.
    pub tokens_per_second: Summary,
    /// The share of the read bandwidth that the weights, keys and values take; for decode.
    pub of_bandwidth: Option<f64>,
    /// The share of the FMA peak that the multiply-adds take; for more than one token at a time.
    pub of_peak: Option<f64>,
}

/// The machine's limits as they were throughout a run, on one thread pool.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Bytes a second.
    pub bandwidths: Vec<f64>,
    /// f32 operations a second.
    pub peaks: Vec<f64>,
}

impl Limits {
    fn bandwidth(&mut self, memory: &ReadBandwidth, model: &Model) -> f64 {
        self.bandwidths.push(memory.measure(model.pool()));
        self.bandwidths[self.bandwidths.len() - 1]
    }

    fn peak(&mut self, model: &Model) -> f64 {
        self.peaks.push(fma_peak(model.pool()));
        self.peaks[self.peaks.len() - 1]
    }
}

/// Measures a phase `repeat` times (at least once), after one time that does not count. `each` is called after every
/// repetition.
///
/// # Errors
/// [`Error::ContextOverflow`](crate::Error::ContextOverflow) for a prompt, or a depth and a token
/// more, that the model has no room for.
#[allow(clippy::too_many_arguments)]
pub fn measure(
    model: &Model,
    cost: &Cost,
    kv_precision: KvPrecision,
    phase: Phase,
    repeat: usize,
    memory: &ReadBandwidth,
    limits: &mut Limits,
    mut each: impl FnMut(),
) -> Result<Measurement> {
    let mut run = Run::new(model, kv_precision, phase)?;
    let (mut speeds, mut of_bandwidth, mut of_peak) = (vec![], vec![], vec![]);
    let work = Work::of(cost, phase, model.config().n_positions);
    run.once()?;
    for _ in 0..repeat.max(1) {
        let before = (
            work.bytes.map(|_| limits.bandwidth(memory, model)),
            work.operations.map(|_| limits.peak(model)),
        );
        let start = Instant::now();
        run.once()?;
        let seconds = start.elapsed().as_secs_f64();
        speeds.push(work.tokens / seconds);
        if let (Some(bytes), Some(before)) = (work.bytes, before.0) {
            let limit = (before + limits.bandwidth(memory, model)) / 2.0;
            of_bandwidth.push(bytes / seconds / limit);
        }
        if let (Some(operations), Some(before)) = (work.operations, before.1) {
            let limit = (before + limits.peak(model)) / 2.0;
            of_peak.push(operations / seconds / limit);
        }
        each();
    }
    let median = |ratios: Vec<f64>| (!ratios.is_empty()).then(|| Summary::of(&ratios).median);
    Ok(Measurement {
        phase,
        tokens_per_second: Summary::of(&speeds),
        of_bandwidth: median(of_bandwidth),
        of_peak: median(of_peak),
    })
}

/// What one repetition takes.
struct Work {
    tokens: f64,
    /// Where memory may be the limit.
    bytes: Option<f64>,
    /// Where arithmetic may be.
    operations: Option<f64>,
}

impl Work {
    fn of(cost: &Cost, phase: Phase, n_positions: usize) -> Self {
        let decode = |sequences: usize, depth: usize| {
            let steps = steps(n_positions, depth);
            let depths = (depth..depth + steps).map(|depth| depth as f64);
            let bytes = depths.map(|depth| cost.bytes(sequences, depth)).sum();
            let each = |step| cost.operations(1, depth + step);
            let operations = sequences as f64 * (0..steps).map(each).sum::<f64>();
            Self {
                tokens: (sequences * steps) as f64,
                bytes: Some(bytes),
                operations: (sequences > 1).then_some(operations),
            }
        };
        match phase {
            Phase::Prefill { prompt } => {
                Self { tokens: prompt as f64, bytes: None, operations: Some(cost.operations(prompt, 0)) }
            }
            Phase::Decode { depth } => decode(1, depth),
            Phase::Batch { sequences, depth } => decode(sequences, depth),
        }
    }
}

/// A phase, ready to run.
enum Run<'m> {
    Prefill { session: Session<'m>, prompt: Vec<u32> },
    Decode { model: &'m Model, caches: Vec<KvCache>, depth: usize, workspace: Workspace },
}

impl<'m> Run<'m> {
    fn new(model: &'m Model, kv_precision: KvPrecision, phase: Phase) -> Result<Self> {
        let (sequences, depth) = match phase {
            Phase::Prefill { prompt } => {
                let session = Session::new(model, prompt, kv_precision);
                return Ok(Run::Prefill { session, prompt: tokens(model, 0, prompt) });
            }
            Phase::Decode { depth } => (1, depth),
            Phase::Batch { sequences, depth } => (sequences, depth),
        };
        let capacity = depth + steps(model.config().n_positions, depth);
        let mut workspace = Workspace::new();
        let mut first = KvCache::new(model.config(), capacity, kv_precision);
        for tokens in tokens(model, 0, depth).chunks(PREFILL) {
            let segment = Segment { tokens, cache: &mut first, logits: LogitsWanted::None };
            model.forward(&mut [segment], &mut workspace, &mut ())?;
        }
        let mut caches = vec![first];
        for _ in 1..sequences {
            let mut cache = KvCache::new(model.config(), capacity, kv_precision);
            cache.copy_from(&caches[0]);
            caches.push(cache);
        }
        Ok(Run::Decode { model, caches, depth, workspace })
    }

    fn once(&mut self) -> Result<()> {
        match self {
            Run::Prefill { session, prompt } => {
                session.truncate(0);
                session.feed(prompt)?;
            }
            Run::Decode { model, caches, depth, workspace } => {
                caches.iter_mut().for_each(|cache| cache.truncate(*depth));
                for step in 0..steps(model.config().n_positions, *depth) {
                    let next = tokens(model, *depth + step, caches.len());
                    let segment = |(cache, i): (_, usize)| Segment {
                        tokens: &next[i..=i],
                        cache,
                        logits: LogitsWanted::Last,
                    };
                    let mut batch: Vec<_> = caches.iter_mut().zip(0..).map(segment).collect();
                    model.forward(&mut batch, workspace, &mut ())?;
                }
            }
        }
        Ok(())
    }
}

/// Tokens to decode after `depth` others: one at least, for the model to refuse where it has no room.
fn steps(n_positions: usize, depth: usize) -> usize {
    DECODE_STEPS.min(n_positions.saturating_sub(depth)).max(1)
}

/// `n` tokens from all over the vocabulary.
fn tokens(model: &Model, seed: usize, n: usize) -> Vec<u32> {
    let vocab_size = model.config().vocab_size as u64;
    let token = |i: usize| ((i as u64 + 1).wrapping_mul(0x9e37_79b9) % vocab_size) as u32;
    (seed * n..seed * n + n).map(token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Shape;
    use crate::kernels::isa::Isa;
    use crate::kernels::thread_pool::ThreadPool;

    const TINY: Shape =
        Shape { name: "tiny", n_layer: 2, n_embd: 32, n_head: 2, n_positions: 64, vocab_size: 50 };

    #[test]
    fn every_phase_is_measured_beside_its_limits() {
        let checkpoint = TINY.random().unwrap();
        let model = Model::new(checkpoint, ThreadPool::new(2, Isa::available()[0]));
        let cost = Cost::of(&model, KvPrecision::F32);
        let memory = ReadBandwidth::new().unwrap();
        let mut limits = Limits::default();
        let phases = [
            (Phase::Prefill { prompt: 64 }, false, true),
            (Phase::Decode { depth: 0 }, true, false),
            (Phase::Batch { sequences: 3, depth: 48 }, true, true),
        ];
        for (phase, bandwidth, peak) in phases {
            let mut calls = 0;
            let kv = KvPrecision::F32;
            let found = measure(&model, &cost, kv, phase, 2, &memory, &mut limits, || calls += 1).unwrap();
            assert_eq!(calls, 2);
            assert!(found.tokens_per_second.median > 0.0);
            assert_eq!(
                (found.of_bandwidth.is_some(), found.of_peak.is_some()),
                (bandwidth, peak),
                "{phase:?}"
            );
            assert!(found.of_bandwidth.into_iter().chain(found.of_peak).all(|share| share > 0.0));
        }
        assert_eq!((limits.bandwidths.len(), limits.peaks.len()), (8, 8));
    }

    #[test]
    fn a_run_ends_where_it_should() {
        let model = Model::new(TINY.random().unwrap(), ThreadPool::new(1, Isa::Portable));
        let mut run = Run::new(&model, KvPrecision::F16, Phase::Batch { sequences: 2, depth: 5 }).unwrap();
        for _ in 0..2 {
            run.once().unwrap();
            let Run::Decode { caches, .. } = &run else { panic!("a batch decodes") };
            assert!(caches.len() == 2 && caches.iter().all(|cache| cache.len() == 5 + DECODE_STEPS));
        }
        let decode = |depth| {
            Run::new(&model, KvPrecision::F32, Phase::Decode { depth }).and_then(|mut run| run.once())
        };
        assert!(decode(63).is_ok(), "one token fits");
        assert!(decode(64).is_err() && decode(65).is_err());
    }
}
