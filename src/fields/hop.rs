//! Fields that concern one connection, and `Via` (RFC 9110 §7.6).
//!
//! Knows which fields a proxy must not pass on, what asks for an upgrade, and how a proxy leaves
//! its name. Must not know: routes, `X-Forwarded-*`, who the peers are.

use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AGE, AUTHORIZATION, CACHE_CONTROL, CONNECTION,
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, COOKIE, DATE, ETAG, EXPIRES, HOST,
    IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, ORIGIN, PRAGMA,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE, REFERER, SET_COOKIE, TE, TRANSFER_ENCODING, UPGRADE,
    USER_AGENT, VARY, VIA, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::present::Present;
use super::{claims, groups, list, no_vary_search, tags, targeted};

/// Removed from every message, whether `Connection` names them or not.
const HOP_BY_HOP: [HeaderName; 11] = [
    CONNECTION,
    // §7.6.1: "Proxy-Connection, Keep-Alive, TE, Transfer-Encoding, Upgrade".
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    // §11.7: these are between one client and its next proxy; RFC 9111 §3.1: never stored.
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-authentication-info"),
    // No field at all, but CGI programs find it as HTTP_PROXY and send their own requests through it.
    HeaderName::from_static("proxy"),
    // RFC 7540 §3.2.1, of an upgrade that is not served.
    HeaderName::from_static("http2-settings"),
];

/// What `Connection` has no power over. §7.6.1: "A sender MUST NOT send a connection option
/// corresponding to a field that is intended for all recipients of the content. For example,
/// Cache-Control is never appropriate". A peer that does so anyway could make a private response
/// look public, or a request lose its credentials on the way.
const END_TO_END: [HeaderName; 37] = [
    // What the cache goes by.
    groups::CACHE_GROUPS,
    groups::CACHE_GROUP_INVALIDATION,
    no_vary_search::NO_VARY_SEARCH,
    tags::SURROGATE_KEY,
    tags::XKEY,
    tags::CACHE_TAG,
    targeted::CDN_CACHE_CONTROL,
    targeted::LARDER_CACHE_CONTROL,
    AGE,
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    COOKIE,
    DATE,
    ETAG,
    EXPIRES,
    HOST,
    LAST_MODIFIED,
    RANGE,
    SET_COOKIE,
    VARY,
    VIA,
    // What origins choose an answer by, or whether to give one.
    ACCEPT,
    ACCEPT_ENCODING,
    ACCEPT_LANGUAGE,
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    ORIGIN,
    REFERER,
    USER_AGENT,
    PRAGMA,
];

/// Removes what concerns the connection the message came on: `Connection` and what it names,
/// and the fields of old that it ought to name.
///
/// `TE` goes too: whoever can take trailers says so anew. `Trailer` stays, in requests as in
/// responses: it describes the message, and tells what was lost where a trailer section is
/// dropped (§6.6.2).
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    for name in connection_options(headers) {
        headers.remove(name);
    }
    // Most messages have none; to look each up would take many times as long.
    if headers.keys().any(is_hop_by_hop) {
        for name in HOP_BY_HOP {
            headers.remove(name);
        }
    }
}

/// Whether [`remove_hop_by_hop`] removes a field of this name from every message.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    // By its text: each field of each message comes here, and a list of names would be gone through for each.
    matches!(
        name.as_str(),
        "connection"
            | "proxy-connection"
            | "keep-alive"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-authentication-info"
            | "proxy"
            | "http2-settings"
    )
}

/// The fields that `Connection` names and may name.
pub fn connection_options(headers: &HeaderMap) -> Vec<HeaderName> {
    list::all(headers, &CONNECTION)
        .filter_map(|member| HeaderName::from_bytes(member).ok())
        .filter(|name| !is_end_to_end(name))
        .collect()
}

/// Whether `Connection` has no power over a field of this name: also what says of the client who it is,
/// so that nobody takes that away from behind a proxy that has said it.
pub fn is_end_to_end(name: &HeaderName) -> bool {
    let may_claim = Present::named(name.as_str()).has(Present::OTHER);
    END_TO_END.contains(name) || (may_claim && claims::claim(name.as_str()).is_some())
}

/// Whether a name is written with `_` or `.` in place of `-` and would be taken for that of a field that means
/// something here, by servers that tell these no more from a `-`: `Transfer_Encoding`, `Content.Length`.
pub fn is_disguised(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.bytes().any(|byte| byte == b'_' || byte == b'.')
        && HeaderName::from_bytes(claims::dashed(name).as_bytes())
            .is_ok_and(|name| HOP_BY_HOP.contains(&name) || END_TO_END.contains(&name))
}

/// What the message asks to upgrade to (§7.8): `Upgrade`, where `Connection` lists it.
pub fn is_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(UPGRADE)?;
    list::contains(headers, &CONNECTION, "upgrade").then(|| value.clone())
}

/// Whether the message logs its connection in, or asks for that: schemes by which who is logged in is a
/// property of the connection (RFC 4559 §5 forbids to share such a one; NTLM does the same).
pub fn binds_the_connection(headers: &HeaderMap) -> bool {
    let words = [AUTHORIZATION, WWW_AUTHENTICATE];
    // Hardly any message has one of them.
    let there = words.iter().filter(|name| headers.contains_key(*name));
    there.flat_map(|name| list::all(headers, name)).any(|member| {
        let scheme = member.split(|byte| *byte == b' ').next().unwrap_or_default();
        scheme.eq_ignore_ascii_case(b"negotiate") || scheme.eq_ignore_ascii_case(b"ntlm")
    })
}

/// Whether a proxy of this pseudonym has passed the message on (§7.6.3).
pub fn via_contains(headers: &HeaderMap, pseudonym: &str) -> bool {
    headers.get_all(VIA).iter().any(|line| via_names(line.as_bytes(), pseudonym.as_bytes()))
}

/// Adds this proxy after those that passed the message on before (§7.6.3).
///
/// `version` is that of the message received. A pseudonym that is no field content adds nothing.
pub fn append_via(headers: &mut HeaderMap, version: Version, pseudonym: &str) {
    if let Some(value) = via(version, pseudonym) {
        headers.append(VIA, value);
    }
}

/// What a proxy of this pseudonym adds to `Via` of a message of this version (§7.6.3).
pub fn via(version: Version, pseudonym: &str) -> Option<HeaderValue> {
    let protocol = match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    };
    HeaderValue::from_str(&format!("{protocol} {pseudonym}")).ok()
}

/// `received-protocol RWS received-by [ RWS comment ]`; commas inside comments do not divide.
fn via_names(line: &[u8], pseudonym: &[u8]) -> bool {
    let mut depth = 0_usize;
    let mut escaped = false;
    let members = line.split(move |&byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if depth > 0 => escaped = true,
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b',' => return depth == 0,
            _ => {}
        }
        false
    });
    members.into_iter().any(|member| {
        let mut words = member.split(|b| matches!(b, b' ' | b'\t')).filter(|word| !word.is_empty());
        words.nth(1).is_some_and(|by| by.eq_ignore_ascii_case(pseudonym))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let pairs = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap()));
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append::<HeaderName>(name, value);
        }
        map
    }

    #[test]
    fn what_is_removed_from_every_message_is_what_is_known_to_be() {
        assert!(HOP_BY_HOP.iter().all(is_hop_by_hop));
        let others =
            ["host", "trailer", "upgrade-insecure-requests", "keep-alive-for", "proxy-status", "tea"];
        assert!(!END_TO_END.iter().chain(&others.map(HeaderName::from_static)).any(is_hop_by_hop));
    }

    #[test]
    fn connection_fields_and_what_they_name_are_removed() {
        for (clause, fields, left) in [
            (
                "§7.6.1 named",
                &[("connection", "X-One, x-two"), ("x-one", "1"), ("x-two", "2"), ("x-three", "3")][..],
                vec!["x-three"],
            ),
            (
                "§7.6.1 several lines",
                &[("connection", "a"), ("connection", "close, b"), ("a", "1"), ("b", "2")],
                vec![],
            ),
            (
                "§7.6.1 unnamed",
                &[
                    ("keep-alive", "1"),
                    ("proxy-connection", "x"),
                    ("te", "gzip"),
                    ("transfer-encoding", "chunked"),
                    ("upgrade", "h2c"),
                ],
                vec![],
            ),
            (
                "§11.7",
                &[
                    ("proxy-authenticate", "x"),
                    ("proxy-authorization", "x"),
                    ("proxy-authentication-info", "x"),
                ],
                vec![],
            ),
            ("§6.6.2", &[("trailer", "digest")], vec!["trailer"]),
            (
                "§7.6.1 never appropriate",
                &[
                    ("connection", "cache-control, set-cookie, host, authorization"),
                    ("cache-control", "private"),
                    ("set-cookie", "a"),
                    ("host", "h"),
                    ("authorization", "x"),
                ],
                vec!["authorization", "cache-control", "host", "set-cookie"],
            ),
            ("garbage names nothing", &[("connection", "a b, \"x\", ,@"), ("x", "1")], vec!["x"]),
        ] {
            let mut map = headers(fields);
            remove_hop_by_hop(&mut map);
            let mut names: Vec<_> = map.keys().map(HeaderName::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, left, "{clause}");
        }
    }

    #[test]
    fn an_upgrade_needs_both_fields() {
        let both = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(is_upgrade(&both).unwrap(), "websocket");
        assert_eq!(is_upgrade(&headers(&[("upgrade", "websocket")])), None);
        assert_eq!(is_upgrade(&headers(&[("connection", "upgrade")])), None);
    }

    #[test]
    fn a_proxy_finds_its_own_name_in_via() {
        for (clause, via, found) in [
            ("§7.6.3 alone", "1.1 larder", true),
            ("§7.6.3 with a protocol name", "HTTP/1.1 larder", true),
            ("§7.6.3 in any case", "1.1 LARDER", true),
            ("§7.6.3 later", "1.0 fred, 1.1 larder (Larder)", true),
            ("§7.6.3 another", "1.1 larder2", false),
            ("§7.6.3 as a host", "1.1 larder:80", false),
            ("§5.6.5 in a comment", "1.1 fred (was, 1.1 larder)", false),
            ("§5.6.5 a quoted bracket", r"1.1 fred (\), 1.1 larder)", false),
            ("§7.6.3 as protocol", "larder fred", false),
        ] {
            assert_eq!(via_contains(&headers(&[("via", via)]), "larder"), found, "{clause}: {via}");
        }
    }

    #[test]
    fn via_is_added_after_those_before() {
        let mut map = headers(&[("via", "1.0 fred")]);
        append_via(&mut map, Version::HTTP_11, "larder");
        append_via(&mut map, Version::HTTP_2, "larder");
        let lines: Vec<_> = map.get_all(VIA).iter().collect();
        assert_eq!(lines, ["1.0 fred", "1.1 larder", "2 larder"]);
        assert!(via_contains(&map, "larder"));
    }

    proptest! {
        #[test]
        fn any_lines_are_read(connection: Vec<u8>, via: Vec<u8>) {
            let mut map = HeaderMap::new();
            for (name, value) in [(CONNECTION, connection), (VIA, via)] {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    map.append(name, value);
                }
            }
            let _ = via_contains(&map, "larder");
            append_via(&mut map, Version::HTTP_11, "larder");
            remove_hop_by_hop(&mut map);
            prop_assert!(!map.contains_key(CONNECTION) && map.contains_key(VIA));
        }
    }

    #[test]
    fn a_name_in_other_signs_is_a_disguise_of_what_means_something_here() {
        for (name, disguised) in [
            ("transfer_encoding", true),
            ("transfer.encoding", true),
            ("content_length", true),
            ("content.length", true),
            ("transfer-encoding", false),
            ("x_own", false),
            ("x.own", false),
        ] {
            assert_eq!(is_disguised(&HeaderName::from_static(name)), disguised, "{name}");
        }
    }
}
