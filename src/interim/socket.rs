//! The socket under a client's connection, through which interim responses go out.
//!
//! Knows when hyper's stream is at the boundary of two messages. Must not know: what is sent.
//!
//! # Why a whole interim head never lands inside another message
//!
//! By hyper 1.12, `proto/h1`, without `pipeline_flush` (which stays off):
//!
//! 1. A connection is one task. Each turn of its loop (`dispatch.rs`, `poll_loop`) reads, then writes
//!    into hyper's own buffer, then flushes that into this socket: `poll_read`, `poll_write`,
//!    `poll_flush`. No turn reads again before it has tried to flush what it wrote.
//! 2. A request's future is made in `poll_read`, once the response before it has been put into the
//!    buffer to its last byte; it is polled in `poll_write` alone, and its own response's head is put
//!    into the buffer only when it has returned `Ready`.
//! 3. `Buffered::poll_flush` (`io.rs`) calls our `poll_flush` only when its buffer is empty, after it has
//!    called our `poll_write` for whatever was in there.
//!
//! So `whole`, false from each write of hyper's until the next call of our `poll_flush`, means while a
//! request's future is polled: every byte of the responses before has been taken (by 1 and 2 a flush was
//! tried since the last of them was buffered; by 3 it came to our `poll_flush` only if all were taken).
//! hyper may then have in its buffer only `HTTP/1.1 100 Continue`, whole, since it is put there while
//! the request's body is read (`conn.rs`, `poll_read_body`): a message of its own.
//!
//! [`Answering`](super::Answering) moves interim heads to the line's `out` only while it is polled and
//! `whole` is true. Whatever hyper does next with this socket, `out` goes first, to its last byte: before
//! the first byte of a `100 Continue`, or of the response whose future has just ended. Nothing moves
//! after that, since a future that has ended is not polled.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};

use super::line::Line;

/// A byte stream to a client that takes interim responses between hyper's own messages.
pub struct Socket<T> {
    io: T,
    line: Arc<Line>,
    /// What is left of the interim heads that are being written.
    rest: Bytes,
}

impl<T: Write + Unpin> Socket<T> {
    /// Over `io`; `line` is this connection's own.
    pub fn new(io: T, line: Arc<Line>) -> Self {
        Self { io, line, rest: Bytes::new() }
    }

    /// Writes the interim heads that wait, to their last byte.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.line.waits() {
            return Poll::Ready(Ok(()));
        }
        if self.rest.is_empty() {
            self.rest = self.line.take();
        }
        while self.rest.has_remaining() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.rest.advance(written),
            }
        }
        self.rest = Bytes::new();
        self.line.written();
        Poll::Ready(Ok(()))
    }
}

impl<T: Read + Unpin> Read for Socket<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: Write + Unpin> Write for Socket<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        self.line.begun();
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_interim(cx))?;
        self.line.begun();
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_interim(cx))?;
        // Whether or not the stream below has passed it on: what is written next comes after it.
        if self.line.ended() {
            // hyper does not poll a request's future while the body of the response before is still in
            // its buffer, nor wake itself for it when that has gone out: such a request, sent before the
            // end of the last one was read, would wait for whatever else wakes this connection.
            cx.waker().wake_by_ref();
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper has flushed before; what has not gone out by then is for nobody.
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
