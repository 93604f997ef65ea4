//! The task that writes behind: it empties the queue into Redis.
//!
//! Knows that a write is tried once, within [`WRITE`], and not at all when its
//! fetch began too long ago; and that a purge is never overtaken by a write: Redis takes none whose
//! URL was purged since, and for a purge that Redis has not heard of yet the local ones are asked just
//! before a write and again after it.
//! What a lookup found damaged is removed before the next write, so that what replaces it stays.
//! Must not know: how a lookup works, or who fills the queue.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::cmd;

use super::compression::squeeze;
use super::lease::Word;
use super::link::{Fault, Phase};
use super::nodes::{Asker, Nodes, ask};
use super::queue::{Queue, Told, Write};
use super::script::{self, Set};
use super::{Counters, keys};
use crate::clock::{Clock, Mono};
use crate::fields::no_vary_search::NO_VARY_SEARCH;
use crate::rules::SelectingFields;
use crate::store::Purges;
use crate::stored::{
    Group, MOST_NAMES, Nonce, Seal, StoredFields, StoredResponse, encode_names, encode_response, encode_rule,
};

/// The longest that one write may take.
const WRITE: Duration = Duration::from_secs(1);
/// Between two attempts at a purge.
const PURGE_AGAIN: Duration = Duration::from_secs(1);

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
