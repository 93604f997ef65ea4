//! What a client's connection, its request's future and the way to the origin share of interim
//! responses.
//!
//! Knows whose turn it is and what waits; bounds both. Heads are put in from any task at any time;
//! they go on only in [`Turn::collect`], which the request's future calls when it is polled.
//! Must not know: sockets, hyper, origins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use parking_lot::Mutex;

use super::head;

/// Interim responses of one request that reach its client at most.
const HEADS: u32 = 16;
/// Bytes of them that may wait at a time, in the mailbox and again for the socket.
const WAITING: usize = 16 * 1024;

/// What has become of interim responses, in the whole process.
#[derive(Debug, Default)]
pub struct Counts {
    passed: AtomicU64,
    dropped: AtomicU64,
}

impl Counts {
    /// Handed to the client's socket.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Meant for a client that could not be sent them: it had left or was answered already, read too
    /// slowly, or they were too many or too large.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// One for each client connection of HTTP/1.
pub struct Line {
    /// What Larder adds to `Via`.
    via: HeaderValue,
    counts: Arc<Counts>,
    state: Mutex<State>,
    /// Something is in the mailbox. Set and cleared under the lock.
    mail: AtomicBool,
    /// What hyper has begun to write has been taken to its last byte. Like `waits`, touched by the
    /// connection's own task alone.
    whole: AtomicBool,
    /// Interim heads have been taken for the socket and are not all written.
    waits: AtomicBool,
}

#[derive(Default)]
struct State {
    /// The number of the request that may be told something.
    turn: u64,
    /// Whether it still may.
    open: bool,
    /// How many heads have come for it.
    heads: u32,
    /// Whole heads that have come and not been collected, and how many.
    mail: Vec<u8>,
    mailed: u32,
    /// Whole heads that are for the socket to take.
    out: Vec<u8>,
    waker: Option<Waker>,
}

impl Line {
    /// A new connection's; `pseudonym` is Larder's name in `Via`.
    pub fn new(pseudonym: &str, counts: Arc<Counts>) -> Arc<Self> {
        let via = format!("1.1 {pseudonym}");
        Arc::new(Self {
            via: HeaderValue::from_str(&via).unwrap_or(HeaderValue::from_static("1.1 larder")),
            counts,
            state: Mutex::default(),
            mail: AtomicBool::new(false),
            whole: AtomicBool::new(true),
            waits: AtomicBool::new(false),
        })
    }

    /// A request has come: from now on it is the one that may be told something.
    pub fn open(self: &Arc<Self>) -> Turn {
        let mut state = self.state.lock();
        state.turn += 1;
        (state.open, state.heads) = (true, 0);
        Turn { line: Arc::clone(self), number: state.turn }
    }

    /// Whether all that hyper has begun to write has been taken to its last byte, and no interim head waits.
    pub fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Relaxed) && !self.waits()
    }

    /// Whether there are interim heads to be written before anything else.
    pub(super) fn waits(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    /// The interim heads to be written.
    pub(super) fn take(&self) -> Bytes {
        std::mem::take(&mut self.state.lock().out).into()
    }

    /// The same, for who writes them without hyper: nothing where they have been taken already.
    pub fn take_waiting(&self) -> Bytes {
        if self.waits() { self.take() } else { Bytes::new() }
    }

    /// All that was taken has been written.
    pub fn written(&self) {
        self.waits.store(false, Ordering::Relaxed);
    }

    /// hyper begins to write something.
    pub(super) fn begun(&self) {
        self.whole.store(false, Ordering::Relaxed);
    }

    /// What hyper had to write has been taken to its last byte. Says whether that ended a wait that a
    /// request may have been made to share: its turn has come already.
    pub(super) fn ended(&self) -> bool {
        if self.whole.load(Ordering::Relaxed) {
            return false;
        }
        self.whole.store(true, Ordering::Relaxed);
        self.state.lock().open
    }

    fn collect(&self, waker: Option<&Waker>) {
        if waker.is_none() && !self.mail.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.state.lock();
        if let Some(waker) = waker
            && !state.waker.as_ref().is_some_and(|known| known.will_wake(waker))
        {
            state.waker = Some(waker.clone());
        }
        if state.mail.is_empty() {
            return;
        }
        let (mail, mailed) = self.empty(&mut state);
        // Where earlier ones are stuck, the client is slow: these are not worth their memory.
        if !self.whole.load(Ordering::Relaxed) || self.waits() {
            self.drop_heads(mailed);
            return;
        }
        state.out = mail;
        self.waits.store(true, Ordering::Relaxed);
        self.counts.passed.fetch_add(mailed.into(), Ordering::Relaxed);
    }

    fn close(&self, turn: u64) {
        let mut state = self.state.lock();
        if state.turn != turn {
            return;
        }
        state.open = false;
        // It belongs to the task that owns this line: kept, each would keep the other alive.
        let waker = state.waker.take();
        let (_, mailed) = self.empty(&mut state);
        drop(state);
        drop(waker);
        self.drop_heads(mailed);
    }

    fn empty(&self, state: &mut State) -> (Vec<u8>, u32) {
        self.mail.store(false, Ordering::Release);
        (std::mem::take(&mut state.mail), std::mem::take(&mut state.mailed))
    }

    fn is_wanted(&self, turn: u64) -> bool {
        let state = self.state.lock();
        state.open && state.turn == turn && state.heads < HEADS
    }

    /// Puts a whole head into the mailbox; `false` where there is no room, or nobody to read it.
    fn post(&self, turn: u64, head: &[u8]) -> bool {
        let mut state = self.state.lock();
        let fits = state.mail.len().saturating_add(head.len()) <= WAITING;
        if !state.open || state.turn != turn || state.heads >= HEADS || !fits {
            return false;
        }
        state.heads += 1;
        state.mailed += 1;
        state.mail.extend_from_slice(head);
        self.mail.store(true, Ordering::Release);
        let waker = state.waker.clone();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    fn drop_heads(&self, heads: u32) {
        self.counts.dropped.fetch_add(heads.into(), Ordering::Relaxed);
    }
}

/// The time in which one request may be told something: from its coming until its future has ended
/// or was dropped.
pub struct Turn {
    line: Arc<Line>,
    number: u64,
}

impl Turn {
    /// Which request of its connection this is, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What those get who forward the request.
    pub fn interim(&self) -> Interim {
        Interim { line: Arc::clone(&self.line), turn: self.number, withheld: None }
    }

    /// Takes what has come on to the socket. `waker` is to be woken when more comes.
    pub(super) fn collect(&self, waker: Option<&Waker>) {
        self.line.collect(waker);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.line.close(self.number);
    }
}

/// The way to the client of one request, for interim responses. It may outlive the request: what it is
/// given then is dropped.
#[derive(Clone)]
pub struct Interim {
    line: Arc<Line>,
    turn: u64,
    withheld: Option<Arc<[HeaderName]>>,
}

impl Interim {
    /// The same, for responses of which these fields are not for clients.
    #[must_use]
    pub fn without(self, withheld: Option<Arc<[HeaderName]>>) -> Self {
        Self { withheld, ..self }
    }

    /// Passes an interim response on, if it is one for clients and there is room.
    ///
    /// Not a 100: it answers an expectation (RFC 9110 §10.1.1), which Larder takes from the client and
    /// answers itself, and never sends to an origin. One that comes all the same says nothing that
    /// anybody acts on ("the client can simply discard this interim response", §15.2.1), and whoever
    /// has sent `Expect` would get two. Not a 101 either, which is final for HTTP.
    pub fn pass(&self, status: StatusCode, headers: &HeaderMap) {
        let stays = status == StatusCode::CONTINUE || status == StatusCode::SWITCHING_PROTOCOLS;
        if stays || !status.is_informational() {
            return;
        }
        // Looked at first, so that a flood of them costs little.
        let withheld = self.withheld.as_deref().unwrap_or_default();
        let posted = self.line.is_wanted(self.turn)
            && self.line.post(self.turn, &head::bytes(status, headers, withheld, &self.line.via));
        if !posted {
            self.line.drop_heads(1);
        }
    }
}
