//! Purges here what is to be purged: the notes, memory, Redis.
//!
//! Knows which purges are more than a note: a hard one of a URL also takes what stands in Redis with it
//! (`forget`, as a write through this node does). All others are notes alone: what they are of is judged when it
//! is read, in memory and from Redis alike, and a sweep frees it.
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
}

/// It is no absolute `http` or `https` URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAUrl;

impl Worker {
    /// Whether memory holds something of what these are of; `None` where that is not known without seeking: of all
    /// but single URLs. What is in Redis is not looked for.
    pub fn holds_of(&self, snapshot: &Snapshot, purges: &[Purge]) -> Option<bool> {
        let held = purges.iter().map(|purge| match &purge.scope {
            Scope::Url(url) => self.holds_url(snapshot, url),
            _ => None,
        });
        let held: Vec<Option<bool>> = held.collect();
        if held.contains(&Some(true)) {
            return Some(true);
        }
        held.iter().all(|held| *held == Some(false)).then_some(false)
    }

    /// The same of a URL, as clients write it: it is not known, too, where that may stand under keys that cannot be
    /// named: those with request fields or a content, or of several queries.
    fn holds_url(&self, snapshot: &Snapshot, url: &str) -> Option<bool> {
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
        let mut noted: Vec<Purge> = Vec::new();
        let mut forgetting: Option<Pin<Box<dyn Future<Output = Forgotten> + Send + 'a>>> = None;
        match &purge.scope {
            Scope::Url(url) if purge.soft => {
                for of_url in snapshot.keys_of_url(url) {
                    let path = of_url.searched.then(|| Scope::Path(Group::of_path(&of_url.key)));
                    noted.extend(path.map(Purge::soft));
                    noted.push(Purge::soft(Scope::Url(of_url.key.url().into())));
                }
                if noted.is_empty() {
                    return Err(NotAUrl);
                }
            }
            Scope::Url(url) => {
                forgetting = Some(Box::pin(self.forget_for_all(snapshot, url).ok_or(NotAUrl)?));
            }
            _ => noted.push(purge.clone()),
        }
        let now = self.now();
        let mut fleet: Vec<Telling> = Vec::new();
        for purge in &noted {
            fleet.extend(self.telling(purge));
            self.shared.purges.apply(purge, None, now);
        }
        Ok(async move {
            match forgetting {
                Some(forgetting) => {
                    let Forgotten { redis, fleet, .. } = forgetting.await;
                    Purged { redis: redis.map(|told| told.map(drop)), fleet }
                }
                None => Purged { fleet, redis: None },
            }
        })
    }
}
