//! Write-behind: what waits to be written to Redis.
//!
//! Knows that a response must never wait for Redis, so everything here is bounded and what does not
//! fit is dropped and counted; and that what was taken out counts until it is done, however that ends.
//! A purge that Redis did not take is kept, up to [`PURGES`] of them, and tried again until it did; a bug that ends
//! the writer in the middle of one does not lose it.
//! What a lookup found damaged waits to be removed, up to [`DAMAGED`] of it, and each is tried once: who finds it
//! again says so again.
//! Must not know: how anything is written, how a lookup works, or who fills the queue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::lease::{Lease, Word};
use super::link::Fault;
use super::nodes::Asker;
use super::script;
use super::value::Bad;
use super::{Counters, Generation, keys};
use crate::clock::Timestamp;
use crate::rules::Normalize;
use crate::stored::{Group, Seal, StoredResponse};

/// Purges that may wait for Redis to come back: what a request of the most names may come to (`admin`), each a URL
/// with a key for each of four methods, and each of those with its path.
pub(super) const PURGES: usize = 8 * 1_024;
/// Damaged values that may wait to be removed.
const DAMAGED: usize = 64;
/// Writes that are sent in one piece, at most: so many, and so many bytes. One that has more goes alone.
const TOGETHER: usize = 32;
const TOGETHER_BYTES: u64 = 256 << 10;

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
    pub(super) news: Notify,
    /// Something was done, and no write waits any more.
    drained: Notify,
    /// Bytes that are sent in one piece at most.
    together: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Each with its bytes as they were when it came: a response can grow while it waits.
    writes: VecDeque<(Write, u64)>,
    purges: VecDeque<Notice>,
    /// Keys under which something damaged was found, and what.
    damaged: VecDeque<(String, Bad)>,
    /// Bytes of `writes`, and of those that are being written.
    bytes: u64,
    /// The task has taken something out and is not done with it.
    busy: bool,
}

impl Queue {
    pub(super) fn new(limit: u64) -> Self {
        let (news, drained, together) = (Notify::new(), Notify::new(), AtomicU64::new(TOGETHER_BYTES));
        Self { waiting: Mutex::default(), limit, news, drained, together }
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
            waiting.writes.push_back((write, size));
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

    pub(super) fn take_purge<'a>(&'a self, counters: &'a Counters) -> Option<Told<'a>> {
        let (purge, taken) = self.take(|waiting| waiting.purges.pop_front(), |_| 0)?;
        Some(Told { purge: Some(purge), counters, taken })
    }

    pub(super) fn take_damaged(&self) -> Option<((String, Bad), Taken<'_>)> {
        self.take(|waiting| waiting.damaged.pop_front(), |_| 0)
    }

    /// Those that are to be sent next, in one piece.
    pub(super) fn take_writes(&self) -> Option<(Vec<Write>, Taken<'_>)> {
        let most = self.together.load(Ordering::Relaxed);
        let next = |waiting: &mut Waiting| together(&mut waiting.writes, most);
        let ((writes, _), taken) = self.take(next, |(_, bytes)| *bytes)?;
        Some((writes, taken))
    }

    /// How a piece went: where it was not taken in time the next are smaller, down to one write, until one is.
    pub(super) fn went(&self, in_time: bool) {
        let most = self.together.load(Ordering::Relaxed);
        let next = if in_time { most.max(1).saturating_mul(2).min(TOGETHER_BYTES) } else { most / 2 };
        self.together.store(next, Ordering::Relaxed);
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

    pub(super) fn has_purges(&self) -> bool {
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
pub(super) struct Taken<'a> {
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
pub(super) struct Told<'a> {
    pub(super) purge: Option<Notice>,
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
    /// Gives its lease back, with what is to be said to those who wait.
    pub(super) fn give_back(self, word: Word) {
        if let Some(lease) = self.lease {
            lease.give_back(word);
        }
    }

    /// It comes with a rule for its path, or under one: what is told of that is for no other to wait for.
    pub(super) fn has_rule(&self) -> bool {
        self.response.facts.no_vary_search.is_some()
    }

    fn size(&self) -> u64 {
        u64::try_from(self.response.weight()).unwrap_or(u64::MAX)
    }

    fn url(&self) -> u128 {
        self.response.key.url_hash()
    }
}

/// Takes out the longest beginning that may be sent in one piece, and says how many bytes it has. No two are of one
/// URL: what undoes the first, once it is known to be purged, would undo the second.
fn together(writes: &mut VecDeque<(Write, u64)>, most: u64) -> Option<(Vec<Write>, u64)> {
    let (first, mut bytes) = writes.pop_front()?;
    let alone = first.has_rule();
    let mut taken = vec![first];
    while let Some((next, more)) = writes.front()
        && !alone
        && !next.has_rule()
        && taken.len() < TOGETHER
        && bytes.saturating_add(*more) <= most
        && taken.iter().all(|known| known.url() != next.url())
    {
        bytes = bytes.saturating_add(*more);
        taken.extend(writes.pop_front().map(|(write, _)| write));
    }
    Some((taken, bytes))
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::clock::Clock;
    use crate::rules::Methods;
    use crate::stored::{Born, samples};

    #[test]
    fn pieces_that_are_not_taken_in_time_become_smaller_down_to_one_write_and_large_again() {
        let queue = Queue::new(1 << 30);
        let generation = Generation { number: 0, seen_at: Clock::system().mono() };
        let (ttl, normalize) = (Duration::from_secs(60), Normalize { accept_language: false });
        let offer = |count: u32| {
            (0..count).for_each(|nth| {
                let response = samples::plain(&format!("/{nth}"), &[b'x'; 7_000], Born::Here(0));
                assert!(queue.offer(Write { response, generation, ttl, normalize, lease: None }));
            });
        };
        let pieces = |in_time: bool, times: usize| {
            offer(32);
            let (writes, taken) = queue.take_writes().unwrap();
            let count = writes.len();
            drop(taken);
            (0..times).for_each(|_| queue.went(in_time));
            while queue.take_writes().is_some() {}
            count
        };
        let whole = pieces(false, 1);
        assert!(whole > 20, "{whole}");
        let half = pieces(false, 30);
        assert!((whole / 3..=whole / 2 + 1).contains(&half), "{half}");
        assert_eq!(pieces(true, 30), 1);
        assert_eq!(pieces(true, 1), whole);
    }

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
        assert!(queue.offer(write(response)) && queue.bytes() > 0);
        let written = catch_unwind(AssertUnwindSafe(|| {
            let taken = queue.take_writes();
            assert!(taken.is_none(), "a bug");
        }));
        assert!(written.is_err());
        assert_eq!((queue.bytes(), queue.waiting.lock().no_writes()), (0, true));
    }

    fn write(response: Arc<StoredResponse>) -> Write {
        let generation = Generation { number: 0, seen_at: Clock::system().mono() };
        let (ttl, normalize) = (Duration::from_secs(1), Normalize { accept_language: false });
        Write { response, generation, ttl, normalize, lease: None }
    }

    /// How many are sent in each piece.
    fn pieces(offered: &[Arc<StoredResponse>]) -> Vec<usize> {
        let queue = Queue::new(1 << 30);
        assert!(offered.iter().all(|response| queue.offer(write(Arc::clone(response)))));
        let (mut sizes, mut seen) = (Vec::new(), Vec::new());
        while let Some((writes, taken)) = queue.take_writes() {
            assert!(queue.bytes() > 0, "what is taken out counts until it is done");
            sizes.push(writes.len());
            seen.extend(writes.into_iter().map(|write| write.response));
            drop(taken);
        }
        assert!(seen.iter().zip(offered).all(|(one, other)| Arc::ptr_eq(one, other)), "in order");
        assert_eq!((seen.len(), queue.bytes()), (offered.len(), 0));
        sizes
    }

    #[test]
    fn a_piece_is_bounded_in_number_and_in_bytes_and_has_a_url_once() {
        let of = |path: &str, bytes: usize| samples::plain(path, &vec![b'x'; bytes], Born::Here(0));
        let many: Vec<_> = (0..70).map(|nth| of(&format!("/{nth}"), 1)).collect();
        assert_eq!(pieces(&many), [32, 32, 6]);
        let halves: Vec<_> = (0..3).map(|nth| of(&format!("/{nth}"), 100 << 10)).collect();
        assert_eq!(pieces(&halves), [2, 1]);
        let large = [of("/a", 1), of("/large", 300 << 10), of("/b", 1), of("/c", 1)];
        assert_eq!(pieces(&large), [1, 1, 2], "a larger one goes alone");
        let again = [of("/a", 1), of("/b", 1), of("/a", 2), of("/b", 2), of("/c", 1)];
        assert_eq!(pieces(&again), [2, 3]);
        let ruled = samples::stored(
            &samples::key("/ruled"),
            &[],
            &[("cache-control", "max-age=60"), ("no-vary-search", "params")],
            b"x",
            Born::Here(0),
        );
        assert_eq!(pieces(&[of("/a", 1), of("/b", 1), ruled, of("/c", 1), of("/d", 1)]), [2, 1, 2]);
    }
}
