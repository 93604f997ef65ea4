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

impl<B: Body<Data = Bytes> + Unpin> Reply<B> {
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
        let (parts, body) = response.into_parts();
        let length = match body.size_hint().exact() {
            _ if body.is_end_stream() => Length::None,
            Some(length) => Length::Known(length),
            None => Length::Unknown,
        };
        let begun = out.len();
        let head = Head { status: parts.status, headers: &parts.headers, length, closes, date };
        let framing = head.write(out).inspect_err(|_| out.truncate(begun))?;
        let body = (framing != Framing::Length(0)).then_some(body);
        let closes = closes || list::contains(&parts.headers, &CONNECTION, "close");
        Ok(Self { body, framing, closes })
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
        status_line(self.status, out);
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
                        None => line(name, value.as_bytes(), out),
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
            line(name, value.as_bytes(), out);
        }
        if self.closes && !self.headers.contains_key(CONNECTION) {
            line(&CONNECTION, b"close", out);
        }
        let framing = match (told, self.length) {
            (Some(length), _) => Framing::Length(length),
            (None, Length::Unknown) if is_bare => Framing::Length(0),
            (None, Length::Unknown) => {
                line(&TRANSFER_ENCODING, b"chunked", out);
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
            line(&DATE, self.date, out);
        }
        out.extend_from_slice(b"\r\n");
        Ok(if is_bare { Framing::Length(0) } else { framing })
    }

    fn join(&self, name: &HeaderName, out: &mut Vec<u8>) {
        let close = HeaderValue::from_static("close");
        let added = *name == CONNECTION && self.closes && !list::contains(self.headers, name, "close");
        let values = self.headers.get_all(name).iter().chain(added.then_some(&close));
        let values: Vec<&[u8]> = values.map(HeaderValue::as_bytes).collect();
        line(name, &values.join(&b", "[..]), out);
    }
}

fn status_line(status: StatusCode, out: &mut Vec<u8>) {
    if status == StatusCode::OK {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("<none>").as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn line(name: &HeaderName, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
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
