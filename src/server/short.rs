//! The short way of a connection of HTTP/1: what of its requests is answered before hyper has seen them.
//!
//! Knows when hyper has nothing under way, so that an answer of ours comes in the order of its request: hyper has
//! taken every head that it was given, each of these is answered, and nothing of an answer is left to be written. Only
//! then a head that comes whole may be answered here; whatever is not is given to hyper byte for byte.
//! While there is no hyper, a plain request that cannot be answered here is read, and handed over to be answered later.
//! Must not know: how a request is answered, or what hyper makes of the others.
//!
//! Cancellation: a connection that is dropped drops what is left of its answers; the requests have been told of.

use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::rt::Write;

use super::life::Life;
use super::outgoing::Outgoing;
use crate::interim::Line;
use crate::proxy::{self, Arrival, AtOnce, Ways};
use crate::wire::{Plain, Requests};
use crate::worker::Worker;

/// What a connection is given until others have their turn: answers, of which a large one counts for several.
const TURN: usize = 16;
/// Bytes that count for as much as an answer.
const WORTH: usize = 8 * 1024;
/// The short way of one connection.
pub(super) struct Short {
    worker: Arc<Worker>,
    peer: IpAddr,
    life: Arc<Life>,
    /// Requests that it may have in all (`limits.requests`).
    most: u64,
    /// Those that hyper does not answer.
    own: u64,
    /// hyper's, once there is a hyper.
    line: Option<Arc<Line>>,
    /// What has been answered and not been written.
    outgoing: Outgoing,
    /// What it has been given in this turn.
    turn: usize,
    /// The connection ends once all is written.
    closing: bool,
}

impl Short {
    pub(super) fn new(worker: Arc<Worker>, peer: IpAddr, life: Arc<Life>, most: u64) -> Self {
        let outgoing = Outgoing::default();
        Self { worker, peer, life, most, own: 0, line: None, outgoing, turn: 0, closing: false }
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

    /// More has come from a client that had promised to send nothing more.
    pub(super) fn break_promise(&self) {
        self.life.break_promise();
    }

    /// Another turn of the connection begins.
    pub(super) const fn begin_turn(&mut self) {
        self.turn = 0;
    }

    /// Whether others are to have their turn first. Who pipelines without end would keep them waiting.
    pub(super) const fn ends_turn(&self) -> bool {
        self.turn >= TURN
    }

    /// So many bytes have been given to it.
    pub(super) const fn spend(&mut self, bytes: usize) {
        self.turn = self.turn.saturating_add(bytes / WORTH);
    }

    /// What is to be written. Others may put in what comes after it.
    pub(super) const fn outgoing(&mut self) -> &mut Outgoing {
        &mut self.outgoing
    }

    /// Answers the requests with which these bytes begin, as far as that can be done here. `requests` are those that
    /// hyper was given. Gives how many of the bytes they are; and the last of them, if that is to be answered later.
    pub(super) fn answer(&mut self, bytes: &[u8], requests: &Requests) -> (usize, Option<Box<Arrival>>) {
        let mut used = 0;
        while self.has_room() && self.may_answer(requests) {
            let Some(plain) = bytes.get(used..).and_then(Plain::of) else { break };
            let (worker, peer, before) = (&self.worker, self.peer, self.outgoing.len());
            // With hyper there, it has to be told, too, that the connection ends, and is at the next request already.
            let is_alone = self.line.is_none();
            let ways = Ways {
                // The last one has to say that it is.
                at_once: self.life.begun().saturating_add(1) < self.most,
                may_close: is_alone,
                // What is before it goes out first.
                later: is_alone && before == 0,
            };
            let out = self.outgoing.buffer();
            let answer =
                catch_unwind(AssertUnwindSafe(|| proxy::answer_at_once(worker, peer, &plain, ways, out)));
            match answer {
                Ok(Some(AtOnce::Answered(proxy::Short { rest, closes }))) => {
                    self.outgoing.put_apart(rest);
                    self.closing = closes;
                    if closes {
                        self.life.promise();
                    }
                    self.life.answered();
                    self.took(&plain, &mut used);
                    self.spend(self.outgoing.len().saturating_sub(before));
                }
                Ok(Some(AtOnce::Read(arrival))) => {
                    self.outgoing.truncate(before);
                    self.took(&plain, &mut used);
                    return (used, Some(arrival));
                }
                // A bug of ours is met on the long way, too, and told of there.
                Ok(None) | Err(_) => {
                    self.outgoing.truncate(before);
                    break;
                }
            }
        }
        (used, None)
    }

    /// This one is none of hyper's.
    fn took(&mut self, plain: &Plain<'_>, used: &mut usize) {
        self.own = self.own.saturating_add(1);
        self.turn = self.turn.saturating_add(1);
        *used = used.saturating_add(plain.size());
    }

    /// What is written is written in order, and no more than this at a time.
    fn has_room(&self) -> bool {
        self.outgoing.has_room() && !self.closing && !self.ends_turn()
    }

    /// Whether the next answer is ours to give.
    fn may_answer(&self, requests: &Requests) -> bool {
        let (life, begun) = (&self.life, self.life.begun());
        !life.is_running()
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
        self.outgoing.poll_written(io, cx)
    }
}
