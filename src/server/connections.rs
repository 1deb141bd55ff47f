//! Accepting connections, serving them within the HTTP limits, and graceful shutdown.

use super::error::ApiError;
use super::routes::{normalize_path, router};
use super::{AppState, HttpLimits, Phase};
use crate::{Error, Result};
use axum::Router;
use axum::http::Request;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

/// Maximum wait for the responses of aborted requests to be flushed.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after a failed `accept`, such as with too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);
/// Pause before draining, so that connections just accepted can send their request and get a response.
const DRAIN_DELAY: Duration = Duration::from_millis(100);

/// Binds a listener to the address.
///
/// # Errors
/// [`Error::Message`] if the address is in use, [`Error::Io`] if it cannot be bound for another reason.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        ErrorKind::AddrInUse => Error::Message(format!(
            "{address} is already in use, perhaps by another hornbook; choose another port with --port"
        )),
        _ => Error::Io { path: address.to_string().into(), action: "listen", source },
    })
}

/// Serves until shutdown begins, then until all requests have finished or the grace period is over. Before
/// the models are loaded and during shutdown, new requests get 503.
pub async fn serve(
    listener: TcpListener,
    app: Arc<OnceLock<Arc<AppState>>>,
    http: HttpLimits,
    phase: watch::Sender<Phase>,
    grace_period: Duration,
) {
    let acceptor = Acceptor {
        listener,
        http,
        permits: Arc::new(Semaphore::new(http.max_connections)),
        dispatcher: Dispatcher { app, router: Arc::default() },
    };
    let (connections, late_connections) = (GracefulShutdown::new(), GracefulShutdown::new());
    let mut phase_changes = phase.subscribe();
    tokio::select! {
        never = acceptor.accept_loop(&connections, true) => match never {},
        _ = phase_changes.wait_for(|phase| *phase != Phase::Serving) => {}
    }
    if let Some(app) = acceptor.dispatcher.app.get() {
        app.models.served().iter().for_each(|served| served.engine.close());
    }
    let drained = async {
        sleep(DRAIN_DELAY).await;
        let closed = connections.shutdown();
        tokio::pin!(closed);
        if timeout(grace_period, &mut closed).await.is_err() {
            tracing::warn!("the grace period is over; aborting the requests that still run");
            phase.send_replace(Phase::Aborting);
            let _ = timeout(FLUSH_TIMEOUT, &mut closed).await;
        }
    };
    tokio::select! {
        () = drained => {}
        never = acceptor.accept_loop(&late_connections, false) => match never {},
    }
    drop(acceptor);
    let _ = timeout(FLUSH_TIMEOUT, late_connections.shutdown()).await;
}

/// Accepts connections, as many as there are permits.
struct Acceptor {
    listener: TcpListener,
    http: HttpLimits,
    permits: Arc<Semaphore>,
    dispatcher: Dispatcher,
}

impl Acceptor {
    /// Accepts connections and spawns a task for each; with `keep_alive` one connection serves many requests.
    async fn accept_loop(&self, graceful: &GracefulShutdown, keep_alive: bool) -> Infallible {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(self.http.header_timeout).keep_alive(keep_alive);
        loop {
            let permit = Arc::clone(&self.permits).acquire_owned().await;
            let Ok((stream, _)) = self.listener.accept().await else {
                sleep(ACCEPT_RETRY_DELAY).await;
                continue;
            };
            let _ = stream.set_nodelay(true); // Nagle's algorithm would delay streamed tokens
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(self.http.write_timeout));
            let dispatcher = self.dispatcher.clone();
            let service = service_fn(move |request| dispatcher.clone().dispatch(request));
            let connection = http.serve_connection(TokioIo::new(Box::pin(stream)), service);
            let connection = graceful.watch(connection);
            tokio::spawn(async move {
                let _ = connection.await; // errors: a disconnect, or invalid HTTP, already answered with 400
                drop(permit);
            });
        }
    }
}

/// Passes requests to the router, or rejects them while the models are loading.
#[derive(Clone)]
struct Dispatcher {
    app: Arc<OnceLock<Arc<AppState>>>,
    router: Arc<OnceLock<Router>>,
}

impl Dispatcher {
    async fn dispatch(self, mut request: Request<Incoming>) -> std::result::Result<Response, Infallible> {
        let Some(app) = self.app.get() else {
            return Ok(ApiError::loading().into_response());
        };
        let router = self.router.get_or_init(|| router(Arc::clone(app)));
        // Normalizes the path before routing, since axum's middleware runs after it.
        if let Some(uri) = normalize_path(request.uri()) {
            *request.uri_mut() = uri;
        }
        router.clone().oneshot(request).await
    }
}
