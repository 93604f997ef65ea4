//! Which keys Larder uses in Redis, and how long they live.
//!
//! | key | value |
//! |---|---|
//! | `larder:1:{U}:X` | the response, or the names it varies on |
//! | `larder:1:{U}:X:S` | a variant, where the response varies |
//! | `larder:1:{U}:g` | the URL's generation, a number; absent = 0 |
//!
//! `U` is the URL's hash in hex (32 digits), `X` is `-` or the hash of the key's extras (32 digits),
//! `S` is the hash of the selecting fields (16 digits), and `1` is the version of this layout and of
//! the record. The braces keep all keys of a URL on one node of a cluster.
//!
//! Every record carries the generation that stood before its fetch began, and counts only while the
//! marker says the same. So one small write, of a generation that never was before, voids every
//! extra and variant of a URL at once, on every node that reads this Redis, and also those whose
//! fetch is under way and which are written later.
//!
//! A generation is drawn at random and not counted up: were it a count, then after the marker's
//! end it would start anew and a later purge could reach the number of a record that still lives.
//! Every key expires; a record lives for at most [`MAX_TTL`], and a marker for longer, so that no
//! marker ends before what it voids. (A Redis that evicts a marker early, for lack of memory,
//! forgets that purge: the purging node's own table and the purge's deletion of the plain record
//! limit what that can bring back. `maxmemory-policy volatile-ttl` evicts markers last.)
//! Must not know: connections, or what a record holds.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_128;

use crate::stored::CacheKey;

/// The longest that a record lives.
pub(super) const MAX_TTL: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long a generation marker lives: longer than any record that it voids, with a day to spare
/// for a fetch and a write that were under way.
pub(super) const MARKER_TTL: Duration = Duration::from_secs(8 * 24 * 3600);

/// The names a resource varies on live at least this long: they are small, and serve all variants.
const MIN_NAMES_TTL: Duration = Duration::from_secs(24 * 3600);

/// The key of the response, or of the names it varies on.
pub(super) fn base(key: &CacheKey) -> String {
    let url = key.url_hash();
    match key.extras() {
        "" => plain(url),
        extras => format!("larder:1:{{{url:032x}}}:{:032x}", xxh3_128(extras.as_bytes())),
    }
}

/// The key of the response to a URL whose route adds nothing to the key.
pub(super) fn plain(url_hash: u128) -> String {
    format!("larder:1:{{{url_hash:032x}}}:-")
}

/// The key of one variant.
pub(super) fn variant(base: &str, selecting_hash: u64) -> String {
    format!("{base}:{selecting_hash:016x}")
}

/// The key of a URL's generation.
pub(super) fn marker(url_hash: u128) -> String {
    format!("larder:1:{{{url_hash:032x}}}:g")
}

/// A generation that never was before: 0 stands for "never purged".
pub(super) fn new_generation() -> u64 {
    // Each `RandomState` is keyed anew.
    RandomState::new().hash_one(0).max(1)
}

/// A record's time to live in milliseconds, as `PX` wants it; `None` when it is not worth writing.
pub(super) fn record_ttl(ttl: Duration) -> Option<u64> {
    let millis = u64::try_from(ttl.min(MAX_TTL).as_millis()).ok()?;
    (millis > 0).then_some(millis)
}

/// Time to live, in milliseconds, of the names that a response with this one varies on.
pub(super) fn names_ttl(ttl: Duration) -> u64 {
    u64::try_from(ttl.clamp(MIN_NAMES_TTL, MAX_TTL).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_of_one_url_share_its_hash_tag_and_nothing_else() {
        let plain_key = CacheKey::from_parts("http://a/".into(), "".into());
        let with_extras = CacheKey::from_parts("http://a/".into(), "h:accept=x;".into());
        let url = plain_key.url_hash();
        let tag = format!("larder:1:{{{url:032x}}}:");
        let keys = [
            base(&plain_key),
            base(&with_extras),
            variant(&base(&plain_key), 7),
            variant(&base(&with_extras), 7),
            marker(url),
        ];
        assert!(keys.iter().all(|key| key.starts_with(&tag)), "{keys:?}");
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len(), "{keys:?}");
        assert_eq!(keys[0], plain(url));
        assert_eq!(keys[2], format!("{tag}-:0000000000000007"));
    }

    #[test]
    fn a_marker_outlives_every_record() {
        let for_ever = Duration::MAX;
        let marker = u64::try_from(MARKER_TTL.as_millis()).unwrap();
        assert!(record_ttl(for_ever).unwrap() < marker);
        assert!(names_ttl(for_ever) < marker);
        assert_eq!(record_ttl(Duration::ZERO), None);
        assert_eq!(record_ttl(Duration::from_secs(1)), Some(1_000));
        assert_eq!(names_ttl(Duration::from_secs(1)), 24 * 3600 * 1000);
    }

    #[test]
    fn generations_do_not_repeat() {
        let drawn: HashSet<u64> = (0..1_000).map(|_| new_generation()).collect();
        assert_eq!(drawn.len(), 1_000);
        assert!(!drawn.contains(&0));
    }
}
