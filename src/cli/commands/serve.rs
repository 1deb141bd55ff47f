//! `hornbook serve`: an OpenAI-compatible API server.

use crate::cli::INTERRUPTED;
use crate::cli::args::engine::EngineArgs;
use crate::cli::args::values;
use crate::cli::output::stderr::LogWriter;
use crate::engine::EngineOptions;
use crate::server::{BoundServer, HttpLimits, Server, ServerOptions};
use crate::{Error, Result};
use clap::Args;
use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Serve models over an OpenAI-compatible HTTP API
///
/// Programs written for the OpenAI API run unchanged: set OPENAI_API_BASE (older clients) or OPENAI_BASE_URL
/// (newer clients) to the printed address. Local clients need no API key; any key is accepted.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook serve                                   the built-in model on http://127.0.0.1:8080
  hornbook serve --model gpt2 --alias text-davinci-002=gpt2 --alias text-davinci-003=gpt2
  hornbook serve --model fable --model gpt2        two models
  hornbook serve --adapter letters=./letters --adapter tales=./tales    two LoRA adapters beside it
  curl http://127.0.0.1:8080/v1/models             its models, from another terminal
  hornbook serve --store ~/.hornbook/store         with uploaded files, fine-tuning jobs and batches

On a network, with two keys limited to 100 and 1000 requests per minute:
  hornbook keys add alice --rpm 100 --keys keys.toml
  hornbook keys add bob --rpm 1000 --keys keys.toml
  hornbook serve --host 0.0.0.0 --keys keys.toml

During startup and shutdown the server responds with status 503. Ctrl-C waits for running requests,
for at most --grace seconds; a second Ctrl-C exits at once.")]
pub struct Serve {
    #[command(flatten)]
    engines: EngineArgs,

    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1", help_heading = "Network")]
    host: String,

    /// Port to listen on; 0 selects a free port
    #[arg(long, default_value_t = 8080, help_heading = "Network")]
    port: u16,

    /// Let requests load LoRA adapters, from any folder of this machine (POST /v1/load_lora_adapter)
    #[arg(long)]
    allow_runtime_adapters: bool,

    /// Require an API key from this file (see hornbook keys)
    #[arg(long, value_name = "FILE", help_heading = "Network")]
    keys: Option<PathBuf>,

    /// Share the limits of keys with other servers through this Redis server, e.g. redis://10.0.0.7:6379, or
    /// rediss:// for TLS; while it cannot be reached, each server limits by itself. The environment keeps a
    /// password out of the list of processes
    #[arg(
        long,
        value_name = "URL",
        env = "HORNBOOK_LIMITS",
        hide_env_values = true,
        help_heading = "Network"
    )]
    limits: Option<String>,

    /// Accept requests from other machines without an API key
    #[arg(long, conflicts_with = "keys", help_heading = "Network")]
    no_auth: bool,

    /// Allow requests from web pages of this origin, e.g. https://example.com, or * for any (repeatable);
    /// pages of this machine are always allowed
    #[arg(long, value_name = "ORIGIN", help_heading = "Network")]
    cors: Vec<String>,

    /// Answer requests that name this host, e.g. a name in /etc/hosts, or * for any (repeatable); otherwise
    /// a server on a loopback address answers only localhost, loopback addresses and --host
    #[arg(long, value_name = "HOST", help_heading = "Network")]
    allowed_host: Vec<String>,

    /// Maximum size of a request body, e.g. 8MiB
    #[arg(long, value_name = "BYTES", default_value = "8MiB", value_parser = values::byte_size,
        help_heading = "Network")]
    max_body: usize,

    /// Time for running requests to finish after Ctrl-C, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, help_heading = "Network")]
    grace: u64,

    /// Share of the time that fine-tuning takes at most while requests run, from 0 to 1; an idle server
    /// trains all the time
    #[arg(long, value_name = "SHARE", default_value_t = ServerOptions::default().train_share,
        value_parser = parse_share, requires = "store", help_heading = "Fine-tuning")]
    train_share: f64,

    /// Maximum number of unfinished fine-tuning jobs of a key without a limit of its own; further ones get
    /// status 429
    #[arg(long, value_name = "N", default_value_t = ServerOptions::default().max_jobs_per_key,
        requires = "store", help_heading = "Fine-tuning")]
    max_jobs_per_key: u64,

    /// Maximum number of waiting sequences; further requests get status 429
    #[arg(long, value_name = "N", default_value_t = EngineOptions::default().queue,
        help_heading = "Scheduling")]
    queue: usize,

    /// Keep what clients upload in this folder, e.g. ~/.hornbook/store; without it, the server has no files
    #[arg(long, value_name = "DIR", help_heading = "Store")]
    store: Option<PathBuf>,

    /// Maximum size of the store, e.g. 10GiB [default: as much as the disk holds]
    #[arg(long, value_name = "BYTES", value_parser = values::byte_size, requires = "store",
        help_heading = "Store")]
    store_max_bytes: Option<usize>,

    /// Maximum size of an uploaded file, e.g. 512MiB
    #[arg(long, value_name = "BYTES", default_value = "512MiB", value_parser = values::byte_size,
        requires = "store", help_heading = "Store")]
    max_file: usize,

    /// Log prompts
    #[arg(long, help_heading = "Log")]
    log_prompts: bool,
}

impl Serve {
    pub(super) fn run(self) -> Result<ExitCode> {
        // Has no effect if a subscriber is already installed.
        LogWriter::start();
        let log = tracing_subscriber::fmt().with_writer(|| LogWriter).log_internal_errors(false);
        let log = log.with_target(false);
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let _ = log.with_ansi(std::io::stderr().is_terminal() && !no_color).try_init();
        // Binds first, so that an occupied port is reported early and health checks get a response.
        let bound = BoundServer::bind(self.options()?)?;
        let server = bound.serve(self.engines.open()?)?;
        print_greeting(&server, self.keys.is_some());

        let (shut_down, interrupted) = (server.shutdown_handle(), AtomicBool::new(false));
        // The first Ctrl-C shuts the server down, the second exits. Without a handler, the first one exits.
        let _ = ctrlc::set_handler(move || {
            if interrupted.swap(true, Ordering::SeqCst) {
                std::process::exit(INTERRUPTED.into());
            }
            shut_down();
            stderr_line!(
                "hornbook: shutting down; waiting for running requests (press Ctrl-C again to exit now)"
            );
        });
        server.wait();
        LogWriter::flush_all();
        Ok(ExitCode::SUCCESS)
    }

    fn options(&self) -> Result<ServerOptions> {
        Ok(ServerOptions {
            address: self.address()?,
            runtime_adapters: self.allow_runtime_adapters,
            train_share: self.train_share,
            max_jobs_per_key: self.max_jobs_per_key,
            key_file: self.keys.clone(),
            limits: self.limits.clone(),
            no_auth: self.no_auth,
            cors_origins: self.cors.clone(),
            allowed_hosts: [self.allowed_host.as_slice(), std::slice::from_ref(&self.host)].concat(),
            log_prompts: self.log_prompts,
            store: self.store.clone(),
            store_max_bytes: self.store_max_bytes.map(|bytes| bytes as u64),
            http: HttpLimits {
                max_body_bytes: self.max_body,
                max_file_bytes: self.max_file as u64,
                ..HttpLimits::default()
            },
            grace_period: Duration::from_secs(self.grace),
            ..self.engines.options(self.queue)
        })
    }

    /// Resolves `--host` and `--port` to a socket address.
    fn address(&self) -> Result<SocketAddr> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(SocketAddr::new(ip, self.port));
        }
        let resolved = (host, self.port).to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
        resolved.ok_or_else(|| Error::Parameter {
            name: "--host".into(),
            found: self.host.clone(),
            expected: "an IP address such as 127.0.0.1, or a resolvable host name".into(),
        })
    }
}

fn parse_share(text: &str) -> std::result::Result<f64, &'static str> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or("expected a number from 0 to 1")
}

/// Prints the address, the models, and an example request.
fn print_greeting(server: &Server, requires_key: bool) {
    let names = server.model_names();
    let models = names.iter().filter(|(name, model)| name == model).map(|(name, model)| {
        let aliases = names.iter().filter(|(alias, target)| target == model && alias != model);
        let aliases: Vec<&str> = aliases.map(|(alias, _)| alias.as_str()).collect();
        if aliases.is_empty() { name.clone() } else { format!("{name} (aliases: {})", aliases.join(", ")) }
    });
    let models: Vec<String> = models.collect();
    let address = server.address();
    let model = names.first().map_or("", |(name, _)| name);
    let auth_header = if requires_key { " -H 'Authorization: Bearer YOUR_KEY'" } else { "" };
    stderr_line!(
        "hornbook: serving {} at http://{address}/v1; try\n  \
         curl http://{address}/v1/completions{auth_header} \
         -d '{{\"model\": \"{model}\", \"prompt\": \"Once upon a time\", \"max_tokens\": 50}}'",
        models.join(", ")
    );
}
