//! The request fields that a response was chosen by (RFC 9111 §4.1).
//!
//! Knows when two requests match. What may be done to a value is only what cannot change its
//! meaning: lines are joined, optional whitespace of a list is evened out, and `Accept-Encoding` is
//! taken by what it accepts, `Accept-Language` in any letter case. Where the route asks for it, this is
//! taken by what it prefers, and a response in the language that a request prefers to all others answers
//! it, whatever else it accepts.
//! A value already in its one form is compared as it stands: nothing is built for it.
//! Must not know: stored responses, tiers.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::io::Write;

use http::header::{
    ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, CONTENT_TYPE, COOKIE,
    PROXY_AUTHORIZATION, REFERER, TE, USER_AGENT,
};
use http::{HeaderMap, HeaderName};
use xxhash_rust::xxh3::Xxh3;

use super::facts::ResponseFacts;
use super::policy::Normalize;
use crate::fields::accept::{self, Weighted};
use crate::fields::list;
use crate::fields::vary::Vary;

/// The fields that `Vary` nominates, with the values of one request: sorted by name, each once.
///
/// An absent field is a value of its own, other than an empty one (§4.1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SelectingFields(Box<[Selecting]>);

/// One of them.
#[derive(Clone, Debug)]
struct Selecting {
    name: HeaderName,
    /// `None` = absent.
    value: Option<Box<[u8]>>,
    /// What the request had written, where the value is another form of it: most requests for a variant
    /// write just the same, and need not be understood anew. Not kept by every tier, and part of nothing.
    written: Option<Box<[u8]>>,
}

impl PartialEq for Selecting {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.value == other.value
    }
}

impl Eq for Selecting {}

impl Hash for Selecting {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.name, &self.value).hash(state);
    }
}

/// What `vary` nominates, as the request has it.
pub fn selecting_fields(vary: &Vary, request_headers: &HeaderMap, normalize: Normalize) -> SelectingFields {
    let names = match vary {
        Vary::Names(names) => names.as_slice(),
        Vary::Star => &[STAR],
    };
    let with_value = |name: &HeaderName| {
        let value = normalised(name, request_headers, normalize).map(|value| value.into_owned().into());
        let written = only_line(name, request_headers)
            .filter(|line| value.as_deref() != Some(*line) && line.len() <= LONGEST_WRITTEN);
        Selecting { name: name.clone(), value, written: written.map(Into::into) }
    };
    SelectingFields(names.iter().map(with_value).collect())
}

impl SelectingFields {
    /// Whether a request with these fields may be given the response that they were stored with (§4.1).
    pub fn matches(&self, resp: &ResponseFacts, request_headers: &HeaderMap, normalize: Normalize) -> bool {
        self.0.iter().all(|field| {
            field.name != STAR
                && (same(field, request_headers, normalize)
                    || (is_language(&field.name, normalize) && prefers_its_language(resp, request_headers)))
        })
    }

    /// The same for any request that prefers the response's language: what to find it by where fields
    /// are not compared but hashed. `None` where languages do not count.
    pub fn by_language(&self, resp: &ResponseFacts, normalize: Normalize) -> Option<Self> {
        self.with_language(resp.language.as_deref()?.as_bytes(), normalize)
    }

    /// What [`by_language`](Self::by_language) gave for a response in the language that this request
    /// prefers.
    pub fn by_preferred_language(&self, request_headers: &HeaderMap, normalize: Normalize) -> Option<Self> {
        self.with_language(accept::preferred_language(request_headers)?, normalize)
    }

    /// No field value holds a NUL, so that this stands for nothing else.
    fn with_language(&self, language: &[u8], normalize: Normalize) -> Option<Self> {
        let mut fields = self.clone();
        let field = fields.0.iter_mut().find(|field| is_language(&field.name, normalize))?;
        field.value = Some([b"\0", &*language.to_ascii_lowercase()].concat().into());
        field.written = None;
        Some(fields)
    }

    /// The nominated names.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.iter().map(|field| &field.name)
    }

    /// xxh3-64 over, for each field: its name, a zero byte, then 0 where it is absent, else 1,
    /// the value's length as 8 bytes little-endian, the value. The same in every process and on
    /// every machine, so that tiers shared by many can use it in a key.
    pub fn hash(&self) -> u64 {
        let mut hash = Xxh3::new();
        for Selecting { name, value, .. } in self.0.iter() {
            hash.update(name.as_str().as_bytes());
            hash.update(&[0, u8::from(value.is_some())]);
            if let Some(value) = value {
                hash.update(&u64::try_from(value.len()).unwrap_or(u64::MAX).to_le_bytes());
                hash.update(value);
            }
        }
        hash.digest()
    }

    /// Each name with its value, in order; for writing down.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = (&HeaderName, Option<&[u8]>)> {
        self.0.iter().map(|field| (&field.name, field.value.as_deref()))
    }

    /// From what [`Self::parts`] gave.
    pub fn from_parts(parts: impl IntoIterator<Item = (HeaderName, Option<Box<[u8]>>)>) -> Self {
        let field = |(name, value)| Selecting { name, value, written: None };
        let mut fields: Vec<_> = parts.into_iter().map(field).collect();
        fields.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
        fields.dedup_by(|a, b| a.name == b.name);
        Self(fields.into())
    }

    /// Bytes of names and values, for weighing.
    pub fn bytes(&self) -> usize {
        let length = |bytes: &Option<Box<[u8]>>| bytes.as_ref().map_or(0, |bytes| bytes.len());
        self.0.iter().map(|f| f.name.as_str().len() + length(&f.value) + length(&f.written)).sum()
    }
}

/// Bytes; longer values are seldom the same, and would be kept twice for that.
const LONGEST_WRITTEN: usize = 256;

/// Stands for `Vary: *`; no request matches it.
const STAR: HeaderName = HeaderName::from_static("*");

/// Fields that are no lists: a comma in them is a comma.
const NO_LIST: [HeaderName; 2] = [REFERER, USER_AGENT];

/// Fields whose value lets its bearer in. What is kept of it is a digest, so that it stands in no
/// memory dump and no shared tier; only equality is ever asked.
const SECRET: [HeaderName; 3] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];

/// Lists whose members have parameters: whitespace around a semicolon is optional (RFC 9110 §5.6.6).
const WITH_PARAMETERS: [HeaderName; 6] =
    [ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CONTENT_TYPE, TE];

/// RFC 4647 §2: language tags "are to be treated as case-insensitive"; so is the name of a weight.
fn is_caseless(name: &HeaderName) -> bool {
    *name == ACCEPT_LANGUAGE
}

/// Whether the field is taken as what languages it prefers.
fn is_language(name: &HeaderName, normalize: Normalize) -> bool {
    normalize.accept_language && *name == ACCEPT_LANGUAGE
}

/// RFC 9110 §12.5.4, §8.5: the response is in the one language that the request prefers to all others.
fn prefers_its_language(resp: &ResponseFacts, request_headers: &HeaderMap) -> bool {
    resp.language.as_deref().is_some_and(|language| {
        accept::preferred_language(request_headers)
            .is_some_and(|preferred| preferred.eq_ignore_ascii_case(language.as_bytes()))
    })
}

/// What the request's field asks for, where it is known to mean the same in all its writings.
fn meaning<'a>(name: &HeaderName, headers: &'a HeaderMap, normalize: Normalize) -> Option<Weighted<'a>> {
    if *name == ACCEPT_ENCODING {
        accept::codings(headers)
    } else if is_language(name, normalize) {
        accept::languages(headers)
    } else {
        None
    }
}

/// Whether the request's field is the same as the one that chose the response.
fn same(field: &Selecting, headers: &HeaderMap, normalize: Normalize) -> bool {
    let Selecting { name, value, written } = field;
    // One look for all, since every hit comes this way.
    let mut lines = headers.get_all(name).into_iter();
    let (value, line) = match (value.as_deref(), lines.next()) {
        (Some(value), Some(line)) => (value, line.as_bytes()),
        (value, line) => return value.is_none() && line.is_none(),
    };
    // It is what it was stored as, which is the one form of all that mean the same; or as that was written.
    let is_known = line == value || written.as_deref() == Some(line);
    if is_known && lines.next().is_none() && !SECRET.contains(name) {
        return true;
    }
    match meaning(name, headers, normalize) {
        Some(asked) => asked.bytes().eq(value.iter().copied()),
        None if SECRET.contains(name) => digest(lines_of(name, headers)) == *value,
        None => is_written(name, value, headers),
    }
}

/// The field's value as written, where that is one line and no secret.
fn only_line<'a>(name: &HeaderName, headers: &'a HeaderMap) -> Option<&'a [u8]> {
    let mut lines = headers.get_all(name).into_iter();
    let line = lines.next()?.as_bytes();
    (lines.next().is_none() && !SECRET.contains(name)).then_some(line)
}

/// Whether the field's lines come to this value, joined and evened out; builds nothing, but where a
/// quoted string may go from one line to the next, which shows only once they are joined.
fn is_written(name: &HeaderName, value: &[u8], headers: &HeaderMap) -> bool {
    let value = value.iter().copied();
    if NO_LIST.contains(name) {
        return joined(name, headers).eq(value);
    }
    let parameters = WITH_PARAMETERS.contains(name);
    let case = |byte: u8| if is_caseless(name) { byte.to_ascii_lowercase() } else { byte };
    let several = lines_of(name, headers).nth(1).is_some();
    if several && lines_of(name, headers).any(|line| line.contains(&b'"')) {
        let whole: Vec<u8> = joined(name, headers).collect();
        return even(&whole, parameters).map(case).eq(value);
    }
    let lines = lines_of(name, headers).enumerate();
    lines.flat_map(|(at, line)| between(at).chain(even(line, parameters))).map(case).eq(value)
}

fn lines_of<'a>(name: &HeaderName, headers: &'a HeaderMap) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    headers.get_all(name).into_iter().map(|line| list::trim(line.as_bytes()))
}

/// A field's lines joined by ", " (RFC 9110 §5.3).
fn joined<'a>(name: &HeaderName, headers: &'a HeaderMap) -> impl Iterator<Item = u8> + use<'a> {
    let lines = lines_of(name, headers).enumerate();
    lines.flat_map(|(at, line)| between(at).chain(line.iter().copied()))
}

/// What stands before the member or line at this place.
fn between(at: usize) -> impl Iterator<Item = u8> {
    let separator: &[u8] = if at == 0 { b"" } else { b", " };
    separator.iter().copied()
}

/// A field's lines joined by ", " (RFC 9110 §5.3), and one form of every list; `None` = absent.
/// Borrowed, and so free, where the request has it in that form already.
fn normalised<'a>(name: &HeaderName, headers: &'a HeaderMap, normalize: Normalize) -> Option<Cow<'a, [u8]>> {
    let mut lines = lines_of(name, headers);
    let first = lines.next()?;
    if let Some(asked) = meaning(name, headers, normalize) {
        return Some(Cow::Owned(asked.bytes().collect()));
    }
    if SECRET.contains(name) {
        return Some(Cow::Owned(digest(lines_of(name, headers)).into()));
    }
    let mut value = match lines.next() {
        Some(_) => Cow::Owned(joined(name, headers).collect()),
        None => Cow::Borrowed(first),
    };
    let parameters = WITH_PARAMETERS.contains(name);
    if !NO_LIST.contains(name) && !is_even(&value, parameters) {
        value = Cow::Owned(evened(&value, parameters));
    }
    if is_caseless(name) && value.iter().any(u8::is_ascii_uppercase) {
        value.to_mut().make_ascii_lowercase();
    }
    Some(value)
}

/// 256 bits in hex: xxh3-128 with the seeds 0 and 1, of the joined lines. Not against somebody who knows
/// the value and looks for another with the same digest: they have the credential already.
fn digest<'a>(lines: impl Iterator<Item = &'a [u8]>) -> [u8; 64] {
    let (mut zero, mut one) = (Xxh3::with_seed(0), Xxh3::with_seed(1));
    for (at, line) in lines.enumerate() {
        for part in [if at == 0 { &b""[..] } else { b", " }, line] {
            zero.update(part);
            one.update(part);
        }
    }
    let mut hex = [b'0'; 64];
    // 64 digits fit, so this cannot fail.
    let _ = write!(hex.as_mut_slice(), "{:032x}{:032x}", zero.digest128(), one.digest128());
    hex
}

/// Whether every comma outside quoted strings stands as ", " already, and, where members have
/// parameters, every semicolon alone.
fn is_even(value: &[u8], parameters: bool) -> bool {
    list::pieces(value).enumerate().all(|(at, piece)| {
        let member = if at == 0 { Some(piece) } else { piece.strip_prefix(b" ") };
        member.is_some_and(|member| {
            list::trim(member).len() == member.len()
                && (!parameters || tight(member, true).eq(member.iter().copied()))
        })
    })
}

/// With exactly ", " for every comma that stands outside quoted strings, and, where members have
/// parameters, nothing around semicolons.
fn evened(value: &[u8], parameters: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.len() + 8);
    bytes.extend(even(value, parameters));
    bytes
}

fn even(value: &[u8], parameters: bool) -> impl Iterator<Item = u8> {
    let pieces = list::pieces(value).enumerate();
    pieces.flat_map(move |(at, piece)| between(at).chain(tight(list::trim(piece), parameters)))
}

/// A member, where it may have parameters without the whitespace around its semicolons; those in quoted
/// strings, and what follows a quote that is never closed, stay as they are.
fn tight(member: &[u8], parameters: bool) -> impl Iterator<Item = u8> {
    let (mut quoted, mut escaped, mut after) = (false, false, false);
    // Where the whitespace at hand ends, and whether a semicolon stands there. Looked for once, so that a
    // long stretch of it is not gone through for each of its bytes.
    let (mut end, mut before) = (0, false);
    member.iter().enumerate().filter_map(move |(at, &byte)| {
        let space = parameters && is_space(byte) && !quoted;
        if space && at >= end {
            let rest = member.iter().enumerate().skip(at).find(|(_, byte)| !is_space(**byte));
            end = rest.map_or(member.len(), |(at, _)| at);
            before = rest.is_some_and(|(_, byte)| *byte == b';');
        }
        if space && (after || before) {
            return None;
        }
        after = byte == b';' && !quoted;
        quoted ^= byte == b'"' && !escaped;
        escaped = quoted && byte == b'\\' && !escaped;
        Some(byte)
    })
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use super::super::testing::response;
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn request(lines: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT_LANGUAGE, HeaderValue::from_bytes(line).unwrap());
        }
        headers
    }

    const PLAIN: Normalize = Normalize { accept_language: false };
    const LANGUAGE: Normalize = Normalize { accept_language: true };

    fn on(name: HeaderName, headers: &HeaderMap) -> SelectingFields {
        selecting_fields(&Vary::Names(vec![name]), headers, PLAIN)
    }

    fn matches(fields: &SelectingFields, headers: &HeaderMap) -> bool {
        fields.matches(&response(200, &[]), headers, PLAIN)
    }

    /// Whether two values of a field ask for the same, by every way of comparing.
    fn alike(name: &HeaderName, (a, b): (&str, &str), normalize: Normalize) -> bool {
        let with = |value| HeaderMap::from_iter([(name.clone(), HeaderValue::from_str(value).unwrap())]);
        let of = |headers| selecting_fields(&Vary::Names(vec![name.clone()]), headers, normalize);
        let (a, b) = (with(a), with(b));
        let alike = of(&a).matches(&response(200, &[]), &b, normalize);
        assert_eq!(of(&b).matches(&response(200, &[]), &a, normalize), alike);
        assert_eq!((of(&a) == of(&b), of(&a).hash() == of(&b).hash()), (alike, alike));
        alike
    }

    #[test]
    fn two_requests_match_as_the_clause_says() {
        for (clause, a, b, same) in [
            ("§4.1 the same", &[&b"en"[..]][..], &[&b"en"[..]][..], true),
            ("§4.1 another", &[b"en"], &[b"de"], false),
            ("RFC 4647 §2 language tags have no case", &[b"en"], &[b"EN"], true),
            ("§4.1 order is not known to be insignificant", &[b"en, de"], &[b"de, en"], false),
            ("§4.1 whitespace", &[b"en,de"], &[b" en \t,   de "], true),
            ("§4.1 whitespace inside a member", &[b"en de"], &[b"en  de"], false),
            ("§4.1 whitespace in a quoted string", &[b"\"a,b\""], &[b"\"a, b\""], false),
            ("§4.1 lines combined", &[b"en", b"de"], &[b"en,de"], true),
            ("§4.1 lines combined, a quote left open", &[b",", b"\""], &[b",,\""], true),
            ("§4.1 lines and no field at all", &[b",", b"\""], &[], false),
            ("§4.1 an empty member is a member", &[b"en,,de"], &[b"en,de"], false),
            ("§4.1 both absent", &[], &[], true),
            ("§4.1 absent here", &[], &[b"en"], false),
            ("§4.1 absent there", &[b"en"], &[], false),
            ("§4.1 empty is not absent", &[b""], &[], false),
            ("obs-text", &[b"\xff"], &[b"\xff"], true),
        ] {
            let (a, b) = (request(a), request(b));
            let (of_a, of_b) = (on(ACCEPT_LANGUAGE, &a), on(ACCEPT_LANGUAGE, &b));
            assert_eq!(matches(&of_a, &b), same, "{clause}");
            assert_eq!(matches(&of_b, &a), same, "{clause}");
            assert_eq!(of_a == of_b, same, "{clause}");
            assert_eq!(of_a.hash() == of_b.hash(), same, "{clause}");
        }
    }

    #[test]
    fn accept_encoding_is_taken_by_what_it_accepts() {
        for (clause, a, b, same) in [
            ("§12.5.3 order", "gzip, deflate, br", "br,deflate,gzip", true),
            ("§8.4.1 case", "GZIP", "gzip", true),
            ("§8.4.1 x-gzip", "x-gzip", "gzip", true),
            ("§12.4.2 weight of one", "gzip;q=1.000", "gzip", true),
            ("§12.4.2 weight of none", "gzip, br;q=0", "gzip", true),
            ("§5.6.3 whitespace", "gzip ; q=0.5", "gzip;q=0.5", true),
            ("§12.4.2 another preference", "gzip;q=0.5, br", "gzip, br;q=0.5", false),
            ("§12.5.3 identity excluded", "gzip, identity;q=0", "gzip", false),
            ("§12.5.3 nothing but identity", "", "identity", true),
            ("§12.5.3 nothing but identity is not all", "", "*", false),
            ("malformed: as written", "gzip;q=x, br", "br, gzip;q=x", false),
            ("malformed: whitespace still", "gzip ;q=x,br", "gzip; q=x, br", true),
        ] {
            assert_eq!(alike(&ACCEPT_ENCODING, (a, b), PLAIN), same, "9110 {clause}: {a} | {b}");
        }
    }

    #[test]
    fn accept_language_is_taken_by_what_it_prefers_where_the_route_says_so() {
        for (clause, a, b, by_meaning, as_written) in [
            ("§12.5.4 case", "en, DE", "eN, de", true, true),
            ("§12.5.4 order of equals", "en, de", "de, en", true, false),
            ("§5.6.3 whitespace", " en ,   de", "en, de", true, true),
            ("§5.6.3 whitespace", "en ; q=0.5", "en;q=0.5", true, true),
            ("§12.4.2 another preference", "en;q=0.5, de", "en, de;q=0.5", false, false),
            ("malformed: as written", "en_US, de", "de, en_US", false, false),
        ] {
            assert_eq!(alike(&ACCEPT_LANGUAGE, (a, b), LANGUAGE), by_meaning, "9110 {clause}: {a} | {b}");
            assert_eq!(alike(&ACCEPT_LANGUAGE, (a, b), PLAIN), as_written, "9110 {clause}: {a} | {b}");
        }
    }

    #[test]
    fn a_response_answers_whoever_prefers_its_language() {
        let stored_for = request(&[b"en, de"]);
        let vary = Vary::Names(vec![ACCEPT_LANGUAGE, HeaderName::from_static("x")]);
        for (clause, language, asked, answers) in [
            ("§12.5.4 preferred most", "de", &b"fr;q=0.5, de;q=1.0"[..], true),
            ("§8.5.1 tags have no case", "DE", b"de", true),
            ("§12.5.4 the one it was stored for", "de", b"de, en", true),
            ("§12.5.4 preferred less", "de", b"fr, de;q=0.5", false),
            ("§12.5.4 one of several", "de", b"fr, de", false),
            ("§12.5.4 a range of it", "de-AT", b"de", false),
            ("§12.5.4 anything", "de", b"*", false),
            ("§8.5 for two audiences", "de, fr", b"de", false),
            ("§8.5 no tag", "_", b"_", false),
        ] {
            let resp = response(200, &[&format!("content-language: {language}")]);
            let fields = selecting_fields(&vary, &stored_for, LANGUAGE);
            let asked = request(&[asked]);
            assert_eq!(fields.matches(&resp, &asked, LANGUAGE), answers, "9110 {clause}");
            let as_stored = matches(&selecting_fields(&vary, &stored_for, PLAIN), &asked);
            assert!(!as_stored, "only where the route says so");
            // By hash, as in a shared tier.
            let by = |fields: Option<SelectingFields>| fields.map(|fields| fields.hash());
            let want = selecting_fields(&vary, &asked, LANGUAGE);
            let found = want.hash() == fields.hash()
                || by(fields.by_language(&resp, LANGUAGE))
                    .is_some_and(|hash| by(want.by_preferred_language(&asked, LANGUAGE)) == Some(hash));
            assert_eq!(found, answers, "9110 {clause}");
            assert_eq!(fields.by_language(&resp, PLAIN), None);
            assert_eq!(want.by_preferred_language(&asked, PLAIN), None);
            // The other fields count as ever.
            let mut other = asked.clone();
            other.insert("x", HeaderValue::from_static("y"));
            assert!(!fields.matches(&resp, &other, LANGUAGE), "§4.1");
        }
    }

    #[test]
    fn whitespace_around_parameters_is_none_of_the_value() {
        for (a, b, same) in [
            ("text/html ; q=0.5 ,*/*", "text/html;q=0.5, */*", true),
            ("a;x=\" ; \"; q=1", "a;x=\" ; \";q=1", true),
            ("a;x=\" ; \"", "a;x=\";\"", false),
            ("a b", "ab", false),
        ] {
            assert_eq!(alike(&ACCEPT, (a, b), PLAIN), same, "9110 §5.6.6 {a} | {b}");
        }
        let unknown = HeaderName::from_static("x");
        assert!(!alike(&unknown, ("a", "A"), PLAIN), "§4.1 case is not known to be insignificant");
        assert!(!alike(&unknown, ("a ;b", "a;b"), PLAIN), "its syntax is not known");
    }

    #[test]
    fn a_comma_in_a_field_that_is_no_list_is_a_comma() {
        let agent =
            |value: &'static str| HeaderMap::from_iter([(USER_AGENT, HeaderValue::from_static(value))]);
        assert!(!matches(&on(USER_AGENT, &agent("x (a, b)")), &agent("x (a,b)")));
    }

    #[test]
    fn credentials_are_compared_and_not_kept() {
        for name in SECRET {
            let with = |value| HeaderMap::from_iter([(name.clone(), HeaderValue::from_static(value))]);
            let fields = on(name.clone(), &with("s3cret, a"));
            assert!(matches(&fields, &with("s3cret, a")));
            assert!(!matches(&fields, &with("s3cret,a")) && !matches(&fields, &with("")));
            assert!(!matches(&fields, &HeaderMap::new()));
            let (_, kept) = fields.parts().next().unwrap();
            assert!(!String::from_utf8_lossy(kept.unwrap()).contains("s3cret"));
        }
    }

    #[test]
    fn a_star_matches_no_request() {
        let fields = selecting_fields(&Vary::Star, &HeaderMap::new(), PLAIN);
        assert!(!matches(&fields, &HeaderMap::new()));
        let again = SelectingFields::from_parts(fields.parts().map(|(n, v)| (n.clone(), v.map(Into::into))));
        assert!(!matches(&again, &HeaderMap::new()));
    }

    #[test]
    fn the_hash_is_the_same_in_every_process() {
        // Written down in shared tiers: neither the bytes nor the figures may ever change.
        for (fields, bytes, hash) in [
            (SelectingFields::default(), &b""[..], 0x2d06_8005_38d3_94c2),
            (on(ACCEPT_LANGUAGE, &HeaderMap::new()), b"accept-language\0\0", 0x1246_4a13_6324_fc6f),
            (
                on(ACCEPT_LANGUAGE, &request(&[b"en,de"])),
                b"accept-language\0\x01\x06\0\0\0\0\0\0\0en, de",
                0xf5fd_363c_a62c_1099,
            ),
        ] {
            assert_eq!(fields.hash(), xxhash_rust::xxh3::xxh3_64(bytes));
            assert_eq!(fields.hash(), hash, "{:#x}", fields.hash());
        }
    }

    #[test]
    fn what_was_written_is_known_again_and_is_part_of_nothing() {
        let with = |value| HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(value))]);
        let (one, other) = (on(ACCEPT_ENCODING, &with("gzip, br")), on(ACCEPT_ENCODING, &with("br,gzip")));
        assert!(one == other && one.hash() == other.hash());
        assert!(one.0[0].written.as_deref() != other.0[0].written.as_deref());
        let again = SelectingFields::from_parts(one.parts().map(|(n, v)| (n.clone(), v.map(Into::into))));
        for (fields, request) in
            [(&one, "gzip, br"), (&one, "br,gzip"), (&other, "gzip, br"), (&again, "br,gzip")]
        {
            assert!(matches(fields, &with(request)) && !matches(fields, &with("br")));
        }
        let twice = request(&[b"en", b"en"]);
        assert_eq!(on(ACCEPT_LANGUAGE, &twice).0[0].written, None, "lines are joined, and compared so");
        let secret = HeaderMap::from_iter([(COOKIE, HeaderValue::from_static("a=b"))]);
        assert_eq!(on(COOKIE, &secret).0[0].written, None, "a digest alone is kept");
    }

    #[test]
    fn a_long_stretch_of_whitespace_is_gone_through_once() {
        // Once for each of its bytes would take minutes.
        let long = format!("a{}b{};c", " ".repeat(60_000), " ".repeat(60_000));
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_str(&long).unwrap())]);
        let fields = on(ACCEPT, &headers);
        assert!(matches(&fields, &headers));
        assert_eq!(fields.bytes(), "accept".len() + "ab;c".len() + 60_000);
    }

    #[test]
    fn names_do_not_run_into_values() {
        let a = SelectingFields::from_parts([(HeaderName::from_static("a"), Some(Box::from(*b"b")))]);
        let b = SelectingFields::from_parts([
            (HeaderName::from_static("a"), Some(Box::from(*b""))),
            (HeaderName::from_static("b"), None),
        ]);
        assert_ne!(a.hash(), b.hash());
        assert_eq!((a.bytes(), b.bytes()), (2, 2));
    }

    proptest! {
        #[test]
        fn a_request_matches_itself_and_its_parts_come_back(lines in prop::collection::vec("[ ab,\"\\\\\t]{0,12}", 0..4)) {
            let lines: Vec<_> = lines.iter().map(String::as_bytes).collect();
            let headers = request(&lines);
            let fields = on(ACCEPT_LANGUAGE, &headers);
            prop_assert!(matches(&fields, &headers));
            let parts = fields.parts().map(|(n, v)| (n.clone(), v.map(Into::into)));
            prop_assert_eq!(&SelectingFields::from_parts(parts), &fields);
        }

        #[test]
        fn comparing_comes_to_what_writing_down_comes_to(
            one in prop::collection::vec("[ ab,;\"\\\\\t]{0,8}", 0..3), other in prop::collection::vec("[ ab,;\"\\\\\t]{0,8}", 0..3),
        ) {
            for name in [ACCEPT, USER_AGENT, COOKIE, ACCEPT_LANGUAGE] {
                let all = |lines: &[String]| {
                    let mut headers = HeaderMap::new();
                    for line in lines {
                        headers.append(&name, line.parse().unwrap());
                    }
                    headers
                };
                let (a, b) = (all(&one), all(&other));
                let (of_a, of_b) = (on(name.clone(), &a), on(name.clone(), &b));
                prop_assert_eq!(matches(&of_a, &b), of_a == of_b, "{}", name);
                prop_assert!(matches(&of_a, &a) && matches(&of_b, &b), "{}", name);
            }
        }

        #[test]
        fn an_even_value_is_left_alone(value in "[ ab,;\"\\\\\t]{0,24}") {
            for parameters in [false, true] {
                let once = evened(list::trim(value.as_bytes()), parameters);
                prop_assert_eq!(evened(&once, parameters), once.clone());
                let is = evened(value.as_bytes(), parameters) == value.as_bytes();
                prop_assert_eq!(is_even(value.as_bytes(), parameters), is);
            }
        }
    }
}
