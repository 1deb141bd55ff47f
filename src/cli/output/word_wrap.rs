//! Wrapping of streamed text at the terminal's edge, between words.

use crate::cli::output::screen::display_width;

/// Passes streamed text through with line breaks between words. A word is held back until it is complete, as
/// the next token may continue it.
#[derive(Debug)]
pub struct WordWrap {
    /// Columns of the terminal.
    width: usize,
    /// Columns of the current line that are in use.
    column: usize,
    /// The spaces before the held-back word.
    spaces: String,
    /// The held-back word.
    word: String,
}

impl WordWrap {
    /// A wrapper for a terminal of `width` columns, at the start of a line.
    pub fn new(width: usize) -> Self {
        Self { width, column: 0, spaces: String::new(), word: String::new() }
    }

    /// Takes the next chunk of text and returns the text that may be printed now.
    pub fn push(&mut self, chunk: &str) -> String {
        let mut text = String::new();
        for c in chunk.chars() {
            match c {
                '\n' => {
                    text += &self.finish();
                    text.push(c);
                    self.column = 0;
                }
                ' ' => {
                    if !self.word.is_empty() {
                        text += &self.finish();
                    }
                    self.spaces.push(c);
                }
                _ => self.word.push(c),
            }
        }
        text
    }

    /// Ends the line and returns the held-back word.
    pub fn end_line(&mut self) -> String {
        let rest = self.finish();
        self.column = 0;
        rest
    }

    /// Returns the held-back word, which is complete.
    pub fn finish(&mut self) -> String {
        let (spaces, word) = (std::mem::take(&mut self.spaces), std::mem::take(&mut self.word));
        let width = display_width(&word);
        let fits = self.column + spaces.len() + width <= self.width;
        if fits || self.column == 0 || word.is_empty() {
            self.column += spaces.len() + width;
            return spaces + &word;
        }
        self.column = width;
        match spaces.is_empty() {
            true => word, // the rest of a word that was not held back
            false => format!("\n{word}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::WordWrap;

    fn wrapped(text: &str, width: usize, chunk_len: usize) -> String {
        let mut wrap = WordWrap::new(width);
        let chars: Vec<char> = text.chars().collect();
        let mut output: String =
            chars.chunks(chunk_len).map(|chunk| wrap.push(&chunk.iter().collect::<String>())).collect();
        output += &wrap.finish();
        output
    }

    #[test]
    fn lines_break_between_words_however_text_is_chunked() {
        for (text, width, expected) in [
            ("Once upon a time", 9, "Once upon\na time"),
            ("Once upon a time", 8, "Once\nupon a\ntime"),
            ("Once upon a time", 80, "Once upon a time"),
            ("One.\n\nTwo three", 5, "One.\n\nTwo\nthree"),
            ("unbelievable things", 5, "unbelievable\nthings"),
            ("  two spaces", 8, "  two\nspaces"),
            ("日本 日本 日本", 9, "日本 日本\n日本"),
            ("ends with space ", 16, "ends with space "),
        ] {
            for chunk_len in [1, 3, 100] {
                assert_eq!(wrapped(text, width, chunk_len), expected, "{text:?} {width} {chunk_len}");
            }
        }
    }
}
