//! Measured drafts as a table, JSON or comma-separated values.

use crate::Result;
use crate::bench::DraftMeasurement;
use crate::checkpoint::Checkpoint;
use crate::cli::commands::bench::model::{describe, title};
use crate::cli::commands::bench::table::{
    self, align_columns, cpu_name, csv_line, format_bytes, format_percent, named, round,
};
use crate::model::Precision;
use serde_json::{Map, Value, json};

/// The results of a run.
pub struct Report {
    model: Value,
    /// One row per measurement.
    pub rows: Vec<Row>,
}

/// A model with a draft model, at a temperature.
pub struct Row {
    pub precision: Precision,
    pub draft: String,
    pub temperature: f32,
    pub threads: usize,
    pub draft_model_bytes: usize,
    pub measurement: DraftMeasurement,
}

impl Report {
    pub fn new(checkpoint: &Checkpoint, random: bool) -> Self {
        Self { model: describe(checkpoint, random), rows: vec![] }
    }

    /// Prints the report on standard output.
    pub fn print(&self, json: bool, csv: bool) -> Result<()> {
        table::print_as(json, csv, || self.json(), || self.csv(), || self.table())
    }

    fn json(&self) -> Value {
        let results = self.rows.iter().map(|row| Value::Object(Map::from_iter(row.fields())));
        json!({"cpu": cpu_name(), "model": self.model, "results": results.collect::<Vec<_>>()})
    }

    fn csv(&self) -> String {
        let mut lines = vec![COLUMNS.join(",")];
        lines.extend(self.rows.iter().map(|row| csv_line(row.fields().map(|(_, value)| value))));
        lines.join("\n")
    }

    fn table(&self) -> String {
        let mut text = title(&self.model) + &cpu_name();
        if let Some(row) = self.rows.first() {
            text += &format!(", {} thread{}", row.threads, if row.threads == 1 { "" } else { "s" });
        }
        let heads = [
            "precision",
            "draft",
            "draft model",
            "temperature",
            "tokens/s without",
            "tokens/s with",
            "speedup",
            "IQR",
            "% accepted",
            "tokens per pass",
        ];
        let mut cells = vec![heads.map(String::from)];
        let mut outliers = 0;
        for row in &self.rows {
            let m = &row.measurement;
            outliers += m.speedup.outliers;
            cells.push([
                row.precision.to_string(),
                row.draft.clone(),
                format_bytes(row.draft_model_bytes),
                row.temperature.to_string(),
                format!("{:.1}", m.plain.median),
                format!("{:.1}", m.drafted.median),
                format!("{:.2}", m.speedup.median),
                format!("{:.2}", m.speedup.iqr),
                m.acceptance_rate().map_or_else(|| "-".into(), format_percent),
                format!("{:.2}", m.tokens_per_pass()),
            ]);
        }
        text + "\n\n" + &align_columns(&cells, &[0, 1]) + "\n" + &table::footnote(outliers)
    }
}

/// The field names of a measurement.
const COLUMNS: [&str; 12] = [
    "precision",
    "draft",
    "draft_model_bytes",
    "temperature",
    "threads",
    "tokens",
    "tokens_per_second_without",
    "tokens_per_second_with",
    "speedup",
    "speedup_iqr",
    "acceptance_rate",
    "tokens_per_pass",
];

impl Row {
    fn fields(&self) -> [(String, Value); COLUMNS.len()] {
        let m = &self.measurement;
        let values = [
            json!(self.precision.name()),
            json!(self.draft),
            json!(self.draft_model_bytes),
            json!(round(f64::from(self.temperature), 4)),
            json!(self.threads),
            json!(m.tokens),
            json!(round(m.plain.median, 2)),
            json!(round(m.drafted.median, 2)),
            json!(round(m.speedup.median, 4)),
            json!(round(m.speedup.iqr, 4)),
            json!(m.acceptance_rate().map(|rate| round(rate, 4))),
            json!(round(m.tokens_per_pass(), 3)),
        ];
        named(COLUMNS, values)
    }
}
