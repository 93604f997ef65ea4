//! Whether a stored response may answer a request (RFC 9111 §4, §4.2.4, §5.2.1; RFC 5861).
//!
//! The only maker of [`Reusable`]: nothing stored is delivered without one. Nothing here
//! allocates, since every hit comes this way.
//! Must not know: how the response was found; its key and selecting fields match already, and the
//! request is a GET or HEAD.

use std::time::Duration;

use super::facts::{RequestFacts, ResponseFacts};
use super::freshness::{self, OriginFailure};
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

/// The same of one that has been purged softly, or may have been: whatever is left of its lifetime, the origin
/// has to confirm it first, and no window of grace (RFC 5861 §3) takes the place of that.
pub fn judge_unconfirmed(
    req: &RequestFacts,
    resp: &ResponseFacts,
    policy: &Policy,
    because: MustAsk,
) -> Reuse {
    match refusal(req, resp, policy) {
        Some(refused) => Reuse::Refused(refused),
        None => Reuse::Stale { grace: None, because },
    }
}

/// Whether the stored response may answer because the origin failed (RFC 5861 §4) in this way.
///
/// "Regardless of other freshness information": the request's `max-age` and `min-fresh` do not
/// count here. Its `no-cache` does: it asks for the origin's word and nothing in its place.
pub fn on_error(
    req: &RequestFacts,
    resp: &ResponseFacts,
    policy: &Policy,
    now: Timestamp,
    failure: OriginFailure,
) -> Option<Reusable> {
    let asked_for_origin = req.directives.no_cache || needs_confirming(resp);
    if asked_for_origin || refusal(req, resp, policy).is_some() {
        return None;
    }
    let this = measured(req, resp, policy, now);
    // A stale one is held back by §4.2.4 alone, which `error_window` knows.
    let usable = this.is_fresh() || this.staleness() < freshness::error_window(resp, policy, failure);
    usable.then_some(this)
}

/// The same of one that has been purged softly: as of one whose lifetime has just ended, so that §4.2.4 holds
/// for it, too.
pub fn on_error_purged(
    req: &RequestFacts,
    resp: &ResponseFacts,
    policy: &Policy,
    now: Timestamp,
    failure: OriginFailure,
) -> Option<Reusable> {
    let within = |this: &Reusable| this.staleness() < freshness::error_window(resp, policy, failure);
    on_error(req, resp, policy, now, failure).filter(within)
}

/// Whole seconds of freshness that a response to this request has left, rounded down; negative when stale.
pub fn ttl(req: &RequestFacts, resp: &ResponseFacts, policy: &Policy, now: Timestamp) -> i64 {
    measured(req, resp, policy, now).ttl()
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
    if needs_confirming(resp) {
        return Some(MustAsk::NoCache);
    }
    if asked.no_cache {
        return Some(MustAsk::RequestNoCache); // §5.2.1.4
    }
    // §5.2.1.1: "less than or equal". Zero asks for the origin's word, as a reload does; an age below
    // the clock's step must not answer it.
    if asked.max_age.is_some_and(|max| max == 0 || this.age > seconds(max)) {
        return Some(MustAsk::RequestMaxAge);
    }
    // §5.2.1.3: "freshness lifetime is no less than its current age plus the specified time".
    let too_short = |min| this.lifetime < this.age.saturating_add(seconds(min));
    asked.min_fresh.is_some_and(too_short).then_some(MustAsk::RequestMinFresh)
}

/// Whether each use of the response needs the origin's word.
fn needs_confirming(resp: &ResponseFacts) -> bool {
    let d = &resp.directives;
    // §5.2.2.4: "even by caches that have been configured to send stale responses". The other two
    // are never stored, but a 304 may have brought them since.
    d.no_cache.is_all() || d.private.is_all() || (d.no_store && !d.must_understand)
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

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::rules::{Authorization, Cookies};
    use proptest::prelude::*;

    /// What a verdict comes to, in short.
    #[derive(Debug, PartialEq)]
    enum Short {
        Fresh,
        Grace,
        Ask(MustAsk),
        Refused(MustAsk),
    }
    use Short::{Ask, Fresh, Grace};

    fn short(reuse: Reuse) -> Short {
        match reuse {
            Reuse::Fresh(_) => Fresh,
            Reuse::Stale { grace: Some(_), because: MustAsk::Stale } => Grace,
            Reuse::Stale { grace: Some(_), because } => panic!("grace, though {because:?}"),
            Reuse::Stale { grace: None, because } => Ask(because),
            Reuse::Refused(why) => Short::Refused(why),
        }
    }

    fn with_windows() -> Policy {
        Policy { stale_while_revalidate: Some(secs_of(30)), stale_if_error: Some(secs_of(90)), ..plain() }
    }

    #[test]
    fn what_the_response_says_decides() {
        let minute = "cache-control: max-age=60";
        let stale = || Ask(MustAsk::Stale);
        for (clause, fields, policy, secs, expected) in [
            ("§4 fresh", minute, plain(), 59, Fresh),
            ("§4.2 its age equals its lifetime", minute, plain(), 60, stale()),
            ("§4 stale", minute, plain(), 61, stale()),
            ("§4 age on arrival", "age: 1", ttl_default(60), 59, stale()),
            ("§5.2.2.4 no-cache", "cache-control: max-age=60, no-cache", plain(), 0, Ask(MustAsk::NoCache)),
            (
                "§5.2.2.4 no-cache before override",
                "cache-control: no-cache",
                ttl_override(60),
                0,
                Ask(MustAsk::NoCache),
            ),
            (
                "§5.2.2.4 no-cache in grace",
                "cache-control: max-age=60, no-cache",
                with_windows(),
                70,
                Ask(MustAsk::NoCache),
            ),
            (
                "§5.2.2.5 by a later 304",
                "cache-control: max-age=60, no-store",
                plain(),
                0,
                Ask(MustAsk::NoCache),
            ),
            (
                "§5.2.2.7 by a later 304",
                "cache-control: max-age=60, private",
                plain(),
                0,
                Ask(MustAsk::NoCache),
            ),
            ("§5.2.2.4 qualified", "cache-control: max-age=60, no-cache=\"x\"", plain(), 0, Fresh),
            ("§5.2.2.2 fresh", "cache-control: max-age=60, must-revalidate", plain(), 59, Fresh),
            (
                "§5.2.2.3 stored, so understood",
                "cache-control: max-age=60, no-store, must-understand",
                plain(),
                0,
                Fresh,
            ),
            ("5861 §3 the route's window", minute, with_windows(), 60, Grace),
            ("5861 §3 the route's window", minute, with_windows(), 89, Grace),
            ("5861 §3 past it", minute, with_windows(), 90, stale()),
            (
                "5861 §3 the origin's",
                "cache-control: max-age=60, stale-while-revalidate=5",
                plain(),
                64,
                Grace,
            ),
            ("5861 §3 past it", "cache-control: max-age=60, stale-while-revalidate=5", plain(), 65, stale()),
            (
                "§4.2.4 must-revalidate",
                "cache-control: max-age=60, must-revalidate",
                with_windows(),
                61,
                stale(),
            ),
            (
                "§4.2.4 proxy-revalidate",
                "cache-control: max-age=60, proxy-revalidate",
                with_windows(),
                61,
                stale(),
            ),
            ("§4.2.4 s-maxage", "cache-control: s-maxage=60", with_windows(), 61, stale()),
            (
                "§4.2.4 s-maxage beside the origin's window",
                "cache-control: s-maxage=60, stale-while-revalidate=9",
                plain(),
                61,
                stale(),
            ),
            ("ttl.default", "x: y", ttl_default(60), 59, Fresh),
            ("ttl.override", "cache-control: max-age=1", ttl_override(60), 59, Fresh),
            ("ttl.max", minute, ttl_max(10), 10, stale()),
            ("nobody's lifetime", "etag: \"a\"", plain(), 0, stale()),
        ] {
            let found = judge(&get(&[]), &response(200, &[fields]), &policy, after(secs));
            assert_eq!(short(found), expected, "{clause}: {fields} after {secs}");
        }
    }

    #[test]
    fn what_the_request_says_counts() {
        let minute = "cache-control: max-age=60";
        let strict = "cache-control: max-age=60, must-revalidate";
        let (stale, age) = (|| Ask(MustAsk::Stale), || Ask(MustAsk::RequestMaxAge));
        for (clause, said, fields, policy, secs, expected) in [
            ("§5.2.1.4", "cache-control: no-cache", minute, plain(), 0, Ask(MustAsk::RequestNoCache)),
            ("§5.4", "pragma: no-cache", minute, plain(), 0, Ask(MustAsk::RequestNoCache)),
            (
                "§5.2.1.4 in grace",
                "cache-control: no-cache",
                minute,
                with_windows(),
                70,
                Ask(MustAsk::RequestNoCache),
            ),
            (
                "§5.2.1.4 over max-stale",
                "cache-control: no-cache, max-stale",
                minute,
                plain(),
                70,
                Ask(MustAsk::RequestNoCache),
            ),
            ("§5.2.1.1 equal", "cache-control: max-age=10", minute, plain(), 10, Fresh),
            ("§5.2.1.1 older", "cache-control: max-age=10", minute, plain(), 11, age()),
            ("§5.2.1.1 zero", "cache-control: max-age=0", minute, plain(), 1, age()),
            ("§5.2.1.1 larger than the lifetime", "cache-control: max-age=100", minute, plain(), 61, stale()),
            (
                "§5.2.1.1 no stale without max-stale",
                "cache-control: max-age=100",
                minute,
                with_windows(),
                61,
                stale(),
            ),
            ("§5.2.1.1 with max-stale", "cache-control: max-age=100, max-stale", minute, plain(), 61, Grace),
            (
                "§5.2.1.1 older, with max-stale",
                "cache-control: max-age=60, max-stale",
                minute,
                plain(),
                61,
                age(),
            ),
            ("§5.2.1.2 any", "cache-control: max-stale", minute, plain(), 9999, Grace),
            ("§5.2.1.2 within", "cache-control: max-stale=10", minute, plain(), 70, Grace),
            ("§5.2.1.2 beyond", "cache-control: max-stale=10", minute, plain(), 71, stale()),
            (
                "§5.2.1.2 narrower than the route",
                "cache-control: max-stale=5",
                minute,
                with_windows(),
                66,
                stale(),
            ),
            ("§5.2.1.2 fresh anyway", "cache-control: max-stale=10", minute, plain(), 1, Fresh),
            ("§4.2.4 over max-stale", "cache-control: max-stale", strict, plain(), 61, stale()),
            (
                "§4.2.4 over max-stale",
                "cache-control: max-stale",
                "cache-control: s-maxage=60",
                plain(),
                61,
                stale(),
            ),
            (
                "§5.2.2.4 over max-stale",
                "cache-control: max-stale",
                "cache-control: no-cache",
                plain(),
                1,
                Ask(MustAsk::NoCache),
            ),
            ("§5.2.1.3 enough", "cache-control: min-fresh=20", minute, plain(), 40, Fresh),
            (
                "§5.2.1.3 not enough",
                "cache-control: min-fresh=20",
                minute,
                plain(),
                41,
                Ask(MustAsk::RequestMinFresh),
            ),
            (
                "§5.2.1.3 stale",
                "cache-control: min-fresh=1",
                minute,
                with_windows(),
                61,
                Ask(MustAsk::RequestMinFresh),
            ),
            ("§5.2.1.5 says nothing of what is stored", "cache-control: no-store", minute, plain(), 0, Fresh),
            ("§5.2.1.7 is the caller's", "cache-control: only-if-cached", minute, plain(), 0, Fresh),
        ] {
            let found = judge(&get(&[said]), &response(200, &[fields]), &policy, after(secs));
            assert_eq!(short(found), expected, "{clause}: {said} of {fields} after {secs}");
        }
    }

    #[test]
    fn credentials_are_answered_only_by_the_origins_word() {
        let no = |why| Short::Refused(why);
        let (auth, cookie) = (MustAsk::Authorization, MustAsk::Cookie);
        for (clause, said, fields, policy, secs, expected) in [
            ("§3.5", "authorization: a", "cache-control: max-age=60", plain(), 0, no(auth)),
            ("§3.5 public", "authorization: a", "cache-control: public, max-age=60", plain(), 0, Fresh),
            (
                "§3.5 public and ttl.default",
                "authorization: a",
                "cache-control: public",
                ttl_default(60),
                0,
                Fresh,
            ),
            ("§3.5 s-maxage", "authorization: a", "cache-control: s-maxage=60", plain(), 59, Fresh),
            (
                "§3.5 must-revalidate",
                "authorization: a",
                "cache-control: max-age=60, must-revalidate",
                plain(),
                59,
                Fresh,
            ),
            (
                "§3.5 must-revalidate, stale",
                "authorization: a",
                "cache-control: max-age=60, must-revalidate",
                plain(),
                61,
                Ask(MustAsk::Stale),
            ),
            (
                "§3.5 conforms to it",
                "authorization: a",
                "cache-control: max-age=60, must-revalidate",
                ttl_override(600),
                61,
                Ask(MustAsk::Stale),
            ),
            ("ttl.default", "authorization: a", "x: y", ttl_default(60), 0, no(auth)),
            (
                "ttl.override",
                "authorization: a",
                "cache-control: max-age=0, must-revalidate",
                ttl_override(60),
                0,
                no(auth),
            ),
            ("cookie, the origin's lifetime", "cookie: a=b", "cache-control: max-age=60", plain(), 59, Fresh),
            (
                "cookie, the origin's lifetime",
                "cookie: a=b",
                "cache-control: max-age=60",
                ttl_override(600),
                61,
                Ask(MustAsk::Stale),
            ),
            ("cookie, public", "cookie: a=b", "cache-control: public", ttl_default(60), 59, Fresh),
            ("cookie, ttl.default", "cookie: a=b", "x: y", ttl_default(60), 0, no(cookie)),
            ("cookie, ttl.override", "cookie: a=b", "x: y", ttl_override(60), 0, no(cookie)),
            ("cookie, only a validator", "cookie: a=b", "etag: \"a\"", plain(), 0, no(cookie)),
            (
                "cookie, max-age=0 and a window",
                "cookie: a=b",
                "cache-control: max-age=0",
                with_windows(),
                1,
                no(cookie),
            ),
            ("no cookie", "x: y", "x: y", ttl_default(60), 0, Fresh),
        ] {
            let (req, resp) = (get(&[said]), response(200, &[fields]));
            let found = judge(&req, &resp, &policy, after(secs));
            assert_eq!(short(found), expected, "{clause}: {said} of {fields}");
            if matches!(expected, Short::Refused(_)) {
                assert_eq!(
                    on_error(&req, &resp, &with_windows(), after(1), OriginFailure::NoAnswer),
                    None,
                    "{clause}"
                );
            }
            let open = Policy { authorization: Authorization::Share, cookies: Cookies::Ignore, ..policy };
            assert_ne!(short(judge(&req, &resp, &open, after(secs))), no(auth), "{clause}");
        }
    }

    #[test]
    fn an_error_is_covered_as_far_as_the_origin_allows() {
        let minute = "cache-control: max-age=60";
        for (clause, said, fields, policy, secs, expected) in [
            ("5861 §4 the route's window", "x: y", minute, with_windows(), 149, true),
            ("5861 §4 past it", "x: y", minute, with_windows(), 150, false),
            (
                "5861 §4 the origin's",
                "x: y",
                "cache-control: max-age=60, stale-if-error=5",
                plain(),
                64,
                true,
            ),
            ("5861 §4 past it", "x: y", "cache-control: max-age=60, stale-if-error=5", plain(), 65, false),
            ("5861 §4 no window", "x: y", minute, plain(), 61, false),
            (
                "§4.2.4 must-revalidate",
                "x: y",
                "cache-control: max-age=60, must-revalidate",
                with_windows(),
                61,
                false,
            ),
            (
                "§4.2.4 proxy-revalidate",
                "x: y",
                "cache-control: max-age=60, proxy-revalidate",
                with_windows(),
                61,
                false,
            ),
            ("§4.2.4 s-maxage", "x: y", "cache-control: s-maxage=60", with_windows(), 61, false),
            ("§5.2.2.4 no-cache", "x: y", "cache-control: max-age=60, no-cache", with_windows(), 1, false),
            ("fresh needs no window", "cache-control: max-age=0", minute, plain(), 1, true),
            ("fresh needs no window", "x: y", "cache-control: max-age=60, must-revalidate", plain(), 1, true),
            (
                "5861 §4 regardless of other freshness",
                "cache-control: max-age=5",
                minute,
                with_windows(),
                61,
                true,
            ),
            ("§5.2.1.4 asked for the origin", "cache-control: no-cache", minute, with_windows(), 61, false),
        ] {
            let found = on_error(
                &get(&[said]),
                &response(200, &[fields]),
                &policy,
                after(secs),
                OriginFailure::Error,
            );
            assert_eq!(found.is_some(), expected, "{clause}: {said} of {fields} after {secs}");
        }
    }

    #[test]
    fn what_is_purged_softly_is_confirmed_first_and_stands_in_only_as_stale_ones_do() {
        let minute = "cache-control: max-age=60";
        let no_window = Policy { stale_if_disconnected: Some(secs_of(0)), ..plain() };
        for (clause, said, fields, policy, secs, expected) in [
            ("4.2.4 fresh", "x: y", minute, with_windows(), 1, true),
            ("5861 §4 past its lifetime", "x: y", minute, with_windows(), 149, true),
            ("5861 §4 past the window", "x: y", minute, with_windows(), 150, false),
            ("5861 §4 no window", "x: y", minute, no_window, 1, false),
            (
                "§4.2.4 must-revalidate",
                "x: y",
                "cache-control: max-age=60, must-revalidate",
                with_windows(),
                1,
                false,
            ),
            ("§4.2.4 s-maxage", "x: y", "cache-control: s-maxage=60", with_windows(), 1, false),
            ("§5.2.1.4 asked for the origin", "cache-control: no-cache", minute, with_windows(), 1, false),
        ] {
            let (req, resp) = (get(&[said]), response(200, &[fields]));
            assert_eq!(
                short(judge_unconfirmed(&req, &resp, &policy, MustAsk::Purged)),
                Ask(MustAsk::Purged),
                "{clause}"
            );
            let standing_in = on_error_purged(&req, &resp, &policy, after(secs), OriginFailure::Error);
            assert_eq!(standing_in.is_some(), expected, "{clause}: {said} of {fields} after {secs}");
        }
        let (req, resp) = (get(&["authorization: a"]), response(200, &[minute]));
        let private = judge_unconfirmed(&req, &resp, &plain(), MustAsk::Purged);
        assert_eq!(short(private), Short::Refused(MustAsk::Authorization), "§3.5");
    }

    #[test]
    fn an_origin_that_is_cut_off_is_covered_for_a_minute() {
        let minute = "cache-control: max-age=60";
        let with = |stale_if_disconnected, stale_if_error| Policy {
            stale_if_disconnected,
            stale_if_error,
            ..plain()
        };
        let (plain, secs) = (plain(), |s| Some(secs_of(s)));
        for (clause, fields, policy, secs, expected) in [
            ("§4.2.4 the default", minute, &plain, 119, true),
            ("§4.2.4 past it", minute, &plain, 120, false),
            ("§4.2.4 a guess, too", "last-modified: Sun, 06 Nov 1994 08:39:37 GMT", &plain, 119, true),
            ("§4.2.4 nobody's lifetime", "etag: \"a\"", &plain, 59, true),
            ("§4.2.4 must-revalidate", "cache-control: max-age=60, must-revalidate", &plain, 61, false),
            ("§4.2.4 proxy-revalidate", "cache-control: max-age=60, proxy-revalidate", &plain, 61, false),
            ("§4.2.4 s-maxage", "cache-control: s-maxage=60", &plain, 61, false),
            ("§5.2.2.4 no-cache", "cache-control: max-age=60, no-cache", &plain, 1, false),
            ("the route's word", minute, &with(secs(5), None), 64, true),
            ("the route's word", minute, &with(secs(5), None), 65, false),
            ("the route's word: none", minute, &with(secs(0), None), 60, false),
            ("the route's word for any failure", minute, &with(None, secs(5)), 65, false),
            ("the longer of both", minute, &with(secs(9), secs(5)), 68, true),
            ("the longer of both", minute, &with(secs(5), secs(9)), 68, true),
            ("the origin's is longer", "cache-control: max-age=60, stale-if-error=90", &plain, 149, true),
            ("the origin's is shorter", "cache-control: max-age=60, stale-if-error=9", &plain, 68, true),
            ("the origin's is shorter", "cache-control: max-age=60, stale-if-error=9", &plain, 69, false),
            ("the origin's word: none", "cache-control: max-age=60, stale-if-error=0", &plain, 60, false),
        ] {
            let covers =
                |failure| on_error(&get(&[]), &response(200, &[fields]), policy, after(secs), failure);
            assert_eq!(
                covers(OriginFailure::NoAnswer).is_some(),
                expected,
                "{clause}: {fields} after {secs}"
            );
        }
        let answered =
            on_error(&get(&[]), &response(200, &[minute]), &plain, after(61), OriginFailure::Error);
        assert_eq!(answered, None, "an origin that answers is not cut off");
    }

    #[test]
    fn a_permit_tells_age_and_what_is_left() {
        let resp = response(200, &["cache-control: max-age=60", "age: 10"]);
        for (millis, ttl) in
            [(0, 50), (1, 49), (49_000, 1), (49_999, 0), (50_000, 0), (50_001, -1), (51_001, -2)]
        {
            let now = AT.saturating_add(Duration::from_millis(millis));
            let permit = after_validation(&resp, &plain(), now);
            assert_eq!(permit.ttl(), ttl, "9211 §2.4 after {millis} ms");
            assert_eq!(permit.age(), secs_of(10) + Duration::from_millis(millis), "§4.2.3");
        }
    }

    proptest! {
        #[test]
        fn what_is_not_fresh_now_is_not_fresh_later(
            req in any::request(), resp in any::facts(), policy in any::policy(), secs in 0..300u64, more in 0..300u64,
        ) {
            let at = |secs| short(judge(&req, &resp, &policy, after(secs)));
            if at(secs) != Fresh {
                prop_assert_ne!(at(secs + more), Fresh);
            }
            for failure in [OriginFailure::Error, OriginFailure::NoAnswer] {
                let covered = |secs| on_error(&req, &resp, &policy, after(secs), failure).is_some();
                prop_assert!(covered(secs) || !covered(secs + more));
            }
        }

        #[test]
        fn nothing_stale_is_served_where_the_origin_forbids_it(
            req in any::request(), resp in any::facts(), policy in any::policy(), secs in 0..300u64,
        ) {
            let d = &resp.directives;
            let forbidden = d.must_revalidate || d.proxy_revalidate || d.s_maxage.is_some() || d.no_cache.is_all();
            let now = after(secs);
            if let Reuse::Stale { grace: Some(_), .. } = judge(&req, &resp, &policy, now) {
                prop_assert!(!forbidden, "§4.2.4");
            }
            if forbidden && let Some(permit) = on_error(&req, &resp, &policy, now, OriginFailure::NoAnswer) {
                prop_assert!(permit.ttl() >= 0, "§4.2.4");
            }
        }

        #[test]
        fn what_answers_fresh_could_have_been_stored_for_this_request(
            req in any::request(), resp in any::facts(), policy in any::policy(), secs in 0..300u64,
        ) {
            // The other way round is false: storing asks of more than credentials.
            if let Reuse::Fresh(permit) = judge(&req, &resp, &policy, after(secs)) {
                let verdict = storing::judge(&req, &resp, &policy).map(drop);
                prop_assert!(!matches!(verdict, Err(NotStored::Authorization | NotStored::Cookie | NotStored::NoLifetime)));
                prop_assert!(permit.ttl() >= 0 && permit.age() >= secs_of(resp.age.into()));
            }
        }
    }
}
