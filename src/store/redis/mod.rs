//! The shared tier: Redis, which can never fail or hold up a request.
//!
//! Knows how a response is found, kept and purged in Redis, all within a deadline. The only answers
//! are a response, or absent and why ([`Absent`]); nothing here returns an error that a caller
//! would have to handle, and nothing waits for longer than it says. Each worker has a handle of its
//! own, with two connections: one for lookups, one for the writes behind.
//! Must not know: the memory tier, freshness, or what is done with a response.

mod audit;
mod bids;
mod client;
mod compression;
mod dial;
mod fleet;
mod frames;
mod keys;
mod lease;
mod link;
mod lookup;
mod nodes;
mod question;
mod queue;
mod reach;
mod script;
mod sentinel;
mod servers;
#[cfg(test)]
mod tests;
mod topology;
mod value;
mod warm;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

pub use self::audit::{Audit, Sum};
use self::bids::Bids;
pub use self::fleet::{Apply, Coherence, Fleet, Node, Peer, Promise, Receipt, State, Stream, Telling};
pub use self::lease::{About, Bid, Election, Lease, Leases, Listening, Next, Turn, Woken, Word};
use self::lease::{Attempt, Fingerprint, Tried};
use self::link::{AbortOnDrop, Phase};
use self::lookup::{Luck, Mend, Notes, Request, is_answered, look, one, settle};
use self::nodes::{Nodes, ask_all};
pub use self::question::Fault;
use self::queue::{Notice, Queue, Write};
pub use self::reach::Reach;
use self::servers::Servers;
use self::value::{Bad, Held};
use self::writer::Writer;
use super::Purges;
use crate::clock::{Clock, Mono, Timestamp};
use crate::config;
use crate::fields::no_vary_search::{NO_VARY_SEARCH, NoVarySearch};
use crate::rules::Normalize;
use crate::stored::{CacheKey, Damaged, Group, Seal, StoredResponse, decode_rule};
use crate::telemetry::RedisGauges;
use crate::telemetry::supervise;

/// How long a start waits for the first connection.
const FIRST_CONNECT: Duration = Duration::from_millis(500);

/// Between two log lines that tell of damaged values.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// One worker's handle to the Redis tier. Its tasks live on the runtime that started it, and end
/// when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Redis(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    reader: Nodes,
    writer: Nodes,
    queue: Arc<Queue>,
    purges: Arc<Purges>,
    counters: Arc<Counters>,
    bids: Bids,
    luck: Luck,
    clock: Clock,
    seal: Seal,
    deadline: Duration,
    max_object: u64,
    /// Bytes of the longest record.
    longest: u64,
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
    /// Whose turn it is to fetch, where a lease was asked for.
    pub turn: Asked,
}

/// What came of asking for a lease in the step of a lookup.
#[derive(Debug)]
pub enum Asked {
    /// Whose turn it is.
    Told(Turn<Lease, About>),
    /// Something stood there, which whoever reads it judges: [`Redis::lease`] asks again, if it does not answer.
    Not(Seen),
}

/// What stood there when a lease was asked for, and nothing else may by the time that one is given.
#[derive(Debug)]
pub struct Seen {
    record: String,
    fingerprint: Fingerprint,
    /// When it was looked at.
    since: Instant,
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
    Damaged(Damaged),
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
            Self::Damaged(_) => "damaged",
        }
    }
}

impl From<Fault> for Absent {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Open => Self::Open,
            Fault::Full => Self::Full,
            Fault::Deadline => Self::Deadline,
            Fault::Lost | Fault::Nonsense | Fault::Refused | Fault::NotHere => Self::Error,
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
        let redis = cfg.redis.as_ref()?;
        let longest = value::longest_record(cfg.redis_max_object);
        let servers = match Servers::start(redis) {
            Ok(servers) => servers,
            Err(error) => {
                tracing::error!(target: "larder::redis", error, "cache.redis cannot be used: going on without Redis");
                return None;
            }
        };
        // One byte more than a record may have shows that it has.
        let reader = Nodes::start("lookup", &servers, cfg.redis_deadline, longest.saturating_add(1), reach);
        let writer = Nodes::start("write", &servers, WRITE_PING, WRITE_ANSWER, reach);
        // Both: what comes before the writing link is connected would not be written. How it ended
        // says nothing more than the breakers do.
        let _ = timeout(FIRST_CONNECT, async {
            for mut phases in [reader.phases(), writer.phases()] {
                let _ = phases.wait_for(|phase| *phase != Phase::Starting).await.map(|_| ());
            }
        })
        .await;
        let seal = Seal::new(&cfg.redis_secrets).in_namespace(&cfg.namespace);
        let (queue, counters) = (Arc::new(Queue::new(cfg.redis_queue)), Arc::new(Counters::default()));
        let task = Arc::new(Writer {
            queue: Arc::clone(&queue),
            link: writer.clone(),
            purges: Arc::clone(&purges),
            counters: Arc::clone(&counters),
            clock: clock.clone(),
            seal: seal.clone(),
            longest,
            compress: cfg.redis_compress,
        });
        let run = move || {
            let task = Arc::clone(&task);
            async move { task.run().await }
        };
        let writing = AbortOnDrop(tokio::spawn(supervise("redis writer", run)));
        let (deadline, max_object) = (cfg.redis_deadline, cfg.redis_max_object);
        Some(Self(Arc::new(Inner {
            reader,
            writer,
            queue,
            purges,
            counters,
            bids: Bids::default(),
            luck: Luck::default(),
            clock,
            seal,
            deadline,
            max_object,
            longest,
            _writing: writing,
        })))
    }

    /// Seeks the response for a request with these header fields, all of it within the deadline.
    ///
    /// If the future is dropped (a fill that is no longer wanted), the answer is thrown away when it
    /// comes; nothing is changed by a lookup.
    pub async fn get(&self, key: &CacheKey, headers: &HeaderMap, normalize: Normalize) -> Answer {
        self.get_or_lease(key, headers, normalize, None).await
    }

    /// The same; where nothing stands, the lease to fetch it is asked for in the same step, if there is a `bid`.
    ///
    /// If the future is dropped, a lease that it may have been given is given back.
    pub async fn get_or_lease(
        &self,
        key: &CacheKey,
        headers: &HeaderMap,
        normalize: Normalize,
        bid: Option<Bid<'_>>,
    ) -> Answer {
        let since = Instant::now();
        let counters = &self.0.counters;
        counters.gets.fetch_add(1, Ordering::Relaxed);
        // Before the question: what is purged after this moment is seen as purged after the look.
        let (seen_at, seq) = (self.0.clock.mono(), self.0.purges.seq());
        let bid = bid.filter(|_| self.0.bids.may(seen_at));
        let asked = Request {
            seal: &self.0.seal,
            headers,
            normalize,
            longest: self.0.longest,
            now: self.0.clock.now(),
            bid,
            hopes: self.0.luck.hopes(),
        };
        // Kept outside of the calls: learned by the first of two, it holds even if the second fails.
        let mut notes = Notes::default();
        let looked =
            self.0.reader.with(self.0.deadline, |connection| look(connection, key, asked, &mut notes));
        let looked = looked.await;
        match looked {
            _ if !notes.bade => {}
            Ok(_) => self.0.bids.answered(),
            Err(Fault::Deadline) => self.0.bids.missed(self.0.clock.mono()),
            // It was not asked, or has answered, or is not there: none of that tells of its writes.
            Err(_) => {}
        }
        let found = match looked {
            Ok(Ok(response)) => {
                response.standing.meet(seq);
                if self.0.purges.is_purged(&response) { Err(Absent::NotFound) } else { Ok(response) }
            }
            Ok(absent) => absent,
            Err(fault) => Err(Absent::from(fault)),
        };
        counters.read_bytes.fetch_add(notes.read, Ordering::Relaxed);
        counters.count(found.as_ref().err().copied());
        if is_answered(&found) || notes.in_vain {
            self.0.luck.note(found.is_ok());
            self.0.luck.took(since.elapsed(), self.0.deadline);
        }
        notes.mend.into_iter().for_each(|mend| self.mend(mend));
        let generation = notes.generation.map(|number| Generation { number, seen_at });
        let turn = match (notes.turn, notes.seen) {
            (Some(turn), _) => Asked::Told(turn),
            // Who could not be asked whether it stands is not asked whether it may be fetched.
            (None, Some((record, fingerprint))) if bid.is_some() && is_answered(&found) => {
                Asked::Not(Seen { record, fingerprint, since })
            }
            (None, _) => Asked::Told(Turn::Alone),
        };
        Answer { found: found.map(Arc::new), generation, turn }
    }

    /// Asks for the lease to fetch what was `seen`, and does not answer, within what is left of the deadline of that
    /// look.
    ///
    /// If the future is dropped, a lease that it may have been given is given back.
    pub async fn lease(&self, bid: Bid<'_>, seen: Seen) -> Turn<Lease, About> {
        let Some(attempt) = Attempt::new(&bid, &seen.record) else { return Turn::Alone };
        let left = self.0.deadline.saturating_sub(seen.since.elapsed());
        let asked = self.0.reader.with(left, |mut connection| {
            let call = attempt.call(&seen.fingerprint, true);
            async move {
                let answer = ask_all(&mut connection, [call]).await;
                settle(attempt, answer.map(|mut answers| answers.pop()))
            }
        });
        match asked.await {
            Ok(Tried::Turn(turn)) => turn,
            // By its text any Redis knows it.
            Ok(Tried::Again(attempt)) => {
                attempt.forget();
                Turn::Alone
            }
            Err(fault) => {
                self.0.counters.count_failure(Absent::from(fault));
                Turn::Alone
            }
        }
    }

    /// As [`get`](Self::get), for who only wants to know what stands there: nothing is counted, and what is damaged
    /// is left as it is.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn peek(
        &self,
        key: &CacheKey,
        headers: &HeaderMap,
        normalize: Normalize,
    ) -> Result<Arc<StoredResponse>, Absent> {
        let (seal, longest, seq) = (&self.0.seal, self.0.longest, self.0.purges.seq());
        let asked =
            Request { seal, headers, normalize, longest, now: self.0.clock.now(), bid: None, hopes: false };
        let mut notes = Notes::default();
        let looked =
            self.0.reader.with(self.0.deadline, |connection| look(connection, key, asked, &mut notes));
        let response = looked.await.map_err(Absent::from)??;
        response.standing.meet(seq);
        if self.0.purges.is_purged(&response) { Err(Absent::NotFound) } else { Ok(Arc::new(response)) }
    }

    /// Has what was found damaged removed or made anew, and says so in the log.
    fn mend(&self, mend: Mend) {
        let (key, why) = match &mend {
            Mend::Remove(key, bad) => (key.clone(), bad.why),
            Mend::Generation(url_hash, why) => (keys::marker(&self.0.seal, *url_hash), *why),
            Mend::Group(group, why) => (keys::group(&self.0.seal, *group), *why),
        };
        if self.0.counters.may_tell(self.0.clock.mono()) {
            let why = why.as_str();
            tracing::warn!(target: "larder::redis", key, why, "what stands in redis is damaged, or not Larder's: it is a miss and is replaced (told once in 10s; larder_redis_damaged_total counts)");
        }
        let kept = match mend {
            // Others may have that secret: what this process stores here takes its place.
            Mend::Remove(_, bad) if bad.why == Damaged::OtherSecret => true,
            Mend::Remove(key, bad) => {
                self.0.queue.remove(key, bad);
                true
            }
            // Whatever was purged stays so, and so does all else: nobody knows any more.
            Mend::Generation(url_hash, _) => self.0.queue.keep_purge(Notice::Url(url_hash)),
            Mend::Group(group, _) => self.0.queue.keep_purge(Notice::Anew(group, self.0.clock.now())),
        };
        if !kept {
            self.0.counters.lost_purge();
        }
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
        self.put_and_give_back(response, generation, (ttl, normalize), None);
    }

    /// The same, and gives a lease back once it is written, or at once where it is not.
    pub fn put_and_give_back(
        &self,
        response: Arc<StoredResponse>,
        generation: Generation,
        (ttl, normalize): (Duration, Normalize),
        lease: Option<Lease>,
    ) {
        let small = response.content.held() <= self.0.max_object;
        if small && self.0.queue.offer(Write { response, generation, ttl, normalize, lease }) {
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
        let place = keys::rule(&self.0.seal, path);
        let told = self.0.reader.with(self.0.deadline, |mut connection| {
            let question = value::read(&place, value::LONGEST_RULE);
            async move { one(ask_all(&mut connection, question).await?, value::LONGEST_RULE) }
        });
        let bytes = match told.await.ok()? {
            Held::Nothing => return None,
            Held::Bytes(bytes) => bytes,
            Held::Bad(bad) => {
                self.damaged(place, bad);
                return None;
            }
        };
        let was = Bad::new(Damaged::Malformed, &bytes);
        let text = match self.0.seal.open(bytes, &place).and_then(|bytes| decode_rule(bytes, &place)) {
            Ok(text) => text,
            Err(why) => {
                self.damaged(place, Bad { why, ..was });
                return None;
            }
        };
        let value = HeaderValue::from_maybe_shared(text).ok()?;
        NoVarySearch::parse(&HeaderMap::from_iter([(NO_VARY_SEARCH, value)]))
    }

    fn damaged(&self, key: String, bad: Bad) {
        self.0.counters.count_failure(Absent::Damaged(bad.why));
        self.mend(Mend::Remove(key, bad));
    }

    fn tell(&self, purge: Notice) -> impl Future<Output = Result<Option<u64>, Absent>> + use<'_> {
        let unsure = Unsure { redis: &self.0, purge, taken: false };
        // In a box: purges are rare, and each future that holds this one would be larger by it, up to that
        // of every request.
        Box::pin(async move {
            let mut unsure = unsure;
            let told = unsure.purge.clone();
            let written =
                self.0.reader.with(self.0.deadline, |connection| told.told(&self.0.seal, connection)).await;
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

    /// From now on connections are made with these passwords; those that stand go on.
    pub fn login_as(&self, redis: &config::Redis) {
        // All connections of this handle come from one place.
        self.0.reader.login_as(redis);
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
            up: self.0.reader.is_whole() && self.0.writer.is_whole(),
            breaker: phase.as_str(),
            gets: count(&counters.gets),
            hits: count(&counters.hits),
            misses: count(&counters.misses),
            errors: count(&counters.errors),
            deadline_exceeded: count(&counters.deadline_exceeded),
            refused: count(&counters.refused),
            damaged: counters.damaged.each_ref().map(count),
            writes: count(&counters.writes),
            written_bytes: count(&counters.written_bytes),
            read_bytes: count(&counters.read_bytes),
            write_errors: count(&counters.write_errors),
            dropped_writes: count(&counters.dropped_writes),
            queue_bytes: self.0.queue.bytes(),
        }
    }
}

/// The usual bound of a write's `PING`, from which the link takes its own: a value may be before it.
const WRITE_PING: Duration = Duration::from_millis(500);

/// Bytes of a string that answers a write: an echo.
const WRITE_ANSWER: u64 = 1024;

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

#[derive(Debug, Default)]
struct Counters {
    gets: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
    errors: AtomicU64,
    deadline_exceeded: AtomicU64,
    refused: AtomicU64,
    damaged: [AtomicU64; Damaged::ALL.len()],
    told: Mutex<Option<Mono>>,
    writes: AtomicU64,
    written_bytes: AtomicU64,
    read_bytes: AtomicU64,
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
            Absent::Damaged(why) => self.damaged.get(why.index()).unwrap_or(&self.errors),
            Absent::Error | Absent::NotFound | Absent::OtherVariant => &self.errors,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a damaged value may be told of in the log now: whoever damages many must not fill it.
    fn may_tell(&self, now: Mono) -> bool {
        let mut told = self.told.lock();
        let may = told.is_none_or(|at| now.since(at) >= TELL_AGAIN);
        if may {
            *told = Some(now);
        }
        may
    }

    /// Too many purges wait for Redis: the oldest was given up.
    fn lost_purge(&self) {
        self.write_errors.fetch_add(1, Ordering::Relaxed);
        tracing::error!(target: "larder::redis", "too many purges wait for Redis; one is given up, and what it voids may live in Redis until it expires");
    }
}
