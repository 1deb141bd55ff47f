//! What a run shows: on a terminal one block that is drawn again after each step, elsewhere lines.

mod chart;
mod panel;

use crate::cli::output::progress;
use crate::cli::output::screen::Screen;
use crate::train::StepReport;
use indicatif::ProgressBar;
use panel::Panel;
pub use panel::format_duration;
use std::path::Path;
use std::time::{Duration, Instant};

/// Lines written elsewhere than to a terminal, in all.
const LINES: u32 = 20;

/// The progress of a run.
pub struct Progress {
    block: ProgressBar,
    panel: Panel,
    /// Steps taken by an earlier process.
    done: u32,
    start: Instant,
    /// Tokens read since the start.
    tokens: usize,
}

impl Progress {
    /// Starts to show a run of `steps` steps, of which `done` are taken and have lines in the log.
    pub fn new(steps: u32, done: u32, log: &Path) -> Self {
        let mut panel = Panel { steps, ..Panel::default() };
        panel.read_log(&std::fs::read_to_string(log).unwrap_or_default());
        Self { block: progress::block(), panel, done, start: Instant::now(), tokens: 0 }
    }

    /// Shows a step.
    pub fn step(&mut self, report: &StepReport) {
        let Self { panel, start, tokens, done, .. } = self;
        *tokens += report.tokens;
        let seconds = start.elapsed().as_secs_f64();
        panel.push_loss(report.step, report.loss);
        panel.learning_rate = report.learning_rate;
        panel.gradient_norm = report.gradient_norm;
        panel.tokens_per_second = *tokens as f64 / seconds;
        let taken = report.step.saturating_sub(*done).max(1);
        let left = seconds / f64::from(taken) * f64::from(panel.steps.saturating_sub(report.step));
        panel.left = Duration::try_from_secs_f64(left).ok();
        let is_shown = report.step.is_multiple_of((panel.steps / LINES).max(1)) || report.step == panel.steps;
        if is_shown && Screen::of_stderr().is_none() {
            stderr_line!("step {}/{}: {}", report.step, panel.steps, panel.summary());
        }
        self.draw();
    }

    /// Shows the loss of what is held out.
    pub fn evaluated(&mut self, loss: f64) {
        self.panel.held_out.push((self.panel.step, loss));
        self.draw();
    }

    /// Shows what the model writes.
    pub fn sample(&mut self, text: String) {
        self.panel.sample = Some(text);
        self.draw();
    }

    fn draw(&self) {
        if let Some(screen) = Screen::of_stderr() {
            self.block.set_message(self.panel.lines(screen).join("\n"));
        }
    }

    /// Leaves the block as it is.
    pub fn finish(&self) {
        self.block.abandon();
    }
}
