//! What has been purged, and since when.
//!
//! A purge gets a number and is noted under what it is of: a URL's hash, a group's, a path's, a tag's, a
//! route's, a prefix, or everything. A stored response carries the number that stood before its fetch began
//! ([`Born::Here`](crate::stored::Born::Here)). So a lookup knows whether a purge came in between, a fetch under way cannot bring back
//! what was purged meanwhile, and nothing has to be sought and deleted: the cost of a purge does not depend
//! on what is stored, and there is no index of tags. What a hit pays is one comparison, since a response
//! remembers up to which purge it has been judged ([`Standing::cleared`]); whatever has come since it is asked
//! about once: its URL, each of its groups and tags, its route, and the prefixes among the new purges.
//!
//! The same notes judge what is read from Redis. What another node had fetched carries how far that node had
//! read the fleet's log ([`Position`]); against a purge of the same log the numbers say which was first, against
//! any other the time of the request does.
//!
//! Hard purges and soft ones have notes of their own: one makes a response void, the other makes it one that
//! must be validated (`rules::reuse`), which its next 304 or fetch ends.
//!
//! A note whose purge is complete, with nothing left for it to void, is taken back by whoever knows that
//! ([`Purges::retract`]), so that the URLs of a write-heavy API do not fill the table.
//! The tables are bounded: when a shard is full, the older half is dropped and everything of that shard born
//! before what was dropped counts as purged (softly, if that was soft); of prefixes there are 1,024,
//! and what takes their place counts for everything. That is the safe direction: too much is fetched again,
//! nothing purged is served.
//! Must not know: the tiers, or who asks for a purge.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::notes::{Note, Notes, Subject, Table, spread};
use crate::clock::Timestamp;
use crate::rules::ResponseFacts;
use crate::stored::{
    CacheKey, Group, Position, Prefix, Purge, Scope, Standing, StoredResponse, Verdict, route_hash, tag_hash,
};

/// Purged URLs that are remembered one by one, and as many groups, tags and the like, unless said otherwise.
pub const PURGES: usize = 65_536;

/// The purges of this process, shared by all workers.
#[derive(Debug)]
pub struct Purges {
    /// Number of the latest purge; 0 = none yet.
    latest: AtomicU64,
    /// Held while a note is taken: a number is shown only once its note stands, so whoever has judged by the
    /// notes has judged by all purges up to the number that was shown.
    noting: Mutex<()>,
    hard: Notes,
    soft: Notes,
    /// How far the fleet's log has been read.
    position: Mutex<Option<Position>>,
    /// Number of the latest purge that leaves something in memory to be freed.
    to_sweep: AtomicU64,
    sweep: Notify,
}

impl Purges {
    /// Remembers about `capacity` purged URLs one by one, and as many groups, tags and the like.
    pub fn new(capacity: usize) -> Self {
        Self {
            latest: AtomicU64::new(0),
            noting: Mutex::new(()),
            hard: Notes::new(capacity),
            soft: Notes::new(capacity),
            position: Mutex::new(None),
            to_sweep: AtomicU64::new(0),
            sweep: Notify::new(),
        }
    }

    /// The number of the latest purge. Read it before a fetch begins, for [`Born::Here`](crate::stored::Born::Here).
    pub fn seq(&self) -> u64 {
        self.latest.load(Ordering::Acquire)
    }

    /// How far the fleet's log has been read. Read it before a fetch begins, beside [`seq`](Self::seq).
    pub fn position(&self) -> Option<Position> {
        *self.position.lock()
    }

    /// The fleet's log has been read up to there. Of one log the furthest counts; another log takes its place.
    ///
    /// Whoever has been given a place in the log by the Redis that keeps it may say so, though others before
    /// it have yet to be heard of: a fetch that begins after that begins after these, too, and the numbers of
    /// this process still judge what was fetched before they came here.
    pub fn advance(&self, to: Position) {
        let mut position = self.position.lock();
        if position.is_none_or(|known| to.is_after(known) != Some(false)) {
            *position = Some(to);
        }
    }

    /// Notes a purge that was made at `at`, and where in the fleet's log it stands if it stands there; gives its
    /// number in this process. What it is of is void, or soft, from here on; memory and Redis are not told.
    pub fn apply(&self, purge: &Purge, position: Option<Position>, at: Timestamp) -> u64 {
        let mark = (position, at);
        let (seq, _) = match &purge.scope {
            Scope::Url(url) => {
                let key = CacheKey::from_parts(url, "");
                self.note(|notes| &notes.urls, key.url_hash(), purge.soft, mark)
            }
            Scope::Group(group) => self.note(|notes| &notes.groups, group.hash(), purge.soft, mark),
            Scope::Path(path) => self.note(|notes| &notes.paths, path.hash(), purge.soft, mark),
            Scope::Tag(tag) => {
                let hash = spread(tag_hash(tag.as_bytes()));
                self.note(|notes| &notes.tags, hash, purge.soft, mark)
            }
            Scope::Route(name) => {
                self.note(|notes| &notes.routes, spread(route_hash(name)), purge.soft, mark)
            }
            Scope::Prefix(prefix) => (self.note_wide(Some(prefix), purge.soft, mark), 0),
            Scope::All => (self.note_wide(None, purge.soft, mark), 0),
        };
        // After the note, so that nobody believes to know of it before it stands.
        if let Some(position) = position {
            self.advance(position);
        }
        let is_found_by_its_key = matches!(purge.scope, Scope::Url(_) | Scope::Group(_) | Scope::Path(_));
        if !purge.soft && !is_found_by_its_key {
            self.to_sweep.fetch_max(seq, Ordering::AcqRel);
            self.sweep.notify_one();
        }
        seq
    }

    /// Waits until something has been purged since purge `swept` that is to be sought in memory and freed; for
    /// one who waits. Dropped, nothing is lost.
    pub async fn sweep_due(&self, swept: u64) {
        while self.to_sweep.load(Ordering::Acquire) <= swept {
            self.sweep.notified().await;
        }
    }

    /// Purges a URL ([`CacheKey::url_hash`](crate::stored::CacheKey::url_hash)), with all that is
    /// stored or being fetched under it; gives the purge's number.
    pub fn purge(&self, url_hash: u128, now: Timestamp) -> u64 {
        self.purge_after(url_hash, now).0
    }

    /// The same, and the number of the latest purge before it that may have been of this URL; 0 where
    /// there is none, or none is remembered since nothing was left for it to void.
    pub fn purge_after(&self, url_hash: u128, now: Timestamp) -> (u64, u64) {
        self.note(|notes| &notes.urls, url_hash, false, (None, now))
    }

    /// Whether anything but single URLs and paths has been purged since purge `seq`.
    pub fn others_since(&self, seq: u64) -> bool {
        self.hard.latest_of_many() > seq || self.soft.latest_of_many() > seq || self.soft.urls.latest() > seq
    }

    /// Purges a group: whatever is in it, stored or being fetched.
    pub fn purge_group(&self, group: Group, now: Timestamp) {
        self.note(|notes| &notes.groups, group.hash(), false, (None, now));
    }

    /// Purges all at a path that does not vary on all of the query ([`Group::of_path`]), stored or being
    /// fetched; gives the purge's number.
    pub fn purge_path(&self, path: Group, now: Timestamp) -> u64 {
        self.note(|notes| &notes.paths, path.hash(), false, (None, now)).0
    }

    /// As [`retract`](Self::retract), for a path.
    pub fn retract_path(&self, path: Group, seq: u64) {
        self.hard.paths.retract(path.hash(), seq, false);
    }

    /// As [`retract_heard`](Self::retract_heard), for a path.
    pub fn retract_heard_path(&self, path: Group, seq: u64) {
        self.hard.paths.retract(path.hash(), seq, true);
    }

    /// Takes back the note of purge `seq`: its URL has been purged wherever it is stored, and nothing
    /// is under way any more that began before. The note of a later purge of this URL stays (and stood
    /// for this one, too, so it was the later one's to take back).
    pub fn retract(&self, url_hash: u128, seq: u64) {
        self.hard.urls.retract(url_hash, seq, false);
    }

    /// The same of a purge that another node has made: the note stays where it stands for an earlier one as well.
    /// That one may have been made here after the other's, and Redis not have taken it yet.
    pub fn retract_heard(&self, url_hash: u128, seq: u64) {
        self.hard.urls.retract(url_hash, seq, true);
    }

    /// What is remembered one by one now.
    pub fn notes(&self) -> usize {
        self.hard.count() + self.soft.count()
    }

    /// Whether a purge makes this response void. Also settles whether it must be validated
    /// ([`StoredResponse::reuse`]).
    pub fn is_purged(&self, response: &StoredResponse) -> bool {
        self.judge(&response.key, &response.facts, &response.standing) == Verdict::Void
    }

    /// What a response to what this key names has come to. One comparison while nothing was purged since it was
    /// judged last.
    pub fn judge(&self, key: &CacheKey, facts: &ResponseFacts, standing: &Standing) -> Verdict {
        let (latest, cleared) = (self.seq(), standing.cleared());
        if latest > cleared && standing.verdict() < Verdict::Void {
            let (born, met) = (standing.born(), standing.met());
            let subject = Subject { born, request_time: facts.request_time, met, cleared };
            if self.hard.void(key, facts, standing, subject) {
                standing.condemn(Verdict::Void);
            } else if !standing.is_soft() && self.soft.void(key, facts, standing, subject) {
                standing.condemn(Verdict::Soft);
            }
            standing.clear(latest);
        }
        standing.verdict()
    }

    /// Notes a purge in one of the tables; gives its number, and that of the latest before it that may have
    /// been of the same.
    fn note(
        &self,
        table: impl Fn(&Notes) -> &Table,
        hash: u128,
        soft: bool,
        (position, at): (Option<Position>, Timestamp),
    ) -> (u64, u64) {
        let table = table(if soft { &self.soft } else { &self.hard });
        let _noting = self.noting.lock();
        let seq = self.seq().saturating_add(1);
        let before = table.note(hash, Note::new(seq, position, at));
        self.latest.store(seq, Ordering::Release);
        (seq, before)
    }

    /// The same of a prefix, or of everything.
    fn note_wide(
        &self,
        prefix: Option<&Prefix>,
        soft: bool,
        (position, at): (Option<Position>, Timestamp),
    ) -> u64 {
        let wide = if soft { &self.soft.wide } else { &self.hard.wide };
        let _noting = self.noting.lock();
        let seq = self.seq().saturating_add(1);
        wide.note(prefix, Note::new(seq, position, at));
        self.latest.store(seq, Ordering::Release);
        seq
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::notes::{PREFIXES, SHARDS};
    use crate::stored::Born;
    use crate::stored::samples::{key, stored};

    const NOW: Timestamp = Timestamp::from_secs(1_000);
    const BY_TIME: Born = Born::Elsewhere(None);

    impl Purges {
        /// Whether a purge of its URL voids what was fetched at `born`, asked for at `request_time`.
        fn covers(&self, url_hash: u128, born: Born, request_time: Timestamp) -> bool {
            let cleared = Standing::plain(born).cleared();
            self.hard.urls.voids(url_hash, Subject { born, request_time, met: u64::MAX, cleared })
        }
    }

    fn read(run: u64, n: u64) -> Born {
        Born::Elsewhere(Some(Position { run, n }))
    }

    fn at(run: u64, n: u64) -> Option<Position> {
        Some(Position { run, n })
    }

    /// At `http://test{path}`, asked for at NOW.
    fn tagged(path: &str, tags: &str, born: Born) -> std::sync::Arc<StoredResponse> {
        stored(&key(path), &[], &[("cache-control", "max-age=60"), ("surrogate-key", tags)], b"", born)
    }

    fn scopes() -> [(Scope, bool, bool); 9] {
        let url = |url: &str| Scope::Url(url.into());
        let tag = |tag: &str| Scope::tag(tag).unwrap();
        let prefix = |text: &str| Scope::Prefix(Prefix::parse(text).unwrap());
        // Whether it is of /a/1 with the tags a and b, and of /b/1 with the tag b.
        [
            (url("http://test/a/1"), true, false),
            (tag("a"), true, false),
            (tag("b"), true, true),
            (tag("c"), false, false),
            (prefix("/a/*"), true, false),
            (prefix("http://test/*"), true, true),
            (prefix("http://other/*"), false, false),
            (Scope::Route("all".into()), true, true),
            (Scope::All, true, true),
        ]
    }

    #[test]
    fn each_scope_is_of_what_it_names_hard_or_soft_whatever_was_read_before() {
        for (scope, of_a, of_b) in scopes() {
            for soft in [false, true] {
                let purges = Purges::new(PURGES);
                let before = Born::Here(purges.seq());
                let [a, b] = [tagged("/a/1", "a b", before), tagged("/b/1", "b", before)];
                assert!(!purges.is_purged(&a) && !purges.is_purged(&b));
                purges.apply(&Purge { scope: scope.clone(), soft }, None, NOW);
                let hit = if soft { Verdict::Soft } else { Verdict::Void };
                for (response, of_it) in [(&a, of_a), (&b, of_b)] {
                    let expected = if of_it { hit } else { Verdict::Stands };
                    for _ in 0..2 {
                        let found = purges.judge(&response.key, &response.facts, &response.standing);
                        assert_eq!(found, expected, "{scope:?} soft {soft} {}", response.key.url());
                    }
                    assert_eq!(response.standing.cleared(), purges.seq(), "asked once");
                }
                let later = tagged("/a/1", "a b", Born::Here(purges.seq()));
                assert_eq!(purges.judge(&later.key, &later.facts, &later.standing), Verdict::Stands);
            }
        }
    }

    #[test]
    fn a_soft_purge_stays_soft_until_a_hard_one() {
        let purges = Purges::new(PURGES);
        let response = tagged("/", "a", Born::Here(0));
        let judged = || purges.judge(&response.key, &response.facts, &response.standing);
        purges.apply(&Purge::soft(Scope::All), None, NOW);
        assert_eq!(judged(), Verdict::Soft);
        purges.apply(&Purge::soft(Scope::tag("other").unwrap()), None, NOW);
        assert_eq!(judged(), Verdict::Soft);
        purges.apply(&Purge::hard(Scope::tag("a").unwrap()), None, NOW);
        assert_eq!(judged(), Verdict::Void);
    }

    #[test]
    fn another_nodes_fetch_is_judged_by_the_log_where_both_are_in_it() {
        let (early, late) = (Timestamp::from_secs(900), Timestamp::from_secs(1_100));
        for (purged, made, born, void) in [
            (at(1, 5), early, read(1, 4), true),
            (at(1, 5), late, read(1, 5), false),
            (at(1, 5), late, read(1, 6), false),
            // Of another log, or none: by time; samples are asked for at NOW.
            (at(2, 5), early, read(1, 4), false),
            (at(2, 5), late, read(1, 9), true),
            (at(1, 5), NOW, BY_TIME, true),
            (at(1, 5), early, BY_TIME, false),
            (None, early, read(1, 4), false),
            (None, late, read(1, 4), true),
        ] {
            let purges = Purges::new(PURGES);
            purges.apply(&Purge::hard(Scope::tag("a").unwrap()), purged, made);
            let found = purges.is_purged(&tagged("/", "a", born));
            assert_eq!(found, void, "{purged:?} at {made:?} of {born:?}");
        }
    }

    #[test]
    fn what_was_read_from_redis_before_a_purge_is_older_whatever_its_clock_says() {
        let purges = Purges::new(PURGES);
        let early = Timestamp::from_secs(500);
        let purge = |position| purges.apply(&Purge::hard(Scope::tag("a").unwrap()), position, early);
        purge(None);
        // Asked for at NOW, by a clock that is ahead.
        let [held, by_log] = [BY_TIME, read(1, 9)].map(|born| tagged("/", "a", born));
        for response in [&held, &by_log] {
            response.standing.meet(purges.seq());
            assert!(!purges.is_purged(response), "read after the purge");
        }
        purge(at(1, 9));
        assert!(purges.is_purged(&held) && !purges.is_purged(&by_log), "the log knows better");
        purge(None);
        assert!(purges.is_purged(&by_log));
    }

    #[test]
    fn the_furthest_position_counts_and_another_log_takes_its_place() {
        let purges = Purges::new(PURGES);
        assert_eq!(purges.position(), None);
        for (to, known) in [((1, 5), (1, 5)), ((1, 3), (1, 5)), ((2, 1), (2, 1)), ((2, 7), (2, 7))] {
            purges.advance(Position { run: to.0, n: to.1 });
            assert_eq!(purges.position(), at(known.0, known.1));
        }
        purges.apply(&Purge::soft(Scope::All), at(2, 9), NOW);
        purges.apply(&Purge::hard(Scope::All), None, NOW);
        assert_eq!(purges.position(), at(2, 9));
    }

    #[test]
    fn too_many_prefixes_count_for_everything_that_is_older() {
        let purges = Purges::new(PURGES);
        let before = tagged("/other", "", Born::Here(purges.seq()));
        let prefix = |nth: usize| Purge::hard(Scope::Prefix(Prefix::parse(&format!("/{nth}/*")).unwrap()));
        for nth in 0..PREFIXES {
            purges.apply(&prefix(nth % 700), None, NOW);
        }
        assert_eq!(purges.notes(), 700, "a prefix is noted once");
        for nth in 0..PREFIXES {
            purges.apply(&prefix(nth), None, NOW);
        }
        assert!(!purges.is_purged(&tagged("/other", "", Born::Here(0))), "there is room for all");
        purges.apply(&prefix(9_999), None, NOW);
        assert_eq!(purges.notes(), PREFIXES / 2 + 1);
        assert!(purges.is_purged(&before) && purges.is_purged(&tagged("/other", "", BY_TIME)));
        assert!(!purges.is_purged(&tagged("/other", "", Born::Here(purges.seq() - 10))));
        assert!(purges.is_purged(&tagged("/9999/x", "", Born::Here(purges.seq() - 1))));
        purges.apply(&Purge::hard(Scope::All), None, NOW);
        assert_eq!(purges.notes(), 0, "everything stands for all prefixes");
    }

    #[test]
    fn too_many_tags_are_forgotten_in_the_safe_direction_and_what_was_judged_stays_judged() {
        let purges = Purges::new(2 * SHARDS);
        let judged = tagged("/judged", "z", Born::Here(0));
        let unasked = tagged("/unasked", "z", Born::Here(0));
        for nth in 0..200 {
            purges.apply(&Purge::hard(Scope::tag(&nth.to_string()).unwrap()), None, NOW);
            assert!(!purges.is_purged(&judged), "judged by each of them by name");
        }
        assert!(purges.notes() <= 2 * SHARDS);
        assert!(purges.is_purged(&unasked) && purges.is_purged(&tagged("/", "199", Born::Here(0))));
    }

    #[tokio::test]
    async fn what_leaves_something_to_be_freed_is_told() {
        use std::time::Duration;
        let purges = Purges::new(PURGES);
        for purge in [Purge::soft(Scope::All), Purge::hard(Scope::Url("http://test/".into()))] {
            let seq = purges.apply(&purge, None, NOW);
            let due = tokio::time::timeout(Duration::from_millis(1), purges.sweep_due(seq - 1)).await;
            assert!(due.is_err(), "{purge:?}");
        }
        let seq = purges.apply(&Purge::hard(Scope::All), None, NOW);
        purges.sweep_due(seq - 1).await;
    }

    #[test]
    fn what_is_of_many_is_told_apart_from_what_is_of_one() {
        let purges = Purges::new(PURGES);
        purges.purge(1, NOW);
        purges.purge_path(Group::of_path(&key("/")), NOW);
        assert!(!purges.others_since(0));
        for (scope, ..) in scopes().into_iter().skip(1) {
            let seq = purges.seq();
            purges.apply(&Purge::hard(scope), None, NOW);
            assert!(purges.others_since(seq) && !purges.others_since(seq + 1));
        }
        let seq = purges.apply(&Purge::soft(Scope::Url("http://test/".into())), None, NOW);
        assert!(purges.others_since(seq - 1));
    }

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
        assert!(!purges.covers(1, BY_TIME, Timestamp::from_millis(0)));
        purges.purge(1, NOW);
        let (earlier, later) = (Timestamp::from_secs(999), Timestamp::from_millis(1_000_001));
        assert!(purges.covers(1, BY_TIME, earlier));
        assert!(purges.covers(1, BY_TIME, NOW), "the same millisecond: not known, so purged");
        assert!(!purges.covers(1, BY_TIME, later));
        assert!(!purges.covers(2, BY_TIME, earlier));
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
    fn what_is_heard_of_another_node_takes_back_no_note_that_stands_for_more() {
        let purges = Purges::new(PURGES);
        let before = Born::Here(purges.seq());
        let heard = || purges.purge(1, NOW);
        purges.retract_heard(1, heard());
        assert_eq!(purges.notes(), 0, "it stood for nothing else");
        let own = purges.purge(1, NOW);
        purges.retract_heard(1, heard());
        assert!(purges.covers(1, before, NOW), "its own may not be in Redis yet");
        purges.retract_heard(1, heard());
        purges.retract(1, own);
        assert!(purges.covers(1, before, NOW), "a later one has taken its place");
        purges.retract(1, purges.purge(1, NOW));
        assert_eq!(purges.notes(), 0, "what Redis has taken of this node stands for all before it");
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
        assert!(purges.covers(shard_mate(99), BY_TIME, NOW));
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
        let elsewhere = cached("/y", "\"a\"", BY_TIME);
        let [a, other] = ["http://test/z", "http://other/z"].map(|url| {
            let key = CacheKey::from_parts(url, "");
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

    /// What is purged: a tag of a few, a prefix of a few, a route, or everything.
    fn any_scope() -> impl Strategy<Value = Scope> {
        prop_oneof![
            8 => (0u8..6).prop_map(|nth| Scope::tag(&nth.to_string()).unwrap()),
            4 => (0u8..4).prop_map(|nth| Scope::Prefix(Prefix::parse(&format!("/{nth}*")).unwrap())),
            1 => prop::bool::ANY.prop_map(|known| Scope::Route(if known { "all" } else { "other" }.into())),
            1 => Just(Scope::All),
        ]
    }

    fn is_of(scope: &Scope, path: u8, tags: &[u8]) -> bool {
        match scope {
            Scope::Tag(tag) => tags.iter().any(|mine| mine.to_string() == **tag),
            Scope::Prefix(prefix) => prefix.to_string() == format!("/{path}*"),
            Scope::Route(name) => **name == *"all",
            _ => true,
        }
    }

    proptest! {
        /// Against the plain list of all purges, for responses that are judged again and again as they come.
        #[test]
        fn what_is_judged_in_between_agrees_with_the_list(
            acts in prop::collection::vec((any_scope(), any::<bool>(), any::<u8>()), 1..60),
            tags in prop::collection::vec(0u8..6, 0..3), path in 0u8..4, born in 0u64..60,
        ) {
            let purges = Purges::new(PURGES);
            let line = tags.iter().map(u8::to_string).collect::<Vec<_>>().join(" ");
            let mut response = None;
            let mut expected = Verdict::Stands;
            for (scope, soft, ask) in acts {
                if purges.seq() >= born && response.is_none() {
                    response = Some(tagged(&format!("/{path}"), &line, Born::Here(purges.seq())));
                }
                let is_of_it = response.is_some() && is_of(&scope, path, &tags);
                purges.apply(&Purge { scope, soft }, None, NOW);
                if is_of_it {
                    expected = expected.max(if soft { Verdict::Soft } else { Verdict::Void });
                }
                if let Some(response) = response.as_ref().filter(|_| ask % 3 == 0) {
                    let found = purges.judge(&response.key, &response.facts, &response.standing);
                    prop_assert_eq!(found, expected);
                }
            }
            if let Some(response) = response {
                prop_assert_eq!(purges.judge(&response.key, &response.facts, &response.standing), expected);
            }
        }

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
                prop_assert!(purges.covers(url, BY_TIME, asked) || !elsewhere);
                if roomy {
                    prop_assert_eq!(purges.covers(url, Born::Here(seen), asked), truth);
                    prop_assert_eq!(purges.covers(url, BY_TIME, asked), elsewhere);
                }
            }
        }
    }
}
