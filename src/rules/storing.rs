//! Whether a response may be stored, and which of its fields (RFC 9111 §3).
//!
//! The only maker of [`Storable`]: nothing enters a tier without one. Every "no" says why.
//! Must not know: sizes, budgets, tiers.

use http::header::{DATE, SET_COOKIE, TRAILER};
use http::{HeaderMap, HeaderName, Method};

use super::facts::{RequestFacts, ResponseFacts};
use super::freshness::{self, LifetimeSource};
use super::policy::{Authorization, Cookies, Policy, SetCookie};
use super::reasons::NotStored;
use crate::clock::Timestamp;
use crate::fields::{date, hop};

/// The permit to store a response; only [`judge`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storable {
    without: Vec<HeaderName>,
    date: Option<Timestamp>,
}

impl Storable {
    /// Fields of the response that may not be stored with it: those that `no-cache` or `private`
    /// name (§3.1), and `Set-Cookie` where the route strips it.
    pub fn without(&self) -> &[HeaderName] {
        &self.without
    }
}

/// Whether this response to this request may be stored (§3), and is worth it.
///
/// # Errors
/// The first reason against it.
pub fn judge(req: &RequestFacts, resp: &ResponseFacts, policy: &Policy) -> Result<Storable, NotStored> {
    method(req)?;
    status(req, resp)?;
    directives(req, resp)?;
    shared_with_credentials(req, resp, policy)?;
    set_cookie(resp, policy)?;
    worth_it(req, resp, policy)?;
    // RFC 9110 §6.6.1: a recipient with a clock appends Date where it is missing and the message
    // is cached, and may replace one that is no date.
    let date = resp.date.is_none().then_some(resp.response_time);
    Ok(Storable { without: not_to_store(resp, policy), date })
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
    if let Some(at) = permit.date {
        stored.insert(DATE, date::to_value(at));
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
    if holds_authorization(req, policy) && !(d.public || d.s_maxage.is_some() || d.must_revalidate) {
        return Err(NotStored::Authorization);
    }
    // The origin's own lifetime, and a positive one: `max-age=0` is how many servers say "not
    // for others", and would leave only a validator between one user's response and another's.
    if holds_cookie(req, policy) && !d.public && freshness::origin_lifetime(resp, policy).duration.is_zero() {
        return Err(NotStored::Cookie);
    }
    Ok(())
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
fn method(req: &RequestFacts) -> Result<(), NotStored> {
    match req.method {
        Method::GET => Ok(()),
        Method::HEAD => Err(NotStored::Head),
        _ => Err(NotStored::Method),
    }
}

fn status(req: &RequestFacts, resp: &ResponseFacts) -> Result<(), NotStored> {
    match resp.status {
        // §3.3: without ranges of our own, a part is not stored.
        206 => Err(NotStored::Partial),
        // Answers to a precondition or a range of this one request, not to the resource.
        416 if req.range => Err(NotStored::Range),
        304 | 412 | 416 => Err(NotStored::Status),
        // RFC 3229: a delta against what this client holds.
        226 => Err(NotStored::Status),
        // RFC 9110 §15.5.8: between a client and its proxy. §15.5.20: of this connection.
        407 | 421 => Err(NotStored::Status),
        // RFC 6585 §3-§6: "MUST NOT be stored by a cache".
        428 | 429 | 431 | 511 => Err(NotStored::Status),
        // §5.2.2.3: must-understand limits storing to statuses that are understood.
        status if resp.directives.must_understand && !understood(status) => Err(NotStored::Status),
        // §3: "the response status code is final".
        200..=599 => Ok(()),
        _ => Err(NotStored::Status),
    }
}

/// Final statuses of RFC 9110 §15 whose caching behaviour is all implemented here.
fn understood(status: u16) -> bool {
    matches!(status, 200..=205 | 300..=303 | 305 | 307 | 308 | 400..=411 | 413..=415 | 417 | 422 | 426 | 500..=505)
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
        // §4.1: it "always fails to match".
        crate::fields::vary::Vary::Star => Err(NotStored::VaryStar),
        crate::fields::vary::Vary::Names(_) => Ok(()),
    }
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
fn worth_it(req: &RequestFacts, resp: &ResponseFacts, policy: &Policy) -> Result<(), NotStored> {
    let explicit = freshness::origin_lifetime(resp, policy).source != LifetimeSource::None;
    // §3: "public", an explicit lifetime, or a status that needs neither.
    if !explicit && !resp.directives.public && !freshness::takes_route_ttl(resp.status) {
        return Err(NotStored::Status);
    }
    let _ = req;
    let fresh = freshness::usable_for(resp, policy);
    if fresh.is_zero() || (resp.directives.no_cache.is_all() && !resp.has_validator()) {
        return Err(NotStored::NoLifetime);
    }
    Ok(())
}

fn not_to_store(resp: &ResponseFacts, policy: &Policy) -> Vec<HeaderName> {
    let d = &resp.directives;
    let mut names: Vec<_> = d.no_cache.fields().iter().chain(d.private.fields()).cloned().collect();
    if policy.set_cookie == SetCookie::Strip {
        names.push(SET_COOKIE);
    }
    names
}
