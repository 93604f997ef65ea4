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
}

impl<T> Watched<T> {
    /// Over `io`, whose bytes `watch` sees.
    pub(super) fn new(io: T, watch: Watch) -> Self {
        Self { io, watch }
    }
}

impl<T: Read + Unpin> Read for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.watch.0.lock().fault() == Some(Fault::Chunks) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, Fault::Chunks.as_str())));
        }
        let room = buf.remaining().saturating_sub(BREAK.len()).clamp(1, PIECE);
        scratch::with(room, |mut piece| {
            ready!(Pin::new(&mut self.io).poll_read(cx, piece.unfilled()))?;
            let piece = piece.filled();
            let good = self.watch.0.lock().watch(piece);
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
