//! A request's body of which the beginning has been read.
//!
//! Knows the order: what was read, the frame that did not fit, the rest as it comes. Nothing is lost, and how the
//! length was told stays as it was: announced, or found out at the end.
//! Must not know: why it was read, or where it goes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::upstream::BoxError;

/// A body of which the beginning has been read.
pub(super) struct Beginning<B> {
    /// Empty when it has been given out.
    read: Bytes,
    /// What came next.
    next: Option<Frame<Bytes>>,
    /// `None` when it has come to its end.
    rest: Option<B>,
    /// Its length was announced.
    known: bool,
    /// What it takes of a budget, as long as it is held.
    held: Option<Box<dyn Send + Sync>>,
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin> Beginning<B> {
    /// `read`, then what comes of `rest`.
    pub fn of(read: Bytes, rest: B) -> Self {
        let known = rest.size_hint().exact().is_some();
        Self { read, next: None, rest: Some(rest), known, held: None }
    }

    /// The rest has come to its end.
    pub fn ended(self) -> Self {
        Self { rest: None, ..self }
    }

    /// With a frame between what was read and the rest.
    pub fn then(self, next: Frame<Bytes>) -> Self {
        Self { next: Some(next), ..self }
    }

    /// Given back when what was read has been given out.
    pub fn holding(self, held: impl Send + Sync + 'static) -> Self {
        Self { held: Some(Box::new(held)), ..self }
    }

    /// Bytes that are at hand.
    fn at_hand(&self) -> u64 {
        let next = self.next.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len);
        (self.read.len() + next) as u64
    }
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin> Body for Beginning<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if !this.read.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.read)))));
        }
        this.held = None;
        if let Some(next) = this.next.take() {
            return Poll::Ready(Some(Ok(next)));
        }
        let Some(rest) = &mut this.rest else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(rest).poll_frame(cx));
        if frame.is_none() {
            this.rest = None;
        }
        Poll::Ready(frame)
    }

    /// Of a length that was not announced, only its end says so: also an empty one is then sent as it came.
    fn is_end_stream(&self) -> bool {
        let is_over = self.rest.as_ref().is_none_or(Body::is_end_stream);
        self.known && self.read.is_empty() && self.next.is_none() && is_over
    }

    fn size_hint(&self) -> SizeHint {
        let (at_hand, mut hint) = (self.at_hand(), SizeHint::new());
        let rest = self.rest.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint);
        hint.set_lower(rest.lower().saturating_add(at_hand));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(at_hand)).filter(|_| self.known)
        {
            hint.set_upper(upper);
        }
        hint
    }
}
