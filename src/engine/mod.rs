//! The engine: continuous batching of many requests on one thread.
//!
//! ```text
//! submit ─▶ submission queue ─▶ waiting ─▶ batch slots ─▶ one forward pass ─▶ events ─▶ EventStream
//!              (bounded)      sequences  (fair, preemptive)  over the batch
//! ```
//!
//! Reading GPT-2's weights costs the same for one token as for sixteen, so every step computes one token of
//! each sequence in decode, plus a bounded number of prompt tokens of the sequences in prefill (chunked
//! prefill), so that prompts do not stall the others. The batch is reassembled before every step: requests
//! are admitted, finish and are cancelled in between (`batch_slots.rs`), live ones before those of low
//! [priority](Priority). The keys and values of a prefix that
//! a sequence has in common with another one, running or finished, are copied instead of computed
//! (`prefix_cache.rs`).
//!
//! A request's tokens and logprobs have the same bits as if [`Hornbook::generate`] computed it alone, because
//! the kernels give the same bits for any batch. Requests may have different adapters: they share the pass of
//! the model's own weights, but never keys and values.
//!
//! ```
//! use hornbook::engine::{CompletionParams, Engine, EngineOptions, Event, Priority, Request, RequestKind};
//! use hornbook::{Hornbook, Options};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::start(Hornbook::open("fable")?, EngineOptions::default())?;
//! let prompt = engine.hornbook().encode("Once upon a time")?;
//! let options = Options { max_tokens: Some(20), ..Options::default() };
//! let params = CompletionParams { options, choices: 2, ..CompletionParams::default() };
//! let kind = RequestKind::Complete(params);
//! let mut stream = engine.submit(Request { prompt, kind, adapter: None, priority: Priority::Live })?;
//! while let Some(event) = stream.blocking_next() {
//!     if let Event::Token { choice, token } = event {
//!         println!("{choice}: {}", token.text);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod batch_slots;
mod fair_lock;
mod logit_jobs;
mod prefix_cache;
mod profile;
mod request;
mod scheduler;
mod sequence;
mod statistics;
mod stream;
mod submission_queue;

pub use fair_lock::FairLock;
pub use profile::{PhaseProfile, RequestProfile};
pub use request::{CompletionParams, MAX_CHOICES, Priority, Request, RequestKind, SubmitError};
pub use statistics::Statistics;
pub use stream::{Event, EventStream, ScoredToken};

use crate::kernels::attention::KvPrecision;
use crate::{Error, Hornbook, Result};
use scheduler::Scheduler;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use submission_queue::SubmissionQueue;

/// The largest `max_concurrency`; a larger number is a typing error.
pub const MAX_CONCURRENCY: usize = 1 << 16;

/// Limits and settings of an engine.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Maximum running sequences, at least one: the number of batch slots.
    pub max_concurrency: usize,
    /// Maximum waiting sequences while all slots are taken, not counting those of lower priority. A request
    /// that could start at once is never rejected, however many sequences it has.
    pub queue: usize,
    /// Maximum bytes of the prefix cache, which holds keys and values of finished sequences; 0 disables it.
    pub prefix_cache_bytes: usize,
    /// Maximum prompt tokens per step, at least one; four times as many for a sequence that is alone. It
    /// bounds how long a prompt delays the next token of other sequences.
    pub prefill_chunk: usize,
    /// Precision of the KV cache; none for [`Model::kv_precision`](crate::model::Model::kv_precision). All
    /// requests have the same precision, because they share prefixes; that of [`Options`](crate::Options) is
    /// ignored.
    pub kv_precision: Option<KvPrecision>,
    /// Engines with clones of the same `FairLock` never run a step at the same time, so together they use no
    /// more threads than there are cores.
    pub fair_lock: FairLock,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            max_concurrency: 16,
            queue: 64,
            prefix_cache_bytes: 256 << 20,
            prefill_chunk: 32,
            kv_precision: None,
            fair_lock: FairLock::default(),
        }
    }
}

/// A model and its engine thread. Dropping the engine fails unfinished requests and ends the thread.
pub struct Engine {
    hornbook: Arc<Hornbook>,
    queue: Arc<SubmissionQueue>,
    fair_lock: FairLock,
    kv_precision: KvPrecision,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the engine thread, which sleeps until a request is submitted.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a `max_concurrency` or `prefill_chunk` out of range, [`Error::System`] if
    /// the thread cannot be started.
    pub fn start(hornbook: Hornbook, options: EngineOptions) -> Result<Self> {
        for (name, value, max) in [
            ("max_concurrency", options.max_concurrency, MAX_CONCURRENCY),
            ("prefill_chunk", options.prefill_chunk, usize::MAX),
        ] {
            let expected = match value {
                0 => "an integer of at least 1".into(),
                value if value > max => format!("at most {max}"),
                _ => continue,
            };
            return Err(Error::Parameter { name: name.into(), found: value.to_string(), expected });
        }
        let hornbook = Arc::new(hornbook);
        let queue = Arc::new(SubmissionQueue::new(options.max_concurrency, options.queue));
        let fair_lock = options.fair_lock.clone();
        let kv_precision = options.kv_precision.unwrap_or(hornbook.model().kv_precision());
        let scheduler = Scheduler::new(Arc::clone(&hornbook), options, Arc::clone(&queue));
        let thread = thread::Builder::new()
            .name("hornbook-engine".into())
            .spawn(|| scheduler.run())
            .map_err(|e| Error::system("start the engine thread", e))?;
        Ok(Self { hornbook, queue, fair_lock, kv_precision, thread: Some(thread) })
    }

    /// The model.
    pub fn hornbook(&self) -> &Hornbook {
        &self.hornbook
    }

    /// The precision of the KV caches.
    pub fn kv_precision(&self) -> KvPrecision {
        self.kv_precision
    }

    /// Computes something of one's own with the model, between two steps of the engine.
    pub fn between_steps<T>(&self, compute: impl FnOnce(&Hornbook) -> T) -> T {
        let _guard = self.fair_lock.lock();
        compute(&self.hornbook)
    }

    /// Submits all sequences of a request, or none.
    ///
    /// # Errors
    /// [`SubmitError`] if the request is invalid or the engine does not accept it now.
    pub fn submit(&self, request: Request) -> std::result::Result<EventStream, SubmitError> {
        let tasks = request.tasks(&self.hornbook)?;
        let adapter = request.adapter.or_else(|| self.hornbook.model().default_adapter().cloned());
        self.queue.submit(tasks, adapter, request.priority)
    }

    /// Returns the delay after which a request that was rejected by the full queue should find room. Each
    /// call plans one retry: see [`SubmitError::QueueFull`].
    pub fn retry_delay(&self) -> Duration {
        self.queue.retry_delay()
    }

    /// Returns the engine's counters and gauges.
    pub fn statistics(&self) -> Statistics {
        self.queue.statistics()
    }

    /// Returns the times of the operations of the completion that started last; none before the first.
    pub fn profile(&self) -> Option<RequestProfile> {
        let recording = self.queue.recording().clone();
        recording.map(|recording| recording.profile(self.hornbook.model(), self.kv_precision))
    }

    /// Rejects new requests from now on; accepted ones are completed.
    pub fn close(&self) {
        self.queue.close();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.queue.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // panics were caught and reported to the clients
        }
    }
}
