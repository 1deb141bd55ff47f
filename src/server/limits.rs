//! How much a key may ask for: a bucket of requests and one of tokens, each holding a minute's worth and filling at an
//! even rate.

use super::error::ApiError;
use super::keys::Key;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const MINUTE: f64 = 60.0;

/// The buckets of all keys, by name. They outlive a change of the keys' file.
#[derive(Debug, Default)]
pub struct Limits {
    buckets: Mutex<HashMap<String, Buckets>>,
}

#[derive(Debug, Default)]
struct Buckets {
    requests: Bucket,
    tokens: Bucket,
}

/// What was taken since the bucket was last full.
#[derive(Debug, Default)]
struct Bucket {
    taken: f64,
    at: Option<Instant>,
}

impl Bucket {
    /// What is missing now, for a limit per minute.
    fn missing(&mut self, limit: u64, now: Instant) -> f64 {
        let passed = self.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.taken = (self.taken - passed * limit as f64 / MINUTE).max(0.0);
        self.at = Some(now);
        self.taken
    }

    /// Takes `n`, or says how long to wait until they are there.
    fn take(&mut self, n: u64, limit: u64, now: Instant) -> Result<(), Duration> {
        let over = self.missing(limit, now) + n as f64 - limit as f64;
        // A thousandth is rounding.
        if over > 1e-3 {
            return Err(Duration::from_secs_f64(over * MINUTE / limit.max(1) as f64));
        }
        self.taken += n as f64;
        Ok(())
    }

    fn state(&mut self, limit: u64, now: Instant) -> State {
        let missing = self.missing(limit, now);
        let remaining = (limit as f64 - missing + 1e-3).max(0.0) as u64;
        let reset = Duration::from_secs_f64(missing * MINUTE / limit.max(1) as f64);
        State { limit, remaining, reset }
    }
}

/// A bucket as the headers tell of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    /// What it holds when full.
    pub limit: u64,
    /// What is left.
    pub remaining: u64,
    /// When it will be full again.
    pub reset: Duration,
}

/// Tokens that a request may use, put aside until it is known how many it did.
#[derive(Debug)]
pub struct Reservation {
    limits: Arc<Limits>,
    key: String,
    tokens: u64,
}

impl Reservation {
    /// Gives back what was not used.
    pub fn settle(self, used: u64) {
        let mut buckets = self.limits.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_key) = buckets.get_mut(&self.key) {
            of_key.tokens.taken = (of_key.tokens.taken - self.tokens.saturating_sub(used) as f64).max(0.0);
        }
    }
}

impl Limits {
    fn with<T>(&self, key: &Key, then: impl FnOnce(&mut Buckets) -> T) -> T {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        then(buckets.entry(key.name.clone()).or_default())
    }

    /// Counts a request.
    ///
    /// # Errors
    /// 429 with the time to wait.
    pub fn request(&self, key: &Key) -> Result<(), ApiError> {
        let Some(limit) = key.requests_per_minute else { return Ok(()) };
        self.with(key, |buckets| buckets.requests.take(1, limit, Instant::now())).map_err(|wait| {
            let message = format!(
                "Rate limit reached for key '{}' on requests per minute: limit {limit}. Please try again in {}.",
                key.name,
                shown(wait)
            );
            ApiError::rate_limited("requests", message, wait)
        })
    }

    /// Puts aside the tokens of a request's prompts and the most it may write.
    ///
    /// # Errors
    /// 429 with the time to wait, or without where waiting is of no use.
    pub fn tokens(self: &Arc<Self>, key: &Key, tokens: u64) -> Result<Option<Reservation>, ApiError> {
        let Some(limit) = key.tokens_per_minute else { return Ok(None) };
        let about = format!("for key '{}' on tokens per minute: limit {limit}, requested {tokens}", key.name);
        if tokens > limit {
            return Err(ApiError::above_limit(format!(
                "Request too large {about}. Reduce the prompt or max_tokens."
            )));
        }
        self.with(key, |buckets| buckets.tokens.take(tokens, limit, Instant::now())).map_err(|wait| {
            let message = format!("Rate limit reached {about}. Please try again in {}.", shown(wait));
            ApiError::rate_limited("tokens", message, wait)
        })?;
        Ok(Some(Reservation { limits: Arc::clone(self), key: key.name.clone(), tokens }))
    }

    /// The buckets of requests and of tokens, where there is a limit.
    pub fn state(&self, key: &Key) -> [(&'static str, Option<State>); 2] {
        let now = Instant::now();
        self.with(key, |buckets| {
            [
                ("requests", key.requests_per_minute.map(|limit| buckets.requests.state(limit, now))),
                ("tokens", key.tokens_per_minute.map(|limit| buckets.tokens.state(limit, now))),
            ]
        })
    }
}

/// A duration as OpenAI's headers write it: `12ms`, `1s`, `6m0s`.
pub fn shown(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    if milliseconds < 1000 {
        return format!("{milliseconds}ms");
    }
    let seconds = duration.as_secs() + u64::from(duration.subsec_millis() > 0);
    match seconds / 60 {
        0 => format!("{seconds}s"),
        minutes => format!("{minutes}m{}s", seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, seconds: f64) -> Instant {
        start + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_bucket_holds_a_minute_and_fills_evenly() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        for _ in 0..100 {
            bucket.take(1, 100, start).unwrap();
        }
        let wait = bucket.take(1, 100, start).unwrap_err();
        assert!((wait.as_secs_f64() - 0.6).abs() < 1e-6, "{wait:?}");
        bucket.take(1, 100, after(start, 0.61)).unwrap();
        bucket.take(1, 100, after(start, 0.61)).unwrap_err();
        let state = bucket.state(100, after(start, 30.61));
        assert_eq!((state.limit, state.remaining), (100, 50));
        assert!((state.reset.as_secs_f64() - 30.0).abs() < 0.1, "{state:?}");
        assert_eq!(bucket.state(100, after(start, 600.0)).remaining, 100);
    }

    #[test]
    fn a_changed_limit_holds_at_once() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        (0..100).for_each(|_| bucket.take(1, 100, start).unwrap());
        bucket.take(1, 1000, start).unwrap();
        assert_eq!(bucket.state(1000, start).remaining, 899);
        assert_eq!(bucket.state(50, start).remaining, 0);
        let none = Bucket::default().take(1, 0, start).unwrap_err();
        assert!(none >= Duration::from_secs(60), "{none:?}");
    }

    #[test]
    fn what_was_not_used_is_given_back() {
        let limits = Arc::new(Limits::default());
        let key = Key { tokens_per_minute: Some(100), ..Key::named("a") };
        let reservation = limits.tokens(&key, 80).unwrap().unwrap();
        assert!(limits.tokens(&key, 30).is_err());
        reservation.settle(10);
        assert!(limits.tokens(&key, 85).unwrap().is_some());
        assert!(limits.tokens(&key, 101).is_err());
        let unlimited = Key::named("b");
        assert!(limits.tokens(&unlimited, u64::MAX).unwrap().is_none());
        limits.request(&unlimited).unwrap();
    }

    #[test]
    fn durations_are_written_as_openai_does() {
        let written =
            [(12, "12ms"), (0, "0ms"), (1000, "1s"), (1001, "2s"), (360_000, "6m0s"), (61_000, "1m1s")];
        for (milliseconds, text) in written {
            assert_eq!(shown(Duration::from_millis(milliseconds)), text);
        }
    }
}
