//! The budget of bodies on their way into the cache.
//!
//! Knows one number that all workers share: bytes that fills hold before the memory tier has them.
//! The tier's own budget does not cover them, so without this one many large fills at once could
//! take any amount of memory. A fill that gets no more passes its response through unstored.
//! Must not know: bodies, or what is done with them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A shared budget of bytes; clones share it.
#[derive(Clone, Debug)]
pub struct InFlight(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    limit: u64,
    used: AtomicU64,
}

/// A part of the budget; given back when dropped.
#[derive(Debug)]
pub struct Reserved {
    budget: InFlight,
    bytes: u64,
}

impl InFlight {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Budget { limit, used: AtomicU64::new(0) }))
    }

    /// Takes `bytes` of the budget, or nothing when they are not left.
    pub fn try_reserve(&self, bytes: u64) -> Option<Reserved> {
        self.take(bytes).then(|| Reserved { budget: self.clone(), bytes })
    }

    /// The same where `others` of the budget are taken by what it does not count.
    pub fn try_reserve_beside(&self, bytes: u64, others: u64) -> Option<Reserved> {
        let is_room = self.used().saturating_add(others).saturating_add(bytes) <= self.0.limit;
        is_room.then(|| self.try_reserve(bytes)).flatten()
    }

    /// Bytes taken.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> bool {
        let taken = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.0.limit);
        // The number guards no other memory, so no ordering with other accesses is needed.
        self.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }
}

impl Reserved {
    /// Takes `more` bytes of the budget; `false`, and nothing is taken, when they are not left.
    pub fn grow(&mut self, more: u64) -> bool {
        let grown = self.budget.take(more);
        if grown {
            self.bytes = self.bytes.saturating_add(more);
        }
        grown
    }

    /// Bytes reserved.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn what_is_taken_is_given_back_when_dropped() {
        let budget = InFlight::new(100);
        let mut one = budget.try_reserve(60).unwrap();
        assert!(budget.try_reserve(41).is_none());
        assert!(!one.grow(41), "not left");
        assert!(one.grow(40));
        assert_eq!((one.bytes(), budget.used()), (100, 100));
        assert!(budget.try_reserve(u64::MAX).is_none(), "no overflow");
        drop(one);
        assert_eq!(budget.used(), 0);
        assert!(budget.try_reserve(100).is_some());
    }

    #[test]
    fn threads_never_take_more_than_there_is() {
        let budget = InFlight::new(50);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        let held = budget.try_reserve(20);
                        assert!(budget.used() <= 50);
                        drop(held);
                    }
                });
            }
        });
        assert_eq!(budget.used(), 0);
    }
}
