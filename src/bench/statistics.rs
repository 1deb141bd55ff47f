//! Summary statistics of repeated measurements.

/// A sample and its quantiles. Median and quartiles are robust: disturbances of a machine all go one way and
/// would bias a mean.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The median.
    pub median: f64,
    /// The interquartile range.
    pub iqr: f64,
    /// Measurements more than 1.5 · IQR outside the quartiles (Tukey 1977).
    pub outliers: usize,
    /// The smallest measurement.
    pub min: f64,
    /// The 95th percentile.
    pub p95: f64,
    /// The measurements, in the order they were taken.
    pub samples: Vec<f64>,
}

impl Summary {
    /// Summarizes at least one measurement.
    ///
    /// # Panics
    /// If there is none.
    pub fn new(measurements: &[f64]) -> Self {
        let mut sorted = measurements.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (lower, upper) = (quantile(&sorted, 0.25), quantile(&sorted, 0.75));
        let iqr = upper - lower;
        let fences = lower - 1.5 * iqr..=upper + 1.5 * iqr;
        let outliers = sorted.iter().filter(|x| !fences.contains(x)).count();
        let (median, p95) = (quantile(&sorted, 0.5), quantile(&sorted, 0.95));
        Self { median, iqr, outliers, min: sorted[0], p95, samples: measurements.to_vec() }
    }
}

/// Linear interpolation between neighbors, as in numpy (Hyndman and Fan 1996, definition 7).
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = q * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
    below + (above - below) * rank.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_match_numpy() {
        // numpy.percentile([1, 2, 4, 8, 16, 32], [25, 50, 75, 95]) = 2.5, 6, 14, 28
        let samples = vec![32.0, 1.0, 8.0, 2.0, 16.0, 4.0];
        let summary = Summary::new(&samples);
        assert_eq!(summary, Summary { median: 6.0, iqr: 11.5, outliers: 1, min: 1.0, p95: 28.0, samples });
        let one = Summary { median: 3.0, iqr: 0.0, outliers: 0, min: 3.0, p95: 3.0, samples: vec![3.0] };
        assert_eq!(Summary::new(&[3.0]), one);
    }

    #[test]
    fn single_interruption_is_an_outlier_and_keeps_the_median() {
        let mut speeds = vec![100.0, 101.0, 99.0, 100.5, 99.5, 100.2, 99.8];
        let calm = Summary::new(&speeds);
        speeds[3] = 20.0;
        let disturbed = Summary::new(&speeds);
        assert_eq!((calm.outliers, disturbed.outliers), (0, 1));
        assert!((calm.median - disturbed.median).abs() < 0.5);
    }
}
