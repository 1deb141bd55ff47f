//! A token bucket in memory.

use std::time::{Duration, Instant};

const MINUTE: f64 = 60.0;

/// What happens to a bucket. Amounts are requests or tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Takes this many, or nothing if fewer are left.
    Take(u64),
    /// Takes this many, or as many as are left.
    TakeUpTo(u64),
    /// Gives back this many.
    Refund(u64),
    /// Nothing: what is used is wanted.
    None,
}

/// A token bucket, stored as the amount used of its capacity.
#[derive(Debug, Default)]
pub struct TokenBucket {
    used: f64,
    updated: Option<Instant>,
}

impl TokenBucket {
    /// Changes the bucket and returns the amount used, for a limit per minute.
    ///
    /// # Errors
    /// The time until what is to be taken is available.
    pub fn change(&mut self, change: Change, limit: u64, now: Instant) -> Result<f64, Duration> {
        let elapsed =
            self.updated.map_or(0.0, |updated| now.saturating_duration_since(updated).as_secs_f64());
        let (capacity, used) = (limit as f64, (self.used - elapsed * limit as f64 / MINUTE).max(0.0));
        (self.used, self.updated) = (used, Some(now));
        self.used = match change {
            Change::Take(n) => {
                let excess = used + n as f64 - capacity;
                // Tolerance for floating-point rounding.
                if excess > 1e-3 {
                    return Err(Duration::from_secs_f64(excess * MINUTE / limit.max(1) as f64));
                }
                used + n as f64
            }
            Change::TakeUpTo(n) => (used + n as f64).min(capacity).max(used),
            Change::Refund(n) => (used - n as f64).max(0.0),
            Change::None => used,
        };
        Ok(self.used)
    }
}

/// State of a bucket, for the `x-ratelimit-*` headers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BucketState {
    /// Capacity: the limit per minute.
    pub limit: u64,
    /// Amount left.
    pub remaining: u64,
    /// Time until it is full.
    pub reset: Duration,
}

impl BucketState {
    /// The state of a bucket of which an amount is used.
    pub fn new(limit: u64, used: f64) -> Self {
        let remaining = (limit as f64 - used + 1e-3).max(0.0) as u64;
        let reset = Duration::from_secs_f64(used * MINUTE / limit.max(1) as f64);
        Self { limit, remaining, reset }
    }

    /// Returns the item of the `ratelimit-policy` header (draft-ietf-httpapi-ratelimit-headers).
    pub fn policy(&self, resource: &str) -> String {
        let limit = self.limit;
        format!("\"{resource}\";q={limit};w=60;burst={limit};comment=\"token bucket\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, seconds: f64) -> Instant {
        start + Duration::from_secs_f64(seconds)
    }

    fn state(bucket: &mut TokenBucket, limit: u64, now: Instant) -> BucketState {
        BucketState::new(limit, bucket.change(Change::None, limit, now).unwrap())
    }

    #[test]
    fn bucket_holds_one_minute_and_refills_evenly() {
        let (mut bucket, start) = (TokenBucket::default(), Instant::now());
        let one = Change::Take(1);
        for _ in 0..100 {
            bucket.change(one, 100, start).unwrap();
        }
        let wait = bucket.change(one, 100, start).unwrap_err();
        assert!((wait.as_secs_f64() - 0.6).abs() < 1e-6, "{wait:?}");
        bucket.change(one, 100, after(start, 0.61)).unwrap();
        bucket.change(one, 100, after(start, 0.61)).unwrap_err();
        let found = state(&mut bucket, 100, after(start, 30.61));
        assert_eq!((found.limit, found.remaining), (100, 50));
        assert!((found.reset.as_secs_f64() - 30.0).abs() < 0.1, "{found:?}");
        assert_eq!(state(&mut bucket, 100, after(start, 600.0)).remaining, 100);
    }

    #[test]
    fn no_minute_has_more_than_limit_plus_burst() {
        let (mut bucket, start) = (TokenBucket::default(), Instant::now());
        let accepted: Vec<f64> = (0..3000)
            .map(|i| f64::from(i) / 10.0)
            .filter(|&seconds| bucket.change(Change::Take(1), 30, after(start, seconds)).is_ok())
            .collect();
        let max =
            accepted.iter().map(|from| accepted.iter().filter(|&t| (*from..from + 60.0).contains(t)).count());
        assert_eq!(max.max(), Some(59)); // 30 at once, then one every two seconds
        assert_eq!(accepted.len(), 30 + 149);
        let policy = BucketState::new(30, 0.0).policy("requests");
        assert_eq!(policy, r#""requests";q=30;w=60;burst=30;comment="token bucket""#);
    }

    #[test]
    fn changed_limit_applies_immediately() {
        let (mut bucket, start) = (TokenBucket::default(), Instant::now());
        (0..100).for_each(|_| assert!(bucket.change(Change::Take(1), 100, start).is_ok()));
        bucket.change(Change::Take(1), 1000, start).unwrap();
        assert_eq!(state(&mut bucket, 1000, start).remaining, 899);
        assert_eq!(state(&mut bucket, 50, start).remaining, 0);
        let delay = TokenBucket::default().change(Change::Take(1), 0, start).unwrap_err();
        assert!(delay >= Duration::from_secs(60), "{delay:?}");
    }
}
