//! How long a response is fresh, and how old it is (RFC 9111 §4.2).
//!
//! All times are to the millisecond. Where the origin says nothing, the route's `ttl.default` says it;
//! where that says nothing either, a part of the time since the last change is taken (§4.2.2).
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
    /// Nobody's word: a guess from `Last-Modified` (§4.2.2).
    Heuristic,
    /// Nobody's: zero.
    None,
}

/// How an origin failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginFailure {
    /// It answered with an error.
    Error,
    /// It could not be reached, or gave no answer.
    NoAnswer,
}

impl OriginFailure {
    /// By the status it answered with, if it did.
    pub fn of(status: Option<u16>) -> Self {
        if status.is_some() { Self::Error } else { Self::NoAnswer }
    }
}

/// How long the response is fresh under the route's policy (§4.2.1).
///
/// `ttl.override` comes before the origin's word and `ttl.default` after it, both only for
/// [`heuristically_cacheable`] statuses; then comes the heuristic, since an operator who names a lifetime
/// knows more than a guess; `ttl.max` cuts all of them.
pub fn lifetime(resp: &ResponseFacts, policy: &Policy) -> Lifetime {
    let route = |ttl: Option<Duration>, source| {
        let duration = ttl.filter(|_| heuristically_cacheable(resp.status))?;
        Some(Lifetime { duration, source })
    };
    let found = route(policy.ttl.r#override, LifetimeSource::Override)
        .or_else(|| said_by_origin(resp))
        .or_else(|| route(policy.ttl.default, LifetimeSource::Default))
        .or_else(|| guessed(resp, policy));
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
/// for as long as it may be served stale or, with a validator, confirmed. Zero where it is of no use:
/// that the origin may be cut off is no reason to store what nothing else would be.
pub fn usable_for(resp: &ResponseFacts, policy: &Policy) -> Duration {
    let keep = if resp.has_validator() { policy.keep } else { Duration::ZERO };
    let past =
        revalidate_window(resp, policy).max(error_window(resp, policy, OriginFailure::Error)).max(keep);
    let left = |past| lifetime(resp, policy).duration.saturating_add(past).saturating_sub(initial_age(resp));
    if left(past).is_zero() {
        return Duration::ZERO;
    }
    left(past.max(error_window(resp, policy, OriginFailure::NoAnswer)))
}

/// Whether a lifetime may be given to a status of which the origin gives none (RFC 9110 §15.1: those
/// "defined as heuristically cacheable").
/// `ttl.default` and `ttl.override` apply to these: a 503 is not kept because its route has a default.
pub(crate) fn heuristically_cacheable(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
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

/// How long past its lifetime the response may be served when the origin fails (RFC 5861 §4), or is cut
/// off (RFC 9111 §4.2.4).
pub(crate) fn error_window(resp: &ResponseFacts, policy: &Policy, failure: OriginFailure) -> Duration {
    let named = window(resp, policy.stale_if_error, resp.directives.stale_if_error);
    match failure {
        OriginFailure::Error => named,
        // §4.2.4: no stale response "unless it is disconnected or doing so is explicitly permitted".
        OriginFailure::NoAnswer if !stale_forbidden(resp) => {
            named.max(policy.disconnected(resp.directives.stale_if_error.is_some()))
        }
        OriginFailure::NoAnswer => Duration::ZERO,
    }
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

/// §4.2.2: "use [...] the Last-Modified time to estimate"; "no more than some fraction of the interval
/// since that time".
fn guessed(resp: &ResponseFacts, policy: &Policy) -> Option<Lifetime> {
    // §4.2.2: where the status allows it, or it "has been explicitly marked as cacheable".
    let allowed = heuristically_cacheable(resp.status) || resp.directives.public;
    let (heuristic, modified) = policy.heuristic.zip(resp.last_modified)?;
    // A Date ahead of our clock is no time that has passed.
    let unchanged = resp.made().min(resp.response_time).saturating_since(modified);
    let part = unchanged.saturating_mul(heuristic.percent.into()) / 100;
    let source = LifetimeSource::Heuristic;
    allowed.then(|| Lifetime { duration: part.min(heuristic.max), source })
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
    let corrected_age_value = Duration::from_secs(resp.age.into()).saturating_add(response_delay);
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

#[cfg(test)]
mod tests {
    use super::super::policy::Heuristic;
    use super::super::testing::*;
    use super::*;
    use LifetimeSource as From;
    use proptest::prelude::*;

    #[test]
    fn the_first_matching_rule_gives_the_lifetime() {
        let expires = &*format!("expires: {AFTER}");
        let date = &*format!("date: {BEFORE}");
        for (clause, fields, expected, source) in [
            ("§4.2.1 s-maxage", &["cache-control: max-age=1, s-maxage=2", expires][..], 2, From::SMaxAge),
            (
                "§4.2.1 s-maxage, though malformed",
                &["cache-control: max-age=1, s-maxage=x"],
                0,
                From::SMaxAge,
            ),
            ("§4.2.1 max-age", &["cache-control: max-age=1", expires], 1, From::MaxAge),
            ("§5.3 max-age, though malformed", &["cache-control: max-age=x", expires], 0, From::MaxAge),
            ("§4.2.1 Expires less Date", &[expires, date], 120, From::Expires),
            ("§4.2.1 Expires less time of receipt", &[expires], 60, From::Expires),
            ("§4.2.1 Expires less time of receipt", &[expires, "date: yesterday"], 60, From::Expires),
            ("§5.3 Expires in the past", &[&format!("expires: {BEFORE}")], 0, From::Expires),
            ("§5.3 invalid Expires", &["expires: 0"], 0, From::Expires),
            (
                "§5.3 invalid Expires is ignored beside max-age",
                &["cache-control: max-age=1", "expires: 0"],
                1,
                From::MaxAge,
            ),
            ("§4.2.1 none", &["cache-control: public"], 0, From::None),
            ("§4.2.2 a tenth of a minute", &[&format!("last-modified: {BEFORE}")], 6, From::Heuristic),
            ("§4.2.2 since Date", &[&format!("last-modified: {BEFORE}"), date], 0, From::Heuristic),
            ("§4.2.2 modified later", &[&format!("last-modified: {AFTER}")], 0, From::Heuristic),
            ("§4.2.2 capped", &["last-modified: Sun, 06 Nov 1983 08:49:37 GMT"], 86_400, From::Heuristic),
            ("§4.2.2 no date", &["last-modified: yesterday"], 0, From::None),
            (
                "§4.2.2 never beside an explicit one",
                &["cache-control: max-age=1", &format!("last-modified: {BEFORE}")],
                1,
                From::MaxAge,
            ),
            (
                "§4.2.2 nor one that has passed",
                &["expires: 0", &format!("last-modified: {BEFORE}")],
                0,
                From::Expires,
            ),
            ("§1.2.2 no overflow", &["cache-control: max-age=9999999999"], 1 << 31, From::MaxAge),
        ] {
            let expected = Lifetime { duration: secs_of(expected), source };
            assert_eq!(lifetime(&response(200, fields), &plain()), expected, "{clause}: {fields:?}");
        }
    }

    #[test]
    fn the_routes_three_lifetimes_do_what_their_names_say() {
        let minute = "cache-control: max-age=60";
        for (why, policy, status, field, expected, source) in [
            ("default where nothing is said", ttl_default(9), 200, "x: y", 9, From::Default),
            ("default not where something is", ttl_default(9), 200, minute, 60, From::MaxAge),
            ("default not where it says stale", ttl_default(9), 200, "expires: 0", 0, From::Expires),
            ("default not for errors", ttl_default(9), 500, "x: y", 0, From::None),
            ("default for a lasting one", ttl_default(9), 501, "x: y", 9, From::Default),
            ("override", ttl_override(9), 200, minute, 9, From::Override),
            ("override not for errors", ttl_override(9), 500, minute, 60, From::MaxAge),
            ("max", ttl_max(9), 200, minute, 9, From::MaxAge),
            ("max for errors", ttl_max(9), 500, minute, 9, From::MaxAge),
            ("max makes nothing longer", ttl_max(90), 200, minute, 60, From::MaxAge),
        ] {
            let expected = Lifetime { duration: secs_of(expected), source };
            assert_eq!(lifetime(&response(status, &[field]), &policy), expected, "{why}");
        }
        let mut both = ttl_override(9);
        both.ttl.max = Some(secs_of(5));
        let expected = Lifetime { duration: secs_of(5), source: From::Override };
        assert_eq!(lifetime(&response(200, &[]), &both), expected, "max over override");
    }

    #[test]
    fn a_guess_is_for_the_statuses_that_allow_it_and_comes_last() {
        let modified = &*format!("last-modified: {BEFORE}");
        let guess = |status, fields: &[&str], policy: &Policy| lifetime(&response(status, fields), policy);
        let of = |secs, source| Lifetime { duration: secs_of(secs), source };
        for status in [200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501] {
            assert_eq!(guess(status, &[modified], &plain()), of(6, From::Heuristic), "9110 §15.1 {status}");
        }
        for status in [201, 202, 302, 303, 307, 400, 401, 403, 406, 429, 500, 502, 503, 504, 599] {
            assert_eq!(guess(status, &[modified], &plain()), of(0, From::None), "9110 §15.1 {status}");
            let public = &[modified, "cache-control: public"];
            assert_eq!(guess(status, public, &plain()), of(6, From::Heuristic), "§4.2.2 public {status}");
        }
        let half = Heuristic { percent: 50, max: secs_of(20) };
        let with = |heuristic, ttl| Policy { heuristic, ..ttl };
        for (why, policy, expected) in [
            ("a setting", with(Some(half), plain()), of(20, From::Heuristic)),
            ("off", with(None, plain()), of(0, From::None)),
            ("ttl.default goes first", ttl_default(9), of(9, From::Default)),
            ("ttl.override goes first", ttl_override(9), of(9, From::Override)),
            ("ttl.max cuts it", ttl_max(2), of(2, From::Heuristic)),
        ] {
            assert_eq!(guess(200, &[modified], &policy), expected, "{why}");
        }
        assert_eq!(origin_lifetime(&response(200, &[modified]), &plain()), of(0, From::None), "not its word");
    }

    #[test]
    fn age_adds_up_as_the_clause_says() {
        let facts = |fields: &[&str], delay_ms: u64| {
            let received = AT.saturating_add(Duration::from_millis(delay_ms));
            ResponseFacts::of(200, &headers(fields), AT, received)
        };
        let date = &*format!("date: {BEFORE}");
        for (clause, resp, after_ms, expected_ms) in [
            ("§4.2.3 nothing yet", facts(&[], 0), 0, 0),
            ("§4.2.3 resident_time", facts(&[], 0), 1500, 1500),
            ("§4.2.3 response_delay", facts(&[], 400), 400, 400),
            ("§4.2.3 response_delay and resident_time", facts(&[], 400), 1000, 1000),
            ("§4.2.3 age_value", facts(&["age: 10"], 400), 1000, 11_000),
            ("§4.2.3 apparent_age", facts(&[date], 0), 1000, 61_000),
            ("§4.2.3 the larger: apparent", facts(&[date, "age: 10"], 0), 0, 60_000),
            ("§4.2.3 the larger: corrected", facts(&[date, "age: 70"], 0), 0, 70_000),
            ("§4.2.3 Date ahead of us", facts(&[&format!("date: {AFTER}")], 0), 500, 500),
            ("§4.2.3 a second that began on the way", facts(&[&format!("date: {NOW}")], 1100), 1100, 1100),
            ("§4.2.3 two seconds are an age", facts(&[&format!("date: {NOW}")], 2100), 2100, 2100),
        ] {
            let now = AT.saturating_add(Duration::from_millis(after_ms));
            assert_eq!(current_age(&resp, now), Duration::from_millis(expected_ms), "{clause}");
        }
    }

    #[test]
    fn a_date_one_second_old_is_no_age() {
        let at = |secs: u64| {
            let fields = headers(&[&format!("date: {NOW}")]);
            current_age(&ResponseFacts::of(200, &fields, after(secs), after(secs)), after(secs))
        };
        assert_eq!([at(0), at(1), at(2), at(3)], [0, 0, 2, 3].map(secs_of), "§4.2.3 MAY");
    }

    #[test]
    fn a_clock_set_back_does_not_make_younger() {
        let resp = response(200, &["age: 10"]);
        assert_eq!(current_age(&resp, Timestamp::from_secs(0)), secs_of(10));
        let early = ResponseFacts { request_time: after(60), ..resp };
        assert_eq!(current_age(&early, AT), secs_of(10));
    }

    fn with_sie(secs: u64) -> Policy {
        Policy { stale_if_error: Some(secs_of(secs)), ..plain() }
    }

    fn with_sid(secs: u64) -> Policy {
        Policy { stale_if_disconnected: Some(secs_of(secs)), ..plain() }
    }

    #[test]
    fn tiers_hold_a_response_for_as_long_as_it_is_of_use() {
        let windows = Policy {
            stale_while_revalidate: Some(secs_of(30)),
            stale_if_error: Some(secs_of(90)),
            ..plain()
        };
        for (why, policy, status, fields, expected) in [
            (
                "lifetime, and should the origin be cut off",
                plain(),
                200,
                &["cache-control: max-age=60"][..],
                120,
            ),
            ("what is left of it", plain(), 200, &["cache-control: max-age=60", "age: 20"], 100),
            ("nothing left", plain(), 200, &["cache-control: max-age=60", "age: 80"], 0),
            ("the longest window", windows.clone(), 200, &["cache-control: max-age=60"], 150),
            ("the origin's windows", with_sid(0), 200, &["cache-control: max-age=60, stale-if-error=10"], 70),
            (
                "the longer of the two",
                with_sid(20),
                200,
                &["cache-control: max-age=60, stale-if-error=10"],
                80,
            ),
            (
                "the route's before the origin's",
                windows.clone(),
                200,
                &["cache-control: max-age=60, stale-if-error=999"],
                150,
            ),
            ("window left", windows.clone(), 200, &["cache-control: max-age=60", "age: 80"], 70),
            (
                "§4.2.4 must-revalidate",
                windows.clone(),
                200,
                &["cache-control: max-age=60, must-revalidate"],
                60,
            ),
            (
                "§4.2.4 proxy-revalidate",
                windows.clone(),
                200,
                &["cache-control: max-age=60, proxy-revalidate"],
                60,
            ),
            ("§4.2.4 s-maxage", windows.clone(), 200, &["cache-control: s-maxage=60"], 60),
            ("§4.2.4 no-cache", windows.clone(), 200, &["cache-control: max-age=60, no-cache"], 60),
            (
                "§5.2.2.4 a qualified one is not meant",
                windows,
                200,
                &["cache-control: max-age=60, no-cache=\"x\""],
                150,
            ),
            ("keep", plain(), 200, &["cache-control: max-age=60", "etag: \"a\""], 660),
            (
                "keep, must-revalidate",
                plain(),
                200,
                &["cache-control: max-age=60, must-revalidate", "etag: \"a\""],
                660,
            ),
            (
                "keep or a window, not both",
                with_sie(90),
                200,
                &["cache-control: max-age=60", "etag: \"a\""],
                660,
            ),
            ("never confirmed", with_sid(0), 404, &["cache-control: max-age=60", "etag: \"a\""], 60),
            ("no reason of its own", plain(), 200, &["cache-control: max-age=0"], 0),
        ] {
            assert_eq!(
                usable_for(&response(status, fields), &policy),
                secs_of(expected),
                "{why}: {fields:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn older_is_never_fresher(
            resp in any::facts(), policy in any::policy(), early in 0..400_000u64, more in 0..400_000u64,
        ) {
            let at = |millis| current_age(&resp, AT.saturating_add(Duration::from_millis(millis)));
            prop_assert!(at(early) <= at(early + more));
            let aged = ResponseFacts { age: resp.age + 1, ..resp.clone() };
            prop_assert!(usable_for(&aged, &policy) <= usable_for(&resp, &policy));
        }

        #[test]
        fn nothing_overflows(times: [u64; 5], age: u32, resp in any::facts(), policy in any::policy()) {
            let [request, received, date, expires, now] = times.map(Timestamp::from_millis);
            let extreme = ResponseFacts {
                request_time: request,
                response_time: received,
                date: Some(date),
                expires: Some(Expires::At(expires)),
                age,
                ..resp
            };
            let _ = (current_age(&extreme, now), usable_for(&extreme, &policy), lifetime(&extreme, &policy));
        }

        #[test]
        fn max_caps_every_lifetime(resp in any::facts(), policy in any::policy()) {
            if let Some(max) = policy.ttl.max {
                prop_assert!(lifetime(&resp, &policy).duration <= max);
            }
        }
    }
}
