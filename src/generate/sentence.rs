//! Sentence ends in generated text.

/// Abbreviations whose period does not end a sentence.
const ABBREVIATIONS: [&str; 8] = ["Mr", "Mrs", "Ms", "Dr", "St", "No", "vs", "etc"];

/// Whether a text ends with a sentence. With `closed_quotes`, a sentence within an open quotation is not
/// enough.
pub(super) fn ends_with_sentence(text: &str, closed_quotes: bool) -> bool {
    let text = text.trim_end();
    let closers = |c: char| matches!(c, '"' | '\'' | ')' | ']' | '”' | '’' | '»' | '」');
    let sentence = text.trim_end_matches(closers);
    let Some(last) = sentence.chars().next_back() else { return false };
    if !matches!(last, '.' | '!' | '?' | '…' | '。' | '！' | '？') {
        return false;
    }
    let word =
        sentence.trim_end_matches('.').rsplit(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    let is_initial = word.len() == 1 && word != "I" && word.chars().all(char::is_uppercase);
    if last == '.' && (ABBREVIATIONS.contains(&word) || is_initial) {
        return false;
    }
    let paragraph = text.rsplit("\n\n").next().unwrap_or_default();
    let count = |quote: char| paragraph.matches(quote).count();
    !closed_quotes || (count('"') % 2 == 0 && count('“') == count('”'))
}

#[cfg(test)]
mod tests {
    use super::ends_with_sentence;

    #[test]
    fn sentence_ends_with_punctuation_outside_quotes() {
        for (text, strict, loose) in [
            ("", false, false),
            ("The king was old", false, false),
            ("The king was old.", true, true),
            ("The king was old!\n\n", true, true),
            ("\"Who are you?\"", true, true),
            ("\"Who are you?", false, true),
            ("\"Who are you?\" asked the king,", false, false),
            ("“Come in.", false, true),
            ("“Come in.”", true, true),
            ("\"Open.\n\n\"I am here.\"", true, true),
            ("She saw Mr.", false, false),
            ("J. R.", false, false),
            ("It was I.", true, true),
            ("(He slept.)", true, true),
            ("And then…", true, true),
            ("...", true, true),
        ] {
            assert_eq!(ends_with_sentence(text, true), strict, "{text:?}");
            assert_eq!(ends_with_sentence(text, false), loose, "{text:?}");
        }
    }
}
