//! An origin whose every byte a test writes, and upstreams to try on it.
//!
//! Knows sockets and how to wait for a condition without sleeping.
//! Must not know: the insides of the pool.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body::{Body, Frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::clock::{Clock, Stepper, Timestamp};
use crate::config;
use crate::telemetry::UpstreamGauges;

use super::{BoxError, ForwardError, Forwarded, RequestBody, Upload, Upstream};
use crate::pace::Pace;

/// A complete, keep-alive answer.
pub const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Fails the test when `what` takes longer than anything here should.
pub async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("done in time")
}

/// Waits until `condition` holds, letting other tasks run.
pub async fn until(mut condition: impl FnMut() -> bool) {
    soon(async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Lets all other tasks do what they have been woken for.
pub async fn rest() {
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}

/// Stops the runtime's time: from now on it passes by `tokio::time::advance` alone.
///
/// Stopped time would jump to the next timer whenever all tasks wait, so one never does. After ten
/// seconds it passes again, for [`soon`] to end a test that hangs.
pub fn stop_time() {
    tokio::time::pause();
    let clock = Clock::system();
    let begun = clock.mono();
    tokio::spawn(async move {
        while clock.mono().since(begun) < Duration::from_secs(10) {
            tokio::task::yield_now().await;
        }
        tokio::time::resume();
    });
}

/// A listener that does nothing by itself.
pub struct Origin {
    listener: TcpListener,
    pub server: config::Server,
}

impl Origin {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("address").port();
        Self { listener, server: config::Server { host: "127.0.0.1".into(), port } }
    }

    /// A server where nobody listens, for as long as the socket is held.
    pub fn absent() -> (config::Server, socket2::Socket) {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bound");
        let port = socket.local_addr().expect("address").as_socket().expect("IP").port();
        (config::Server { host: "127.0.0.1".into(), port }, socket)
    }

    /// A server where connections are neither made nor refused, for as long as the sockets are held: its line is full.
    pub fn hole() -> (config::Server, Vec<socket2::Socket>) {
        let new =
            || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
        let listener = new();
        listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bound");
        listener.listen(0).expect("listening");
        let address = listener.local_addr().expect("address");
        let mut sockets = vec![listener];
        for _ in 0..3 {
            let socket = new();
            socket.set_nonblocking(true).expect("nonblocking");
            let _ = socket.connect(&address);
            sockets.push(socket);
        }
        let port = address.as_socket().expect("IP").port();
        (config::Server { host: "127.0.0.1".into(), port }, sockets)
    }

    /// Connections that have come and not been accepted.
    pub async fn pending(&self) -> usize {
        rest().await;
        let mut count = 0;
        while std::future::poll_fn(|cx| std::task::Poll::Ready(self.listener.poll_accept(cx).is_ready()))
            .await
        {
            count += 1;
        }
        count
    }

    pub async fn accept(&self) -> Peer {
        Peer { stream: soon(self.listener.accept()).await.expect("accepted").0, read: Vec::new() }
    }

    /// Answers every request with [`OK`], for as long as the runtime lives.
    pub fn serve(self) -> config::Server {
        let server = self.server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = self.listener.accept().await {
                tokio::spawn(async move {
                    let mut peer = Peer { stream, read: Vec::new() };
                    while peer.try_head().await.is_some() {
                        let _ = peer.stream.write_all(OK.as_bytes()).await;
                    }
                });
            }
        });
        server
    }
}

/// The origin's end of a connection.
pub struct Peer {
    pub stream: TcpStream,
    read: Vec<u8>,
}

impl Peer {
    /// The next request's head, down to its empty line.
    pub async fn head(&mut self) -> String {
        soon(self.try_head()).await.expect("a request")
    }

    async fn try_head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.read.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = self.read.drain(..at + 4).collect();
                return Some(String::from_utf8(head).expect("text"));
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Option<()> {
        match self.stream.read_buf(&mut self.read).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(()),
        }
    }

    /// The next `count` bytes.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            soon(self.more()).await.expect("bytes");
        }
        self.read.drain(..count).collect()
    }

    pub async fn say(&mut self, words: &str) {
        soon(self.stream.write_all(words.as_bytes())).await.expect("written");
    }

    pub async fn answer(&mut self, words: &str) -> String {
        let head = self.head().await;
        self.say(words).await;
        head
    }

    /// Waits until the other end has closed; gives what it has still sent.
    pub async fn until_closed(&mut self) -> Vec<u8> {
        soon(async { while self.more().await.is_some() {} }).await;
        std::mem::take(&mut self.read)
    }

    /// Closes with a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("linger");
    }
}

/// Generous limits, so that a test narrows only what it is about.
pub fn settings(servers: Vec<config::Server>) -> config::Upstream {
    config::Upstream {
        name: "api".into(),
        servers,
        timeout: config::Timeouts {
            connect: Duration::from_secs(30),
            first_byte: Duration::from_secs(90),
            hedge_after: None,
            total: Duration::from_secs(120),
        },
        pool: config::Pool {
            min_idle: 0,
            max_idle: 8,
            max_connections: 8,
            max_tunnels: 4,
            idle_timeout: Duration::from_secs(60),
            max_age: Duration::from_secs(600),
            queue_timeout: Duration::from_secs(90),
            queue: 8,
        },
    }
}

/// An upstream of one server with `change`d settings, on the system's clock.
pub fn upstream(origin: &Origin, change: impl FnOnce(&mut config::Upstream)) -> Arc<Upstream> {
    let mut cfg = settings(vec![origin.server.clone()]);
    change(&mut cfg);
    Upstream::new(&cfg, Clock::system(), 1)
}

/// An upstream of one server whose clock the test moves.
pub fn stepped(origin: &Origin, change: impl FnOnce(&mut config::Upstream)) -> (Arc<Upstream>, Stepper) {
    let mut cfg = settings(vec![origin.server.clone()]);
    change(&mut cfg);
    let (clock, stepper) = Clock::stepped(Timestamp::from_secs(1_000_000));
    (Upstream::new(&cfg, clock, 1), stepper)
}

pub fn request(method: Method, path: &str, body: RequestBody) -> Request<RequestBody> {
    Request::builder().method(method).uri(path).header("host", "origin.test").body(body).expect("request")
}

pub fn get(path: &str) -> Request<RequestBody> {
    request(Method::GET, path, RequestBody::empty())
}

/// A POST of one known piece.
pub fn post(path: &str, text: &'static str) -> Request<RequestBody> {
    let whole = http_body_util::Full::new(Bytes::from_static(text.as_bytes()));
    let body = http_body_util::BodyExt::map_err(whole, |never| match never {});
    request(Method::POST, path, RequestBody::other(body))
}

/// What [`get`] asks for, to be sent again.
pub fn once_more() -> Request<()> {
    get("/").map(drop)
}

/// Forwards as worker 0, on a task of its own.
pub fn ask(upstream: &Arc<Upstream>, request: Request<RequestBody>) -> JoinHandle<Answer> {
    let upstream = Arc::clone(upstream);
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let headers = request.headers().clone();
    let again = move || {
        let mut again = Request::builder().method(&method).uri(&uri).body(()).expect("request");
        again.headers_mut().clone_from(&headers);
        again
    };
    tokio::spawn(async move { upstream.forward(0, request, &again, None, Duration::ZERO).await })
}

pub type Answer = Result<Forwarded, ForwardError>;

/// The answer of [`ask`].
pub async fn reply(asked: JoinHandle<Answer>) -> Forwarded {
    soon(asked).await.expect("not cancelled").expect("answered")
}

/// The failure of [`ask`].
pub async fn failure(asked: JoinHandle<Answer>) -> ForwardError {
    soon(asked).await.expect("not cancelled").map(|it| it.response.into_parts().0).expect_err("failed")
}

/// The whole body.
pub async fn whole(forwarded: Forwarded) -> Result<Bytes, super::OriginError> {
    let body = forwarded.response.into_body();
    soon(http_body_util::BodyExt::collect(body)).await.map(http_body_util::Collected::to_bytes)
}

/// One exchange that succeeds, to its end.
pub async fn exchange(upstream: &Arc<Upstream>, peer: &mut Peer) {
    let asked = ask(upstream, get("/"));
    peer.answer(OK).await;
    assert_eq!(whole(reply(asked).await).await.expect("complete"), "ok");
}

/// The figures of an upstream's only server.
pub fn gauges(upstream: &Upstream) -> UpstreamGauges {
    upstream.gauges().remove(0)
}

/// What has been wrong with what the upstream's only server sent.
pub fn flaws(upstream: &Upstream) -> Vec<(&'static str, u64)> {
    gauges(upstream).flaws.into_iter().filter(|(_, count)| *count > 0).collect()
}

/// Waits until every connection is closed or idle.
pub async fn until_unused(upstream: &Upstream) {
    until(|| upstream.gauges().iter().all(|g| g.open == g.idle && g.waiting == 0)).await;
}

/// A request body whose frames a test sends one by one.
pub struct Fed(pub mpsc::Receiver<Result<Frame<Bytes>, BoxError>>);

pub struct Feeder(mpsc::Sender<Result<Frame<Bytes>, BoxError>>);

pub fn fed() -> (Feeder, RequestBody) {
    let (feeder, frames) = mpsc::channel(1);
    (Feeder(feeder), RequestBody::other(Fed(frames)))
}

/// The same, held to a pace.
pub fn fed_at(pace: Pace) -> (Feeder, RequestBody) {
    let (feeder, frames) = mpsc::channel(1);
    (Feeder(feeder), RequestBody::other(Upload::new(Fed(frames), pace, u64::MAX)))
}

impl Feeder {
    /// `false` when nobody takes the body any more.
    pub async fn feed(&self, data: &'static [u8]) -> bool {
        soon(self.0.send(Ok(Frame::data(Bytes::from_static(data))))).await.is_ok()
    }

    pub async fn fail(self) {
        let _ = self.0.send(Err("the client left".into())).await;
    }

    /// Waits until the body has been dropped.
    pub async fn until_dropped(&self) {
        soon(self.0.closed()).await;
    }
}

impl Body for Fed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(cx)
    }
}
