//! One connection to an origin: how it is opened, and its sending end.
//!
//! Knows name resolution, TCP and hyper's HTTP/1 handshake. Each connection is driven by a task on
//! the runtime that opened it; the sending end may be used from any.
//! Must not know: limits, queues, servers to choose from, retries.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::clock::Mono;

use super::body::RequestBody;
use super::due::{Driver, Due};
use super::pool::{Pool, Slot};
use super::socket::Socket;
use super::watch::{Appetite, Next, Watch};
use crate::wire::{Flaw, Limits, ResponseScanner};

/// Bytes of a response's head and of its trailer section at most, and of the read and write buffers. Twice
/// what clients may send by default: an answer may have as much again of tags (`Surrogate-Key` and the like).
pub(super) const BUFFER: usize = 128 * 1024;
/// Fields of a response's head and of its trailer section at most.
const FIELDS: usize = 256;
/// Interim responses before a final one at most. Each starts `timeout.first_byte` anew, so there must be an
/// end; an origin that says once a second that it is at work gets through the default `timeout.total`.
const INTERIMS: usize = 64;
/// How long after the end of a response hyper may take to be ready for the next request.
const READY_WITHIN: Duration = Duration::from_millis(250);

/// An open connection. Dropping it closes it.
pub(super) struct Conn {
    /// Its slot's number.
    pub(super) id: u64,
    /// The worker that opened it.
    pub(super) worker: usize,
    /// When.
    pub(super) opened: Mono,
    /// It has waited in the pool, so the origin may have closed it meanwhile.
    pub(super) kept: bool,
    /// It has been read in large pieces, and hyper holds as large a buffer for the next one: up to 128 KiB that nobody
    /// counts.
    pub(super) is_heavy: bool,
    pub(super) send: SendRequest<RequestBody>,
    pool: Weak<Pool>,
    gone: Arc<AtomicBool>,
    due: Arc<Due>,
    watch: Arc<Watch>,
    task: AbortHandle,
    detached: bool,
}

impl Conn {
    /// Speaks HTTP/1 over `stream`, on a task of this runtime. `total` is how long an exchange may
    /// take.
    pub(super) async fn start(
        stream: TcpStream,
        slot: Slot,
        worker: usize,
        now: Mono,
        total: Duration,
    ) -> hyper::Result<Self> {
        let (id, pool, gone) = (slot.id, slot.pool.clone(), Arc::clone(&slot.gone));
        let watch = Arc::<Watch>::default();
        let limits = Limits { section: BUFFER, fields: FIELDS, interims: INTERIMS };
        let socket = Socket::new(stream, slot, Arc::clone(&watch), ResponseScanner::new(limits));
        let (send, connection) = builder().handshake(TokioIo::new(socket)).await?;
        let due = Due::new();
        // How it ended is told to the request it carried, if any.
        let driver = Driver::new(connection.with_upgrades(), Arc::clone(&due), total);
        let task = tokio::spawn(driver).abort_handle();
        let (opened, kept, is_heavy, detached) = (now, false, false, false);
        Ok(Self { id, worker, opened, kept, is_heavy, send, pool, gone, due, watch, task, detached })
    }

    /// The socket is closed, or is being closed.
    pub(super) fn is_closed(&self) -> bool {
        self.gone.load(Ordering::Acquire) || self.send.is_closed()
    }

    /// An exchange begins, of this request, that is cut off at `due`, whether or not anybody asks for its
    /// answer. To be called before hyper has the request.
    pub(super) fn begin(&self, due: Instant, request: Next) {
        self.due.set(due);
        self.watch.announce(request);
    }

    /// Notes what was wrong with what came on it.
    pub(super) fn count_flaw(&self, flaw: Flaw) {
        if let Some(pool) = self.pool.upgrade() {
            pool.count_flaw(flaw);
        }
    }

    /// Notes that it was sent a hedge, and brought the answer.
    pub(super) fn count_hedge_won(&self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.count_hedge_won();
        }
    }

    /// How much of the answer its reader waits for.
    pub(super) fn set_appetite(&self, appetite: Appetite) {
        self.watch.set_appetite(appetite);
    }

    /// We have closed it ourselves, so that a body may seem to have ended that has not.
    pub(super) fn is_cut(&self) -> bool {
        self.due.is_cut()
    }

    /// Leaves the socket to an upgraded protocol (RFC 9110 §7.8); it keeps its slot until it is
    /// closed. Nothing is due any more when the driver has handed the socket over, which it does
    /// when the request has been sent to its end.
    pub(super) fn detach(mut self) {
        self.detached = true;
    }

    /// Ends the task that drives the connection, as soon as it runs again.
    #[cfg(test)]
    pub(super) fn stop(&self) {
        self.task.abort();
    }

    /// Offers the connection to the next request, once hyper has seen the end of this exchange.
    ///
    /// Almost always it has already. Where not, a task waits a moment for it; the slot stays taken
    /// meanwhile. If that task is dropped, the connection is closed.
    pub(super) fn give_back(mut self) {
        let Some(pool) = self.pool.upgrade() else { return };
        if !self.due.clear() {
            return;
        }
        if self.send.is_ready() {
            return pool.put(self);
        }
        if self.is_closed() {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                if let Ok(Ok(())) = timeout(READY_WITHIN, self.send.ready()).await {
                    pool.put(self);
                }
            });
        }
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        // Dropping the sending end alone would let hyper go on sending a request's body.
        if !self.detached {
            self.task.abort();
        }
    }
}

/// Resolves `host` anew, so that a change of DNS is followed, and tries all its addresses in turn
/// within `limit`. Each gets an equal part of the time left, so that one that swallows packets
/// does not keep the others from being tried.
///
/// # Errors
/// `TimedOut` when the time is over, else the last address' error.
pub(super) async fn connect(host: &str, port: u16, limit: Duration) -> io::Result<TcpStream> {
    let end = Instant::now() + limit;
    let addresses: Vec<_> =
        timeout_at(end, tokio::net::lookup_host((host, port))).await.map_err(|_| timed_out())??.collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (index, address) in addresses.iter().enumerate() {
        let left = end.saturating_duration_since(Instant::now());
        let part = left / u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        match timeout(part, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Small requests go out at once; failing to say so is no reason to fail.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = timed_out(),
        }
    }
    Err(last)
}

fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    // The buffer may grow beyond its limit by one read, so the head has its own.
    builder.max_buf_size(BUFFER).max_header_size(BUFFER).max_headers(FIELDS);
    builder
}
