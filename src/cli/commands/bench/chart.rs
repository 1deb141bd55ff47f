//! SVG line charts on two logarithmic axes. Readable in light and dark mode, and without color: every line
//! has its own dash pattern.

use super::table::format_time;
use std::fmt::Write;

/// Adjacent panels that share a legend.
pub struct Chart {
    pub title: String,
    /// The machine.
    pub note: String,
    pub panels: Vec<Panel>,
}

/// Lines over one pair of axes.
pub struct Panel {
    pub title: String,
    pub lines: Vec<Line>,
}

/// Points from left to right.
pub struct Line {
    pub name: String,
    pub points: Vec<Point>,
}

/// A measured time.
#[derive(Clone, Copy)]
pub struct Point {
    pub tokens: f64,
    pub seconds: f64,
    /// The interquartile range in seconds.
    pub iqr: f64,
}

const STYLE: &str = "<style>
  svg { color: #1f2328; background: #ffffff; font: 12px system-ui, sans-serif }
  text { fill: currentColor }
  .title { font-size: 15px; font-weight: 600 }
  .panel { font-weight: 600 }
  .note, .tick { opacity: .75; font-size: 11px }
  .grid { stroke: currentColor; stroke-opacity: .13 }
  .axis { stroke: currentColor; stroke-opacity: .6; fill: none }
  .line { fill: none; stroke-width: 1.8; stroke-linejoin: round }
  .whisker { stroke-width: 1 }
  .c0 { stroke: #0072b2; fill: #0072b2 } .c1 { stroke: #d55e00; fill: #d55e00 }
  .c2 { stroke: #00835f; fill: #00835f }
  .c3 { stroke: #a6447f; fill: #a6447f } .c4 { stroke: #8a6d00; fill: #8a6d00 }
  .c5 { stroke: #56707f; fill: #56707f }
  .c6 { stroke: #5c3fb3; fill: #5c3fb3 } .c7 { stroke: #b3202c; fill: #b3202c }
  .line.c0, .line.c1, .line.c2, .line.c3, .line.c4, .line.c5, .line.c6, .line.c7 { fill: none }
  .bar { fill: #8196ab } .bar.memory { fill: #d9822b } .limit { fill: currentColor; fill-opacity: .8 }
  @media (prefers-color-scheme: dark) {
    svg { color: #e6edf3; background: #0d1117 }
    .c0 { stroke: #56b4e9; fill: #56b4e9 } .c1 { stroke: #ff8c42; fill: #ff8c42 }
    .c2 { stroke: #2fc49a; fill: #2fc49a }
    .c3 { stroke: #e28fc0; fill: #e28fc0 } .c4 { stroke: #e6c84a; fill: #e6c84a }
    .c5 { stroke: #9fb4c0; fill: #9fb4c0 }
    .c6 { stroke: #a993f0; fill: #a993f0 } .c7 { stroke: #ff7b84; fill: #ff7b84 }
    .bar { fill: #62788f } .bar.memory { fill: #f0a04b }
  }
</style>
";
const COLORS: usize = 8;
/// Dash patterns; with the colors, which repeat after eight, they distinguish 40 lines.
const DASHES: [&str; 5] = ["", "7 3", "2 3", "9 3 2 3", "4 2"];

/// Returns the opening of an SVG document of this size, with style and title.
pub fn open_svg(width: usize, height: usize, title: &str) -> String {
    let title = escape(title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\">\n<title>{title}</title>\n{STYLE}\
         <text x=\"16\" y=\"28\" class=\"title\">{title}</text>\n"
    )
}

/// Escapes text for SVG.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const COLUMNS: usize = 2;
/// The size of a panel with its labels, and of the plot within, in pixels.
const PANEL: (usize, usize) = (440, 330);
const PLOT: (f64, f64) = (350.0, 240.0);
const LEFT: f64 = 70.0;
const TOP: f64 = 28.0;
const LEGEND_COLUMN: usize = 140;

impl Chart {
    /// Returns the SVG document.
    pub fn svg(&self) -> String {
        let mut names: Vec<&str> = vec![];
        for line in self.panels.iter().flat_map(|panel| &panel.lines) {
            if !names.contains(&line.name.as_str()) {
                names.push(&line.name);
            }
        }
        let columns = self.panels.len().clamp(1, COLUMNS);
        let width = 16 + columns * PANEL.0;
        let in_row = (width - 32) / LEGEND_COLUMN;
        let header = 64 + 20 * names.len().div_ceil(in_row);
        let height = header + self.panels.len().div_ceil(columns) * PANEL.1 + 8;
        let mut svg = open_svg(width, height, &self.title);
        let _ = writeln!(svg, "<text x=\"16\" y=\"46\" class=\"note\">{}</text>", escape(&self.note));
        for (i, name) in names.iter().enumerate() {
            let (x, y) = (16 + i % in_row * LEGEND_COLUMN, 66 + i / in_row * 20);
            let _ = writeln!(
                svg,
                "<path d=\"M{x} {y}h28\" {}/><text x=\"{}\" y=\"{}\">{}</text>",
                stroke(i),
                x + 34,
                y + 4,
                escape(name)
            );
        }
        for (i, panel) in self.panels.iter().enumerate() {
            let (x, y) = (16 + i % columns * PANEL.0, header + i / columns * PANEL.1);
            let _ = writeln!(svg, "<g transform=\"translate({x} {y})\">");
            panel.draw(&names, &mut svg);
            svg += "</g>\n";
        }
        svg + "</svg>\n"
    }
}

/// Returns the class and dash pattern of line `i`.
fn stroke(i: usize) -> String {
    let dash = DASHES[i % DASHES.len()];
    format!(
        "class=\"line c{}\" stroke-dasharray=\"{}\"",
        i % COLORS,
        if dash.is_empty() { "none" } else { dash }
    )
}

/// A logarithmic axis from `low` to `high`.
struct Axis {
    low: f64,
    high: f64,
    pixels: f64,
}

impl Axis {
    /// An axis that contains all values, with a margin.
    fn fitting(values: impl Iterator<Item = f64> + Clone, pixels: f64) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(0.0, f64::max);
        let (low, high) = if low <= high && low > 0.0 { (low, high) } else { (0.1, 1.0) };
        let margin = (high / low).powf(0.06).max(1.1);
        Self { low: low / margin, high: high * margin, pixels }
    }

    fn pixel(&self, value: f64) -> f64 {
        (value.max(self.low) / self.low).ln() / (self.high / self.low).ln() * self.pixels
    }
}

impl Panel {
    fn draw(&self, names: &[&str], svg: &mut String) {
        let points = self.lines.iter().flat_map(|line| &line.points);
        let x_axis = Axis::fitting(points.clone().map(|point| point.tokens), PLOT.0);
        let y_axis = Axis::fitting(points.clone().map(|point| point.seconds), PLOT.1);
        let (x, y) = (|n: f64| LEFT + x_axis.pixel(n), |n: f64| TOP + PLOT.1 - y_axis.pixel(n));
        let (right, bottom) = (LEFT + PLOT.0, TOP + PLOT.1);
        let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"16\" class=\"panel\">{}</text>", escape(&self.title));

        // x ticks at every measured length; y ticks at 1, 2 and 5 of every decade.
        let mut lengths: Vec<f64> = points.clone().map(|point| point.tokens).collect();
        lengths.sort_by(f64::total_cmp);
        lengths.dedup();
        let mut last = f64::NEG_INFINITY;
        for n in lengths {
            let x = x(n);
            let _ = writeln!(svg, "<path d=\"M{x:.1} {TOP}V{bottom}\" class=\"grid\"/>");
            if x - last > 30.0 {
                last = x;
                let y = bottom + 15.0;
                let _ = writeln!(
                    svg,
                    "<text x=\"{x:.1}\" y=\"{y}\" class=\"tick\" text-anchor=\"middle\">{n}</text>"
                );
            }
        }
        let decades = y_axis.low.log10().floor() as i32..=y_axis.high.log10().ceil() as i32;
        let few = decades.clone().count() <= 4;
        for (decade, factor) in decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|factor| (decade, factor))) {
            let t = factor * 10f64.powi(decade);
            if t < y_axis.low || t > y_axis.high {
                continue;
            }
            let y = y(t);
            let _ = writeln!(svg, "<path d=\"M{LEFT} {y:.1}H{right}\" class=\"grid\"/>");
            if factor == 1.0 || few {
                let (x, y) = (LEFT - 6.0, y + 4.0);
                let label = tick(t);
                let _ = writeln!(
                    svg,
                    "<text x=\"{x}\" y=\"{y:.1}\" class=\"tick\" text-anchor=\"end\">{label}</text>"
                );
            }
        }
        let _ = writeln!(svg, "<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" class=\"axis\"/>");
        let (middle, below) = (LEFT + PLOT.0 / 2.0, bottom + 34.0);
        let _ = writeln!(svg, "<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">tokens</text>");
        let middle = TOP + PLOT.1 / 2.0;
        let _ = writeln!(
            svg,
            "<text transform=\"translate(14 {middle}) rotate(-90)\" text-anchor=\"middle\">\
             time per call</text>"
        );
        for line in &self.lines {
            let i = names.iter().position(|name| *name == line.name).unwrap_or(0);
            let path: Vec<String> = line
                .points
                .iter()
                .map(|point| format!("{:.1} {:.1}", x(point.tokens), y(point.seconds)))
                .collect();
            let _ = writeln!(svg, "<path d=\"M{}\" {}/>", path.join("L"), stroke(i));
            for &Point { tokens, seconds, iqr } in &line.points {
                let (x, class) = (x(tokens), format!("c{}", i % COLORS));
                let (low, high) = (y(seconds - iqr / 2.0).min(bottom), y(seconds + iqr / 2.0).max(TOP));
                let _ = writeln!(
                    svg,
                    "<path d=\"M{x:.1} {low:.1}V{high:.1}\" class=\"whisker {class}\"/>\
                     <circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"2.8\" class=\"{class}\">\
                     <title>{}, {tokens} tokens: {}</title></circle>",
                    y(seconds),
                    escape(&line.name),
                    format_time(seconds)
                );
            }
        }
    }
}

/// Formats an axis label: 200 µs, 5 ms, 1 s.
fn tick(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 0.9e-6 => (s * 1e9, "ns"),
        s if s < 0.9e-3 => (s * 1e6, "µs"),
        s if s < 0.9 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    format!("{value:.0} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chart_points_lie_in_panels_and_lines_are_distinct() {
        let point = |tokens: f64, seconds: f64| Point { tokens, seconds, iqr: seconds / 10.0 };
        let line = |name: &str, factor: f64| Line {
            name: name.into(),
            points: [128.0, 1024.0, 4096.0].map(|n| point(n, n * n * factor)).into(),
        };
        let panel = || Panel { title: "prefill".into(), lines: vec![line("a<b", 1e-9), line("flash", 3e-9)] };
        let chart =
            Chart { title: "Attention".into(), note: "& others".into(), panels: vec![panel(), panel()] };
        let svg = chart.svg();
        let circles: Vec<&str> = svg.split("<circle ").skip(1).collect();
        assert_eq!(circles.len(), 2 * 2 * 3);
        let attribute = |text: &str, name: &str| -> f64 {
            let start = text.find(name).unwrap() + name.len() + 2;
            text[start..].split('"').next().unwrap().parse().unwrap()
        };
        let ys: Vec<f64> = circles.iter().map(|circle| attribute(circle, "cy")).collect();
        for (circle, y) in circles.iter().zip(&ys) {
            let x = attribute(circle, "cx");
            assert!((LEFT..LEFT + PLOT.0).contains(&x) && (TOP..TOP + PLOT.1).contains(y), "{x}, {y}");
        }
        // A factor of three is the same distance everywhere on a logarithmic axis.
        assert!((ys[0] - ys[3] - (ys[2] - ys[5])).abs() < 0.2, "{ys:?}");
        assert!(
            svg.contains("a&lt;b")
                && svg.contains("&amp; others")
                && svg.contains("prefers-color-scheme: dark")
        );
        assert_ne!(stroke(0), stroke(1));
        assert!(svg.contains(">1024</text>") && svg.contains(">10 ms</text>"), "{svg}");
    }
}
