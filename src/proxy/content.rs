//! A request whose content is part of its key: the content is read whole before anything is looked up.
//!
//! Knows the bounds of that: bytes by the route's settings and by the budget for bodies that are held,
//! time by the pace that every body is held to, and by `timeout.total`.
//! Must not know: what is stored, or what the origin is sent.
//!
//! Cancellation: dropping the future drops what was read; nothing has happened yet.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::{Method, header};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::rules;
use crate::telemetry::Bypass;
use crate::upstream::{RequestBody, Upload};
use crate::worker::{Asked, Content};

use super::Step;
use super::beginning::Beginning;
use super::deliver::Deliver;
use super::exchange::Exchange;
use super::failure::Failure;
use super::pass::Pass;

/// A request whose content is still to be read.
pub(super) struct Read {
    exchange: Exchange,
    body: Upload,
    /// Why it will not use the cache whatever it holds.
    bypass: Option<Bypass>,
}

/// How reading ended.
enum End {
    Whole(Content),
    /// It is larger than may be held.
    TooLarge(RequestBody),
    /// It broke off, did not come in time, or is larger than the route takes at all.
    Refused(Failure),
}

impl Read {
    pub fn of(exchange: Exchange, body: Upload, bypass: Option<Bypass>) -> Self {
        Self { exchange, body, bypass }
    }

    pub async fn run(self: Box<Self>) -> Step {
        let Self { mut exchange, body, bypass } = *self;
        match read(&exchange, body).await {
            End::Whole(content) => judged(exchange, content, bypass),
            End::TooLarge(body) => {
                exchange.body = Some(body);
                Step::Pass(Box::new(Pass::bypassing(exchange, Bypass::LargeBody, None)))
            }
            End::Refused(failure) => refused(exchange, failure),
        }
    }
}

/// Keyed on its content, if that only reads: else it goes the way of any other request that may change
/// something.
fn judged(mut exchange: Exchange, content: Content, bypass: Option<Bypass>) -> Step {
    exchange.body = Some(RequestBody::whole(content.bytes.clone()));
    if !only_reads(&exchange.asked, &content.bytes) {
        return Step::Pass(Box::new(Pass::bypassing(exchange, Bypass::MayChange, None)));
    }
    let asked = &exchange.asked;
    let key = exchange.key.with_content(&asked.method, &asked.headers, &content.bytes);
    if exchange.report.key.is_some() {
        exchange.report.key = Some(key.clone());
    }
    (exchange.key, exchange.content) = (key, Some(content));
    match bypass {
        Some(why) => Step::Pass(Box::new(Pass::bypassing(exchange, why, None))),
        None => Step::Lookup(Box::new(exchange)),
    }
}

/// QUERY is safe by definition (RFC 10008); POST where the route says so and its content does not speak
/// against it.
pub(super) fn only_reads(asked: &Asked, content: &[u8]) -> bool {
    asked.method != Method::POST || {
        let content_type = asked.headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes());
        let encoded = asked.headers.contains_key(header::CONTENT_ENCODING);
        let one_type = asked.headers.get_all(header::CONTENT_TYPE).iter().count() <= 1;
        one_type && rules::only_reads(content_type, encoded, asked.target.query(), content)
    }
}

fn refused(exchange: Exchange, failure: Failure) -> Step {
    let Exchange { worker, snapshot, report, .. } = exchange;
    Step::Deliver(Box::new(Deliver::refusal(&worker, &snapshot, report, failure)))
}

/// Reads up to the route's bound. A body that is declared larger is not begun with: its client may be
/// waiting to be told to go on (RFC 9110 §10.1.1), which is the origin's to say then.
async fn read(exchange: &Exchange, mut body: Upload) -> End {
    let max = exchange.cache().map_or(0, |cache| cache.max_request_body);
    // In memory of its own: chunks are parts of a connection's read buffer, and would keep all of it.
    let mut read = BytesMut::new();
    let Some(mut held) = exchange.worker.shared.memory.in_flight().try_reserve(0) else {
        return End::TooLarge(RequestBody::other(Beginning::of(read.freeze(), body)));
    };
    let over = Instant::now() + patience(exchange);
    while !body.is_end_stream() {
        if body.size_hint().lower() > max.saturating_sub(read.len() as u64) {
            return End::TooLarge(RequestBody::other(Beginning::of(read.freeze(), body).holding(held)));
        }
        let frame = match timeout_at(over, body.frame()).await {
            Err(_) => return End::Refused(Failure::late_content()),
            Ok(None) => break,
            Ok(Some(Err(error))) => return End::Refused(Failure::content(&error, exchange.max_body())),
            Ok(Some(Ok(frame))) => frame,
        };
        // A trailer section may be discarded (RFC 9110 §6.5.1).
        let Ok(chunk) = frame.into_data() else { continue };
        read.extend_from_slice(&chunk);
        if read.len() as u64 > max || !held.grow(chunk.len() as u64) {
            return End::TooLarge(RequestBody::other(Beginning::of(read.freeze(), body).holding(held)));
        }
    }
    End::Whole(Content { bytes: read.freeze(), held: Arc::new(held) })
}

/// How long a client's body may take in all, as on its way to this request's origin.
pub(super) fn patience(exchange: &Exchange) -> Duration {
    let upstreams = &exchange.snapshot.config.upstreams;
    let upstream = exchange.route().and_then(|route| upstreams.get(route.upstream));
    upstream.map_or(Duration::ZERO, |it| it.timeout.total)
}
