//! What another than a fill has brought and is as good: the answer to a POST that is a representation of
//! its target, and what the answer to a HEAD says of a stored GET.
//!
//! Knows how such an answer is kept; the caller holds the seat, as a fill does, from before the moment
//! since which nothing may have been purged (`worker/forget`).
//! Must not know: why the answer was asked for.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Response, header};

use crate::clock::Timestamp;
use crate::rules::{self, ResponseFacts, Storable};
use crate::store::Generation;
use crate::stored::{Born, Position, StoredResponse};
use crate::upstream::OriginBody;

use super::judge::{content_length, facts_of};
use super::{Answer, Fill, Filling, keep};

/// An answer to a POST that may serve later GETs (RFC 9110 §9.3.3).
pub struct Adopted {
    /// The answer.
    pub response: Response<OriginBody>,
    /// When the POST was sent.
    pub request_time: Timestamp,
    /// When the head came.
    pub response_time: Timestamp,
    /// That it may be stored.
    pub permit: Storable,
    /// The latest purge: the POST's own.
    pub born: Born,
    /// How far the fleet's log had been read when the POST was sent.
    pub read: Option<Position>,
    /// The shared tier's generation that the POST's own purge has made.
    pub generation: Option<Generation>,
}

/// What a HEAD brought (RFC 9111 §4.3.5).
pub struct Heard<'a> {
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// The same, understood.
    pub facts: &'a ResponseFacts,
    /// The latest purge before the HEAD was sent.
    pub born: Born,
    /// How far the fleet's log had been read by then.
    pub read: Option<Position>,
    /// The shared tier's generation from before that.
    pub generation: Option<Generation>,
}

/// What a HEAD means for a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hearing {
    /// All of it stands as the HEAD has it.
    Heard,
    /// One is another now, and of no use: to be forgotten.
    Differs,
}

impl Fill {
    /// Delivers and keeps an answer as if this fill had fetched it.
    pub async fn adopt(self, adopted: Adopted) {
        let Some(cache) = self.snapshot.cache(self.route).cloned() else { return };
        let Adopted { response, request_time, response_time, permit, born, read, generation } = adopted;
        let answer =
            Answer { response, request_time, response_time, conditional: false, ranged: false, gap: None };
        let filling = Filling::new(self, cache, (born, read), generation);
        let facts = facts_of(&answer);
        keep::storable(filling, permit, answer, facts).await;
    }

    /// Freshens stored responses by the answer to a HEAD; one that differs from it is stale from now on, so
    /// that its next use asks the origin. [`Hearing::Differs`] where one cannot be kept like that.
    pub fn hear(self, stored: &[Arc<StoredResponse>], heard: &Heard<'_>) -> Hearing {
        let Some(cache) = self.snapshot.cache(self.route).cloned() else { return Hearing::Heard };
        let declared = content_length(heard.headers);
        let filling = Filling::new(self, cache, (heard.born, heard.read), heard.generation);
        let times = (heard.facts.request_time, heard.facts.response_time);
        let mut hearing = Hearing::Heard;
        // The most recent last, so that it stays so.
        for stored in stored.iter().rev() {
            let same = rules::speaks_of(&stored.facts, stored.content.length(), heard.facts, declared);
            let fresh = same.then(|| keep::freshened(&filling, stored, heard.headers, times)).flatten();
            match fresh.or_else(|| outdated(&filling, stored)) {
                Some(news) => {
                    filling.promote(&news);
                    filling.write_behind(&news);
                }
                None => hearing = Hearing::Differs,
            }
        }
        hearing
    }
}

/// The same response, as old as its lifetime (RFC 9111 §4.3.5: "SHOULD consider the stored response to be
/// stale"); `None` where there is then no use for it. One that is stale already stays as it is.
fn outdated(filling: &Filling, stored: &Arc<StoredResponse>) -> Option<Arc<StoredResponse>> {
    let lifetime = rules::lifetime(&stored.facts, &filling.cache.policy).duration;
    if rules::current_age(&stored.facts, filling.fill.worker.now()) >= lifetime {
        return Some(Arc::clone(stored));
    }
    let age = lifetime.as_secs().saturating_add(1);
    let mut news = HeaderMap::from_iter([(header::AGE, HeaderValue::from(age))]);
    if let Some(date) = stored.headers.get(&header::DATE) {
        news.insert(header::DATE, date);
    }
    keep::freshened(filling, stored, &news, (stored.facts.request_time, stored.facts.response_time))
}
