//! How many tokens a draft model drafts: as many as pay.
//!
//! A draft model that is sure of a token is mostly right. How sure it is shows in the *margin*: by how much
//! the token's score is above the next one's, with the noise of the draw
//! ([`gumbel`](crate::sampling::gumbel)). The share of accepted tokens, α, is counted by margin. A draft of k
//! tokens is expected to yield `1 + α₁ + α₁·α₂ + …` tokens (Leviathan et al. 2023, equation 1, with an α for
//! each token). For n sequences a pass takes `plain + n · k · row` seconds, after `k · draft` seconds of
//! drafting. All of these are measured as the texts go on. Another token is drafted as long as that raises
//! the expected tokens a second: none if the model is as fast as its copy, or the copy seldom right.

/// Maximum tokens of a draft: with the last token, the rows of the tallest register tile but one.
pub(super) const MAX_DRAFT_LEN: usize = 12;
/// How much faster drafting must be, to be worth its uncertainty.
const MIN_GAIN: f64 = 1.03;
/// Passes without a draft after which one token is drafted, in case it pays now; and passes with drafts after
/// which one is without, to time it again.
const RETRY_INTERVAL: usize = 64;
/// Weight of a new measurement in its moving average; the first ones weigh more.
const SMOOTHING: f64 = 0.1;
/// The margins, in nats, from which on tokens are counted apart.
const MARGINS: [f32; 5] = [0.1, 0.25, 0.5, 1.0, 2.0];

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

/// The share of draft tokens that are accepted, α, in all and by margin.
#[derive(Clone, Copy, Debug)]
pub(super) struct AcceptanceRate {
    all: Average,
    by_margin: [Average; MARGINS.len() + 1],
}

impl Default for AcceptanceRate {
    /// What a copy in int4 reaches on most texts.
    fn default() -> Self {
        let average = |value| Average { value, n_recorded: 2 };
        Self { all: average(0.8), by_margin: [0.5, 0.6, 0.75, 0.9, 0.97, 0.99].map(average) }
    }
}

impl AcceptanceRate {
    /// Records whether a draft token of this margin was accepted.
    pub(super) fn record(&mut self, margin: f32, is_accepted: bool) {
        let value = f64::from(u8::from(is_accepted));
        self.all.record(value);
        self.by_margin[Self::class(margin)].record(value);
    }

    /// The share of all tokens.
    pub(super) fn average(&self) -> f64 {
        self.all.value
    }

    /// The probability that all tokens of these margins are accepted.
    pub(super) fn of_all(&self, margins: &[f32]) -> f64 {
        margins.iter().map(|&margin| self.by_margin[Self::class(margin)].value).product()
    }

    fn class(margin: f32) -> usize {
        MARGINS.partition_point(|&lowest| lowest <= margin)
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
    /// The maximum length, up to `max`, of the next draft of `n` sequences: 0 if none pays.
    pub(super) fn limit(&mut self, n: usize, rate: AcceptanceRate, max: usize) -> usize {
        (self.since_draft, self.since_plain) = (self.since_draft + 1, self.since_plain + 1);
        let cost = &self.cost;
        let limit = if !cost.plain.is_known() || self.since_plain > RETRY_INTERVAL {
            0
        } else if !cost.draft.is_known() {
            1
        } else if cost.gain(n, rate.average()) > MIN_GAIN {
            max
        } else {
            usize::from(self.since_draft > RETRY_INTERVAL)
        };
        match limit {
            0 => self.since_plain = 0,
            _ => self.since_draft = 0,
        }
        limit.min(max)
    }

    /// Whether another token of each of `n` sequences pays, of which `next` are expected to be accepted,
    /// after `len` with which the pass is expected to yield `tokens`.
    pub(super) fn pays(&self, n: usize, len: usize, tokens: f64, next: f64) -> bool {
        let token = self.cost.of_token(n);
        next * (self.cost.plain.value + len as f64 * token) > tokens * token
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
    /// The seconds of another token of each of `n` sequences.
    fn of_token(&self, n: usize) -> f64 {
        n as f64 * self.row.value + self.draft.value
    }

    /// The speed with a draft of one token, divided by that without.
    fn gain(&self, n: usize, acceptance_rate: f64) -> f64 {
        (1.0 + acceptance_rate) * self.plain.value / (self.plain.value + self.of_token(n))
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

    fn draft_len(cost: Cost) -> DraftLen {
        DraftLen { cost, since_draft: 0, since_plain: 0 }
    }

    /// The length of a draft whose tokens all have this margin.
    fn len(cost: Cost, n: usize, margin: f32, max: usize) -> usize {
        let (mut draft_len, rate) = (draft_len(cost), AcceptanceRate::default());
        let limit = draft_len.limit(n, rate, max);
        let mut tokens = n as f64;
        for len in 1..=limit {
            let accepted = n as f64 * rate.of_all(&vec![margin; len]);
            tokens += accepted;
            if !draft_len.pays(n, len, tokens, accepted * rate.average()) {
                return len;
            }
        }
        limit
    }

    #[test]
    fn draft_is_as_long_as_it_pays() {
        let gpt2 = cost(16.2, 0.35, 2.8); // small, in f32, and its copy in int4
        assert_eq!([3.0, 0.7, 0.3, 0.0].map(|margin| len(gpt2, 1, margin, 12)), [12, 6, 4, 2]);
        assert_eq!(len(gpt2, 1, 3.0, 5), 5);
        assert_eq!(len(gpt2, 1, 3.0, 0), 0);
        assert_eq!(len(cost(16.2, 0.35, 16.0), 1, 3.0, 12), 0, "as slow as the model");
        assert!(len(gpt2, 4, 0.7, 12) < 6, "four rows a token");
        assert_eq!(len(cost(16.2, 3.0, 2.8), 16, 3.0, 12), 0, "bound by arithmetic");
        let pays = |cost, n| draft_len(cost).lookup_pays(n);
        assert!(pays(gpt2, 1) && pays(Cost::default(), 9) && !pays(cost(58.0, 5.5, 8.0), 8));
    }

    #[test]
    fn acceptance_is_counted_by_margin() {
        let mut rate = AcceptanceRate::default();
        for i in 0..1000 {
            rate.record(0.05, i % 2 == 0);
            rate.record(f32::INFINITY, true);
        }
        assert!((rate.of_all(&[0.0]) - 0.5).abs() < 0.1 && rate.of_all(&[9.0, 2.0]) > 0.99, "{rate:?}");
        assert!((rate.average() - 0.75).abs() < 0.1, "{rate:?}");
        assert!((rate.of_all(&[0.1, 0.3]) - 0.6 * 0.75).abs() < 1e-9, "nothing was recorded: {rate:?}");
    }

    #[test]
    fn a_pass_without_a_draft_is_timed_now_and_then() {
        let (mut len, rate) = (draft_len(cost(9.0, 0.1, 3.0)), AcceptanceRate::default());
        let plain = (0..1000).filter(|_| len.limit(1, rate, 8) == 0).count();
        assert_eq!(plain, 1000 / (RETRY_INTERVAL + 1));
        // The first was slow, by accident.
        (0..20).for_each(|_| len.record_pass(0, 2.0));
        assert!(len.cost.plain.value < 3.0 && len.limit(1, rate, 8) == 0, "{len:?}");
    }

    #[test]
    fn costs_are_measured_first_and_drafts_tried_again_now_and_then() {
        let (mut len, mut rate) = (DraftLen::default(), AcceptanceRate::default());
        assert_eq!(len.limit(1, rate, 8), 0);
        len.record_pass(0, 16.2);
        assert_eq!(len.limit(1, rate, 8), 1);
        len.record_draft(1, 2.8);
        len.record_pass(1, 16.5);
        assert_eq!(len.limit(1, rate, 8), 8);
        let rejections = (1..).find(|_| {
            rate.record(1.0, false);
            len.limit(1, rate, 8) == 0
        });
        assert!(rejections.unwrap() < 12, "{rejections:?}");
        let drafts = (0..1000).filter(|_| len.limit(1, rate, 8) > 0).count();
        assert_eq!(drafts, 1000 / (RETRY_INTERVAL + 1));
    }
}
