//! Which keys Larder uses in Redis, and how long they live.
//!
//! | key | value |
//! |---|---|
//! | `larder:4:{U}:X` | the response, or the names it varies on |
//! | `larder:4:{U}:X:S` | a variant, where the response varies; by its language a second time, where a route takes those by meaning |
//! | `larder:4:{U}:g` | the URL's generation, a mark; absent = 0 |
//! | `larder:4:{O}:G:N` | when a group, or all at a path, was purged: a mark, in milliseconds |
//! | `larder:4:{O}:R:N` | the rule for the query of a path (`No-Vary-Search`) |
//! | `larder:4:{U}:X:l:L`, `…:w:L`, `…:b` | who fetches it, or a variant, who waits for that, and until when nobody is to refresh it (`lease/script.rs`) |
//! | `larder:4:{fleet}:hot:P:N` | part `N` of a list of what is asked for most (`store/hot.rs`) |
//!
//! `larder` is the namespace (`cache.namespace`): nothing outside of it is ever read or written.
//! `U` is the URL's hash in hex (32 digits), `X` is `-` or the hash of the key's extras (32 digits),
//! `S` is the hash of the selecting fields (16 digits), and `4` is the version of this layout and of
//! the record. The braces keep all keys of a URL on one node of a cluster. `O` and `N` are the hashes of
//! an origin and of a group's name or a path (32 digits each). Records and marks name the key that they
//! stand under (`stored/codec.rs`, `stored/mark.rs`). Where Redis is written with a secret, each of these
//! hashes is hashed once more with it (`stored/seal.rs`).
//!
//! Every record carries the generation that stood before its fetch began, and counts only while the
//! marker says the same. So one small write, of a generation that never was before, voids every
//! extra and variant of a URL at once, on every node that reads this Redis. A generation is drawn at
//! random and not counted up: were it a count, then after the marker's end it would start anew, and a
//! later purge could reach the number of a record that still lives.
//!
//! A purge must not cost memory for long where nothing is stored, as for most URLs of a write-heavy
//! API. So a marker lives as long as it is needed, and no longer:
//! - A record is put only if the marker still says what the fetch saw, and never later than
//!   [`PUT_WITHIN`] after that look. A purge's marker lives for twice that ([`PURGED_FOR`]): it stands
//!   for as long as anything that was under way before it, on any node, could still be written,
//!   however long the fetch took or the write waited. (A fetch of more than five minutes stays in
//!   memory alone.)
//! - A purge can name, and deletes, the plain record alone. So whoever puts any other (an extra or a
//!   variant), or one of a generation that is not 0, makes the marker live longer than what is put;
//!   nobody ever makes a marker live shorter. Hence whatever a purge cannot name has a marker that
//!   outlives it, and a purge finds there how long its own has to.
//!
//! Purge and put are one script each ([`script`](super::script)), so nothing comes in between.
//! A group's marker is read with each record that is in the group, and voids what was asked for before
//! it; it lives longer than any record can.
//! What is stored under a rule for its path is in a group of that path. It is voided by that group's
//! marker alone, so its own generation is always 0. A path's marker lives as long as a group's where a
//! rule stands, else for [`PURGED_FOR`]; and a response with a rule is put only if the marker, read just
//! before, does not void it.
//! Every key expires: a record after [`MAX_TTL`] at most, a marker [`SPARE`] later.
//! A Redis that loses a marker before its time, for lack of memory or in a restart without its data,
//! forgets that purge. `maxmemory-policy` should go by use (`allkeys-lru`, `volatile-lru`): a marker is
//! read with every record. The purging process itself remembers what it needs.
//! Must not know: connections, or what a record holds.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_128;

use super::lease::Names;
use crate::clock::Timestamp;
use crate::fields::digits;
use crate::store::hot::Name;
use crate::stored::{CacheKey, Group, Seal};

/// The version of this layout, and of the record.
const LAYOUT: &str = "4";

/// How the key of a plain record ends, and that of a generation.
const PLAIN: &str = ":-";
const MARKER: &str = ":g";

/// Bytes of a key, mostly: there is room for what its kind adds to it.
const LONG: usize = 112;

/// The longest that a record lives.
pub(super) const MAX_TTL: Duration = crate::config::KEPT_IN_REDIS;

/// A marker outlives what was put with it by this much.
const SPARE: Duration = Duration::from_secs(60);

/// The longest from learning a URL's generation to putting what was fetched under it.
pub(super) const PUT_WITHIN: Duration = Duration::from_secs(5 * 60);

/// How long a purge's marker lives at least.
const PURGED_FOR: Duration = Duration::from_secs(10 * 60);

/// How far ahead of its own clock a process believes what another has noted: clocks differ by seconds.
const AHEAD: Duration = Duration::from_secs(5 * 60);

/// The names a resource varies on live at least this long: they are small, and serve all variants.
const MIN_NAMES_TTL: Duration = Duration::from_secs(24 * 3600);

/// The key of the response, or of the names it varies on.
pub(super) fn base(seal: &Seal, key: &CacheKey) -> String {
    base_of(seal, tagged(seal, key.url_hash()), extras(key))
}

/// The same, and the key of the URL's generation: each look asks for both.
pub(super) fn base_and_marker(seal: &Seal, key: &CacheKey) -> (String, String) {
    let tagged = tagged(seal, key.url_hash());
    let marker = longer(&tagged) + MARKER;
    (base_of(seal, tagged, extras(key)), marker)
}

fn extras(key: &CacheKey) -> Option<u128> {
    (!key.extras().is_empty()).then(|| xxh3_128(key.extras().as_bytes()))
}

fn base_of(seal: &Seal, tagged: String, extras: Option<u128>) -> String {
    match extras {
        None => tagged + PLAIN,
        Some(extras) => named_by(tagged, ":", seal.name(extras), 32),
    }
}

/// The key of a response that is named.
pub(super) fn named(seal: &Seal, name: &Name) -> String {
    let base = base_of(seal, tagged(seal, name.url), name.extras);
    name.variant.map_or_else(|| base.clone(), |hash| variant(seal, &base, hash))
}

/// Lists of what is asked for most that stand beside each other: nodes of a fleet, and such as have left.
pub(super) const HOT_PLACES: usize = 16;

/// The key of a part of one of them.
pub(super) fn hot(seal: &Seal, place: usize, part: usize) -> String {
    format!("{}{{fleet}}:hot:{place}:{part}", fleet_prefix(seal))
}

/// Time to live, in milliseconds, of a list: a fleet that was stopped over night finds it.
pub(super) fn hot_ttl() -> u64 {
    millis(Duration::from_secs(24 * 3600))
}

/// The key of the response to a URL whose route adds nothing to the key.
pub(super) fn plain(seal: &Seal, url_hash: u128) -> String {
    tagged(seal, url_hash) + PLAIN
}

/// The key of one variant.
pub(super) fn variant(seal: &Seal, base: &str, selecting_hash: u64) -> String {
    // What a secret makes of it has more digits than are needed.
    let name = seal.name(selecting_hash.into()) & u128::from(u64::MAX);
    named_by(longer(base), ":", name, 16)
}

/// The key of a URL's generation.
pub(super) fn marker(seal: &Seal, url_hash: u128) -> String {
    tagged(seal, url_hash) + MARKER
}

/// The key of a group's marker.
pub(super) fn group(seal: &Seal, group: Group) -> String {
    named_by(tagged(seal, group.origin), ":G:", seal.name(group.name), 32)
}

/// The key of a path's rule.
pub(super) fn rule(seal: &Seal, path: Group) -> String {
    named_by(tagged(seal, path.origin), ":R:", seal.name(path.name), 32)
}

/// The keys of a lease to fetch what stands under `record`, for requests of a lane.
pub(super) fn lease(seal: &Seal, record: &str, lane: u64) -> Names {
    let lane = seal.name(lane.into()) & u128::from(u64::MAX);
    Names {
        lease: named_by(longer(record), ":l:", lane, 16),
        waiters: named_by(longer(record), ":w:", lane, 16),
        rest: longer(record) + ":b",
        record: record.to_owned(),
    }
}

/// The key of a node's inbox.
pub(super) fn inbox(seal: &Seal, node: &str) -> String {
    format!("{}{{fleet}}:in:{node}", fleet_prefix(seal))
}

/// What the keys of the log of purges begin with.
pub(super) fn fleet_prefix(seal: &Seal) -> String {
    format!("{}:{LAYOUT}:", seal.namespace())
}

/// How all keys begin that have to stand on one node of a cluster.
fn tagged(seal: &Seal, hash: u128) -> String {
    let mut key = String::with_capacity(LONG);
    for part in [seal.namespace(), ":", LAYOUT, ":{"] {
        key.push_str(part);
    }
    digits::push_hex(&mut key, seal.name(hash), 32);
    key.push('}');
    key
}

/// A key to which more is added. Without `core::fmt`: each look into Redis has several.
fn longer(key: &str) -> String {
    let mut longer = String::with_capacity(LONG.max(key.len().saturating_add(24)));
    longer.push_str(key);
    longer
}

fn named_by(mut key: String, kind: &str, name: u128, width: usize) -> String {
    key.push_str(kind);
    digits::push_hex(&mut key, name, width);
    key
}

/// What kind of key a name is, in words; `None` where it is none of this layout.
pub(super) fn kind(seal: &Seal, name: &str) -> Option<&'static str> {
    let rest = name.strip_prefix(&fleet_prefix(seal))?.strip_prefix("{")?;
    let (tag, rest) = rest.split_once("}:")?;
    let parts: Vec<&str> = rest.split(':').collect();
    Some(match parts.as_slice() {
        ["head" | "named" | "marked" | "nodes"] if tag == "fleet" => "the log of purges",
        ["in", _] if tag == "fleet" => "leases",
        [_, .., "l" | "w", lane] if lane.len() == 16 => "leases",
        [_, .., "b"] => "leases",
        ["hot", _, _] if tag == "fleet" => "lists of hot keys",
        ["g"] => "purge marks",
        ["G", _] => "group marks",
        ["R", _] => "query rules",
        ["-"] => "records",
        [extras] if extras.len() == 32 => "records",
        [_, variant] if variant.len() == 16 => "variants",
        _ => return None,
    })
}

/// A generation that never was before: 0 stands for "never purged". As good for a run of the log, or a token in it.
pub(super) fn new_generation() -> u64 {
    // Each `RandomState` is keyed anew.
    RandomState::new().hash_one(0).max(1)
}

/// A record's time to live in milliseconds, as `PX` wants it; `None` when it is not worth writing.
pub(super) fn record_ttl(ttl: Duration) -> Option<u64> {
    let ttl = millis(ttl.min(MAX_TTL));
    (ttl > 0).then_some(ttl)
}

/// Time to live, in milliseconds, of the names that a response with this one varies on.
pub(super) fn names_ttl(ttl: Duration) -> u64 {
    millis(ttl.clamp(MIN_NAMES_TTL, MAX_TTL))
}

/// Time to live, in milliseconds, that a marker must have beside records that live for `longest`.
pub(super) fn marker_ttl(longest: u64) -> u64 {
    longest.saturating_add(millis(SPARE))
}

/// Time to live, in milliseconds, of a group's marker: no record outlives it.
pub(super) fn group_ttl() -> u64 {
    marker_ttl(millis(MAX_TTL))
}

/// The least time to live, in milliseconds, of a purge's marker.
pub(super) fn purged_ttl() -> u64 {
    millis(PURGED_FOR)
}

/// The latest time that is believed of anything that is read at `now`.
pub(super) fn believed(now: Timestamp) -> Timestamp {
    now.saturating_add(AHEAD)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use std::sync::LazyLock;

    use super::*;

    static CLEAR: LazyLock<Seal> = LazyLock::new(Seal::default);

    #[test]
    fn keys_of_one_url_share_its_hash_tag_and_nothing_else() {
        let plain_key = CacheKey::from_parts("http://a/", "");
        let with_extras = CacheKey::from_parts("http://a/", "h:accept=x;");
        let url = plain_key.url_hash();
        let tag = format!("larder:4:{{{url:032x}}}:");
        let keys = [
            base(&CLEAR, &plain_key),
            base(&CLEAR, &with_extras),
            variant(&CLEAR, &base(&CLEAR, &plain_key), 7),
            variant(&CLEAR, &base(&CLEAR, &with_extras), 7),
            marker(&CLEAR, url),
        ];
        assert!(keys.iter().all(|key| key.starts_with(&tag)), "{keys:?}");
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len(), "{keys:?}");
        assert_eq!(keys[0], plain(&CLEAR, url));
        assert_eq!(keys[2], format!("{tag}-:0000000000000007"));
    }

    #[test]
    fn a_response_that_is_named_stands_where_one_that_is_asked_for_does() {
        use crate::stored::samples::stored;
        use crate::stored::{Born, Secret};
        let secret = Secret::from_hex(&"ab".repeat(32)).unwrap();
        for seal in [Seal::default(), Seal::new(&[secret])] {
            for (extras, vary) in [("", ""), ("h:x=1;", ""), ("", "accept"), ("h:x=1;", "accept")] {
                let key = CacheKey::from_parts("http://a/", extras);
                let fields = [("cache-control", "max-age=60"), ("vary", vary)];
                let response = stored(&key, &[("accept", "b")], &fields, b"", Born::Here(0));
                let place = named(&seal, &Name::of(&response, 0).unwrap());
                let base = base(&seal, &key);
                let expected =
                    if vary.is_empty() { base } else { variant(&seal, &base, response.selecting.hash()) };
                assert_eq!(place, expected);
            }
        }
    }

    #[test]
    fn every_key_is_within_the_namespace() {
        let seal = Seal::default().in_namespace("eu-1");
        let key = CacheKey::from_parts("http://a/", "h:accept=x;");
        let path = Group::of_path(&key);
        for name in [
            base(&seal, &key),
            plain(&seal, 7),
            variant(&seal, &base(&seal, &key), 7),
            marker(&seal, 7),
            group(&seal, path),
            rule(&seal, path),
            hot(&seal, 0, 0),
        ] {
            assert!(name.starts_with("eu-1:4:{"), "{name}");
        }
    }

    #[test]
    fn every_key_is_of_a_kind() {
        let key = CacheKey::from_parts("http://a/", "h:accept=x;");
        let path = Group::of_path(&key);
        for (name, of) in [
            (base(&CLEAR, &key), Some("records")),
            (plain(&CLEAR, 7), Some("records")),
            (variant(&CLEAR, &base(&CLEAR, &key), 7), Some("variants")),
            (variant(&CLEAR, &plain(&CLEAR, 7), 7), Some("variants")),
            (marker(&CLEAR, 7), Some("purge marks")),
            (lease(&CLEAR, &base(&CLEAR, &key), 1).lease, Some("leases")),
            (lease(&CLEAR, &variant(&CLEAR, &plain(&CLEAR, 7), 7), 0).waiters, Some("leases")),
            (lease(&CLEAR, &plain(&CLEAR, 7), 0).rest, Some("leases")),
            (inbox(&CLEAR, "larder-1"), Some("leases")),
            (group(&CLEAR, path), Some("group marks")),
            (rule(&CLEAR, path), Some("query rules")),
            (hot(&CLEAR, 15, 3), Some("lists of hot keys")),
            ("larder:2:{a}:-".into(), None),
            ("larder:4:{a}:x:y:z".into(), None),
            (marker(&Seal::default().in_namespace("other"), 7), None),
        ] {
            assert_eq!(kind(&CLEAR, &name), of, "{name}");
        }
    }

    #[test]
    fn a_marker_outlives_every_record() {
        for ttl in [Duration::from_millis(1), Duration::from_secs(1), Duration::MAX] {
            let (record, names) = (record_ttl(ttl).unwrap(), names_ttl(ttl));
            assert!(marker_ttl(record.max(names)) > record.max(names));
        }
        assert_eq!(record_ttl(Duration::ZERO), None);
        assert_eq!(record_ttl(Duration::from_secs(1)), Some(1_000));
        assert_eq!(record_ttl(Duration::MAX), Some(7 * 24 * 3600 * 1000));
        assert_eq!(names_ttl(Duration::from_secs(1)), 24 * 3600 * 1000);
    }

    #[test]
    fn a_groups_marker_outlives_every_record_and_stands_beside_those_of_its_origin() {
        assert!(group_ttl() > record_ttl(Duration::MAX).unwrap());
        let key = CacheKey::from_parts("http://a/", "");
        let names: Vec<_> =
            Group::of(&key, ["a", "b"].into_iter()).map(|named| group(&CLEAR, named)).collect();
        let tag = |key: &str| key.split_once('}').unwrap().0.to_owned();
        assert!(names[0] != names[1] && tag(&names[0]) == tag(&names[1]), "{names:?}");
        assert_ne!(tag(&names[0]), tag(&base(&CLEAR, &key)));
    }

    #[test]
    fn a_purge_outlives_whatever_was_under_way() {
        // Twice: the clocks of Redis and of this process need not agree on a second.
        assert!(PURGED_FOR >= PUT_WITHIN * 2);
    }

    #[test]
    fn generations_do_not_repeat() {
        let drawn: HashSet<u64> = (0..1_000).map(|_| new_generation()).collect();
        assert_eq!(drawn.len(), 1_000);
        assert!(!drawn.contains(&0));
    }
}
