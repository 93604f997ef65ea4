//! The tags that an origin puts on a response, so that whoever purges one of them purges it
//! (`Surrogate-Key`, `xkey`, `Cache-Tag`).
//!
//! No standard: each field is read as the cache that it comes from reads it. A tag is any run of bytes
//! between what divides them, and case counts. Nothing is dropped for being odd: a tag that is not known
//! could not be purged.
//! Must not know: what is stored, or what a tag is purged for.

use http::{HeaderMap, HeaderName};

use super::list::trim;

/// Divided by white space.
pub const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
/// Divided by white space or commas, and often on several lines.
pub const XKEY: HeaderName = HeaderName::from_static("xkey");
/// Divided by commas.
pub const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");

/// The fields that hold tags and nothing else: a word between an origin and its caches.
pub static FIELDS: [HeaderName; 3] = [SURROGATE_KEY, XKEY, CACHE_TAG];

/// Gives each tag of these fields to `each`, as often as it stands there; `also` is one more field, divided
/// by white space or commas.
pub fn each<'a>(headers: &'a HeaderMap, also: Option<&HeaderName>, mut each: impl FnMut(&'a [u8])) {
    let spaced = |byte: u8| byte.is_ascii_whitespace();
    let either = |byte: u8| byte == b',' || byte.is_ascii_whitespace();
    split(headers, &SURROGATE_KEY, spaced, &mut each);
    split(headers, &XKEY, either, &mut each);
    split(headers, &CACHE_TAG, |byte| byte == b',', &mut each);
    if let Some(also) = also {
        split(headers, also, either, &mut each);
    }
}

fn split<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    divides: impl Fn(u8) -> bool,
    each: &mut impl FnMut(&'a [u8]),
) {
    let lines = headers.get_all(name).into_iter();
    let tags = lines.flat_map(|line| line.as_bytes().split(|byte| divides(*byte)).map(trim));
    tags.filter(|tag| !tag.is_empty()).for_each(each);
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn tags(lines: &[(HeaderName, &str)], also: Option<&HeaderName>) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, line) in lines {
            headers.append(name.clone(), HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        let mut found = Vec::new();
        each(&headers, also, |tag| found.push(String::from_utf8_lossy(tag).into_owned()));
        found
    }

    #[test]
    fn each_field_is_divided_as_its_own_cache_divides_it() {
        let mine = HeaderName::from_static("x-my-tags");
        let none: [&str; 0] = [];
        for (clause, name, line, expected) in [
            ("spaces", SURROGATE_KEY, "a  b\tc", &["a", "b", "c"][..]),
            ("a comma is no space", SURROGATE_KEY, "a,b c", &["a,b", "c"]),
            ("either", XKEY, "a b,c , d", &["a", "b", "c", "d"]),
            ("commas", CACHE_TAG, "a b, c,,d ,", &["a b", "c", "d"]),
            ("case counts", SURROGATE_KEY, "A a", &["A", "a"]),
            ("nothing", SURROGATE_KEY, "", &none),
            ("nothing", CACHE_TAG, " , ,", &none),
            ("a field of the route's", mine.clone(), "a b,c", &["a", "b", "c"]),
        ] {
            assert_eq!(tags(&[(name, line)], Some(&mine)), expected, "{clause}: {line}");
        }
        assert_eq!(
            tags(&[(XKEY, "a"), (CACHE_TAG, "d"), (XKEY, "b"), (SURROGATE_KEY, "c")], None),
            ["c", "a", "b", "d"]
        );
        assert_eq!(tags(&[(mine, "a")], None), none, "nobody asked for it");
    }

    proptest! {
        #[test]
        fn any_line_gives_tags_that_are_not_empty(line in "[ -~\t]{0,80}") {
            for name in &FIELDS {
                prop_assert!(tags(&[(name.clone(), &line)], None).iter().all(|tag| !tag.is_empty()));
            }
        }
    }
}
