//! What those who use a connection tell its socket: which request goes out next, and whether they wait for more.
//!
//! Knows that the two are on different tasks, maybe threads. Must not know: bytes, the pool.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    /// Whoever reads the answer has taken all that has come. A hint, which may come too late.
    awaited: AtomicBool,
}

impl Watch {
    /// The next byte that is written is the first of this request. To be called before hyper has it.
    pub(super) fn announce(&self, next: Next) {
        *self.next.lock() = Some(next);
        self.waits.store(true, Ordering::Release);
    }

    /// See [`Watch::is_awaited`].
    pub(super) fn await_more(&self, awaited: bool) {
        self.awaited.store(awaited, Ordering::Relaxed);
    }

    /// Whether somebody waits for what comes next.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed)
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
