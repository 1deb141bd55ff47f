//! What a run shows: on a terminal one block that is drawn again after each step, elsewhere lines.

mod chart;
mod panel;

use crate::cli::output::progress;
use crate::cli::output::screen::Screen;
use crate::train::StepReport;
use indicatif::ProgressBar;
use panel::{Panel, format_duration};
use std::path::Path;
use std::time::Duration;

/// Lines written elsewhere than to a terminal, in all.
const LINES: u32 = 20;
/// The steps after which their speed is said.
const MEASURED_STEPS: u32 = 2;

/// The progress of a run.
pub struct Progress {
    block: ProgressBar,
    panel: Panel,
    /// Steps taken since the start, their time and tokens.
    taken: u32,
    time: Duration,
    tokens: usize,
}

impl Progress {
    /// Starts to show a run of `steps` steps, of which those in the log are taken.
    pub fn new(steps: u32, log: &Path) -> Self {
        let mut panel = Panel { steps, ..Panel::default() };
        panel.read_log(&std::fs::read_to_string(log).unwrap_or_default());
        Self { block: progress::block(), panel, taken: 0, time: Duration::ZERO, tokens: 0 }
    }

    /// Shows a step and the time it took.
    pub fn step(&mut self, report: &StepReport, time: Duration) {
        self.tokens += report.tokens;
        self.taken += 1;
        self.time += time;
        let panel = &mut self.panel;
        panel.push_loss(report.step, report.loss);
        panel.learning_rate = report.learning_rate;
        panel.gradient_norm = report.gradient_norm;
        panel.tokens_per_second = self.tokens as f64 / self.time.as_secs_f64();
        let left = panel.steps.saturating_sub(report.step);
        let seconds_per_step = self.time.as_secs_f64() / f64::from(self.taken);
        panel.left = Duration::try_from_secs_f64(seconds_per_step * f64::from(left)).ok();
        if self.is_drawn() {
            return self.draw();
        }
        let panel = &self.panel;
        if self.taken == MEASURED_STEPS && left > 0 {
            let left = panel.left.map_or_else(String::new, format_duration);
            stderr_line!("hornbook: {seconds_per_step:.2} s per step, about {left} left");
        }
        let is_shown = report.step.is_multiple_of((panel.steps / LINES).max(1)) || report.step == panel.steps;
        if is_shown {
            stderr_line!("step {}/{}: {}", report.step, panel.steps, panel.summary());
        }
    }

    /// Whether the block is seen: standard error is a terminal.
    pub fn is_drawn(&self) -> bool {
        Screen::of_stderr().is_some()
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
