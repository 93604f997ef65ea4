//! The short way of a connection of HTTP/1: what of its requests is answered before hyper has seen them.
//!
//! Knows when hyper has nothing under way, so that an answer of ours comes in the order of its request: hyper has
//! taken every head that it was given, each of these is answered, and nothing of an answer is left to be written. Only
//! then a head that comes whole may be answered here; whatever is not is given to hyper byte for byte.
//! Must not know: how a request is answered, or what hyper makes of the others.
//!
//! Cancellation: a connection that is dropped drops what is left of its answers; the requests have been told of.

use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::rt::Write;

use super::life::Life;
use crate::interim::Line;
use crate::proxy;
use crate::wire::{Plain, Requests};
use crate::worker::Worker;

/// Bytes of answers that are written together, where several requests came together.
const TOGETHER: usize = 16 * 1024;

/// What a connection is given until others have their turn: answers, of which a large one counts for several.
const TURN: usize = 16;
/// Bytes that count for as much as an answer.
const WORTH: usize = 8 * 1024;
/// Bytes of a buffer that a thread keeps for the next answer.
const SPARE: usize = 64 * 1024;

thread_local! {
    /// For whoever answers next: a connection that waits has none.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The short way of one connection.
pub(super) struct Short {
    worker: Arc<Worker>,
    peer: IpAddr,
    life: Arc<Life>,
    /// Requests that it may have in all (`limits.requests`).
    most: u64,
    /// Those that were answered here.
    own: u64,
    /// hyper's, once there is a hyper.
    line: Option<Arc<Line>>,
    /// What has been answered and not been written.
    out: Vec<u8>,
    rest: Bytes,
    /// What it has been given in this turn.
    turn: usize,
    /// The client has said that this was its last request.
    closing: bool,
}

impl Short {
    pub(super) fn new(worker: Arc<Worker>, peer: IpAddr, life: Arc<Life>, most: u64) -> Self {
        let (out, rest) = (Vec::new(), Bytes::new());
        Self { worker, peer, life, most, own: 0, line: None, out, rest, turn: 0, closing: false }
    }

    /// From now on hyper has this connection.
    pub(super) fn share(&mut self, line: Arc<Line>) {
        self.line = Some(line);
    }

    /// Whether hyper was given a head that is not whole.
    pub(super) fn await_rest(&self, partial: bool) {
        self.life.await_rest(partial);
    }

    /// Whether the connection is to end once all is written.
    pub(super) const fn is_closing(&self) -> bool {
        self.closing
    }

    /// Has it end once all is written.
    pub(super) const fn close(&mut self) {
        self.closing = true;
    }

    /// Another turn of the connection begins.
    pub(super) const fn begin_turn(&mut self) {
        self.turn = 0;
    }

    /// Whether others are to have their turn first. Who pipelines without end would keep them waiting.
    pub(super) const fn ends_turn(&self) -> bool {
        self.turn >= TURN
    }

    /// Answers the requests with which these bytes begin, as far as that can be done here. `requests` are those that
    /// hyper was given. Gives how many of the bytes they are.
    pub(super) fn answer(&mut self, bytes: &[u8], requests: &Requests) -> usize {
        let mut used = 0;
        while self.has_room() && self.may_answer(requests) {
            let Some(plain) = bytes.get(used..).and_then(Plain::of) else { break };
            if self.out.capacity() == 0 {
                self.out = BUFFER.take();
            }
            let (worker, peer, before) = (&self.worker, self.peer, self.out.len());
            // With hyper there, it has to be told, too, that the connection ends.
            let may_close = self.line.is_none();
            let out = &mut self.out;
            let answer = catch_unwind(AssertUnwindSafe(|| {
                proxy::answer_at_once(worker, peer, &plain, may_close, out)
            }));
            // A bug of ours is met on the long way, too, and told of there.
            let Ok(Some(proxy::Short { rest, closes })) = answer else {
                self.out.truncate(before);
                if before == 0 {
                    self.give_back();
                }
                break;
            };
            (self.rest, self.closing) = (rest, closes);
            self.own = self.own.saturating_add(1);
            let bytes = self.out.len().saturating_sub(before).saturating_add(self.rest.len());
            self.turn = self.turn.saturating_add(1 + bytes / WORTH);
            self.life.answered();
            used = used.saturating_add(plain.size());
        }
        used
    }

    /// What is written is written in order, and no more than this at a time.
    fn has_room(&self) -> bool {
        self.out.len() < TOGETHER && self.rest.is_empty() && !self.closing && !self.ends_turn()
    }

    /// Whether the next answer is ours to give. The last one has to say that it is (`connection.rs`).
    fn may_answer(&self, requests: &Requests) -> bool {
        let (life, begun) = (&self.life, self.life.begun());
        !life.is_running()
            && begun.saturating_add(1) < self.most
            && begun == self.own.saturating_add(requests.fine())
            && requests.is_at_rest()
            && self.line.as_ref().is_none_or(|line| line.is_whole())
    }

    /// Writes what has been answered, to its last byte.
    pub(super) fn poll_written<T: Write + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.out.is_empty() && self.rest.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.poll_write(io, cx)
    }

    fn poll_write<T: Write + Unpin>(&mut self, io: &mut T, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut head = self.out.as_slice();
        let written = loop {
            if head.is_empty() && self.rest.is_empty() {
                break Poll::Ready(Ok(()));
            }
            let written = match (head, self.rest.is_empty()) {
                (head, true) => Pin::new(&mut *io).poll_write(cx, head),
                ([], false) => Pin::new(&mut *io).poll_write(cx, &self.rest),
                (head, false) => {
                    let both = [io::IoSlice::new(head), io::IoSlice::new(&self.rest)];
                    Pin::new(&mut *io).poll_write_vectored(cx, &both)
                }
            };
            match written {
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(bytes)) => {
                    let of_head = bytes.min(head.len());
                    head = head.get(of_head..).unwrap_or_default();
                    self.rest.advance(bytes.saturating_sub(of_head).min(self.rest.len()));
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
