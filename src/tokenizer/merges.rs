//! How a text becomes tokens, step by step: its words, their bytes, and the merges that join them.
//!
//! ```text
//! tokens of a word = its bytes, one token each
//! repeat: of all neighbours that have a merge, join those whose merge was learnt first
//! ```
//!
//! Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units", on bytes as GPT-2 has it. This
//! is the textbook form; [`Tokenizer::encode`] gives the same ids by a queue.

use super::Tokenizer;
use crate::{Error, Result};
use serde::Deserialize;
use std::collections::HashMap;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizer};

/// A piece of the text that merges do not cross.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The tokens it starts as, one a byte; or the one token it is at once.
    pub start: Vec<u32>,
    /// What was joined, in order.
    pub merges: Vec<Merge>,
}

/// One join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    /// When it was learnt, from 0.
    pub rank: usize,
    /// The two tokens.
    pub pair: (u32, u32),
    /// What they become.
    pub token: u32,
    /// The word's tokens behind it.
    pub tokens: Vec<u32>,
}

impl Word {
    /// The tokens it ends as.
    pub fn tokens(&self) -> &[u32] {
        self.merges.last().map_or(&self.start, |merge| &merge.tokens)
    }
}

/// The model's part of the tokenizer as it would be saved.
#[derive(Deserialize)]
struct Saved {
    ignore_merges: bool,
    merges: Vec<(String, String)>,
}

impl Tokenizer {
    /// Encodes a text as [`Tokenizer::encode`] does and shows how.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn merge_steps(&self, text: &str, special: bool) -> Result<Vec<Word>> {
        let failed = |error: String| Error::Message(format!("the text cannot be tokenized: {error}"));
        let added = if special { &self.with_special } else { &self.without_special };
        let mut words = added.extract_and_normalize(self.normalizer.as_ref(), text);
        if let Some(pre_tokenizer) = &self.pre_tokenizer {
            pre_tokenizer.pre_tokenize(&mut words).map_err(|error| failed(error.to_string()))?;
        }
        let saved = serde_json::to_value(&self.model).and_then(serde_json::from_value::<Saved>);
        let saved = saved.map_err(|error| failed(error.to_string()))?;
        let id = |token: &str| self.id_of(token).ok_or_else(|| failed(format!("no token {token:?}")));
        let mut ranks = HashMap::with_capacity(saved.merges.len());
        for (rank, (left, right)) in saved.merges.iter().enumerate() {
            ranks.insert((id(left)?, id(right)?), (rank, id(&format!("{left}{right}"))?));
        }

        let splits = words.get_splits(OffsetReferential::Original, OffsetType::None);
        let words = splits.into_iter().filter(|(word, ..)| !word.is_empty()).map(|(word, _, tokens)| {
            if let Some(tokens) = tokens {
                return Ok(Word { start: tokens.iter().map(|token| token.id).collect(), merges: vec![] });
            }
            let whole = self.id_of(word).filter(|_| saved.ignore_merges);
            let start = match whole {
                Some(id) => vec![id],
                None => word.chars().map(|c| id(c.encode_utf8(&mut [0; 4]))).collect::<Result<_>>()?,
            };
            let merges = join(&start, &ranks);
            Ok(Word { start, merges })
        });
        words.collect()
    }
}

fn join(start: &[u32], ranks: &HashMap<(u32, u32), (usize, u32)>) -> Vec<Merge> {
    let (mut tokens, mut merges) = (start.to_vec(), vec![]);
    loop {
        let joins = tokens.windows(2).enumerate().filter_map(|(at, pair)| {
            let pair = (pair[0], pair[1]);
            ranks.get(&pair).map(|&(rank, token)| (rank, at, pair, token))
        });
        let Some((rank, at, pair, token)) = joins.min() else { return merges };
        tokens.splice(at..at + 2, [token]);
        merges.push(Merge { rank, pair, token, tokens: tokens.clone() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Checkpoint, TokenizerFiles};
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static FABLE: LazyLock<Tokenizer> = LazyLock::new(|| {
        let checkpoint = Checkpoint::embedded().unwrap();
        let TokenizerFiles::Json { file, bytes } = checkpoint.tokenizer_files().unwrap() else {
            unreachable!()
        };
        Tokenizer::from_json(&file, &bytes).unwrap()
    });

    #[test]
    fn a_word_is_joined_from_its_bytes_in_the_order_merges_were_learnt() {
        let words = FABLE.merge_steps("<|endoftext|>the <|endoftext|>", true).unwrap();
        assert_eq!(words.iter().map(|word| word.tokens().len()).collect::<Vec<_>>(), [1, 1, 1, 1]);
        let spelled = |ids: &[u32]| ids.iter().map(|&id| FABLE.decode(&[id])).collect::<Vec<_>>();
        assert_eq!(spelled(&words[1].start), ["t", "h", "e"]);
        let merges: Vec<String> =
            words[1].merges.iter().map(|merge| spelled(&merge.tokens).join("|")).collect();
        assert_eq!(merges, ["t|he", "the"]);
        assert!(words[1].merges[0].rank < words[1].merges[1].rank);
        assert!(words[0].merges.is_empty() && words[0].start == words[3].start);
    }

    proptest! {
        #[test]
        fn steps_end_where_encode_does(text in "(\\PC|[ a-z]|the | and|\n){0,40}") {
            let words = FABLE.merge_steps(&text, true).unwrap();
            let ids: Vec<u32> = words.iter().flat_map(Word::tokens).copied().collect();
            prop_assert_eq!(ids, FABLE.encode(&text, true).unwrap());
            let bytes = |ids: &[u32]| -> Vec<u8> { ids.iter().flat_map(|&id| FABLE.token_bytes(id)).copied().collect() };
            for word in &words {
                for merge in &word.merges {
                    prop_assert_eq!(bytes(&merge.tokens), bytes(&word.start));
                }
            }
        }
    }
}
