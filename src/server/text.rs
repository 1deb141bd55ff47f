//! Short texts in messages and headers.

use std::borrow::Cow;
use std::time::Duration;

/// Returns the first characters of a text, with an ellipsis in place of the rest.
pub fn shorten(text: &str, max_chars: usize) -> Cow<'_, str> {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// Formats a duration as OpenAI's headers do: `12ms`, `1s`, `6m0s`.
pub fn format_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    if milliseconds < 1000 {
        return format!("{milliseconds}ms");
    }
    let seconds = duration.as_secs() + u64::from(duration.subsec_millis() > 0);
    match seconds / 60 {
        0 => format!("{seconds}s"),
        minutes => format!("{minutes}m{}s", seconds % 60),
    }
}
