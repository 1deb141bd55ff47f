//! Progress bars on standard error, shown only on a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of `len` steps.
pub fn bar(len: usize) -> ProgressBar {
    with_template(len as u64, "{wide_bar} {pos}/{len} {msg} ({eta} left)")
}

/// A bar of `len` bytes, with the transfer rate.
pub fn bytes(len: u64) -> ProgressBar {
    with_template(len, "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
}

/// A block of lines instead of a bar: its message, drawn again in its place.
pub fn block() -> ProgressBar {
    with_template(0, "{msg}")
}

/// A bar without colors, as wide as the terminal.
fn with_template(len: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(len).with_style(style) // drawn on standard error, only on a terminal
}
