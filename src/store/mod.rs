//! Two tiers as one room: memory in this process, Redis for the fleet, and what has been purged.
//!
//! Knows how responses are kept, found and voided, and that a tier is advice: whatever it does not
//! give is fetched again. Freshness is judged by whoever reads ("store facts, decide at reading").
//! Must not know: the origin, routes, requests in flight, or what is delivered.

mod counter;
mod doorkeeper;
mod ghost;
mod hot;
mod in_flight;
mod lingering;
mod memory;
mod notes;
mod purge;
mod redis;
mod resource;
mod searches;
mod seed;
mod slot;
mod sweep;
mod yielding;

pub use hot::{Hot, Name};
pub use in_flight::{InFlight, PER_CONNECTION, Passing, Reserved, STREAMING, STREAMING_MUCH};
pub use memory::{Kept, Memory};
pub use purge::{PURGES, Purges};
pub use redis::{
    About, Absent, Answer, Apply, Asked, Audit, Bid, Coherence, Election, Fault, Fleet, Generation, Lease,
    Leases, Listening, Next, Node, Peer, Promise, Reach, Receipt, Redis, Seen, State, Stream, Sum, Telling,
    Turn, Woken, Word,
};
pub use resource::{Class, Marked, Resource, Variants};
pub use searches::Searches;
pub use seed::Seed;
pub use sweep::sweep;

/// A real server, for the tests of this room and of those above it.
#[cfg(test)]
#[path = "../../tests/support/redis.rs"]
pub(crate) mod redis_server;

/// What the tests of this room share.
#[cfg(test)]
mod samples {
    use std::time::Duration;

    use crate::config::Cache;

    /// A `[cache]` with the usual figures.
    pub(super) fn cache(redis: Option<String>) -> Cache {
        Cache {
            memory: 1 << 20,
            redis: redis.map(|url| crate::config::Redis::from_url(&url).unwrap()),
            namespace: "larder".to_owned(),
            redis_compress: None,
            redis_deadline: Duration::from_secs(5),
            redis_lease: Duration::from_secs(3),
            redis_max_object: 1 << 20,
            redis_queue: 8 << 20,
            redis_secret_file: None,
            redis_secrets: Vec::new(),
            coherence_bound: Duration::from_secs(1),
            coherence_when_lost: Some(Duration::from_secs(10)),
            purge_record: 65_536,
            warm_start: None,
            max_object: 16 << 20,
            in_flight: 64 << 20,
            range_fill: 1 << 20,
            lag: 1 << 20,
            lag_timeout: Duration::from_secs(5),
            variants: 8,
            hit_for_miss: Duration::from_secs(60),
            status_key: true,
            verify: None,
            quarantine: Duration::from_secs(600),
        }
    }
}
