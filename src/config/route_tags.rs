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
