//! Which fields a trailer section may hold on its way through a proxy (RFC 9110 §6.5.1).
//!
//! Knows names. Must not know: bodies, framing, who sends.

use http::{HeaderMap, HeaderName, header};

use super::{groups, hop, no_vary_search, targeted};

/// RFC 9110 §6.5.1: not for "message framing, routing, authentication, request modifiers, response controls,
/// or content format". Whoever merges trailers into the head, as many do, would take what comes at the very
/// end for what the head has said.
const FORBIDDEN: [HeaderName; 42] = [
    header::ACCEPT_RANGES,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::AGE,
    header::ALLOW,
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_LOCATION,
    header::CONTENT_RANGE,
    header::CONTENT_SECURITY_POLICY,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::DATE,
    header::EXPECT,
    header::EXPIRES,
    header::FORWARDED,
    header::HOST,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::LAST_MODIFIED,
    header::LOCATION,
    header::MAX_FORWARDS,
    header::PRAGMA,
    header::RANGE,
    header::RETRY_AFTER,
    header::SET_COOKIE,
    header::TRAILER,
    header::VARY,
    header::VIA,
    header::WWW_AUTHENTICATE,
    groups::CACHE_GROUPS,
    groups::CACHE_GROUP_INVALIDATION,
    no_vary_search::NO_VARY_SEARCH,
    targeted::CDN_CACHE_CONTROL,
    targeted::LARDER_CACHE_CONTROL,
];

/// Removes what has no place in a trailer section: it may be dropped, never merged (§6.5.1).
pub fn keep_allowed(trailers: &mut HeaderMap) {
    let forbidden: Vec<_> = trailers.keys().filter(|name| is_forbidden(name)).cloned().collect();
    for name in forbidden {
        trailers.remove(name);
    }
}

fn is_forbidden(name: &HeaderName) -> bool {
    hop::is_hop_by_hop(name) || FORBIDDEN.contains(name) || name.as_str().starts_with("x-forwarded-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn what_a_head_alone_may_say_is_dropped_and_the_rest_stays() {
        let mut trailers = HeaderMap::new();
        let names = [
            "digest",
            "etag",
            "server-timing",
            "grpc-status",
            "x-sum",
            "set-cookie",
            "cache-control",
            "content-length",
            "transfer-encoding",
            "connection",
            "trailer",
            "x-forwarded-for",
            "host",
            "authorization",
            "proxy-authenticate",
            "te",
            "location",
            "vary",
            "content-type",
            "expires",
        ];
        for name in names {
            trailers.append(HeaderName::from_static(name), HeaderValue::from_static("1"));
            trailers.append(HeaderName::from_static(name), HeaderValue::from_static("2"));
        }
        keep_allowed(&mut trailers);
        let left: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["digest", "etag", "server-timing", "grpc-status", "x-sum"]);
        assert_eq!(trailers.get_all("digest").iter().count(), 2);
    }
}
