//! The roofline as it is usually drawn (Williams, Waterman and Patterson 2009): an operation's arithmetic
//! intensity against its speed, under the lower of two limits, memory bandwidth and peak throughput.

use crate::bench::Roofline;
use crate::cli::commands::bench::chart::escape;
use std::fmt::Write;

/// The size of a plot with its labels, in pixels.
pub const SIZE: (usize, usize) = (370, 330);
const LEFT: f64 = 52.0;
const TOP: f64 = 26.0;
/// The size within the axes.
const PLOT: (f64, f64) = (290.0, 250.0);
/// The distance between two labels, so that they do not overlap.
const LABEL_HEIGHT: f64 = 11.0;

/// A logarithmic axis in whole powers of ten.
struct Axis {
    first: i32,
    last: i32,
    length: f64,
}

impl Axis {
    /// An axis that contains all values.
    fn around(values: impl Iterator<Item = f64>, length: f64) -> Self {
        let logs = values.filter(|value| *value > 0.0).map(f64::log10);
        let (low, high) = logs.fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(x), high.max(x)));
        let (first, last) = (low.floor() as i32, high.ceil() as i32);
        Self { first, last: last.max(first + 1), length }
    }

    /// The distance from the start of the axis.
    fn position(&self, value: f64) -> f64 {
        (value.log10() - f64::from(self.first)) / f64::from(self.last - self.first) * self.length
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        (self.first..=self.last).map(|exponent| 10f64.powi(exponent))
    }
}

/// Draws a step's operations, with the upper left corner at (`x`, `y`). Operations without FLOPs, such as
/// copies, have no intensity and are left out.
pub fn draw(svg: &mut String, step: &Roofline, title: &str, x: usize, y: usize) {
    let operations: Vec<_> = step.operations.iter().filter(|operation| operation.flops > 0.0).collect();
    let points: Vec<(f64, f64)> = operations
        .iter()
        .map(|operation| (operation.flops / operation.bytes, operation.flops / operation.seconds / 1e9))
        .collect();
    let (bandwidth, peak) = (step.limits.bandwidth / 1e9, step.limits.peak / 1e9);
    let ridge = peak / bandwidth; // the intensity from which the peak is the lower limit
    let x_axis = Axis::around(points.iter().map(|point| point.0).chain([ridge * 2.0]), PLOT.0);
    let y_axis = Axis::around(points.iter().map(|point| point.1).chain([peak]), PLOT.1);
    let place = |intensity: f64, gflops: f64| {
        (LEFT + x_axis.position(intensity), TOP + PLOT.1 - y_axis.position(gflops))
    };
    let _ = writeln!(
        svg,
        "<g transform=\"translate({x} {y})\"><text x=\"{LEFT}\" y=\"14\" class=\"panel\">{}</text>",
        escape(title)
    );
    for tick in x_axis.ticks() {
        let at = LEFT + x_axis.position(tick);
        let (bottom, label) = (TOP + PLOT.1, TOP + PLOT.1 + 16.0);
        let _ = writeln!(
            svg,
            "<path d=\"M{at:.1} {TOP}V{bottom}\" class=\"grid\"/>\
             <text x=\"{at:.1}\" y=\"{label}\" text-anchor=\"middle\" class=\"tick\">{tick}</text>"
        );
    }
    for tick in y_axis.ticks() {
        let at = TOP + PLOT.1 - y_axis.position(tick);
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {at:.1}h{}\" class=\"grid\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" class=\"tick\">{tick}</text>",
            PLOT.0,
            LEFT - 6.0,
            at + 4.0
        );
    }
    let left = (10f64.powi(y_axis.first) / bandwidth).max(10f64.powi(x_axis.first));
    let (start, corner) = (place(left, left * bandwidth), place(ridge, peak));
    let _ = writeln!(
        svg,
        "<path d=\"M{:.1} {:.1}L{:.1} {:.1}H{}\" class=\"axis\"/>\
         <text x=\"{LEFT}\" y=\"{}\" class=\"note\">FLOP per byte (across), GFLOP/s (up)</text>",
        start.0,
        start.1,
        corner.0,
        corner.1,
        LEFT + PLOT.0,
        TOP + PLOT.1 + 34.0
    );
    let mut labels: Vec<(f64, f64)> = vec![];
    for (operation, point) in operations.iter().zip(&points) {
        let (cx, cy) = place(point.0, point.1);
        let class = if step.bound(operation).1 { "bar memory" } else { "bar" };
        let anchor = if cx > LEFT + PLOT.0 * 0.6 { "end" } else { "start" };
        let label_x = if anchor == "end" { cx - 7.0 } else { cx + 7.0 };
        let mut label_y = cy + 4.0;
        let overlaps = |y: f64| {
            labels.iter().any(|label| (label.1 - y).abs() < LABEL_HEIGHT && (label.0 - cx).abs() < 90.0)
        };
        while overlaps(label_y) {
            label_y += LABEL_HEIGHT;
        }
        labels.push((cx, label_y));
        let _ = writeln!(
            svg,
            "<circle cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"4\" class=\"{class}\"/>\
             <text x=\"{label_x:.1}\" y=\"{label_y:.1}\" text-anchor=\"{anchor}\" class=\"tick\">{}</text>",
            escape(operation.name)
        );
    }
    *svg += "</g>\n";
}
