//! A per-operation profile of a step, each operation against its roofline (Williams, Waterman and Patterson
//! 2009).
//!
//! An operation can be no faster than its memory traffic at the read bandwidth, and no faster than its FLOPs
//! at the peak; the longer of the two bounds it. Inputs, outputs and weights count once each, although
//! activations rarely leave the cache between operations: an operation with little other traffic can beat its
//! roofline.

use super::{ReadBandwidth, fma_peak};
use crate::Result;
use crate::kernels::attention::KvPrecision;
use crate::model::{KvCache, LogitsWanted, Model, Observer, Operation, Segment, Site, Workspace};
use crate::sampling::{Sampler, SamplingParams};
use ndarray::ArrayViewMutD;
use std::time::Instant;

/// The step to profile: a forward pass over `tokens` tokens, and sampling from the logits of the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Tokens per forward pass, at least one.
    pub tokens: usize,
    /// Tokens already in the cache.
    pub depth: usize,
}

/// The time and cost of an operation, summed over all layers.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationTime {
    /// The name as in checkpoints; the last operation is `sampling`.
    pub name: String,
    /// Calls per step.
    pub calls: usize,
    /// Seconds per step.
    pub seconds: f64,
    /// Bytes read and written per step.
    pub bytes: f64,
    /// FLOPs per step (a multiply-add is two).
    pub flops: f64,
}

/// The profile of a step.
#[derive(Clone, Debug)]
pub struct Roofline {
    /// The step measured.
    pub step: Step,
    /// The operations in the order of the forward pass.
    pub operations: Vec<OperationTime>,
    /// Seconds of the whole step without per-operation timing.
    pub seconds: f64,
    /// The read bandwidth of the threads in bytes per second.
    pub bandwidth: f64,
    /// The peak of the threads in f32 FLOP/s.
    pub peak: f64,
}

impl Roofline {
    /// Returns the shortest possible time of an operation in seconds, and whether it is memory-bound.
    pub fn bound(&self, operation: &OperationTime) -> (f64, bool) {
        let (memory, compute) = (operation.bytes / self.bandwidth, operation.flops / self.peak);
        (memory.max(compute), memory > compute)
    }

    /// Returns the sum of the operations' times in seconds.
    pub fn operation_seconds(&self) -> f64 {
        self.operations.iter().map(|operation| operation.seconds).sum()
    }
}

/// Profiles a step `repeat` times (at least once) after a warm-up, and returns the repetition of median
/// length. Profiled and unprofiled steps alternate, so that the overhead of timing, or unaccounted time,
/// shows as the difference between the operations' sum and the step. `on_repetition` is called after every
/// repetition.
///
/// # Errors
/// As [`Model::forward`] and [`Model::check_finite`].
pub fn roofline(
    model: &Model,
    kv_precision: KvPrecision,
    step: Step,
    repeat: usize,
    memory: &ReadBandwidth,
    mut on_repetition: impl FnMut(),
) -> Result<Roofline> {
    let vocab_size = model.config().vocab_size as u64;
    let token = |i: usize| ((i as u64 + 1).wrapping_mul(0x9e37_79b9) % vocab_size) as u32;
    let ids: Vec<u32> = (0..step.depth + step.tokens).map(token).collect();
    let (cached, tokens) = ids.split_at(step.depth);
    let mut cache = model.kv_cache(ids.len(), kv_precision);
    let mut workspace = Workspace::new();
    if !cached.is_empty() {
        let segment = Segment { tokens: cached, cache: &mut cache, logits: LogitsWanted::None };
        model.forward(&mut [segment], &mut workspace, &mut ())?;
    }
    let params = SamplingParams { temperature: 0.8, top_p: 0.95, ..SamplingParams::default() };
    let sampler = Sampler::new(params, 0);
    let mut runner = StepRunner { model, cache, workspace, sampler, tokens, depth: step.depth };
    let limits = || (memory.measure(model.pool()), fma_peak(model.pool()));

    let before = limits();
    let (mut step_seconds, mut profiles) = (vec![], vec![]);
    for repetition in 0..=repeat.max(1) {
        let start = Instant::now();
        runner.run(&mut ())?;
        let seconds = start.elapsed().as_secs_f64();
        let mut profiler =
            Profiler { last: Instant::now(), times: Vec::with_capacity(16 + 8 * model.config().n_layer) };
        runner.run(&mut profiler)?;
        profiler.record(TimedOperation::Sampling);
        if repetition == 0 {
            model.check_finite(runner.workspace.logits(), &runner.cache)?;
        } else {
            step_seconds.push(seconds);
            profiles.push(profiler);
            on_repetition();
        }
    }
    let after = limits();
    step_seconds.sort_by(f64::total_cmp);
    let seconds = step_seconds[step_seconds.len() / 2];
    profiles.sort_by(|a, b| a.seconds().total_cmp(&b.seconds()));
    let median = profiles.swap_remove(profiles.len() / 2);

    let mut operations: Vec<OperationTime> = vec![];
    for (timed, seconds) in median.times {
        let (name, (bytes, flops)) = match timed {
            TimedOperation::Model(operation) => {
                (operation.to_string(), operation_cost(model, kv_precision, step, operation))
            }
            // Every logit is read.
            TimedOperation::Sampling => ("sampling".to_string(), (4.0 * vocab_size as f64, 0.0)),
        };
        match operations.iter_mut().find(|operation| operation.name == name) {
            Some(total) => {
                total.calls += 1;
                total.seconds += seconds;
                total.bytes += bytes;
                total.flops += flops;
            }
            None => operations.push(OperationTime { name, calls: 1, seconds, bytes, flops }),
        }
    }
    let (bandwidth, peak) = ((before.0 + after.0) / 2.0, (before.1 + after.1) / 2.0);
    Ok(Roofline { step, operations, seconds, bandwidth, peak })
}

/// Runs the same step repeatedly.
struct StepRunner<'a> {
    model: &'a Model,
    cache: KvCache,
    workspace: Workspace,
    sampler: Sampler,
    tokens: &'a [u32],
    depth: usize,
}

impl StepRunner<'_> {
    fn run(&mut self, observer: &mut impl Observer) -> Result<()> {
        self.cache.truncate(self.depth);
        let segment = Segment { tokens: self.tokens, cache: &mut self.cache, logits: LogitsWanted::Last };
        self.model.forward(&mut [segment], &mut self.workspace, observer)?;
        self.sampler.sample(self.workspace.logits().row(0), self.tokens, &[]);
        Ok(())
    }
}

/// An operation of the model, or sampling.
#[derive(Clone, Copy)]
enum TimedOperation {
    Model(Operation),
    Sampling,
}

/// Records the time of each operation. It observes no activations, so the forward pass takes its usual path.
struct Profiler {
    last: Instant,
    times: Vec<(TimedOperation, f64)>,
}

impl Profiler {
    fn record(&mut self, operation: TimedOperation) {
        let now = Instant::now();
        self.times.push((operation, (now - self.last).as_secs_f64()));
        self.last = now;
    }

    fn seconds(&self) -> f64 {
        self.times.iter().map(|(_, seconds)| seconds).sum()
    }
}

impl Observer for Profiler {
    const ENABLED: bool = false;

    fn observe(&mut self, _site: Site, _values: ArrayViewMutD<'_, f32>) {}

    fn operation_finished(&mut self, operation: Operation) {
        self.record(TimedOperation::Model(operation));
    }
}

/// Returns the bytes that an operation reads and writes, and its FLOPs.
fn operation_cost(model: &Model, kv_precision: KvPrecision, step: Step, operation: Operation) -> (f64, f64) {
    let config = model.config();
    let (e, inner, vocab_size) = (config.n_embd, config.n_inner, config.vocab_size);
    let kv = config.n_head * kv_precision.bytes_per_head(e / config.n_head);
    // In the last block, only the last token is computed beyond its key and value.
    let rows = |layer: usize| if layer + 1 == config.n_layer { 1 } else { step.tokens };
    let n = step.tokens;
    let weights = model.weight_bytes(operation);
    // Elements in and out, FLOPs, and bytes of weights or cache. A layer norm takes about eight FLOPs per
    // element.
    let (elements, flops, bytes) = match operation {
        Operation::Embed => (n * e, n * e, n * weights),
        Operation::Ln1(_) => (2 * n * e, 8 * n * e, weights),
        Operation::CAttn(_) => (4 * n * e, 2 * n * e * 3 * e, weights),
        Operation::KvAppend(_) => (2 * n * e, 0, n * kv),
        Operation::Attention(layer) => {
            let (q_rows, end) = (rows(layer), step.depth + n);
            let mask = model.attention().mask();
            let pairs: usize = (end - q_rows..end).map(|position| mask.visible(position).len()).sum();
            (2 * q_rows * e, 4 * pairs * e, (end - mask.visible(end - q_rows).start) * kv)
        }
        Operation::AttnProj(layer) => (3 * rows(layer) * e, 2 * rows(layer) * e * e, weights),
        Operation::Ln2(layer) => (2 * rows(layer) * e, 8 * rows(layer) * e, weights),
        Operation::CFc(layer) => (rows(layer) * (e + inner), 2 * rows(layer) * e * inner, weights),
        Operation::MlpProj(layer) => (rows(layer) * (inner + 2 * e), 2 * rows(layer) * inner * e, weights),
        Operation::LnF => (2 * e, 8 * e, weights),
        Operation::LmHead => (e + vocab_size, 2 * e * vocab_size, weights),
    };
    ((size_of::<f32>() * elements + bytes) as f64, flops as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Cost;
    use crate::checkpoint::Checkpoint;
    use crate::kernels::isa::Isa;
    use crate::kernels::thread_pool::ThreadPool;

    fn fable() -> Model {
        Model::new(Checkpoint::embedded().unwrap(), ThreadPool::new(2, Isa::available()[0]))
    }

    #[test]
    fn every_operation_of_the_step_is_profiled() {
        let model = fable();
        let memory = ReadBandwidth::new().unwrap();
        for step in [Step { tokens: 1, depth: 200 }, Step { tokens: 200, depth: 0 }] {
            let mut repetitions = 0;
            let kv = KvPrecision::F32;
            let profile = roofline(&model, kv, step, 3, &memory, || repetitions += 1).unwrap();
            assert_eq!(repetitions, 3);
            let names: Vec<&str> =
                profile.operations.iter().map(|operation| operation.name.as_str()).collect();
            let block = ["ln_1", "attn.c_attn", "kv cache", "attention", "attn.c_proj", "ln_2", "mlp.c_fc"];
            let expected =
                [&["wte + wpe"], &block[..], &["mlp.c_proj", "ln_f", "lm_head", "sampling"]].concat();
            assert_eq!(names, expected);
            assert!(profile.operations.iter().all(|operation| {
                let once = ["wte + wpe", "ln_f", "lm_head", "sampling"].contains(&operation.name.as_str());
                operation.calls == if once { 1 } else { 6 }
            }));
            assert!(profile.operations.iter().all(|operation| operation.seconds > 0.0));
            let sum = profile.operations.iter().fold(0.0, |sum, operation| sum + operation.seconds);
            assert!(profile.seconds > 0.0 && (profile.operation_seconds() - sum).abs() <= 1e-9 * sum);
        }
    }

    #[test]
    fn operation_costs_sum_to_pass_cost() {
        let model = fable();
        let whole = Cost::new(&model, KvPrecision::F16);
        for step in [Step { tokens: 1, depth: 99 }, Step { tokens: 30, depth: 70 }] {
            let matrices = Operation::in_pass(6).filter(|operation| {
                !matches!(
                    operation,
                    Operation::Embed | Operation::Ln1(_) | Operation::Ln2(_) | Operation::LnF
                )
            });
            let flops: f64 =
                matrices.map(|operation| operation_cost(&model, KvPrecision::F16, step, operation).1).sum();
            // A pass over several tokens computes every query of the last block, although one is used.
            let unused = 2 * (step.tokens - 1) * 256 * 256;
            assert_eq!(flops - unused as f64, whole.flops(step.tokens, step.depth));
        }
        let bytes: usize = Operation::in_pass(6).map(|operation| model.weight_bytes(operation)).sum();
        assert_eq!(bytes, model.pass_bytes() + model.weight_bytes(Operation::Embed));
    }
}
