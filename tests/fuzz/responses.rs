//! Responses on an origin's connection: where they end, whatever pieces they come in, and that hyper, which
//! reads the same bytes, sees no other messages.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::Body;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::rt::{Read, ReadBufCursor, Write};
use larder::wire::{Asked, Flaw, Limits, ResponseScanner};

use crate::dice::Dice;

const LIMITS: Limits = Limits { section: 64 * 1024, fields: 256, interims: 64 };

/// What responses are made of, and what tears them apart.
const WORDS: &[&str] = &[
    "\r\n",
    "\r",
    "\n",
    "\r\n\r\n",
    "\n\n",
    " ",
    "\t",
    ":",
    ";",
    ",",
    "0",
    "1",
    "5",
    "a",
    "F",
    "\0",
    "x: y\r\n",
    "0\r\n\r\n",
    "5\r\nhello\r\n",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.0 200\r\n",
    "HTTP/1.1 204 No Content\r\n",
    "HTTP/1.1 304 Not Modified\r\n",
    "HTTP/1.1 101 Switching Protocols\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "content-length:05\r\n",
    "Content-Length: 5, 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "transfer-encoding: identity\r\n",
    "Connection: close\r\n",
    "hello",
    "-1",
    "18446744073709551615",
    "\u{e9}",
];

/// A response that its maker knows the end of.
struct Made {
    asked: Asked,
    bytes: Vec<u8>,
    content: usize,
}

fn make(dice: &mut Dice) -> Made {
    let asked = *dice.pick(&[Asked::Other, Asked::Other, Asked::Head, Asked::Upgrade]);
    let mut bytes = Vec::new();
    for _ in 0..dice.below(3) {
        bytes.extend_from_slice(
            dice.pick(&["HTTP/1.1 103 Early\r\nlink: </a>\r\n\r\n", "HTTP/1.1 100 \r\n\r\n"]).as_bytes(),
        );
    }
    let status = *dice.pick(&["200 OK", "404", "204 ", "304 Not Modified", "500 a b", "999 x"]);
    bytes.extend_from_slice(format!("HTTP/1.1 {status}\r\n").as_bytes());
    let empty = asked == Asked::Head || status.starts_with("304");
    for _ in 0..dice.below(4) {
        bytes.extend_from_slice(dice.pick(&["x: y\r\n", "X-Empty:\r\n", "Via:\t1.1 a, b \r\n"]).as_bytes());
    }
    let size = dice.below(40);
    if status == "204 " {
        bytes.extend_from_slice(b"\r\n");
        return Made { asked, bytes, content: 0 };
    }
    let chunked = dice.one_in(2);
    let framing = if chunked {
        "Transfer-Encoding: Chunked\r\n".to_owned()
    } else {
        format!("content-length: {size:03}\r\n")
    };
    bytes.extend_from_slice(framing.as_bytes());
    bytes.extend_from_slice(b"\r\n");
    if empty {
        return Made { asked, bytes, content: 0 };
    }
    let content: Vec<u8> = (0..size).map(|_| dice.next() as u8).collect();
    if !chunked {
        bytes.extend_from_slice(&content);
        return Made { asked, bytes, content: size };
    }
    let mut rest = &content[..];
    while !rest.is_empty() {
        let (chunk, later) = rest.split_at(1 + dice.below(rest.len()));
        let extension = dice.pick(&["", ";a", " ; b=c", ";d=\"e\""]);
        bytes.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
        rest = later;
    }
    bytes.extend_from_slice(dice.pick(&["0\r\n\r\n", "000;x\r\nsum: 1\r\n\r\n"]).as_bytes());
    Made { asked, bytes, content: size }
}

/// Feeds bytes at once, of which none may be left out.
fn all(scanner: &mut ResponseScanner, bytes: &[u8]) -> Result<(), Flaw> {
    if scanner.read(bytes)? == bytes.len() { Ok(()) } else { Err(Flaw::Unasked) }
}

/// Feeds bytes in pieces of any length.
fn feed(scanner: &mut ResponseScanner, mut bytes: &[u8], dice: &mut Dice) -> Result<(), Flaw> {
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(1 + dice.below(bytes.len()));
        all(scanner, piece)?;
        bytes = rest;
    }
    Ok(())
}

/// Some responses in a row: each ends at its last byte, not before, and not after.
pub fn ends(dice: &mut Dice) {
    let mut scanner = ResponseScanner::new(LIMITS);
    for number in 1..=1 + dice.below(4) {
        let made = make(dice);
        let what = String::from_utf8_lossy(&made.bytes).into_owned();
        scanner.ask(made.asked);
        let (last, most) = made.bytes.split_last().unwrap();
        assert_eq!(feed(&mut scanner, most, dice), Ok(()), "{what:?}");
        assert!(!scanner.is_idle(), "it ends too soon: {what:?}");
        assert_eq!(scanner.read(&[*last]), Ok(1), "{what:?}");
        assert!(scanner.is_idle(), "it does not end: {what:?}");
        assert_eq!(scanner.finals(), number as u64, "{what:?}");
        let heard = hyper_hears(made.asked, &made.bytes);
        assert_eq!(heard, Some(made.content), "hyper sees another message: {what:?}");
    }
    assert_eq!(scanner.read(&[dice.next() as u8]), Err(Flaw::Unasked));
}

/// Anything: the pieces do not matter, and where the scanner sees one whole response, so does hyper.
pub fn damaged(dice: &mut Dice) {
    let made = make(dice);
    let mut bytes = made.bytes;
    for _ in 0..dice.below(4) {
        dice.damage(&mut bytes, WORDS);
    }
    let what = String::from_utf8_lossy(&bytes).into_owned();
    let mut whole = ResponseScanner::new(LIMITS);
    whole.ask(made.asked);
    let mut pieces = whole.clone();
    let (seen, again) = (all(&mut whole, &bytes), feed(&mut pieces, &bytes, dice));
    assert_eq!((seen, whole.is_idle()), (again, pieces.is_idle()), "the pieces matter: {what:?}");
    if seen.is_ok() {
        let heard = hyper_hears(made.asked, &bytes).is_some();
        assert!(!whole.is_idle() || heard, "hyper waits for more, or refuses it: {what:?}");
        assert!(whole.is_idle() || !heard || is_upgrade(&bytes), "hyper has it whole: {what:?}");
    }
}

/// hyper's answer is whole at a 101, and what follows is none of it.
fn is_upgrade(bytes: &[u8]) -> bool {
    bytes.windows(13).any(|window| window == b"HTTP/1.1 101 ")
}

/// The length of the content that hyper's client gets out of these bytes, if it gets all of a response while
/// the connection stays open.
fn hyper_hears(asked: Asked, bytes: &[u8]) -> Option<usize> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut builder = http1::Builder::new();
    builder.max_buf_size(64 * 1024).max_header_size(64 * 1024).max_headers(256);
    let tape = Tape { bytes: Bytes::copy_from_slice(bytes), asked: false };
    let Poll::Ready(Ok((mut send, mut connection))) = pin!(builder.handshake(tape)).poll(&mut cx) else {
        panic!("a handshake waits for nobody");
    };
    let method = if asked == Asked::Head { "HEAD" } else { "GET" };
    let request = http::Request::builder().method(method).uri("/").header("host", "a.test");
    let mut answer = pin!(send.send_request(request.body(Empty::<Bytes>::new()).unwrap()));
    let mut drive = || drop(Pin::new(&mut connection).poll(&mut cx));
    // Once to send, and once to read.
    drive();
    drive();
    let Poll::Ready(Ok(response)) = answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        return None;
    };
    let mut body = response.into_body();
    let mut length = 0;
    for _ in 0..10_000 {
        drive();
        match Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(None) => return Some(length),
            Poll::Ready(Some(Ok(frame))) => length += frame.data_ref().map_or(0, Bytes::len),
            Poll::Ready(Some(Err(_))) | Poll::Pending => return None,
        }
    }
    panic!("there is no end to it");
}

/// A connection on which these bytes come once something has been sent, and then nothing.
struct Tape {
    bytes: Bytes,
    asked: bool,
}

impl Read for Tape {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.asked || self.bytes.is_empty() {
            return Poll::Pending;
        }
        let most = self.bytes.len().min(buf.remaining());
        buf.put_slice(&self.bytes.split_to(most));
        Poll::Ready(Ok(()))
    }
}

impl Write for Tape {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.asked = true;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
