//! OpenAI's API over HTTP, on models of one's own.
//!
//! ```text
//! connections ─▶ routes ─▶ headers ─▶ keys, limits ─▶ json ─▶ completions, chat, embeddings … ─▶ submission ─▶ engine
//!                                                                     answer ◀── draft ◀──────── events ◀─┘
//! ```
//!
//! A request's way in is a check at each step, and every refusal is OpenAI's error object ([`error`]). Its way out is
//! the same for all: events become [`draft`]s of choices, which an [`answer`] sends whole or as they come. Nothing here
//! computes; the [engines](crate::engine) do, on threads of their own, and two threads here pass bytes on.

pub mod answer;
pub mod chat;
pub mod chat_answer;
pub mod completions;
pub mod completions_answer;
mod connections;
pub mod draft;
pub mod embeddings;
pub mod error;
pub mod headers;
pub mod in_process;
pub mod json;
pub mod key_file;
pub mod keys;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod models;
pub mod parameters;
pub mod prompts;
pub mod routes;
pub mod submission;
pub mod tokenize;

use crate::chat::ChatTemplate;
use crate::engine::{Engine, EngineOptions};
use crate::{Error, Hornbook, Result};
use error::ApiError;
use keys::Keyring;
use limits::Limits;
use log::Call;
use metrics::Metrics;
use models::Models;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Threads that pass bytes on; the others are the models'.
const THREADS: usize = 2;

/// What is served, to whom, and within which bounds.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// Other names of models, each with the model's own.
    pub aliases: Vec<(String, String)>,
    /// The keys' file; without one no key is asked for.
    pub keys: Option<PathBuf>,
    /// Whether others than this machine may come without a key.
    pub no_auth: bool,
    /// Origins of pages that may ask, besides those of this machine.
    pub cors: Vec<String>,
    /// How messages become a prompt; without a file, as each model says, or as a transcript.
    pub chat_template: Option<PathBuf>,
    /// Whether prompts are written to the log.
    pub log_prompts: bool,
    /// How much the models do at once.
    pub engine: EngineOptions,
    /// What a connection may take.
    pub http: HttpLimits,
    /// How long requests may go on once the server is to end.
    pub grace: Duration,
}

/// What a connection may take of the server's memory and patience.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// Bytes of a request's body.
    pub max_body: usize,
    /// How long a request's headers may take, from the connection's beginning or the last answer: idle connections are
    /// closed after it, too.
    pub header_time: Duration,
    /// How long a request's body may take.
    pub body_time: Duration,
    /// How long a client may leave what it was sent unread.
    pub write_time: Duration,
    /// Connections open together; others wait.
    pub max_connections: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            max_body: 8 << 20,
            header_time: Duration::from_secs(60),
            body_time: Duration::from_secs(30),
            write_time: Duration::from_secs(60),
            max_connections: 1024,
        }
    }
}

impl Default for ServerOptions {
    /// Port 8080 of this machine, for nobody else.
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            aliases: vec![],
            keys: None,
            no_auth: false,
            cors: vec![],
            chat_template: None,
            log_prompts: false,
            engine: EngineOptions::default(),
            http: HttpLimits::default(),
            grace: Duration::from_secs(30),
        }
    }
}

/// What every request has at hand.
pub struct App {
    models: Models,
    keys: Option<Keyring>,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
    cors: Vec<String>,
    log_prompts: bool,
    max_concurrency: usize,
    http: HttpLimits,
    phase: watch::Receiver<Phase>,
}

/// How far the server has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It takes requests.
    Open,
    /// Those it has go on.
    Draining,
    /// Those it still has end.
    Cut,
}

impl App {
    fn is_open(&self) -> bool {
        *self.phase.borrow() == Phase::Open
    }

    /// Puts a request's tokens aside, where its key has a limit.
    fn reserve(&self, call: &Call, tokens: usize) -> std::result::Result<(), ApiError> {
        if let Some(key) = call.key() {
            call.reserved(self.limits.tokens(&key, tokens as u64)?);
        }
        Ok(())
    }
}

/// Options that have been looked into, and what they name read.
struct Checked {
    options: ServerOptions,
    keys: Option<Keyring>,
    template: Option<ChatTemplate>,
}

impl Checked {
    fn new(options: ServerOptions) -> Result<Self> {
        let keys = options.keys.as_deref().map(Keyring::open).transpose()?;
        let template = options.chat_template.as_deref().map(ChatTemplate::open).transpose()?;
        Ok(Self { options, keys, template })
    }

    /// The models at work, with what every request has at hand.
    fn app(self, models: Vec<Hornbook>, phase: watch::Receiver<Phase>) -> Result<Arc<App>> {
        let Self { options, keys, template } = self;
        let engine = |hornbook| Engine::start(hornbook, options.engine.clone());
        let engines = models.into_iter().map(engine).collect::<Result<_>>()?;
        Ok(Arc::new(App {
            models: Models::new(engines, &options.aliases, template)?,
            keys,
            limits: Arc::default(),
            metrics: Arc::default(),
            cors: options.cors,
            log_prompts: options.log_prompts,
            max_concurrency: options.engine.max_concurrency,
            http: options.http,
            phase,
        }))
    }
}

/// A server that listens and has no models yet: everyone is told to come back. Dropping it ends it at once.
pub struct Listening {
    address: SocketAddr,
    checked: Checked,
    app: Arc<OnceLock<Arc<App>>>,
    phase: watch::Sender<Phase>,
    connections: JoinHandle<()>,
    runtime: Runtime,
}

impl Listening {
    /// Listens, before models are loaded: so that a port that is taken is known at once, and whoever waits for the server
    /// can ask it.
    ///
    /// # Errors
    /// [`Error::Parameter`] and [`Error::Message`] for options that do not go together, [`Error::Io`] for a file that
    /// cannot be read or an address that cannot be listened on.
    pub fn start(options: ServerOptions) -> Result<Self> {
        let address = options.address;
        if !address.ip().is_loopback() && options.keys.is_none() && !options.no_auth {
            return Err(Error::Message(format!(
                "{address} can be reached from other machines, and nobody would need a key: \
                 give --keys FILE (hornbook keys add makes one), or say --no-auth"
            )));
        }
        let (http, grace) = (options.http, options.grace);
        let checked = Checked::new(options)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("hornbook-http")
            .enable_all()
            .build()
            .map_err(|error| Error::Message(format!("the server's threads cannot be started: {error}")))?;
        let listener = runtime.block_on(connections::listen(address))?;
        let address = listener.local_addr().unwrap_or(address);
        let (app, phase) = (Arc::default(), watch::Sender::new(Phase::Open));
        let serve = connections::serve(listener, Arc::clone(&app), http, phase.clone(), grace);
        let connections = runtime.spawn(serve);
        Ok(Self { address, checked, app, phase, connections, runtime })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves models until it is told to stop.
    ///
    /// # Errors
    /// [`Error::Message`] and [`Error::Parameter`] for names that do not go together.
    pub fn serve(self, models: Vec<Hornbook>) -> Result<Server> {
        let Self { address, checked, app: place, phase, connections, runtime } = self;
        let app = checked.app(models, phase.subscribe())?;
        let app = Arc::clone(place.get_or_init(|| app));
        Ok(Server { address, app, phase, connections, runtime })
    }
}

/// A server that runs. Dropping it ends it at once.
pub struct Server {
    address: SocketAddr,
    app: Arc<App>,
    phase: watch::Sender<Phase>,
    connections: JoinHandle<()>,
    runtime: Runtime,
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every name it answers to, with the model behind it.
    pub fn names(&self) -> Vec<(String, String)> {
        let pair = |(name, served): (&str, &Arc<models::Served>)| (name.to_string(), served.name.clone());
        self.app.models.names().map(pair).collect()
    }

    /// What ends it when called, from any thread: no more requests are taken, and those that run have the grace period
    /// to end.
    pub fn stopper(&self) -> impl Fn() + std::marker::Send + use<> {
        let phase = self.phase.clone();
        move || {
            phase.send_if_modified(|phase| {
                let open = *phase == Phase::Open;
                if open {
                    *phase = Phase::Draining;
                }
                open
            });
        }
    }

    /// Waits until it has ended.
    pub fn wait(self) {
        let Self { connections, runtime, .. } = self;
        let _ = runtime.block_on(connections); // it can only have been told to stop
        runtime.shutdown_background();
    }
}
