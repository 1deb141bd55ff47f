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
/// Passes without a draft after which one token is drafted, in case it pays now; and passes with drafts after
/// which one is without, to time it again.
const RETRY_INTERVAL: usize = 64;
/// Weight of a new measurement in its moving average; the first ones weigh more.
const SMOOTHING: f64 = 0.1;

/// A moving average.
#[derive(Clone, Copy, Debug, Default)]
struct Average {
    value: f64,
    n_recorded: u32,
}

impl Average {
    fn record(&mut self, value: f64) {
        self.n_recorded += 1;
        self.value += SMOOTHING.max(1.0 / f64::from(self.n_recorded)) * (value - self.value);
    }

    fn is_known(&self) -> bool {
        self.n_recorded > 0
    }
}

/// The share of draft tokens that are accepted, α.
#[derive(Clone, Copy, Debug)]
pub(super) struct AcceptanceRate(Average);

impl Default for AcceptanceRate {
    /// What a copy in int4 reaches on most texts.
    fn default() -> Self {
        Self(Average { value: 0.8, n_recorded: 2 })
    }
}

impl AcceptanceRate {
    /// Records whether a draft token was accepted.
    pub(super) fn record(&mut self, is_accepted: bool) {
        self.0.record(f64::from(u8::from(is_accepted)));
    }
}

/// What passes with and without drafts cost, for a number of sequences.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DraftLen {
    cost: Cost,
    /// Passes since the last one with a draft, and without.
    since_draft: usize,
    since_plain: usize,
}

/// Seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    /// A pass of the model over one token of each sequence.
    plain: Average,
    /// What each further token adds to the pass.
    row: Average,
    /// Drafting a token of each sequence.
    draft: Average,
}

impl DraftLen {
    /// The length of the next draft of `n` sequences, at most `max`.
    pub(super) fn next(&mut self, n: usize, rate: AcceptanceRate, max: usize) -> usize {
        (self.since_draft, self.since_plain) = (self.since_draft + 1, self.since_plain + 1);
        let cost = &self.cost;
        let len = if !cost.plain.is_known() || self.since_plain > RETRY_INTERVAL {
            0
        } else if !cost.draft.is_known() {
            1
        } else {
            cost.best_len(n, rate.0.value, max).max(usize::from(self.since_draft > RETRY_INTERVAL))
        };
        match len {
            0 => self.since_plain = 0,
            _ => self.since_draft = 0,
        }
        len.min(max)
    }

    /// Whether tokens that cost no drafting pay for `n` sequences: those that a text repeats are right about
    /// every other time.
    pub(super) fn lookup_pays(&self, n: usize) -> bool {
        n as f64 * self.cost.row.value <= 0.5 * self.cost.plain.value
    }

    /// Records the seconds of drafting `len` tokens of each sequence.
    pub(super) fn record_draft(&mut self, len: usize, seconds: f64) {
        self.cost.draft.record(seconds / len as f64);
    }

    /// Records the seconds of a pass over one token of each sequence, and `drafted` further ones.
    pub(super) fn record_pass(&mut self, drafted: usize, seconds: f64) {
        let cost = &mut self.cost;
        match drafted {
            0 => cost.plain.record(seconds),
            n => cost.row.record((seconds - cost.plain.value).max(0.0) / n as f64),
        }
    }
}

impl Cost {
    /// The length with the most tokens a second.
    fn best_len(&self, n: usize, acceptance_rate: f64, max: usize) -> usize {
        let rate = |k: usize| {
            let tokens: f64 = (0..=k).map(|i| acceptance_rate.powi(i as i32)).sum();
            tokens / (self.plain.value + k as f64 * (n as f64 * self.row.value + self.draft.value))
        };
        let best = (1..=max).max_by(|&a, &b| rate(a).total_cmp(&rate(b)));
        best.filter(|&k| rate(k) > MIN_GAIN * rate(0)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cost in milliseconds.
    fn cost(plain: f64, row: f64, draft: f64) -> Cost {
        let [plain, row, draft] = [plain, row, draft].map(|value| Average { value, n_recorded: 1 });
        Cost { plain, row, draft }
    }

    #[test]
    fn draft_is_as_long_as_it_pays() {
        let gpt2 = cost(16.2, 0.35, 2.8); // small, in f32, and its copy in int4
        assert_eq!(gpt2.best_len(1, 0.9, 8), 7);
        assert_eq!(gpt2.best_len(1, 0.9, 3), 3);
        assert_eq!(gpt2.best_len(1, 0.1, 8), 0, "seldom right");
        assert_eq!(cost(16.2, 0.35, 16.0).best_len(1, 0.9, 8), 0, "as slow as the model");
        assert_eq!(gpt2.best_len(1, 0.9, 0), 0);
        assert_eq!(cost(16.2, 0.1, 0.1).best_len(1, 1.0, 8), 8);
        assert!(gpt2.best_len(4, 0.9, 8) < 7, "four rows a token");
        assert_eq!(cost(16.2, 3.0, 2.8).best_len(16, 0.9, 8), 0, "bound by arithmetic");
        let pays = |cost, n| DraftLen { cost, ..DraftLen::default() }.lookup_pays(n);
        assert!(pays(gpt2, 1) && pays(Cost::default(), 9) && !pays(cost(58.0, 5.5, 8.0), 8));
    }

    #[test]
    fn a_pass_without_a_draft_is_timed_now_and_then() {
        let (mut len, rate) =
            (DraftLen { cost: cost(9.0, 0.1, 3.0), ..DraftLen::default() }, AcceptanceRate::default());
        let plain = (0..1000).filter(|_| len.next(1, rate, 8) == 0).count();
        assert_eq!(plain, 1000 / (RETRY_INTERVAL + 1));
        // The first was slow, by accident.
        (0..20).for_each(|_| len.record_pass(0, 2.0));
        assert!(len.cost.plain.value < 3.0 && len.next(1, rate, 8) == 0, "{len:?}");
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
