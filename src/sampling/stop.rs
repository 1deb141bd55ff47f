//! Stop strings, across any boundaries the text comes in.

use crate::{Error, Result};

/// Passes text on until a stop string is complete, holding back what may yet become one.
///
/// The stop string that is complete first wins, and the longest of those that end at the same place; the text is cut
/// before it. How the text is cut into pieces makes no difference.
#[derive(Clone, Debug)]
pub struct StopMatcher {
    stops: Vec<String>,
    /// The longest end of the text that begins a stop string.
    held: String,
    stopped: bool,
}

impl StopMatcher {
    /// A matcher at the beginning of a text.
    ///
    /// # Errors
    /// [`Error::Parameter`] where a stop string is empty, for it would be found everywhere.
    pub fn new(stops: Vec<String>) -> Result<Self> {
        if stops.iter().any(String::is_empty) {
            return Err(Error::Parameter {
                name: "stop".into(),
                found: "an empty string".into(),
                expected: "a string of at least one character".into(),
            });
        }
        Ok(Self { stops, held: String::new(), stopped: false })
    }

    /// Takes the next piece of text and returns what may be shown now. After a stop string that is nothing.
    pub fn push(&mut self, piece: &str) -> String {
        if self.stopped {
            return String::new();
        }
        let seen = self.held.len();
        self.held.push_str(piece);
        for (at, c) in piece.char_indices() {
            let text = &self.held[..seen + at + c.len_utf8()];
            let complete = self.stops.iter().filter(|stop| text.ends_with(stop.as_str()));
            if let Some(stop) = complete.max_by_key(|stop| stop.len()) {
                let cut = text.len() - stop.len();
                self.stopped = true;
                self.held.truncate(cut);
                return std::mem::take(&mut self.held);
            }
        }
        let may_become_stop = |end: &str| self.stops.iter().any(|stop| stop.starts_with(end));
        let mut starts = self.held.char_indices().map(|(start, _)| start);
        let hold = starts.find(|&start| may_become_stop(&self.held[start..]));
        let held = self.held.split_off(hold.unwrap_or(self.held.len()));
        std::mem::replace(&mut self.held, held)
    }

    /// Ends the text: what was held back has become nothing and may be shown.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
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
    fn what_may_become_a_stop_string_is_held_back_and_no_more() {
        let mut m = matcher(&["\n\nEnd", "END"]);
        assert_eq!(m.push("a\n"), "a");
        assert_eq!(m.push("\n"), "");
        assert_eq!(m.push("\nE"), "\n");
        assert_eq!(m.push("N"), "\n\n");
        assert_eq!((m.push("DX"), m.stopped()), (String::new(), true));
        assert_eq!((m.push("more"), m.finish()), (String::new(), String::new()));
    }

    #[test]
    fn held_text_is_given_back_at_the_end() {
        let mut m = matcher(&["stop"]);
        assert_eq!((m.push("sto"), m.finish(), m.stopped()), (String::new(), "sto".into(), false));
        let mut none = matcher(&[]);
        assert_eq!((none.push("s"), none.finish()), ("s".into(), String::new()));
    }

    #[test]
    fn the_first_complete_wins_and_the_longest_of_those() {
        assert_eq!(matcher(&["abc", "b"]).push("xabc"), "xa");
        assert_eq!(matcher(&["c", "abc", "bc"]).push("xabc"), "x");
    }

    #[test]
    fn an_empty_stop_string_is_refused() {
        let error = StopMatcher::new(vec!["a".into(), String::new()]).unwrap_err().to_string();
        assert_eq!(error, "stop: found an empty string, expected a string of at least one character");
    }

    /// The definition, on the whole text: the first end of any stop string, and there the longest.
    fn cut<'a>(text: &'a str, stops: &[String]) -> Option<&'a str> {
        let ends = (1..=text.len()).filter(|&end| text.is_char_boundary(end));
        let mut heads = ends.map(|end| &text[..end]);
        heads.find_map(|head| {
            stops.iter().filter_map(|s| head.strip_suffix(s.as_str())).min_by_key(|s| s.len())
        })
    }

    proptest! {
        #[test]
        fn any_pieces_give_what_the_whole_text_gives(
            pieces in prop::collection::vec("[abé😀]{0,5}", 0..10),
            stops in prop::collection::vec("[abé😀]{1,4}", 0..4),
        ) {
            let text = pieces.concat();
            let expected = cut(&text, &stops);
            let chars: Vec<String> = text.chars().map(String::from).collect();
            for pieces in [pieces, chars, vec![text.clone()]] {
                let mut m = StopMatcher::new(stops.clone()).unwrap();
                let mut shown = String::new();
                let mut whole = String::new();
                for piece in &pieces {
                    shown += &m.push(piece);
                    whole += piece;
                    // Nothing is held back that cannot be the beginning of a stop string.
                    if !m.stopped() {
                        let held = &whole[shown.len()..];
                        prop_assert!(held.is_empty() || stops.iter().any(|s| s.starts_with(held) && s != held));
                    }
                }
                prop_assert_eq!(m.stopped(), expected.is_some());
                shown += &m.finish();
                prop_assert_eq!(&shown, expected.unwrap_or(&text));
            }
        }
    }
}
