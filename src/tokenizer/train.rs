//! A new vocabulary: byte-level BPE, trained on texts.
//!
//! The vocabulary starts as the 256 bytes. The pair of neighbours that is most frequent within the words of
//! the texts becomes a token, again and again, until there are enough (Sennrich et al. 2016; over bytes,
//! Radford et al. 2019). The `tokenizers` crate counts and merges.

use super::END_OF_TEXT;
use super::pre_tokens::PreTokenizer;
use crate::{Error, Result};
use serde_json::json;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizerWrapper, Trainer};

/// The smallest vocabulary: the bytes and the end-of-text token.
pub const MIN_VOCAB_SIZE: usize = 257;

/// Returns the `tokenizer.json` of a vocabulary of `vocab_size` tokens, of which the last is `<|endoftext|>`;
/// fewer if the texts do not have as many pairs.
///
/// # Errors
/// [`Error::Parameter`] for fewer tokens than [`MIN_VOCAB_SIZE`].
pub fn train<'a>(texts: impl Iterator<Item = &'a str> + Send, vocab_size: usize) -> Result<Vec<u8>> {
    if vocab_size < MIN_VOCAB_SIZE {
        return Err(Error::Parameter {
            name: "tokenizer".into(),
            found: format!("{vocab_size} tokens"),
            expected: format!("at least {MIN_VOCAB_SIZE}: 256 bytes and the end of text"),
        });
    }
    let failed = |error| Error::Unsupported(format!("the tokenizers crate failed: {error}"));
    let byte_level = ByteLevel::new(false, true, true);
    let pre_tokenizer = PreTokenizer::new(PreTokenizerWrapper::ByteLevel(byte_level)).map_err(failed)?;
    let words = |text: &str| {
        let mut text = PreTokenizedString::from(text);
        pre_tokenizer.split(&mut text)?;
        let splits = text.get_splits(OffsetReferential::Original, OffsetType::Byte);
        Ok(splits.into_iter().map(|(word, ..)| word.to_string()).collect())
    };
    let mut trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(vocab_size - 1)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    trainer.feed(texts, words).map_err(failed)?;
    let mut model = BPE::default();
    trainer.train(&mut model).map_err(failed)?;

    let mut model = serde_json::to_value(&model).unwrap_or_default();
    let vocabulary = model["vocab"].as_object_mut();
    let end_of_text = vocabulary.as_ref().map_or(0, |vocabulary| vocabulary.len());
    if let Some(vocabulary) = vocabulary {
        vocabulary.insert(END_OF_TEXT.into(), end_of_text.into());
    }
    let file = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [{
            "id": end_of_text, "content": END_OF_TEXT, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true,
        }],
        "normalizer": null,
        "pre_tokenizer": byte_level_json(),
        "post_processor": null,
        "decoder": byte_level_json(),
        "model": model,
    });
    Ok(file.to_string().into_bytes())
}

fn byte_level_json() -> serde_json::Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Tokenizer;

    const TEXT: &str = "the cat and the dog and the hen saw the cat. The dog, ça va? \u{1f415}";

    fn tokenizer(vocab_size: usize) -> Tokenizer {
        let file = train([TEXT, "and the cat"].into_iter(), vocab_size).unwrap();
        Tokenizer::from_files(&[("tokenizer.json".into(), file.into())]).unwrap().unwrap()
    }

    #[test]
    fn frequent_pairs_become_tokens() {
        let tokenizer = tokenizer(262);
        assert_eq!(tokenizer.vocab_size(), 262);
        let ids = tokenizer.encode(" the", false).unwrap();
        assert_eq!(ids.len(), 1, "{ids:?}");
        let ids = tokenizer.encode(TEXT, false).unwrap();
        assert!(ids.len() < TEXT.len());
        assert_eq!(tokenizer.decode(&ids), TEXT);
        assert_eq!(tokenizer.token_to_id(END_OF_TEXT), Some(261));
    }

    #[test]
    fn same_texts_give_the_same_file() {
        let file = || train([TEXT; 9].into_iter(), 280).unwrap();
        let expected = file();
        assert!((0..5).all(|_| file() == expected));
    }

    #[test]
    fn few_texts_give_few_tokens() {
        assert!(tokenizer(5000).vocab_size() < 400);
        let error = train([TEXT].into_iter(), 256).unwrap_err().to_string();
        assert!(error.contains("256 tokens") && error.contains("at least 257"), "{error}");
    }
}
