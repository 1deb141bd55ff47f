//! What a text is to be like: sampling, length and end.

use super::ContextPolicy;
use crate::kernels::attention::KvPrecision;
use crate::sampling::SamplingParams;

/// Parameters of text generation.
#[derive(Clone, Debug)]
pub struct Options {
    /// Sampling parameters. The model's end-of-text token ends the text in addition to their `stop_ids`.
    pub sampling: SamplingParams,
    /// Maximum tokens to generate; none for as many as fit into the context and the one after it, or with
    /// context shift, no limit.
    pub max_tokens: Option<usize>,
    /// Number of tokens beyond `max_tokens` within which a text may end with a sentence; 0 ends it at
    /// `max_tokens`. Ignored without a tokenizer.
    pub sentence_margin: usize,
    /// Policy at the end of the context.
    pub context: ContextPolicy,
    /// Stop strings, which end the completion and are not part of it.
    pub stop: Vec<String>,
    /// Precision of the KV cache; none for [`Model::kv_precision`](crate::model::Model::kv_precision).
    pub kv_precision: Option<KvPrecision>,
}

impl Default for Options {
    /// Temperature 0.8 and top-p 0.95, which suit stories: more varied than greedy decoding, which falls into
    /// loops, and without the least likely tokens.
    fn default() -> Self {
        let sampling = SamplingParams { temperature: 0.8, top_p: 0.95, ..SamplingParams::default() };
        Self {
            sampling,
            max_tokens: Some(200),
            sentence_margin: 0,
            context: ContextPolicy::Stop,
            stop: vec![],
            kv_precision: None,
        }
    }
}
