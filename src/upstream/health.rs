//! Whether a server answers at all: one that takes connections and says nothing looks like any other to who
//! connects to it.
//!
//! Knows the order in which servers began answers, and how often in a row one was waited for in vain. Only silence
//! counts: a server that answers anybody meanwhile is slow with one request, not ill.
//! Must not know: requests, connections, what an answer says.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Mono;

/// So many in vain in a row, with no answer in between, and it is left out. One may be chance, and two a slow
/// endpoint that is all that is asked for at night.
const STRIKES: u32 = 3;
/// How long it is left out at first; twice as long each time that it is tried in vain.
const FIRST: Duration = Duration::from_secs(1);
/// The longest. One request in this time finds out at its own cost, a wait for `hedge_after`.
const MOST: Duration = Duration::from_secs(32);

/// What is known of a server's answers.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// The number of the last answer that it began, counted over all servers of the upstream.
    spoke: AtomicU64,
    /// Times in a row that it was waited for in vain. Read by each answer, so without the lock.
    strikes: AtomicU32,
    /// Until when it is left out; read where there are as many strikes as that takes.
    until: Mutex<Mono>,
}

impl Health {
    /// It has begun an answer, the upstream's `number`th.
    pub(super) fn answered(&self, number: u64) {
        self.spoke.fetch_max(number, Ordering::AcqRel);
        if self.strikes.load(Ordering::Acquire) > 0 {
            self.strikes.store(0, Ordering::Release);
        }
    }

    /// Whether it has begun an answer since the upstream's `number`th.
    pub(super) fn spoke_since(&self, number: u64) -> bool {
        self.spoke.load(Ordering::Acquire) > number
    }

    /// It was waited for in vain, by who knows that another server answered meanwhile. Says whether that is one time
    /// too many: it is left out from now on.
    pub(super) fn strike(&self, now: Mono) -> bool {
        let mut until = self.until.lock();
        // Those that were waiting already when it was left out say nothing new.
        if self.is_silent() {
            return false;
        }
        let strikes = self.strikes.fetch_add(1, Ordering::AcqRel) + 1;
        if strikes >= STRIKES {
            *until = later(now, FIRST);
        }
        strikes >= STRIKES
    }

    /// It has been waited for in vain so often that whoever is waiting for it now waits in vain.
    pub(super) fn is_silent(&self) -> bool {
        self.strikes.load(Ordering::Acquire) >= STRIKES
    }

    /// Whether it is to be passed over. A request that only it will answer or nobody (`alone`) is no trial: it is kept
    /// away as long again, in which another sort of request may find out.
    pub(super) fn is_aside(&self, now: Mono, alone: bool) -> bool {
        let longer = if alone { MOST } else { Duration::ZERO };
        self.is_silent() && now < later(*self.until.lock(), longer)
    }

    /// It is about to be asked. Of one that was left out this is the trial: until it has answered, or for twice as long
    /// as before, it is left out to all others. Says whether it is.
    pub(super) fn asked(&self, now: Mono) -> bool {
        if !self.is_silent() {
            return false;
        }
        let mut until = self.until.lock();
        if now < *until {
            return false;
        }
        let strikes = self.strikes.load(Ordering::Acquire);
        // Answered just now.
        if strikes < STRIKES {
            return false;
        }
        let doubled = 1_u32.checked_shl(strikes - STRIKES + 1).unwrap_or(u32::MAX);
        *until = later(now, FIRST.saturating_mul(doubled).min(MOST));
        let _ = self.strikes.compare_exchange(
            strikes,
            strikes.saturating_add(1),
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        true
    }

    /// The trial has ended and found out nothing: whoever comes next is another.
    pub(super) fn not_tried(&self) {
        let mut until = self.until.lock();
        let strikes = self.strikes.load(Ordering::Acquire);
        // Answered meanwhile, or struck anew: that is what counts.
        if strikes <= STRIKES {
            return;
        }
        let fewer = strikes.saturating_sub(1);
        if self.strikes.compare_exchange(strikes, fewer, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            *until = Mono::from_nanos(0);
        }
    }
}

fn later(moment: Mono, by: Duration) -> Mono {
    let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
    Mono::from_nanos(moment.nanos().saturating_add(by))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono::from_nanos(seconds * 1_000_000_000)
    }

    fn left_out(now: u64) -> Health {
        let health = Health::default();
        assert!((1..STRIKES).all(|_| !health.strike(at(now)) && !health.is_aside(at(now), true)));
        assert!(health.strike(at(now)) && health.is_silent());
        health
    }

    #[test]
    fn three_in_a_row_leave_a_server_out_and_an_answer_in_between_begins_anew() {
        let health = Health::default();
        for round in 1..10 {
            assert!(!health.strike(at(1)) && !health.strike(at(1)));
            health.answered(round);
            assert!(!health.is_aside(at(1), true), "{round}");
        }
        let health = left_out(1);
        assert!(!health.strike(at(1)), "who had been waiting already is not told twice");
        health.answered(1);
        assert!(!health.is_silent() && !health.is_aside(at(1), true));
    }

    #[test]
    fn one_request_at_a_time_tries_it_after_twice_as_long_each_time() {
        let (health, mut now) = (left_out(100), 100);
        for pause in [1, 2, 4, 8, 16, 32, 32, 32] {
            assert!(health.is_aside(at(now + pause - 1), false), "{pause}");
            now += pause;
            assert!(!health.is_aside(at(now), false), "{pause}");
            health.asked(at(now));
            assert!(health.is_aside(at(now), false), "the next one is not sent there as well");
            health.strike(at(now));
        }
        for _ in 0..100 {
            now += 32;
            health.asked(at(now));
        }
        assert!(health.is_aside(at(now + 31), false) && !health.is_aside(at(now + 32), false));
    }

    #[test]
    fn a_trial_that_finds_out_nothing_costs_a_server_no_time() {
        let health = left_out(100);
        for _ in 0..10 {
            assert!(health.asked(at(101)) && health.is_aside(at(101), false), "a trial at a time");
            health.not_tried();
            assert!(!health.is_aside(at(101), false) && health.is_silent());
        }
        assert!(health.asked(at(101)) && !health.asked(at(102)));
        assert!(
            health.is_aside(at(102), false) && !health.is_aside(at(103), false),
            "not longer for those before"
        );
        health.answered(1);
        health.not_tried();
        assert!(!health.is_silent());
    }

    #[test]
    fn what_no_other_server_may_answer_is_no_trial() {
        let health = left_out(100);
        assert!(!health.is_aside(at(101), false) && health.is_aside(at(132), true));
        assert!(!health.is_aside(at(133), true), "where nothing else is asked, it is one in the end");
    }

    #[test]
    fn who_spoke_since_is_told_by_number() {
        let health = Health::default();
        assert!(!health.spoke_since(0));
        health.answered(7);
        health.answered(5);
        assert!(health.spoke_since(6) && !health.spoke_since(7));
    }
}
