//! hyper's own server over a [`Socket`] on a stream that takes and gives bytes as it pleases: whatever
//! it does, what arrives is hyper's stream with whole interim heads between its messages.
//!
//! Must not know: origins, or how heads come to the line in earnest.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;

/// A stream that goes by two plans, each a turn of numbers: 0 is "not now", another is how many bytes
/// at most, in units of `unit`.
struct Stream {
    input: VecDeque<u8>,
    reads: Plan,
    writes: Plan,
    vectored: bool,
    output: Arc<Mutex<Vec<u8>>>,
}

struct Plan {
    steps: Vec<u8>,
    at: usize,
    unit: usize,
}

impl Plan {
    fn new(steps: &[u8], unit: usize) -> Self {
        Self { steps: steps.to_vec(), at: 0, unit }
    }

    /// How many bytes may pass now.
    fn next(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        let step = self.steps[self.at % self.steps.len()];
        self.at += 1;
        if step == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(usize::from(step) * self.unit)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.input.is_empty() {
            return Poll::Pending;
        }
        let most = std::task::ready!(self.reads.next(cx)).min(buf.remaining()).min(self.input.len());
        let bytes: Vec<u8> = self.input.drain(..most).collect();
        buf.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl Write for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let most = std::task::ready!(self.writes.next(cx));
        let all: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).take(most).collect();
        self.output.lock().extend_from_slice(&all);
        Poll::Ready(Ok(all.len()))
    }

    fn is_write_vectored(&self) -> bool {
        self.vectored
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// One request of a connection and how it is answered.
#[derive(Clone, Debug)]
struct Ask {
    body: Reading,
    request_bytes: usize,
    /// For each moment at which the future waits: how many interim heads come in it.
    moments: Vec<u8>,
    /// Chunks of the response; `None`: as one piece of known length.
    chunks: Option<Vec<u16>>,
    length: u16,
}

/// What becomes of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// There is none.
    None,
    /// It is read before the answer.
    First,
    /// The same, and the client waits to be told to send it.
    Expect,
    /// It is read while the answer is written, and perhaps long after.
    Beside,
}

/// The bytes of a response, frame by frame.
struct Frames(VecDeque<Bytes>, bool);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self.1 {
            true => http_body::SizeHint::with_exact(self.0.iter().map(|it| it.len() as u64).sum()),
            false => http_body::SizeHint::default(),
        }
    }
}

fn hint(of: usize) -> HeaderMap {
    HeaderMap::from_iter([("x-of".parse().unwrap(), HeaderValue::from(of))])
}

fn hint_bytes(of: usize) -> Vec<u8> {
    format!("HTTP/1.1 103 Early Hints\r\nx-of: {of}\r\nvia: 1.1 us\r\n\r\n").into_bytes()
}

fn request_bytes(asks: &[Ask]) -> VecDeque<u8> {
    let mut bytes = Vec::new();
    for (number, ask) in asks.iter().enumerate() {
        let last = if number + 1 == asks.len() { "Connection: close\r\n" } else { "" };
        let expect = if ask.body == Reading::Expect { "Expect: 100-continue\r\n" } else { "" };
        let head = match ask.body {
            Reading::None => format!("GET /{number} HTTP/1.1\r\nHost: a\r\n{last}\r\n"),
            _ => format!(
                "POST /{number} HTTP/1.1\r\nHost: a\r\n{expect}Content-Length: {}\r\n{last}\r\n",
                ask.request_bytes
            ),
        };
        bytes.extend_from_slice(head.as_bytes());
        if ask.body != Reading::None {
            bytes.resize(bytes.len() + ask.request_bytes, b'q');
        }
    }
    bytes.into()
}

/// Lets everything else run once.
async fn moment() {
    tokio::task::yield_now().await;
}

/// What one connection's requests share.
#[derive(Clone)]
struct Shared {
    asks: Arc<[Ask]>,
    /// Whether heads are sent at all.
    hints: bool,
    sent: Arc<Mutex<u64>>,
    /// The ways to requests that are over.
    over: Arc<Mutex<Vec<Interim>>>,
}

impl Shared {
    fn pass(&self, interim: &Interim, of: usize) {
        if self.hints {
            *self.sent.lock() += 1;
            interim.pass(StatusCode::EARLY_HINTS, &hint(of));
        }
    }

    async fn talk(&self, moments: &[u8], interim: &Interim, number: usize) {
        for heads in moments {
            for _ in 0..*heads {
                self.pass(interim, number);
            }
            for over in self.over.lock().iter() {
                self.pass(over, LATE);
            }
            moment().await;
        }
    }

    async fn answer(
        self,
        request: Request<Incoming>,
        interim: Interim,
    ) -> Result<Response<Frames>, Infallible> {
        let number: usize = request.uri().path().trim_start_matches('/').parse().unwrap();
        let ask = self.asks[number].clone();
        let read = async |body: Incoming| body.collect().await.unwrap().to_bytes().len();
        match ask.body {
            Reading::None => self.talk(&ask.moments, &interim, number).await,
            Reading::First | Reading::Expect => {
                let talk = self.talk(&ask.moments, &interim, number);
                let (length, ()) = tokio::join!(read(request.into_body()), talk);
                assert_eq!(length, ask.request_bytes);
            }
            Reading::Beside => {
                tokio::spawn(read(request.into_body()));
                self.talk(&ask.moments, &interim, number).await;
            }
        }
        self.over.lock().push(interim.clone());
        tokio::spawn(async move {
            moment().await;
            self.pass(&interim, LATE);
        });
        let piece = |length: u16| Bytes::from(vec![b'r'; usize::from(length)]);
        let body = match &ask.chunks {
            Some(chunks) => Frames(chunks.iter().copied().map(piece).collect(), false),
            None => Frames([piece(ask.length)].into(), true),
        };
        Ok(Response::builder().header("x-final", number).body(body).unwrap())
    }
}

/// What a head that comes too late says it is of.
const LATE: usize = 999;

/// Serves `asks`; gives what the client got, the heads that were sent, and what became of them.
fn serve(
    asks: &[Ask],
    hints: bool,
    reads: Plan,
    writes: Plan,
    vectored: bool,
) -> (Vec<u8>, u64, Arc<Counts>) {
    let counts = Arc::<Counts>::default();
    let line = Line::new("us", Arc::clone(&counts));
    let output = Arc::<Mutex<Vec<u8>>>::default();
    let stream = Stream { input: request_bytes(asks), reads, writes, vectored, output: Arc::clone(&output) };
    let shared = Shared { asks: asks.into(), hints, sent: Arc::default(), over: Arc::default() };
    let sent = Arc::clone(&shared.sent);
    let socket = Socket::new(stream, Arc::clone(&line));
    let service = service_fn(move |request| {
        let turn = line.open();
        let answer = shared.clone().answer(request, turn.interim());
        Answering::new(turn, answer)
    });
    // With the time stopped, a connection that hangs shows at once.
    let builder = &mut tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let connection = http1::Builder::new().auto_date_header(false).serve_connection(socket, service);
        tokio::time::timeout(Duration::from_secs(10), connection).await.expect("it hangs").unwrap();
        // Those who speak too late have their turn.
        for _ in 0..4 {
            moment().await;
        }
    });
    let (output, sent) = (output.lock().clone(), *sent.lock());
    (output, sent, counts)
}

/// Where in hyper's own stream each message begins: whose final response, or a 100 of its request.
fn boundaries(stream: &[u8], asks: &[Ask]) -> Vec<(usize, usize)> {
    let find = |what: &str, from: usize| {
        let at = stream[from..].windows(what.len()).position(|it| it == what.as_bytes());
        from + at.unwrap_or_else(|| panic!("no {what:?} in {}", String::from_utf8_lossy(stream)))
    };
    let mut found = Vec::new();
    let mut from = 0;
    for (number, ask) in asks.iter().enumerate() {
        if ask.body == Reading::Expect {
            from = find("HTTP/1.1 100 Continue\r\n\r\n", from);
            found.push((from, number));
        }
        from = find(&format!("HTTP/1.1 200 OK\r\nx-final: {number}\r\n"), from);
        found.push((from, number));
    }
    found
}

/// Takes the interim heads out of what a client got: hyper's stream, and where in it each stood.
fn without_hints(output: &[u8], asks: usize) -> (Vec<u8>, Vec<(usize, usize)>) {
    let (mut rest, mut plain, mut hints) = (output, Vec::new(), Vec::new());
    while !rest.is_empty() {
        match (0..asks).chain([LATE]).find(|of| rest.starts_with(&hint_bytes(*of))) {
            Some(of) => {
                hints.push((plain.len(), of));
                rest = &rest[hint_bytes(of).len()..];
            }
            None => {
                plain.push(rest[0]);
                rest = &rest[1..];
            }
        }
    }
    (plain, hints)
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let body = prop_oneof![
        2 => Just(Reading::None),
        2 => Just(Reading::First),
        2 => Just(Reading::Expect),
        3 => Just(Reading::Beside),
    ];
    let chunks = prop::option::of(prop::collection::vec(1_u16..600, 0..4));
    let moments = prop::collection::vec(0_u8..3, 0..5);
    let ask = (body, 1_usize..400, moments, chunks, 0_u16..600).prop_map(
        |(body, request_bytes, moments, chunks, length)| Ask { body, request_bytes, moments, chunks, length },
    );
    prop::collection::vec(ask, 1..6).prop_map(|mut asks| {
        // After the last one hyper closes, which it does whether or not its body has come.
        if let Some(last) = asks.last_mut() {
            last.body = Reading::None;
        }
        asks
    })
}

fn plan(unit: usize) -> impl Strategy<Value = (Vec<u8>, usize)> {
    // At least one step that is not "not now".
    (prop::collection::vec(0_u8..6, 0..24), 1_u8..6, 1..=unit).prop_map(|(mut steps, last, unit)| {
        steps.push(last);
        (steps, unit)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_arrives_is_hypers_stream_with_whole_heads_between_its_messages(
        asks in asks(),
        reads in plan(80),
        writes in plan(80),
        vectored in any::<bool>(),
    ) {
        let open = || Plan::new(&[255], 1 << 20);
        let (reference, _, _) = serve(&asks, false, open(), open(), vectored);
        let boundaries = boundaries(&reference, &asks);
        let plans = (Plan::new(&reads.0, reads.1), Plan::new(&writes.0, writes.1));
        let (output, sent, counts) = serve(&asks, true, plans.0, plans.1, vectored);
        let (plain, hints) = without_hints(&output, asks.len());
        prop_assert_eq!(String::from_utf8(plain).unwrap(), String::from_utf8(reference).unwrap());
        for hint in &hints {
            prop_assert!(boundaries.contains(hint), "{hint:?} is none of {boundaries:?}");
        }
        prop_assert_eq!(hints.len() as u64, counts.passed());
        prop_assert_eq!(counts.passed() + counts.dropped(), sent);
    }
}

fn get(moments: &[u8]) -> Ask {
    let moments = moments.to_vec();
    Ask { body: Reading::None, request_bytes: 0, moments, chunks: None, length: 100 }
}

#[test]
fn a_client_that_reads_gets_every_head_before_its_response() {
    for vectored in [true, false] {
        let asks = [get(&[1, 2, 0, 1]), get(&[0]), get(&[3])];
        let open = || Plan::new(&[255], 1 << 20);
        let (output, _, counts) = serve(&asks, true, open(), open(), vectored);
        let (plain, hints) = without_hints(&output, asks.len());
        let of: Vec<usize> = hints.iter().map(|(_, of)| *of).collect();
        assert_eq!(of, [0, 0, 0, 0, 2, 2, 2]);
        let boundaries = boundaries(&plain, &asks);
        assert!(hints.iter().all(|hint| boundaries.contains(hint)));
        assert_eq!(counts.passed(), 7);
    }
}

#[test]
fn a_client_that_does_not_read_loses_heads_and_nothing_else() {
    let asks = [get(&[1; 12])];
    let mut stuck = vec![0; 40];
    stuck.push(255);
    let (output, sent, counts) = serve(&asks, true, Plan::new(&[255], 1 << 20), Plan::new(&stuck, 7), true);
    let (plain, hints) = without_hints(&output, 1);
    assert!(plain.starts_with(b"HTTP/1.1 200 OK\r\nx-final: 0\r\n") && plain.ends_with(&[b'r'; 100]));
    // The first one waits in the socket to its last byte; those after it are dropped.
    assert_eq!((hints.as_slice(), counts.passed()), (&[(0, 0)][..], 1));
    assert_eq!(counts.dropped(), sent - 1);
}

fn line() -> (Arc<Line>, Arc<Counts>) {
    let counts = Arc::<Counts>::default();
    (Line::new("us", Arc::clone(&counts)), counts)
}

#[test]
fn heads_are_bounded_in_number_and_size() {
    let (line, counts) = line();
    let turn = line.open();
    let interim = turn.interim();
    for _ in 0..1000 {
        interim.pass(StatusCode::PROCESSING, &HeaderMap::new());
        turn.collect(None);
        line.take();
        line.written();
    }
    assert_eq!((counts.passed(), counts.dropped()), (16, 984));
    drop(turn);
    let turn = line.open();
    let large = HeaderMap::from_iter([("x".parse().unwrap(), "y".repeat(9000).parse().unwrap())]);
    for _ in 0..3 {
        turn.interim().pass(StatusCode::EARLY_HINTS, &large);
    }
    turn.collect(None);
    assert!(line.take().len() < 16 * 1024, "two of them are more than may wait");
    assert_eq!((counts.passed(), counts.dropped()), (17, 986));
}

#[test]
fn only_what_is_interim_for_clients_is_passed() {
    let (line, counts) = line();
    let turn = line.open();
    for status in [100, 101, 200, 304] {
        turn.interim().pass(StatusCode::from_u16(status).unwrap(), &HeaderMap::new());
    }
    turn.collect(None);
    assert!(!line.waits() && line.take().is_empty());
    for status in [102, 103, 104, 199] {
        turn.interim().pass(StatusCode::from_u16(status).unwrap(), &HeaderMap::new());
    }
    turn.collect(None);
    assert_eq!(counts.passed(), 4);
}

#[test]
fn a_head_for_a_request_that_is_over_reaches_no_other() {
    let (line, counts) = line();
    let first = line.open();
    let of_first = first.interim();
    // Come, and not collected when the request is over.
    of_first.pass(StatusCode::EARLY_HINTS, &hint(1));
    drop(first);
    of_first.pass(StatusCode::EARLY_HINTS, &hint(1));
    let second = line.open();
    of_first.pass(StatusCode::EARLY_HINTS, &hint(1));
    second.collect(None);
    assert!(!line.waits() && line.take().is_empty());
    assert_eq!((counts.passed(), counts.dropped()), (0, 3));
}

#[test]
fn in_the_middle_of_a_message_heads_are_dropped() {
    let (line, counts) = line();
    let turn = line.open();
    line.begun();
    turn.interim().pass(StatusCode::EARLY_HINTS, &hint(1));
    turn.collect(None);
    assert!(!line.waits());
    assert!(line.ended(), "the request has waited");
    turn.interim().pass(StatusCode::EARLY_HINTS, &hint(2));
    turn.collect(None);
    assert_eq!((line.waits(), line.take()), (true, hint_bytes(2).into()));
    assert_eq!((counts.passed(), counts.dropped()), (1, 1));
}

#[test]
fn a_line_keeps_no_task_alive() {
    struct Woken;
    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {}
    }
    let (line, _) = line();
    let turn = line.open();
    let task = Arc::new(Woken);
    turn.collect(Some(&Arc::clone(&task).into()));
    assert_eq!(Arc::strong_count(&task), 2);
    drop(turn);
    assert_eq!(Arc::strong_count(&task), 1);
}
