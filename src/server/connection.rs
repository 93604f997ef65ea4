//! One client connection, HTTP/1.1 or HTTP/2 in the clear.
//!
//! Knows how to tell the two apart and the limits of each.
//! Must not know: what is asked on it.
//!
//! Cancellation: when the client goes, hyper drops the requests' futures and bodies, and with them
//! everything that they hold.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::{StatusCode, Version};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::Limits;
use crate::interim::{Answering, Line, Socket};
use crate::proxy::{Client, Host};
use crate::worker::Worker;

use super::answer::{Activity, answer};
use super::stop::Stop;
use super::watched::{Watch, Watched};

/// How an HTTP/2 connection with prior knowledge begins (RFC 9113 §3.4). No HTTP/1 method is `PRI`.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Pause between looks at a connection that has sent only the first bytes of either protocol: the
/// first, and the longest. It grows, so that many who say only `P` cost next to nothing.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// Bytes that one HTTP/2 stream may have waiting for a slow client.
const STREAM_BUFFER: usize = 64 * 1024;

/// Serves a connection to its end.
pub(super) async fn serve(worker: Arc<Worker>, stream: TcpStream, peer: IpAddr, stop: Stop) {
    let limits = worker.shared.snapshot.load().config.limits.clone();
    // Without it small responses wait for the client's delayed acknowledgements.
    let _a_dead_socket_shows_when_read = stream.set_nodelay(true);
    let mut stopping = stop.clone();
    let first = tokio::select! {
        biased;
        first = timeout(limits.header_time, is_http2(&stream)) => first,
        () = stopping.nothing_came() => return,
    };
    match first {
        Ok(Ok(true)) => serve_http2(worker, stream, peer, stop, &limits).await,
        Ok(Ok(false)) => serve_http1(worker, stream, peer, stop, &limits).await,
        // Gone, or silent for too long: nothing was asked, so there is nobody to answer.
        Ok(Err(_)) | Err(_) => {}
    }
}

/// Looks at the first bytes without taking them.
async fn is_http2(stream: &TcpStream) -> std::io::Result<bool> {
    let mut start = [0; PREFACE.len()];
    let mut pause = LOOK_AGAIN.0;
    loop {
        let seen = stream.peek(&mut start).await?;
        let start = start.get(..seen).unwrap_or_default();
        // All of the preface or none: hyper would wait for its rest without a limit.
        if seen == PREFACE.len() || !PREFACE.starts_with(start) || seen == 0 {
            return Ok(start == PREFACE);
        }
        tokio::time::sleep(pause).await;
        pause = pause.saturating_mul(2).min(LOOK_AGAIN.1);
    }
}

async fn serve_http1(worker: Arc<Worker>, stream: TcpStream, peer: IpAddr, mut stop: Stop, limits: &Limits) {
    let activity = Arc::new(Activity::default());
    let turns = Arc::clone(&activity);
    let line = Line::new(&worker.shared.pseudonym, Arc::clone(&worker.shared.interim));
    let watch = Watch::new(limits.head_size);
    let socket = Socket::new(Watched::new(TokioIo::new(stream), watch.clone()), Arc::clone(&line));
    let host = Host::default();
    let guest = host.clone();
    let service = service_fn(move |mut request| {
        guest.offer(&mut request);
        let (worker, watch) = (Arc::clone(&worker), watch.clone());
        let turn = line.open();
        // RFC 9110 §15.2: "a server MUST NOT send a 1xx response to an HTTP/1.0 client".
        let interim = (request.version() == Version::HTTP_11).then(|| turn.interim());
        let client = Client { peer, interim, fault: watch.fault(turn.number()) };
        let answer = answer(worker, client, request, turns.begin()).map(move |response| {
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                watch.stop();
            }
            Ok::<_, Infallible>(response)
        });
        Answering::new(turn, answer)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_buf_size(limits.head_size.max(MIN_BUFFER))
        .max_header_size(limits.head_size)
        .max_headers(limits.fields)
        // So it is by default; interim responses would not be safe with it (`interim/socket.rs`).
        .pipeline_flush(false)
        .serve_connection(socket, service)
        .with_upgrades();
    let mut connection = pin!(connection);
    // A client of HTTP/1 that has nothing under way can be told nothing, and may be about to ask: each
    // answer says that it is the last (`answer`), and only who then asks for nothing is closed.
    let mut stopping = stop.clone();
    let leaving = async {
        let lame_duck = stopping.leaving().await;
        activity.quiet(lame_duck).await;
    };
    let stopped = tokio::select! {
        biased;
        _ = connection.as_mut() => false,
        () = leaving => true,
    };
    if stopped {
        connection.as_mut().graceful_shutdown();
        let _client_errors_are_its_own = connection.await;
    }
    // A tunnel is still this client's connection.
    host.over(stop.deaf()).await;
}

/// hyper's own lower bound of a connection's buffer.
const MIN_BUFFER: usize = 8192;

async fn serve_http2(worker: Arc<Worker>, stream: TcpStream, peer: IpAddr, mut stop: Stop, limits: &Limits) {
    let activity = Arc::new(Activity::default());
    let service = service_fn(move |request| {
        let worker = Arc::clone(&worker);
        // hyper has no way to send an interim response on HTTP/2.
        let client = Client { peer, interim: None, fault: None };
        answer(worker, client, request, activity.begin()).map(Ok::<_, Infallible>)
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.head_size).unwrap_or(u32::MAX))
        .max_send_buf_size(STREAM_BUFFER)
        // A peer that is gone without a word is noticed by its silence.
        .keep_alive_interval(limits.header_time)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let stopped = tokio::select! {
        _ = connection.as_mut() => false,
        _ = stop.leaving() => true,
    };
    if stopped {
        // RFC 9113 §6.8: a first GOAWAY that refuses nothing, and a second, with the last stream, when the
        // client has answered a ping: what it has sent before it heard is answered.
        connection.as_mut().graceful_shutdown();
        let _client_errors_are_its_own = connection.await;
    }
}
