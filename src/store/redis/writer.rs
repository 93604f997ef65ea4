//! The task that writes behind: it empties the queue into Redis.
//!
//! Knows that a write is tried once, within [`WRITE`], and not at all when its
//! fetch began too long ago; and that a purge is never overtaken by a write: Redis takes none whose
//! URL was purged since, and for a purge that Redis has not heard of yet the local ones are asked just
//! before a write and again after it.
//! What waits by the time that the one before is done is sent in one piece, up to a bound, so that a Redis far away
//! takes as much as one near by; nothing waits for more to come. Each of such writes is judged by its own answer.
//! What a lookup found damaged is removed before the next write, so that what replaces it stays.
//! Must not know: how a lookup works, or who fills the queue.

use std::iter;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::compression::squeeze;
use super::lease::Word;
use super::link::{Fault, Phase};
use super::nodes::{Nodes, ask_each};
use super::queue::{Queue, Told, Write};
use super::script::{self, Put, Set};
use super::{Counters, keys};
use crate::clock::{Clock, Mono};
use crate::fields::no_vary_search::NO_VARY_SEARCH;
use crate::rules::SelectingFields;
use crate::store::Purges;
use crate::stored::{
    Group, MOST_NAMES, Nonce, Seal, StoredFields, StoredResponse, encode_names, encode_response, encode_rule,
};

/// The longest that writes which are sent in one piece may take.
const WRITE: Duration = Duration::from_secs(1);
/// Bytes of records after whose making others have their turn.
const BREATH: u64 = 64 << 10;
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
            } else if let Some((writes, _taken)) = self.queue.take_writes() {
                self.write(writes).await;
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

    /// Writes them, in one piece; gives back the lease of each, with what is to be said to those who wait for it.
    async fn write(&self, writes: Vec<Write>) {
        let ready = self.ready(writes).await;
        if ready.is_empty() {
            return;
        }
        let puts: Vec<&Put> = ready.iter().map(|(_, put)| put).collect();
        let asked = |asker| async { Ok(script::put_each(&self.seal, asker, &puts).await) };
        let answers = self.link.with(WRITE, asked).await.unwrap_or_default();
        let written: Vec<Result<bool, Fault>> =
            answers.into_iter().chain(iter::repeat(Err(Fault::Nonsense))).take(puts.len()).collect();
        self.queue.went(!written.contains(&Err(Fault::Deadline)));
        let mut undone = Vec::new();
        for ((write, put), written) in ready.iter().zip(&written) {
            self.count(*written, put.bytes());
            if !matches!(written, Ok(false) | Err(Fault::Open)) && self.purges.is_purged(&write.response) {
                undone.push(script::unlink(put));
            }
        }
        if !undone.is_empty() {
            // Purged while it was written: one of the two deletes it, whichever comes second. Should
            // this fail as well, the purge still voids it once Redis hears of it.
            let unlink = |mut asker| async move { Ok(ask_each(&mut asker, undone).await) };
            let _undone = self.link.with(WRITE, unlink).await;
        }
        for ((write, _), written) in ready.into_iter().zip(written) {
            // Not taken, it has been purged since.
            write.give_back(if written.is_ok() { Word::Look } else { Word::NotStored });
        }
    }

    /// What is to be put for each; those that are not to be written are done with.
    async fn ready(&self, writes: Vec<Write>) -> Vec<(Write, Put)> {
        let (mut made, mut breath) = (Vec::with_capacity(writes.len()), 0);
        for write in writes {
            match self.made(&write).await {
                Ok(put) => {
                    breath += put.bytes();
                    made.push((write, put));
                }
                Err(word) => write.give_back(word),
            }
            if breath >= BREATH {
                breath = 0;
                tokio::task::yield_now().await;
            }
        }
        // Once more, for others have had their turn meanwhile.
        let mut ready = Vec::with_capacity(made.len());
        for (write, put) in made {
            match self.refused(&write) {
                None => ready.push((write, put)),
                Some(word) => write.give_back(word),
            }
        }
        ready
    }

    /// What is to be put, or what to say where it is not to be written.
    async fn made(&self, write: &Write) -> Result<Put, Word> {
        if let Some(word) = self.refused(write) {
            return Err(word);
        }
        let put = put_of(&self.seal, write, self.compress).ok_or(Word::NotStored)?;
        let is_long = put.sets.iter().any(|set| set.value.len() as u64 > self.longest);
        if is_long || (write.has_rule() && !self.path_is_open(&write.response).await) {
            self.counters.dropped_writes.fetch_add(1, Ordering::Relaxed);
            return Err(Word::NotStored);
        }
        Ok(put)
    }

    /// What to say, and one more that is dropped, where it was purged while it waited, and Redis may not know yet; or
    /// came so long ago that Redis may have forgotten that it was purged meanwhile.
    fn refused(&self, write: &Write) -> Option<Word> {
        let late = self.clock.mono().since(write.generation.seen_at) > keys::PUT_WITHIN;
        let purged = self.purges.is_purged(&write.response);
        if !late && !purged {
            return None;
        }
        self.counters.dropped_writes.fetch_add(1, Ordering::Relaxed);
        // One of those who wait fetches what is new, for all.
        Some(if purged { Word::Look } else { Word::NotStored })
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

/// What is set for one response: itself, and the names it varies on, if any. `None` when it would expire at once,
/// varies on more than can be read again, or cannot be sealed.
fn put_of(seal: &Seal, write: &Write, compress: Option<u64>) -> Option<Put> {
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
        return Some(Put { url_hash, seen: generation, sets: vec![set(base)?] });
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
    Some(Put { url_hash, seen: generation, sets })
}
