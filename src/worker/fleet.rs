//! This node's part in the fleet: what it does about the purges of others, and how others hear of its own.
//!
//! Knows that a purge which Redis holds a marker of may leave no note on the nodes that hear of it, since
//! nothing older can come back from there; and that the writes of clients wait for no other node.
//! Must not know: how purges travel, or who asks for them.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::clock::{Mono, Timestamp};
use crate::rules::{MustAsk, Policy, RequestFacts, Reuse};
use crate::store::{Apply, Fleet, Leases, Node, Stream, Telling};
use crate::stored::{CacheKey, Group, Position, Purge, Scope, StoredResponse};

use super::Worker;

/// Takes part, on the current runtime, where a Redis is configured. `address` is what others are told of where
/// this node is. Returns at once: until the log is heard, memory is not trusted for longer than
/// `cache.coherence` says.
pub fn join(worker: &Arc<Worker>, address: Option<SocketAddr>) {
    let shared = &worker.shared;
    let Some(coherence) = &shared.coherence else { return };
    let snapshot = shared.snapshot.load_full();
    let node = Node {
        name: shared.pseudonym.clone(),
        address: address.map_or_else(|| "-".to_owned(), |address| address.to_string()),
        started: shared.started_at.as_secs(),
    };
    let apply = Box::new(Here(Arc::downgrade(worker)));
    let (cfg, clock) = (&snapshot.config.cache, shared.clock.clone());
    if let Some(leases) = Leases::start(cfg, clock.clone(), &shared.pseudonym, &shared.reach) {
        let _joined_before = shared.leases.set(leases);
    }
    if let Some(fleet) = Fleet::start(cfg, clock, node, Arc::clone(coherence), &shared.reach, apply) {
        shared.fleet.join(fleet);
    }
}

/// This node's membership. Threads serve before it has joined; what is purged meanwhile waits for that.
#[derive(Default)]
pub struct Membership {
    fleet: OnceLock<Fleet>,
    /// As they were written. Empty once it has joined.
    early: Mutex<Vec<Bytes>>,
}

impl Membership {
    /// The fleet, once it has joined.
    pub fn get(&self) -> Option<&Fleet> {
        self.fleet.get()
    }

    fn join(&self, fleet: Fleet) {
        let mut early = self.early.lock();
        // Joined once in the life of a process.
        let fleet = self.fleet.get_or_init(|| fleet);
        // Dropped, they are told in the background.
        early.drain(..).for_each(|purge| drop(fleet.begin(purge)));
    }

    /// Begins to tell of a purge, or has it told later.
    fn begin(&self, purge: Bytes) -> Option<Telling> {
        if let Some(fleet) = self.fleet.get() {
            return Some(fleet.begin(purge));
        }
        let mut early = self.early.lock();
        if let Some(fleet) = self.fleet.get() {
            return Some(fleet.begin(purge));
        }
        if early.len() >= EARLY {
            early.clear();
            early.push(everything());
        }
        early.push(purge);
        None
    }
}

fn everything() -> Bytes {
    // It has no name that could be unfit; and what cannot be read is taken for the same.
    EVERYTHING.encode().map(Bytes::from).unwrap_or_default()
}

/// Purges that may wait for this node to join: a start takes half a second at most. In place of more, everything is
/// to be validated.
const EARLY: usize = 1_024;

/// All that is stored has to be validated.
const EVERYTHING: Purge = Purge::soft(Scope::All);

/// What is done here about a purge of the log.
struct Here(Weak<Worker>);

impl Apply for Here {
    fn apply(&self, purge: &[u8], stream: Stream, at: Position, own: bool) {
        let Some(worker) = self.0.upgrade() else { return };
        let purge = match Purge::decode(purge) {
            Ok(purge) => purge,
            Err(why) => {
                tracing::error!(target: "larder::fleet", %why, n = at.n, "a purge in the log is of another version, or damaged: everything is validated first");
                return self.distrust(at);
            }
        };
        if !own {
            worker.shared.receipts.hear(&purge, worker.now());
        }
        match (stream, own) {
            // Done where it was made.
            (Stream::Marked, true) => {}
            (Stream::Marked, false) => worker.hear(&purge, at, true),
            // Redis may still give what is older: the note stays, and says where it stands in the log.
            (Stream::Named, _) => worker.hear(&purge, at, false),
        }
    }

    fn distrust(&self, at: Position) {
        let Some(worker) = self.0.upgrade() else { return };
        worker.shared.purges.apply(&EVERYTHING, Some(at), worker.now());
    }

    fn reached(&self, at: Position) {
        let Some(worker) = self.0.upgrade() else { return };
        worker.shared.purges.advance(at);
    }

    fn everything(&self) -> Bytes {
        everything()
    }
}

impl Worker {
    /// Whether what is stored answers this request at `now`, by all that this node knows of purges; while it
    /// cannot hear of them, only what the origin has just confirmed does (`store::Coherence`).
    pub fn reuse(
        &self,
        stored: &StoredResponse,
        req: &RequestFacts,
        policy: &Policy,
        (now, mono): (Timestamp, Mono),
    ) -> Reuse {
        let unheard = self.shared.coherence.as_ref().is_some_and(|coherence| {
            !coherence.hears(mono) && coherence.doubts(stored.facts.request_time, now)
        });
        match unheard {
            true => stored.reuse_unconfirmed(req, policy, MustAsk::Unheard),
            false => stored.reuse(req, policy, now),
        }
    }

    /// Begins to tell the other nodes of a purge, if there is a fleet. Made before this node's own part of it is
    /// done, so that no future that is dropped in between can keep it from them.
    pub(super) fn telling(&self, purge: &Purge) -> Option<Telling> {
        self.shared.coherence.as_ref()?;
        // A URL is no longer than a request can be, and all other names are checked where they come in.
        self.shared.fleet.begin(Bytes::from(purge.encode().ok()?))
    }

    /// Applies a purge of the log: the notes and memory of this process.
    ///
    /// As in `forget`, what is purged of a single URL leaves no note where nothing is left for it to void, so
    /// that the writes of a whole fleet do not fill the table of each of its nodes. It may go only where Redis
    /// holds a marker of it (`marked`), and where it stands for no other purge: an earlier one of this node,
    /// made after that marker was, may not be in Redis yet.
    pub(super) fn hear(&self, purge: &Purge, at: Position, marked: bool) {
        let shared = &self.shared;
        let seq = shared.purges.apply(purge, Some(at), self.now());
        if purge.soft {
            return;
        }
        let url = match &purge.scope {
            Scope::Url(url) => url,
            Scope::Path(path) => {
                // Where there never was a rule, nothing is stored under one.
                if marked && !shared.searches.may_have_had(*path) {
                    shared.purges.retract_heard_path(*path, seq);
                }
                return;
            }
            _ => return,
        };
        let key = CacheKey::from_parts(url, "");
        shared.memory.remove(&key);
        let keys = shared.snapshot.load().keys_of_url(url);
        let several = keys.iter().any(|of_url| of_url.several || of_url.key != key);
        let searched = shared.searches.may_have_had(Group::of_path(&key));
        // What was read in Redis before the marker stood there is in a flight.
        if marked && !several && !searched && !shared.flights.any(key.hash()) {
            shared.purges.retract_heard(key.url_hash(), seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::redis_server::RedisServer;
    use crate::store::{Class, Coherence, Promise};
    use crate::stored::Born;
    use crate::stored::samples::{key, plain};
    use crate::worker::tests::worker;

    fn of_url(path: &str) -> Purge {
        Purge::hard(Scope::Url(key(path).url().into()))
    }

    #[tokio::test]
    async fn another_nodes_marked_purge_does_not_take_back_the_note_of_an_own_that_redis_has_not_taken() {
        let worker = worker("", "").await;
        let purges = &worker.shared.purges;
        let at = |n| Position { run: 1, n };
        worker.hear(&of_url("/"), at(1), true);
        assert_eq!(purges.notes(), 0, "nothing is left for it to void");
        // Another node has stored this after its purge, and before this node's.
        let born = Born::Elsewhere(Some(at(2)));
        let response = plain("/", b"old", born);
        purges.purge(key("/").url_hash(), response.facts.request_time);
        worker.hear(&of_url("/"), at(2), true);
        assert!(purges.is_purged(&response), "it comes from Redis still");
    }

    #[tokio::test]
    async fn what_is_purged_before_the_node_has_joined_is_told_once_it_has() {
        let server = RedisServer::start();
        let mut worker = worker(&format!("redis = \"{}\"", server.url()), "").await;
        let promise = Promise { bound: Duration::from_secs(1), when_lost: None };
        let coherence = Arc::new(Coherence::new(promise, worker.mono()));
        Arc::get_mut(&mut worker.shared).unwrap().coherence = Some(coherence);
        assert!(worker.telling(&of_url("/early")).is_none());
        let worker = Arc::new(worker);
        join(&worker, None);
        let told = async {
            while worker.shared.fleet.get().unwrap().gauges().told == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), told).await.unwrap();
        assert_eq!(server.command(&["XLEN", "larder:4:{fleet}:named"]).int(), 1);
        assert!(worker.telling(&of_url("/late")).is_some());
    }

    #[tokio::test]
    async fn a_write_to_the_longest_url_is_told() {
        let server = RedisServer::start();
        let mut worker = worker(&format!("redis = \"{}\"", server.url()), "").await;
        let promise = Promise { bound: Duration::from_secs(1), when_lost: None };
        let coherence = Arc::new(Coherence::new(promise, worker.mono()));
        Arc::get_mut(&mut worker.shared).unwrap().coherence = Some(coherence);
        let worker = Arc::new(worker);
        join(&worker, None);
        worker.shared.fleet.get().unwrap().heard(Duration::from_secs(20)).await;
        for target in [8 * 1024, usize::from(u16::MAX) - 1] {
            let url = format!("https://{}/{}", "h".repeat(255), "x".repeat(target - 1));
            let telling = worker.telling(&Purge::hard(Scope::Url(url.into())));
            let told =
                worker.shared.fleet.get().unwrap().tell(vec![telling.unwrap()], Duration::from_secs(20));
            assert!(told.await.is_ok_and(|at| at.is_some()), "{target}");
        }
    }

    #[test]
    fn too_many_purges_before_the_node_has_joined_stand_for_everything() {
        let membership = Membership::default();
        for nth in 0..=EARLY {
            assert!(membership.begin(Bytes::from(nth.to_string())).is_none());
        }
        assert_eq!(*membership.early.lock(), [everything(), Bytes::from(EARLY.to_string())]);
    }

    #[tokio::test]
    async fn a_purge_that_is_heard_takes_a_url_out_of_memory_and_its_note_goes_only_with_a_marker() {
        for (purge, marked, held, notes) in [
            (of_url("/"), true, false, 0),
            (of_url("/"), false, false, 1),
            // Each write through another node is of a path, too.
            (Purge::hard(Scope::Path(Group::of_path(&key("/")))), true, true, 0),
            (Purge::hard(Scope::Path(Group::of_path(&key("/")))), false, true, 1),
            (Purge { soft: true, ..of_url("/") }, false, true, 1),
            (Purge { soft: true, ..of_url("/") }, true, true, 1),
        ] {
            let worker = worker("", "").await;
            let shared = &worker.shared;
            let response = plain("/", b"old", Born::Here(shared.purges.seq()));
            assert!(shared.memory.keep(Arc::clone(&response), Class::Plain, &shared.purges));
            worker.hear(&purge, Position { run: 1, n: 1 }, marked);
            let found = (shared.memory.holds(&response), shared.purges.notes());
            assert_eq!(found, (held, notes), "{purge:?} {marked}");
        }
    }
}
