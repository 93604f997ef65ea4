//! By what purges judge a response: when it was fetched, its tags, its route; and what they have come to.
//!
//! Tags and routes are kept as hashes of 64 bits, which every node of a fleet comes to alike. One whose tag
//! collides with another has too much of its own purged, and that is all.
//! A response may have thousands of tags. So that a hit need not ask for all of them each time, it is
//! remembered up to which purge a response has been judged; only what was purged since is asked about.
//! Must not know: what has been purged, or who asks.

use std::mem::size_of;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Position;
use crate::fields::groups::Groups;
use crate::fields::tags;
use crate::pieces;

/// Keep tags and routes apart from each other and from all else. Fixed for ever: every node must come to
/// the same numbers.
const TAG: u64 = 0x6c61_7264_6572_2e74;
const ROUTE: u64 = 0x6c61_7264_6572_2e72;

/// A tag as what is stored and what is purged name it.
pub fn tag_hash(tag: &[u8]) -> u64 {
    xxh3_64_with_seed(tag, TAG)
}

/// A route's name, likewise.
pub fn route_hash(name: &str) -> u64 {
    xxh3_64_with_seed(name.as_bytes(), ROUTE)
}

/// By what a purge judges the age of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Born {
    /// Fetched by this process; the number of the latest purge when the fetch began.
    Here(u64),
    /// Read from Redis: how far the node that fetched it had read the fleet's log when its fetch began, where
    /// that is known; else judged by the time of its request.
    Elsewhere(Option<Position>),
}

/// What a response has come to by the purges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// None is of it.
    Stands,
    /// It has to be validated before it is used.
    Soft,
    /// It is gone.
    Void,
}

/// What a route says of tags (`tags` of `[[route]]`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagPolicy {
    /// The hash of the route's name.
    pub route: u64,
    /// The hashes of the tags that each of its responses has.
    pub fixed: Box<[u64]>,
    /// One more field that holds tags.
    pub header: Option<HeaderName>,
    /// Clients get the fields that hold tags.
    pub expose: bool,
}

impl TagPolicy {
    /// The fields that clients do not get: those that hold tags, unless the route has them shown.
    pub fn hidden(&self) -> impl Iterator<Item = &HeaderName> {
        tags::FIELDS.iter().chain(&self.header).filter(|_| !self.expose)
    }

    /// Removes them. `bare`: those that hold tags everywhere are known not to be there.
    pub fn hide(&self, headers: &mut HeaderMap, bare: bool) {
        for name in self.hidden().skip(if bare { tags::FIELDS.len() } else { 0 }) {
            headers.remove(name);
        }
    }
}

/// By what purges judge a response. Every stored response has one, so it is packed.
#[derive(Debug)]
pub struct Standing {
    /// Of one that this process has fetched, the purge before its fetch; of another, the one that it has met.
    since: AtomicU64,
    /// The latest purge by which it has been judged, and below it the bits that follow.
    state: AtomicU64,
    /// Where in the fleet's log, where that is known ([`PLACED`]).
    position: Position,
    route: u64,
    /// None of most.
    tags: Option<Box<Tags>>,
}

/// Sorted, each once.
#[derive(Debug)]
struct Tags(Box<[u64]>);

/// A [`Verdict`]; it is never taken back.
const VERDICT: u64 = 3;
/// Fetched by this process.
const HERE: u64 = 4;
/// There is a position.
const PLACED: u64 = 8;
/// Where the number of a purge begins. No process counts to 2^60.
const NUMBER: u32 = 4;

impl Standing {
    /// Of a response with these fields, to be stored by a route; `read` is how far this process had read the
    /// fleet's log when the fetch began.
    pub fn of(
        born: Born,
        read: Option<Position>,
        headers: &HeaderMap,
        groups: &Groups,
        policy: &TagPolicy,
    ) -> Self {
        let mut found: Vec<u64> = policy.fixed.to_vec();
        tags::each(headers, policy.header.as_ref(), |tag| found.push(tag_hash(tag)));
        found.extend(groups.iter().map(|name| tag_hash(name.as_bytes())));
        found.sort_unstable();
        found.dedup();
        Self::new(born, read, found.into(), policy.route)
    }

    /// Of a response without tags or a route.
    pub fn plain(born: Born) -> Self {
        Self::new(born, None, Box::default(), 0)
    }

    /// From tags that are sorted and stand there once each.
    pub(super) fn new(born: Born, read: Option<Position>, tags: Box<[u64]>, route: u64) -> Self {
        let (since, state, position) = match born {
            Born::Here(seen) => (seen, HERE | numbered(seen), read),
            Born::Elsewhere(position) => (u64::MAX, 0, position),
        };
        Self {
            since: AtomicU64::new(since),
            state: AtomicU64::new(state | if position.is_some() { PLACED } else { 0 }),
            position: position.unwrap_or_default(),
            route,
            tags: (!tags.is_empty()).then(|| Box::new(Tags(tags))),
        }
    }

    /// When it was fetched.
    pub fn born(&self) -> Born {
        match self.is_of_here() {
            true => Born::Here(self.since.load(Ordering::Acquire)),
            false => Born::Elsewhere(self.position()),
        }
    }

    /// How far whoever fetched it had read the fleet's log when the fetch began, where that is known.
    pub fn position(&self) -> Option<Position> {
        (self.state.load(Ordering::Acquire) & PLACED != 0).then_some(self.position)
    }

    fn is_of_here(&self) -> bool {
        self.state.load(Ordering::Acquire) & HERE != 0
    }

    /// The hashes of its tags, sorted.
    pub fn tags(&self) -> &[u64] {
        self.tags.as_ref().map_or(&[], |tags| &tags.0)
    }

    /// The hash of the name of the route that has stored it.
    pub const fn route(&self) -> u64 {
        self.route
    }

    /// The latest purge before it was read from Redis, by its number in this process: of whatever came later it is
    /// known to be older, whatever the clocks say. `u64::MAX` where that is not known, or it was not read there.
    pub fn met(&self) -> u64 {
        if self.is_of_here() { u64::MAX } else { self.since.load(Ordering::Acquire) }
    }

    /// It was sought in Redis after this purge. Says nothing of what this process has fetched itself.
    pub fn meet(&self, seq: u64) {
        if !self.is_of_here() {
            self.since.store(seq, Ordering::Release);
        }
    }

    /// The latest purge, by its number in this process, of which it need not be asked any more.
    pub fn cleared(&self) -> u64 {
        self.state.load(Ordering::Acquire) >> NUMBER
    }

    /// It has been judged by all purges up to this one. To be said after [`condemn`](Self::condemn).
    pub fn clear(&self, seq: u64) {
        self.raise(|state| numbered(state >> NUMBER).max(numbered(seq)) | (state & ((1 << NUMBER) - 1)));
    }

    /// What it has come to by the purges that it was asked about.
    pub fn verdict(&self) -> Verdict {
        match self.state.load(Ordering::Acquire) & VERDICT {
            0 => Verdict::Stands,
            1 => Verdict::Soft,
            _ => Verdict::Void,
        }
    }

    /// Whether it has been purged softly, and no more than that.
    pub fn is_soft(&self) -> bool {
        self.verdict() == Verdict::Soft
    }

    /// It has come to this at least.
    pub fn condemn(&self, verdict: Verdict) {
        self.raise(|state| (state & !VERDICT) | (state & VERDICT).max(verdict as u64));
    }

    fn raise(&self, to: impl Fn(u64) -> u64) {
        let raised = |state| Some(to(state));
        // It never fails: there is always something to put.
        let _before = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, raised);
    }

    /// Bytes of memory that it takes, counters included.
    pub fn weight(&self) -> usize {
        let tags = self.tags.as_ref().map_or(0, |tags| size_of::<Tags>() + pieces::of(size_of_val(&*tags.0)));
        pieces::counted::<Self>().saturating_add(tags)
    }
}

/// As it stands in the state.
fn numbered(seq: u64) -> u64 {
    seq.min(u64::MAX >> NUMBER) << NUMBER
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stored::samples::fields;

    #[test]
    fn tags_come_from_fields_groups_and_the_route_each_once() {
        let headers = fields(&[
            ("surrogate-key", "a b"),
            ("xkey", "b,c"),
            ("cache-tag", "d e, a"),
            ("cache-groups", "\"g\", \"a\""),
            ("x-my-tags", "m a"),
        ]);
        let policy = TagPolicy {
            route: route_hash("users"),
            fixed: [tag_hash(b"s"), tag_hash(b"a")].into(),
            header: Some(HeaderName::from_static("x-my-tags")),
            expose: false,
        };
        let standing = Standing::of(Born::Here(3), None, &headers, &Groups::of(&headers), &policy);
        let mut expected: Vec<u64> =
            ["a", "b", "c", "d e", "g", "m", "s"].iter().map(|tag| tag_hash(tag.as_bytes())).collect();
        expected.sort_unstable();
        assert_eq!(standing.tags(), expected);
        assert_eq!((standing.route(), standing.cleared()), (route_hash("users"), 3));
        assert_ne!(route_hash("a"), tag_hash(b"a"), "a route is no tag");
        let plain = Standing::plain(Born::Here(3));
        assert_eq!(standing.weight() - plain.weight(), size_of::<Tags>() + 64, "seven of eight bytes");
        assert_eq!(plain.weight(), 64, "with its counters, a cache line");
    }

    #[test]
    fn what_is_packed_comes_back_and_is_never_taken_back() {
        let here = Standing::plain(Born::Here(9));
        assert_eq!((here.born(), here.met(), here.cleared()), (Born::Here(9), u64::MAX, 9));
        here.meet(3);
        assert_eq!(here.born(), Born::Here(9), "it was not read from Redis");
        let there = Standing::plain(Born::Elsewhere(None));
        assert_eq!((there.born(), there.met(), there.cleared()), (Born::Elsewhere(None), u64::MAX, 0));
        there.meet(3);
        assert_eq!((there.born(), there.met()), (Born::Elsewhere(None), 3));
        for standing in [here, there] {
            let born = standing.born();
            standing.condemn(Verdict::Soft);
            standing.clear(20);
            standing.clear(10);
            assert_eq!((standing.verdict(), standing.cleared()), (Verdict::Soft, 20));
            standing.condemn(Verdict::Void);
            standing.condemn(Verdict::Stands);
            standing.clear(u64::MAX);
            assert_eq!((standing.verdict(), standing.cleared()), (Verdict::Void, u64::MAX >> 4));
            assert_eq!(standing.born(), born);
        }
    }

    #[test]
    fn a_clients_response_shows_no_tags_unless_the_route_says_so() {
        let sent =
            [("surrogate-key", "a"), ("xkey", "a"), ("cache-tag", "a"), ("x-my-tags", "a"), ("x", "y")];
        for (expose, left) in [(false, 1), (true, 5)] {
            let header = Some(HeaderName::from_static("x-my-tags"));
            let policy = TagPolicy { header, expose, ..TagPolicy::default() };
            let mut headers = fields(&sent);
            policy.hide(&mut headers, false);
            assert_eq!(headers.len(), left, "{headers:?}");
        }
    }

    #[test]
    fn the_position_is_that_of_whoever_fetched_it() {
        let (here, there) = (Position { run: 1, n: 2 }, Position { run: 1, n: 9 });
        let of = |born| Standing::new(born, Some(here), Box::default(), 0).position();
        assert_eq!(of(Born::Here(5)), Some(here));
        assert_eq!(of(Born::Elsewhere(Some(there))), Some(there));
        assert_eq!(of(Born::Elsewhere(None)), None);
    }

    #[test]
    fn the_numbers_are_these_for_ever() {
        // They stand in Redis, and are compared by all nodes of a fleet.
        assert_eq!(format!("{:016x} {:016x}", tag_hash(b"a"), route_hash("a")), GOLDEN);
    }

    const GOLDEN: &str = "978427d525f7ec35 512d8d6d705033c0";
}
