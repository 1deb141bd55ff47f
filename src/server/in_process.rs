//! In-process server: the same routes without a network, for batch requests.

use super::routes::router;
use super::{LoadedOptions, Phase, ServerOptions};
use crate::batch::BatchResponse;
use crate::{Error, Hornbook, Result};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, Uri};
use futures_util::stream::{StreamExt, iter};
use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tower::ServiceExt;

/// Models behind the HTTP router, without a listener.
pub struct InProcessServer {
    router: Router,
    runtime: Runtime,
    /// Kept alive so that the phase stays `Serving`; requests hold receivers.
    _phase: watch::Sender<Phase>,
}

impl InProcessServer {
    /// Starts an engine for each model. Network options are ignored, and no API keys are required.
    ///
    /// # Errors
    /// [`Error::Parameter`] for invalid options, [`Error::DuplicateModel`], [`Error::System`], [`Error::Io`]
    /// for a file that cannot be read.
    pub fn start(models: Vec<Hornbook>, options: ServerOptions) -> Result<Self> {
        let phase = watch::Sender::new(Phase::Serving);
        let app = LoadedOptions::new(ServerOptions { key_file: None, ..options })?
            .into_app_state(models, phase.subscribe())?;
        let runtime = Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|error| Error::system("start the request runtime", error))?;
        Ok(Self { router: router(app), runtime, _phase: phase })
    }

    /// Posts requests, each a path and a body, with up to `concurrency` of them in flight, and calls
    /// `on_response` with each response and the request's index, in order of completion. The first error ends
    /// it.
    ///
    /// # Errors
    /// Those of `on_response`, and [`Error::Io`] if a response body cannot be read.
    ///
    /// # Panics
    /// If called within a `tokio` runtime.
    pub fn post_all(
        &self,
        requests: impl IntoIterator<Item = (&'static str, String)>,
        concurrency: usize,
        mut on_response: impl FnMut(usize, BatchResponse) -> Result<()>,
    ) -> Result<()> {
        let responses = requests
            .into_iter()
            .enumerate()
            .map(|(i, (path, body))| async move { (i, self.post(path, body).await) });
        self.runtime.block_on(async {
            let mut responses = iter(responses).buffer_unordered(concurrency.max(1));
            while let Some((i, response)) = responses.next().await {
                on_response(i, response?)?;
            }
            Ok(())
        })
    }

    async fn post(&self, path: &'static str, body: String) -> Result<BatchResponse> {
        Ok(send(&self.router, post_request(path, body)).await?.0)
    }
}

/// Returns a request to a route, such as `/completions`.
pub(super) fn post_request(path: &'static str, body: String) -> Request<Body> {
    let mut request = Request::new(Body::from(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(path);
    request
}

/// Sends a request to the routes. Returns the whole response, and its headers.
///
/// # Errors
/// [`Error::Io`] if the response body cannot be read.
pub(super) async fn send(router: &Router, request: Request<Body>) -> Result<(BatchResponse, HeaderMap)> {
    let path: PathBuf = request.uri().path().into();
    let response: std::result::Result<_, Infallible> = router.clone().oneshot(request).await;
    let (head, body) = response.unwrap_or_else(|never| match never {}).into_parts();
    let read_error = |source| Error::Io { path: path.clone(), action: "read the response body", source };
    let body = to_bytes(body, usize::MAX).await.map_err(|error| read_error(io::Error::other(error)))?;
    let body = String::from_utf8(body.into()).map_err(|error| read_error(io::Error::other(error)))?;
    let request_id = head.headers.get("x-request-id").and_then(|id| id.to_str().ok());
    let request_id = request_id.unwrap_or_default().into();
    Ok((BatchResponse { status: head.status.as_u16(), request_id, body }, head.headers))
}
