//! What those who use a connection tell its socket: which request goes out next, and how much they wait for.
//!
//! Knows that the two are on different tasks, maybe threads. Must not know: bytes, the pool.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use parking_lot::Mutex;

use super::body::Sent;
use crate::wire::Asked;

/// A request on its way to the socket.
pub(super) struct Next {
    pub(super) asked: Asked,
    pub(super) sent: Arc<Sent>,
}

/// From the sending end of a connection to its socket; one request at a time.
#[derive(Default)]
pub(super) struct Watch {
    /// Looked at by each write, so that only the first of a request takes the lock.
    waits: AtomicBool,
    next: Mutex<Option<Next>>,
    /// An [`Appetite`]. A hint, which may come too late.
    appetite: AtomicU8,
}

/// How much of an answer its reader would have at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Appetite {
    /// It has not taken what has come, or nobody reads.
    #[default]
    Little,
    /// It has taken all that has come.
    More,
    /// The same of a large body, while there is room for what it may leave lying.
    Much,
}

impl Watch {
    /// The next byte that is written is the first of this request. To be called before hyper has it.
    pub(super) fn announce(&self, next: Next) {
        *self.next.lock() = Some(next);
        self.waits.store(true, Ordering::Release);
    }

    /// Whether a request is announced whose first byte has not been written.
    pub(super) fn is_announced(&self) -> bool {
        self.waits.load(Ordering::Acquire)
    }

    /// See [`Watch::appetite`].
    pub(super) fn set_appetite(&self, appetite: Appetite) {
        self.appetite.store(appetite as u8, Ordering::Relaxed);
    }

    /// How much whoever reads waits for.
    pub(super) fn appetite(&self) -> Appetite {
        let number = self.appetite.load(Ordering::Relaxed);
        let all = [Appetite::More, Appetite::Much];
        all.into_iter().find(|appetite| *appetite as u8 == number).unwrap_or_default()
    }

    /// What has been announced and not been taken.
    pub(super) fn take(&self) -> Option<Next> {
        if !self.waits.load(Ordering::Acquire) {
            return None;
        }
        self.waits.store(false, Ordering::Release);
        self.next.lock().take()
    }
}
