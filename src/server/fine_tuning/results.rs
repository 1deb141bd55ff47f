//! A job's table of losses: CSV in which every cell is a number, as `wandb sync` of OpenAI's older client
//! needs it.

use serde_json::Value;
use std::fmt::Write;
use std::path::Path;

/// The file of a run's log.
const LOG: &str = "log.jsonl";
/// The first line.
const HEADER: &str = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy";

/// What was measured after a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measurements {
    /// The step.
    pub step: u64,
    /// The tokens of the step's batch.
    pub tokens: u64,
    /// The mean cross-entropy of the step's batch, in nats per token, and the share of right predictions.
    pub train: [f64; 2],
    /// The same of what is held out, if it was measured after this step.
    pub valid: Option<[f64; 2]>,
}

/// Reads what the log of a run's folder has, a step each; that of step 0 is left out, for nothing was trained
/// by then.
pub fn measurements(run_folder: &Path) -> Vec<Measurements> {
    let text = std::fs::read_to_string(run_folder.join(LOG)).unwrap_or_default();
    let mut all: Vec<Measurements> = vec![];
    for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let number = |name: &str| line[name].as_f64();
        let Some(step) = line["step"].as_u64().filter(|step| *step > 0) else { continue };
        if let Some(loss) = number("loss") {
            let train = [loss, number("accuracy").unwrap_or_default()];
            let tokens = line["tokens"].as_u64().unwrap_or_default();
            all.push(Measurements { step, tokens, train, valid: None });
        }
        let last = all.last_mut().filter(|last| last.step == step);
        if let (Some(last), Some(loss)) = (last, number("held_out_loss")) {
            last.valid = Some([loss, number("held_out_accuracy").unwrap_or_default()]);
        }
    }
    all
}

/// The last step with the lowest held-out loss, whose model a run keeps; the last of all if nothing is held
/// out.
pub fn best(measurements: &[Measurements]) -> Option<&Measurements> {
    let measured = measurements.iter().filter_map(|row| Some((row, row.valid?[0])));
    // Of equals, `min_by` takes the first.
    let best = measured.rev().min_by(|a, b| a.1.total_cmp(&b.1)).map(|(row, _)| row);
    best.or(measurements.last())
}

/// The table. Steps after which nothing was measured have what was measured last, and those before the first
/// measurement what that one found: a cell has to have a number. Without held-out texts these columns are 0.
pub fn table(measurements: &[Measurements]) -> String {
    let first = measurements.iter().find_map(|row| row.valid);
    let mut valid = first.unwrap_or_default();
    let mut csv = format!("{HEADER}\n");
    for row in measurements {
        valid = row.valid.unwrap_or(valid);
        let [loss, accuracy] = row.train;
        // Writing to a String cannot fail.
        let _ = writeln!(csv, "{},{loss:.5},{accuracy:.5},{:.5},{:.5}", row.step, valid[0], valid[1]);
    }
    csv
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_of_the_table_is_a_number() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join(LOG);
        let lines = [
            r#"{"step": 0, "held_out_loss": 5.5, "held_out_accuracy": 0.1}"#,
            r#"{"step": 1, "loss": 5.0, "accuracy": 0.25}"#,
            r#"{"step": 2, "loss": 4.0, "accuracy": 0.5}"#,
            r#"{"step": 2, "held_out_loss": 4.5, "held_out_accuracy": 0.375}"#,
            r#"{"step": 3, "loss": 3.0, "accuracy": 0.75}"#,
            r#"{"step": 4, "lo"#,
        ];
        std::fs::write(&log, lines.join("\n")).unwrap();
        let expected = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n\
                        1,5.00000,0.25000,4.50000,0.37500\n2,4.00000,0.50000,4.50000,0.37500\n\
                        3,3.00000,0.75000,4.50000,0.37500\n";
        let measurements = measurements(folder.path());
        assert_eq!(table(&measurements), expected);
        assert_eq!(measurements[1].valid, Some([4.5, 0.375]));
        assert_eq!(table(&[]).lines().count(), 1);
    }
}
