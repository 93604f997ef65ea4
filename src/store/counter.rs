//! A count for what happens on every request.
//!
//! Knows that threads which raise one number fight for its cache line.
//! Must not know: what is counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count that many threads raise on every request, each on a cache line of its own.
#[derive(Debug, Default)]
pub(super) struct Counter([Line; 8]);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Line(AtomicU64);

impl Counter {
    /// One more; gives how many there were on this thread's line.
    pub(super) fn add(&self) -> u64 {
        LINE.with(|nth| self.0.get(*nth)).map_or(0, |line| line.0.fetch_add(1, Ordering::Relaxed))
    }

    /// The count; may miss what is being added.
    pub(super) fn sum(&self) -> u64 {
        self.0.iter().map(|line| line.0.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }
}

static THREADS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Which line this thread raises.
    static LINE: usize = usize::try_from(THREADS.fetch_add(1, Ordering::Relaxed) % 8).unwrap_or(0);
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn nothing_is_lost_between_threads() {
        let counter = Counter::default();
        thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| {
                    (0..1_000).for_each(|_| {
                        counter.add();
                    })
                });
            }
        });
        assert_eq!(counter.sum(), 10_000);
    }
}
