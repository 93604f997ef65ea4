//! The only reader of time.
//!
//! Knows the system clocks and a stepped clock for tests. Everything else is handed a [`Clock`],
//! or better, a [`Timestamp`] or [`Mono`] that somebody has already read.
//! Must not know: HTTP, tokio, or any other room.

use std::cell::Cell;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment of wall-clock time, in milliseconds since the Unix epoch. Held as one more, so that one that may be absent
/// takes no more memory: every stored response has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(NonZeroU64);

impl Default for Timestamp {
    fn default() -> Self {
        Self::from_millis(0)
    }
}

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(millis))
    }

    fn since_epoch(time: Duration) -> Self {
        Self::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    /// From whole seconds since the Unix epoch.
    pub const fn from_secs(secs: u64) -> Self {
        Self::from_millis(secs.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0.get() - 1
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.as_millis() / 1000
    }

    /// This moment plus `by`; stays at the far end of time instead of overflowing.
    pub fn saturating_add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.get().saturating_sub(earlier.0.get()))
    }
}

/// A moment of monotonic time, in nanoseconds since the clock was made: for durations only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mono(u64);

impl Mono {
    /// From nanoseconds since the clock was made.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    fn started(ago: Duration) -> Self {
        Self(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Nanoseconds since the clock was made.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Reads wall and monotonic time: the system's, or one that a test steps.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { started: Instant },
    Stepped(Arc<AtomicU64>),
}

/// How long the wall's time is told by what has passed since it was read, before it is read again: whoever sets it is
/// heard within that, and so is a machine that has slept, while which nothing passes.
const RENEW: Duration = Duration::from_millis(50);

thread_local! {
    /// When this thread has read the wall's time, and what it was, since the Unix epoch.
    static READ: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
}

/// Moves a stepped [`Clock`]; for tests.
#[derive(Clone, Debug)]
pub struct Stepper(Arc<AtomicU64>);

impl Clock {
    /// The system's clocks.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    pub fn system() -> Self {
        Self(Source::System { started: Instant::now() })
    }

    /// A clock that stands at `start` until its [`Stepper`] moves it.
    pub fn stepped(start: Timestamp) -> (Self, Stepper) {
        let millis = Arc::new(AtomicU64::new(start.as_millis()));
        (Self(Source::Stepped(Arc::clone(&millis))), Stepper(millis))
    }

    /// Wall-clock time. A system clock before 1970 reads as 1970.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System { .. } => Timestamp::since_epoch(wall()),
            Source::Stepped(millis) => Timestamp::from_millis(millis.load(Ordering::Acquire)),
        }
    }

    /// Both, for who needs both at every request: to read one of them takes some 50 ns on a virtual machine, so the wall's
    /// time is the one that was read up to 50 ms ago, and what has passed since.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    pub fn moment(&self) -> (Timestamp, Mono) {
        let Source::System { started } = &self.0 else { return (self.now(), self.mono()) };
        let now = Instant::now();
        let passed = |(read, wall): (Instant, Duration)| Some((now.checked_duration_since(read)?, wall));
        let wall = match READ.get().and_then(passed).filter(|(passed, _)| *passed < RENEW) {
            Some((passed, wall)) => wall.saturating_add(passed),
            None => {
                let wall = wall();
                READ.set(Some((now, wall)));
                wall
            }
        };
        (Timestamp::since_epoch(wall), Mono::started(now.saturating_duration_since(*started)))
    }

    /// Monotonic time, for durations.
    pub fn mono(&self) -> Mono {
        match &self.0 {
            Source::System { started } => Mono::started(started.elapsed()),
            Source::Stepped(millis) => Mono(millis.load(Ordering::Acquire).saturating_mul(1_000_000)),
        }
    }
}

/// What the wall's clock says, since the Unix epoch. One before 1970 reads as 1970.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Stepper {
    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stepped_clock_stands_until_it_is_moved() {
        let (clock, stepper) = Clock::stepped(Timestamp::from_secs(100));
        let (wall, mono) = (clock.now(), clock.mono());
        assert_eq!(clock.now(), wall);
        stepper.advance(Duration::from_millis(1500));
        assert_eq!(clock.now().saturating_since(wall), Duration::from_millis(1500));
        assert_eq!(clock.mono().since(mono), Duration::from_millis(1500));
        assert_eq!(wall.saturating_since(clock.now()), Duration::ZERO);
    }

    #[test]
    fn both_times_at_once_are_those_that_are_read_one_by_one() {
        let clock = Clock::system();
        // The second time the wall's is told by the first.
        for _ in 0..2 {
            let before = (clock.now(), clock.mono());
            let (now, mono) = clock.moment();
            assert!(before.1 <= mono && mono <= clock.mono());
            // Either may be rounded down.
            assert!(now.saturating_add(Duration::from_millis(1)) >= before.0, "{now:?} {before:?}");
            assert!(now <= clock.now().saturating_add(Duration::from_millis(1)));
        }
        let (clock, _) = Clock::stepped(Timestamp::from_secs(100));
        assert_eq!(clock.moment(), (clock.now(), clock.mono()));
    }

    #[test]
    fn the_far_end_of_time_does_not_overflow() {
        let end = Timestamp::from_millis(u64::MAX);
        assert_eq!(end.saturating_add(Duration::from_secs(1)), end);
    }
}
