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
use crate::wire::{field_line, status_line};

use super::report::Report;

/// What Larder has done, on each answer of a public listener (RFC 9211).
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
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

/// A head as HTTP/1.1 has it, that whoever sends it ends: what is said of the connection, how its content is framed and the
/// date, where it says none, and the empty line. It goes with its response's body ([`Headed`]), in place of a map of fields.
#[derive(Clone, Debug)]
pub struct Begun {
    /// The status line and fields, each line whole.
    pub(super) lines: Vec<u8>,
    /// It says when it was made.
    pub(super) dated: bool,
    /// It says how long its content is.
    pub(super) framed: bool,
}

/// A body that may have the head that goes before it.
pub trait Headed {
    /// That head, for whoever sends it.
    fn take_begun(&mut self) -> Option<Begun>;

    /// Whether that says when it was made, if it is there.
    fn is_dated(&self) -> Option<bool>;
}

impl Begun {
    pub(super) const fn is_dated(&self) -> bool {
        self.dated
    }

    /// Writes it to its end. `closes`: the connection ends with its response. `length`: that of its content, which is
    /// chunked where it has none (RFC 9112 §6). `date` is for one that has none.
    pub fn write(&self, closes: bool, length: Option<u64>, date: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.lines);
        end(out, closes, (!self.framed).then_some(length), (!self.dated).then_some(date));
    }
}

impl Hit<'_> {
    /// Writes the whole head, to its empty line, as HTTP/1.1 has it: what `deliver`, [`pass_on`], [`finish`] and hyper
    /// make of a stored response that [is bare](StoredResponse::is_bare), for a route that [is plain](is_plain).
    pub fn write(&self, out: &mut Vec<u8>, config: &Config, via: Option<&HeaderValue>, date: &[u8]) {
        let dated = self.begin(out, config, via);
        end(out, self.closes, None, (!dated).then_some(date));
    }

    /// Writes all but what comes last, and gives whether there was a date.
    pub fn begin(&self, out: &mut Vec<u8>, config: &Config, via: Option<&HeaderValue>) -> bool {
        let Self { stored, outcome, .. } = self;
        let status = if self.not_modified { StatusCode::NOT_MODIFIED } else { stored.status };
        status_line(out, status);
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
            field_line(out, name.as_str().as_bytes(), value);
        }
        out.extend_from_slice(b"age: ");
        digits::push(out, self.age.as_secs(), 1);
        out.extend_from_slice(b"\r\n");
        added(out, config, via, outcome, self.timeline, self.took);
        dated
    }
}

/// What a final response that an origin gave for one request is headed with, where it goes on as it came.
pub(super) struct Passed<'a> {
    pub status: StatusCode,
    /// Without the fields of the origin's connection.
    pub headers: &'a HeaderMap,
    /// Bytes of its content, where that is known.
    pub length: Option<u64>,
    /// Clients get the fields that hold tags.
    pub exposes_tags: bool,
    pub outcome: &'a Outcome,
    pub timeline: &'a Timeline,
    pub took: Duration,
}

impl Passed<'_> {
    /// What [`pass_on`], [`finish`] and who writes a map make of it for a route that [is plain](is_plain) and a client
    /// that takes no trailers; nothing where it may have no content, where its length is not said as it is, or anything
    /// of a connection or of trailers: with these there is more to be done than to copy them.
    pub fn begin(&self, config: &Config, via: Option<&HeaderValue>) -> Option<Begun> {
        if matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            return None;
        }
        let mut lines = Vec::with_capacity(USUAL);
        status_line(&mut lines, self.status);
        let (mut told, mut dated) = (false, false);
        for (name, value) in self.headers {
            let value = value.as_bytes();
            // By its text: to compare each with a list of names would take longer than all the rest.
            match name.as_str() {
                // It is said last, as by hyper.
                "content-length" if self.length == Some(0) => continue,
                "content-length" => {
                    let is_length = self.length.is_some_and(|length| digits::is(value, length));
                    if !is_length || std::mem::replace(&mut told, true) {
                        return None;
                    }
                }
                "connection" | "trailer" | "transfer-encoding" => return None,
                // For this cache alone, or written below.
                "larder-cache-control" | "x-cache" => continue,
                "x-process-time" if config.timing.process_time => continue,
                "surrogate-key" | "xkey" | "cache-tag" if !self.exposes_tags => continue,
                "date" => dated = true,
                _ => {}
            }
            field_line(&mut lines, name.as_str().as_bytes(), value);
        }
        added(&mut lines, config, via, self.outcome, self.timeline, self.took);
        Some(Begun { lines, dated, framed: told })
    }
}

/// What [`pass_on`] and [`finish`] add for a route that [is plain](is_plain).
fn added(
    out: &mut Vec<u8>,
    config: &Config,
    via: Option<&HeaderValue>,
    outcome: &Outcome,
    timeline: &Timeline,
    took: Duration,
) {
    if let Some(via) = via {
        field_line(out, b"via", via.as_bytes());
    }
    out.extend_from_slice(b"cache-status: ");
    outcome.write_cache_status(out);
    if let Some(word) = outcome.x_cache() {
        out.extend_from_slice(b"\r\nx-cache: ");
        out.extend_from_slice(word.as_bytes());
    }
    if config.timing.server_timing {
        out.extend_from_slice(b"\r\nserver-timing: ");
        timeline.write_server_timing(out);
    }
    if config.timing.process_time {
        out.extend_from_slice(b"\r\nx-process-time: ");
        write_process_time(took, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// What comes last in a head. Inlined: the short way passes most of it by.
#[inline]
fn end(out: &mut Vec<u8>, closes: bool, framing: Option<Option<u64>>, date: Option<&[u8]>) {
    if closes {
        field_line(out, b"connection", b"close");
    }
    match framing {
        Some(Some(length)) => {
            out.extend_from_slice(b"content-length: ");
            digits::push(out, length, 1);
            out.extend_from_slice(b"\r\n");
        }
        Some(None) => field_line(out, b"transfer-encoding", b"chunked"),
        None => {}
    }
    if let Some(date) = date {
        field_line(out, b"date", date);
    }
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
