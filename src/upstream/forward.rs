//! One exchange with an upstream: choose a server, get a connection, send, wait for the head; once
//! more where that is safe, and on a second server beside the first where that one does not begin its answer.
//!
//! Knows the time limits and what may be sent twice. Must not know: caching, clients, which
//! status an error becomes.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, ready};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, Version, header};
use tokio::time::{Instant, sleep_until};

use super::Upstream;
use super::balance::{Standing, choose};
use super::body::{Content, Exchange, Fault, OriginBody, RequestBody, Sent};
use super::connection::{Cause, Conn};
use super::error::{ForwardError, Place, flaw, flaw_of, words};
use super::hedge::{Race, Role, Trial};
use super::pool::{Grant, Pool, Want};
use super::upload::Refused;
use crate::clock::Mono;
use crate::fields::hop;
use crate::interim::Interim;
use crate::wire::Flaw;

/// What is left of `timeout.first_byte` at least for a request that has waited for others' answers: many times what a
/// server that is well takes to answer, and little enough to be within anybody's limit.
const LEAST: Duration = Duration::from_millis(250);

/// An origin's answer.
pub struct Forwarded {
    /// The response; of a 101, the extensions hold hyper's `OnUpgrade`. In a box: it has a long way to go.
    pub response: Box<Response<OriginBody>>,
    /// Where the time went.
    pub times: ForwardTimes,
    /// When its head had come.
    pub came: Mono,
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
    /// Waiting for a first server alone, where a second one was asked beside it and has answered.
    pub hedge: Option<Duration>,
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
    /// `again` makes the same once more, body apart, where it has to be sent a second time. `worker` is the calling
    /// thread's number. Interim responses go to `interim`, if anybody is there who takes them. `waited` is how much of
    /// `timeout.total`, and of `timeout.first_byte`, has gone for whoever asks. If the future is dropped, the connection
    /// is closed and its slot goes to the next in line.
    ///
    /// # Errors
    /// When no response head came; see [`ForwardError`]. The log has been told.
    pub fn forward<'a>(
        self: &'a Arc<Self>,
        worker: usize,
        request: Request<RequestBody>,
        again: &'a Again<'a>,
        interim: Option<&'a Interim>,
        waited: Duration,
    ) -> impl Future<Output = Result<Forwarded, ForwardError>> + 'a {
        // In a box from the first: each future that it goes through would have room for it.
        self.forward_boxed(worker, Box::new(request), again, interim, waited)
    }

    async fn forward_boxed(
        self: &Arc<Self>,
        worker: usize,
        request: Box<Request<RequestBody>>,
        again: &Again<'_>,
        interim: Option<&Interim>,
        mut waited: Duration,
    ) -> Result<Forwarded, ForwardError> {
        let left = self.timeout.total.saturating_sub(waited);
        waited = self.gone(waited);
        // Another protocol begins a session, which is not begun twice.
        let may_be_repeated = self.pools.len() > 1 && !request.headers().contains_key(header::UPGRADE);
        let spare = Spare::of(&request, again, may_be_repeated);
        let race = Race::new(self.pools.len(), self.answers.load(Ordering::Acquire), spare);
        let deadline = race.since + left;
        let hedge = self.hedge_at(&race, left.min(self.timeout.first_byte - waited));
        let began = Some(race.since);
        let mut trip = Trip { began, ..Trip::new(&race, worker, deadline, waited, interim) };
        if left.is_zero() {
            return Err(self.told(self.overdue(&race)));
        }
        let answer = {
            let first = pin!(self.exchange(&mut trip, request));
            // One timer for both moments: the second is rarely waited for.
            let timer = pin!(sleep_until(hedge.unwrap_or(deadline)));
            let (mut alone, mut hedged) = (Some((first, timer)), None);
            // By hand, since the future of each request has no room for what hardly any of them needs.
            poll_fn(|cx| {
                if let Some((first, timer)) = &mut alone {
                    if let Poll::Ready(answer) = first.as_mut().poll(cx) {
                        return Poll::Ready(answer);
                    }
                    // A timer that is never looked at costs nothing.
                    if hedge.is_none() && race.is_cut_when_due() {
                        return Poll::Pending;
                    }
                    ready!(timer.as_mut().poll(cx));
                }
                if hedge.is_none() {
                    return Poll::Ready(Err(self.overdue(&race)));
                }
                if let Some((first, mut timer)) = alone.take() {
                    timer.as_mut().reset(deadline);
                    let second =
                        Trip { role: Role::Hedge, ..Trip::new(&race, worker, deadline, waited, interim) };
                    hedged = Some(Box::pin(self.hedged(first, second, timer)));
                }
                hedged.as_mut().map_or(Poll::Pending, |hedged| hedged.as_mut().poll(cx))
            })
            .await
        };
        match answer {
            Ok(answer) => {
                let times = race.times(answer.role);
                Ok(answer.into_forwarded(times, deadline, self.timeout.total))
            }
            Err(error) => Err(self.told(error)),
        }
    }

    fn told(&self, error: ForwardError) -> ForwardError {
        self.complaints.tell(&error, self.clock.mono());
        error
    }

    /// `timeout.total` is over.
    pub(super) fn overdue(&self, race: &Race<'_>) -> ForwardError {
        let at = self.place(race.asked.load(Ordering::Relaxed));
        ForwardError::TotalTimeout { at, limit: self.timeout.total }
    }

    /// One attempt: a server, and another where that may be, until one has begun its answer.
    pub(super) async fn exchange(
        &self,
        trip: &mut Trip<'_>,
        request: Box<Request<RequestBody>>,
    ) -> Result<Answer, ForwardError> {
        let mut request = Some(request);
        let (mut index, conn) = self.connection(trip, Want::Any).await?;
        let mut failed = match self.send(trip, index, conn, &mut request).await {
            Ok(answer) => return Ok(answer),
            Err(failed) => failed,
        };
        loop {
            let Failed { why, again: Some(SafeToRetry(again)), .. } = failed else {
                return Err(failed.why);
            };
            if !trip.race.retry() {
                return Err(why);
            }
            if let Some(pool) = self.pools.get(index) {
                pool.count_retry();
            }
            let Ok((next, conn)) = self.connection(trip, Want::Fresh).await else { return Err(why) };
            (index, request) = (next, Some(again));
            failed = match self.send(trip, index, conn, &mut request).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
        }
    }

    /// A connection to the best server that can be connected to.
    async fn connection(&self, trip: &mut Trip<'_>, want: Want) -> Result<(usize, Box<Conn>), ForwardError> {
        let mut last = None;
        trip.given = self.clock.mono();
        while let Some((index, pool)) = self.pick(trip) {
            trip.race.chosen(trip.role, index);
            let (grant, given) = match trip.role {
                Role::First => pool.checkout(trip.worker, want, trip.given).await?,
                // It takes what is free, and stands in nobody's way.
                Role::Hedge => (pool.checkout_now(trip.worker, want, trip.given)?, trip.given),
            };
            if given != trip.given {
                trip.began = None;
            }
            trip.times.queue += given.since(trip.given);
            trip.given = given;
            trip.race.given(trip.role);
            let slot = match grant {
                Grant::Kept(conn) => return Ok((index, conn)),
                Grant::Open(slot) => slot,
            };
            trip.began = None;
            // In a box: most have one that is kept.
            let opened = Box::pin(pool.open(slot, trip.worker)).await;
            let now = self.clock.mono();
            *trip.times.connect.get_or_insert_default() += now.since(trip.given);
            trip.given = now;
            match opened {
                Ok(conn) => return Ok((index, conn)),
                // Nothing has been sent, so the next server may be asked whatever the method.
                Err(error) => last = Some(error),
            }
            trip.race.note(index, Standing::Failed);
        }
        Err(last.unwrap_or_else(|| ForwardError::Connect {
            at: self.place(0),
            cause: "no server left to connect to".into(),
        }))
    }

    fn pick(&self, trip: &mut Trip<'_>) -> Option<(usize, &Arc<Pool>)> {
        let now = trip.given;
        let chosen = trip.first.take().or_else(|| {
            // There is nothing to compare.
            if self.pools.len() == 1 {
                return (!trip.race.has_failed(0)).then_some(0);
            }
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let (servers, alone) = (trip.race.standings(trip.role), !trip.race.may_move());
            let candidates: Vec<_> = self
                .pools
                .iter()
                .zip(servers)
                .map(|(pool, standing)| pool.candidate(standing, alone, now))
                .collect();
            choose(&candidates, turn)
        });
        let (index, pool) = chosen.and_then(|index| Some((index, self.pools.get(index)?)))?;
        if pool.health.asked(now) {
            trip.race.tries(Trial::of(pool));
        }
        Some((index, pool))
    }

    /// Sends what is there to be sent, which is left there as far as nothing of it was written.
    async fn send(
        &self,
        trip: &mut Trip<'_>,
        index: usize,
        mut conn: Box<Conn>,
        slot: &mut Option<Box<Request<RequestBody>>>,
    ) -> Result<Answer, Failed> {
        let Some((pool, request)) = self.pools.get(index).zip(slot.as_mut()) else {
            return Err(ForwardError::nowhere().into());
        };
        // hyper takes no other for HTTP/1.
        *request.version_mut() = Version::HTTP_11;
        let sent = request.body_mut().watch(trip.began.take().unwrap_or_else(Instant::now));
        let bound = hop::binds_the_connection(request.headers());
        let race = trip.race;
        race.sending(trip.role, &sent);
        // One limit for both attempts: whoever waits, waits for one answer.
        let patience = self.timeout.first_byte.saturating_sub(trip.waited);
        let whole = trip.waited.is_zero();
        if trip.role == Role::Hedge && !std::mem::replace(&mut trip.counted, true) {
            pool.count_hedge();
        }
        // Its driver cuts it then, and runs on this thread.
        race.cut_when_due(trip.role, conn.worker == trip.worker);
        // If this future is dropped at the await, so is `conn`, which closes the connection.
        let reply = tokio::select! {
            biased;
            reply = conn.exchange(slot, trip.worker, trip.deadline, &sent, trip.interim) => reply,
            () = sent.silent_for(patience) => {
                // A part of its time is no proof.
                if whole {
                    self.lost(race);
                }
                let why = ForwardError::FirstByteTimeout { at: pool.place(), limit: self.timeout.first_byte };
                return Err(why.into());
            }
        };
        race.cut_when_due(trip.role, false);
        let came = self.clock.mono();
        trip.times.first_byte += came.since(trip.given);
        let response = match reply {
            Ok(response) => {
                pool.health.answered(self.answers.fetch_add(1, Ordering::AcqRel) + 1);
                response
            }
            // The connection was cut at its deadline, which this future has not noticed yet.
            Err(_) if Instant::now() >= trip.deadline => {
                let why = ForwardError::TotalTimeout { at: pool.place(), limit: self.timeout.total };
                return Err(why.into());
            }
            Err(error) => {
                trip.waited += sent.age();
                let again = || race.spare.as_ref().filter(|spare| conn.kept || spare.may_move)?.request();
                let unsent = slot.take_if(|_| error.unsent);
                let failed = Failed::of(&error.cause, unsent, again, &sent, pool);
                let standing = Standing::after(&failed, conn.kept);
                if standing == Standing::Failed && matches!(failed.why, ForwardError::Reset { .. }) {
                    pool.set_aside();
                }
                race.note(index, standing);
                return Err(failed);
            }
        };
        // hyper speaks HTTP/1.0 to who has answered in it, and sends a chunked body there all the same.
        let reusable = response.version() == Version::HTTP_11
            && !bound
            && !hop::binds_the_connection(response.headers());
        race.answered(trip.role, trip.times);
        Ok(Answer { response, came, conn, sent, reusable, role: trip.role, at: pool.place() })
    }
}

/// What one attempt has met so far.
pub(super) struct Trip<'a> {
    pub(super) race: &'a Race<'a>,
    role: Role,
    /// As a hedge that has been sent.
    counted: bool,
    worker: usize,
    /// The server to be asked first, where that is settled.
    pub(super) first: Option<usize>,
    /// The end of `timeout.total`.
    deadline: Instant,
    /// How much of `timeout.first_byte` others' answers and earlier attempts have taken.
    pub(super) waited: Duration,
    pub(super) times: ForwardTimes,
    /// When it was given what it has: a connection, or the right to one.
    given: Mono,
    /// When it has begun, until it has waited for anything: the moment at which it sends, then.
    began: Option<Instant>,
    /// Where interim responses go.
    interim: Option<&'a Interim>,
}

impl<'a> Trip<'a> {
    fn new(
        race: &'a Race<'a>,
        worker: usize,
        deadline: Instant,
        waited: Duration,
        interim: Option<&'a Interim>,
    ) -> Self {
        let (role, times, given, began) = (Role::First, ForwardTimes::default(), Mono::default(), None);
        Self {
            race,
            role,
            counted: false,
            worker,
            first: None,
            deadline,
            waited,
            times,
            given,
            began,
            interim,
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
pub(super) struct Answer {
    response: Response<Content>,
    came: Mono,
    pub(super) conn: Box<Conn>,
    sent: Arc<Sent>,
    /// The connection may serve others.
    reusable: bool,
    /// Whose answer it is.
    role: Role,
    at: Place,
}

impl Answer {
    /// Its server says that it has failed (RFC 9110 §15.6), so another might not.
    pub(super) fn failed(&self) -> bool {
        self.response.status().is_server_error()
    }

    /// Its server would not do what it was asked: not for want of it ([`NOT_FOUND`](StatusCode::NOT_FOUND)), but of a right, or of
    /// something that another may be using up. RFC 9110 §15.5.
    pub(super) fn refuses(&self) -> bool {
        let status = self.response.status();
        status.is_client_error() && status != StatusCode::NOT_FOUND
    }

    fn into_forwarded(self, times: ForwardTimes, deadline: Instant, limit: Duration) -> Forwarded {
        let Self { response, came, conn, sent, reusable, at, .. } = self;
        let server = Arc::clone(&at.server);
        let (head, content) = response.into_parts();
        let body = match head.status {
            StatusCode::SWITCHING_PROTOCOLS => OriginBody::upgraded(content, *conn),
            _ => OriginBody::new(content, Exchange { conn, sent, reusable, at, deadline, limit }, came),
        };
        Forwarded { response: Box::new(Response::from_parts(head, body)), times, came, server }
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
        cause: &Cause,
        unsent: Option<Box<Request<RequestBody>>>,
        replay: impl FnOnce() -> Option<Box<Request<RequestBody>>>,
        sent: &Sent,
        pool: &Pool,
    ) -> Self {
        let nothing_sent = unsent.is_some();
        let why = reason(cause, sent, pool);
        let again = match &why {
            _ if unsent.is_some() => unsent,
            // An origin that has said that it is at work had not closed the connection just then.
            ForwardError::Reset { .. } if !sent.heard() => replay(),
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

/// Makes a request once more, but for its body.
pub type Again<'a> = dyn Fn() -> Request<()> + Send + Sync + 'a;

/// What it takes to send a request a second time: if the connection turns out to have been closed by the origin just
/// then, or if there is another server and the first breaks off or says nothing. Only of requests that ask for nothing
/// but an answer (RFC 9110 §9.2.1, RFC 9112 §9.3.1), whose body is at hand.
pub(super) struct Spare<'a> {
    again: &'a Again<'a>,
    body: RequestBody,
    /// It may be given to another server.
    pub(super) may_move: bool,
}

impl<'a> Spare<'a> {
    fn of(request: &Request<RequestBody>, again: &'a Again<'a>, may_move: bool) -> Option<Self> {
        let safe = matches!(
            *request.method(),
            Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::QUERY
        );
        let body = request.body().again().filter(|_| safe)?;
        Some(Self { again, body, may_move })
    }

    pub(super) fn request(&self) -> Option<Box<Request<RequestBody>>> {
        let body = self.body.again()?;
        Some(Box::new((self.again)().map(|()| body)))
    }
}

fn reason(cause: &Cause, sent: &Sent, pool: &Pool) -> ForwardError {
    let at = pool.place();
    let error = match cause {
        Cause::Hyper(error) => error,
        Cause::Direct(error) => {
            return match flaw_of(error) {
                Some(flaw) => ForwardError::Protocol { at, flaw },
                None => ForwardError::Reset { at, cause: words(error) },
            };
        }
    };
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
