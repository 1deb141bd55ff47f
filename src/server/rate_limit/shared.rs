//! Token buckets in a Redis server, which several servers share.
//!
//! One script reads and changes a bucket, by the store's own clock, so that servers neither race nor have to
//! agree on the time. A store that does not answer soon is left alone until it can be connected to again, and
//! meanwhile every server limits by itself.

use super::bucket::Change;
use crate::{Error, Result};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, Script, ScriptInvocation};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

/// Time that a new connection may take.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(1);
/// Time between two attempts to connect.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// What a full bucket holds, in microseconds of refilling.
const MINUTE: u64 = 60_000_000;

/// The buckets of one store.
pub struct SharedBuckets {
    client: Client,
    script: Script,
    /// Time that the store has for an answer.
    response_timeout: Duration,
    /// None while the store cannot be reached.
    connection: Mutex<Option<MultiplexedConnection>>,
    /// Runs what outlasts a request.
    runtime: OnceLock<Handle>,
}

impl fmt::Debug for SharedBuckets {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBuckets").field("address", &self.address()).finish_non_exhaustive()
    }
}

impl SharedBuckets {
    /// The buckets at `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]`, or `rediss://…` for TLS, not yet
    /// connected.
    ///
    /// # Errors
    /// [`Error::Parameter`] if that is no such address.
    pub fn new(url: &str, response_timeout: Duration) -> Result<Self> {
        let is_redis = ["redis://", "rediss://"].iter().any(|scheme| url.starts_with(scheme));
        let client = Client::open(url).ok().filter(|_| is_redis);
        let client = client.ok_or_else(|| {
            let expected = "redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], or rediss:// for TLS";
            Error::Parameter {
                name: "--limits".into(),
                found: without_password(url),
                expected: expected.into(),
            }
        })?;
        let script = Script::new(include_str!("gcra.lua"));
        Ok(Self { client, script, response_timeout, connection: Mutex::default(), runtime: OnceLock::new() })
    }

    /// Connects, and keeps trying in the background if the store cannot be reached.
    ///
    /// # Errors
    /// [`Error::Parameter`] if the store refuses the user or the password.
    pub async fn start(self: &Arc<Self>, runtime: &Handle) -> Result<()> {
        self.runtime.get_or_init(|| runtime.clone());
        match self.connect().await {
            Ok(connection) => *self.connection() = Some(connection),
            Err(error) if is_refusal(&error) => {
                return Err(Error::Parameter {
                    name: "--limits".into(),
                    found: format!("{}, which answers: {error}", self.address()),
                    expected: "a user and a password that the store accepts".into(),
                });
            }
            Err(error) => self.retry(&error.to_string()),
        }
        Ok(())
    }

    /// Whether the store can be reached.
    pub fn is_connected(&self) -> bool {
        self.connection().is_some()
    }

    /// Changes the bucket of a name and returns the amount used, or the time until what is to be taken is
    /// available; none if the store does not answer.
    pub async fn change(
        self: &Arc<Self>,
        name: &str,
        change: Change,
        limit: u64,
    ) -> Option<std::result::Result<f64, Duration>> {
        let mut connection = self.connection().clone()?;
        let invocation = self.invocation(name, change, limit);
        let answer = timeout(self.response_timeout, invocation.invoke_async(&mut connection)).await;
        let problem = match answer {
            Ok(Ok((wait, used))) => return Some(outcome(wait, used, limit)),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} ms", self.response_timeout.as_millis()),
        };
        // The first request that notices tells of it.
        if self.connection().take().is_some() {
            self.retry(&problem);
        }
        None
    }

    /// Runs something in the background, if the server still runs.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = self.runtime.get() {
            runtime.spawn(task);
        }
    }

    fn invocation(&self, name: &str, change: Change, limit: u64) -> ScriptInvocation<'_> {
        let (change, amount) = match change {
            Change::Take(n) => ("take", n),
            Change::TakeUpTo(n) => ("take_up_to", n),
            Change::Refund(n) => ("refund", n),
            Change::None => ("none", 0),
        };
        // A limit of 0 never has enough: even one costs more than a bucket holds.
        let cost = match limit {
            0 => 2 * MINUTE as u128 * u128::from(amount),
            _ => u128::from(MINUTE) * u128::from(amount) / u128::from(limit),
        };
        let mut invocation = self.script.prepare_invoke();
        invocation.key(format!("hornbook:{name}")).arg(change).arg(cost.to_string()).arg(MINUTE);
        invocation
    }

    async fn connect(&self) -> std::result::Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECTION_TIMEOUT))
            .set_response_timeout(Some(CONNECTION_TIMEOUT));
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        self.script.load_async(&mut connection).await?;
        Ok(connection)
    }

    /// Tells of the problem, and connects in the background.
    fn retry(self: &Arc<Self>, problem: &str) {
        let address = self.address();
        tracing::warn!("the store of limits at {address} is lost: this server limits alone ({problem})");
        let buckets = Arc::clone(self);
        self.spawn(async move {
            loop {
                sleep(RETRY_INTERVAL).await;
                if let Ok(connection) = buckets.connect().await {
                    *buckets.connection() = Some(connection);
                    tracing::info!("the store of limits at {address} is connected");
                    break;
                }
            }
        });
    }

    /// Host and port.
    fn address(&self) -> String {
        self.client.get_connection_info().addr().to_string()
    }

    fn connection(&self) -> MutexGuard<'_, Option<MultiplexedConnection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The script's answer, in microseconds, as the amount used or the time to wait.
fn outcome(wait: u64, used: u64, limit: u64) -> std::result::Result<f64, Duration> {
    match wait {
        0 => Ok(used as f64 * limit as f64 / MINUTE as f64),
        _ => Err(Duration::from_micros(wait)),
    }
}

/// Whether the store is there and refuses this client.
fn is_refusal(error: &RedisError) -> bool {
    error.kind() == redis::ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "NOPERM" | "WRONGPASS"))
}

/// An address without what stands before the `@`.
fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        _ => url.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_and_printed_without_the_password() {
        for url in
            ["redis://localhost", "redis://:secret@10.0.0.7:6380/2", "rediss://anna:secret@store.example"]
        {
            let buckets = SharedBuckets::new(url, Duration::ZERO).unwrap();
            assert!(!format!("{buckets:?}").contains("secret"), "{buckets:?}");
        }
        for url in ["localhost:6379", "http://localhost", "unix:///tmp/redis.sock", "redis://a:secret@h:port"]
        {
            let error = SharedBuckets::new(url, Duration::ZERO).unwrap_err().to_string();
            assert!(error.starts_with("--limits: found ") && !error.contains("secret"), "{error}");
        }
    }
}
