//! Open connections: those that wait for their client give way to new ones when there are too many.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::sleep;

/// Connections beyond the maximum that get an answer, so that `/health` always does.
const RESERVE: usize = 64;

/// Interval at which a client that has closed its side gets an interim response, until its response begins.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// An interim response, which every HTTP/1.1 client skips (RFC 9110, section 15.2).
const INTERIM_RESPONSE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    stream: Arc<TcpStream>,
    address: IpAddr,
    /// Time since which the server waits for the client to send; `None` while a request is computed.
    waiting_since: Mutex<Option<Instant>>,
    evicted: Notify,
    /// There were too many connections: only `/health` is answered.
    pub over_limit: bool,
    /// The body of the current request has not been read to its end.
    unread_body: AtomicBool,
    /// The client does not read: part of an earlier response is not sent yet.
    write_blocked: AtomicBool,
}

impl Connection {
    /// Marks that the server waits for the client to send.
    pub fn start_waiting(&self) {
        *lock(&self.waiting_since) = Some(Instant::now());
    }

    /// Marks that the client waits for the server.
    pub fn start_working(&self) {
        *lock(&self.waiting_since) = None;
    }

    /// Sets whether the current request's body has not been read to its end.
    pub fn set_unread_body(&self, unread: bool) {
        self.unread_body.store(unread, Ordering::Release);
    }

    /// Returns whether the current request's body has not been read to its end.
    pub fn has_unread_body(&self) -> bool {
        self.unread_body.load(Ordering::Acquire)
    }

    /// Sets whether part of a response could not be sent yet.
    pub fn set_write_blocked(&self, blocked: bool) {
        self.write_blocked.store(blocked, Ordering::Release);
    }

    /// Waits until the connection has to give way.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// Waits until the client has closed its side: it has gone, or it only sends no more.
    pub async fn closed_by_client(&self) {
        match self.stream.peek(&mut [0]).await {
            Ok(0) | Err(_) => {}
            Ok(_) => std::future::pending().await, // the next request
        }
    }

    /// Waits until the client has gone, while nothing of its response is sent. One that has only closed its
    /// side looks the same until it is sent something, which the host of a client that has gone rejects.
    pub async fn client_gone(&self) {
        loop {
            let probe = match self.stream.peek(&mut [0]).await {
                Err(_) => return,
                Ok(0) => true,
                Ok(_) => false, // the rest of the body, or the next request
            };
            sleep(PROBE_INTERVAL).await;
            if probe && !self.write_blocked.load(Ordering::Acquire) {
                match self.stream.try_write(INTERIM_RESPONSE) {
                    Err(error) if error.kind() != ErrorKind::WouldBlock => return,
                    _ => {}
                }
            }
        }
    }
}

/// All open connections, by the order of their arrival.
pub struct ConnectionTable {
    max: usize,
    max_per_address: usize,
    open: Mutex<OpenConnections>,
}

#[derive(Default)]
struct OpenConnections {
    next_id: u64,
    by_id: BTreeMap<u64, Arc<Connection>>,
}

impl OpenConnections {
    fn count_from(&self, address: IpAddr) -> usize {
        self.by_id.values().filter(|connection| connection.address == address).count()
    }

    /// Removes the connection that has waited longest for its client, of those from an address, or of all.
    fn evict(&mut self, address: Option<IpAddr>) -> bool {
        let from_address = |connection: &Connection| address.is_none_or(|other| connection.address == other);
        let waiting = self.by_id.iter().filter(|(_, connection)| from_address(connection));
        let oldest = waiting
            .filter_map(|(id, connection)| Some((lock(&connection.waiting_since).as_ref().copied()?, *id)))
            .min();
        let connection = oldest.and_then(|(_, id)| self.by_id.remove(&id));
        connection.inspect(|connection| connection.evicted.notify_one()).is_some()
    }
}

impl ConnectionTable {
    /// Table of at most `max` connections, and `max_per_address` from one address.
    pub fn new(max: usize, max_per_address: usize) -> Self {
        Self { max, max_per_address, open: Mutex::default() }
    }

    /// Admits a connection in place of one that waits for its client, if there are too many. `None` if there
    /// are far too many that do not wait.
    pub fn admit(self: &Arc<Self>, stream: Arc<TcpStream>, address: IpAddr) -> Option<Admission> {
        let mut open = lock(&self.open);
        while open.count_from(address) >= self.max_per_address && open.evict(Some(address)) {}
        while open.by_id.len() >= self.max && open.evict(None) {}
        let over_limit = open.by_id.len() >= self.max || open.count_from(address) >= self.max_per_address;
        if open.by_id.len() >= self.max + RESERVE {
            return None;
        }
        let connection = Arc::new(Connection {
            stream,
            address,
            waiting_since: Mutex::new(Some(Instant::now())),
            evicted: Notify::new(),
            over_limit,
            unread_body: AtomicBool::new(false),
            write_blocked: AtomicBool::new(false),
        });
        let id = open.next_id;
        open.next_id += 1;
        open.by_id.insert(id, Arc::clone(&connection));
        Some(Admission { connection, id, table: Arc::clone(self) })
    }

    /// Closes the connection that has waited longest for its client, as when files run out.
    pub fn evict_oldest(&self) -> bool {
        lock(&self.open).evict(None)
    }
}

/// An open connection's place in the table.
pub struct Admission {
    /// The connection.
    pub connection: Arc<Connection>,
    id: u64,
    table: Arc<ConnectionTable>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        lock(&self.table.open).by_id.remove(&self.id);
    }
}
