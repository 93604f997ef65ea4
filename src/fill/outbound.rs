//! What the origin is sent.
//!
//! Knows which fields belong to the client's connection and which to the message, and how Larder
//! names itself and the client to the origin.
//! Must not know: caching, beyond the conditions that it is handed.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header};

use crate::config::Route;
use crate::fields::forwarded::{self, X_FORWARDED_FOR, X_FORWARDED_PROTO, X_REAL_IP};
use crate::fields::hop;
use crate::fields::trace::{self, Tracing};
use crate::rules;
use crate::upstream::{Ready, RequestBody};
use crate::worker::{Asked, Worker};

const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The request of a fill: without the client's range and conditions, with the `conditions` that were
/// planned. A GET without a body, or the client's own method with a content of `length` bytes.
pub fn fill(
    worker: &Worker,
    asked: &Asked,
    route: &Route,
    conditions: &[(HeaderName, HeaderValue)],
    length: Option<usize>,
) -> Request<()> {
    let mut headers = forwarded_fields(worker, asked, route);
    rules::strip_conditions(&mut headers);
    headers.remove(header::CONTENT_LENGTH);
    for (name, value) in conditions {
        headers.append(name, value.clone());
    }
    let Some(length) = length else {
        // What speaks of a content that is not there, or to those who count hops (RFC 9110 §7.6.2: of other
        // methods, it may be ignored): some origins complain, and the complaint would be stored for all.
        for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::MAX_FORWARDS] {
            headers.remove(name);
        }
        return build(Method::GET, asked, headers);
    };
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    build(asked.method.clone(), asked, headers)
}

/// What origins are sent with requests that have the same lines, are from the same peer and by the same configuration:
/// made with the first of them.
#[derive(Clone, Debug, Default)]
pub struct Alike(Arc<OnceLock<Made>>);

#[derive(Debug)]
struct Made {
    fields: Arc<HeaderMap>,
    /// The same as they are written, where they may be.
    ready: Option<Ready>,
}

impl Alike {
    /// What they are sent; nothing where each has a name of its own.
    fn made(&self, worker: &Worker, asked: &Asked, route: &Route) -> Option<&Made> {
        let tracing = worker.shared.snapshot.load().config.log.trace;
        match self.0.get() {
            Some(made) if !matches!(tracing, Tracing::Make(_)) => Some(made),
            _ if is_called(tracing, &asked.headers) => None,
            _ => Some(self.0.get_or_init(|| {
                let fields = Arc::new(forwarded_fields(worker, asked, route));
                Made { ready: Ready::of(Arc::clone(&fields)), fields }
            })),
        }
    }
}

/// The request of a pass that has no body and is [alike](Alike), where its fields can be sent as they are made once.
pub fn ready(worker: &Worker, asked: &Asked, route: &Route, alike: &Alike) -> Option<Request<RequestBody>> {
    let ready = alike.made(worker, asked, route)?.ready.clone()?;
    let request = build(asked.method.clone(), asked, HeaderMap::new());
    Some(request.map(|()| RequestBody::headed(ready)))
}

/// The request of a pass: as the client sent it. `upgrade` is the protocol to switch to. `alike`: of those that are.
pub fn pass(
    worker: &Worker,
    asked: &Asked,
    route: &Route,
    upgrade: Option<HeaderValue>,
    alike: Option<&Alike>,
) -> Request<()> {
    let made = alike.and_then(|alike| alike.made(worker, asked, route));
    let mut headers =
        made.map_or_else(|| forwarded_fields(worker, asked, route), |made| (*made.fields).clone());
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    build(asked.method.clone(), asked, headers)
}

fn build(method: Method, asked: &Asked, headers: HeaderMap) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = asked.target.clone().into();
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers;
    request
}

fn forwarded_fields(worker: &Worker, asked: &Asked, route: &Route) -> HeaderMap {
    let mut headers = HeaderMap::clone(&asked.headers);
    // For what is added below, at once.
    headers.reserve(ADDED);
    hop::remove_hop_by_hop(&mut headers);
    // Larder has met the expectation itself: the client is told to go on when its body is wanted.
    headers.remove(header::EXPECT);
    // Nor are trailers of a request sent on: hyper sends none that `Trailer` does not announce (RFC 9110
    // §6.5.1: they may be discarded), and no origin reads them but by mistake.
    headers.remove(header::TRAILER);
    count_down(&asked.method, &mut headers);
    let is_named = headers.get(header::HOST).is_some_and(|host| host == asked.authority.as_str());
    if !is_named && let Ok(host) = HeaderValue::from_str(&asked.authority) {
        headers.insert(header::HOST, host);
    }
    name_the_client(&mut headers, asked.peer, asked.client, asked.scheme);
    match worker.shared.via.as_ref().filter(|_| asked.version == Version::HTTP_11) {
        Some(via) => drop(headers.append(header::VIA, via.clone())),
        None => hop::append_via(&mut headers, asked.version, &worker.shared.pseudonym),
    }
    let tracing = worker.shared.snapshot.load().config.log.trace;
    // Where nothing has come and nothing is made there is nothing to be done.
    if is_called(tracing, &headers) {
        asked.ids(tracing).apply(&mut headers);
    }
    route.request_headers.apply(&mut headers);
    headers
}

/// Whether a request is called by anything that is its own.
fn is_called(tracing: Tracing, headers: &HeaderMap) -> bool {
    match tracing {
        Tracing::Off => false,
        Tracing::Accept => trace::is_named(headers),
        Tracing::Make(_) => true,
    }
}

/// Fields that Larder adds to a request.
const ADDED: usize = 8;

/// RFC 9110 §7.6.2: "MUST generate an updated Max-Forwards field"; one of 0 has not come this far.
fn count_down(method: &Method, headers: &mut HeaderMap) {
    if *method != Method::OPTIONS {
        return;
    }
    let left = headers.get(header::MAX_FORWARDS).and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    if let Some(left) = left {
        headers.insert(header::MAX_FORWARDS, HeaderValue::from(left.saturating_sub(1)));
    }
}

/// Names the client to the origin, after those that a trusted peer has named: what others say of
/// themselves has been dropped when the request was taken in.
///
/// `X-Real-IP` is written in any case, as the address that Larder itself goes by: an origin that reads
/// it, and many do before anything else, would otherwise believe what a client had put there and a
/// trusted proxy, which writes only `X-Forwarded-For`, passed on.
fn name_the_client(headers: &mut HeaderMap, peer: IpAddr, client: IpAddr, scheme: &'static str) {
    let peer = peer.to_canonical();
    let (near, chain) = (forwarded::named(peer), forwarded_for(headers));
    let chain = match (&near, chain) {
        (near, None) => near.clone(),
        (Some(near), Some(before)) => {
            // Both have come from text.
            let near = near.to_str().unwrap_or_default();
            HeaderValue::try_from(format!("{before}, {near}")).ok()
        }
        (None, Some(_)) => None,
    };
    if let Some(chain) = chain {
        headers.insert(X_FORWARDED_FOR, chain);
    }
    forwarded::extend(headers, peer);
    // Mostly whom the connection is from.
    if let Some(client) = if client == peer { near } else { forwarded::named(client) } {
        headers.insert(X_REAL_IP, client);
    }
    // As the key has it, whatever a trusted proxy wrote.
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    if !headers.contains_key(X_FORWARDED_HOST)
        && let Some(host) = headers.get(header::HOST).cloned()
    {
        headers.insert(X_FORWARDED_HOST, host);
    }
}

/// The chain of addresses so far, if any.
fn forwarded_for(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let chain: Vec<&str> = lines.map(str::trim).filter(|line| !line.is_empty()).collect();
    (!chain.is_empty()).then(|| chain.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(sent: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("api.test"));
        for (name, value) in sent {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let peer = "192.0.2.7".parse().unwrap();
        let told = forwarded::told(&headers, peer, |address| address == peer);
        name_the_client(&mut headers, peer, told.client, told.scheme);
        headers
    }

    #[test]
    fn a_trusted_proxys_word_is_kept_and_added_to() {
        let headers = named(&[
            ("x-forwarded-for", "198.51.100.1"),
            ("x-forwarded-for", " 198.51.100.2 "),
            ("x-forwarded-proto", "https"),
            ("x-real-ip", "203.0.113.9"),
            ("forwarded", "for=198.51.100.2"),
        ]);
        assert_eq!(headers["x-forwarded-for"], "198.51.100.1, 198.51.100.2, 192.0.2.7");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "api.test");
        assert_eq!(headers["x-real-ip"], "198.51.100.2", "by what Larder itself goes");
        let forwarded: Vec<_> = headers.get_all("forwarded").iter().collect();
        assert_eq!(forwarded, ["for=198.51.100.2", "for=192.0.2.7"]);
    }

    #[test]
    fn the_origin_is_told_the_scheme_that_the_key_has() {
        for (said, want) in [("HTTPS", "https"), ("https, http", "https"), ("gopher", "http"), ("", "http")] {
            assert_eq!(named(&[("x-forwarded-proto", said)])["x-forwarded-proto"], want, "{said}");
        }
        let two = named(&[("x-forwarded-proto", "http"), ("x-forwarded-proto", "https")]);
        assert_eq!(two.get_all("x-forwarded-proto").iter().collect::<Vec<_>>(), ["http"]);
    }
}
