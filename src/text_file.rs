//! Text input: files and standard input in UTF-8, with or without a byte order mark.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, stdin};
use std::path::{Path, PathBuf};

/// The byte order mark that Windows programs write at the start of UTF-8 text. It is a signature, not text.
pub const BOM: char = '\u{feff}';
/// The argument that stands for standard input.
const STDIN: &str = "-";
/// The largest size of a text: devices such as `/dev/zero` never end.
const MAX_BYTES: u64 = 1 << 30;
/// The largest number of UTF-16 units that are examined.
const EXAMINED_UNITS: usize = 64;

/// Reads the text of a file, or of standard input for `-`, without a byte order mark.
///
/// # Errors
/// [`Error::Io`], and [`Error::InvalidFile`] for text that is not in UTF-8.
pub fn read(file: &Path) -> Result<String> {
    let (name, bytes) = read_bytes(file)?;
    decode(bytes).map_err(|problem| Error::invalid_file(name, problem))
}

/// Reads the text of a file as [`read`] does, where `-` is the name of a file.
///
/// # Errors
/// As [`read`].
pub fn read_file(file: &Path) -> Result<String> {
    let bytes = File::open(file).and_then(read_to_end);
    let bytes = bytes.map_err(|source| Error::Io { path: file.into(), action: "read", source })?;
    decode(bytes).map_err(|problem| Error::invalid_file(file, problem))
}

/// Reads a file, or standard input for `-`, and returns its name for messages and its bytes.
///
/// # Errors
/// [`Error::Io`] if it cannot be read.
pub fn read_bytes(file: &Path) -> Result<(&Path, Vec<u8>)> {
    let name = name(file);
    let bytes = match file == Path::new(STDIN) {
        true => read_to_end(stdin()),
        false => File::open(file).and_then(read_to_end),
    };
    let bytes = bytes.map_err(|source| Error::Io { path: name.into(), action: "read", source })?;
    Ok((name, bytes))
}

/// Returns the name of a file in messages; `-` is standard input.
pub fn name(file: &Path) -> &Path {
    if file == Path::new(STDIN) { Path::new("standard input") } else { file }
}

/// Reads all bytes, at most [`MAX_BYTES`].
fn read_to_end(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    if from.take(MAX_BYTES + 1).read_to_end(&mut bytes)? as u64 > MAX_BYTES {
        return Err(io::Error::other(too_long(MAX_BYTES)));
    }
    Ok(bytes)
}

fn too_long(max: u64) -> String {
    format!("found more than {max} bytes, the maximum for a text")
}

/// A text that is read piece by piece, so that it is never in memory as a whole: the lines of a file, or what
/// another separator ends.
pub struct Pieces {
    name: PathBuf,
    from: Box<dyn BufRead>,
    separator: &'static str,
    /// Pieces read.
    n: usize,
    max_bytes: u64,
}

impl Pieces {
    /// Opens a file, or standard input for `-`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be opened.
    pub fn open(file: &Path, separator: &'static str) -> Result<Self> {
        let error = |source| Error::Io { path: file.into(), action: "read", source };
        let from: Box<dyn BufRead> = match file == Path::new(STDIN) {
            true => Box::new(stdin().lock()),
            false => Box::new(BufReader::new(File::open(file).map_err(error)?)),
        };
        Ok(Self { name: name(file).into(), from, separator, n: 0, max_bytes: MAX_BYTES })
    }

    /// Sets the maximum size of a piece, which is that of a text otherwise.
    pub fn with_max_bytes(self, max_bytes: u64) -> Self {
        Self { max_bytes, ..self }
    }

    /// Reads up to the next separator, or to the end.
    fn read(&mut self) -> io::Result<Vec<u8>> {
        let (mut piece, last) = (vec![], self.separator.as_bytes()[self.separator.len() - 1]);
        while !piece.ends_with(self.separator.as_bytes()) {
            let room = (self.max_bytes + 1).saturating_sub(piece.len() as u64);
            if self.from.by_ref().take(room).read_until(last, &mut piece)? == 0 {
                break;
            }
        }
        Ok(piece)
    }
}

/// The pieces, without the separators. An error is [`Error::Io`], or [`Error::InvalidFile`] for text that is
/// not in UTF-8.
impl Iterator for Pieces {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut piece = match self.read() {
            Ok(piece) if piece.is_empty() => return None,
            Ok(piece) => piece,
            Err(source) => return Some(Err(Error::Io { path: self.name.clone(), action: "read", source })),
        };
        self.n += 1;
        let line = (self.separator == "\n").then_some(self.n);
        let invalid = |problem| Error::InvalidFile { file: self.name.clone(), line, problem };
        if piece.len() as u64 > self.max_bytes {
            self.from = Box::new(io::empty()); // the rest of the piece is none
            return Some(Err(invalid(too_long(self.max_bytes))));
        }
        if piece.ends_with(self.separator.as_bytes()) {
            piece.truncate(piece.len() - self.separator.len());
        }
        Some(decode(piece).map_err(invalid))
    }
}

/// Decodes UTF-8 text, without its byte order mark.
///
/// # Errors
/// The problem of text in another encoding.
pub fn decode(mut bytes: Vec<u8>) -> std::result::Result<String, String> {
    let bom = bytes.len() - without_bom(&bytes)?.len();
    bytes.drain(..bom);
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        format!("found invalid UTF-8 at byte {offset}, expected UTF-8 text")
    })
}

/// Removes the byte order mark of UTF-8 text.
///
/// # Errors
/// The problem of text in UTF-16 or UTF-32.
pub fn without_bom(bytes: &[u8]) -> std::result::Result<&[u8], String> {
    if let Some(encoding) = wide_encoding(bytes) {
        return Err(format!(
            "found {encoding} text, expected UTF-8; convert it, e.g. with iconv -f {encoding} -t UTF-8"
        ));
    }
    Ok(bytes.strip_prefix(BOM.encode_utf8(&mut [0; 4]).as_bytes()).unwrap_or(bytes))
}

/// The encoding of text whose characters have at least two bytes: it starts with a byte order mark, or every
/// second byte is zero, as in Latin letters.
fn wide_encoding(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..] => return Some("UTF-32"),
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => return Some("UTF-16"),
        _ => {}
    }
    let units = bytes.as_chunks::<2>().0;
    let examined = &units[..units.len().min(EXAMINED_UNITS)];
    let all = |zeros: fn(&[u8; 2]) -> (bool, bool), expected| {
        examined.len() > 1 && examined.iter().all(|unit| zeros(unit) == expected)
    };
    let zeros = |unit: &[u8; 2]| (unit[0] == 0, unit[1] == 0);
    if all(zeros, (false, true)) {
        return Some("UTF-16LE");
    }
    all(zeros, (true, false)).then_some("UTF-16BE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_order_mark_is_removed_once() {
        for (bytes, text) in [
            ("", ""),
            ("\u{feff}", ""),
            ("\u{feff}The king", "The king"),
            ("\u{feff}\u{feff}The king", "\u{feff}The king"),
            ("The\u{feff} king", "The\u{feff} king"),
            ("a\0b", "a\0b"),
        ] {
            assert_eq!(decode(bytes.into()).as_deref(), Ok(text), "{bytes:?}");
        }
    }

    #[test]
    fn utf16_is_named() {
        let little = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let big = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
        for (bytes, encoding) in [
            (little("\u{feff}The king"), "UTF-16"),
            (big("\u{feff}日本"), "UTF-16"),
            (little("The king"), "UTF-16LE"),
            (big("The king"), "UTF-16BE"),
            (vec![0xFF, 0xFE, 0, 0, 65, 0, 0, 0], "UTF-32"),
        ] {
            let problem = decode(bytes).unwrap_err();
            let expected = format!("found {encoding} text, expected UTF-8; convert it");
            assert!(problem.starts_with(&expected), "{problem}");
        }
        assert_eq!(
            decode(b"Once \xff\xfe".into()).unwrap_err(),
            "found invalid UTF-8 at byte 5, expected UTF-8 text"
        );
    }
}
