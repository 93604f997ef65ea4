//! One fetch for the fleet: who fetches what is cold on several nodes at once, and how the others are told.
//!
//! Knows leases: one is asked for in the very step of a lookup and taken where nothing stands; kept alive while the
//! fetch goes on, and given back once what it brought is in Redis, or as soon as it is known that it will not be.
//! Whoever finds one taken is noted beside it, and told. A lease is advice: whoever cannot have one, or hear of one,
//! fetches, so that Redis in any trouble is one fetch for each node.
//!
//! A holder that dies costs the others the lease's time. One that lives gives back whatever it holds: a [`Lease`] that
//! is dropped is given back, with the word that nothing is stored. Nothing but words passes between nodes: what cannot
//! be stored stays with whoever fetched it.
//! Must not know: freshness, the origin, or what is fetched.

mod election;
mod inbox;
mod script;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::{Cmd, Value};
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};

pub use self::election::{Election, Next, Turn, Woken};
use self::inbox::Inbox;
pub use self::inbox::{Listening, Word};
use self::script::{Asking, Told};
pub(super) use self::script::{Fingerprint, Names};
use super::keys;
use super::link::{AbortOnDrop, Fault, Link};
use super::nodes::{Nodes, ask_each};
use super::reach::{Member, Reach};
use super::servers::Servers;
use crate::clock::{Clock, Mono};
use crate::config;
use crate::fields::digits;
use crate::stored::Seal;
use crate::telemetry::{LeaseGauges, supervise};

/// The longest that one question may take.
const ASK: Duration = Duration::from_secs(1);
/// Leases of a node at once; beyond them it fetches without.
const MOST_HELD: usize = 4_096;
/// Leases that wait to be given back; others end by their time.
const ERRANDS: usize = 4_096;
/// Given back, or prolonged, in one question.
const AT_ONCE: usize = 64;
/// In so many parts of a lease's time it is prolonged once.
const PROLONGED: u32 = 3;

/// This node's leases, and its ears for those of others.
pub struct Leases {
    inner: Arc<Inner>,
    _tasks: [AbortOnDrop<()>; 2],
}

#[derive(Debug)]
struct Inner {
    seal: Seal,
    clock: Clock,
    node: String,
    time: Duration,
    link: Nodes,
    inbox: Arc<Inbox>,
    /// By token.
    held: Mutex<HashMap<u64, Held>>,
    errands: mpsc::Sender<Errand>,
    /// Errands that are not done.
    undone: AtomicU64,
    done: Notify,
    counters: Counters,
}

#[derive(Debug)]
struct Held {
    names: Arc<Names>,
    since: Mono,
    /// When the head of what is fetched had come.
    head: Option<Mono>,
}

/// A lease to be given back.
#[derive(Debug)]
struct Errand {
    token: u64,
    names: Arc<Names>,
    word: Word,
    /// How long refreshes are to rest.
    rest: Duration,
}

#[derive(Debug, Default)]
struct Counters {
    taken: AtomicU64,
    waited: AtomicU64,
    stored: AtomicU64,
    not_stored: AtomicU64,
    expired: AtomicU64,
    alone: AtomicU64,
}

/// What a lease is about. A node that finds it taken is told when it is given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About(Arc<Names>);

/// Who asks for a lease.
#[derive(Clone, Copy)]
pub struct Bid<'a> {
    /// This node's.
    pub leases: &'a Leases,
    /// Who may share the fetch: requests of the same lane.
    pub lane: u64,
    /// Nobody waits for what is fetched.
    pub refresh: bool,
}

impl std::fmt::Debug for Bid<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bid({:016x}, refresh: {})", self.lane, self.refresh)
    }
}

impl Leases {
    /// Starts, on the current runtime. `None` where no Redis is configured. `node` is unlike any other's name.
    pub fn start(cfg: &config::Cache, clock: Clock, node: &str, reach: &Arc<Reach>) -> Option<Self> {
        // Where it cannot be used, the tier itself says so.
        let servers = Servers::start(cfg.redis.as_ref()?).ok()?;
        let seal = Seal::new(&cfg.redis_secrets).in_namespace(&cfg.namespace);
        let key = keys::inbox(&seal, node);
        // A wait that is over is told by an array that is none.
        let target = servers.for_key(&key).with_arrays(1);
        let ears = Link::start("inbox", target, inbox::PING, script::LONGEST, Member::join(reach));
        let (errands, todo) = mpsc::channel(ERRANDS);
        let inner = Arc::new(Inner {
            seal,
            clock,
            node: node.to_owned(),
            time: cfg.redis_lease,
            link: Nodes::start("leases", &servers, ASK, script::LONGEST, reach),
            inbox: Arc::new(Inbox::new(key, ears)),
            held: Mutex::default(),
            errands,
            undone: AtomicU64::new(0),
            done: Notify::new(),
            counters: Counters::default(),
        });
        let (keeper, todo) = (Arc::clone(&inner), Arc::new(tokio::sync::Mutex::new(todo)));
        let keep = move || {
            let (inner, todo) = (Arc::clone(&keeper), Arc::clone(&todo));
            async move { inner.keep(&mut *todo.lock().await).await }
        };
        let ears = Arc::clone(&inner.inbox);
        let hear = move || {
            let inbox = Arc::clone(&ears);
            async move { inbox.hear().await }
        };
        let keeping = AbortOnDrop(tokio::spawn(supervise("leases", keep)));
        let hearing = AbortOnDrop(tokio::spawn(supervise("inbox", hear)));
        Some(Self { inner, _tasks: [keeping, hearing] })
    }

    /// From now on connections are made with these passwords; those that stand go on.
    pub fn login_as(&self, redis: &config::Redis) {
        // The inbox is connected to by the same servers.
        self.inner.link.login_as(redis);
    }

    /// Begins to listen for what becomes of another's fetch; `None` where nothing can be heard. Whoever begins looks
    /// once more: the word may have been said before.
    pub fn listen(&self, about: &About) -> Option<Listening> {
        self.inner.inbox.listen(about)
    }

    /// Counts how a wait ended.
    pub fn count(&self, woken: Woken) {
        let counters = &self.inner.counters;
        let counter = match woken {
            Woken::Stored => &counters.stored,
            Woken::NotStored | Woken::Failed => &counters.not_stored,
            Woken::Expired => &counters.expired,
            Woken::Deaf | Woken::Late => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one that waits for another node.
    pub fn waits(&self) {
        self.inner.counters.waited.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a fetch that would have had a lease, and has none.
    pub fn goes_alone(&self) {
        self.inner.counters.alone.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until all leases are given back, `within` at most; for stopping.
    pub async fn flush(&self, within: Duration) {
        let emptied = async {
            loop {
                // Made before the look, so that what happens in between is not missed.
                let done = self.inner.done.notified();
                let held = self.inner.held.lock().len();
                if held == 0 && self.inner.undone.load(Ordering::Acquire) == 0 {
                    return;
                }
                done.await;
            }
        };
        // What is left ends by its time.
        let _in_time = timeout(within, emptied).await;
    }

    /// Figures.
    pub fn gauges(&self) -> LeaseGauges {
        let (inner, count) = (&self.inner, |counter: &AtomicU64| counter.load(Ordering::Relaxed));
        let counters = &inner.counters;
        LeaseGauges {
            hears: inner.inbox.hears(),
            held: inner.held.lock().len() as u64,
            waiting: inner.inbox.count(),
            taken: count(&counters.taken),
            waited: count(&counters.waited),
            stored: count(&counters.stored),
            not_stored: count(&counters.not_stored),
            expired: count(&counters.expired),
            alone: count(&counters.alone),
        }
    }
}

/// The right, and the duty, to fetch for the fleet. Dropped, it is given back, and all who wait are told that nothing is
/// stored.
#[derive(Debug)]
pub struct Lease {
    inner: Arc<Inner>,
    token: u64,
    names: Arc<Names>,
    said: Option<(Word, Duration)>,
}

impl Lease {
    /// Gives it back with a word for those who wait.
    pub fn give_back(mut self, word: Word) {
        self.said = Some((word, Duration::ZERO));
    }

    /// Gives it back: the fetch failed, and refreshes are to rest for so long, on all nodes.
    pub fn failed(mut self, rest: Duration) {
        self.said = Some((Word::Failed, rest));
    }

    /// The head has come: the rest has to be in Redis within the lease's time, or the others fetch for themselves, who
    /// could have had the head by now.
    pub fn head_has_come(&self) {
        let now = self.inner.clock.mono();
        if let Some(held) = self.inner.held.lock().get_mut(&self.token) {
            held.head.get_or_insert(now);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Given back already where it took too long.
        if self.inner.held.lock().remove(&self.token).is_none() {
            return;
        }
        let (word, rest) = self.said.unwrap_or((Word::NotStored, Duration::ZERO));
        self.inner.send(Errand { token: self.token, names: Arc::clone(&self.names), word, rest });
    }
}

/// A lease that is being asked for. Dropped before it is known what has come of that, it is given back all the same.
#[derive(Debug)]
pub(super) struct Attempt {
    inner: Arc<Inner>,
    token: u64,
    names: Arc<Names>,
    refresh: bool,
    open: bool,
}

/// What Redis has said to an [`Attempt`].
#[derive(Debug)]
pub(super) enum Tried {
    Turn(Turn<Lease, About>),
    /// It has to be asked in full.
    Again(Attempt),
}

impl Attempt {
    /// One for what stands under `record`; `None` where this node holds too many.
    pub(super) fn new(bid: &Bid<'_>, record: &str) -> Option<Self> {
        let inner = &bid.leases.inner;
        if inner.held.lock().len() >= MOST_HELD {
            return None;
        }
        let names = Arc::new(keys::lease(&inner.seal, record, bid.lane));
        let token = keys::new_generation();
        Some(Self { inner: Arc::clone(inner), token, names, refresh: bid.refresh, open: true })
    }

    /// The command that asks for it; what is stored has to be what was `seen`.
    pub(super) fn call(&self, seen: &Fingerprint, by_text: bool) -> Cmd {
        let token = hex(self.token);
        let asking =
            Asking { token: &token, time: self.inner.time, node: &self.inner.node, refresh: self.refresh };
        script::take(&self.names, asking, seen, by_text)
    }

    /// Redis has answered.
    pub(super) fn answered(mut self, answer: &Value) -> Result<Tried, Fault> {
        let told = script::taken(answer);
        self.open = false;
        Ok(Tried::Turn(match told {
            Ok(Told::Taken) => Turn::Mine(self.taken()),
            Ok(Told::Held(left)) => Turn::Theirs(About(Arc::clone(&self.names)), left),
            // Nobody who is waited for rests: an answer that nobody has asked for changes nothing.
            Ok(Told::Rest(left)) if self.refresh => Turn::Resting(left),
            Ok(Told::Rest(_)) => Turn::Alone,
            Ok(Told::Changed) => Turn::Changed,
            Ok(Told::Unknown) => {
                self.open = true;
                return Ok(Tried::Again(self));
            }
            // It has no room, or we no leave.
            Err(Fault::Refused) => Turn::Alone,
            Err(fault) => return Err(fault),
        }))
    }

    /// It was not asked, or not in a way that Redis could have taken it.
    pub(super) fn forget(mut self) {
        self.open = false;
    }

    fn taken(&self) -> Lease {
        let (names, since) = (Arc::clone(&self.names), self.inner.clock.mono());
        self.inner.held.lock().insert(self.token, Held { names, since, head: None });
        self.inner.counters.taken.fetch_add(1, Ordering::Relaxed);
        let (inner, names) = (Arc::clone(&self.inner), Arc::clone(&self.names));
        Lease { inner, token: self.token, names, said: None }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.open {
            let (names, word) = (Arc::clone(&self.names), Word::NotStored);
            self.inner.send(Errand { token: self.token, names, word, rest: Duration::ZERO });
        }
    }
}

impl Inner {
    /// Never waits: what does not fit ends by its time.
    fn send(&self, errand: Errand) {
        self.undone.fetch_add(1, Ordering::AcqRel);
        if self.errands.try_send(errand).is_err() {
            self.are_done(1);
        }
    }

    fn are_done(&self, count: u64) {
        if self.undone.fetch_sub(count, Ordering::AcqRel) == count {
            self.done.notify_waiters();
        }
    }

    /// Gives back and prolongs, for ever. Dropped at any point, leases end by their time.
    async fn keep(&self, todo: &mut mpsc::Receiver<Errand>) {
        // Each at its own pace: a server that is slow to take what is given back must not let what is held expire.
        tokio::select! {
            () = self.keep_giving_back(todo) => {}
            () = self.keep_prolonging() => {}
        }
    }

    async fn keep_giving_back(&self, todo: &mut mpsc::Receiver<Errand>) {
        let mut errands = Vec::with_capacity(AT_ONCE);
        while todo.recv_many(&mut errands, AT_ONCE).await > 0 {
            self.give_back(&errands).await;
            self.are_done(errands.len() as u64);
            errands.clear();
        }
    }

    async fn keep_prolonging(&self) {
        let every = self.time / PROLONGED;
        loop {
            sleep(every).await;
            self.prolong(every).await;
        }
    }

    /// Gives leases back and tells those who wait. Of a cluster, what one master does not answer is left to its time,
    /// and all else is done.
    async fn give_back(&self, errands: &[Errand]) {
        let calls = errands
            .iter()
            .map(|errand| script::give_back(&errand.names, &hex(errand.token), errand.rest))
            .collect();
        let mut words: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (errand, answer) in errands.iter().zip(self.ask_each(calls).await) {
            let Ok(answer) = answer else { continue };
            for node in script::waiting(&answer) {
                if node == self.node {
                    self.inbox.say(errand.word, &errand.names.lease);
                } else {
                    words.entry(node).or_default().push(errand.word.about(&errand.names.lease));
                }
            }
        }
        let calls: Vec<Cmd> =
            words.iter().map(|(node, words)| script::push(&keys::inbox(&self.seal, node), words)).collect();
        if !calls.is_empty() {
            // Who is not told finds out when the lease's time is over.
            let _told = self.ask_each(calls).await;
        }
    }

    /// Prolongs what is held for longer than `every`; gives back what has its head for longer than a lease's time.
    async fn prolong(&self, every: Duration) {
        let now = self.clock.mono();
        let mut slow = Vec::new();
        let due: Vec<(u64, Arc<Names>)> = {
            let mut held = self.held.lock();
            held.retain(|token, held| {
                let is_slow = held.head.is_some_and(|head| now.since(head) >= self.time);
                if is_slow {
                    slow.push((*token, Arc::clone(&held.names)));
                }
                !is_slow
            });
            let due = held.iter().filter(|(_, held)| now.since(held.since) >= every);
            due.map(|(token, held)| (*token, Arc::clone(&held.names))).collect()
        };
        for (token, names) in slow {
            self.send(Errand { token, names, word: Word::NotStored, rest: Duration::ZERO });
        }
        // All at once, so that none waits for what another part waits for; no more than may be held.
        let asked = due.chunks(AT_ONCE).map(|some| {
            let calls = some.iter().map(|(token, names)| script::prolong(names, &hex(*token), self.time));
            self.ask_each(calls.collect())
        });
        // Not prolonged, it ends by its time, and another node fetches, too.
        let _prolonged = join_all(asked).await;
    }

    async fn ask_each(&self, calls: Vec<Cmd>) -> Vec<Result<Value, Fault>> {
        let asked = |mut connection| async move { Ok(ask_each(&mut connection, calls).await) };
        self.link.with(ASK, asked).await.unwrap_or_default()
    }
}

fn hex(token: u64) -> String {
    let mut text = String::with_capacity(16);
    digits::push_hex(&mut text, token.into(), 16);
    text
}
