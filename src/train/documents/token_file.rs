//! Files of tokens, as the scripts of nanoGPT and llm.c write them: 16-bit integers, little-endian.
//!
//! nanoGPT's has no header. llm.c's begins with 256 integers of 32 bits: a magic number, a version, the
//! number of tokens, and zeros. Taken for nanoGPT's, its first token would be 55,448, beyond GPT-2's
//! vocabulary. Either has its documents in one row, with an end-of-text token between them.

use super::{Document, DocumentReader};
use crate::{Error, Result};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// The first integer of llm.c's header.
const MAGIC: u32 = 20_240_520;
/// The version with 16-bit tokens.
const VERSION: u32 = 1;
/// The integers of llm.c's header.
const HEADER_INTS: usize = 256;

impl DocumentReader<'_> {
    /// Reads a `.bin` file and splits it at the end-of-text token.
    pub(super) fn read_token_file(&self, path: &Path, documents: &mut Vec<Document>) -> Result<()> {
        let io = |source| Error::Io { path: path.into(), action: "read", source };
        let invalid = |problem: String| Error::invalid_file(path, problem);
        let file = File::open(path).map_err(io)?;
        let bytes = file.metadata().map_err(io)?.len();
        let mut file = BufReader::with_capacity(1 << 16, file);
        let mut header = vec![0; HEADER_INTS * size_of::<u32>()];
        let read = read_up_to(&mut file, &mut header).map_err(io)?;
        header.truncate(read);
        let header_ints = header.as_chunks().0;
        let int = |i: usize| header_ints.get(i).map(|int| u32::from_le_bytes(*int));
        let start = match int(0) {
            Some(MAGIC) => {
                let tokens = (bytes.saturating_sub(header.len() as u64)) / 2;
                match (int(1), int(2)) {
                    (Some(VERSION), Some(n)) if u64::from(n) == tokens && int(HEADER_INTS - 1).is_some() => {}
                    (Some(VERSION), n) => {
                        let n = n.unwrap_or_default();
                        let problem = format!("found {tokens} tokens, expected {n}, as its header says");
                        return Err(invalid(problem));
                    }
                    (version, _) => {
                        let version = version.unwrap_or_default();
                        return Err(invalid(format!(
                            "found version {version} of llm.c's token files, expected {VERSION}, whose \
                             tokens have 16 bits"
                        )));
                    }
                }
                vec![]
            }
            _ => header, // of nanoGPT: tokens already
        };
        if bytes % 2 == 1 {
            return Err(invalid(format!("found {bytes} bytes, expected an even number: tokens of 16 bits")));
        }
        let mut document = Document::default();
        let mut index = 0;
        let mut push_all = |bytes: &[u8]| -> Result<()> {
            for token in bytes.as_chunks().0 {
                let id = u32::from(u16::from_le_bytes(*token));
                if id as usize >= self.vocab_size {
                    let last = self.vocab_size.saturating_sub(1);
                    return Err(invalid(format!("token {index}: found id {id}, expected 0 to {last}")));
                }
                index += 1;
                if self.end_of_text != Some(id) {
                    document.push(&[id], 1.0);
                } else if !document.ids.is_empty() {
                    documents.push(std::mem::take(&mut document));
                }
            }
            Ok(())
        };
        push_all(&start)?;
        let mut block = vec![0; 1 << 16];
        loop {
            match read_up_to(&mut file, &mut block).map_err(io)? {
                0 => break,
                n => push_all(&block[..n])?,
            }
        }
        if !document.ids.is_empty() {
            documents.push(document);
        }
        Ok(())
    }
}

/// Fills `bytes`, as far as the file reaches.
fn read_up_to(file: &mut impl Read, bytes: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
