//! Comma lists, the shape of most fields (RFC 9110 §5.6.1).
//!
//! Knows commas, optional whitespace and quoted strings, over one line or all lines of a field.
//! Must not know: what the members mean.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};

/// The members of one line of a comma list: trimmed, empty ones left out (§5.6.1.2).
///
/// A comma inside a quoted string does not divide. A string opens where one may stand: at a member's
/// start, behind its `=`, or behind the `W/` of a weak tag; a quote elsewhere is a byte as any other. One
/// that is never closed, or closed in the middle of something, opens no string; from its member on the line
/// is divided at every comma. So nothing can hide behind a stray quote, nor can who writes the beginning
/// of a line swallow what another adds to it.
pub fn members(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    pieces(line).map(trim).filter(|member| !member.is_empty())
}

/// What stands before, between and after the commas of a line, as written; at least one piece.
pub fn pieces(line: &[u8]) -> Pieces<'_> {
    Pieces { rest: Some(line), quotes: true, escapes: true }
}

/// The members of a line as one reads it who knows no `\` in quoted strings (§5.6.4).
pub fn members_without_escapes(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    Pieces { rest: Some(line), quotes: true, escapes: false }.map(trim)
}

/// Whether every quote of a line stands where the grammar of directives has one: quoted strings begin right
/// behind a `=` and end their member. Of any other line readers disagree on what it says.
pub fn is_well_quoted(line: &[u8]) -> bool {
    pieces(line).all(|piece| {
        let quote = piece.iter().position(|&b| b == b'"');
        let parts = quote.and_then(|at| piece.split_at_checked(at));
        parts.is_none_or(|(name, value)| name.ends_with(b"=") && is_one_string(trim(value)))
    })
}

/// Whether it is one quoted string from the first byte to the last.
fn is_one_string(value: &[u8]) -> bool {
    let Some(inner) = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return false;
    };
    let mut escaped = false;
    let closes = inner.iter().any(|&byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    });
    !closes && !escaped
}

/// The members of a comma list over all lines of the field, in order (§5.3).
pub fn all<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    headers.get_all(name).into_iter().flat_map(|line| members(line.as_bytes()))
}

/// Whether one of the field's members is this token, in any case.
pub fn contains(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    all(headers, name).any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
}

/// Without the optional whitespace around it: spaces and tabs (§5.6.3).
pub fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// What a quoted string says (§5.6.4); `None` where `value` is not exactly one quoted string.
pub fn unquote(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if !inner.iter().any(|b| matches!(b, b'"' | b'\\')) {
        return Some(Cow::Borrowed(inner));
    }
    let mut said = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' => return None,
            b'\\' => said.push(*bytes.next()?),
            _ => said.push(byte),
        }
    }
    Some(Cow::Owned(said))
}

/// Made by [`pieces`].
#[derive(Clone, Debug)]
pub struct Pieces<'a> {
    rest: Option<&'a [u8]>,
    quotes: bool,
    escapes: bool,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let line = self.rest.take()?;
        let (piece, rest) = line.split_at_checked(self.end(line))?;
        self.rest = rest.strip_prefix(b",");
        Some(piece)
    }
}

impl Pieces<'_> {
    fn end(&mut self, line: &[u8]) -> usize {
        if self.quotes {
            match end_with_quotes(line, self.escapes) {
                Some(end) => return end,
                // Remembered, so that a line of open quotes is not scanned once for each of them.
                None => self.quotes = false,
            }
        }
        line.iter().position(|&b| b == b',').unwrap_or(line.len())
    }
}

/// Where the first comma outside quoted strings is, or the end; `None` where a string stays open.
fn end_with_quotes(bytes: &[u8], escapes: bool) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    let mut before = Before::Start;
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted && escapes => escaped = true,
            b'"' if quoted && ends_there(bytes.get(at + 1)) => quoted = false,
            // No string ends so: it was none, or another quote belongs to it.
            b'"' if quoted => return None,
            b'"' => quoted = before.opens(),
            b',' if !quoted => return Some(at),
            _ => {}
        }
        before = before.then(byte);
    }
    (!quoted).then_some(bytes.len())
}

/// Whether a quoted string may end before this byte: at a comma, a parameter, white space, or the line's end.
fn ends_there(next: Option<&u8>) -> bool {
    next.is_none_or(|byte| matches!(byte, b',' | b';' | b' ' | b'\t'))
}

/// What a member has been so far, as far as it says whether a quoted string may begin.
#[derive(Clone, Copy)]
enum Before {
    /// Nothing but white space.
    Start,
    /// `W`
    Weak,
    /// `W/`
    WeakTag,
    /// Something that ends in `=` and white space.
    Equals,
    Other,
}

impl Before {
    fn opens(self) -> bool {
        matches!(self, Self::Start | Self::WeakTag | Self::Equals)
    }

    fn then(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Start | Self::Equals, b' ' | b'\t') => self,
            (Self::Start, b'W') => Self::Weak,
            (Self::Weak, b'/') => Self::WeakTag,
            (_, b'=') => Self::Equals,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(line: &str) -> Vec<&str> {
        members(line.as_bytes()).map(|m| std::str::from_utf8(m).unwrap()).collect()
    }

    #[test]
    fn members_are_divided_at_commas_outside_quoted_strings() {
        for (clause, line, expected) in [
            ("§5.6.1 plain", "a, b ,c", vec!["a", "b", "c"]),
            ("§5.6.1.2 empty members", ", ,a,,\t,b,", vec!["a", "b"]),
            ("§5.6.1 nothing", "", vec![]),
            ("§5.6.4 quoted comma", r#"a="x, y", b"#, vec![r#"a="x, y""#, "b"]),
            ("§5.6.4 quoted pair", r#"a="x\", y", b"#, vec![r#"a="x\", y""#, "b"]),
            ("§5.6.4 a backslash before the end", r#"a="x\\", b"#, vec![r#"a="x\\""#, "b"]),
            ("an open quote opens nothing", r#"a="x, b"#, vec![r#"a="x"#, "b"]),
            ("open after a closed one", r#"a="1,2", b="3, c"#, vec![r#"a="1,2""#, r#"b="3"#, "c"]),
            ("a stray quote", r#"a=5", b, c=""#, vec![r#"a=5""#, "b", r#"c=""#]),
            ("two stray quotes", r#"a", b, c""#, vec![r#"a""#, "b", r#"c""#]),
            ("a stray quote behind a string", r#"a="x"", b, c="""#, vec![r#"a="x"""#, "b", r#"c="""#]),
            ("§5.6.6 a parameter", r#"a;b="x, y", c"#, vec![r#"a;b="x, y""#, "c"]),
            ("§8.8.3 tags", r#""a,b", W/"c,d", w"#, vec![r#""a,b""#, r#"W/"c,d""#, "w"]),
            ("swallowing what follows", r#"a=";b, c="x", d"#, vec![r#"a=";b"#, r#"c="x""#, "d"]),
            ("closed in the middle", r#"a="x"b="y, z", c"#, vec![r#"a="x"b="y"#, r#"z""#, "c"]),
            ("a space behind =", r#"a= "x, y", b"#, vec![r#"a= "x, y""#, "b"]),
        ] {
            assert_eq!(list(line), expected, "{clause}");
        }
    }

    #[test]
    fn a_line_is_well_quoted_where_strings_stand_as_arguments_alone() {
        for (line, well) in [
            ("", true),
            ("a, b=1", true),
            (r#"a="x, y", b"#, true),
            (r#"a="x\", y" , b="""#, true),
            (r#"a="\\""#, true),
            (r#"a=5", b, c=""#, false),
            (r#"a="x"y, b"#, false),
            (r#"a="x" y, b"#, false),
            (r#"a= "x""#, false),
            (r#""a", b"#, false),
            (r#"a="x, b"#, false),
            (r#"a="x\""#, false),
            (r#"a=""b"""#, false),
        ] {
            assert_eq!(is_well_quoted(line.as_bytes()), well, "{line}");
        }
        let read: Vec<_> = members_without_escapes(br#"a="x\", b, c=""#).collect();
        assert_eq!(read, [&br#"a="x\""#[..], b"b", br#"c=""#]);
    }

    #[test]
    fn a_quoted_string_is_read_only_when_it_is_exactly_one() {
        for (value, said) in [
            (r#""abc""#, Some("abc")),
            (r#""a\"b\\c""#, Some(r#"a"b\c"#)),
            (r#""""#, Some("")),
            ("abc", None),
            (r#"""#, None),
            (r#""abc"#, None),
            (r#""a"b""#, None),
            (r#""abc\""#, None),
        ] {
            assert_eq!(unquote(value.as_bytes()).as_deref(), said.map(str::as_bytes), "{value}");
        }
    }

    #[test]
    fn all_lines_of_a_field_are_one_list() {
        let mut headers = HeaderMap::new();
        headers.append("x", "a, b".parse().unwrap());
        headers.append("x", "C".parse().unwrap());
        let name = HeaderName::from_static("x");
        assert_eq!(all(&headers, &name).collect::<Vec<_>>(), [&b"a"[..], b"b", b"C"]);
        assert!(contains(&headers, &name, "c"));
        assert!(!contains(&headers, &name, "d"));
    }

    proptest! {
        #[test]
        fn any_bytes_give_trimmed_members_that_are_parts_of_the_line(line: Vec<u8>) {
            let mut total = 0;
            for member in members(&line) {
                prop_assert!(!member.is_empty());
                prop_assert_eq!(trim(member), member);
                total += member.len();
            }
            prop_assert!(total <= line.len());
            let _ = unquote(&line);
        }

        #[test]
        fn what_is_quoted_comes_back(said: Vec<u8>) {
            let mut quoted = vec![b'"'];
            for &byte in &said {
                if matches!(byte, b'"' | b'\\') {
                    quoted.push(b'\\');
                }
                quoted.push(byte);
            }
            quoted.push(b'"');
            prop_assert_eq!(unquote(&quoted).unwrap().into_owned(), said);
            prop_assert_eq!(members(&quoted).collect::<Vec<_>>(), [&quoted[..]]);
        }
    }
}
