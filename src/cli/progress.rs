//! Progress bars on standard error, where that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of `len` steps.
pub fn bar(len: usize) -> ProgressBar {
    with_template(len as u64, "{wide_bar} {pos}/{len} {msg} ({eta} left)")
}

/// A bar of `len` bytes, with how fast they come.
pub fn bytes(len: u64) -> ProgressBar {
    with_template(len, "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
}

/// Without colours; as wide as the terminal, and hidden where nobody would see it.
fn with_template(len: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(len).with_style(style) // draws on standard error, and only on a terminal
}
