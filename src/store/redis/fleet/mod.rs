//! The nodes that share one Redis, as one cache: a purge reaches the memory of each.
//!
//! Knows how purges are told to the others and heard from them, how far this node may trust its memory
//! meanwhile, and which nodes there are. The log of purges in Redis (`log`) is the only word between nodes:
//! each asks it several times in `coherence.bound` on a connection of its own, and one answer is at once the
//! news, the heartbeat, and its acknowledgement of all before.
//!
//! What could not be told is kept and told as soon as Redis is there again, and whoever asked for it is
//! told so. Nothing here fails a request.
//! Must not know: what a purge does here (`Apply`), or who asks for one.

mod coherence;
mod follower;
mod log;
mod peers;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod untold;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

#[cfg(test)]
use self::follower::{Dropped, Told};
use self::follower::{Entry, Follower};
use self::log::Log;
use self::peers::says;
use self::untold::Untold;
use super::Absent;
use super::keys::new_generation as by_chance;
use super::link::{AbortOnDrop, Fault, Phase};
use super::nodes::{Nodes, ask, ask_all};
use super::reach::Reach;
use super::servers::Servers;
use crate::clock::Clock;
use crate::config;
use crate::stored::{Position, Seal};
use crate::telemetry::{FleetGauges, supervise};

pub use self::coherence::{Coherence, Promise, State};
pub use self::log::Stream;
pub use self::peers::{Peer, Receipt};

/// The longest that one question may take.
const ASK: Duration = Duration::from_secs(1);
/// Questions in one `coherence.bound`, and the shortest and the longest between two, unless a page was full: a busy
/// API has news at any time, and each question takes its time of the one Redis that all nodes ask.
const IN_BOUND: u32 = 8;
const BETWEEN: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
/// Between two looks whether all nodes have heard.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// A node that has said nothing for so long is not waited for.
const SILENT: Duration = Duration::from_secs(5);
/// Purges that are told in one question.
const AT_ONCE: usize = 32;

/// What this node does about the purges of all.
pub trait Apply: Send + Sync {
    /// Applies a purge, as it was written. It is number `at` of the log; `stream` says whether it has a marker
    /// in Redis as well; it may be this node's `own`.
    fn apply(&self, purge: &[u8], stream: Stream, at: Position, own: bool);

    /// Whatever is older than `at` may have been purged by what can no longer be read: it has to be
    /// validated.
    fn distrust(&self, at: Position);

    /// All purges up to `at` are applied.
    fn reached(&self, at: Position);

    /// The purge that stands for any others: whatever is stored has to be validated.
    fn everything(&self) -> Bytes;
}

/// This node's part in the fleet.
pub struct Fleet {
    inner: Arc<Inner>,
    following: AbortOnDrop<()>,
}

struct Inner {
    link: Nodes,
    log: Log,
    clock: Clock,
    node: Node,
    record: u64,
    coherence: Arc<Coherence>,
    /// Held while purges are applied, so that whoever tells of one and whoever hears of it do not both.
    follower: Mutex<Follower>,
    apply: Box<dyn Apply>,
    untold: Mutex<Untold>,
    /// Which server has the log, and how often the link to it had broken, at the last answer.
    breaks: Mutex<Option<(String, u64)>>,
    /// What an answer says is being done.
    applying: AtomicBool,
    /// There is something to be told, or to be heard.
    news: Notify,
    /// The log has been heard.
    complete: Notify,
    counters: Counters,
}

/// How this node names itself.
#[derive(Clone, Debug)]
pub struct Node {
    /// Unlike any other's, without spaces.
    pub name: String,
    /// Where its admin listener or, without one, its first listener is.
    pub address: String,
    /// When it started, in seconds since the Unix epoch.
    pub started: u64,
}

/// When to ask the log again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// At once: there is more.
    AtOnce,
    /// After [`BETWEEN`]'s shortest: this node has come further, and somebody may wait for its word.
    Soon,
    /// In its turn.
    InTurn,
}

#[derive(Debug, Default)]
struct Counters {
    #[cfg(test)]
    asked: AtomicU64,
    applied: AtomicU64,
    told: AtomicU64,
    lost: AtomicU64,
    resumed: AtomicU64,
    horizons: AtomicU64,
}

impl Fleet {
    /// Starts to follow, on the current runtime. `None` where no Redis is configured.
    pub fn start(
        cfg: &config::Cache,
        clock: Clock,
        node: Node,
        coherence: Arc<Coherence>,
        reach: &Arc<Reach>,
        apply: Box<dyn Apply>,
    ) -> Option<Self> {
        let servers = match Servers::start(cfg.redis.as_ref()?) {
            Ok(servers) => servers,
            Err(error) => {
                tracing::error!(target: "larder::fleet", error, "cache.redis cannot be used: this node hears of no purges");
                return None;
            }
        };
        let link = Nodes::start("fleet", &servers, ASK, log::LONGEST, reach);
        let seal = Seal::new(&cfg.redis_secrets).in_namespace(&cfg.namespace);
        let prefix = super::keys::fleet_prefix(&seal);
        let inner = Arc::new(Inner {
            link,
            log: Log::new(&prefix, seal),
            clock,
            node,
            record: cfg.purge_record,
            coherence,
            follower: Mutex::default(),
            apply,
            untold: Mutex::default(),
            breaks: Mutex::default(),
            applying: AtomicBool::new(false),
            news: Notify::new(),
            complete: Notify::new(),
            counters: Counters::default(),
        });
        let followed = Arc::clone(&inner);
        let run = move || {
            let inner = Arc::clone(&followed);
            async move { inner.follow().await }
        };
        let following = AbortOnDrop(tokio::spawn(supervise("fleet", run)));
        Some(Self { inner, following })
    }

    /// From now on connections are made with these passwords; those that stand go on.
    pub fn login_as(&self, redis: &config::Redis) {
        self.inner.link.login_as(redis);
    }

    /// Waits until the log has been heard, `within` at most: a node that has just begun knows nothing of purges
    /// until then.
    pub async fn heard(&self, within: Duration) {
        let looking = async {
            while !self.inner.coherence.hears(self.inner.clock.mono()) {
                self.inner.complete.notified().await;
            }
        };
        // Without it the node serves, and validates what it reads in Redis.
        let _in_time = tokio::time::timeout(within, looking).await;
    }

    /// Begins to tell all nodes of a purge.
    pub fn begin(&self, purge: Bytes) -> Telling {
        let entry = Entry { n: 0, token: by_chance(), stream: Stream::Named, payload: purge };
        Telling { inner: Arc::clone(&self.inner), entry, told: false }
    }

    /// Tells of several, in order, some in one question: however many there are, they take one of the calls that
    /// the link has under way at a time, and this node's own question gets through beside them. Gives where the
    /// last one stands. All of it takes `within` at most. Dropped, or after a failure, what is left is told in the
    /// background.
    ///
    /// # Errors
    /// Why some could not be told.
    pub async fn tell(
        &self,
        mut telling: Vec<Telling>,
        within: Duration,
    ) -> Result<Option<Position>, Absent> {
        let (mut last, began) = (None, self.inner.clock.mono());
        for some in telling.chunks_mut(AT_ONCE) {
            let left = within.saturating_sub(self.inner.clock.mono().since(began));
            if left.is_zero() {
                return Err(Absent::Deadline);
            }
            let entries: Vec<Entry> = some.iter().map(|one| one.entry.clone()).collect();
            let Added { at: added, lost } =
                self.inner.add(&entries, left.min(ASK)).await.map_err(Absent::from)?;
            for entry in lost {
                self.inner.keep(entry);
                self.inner.news.notify_one();
            }
            some.iter_mut().for_each(|one| one.told = true);
            last = added.last().copied();
        }
        Ok(last)
    }

    /// Which nodes have applied what the log has at `at`; waits for them, `wait` at most.
    ///
    /// # Errors
    /// Nobody can say which nodes there are.
    pub async fn receipt(&self, at: Position, wait: Duration) -> Result<Receipt, Absent> {
        let began = self.inner.clock.mono();
        // This node's own word need not wait for its next question.
        self.inner.news.notify_one();
        let mut receipt = Receipt::default();
        loop {
            let nodes = self.nodes().await?;
            let waited = self.inner.clock.mono().since(began);
            receipt.missing.clear();
            for node in nodes {
                if receipt.acknowledged.iter().any(|(known, _)| known.name == node.name) {
                    continue;
                }
                if node.at.run == at.run && node.at.n >= at.n {
                    receipt.acknowledged.push((node, waited));
                } else {
                    receipt.missing.push(node);
                }
            }
            let awaited = receipt.missing.iter().any(|node| node.silent <= SILENT);
            if !awaited || waited >= wait {
                return Ok(receipt);
            }
            tokio::time::sleep(LOOK_AGAIN.min(wait.saturating_sub(waited))).await;
        }
    }

    /// All nodes that have been heard of within the last minute, this one among them, by name.
    ///
    /// # Errors
    /// Redis has not said.
    pub async fn nodes(&self) -> Result<Vec<Peer>, Absent> {
        let call = self.inner.log.nodes(by_chance());
        let answer = self
            .inner
            .link
            .with(ASK, |mut connection| async move { log::nodes(ask(&mut connection, call).await?) });
        let mut nodes: Vec<Peer> =
            answer.await.map_err(Absent::from)?.into_iter().filter_map(Peer::read).collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(nodes)
    }

    /// This node's name.
    pub fn name(&self) -> &str {
        &self.inner.node.name
    }

    /// Tells what is left to be told, strikes this node off, so that nobody waits for it any more, and asks the log
    /// no more. Within two seconds.
    pub async fn leave(&self) {
        // Its next question would put the node on the list again. One that is out goes before what follows.
        self.following.0.abort();
        let telling = async { while self.inner.tell_again().await {} };
        let _in_time = tokio::time::timeout(ASK, telling).await;
        let untold = self.inner.untold.lock().count();
        if untold > 0 {
            tracing::error!(target: "larder::fleet", untold, "stopped before Redis could be told of all purges: other nodes do not hear of these");
        }
        let call = self.inner.log.leave(by_chance(), &self.inner.node.name);
        let told =
            self.inner.link.with(ASK, |mut connection| async move { ask(&mut connection, call).await });
        // Without it, the others strike it off after a minute.
        let _struck_off = told.await;
    }

    /// Figures.
    pub fn gauges(&self) -> FleetGauges {
        let (inner, count) = (&self.inner, |counter: &AtomicU64| counter.load(Ordering::Relaxed));
        let (now, promise) = (inner.clock.mono(), inner.coherence.promise());
        FleetGauges {
            node: inner.node.name.clone(),
            state: inner.coherence.state(now).as_str(),
            lag: inner.coherence.lag(now),
            bound: promise.bound,
            when_lost: promise.when_lost,
            position: inner.follower.lock().question().n,
            applied: count(&inner.counters.applied),
            told: count(&inner.counters.told),
            untold: inner.untold.lock().count() as u64,
            lost: count(&inner.counters.lost),
            resumed: count(&inner.counters.resumed),
            horizons: count(&inner.counters.horizons),
        }
    }
}

/// Purges that were added to the log.
struct Added {
    /// Where they stand, each.
    at: Vec<Position>,
    /// Those that were added to a log which was found to be no more before its answer was heard: nobody knew yet that
    /// they are to be in the new one, too, so they are to be told again. Whoever has heard of them does nothing anew.
    lost: Vec<Entry>,
}

/// A purge that the log may not have yet. Dropped, it is told in the background, at once, and as often as it
/// takes.
#[must_use = "dropped, it is told in the background"]
pub struct Telling {
    inner: Arc<Inner>,
    entry: Entry,
    told: bool,
}

impl fmt::Debug for Telling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Telling(…)")
    }
}

impl Telling {
    /// Redis holds a marker of it: nothing older can be read there.
    pub fn marked(&mut self) {
        self.entry.stream = Stream::Marked;
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        if !self.told {
            self.inner.keep(self.entry.clone());
            self.inner.news.notify_one();
        }
    }
}

impl Inner {
    /// Asks and asks. Dropped at any point: what an answer says is done before anything else is waited for, so
    /// nothing is known that was not applied.
    async fn follow(&self) {
        let between = (self.coherence.promise().bound / IN_BOUND).clamp(BETWEEN.0, BETWEEN.1);
        let mut phases = self.link.phases();
        loop {
            let mut next = match self.ask().await {
                Ok(next) => next,
                // Nothing was asked.
                Err(Fault::Full) => Next::InTurn,
                Err(fault) => {
                    self.follower.lock().interrupted();
                    // In a cluster others may be up, and the one that is to be asked is not: in its turn, then.
                    let down = { *phases.borrow_and_update() != Phase::Closed };
                    if fault == Fault::Open && down {
                        // Until the link is up there is nothing to ask.
                        let up = phases.wait_for(|phase| *phase == Phase::Closed);
                        let ended = matches!(tokio::time::timeout(ASK, up).await, Ok(Err(_)));
                        if ended {
                            return;
                        }
                        continue;
                    }
                    Next::InTurn
                }
            };
            if next != Next::AtOnce && self.tell_again().await {
                // Its own, too, are acknowledged by the next question.
                let rest = self.untold.lock().count() > 0;
                next = if rest { Next::AtOnce } else { Next::Soon };
            }
            match next {
                Next::AtOnce => {}
                Next::Soon => tokio::time::sleep(BETWEEN.0).await,
                Next::InTurn => tokio::select! {
                    () = tokio::time::sleep(between) => {}
                    () = self.news.notified() => {}
                },
            }
        }
    }

    /// Asks once and does what the answer says; gives when to ask again.
    async fn ask(&self) -> Result<Next, Fault> {
        #[cfg(test)]
        self.counters.asked.fetch_add(1, Ordering::Relaxed);
        let asked = self.clock.mono();
        let question = self.follower.lock().question();
        let says = says(&self.node, question, self.coherence.state(asked).as_str());
        let call = self.log.follow(question, by_chance(), &self.node.name, &says);
        let answer = self.link.with(ASK, |mut connection| async move { ask(&mut connection, call).await });
        let told = self.log.told(answer.await?)?;
        let run = told.run;
        let (next, renew) = {
            let mut follower = self.follower.lock();
            let breaks = self.link.breaks(self.log.head());
            let before = self.breaks.lock().replace(breaks.clone());
            if before.is_some_and(|before| before != breaks) {
                follower.interrupted();
            }
            if self.applying.swap(true, Ordering::AcqRel) {
                // The one before was ended in the middle by a bug: what it took for known may not be done.
                self.apply.distrust(Position { run: question.run, n: question.n });
            }
            let heard = follower.hear(told, self.clock.mono());
            if run != question.run && question.run != 0 {
                tracing::warn!(target: "larder::fleet", "the log of purges is another: Redis has lost what it held, or was set back; it is read from its beginning");
                self.counters.resumed.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(n) = heard.horizon {
                tracing::warn!(target: "larder::fleet", n, "purges have been dropped from the log that this node has not heard of: what is older is validated first");
                self.counters.horizons.fetch_add(1, Ordering::Relaxed);
                self.apply.distrust(Position { run, n });
            }
            for entry in &heard.apply {
                self.apply_one(entry, Position { run, n: entry.n }, false);
            }
            if !heard.renew {
                self.apply.reached(Position { run, n: follower.question().n });
            }
            if heard.complete {
                self.coherence.heard(asked);
                // Whoever comes to wait after this finds it heard.
                self.complete.notify_one();
            }
            for entry in heard.again {
                self.keep(entry);
            }
            self.applying.store(false, Ordering::Release);
            let next = match heard.more {
                true => Next::AtOnce,
                false if follower.question() != question => Next::Soon,
                false => Next::InTurn,
            };
            (next, heard.renew)
        };
        if renew {
            let call = self.log.renew(question.run, by_chance());
            let told = self.link.with(ASK, |mut connection| async move { ask(&mut connection, call).await });
            told.await?;
            return Ok(Next::AtOnce);
        }
        Ok(next)
    }

    fn apply_own(&self, entry: Entry, at: Position) {
        let mut follower = self.follower.lock();
        if follower.takes(&entry, self.clock.mono()) {
            self.apply_one(&entry, at, true);
        }
    }

    fn apply_one(&self, entry: &Entry, at: Position, own: bool) {
        self.counters.applied.fetch_add(1, Ordering::Relaxed);
        if entry.payload.is_empty() {
            tracing::error!(target: "larder::fleet", n = at.n, "a purge in the log cannot be read (another secret, or damaged): everything is validated first");
            self.apply.distrust(at);
        } else {
            self.apply.apply(&entry.payload, entry.stream, at, own);
        }
    }

    /// Adds purges to the log, in one question, and applies each here.
    async fn add(&self, entries: &[Entry], within: Duration) -> Result<Added, Fault> {
        let before = self.follower.lock().question().run;
        let call = |entry| self.log.add(entry, (by_chance(), self.record), super::writer::chance);
        let calls = entries.iter().map(call).collect::<Option<Vec<_>>>().ok_or(Fault::Refused)?;
        let told = self
            .link
            .with(within, |mut connection| async move { ask_all(&mut connection, calls).await })
            .await?;
        let added: Vec<Position> = told
            .into_iter()
            .map(|answer| log::added(answer).map(|(run, n)| Position { run, n }))
            .collect::<Result<_, _>>()?;
        self.counters.told.fetch_add(entries.len() as u64, Ordering::Relaxed);
        for (entry, at) in entries.iter().zip(&added) {
            self.apply_own(Entry { n: at.n, ..entry.clone() }, *at);
        }
        let after = self.follower.lock().question().run;
        let is_lost = |at: &Position| after != before && at.run != after;
        let lost = entries.iter().zip(&added).filter(|(_, at)| is_lost(at)).map(|(entry, _)| entry.clone());
        Ok(Added { lost: lost.collect(), at: added })
    }

    fn keep(&self, entry: Entry) {
        let mut untold = self.untold.lock();
        let before = untold.instead.is_some();
        let given_up = untold.keep(entry);
        if given_up == 0 {
            return;
        }
        self.counters.lost.fetch_add(given_up, Ordering::Relaxed);
        // Another for each: one that is being told just now does not stand for what was given up meanwhile.
        let payload = self.apply.everything();
        untold.instead = Some(Entry { n: 0, token: by_chance(), stream: Stream::Named, payload });
        if !before {
            tracing::error!(target: "larder::fleet", "too many purges wait for Redis: in place of the oldest, every node is told to validate whatever it holds");
        }
    }

    /// Tells what could not be told before, or was not waited for; whether there was any, and it was told.
    ///
    /// It is taken out only once it is told: if this is dropped meanwhile, it may be told twice.
    async fn tell_again(&self) -> bool {
        let entries: Vec<Entry> = { self.untold.lock().first(AT_ONCE) };
        if entries.is_empty() {
            return false;
        }
        let Ok(added) = self.add(&entries, ASK).await else { return false };
        self.untold.lock().forget(&entries);
        added.lost.into_iter().for_each(|entry| self.keep(entry));
        true
    }
}
