//! Is this a request that may be served at all? Judged before anything else sees it.
//!
//! Knows what of RFC 9112 §3 and RFC 9113 §8.3 hyper leaves open: more than one reading of what is asked
//! for, of whom, and of where the request ends. Whatever has two readings is refused, and the connection
//! closed where its next request might be in doubt too.
//! Must not know: routes, caching, how an answer is delivered.

use http::request::Parts;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Method, StatusCode, Uri, Version, header};

use crate::fields::present::Present;
use crate::fields::{host, list};
use crate::wire::Fault;

use super::failure::Failure;

/// What is asked for and of whom, in their one writing: the authority. `scheme` is how the client came;
/// `fault` is what the bytes of the request's head were found to hold.
/// `present` are the fields that it has.
pub(super) fn judge(
    parts: &Parts,
    present: Present,
    scheme: &str,
    fault: Option<Fault>,
) -> Result<String, Failure> {
    if let Some(fault) = fault {
        return Err(broken(fault));
    }
    method(&parts.method)?;
    target(parts)?;
    let authority = authority(parts, scheme)?;
    // RFC 9110 §8.6: once. Over HTTP/2 nobody has looked at it before.
    if present.has(Present::CONTENT_LENGTH)
        && parts.headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some()
    {
        return Err(broken(Fault::Length));
    }
    if parts.version == Version::HTTP_2 {
        fields(&parts.headers)?;
    }
    if present.has(Present::EXPECT) {
        expectation(&parts.headers)?;
    }
    way(parts)?;
    Ok(authority)
}

fn broken(fault: Fault) -> Failure {
    let (status, cause) = match fault {
        Fault::UnknownCoding => (StatusCode::NOT_IMPLEMENTED, "transfer-coding"),
        Fault::Coding | Fault::LengthAndCoding | Fault::Length | Fault::Chunks => {
            (StatusCode::BAD_REQUEST, "framing")
        }
        Fault::Target => (StatusCode::BAD_REQUEST, "target"),
        Fault::Line | Fault::Fold | Fault::Lost => (StatusCode::BAD_REQUEST, "head"),
    };
    // RFC 9112 §6.1: "the server MUST close the connection after responding to such a request".
    Failure::local(status, cause, fault.as_str()).closing()
}

fn method(method: &Method) -> Result<(), Failure> {
    let refused = |cause, message| Failure::local(StatusCode::METHOD_NOT_ALLOWED, cause, message).closing();
    if *method == Method::CONNECT {
        return Err(refused("connect", "CONNECT is not served here"));
    }
    // RFC 9110 §9.3.8: it echoes the request, credentials and all that Larder adds included.
    if *method == Method::TRACE {
        return Err(refused("trace", "TRACE is not served here"));
    }
    Ok(())
}

/// RFC 9112 §3.2: which form of target goes with which method.
fn target(parts: &Parts) -> Result<(), Failure> {
    let uri = &parts.uri;
    let bad = |message| Err(Failure::local(StatusCode::BAD_REQUEST, "target", message).closing());
    if uri.scheme().is_some_and(|scheme| *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS) {
        return bad("only http and https are served here");
    }
    if uri.authority().is_some() && uri.scheme().is_none() {
        return bad("host:port as a target goes with CONNECT only; a path begins with /");
    }
    // `?x` has a path of `/` to the library of URIs, and goes on as `?x`.
    if uri.scheme().is_none_or(|_| parts.version == Version::HTTP_2)
        && uri.path_and_query().is_some_and(|target| target.as_str().starts_with('?'))
    {
        return bad("a path begins with /");
    }
    // Of `#x` the library leaves nothing, shows `/` for that, and would send nothing. RFC 9113 §8.3.1: `:path`
    // "MUST NOT be empty", and holds no fragment.
    let is_sent_empty = |target: &PathAndQuery| Uri::from(target.clone()).path().is_empty();
    if parts.version == Version::HTTP_2 && uri.path_and_query().is_some_and(is_sent_empty) {
        return bad("a path begins with /");
    }
    match uri.path() {
        "*" if parts.method != Method::OPTIONS => bad("* as a target goes with OPTIONS only"),
        "*" => Ok(()),
        "" if uri.scheme().is_some() => Ok(()),
        path if !path.starts_with('/') => bad("a path begins with /"),
        _ if !is_clean(uri) => bad("the target holds bytes that a URI cannot hold: encode them"),
        _ => Ok(()),
    }
}

/// Over HTTP/2 nobody has looked at the bytes before.
fn is_clean(uri: &Uri) -> bool {
    uri.path_and_query().is_none_or(|target| target.as_str().bytes().all(|byte| byte.is_ascii_graphic()))
}

/// The host that a request is for (RFC 9112 §3.2, RFC 9110 §7.2).
fn authority(parts: &Parts, scheme: &str) -> Result<String, Failure> {
    let bad = |message| Failure::local(StatusCode::BAD_REQUEST, "host", message).closing();
    let one_valid = || bad("the request needs exactly one valid Host field");
    let default = if scheme == "https" { 443 } else { 80 };
    let written = |text: &str| host::authority(text, default).ok_or_else(one_valid);
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let field = hosts.next();
    if hosts.next().is_some() {
        return Err(one_valid());
    }
    let field = field.map(|value| value.to_str().map_err(|_| one_valid()).and_then(written)).transpose()?;
    let target = parts.uri.authority().map(|authority| written(authority.as_str())).transpose()?;
    match (target, field) {
        // RFC 9112 §3.2.2 lets a proxy ignore Host here; whoever is behind or before us may not.
        (Some(target), Some(field)) if target != field => Err(bad("Host and the target name two hosts")),
        // §3.2: "A server MUST respond with a 400 ... to any HTTP/1.1 request message that lacks a Host".
        (_, None) if parts.version == Version::HTTP_11 => Err(one_valid()),
        (Some(host), _) | (None, Some(host)) => Ok(host),
        // Only HTTP/1.1 must send it; whoever has none is sent on with an empty one.
        (None, None) if parts.version < Version::HTTP_11 => Ok(String::new()),
        (None, None) => Err(one_valid()),
    }
}

/// RFC 9113 §8.2.1: an intermediary "MUST NOT forward" such fields. The library lets a quotation mark stand in a name,
/// which is none of a token (RFC 9110 §5.6.2), and white space around a value, where each reader takes away its own.
fn fields(headers: &HeaderMap) -> Result<(), Failure> {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let is_malformed = headers.iter().any(|(name, value)| {
        let value = value.as_bytes();
        is_blank(value.first()) || is_blank(value.last()) || name.as_str().contains('"')
    });
    match is_malformed {
        true => Err(Failure::local(StatusCode::BAD_REQUEST, "head", "a field is none of HTTP").closing()),
        false => Ok(()),
    }
}

/// RFC 9110 §10.1.1: "MAY respond with a 417" to what is not known; nobody behind is asked to know it.
fn expectation(headers: &HeaderMap) -> Result<(), Failure> {
    if list::all(headers, &header::EXPECT).all(|word| word.eq_ignore_ascii_case(b"100-continue")) {
        return Ok(());
    }
    let text = "no expectation is known here but 100-continue";
    Err(Failure::local(StatusCode::EXPECTATION_FAILED, "expect", text).closing())
}

/// RFC 9110 §7.6.2: of an OPTIONS that may go no further, this is the final recipient; and so it is of
/// `OPTIONS *`, which asks about the server as such (§9.3.7).
fn way(parts: &Parts) -> Result<(), Failure> {
    let ends = parts.method == Method::OPTIONS
        && (parts.uri.path() == "*" || parts.headers.get(header::MAX_FORWARDS).is_some_and(|n| n == "0"));
    if ends { Err(Failure::options()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue, Request};

    fn judged_of(parts: &Parts, fault: Option<Fault>) -> Result<String, Failure> {
        judge(parts, Present::of(&parts.headers), "http", fault)
    }

    fn judged(method: &str, version: Version, uri: &str, hosts: &[&str]) -> Result<String, u16> {
        let mut request = Request::builder().method(method).version(version).uri(uri).body(()).unwrap();
        for host in hosts {
            request.headers_mut().append(header::HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        judged_of(&request.into_parts().0, None).map_err(|failure| failure.status.as_u16())
    }

    #[test]
    fn the_host_comes_from_the_target_or_from_one_host_field() {
        let rows: &[(&str, &[&str], Result<&str, u16>)] = &[
            ("/", &["a.test"], Ok("a.test")),
            ("/", &["a.test:8080"], Ok("a.test:8080")),
            ("/", &["[::1]:80"], Ok("[::1]")),
            ("/", &["A.test:"], Ok("a.test")),
            ("http://b.test/", &["B.test:80"], Ok("b.test")),
            ("http://b.test", &["b.test"], Ok("b.test")),
            ("http://b.test/", &["a.test"], Err(400)),
            ("http://b.test/", &[], Err(400)),
            ("http://u@b.test/", &["b.test"], Err(400)),
            ("ftp://b.test/", &["b.test"], Err(400)),
            ("b.test:80", &["b.test"], Err(400)),
            ("*", &["a.test"], Err(400)),
            ("/", &[], Err(400)),
            ("/", &["a.test", "a.test"], Err(400)),
            ("/", &["a b"], Err(400)),
            ("/", &[""], Err(400)),
            ("/", &["\u{e9}.test"], Err(400)),
        ];
        for (uri, hosts, want) in rows {
            let got = judged("GET", Version::HTTP_11, uri, hosts);
            assert_eq!(got.as_deref().map_err(|status| *status), *want, "{uri} {hosts:?}");
        }
    }

    #[test]
    fn only_before_http_1_1_a_request_may_come_without_host() {
        assert_eq!(judged("GET", Version::HTTP_10, "/", &[]), Ok(String::new()));
        assert_eq!(judged("GET", Version::HTTP_11, "/", &[]), Err(400));
        assert_eq!(judged("GET", Version::HTTP_2, "/", &[]), Err(400));
        assert_eq!(judged("GET", Version::HTTP_2, "http://a.test/", &[]), Ok("a.test".into()));
        assert_eq!(judged("GET", Version::HTTP_2, "http://a.test/", &["b.test"]), Err(400));
        assert_eq!(judged("GET", Version::HTTP_2, "http://a.test?x", &[]), Err(400));
    }

    #[test]
    fn a_path_of_which_nothing_is_left_is_none() {
        for (path, want) in [("#x", Err(400)), ("#", Err(400)), ("/", Ok("a.test".into()))] {
            let mut parts = http::uri::Parts::default();
            parts.scheme = Some(Scheme::HTTP);
            parts.authority = Some("a.test".parse().unwrap());
            parts.path_and_query = http::uri::PathAndQuery::from_maybe_shared(path).ok();
            let uri = Uri::from_parts(parts).unwrap();
            let request = Request::builder().version(Version::HTTP_2).uri(uri).body(()).unwrap();
            let got = judged_of(&request.into_parts().0, None).map_err(|failure| failure.status.as_u16());
            assert_eq!(got, want, "{path:?}");
        }
    }

    #[test]
    fn over_http_2_each_field_is_one_of_http() {
        let judged = |version, name: &str, value: &str| {
            let request = Request::builder().version(version).uri("http://a.test/").header("host", "a.test");
            let request =
                request.header(HeaderName::from_lowercase(name.as_bytes()).unwrap(), value).body(()).unwrap();
            judged_of(&request.into_parts().0, None).map_err(|failure| failure.status.as_u16())
        };
        for (name, value) in
            [("x\"a", "b"), ("x-a", " b"), ("x-a", "b "), ("x-a", "\tb"), ("x-a", "b\t"), ("x-a", " ")]
        {
            assert_eq!(judged(Version::HTTP_2, name, value), Err(400), "{name:?} {value:?}");
        }
        for value in ["", "a b", "a\tb", "\"a\""] {
            assert_eq!(judged(Version::HTTP_2, "x-a", value).as_deref(), Ok("a.test"), "{value:?}");
        }
    }

    #[test]
    fn what_nobody_behind_is_asked() {
        assert_eq!(judged("CONNECT", Version::HTTP_11, "a.test:80", &["a.test:80"]), Err(405));
        assert_eq!(judged("TRACE", Version::HTTP_11, "/", &["a.test"]), Err(405));
        assert_eq!(judged("OPTIONS", Version::HTTP_11, "*", &["a.test"]), Err(204));
        assert_eq!(judged("OPTIONS", Version::HTTP_11, "/", &["a.test"]), Ok("a.test".into()));
    }

    #[test]
    fn each_fault_of_a_head_has_its_answer() {
        for fault in Fault::ALL {
            let parts = Request::builder().uri("/").body(()).unwrap().into_parts().0;
            let failure = judged_of(&parts, Some(fault)).unwrap_err();
            assert!(failure.close && matches!(failure.status.as_u16(), 400 | 501), "{fault:?}");
        }
    }
}
