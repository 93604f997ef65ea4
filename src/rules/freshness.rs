//! How long a response is fresh, and how old it is (RFC 9111 §4.2).
//!
//! All times are to the millisecond. Heuristic freshness (§4.2.2) is not used: where the origin
//! says nothing, the route's `ttl.default` says it, or nothing does.
//! Must not know: requests; `reuse` weighs what they ask.

use std::time::Duration;

use super::facts::{Expires, ResponseFacts};
use super::policy::Policy;
use crate::clock::Timestamp;

/// A freshness lifetime (§4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// From the moment the origin made or confirmed the response.
    pub duration: Duration,
    /// Whose word it is.
    pub source: LifetimeSource,
}

/// Whose word a lifetime is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LifetimeSource {
    /// The route's `ttl.override`.
    Override,
    /// `s-maxage`
    SMaxAge,
    /// `max-age`
    MaxAge,
    /// `Expires`
    Expires,
    /// The route's `ttl.default`.
    Default,
    /// Nobody's: zero.
    None,
}

/// How long the response is fresh under the route's policy (§4.2.1).
///
/// `ttl.override` comes before the origin's word and `ttl.default` after it, both only for
/// [`takes_route_ttl`] statuses; `ttl.max` cuts all of them.
pub fn lifetime(resp: &ResponseFacts, policy: &Policy) -> Lifetime {
    let route = |ttl: Option<Duration>, source| {
        let duration = ttl.filter(|_| takes_route_ttl(resp.status))?;
        Some(Lifetime { duration, source })
    };
    let found = route(policy.ttl.r#override, LifetimeSource::Override)
        .or_else(|| said_by_origin(resp))
        .or_else(|| route(policy.ttl.default, LifetimeSource::Default));
    capped(found, policy)
}

/// How long the origin itself says that the response is fresh (§4.2.1), cut by `ttl.max`.
pub(crate) fn origin_lifetime(resp: &ResponseFacts, policy: &Policy) -> Lifetime {
    capped(said_by_origin(resp), policy)
}

/// How old the response is at `now` (§4.2.3).
pub fn current_age(resp: &ResponseFacts, now: Timestamp) -> Duration {
    // resident_time = now - response_time; a clock set back counts as standing still.
    initial_age(resp).saturating_add(now.saturating_since(resp.response_time))
}

/// How long after `response_time` a tier should hold the response: for its lifetime, and past it
/// for as long as it may be served stale or, with a validator, confirmed.
pub fn usable_for(resp: &ResponseFacts, policy: &Policy) -> Duration {
    let keep = if resp.has_validator() { policy.keep } else { Duration::ZERO };
    let windows = revalidate_window(resp, policy).max(error_window(resp, policy));
    let usable = lifetime(resp, policy).duration.saturating_add(windows.max(keep));
    usable.saturating_sub(initial_age(resp))
}

/// Whether `ttl.default` and `ttl.override` apply to a status: an error is not kept because its
/// route has a default. A part of what is heuristically cacheable (RFC 9110 §15.1).
pub(crate) fn takes_route_ttl(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 300 | 301 | 308 | 404 | 410)
}

/// Whether the origin forbids serving the response stale (§4.2.4).
pub(crate) fn stale_forbidden(resp: &ResponseFacts) -> bool {
    let d = &resp.directives;
    // §5.2.2.10: s-maxage "incorporates the semantics of the proxy-revalidate response directive".
    d.no_cache.is_all() || d.must_revalidate || d.proxy_revalidate || d.s_maxage.is_some()
}

/// How long past its lifetime the response may be served while it is refreshed (RFC 5861 §3).
pub(crate) fn revalidate_window(resp: &ResponseFacts, policy: &Policy) -> Duration {
    window(resp, policy.stale_while_revalidate, resp.directives.stale_while_revalidate)
}

/// How long past its lifetime the response may be served when the origin fails (RFC 5861 §4).
pub(crate) fn error_window(resp: &ResponseFacts, policy: &Policy) -> Duration {
    window(resp, policy.stale_if_error, resp.directives.stale_if_error)
}

fn window(resp: &ResponseFacts, route: Option<Duration>, origin: Option<u32>) -> Duration {
    if stale_forbidden(resp) {
        return Duration::ZERO;
    }
    // A route's word is the "configuration in accordance with an out-of-band contract" of §4.2.4.
    route.or(origin.map(seconds)).unwrap_or_default()
}

fn said_by_origin(resp: &ResponseFacts) -> Option<Lifetime> {
    let d = &resp.directives;
    let of = |duration, source| Lifetime { duration, source };
    let s_maxage = d.s_maxage.map(|s| of(seconds(s), LifetimeSource::SMaxAge));
    let max_age = || d.max_age.map(|s| of(seconds(s), LifetimeSource::MaxAge));
    let expires = || resp.expires.map(|e| of(until(e, resp.made()), LifetimeSource::Expires));
    s_maxage.or_else(max_age).or_else(expires)
}

/// §4.2.1: "its value minus the value of the Date response header field".
fn until(expires: Expires, made: Timestamp) -> Duration {
    match expires {
        Expires::At(at) => at.saturating_since(made),
        Expires::Invalid => Duration::ZERO,
    }
}

fn capped(lifetime: Option<Lifetime>, policy: &Policy) -> Lifetime {
    let none = Lifetime { duration: Duration::ZERO, source: LifetimeSource::None };
    let Lifetime { duration, source } = lifetime.unwrap_or(none);
    Lifetime { duration: policy.ttl.max.map_or(duration, |max| duration.min(max)), source }
}

/// corrected_initial_age (§4.2.3).
pub(crate) fn initial_age(resp: &ResponseFacts) -> Duration {
    let response_delay = resp.response_time.saturating_since(resp.request_time);
    let corrected_age_value = resp.age.saturating_add(response_delay);
    corrected_age_value.max(apparent_age(resp))
}

/// §4.2.3; in whole seconds, since `Date` has no finer ones. A single second between two such
/// clocks says nothing (a second may have begun on the way) and would cost a `max-age=1` response
/// all of its life, so it does not count; the RFC leaves the use of this value to us ("MAY").
fn apparent_age(resp: &ResponseFacts) -> Duration {
    let apart = resp.response_time.as_secs().saturating_sub(resp.made().as_secs());
    Duration::from_secs(if apart == 1 { 0 } else { apart })
}

fn seconds(s: u32) -> Duration {
    Duration::from_secs(s.into())
}
