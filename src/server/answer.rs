//! One request's answer as its connection sends it.
//!
//! Knows that a bug in a request is a 500 and not the end of its connection's thread, that a stopping
//! Larder says so in every answer, and when a connection has nothing to do.
//! Must not know: what is asked.
//!
//! Cancellation: dropped with its connection, whatever it holds is dropped too; [`Activity`] then has
//! nobody who asks it.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use pin_project_lite::pin_project;

use crate::proxy::{self, Client, Delivery};
use crate::worker::Worker;

/// Any error of a body.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long at least a connection is left alone before it is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What a client is sent after the head.
type Content = Either<Delivery, Full<Bytes>>;

pin_project! {
    /// The same, by which its connection knows when it has been sent.
    pub(super) struct Answer {
        #[pin]
        content: Content,
        turn: Turn,
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.project().content.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}

/// Answers a request.
pub(super) async fn answer(
    worker: Arc<Worker>,
    client: Client,
    request: Request<Incoming>,
    turn: Turn,
) -> Response<Answer> {
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
    response.map(|content| Answer { content, turn })
}

/// What goes on on a connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    begun: AtomicU64,
    over: AtomicU64,
}

/// A request and its answer, until the latter has been handed over or is given up.
#[derive(Debug)]
pub(super) struct Turn(Arc<Activity>);

impl Activity {
    /// A request has come.
    pub(super) fn begin(self: &Arc<Self>) -> Turn {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Turn(Arc::clone(self))
    }

    /// Requests begun, where all are over.
    fn idle(&self) -> Option<u64> {
        let begun = self.begun.load(Ordering::Relaxed);
        (begun == self.over.load(Ordering::Relaxed)).then_some(begun)
    }

    /// Returns when nothing has been asked for `quiet`, counted from now on. At once where that is zero,
    /// whatever is under way.
    pub(super) async fn quiet(&self, quiet: Duration) {
        while !quiet.is_zero() {
            let before = self.idle();
            tokio::time::sleep(quiet.max(LOOK_AGAIN)).await;
            // What has come meanwhile is seen by the connection before this is polled again.
            tokio::task::yield_now().await;
            if before.is_some() && before == self.idle() {
                return;
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.over.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_quiet_when_nothing_was_asked_for_so_long_and_all_is_answered() {
        let activity = Arc::new(Activity::default());
        let second = Duration::from_secs(1);
        let is_quiet = async |within| tokio::time::timeout(within, activity.quiet(second)).await.is_ok();
        assert!(is_quiet(second * 2).await);
        let turn = activity.begin();
        assert!(!is_quiet(second * 100).await, "it is being answered");
        activity.quiet(Duration::ZERO).await;
        drop(turn);
        assert!(is_quiet(second * 2).await);
        let asking = async {
            for _ in 0..10 {
                tokio::time::sleep(second / 2).await;
                drop(activity.begin());
            }
        };
        let started = tokio::time::Instant::now();
        tokio::join!(activity.quiet(second), asking);
        assert!(started.elapsed() >= second * 6, "{:?}", started.elapsed());
    }
}
