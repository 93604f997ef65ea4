//! The moment by which a connection's exchange must be over, and the task that sees to it.
//!
//! Knows that nobody may be asking for the answer any more: a client that reads nothing keeps hyper
//! from polling the response's body, and its connection from everybody else. So the task that drives
//! the connection looks at the time itself, and closes the socket.
//! Must not know: HTTP, the pool, which limit the moment comes from.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// No exchange is under way.
const NEVER: u64 = u64::MAX;
/// The connection was closed by us, whatever was under way.
const CUT: u64 = 0;

/// By when a connection's exchange must be over; set by those who use it, read by its driver.
pub(super) struct Due {
    opened: Instant,
    /// Nanoseconds after `opened`, or one of the two above.
    at: AtomicU64,
    /// When the driver looks next, nanoseconds after `opened`.
    look: AtomicU64,
}

impl Due {
    /// Of a connection opened just now.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { opened: Instant::now(), at: AtomicU64::new(NEVER), look: AtomicU64::new(0) })
    }

    /// An exchange begins. To be called before the driver is woken with its request: it then looks
    /// here, and wakes in time. Gives whether a driver that is not woken by the request has to be woken for that.
    pub(super) fn set(&self, at: Instant) -> bool {
        let at = self.since(at);
        // Fails where the connection was cut meanwhile, and stays so. In one order with `looks`: one of the two sees the
        // other.
        let _ = self.at.compare_exchange(NEVER, at, Ordering::SeqCst, Ordering::Acquire);
        at < self.look.load(Ordering::SeqCst)
    }

    /// An exchange is under way, or the connection was cut.
    pub(super) fn is_set(&self) -> bool {
        self.at.load(Ordering::Acquire) != NEVER
    }

    /// The driver will look at this moment.
    fn looks(&self, at: Instant) {
        self.look.store(self.since(at), Ordering::SeqCst);
    }

    fn since(&self, at: Instant) -> u64 {
        let since = u64::try_from(at.saturating_duration_since(self.opened).as_nanos());
        since.unwrap_or(NEVER).clamp(CUT + 1, NEVER - 1)
    }

    /// The exchange is over. `false` where the connection was cut before that.
    pub(super) fn clear(&self) -> bool {
        let at = self.at.load(Ordering::Acquire);
        at != CUT && self.at.compare_exchange(at, NEVER, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The connection was closed by us: what came on it is not whole, although hyper then ends a
    /// body as if it were.
    pub(super) fn is_cut(&self) -> bool {
        self.at.load(Ordering::Acquire) == CUT
    }

    fn get(&self) -> Option<Instant> {
        match self.at.load(Ordering::SeqCst) {
            NEVER => None,
            since => Some(self.opened + Duration::from_nanos(since)),
        }
    }

    /// Cuts the connection if its time is over, and not if the exchange ends at this very moment.
    fn cut_if_over(&self, now: Instant) -> bool {
        let at = self.at.load(Ordering::Acquire);
        at != NEVER
            && self.opened + Duration::from_nanos(at) <= now
            && self.at.compare_exchange(at, CUT, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Drives a connection until it ends by itself or its exchange is overdue.
///
/// However it is dropped before the end of `connection`, it says so before anything of the
/// connection is dropped.
pub(super) struct Driver<C> {
    connection: C,
    due: Arc<Due>,
    ended: bool,
    /// When to look whether the time is over: never later than [`Due`] says, and rarely earlier, so
    /// that exchanges that follow each other do not each move a timer.
    look: Pin<Box<Sleep>>,
    /// From one look to the next while there is no exchange.
    every: Duration,
}

impl<C: Future + Unpin> Driver<C> {
    /// `usual` is how long an exchange may take; any other is held to its own time as well.
    pub(super) fn new(connection: C, due: Arc<Due>, usual: Duration) -> Self {
        let every = usual.max(Duration::from_secs(1));
        let look = Box::pin(sleep(every));
        due.looks(look.deadline());
        Self { connection, due, ended: false, look, every }
    }

    /// Whether the time is over; if not, this task is woken at the next look.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.look_by_the_end();
        while self.look.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if self.due.cut_if_over(now) {
                return true;
            }
            let next = self.due.get().filter(|due| *due > now).unwrap_or(now + self.every);
            self.reset(next);
            // An exchange that has begun meanwhile has not seen the new moment, and wakes nobody.
            self.look_by_the_end();
        }
        false
    }

    fn look_by_the_end(&mut self) {
        if let Some(due) = self.due.get()
            && due < self.look.deadline()
        {
            self.reset(due);
        }
    }

    fn reset(&mut self, at: Instant) {
        self.look.as_mut().reset(at);
        self.due.looks(at);
    }
}

impl<C: Future + Unpin> Future for Driver<C> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // First, so that an origin that never pauses is held to it too.
        if self.is_over(cx) {
            return Poll::Ready(());
        }
        let ended = Pin::new(&mut self.connection).poll(cx).map(drop);
        self.ended = ended.is_ready();
        ended
    }
}

impl<C> Drop for Driver<C> {
    fn drop(&mut self) {
        if !self.ended {
            self.due.at.store(CUT, Ordering::Release);
        }
    }
}
