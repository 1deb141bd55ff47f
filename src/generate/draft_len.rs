//! How many tokens a draft model drafts: as many as pay.
//!
//! With a share α of accepted tokens, a pass over a draft of k tokens yields `1 + α + … + α^k` tokens
//! (Leviathan et al. 2023, equation 1). For n sequences it takes `plain + n · k · row` seconds, after
//! `k · draft` seconds of drafting. All of these are measured as the texts go on, and k is the number with
//! the most tokens a second: 0 if the model is as fast as its copy, or the copy seldom right.

/// Maximum tokens of a draft.
pub(super) const MAX_DRAFT_LEN: usize = 8;
/// How much faster drafting must be, to be worth its uncertainty.
const MIN_GAIN: f64 = 1.03;
/// Passes without a draft after which one token is drafted, in case it pays now.
const RETRY_INTERVAL: usize = 64;
/// Weight of a new measurement in its moving average.
const SMOOTHING: f64 = 0.1;

/// The share of draft tokens that are accepted, α.
#[derive(Clone, Copy, Debug)]
pub(super) struct AcceptanceRate {
    average: f64,
    n_recorded: u32,
}

impl Default for AcceptanceRate {
    /// What a copy in int4 reaches on most texts.
    fn default() -> Self {
        Self { average: 0.8, n_recorded: 2 }
    }
}

impl AcceptanceRate {
    /// Records whether a draft token was accepted. The first ones count most.
    pub(super) fn record(&mut self, is_accepted: bool) {
        self.n_recorded += 1;
        let weight = SMOOTHING.max(1.0 / f64::from(self.n_recorded));
        self.average += weight * (f64::from(u8::from(is_accepted)) - self.average);
    }
}

/// What passes with and without drafts cost, for a number of sequences.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DraftLen {
    cost: Cost,
    /// Passes since the last draft.
    idle: usize,
}

/// Moving averages of seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    /// A pass of the model over one token of each sequence.
    plain: f64,
    /// What each further token adds to the pass.
    row: f64,
    /// Drafting a token of each sequence.
    draft: f64,
}

impl DraftLen {
    /// The length of the next draft of `n` sequences, at most `max`.
    pub(super) fn next(&mut self, n: usize, rate: AcceptanceRate, max: usize) -> usize {
        self.idle += 1;
        let len = match self.cost {
            Cost { plain: 0.0, .. } => 0, // the first pass is without a draft, to time it
            Cost { draft: 0.0, .. } => 1,
            cost => cost.best_len(n, rate.average, max).max(usize::from(self.idle > RETRY_INTERVAL)),
        };
        if len > 0 {
            self.idle = 0;
        }
        len.min(max)
    }

    /// Records the seconds of drafting `len` tokens of each sequence.
    pub(super) fn record_draft(&mut self, len: usize, seconds: f64) {
        update(&mut self.cost.draft, seconds / len as f64);
    }

    /// Records the seconds of a pass over one token of each sequence, and `drafted` further ones.
    pub(super) fn record_pass(&mut self, drafted: usize, seconds: f64) {
        let cost = &mut self.cost;
        match drafted {
            0 => update(&mut cost.plain, seconds),
            n => update(&mut cost.row, (seconds - cost.plain).max(0.0) / n as f64),
        }
    }
}

impl Cost {
    /// The length with the most tokens a second.
    fn best_len(&self, n: usize, acceptance_rate: f64, max: usize) -> usize {
        let rate = |k: usize| {
            let tokens: f64 = (0..=k).map(|i| acceptance_rate.powi(i as i32)).sum();
            tokens / (self.plain + k as f64 * (n as f64 * self.row + self.draft))
        };
        let best = (1..=max).max_by(|&a, &b| rate(a).total_cmp(&rate(b)));
        best.filter(|&k| rate(k) > MIN_GAIN * rate(0)).unwrap_or(0)
    }
}

fn update(average: &mut f64, value: f64) {
    *average = if *average == 0.0 { value } else { *average + SMOOTHING * (value - *average) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GPT-2 small in f32 and its copy in int4, in milliseconds.
    const GPT2: Cost = Cost { plain: 16.2, row: 0.35, draft: 2.8 };

    #[test]
    fn draft_is_as_long_as_it_pays() {
        assert_eq!(GPT2.best_len(1, 0.9, 8), 7);
        assert_eq!(GPT2.best_len(1, 0.9, 3), 3);
        assert_eq!(GPT2.best_len(1, 0.1, 8), 0, "seldom right");
        assert_eq!(Cost { draft: 16.0, ..GPT2 }.best_len(1, 0.9, 8), 0, "as slow as the model");
        assert_eq!(GPT2.best_len(1, 0.9, 0), 0);
        assert_eq!(Cost { draft: 0.1, row: 0.1, ..GPT2 }.best_len(1, 1.0, 8), 8);
        assert!(GPT2.best_len(4, 0.9, 8) < 7, "four rows a token");
        assert_eq!(Cost { row: 3.0, ..GPT2 }.best_len(16, 0.9, 8), 0, "bound by arithmetic");
    }

    #[test]
    fn lengths_are_measured_first_and_tried_again_now_and_then() {
        let (mut len, mut rate) = (DraftLen::default(), AcceptanceRate::default());
        assert_eq!(len.next(1, rate, 8), 0);
        len.record_pass(0, 16.2);
        assert_eq!(len.next(1, rate, 8), 1);
        len.record_draft(1, 2.8);
        len.record_pass(1, 16.5);
        assert!(len.next(1, rate, 8) > 3);
        let rejections = (1..).find(|_| {
            rate.record(false);
            len.next(1, rate, 8) == 0
        });
        assert!(rejections.unwrap() < 7, "{rejections:?}");
        let drafts = (0..1000).filter(|_| len.next(1, rate, 8) > 0).count();
        assert_eq!(drafts, 1000 / (RETRY_INTERVAL + 1));
    }
}
