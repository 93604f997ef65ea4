//! `No-Vary-Search` (draft-ietf-httpbis-no-vary-search): which parts of a query choose a response.
//!
//! Knows the field's syntax and the one form that all queries have which mean the same under it. A
//! field that is malformed, or breaks a rule of the draft, says nothing: "fewer cache hits, which is
//! an acceptable fallback".
//! Must not know: URLs, keys, or where a response is sought.

use std::borrow::Cow;

use form_urlencoded::Serializer;
use http::{HeaderMap, HeaderName};

use super::structured::{Bare, Dictionary, Member};

/// `No-Vary-Search`
pub const NO_VARY_SEARCH: HeaderName = HeaderName::from_static("no-vary-search");

/// A URL search variance other than the default one (§4): some queries mean the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoVarySearch {
    params: Params,
    /// The order of arguments of different names does not count.
    any_order: bool,
}

/// Which arguments count; decoded names, sorted, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Params {
    /// All but these.
    But(Box<[Box<str>]>),
    /// None but these.
    Only(Box<[Box<str>]>),
}

impl NoVarySearch {
    /// From all lines of the field; `None` = the default: everything in the query counts, as written
    /// (§5.1, "parse a URL search variance").
    pub fn parse(headers: &HeaderMap) -> Option<Self> {
        let said = Dictionary::parse(headers, &NO_VARY_SEARCH)?;
        let any_order = said.get("key-order").map_or(Some(false), boolean)?;
        let params = match (said.get("params"), said.get("except")) {
            (Some(Member::Item(Bare::Boolean(true))), except) => {
                Params::Only(except.map_or(Some(Box::default()), names)?)
            }
            // "If value["params"] is not true, then return the default".
            (_, Some(_)) => return None,
            (None | Some(Member::Item(Bare::Boolean(false))), None) => Params::But(Box::default()),
            (Some(list), None) => Params::But(names(list)?),
        };
        let default = !any_order && params == Params::But(Box::default());
        (!default).then_some(Self { params, any_order })
    }

    /// The query in the one form that all its equivalents have (§6, "comparing"): arguments that do
    /// not count left out, decoded and encoded anew, in order of their names where order does not
    /// count. Idempotent; empty where nothing counts, as where there is no query.
    pub fn canonical(&self, query: &str) -> String {
        let pairs = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| self.counts(name));
        let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = pairs.collect();
        if self.any_order {
            // Stable: arguments of one name keep their order.
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
        }
        Serializer::new(String::with_capacity(query.len())).extend_pairs(pairs).finish()
    }

    /// Whether the response for one query answers the other (§6).
    pub fn same(&self, one: &str, other: &str) -> bool {
        one == other || self.canonical(one) == self.canonical(other)
    }

    /// Bytes on the heap.
    pub fn heap(&self) -> usize {
        let (Params::But(names) | Params::Only(names)) = &self.params;
        names.iter().map(|name| name.len() + size_of::<Box<str>>()).sum()
    }

    fn counts(&self, name: &str) -> bool {
        let among = |names: &[Box<str>]| names.binary_search_by(|known| (**known).cmp(name)).is_ok();
        match &self.params {
            Params::But(names) => !among(names),
            Params::Only(names) => among(names),
        }
    }
}

fn boolean(member: &Member) -> Option<bool> {
    match member {
        Member::Item(Bare::Boolean(boolean)) => Some(*boolean),
        _ => None,
    }
}

/// An inner list of Strings, each decoded as the name of an argument.
fn names(member: &Member) -> Option<Box<[Box<str>]>> {
    let Member::Inner(items) = member else { return None };
    let mut names = items.iter().map(name).collect::<Option<Vec<_>>>()?;
    names.sort_unstable();
    names.dedup();
    Some(names.into())
}

/// "Parse a key": `+` is a space, then percent-decoding, then UTF-8, as in a query. The two bytes
/// that would divide a query are no special ones here.
fn name(item: &Bare) -> Option<Box<str>> {
    let Bare::String(text) = item else { return None };
    let text = text.replace('&', "%26").replace('=', "%3D");
    let name = form_urlencoded::parse(text.as_bytes()).next().map(|(name, _)| name.into());
    Some(name.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn said(lines: &[&str]) -> Option<NoVarySearch> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(NO_VARY_SEARCH, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        NoVarySearch::parse(&headers)
    }

    fn rule(params: Params, any_order: bool) -> Option<NoVarySearch> {
        Some(NoVarySearch { params, any_order })
    }

    fn texts(names: &[&str]) -> Box<[Box<str>]> {
        names.iter().map(|name| Box::from(*name)).collect()
    }

    #[test]
    fn what_the_draft_lists_is_read_as_it_says() {
        let (but, only) = (|n: &[&str]| Params::But(texts(n)), |n: &[&str]| Params::Only(texts(n)));
        for (line, expected) in [
            ("params", rule(only(&[]), false)),
            ("params=?1", rule(only(&[]), false)),
            ("params=(\"a\")", rule(but(&["a"]), false)),
            ("params=(\"b\" \"a\" \"b\")", rule(but(&["a", "b"]), false)),
            ("params, except=(\"x\")", rule(only(&["x"]), false)),
            ("params, except=()", rule(only(&[]), false)),
            ("params, key-order, except=(\"x\")", rule(only(&["x"]), true)),
            ("key-order", rule(but(&[]), true)),
            ("key-order=?1", rule(but(&[]), true)),
            ("key-order;x=1, params=(\"a\";y);z", rule(but(&["a"]), true)),
            ("params=(\"%C3%A9+%E6%B0%97\")", rule(but(&["é 気"]), false)),
            ("params=(\"a&b=c\" \"\")", rule(but(&["", "a&b=c"]), false)),
            // The default, said in other words.
            ("", None),
            ("params=?0", None),
            ("params=()", None),
            ("key-order=?0", None),
            ("unknown-key", None),
            // Invalid, and so the default.
            ("key-order=\"no\"", None),
            ("key-order, params=\"no\"", None),
            ("key-order, params=(token)", None),
            ("key-order, params=1", None),
            ("params=(\"a\"), except=(\"x\")", None),
            ("params=(), except=()", None),
            ("params=?0, except=(\"x\")", None),
            ("params, except=(token)", None),
            ("params, except=\"x\"", None),
            ("params, except=?1", None),
            ("except=(\"x\")", None),
            ("key-order, except=()", None),
            ("key-order, params=(\"a\"", None),
        ] {
            assert_eq!(said(&[line]), expected, "{line}");
        }
        assert_eq!(said(&["key-order", "params"]), said(&["key-order, params"]), "9651 §4.2");
        assert_eq!(said(&["params, params=(\"a\")"]), said(&["params=(\"a\")"]), "9651 §4.2.2");
    }

    #[test]
    fn queries_have_one_form() {
        for (line, query, expected) in [
            ("key-order", "", ""),
            ("key-order", "b=1&a=2", "a=2&b=1"),
            ("key-order", "a=2&a=1", "a=2&a=1"),
            ("key-order", "%61=%78", "a=x"),
            ("key-order", "a=%c3%A9", "a=%C3%A9"),
            ("key-order", "a=%f6", "a=%EF%BF%BD"),
            ("key-order", "a=x&&&&", "a=x"),
            ("key-order", "a", "a="),
            ("key-order", "a=b=c", "a=b%3Dc"),
            ("key-order", "a=+", "a=+"),
            ("key-order", "a=%20", "a=+"),
            ("key-order", "a=%2B%26", "a=%2B%26"),
            ("params=(\"x\")", "b=1&x=2&a=3&%78=4", "b=1&a=3"),
            ("params=(\"é 気\")", "%C3%A9+%E6%B0%97=4&a", "a="),
            ("params", "b=1&x=2", ""),
            ("params, except=(\"b\")", "b=1&x=2&b=3", "b=1&b=3"),
            ("params, except=(\"b\" \"a\"), key-order", "b=1&x=2&a=3", "a=3&b=1"),
        ] {
            // A String holds ASCII only (RFC 9651 §3.3.3).
            let line = line.replace("é 気", "%C3%A9+%E6%B0%97");
            assert_eq!(said(&[&line]).unwrap().canonical(query), expected, "{line}: {query}");
        }
    }

    #[test]
    fn what_differs_in_what_counts_differs() {
        for (line, one, other, same) in [
            ("key-order", "a=1&b=2", "b=2&a=1", true),
            ("key-order", "a=1&a=2", "a=2&a=1", false),
            ("params=(\"x\")", "a=1&b=2", "b=2&a=1", false),
            ("params=(\"x\")", "a=1&x=2", "x=3&a=1", true),
            ("params=(\"x\")", "a=1", "A=1", false),
            ("params, except=(\"a\")", "a=1&x", "a=1&y", true),
            ("params, except=(\"a\")", "a=1", "", false),
        ] {
            assert_eq!(said(&[line]).unwrap().same(one, other), same, "{line}: {one} {other}");
        }
    }

    fn any_rule() -> impl Strategy<Value = NoVarySearch> {
        let names = prop::collection::vec("[abx]{0,2}", 0..4).prop_map(|names| {
            let mut names: Vec<Box<str>> = names.into_iter().map(Into::into).collect();
            names.sort_unstable();
            names.dedup();
            names.into_boxed_slice()
        });
        let params = (names, any::<bool>())
            .prop_map(|(names, only)| if only { Params::Only(names) } else { Params::But(names) });
        (params, any::<bool>()).prop_map(|(params, any_order)| NoVarySearch { params, any_order })
    }

    proptest! {
        #[test]
        fn the_one_form_has_itself(rule in any_rule(), query in "[abx=&+%0-9é]{0,30}") {
            let once = rule.canonical(&query);
            prop_assert_eq!(rule.canonical(&once), once.clone());
            prop_assert!(rule.same(&query, &once));
        }

        #[test]
        fn any_line_is_read(line in "[ -~]{0,60}", query in "\\PC{0,30}") {
            if let Some(rule) = said(&[&line]) {
                let _ = rule.canonical(&query);
            }
        }
    }
}
