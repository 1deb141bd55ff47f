//! `hornbook batch`: a file of requests in, a file of responses out.

mod input;
mod output;

use super::engine_args::EngineArgs;
use super::{is_closed_pipe, progress};
use crate::server::HttpLimits;
use crate::server::ServerOptions;
use crate::server::in_process::InProcessServer;
use crate::{Error, Result};
use clap::Args;
use input::BatchRequest;
use output::Output;
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit code after Ctrl-C: 128 + SIGINT.
const INTERRUPTED: i32 = 130;

/// Process a file of requests in the format of OpenAI's Batch API
///
/// Each line of the input is a request to /v1/completions, /v1/chat/completions or /v1/embeddings, with a
/// custom_id that is repeated in its response. Requests are batched, and each response is appended to the
/// output as soon as it is complete, in any order. To resume an interrupted run, repeat the command: requests
/// that already have a response are skipped, and an incomplete last line is redone.
///
/// Every line of the input is validated before anything runs. A request that fails, for example because its
/// prompt is too long, gets an error as its response; the number of failures is reported at the end, and the
/// exit code is 1.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cat > in.jsonl <<'END'
  {\"custom_id\": \"a\", \"method\": \"POST\", \"url\": \"/v1/completions\", \"body\": {\"prompt\": \"Once\"}}
  END
  hornbook batch in.jsonl -o out.jsonl
  hornbook batch in.jsonl -o gpt2.jsonl --model gpt2 --max-concurrency 32
  hornbook batch - < in.jsonl | jq -r .response.body.choices[0].text

The response to a line, in out.jsonl:
  {\"id\": \"batch_req_...\", \"custom_id\": \"a\", \"error\": null,
   \"response\": {\"status_code\": 200, \"request_id\": \"...\", \"body\": {...}}}")]
pub struct Batch {
    /// Input file, one request per line; - for standard input
    input: PathBuf,

    /// Output file; - for standard output, which cannot be resumed
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    #[command(flatten)]
    engines: EngineArgs,
}

impl Batch {
    pub(super) fn run(self) -> Result<ExitCode> {
        let requests = input::read(&self.input)?;
        let (mut output, mut progress) = Output::open(&self.output, &self.input, &requests)?;
        let remaining: Vec<&BatchRequest> =
            requests.iter().filter(|request| !progress.is_done(&request.custom_id)).collect();
        if remaining.len() < requests.len() {
            stderr_line!(
                "hornbook: {} of {} requests done, {} remaining",
                requests.len() - remaining.len(),
                requests.len(),
                remaining.len()
            );
        }
        if !remaining.is_empty() {
            // The next run removes a line that is incomplete at the interruption.
            let _ = ctrlc::set_handler(|| std::process::exit(INTERRUPTED));
            // No limits on queue and body: there are no other clients, and a line may be as long as the file.
            let options = ServerOptions {
                http: HttpLimits { max_body_bytes: usize::MAX, ..HttpLimits::default() },
                ..self.engines.options(usize::MAX)
            };
            let server = InProcessServer::start(self.engines.open()?, options)?;
            let bar = progress::bar(remaining.len());
            let posts = remaining.iter().map(|request| (request.url.clone(), request.body.clone()));
            let result = server.post_all(posts, self.engines.max_concurrency, |i, response| {
                bar.suspend(|| output.append(&remaining[i].custom_id, &response))?;
                progress.record(&remaining[i].custom_id, response.status, &response.body);
                bar.inc(1);
                Ok(())
            });
            bar.finish_and_clear();
            match result {
                Err(error) if is_closed_pipe(&error) => return Ok(ExitCode::SUCCESS), // as with `| head`
                result => result?,
            }
        }
        match progress.failure_summary() {
            None => Ok(ExitCode::SUCCESS),
            Some(summary) => Err(Error::Message(format!("{}: {summary}", output.name()))),
        }
    }
}
