//! Connections: taken while the server is there, served within bounds, ended in peace.

use super::error::ApiError;
use super::routes::{plain, router};
use super::{App, HttpLimits, Phase};
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

/// How long answers that were cut may take to be sent.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long to wait where no connection can be taken, as when there are too many open files, and for the request of one
/// that was taken just before the end.
const BREATH: Duration = Duration::from_millis(100);

/// Listens.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        ErrorKind::AddrInUse => Error::Message(format!(
            "{address} is in use by another program, perhaps another hornbook; choose another with --port"
        )),
        _ => Error::Io { path: address.to_string().into(), action: "listen", source },
    })
}

/// Serves until the server is to end, and then until everything has, or the grace period. Before there is anything to
/// serve, and once it is to end, whoever comes is told to come back.
pub async fn serve(
    listener: TcpListener,
    app: Arc<OnceLock<Arc<App>>>,
    http: HttpLimits,
    phase: watch::Sender<Phase>,
    grace: Duration,
) {
    let entrance = Entrance {
        listener,
        http,
        places: Arc::new(Semaphore::new(http.max_connections)),
        desk: Desk { app, routes: Arc::default() },
    };
    let (early, late) = (GracefulShutdown::new(), GracefulShutdown::new());
    let mut changes = phase.subscribe();
    tokio::select! {
        never = entrance.take_in(&early, true) => match never {},
        _ = changes.wait_for(|phase| *phase != Phase::Open) => {}
    }
    if let Some(app) = entrance.desk.app.get() {
        app.models.served().iter().for_each(|served| served.engine.close());
    }
    let over = async {
        sleep(BREATH).await; // those who have just come in say what they want, and are told
        let ended = early.shutdown();
        tokio::pin!(ended);
        if timeout(grace, &mut ended).await.is_err() {
            tracing::warn!("the grace period is over; what still runs is cut off");
            phase.send_replace(Phase::Cut);
            let _ = timeout(LAST_WORDS, &mut ended).await;
        }
    };
    tokio::select! {
        () = over => {}
        never = entrance.take_in(&late, false) => match never {},
    }
    drop(entrance);
    let _ = timeout(LAST_WORDS, late.shutdown()).await;
}

/// Where connections come in.
struct Entrance {
    listener: TcpListener,
    http: HttpLimits,
    places: Arc<Semaphore>,
    desk: Desk,
}

impl Entrance {
    /// Takes connections, each served on its own, for one request or as many as it likes.
    async fn take_in(&self, graceful: &GracefulShutdown, keep_alive: bool) -> Infallible {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(self.http.header_time).keep_alive(keep_alive);
        loop {
            let place = Arc::clone(&self.places).acquire_owned().await;
            let Ok((stream, _)) = self.listener.accept().await else {
                sleep(BREATH).await;
                continue;
            };
            let _ = stream.set_nodelay(true); // tokens are small and wanted at once; without it they come late
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(self.http.write_time));
            let desk = self.desk.clone();
            let service = service_fn(move |request| desk.clone().answer(request));
            let connection = http.serve_connection(TokioIo::new(Box::pin(stream)), service);
            let watched = graceful.watch(connection);
            tokio::spawn(async move {
                let _ = watched.await; // a client that goes away, or one that was not understood and has been told
                drop(place);
            });
        }
    }
}

/// Where a request goes first.
#[derive(Clone)]
struct Desk {
    app: Arc<OnceLock<Arc<App>>>,
    routes: Arc<OnceLock<Router>>,
}

impl Desk {
    async fn answer(self, mut request: Request<Incoming>) -> std::result::Result<Response, Infallible> {
        let Some(app) = self.app.get() else {
            return Ok(ApiError::loading().into_response());
        };
        let routes = self.routes.get_or_init(|| router(Arc::clone(app)));
        // Every request's path is put into its plain form before it is routed.
        if let Some(uri) = plain(request.uri()) {
            *request.uri_mut() = uri;
        }
        routes.clone().oneshot(request).await
    }
}
