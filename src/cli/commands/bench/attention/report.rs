//! The attention measurements as a table, JSON or comma-separated values.

use crate::Result;
use crate::bench::{AttentionMeasurement, AttentionShape, LimitSamples, Summary, scaling_exponent};
use crate::cli::commands::bench::table::{
    self, align_columns, cpu_name, csv_line, disturbance_note, format_bytes, format_percent,
    format_share_of_peak, format_time, is_disturbed, named, round, round_significant,
};
use crate::kernels::attention::{AttentionKernel, Mask};
use crate::kernels::isa::Isa;
use serde_json::{Map, Value, json};

/// The results of a run.
pub struct Report {
    isa: Isa,
    cores: usize,
    limits: Vec<ThreadLimits>,
    /// torch's version, if it was measured.
    pub torch: Option<String>,
    /// One row per kernel, shape and number of threads.
    pub rows: Vec<Row>,
}

/// The machine's limits for a number of threads.
#[derive(Clone, Copy, Debug)]
pub struct ThreadLimits {
    threads: usize,
    /// Bytes per second.
    bandwidth: f64,
    /// FLOP/s.
    peak: f64,
}

impl ThreadLimits {
    /// The mean of the limits before and after a measurement.
    pub fn around(threads: usize, before: (f64, f64), after: (f64, f64)) -> Self {
        Self { threads, bandwidth: (before.0 + after.0) / 2.0, peak: (before.1 + after.1) / 2.0 }
    }
}

/// One kernel on one shape.
pub struct Row {
    pub kernel: String,
    pub shape: AttentionShape,
    pub threads: usize,
    /// Seconds per call.
    pub seconds: Summary,
    flops: f64,
    bytes: f64,
    limits: ThreadLimits,
    /// Absent for torch.
    workspace_bytes: Option<usize>,
    /// The maximum absolute and relative error; absent for torch.
    max_errors: Option<(f64, f64)>,
}

/// The field names of a row.
const COLUMNS: [&str; 24] = [
    "kernel",
    "phase",
    "seq",
    "queries",
    "batch",
    "heads",
    "head_dim",
    "kv_precision",
    "threads",
    "median_seconds",
    "iqr_seconds",
    "min_seconds",
    "p95_seconds",
    "outliers",
    "achieved_gflops",
    "fraction_of_peak",
    "disturbed",
    "achieved_gb_per_s",
    "fraction_of_bandwidth",
    "workspace_bytes",
    "max_absolute_error",
    "max_relative_error",
    "scaling_exponent",
    "samples_seconds",
];

impl Report {
    pub fn new(isa: Isa, cores: usize) -> Self {
        Self { isa, cores, limits: vec![], torch: None, rows: vec![] }
    }

    /// Adds the median of the machine's limits for a number of threads.
    pub fn add_limits(&mut self, threads: usize, samples: &LimitSamples) {
        let (bandwidth, peak) =
            (Summary::new(&samples.bandwidths).median, Summary::new(&samples.peaks).median);
        self.limits.push(ThreadLimits { threads, bandwidth, peak });
    }

    /// Returns the processor, cores and instruction set in a line.
    pub fn machine(&self) -> String {
        format!("{}, {} cores, {}", cpu_name(), self.cores, self.isa)
    }

    /// Prints the report on standard output.
    pub fn print(&self, json: bool, csv: bool) -> Result<()> {
        table::print_as(json, csv, || self.json(), || self.csv(), || self.table())
    }

    fn json(&self) -> Value {
        let limit = |limits: &ThreadLimits| {
            json!({
                "threads": limits.threads,
                "bandwidth_gb_per_s": round(limits.bandwidth / 1e9, 2),
                "peak_gflops": round(limits.peak / 1e9, 2),
            })
        };
        let results = self.rows.iter().map(|row| {
            Value::Object(Map::from_iter(self.fields(row).into_iter().filter(|(_, value)| !value.is_null())))
        });
        json!({
            "machine": {
                "cpu": cpu_name(), "cores": self.cores, "isa": self.isa.name(),
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

    /// Returns a row's fields; null where one does not apply.
    fn fields(&self, row: &Row) -> [(String, Value); COLUMNS.len()] {
        let AttentionShape { phase, seq, batch, heads, head_dim, kv_precision } = row.shape;
        let values = [
            json!(row.kernel),
            json!(phase.name()),
            json!(seq),
            json!(row.shape.queries()),
            json!(batch),
            json!(heads),
            json!(head_dim),
            json!(kv_precision.name()),
            json!(row.threads),
            json!(round_significant(row.seconds.median)),
            json!(round_significant(row.seconds.iqr)),
            json!(round_significant(row.seconds.min)),
            json!(round_significant(row.seconds.p95)),
            json!(row.seconds.outliers),
            json!(round_significant(row.gflops())),
            json!(round(row.fraction_of_peak(), 4)),
            json!(is_disturbed(row.fraction_of_peak())),
            json!(round_significant(row.gb_per_s())),
            json!(round(row.fraction_of_bandwidth(), 4)),
            json!(row.workspace_bytes),
            json!(row.max_errors.map(|errors| round_significant(errors.0))),
            json!(row.max_errors.map(|errors| round_significant(errors.1))),
            json!(self.scaling_exponent(row).map(|exponent| round(exponent, 3))),
            json!(row.seconds.samples.iter().map(|&x| round_significant(x)).collect::<Vec<_>>()),
        ];
        named(COLUMNS, values)
    }

    /// Fits the scaling exponent over all rows that differ from this one in sequence length only.
    fn scaling_exponent(&self, row: &Row) -> Option<f64> {
        let key = |row: &Row| (row.kernel.clone(), AttentionShape { seq: 0, ..row.shape }, row.threads);
        let series = self.rows.iter().filter(|other| key(other) == key(row));
        scaling_exponent(&series.map(|row| (row.shape.seq, row.seconds.median)).collect::<Vec<_>>())
    }

    fn table(&self) -> String {
        let mut text = self.machine() + "\n";
        for limits in &self.limits {
            text += &format!(
                "{} thread{}: memory bandwidth {:.1} GB/s, FMA peak {:.0} GFLOPS\n",
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
                "KV cache",
                "threads",
                "batch",
                "seq",
                "median",
                "IQR",
                "GFLOPS",
                "% of peak",
                "GB/s",
                "% of bandwidth",
                "workspace",
                "max abs error",
                "max rel error",
                "scaling",
            ]
            .map(String::from),
        ];
        let (mut outliers, mut disturbed) = (0, 0);
        for row in &self.rows {
            outliers += row.seconds.outliers;
            let scaling = self.scaling_exponent(row).map_or_else(String::new, |e| format!("n^{e:.2}"));
            let error = |error: Option<f64>| error.map_or_else(String::new, |error| format!("{error:.1e}"));
            cells.push([
                row.shape.phase.name().to_string(),
                row.kernel.clone(),
                row.shape.kv_precision.to_string(),
                row.threads.to_string(),
                row.shape.batch.to_string(),
                row.shape.seq.to_string(),
                format_time(row.seconds.median),
                format_time(row.seconds.iqr),
                format!("{:.1}", row.gflops()),
                format_share_of_peak(row.fraction_of_peak(), &mut disturbed),
                format!("{:.1}", row.gb_per_s()),
                format_percent(row.fraction_of_bandwidth()),
                row.workspace_bytes.map_or_else(String::new, format_bytes),
                error(row.max_errors.map(|errors| errors.0)),
                error(row.max_errors.map(|errors| errors.1)),
                scaling,
            ]);
        }
        text.push('\n');
        text += &align_columns(&cells, &[0, 1, 2]);
        text + "\n" + disturbance_note(disturbed) + &table::footnote(outliers)
    }
}

impl Row {
    /// A row of a Hornbook kernel.
    pub fn new(
        kernel: &dyn AttentionKernel,
        shape: AttentionShape,
        measurement: AttentionMeasurement,
        limits: ThreadLimits,
    ) -> Self {
        Self {
            workspace_bytes: Some(measurement.workspace_bytes),
            max_errors: Some((measurement.max_absolute_error, measurement.max_relative_error)),
            ..Self::timing(kernel.name(), shape, kernel.mask(), measurement.seconds, limits)
        }
    }

    /// A row of PyTorch.
    pub fn torch(shape: AttentionShape, seconds: Summary, limits: ThreadLimits) -> Self {
        Self::timing("torch", shape, Mask::Causal, seconds, limits)
    }

    fn timing(
        kernel: &str,
        shape: AttentionShape,
        mask: Mask,
        seconds: Summary,
        limits: ThreadLimits,
    ) -> Self {
        Self {
            kernel: kernel.to_string(),
            shape,
            threads: limits.threads,
            seconds,
            flops: shape.flops(mask),
            bytes: shape.bytes(mask),
            limits,
            workspace_bytes: None,
            max_errors: None,
        }
    }

    fn gflops(&self) -> f64 {
        self.flops / self.seconds.median / 1e9
    }

    fn fraction_of_peak(&self) -> f64 {
        self.flops / self.seconds.median / self.limits.peak
    }

    fn gb_per_s(&self) -> f64 {
        self.bytes / self.seconds.median / 1e9
    }

    fn fraction_of_bandwidth(&self) -> f64 {
        self.bytes / self.seconds.median / self.limits.bandwidth
    }
}
