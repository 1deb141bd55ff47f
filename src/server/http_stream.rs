//! The byte stream of a connection, with the endings that hyper lacks: rejections of malformed requests have
//! a JSON body, and a response to a request whose body is unread reaches the client (RFC 9112, section 9.6).

use super::connection_table::Connection;
use super::error::ApiError;
use axum::http::StatusCode;
use std::io::{ErrorKind, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// Maximum time to read on after a response to a request with an unread body.
const LINGER_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum pause of a client that is read on.
const LINGER_PAUSE: Duration = Duration::from_secs(2);

/// A TCP stream that others may look at while it is in use.
struct SharedStream(Arc<TcpStream>);

impl SharedStream {
    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read(buf.initialize_unfilled()) {
                Ok(n) => {
                    buf.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    /// Closes the sending side.
    fn shutdown(&self) {
        #[cfg(unix)]
        if let Ok(fd) = std::os::fd::AsFd::as_fd(&*self.0).try_clone_to_owned() {
            let _ = std::net::TcpStream::from(fd).shutdown(std::net::Shutdown::Write);
        }
    }
}

/// Stream of an HTTP connection.
pub struct HttpStream {
    stream: SharedStream,
    connection: Arc<Connection>,
    write_timeout: Duration,
    /// Time at which a blocked write, or lingering, ends.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Time at which the pause of a client that is read on ends.
    pause: Option<Pin<Box<Sleep>>>,
    /// Response in place of hyper's, and the number of bytes written.
    replacement: Option<(Vec<u8>, usize)>,
}

impl HttpStream {
    /// Stream of this connection; a write may block for `write_timeout`.
    pub fn new(stream: Arc<TcpStream>, connection: Arc<Connection>, write_timeout: Duration) -> Self {
        let stream = SharedStream(stream);
        Self { stream, connection, write_timeout, deadline: None, pause: None, replacement: None }
    }

    fn poll_write_in_time(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let written = self.stream.poll_write(cx, bytes);
        self.connection.set_write_blocked(written.is_pending());
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let timeout = self.write_timeout;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }

    /// Writes the replacement, if there is one.
    fn poll_replacement(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while let Some((bytes, written)) = self.replacement.take() {
            match self.poll_write_in_time(cx, &bytes[written..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) if written + n == bytes.len() => {}
                Poll::Ready(Ok(n)) => self.replacement = Some((bytes, written + n)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.replacement = Some((bytes, written));
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Returns the response in place of hyper's empty one to a malformed head.
fn replacement(response: &[u8]) -> Option<Vec<u8>> {
    let status = std::str::from_utf8(response.strip_prefix(b"HTTP/1.")?.get(2..5)?).ok()?.parse().ok()?;
    let is_empty = response.windows(21).any(|bytes| bytes.eq_ignore_ascii_case(b"\r\ncontent-length: 0\r\n"));
    let message = match status {
        400 => "the request is not valid HTTP/1.1",
        414 => "the request's URI is too long",
        431 => "the request has too many or too large headers",
        _ => return None,
    };
    let status = StatusCode::from_u16(status).ok().filter(|_| is_empty)?;
    let body = ApiError::malformed(status, message).json();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    Some((head + &body).into_bytes())
}

impl AsyncRead for HttpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        self.stream.poll_read(cx, buf)
    }
}

impl AsyncWrite for HttpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let this = self.get_mut();
        if this.replacement.is_none() {
            let Some(replacement) = replacement(bytes) else { return this.poll_write_in_time(cx, bytes) };
            this.replacement = Some((replacement, 0));
            this.connection.set_unread_body(true);
        }
        ready!(this.poll_replacement(cx))?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Closes the sending side. Where the client may still send, as a body that nobody reads, closing the
    /// other one would reset the connection and take the response with it: it is read until the client closes
    /// it.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        if this.pause.is_none() {
            this.stream.shutdown();
            if !this.connection.has_unread_body() {
                return Poll::Ready(Ok(()));
            }
            this.connection.start_waiting();
            this.deadline = Some(Box::pin(sleep(LINGER_TIMEOUT)));
            this.pause = Some(Box::pin(sleep(LINGER_PAUSE)));
        }
        let mut discarded = [0; 16 << 10];
        loop {
            let mut buf = ReadBuf::new(&mut discarded);
            match this.stream.poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    this.pause = Some(Box::pin(sleep(LINGER_PAUSE)));
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
        }
        let timers = [&mut this.deadline, &mut this.pause];
        let is_over = timers.into_iter().flatten().any(|timer| timer.as_mut().poll(cx).is_ready());
        if is_over { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_rejections_get_a_json_body() {
        let empty = |status| format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\ndate: x\r\n\r\n");
        for status in ["400 Bad Request", "414 URI Too Long", "431 Request Header Fields Too Large"] {
            let text = String::from_utf8(replacement(empty(status).as_bytes()).unwrap()).unwrap();
            assert!(text.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{text}");
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}", body.len())), "{text}");
            assert!(serde_json::from_str::<serde_json::Value>(body).unwrap()["error"].is_object());
        }
        for other in [empty("200 OK"), empty("400 Bad Request").replace(": 0", ": 7"), "x".into()] {
            assert!(replacement(other.as_bytes()).is_none(), "{other}");
        }
    }
}
