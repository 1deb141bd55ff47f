//! Where the time of a step goes, operation by operation, each beside the limit that binds it: the model's rooflines
//! (Williams, Waterman and Patterson 2009).
//!
//! An operation can be no faster than its bytes come from memory, and no faster than its multiply-adds are done;
//! whichever takes longer binds it. Inputs, outputs and weights count once each, although what passes from one operation
//! to the next seldom leaves the cache: an operation that moves little else may be faster than its limit.

use super::{ReadBandwidth, fma_peak};
use crate::Result;
use crate::kernels::attention::KvPrecision;
use crate::model::{KvCache, LogitsWanted, Model, Observer, Operation, Segment, Site, Workspace};
use crate::sampling::{Sampler, SamplingParams};
use ndarray::ArrayViewMutD;
use std::time::Instant;

/// A step to take apart: so many tokens after so many others, and a token chosen from the last one's logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Tokens that go through the model together, at least one.
    pub tokens: usize,
    /// Tokens that are there already.
    pub depth: usize,
}

/// What an operation took, in all layers together.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationTime {
    /// As checkpoints call it; the last is `sampling`.
    pub name: String,
    /// How often it is done.
    pub times: usize,
    /// All of them.
    pub seconds: f64,
    /// What they read and write.
    pub bytes: f64,
    /// Their operations on numbers (a multiply-add is two).
    pub flops: f64,
}

/// A step, taken apart.
#[derive(Clone, Debug)]
pub struct Roofline {
    /// What was measured.
    pub step: Step,
    /// In the order of the pass.
    pub operations: Vec<OperationTime>,
    /// What the step takes as a whole while nobody keeps the time of its parts.
    pub seconds: f64,
    /// Bytes a second that the threads read from memory.
    pub bandwidth: f64,
    /// f32 operations a second that the threads do.
    pub peak: f64,
}

impl Roofline {
    /// The shortest time that an operation could take, and whether memory is why.
    pub fn limit(&self, operation: &OperationTime) -> (f64, bool) {
        let (memory, arithmetic) = (operation.bytes / self.bandwidth, operation.flops / self.peak);
        (memory.max(arithmetic), memory > arithmetic)
    }

    /// What the operations took together.
    pub fn sum(&self) -> f64 {
        self.operations.iter().map(|operation| operation.seconds).sum()
    }
}

/// Takes a step `repeat` times (at least once), after one time that does not count, and takes apart the one that took
/// neither longest nor shortest. In turns with these it takes the step as a whole, so that what keeping time costs, or
/// leaves out, shows: the operations' sum differs from the step by it. `each` is called after every repetition.
///
/// # Errors
/// As [`Model::forward`].
pub fn roofline(
    model: &Model,
    kv_precision: KvPrecision,
    step: Step,
    repeat: usize,
    memory: &ReadBandwidth,
    mut each: impl FnMut(),
) -> Result<Roofline> {
    let vocab_size = model.config().vocab_size as u64;
    let token = |i: usize| ((i as u64 + 1).wrapping_mul(0x9e37_79b9) % vocab_size) as u32;
    let ids: Vec<u32> = (0..step.depth + step.tokens).map(token).collect();
    let (past, tokens) = ids.split_at(step.depth);
    let mut cache = KvCache::new(model.config(), ids.len(), kv_precision);
    let mut workspace = Workspace::new();
    if !past.is_empty() {
        let segment = Segment { tokens: past, cache: &mut cache, logits: LogitsWanted::None };
        model.forward(&mut [segment], &mut workspace, &mut ())?;
    }
    let params = SamplingParams { temperature: 0.8, top_p: 0.95, ..SamplingParams::default() };
    let sampler = Sampler::new(params, 0);
    let mut taker = Taker { model, cache, workspace, sampler, tokens, depth: step.depth };
    let limits = || (memory.measure(model.pool()), fma_peak(model.pool()));

    let before = limits();
    let (mut whole, mut apart) = (vec![], vec![]);
    for repetition in 0..=repeat.max(1) {
        let start = Instant::now();
        taker.take(&mut ())?;
        let seconds = start.elapsed().as_secs_f64();
        let mut watch =
            Stopwatch { last: Instant::now(), times: Vec::with_capacity(16 + 8 * model.config().n_layer) };
        taker.take(&mut watch)?;
        watch.note(What::Sampling);
        if repetition > 0 {
            whole.push(seconds);
            apart.push(watch);
            each();
        }
    }
    let after = limits();
    whole.sort_by(f64::total_cmp);
    let seconds = whole[whole.len() / 2];
    apart.sort_by(|a, b| a.sum().total_cmp(&b.sum()));
    let watch = apart.swap_remove(apart.len() / 2);

    let mut operations: Vec<OperationTime> = vec![];
    for (what, seconds) in watch.times {
        let (name, (bytes, flops)) = match what {
            What::Operation(operation) => (operation.to_string(), cost(model, kv_precision, step, operation)),
            // Every logit is looked at.
            What::Sampling => ("sampling".to_string(), (4.0 * vocab_size as f64, 0.0)),
        };
        match operations.iter_mut().find(|operation| operation.name == name) {
            Some(same) => {
                same.times += 1;
                same.seconds += seconds;
                same.bytes += bytes;
                same.flops += flops;
            }
            None => operations.push(OperationTime { name, times: 1, seconds, bytes, flops }),
        }
    }
    let (bandwidth, peak) = ((before.0 + after.0) / 2.0, (before.1 + after.1) / 2.0);
    Ok(Roofline { step, operations, seconds, bandwidth, peak })
}

/// Takes the same step again and again.
struct Taker<'a> {
    model: &'a Model,
    cache: KvCache,
    workspace: Workspace,
    sampler: Sampler,
    tokens: &'a [u32],
    depth: usize,
}

impl Taker<'_> {
    fn take(&mut self, see: &mut impl Observer) -> Result<()> {
        self.cache.truncate(self.depth);
        let segment = Segment { tokens: self.tokens, cache: &mut self.cache, logits: LogitsWanted::Last };
        self.model.forward(&mut [segment], &mut self.workspace, see)?;
        self.sampler.sample(self.workspace.logits().row(0), self.tokens, &[]);
        Ok(())
    }
}

/// What a stretch of time was spent on.
#[derive(Clone, Copy)]
enum What {
    Operation(Operation),
    Sampling,
}

/// Notes what each operation took. It looks at nothing, so the pass is the one that is always taken.
struct Stopwatch {
    last: Instant,
    times: Vec<(What, f64)>,
}

impl Stopwatch {
    fn note(&mut self, what: What) {
        let now = Instant::now();
        self.times.push((what, (now - self.last).as_secs_f64()));
        self.last = now;
    }

    fn sum(&self) -> f64 {
        self.times.iter().map(|(_, seconds)| seconds).sum()
    }
}

impl Observer for Stopwatch {
    const ENABLED: bool = false;

    fn observe(&mut self, _site: Site, _values: ArrayViewMutD<'_, f32>) {}

    fn operation_finished(&mut self, operation: Operation) {
        self.note(What::Operation(operation));
    }
}

/// Bytes that an operation reads and writes, and operations on numbers that it does.
fn cost(model: &Model, kv_precision: KvPrecision, step: Step, operation: Operation) -> (f64, f64) {
    let config = model.config();
    let (e, inner, vocab_size) = (config.n_embd, config.n_inner, config.vocab_size);
    let kv = config.n_head * kv_precision.bytes_per_head(e / config.n_head);
    // In the last block, only the last token goes on after its keys and values are there.
    let goes_on = |layer: usize| if layer + 1 == config.n_layer { 1 } else { step.tokens };
    let n = step.tokens;
    let weights = model.weight_bytes(operation);
    // Numbers in and out, and what is computed. A layer norm takes about eight operations a number.
    let (numbers, flops, bytes) = match operation {
        Operation::Embed => (n * e, n * e, n * weights),
        Operation::Ln1(_) => (2 * n * e, 8 * n * e, weights),
        Operation::CAttn(_) => (4 * n * e, 2 * n * e * 3 * e, weights),
        Operation::KvAppend(_) => (2 * n * e, 0, n * kv),
        Operation::Attention(layer) => {
            let (rows, end) = (goes_on(layer), step.depth + n);
            let mask = model.attention().mask();
            let pairs: usize = (end - rows..end).map(|position| mask.visible(position).len()).sum();
            (2 * rows * e, 4 * pairs * e, (end - mask.visible(end - rows).start) * kv)
        }
        Operation::AttnProj(layer) => (3 * goes_on(layer) * e, 2 * goes_on(layer) * e * e, weights),
        Operation::Ln2(layer) => (2 * goes_on(layer) * e, 8 * goes_on(layer) * e, weights),
        Operation::CFc(layer) => (goes_on(layer) * (e + inner), 2 * goes_on(layer) * e * inner, weights),
        Operation::MlpProj(layer) => {
            (goes_on(layer) * (inner + 2 * e), 2 * goes_on(layer) * inner * e, weights)
        }
        Operation::LnF => (2 * e, 8 * e, weights),
        Operation::LmHead => (e + vocab_size, 2 * e * vocab_size, weights),
    };
    ((size_of::<f32>() * numbers + bytes) as f64, flops as f64)
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
    fn the_operations_are_the_step() {
        let model = fable();
        let memory = ReadBandwidth::new().unwrap();
        for step in [Step { tokens: 1, depth: 200 }, Step { tokens: 200, depth: 0 }] {
            let mut repetitions = 0;
            let kv = KvPrecision::F32;
            let found = roofline(&model, kv, step, 15, &memory, || repetitions += 1).unwrap();
            assert_eq!(repetitions, 15);
            let names: Vec<&str> = found.operations.iter().map(|operation| operation.name.as_str()).collect();
            let of_block =
                ["ln_1", "attn.c_attn", "kv cache", "attention", "attn.c_proj", "ln_2", "mlp.c_fc"];
            let expected =
                [&["wte + wpe"], &of_block[..], &["mlp.c_proj", "ln_f", "lm_head", "sampling"]].concat();
            assert_eq!(names, expected);
            assert!(found.operations.iter().all(|operation| {
                let once = ["wte + wpe", "ln_f", "lm_head", "sampling"].contains(&operation.name.as_str());
                operation.times == if once { 1 } else { 6 }
            }));
            // Within 0.05 on a quiet machine; other tests run beside this one.
            let share = found.sum() / found.seconds;
            assert!((0.7..=1.4).contains(&share), "{share} of the step is accounted for");
        }
    }

    #[test]
    fn costs_add_up_to_those_of_the_pass() {
        let model = fable();
        let whole = Cost::of(&model, KvPrecision::F16);
        for step in [Step { tokens: 1, depth: 99 }, Step { tokens: 30, depth: 70 }] {
            let matrices = Operation::in_pass(6).filter(|operation| {
                !matches!(
                    operation,
                    Operation::Embed | Operation::Ln1(_) | Operation::Ln2(_) | Operation::LnF
                )
            });
            let flops: f64 =
                matrices.map(|operation| cost(&model, KvPrecision::F16, step, operation).1).sum();
            // A pass over several tokens makes every query of the last block, though one is used.
            let unused = 2 * (step.tokens - 1) * 256 * 256;
            assert_eq!(flops - unused as f64, whole.operations(step.tokens, step.depth));
        }
        let bytes: usize = Operation::in_pass(6).map(|operation| model.weight_bytes(operation)).sum();
        assert_eq!(bytes, model.pass_bytes() + model.weight_bytes(Operation::Embed));
    }
}
