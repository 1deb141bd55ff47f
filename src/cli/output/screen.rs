//! Width and colors of the terminal, and the drawing primitives of tables, bars and heat maps.

use crate::{Error, Result};
use console::{Style, Term, measure_text_width, pad_str, truncate_str};

/// Fewer columns do not hold two tokens side by side.
const MIN_WIDTH: usize = 40;
/// More columns are a typing error.
const MAX_WIDTH: usize = 10_000;
/// The width if standard output is not a terminal.
const DEFAULT_WIDTH: usize = 100;

/// Color ramp for values from 0 to 1, dark purple to pale yellow, in the 256-color palette.
const HEAT_RAMP: [u8; 10] = [235, 53, 90, 126, 162, 204, 209, 215, 222, 229];
/// The first step of the ramp that is light enough to need dark text.
const FIRST_LIGHT_STEP: usize = 5;
/// The ramp without colors.
const SHADES: [char; 5] = ['·', '░', '▒', '▓', '█'];
const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// Width in columns, and whether colors are used.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    pub width: usize,
    pub color: bool,
}

impl Screen {
    /// A screen of the given width, or as wide as the terminal.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a width below 40 or above 10,000 columns.
    pub fn new(width: Option<usize>) -> Result<Self> {
        if let Some(found) = width.filter(|width| !(MIN_WIDTH..=MAX_WIDTH).contains(width)) {
            return Err(Error::Parameter {
                name: "--width".into(),
                found: found.to_string(),
                expected: format!("{MIN_WIDTH} to {MAX_WIDTH}"),
            });
        }
        let width = width.or_else(terminal_width).unwrap_or(DEFAULT_WIDTH).max(MIN_WIDTH);
        Ok(Self { width, color: console::colors_enabled() && !no_color() })
    }

    /// The terminal that standard error is; none if it is something else.
    pub fn of_stderr() -> Option<Self> {
        let stderr = Term::stderr();
        let width = stderr.size_checked().map_or(DEFAULT_WIDTH, |(_, columns)| usize::from(columns));
        let color = console::colors_enabled_stderr() && !no_color();
        stderr.is_term().then_some(Self { width, color })
    }

    /// A section's title with a note, on one line if both fit.
    pub fn title(self, title: &str, note: &str) -> String {
        let bold = self.bold(title);
        if measure_text_width(title) + 3 + measure_text_width(note) <= self.width {
            return format!("{bold}   {}\n", self.dim(note));
        }
        format!("{bold}\n{}", self.note(note))
    }

    /// A note, wrapped to the width.
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

    /// Text in the color of what stands out from bars.
    pub fn highlight(self, text: &str) -> String {
        self.styled(text, Style::new().color256(209))
    }

    pub fn bold(self, text: &str) -> String {
        self.styled(text, Style::new().bold())
    }

    /// Text on the heat color of a value from 0 to 1; plain text without colors.
    pub fn on_heat_color(self, text: &str, value: f32) -> String {
        // The square root spreads small values.
        let step = (value.clamp(0.0, 1.0).sqrt() * HEAT_RAMP.len() as f32) as usize;
        let step = step.min(HEAT_RAMP.len() - 1);
        let foreground = if step < FIRST_LIGHT_STEP { 255 } else { 16 };
        self.styled(text, Style::new().color256(foreground).on_color256(HEAT_RAMP[step]))
    }

    /// A bar that fills a fraction of `columns`, from 0 to 1, in the color of a negative or positive value.
    pub fn bar(self, fraction: f32, columns: usize, negative: bool) -> String {
        let eighths = (fraction.clamp(0.0, 1.0) * (columns * 8) as f32).round() as usize;
        let mut bar = "█".repeat(eighths / 8);
        bar.extend(EIGHTHS.get((eighths % 8).wrapping_sub(1)));
        self.styled(&bar, Style::new().color256(if negative { 203 } else { 75 }))
    }

    fn styled(self, text: &str, style: Style) -> String {
        match self.color {
            true => style.force_styling(true).apply_to(text).to_string(),
            false => text.into(),
        }
    }
}

/// Whether the user wants no colors (<https://no-color.org>).
fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// The width of the terminal, if standard output is one.
pub fn terminal_width() -> Option<usize> {
    let stdout = Term::stdout();
    stdout.is_term().then(|| stdout.size_checked().map_or(DEFAULT_WIDTH, |(_, columns)| usize::from(columns)))
}

/// The block character for a value from 0 to 1.
pub fn shade(value: f32) -> char {
    match value {
        0.7.. => SHADES[4],
        0.4.. => SHADES[3],
        0.15.. => SHADES[2],
        0.03.. => SHADES[1],
        _ => SHADES[0],
    }
}

/// Pads or truncates a label to a width in columns.
pub fn fit_to_width(label: &str, columns: usize) -> String {
    pad_str(&truncate_str(label, columns, "…"), columns, console::Alignment::Left, None).into_owned()
}

/// The width of a label in columns.
pub fn display_width(label: &str) -> usize {
    measure_text_width(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_has_resolution_of_an_eighth_column() {
        let screen = Screen { width: 40, color: false };
        assert_eq!(screen.bar(0.0, 4, false), "");
        assert_eq!(screen.bar(1.0 / 32.0, 4, false), "▏");
        assert_eq!(screen.bar(0.5, 4, true), "██");
        assert_eq!(screen.bar(0.9, 4, false), "███▋");
        assert_eq!(screen.bar(7.0, 4, false), "████");
    }

    #[test]
    fn label_is_padded_or_truncated_by_display_width() {
        assert_eq!(fit_to_width("·cat", 6), "·cat  ");
        assert_eq!(fit_to_width("·because", 5), "·bec…");
        assert_eq!(display_width(&fit_to_width("日本語日本語", 5)), 5);
    }

    #[test]
    fn escape_codes_appear_only_with_color() {
        let plain = Screen { width: 80, color: false };
        assert_eq!(plain.on_heat_color("x", 0.5), "x");
        assert_eq!(plain.title("a", "b"), "a   b\n");
        let colored = Screen { width: 80, color: true };
        assert!(colored.on_heat_color("x", 0.5).starts_with("\x1b["));
        assert_eq!(display_width(&colored.on_heat_color("x", 0.5)), 1);
    }
}
