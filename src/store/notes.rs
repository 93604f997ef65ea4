//! What is noted of purges, and whom a note is of.
//!
//! Knows tables that are bounded and forget in the safe direction, and how a note is compared with a response: by
//! its number in this process, by its place in the fleet's log, or by time.
//! Must not know: who numbers purges, or what they are of.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::clock::Timestamp;
use crate::rules::ResponseFacts;
use crate::stored::{Born, CacheKey, Group, Position, Prefix, Standing};

/// Prefixes that are remembered one by one. Each is compared with a response once; a thousand take some 10 µs.
pub(super) const PREFIXES: usize = 1_024;

pub(super) const SHARDS: usize = 16;

/// As tables have it: the low bits choose the shard, the high ones the bucket.
pub(super) fn spread(hash: u64) -> u128 {
    u128::from(hash) << 64 | u128::from(hash)
}

/// All notes of one kind of purge.
#[derive(Debug)]
pub(super) struct Notes {
    /// By the URL's hash.
    pub(super) urls: Table,
    /// By the group's.
    pub(super) groups: Table,
    /// By that of the path.
    pub(super) paths: Table,
    /// By the tag's.
    pub(super) tags: Table,
    /// By that of the route's name.
    pub(super) routes: Table,
    pub(super) wide: Wide,
}

/// Purges that are of more than can be looked up.
#[derive(Debug, Default)]
pub(super) struct Wide {
    few: RwLock<Few>,
    pub(super) latest: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct Few {
    /// The latest of everything, and of the prefixes that were dropped.
    all: Option<Note>,
    /// The oldest first.
    prefixes: Vec<(Prefix, Note)>,
}

#[derive(Debug)]
pub(super) struct Table {
    shards: [RwLock<Shard>; SHARDS],
    /// Notes per shard, at least 2.
    capacity: usize,
    /// Number of the latest.
    latest: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    notes: HashMap<u128, Note, BuildHasherDefault<Ready>>,
    /// The latest of the notes that were dropped.
    floor: Option<Note>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    seq: u64,
    at: Timestamp,
    /// Where in the fleet's log it stands.
    pub(super) position: Option<Position>,
    /// The latest of those that it stands for that are not in that log.
    untold: Option<Moment>,
    /// It stands for several purges.
    joined: bool,
}

/// A time and a number; of several, the latest of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moment {
    seq: u64,
    at: Timestamp,
}

/// A response as notes judge it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    pub(super) born: Born,
    pub(super) request_time: Timestamp,
    /// The latest purge before it was read from Redis.
    pub(super) met: u64,
    /// The latest purge of which it need not be asked.
    pub(super) cleared: u64,
}

impl Notes {
    pub(super) fn new(capacity: usize) -> Self {
        let table = || Table {
            shards: Default::default(),
            capacity: (capacity / SHARDS).max(2),
            latest: AtomicU64::new(0),
        };
        Self {
            urls: table(),
            groups: table(),
            paths: table(),
            tags: table(),
            routes: table(),
            wide: Wide::default(),
        }
    }

    /// Whether one is of this response. Of each kind only if there is any that it has not been asked about.
    pub(super) fn void(
        &self,
        key: &CacheKey,
        facts: &ResponseFacts,
        standing: &Standing,
        subject: Subject,
    ) -> bool {
        let new = |table: &Table| table.latest() > subject.cleared;
        let group = |group: Group| self.groups.voids(group.hash(), subject);
        new(&self.urls) && self.urls.voids(key.url_hash(), subject)
            || new(&self.groups) && !facts.groups.is_empty() && Group::of(key, facts.groups.iter()).any(group)
            || new(&self.paths)
                && facts.no_vary_search.is_some()
                && self.paths.voids(Group::of_path(key).hash(), subject)
            || new(&self.tags) && standing.tags().iter().any(|tag| self.tags.voids(spread(*tag), subject))
            || new(&self.routes) && self.routes.voids(spread(standing.route()), subject)
            || self.wide.voids(key, subject)
    }

    /// Number of the latest that is of more than a URL or a path.
    pub(super) fn latest_of_many(&self) -> u64 {
        let tables = [&self.groups, &self.tags, &self.routes].map(Table::latest);
        tables.into_iter().fold(self.wide.latest.load(Ordering::Acquire), u64::max)
    }

    pub(super) fn count(&self) -> usize {
        let tables = [&self.urls, &self.groups, &self.paths, &self.tags, &self.routes];
        tables.map(Table::notes).iter().sum::<usize>() + self.wide.few.read().prefixes.len()
    }
}

impl Wide {
    pub(super) fn note(&self, prefix: Option<&Prefix>, note: Note) {
        let mut few = self.few.write();
        match prefix {
            None => {
                few.all = Some(few.all.map_or(note, |before| before.max(note)));
                // Whatever these are of is part of everything.
                few.prefixes.clear();
            }
            Some(prefix) => few.add(prefix, note),
        }
        self.latest.store(note.seq, Ordering::Release);
    }

    fn voids(&self, key: &CacheKey, subject: Subject) -> bool {
        if self.latest.load(Ordering::Acquire) <= subject.cleared {
            return false;
        }
        let few = self.few.read();
        let new = few.prefixes.iter().rev().take_while(|(_, note)| note.seq > subject.cleared);
        few.all.is_some_and(|note| note.voids(subject))
            || new.into_iter().any(|(prefix, note)| note.voids(subject) && prefix.covers(key))
    }
}

impl Few {
    fn add(&mut self, prefix: &Prefix, note: Note) {
        let known = self.prefixes.iter().position(|(known, _)| known == prefix);
        let before = known.map(|nth| self.prefixes.remove(nth).1);
        if self.prefixes.len() >= PREFIXES {
            let dropped = self.prefixes.drain(..PREFIXES / 2).map(|(_, note)| note);
            self.all = dropped.chain(self.all).reduce(Note::max);
        }
        let note = before.map_or(note, |before| before.max(note));
        self.prefixes.push((prefix.clone(), note));
    }
}

impl Table {
    /// Gives the number of the latest before it that may have been of the same.
    pub(super) fn note(&self, hash: u128, note: Note) -> u64 {
        let Some(shard) = self.shard(hash) else { return note.seq };
        let mut shard = shard.write();
        if shard.notes.len() >= self.capacity && !shard.notes.contains_key(&hash) {
            shard.drop_older_half();
        }
        let before = shard.notes.get(&hash).copied();
        shard.notes.insert(hash, before.map_or(note, |before| before.max(note)));
        self.latest.store(note.seq, Ordering::Release);
        before.into_iter().chain(shard.floor).map(|note| note.seq).max().unwrap_or(0)
    }

    pub(super) fn latest(&self) -> u64 {
        self.latest.load(Ordering::Acquire)
    }

    /// Takes back note `seq`, unless a later one has taken its place; `alone`: unless it stands for any other, too.
    pub(super) fn retract(&self, hash: u128, seq: u64, alone: bool) {
        let Some(shard) = self.shard(hash) else { return };
        let mut shard = shard.write();
        if shard.notes.get(&hash).is_some_and(|note| note.seq == seq && !(alone && note.joined)) {
            shard.notes.remove(&hash);
        }
    }

    fn notes(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().notes.len()).sum()
    }

    pub(super) fn voids(&self, hash: u128, subject: Subject) -> bool {
        let Some(shard) = self.shard(hash) else { return false };
        let shard = shard.read();
        let voids = |note: &Note| note.voids(subject);
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

impl Moment {
    fn max(self, other: Self) -> Self {
        Self { seq: self.seq.max(other.seq), at: self.at.max(other.at) }
    }
}

impl Note {
    pub(super) fn new(seq: u64, position: Option<Position>, at: Timestamp) -> Self {
        let untold = position.is_none().then_some(Moment { seq, at });
        Self { seq, at, position, untold, joined: false }
    }

    /// One for both: whatever either voids, it voids.
    pub(super) fn max(self, other: Self) -> Self {
        let (first, last) = if self.seq <= other.seq { (self, other) } else { (other, self) };
        let (position, other_log) = match (first.position, last.position) {
            (Some(one), Some(two)) => match two.is_after(one) {
                Some(true) => (Some(two), None),
                Some(false) => (Some(one), None),
                None => (Some(two), Some(first.moment())),
            },
            (one, two) => (two.or(one), None),
        };
        let untold = [first.untold, last.untold, other_log].into_iter().flatten().reduce(Moment::max);
        Self { seq: last.seq, at: first.at.max(last.at), position, untold, joined: true }
    }

    fn moment(&self) -> Moment {
        Moment { seq: self.seq, at: self.at }
    }

    pub(super) fn voids(&self, subject: Subject) -> bool {
        let Subject { born, request_time, met, cleared } = subject;
        if self.seq <= cleared {
            return false;
        }
        match born {
            Born::Here(seen) => self.seq > seen,
            // Another node's fetch has no number of ours. By time, at the same millisecond the order is not
            // known: counted as purged. Clocks differ: what has been read before the purge is older than that.
            Born::Elsewhere(position) => {
                let after = self.position.zip(position).and_then(|(purged, read)| purged.is_after(read));
                let by_time = if after.is_some() { self.untold } else { Some(self.moment()) };
                after == Some(true) || by_time.is_some_and(|made| made.seq > met || request_time <= made.at)
            }
        }
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

    proptest! {
        /// Notes that stand for several void whatever any of them does, whichever log they are of.
        #[test]
        fn a_note_for_two_voids_what_either_does(
            one in (prop::option::of((1u64..3, 0u64..5)), 900u64..1_100),
            two in (prop::option::of((1u64..3, 0u64..5)), 900u64..1_100),
            seen in prop::option::of(0u64..5), asked in 900u64..1_100, met in 0u64..4, swapped: bool,
        ) {
            let note = |seq, (position, at): (Option<(u64, u64)>, u64)| {
                let position = position.map(|(run, n)| Position { run, n });
                Note::new(seq, position, Timestamp::from_secs(at))
            };
            let (one, two) = (note(1, one), note(2, two));
            let subject = Subject {
                born: Born::Elsewhere(seen.map(|n| Position { run: 2, n })),
                request_time: Timestamp::from_secs(asked),
                met,
                cleared: 0,
            };
            let both = if swapped { two.max(one) } else { one.max(two) };
            // Of a log that another has taken the place of, the time alone is known.
            let is_forgotten = |note: &Note| both.position != note.position
                && note.position.is_some_and(|position| Some(position.run) != both.position.map(|of| of.run));
            for note in [one, two] {
                let by_time = Note { position: None, ..note };
                let note = if is_forgotten(&note) { by_time } else { note };
                prop_assert!(!note.voids(subject) || both.voids(subject), "{note:?} {both:?} {subject:?}");
            }
        }
    }
}
