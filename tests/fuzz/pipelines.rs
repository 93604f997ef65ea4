//! Requests on a client's connection: that hyper, which reads what the scanner lets pass, takes for a request only
//! what the scanner has taken for one, whatever pieces the bytes come in.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use larder::wire::{Fault, Plain, Requests};

use crate::dice::Dice;

/// The longest head.
const LIMIT: usize = 8192;

const TARGETS: &[&str] =
    &["/", "/a?b", "*", "http://a.test/", "/#x", "/a b", "", "/\u{e9}", "a.test:443", "//"];
const METHODS: &[&str] = &["GET", "POST", "HEAD", "PUT", "OPTIONS", "CONNECT", "PRI", "get", "M-SEARCH", ""];
const VERSIONS: &[&str] =
    &["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.1 ", "http/1.1", "HTTP/2.0", ""];
const ENDS: &[&str] =
    &["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n", "\r\n "];
const FIELDS: &[&str] = &[
    "Host: a.test",
    "Connection: close",
    "Connection: keep-alive",
    "Upgrade: x",
    "Expect: 100-continue",
    "X:",
    "X: \u{e9}",
    "C: d",
    "T: u",
    "content-lengt: 3",
    "content-length : 3",
    "Content-Length: 3, 3",
    "Content-Length: +3",
    "Content-Length: 0",
    "Transfer-Encodin: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: xchunked",
    "Transfer_Encoding: chunked",
    "Trailer: Content-Length",
    ":",
    " X: folded",
    "no colon",
    "\tContent-Length: 9",
];
/// What tears them apart.
const TORN: &[&str] = &[
    "\r",
    "\n",
    "\r\n",
    "\r\n\r\n",
    "\n\n",
    "\0",
    " ",
    "\t",
    ":",
    "GET /in HTTP/1.1\r\n\r\n",
    "3",
    "0\r\n\r\n",
];

/// A message and, often, one that is odd in one place.
fn message(dice: &mut Dice, bytes: &mut Vec<u8>, number: usize) {
    fn odd<'a>(dice: &mut Dice, usual: &'a str, others: &'a [&'a str]) -> &'a str {
        if dice.one_in(12) { others[dice.below(others.len())] } else { usual }
    }
    for _ in 0..if dice.one_in(3) { dice.below(4) } else { 0 } {
        bytes.extend(odd(dice, "\r\n", &["\n", "\r", " \r\n"]).bytes());
    }
    let line = |dice: &mut Dice, bytes: &mut Vec<u8>, text: &str| {
        bytes.extend(text.bytes());
        bytes.extend(if dice.one_in(25) { *dice.pick(ENDS) } else { "\r\n" }.bytes());
    };
    let usual = format!("/{number}");
    let target = odd(dice, &usual, TARGETS).to_owned();
    let (method, version) = (odd(dice, "POST", METHODS), odd(dice, "HTTP/1.1", VERSIONS));
    line(dice, bytes, &format!("{method} {target} {version}"));
    // What a body looks like that is another request.
    let inner =
        ["abc", "GET /in HTTP/1.1\r\n\r\n", "\r\n", "\r\n\r\nGET /in HTTP/1.1\r\n\r\n", "0\r\n\r\n", ""];
    let mut body = dice.pick(&inner).as_bytes().to_vec();
    let framed = dice.below(5);
    let at = dice.below(3);
    for nth in 0..3 {
        if nth == at && framed == 1 {
            let length = if dice.one_in(12) { dice.below(9) } else { body.len() };
            let (zeros, spaces) = if dice.one_in(8) { (dice.below(300), dice.below(300)) } else { (0, 1) };
            let name = *dice.pick(&["Content-Length", "content-length", "CONTENT-LENGTH"]);
            line(dice, bytes, &format!("{name}:{}{}{length}", " ".repeat(spaces), "0".repeat(zeros)));
        } else if nth == at && framed == 2 {
            let spaces = if dice.one_in(8) { dice.below(300) } else { 1 };
            let (before, after) = if dice.one_in(2) { (spaces, 0) } else { (1, spaces) };
            let (name, value) = (
                *dice.pick(&["Transfer-Encoding", "transfer-encoding"]),
                *dice.pick(&["chunked", "Chunked"]),
            );
            line(dice, bytes, &format!("{name}:{}{value}{}", " ".repeat(before), " ".repeat(after)));
        } else if dice.one_in(3) {
            let field = if dice.one_in(6) { *dice.pick(FIELDS) } else { "Cookie: c=d" };
            line(dice, bytes, field);
        } else if dice.one_in(40) {
            let long =
                format!("{}: {}", dice.pick(&["C", "Content-Lengt", "T", "X"]), "x".repeat(dice.below(9000)));
            line(dice, bytes, &long);
        }
    }
    line(dice, bytes, "");
    match framed {
        0 if !dice.one_in(10) => {}
        3 | 4 => {}
        2 => {
            let mut coded = Vec::new();
            while !body.is_empty() {
                let piece = body.drain(..1 + dice.below(body.len())).collect::<Vec<_>>();
                let extension = odd(dice, "", &[";a=b", " ", "\t;x", ";\"\r\n\"", ";\n"]);
                let zeros = if dice.one_in(20) { dice.below(20) } else { 0 };
                line(dice, &mut coded, &format!("{}{:x}{extension}", "0".repeat(zeros), piece.len()));
                coded.extend(piece);
                line(dice, &mut coded, "");
            }
            let last = odd(dice, "0", &["00", "0;x", "", "-0"]);
            line(dice, &mut coded, last);
            while dice.one_in(4) {
                let field = odd(
                    dice,
                    "A: b",
                    &["Content-Length: 5", "no colon", " fold", "A:\u{e9}", ": x", "A: \0"],
                );
                line(dice, &mut coded, field);
            }
            line(dice, &mut coded, "");
            body = coded;
            bytes.extend(body);
        }
        _ => bytes.extend(body),
    }
}

/// A request as somebody has read it: its method and target, and its content if it is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Taken {
    start: String,
    content: Option<Vec<u8>>,
}

/// The starts of the requests that the scanner lets pass, byte by byte, and why the next is refused.
fn scanned(bytes: &[u8], limit: usize) -> (Vec<String>, Option<Fault>) {
    let (mut requests, mut starts) = (Requests::new(limit), Vec::new());
    for (at, byte) in bytes.iter().enumerate() {
        let before = requests.partial();
        requests.watch(std::slice::from_ref(byte));
        if requests.fine() > starts.len() as u64 {
            let head = String::from_utf8_lossy(&bytes[at - before..=at]);
            let words: Vec<&str> =
                head.split("\r\n").next().unwrap().splitn(3, ' ').chain(["", ""]).collect();
            // In the form that hyper gives it.
            let target =
                words[1].parse::<http::Uri>().map_or_else(|_| words[1].to_owned(), |uri| uri.to_string());
            starts.push(format!("{} {target}", words[0]));
        }
    }
    (starts, requests.fault())
}

/// What is plain, scanner and hyper take for the same request, whole.
pub fn plain(dice: &mut Dice) {
    let mut bytes = Vec::new();
    message(dice, &mut bytes, 1);
    if let Some(rest) = bytes.strip_prefix(b"POST ") {
        bytes = [b"GET ", rest].concat();
    }
    if dice.one_in(2) {
        dice.damage(&mut bytes, TORN);
    }
    let Some(plain) = Plain::of(&bytes) else { return };
    let Some(fields) = plain.fields() else { return };
    let frames = |(name, _): &(&[u8], &[u8])| {
        name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"transfer-encoding")
    };
    let target = Bytes::copy_from_slice(plain.target());
    // Who goes that way sees to these.
    if fields.iter().any(frames) || http::uri::PathAndQuery::from_maybe_shared(target.clone()).is_err() {
        return;
    }
    let head = &bytes[..plain.size()];
    let text = String::from_utf8_lossy(head);
    let (starts, fault) = scanned(head, LIMIT);
    assert_eq!((starts.len(), fault), (1, None), "{text:?}");
    let taken = hyper_takes(head, &[head.len()], LIMIT);
    let [(request, true)] = taken.as_slice() else { panic!("{taken:?} of {text:?}") };
    assert_eq!(request.start, format!("GET {}", String::from_utf8_lossy(&target)), "{text:?}");
    assert_eq!(request.content, Some(Vec::new()), "{text:?}");
}

pub fn pipelines(dice: &mut Dice) {
    let mut bytes = Vec::new();
    for number in 0..1 + dice.below(4) {
        message(dice, &mut bytes, number);
    }
    if dice.one_in(2) {
        for _ in 0..=dice.below(2) {
            dice.damage(&mut bytes, TORN);
        }
    }
    let limit = if dice.one_in(4) { 20 + dice.below(200) } else { LIMIT };
    let (starts, fault) = scanned(&bytes, limit);
    let mut cuts = Vec::new();
    let most = *dice.pick(&[1, 3, 9, 40, 400, 20_000]);
    let mut left = bytes.len();
    while left > 0 {
        let piece = (1 + dice.below(most)).min(left);
        cuts.push(piece);
        left -= piece;
    }
    let whole = hyper_takes(&bytes, &[bytes.len()], limit);
    let pieces = hyper_takes(&bytes, &cuts, limit);
    for (how, taken) in [("whole", &whole), ("pieces", &pieces)] {
        for (nth, (request, fine)) in taken.iter().enumerate() {
            if !fine {
                continue;
            }
            // A head that comes whole has no limit of the scanner's: hyper has its own.
            if let Some(start) = starts.get(nth) {
                assert_eq!(*start, request.start, "{how} {cuts:?}: {:?}", String::from_utf8_lossy(&bytes));
            } else {
                assert_eq!(
                    fault,
                    Some(Fault::Lost),
                    "{how} {cuts:?}: {nth} {request:?} {:?}",
                    String::from_utf8_lossy(&bytes)
                );
            }
        }
    }
    for ((one, fine), (other, also)) in whole.iter().zip(&pieces) {
        if *fine && *also {
            assert_eq!(one.start, other.start, "{cuts:?}: {:?}", String::from_utf8_lossy(&bytes));
            if let (Some(one), Some(other)) = (&one.content, &other.content) {
                assert_eq!(one, other, "{cuts:?}: {:?}", String::from_utf8_lossy(&bytes));
            }
        }
    }
    // Nothing is lost by its pieces alone.
    if fault != Some(Fault::Lost) {
        let served = |taken: &[(Taken, bool)]| taken.iter().filter(|(_, fine)| *fine).count();
        assert_eq!(
            served(&whole),
            served(&pieces),
            "{cuts:?}: {fault:?} {:?}",
            String::from_utf8_lossy(&bytes)
        );
    }
}

/// What hyper takes for requests, and whether each may be served.
fn hyper_takes(bytes: &[u8], cuts: &[usize], limit: usize) -> Vec<(Taken, bool)> {
    let scan = Rc::new(RefCell::new(Requests::new(limit)));
    let taken: Rc<RefCell<Vec<(Taken, bool)>>> = Rc::default();
    let tape = Tape {
        bytes: Bytes::copy_from_slice(bytes),
        cuts: cuts.iter().copied().collect(),
        scan: Rc::clone(&scan),
    };
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let nth = taken.borrow().len() as u64 + 1;
        let fine = nth <= scan.borrow().fine();
        let start = format!("{} {}", request.method(), request.uri());
        taken.borrow_mut().push((Taken { start, content: None }, fine));
        let taken = Rc::clone(&taken);
        async move {
            let content = request.into_body().collect().await.ok().map(|body| body.to_bytes().to_vec());
            if let Some((request, _)) = taken.borrow_mut().last_mut() {
                request.content = content;
            }
            Ok::<_, Infallible>(hyper::Response::new(Empty::<Bytes>::new()))
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .header_read_timeout(None)
            .max_buf_size(LIMIT.max(16 * 1024))
            .max_header_size(limit)
            .max_headers(256)
            .pipeline_flush(false)
            .serve_connection(tape, service)
    );
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..bytes.len() + 64 {
        if connection.as_mut().poll(&mut cx).is_ready() {
            break;
        }
    }
    taken.borrow().to_vec()
}

/// A connection on which these bytes come, in these pieces, and then nothing.
struct Tape {
    bytes: Bytes,
    cuts: VecDeque<usize>,
    scan: Rc<RefCell<Requests>>,
}

impl Read for Tape {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.scan.borrow().fault() == Some(Fault::Chunks) {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let Some(cut) = self.cuts.pop_front() else { return Poll::Pending };
        let room = buf.remaining().saturating_sub(2).clamp(1, 32 * 1024);
        let here = cut.min(room);
        if cut > here {
            self.cuts.push_front(cut - here);
        }
        let piece = self.bytes.split_to(here);
        let good = self.scan.borrow_mut().watch(&piece);
        buf.put_slice(&piece[..good]);
        if good < piece.len() && buf.remaining() >= 2 {
            buf.put_slice(b"\r\r");
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for Tape {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
