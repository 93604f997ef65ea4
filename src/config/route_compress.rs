//! `[route.compress]`: which bodies are encoded on their way to clients, and how.
//!
//! Knows these keys and their words. The defaults are [`Compress`]'s.
//! Must not know: how a body is encoded.

use super::problems::Found;
use super::reader::{Reader, Text, one_of};
use super::section::Section;
use crate::coding::Compress;
use crate::fields::content_coding::Coding;

/// Reads what a route encodes. Without a word about it, nothing: it costs time on each miss, an origin
/// may do it already, and a page that mixes secrets with what its visitor sends gives them away by
/// its length once it is compressed (BREACH).
pub(super) fn read(route: &mut Section<'_>) -> Option<Compress> {
    let value = route.value("compress")?;
    if let Some(on) = value.get_ref().as_bool() {
        return on.then(Compress::default);
    }
    if value.get_ref().as_table().is_none() {
        route.reader.wrong_type(value, "true, or a table, [route.compress]");
        return None;
    }
    route.section_of("compress", value).map(compress)
}

fn compress(mut section: Section<'_>) -> Compress {
    let (s, d) = (&mut section, Compress::default());
    let codings = list(s, "codings", d.codings, coding);
    let types = list(s, "types", d.types, media_type);
    let min_size = s.size("min_size", d.min_size, "write \"1B\" for every body");
    let max_size = s.size("max_size", d.max_size, "write compress = false for none");
    if let Some(span) =
        s.span_of("min_size").or_else(|| s.span_of("max_size")).filter(|_| min_size > max_size)
    {
        let found = Found::new(span, "`min_size` is larger than `max_size`: no body is between them");
        s.reader.report(found.help("raise `max_size`, or lower `min_size`"));
    }
    section.finish();
    Compress { codings, min_size, max_size, types }
}

/// A list that is not empty, each member once.
fn list<T: PartialEq>(
    section: &mut Section<'_>,
    key: &'static str,
    default: Vec<T>,
    read: fn(&Reader<'_>, &Text) -> Option<T>,
) -> Vec<T> {
    let Some(texts) = section.texts(key) else { return default };
    if let Some(span) = section.span_of(key).filter(|_| section.is_empty_list(key)) {
        let found = Found::new(span, format!("an empty `{key}` would compress nothing"));
        section.reader.report(found.help("write compress = false, or leave it out for the usual ones"));
    }
    let mut list = Vec::new();
    for member in texts.iter().filter_map(|text| read(section.reader, text)) {
        if !list.contains(&member) {
            list.push(member);
        }
    }
    list
}

fn coding(reader: &Reader<'_>, text: &Text) -> Option<Coding> {
    let coding = Coding::of(text.value.as_bytes()).filter(|coding| coding.as_str() == text.value);
    if coding.is_none() {
        let help = one_of(&text.value, Coding::ALL.iter().map(|coding| coding.as_str()));
        reader.refuse(text, "unknown word", help);
    }
    coding
}

fn media_type(reader: &Reader<'_>, text: &Text) -> Option<String> {
    let value = text.value.to_ascii_lowercase();
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$&-^_.+/*".contains(&b);
    // Without either it would match nothing.
    let names_one = value.contains(['/', '*']);
    if !names_one || !value.bytes().all(token) || value.matches('*').count() > 1 {
        let help = "write such as \"application/json\", \"text/*\" or \"*+json\"";
        reader.refuse(text, "not a media type with at most one *", help);
        return None;
    }
    Some(value)
}
