//! Incremental UTF-8 decoding of token bytes.

/// Decodes a stream of byte chunks to text. A character split across chunks is pending back until its last
/// byte arrives; invalid UTF-8 becomes U+FFFD. The concatenated outputs equal [`String::from_utf8_lossy`] of
/// the concatenated input.
#[derive(Clone, Debug, Default)]
pub struct Utf8Decoder {
    /// The first bytes of an incomplete character, or none.
    pending: Vec<u8>,
}

impl Utf8Decoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and returns the characters that are now complete.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.pending.len());
        let mut done = 0;
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            done += chunk.valid().len();
            let invalid = chunk.invalid();
            let at_end = done + invalid.len() == self.pending.len();
            if at_end && std::str::from_utf8(invalid).is_err_and(|e| e.error_len().is_none()) {
                break; // an incomplete character
            }
            if !invalid.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
                done += invalid.len();
            }
        }
        self.pending.drain(..done);
        text
    }

    /// Ends the stream: an incomplete character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn split_character_is_held_until_complete() {
        let mut decoder = Utf8Decoder::new();
        assert_eq!(decoder.push(b"a\xF0\x9F"), "a");
        assert_eq!(decoder.push(b"\x98"), "");
        assert_eq!(decoder.push(b"\x80b"), "😀b");
        assert_eq!(decoder.push(b"\xE2\x82"), "");
        assert_eq!(decoder.finish(), "\u{FFFD}");
        assert_eq!(decoder.finish(), "");
    }

    proptest! {
        #[test]
        fn output_matches_from_utf8_lossy(
            chunks in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..6),
                    // Lead and continuation bytes in valid and invalid order.
                    prop::collection::vec(
                        prop::sample::select(
                            &b"\x80\x9F\xA0\xBF\xC0\xC3\xE0\xE2\xED\xF0\xF4\xF5a"[..],
                        ),
                        0..6,
                    ),
                    "\\PC{0,3}".prop_map(String::into_bytes),
                ],
                0..12,
            ),
            chunk_len in 1usize..4,
        ) {
            let all = chunks.concat();
            for chunks in [chunks, all.chunks(chunk_len).map(<[u8]>::to_vec).collect()] {
                let mut decoder = Utf8Decoder::new();
                let mut text: String = chunks.iter().map(|p| decoder.push(p)).collect();
                text += &decoder.finish();
                prop_assert_eq!(&text, &String::from_utf8_lossy(&all));
            }
        }
    }
}
