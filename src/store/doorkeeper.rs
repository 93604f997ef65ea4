//! Who may come into a full tier: a key that was fetched before, not long ago.
//!
//! Most of what is asked for is asked for once. moka compares what comes with what has been unused for longest, and
//! where both were asked for once or twice that is next to a toss: so what nobody asks for again drives out what
//! somebody would have. A key that is new to a full tier is noted here and not kept; at its second fetch it may try.
//! `docs/benchmarks.md` says what that is worth.
//!
//! Four fingerprints of 16 bits to a word, the oldest of which gives way. Its error: a key that is new is taken for
//! known in one of 16,000 looks, and one that was pushed out of its word for new. Neither does any harm.
//! Must not know: what is stored, or how often what is in the tier is asked for.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of the tier for each word of eight: so one key is remembered for each kibibyte of it.
const PER_WORD: u64 = 4096;
/// Fingerprints of a word, and the bits of each.
const PRINTS: u32 = 4;
const BITS: u32 = 16;

/// Keys that were fetched and are perhaps not stored.
#[derive(Debug)]
pub(super) struct Doorkeeper(Box<[AtomicU64]>);

impl Doorkeeper {
    /// For a tier of so many bytes.
    pub(super) fn new(budget: u64) -> Self {
        let words = (budget / PER_WORD).max(1).next_power_of_two();
        Self((0..words).map(|_| AtomicU64::new(0)).collect())
    }

    /// Whether a key with this hash has been seen; from now on it has. Of two that are noted at once one may be lost.
    pub(super) fn has_seen(&self, hash: u128) -> bool {
        let [low, high] =
            [hash, hash >> 64].map(|half| u64::try_from(half & u128::from(u64::MAX)).unwrap_or(0));
        let place = usize::try_from(low).unwrap_or(usize::MAX) & (self.0.len() - 1);
        let Some(word) = self.0.get(place) else { return false };
        // An empty place is 0: no fingerprint is.
        let print = (high >> (u64::BITS - BITS)).max(1);
        let held = word.load(Ordering::Relaxed);
        let seen = (0..PRINTS).any(|nth| (held >> (nth * BITS)) & ((1 << BITS) - 1) == print);
        if !seen {
            word.store((held << BITS) | print, Ordering::Relaxed);
        }
        seen
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
    fn a_key_is_known_the_second_time_and_a_new_one_seldom() {
        let keeper = Doorkeeper::new(64 << 20);
        let many = 30_000;
        let taken = (0..many).filter(|number| keeper.has_seen(hash(*number))).count();
        assert!(taken * 1_000 < 30_000, "{taken} of the new were taken for known");
        let known = (0..many).filter(|number| keeper.has_seen(hash(*number))).count();
        assert!(known * 100 > 30_000 * 85, "{known} of {many} were known");
    }

    #[test]
    fn it_takes_a_five_hundredth_of_the_tier_and_the_smallest_tier_has_one() {
        assert_eq!(Doorkeeper::new(64 << 20).0.len() * 8, 128 << 10);
        let least = Doorkeeper::new(0);
        assert!(!least.has_seen(0) && least.has_seen(0), "no fingerprint is an empty place");
    }
}
