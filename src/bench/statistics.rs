//! What many measurements of one thing say together.

/// The middle of some measurements and how far they lie apart. Medians and quartiles, since a machine's disturbances
/// all go one way and a mean would follow them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Half of the measurements are above, half below.
    pub median: f64,
    /// The interquartile range: how wide the middle half is.
    pub spread: f64,
    /// Measurements further than 1.5 · spread outside the middle half (Tukey 1977).
    pub outliers: usize,
}

impl Summary {
    /// Of at least one measurement.
    ///
    /// # Panics
    /// Where there is none.
    pub fn of(measurements: &[f64]) -> Self {
        let mut sorted = measurements.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (lower, upper) = (quantile(&sorted, 0.25), quantile(&sorted, 0.75));
        let spread = upper - lower;
        let middle = lower - 1.5 * spread..=upper + 1.5 * spread;
        let outliers = sorted.iter().filter(|x| !middle.contains(x)).count();
        Self { median: quantile(&sorted, 0.5), spread, outliers }
    }
}

/// Between two neighbours in proportion, as numpy does (Hyndman and Fan 1996, definition 7).
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    below + (above - below) * at.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_numpys() {
        // numpy.percentile([1, 2, 4, 8, 16, 32], [25, 50, 75]) = 2.5, 6, 14
        let summary = Summary::of(&[32.0, 1.0, 8.0, 2.0, 16.0, 4.0]);
        assert_eq!(summary, Summary { median: 6.0, spread: 11.5, outliers: 1 });
        assert_eq!(Summary::of(&[3.0]), Summary { median: 3.0, spread: 0.0, outliers: 0 });
    }

    #[test]
    fn one_interruption_is_an_outlier_and_moves_nothing() {
        let mut speeds = vec![100.0, 101.0, 99.0, 100.5, 99.5, 100.2, 99.8];
        let calm = Summary::of(&speeds);
        speeds[3] = 20.0;
        let disturbed = Summary::of(&speeds);
        assert_eq!((calm.outliers, disturbed.outliers), (0, 1));
        assert!((calm.median - disturbed.median).abs() < 0.5);
    }
}
