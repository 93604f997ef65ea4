//! Whether a response may be stored, and which of its fields (RFC 9111 §3).
//!
//! The only maker of [`Storable`]: nothing enters a tier without one. Every "no" says why.
//! Must not know: sizes, budgets, tiers.

use http::header::{COOKIE, DATE, SET_COOKIE, TRAILER};
use http::{HeaderMap, HeaderName, Method};

use super::facts::{RequestFacts, ResponseFacts};
use super::freshness::{self, LifetimeSource};
use super::policy::{Authorization, Cookies, Policy, SetCookie};
use super::reasons::NotStored;
use crate::clock::Timestamp;
use crate::fields::range::ContentRange;
use crate::fields::vary::Vary;
use crate::fields::{date, hop};

/// The permit to store a response; only [`judge`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storable {
    without: Vec<HeaderName>,
    received: Timestamp,
}

impl Storable {
    /// Fields of the response that may not be stored with it: those that `no-cache` or `private`
    /// name (§3.1), and `Set-Cookie` where the route strips it.
    pub fn without(&self) -> &[HeaderName] {
        &self.without
    }
}

/// Whether this response may be stored (§3), and is worth it, for all whom it is for and not only for those who
/// ask as this request did: what it brought was made for it.
///
/// # Errors
/// The first reason against it.
pub fn judge(req: &RequestFacts, resp: &ResponseFacts, policy: &Policy) -> Result<Storable, NotStored> {
    let permit = judge_again(req, resp, policy)?;
    brought_for_all(req, resp, policy)?;
    Ok(permit)
}

/// Whether a stored response may still be stored as news of it have it, which this request has brought: what
/// was made for this request is then in the news alone ([`brought_for_all`] is to be asked of them).
///
/// # Errors
/// The first reason against it.
pub fn judge_again(req: &RequestFacts, resp: &ResponseFacts, policy: &Policy) -> Result<Storable, NotStored> {
    method(req, policy)?;
    status(req, resp)?;
    directives(req, resp)?;
    shared_with_credentials(req, resp, policy)?;
    set_cookie(resp, policy)?;
    explicit(req, resp, policy)?;
    worth_it(resp, policy)?;
    Ok(Storable { without: not_to_store(resp, policy), received: resp.response_time })
}

/// Whether the answer to a POST may be kept for later GETs: RFC 9110 §9.3.3, "when they include explicit
/// freshness information ... and a Content-Location header field that has the same value as the POST's
/// target URI", which the caller has found to be so ([`names_itself`](super::names_itself)).
///
/// # Errors
/// The first reason against it.
pub fn judge_post(req: &RequestFacts, resp: &ResponseFacts, policy: &Policy) -> Result<Storable, NotStored> {
    if resp.status != 200 {
        return Err(NotStored::Status);
    }
    let explicit = freshness::origin_lifetime(resp, policy);
    if explicit.source == LifetimeSource::None || explicit.duration.is_zero() {
        return Err(NotStored::NoLifetime);
    }
    judge(&RequestFacts { method: Method::GET, ..req.clone() }, resp, policy)
}

/// The fields to store: all that came, in order and with their repeats (§3.1), but for those of
/// the connection, of proxies, of a trailer section (which is not stored), and
/// [`Storable::without`].
pub fn stored_fields(headers: &HeaderMap, permit: &Storable) -> HeaderMap {
    let options = hop::connection_options(headers);
    let mut stored = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let dropped = hop::is_hop_by_hop(name) || *name == TRAILER;
        if !dropped && !options.contains(name) && !permit.without.contains(name) {
            stored.append(name.clone(), value.clone());
        }
    }
    // RFC 9110 §6.6.1: a recipient with a clock appends Date where it is missing and the message is
    // cached. One that is there stays as it came, also where it is no date: the clause lets us replace
    // it ("MAY"), but whoever reads it next shall read what the origin wrote.
    if !stored.contains_key(DATE) {
        stored.insert(DATE, date::to_value(permit.received));
    }
    stored
}

/// Whether the request carries credentials that the route neither keys on nor ignores, and the
/// response does not allow that it is shared in spite of them.
///
/// Asked of the request that brought the response and of every later one alike: existing APIs
/// answer by credential without saying so, and a response stored for nobody in particular is not
/// the one a user would get.
pub(crate) fn shared_with_credentials(
    req: &RequestFacts,
    resp: &ResponseFacts,
    policy: &Policy,
) -> Result<(), NotStored> {
    let d = &resp.directives;
    // §3.5: must-revalidate, public and s-maxage "have such an effect".
    if d.public {
        return Ok(());
    }
    // A positive lifetime, and the origin's own: `max-age=0` is how many servers say "not for
    // others". It would leave but a validator between one user's response and another's, and a
    // `ttl.default` or `ttl.override` would do away with that too.
    let lasts = !freshness::origin_lifetime(resp, policy).duration.is_zero();
    if holds_authorization(req, policy) && !(lasts && (d.s_maxage.is_some() || d.must_revalidate)) {
        return Err(NotStored::Authorization);
    }
    if holds_cookie(req, policy) && !lasts {
        return Err(NotStored::Cookie);
    }
    Ok(())
}

/// Whether what a request with cookies brought may be kept for those without: only by a word on sharing,
/// such as §3.5 asks for credentials, or where `Vary` names the cookie. What was brought without any may be
/// given to all by a lifetime alone ([`shared_with_credentials`]): an origin that makes something of a cookie
/// and has never thought of shared caches then gives them nothing of it. And whether what a request brought that
/// chose by some field may be kept for those that do not: only where `Vary` names it ([`unvaried`]).
///
/// # Errors
/// `Cookie`, `Unvaried`
pub fn brought_for_all(req: &RequestFacts, resp: &ResponseFacts, policy: &Policy) -> Result<(), NotStored> {
    let d = &resp.directives;
    let shared = d.public || d.s_maxage.is_some() || d.must_revalidate || resp.vary.names(&COOKIE);
    if holds_cookie(req, policy) && !shared {
        return Err(NotStored::Cookie);
    }
    if unvaried(req, resp).next().is_some() { Err(NotStored::Unvaried) } else { Ok(()) }
}

/// The fields by which a request chose what it wants, and by which the response does not say that it varies: to
/// the key and to §4.1 it is as if they were not there, and to many an origin they are not.
pub fn unvaried<'a>(req: &'a RequestFacts, resp: &'a ResponseFacts) -> impl Iterator<Item = &'a HeaderName> {
    req.chosen_by.iter().filter(|name| !resp.vary.names(name))
}

/// Whether only the origin's own lifetime counts for this request: where it is shared in spite of
/// credentials by the origin's word, that word holds for as long as the origin said and no longer
/// (§3.5: "and the cache conforms to the requirements of that directive"). `public` has no such
/// limit.
pub(crate) fn only_origin_lifetime(req: &RequestFacts, resp: &ResponseFacts, policy: &Policy) -> bool {
    !resp.directives.public && (holds_authorization(req, policy) || holds_cookie(req, policy))
}

fn holds_authorization(req: &RequestFacts, policy: &Policy) -> bool {
    req.has_authorization && policy.authorization == Authorization::Bypass
}

fn holds_cookie(req: &RequestFacts, policy: &Policy) -> bool {
    // Under Bypass such a request does not come here; if one does, it is held to the same.
    req.has_cookie && matches!(policy.cookies, Cookies::Origin | Cookies::Bypass)
}

/// §3: "the request method is understood by the cache".
fn method(req: &RequestFacts, policy: &Policy) -> Result<(), NotStored> {
    match req.method {
        Method::GET => Ok(()),
        Method::HEAD => Err(NotStored::Head),
        // RFC 10008: its responses are cacheable.
        Method::QUERY if policy.methods.query => Ok(()),
        Method::POST if policy.methods.post => Ok(()),
        _ => Err(NotStored::Method),
    }
}

/// RFC 9110 §9.3.3: "Responses to POST requests are only cacheable when they include explicit freshness
/// information"; a `ttl.default` or `ttl.override` is the route's own. And one that must be confirmed
/// is of no use: of a POST, an origin evaluates no such condition (§13.1.2).
fn explicit(req: &RequestFacts, resp: &ResponseFacts, policy: &Policy) -> Result<(), NotStored> {
    if req.method != Method::POST {
        return Ok(());
    }
    let given = match freshness::lifetime(resp, policy).source {
        LifetimeSource::Override
        | LifetimeSource::SMaxAge
        | LifetimeSource::MaxAge
        | LifetimeSource::Expires
        | LifetimeSource::Default => true,
        // A guess is nobody's word.
        LifetimeSource::Heuristic | LifetimeSource::None => false,
    };
    if given && !resp.directives.no_cache.is_all() { Ok(()) } else { Err(NotStored::NoLifetime) }
}

fn status(req: &RequestFacts, resp: &ResponseFacts) -> Result<(), NotStored> {
    match resp.status {
        // §3.3: a part is stored as long as it is clear what it is a part of. Several in one message are
        // passed on as they come.
        206 => {
            let clear = |said: &ContentRange| said.span.is_some() && said.length.is_some();
            if resp.content_range.as_ref().is_some_and(clear) { Ok(()) } else { Err(NotStored::Partial) }
        }
        // The answer to a range of this one request, not to the resource.
        416 if req.range => Err(NotStored::Range),
        // An update of what is stored.
        304 => Err(NotStored::Status),
        // RFC 3229: a delta against what this client holds.
        226 => Err(NotStored::Status),
        status if blamed(status) == Blamed::Message => Err(NotStored::Status),
        // §5.2.2.3: must-understand limits storing to statuses that are understood.
        status if resp.directives.must_understand && !understood(status) => Err(NotStored::Status),
        // §3: "the response status code is final".
        200..=599 => Ok(()),
        _ => Err(NotStored::Status),
    }
}

/// What a status finds fault with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blamed {
    /// The message that it answers, or what lies between the two who exchanged it; so it says nothing of the
    /// resource. Whatever else made the request so (its size, a field, a byte) is no part of the key: stored, the
    /// error would be what everyone gets whom one client wants to get it. So it is not stored, whatever lifetime it
    /// has: §3 says what a cache may store, not what it must; and of some the RFCs forbid it (RFC 6585 §3-§6:
    /// "MUST NOT be stored by a cache").
    Message,
    /// The message, or the resource: origins send 400 for both, and of 405 and 414 RFC 9110 §15.1 lets a cache
    /// guess even a lifetime. Stored by the rules: no field says any more that another method is meant, and what
    /// answers an odd request is not kept (`guarding`). But nothing is concluded from it for other requests.
    Either,
    /// Nothing that a request has brought about: a success, the resource's own state, the server's.
    Other,
}

/// Whom a status blames.
pub const fn blamed(status: u16) -> Blamed {
    match status {
        // RFC 9110 §15.5: who asks, what that one may (many filters say so of a single field), what is accepted,
        // proxy, time, length, condition, size, type, range, expectation, connection, content; RFC 8470 §5.2
        // (425); upgrade.
        401 | 403 | 406..=408 | 411..=413 | 415..=417 | 421 | 422 | 425 | 426 => Blamed::Message,
        // RFC 6585 §3-§6: a condition is wanted, too many requests, fields too large, a login to the network.
        428 | 429 | 431 | 511 => Blamed::Message,
        // RFC 9110 §15.6: the version; RFC 2295 §8.1 (506); RFC 5842 §7.2 (508, a loop that `Via` may feign);
        // RFC 2774 §7 (510). The others speak of the server.
        505 | 506 | 508 | 510 => Blamed::Message,
        400 | 405 | 414 => Blamed::Either,
        _ => Blamed::Other,
    }
}

/// Final statuses of RFC 9110 §15 whose caching behaviour is all implemented here.
fn understood(status: u16) -> bool {
    let (success, redirect) = (200..=206, [300, 301, 302, 303, 305, 307, 308]);
    let client_error = matches!(status, 400..=411 | 413..=415 | 417 | 422 | 426);
    success.contains(&status) || redirect.contains(&status) || client_error || (500..=505).contains(&status)
}

fn directives(req: &RequestFacts, resp: &ResponseFacts) -> Result<(), NotStored> {
    let d = &resp.directives;
    // §5.2.2.3: "SHOULD ignore the no-store directive if it understands" the status, which
    // `status` has made sure of.
    if d.no_store && !d.must_understand {
        return Err(NotStored::NoStore);
    }
    if d.private.is_all() {
        return Err(NotStored::Private); // §5.2.2.7
    }
    if req.directives.no_store {
        return Err(NotStored::RequestNoStore); // §5.2.1.5
    }
    match resp.vary {
        Vary::Star => Err(NotStored::VaryStar), // §4.1: it "always fails to match".
        Vary::Names(ref names) if names.iter().any(is_ours) => Err(NotStored::VaryStar),
        Vary::Names(_) => Ok(()),
    }
}

/// A field that Larder writes itself, which says who the client is. What the client sent cannot tell which
/// requests a response is for that varies on it: it is as good as `Vary: *`.
fn is_ours(name: &HeaderName) -> bool {
    ["x-forwarded-for", "x-real-ip", "forwarded", "via"].contains(&name.as_str())
}

fn set_cookie(resp: &ResponseFacts, policy: &Policy) -> Result<(), NotStored> {
    let d = &resp.directives;
    let allowed = match policy.set_cookie {
        SetCookie::Strip | SetCookie::Keep => true,
        SetCookie::Never => false,
        // The origin speaks of sharing, or has the field left out itself (§3.1).
        SetCookie::Origin => d.public || d.s_maxage.is_some() || names_set_cookie(resp),
    };
    if resp.set_cookie && !allowed { Err(NotStored::SetCookie) } else { Ok(()) }
}

fn names_set_cookie(resp: &ResponseFacts) -> bool {
    let d = &resp.directives;
    d.no_cache.fields().iter().chain(d.private.fields()).any(|name| *name == SET_COOKIE)
}

/// §3's last condition, and that the response can be of use at all: fresh on arrival, servable
/// stale, or to be confirmed with its validator.
fn worth_it(resp: &ResponseFacts, policy: &Policy) -> Result<(), NotStored> {
    let explicit = freshness::origin_lifetime(resp, policy).source != LifetimeSource::None;
    // §3: "public", an explicit lifetime, or a status that needs neither.
    if !explicit && !resp.directives.public && !freshness::heuristically_cacheable(resp.status) {
        return Err(NotStored::Status);
    }
    let unusable = freshness::usable_for(resp, policy).is_zero();
    let never_confirmed = resp.directives.no_cache.is_all() && !resp.has_validator();
    if unusable || never_confirmed { Err(NotStored::NoLifetime) } else { Ok(()) }
}

fn not_to_store(resp: &ResponseFacts, policy: &Policy) -> Vec<HeaderName> {
    let d = &resp.directives;
    let mut names: Vec<_> = d.no_cache.fields().iter().chain(d.private.fields()).cloned().collect();
    if policy.set_cookie == SetCookie::Strip {
        names.push(SET_COOKIE);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::fields::cache_control::Reach;
    use crate::rules::{Methods, Said, Ttl};
    use proptest::prelude::*;
    use std::time::Duration;

    type Verdict = Result<(), NotStored>;

    fn verdict(req: &RequestFacts, resp: &ResponseFacts, policy: &Policy) -> Verdict {
        judge(req, resp, policy).map(drop)
    }

    #[test]
    fn a_plain_get_is_stored_where_the_clauses_allow_it() {
        const MINUTE: &str = "cache-control: max-age=60";
        for (clause, status, fields, expected) in [
            ("§3 max-age", 200, &[MINUTE][..], Ok(())),
            ("§3 s-maxage", 200, &["cache-control: s-maxage=60"], Ok(())),
            ("§3 Expires", 200, &[&*format!("expires: {AFTER}")], Ok(())),
            ("§3 explicit, any final status", 299, &[MINUTE], Ok(())),
            ("§3 explicit, any final status", 302, &[MINUTE], Ok(())),
            ("§3 explicit, any final status", 503, &[MINUTE], Ok(())),
            ("§3 explicit, any final status", 599, &[MINUTE], Ok(())),
            ("§3 not final", 100, &[MINUTE], Err(NotStored::Status)),
            ("§3 not final", 199, &[MINUTE], Err(NotStored::Status)),
            ("9110 §15.5.4 of the message", 403, &[MINUTE], Err(NotStored::Status)),
            ("9110 §15.5.14 of the message", 413, &["cache-control: public"], Err(NotStored::Status)),
            ("9110 §15.5.16 of the message", 415, &[MINUTE], Err(NotStored::Status)),
            ("9110 §15.5.1 explicit", 400, &[MINUTE], Ok(())),
            ("9110 §15.6.1 explicit", 500, &[MINUTE], Ok(())),
            ("9110 §15.1 heuristics allowed", 405, &[MINUTE], Ok(())),
            ("9110 §15 no status", 600, &[MINUTE], Err(NotStored::Status)),
            ("§3 304 is an update", 304, &[MINUTE], Err(NotStored::Status)),
            ("§3.3 partial", 206, &[MINUTE, "content-range: bytes 0-4/10"], Ok(())),
            ("§3.3 partial, of what nobody knows", 206, &[MINUTE], Err(NotStored::Partial)),
            (
                "§3.3 partial, of unknown length",
                206,
                &[MINUTE, "content-range: bytes 0-4/*"],
                Err(NotStored::Partial),
            ),
            (
                "9110 §14.4 a range beyond its length",
                206,
                &[MINUTE, "content-range: bytes 0-10/10"],
                Err(NotStored::Partial),
            ),
            ("9110 §13 of the request's condition", 412, &[MINUTE], Err(NotStored::Status)),
            ("9110 §14 of the request's range", 416, &[MINUTE], Err(NotStored::Status)),
            ("6585 §4", 429, &[MINUTE], Err(NotStored::Status)),
            ("6585 §6", 511, &[MINUTE], Err(NotStored::Status)),
            ("§5.2.2.5", 200, &["cache-control: no-store, max-age=60"], Err(NotStored::NoStore)),
            ("§5.2.2.7", 200, &["cache-control: private, max-age=60"], Err(NotStored::Private)),
            (
                "§5.2.2.7 beats public",
                200,
                &["cache-control: private, public, max-age=60"],
                Err(NotStored::Private),
            ),
            ("§5.2.2.7 qualified", 200, &["cache-control: private=\"x\", max-age=60"], Ok(())),
            ("§5.2.2.3 understood", 200, &["cache-control: no-store, must-understand, max-age=60"], Ok(())),
            (
                "§5.2.2.3 not understood",
                299,
                &["cache-control: no-store, must-understand, max-age=60"],
                Err(NotStored::Status),
            ),
            (
                "§5.2.2.3 not understood",
                299,
                &["cache-control: must-understand, max-age=60"],
                Err(NotStored::Status),
            ),
            (
                "§5.2.2.3 not over private",
                200,
                &["cache-control: no-store, must-understand, private, max-age=60"],
                Err(NotStored::Private),
            ),
            ("§4.1 star", 200, &[MINUTE, "vary: *"], Err(NotStored::VaryStar)),
            (
                "§4.1 on who the client is",
                200,
                &[MINUTE, "vary: accept, x-forwarded-for"],
                Err(NotStored::VaryStar),
            ),
            ("§4.1 on who the client is", 200, &[MINUTE, "vary: X-Real-IP"], Err(NotStored::VaryStar)),
            ("§4.1 star among others", 200, &[MINUTE, "vary: accept, *"], Err(NotStored::VaryStar)),
            ("§4.1", 200, &[MINUTE, "vary: accept"], Ok(())),
            ("nothing said", 200, &[], Err(NotStored::NoLifetime)),
            ("nothing said", 404, &[], Err(NotStored::NoLifetime)),
            ("§3 nothing said, not heuristically cacheable", 302, &[], Err(NotStored::Status)),
            ("§3 nothing said, not heuristically cacheable", 500, &["etag: \"a\""], Err(NotStored::Status)),
            ("§4.3 to validate each time", 200, &["etag: \"a\""], Ok(())),
            ("§4.3 to validate each time", 200, &[&format!("last-modified: {BEFORE}")], Ok(())),
            ("§4.3 to validate each time", 200, &["cache-control: no-cache", "etag: \"a\""], Ok(())),
            ("9110 §13.2.1 never confirmed", 404, &["etag: \"a\""], Err(NotStored::NoLifetime)),
            (
                "§5.2.2.4 never confirmed",
                200,
                &["cache-control: no-cache, max-age=60"],
                Err(NotStored::NoLifetime),
            ),
            ("§4.2 stale on arrival", 200, &["cache-control: max-age=0"], Err(NotStored::NoLifetime)),
            ("§4.2 stale on arrival", 200, &[MINUTE, "age: 60"], Err(NotStored::NoLifetime)),
            ("§4.2.1 malformed", 200, &["cache-control: max-age=x"], Err(NotStored::NoLifetime)),
            ("§5.3 already expired", 200, &["expires: 0"], Err(NotStored::NoLifetime)),
            (
                "§4.2 stale on arrival, with a validator",
                200,
                &["cache-control: max-age=0", "etag: \"a\""],
                Ok(()),
            ),
            ("5861 §3", 200, &["cache-control: max-age=0, stale-while-revalidate=9"], Ok(())),
            ("5861 §4", 200, &["cache-control: max-age=0, stale-if-error=9"], Ok(())),
            (
                "§4.2.4 no stale service",
                200,
                &["cache-control: max-age=0, stale-if-error=9, must-revalidate"],
                Err(NotStored::NoLifetime),
            ),
            (
                "§3 public says cacheable, nobody how long",
                200,
                &["cache-control: public"],
                Err(NotStored::NoLifetime),
            ),
            ("§3 public with a validator", 200, &["cache-control: public", "etag: \"a\""], Ok(())),
            ("set_cookie = origin", 200, &[MINUTE, "set-cookie: a"], Err(NotStored::SetCookie)),
            ("set_cookie = origin", 200, &["cache-control: public, max-age=60", "set-cookie: a"], Ok(())),
            ("set_cookie = origin", 200, &["cache-control: s-maxage=60", "set-cookie: a"], Ok(())),
            (
                "§3.1 not stored",
                200,
                &["cache-control: max-age=60, no-cache=\"set-cookie\"", "set-cookie: a"],
                Ok(()),
            ),
        ] {
            assert_eq!(
                verdict(&get(&[]), &response(status, fields), &plain()),
                expected,
                "{clause}: {status} {fields:?}"
            );
        }
    }

    #[test]
    fn the_request_counts_too() {
        let of = |method, lines: &[&str]| RequestFacts::of(&method, &headers(lines));
        let patch = RequestFacts::of(&Method::PATCH, &HeaderMap::new());
        for (clause, req, status, expected) in [
            ("§3 method", of(Method::POST, &[]), 200, Err(NotStored::Method)),
            ("§3 method", of(Method::OPTIONS, &[]), 200, Err(NotStored::Method)),
            ("§3 method", patch, 200, Err(NotStored::Method)),
            ("9110 §9.3.2", of(Method::HEAD, &[]), 200, Err(NotStored::Head)),
            ("§5.2.1.5", get(&["cache-control: no-store"]), 200, Err(NotStored::RequestNoStore)),
            ("9110 §14.2 Range ignored by the origin", get(&["range: bytes=0-"]), 200, Ok(())),
            ("9110 §15.5.17", get(&["range: bytes=9-"]), 416, Err(NotStored::Range)),
            ("§5.2.1.4 is about reuse", get(&["cache-control: no-cache"]), 200, Ok(())),
        ] {
            assert_eq!(
                verdict(&req, &response(status, &["cache-control: max-age=60"]), &plain()),
                expected,
                "{clause}"
            );
        }
    }

    #[test]
    fn a_posts_answer_is_kept_for_gets_where_its_freshness_is_explicit() {
        const MINUTE: &str = "cache-control: max-age=60";
        let post = |lines: &[&str]| RequestFacts::of(&Method::POST, &headers(lines));
        for (clause, status, fields, expected) in [
            ("9110 §9.3.3", 200, &[MINUTE][..], Ok(())),
            ("9110 §9.3.3 explicit", 200, &["etag: \"a\""], Err(NotStored::NoLifetime)),
            (
                "9110 §9.3.3 freshness",
                200,
                &["cache-control: max-age=0", "etag: \"a\""],
                Err(NotStored::NoLifetime),
            ),
            ("9110 §9.3.3 of the target", 201, &[MINUTE], Err(NotStored::Status)),
            ("§5.2.2.5", 200, &["cache-control: no-store, max-age=60"], Err(NotStored::NoStore)),
            ("§5.2.2.7", 200, &["cache-control: private, max-age=60"], Err(NotStored::Private)),
        ] {
            let judged = judge_post(&post(&[]), &response(status, fields), &ttl_default(60));
            assert_eq!(judged.map(drop), expected, "{clause}: {status} {fields:?}");
        }
        let judged = judge_post(&post(&["authorization: a"]), &response(200, &[MINUTE]), &plain());
        assert_eq!(judged.map(drop), Err(NotStored::Authorization), "§3.5");
    }

    #[test]
    fn credentials_need_the_origins_word() {
        let authorization = Err(NotStored::Authorization);
        let cookie = Err(NotStored::Cookie);
        for (clause, control, with_authorization, with_cookie) in [
            ("§3.5 public", "public, max-age=60", Ok(()), Ok(())),
            ("§3.5 s-maxage", "s-maxage=60", Ok(()), Ok(())),
            ("§3.5 must-revalidate", "must-revalidate, max-age=60", Ok(()), Ok(())),
            ("§3.5 max-age is not enough", "max-age=60", authorization, Ok(())),
            ("§3.5 proxy-revalidate is not enough", "proxy-revalidate, max-age=60", authorization, Ok(())),
            ("only a validator", "must-revalidate, max-age=0", authorization, cookie),
            ("only a validator", "s-maxage=0", authorization, cookie),
            ("only a validator", "no-cache", authorization, cookie),
            ("only ttl.default", "must-revalidate", authorization, cookie),
            ("only ttl.default", "x", authorization, cookie),
            ("public and ttl.default", "public", Ok(()), Ok(())),
            ("malformed", "s-maxage=x", authorization, cookie),
        ] {
            let resp = response(200, &[&format!("cache-control: {control}"), "etag: \"a\""]);
            for policy in [ttl_default(60), ttl_override(60), plain()] {
                let judged = |line| judge_again(&get(&[line]), &resp, &policy).map(drop);
                assert_eq!(judged("authorization: a"), with_authorization, "{clause}: {control}");
                assert_eq!(judged("cookie: a=b"), with_cookie, "{clause}: {control}");
            }
            let keyed =
                Policy { authorization: Authorization::PerCredential, cookies: Cookies::Ignore, ..plain() };
            assert_eq!(
                verdict(&get(&["authorization: a", "cookie: a=b"]), &resp, &keyed),
                Ok(()),
                "{control}"
            );
        }
    }

    #[test]
    fn set_cookie_is_stored_as_the_route_says() {
        for (set_cookie, control, expected) in [
            (SetCookie::Origin, "max-age=60", Err(NotStored::SetCookie)),
            (SetCookie::Origin, "public, max-age=60", Ok(&[][..])),
            (SetCookie::Never, "public, max-age=60", Err(NotStored::SetCookie)),
            (SetCookie::Strip, "max-age=60", Ok(&[SET_COOKIE][..])),
            (SetCookie::Keep, "max-age=60", Ok(&[][..])),
        ] {
            let policy = Policy { set_cookie, ..plain() };
            let resp = response(200, &[&format!("cache-control: {control}"), "set-cookie: a"]);
            let permit = judge(&get(&[]), &resp, &policy);
            assert_eq!(
                permit.as_ref().map(Storable::without).map_err(|e| *e),
                expected,
                "{set_cookie:?} {control}"
            );
        }
    }

    #[test]
    fn a_routes_lifetimes_make_storable_what_the_origin_left_open() {
        for (why, policy, status, fields, expected) in [
            ("default", ttl_default(60), 200, &[][..], Ok(())),
            ("default", ttl_default(60), 404, &[], Ok(())),
            ("default, but an error", ttl_default(60), 500, &[], Err(NotStored::Status)),
            ("default, but not of that list", ttl_default(60), 302, &[], Err(NotStored::Status)),
            (
                "default, but the origin spoke",
                ttl_default(60),
                200,
                &["cache-control: max-age=0"],
                Err(NotStored::NoLifetime),
            ),
            ("override", ttl_override(60), 200, &["cache-control: max-age=0"], Ok(())),
            (
                "override, but no-store",
                ttl_override(60),
                200,
                &["cache-control: no-store"],
                Err(NotStored::NoStore),
            ),
            (
                "override, but private",
                ttl_override(60),
                200,
                &["cache-control: private"],
                Err(NotStored::Private),
            ),
            (
                "override, but an error",
                ttl_override(60),
                503,
                &["cache-control: max-age=0"],
                Err(NotStored::NoLifetime),
            ),
            (
                "override, but no-cache",
                ttl_override(60),
                200,
                &["cache-control: no-cache"],
                Err(NotStored::NoLifetime),
            ),
            (
                "override, but Set-Cookie",
                ttl_override(60),
                200,
                &["set-cookie: a"],
                Err(NotStored::SetCookie),
            ),
            ("max = 0", ttl_max(0), 200, &["cache-control: max-age=60"], Err(NotStored::NoLifetime)),
        ] {
            assert_eq!(
                verdict(&get(&[]), &response(status, fields), &policy),
                expected,
                "{why}: {status} {fields:?}"
            );
        }
    }

    #[test]
    fn fields_are_stored_in_order_with_repeats_and_without_the_connections() {
        let lines = [
            "cache-control: public, max-age=60, no-cache=\"x-secret\"",
            "link: <a>",
            "connection: x-hop, cache-control",
            "x-hop: 1",
            "link: <b>",
            "x-secret: 1",
            "proxy-authenticate: x",
            "trailer: digest",
            "age: 5",
            "set-cookie: a",
            "set-cookie: b",
        ];
        let resp = response(200, &lines);
        let permit = judge(&get(&[]), &resp, &plain()).unwrap();
        let stored = stored_fields(&headers(&lines), &permit);
        let stored: Vec<_> = stored.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        let expected = [
            "cache-control: public, max-age=60, no-cache=\"x-secret\"",
            "link: <a>",
            "link: <b>",
            "age: 5",
            "set-cookie: a",
            "set-cookie: b",
            &format!("date: {NOW}"),
        ];
        assert_eq!(stored, expected, "§3.1, and 9110 §6.6.1 for Date");
    }

    #[test]
    fn a_date_is_stored_as_it_came() {
        for (line, stored) in [
            (format!("date: {BEFORE}"), BEFORE),
            ("date: yesterday".to_owned(), "yesterday"),
            ("x: y".to_owned(), NOW),
        ] {
            let lines = ["cache-control: max-age=600", &line];
            let permit = judge(&get(&[]), &response(200, &lines), &plain()).unwrap();
            assert_eq!(stored_fields(&headers(&lines), &permit).get(DATE).unwrap(), stored, "9110 §6.6.1");
        }
    }

    #[test]
    fn of_query_and_post_what_the_route_lists_is_stored() {
        let all = Policy {
            methods: Methods { query: true, post: true, ..Methods::default() },
            ..Policy::default()
        };
        let ttl = Ttl { default: Some(Duration::from_secs(9)), ..Ttl::default() };
        let with_default = Policy { ttl, ..all.clone() };
        for (clause, method, policy, fields, expected) in [
            ("10008", Method::QUERY, &all, &["cache-control: max-age=60"][..], Ok(())),
            ("10008 as a GET's", Method::QUERY, &all, &["etag: \"a\""], Ok(())),
            (
                "10008 not listed",
                Method::QUERY,
                &Policy::default(),
                &["cache-control: max-age=60"],
                Err(NotStored::Method),
            ),
            ("9110 §9.3.3 explicit", Method::POST, &all, &["cache-control: max-age=60"], Ok(())),
            ("9110 §9.3.3 explicit", Method::POST, &all, &["cache-control: s-maxage=60"], Ok(())),
            ("9110 §9.3.3 the route's word", Method::POST, &with_default, &[], Ok(())),
            ("9110 §9.3.3 not explicit", Method::POST, &all, &["etag: \"a\""], Err(NotStored::NoLifetime)),
            (
                "9110 §9.3.3 a guess",
                Method::POST,
                &all,
                &[&format!("last-modified: {BEFORE}")],
                Err(NotStored::NoLifetime),
            ),
            (
                "9110 §9.3.3 not explicit",
                Method::POST,
                &all,
                &["cache-control: public"],
                Err(NotStored::NoLifetime),
            ),
            (
                "9110 §13.1.2 never confirmed",
                Method::POST,
                &all,
                &["cache-control: no-cache, max-age=60", "etag: \"a\""],
                Err(NotStored::NoLifetime),
            ),
            ("§5.2.2.5", Method::POST, &with_default, &["cache-control: no-store"], Err(NotStored::NoStore)),
            (
                "9110 §9.3.3 not listed",
                Method::POST,
                &Policy::default(),
                &["cache-control: max-age=60"],
                Err(NotStored::Method),
            ),
            ("no other", Method::PUT, &all, &["cache-control: max-age=60"], Err(NotStored::Method)),
        ] {
            let seen = verdict(&RequestFacts::of(&method, &headers(&[])), &response(200, fields), policy);
            assert_eq!(seen, expected, "{clause}: {method} {fields:?}");
        }
    }

    #[test]
    fn what_a_cookie_brought_is_for_all_only_by_a_word_on_sharing() {
        let with = |cookies: Cookies| Policy { cookies, ..plain() };
        for (clause, fields, expected) in [
            ("§5.2.2.9", &["cache-control: public"][..], Ok(())),
            ("§5.2.2.10", &["cache-control: s-maxage=60"], Ok(())),
            ("§5.2.2.2", &["cache-control: max-age=60, must-revalidate"], Ok(())),
            ("§4.1", &["cache-control: max-age=60", "vary: accept, cookie"], Ok(())),
            ("§7.3 a lifetime", &["cache-control: max-age=60"], Err(NotStored::Cookie)),
            ("§7.3 a date", &[&*format!("expires: {AFTER}")], Err(NotStored::Cookie)),
            ("§7.3 nothing", &[], Err(NotStored::Cookie)),
        ] {
            let resp = response(200, fields);
            for cookies in [Cookies::Origin, Cookies::Bypass] {
                assert_eq!(
                    brought_for_all(&get(&["cookie: a=b"]), &resp, &with(cookies)),
                    expected,
                    "{clause}"
                );
            }
            for cookies in [Cookies::Ignore, Cookies::Key(vec!["a".into()])] {
                assert_eq!(
                    brought_for_all(&get(&["cookie: a=b"]), &resp, &with(cookies)),
                    Ok(()),
                    "{clause}"
                );
            }
            assert_eq!(brought_for_all(&get(&[]), &resp, &plain()), Ok(()), "{clause}");
        }
    }

    #[test]
    fn what_a_field_that_chooses_brought_is_for_all_only_where_vary_names_it() {
        let asked = |names: &[&'static str]| {
            let chosen_by = names.iter().map(|name| HeaderName::from_static(name)).collect();
            RequestFacts { chosen_by, ..get(&[]) }
        };
        for (clause, names, vary, expected) in [
            ("9110 §12.5.5 not named", &["rsc"][..], "accept", Err(NotStored::Unvaried)),
            ("9110 §12.5.5 named", &["rsc"], "accept, RSC", Ok(())),
            ("9110 §12.5.5 one of two", &["rsc", "next-url"], "rsc", Err(NotStored::Unvaried)),
            ("9110 §12.5.5 both", &["rsc", "next-url"], "next-url, rsc", Ok(())),
            ("none was sent", &[], "accept", Ok(())),
            ("§4.1 the star", &["rsc"], "*", Err(NotStored::VaryStar)),
        ] {
            let resp = response(200, &["cache-control: public, max-age=60", &format!("vary: {vary}")]);
            assert_eq!(verdict(&asked(names), &resp, &plain()), expected, "{clause}");
            let again = judge_again(&asked(names), &resp, &plain()).map(drop);
            assert_eq!(again, if vary == "*" { expected } else { Ok(()) }, "{clause}: what is stored stays");
        }
    }

    proptest! {
        #[test]
        fn no_policy_stores_what_the_origin_forbids(
            req in any::request(), mut resp in any::facts(), policy in any::policy(),
        ) {
            let mut said = Said::clone(&resp);
            said.directives.must_understand = false;
            said.directives.no_store = true;
            resp.said = said.clone().into();
            prop_assert!(judge(&req, &resp, &policy).is_err(), "§5.2.2.5");
            said.directives.no_store = false;
            said.directives.private = Reach::All;
            resp.said = said.into();
            prop_assert!(judge(&req, &resp, &policy).is_err(), "§5.2.2.7");
        }

        #[test]
        fn what_is_stored_is_whole_of_a_method_that_is_cached_and_of_use_to_somebody(
            req in any::request(), resp in any::facts(), policy in any::policy(),
        ) {
            if let Ok(permit) = judge(&req, &resp, &policy) {
                prop_assert!(req.method == Method::GET || policy.methods.contains(&req.method));
                prop_assert!(req.method != Method::HEAD);
                // 9110 §9.3.3
                let source = freshness::lifetime(&resp, &policy).source;
                let given = !matches!(source, LifetimeSource::None | LifetimeSource::Heuristic);
                prop_assert!(req.method != Method::POST || given);
                prop_assert!(!req.directives.no_store && resp.vary != Vary::Star);
                prop_assert!((200..600).contains(&resp.status) && resp.status != 304);
                prop_assert!(resp.status != 206 || resp.content_range.is_some());
                prop_assert!(!freshness::usable_for(&resp, &policy).is_zero());
                prop_assert!(permit.without().len() <= 3);
            }
        }

        #[test]
        fn facts_read_again_from_stored_fields_are_no_more_permissive(
            req in any::request(), fields in any::fields(), policy in any::policy(),
        ) {
            // A tier that keeps only fields and times reads the facts anew.
            let resp = ResponseFacts::of(200, &fields, AT, AT);
            if let Ok(permit) = judge(&req, &resp, &policy) {
                let stored = stored_fields(&fields, &permit);
                let again = ResponseFacts::of(200, &stored, AT, AT);
                prop_assert_eq!(&again.directives, &resp.directives);
                prop_assert_eq!(freshness::lifetime(&again, &policy), freshness::lifetime(&resp, &policy));
                prop_assert_eq!(freshness::current_age(&again, after(9)), freshness::current_age(&resp, after(9)));
                prop_assert!(!again.set_cookie || resp.set_cookie);
            }
        }
    }
}
