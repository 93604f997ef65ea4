//! The bytes that a client sends over HTTP/1, watched on their way to hyper.
//!
//! Knows that hyper gives out requests in the order of their heads, and that nothing of a request
//! reaches it before the scanner has seen it. Must not know: what is done with a verdict.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use parking_lot::Mutex;

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
    /// Held while a head is large and not whole.
    room: Option<(Reserved, Passing)>,
    /// A chunked body was found to be none.
    broken: bool,
}

impl<T> Watched<T> {
    /// Over `io`, whose bytes `watch` sees.
    pub(super) fn new(io: T, watch: Watch, heads: Heads) -> Self {
        Self { io, watch, heads, room: None, broken: false }
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
}

impl<T: Read + Unpin> Read for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.broken {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, Fault::Chunks.as_str())));
        }
        let room = buf.remaining().saturating_sub(BREAK.len()).clamp(1, PIECE);
        scratch::with(room, |mut piece| {
            ready!(Pin::new(&mut self.io).poll_read(cx, piece.unfilled()))?;
            let piece = piece.filled();
            let (good, partial, broken) = {
                let mut requests = self.watch.0.lock();
                (requests.watch(piece), requests.partial(), requests.fault() == Some(Fault::Chunks))
            };
            self.broken = broken;
            self.hold(partial)?;
            buf.put_slice(piece.get(..good).unwrap_or(piece));
            if good < piece.len() && buf.remaining() >= BREAK.len() {
                buf.put_slice(BREAK);
            }
            Poll::Ready(Ok(()))
        })
    }
}

impl<T: Write + Unpin> Write for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
