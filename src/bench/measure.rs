//! Prefill, decode, and batched decode, each as a fraction of the machine's limits.
//!
//! The forward pass is timed, without sampling.

use super::{Cost, ReadBandwidth, Summary, fma_peak};
use crate::Result;
use crate::kernels::attention::KvPrecision;
use crate::kernels::thread_pool::ThreadPool;
use crate::model::{KvCache, LogitsWanted, Model, Segment, Session, Workspace};
use std::time::Instant;

/// Tokens decoded per repetition, or as many as the context has room for.
pub const DECODE_STEPS: usize = 16;
/// Tokens per forward pass when filling a cache.
const PREFILL_CHUNK: usize = 512;

/// The phase to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Reading a prompt, to the logits of its last token.
    Prefill {
        /// Tokens of the prompt.
        prompt: usize,
    },
    /// Generating tokens one by one.
    Decode {
        /// Tokens already in the cache.
        depth: usize,
    },
    /// Generating tokens one by one for several sequences at once.
    Batch {
        /// The batch size.
        sequences: usize,
        /// Tokens already in each sequence's cache.
        depth: usize,
    },
}

impl Phase {
    /// Returns `prefill`, `decode` or `batch`.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Prefill { .. } => "prefill",
            Phase::Decode { .. } => "decode",
            Phase::Batch { .. } => "batch",
        }
    }
}

/// The speed of a phase.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// The phase measured.
    pub phase: Phase,
    /// Tokens per second over all sequences.
    pub tokens_per_second: Summary,
    /// The fraction of the read bandwidth achieved on weights, keys and values; for decode.
    pub fraction_of_bandwidth: Option<f64>,
    /// The fraction of the FMA peak achieved; for more than one token at a time.
    pub fraction_of_peak: Option<f64>,
}

/// Samples of the machine's limits over a run, for one number of threads.
#[derive(Clone, Debug, Default)]
pub struct LimitSamples {
    /// Bytes per second.
    pub bandwidths: Vec<f64>,
    /// f32 FLOP/s.
    pub peaks: Vec<f64>,
}

impl LimitSamples {
    /// Measures both limits, in bytes and FLOPs per second.
    pub fn measure(&mut self, memory: &ReadBandwidth, pool: &ThreadPool) -> (f64, f64) {
        let (bandwidth, peak) = (memory.measure(pool), fma_peak(pool));
        self.bandwidths.push(bandwidth);
        self.peaks.push(peak);
        (bandwidth, peak)
    }

    fn bandwidth(&mut self, memory: &ReadBandwidth, model: &Model) -> f64 {
        self.bandwidths.push(memory.measure(model.pool()));
        self.bandwidths[self.bandwidths.len() - 1]
    }

    fn peak(&mut self, model: &Model) -> f64 {
        self.peaks.push(fma_peak(model.pool()));
        self.peaks[self.peaks.len() - 1]
    }
}

/// Measures a phase `repeat` times (at least once) after a warm-up. `on_repetition` is called after every
/// repetition.
///
/// # Errors
/// [`Error::ContextOverflow`](crate::Error::ContextOverflow) if the prompt, or the depth plus one token,
/// exceeds the model's context, and as [`Model::check_finite`].
#[allow(clippy::too_many_arguments)]
pub fn measure(
    model: &Model,
    cost: &Cost,
    kv_precision: KvPrecision,
    phase: Phase,
    repeat: usize,
    memory: &ReadBandwidth,
    limits: &mut LimitSamples,
    mut on_repetition: impl FnMut(),
) -> Result<Measurement> {
    let mut runner = Runner::new(model, kv_precision, phase)?;
    let (mut speeds, mut bandwidth_fractions, mut peak_fractions) = (vec![], vec![], vec![]);
    let work = Workload::new(cost, phase, model.config().n_positions);
    runner.run_once()?;
    runner.check_finite()?;
    for _ in 0..repeat.max(1) {
        let before =
            (work.bytes.map(|_| limits.bandwidth(memory, model)), work.flops.map(|_| limits.peak(model)));
        let start = Instant::now();
        runner.run_once()?;
        let seconds = start.elapsed().as_secs_f64();
        speeds.push(work.tokens / seconds);
        if let (Some(bytes), Some(before)) = (work.bytes, before.0) {
            let limit = (before + limits.bandwidth(memory, model)) / 2.0;
            bandwidth_fractions.push(bytes / seconds / limit);
        }
        if let (Some(flops), Some(before)) = (work.flops, before.1) {
            let limit = (before + limits.peak(model)) / 2.0;
            peak_fractions.push(flops / seconds / limit);
        }
        on_repetition();
    }
    let median = |fractions: Vec<f64>| (!fractions.is_empty()).then(|| Summary::new(&fractions).median);
    Ok(Measurement {
        phase,
        tokens_per_second: Summary::new(&speeds),
        fraction_of_bandwidth: median(bandwidth_fractions),
        fraction_of_peak: median(peak_fractions),
    })
}

/// The work of one repetition.
struct Workload {
    tokens: f64,
    /// Present if memory bandwidth may be the limit.
    bytes: Option<f64>,
    /// Present if compute may be the limit.
    flops: Option<f64>,
}

impl Workload {
    fn new(cost: &Cost, phase: Phase, n_positions: usize) -> Self {
        let decode = |sequences: usize, depth: usize| {
            let steps = steps(n_positions, depth);
            let depths = (depth..depth + steps).map(|depth| depth as f64);
            let bytes = depths.map(|depth| cost.decode_bytes(sequences, depth)).sum();
            let step_flops = |step| cost.flops(1, depth + step);
            let flops = sequences as f64 * (0..steps).map(step_flops).sum::<f64>();
            Self {
                tokens: (sequences * steps) as f64,
                bytes: Some(bytes),
                flops: (sequences > 1).then_some(flops),
            }
        };
        match phase {
            Phase::Prefill { prompt } => {
                Self { tokens: prompt as f64, bytes: None, flops: Some(cost.flops(prompt, 0)) }
            }
            Phase::Decode { depth } => decode(1, depth),
            Phase::Batch { sequences, depth } => decode(sequences, depth),
        }
    }
}

/// A phase with its model state, ready to run.
enum Runner<'m> {
    Prefill { session: Session<'m>, prompt: Vec<u32> },
    Decode { model: &'m Model, caches: Vec<KvCache>, depth: usize, workspace: Workspace },
}

impl<'m> Runner<'m> {
    fn new(model: &'m Model, kv_precision: KvPrecision, phase: Phase) -> Result<Self> {
        let (sequences, depth) = match phase {
            Phase::Prefill { prompt } => {
                let session = Session::new(model, prompt, kv_precision);
                return Ok(Runner::Prefill { session, prompt: tokens(model, 0, prompt) });
            }
            Phase::Decode { depth } => (1, depth),
            Phase::Batch { sequences, depth } => (sequences, depth),
        };
        let capacity = depth + steps(model.config().n_positions, depth);
        let mut workspace = Workspace::new();
        let mut first = model.kv_cache(capacity, kv_precision);
        for tokens in tokens(model, 0, depth).chunks(PREFILL_CHUNK) {
            let segment = Segment { tokens, cache: &mut first, logits: LogitsWanted::None };
            model.forward(&mut [segment], &mut workspace, &mut ())?;
        }
        let mut caches = vec![first];
        for _ in 1..sequences {
            let mut cache = model.kv_cache(capacity, kv_precision);
            cache.copy_from(&caches[0]);
            caches.push(cache);
        }
        Ok(Runner::Decode { model, caches, depth, workspace })
    }

    fn run_once(&mut self) -> Result<()> {
        match self {
            Runner::Prefill { session, prompt } => {
                session.truncate(0);
                session.feed(prompt)?;
            }
            Runner::Decode { model, caches, depth, workspace } => {
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

    /// Checks the last logits, as every use of the model does: what is no number is not worth measuring.
    fn check_finite(&self) -> Result<()> {
        match self {
            Runner::Prefill { .. } => Ok(()), // the session has checked them
            Runner::Decode { model, caches, workspace, .. } => {
                model.check_finite(workspace.logits(), &caches[0])
            }
        }
    }
}

/// Returns the tokens to decode after `depth` others: at least one, which the model rejects if the context is
/// full.
fn steps(n_positions: usize, depth: usize) -> usize {
    DECODE_STEPS.min(n_positions.saturating_sub(depth)).max(1)
}

/// Returns `n` pseudo-random tokens from the whole vocabulary.
fn tokens(model: &Model, seed: usize, n: usize) -> Vec<u32> {
    let vocab_size = model.config().vocab_size as u64;
    let token = |i: usize| ((i as u64 + 1).wrapping_mul(0x9e37_79b9) % vocab_size) as u32;
    (seed * n..seed * n + n).map(token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::ModelShape;
    use crate::kernels::isa::Isa;
    use crate::kernels::thread_pool::ThreadPool;

    const TINY: ModelShape =
        ModelShape { name: "tiny", n_layer: 2, n_embd: 32, n_head: 2, n_positions: 64, vocab_size: 50 };

    #[test]
    fn every_phase_reports_its_fractions_of_the_limits() {
        let checkpoint = TINY.random_checkpoint().unwrap();
        let model = Model::new(checkpoint, ThreadPool::new(2, Isa::available()[0]));
        let cost = Cost::new(&model, KvPrecision::F32);
        let memory = ReadBandwidth::new().unwrap();
        let mut limits = LimitSamples::default();
        let phases = [
            (Phase::Prefill { prompt: 64 }, false, true),
            (Phase::Decode { depth: 0 }, true, false),
            (Phase::Batch { sequences: 3, depth: 48 }, true, true),
        ];
        for (phase, bandwidth, peak) in phases {
            let mut calls = 0;
            let kv = KvPrecision::F32;
            let m = measure(&model, &cost, kv, phase, 2, &memory, &mut limits, || calls += 1).unwrap();
            assert_eq!(calls, 2);
            assert!(m.tokens_per_second.median > 0.0);
            assert_eq!(
                (m.fraction_of_bandwidth.is_some(), m.fraction_of_peak.is_some()),
                (bandwidth, peak),
                "{phase:?}"
            );
            let mut fractions = m.fraction_of_bandwidth.into_iter().chain(m.fraction_of_peak);
            assert!(fractions.all(|fraction| fraction > 0.0));
        }
        assert_eq!((limits.bandwidths.len(), limits.peaks.len()), (8, 8));
    }

    #[test]
    fn runner_decodes_the_expected_tokens() {
        let model = Model::new(TINY.random_checkpoint().unwrap(), ThreadPool::new(1, Isa::Portable));
        let mut runner =
            Runner::new(&model, KvPrecision::F16, Phase::Batch { sequences: 2, depth: 5 }).unwrap();
        for _ in 0..2 {
            runner.run_once().unwrap();
            let Runner::Decode { caches, .. } = &runner else { panic!("a batch decodes") };
            assert!(caches.len() == 2 && caches.iter().all(|cache| cache.len() == 5 + DECODE_STEPS));
        }
        let decode = |depth| {
            Runner::new(&model, KvPrecision::F32, Phase::Decode { depth })
                .and_then(|mut runner| runner.run_once())
        };
        assert!(decode(63).is_ok(), "one token fits");
        assert!(decode(64).is_err() && decode(65).is_err());
    }
}
