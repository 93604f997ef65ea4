//! Whether a POST's content only reads, as far as that shows: GraphQL asks and changes by one method.
//!
//! A route that caches POST says that its POSTs read. For GraphQL that is true of queries alone, so
//! whatever may be another operation, or cannot be told, is no read; of what is no GraphQL, the route's
//! word holds. Knows how GraphQL comes over HTTP, and the outline of a document (GraphQL spec §2): one
//! pass, no recursion, any bytes in.
//! Must not know: what is done with a request that is no read.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Whether a POST's content is known not to ask for a change: of the content, its `Content-Type` and
/// `Content-Encoding`, and the URL's query, which some servers prefer.
pub fn only_reads(
    content_type: Option<&[u8]>,
    encoded: bool,
    url_query: Option<&str>,
    content: &[u8],
) -> bool {
    // What is compressed would have to be undone to be looked into.
    if encoded || !form_reads(url_query.unwrap_or_default().as_bytes()) {
        return false;
    }
    let full = content_type.unwrap_or_default().to_ascii_lowercase();
    let essence = full.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    match essence {
        b"application/graphql" => std::str::from_utf8(content).is_ok_and(document_reads),
        b"application/x-www-form-urlencoded" => form_reads(content),
        // An upload, or a GraphQL request with one.
        b"multipart/form-data" => false,
        _ if is_json(essence) || looks_like_json(content) => json_reads(content),
        _ => true,
    }
}

fn is_json(essence: &[u8]) -> bool {
    essence.ends_with(b"/json") || essence.ends_with(b"+json")
}

/// Some servers take JSON whatever its type says.
fn looks_like_json(content: &[u8]) -> bool {
    matches!(content.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// Members of a GraphQL request beside its document. Without a document, it names one that only the
/// server knows.
const BESIDE_A_DOCUMENT: [&str; 7] =
    ["operationName", "variables", "extensions", "documentId", "doc_id", "queryId", "persistedQuery"];

fn json_reads(content: &[u8]) -> bool {
    let mut json = serde_json::Deserializer::from_slice(content);
    let verdict = json.deserialize_any(Request);
    verdict.is_ok_and(|reads| reads) && json.end().is_ok()
}

/// One request, or a batch of them, or JSON that is none of GraphQL's.
struct Request;

impl<'de> Visitor<'de> for Request {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let (mut reads, mut has_document, mut beside) = (true, false, false);
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            if name == "query" {
                // Of members with one name, servers take the first or the last: all of them must read.
                // One that is no string is no document: another API's.
                match map.next_value::<Value>()? {
                    Value::String(document) => {
                        has_document = true;
                        reads &= document_reads(&document);
                    }
                    Value::Null => beside = true,
                    _ => {}
                }
            } else {
                beside |= BESIDE_A_DOCUMENT.contains(&name.as_ref());
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(reads && (has_document || !beside))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        let mut reads = true;
        while let Some(one) = list.next_element_seed(Self)? {
            reads &= one;
        }
        Ok(reads)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_str<E>(self, _: &str) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(true)
    }
}

/// A member of a batch. One in a list of its own is read all the same, to the depth that serde_json
/// allows.
impl<'de> DeserializeSeed<'de> for Request {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<bool, D::Error> {
        json.deserialize_any(self)
    }
}

/// `name=value` pairs, of a form or a URL.
fn form_reads(pairs: &[u8]) -> bool {
    let (mut has_document, mut beside) = (false, false);
    for pair in pairs.split(|byte| *byte == b'&') {
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        let name = form_decoded(parts.next().unwrap_or_default());
        match std::str::from_utf8(&name) {
            Ok("query") => {
                let value = form_decoded(parts.next().unwrap_or_default());
                if !std::str::from_utf8(&value).is_ok_and(document_reads) {
                    return false;
                }
                has_document = true;
            }
            Ok(name) => beside |= BESIDE_A_DOCUMENT.contains(&name),
            Err(_) => {}
        }
    }
    has_document || !beside
}

fn form_decoded(text: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (mut decoded, mut rest) = (Vec::with_capacity(text.len()), text);
    loop {
        rest = match rest {
            [] => return decoded,
            [b'%', high, low, after @ ..] if digit(*high).is_some() && digit(*low).is_some() => {
                decoded.push(digit(*high).unwrap_or(0) << 4 | digit(*low).unwrap_or(0));
                after
            }
            [b'+', after @ ..] => {
                decoded.push(b' ');
                after
            }
            [byte, after @ ..] => {
                decoded.push(*byte);
                after
            }
        };
    }
}

/// Whether a document holds nothing but queries and fragments, at least one of them. Not whether it is
/// valid: what it cannot be is a change.
fn document_reads(document: &str) -> bool {
    // No line ends today, but in early drafts of the language: comments would end elsewhere.
    if document.contains(['\u{2028}', '\u{2029}']) {
        return false;
    }
    let mut tokens = Tokens(document.as_bytes());
    let (mut place, mut open, mut definitions) = (Place::Between, Vec::new(), 0_usize);
    while let Some(token) = tokens.next_token() {
        let at_top = open.is_empty();
        match token {
            Token::Broken => return false,
            Token::Name(b"mutation" | b"subscription") if at_top => return false,
            Token::Name(b"query" | b"fragment") if place == Place::Between => place = Place::Within,
            Token::Open(b'{') if at_top => {
                (place, definitions) = (Place::Selection, definitions.saturating_add(1));
                open.push(b'}');
            }
            // Nothing else begins a definition that can be run.
            _ if place == Place::Between => return false,
            Token::Open(bracket) => open.push(if bracket == b'(' { b')' } else { bracket + 2 }),
            Token::Close(bracket) => {
                if open.pop() != Some(bracket) {
                    return false;
                }
                if open.is_empty() && place == Place::Selection {
                    place = Place::Between;
                }
            }
            Token::Name(_) | Token::Other => {}
        }
    }
    place == Place::Between && definitions > 0
}

/// Where in a document a token stands, as far as its top level goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the first definition, or after one.
    Between,
    /// In a definition, before its selection.
    Within,
    /// In a definition's selection.
    Selection,
}

enum Token<'a> {
    Name(&'a [u8]),
    /// `(`, `[` or `{`
    Open(u8),
    /// `)`, `]` or `}`
    Close(u8),
    /// A string, a number, or another punctuator.
    Other,
    /// Not in the language.
    Broken,
}

/// The tokens of a document (§2.1), without comments, commas and white space.
struct Tokens<'a>(&'a [u8]);

impl<'a> Tokens<'a> {
    fn next_token(&mut self) -> Option<Token<'a>> {
        loop {
            match self.0 {
                [] => return None,
                [b' ' | b'\t' | b'\r' | b'\n' | b',', rest @ ..] | [0xef, 0xbb, 0xbf, rest @ ..] => {
                    self.0 = rest;
                }
                [b'#', ..] => {
                    self.taken(|byte| !matches!(byte, b'\r' | b'\n'));
                }
                _ => return Some(self.token()),
            }
        }
    }

    fn token(&mut self) -> Token<'a> {
        let (token, rest) = match self.0 {
            [b'_' | b'a'..=b'z' | b'A'..=b'Z', ..] => {
                return Token::Name(self.taken(|byte| byte == b'_' || byte.is_ascii_alphanumeric()));
            }
            [b'-' | b'0'..=b'9', ..] => {
                self.taken(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
                return Token::Other;
            }
            [b'"', b'"', b'"', rest @ ..] => match end_of_block(rest) {
                Some(rest) => (Token::Other, rest),
                None => (Token::Broken, &[][..]),
            },
            [b'"', rest @ ..] => match end_of_string(rest) {
                Some(rest) => (Token::Other, rest),
                None => (Token::Broken, &[][..]),
            },
            [open @ (b'(' | b'[' | b'{'), rest @ ..] => (Token::Open(*open), rest),
            [close @ (b')' | b']' | b'}'), rest @ ..] => (Token::Close(*close), rest),
            [b'!' | b'$' | b'&' | b':' | b'=' | b'@' | b'|' | b'.', rest @ ..] => (Token::Other, rest),
            [_, rest @ ..] => (Token::Broken, rest),
            [] => (Token::Broken, &[][..]),
        };
        self.0 = rest;
        token
    }

    fn taken(&mut self, of_it: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.0.iter().position(|byte| !of_it(*byte)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at_checked(end).unwrap_or((self.0, &[]));
        self.0 = rest;
        taken
    }
}

/// What follows a string (§2.9.4), whose first quote is gone.
fn end_of_string(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        text = match text {
            [b'"', rest @ ..] => return Some(rest),
            [] | [b'\r' | b'\n', ..] | [b'\\', b'\r' | b'\n', ..] => return None,
            [b'\\', _, rest @ ..] | [_, rest @ ..] => rest,
        };
    }
}

/// What follows a block string, whose first three quotes are gone.
fn end_of_block(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        text = match text {
            [] => return None,
            [b'"', b'"', b'"', rest @ ..] => return Some(rest),
            [b'\\', b'"', b'"', b'"', rest @ ..] | [_, rest @ ..] => rest,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn documents_of_queries_and_fragments_read_and_no_others() {
        for document in [
            "{ a }",
            "query { a }",
            "query Name($id: [ID!]! = [\"}\"], $o: In = {x: 1}) @live(a: {b: 2}) { a(id: $id) { b ...F } }",
            "fragment F on T { x } query { ...F }",
            "query A { a } query B { b }, {c}",
            "\u{feff}# mutation { x }\n{ a }",
            "{ a(text: \"mutation { x }\") }",
            "{ a(text: \"\"\"} mutation { \\\"\"\" x }\"\"\") }",
            "{ a(text: \"\\\"} mutation { x }\", n: -1.5e+3) }",
            "{ mutation { subscription } }",
            "query ($mutation: T) { a }",
            "{ é: a }".replace('é', "e").as_str(),
            "{ a(x: \"é\") } # é",
        ] {
            assert!(document_reads(document), "{document}");
        }
        for document in [
            "",
            " # only this",
            "mutation { a }",
            "subscription { a }",
            "query { a } mutation { b }",
            "{ a }mutation M { b }",
            "fragment F on T { x } mutation { ...F }",
            "# query\nmutation { a }",
            "# query\rmutation { a }",
            "# query\u{2028}{ a }",
            "{ a(text: \"\"\"x\"\"\") } mutation { b }",
            // A query by this name is one that cannot be told at a glance; nobody misses it.
            "query mutation { a }",
            "query { a",
            "{ a } }",
            "{ a(x: [1) }",
            "query",
            "query Q",
            "query Q($x: In = {a: 1})",
            "{ a(text: \"open) }",
            "{ a(text: \"line\n\") }",
            "{ a(text: \"\"\"open\") }",
            "{ é }",
            "{ a; b }",
            "extend type T { a: Int }",
            "type T { a: Int }",
            "INSERT INTO t VALUES (1)",
            "red shoes",
            "query { a } trailing",
        ] {
            assert!(!document_reads(document), "{document}");
        }
    }

    fn json(text: &str) -> bool {
        only_reads(Some(b"application/json"), false, None, text.as_bytes())
    }

    #[test]
    fn json_reads_where_each_document_in_it_does() {
        for text in [
            r#"{"query": "{ a }"}"#,
            r#"{"query": "query($x: T) { a }", "variables": {"x": "mutation"}, "operationName": null}"#,
            r#"{"extensions": {"persistedQuery": {}}, "query": "{ a }"}"#,
            r#"[{"query": "{ a }"}, {"query": "{ b }"}]"#,
            // Not GraphQL: the route's word holds.
            r#"{"query": {"match": {"a": 1}}, "size": 10}"#,
            r#"{"ids": [1, 2], "filter": "mutation { x }"}"#,
            "[1, 2.5, -3, \"mutation\", null, true]",
            "7",
        ] {
            assert!(json(text), "{text}");
        }
        for text in [
            r#"{"query": "mutation { a }"}"#,
            r#"{"qu\u0065ry": "mutation { a }"}"#,
            r#"{"query": "{ a }", "query": "mutation { a }"}"#,
            r#"{"query": "mutation { a }", "query": "{ a }"}"#,
            r#"{"query": "mut\u0061tion { a }"}"#,
            r#"{"query": "subscription { a }"}"#,
            r#"{"query": "INSERT INTO t VALUES (1)"}"#,
            r#"{"query": ""}"#,
            // Persisted: only the server knows what is meant.
            r#"{"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "ab"}}}"#,
            r#"{"query": null, "documentId": "ab"}"#,
            r#"{"id": "ab", "variables": {}}"#,
            r#"{"operationName": "AddUser"}"#,
            r#"[{"query": "{ a }"}, {"query": "mutation { b }"}]"#,
            r#"[{"query": "{ a }"}, [{"query": "mutation { b }"}]]"#,
            r#"[{"query": "{ a }"}, {"variables": {}}]"#,
            "",
            "{",
            r#"{"query": "{ a }"} {"query": "mutation { a }"}"#,
            "not json",
        ] {
            assert!(!json(text), "{text}");
        }
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        assert!(!json(&deep), "deeper than anybody reads");
    }

    #[test]
    fn where_a_document_may_stand_depends_on_the_type() {
        let (query, change) = (&b"{ a }"[..], &b"mutation { a }"[..]);
        let json = &br#"{"query": "mutation { a }"}"#[..];
        for (content_type, encoded, url, content, expected) in [
            ("application/graphql", false, None, query, true),
            ("Application/GraphQL; charset=utf-8", false, None, change, false),
            ("application/graphql", false, None, &b"{ \xff }"[..], false),
            ("application/graphql+json", false, None, json, false),
            ("application/vnd.x+json;v=1", false, None, json, false),
            ("text/plain", false, None, json, false),
            ("", false, None, &b" \n[{\"query\": \"mutation { a }\"}]"[..], false),
            ("application/x-www-form-urlencoded", false, None, &b"query=mutation+%7B+a+%7d"[..], false),
            (
                "application/x-www-form-urlencoded",
                false,
                None,
                &b"x=1&query=%7B+a+%7d&variables=%7b%7d"[..],
                true,
            ),
            ("application/x-www-form-urlencoded", false, None, &b"%71uery=mutation{a}"[..], false),
            ("application/x-www-form-urlencoded", false, None, &b"variables=%7b%7d"[..], false),
            ("application/x-www-form-urlencoded", false, None, &b"q=red+shoes"[..], true),
            ("multipart/form-data; boundary=x", false, None, &b""[..], false),
            ("application/xml", false, None, &b"<search/>"[..], true),
            ("application/dns-message", false, None, &b"\0\x01"[..], true),
            ("", false, None, &b""[..], true),
            ("application/xml", true, None, &b"\x1f\x8b"[..], false),
            // Some servers prefer the URL's own.
            ("application/graphql", false, Some("query=mutation%20%7Ba%7D"), query, false),
            ("application/graphql", false, Some("query={a}&x"), query, true),
            ("application/graphql", false, Some("extensions=%7B%7D"), query, false),
            ("application/xml", false, Some("page=2"), &b"<search/>"[..], true),
        ] {
            let seen = only_reads(Some(content_type.as_bytes()), encoded, url, content);
            assert_eq!(seen, expected, "{content_type} {url:?} {:?}", String::from_utf8_lossy(content));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(content: Vec<u8>, content_type: Option<Vec<u8>>, query: Option<String>) {
            let _ = only_reads(content_type.as_deref(), false, query.as_deref(), &content);
            let _ = document_reads(&String::from_utf8_lossy(&content));
            let _ = json_reads(&content);
        }

        /// However a document is made up of pieces of the language: one that has an operation which
        /// changes something, at its top level, is never taken for a read.
        #[test]
        fn no_change_is_hidden_by_what_stands_around_it(
            before in prop::collection::vec(definition(), 0..4),
            after in prop::collection::vec(definition(), 0..4),
            gap in prop::sample::select(vec!["", " ", ",", "\n", "#c\n", "\u{feff}"]),
            operation in prop::sample::select(vec!["mutation", "subscription"]),
        ) {
            let around = |change: &str| {
                let parts = before.iter().map(String::as_str).chain([change]).chain(after.iter().map(String::as_str));
                parts.collect::<Vec<_>>().join(gap)
            };
            let change = around(&format!("{operation} M {{ a }}"));
            prop_assert!(!document_reads(&change), "{}", change);
            prop_assert!(document_reads(&around("{ z }")), "{}", around("{ z }"));
        }
    }

    fn definition() -> impl Strategy<Value = String> {
        let value = prop::sample::select(vec![
            "1",
            "\"}\"",
            "\"\\\"{\"",
            "\"\"\"}\"{\\\"\"\"\"\"\"",
            "[\"]\"]",
            "{a: \"}\"}",
            "$v",
            "\"#\"",
            "null",
        ]);
        (value, 0..3).prop_map(|(value, kind)| match kind {
            0 => format!("query Q($v: T = {value}) @d(x: {value}) {{ a(x: {value}) {{ mutation }} }}"),
            1 => format!("{{ a(x: {value}) #}}\n }}"),
            _ => format!("fragment F on T {{ subscription(x: {value}) }}"),
        })
    }
}
