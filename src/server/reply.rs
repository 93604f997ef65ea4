//! An answer of HTTP/1.1 as it is written where there is no hyper: its head, and its body as it comes.
//!
//! Knows how a message is framed (RFC 9112 §6, §7.1), and does it as hyper does for all other requests: a client cannot
//! tell which of the two has answered. For a GET without `TE` alone, so no trailer section goes out.
//! Must not know: sockets, or what is answered.
//!
//! A body that does not come to its end is not made to look as if it had: the connection ends.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::Body;

use super::outgoing::Outgoing;
use crate::fields::{digits, list};
use crate::proxy::{Begun, Headed};
use crate::wire::{field_line, status_line};

/// An answer whose head has been written.
pub(super) struct Reply<B> {
    /// `None` once nothing is left of it.
    body: Option<B>,
    framing: Framing,
    closes: bool,
}

/// How a client sees where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// So many bytes are left.
    Length(u64),
    Chunked,
}

/// What is known of the length of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    /// There is none.
    None,
    Known(u64),
    Unknown,
}

/// It cannot be written, or not to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// How a chunked body ends (RFC 9112 §7.1).
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// The same, behind a chunk.
const AND_LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

impl<B: Body<Data = Bytes> + Headed + Unpin> Reply<B> {
    /// Whether an answer says itself when it was made: to ask the clock takes longer.
    pub(super) fn is_dated(response: &Response<B>) -> bool {
        response.body().is_dated().unwrap_or_else(|| response.headers().contains_key(DATE))
    }

    /// Writes the head. `closes`: the connection ends with it, and the client is told so. `date` is for an answer that
    /// has none.
    ///
    /// # Errors
    /// It is none that can be written: nothing has been.
    pub(super) fn begin(
        response: Response<B>,
        closes: bool,
        date: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Self, Broken> {
        let (parts, mut body) = response.into_parts();
        if let Some(begun) = body.take_begun() {
            let closes = closes || says_close(&parts.headers);
            return Ok(Self::go_on(&begun, body, closes, date, out));
        }
        let length = match body.size_hint().exact() {
            _ if body.is_end_stream() => Length::None,
            Some(length) => Length::Known(length),
            None => Length::Unknown,
        };
        let begun = out.len();
        let head = Head { status: parts.status, headers: &parts.headers, length, closes, date };
        let framing = head.write(out).inspect_err(|_| out.truncate(begun))?;
        let body = (framing != Framing::Length(0)).then_some(body);
        let closes = closes || says_close(&parts.headers);
        Ok(Self { body, framing, closes })
    }

    /// Ends a head that has been begun where its fields were; beside them a map can say no more than that the connection
    /// ends.
    fn go_on(begun: &Begun, body: B, closes: bool, date: &[u8], out: &mut Vec<u8>) -> Self {
        let length = body.size_hint().exact();
        begun.write(closes, length, date, out);
        let framing = length.map_or(Framing::Chunked, Framing::Length);
        Self { body: (framing != Framing::Length(0)).then_some(body), framing, closes }
    }

    /// Whether all of it has been handed over.
    pub(super) const fn is_over(&self) -> bool {
        self.body.is_none()
    }

    /// Whether the connection ends with it.
    pub(super) const fn closes(&self) -> bool {
        self.closes
    }

    /// Hands over what comes of the body, until there is room for no more.
    ///
    /// Cancellation: what has not been handed over is still in the body.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        outgoing: &mut Outgoing,
    ) -> Poll<Result<(), Broken>> {
        while outgoing.has_room()
            && let Some(body) = &mut self.body
        {
            let frame = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                Some(Ok(frame)) => Some(frame),
                Some(Err(_)) => return Poll::Ready(Err(Broken)),
                None => None,
            };
            let is_last = frame.is_none() || body.is_end_stream();
            // A trailer section is the end, and nobody has asked for it.
            match frame.map(http_body::Frame::into_data) {
                Some(Ok(data)) if !data.is_empty() => self.hand_over(data, is_last, outgoing),
                Some(Ok(_)) if !is_last => {}
                Some(_) | None => self.end(outgoing)?,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn hand_over(&mut self, mut data: Bytes, is_last: bool, outgoing: &mut Outgoing) {
        match &mut self.framing {
            Framing::Length(left) => {
                data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left = left.saturating_sub(data.len() as u64);
                // One that is shorter than its head says is seen to be by the end of the connection.
                self.closes |= is_last && *left > 0;
                if is_last || *left == 0 {
                    self.body = None;
                }
                outgoing.put(data, b"");
            }
            Framing::Chunked => {
                push_hex(data.len(), outgoing.buffer());
                outgoing.put(data, if is_last { AND_LAST_CHUNK } else { b"\r\n" });
                if is_last {
                    self.body = None;
                }
            }
        }
    }

    fn end(&mut self, outgoing: &mut Outgoing) -> Result<(), Broken> {
        match self.framing {
            Framing::Length(0) => {}
            Framing::Length(_) => return Err(Broken),
            Framing::Chunked => outgoing.put(Bytes::from_static(LAST_CHUNK), b""),
        }
        self.body = None;
        Ok(())
    }
}

/// A head that is to be written.
struct Head<'a> {
    status: StatusCode,
    headers: &'a HeaderMap,
    length: Length,
    closes: bool,
    date: &'a [u8],
}

impl Head<'_> {
    fn write(&self, out: &mut Vec<u8>) -> Result<Framing, Broken> {
        if self.status.is_informational() {
            return Err(Broken);
        }
        // RFC 9112 §6.3: what has no body, whatever its fields say.
        let is_bare = matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        status_line(out, self.status);
        let (mut told, mut is_dated) = (None, false);
        for (name, value) in self.headers {
            match *name {
                CONTENT_LENGTH => {
                    let length = match self.length {
                        Length::None => continue,
                        Length::Known(length) => length,
                        Length::Unknown => says(value).ok_or(Broken)?,
                    };
                    match told.replace(length) {
                        None => field_line(out, name.as_str().as_bytes(), value.as_bytes()),
                        Some(before) if before == length => {}
                        Some(_) => return Err(Broken),
                    }
                    continue;
                }
                // It is said below how it is framed.
                TRANSFER_ENCODING => continue,
                TRAILER if is_bare => continue,
                CONNECTION | TRAILER => {
                    // Of a name all values come one after the other, and go out in one line.
                    let is_first = self.headers.get(name).is_some_and(|first| std::ptr::eq(first, value));
                    if is_first {
                        self.join(name, out);
                    }
                    continue;
                }
                DATE => is_dated = true,
                _ => {}
            }
            field_line(out, name.as_str().as_bytes(), value.as_bytes());
        }
        if self.closes && !self.headers.contains_key(CONNECTION) {
            field_line(out, CONNECTION.as_str().as_bytes(), b"close");
        }
        let framing = match (told, self.length) {
            (Some(length), _) => Framing::Length(length),
            (None, Length::Unknown) if is_bare => Framing::Length(0),
            (None, Length::Unknown) => {
                field_line(out, TRANSFER_ENCODING.as_str().as_bytes(), b"chunked");
                Framing::Chunked
            }
            (None, Length::None | Length::Known(_)) => {
                let length = if let Length::Known(length) = self.length { length } else { 0 };
                if !is_bare {
                    out.extend_from_slice(b"content-length: ");
                    digits::push(out, length, 1);
                    out.extend_from_slice(b"\r\n");
                }
                Framing::Length(length)
            }
        };
        if !is_dated {
            field_line(out, DATE.as_str().as_bytes(), self.date);
        }
        out.extend_from_slice(b"\r\n");
        Ok(if is_bare { Framing::Length(0) } else { framing })
    }

    fn join(&self, name: &HeaderName, out: &mut Vec<u8>) {
        let close = HeaderValue::from_static("close");
        let added = *name == CONNECTION && self.closes && !says_close(self.headers);
        let values = self.headers.get_all(name).iter().chain(added.then_some(&close));
        let values: Vec<&[u8]> = values.map(HeaderValue::as_bytes).collect();
        field_line(out, name.as_str().as_bytes(), &values.join(&b", "[..]));
    }
}

/// Whether a head says by itself that the connection ends (RFC 9112 §9.6).
fn says_close(headers: &HeaderMap) -> bool {
    headers.contains_key(CONNECTION) && list::contains(headers, &CONNECTION, "close")
}

/// A length in digits alone (RFC 9110 §8.6).
fn says(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok()
}

/// The line before a chunk of so many bytes.
fn push_hex(size: usize, out: &mut Vec<u8>) {
    let digits = size.checked_ilog2().unwrap_or(0) / 4;
    for at in (0..=digits).rev() {
        let digit = u8::try_from(size >> (4 * at) & 0xf).unwrap_or(0);
        out.push(if digit < 10 { b'0' + digit } else { b'A' + (digit - 10) });
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::time::Duration;

    use http_body::{Frame, SizeHint};
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::timeout;

    use super::*;

    /// What comes of a body.
    #[derive(Clone, Copy, Debug)]
    enum Piece {
        Data(&'static str),
        Trailers,
        Error,
    }
    use Piece::{Data, Error, Trailers};

    /// A body, piece by piece; and what it says of its length.
    #[derive(Clone, Debug)]
    struct Pieces {
        left: VecDeque<Piece>,
        exact: Option<u64>,
        /// It knows that it is over.
        knows_end: bool,
    }

    impl Headed for Pieces {
        fn take_begun(&mut self) -> Option<Begun> {
            None
        }

        fn is_dated(&self) -> Option<bool> {
            None
        }
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Box<dyn std::error::Error + Send + Sync>;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Ready(self.left.pop_front().map(|piece| match piece {
                Data(text) => {
                    let sent = text.len() as u64;
                    self.exact = self.exact.map(|exact| exact.saturating_sub(sent));
                    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
                }
                Trailers => {
                    let fields = [("x-late".parse().unwrap(), HeaderValue::from_static("1"))];
                    Ok(Frame::trailers(HeaderMap::from_iter(fields)))
                }
                Error => Err("broken".into()),
            }))
        }

        fn is_end_stream(&self) -> bool {
            self.knows_end && self.left.is_empty()
        }

        fn size_hint(&self) -> SizeHint {
            self.exact.map_or_else(SizeHint::default, SizeHint::with_exact)
        }
    }

    type Fields = &'static [(&'static str, &'static str)];

    fn response(status: u16, fields: Fields, body: &Pieces) -> Response<Pieces> {
        let mut response = Response::builder().status(status).body(body.clone()).unwrap();
        for (name, value) in fields {
            response
                .headers_mut()
                .append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        response
    }

    /// What is sent, and whether the connection ends.
    type Sent = (String, bool);

    fn masked(bytes: Vec<u8>) -> String {
        let text = String::from_utf8(bytes).unwrap();
        let lines = text.split_inclusive("\r\n");
        lines.map(|line| if line.starts_with("date: ") { "date: now\r\n" } else { line }).collect()
    }

    async fn by_hyper(status: u16, fields: Fields, body: &Pieces, closes: bool) -> Sent {
        let (mut client, server) = duplex(1 << 20);
        let body = body.clone();
        let service = service_fn(move |_| {
            let response = response(status, fields, &body);
            async move { Ok::<_, Infallible>(response) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(server), service));
        let close = if closes { "Connection: close\r\n" } else { "" };
        client.write_all(format!("GET / HTTP/1.1\r\nHost: a\r\n{close}\r\n").as_bytes()).await.unwrap();
        let mut all = Vec::new();
        // With the time stopped, what waits for nothing but the time shows at once.
        let ends = loop {
            match timeout(Duration::from_secs(1), client.read_buf(&mut all)).await {
                Ok(Ok(1..)) => {}
                Ok(_) => break true,
                Err(_) => break false,
            }
        };
        (masked(all), ends)
    }

    fn here(status: u16, fields: Fields, body: &Pieces, closes: bool) -> Result<Sent, Broken> {
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        let (mut outgoing, mut all) = (Outgoing::default(), Vec::new());
        let date = b"Sun, 06 Nov 1994 08:49:37 GMT";
        let mut reply = Reply::begin(response(status, fields, body), closes, date, outgoing.buffer())?;
        loop {
            let Poll::Ready(handed) = reply.poll_body(cx, &mut outgoing) else { panic!("it does not wait") };
            handed?;
            // A `Vec` takes all there is.
            assert!(outgoing.poll_written(&mut TokioIo::new(&mut all), cx).is_ready());
            if reply.is_over() {
                return Ok((masked(all), reply.closes()));
            }
        }
    }

    const LARGE: &str = match std::str::from_utf8(&[b'x'; 40_000]) {
        Ok(text) => text,
        Err(_) => "",
    };

    #[tokio::test(start_paused = true)]
    async fn what_is_sent_is_what_hyper_sends() {
        let heads: &[Fields] = &[
            &[],
            &[("content-type", "text/plain"), ("x-a", "1"), ("x-b", ""), ("x-a", "caf\u{e9}")],
            &[("date", "Sun, 06 Nov 1994 08:49:37 GMT"), ("set-cookie", "a"), ("set-cookie", "b")],
            &[("connection", "close"), ("x-a", "1")],
            &[("connection", "x-own"), ("x-own", "1"), ("connection", "y-own")],
            &[("trailer", "x-late"), ("trailer", "x-later")],
        ];
        let bodies: &[(&[Piece], Option<u64>)] = &[
            (&[], Some(0)),
            (&[], None),
            (&[Data("one")], Some(3)),
            (&[Data("one"), Data("two")], Some(6)),
            (&[Data("one"), Data(""), Data("two")], None),
            (&[Data("")], None),
            (&[Data("one"), Trailers], None),
            (&[Trailers], None),
            (&[Data(LARGE)], Some(40_000)),
            (&[Data("one"), Data(LARGE), Data("two")], None),
            (&[Data("0123456789abcdef"), Data("0123456789abcde")], None),
        ];
        for status in [200, 201, 204, 206, 304, 404, 416, 503, 299] {
            for fields in heads {
                for (pieces, exact) in bodies {
                    for (knows_end, closes) in [(true, true), (true, false), (false, false)] {
                        let body =
                            Pieces { left: pieces.iter().copied().collect(), exact: *exact, knows_end };
                        let wanted = by_hyper(status, fields, &body, closes).await;
                        let got = here(status, fields, &body, closes);
                        assert_eq!(got, Ok(wanted), "{status} {fields:?} {body:?} {closes}");
                    }
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_length_that_is_told_is_kept_to_as_hyper_keeps_to_it() {
        let rows: &[(Fields, &[Piece])] = &[
            (&[("content-length", "6")], &[Data("one"), Data("two")]),
            (&[("content-length", "6"), ("content-length", "6")], &[Data("one"), Data("two")]),
            (&[("content-length", "0")], &[]),
            (&[("content-length", "0")], &[Data("more")]),
            (&[("content-length", "3")], &[Data("one"), Data("two")]),
            (&[("content-length", "4")], &[Data("one"), Data("two")]),
            (&[("content-length", "6"), ("trailer", "x-late")], &[Data("onetwo"), Trailers]),
        ];
        for (fields, pieces) in rows {
            for (status, knows_end) in [(200, true), (200, false), (304, false), (204, true)] {
                let body = Pieces { left: pieces.iter().copied().collect(), exact: None, knows_end };
                let wanted = by_hyper(status, fields, &body, false).await;
                assert_eq!(here(status, fields, &body, false), Ok(wanted), "{status} {fields:?} {body:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_breaks_off_ends_the_connection_and_never_looks_whole() {
        let rows: &[(Fields, &[Piece])] = &[
            (&[], &[Error]),
            (&[], &[Data("one"), Error]),
            (&[("content-length", "6")], &[Data("one"), Error]),
            (&[("content-length", "6")], &[Data("one")]),
            (&[("content-length", "6")], &[Data("one"), Trailers]),
            (&[("content-length", "6"), ("content-length", "7")], &[Data("onetwo")]),
            (&[("content-length", "+6")], &[Data("onetwo")]),
        ];
        for (fields, pieces) in rows {
            let body = Pieces { left: pieces.iter().copied().collect(), exact: None, knows_end: false };
            let (sent, ends) = by_hyper(200, fields, &body, false).await;
            assert!(ends && !sent.ends_with("0\r\n\r\n") && !sent.contains("onetwo"), "{sent}");
            assert_eq!(here(200, fields, &body, false), Err(Broken), "{fields:?} {pieces:?}");
        }
        // One that knows that it is over too early goes out as far as it goes, and ends the connection.
        let body = Pieces { left: [Data("one")].into(), exact: None, knows_end: true };
        let fields: Fields = &[("content-length", "6")];
        assert_eq!(here(200, fields, &body, false), Ok(by_hyper(200, fields, &body, false).await));
        assert!(here(101, &[], &body, false).is_err(), "no answer of this kind");
    }

    #[test]
    fn sizes_of_chunks_are_written_in_hexadecimal() {
        for size in [0, 1, 9, 10, 15, 16, 255, 256, 4096, 65_535, 0xfed_cba9, usize::MAX] {
            let mut out = Vec::new();
            push_hex(size, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{size:X}\r\n"));
        }
    }
}
