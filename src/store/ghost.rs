//! What has left memory lately, and why: enough to tell a cold miss from one that more memory, or no purge, would
//! have spared.
//!
//! Fingerprints in buckets of a cache line each; the oldest of a bucket gives way. A hit does not come here, a miss
//! looks into one line, and what leaves memory writes to one.
//!
//! Its error: of the latest 32,768 keys that have left, fewer than one in 100 is forgotten, and then taken for cold;
//! a key that was never here is taken for one that was in fewer than one of 10^14 looks (7 fingerprints of 50 bits).
//! Must not know: what is stored, or who asks.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry::Cause;

/// Lines of the table: 1 MiB in all.
const BUCKETS: usize = 16_384;
/// Fingerprints of a line; beside them is the count that says which is the oldest.
const PLACES: usize = 7;

/// Why keys have left memory, as far as that is remembered.
#[derive(Debug)]
pub(super) struct Ghost(Box<[Bucket]>);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket {
    written: AtomicU64,
    places: [AtomicU64; PLACES],
}

/// Why a key has left memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// To make room.
    Evicted,
    /// It was purged, or voided by a write.
    Purged,
}

impl Left {
    /// In the lowest bits of a fingerprint; 0 is an empty place.
    const fn bits(self) -> u64 {
        match self {
            Self::Evicted => 1,
            Self::Purged => 2,
        }
    }
}

const KIND: u64 = 3;

impl Ghost {
    pub(super) fn new() -> Self {
        Self((0..BUCKETS).map(|_| Bucket::default()).collect())
    }

    /// A key with this hash has left. Two notes at once may cost one of them.
    pub(super) fn note(&self, hash: u128, why: Left) {
        let (Some(bucket), print) = self.place(hash) else { return };
        let known = |place: &&AtomicU64| place.load(Ordering::Relaxed) & !KIND == print;
        let place = bucket.places.iter().find(known).or_else(|| {
            let nth = bucket.written.fetch_add(1, Ordering::Relaxed) % PLACES as u64;
            usize::try_from(nth).ok().and_then(|nth| bucket.places.get(nth))
        });
        if let Some(place) = place {
            place.store(print | why.bits(), Ordering::Relaxed);
        }
    }

    /// Why a key with this hash is not in memory.
    pub(super) fn why(&self, hash: u128) -> Cause {
        let (Some(bucket), print) = self.place(hash) else { return Cause::Cold };
        let places = bucket.places.iter().map(|place| place.load(Ordering::Relaxed));
        match places.into_iter().find(|place| place & !KIND == print).map(|place| place & KIND) {
            Some(kind) if kind == Left::Evicted.bits() => Cause::Evicted,
            Some(kind) if kind == Left::Purged.bits() => Cause::Purged,
            _ => Cause::Cold,
        }
    }

    /// Its line, and its fingerprint: bits that the line's number does not have.
    fn place(&self, hash: u128) -> (Option<&Bucket>, u64) {
        let low = u64::try_from(hash & u128::from(u64::MAX)).unwrap_or(0);
        let bucket = usize::try_from(low).unwrap_or(0) & (BUCKETS - 1);
        // 14 bits name the line. An empty place is 0: no fingerprint is.
        let print = ((low >> 14) << 2) | (1 << 63);
        (self.0.get(bucket), print)
    }
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_128;

    use super::*;

    fn hash(number: u64) -> u128 {
        xxh3_128(&number.to_le_bytes())
    }

    #[test]
    fn of_the_latest_32_768_keys_fewer_than_one_in_100_is_forgotten_and_none_is_invented() {
        let ghost = Ghost::new();
        let many = 200_000;
        (0..many).for_each(|number| ghost.note(hash(number), Left::Evicted));
        let latest = (many - 32_768)..many;
        let forgotten = latest.clone().filter(|number| ghost.why(hash(*number)) == Cause::Cold).count();
        assert!(forgotten * 100 < latest.count(), "{forgotten} forgotten");
        let invented = (many..2 * many).filter(|number| ghost.why(hash(*number)) != Cause::Cold).count();
        assert_eq!(invented, 0);
    }

    #[test]
    fn what_leaves_again_left_for_the_latest_reason() {
        let ghost = Ghost::new();
        assert_eq!(ghost.why(hash(1)), Cause::Cold);
        for (why, cause) in [(Left::Evicted, Cause::Evicted), (Left::Purged, Cause::Purged)] {
            ghost.note(hash(1), why);
            assert_eq!(ghost.why(hash(1)), cause);
        }
        assert_eq!(ghost.why(0), Cause::Cold, "an empty place is no fingerprint");
    }

    #[test]
    fn a_bucket_is_a_cache_line() {
        assert_eq!((size_of::<Bucket>(), size_of::<Bucket>() * BUCKETS), (64, 1 << 20));
    }
}
