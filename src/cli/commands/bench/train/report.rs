//! Measured training steps as a table, JSON or comma-separated values.

use crate::Result;
use crate::bench::{StepPart, TrainMeasurement};
use crate::checkpoint::Checkpoint;
use crate::cli::commands::bench::model::{describe, title};
use crate::cli::commands::bench::table::{
    self, align_columns, cpu_name, csv_line, disturbance_note, format_bytes, format_percent,
    format_share_of_peak, format_time, is_disturbed, round, round_significant,
};
use crate::kernels::isa::Isa;
use serde_json::{Value, json};
use std::fmt::Write;

/// The results of a run.
pub struct Report {
    isa: Isa,
    cores: usize,
    model: Value,
    /// One row per number of threads.
    pub rows: Vec<Row>,
}

/// A measured step.
pub struct Row {
    pub threads: usize,
    pub measurement: TrainMeasurement,
    /// Bytes of the process, where the system reports them.
    pub memory_bytes: Option<u64>,
}

/// The field names of a line of CSV.
const COLUMNS: [&str; 9] = [
    "threads",
    "sequences",
    "context",
    "part",
    "calls",
    "seconds",
    "fraction_of_step",
    "gflops",
    "fraction_of_peak",
];

impl Report {
    pub fn new(isa: Isa, cores: usize) -> Self {
        Self { isa, cores, model: Value::Null, rows: vec![] }
    }

    pub fn set_model(&mut self, checkpoint: &Checkpoint, random: bool) {
        self.model = describe(checkpoint, random);
    }

    /// Prints the report on standard output.
    pub fn print(&self, json: bool, csv: bool) -> Result<()> {
        table::print_as(json, csv, || self.json(), || self.csv(), || self.table())
    }

    fn json(&self) -> Value {
        let result = |Row { threads, measurement: m, memory_bytes }: &Row| {
            let part = |part: &StepPart| {
                let mut fields = json!({
                    "part": part.name,
                    "calls": part.calls,
                    "seconds": round_significant(part.seconds),
                    "fraction_of_step": round(part.seconds / m.part_seconds(), 4),
                });
                if let Some((gflops, share)) = m.part_speed(part) {
                    fields["gflops"] = json!(round(gflops, 2));
                    fields["fraction_of_peak"] = json!(round(share, 4));
                }
                fields
            };
            let samples: Vec<f64> = m.seconds.samples.iter().map(|&x| round_significant(x)).collect();
            json!({
                "threads": threads,
                "sequences": m.shape.sequences,
                "context": m.shape.context,
                "tokens_per_second": round(m.tokens_per_second(), 2),
                "median_seconds": round_significant(m.seconds.median),
                "iqr_seconds": round_significant(m.seconds.iqr),
                "outliers": m.seconds.outliers,
                "samples_seconds": samples,
                "gflops": round(m.flops / m.seconds.median / 1e9, 2),
                "peak_gflops": round(m.peak / 1e9, 2),
                "fraction_of_peak": round(m.fraction_of_peak, 4),
                "disturbed": is_disturbed(m.fraction_of_peak),
                "memory_bytes": memory_bytes,
                "parts": m.parts.iter().map(part).collect::<Vec<_>>(),
            })
        };
        json!({
            "machine": { "cpu": cpu_name(), "cores": self.cores, "isa": self.isa.name() },
            "model": self.model,
            "results": self.rows.iter().map(result).collect::<Vec<_>>(),
        })
    }

    /// A line for the step, and one for each of its parts.
    fn csv(&self) -> String {
        let mut lines = vec![COLUMNS.join(",")];
        for Row { threads, measurement: m, .. } in &self.rows {
            let line = |name: &str, calls: usize, seconds: f64, share: f64, speed: Option<(f64, f64)>| {
                csv_line([
                    json!(threads),
                    json!(m.shape.sequences),
                    json!(m.shape.context),
                    json!(name),
                    json!(calls),
                    json!(round_significant(seconds)),
                    json!(round(share, 4)),
                    json!(speed.map(|(gflops, _)| round(gflops, 2))),
                    json!(speed.map(|(_, share)| round(share, 4))),
                ])
            };
            let speed = (m.flops / m.seconds.median / 1e9, m.fraction_of_peak);
            lines.push(line("step", 1, m.seconds.median, 1.0, Some(speed)));
            for part in &m.parts {
                let share = part.seconds / m.part_seconds();
                lines.push(line(&part.name, part.calls, part.seconds, share, m.part_speed(part)));
            }
        }
        lines.join("\n")
    }

    fn table(&self) -> String {
        let mut text = title(&self.model) + &format!("{}, {} cores, {}\n", cpu_name(), self.cores, self.isa);
        let (mut outliers, mut disturbed) = (0, 0);
        for Row { threads, measurement: m, memory_bytes } in &self.rows {
            outliers += m.seconds.outliers;
            let _ = write!(
                text,
                "\n{} sequences of {} tokens, {threads} thread{}: {:.0} tokens/s\n{} per step (IQR {}), \
                 {:.1} GFLOPS, {} % of the FMA peak of {:.0} GFLOPS{}\n\n",
                m.shape.sequences,
                m.shape.context,
                if *threads == 1 { "" } else { "s" },
                m.tokens_per_second(),
                format_time(m.seconds.median),
                format_time(m.seconds.iqr),
                m.flops / m.seconds.median / 1e9,
                format_share_of_peak(m.fraction_of_peak, &mut disturbed),
                m.peak / 1e9,
                memory_bytes
                    .map_or_else(String::new, |n| format!(", {} of memory", format_bytes(n as usize))),
            );
            let mut cells =
                vec![["part", "calls", "time", "% of step", "GFLOPS", "% of peak"].map(String::from)];
            for part in &m.parts {
                let speed = m.part_speed(part);
                cells.push([
                    part.name.clone(),
                    part.calls.to_string(),
                    format_time(part.seconds),
                    format_percent(part.seconds / m.part_seconds()),
                    speed.map_or_else(String::new, |(gflops, _)| format!("{gflops:.1}")),
                    speed.map_or_else(String::new, |(_, share)| format_share_of_peak(share, &mut disturbed)),
                ]);
            }
            text += &align_columns(&cells, &[0]);
        }
        text + "\n" + disturbance_note(disturbed) + &table::footnote(outliers)
    }
}
