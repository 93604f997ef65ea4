//! `Accept-Encoding` and `Accept-Language` by meaning (RFC 9110 §12.5.3, §12.5.4).
//!
//! Knows members and weights, and the one form of all values that ask for the same: letter case,
//! order, whitespace, the writing of weights, and what adds nothing are evened out. Weights are
//! compared as they are, since servers multiply them by weights of their own. A value that is
//! malformed, or says two things of one member, has no such form.
//! Must not know: responses, or what a server would choose. Nothing here allocates.

use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE};
use http::{HeaderMap, HeaderName};

use super::content_coding::canonical;
use super::list;

/// Members of a value that are told apart; a longer one has no form by meaning.
const MAX_MEMBERS: usize = 16;

/// Weighted members in the order of the one form, each once.
#[derive(Clone, Copy, Debug)]
pub struct Weighted<'a> {
    members: [Member<'a>; MAX_MEMBERS],
    len: usize,
}

/// A member, and its weight in thousandths (§12.4.2).
type Member<'a> = (&'a [u8], u16);

/// The weight of a member without one.
const ONE: u16 = 1000;

/// The codings that a request accepts, by name. `None` where they have no form by meaning.
pub fn codings(headers: &HeaderMap) -> Option<Weighted<'_>> {
    let mut all = Weighted::read(headers, &ACCEPT_ENCODING, coding)?;
    let weight_of =
        |name: &[u8]| all.members().iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|m| m.1);
    let (star, identity) = (weight_of(b"*"), weight_of(b"identity"));
    let chosen = |member: &Member<'_>| member.1 > 0 && !is(member, b"identity");
    let only_identity = !all.members().iter().any(chosen) && identity.is_some_and(|weight| weight > 0);
    // What is not listed is not acceptable, unless a star stands for it: then its exclusion tells
    // nothing. "No encoding" is acceptable even unlisted.
    all.retain(|member| match member {
        m if is(m, b"*") => m.1 > 0,
        m if is(m, b"identity") => !only_identity,
        m => m.1 > 0 || star.is_some_and(|star| star > 0),
    });
    if star == Some(0) && identity.is_none() {
        // Rule 2: "*;q=0" excludes it where it has no entry of its own.
        all.push((b"identity", 0))?;
    }
    all.sort_by_name();
    Some(all)
}

/// The languages that a request prefers, the most preferred first and equal ones by name. `None`
/// where they have no form by meaning.
pub fn languages(headers: &HeaderMap) -> Option<Weighted<'_>> {
    let mut all = Weighted::read(headers, &ACCEPT_LANGUAGE, language_range)?;
    all.sort_by_name();
    all.sort_by_weight();
    Some(all)
}

/// The language that a request prefers to every other; `None` where that is none, or several.
pub fn preferred_language(headers: &HeaderMap) -> Option<&[u8]> {
    let languages = languages(headers)?;
    let (first, rest) = languages.members().split_first()?;
    let alone = first.1 > 0 && rest.first().is_none_or(|second| second.1 < first.1);
    (alone && !is(first, b"*")).then_some(first.0)
}

/// Whether this is a language tag, so far as its letters tell (RFC 5646 §2.1).
pub fn is_language(tag: &[u8]) -> bool {
    tag != b"*" && language_range(tag).is_some()
}

impl<'a> Weighted<'a> {
    /// The value in its one form: `br, gzip;q=0.5`.
    pub fn bytes(&self) -> impl Iterator<Item = u8> + '_ {
        self.members().iter().enumerate().flat_map(|(at, (name, weight))| {
            let comma: &[u8] = if at == 0 { b"" } else { b", " };
            let (text, len) = weight_text(*weight);
            let name = name.iter().map(u8::to_ascii_lowercase);
            comma.iter().copied().chain(name).chain(text.into_iter().take(len))
        })
    }

    fn read(
        headers: &'a HeaderMap,
        field: &HeaderName,
        name: fn(&'a [u8]) -> Option<&'a [u8]>,
    ) -> Option<Self> {
        let mut all = Self { members: [(b"", 0); MAX_MEMBERS], len: 0 };
        for member in list::all(headers, field) {
            let (text, weight) = weighted(member)?;
            let name = name(text)?;
            match all.members().iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
                None => all.push((name, weight))?,
                Some((_, known)) if *known == weight => {}
                Some(_) => return None,
            }
        }
        Some(all)
    }

    fn members(&self) -> &[Member<'a>] {
        self.members.get(..self.len).unwrap_or_default()
    }

    fn members_mut(&mut self) -> &mut [Member<'a>] {
        self.members.get_mut(..self.len).unwrap_or_default()
    }

    fn push(&mut self, member: Member<'a>) -> Option<()> {
        *self.members.get_mut(self.len)? = member;
        self.len += 1;
        Some(())
    }

    fn retain(&mut self, keep: impl Fn(&Member<'a>) -> bool) {
        let all = *self;
        self.len = 0;
        for member in all.members().iter().filter(|member| keep(member)) {
            let _fits = self.push(*member);
        }
    }

    fn sort_by_name(&mut self) {
        let lower = |name: &'a [u8]| name.iter().map(u8::to_ascii_lowercase);
        self.members_mut().sort_unstable_by(|a, b| lower(a.0).cmp(lower(b.0)));
    }

    /// Stable without a buffer, as the members are few.
    fn sort_by_weight(&mut self) {
        let members = self.members_mut();
        for end in 1..members.len() {
            for at in (1..=end).rev() {
                let Some([before, after]) = members.get_mut(at - 1..=at) else { return };
                if before.1 >= after.1 {
                    break;
                }
                std::mem::swap(before, after);
            }
        }
    }
}

fn is(member: &Member<'_>, name: &[u8]) -> bool {
    member.0.eq_ignore_ascii_case(name)
}

/// A member without its weight, and the weight (§12.4.2).
fn weighted(member: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = member.splitn(2, |&b| b == b';');
    let name = list::trim(parts.next()?);
    let Some(parameter) = parts.next().map(list::trim) else { return Some((name, ONE)) };
    let (q, value) = parameter.split_at_checked(2)?;
    Some((name, q.eq_ignore_ascii_case(b"q=").then(|| qvalue(value))??))
}

/// §12.4.2: `0` or `1`, and at most three digits after a point; none of them more than 1.
pub(super) fn qvalue(value: &[u8]) -> Option<u16> {
    let (whole, rest) = value.split_first()?;
    let whole = if matches!(whole, b'0' | b'1') { u16::from(whole - b'0') } else { return None };
    let digits = if rest.is_empty() { rest } else { rest.strip_prefix(b".")? };
    let padded = digits.iter().chain(b"000").take(3);
    let parts = padded
        .into_iter()
        .try_fold(0, |sum: u16, digit| digit.is_ascii_digit().then(|| sum * 10 + u16::from(digit - b'0')))?;
    let weight = whole * ONE + parts;
    (digits.len() <= 3 && weight <= ONE).then_some(weight)
}

/// `;q=0.25`, and how much of the buffer that is; nothing where the weight is 1.
fn weight_text(weight: u16) -> ([u8; 8], usize) {
    let digit = |n: u16| u8::try_from(n % 10).unwrap_or(0) + b'0';
    let text = [b';', b'q', b'=', b'0', b'.', digit(weight / 100), digit(weight / 10), digit(weight)];
    let len = match weight {
        ONE.. => 0,
        0 => 4,
        w if w % 100 == 0 => 6,
        w if w % 10 == 0 => 7,
        _ => 8,
    };
    (text, len)
}

/// §8.4.1: "x-gzip" is equivalent to "gzip", "x-compress" to "compress".
fn coding(name: &[u8]) -> Option<&[u8]> {
    let name = canonical(name);
    let tchar = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    (!name.is_empty() && name.iter().all(tchar)).then_some(name)
}

/// RFC 4647 §2.1: a star, or subtags of one to eight letters or digits, the first of letters.
fn language_range(range: &[u8]) -> Option<&[u8]> {
    let mut subtags = range.split(|&b| b == b'-');
    let subtag = |tag: &[u8]| (1..=8).contains(&tag.len()) && tag.iter().all(u8::is_ascii_alphanumeric);
    let first = subtags.next()?;
    let good = subtag(first) && first.iter().all(u8::is_ascii_alphabetic) && subtags.all(subtag);
    (good || range == b"*").then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn request(name: &HeaderName, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    fn text(found: Option<Weighted<'_>>) -> Option<String> {
        found.map(|weighted| String::from_utf8(weighted.bytes().collect()).unwrap())
    }

    fn encoding(line: &str) -> Option<String> {
        text(codings(&request(&ACCEPT_ENCODING, &[line])))
    }

    fn language(line: &str) -> Option<String> {
        text(languages(&request(&ACCEPT_LANGUAGE, &[line])))
    }

    #[test]
    fn codings_have_one_form_by_what_they_accept() {
        for (clause, line, expected) in [
            ("§12.5.3 nothing but identity", "", Some("")),
            ("§12.5.3 order", "gzip, br", Some("br, gzip")),
            ("§8.4.1 case", "GZip, BR", Some("br, gzip")),
            ("§5.6.3 whitespace", " gzip\t,br ; Q=0.5", Some("br;q=0.5, gzip")),
            ("§12.4.2 weights", "gzip;q=1.0, br;q=0.50, zstd;q=0.125", Some("br;q=0.5, gzip, zstd;q=0.125")),
            ("§12.4.2 weights", "a;q=1., b;q=0.010, c;q=0.001", Some("a, b;q=0.01, c;q=0.001")),
            ("§12.4.2 zero excludes what is not listed anyway", "gzip, br;q=0", Some("gzip")),
            ("§12.4.2 but not beside a star", "*, br;q=0.000", Some("*, br;q=0")),
            ("§8.4.1 old names", "x-gzip, X-Compress", Some("compress, gzip")),
            ("§8.4.1 old name beside the new", "x-gzip, gzip", Some("gzip")),
            ("identity is acceptable anyway", "identity", Some("")),
            ("identity is acceptable anyway", "identity;q=0.5, gzip;q=0, *;q=0", Some("")),
            ("identity with a weight", "gzip, identity;q=0.5", Some("gzip, identity;q=0.5")),
            ("§12.5.3 identity excluded", "gzip, identity;q=0", Some("gzip, identity;q=0")),
            ("§12.5.3 identity excluded by the star", "gzip, *;q=0", Some("gzip, identity;q=0")),
            (
                "§12.5.3 a more specific entry",
                "gzip;q=1.0, identity; q=0.5, *;q=0",
                Some("gzip, identity;q=0.5"),
            ),
            ("§12.5.3 nothing at all", "*;q=0", Some("identity;q=0")),
            ("§12.5.3 star", "*", Some("*")),
            ("the same twice", "gzip, gzip", Some("gzip")),
            ("two weights of one", "gzip, GZIP;q=0.5", None),
            ("§12.4.2 too large", "gzip;q=1.001", None),
            ("§12.4.2 too long", "gzip;q=0.1234", None),
            ("§12.4.2 no weight", "gzip;q=", None),
            ("§12.4.2 no weight", "gzip;q=-1", None),
            ("§12.4.2 no weight", "gzip;q=.5", None),
            ("§12.5.3 another parameter", "gzip;x=1", None),
            ("§12.5.3 two parameters", "gzip;q=1;x=1", None),
            ("§12.5.3 no token", "gz ip", None),
            ("§12.5.3 no token", "\"gzip\"", None),
            ("§12.5.3 no name", ";q=1", None),
            ("more than are told apart", "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q", None),
        ] {
            assert_eq!(encoding(line).as_deref(), expected, "{clause}: {line}");
        }
        let lines = request(&ACCEPT_ENCODING, &["gzip", "br;q=0.5"]);
        assert_eq!(text(codings(&lines)), encoding("br;q=0.5,gzip"), "§5.3");
    }

    #[test]
    fn languages_have_one_form_by_what_they_prefer() {
        for (clause, line, expected) in [
            ("RFC 4647 §2 case", "EN, de", Some("de, en")),
            (
                "§12.5.4 equal weights",
                "en;q=1.0, de, fr;q=0.5, it;q=0.50",
                Some("de, en, fr;q=0.5, it;q=0.5"),
            ),
            ("§12.5.4 other weights", "en;q=0.5, de;q=0.9", Some("de;q=0.9, en;q=0.5")),
            ("§12.5.4 what is not acceptable", "de;q=0, *", Some("*, de;q=0")),
            ("RFC 4647 §2.1", "zh-Hant-TW, x-pig-latin", Some("x-pig-latin, zh-hant-tw")),
            ("RFC 4647 §2.1 too long", "englishlanguage", None),
            ("RFC 4647 §2.1 no letters", "12", None),
            ("RFC 4647 §2.1 no subtag", "en-", None),
            ("RFC 4647 §2.1 another separator", "en_US", None),
            ("two weights of one", "en, en;q=0.5", None),
        ] {
            assert_eq!(language(line).as_deref(), expected, "{clause}: {line}");
        }
    }

    #[test]
    fn a_language_is_preferred_when_no_other_is_as_much() {
        for (line, expected) in [
            ("de", Some("de")),
            ("fr;q=0.5, DE;q=1.0", Some("DE")),
            ("de;q=0.2, *;q=0.1", Some("de")),
            ("de, en", None),
            ("*", None),
            ("*, de;q=0.5", None),
            ("de;q=0", None),
            ("", None),
            ("de, de;q=0.5", None),
        ] {
            let headers = request(&ACCEPT_LANGUAGE, &[line]);
            assert_eq!(preferred_language(&headers), expected.map(str::as_bytes), "§12.5.4 {line}");
        }
        for (tag, is) in [("de", true), ("de-AT", true), ("*", false), ("de, en", false), ("", false)] {
            assert_eq!(is_language(tag.as_bytes()), is, "RFC 5646 §2.1 {tag}");
        }
    }

    proptest! {
        #[test]
        fn the_one_form_has_itself(line in "((gzip|br|\\*|identity|x-gzip|de|a)(;q=(0|1|0\\.[0-9]{1,3}))?,){0,6}") {
            if let Some(once) = encoding(&line) {
                prop_assert_eq!(encoding(&once), Some(once.clone()), "{}", line);
            }
            if let Some(once) = language(&line) {
                prop_assert_eq!(language(&once), Some(once.clone()), "{}", line);
            }
        }

        #[test]
        fn order_and_case_do_not_count(
            members in prop::collection::btree_map("[a-e*]", 0..=1000u16, 0..5), turn in 0..5usize,
        ) {
            let mut lines: Vec<_> =
                members.iter().map(|(name, weight)| format!("{name};q={}.{:03}", weight / 1000, weight % 1000)).collect();
            let one = lines.join(",");
            let turn = turn.min(lines.len());
            lines.rotate_left(turn);
            let other = lines.join(" , ").to_uppercase();
            prop_assert!(encoding(&one).is_some());
            prop_assert_eq!(encoding(&one), encoding(&other));
            prop_assert_eq!(language(&one), language(&other));
        }

        #[test]
        fn any_line_is_read(line in "[ -~\t]{0,40}") {
            let _ = (encoding(&line), language(&line));
        }
    }
}
