//! Whether a stored response may answer a request (RFC 9111 §4, §4.2.4, §5.2.1; RFC 5861).
//!
//! The only maker of [`Reusable`]: nothing stored is delivered without one. Nothing here
//! allocates, since every hit comes this way.
//! Must not know: how the response was found; its key and selecting fields match already, and the
//! request is a GET or HEAD.

use std::time::Duration;

use super::facts::{RequestFacts, ResponseFacts};
use super::freshness;
use super::policy::Policy;
use super::reasons::{MustAsk, NotStored};
use super::storing;
use crate::clock::Timestamp;
use crate::fields::cache_control::MaxStale;

/// What a stored response is to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// It answers.
    Fresh(Reusable),
    /// It answers once the origin has confirmed it.
    Stale {
        /// It may also answer at once, while the origin is asked behind the client's back.
        grace: Option<Reusable>,
        /// Why the origin has to be asked.
        because: MustAsk,
    },
    /// It is not for this request at all, not even confirmed.
    Refused(MustAsk),
}

/// The permit to answer with a stored response; only this file makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reusable {
    age: Duration,
    lifetime: Duration,
}

impl Reusable {
    /// The response's current age (§4.2.3), for `Age`.
    pub fn age(&self) -> Duration {
        self.age
    }

    /// Whole seconds of freshness left, rounded down; negative when stale.
    pub fn ttl(&self) -> i64 {
        let millis = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        millis(self.lifetime).saturating_sub(millis(self.age)).div_euclid(1000)
    }

    /// §4.2: "response_is_fresh = (freshness_lifetime > current_age)".
    fn is_fresh(&self) -> bool {
        self.lifetime > self.age
    }

    fn staleness(&self) -> Duration {
        self.age.saturating_sub(self.lifetime)
    }
}

/// Whether the stored response answers this request at `now`.
pub fn judge(req: &RequestFacts, resp: &ResponseFacts, policy: &Policy, now: Timestamp) -> Reuse {
    if let Some(refused) = refusal(req, resp, policy) {
        return Reuse::Refused(refused);
    }
    let this = measured(req, resp, policy, now);
    if let Some(because) = must_ask(req, resp, this) {
        return Reuse::Stale { grace: None, because };
    }
    if this.is_fresh() {
        return Reuse::Fresh(this);
    }
    let grace = in_grace(req, resp, policy, this).then_some(this);
    Reuse::Stale { grace, because: MustAsk::Stale }
}

/// Whether the stored response may answer because the origin failed (RFC 5861 §4).
///
/// "Regardless of other freshness information": the request's `max-age` and `min-fresh` do not
/// count here. Its `no-cache` does: it asks for the origin's word and nothing in its place.
pub fn on_error(
    req: &RequestFacts,
    resp: &ResponseFacts,
    policy: &Policy,
    now: Timestamp,
) -> Option<Reusable> {
    let asked_for_origin = req.directives.no_cache || resp.directives.no_cache.is_all();
    if asked_for_origin || refusal(req, resp, policy).is_some() {
        return None;
    }
    let this = measured(req, resp, policy, now);
    // A stale one is held back by §4.2.4 alone, which `error_window` knows.
    let usable = this.is_fresh() || this.staleness() < freshness::error_window(resp, policy);
    usable.then_some(this)
}

/// The permit for a response that the origin has confirmed for this very request (§4.3.3).
pub fn after_validation(resp: &ResponseFacts, policy: &Policy, now: Timestamp) -> Reusable {
    let lifetime = freshness::lifetime(resp, policy).duration;
    Reusable { age: freshness::current_age(resp, now), lifetime }
}

fn refusal(req: &RequestFacts, resp: &ResponseFacts, policy: &Policy) -> Option<MustAsk> {
    match storing::shared_with_credentials(req, resp, policy) {
        Ok(()) => None,
        Err(NotStored::Authorization) => Some(MustAsk::Authorization),
        Err(_) => Some(MustAsk::Cookie),
    }
}

fn measured(req: &RequestFacts, resp: &ResponseFacts, policy: &Policy, now: Timestamp) -> Reusable {
    let lifetime = if storing::only_origin_lifetime(req, resp, policy) {
        freshness::origin_lifetime(resp, policy)
    } else {
        freshness::lifetime(resp, policy)
    };
    Reusable { age: freshness::current_age(resp, now), lifetime: lifetime.duration }
}

/// What rules out an answer without the origin, even of a fresh response.
fn must_ask(req: &RequestFacts, resp: &ResponseFacts, this: Reusable) -> Option<MustAsk> {
    let asked = &req.directives;
    // §5.2.2.4: "even by caches that have been configured to send stale responses".
    if resp.directives.no_cache.is_all() {
        return Some(MustAsk::NoCache);
    }
    if asked.no_cache {
        return Some(MustAsk::RequestNoCache); // §5.2.1.4
    }
    if asked.max_age.is_some_and(|max| this.age > seconds(max)) {
        return Some(MustAsk::RequestMaxAge); // §5.2.1.1: "less than or equal"
    }
    // §5.2.1.3: "freshness lifetime is no less than its current age plus the specified time".
    let too_short = |min| this.lifetime < this.age.saturating_add(seconds(min));
    asked.min_fresh.is_some_and(too_short).then_some(MustAsk::RequestMinFresh)
}

/// Whether a stale response may be served (§4.2.4).
fn in_grace(req: &RequestFacts, resp: &ResponseFacts, policy: &Policy, this: Reusable) -> bool {
    if freshness::stale_forbidden(resp) {
        return false;
    }
    match (req.directives.max_stale, req.directives.max_age) {
        // §5.2.1.2: the client's own limit, wider or narrower than the route's.
        (Some(MaxStale::Any), _) => true,
        (Some(MaxStale::Upto(limit)), _) => this.staleness() <= seconds(limit),
        // §5.2.1.1: "Unless the max-stale request directive is also present, the client does not
        // wish to receive a stale response."
        (None, Some(_)) => false,
        (None, None) => this.staleness() < freshness::revalidate_window(resp, policy),
    }
}

fn seconds(s: u32) -> Duration {
    Duration::from_secs(s.into())
}
