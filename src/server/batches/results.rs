//! The results of a batch: a file of the responses with status 200, and one of all others.

use super::context::BatchContext;
use super::object::{Status, StoredBatch};
use crate::batch::{BatchRequest, OutputLine, Requests, fingerprint, refusal_line};
use crate::server::files::{FileDraft, purpose};
use crate::server::store::{Entry, unix_time};
use crate::{Error, Result};
use std::collections::HashSet;
use std::fs::{File, remove_file};
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;

/// How the answers of a batch end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Completed,
    Cancelled,
    Expired,
    Failed,
}

/// Writes the results of a batch, which is at its end then. A kill at any moment, and another call, lead to
/// the same two files.
///
/// # Errors
/// [`Error::Io`]
pub(super) fn write(context: &BatchContext, id: &str, end: End) -> Result<()> {
    if end == End::Failed {
        return Ok(());
    }
    let batches = &context.collections.batches;
    let begun = batches.update(id, |batch| match (batch.status, end) {
        (Status::Cancelling, _) => End::Cancelled,
        (Status::InProgress, End::Completed) => {
            batch.status = Status::Finalizing;
            batch.times.finalizing_at = Some(unix_time());
            end
        }
        _ => end,
    })?;
    let (Some(end), Some(batch)) = (begun, context.find(id)) else { return Ok(()) };

    let mut output = ResultFile::new(context, &batch, batch.value.output_file_id.as_deref());
    let mut errors = ResultFile::new(context, &batch, batch.value.error_file_id.as_deref());
    let (mut done, mut failed) = (HashSet::new(), 0);
    for_each_line(&batches.responses_path(id), |line| {
        let Some(response) = OutputLine::parse(line) else { return Ok(()) }; // an incomplete last line
        let is_error = response.status() != 200;
        if done.insert(response.custom_id) {
            failed += usize::from(is_error);
            if is_error { errors.write(line)? } else { output.write(line)? }
        }
        Ok(())
    })?;
    if let Some((code, message)) = end.refusal() {
        for request in unanswered(context, &batch, &done)? {
            let settings = fingerprint::of_parts([id.as_bytes()]);
            errors.write(refusal_line(&settings, &request?, code, message).as_bytes())?;
        }
    }
    output.finish("output", |batch, id| batch.output_file_id = Some(id))?;
    errors.finish("error", |batch, id| batch.error_file_id = Some(id))?;

    let status = batches.update(id, |batch| {
        let (status, time) = match end {
            End::Cancelled => (Status::Cancelled, &mut batch.times.cancelled_at),
            End::Expired => (Status::Expired, &mut batch.times.expired_at),
            End::Completed | End::Failed => (Status::Completed, &mut batch.times.completed_at),
        };
        batch.status = status;
        *time = Some(unix_time());
        batch.request_counts.completed = done.len() - failed;
        batch.request_counts.failed = failed;
        status
    })?;
    let status = status.map(Status::as_str);
    tracing::info!(batch = id, status, completed = done.len() - failed, failed, "the batch is at its end");
    let _ = remove_file(batches.responses_path(id)); // may not exist
    batches.collection().update(id, |_| ())?; // measures what is left
    Ok(())
}

impl End {
    /// Returns code and message of the error in place of a response that there is not.
    fn refusal(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Cancelled => {
                Some(("batch_cancelled", "This request was not executed: the batch was cancelled before."))
            }
            Self::Expired => Some((
                "batch_expired",
                "This request could not be executed before the completion window expired.",
            )),
            Self::Completed | Self::Failed => None,
        }
    }
}

/// Returns the requests without a response; none if the input has been deleted.
fn unanswered(
    context: &BatchContext,
    batch: &Entry<StoredBatch>,
    done: &HashSet<String>,
) -> Result<impl Iterator<Item = Result<BatchRequest>>> {
    let files = &context.collections.files;
    let input = files.get(&batch.owner, &batch.value.input_file_id);
    let requests = input.map(|input| Requests::open(&files.path(&input), context.max_line_bytes()));
    let valid = requests
        .transpose()?
        .into_iter()
        .flatten()
        .filter_map(|request| request.map(|valid| valid.ok()).transpose());
    Ok(valid.filter(|request| !request.as_ref().is_ok_and(|request| done.contains(&request.custom_id))))
}

/// Calls `visit` with each line of a file, with its end; a file that does not exist has none.
fn for_each_line(path: &Path, mut visit: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let error = |source| Error::Io { path: path.into(), action: "read", source };
    let mut lines = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        opened => BufReader::new(opened.map_err(error)?),
    };
    let mut line = vec![];
    while lines.read_until(b'\n', &mut line).map_err(error)? > 0 {
        if line.ends_with(b"\n") {
            visit(&line)?;
        }
        line.clear();
    }
    Ok(())
}

/// A result file, which is created with its first line. One that is there already stays as it is.
struct ResultFile<'a> {
    context: &'a BatchContext,
    batch: &'a Entry<StoredBatch>,
    is_there: bool,
    draft: Option<FileDraft>,
}

impl<'a> ResultFile<'a> {
    fn new(context: &'a BatchContext, batch: &'a Entry<StoredBatch>, id: Option<&str>) -> Self {
        let is_there = id.is_some_and(|id| context.collections.files.get(&batch.owner, id).is_some());
        Self { context, batch, is_there, draft: None }
    }

    fn write(&mut self, line: &[u8]) -> Result<()> {
        if self.is_there {
            return Ok(());
        }
        let draft = match self.draft.take() {
            Some(draft) => draft,
            None => self.context.collections.files.draft(&self.batch.owner)?,
        };
        self.draft.insert(draft).write(line)
    }

    /// Makes the file appear, after the batch says which it is: so there is never a second one.
    fn finish(self, kind: &str, set_id: impl FnOnce(&mut StoredBatch, String)) -> Result<()> {
        let Some(draft) = self.draft else { return Ok(()) };
        let id = draft.id().to_string();
        self.context.collections.batches.update(&self.batch.id, |batch| set_id(batch, id))?;
        let expires_at = self.batch.value.output_expires_after.map(|seconds| draft.created_at() + seconds);
        let filename = format!("{}_{kind}.jsonl", self.batch.id);
        draft.finish(&filename, purpose::BATCH_OUTPUT, expires_at).map(drop)
    }
}
