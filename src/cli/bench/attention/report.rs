//! What the lab found, as a table, JSON or comma-separated values.

use crate::Result;
use crate::bench::{AttentionMeasurement, AttentionShape, Summary, growth};
use crate::cli::bench::table::{self, aligned, bytes, cpu, csv_line, round, significant, time};
use crate::cli::write_json;
use crate::kernels::attention::{AttentionKernel, Mask};
use crate::kernels::isa::Isa;
use serde_json::{Map, Value, json};

/// Everything a run found out.
pub struct Report {
    isa: Isa,
    cores: usize,
    limits: Vec<Limits>,
    /// torch's version, where it took part.
    pub torch: Option<String>,
    /// The measurements.
    pub rows: Vec<Row>,
}

/// What so many threads reach.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    threads: usize,
    /// Bytes a second.
    bandwidth: f64,
    /// Operations a second.
    peak: f64,
}

/// One kernel on one shape.
pub struct Row {
    pub kernel: String,
    pub shape: AttentionShape,
    pub threads: usize,
    /// Of a call.
    pub seconds: Summary,
    operations: f64,
    bytes: f64,
    limits: Limits,
    /// Of our own kernels.
    scratch_bytes: Option<usize>,
    /// Absolute and relative.
    errors: Option<(f64, f64)>,
}

/// The names of a row's fields.
const COLUMNS: [&str; 19] = [
    "kernel",
    "phase",
    "seq",
    "batch",
    "heads",
    "head_dim",
    "kv_precision",
    "threads",
    "seconds",
    "spread",
    "outliers",
    "gflops",
    "of_peak",
    "gb_s",
    "of_bandwidth",
    "scratch_bytes",
    "absolute_error",
    "relative_error",
    "growth",
];

impl Report {
    pub fn new(isa: Isa, cores: usize) -> Self {
        Self { isa, cores, limits: vec![], torch: None, rows: vec![] }
    }

    /// Adds what so many threads reach.
    pub fn limit(&mut self, threads: usize, bandwidth: f64, peak: f64) {
        self.limits.push(Limits { threads, bandwidth, peak });
    }

    pub fn limits_of(&self, threads: usize) -> Limits {
        let found = self.limits.iter().find(|limits| limits.threads == threads);
        *found.expect("limits are measured for every number of threads")
    }

    /// What it was measured on, in a line.
    pub fn machine(&self) -> String {
        format!("{}, {} cores, {}", cpu(), self.cores, self.isa)
    }

    /// On standard output.
    pub fn print(&self, json: bool, csv: bool) -> Result<()> {
        match (json, csv) {
            (true, _) => write_json(&self.json()),
            (_, true) => table::print(&self.csv()),
            _ => table::print(&self.table()),
        }
    }

    fn json(&self) -> Value {
        let limit = |limits: &Limits| {
            json!({
                "threads": limits.threads,
                "bandwidth_gb_s": round(limits.bandwidth / 1e9, 2),
                "fma_gflops": round(limits.peak / 1e9, 2),
            })
        };
        let results = self.rows.iter().map(|row| {
            Value::Object(Map::from_iter(self.fields(row).into_iter().filter(|(_, value)| !value.is_null())))
        });
        json!({
            "machine": {
                "cpu": cpu(), "cores": self.cores, "isa": self.isa.name(),
                "limits": self.limits.iter().map(limit).collect::<Vec<_>>(),
            },
            "torch": self.torch,
            "results": results.collect::<Vec<_>>(),
        })
    }

    fn csv(&self) -> String {
        let rows = self.rows.iter().map(|row| csv_line(self.fields(row).map(|(_, value)| value)));
        [COLUMNS.join(",")].into_iter().chain(rows).collect::<Vec<_>>().join("\n")
    }

    /// A row's fields, null where one does not apply.
    fn fields(&self, row: &Row) -> [(String, Value); COLUMNS.len()] {
        let AttentionShape { phase, seq, batch, heads, head_dim, kv_precision } = row.shape;
        let values = [
            json!(row.kernel),
            json!(phase.name()),
            json!(seq),
            json!(batch),
            json!(heads),
            json!(head_dim),
            json!(kv_precision.name()),
            json!(row.threads),
            json!(significant(row.seconds.median)),
            json!(significant(row.seconds.spread)),
            json!(row.seconds.outliers),
            json!(significant(row.gflops())),
            json!(round(row.of_peak(), 4)),
            json!(significant(row.gb_s())),
            json!(round(row.of_bandwidth(), 4)),
            json!(row.scratch_bytes),
            json!(row.errors.map(|errors| significant(errors.0))),
            json!(row.errors.map(|errors| significant(errors.1))),
            json!(self.growth(row).map(|growth| round(growth, 3))),
        ];
        let mut columns = COLUMNS.into_iter();
        values.map(|value| (columns.next().unwrap_or_default().to_string(), value))
    }

    /// How a row's time grows with length, of all that differ from it in nothing else.
    fn growth(&self, row: &Row) -> Option<f64> {
        let but_length =
            |row: &Row| (row.kernel.clone(), AttentionShape { seq: 0, ..row.shape }, row.threads);
        let like = self.rows.iter().filter(|other| but_length(other) == but_length(row));
        growth(&like.map(|row| (row.shape.seq, row.seconds.median)).collect::<Vec<_>>())
    }

    fn table(&self) -> String {
        let mut text = self.machine() + "\n";
        for limits in &self.limits {
            text += &format!(
                "{} thread{}: reads {:.1} GB/s, multiplies and adds {:.0} GFLOPS\n",
                limits.threads,
                if limits.threads == 1 { "" } else { "s" },
                limits.bandwidth / 1e9,
                limits.peak / 1e9
            );
        }
        if let Some(version) = &self.torch {
            text += &format!("torch {version}\n");
        }
        let mut cells = vec![
            [
                "phase",
                "kernel",
                "kv",
                "threads",
                "texts",
                "tokens",
                "time",
                "spread",
                "GFLOPS",
                "of peak",
                "GB/s",
                "of bandw.",
                "scratch",
                "abs. error",
                "rel. error",
                "growth",
            ]
            .map(String::from),
        ];
        let mut outliers = 0;
        for row in &self.rows {
            outliers += row.seconds.outliers;
            let growth = self.growth(row).map_or_else(String::new, |growth| format!("n^{growth:.2}"));
            let error = |error: Option<f64>| error.map_or_else(String::new, |error| format!("{error:.1e}"));
            cells.push([
                row.shape.phase.name().to_string(),
                row.kernel.clone(),
                row.shape.kv_precision.to_string(),
                row.threads.to_string(),
                row.shape.batch.to_string(),
                row.shape.seq.to_string(),
                time(row.seconds.median),
                time(row.seconds.spread),
                format!("{:.1}", row.gflops()),
                format!("{:.2}", row.of_peak()),
                format!("{:.1}", row.gb_s()),
                format!("{:.2}", row.of_bandwidth()),
                row.scratch_bytes.map_or_else(String::new, bytes),
                error(row.errors.map(|errors| errors.0)),
                error(row.errors.map(|errors| errors.1)),
                growth,
            ]);
        }
        text.push('\n');
        text += &aligned(&cells, &[0, 1, 2]);
        text + "\n" + &table::footnote(outliers)
    }
}

impl Row {
    /// One of our kernels.
    pub fn of(
        kernel: &dyn AttentionKernel,
        shape: AttentionShape,
        found: AttentionMeasurement,
        limits: Limits,
    ) -> Self {
        Self {
            scratch_bytes: Some(found.scratch_bytes),
            errors: Some((found.absolute_error, found.relative_error)),
            ..Self::new(kernel.name(), shape, kernel.mask(), found.seconds, limits)
        }
    }

    /// PyTorch.
    pub fn of_torch(shape: AttentionShape, seconds: Summary, limits: Limits) -> Self {
        Self::new("torch", shape, Mask::Causal, seconds, limits)
    }

    fn new(kernel: &str, shape: AttentionShape, mask: Mask, seconds: Summary, limits: Limits) -> Self {
        Self {
            kernel: kernel.to_string(),
            shape,
            threads: limits.threads,
            seconds,
            operations: shape.operations(mask),
            bytes: shape.bytes(mask),
            limits,
            scratch_bytes: None,
            errors: None,
        }
    }

    fn gflops(&self) -> f64 {
        self.operations / self.seconds.median / 1e9
    }

    fn of_peak(&self) -> f64 {
        self.operations / self.seconds.median / self.limits.peak
    }

    fn gb_s(&self) -> f64 {
        self.bytes / self.seconds.median / 1e9
    }

    fn of_bandwidth(&self) -> f64 {
        self.bytes / self.seconds.median / self.limits.bandwidth
    }
}
