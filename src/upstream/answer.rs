//! Messages of HTTP/1.1 as bytes: a request's head from its fields, a response's fields from its head.
//!
//! What is read here has passed the scanner of [`wire`](crate::wire), so it is known to have the form that RFC 9112 gives
//! it; this only cuts it up.
//! Must not know: sockets, where a message ends, what it means.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version, header};

/// Fields that a response is given on its way to a client, mostly.
const MORE: usize = 8;
/// Bytes of a field's line, mostly, and rather less.
const LINE: usize = 24;
/// Fields for which room is made before they are seen, at most: a head may have one of 100 KiB, and room for thousands
/// would be many times that.
const FORESEEN: usize = 256;
/// Bytes of a request's head, mostly.
const HEAD: usize = 512;

/// The head of a request without content, to its empty line (RFC 9112 §3, §5).
pub(super) fn request<B>(request: &Request<B>) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD);
    // By its parts, since a path may be left out (RFC 9112 §3.2.1: "the client MUST send "/" as the path").
    let (path, query) = (request.uri().path(), request.uri().query());
    let (mark, query) = query.map_or(("", ""), |query| ("?", query));
    for part in [request.method().as_str(), " ", path, mark, query, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    for (name, value) in request.headers() {
        // There is nothing to be framed.
        if *name == header::TRANSFER_ENCODING {
            continue;
        }
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// A response by its head, to its empty line; `None` where it is none after all.
pub(super) fn response(head: &Bytes) -> Option<Response<()>> {
    let end = memchr::memchr(b'\n', head)?;
    // RFC 9112 §4: `HTTP-version SP status-code SP [ reason-phrase ]`; "A client SHOULD ignore the reason-phrase content".
    let line = head.get(..end)?.strip_suffix(b"\r")?;
    let status = StatusCode::from_bytes(line.get(9..12)?).ok()?;
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = match line.get(7)? {
        b'0' => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    *response.headers_mut() = fields(&head.slice(end.checked_add(1)?..))?;
    Some(response)
}

/// The fields of a section, to its empty line, if all of them are (RFC 9112 §5).
pub(super) fn fields(section: &Bytes) -> Option<HeaderMap> {
    if section.is_empty() {
        return Some(HeaderMap::new());
    }
    // It may turn out to need more.
    let mut map = HeaderMap::with_capacity((section.len() / LINE).min(FORESEEN).saturating_add(MORE));
    let mut begin = 0_usize;
    for end in memchr::memchr_iter(b'\n', section) {
        let line = section.get(begin..end)?.strip_suffix(b"\r")?;
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(line.get(..colon)?).ok()?;
        let value = line.get(colon.checked_add(1)?..)?;
        let ahead = value.iter().take_while(|byte| is_white(**byte)).count();
        let behind = value.iter().skip(ahead).rev().take_while(|byte| is_white(**byte)).count();
        let from = begin.checked_add(colon)?.checked_add(1)?.checked_add(ahead)?;
        let to = begin.checked_add(line.len())?.checked_sub(behind)?;
        map.append(name, HeaderValue::from_maybe_shared(section.slice(from..to)).ok()?);
        begin = end.checked_add(1)?;
    }
    Some(map)
}

const fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_cut_into_its_fields() {
        type Row<'a> = (&'a str, u16, Version, &'a [(&'a str, &'a str)]);
        let rows: &[Row<'_>] = &[
            ("HTTP/1.1 200 OK\r\n\r\n", 200, Version::HTTP_11, &[]),
            ("HTTP/1.0 404\r\nA: b\r\n\r\n", 404, Version::HTTP_10, &[("a", "b")]),
            ("HTTP/1.1 599 \r\nA:\r\n\r\n", 599, Version::HTTP_11, &[("a", "")]),
            // RFC 9112 §5: `field-name ":" OWS field-value OWS`.
            (
                "HTTP/1.1 200 OK\r\nX:\t b:  c \t \r\nX: \t\r\n\r\n",
                200,
                Version::HTTP_11,
                &[("x", "b:  c"), ("x", "")],
            ),
        ];
        for (head, status, version, want) in rows {
            let response = response(&Bytes::from_static(head.as_bytes())).unwrap();
            let fields =
                response.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
            assert_eq!((response.status().as_u16(), response.version()), (*status, *version), "{head}");
            assert_eq!(fields.collect::<Vec<_>>(), *want, "{head}");
        }
    }

    #[test]
    fn a_large_field_is_given_no_room_for_thousands_of_small_ones() {
        let head = format!("HTTP/1.1 200 OK\r\nSurrogate-Key: {}\r\n\r\n", "t ".repeat(60_000));
        let response = response(&Bytes::from(head)).unwrap();
        assert!(response.headers().capacity() <= 1024, "{}", response.headers().capacity());
    }

    #[test]
    fn a_request_is_written_as_it_is_to_be_read() {
        for (uri, target) in [("/a?b=c", "/a?b=c"), ("/", "/"), ("/?", "/?"), ("http://x?", "/?"), ("*", "*")]
        {
            let request = Request::builder().method("GET").uri(uri).header("host", "x").header("x-y", "z: 1");
            let words = super::request(&request.body(()).unwrap());
            let want = format!("GET {target} HTTP/1.1\r\nhost: x\r\nx-y: z: 1\r\n\r\n");
            assert_eq!(String::from_utf8(words).unwrap(), want);
        }
    }
}
