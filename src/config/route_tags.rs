//! `tags` of a `[[route]]`: what its responses can be purged by, beside what the origin says.
//!
//! Knows these keys, and which fields cannot hold tags.
//! Must not know: what is done with a tag.

use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, EXPIRES,
    LAST_MODIFIED, LOCATION, SET_COOKIE, VARY,
};
use http::{HeaderName, header};

use super::reader::{Reader, Text};
use super::section::Section;
use crate::fields::{groups, hop, tags};
use crate::stored::{LONGEST_NAME, TagPolicy, route_hash, tag_hash};

/// The field is removed from what clients get, so it may not be one that they need.
const NEEDED: [HeaderName; 13] = [
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    DATE,
    ETAG,
    EXPIRES,
    header::AGE,
    LAST_MODIFIED,
    LOCATION,
    SET_COOKIE,
    VARY,
];

/// Reads what a route says of tags.
pub(super) fn read(route: &mut Section<'_>) -> TagPolicy {
    let Some(mut section) = route.section("tags") else { return TagPolicy::default() };
    let texts = section.texts("static").unwrap_or_default();
    let header = section.text("header");
    let expose = section.flag("expose", false);
    let reader = section.reader;
    section.finish();
    let mut fixed: Vec<u64> = texts.iter().filter_map(|text| tag(reader, text)).collect();
    fixed.sort_unstable();
    fixed.dedup();
    let header = header.and_then(|text| field(reader, &text));
    TagPolicy { route: 0, fixed: fixed.into(), header, expose }
}

/// The same for a route of this name, which all of its responses can be purged by.
pub(super) fn of_route(policy: TagPolicy, name: &str) -> TagPolicy {
    TagPolicy { route: route_hash(name), ..policy }
}

fn tag(reader: &Reader<'_>, text: &Text) -> Option<u64> {
    if text.value.is_empty() || text.value.len() > LONGEST_NAME {
        reader.refuse(text, "a tag has 1 to 8192 bytes", "write such as \"products\"");
        return None;
    }
    Some(tag_hash(text.value.as_bytes()))
}

fn field(reader: &Reader<'_>, text: &Text) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(text.value.as_bytes()).ok();
    let (message, help) = match &name {
        Some(name) if tags::FIELDS.contains(name) || *name == groups::CACHE_GROUPS => {
            ("this field is read as it is", "leave it out")
        }
        Some(name) if NEEDED.contains(name) || hop::is_hop_by_hop(name) => {
            ("a field that says something else", "write one of your own, such as \"X-My-Tags\"")
        }
        Some(_) => return name,
        None => ("not a field name", "write such as \"X-My-Tags\""),
    };
    reader.refuse(text, message, help);
    None
}

#[cfg(test)]
mod tests {
    use super::super::tests::{parse, with_rest};
    use super::*;

    fn with(tags: &str) -> Result<TagPolicy, String> {
        let text = with_rest("").replacen("[[route]]", &format!("[[route]]\n{tags}"), 1);
        parse(&text).map(|config| config.routes[0].tags.clone()).map_err(|problems| problems.to_string())
    }

    #[test]
    fn tags_of_a_route_are_held_as_what_is_stored_names_them() {
        let plain = with("").unwrap();
        assert_eq!(plain, TagPolicy { route: plain.route, ..TagPolicy::default() });
        assert_ne!(plain.route, 0, "its name");
        let tags =
            with("tags = { static = [\"b\", \"a\", \"b\"], header = \"X-My-Tags\", expose = true }").unwrap();
        let mut fixed = [tag_hash(b"a"), tag_hash(b"b")];
        fixed.sort_unstable();
        assert_eq!(*tags.fixed, fixed);
        assert_eq!(
            (tags.header.unwrap().as_str(), tags.expose, tags.route),
            ("x-my-tags", true, plain.route)
        );
    }

    #[test]
    fn what_cannot_be_a_tag_or_hold_tags_is_refused() {
        let long = format!("tags.static = [\"{}\"]", "x".repeat(LONGEST_NAME + 1));
        for (tags, words) in [
            ("tags.static = [\"\"]", "a tag has 1 to 8192 bytes"),
            (&long, "a tag has 1 to 8192 bytes"),
            ("tags.header = \"Surrogate-Key\"", "read as it is"),
            ("tags.header = \"cache-groups\"", "read as it is"),
            ("tags.header = \"ETag\"", "says something else"),
            ("tags.header = \"Connection\"", "says something else"),
            ("tags.header = \"X My\"", "not a field name"),
            ("tags.heder = \"X-My\"", "did you mean `header`"),
            ("tags = [\"a\"]", "expected a table"),
        ] {
            let problems = with(tags).unwrap_err();
            assert!(problems.contains(words), "{words}: {problems}");
        }
    }
}
