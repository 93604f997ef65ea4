//! The body that a client gets, and the end of its report.
//!
//! Knows the four kinds of content and when one is complete. A body that cannot be completed ends in
//! an error, so that the connection is cut and never looks whole.
//! Must not know: where the content comes from beyond its type.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::clock::Mono;
use crate::flight::Reader;
use crate::telemetry::{End, Phase};
use crate::upstream::OriginBody;

use super::report::Report;

/// Any error of a body.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a client is sent after the head.
pub struct Delivery {
    content: Content,
    report: Report,
    /// Bytes after which the body is complete, where the head says so.
    expected: Option<u64>,
    head_sent: Mono,
}

/// The kinds of content.
pub(super) enum Content {
    /// None, or none left.
    Empty,
    /// All of it.
    Whole(Bytes),
    /// A body that is still on its way into the cache.
    Growing(Reader),
    /// Straight from the origin.
    Origin(OriginBody),
}

impl Delivery {
    /// `headers` are those of the head that goes before.
    pub(super) fn new(content: Content, report: Report, headers: &HeaderMap) -> Self {
        let expected = match &content {
            Content::Empty => Some(0),
            Content::Whole(bytes) => Some(bytes.len() as u64),
            _ => {
                headers.get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok())
            }
        };
        let head_sent = report.mono();
        Self { content, report, expected, head_sent }
    }

    fn ended(&mut self, end: End) {
        self.report.end = end;
        self.content = Content::Empty;
    }

    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.content {
            Content::Empty => Poll::Ready(None),
            Content::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.content = Content::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Content::Growing(reader) => Pin::new(reader).poll_frame(cx).map_err(Into::into),
            Content::Origin(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
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
        let frame = ready!(this.poll_content(cx));
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
            Content::Growing(reader) => reader.is_end_stream(),
            Content::Origin(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Growing(reader) => reader.size_hint(),
            Content::Origin(body) => body.size_hint(),
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
        let since = self.head_sent;
        self.report.mark(Phase::Body, since);
    }
}
