//! The byte sequence of each token.
//!
//! Vocabulary files are JSON, and JSON strings cannot hold arbitrary bytes, so GPT-2 maps each byte to one
//! printable character: printable bytes to themselves, the other 68 to the characters from U+0100 on, in
//! order. A space is written `Ġ` and a line feed `Ċ` (`bytes_to_unicode` in OpenAI's `encoder.py`).

use std::path::Path;

use super::special_tokens::invalid;
use crate::Result;
use tokenizers::models::bpe::Vocab;

/// The largest id accepted: a larger one indicates a corrupted file, and would need a table that large.
const MAX_ID: u32 = (1 << 24) - 1;

/// The bytes of every token, concatenated, with the start of each.
pub struct TokenBytes {
    bytes: Vec<u8>,
    /// Token `id` is `bytes[starts[id]..starts[id + 1]]`.
    starts: Vec<u32>,
}

impl TokenBytes {
    /// Decodes a vocabulary and the added tokens, each with its id.
    pub fn new(file: &Path, vocab: &Vocab, added_tokens: &[(u32, &str)]) -> Result<Self> {
        let invalid = |problem| invalid(file, problem);
        let byte_to_char = bytes_to_unicode();

        // Added tokens come last, so that their text takes precedence.
        let added = added_tokens.iter().map(|(id, token)| (*id, *token, true));
        let tokens = vocab.iter().map(|(token, id)| (*id, &**token, false));
        let mut by_id: Vec<Option<(&str, bool)>> = Vec::with_capacity(vocab.len());
        for (id, token, is_added) in tokens.chain(added) {
            if id > MAX_ID {
                return Err(invalid(format!("token {token:?}: found id {id}, expected at most {MAX_ID}")));
            }
            if by_id.len() <= id as usize {
                by_id.resize(id as usize + 1, None);
            }
            match by_id[id as usize].replace((token, is_added)) {
                Some((other, _)) if other != token => {
                    let mut both = [other, token];
                    both.sort_unstable();
                    return Err(invalid(format!(
                        "id {id}: found two tokens, {:?} and {:?}, expected one",
                        both[0], both[1]
                    )));
                }
                _ => {}
            }
        }

        let mut char_to_byte = [None; 0x144];
        for (byte, &c) in byte_to_char.iter().enumerate() {
            char_to_byte[c as usize] = Some(byte as u8);
        }
        let mut bytes = Vec::new();
        let mut starts = Vec::with_capacity(by_id.len() + 1);
        starts.push(0);
        for entry in by_id {
            let (token, is_added) = entry.unwrap_or(("", true));
            let start = bytes.len();
            let to_byte = |c: char| char_to_byte.get(c as usize).copied().flatten();
            bytes.extend(token.chars().map_while(to_byte));
            if is_added || bytes.len() - start != token.chars().count() {
                bytes.truncate(start);
                bytes.extend(token.as_bytes());
            }
            let end = u32::try_from(bytes.len());
            starts.push(end.map_err(|_| invalid("vocab: found more than 4 GiB of tokens".into()))?);
        }
        Ok(Self { bytes, starts })
    }

    pub fn get(&self, id: u32) -> &[u8] {
        match self.starts.get(id as usize..) {
            Some([start, end, ..]) => &self.bytes[*start as usize..*end as usize],
            _ => &[],
        }
    }

    /// Returns the length of the longest token.
    pub fn max_len(&self) -> usize {
        self.starts.windows(2).map(|pair| (pair[1] - pair[0]) as usize).max().unwrap_or_default()
    }

    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }
}

/// The printable character that stands for each byte in vocabulary files.
fn bytes_to_unicode() -> [char; 256] {
    let mut unprintable = (0x100..).map(|c| char::from_u32(c).expect("below the surrogates"));
    std::array::from_fn(|byte| match byte as u8 {
        printable @ (b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF) => printable as char,
        _ => unprintable.next().expect("an endless range"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_to_unicode_matches_gpt2() {
        let s = bytes_to_unicode();
        assert_eq!((s[b' ' as usize], s[b'\n' as usize]), ('Ġ', 'Ċ'));
        assert_eq!((s[0], s[0x7F], s[0xA0], s[0xAD]), ('Ā', 'ġ', 'ł', 'Ń'));
        assert_eq!((s[b'A' as usize], s[0xE9]), ('A', 'é'));
    }
}
