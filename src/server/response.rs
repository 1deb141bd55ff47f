//! Responses built from engine events: one JSON object, or server-sent events.

use super::error::ApiError;
use super::json::{json_response, to_json};
use super::middleware::random_id;
use super::parameters::ResponseMode;
use super::request_context::RequestContext;
use super::submission::Submission;
use crate::engine::Event;
use crate::generate::completion::Usage;
use axum::body::Body;
use axum::http::header;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use serde::Serialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::timeout;
use utoipa::ToSchema;

/// Interval at which a client that has closed its side gets a piece of its response.
const HEARTBEAT: Duration = Duration::from_millis(100);

/// The fields that completions, chat completions and their chunks share.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CompletionResponse<C> {
    /// Response id; the same in all chunks.
    pub id: String,
    /// Object type, such as `text_completion`.
    pub object: &'static str,
    /// Creation time, in seconds since 1970.
    pub created: u64,
    /// Model name, as given in the request.
    pub model: String,
    /// Program name and version.
    pub system_fingerprint: &'static str,
    /// The choices; in chunks, their deltas.
    pub choices: Vec<C>,
    /// Token usage. In chunks: absent unless requested, and null in all but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Usage>)]
    pub usage: Option<Option<Usage>>,
}

impl<C> CompletionResponse<C> {
    /// Creates a response without choices, with a new id and the current time.
    pub fn new(prefix: &str, object: &'static str, model: &str, usage: Option<Option<Usage>>) -> Self {
        Self {
            id: format!("{prefix}-{}", random_id()),
            object,
            created: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            model: model.to_string(),
            system_fingerprint: concat!("hornbook-", env!("CARGO_PKG_VERSION")),
            choices: vec![],
            usage,
        }
    }
}

impl<C: Serialize + Clone> CompletionResponse<C> {
    /// Returns a copy of the response with these choices and usage, as JSON.
    pub fn chunk_json(&self, choices: Vec<C>, usage: Option<Option<Usage>>) -> String {
        let Self { id, object, created, model, system_fingerprint, .. } = self.clone();
        to_json(&CompletionResponse { id, object, created, model, system_fingerprint, choices, usage })
    }
}

/// Builds a response from engine events.
pub trait ResponseBuilder: Sized + Send + 'static {
    /// Adds an engine event of a prompt.
    fn push_event(&mut self, prompt: usize, event: Event);

    /// Returns the events of a stream before anything is generated.
    fn opening(&mut self) -> Vec<sse::Event> {
        vec![]
    }

    /// Returns the new content of the prompt's choices.
    fn chunks(&mut self, prompt: usize) -> Vec<sse::Event>;

    /// Returns the events after everything is generated.
    fn closing(&mut self) -> Vec<sse::Event>;

    /// Returns the events that end a stream with an error. OpenAI's clients raise an exception for data with
    /// the key `error`.
    fn failure(&mut self, error: &ApiError) -> Vec<sse::Event> {
        vec![data_event(error.json())]
    }

    /// Returns the complete response body.
    fn into_body(self) -> String;
}

/// Returns an event with this data.
pub fn data_event(data: String) -> sse::Event {
    sse::Event::default().data(data)
}

/// Returns the events that close a stream of chunks: one with the usage, if it was requested, and `[DONE]`.
pub fn closing_events(usage_chunk: Option<String>) -> Vec<sse::Event> {
    usage_chunk.into_iter().chain(["[DONE]".into()]).map(data_event).collect()
}

/// Runs a submission and responds in the requested mode.
///
/// # Errors
/// Errors that occur before the first byte is sent; later ones become an SSE event.
pub async fn respond(
    context: Arc<RequestContext>,
    mut builder: impl ResponseBuilder,
    mut submission: Submission,
    mode: ResponseMode,
) -> Result<Response, ApiError> {
    if mode == ResponseMode::Complete {
        let recorded = Arc::clone(&context);
        let body = async move {
            while let Some((prompt, event)) = submission.next().await? {
                recorded.record_event(&event);
                match event {
                    Event::Failed(error) => return Err(ApiError::failed(&error)),
                    event => builder.push_event(prompt, event),
                }
            }
            Ok(builder.into_body())
        };
        return respond_json(context, body).await;
    }
    context.stream_started();
    let ready = builder.opening().into();
    let stream = EventStream { context, builder, submission, ready, half_closed: false, finished: false };
    let events =
        unfold(stream, |mut stream| async { Some((Ok::<_, Infallible>(stream.next().await?), stream)) });
    let mut response = Sse::new(events).keep_alive(KeepAlive::new()).into_response();
    // Disables response buffering in nginx and other proxies.
    response.headers_mut().insert("x-accel-buffering", header::HeaderValue::from_static("no"));
    Ok(response)
}

/// Responds with a JSON body once it is computed.
///
/// A client that closes its side meanwhile has gone, or waits for the rest of its response. To find out, the
/// response begins with white space: a client that has gone resets the connection, which cancels the request.
///
/// # Errors
/// Those of `body`, unless the response has begun: then the body is the error object.
pub async fn respond_json(
    context: Arc<RequestContext>,
    body: impl Future<Output = Result<String, ApiError>> + Send + 'static,
) -> Result<Response, ApiError> {
    let mut body = Box::pin(body);
    tokio::select! {
        biased;
        body = &mut body => return Ok(json_response(body?).into_response()),
        () = context.closed_by_client() => context.stream_started(),
    }
    let pieces = unfold(Some(body), move |body| {
        let context = Arc::clone(&context);
        async move {
            let mut body = body?;
            let (piece, rest) = match timeout(HEARTBEAT, &mut body).await {
                Err(_) => (" ".to_string(), Some(body)),
                Ok(done) => {
                    context.stream_finished();
                    (done.unwrap_or_else(|error| error.json()), None)
                }
            };
            Some((Ok::<_, Infallible>(piece), rest))
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(pieces)).into_response())
}

/// Stream of SSE events. Dropping it, as hyper does when the client disconnects, cancels the request.
struct EventStream<B> {
    context: Arc<RequestContext>,
    builder: B,
    submission: Submission,
    ready: VecDeque<sse::Event>,
    /// The client has closed its side.
    half_closed: bool,
    finished: bool,
}

impl<B: ResponseBuilder> EventStream<B> {
    /// Returns the next event, or `None` after the last.
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.finished {
                return None;
            }
            let Some(next) = self.next_engine_event().await else {
                return Some(sse::Event::default().comment(""));
            };
            match next {
                Ok(Some((_, Event::Failed(error)))) => self.fail(&ApiError::failed(&error)),
                Ok(Some((prompt, event))) => {
                    self.context.record_event(&event);
                    self.builder.push_event(prompt, event);
                    self.ready.extend(self.builder.chunks(prompt));
                }
                Ok(None) => {
                    self.finish();
                    self.ready.extend(self.builder.closing());
                }
                Err(error) => self.fail(&error),
            }
        }
    }

    /// Returns the next engine event. `None` where the client has closed its side and no event came in time:
    /// a comment shows whether the client has gone.
    async fn next_engine_event(&mut self) -> Option<Result<Option<(usize, Event)>, ApiError>> {
        if !self.half_closed {
            tokio::select! {
                biased;
                event = self.submission.next() => return Some(event),
                () = self.context.closed_by_client() => self.half_closed = true,
            }
        }
        timeout(HEARTBEAT, self.submission.next()).await.ok()
    }

    /// Ends the stream after the events that are ready.
    fn finish(&mut self) {
        self.finished = true;
        self.context.stream_finished();
    }

    /// Ends the stream with an error.
    fn fail(&mut self, error: &ApiError) {
        self.finish();
        self.ready.extend(self.builder.failure(error));
    }
}
