//! Rate limits: per key, one token bucket for requests and one for tokens. Each holds one minute's quota and
//! refills at a constant rate. So a full bucket may be used at once, as a burst, and no minute has more than
//! the limit plus one such burst.

use super::error::ApiError;
use super::keys::Key;
use super::text::format_duration;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const MINUTE: f64 = 60.0;

/// The token buckets of all keys, by key name. They survive a reload of the key file.
#[derive(Debug, Default)]
pub struct RateLimiter {
    buckets: Mutex<HashMap<String, KeyBuckets>>,
}

#[derive(Debug, Default)]
struct KeyBuckets {
    requests: TokenBucket,
    tokens: TokenBucket,
}

/// A token bucket, stored as the amount used of its capacity.
#[derive(Debug, Default)]
struct TokenBucket {
    used: f64,
    updated: Option<Instant>,
}

impl TokenBucket {
    /// Refills the bucket up to now and returns the amount used, for a limit per minute.
    fn refill(&mut self, limit: u64, now: Instant) -> f64 {
        let elapsed =
            self.updated.map_or(0.0, |updated| now.saturating_duration_since(updated).as_secs_f64());
        self.used = (self.used - elapsed * limit as f64 / MINUTE).max(0.0);
        self.updated = Some(now);
        self.used
    }

    /// Takes `n`, or returns the time until they are available.
    fn take(&mut self, n: u64, limit: u64, now: Instant) -> Result<(), Duration> {
        let excess = self.refill(limit, now) + n as f64 - limit as f64;
        // Tolerance for floating-point rounding.
        if excess > 1e-3 {
            return Err(Duration::from_secs_f64(excess * MINUTE / limit.max(1) as f64));
        }
        self.used += n as f64;
        Ok(())
    }

    fn state(&mut self, limit: u64, now: Instant) -> BucketState {
        let used = self.refill(limit, now);
        let remaining = (limit as f64 - used + 1e-3).max(0.0) as u64;
        let reset = Duration::from_secs_f64(used * MINUTE / limit.max(1) as f64);
        BucketState { limit, remaining, reset }
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
    /// Returns the item of the `ratelimit-policy` header (draft-ietf-httpapi-ratelimit-headers).
    pub fn policy(&self, resource: &str) -> String {
        let limit = self.limit;
        format!("\"{resource}\";q={limit};w=60;burst={limit};comment=\"token bucket\"")
    }
}

/// Tokens reserved for a request until its actual usage is known.
#[derive(Debug)]
pub struct Reservation {
    limiter: Arc<RateLimiter>,
    key: String,
    tokens: u64,
}

impl Reservation {
    /// Refunds the unused tokens.
    pub fn settle(self, used: u64) {
        let mut buckets = self.limiter.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key_buckets) = buckets.get_mut(&self.key) {
            key_buckets.tokens.used =
                (key_buckets.tokens.used - self.tokens.saturating_sub(used) as f64).max(0.0);
        }
    }
}

impl RateLimiter {
    fn with_buckets<T>(&self, key: &Key, update: impl FnOnce(&mut KeyBuckets) -> T) -> T {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        update(buckets.entry(key.name.clone()).or_default())
    }

    /// Takes one request from the key's limit.
    ///
    /// # Errors
    /// 429 with the retry delay.
    pub fn take_request(&self, key: &Key) -> Result<(), ApiError> {
        let Some(limit) = key.requests_per_minute else { return Ok(()) };
        self.with_buckets(key, |buckets| buckets.requests.take(1, limit, Instant::now())).map_err(|delay| {
            let message = format!(
                "Rate limit reached for key '{}' on requests per minute: limit {limit}, a token bucket. \
                 Please try again in {}.",
                key.name,
                format_duration(delay)
            );
            ApiError::rate_limited("requests", message, delay)
        })
    }

    /// Reserves the maximum number of tokens a request may use: its prompts and `max_tokens`.
    ///
    /// # Errors
    /// 429 with the retry delay, or with `x-should-retry: false` if the request exceeds the limit by itself.
    pub fn reserve_tokens(self: &Arc<Self>, key: &Key, tokens: u64) -> Result<Option<Reservation>, ApiError> {
        let Some(limit) = key.tokens_per_minute else { return Ok(None) };
        let details = format!(
            "for key '{}' on tokens per minute: limit {limit}, a token bucket, requested {tokens}",
            key.name
        );
        if tokens > limit {
            return Err(ApiError::exceeds_rate_limit(format!(
                "Request too large {details}. Reduce the prompt or max_tokens."
            )));
        }
        self.with_buckets(key, |buckets| buckets.tokens.take(tokens, limit, Instant::now())).map_err(
            |delay| {
                let message =
                    format!("Rate limit reached {details}. Please try again in {}.", format_duration(delay));
                ApiError::rate_limited("tokens", message, delay)
            },
        )?;
        Ok(Some(Reservation { limiter: Arc::clone(self), key: key.name.clone(), tokens }))
    }

    /// Takes the tokens of a refused request from the key's limit, at most as many as are left.
    pub fn take_refused_tokens(&self, key: &Key, tokens: u64) {
        let Some(limit) = key.tokens_per_minute else { return };
        self.with_buckets(key, |buckets| {
            let used = buckets.tokens.refill(limit, Instant::now());
            buckets.tokens.used = (used + tokens as f64).min(limit as f64).max(used);
        });
    }

    /// Returns the state of the request and token buckets that have a limit.
    pub fn state(&self, key: &Key) -> [(&'static str, Option<BucketState>); 2] {
        let now = Instant::now();
        self.with_buckets(key, |buckets| {
            [
                ("requests", key.requests_per_minute.map(|limit| buckets.requests.state(limit, now))),
                ("tokens", key.tokens_per_minute.map(|limit| buckets.tokens.state(limit, now))),
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, seconds: f64) -> Instant {
        start + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn bucket_holds_one_minute_and_refills_evenly() {
        let (mut bucket, start) = (TokenBucket::default(), Instant::now());
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
    fn no_minute_has_more_than_limit_plus_burst() {
        let (mut bucket, start) = (TokenBucket::default(), Instant::now());
        let accepted: Vec<f64> = (0..3000)
            .map(|i| f64::from(i) / 10.0)
            .filter(|&seconds| bucket.take(1, 30, after(start, seconds)).is_ok())
            .collect();
        let max =
            accepted.iter().map(|from| accepted.iter().filter(|&t| (*from..from + 60.0).contains(t)).count());
        assert_eq!(max.max(), Some(59)); // 30 at once, then one every two seconds
        assert_eq!(accepted.len(), 30 + 149);
        let policy = bucket.state(30, start).policy("requests");
        assert_eq!(policy, r#""requests";q=30;w=60;burst=30;comment="token bucket""#);
    }

    #[test]
    fn changed_limit_applies_immediately() {
        let (mut bucket, start) = (TokenBucket::default(), Instant::now());
        (0..100).for_each(|_| bucket.take(1, 100, start).unwrap());
        bucket.take(1, 1000, start).unwrap();
        assert_eq!(bucket.state(1000, start).remaining, 899);
        assert_eq!(bucket.state(50, start).remaining, 0);
        let delay = TokenBucket::default().take(1, 0, start).unwrap_err();
        assert!(delay >= Duration::from_secs(60), "{delay:?}");
    }

    #[test]
    fn unused_tokens_are_refunded() {
        let limiter = Arc::new(RateLimiter::default());
        let key = Key { tokens_per_minute: Some(100), ..Key::named("a") };
        let reservation = limiter.reserve_tokens(&key, 80).unwrap().unwrap();
        assert!(limiter.reserve_tokens(&key, 30).is_err());
        reservation.settle(10);
        assert!(limiter.reserve_tokens(&key, 85).unwrap().is_some());
        assert!(limiter.reserve_tokens(&key, 101).is_err());
        let unlimited = Key::named("b");
        assert!(limiter.reserve_tokens(&unlimited, u64::MAX).unwrap().is_none());
        limiter.take_request(&unlimited).unwrap();
    }

    #[test]
    fn refused_tokens_count_up_to_the_limit() {
        let limiter = Arc::new(RateLimiter::default());
        let key = Key { tokens_per_minute: Some(100), ..Key::named("a") };
        limiter.take_refused_tokens(&key, 30);
        assert!(limiter.reserve_tokens(&key, 71).is_err());
        limiter.take_refused_tokens(&key, 1_000_000);
        let [_, (_, state)] = limiter.state(&key);
        let state = state.unwrap();
        assert!(state.remaining == 0 && state.reset <= Duration::from_secs(60), "{state:?}");
    }

    #[test]
    fn durations_have_openais_format() {
        let cases =
            [(12, "12ms"), (0, "0ms"), (1000, "1s"), (1001, "2s"), (360_000, "6m0s"), (61_000, "1m1s")];
        for (milliseconds, text) in cases {
            assert_eq!(format_duration(Duration::from_millis(milliseconds)), text);
        }
    }
}
