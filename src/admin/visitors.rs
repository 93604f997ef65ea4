//! Who is connected to the admin listener, and who leaves for whom.
//!
//! Knows how many may be, and since when each has been silent or asking. Whoever watches over Larder asks whether it
//! lives, and must be answered whoever else is connected: so a newcomer is always let in.
//! Must not know: sockets, or what is asked.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::dashboard::Seat;

/// Open connections.
pub(super) const MOST: usize = 64;

/// Those who are connected.
#[derive(Default)]
pub(super) struct Visitors(Mutex<Open>);

#[derive(Default)]
struct Open {
    last: u64,
    visitors: Vec<Visitor>,
}

struct Visitor {
    number: u64,
    /// A request of its is being answered.
    asking: bool,
    /// That has been so, or has not, since.
    since: Instant,
    /// Its task; none before it has begun.
    task: Option<AbortHandle>,
}

/// One visit, until it is dropped.
pub(super) struct Visit {
    visitors: Arc<Visitors>,
    number: u64,
    /// What lasts on it ends by then.
    until: Instant,
    /// Its place among those who look on, where it does.
    seat: Mutex<Option<Seat>>,
}

impl Visitors {
    /// Lets one more in. Where all places are taken, whoever has been silent for longest leaves, and only where all are
    /// asking whoever has been for longest: their answers are made at once, but for those that wait for a body.
    pub(super) fn enter(self: &Arc<Self>) -> Visit {
        let mut open = self.0.lock();
        let leaves = match open.visitors.len() >= MOST {
            true => open.visitors.iter().min_by_key(|visitor| (visitor.asking, visitor.since)),
            false => None,
        };
        let leaves = leaves.map(|visitor| visitor.number);
        let at = open.visitors.iter().position(|visitor| Some(visitor.number) == leaves);
        if let Some(task) = at.and_then(|at| open.visitors.swap_remove(at).task) {
            task.abort();
        }
        open.last += 1;
        let number = open.last;
        open.visitors.push(Visitor { number, asking: false, since: Instant::now(), task: None });
        Visit { visitors: Arc::clone(self), number, until: Instant::now(), seat: Mutex::default() }
    }

    /// Says which task to end if it is to leave.
    pub(super) fn note(&self, number: u64, task: AbortHandle) {
        self.change(number, |visitor| visitor.task = Some(task));
    }

    /// Ends a visit.
    pub(super) fn end(&self, number: u64) {
        self.change(number, |visitor| visitor.task.iter().for_each(AbortHandle::abort));
    }

    fn change(&self, number: u64, change: impl FnOnce(&mut Visitor)) {
        if let Some(visitor) = self.0.lock().visitors.iter_mut().find(|visitor| visitor.number == number) {
            change(visitor);
        }
    }
}

impl Visit {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Says when what lasts on it has to end.
    pub(super) fn until(mut self, until: Instant) -> Self {
        self.until = until;
        self
    }

    /// When that is.
    pub(super) fn ends(&self) -> Instant {
        self.until
    }

    /// Looks on from now on, until it ends.
    pub(super) fn looks_on(&self, seat: Seat) {
        *self.seat.lock() = Some(seat);
    }

    /// A request has come, or has been answered.
    pub(super) fn asks(&self, asking: bool) {
        self.visitors
            .change(self.number, |visitor| (visitor.asking, visitor.since) = (asking, Instant::now()));
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.visitors.0.lock().visitors.retain(|visitor| visitor.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_has_been_silent_for_longest_leaves_and_who_asks_only_where_all_do() {
        let visitors = Arc::<Visitors>::default();
        let mut visits = Vec::new();
        let mut tasks = Vec::new();
        for _ in 0..MOST {
            tokio::time::advance(Duration::from_millis(1)).await;
            let visit = visitors.enter();
            let task = tokio::spawn(std::future::pending::<()>());
            visitors.note(visit.number(), task.abort_handle());
            visits.push(visit);
            tasks.push(task);
        }
        // All but two ask; the first of them since the longest time.
        for (nth, visit) in visits.iter().enumerate() {
            tokio::time::advance(Duration::from_millis(1)).await;
            visit.asks(nth != 5 && nth != 9);
        }
        for leaves in [5, 9, 0] {
            tokio::time::advance(Duration::from_millis(1)).await;
            let visit = visitors.enter();
            visit.asks(true);
            visits.push(visit);
            assert!((&mut tasks[leaves]).await.unwrap_err().is_cancelled(), "{leaves}");
        }
        tokio::task::yield_now().await;
        let ended = tasks.iter().filter(|task| task.is_finished()).count();
        assert_eq!((ended, visitors.0.lock().visitors.len()), (3, MOST));
        drop(visits);
        assert!(visitors.0.lock().visitors.is_empty());
    }
}
