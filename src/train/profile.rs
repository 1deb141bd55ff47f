//! How long each operation of a training step takes: the passes say when one has finished, and
//! [`profile`] listens.

use std::cell::RefCell;
use std::fmt;
use std::time::Instant;

/// An operation of a training step, summed over all layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Token and position embeddings.
    Embedding,
    /// Layer norms; those of the blocks are computed again in the backward pass.
    LayerNorm,
    /// The linear layers of all blocks.
    Linear,
    /// Attention.
    Attention,
    /// The activation; it is computed again in the backward pass.
    Activation,
    /// The LM head and the loss, with their gradients.
    CrossEntropy,
    /// The gradients of the linear layers' inputs.
    LinearInputGradient,
    /// The gradients of the linear layers' weights.
    LinearWeightGradient,
    /// The gradients of the linear layers' biases.
    LinearBiasGradient,
    /// The gradients of queries, keys and values.
    AttentionGradient,
    /// The gradient of the activation's input.
    ActivationGradient,
    /// The gradients of the layer norms.
    LayerNormGradient,
    /// The gradients of both tables of embeddings.
    EmbeddingGradient,
}

impl Operation {
    /// All operations, in the order of their first call.
    pub const ALL: [Operation; 13] = [
        Operation::Embedding,
        Operation::LayerNorm,
        Operation::Linear,
        Operation::Attention,
        Operation::Activation,
        Operation::CrossEntropy,
        Operation::LinearInputGradient,
        Operation::LinearWeightGradient,
        Operation::LinearBiasGradient,
        Operation::AttentionGradient,
        Operation::ActivationGradient,
        Operation::LayerNormGradient,
        Operation::EmbeddingGradient,
    ];
}

/// The name in reports.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Embedding => "wte + wpe",
            Operation::LayerNorm => "layer norms",
            Operation::Linear => "linear layers",
            Operation::Attention => "attention",
            Operation::Activation => "activation",
            Operation::CrossEntropy => "lm_head + loss",
            Operation::LinearInputGradient => "d linear: x",
            Operation::LinearWeightGradient => "d linear: W",
            Operation::LinearBiasGradient => "d linear: b",
            Operation::AttentionGradient => "d attention",
            Operation::ActivationGradient => "d activation",
            Operation::LayerNormGradient => "d layer norms",
            Operation::EmbeddingGradient => "d wte + wpe",
        })
    }
}

/// The calls of an operation and their seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OperationTime {
    /// The operation.
    pub operation: Operation,
    /// How often it was called.
    pub calls: usize,
    /// The seconds of all calls.
    pub seconds: f64,
}

thread_local! {
    /// When the last operation finished, and the times so far, while [`profile`] runs on this thread.
    static PROFILE: RefCell<Option<(Instant, Vec<OperationTime>)>> = const { RefCell::new(None) };
}

/// Returns the result of `passes`, and the time of every operation of the forward and backward passes that
/// it runs on this thread.
pub fn profile<R>(passes: impl FnOnce() -> R) -> (R, Vec<OperationTime>) {
    let none = |operation| OperationTime { operation, calls: 0, seconds: 0.0 };
    PROFILE.set(Some((Instant::now(), Operation::ALL.map(none).to_vec())));
    let result = passes();
    let times = PROFILE.take().map(|(_, times)| times);
    (result, times.unwrap_or_default())
}

/// Counts the time since the last operation finished as that of this one.
pub(super) fn finished(operation: Operation) {
    PROFILE.with_borrow_mut(|profile| {
        let Some((last, times)) = profile else { return };
        let now = Instant::now();
        if let Some(time) = times.iter_mut().find(|time| time.operation == operation) {
            time.calls += 1;
            time.seconds += (now - *last).as_secs_f64();
        }
        *last = now;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_share_the_time_of_the_passes() {
        finished(Operation::Linear); // nobody listens
        let start = Instant::now();
        let ((), times) = profile(|| {
            for operation in Operation::ALL.into_iter().chain([Operation::Linear]) {
                finished(operation);
            }
        });
        let elapsed = start.elapsed().as_secs_f64();
        assert_eq!(times.len(), Operation::ALL.len());
        assert!(times.iter().all(|t| t.calls == 1 + usize::from(t.operation == Operation::Linear)));
        assert!(times.iter().map(|time| time.seconds).sum::<f64>() <= elapsed);
    }
}
