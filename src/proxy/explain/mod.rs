//! What would become of a request, without doing it.
//!
//! Asks the very functions that requests go through (`receive::take`, `lookup::decide`, `rules::reuse`, …), with a
//! report that tells nobody, and writes down what they say. It starts no fetch, counts nothing, and changes nothing
//! that is stored.
//! Must not know: who asks, or how the answer is shown.

mod advice;
mod kept_out;
mod key;
mod predict;
mod view;
mod words;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Uri, header};
use serde_json::{Value, json};

use crate::fields::forwarded::X_FORWARDED_PROTO;
use crate::worker::{Snapshot, Worker};

use predict::Prediction;

/// A request that nobody has sent.
#[derive(Clone, Debug)]
pub struct Thought {
    /// Its method.
    pub method: Method,
    /// A path with its query, or an absolute URL.
    pub target: Uri,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its content.
    pub body: Bytes,
    /// Where its connection would come from.
    pub from: IpAddr,
}

/// Such a request on its way, before anything is looked up for it; none where that is settled before.
#[cfg(test)]
pub(super) fn received(
    worker: &Arc<Worker>,
    snapshot: &Arc<Snapshot>,
    thought: &Thought,
) -> Option<super::exchange::Exchange> {
    predict::received(worker, snapshot, thought).ok()
}

/// What would become of it under the configuration of `snapshot`, whose file is called `file`: for programs, and for
/// `larder explain`, which shows it. Names of fields are told, and no value that may be somebody's secret.
///
/// Cancellation: nothing is held over an await; it reads Redis within the deadline of a request, some dozen times
/// at most.
pub async fn explain(
    worker: &Arc<Worker>,
    snapshot: &Arc<Snapshot>,
    thought: &Thought,
    file: Option<&str>,
) -> Value {
    let (thought, assumed) = named(snapshot, thought);
    let (thought, https) = over_tls(snapshot, thought);
    let mut predicted = predict::predict(worker, snapshot, &thought, true).await;
    if predicted.redis.is_none() {
        predicted.redis = predict::look(worker, &predicted).await;
    }
    let now = worker.now();
    let advice = advice::seek(worker, snapshot, &thought, &predicted).await;
    let fields = predicted.asked.as_deref().map(|asked| &asked.headers);
    let left_out: Vec<&str> = thought
        .headers
        .keys()
        .filter(|name| fields.is_some_and(|fields| !fields.contains_key(*name)))
        .map(|name| name.as_str())
        .collect();
    json!({
        "request": {
            "method": thought.method.as_str(),
            "target": thought.target.path_and_query().map(|target| target.as_str()),
            "host": thought.headers.get(header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes())),
            "host_assumed": assumed,
            "https": https,
            "fields": thought.headers.keys().map(|name| name.as_str()).collect::<Vec<_>>(),
            "fields_left_out": left_out,
        },
        "route": view::route(snapshot, predicted.route, file),
        "key": key::steps(&thought, snapshot, &predicted),
        "memory": view::memory(worker, snapshot, &predicted, now),
        "redis": view::redis(worker, snapshot, &predicted, now),
        "in_flight": is_in_flight(worker, &predicted),
        "verdict": words::verdict(&predicted),
        "would_be_a_hit_if": advice,
    })
}

fn is_in_flight(worker: &Worker, predicted: &Prediction) -> bool {
    predicted.key().is_some_and(|key| worker.shared.flights.any(key.hash()))
}

/// A request has a host: where it names none, that of the first listener, as a client on this machine would.
fn named(snapshot: &Snapshot, thought: &Thought) -> (Thought, bool) {
    let listen = snapshot.config.listen.first().map(|listen| listen.address.to_string());
    with_host(thought, listen.and_then(|listen| HeaderValue::try_from(listen).ok()))
}

/// Larder ends no TLS: a request for `https` comes from a proxy that does, and says so where its word is taken. With that
/// word, and whether there was one to be added; none where nothing was to be added.
fn over_tls(snapshot: &Snapshot, mut thought: Thought) -> (Thought, Option<bool>) {
    let says_itself =
        [X_FORWARDED_PROTO, header::FORWARDED].iter().any(|name| thought.headers.contains_key(name));
    if says_itself || thought.target.scheme() != Some(&Scheme::HTTPS) {
        return (thought, None);
    }
    let is_taken = snapshot.config.trusts(thought.from);
    if is_taken {
        thought.headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
    }
    (thought, Some(is_taken))
}

/// With its host, and whether that had to be `assumed`. RFC 9112 §3.2: a client says the authority of its target,
/// where that has one.
fn with_host(thought: &Thought, assumed: Option<HeaderValue>) -> (Thought, bool) {
    let mut thought = thought.clone();
    if thought.headers.contains_key(header::HOST) {
        return (thought, false);
    }
    let authority = thought.target.authority().and_then(|it| HeaderValue::from_str(it.as_str()).ok());
    let is_assumed = authority.is_none();
    if let Some(host) = authority.or(assumed) {
        thought.headers.insert(header::HOST, host);
    }
    (thought, is_assumed)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_whole_url_is_as_good_as_a_path_and_its_host() {
        let host = |target: &str, said: Option<&'static str>| {
            let fields = said.map(|host| (header::HOST, HeaderValue::from_static(host)));
            let thought = Thought {
                method: Method::GET,
                target: target.parse().unwrap(),
                headers: fields.into_iter().collect(),
                body: Bytes::new(),
                from: Ipv4Addr::LOCALHOST.into(),
            };
            let (thought, assumed) = with_host(&thought, None);
            (thought.headers.get("host").cloned(), assumed)
        };
        let is = |host| Some(HeaderValue::from_static(host));
        assert_eq!(host("https://api.test:81/a", None), (is("api.test:81"), false));
        assert_eq!(host("http://a/b", Some("c")), (is("c"), false));
        assert_eq!(host("/b", None), (None, true));
    }
}
