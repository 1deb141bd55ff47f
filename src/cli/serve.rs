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

/// Serve OpenAI's API on this machine
///
/// Programs written for OpenAI's API run unchanged: set OPENAI_API_BASE (older clients) or OPENAI_BASE_URL (newer ones)
/// to the address this prints. On this machine alone no key is needed, and any will do.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook serve                                   the built-in model on http://127.0.0.1:8080
  hornbook serve --model gpt2 --alias text-davinci-002=gpt2 --alias text-davinci-003=gpt2
  hornbook serve --model fable --model gpt2        two models
  OPENAI_API_BASE=http://127.0.0.1:8080/v1 OPENAI_API_KEY=x python their_script.py

For others, with keys of two tiers, 100 and 1000 requests a minute:
  hornbook keys add alice --rpm 100 --keys keys.toml
  hornbook keys add bob --rpm 1000 --keys keys.toml
  hornbook serve --host 0.0.0.0 --keys keys.toml

Before the models are loaded and while it ends it answers with status 503. Ctrl-C lets running requests end, for as long
as --grace says; a second one ends them.")]
pub struct Serve {
    #[command(flatten)]
    engines: Engines,

    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1", help_heading = "Network")]
    host: String,

    /// The port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8080, help_heading = "Network")]
    port: u16,

    /// Ask for keys, those of this file; see hornbook keys
    #[arg(long, value_name = "FILE", help_heading = "Network")]
    keys: Option<PathBuf>,

    /// Let other machines in without a key
    #[arg(long, conflicts_with = "keys", help_heading = "Network")]
    no_auth: bool,

    /// Let pages of this origin ask (can be repeated), e.g. https://example.com; * for any. Pages of this machine may
    #[arg(long, value_name = "ORIGIN", help_heading = "Network")]
    cors: Vec<String>,

    /// The largest request body, e.g. 8MiB
    #[arg(long, value_name = "BYTES", default_value = "8MiB", value_parser = parse_byte_size, help_heading = "Network")]
    max_body: usize,

    /// How long requests may go on after Ctrl-C
    #[arg(long, value_name = "SECONDS", default_value_t = 30, help_heading = "Network")]
    grace: u64,

    /// Sequences that may wait; requests beyond are refused with status 429
    #[arg(long, value_name = "N", default_value_t = EngineOptions::default().queue, help_heading = "Many at once")]
    queue: usize,

    /// Write prompts to the log
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
        // The first Ctrl-C ends the server, the second the program. Where no handler can be set, every one does.
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
