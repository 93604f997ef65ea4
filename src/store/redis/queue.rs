//! Write-behind: what waits to be written to Redis, and the task that writes it.
//!
//! Knows that a response must never wait for Redis, so everything here is bounded and what does not
//! fit is dropped and counted; that a write is tried once, within [`WRITE`], and not at all when its
//! fetch began too long ago; and that a purge is never overtaken by a write: Redis takes none whose
//! URL was purged since, and for a purge that Redis has not heard of yet the local ones are asked just
//! before a write and again after it.
//! A purge that Redis did not take is kept, up to [`PURGES`] of them, and tried again until it did; a bug that ends
//! the writer in the middle of one does not lose it.
//! What a lookup found damaged is removed before the next write, so that what replaces it stays; up to
//! [`DAMAGED`] wait for that, and each is tried once: who finds it again says so again.
//! Must not know: how a lookup works, or who fills the queue.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use redis::cmd;
use tokio::sync::Notify;

use super::compression::squeeze;
use super::lease::{Lease, Word};
use super::link::{Fault, Phase};
use super::nodes::{Asker, Nodes, ask};
use super::script::{self, Set};
use super::value::Bad;
use super::{Counters, Generation, keys};
use crate::clock::{Clock, Mono, Timestamp};
use crate::fields::no_vary_search::NO_VARY_SEARCH;
use crate::rules::{Normalize, SelectingFields};
use crate::store::Purges;
use crate::stored::{
    Group, MOST_NAMES, Nonce, Seal, StoredFields, StoredResponse, encode_names, encode_response, encode_rule,
};

/// The longest that one write may take.
const WRITE: Duration = Duration::from_secs(1);
/// Purges that may wait for Redis to come back: what a request of the most names may come to (`admin`), each a URL
/// with a key for each of four methods, and each of those with its path.
pub(super) const PURGES: usize = 8 * 1_024;
/// Damaged values that may wait to be removed.
const DAMAGED: usize = 64;
/// Between two attempts at a purge.
const PURGE_AGAIN: Duration = Duration::from_secs(1);

/// A response on its way to Redis.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) response: Arc<StoredResponse>,
    /// The URL's generation when the fetch began.
    pub(super) generation: Generation,
    pub(super) ttl: Duration,
    /// By what else than its selecting fields it can be found.
    pub(super) normalize: Normalize,
    /// Given back once it is written, or when it is known that it will not be.
    pub(super) lease: Option<Lease>,
}

/// A purge that Redis has to be told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// Of a URL, by its hash.
    Url(u128),
    /// Of groups of one origin, at a time.
    Groups(Arc<[Group]>, Timestamp),
    /// Of all at a path that does not vary on all of the query, at a time.
    Path(Group, Timestamp),
    /// Of a group, or all at a path, whose marker cannot be believed.
    Anew(Group, Timestamp),
}

impl Notice {
    /// Tells it; gives the URL's new generation if it is the first for a while.
    pub(super) async fn told(&self, seal: &Seal, connection: Asker) -> Result<Option<u64>, Fault> {
        match self {
            Self::Url(url_hash) => script::purge(seal, connection, *url_hash).await,
            Self::Groups(groups, at) => {
                let times = (*at, keys::believed(*at));
                script::purge_groups(seal, connection, groups, times).await.map(|()| None)
            }
            Self::Path(path, at) => script::purge_path(seal, connection, *path, *at).await.map(|()| None),
            Self::Anew(group, at) => {
                script::purge_groups(seal, connection, &[*group], (*at, *at)).await.map(|()| None)
            }
        }
    }
}

/// What waits to be written; bounded in bytes.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    limit: u64,
    /// Something came in.
    news: Notify,
    /// Something was done, and no write waits any more.
    drained: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    writes: VecDeque<Write>,
    purges: VecDeque<Notice>,
    /// Keys under which something damaged was found, and what.
    damaged: VecDeque<(String, Bad)>,
    /// Bytes of `writes`, and of the one that is being written.
    bytes: u64,
    /// The task has taken something out and is not done with it.
    busy: bool,
}

impl Queue {
    pub(super) fn new(limit: u64) -> Self {
        Self { waiting: Mutex::default(), limit, news: Notify::new(), drained: Notify::new() }
    }

    /// Puts a write into the queue; `false` when it does not fit.
    pub(super) fn offer(&self, write: Write) -> bool {
        let size = write.size();
        {
            let mut waiting = self.waiting.lock();
            let bytes = waiting.bytes.saturating_add(size);
            if bytes > self.limit {
                return false;
            }
            waiting.bytes = bytes;
            waiting.writes.push_back(write);
        }
        self.news.notify_one();
        true
    }

    /// Keeps a purge until Redis has taken it. Gives `false` when another had to be given up for it.
    pub(super) fn keep_purge(&self, purge: Notice) -> bool {
        let fits = {
            let mut waiting = self.waiting.lock();
            if waiting.purges.contains(&purge) {
                return true;
            }
            let fits = waiting.purges.len() < PURGES;
            if !fits {
                waiting.purges.pop_front();
            }
            waiting.purges.push_back(purge);
            fits
        };
        self.news.notify_one();
        fits
    }

    /// Has what was found damaged removed, if there is room for one more.
    pub(super) fn remove(&self, key: String, bad: Bad) {
        {
            let mut waiting = self.waiting.lock();
            if waiting.damaged.len() >= DAMAGED || waiting.damaged.iter().any(|(known, _)| *known == key) {
                return;
            }
            waiting.damaged.push_back((key, bad));
        }
        self.news.notify_one();
    }

    /// Bytes that wait, or are being written.
    pub(super) fn bytes(&self) -> u64 {
        self.waiting.lock().bytes
    }

    /// Waits until no write waits any more, and no purge either while `up` says that Redis is there
    /// to take it.
    pub(super) async fn emptied(&self, up: impl Fn() -> bool) {
        loop {
            // Made before the look, so that what happens in between is not missed.
            let drained = self.drained.notified();
            let writes_done = { self.waiting.lock().no_writes() };
            if writes_done && (!up() || !self.has_purges()) {
                return;
            }
            drained.await;
        }
    }

    #[cfg(test)]
    pub(super) fn waiting_writes(&self) -> usize {
        self.waiting.lock().writes.len()
    }

    fn take_purge<'a>(&'a self, counters: &'a Counters) -> Option<Told<'a>> {
        let (purge, taken) = self.take(|waiting| waiting.purges.pop_front(), |_| 0)?;
        Some(Told { purge: Some(purge), counters, taken })
    }

    fn take_damaged(&self) -> Option<((String, Bad), Taken<'_>)> {
        self.take(|waiting| waiting.damaged.pop_front(), |_| 0)
    }

    fn take_write(&self) -> Option<(Write, Taken<'_>)> {
        self.take(|waiting| waiting.writes.pop_front(), Write::size)
    }

    fn take<T>(
        &self,
        next: impl FnOnce(&mut Waiting) -> Option<T>,
        bytes: impl FnOnce(&T) -> u64,
    ) -> Option<(T, Taken<'_>)> {
        let mut waiting = self.waiting.lock();
        let next = next(&mut waiting)?;
        waiting.busy = true;
        drop(waiting);
        let bytes = bytes(&next);
        Some((next, Taken { queue: self, bytes }))
    }

    fn has_purges(&self) -> bool {
        !self.waiting.lock().purges.is_empty()
    }

    fn done(&self, size: u64) {
        let drained = {
            let mut waiting = self.waiting.lock();
            waiting.busy = false;
            waiting.bytes = waiting.bytes.saturating_sub(size);
            waiting.no_writes()
        };
        if drained {
            self.drained.notify_waiters();
        }
    }
}

/// Something has been taken out and is not done; dropped, it is, whatever came of it.
#[derive(Debug)]
struct Taken<'a> {
    queue: &'a Queue,
    /// What it takes in the queue.
    bytes: u64,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.queue.done(self.bytes);
    }
}

/// A purge that Redis is being told of. Dropped before Redis has taken it, by a failure, by a bug that ends the
/// writer or with its task, it waits again, behind the others.
#[derive(Debug)]
struct Told<'a> {
    purge: Option<Notice>,
    counters: &'a Counters,
    taken: Taken<'a>,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        // Before it counts as done: nobody who waits for the queue finds it empty in between.
        if let Some(purge) = self.purge.take()
            && !self.taken.queue.keep_purge(purge)
        {
            self.counters.lost_purge();
        }
    }
}

impl Waiting {
    fn no_writes(&self) -> bool {
        !self.busy && self.writes.is_empty() && self.damaged.is_empty()
    }
}

impl Write {
    fn size(&self) -> u64 {
        u64::try_from(self.response.weight()).unwrap_or(u64::MAX)
    }
}

/// The task that empties the queue, over a link of its own: large values never stand before a
/// lookup. Dropped at any point, what waits is lost, as it is when the process ends.
pub(super) struct Writer {
    pub(super) queue: Arc<Queue>,
    pub(super) link: Nodes,
    pub(super) purges: Arc<Purges>,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: Clock,
    pub(super) seal: Seal,
    /// Bytes of the longest record.
    pub(super) longest: u64,
    /// Contents larger than this are compressed where it pays.
    pub(super) compress: Option<u64>,
}

impl Writer {
    pub(super) async fn run(&self) {
        let mut phases = self.link.phases();
        let mut purge_failed: Option<Mono> = None;
        loop {
            let up = *phases.borrow_and_update() == Phase::Closed;
            let rested = purge_failed.is_none_or(|at| self.clock.mono().since(at) >= PURGE_AGAIN);
            if let Some(purge) = (up && rested).then(|| self.queue.take_purge(&self.counters)).flatten() {
                purge_failed = (!self.purge_again(purge).await).then(|| self.clock.mono());
            } else if let Some(((key, bad), _taken)) = self.queue.take_damaged() {
                // Where it fails, the next who finds it says so.
                let _ = self.link.with(WRITE, |connection| script::remove(connection, &key, &bad)).await;
            } else if let Some((mut write, _taken)) = self.queue.take_write() {
                let lease = write.lease.take();
                let word = self.write(&write).await;
                lease.into_iter().for_each(|lease| lease.give_back(word));
            } else {
                tokio::select! {
                    () = self.queue.news.notified() => {}
                    changed = phases.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(PURGE_AGAIN), if up && self.queue.has_purges() => {}
                }
            }
        }
    }

    async fn purge_again(&self, mut told: Told<'_>) -> bool {
        let Some(purge) = &told.purge else { return true };
        let taken = self.link.with(WRITE, |connection| purge.told(&self.seal, connection)).await.is_ok();
        if taken {
            told.purge = None;
        }
        taken
    }

    /// Gives what is to be said to those who wait for what is written.
    async fn write(&self, write: &Write) -> Word {
        // Purged while it waited, and Redis may not know yet. Or so long ago that Redis may have
        // forgotten that it was purged meanwhile.
        let late = self.clock.mono().since(write.generation.seen_at) > keys::PUT_WITHIN;
        let purged = self.purges.is_purged(&write.response);
        if late || purged {
            self.counters.dropped_writes.fetch_add(1, Ordering::Relaxed);
            // One of those who wait fetches what is new, for all.
            return if purged { Word::Look } else { Word::NotStored };
        }
        let Some(record) = Record::of(&self.seal, write, self.compress) else { return Word::NotStored };
        if record.sets.iter().any(|set| set.value.len() as u64 > self.longest) {
            self.counters.dropped_writes.fetch_add(1, Ordering::Relaxed);
            return Word::NotStored;
        }
        if write.response.facts.no_vary_search.is_some() && !self.path_is_open(&write.response).await {
            self.counters.dropped_writes.fetch_add(1, Ordering::Relaxed);
            return Word::NotStored;
        }
        let written = self.link.with(WRITE, |connection| record.put(&self.seal, connection)).await;
        self.count(written, record.bytes());
        if !matches!(written, Ok(false) | Err(Fault::Open)) && self.purges.is_purged(&write.response) {
            // Purged while it was written: one of the two deletes it, whichever comes second. Should
            // this fail as well, the purge still voids it once Redis hears of it.
            let _undone = self.link.with(WRITE, |connection| record.unlink(connection)).await;
        }
        // Not taken, it has been purged since.
        if written.is_ok() { Word::Look } else { Word::NotStored }
    }

    /// Tells the path's rule, which has to stand before what is stored under it; gives whether nothing at
    /// the path was purged since the response was asked for.
    async fn path_is_open(&self, response: &StoredResponse) -> bool {
        let (path, asked) = (Group::of_path(&response.key), response.facts.request_time);
        let rule = response.key.is_searched().then(|| rule_text(&response.headers)).flatten();
        let place = keys::rule(&self.seal, path);
        let rule = rule.and_then(|rule| self.seal.close(encode_rule(&rule, &place), &place, chance));
        let told = self.link.with(WRITE, |connection| script::learn_rule(&self.seal, connection, path, rule));
        matches!(told.await, Ok(Ok(purged)) if asked > purged)
    }

    fn count(&self, written: Result<bool, Fault>, bytes: u64) {
        let counters = &self.counters;
        match written {
            Ok(true) => {
                counters.writes.fetch_add(1, Ordering::Relaxed);
                counters.written_bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            // Ok(false): purged since its fetch began.
            Ok(false) | Err(Fault::Open | Fault::Full) => {
                counters.dropped_writes.fetch_add(1, Ordering::Relaxed);
            }
            Err(Fault::Deadline | Fault::Lost | Fault::Nonsense | Fault::Refused | Fault::NotHere) => {
                counters.write_errors.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// 24 bytes that nobody can foresee; `None` where the system has none.
pub(super) fn chance() -> Option<Nonce> {
    let mut nonce = Nonce::default();
    getrandom::fill(&mut nonce).ok()?;
    Some(nonce)
}

/// The field that says a rule, on one line.
fn rule_text(fields: &StoredFields) -> Option<Vec<u8>> {
    let lines: Vec<&[u8]> = fields.lines(&NO_VARY_SEARCH).collect();
    (!lines.is_empty()).then(|| lines.join(&b", "[..]))
}

/// What is set for one response: itself, and the names it varies on, if any.
struct Record {
    url_hash: u128,
    generation: u64,
    sets: Vec<Set>,
}

impl Record {
    /// `None` when it would expire at once, varies on more than can be read again, or cannot be sealed.
    fn of(seal: &Seal, write: &Write, compress: Option<u64>) -> Option<Self> {
        let (response, generation) = (&write.response, write.generation.number);
        let (url_hash, base) = (response.key.url_hash(), keys::base(seal, &response.key));
        let ttl = keys::record_ttl(write.ttl)?;
        let names: Vec<_> = response.selecting.names().cloned().collect();
        let set = |key: String| {
            let record = squeeze(encode_response(response, generation, &key), response, compress);
            let value = seal.close(record, &key, chance)?;
            Some(Set { key, value, ttl })
        };
        if names.is_empty() {
            return Some(Self { url_hash, generation, sets: vec![set(base)?] });
        }
        if names.len() > MOST_NAMES {
            return None;
        }
        let by_language = response.selecting.by_language(&response.facts, write.normalize);
        let variant = |fields: &SelectingFields| set(keys::variant(seal, &base, fields.hash()));
        let mut sets = by_language.iter().map(variant).collect::<Option<Vec<_>>>()?;
        sets.push(variant(&response.selecting)?);
        let value = seal.close(encode_names(&response.key, &names, generation, &base), &base, chance)?;
        sets.push(Set { key: base, value, ttl: keys::names_ttl(write.ttl) });
        Some(Self { url_hash, generation, sets })
    }

    fn bytes(&self) -> u64 {
        self.sets
            .iter()
            .map(|set| u64::try_from(set.value.len()).unwrap_or(u64::MAX))
            .fold(0, u64::saturating_add)
    }

    fn put(&self, seal: &Seal, connection: Asker) -> impl Future<Output = Result<bool, Fault>> + use<> {
        script::was_put(connection, script::put(seal, self.url_hash, self.generation, &self.sets))
    }

    fn unlink(&self, mut connection: Asker) -> impl Future<Output = Result<(), Fault>> + use<> {
        let mut command = cmd("UNLINK");
        for set in &self.sets {
            command.arg(&set.key);
        }
        async move { ask(&mut connection, command).await.map(drop) }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::rules::Methods;
    use crate::stored::{Born, samples};

    #[test]
    fn a_bug_while_redis_is_told_of_a_purge_does_not_lose_it() {
        let (queue, counters) = (Queue::new(1 << 20), Counters::default());
        let (first, second) = (Notice::Url(1), Notice::Url(2));
        queue.keep_purge(first.clone());
        queue.keep_purge(second.clone());
        let told = catch_unwind(AssertUnwindSafe(|| {
            let told = queue.take_purge(&counters);
            assert!(told.is_none(), "a bug");
        }));
        assert!(told.is_err());
        let next = |queue: &Queue| {
            let mut told = queue.take_purge(&counters)?;
            told.purge.take()
        };
        assert_eq!(next(&queue), Some(second), "what made the bug stands behind the others");
        assert_eq!(next(&queue), Some(first), "and waits again");
        assert_eq!(next(&queue), None, "what Redis has taken does not");
        assert!(queue.waiting.lock().no_writes(), "nobody who waits for the queue waits for ever");
    }

    #[test]
    fn a_request_of_the_most_names_fits_while_redis_is_down() {
        let queue = Queue::new(1 << 20);
        let path = |name| Notice::Path(Group { origin: 1, name }, Timestamp::from_secs(1));
        let keys = (0..1_024 * Methods::ALL.len() as u128).flat_map(|nth| [Notice::Url(nth), path(nth)]);
        assert!(keys.into_iter().all(|notice| queue.keep_purge(notice)));
        assert!(
            !queue.keep_purge(Notice::Url(u128::MAX)),
            "one more takes another's place, and that is told"
        );
    }

    #[test]
    fn a_bug_in_a_write_gives_back_what_it_took() {
        let queue = Queue::new(1 << 20);
        let response = samples::plain("/", b"x", Born::Here(0));
        let generation = Generation { number: 0, seen_at: Clock::system().mono() };
        let (ttl, normalize) = (WRITE, Normalize { accept_language: false });
        assert!(
            queue.offer(Write { response, generation, ttl, normalize, lease: None }) && queue.bytes() > 0
        );
        let written = catch_unwind(AssertUnwindSafe(|| {
            let taken = queue.take_write();
            assert!(taken.is_none(), "a bug");
        }));
        assert!(written.is_err());
        assert_eq!((queue.bytes(), queue.waiting.lock().no_writes()), (0, true));
    }
}
