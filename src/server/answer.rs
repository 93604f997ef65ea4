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
use std::thread;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body_util::{Either, Full};
use hyper::body::{Body, Incoming};

use crate::interim::Interim;
use crate::proxy::{self, Arrival, Begun, Client, Delivery, Headed};
use crate::worker::{Shared, Worker};

/// What a client is sent after the head.
pub(super) type Content = Either<Delivery, Full<Bytes>>;

impl Headed for Content {
    fn take_begun(&mut self) -> Option<Begun> {
        match self {
            Self::Left(delivery) => delivery.take_begun(),
            Self::Right(_) => None,
        }
    }

    fn is_dated(&self) -> Option<bool> {
        match self {
            Self::Left(delivery) => delivery.is_dated(),
            Self::Right(_) => None,
        }
    }
}

/// Answers a request.
pub(super) async fn answer(
    worker: Arc<Worker>,
    client: Client,
    request: Request<Incoming>,
) -> Response<Content> {
    let (shared, version) = (Arc::clone(&worker.shared), request.version());
    let has_body = !request.body().is_end_stream();
    let answer = AssertUnwindSafe(proxy::handle(worker, client, request)).catch_unwind().await;
    sent(answer, &shared, version, has_body)
}

/// Answers a plain request that has been read and not been answered at once.
pub(super) async fn answer_plain(
    worker: Arc<Worker>,
    arrival: Box<Arrival>,
    interim: Interim,
) -> Response<Content> {
    let shared = Arc::clone(&worker.shared);
    let answer = AssertUnwindSafe(proxy::handle_plain(worker, arrival, Some(interim))).catch_unwind().await;
    sent(answer, &shared, Version::HTTP_11, false)
}

/// An answer as it is sent; one of which nothing has come is that of a bug.
fn sent(
    answer: thread::Result<Response<Delivery>>,
    shared: &Shared,
    version: Version,
    has_body: bool,
) -> Response<Content> {
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
