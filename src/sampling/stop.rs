//! Stop strings, matched across the boundaries of streamed chunks.

use crate::{Error, Result};

/// Passes streamed text through until a stop string is complete, and holds back any suffix that may become
/// one.
///
/// The first stop string to be complete wins, and the longest among those that end at the same position; the
/// text is truncated before it. Chunk boundaries make no difference.
#[derive(Clone, Debug)]
pub struct StopMatcher {
    stops: Vec<String>,
    /// The longest suffix of the text that is a proper prefix of a stop string.
    pending: String,
    stopped: bool,
}

impl StopMatcher {
    /// A matcher at the start of a text.
    ///
    /// # Errors
    /// [`Error::Parameter`] if a stop string is empty: it would match everywhere.
    pub fn new(stops: Vec<String>) -> Result<Self> {
        if stops.iter().any(String::is_empty) {
            return Err(Error::Parameter {
                name: "stop".into(),
                found: "an empty string".into(),
                expected: "a string of at least one character".into(),
            });
        }
        Ok(Self { stops, pending: String::new(), stopped: false })
    }

    /// Takes the next chunk of text and returns the text that may be emitted now: none after a stop string.
    pub fn push(&mut self, chunk: &str) -> String {
        if self.stopped {
            return String::new();
        }
        let start = self.pending.len();
        self.pending.push_str(chunk);
        for (i, c) in chunk.char_indices() {
            let text = &self.pending[..start + i + c.len_utf8()];
            let complete = self.stops.iter().filter(|stop| text.ends_with(stop.as_str()));
            if let Some(stop) = complete.max_by_key(|stop| stop.len()) {
                let len = text.len() - stop.len();
                self.stopped = true;
                self.pending.truncate(len);
                return std::mem::take(&mut self.pending);
            }
        }
        let may_become_stop = |suffix: &str| self.stops.iter().any(|stop| stop.starts_with(suffix));
        let mut starts = self.pending.char_indices().map(|(start, _)| start);
        let pending_start = starts.find(|&start| may_become_stop(&self.pending[start..]));
        let pending = self.pending.split_off(pending_start.unwrap_or(self.pending.len()));
        std::mem::replace(&mut self.pending, pending)
    }

    /// Ends the text and returns the suffix that was held back.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.pending)
    }

    /// Whether a stop string was found.
    pub fn stopped(&self) -> bool {
        self.stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matcher(stops: &[&str]) -> StopMatcher {
        StopMatcher::new(stops.iter().map(|s| s.to_string()).collect()).unwrap()
    }

    #[test]
    fn prefix_of_stop_string_is_held_back() {
        let mut m = matcher(&["\n\nEnd", "END"]);
        assert_eq!(m.push("a\n"), "a");
        assert_eq!(m.push("\n"), "");
        assert_eq!(m.push("\nE"), "\n");
        assert_eq!(m.push("N"), "\n\n");
        assert_eq!((m.push("DX"), m.stopped()), (String::new(), true));
        assert_eq!((m.push("more"), m.finish()), (String::new(), String::new()));
    }

    #[test]
    fn pending_text_is_returned_by_finish() {
        let mut m = matcher(&["stop"]);
        assert_eq!((m.push("sto"), m.finish(), m.stopped()), (String::new(), "sto".into(), false));
        let mut none = matcher(&[]);
        assert_eq!((none.push("s"), none.finish()), ("s".into(), String::new()));
    }

    #[test]
    fn first_complete_then_longest_stop_string_wins() {
        assert_eq!(matcher(&["abc", "b"]).push("xabc"), "xa");
        assert_eq!(matcher(&["c", "abc", "bc"]).push("xabc"), "x");
    }

    #[test]
    fn empty_stop_string_is_error() {
        let error = StopMatcher::new(vec!["a".into(), String::new()]).unwrap_err().to_string();
        assert_eq!(error, "stop: found an empty string, expected a string of at least one character");
    }

    /// The reference, on the complete text: the earliest end of any stop string, and the longest one there.
    fn truncated<'a>(text: &'a str, stops: &[String]) -> Option<&'a str> {
        let ends = (1..=text.len()).filter(|&end| text.is_char_boundary(end));
        let mut prefixes = ends.map(|end| &text[..end]);
        prefixes.find_map(|prefix| {
            stops.iter().filter_map(|s| prefix.strip_suffix(s.as_str())).min_by_key(|s| s.len())
        })
    }

    proptest! {
        #[test]
        fn chunk_boundaries_do_not_change_output(
            chunks in prop::collection::vec("[abé😀]{0,5}", 0..10),
            stops in prop::collection::vec("[abé😀]{1,4}", 0..4),
        ) {
            let text = chunks.concat();
            let expected = truncated(&text, &stops);
            let chars: Vec<String> = text.chars().map(String::from).collect();
            for chunks in [chunks, chars, vec![text.clone()]] {
                let mut m = StopMatcher::new(stops.clone()).unwrap();
                let mut output = String::new();
                let mut input = String::new();
                for chunk in &chunks {
                    output += &m.push(chunk);
                    input += chunk;
                    // Only a proper prefix of a stop string may be held back.
                    if !m.stopped() {
                        let pending = &input[output.len()..];
                        let is_proper_prefix = |s: &String| s.starts_with(pending) && s != pending;
                        prop_assert!(pending.is_empty() || stops.iter().any(is_proper_prefix));
                    }
                }
                prop_assert_eq!(m.stopped(), expected.is_some());
                output += &m.finish();
                prop_assert_eq!(&output, expected.unwrap_or(&text));
            }
        }
    }
}
