//! What lies in a job's folder beside the job itself and its events.

use std::fs;
use std::path::{Path, PathBuf};

/// The examples that a job is trained on.
pub const TRAINING: &str = "training.jsonl";
/// The examples that it is measured on, if they are a file of their own.
pub const VALIDATION: &str = "validation.jsonl";
/// The folder of the run, which holds the result.
const RUN: &str = "run";
/// The folder in that of the run with the model of the last step, if that is not the result.
const LAST: &str = "last";

/// The folder of a job's run.
pub fn run_folder(job_folder: &Path) -> PathBuf {
    job_folder.join(RUN)
}

/// The folder of the model of the last step, if it is there and not the result.
pub fn last_folder(job_folder: &Path) -> Option<PathBuf> {
    Some(run_folder(job_folder).join(LAST)).filter(|last| last.is_dir())
}

/// Removes the examples, which a job needs until it ends.
pub fn remove_data(job_folder: &Path) {
    for name in [TRAINING, VALIDATION] {
        let _ = fs::remove_file(job_folder.join(name));
    }
}

/// Removes the run with its result.
pub fn remove_run(job_folder: &Path) {
    let _ = fs::remove_dir_all(run_folder(job_folder));
}

/// Removes the model of the last step.
pub fn remove_last(job_folder: &Path) {
    let _ = fs::remove_dir_all(run_folder(job_folder).join(LAST));
}
