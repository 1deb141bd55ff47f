//! What is shown of a run: its curve and its numbers, as lines.

use super::chart::{Chart, MARK, Point};
use crate::cli::output::screen::{Screen, display_width};
use console::truncate_str;
use std::time::Duration;

/// The lines of the curve.
const CHART_HEIGHT: usize = 8;

/// The last step's part of the running mean of the loss: about ten steps count, of the first steps fewer.
fn smoothing(steps: usize) -> f64 {
    (4.0 / (4.0 + steps as f64)).max(0.1)
}

/// The numbers of a run so far.
#[derive(Clone, Debug, Default)]
pub struct Panel {
    /// The steps of the whole run.
    pub steps: u32,
    pub step: u32,
    /// The running mean of the training loss after each step.
    pub losses: Vec<Point>,
    pub held_out: Vec<Point>,
    pub learning_rate: f32,
    pub gradient_norm: f64,
    pub tokens_per_second: f64,
    /// The time that the steps left will take.
    pub left: Option<Duration>,
    /// What the model writes now.
    pub sample: Option<String>,
}

impl Panel {
    /// Adds the training loss of a step.
    pub fn push_loss(&mut self, step: u32, loss: f64) {
        let part = smoothing(self.losses.len());
        let mean = self.losses.last().map_or(loss, |&(_, mean)| (1.0 - part) * mean + part * loss);
        self.losses.push((step, mean));
        self.step = step;
    }

    /// Adds the lines of a log, of a run that goes on.
    pub fn read_log(&mut self, log: &str) {
        for line in log.lines() {
            let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            let Some(step) = line["step"].as_u64().and_then(|step| u32::try_from(step).ok()) else {
                continue;
            };
            if let Some(loss) = line["loss"].as_f64() {
                self.push_loss(step, loss);
            }
            self.held_out.extend(line["held_out_loss"].as_f64().map(|loss| (step, loss)));
        }
    }

    /// The numbers in one line: loss, held-out loss, tokens per second.
    pub fn summary(&self) -> String {
        let loss = self.losses.last().map_or(f64::NAN, |&(_, loss)| loss);
        let held_out =
            self.held_out.last().map_or(String::new(), |(_, loss)| format!(", held out {loss:.3}"));
        format!("loss {loss:.3}{held_out}, {:.0} tokens/s", self.tokens_per_second)
    }

    /// All lines of a block.
    pub fn lines(&self, screen: Screen) -> Vec<String> {
        let chart = Chart { losses: &self.losses, held_out: &self.held_out, steps: self.steps };
        let mut lines = chart.lines(screen.width, CHART_HEIGHT);
        for line in &mut lines {
            *line = line.replace(MARK, &screen.highlight(&MARK.to_string()));
        }
        let percent = 100.0 * f64::from(self.step) / f64::from(self.steps.max(1));
        let left = self.left.map_or(String::new(), |left| format!(", {} left", format_duration(left)));
        let mut numbers = vec![format!("step {} of {} ({percent:.0} %){left}", self.step, self.steps)];
        if let Some((_, loss)) = self.losses.last() {
            numbers.push(format!("loss {loss:.3}"));
        }
        if let Some((_, loss)) = self.held_out.last() {
            numbers.push(format!("{} held out {loss:.3}", screen.highlight(&MARK.to_string())));
        }
        if !self.losses.is_empty() {
            numbers.push(format!("learning rate {:.1e}", self.learning_rate));
            numbers.push(format!("gradient norm {:.2}", self.gradient_norm));
            numbers.push(format!("{:.0} tokens/s", self.tokens_per_second));
        }
        lines.extend(in_lines(&numbers, screen.width));
        if let Some(sample) = &self.sample {
            let text: String = sample.split_whitespace().collect::<Vec<_>>().join(" ");
            let text: String = text.chars().filter(|c| !c.is_control()).collect();
            lines.push(screen.dim(&truncate_str(&text, screen.width, "…")));
        }
        lines
    }
}

/// Puts parts side by side, as many in a line as fit.
fn in_lines(parts: &[String], width: usize) -> Vec<String> {
    const GAP: &str = "   ";
    let mut lines: Vec<String> = vec![];
    for part in parts {
        match lines.last_mut() {
            Some(line) if display_width(line) + GAP.len() + display_width(part) <= width => {
                *line += &format!("{GAP}{part}");
            }
            _ => lines.push(truncate_str(part, width, "…").into_owned()),
        }
    }
    lines
}

/// A duration as people say it: `45 s`, `12 min`, `3 h 20 min`.
pub fn format_duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round() as u64;
    let minutes = (seconds + 30) / 60;
    match minutes {
        _ if seconds < 90 => format!("{seconds} s"),
        0..90 => format!("{minutes} min"),
        _ => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(width: usize, color: bool) -> Screen {
        Screen { width, color }
    }

    fn panel() -> Panel {
        let mut panel = Panel { steps: 4, learning_rate: 3e-4, gradient_norm: 0.75, ..Panel::default() };
        panel.tokens_per_second = 4120.4;
        panel.left = Some(Duration::from_secs(200));
        panel.read_log(
            "{\"step\": 0, \"held_out_loss\": 4.0}\n{\"step\": 1, \"loss\": 4.0}\nbroken\n\
             {\"step\": 2, \"loss\": 3.0}\n{\"step\": 2, \"held_out_loss\": 3.5}",
        );
        panel
    }

    #[test]
    fn block_has_curve_numbers_and_sample() {
        let mut panel = panel();
        panel.sample = Some("Once\nupon\ta time \x1b[31mthere".into());
        let lines = panel.lines(screen(60, false));
        assert_eq!(lines.len(), CHART_HEIGHT + 4);
        assert!(lines[0].starts_with("4.00 ●") && lines[CHART_HEIGHT - 1].starts_with("3.20 "), "{lines:#?}");
        let expected = [
            "step 2 of 4 (50 %), 3 min left   loss 3.200",
            "● held out 3.500   learning rate 3.0e-4   gradient norm 0.75",
            "4120 tokens/s",
            "Once upon a time [31mthere",
        ];
        assert_eq!(lines[CHART_HEIGHT..], expected);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let mut panel = panel();
        panel.sample = Some("word ".repeat(100));
        for width in [10, 40, 80, 200] {
            for color in [false, true] {
                let lines = panel.lines(screen(width, color));
                let widest = lines.iter().map(|line| display_width(line)).max();
                assert!(widest.is_some_and(|widest| widest <= width), "{width}: {lines:#?}");
                assert_eq!(lines.iter().any(|line| line.contains('\x1b')), color, "{lines:#?}");
            }
        }
    }

    #[test]
    fn run_without_numbers_has_a_line() {
        let panel = Panel { steps: 7, ..Panel::default() };
        assert_eq!(panel.lines(screen(80, false)), ["step 0 of 7 (0 %)"]);
    }

    #[test]
    fn summary_is_smoothed() {
        assert_eq!(panel().summary(), "loss 3.200, held out 3.500, 4120 tokens/s");
    }

    #[test]
    fn durations_are_rounded() {
        for (seconds, expected) in [
            (0, "0 s"),
            (89, "89 s"),
            (90, "2 min"),
            (3570, "60 min"),
            (5399, "1 h 30 min"),
            (12000, "3 h 20 min"),
        ] {
            assert_eq!(format_duration(Duration::from_secs(seconds)), expected);
        }
    }
}
