//! A group of responses (RFC 9875), as what is stored and what is purged name it.
//!
//! Knows that a group is of one origin: "they both share the same URI origin" (§2.1). Nothing here is
//! seeded: all nodes of a fleet come to the same numbers.
//! Must not know: who is in a group, or what is purged.

use xxhash_rust::xxh3::{xxh3_128, xxh3_128_with_seed};

use super::CacheKey;
use crate::rules::ResponseFacts;

/// Keeps paths apart from names. Fixed for ever: every node must come to the same numbers.
const PATH: u64 = 0x6c61_7264_6572_2033;

/// A group of one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// xxh3-128 of the origin. One who makes another collide only has more of their own purged.
    pub origin: u128,
    /// xxh3-128 of the name.
    pub name: u128,
}

impl Group {
    /// The groups of these names, of the origin of what is stored under `key`.
    pub fn of<'a, N>(key: &CacheKey, names: N) -> impl Iterator<Item = Self> + use<'a, N>
    where
        N: Iterator<Item = &'a str>,
    {
        let origin = xxh3_128(key.origin().as_bytes());
        names.map(move |name| Self { origin, name: xxh3_128(name.as_bytes()) })
    }

    /// All groups of a response with these facts: its own, and that of its path where it does not vary
    /// on all of the query.
    pub fn all<'a>(key: &'a CacheKey, facts: &'a ResponseFacts) -> impl Iterator<Item = Self> + use<'a> {
        let path = facts.no_vary_search.as_ref().map(|_| Self::of_path(key));
        Self::of(key, facts.groups.iter()).chain(path)
    }

    /// Whether there are any.
    pub fn any(facts: &ResponseFacts) -> bool {
        !facts.groups.is_empty() || facts.no_vary_search.is_some()
    }

    /// The group of all at a path, whatever the query.
    pub fn of_path(key: &CacheKey) -> Self {
        let name = xxh3_128_with_seed(key.path().as_bytes(), PATH);
        Self { origin: xxh3_128(key.origin().as_bytes()), name }
    }

    /// One number for both.
    pub fn hash(self) -> u128 {
        // Origins and names are hashed apart, so that no name can reach into another origin.
        self.origin.rotate_left(64) ^ self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(url: &str, names: &[&str]) -> Vec<Group> {
        Group::of(&CacheKey::from_parts(url, ""), names.iter().copied()).collect()
    }

    #[test]
    fn a_group_is_of_one_origin_and_one_name() {
        let one = groups("http://a/x?y", &["n", "m"]);
        assert_eq!(one, groups("http://a/", &["n", "m"]), "whatever the path");
        assert_eq!(one[0], groups("http://a?q", &["n"])[0]);
        for other in ["https://a/x", "http://b/x", "http://a:8080/x"] {
            assert_ne!(groups(other, &["n"])[0].origin, one[0].origin, "{other}");
            assert_ne!(groups(other, &["n"])[0].hash(), one[0].hash(), "{other}");
        }
        assert_ne!(one[0].hash(), one[1].hash());
        assert_ne!(one[0].name, groups("http://a/", &["N"])[0].name, "§2.1: case sensitive");
        let path = |url: &str| Group::of_path(&CacheKey::from_parts(url, ""));
        assert_eq!(path("http://a/x?y"), path("http://a/x"));
        assert_ne!(path("http://a/x"), path("http://a/y"));
        assert_ne!(path("http://a/x"), groups("http://a/", &["/x"])[0]);
    }
}
