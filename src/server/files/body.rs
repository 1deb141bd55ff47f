//! A request's body, piece by piece: as long as pieces arrive, it may take any time.

use crate::server::connection_table::Connection;
use crate::server::error::ApiError;
use crate::server::json::check_codings;
use axum::body::{Bytes, HttpBody};
use axum::extract::Request;
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// A body that is read in pieces.
pub struct BodyReader {
    pieces: axum::body::BodyDataStream,
    connection: Option<Arc<Connection>>,
    /// Maximum time between two pieces.
    max_pause: Duration,
    max_bytes: u64,
    bytes: u64,
}

impl BodyReader {
    /// Reader of a request's body, which may have `max_bytes`, and at most `max_pause` between two pieces.
    ///
    /// # Errors
    /// 413 for a body that says that it is longer; those of [`check_codings`].
    pub fn new(request: Request, max_bytes: u64, max_pause: Duration) -> Result<Self, ApiError> {
        check_codings(request.headers())?;
        if request.body().size_hint().lower() > max_bytes {
            return Err(ApiError::body_too_large(max_bytes as usize));
        }
        let connection = request.extensions().get::<Arc<Connection>>().cloned();
        let pieces = request.into_body().into_data_stream();
        Ok(Self { pieces, connection, max_pause, max_bytes, bytes: 0 })
    }

    /// Waits for the next piece; `None` after the last.
    ///
    /// # Errors
    /// 408 if it does not arrive in time, 413 for too long a body, 400 if it cannot be read.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        if let Some(connection) = &self.connection {
            connection.start_waiting();
        }
        let piece = timeout(self.max_pause, self.pieces.next()).await;
        if let Some(connection) = &self.connection {
            connection.start_working();
        }
        let piece = piece.map_err(|_| ApiError::timeout())?.transpose();
        let piece =
            piece.map_err(|error| ApiError::invalid(format!("the body could not be read: {error}")))?;
        self.bytes += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        if self.bytes > self.max_bytes {
            return Err(ApiError::body_too_large(self.max_bytes as usize));
        }
        if let (None, Some(connection)) = (&piece, &self.connection) {
            connection.set_unread_body(false);
        }
        Ok(piece)
    }
}
