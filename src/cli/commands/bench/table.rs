//! Formatting shared by the reports: aligned columns, rounded values, the processor's name.

use crate::Result;
use crate::cli::output::stdout::{write_json, write_line};
use serde_json::Value;

/// Pads columns to their widest cell; those in `left` are left-aligned, the others right-aligned.
pub fn align_columns<const N: usize>(cells: &[[String; N]], left: &[usize]) -> String {
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cell = |column: usize| {
            let (text, width) = (&row[column], widths[column]);
            if left.contains(&column) { format!("{text:width$}") } else { format!("{text:>width$}") }
        };
        let line: Vec<_> = (0..N).map(cell).collect();
        line.join("  ").trim_end().to_string() + "\n"
    };
    cells.iter().map(line).collect()
}

/// Pairs the names of a report's fields with a row's values.
pub fn named<const N: usize>(names: [&str; N], values: [Value; N]) -> [(String, Value); N] {
    let mut names = names.into_iter();
    values.map(|value| (names.next().unwrap_or_default().to_string(), value))
}

/// Formats one line of comma-separated values; an array is a field of values separated by spaces.
pub fn csv_line(values: impl IntoIterator<Item = Value>) -> String {
    fn text(value: Value) -> String {
        match value {
            Value::Null => String::new(),
            Value::String(text) => text,
            Value::Array(values) => values.into_iter().map(text).collect::<Vec<_>>().join(" "),
            other => other.to_string(),
        }
    }
    values.into_iter().map(text).collect::<Vec<_>>().join(",")
}

/// Prints a report on standard output.
pub fn print(text: &str) -> Result<()> {
    write_line(text.trim_end())
}

/// Prints a report in the form that was asked for: JSON, comma-separated values, or else a table.
pub fn print_as(
    is_json: bool,
    is_csv: bool,
    json: impl FnOnce() -> Value,
    csv: impl FnOnce() -> String,
    table: impl FnOnce() -> String,
) -> Result<()> {
    match (is_json, is_csv) {
        (true, _) => write_json(&json()),
        (_, true) => print(&csv()),
        _ => print(&table()),
    }
}

/// Rounds to `digits` decimals.
pub fn round(x: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (x * scale).round() / scale
}

/// Rounds to four significant digits.
pub fn round_significant(x: f64) -> f64 {
    if x == 0.0 || !x.is_finite() { x } else { round(x, 3 - x.abs().log10().floor() as i32) }
}

/// Formats bytes with a binary unit.
pub fn format_bytes(n: usize) -> String {
    let units = ["B", "KiB", "MiB", "GiB"];
    let unit = (n.max(1).ilog2() / 10).min(3) as usize;
    let value = n as f64 / (1u64 << (10 * unit)) as f64;
    let digits = usize::from(unit > 0 && value < 100.0);
    format!("{value:.digits$} {}", units[unit])
}

/// Formats a fraction as a percentage, without the sign.
pub fn format_percent(fraction: f64) -> String {
    format!("{:.1}", 100.0 * fraction)
}

/// The share of a measured peak above which the machine was disturbed while one of the two was measured.
const MAX_SHARE_OF_PEAK: f64 = 1.05;

/// Whether a share of the peak is impossible.
pub fn is_disturbed(share_of_peak: f64) -> bool {
    share_of_peak > MAX_SHARE_OF_PEAK
}

/// Formats a share of the peak as a percentage, with a mark if it is impossible, and counts the marks.
pub fn format_share_of_peak(fraction: f64, disturbed: &mut usize) -> String {
    let is_disturbed = is_disturbed(fraction);
    *disturbed += usize::from(is_disturbed);
    format_percent(fraction) + if is_disturbed { "*" } else { "" }
}

/// Returns the note on marked shares, if there are any.
pub fn disturbance_note(disturbed: usize) -> &'static str {
    match disturbed {
        0 => "",
        _ => "* More than the measured peak: the machine was disturbed in this minute. Measure again.\n",
    }
}

/// Formats seconds as µs, ms or s.
pub fn format_time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.1} µs", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

/// Returns the note below a table of medians.
pub fn footnote(outliers: usize) -> String {
    let mut text = "Values are medians; IQR is the interquartile range.".to_string();
    if outliers > 0 {
        let plural = if outliers == 1 { "" } else { "s" };
        text += &format!(" {outliers} outlier{plural}: the machine may have been busy.");
    }
    text
}

/// Returns the processor's model name, or the architecture where the system does not report one.
pub fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_string(), |(_, name)| name.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_above_peak_is_marked() {
        let mut disturbed = 0;
        let shares = [0.93, 1.05, 1.062].map(|share| format_share_of_peak(share, &mut disturbed));
        assert_eq!((shares, disturbed), (["93.0", "105.0", "106.2*"].map(String::from), 1));
        assert!(disturbance_note(0).is_empty() && disturbance_note(1).contains("disturbed"));
    }

    #[test]
    fn bytes_and_times_are_formatted_with_fitting_units() {
        assert_eq!(
            [0, 1023, 1536, 300 << 10, 3 << 30].map(format_bytes),
            ["0 B", "1023 B", "1.5 KiB", "300 KiB", "3.0 GiB"]
        );
        assert_eq!([2.5e-5, 0.0123, 1.5].map(format_time), ["25.0 µs", "12.30 ms", "1.50 s"]);
        assert_eq!([1.23456e-7, 98765.0, 0.0].map(round_significant), [1.235e-7, 98770.0, 0.0]);
    }
}
