//! The curve of a loss in block characters, with the held-out losses marked on it.

/// Cells from empty to full.
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// A held-out loss.
pub const MARK: char = '●';

/// A loss after a number of steps.
pub type Point = (u32, f64);

/// A curve over all steps of a run.
pub struct Chart<'a> {
    /// The training loss, by rising step.
    pub losses: &'a [Point],
    /// The held-out losses, by rising step.
    pub held_out: &'a [Point],
    /// The steps of the whole run, those to come included.
    pub steps: u32,
}

impl Chart<'_> {
    /// Draws lines of `width` columns, the loss at the top and at the bottom on their left. None if there is
    /// nothing to draw yet, or no room.
    pub fn lines(&self, width: usize, height: usize) -> Vec<String> {
        let all = || self.losses.iter().chain(self.held_out).map(|&(_, loss)| loss);
        let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
        let labels = [high, low].map(|loss| format!("{loss:.2} "));
        let margin = labels.iter().map(String::len).max().unwrap_or_default();
        let columns = width.saturating_sub(margin);
        if !(low.is_finite() && high.is_finite()) || columns == 0 || height == 0 {
            return vec![];
        }
        // A column of the lowest loss is an eighth of a cell high, so that it is seen.
        let eighths = (height * 8 - 1) as f64;
        let level = |loss: f64| match high > low {
            true => 1 + ((loss - low) / (high - low) * eighths).round() as usize,
            false => height * 4,
        };
        let mut cells = vec![vec![' '; columns]; height];
        for (column, loss) in self.columns(columns).into_iter().enumerate() {
            let Some(loss) = loss else { continue };
            for (row, line) in cells.iter_mut().rev().enumerate() {
                line[column] = BLOCKS[level(loss).saturating_sub(row * 8).min(8)];
            }
        }
        for &(step, loss) in self.held_out {
            let row = height - 1 - (level(loss) - 1) / 8;
            cells[row][self.column(step, columns)] = MARK;
        }
        let label = |row: usize| match row {
            0 => &*labels[0],
            row if row + 1 == height => &labels[1],
            _ => "",
        };
        let line = |(row, cells): (usize, Vec<char>)| {
            let text = format!("{:>margin$}{}", label(row), cells.into_iter().collect::<String>());
            text.trim_end().to_string()
        };
        cells.into_iter().enumerate().map(line).collect()
    }

    /// The mean loss of the steps of each column. A step ends in its column: those before it that have none
    /// are its own as well.
    fn columns(&self, n: usize) -> Vec<Option<f64>> {
        let mut sums = vec![(0.0, 0u32); n];
        for &(step, loss) in self.losses {
            let sum = &mut sums[self.column(step, n)];
            *sum = (sum.0 + loss, sum.1 + 1);
        }
        let mut next = None;
        let mut means: Vec<Option<f64>> = vec![None; n];
        for (mean, (sum, count)) in means.iter_mut().zip(sums).rev() {
            next = if count > 0 { Some(sum / f64::from(count)) } else { next };
            *mean = next;
        }
        means
    }

    /// The column of a step, of which the last one's is the last.
    fn column(&self, step: u32, columns: usize) -> usize {
        let share = f64::from(step) / f64::from(self.steps.max(1));
        ((share * columns as f64).ceil() as usize).clamp(1, columns) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curve_falls_to_the_right_and_ends_at_the_last_step() {
        let losses: Vec<Point> = (1..=8).map(|step| (step, f64::from(9 - step))).collect();
        let chart = Chart { losses: &losses, held_out: &[], steps: 10 };
        assert_eq!(
            chart.lines(15, 2),
            [
                "8.00 █▆▄▂",
                "1.00 ████▇▅▃▁", //
            ]
        );
    }

    #[test]
    fn held_out_losses_are_marked_at_their_height() {
        let losses = [(1, 5.0), (2, 4.0), (3, 3.0), (4, 1.0)];
        let chart = Chart { losses: &losses, held_out: &[(0, 5.0), (4, 2.9)], steps: 4 };
        assert_eq!(
            chart.lines(9, 3),
            [
                "5.00 ●▂", //
                "     ██▅●",
                "1.00 ███▁",
            ]
        );
    }

    #[test]
    fn many_steps_share_a_column_and_few_fill_several() {
        let many: Vec<Point> = (1..=100).map(|step| (step, if step <= 50 { 2.0 } else { 1.0 })).collect();
        let chart = Chart { losses: &many, held_out: &[], steps: 100 };
        assert_eq!(chart.lines(9, 1), ["2.00 ██▁▁"]);
        let chart = Chart { losses: &[(1, 2.0), (2, 1.0)], held_out: &[], steps: 2 };
        assert_eq!(chart.lines(9, 1), ["2.00 ██▁▁"]);
    }

    #[test]
    fn nothing_is_drawn_without_numbers_or_room() {
        let nothing = Chart { losses: &[], held_out: &[], steps: 10 };
        let constant = Chart { losses: &[(1, 2.0)], held_out: &[], steps: 0 };
        assert!(nothing.lines(80, 4).is_empty() && constant.lines(3, 4).is_empty());
        assert!(constant.lines(80, 0).is_empty());
        assert_eq!(constant.lines(7, 2), ["2.00", "2.00 ██"]);
    }
}
