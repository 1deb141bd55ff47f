//! Rate limits: per key, one token bucket for requests and one for tokens. Each holds one minute's quota and
//! refills at a constant rate. So a full bucket may be used at once, as a burst, and no minute has more than
//! the limit plus one such burst.
//!
//! - `bucket`: a token bucket in memory
//! - `shared`: token buckets in a Redis server, which several servers share

mod bucket;
mod shared;

use super::error::ApiError;
use super::keys::Key;
use super::text::format_duration;
pub use bucket::BucketState;
use bucket::{Change, TokenBucket};
use futures_util::future::join;
pub use shared::SharedBuckets;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The token buckets of all keys, by key name. They survive a reload of the key file.
#[derive(Debug, Default)]
pub struct RateLimiter {
    /// In use without shared buckets, and while these cannot be reached.
    buckets: Mutex<HashMap<String, TokenBucket>>,
    shared: Option<Arc<SharedBuckets>>,
}

/// Tokens reserved for a request until its actual usage is known.
#[derive(Debug)]
pub struct Reservation {
    limiter: Arc<RateLimiter>,
    bucket: String,
    limit: u64,
    tokens: u64,
}

impl Reservation {
    /// Refunds the unused tokens.
    pub fn settle(self, used: u64) {
        let Self { limiter, bucket, limit, tokens } = self;
        let refund = Change::Refund(tokens.saturating_sub(used));
        match limiter.shared.clone() {
            Some(shared) => shared.spawn(async move {
                let _ = limiter.change(&bucket, refund, limit).await; // what is used is of no interest
            }),
            None => {
                let _ = limiter.change_in_memory(&bucket, refund, limit);
            }
        }
    }
}

impl RateLimiter {
    /// Limits by shared buckets, if there are any.
    pub fn new(shared: Option<Arc<SharedBuckets>>) -> Self {
        Self { shared, ..Self::default() }
    }

    /// Whether the shared buckets can be reached; none without them.
    pub fn is_store_connected(&self) -> Option<bool> {
        self.shared.as_ref().map(|shared| shared.is_connected())
    }

    async fn change(&self, bucket: &str, change: Change, limit: u64) -> Result<f64, Duration> {
        let shared = match &self.shared {
            Some(shared) => shared.change(bucket, change, limit).await,
            None => None,
        };
        shared.unwrap_or_else(|| self.change_in_memory(bucket, change, limit))
    }

    fn change_in_memory(&self, bucket: &str, change: Change, limit: u64) -> Result<f64, Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.entry(bucket.to_string()).or_default().change(change, limit, Instant::now())
    }

    /// Takes one request from the key's limit.
    ///
    /// # Errors
    /// 429 with the retry delay.
    pub async fn take_request(&self, key: &Key) -> Result<(), ApiError> {
        let Some(limit) = key.requests_per_minute else { return Ok(()) };
        let taken = self.change(&bucket_name(key, "requests"), Change::Take(1), limit).await;
        taken.map(|_| ()).map_err(|delay| {
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
    pub async fn reserve_tokens(
        self: &Arc<Self>,
        key: &Key,
        tokens: u64,
    ) -> Result<Option<Reservation>, ApiError> {
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
        let bucket = bucket_name(key, "tokens");
        self.change(&bucket, Change::Take(tokens), limit).await.map_err(|delay| {
            let message =
                format!("Rate limit reached {details}. Please try again in {}.", format_duration(delay));
            ApiError::rate_limited("tokens", message, delay)
        })?;
        Ok(Some(Reservation { limiter: Arc::clone(self), bucket, limit, tokens }))
    }

    /// Takes the tokens of a refused request from the key's limit, at most as many as are left.
    pub async fn take_refused_tokens(&self, key: &Key, tokens: u64) {
        let Some(limit) = key.tokens_per_minute else { return };
        let _ = self.change(&bucket_name(key, "tokens"), Change::TakeUpTo(tokens), limit).await;
    }

    /// Returns the state of the request and token buckets that have a limit.
    pub async fn state(&self, key: &Key) -> [(&'static str, Option<BucketState>); 2] {
        let state = |resource, limit: Option<u64>| async move {
            let Some(limit) = limit else { return (resource, None) };
            let used = self.change(&bucket_name(key, resource), Change::None, limit).await;
            (resource, used.ok().map(|used| BucketState::new(limit, used)))
        };
        let (requests, tokens) =
            join(state("requests", key.requests_per_minute), state("tokens", key.tokens_per_minute)).await;
        [requests, tokens]
    }
}

/// The name of a key's bucket.
fn bucket_name(key: &Key, resource: &str) -> String {
    format!("{}:{resource}", key.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn unused_tokens_are_refunded() {
        let limiter = Arc::new(RateLimiter::default());
        let key = Key { tokens_per_minute: Some(100), ..Key::named("a") };
        let reservation = limiter.reserve_tokens(&key, 80).await.unwrap().unwrap();
        assert!(limiter.reserve_tokens(&key, 30).await.is_err());
        reservation.settle(10);
        assert!(limiter.reserve_tokens(&key, 85).await.unwrap().is_some());
        assert!(limiter.reserve_tokens(&key, 101).await.is_err());
        let unlimited = Key::named("b");
        assert!(limiter.reserve_tokens(&unlimited, u64::MAX).await.unwrap().is_none());
        limiter.take_request(&unlimited).await.unwrap();
    }

    #[tokio::test]
    async fn refused_tokens_count_up_to_the_limit() {
        let limiter = Arc::new(RateLimiter::default());
        let key = Key { tokens_per_minute: Some(100), ..Key::named("a") };
        limiter.take_refused_tokens(&key, 30).await;
        assert!(limiter.reserve_tokens(&key, 71).await.is_err());
        limiter.take_refused_tokens(&key, 1_000_000).await;
        let [_, (_, state)] = limiter.state(&key).await;
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
