//! The life of one client connection: what it is doing, and until when it may.
//!
//! Knows the phases of a connection and their limits, and looks at them whenever the connection has been driven
//! and when the next limit is due. What drives it notes here what happens; nothing here reads or writes.
//! Must not know: sockets, what is asked, or how a connection is ended.
//!
//! Cancellation: nothing outlives the connection but the counts of those requests that it still answers.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::Limits;

/// How long a connection that was asked to end may take for it, when nothing is asked on it any more.
const FAREWELL: Duration = Duration::from_secs(2);
/// Requests that may be taken back before they were answered, whatever their share.
const TAKEN_BACK: u64 = 100;

/// What a connection does, noted by those who do it.
///
/// On HTTP/1 all of them are one task; on HTTP/2 each request is one of its own.
pub(super) struct Life {
    /// What all moments are counted from, the same for all connections.
    opened: Instant,
    /// Since when nothing has been asked on it, nanoseconds after `opened`; [`NEVER`] while something is.
    unused: AtomicU64,
    /// It has given its place to another.
    made_room: AtomicBool,
    /// It has left HTTP.
    tunnel: AtomicBool,
    leave: AtomicWaker,
    /// Requests that have come.
    begun: AtomicU64,
    /// Of those, the ones whose answer is not over.
    running: AtomicU32,
    /// Of those, the ones that the client took back before they were answered.
    taken_back: AtomicU64,
    /// Something has come that is no request yet.
    heard: AtomicBool,
    /// A head of HTTP/1 has begun to come, maybe behind a request that was being answered, and is not whole.
    partial: AtomicBool,
    /// Bytes that have gone out, and that have come.
    written: AtomicU64,
    read: AtomicU64,
    /// Who waits for bytes to go out.
    outflow: AtomicWaker,
    waits: AtomicBool,
    /// When a client that takes nothing is given up; [`NEVER`] while it takes what there is.
    stalled: AtomicU64,
    /// When a client is given up that has been told everything and does not close; [`NEVER`] before.
    parting: AtomicU64,
    /// When a client of HTTP/2 is given up whose head is on its way; [`NEVER`] while none is.
    head: AtomicU64,
    /// Nobody is owed a word any more.
    quiet: AtomicBool,
    /// The client is to be told that its head is late.
    late: AtomicBool,
    /// An answer has broken off.
    broken: AtomicBool,
    /// The client has said that it sends nothing more.
    promised: AtomicBool,
}

/// No such moment.
const NEVER: u64 = u64::MAX;

impl Life {
    /// Of a connection opened just now, `process` after which all times are counted.
    pub(super) fn new(process: Instant) -> Arc<Self> {
        let now = u64::try_from(process.elapsed().as_nanos()).unwrap_or(NEVER - 1);
        Arc::new(Self {
            opened: process,
            unused: AtomicU64::new(now),
            made_room: AtomicBool::new(false),
            tunnel: AtomicBool::new(false),
            leave: AtomicWaker::new(),
            begun: AtomicU64::new(0),
            running: AtomicU32::new(0),
            taken_back: AtomicU64::new(0),
            heard: AtomicBool::new(false),
            partial: AtomicBool::new(false),
            written: AtomicU64::new(0),
            read: AtomicU64::new(0),
            outflow: AtomicWaker::new(),
            waits: AtomicBool::new(false),
            stalled: AtomicU64::new(NEVER),
            parting: AtomicU64::new(NEVER),
            head: AtomicU64::new(NEVER),
            quiet: AtomicBool::new(false),
            late: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            promised: AtomicBool::new(false),
        })
    }

    /// Since when nothing has been asked on it, in nanoseconds of a time that all connections share; `None`
    /// while something is.
    pub(super) fn unused_since(&self) -> Option<u64> {
        let since = self.unused.load(Ordering::Acquire);
        let is_tunnel = self.tunnel.load(Ordering::Acquire);
        (since != NEVER && !is_tunnel && !self.has_made_room()).then_some(since)
    }

    /// It is a tunnel from now on, which is never unused.
    pub(super) fn tunnel(&self) {
        self.tunnel.store(true, Ordering::Release);
    }

    /// Has it end, for another's sake. `false` where it was told already.
    pub(super) fn make_room(&self) -> bool {
        let first = !self.made_room.swap(true, Ordering::AcqRel);
        self.leave.wake();
        first
    }

    pub(super) fn has_made_room(&self) -> bool {
        self.made_room.load(Ordering::Acquire)
    }

    /// Resolves when it is to end for another's sake. For one task at a time.
    pub(super) async fn asked_to_leave(&self) {
        std::future::poll_fn(|cx| {
            self.leave.register(cx.waker());
            if self.has_made_room() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// A request has come: which one it is, from 1, and its part in this life.
    pub(super) fn begin(self: &Arc<Self>) -> (u64, Running) {
        self.heard.store(false, Ordering::Relaxed);
        self.unused.store(NEVER, Ordering::Release);
        self.running.fetch_add(1, Ordering::Relaxed);
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        (number, Running { life: Arc::clone(self), answered: false })
    }

    /// A request has come and has been answered at once.
    pub(super) fn answered(&self) {
        self.heard.store(false, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that have come.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Bytes have come.
    pub(super) fn hear(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
        if !self.is_running() {
            self.heard.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a head is on its way that is not whole.
    pub(super) fn await_rest(&self, partial: bool) {
        self.partial.store(partial, Ordering::Relaxed);
    }

    /// The client has said `close`: RFC 9112 §9.6 has it send nothing more.
    pub(super) fn promise(&self) {
        self.promised.store(true, Ordering::Relaxed);
    }

    /// It has sent more.
    pub(super) fn break_promise(&self) {
        self.promised.store(false, Ordering::Relaxed);
    }

    /// Whether it sends nothing more, as far as it has said and done.
    pub(super) fn is_promised(&self) -> bool {
        self.promised.load(Ordering::Relaxed)
    }

    /// Bytes that have gone out.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Bytes have gone out.
    pub(super) fn write(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
        if self.waits.load(Ordering::Acquire) {
            self.waits.store(false, Ordering::Relaxed);
            self.outflow.wake();
        }
    }

    /// Has the task woken when more bytes have gone out. On HTTP/1, where that is the same task.
    fn wait_for_outflow(&self, cx: &Context<'_>) {
        self.outflow.register(cx.waker());
        self.waits.store(true, Ordering::Release);
    }

    /// The client takes nothing, and may do so until then; `None`: it takes again.
    pub(super) fn stall(&self, until: Option<Instant>) {
        self.stalled.store(until.map_or(NEVER, |until| self.since_opened(until)), Ordering::Relaxed);
    }

    /// All has been said, and the client is given until then to have heard it.
    pub(super) fn part(&self, until: Instant) {
        self.parting.store(self.since_opened(until), Ordering::Relaxed);
    }

    /// A head is on its way on a connection of HTTP/2, and may be until then; `None`: none is.
    pub(super) fn await_head(&self, until: Option<Instant>) {
        self.head.store(until.map_or(NEVER, |until| self.since_opened(until)), Ordering::Relaxed);
    }

    /// From now on the connection may end without a word.
    pub(super) fn hush(&self) {
        self.quiet.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Relaxed)
    }

    /// The client is to be told that its head is late.
    pub(super) fn be_late(&self) {
        self.late.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_late(&self) -> bool {
        self.late.load(Ordering::Relaxed)
    }

    /// An answer has broken off: the end of the connection is not to look like the end of the answer.
    pub(super) fn break_off(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Whether a request is being answered.
    pub(super) fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed) > 0
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed) != NEVER
    }

    /// Whether most of its requests were taken back before they could be answered: each costs us a request, and
    /// its client a few bytes (CVE-2023-44487, "rapid reset").
    fn is_flooded(&self) -> bool {
        let taken_back = self.taken_back.load(Ordering::Relaxed);
        taken_back > TAKEN_BACK && taken_back.saturating_mul(2) > self.begun.load(Ordering::Relaxed)
    }

    /// Whether nothing is asked, since then. To be called after `begin` by the same task, or by one that has
    /// seen what came of it.
    fn note(&self, unused: bool, since: Instant) {
        self.unused.store(if unused { self.since_opened(since) } else { NEVER }, Ordering::Release);
    }

    fn since_opened(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.opened).as_nanos();
        u64::try_from(since).unwrap_or(NEVER).min(NEVER - 1)
    }

    fn at(&self, moment: &AtomicU64) -> Option<Instant> {
        let since = moment.load(Ordering::Relaxed);
        (since != NEVER).then(|| self.opened + Duration::from_nanos(since))
    }
}

/// A request's part in the life of its connection: from its coming until its answer is over.
pub(super) struct Running {
    life: Arc<Life>,
    answered: bool,
}

impl Running {
    /// Bytes that have gone out on the connection.
    pub(super) fn written(&self) -> u64 {
        self.life.written()
    }

    /// See [`Life::wait_for_outflow`].
    pub(super) fn wait_for_outflow(&self, cx: &Context<'_>) {
        self.life.wait_for_outflow(cx);
    }

    /// Its answer has broken off.
    pub(super) fn break_off(&self) {
        self.life.break_off();
    }

    /// Its connection leaves HTTP: see [`Life::tunnel`].
    pub(super) fn tunnel(&self) {
        self.life.tunnel();
    }

    /// Its answer begins.
    pub(super) fn answer(&mut self) {
        self.answered = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.answered {
            self.life.taken_back.fetch_add(1, Ordering::Relaxed);
        }
        self.life.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A head is on its way, or the first request is awaited.
    Head,
    /// At least one request is being answered.
    Busy,
    /// Between requests.
    Idle,
}

/// A limit that has been reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// `limits.header_time`
    Head,
    /// The same, of a head that keeps all other requests of an HTTP/2 connection waiting.
    Broken,
    /// `limits.idle_time`
    Idle,
    /// `limits.requests`
    Requests,
    /// `limits.response_grace`
    Stalled,
    /// The client has had its time to hear the last word, or to say its own.
    Parted,
    /// Too many requests were taken back.
    Flooded,
    /// Another needs its place.
    MadeRoom,
}

/// Watches over a connection's limits. To be polled after each time that the connection has been driven.
pub(super) struct Watch {
    life: Arc<Life>,
    limits: Times,
    http2: bool,
    /// What it was doing when it was last looked at, and after how many requests; and since when.
    seen: (Phase, u64),
    since: Instant,
    /// Of the bytes that have gone out and come, what has been taken into account.
    moved: (u64, u64),
    /// Bytes that have come since it was idle and that were more than those that went out.
    excess: u64,
    /// Requests after which it is to be asked to end.
    most: u64,
    /// Larder stops, which is no reason to count anything.
    leaving: bool,
    /// It has been asked to end.
    ending: bool,
    /// Never later than the next limit, and rarely earlier, so that requests that follow each other do not
    /// each move a timer.
    look: Pin<Box<Sleep>>,
}

/// The limits of a connection's phases.
#[derive(Clone, Copy)]
struct Times {
    head: Duration,
    idle: Duration,
    /// Bytes a second that keep a connection of HTTP/2 from being idle.
    rate: u64,
}

impl Watch {
    /// `since`: when the first byte came.
    pub(super) fn new(life: Arc<Life>, limits: &Limits, http2: bool, since: Instant) -> Self {
        let limits =
            Times { head: limits.header_time, idle: limits.idle_time, rate: limits.response.rate.max(1) };
        let look = Box::pin(sleep_until(since + limits.head));
        let (seen, most) = ((Phase::Head, 0), u64::MAX);
        Self {
            life,
            limits,
            http2,
            seen,
            since,
            moved: (0, 0),
            excess: 0,
            most,
            leaving: false,
            ending: false,
            look,
        }
    }

    /// For a connection that is to be asked to end after so many requests.
    pub(super) fn at_most(self, requests: u64) -> Self {
        Self { most: requests, ..self }
    }

    pub(super) fn is_http2(&self) -> bool {
        self.http2
    }

    /// Whether nothing has happened on it for as long as it would be given to end: that may be done at once.
    pub(super) fn is_long_over(&self) -> bool {
        self.since.elapsed() >= FAREWELL
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Larder stops: from now on, who asks for nothing for so long is idle.
    pub(super) fn leave(&mut self, lame_duck: Duration) {
        (self.leaving, self.limits.idle) = (true, lame_duck.min(self.limits.idle));
        self.since = Instant::now();
    }

    /// Says that the connection has been asked to end. Once nothing is asked on it, it has a moment for that.
    pub(super) fn end(&mut self) {
        (self.ending, self.since) = (true, Instant::now());
    }

    /// Which limit has been reached; if none, the task is woken at the next.
    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        if self.life.is_flooded() {
            return Poll::Ready(Due::Flooded);
        }
        self.life.leave.register(cx.waker());
        if self.life.has_made_room() && !self.ending {
            return Poll::Ready(Due::MadeRoom);
        }
        self.see();
        if self.seen.1 >= self.most && !self.ending {
            return Poll::Ready(Due::Requests);
        }
        let next = self.next();
        if let Some((at, _)) = next
            && at < self.look.deadline()
        {
            self.look.as_mut().reset(at);
        }
        while self.look.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let again = match next {
                Some((at, due)) if at <= now => return Poll::Ready(due),
                Some((at, _)) => at,
                None => now + self.limits.idle,
            };
            self.look.as_mut().reset(again);
        }
        Poll::Pending
    }

    /// Takes note of what the connection does now.
    fn see(&mut self) {
        let begun = self.life.begun.load(Ordering::Relaxed);
        let partial = self.life.partial.load(Ordering::Relaxed);
        let phase = match self.life.heard.load(Ordering::Relaxed) || partial {
            // Also while hyper still has to write what it has taken whole: the answer is not over.
            _ if self.life.is_running() || self.life.is_stalled() => Phase::Busy,
            // Of HTTP/2, whatever else comes is no request: a connection is not kept by pings.
            heard if begun == 0 || (heard && !self.http2) => Phase::Head,
            _ => Phase::Idle,
        };
        let moved = (self.life.written.load(Ordering::Relaxed), self.life.read.load(Ordering::Relaxed));
        let before = std::mem::replace(&mut self.moved, moved);
        if (phase, begun) != self.seen {
            (self.seen, self.since, self.excess) = ((phase, begun), Instant::now(), 0);
            // Who is at a head has asked for nothing yet: one byte is not to keep a place.
            self.life.note(phase != Phase::Busy, self.since);
        } else if phase == Phase::Idle && moved != before {
            self.move_on(moved.0.saturating_sub(before.0), moved.1.saturating_sub(before.1));
        }
    }

    /// On HTTP/2 an answer is over for us when it waits in h2's buffers. Its bytes that go out are no idleness;
    /// those that go out for as many that come, such as the answer to a ping, are.
    fn move_on(&mut self, written: u64, read: u64) {
        let excess = self.excess.saturating_add(read);
        let bytes = written.saturating_sub(excess);
        self.excess = excess.saturating_sub(written);
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.limits.rate);
        let later = self.since + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.since = later.min(Instant::now());
    }

    /// The next limit, and when it is reached.
    fn next(&self) -> Option<(Instant, Due)> {
        let parting = self.life.at(&self.life.parting).map(|at| (at, Due::Parted));
        if parting.is_some() {
            return parting;
        }
        let phase = match self.seen.0 {
            Phase::Busy => None,
            Phase::Idle | Phase::Head if self.ending => Some((self.since + FAREWELL, Due::Parted)),
            Phase::Head => Some((self.since + self.limits.head, Due::Head)),
            Phase::Idle => Some((self.since + self.limits.idle, Due::Idle)),
        };
        let stalled = self.life.at(&self.life.stalled).map(|at| (at, Due::Stalled));
        // Who takes nothing is not read from, which has its own limit.
        let head = self.life.at(&self.life.head).filter(|_| stalled.is_none()).map(|at| (at, Due::Broken));
        phase.into_iter().chain(stalled).chain(head).min_by_key(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{advance, timeout};

    use super::*;

    const HEAD: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(75);
    const SECOND: Duration = Duration::from_secs(1);

    fn watch(http2: bool) -> (Arc<Life>, Watch) {
        let limits = Limits { header_time: HEAD, idle_time: IDLE, ..Limits::default() };
        let life = Life::new(Instant::now());
        let watch = Watch::new(Arc::clone(&life), &limits, http2, Instant::now());
        (life, watch)
    }

    /// What is due at a moment, and how long it was waited for.
    async fn due(watch: &mut Watch) -> (Due, Duration) {
        let begun = Instant::now();
        let due = poll_fn(|cx| watch.poll_due(cx)).await;
        (due, begun.elapsed())
    }

    /// Lets the connection be driven for so long, and sees to it that nothing is due.
    async fn pass(watch: &mut Watch, time: Duration) {
        let due = timeout(time, poll_fn(|cx| watch.poll_due(cx))).await;
        assert_eq!(due.ok(), None);
    }

    fn near(seen: (Due, Duration), due: Due, after: Duration) {
        assert_eq!(seen.0, due);
        // Timers of tokio have a grain of a millisecond.
        assert!(seen.1 >= after && seen.1 < after + Duration::from_millis(20), "{seen:?}, {after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_time_as_a_whole_and_an_idle_connection_its_own() {
        let (life, mut watch) = watch(false);
        for _ in 0..9 {
            life.hear(1);
            pass(&mut watch, SECOND).await;
        }
        near(due(&mut watch).await, Due::Head, SECOND);
        let (_, running) = life.begin();
        // Neither: the limits of a request are others' to hold.
        pass(&mut watch, IDLE * 10).await;
        drop(running);
        pass(&mut watch, IDLE - SECOND).await;
        life.hear(1);
        pass(&mut watch, HEAD - SECOND).await;
        near(due(&mut watch).await, Due::Head, SECOND);
        let (_, running) = life.begin();
        pass(&mut watch, SECOND).await;
        drop(running);
        near(due(&mut watch).await, Due::Idle, IDLE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_began_behind_a_request_has_its_time_once_that_is_answered() {
        let (life, mut watch) = watch(false);
        let (_, running) = life.begin();
        life.hear(10);
        life.await_rest(true);
        pass(&mut watch, IDLE).await;
        drop(running);
        near(due(&mut watch).await, Due::Head, HEAD);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_follow_each_other_never_come_to_a_limit() {
        let (life, mut watch) = watch(false);
        for number in 1..1000 {
            life.hear(1);
            let (seen, mut running) = life.begin();
            assert_eq!(seen, number);
            running.answer();
            drop(running);
            pass(&mut watch, IDLE - SECOND).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pings_keep_no_connection_and_an_answer_on_its_way_does() {
        let (life, mut watch) = watch(true);
        near(due(&mut watch).await, Due::Head, HEAD);
        drop(life.begin());
        let mut pings = 0;
        let idle = loop {
            life.hear(17 * 1000);
            pass(&mut watch, Duration::ZERO).await;
            life.write(17 * 1000);
            pings += 1;
            let due = timeout(SECOND, poll_fn(|cx| watch.poll_due(cx))).await;
            if let Ok(due) = due {
                break due;
            }
        };
        assert_eq!(idle, Due::Idle);
        assert!((75..77).contains(&pings), "{pings}");
        drop(life.begin());
        for _ in 0..1000 {
            life.write(100_000);
            pass(&mut watch, SECOND * 60).await;
        }
        near(due(&mut watch).await, Due::Idle, IDLE - SECOND * 60);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_given_up_and_who_takes_again_is_not() {
        let (life, mut watch) = watch(false);
        let (_, _running) = life.begin();
        pass(&mut watch, IDLE).await;
        life.stall(Some(Instant::now() + SECOND * 20));
        pass(&mut watch, SECOND * 19).await;
        life.stall(None);
        pass(&mut watch, IDLE).await;
        life.stall(Some(Instant::now() + SECOND * 20));
        near(due(&mut watch).await, Due::Stalled, SECOND * 20);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_was_asked_to_end_has_a_moment_when_all_is_answered() {
        let (life, mut watch) = watch(true);
        let (_, running) = life.begin();
        watch.end();
        pass(&mut watch, IDLE).await;
        drop(running);
        near(due(&mut watch).await, Due::Parted, FAREWELL);
        life.part(Instant::now() + SECOND);
        near(due(&mut watch).await, Due::Parted, SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn when_larder_stops_who_asks_for_nothing_more_is_idle_sooner() {
        let (life, mut watch) = watch(false);
        let (_, running) = life.begin();
        pass(&mut watch, SECOND).await;
        watch.leave(SECOND * 5);
        pass(&mut watch, IDLE).await;
        drop(running);
        for _ in 0..3 {
            pass(&mut watch, SECOND * 4).await;
            drop(life.begin());
        }
        near(due(&mut watch).await, Due::Idle, SECOND * 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_asked_to_end_once_after_its_last_request() {
        let (life, watch) = watch(true);
        let mut watch = watch.at_most(2);
        drop(life.begin());
        pass(&mut watch, SECOND).await;
        let (_, _running) = life.begin();
        near(due(&mut watch).await, Due::Requests, Duration::ZERO);
        watch.end();
        pass(&mut watch, IDLE).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_most_requests_back_is_given_up() {
        let (life, mut watch) = watch(true);
        let answered = |life: &Arc<Life>| life.begin().1.answer();
        for _ in 0..TAKEN_BACK {
            drop(life.begin());
        }
        pass(&mut watch, SECOND).await;
        (0..=TAKEN_BACK).for_each(|_| answered(&life));
        drop(life.begin());
        pass(&mut watch, SECOND).await;
        drop(life.begin());
        advance(SECOND).await;
        assert_eq!(due(&mut watch).await.0, Due::Flooded);
    }
}
