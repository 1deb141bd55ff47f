//! `hornbook batch`: a file of requests in, a file of responses out.

mod input;
mod merge;
mod output;
mod reproducible;
mod settings;
mod shard;

use crate::batch::{BatchRequest, Progress};
use crate::cli::INTERRUPTED;
use crate::cli::args::engine::EngineArgs;
use crate::cli::output::progress;
use crate::cli::output::stdout::is_closed_pipe;
use crate::server::HttpLimits;
use crate::server::ServerOptions;
use crate::server::in_process::InProcessServer;
use crate::{Error, Result};
use clap::Args;
use output::Output;
use settings::settings_fingerprint;
use shard::Shard;
use std::path::PathBuf;
use std::process::ExitCode;

/// The arguments that say what to compute, and how.
const COMPUTING_ARGS: [&str; 13] = [
    "shard",
    "model",
    "adapter",
    "alias",
    "max_concurrency",
    "prefix_cache",
    "prefill_chunk",
    "chat_template",
    "draft",
    "precision",
    "kv_precision",
    "attention",
    "threads",
];

/// Process a file of requests in the format of OpenAI's Batch API
///
/// Each line of the input is a request to /v1/completions, /v1/chat/completions, /v1/responses or
/// /v1/embeddings, with a custom_id that is repeated in its response. Requests are batched, and each response
/// is appended to the output as soon as it is complete, in any order. To resume an interrupted run, repeat
/// the command: requests that already have a response are skipped, and an incomplete last line is redone. If
/// a request, the model or its precision has changed since, the output is refused. The output is synchronized
/// with the disk every second.
///
/// A request with a seed, or with temperature 0, has the same response on every machine, ids included. With
/// the environment variable SOURCE_DATE_EPOCH, in seconds since 1970, for the time that all responses name,
/// the outputs of two runs are the same bytes once --merge has put them in order.
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
  hornbook batch in.jsonl -o out-1.jsonl --shard 1/2      # on one machine
  hornbook batch in.jsonl -o out-2.jsonl --shard 2/2      # on another one
  hornbook batch in.jsonl -o all.jsonl --merge out-1.jsonl out-2.jsonl

The response to a line, in out.jsonl:
  {\"id\": \"batch_req_...\", \"custom_id\": \"a\", \"error\": null,
   \"response\": {\"status_code\": 200, \"request_id\": \"...\", \"body\": {...}}}")]
pub struct Batch {
    /// Input file, one request per line; - for standard input
    input: PathBuf,

    /// Output file; - for standard output, which cannot be resumed
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// Compute only part I of N of the requests, for example on machine I of N
    #[arg(long, value_name = "I/N", help_heading = "Several machines")]
    shard: Option<Shard>,

    /// Compute nothing: put the outputs of shards together, in the order of the requests
    ///
    /// Every request must have one response, all of the same model and precision. With a single output, this
    /// puts its lines in order.
    #[arg(long, value_name = "FILE", num_args = 1.., help_heading = "Several machines",
        conflicts_with_all = COMPUTING_ARGS)]
    merge: Vec<PathBuf>,

    #[command(flatten)]
    engines: EngineArgs,
}

impl Batch {
    pub(super) fn run(self) -> Result<ExitCode> {
        let (mut requests, mut input) = (input::read(&self.input)?, self.input.display().to_string());
        if !self.merge.is_empty() {
            return match merge::merge(&input, &requests, &self.merge, &self.output) {
                Err(error) if is_closed_pipe(&error) => Ok(ExitCode::SUCCESS),
                merged => exit_code(&merged?, &self.output.display().to_string()),
            };
        }
        if let Some(shard) = self.shard {
            shard.retain(&mut requests);
            input = format!("shard {shard} of {input}");
        }
        let (mut output, mut progress) = Output::open(&self.output, &input, &requests)?;
        let remaining: Vec<&BatchRequest> =
            requests.iter().filter(|request| !progress.is_done(&request.custom_id)).collect();
        if remaining.len() < requests.len() || progress.damage.is_some() {
            let damage = progress.damage.as_ref().map_or_else(String::new, |damage| format!("; {damage}"));
            stderr_line!(
                "hornbook: {} of {} requests done, {} remaining{damage}",
                requests.len() - remaining.len(),
                requests.len(),
                remaining.len()
            );
        }
        // No limits on queue and body: there are no other clients, and a line may be as long as the file.
        let options = ServerOptions {
            http: HttpLimits { max_body_bytes: usize::MAX, ..HttpLimits::default() },
            ..self.engines.options(usize::MAX)
        };
        let models = match self.engines.open() {
            Err(_) if remaining.is_empty() => None, // nothing is left to compute or to compare with
            models => Some(models?),
        };
        if let Some(models) = models {
            let settings = settings_fingerprint(&models, &options)?;
            output.start(&progress, &settings)?;
            // The next run removes a line that is incomplete at the interruption.
            let _ = ctrlc::set_handler(|| std::process::exit(INTERRUPTED.into()));
            let time = reproducible::time()?;
            let server = InProcessServer::start(models, options)?;
            let bar = progress::bar(remaining.len());
            let posts = remaining.iter().map(|request| (request.endpoint, request.body.clone()));
            let result = server.post_all(posts, self.engines.max_concurrency, |i, response| {
                let response = reproducible::response(&settings, remaining[i], time, &response);
                bar.suspend(|| output.append(&settings, remaining[i], &response))?;
                progress.record(&remaining[i].custom_id, response.status, &response.body);
                bar.inc(1);
                Ok(())
            });
            bar.finish_and_clear();
            match result {
                Err(error) if is_closed_pipe(&error) => return Ok(ExitCode::SUCCESS), // as with `| head`
                result => result.and_then(|()| output.sync())?,
            }
        }
        exit_code(&progress, &output.name())
    }
}

/// Success, or the error that says how many requests failed.
fn exit_code(progress: &Progress, output: &str) -> Result<ExitCode> {
    match progress.failure_summary() {
        None => Ok(ExitCode::SUCCESS),
        Some(summary) => Err(Error::Message(format!("{output}: {summary}"))),
    }
}
