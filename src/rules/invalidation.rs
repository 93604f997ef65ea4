//! What an unsafe request makes invalid (RFC 9111 §4.4).
//!
//! Knows URLs as far as that needs: resolving a reference (RFC 3986 §5.2) and comparing origins.
//! Must not know: keys, tiers, how anything is removed.

use http::header::{CONTENT_LOCATION, LOCATION};
use http::{HeaderMap, Method};

use super::facts::is_safe;
use crate::fields::path;

/// Whether this response to this method makes stored responses invalid: an unsafe or unknown
/// method, and a "non-error" status, 2xx or 3xx.
pub fn invalidates(method: &Method, status: u16) -> bool {
    !is_safe(method) && (200..400).contains(&status)
}

/// The absolute URLs to invalidate: the target, as it came and as it means without dot segments (RFC
/// 3986 §6.2.2.3), and what `Location` and `Content-Location` name if it has the same origin. "A cache
/// MUST NOT trigger an invalidation" elsewhere: one host could empty another's cache.
pub fn targets(
    scheme: &str,
    authority: &str,
    path_and_query: &str,
    response_headers: &HeaderMap,
) -> Vec<String> {
    let base = Base { scheme, authority, path_and_query };
    let mut urls = vec![base.url(path_and_query)];
    let resolved = base.url(&without_dots(path_and_query));
    if !urls.contains(&resolved) {
        urls.push(resolved);
    }
    for name in [LOCATION, CONTENT_LOCATION] {
        let reference = response_headers.get(name).and_then(|value| value.to_str().ok());
        let url = reference.and_then(|r| base.resolve(r)).map(|path| base.url(&path));
        urls.extend(url.filter(|url| !urls.contains(url)));
    }
    urls
}

/// Whether `Content-Location` says that the content is a representation of the target itself (RFC 9110
/// §8.7): then the answer to a POST is what a GET would have brought (§9.3.3).
pub fn names_itself(
    scheme: &str,
    authority: &str,
    path_and_query: &str,
    response_headers: &HeaderMap,
) -> bool {
    let base = Base { scheme, authority, path_and_query };
    let mut lines = response_headers.get_all(CONTENT_LOCATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    line.to_str().ok().and_then(|reference| base.resolve(reference)).as_deref() == Some(path_and_query)
}

/// The target URI that references are relative to.
struct Base<'a> {
    scheme: &'a str,
    authority: &'a str,
    path_and_query: &'a str,
}

impl Base<'_> {
    fn url(&self, path_and_query: &str) -> String {
        format!("{}://{}{path_and_query}", self.scheme, self.authority)
    }

    /// The path and query that a reference comes to (RFC 3986 §5.2.2); `None` where it leads to
    /// another origin.
    fn resolve(&self, reference: &str) -> Option<String> {
        let reference = reference.trim().split('#').next().unwrap_or_default();
        let relative = match scheme_of(reference) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(self.scheme) && rest.starts_with("//") => {
                rest
            }
            Some(_) => return None,
            None => reference,
        };
        let path_and_query = match relative.strip_prefix("//") {
            Some(rest) => {
                let end = rest.find(['/', '?']).unwrap_or(rest.len());
                let (authority, path) = rest.split_at_checked(end)?;
                if !self.is_here(authority) {
                    return None;
                }
                path.to_owned()
            }
            None => self.merge(relative),
        };
        Some(without_dots(&path_and_query))
    }

    /// RFC 3986 §5.2.2 and §5.2.3, for a reference without scheme and authority.
    fn merge(&self, relative: &str) -> String {
        let path = self.path_and_query.split('?').next().unwrap_or_default();
        match relative.chars().next() {
            None => self.path_and_query.to_owned(),
            Some('/') => relative.to_owned(),
            Some('?') => format!("{path}{relative}"),
            Some(_) => {
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                format!("{folder}/{relative}")
            }
        }
    }

    /// RFC 9110 §4.3.1: the same host and port. User information is part of no origin.
    fn is_here(&self, authority: &str) -> bool {
        let host_and_port = |authority: &str| -> String {
            let lower = authority.to_ascii_lowercase();
            let default = if self.scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
            let host = lower.strip_suffix(default).or_else(|| lower.strip_suffix(':'));
            host.unwrap_or(&lower).to_owned()
        };
        !authority.is_empty() && host_and_port(authority) == host_and_port(self.authority)
    }
}

/// A reference's scheme, and what follows the colon (RFC 3986 §3.1).
fn scheme_of(reference: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = reference.split_once(':')?;
    let mut chars = scheme.chars();
    let first = chars.next()?.is_ascii_alphabetic();
    let others = chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    (first && others).then_some((scheme, rest))
}

/// Without "." and ".." segments (RFC 3986 §5.2.4); never empty, never above the root.
fn without_dots(path_and_query: &str) -> String {
    let (path, query) = match path_and_query.find('?').and_then(|at| path_and_query.split_at_checked(at)) {
        Some(parts) => parts,
        None => (path_and_query, ""),
    };
    match path::resolve(path) {
        resolved if resolved.starts_with('/') => format!("{resolved}{query}"),
        resolved => format!("/{resolved}{query}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn of(location: &str) -> Vec<String> {
        let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_str(location).unwrap())]);
        targets("http", "Example.com", "/a/b?q", &headers)
    }

    #[test]
    fn unsafe_methods_and_good_answers_invalidate() {
        for (clause, method, status, expected) in [
            ("§4.4 unsafe", "POST", 201, true),
            ("§4.4 unsafe", "PUT", 204, true),
            ("§4.4 unsafe", "DELETE", 200, true),
            ("§4.4 unsafe", "PATCH", 200, true),
            ("§4.4 redirection is no error", "POST", 303, true),
            ("§4.4 unknown", "FROBNICATE", 200, true),
            ("9110 §9.1 methods have a case", "get", 200, true),
            ("§4.4 error", "POST", 404, false),
            ("§4.4 error", "DELETE", 500, false),
            ("§4.4 not final", "POST", 100, false),
            ("9110 §9.2.1 safe", "GET", 200, false),
            ("9110 §9.2.1 safe", "HEAD", 200, false),
            ("9110 §9.2.1 safe", "OPTIONS", 200, false),
            ("9110 §9.2.1 safe", "TRACE", 200, false),
            ("4918 §9.1 safe", "PROPFIND", 207, false),
            ("10008 safe", "QUERY", 200, false),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(invalidates(&method, status), expected, "{clause}: {method} {status}");
        }
    }

    #[test]
    fn location_counts_on_the_same_origin_only() {
        for (clause, location, expected) in [
            ("3986 §5.2 absolute", "http://example.com/x?y", Some("/x?y")),
            ("3986 §6.2.2 case", "HTTP://EXAMPLE.COM/x", Some("/x")),
            ("3986 §6.2.3 default port", "http://example.com:80/x", Some("/x")),
            ("3986 §6.2.3 empty port", "http://example.com:/x", Some("/x")),
            ("3986 §6.2.3 no path", "http://example.com", Some("/")),
            ("3986 §5.2 no path, a query", "http://example.com?y", Some("/?y")),
            ("3986 §5.2 fragment", "/x#y", Some("/x")),
            ("3986 §5.2 path", "/x/y", Some("/x/y")),
            ("3986 §5.2 relative", "c", Some("/a/c")),
            ("3986 §5.2 relative with a colon", "./c:d", Some("/a/c:d")),
            ("3986 §5.2 query", "?z", Some("/a/b?z")),
            ("3986 §5.2.4 dots", "../x/./y/..", Some("/x/")),
            ("3986 §5.2.4 above the root", "/../../x", Some("/x")),
            ("3986 §5.2.4 a query has no segments", "/x?a/../b", Some("/x?a/../b")),
            ("3986 §5.2 network path", "//example.com/x", Some("/x")),
            ("the target itself", "", None),
            ("the target itself", "http://example.com/a/b?q", None),
            ("§4.4 other host", "http://example.org/x", None),
            ("§4.4 other host", "//example.org/x", None),
            ("§4.4 other port", "http://example.com:8080/x", None),
            ("§4.4 other scheme", "https://example.com/x", None),
            ("§4.4 user information", "http://example.com@example.org/x", None),
            ("§4.4 user information", "http://me@example.com/x", None),
            ("§4.4 no host", "http:///x", None),
            ("§4.4 no hierarchy", "mailto:a@example.com", None),
            ("§4.4 no hierarchy", "http:/x", None),
        ] {
            let mut urls = vec!["http://Example.com/a/b?q".to_owned()];
            urls.extend(expected.map(|path| format!("http://Example.com{path}")));
            assert_eq!(of(location), urls, "{clause}: {location}");
        }
    }

    #[test]
    fn an_answer_may_be_about_its_target() {
        for (clause, location, itself) in [
            ("9110 §8.7 absolute", "http://example.com/a/b?q", true),
            ("9110 §8.7 path", "/a/b?q", true),
            ("9110 §8.7 relative", "b?q", true),
            ("3986 §5.2.2 empty", "", true),
            ("9110 §8.7 another query", "/a/b", false),
            ("9110 §8.7 another path", "/a/b/1?q", false),
            ("9110 §8.7 another origin", "http://example.org/a/b?q", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_LOCATION, HeaderValue::from_static(location))]);
            assert_eq!(
                names_itself("http", "Example.com", "/a/b?q", &headers),
                itself,
                "{clause}: {location}"
            );
        }
        assert!(!names_itself("http", "h", "/", &HeaderMap::new()), "9110 §8.7 absent");
        let mut twice = HeaderMap::new();
        twice.append(CONTENT_LOCATION, HeaderValue::from_static("/"));
        twice.append(CONTENT_LOCATION, HeaderValue::from_static("/"));
        assert!(!names_itself("http", "h", "/", &twice), "9110 §5.3 it is no list");
    }

    #[test]
    fn content_location_counts_too_and_each_url_once() {
        let mut headers = HeaderMap::new();
        headers.append(LOCATION, HeaderValue::from_static("/x"));
        headers.append(CONTENT_LOCATION, HeaderValue::from_static("/y"));
        assert_eq!(targets("https", "h", "/", &headers), ["https://h/", "https://h/x", "https://h/y"]);
        headers.insert(CONTENT_LOCATION, HeaderValue::from_static("https://h:443/x"));
        assert_eq!(targets("https", "h", "/", &headers), ["https://h/", "https://h/x"]);
        headers.insert(LOCATION, HeaderValue::from_bytes(b"/\xff").unwrap());
        assert_eq!(targets("https", "h", "/", &headers), ["https://h/", "https://h/x"]);
    }

    proptest! {
        #[test]
        fn no_reference_leads_to_another_origin(location in "[ -~]{0,24}") {
            for url in of(&location) {
                prop_assert!(url.starts_with("http://Example.com/"));
            }
        }
    }
}
