//! A token as it can be shown: every byte visible.

use crate::Hornbook;

/// A token's label: its text with a dot for a space and arrows for line feed and tab; bytes that are no text
/// on their own, such as half a character, as `\xE2`. An id alone (`#15`) where there is no text.
///
/// Two tokens of different bytes have different labels, but for those whose text holds these signs themselves.
pub fn label(hornbook: &Hornbook, id: u32) -> String {
    match hornbook.try_tokenizer().map(|tokenizer| tokenizer.token_bytes(id)) {
        None | Some([]) => format!("#{id}"),
        Some(bytes) => of_bytes(bytes),
    }
}

fn of_bytes(bytes: &[u8]) -> String {
    let mut label = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                ' ' => label.push('·'),
                '\n' => label.push('↵'),
                '\t' => label.push('→'),
                c if is_invisible(c) => c.escape_unicode().for_each(|c| label.push(c)),
                c => label.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| label += &format!("\\x{byte:02X}"));
    }
    label
}

/// Control characters, and what turns or joins its neighbours or takes no room: all that could play tricks on a page.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || c.is_whitespace()
        || matches!(c, '\u{AD}' | '\u{61C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}')
        || matches!(c, '\u{2060}'..='\u{206F}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}')
        || matches!(c, '\u{300}'..='\u{36F}' | '\u{E0000}'..='\u{E0FFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_shows() {
        assert_eq!(of_bytes(b" the"), "·the");
        assert_eq!(of_bytes(b"\n\t\r\x07"), "↵→\\u{d}\\u{7}");
        assert_eq!(of_bytes(b"\xE2\x80"), "\\xE2\\x80");
        assert_eq!(of_bytes("é\u{202E}\u{200B}\u{A0}".as_bytes()), "é\\u{202e}\\u{200b}\\u{a0}");
        assert_eq!(of_bytes(b"</script>"), "</script>");
    }
}
