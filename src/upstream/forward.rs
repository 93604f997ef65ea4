//! One exchange with an upstream: choose a server, get a connection, send, wait for the head; once
//! more where that is safe.
//!
//! Knows the time limits and what may be sent twice. Must not know: caching, clients, which
//! status an error becomes.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::ext::on_informational;
use tokio::time::{Instant, sleep};

use super::Upstream;
use super::balance::{Standing, choose};
use super::body::{Exchange, Fault, OriginBody, RequestBody, Sent};
use super::connection::Conn;
use super::error::{ForwardError, Place, flaw, words};
use super::pool::{Grant, Pool, Want};
use super::upload::Refused;
use super::watch::Next;
use crate::fields::hop;
use crate::interim::Interim;
use crate::wire::{Asked, Flaw};

/// What is left of `timeout.first_byte` at least for a request that has waited for others' answers: many times what a
/// server that is well takes to answer, and little enough to be within anybody's limit.
const LEAST: Duration = Duration::from_millis(250);

/// An origin's answer.
pub struct Forwarded {
    /// The response; of a 101, the extensions hold hyper's `OnUpgrade`.
    pub response: Response<OriginBody>,
    /// Where the time went.
    pub times: ForwardTimes,
    /// The server that answered, `host:port`.
    pub server: Arc<str>,
}

/// Where the time went until the response's head, all attempts together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardTimes {
    /// Waiting for a connection or a slot.
    pub queue: Duration,
    /// Connecting; `None` where a kept connection was used.
    pub connect: Option<Duration>,
    /// From the request's being handed over to the response's head.
    pub first_byte: Duration,
}

impl Upstream {
    /// How long somebody who has `waited` for others' answers in vain waits for one more: what is left of
    /// `timeout.total`, and of `timeout.first_byte`, as if it had asked for itself at once. The first wait ends as the
    /// answer's own time for its head does.
    pub fn patience(&self, waited: Duration) -> Duration {
        let total = self.timeout.total.saturating_sub(waited);
        if waited.is_zero() { total } else { total.min(self.timeout.first_byte - self.gone(waited)) }
    }

    /// Why somebody who has `waited` for others' answers alone is not given one.
    pub fn late(&self, waited: Duration) -> ForwardError {
        let at = self.place(0);
        match waited >= self.timeout.total {
            true => ForwardError::TotalTimeout { at, limit: self.timeout.total },
            false => ForwardError::FirstByteTimeout { at, limit: self.timeout.first_byte },
        }
    }

    /// How much of `timeout.first_byte` has gone for who has `waited`.
    fn gone(&self, waited: Duration) -> Duration {
        waited.min(self.timeout.first_byte.saturating_sub(LEAST))
    }

    /// Sends `request` to a server of this upstream and waits for its response's head.
    ///
    /// The request has an origin-form URI and `Host`; its fields go out as they are, as HTTP/1.1.
    /// `worker` is the calling thread's number. Interim responses go to `interim`, if anybody is there
    /// who takes them. `waited` is how much of `timeout.total`, and of `timeout.first_byte`, has gone for whoever
    /// asks. If the future is dropped, the connection is closed and its slot goes to the next in line.
    ///
    /// # Errors
    /// When no response head came; see [`ForwardError`]. The log has been told.
    pub async fn forward(
        self: &Arc<Self>,
        worker: usize,
        request: Request<RequestBody>,
        interim: Option<&Interim>,
        waited: Duration,
    ) -> Result<Forwarded, ForwardError> {
        let forwarded = self.forward_in_time(worker, request, interim, waited).await;
        if let Err(error) = &forwarded {
            self.complaints.tell(error, self.clock.mono());
        }
        forwarded
    }

    async fn forward_in_time(
        self: &Arc<Self>,
        worker: usize,
        request: Request<RequestBody>,
        interim: Option<&Interim>,
        waited: Duration,
    ) -> Result<Forwarded, ForwardError> {
        let left = self.timeout.total.saturating_sub(waited);
        if left.is_zero() {
            return Err(ForwardError::TotalTimeout { at: self.place(0), limit: self.timeout.total });
        }
        let mut over = pin!(sleep(left));
        let deadline = over.deadline();
        let mut trip = Trip::new(worker, self.pools.len(), deadline, interim);
        trip.waited = self.gone(waited);
        let asked = AtomicUsize::new(0);
        let answer = tokio::select! {
            biased;
            answer = self.exchange(&mut trip, &asked, request) => answer?,
            () = over.as_mut() => {
                let at = self.place(asked.load(Ordering::Relaxed));
                return Err(ForwardError::TotalTimeout { at, limit: self.timeout.total });
            }
        };
        Ok(answer.into_forwarded(trip.times, deadline, self.timeout.total))
    }

    async fn exchange(
        &self,
        trip: &mut Trip<'_>,
        asked: &AtomicUsize,
        request: Request<RequestBody>,
    ) -> Result<Answer, ForwardError> {
        let (mut index, conn) = self.connection(trip, asked, Want::Any).await?;
        let mut failed = match self.send(trip, index, conn, request).await {
            Ok(answer) => return Ok(answer),
            Err(failed) => failed,
        };
        // Once for a kept connection that was closed just then, and once for a server that breaks off: a request
        // that ends whoever works on it is not given to all of them.
        for _ in 0..self.pools.len().min(2) {
            let Failed { why, again: Some(SafeToRetry(request)), .. } = failed else {
                return Err(failed.why);
            };
            if let Some(pool) = self.pools.get(index) {
                pool.count_retry();
            }
            let Ok((next, conn)) = self.connection(trip, asked, Want::Fresh).await else { return Err(why) };
            index = next;
            failed = match self.send(trip, index, conn, *request).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
        }
        Err(failed.why)
    }

    /// A connection to the best server that can be connected to.
    async fn connection(
        &self,
        trip: &mut Trip<'_>,
        asked: &AtomicUsize,
        want: Want,
    ) -> Result<(usize, Conn), ForwardError> {
        let mut last = None;
        while let Some((index, pool)) = self.pick(&trip.servers) {
            asked.store(index, Ordering::Relaxed);
            let begun = self.clock.mono();
            let grant = pool.checkout(trip.worker, want).await;
            trip.times.queue += self.clock.mono().since(begun);
            let slot = match grant? {
                Grant::Kept(conn) => return Ok((index, conn)),
                Grant::Open(slot) => slot,
            };
            let begun = self.clock.mono();
            let opened = pool.open(slot, trip.worker).await;
            *trip.times.connect.get_or_insert_default() += self.clock.mono().since(begun);
            match opened {
                Ok(conn) => return Ok((index, conn)),
                // Nothing has been sent, so the next server may be asked whatever the method.
                Err(error) => last = Some(error),
            }
            trip.note(index, Standing::Failed);
        }
        Err(last.unwrap_or_else(|| ForwardError::Connect {
            at: self.place(0),
            cause: "no server left to connect to".into(),
        }))
    }

    fn pick(&self, servers: &[Standing]) -> Option<(usize, &Arc<Pool>)> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let candidates: Vec<_> =
            self.pools.iter().zip(servers).map(|(pool, standing)| pool.candidate(*standing)).collect();
        let index = choose(&candidates, turn)?;
        self.pools.get(index).map(|pool| (index, pool))
    }

    async fn send(
        &self,
        trip: &mut Trip<'_>,
        index: usize,
        mut conn: Conn,
        mut request: Request<RequestBody>,
    ) -> Result<Answer, Failed> {
        let Some(pool) = self.pools.get(index) else { return Err(ForwardError::nowhere().into()) };
        // hyper takes no other for HTTP/1.
        *request.version_mut() = Version::HTTP_11;
        let sent = request.body_mut().watch();
        let asked = asked(&request);
        let bound = hop::binds_the_connection(request.headers());
        // A server that has just been connected to and breaks off is not asked again: another may be.
        let replay = replay(&request, conn.kept || self.pools.len() > 1);
        listen(&mut request, &sent, trip.interim.cloned());
        // One limit for both attempts: whoever waits, waits for one answer.
        let patience = self.timeout.first_byte.saturating_sub(trip.waited);
        let begun = self.clock.mono();
        conn.begin(trip.deadline, Next { asked, sent: Arc::clone(&sent) });
        // If this future is dropped at the await, so is `conn`, which closes the connection.
        let reply = tokio::select! {
            biased;
            reply = conn.send.try_send_request(request) => reply,
            () = sent.silent_for(patience) => {
                let why = ForwardError::FirstByteTimeout { at: pool.place(), limit: self.timeout.first_byte };
                return Err(why.into());
            }
        };
        trip.times.first_byte += self.clock.mono().since(begun);
        trip.waited += sent.age();
        let response = match reply {
            Ok(response) => response,
            // The connection was cut at its deadline, which this future has not noticed yet.
            Err(_) if Instant::now() >= trip.deadline => {
                let why = ForwardError::TotalTimeout { at: pool.place(), limit: self.timeout.total };
                return Err(why.into());
            }
            Err(error) => {
                let failed = Failed::of(error, replay, &sent, pool);
                let standing = Standing::after(&failed, conn.kept);
                if standing == Standing::Failed && matches!(failed.why, ForwardError::Reset { .. }) {
                    pool.set_aside();
                }
                trip.note(index, standing);
                return Err(failed);
            }
        };
        // hyper speaks HTTP/1.0 to who has answered in it, and sends a chunked body there all the same.
        let reusable = response.version() == Version::HTTP_11
            && !bound
            && !hop::binds_the_connection(response.headers());
        Ok(Answer { response, conn, sent, reusable, at: pool.place() })
    }
}

/// What one request has met so far.
struct Trip<'a> {
    worker: usize,
    /// What each server has come to.
    servers: Vec<Standing>,
    /// The end of `timeout.total`.
    deadline: Instant,
    /// How much of `timeout.first_byte` others' answers and a first attempt have taken.
    waited: Duration,
    times: ForwardTimes,
    /// Where interim responses go.
    interim: Option<&'a Interim>,
}

impl<'a> Trip<'a> {
    fn new(worker: usize, servers: usize, deadline: Instant, interim: Option<&'a Interim>) -> Self {
        let (servers, times) = (vec![Standing::Untried; servers], ForwardTimes::default());
        Self { worker, servers, deadline, waited: Duration::ZERO, times, interim }
    }

    fn note(&mut self, index: usize, standing: Standing) {
        if let Some(server) = self.servers.get_mut(index) {
            *server = standing;
        }
    }
}

impl Standing {
    /// After an exchange that failed. A kept connection that turns out to be closed says nothing of its server,
    /// nor does one on which nothing was sent; all the same, another is asked first.
    fn after(failed: &Failed, kept: bool) -> Self {
        if kept || failed.unsent { Self::Doubted } else { Self::Failed }
    }
}

/// A response's head and what its body will need.
struct Answer {
    response: Response<Incoming>,
    conn: Conn,
    sent: Arc<Sent>,
    /// The connection may serve others.
    reusable: bool,
    at: Place,
}

impl Answer {
    fn into_forwarded(self, times: ForwardTimes, deadline: Instant, limit: Duration) -> Forwarded {
        let Self { response, conn, sent, reusable, at } = self;
        let server = Arc::clone(&at.server);
        let (head, incoming) = response.into_parts();
        let body = match head.status {
            StatusCode::SWITCHING_PROTOCOLS => OriginBody::upgraded(incoming, conn),
            _ => OriginBody::new(incoming, Exchange { conn, sent, reusable, at, deadline, limit }),
        };
        Forwarded { response: Response::from_parts(head, body), times, server }
    }
}

/// A request that may be sent once more: nothing of it was written, or it is safe (RFC 9110
/// §9.2.1), so that acting on it twice does no harm. Only this file makes one.
struct SafeToRetry(Box<Request<RequestBody>>);

struct Failed {
    why: ForwardError,
    again: Option<SafeToRetry>,
    /// Nothing of it has been written.
    unsent: bool,
}

impl Failed {
    fn of(
        mut error: TrySendError<Request<RequestBody>>,
        replay: Option<Box<Request<RequestBody>>>,
        sent: &Sent,
        pool: &Pool,
    ) -> Self {
        let unsent = error.take_message().map(Box::new);
        let nothing_sent = unsent.is_some();
        let why = reason(error.error(), sent, pool);
        let again = match &why {
            _ if unsent.is_some() => unsent,
            // An origin that has said that it is at work had not closed the connection just then.
            ForwardError::Reset { .. } if !sent.heard() => replay,
            _ => None,
        };
        Self { why, again: again.map(SafeToRetry), unsent: nothing_sent }
    }
}

impl From<ForwardError> for Failed {
    fn from(why: ForwardError) -> Self {
        Self { why, again: None, unsent: false }
    }
}

/// A copy to send if the connection turns out to have been closed by the origin just then, or breaks off
/// while there is another server: only of requests that ask for nothing but an answer (RFC 9110 §9.2.1, RFC 9112 §9.3.1).
fn replay(request: &Request<RequestBody>, wanted: bool) -> Option<Box<Request<RequestBody>>> {
    let safe = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::QUERY
    );
    if !wanted || !safe {
        return None;
    }
    let mut copy = Request::new(request.body().again()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(Box::new(copy))
}

/// Interim responses are noted and passed on; hyper gives nothing of them to the final one. Each starts
/// `timeout.first_byte` anew, as a piece of the request that is taken does: the origin is at work.
/// `timeout.total` bounds them all.
fn listen(request: &mut Request<RequestBody>, sent: &Arc<Sent>, interim: Option<Interim>) {
    let sent = Arc::clone(sent);
    on_informational(request, move |response| {
        sent.hear();
        if let Some(interim) = &interim {
            interim.pass(response.status(), response.headers());
        }
    });
}

fn reason(error: &hyper::Error, sent: &Sent, pool: &Pool) -> ForwardError {
    let at = pool.place();
    if let Some(flaw) = flaw(error) {
        return ForwardError::Protocol { at, flaw };
    }
    match sent.fault() {
        Some(Fault::Refused(Refused::TooSlow)) => return ForwardError::SlowRequestBody { at },
        Some(Fault::Refused(Refused::TooLarge)) => return ForwardError::LargeRequestBody { at },
        Some(Fault::Broken) => return ForwardError::RequestBody { at, cause: words(error) },
        None => {}
    }
    if error.is_body_write_aborted() {
        return ForwardError::RequestBody { at, cause: words(error) };
    }
    if error.is_parse() {
        pool.count_flaw(Flaw::Syntax);
        return ForwardError::Protocol { at, flaw: Flaw::Syntax };
    }
    ForwardError::Reset { at, cause: words(error) }
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
