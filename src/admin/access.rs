//! Who may use the admin API.
//!
//! Must not know: what it offers.

use std::net::IpAddr;

use http::{HeaderMap, Method, StatusCode, Uri, header};

/// Why a request is turned away; `None` where it is welcome. `open` marks what needs no token.
pub(super) fn refuse(
    method: &Method,
    headers: &HeaderMap,
    token: Option<&str>,
    open: bool,
) -> Option<(StatusCode, &'static str)> {
    // What changes nothing may be asked from anywhere: another site's page cannot read the answer, since
    // nothing here allows it to (no `Access-Control-*`).
    if method != Method::GET && method != Method::HEAD {
        if headers.get_all(header::HOST).iter().count() != 1 {
            return Some((StatusCode::BAD_REQUEST, "the request needs exactly one Host field"));
        }
        if is_from_browser(headers) && !is_own_page(headers) {
            return Some((StatusCode::FORBIDDEN, "requests from web pages cannot change anything here"));
        }
        if !is_plain_type(headers) {
            let text =
                "send it as Content-Type: application/json: forms and plain text are what web pages send";
            return Some((StatusCode::FORBIDDEN, text));
        }
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

/// What browsers send with whatever a page makes them send, and programs do not: who asks and how (Fetch
/// Metadata, `Origin`), where from, what the site has stored, or, the oldest of them, a name that begins so.
fn is_from_browser(headers: &HeaderMap) -> bool {
    let named =
        [header::ORIGIN, header::REFERER, header::COOKIE].iter().any(|name| headers.contains_key(name));
    let fetched = headers.keys().any(|name| name.as_str().starts_with("sec-"));
    let agent = headers.get(header::USER_AGENT).map(|agent| agent.as_bytes()).unwrap_or_default();
    named || fetched || agent.starts_with(b"Mozilla/")
}

/// Whether it is our own page that asks, which is told by what a browser lets no other say: `Origin` names this very
/// listener, where Fetch Metadata is sent (not to plain addresses) it agrees, and a field and a type that need another
/// site's leave are there, which nothing here ever gives. It sends nothing that the site has stored.
fn is_own_page(headers: &HeaderMap) -> bool {
    let only = |name: &str| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok())
    };
    let host = only("host").unwrap_or_default();
    let origin = only("origin")
        .and_then(|origin| origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")));
    origin == Some(host)
        && is_not_from_elsewhere(headers)
        && only("content-type") == Some("application/json")
        && only("larder-dashboard") == Some("1")
        && !headers.contains_key(header::COOKIE)
}

/// Whether no other site's page can have had the browser send this, as far as the browser says so. For what costs
/// something although it changes nothing.
pub(super) fn is_not_from_elsewhere(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all("sec-fetch-site").iter();
    sites.all(|site| site == "same-origin" || site == "none")
}

/// Whether the type is none that a page can send to another site without asking first (CORS-safelisted:
/// plain text, and forms). `application/x-www-form-urlencoded` is what curl and others call any data that
/// they are given: a browser's is told by all else.
fn is_plain_type(headers: &HeaderMap) -> bool {
    let refused = ["text/plain", "multipart/form-data"];
    headers.get_all(header::CONTENT_TYPE).iter().all(|value| {
        let value = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        !refused.iter().any(|refused| value.eq_ignore_ascii_case(refused.as_bytes()))
    })
}

/// Whether a request names this listener by an address or as `localhost`. A page whose own name was
/// made to lead to this machine (DNS rebinding) cannot: the browser sends the page's name. Where the target names a
/// host, too, that is the one that is meant (RFC 9112 §3.2.2).
pub(super) fn is_named_plainly(target: &Uri, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    is_plain(host) && target.authority().is_none_or(|authority| is_plain(authority.as_str()))
}

fn is_plain(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    address.parse::<IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

/// Compares without telling by its time how much agrees; its length is no secret. A dozen lines of our own,
/// since `subtle` would be a crate for this alone; `black_box` keeps the loop from ending early.
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
        headers.insert("host", HeaderValue::from_static("localhost:9900"));
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
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
    fn a_web_page_cannot_change_anything_whatever_it_sends() {
        let rows = [
            ("origin", "http://evil.test"),
            ("origin", "null"),
            ("origin", "http://localhost:9900"),
            ("referer", "http://evil.test/"),
            ("cookie", "a=b"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-mode", "no-cors"),
            ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
            ("content-type", "text/plain"),
            ("content-type", "Text/Plain;charset=UTF-8"),
            ("content-type", "multipart/form-data; boundary=x"),
        ];
        for row in rows {
            for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
                assert_eq!(verdict(method.clone(), &[row], None, false), Some(403), "{method} {row:?}");
            }
            // Not even with the token, were one to know it; and not a page that reads only.
            let right = ("authorization", "Bearer s3cret");
            assert_eq!(verdict(Method::POST, &[row, right], Some("s3cret"), false), Some(403), "{row:?}");
            assert_eq!(verdict(Method::GET, &[row], None, false), None, "{row:?}");
        }
    }

    #[test]
    fn our_own_page_can_and_no_page_that_lacks_any_of_it() {
        let own = [
            ("origin", "http://localhost:9900"),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-mode", "cors"),
            ("content-type", "application/json"),
            ("larder-dashboard", "1"),
            ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
        ];
        assert_eq!(verdict(Method::POST, &own, None, false), None);
        assert_eq!(verdict(Method::POST, &own, Some("s3cret"), false), Some(401), "the token, too");
        // To an address that is no secure context the browser tells less.
        let plain: Vec<_> = own.into_iter().filter(|(name, _)| !name.starts_with("sec-")).collect();
        assert_eq!(verdict(Method::POST, &plain, None, false), None);
        for without in ["origin", "content-type", "larder-dashboard"] {
            let fields: Vec<_> = own.into_iter().filter(|(name, _)| *name != without).collect();
            assert_eq!(verdict(Method::POST, &fields, None, false), Some(403), "without {without}");
        }
        for (name, value) in [
            ("origin", "http://localhost:3000"),
            ("origin", "http://evil.test"),
            ("origin", "null"),
            ("origin", "localhost:9900"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", "cross-site"),
            ("content-type", "text/plain"),
            ("larder-dashboard", "2"),
        ] {
            let other = own.map(|(known, own)| if known == name { (name, value) } else { (known, own) });
            assert_eq!(verdict(Method::POST, &other, None, false), Some(403), "{name}: {value}");
        }
        for more in [("cookie", "a=b"), ("origin", "http://evil.test"), ("sec-fetch-site", "cross-site")] {
            let fields: Vec<_> = own.into_iter().chain([more]).collect();
            assert_eq!(verdict(Method::POST, &fields, None, false), Some(403), "{more:?} as well");
        }
    }

    #[test]
    fn programs_can() {
        for fields in [
            &[][..],
            &[("content-type", "application/json"), ("user-agent", "curl/8.5.0")],
            &[("content-type", "application/x-www-form-urlencoded"), ("user-agent", "Python-urllib/3.11")],
        ] {
            assert_eq!(verdict(Method::POST, fields, None, false), None, "{fields:?}");
        }
        assert_eq!(verdict(Method::POST, &[("host", "another")], None, false), Some(400), "two hosts");
    }
}
