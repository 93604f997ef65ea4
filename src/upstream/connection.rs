//! One connection to an origin: how it is opened, and its sending end.
//!
//! Knows name resolution, TCP and hyper's HTTP/1 handshake. A connection is spoken to [directly](super::direct) until a
//! request has more to it than a head, which hyper then has, and all that follow. Each is kept or driven by a task on
//! the runtime that opened it, or that called for hyper; the sending end may be used from any.
//! Must not know: limits, queues, servers to choose from, retries.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{Method, Request, Response, header};
use http_body::Body;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::ext::on_informational;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::clock::Mono;

use super::answer::Ready;
use super::body::{Content, RequestBody, Sent};
use super::direct::{Direct, Keeper, Open};
use super::due::{Driver, Due};
use super::pool::{Pool, Slot};
use super::socket::Socket;
use super::watch::{Appetite, Next, Watch};
use crate::interim::Interim;
use crate::wire::{Asked, Flaw, Limits, ResponseScanner};

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
    /// The worker whose thread sees to it: that opened it, or called for hyper.
    pub(super) worker: usize,
    /// When.
    pub(super) opened: Mono,
    /// It has waited in the pool, so the origin may have closed it meanwhile.
    pub(super) kept: bool,
    /// It has been read in large pieces, and hyper holds as large a buffer for the next one: up to 128 KiB that nobody
    /// counts.
    pub(super) is_heavy: bool,
    speaker: Speaker,
    /// How long an exchange may take, mostly.
    total: Duration,
    pool: Weak<Pool>,
    gone: Arc<AtomicBool>,
    due: Arc<Due>,
    task: AbortHandle,
    detached: bool,
}

/// Who speaks on it.
enum Speaker {
    /// Whoever has a request.
    Direct(Arc<Direct>),
    Hyper {
        send: SendRequest<RequestBody>,
        watch: Arc<Watch>,
    },
}

/// Why an exchange has no answer, in the words of who spoke.
pub(super) enum Cause {
    Direct(io::Error),
    Hyper(hyper::Error),
}

/// No answer came.
pub(super) struct Unanswered {
    pub(super) cause: Cause,
    /// Nothing of the request was written: it is where it was.
    pub(super) unsent: bool,
}

impl Conn {
    /// Speaks HTTP/1 over `stream`, with a task of this runtime to see to it. `total` is how long an exchange may
    /// take.
    pub(super) fn start(stream: TcpStream, slot: Slot, worker: usize, now: Mono, total: Duration) -> Self {
        let (id, pool, gone) = (slot.id, slot.pool.clone(), Arc::clone(&slot.gone));
        let limits = Limits { section: BUFFER, fields: FIELDS, interims: INTERIMS };
        let due = Due::new();
        let direct = Direct::new(stream, ResponseScanner::new(limits), slot, Arc::clone(&due));
        let keeper = Driver::new(Keeper(Arc::clone(&direct)), Arc::clone(&due), total);
        let task = tokio::spawn(keeper).abort_handle();
        let (opened, kept, is_heavy, detached) = (now, false, false, false);
        let speaker = Speaker::Direct(direct);
        Self { id, worker, opened, kept, is_heavy, speaker, total, pool, gone, due, task, detached }
    }

    /// The socket is closed, or is being closed.
    pub(super) fn is_closed(&self) -> bool {
        let is_closed = match &self.speaker {
            Speaker::Direct(direct) => direct.is_closed(),
            Speaker::Hyper { send, .. } => send.is_closed(),
        };
        is_closed || self.gone.load(Ordering::Acquire)
    }

    /// Sends a request of this worker and waits for its answer's head, within an exchange that is cut off at `due`,
    /// whether or not anybody asks for its answer. Interim responses go to `interim`. The request is taken from where
    /// it is, as far as hyper needs it: each future that it were moved through would have room for it.
    ///
    /// Cancellation: the connection is to be dropped with this future.
    pub(super) async fn exchange(
        &mut self,
        request: &mut Option<Box<Request<RequestBody>>>,
        worker: usize,
        due: Instant,
        sent: &Arc<Sent>,
        interim: Option<&Interim>,
    ) -> Result<Response<Content>, Unanswered> {
        let asked = request.as_deref().map_or(Asked::Other, asked);
        if let Speaker::Direct(direct) = &self.speaker
            && let Some(request) = request.as_deref().filter(|request| is_a_head_alone(request, asked))
        {
            if self.due.set(due) {
                direct.wake_keeper();
            }
            let answer = direct.ask(request, asked, sent, interim).await;
            return answer.map(|answer| answer.map(Content::Direct));
        }
        // In a box, so that those who do without it have no room for it.
        Box::pin(self.exchange_by_hyper(request, worker, asked, due, sent, interim)).await
    }

    async fn exchange_by_hyper(
        &mut self,
        slot: &mut Option<Box<Request<RequestBody>>>,
        worker: usize,
        asked: Asked,
        due: Instant,
        sent: &Arc<Sent>,
        interim: Option<&Interim>,
    ) -> Result<Response<Content>, Unanswered> {
        let (send, watch, until) = match self.hyper(worker).await {
            Ok(hyper) => hyper,
            Err(cause) => return Err(Unanswered { cause, unsent: true }),
        };
        let Some(mut request) = slot.take() else {
            let cause = Cause::Direct(io::ErrorKind::InvalidInput.into());
            return Err(Unanswered { cause, unsent: false });
        };
        if let Some(fields) = request.body().ready().map(Ready::to_map) {
            *request.headers_mut() = fields;
        }
        listen(&mut request, sent, interim.cloned());
        watch.announce(Next { asked, sent: Arc::clone(sent) });
        // Its driver looks at that when it is woken with the request.
        until.set(due);
        let answer = send.try_send_request(*request).await;
        answer.map(|answer| answer.map(Content::Hyper)).map_err(|mut error| {
            *slot = error.take_message().map(Box::new);
            Unanswered { cause: Cause::Hyper(error.into_error()), unsent: slot.is_some() }
        })
    }

    /// Has hyper speak from now on, on a task of this runtime.
    async fn hyper(
        &mut self,
        worker: usize,
    ) -> Result<(&mut SendRequest<RequestBody>, Arc<Watch>, &Due), Cause> {
        if let Speaker::Direct(direct) = &self.speaker {
            let Some(Open { stream, scanner, slot, .. }) = direct.take() else {
                return Err(Cause::Direct(io::ErrorKind::NotConnected.into()));
            };
            // Its keeper has nothing to keep any more.
            self.task.abort();
            self.due = Due::new();
            let watch = Arc::<Watch>::default();
            let socket = Socket::new(stream, slot, Arc::clone(&watch), scanner);
            let shaken = builder().handshake(TokioIo::new(socket)).await;
            let (send, connection) = shaken.map_err(Cause::Hyper)?;
            // How it ended is told to the request it carried, if any.
            let driver = Driver::new(connection.with_upgrades(), Arc::clone(&self.due), self.total);
            (self.task, self.worker) = (tokio::spawn(driver).abort_handle(), worker);
            self.speaker = Speaker::Hyper { send, watch };
        }
        match &mut self.speaker {
            Speaker::Hyper { send, watch } => Ok((send, Arc::clone(watch), &self.due)),
            Speaker::Direct(_) => Err(Cause::Direct(io::ErrorKind::NotConnected.into())),
        }
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
        if let Speaker::Hyper { watch, .. } = &self.speaker {
            watch.set_appetite(appetite);
        }
    }

    /// What comes of its answer is read in large pieces from now on.
    pub(super) fn read_much(&mut self) {
        self.is_heavy = matches!(self.speaker, Speaker::Hyper { .. });
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
    /// meanwhile. If that task is dropped, the connection is closed. `now`, where somebody knows.
    pub(super) fn give_back(mut self: Box<Self>, now: Option<Mono>) {
        let Some(pool) = self.pool.upgrade() else { return };
        if !self.due.clear() {
            return;
        }
        let is_ready = match &self.speaker {
            Speaker::Direct(direct) if !direct.rests() => return,
            Speaker::Direct(_) => true,
            Speaker::Hyper { send, .. } => send.is_ready(),
        };
        if is_ready {
            return pool.put(self, now);
        }
        if self.is_closed() {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                let Speaker::Hyper { send, .. } = &mut self.speaker else { return };
                if let Ok(Ok(())) = timeout(READY_WITHIN, send.ready()).await {
                    pool.put(self, None);
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
        if let Speaker::Direct(direct) = &self.speaker {
            direct.close();
        }
    }
}

/// What the end of the answer depends on.
fn asked(request: &Request<RequestBody>) -> Asked {
    match *request.method() {
        Method::HEAD => Asked::Head,
        Method::CONNECT => Asked::Connect,
        _ if request.headers().contains_key(header::UPGRADE) => Asked::Upgrade,
        _ => Asked::Other,
    }
}

/// Whether a head is all there is to a request, and an answer all that may come of it.
fn is_a_head_alone(request: &Request<RequestBody>, asked: Asked) -> bool {
    matches!(asked, Asked::Head | Asked::Other)
        && request.body().is_end_stream()
        // Who waits for leave to send content has some (RFC 9110 §10.1.1).
        && !request.headers().contains_key(header::EXPECT)
}

/// Interim responses are noted and passed on; hyper gives nothing of them to the final one. Each starts
/// `timeout.first_byte` anew, as a piece of the request that is taken does: the origin is at work.
/// `timeout.total` bounds them all.
fn listen(request: &mut Request<RequestBody>, sent: &Arc<Sent>, interim: Option<Interim>) {
    let sent = Arc::clone(sent);
    on_informational(request, move |response| {
        if sent.hear()
            && let Some(interim) = &interim
        {
            interim.pass(response.status(), response.headers());
        }
    });
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
