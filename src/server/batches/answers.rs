//! The answers to a batch's requests, appended one by one; a restart goes on after the last.

use super::context::BatchContext;
use super::object::StoredBatch;
use crate::Error;
use crate::batch::{
    BatchRequest, BatchResponse, InvalidLine, Progress, Requests, ResponseFile, fingerprint, response_line,
};
use crate::engine::Priority;
use crate::server::in_process::{post_request, send};
use crate::server::middleware::OnBehalf;
use crate::server::store::Entry;
use axum::http::HeaderMap;
use futures_util::stream::{StreamExt, iter};
use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::sleep;

type Result<T, E = Error> = std::result::Result<T, E>;

/// Requests that wait for their turn, or are computed.
const MAX_IN_FLIGHT: usize = 64;
/// Shortest and longest pause before a request that was turned away is sent again.
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// A batch that is computed.
pub(super) struct Answers {
    id: String,
    owner: String,
    input: PathBuf,
    /// Stands in each response's id for the batch.
    settings: String,
    file: ResponseFile,
    progress: Progress,
}

impl Answers {
    /// Opens what is answered of a batch; `None` if its input has been deleted.
    pub(super) fn open(context: &BatchContext, batch: &Entry<StoredBatch>) -> Result<Option<Self>> {
        let files = &context.collections.files;
        let Some(input) = files.get(&batch.owner, &batch.value.input_file_id) else { return Ok(None) };
        let path = context.collections.batches.responses_path(&batch.id);
        let (mut file, progress) = ResponseFile::open(&path, |_, _| Ok(()))?;
        file.start(&progress)?;
        Ok(Some(Self {
            id: batch.id.clone(),
            owner: batch.owner.clone(),
            input: files.path(&input),
            settings: fingerprint::of_parts([batch.id.as_bytes()]),
            file,
            progress,
        }))
    }

    /// Answers all requests that are left.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub(super) async fn run(&mut self, context: &BatchContext) -> Result<()> {
        let Self { id, owner, input, settings, file, progress } = self;
        let batches = &context.collections.batches;
        batches.running().insert(id.clone(), progress.counts());
        let progress = RefCell::new(progress);
        let is_left = |request: &Result<Result<BatchRequest, InvalidLine>>| match request {
            Ok(Ok(request)) => !progress.borrow().is_done(&request.custom_id),
            _ => true,
        };
        let requests = Requests::open(input, context.max_line_bytes())?.filter(is_left);
        let mut answers = iter(requests)
            .map(|request| answer(context, owner, request))
            .buffer_unordered(MAX_IN_FLIGHT.min(context.app.max_concurrency.max(1)));
        while let Some(answered) = answers.next().await {
            let (request, response) = answered?;
            file.append(&response_line(settings, &request, &response))?;
            progress.borrow_mut().record(&request.custom_id, response.status, &response.body);
            batches.running().insert(id.clone(), progress.borrow().counts());
        }
        Ok(())
    }

    /// Synchronizes the answers with the disk.
    pub(super) fn sync(&mut self) -> Result<()> {
        self.file.sync()
    }
}

/// Answers a request once it is its turn, as the owner's key may: a request that is turned away waits.
async fn answer(
    context: &BatchContext,
    owner: &str,
    request: Result<Result<BatchRequest, InvalidLine>>,
) -> Result<(BatchRequest, BatchResponse)> {
    let request = request?.map_err(|line| Error::Message(format!("the input has changed: {line}")))?;
    let _slot = context.slots.acquire().await;
    loop {
        let mut posted = post_request(request.endpoint, request.body.clone());
        posted.extensions_mut().insert(Priority::Low);
        posted.extensions_mut().insert(OnBehalf(owner.into()));
        let (response, headers) = send(&context.router, posted).await?;
        match pause(response.status, &headers) {
            Some(pause) => sleep(pause).await,
            None => return Ok((request, response)),
        }
    }
}

/// Returns when a request that was turned away is to be sent again; `None` for an answer.
fn pause(status: u16, headers: &HeaderMap) -> Option<Duration> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let is_refused = matches!(status, 429 | 503) && header("x-should-retry") != Some("false");
    let milliseconds = header("retry-after-ms").and_then(|text| text.parse().ok());
    let pause = milliseconds.map_or(MIN_PAUSE, Duration::from_millis);
    is_refused.then(|| pause.clamp(MIN_PAUSE, MAX_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn request_that_was_turned_away_is_sent_again_unless_it_never_can_be() {
        let mut headers = HeaderMap::new();
        assert_eq!(pause(200, &headers), None);
        assert_eq!(pause(400, &headers), None);
        assert_eq!(pause(503, &headers), Some(MIN_PAUSE));
        headers.insert("retry-after-ms", HeaderValue::from_static("2500"));
        assert_eq!(pause(429, &headers), Some(Duration::from_millis(2500)));
        headers.insert("retry-after-ms", HeaderValue::from_static("99999999"));
        assert_eq!(pause(429, &headers), Some(MAX_PAUSE));
        headers.insert("x-should-retry", HeaderValue::from_static("false"));
        assert_eq!(pause(429, &headers), None);
    }
}
