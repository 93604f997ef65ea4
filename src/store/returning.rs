//! What is small, was of use and is given up to make room comes back, once.
//!
//! Where a large body comes in, or there is more in memory beside the tier, moka makes room by giving up what has been
//! unused for longest, and compares nothing. Where most of what it holds is large, the whole tier goes by within
//! seconds, and what is small and asked for several times a second goes as often as it happens to be unused for so
//! long, though what it leaves is room for next to nothing. So what is small and has been found since it came in is
//! put back as if it were new: moka takes it where there is room, as there mostly is after something large has gone,
//! or in place of what is asked for less. What nobody finds until its next turn goes for good.
//!
//! In between it is out of the tier, and whoever purges might look just then. So who removes a key says so first, and
//! what was given up before is not put back, or taken out again.
//! Must not know: what room is made for, or what has been purged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::lingering::Lingering;
use super::resource::Resource;
use super::slot::{self, Tier};

/// Most that come back at a time: moka's log of writes has room for 384.
const MOST: usize = 256;
/// The part of the tier's budget that all of them weigh at most: until they are back they are in memory beside it.
const AT_A_TIME: u64 = 64;
/// The part that the heaviest of them weighs.
const SMALL: u64 = 1024;

/// What comes back.
#[derive(Debug)]
pub(super) struct Returning {
    budget: u64,
    lingering: Arc<Lingering>,
    /// Keys that have been removed, or are about to be.
    removals: AtomicU64,
    given_up: Mutex<GivenUp>,
}

#[derive(Debug, Default)]
struct GivenUp {
    /// How many make room at this moment.
    making: usize,
    /// Of the removals, those before the first of them began.
    removals: u64,
    weight: u64,
    list: Vec<(u128, Arc<Resource>)>,
}

/// While it is there, room is being made; what comes back does so when it ends.
#[derive(Debug)]
#[must_use]
pub(super) struct MakingRoom<'a>(&'a Returning, &'a Tier);

impl Returning {
    /// To a tier of so many bytes.
    pub(super) fn new(budget: u64, lingering: Arc<Lingering>) -> Self {
        Self { budget, lingering, removals: AtomicU64::new(0), given_up: Mutex::default() }
    }

    /// A key is about to be removed.
    pub(super) fn removes(&self) {
        self.removals.fetch_add(1, Ordering::SeqCst);
    }

    /// Room is made from now on.
    pub(super) fn make_room<'a>(&'a self, tier: &'a Tier) -> MakingRoom<'a> {
        let mut given_up = self.given_up.lock();
        if given_up.making == 0 {
            given_up.removals = self.removals.load(Ordering::SeqCst);
        }
        given_up.making = given_up.making.saturating_add(1);
        MakingRoom(self, tier)
    }

    /// moka has given this up for want of room. Gives whether it is to come back.
    pub(super) fn catch(&self, hash: u128, resource: &Arc<Resource>) -> bool {
        let weight = u64::from(resource.weight);
        if weight > self.budget / SMALL || resource.is_void() || !resource.take_use() {
            return false;
        }
        let mut given_up = self.given_up.lock();
        let all = given_up.weight.saturating_add(weight);
        if given_up.making == 0 || given_up.list.len() >= MOST || all > self.budget / AT_A_TIME {
            return false;
        }
        given_up.weight = all;
        given_up.list.push((hash, Arc::clone(resource)));
        true
    }

    fn put_back(&self, tier: &Tier, hash: u128, resource: &Arc<Resource>, removals: u64) {
        let is_any_removed = || self.removals.load(Ordering::SeqCst) != removals;
        let is_back = !is_any_removed() && slot::put_back(tier, hash, resource);
        if !is_back {
            resource.bodies().for_each(|body| self.lingering.note(body));
        } else if is_any_removed() {
            // Who removes it from here on finds it.
            slot::take_out(tier, hash, resource);
        }
    }
}

impl Drop for MakingRoom<'_> {
    fn drop(&mut self) {
        let Self(returning, tier) = self;
        let (list, removals) = {
            let mut given_up = returning.given_up.lock();
            given_up.making = given_up.making.saturating_sub(1);
            given_up.weight = 0;
            (std::mem::take(&mut given_up.list), given_up.removals)
        };
        if !list.is_empty() {
            list.iter().for_each(|(hash, resource)| returning.put_back(tier, *hash, resource, removals));
            tier.run_pending_tasks();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;
    use crate::config;
    use crate::store::{Class, Memory, PURGES, Purges, samples};
    use crate::stored::Born;
    use crate::stored::samples::{key, plain};

    const MIB: u64 = 1 << 20;
    const SMALL_ONES: usize = 50;

    /// A tier that has room for fifteen large ones beside the small ones.
    struct Full(Memory, Purges);

    impl Full {
        fn new() -> Self {
            let cfg = config::Cache { memory: 16 * MIB, in_flight: 16 * MIB, ..samples::cache(None) };
            let full = Self(Memory::new(&cfg), Purges::new(PURGES));
            assert!((0..SMALL_ONES).all(|nth| full.keep(&small(nth), 2_000)));
            full
        }

        fn keep(&self, path: &str, bytes: usize) -> bool {
            self.0.keep(plain(path, &vec![b'x'; bytes], Born::Here(0)), Class::Plain, &self.1)
        }

        /// Has so many large ones asked for, one after the other of many, and gives how many of them were kept.
        fn large(&self, asked: std::ops::Range<usize>) -> usize {
            let paths = asked.map(|nth| format!("/large/{}", nth % 60));
            paths.filter(|path| self.0.find(&key(path)).is_none() && self.keep(path, 1 << 20)).count()
        }

        fn find(&self, nth: usize) -> bool {
            self.0.find(&key(&small(nth))).is_some()
        }

        /// How many of the small ones are there, which is not to use them.
        fn there(&self) -> usize {
            (0..SMALL_ONES).filter(|nth| self.0.has(&key(&small(*nth)))).count()
        }
    }

    fn small(nth: usize) -> String {
        format!("/small/{nth}")
    }

    #[test]
    fn what_is_small_and_asked_for_often_is_not_given_up_for_what_is_large_and_asked_for_seldom() {
        let full = Full::new();
        // The first time, what is new to the full tier is noted.
        full.large(0..60);
        assert!((0..SMALL_ONES).all(|nth| full.find(nth)));
        for round in 1..20 {
            // More than the tier holds goes by between two uses of what is small.
            let from = round * 25;
            let kept = full.large(from..from + 25);
            assert!(kept > 15 || round < 4, "{kept} in round {round}");
            let found = (0..SMALL_ONES).filter(|nth| full.find(*nth)).count();
            assert_eq!(found, SMALL_ONES, "in round {round}");
        }
    }

    #[test]
    fn what_is_small_and_of_use_stays_when_the_tier_yields_and_what_was_of_none_since_goes() {
        let full = Full::new();
        full.large(0..14);
        assert!((0..SMALL_ONES).all(|nth| full.find(nth)));
        full.large(14..30);
        full.large(14..30);
        assert_eq!(full.there(), SMALL_ONES);
        assert!((0..SMALL_ONES).all(|nth| full.find(nth)));
        full.large(30..45);
        full.large(30..40);
        for left in [SMALL_ONES, 0] {
            // Beside the tier there is as much as makes it give up all that is older.
            let passing = full.0.in_flight().passing(14 * MIB);
            full.0.gauges();
            drop(passing);
            full.0.gauges();
            assert_eq!(full.there(), left);
            full.large(45..60);
        }
    }

    #[test]
    fn what_is_removed_while_room_is_made_does_not_come_back() {
        let full = Full::new();
        let Full(memory, _) = &full;
        let returning = Returning::new(16 * MIB, Arc::default());
        let resource = |nth: usize| {
            assert!(full.find(nth));
            let found = memory.peek(&key(&small(nth)));
            memory.remove(&key(&small(nth)));
            (key(&small(nth)).hash(), found.unwrap())
        };
        let come_back = |nth: usize, meanwhile: &dyn Fn()| {
            let (hash, resource) = resource(nth);
            let making = returning.make_room(&memory.cache);
            assert!(returning.catch(hash, &resource));
            assert!(!returning.catch(hash, &resource), "not found since");
            meanwhile();
            drop(making);
            full.find(nth)
        };
        assert!(come_back(0, &|| ()));
        assert!(!come_back(1, &|| returning.removes()));
        let (hash, resource) = resource(2);
        assert!(!returning.catch(hash, &resource), "no room is made");
    }

    #[test]
    fn what_is_removed_at_the_moment_when_it_comes_back_is_not_there() {
        for _ in 0..10 {
            let full = Full::new();
            full.large(0..60);
            assert!((0..SMALL_ONES).all(|nth| full.find(nth)));
            let barrier = Barrier::new(2);
            thread::scope(|scope| {
                scope.spawn(|| {
                    barrier.wait();
                    full.large(20..60);
                });
                barrier.wait();
                (0..SMALL_ONES).for_each(|nth| full.0.remove(&key(&small(nth))));
            });
            assert_eq!(full.there(), 0);
        }
    }
}
