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
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::lease::Lease;
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

    pub(super) fn take_purge<'a>(&'a self, counters: &'a Counters) -> Option<Told<'a>> {
        let (purge, taken) = self.take(|waiting| waiting.purges.pop_front(), |_| 0)?;
        Some(Told { purge: Some(purge), counters, taken })
    }

    pub(super) fn take_damaged(&self) -> Option<((String, Bad), Taken<'_>)> {
        self.take(|waiting| waiting.damaged.pop_front(), |_| 0)
    }

    pub(super) fn take_write(&self) -> Option<(Write, Taken<'_>)> {
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
    fn size(&self) -> u64 {
        u64::try_from(self.response.weight()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::clock::Clock;
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
        let (ttl, normalize) = (Duration::from_secs(1), Normalize { accept_language: false });
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
