//! `request_headers` and `response_headers` of a route.
//!
//! Knows which fields may not be touched: those that belong to one connection and not to the
//! message, and those by which Larder itself works.
//! Must not know: when the edits are made.

use http::{HeaderName, HeaderValue};

use super::Edits;
use super::problems::Found;
use super::reader::{Reader, Span, Text};
use super::section::Section;

/// Reads the edits under `key` of a route; none where it is not there.
pub(super) fn read(route: &mut Section<'_>, key: &'static str) -> Edits {
    let Some(mut section) = route.section(key) else { return Edits::default() };
    let removed = section.texts("remove").unwrap_or_default();
    let name = |text: &Text| field_name(section.reader, &text.span, &text.value);
    let remove = removed.iter().filter_map(name).collect();
    let set = section.section("set").map(set).unwrap_or_default();
    section.finish();
    Edits { remove, set }
}

/// A table whose keys are field names.
fn set(section: Section<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let mut set: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for (key, value) in section.entries() {
        let name = field_name(section.reader, &key.span(), key.get_ref());
        let text = section.reader.text(value);
        let value = text.and_then(|text| field_value(section.reader, &text));
        let (Some(name), Some(value)) = (name, value) else { continue };
        if set.iter().any(|(other, _)| *other == name) {
            let found = Found::new(key.span(), format!("`{name}` is set twice"));
            section.reader.report(found.help("leave one out; case plays no part in field names"));
        }
        set.push((name, value));
    }
    set
}

fn field_name(reader: &Reader<'_>, span: &Span, text: &str) -> Option<HeaderName> {
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        let found = Found::new(span.clone(), "not a field name");
        reader.report(found.help("write letters, digits and -, such as \"X-Api-Version\""));
        return None;
    };
    if let Some(why) = untouchable(name.as_str()) {
        reader.report(Found::new(span.clone(), format!("`{name}` cannot be edited")).help(why));
        return None;
    }
    Some(name)
}

/// Why a field is not for editing.
fn untouchable(name: &str) -> Option<&'static str> {
    match name {
        // RFC 9110 §7.6.1: they end at each hop.
        "connection" | "keep-alive" | "proxy-connection" | "te" | "trailer" | "upgrade" => {
            Some("it belongs to one connection, and Larder makes its own for each (RFC 9110 §7.6.1)")
        }
        "transfer-encoding" | "content-length" => {
            Some("it says where the body ends, so a wrong one corrupts what follows")
        }
        // §7.6.3
        "via" => Some("Larder finds forwarding loops by it"),
        _ => None,
    }
}

fn field_value(reader: &Reader<'_>, text: &Text) -> Option<HeaderValue> {
    // RFC 9110 §5.5: no space around a value; it would be lost on the way.
    let trimmed = text.value.trim_matches([' ', '\t']);
    match HeaderValue::from_str(trimmed) {
        Ok(value) if trimmed.len() == text.value.len() => return Some(value),
        Ok(_) => reader
            .report(Found::new(text.span.clone(), "space around a field value is lost").help("leave it out")),
        Err(_) => {
            reader.report(Found::new(text.span.clone(), "not a field value").help("write visible ASCII"))
        }
    }
    None
}
