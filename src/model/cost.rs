//! The minimum cost of an operation: the bytes that it reads and writes, and its FLOPs.
//!
//! Inputs, outputs and weights count once each, although activations rarely leave the cache between
//! operations. The matrices of adapters, which are few, do not count.

use super::{Model, Operation, Segment};
use crate::kernels::attention::{KvPrecision, Mask};

/// The shape of a segment of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentShape {
    /// New tokens.
    pub tokens: usize,
    /// Tokens already in the cache.
    pub depth: usize,
    /// Tokens whose logits are computed: the last ones.
    pub logits: usize,
}

impl Segment<'_> {
    /// The shape, before the pass.
    pub fn shape(&self) -> SegmentShape {
        let (tokens, depth) = (self.tokens.len(), self.cache.len());
        SegmentShape { tokens, depth, logits: self.logit_tokens().len() }
    }
}

/// The work of some passes that no observer observes, from which the cost of every operation follows. Adding
/// a pass takes a few additions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassWork {
    passes: usize,
    tokens: usize,
    attention: AttentionWork,
    /// In the last block, only tokens with logits are computed beyond their keys and values.
    passes_with_logits: usize,
    logits: usize,
    last_attention: AttentionWork,
}

/// The work of attention in a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct AttentionWork {
    /// Unmasked pairs of a query and a key.
    pairs: usize,
    /// Keys read, once for each segment.
    keys: usize,
}

impl AttentionWork {
    /// Adds the last queries of a segment.
    fn add(&mut self, mask: Mask, segment: &SegmentShape, queries: usize) {
        let end = segment.depth + segment.tokens;
        self.pairs += (end - queries..end).map(|query| mask.visible(query).len()).sum::<usize>();
        self.keys += if queries > 0 { end - mask.visible(end - queries).start } else { 0 };
    }
}

impl PassWork {
    /// Adds a pass over a batch.
    pub fn add(&mut self, mask: Mask, batch: &[SegmentShape]) {
        let logits: usize = batch.iter().map(|segment| segment.logits).sum();
        self.passes += 1;
        self.passes_with_logits += usize::from(logits > 0);
        self.logits += logits;
        for segment in batch {
            self.tokens += segment.tokens;
            self.attention.add(mask, segment, segment.tokens);
            self.last_attention.add(mask, segment, segment.logits);
        }
    }

    /// The passes.
    pub fn passes(&self) -> usize {
        self.passes
    }

    /// The cost of sampling: every logit is read.
    pub fn sampling_cost(&self, vocab_size: usize) -> OperationCost {
        OperationCost { bytes: (size_of::<f32>() * vocab_size * self.logits) as f64, flops: 0.0 }
    }
}

/// What an operation costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OperationCost {
    /// Bytes read and written.
    pub bytes: f64,
    /// FLOPs (a multiply-add is two).
    pub flops: f64,
}

impl Model {
    /// Returns the cost of an operation in some passes.
    pub fn operation_cost(
        &self,
        operation: Operation,
        work: &PassWork,
        kv_precision: KvPrecision,
    ) -> OperationCost {
        let (e, inner, vocab_size) = (self.config.n_embd, self.config.n_inner, self.config.vocab_size);
        let kv = self.config.n_head * kv_precision.bytes_per_head(e / self.config.n_head);
        let all = (work.passes, work.tokens, work.attention);
        let with_logits = (work.passes_with_logits, work.logits, work.last_attention);
        let (passes, rows, attention) = match operation {
            Operation::LnF | Operation::LmHead => with_logits,
            Operation::Attention(layer)
            | Operation::AttnProj(layer)
            | Operation::Ln2(layer)
            | Operation::CFc(layer)
            | Operation::MlpProj(layer)
                if layer + 1 == self.config.n_layer =>
            {
                with_logits
            }
            _ => all,
        };
        let weights = self.weight_bytes(operation) * passes;
        // Per row, elements in and out, and FLOPs; bytes of weights or cache. A layer norm takes about eight
        // FLOPs per element.
        let (elements, flops, bytes) = match operation {
            Operation::Embed => (e, e, rows * self.weight_bytes(operation)),
            Operation::Ln1(_) | Operation::Ln2(_) | Operation::LnF => (2 * e, 8 * e, weights),
            Operation::CAttn(_) => (4 * e, 2 * e * 3 * e, weights),
            Operation::KvAppend(_) => (2 * e, 0, rows * kv),
            Operation::Attention(_) => (2 * e, 0, attention.keys * kv),
            Operation::AttnProj(_) => (3 * e, 2 * e * e, weights),
            Operation::CFc(_) => (e + inner, 2 * e * inner, weights),
            Operation::MlpProj(_) => (inner + 2 * e, 2 * inner * e, weights),
            Operation::LmHead => (e + vocab_size, 2 * e * vocab_size, weights),
        };
        let pairs = if matches!(operation, Operation::Attention(_)) { attention.pairs } else { 0 };
        OperationCost {
            bytes: (size_of::<f32>() * rows * elements + bytes) as f64,
            flops: (rows * flops + 4 * pairs * e) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::kernels::isa::Isa;
    use crate::kernels::thread_pool::ThreadPool;

    #[test]
    fn batch_shares_the_weights_and_nothing_else() {
        let model = Model::new(Checkpoint::embedded().unwrap(), ThreadPool::new(1, Isa::Portable));
        let cost = |operation, batch: &[SegmentShape]| {
            let mut work = PassWork::default();
            work.add(Mask::Causal, batch);
            model.operation_cost(operation, &work, KvPrecision::F16)
        };
        let (a, b) = (
            SegmentShape { tokens: 5, depth: 20, logits: 1 },
            SegmentShape { tokens: 1, depth: 7, logits: 1 },
        );
        for operation in Operation::in_pass(6) {
            let [both, a, b] = [&[a, b][..], &[a], &[b]].map(|batch| cost(operation, batch));
            let shared = match operation {
                Operation::Embed => 0, // a row for every token
                operation => model.weight_bytes(operation),
            };
            assert_eq!(both.bytes, a.bytes + b.bytes - shared as f64, "{operation}");
            assert_eq!(both.flops, a.flops + b.flops, "{operation}");
        }
    }

    #[test]
    fn without_logits_the_last_block_computes_keys_and_values_alone() {
        let model = Model::new(Checkpoint::embedded().unwrap(), ThreadPool::new(1, Isa::Portable));
        let mut work = PassWork::default();
        work.add(Mask::Causal, &[SegmentShape { tokens: 64, depth: 0, logits: 0 }]);
        let nothing = [Operation::Attention(5), Operation::CFc(5), Operation::LnF, Operation::LmHead];
        for operation in nothing {
            assert_eq!(model.operation_cost(operation, &work, KvPrecision::F32), OperationCost::default());
        }
        assert!(model.operation_cost(Operation::KvAppend(5), &work, KvPrecision::F32).bytes > 0.0);
    }
}
