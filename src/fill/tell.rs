//! Whom a fill tells what, and what it remembers of it.
//!
//! Knows the order: what is kept or marked stands before anybody hears of it, so that nobody who goes on
//! from the news looks in vain.
//! Must not know: how it came to what it tells.

use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode};

use crate::clock::Timestamp;
use crate::rules::NotStored;
use crate::stored::{CacheKey, StoredResponse};
use crate::upstream::OriginBody;
use crate::worker::{Doubts, ForOwner, Landing, Own, OwnerLanding};

use super::{Fill, Filling, Want, judge};

impl Filling {
    /// Not to be shared: marks the key, sends everyone else away, gives it to the owner.
    pub(super) async fn private(mut self, response: Response<OriginBody>, why: NotStored) {
        let status = response.status();
        // 429: it is asked too often (RFC 6585 §4).
        let error = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        if error {
            self.failed_for_all();
        }
        self.lease = None;
        self.mark(why, status.as_u16());
        // The mark stands before anybody is sent away, so that none of them joins a flight again.
        self.fill.seat.publish(Landing::NotStorable(why));
        match self.fill.owner.take() {
            // An owner that has left drops the response, which closes its connection.
            Some(owner) => {
                let landing = OwnerLanding::Private(Box::new(response), why);
                let _left = owner.send(ForOwner { landing, times: self.times, looked: self.looked });
            }
            None => drop(response),
        }
        if error {
            self.rest_after_refresh().await;
        }
    }

    /// Remembers that the key is not worth waiting for, and how far that goes.
    pub(super) fn mark(&self, why: NotStored, status: u16) {
        // A part that is too large says nothing of others.
        let of_a_part = why == NotStored::TooLarge && self.fill.want != Want::Whole;
        let remembered = judge::remembered(why, status, self.fill.class.chooses());
        if let Some(how) = remembered.filter(|_| !of_a_part) {
            let shared = &self.fill.worker.shared;
            let until = self.fill.worker.now().saturating_add(self.fill.snapshot.config.cache.hit_for_miss);
            shared.memory.mark(&self.fill.key, self.fill.class, why, how, until);
        }
    }

    /// Whether nothing may be stored under the key for a while.
    pub(super) fn is_quarantined(&self) -> bool {
        self.is(Doubts::is_quarantined)
    }

    /// Whether what the shared tier may have of it is not to be trusted.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.is(Doubts::is_in_doubt)
    }

    fn is(&self, doubted: fn(&Doubts, u128, Timestamp) -> bool) -> bool {
        let Fill { worker, key, exact, .. } = &self.fill;
        let (doubts, now) = (&worker.shared.doubts, worker.now());
        let doubted = |key: &CacheKey| doubted(doubts, key.hash(), now);
        doubted(key) || exact.as_ref().is_some_and(doubted)
    }

    pub(super) fn promote(&self, found: &Arc<StoredResponse>) {
        let shared = &self.fill.worker.shared;
        shared.memory.keep(Arc::clone(found), self.fill.class, &shared.purges);
    }

    /// The origin has confirmed what is stored; `own` is for the owner alone, and for nobody where nobody has
    /// waited for it.
    pub(super) fn tell_revalidated(&mut self, fresh: Arc<StoredResponse>, own: HeaderMap) {
        if let Some(owner) = self.fill.owner.take() {
            let landing = OwnerLanding::Revalidated(Arc::clone(&fresh), own);
            let _left = owner.send(ForOwner { landing, times: self.times, looked: self.looked });
        }
        self.fill.seat.publish(Landing::Revalidated(fresh));
    }

    pub(super) fn tell(&mut self, landing: Landing) {
        self.tell_with(landing, None);
    }

    pub(super) fn tell_with(&mut self, landing: Landing, own: Option<Own>) {
        if let Some(owner) = self.fill.owner.take() {
            let landing = OwnerLanding::Shared(landing.clone(), own);
            let _left = owner.send(ForOwner { landing, times: self.times, looked: self.looked });
        }
        self.fill.seat.publish(landing);
    }
}
