//! This node's part in the fleet: what it does about the purges of others, and how others hear of its own.
//!
//! Knows that a purge which Redis holds a marker of may leave no note on the nodes that hear of it, since
//! nothing older can come back from there; and that the writes of clients wait for no other node.
//! Must not know: how purges travel, or who asks for them.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use bytes::Bytes;

use crate::store::{Absent, Apply, Fleet, Node, Stream};
use crate::stored::{Position, Purge, Scope};

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
    if let Some(fleet) = Fleet::start(cfg, clock, node, Arc::clone(coherence), &shared.reach, apply) {
        // Joined once in the life of a process.
        let _joined_before = shared.fleet.set(fleet);
    }
}

/// What is done here about a purge of the log.
struct Here(Weak<Worker>);

impl Apply for Here {
    fn apply(&self, purge: &[u8], stream: Stream, at: Position) {
        let Some(worker) = self.0.upgrade() else { return };
        match Purge::decode(purge) {
            Ok(purge) => {
                let snapshot = worker.shared.snapshot.load_full();
                match stream {
                    Stream::Marked => worker.purge_heard(&snapshot, &purge, Some(at), worker.now()),
                    // Redis may still give what is older.
                    Stream::Named => worker.purge_noted(&purge, Some(at), worker.now()),
                };
            }
            Err(why) => {
                tracing::error!(target: "larder::fleet", %why, n = at.n, "a purge in the log is of another version, or damaged: everything is validated first");
                self.distrust(at);
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
    /// Tells the fleet of purges that were made here; `marked` = Redis has taken those that it keeps a marker
    /// of. Gives where the last of them stands in the log; `None` where there is no fleet.
    ///
    /// Once this was called they are told, whether or not the future is polled.
    pub fn tell_fleet(
        &self,
        purges: &[Purge],
        marked: bool,
    ) -> Option<impl Future<Output = Result<Position, Absent>> + Send + use<>> {
        let fleet = self.shared.fleet.get()?;
        let telling: Vec<_> = purges
            .iter()
            .filter_map(|purge| {
                let has_marker = matches!(purge.scope, Scope::Url(_) | Scope::Group(_) | Scope::Path(_));
                let stream = if marked && has_marker && !purge.soft { Stream::Marked } else { Stream::Named };
                // Nothing is longer than it may be here: where purges come in, that is checked.
                Some(fleet.tell(stream, Bytes::from(purge.encode().ok()?)))
            })
            .collect();
        Some(async move {
            let mut last = Err(Absent::Error);
            for told in telling {
                last = Ok(told.await?);
            }
            last
        })
    }
}
