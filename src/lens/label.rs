//! Printable labels of tokens, with every byte visible.

use crate::Hornbook;

/// Returns a token's label: its text with `·` for a space, `↵` for a line feed and `→` for a tab. Bytes that
/// are not valid UTF-8 on their own, such as part of a character, are written as `\xE2`. Without a tokenizer,
/// the label is the id (`#15`).
///
/// Tokens with different bytes have different labels, unless their text contains these symbols itself.
pub fn label(hornbook: &Hornbook, id: u32) -> String {
    match hornbook.try_tokenizer().map(|tokenizer| tokenizer.token_bytes(id)) {
        None | Some([]) => format!("#{id}"),
        Some(bytes) => label_bytes(bytes),
    }
}

fn label_bytes(bytes: &[u8]) -> String {
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

/// Whether a character is a control, bidirectional, combining, zero-width or whitespace character, which
/// could garble a page or a terminal.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || c.is_whitespace()
        || matches!(c, '\u{AD}' | '\u{61C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}')
        || matches!(c, '\u{2060}'..='\u{206F}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}')
        || matches!(c, '\u{FFF9}'..='\u{FFFB}' | '\u{300}'..='\u{36F}' | '\u{E0000}'..='\u{E0FFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_makes_every_byte_visible() {
        assert_eq!(label_bytes(b" the"), "·the");
        assert_eq!(label_bytes(b"\n\t\r\x07"), "↵→\\u{d}\\u{7}");
        assert_eq!(label_bytes(b"\xE2\x80"), "\\xE2\\x80");
        assert_eq!(label_bytes("é\u{202E}\u{200B}\u{A0}".as_bytes()), "é\\u{202e}\\u{200b}\\u{a0}");
        assert_eq!(label_bytes(b"</script>"), "</script>");
    }
}
