//! Which keys are asked for most, and how they are named to other nodes.
//!
//! Knows that a hit must not pay for being counted: one in [`ONE_IN`] is, under a lock that nobody waits for. Counts
//! fade, so that what was hot an hour ago is not in the way; when a table is full, all counts are halved and what
//! comes to nothing is forgotten.
//!
//! A response is named by the hashes that its key in Redis is made of, so a list tells no more than the keys do that
//! stand there in the clear; with a secret it is sealed as they are. Whatever the bytes of a list are, reading them
//! gives names: one that nothing stands under is one read in vain.
//! Must not know: where lists are kept, or what is done with them.
//!
//! ```text
//! list  magic "LRDH" | version u8 = 1 | written at u64 ms | count u16, of names | xxh3-64 of everything before it
//! name  flags u8: 1 = extras, 2 = variant | URL u128 | extras u128 | selecting fields u64 | weight u32
//! ```

use std::collections::HashMap;
use std::hash::BuildHasher as _;

use parking_lot::Mutex;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::seed::Seed;
use crate::clock::Timestamp;
use crate::stored::StoredResponse;

/// Of so many hits one is counted.
pub const ONE_IN: u64 = 16;
/// Tables, by key: threads that count at once rarely meet.
const TABLES: u64 = 16;
/// What a hit adds. More than 1, so that fading is gradual.
const HIT: u32 = 16;
/// Of a count, so much is taken away each time that it fades.
const FADES: u32 = 8;
/// Keys in a table, however few are named: they fill unevenly.
const LEAST: usize = 64;

const MAGIC: &[u8; 4] = b"LRDH";
const VERSION: u8 = 1;
const EXTRAS: u8 = 1;
const VARIANT: u8 = 2;
/// Names in one list.
pub const MOST_IN_LIST: usize = 4096;
/// Bytes of the longest list.
pub const LONGEST_LIST: u64 = (4 + 1 + 8 + 2 + 8 + MOST_IN_LIST * (1 + 16 + 16 + 8 + 4)) as u64;

/// Counts hits by key, some of them.
#[derive(Debug)]
pub struct Hot {
    tables: Vec<Mutex<HashMap<u128, u32, Seed>>>,
    seed: Seed,
    /// Keys in each table; 0 = nothing is counted.
    most: usize,
}

impl Hot {
    /// Remembers some `keys` of them.
    pub fn new(keys: usize) -> Self {
        let tables = (0..TABLES).map(|_| Mutex::new(HashMap::with_hasher(Seed::default()))).collect();
        // Half as many again: halving leaves them half empty.
        let most = if keys == 0 { 0 } else { (keys.saturating_mul(3) / (2 * 16)).max(LEAST) };
        Self { tables, seed: Seed::default(), most }
    }

    /// A hit, the `nth` of its thread or so, of what has this hash. Most are not counted; which ones depends on
    /// no pattern in which keys come.
    pub fn hit(&self, nth: u64, hash: u128) {
        // The golden ratio's multiples are spread evenly, whatever is left out of them at regular distances.
        if nth.wrapping_mul(0x9e37_79b9_7f4a_7c15) <= u64::MAX / ONE_IN {
            self.count(hash);
        }
    }

    #[cold]
    fn count(&self, hash: u128) {
        let at = usize::try_from(self.seed.hash_one(hash) % TABLES).unwrap_or(0);
        // Whoever finds it locked lets this one go.
        let Some(mut table) = self.tables.get(at).and_then(Mutex::try_lock) else { return };
        if let Some(count) = table.get_mut(&hash) {
            *count = count.saturating_add(HIT);
            return;
        }
        if self.most == 0 {
            return;
        }
        // Each round halves; after 32 nothing is left.
        while table.len() >= self.most {
            table.retain(|_, count| {
                *count /= 2;
                *count >= HIT / 2
            });
        }
        table.insert(hash, HIT);
    }

    /// The keys' hashes with their counts, the highest first, `most` at most.
    pub fn top(&self, most: usize) -> Vec<(u128, u32)> {
        let mut top = Vec::new();
        for table in &self.tables {
            top.extend(table.lock().iter().map(|(hash, count)| (*hash, *count)));
        }
        top.sort_unstable_by_key(|(_, count)| std::cmp::Reverse(*count));
        top.truncate(most);
        top
    }

    /// Has all counts fade: once in a minute, what was asked for five minutes ago counts half.
    pub fn fade(&self) {
        for table in &self.tables {
            table.lock().retain(|_, count| {
                *count = count.saturating_sub((*count / FADES).max(1));
                *count > 0
            });
        }
    }
}

/// A response's name, by what its key in Redis is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// [`CacheKey::url_hash`](crate::stored::CacheKey::url_hash).
    pub url: u128,
    /// The hash of the key's extras, where there are any.
    pub extras: Option<u128>,
    /// The hash of the selecting fields, where it varies.
    pub variant: Option<u64>,
    /// How much it is asked for, beside others.
    pub weight: u32,
}

impl Name {
    /// That of a response; `None` of one that is found by a rule for its query, whose key others may not know yet.
    pub fn of(response: &StoredResponse, weight: u32) -> Option<Self> {
        if response.key.is_searched() || response.facts.no_vary_search.is_some() {
            return None;
        }
        let extras = response.key.extras();
        let extras = (!extras.is_empty()).then(|| xxh3_128(extras.as_bytes()));
        let varies = response.selecting.names().next().is_some();
        let variant = varies.then(|| response.selecting.hash());
        Some(Self { url: response.key.url_hash(), extras, variant, weight })
    }

    /// What it is by, without its weight.
    pub fn identity(&self) -> (u128, Option<u128>, Option<u64>) {
        (self.url, self.extras, self.variant)
    }
}

/// The list of these names, [`MOST_IN_LIST`] at most.
pub fn encode(names: &[Name], at: Timestamp) -> Vec<u8> {
    let names = names.get(..MOST_IN_LIST).unwrap_or(names);
    let mut out = Vec::with_capacity(64 + names.len() * 45);
    out.extend_from_slice(MAGIC);
    out.push(VERSION);
    out.extend_from_slice(&at.as_millis().to_le_bytes());
    out.extend_from_slice(&u16::try_from(names.len()).unwrap_or(0).to_le_bytes());
    for name in names {
        let flags = name.extras.map_or(0, |_| EXTRAS) | name.variant.map_or(0, |_| VARIANT);
        out.push(flags);
        out.extend_from_slice(&name.url.to_le_bytes());
        name.extras.iter().for_each(|extras| out.extend_from_slice(&extras.to_le_bytes()));
        name.variant.iter().for_each(|variant| out.extend_from_slice(&variant.to_le_bytes()));
        out.extend_from_slice(&name.weight.to_le_bytes());
    }
    let checksum = xxh3_64(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// The names of a list, and when it was written; `None` where the bytes are none.
pub fn decode(bytes: &[u8]) -> Option<(Timestamp, Vec<Name>)> {
    let (head, checksum) = bytes.split_last_chunk::<8>()?;
    if xxh3_64(head) != u64::from_le_bytes(*checksum) {
        return None;
    }
    let mut rest = head.strip_prefix(MAGIC)?.strip_prefix(&[VERSION])?;
    let at = Timestamp::from_millis(u64::from_le_bytes(take(&mut rest)?));
    let count = usize::from(u16::from_le_bytes(take(&mut rest)?));
    let mut names = Vec::new();
    while !rest.is_empty() {
        let [flags] = take(&mut rest)?;
        let url = u128::from_le_bytes(take(&mut rest)?);
        let extras = if flags & EXTRAS == 0 { None } else { Some(u128::from_le_bytes(take(&mut rest)?)) };
        let variant = if flags & VARIANT == 0 { None } else { Some(u64::from_le_bytes(take(&mut rest)?)) };
        let weight = u32::from_le_bytes(take(&mut rest)?);
        names.push(Name { url, extras, variant, weight });
    }
    (names.len() == count).then_some((at, names))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, left) = rest.split_first_chunk::<N>()?;
    *rest = left;
    Some(*bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stored::samples::{key, plain, stored};
    use crate::stored::{Born, CacheKey};

    #[test]
    fn one_hit_in_sixteen_is_counted_whatever_the_pattern_of_keys() {
        let hot = Hot::new(1_000);
        // Sixteen keys in turn: by counting every sixteenth hit, one alone would ever be seen.
        (0..160_000u64).for_each(|nth| hot.hit(nth, u128::from(nth % 16)));
        let top = hot.top(100);
        assert_eq!(top.len(), 16);
        let hits: Vec<u32> = top.iter().map(|(_, count)| count / HIT).collect();
        assert_eq!(hits.iter().sum::<u32>(), 10_000, "{hits:?}");
        assert!(hits.iter().all(|hits| (500..=750).contains(hits)), "{hits:?}");
    }

    #[test]
    fn what_is_asked_for_most_stays_when_a_table_is_full_of_what_was_asked_for_once() {
        let hot = Hot::new(320);
        for nth in 0..40_000u128 {
            hot.count(1_000_000 + nth);
            // Ten that come again and again.
            hot.count(nth % 10);
            assert!(hot.tables.iter().all(|table| table.lock().len() <= hot.most));
        }
        let top: Vec<u128> = hot.top(10).into_iter().map(|(hash, _)| hash).collect();
        assert!(top.iter().all(|hash| *hash < 10), "{top:?}");
        assert_eq!(top.len(), 10);
    }

    #[test]
    fn counts_fade_until_they_are_forgotten() {
        let hot = Hot::new(100);
        (0..100).for_each(|_| hot.count(7));
        let counts: Vec<u32> = std::iter::from_fn(|| {
            let count = hot.top(10).first().map(|(_, count)| *count);
            hot.fade();
            count
        })
        .collect();
        assert_eq!((counts[0], counts[5] * 2 / 1_600), (1_600, 1), "{counts:?}");
        assert!(counts.windows(2).all(|pair| pair[1] < pair[0]) && counts.len() < 60, "{counts:?}");
    }

    #[test]
    fn where_nothing_is_to_be_counted_nothing_is() {
        let hot = Hot::new(0);
        (0..1_000).for_each(|nth| hot.hit(nth, 7));
        assert_eq!(hot.top(10), []);
    }

    #[test]
    fn a_response_is_named_by_what_its_key_in_redis_is_made_of() {
        let of_plain = Name::of(&plain("/a", b"", Born::Here(0)), 7).unwrap();
        assert_eq!(of_plain, Name { url: key("/a").url_hash(), extras: None, variant: None, weight: 7 });
        let extras = CacheKey::from_parts("http://test/a", "h:x=1;");
        let fields = [("cache-control", "max-age=60"), ("vary", "accept")];
        let varying = stored(&extras, &[("accept", "b")], &fields, b"", Born::Here(0));
        let named = Name::of(&varying, 1).unwrap();
        assert_eq!(named.url, of_plain.url);
        assert_eq!(named.extras, Some(xxh3_128(b"h:x=1;")));
        assert_eq!(named.variant, Some(varying.selecting.hash()));
        let fields = [("cache-control", "max-age=60"), ("no-vary-search", "params")];
        assert_eq!(Name::of(&stored(&key("/a"), &[], &fields, b"", Born::Here(0)), 1), None);
    }

    fn any_name() -> impl Strategy<Value = Name> {
        (any::<u128>(), any::<Option<u128>>(), any::<Option<u64>>(), any::<u32>())
            .prop_map(|(url, extras, variant, weight)| Name { url, extras, variant, weight })
    }

    proptest! {
        #[test]
        fn a_list_comes_back_and_any_bytes_are_judged(
            names in prop::collection::vec(any_name(), 0..50), at: u32, noise: Vec<u8>, cut in 0usize..200,
        ) {
            let at = Timestamp::from_millis(at.into());
            let list = encode(&names, at);
            prop_assert!(list.len() as u64 <= LONGEST_LIST);
            prop_assert_eq!(decode(&list), Some((at, names)));
            prop_assert_eq!(decode(&noise), None);
            let cut = cut.min(list.len() - 1);
            prop_assert_eq!(decode(&list[..cut]), None);
        }
    }

    #[test]
    fn the_longest_list_is_as_long_as_is_said() {
        let name = Name { url: 1, extras: Some(2), variant: Some(3), weight: 4 };
        let list = encode(&vec![name; MOST_IN_LIST + 1], Timestamp::from_secs(1));
        assert_eq!(list.len() as u64, LONGEST_LIST);
        assert_eq!(decode(&list).unwrap().1.len(), MOST_IN_LIST);
    }
}
