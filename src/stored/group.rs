//! A group of responses (RFC 9875), as what is stored and what is purged name it.
//!
//! Knows that a group is of one origin: "they both share the same URI origin" (§2.1). Nothing here is
//! seeded: all nodes of a fleet come to the same numbers.
//! Must not know: who is in a group, or what is purged.

use xxhash_rust::xxh3::xxh3_128;

use super::CacheKey;

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
    pub fn of<'a>(key: &CacheKey, names: impl Iterator<Item = &'a str>) -> impl Iterator<Item = Self> {
        let origin = xxh3_128(key.origin().as_bytes());
        names.map(move |name| Self { origin, name: xxh3_128(name.as_bytes()) })
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
        Group::of(&CacheKey::from_parts(url.into(), "".into()), names.iter().copied()).collect()
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
    }
}
