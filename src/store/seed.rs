//! How tables hash what is a number already: the keys of the memory tier, and the numbers of connections.
//!
//! Knows that a key is a good hash, and that nobody outside may tell which keys fall
//! together. Must not know: what is stored.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Hashes keys that are hashes already: no second pass over the text, only a mixing with a seed of
/// this process, so that nobody outside can tell which keys fall together in moka.
#[derive(Clone, Copy)]
pub struct Seed(u64, u64);

impl std::fmt::Debug for Seed {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not shown: it is what an attacker would need.
        out.write_str("Seed")
    }
}

impl Default for Seed {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0), RandomState::new().hash_one(1))
    }
}

impl BuildHasher for Seed {
    type Hasher = Mixer;

    fn build_hasher(&self) -> Mixer {
        Mixer { state: self.0, seed: self.1 }
    }
}

/// A folded multiplication for each 64 bits.
pub struct Mixer {
    state: u64,
    seed: u64,
}

impl Mixer {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.state ^ word).wrapping_mul(u128::from(self.seed | 1));
        self.state = (product as u64) ^ ((product >> 64) as u64);
        self.state = self.state.wrapping_add(self.seed.rotate_left(17));
    }
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        let product = u128::from(self.state).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (product as u64) ^ ((product >> 64) as u64)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            self.mix(chunk.iter().fold(0, |word, byte| (word << 8) | u64::from(*byte)));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.mix(word);
    }

    fn write_u128(&mut self, hash: u128) {
        self.mix(hash as u64);
        self.mix((hash >> 64) as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_mixer_keeps_different_keys_apart(one: u128, two: u128) {
            let seed = Seed(3, 5);
            prop_assert_eq!(seed.hash_one(one), seed.hash_one(one));
            prop_assume!(one != two);
            prop_assert_ne!(seed.hash_one(one), seed.hash_one(two));
            prop_assert_ne!(seed.hash_one(one), Seed(4, 5).hash_one(one));
        }
    }

    #[test]
    fn the_mixer_spreads_near_keys_over_all_bits() {
        let seed = Seed::default();
        for shift in [0, 8, 58] {
            let slots: HashSet<u64> = (0..1024u128).map(|key| (seed.hash_one(key) >> shift) & 63).collect();
            assert_eq!(slots.len(), 64, "shift {shift}");
        }
    }
}
