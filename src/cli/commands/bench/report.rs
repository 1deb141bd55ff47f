//! The measurements as a table, JSON or comma-separated values.

use super::model::{describe, title};
use super::table::{
    self, align_columns, cpu_name, csv_line, disturbance_note, format_percent, format_share_of_peak,
    is_disturbed, named, round,
};
use crate::Result;
use crate::bench::{Measurement, Phase};
use crate::checkpoint::Checkpoint;
use crate::kernels::attention::KvPrecision;
use crate::kernels::isa::Isa;
use crate::model::Precision;
use serde_json::{Map, Value, json};

/// The results of a run.
pub struct Report {
    model: Value,
    isa: Isa,
    cores: usize,
    /// The machine's limits for each number of threads.
    pub limits: Vec<ThreadLimits>,
    /// One row per measurement.
    pub results: Vec<Row>,
}

/// The machine's limits for a number of threads, if they were measured.
pub struct ThreadLimits {
    pub threads: usize,
    pub bandwidth: Option<f64>,
    pub peak: Option<f64>,
}

/// One measurement.
pub struct Row {
    pub precision: Precision,
    pub kv_precision: KvPrecision,
    pub threads: usize,
    pub measurement: Measurement,
}

impl Report {
    pub fn new(checkpoint: &Checkpoint, random: bool, isa: Isa, cores: usize) -> Self {
        Self { model: describe(checkpoint, random), isa, cores, limits: vec![], results: vec![] }
    }

    /// Prints the report on standard output.
    pub fn print(&self, json: bool, csv: bool) -> Result<()> {
        table::print_as(json, csv, || self.json(), || self.csv(), || self.table())
    }

    fn json(&self) -> Value {
        let giga = |x: Option<f64>| x.map(|x| round(x / 1e9, 2));
        let limit = |limits: &ThreadLimits| {
            json!({
                "threads": limits.threads,
                "bandwidth_gb_per_s": giga(limits.bandwidth),
                "peak_gflops": giga(limits.peak),
            })
        };
        // The limits of the whole machine are those of the most threads measured.
        let machine = self.limits.iter().max_by_key(|limits| limits.threads);
        let results = self.results.iter().map(|row| {
            let fields = Map::from_iter(row.fields().into_iter().filter(|(_, value)| !value.is_null()));
            Value::Object(fields)
        });
        json!({
            "machine": {
                "cpu": cpu_name(),
                "cores": self.cores,
                "isa": self.isa.name(),
                "bandwidth_gb_per_s": giga(machine.and_then(|limits| limits.bandwidth)),
                "peak_gflops": giga(machine.and_then(|limits| limits.peak)),
                "limits": self.limits.iter().map(limit).collect::<Vec<_>>(),
            },
            "model": self.model,
            "results": results.collect::<Vec<_>>(),
        })
    }

    fn csv(&self) -> String {
        let mut lines = vec![COLUMNS.join(",")];
        lines.extend(self.results.iter().map(|row| csv_line(row.fields().map(|(_, value)| value))));
        lines.join("\n")
    }

    fn table(&self) -> String {
        let mut text = title(&self.model) + &format!("{}, {} cores, {}\n", cpu_name(), self.cores, self.isa);
        for &ThreadLimits { threads, bandwidth, peak } in &self.limits {
            let mut limits = vec![];
            limits.extend(bandwidth.map(|b| format!("memory bandwidth {:.1} GB/s", b / 1e9)));
            limits.extend(peak.map(|p| format!("FMA peak {:.0} GFLOPS", p / 1e9)));
            text +=
                &format!("{threads} thread{}: {}\n", if threads == 1 { "" } else { "s" }, limits.join(", "));
        }
        let mut cells = vec![
            [
                "precision",
                "KV cache",
                "threads",
                "phase",
                "tokens",
                "sequences",
                "tokens/s",
                "IQR",
                "% of bandwidth",
                "% of peak",
            ]
            .map(String::from),
        ];
        let percentage = |fraction: Option<f64>| fraction.map_or_else(String::new, format_percent);
        let (mut outliers, mut disturbed) = (0, 0);
        for Row { precision, kv_precision, threads, measurement } in &self.results {
            let speed = &measurement.tokens_per_second;
            let (phase, tokens, sequences) = match measurement.phase {
                Phase::Prefill { prompt } => ("prefill", prompt.to_string(), 1),
                Phase::Decode { depth } => ("decode", format!("after {depth}"), 1),
                Phase::Batch { sequences, depth } => ("batch", format!("after {depth}"), sequences),
            };
            outliers += speed.outliers;
            cells.push([
                precision.to_string(),
                kv_precision.to_string(),
                threads.to_string(),
                phase.to_string(),
                tokens,
                sequences.to_string(),
                format!("{:.1}", speed.median),
                format!("{:.1}", speed.iqr),
                percentage(measurement.fraction_of_bandwidth),
                match measurement.fraction_of_peak {
                    // Quantized products do not use the units that the peak is measured on.
                    Some(share) if !precision.is_quantized() => format_share_of_peak(share, &mut disturbed),
                    share => percentage(share),
                },
            ]);
        }
        text.push('\n');
        text += &align_columns(&cells, &[0, 1, 3]);
        text + "\n" + disturbance_note(disturbed) + &table::footnote(outliers)
    }
}

/// The field names of a measurement.
const COLUMNS: [&str; 13] = [
    "precision",
    "kv_precision",
    "threads",
    "phase",
    "prompt",
    "depth",
    "sequences",
    "tokens_per_second",
    "iqr",
    "outliers",
    "fraction_of_bandwidth",
    "fraction_of_peak",
    "disturbed",
];

impl Row {
    /// Returns the fields of a measurement; null where one does not apply.
    fn fields(&self) -> [(String, Value); COLUMNS.len()] {
        let m = &self.measurement;
        let (prompt, depth, sequences) = match m.phase {
            Phase::Prefill { prompt } => (Some(prompt), None, None),
            Phase::Decode { depth } => (None, Some(depth), None),
            Phase::Batch { sequences, depth } => (None, Some(depth), Some(sequences)),
        };
        let values = [
            json!(self.precision.name()),
            json!(self.kv_precision.name()),
            json!(self.threads),
            json!(m.phase.name()),
            json!(prompt),
            json!(depth),
            json!(sequences),
            json!(round(m.tokens_per_second.median, 2)),
            json!(round(m.tokens_per_second.iqr, 2)),
            json!(m.tokens_per_second.outliers),
            json!(m.fraction_of_bandwidth.map(|fraction| round(fraction, 4))),
            json!(m.fraction_of_peak.map(|fraction| round(fraction, 4))),
            json!(m.fraction_of_peak.filter(|_| !self.precision.is_quantized()).map(is_disturbed)),
        ];
        named(COLUMNS, values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Summary;

    fn report() -> Report {
        let mut report = Report::new(&Checkpoint::open("fable").unwrap(), false, Isa::Portable, 2);
        report.limits = vec![
            ThreadLimits { threads: 2, bandwidth: Some(31.25e9), peak: None },
            ThreadLimits { threads: 1, bandwidth: Some(2e10), peak: Some(1e11) },
        ];
        let samples = vec![60.789, 61.234];
        let (min, p95) = (60.789, 61.234);
        let speed = Summary { median: 61.234, iqr: 0.5, outliers: 1, min, p95, samples };
        for phase in [Phase::Prefill { prompt: 512 }, Phase::Batch { sequences: 8, depth: 32 }] {
            let measurement = Measurement {
                phase,
                tokens_per_second: speed.clone(),
                fraction_of_bandwidth: Some(0.95678),
                fraction_of_peak: None,
            };
            let kv_precision = KvPrecision::F16;
            report.results.push(Row { precision: Precision::F16, kv_precision, threads: 2, measurement });
        }
        report
    }

    #[test]
    fn inapplicable_field_is_absent_in_json_and_empty_in_csv() {
        let json = report().json();
        assert_eq!(json["machine"]["bandwidth_gb_per_s"], 31.25);
        assert_eq!(json["machine"]["peak_gflops"], Value::Null);
        assert_eq!(
            json["results"][1],
            json!({"precision": "f16", "kv_precision": "f16", "threads": 2, "phase": "batch", "depth": 32,
                   "sequences": 8, "tokens_per_second": 61.23, "iqr": 0.5, "outliers": 1,
                   "fraction_of_bandwidth": 0.9568})
        );
        let csv = report().csv();
        let lines: Vec<_> = csv.lines().collect();
        assert_eq!(lines[0], COLUMNS.join(","));
        assert_eq!(lines[1], "f16,f16,2,prefill,512,,,61.23,0.5,1,0.9568,,");
    }

    #[test]
    fn share_above_peak_is_marked() {
        let mut report = report();
        report.results[0].measurement.fraction_of_peak = Some(1.2);
        report.results[1].measurement.fraction_of_peak = Some(0.8);
        let json = report.json();
        assert_eq!(
            (&json["results"][0]["disturbed"], &json["results"][1]["disturbed"]),
            (&true.into(), &false.into())
        );
        assert!(report.csv().lines().nth(1).unwrap().ends_with(",1.2,true"));
        assert!(report.table().contains("120.0*"));
    }

    #[test]
    fn table_columns_are_aligned() {
        let table = report().table();
        let rows: Vec<_> = table.lines().filter(|line| line.contains("  ")).collect();
        assert_eq!(rows.len(), 3);
        let speed = rows[0].find("tokens/s").unwrap() + "tokens/s".len();
        assert!(rows[1..].iter().all(|row| row[..speed].ends_with(" 61.2")), "{table}");
        assert!(table.contains("2 outliers"), "{table}");
    }
}
