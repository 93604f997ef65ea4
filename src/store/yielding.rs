//! What the memory tier leaves to all that is in memory beside it.
//!
//! Knows how moka, whose bound cannot be changed, is made to hold less.
//! Must not know: what there is beside the tier.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::slot::{Slot, Tier};

/// The hash of the tier's own entry; further ones go down from it.
const OWN: u128 = u128::MAX;

/// What the tier leaves to the bodies that are in memory beside it: those on their way, those that linger, and
/// answers on their way to clients.
///
/// moka's bound cannot be changed, so an entry without content stands in the tier and weighs as much as there is
/// beside it, and moka gives up what is asked for least to make room. It is changed in steps, since each
/// change has moka look at all that it has put off.
#[derive(Debug)]
pub(super) struct Yielding {
    step: u64,
    /// Most that the tier yields; what remains serves others whatever slow clients hold.
    most: u64,
    /// What the entries weigh.
    now: Mutex<u64>,
    /// The same, to be looked at without waiting.
    seen: AtomicU64,
    /// moka has given one of the entries up, or not taken it.
    lost: Arc<AtomicBool>,
}

/// Steps in which the tier yields, of its budget.
const STEPS: u64 = 128;
/// Most that one entry can weigh: moka's weigher has 32 bits.
const HEAVIEST: u64 = u32::MAX as u64;
/// Changes of the tier after which it is made sure that its own entries are not the ones longest unused.
pub(super) const RENEW: u64 = 32;

impl Yielding {
    /// Of a tier of so many bytes; `in_flight` is what bodies on their way may take.
    pub(super) fn new(budget: u64, in_flight: u64) -> Self {
        let most = (budget / 4 * 3).max(in_flight).min(budget);
        let step = (budget / STEPS).max(1);
        Self { step, most, now: Mutex::new(0), seen: AtomicU64::new(0), lost: Arc::default() }
    }

    /// How much it would be for so many bytes: whole steps.
    fn wanted(&self, beside: u64) -> u64 {
        (beside.div_ceil(self.step).saturating_mul(self.step)).min(self.most)
    }

    /// Whether that is another number than now, or moka does not hold to it.
    pub(super) fn is_due(&self, beside: u64) -> bool {
        if self.is_lost() {
            return true;
        }
        let (seen, wanted) = (self.seen.load(Ordering::Relaxed), self.wanted(beside));
        // What falls by a step may rise again at once.
        wanted > seen || seen.saturating_sub(wanted) > self.step
    }

    /// What the entries weigh.
    pub(super) fn bytes(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// Whether moka does not hold to it.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Told when moka has given up one of the entries, or has not taken it.
    pub(super) fn lost(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.lost)
    }

    /// Has the tier yield to so many bytes. They are asked for under the lock: of two who yield at the same time the
    /// later must not go by what the earlier has seen.
    pub(super) fn yield_to(&self, cache: &Tier, beside: impl FnOnce() -> u64) {
        let mut now = self.now.lock();
        let wanted = self.wanted(beside());
        let lost = self.lost.swap(false, Ordering::Relaxed);
        if wanted == *now && !lost {
            return;
        }
        if lost {
            self.come_back(cache);
        }
        self.put(cache, wanted);
        (*now, _) = (wanted, self.seen.store(wanted, Ordering::Relaxed));
        drop(now);
        // Also where it takes room back: a tier that seems full lets in nothing new.
        cache.run_pending_tasks();
    }

    /// Has its entries be there again. Of a new one that weighs nothing moka does not ask how often it was asked
    /// for, as long as it holds no more than it may; one that is there may weigh more by and by.
    fn come_back(&self, cache: &Tier) {
        cache.run_pending_tasks();
        self.put(cache, 0);
        cache.run_pending_tasks();
    }

    /// Has its entries be the ones used last, so that none is given up.
    pub(super) fn renew(&self, cache: &Tier) {
        let now = self.now.lock();
        self.put(cache, *now);
    }

    pub(super) fn put(&self, cache: &Tier, weight: u64) {
        let mut left = weight;
        for number in 0..self.entries() {
            let weight = left.min(HEAVIEST);
            left = left.saturating_sub(weight);
            cache.insert(OWN - number, Slot::Own(u32::try_from(weight).unwrap_or(u32::MAX)));
        }
    }

    /// How many entries it takes to say as much as may be yielded.
    pub(super) fn entries(&self) -> u128 {
        u128::from(self.most / HEAVIEST + 1)
    }
}

#[cfg(test)]
mod tests {
    use crate::config;
    use crate::store::{Class, Memory, PURGES, Purges, samples};
    use crate::stored::Born;
    use crate::stored::samples::{key, plain};

    const BORN: Born = Born::Here(0);
    /// Ten of them are the process's own.
    const TIER_OF_64: u64 = 74 << 20;

    #[test]
    fn the_tier_yields_to_what_is_in_memory_beside_it_and_takes_the_room_back() {
        const MIB: u64 = 1 << 20;
        let cfg = config::Cache { memory: TIER_OF_64, in_flight: 16 * MIB, ..samples::cache(None) };
        let (memory, purges) = (Memory::new(&cfg), Purges::new(PURGES));
        let fill = |memory: &Memory| {
            for nth in 0..64 {
                let body = vec![b'x'; 1 << 20];
                // Asked for more often than whatever is there.
                (0..3).for_each(|_| drop(memory.find(&key(&format!("/{nth}")))));
                memory.keep(plain(&format!("/{nth}"), &body, BORN), Class::Plain, &purges);
            }
        };
        fill(&memory);
        let held = memory.gauges();
        assert!(held.bytes > 60 * MIB && held.entries > 60, "{held:?}");
        let room = memory.room(10 * MIB, false).unwrap();
        let passing = memory.in_flight().passing(20 * MIB);
        let held = memory.gauges();
        // Not less: what moka has given up is not taken for what is read.
        assert!(held.bytes <= 34 * MIB && held.bytes >= 32 * MIB, "{held:?}");
        // However much it is, a quarter serves others.
        let more = memory.in_flight().passing(1000 * MIB);
        let held = memory.gauges();
        assert!(held.bytes <= 16 * MIB && held.bytes > 13 * MIB, "{held:?}");
        drop((room, passing, more));
        fill(&memory);
        let held = memory.gauges();
        assert!(held.bytes > 60 * MIB && held.bytes <= 64 * MIB, "{held:?}");
    }

    #[test]
    fn the_tier_yields_also_where_all_else_in_it_has_been_asked_for_since() {
        const MIB: u64 = 1 << 20;
        let cfg = config::Cache { memory: 16 * MIB, in_flight: 4 * MIB, ..samples::cache(None) };
        let (memory, purges) = (Memory::new(&cfg), Purges::new(PURGES));
        let ask = |nth: usize| {
            memory.find(&key(&format!("/{nth}"))).is_some_and(|found| !found.variants.is_empty())
        };
        let keep = |nth: usize| {
            memory.keep(plain(&format!("/{nth}"), &[b'x'; 10_000], BORN), Class::Plain, &purges);
            memory.cache.run_pending_tasks();
        };
        let _passing = memory.in_flight().passing(10 * MIB);
        for nth in 0..1_000_usize {
            for other in 0..nth.min(700) {
                ask(nth.saturating_sub(other));
            }
            (0..3).for_each(|_| assert!(!ask(nth)));
            keep(nth);
            let held: u64 = memory.all().map(|held| u64::from(held.weight)).sum();
            assert!(held <= 7 * MIB, "{nth}: {held}");
        }
    }

    #[test]
    fn what_lingers_makes_the_tier_yield() {
        const MIB: u64 = 1 << 20;
        let cfg = config::Cache { memory: TIER_OF_64, in_flight: 16 * MIB, ..samples::cache(None) };
        let (memory, purges) = (Memory::new(&cfg), Purges::new(PURGES));
        let mut readers = Vec::new();
        for nth in 0..200 {
            let response = plain(&format!("/{}", nth % 20), &vec![b'x'; 1 << 20], BORN);
            // Half of what is replaced is read for ever.
            readers.extend(response.content.whole().filter(|_| nth % 4 == 0).cloned());
            memory.keep(response, Class::Plain, &purges);
        }
        let held = memory.gauges();
        assert!(held.lingering > 40 * MIB, "{held:?}");
        assert!(held.bytes + held.lingering <= 65 * MIB, "{held:?}");
    }
}
