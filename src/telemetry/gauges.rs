//! What only the upper floors can count: the tiers, the upstreams, the listeners.
//!
//! Plain data that they fill in when somebody asks. Values are of the whole process; a worker's
//! own are summed first. Fields not known yet may stay at their default.
//! Must not know: where the values come from, or how they are shown.

use std::time::Duration;

use super::cuts::Cut;
use super::heads::HeadRefused;
use super::proxy_headers::HeaderRefused;
use super::tunnels::TunnelEnd;
use crate::clock::Timestamp;
use crate::stored::Damaged;

/// All that the counters do not know, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// How long the process has been running.
    pub uptime: Duration,
    /// When the process was started.
    pub started: Timestamp,
    /// Bytes of memory that the process has, as the system counts them; `None` where it does not say.
    pub resident: Option<u64>,
    /// The memory tier.
    pub memory: MemoryGauges,
    /// The Redis tier; `None` where none is configured.
    pub redis: Option<RedisGauges>,
    /// This node's part in the fleet, where a Redis is configured.
    pub fleet: Option<FleetGauges>,
    /// Fetches that nodes do for each other, where a Redis is configured.
    pub leases: Option<LeaseGauges>,
    /// What this node has read at its start.
    pub warm: WarmGauges,
    /// Bodies encoded and decoded.
    pub coding: CodingGauges,
    /// Each server of each upstream.
    pub upstreams: Vec<UpstreamGauges>,
    /// Open client connections.
    pub connections: u64,
    /// Open tunnels.
    pub tunnels: u64,
    /// Tunnels that have ended, in the order of [`TunnelEnd::ALL`].
    pub tunnels_ended: [u64; TunnelEnd::ALL.len()],
    /// Connections closed for want of a good header of the PROXY protocol, in the order of
    /// [`HeaderRefused::ALL`].
    pub proxy_headers: [u64; HeaderRefused::ALL.len()],
    /// Heads that were refused before they were requests, in the order of [`HeadRefused::ALL`].
    pub heads: [u64; HeadRefused::ALL.len()],
    /// Interim responses handed to clients' sockets.
    pub interim_passed: u64,
    /// Connections that were ended, in the order of [`Cut::ALL`].
    pub cuts: [u64; Cut::ALL.len()],
    /// Interim responses that did not reach their client.
    pub interim_dropped: u64,
    /// Access-log lines dropped, from [`AccessLog::dropped`](super::AccessLog::dropped).
    pub access_dropped: u64,
    /// Spans for who collects traces, from [`Spans::gauges`](super::Spans::gauges).
    pub spans: SpanGauges,
    /// Fetches in flight.
    pub fetches: u64,
    /// Tasks begun and not ended, on all threads.
    pub tasks: u64,
    /// Tasks that a bug has ended, from [`panics`](super::panics()).
    pub panics: u64,
    /// Reloads of the configuration that brought another into force.
    pub reloads_done: u64,
    /// Reloads that were refused.
    pub reloads_refused: u64,
}

/// The memory tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryGauges {
    /// Stored keys.
    pub entries: u64,
    /// Their weight in bytes: bodies, headers, keys and overhead.
    pub bytes: u64,
    /// The most that they may weigh, bytes.
    pub budget: u64,
    /// Bytes of bodies on their way into the cache.
    pub in_flight: u64,
    /// Bytes of bodies that it has given up and clients still read.
    pub lingering: u64,
    /// Times it was asked.
    pub lookups: u64,
    /// Times it had the key.
    pub hits: u64,
    /// Responses kept.
    pub inserts: u64,
    /// Variants dropped because a key had too many.
    pub variants_capped: u64,
}

/// Bodies encoded and decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodingGauges {
    /// Bodies encoded, whole or while they streamed.
    pub encoded: u64,
    /// Stored bodies decoded.
    pub decoded: u64,
    /// Bytes that clients did not have to be sent because of it.
    pub saved: u64,
}

impl MemoryGauges {
    /// Times it did not have the key.
    pub const fn misses(&self) -> u64 {
        self.lookups.saturating_sub(self.hits)
    }
}

/// The states of the breaker before Redis, from well to ill.
pub(super) const BREAKER_STATES: [&str; 3] = ["closed", "half-open", "open"];

/// The Redis tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RedisGauges {
    /// Connected.
    pub up: bool,
    /// The breaker's state: `closed`, `half-open` or `open`.
    pub breaker: &'static str,
    /// Lookups, those that were refused included.
    pub gets: u64,
    /// Lookups that found a response.
    pub hits: u64,
    /// Lookups that were answered, but found none.
    pub misses: u64,
    /// Calls that failed.
    pub errors: u64,
    /// Calls that were not answered within the deadline.
    pub deadline_exceeded: u64,
    /// Calls that were not made: the breaker was open, or too many were under way.
    pub refused: u64,
    /// Values that were damaged or not Larder's, by what was wrong ([`Damaged::ALL`]).
    pub damaged: [u64; Damaged::ALL.len()],
    /// Responses written.
    pub writes: u64,
    /// Their bytes.
    pub written_bytes: u64,
    /// Bytes of records that lookups were given.
    pub read_bytes: u64,
    /// Writes that failed.
    pub write_errors: u64,
    /// Writes that were dropped: for a full queue, or purged since they were fetched.
    pub dropped_writes: u64,
    /// Bytes that wait to be written.
    pub queue_bytes: u64,
}

/// A node's part in the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetGauges {
    /// The node's name.
    pub node: String,
    /// Whether purges are heard: `ok`, `lagging` or `lost`.
    pub state: &'static str,
    /// How long ago what is known of purges was complete.
    pub lag: Duration,
    /// The longest lag at which memory is trusted.
    pub bound: Duration,
    /// Beyond it, how old the origin's word for a response may be; `None`: as old as it likes.
    pub when_lost: Option<Duration>,
    /// The number of the latest purge that is known.
    pub position: u64,
    /// Purges applied, of this node and of others.
    pub applied: u64,
    /// Purges told to the others.
    pub told: u64,
    /// Purges that wait to be told.
    pub untold: u64,
    /// Purges that will not be told: too many waited.
    pub lost: u64,
    /// Times the log was found to be another: Redis had lost it, or was set back.
    pub resumed: u64,
    /// Times purges were missed that could no longer be read.
    pub horizons: u64,
}

/// Fetches that the nodes of a fleet do for each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseGauges {
    /// Whether this node can be told of the others' fetches; else it fetches for itself.
    pub hears: bool,
    /// Leases that this node holds.
    pub held: u64,
    /// Fetches that wait for another node's.
    pub waiting: u64,
    /// Leases taken.
    pub taken: u64,
    /// Fetches that found another node at it.
    pub waited: u64,
    /// Told that it had been stored.
    pub stored: u64,
    /// Told that it would not be.
    pub not_stored: u64,
    /// Times nothing was told within a lease's time.
    pub expired: u64,
    /// Fetches for this node alone that would have had a lease.
    pub alone: u64,
}

/// Spans for who collects traces, by what has become of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpanGauges {
    /// Taken by the collector.
    pub sent: u64,
    /// Dropped, since too many waited already.
    pub dropped: u64,
    /// Given up, since the collector did not answer or refused the batch.
    pub failed: u64,
    /// Those that it said it had not taken, of batches that it took.
    pub rejected: u64,
}

impl SpanGauges {
    /// Each with its word.
    pub(super) const fn by_result(&self) -> [(&'static str, u64); 4] {
        [("sent", self.sent), ("dropped", self.dropped), ("failed", self.failed), ("rejected", self.rejected)]
    }
}

/// A node's warm start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WarmGauges {
    /// There is to be one.
    pub enabled: bool,
    /// It is over, or there was to be none.
    pub over: bool,
    /// Responses that were read into memory.
    pub loaded: u64,
    /// Those that were named and not taken: gone, stale, purged, damaged, or in memory already.
    pub skipped: u64,
    /// Responses that this node has named to others, last.
    pub named: u64,
    /// How long it took.
    pub took: Duration,
}

/// The states of a node towards the log of purges, from well to ill.
pub(super) const FLEET_STATES: [&str; 3] = ["ok", "lagging", "lost"];

impl RedisGauges {
    /// Several workers' tiers as one: up where all are, the breaker of the worst, all else summed.
    /// `None` of none.
    pub fn sum(workers: impl IntoIterator<Item = Self>) -> Option<Self> {
        workers.into_iter().reduce(|a, b| Self {
            up: a.up && b.up,
            breaker: if illness(a.breaker) < illness(b.breaker) { b.breaker } else { a.breaker },
            gets: a.gets + b.gets,
            hits: a.hits + b.hits,
            misses: a.misses + b.misses,
            errors: a.errors + b.errors,
            deadline_exceeded: a.deadline_exceeded + b.deadline_exceeded,
            refused: a.refused + b.refused,
            damaged: std::array::from_fn(|nth| {
                [a.damaged, b.damaged].iter().filter_map(|all| all.get(nth)).sum()
            }),
            writes: a.writes + b.writes,
            written_bytes: a.written_bytes + b.written_bytes,
            read_bytes: a.read_bytes + b.read_bytes,
            write_errors: a.write_errors + b.write_errors,
            dropped_writes: a.dropped_writes + b.dropped_writes,
            queue_bytes: a.queue_bytes + b.queue_bytes,
        })
    }
}

fn illness(breaker: &str) -> Option<usize> {
    BREAKER_STATES.iter().position(|state| *state == breaker)
}

/// One server of an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamGauges {
    /// The upstream's name in the configuration.
    pub upstream: String,
    /// The server, as configured.
    pub server: String,
    /// Open connections, idle ones included.
    pub open: u64,
    /// Connections that wait for a request.
    pub idle: u64,
    /// Requests that wait for a connection.
    pub waiting: u64,
    /// Connections made.
    pub connects: u64,
    /// Connections that could not be made.
    pub connect_errors: u64,
    /// Requests sent on a connection that had served another before.
    pub reused: u64,
    /// Requests sent again because a kept-alive connection turned out to be closed.
    pub retries: u64,
    /// Requests sent to it beside another server that had not begun its answer.
    pub hedges: u64,
    /// Of these, those that it answered first.
    pub hedges_won: u64,
    /// What can be wrong with what the server sends, and how often it was.
    pub flaws: Vec<(&'static str, u64)>,
}

/// A server that is listed twice becomes one: a label may not appear twice in an exposition.
pub(super) fn merged(upstreams: &[UpstreamGauges]) -> Vec<UpstreamGauges> {
    let mut merged: Vec<UpstreamGauges> = Vec::with_capacity(upstreams.len());
    for one in upstreams {
        match merged.iter_mut().find(|m| m.upstream == one.upstream && m.server == one.server) {
            Some(first) => first.add(one),
            None => merged.push(one.clone()),
        }
    }
    merged
}

impl UpstreamGauges {
    fn add(&mut self, other: &Self) {
        self.open += other.open;
        self.idle += other.idle;
        self.waiting += other.waiting;
        self.connects += other.connects;
        self.connect_errors += other.connect_errors;
        self.reused += other.reused;
        self.retries += other.retries;
        self.hedges += other.hedges;
        self.hedges_won += other.hedges_won;
        for (flaw, count) in &other.flaws {
            match self.flaws.iter_mut().find(|(known, _)| known == flaw) {
                Some((_, sum)) => *sum += count,
                None => self.flaws.push((flaw, *count)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_is_as_well_as_its_worst_worker() {
        let of = |up, breaker| RedisGauges { up, breaker, gets: 3, ..RedisGauges::default() };
        let (well, half, ill) = (of(true, "closed"), of(true, "half-open"), of(false, "open"));
        for workers in [[well, half, ill], [ill, half, well]] {
            let sum = RedisGauges::sum(workers).unwrap();
            assert_eq!((sum.up, sum.breaker, sum.gets), (false, "open", 9));
        }
        let sum = RedisGauges::sum([half, well]).unwrap();
        assert_eq!((sum.up, sum.breaker, sum.gets), (true, "half-open", 6));
        assert_eq!(RedisGauges::sum([]), None);
    }
}
