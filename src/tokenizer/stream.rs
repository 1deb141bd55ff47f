//! Bytes to text as they arrive, a whole character at a time.

/// Turns a stream of byte runs into text. A character cut in two by a token boundary is held back until its last byte
/// is there; bytes that are no UTF-8 become U+FFFD. The outputs together are exactly what
/// [`String::from_utf8_lossy`] makes of all the bytes together.
#[derive(Clone, Debug, Default)]
pub struct Utf8Stream {
    /// Nothing, or the first bytes of a character.
    held: Vec<u8>,
}

impl Utf8Stream {
    /// A stream at its beginning.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and returns the text that is now certain.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.held.len());
        let mut done = 0;
        for chunk in self.held.utf8_chunks() {
            text.push_str(chunk.valid());
            done += chunk.valid().len();
            let invalid = chunk.invalid();
            let at_end = done + invalid.len() == self.held.len();
            if at_end && std::str::from_utf8(invalid).is_err_and(|e| e.error_len().is_none()) {
                break; // a character whose other bytes may yet come
            }
            if !invalid.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
                done += invalid.len();
            }
        }
        self.held.drain(..done);
        text
    }

    /// Ends the stream: a character that was never completed becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.held).into_owned();
        self.held.clear();
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn half_a_character_waits_for_the_other_half() {
        let mut stream = Utf8Stream::new();
        assert_eq!(stream.push(b"a\xF0\x9F"), "a");
        assert_eq!(stream.push(b"\x98"), "");
        assert_eq!(stream.push(b"\x80b"), "😀b");
        assert_eq!(stream.push(b"\xE2\x82"), "");
        assert_eq!(stream.finish(), "\u{FFFD}");
        assert_eq!(stream.finish(), "");
    }

    proptest! {
        #[test]
        fn outputs_together_are_from_utf8_lossy(
            pieces in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..6),
                    // Lead and continuation bytes in every wrong and right order.
                    prop::collection::vec(
                        prop::sample::select(&b"\x80\x9F\xA0\xBF\xC0\xC3\xE0\xE2\xED\xF0\xF4\xF5a"[..]), 0..6),
                    "\\PC{0,3}".prop_map(String::into_bytes),
                ],
                0..12,
            ),
            cut in 1usize..4,
        ) {
            let all = pieces.concat();
            for parts in [pieces, all.chunks(cut).map(<[u8]>::to_vec).collect()] {
                let mut stream = Utf8Stream::new();
                let mut text: String = parts.iter().map(|p| stream.push(p)).collect();
                text += &stream.finish();
                prop_assert_eq!(&text, &String::from_utf8_lossy(&all));
            }
        }
    }
}
