//! The purges that wait for Redis to come back, to be told to the other nodes.
//!
//! Bounded, and none is lost: one purge of everything stands for those that do not fit.
//! Must not know: how a purge is told, or what it does.

use std::collections::VecDeque;

use super::follower::Entry;

/// Purges that may wait for Redis to come back, and their bytes. In place of what does not fit, the others are told
/// to validate everything.
const UNTOLD: usize = crate::store::redis::queue::PURGES;
pub(super) const UNTOLD_BYTES: usize = 16 * 1024 * 1024;
/// What could not be told yet.
#[derive(Debug, Default)]
pub(super) struct Untold {
    /// The oldest first.
    entries: VecDeque<Entry>,
    /// Of their payloads.
    bytes: usize,
    /// Stands for all that were given up since one like it was told.
    pub(super) instead: Option<Entry>,
}

impl Untold {
    pub(super) fn count(&self) -> usize {
        self.entries.len() + usize::from(self.instead.is_some())
    }

    /// Gives how many had to be given up for it. Nothing is kept twice.
    pub(super) fn keep(&mut self, entry: Entry) -> u64 {
        let mut given_up = 0_u64;
        if self.entries.iter().any(|known| known.token == entry.token) {
            return given_up;
        }
        self.bytes = self.bytes.saturating_add(entry.payload.len());
        self.entries.push_back(entry);
        while self.entries.len() > UNTOLD || self.bytes > UNTOLD_BYTES {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(oldest.payload.len());
            given_up = given_up.saturating_add(1);
        }
        given_up
    }

    /// Of what is to be told.
    pub(super) fn first(&self, most: usize) -> Vec<Entry> {
        self.instead.iter().chain(&self.entries).take(most).cloned().collect()
    }

    /// These have been told.
    pub(super) fn forget(&mut self, told: &[Entry]) {
        let is_told = |known: &Entry| told.iter().any(|entry| entry.token == known.token);
        self.instead.take_if(|known| is_told(known));
        self.entries.retain(|known| !is_told(known));
        self.bytes = self.entries.iter().map(|entry| entry.payload.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::store::redis::fleet::Stream;

    #[test]
    fn as_many_purges_wait_as_a_request_may_name_and_each_that_is_given_up_is_stood_in_for_anew() {
        let entry =
            |token: u64| Entry { n: 0, token, stream: Stream::Named, payload: Bytes::from_static(b"p") };
        let mut untold = Untold::default();
        assert_eq!((0..8 * 1_024).map(|token| untold.keep(entry(token + 1))).sum::<u64>(), 0);
        assert_eq!((untold.keep(entry(10_000)), untold.count(), untold.bytes), (1, 8_192, 8_192));
        untold.instead = Some(entry(20_000));
        let telling = untold.first(2);
        assert_eq!(telling.iter().map(|entry| entry.token).collect::<Vec<_>>(), [20_000, 2], "first of all");
        // Another is given up while they are told.
        untold.instead = Some(entry(20_001));
        untold.forget(&telling);
        assert_eq!(untold.first(1).first().map(|entry| entry.token), Some(20_001));
        untold.forget(&[entry(20_001)]);
        assert_eq!((untold.count(), untold.bytes), (8_191, 8_191));
    }
}
