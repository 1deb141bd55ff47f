//! Byte-level BPE encoding, step by step: pre-tokens, their bytes, and the merges applied to them.
//!
//! ```text
//! tokens = the bytes of the pre-token, one token each
//! repeat: merge the adjacent pair with the lowest merge rank, until no adjacent pair has one
//! ```
//!
//! Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units", on bytes as in GPT-2.
//! This is the reference algorithm; [`Tokenizer::encode`] gives the same ids with a priority queue.

use super::Tokenizer;
use crate::{Error, Result};
use std::collections::HashMap;
use tokenizers::{Model, OffsetReferential, OffsetType};

/// A pre-token: a part of the text whose boundaries no merge crosses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreToken {
    /// The tokens before any merge: one per byte, or the single token of an added token or an ignored merge.
    pub initial_tokens: Vec<u32>,
    /// The merges applied, in order.
    pub merges: Vec<MergeStep>,
}

/// One applied merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeStep {
    /// The merge rank, from 0.
    pub rank: usize,
    /// The pair of tokens merged.
    pub pair: (u32, u32),
    /// The token they are merged into.
    pub token: u32,
    /// The pre-token's tokens after this merge.
    pub tokens: Vec<u32>,
}

impl PreToken {
    /// The tokens after all merges.
    pub fn tokens(&self) -> &[u32] {
        self.merges.last().map_or(&self.initial_tokens, |merge| &merge.tokens)
    }
}

impl Tokenizer {
    /// Encodes a text as [`Tokenizer::encode`] does and returns every merge.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn merge_steps(&self, text: &str, parse_special: bool) -> Result<Vec<PreToken>> {
        let failed = |error: String| Error::Prompt(format!("the text cannot be tokenized: {error}"));
        let pre_tokens = self.catch_failure(|| self.pre_tokens(text, parse_special))?;
        let merges = self.merges.iter().enumerate();
        let ranks = merges.map(|(rank, &[left, right, token])| ((left, right), (rank, token))).collect();
        let mut unmerged = self.model.clone();
        unmerged.dropout = Some(1.0); // skips every merge

        let splits = pre_tokens.get_splits(OffsetReferential::Original, OffsetType::None);
        let pre_tokens = splits.into_iter().filter(|(text, ..)| !text.is_empty()).map(|(text, _, tokens)| {
            if let Some(tokens) = tokens {
                let initial_tokens = tokens.iter().map(|token| token.id).collect();
                return Ok(PreToken { initial_tokens, merges: vec![] });
            }
            let single_token = self.token_to_id(text).filter(|_| self.model.ignore_merges);
            let initial_tokens = match single_token {
                Some(id) => vec![id],
                None => {
                    let tokens = unmerged.tokenize(text).map_err(|error| failed(error.to_string()))?;
                    tokens.into_iter().map(|token| token.id).collect()
                }
            };
            let merges = apply_merges(&initial_tokens, &ranks);
            Ok(PreToken { initial_tokens, merges })
        });
        pre_tokens.collect()
    }
}

fn apply_merges(initial_tokens: &[u32], ranks: &HashMap<(u32, u32), (usize, u32)>) -> Vec<MergeStep> {
    let (mut tokens, mut merges) = (initial_tokens.to_vec(), vec![]);
    loop {
        let candidates = tokens.windows(2).enumerate().filter_map(|(position, pair)| {
            let pair = (pair[0], pair[1]);
            ranks.get(&pair).map(|&(rank, token)| (rank, position, pair, token))
        });
        let Some((rank, position, pair, token)) = candidates.min() else { return merges };
        tokens.splice(position..position + 2, [token]);
        merges.push(MergeStep { rank, pair, token, tokens: tokens.clone() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static FABLE: LazyLock<Tokenizer> = LazyLock::new(|| {
        let checkpoint = Checkpoint::embedded().unwrap();
        Tokenizer::from_files(&checkpoint.tokenizer_files().unwrap()).unwrap().unwrap()
    });

    #[test]
    fn merges_are_applied_in_rank_order() {
        let pre_tokens = FABLE.merge_steps("<|endoftext|>the <|endoftext|>", true).unwrap();
        assert_eq!(
            pre_tokens.iter().map(|pre_token| pre_token.tokens().len()).collect::<Vec<_>>(),
            [1, 1, 1, 1]
        );
        let spelled = |ids: &[u32]| ids.iter().map(|&id| FABLE.decode(&[id])).collect::<Vec<_>>();
        assert_eq!(spelled(&pre_tokens[1].initial_tokens), ["t", "h", "e"]);
        let merges: Vec<String> =
            pre_tokens[1].merges.iter().map(|merge| spelled(&merge.tokens).join("|")).collect();
        assert_eq!(merges, ["t|he", "the"]);
        assert!(pre_tokens[1].merges[0].rank < pre_tokens[1].merges[1].rank);
        assert!(
            pre_tokens[0].merges.is_empty() && pre_tokens[0].initial_tokens == pre_tokens[3].initial_tokens
        );
    }

    proptest! {
        #[test]
        fn merge_steps_match_encode(text in "(\\PC|[ a-z]|the | and|\n){0,40}") {
            let pre_tokens = FABLE.merge_steps(&text, true).unwrap();
            let ids: Vec<u32> = pre_tokens.iter().flat_map(PreToken::tokens).copied().collect();
            prop_assert_eq!(ids, FABLE.encode(&text, true).unwrap());
            let bytes = |ids: &[u32]| -> Vec<u8> {
                ids.iter().flat_map(|&id| FABLE.token_bytes(id)).copied().collect()
            };
            for pre_token in &pre_tokens {
                for merge in &pre_token.merges {
                    prop_assert_eq!(bytes(&merge.tokens), bytes(&pre_token.initial_tokens));
                }
            }
        }
    }
}
