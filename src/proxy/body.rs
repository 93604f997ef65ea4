//! The body that a client gets, and the end of its report.
//!
//! Knows the kinds of content and when one is complete. A body that cannot be completed ends in
//! an error, so that the connection is cut and never looks whole.
//! Must not know: where the content comes from beyond its type.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::TRAILER;
use http::{HeaderMap, HeaderName};
use http_body::{Body, Frame, SizeHint};

use crate::clock::Mono;
use crate::fields::range::Span;
use crate::fields::{hop, list};
use crate::flight::{Broken, Reader};
use crate::store::Passing;
use crate::telemetry::{End, Phase};
use crate::upstream::OriginBody;

use super::encoding::Encoding;
use super::head::{Begun, Headed};
use super::report::Report;

/// Fields of a trailer section at most.
const ANNOUNCED: usize = 32;

/// Any error of a body.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a client is sent after the head.
pub struct Delivery {
    content: Content,
    /// Why it breaks off, which is told next.
    broken: Option<BoxError>,
    report: Box<Report>,
    /// Bytes after which the body is complete, where the head says so.
    expected: Option<u64>,
    /// The fields of a trailer section that the head announces; others go no further.
    trailers: Vec<HeaderName>,
    /// The head that goes before, where it has been begun.
    begun: Option<Begun>,
    head_sent: Mono,
    /// It may take time to give it out: not where all of it goes with the head.
    lasts: bool,
    /// Of a body that is not at hand.
    _room: Option<Passing>,
}

/// The kinds of content.
pub(super) enum Content {
    /// None, or none left.
    Empty,
    /// All of it.
    Whole(Bytes),
    /// All of it, in pieces.
    Pieces(VecDeque<Bytes>),
    /// A body that is still on its way into the cache.
    Growing(Reader),
    /// A part of such a body.
    GrowingPart(Stretch),
    /// Straight from the origin.
    Origin(Box<OriginBody>),
    /// The same, encoded on its way.
    Encoded(Box<Encoding<Box<OriginBody>>>),
}

/// Some bytes of a body that is still on its way.
pub(super) struct Stretch {
    reader: Reader,
    /// Bytes yet to be passed over.
    skip: u64,
    /// Bytes yet to be given.
    left: u64,
}

impl Stretch {
    pub(super) fn new(reader: Reader, span: Span) -> Self {
        Self { reader, skip: span.first, left: span.len() }
    }

    /// Never its trailers: they are about the whole.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        while self.left > 0 {
            let data = match ready!(Pin::new(&mut self.reader).poll_frame(cx)) {
                Some(Ok(frame)) => frame.into_data().ok(),
                Some(Err(broken)) => return Poll::Ready(Some(Err(broken.into()))),
                None => None,
            };
            // It was shorter than its head said.
            let Some(mut data) = data else { return Poll::Ready(Some(Err(Broken.into()))) };
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(data.len());
            self.skip = self.skip.saturating_sub(skipped as u64);
            data.advance(skipped);
            data.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left = self.left.saturating_sub(data.len() as u64);
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
        Poll::Ready(None)
    }
}

impl Delivery {
    /// `headers` are those of the head that goes before, from `head_sent` on.
    pub(super) fn new(content: Content, report: Box<Report>, headers: &HeaderMap, head_sent: Mono) -> Self {
        let expected = match &content {
            Content::Empty => Some(0),
            Content::Whole(bytes) => Some(bytes.len() as u64),
            Content::Pieces(pieces) => Some(total(pieces)),
            Content::GrowingPart(stretch) => Some(stretch.left),
            _ => {
                headers.get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok())
            }
        };
        let at_hand = matches!(content, Content::Empty | Content::Whole(_) | Content::Pieces(_));
        let room = (!at_hand).then(|| report.passing());
        // What is at hand has none.
        let trailers = if at_hand { Vec::new() } else { announced(headers) };
        let (broken, begun, lasts) = (None, None, true);
        Self { content, broken, report, expected, trailers, begun, head_sent, lasts, _room: room }
    }

    /// With its head. Whoever sends that asks for its content at once: if all of it is there, the clock need not be read for
    /// its end.
    pub(super) fn headed(mut self, begun: Begun) -> Self {
        (self.begun, self.lasts) = (Some(begun), false);
        self
    }

    fn ended(&mut self, end: End) {
        self.report.end = end;
        self.content = Content::Empty;
    }

    /// A trailer section, without what was not announced and what may not stand there.
    fn announced(&self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let mut all = frame.into_trailers().ok()?;
        let mut kept = HeaderMap::new();
        for name in &self.trailers {
            if let http::header::Entry::Occupied(entry) = all.entry(name) {
                let (name, values) = entry.remove_entry_mult();
                kept.extend(values.map(|value| (name.clone(), value)));
            }
        }
        (!kept.is_empty()).then(|| Frame::trailers(kept))
    }

    fn poll_timed(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = self.poll_content(cx);
        // Asked a second time, too, it is asked later.
        self.lasts |= polled.is_pending() || self.report.bytes > 0;
        polled
    }

    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.content {
            Content::Empty => Poll::Ready(None),
            Content::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.content = Content::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Content::Pieces(pieces) => Poll::Ready(pieces.pop_front().map(|piece| Ok(Frame::data(piece)))),
            Content::Growing(reader) => Pin::new(reader).poll_frame(cx).map_err(Into::into),
            Content::GrowingPart(stretch) => stretch.poll_frame(cx),
            Content::Origin(body) => Pin::new(&mut **body).poll_frame(cx).map_err(Into::into),
            Content::Encoded(body) => Pin::new(&mut **body).poll_frame(cx),
        }
    }
}

/// RFC 9110 §6.5.1: a trailer section must not hold what frames, routes or describes the content, nor
/// what decides who may see it; hyper sees to that over HTTP/1 alone.
fn announced(headers: &HeaderMap) -> Vec<HeaderName> {
    if !headers.contains_key(TRAILER) {
        return Vec::new();
    }
    let name = |member: &[u8]| HeaderName::from_bytes(member).ok();
    let may = |name: &HeaderName| !hop::is_hop_by_hop(name) && !hop::is_end_to_end(name) && *name != TRAILER;
    list::all(headers, &TRAILER).filter_map(name).filter(may).take(ANNOUNCED).collect()
}

fn total(pieces: &VecDeque<Bytes>) -> u64 {
    pieces.iter().map(|piece| piece.len() as u64).sum()
}

impl Headed for Delivery {
    fn take_begun(&mut self) -> Option<Begun> {
        self.begun.take()
    }

    fn is_dated(&self) -> Option<bool> {
        self.begun.as_ref().map(Begun::is_dated)
    }
}

impl Body for Delivery {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        #[cfg(test)]
        crate::telemetry::failpoint::at("body", this.report.path());
        let frame = match this.broken.take() {
            Some(error) => Some(Err(error)),
            None => match ready!(this.poll_timed(cx)) {
                // Who writes has not written what was given just before, and on an error lets go of it. So the error
                // comes a turn later: a client gets all that came.
                Some(Err(error)) => {
                    this.broken = Some(error);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                other => other,
            },
        };
        let frame = match frame {
            Some(Ok(frame)) if frame.is_trailers() => this.announced(frame).map(Ok),
            other => other,
        };
        match &frame {
            None => this.ended(End::Complete),
            Some(Err(_)) => this.ended(End::Broken),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.report.bytes = this.report.bytes.saturating_add(data.len() as u64);
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Pieces(pieces) => pieces.is_empty(),
            Content::Growing(reader) => reader.is_end_stream(),
            Content::GrowingPart(stretch) => stretch.left == 0,
            Content::Origin(body) => body.is_end_stream(),
            Content::Encoded(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Pieces(pieces) => SizeHint::with_exact(total(pieces)),
            Content::Growing(reader) => reader.size_hint(),
            Content::GrowingPart(stretch) => SizeHint::with_exact(stretch.left),
            Content::Origin(body) => body.size_hint(),
            Content::Encoded(body) => body.size_hint(),
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        // hyper lets go of a body as soon as it has what the head promised, without asking for its
        // end; one that is dropped before that was left by its client.
        let complete = self.expected == Some(self.report.bytes) || self.is_end_stream();
        if complete && self.report.end != End::Broken {
            self.report.end = End::Complete;
        }
        let now = match self.lasts || self.report.end != End::Complete {
            true => self.report.mono(),
            false => self.head_sent,
        };
        self.report.timeline.add(Phase::Body, now.since(self.head_sent));
        self.report.ended = Some(now);
    }
}
