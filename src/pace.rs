//! How slow a peer may be: the time that it keeps us waiting is debt, the bytes that it moves pay it off.
//!
//! A plain time limit is no help against one byte a second: each byte starts it anew. A plain mean over all of
//! a body lets whoever began fast hold a connection for hours. Debt forgets what was paid and grows in every
//! pause, so that a pause is borne wherever in the body it comes, and a trickle never is.
//! Pure: knows durations and numbers of bytes. Must not know: clocks, sockets, who the peer is.

use std::time::Duration;

/// The slowest that a peer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Bytes a second, at least 1: each byte pays for its part of a second.
    pub rate: u64,
    /// The debt at which the peer is given up.
    pub grace: Duration,
}

/// What a peer owes. It starts at nothing and never falls below it: nobody can save up for a pause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Debt(Duration);

impl Debt {
    /// Nothing is owed.
    pub const UNOWED: Self = Self(Duration::ZERO);

    /// The peer has kept us waiting so long, and that is over. Never more than the grace is owed: whether a
    /// peer is given up is decided while it keeps us waiting, not when it has just come.
    pub fn wait(&mut self, waited: Duration, pace: &Pace) {
        self.0 = self.0.saturating_add(waited).min(pace.grace);
    }

    /// The peer has moved so many bytes.
    pub fn pay(&mut self, bytes: u64, pace: &Pace) {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(pace.rate.max(1));
        let paid = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.0 = self.0.saturating_sub(paid);
    }

    /// How much longer the peer may keep us waiting from when it last came.
    pub fn left(&self, pace: &Pace) -> Duration {
        pace.grace.saturating_sub(self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PACE: Pace = Pace { rate: 240, grace: Duration::from_secs(10) };

    /// Seconds until a peer is given up that moves `bytes` after every `pause`; `None` after a day.
    fn given_up_after(bytes: u64, pause: Duration) -> Option<u64> {
        let (mut debt, mut now) = (Debt::default(), Duration::ZERO);
        while now < Duration::from_secs(86_400) {
            if debt.left(&PACE) < pause {
                return Some((now + debt.left(&PACE)).as_secs());
            }
            now += pause;
            debt.wait(pause, &PACE);
            debt.pay(bytes, &PACE);
        }
        None
    }

    #[test]
    fn a_trickle_is_given_up_soon_after_the_grace_and_the_rate_never() {
        let second = Duration::from_secs(1);
        assert_eq!(given_up_after(0, second), Some(10));
        assert_eq!(given_up_after(1, second), Some(10));
        assert_eq!(given_up_after(60, second), Some(13));
        assert_eq!(given_up_after(120, second), Some(19));
        assert_eq!(given_up_after(240, second), None);
        // In larger pieces, further apart: what slow networks do.
        assert_eq!(given_up_after(1460, Duration::from_secs(6)), None);
        assert_eq!(given_up_after(1_000_000, Duration::from_secs(11)), Some(10));
    }

    #[test]
    fn what_was_fast_before_does_not_pay_for_what_comes_later() {
        let mut debt = Debt::default();
        debt.pay(u64::MAX, &PACE);
        assert_eq!(debt.left(&PACE), PACE.grace);
        debt.wait(Duration::MAX, &PACE);
        assert_eq!(debt.left(&PACE), Duration::ZERO);
        debt.pay(240, &PACE);
        assert_eq!(debt.left(&PACE), Duration::from_secs(1));
    }

    proptest! {
        #[test]
        fn nobody_is_given_up_for_longer_than_the_grace_nor_has_more_than_it(
            steps in prop::collection::vec((any::<u64>(), any::<u64>()), 0..20),
            rate in 0_u64..1_000_000,
        ) {
            let pace = Pace { rate, grace: Duration::from_secs(3) };
            let mut debt = Debt::default();
            for (nanos, bytes) in steps {
                let before = debt.left(&pace);
                debt.wait(Duration::from_nanos(nanos), &pace);
                prop_assert!(debt.left(&pace) <= before);
                debt.pay(bytes, &pace);
                prop_assert!(debt.left(&pace) <= pace.grace);
            }
        }
    }
}
