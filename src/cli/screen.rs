//! What there is to draw on: so many columns, with colours or without.

use crate::{Error, Result};
use console::{Style, Term, measure_text_width, pad_str, truncate_str};

/// Fewer columns hold no two tokens side by side.
const NARROWEST: usize = 40;
/// Where nobody says how wide.
const USUAL: usize = 100;

/// Colours of the 256 that terminals share, from nothing to everything: dark purple to pale yellow.
const RAMP: [u8; 10] = [235, 53, 90, 126, 162, 204, 209, 215, 222, 229];
/// From here on the ramp is light, and what is written on it has to be dark.
const LIGHT: usize = 5;
/// The same without colours.
const SHADES: [char; 5] = ['·', '░', '▒', '▓', '█'];
const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// Columns and colours.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    pub width: usize,
    pub colour: bool,
}

impl Screen {
    /// As wide as was asked for, or as the terminal is.
    pub fn new(width: Option<usize>) -> Result<Self> {
        if let Some(found) = width.filter(|&width| width < NARROWEST) {
            return Err(Error::Parameter {
                name: "--width".into(),
                found: found.to_string(),
                expected: format!("at least {NARROWEST}"),
            });
        }
        let of_terminal = || Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
        let width = width.or_else(of_terminal).unwrap_or(USUAL).max(NARROWEST);
        let refused = std::env::var_os("NO_COLOR").is_some_and(|no| !no.is_empty());
        Ok(Self { width, colour: console::colors_enabled() && !refused })
    }

    /// A section's title, and what is to be known about it.
    pub fn title(self, title: &str, note: &str) -> String {
        let bold = self.bold(title);
        if measure_text_width(title) + 3 + measure_text_width(note) <= self.width {
            return format!("{bold}   {}\n", self.dim(note));
        }
        format!("{bold}\n{}", self.note(note))
    }

    /// A remark, folded into the width.
    pub fn note(self, note: &str) -> String {
        let mut lines = vec![String::new()];
        for word in note.split(' ') {
            let Some(line) = lines.last_mut() else { break };
            if line.is_empty() {
                *line = word.into();
            } else if measure_text_width(line) + 1 + measure_text_width(word) <= self.width {
                *line += &format!(" {word}");
            } else {
                lines.push(word.into());
            }
        }
        lines.iter().map(|line| self.dim(line) + "\n").collect()
    }

    pub fn dim(self, text: &str) -> String {
        self.styled(text, Style::new().dim())
    }

    pub fn bold(self, text: &str) -> String {
        self.styled(text, Style::new().bold())
    }

    /// Text on the colour of a share from 0 to 1; as it is without colours.
    pub fn on_heat(self, text: &str, share: f32) -> String {
        // The root lets small shares be told apart.
        let step = ((share.clamp(0.0, 1.0).sqrt() * RAMP.len() as f32) as usize).min(RAMP.len() - 1);
        let ink = if step < LIGHT { 255 } else { 16 };
        self.styled(text, Style::new().color256(ink).on_color256(RAMP[step]))
    }

    /// A bar of a share of `columns`, from 0 to 1, for or against.
    pub fn bar(self, share: f32, columns: usize, against: bool) -> String {
        let eighths = (share.clamp(0.0, 1.0) * (columns * 8) as f32).round() as usize;
        let mut bar = "█".repeat(eighths / 8);
        bar.extend(EIGHTHS.get((eighths % 8).wrapping_sub(1)));
        self.styled(&bar, Style::new().color256(if against { 203 } else { 75 }))
    }

    fn styled(self, text: &str, style: Style) -> String {
        match self.colour {
            true => style.force_styling(true).apply_to(text).to_string(),
            false => text.into(),
        }
    }
}

/// A block character for a share from 0 to 1.
pub fn shade(share: f32) -> char {
    match share {
        0.7.. => SHADES[4],
        0.4.. => SHADES[3],
        0.15.. => SHADES[2],
        0.03.. => SHADES[1],
        _ => SHADES[0],
    }
}

/// A label in exactly so many columns.
pub fn fit(label: &str, columns: usize) -> String {
    pad_str(&truncate_str(label, columns, "…"), columns, console::Alignment::Left, None).into_owned()
}

/// How many columns a label takes.
pub fn columns(label: &str) -> usize {
    measure_text_width(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_grow_by_eighths_of_a_column() {
        let screen = Screen { width: 40, colour: false };
        assert_eq!(screen.bar(0.0, 4, false), "");
        assert_eq!(screen.bar(1.0 / 32.0, 4, false), "▏");
        assert_eq!(screen.bar(0.5, 4, true), "██");
        assert_eq!(screen.bar(0.9, 4, false), "███▋");
        assert_eq!(screen.bar(7.0, 4, false), "████");
    }

    #[test]
    fn labels_fit_whatever_they_hold() {
        assert_eq!(fit("·cat", 6), "·cat  ");
        assert_eq!(fit("·because", 5), "·bec…");
        assert_eq!(columns(&fit("日本語日本語", 5)), 5);
    }

    #[test]
    fn colours_come_only_where_they_are_wanted() {
        let plain = Screen { width: 80, colour: false };
        assert_eq!(plain.on_heat("x", 0.5), "x");
        assert_eq!(plain.title("a", "b"), "a   b\n");
        let colour = Screen { width: 80, colour: true };
        assert!(colour.on_heat("x", 0.5).starts_with("\x1b["));
        assert_eq!(columns(&colour.on_heat("x", 0.5)), 1);
    }
}
