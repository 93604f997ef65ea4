//! A purge: what it makes void, and the bytes that it becomes in the log of a fleet.
//!
//! Pure. What is named by a text keeps the text, so that whoever reads the log can say what was purged;
//! what only a process comes to know by itself (a group, a path) is named by its hashes, which are the same
//! on every node. Whatever the bytes are, decoding gives a purge or says at which of them it is none.
//! Must not know: what is stored, where purges are kept, or who makes them.
//!
//! ```text
//! purge  version u8 = 1 | flags u8: 1 = soft | kind u8 | rest
//! rest   url 1, tag 4, prefix 5, route 6: length u16, bytes of a text of at most 8 KiB
//!        group 2, path 3: origin u128, name u128
//!        all 7: nothing
//! ```

use std::fmt;

use super::{CacheKey, Group, KeyPolicy};
use crate::fields::path;

/// The longest name that a purge may have, in bytes: as long as a target may be that Larder takes.
pub const LONGEST_NAME: usize = 8 * 1024;

/// Bytes of the longest URL that clients can write to, and a purge be of: what `limits.target` may say at most, and
/// its origin.
pub const LONGEST_URL: usize = 72 * 1024;

const VERSION: u8 = 1;
const SOFT: u8 = 1;

/// Makes void what was stored, or was being fetched, before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// What.
    pub scope: Scope,
    /// It is to be validated before it is used again, and may stand in for an origin that fails; otherwise
    /// it is gone.
    pub soft: bool,
}

/// What a purge is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A URL [as keys have it](CacheKey::url), whatever else is in its keys.
    Url(Box<str>),
    /// A group of one origin (RFC 9875).
    Group(Group),
    /// All at a path that is stored under a rule for its query ([`Group::of_path`]).
    Path(Group),
    /// All with a tag.
    Tag(Box<str>),
    /// All whose URL begins so.
    Prefix(Prefix),
    /// All that was stored by a route, by its name.
    Route(Box<str>),
    /// Everything.
    All,
}

/// Where in a fleet's log something stands, or up to where a node has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Position {
    /// The random id of the log: numbers of one say nothing of another's.
    pub run: u64,
    /// The number.
    pub n: u64,
}

impl Position {
    /// Whether this comes after another one; `None` where they are of different logs.
    pub fn is_after(self, other: Self) -> Option<bool> {
        (self.run == other.run).then_some(self.n > other.n)
    }
}

/// The beginning of paths, on one origin or on all: `/products/*`, or `http://host/products/*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// As keys have it, without the star.
    text: Box<str>,
    /// Bytes of it that are the origin.
    origin: usize,
}

impl Prefix {
    /// From how it is written.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, Unfit> {
        let Some(start) = text.strip_suffix('*') else {
            return Err(Unfit::new(text.len(), "a prefix ends with *, as in /products/*"));
        };
        if let Some(at) = start.find('*') {
            return Err(Unfit::new(at, "* stands only at the end of a prefix"));
        }
        if let Some(at) = start.find(['?', '#']) {
            return Err(Unfit::new(at, "a prefix is of the path alone: all queries are meant"));
        }
        if let Some(at) = start.bytes().position(|byte| !byte.is_ascii_graphic()) {
            return Err(Unfit::new(at, "paths arrive percent-encoded, and so are they written here"));
        }
        let prefix = match start.starts_with('/') {
            true => Self { text: start.into(), origin: 0 },
            false => Self::of_origin(start).ok_or(Unfit::new(
                0,
                "a prefix begins with /, or with an origin and a path as in http://host/products/*",
            ))?,
        };
        if path::has_dot_segment(prefix.path()) {
            return Err(Unfit::new(prefix.origin, "write the path without dot segments"));
        }
        checked(&prefix.text).map(|()| prefix)
    }

    /// One that begins with an origin: as clients write URLs, and keys do not.
    fn of_origin(start: &str) -> Option<Self> {
        let (scheme, rest) = start.split_once("://")?;
        let scheme_is_known = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
        if !scheme_is_known || !rest.contains('/') || rest.starts_with('/') {
            return None;
        }
        let key = CacheKey::of_url(start, &KeyPolicy::default())?;
        Some(Self { text: key.url().into(), origin: key.origin().len() })
    }

    /// Whether what is stored under this key is meant.
    pub fn covers(&self, key: &CacheKey) -> bool {
        let of_origin = || self.origin == 0 || self.text.get(..self.origin) == Some(key.origin());
        key.path().starts_with(self.path()) && of_origin()
    }

    fn path(&self) -> &str {
        self.text.get(self.origin..).unwrap_or_default()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}*", self.text)
    }
}

/// Why something is no purge, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// The byte, from 0.
    pub at: usize,
    /// Why.
    pub why: &'static str,
}

impl Unfit {
    const fn new(at: usize, why: &'static str) -> Self {
        Self { at, why }
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {})", self.why, self.at.saturating_add(1))
    }
}

impl std::error::Error for Unfit {}

impl Scope {
    /// Of a tag.
    ///
    /// # Errors
    /// It is empty or too long.
    pub fn tag(name: &str) -> Result<Self, Unfit> {
        checked(name).map(|()| Self::Tag(name.into()))
    }

    /// The word for what it is of, for answers and logs.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Url(_) => "url",
            Self::Group(_) => "group",
            Self::Path(_) => "path",
            Self::Tag(_) => "tag",
            Self::Prefix(_) => "prefix",
            Self::Route(_) => "route",
            Self::All => "all",
        }
    }
}

/// A name that a purge may have.
fn checked(name: &str) -> Result<(), Unfit> {
    match name.len() {
        0 => Err(Unfit::new(0, "an empty name")),
        1..=LONGEST_NAME => Ok(()),
        _ => Err(Unfit::new(LONGEST_NAME, "a name has at most 8192 bytes")),
    }
}

impl Purge {
    /// A hard one.
    pub const fn hard(scope: Scope) -> Self {
        Self { scope, soft: false }
    }

    /// A soft one.
    pub const fn soft(scope: Scope) -> Self {
        Self { scope, soft: true }
    }

    /// Its bytes.
    ///
    /// # Errors
    /// A name is empty, or longer than [`LONGEST_NAME`]; a URL longer than [`LONGEST_URL`].
    pub fn encode(&self) -> Result<Vec<u8>, Unfit> {
        let (kind, prefix);
        let text = match &self.scope {
            Scope::Url(text) if text.len() > LONGEST_NAME => return self.of_long_url(text),
            Scope::Url(text) => {
                kind = 1;
                text
            }
            Scope::Group(group) => return Ok(self.of_group(2, *group)),
            Scope::Path(group) => return Ok(self.of_group(3, *group)),
            Scope::Tag(text) => {
                kind = 4;
                text
            }
            Scope::Prefix(written) => {
                kind = 5;
                prefix = written.to_string().into_boxed_str();
                &prefix
            }
            Scope::Route(text) => {
                kind = 6;
                text
            }
            Scope::All => return Ok(self.head(7, 0)),
        };
        // The star of a prefix comes on top.
        checked(text.strip_suffix('*').filter(|_| kind == 5).unwrap_or(text))?;
        let length = u16::try_from(text.len()).map_err(|_| Unfit::new(LONGEST_NAME, "too long"))?;
        let mut out = self.head(kind, 2 + text.len());
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(text.as_bytes());
        Ok(out)
    }

    /// From the bytes that [`encode`](Self::encode) gave.
    ///
    /// # Errors
    /// Where and why they are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unfit> {
        let (head, rest) = bytes.split_first_chunk::<3>().ok_or(Unfit::new(bytes.len(), "too short"))?;
        let [version, flags, kind] = *head;
        if version != VERSION {
            return Err(Unfit::new(0, "another version"));
        }
        if flags & !SOFT != 0 {
            return Err(Unfit::new(1, "unknown flags"));
        }
        let scope = match kind {
            1 => Scope::Url(text(rest)?.into()),
            2 => Scope::Group(group(rest)?),
            3 => Scope::Path(group(rest)?),
            4 => Scope::Tag(text(rest)?.into()),
            5 => {
                let written = text(rest)?;
                let prefix = Prefix::parse(written)?;
                // As it would be written here: two writings of one prefix would be two in a table.
                if prefix.to_string() != written {
                    return Err(Unfit::new(5, "a prefix that is not as keys have it"));
                }
                Scope::Prefix(prefix)
            }
            6 => Scope::Route(text(rest)?.into()),
            8 => Scope::Url(long_url(rest)?.into()),
            7 if rest.is_empty() => Scope::All,
            7 => return Err(Unfit::new(3, "bytes behind the end")),
            _ => return Err(Unfit::new(2, "an unknown kind")),
        };
        Ok(Self { scope, soft: flags & SOFT != 0 })
    }

    fn head(&self, kind: u8, room: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(3 + room);
        out.extend_from_slice(&[VERSION, if self.soft { SOFT } else { 0 }, kind]);
        out
    }

    fn of_long_url(&self, url: &str) -> Result<Vec<u8>, Unfit> {
        if url.len() > LONGEST_URL {
            return Err(Unfit::new(LONGEST_URL, "a URL has at most 73728 bytes"));
        }
        let mut out = self.head(8, url.len());
        out.extend_from_slice(url.as_bytes());
        Ok(out)
    }

    fn of_group(&self, kind: u8, group: Group) -> Vec<u8> {
        let mut out = self.head(kind, 32);
        out.extend_from_slice(&group.origin.to_le_bytes());
        out.extend_from_slice(&group.name.to_le_bytes());
        out
    }
}

/// To the end of the record.
fn long_url(rest: &[u8]) -> Result<&str, Unfit> {
    if !(LONGEST_NAME + 1..=LONGEST_URL).contains(&rest.len()) {
        return Err(Unfit::new(3, "a long URL has more than 8192 bytes, and at most 73728"));
    }
    std::str::from_utf8(rest)
        .map_err(|error| Unfit::new(3usize.saturating_add(error.valid_up_to()), "not UTF-8"))
}

fn text(rest: &[u8]) -> Result<&str, Unfit> {
    let (length, bytes) = rest.split_first_chunk::<2>().ok_or(Unfit::new(3, "no length"))?;
    if bytes.len() != usize::from(u16::from_le_bytes(*length)) {
        return Err(Unfit::new(3, "not as long as it says"));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Unfit::new(5usize.saturating_add(error.valid_up_to()), "not UTF-8"))?;
    let longest = LONGEST_NAME.saturating_add(usize::from(text.ends_with('*')));
    match bytes.len() {
        0 => Err(Unfit::new(3, "an empty name")),
        length if length > longest => Err(Unfit::new(3, "a name has at most 8192 bytes")),
        _ => Ok(text),
    }
}

fn group(rest: &[u8]) -> Result<Group, Unfit> {
    let hashes: &[u8; 32] = rest.try_into().map_err(|_| Unfit::new(3, "a group has 32 bytes"))?;
    let (mut origin, mut name) = ([0; 16], [0; 16]);
    let (first, last) = hashes.split_at(16);
    origin.copy_from_slice(first);
    name.copy_from_slice(last);
    Ok(Group { origin: u128::from_le_bytes(origin), name: u128::from_le_bytes(name) })
}

#[cfg(test)]
pub(crate) mod any {
    use super::*;
    use proptest::prelude::*;

    /// Any purge that can be encoded.
    pub(crate) fn purge() -> impl Strategy<Value = Purge> {
        let group = || (any::<u128>(), any::<u128>()).prop_map(|(origin, name)| Group { origin, name });
        let prefix = "(http://[a-z]{1,5}(:8080)?)?/[a-z/%]{0,9}\\*".prop_map(|text| Prefix::parse(&text));
        let scope = prop_oneof![
            "http://[a-z]{1,9}/[a-z?=&]{0,20}".prop_map(|url| Scope::Url(url.into())),
            group().prop_map(Scope::Group),
            group().prop_map(Scope::Path),
            ".{1,20}".prop_map(|tag| Scope::Tag(tag.into())),
            prefix.prop_filter_map("no prefix", |prefix| prefix.ok().map(Scope::Prefix)),
            ".{1,20}".prop_map(|route| Scope::Route(route.into())),
            Just(Scope::All),
        ];
        (scope, any::<bool>()).prop_map(|(scope, soft)| Purge { scope, soft })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(url: &str) -> CacheKey {
        CacheKey::of_url(url, &KeyPolicy::default()).unwrap()
    }

    #[test]
    fn a_prefix_is_of_paths_on_one_origin_or_on_all() {
        for (written, url, covered) in [
            ("/products/*", "http://a/products/1?x=1", true),
            ("/products/*", "https://b:8443/products/", true),
            ("/products/*", "http://a/products", false),
            ("/products/*", "http://a/Products/1", false),
            ("/products*", "http://a/products-old", true),
            ("/*", "http://a/", true),
            ("http://a/products/*", "http://a/products/1", true),
            ("HTTP://A:80/products/*", "http://a/products/1", true),
            ("http://a/products/*", "https://a/products/1", false),
            ("http://a/products/*", "http://a.b/products/1", false),
            ("http://a/*", "http://a:8080/", false),
            ("http://a:8080/*", "http://a:8080/x", true),
            ("/a*", "http://a/b?c=/a", false),
        ] {
            assert_eq!(Prefix::parse(written).unwrap().covers(&key(url)), covered, "{written} {url}");
        }
        assert_eq!(Prefix::parse("HTTP://A:80/b/*").unwrap().to_string(), "http://a/b/*");
    }

    #[test]
    fn what_is_no_prefix_is_told_with_its_place() {
        for (written, at, why) in [
            ("", 0, "ends with *"),
            ("/products/", 10, "ends with *"),
            ("/a*/b*", 2, "only at the end"),
            ("/a**", 2, "only at the end"),
            ("/a?b=*", 2, "path alone"),
            ("/a#*", 2, "path alone"),
            ("/a b*", 2, "percent-encoded"),
            ("/\u{e4}*", 1, "percent-encoded"),
            ("*", 0, "begins with /"),
            ("products/*", 0, "begins with /"),
            ("http://host*", 0, "begins with /"),
            ("http:///a/*", 0, "begins with /"),
            ("ftp://host/*", 0, "begins with /"),
            ("/a/../b*", 0, "dot segments"),
            ("http://h/a/./b*", 8, "dot segments"),
        ] {
            let unfit = Prefix::parse(written).unwrap_err();
            assert!(unfit.at == at && unfit.why.contains(why), "{written}: {unfit}");
        }
    }

    #[test]
    fn names_have_at_most_8_kib() {
        let (long, longer) = ("x".repeat(LONGEST_NAME), "x".repeat(LONGEST_NAME + 1));
        assert!(Scope::tag(&long).is_ok());
        for scope in [Scope::tag(&longer), Scope::tag("")] {
            assert!(scope.is_err());
        }
        for (name, fits) in [(&long, true), (&longer, false), (&String::new(), false)] {
            let bytes = Purge::hard(Scope::Route(name.as_str().into())).encode();
            assert_eq!(bytes.is_ok(), fits, "{} bytes", name.len());
        }
        let prefix = Prefix::parse(&format!("/{}*", "x".repeat(LONGEST_NAME - 1))).unwrap();
        let purge = Purge::soft(Scope::Prefix(prefix));
        assert_eq!(Purge::decode(&purge.encode().unwrap()), Ok(purge));
        assert!(Prefix::parse(&format!("/{long}*")).is_err());
        let mut record = Purge::hard(Scope::Tag("x".into())).encode().unwrap();
        record.truncate(3);
        record.extend_from_slice(&8193u16.to_le_bytes());
        record.extend_from_slice(longer.as_bytes());
        assert_eq!(Purge::decode(&record).unwrap_err().at, 3);
    }

    #[test]
    fn a_url_is_as_long_as_a_request_can_be() {
        for (length, fits) in [
            (0, false),
            (1, true),
            (LONGEST_NAME, true),
            (LONGEST_NAME + 1, true),
            (LONGEST_URL, true),
            (LONGEST_URL + 1, false),
        ] {
            let purge = Purge::soft(Scope::Url("x".repeat(length).into()));
            let bytes = purge.encode();
            assert_eq!(bytes.is_ok(), fits, "{length} bytes");
            if let Ok(bytes) = bytes {
                assert_eq!(Purge::decode(&bytes), Ok(purge), "{length} bytes");
            }
        }
        // One writing of each.
        let short = [&[1, 0, 8][..], &[b'x'; LONGEST_NAME]].concat();
        let long = [&[1, 0, 8][..], &[b'x'; LONGEST_URL + 1]].concat();
        let damaged = [&[1, 0, 8][..], &[b'x'; LONGEST_NAME], &[0xff]].concat();
        for (bytes, at) in [(short, 3), (long, 3), (damaged, 3 + LONGEST_NAME)] {
            assert_eq!(Purge::decode(&bytes).unwrap_err().at, at);
        }
    }

    #[test]
    fn the_bytes_are_these_for_ever() {
        // Another layout is another version: nodes of a fleet are not all replaced at once.
        let tag = Purge::soft(Scope::Tag("ab".into())).encode().unwrap();
        assert_eq!(tag, [1, 1, 4, 2, 0, b'a', b'b']);
        assert_eq!(Purge::hard(Scope::All).encode().unwrap(), [1, 0, 7]);
        let group = Purge::hard(Scope::Group(Group { origin: 1, name: 2 })).encode().unwrap();
        assert_eq!((group.len(), &group[..4], group[19]), (35, &[1, 0, 2, 1][..], 2));
    }

    #[test]
    fn what_is_no_purge_is_told_with_its_place() {
        for (bytes, at) in [
            (&[][..], 0),
            (&[1, 0], 2),
            (&[2, 0, 7], 0),
            (&[1, 2, 7], 1),
            (&[1, 0, 0], 2),
            (&[1, 0, 8], 3),
            (&[1, 0, 9], 2),
            (&[1, 0, 7, 0], 3),
            (&[1, 0, 4], 3),
            (&[1, 0, 4, 0, 0], 3),
            (&[1, 0, 4, 2, 0, b'a'], 3),
            (&[1, 0, 4, 1, 0, 0xff], 5),
            (&[1, 0, 2, 0], 3),
            (&[1, 0, 5, 1, 0, b'/'], 1),
        ] {
            assert_eq!(Purge::decode(bytes).unwrap_err().at, at, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(purge in any::purge()) {
            let bytes = purge.encode().unwrap();
            prop_assert_eq!(Purge::decode(&bytes).unwrap(), purge);
            for end in 0..bytes.len() {
                prop_assert!(Purge::decode(&bytes[..end]).is_err());
            }
        }

        #[test]
        fn any_bytes_are_a_purge_that_encodes_so_or_none(bytes: Vec<u8>, kind in 0u8..9, soft in 0u8..3) {
            let led: Vec<u8> = [1, soft, kind].into_iter().chain(bytes.iter().copied()).collect();
            for bytes in [bytes, led] {
                if let Ok(purge) = Purge::decode(&bytes) {
                    prop_assert_eq!(purge.encode().unwrap(), bytes);
                }
            }
        }
    }
}
