//! The same routes without a network, for requests that are there already.

use super::routes::{plain, router};
use super::{Checked, Phase, ServerOptions};
use crate::{Error, Hornbook, Result};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, Uri};
use futures_util::stream::{StreamExt, iter};
use std::convert::Infallible;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tower::ServiceExt;

/// Models and the routes to them.
pub struct InProcess {
    routes: Router,
    runtime: Runtime,
    /// Nothing is to end before it is done; its requests hold the other side.
    _phase: watch::Sender<Phase>,
}

/// What a request was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status, as HTTP has it.
    pub status: u16,
    /// As in the `x-request-id` header.
    pub request_id: String,
    /// The body: JSON, unless a stream was asked for.
    pub body: String,
}

impl InProcess {
    /// Models at work. What the options say of the network has no meaning here, and there are no keys.
    ///
    /// # Errors
    /// [`Error::Parameter`] and [`Error::Message`] for options and names that do not go together, [`Error::Io`] for a
    /// file that cannot be read.
    pub fn start(models: Vec<Hornbook>, options: ServerOptions) -> Result<Self> {
        let phase = watch::Sender::new(Phase::Open);
        let app = Checked::new(ServerOptions { keys: None, ..options })?.app(models, phase.subscribe())?;
        let runtime = Builder::new_current_thread().enable_time().build();
        let runtime =
            runtime.map_err(|error| Error::Message(format!("the requests cannot be run: {error}")))?;
        Ok(Self { routes: router(app), runtime, _phase: phase })
    }

    /// Posts requests, each a path and a body, so many `at_once`, and hands over every answer when it is there, with the
    /// request's number; the first error ends it.
    ///
    /// # Errors
    /// Those of `each`.
    ///
    /// # Panics
    /// Within a `tokio` runtime.
    pub fn answer_all(
        &self,
        requests: impl IntoIterator<Item = (Uri, String)>,
        at_once: usize,
        mut each: impl FnMut(usize, Answer) -> Result<()>,
    ) -> Result<()> {
        let answers = requests
            .into_iter()
            .enumerate()
            .map(|(i, (path, body))| async move { (i, self.answer(&path, body).await) });
        self.runtime.block_on(async {
            let mut answers = iter(answers).buffer_unordered(at_once.max(1));
            while let Some((i, answer)) = answers.next().await {
                each(i, answer?)?;
            }
            Ok(())
        })
    }

    async fn answer(&self, path: &Uri, body: String) -> Result<Answer> {
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = plain(path).unwrap_or_else(|| path.clone());
        let answered: std::result::Result<_, Infallible> = self.routes.clone().oneshot(request).await;
        let (head, body) = answered.unwrap_or_else(|never| match never {}).into_parts();
        let failed = |error: String| Error::Message(format!("{path}: the answer broke off: {error}"));
        let body = to_bytes(body, usize::MAX).await.map_err(|error| failed(error.to_string()))?;
        let body = String::from_utf8(body.into()).map_err(|error| failed(error.to_string()))?;
        let request_id = head.headers.get("x-request-id").and_then(|id| id.to_str().ok());
        Ok(Answer { status: head.status.as_u16(), request_id: request_id.unwrap_or_default().into(), body })
    }
}
