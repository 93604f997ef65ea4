//! Which of the fields that decide about a request it has.
//!
//! To look one up in a map takes as long as to go over the names of an ordinary request, and some twenty are asked
//! for: so the names are gone over once. Knows names. Must not know: what a field says, or what follows from it.

use http::HeaderMap;

/// A set of fields, each by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Present(u32);

impl Present {
    /// `Authorization`
    pub const AUTHORIZATION: Self = Self(1);
    /// `Cache-Control` and `Pragma`
    pub const CACHE_CONTROL: Self = Self(1 << 1);
    /// `Connection`
    pub const CONNECTION: Self = Self(1 << 2);
    /// `Content-Length`
    pub const CONTENT_LENGTH: Self = Self(1 << 3);
    /// `Cookie`
    pub const COOKIE: Self = Self(1 << 4);
    /// `Expect`
    pub const EXPECT: Self = Self(1 << 5);
    /// The conditions by which a client says what it holds already: `If-None-Match`, `If-Modified-Since`.
    pub const HOLDING: Self = Self(1 << 6);
    /// The conditions on what is there: `If-Match`, `If-Unmodified-Since`.
    pub const PRECONDITION: Self = Self(1 << 7);
    /// `Range`
    pub const RANGE: Self = Self(1 << 8);
    /// `TE`
    pub const TE: Self = Self(1 << 9);
    /// `Via`
    pub const VIA: Self = Self(1 << 10);
    /// One whose name has to be looked at more closely: those above, and those that nearly every request has, claim
    /// nothing by their names ([`told`](super::claims::told)), and are not written in two ways.
    pub const OTHER: Self = Self(1 << 11);

    /// Those of a message.
    pub fn of(headers: &HeaderMap) -> Self {
        Self(headers.keys().fold(0, |all, name| all | Self::named(name.as_str()).0))
    }

    /// What a field of this name is here; `name` is in lower case.
    pub fn named(name: &str) -> Self {
        // By length first, since most names share theirs with one or two of these.
        match (name.len(), name) {
            (2, "te") => Self::TE,
            (3, "via") => Self::VIA,
            (3, "dnt") | (4, "host") | (6, "accept" | "origin") | (7, "referer") => Self::default(),
            (5, "range") => Self::RANGE,
            // Of no field, but what `Connection` says most.
            (5, "close") | (10, "keep-alive") => Self::default(),
            (6, "cookie") => Self::COOKIE,
            (6, "expect") => Self::EXPECT,
            (6, "pragma") | (13, "cache-control") => Self::CACHE_CONTROL,
            (8, "if-match") | (19, "if-unmodified-since") => Self::PRECONDITION,
            (8, "if-range" | "priority") | (9, "sec-ch-ua") | (10, "user-agent") => Self::default(),
            (10, "connection") => Self::CONNECTION,
            (11, "traceparent") | (12, "content-type" | "x-request-id") => Self::default(),
            (13, "authorization") => Self::AUTHORIZATION,
            (13, "if-none-match") | (17, "if-modified-since") => Self::HOLDING,
            (14, "content-length") => Self::CONTENT_LENGTH,
            (14, "sec-fetch-site" | "sec-fetch-mode" | "sec-fetch-dest" | "sec-fetch-user") => {
                Self::default()
            }
            (15, "accept-encoding" | "accept-language") | (16, "sec-ch-ua-mobile") => Self::default(),
            (18, "sec-ch-ua-platform") | (25, "upgrade-insecure-requests") => Self::default(),
            _ => Self::OTHER,
        }
    }

    /// Whether one of these is among them.
    pub const fn has(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::super::{claims, hop, names::NAMES};
    use super::*;

    const KNOWN: [(&str, Present); 37] = [
        ("te", Present::TE),
        ("via", Present::VIA),
        ("dnt", Present(0)),
        ("host", Present(0)),
        ("accept", Present(0)),
        ("origin", Present(0)),
        ("referer", Present(0)),
        ("range", Present::RANGE),
        ("close", Present(0)),
        ("keep-alive", Present(0)),
        ("cookie", Present::COOKIE),
        ("expect", Present::EXPECT),
        ("pragma", Present::CACHE_CONTROL),
        ("cache-control", Present::CACHE_CONTROL),
        ("if-match", Present::PRECONDITION),
        ("if-unmodified-since", Present::PRECONDITION),
        ("if-range", Present(0)),
        ("priority", Present(0)),
        ("sec-ch-ua", Present(0)),
        ("user-agent", Present(0)),
        ("connection", Present::CONNECTION),
        ("traceparent", Present(0)),
        ("content-type", Present(0)),
        ("x-request-id", Present(0)),
        ("authorization", Present::AUTHORIZATION),
        ("if-none-match", Present::HOLDING),
        ("if-modified-since", Present::HOLDING),
        ("content-length", Present::CONTENT_LENGTH),
        ("sec-fetch-site", Present(0)),
        ("sec-fetch-mode", Present(0)),
        ("sec-fetch-dest", Present(0)),
        ("sec-fetch-user", Present(0)),
        ("sec-ch-ua-mobile", Present(0)),
        ("accept-encoding", Present(0)),
        ("accept-language", Present(0)),
        ("sec-ch-ua-platform", Present(0)),
        ("upgrade-insecure-requests", Present(0)),
    ];

    #[test]
    fn each_field_is_found_by_its_name_and_all_others_are_other() {
        for (name, found) in KNOWN {
            assert_eq!(Present::named(name), found, "{name}");
        }
        for name in ["", "t", "x-te", "vib", "if-none-watch", "hosts", "content-lengths", "larder-debug"] {
            assert_eq!(Present::named(name), Present::OTHER, "{name}");
        }
        let names = ["via", "x-a", "accept"].map(HeaderName::from_static);
        let map: HeaderMap = names.map(|name| (name, HeaderValue::from_static(""))).into_iter().collect();
        let seen = Present::of(&map);
        assert!(seen.has(Present::VIA) && seen.has(Present::OTHER) && !seen.has(Present::RANGE));
    }

    /// Else a name would be believed that nobody has looked at.
    #[test]
    fn what_is_not_other_claims_nothing_by_its_name() {
        for (name, _) in KNOWN {
            assert_eq!(claims::told(name), claims::Told::default(), "{name}");
            assert!(!hop::is_disguised(&HeaderName::from_static(name)), "{name}");
        }
        for (row, _) in NAMES.iter() {
            for name in [row.trim_end_matches('*').to_owned(), row.replace('*', "x"), format!("x-{row}")] {
                assert!(Present::named(&name).has(Present::OTHER), "{name}");
            }
        }
    }
}
