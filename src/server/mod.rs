//! OpenAI-compatible HTTP API.
//!
//! ```text
//! connections ─▶ routes ─▶ middleware ─▶ json ─▶ completions, chat, embeddings, … ─▶ submission
//!                          (keys, rate_limit)                                              │
//!                                   response ◀── choice_buffer ◀── events ◀── engine ◀─────┘
//! ```
//!
//! Each step on the way in can reject the request; every rejection is OpenAI's error object ([`error`]). On
//! the way out, engine events are collected per choice ([`choice_buffer`]) and sent as one JSON object or as
//! server-sent events ([`response`]). The [engines](crate::engine) compute on their own threads; the server's
//! two threads only do I/O.

mod absent;
mod access;
pub mod batches;
mod bounded_json;
pub mod chat;
pub mod chat_response;
pub mod choice_buffer;
pub mod collections;
pub mod completion_limits;
pub mod completions;
pub mod completions_response;
mod connection_table;
mod connections;
pub mod conversation;
mod deleted;
pub mod embeddings;
pub mod error;
pub mod files;
pub mod fine_tuning;
pub mod health;
mod http_stream;
pub mod in_process;
pub mod json;
pub mod key_file;
pub mod keys;
pub mod lens;
pub mod measure;
mod memory;
pub mod message;
pub mod metadata;
pub mod metrics;
pub mod middleware;
pub mod models;
mod openapi;
pub mod page;
pub mod parameters;
pub mod path;
pub mod prompts;
pub mod query;
mod ranges;
pub mod rate_limit;
pub mod request_context;
pub mod response;
pub mod responses;
pub mod routes;
mod schema_constraints;
pub mod store;
pub mod submission;
mod text;
pub mod tokenize;
pub mod unsupported;

use crate::chat::ChatTemplate;
use crate::engine::{Engine, EngineOptions};
use crate::{Error, Hornbook, Result};
use access::AccessPolicy;
use batches::worker::BatchWorker;
use collections::Collections;
use error::ApiError;
use fine_tuning::{FineTuning, TrainingOptions};
use keys::Keyring;
use memory::RequestMemory;
use metrics::Metrics;
use models::ModelRegistry;
use rate_limit::{RateLimiter, SharedBuckets};
use request_context::RequestContext;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use store::Store;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Threads of the HTTP runtime; the engines have their own.
const HTTP_THREADS: usize = 2;

/// Server configuration: network, authentication, limits and engine options.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Address to listen on; port 0 takes a free port.
    pub address: SocketAddr,
    /// LoRA adapters of the model, served beside it: pairs of a name and a folder.
    pub adapters: Vec<(String, PathBuf)>,
    /// Whether requests may load adapters, from any folder of this machine.
    pub runtime_adapters: bool,
    /// Aliases: pairs of an alias and the name of a served model.
    pub aliases: Vec<(String, String)>,
    /// Key file; without one, requests need no API key.
    pub key_file: Option<PathBuf>,
    /// Address of a Redis server that holds the limits of keys for several servers; without one, each has its
    /// own.
    pub limits: Option<String>,
    /// Time that this Redis server has for an answer; a request asks it up to three times.
    pub limits_timeout: Duration,
    /// Whether to listen on a non-loopback address without API keys.
    pub no_auth: bool,
    /// Origins allowed by CORS, besides loopback ones; `*` allows any.
    pub cors_origins: Vec<String>,
    /// Host names that a server on a loopback address answers for, besides loopback ones; `*` allows any.
    pub allowed_hosts: Vec<String>,
    /// Chat template file; without one, each model's own template or a transcript.
    pub chat_template: Option<PathBuf>,
    /// Whether to write prompts to the log.
    pub log_prompts: bool,
    /// Folder of the [store]; without one, the routes of files and the like are not there.
    pub store: Option<PathBuf>,
    /// Maximum size of the store in bytes.
    pub store_max_bytes: Option<u64>,
    /// The share of the time that fine-tuning takes at most while requests run, from 0 to 1.
    pub train_share: f64,
    /// The fine-tuning jobs that a key, or a server without keys, may have that have not ended.
    pub max_jobs_per_key: u64,
    /// Engine options, the same for all models.
    pub engine: EngineOptions,
    /// HTTP limits.
    pub http: HttpLimits,
    /// Maximum time that running requests may continue after shutdown begins.
    pub grace_period: Duration,
}

/// Limits on the size, duration and number of HTTP connections.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// Maximum size of a request body in bytes.
    pub max_body_bytes: usize,
    /// Maximum size of an uploaded file in bytes.
    pub max_file_bytes: u64,
    /// Maximum time to receive a request's headers, counted from the start of the connection or the previous
    /// response; also the idle timeout of keep-alive connections.
    pub header_timeout: Duration,
    /// Maximum time to receive a request's body; of an upload, which may take longer, each piece of it.
    pub body_timeout: Duration,
    /// Maximum time a write to a client that does not read may block.
    pub write_timeout: Duration,
    /// Maximum number of open connections; a further one takes the place of the one that has waited longest
    /// for its client.
    pub max_connections: usize,
    /// Maximum number of open connections from one address.
    pub max_connections_per_address: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            max_body_bytes: 8 << 20,
            max_file_bytes: 512 << 20,
            header_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            max_connections: 1024,
            max_connections_per_address: 768,
        }
    }
}

impl Default for ServerOptions {
    /// Port 8080 on the loopback interface, without keys.
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            adapters: vec![],
            runtime_adapters: false,
            aliases: vec![],
            key_file: None,
            limits: None,
            limits_timeout: Duration::from_millis(15),
            no_auth: false,
            cors_origins: vec![],
            allowed_hosts: vec![],
            chat_template: None,
            log_prompts: false,
            store: None,
            store_max_bytes: None,
            train_share: 0.5,
            max_jobs_per_key: 16,
            engine: EngineOptions::default(),
            http: HttpLimits::default(),
            grace_period: Duration::from_secs(30),
        }
    }
}

/// State shared by all request handlers.
pub struct AppState {
    models: Arc<ModelRegistry>,
    runtime_adapters: bool,
    keyring: Option<Keyring>,
    rate_limiter: Arc<RateLimiter>,
    metrics: Arc<Metrics>,
    cors_origins: Vec<String>,
    log_prompts: bool,
    /// The names of all fields of the API.
    field_names: Arc<HashSet<String>>,
    max_concurrency: usize,
    http: HttpLimits,
    memory: RequestMemory,
    collections: Option<Arc<Collections>>,
    fine_tuning: Option<FineTuning>,
    analyses: Arc<lens::RecentAnalyses>,
    measurements: measure::Measurements,
    phase: watch::Receiver<Phase>,
}

/// Phase of the server's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// New requests are accepted.
    Serving,
    /// New requests are rejected; running ones continue.
    Draining,
    /// Running requests are aborted.
    Aborting,
}

impl AppState {
    fn is_serving(&self) -> bool {
        *self.phase.borrow() == Phase::Serving
    }

    /// Reserves a request's tokens if its key has a token limit.
    ///
    /// # Errors
    /// 429 if the limit is reached.
    async fn reserve(&self, context: &RequestContext, tokens: usize) -> std::result::Result<(), ApiError> {
        if let Some(key) = context.key() {
            context.set_reservation(self.rate_limiter.reserve_tokens(&key, tokens as u64).await?);
        }
        Ok(())
    }
}

/// Validated options with the files they name loaded.
struct LoadedOptions {
    options: ServerOptions,
    keyring: Option<Keyring>,
    shared_limits: Option<Arc<SharedBuckets>>,
    template: Option<ChatTemplate>,
    collections: Option<Arc<Collections>>,
}

impl LoadedOptions {
    fn new(options: ServerOptions) -> Result<Self> {
        let keyring = options.key_file.as_deref().map(Keyring::open).transpose()?;
        if options.limits.is_some() && options.key_file.is_none() {
            return Err(Error::Parameter {
                name: "--limits or HORNBOOK_LIMITS".into(),
                found: "no --keys".into(),
                expected: "--keys FILE, the keys whose limits are shared".into(),
            });
        }
        let shared_limits =
            options.limits.as_deref().map(|url| SharedBuckets::new(url, options.limits_timeout));
        let shared_limits = shared_limits.transpose()?.map(Arc::new);
        let template = options.chat_template.as_deref().map(ChatTemplate::open).transpose()?;
        let store = options.store.as_deref().map(|folder| Store::open(folder, options.store_max_bytes));
        let collections = store.transpose()?.map(Collections::open).transpose()?.map(Arc::new);
        Ok(Self { options, keyring, shared_limits, template, collections })
    }

    /// Starts an engine for each model and builds the shared state.
    fn into_app_state(self, models: Vec<Hornbook>, phase: watch::Receiver<Phase>) -> Result<Arc<AppState>> {
        let Self { options, keyring, shared_limits, template, collections } = self;
        let start_engine = |hornbook| Engine::start(hornbook, options.engine.clone());
        let engines = models.into_iter().map(start_engine).collect::<Result<_>>()?;
        let ServerOptions { adapters, aliases, runtime_adapters, .. } = &options;
        let template = template.map(Arc::new);
        let models = ModelRegistry::new(engines, adapters, aliases, template.as_ref(), *runtime_adapters)?;
        let models = Arc::new(models);
        let training = TrainingOptions {
            train_share: options.train_share,
            max_jobs_per_key: options.max_jobs_per_key,
            engine: options.engine.clone(),
            template,
        };
        let start_fine_tuning =
            |collections: &Arc<Collections>| FineTuning::start(collections, Arc::clone(&models), training);
        let fine_tuning = collections.as_ref().map(start_fine_tuning).transpose()?;
        Ok(Arc::new(AppState {
            models,
            runtime_adapters: options.runtime_adapters,
            keyring,
            rate_limiter: Arc::new(RateLimiter::new(shared_limits)),
            metrics: Arc::default(),
            cors_origins: options.cors_origins,
            log_prompts: options.log_prompts,
            field_names: Arc::new(openapi::field_names(&routes::description())),
            max_concurrency: options.engine.max_concurrency,
            http: options.http,
            memory: RequestMemory::new(options.http.max_body_bytes),
            collections,
            fine_tuning,
            analyses: Arc::default(),
            measurements: measure::Measurements::default(),
            phase,
        }))
    }
}

/// A listening server without models: every request gets 503 with `Retry-After`. Dropping it stops it
/// immediately.
pub struct BoundServer {
    address: SocketAddr,
    loaded: LoadedOptions,
    app: Arc<OnceLock<Arc<AppState>>>,
    phase: watch::Sender<Phase>,
    connections: JoinHandle<()>,
    runtime: Runtime,
}

impl BoundServer {
    /// Validates the options and listens, before any model is loaded, so that an occupied port is reported
    /// early and health checks get a response.
    ///
    /// # Errors
    /// [`Error::Parameter`] for invalid options, [`Error::Address`], [`Error::System`], [`Error::Io`] for a
    /// file that cannot be read or an address that cannot be bound.
    pub fn bind(options: ServerOptions) -> Result<Self> {
        let address = options.address;
        if !address.ip().is_loopback() && options.key_file.is_none() && !options.no_auth {
            let problem = "can be reached from other machines, and no API key would be required: pass --keys \
                           FILE ('hornbook keys add' creates one), or --no-auth to serve without keys";
            return Err(Error::Address { address, problem });
        }
        let (http, grace_period) = (options.http, options.grace_period);
        let access = AccessPolicy::new(address.ip(), &options.allowed_hosts, &options.cors_origins);
        let loaded = LoadedOptions::new(options)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(HTTP_THREADS)
            .max_blocking_threads(memory::WORK_PERMITS)
            .thread_name("hornbook-http")
            .enable_all()
            .build()
            .map_err(|error| Error::system("start the server's threads", error))?;
        if let Some(shared) = &loaded.shared_limits {
            runtime.block_on(shared.start(runtime.handle()))?;
        }
        let listener = runtime.block_on(connections::listen(address))?;
        let address = listener.local_addr().unwrap_or(address);
        let (app, phase) = (Arc::default(), watch::Sender::new(Phase::Serving));
        let serve = connections::serve(listener, Arc::clone(&app), http, access, phase.clone(), grace_period);
        let connections = runtime.spawn(serve);
        Ok(Self { address, loaded, app, phase, connections, runtime })
    }

    /// Returns the address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts serving models.
    ///
    /// # Errors
    /// As [`ModelRegistry::new`].
    pub fn serve(self, models: Vec<Hornbook>) -> Result<Server> {
        let Self { address, loaded, app: app_cell, phase, connections, runtime } = self;
        let app = loaded.into_app_state(models, phase.subscribe())?;
        let app = Arc::clone(app_cell.get_or_init(|| app));
        let start_batches = |collections| {
            runtime.spawn(collections::remove_expired(Arc::clone(collections)));
            BatchWorker::start(&app, collections, routes::router(Arc::clone(&app)))
        };
        let batches = app.collections.as_ref().map(start_batches).transpose()?;
        Ok(Server { _batches: batches, address, app, phase, connections, runtime })
    }
}

/// A running server. Dropping it stops it immediately.
pub struct Server {
    /// Dropped first: it computes with the rest.
    _batches: Option<BatchWorker>,
    address: SocketAddr,
    app: Arc<AppState>,
    phase: watch::Sender<Phase>,
    connections: JoinHandle<()>,
    runtime: Runtime,
}

impl Server {
    /// Returns the address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns every name a model is served under, aliases included, with the model's own name.
    pub fn model_names(&self) -> Vec<(String, String)> {
        let pair =
            |(name, served): (&str, &Arc<models::ServedModel>)| (name.to_string(), served.name.clone());
        self.app.models.current().names().map(pair).collect()
    }

    /// Returns a function that starts the graceful shutdown, from any thread: new requests are rejected, and
    /// running ones have the grace period to finish.
    pub fn shutdown_handle(&self) -> impl Fn() + Send + use<> {
        let phase = self.phase.clone();
        move || {
            phase.send_if_modified(|phase| {
                let was_serving = *phase == Phase::Serving;
                if was_serving {
                    *phase = Phase::Draining;
                }
                was_serving
            });
        }
    }

    /// Waits until the server has shut down.
    pub fn wait(self) {
        let Self { connections, runtime, .. } = self;
        let _ = runtime.block_on(connections); // an error means that the task panicked
        runtime.shutdown_background();
    }
}
