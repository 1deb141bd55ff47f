//! Connections: taken while the server is open, served within bounds, ended in peace.

use super::models::Served;
use super::routes::{plain, router};
use super::{App, Phase};
use crate::{Error, Result};
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

/// How long answers that were cut may take to be sent.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long to wait where no connection can be taken, as when there are too many open files.
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

/// Serves until the server is to end, and then until everything has, or the grace period.
pub async fn serve(listener: TcpListener, app: Arc<App>, phase: watch::Sender<Phase>, grace: Duration) {
    let routes = router(Arc::clone(&app));
    // Every request's path is put into its plain form before it is routed.
    let service = routes.map_request(|mut request: Request<Incoming>| {
        if let Some(uri) = plain(request.uri()) {
            *request.uri_mut() = uri;
        }
        request
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(app.http.header_time);
    let places = Arc::new(Semaphore::new(app.http.max_connections));
    let graceful = GracefulShutdown::new();
    let mut changes = phase.subscribe();
    loop {
        let connection = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            accepted = connection => accepted,
            _ = changes.wait_for(|phase| *phase != Phase::Open) => break,
        };
        let Ok((stream, _)) = accepted else {
            sleep(BREATH).await;
            continue;
        };
        let _ = stream.set_nodelay(true); // tokens are small and wanted at once; without it they come late
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(app.http.write_time));
        let service = TowerToHyperService::new(service.clone());
        let connection = http.serve_connection(TokioIo::new(Box::pin(stream)), service);
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            let _ = watched.await; // a client that goes away, or one that was not understood and has been told
            drop(place);
        });
    }
    drop(listener);
    app.models.served().iter().for_each(|served: &Arc<Served>| served.engine.close());
    let ended = graceful.shutdown();
    tokio::pin!(ended);
    if timeout(grace, &mut ended).await.is_err() {
        tracing::warn!("the grace period is over; what still runs is cut off");
        phase.send_replace(Phase::Cut);
        let _ = timeout(LAST_WORDS, &mut ended).await;
    }
}
