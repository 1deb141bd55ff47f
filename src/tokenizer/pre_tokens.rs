//! The pre-tokenizer: splits a text into pre-tokens (words).
//!
//! The steps are those of the `tokenizers` crate, except for splits by a regular expression: the crate stops
//! at an error of its backtracking engine and leaves the rest of the text unsplit. Here, GPT-2's pattern is
//! matched without backtracking, and an error of any other pattern is returned.

use std::sync::LazyLock;

use fancy_regex::Regex as FancyRegex;
use regex::Regex;
use tokenizers::pattern::{Invert, Pattern};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::split::SplitPattern;
use tokenizers::{
    Offsets, PreTokenizedString, PreTokenizer as _, PreTokenizerWrapper, SplitDelimiterBehavior,
};

/// A step of the pre-tokenizer.
enum Step {
    /// A split by a regular expression.
    Split { pattern: FancyRegex, behavior: SplitDelimiterBehavior, invert: bool },
    /// GPT-2's split and its mapping of bytes to characters.
    ByteLevel { add_prefix_space: bool, use_regex: bool },
    /// Any other step.
    Other(PreTokenizerWrapper),
}

/// The steps of a pre-tokenizer, in order.
#[derive(Default)]
pub struct PreTokenizer(Vec<Step>);

impl PreTokenizer {
    /// Resolves a pre-tokenizer of the `tokenizers` crate into its steps.
    ///
    /// # Errors
    /// An invalid regular expression.
    pub fn new(pre_tokenizer: PreTokenizerWrapper) -> tokenizers::Result<Self> {
        let mut steps = Self::default();
        steps.push(pre_tokenizer)?;
        Ok(steps)
    }

    fn push(&mut self, pre_tokenizer: PreTokenizerWrapper) -> tokenizers::Result<()> {
        let step = match pre_tokenizer {
            PreTokenizerWrapper::Sequence(steps) => {
                return steps.as_ref().iter().try_for_each(|step| self.push(step.clone()));
            }
            PreTokenizerWrapper::ByteLevel(ByteLevel { add_prefix_space, use_regex, .. }) => {
                Step::ByteLevel { add_prefix_space, use_regex }
            }
            PreTokenizerWrapper::Split(split) => match &split.pattern {
                SplitPattern::Regex(pattern) => Step::Split {
                    pattern: FancyRegex::new(pattern)?,
                    behavior: split.behavior,
                    invert: split.invert,
                },
                SplitPattern::String(_) => Step::Other(PreTokenizerWrapper::Split(split)),
            },
            other => Step::Other(other),
        };
        self.0.push(step);
        Ok(())
    }

    /// Whether a step maps bytes to characters, as GPT-2's does.
    pub fn is_byte_level(&self) -> bool {
        self.0.iter().any(|step| matches!(step, Step::ByteLevel { .. }))
    }

    /// Whether there is no other step, so that no part of a text is removed.
    pub fn is_byte_level_alone(&self) -> bool {
        matches!(self.0[..], [Step::ByteLevel { .. }])
    }

    /// Whether it is GPT-2's: its pattern, and no other step.
    pub fn is_gpt2(&self) -> bool {
        matches!(self.0[..], [Step::ByteLevel { use_regex: true, .. }])
    }

    /// Splits a text.
    ///
    /// # Errors
    /// A regular expression that exceeds its limits on this text.
    pub fn split(&self, text: &mut PreTokenizedString) -> tokenizers::Result<()> {
        for step in &self.0 {
            match step {
                Step::Split { pattern, behavior, invert: true } => {
                    text.split(|_, part| part.split(Invert(pattern), *behavior))?;
                }
                Step::Split { pattern, behavior, invert: false } => {
                    text.split(|_, part| part.split(pattern, *behavior))?;
                }
                Step::ByteLevel { add_prefix_space, use_regex } => {
                    text.split(|_, mut part| {
                        if *add_prefix_space && !part.get().starts_with(' ') {
                            part.prepend(" ");
                        }
                        match use_regex {
                            true => part.split(Gpt2Pattern, SplitDelimiterBehavior::Isolated),
                            false => Ok(vec![part]),
                        }
                    })?;
                    ByteLevel::new(false, true, false).pre_tokenize(text)?; // the mapping alone
                }
                Step::Other(step) => step.pre_tokenize(text)?,
            }
        }
        Ok(())
    }
}

/// GPT-2's pattern: `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
///
/// `\s+(?!\S)` matches white space up to its last character if more text follows, and all of it at the end.
/// An automaton matches `\s+`, in linear time, and the last character is given back.
struct Gpt2Pattern;

static WITHOUT_LOOKAHEAD: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";
    Regex::new(pattern).expect("a valid pattern")
});

impl Pattern for Gpt2Pattern {
    fn find_matches(&self, text: &str) -> tokenizers::Result<Vec<(Offsets, bool)>> {
        let mut matches = vec![];
        let mut start = 0;
        while let Some(found) = WITHOUT_LOOKAHEAD.find_at(text, start) {
            let mut end = found.end();
            let last = found.as_str().chars().next_back().map_or(0, |c| match c.is_whitespace() {
                true => c.len_utf8(),
                false => 0,
            });
            if end < text.len() && last < found.len() {
                end -= last;
            }
            matches.push(((start, end), true)); // the alternatives cover every character
            start = end;
        }
        Ok(matches)
    }
}
