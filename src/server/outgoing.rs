//! What is on its way to a client that hyper does not write: bytes that were copied, a piece that was not, and a few
//! behind it.
//!
//! Knows how much is worth copying, so that a head and a small body go out in one piece, and that a connection that
//! waits has no buffer.
//! Must not know: what the bytes mean.
//!
//! Cancellation: what is dropped with it has not gone out.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::rt::Write;

/// Bytes that are copied behind each other: to hand several pieces to the system takes longer.
const TOGETHER: usize = 16 * 1024;
/// Bytes of a buffer that a thread keeps for the next answer.
const SPARE: usize = 64 * 1024;

thread_local! {
    /// For whoever answers next.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What has not been written.
#[derive(Default)]
pub(super) struct Outgoing {
    out: Vec<u8>,
    rest: Bytes,
    after: &'static [u8],
}

impl Outgoing {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all of it.
    pub(super) fn len(&self) -> usize {
        self.out.len().saturating_add(self.rest.len()).saturating_add(self.after.len())
    }

    /// Whether anything more may be put behind what there is.
    pub(super) fn has_room(&self) -> bool {
        self.out.len() < TOGETHER && self.rest.is_empty() && self.after.is_empty()
    }

    /// Where bytes are copied to. To be asked for only while it [has room](Self::has_room).
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        if self.out.capacity() == 0 {
            self.out = BUFFER.take();
        }
        &mut self.out
    }

    /// Takes back what was copied last, to where it had `len` bytes.
    pub(super) fn truncate(&mut self, len: usize) {
        self.out.truncate(len);
        if self.is_empty() {
            self.give_back();
        }
    }

    /// Adds a piece and what comes after it; copied where that is little.
    pub(super) fn put(&mut self, piece: Bytes, after: &'static [u8]) {
        let room = TOGETHER.saturating_sub(self.out.len());
        if piece.len().saturating_add(after.len()) <= room {
            let out = self.buffer();
            out.extend_from_slice(&piece);
            out.extend_from_slice(after);
        } else {
            (self.rest, self.after) = (piece, after);
        }
    }

    /// Adds a piece that is not copied.
    pub(super) fn put_apart(&mut self, piece: Bytes) {
        self.rest = piece;
    }

    /// Writes all of it, to its last byte.
    pub(super) fn poll_written<T: Write + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut head = self.out.as_slice();
        let written = loop {
            let (rest, after) = (self.rest.as_ref(), self.after);
            let written = match (head, rest, after) {
                ([], [], []) => break Poll::Ready(Ok(())),
                (one, [], []) | ([], one, []) | ([], [], one) => Pin::new(&mut *io).poll_write(cx, one),
                (head, rest, after) => {
                    let all = [IoSlice::new(head), IoSlice::new(rest), IoSlice::new(after)];
                    Pin::new(&mut *io).poll_write_vectored(cx, &all)
                }
            };
            match written {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(bytes)) => {
                    let of_head = bytes.min(head.len());
                    head = head.get(of_head..).unwrap_or_default();
                    let bytes = bytes.saturating_sub(of_head);
                    let of_rest = bytes.min(self.rest.len());
                    self.rest.advance(of_rest);
                    self.after = self.after.get(bytes.saturating_sub(of_rest)..).unwrap_or_default();
                }
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        let from = self.out.len().saturating_sub(head.len());
        self.out.drain(..from);
        ready!(written)?;
        self.rest = Bytes::new();
        self.give_back();
        Poll::Ready(Ok(()))
    }

    /// What is written needs no room any more.
    fn give_back(&mut self) {
        let out = std::mem::take(&mut self.out);
        if out.capacity() <= SPARE {
            BUFFER.set(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes at a time, and says "not now" between.
    struct Narrow {
        most: usize,
        turn: bool,
        taken: Vec<u8>,
    }

    impl Write for Narrow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.turn = !self.turn;
            if !self.turn {
                return Poll::Pending;
            }
            let most = self.most.min(buf.len());
            self.taken.extend_from_slice(&buf[..most]);
            Poll::Ready(Ok(most))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = bufs.iter().flat_map(|buf| buf.to_vec()).collect();
            self.poll_write(cx, &all)
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_is_put_in_goes_out_in_order_however_little_is_taken_at_a_time() {
        for (piece, after) in [(0, &b""[..]), (5, b"!"), (5, b""), (TOGETHER, b""), (TOGETHER + 9, b"\r\n0")]
        {
            for most in [1, 3, 1000, usize::MAX] {
                let mut outgoing = Outgoing::default();
                outgoing.buffer().extend_from_slice(b"head");
                outgoing.put(Bytes::from(vec![b'x'; piece]), after);
                let whole = [&b"head"[..], &vec![b'x'; piece], after].concat();
                assert_eq!(outgoing.len(), whole.len());
                let mut io = Narrow { most, turn: false, taken: Vec::new() };
                let cx = &mut Context::from_waker(std::task::Waker::noop());
                while outgoing.poll_written(&mut io, cx).is_pending() {}
                assert!(io.taken == whole && outgoing.is_empty() && outgoing.has_room(), "{piece} by {most}");
                assert_eq!(outgoing.out.capacity(), 0, "whoever waits has none");
            }
        }
    }
}
