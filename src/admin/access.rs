//! Who may use the admin API.
//!
//! Must not know: what it offers.

use std::net::IpAddr;

use http::{HeaderMap, Method, StatusCode, header};

/// Why a request is turned away; `None` where it is welcome. `open` marks what needs no token.
pub(super) fn refuse(
    method: &Method,
    headers: &HeaderMap,
    token: Option<&str>,
    open: bool,
) -> Option<(StatusCode, &'static str)> {
    // A browser names the page that makes it write here; no page of ours does.
    if method != Method::GET && method != Method::HEAD && headers.contains_key(header::ORIGIN) {
        return Some((StatusCode::FORBIDDEN, "requests from web pages cannot change anything here"));
    }
    let token = token.filter(|_| !open)?;
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    if same(given.as_bytes(), token.as_bytes()) {
        return None;
    }
    Some((
        StatusCode::UNAUTHORIZED,
        "this needs «Authorization: Bearer TOKEN», with the admin_token of proxy.toml",
    ))
}

/// Whether a request names this listener by an address or as `localhost`. A page whose own name was
/// made to lead to this machine (DNS rebinding) cannot: the browser sends the page's name.
pub(super) fn is_named_plainly(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    address.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

/// Compares without telling by its time how much agrees.
fn same(given: &[u8], token: &[u8]) -> bool {
    let differing = given.iter().zip(token).fold(0, |differing, (a, b)| differing | (a ^ b));
    given.len() == token.len() && std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn verdict(
        method: Method,
        fields: &[(&'static str, &'static str)],
        token: Option<&str>,
        open: bool,
    ) -> Option<u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        refuse(&method, &headers, token, open).map(|(status, _)| status.as_u16())
    }

    #[test]
    fn a_token_is_asked_for_where_one_is_set() {
        let right = [("authorization", "Bearer s3cret")];
        assert_eq!(verdict(Method::GET, &[], None, false), None);
        assert_eq!(verdict(Method::GET, &[], Some("s3cret"), false), Some(401));
        assert_eq!(verdict(Method::GET, &[], Some("s3cret"), true), None);
        assert_eq!(verdict(Method::GET, &right, Some("s3cret"), false), None);
        for wrong in ["Bearer s3cre", "Bearer s3cret2", "Bearer S3cret", "Basic s3cret", "s3cret"] {
            assert_eq!(
                verdict(Method::GET, &[("authorization", wrong)], Some("s3cret"), false),
                Some(401),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_web_page_cannot_purge() {
        assert_eq!(verdict(Method::POST, &[("origin", "http://evil.test")], None, false), Some(403));
        assert_eq!(verdict(Method::POST, &[], None, false), None);
    }
}
