//! How far this node may trust its own memory.
//!
//! Knows when the log of purges was last heard, and what may be served when that is too long ago. A
//! purge that another node makes at some moment is in the log from then on; whoever asks the log later
//! hears of it. So what a node has heard is complete up to the moment at which it put its last answered
//! question, and no purge from before that can be unknown to it.
//!
//! - As long as that moment is at most `bound` ago, memory is trusted: whatever is served was not purged
//!   `bound` ago.
//! - After that, a response is served only for `when_lost` after the origin's word for it; then the origin
//!   is asked first. So what is purged meanwhile is served for `when_lost` at most, and the origin gets at
//!   most one request per key in `when_lost`, which no node sends twice (requests for a key are collapsed).
//!
//! What another node has fetched came with the moment at which it did, by that node's clock: clocks that differ
//! by a second shorten or lengthen `when_lost` by that. A moment that is yet to come is not believed.
//! Must not know: how the log is kept, or what is asked of the origin.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::{Mono, Timestamp};

/// What a node promises of its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The longest that a response may be served from memory after another node has purged it, while the
    /// log is heard.
    pub bound: Duration,
    /// The longest that one is served without the origin's word while it is not; `None`: for as long as it is
    /// fresh.
    pub when_lost: Option<Duration>,
}

/// How it stands between a node and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The log is heard: the bound holds.
    Ok,
    /// It has not been heard for longer than the bound, but not long enough to matter to what was just
    /// validated.
    Lagging,
    /// It has not been heard for longer than `when_lost`.
    Lost,
}

impl State {
    /// The word for headers, labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Lagging => "lagging",
            Self::Lost => "lost",
        }
    }
}

/// Whether memory may be trusted; asked on every hit, so all of it is one load and a comparison.
#[derive(Debug)]
pub struct Coherence {
    promise: Promise,
    /// When the latest question was put that the log has answered, in nanoseconds. 0: never.
    heard: AtomicU64,
    /// When the node began to ask: until the first answer, its lag counts from here.
    began: Mono,
}

impl Coherence {
    /// Of a node that begins to ask now.
    pub fn new(promise: Promise, now: Mono) -> Self {
        Self { promise, heard: AtomicU64::new(0), began: now }
    }

    /// The log has answered, all of it, a question that was put at `asked`.
    pub fn heard(&self, asked: Mono) {
        self.heard.fetch_max(asked.nanos(), Ordering::AcqRel);
    }

    /// How long ago what is known was complete.
    pub fn lag(&self, now: Mono) -> Duration {
        let heard = Mono::from_nanos(self.heard.load(Ordering::Acquire));
        now.since(heard.max(self.began))
    }

    /// How it stands now.
    pub fn state(&self, now: Mono) -> State {
        let (lag, never) = (self.lag(now), self.heard.load(Ordering::Acquire) == 0);
        if !never && lag <= self.promise.bound {
            State::Ok
        } else if self.promise.when_lost.is_none_or(|limit| lag <= limit) {
            State::Lagging
        } else {
            State::Lost
        }
    }

    /// What is promised.
    pub fn promise(&self) -> Promise {
        self.promise
    }

    /// Whether the log is heard: then memory is trusted as it is.
    pub fn hears(&self, now: Mono) -> bool {
        let heard = self.heard.load(Ordering::Acquire);
        heard != 0 && now.since(Mono::from_nanos(heard)) <= self.promise.bound
    }

    /// Whether, while it is not, what the origin has last confirmed at `confirmed`
    /// has to be validated before it is served.
    pub fn doubts(&self, confirmed: Timestamp, now: Timestamp) -> bool {
        let Some(limit) = self.promise.when_lost else { return false };
        // A clock that was set back must not make it trusted for longer.
        confirmed > now || now.saturating_since(confirmed) > limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mono(millis: u64) -> Mono {
        Mono::from_nanos(millis * 1_000_000)
    }

    fn coherence(when_lost: Option<u64>) -> Coherence {
        let when_lost = when_lost.map(Duration::from_millis);
        Coherence::new(Promise { bound: Duration::from_millis(1_000), when_lost }, mono(1))
    }

    #[test]
    fn memory_is_trusted_for_the_bound_after_the_last_complete_answer_was_asked_for() {
        let coherence = coherence(Some(5_000));
        assert!(!coherence.hears(mono(1)), "never heard");
        coherence.heard(mono(100));
        coherence.heard(mono(50));
        for (at, hears, state) in [
            (100, true, State::Ok),
            (1_100, true, State::Ok),
            (1_101, false, State::Lagging),
            (5_100, false, State::Lagging),
            (5_101, false, State::Lost),
        ] {
            assert_eq!((coherence.hears(mono(at)), coherence.state(mono(at))), (hears, state), "at {at}");
        }
        assert_eq!(coherence.lag(mono(600)), Duration::from_millis(500));
    }

    #[test]
    fn what_the_origin_has_just_confirmed_needs_no_second_word() {
        let at = Timestamp::from_millis;
        for (when_lost, confirmed, doubted) in [
            (Some(5_000), 10_000, false),
            (Some(5_000), 5_000, false),
            (Some(5_000), 4_999, true),
            (Some(5_000), 10_001, true),
            (Some(0), 10_000, false),
            (Some(0), 9_999, true),
            (None, 0, false),
        ] {
            let doubts = coherence(when_lost).doubts(at(confirmed), at(10_000));
            assert_eq!(doubts, doubted, "{when_lost:?} {confirmed}");
        }
    }
}
