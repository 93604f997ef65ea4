//! The counts of many clients in a space that is fixed from the start.
//!
//! Knows how counts are found, and which one makes room for another when all places are taken.
//! Must not know: what a client is told by.
//!
//! A client's place is one of the few of a set, by a hash with a key that nobody outside knows. A count
//! that is no longer ahead of the time says no more than none, so its place is free. Where no place of a
//! set is, the count that is least ahead gives way. So whatever comes, and however many:
//! - the table does not grow;
//! - who is new is let through: nobody is locked out by others;
//! - who is held up stays so: the count furthest ahead is the last to go, and goes only for as many others
//!   in the very same set that have used up as much, whom nobody can choose.

use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

use parking_lot::Mutex;

use super::Rate;
use crate::clock::Mono;

/// Places of a set: enough that sets seldom fill up before the table does.
const WAYS: usize = 8;

type Set = [Place; WAYS];

/// One client's count.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Its hash. Two clients of one hash would share a count: of all that a table can hold, hardly ever.
    who: u64,
    /// When its next request is due, nanoseconds.
    due: u64,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass.
    Pass,
    /// It may pass; another client's count was given up for its own.
    PassForAnother,
    /// It comes this much too early.
    Wait(Duration),
}

/// Counts by one rate.
pub struct Table {
    rate: Rate,
    hasher: RandomState,
    /// Each lock is held for a look at one set.
    sets: Box<[Mutex<Set>]>,
}

impl Table {
    /// Tells about `clients` apart, 16 bytes each.
    pub fn new(rate: Rate, clients: usize) -> Self {
        let sets = (0..clients.div_ceil(WAYS).max(1)).map(|_| Mutex::default()).collect();
        Self { rate, hasher: RandomState::new(), sets }
    }

    /// Takes a request of `who` that comes at `now`.
    pub fn take(&self, who: &impl Hash, now: Mono) -> Verdict {
        let (set, who, now) = self.place(who, now);
        match set {
            Some(set) => take(&mut set.lock(), self.rate, who, now),
            None => Verdict::Pass,
        }
    }

    /// How long a request of `who` at `now` would have to wait, if it would; none is taken.
    pub fn wait(&self, who: &impl Hash, now: Mono) -> Option<Duration> {
        let (set, who, now) = self.place(who, now);
        let set = set?.lock();
        let due = set.iter().find(|place| place.who == who)?.due;
        self.rate.take(due, now).err()
    }

    fn place(&self, who: &impl Hash, now: Mono) -> (Option<&Mutex<Set>>, u64, u64) {
        let who = self.hasher.hash_one(who);
        let now = u64::try_from(now.since(Mono::default()).as_nanos()).unwrap_or(u64::MAX);
        let sets = self.sets.len() as u64;
        let set = usize::try_from(who % sets.max(1)).ok().and_then(|index| self.sets.get(index));
        (set, who, now)
    }
}

fn take(set: &mut Set, rate: Rate, who: u64, now: u64) -> Verdict {
    let known = set.iter_mut().find(|place| place.who == who);
    let (place, mut verdict) = match known {
        Some(place) => (place, Verdict::Pass),
        None => {
            let Some(place) = set.iter_mut().min_by_key(|place| place.due) else { return Verdict::Pass };
            let verdict = if place.due > now { Verdict::PassForAnother } else { Verdict::Pass };
            *place = Place { who, due: 0 };
            (place, verdict)
        }
    };
    match rate.take(place.due, now) {
        Ok(due) => place.due = due,
        Err(wait) => verdict = Verdict::Wait(wait),
    }
    verdict
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(seconds: u64) -> Mono {
        Mono::from_nanos(seconds * SECOND)
    }

    fn per_second(burst: u32) -> Rate {
        Rate::new(1, Duration::from_secs(1), burst)
    }

    #[test]
    fn each_client_has_a_count_of_its_own() {
        let table = Table::new(per_second(2), 1024);
        for who in 0..50 {
            assert_eq!(table.take(&who, at(5)), Verdict::Pass);
            assert_eq!(table.wait(&who, at(5)), None);
            assert_eq!(table.take(&who, at(5)), Verdict::Pass);
            assert_eq!(table.wait(&who, at(5)), Some(Duration::from_secs(1)));
            assert_eq!(table.take(&who, at(5)), Verdict::Wait(Duration::from_secs(1)));
        }
        assert_eq!(table.take(&0, at(6)), Verdict::Pass);
        assert_eq!(table.take(&0, at(6)), Verdict::Wait(Duration::from_secs(1)));
    }

    #[test]
    fn counts_that_say_nothing_any_more_make_room_for_free() {
        let table = Table::new(per_second(1), WAYS);
        for moment in 0..100 {
            for who in 0..WAYS as u64 {
                assert_eq!(table.take(&(moment, who), at(2 * moment)), Verdict::Pass);
            }
        }
    }

    #[test]
    fn a_flood_of_addresses_frees_nobody_who_is_held_up_and_locks_nobody_out() {
        let table = Table::new(per_second(100), WAYS);
        let held_up = |now| matches!(table.take(&"attacker", at(now)), Verdict::Wait(_));
        for _ in 0..100 {
            table.take(&"attacker", at(1));
        }
        assert!(held_up(1));
        let mut given_up = 0;
        for who in 0..10_000 {
            let verdict = table.take(&who, at(1));
            assert!(!matches!(verdict, Verdict::Wait(_)), "whoever is new passes");
            given_up += usize::from(verdict == Verdict::PassForAnother);
        }
        // All but those that found a free place.
        assert_eq!(given_up, 10_000 - (WAYS - 1));
        assert!(held_up(1), "ten thousand others have not reset the count");
    }

    #[test]
    fn only_as_many_others_who_used_as_much_reset_a_count() {
        let table = Table::new(per_second(3), WAYS);
        for who in 0..=WAYS {
            for _ in 0..3 {
                assert!(!matches!(table.take(&who, at(1)), Verdict::Wait(_)));
            }
        }
        let free = (0..=WAYS).filter(|who| !matches!(table.take(who, at(1)), Verdict::Wait(_))).count();
        assert!(free >= 1, "one place too few");
    }

    #[test]
    fn threads_together_get_what_one_would() {
        let table = Table::new(per_second(1000), 64);
        let passed: usize = std::thread::scope(|scope| {
            let ask = || (0..1000).filter(|_| table.take(&7, at(1)) == Verdict::Pass).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 1000);
    }

    proptest! {
        #[test]
        fn a_table_with_room_says_what_the_rate_says(asks in prop::collection::vec((0_u8..4, 0_u64..3), 0..200)) {
            let (table, rate) = (Table::new(per_second(2), 4096), per_second(2));
            let (mut now, mut due) = (1, [0_u64; 4]);
            for (who, gap) in asks {
                now += gap;
                let want = match rate.take(due[usize::from(who)], now * SECOND) {
                    Ok(next) => {
                        due[usize::from(who)] = next;
                        Verdict::Pass
                    }
                    Err(wait) => Verdict::Wait(wait),
                };
                prop_assert_eq!(table.take(&who, at(now)), want);
            }
        }
    }
}
