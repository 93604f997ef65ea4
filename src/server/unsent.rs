//! How much the system may hold for a client beyond what is on its way to it.
//!
//! Knows that as long as the system has enough for a client, one that is slow looks like one that has stopped: so it
//! holds little. A large answer then goes out in many small writes, so it holds more for who has just shown that it
//! takes much quickly; and where that one becomes slow, what it has taken is found out from what is left.
//! Must not know: what is written, or when a client is given up.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use crate::pace::{Debt, Pace};
use crate::store::{InFlight, Reserved};

/// Bytes that the system may hold for a client beyond what is on its way (`TCP_NOTSENT_LOWAT`). Left to itself it takes
/// megabytes, and then nothing until a third of them is gone: for as long, a client that reads slowly looks like one
/// that has stopped (`limits.response_grace`). With this it tells of every 64 KiB, so they are told apart from 3 KB/s on.
/// Large enough for a fast client not to wait for the next turn, unless what it gets is larger than [`LARGE`].
pub(super) const UNSENT: u32 = 128 * 1024;

/// The same for who takes a large answer quickly. Each write costs a turn of the thread and finds its caches cold: a body
/// of 1 MiB in three of them costs 1.45 times what it costs in one. `SO_SNDBUF` is left alone: who sets it ends the
/// system's own sizing, which far clients need, and gets no more than `net.core.wmem_max`, 208 KiB on most systems.
pub(super) const WIDE: u32 = 1024 * 1024;
/// Bytes of an answer that are worth it. Up to 256 KiB a body gets out with [`UNSENT`] just as well.
const LARGE: usize = 512 * 1024;

/// Whoever keeps us waiting for longer is not quick. At this rate what the system may hold is gone in an eighth of a
/// second: before it is missed in a drain, or by who waits for memory.
const QUICK: Pace = Pace { rate: 8 * 1024 * 1024, grace: Duration::from_millis(100) };
/// Bytes that are to be taken quickly, in pieces of more than [`UNSENT`], before more is held.
const PROOF: u64 = 512 * 1024;

/// How long a client may take nothing of what is there for it until it is looked at closely.
const LOOK: Duration = Duration::from_secs(1);
/// What it has to take then to be seen to take anything: as much as of [`UNSENT`].
const STEP: u32 = UNSENT / 2;

/// What the system may hold for one client.
pub(super) struct Unsent {
    /// For what is held of [`WIDE`], of all clients together.
    room: InFlight,
    /// How far from quick it is.
    debt: Debt,
    /// Bytes that it has taken in large pieces since it was not.
    taken: u64,
    wide: Option<Box<Wide>>,
}

/// More may be held.
struct Wide {
    look: Look,
    /// The client has said something since: what is written next may be another answer.
    asked: bool,
    _room: Reserved,
}

/// How closely a client is looked at for which much may be held.
enum Look {
    /// Not at all: it takes what there is.
    Not,
    /// It takes nothing, and will be looked at then.
    Later(Pin<Box<Sleep>>),
    /// Nothing more is held than for others, as soon as as little is left.
    Less,
    /// The same, and the system tells when it has as little as this for it.
    At(u32),
}

impl Unsent {
    /// `room` is what the system may hold more for all clients together.
    pub(super) const fn new(room: InFlight) -> Self {
        Self { room, debt: Debt::UNOWED, taken: 0, wide: None }
    }

    /// The client has said something.
    pub(super) fn hear(&mut self) {
        if let Some(wide) = &mut self.wide {
            wide.asked = true;
        }
    }

    /// So many bytes are to be written next. Gives what the client was seen to have taken since the last write, 0
    /// mostly. While this waits nothing can be written.
    pub(super) fn poll_offer(&mut self, stream: &TcpStream, bytes: usize, cx: &mut Context<'_>) -> Poll<u64> {
        let Some(wide) = &mut self.wide else {
            if bytes >= LARGE && self.taken >= PROOF {
                self.widen(stream);
            }
            return Poll::Ready(0);
        };
        match &mut wide.look {
            Look::Not if wide.asked => {
                wide.asked = false;
                if bytes < LARGE {
                    wide.less(stream);
                }
            }
            Look::Later(time) => {
                if time.as_mut().poll(cx).is_ready() {
                    self.taken = 0;
                    wide.less(stream);
                }
            }
            Look::At(_) => {
                // An error is met by the write.
                let _left = ready!(stream.poll_write_ready(cx));
                hold(stream, UNSENT);
                return Poll::Ready(STEP.into());
            }
            Look::Not | Look::Less => {}
        }
        Poll::Ready(0)
    }

    /// What it has come to to write so many bytes.
    pub(super) fn wrote(
        &mut self,
        stream: &TcpStream,
        bytes: usize,
        written: &Poll<std::io::Result<usize>>,
        cx: &mut Context<'_>,
    ) {
        match written {
            Poll::Ready(Ok(taken)) => {
                if bytes > UNSENT as usize {
                    self.taken = self.taken.saturating_add(*taken as u64);
                    self.debt.pay(*taken as u64, &QUICK);
                }
                match self.wide.as_mut().map(|wide| &mut wide.look) {
                    // It was taken though no more may be held than for others.
                    Some(Look::Less | Look::At(_)) => self.wide = None,
                    Some(look @ Look::Later(_)) => *look = Look::Not,
                    Some(Look::Not) | None => {}
                }
            }
            Poll::Pending => {
                if let Some(wide) = &mut self.wide
                    && wide.pause(stream, cx)
                {
                    self.wide = None;
                }
            }
            Poll::Ready(Err(_)) => {}
        }
    }

    /// The client has kept us waiting for so long.
    pub(super) fn waited(&mut self, stream: &TcpStream, waited: Duration) {
        self.debt.wait(waited, &QUICK);
        if self.debt.left(&QUICK).is_zero() {
            self.taken = 0;
            if let Some(wide) = &mut self.wide
                && matches!(wide.look, Look::Not | Look::Later(_))
            {
                wide.less(stream);
            }
        }
    }

    /// Whether what is left is looked at.
    #[cfg(test)]
    pub(super) fn is_looked_at(&self) -> bool {
        self.wide.as_ref().is_some_and(|wide| matches!(wide.look, Look::Less | Look::At(_)))
    }

    fn widen(&mut self, stream: &TcpStream) {
        if let Some(room) = self.room.try_reserve((WIDE - UNSENT).into()) {
            hold(stream, WIDE);
            self.wide = Some(Box::new(Wide { look: Look::Not, asked: false, _room: room }));
        }
    }
}

impl Wide {
    /// No more is to be held than for others. What is held already stays.
    fn less(&mut self, stream: &TcpStream) {
        hold(stream, UNSENT);
        self.look = Look::Less;
    }

    /// Nothing was taken. Gives whether no more is held than for others.
    fn pause(&mut self, stream: &TcpStream, cx: &mut Context<'_>) -> bool {
        let next = match &self.look {
            Look::Not => {
                let mut time = Box::pin(sleep(LOOK));
                if time.as_mut().poll(cx).is_pending() {
                    self.look = Look::Later(time);
                }
                return false;
            }
            Look::Later(_) => return false,
            // As much is held at least, if the system's own limit is not lower, and no more than a packet beyond it.
            Look::Less => WIDE,
            Look::At(held) => held.saturating_sub(STEP),
        };
        // Nothing was taken, so that from now on the system tells again when it has room; which it has at half of what it
        // may hold. It is told that it may hold more, and given nothing.
        self.look = Look::At(next);
        if next > UNSENT / 2 {
            hold(stream, next.saturating_mul(2));
        }
        next <= UNSENT / 2
    }
}

/// Where the system has no such limit, slow clients are told from stopped ones by what it buffers.
fn hold(stream: &TcpStream, bytes: u32) {
    let _it_is_a_help_only = SockRef::from(stream).set_tcp_notsent_lowat(bytes);
}
