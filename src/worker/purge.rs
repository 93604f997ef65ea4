//! Purges here what is to be purged: the notes, memory, Redis.
//!
//! Knows which purges are more than a note: a hard one of a URL, a group or a path also takes what stands in
//! Redis with it (`forget`). All others are notes alone: what they are of is judged when it is read, in memory
//! and from Redis alike, and a sweep frees it.
//! Must not know: who asks, or the fleet; what it is to be told is handed back.

use std::future::Future;
use std::pin::Pin;

use crate::store::{Absent, Telling};
use crate::stored::{Group, Purge, Scope};

use super::{Forgotten, KeyOfUrl, Snapshot, Worker};

/// A purge that has been made here.
#[derive(Debug)]
pub struct Purged {
    /// What the other nodes are to be told: of a URL one for each of its keys, and its path where responses may
    /// be stored under a rule for that. Dropped, they are told in the background; none where there is no fleet.
    pub fleet: Vec<Telling>,
    /// How Redis took it, where it had to be told; what failed is tried again in the background.
    pub redis: Option<Result<(), Absent>>,
    /// The latest number that it has in this process.
    pub seq: u64,
}

/// It is no absolute `http` or `https` URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAUrl;

impl Worker {
    /// Whether memory holds something of a URL, as clients write it; `None` where that is not known, since it may
    /// stand under keys that cannot be named: those with request fields or a content, or of several queries. What
    /// is in Redis is not looked for.
    pub fn holds_url(&self, snapshot: &Snapshot, url: &str) -> Option<bool> {
        let mut known = Some(false);
        for KeyOfUrl { key, several, searched } in snapshot.keys_of_url(url) {
            if self.shared.memory.peek(&key).is_some_and(|resource| !resource.variants.is_empty()) {
                return Some(true);
            }
            let is_elsewhere = searched && self.shared.searches.may_have_had(Group::of_path(&key));
            if several || is_elsewhere {
                known = None;
            }
        }
        known
    }

    /// Purges, on this node. The call itself makes void, or soft, what this process holds and what it reads from
    /// Redis; the future only waits for Redis to be told. If that is dropped, Redis is told in the background.
    ///
    /// A URL is one as clients write it.
    ///
    /// # Errors
    /// The URL is none.
    pub fn purge<'a>(
        &'a self,
        snapshot: &Snapshot,
        purge: &Purge,
    ) -> Result<impl Future<Output = Purged> + use<'a>, NotAUrl> {
        let mut told = Vec::new();
        let mut forgetting: Option<Pin<Box<dyn Future<Output = Forgotten> + Send + 'a>>> = None;
        match &purge.scope {
            Scope::Url(url) => {
                for of_url in snapshot.keys_of_url(url) {
                    let soft = purge.soft;
                    let path = of_url.searched.then(|| Scope::Path(Group::of_path(&of_url.key)));
                    told.extend(path.map(|scope| Purge { scope, soft }));
                    told.push(Purge { scope: Scope::Url(of_url.key.url().into()), soft });
                }
                if told.is_empty() {
                    return Err(NotAUrl);
                }
                if !purge.soft {
                    forgetting =
                        self.forget_for_all(snapshot, url).map(|forgetting| Box::pin(forgetting) as _);
                }
            }
            _ => told.push(purge.clone()),
        }
        let redis = (!purge.soft).then_some(self.redis.as_ref()).flatten();
        let (groups, path) = match &purge.scope {
            Scope::Group(group) => (Some([*group].into()), None),
            Scope::Path(path) => (None, Some(*path)),
            _ => (None, None),
        };
        let now = self.now();
        let mut fleet: Vec<Telling> = Vec::new();
        if forgetting.is_none() {
            told.iter().for_each(|purge| {
                fleet.extend(self.telling(purge));
                self.shared.purges.apply(purge, None, now);
            });
        }
        let seq = self.shared.purges.seq();
        let groups = redis.zip(groups).map(|(redis, groups)| redis.purge_groups(groups, now));
        let path = redis.zip(path).map(|(redis, path)| redis.purge_path(path, now));
        let by_url = forgetting.is_some();
        Ok(async move {
            let mut purged = Purged { fleet, redis: None, seq };
            if let Some(forgetting) = forgetting {
                let Forgotten { redis, seq, fleet, .. } = forgetting.await;
                purged = Purged { redis: redis.map(|told| told.map(drop)), seq, fleet };
            }
            if let Some(groups) = groups {
                purged.redis = Some(groups.await);
            }
            if let Some(path) = path {
                purged.redis = Some(path.await);
            }
            if purged.redis == Some(Ok(())) && !by_url {
                purged.fleet.iter_mut().for_each(Telling::marked);
            }
            purged
        })
    }
}
