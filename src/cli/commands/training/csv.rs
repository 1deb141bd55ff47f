//! The log of a run as a table: a row for each step, with what the evaluation after it found.

use crate::{Error, Result};
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

const COLUMNS: [&str; 6] =
    ["step", "loss", "learning_rate", "gradient_norm", "held_out_loss", "tokens_per_second"];

/// A file that grows by a row with each step.
pub struct Csv {
    path: PathBuf,
    file: File,
    /// The last step's values, to which an evaluation may add.
    row: [Option<Value>; COLUMNS.len()],
}

impl Csv {
    /// Creates the file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        let error = |source| Error::Io { path: path.into(), action: "write", source };
        let mut file = File::create(path).map_err(error)?;
        writeln!(file, "{}", COLUMNS.join(",")).map_err(error)?;
        Ok(Self { path: path.into(), file, row: Default::default() })
    }

    /// Adds the steps that are in a log.
    ///
    /// # Errors
    /// [`Error::Io`] if they cannot be written.
    pub fn push_log(&mut self, log: &Path) -> Result<()> {
        let log = std::fs::read_to_string(log).unwrap_or_default();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        lines.try_for_each(|line| self.push(&line))
    }

    /// Adds a line of the log.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn push(&mut self, line: &Value) -> Result<()> {
        if self.row[0].as_ref().is_some_and(|step| *step != line["step"]) {
            self.finish()?;
        }
        for (cell, name) in self.row.iter_mut().zip(COLUMNS) {
            *cell = line.get(name).cloned().or(cell.take());
        }
        Ok(())
    }

    /// Writes the row of the last step.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn finish(&mut self) -> Result<()> {
        let row = std::mem::take(&mut self.row);
        if row[0].is_none() {
            return Ok(());
        }
        // The digits of an f32: those of an f64 differ once it has been in the log.
        let number = |value: Value| match value.as_u64() {
            Some(number) => number.to_string(),
            None => value.as_f64().map_or_else(String::new, |number| (number as f32).to_string()),
        };
        let cells = row.map(|cell| cell.map_or_else(String::new, number));
        writeln!(self.file, "{}", cells.join(",")).map_err(|source| Error::Io {
            path: self.path.clone(),
            action: "write",
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn steps_of_log_and_run_are_rows() {
        let folder = tempfile::tempdir().unwrap();
        let [log, path] = ["log.jsonl", "run.csv"].map(|name| folder.path().join(name));
        let lines = [
            json!({"step": 0, "held_out_loss": 5.5}),
            json!({"step": 0, "held_out_loss": 5.5}),
            json!({"step": 1, "loss": 5.0, "learning_rate": 0.25, "gradient_norm": 2.5, "tokens": 7}),
        ];
        std::fs::write(&log, lines.map(|line| line.to_string()).join("\n")).unwrap();
        let mut csv = Csv::create(&path).unwrap();
        csv.push_log(&log).unwrap();
        csv.push(&json!({"step": 1, "held_out_loss": 4.5})).unwrap();
        csv.push(&json!({"step": 2, "loss": 4.0, "tokens_per_second": 100.0})).unwrap();
        csv.finish().unwrap();
        csv.finish().unwrap();
        let expected = "step,loss,learning_rate,gradient_norm,held_out_loss,tokens_per_second\n\
                        0,,,,5.5,\n1,5,0.25,2.5,4.5,\n2,4,,,,100\n";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        let error = Csv::create(folder.path()).map(drop).unwrap_err().to_string();
        assert!(error.contains("cannot write"), "{error}");
    }
}
