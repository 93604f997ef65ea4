//! One request's answer as its connection sends it.
//!
//! Knows that a bug in a request is a 500 and not the end of its connection's thread, and that a stopping
//! Larder says so in every answer.
//! Must not know: what is asked.
//!
//! Cancellation: dropped with its connection, whatever it holds is dropped too.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body_util::{Either, Full};
use hyper::body::{Body, Incoming};

use crate::proxy::{self, Client, Delivery};
use crate::worker::Worker;

/// What a client is sent after the head.
pub(super) type Content = Either<Delivery, Full<Bytes>>;

/// Answers a request.
pub(super) async fn answer(
    worker: Arc<Worker>,
    client: Client,
    request: Request<Incoming>,
) -> Response<Content> {
    let (shared, version) = (Arc::clone(&worker.shared), request.version());
    let has_body = !request.body().is_end_stream();
    let answer = AssertUnwindSafe(proxy::handle(worker, client, request)).catch_unwind().await;
    let mut response = match answer {
        Ok(response) => response.map(Either::Left),
        // Its report was dropped in the panic, and has told of it; the hook has told its place.
        Err(_panic) => proxy::bug().map(Either::Right),
    };
    // RFC 9112 §9.6: "A server that does not support persistent connections MUST send the "close"
    // connection option in every response message": one that ends is such a server.
    let stops = shared.draining.load(Ordering::Relaxed);
    // §9.3: what is left of a body that nobody reads any more ends the connection; that has to be said, or
    // the next request is sent into it. Whether anything is left is not known here, and a new connection
    // after an error with a body costs little.
    let cuts = has_body && response.status().as_u16() >= 400;
    let closes =
        version < Version::HTTP_2 && response.status() != StatusCode::SWITCHING_PROTOCOLS && (stops || cuts);
    if closes {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
