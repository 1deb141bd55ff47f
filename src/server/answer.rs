//! From events to a response: the whole answer at once, or server-sent events as they come.

use super::error::ApiError;
use super::headers::random_id;
use super::log::Call;
use super::parameters::Send;
use super::submission::Submission;
use crate::engine::Event;
use crate::generate::completion::Usage;
use axum::http::header;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use serde::Serialize;
use serde_json::Value;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use utoipa::ToSchema;

/// What every object of a completion carries, in one piece or in chunks.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Reply<C> {
    /// The same in all chunks.
    pub id: String,
    /// What it is.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// The model, as the request called it.
    pub model: String,
    /// What computed it: the program and its version.
    pub system_fingerprint: &'static str,
    /// The choices; in chunks, what is new of them.
    pub choices: Vec<C>,
    /// Null in the chunks before the last, where it was asked for; absent where it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Usage>)]
    pub usage: Option<Option<Usage>>,
}

impl<C> Reply<C> {
    /// An answer that begins now, without choices yet.
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

impl<C: Serialize + Clone> Reply<C> {
    /// The answer, or a chunk of it, with these choices.
    pub fn with(&self, choices: Vec<C>, usage: Option<Option<Usage>>) -> String {
        let Self { id, object, created, model, system_fingerprint, .. } = self.clone();
        text(&Reply { id, object, created, model, system_fingerprint, choices, usage })
    }
}

/// A value as JSON. None of what is sent can fail to be.
pub fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| ApiError::internal(error.to_string()).json())
}

/// JSON as a response.
pub fn json(text: String) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], text)
}

/// A JSON object as a response.
pub fn object(value: &Value) -> Response {
    json(value.to_string()).into_response()
}

/// An answer in the making.
pub trait Answer: Sized + std::marker::Send + 'static {
    /// Takes in what has come of a prompt.
    fn take(&mut self, prompt: usize, event: Event);

    /// What is new of that prompt's choices, as chunks.
    fn chunks(&mut self, prompt: usize) -> Vec<String>;

    /// The last chunk, where usage was asked for.
    fn usage_chunk(&self) -> String;

    /// All of it.
    fn whole(self) -> String;
}

/// Runs prompts to their end and answers as asked.
///
/// # Errors
/// Whatever goes wrong before the first byte is sent.
pub async fn respond(
    call: Arc<Call>,
    mut answer: impl Answer,
    mut submission: Submission,
    send: Send,
) -> Result<Response, ApiError> {
    let Send::Stream { usage } = send else {
        while let Some((prompt, event)) = submission.next().await? {
            call.sees(&event);
            match event {
                Event::Failed(error) => return Err(ApiError::internal(error.to_string())),
                event => answer.take(prompt, event),
            }
        }
        return Ok(json(answer.whole()).into_response());
    };
    call.begins();
    let stream = Streaming { call, answer, submission, usage, ready: VecDeque::new(), over: false };
    let events = unfold(stream, |mut stream| async {
        let data = stream.next().await?;
        Some((Ok::<_, Infallible>(sse::Event::default().data(data)), stream))
    });
    let mut response = Sse::new(events).keep_alive(KeepAlive::new()).into_response();
    // Proxies that hold text back until there is much of it are asked not to.
    response.headers_mut().insert("x-accel-buffering", header::HeaderValue::from_static("no"));
    Ok(response)
}

/// An answer that is sent while it is written. Dropping it, as happens when the client has gone, cancels the rest.
struct Streaming<A> {
    call: Arc<Call>,
    answer: A,
    submission: Submission,
    usage: bool,
    ready: VecDeque<String>,
    over: bool,
}

impl<A: Answer> Streaming<A> {
    /// The data of the next event; none after the last.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(data) = self.ready.pop_front() {
                return Some(data);
            }
            if self.over {
                return None;
            }
            match self.submission.next().await {
                Ok(Some((_, Event::Failed(error)))) => self.fail(&ApiError::internal(error.to_string())),
                Ok(Some((prompt, event))) => {
                    self.call.sees(&event);
                    self.answer.take(prompt, event);
                    self.ready.extend(self.answer.chunks(prompt));
                }
                Ok(None) => {
                    self.end();
                    let usage = self.usage.then(|| self.answer.usage_chunk());
                    self.ready.extend(usage.into_iter().chain(["[DONE]".to_string()]));
                }
                Err(error) => self.fail(&error),
            }
        }
    }

    /// What is ready is all there will be.
    fn end(&mut self) {
        self.over = true;
        self.call.ended();
    }

    /// Both clients raise what has the key `error`.
    fn fail(&mut self, error: &ApiError) {
        self.end();
        self.ready.push_back(error.json());
    }
}
