//! The two bodies of an exchange: the request's, which marks its progress, and the response's,
//! which holds the connection until its end.
//!
//! Knows when an exchange is over: the connection goes back to the pool then and only then.
//! Must not know: retries, limits of the pool, what the bytes mean.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until};

use super::answer::Ready;
use super::connection::Conn;
use super::direct::{self, Piece};
use super::error::{self, OriginError, Place};
use super::socket::{READ, READ_MUCH};
use super::upload::{Refused, Upload};
use super::watch::Appetite;
use crate::clock::Mono;
use crate::fields::trailers;
use crate::pace::Pace;

/// Pieces of a response's body that are smaller than this are given out in memory of their own, bytes.
///
/// hyper cuts them from its read buffer, at least 8 KiB that live as long as any piece of them. An origin
/// that sends a few bytes at a time would so have whoever keeps them hold hundreds of times their size.
const SMALL: usize = 16 * 1024;

/// Any error of a request's body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request's body on its way to an origin.
pub struct RequestBody {
    source: Source,
    sent: Option<Arc<Sent>>,
    /// The fields of its request, which are not in the request's own map then.
    ready: Option<Ready>,
}

enum Source {
    Empty,
    Whole(Bytes),
    Upload(Box<Upload>),
    Other(Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send + Sync>>),
}

impl RequestBody {
    /// No body.
    pub fn empty() -> Self {
        Self { source: Source::Empty, sent: None, ready: None }
    }

    /// No body, of a request whose fields are ready: its own map of them is to be empty.
    pub fn headed(ready: Ready) -> Self {
        Self { ready: Some(ready), ..Self::empty() }
    }

    /// The fields of its request, if they are ready.
    pub(super) fn ready(&self) -> Option<&Ready> {
        self.ready.as_ref()
    }

    /// A body that is at hand; an empty one is none.
    pub fn whole(bytes: Bytes) -> Self {
        match bytes.is_empty() {
            true => Self::empty(),
            false => Self { source: Source::Whole(bytes), sent: None, ready: None },
        }
    }

    /// A client's body, passed on as it comes.
    pub fn upload(body: Upload) -> Self {
        match body.is_end_stream() {
            true => Self::empty(),
            false => Self { source: Source::Upload(Box::new(body)), sent: None, ready: None },
        }
    }

    /// Another body, such as a client's with something done to it.
    pub fn other(body: impl Body<Data = Bytes, Error = BoxError> + Send + Sync + 'static) -> Self {
        match body.is_end_stream() {
            true => Self::empty(),
            false => Self { source: Source::Other(Box::pin(body)), sent: None, ready: None },
        }
    }

    /// The same body, held to another pace too from when it is first asked for: what came before pays for nothing.
    pub fn hurried(self, pace: Pace) -> Self {
        match self.is_at_hand() {
            true => self,
            false => Self::other(Upload::new(self, pace, u64::MAX)),
        }
    }

    /// Whether all of it is at hand.
    pub fn is_at_hand(&self) -> bool {
        matches!(self.source, Source::Empty | Source::Whole(_))
    }

    /// The same body once more, where all of it is still at hand.
    pub(super) fn again(&self) -> Option<Self> {
        match &self.source {
            Source::Empty => Some(Self::empty()),
            Source::Whole(bytes) => Some(Self::whole(bytes.clone())),
            Source::Upload(_) | Source::Other(_) => None,
        }
    }

    /// Begins to watch how the body is sent, from then on.
    pub(super) fn watch(&mut self, begun: Instant) -> Arc<Sent> {
        let sent = Arc::new(Sent {
            begun,
            progress: AtomicU64::new(0),
            ended: AtomicBool::new(matches!(self.source, Source::Empty)),
            fault: AtomicU8::new(Fault::NONE),
            waits: AtomicBool::new(false),
            heard: AtomicBool::new(false),
            muted: AtomicBool::new(false),
            early: AtomicBool::new(false),
        });
        self.sent = Some(Arc::clone(&sent));
        sent
    }

    fn note(&self, frame: Option<&Result<Frame<Bytes>, BoxError>>) {
        let Some(sent) = &self.sent else { return };
        sent.waits.store(false, Ordering::Release);
        match frame {
            Some(Err(error)) => sent.fault.store(Fault::of(error).number(), Ordering::Release),
            Some(Ok(frame)) if !frame.is_trailers() && !self.is_end_stream() => sent.mark(),
            None | Some(Ok(_)) => {
                sent.mark();
                sent.ended.store(true, Ordering::Release);
            }
        }
    }

    /// What comes next is the client's to send.
    fn wait(&self) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(sent) = &self.sent {
            sent.waits.store(true, Ordering::Release);
        }
        Poll::Pending
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match &mut self.source {
            Source::Empty => None,
            Source::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)))
            }
            Source::Upload(body) => match Pin::new(&mut **body).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => return self.wait(),
            },
            Source::Other(body) => match body.as_mut().poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => return self.wait(),
            },
        };
        self.note(frame.as_ref());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Whole(bytes) => bytes.is_empty(),
            Source::Upload(body) => body.is_end_stream(),
            Source::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Upload(body) => body.size_hint(),
            Source::Other(body) => body.size_hint(),
        }
    }
}

/// What hyper gives, as it is passed on.
fn kept(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        trailers::keep_allowed(trailers);
    }
    frame.map_data(own)
}

/// A piece of a body that holds on to no more than about itself.
fn own(piece: Bytes) -> Bytes {
    if piece.len() < SMALL { Bytes::copy_from_slice(&piece) } else { piece }
}

/// How far an exchange has come before the response's head.
pub(super) struct Sent {
    begun: Instant,
    /// When the last frame was taken or the origin last said that it is at work, nanoseconds after
    /// `begun`.
    progress: AtomicU64,
    ended: AtomicBool,
    /// [`Fault::number`]
    fault: AtomicU8,
    /// The origin has taken all there is of the request, and the client has not sent the rest yet.
    waits: AtomicBool,
    heard: AtomicBool,
    muted: AtomicBool,
    early: AtomicBool,
}

/// Why a request's body did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It broke off.
    Broken,
    /// It was given up.
    Refused(Refused),
}

impl Fault {
    const NONE: u8 = 0;

    fn of(error: &BoxError) -> Self {
        error.downcast_ref::<Refused>().map_or(Self::Broken, |why| Self::Refused(*why))
    }

    const fn number(self) -> u8 {
        match self {
            Self::Broken => 1,
            Self::Refused(Refused::TooSlow) => 2,
            Self::Refused(Refused::TooLarge) => 3,
        }
    }
}

impl Sent {
    /// Since it was begun.
    pub(super) fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The last frame has been taken.
    pub(super) fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Why the body did not come to its end, if so.
    pub(super) fn fault(&self) -> Option<Fault> {
        let number = self.fault.load(Ordering::Acquire);
        let all = [Fault::Broken, Fault::Refused(Refused::TooSlow), Fault::Refused(Refused::TooLarge)];
        all.into_iter().find(|fault| fault.number() == number)
    }

    /// The origin has sent an interim response: it is at work on the request. Says whether to pass it on.
    pub(super) fn hear(&self) -> bool {
        self.mark();
        // In one order with `mute`: one of the two sees the other.
        self.heard.store(true, Ordering::SeqCst);
        !self.muted.load(Ordering::SeqCst)
    }

    /// From now on no interim response is passed on, unless one may have been already: says whether there was one.
    pub(super) fn mute(&self) -> bool {
        self.muted.store(true, Ordering::SeqCst);
        let heard = self.heard.load(Ordering::SeqCst);
        self.muted.store(!heard, Ordering::SeqCst);
        heard
    }

    /// Whether it has sent one.
    pub(super) fn heard(&self) -> bool {
        self.heard.load(Ordering::Acquire)
    }

    /// The final response has begun before the last byte of the request was written.
    pub(super) fn answered_early(&self) {
        self.early.store(true, Ordering::Release);
    }

    /// Request and response were whole, in this order: what comes on the connection next belongs to the next
    /// request. An origin that has answered early may never read the rest, or may take it for a request.
    pub(super) fn leaves_in_order(&self) -> bool {
        self.ended() && !self.early.load(Ordering::Acquire)
    }

    /// Resolves when no frame has been taken for `limit`, nor an interim response has come. While it is the
    /// client who keeps the origin waiting, no time passes: its own limits bound that ([`Upload`]).
    pub(super) async fn silent_for(&self, limit: Duration) {
        let mut due = self.last() + limit;
        loop {
            sleep_until(due).await;
            let last = if self.waits.load(Ordering::Acquire) { Instant::now() } else { self.last() };
            let later = last + limit;
            if later <= due {
                return;
            }
            due = later;
        }
    }

    fn last(&self) -> Instant {
        self.begun + Duration::from_nanos(self.progress.load(Ordering::Acquire))
    }

    fn mark(&self) {
        let since = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.progress.store(since, Ordering::Release);
    }
}

/// Leave to have more of a body lie between its origin and its reader than of others; given back when it is dropped.
pub trait Leave: Send + Sync {
    /// Whether it still holds. Once it does not, it is given back.
    fn holds(&self) -> bool;
}

/// A response's body on its way from an origin.
///
/// Read to its end, it gives the connection back; dropped before, it closes it.
pub struct OriginBody {
    content: Content,
    open: Option<Exchange>,
    failed: bool,
    /// To be read in large pieces.
    leave: Option<Box<dyn Leave>>,
}

/// An answer's content, as it comes from who speaks on its connection.
pub(super) enum Content {
    Direct(direct::Content),
    Hyper(Incoming),
}

impl Content {
    /// Nothing of it is to come on its connection any more.
    fn has_come(&self) -> bool {
        match self {
            Self::Direct(content) => content.has_come(),
            Self::Hyper(incoming) => incoming.is_end_stream(),
        }
    }

    /// What has come and was not given out, when nothing is to come any more.
    fn left_over(&mut self) -> Option<Frame<Bytes>> {
        match self {
            Self::Direct(content) => content.next().map(frame),
            Self::Hyper(_) => None,
        }
    }
}

/// A piece as it is passed on.
fn frame(piece: Piece) -> Frame<Bytes> {
    match piece {
        Piece::Data(data) => Frame::data(data),
        Piece::Trailers(mut trailers) => {
            trailers::keep_allowed(&mut trailers);
            Frame::trailers(trailers)
        }
    }
}

/// What a response's body holds until its end.
pub(super) struct Exchange {
    pub(super) conn: Box<Conn>,
    pub(super) sent: Arc<Sent>,
    /// The connection may serve another request.
    pub(super) reusable: bool,
    pub(super) at: Place,
    /// The end of `timeout.total`: the connection is cut then, polled or not.
    pub(super) deadline: Instant,
    /// `timeout.total`.
    pub(super) limit: Duration,
}

impl Exchange {
    /// What the word for a broken body means; what hyper alone has found wrong is counted here.
    fn broken(self, error: &Broken) -> OriginError {
        let error = match error {
            Broken::Hyper(error) => error,
            Broken::Direct(error) => return OriginError::of_io(error, self.at),
        };
        let why = OriginError::of(error, self.at);
        if let OriginError::Protocol { flaw, .. } = &why
            && error::flaw(error).is_none()
        {
            self.conn.count_flaw(*flaw);
        }
        why
    }

    /// Why a connection that we have closed ourselves has not brought the whole body.
    fn cut(self) -> OriginError {
        match Instant::now() >= self.deadline {
            true => OriginError::TotalTimeout { at: self.at, limit: self.limit },
            // Its driver's thread has ended.
            false => OriginError::Reset { at: self.at, cause: "it was closed on this side".into() },
        }
    }
}

/// Why a body broke off, in the words of who spoke.
enum Broken {
    Direct(std::io::Error),
    Hyper(hyper::Error),
}

impl OriginBody {
    /// Of a head that had come at this moment.
    pub(super) fn new(content: Content, exchange: Exchange, came: Mono) -> Self {
        let mut body = Self { content, open: Some(exchange), failed: false, leave: None };
        // HEAD, 204, 304 and Content-Length: 0 end here, and what has come with its head.
        body.end_if_ended(Some(came));
        body
    }

    /// The body of a 101: none, and no time limit for what follows.
    pub(super) fn upgraded(content: Content, conn: Conn) -> Self {
        conn.detach();
        Self { content, open: None, failed: false, leave: None }
    }

    /// Has it be read in large pieces, as long as `leave` holds.
    pub fn read_much(&mut self, leave: impl Leave + 'static) {
        self.leave = Some(Box::new(leave));
        if let Some(exchange) = &mut self.open {
            exchange.conn.read_much();
        }
    }

    fn end_if_ended(&mut self, now: Option<Mono>) {
        if self.content.has_come() {
            self.end(now);
        }
    }

    /// The response is complete. An answer that comes before the request's end leaves the
    /// connection in the middle of a message, so it is closed.
    fn end(&mut self, now: Option<Mono>) {
        if let Some(exchange) = self.open.take()
            && exchange.reusable
            && exchange.sent.leaves_in_order()
        {
            exchange.conn.give_back(now);
        }
    }

    fn fail(
        &mut self,
        why: impl FnOnce(Exchange) -> OriginError,
    ) -> Poll<Option<Result<Frame<Bytes>, OriginError>>> {
        self.failed = true;
        Poll::Ready(self.open.take().map(|exchange| Err(why(exchange))))
    }
}

impl Body for OriginBody {
    type Data = Bytes;
    type Error = OriginError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, OriginError>>> {
        let this = &mut *self;
        let Some(exchange) = &mut this.open else {
            let left = if this.failed { None } else { this.content.left_over() };
            return Poll::Ready(left.map(Ok));
        };
        // Under pressure what comes next is small again.
        drop(this.leave.take_if(|leave| !leave.holds()));
        let next = match exchange.conn.is_cut() {
            true => None,
            false => match &mut this.content {
                Content::Direct(content) => {
                    let most = if this.leave.is_some() { READ_MUCH } else { READ };
                    let next = ready!(content.poll_next(cx, most)).map_err(Broken::Direct);
                    next.map(|piece| piece.map(frame)).transpose()
                }
                Content::Hyper(incoming) => {
                    let polled = Pin::new(incoming).poll_frame(cx);
                    let appetite = match &this.leave {
                        _ if polled.is_ready() => Appetite::Little,
                        Some(_) => Appetite::Much,
                        None => Appetite::More,
                    };
                    exchange.conn.set_appetite(appetite);
                    ready!(polled).map(|next| next.map(kept).map_err(Broken::Hyper))
                }
            },
        };
        match next {
            Some(Ok(frame)) => {
                this.end_if_ended(None);
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => this.fail(|it| it.broken(&error)),
            // Looked at again: hyper ends a body like this too when the connection is cut just now.
            None if exchange.conn.is_cut() => this.fail(Exchange::cut),
            None => {
                this.end(None);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_over = match &self.content {
            Content::Direct(content) => content.is_over(),
            Content::Hyper(incoming) => self.open.is_none() || incoming.is_end_stream(),
        };
        is_over && !self.failed
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Direct(content) => content.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            Content::Hyper(incoming) => incoming.size_hint(),
        }
    }
}
