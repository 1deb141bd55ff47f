//! The attention chart: time over length, one panel for each combination of the other parameters.

use super::report::{Report, Row};
use crate::cli::commands::bench::chart::{Chart, Line, Panel, Point};

/// Draws the measurements as SVG.
pub fn svg(report: &Report) -> String {
    let mut panels: Vec<Panel> = vec![];
    for row in &report.rows {
        let title = title(row);
        let panel = match panels.iter().position(|panel| panel.title == title) {
            Some(i) => i,
            None => {
                panels.push(Panel { title, lines: vec![] });
                panels.len() - 1
            }
        };
        let lines = &mut panels[panel].lines;
        let line = match lines.iter().position(|line| line.name == row.kernel) {
            Some(i) => i,
            None => {
                lines.push(Line { name: row.kernel.clone(), points: vec![] });
                lines.len() - 1
            }
        };
        let (seconds, iqr) = (row.seconds.median, row.seconds.iqr);
        lines[line].points.push(Point { tokens: row.shape.seq as f64, seconds, iqr });
    }
    for line in panels.iter_mut().flat_map(|panel| &mut panel.lines) {
        line.points.sort_by(|a, b| a.tokens.total_cmp(&b.tokens));
    }
    Chart {
        title: "Attention on a CPU: time per call over sequence length".into(),
        note: report.machine(),
        panels,
    }
    .svg()
}

fn title(row: &Row) -> String {
    let shape = row.shape;
    let mut title = format!("{}, {} × {}", shape.phase.name(), shape.heads, shape.head_dim);
    if shape.batch > 1 {
        title += &format!(", batch {}", shape.batch);
    }
    title += &format!(", KV cache in {}", shape.kv_precision);
    title + &format!(", {} thread{}", row.threads, if row.threads == 1 { "" } else { "s" })
}
