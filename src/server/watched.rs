//! The bytes that a client sends over HTTP/1, watched on their way to hyper.
//!
//! Knows that hyper gives out requests in the order of their heads, and that nothing of a request
//! reaches it before the scanner has seen it; and that what is answered on the short way reaches neither.
//! Must not know: what is done with a verdict.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use parking_lot::Mutex;

use super::outgoing::Outgoing;
use super::short::Short;
use crate::interim::Line;
use crate::proxy::Arrival;
use crate::scratch;
use crate::store::{InFlight, Memory, Passing, Reserved};
use crate::wire::{Fault, Requests};

/// Bytes that are read at a time: what a socket has waiting for a busy thread, and no more than hyper
/// asks for at the end of a growing buffer.
const PIECE: usize = 32 * 1024;

/// What hyper finds wrong wherever it is in a chunked body but in a chunk's data, and answers with an error
/// of the body: in place of what it would take, and the scanner does not.
const BREAK: &[u8] = b"\r\r";

/// What the scanner has seen of a connection; shared by its socket and its requests.
#[derive(Clone)]
pub(super) struct Watch(Arc<Mutex<Requests>>);

/// Bytes of a head that comes in pieces for which nobody has to ask.
const PLENTY: usize = 8 * 1024;
/// Bytes that hyper takes at most beside those of a head, whose buffer grows by doubling.
const BESIDE: usize = 32 * 1024;

/// Room for the heads of all connections that are large and not whole.
#[derive(Clone)]
pub(super) struct Heads {
    /// Of these alone.
    heads: InFlight,
    /// Of everything.
    all: InFlight,
    limit: usize,
}

impl Heads {
    /// Of heads of `limit` bytes at most.
    pub(super) fn new(memory: &Memory, limit: usize) -> Self {
        Self { heads: memory.heads().clone(), all: memory.in_flight().clone(), limit }
    }

    /// For as much as one may become; `None` where there is none.
    fn room(&self) -> Option<(Reserved, Passing)> {
        let most = (self.limit + BESIDE) as u64;
        self.heads.try_reserve(most).map(|reserved| (reserved, self.all.passing(most)))
    }
}

impl Watch {
    /// Of a new connection, whose heads may have `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self(Arc::new(Mutex::new(Requests::new(limit))))
    }

    /// Why the request of this number, the first being 1, may not be served.
    pub(super) fn fault(&self, number: u64) -> Option<Fault> {
        let requests = self.0.lock();
        (number > requests.fine()).then(|| requests.fault().unwrap_or(Fault::Lost))
    }

    /// Watches no longer: the connection has become a tunnel.
    pub(super) fn stop(&self) {
        self.0.lock().stop();
    }
}

/// A client's socket.
pub(super) struct Watched<T> {
    io: T,
    watch: Watch,
    heads: Heads,
    short: Short,
    /// What has come and was not answered on the short way.
    left: Bytes,
    /// It was tried, and leads nowhere.
    tried: bool,
    /// Held while a head is large and not whole.
    room: Option<(Reserved, Passing)>,
    /// A chunked body was found to be none.
    broken: bool,
}

/// What comes next on a connection that hyper has not seen.
pub(super) enum Next {
    /// Nothing: it is over.
    Ended,
    /// A plain request that has to be waited for.
    Asked(Box<Arrival>),
    /// Something that is hyper's.
    ForHyper,
}

/// What became of what has come.
enum Came {
    /// It has been answered, or is kept.
    Taken,
    /// It has been given to hyper; or nothing will come any more.
    Given,
}

impl<T> Watched<T> {
    /// Over `io`, whose bytes `watch` sees.
    pub(super) fn new(io: T, watch: Watch, heads: Heads, short: Short) -> Self {
        Self { io, watch, heads, short, left: Bytes::new(), tried: false, room: None, broken: false }
    }

    /// From now on hyper has this connection, and `line` is what it shares with its requests.
    pub(super) fn share(&mut self, line: Arc<Line>) {
        self.short.share(line);
    }

    /// Has a connection end that hyper has not seen, once what has been answered is written.
    pub(super) const fn end(&mut self) {
        self.short.close();
    }

    /// Whether it is to end then.
    pub(super) const fn is_closing(&self) -> bool {
        self.short.is_closing()
    }

    /// Another turn of the connection begins.
    pub(super) const fn begin_turn(&mut self) {
        self.short.begin_turn();
    }

    /// Whether others are to have their turn first.
    pub(super) const fn ends_turn(&self) -> bool {
        self.short.ends_turn()
    }

    /// So many bytes have been given to it.
    pub(super) const fn spend(&mut self, bytes: usize) {
        self.short.spend(bytes);
    }

    /// What is to be written on a connection that hyper has not seen.
    pub(super) const fn outgoing(&mut self) -> &mut Outgoing {
        self.short.outgoing()
    }

    /// So much has come of a head that is not whole.
    fn hold(&mut self, partial: usize) -> io::Result<()> {
        if partial <= PLENTY {
            self.room = None;
        } else if self.room.is_none() {
            self.room = Some(self.heads.room().ok_or(io::ErrorKind::OutOfMemory)?);
        }
        Ok(())
    }

    /// Answers what it can of these bytes, and gives how many of them they were: see [`Short::answer`].
    fn answer(&mut self, bytes: &[u8]) -> (usize, Option<Box<Arrival>>) {
        let requests = self.watch.0.lock();
        self.short.answer(bytes, &requests)
    }

    /// Keeps what of a piece was not answered, for which the first `used` bytes were.
    fn keep(&mut self, piece: &[u8], used: usize) {
        self.left = Bytes::copy_from_slice(piece.get(used..).unwrap_or_default());
        self.tried = used == 0;
    }

    /// Answers what it can of what is left, of which the first bytes are gone then; none where that leads nowhere.
    fn answer_left(&mut self) -> (usize, Option<Box<Arrival>>) {
        if self.tried {
            return (0, None);
        }
        let left = self.left.clone();
        let (used, arrival) = self.answer(&left);
        // Where nothing is left, nothing is held.
        self.left = left.slice(used.min(left.len())..);
        self.tried = used == 0;
        (used, arrival)
    }

    /// Gives bytes to hyper, which has room for them.
    fn give(&mut self, piece: &[u8], buf: &mut ReadBufCursor<'_>) -> io::Result<()> {
        let (good, partial, broken) = {
            let mut requests = self.watch.0.lock();
            (requests.watch(piece), requests.partial(), requests.fault() == Some(Fault::Chunks))
        };
        self.broken = broken;
        self.short.await_rest(partial > 0);
        self.hold(partial)?;
        buf.put_slice(piece.get(..good).unwrap_or(piece));
        if good < piece.len() && buf.remaining() >= BREAK.len() {
            buf.put_slice(BREAK);
        }
        Ok(())
    }
}

impl<T: Read + Write + Unpin> Watched<T> {
    /// Goes the short way for as long as it leads on.
    ///
    /// Cancellation: what has come and not been answered is kept here.
    pub(super) fn poll_next_alone(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Next>> {
        loop {
            ready!(self.poll_written(cx))?;
            if self.short.ends_turn() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.short.is_closing() {
                if !self.left.is_empty() {
                    self.short.break_promise();
                }
                return Pin::new(&mut self.io).poll_shutdown(cx).map_ok(|()| Next::Ended);
            }
            if !self.left.is_empty() {
                // Nothing of ours is on its way, so what is not answered now never is.
                match self.answer_left() {
                    (_, Some(arrival)) => return Poll::Ready(Ok(Next::Asked(arrival))),
                    (0, None) => return Poll::Ready(Ok(Next::ForHyper)),
                    (_, None) => continue,
                }
            }
            let read = scratch::with(PIECE, |mut piece| {
                ready!(Pin::new(&mut self.io).poll_read(cx, piece.unfilled()))?;
                let piece = piece.filled();
                let (used, arrival) = self.answer(piece);
                self.keep(piece, used);
                Poll::Ready(io::Result::Ok((piece.is_empty(), arrival)))
            });
            match ready!(read)? {
                (_, Some(arrival)) => return Poll::Ready(Ok(Next::Asked(arrival))),
                (true, None) => self.short.close(),
                (false, None) => {}
            }
        }
    }

    /// Writes what is to be written on a connection that hyper has not seen.
    pub(super) fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.short.poll_written(&mut self.io, cx)
    }

    /// Whether its client has left, who is waiting for an answer: it is read on, as far as nothing is there to be read
    /// yet.
    pub(super) fn is_left(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.left.is_empty() {
            return false;
        }
        scratch::with(PIECE, |mut piece| match Pin::new(&mut self.io).poll_read(cx, piece.unfilled()) {
            Poll::Pending => false,
            Poll::Ready(Ok(())) if !piece.filled().is_empty() => {
                self.left = Bytes::copy_from_slice(piece.filled());
                self.tried = false;
                false
            }
            Poll::Ready(_) => true,
        })
    }

    /// Reads what comes next: for the short way, or for hyper.
    fn poll_next(&mut self, cx: &mut Context<'_>, buf: &mut ReadBufCursor<'_>) -> Poll<io::Result<Came>> {
        let room = buf.remaining().saturating_sub(BREAK.len()).clamp(1, PIECE);
        if !self.left.is_empty() {
            if self.answer_left().0 > 0 {
                return Poll::Ready(Ok(Came::Taken));
            }
            let piece = self.left.split_to(room.min(self.left.len()));
            return Poll::Ready(self.give(&piece, buf).map(|()| Came::Given));
        }
        scratch::with(room, |mut piece| {
            ready!(Pin::new(&mut self.io).poll_read(cx, piece.unfilled()))?;
            let piece = piece.filled();
            match self.answer(piece).0 {
                0 => self.give(piece, buf).map(|()| Came::Given).into(),
                used => {
                    self.keep(piece, used);
                    Poll::Ready(Ok(Came::Taken))
                }
            }
        })
    }
}

impl<T: Read + Write + Unpin> Read for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.broken {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, Fault::Chunks.as_str())));
        }
        this.short.begin_turn();
        loop {
            // A client that does not take its answers is not asked for more.
            ready!(this.short.poll_written(&mut this.io, cx))?;
            if this.short.ends_turn() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match ready!(this.poll_next(cx, &mut buf))? {
                Came::Taken => {}
                Came::Given => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// What is answered on the short way goes first: hyper has nothing to write then, and begins to only later.
impl<T: Write + Unpin> Write for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.short.poll_written(&mut this.io, cx))?;
        Pin::new(&mut this.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.short.poll_written(&mut this.io, cx))?;
        Pin::new(&mut this.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.short.poll_written(&mut this.io, cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.short.poll_written(&mut this.io, cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}
