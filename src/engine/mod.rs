//! Many requests at once: one thread computes for all of them, a step at a time.
//!
//! ```text
//! submit ─▶ door ─▶ requests, each with its sequences ─▶ seats ─▶ one forward pass ─▶ events ─▶ Stream
//!        (bounded)                                    (in turns)  over all of them
//! ```
//!
//! Reading GPT-2's weights costs the same for one token as for sixteen, so every pass takes one token of each sequence
//! that is being written, and of those whose prompt is still unread a few more, never so many that the others wait. Who
//! takes part is settled before every pass: requests come and go in between (`seats.rs`). What a sequence has in common
//! with another, running or past, is copied instead of computed (`prefixes.rs`).
//!
//! A request's tokens and logprobs are to the bit what [`Hornbook::generate`] gives for it alone, because the kernels
//! give the same bits for any batch.
//!
//! ```
//! use hornbook::engine::{Completion, Engine, EngineOptions, Event, Kind, Request};
//! use hornbook::{Hornbook, Options};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::start(Hornbook::open("fable")?, EngineOptions::default())?;
//! let prompt = engine.hornbook().encode("Once upon a time")?;
//! let options = Options { max_tokens: Some(20), ..Options::default() };
//! let completion = Completion { options, choices: 2, ..Completion::default() };
//! let mut stream = engine.submit(Request { prompt, kind: Kind::Complete(completion) })?;
//! while let Some(event) = stream.blocking_next() {
//!     if let Event::Token { choice, token } = event {
//!         println!("{choice}: {}", token.text);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod door;
mod prefixes;
mod readings;
mod request;
mod seats;
mod sequence;
mod statistics;
mod stream;
mod turns;
mod worker;

pub use request::{Completion, Kind, MAX_CHOICES, Refused, Request};
pub use statistics::Statistics;
pub use stream::{Event, ScoredToken, Stream};
pub use turns::Turns;

use crate::kernels::attention::KvPrecision;
use crate::{Error, Hornbook, Result};
use door::Door;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use worker::Worker;

/// How much an engine does at once.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Sequences that are computed together, at least one.
    pub max_concurrency: usize,
    /// Sequences that may wait while that many are computed. A request that could begin at once is never refused,
    /// however many sequences it has.
    pub queue: usize,
    /// Bytes that the keys and values of finished sequences may take, for those that begin alike; 0 keeps none.
    pub prefix_cache_bytes: usize,
    /// The most prompt tokens in a pass, at least one: those whose completions are running wait so long for the next
    /// token.
    pub prefill_chunk: usize,
    /// How keys and values are stored; none for [`Model::kv_precision`](crate::model::Model::kv_precision). One for all
    /// requests, since they share them: that of [`Options`](crate::Options) has no say here.
    pub kv_precision: Option<KvPrecision>,
    /// Engines that are given clones of one `Turns` compute one after the other, a pass each, and so never ask for more
    /// threads than there are cores.
    pub turns: Turns,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            max_concurrency: 16,
            queue: 64,
            prefix_cache_bytes: 256 << 20,
            prefill_chunk: 64,
            kv_precision: None,
            turns: Turns::default(),
        }
    }
}

/// A model and the thread that computes with it. Dropping it fails what is still open and ends the thread.
pub struct Engine {
    hornbook: Arc<Hornbook>,
    door: Arc<Door>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the thread, which sleeps until there is something to do.
    ///
    /// # Errors
    /// [`Error::Parameter`] for a number of 0 where at least 1 is needed, [`Error::Message`] where no thread can be
    /// started.
    pub fn start(hornbook: Hornbook, options: EngineOptions) -> Result<Self> {
        for (name, value) in
            [("max_concurrency", options.max_concurrency), ("prefill_chunk", options.prefill_chunk)]
        {
            if value == 0 {
                let (found, expected) = ("0".into(), "a whole number from 1 up".into());
                return Err(Error::Parameter { name: name.into(), found, expected });
            }
        }
        let hornbook = Arc::new(hornbook);
        let door = Arc::new(Door::new(options.max_concurrency, options.queue));
        let worker = Worker::new(Arc::clone(&hornbook), options, Arc::clone(&door));
        let thread = thread::Builder::new()
            .name("hornbook-engine".into())
            .spawn(|| worker.work())
            .map_err(|e| Error::Message(format!("the engine's thread cannot be started: {e}")))?;
        Ok(Self { hornbook, door, thread: Some(thread) })
    }

    /// The model.
    pub fn hornbook(&self) -> &Hornbook {
        &self.hornbook
    }

    /// Queues a request: all its sequences or none.
    ///
    /// # Errors
    /// Where it cannot be done, or not now; nothing is queued then.
    pub fn submit(&self, request: Request) -> std::result::Result<Stream, Refused> {
        let tasks = request.tasks(&self.hornbook)?;
        self.door.enter(tasks)
    }

    /// What it has done so far and is doing now.
    pub fn statistics(&self) -> Statistics {
        self.door.statistics()
    }

    /// Takes no more requests; those it has go on to their end.
    pub fn close(&self) {
        self.door.close();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.door.quit();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // its panics were caught and told to whom they concern
        }
    }
}
