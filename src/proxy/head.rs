//! The head that a client gets: what Larder adds to every response.
//!
//! Knows the fields that say where a response came from and how long it took.
//! Must not know: what kind of response it is, beyond its outcome.

use std::fmt::Write as _;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::clock::Mono;
use crate::config::{Config, Route};
use crate::fields::digits;
use crate::fields::targeted::LARDER_CACHE_CONTROL;
use crate::rules;
use crate::stored::{self, StoredResponse};
use crate::telemetry::{Outcome, Timeline, write_process_time};

use super::report::Report;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
const X_PROCESS_TIME: HeaderName = HeaderName::from_static("x-process-time");
pub(super) const SERVER_TIMING: HeaderName = stored::SERVER_TIMING;

/// Bytes that a head has at most, mostly.
pub(super) const USUAL: usize = 1024;

/// `Age` of a stored response, whole seconds (RFC 9111 §5.1).
pub(super) fn set_age(headers: &mut HeaderMap, age: Duration) {
    headers.insert(header::AGE, HeaderValue::from(age.as_secs()));
}

/// What a response that came from an origin, now or once, is given on its way through. `bare`: it is
/// known to have no field for caches alone ([`StoredResponse::is_bare`](stored::StoredResponse::is_bare)).
pub(super) fn pass_on(headers: &mut HeaderMap, via: Option<&HeaderValue>, route: Option<&Route>, bare: bool) {
    if let Some(via) = via {
        headers.append(header::VIA, via.clone());
    }
    // It is for this cache, whose purges reach what it keeps; another cache, though it were a Larder,
    // might keep it past them. What is for more than one goes into CDN-Cache-Control, which is passed on
    // for "downstream CDN caches" (RFC 9213 §3).
    if !bare {
        headers.remove(LARDER_CACHE_CONTROL);
    }
    if let Some(route) = route {
        route.tags.hide(headers, bare);
    }
}

/// What every response is given last: where it came from, the route's edits, the time it took until the moment
/// that is returned.
pub(super) fn finish(
    headers: &mut HeaderMap,
    config: &Config,
    route: Option<&Route>,
    outcome: &Outcome,
    report: &Report,
) -> Mono {
    let mut text = String::with_capacity(96);
    outcome.write_cache_status(&mut text);
    if let Some(key) = &report.key {
        outcome.write_key(key, &mut text);
    }
    // RFC 9211 §2: each cache appends its own member; the one closest to the client comes last.
    append(headers, CACHE_STATUS, &text);
    match outcome.x_cache() {
        Some(word) => headers.insert(X_CACHE, HeaderValue::from_static(word)),
        None => headers.remove(X_CACHE),
    };
    if let Some(route) = route {
        vary_on_key(headers, route);
        route.response_headers.apply(headers);
    }
    if config.timing.server_timing {
        text.clear();
        report.timeline.write_server_timing(&mut text);
        append(headers, SERVER_TIMING, &text);
    }
    let now = report.mono();
    if config.timing.process_time {
        text.clear();
        write_process_time(now.since(report.timeline.start()), &mut text);
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(X_PROCESS_TIME, value);
        }
    }
    now
}

/// Whether [`finish`] and [`pass_on`] add nothing to responses of a route that depends on it.
pub(super) fn is_plain(route: &Route) -> bool {
    let (edits, key) = (&route.response_headers, route.cache.as_ref().map(|cache| &cache.key));
    let edits = edits.remove.is_empty() && edits.set.is_empty();
    edits
        && route.tags.header.is_none()
        && key.is_some_and(|key| key.headers.is_empty() && key.cookies.is_empty())
}

/// What a plain hit is headed with.
pub(super) struct Hit<'a> {
    pub stored: &'a StoredResponse,
    pub age: Duration,
    /// The client holds it already.
    pub not_modified: bool,
    /// The connection ends with it.
    pub closes: bool,
    pub outcome: &'a Outcome,
    pub timeline: &'a Timeline,
    pub took: Duration,
}

/// A head as HTTP/1.1 has it, that whoever sends it ends: what is said of the connection, the date where it has none, and
/// the empty line. It goes with its response as an extension, in place of a map of fields.
#[derive(Clone, Debug)]
pub struct Begun {
    /// The status line and fields, each line whole.
    pub(super) lines: Vec<u8>,
    /// It says when it was made.
    pub(super) dated: bool,
}

impl Begun {
    /// Writes it to its end. `closes`: the connection ends with its response. `date` is for one that has none.
    pub fn write(&self, closes: bool, date: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.lines);
        end(out, self.dated, closes, date);
    }
}

impl Hit<'_> {
    /// Writes the whole head, to its empty line, as HTTP/1.1 has it: what `deliver`, [`pass_on`], [`finish`] and hyper
    /// make of a stored response that [is bare](StoredResponse::is_bare), for a route that [is plain](is_plain).
    pub fn write(&self, out: &mut Vec<u8>, config: &Config, via: Option<&HeaderValue>, date: &[u8]) {
        let dated = self.begin(out, config, via);
        end(out, dated, self.closes, date);
    }

    /// Writes all but what comes last, and gives whether there was a date.
    pub fn begin(&self, out: &mut Vec<u8>, config: &Config, via: Option<&HeaderValue>) -> bool {
        let Self { stored, outcome, .. } = self;
        let status = if self.not_modified { StatusCode::NOT_MODIFIED } else { stored.status };
        match status {
            StatusCode::OK => out.extend_from_slice(b"HTTP/1.1 200 OK\r\n"),
            other => {
                out.extend_from_slice(b"HTTP/1.1 ");
                out.extend_from_slice(other.as_str().as_bytes());
                out.push(b' ');
                out.extend_from_slice(other.canonical_reason().unwrap_or("<none>").as_bytes());
                out.extend_from_slice(b"\r\n");
            }
        }
        let mut dated = false;
        let untagged = self.not_modified && !stored.headers.contains_key(&header::ETAG);
        for (name, value) in stored.headers.iter() {
            // Those are written below.
            if *name == header::AGE
                || *name == X_CACHE
                || *name == X_PROCESS_TIME && config.timing.process_time
            {
                continue;
            }
            if self.not_modified && !is_kept(name, untagged) {
                continue;
            }
            // RFC 9110 §8.6: "A server MUST NOT send a Content-Length header field in any response with a status
            // code of 1xx (Informational) or 204 (No Content)", whatever the origin has said.
            if status == StatusCode::NO_CONTENT && *name == header::CONTENT_LENGTH {
                continue;
            }
            dated |= *name == header::DATE;
            line(out, name.as_str().as_bytes(), value);
        }
        out.extend_from_slice(b"age: ");
        digits::push(out, self.age.as_secs(), 1);
        if let Some(via) = via {
            out.extend_from_slice(b"\r\nvia: ");
            out.extend_from_slice(via.as_bytes());
        }
        out.extend_from_slice(b"\r\ncache-status: ");
        outcome.write_cache_status(out);
        if let Some(word) = outcome.x_cache() {
            out.extend_from_slice(b"\r\nx-cache: ");
            out.extend_from_slice(word.as_bytes());
        }
        if config.timing.server_timing {
            out.extend_from_slice(b"\r\nserver-timing: ");
            self.timeline.write_server_timing(out);
        }
        if config.timing.process_time {
            out.extend_from_slice(b"\r\nx-process-time: ");
            write_process_time(self.took, out);
        }
        out.extend_from_slice(b"\r\n");
        dated
    }
}

/// What comes last in a head.
fn end(out: &mut Vec<u8>, dated: bool, closes: bool, date: &[u8]) {
    if closes {
        line(out, b"connection", b"close");
    }
    if !dated {
        line(out, b"date", date);
    }
    out.extend_from_slice(b"\r\n");
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// RFC 9110 §15.4.5: a 304 carries what would have been sent in a 200, but of the representation only what matters to
/// a cache; `Last-Modified` where no `ETag` says it better (`untagged`).
pub(super) fn is_kept(name: &HeaderName, untagged: bool) -> bool {
    (untagged && *name == header::LAST_MODIFIED) || rules::not_modified_fields(name)
}

/// A route that keys on request fields tells downstream caches to do likewise.
fn vary_on_key(headers: &mut HeaderMap, route: &Route) {
    let Some(key) = route.cache.as_ref().map(|cache| &cache.key) else { return };
    let cookie = (!key.cookies.is_empty()).then_some(&header::COOKIE);
    let mut text = String::new();
    for name in key.headers.iter().chain(cookie) {
        if !names_field(headers, name) {
            let comma = if text.is_empty() { "" } else { ", " };
            let _infallible = write!(text, "{comma}{name}");
        }
    }
    append(headers, header::VARY, &text);
}

fn names_field(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers
        .get_all(header::VARY)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|listed| listed.trim().eq_ignore_ascii_case(name.as_str()) || listed.trim() == "*")
}

fn append(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if !text.is_empty()
        && let Ok(value) = HeaderValue::from_str(text)
    {
        headers.append(name, value);
    }
}
