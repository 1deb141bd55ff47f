//! `hornbook serve`: OpenAI's API on this machine.

use super::byte_size::parse_byte_size;
use super::engines::Engines;
use crate::engine::EngineOptions;
use crate::server::{HttpLimits, Listening, Server, ServerOptions};
use crate::{Error, Result};
use clap::Args;
use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The exit code of a program ended by a second Ctrl-C.
const INTERRUPTED: i32 = 130;

/// Serve models over an OpenAI-compatible HTTP API
///
/// Programs written for the OpenAI API run unchanged: set OPENAI_API_BASE (older clients) or OPENAI_BASE_URL
/// (newer clients) to the printed address. Local clients need no API key; any key is accepted.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook serve                                   the built-in model on http://127.0.0.1:8080
  hornbook serve --model gpt2 --alias text-davinci-002=gpt2 --alias text-davinci-003=gpt2
  hornbook serve --model fable --model gpt2        two models
  OPENAI_API_BASE=http://127.0.0.1:8080/v1 OPENAI_API_KEY=x python their_script.py

On a network, with two keys limited to 100 and 1000 requests per minute:
  hornbook keys add alice --rpm 100 --keys keys.toml
  hornbook keys add bob --rpm 1000 --keys keys.toml
  hornbook serve --host 0.0.0.0 --keys keys.toml

During startup and shutdown the server responds with status 503. Ctrl-C waits for running requests,
for at most --grace seconds; a second Ctrl-C exits at once.")]
pub struct Serve {
    #[command(flatten)]
    engines: Engines,

    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1", help_heading = "Network")]
    host: String,

    /// Port to listen on; 0 selects a free port
    #[arg(long, default_value_t = 8080, help_heading = "Network")]
    port: u16,

    /// Require an API key from this file (see hornbook keys)
    #[arg(long, value_name = "FILE", help_heading = "Network")]
    keys: Option<PathBuf>,

    /// Accept requests from other machines without an API key
    #[arg(long, conflicts_with = "keys", help_heading = "Network")]
    no_auth: bool,

    /// Allow requests from web pages of this origin, e.g. https://example.com, or * for any (repeatable);
    /// pages of this machine are always allowed
    #[arg(long, value_name = "ORIGIN", help_heading = "Network")]
    cors: Vec<String>,

    /// Maximum size of a request body, e.g. 8MiB
    #[arg(long, value_name = "BYTES", default_value = "8MiB", value_parser = parse_byte_size, help_heading = "Network")]
    max_body: usize,

    /// Time for running requests to finish after Ctrl-C, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, help_heading = "Network")]
    grace: u64,

    /// Maximum number of waiting sequences; further requests get status 429
    #[arg(long, value_name = "N", default_value_t = EngineOptions::default().queue, help_heading = "Scheduling")]
    queue: usize,

    /// Log prompts
    #[arg(long, help_heading = "Log")]
    log_prompts: bool,
}

impl Serve {
    pub(super) fn run(self) -> Result<ExitCode> {
        // Where another subscriber is set already, it has what is logged.
        let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false);
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let _ = log.with_ansi(std::io::stderr().is_terminal() && !plain).try_init();
        // The port first: one that is taken is known before much is loaded, and whoever waits is told so.
        let listening = Listening::start(self.options()?)?;
        let server = listening.serve(self.engines.open()?)?;
        greet(&server, self.keys.is_some());

        let (stop, again) = (server.stopper(), AtomicBool::new(false));
        // The first Ctrl-C ends the server, the second the program. Where no handler can be set, every one
        // does.
        let _ = ctrlc::set_handler(move || {
            if again.swap(true, Ordering::SeqCst) {
                std::process::exit(INTERRUPTED);
            }
            stop();
            // Whoever started the server may be gone, and their end of the pipe with them.
            let _ = writeln!(
                std::io::stderr(),
                "hornbook: no more requests are taken; those that run may end (Ctrl-C again ends them)"
            );
        });
        server.wait();
        Ok(ExitCode::SUCCESS)
    }

    fn options(&self) -> Result<ServerOptions> {
        Ok(ServerOptions {
            address: self.address()?,
            keys: self.keys.clone(),
            no_auth: self.no_auth,
            cors: self.cors.clone(),
            log_prompts: self.log_prompts,
            http: HttpLimits { max_body: self.max_body, ..HttpLimits::default() },
            grace: Duration::from_secs(self.grace),
            ..self.engines.options(self.queue)
        })
    }

    /// Where to listen: an address, or a name the system knows one for.
    fn address(&self) -> Result<SocketAddr> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(SocketAddr::new(ip, self.port));
        }
        let found = (host, self.port).to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
        found.ok_or_else(|| Error::Parameter {
            name: "--host".into(),
            found: self.host.clone(),
            expected: "an address such as 127.0.0.1, or a name that has one".into(),
        })
    }
}

/// Says where it is, what it serves, and what to type.
fn greet(server: &Server, keys: bool) {
    let names = server.names();
    let own = names.iter().filter(|(name, model)| name == model).map(|(name, model)| {
        let aliases = names.iter().filter(|(alias, of)| of == model && alias != model);
        let aliases: Vec<&str> = aliases.map(|(alias, _)| alias.as_str()).collect();
        if aliases.is_empty() { name.clone() } else { format!("{name} (also {})", aliases.join(", ")) }
    });
    let own: Vec<String> = own.collect();
    let address = server.address();
    let model = names.first().map_or("", |(name, _)| name);
    let key = if keys { " -H 'Authorization: Bearer YOUR_KEY'" } else { "" };
    eprintln!(
        "hornbook: serving {} at http://{address}/v1; try\n  curl http://{address}/v1/completions{key} -d \
         '{{\"model\": \"{model}\", \"prompt\": \"Once upon a time\", \"max_tokens\": 50}}'",
        own.join(", ")
    );
}
