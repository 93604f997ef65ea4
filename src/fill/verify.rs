//! Looks again at what was just given from memory: does the origin give the same? (`cache.verify`)
//!
//! A response that depends on something that neither the key nor `Vary` counts is one user's, or whatever
//! an attacker made of it. What is stored cannot tell; asking again can. Up to five requests, behind the
//! client's back: the request at hand as it came; and where that is answered otherwise than is stored, one
//! that says only what key and `Vary` count, the one at hand again, the one that had brought what is stored, where
//! that is still known, and the bare one again, so that an origin that changes just now is told from one that
//! answers them differently. Where a key is suspect, who gets what is stored is not believed alone: it may be the
//! one who planted it.
//! Knows what may be asked again, what is compared, and what is done about a key that cannot be trusted.
//! Must not know: what the differences mean ([`rules::finding`]), or clients.
//!
//! Cancellation: dropped at any point, nothing has been done but requests; its leave to look is given back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use http_body_util::BodyExt;

use crate::coding;
use crate::fields::claims;
use crate::fields::content_coding::ContentCoding;
use crate::rules::{self, Compared, Finding, NotStored, RequestFacts, ResponseFacts};
use crate::store::{Class, Marked};
use crate::stored::{Group, StoredResponse};
use crate::upstream::{OriginBody, RequestBody};
use crate::worker::{Asked, Snapshot, Worker};

use super::outbound;

/// Bytes of a body, decoded too; larger ones are not looked at. With what is stored, six of them are held at
/// the very most, twice ([`Doubts::look`](crate::worker::Doubts::look)).
const LARGEST: usize = 1 << 20;

/// For how long a key whose response had changed is looked at again at once.
const SUSPECT: Duration = Duration::from_secs(600);

const FIELDS: usize = 5;

/// Fields that are compared beside status and body: those that do the harm where they are not meant for all.
const COMPARED: [HeaderName; FIELDS] = [
    header::CONTENT_TYPE,
    header::LOCATION,
    header::REFRESH,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
];

/// Looks again at what answers a request from memory, where it is this request's turn.
pub fn sample(
    worker: &Arc<Worker>,
    snapshot: &Arc<Snapshot>,
    route: usize,
    asked: &Arc<Asked>,
    stored: &Arc<StoredResponse>,
) {
    let Some(rate) = snapshot.config.cache.verify else { return };
    let doubts = &worker.shared.doubts;
    let due = worker.is_sampled(rate) || doubts.is_suspect(stored.key.hash(), worker.now());
    if !due || !may_be_asked_again(asked, stored) {
        return;
    }
    let Some(leave) = doubts.look() else { return };
    let look = Look {
        worker: Arc::clone(worker),
        snapshot: Arc::clone(snapshot),
        route,
        asked: Arc::clone(asked),
        stored: Arc::clone(stored),
    };
    tokio::spawn(async move {
        look.take().await;
        drop(leave);
    });
}

/// Remembers which request has brought what is about to be stored, without what may be a secret in it: that is
/// not ours to use again.
pub(super) fn brought(
    worker: &Worker,
    snapshot: &Snapshot,
    asked: &Arc<Asked>,
    stored: &Arc<StoredResponse>,
) {
    if snapshot.config.cache.verify.is_none() || asked.method != Method::GET {
        return;
    }
    let is_secret = |name: &&HeaderName| claims::may_be_secret(name.as_str());
    let secrets: Vec<_> = asked.headers.keys().filter(is_secret).cloned().collect();
    let mut asked = Arc::clone(asked);
    if !secrets.is_empty() {
        let mut headers = HeaderMap::clone(&asked.headers);
        for name in secrets {
            headers.remove(name);
        }
        let facts = RequestFacts { has_authorization: false, has_cookie: false, ..asked.facts.clone() };
        asked = Arc::new(Asked { headers: headers.into(), facts, ..Asked::clone(&asked) });
    }
    worker.shared.doubts.note_bringer(stored, asked, worker.now());
}

/// Not on behalf of one user: what a request with credentials does behind its sender's back is not ours to
/// try, whatever fields they stand in, and what it brings is nobody else's to compare with. And not where the bodies
/// cannot be held.
fn may_be_asked_again(asked: &Asked, stored: &StoredResponse) -> bool {
    let whole = stored.content.whole().is_some_and(|body| body.len() <= LARGEST);
    let secret = || asked.headers.keys().any(|name| claims::may_be_secret(name.as_str()));
    asked.method == Method::GET && whole && !secret()
}

struct Look {
    worker: Arc<Worker>,
    snapshot: Arc<Snapshot>,
    route: usize,
    asked: Arc<Asked>,
    stored: Arc<StoredResponse>,
}

impl Look {
    async fn take(self) {
        let finding = self.find().await.unwrap_or(Finding::Unanswered);
        self.snapshot.shard(&self.worker).verified(Some(self.route), finding);
        let (doubts, key, now) = (&self.worker.shared.doubts, self.stored.key.hash(), self.worker.now());
        match finding {
            Finding::Unkeyed | Finding::Planted => self.quarantine(finding).await,
            Finding::Changed => {
                // If it was planted after all, by somebody whom nobody knows any more, it is planted again: then
                // it is known by whom.
                doubts.suspect(key, now, now.saturating_add(SUSPECT));
                self.forget().await;
            }
            Finding::Same => doubts.clear(key),
            Finding::Unstable | Finding::Unanswered => {}
        }
    }

    /// Asks and compares; `None` where there is nothing to compare.
    async fn find(&self) -> Option<Finding> {
        let stored = Seen::stored(&self.stored)?;
        let doubts = &self.worker.shared.doubts;
        let as_stored = self.ask(&self.asked).await?.says(&stored);
        if as_stored && !doubts.is_suspect(self.stored.key.hash(), self.worker.now()) {
            return Some(Finding::Same);
        }
        let bare = self.bare();
        let before = self.ask(&bare).await?;
        if as_stored && before.says(&stored) {
            return Some(Finding::Same);
        }
        let asked = self.ask(&self.asked).await?;
        let bringer = doubts.bringer(&self.stored);
        let other = |by: &Arc<Asked>| by.headers != self.asked.headers || by.target != self.asked.target;
        let brought = match bringer.filter(other) {
            Some(bringer) => self.ask(&bringer).await,
            None => None,
        };
        let after = self.ask(&bare).await?;
        // What was written to, purged or fetched anew meanwhile is no longer what anybody is given.
        let shared = &self.worker.shared;
        if !shared.memory.holds(&self.stored) || shared.purges.is_purged(&self.stored) {
            return None;
        }
        Some(rules::finding(Compared {
            as_stored: asked.says(&stored) && after.says(&stored),
            steady: before.says(&after),
            as_bare: asked.says(&after),
            brought_as_bare: brought.map(|brought| brought.says(&after)),
            same_tag: rules::same_strong_validator(&self.stored.facts, &asked.facts),
        }))
    }

    /// The request as far as it chooses what is stored: the fields of the key, and those that `Vary` named.
    fn bare(&self) -> Asked {
        let keyed = self.snapshot.cache(self.route).map_or(&[][..], |cache| &cache.key.headers);
        let counts = |name: &HeaderName| {
            keyed.contains(name) || self.stored.selecting.names().any(|selecting| selecting == name)
        };
        let mut headers = HeaderMap::new();
        for (name, value) in self.asked.headers.iter().filter(|(name, _)| counts(name)) {
            headers.append(name.clone(), value.clone());
        }
        Asked { headers: headers.into(), ..Asked::clone(&self.asked) }
    }

    /// Asks the origin; `None` where it gives no answer that it could be held to. Bounded by the upstream's
    /// own limits.
    async fn ask(&self, asked: &Asked) -> Option<Seen> {
        let (route, upstream) = self.snapshot.route(self.route).zip(self.snapshot.upstream(self.route))?;
        let again = || outbound::fill(&self.worker, asked, route, &[], None);
        let (sent, at) = (self.worker.now(), self.worker.mono());
        let answer = upstream
            .forward(self.worker.index, again().map(|()| RequestBody::empty()), &again, None, Duration::ZERO)
            .await;
        let took = self.worker.mono().since(at);
        self.snapshot.shard(&self.worker).origin_fetch(Some(self.route), took);
        let (head, body) = answer.ok()?.response.into_parts();
        let status = head.status.as_u16();
        // An error says nothing of what it stands in the place of.
        if !matches!(status, 200..=399 | 404 | 410) {
            return None;
        }
        let facts = ResponseFacts::of(status, &head.headers, sent, self.worker.now());
        Seen::of(status, &head.headers, facts, read(body).await?)
    }

    /// What is stored is given to nobody any more, in either tier; nor is anything else that the URL has.
    async fn forget(&self) {
        let (shared, key, now) = (&self.worker.shared, &self.stored.key, self.worker.now());
        let path = key.is_searched().then(|| Group::of_path(key));
        if let Some(path) = path {
            shared.purges.purge_path(path, now);
        }
        shared.purges.purge(key.url_hash(), now);
        shared.memory.remove(key);
        if let Some(redis) = &self.worker.redis {
            let _queued_if_it_failed = redis.purge(key.url_hash()).await;
            if let Some(path) = path {
                let _queued_if_it_failed = redis.purge_path(path, now).await;
            }
        }
    }

    /// Nothing is stored under the key for a while, and its requests know without waiting for each other.
    async fn quarantine(&self, finding: Finding) {
        let (shared, key, now) = (&self.worker.shared, &self.stored.key, self.worker.now());
        let time = self.snapshot.config.cache.quarantine;
        let until = now.saturating_add(time);
        // First, so that nothing is kept once what is stored has gone.
        shared.doubts.quarantine(key.hash(), now, until);
        self.forget().await;
        for class in Class::ALL {
            shared.memory.mark(key, class, NotStored::Quarantined, Marked::Uncacheable, until);
        }
        // By its hash: a URL may be as private as what it leads to.
        tracing::warn!(
            target: "larder::verify",
            route = self.snapshot.route(self.route).map_or("-", |route| &route.name),
            finding = finding.as_str(),
            key = %format_args!("{:032x}", key.url_hash()),
            quarantine_s = time.as_secs(),
            "a stored response was not for everyone it was given to; its key is not cached for a while"
        );
    }
}

/// A body of at most [`LARGEST`] bytes; `None` where it is larger or breaks off.
async fn read(mut body: OriginBody) -> Option<Bytes> {
    let (mut chunks, mut length) = (Vec::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let Ok(chunk) = frame.ok()?.into_data() else { continue };
        length = length.saturating_add(chunk.len());
        if length > LARGEST {
            return None;
        }
        chunks.push(chunk);
    }
    Some(StoredResponse::compact(&chunks))
}

/// What an answer says.
struct Seen {
    status: u16,
    fields: [Option<HeaderValue>; FIELDS],
    facts: ResponseFacts,
    /// Without its coding: an origin need not encode twice alike.
    body: Bytes,
}

impl Seen {
    fn stored(stored: &StoredResponse) -> Option<Self> {
        let body = stored.content.whole()?.clone();
        Self::of(stored.status.as_u16(), &stored.headers.to_map(), stored.facts.clone(), body)
    }

    /// `None` where its body cannot be decoded within the bound.
    fn of(status: u16, headers: &HeaderMap, facts: ResponseFacts, body: Bytes) -> Option<Self> {
        let body = match facts.coding {
            ContentCoding::One(coding) if !body.is_empty() => coding::decode(coding, &body, LARGEST).ok()?,
            ContentCoding::Identity | ContentCoding::One(_) | ContentCoding::Other => body,
        };
        Some(Self { status, fields: COMPARED.map(|name| headers.get(name).cloned()), facts, body })
    }

    fn says(&self, other: &Self) -> bool {
        self.status == other.status && self.fields == other.fields && self.body == other.body
    }
}
