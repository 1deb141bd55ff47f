//! Profiled steps as a table, JSON or a bar chart.

use super::plot;
use crate::Result;
use crate::bench::{OperationTime, Roofline};
use crate::cli::commands::bench::chart::{escape, open_svg};
use crate::cli::commands::bench::table::{
    self, align_columns, cpu_name, disturbance_note, format_bytes, format_percent, format_share_of_peak,
    format_time, is_disturbed, round, round_significant,
};
use crate::cli::output::stdout::write_json;
use crate::kernels::attention::KvPrecision;
use crate::model::{Model, Precision};
use serde_json::{Value, json};
use std::fmt::Write;

/// The results of a run.
pub struct Report {
    /// The model, precision and machine in a line.
    setup: String,
    model: Value,
    /// Quantized products may exceed the peak: they do not use the units that it is measured on.
    precision: Precision,
    pub steps: Vec<Roofline>,
}

impl Report {
    pub fn new(name: String, precision: Precision, model: &Model, kv: KvPrecision) -> Self {
        let (threads, isa, attention) =
            (model.pool().threads(), model.pool().isa(), model.attention().name());
        let plural = if threads == 1 { "" } else { "s" };
        let setup = format!(
            "{name} in {precision}, KV cache in {kv}, {attention} attention; {}, {threads} thread{plural}, \
             {isa}",
            cpu_name()
        );
        let model = json!({
            "name": name, "precision": precision.name(), "kv_precision": kv.name(), "attention": attention,
            "cpu": cpu_name(), "threads": threads, "isa": isa.name(),
        });
        Self { setup, model, precision, steps: vec![] }
    }

    /// Prints the report on standard output.
    pub fn print(&self, json: bool) -> Result<()> {
        if json { write_json(&self.json()) } else { table::print(&self.table()) }
    }

    fn json(&self) -> Value {
        let step = |step: &Roofline| {
            let operation = |operation: &OperationTime| {
                let (bound, memory_bound) = step.bound(operation);
                let share = bound / operation.seconds;
                json!({
                    "operation": operation.name,
                    "calls": operation.calls,
                    "seconds": round_significant(operation.seconds),
                    "bytes": operation.bytes,
                    "flops": operation.flops,
                    "bound_by": if memory_bound { "memory" } else { "compute" },
                    "fraction_of_roofline": round(share, 4),
                    "disturbed": !memory_bound && !self.precision.is_quantized() && is_disturbed(share),
                    "fraction_of_step": round(operation.seconds / step.seconds, 4),
                })
            };
            json!({
                "phase": phase(step),
                "tokens": step.step.tokens,
                "depth": step.step.depth,
                "seconds": round_significant(step.seconds),
                "fraction_accounted_for": round(step.operation_seconds() / step.seconds, 4),
                "bandwidth_gb_per_s": round(step.limits.bandwidth / 1e9, 2),
                "peak_gflops": round(step.limits.peak / 1e9, 2),
                "operations": step.operations.iter().map(operation).collect::<Vec<_>>(),
            })
        };
        json!({ "run": self.model, "steps": self.steps.iter().map(step).collect::<Vec<_>>() })
    }

    fn table(&self) -> String {
        let mut disturbed = 0;
        let mut text = self.setup.clone() + "\n";
        for step in &self.steps {
            let _ = write!(text, "\n{}\n\n", title(step));
            let mut cells = vec![
                [
                    "operation",
                    "calls",
                    "time",
                    "% of step",
                    "bytes",
                    "GFLOP",
                    "GB/s",
                    "GFLOPS",
                    "bound by",
                    "% of roofline",
                ]
                .map(String::from),
            ];
            for operation in &step.operations {
                let (bound, memory_bound) = step.bound(operation);
                cells.push([
                    operation.name.to_string(),
                    operation.calls.to_string(),
                    format_time(operation.seconds),
                    format_percent(operation.seconds / step.seconds),
                    format_bytes(operation.bytes as usize),
                    format!("{:.3}", operation.flops / 1e9),
                    format!("{:.1}", operation.bytes / operation.seconds / 1e9),
                    format!("{:.1}", operation.flops / operation.seconds / 1e9),
                    if memory_bound { "memory" } else { "compute" }.to_string(),
                    match (memory_bound, bound / operation.seconds) {
                        (false, share) if !self.precision.is_quantized() => {
                            format_share_of_peak(share, &mut disturbed)
                        }
                        (_, share) => format_percent(share),
                    },
                ]);
            }
            text += &align_columns(&cells, &[0, 8]);
            let sum = step.operation_seconds();
            let _ = writeln!(
                text,
                "sum of operations {}: {:.1} % of the unprofiled step, {}",
                format_time(sum),
                100.0 * sum / step.seconds,
                format_time(step.seconds)
            );
        }
        text + disturbance_note(disturbed)
    }

    /// Draws a bar per operation as long as its time, with a mark at its roofline, and below the operations
    /// under the roofline.
    pub fn svg(&self) -> String {
        const ROW: usize = 22;
        const LEFT: usize = 110;
        const LENGTH: f64 = 420.0;
        let rows: usize = self.steps.iter().map(|step| step.operations.len()).sum();
        let bars = 64 + rows * ROW + self.steps.len() * 52 + 16;
        let height = bars + self.steps.len().div_ceil(2) * plot::SIZE.1;
        let mut svg = open_svg(760, height, "Time per operation");
        let _ = writeln!(svg, "<text x=\"16\" y=\"46\" class=\"note\">{}</text>", escape(&self.setup));
        let mut y = 60;
        for step in &self.steps {
            let max_seconds = step.operations.iter().map(|operation| operation.seconds).fold(0.0, f64::max);
            let _ = writeln!(
                svg,
                "<text x=\"16\" y=\"{}\" class=\"panel\">{}</text>",
                y + 20,
                escape(&title(step))
            );
            y += 34;
            for operation in &step.operations {
                let (bound, memory_bound) = step.bound(operation);
                let (length, mark) =
                    (operation.seconds / max_seconds * LENGTH, (bound / max_seconds * LENGTH).min(LENGTH));
                let class = if memory_bound { "bar memory" } else { "bar" };
                let _ = writeln!(
                    svg,
                    "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
                     <rect x=\"{LEFT}\" y=\"{y}\" width=\"{length:.1}\" height=\"15\" rx=\"2\" \
                     class=\"{class}\"/>\
                     <rect x=\"{:.1}\" y=\"{}\" width=\"2\" height=\"19\" class=\"limit\"/>\
                     <text x=\"{:.1}\" y=\"{}\" class=\"tick\">{}, {:.1} %, {:.0} % of roofline</text>",
                    LEFT - 8,
                    y + 12,
                    escape(operation.name),
                    LEFT as f64 + mark,
                    y - 2,
                    LEFT as f64 + length.max(mark) + 8.0,
                    y + 12,
                    format_time(operation.seconds),
                    100.0 * operation.seconds / step.seconds,
                    100.0 * bound / operation.seconds,
                );
                y += ROW;
            }
            y += 18;
        }
        let _ = writeln!(
            svg,
            "<rect x=\"16\" y=\"{}\" width=\"12\" height=\"12\" rx=\"2\" class=\"bar memory\"/>\
             <text x=\"34\" y=\"{}\" class=\"note\">memory-bound</text>\
             <rect x=\"150\" y=\"{}\" width=\"12\" height=\"12\" rx=\"2\" class=\"bar\"/>\
             <text x=\"168\" y=\"{}\" class=\"note\">compute-bound; the line marks the roofline</text>",
            y - 8,
            y + 2,
            y - 8,
            y + 2
        );
        for (i, step) in self.steps.iter().enumerate() {
            let title = format!("roofline of {}", phase(step));
            plot::draw(&mut svg, step, &title, 8 + i % 2 * plot::SIZE.0, bars + i / 2 * plot::SIZE.1);
        }
        svg + "</svg>\n"
    }
}

fn phase(step: &Roofline) -> &'static str {
    if step.step.depth == 0 { "prefill" } else { "decode" }
}

fn title(step: &Roofline) -> String {
    let phase = match phase(step) {
        "prefill" => format!("prefill of {} tokens", step.step.tokens),
        _ => format!("decode after {} tokens", step.step.depth),
    };
    let (bandwidth, peak) = (step.limits.bandwidth / 1e9, step.limits.peak / 1e9);
    let seconds = format_time(step.seconds);
    format!("{phase}: {seconds}; memory bandwidth {bandwidth:.1} GB/s, FMA peak {peak:.0} GFLOPS")
}
