//! `hornbook serve`: OpenAI's API on this machine.

use super::kernel;
use super::kv::Kv;
use super::team;
use crate::checkpoint::Checkpoint;
use crate::engine::EngineOptions;
use crate::kernels::attention::AttentionKernel;
use crate::model::Precision;
use crate::server::{HttpLimits, Server, ServerOptions};
use crate::{Error, Hornbook, Result};
use clap::Args;
use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::num::NonZeroUsize;
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

Ctrl-C lets running requests end, for as long as --grace says; a second one ends them.")]
pub struct Serve {
    /// fable (built in), a checkpoint's folder, or a Hugging Face name in the local cache (can be repeated)
    #[arg(short, long, default_value = "fable")]
    model: Vec<String>,

    /// Another name of a model (can be repeated), e.g. text-davinci-002=gpt2. Where one model is served, it answers to
    /// any name
    #[arg(long, value_name = "NAME=MODEL", value_parser = parse_alias)]
    alias: Vec<(String, String)>,

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
    #[arg(long, value_name = "BYTES", default_value = "8MiB", value_parser = parse_bytes, help_heading = "Network")]
    max_body: usize,

    /// How long requests may go on after Ctrl-C
    #[arg(long, value_name = "SECONDS", default_value_t = 30, help_heading = "Network")]
    grace: u64,

    /// Sequences computed together
    #[arg(long, value_name = "N", default_value_t = EngineOptions::default().max_concurrency, value_parser = at_least_one, help_heading = "Many at once")]
    max_concurrency: usize,

    /// Sequences that may wait; requests beyond are refused with status 429
    #[arg(long, value_name = "N", default_value_t = EngineOptions::default().queue, help_heading = "Many at once")]
    queue: usize,

    /// Memory for the keys and values of past requests, for those that begin alike, e.g. 256MiB; 0 keeps none
    #[arg(long, value_name = "BYTES", default_value = "256MiB", value_parser = parse_bytes, help_heading = "Many at once")]
    prefix_cache: usize,

    /// Prompt tokens computed between two steps of running completions
    #[arg(long, value_name = "N", default_value_t = EngineOptions::default().prefill_chunk, value_parser = at_least_one, help_heading = "Many at once")]
    prefill_chunk: usize,

    /// How messages become a prompt: a Jinja template as Hugging Face's tokenizers have it [default: a transcript]
    #[arg(long, value_name = "FILE", help_heading = "Chat")]
    chat_template: Option<PathBuf>,

    /// Write prompts to the log
    #[arg(long, help_heading = "Log")]
    log_prompts: bool,

    /// Convert the weights when loading: f32, f16, bf16, bf16-dot, int8 or int4 [default: as they are stored]
    #[arg(long, value_name = "P", help_heading = "Machine")]
    precision: Option<Precision>,

    /// Threads each model computes with [default: one for each core]
    #[arg(long, value_name = "N", help_heading = "Machine")]
    threads: Option<NonZeroUsize>,

    /// How attention is computed; hornbook bench attention measures them
    #[arg(long, value_name = "NAME", value_parser = kernel::parser(), default_value = "flash", help_heading = "Machine")]
    attention: &'static dyn AttentionKernel,

    /// How keys and values are stored; f16 takes half the memory, int8 a quarter
    #[arg(long, value_name = "PRECISION", value_enum, default_value_t = Kv::F32, help_heading = "Machine")]
    kv_precision: Kv,
}

impl Serve {
    pub(super) fn run(self) -> Result<ExitCode> {
        // Where another subscriber is set already, it has what is logged.
        let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false);
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let _ = log.with_ansi(std::io::stderr().is_terminal() && !plain).try_init();
        let options = self.options()?;
        let open = |model: &String| {
            Hornbook::with_precision(Checkpoint::open(model)?, team(self.threads)?, self.precision)
                .map(|hornbook| hornbook.with_attention(self.attention))
        };
        let models = self.model.iter().map(open).collect::<Result<Vec<_>>>()?;
        let server = Server::start(models, options)?;
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
            aliases: self.alias.clone(),
            keys: self.keys.clone(),
            no_auth: self.no_auth,
            cors: self.cors.clone(),
            chat_template: self.chat_template.clone(),
            log_prompts: self.log_prompts,
            engine: EngineOptions {
                max_concurrency: self.max_concurrency,
                queue: self.queue,
                prefix_cache_bytes: self.prefix_cache,
                prefill_chunk: self.prefill_chunk,
                kv_precision: self.kv_precision.into(),
            },
            http: HttpLimits { max_body: self.max_body, ..HttpLimits::default() },
            grace: Duration::from_secs(self.grace),
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

fn parse_alias(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((alias, model)) if !alias.is_empty() && !model.is_empty() => Ok((alias.into(), model.into())),
        _ => Err("expected NAME=MODEL, e.g. text-davinci-002=gpt2".into()),
    }
}

/// A number of bytes: `256MiB`, `1GiB`, `64KiB`, `100000`.
fn parse_bytes(text: &str) -> std::result::Result<usize, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err(format!("'{unit}' is no unit; expected a number of bytes, e.g. 256MiB")),
    };
    let bytes = number.parse::<usize>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "expected a number of bytes, e.g. 256MiB".into())
}

fn at_least_one(text: &str) -> std::result::Result<usize, String> {
    let number = text.parse::<NonZeroUsize>().map_err(|_| "expected a whole number from 1 up")?;
    Ok(number.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_with_their_units() {
        assert_eq!(parse_bytes("256MiB"), Ok(256 << 20));
        assert_eq!(parse_bytes("1g"), Ok(1 << 30));
        assert_eq!((parse_bytes("0"), parse_bytes("64 KiB")), (Ok(0), Ok(64 << 10)));
        for wrong in ["", "MiB", "1TB", "-1", "1.5MiB", "99999999999999999999", "99999999999GiB"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_alias_names_two() {
        assert_eq!(parse_alias("a=b=c"), Ok(("a".into(), "b=c".into())));
        for wrong in ["", "a", "a=", "=b"] {
            assert!(parse_alias(wrong).is_err(), "{wrong}");
        }
    }
}
