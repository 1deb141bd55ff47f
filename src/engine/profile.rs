//! What the operations of a completion cost while it was computed: the passes of the one that started last,
//! timed as they run. That takes one reading of the clock per operation, and a few additions.
//!
//! A pass has the tokens of all requests that run. Its times are not divided among them: the profile says how
//! many sequences there were. Passes with embeddings, whose results an observer collects, are left out.

use crate::kernels::attention::KvPrecision;
use crate::model::{Model, Operation, OperationTime, OperationTimer, PassWork, Segment, SegmentShape};

/// The times of the operations of a completion.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestProfile {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of these, tokens whose keys and values were copied.
    pub cached_tokens: usize,
    /// The passes that computed the prompt.
    pub prefill: PhaseProfile,
    /// The passes that computed one more token of each choice.
    pub decode: PhaseProfile,
}

/// The passes of a phase.
#[derive(Clone, Debug, PartialEq)]
pub struct PhaseProfile {
    /// Tokens of the completion that they computed.
    pub tokens: usize,
    /// Forward passes.
    pub passes: usize,
    /// The most sequences in one of them, those of other requests included.
    pub max_batch_size: usize,
    /// The operations, in the order of the pass; the last is `sampling`, which includes all other work on
    /// logits. None without passes.
    pub operations: Vec<OperationTime>,
}

/// What is recorded of a completion.
#[derive(Clone)]
pub(super) struct Recording {
    prompt_tokens: usize,
    cached_tokens: usize,
    prefill: PhaseRecording,
    decode: PhaseRecording,
}

#[derive(Clone)]
struct PhaseRecording {
    tokens: usize,
    max_batch_size: usize,
    work: PassWork,
    /// Seconds of each operation of the pass, and of sampling.
    seconds: Vec<f64>,
}

impl Recording {
    /// A recording of a completion that starts.
    pub(super) fn new(model: &Model, prompt_tokens: usize, cached_tokens: usize) -> Self {
        let seconds = vec![0.0; Operation::in_pass(model.config().n_layer).count() + 1];
        let decode = PhaseRecording { tokens: 0, max_batch_size: 0, work: PassWork::default(), seconds };
        Self { prompt_tokens, cached_tokens, prefill: decode.clone(), decode }
    }

    /// The profile of what is recorded so far.
    pub(super) fn profile(&self, model: &Model, kv_precision: KvPrecision) -> RequestProfile {
        let phase = |recording: &PhaseRecording| recording.profile(model, kv_precision);
        let (prefill, decode) = (phase(&self.prefill), phase(&self.decode));
        let &Self { prompt_tokens, cached_tokens, .. } = self;
        RequestProfile { prompt_tokens, cached_tokens, prefill, decode }
    }
}

impl PhaseRecording {
    fn profile(&self, model: &Model, kv_precision: KvPrecision) -> PhaseProfile {
        let Self { tokens, max_batch_size, ref work, ref seconds } = *self;
        let passes = work.passes();
        let mut operations = vec![];
        if passes > 0 {
            for (operation, &seconds) in Operation::in_pass(model.config().n_layer).zip(seconds) {
                let cost = model.operation_cost(operation, work, kv_precision);
                OperationTime::add(&mut operations, operation.name(), passes, seconds, cost);
            }
            let (sampling, cost) =
                (seconds[seconds.len() - 1], work.sampling_cost(model.config().vocab_size));
            OperationTime::add(&mut operations, "sampling", passes, sampling, cost);
        }
        PhaseProfile { tokens, passes, max_batch_size, operations }
    }
}

/// Records the passes of a completion.
pub(super) struct Profiler {
    timer: OperationTimer,
    /// The batch of the pass; empty if it is not timed.
    batch: Vec<SegmentShape>,
    /// Tokens of the completion in the pass.
    tokens: usize,
    /// Whether they are the prompt's.
    is_prefill: bool,
}

impl Profiler {
    pub(super) fn new(model: &Model) -> Self {
        let timer = OperationTimer::new(model.config().n_layer);
        Self { timer, batch: vec![], tokens: 0, is_prefill: false }
    }

    /// Begins a pass without tokens.
    pub(super) fn start_pass(&mut self) {
        self.batch.clear();
        (self.tokens, self.is_prefill) = (0, false);
    }

    /// Adds tokens of the completion to the pass. Those that a context shift computes again are prefill, too.
    pub(super) fn add_tokens(&mut self, n: usize, is_prefill: bool) {
        self.tokens += n;
        self.is_prefill |= is_prefill;
    }

    /// The timer of a pass over a batch, which starts now.
    pub(super) fn timer(&mut self, batch: &[Segment]) -> &mut OperationTimer {
        self.batch.extend(batch.iter().map(Segment::shape));
        self.timer.start();
        &mut self.timer
    }

    /// Adds the times of the pass, and of the work on its logits, to the recording.
    pub(super) fn finish_pass(&mut self, model: &Model, recording: &mut Option<Recording>) {
        let sampling = self.timer.lap();
        let Some(recording) = recording.as_mut().filter(|_| self.tokens > 0 && !self.batch.is_empty()) else {
            return;
        };
        let phase = if self.is_prefill { &mut recording.prefill } else { &mut recording.decode };
        phase.tokens += self.tokens;
        phase.max_batch_size = phase.max_batch_size.max(self.batch.len());
        phase.work.add(model.attention().mask(), &self.batch);
        let times = self.timer.times().iter().map(|(_, seconds)| *seconds).chain([sampling]);
        phase.seconds.iter_mut().zip(times).for_each(|(sum, seconds)| *sum += seconds);
    }
}
