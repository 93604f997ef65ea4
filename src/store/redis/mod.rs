//! The shared tier: Redis, which can never fail or hold up a request.
//!
//! Knows how a response is found, kept and purged in Redis, all within a deadline. The only answers
//! are a response, or absent and why ([`Absent`]); nothing here returns an error that a caller
//! would have to handle, and nothing waits for longer than it says. Each worker has a handle of its
//! own, with two connections: one for lookups, one for the writes behind.
//! Must not know: the memory tier, freshness, or what is done with a response.

mod keys;
mod link;
mod queue;
mod reach;
mod script;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use redis::aio::MultiplexedConnection;
use redis::{Value, cmd};
use tokio::time::timeout;

use self::link::{AbortOnDrop, Fault, Link, Phase, ask};
use self::queue::{Notice, Queue, Write, Writer};
use self::reach::Member;
pub use self::reach::Reach;
use super::Purges;
use crate::clock::{Clock, Mono, Timestamp};
use crate::config;
use crate::fields::no_vary_search::{NO_VARY_SEARCH, NoVarySearch};
use crate::fields::vary::Vary;
use crate::rules::{Normalize, selecting_fields};
use crate::stored::{CacheKey, Group, Record, StoredResponse, decode};
use crate::telemetry::RedisGauges;

/// How long a start waits for the first connection.
const FIRST_CONNECT: Duration = Duration::from_millis(500);

/// One worker's handle to the Redis tier. Its tasks live on the runtime that started it, and end
/// when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Redis(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    reader: Link,
    writer: Arc<Link>,
    queue: Arc<Queue>,
    purges: Arc<Purges>,
    counters: Arc<Counters>,
    clock: Clock,
    deadline: Duration,
    max_object: u64,
    _writing: AbortOnDrop<()>,
}

/// What a lookup gave.
#[derive(Debug)]
pub struct Answer {
    /// The response, or why there is none.
    pub found: Result<Arc<StoredResponse>, Absent>,
    /// The URL's generation, to be handed to [`Redis::put`] after a fetch that begins now; `None`
    /// when it could not be learned, and then nothing may be put.
    pub generation: Option<Generation>,
}

/// What stood for a URL before a fetch began, and when Redis was asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    number: u64,
    seen_at: Mono,
}

/// Why Redis gave no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Absent {
    /// Nothing is stored, or it has been purged.
    NotFound,
    /// Something is stored, but not for the request's selecting fields.
    OtherVariant,
    /// The breaker is open: Redis was not asked.
    Open,
    /// Too many calls were under way: Redis was not asked.
    Full,
    /// No answer within the deadline.
    Deadline,
    /// The connection broke, or Redis answered with an error.
    Error,
    /// What is stored cannot be read, or is not ours.
    Damaged,
}

impl Absent {
    /// The word for headers, labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::OtherVariant => "other-variant",
            Self::Open => "breaker-open",
            Self::Full => "too-many-calls",
            Self::Deadline => "deadline",
            Self::Error => "error",
            Self::Damaged => "damaged",
        }
    }
}

impl From<Fault> for Absent {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Open => Self::Open,
            Fault::Full => Self::Full,
            Fault::Deadline => Self::Deadline,
            Fault::Lost | Fault::Nonsense | Fault::Refused => Self::Error,
        }
    }
}

impl Generation {
    /// That of what is stored under a rule for its path: no purge gives it another.
    pub fn of_searched(self) -> Self {
        Self { number: 0, ..self }
    }
}

impl Redis {
    /// Starts the tier, on the current runtime; `None` where no Redis is configured. The first
    /// connections are waited for, but for half a second at most; without them the breakers are open
    /// and the attempts go on in the background. `reach` is the process's, and tells in the log how
    /// it goes.
    pub async fn start(
        cfg: &config::Cache,
        clock: Clock,
        purges: Arc<Purges>,
        reach: &Arc<Reach>,
    ) -> Option<Self> {
        let url = cfg.redis.as_deref()?;
        let links = (|| {
            Ok((
                Link::start("lookup", url, cfg.redis_deadline, Member::join(reach))?,
                Link::start("write", url, WRITE_PING, Member::join(reach))?,
            ))
        })();
        let (reader, writer) = match links {
            Ok((reader, writer)) => (reader, Arc::new(writer)),
            Err(error) => {
                let error: redis::RedisError = error;
                tracing::error!(target: "larder::redis", %error, "cache.redis cannot be used: going on without Redis");
                return None;
            }
        };
        // Both: what comes before the writing link is connected would not be written. How it ended
        // says nothing more than the breakers do.
        let _ = timeout(FIRST_CONNECT, async {
            for mut phases in [reader.phases(), writer.phases()] {
                let _ = phases.wait_for(|phase| *phase != Phase::Starting).await.map(|_| ());
            }
        })
        .await;
        let (queue, counters) = (Arc::new(Queue::new(cfg.redis_queue)), Arc::new(Counters::default()));
        let task = Writer {
            queue: Arc::clone(&queue),
            link: Arc::clone(&writer),
            purges: Arc::clone(&purges),
            counters: Arc::clone(&counters),
            clock: clock.clone(),
        };
        let writing = AbortOnDrop(tokio::spawn(task.run()));
        let (deadline, max_object) = (cfg.redis_deadline, cfg.redis_max_object);
        Some(Self(Arc::new(Inner {
            reader,
            writer,
            queue,
            purges,
            counters,
            clock,
            deadline,
            max_object,
            _writing: writing,
        })))
    }

    /// Seeks the response for a request with these header fields, all of it within the deadline.
    ///
    /// If the future is dropped (a fill that is no longer wanted), the answer is thrown away when it
    /// comes; nothing is changed by a lookup.
    pub async fn get(&self, key: &Arc<CacheKey>, headers: &HeaderMap, normalize: Normalize) -> Answer {
        let counters = &self.0.counters;
        counters.gets.fetch_add(1, Ordering::Relaxed);
        // Kept outside of the calls: learned by the first of two, it holds even if the second fails.
        let mut generation = None;
        // Before the question: what is purged after this moment is seen as purged after the look.
        let seen_at = self.0.clock.mono();
        let asked = Request { headers, normalize };
        let looked =
            self.0.reader.with(self.0.deadline, |connection| look(connection, key, asked, &mut generation));
        let found = match looked.await {
            Ok(Ok(response)) if self.0.purges.is_purged(&response) => Err(Absent::NotFound),
            Ok(found) => found,
            Err(fault) => Err(Absent::from(fault)),
        };
        counters.count(found.as_ref().err().copied());
        let generation = generation.map(|number| Generation { number, seen_at });
        Answer { found: found.map(Arc::new), generation }
    }

    /// Hands a response to the write-behind queue, to live for `ttl` (7 days at most). Never waits:
    /// what does not fit is dropped and counted, as is a body larger than `redis_max_object`.
    /// `generation` is the one that [`get`](Self::get) gave before the fetch began; if the URL was
    /// purged since, or the fetch took more than five minutes, nothing is written. Where the route takes
    /// languages by meaning (`normalize`), it can then also be found by its language.
    pub fn put(
        &self,
        response: Arc<StoredResponse>,
        generation: Generation,
        ttl: Duration,
        normalize: Normalize,
    ) {
        let small = response.content.held() <= self.0.max_object;
        if small && self.0.queue.offer(Write { response, generation, ttl, normalize }) {
            return;
        }
        self.0.counters.dropped_writes.fetch_add(1, Ordering::Relaxed);
    }

    /// Voids everything stored for a URL, on every node that reads this Redis. Within the deadline;
    /// what did not succeed is tried again in the background until it does. Costs Redis a small key,
    /// for ten minutes where nothing is stored that it would have to outlive.
    ///
    /// Gives the URL's new generation if nobody, on any node, had purged it within those ten minutes:
    /// then no other write can have come between the caller's own and this purge, and what that write
    /// has brought may be put.
    ///
    /// Until the purge is known to be taken it counts as failed: if the future is dropped, even one
    /// that was never polled, the purge is tried again.
    pub fn purge(
        &self,
        url_hash: u128,
    ) -> impl Future<Output = Result<Option<Generation>, Absent>> + use<'_> {
        let seen_at = self.0.clock.mono();
        let telling = self.tell(Notice::Url(url_hash));
        async move { Ok(telling.await?.map(|number| Generation { number, seen_at })) }
    }

    /// Voids everything that is in one of these groups, all of one origin, and was asked for at `at` or
    /// before, on every node that reads this Redis; as [`purge`](Self::purge). Costs Redis a small key
    /// for each, for a week.
    pub fn purge_groups(
        &self,
        groups: Arc<[Group]>,
        at: Timestamp,
    ) -> impl Future<Output = Result<(), Absent>> + use<'_> {
        let telling = self.tell(Notice::Groups(groups, at));
        async move { telling.await.map(drop) }
    }

    /// Voids everything at a path that is stored under a rule for its query, as
    /// [`purge_groups`](Self::purge_groups). Costs Redis a small key, for ten minutes where there is no
    /// such rule.
    pub fn purge_path(
        &self,
        path: Group,
        at: Timestamp,
    ) -> impl Future<Output = Result<(), Absent>> + use<'_> {
        let telling = self.tell(Notice::Path(path, at));
        async move { telling.await.map(drop) }
    }

    /// The rule for the query of a path, if one is known, within the deadline.
    pub async fn rule(&self, path: Group) -> Option<NoVarySearch> {
        let told = self.0.reader.with(self.0.deadline, |mut connection| async move {
            ask(&mut connection, cmd("GET").arg(keys::rule(path))).await
        });
        let text = string(told.await.ok()?)??;
        let value = HeaderValue::from_bytes(&text).ok()?;
        NoVarySearch::parse(&HeaderMap::from_iter([(NO_VARY_SEARCH, value)]))
    }

    fn tell(&self, purge: Notice) -> impl Future<Output = Result<Option<u64>, Absent>> + use<'_> {
        let unsure = Unsure { redis: &self.0, purge, taken: false };
        // In a box: purges are rare, and each future that holds this one would be larger by it, up to that
        // of every request.
        Box::pin(async move {
            let mut unsure = unsure;
            let told = unsure.purge.clone();
            let written = self.0.reader.with(self.0.deadline, |connection| told.told(connection)).await;
            unsure.taken = written.is_ok();
            written.map_err(|fault| {
                let absent = Absent::from(fault);
                self.0.counters.count_failure(absent);
                absent
            })
        })
    }

    /// Waits until everything that was put is written or given up, `within` at most; for stopping.
    /// Purges that wait for a Redis that is down are not waited for.
    pub async fn flush(&self, within: Duration) {
        // Nothing hangs on how it ended: what is left is lost with the process.
        let _ = timeout(within, self.0.queue.emptied(|| self.0.writer.phase() == Phase::Closed)).await;
    }

    /// Where the lookups' breaker stands: `closed`, `open` or `half-open`.
    pub fn state(&self) -> &'static str {
        self.0.reader.phase().as_str()
    }

    /// The tier's figures.
    pub fn gauges(&self) -> RedisGauges {
        let phase = self.0.reader.phase();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.0.counters;
        RedisGauges {
            up: phase == Phase::Closed && self.0.writer.phase() == Phase::Closed,
            breaker: phase.as_str(),
            gets: count(&counters.gets),
            hits: count(&counters.hits),
            misses: count(&counters.misses),
            errors: count(&counters.errors),
            deadline_exceeded: count(&counters.deadline_exceeded),
            refused: count(&counters.refused),
            damaged: count(&counters.damaged),
            writes: count(&counters.writes),
            written_bytes: count(&counters.written_bytes),
            write_errors: count(&counters.write_errors),
            dropped_writes: count(&counters.dropped_writes),
            queue_bytes: self.0.queue.bytes(),
        }
    }
}

/// The usual bound of a write's `PING`, from which the link takes its own.
const WRITE_PING: Duration = Duration::from_millis(500);

/// A purge that Redis may not have taken.
struct Unsure<'a> {
    redis: &'a Inner,
    purge: Notice,
    taken: bool,
}

impl Drop for Unsure<'_> {
    fn drop(&mut self) {
        if !self.taken && !self.redis.queue.keep_purge(self.purge.clone()) {
            self.redis.counters.lost_purge();
        }
    }
}

/// What [`seek`] finds, unless it is in a group that has been purged: one more round trip where it is in
/// any.
async fn look(
    mut connection: MultiplexedConnection,
    key: &Arc<CacheKey>,
    asked: Request<'_>,
    generation: &mut Option<u64>,
) -> Result<Result<StoredResponse, Absent>, Fault> {
    let response = match seek(connection.clone(), key, asked, generation).await? {
        Ok(response) if Group::any(&response.facts) => response,
        found => return Ok(found),
    };
    let mut call = cmd("MGET");
    Group::all(key, &response.facts).for_each(|group| {
        call.arg(keys::group(group));
    });
    let Value::Array(markers) = ask(&mut connection, &call).await? else { return Err(Fault::Nonsense) };
    for marker in markers {
        let marker = string(marker).ok_or(Fault::Nonsense)?;
        // An absent one is 0: a time before any request.
        let Some(at) = read_generation(marker) else { return Ok(Err(Absent::Damaged)) };
        if response.facts.request_time <= Timestamp::from_millis(at) {
            return Ok(Err(Absent::NotFound));
        }
    }
    Ok(Ok(response))
}

/// One round trip for the record and the URL's generation; one more where the record only names
/// what the response varies on.
async fn seek(
    mut connection: MultiplexedConnection,
    key: &Arc<CacheKey>,
    asked: Request<'_>,
    generation: &mut Option<u64>,
) -> Result<Result<StoredResponse, Absent>, Fault> {
    let base = keys::base(key);
    let (record, now) =
        match ask(&mut connection, cmd("MGET").arg(&base).arg(keys::marker(key.url_hash()))).await? {
            Value::Array(values) => both(values).ok_or(Fault::Nonsense)?,
            _ => return Err(Fault::Nonsense),
        };
    let Some(now) = read_generation(now) else { return Ok(Err(Absent::Damaged)) };
    *generation = Some(now);
    let names = match judge(record, key, now) {
        Ok(Record::Response { response, .. }) => return Ok(matching(response, asked)),
        Ok(Record::Names { names, .. }) => names,
        Err(absent) => return Ok(Err(absent)),
    };
    for variant in variants(&mut connection, &base, names, asked).await? {
        match judge(variant, key, now) {
            Ok(Record::Response { response, .. }) => match matching(response, asked) {
                Err(Absent::OtherVariant) => {}
                found => return Ok(found),
            },
            Ok(Record::Names { .. }) => return Ok(Err(Absent::Damaged)),
            Err(Absent::NotFound) => {}
            Err(absent) => return Ok(Err(absent)),
        }
    }
    Ok(Err(Absent::OtherVariant))
}

/// What stands where a response for this request would be: under its selecting fields, and under the
/// language it prefers where languages are taken by meaning.
async fn variants(
    connection: &mut MultiplexedConnection,
    base: &str,
    names: Vec<HeaderName>,
    asked: Request<'_>,
) -> Result<Vec<Text>, Fault> {
    let fields = selecting_fields(&Vary::Names(names), asked.headers, asked.normalize);
    let variant = keys::variant(base, fields.hash());
    let Some(by_language) = fields.by_preferred_language(asked.headers, asked.normalize) else {
        let value = ask(connection, cmd("GET").arg(variant)).await?;
        return string(value).map(|value| vec![value]).ok_or(Fault::Nonsense);
    };
    let by_language = keys::variant(base, by_language.hash());
    match ask(connection, cmd("MGET").arg(variant).arg(by_language)).await? {
        Value::Array(values) => values.into_iter().map(string).collect::<Option<_>>().ok_or(Fault::Nonsense),
        _ => Err(Fault::Nonsense),
    }
}

/// What a lookup needs to know of the request.
#[derive(Clone, Copy)]
struct Request<'a> {
    headers: &'a HeaderMap,
    normalize: Normalize,
}

/// A string, or nothing where Redis has none.
type Text = Option<Vec<u8>>;

/// Two values, each a string or nothing.
fn both(values: Vec<Value>) -> Option<(Text, Text)> {
    let [first, second] = <[Value; 2]>::try_from(values).ok()?;
    Some((string(first)?, string(second)?))
}

fn string(value: Value) -> Option<Text> {
    match value {
        Value::BulkString(bytes) => Some(Some(bytes)),
        Value::Nil => Some(None),
        _ => None,
    }
}

/// An absent marker is generation 0; one that is no number is not ours.
fn read_generation(marker: Text) -> Option<u64> {
    match marker {
        None => Some(0),
        Some(bytes) => std::str::from_utf8(&bytes).ok()?.parse().ok(),
    }
}

/// Decodes a value; a record of another generation has been purged.
fn judge(value: Text, key: &Arc<CacheKey>, now: u64) -> Result<Record, Absent> {
    let record = decode(Bytes::from(value.ok_or(Absent::NotFound)?), key).map_err(|_| Absent::Damaged)?;
    let (Record::Response { generation, .. } | Record::Names { generation, .. }) = &record;
    if *generation == now { Ok(record) } else { Err(Absent::NotFound) }
}

/// §4.1: the selecting fields must match; the hash in the key's name only led here.
fn matching(response: StoredResponse, asked: Request<'_>) -> Result<StoredResponse, Absent> {
    if response.is_for(asked.headers, asked.normalize) { Ok(response) } else { Err(Absent::OtherVariant) }
}

#[derive(Debug, Default)]
struct Counters {
    gets: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    errors: AtomicU64,
    deadline_exceeded: AtomicU64,
    refused: AtomicU64,
    damaged: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
    write_errors: AtomicU64,
    dropped_writes: AtomicU64,
}

impl Counters {
    fn count(&self, absent: Option<Absent>) {
        match absent {
            None => {
                self.hits.fetch_add(1, Ordering::Relaxed);
            }
            Some(Absent::NotFound | Absent::OtherVariant) => {
                self.misses.fetch_add(1, Ordering::Relaxed);
            }
            Some(failure) => self.count_failure(failure),
        }
    }

    fn count_failure(&self, failure: Absent) {
        let counter = match failure {
            Absent::Open | Absent::Full => &self.refused,
            Absent::Deadline => &self.deadline_exceeded,
            Absent::Damaged => &self.damaged,
            Absent::Error | Absent::NotFound | Absent::OtherVariant => &self.errors,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Too many purges wait for Redis: the oldest was given up.
    fn lost_purge(&self) {
        self.write_errors.fetch_add(1, Ordering::Relaxed);
        tracing::error!(target: "larder::redis", "too many purges wait for Redis; one is given up, and what it voids may live in Redis until it expires");
    }
}
