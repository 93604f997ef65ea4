//! What has been purged, and since when.
//!
//! A purge gets a number and is noted under its URL's hash; a stored response carries the number
//! that stood before its fetch began ([`Born::Here`]). So a lookup knows in O(1) whether a purge
//! came in between, a fetch under way cannot bring back what was purged meanwhile, and nothing has
//! to be sought and deleted. The same notes judge what is read from Redis, by time.
//! A note whose purge is complete, with nothing left for it to void, is taken back by whoever knows
//! that ([`Purges::retract`]), so that the URLs of a write-heavy API do not fill the table.
//! Groups (RFC 9875) are purged alike, and all at a path whose responses do not vary on all of the query
//! (`No-Vary-Search`): by their own notes, with numbers from the same count. A lookup asks for those that
//! the response is in, if it is in any.
//! The tables are bounded: when a shard is full, the older half is dropped and everything of that
//! shard born before what was dropped counts as purged. That is the safe direction: too much is
//! fetched again, nothing purged is served.
//! Must not know: the tiers, or who asks for a purge.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::clock::Timestamp;
use crate::rules::ResponseFacts;
use crate::stored::{Born, CacheKey, Group, StoredResponse};

/// Purged URLs that are remembered one by one, and as many groups, unless said otherwise.
pub const PURGES: usize = 65_536;

const SHARDS: usize = 16;

/// The purges of this process, shared by all workers.
#[derive(Debug)]
pub struct Purges {
    /// Number of the latest purge; 0 = none yet.
    latest: AtomicU64,
    /// By the URL's hash.
    urls: Table,
    /// By the group's.
    groups: Table,
    /// By that of the path.
    paths: Table,
    /// Number of the latest purge of a group.
    latest_group: AtomicU64,
    /// Number of the latest purge of a path.
    latest_path: AtomicU64,
}

#[derive(Debug)]
struct Table {
    shards: [RwLock<Shard>; SHARDS],
    /// Notes per shard, at least 2.
    capacity: usize,
}

#[derive(Debug, Default)]
struct Shard {
    notes: HashMap<u128, Note, BuildHasherDefault<Ready>>,
    /// The latest of the notes that were dropped.
    floor: Option<Note>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Note {
    seq: u64,
    at: Timestamp,
}

impl Purges {
    /// Remembers about `capacity` purged URLs one by one, and as many groups.
    pub fn new(capacity: usize) -> Self {
        let table = || Table { shards: Default::default(), capacity: (capacity / SHARDS).max(2) };
        let none = || AtomicU64::new(0);
        let (urls, groups, paths) = (table(), table(), table());
        Self { latest: none(), urls, groups, paths, latest_group: none(), latest_path: none() }
    }

    /// The number of the latest purge. Read it before a fetch begins, for [`Born::Here`].
    pub fn seq(&self) -> u64 {
        self.latest.load(Ordering::Acquire)
    }

    /// Purges a URL ([`CacheKey::url_hash`](crate::stored::CacheKey::url_hash)), with all that is
    /// stored or being fetched under it; gives the purge's number.
    pub fn purge(&self, url_hash: u128, now: Timestamp) -> u64 {
        self.purge_after(url_hash, now).0
    }

    /// The same, and the number of the latest purge before it that may have been of this URL; 0 where
    /// there is none, or none is remembered since nothing was left for it to void.
    pub fn purge_after(&self, url_hash: u128, now: Timestamp) -> (u64, u64) {
        self.urls.note(url_hash, now, &self.latest)
    }

    /// Whether any group has been purged since purge `seq`.
    pub fn groups_since(&self, seq: u64) -> bool {
        self.latest_group.load(Ordering::Acquire) > seq
    }

    /// Purges a group: whatever is in it, stored or being fetched.
    pub fn purge_group(&self, group: Group, now: Timestamp) {
        let (seq, _) = self.groups.note(group.hash(), now, &self.latest);
        self.latest_group.fetch_max(seq, Ordering::AcqRel);
    }

    /// Purges all at a path that does not vary on all of the query ([`Group::of_path`]), stored or being
    /// fetched; gives the purge's number.
    pub fn purge_path(&self, path: Group, now: Timestamp) -> u64 {
        let (seq, _) = self.paths.note(path.hash(), now, &self.latest);
        self.latest_path.fetch_max(seq, Ordering::AcqRel);
        seq
    }

    /// As [`retract`](Self::retract), for a path.
    pub fn retract_path(&self, path: Group, seq: u64) {
        self.paths.retract(path.hash(), seq);
    }

    /// Takes back the note of purge `seq`: its URL has been purged wherever it is stored, and nothing
    /// is under way any more that began before. The note of a later purge of this URL stays (and stood
    /// for this one, too, so it was the later one's to take back).
    pub fn retract(&self, url_hash: u128, seq: u64) {
        self.urls.retract(url_hash, seq);
    }

    /// URLs, groups and paths that are remembered one by one now.
    pub fn notes(&self) -> usize {
        self.urls.notes() + self.groups.notes() + self.paths.notes()
    }

    /// Whether a purge makes this response void.
    pub fn is_purged(&self, response: &StoredResponse) -> bool {
        self.voids(&response.key, response.born, &response.facts)
    }

    /// Whether a purge voids a response to what this key names, fetched at `born`: one of its URL, or of
    /// a group that it is in. Cheap while nothing was purged since.
    pub fn voids(&self, key: &CacheKey, born: Born, facts: &ResponseFacts) -> bool {
        self.covers(key.url_hash(), born, facts.request_time)
            || !facts.groups.is_empty() && self.covers_group(key, born, facts)
            || facts.no_vary_search.is_some() && self.covers_path(key, born, facts)
    }

    /// Whether a purge voids what was fetched for this URL at `born`, asked for at `request_time`.
    fn covers(&self, url_hash: u128, born: Born, request_time: Timestamp) -> bool {
        self.seq() > seen(born) && self.urls.voids(url_hash, born, request_time)
    }

    fn covers_group(&self, key: &CacheKey, born: Born, facts: &ResponseFacts) -> bool {
        if self.latest_group.load(Ordering::Acquire) <= seen(born) {
            return false;
        }
        let mut groups = Group::of(key, facts.groups.iter());
        groups.any(|group| self.groups.voids(group.hash(), born, facts.request_time))
    }

    fn covers_path(&self, key: &CacheKey, born: Born, facts: &ResponseFacts) -> bool {
        self.latest_path.load(Ordering::Acquire) > seen(born)
            && self.paths.voids(Group::of_path(key).hash(), born, facts.request_time)
    }
}

/// The number of the latest purge that whatever was born so need not fear.
fn seen(born: Born) -> u64 {
    match born {
        Born::Here(seen) => seen,
        Born::Elsewhere => 0,
    }
}

impl Table {
    /// Notes a purge; gives its number, the next of `latest`, and that of the latest before it that may
    /// have been of the same.
    fn note(&self, hash: u128, now: Timestamp, latest: &AtomicU64) -> (u64, u64) {
        let Some(shard) = self.shard(hash) else {
            let seq = latest.load(Ordering::Acquire);
            return (seq, seq);
        };
        let mut shard = shard.write();
        // Numbered while the shard is held: whoever sees the number and then asks the shard has to
        // wait here for the note.
        let seq = latest.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        if shard.notes.len() >= self.capacity && !shard.notes.contains_key(&hash) {
            shard.drop_older_half();
        }
        let before = shard.notes.get(&hash).copied();
        let at = before.map_or(now, |note| note.at.max(now));
        shard.notes.insert(hash, Note { seq, at });
        let before = before.into_iter().chain(shard.floor).map(|note| note.seq).max();
        (seq, before.unwrap_or(0))
    }

    fn retract(&self, hash: u128, seq: u64) {
        let Some(shard) = self.shard(hash) else { return };
        let mut shard = shard.write();
        if shard.notes.get(&hash).is_some_and(|note| note.seq == seq) {
            shard.notes.remove(&hash);
        }
    }

    fn notes(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().notes.len()).sum()
    }

    fn voids(&self, hash: u128, born: Born, request_time: Timestamp) -> bool {
        let Some(shard) = self.shard(hash) else { return false };
        let shard = shard.read();
        let voids = |note: &Note| match born {
            Born::Here(seen) => note.seq > seen,
            // Another node's fetch has no number of ours. At the same millisecond the order is not
            // known: counted as purged.
            Born::Elsewhere => request_time <= note.at,
        };
        shard.floor.as_ref().is_some_and(voids) || shard.notes.get(&hash).is_some_and(voids)
    }

    fn shard(&self, hash: u128) -> Option<&RwLock<Shard>> {
        let nth = usize::try_from(hash % (SHARDS as u128)).unwrap_or(0);
        self.shards.get(nth)
    }
}

impl Shard {
    fn drop_older_half(&mut self) {
        let mut numbers: Vec<u64> = self.notes.values().map(|note| note.seq).collect();
        let middle = numbers.len() / 2;
        if middle == 0 {
            return;
        }
        let (_, first_kept, _) = numbers.select_nth_unstable(middle);
        let first_kept = *first_kept;
        let floor = &mut self.floor;
        self.notes.retain(|_, note| {
            let keep = note.seq >= first_kept;
            if !keep {
                *floor = Some(floor.map_or(*note, |floor| floor.max(*note)));
            }
            keep
        });
    }
}

impl Note {
    fn max(self, other: Self) -> Self {
        Self { seq: self.seq.max(other.seq), at: self.at.max(other.at) }
    }
}

/// The keys are hashes already. Somebody who seeks collisions of them only lengthens one bucket of
/// a table that few may write to (the admin's purges, and unsafe requests that the origin accepts).
#[derive(Debug, Default)]
struct Ready(u64);

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, hash: u128) {
        // The low bits choose the shard, so the high half is used here.
        self.0 = (hash >> 64) as u64;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stored::samples::{key, stored};

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    #[test]
    fn a_purge_tells_of_the_one_before_it() {
        let purges = Purges::new(PURGES);
        assert_eq!(purges.purge_after(1, NOW), (1, 0));
        assert_eq!(purges.purge_after(2, NOW), (2, 0), "of another URL");
        assert_eq!(purges.purge_after(1, NOW), (3, 1));
        purges.retract(1, 3);
        assert_eq!(purges.purge_after(1, NOW), (4, 0));
    }

    #[test]
    fn a_purge_voids_what_was_born_before_it_and_nothing_later() {
        let purges = Purges::new(PURGES);
        let before = Born::Here(purges.seq());
        assert!(!purges.covers(1, before, NOW));
        assert_eq!(purges.purge(1, NOW), 1);
        let after = Born::Here(purges.seq());
        assert!(purges.covers(1, before, NOW), "stored before, or being fetched when it was purged");
        assert!(!purges.covers(2, before, NOW), "another URL");
        assert!(!purges.covers(1, after, NOW), "fetched after the purge");
    }

    #[test]
    fn what_another_node_fetched_is_judged_by_time() {
        let purges = Purges::new(PURGES);
        assert!(!purges.covers(1, Born::Elsewhere, Timestamp::from_millis(0)));
        purges.purge(1, NOW);
        let (earlier, later) = (Timestamp::from_secs(999), Timestamp::from_millis(1_000_001));
        assert!(purges.covers(1, Born::Elsewhere, earlier));
        assert!(purges.covers(1, Born::Elsewhere, NOW), "the same millisecond: not known, so purged");
        assert!(!purges.covers(1, Born::Elsewhere, later));
        assert!(!purges.covers(2, Born::Elsewhere, earlier));
    }

    #[test]
    fn a_purge_that_is_complete_leaves_no_note_and_a_later_one_keeps_its_own() {
        let purges = Purges::new(PURGES);
        let before = Born::Here(purges.seq());
        let first = purges.purge(1, NOW);
        let second = purges.purge(1, NOW);
        purges.retract(1, first);
        assert!(purges.covers(1, before, NOW), "the second is not complete");
        assert!(purges.covers(1, Born::Here(first), NOW));
        purges.retract(1, second);
        assert_eq!((purges.notes(), purges.seq()), (0, second));
        assert!(!purges.covers(1, before, NOW));
    }

    #[test]
    fn a_full_table_forgets_in_the_safe_direction() {
        let purges = Purges::new(4 * SHARDS);
        let shard_mate = |nth: u128| (nth << 64) | 5;
        let before = Born::Here(purges.seq());
        for nth in 1..=5 {
            purges.purge(shard_mate(nth), NOW);
        }
        let seen = |seq| Born::Here(seq);
        assert!(purges.covers(shard_mate(1), before, NOW), "its note is dropped, the floor stands for it");
        assert!(purges.covers(shard_mate(99), before, NOW), "never purged, but born before the floor");
        assert!(purges.covers(shard_mate(99), Born::Elsewhere, NOW));
        assert!(!purges.covers(shard_mate(99), seen(2), NOW), "born at the floor");
        assert!(purges.covers(shard_mate(4), seen(3), NOW), "kept notes still speak for themselves");
        assert!(!purges.covers(shard_mate(99) + 1, before, NOW), "the floor is that of one shard");
    }

    #[test]
    fn a_purge_of_a_group_voids_what_is_in_it_on_its_origin() {
        let purges = Purges::new(PURGES);
        let cached = |path: &str, groups: &str, born| {
            let fields = [("cache-control", "max-age=60"), ("cache-groups", groups)];
            stored(&key(path), &[], &fields, b"", born)
        };
        let before = Born::Here(purges.seq());
        let [one, two] = ["\"a\", \"b\"", "\"b\""].map(|groups| cached("/x", groups, before));
        let elsewhere = cached("/y", "\"a\"", Born::Elsewhere);
        let [a, other] = ["http://test/z", "http://other/z"].map(|url| {
            let key = CacheKey::from_parts(url.into(), "".into());
            Group::of(&key, ["a"].into_iter()).next().unwrap()
        });
        purges.purge_group(other, NOW);
        assert!(!purges.is_purged(&one) && !purges.is_purged(&elsewhere), "§2.1: another origin");
        purges.purge_group(a, NOW);
        assert!(purges.is_purged(&one) && !purges.is_purged(&two));
        // Samples are asked for at the same second as NOW.
        assert!(purges.is_purged(&elsewhere));
        assert!(!purges.is_purged(&cached("/x", "\"a\"", Born::Here(purges.seq()))), "fetched after it");
        assert!(!purges.is_purged(&cached("/x", "\"A\"", before)), "§2.1: case sensitive");
        assert!(!purges.covers(key("/x").url_hash(), before, NOW), "no URL is purged");
    }

    #[derive(Clone, Debug)]
    enum Act {
        Purge(u128),
        Begin(u128),
    }

    fn act() -> impl Strategy<Value = Act> {
        // Two shards, few URLs: overflow and repeats both happen.
        let url = (0u128..6, 0u128..2).prop_map(|(high, low)| (high << 64) | low);
        prop_oneof![url.clone().prop_map(Act::Purge), url.prop_map(Act::Begin)]
    }

    proptest! {
        /// Against the plain list of all purges: nothing purged is ever missed, and with room for
        /// all of them nothing else is touched.
        #[test]
        fn agrees_with_the_list_of_all_purges(acts in prop::collection::vec(act(), 1..80), roomy: bool) {
            let purges = Purges::new(if roomy { PURGES } else { 2 * SHARDS });
            let mut list: Vec<(u128, u64, Timestamp)> = Vec::new();
            let mut begun: Vec<(u128, u64, Timestamp)> = Vec::new();
            for (tick, act) in acts.into_iter().enumerate() {
                let now = Timestamp::from_millis(u64::try_from(tick).unwrap() * 10 + 5);
                match act {
                    Act::Purge(url) => list.push((url, purges.purge(url, now), now)),
                    Act::Begin(url) => begun.push((url, purges.seq(), now)),
                }
            }
            for (url, seen, asked) in begun {
                let truth = list.iter().any(|(purged, seq, _)| *purged == url && *seq > seen);
                let elsewhere = list.iter().any(|(purged, _, at)| *purged == url && asked <= *at);
                prop_assert!(purges.covers(url, Born::Here(seen), asked) || !truth);
                prop_assert!(purges.covers(url, Born::Elsewhere, asked) || !elsewhere);
                if roomy {
                    prop_assert_eq!(purges.covers(url, Born::Here(seen), asked), truth);
                    prop_assert_eq!(purges.covers(url, Born::Elsewhere, asked), elsewhere);
                }
            }
        }
    }
}
