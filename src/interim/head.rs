//! The bytes of an interim response.
//!
//! Knows which fields pass. Must not know: how the bytes go out.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::fields::hop;
use crate::wire::field_line;

/// An interim response as it is passed on: without the fields that concern the connection it came on
/// or that `withheld` names, and with `via` after those who passed it on before.
pub(super) fn bytes(
    status: StatusCode,
    headers: &HeaderMap,
    withheld: &[HeaderName],
    via: &HeaderValue,
) -> Vec<u8> {
    let mut headers = headers.clone();
    hop::remove_hop_by_hop(&mut headers);
    // RFC 9110 §8.6: "A server MUST NOT send a Content-Length header field in any response with a
    // status code of 1xx".
    headers.remove(header::CONTENT_LENGTH);
    for name in withheld {
        headers.remove(name);
    }
    // §7.6.3: "in each message that it forwards".
    headers.append(header::VIA, via.clone());
    write(status, &headers)
}

fn write(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let mut head = Vec::with_capacity(256);
    // RFC 9112 §4: the space after the code stands even where no reason follows.
    head.extend_from_slice(b"HTTP/1.1 ");
    head.extend_from_slice(status.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    head.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        field_line(&mut head, name.as_str().as_bytes(), value.as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, fields: &[(&'static str, &'static str)], withheld: &[&'static str]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let withheld: Vec<_> = withheld.iter().map(|name| HeaderName::from_static(name)).collect();
        let status = StatusCode::from_u16(status).unwrap();
        String::from_utf8(bytes(status, &headers, &withheld, &HeaderValue::from_static("1.1 us"))).unwrap()
    }

    #[test]
    fn links_pass_as_they_came_and_what_concerns_the_connection_does_not() {
        let links = [("link", "</a.css>; rel=preload"), ("link", "</b.js>; rel=preload, </c>; rel=next")];
        assert_eq!(
            of(103, &links, &[]),
            "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\
             link: </b.js>; rel=preload, </c>; rel=next\r\nvia: 1.1 us\r\n\r\n"
        );
        let fields = [
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("upgrade", "h2c"),
            ("x-removed", "1"),
            ("via", "1.1 them"),
        ];
        assert_eq!(
            of(102, &fields, &["x-removed"]),
            "HTTP/1.1 102 Processing\r\nvia: 1.1 them\r\nvia: 1.1 us\r\n\r\n"
        );
    }

    #[test]
    fn a_status_without_a_name_has_its_space() {
        assert_eq!(of(199, &[], &[]), "HTTP/1.1 199 \r\nvia: 1.1 us\r\n\r\n");
    }
}
