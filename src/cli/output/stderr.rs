//! Standard error: notes and the log. Nobody may be reading it, so a line that cannot be written is lost, and
//! nothing else: `eprintln!` would panic.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

/// Writes formatted text to standard error. A failed write is no error.
macro_rules! stderr_text {
    ($($arg:tt)*) => {
        drop(std::io::Write::write_fmt(&mut std::io::stderr().lock(), format_args!($($arg)*)))
    };
}

/// Writes a formatted line to standard error. A failed write is no error.
macro_rules! stderr_line {
    () => { stderr_text!("\n") };
    ($($arg:tt)*) => { stderr_text!("{}\n", format_args!($($arg)*)) };
}

/// Lines that may wait for a reader of standard error; further ones are lost.
const LOG_QUEUE: usize = 1024;
/// Maximum time that the lines still waiting may take at exit.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The channel to the thread that writes the log.
static LOG: OnceLock<SyncSender<LogMessage>> = OnceLock::new();

enum LogMessage {
    Line(Vec<u8>),
    /// Answered once all lines before it are written.
    Flush(SyncSender<()>),
}

/// Writer of log lines that never blocks: a thread passes them on to standard error.
pub struct LogWriter;

impl LogWriter {
    /// Starts the thread that writes the log.
    pub fn start() {
        let (sender, receiver) = sync_channel(LOG_QUEUE);
        let write_all = move || {
            for message in receiver {
                match message {
                    LogMessage::Line(line) => drop(std::io::stderr().write_all(&line)),
                    LogMessage::Flush(done) => drop(done.try_send(())),
                }
            }
        };
        // Without a thread the log is lost, like every line that cannot be written.
        if std::thread::Builder::new().name("hornbook-log".into()).spawn(write_all).is_ok() {
            let _ = LOG.set(sender);
        }
    }

    /// Waits, for a short time at most, until the lines so far are written.
    pub fn flush_all() {
        let (done, written) = sync_channel(1);
        if let Some(log) = LOG.get()
            && log.try_send(LogMessage::Flush(done)).is_ok()
        {
            let _ = written.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        if let Some(log) = LOG.get() {
            let _ = log.try_send(LogMessage::Line(line.to_vec()));
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
