//! What a run shows: a line for each part before it starts, then a bar on a terminal, or lines elsewhere.

use crate::cli::output::progress;
use crate::train::StepReport;
use indicatif::ProgressBar;
use std::io::{IsTerminal, stderr};
use std::time::Instant;

/// Lines written elsewhere than to a terminal, in all.
const LINES: u32 = 20;

/// The progress of a run.
pub struct Progress {
    bar: ProgressBar,
    steps: u32,
    start: Instant,
    /// Tokens read since the start.
    tokens: usize,
    /// The running mean of the loss.
    loss: f64,
    valid_loss: Option<f64>,
}

impl Progress {
    /// Starts to show a run of `steps` steps, of which `done` are taken.
    pub fn new(steps: u32, done: u32) -> Self {
        let bar = progress::bar(steps as usize);
        bar.set_position(u64::from(done));
        bar.reset_eta();
        Self { bar, steps, start: Instant::now(), tokens: 0, loss: f64::NAN, valid_loss: None }
    }

    /// Shows a step.
    pub fn step(&mut self, report: &StepReport) {
        // The mean of about ten steps.
        self.loss = if self.loss.is_nan() { report.loss } else { 0.9 * self.loss + 0.1 * report.loss };
        self.tokens += report.tokens;
        let speed = self.tokens as f64 / self.start.elapsed().as_secs_f64();
        let valid = self.valid_loss.map_or_else(String::new, |loss| format!(", held out {loss:.3}"));
        let message = format!("loss {:.3}{valid}, {speed:.0} tokens/s", self.loss);
        self.bar.set_position(u64::from(report.step));
        self.bar.set_message(message.clone());
        let is_shown = report.step.is_multiple_of((self.steps / LINES).max(1)) || report.step == self.steps;
        if is_shown && !stderr().is_terminal() {
            stderr_line!("step {}/{}: {message}", report.step, self.steps);
        }
    }

    /// Shows the loss of what is held out.
    pub fn evaluated(&mut self, loss: f64) {
        self.valid_loss = Some(loss);
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
