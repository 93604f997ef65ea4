//! Every default, in one place, each with its reason.
//!
//! The shipped `proxy.toml` shows the same values with the same reasons in plain words, and a test
//! compares the two. A route's cache defaults are [`crate::rules::Policy`]'s.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::{Access, Cache, Limits, Log, LogFormat, Pool, RouteCache, Timeouts, Timing};
use crate::fields::trace::Tracing;
use crate::pace::Pace;
use crate::rules::Policy;
use crate::stored::KeyPolicy;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Loopback, so that nothing is public before somebody says so; 8080 needs no privilege.
pub(super) const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// Loopback: who can reach it can purge.
pub(super) const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9900);

/// One thread per core: they share little, so more of them would only take turns.
pub(super) fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

const REDACTED: [&str; 14] = [
    "access_token",
    "api_key",
    "apikey",
    "auth",
    "code",
    "id_token",
    "key",
    "password",
    "refresh_token",
    "secret",
    "sig",
    "signature",
    "token",
    "x-amz-signature",
];

impl Default for Log {
    fn default() -> Self {
        Self {
            // What an operator wants to know without asking.
            level: "info".into(),
            // People read text, machines JSON.
            format: LogFormat::Auto,
            // Metrics and the slow-request log tell most of it for less.
            access: Access::Off,
            // About 2 MiB of lines: a pause of the reader, not a lasting one.
            access_queue: 8192,
            // What is made by us would decide for origins that sample by their parent: all, or nothing.
            trace: Tracing::Accept,
            // What sign-ins, signed links and API keys are called.
            redact: REDACTED.map(str::to_owned).to_vec(),
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            // Fits beside an API on a small machine.
            memory: 256 * MIB,
            // The shared tier needs a server, so it is asked for by name.
            redis: None,
            // One fleet to a Redis is the usual.
            namespace: "larder".to_owned(),
            // A packet's worth: less is not sent any sooner for being smaller.
            redis_compress: Some(1024),
            // In the clear: a secret has to be made, and kept, by somebody.
            redis_secret_file: None,
            redis_secrets: Vec::new(),
            // Beyond this, most origins answer as fast as a Redis in trouble.
            redis_deadline: Duration::from_millis(20),
            // Ten times what most origins take to answer: a node that dies meanwhile costs others no more, and is asked
            // to show that it lives once a second.
            redis_lease: Duration::from_secs(3),
            // Larger values hold up the small ones behind them on the same connection.
            redis_max_object: redis_max_object(16 * MIB),
            // A burst of 16 of the largest; further writes are dropped and counted.
            redis_queue: 16 * MIB,
            // Nobody waits a second for others to see what was written; asking eight times in it costs nothing.
            coherence_bound: Duration::from_secs(1),
            // What a Redis takes to restart or to fail over.
            coherence_when_lost: Some(Duration::from_secs(10)),
            // A minute of a thousand writes a second; some 10 MiB in Redis.
            purge_record: 65_536,
            // What most requests are for, and a few dozen MB of it; who waits for a node waits no longer than this.
            warm_start: Some(super::WarmStart {
                keys: 20_000,
                time: Duration::from_secs(3),
                // What is hot changes in minutes; a list is half a megabyte to Redis.
                every: Duration::from_secs(30),
            }),
            // Larger ones would push out too much else.
            max_object: 16 * MIB,
            // See `in_flight`.
            in_flight: in_flight(256 * MIB),
            // As quickly fetched as a part of it.
            range_fill: MIB,
            // About what sockets on the way hold anyway.
            lag: MIB,
            // Time for a stalled network to come back, not for a client that reads nothing.
            lag_timeout: Duration::from_secs(5),
            // Languages times encodings; more of them means that the origin varies on a person.
            variants: 64,
            // Long enough to spare a burst from waiting in line, short enough that a response
            // that becomes cacheable is soon noticed.
            hit_for_miss: Duration::from_secs(10),
            // Made of the client's own request, it tells nobody anything about others.
            status_key: true,
            // Each is one request more, or up to five, to the origin.
            verify: None,
            // Time for somebody to see the event, while all others are answered by the origin alone.
            quarantine: Duration::from_secs(600),
        }
    }
}

/// A quarter of the memory tier, which yields to it: enough for fast fetches, and not so much that they empty the
/// tier; the largest object at least.
pub(super) fn in_flight(memory: u64) -> u64 {
    (memory / 4).clamp(16 * MIB, 256 * MIB)
}

/// What may wait in a queue at all, and of that what holds up little.
pub(super) fn redis_max_object(queue: u64) -> u64 {
    MIB.min(queue)
}

impl Default for RouteCache {
    fn default() -> Self {
        Self {
            key: KeyPolicy::default(),
            policy: Policy::default(),
            // More than any query that people write; what is larger is an upload.
            max_request_body: 64 * KIB,
            // The origin's own word about its own resources.
            group_invalidation: true,
            // The origin's own word about its own queries.
            no_vary_search: true,
            // A cold key costs the origin one request, however many nodes there are.
            fleet_collapse: true,
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            // A number on each response costs nothing and answers the first question.
            process_time: true,
            // Browsers show it beside each request.
            server_timing: true,
            // The point at which people notice that they are waiting.
            slow_request: Some(Duration::from_secs(1)),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Some 20 KiB each while they wait: 320 MiB.
            connections: 16_384,
            // Three quarters: no single address can take them all.
            per_address: per_address(16_384),
            // Whoever connects has something to ask. Browsers open a connection ahead, and open it again.
            first_byte_time: Duration::from_secs(10),
            // A packet lost three times over is still in time.
            header_time: Duration::from_secs(10),
            // Longer than the 60 s of the load balancers that stand in front, so that they close first and
            // none of their requests meets a closing connection.
            idle_time: Duration::from_secs(75),
            // Bounds what a connection may gather, and is met by machines alone.
            requests: 1_000_000,
            // Room for large cookies and tokens; servers behind often take less.
            head_size: 64 * 1024,
            // Twice what large sites send.
            fields: 100,
            // RFC 9112 §3: "recipients support, at a minimum, request-line lengths of 8000 octets".
            target: 8 * 1024,
            // A modem is six times as fast. The grace is a pause for a phone between two cells, and what a
            // peer that sends a byte a second gets.
            body: Pace { rate: 240, grace: Duration::from_secs(10) },
            // What EDGE brings. A body that is on its way holds a connection that others wait for; at this pace
            // who wants to hold all of them must send 8 MB a second.
            body_rate_in_demand: 8 * KIB,
            // The same rate; twice the grace, since TCP itself pauses for some 15 s before it finds back to a
            // phone that was in a tunnel.
            response: Pace { rate: 240, grace: Duration::from_secs(20) },
            // What browsers and other servers use.
            streams: 128,
            // A quarter of what an upstream takes of them: an office or some dozens of tabs, and nobody has them all.
            tunnels_per_address: 128,
            // Those who speak through one send a sign of life every 20 to 60 s: several may be lost.
            tunnel_idle: Duration::from_secs(5 * 60),
            // Balancers notice within a few seconds, and connections are asked again by then.
            lame_duck: Duration::from_secs(5),
            // What service managers grant before they kill.
            drain: Duration::from_secs(30),
            // Every admin answer is small and made at once.
            admin_time: Duration::from_secs(10),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            // A server of one's own network answers in milliseconds, or is down.
            connect: Duration::from_secs(1),
            // Slower than this, a client has given up already.
            first_byte: Duration::from_secs(10),
            // Half of it, wherever that is: late enough that an endpoint which is slow by nature is rarely asked twice,
            // early enough that the other server has as long as the first had.
            hedge_after: Some(Duration::from_secs(5)),
            // Bounds a body that trickles.
            total: Duration::from_secs(60),
        }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            // The first requests open what they need.
            min_idle: 0,
            // Enough to ride out a lull without opening all again.
            max_idle: 64,
            // Each answer that hangs, or that a client takes slowly, holds one: with a few hundred, as many such
            // clients would keep all others out. Beyond a thousand, more at once no longer helps a server.
            max_connections: 1024,
            // Half: a tunnel holds its connection for hours, and requests are to find some.
            max_tunnels: 512,
            // Below the 5 s after which the common API servers (Node, uvicorn) close theirs, so
            // that we close first and no request meets a closing connection.
            idle_timeout: Duration::from_secs(4),
            // So that a changed DNS answer or a new server is used within minutes.
            max_age: Duration::from_secs(5 * 60),
            // A queue that is longer than this does not get shorter.
            queue_timeout: Duration::from_secs(1),
            // Four for each connection: what a server at 4 ms a request works off in 16 ms.
            queue: 1024,
        }
    }
}

/// The least that hyper takes for a request's head.
pub(super) const LEAST_HEAD: u64 = 8 * KIB;

/// Of a request's body: as much as `timeout.total` lets through at 140 Mbit/s. Larder streams it and holds none
/// of it, so this spares the origin, which may well take less.
pub(super) const MAX_BODY: u64 = 1 << 30;

/// Of a request's body, before a connection to its server is taken: all of a form, of an API's call, of most that
/// browsers send. What is larger is seldom sent a byte at a time, and its beginning has shown its pace by then.
pub(super) const REQUEST_BUFFER: u64 = 64 * KIB;

/// Connections that one address may have of so many.
pub(super) const fn per_address(connections: usize) -> usize {
    connections.saturating_mul(3).div_ceil(4)
}
