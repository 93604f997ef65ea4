//! From `proxy.toml` to a [`Config`], or to all of its problems with line and caret.
//!
//! Knows the file's names, units, defaults and how a mistake is shown. [`Config`] is immutable and
//! only this room makes one.
//! Must not know: sockets, threads, or what the settings do.

mod address;
mod cgroup;
mod check;
mod defaults;
mod edits;
mod environment;
mod lints;
mod listen;
mod live;
mod masks;
mod nearest;
mod network;
mod otlp;
mod overrides;
mod problems;
mod reader;
mod redis;
mod reference;
mod route_cache;
mod route_compress;
mod route_dangers;
mod route_index;
mod route_match;
mod route_rate;
mod route_tags;
mod routes;
mod secrets;
mod section;
mod syntax;
#[cfg(test)]
mod tests;
mod units;
mod upstreams;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::coding::Compress;
use crate::fields::trace::Tracing;
use crate::pace::Pace;
use crate::rate::Rate;
use crate::rules::Policy;
use crate::stored::{KeyPolicy, Secret, TagPolicy};

pub use address::without_password;
pub use cgroup::memory_limit;
pub use check::admin_refused;
pub use lints::Lint;
pub use problems::{Problem, Problems, Severity};
pub use reader::NO_VARIABLE;
pub use redis::{Identity, Login, Node, Place, Redis};
use route_index::RouteIndex;
pub use units::written;

/// The longest that Redis keeps a response, from its last confirmation on.
pub const KEPT_IN_REDIS: Duration = Duration::from_secs(7 * 24 * 3600);

/// The shipped `proxy.toml`: the commented reference, and the demo's configuration.
pub const SHIPPED: &str = include_str!("../../proxy.toml");

impl Config {
    /// Reads and checks a whole file. `file_name` is only shown; `env` answers `${NAME}`.
    ///
    /// # Errors
    /// Every problem of the file, each with its place; a mistake in TOML's own syntax is told alone,
    /// since nothing behind it can be trusted.
    pub fn parse(
        text: &str,
        file_name: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Problems> {
        Self::parse_within(text, file_name, env, None)
    }

    /// The same for a process that may have no more memory than `limit`, bytes; see [`memory_limit`].
    ///
    /// # Errors
    /// As of [`parse`](Self::parse): that there is too little is a warning.
    pub fn parse_within(
        text: &str,
        file_name: &str,
        env: &dyn Fn(&str) -> Option<String>,
        limit: Option<u64>,
    ) -> Result<Self, Problems> {
        let file = match toml::de::DeTable::parse(text) {
            Ok(file) => file,
            Err(error) => return Err(Problems::new(text, file_name, vec![syntax::found(text, &error)])),
        };
        let reader = reader::Reader::new(text, env);
        let config = check::config(&reader, file.get_ref(), text.len());
        check::within(&reader, file.get_ref(), &config.cache, limit);
        let by_environment = reader.uses_environment();
        let found = reader.into_found();
        let is_wrong = found.iter().any(problems::Found::is_error);
        let problems = Problems::new(text, file_name, found).with_environment(by_environment);
        if is_wrong { Err(problems) } else { Ok(Self { warnings: problems, ..config }) }
    }

    /// What works and is dangerous or does nothing, for people: of the file with its places, and of the files
    /// that it names. `None` where nothing is.
    pub fn warning(&self) -> Option<String> {
        self.warning_but(&[])
    }

    /// The same without those of these names.
    pub fn warning_but(&self, allowed: &[Lint]) -> Option<String> {
        let exposed = self.exposed_secrets().filter(|_| !allowed.contains(&Lint::ExposedSecret));
        let exposed =
            exposed.map(|exposed| format!("warning: {exposed}\n = name: {}", Lint::ExposedSecret.as_str()));
        let of_the_file = self.warnings.clone().but(allowed);
        let of_the_file = (!of_the_file.is_empty()).then(|| of_the_file.to_string());
        let all: Vec<String> = of_the_file.into_iter().chain(exposed).collect();
        (!all.is_empty()).then(|| all.join("\n\n"))
    }

    /// A time as a file has it, such as `500ms`.
    ///
    /// # Errors
    /// What to write instead.
    pub fn duration(text: &str) -> Result<Duration, String> {
        units::duration(text, "s").map_err(|mistake| format!("{}: {}", mistake.message, mistake.help))
    }

    /// Where a file has its admin listener, and the token for it, though all else in it be wrong; and what is wrong
    /// with these two, such as that it is not even TOML.
    pub fn admin_of(text: &str, file_name: &str, env: &dyn Fn(&str) -> Option<String>) -> (Admin, Problems) {
        let file = match toml::de::DeTable::parse(text) {
            Ok(file) => file,
            Err(error) => {
                let found = vec![syntax::found(text, &error)];
                return ((None, None), Problems::new(text, file_name, found));
            }
        };
        let reader = reader::Reader::new(text, env);
        let admin = check::admin_alone(&reader, file.get_ref());
        let by_environment = reader.uses_environment();
        let found = reader.into_found().into_iter().filter(problems::Found::is_error).collect();
        (admin, Problems::new(text, file_name, found).with_environment(by_environment))
    }

    /// The same of a file that is right: by a name that is mistyped in it, another Larder might be meant. Variables that
    /// are not set here count in these two settings alone: the running Larder has its own.
    ///
    /// # Errors
    /// Every problem of the file, each with its place.
    pub fn admin_of_good(
        text: &str,
        file_name: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Admin, Problems> {
        let file = match toml::de::DeTable::parse(text) {
            Ok(file) => file,
            Err(error) => return Err(Problems::new(text, file_name, vec![syntax::found(text, &error)])),
        };
        let reader = reader::Reader::new(text, env);
        let admin = check::admin_alone(&reader, file.get_ref());
        let unset = reader.into_found().into_iter().filter(problems::Found::is_error_of_environment);
        let whole = reader::Reader::new(text, env);
        check::config(&whole, file.get_ref(), text.len());
        let by_environment = whole.uses_environment();
        let all = whole.into_found();
        // What is said of a whole of which a part is not known here may be for want of that part alone.
        let unknown = |found: &problems::Found| {
            all.iter().any(|part| part.is_error_of_environment() && found.encloses(part))
        };
        let wrong = all.iter().filter(|found| found.is_error_of_file() && !unknown(found)).cloned();
        let found: Vec<_> = wrong.chain(unset).collect();
        if found.is_empty() {
            return Ok(admin);
        }
        Err(Problems::new(text, file_name, found).with_environment(by_environment))
    }
}

/// The address of an admin listener, `None` where it is off, and the token for it.
pub type Admin = (Option<SocketAddr>, Option<String>);

/// Everything that was configured, checked as a whole.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The public listeners.
    pub listen: Vec<Listen>,
    /// Address of the admin listener; `None` where `admin = "off"`.
    pub admin: Option<SocketAddr>,
    /// Bearer token of the admin listener.
    pub admin_token: Option<String>,
    /// Request threads, at least 1.
    pub workers: usize,
    /// Peers who are believed about the way of a request: their own `X-Forwarded-*` are kept and added to.
    pub trusted_proxies: Vec<Network>,
    /// Clients whose PURGE is obeyed on the public listeners.
    pub purge_from: Vec<Network>,
    /// `[log]`
    pub log: Log,
    /// `[cache]`
    pub cache: Cache,
    /// `[timing]`
    pub timing: Timing,
    /// `[limits]`
    pub limits: Limits,
    /// `[otlp]`; `None` where nobody collects traces.
    pub otlp: Option<Otlp>,
    /// `[upstream.*]`
    pub upstreams: Vec<Upstream>,
    /// `[[route]]`, in the file's order: the first match wins.
    pub routes: Vec<Route>,
    /// The same, to be found by.
    pub(super) route_index: RouteIndex,
    /// What of the file works and is dangerous or does nothing.
    pub warnings: Problems,
}

/// One of `listen`: an address, or a table of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where.
    pub address: SocketAddr,
    /// Every connection begins with a header of the PROXY protocol that names its client.
    pub proxy_protocol: bool,
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self { address, proxy_protocol: false }
    }
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Which messages reach stderr, such as `info` or `info,larder::slow=off`.
    pub level: String,
    /// How messages on stderr look.
    pub format: LogFormat,
    /// Access log on stdout.
    pub access: Access,
    /// Access-log lines that may wait for a slow stdout before further ones are dropped.
    pub access_queue: usize,
    /// What is done about `traceparent` and `X-Request-Id`.
    pub trace: Tracing,
    /// Arguments of queries whose values are not written, in lower case.
    pub redact: Vec<String>,
}

/// How messages on stderr look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// One readable line each.
    Text,
    /// One JSON object each.
    Json,
}

/// The access log's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// None.
    Off,
    /// One readable line a request.
    Text,
    /// One JSON object a request.
    Json,
}

/// `[cache]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Bytes of the memory tier, all of it weighed.
    pub memory: u64,
    /// The shared tier; `None` = memory only.
    pub redis: Option<Redis>,
    /// What all keys in Redis begin with.
    pub namespace: String,
    /// Contents larger than this are compressed in Redis where it pays; `None` = none.
    pub redis_compress: Option<u64>,
    /// The longest that a request waits for the Redis tier.
    pub redis_deadline: Duration,
    /// How long a node that dies keeps the others from fetching what it was fetching for all.
    pub redis_lease: Duration,
    /// Bodies larger than this stay out of Redis, bytes.
    pub redis_max_object: u64,
    /// The file with the secrets that values in Redis are sealed with; none: they are in the clear.
    pub redis_secret_file: Option<String>,
    /// What [`Config::read_secrets`] has read there.
    pub redis_secrets: Vec<Secret>,
    /// Bytes that may wait to be written to Redis before further writes are dropped, per worker.
    pub redis_queue: u64,
    /// The longest that a response may be served from memory after another node has purged it.
    pub coherence_bound: Duration,
    /// The longest that one is served without the origin's word while purges cannot be heard; `None`: for as
    /// long as it is fresh.
    pub coherence_when_lost: Option<Duration>,
    /// Purges that the log of the fleet holds, of each of its two kinds.
    pub purge_record: u64,
    /// What a node that starts reads from Redis before it says that it is ready; `None` = nothing.
    pub warm_start: Option<WarmStart>,
    /// Bodies larger than this are not stored, bytes.
    pub max_object: u64,
    /// Bytes of bodies that may be on their way into the cache at once, and of gathered requests; beyond it responses are
    /// passed through unstored.
    pub in_flight: u64,
    /// With `range = "auto"`, a representation known to be no larger than this is completed when a
    /// range of it is missing, bytes.
    pub range_fill: u64,
    /// Bytes that a slow client may lag behind a body that outgrew `max_object`.
    pub lag: u64,
    /// How long a client that lags so far may hold up the others before it is cut off.
    pub lag_timeout: Duration,
    /// Variants (Vary) kept in memory per key.
    pub variants: usize,
    /// How long an uncacheable key is remembered, so that its requests do not wait in line.
    pub hit_for_miss: Duration,
    /// Tell a client that asks (`Larder-Debug: key`) the key of its own request, in `Cache-Status`.
    pub status_key: bool,
    /// Which hits are fetched again and compared; `None` = none.
    pub verify: Option<Sample>,
    /// How long nothing is stored under a key whose response was not for all.
    pub quarantine: Duration,
}

/// `cache.warm_start`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WarmStart {
    /// Responses that are named to others, and read; at least 1.
    pub keys: usize,
    /// How long reading may take.
    pub time: Duration,
    /// Between two times that the hottest are named.
    pub every: Duration,
}

/// So many of so many, such as `1/1000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Taken; at least 1.
    pub some: u32,
    /// Of so many, at least as many.
    pub of: u32,
}

impl Sample {
    /// Whether the one with this number, from 0, is of the sample; evenly spread.
    pub const fn takes(self, number: u64) -> bool {
        let of = if self.of == 0 { 1 } else { self.of as u64 };
        (number % of) * (self.some as u64) % of < self.some as u64
    }
}

/// `[timing]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Send `X-Process-Time`.
    pub process_time: bool,
    /// Send `Server-Timing`.
    pub server_timing: bool,
    /// Requests slower than this are logged; `None` where `slow_request = "off"`.
    pub slow_request: Option<Duration>,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open client connections, all workers together.
    pub connections: usize,
    /// Open connections of one client address, trusted proxies aside.
    pub per_address: usize,
    /// Time for the first byte on a new connection.
    pub first_byte_time: Duration,
    /// Time for a request's head to arrive, from its first byte to its last.
    pub header_time: Duration,
    /// How long a connection may be kept between requests.
    pub idle_time: Duration,
    /// Requests on a connection.
    pub requests: u64,
    /// Bytes of a request's head.
    pub head_size: usize,
    /// Fields of a request's head.
    pub fields: usize,
    /// Bytes of a request's target, path and query.
    pub target: usize,
    /// How slowly a request's body may come: `body_rate` and `body_grace`.
    pub body: Pace,
    /// How fast it must come, bytes a second, while connections to its server are in demand.
    pub body_rate_in_demand: u64,
    /// How slowly a client may take what it is sent: `response_rate` and `response_grace`.
    pub response: Pace,
    /// Concurrent HTTP/2 streams on a connection.
    pub streams: u32,
    /// Open tunnels of one client address, trusted proxies aside.
    pub tunnels_per_address: usize,
    /// How long a tunnel (an upgraded connection) may stay open while nothing moves in it.
    pub tunnel_idle: Duration,
    /// How long Larder serves on when it is told to stop, so that everybody can hear of it.
    pub lame_duck: Duration,
    /// Time in all from there to the end.
    pub drain: Duration,
    /// Time for an admin request's answer, and its body's limit is 64 KiB.
    pub admin_time: Duration,
}

impl Limits {
    /// The pace of a body that holds a connection which others may be waiting for.
    pub fn body_in_demand(&self) -> Pace {
        Pace { rate: self.body_rate_in_demand.max(self.body.rate), ..self.body }
    }
}

/// `[otlp]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otlp {
    /// The collector's host, from `http://host[:port][/path]`; IPv6 without brackets.
    pub host: String,
    /// Its port, 4318 where none was written.
    pub port: u16,
    /// Its path, `/v1/traces` where none was written.
    pub path: String,
    /// Fields of each request to it.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// A file with further ones; [`Config::read_secrets`] reads it.
    pub headers_file: Option<String>,
    /// Of the traces that Larder begins, so many are sampled.
    pub sample: Sample,
    /// For one batch.
    pub timeout: Duration,
    /// Spans that may wait before further ones are dropped.
    pub queue: usize,
    /// `service.name` of the process.
    pub service_name: String,
    /// Further attributes of the process.
    pub attributes: Vec<(String, String)>,
}

impl Otlp {
    /// What takes a restart: all but the share of traces, which goes by `log.trace`.
    fn but_for_sample(&self) -> Self {
        Self { sample: Self::default().sample, ..self.clone() }
    }
}

/// `[upstream.NAME]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Its name in the file.
    pub name: String,
    /// Its servers, at least one.
    pub servers: Vec<Server>,
    /// `timeout`
    pub timeout: Timeouts,
    /// `pool`
    pub pool: Pool,
}

/// One server of an upstream, from `http://host[:port]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// Port, 80 where none was written.
    pub port: u16,
}

/// `timeout = { … }`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To a connection, name resolution included.
    pub connect: Duration,
    /// From the request being sent, or the last interim response (1xx), to the response's head.
    pub first_byte: Duration,
    /// How long a server may take to begin its answer before another is asked as well; `None` where
    /// `hedge_after = "off"`.
    pub hedge_after: Option<Duration>,
    /// For the whole exchange, body included.
    pub total: Duration,
}

/// `pool = { … }`; each figure is per server, all workers together, but for `max_tunnels`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Connections kept warm.
    pub min_idle: usize,
    /// Connections kept for reuse at most.
    pub max_idle: usize,
    /// Connections at most.
    pub max_connections: usize,
    /// Tunnels at most, of all servers of the upstream together.
    pub max_tunnels: usize,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// How old a connection may get and still be reused.
    pub max_age: Duration,
    /// How long a request waits for a connection when all are in use.
    pub queue_timeout: Duration,
    /// Requests that may wait so; more are refused at once.
    pub queue: usize,
}

/// `[[route]]`
#[derive(Clone, Debug)]
pub struct Route {
    /// Label in metrics, logs and headers.
    pub name: String,
    /// Which requests it takes.
    pub matcher: Match,
    /// Index into [`Config::upstreams`].
    pub upstream: usize,
    /// Bytes of a request's body; `u64::MAX` where the route says `max_body = "off"`.
    pub max_body: u64,
    /// Bytes of a request's body that are gathered, once connections are in demand, before one is taken; 0 for none.
    pub request_buffer: u64,
    /// Edits of the forwarded request.
    pub request_headers: Edits,
    /// Edits of the delivered response; never stored.
    pub response_headers: Edits,
    /// `tags`: what its responses can be purged by, beside what the origin says.
    pub tags: TagPolicy,
    /// `None` where the route says `cache = false`.
    pub cache: Option<RouteCache>,
    /// What is encoded on its way to clients; `None` where the route does not ask for it.
    pub compress: Option<Compress>,
    /// Requests may leave HTTP for another protocol.
    pub upgrade: bool,
    /// Its requests that are slower than this are logged: what `timing.slow_request` says where it says nothing.
    pub slow_request: Option<Duration>,
    /// `rate_limit`: how often each client may ask; a request must keep to all of them.
    pub rate_limits: Vec<RateLimit>,
    /// Line of its `[[route]]` in the file, from 1.
    pub line: usize,
}

/// `[route.cache]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteCache {
    /// What the key is made of.
    pub key: KeyPolicy,
    /// Lifetimes and the like.
    pub policy: Policy,
    /// Bytes of a request's content, where it is part of the key; a larger one does not use the cache.
    pub max_request_body: u64,
    /// Answers of the origin to unsafe requests may invalidate groups (RFC 9875).
    pub group_invalidation: bool,
    /// Responses may say that not all of the query counts (`No-Vary-Search`).
    pub no_vary_search: bool,
    /// What several nodes ask for at once is fetched by one of them.
    pub fleet_collapse: bool,
}

/// `rate_limit = { … }`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// How often.
    pub rate: Rate,
    /// What tells clients apart.
    pub by: RateBy,
    /// How many are told apart at once; 16 bytes each.
    pub clients: usize,
}

/// What tells the clients of a rate limit apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RateBy {
    /// Their address; of IPv6 the first 64 bits.
    Address,
    /// What they send in a field; the address of those who do not send it.
    Header(HeaderName),
}

/// `match = { … }`: every part that is given must agree.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// Any of these; empty = any path (unless `regex` is given).
    pub paths: Vec<PathPattern>,
    /// A pattern over the path.
    pub regex: Option<regex_lite::Regex>,
    /// Any of these, in lower case, without port; empty = any.
    pub hosts: Vec<HostPattern>,
    /// Any of these; empty = any.
    pub methods: Vec<Method>,
}

/// A path of `match.path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathPattern {
    /// `"/users"`
    Exact(String),
    /// `"/users/*"`, held as `"/users/"`; it does not match `/users` itself.
    Prefix(String),
}

/// A host of `match.host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// `"api.example.com"`
    Exact(String),
    /// `"*.example.com"`, held as `".example.com"`.
    Suffix(String),
}

/// `request_headers` and `response_headers`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Removed first.
    pub remove: Vec<HeaderName>,
    /// Then set, in place of any that stand.
    pub set: Vec<(HeaderName, HeaderValue)>,
}

impl Edits {
    /// Removes, then sets.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
    }
}

/// An address with a prefix length, such as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Address.
    pub addr: IpAddr,
    /// Bits of it that count.
    pub prefix: u8,
}
