//! The connections to one server: who holds them, who waits for one, which are kept.
//!
//! Shared by all workers behind one lock, which is never held over an await, a send, or the drop
//! of a connection. A slot is the right to one socket: it is taken before connecting and given
//! back by the drop of the socket itself, so nothing can leak it.
//! Must not know: requests, retries, other servers.
//!
//! What always holds while the lock is free: somebody waits only when all slots are taken, and a
//! slot or connection that becomes free goes to whoever has waited longest.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::clock::{Clock, Mono};
use crate::config;
use crate::telemetry::UpstreamGauges;
use crate::wire::Flaw;

use super::balance::{Candidate, Standing};
use super::connection::{self, Conn};
use super::error::{ForwardError, Place, words};
use super::health::Health;

/// How long a server that could not be connected to is passed over when others are available.
const ASIDE: Duration = Duration::from_secs(1);
/// Kept connections with large buffers, at most, once they have been unused for a moment: what a burst of large bodies
/// leaves behind is to be given back.
const HEAVY: usize = 8;
/// The moment.
const HEAVY_FOR: Duration = Duration::from_secs(2);

/// The connections to one server.
pub(super) struct Pool {
    place: Place,
    server: config::Server,
    limits: config::Pool,
    connect: Duration,
    total: Duration,
    clock: Clock,
    /// Whether the server answers.
    pub(super) health: Health,
    state: Mutex<State>,
    /// Shared with the pools of former configurations for the same server.
    counts: Arc<Counts>,
}

#[derive(Default)]
struct State {
    /// Sockets open or being opened.
    slots: usize,
    /// The one given back last is at the end.
    idle: Vec<Idle>,
    /// The one to be served next is in front.
    waiters: VecDeque<Waiter>,
    /// The last number given to a slot or waiter.
    last_id: u64,
    /// When connecting failed, unless it has worked since.
    failed: Option<Mono>,
    /// Nothing is kept any more: the configuration has no such upstream now.
    retired: bool,
}

struct Idle {
    conn: Box<Conn>,
    since: Mono,
}

struct Waiter {
    id: u64,
    want: Want,
    hand: oneshot::Sender<Handed>,
}

/// What is counted of a server.
#[derive(Default)]
pub(super) struct Counts {
    connects: AtomicU64,
    connect_errors: AtomicU64,
    reused: AtomicU64,
    retries: AtomicU64,
    hedges: AtomicU64,
    hedges_won: AtomicU64,
    /// In the order of [`Flaw::ALL`].
    flaws: [AtomicU64; Flaw::ALL.len()],
    /// The answer to a HEAD has brought content.
    fills_heads: AtomicBool,
}

impl Counts {
    /// Each flaw, and how often there was one.
    fn flaws(&self) -> Vec<(&'static str, u64)> {
        let counts = self.flaws.iter().map(|count| count.load(Ordering::Relaxed));
        Flaw::ALL.iter().map(|flaw| flaw.as_str()).zip(counts).collect()
    }
}

/// What a request asks the pool for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// A kept connection if there is one.
    Any,
    /// A connection that nobody has used: for a second attempt.
    Fresh,
}

/// What a request gets.
pub(super) enum Grant {
    /// A kept connection.
    /// In a box, as all that has it: it is moved from hand to hand, and made once for many requests.
    Kept(Box<Conn>),
    /// The right to open one.
    Open(Slot),
}

/// The right to one socket. Dropping it gives it to whoever has waited longest.
pub(super) struct Slot {
    pub(super) id: u64,
    pub(super) pool: Weak<Pool>,
    /// Set when the slot is given back, under the pool's lock.
    pub(super) gone: Arc<AtomicBool>,
}

impl Pool {
    /// `counts` are those of a pool that this one stands in place of.
    pub(super) fn new(
        upstream: &config::Upstream,
        server: &config::Server,
        clock: Clock,
        counts: Option<Arc<Counts>>,
    ) -> Arc<Self> {
        let host = match server.host.contains(':') {
            true => format!("[{}]:{}", server.host, server.port),
            false => format!("{}:{}", server.host, server.port),
        };
        Arc::new(Self {
            place: Place { upstream: upstream.name.as_str().into(), server: host.into() },
            server: server.clone(),
            limits: upstream.pool,
            connect: upstream.timeout.connect,
            total: upstream.timeout.total,
            clock,
            health: Health::default(),
            state: Mutex::default(),
            counts: counts.unwrap_or_default(),
        })
    }

    /// Whether it is for this server.
    pub(super) fn is_of(&self, server: &config::Server) -> bool {
        self.server == *server
    }

    /// What is counted of its server, to count on.
    pub(super) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Closes what is kept, and keeps nothing from now on.
    pub(super) fn retire(&self) {
        let mut state = self.state.lock();
        state.retired = true;
        let kept = std::mem::take(&mut state.idle);
        drop(state);
        drop(kept);
    }

    /// Whether nothing is kept any more.
    pub(super) fn is_retired(&self) -> bool {
        self.state.lock().retired
    }

    /// The server's name for errors.
    pub(super) fn place(&self) -> Place {
        self.place.clone()
    }

    /// Notes that a request is sent a second time.
    pub(super) fn count_retry(&self) {
        self.counts.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that the server is sent a hedge.
    pub(super) fn count_hedge(&self) {
        self.counts.hedges.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a hedge brought the answer.
    pub(super) fn count_hedge_won(&self) {
        self.counts.hedges_won.fetch_add(1, Ordering::Relaxed);
    }

    /// It broke off just after it had been connected to: passed over for a moment.
    pub(super) fn set_aside(&self) {
        self.state.lock().failed = Some(self.clock.mono());
    }

    /// Notes what was wrong with what the server sent.
    pub(super) fn count_flaw(&self, flaw: Flaw) {
        if let Some(count) = self.counts.flaws.get(flaw as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that the server has answered a HEAD with content.
    pub(super) fn note_filled_head(&self) {
        self.counts.fills_heads.store(true, Ordering::Relaxed);
    }

    /// Whether it ever has: then more may be on its way when the head of such an answer has come.
    pub(super) fn fills_heads(&self) -> bool {
        self.counts.fills_heads.load(Ordering::Relaxed)
    }

    /// What the choice among servers looks at; `alone`: if this one says nothing, nobody answers the request.
    pub(super) fn candidate(&self, standing: Standing, alone: bool, now: Mono) -> Candidate {
        let silent = self.health.is_aside(now, alone);
        let state = self.state.lock();
        Candidate { load: state.load(), aside: silent || state.is_aside(now), standing }
    }

    /// Whether a hedge would be welcome: it answers as far as is known, and there is a connection that nobody waits for.
    pub(super) fn is_free(&self) -> bool {
        let state = self.state.lock();
        !self.health.is_silent() && state.load() < self.limits.max_connections
    }

    /// Whether one more request would have more than a quarter of all connections in use or waited for.
    pub(super) fn is_in_demand(&self) -> bool {
        let load = self.state.lock().load();
        load.saturating_add(1).saturating_mul(4) > self.limits.max_connections
    }

    /// A kept connection, or the right to open one, and the moment at which it was there: `now`, or a later one. Waits in
    /// line when all are in use.
    ///
    /// If this future is dropped, its place in the line goes with it, and what it was being handed
    /// goes to the next in line.
    ///
    /// # Errors
    /// `QueueFull` at once, `QueueTimeout` after `queue_timeout`.
    pub(super) async fn checkout(
        self: &Arc<Self>,
        worker: usize,
        want: Want,
        now: Mono,
    ) -> Result<(Grant, Mono), ForwardError> {
        let (grant, given) = match self.take(worker, want, now) {
            Taken::Now(grant) => (grant, now),
            Taken::Full => return Err(ForwardError::QueueFull { at: self.place() }),
            Taken::Line(mut ticket) => {
                let limit = self.limits.queue_timeout;
                let grant = ticket.wait(limit).await;
                let grant = grant.ok_or_else(|| ForwardError::QueueTimeout { at: self.place(), limit })?;
                (grant, self.clock.mono())
            }
        };
        Ok((self.noted(grant), given))
    }

    /// The same for who does not wait.
    ///
    /// # Errors
    /// `QueueFull` where there is nothing at once.
    pub(super) fn checkout_now(
        self: &Arc<Self>,
        worker: usize,
        want: Want,
        now: Mono,
    ) -> Result<Grant, ForwardError> {
        match self.take(worker, want, now) {
            Taken::Now(grant) => Ok(self.noted(grant)),
            Taken::Full | Taken::Line(_) => Err(ForwardError::QueueFull { at: self.place() }),
        }
    }

    fn noted(&self, grant: Grant) -> Grant {
        if let Grant::Kept(_) = &grant {
            self.counts.reused.fetch_add(1, Ordering::Relaxed);
        }
        grant
    }

    /// Opens a connection with the right to one, within `timeout.connect`.
    ///
    /// # Errors
    /// `Connect` and `ConnectTimeout`; the server is then set aside for a moment.
    pub(super) async fn open(&self, slot: Slot, worker: usize) -> Result<Box<Conn>, ForwardError> {
        // If this future is dropped at an await, so is the slot.
        let error = match connection::connect(&self.server.host, self.server.port, self.connect).await {
            Ok(stream) => {
                self.counts.connects.fetch_add(1, Ordering::Relaxed);
                self.state.lock().failed = None;
                let conn = Conn::start(stream, slot, worker, self.clock.mono(), self.total);
                return Ok(Box::new(conn));
            }
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                ForwardError::ConnectTimeout { at: self.place(), limit: self.connect }
            }
            Err(error) => ForwardError::Connect { at: self.place(), cause: words(&error) },
        };
        self.counts.connect_errors.fetch_add(1, Ordering::Relaxed);
        self.state.lock().failed = Some(self.clock.mono());
        Err(error)
    }

    /// Takes a connection that is ready for a request: for the next in line, else to be kept, else
    /// to be closed. `now`, where somebody knows.
    pub(super) fn put(self: &Arc<Self>, mut conn: Box<Conn>, now: Option<Mono>) {
        conn.kept = true;
        let now = now.unwrap_or_else(|| self.clock.mono());
        let mut state = self.state.lock();
        // Returning drops the guard before `conn`: a connection is never closed under the lock.
        if conn.is_closed() || conn.is_too_old(now, &self.limits) {
            return;
        }
        match state.waiters.front().map(|waiter| waiter.want) {
            None if state.keeps(&self.limits) => state.idle.push(Idle { conn, since: now }),
            // Closing it gives its slot to the one in front, who wants nothing else.
            None | Some(Want::Fresh) => {}
            Some(Want::Any) => {
                let waiter = state.waiters.pop_front();
                drop(state);
                self.hand(waiter, Grant::Kept(conn));
            }
        }
    }

    /// Closes kept connections that have waited too long, are too old, or are closed already, and those that hold much
    /// memory and are not used.
    pub(super) fn reap(&self) {
        let now = self.clock.mono();
        let mut state = self.state.lock();
        let mut worn: Vec<Idle> = state.idle.extract_if(.., |idle| idle.is_worn(now, &self.limits)).collect();
        worn.extend(state.take_heavy(now));
        drop(state);
        drop(worn);
    }

    /// Opens what is missing to `min_idle` of this worker's share.
    pub(super) async fn warm(self: &Arc<Self>, worker: usize, workers: usize) {
        let share = share(self.limits.min_idle.min(self.limits.max_idle), worker, workers);
        for _ in 0..share {
            let Some(slot) = self.slot_to_warm(worker, share) else { return };
            match self.open(slot, worker).await {
                Ok(conn) => self.put(conn, None),
                Err(_) => return,
            }
        }
    }

    /// What is open now, and the counts since the start.
    pub(super) fn gauges(&self) -> UpstreamGauges {
        let state = self.state.lock();
        UpstreamGauges {
            upstream: self.place.upstream.to_string(),
            server: self.place.server.to_string(),
            open: state.slots as u64,
            idle: state.idle.len() as u64,
            waiting: state.waiters.len() as u64,
            connects: self.counts.connects.load(Ordering::Relaxed),
            connect_errors: self.counts.connect_errors.load(Ordering::Relaxed),
            reused: self.counts.reused.load(Ordering::Relaxed),
            retries: self.counts.retries.load(Ordering::Relaxed),
            hedges: self.counts.hedges.load(Ordering::Relaxed),
            hedges_won: self.counts.hedges_won.load(Ordering::Relaxed),
            flaws: self.counts.flaws(),
        }
    }

    /// Ends the tasks that drive the kept connections, as soon as they run again.
    #[cfg(test)]
    pub(super) fn stop_kept(&self) {
        self.state.lock().idle.iter().for_each(|idle| idle.conn.stop());
    }

    fn take(self: &Arc<Self>, worker: usize, want: Want, now: Mono) -> Taken {
        // Declared before the guard, so dropped after it.
        let mut worn = Vec::new();
        let mut state = self.state.lock();
        if want == Want::Any
            && let Some(conn) = state.take_idle(worker, now, &self.limits, &mut worn)
        {
            return Taken::Now(Grant::Kept(conn));
        }
        if state.slots < self.limits.max_connections.max(1) {
            state.slots += 1;
            return Taken::Now(Grant::Open(self.slot(&mut state)));
        }
        if want == Want::Fresh && !state.idle.is_empty() {
            worn.push(state.idle.remove(0));
        }
        // The slots of `worn` are on their way, to as many more as may otherwise wait. A second
        // attempt has had its turn in line: it goes to the front, and is never refused.
        if want == Want::Any && state.waiters.len() >= self.limits.queue.saturating_add(worn.len()) {
            return Taken::Full;
        }
        Taken::Line(self.line_up(&mut state, want))
    }

    fn line_up(self: &Arc<Self>, state: &mut State, want: Want) -> Ticket {
        let (hand, handed) = oneshot::channel();
        let id = state.next_id();
        let waiter = Waiter { id, want, hand };
        match want {
            Want::Any => state.waiters.push_back(waiter),
            Want::Fresh => state.waiters.push_front(waiter),
        }
        Ticket { pool: Arc::clone(self), id, handed }
    }

    fn slot_to_warm(self: &Arc<Self>, worker: usize, share: usize) -> Option<Slot> {
        let now = self.clock.mono();
        let mut state = self.state.lock();
        let own = state.idle.iter().filter(|idle| idle.conn.worker == worker).count();
        let missing = own < share && state.idle.len() < self.limits.min_idle;
        if !missing || state.retired || state.slots >= self.limits.max_connections || state.is_aside(now) {
            return None;
        }
        state.slots += 1;
        Some(self.slot(&mut state))
    }

    fn slot(self: &Arc<Self>, state: &mut State) -> Slot {
        Slot { id: state.next_id(), pool: Arc::downgrade(self), gone: Arc::default() }
    }

    /// Gives a free slot to the next in line, and forgets the connection that had it.
    fn release(self: &Arc<Self>, id: u64, gone: &AtomicBool) {
        let mut state = self.state.lock();
        gone.store(true, Ordering::Release);
        let closed = state.idle.iter().position(|idle| idle.conn.id == id).map(|at| state.idle.remove(at));
        let waiter = state.waiters.pop_front();
        let slot = match &waiter {
            Some(_) => Some(self.slot(&mut state)),
            None => {
                state.slots = state.slots.saturating_sub(1);
                None
            }
        };
        drop(state);
        drop(closed);
        if let Some(slot) = slot {
            self.hand(waiter, Grant::Open(slot));
        }
    }

    /// Hands `grant` over. If the waiter is gone, dropping the [`Handed`] offers it to the next.
    fn hand(self: &Arc<Self>, waiter: Option<Waiter>, grant: Grant) {
        let handed = Handed { pool: Arc::clone(self), grant: Some(grant) };
        if let Some(waiter) = waiter {
            drop(waiter.hand.send(handed));
        }
    }

    fn leave_line(&self, id: u64) {
        let mut state = self.state.lock();
        let waiter =
            state.waiters.iter().position(|waiter| waiter.id == id).and_then(|at| state.waiters.remove(at));
        drop(state);
        drop(waiter);
    }
}

impl State {
    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Connections in use and requests that wait for one.
    fn load(&self) -> usize {
        self.slots.saturating_sub(self.idle.len()) + self.waiters.len()
    }

    /// Whether one more connection is worth keeping.
    fn keeps(&self, limits: &config::Pool) -> bool {
        !self.retired && self.idle.len() < limits.max_idle
    }

    fn is_aside(&self, now: Mono) -> bool {
        self.failed.is_some_and(|failed| now.since(failed) < ASIDE)
    }

    /// The kept connections with large buffers beyond [`HEAVY`], those first that have been unused longest.
    fn take_heavy(&mut self, now: Mono) -> impl Iterator<Item = Idle> {
        let heavy = self.idle.iter().filter(|idle| idle.conn.is_heavy).count();
        let mut beyond = heavy.saturating_sub(HEAVY);
        self.idle.extract_if(.., move |idle| {
            let goes = beyond > 0 && idle.conn.is_heavy && now.since(idle.since) >= HEAVY_FOR;
            beyond -= usize::from(goes);
            goes
        })
    }

    /// The kept connection used last among those that `worker` opened, else among all: its task
    /// then runs on the same thread, and the ones used least grow old and go. Those that are worn are put aside, as far as
    /// they are met: to look at all of them costs a request more than all else here, and [`Pool::reap`] does.
    fn take_idle(
        &mut self,
        worker: usize,
        now: Mono,
        limits: &config::Pool,
        worn: &mut Vec<Idle>,
    ) -> Option<Box<Conn>> {
        loop {
            let own = self.idle.iter().rposition(|idle| idle.conn.worker == worker);
            let at = own.or(self.idle.len().checked_sub(1))?;
            let idle = self.idle.remove(at);
            if !idle.is_worn(now, limits) {
                return Some(idle.conn);
            }
            worn.push(idle);
        }
    }
}

impl Idle {
    fn is_worn(&self, now: Mono, limits: &config::Pool) -> bool {
        now.since(self.since) >= limits.idle_timeout
            || self.conn.is_too_old(now, limits)
            || self.conn.is_closed()
    }
}

impl Conn {
    fn is_too_old(&self, now: Mono, limits: &config::Pool) -> bool {
        now.since(self.opened) >= limits.max_age
    }
}

impl Slot {
    /// Notes what was wrong with what came on its socket; `of_head`: in answer to a HEAD.
    pub(super) fn count(&self, flaw: Flaw, of_head: bool) {
        if let Some(pool) = self.pool.upgrade() {
            pool.count_flaw(flaw);
            if flaw == Flaw::Unasked && of_head {
                pool.note_filled_head();
            }
        }
    }

    /// Whether more may follow the head that answers a HEAD, since its server has sent more before.
    pub(super) fn fills_heads(&self) -> bool {
        self.pool.upgrade().is_some_and(|pool| pool.fills_heads())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.release(self.id, &self.gone);
        }
    }
}

enum Taken {
    Now(Grant),
    Line(Ticket),
    Full,
}

/// A place in the line. Dropping it gives the place up, and what was handed to it meanwhile.
struct Ticket {
    pool: Arc<Pool>,
    id: u64,
    handed: oneshot::Receiver<Handed>,
}

impl Ticket {
    /// `None` when the time is over.
    async fn wait(&mut self, limit: Duration) -> Option<Grant> {
        match tokio::time::timeout(limit, &mut self.handed).await {
            Ok(Ok(mut handed)) => handed.grant.take(),
            Ok(Err(_)) | Err(_) => None,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.pool.leave_line(self.id);
    }
}

/// Something on its way to a waiter; if nobody takes it out, it goes to the next.
struct Handed {
    pool: Arc<Pool>,
    grant: Option<Grant>,
}

impl Drop for Handed {
    fn drop(&mut self) {
        match self.grant.take() {
            Some(Grant::Kept(conn)) => self.pool.put(conn, None),
            Some(Grant::Open(slot)) => drop(slot),
            None => {}
        }
    }
}

/// How many of `total` connections worker number `worker` of `workers` keeps warm.
fn share(total: usize, worker: usize, workers: usize) -> usize {
    let workers = workers.max(1);
    total / workers + usize::from(worker < total % workers)
}
