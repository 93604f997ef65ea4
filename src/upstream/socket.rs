//! The socket under a connection to an origin.
//!
//! Knows how a broken pipe hides an early answer, that what comes is watched before hyper sees it, and that a
//! connection's slot lasts exactly as long as its socket, upgraded or not.
//! Must not know: what a response is, the pool's queue, or who asked.
//!
//! # Why no byte from before a request is taken for its answer
//!
//! hyper 1.12 takes what it reads for the answer to the request that it wrote last. Before it writes one it
//! reads once (`dispatch.rs`, `poll_loop`; `conn.rs`, `require_empty_read`), and gives the request back unsent
//! if anything comes. But tokio's socket does not ask the kernel as long as no event has told of anything
//! to be read, and on a busy thread the event may come after the request. So where a request has been announced
//! and nothing of it written, a read that would wait asks the kernel itself; at any other time the event is soon
//! enough. Where the request came from another thread just after that read, the first write asks. What comes
//! within this very turn, between that question and the first write, cannot be told from an answer by anybody.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::rt::Read;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::body::Sent;
use super::connection::BUFFER;
use super::pool::Slot;
use super::watch::{Appetite, Watch};
use crate::scratch;
use crate::wire::{Flaw, ResponseScanner};

/// Bytes of one read at most, while somebody waits for them, and while nobody does. One less than hyper's buffer has
/// by then: hyper doubles it whenever a read has filled it, and what a client does not take waits in several of
/// them.
pub(super) const READ: usize = 32 * 1024 - 1;
const READ_AHEAD: usize = 16 * 1024 - 1;
/// The same of a large body, where what may wait of it has been counted ([`super::Leave`]). All of hyper's buffer at its
/// largest, so that it is read into at once; it grows no further.
pub(super) const READ_MUCH: usize = BUFFER;

/// A TCP connection that gives its slot back when it is dropped.
///
/// An origin that refuses an upload answers and closes while we still send. Writing then fails
/// while the answer lies ready to be read, and hyper would report only the failed write. So after
/// a failed write the rest is thrown away, and reading tells how the connection ended: with the
/// answer, or with its own error.
pub(super) struct Socket {
    stream: TcpStream,
    deaf: bool,
    watch: Arc<Watch>,
    scanner: ResponseScanner,
    /// The request that is being answered.
    sent: Option<Arc<Sent>>,
    /// Something of it may still be in hyper's buffer.
    unflushed: bool,
    /// The kernel has been asked, since the next request was announced, whether anything came before it.
    asked: bool,
    slot: Slot,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, slot: Slot, watch: Arc<Watch>, scanner: ResponseScanner) -> Self {
        let (deaf, sent, unflushed, asked) = (false, None, false, false);
        Self { stream, deaf, watch, scanner, sent, unflushed, asked, slot }
    }

    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(&mut self.stream)
    }

    /// hyper writes, and if a request has been announced, this is its first byte.
    fn begins_to_write(&mut self) -> io::Result<()> {
        if let Some(next) = self.watch.take() {
            // The end of the stream is for the next read to find.
            if !std::mem::take(&mut self.asked)
                && self.scanner.is_idle()
                && peek(&self.stream).is_ok_and(|came| came > 0)
            {
                return Err(self.refuse(Flaw::Unasked));
            }
            self.scanner.ask(next.asked);
            self.sent = Some(next.sent);
        }
        self.unflushed = true;
        Ok(())
    }

    /// What a write came to: where the peer has gone, all of it counts as written.
    fn written(&mut self, result: io::Result<usize>, offered: usize) -> io::Result<usize> {
        match result {
            Err(error) if peer_gone(&error) => {
                self.deaf = true;
                Ok(offered)
            }
            result => result,
        }
    }

    /// Looks at what came, before hyper does; gives how many bytes of it are for hyper.
    fn look_at(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let answered = self.scanner.finals();
        let taken = self.scanner.read(bytes).map_err(|flaw| self.refuse(flaw))?;
        if self.scanner.is_beyond() {
            self.count(Flaw::Unasked);
        }
        // hyper flushes its buffer to the end, and then this socket, before it reads again.
        if self.scanner.finals() != answered
            && let Some(sent) = &self.sent
            && (self.unflushed || !sent.ended() || self.may_be_more())
        {
            sent.answered_early();
        }
        Ok(taken)
    }

    /// Whether what follows the head that has come may be of no use to anybody: a HEAD's answer whose content
    /// comes a moment later would be taken for the answer to who asks next.
    fn may_be_more(&self) -> bool {
        self.scanner.is_beyond() || self.scanner.is_of_head() && self.slot.fills_heads()
    }

    /// What a read came to. One that would wait, where a request is announced and nothing of it written, asks the
    /// kernel itself.
    fn or_by_asking(&mut self, polled: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        if polled.is_ready() || !self.scanner.is_idle() || !self.watch.is_announced() {
            return polled;
        }
        self.asked = true;
        match peek(&self.stream) {
            // Its end: hyper sees it as if it had been read.
            Ok(0) => Poll::Ready(Ok(())),
            Ok(_) => Poll::Ready(Err(self.refuse(Flaw::Unasked))),
            // The event will come, for which the read has asked to be woken.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn refuse(&self, flaw: Flaw) -> io::Error {
        self.count(flaw);
        refused(flaw)
    }

    fn count(&self, flaw: Flaw) {
        self.slot.count(flaw, self.scanner.is_of_head());
    }
}

/// Whether anything, or the end, has come that no event has told of.
pub(super) fn peek(stream: &TcpStream) -> io::Result<usize> {
    SockRef::from(stream).peek(&mut [MaybeUninit::uninit()])
}

/// The error of a connection that a flaw ends; `error.rs` finds it in there.
pub(super) fn refused(flaw: Flaw) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, flaw)
}

/// The peer may have said something before it went.
pub(super) fn peer_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // What came beyond the answer to a HEAD is nobody's: for hyper the connection ends with that answer.
        if self.scanner.is_beyond() {
            return Poll::Ready(Ok(()));
        }
        let most = match self.watch.appetite() {
            Appetite::Little => READ_AHEAD,
            Appetite::More => READ,
            Appetite::Much => READ_MUCH,
        };
        // Where hyper has room for more, the piece comes by way of a smaller buffer.
        if buf.remaining() > most {
            return scratch::with(most, |mut read| {
                let mut stream = TokioIo::new(&mut self.stream);
                let polled = Pin::new(&mut stream).poll_read(cx, read.unfilled());
                ready!(self.or_by_asking(polled))?;
                let taken = self.look_at(read.filled())?;
                buf.put_slice(read.filled().get(..taken).unwrap_or_default());
                Poll::Ready(Ok(()))
            });
        }
        let before = buf.filled().len();
        let polled = self.stream().poll_read(cx, buf);
        ready!(self.or_by_asking(polled))?;
        let taken = self.look_at(buf.filled().get(before..).unwrap_or_default())?;
        buf.set_filled(before.saturating_add(taken));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.begins_to_write()?;
        if self.deaf {
            return Poll::Ready(Ok(buf.len()));
        }
        let result = ready!(self.stream().poll_write(cx, buf));
        Poll::Ready(self.written(result, buf.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // Most requests are a head alone.
        if let [one] = bufs {
            return self.poll_write(cx, one);
        }
        self.begins_to_write()?;
        let offered = bufs.iter().map(|buf| buf.len()).sum();
        if self.deaf {
            return Poll::Ready(Ok(offered));
        }
        let result = ready!(self.stream().poll_write_vectored(cx, bufs));
        Poll::Ready(self.written(result, offered))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.unflushed = false;
        if self.deaf {
            return Poll::Ready(Ok(()));
        }
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Ready(Ok(()));
        }
        self.stream().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Weak;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::super::body::RequestBody;
    use super::super::watch::Next;
    use super::*;
    use crate::wire::{Asked, Limits};

    const HEAD: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

    #[tokio::test]
    async fn the_first_write_of_a_request_finds_what_has_come_since_the_last_read() {
        for comes in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut far, _) = listener.accept().await.unwrap();
            let watch = Arc::<Watch>::default();
            let slot = Slot { id: 1, pool: Weak::new(), gone: Arc::default() };
            let scanner = ResponseScanner::new(Limits { section: 1024, fields: 8, interims: 1 });
            let mut socket = Socket::new(near, slot, Arc::clone(&watch), scanner);
            if comes {
                far.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                socket.stream.readable().await.unwrap();
            }
            watch.announce(Next {
                asked: Asked::Other,
                sent: RequestBody::empty().watch(tokio::time::Instant::now()),
            });
            let written = poll_fn(|cx| Pin::new(&mut socket).poll_write(cx, HEAD)).await;
            match comes {
                false => assert_eq!(written.unwrap(), HEAD.len()),
                true => assert_eq!(written.unwrap_err().kind(), io::ErrorKind::InvalidData),
            }
        }
    }
}
