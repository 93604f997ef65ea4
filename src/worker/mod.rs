//! What one request thread owns, what all of them share, and the configuration in force.
//!
//! Knows the parts that requests are served with and hands them to both machines.
//! Must not know: the order in which they are used.

mod asked;
mod doubts;
mod fleet;
mod forget;
mod landing;
mod press;
mod purge;
mod receipts;
mod reload;
mod spans;
#[cfg(test)]
pub(crate) mod tests;
mod warm;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue, Method, Uri};
use http_body::Body;
use parking_lot::Mutex;

use crate::clock::{Clock, Mono, Timestamp};
use crate::config::{Config, RateLimit, Route, RouteCache, Sample};
use crate::flight::Flights;
use crate::interim;
use crate::rate::{Holds, Table};
use crate::rules::Methods;
use crate::store::{Coherence, Hot, Leases, Memory, Passing, Purges, Reach, Redis, STREAMING_MUCH, Searches};
use crate::stored::{CacheKey, KeyPolicy, StoredResponse};
use crate::telemetry::{
    AccessLog, Cuts, Heads, Hints, Metrics, ProxyHeaders, Shard, SlowRequests, Spans, Tunnels,
};
use crate::upstream::{Leave, OriginBody, Upstream};

pub use asked::{Asked, Content};
pub use doubts::Doubts;
pub use fleet::{Membership, join as join_fleet};
pub use forget::Forgotten;
pub use landing::{Fetched, FillTimes, ForOwner, Forms, Landing, Looked, Own, OwnerLanding};
pub use press::{Press, worthwhile};
pub use purge::{NotAUrl, Purged};
pub use receipts::{Receipt, Receipts};
pub use reload::{Anew, NotReloaded, Reloaded, Reloads, Reread};
pub use spans::Sent;
pub use warm::{Warming, spawn as spawn_warm_start};

/// One request thread's own.
pub struct Worker {
    /// Number of the thread, from 0.
    pub index: usize,
    /// What all threads share.
    pub shared: Arc<Shared>,
    /// This thread's connection to the shared tier.
    pub redis: Option<Redis>,
    /// Hits that could have been looked at again (`cache.verify`).
    pub sampled: AtomicU64,
}

/// What all threads share.
pub struct Shared {
    /// The time.
    pub clock: Clock,
    /// The configuration in force; swapped as a whole.
    pub snapshot: ArcSwap<Snapshot>,
    /// The memory tier.
    pub memory: Memory,
    /// What is asked for most.
    pub hot: Hot,
    /// How far the warm start has come.
    pub warming: Warming,
    /// What was purged, and when.
    pub purges: Arc<Purges>,
    /// The latest of them, and what came of each.
    pub receipts: Receipts,
    /// Of which paths it is known that not all of the query counts.
    pub searches: Searches,
    /// The fetches in flight.
    pub flights: Arc<Flights<Landing>>,
    /// The access log, where one is kept.
    pub access: Option<AccessLog>,
    /// The way to who collects traces, where one is configured.
    pub spans: Option<Spans>,
    /// The last slow requests.
    pub slow: SlowRequests,
    /// How this process names itself in `Via`: unlike any other's, so that a loop is told from a
    /// chain.
    pub pseudonym: String,
    /// The same as every response has it, made once.
    pub via: Option<HeaderValue>,
    /// What has become of interim responses.
    pub interim: Arc<interim::Counts>,
    /// Why connections of clients were ended.
    pub cuts: Arc<Cuts>,
    /// Connections that did not begin with the header that their listener asks for.
    pub proxy_headers: ProxyHeaders,
    /// Heads that were refused before they were requests.
    pub heads: Heads,
    /// Connections that have left HTTP.
    pub tunnels: Arc<Tunnels>,
    /// Which settings the log was last told that requests meet.
    pub hints: Hints,
    /// How many of them each client has.
    pub tunnels_held: Arc<Holds>,
    /// Open client connections.
    pub connections: AtomicU64,
    /// Whether Larder is stopping.
    pub draining: AtomicBool,
    /// When it started.
    pub started: Mono,
    /// The same, by the wall's clock.
    pub started_at: Timestamp,
    /// Every thread's connection to the shared tier, for figures.
    pub tiers: Mutex<Vec<Redis>>,
    /// Where bodies are encoded and decoded.
    pub press: Press,
    /// How far memory may be trusted, where nodes share a Redis.
    pub coherence: Option<Arc<Coherence>>,
    /// This node's part in the fleet, once it has begun to take it.
    pub fleet: Membership,
    /// This node's leases to fetch for the fleet, once it takes part in it.
    pub leases: OnceLock<Leases>,
    /// What the log was last told of the shared tier.
    pub reach: Arc<Reach>,
    /// Keys that are not trusted for a while.
    pub doubts: Doubts,
    /// How another configuration comes into force.
    pub reloads: Reloads,
    /// Every thread's runtime, for figures.
    pub runtimes: Mutex<Vec<tokio::runtime::Handle>>,
}

/// A configuration and what was made from it.
pub struct Snapshot {
    /// As checked.
    pub config: Config,
    /// One for each of `config.upstreams`, in its order.
    pub upstreams: Vec<Arc<Upstream>>,
    /// The counts of each of `config.routes`, in its order: one table for each of its rate limits.
    pub rates: Vec<Vec<Arc<Table>>>,
    /// The fields that clients of each of `config.routes` are not sent in interim responses, in its order.
    pub withheld: Vec<Arc<[HeaderName]>>,
    /// One series for each of `config.routes`, in its order.
    pub metrics: Metrics,
}

/// A key of a URL.
struct KeyOfUrl {
    /// Request fields and content apart.
    key: CacheKey,
    /// Whether request fields or contents make several of it.
    several: bool,
    /// Whether responses may be stored under a rule for the path's query.
    searched: bool,
}

/// Bodies from here on are worth large reads, bytes.
const MUCH: u64 = 64 * 1024;

/// Room for what large reads may leave between an origin and a slow client, which holds as long as nothing else needs it.
struct Room(Passing);

impl Leave for Room {
    fn holds(&self) -> bool {
        self.0.is_affordable()
    }
}

impl Shared {
    /// Has a body of an origin that is known to be large be read in large pieces while there is room.
    pub fn read_much(&self, body: &mut OriginBody) {
        if body.size_hint().exact().is_some_and(|bytes| bytes >= MUCH)
            && let Some(room) = self.memory.in_flight().try_passing(STREAMING_MUCH)
        {
            body.read_much(Room(room));
        }
    }

    /// Whether memory holds this very response, and no purge has made it void: only such a one may be confirmed
    /// by an origin, whose word on it would else bring back what was purged.
    pub fn holds(&self, response: &Arc<StoredResponse>) -> bool {
        self.memory.holds(response) && !self.purges.is_purged(response)
    }

    /// Tasks that have begun and not ended, on all threads.
    pub fn tasks(&self) -> u64 {
        let runtimes = self.runtimes.lock();
        runtimes.iter().map(|runtime| runtime.metrics().num_alive_tasks() as u64).sum()
    }
}

impl Worker {
    /// The time of day.
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Whether the hit at hand is one of the sample. Counts it.
    pub fn is_sampled(&self, sample: Sample) -> bool {
        sample.takes(self.sampled.fetch_add(1, Ordering::Relaxed))
    }

    /// The time for durations.
    pub fn mono(&self) -> Mono {
        self.shared.clock.mono()
    }

    /// Both, as cheaply as one: see [`Clock::moment`](crate::clock::Clock::moment).
    pub fn moment(&self) -> (Timestamp, Mono) {
        self.shared.clock.moment()
    }
}

impl Snapshot {
    /// The route at `index`.
    pub fn route(&self, index: usize) -> Option<&Route> {
        self.config.routes.get(index)
    }

    /// How the route at `index` caches; `None` where it does not.
    pub fn cache(&self, index: usize) -> Option<&RouteCache> {
        self.route(index).and_then(|route| route.cache.as_ref())
    }

    /// The name of the upstream of the route at `index`.
    pub fn upstream_name(&self, index: usize) -> &str {
        let upstream = self.route(index).and_then(|route| self.config.upstreams.get(route.upstream));
        upstream.map_or("-", |upstream| &upstream.name)
    }

    /// The rate limits of the route at `index`, and the counts of each.
    pub fn rates(&self, index: usize) -> impl Iterator<Item = (&RateLimit, &Arc<Table>)> {
        let limits = self.route(index).map_or(&[][..], |route| &route.rate_limits);
        let tables = self.rates.get(index).map_or(&[][..], Vec::as_slice);
        limits.iter().zip(tables)
    }

    /// The fields that clients of the route at `index` are not sent in interim responses: those that it removes from
    /// responses or writes itself, its tags among them.
    pub fn withheld(&self, index: usize) -> Option<Arc<[HeaderName]>> {
        self.withheld.get(index).map(Arc::clone)
    }

    /// The upstream of the route at `index`.
    pub fn upstream(&self, index: usize) -> Option<&Arc<Upstream>> {
        self.route(index).and_then(|route| self.upstreams.get(route.upstream))
    }

    /// The keys under which responses to requests for `url` are stored, request fields and content
    /// apart; none where `url` is not an absolute `http`
    /// URL. Mostly it is one: the routes that would take such requests say how URLs are read. The first
    /// is that of a GET.
    fn keys_of_url(&self, url: &str) -> Vec<KeyOfUrl> {
        let Ok(uri) = url.parse::<Uri>() else { return Vec::new() };
        let Some(host) = uri.host().map(str::to_ascii_lowercase) else { return Vec::new() };
        let (mut keys, plain): (Vec<KeyOfUrl>, _) = (Vec::new(), KeyPolicy::default());
        for method in Methods::ALL {
            let route = self.config.route(&method, &host, uri.path());
            let cache = route.and_then(|route| self.cache(route));
            if cache.is_none() && method != Method::GET {
                continue;
            }
            let several =
                cache.is_some_and(|cache| cache.key.has_extras() || cache.policy.methods.with_content());
            let searched = cache.is_some_and(|cache| cache.no_vary_search);
            let Some(key) = CacheKey::of_url(url, cache.map_or(&plain, |cache| &cache.key)) else { continue };
            match keys.iter_mut().find(|known| known.key == key) {
                Some(known) => {
                    known.several |= several;
                    known.searched |= searched;
                }
                None => keys.push(KeyOfUrl { key, several, searched }),
            }
        }
        keys
    }

    /// The counters that thread `worker` writes.
    pub fn shard(&self, worker: &Worker) -> &Shard {
        self.metrics.shard(worker.index)
    }
}
