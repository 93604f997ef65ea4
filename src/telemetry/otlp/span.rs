//! A span: what is told of a request, or of what Larder asked others for it, to who collects traces.
//!
//! Knows the names of OpenTelemetry's semantic conventions for HTTP and for databases. Texts are cut and secrets taken
//! out as in the logs, so that a span is bounded and tells no more than they do.
//! Must not know: how spans are written and sent.

use std::borrow::Cow;
use std::time::Duration;

use http::{Method, Version};

use super::super::access::clipped;
use super::super::finish::{End, Finished};
use super::super::metrics::NONE;
use super::super::outcome::Tier;
use super::super::redact;
use super::super::timeline::{Phase, nanos};
use crate::clock::Mono;
use crate::fields::trace::TraceParent;

/// Status that is noted where the client left before there was an answer: none was sent.
const CLIENT_CLOSED: u16 = 499;

/// One span.
#[derive(Clone, Debug)]
pub struct Span {
    pub(super) trace: u128,
    pub(super) id: u64,
    pub(super) parent: Option<u64>,
    /// The parent is another process's.
    pub(super) is_remote: bool,
    pub(super) flags: u8,
    pub(super) kind: Kind,
    pub(super) name: Cow<'static, str>,
    /// Nanoseconds of the process's own time.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) attributes: Vec<(&'static str, Attribute)>,
    pub(super) failed: bool,
}

/// Which side of an exchange it tells of; the numbers are OTLP's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Server = 2,
    Client = 3,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Attribute {
    Text(Cow<'static, str>),
    Number(u64),
    Seconds(f64),
    Flag(bool),
}

/// What was asked of others for a request: begun at `start`, over after `took`.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// The request's trace, with its own span as the parent of this one.
    pub of: TraceParent,
    /// When it began.
    pub start: Mono,
    /// How long it took: of an origin, until the head of its answer.
    pub took: Duration,
    /// The server, `host:port`; empty where none was reached.
    pub server: &'a str,
}

/// A request to an origin, and what came of it.
#[derive(Clone, Copy, Debug)]
pub struct OriginAsked<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its path and query.
    pub path: &'a str,
    /// Arguments of the query whose values are not told, in lower case.
    pub redact: &'a [String],
    /// The upstream's name.
    pub upstream: &'a str,
    /// The status of its answer, or in one word why there was none.
    pub answer: Result<u16, &'static str>,
    /// Nobody waits for it.
    pub is_refresh: bool,
}

/// A look into Redis, and what came of it, in one word of a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisAsked {
    /// It was found, or was not there.
    Said(&'static str),
    /// Nothing could be said.
    Failed(&'static str),
}

impl Span {
    /// That of a request which is over; `None` where it has no trace, or none that is sampled.
    pub(super) fn of_request(r: &Finished) -> Option<Self> {
        let ids = r.ids?;
        let trace = ids.trace.filter(TraceParent::is_sampled)?;
        let mut it = Self::new(trace, Kind::Server, r.timeline.start().nanos(), nanos(r.total));
        (it.id, it.parent, it.is_remote) = (trace.span(), ids.caller, ids.caller.is_some());
        it.named(r.method, r.route_name);
        it.text("url.scheme", if r.heads.scheme == "https" { "https" } else { "http" });
        it.target(&r.shown_path());
        it.server(r.host);
        it.text("client.address", r.client.to_canonical().to_string());
        it.text("network.protocol.version", version(r.version));
        if r.route_name != NONE {
            it.text("http.route", r.route_name.to_owned());
        }
        if r.status != CLIENT_CLOSED || r.end != End::ClientGone {
            it.number("http.response.status_code", r.status.into());
            it.number("http.response.body.size", r.bytes);
        }
        it.cache(r);
        if r.end == End::Broken {
            it.fail("broken");
        } else if r.status >= 500 {
            it.fail(r.status.to_string());
        }
        Some(it)
    }

    /// That of a request to an origin.
    pub(super) fn of_origin(id: u64, asking: &Asking<'_>, origin: &OriginAsked<'_>) -> Self {
        let mut it = Self::asking(id, asking);
        it.named(origin.method, origin.upstream);
        let path = redact::path(origin.path, origin.redact);
        it.text("url.full", format!("http://{}{}", clipped(asking.server), clipped(&path)));
        it.text("network.protocol.version", "1.1");
        it.text("larder.upstream", origin.upstream.to_owned());
        if origin.is_refresh {
            it.put("larder.refresh", Attribute::Flag(true));
        }
        match origin.answer {
            Ok(status) => {
                it.number("http.response.status_code", status.into());
                // By the conventions, to who has asked it is an error from 400 on.
                if status >= 400 {
                    it.fail(status.to_string());
                }
            }
            Err(word) => it.fail(word),
        }
        it
    }

    /// That of a look into Redis.
    pub(super) fn of_redis(id: u64, asking: &Asking<'_>, found: &RedisAsked) -> Self {
        let mut it = Self::asking(id, asking);
        it.name = "redis get".into();
        it.text("db.system.name", "redis");
        it.text("db.operation.name", "get");
        match found {
            RedisAsked::Said(word) => it.text("larder.redis.result", *word),
            RedisAsked::Failed(word) => it.fail(*word),
        }
        it
    }

    fn asking(id: u64, asking: &Asking<'_>) -> Self {
        let mut it = Self::new(asking.of, Kind::Client, asking.start.nanos(), nanos(asking.took));
        (it.id, it.parent) = (id, Some(asking.of.span()));
        if !asking.server.is_empty() {
            it.server(asking.server);
        }
        it
    }

    fn new(trace: TraceParent, kind: Kind, start: u64, took: u64) -> Self {
        Self {
            trace: trace.trace(),
            id: 0,
            parent: None,
            is_remote: false,
            flags: trace.flags(),
            kind,
            name: Cow::Borrowed(""),
            start,
            end: start.saturating_add(took),
            attributes: Vec::with_capacity(24),
            failed: false,
        }
    }

    /// By its method and what is one of few: never by a path.
    fn named(&mut self, method: &Method, of: &str) {
        if KNOWN.contains(method) {
            self.name = format!("{method} {of}").into();
            self.text("http.request.method", method.as_str().to_owned());
        } else {
            self.name = format!("HTTP {of}").into();
            self.text("http.request.method", "_OTHER");
            self.text("http.request.method_original", clipped(method.as_str()).to_owned());
        }
    }

    fn target(&mut self, target: &str) {
        let target = clipped(target);
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        self.text("url.path", path.to_owned());
        if let Some(query) = query {
            self.text("url.query", query.to_owned());
        }
    }

    /// Of `host` or `host:port`.
    fn server(&mut self, authority: &str) {
        let port =
            authority.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        // An IPv6 address without a port may end with digits, too.
        let port = port.filter(|(host, _)| !host.contains(':') || host.ends_with(']'));
        let host = port.map_or(authority, |(host, _)| host);
        self.text("server.address", clipped(host.trim_matches(['[', ']'])).to_owned());
        if let Some((_, port)) = port {
            self.number("server.port", port.into());
        }
    }

    fn cache(&mut self, r: &Finished) {
        self.text("larder.cache.result", r.outcome.result());
        let words = [
            ("larder.cache.tier", r.outcome.tier().map(Tier::as_str)),
            ("larder.cache.reason", r.outcome.reason()),
            ("larder.cache.detail", r.outcome.note()),
        ];
        for (name, word) in words {
            if let Some(word) = word {
                self.text(name, word);
            }
        }
        if r.outcome.collapsed {
            self.put("larder.cache.collapsed", Attribute::Flag(true));
        }
        for (phase, name) in Phase::ALL.into_iter().zip(PHASES) {
            if let Some(took) = r.timeline.get(phase) {
                self.put(name, Attribute::Seconds(took.as_secs_f64()));
            }
        }
    }

    fn fail(&mut self, why: impl Into<Cow<'static, str>>) {
        self.failed = true;
        self.text("error.type", why);
    }

    fn text(&mut self, name: &'static str, text: impl Into<Cow<'static, str>>) {
        self.put(name, Attribute::Text(text.into()));
    }

    fn number(&mut self, name: &'static str, number: u64) {
        self.put(name, Attribute::Number(number));
    }

    fn put(&mut self, name: &'static str, value: Attribute) {
        self.attributes.push((name, value));
    }
}

const fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

/// The methods that the conventions know; any other could be made up by a client, and so many names with it.
const KNOWN: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];

/// What each of [`Phase::ALL`] took, in seconds.
const PHASES: [&str; Phase::ALL.len()] = [
    "larder.phase.queue",
    "larder.phase.memory",
    "larder.phase.redis",
    "larder.phase.lease",
    "larder.phase.wait",
    "larder.phase.connect",
    "larder.phase.hedge",
    "larder.phase.first_byte",
    "larder.phase.coding",
    "larder.phase.body",
];

#[cfg(test)]
pub(super) mod tests {
    use super::super::super::finish::sample;
    use super::super::super::outcome::{Outcome, Source};
    use super::*;
    use crate::fields::trace::{Ids, Tracing};

    fn ids(traceparent: &str) -> Ids {
        let mut headers = http::HeaderMap::new();
        headers.insert("traceparent", traceparent.parse().unwrap());
        Ids::of(&headers, Tracing::Accept, || 7 << 64)
    }

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    /// That of an ordinary request, which `with` may change.
    pub(in super::super) fn span(with: impl FnOnce(Finished) -> Option<Span>) -> Option<Span> {
        let ids = ids(SAMPLED);
        let outcome = Outcome::new(Source::Hit(Tier::Memory));
        sample::with(&outcome, |r| with(Finished { ids: Some(&ids), ..r }))
    }

    fn text(span: &Span, name: &str) -> Option<String> {
        span.attributes.iter().find(|(known, _)| *known == name).map(|(_, value)| match value {
            Attribute::Text(text) => text.clone().into_owned(),
            Attribute::Number(number) => number.to_string(),
            Attribute::Seconds(seconds) => seconds.to_string(),
            Attribute::Flag(flag) => flag.to_string(),
        })
    }

    #[test]
    fn only_what_is_sampled_has_a_span() {
        assert!(span(|r| Span::of_request(&r)).is_some());
        let not = ids(&SAMPLED.replace("-01", "-00"));
        sample::with(&Outcome::new(Source::Local), |r| {
            assert!(Span::of_request(&Finished { ids: Some(&not), ..r.clone() }).is_none());
            assert!(Span::of_request(&Finished { ids: None, ..r.clone() }).is_none());
            assert!(Span::of_request(&Finished { ids: Some(&Ids::default()), ..r }).is_none());
        });
    }

    #[test]
    fn each_attribute_is_bounded_and_none_is_named_by_a_client() {
        let (method, long) = (Method::from_bytes(&[b'X'; 5000]).unwrap(), "a".repeat(100_000));
        let (path, host) = (format!("/{long}?{long}"), format!("{long}:80"));
        let span =
            span(|r| Span::of_request(&Finished { method: &method, path: &path, host: &host, ..r })).unwrap();
        assert_eq!(
            (&*span.name, text(&span, "http.request.method").unwrap().as_str()),
            ("HTTP users", "_OTHER")
        );
        let longest = span.attributes.iter().filter_map(|(name, _)| text(&span, name)).map(|text| text.len());
        assert!(longest.max().unwrap() <= 4096);
        assert_eq!(
            PHASES.map(|name| name.trim_start_matches("larder.phase.")),
            Phase::ALL.map(Phase::as_str)
        );
    }

    #[test]
    fn a_server_is_an_address_and_a_port_where_there_is_one() {
        for (authority, address, port) in [
            ("example.com", "example.com", None),
            ("example.com:8080", "example.com", Some("8080")),
            ("[::1]:80", "::1", Some("80")),
            ("::1", "::1", None),
            ("[::1]", "::1", None),
            ("", "", None),
        ] {
            let span = span(|r| Span::of_request(&Finished { host: authority, ..r })).unwrap();
            let found = (text(&span, "server.address").unwrap(), text(&span, "server.port"));
            assert_eq!((found.0.as_str(), found.1.as_deref()), (address, port), "{authority}");
        }
    }

    #[test]
    fn what_failed_is_said_to_have_by_the_side_that_tells() {
        for (status, end, failed) in [
            (200, End::Complete, None),
            (404, End::Complete, None),
            (503, End::Complete, Some("503")),
            (200, End::Broken, Some("broken")),
            (200, End::ClientGone, None),
            (499, End::ClientGone, None),
        ] {
            let span = span(|r| Span::of_request(&Finished { status, end, ..r })).unwrap();
            assert_eq!(text(&span, "error.type").as_deref(), failed, "{status} {end:?}");
            assert_eq!(
                (span.failed, text(&span, "http.response.status_code").is_some()),
                (failed.is_some(), status != 499)
            );
        }
        let of = ids(SAMPLED).trace.unwrap();
        let asking = Asking { of, start: Mono::from_nanos(5), took: Duration::from_nanos(7), server: "a:1" };
        let origin = |answer| OriginAsked {
            method: &Method::GET,
            path: "/a?token=hunter2",
            redact: &[],
            upstream: "api",
            answer,
            is_refresh: true,
        };
        for (answer, failed) in [(Ok(200), None), (Ok(404), Some("404")), (Err("refused"), Some("refused"))] {
            let span = Span::of_origin(9, &asking, &origin(answer));
            assert_eq!(text(&span, "error.type").as_deref(), failed, "{answer:?}");
            assert_eq!((span.id, span.parent, span.start, span.end), (9, Some(of.span()), 5, 12));
        }
        let redact = ["token".to_owned()];
        let span = Span::of_origin(9, &asking, &OriginAsked { redact: &redact, ..origin(Ok(200)) });
        assert!(text(&span, "url.full").unwrap().starts_with("http://a:1/a?token=redacted-"), "{span:?}");
        let span = Span::of_redis(9, &asking, &RedisAsked::Failed("deadline"));
        assert_eq!((span.failed, text(&span, "error.type").as_deref()), (true, Some("deadline")));
    }
}
