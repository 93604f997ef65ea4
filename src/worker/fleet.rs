//! This node's part in the fleet: what it does about the purges of others, and how others hear of its own.
//!
//! Knows that a purge which Redis holds a marker of may leave no note on the nodes that hear of it, since
//! nothing older can come back from there; and that the writes of clients wait for no other node.
//! Must not know: how purges travel, or who asks for them.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use bytes::Bytes;

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
        // Joined once in the life of a process.
        let _joined_before = shared.fleet.set(fleet);
    }
}

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
        match (stream, own) {
            // Done where it was made.
            (Stream::Marked, true) => {}
            (Stream::Marked, false) => worker.hear_marked(&purge, at),
            // Redis may still give what is older: the note stays, and says where it stands in the log.
            (Stream::Named, _) => {
                worker.shared.purges.apply(&purge, Some(at), worker.now());
                if let Scope::Url(url) = &purge.scope
                    && !purge.soft
                {
                    worker.shared.memory.remove(&CacheKey::from_parts(url.clone(), Box::default()));
                }
            }
        }
    }

    fn distrust(&self, at: Position) {
        let Some(worker) = self.0.upgrade() else { return };
        let everything = Purge { scope: Scope::All, soft: true };
        worker.shared.purges.apply(&everything, Some(at), worker.now());
    }

    fn reached(&self, at: Position) {
        let Some(worker) = self.0.upgrade() else { return };
        worker.shared.purges.advance(at);
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
        let fleet = self.shared.fleet.get()?;
        // Where purges come in it is checked that they can be written.
        Some(fleet.begin(Bytes::from(purge.encode().ok()?)))
    }

    /// Applies a purge that another node has made and left a marker of in Redis: the notes and memory of this
    /// process.
    ///
    /// As in `forget`, what is purged of a single URL leaves no note where nothing is left for it to void, so
    /// that the writes of a whole fleet do not fill the table of each of its nodes.
    fn hear_marked(&self, purge: &Purge, at: Position) {
        let shared = &self.shared;
        let seq = shared.purges.apply(purge, Some(at), self.now());
        let Scope::Url(url) = &purge.scope else { return };
        let key = CacheKey::from_parts(url.clone(), Box::default());
        shared.memory.remove(&key);
        let keys = shared.snapshot.load().keys_of_url(url);
        let several = keys.iter().any(|of_url| of_url.several || of_url.key != key);
        let searched = shared.searches.may_have_had(Group::of_path(&key));
        // What was read in Redis before the marker stood there is in a flight.
        if !purge.soft && !several && !searched && !shared.flights.any(key.hash()) {
            shared.purges.retract(key.url_hash(), seq);
        }
    }
}
