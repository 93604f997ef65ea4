//! Forgets a URL: in memory, in Redis, and whatever of it is being fetched.
//!
//! Knows the order in which the tiers, the fetches in flight and the notes of purges are told, and
//! why a note may then be taken back.
//! Must not know: why a URL is to be forgotten, or who is told.
//!
//! A note makes void everything of its URL that was born before it, wherever it is. But the table of
//! notes is bounded, and when it overflows, everything older counts as purged: were a note left for
//! each URL that is written to, a write-heavy API would flush the whole cache over and over, though
//! most of its URLs have never been in it. So the note stands while the work is under way, and stays
//! only where it is needed. In order:
//!
//! 1. The note is taken. From here on nobody is given what is older, and no fetch that began earlier
//!    can keep what it brings, be it from the origin or from Redis.
//! 2. Redis is purged. From here on nobody reads anything older there, and Redis takes nothing from a
//!    fetch that began earlier.
//! 3. Memory drops what it holds under the key.
//! 4. If no fetch for the key is in flight, nor can be under another key, the note is taken back.
//!
//! Why that is right: what is older could come back only by a fetch that began before the note (its
//! question to the origin or to Redis may have been answered earlier) or before 2 (it may have read
//! Redis). Whoever keeps anything in memory holds a seat from before its first question until it has
//! kept the answer: every fill, a lookup for a request that cannot fill, and a warm start (`warm`). Is it still in flight at 4,
//! the note stays. Is it over, then what it kept, it kept before 4 while the note stood, and that
//! means not at all. A fetch that begins after 4 asks an origin that has answered the write before 1,
//! and a Redis that was purged in 2; and what its request found in memory, and wants confirmed, it
//! uses only if memory holds it still (`fill`), which was settled in 3.
//!
//! The note stays in four cases: a fetch is in flight; the path has had a rule for its query
//! (`No-Vary-Search`), since a fetch that flies under the key of several queries may keep what it brings
//! under this one; Redis did not take the purge, and may hand
//! out what is older until it does; and where request fields or contents are part of the key, since
//! keys with such extras cannot be named, neither in memory nor among the flights.

use std::future::Future;
use std::sync::Arc;

use crate::fields::groups::Groups;
use crate::store::{Absent, Generation, Telling};
use crate::stored::{CacheKey, Group, Purge, Scope};

use super::{KeyOfUrl, Snapshot, Worker};

/// What has been forgotten, and how that went. Memory never fails.
#[derive(Debug)]
pub struct Forgotten {
    /// The URL's key as of a GET, request fields apart.
    pub key: CacheKey,
    /// How Redis took it, where one is configured; what failed is tried again in the background. The
    /// generation is what [`Redis::purge`](crate::store::Redis::purge) gives.
    pub redis: Option<Result<Option<Generation>, Absent>>,
    /// The purge's number in this process.
    pub seq: u64,
    /// The number of the latest purge of the same before it; 0 where none is remembered.
    pub before: u64,
    /// What the other nodes are to be told: dropped, that happens in the background.
    pub(super) fleet: Vec<Telling>,
}

impl Worker {
    /// Forgets everything of `url`, whatever request fields its stored responses are keyed on; `None`
    /// where that is not an absolute `http` URL. Lasts as long as Redis may take for an answer.
    ///
    /// The call itself makes void what memory holds; the future only waits for the rest. If that is
    /// dropped, even one that was never polled, the note stays and Redis is told in the background. So are the
    /// other nodes, for which it does not wait.
    pub fn forget(
        &self,
        snapshot: &Snapshot,
        url: &str,
    ) -> Option<impl Future<Output = Forgotten> + use<'_>> {
        let forgetting = self.forget_for_all(snapshot, url)?;
        Some(async move { Forgotten { fleet: Vec::new(), ..forgetting.await } })
    }

    /// The same, with what the other nodes are to be told once Redis was.
    pub(super) fn forget_for_all(
        &self,
        snapshot: &Snapshot,
        url: &str,
    ) -> Option<impl Future<Output = Forgotten> + use<'_>> {
        // Each is noted, and Redis asked, before the first is waited for.
        let mut begun = snapshot.keys_of_url(url).into_iter().map(|key| self.forget_key(key));
        let (first, others) = (begun.next()?, begun.collect::<Vec<_>>());
        Some(async move {
            let mut forgotten = first.await;
            for other in others {
                let mut other = other.await;
                forgotten.fleet.append(&mut other.fleet);
                if let Some(Err(failed)) = other.redis {
                    forgotten.redis = Some(Err(failed));
                }
            }
            forgotten
        })
    }

    /// Forgets whatever is in one of these groups, on the origin of what is stored under `key` (RFC 9875
    /// §3): the call itself for this process, the future once Redis knows, as in [`forget`](Self::forget).
    /// The notes stay: who is in a group cannot be told.
    pub fn forget_groups(&self, key: &CacheKey, groups: &Groups) -> impl Future<Output = ()> + use<'_> {
        let (groups, now): (Arc<[Group]>, _) = (Group::of(key, groups.iter()).collect(), self.now());
        let mut fleet: Vec<Telling> = Vec::new();
        for group in groups.iter() {
            fleet.extend(self.telling(&Purge { scope: Scope::Group(*group), soft: false }));
            self.shared.purges.purge_group(*group, now);
        }
        let telling = self.redis.as_ref().map(|redis| redis.purge_groups(groups, now));
        async move {
            if let Some(telling) = telling
                && telling.await.is_ok()
            {
                fleet.iter_mut().for_each(Telling::marked);
            }
        }
    }

    /// One of a URL's keys, and what is stored for this path under a rule for its query.
    fn forget_key(&self, of_url: KeyOfUrl) -> impl Future<Output = Forgotten> + use<'_> {
        let KeyOfUrl { key, several, searched } = of_url;
        let (purges, now) = (&self.shared.purges, self.now());
        let scopes =
            [searched.then(|| Scope::Path(Group::of_path(&key))), Some(Scope::Url(key.url().into()))];
        let scopes = scopes.into_iter().flatten();
        let mut fleet: Vec<Telling> =
            scopes.filter_map(|scope| self.telling(&Purge { scope, soft: false })).collect();
        // First, so that what is kept as of the URL's own purge need not fear it.
        let path = searched.then(|| Group::of_path(&key)).map(|path| (path, purges.purge_path(path, now)));
        let (seq, before) = purges.purge_after(key.url_hash(), now);
        let telling = self.redis.as_ref().map(|redis| redis.purge(key.url_hash()));
        let telling_path =
            self.redis.as_ref().zip(path).map(|(redis, (path, _))| redis.purge_path(path, now));
        async move {
            let mut redis = match telling {
                Some(telling) => Some(telling.await),
                None => None,
            };
            if let Some(telling) = telling_path
                && let Err(failed) = telling.await
            {
                redis = Some(Err(failed));
            }
            self.shared.memory.remove(&key);
            let told = redis.is_none_or(|told| told.is_ok());
            if told {
                fleet.iter_mut().for_each(Telling::marked);
            }
            let searched = path.is_some_and(|(path, _)| self.shared.searches.may_have_had(path));
            if told && !several && !searched && !self.shared.flights.any(key.hash()) {
                purges.retract(key.url_hash(), seq);
            }
            // Where there never was a rule, nothing is stored under one; and who learns one just now sees
            // that something was purged meanwhile (`Filling::rekey`).
            if let Some((path, seq)) = path.filter(|_| told && !searched) {
                purges.retract_path(path, seq);
            }
            Forgotten { key, redis, seq, before, fleet }
        }
    }
}
