//! `hornbook health`: readiness check of a server.

use crate::cli::output::stdout::write_line;
use crate::{Error, Result};
use clap::Args;
use std::process::ExitCode;
use std::time::Duration;

/// The longest timeout in seconds, a day; a larger number is a typing error.
const MAX_TIMEOUT: i64 = 24 * 60 * 60;

/// Check whether a server is ready
///
/// Exits with code 0 if it is, and with an error and code 1 if it is not. Meant for containers and scripts.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook health
  hornbook health http://127.0.0.1:8081
  until hornbook health; do sleep 1; done")]
pub struct Health {
    /// URL of the server
    #[arg(default_value = "http://127.0.0.1:8080")]
    url: String,

    /// Timeout in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5,
        value_parser = clap::builder::RangedI64ValueParser::<u64>::new().range(1..=MAX_TIMEOUT))]
    timeout: u64,
}

impl Health {
    pub(super) fn run(self) -> Result<ExitCode> {
        let url = self.url.trim_end_matches('/').trim_end_matches("/v1");
        let host = ["http://", "https://"].iter().find_map(|scheme| url.strip_prefix(scheme));
        if host.is_none_or(|host| host.is_empty() || host.starts_with(['/', ':'])) {
            return Err(Error::Parameter {
                name: "URL".into(),
                found: format!("'{}'", self.url.escape_debug()),
                expected: "the URL of a server, e.g. http://127.0.0.1:8080".into(),
            });
        }
        let config = ureq::Agent::config_builder();
        let agent: ureq::Agent =
            config.timeout_global(Some(Duration::from_secs(self.timeout))).proxy(None).build().into();
        match agent.get(format!("{url}/health")).call() {
            Ok(_) => write_line("ok")?,
            Err(ureq::Error::StatusCode(503)) => {
                return Err(Error::Message(format!(
                    "{url} is not ready: loading its models or shutting down (503)"
                )));
            }
            Err(error) => {
                let reason = error.to_string().replace('\n', " ");
                return Err(Error::Message(format!("{url} did not respond: {reason}")));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
