//! Which bytes each token stands for.
//!
//! Vocabulary files are JSON, and JSON strings cannot hold arbitrary bytes, so GPT-2 spells each byte as one printable
//! character: the printable ones as themselves, the other 68 as the characters from U+0100 on, in order. A space is
//! thus written `Ġ` and a line feed `Ċ`. (`bytes_to_unicode` in OpenAI's `encoder.py`.)

use std::path::Path;

use super::files::{Parts, wrong};
use crate::Result;

/// Larger ids than this are taken for a damaged file rather than for a vocabulary that needs a table so long.
const MAX_ID: u32 = (1 << 24) - 1;

/// The bytes of every token, one after the other, and where each begins.
pub struct TokenBytes {
    bytes: Vec<u8>,
    /// Token `id` is `bytes[starts[id]..starts[id + 1]]`.
    starts: Vec<u32>,
}

impl TokenBytes {
    /// Spells out a vocabulary. Every byte must have a token of its own, for otherwise there are texts that
    /// cannot be encoded.
    pub fn new(file: &Path, parts: &Parts) -> Result<Self> {
        let wrong = |problem| wrong(file, problem);
        let spelling = spelling();
        if let Some(byte) =
            spelling.iter().position(|c| !parts.vocab.contains_key(&*c.encode_utf8(&mut [0; 4])))
        {
            return Err(wrong(format!(
                "vocab: no token {:?} for byte 0x{byte:02X}, expected one for each of the 256 bytes",
                spelling[byte]
            )));
        }

        // Added tokens come last: theirs is the text an id is shown as.
        let added = parts.added.iter().map(|(id, t)| (*id, &*t.content, true));
        let tokens = parts.vocab.iter().map(|(token, id)| (*id, &**token, false));
        let mut by_id: Vec<Option<(&str, bool)>> = Vec::with_capacity(parts.vocab.len());
        for (id, token, is_added) in tokens.chain(added) {
            if id > MAX_ID {
                return Err(wrong(format!("token {token:?}: found id {id}, expected at most {MAX_ID}")));
            }
            if by_id.len() <= id as usize {
                by_id.resize(id as usize + 1, None);
            }
            match by_id[id as usize].replace((token, is_added)) {
                Some((other, _)) if other != token => {
                    let mut both = [other, token];
                    both.sort_unstable();
                    return Err(wrong(format!(
                        "id {id}: found two tokens, {:?} and {:?}, expected one",
                        both[0], both[1]
                    )));
                }
                _ => {}
            }
        }

        let mut byte_of = [None; 0x144];
        for (byte, &c) in spelling.iter().enumerate() {
            byte_of[c as usize] = Some(byte as u8);
        }
        let mut bytes = Vec::new();
        let mut starts = Vec::with_capacity(by_id.len() + 1);
        starts.push(0);
        for entry in by_id {
            let (token, is_added) = entry.unwrap_or(("", true));
            let start = bytes.len();
            let spelled = |c: char| byte_of.get(c as usize).copied().flatten();
            bytes.extend(token.chars().map_while(spelled));
            if is_added || bytes.len() - start != token.chars().count() {
                bytes.truncate(start);
                bytes.extend(token.as_bytes());
            }
            let end = u32::try_from(bytes.len());
            starts.push(end.map_err(|_| wrong("vocab: found more than 4 GiB of tokens".into()))?);
        }
        Ok(Self { bytes, starts })
    }

    pub fn get(&self, id: u32) -> &[u8] {
        match self.starts.get(id as usize..) {
            Some([start, end, ..]) => &self.bytes[*start as usize..*end as usize],
            _ => &[],
        }
    }

    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }
}

/// The character that spells each byte.
fn spelling() -> [char; 256] {
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
    fn bytes_are_spelled_as_gpt2_does() {
        let s = spelling();
        assert_eq!((s[b' ' as usize], s[b'\n' as usize]), ('Ġ', 'Ċ'));
        assert_eq!((s[0], s[0x7F], s[0xA0], s[0xAD]), ('Ā', 'ġ', 'ł', 'Ń'));
        assert_eq!((s[b'A' as usize], s[0xE9]), ('A', 'é'));
    }
}
