//! Why connections of clients were closed, refused or cut off by Larder: one word each, counted.
//!
//! Knows the reasons. Must not know: how a connection is cut, or which limit it had reached.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why Larder ended a client's connection, or a stream of it, before the client did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cut {
    /// Nothing came on a new connection (`limits.first_byte_time`).
    FirstByte,
    /// A head, or what comes before the first request on HTTP/2, did not come in time (`limits.header_time`).
    Head,
    /// Nothing was asked for long enough (`limits.idle_time`).
    Idle,
    /// The client did not take what it was sent (`limits.response_rate`).
    SlowReader,
    /// Most of its requests were taken back before they were answered.
    TakenBack,
    /// It had asked as often as it may on one connection (`limits.requests`).
    Requests,
    /// All places were taken, and nobody had been unused for longer (`limits.connections`).
    MadeRoom,
    /// All places were taken, and all of them were being used (`limits.connections`).
    Refused,
    /// Its address had as many as it may (`limits.per_address`).
    RefusedAddress,
}

impl Cut {
    /// Every reason, for metrics and documentation.
    pub const ALL: [Self; 9] = [
        Self::FirstByte,
        Self::Head,
        Self::Idle,
        Self::SlowReader,
        Self::TakenBack,
        Self::Requests,
        Self::MadeRoom,
        Self::Refused,
        Self::RefusedAddress,
    ];

    /// The word for labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FirstByte => "first-byte",
            Self::Head => "head",
            Self::Idle => "idle",
            Self::SlowReader => "slow-reader",
            Self::TakenBack => "taken-back",
            Self::Requests => "requests",
            Self::MadeRoom => "made-room",
            Self::Refused => "refused",
            Self::RefusedAddress => "refused-address",
        }
    }
}

/// How often each was the reason, in the whole process.
#[derive(Debug, Default)]
pub struct Cuts([AtomicU64; Cut::ALL.len()]);

impl Cuts {
    /// Once more.
    pub fn count(&self, why: Cut) {
        if let Some(count) = self.slot(why) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often each so far, in the order of [`Cut::ALL`].
    pub fn counts(&self) -> [u64; Cut::ALL.len()] {
        Cut::ALL.map(|why| self.of(why))
    }

    /// How often so far.
    pub fn of(&self, why: Cut) -> u64 {
        self.slot(why).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    fn slot(&self, why: Cut) -> Option<&AtomicU64> {
        Cut::ALL.iter().zip(&self.0).find(|(cut, _)| **cut == why).map(|(_, count)| count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_for_itself() {
        let cuts = Cuts::default();
        for (times, why) in Cut::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| cuts.count(why));
        }
        for (times, why) in Cut::ALL.into_iter().enumerate() {
            assert_eq!(cuts.of(why), times as u64, "{}", why.as_str());
        }
    }

    #[test]
    fn the_documents_name_every_reason() {
        let document = include_str!("../../docs/responses.md");
        for why in Cut::ALL {
            assert!(document.contains(&format!("`{}`", why.as_str())), "{}", why.as_str());
        }
    }
}
