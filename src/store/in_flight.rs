//! What bodies take of memory beside those that are stored.
//!
//! Knows a few numbers that all workers share: bytes that fills hold before the memory tier has them, those of
//! bodies that it has given up and somebody still reads, and what answers on their way hold. All of it is
//! memory as much as what is stored is, so the tier holds so much less (`memory.rs`, `Yielding`). A fill that
//! gets no room passes its response through unstored.
//! Must not know: bodies, or what is done with them.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use crate::apart;

/// A shared budget of bytes; clones share it.
#[derive(Clone, Debug)]
pub struct InFlight(Arc<Budget>);

struct Budget {
    limit: u64,
    /// From where on room is scarce, of what is taken and what lingers; and none, of everything together.
    scarce: u64,
    none: u64,
    used: AtomicU64,
    /// As it was last looked at.
    lingering: AtomicU64,
    /// What has been taken, is not to be kept any more, and is yet to be read.
    left: AtomicU64,
    /// Stored, and read by those who were there before: the tier can give it up, and it stays in memory.
    pinned: AtomicU64,
    /// What answers and heads on their way hold.
    passing: AtomicU64,
    /// Told whenever the sum has changed.
    told: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("limit", &self.limit).field("used", &self.used).finish_non_exhaustive()
    }
}

/// A budget that somebody else keeps.
pub(super) struct Weakly(Weak<Budget>);

impl Weakly {
    /// See [`InFlight::all`].
    pub(super) fn all(&self) -> Option<u64> {
        self.0.upgrade().map(|budget| InFlight(budget).all())
    }
}

/// A part of the budget; given back when dropped.
#[derive(Debug)]
pub struct Reserved {
    budget: InFlight,
    bytes: u64,
    /// What is pinned takes of the same room.
    beside_pinned: bool,
}

/// What is in memory whether or not there is room; counted until it is dropped.
#[derive(Debug)]
pub struct Passing {
    budget: InFlight,
    bytes: u64,
    of: Of,
}

/// As what something is counted.
#[derive(Clone, Copy, Debug)]
enum Of {
    Passing,
    Left,
    Pinned,
}

/// Bytes that an answer on its way holds between an origin, or a body that is written, and a slow client: in hyper's
/// buffers on both sides, ours, and the tasks of the two connections; as measured.
pub const STREAMING: u64 = 128 * 1024;

/// Bytes that a client's connection takes, whether or not anything is asked on it: its task, and hyper's buffers for
/// reading and writing; as measured.
pub const PER_CONNECTION: u64 = 24 * 1024;

/// What it holds more where it is read from its origin in large pieces; as measured.
pub const STREAMING_MUCH: u64 = 384 * 1024;

/// Bodies up to here are small, bytes.
const SMALL: u64 = apart::LARGE as u64;

impl InFlight {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self::beside(limit, u64::MAX, u64::MAX)
    }

    /// A budget of `limit` bytes, which is scarce where these and what lingers are more than `scarce`, and gives
    /// nothing but for small bodies where everything would be more than `none`.
    pub fn beside(limit: u64, scarce: u64, none: u64) -> Self {
        Self(Arc::new(Budget {
            limit,
            scarce,
            none,
            used: AtomicU64::new(0),
            lingering: AtomicU64::new(0),
            left: AtomicU64::new(0),
            pinned: AtomicU64::new(0),
            passing: AtomicU64::new(0),
            told: OnceLock::new(),
        }))
    }

    /// Has `told` called whenever another sum is taken. Once.
    pub(super) fn tell(&self, told: impl Fn() + Send + Sync + 'static) {
        let _once = self.0.told.set(Box::new(told));
    }

    /// Of the same budget, which it does not keep.
    pub(super) fn downgrade(&self) -> Weakly {
        Weakly(Arc::downgrade(&self.0))
    }

    /// Takes `bytes` of the budget, or nothing when they are not left.
    pub fn try_reserve(&self, bytes: u64) -> Option<Reserved> {
        self.reserve(bytes, false)
    }

    /// The same for a body that slow readers may pin: what they have pinned is taken already, but of small ones.
    pub(super) fn reserve_beside_pinned(&self, bytes: u64) -> Option<Reserved> {
        self.reserve(bytes, true)
    }

    fn reserve(&self, bytes: u64, beside_pinned: bool) -> Option<Reserved> {
        let taken = self.take(bytes, bytes, beside_pinned);
        taken.then(|| Reserved { budget: self.clone(), bytes, beside_pinned })
    }

    /// So much is in memory for what passes through.
    pub fn passing(&self, bytes: u64) -> Passing {
        self.0.passing.fetch_add(bytes, Ordering::Relaxed);
        self.changed();
        Passing { budget: self.clone(), bytes, of: Of::Passing }
    }

    /// So much more is in memory for what passes through, if it and all else beside what is stored is within the
    /// budget: for what is faster so, and does without ([`Passing::is_affordable`]).
    pub fn try_passing(&self, bytes: u64) -> Option<Passing> {
        // Taken first: of two who ask at the same time, one may be refused that could have been served, and never
        // is there too much.
        let passing = self.passing(bytes);
        passing.is_affordable().then_some(passing)
    }

    /// So much is about to be stored, and its readers keep it in memory whatever the tier does. Most are done in a
    /// moment; the slow ones are why it counts.
    pub fn pinning(&self, bytes: u64) -> Passing {
        self.0.pinned.fetch_add(bytes, Ordering::Relaxed);
        Passing { budget: self.clone(), bytes, of: Of::Pinned }
    }

    /// So much lingers.
    pub(super) fn lingers(&self, bytes: u64) {
        self.0.lingering.store(bytes, Ordering::Relaxed);
    }

    /// Bytes taken.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Bytes that are in memory beside what is stored.
    pub fn all(&self) -> u64 {
        let others = self.lingering().saturating_add(self.0.passing.load(Ordering::Relaxed));
        self.used().saturating_add(others)
    }

    /// Bytes of bodies that are in memory only because somebody has yet to read them.
    pub fn lingering(&self) -> u64 {
        self.0.lingering.load(Ordering::Relaxed).saturating_add(self.0.left.load(Ordering::Relaxed))
    }

    /// Bytes of bodies that will stay in memory until somebody has read them, whatever the tier does. What is pinned
    /// and then given up lingers, so it is not the sum of the two.
    fn read(&self) -> u64 {
        self.lingering().max(self.0.pinned.load(Ordering::Relaxed))
    }

    /// `bytes` more for what then has `total`.
    fn take(&self, bytes: u64, total: u64, beside_pinned: bool) -> bool {
        let others = self.read().saturating_add(self.0.passing.load(Ordering::Relaxed));
        // Who reads a small body slowly holds no more than if it were not stored.
        let none = if total <= SMALL { u64::MAX } else { self.0.none };
        let counts = beside_pinned && total > SMALL;
        let pinned = if counts { self.0.pinned.load(Ordering::Relaxed) } else { 0 };
        let limit = self.0.limit.saturating_sub(pinned).min(none.saturating_sub(others));
        let taken = |used: u64| used.checked_add(bytes).filter(|used| *used <= limit || bytes == 0);
        // The number guards no other memory, so no ordering with other accesses is needed.
        let taken = self.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok();
        if taken && bytes > 0 {
            self.changed();
        }
        taken
    }

    fn changed(&self) {
        if let Some(told) = self.0.told.get() {
            told();
        }
    }
}

impl Reserved {
    /// Takes `more` bytes of the budget; `false`, and nothing is taken, when they are not left.
    pub fn grow(&mut self, more: u64) -> bool {
        let grown = self.budget.take(more, self.bytes.saturating_add(more), self.beside_pinned);
        if grown {
            self.bytes = self.bytes.saturating_add(more);
        }
        grown
    }

    /// Bytes reserved.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether so much is in memory for slow clients that what comes is kept only for those who take it as fast.
    pub fn is_scarce(&self) -> bool {
        self.budget.used().saturating_add(self.budget.lingering()) > self.budget.0.scarce
    }

    /// It is not kept, but so much of it is still to be read.
    pub fn leave(self, bytes: u64) -> Passing {
        self.budget.0.left.fetch_add(bytes, Ordering::Relaxed);
        let budget = self.budget.clone();
        Passing { budget, bytes, of: Of::Left }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.changed();
    }
}

impl Passing {
    /// Whether all that is in memory beside what is stored is within the budget.
    pub fn is_affordable(&self) -> bool {
        self.budget.all() <= self.budget.0.limit
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        let budget = &self.budget.0;
        let of = match self.of {
            Of::Passing => &budget.passing,
            Of::Left => &budget.left,
            Of::Pinned => &budget.pinned,
        };
        of.fetch_sub(self.bytes, Ordering::Relaxed);
        // What is pinned is in the tier, which has nothing to yield for it.
        if !matches!(self.of, Of::Pinned) {
            self.budget.changed();
        }
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

    #[test]
    fn what_lingers_makes_room_scarce_and_with_what_passes_there_is_an_end_to_it() {
        const M: u64 = 1 << 20;
        let budget = InFlight::beside(100 * M, 150 * M, 200 * M);
        let held = budget.try_reserve(60 * M).unwrap();
        let passing = budget.passing(50 * M);
        assert!(!held.is_scarce(), "what passes is read as fast as it comes");
        budget.lingers(91 * M);
        assert!(held.is_scarce());
        budget.lingers(80 * M);
        assert_eq!((budget.all(), budget.lingering()), (190 * M, 80 * M));
        assert!(budget.try_reserve(11 * M).is_none());
        assert!(budget.try_reserve(10 * M).is_some());
        budget.lingers(200 * M);
        let mut small = budget.try_reserve(SMALL).unwrap();
        assert!(!small.grow(1), "small no longer");
        budget.lingers(0);
        assert!(budget.try_reserve(41 * M).is_none(), "it has a limit of its own");
        let left = held.leave(20 * M);
        assert_eq!((budget.used(), budget.lingering(), budget.all()), (SMALL, 20 * M, 70 * M + SMALL));
        drop((left, passing, small));
        assert_eq!(budget.all(), 0);
    }

    #[test]
    fn what_could_do_with_less_passes_only_while_all_is_within_the_budget() {
        let budget = InFlight::new(100);
        let (others, much) = (budget.passing(30), budget.try_passing(60).unwrap());
        assert!(budget.try_passing(11).is_none() && much.is_affordable());
        assert_eq!(budget.all(), 90, "what is refused takes nothing");
        let room = budget.try_reserve(20).unwrap();
        assert!(!much.is_affordable(), "{}", budget.all());
        drop(room);
        assert!(much.is_affordable());
        budget.lingers(11);
        assert!(!much.is_affordable());
        drop((others, much));
        assert_eq!(budget.all(), 11);
    }

    #[test]
    fn what_is_pinned_takes_of_the_room_for_what_would_be_and_none_of_the_tier() {
        const M: u64 = 1 << 20;
        let budget = InFlight::beside(100 * M, 50 * M, 200 * M);
        let held = budget.try_reserve(20 * M).unwrap();
        let pinned = [budget.pinning(30 * M), budget.pinning(M)];
        assert_eq!((budget.all(), budget.lingering()), (20 * M, 0), "it is in the tier");
        assert!(budget.reserve_beside_pinned(50 * M).is_none());
        let mut large = budget.reserve_beside_pinned(49 * M).unwrap();
        assert!(!large.grow(1) && budget.reserve_beside_pinned(SMALL).is_some());
        assert!(budget.try_reserve(31 * M).is_some(), "what more than one asks for");
        drop(large);
        // The tier gives it up: it is counted once.
        budget.lingers(31 * M);
        let _passing = budget.passing(100 * M);
        assert!(budget.try_reserve(50 * M).is_none(), "with all that is read there is an end to it");
        assert!(budget.try_reserve(49 * M).is_some());
        budget.lingers(0);
        drop(pinned);
        assert!(budget.reserve_beside_pinned(80 * M).is_some());
        drop(held);
    }
}
