//! The admin listener: health, figures, purging, explaining, and a page that shows it all.
//!
//! Knows its own small API and who may use it. It is never on the public listener.
//! Must not know: how requests are served.

mod access;
mod api;
mod dashboard;
mod explain;
mod fleet;
mod gauges;
mod purge;
mod slow;
mod visitors;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::worker::Worker;

use dashboard::Streams;
use visitors::{Visit, Visitors};

/// A field of all that is answered here, by which a client knows that it asks no other listener, nor anything behind one.
pub const NAMES_ITSELF: HeaderName = HeaderName::from_static("larder-admin");
/// Time for the first byte on a connection: who is on this network and has something to ask does so at once.
const FIRST_BYTE: Duration = Duration::from_secs(2);
/// How many times `limits.admin_time` a connection may last, however busy: a reader that takes nothing would
/// hold its place for ever.
const LIFETIME: u32 = 10;
/// Bytes of a request's head, and fields.
const HEAD: (usize, usize) = (16 * 1024, 64);
/// Bytes that the system may hold for one connection.
const SEND_BUFFER: usize = 64 * 1024;
/// Pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time between two events for who looks on.
const EVERY: Duration = Duration::from_secs(1);

/// The admin listener's own state.
pub struct Admin {
    worker: Arc<Worker>,
    visitors: Arc<Visitors>,
    streams: Streams,
}

impl Admin {
    /// One that nobody is connected to yet.
    pub fn new(worker: Arc<Worker>) -> Arc<Self> {
        let (visitors, streams) = Default::default();
        Arc::new(Self { worker, visitors, streams })
    }

    /// Serves the admin listener until its task is dropped.
    pub async fn serve(self: Arc<Self>, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let visit = self.visitors.enter();
                    let number = visit.number();
                    let task = tokio::spawn(connection(Arc::clone(&self), stream, visit));
                    self.visitors.note(number, task.abort_handle());
                    // Who has come has its turn before those who come next could have it leave.
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an admin connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Tells who looks on how things are, each second. Never returns.
    pub async fn tell(self: Arc<Self>) {
        let mut second = interval(EVERY);
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            second.tick().await;
            if self.streams.is_watched() {
                self.streams.tell(dashboard::event(&self.worker, false), &self.visitors);
            }
        }
    }

    /// Tells who looks on that it is over, and waits until they have gone, for `limit` at most.
    pub async fn end(&self, limit: Duration) {
        self.streams.end(limit).await;
    }
}

async fn connection(admin: Arc<Admin>, stream: TcpStream, visit: Visit) {
    let limit = admin.worker.shared.snapshot.load().config.limits.admin_time;
    let lifetime = limit.saturating_mul(LIFETIME);
    // What lasts ends a little before the connection is cut.
    let visit = Arc::new(visit.until(Instant::now() + lifetime.saturating_sub(limit / 2)));
    let Ok(Ok(1..)) = timeout(FIRST_BYTE.min(limit), stream.peek(&mut [0])).await else { return };
    // Else the system would gather megabytes for who does not read.
    let _as_it_is = socket2::SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER);
    let service = service_fn(move |request| {
        let (admin, visit) = (Arc::clone(&admin), Arc::clone(&visit));
        async move {
            visit.asks(true);
            let answer = timeout(limit, api::answer(&admin, &visit, request)).await;
            visit.asks(false);
            let mut answer = answer.unwrap_or_else(|_| api::too_slow());
            answer.headers_mut().insert(NAMES_ITSELF, HeaderValue::from_static("1"));
            Ok::<_, Infallible>(answer)
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limit)
        .max_buf_size(HEAD.0)
        .max_headers(HEAD.1)
        .serve_connection(TokioIo::new(stream), service);
    let _client_errors_are_its_own = timeout(lifetime, serving).await;
}
