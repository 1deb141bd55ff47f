//! A per-operation profile of a step, each operation against its roofline (Williams, Waterman and Patterson
//! 2009).
//!
//! An operation can be no faster than its memory traffic at the read bandwidth, and no faster than its FLOPs
//! at the peak; the longer of the two bounds it. Inputs, outputs and weights count once each, although
//! activations rarely leave the cache between operations: an operation with little other traffic can beat its
//! roofline.

use super::{Limits, ReadBandwidth};
use crate::Result;
use crate::kernels::attention::KvPrecision;
use crate::model::{
    KvCache, LogitsWanted, Model, Observer, OperationTime, OperationTimer, PassWork, Segment, SegmentShape,
    Workspace,
};
use crate::sampling::{Sampler, SamplingParams};
use std::time::Instant;

/// The step to profile: a forward pass over `tokens` tokens, and sampling from the logits of the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Tokens per forward pass, at least one.
    pub tokens: usize,
    /// Tokens already in the cache.
    pub depth: usize,
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
    /// The limits of the threads.
    pub limits: Limits,
}

impl Roofline {
    /// Returns the shortest possible time of an operation in seconds, and whether it is memory-bound.
    pub fn bound(&self, operation: &OperationTime) -> (f64, bool) {
        self.limits.bound(operation.bytes, operation.flops)
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
    let before = Limits::measure(memory, model.pool());
    let (mut step_seconds, mut profiles) = (vec![], vec![]);
    for repetition in 0..=repeat.max(1) {
        let start = Instant::now();
        runner.run(&mut ())?;
        let seconds = start.elapsed().as_secs_f64();
        let mut timer = OperationTimer::new(model.config().n_layer);
        timer.start();
        runner.run(&mut timer)?;
        let sampling = timer.lap();
        if repetition == 0 {
            model.check_finite(runner.workspace.logits(), &runner.cache)?;
        } else {
            step_seconds.push(seconds);
            profiles.push((timer, sampling));
            on_repetition();
        }
    }
    let after = Limits::measure(memory, model.pool());
    step_seconds.sort_by(f64::total_cmp);
    let seconds = step_seconds[step_seconds.len() / 2];
    let sum = |(timer, sampling): &(OperationTimer, f64)| {
        timer.times().iter().map(|(_, seconds)| seconds).sum::<f64>() + sampling
    };
    profiles.sort_by(|a, b| sum(a).total_cmp(&sum(b)));
    let (median, sampling) = profiles.swap_remove(profiles.len() / 2);

    let mut operations = vec![];
    let work = work(model, step);
    for &(operation, seconds) in median.times() {
        let cost = model.operation_cost(operation, &work, kv_precision);
        OperationTime::add(&mut operations, operation.name(), 1, seconds, cost);
    }
    let cost = work.sampling_cost(model.config().vocab_size);
    OperationTime::add(&mut operations, "sampling", 1, sampling, cost);
    let mean = |a: f64, b: f64| (a + b) / 2.0;
    let bandwidth = mean(before.bandwidth, after.bandwidth);
    let limits = Limits { bandwidth, peak: mean(before.peak, after.peak) };
    Ok(Roofline { step, operations, seconds, limits })
}

/// The work of a step.
fn work(model: &Model, step: Step) -> PassWork {
    let mut work = PassWork::default();
    let segment = SegmentShape { tokens: step.tokens, depth: step.depth, logits: 1 };
    work.add(model.attention().mask(), &[segment]);
    work
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Cost;
    use crate::checkpoint::Checkpoint;
    use crate::kernels::isa::Isa;
    use crate::kernels::thread_pool::ThreadPool;
    use crate::model::Operation;

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
            let names: Vec<&str> = profile.operations.iter().map(|operation| operation.name).collect();
            let block = ["ln_1", "attn.c_attn", "kv cache", "attention", "attn.c_proj", "ln_2", "mlp.c_fc"];
            let expected =
                [&["wte + wpe"], &block[..], &["mlp.c_proj", "ln_f", "lm_head", "sampling"]].concat();
            assert_eq!(names, expected);
            assert!(profile.operations.iter().all(|operation| {
                let once = ["wte + wpe", "ln_f", "lm_head", "sampling"].contains(&operation.name);
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
            let work = work(&model, step);
            let cost = |operation| model.operation_cost(operation, &work, KvPrecision::F16);
            let flops: f64 = matrices.map(|operation| cost(operation).flops).sum();
            // A pass over several tokens computes every query of the last block, although one is used.
            let unused = 2 * (step.tokens - 1) * 256 * 256;
            assert_eq!(flops - unused as f64, whole.flops(step.tokens, step.depth));
        }
        let bytes: usize = Operation::in_pass(6).map(|operation| model.weight_bytes(operation)).sum();
        assert_eq!(bytes, model.pass_bytes() + model.weight_bytes(Operation::Embed));
    }
}
