//! `hornbook batch`: a file of requests in, a file of answers out.

mod input;
mod output;

use super::engines::Engines;
use super::{is_closed_pipe, progress};
use crate::server::HttpLimits;
use crate::server::ServerOptions;
use crate::server::in_process::InProcess;
use crate::{Error, Result};
use clap::Args;
use input::Line;
use output::Output;
use std::path::PathBuf;
use std::process::ExitCode;

/// The exit code of a program ended by Ctrl-C.
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
  hornbook batch in.jsonl -o out.jsonl
  hornbook batch in.jsonl -o out.jsonl --model gpt2 --max-concurrency 32
  hornbook batch - < in.jsonl | jq -r .response.body.choices[0].text

A line of in.jsonl:
  {\"custom_id\": \"a\", \"method\": \"POST\", \"url\": \"/v1/completions\", \"body\": {\"prompt\": \"Once\"}}
and its response in out.jsonl:
  {\"id\": \"batch_req_...\", \"custom_id\": \"a\", \"error\": null,
   \"response\": {\"status_code\": 200, \"request_id\": \"...\", \"body\": {...}}}")]
pub struct Batch {
    /// Input file, one request per line; - for standard input
    input: PathBuf,

    /// Output file; - for standard output, which cannot be resumed
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    #[command(flatten)]
    engines: Engines,
}

impl Batch {
    pub(super) fn run(self) -> Result<ExitCode> {
        let lines = input::read(&self.input)?;
        let (mut output, mut tally) = Output::open(&self.output, &self.input, &lines)?;
        let left: Vec<&Line> = lines.iter().filter(|line| !tally.has(&line.custom_id)).collect();
        if left.len() < lines.len() {
            eprintln!(
                "hornbook: {} of {} requests are done, {} are left",
                lines.len() - left.len(),
                lines.len(),
                left.len()
            );
        }
        if !left.is_empty() {
            // Whatever is half written when it is interrupted is cut off by the next run.
            let _ = ctrlc::set_handler(|| std::process::exit(INTERRUPTED));
            // Nobody else waits for these models, and a line may be as long as the file.
            let options = ServerOptions {
                http: HttpLimits { max_body: usize::MAX, ..HttpLimits::default() },
                ..self.engines.options(usize::MAX)
            };
            let models = InProcess::start(self.engines.open()?, options)?;
            let bar = progress::bar(left.len());
            let requests = left.iter().map(|line| (line.url.clone(), line.body.clone()));
            let done = models.answer_all(requests, self.engines.max_concurrency, |i, answer| {
                bar.suspend(|| output.append(&left[i].custom_id, &answer))?;
                tally.count(&left[i].custom_id, answer.status, &answer.body);
                bar.inc(1);
                Ok(())
            });
            bar.finish_and_clear();
            match done {
                Err(error) if is_closed_pipe(&error) => return Ok(ExitCode::SUCCESS), // as for `| head`
                done => done?,
            }
        }
        match tally.refused() {
            None => Ok(ExitCode::SUCCESS),
            Some(refused) => Err(Error::Message(format!("{}: {refused}", output.name()))),
        }
    }
}
