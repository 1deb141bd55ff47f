//! Accepting connections, serving them within the HTTP limits, and graceful shutdown.

use super::access::AccessPolicy;
use super::connection_table::{Connection, ConnectionTable};
use super::error::ApiError;
use super::http_stream::HttpStream;
use super::path::normalize_request;
use super::routes::router;
use super::{AppState, HttpLimits, Phase};
use crate::{Error, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Request, Version, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

/// Maximum wait for the responses of aborted requests to be flushed.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after a failed `accept`, such as with too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(20);
/// Maximum size of a request's head.
const MAX_HEAD_BYTES: usize = 128 << 10;
/// Path that is answered however many connections there are.
const HEALTH_PATH: &str = "/health";
/// Pause before draining, so that connections just accepted can send their request and get a response.
const DRAIN_DELAY: Duration = Duration::from_millis(100);

/// Binds a listener to the address.
///
/// # Errors
/// [`Error::Address`] if it is in use, [`Error::Io`] if it cannot be bound for another reason.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        ErrorKind::AddrInUse => Error::Address {
            address,
            problem: "is already in use, perhaps by another hornbook; choose another port with --port",
        },
        _ => Error::Io { path: address.to_string().into(), action: "listen", source },
    })
}

/// Serves until shutdown begins, then until all requests have finished or the grace period is over. Before
/// the models are loaded and during shutdown, new requests get 503.
pub async fn serve(
    listener: TcpListener,
    app: Arc<OnceLock<Arc<AppState>>>,
    http: HttpLimits,
    access: AccessPolicy,
    phase: watch::Sender<Phase>,
    grace_period: Duration,
) {
    let acceptor = Acceptor {
        listener,
        http,
        table: Arc::new(ConnectionTable::new(http.max_connections, http.max_connections_per_address)),
        dispatcher: Dispatcher { app, router: Arc::default(), access: Arc::new(access) },
    };
    let (connections, late_connections) = (GracefulShutdown::new(), GracefulShutdown::new());
    let mut phase_changes = phase.subscribe();
    tokio::select! {
        never = acceptor.accept_loop(&connections, true) => match never {},
        _ = phase_changes.wait_for(|phase| *phase != Phase::Serving) => {}
    }
    if let Some(app) = acceptor.dispatcher.app.get() {
        app.models.current().base_models().for_each(|served| served.engine.close());
        app.stop_fine_tuning();
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

/// Accepts connections. Those that wait for their client give way to new ones.
struct Acceptor {
    listener: TcpListener,
    http: HttpLimits,
    table: Arc<ConnectionTable>,
    dispatcher: Dispatcher,
}

impl Acceptor {
    /// Accepts connections and spawns a task for each; with `keep_alive` one connection serves many requests.
    async fn accept_loop(&self, graceful: &GracefulShutdown, keep_alive: bool) -> Infallible {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(self.http.header_timeout).keep_alive(keep_alive);
        http.max_buf_size(MAX_HEAD_BYTES);
        http.half_close(true); // a client may close its side once its request is sent
        loop {
            let Ok((stream, address)) = self.listener.accept().await else {
                self.table.evict_oldest(); // perhaps there are too many open files
                sleep(ACCEPT_RETRY_DELAY).await;
                continue;
            };
            let _ = stream.set_nodelay(true); // Nagle's algorithm would delay streamed tokens
            let stream = Arc::new(stream);
            let Some(admission) = self.table.admit(Arc::clone(&stream), address.ip()) else { continue };
            let connection = Arc::clone(&admission.connection);
            let stream = HttpStream::new(stream, Arc::clone(&connection), self.http.write_timeout);
            let dispatcher = self.dispatcher.clone();
            let service =
                service_fn(move |request| dispatcher.clone().dispatch(request, Arc::clone(&connection)));
            let served = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
            tokio::spawn(async move {
                tokio::select! {
                    _ = served => {} // errors: a disconnect, or invalid HTTP, already answered
                    () = admission.connection.evicted() => {}
                }
            });
        }
    }
}

/// Passes requests to the router, or rejects them while the models are loading.
#[derive(Clone)]
struct Dispatcher {
    app: Arc<OnceLock<Arc<AppState>>>,
    router: Arc<OnceLock<Router>>,
    access: Arc<AccessPolicy>,
}

impl Dispatcher {
    async fn dispatch(
        self,
        request: Request<Incoming>,
        connection: Arc<Connection>,
    ) -> std::result::Result<axum::http::Response<ResponseBody>, Infallible> {
        connection.start_working();
        connection.set_unread_body(!request.body().is_end_stream());
        let may_have_interim_responses = request.version() == Version::HTTP_11;
        let response = tokio::select! {
            biased;
            response = self.respond(request, &connection) => response,
            () = connection.client_gone(), if may_have_interim_responses => {
                Err(ApiError::invalid("the client has gone")) // dropping the other future cancels its work
            }
        };
        let mut response = response.unwrap_or_else(IntoResponse::into_response);
        if connection.has_unread_body() || connection.over_limit {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response.map(|body| ResponseBody { body, connection }))
    }

    async fn respond(
        self,
        mut request: Request<Incoming>,
        connection: &Arc<Connection>,
    ) -> std::result::Result<Response, ApiError> {
        self.access.check(&request)?;
        let Some(app) = self.app.get() else { return Err(ApiError::loading()) };
        let router = self.router.get_or_init(|| router(Arc::clone(app)));
        normalize_request(&mut request); // before routing, since axum's middleware runs after it
        if connection.over_limit && request.uri().path() != HEALTH_PATH {
            return Err(ApiError::too_many_connections());
        }
        request.extensions_mut().insert(Arc::clone(connection));
        router.clone().oneshot(request).await.map_err(|never| match never {})
    }
}

/// Body of a response. After it, the server waits for the client again.
struct ResponseBody {
    body: Body,
    connection: Arc<Connection>,
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.connection.start_waiting();
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
