//! By what purges judge a response: when it was fetched, its tags, its route; and what they have come to.
//!
//! Tags and routes are kept as hashes of 64 bits, which every node of a fleet comes to alike. One whose tag
//! collides with another has too much of its own purged, and that is all.
//! A response may have thousands of tags. So that a hit need not ask for all of them each time, it is
//! remembered up to which purge a response has been judged; only what was purged since is asked about.
//! Must not know: what has been purged, or who asks.

use std::mem::size_of;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use http::{HeaderMap, HeaderName};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Position;
use crate::fields::groups::Groups;
use crate::fields::tags;

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

/// By what purges judge a response.
#[derive(Debug)]
pub struct Standing {
    born: Born,
    /// What this process had read of the fleet's log, of a response that it has fetched itself.
    read: Option<Position>,
    /// Sorted, each once.
    tags: Box<[u64]>,
    route: u64,
    /// The latest purge before it was read from Redis; `u64::MAX` where nobody knows.
    met: AtomicU64,
    /// The latest purge by which it has been judged.
    cleared: AtomicU64,
    /// A [`Verdict`]; it is never taken back.
    verdict: AtomicU8,
}

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
        let cleared = match born {
            Born::Here(seen) => seen,
            Born::Elsewhere(_) => 0,
        };
        let (met, cleared) = (AtomicU64::new(u64::MAX), AtomicU64::new(cleared));
        Self { born, read, tags, route, met, cleared, verdict: AtomicU8::new(0) }
    }

    /// When it was fetched.
    pub const fn born(&self) -> Born {
        self.born
    }

    /// How far whoever fetched it had read the fleet's log when the fetch began, where that is known.
    pub const fn position(&self) -> Option<Position> {
        match self.born {
            Born::Here(_) => self.read,
            Born::Elsewhere(position) => position,
        }
    }

    /// The hashes of its tags, sorted.
    pub fn tags(&self) -> &[u64] {
        &self.tags
    }

    /// The hash of the name of the route that has stored it.
    pub const fn route(&self) -> u64 {
        self.route
    }

    /// The latest purge before it was read from Redis, by its number in this process: of whatever came later it is
    /// known to be older, whatever the clocks say. `u64::MAX` where that is not known.
    pub fn met(&self) -> u64 {
        self.met.load(Ordering::Acquire)
    }

    /// It was sought in Redis after this purge.
    pub fn meet(&self, seq: u64) {
        self.met.store(seq, Ordering::Release);
    }

    /// The latest purge, by its number in this process, of which it need not be asked any more.
    pub fn cleared(&self) -> u64 {
        self.cleared.load(Ordering::Acquire)
    }

    /// It has been judged by all purges up to this one. To be said after [`condemn`](Self::condemn).
    pub fn clear(&self, seq: u64) {
        self.cleared.fetch_max(seq, Ordering::AcqRel);
    }

    /// What it has come to by the purges that it was asked about.
    pub fn verdict(&self) -> Verdict {
        match self.verdict.load(Ordering::Acquire) {
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
        self.verdict.fetch_max(verdict as u8, Ordering::AcqRel);
    }

    /// Bytes of memory that it takes, counters included.
    pub fn weight(&self) -> usize {
        size_of::<Self>() + 2 * size_of::<usize>() + size_of_val(&*self.tags)
    }
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
        assert_eq!(standing.weight() - plain.weight(), 7 * 8);
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
