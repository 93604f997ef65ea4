//! One client connection, HTTP/1.1 or HTTP/2 in the clear.
//!
//! Knows how to tell the two apart, the limits of each, and how each is ended.
//! Must not know: what is asked on it.
//!
//! Cancellation: when the client goes, hyper, or `alone.rs` where there is none, drops the requests' futures and
//! bodies, and with them everything that they hold.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::alone::Alone;
use super::answer::answer;
use super::client::Client;
use super::late::Late;
use super::life::{Due, Life, Watch};
use super::listen::set_for_clients;
use super::short::Short;
use super::stop::Stop;
use super::streams::{Held, Streams};
use super::watched::{Heads, Watch as Scan, Watched};
use crate::config::Limits;
use crate::interim::{Answering, Line, Socket};
use crate::proxy::{self, Host};
use crate::scratch;
use crate::store::PER_CONNECTION;
use crate::telemetry::{Cut, Cuts, HeadRefused};
use crate::worker::Worker;

/// How an HTTP/2 connection with prior knowledge begins (RFC 9113 §3.4). No HTTP/1 method is `PRI`.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes that are read before it is known which protocol it is: a head, mostly.
const FIRST: usize = 4096;
/// hyper's own lower bound of a connection's buffer.
const MIN_BUFFER: usize = 8192;
/// Bytes that one HTTP/2 stream may have waiting for a slow client.
const STREAM_BUFFER: usize = 64 * 1024;
/// Bytes of request bodies that a client of HTTP/2 may send before they are asked for, on all its streams
/// together: what a link of 80 Mbit/s brings in a tenth of a second.
const WINDOW: u32 = 1024 * 1024;
/// HTTP/2 streams that a client may take back before they were looked at; what is more than a page's worth
/// is an attack (CVE-2023-44487), and ends the connection.
const TAKEN_BACK: usize = 20;
/// HTTP/2 streams that we may have to refuse for what is wrong with them, in the life of a connection.
const REFUSED: usize = 128;
/// A peer that is gone without a word is noticed by its silence: how long, and how long after we asked.
const ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// Serves a connection to its end. `place` is held for as long as its socket is open; who looks for one notes
/// it in `life`.
///
/// What is large is made by functions that do not wait: one that does would have what it is given twice, and every
/// connection that is open holds this future.
pub(super) async fn serve(
    worker: Arc<Worker>,
    stream: TcpStream,
    peer: IpAddr,
    mut stop: Stop,
    life: Arc<Life>,
    place: impl Send + Sync + Unpin + 'static,
) {
    if !cfg!(target_os = "linux") {
        set_for_clients(SockRef::from(&stream));
    }
    let Some(first) = begin(&worker, &stream, &life, &stop).await else { return };
    let _room = worker.shared.memory.in_flight().passing(PER_CONNECTION);
    let served = Served { worker: &worker, peer, life: &life };
    if first.is_http2 {
        let (connection, watch) = served.http2(stream, first, place);
        // In boxes: most are of HTTP/1, and this is larger.
        let (mut connection, mut watch) = (Box::pin(connection), Box::new(watch));
        let cuts = &worker.shared.cuts;
        let _client_errors_are_its_own = drive(connection.as_mut(), &life, &mut watch, &mut stop, cuts).await;
        return;
    }
    let (host, mut deaf) = (Host::default(), stop.clone());
    let (connection, mut watch) = served.http1(stream, first, place, host.clone());
    let ended = drive(pin!(connection), &life, &mut watch, &mut stop, &worker.shared.cuts).await;
    if let Some(Err(error)) = ended {
        refused(&worker, peer, &error);
    }
    // A tunnel is still this client's connection.
    host.over(deaf.deaf()).await;
}

/// How a connection begins.
struct First {
    is_http2: bool,
    /// When the first byte came.
    at: Instant,
    /// What has been read of it.
    bytes: Bytes,
}

/// Waits for the first bytes; for nothing where it is gone, or silent for too long, since nothing was asked then and there
/// is nobody to answer, nor where it is to leave before.
async fn begin(worker: &Worker, stream: &TcpStream, life: &Life, stop: &Stop) -> Option<First> {
    let cuts = &worker.shared.cuts;
    let within = {
        let limits = &worker.shared.snapshot.load().config.limits;
        (limits.first_byte_time, limits.header_time)
    };
    let mut stopping = stop.clone();
    tokio::select! {
        biased;
        first = first(stream, within, cuts) => first.ok(),
        () = life.asked_to_leave() => {
            cuts.count(Cut::MadeRoom);
            None
        }
        () = stopping.nothing_came() => None,
    }
}

/// Reads the first bytes: as many as there are, but no further than it takes to see which protocol it is. The first has
/// to come within `byte`, and the rest of a preface within `head`.
///
/// Cancellation: what was read is dropped with the connection.
async fn first(stream: &TcpStream, (byte, head): (Duration, Duration), cuts: &Cuts) -> io::Result<First> {
    let late = |why: Cut| {
        cuts.count(why);
        io::Error::from(io::ErrorKind::TimedOut)
    };
    let first = timeout(byte, read_some(stream));
    let mut bytes = first.await.map_err(|_| late(Cut::FirstByte))??;
    let at = Instant::now();
    // All of the preface or none: hyper would wait for its rest without a limit.
    if PREFACE.starts_with(&bytes) && bytes.len() < PREFACE.len() {
        // In a box: it hardly ever comes to this.
        let rest = Box::pin(timeout(head, read_preface(stream, &bytes)));
        bytes = rest.await.map_err(|_| late(Cut::Head))??;
    }
    Ok(First { is_http2: bytes.starts_with(PREFACE), at, bytes })
}

/// What there is, once there is anything: not nothing, but at the end.
async fn read_some(stream: &TcpStream) -> io::Result<Bytes> {
    loop {
        stream.readable().await?;
        let read = scratch::with_bytes(FIRST, |buf| {
            stream.try_read(buf).map(|read| buf.get(..read).map(Bytes::copy_from_slice))
        });
        match read {
            Ok(bytes) => return Ok(bytes.unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads on after bytes with which the preface of HTTP/2 begins, until it is whole or has turned out to be none. Who ends
/// before has said all that it has.
async fn read_preface(stream: &TcpStream, begun: &[u8]) -> io::Result<Bytes> {
    let mut bytes = begun.to_vec();
    while bytes.len() < PREFACE.len() && PREFACE.starts_with(&bytes) {
        let more = read_some(stream).await?;
        if more.is_empty() {
            break;
        }
        bytes.extend_from_slice(&more);
    }
    Ok(bytes.into())
}

/// A connection of which it is known what it speaks.
#[derive(Clone, Copy)]
struct Served<'a> {
    worker: &'a Arc<Worker>,
    peer: IpAddr,
    life: &'a Arc<Life>,
}

impl Served<'_> {
    /// Its socket, its limits as they are now, and who watches over them.
    fn client<P>(self, stream: TcpStream, first: First, place: P) -> (TokioIo<Client<P>>, Limits, Watch) {
        let Self { worker, life, .. } = self;
        let limits = worker.shared.snapshot.load().config.limits.clone();
        let First { is_http2, at, bytes } = first;
        let watch = Watch::new(Arc::clone(life), &limits, is_http2, at);
        let heads = is_http2.then_some(limits.header_time);
        let room = worker.shared.memory.unsent().clone();
        let client = Client::new(stream, bytes, Arc::clone(life), limits.response, heads, room, place);
        (TokioIo::new(client), limits, watch)
    }

    fn http1<P: Send + Sync + Unpin + 'static>(
        self,
        stream: TcpStream,
        first: First,
        place: P,
        guest: Host,
    ) -> (impl Ending<Output = hyper::Result<()>> + use<P>, Watch) {
        let (client, limits, watch) = self.client(stream, first, place);
        let Self { peer, life, .. } = self;
        let (worker, cuts) = (Arc::clone(self.worker), Arc::clone(&self.worker.shared.cuts));
        let Limits { head_size, fields, requests: all, .. } = limits;
        let scan = Scan::new(head_size);
        let heads = Heads::new(&worker.shared.memory, head_size);
        let short = Short::new(Arc::clone(&worker), peer, Arc::clone(life), all);
        let watched = Watched::new(client, scan.clone(), heads, short);
        let alone = Alone::new(watched, Arc::clone(&worker), Arc::clone(life), Arc::clone(&cuts), all);
        let ends = Arc::clone(life);
        // Most connections ask for plain things alone, and hyper takes more memory than all else.
        let serve = move |mut watched: Watched<TokioIo<Client<P>>>| {
            let line = Line::new(&worker.shared.pseudonym, Arc::clone(&worker.shared.interim));
            watched.share(Arc::clone(&line));
            let socket = Socket::new(watched, Arc::clone(&line));
            let service = service_fn(move |mut request: Request<Incoming>| {
                guest.offer(&mut request);
                let (worker, scan) = (Arc::clone(&worker), scan.clone());
                let (number, mut running) = ends.begin();
                let last = (number >= all).then(|| Arc::clone(&cuts));
                let turn = line.open();
                // RFC 9110 §15.2: "a server MUST NOT send a 1xx response to an HTTP/1.0 client".
                let interim = (request.version() == Version::HTTP_11).then(|| turn.interim());
                let client = proxy::Client { peer, interim, fault: scan.fault(turn.number()) };
                let answer = async move {
                    let mut response = answer(worker, client, request).await;
                    running.answer();
                    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                        scan.stop();
                        running.tunnel();
                    } else if let Some(noted) = last {
                        // RFC 9112 §9.6: told with the last answer, so that no request is lost.
                        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                        noted.count(Cut::Requests);
                    }
                    Ok::<_, Infallible>(response.map(|body| Held::new(body, running)))
                };
                Answering::new(turn, answer)
            });
            http1::Builder::new()
                // The watch has a limit for heads, which is not that of idle connections as hyper's is.
                .header_read_timeout(None)
                .max_buf_size(head_size.max(MIN_BUFFER))
                .max_header_size(head_size)
                .max_headers(fields)
                // So it is by default; interim responses would not be safe with it (`interim/socket.rs`).
                .pipeline_flush(false)
                .serve_connection(socket, service)
                .with_upgrades()
        };
        (Late::new(alone, serve), watch)
    }

    fn http2<P: Send + Sync + Unpin + 'static>(
        self,
        stream: TcpStream,
        first: First,
        place: P,
    ) -> (impl Ending<Output = hyper::Result<()>> + use<P>, Watch) {
        let (client, limits, watch) = self.client(stream, first, place);
        let (worker, peer) = (Arc::clone(self.worker), self.peer);
        let streams = Streams::new(Arc::clone(&worker.shared.cuts));
        let (making, begins, pace) = (streams.clone(), Arc::clone(self.life), limits.response);
        let service = service_fn(move |request: Request<Incoming>| {
            let worker = Arc::clone(&worker);
            let (_, mut running) = begins.begin();
            let flow = making.begin();
            async move {
                // hyper has no way to send an interim response on HTTP/2.
                let client = proxy::Client { peer, interim: None, fault: None };
                let response = answer(worker, client, request).await;
                running.answer();
                Ok::<_, Infallible>(response.map(|body| Held::on_stream(body, running, flow, pace)))
            }
        });
        let connection = http2::Builder::new(streams)
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            // Of h2's own, which answers more than this with a 431 and four times as much with an end.
            .max_header_list_size(u32::try_from(limits.head_size).unwrap_or(u32::MAX))
            .max_send_buf_size(STREAM_BUFFER)
            // One upload that its origin does not read leaves room for others on the connection.
            .initial_stream_window_size(WINDOW / 4)
            .initial_connection_window_size(WINDOW)
            .max_pending_accept_reset_streams(TAKEN_BACK)
            .max_local_error_reset_streams(REFUSED)
            .keep_alive_interval(ALIVE.0)
            .keep_alive_timeout(ALIVE.1)
            .serve_connection(client, service);
        (connection, watch.at_most(limits.requests))
    }
}

/// What hyper has refused to take for a request is told here: nobody else has seen it. Other errors are the client's
/// own, or have been met by a request.
fn refused(worker: &Worker, peer: IpAddr, error: &hyper::Error) {
    let why = match error.is_parse_too_large() {
        true => HeadRefused::TooLong,
        false if error.is_parse() => HeadRefused::Malformed,
        false => return,
    };
    worker.shared.heads.refused(why, peer, &error.to_string(), worker.mono());
}

/// A connection that can be asked to end: what is being answered is, nothing new is taken.
pub(super) trait Ending: Future {
    fn end(self: Pin<&mut Self>);
}

impl<I, S, B> Ending for http1::UpgradeableConnection<I, S>
where
    Self: Future,
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S, B, E> Ending for http2::Connection<I, S, E>
where
    Self: Future,
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: hyper::rt::bounds::Http2ServerConnExec<S::Future, B>,
{
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Drives a connection until it ends, Larder stops, or one of its limits is reached.
/// What it has ended with, if that was hyper's word.
async fn drive<C: Ending>(
    mut connection: Pin<&mut C>,
    life: &Life,
    watch: &mut Watch,
    stop: &mut Stop,
    cuts: &Cuts,
) -> Option<C::Output> {
    let mut stopped = false;
    loop {
        // The watch comes last: it looks at what the connection has done.
        let due = tokio::select! {
            biased;
            ended = connection.as_mut() => {
                // Where it was upgraded, its socket lives on, and is nobody's to throw anything away of.
                life.hush();
                return Some(ended);
            }
            lame_duck = stop.leaving(), if !stopped => {
                stopped = true;
                if watch.is_http2() {
                    // RFC 9113 §6.8: a first GOAWAY that refuses nothing, and a second, with the last stream,
                    // when the client has answered a ping: what it has sent before it heard is answered.
                    ask_to_end(&mut connection, watch);
                } else {
                    // A client of HTTP/1 that has nothing under way can be told nothing, and may be about to
                    // ask: each answer says that it is the last (`answer`), and only who then asks for
                    // nothing is closed.
                    watch.leave(lame_duck);
                }
                continue;
            }
            due = std::future::poll_fn(|cx| watch.poll_due(cx)) => due,
        };
        if let Some(why) = cut(due).filter(|_| !watch.is_leaving()) {
            cuts.count(why);
        }
        match due {
            // On HTTP/2 there is no answer to nothing: RFC 9113 §6.8 has GOAWAY for it.
            Due::Head if watch.is_http2() => ask_to_end(&mut connection, watch),
            Due::Requests => ask_to_end(&mut connection, watch),
            // Its place is another's already. Who has been active just now may still be at reading.
            Due::MadeRoom if !life.is_running() && !life.is_stalled() && watch.is_long_over() => {
                life.hush();
                ask_to_end(&mut connection, watch);
                return said(connection).await;
            }
            Due::Idle | Due::MadeRoom => {
                if !life.is_running() {
                    life.hush();
                }
                ask_to_end(&mut connection, watch);
            }
            // Whatever hyper still has to write goes first; where there is such, nothing can be said.
            Due::Head if !life.is_stalled() => {
                life.be_late();
                return said(connection).await;
            }
            Due::Stalled => {
                life.break_off();
                return None;
            }
            // No frame but its next may come, so nothing that is waited for can: GOAWAY, and closed.
            Due::Broken => {
                ask_to_end(&mut connection, watch);
                return said(connection).await;
            }
            // It was waiting for its client to close, and may know why.
            Due::Parted => {
                life.hush();
                return said(connection).await;
            }
            Due::Head | Due::Flooded => return None,
        }
    }
}

fn ask_to_end<C: Ending>(connection: &mut Pin<&mut C>, watch: &mut Watch) {
    watch.end();
    connection.as_mut().end();
}

/// Drives a connection once more, so that what it has to say now is said.
async fn said<C: Future>(mut connection: Pin<&mut C>) -> Option<C::Output> {
    std::future::poll_fn(|cx| match connection.as_mut().poll(cx) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

fn cut(due: Due) -> Option<Cut> {
    match due {
        Due::Head | Due::Broken => Some(Cut::Head),
        Due::Idle => Some(Cut::Idle),
        Due::Stalled => Some(Cut::SlowReader),
        Due::Flooded => Some(Cut::TakenBack),
        Due::Requests => Some(Cut::Requests),
        Due::MadeRoom => Some(Cut::MadeRoom),
        Due::Parted => None,
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use tokio::time::advance;

    use super::super::stop::Phase;
    use super::*;
    use crate::config::Config;

    /// A connection that does not end by itself, like one of HTTP/2 whose client answers no ping.
    struct Deaf {
        asked: bool,
    }

    impl Future for Deaf {
        type Output = Result<(), hyper::Error>;

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
            Poll::Pending
        }
    }

    impl Ending for Deaf {
        fn end(mut self: Pin<&mut Self>) {
            self.asked = true;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_made_room_is_closed_at_once_and_has_a_moment_only_where_something_moved_just_now() {
        let text = "[upstream.a]\nservers = [\"http://h\"]\n[[route]]\nname = \"r\"\nupstream = \"a\"\nmatch = { path = \"/*\" }";
        let limits = Config::parse(text, "test", &|_| None).unwrap().limits;
        for (unused, closed_after) in [(3, 0), (0, 2)] {
            let life = Life::new(Instant::now());
            let (_serving, stop) = tokio::sync::watch::channel(Phase::Serving);
            let watch = Watch::new(Arc::clone(&life), &limits, true, Instant::now());
            advance(Duration::from_secs(unused)).await;
            assert!(life.make_room());
            let begun = Instant::now();
            let mut connection = pin!(Deaf { asked: false });
            let (mut watch, mut stop) = (watch, Stop(stop));
            let ended = drive(connection.as_mut(), &life, &mut watch, &mut stop, &Cuts::default()).await;
            assert!(ended.is_none());
            assert!(connection.asked, "it is told");
            assert_eq!(begun.elapsed().as_secs(), closed_after);
        }
    }
}
