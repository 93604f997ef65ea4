//! The admin listener: health, figures, purging, explaining.
//!
//! Knows its own small API and who may use it. It is never on the public listener.
//! Must not know: how requests are served.

mod access;
mod api;
mod explain;
mod fleet;
mod gauges;
mod purge;
mod slow;
mod visitors;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::worker::Worker;

use visitors::{Visit, Visitors};

/// Time for the first byte on a connection: who is on this network and has something to ask does so at once.
const FIRST_BYTE: Duration = Duration::from_secs(2);
/// How many times `limits.admin_time` a connection may last, however busy: a reader that takes nothing would
/// hold its place for ever.
const LIFETIME: u32 = 10;
/// Bytes of a request's head, and fields.
const HEAD: (usize, usize) = (16 * 1024, 64);
/// Pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the admin listener until its task is dropped.
pub async fn serve(worker: Arc<Worker>, listener: &TcpListener) {
    let visitors = Arc::<Visitors>::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let visit = visitors.enter();
                let number = visit.number();
                let task = tokio::spawn(connection(Arc::clone(&worker), stream, visit));
                visitors.note(number, task.abort_handle());
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

async fn connection(worker: Arc<Worker>, stream: TcpStream, visit: Visit) {
    let limit = worker.shared.snapshot.load().config.limits.admin_time;
    let Ok(Ok(1..)) = timeout(FIRST_BYTE.min(limit), stream.peek(&mut [0])).await else { return };
    let visit = Arc::new(visit);
    let service = service_fn(move |request| {
        let (worker, visit) = (Arc::clone(&worker), Arc::clone(&visit));
        async move {
            visit.asks(true);
            let answer = timeout(limit, api::answer(&worker, request)).await;
            visit.asks(false);
            Ok::<_, Infallible>(answer.unwrap_or_else(|_| api::too_slow()))
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limit)
        .max_buf_size(HEAD.0)
        .max_headers(HEAD.1)
        .serve_connection(TokioIo::new(stream), service);
    let _client_errors_are_its_own = timeout(limit.saturating_mul(LIFETIME), serving).await;
}
