//! A request arrives: is it one that Larder answers, which route takes it, may it use the cache?
//!
//! Knows routes and what keeps a request from the cache before anything is looked up.
//! Must not know: what is stored.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body::Body;
use hyper::body::Incoming;

use crate::clock::Mono;
use crate::config::{Config, Edits, RouteCache};
use crate::fields::claims::{self, Claim};
use crate::fields::present::Present;
use crate::fields::{forwarded, hop, list, path};
use crate::fill::outbound::Alike;
use crate::interim::Interim;
use crate::rules::{Authorization, Cookies, RequestFacts};
use crate::stored::{CacheKey, KeyPolicy};
use crate::telemetry::{Bypass, Setting};
use crate::upstream::{RequestBody, Upload};
use crate::wire::Fault;
use crate::worker::{Asked, Snapshot, Worker};

use super::content::Read;
use super::deliver::Deliver;
use super::exchange::Exchange;
use super::failure::Failure;
use super::judge;
use super::lookup;
use super::pass::Pass;
use super::purging;
use super::rate;
use super::report::Report;
use super::short::{Arrival, Seen};
use super::tunnel::Upgrade;
use super::{Client, Step};

/// What a client wants to be told beside the answer: a list of words, of which `key` is one.
const LARDER_DEBUG: HeaderName = HeaderName::from_static("larder-debug");

/// Takes a request in.
pub(super) fn receive(worker: Arc<Worker>, client: Client, request: Request<Incoming>) -> Step {
    let start = worker.mono();
    let snapshot = worker.shared.snapshot.load_full();
    let Client { peer, interim, fault } = client;
    let (mut parts, body) = request.into_parts();
    let upgrade = Upgrade::of(&mut parts.extensions);
    let taken = take(&worker, &snapshot, parts, peer, fault);
    let (body, known, seen, alike) = (Some(body), None, None, None);
    Received { worker, snapshot, taken, start, interim, upgrade, body, known, seen, alike }.step()
}

/// The same of a plain request, which has been taken in where it was read.
pub(super) fn received(worker: Arc<Worker>, arrival: Arrival, interim: Option<Interim>) -> Step {
    let Arrival { snapshot, taken, start, bypass, key, seen, alike, .. } = arrival;
    let (known, alike) = (Some((bypass, key)), Some(alike));
    Received { worker, snapshot, taken, start, interim, upgrade: None, body: None, known, seen, alike }.step()
}

/// A request that has been taken in.
struct Received {
    worker: Arc<Worker>,
    snapshot: Arc<Snapshot>,
    taken: Taken,
    start: Mono,
    interim: Option<Interim>,
    upgrade: Option<Upgrade>,
    /// `None` where none can come.
    body: Option<Incoming>,
    /// Whether it uses the cache, and its key, where that has been found out already.
    known: Option<(Option<Bypass>, CacheKey)>,
    /// What memory held under it, if it was looked at.
    seen: Option<Seen>,
    alike: Option<Alike>,
}

impl Received {
    fn step(self) -> Step {
        let Self { worker, snapshot, taken, start, interim, upgrade, body, known, seen, alike } = self;
        let Taken { fault, asked, route, named, wants_key } = taken;
        let cache = route.and_then(|route| snapshot.cache(route));
        let mut report = Report::open(&worker, &snapshot, &asked, route, start);
        if let Some(failure) = refused(&worker, &snapshot, fault, &asked) {
            return Step::Deliver(Box::new(Deliver::refusal(&worker, &snapshot, report, failure)));
        }
        // No method of HTTP: it is for this cache, and no origin ever sees it.
        if asked.method.as_str() == purging::PURGE {
            return purging::step(worker, snapshot, asked, report);
        }
        let Some(route) = route else {
            let failure = Failure::no_route(&asked);
            return Step::Deliver(Box::new(Deliver::refusal(&worker, &snapshot, report, failure)));
        };
        if let Some(failure) = rate::over(&worker, &snapshot, route, &asked) {
            return Step::Deliver(Box::new(Deliver::refusal(&worker, &snapshot, report, failure)));
        }
        // Past here nothing is seen of what is said: only where the operator has asked for it.
        let upgrades = snapshot.route(route).is_some_and(|route| route.upgrade);
        let upgrade = upgrade.filter(|_| upgrades);
        let (bypass, key) = known.unwrap_or_else(|| {
            let unsaid = Unsaid::of(upgrade.is_some(), &named, body.as_ref());
            (bypass(&asked, &snapshot, route, &unsaid), key_of(&asked, cache.map(|cache| &cache.key)))
        });
        report.key = wants_key.then(|| key.clone());
        if named.switches && !upgrades && protocol_wanted(&asked.headers).is_some() {
            report.hint(
                Setting::Upgrade,
                "a request asks for another protocol, such as WebSocket, and is forwarded without",
            );
        }
        let with_content = keyed_on_content(&asked, cache) && bypass != Some(Bypass::Upgrade);
        let exchange = Exchange {
            worker,
            snapshot,
            route,
            asked,
            alike,
            key,
            seen,
            exact: None,
            body: None,
            content: None,
            report,
            interim,
            attempts: 0,
            after: 0,
            names: None,
            own: None,
            waited: Duration::ZERO,
            detail: None,
        };
        // §5.2.1.7: what does not use the cache cannot be answered from it, and the origin is not wanted.
        if bypass.is_some_and(is_kept_out) && exchange.asked.facts.directives.only_if_cached {
            return lookup::only_if_cached(Box::new(exchange));
        }
        let max = exchange.max_body();
        // RFC 9110 §8.6 (content-length): told before any of it is read, and before the origin hears of it.
        if body.as_ref().is_some_and(|body| body.size_hint().lower() > max) {
            let Exchange { worker, snapshot, report, .. } = exchange;
            let failure = Failure::large_content(max);
            return Step::Deliver(Box::new(Deliver::refusal(&worker, &snapshot, report, failure)));
        }
        let body = body.map(|body| Upload::new(body, exchange.snapshot.config.limits.body, max));
        let body = match body {
            Some(body) if with_content => return Step::Read(Box::new(Read::of(exchange, body, bypass))),
            body => body.map(RequestBody::upload),
        };
        let exchange = Exchange { body, ..exchange };
        match bypass {
            Some(why) => Step::Pass(Box::new(Pass::bypassing(exchange, why, upgrade))),
            None => {
                let mut exchange = Box::new(exchange);
                exchange.search();
                Step::Lookup(exchange)
            }
        }
    }
}

/// A request as it is taken in, before anything is counted or looked up.
pub(super) struct Taken {
    /// What is wrong with it.
    pub fault: Option<Failure>,
    pub asked: Arc<Asked>,
    /// The route that takes it.
    pub route: Option<usize>,
    pub named: Named,
    /// The client asks to be told the key.
    pub wants_key: bool,
}

/// Reads a request: changes nothing, and counts nothing.
#[inline]
pub(super) fn take(
    worker: &Worker,
    snapshot: &Snapshot,
    mut parts: Parts,
    peer: IpAddr,
    fault: Option<Fault>,
) -> Taken {
    let trusted = snapshot.config.trusts(peer);
    let told = forwarded::told(&parts.headers, peer, |address| snapshot.config.trusts(address));
    // Part of what is asked for (RFC 9110 §7.1): many origins redirect `http` to `https`, and that
    // redirect must not be what `https` gets.
    let scheme = told.scheme;
    let present = Present::of(&parts.headers);
    let (authority, fault) = match judge::judge(&parts, present, scheme, fault) {
        Ok(authority) => (authority, None),
        Err(failure) => (String::new(), Some(failure)),
    };
    let target = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let route = snapshot.config.route(&parts.method, host_of(&authority), target.path());
    let cache = route.and_then(|route| snapshot.cache(route));
    let takes_trailers = present.has(Present::TE) && list::contains(&parts.headers, &header::TE, "trailers");
    // Here already, so that what the origin does not see chooses nothing that is stored.
    let (mut named, present) = Names {
        trusted,
        cached: cache.filter(|cache| cache.policy.methods.contains(&parts.method)),
        keyed: cache.map_or(&[][..], |cache| &cache.key.headers),
        edits: route.and_then(|at| snapshot.route(at)).map(|route| &route.request_headers),
    }
    .read(&mut parts.headers, present);
    let wants_key = named.debug && wants_key(&mut parts.headers) && snapshot.config.cache.status_key;
    if present.has(Present::COOKIE) {
        join_cookies(&mut parts.headers);
    }
    let facts = RequestFacts::knowing(&parts.method, &parts.headers, present);
    let asked = Asked {
        facts: RequestFacts { chosen_by: std::mem::take(&mut named.chosen_by), ..facts },
        target,
        scheme,
        authority,
        method: parts.method,
        headers: parts.headers.into(),
        version: parts.version,
        peer,
        client: told.client,
        takes_trailers,
        at: worker.now(),
        ids: OnceLock::new(),
    };
    Taken { fault, asked: Arc::new(under_policy(asked, cache)), route, named, wants_key }
}

/// Why Larder answers such a request itself, whatever route takes it.
pub(super) fn refused(
    worker: &Worker,
    snapshot: &Snapshot,
    fault: Option<Failure>,
    asked: &Asked,
) -> Option<Failure> {
    fault.or_else(|| oversized(snapshot, asked)).or_else(|| looped(worker, asked))
}

/// What of a request neither its head's text nor its route says.
pub(super) struct Unsaid {
    /// Its connection can leave HTTP.
    pub upgrades: bool,
    /// It says who the user is by a field that is not part of the key.
    pub credential: bool,
    /// It has a body.
    pub body: bool,
}

impl Unsaid {
    fn of(upgrades: bool, named: &Named, body: Option<&Incoming>) -> Self {
        let body = body.is_some_and(|body| !body.is_end_stream());
        Self { upgrades, credential: named.credential, body }
    }
}

/// Whether a request that does not use the cache for this reason could have been answered from it otherwise.
pub(super) const fn is_kept_out(bypass: Bypass) -> bool {
    matches!(
        bypass,
        Bypass::Body | Bypass::RequestNoStore | Bypass::Cookie | Bypass::Path | Bypass::Authorization
    )
}

/// What a client may say to the cache is settled before anything is asked of it.
fn under_policy(asked: Asked, cache: Option<&RouteCache>) -> Asked {
    let client = cache.map(|cache| cache.policy.client_cache_control).unwrap_or_default();
    Asked { facts: asked.facts.under(client), ..asked }
}

/// What is made of a request's fields by their names alone.
struct Names<'a> {
    /// The peer is a trusted proxy.
    trusted: bool,
    /// The route's cache, where the request's method uses it.
    cached: Option<&'a RouteCache>,
    /// Those that are part of the key.
    keyed: &'a [HeaderName],
    /// What the route takes out of what the origin gets, or writes itself.
    edits: Option<&'a Edits>,
}

/// What the names of those fields say that a request keeps.
#[derive(Clone, Default)]
pub(super) struct Named {
    /// One of them says who the user is, and is not part of the key.
    pub credential: bool,
    /// `Connection` names `Upgrade`.
    pub switches: bool,
    /// One is `Larder-Debug`.
    debug: bool,
    /// By which scripts choose, and that are neither part of the key nor kept from the origin.
    chosen_by: Vec<HeaderName>,
}

impl Names<'_> {
    /// Reads them once, and removes what the origin does not get. `present` are the fields that there are; gives those
    /// that are left.
    fn read(&self, headers: &mut HeaderMap, present: Present) -> (Named, Present) {
        let options = match present.has(Present::CONNECTION) {
            true => hop::connection_options(headers),
            false => Vec::new(),
        };
        let (mut named, mut dropped) = (Named::default(), Vec::new());
        named.switches = options.contains(&header::UPGRADE);
        // Of most requests no name says anything.
        if options.is_empty() && !present.has(Present::OTHER) {
            return (named, present);
        }
        for name in headers.keys() {
            let is_other = Present::named(name.as_str()).has(Present::OTHER);
            if !is_other && !options.contains(name) {
                continue;
            }
            let told = claims::told(name.as_str());
            // What `Connection` names (RFC 9110 §7.6.1) may not choose what is stored for others either: neither
            // by the key, nor by `Vary`, nor by what the rules read. Whether an upgrade is asked for is told from
            // the field itself; what is sent names it anew.
            let option = options.contains(name) && *name != header::UPGRADE;
            if option || hop::is_disguised(name) || self.is_dropped(name, told.claim) {
                dropped.push(name.clone());
                continue;
            }
            named.debug |= *name == LARDER_DEBUG;
            if !self.keyed.contains(name) {
                // Who the user is need not be told by `Authorization`, of which alone RFC 9111 §3.5 speaks.
                named.credential |= told.credential;
                if told.chooses && !self.is_edited(name) {
                    named.chosen_by.push(name.clone());
                }
            }
        }
        if dropped.is_empty() {
            return (named, present);
        }
        for name in dropped {
            headers.remove(name);
        }
        (named, Present::of(headers))
    }

    /// Whether the origin gets nothing of what the client says by this name.
    fn is_edited(&self, name: &HeaderName) -> bool {
        let edited =
            |edits: &Edits| edits.remove.contains(name) || edits.set.iter().any(|(set, _)| set == name);
        self.edits.is_some_and(edited)
    }

    /// Whether it is what the client says that its request should be taken for: who and whence it is, unless a
    /// trusted proxy says it; and where the answer may be stored, which host, path or method it means, unless that
    /// is part of the key. An origin that believes Larder's `X-Forwarded-For` believes all of these, and what it
    /// then writes into its answer would be served to everyone.
    fn is_dropped(&self, name: &HeaderName, claim: Option<Claim>) -> bool {
        let Some(claim) = claim else { return false };
        let counts = self.cached.is_none_or(|cache| cache.key.headers.contains(name));
        match claim {
            Claim::Client => !self.trusted || name.as_str().contains(['_', '.']),
            Claim::Way => !self.trusted || !counts,
            Claim::Hint | Claim::Method => !counts,
        }
    }
}

/// RFC 9113 §8.2.3: the crumbs of an HTTP/2 cookie "MUST be concatenated into a single octet string"
/// before they are passed into HTTP/1.1, whose servers join lines by commas.
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
}

/// The key of a request, by its route's policy.
pub(super) fn key_of(asked: &Asked, policy: Option<&KeyPolicy>) -> CacheKey {
    let (path, query) = (asked.target.path(), asked.target.query());
    let plain = KeyPolicy::default();
    CacheKey::of(asked.scheme, &asked.authority, path, query, &asked.headers, policy.unwrap_or(&plain))
}

/// Whether the request says that another host, path or method is meant than it names.
pub(super) fn means_another(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| claims::claim(name.as_str()).is_some_and(|claim| claim != Claim::Client))
}

/// What is larger than Larder takes, and came through all the same: hyper has its own bounds for the heads of
/// HTTP/1 alone.
fn oversized(snapshot: &Snapshot, asked: &Asked) -> Option<Failure> {
    let limits = &snapshot.config.limits;
    if asked.target.as_str().len() > limits.target {
        return Some(Failure::long_target(limits.target));
    }
    (asked.headers.len() > limits.fields).then(|| Failure::many_fields(limits.fields))
}

/// RFC 9110 §7.6.3: Via exists to detect forwarding loops.
fn looped(worker: &Worker, asked: &Asked) -> Option<Failure> {
    let text = "the request has come through this Larder before: an upstream leads back to it";
    (asked.facts.present.has(Present::VIA) && hop::via_contains(&asked.headers, &worker.shared.pseudonym))
        .then(|| Failure::local(StatusCode::LOOP_DETECTED, "loop", text))
}

/// Why a request does not use the cache at all.
pub(super) fn bypass(asked: &Asked, snapshot: &Snapshot, route: usize, unsaid: &Unsaid) -> Option<Bypass> {
    bypass_of(asked, snapshot.cache(route), unsaid).or_else(|| strays(asked, &snapshot.config, route))
}

fn bypass_of(asked: &Asked, cache: Option<&RouteCache>, unsaid: &Unsaid) -> Option<Bypass> {
    let Some(cache) = cache else { return Some(Bypass::Off) };
    if unsaid.upgrades && protocol_wanted(&asked.headers).is_some() {
        return Some(Bypass::Upgrade);
    }
    if !cache.policy.methods.contains(&asked.method) {
        return Some(Bypass::Method);
    }
    // A GET's body has no meaning that the key could know (RFC 9110 §9.3.1).
    if unsaid.body && !keyed_on_content(asked, Some(cache)) {
        return Some(Bypass::Body);
    }
    if asked.facts.directives.no_store {
        return Some(Bypass::RequestNoStore);
    }
    if asked.facts.has_cookie && cache.policy.cookies == Cookies::Bypass {
        return Some(Bypass::Cookie);
    }
    if cache.policy.authorization != Authorization::Share && unsaid.credential {
        return Some(Bypass::Authorization);
    }
    debug_assert!(cache.policy.authorization != Authorization::PerCredential || cache.key.per_credential);
    None
}

/// Whether the request's content is part of its key.
pub(super) fn keyed_on_content(asked: &Asked, cache: Option<&RouteCache>) -> bool {
    let has_content = asked.method == Method::QUERY || asked.method == Method::POST;
    has_content && cache.is_some_and(|cache| cache.policy.methods.contains(&asked.method))
}

/// Whether the path may mean a resource of another route than the one that it matches, whose responses
/// that route must not store for all: by its dot segments, by what the key makes of it, or by what an origin
/// may read in it (`/%61ccount` is `/account` to most).
pub(super) fn strays(asked: &Asked, config: &Config, route: usize) -> Option<Bypass> {
    let policy = &config.routes.get(route)?.cache.as_ref()?.key;
    let path = asked.target.path();
    let keyed = policy.path(path);
    let elsewhere = |path: &str| config.route(&asked.method, host_of(&asked.authority), path) != Some(route);
    let strays = policy.refuses(&keyed)
        || keyed != path && elsewhere(&keyed)
        || path::as_some_read_it(path).is_some_and(|read| elsewhere(&read));
    strays.then_some(Bypass::Path)
}

/// Whether the client asks for the key in `Cache-Status` (RFC 9211 §2.7). The field is a word between
/// the two of us: the origin does not get it, and nothing that is stored can depend on it.
fn wants_key(headers: &mut HeaderMap) -> bool {
    let wants = list::contains(headers, &LARDER_DEBUG, "key");
    headers.remove(&LARDER_DEBUG);
    wants
}

/// The protocol that the client wants to switch to, where it may.
///
/// Not HTTP/2: the origin would speak it with the client through a tunnel, past the cache, the
/// routes and all else here. RFC 9113 §3.1 has done away with this upgrade, and a server may ignore
/// any (RFC 9110 §7.8).
pub(super) fn protocol_wanted(headers: &HeaderMap) -> Option<HeaderValue> {
    let wanted = hop::is_upgrade(headers)?;
    let is_h2c = |name: &[u8]| name.trim_ascii().eq_ignore_ascii_case(b"h2c");
    let offers_h2c =
        headers.get_all(header::UPGRADE).iter().any(|v| v.as_bytes().split(|b| *b == b',').any(is_h2c));
    if offers_h2c { None } else { Some(wanted) }
}

/// The host of an authority, without its port.
pub(super) fn host_of(authority: &str) -> &str {
    // Not by `rsplit_once`, whose search takes longer to begin than a host has bytes.
    let colon =
        authority.bytes().rposition(|byte| byte == b':').and_then(|at| authority.split_at_checked(at));
    match colon.and_then(|(host, port)| Some((host, port.strip_prefix(':')?))) {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_not_part_of_the_host() {
        for (authority, host) in
            [("a.test", "a.test"), ("a.test:80", "a.test"), ("[::1]", "[::1]"), ("[::1]:80", "[::1]")]
        {
            assert_eq!(host_of(authority), host);
        }
    }
}
