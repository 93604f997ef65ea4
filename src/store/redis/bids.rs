//! Whether lookups ask for leases at the moment.
//!
//! Knows that asking for one is a write. A Redis that lets writes wait (`CLIENT PAUSE`, a failover by hand) answers
//! nothing of a question that holds one, nor what comes behind it on that connection, though it would answer reads:
//! who went on asking so would lose all that stands there. So after a few lookups that asked for a lease and were not
//! answered in time, with none between them that was, none asks for one for a while. What is found is read on then, and
//! what is not is fetched by each node for itself.
//! Must not know: leases, connections, or what a lookup finds.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Mono;

/// Lookups in a row that asked for a lease and were not answered in time.
const MISSES: u32 = 3;
/// How long none asks for one then. The first after that is a trial.
const WITHOUT: Duration = Duration::from_secs(5);

/// What lookups with a bid have come to.
#[derive(Debug, Default)]
pub(super) struct Bids {
    missed: AtomicU32,
    since: Mutex<Option<Mono>>,
}

impl Bids {
    /// Whether a lookup may ask for a lease.
    pub(super) fn may(&self, now: Mono) -> bool {
        self.since.lock().is_none_or(|since| now.since(since) >= WITHOUT)
    }

    /// One that did was answered.
    pub(super) fn answered(&self) {
        self.missed.store(0, Ordering::Relaxed);
    }

    /// One that did was not, by its deadline.
    pub(super) fn missed(&self, now: Mono) {
        if self.missed.fetch_add(1, Ordering::Relaxed).saturating_add(1) >= MISSES {
            self.missed.store(MISSES - 1, Ordering::Relaxed);
            *self.since.lock() = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, Timestamp};

    #[test]
    fn after_three_in_a_row_there_are_none_for_a_while_and_then_one_on_trial() {
        let (clock, stepper) = Clock::stepped(Timestamp::from_secs(1));
        let bids = Bids::default();
        let miss = |times: u32| (0..times).for_each(|_| bids.missed(clock.mono()));
        miss(2);
        bids.answered();
        miss(2);
        assert!(bids.may(clock.mono()), "not three in a row");
        miss(1);
        assert!(!bids.may(clock.mono()));
        stepper.advance(WITHOUT - Duration::from_millis(1));
        assert!(!bids.may(clock.mono()));
        stepper.advance(Duration::from_millis(1));
        assert!(bids.may(clock.mono()), "a trial");
        miss(1);
        assert!(!bids.may(clock.mono()), "in vain");
        stepper.advance(WITHOUT);
        bids.answered();
        miss(2);
        assert!(bids.may(clock.mono()), "it was answered: as at first");
    }
}
