//! A second server for a request whose first one does not begin its answer (a *hedge*).
//!
//! Knows what the two attempts share, which of their answers is taken, and how many hedges an upstream may send.
//!
//! Why they are bounded: a server that is slow because it has too much to do must not be sent more for it. Each
//! request earns a tenth of a hedge, [`BURST`] may be saved up, so honest slowness costs a tenth of load at most. A
//! server that hangs would starve of that, all its requests at once; but the first few hedges win, each a strike
//! against a server that has said nothing meanwhile, and with the third it is known to be silent: who waits for it then needs
//! none, since nothing that it does is done twice. Those that could not have one wait for that moment.
//! Of a server it knows whether it was silent. Must not know: how an attempt is made, connections, the wire.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::balance::Standing;
use super::body::Sent;
use super::forward::{ForwardTimes, Spare};
use super::pool::Pool;

/// Of a hedge, what each request earns: one in so many.
const EACH: u32 = 10;
/// Hedges that may be saved up: a few more than it takes to find out that a server is silent.
const BURST: u32 = 10;
/// How long who may not send one yet waits before looking again: the other server may have been at its limit.
const AGAIN: Duration = Duration::from_millis(100);

/// Which of an exchange's two attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    First,
    Hedge,
}

/// What the attempts of one exchange share.
pub(super) struct Race<'a> {
    /// The request once more, where it may be sent twice.
    pub(super) spare: Option<Spare<'a>>,
    /// Answers that all servers of the upstream had begun when it began.
    pub(super) begun: u64,
    /// When it began.
    pub(super) since: Instant,
    /// The server asked last.
    pub(super) asked: AtomicUsize,
    /// The first attempt waits for an answer, and whoever drives its connection ends that in time.
    cut_when_due: AtomicBool,
    /// Servers of the upstream.
    servers: usize,
    state: Mutex<State>,
}

struct State {
    /// What servers have come to, those that have come to something: mostly none.
    servers: Vec<(usize, Standing)>,
    /// Times that it may yet be sent again, both attempts together.
    retries: usize,
    /// A hedge has begun.
    hedged: bool,
    first: Try,
    hedge: Try,
    /// How far the first attempt has come.
    sent: Option<Arc<Sent>>,
    /// It tries whether a server that was silent answers again.
    trial: Option<Trial>,
}

impl State {
    fn of(&mut self, role: Role) -> &mut Try {
        match role {
            Role::First => &mut self.first,
            Role::Hedge => &mut self.hedge,
        }
    }
}

/// Where an attempt is.
#[derive(Clone, Copy, Default)]
struct Try {
    at: Option<usize>,
    /// It is that server's turn: it has been given a connection or the right to one.
    given: bool,
    /// Where its time went, once it has an answer.
    times: ForwardTimes,
}

impl<'a> Race<'a> {
    /// In a box: the future of every request holds one.
    pub(super) fn new(servers: usize, begun: u64, spare: Option<Spare<'a>>) -> Box<Self> {
        let state = State {
            servers: Vec::new(),
            // Once for a kept connection that was closed just then, and once for a server that breaks off: a request
            // that ends whoever works on it is not given to all of them.
            retries: servers.min(2),
            hedged: false,
            first: Try::default(),
            hedge: Try::default(),
            sent: None,
            trial: None,
        };
        let (since, asked) = (Instant::now(), AtomicUsize::new(0));
        let (cut_when_due, state) = (AtomicBool::new(false), Mutex::new(state));
        Box::new(Self { spare, begun, since, asked, cut_when_due, servers, state })
    }

    /// Whether it may be given to another server than the first.
    pub(super) fn may_move(&self) -> bool {
        self.spare.as_ref().is_some_and(|spare| spare.may_move)
    }

    /// Whether the first attempt has nothing to fear but what ends it by itself.
    pub(super) fn is_cut_when_due(&self) -> bool {
        self.cut_when_due.load(Ordering::Relaxed)
    }

    /// An attempt begins or ends to wait for an answer on a connection that is cut at the deadline.
    pub(super) fn cut_when_due(&self, role: Role, is: bool) {
        if role == Role::First {
            self.cut_when_due.store(is, Ordering::Relaxed);
        }
    }

    /// Whether a server must not be asked again.
    pub(super) fn has_failed(&self, index: usize) -> bool {
        self.state.lock().servers.contains(&(index, Standing::Failed))
    }

    /// What each server has come to, as seen by one attempt: never where the other is.
    pub(super) fn standings(&self, role: Role) -> Vec<Standing> {
        let state = self.state.lock();
        let mut servers = vec![Standing::Untried; self.servers];
        for (index, standing) in &state.servers {
            if let Some(server) = servers.get_mut(*index) {
                *server = *standing;
            }
        }
        let other = match role {
            Role::First => state.hedge,
            Role::Hedge => state.first,
        };
        if let Some(server) = other.at.and_then(|at| servers.get_mut(at)) {
            *server = Standing::Failed;
        }
        servers
    }

    /// An attempt has chosen a server, and stands in its line.
    pub(super) fn chosen(&self, role: Role, index: usize) {
        self.asked.store(index, Ordering::Relaxed);
        *self.state.lock().of(role) = Try { at: Some(index), ..Try::default() };
    }

    /// It is that server's turn now.
    pub(super) fn given(&self, role: Role) {
        self.state.lock().of(role).given = true;
    }

    /// It is a trial.
    pub(super) fn tries(&self, trial: Trial) {
        self.state.lock().trial = Some(trial);
    }

    /// The server was waited for in vain, and a trial has told that.
    pub(super) fn in_vain(&self) {
        if let Some(trial) = self.state.lock().trial.take() {
            trial.in_vain();
        }
    }

    /// An attempt is at no server any more.
    pub(super) fn left(&self, role: Role) {
        self.state.lock().of(role).at = None;
    }

    /// An attempt has an answer, for which its time went so.
    pub(super) fn answered(&self, role: Role, times: ForwardTimes) {
        self.state.lock().of(role).times = times;
    }

    /// Where the time of an attempt that has an answer went.
    pub(super) fn times(&self, role: Role) -> ForwardTimes {
        self.state.lock().of(role).times
    }

    /// The server whose turn it is for the first attempt.
    pub(super) fn first_at(&self) -> Option<usize> {
        let first = self.state.lock().first;
        first.at.filter(|_| first.given)
    }

    pub(super) fn note(&self, index: usize, standing: Standing) {
        let mut state = self.state.lock();
        match state.servers.iter_mut().find(|(noted, _)| *noted == index) {
            Some((_, noted)) => *noted = standing,
            None => state.servers.push((index, standing)),
        }
    }

    /// Takes one of the times that it may be sent again.
    pub(super) fn retry(&self) -> bool {
        let mut state = self.state.lock();
        let left = state.retries.checked_sub(1);
        state.retries = left.unwrap_or(0);
        left.is_some()
    }

    /// The request is about to be sent. With a hedge under way no interim response of either is passed on, since nobody
    /// knows which of them will answer; they are advisory (RFC 9110 §15.2).
    pub(super) fn sending(&self, role: Role, sent: &Arc<Sent>) {
        let mut state = self.state.lock();
        if state.hedged {
            sent.mute();
        }
        if role == Role::First {
            state.sent = Some(Arc::clone(sent));
        }
    }

    /// A hedge begins, unless the first server has said meanwhile that it is at work on the request.
    pub(super) fn hedge(&self) -> bool {
        let mut state = self.state.lock();
        let at_work = state.sent.as_ref().is_some_and(|sent| sent.mute());
        state.hedged = !at_work;
        state.hedged
    }
}

/// A request that finds out whether a server that was silent answers again. One that ends before it has waited as long
/// as that takes, since its client has gone or for whatever else, has found out nothing: the next is a trial again.
pub(super) struct Trial(Option<Arc<Pool>>);

impl Trial {
    /// Of the server of this pool, which knows that it is asked.
    pub(super) fn of(pool: &Arc<Pool>) -> Self {
        Self(Some(Arc::clone(pool)))
    }

    fn in_vain(mut self) {
        self.0 = None;
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Some(pool) = self.0.take() {
            pool.health.not_tried();
        }
    }
}

/// How many hedges an upstream may send.
pub(super) struct Hedging {
    /// In parts of a hedge, of which each takes [`EACH`].
    saved: AtomicU32,
    /// Something has changed for those that would send one.
    told: Notify,
}

impl Hedging {
    /// With the burst saved up: the first thing that an upstream meets may be a server that hangs.
    pub(super) fn new() -> Self {
        Self { saved: AtomicU32::new(EACH * BURST), told: Notify::new() }
    }

    /// A request has come.
    pub(super) fn earn(&self) {
        // Most of the time all is saved up, and nothing is written.
        let add = |saved: u32| (saved < EACH * BURST).then(|| saved + 1);
        if let Ok(before) = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            && (before + 1).is_multiple_of(EACH)
        {
            self.told.notify_one();
        }
    }

    /// Takes one.
    pub(super) fn take(&self) -> bool {
        let part = |saved: u32| saved.checked_sub(EACH);
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, part).is_ok()
    }

    /// A server is known to be silent: all who wait for it may go elsewhere.
    pub(super) fn tell_all(&self) {
        self.told.notify_waiters();
    }

    /// Waits until `ask` gives something; it is asked again whenever something has changed.
    pub(super) async fn until<T>(&self, mut ask: impl FnMut() -> Option<T>) -> T {
        loop {
            let mut told = pin!(self.told.notified());
            // Before it is asked, so that nothing is missed in between.
            told.as_mut().enable();
            if let Some(given) = ask() {
                return given;
            }
            // A server that has room again tells nobody.
            let _told_or_not = timeout(AGAIN, told).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_requests_and_a_burst_may_be_hedged() {
        let hedging = Hedging::new();
        let taken =
            |hedging: &Hedging| std::iter::repeat_with(|| hedging.take()).take_while(|it| *it).count();
        assert_eq!(taken(&hedging), 10);
        for (requests, hedges) in [(9, 0), (1, 1), (10, 1), (55, 5), (5, 1), (10_000, 10)] {
            (0..requests).for_each(|_| hedging.earn());
            assert_eq!(taken(&hedging), hedges, "after {requests} more");
        }
    }

    #[test]
    fn neither_attempt_is_sent_to_where_the_other_is() {
        let race = Race::new(3, 0, None);
        race.chosen(Role::First, 1);
        race.chosen(Role::Hedge, 2);
        let (free, taken) = (Standing::Untried, Standing::Failed);
        assert_eq!(race.standings(Role::Hedge), [free, taken, free]);
        assert_eq!(race.standings(Role::First), [free, free, taken]);
        assert_eq!(race.first_at(), None, "it stands in line there, which says nothing of the server");
        race.given(Role::First);
        assert_eq!(race.first_at(), Some(1));
        race.left(Role::Hedge);
        assert_eq!(race.standings(Role::First), [free, free, free]);
    }

    #[test]
    fn both_attempts_share_what_may_be_sent_again() {
        let race = Race::new(5, 0, None);
        assert_eq!([race.retry(), race.retry(), race.retry()], [true, true, false]);
    }

    #[tokio::test]
    async fn who_may_not_yet_is_asked_again_when_something_changes() {
        let (hedging, asked) = (Arc::new(Hedging::new()), Arc::new(AtomicU32::new(0)));
        let waiting = |enough: u32| {
            let (hedging, asked) = (Arc::clone(&hedging), Arc::clone(&asked));
            tokio::spawn(async move {
                hedging.until(|| (asked.fetch_add(1, Ordering::Relaxed) + 1 >= enough).then_some(())).await;
            })
        };
        let one = waiting(2);
        while asked.load(Ordering::Relaxed) < 1 {
            tokio::task::yield_now().await;
        }
        assert!(!one.is_finished());
        hedging.tell_all();
        one.await.unwrap();
    }
}
