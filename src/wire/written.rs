//! Lines of a head as they are written.
//!
//! Knows the form of a status line and of a field's line, and that whoever hands something in has made sure that it may
//! stand there. Must not know: which lines a message has, or in what order.

use http::StatusCode;

/// A status line (RFC 9112 §4). What has no reason of its own is given hyper's word for that, so that nobody can tell who
/// has written it.
pub fn status_line(out: &mut Vec<u8>, status: StatusCode) {
    if status == StatusCode::OK {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("<none>").as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The line of a field (RFC 9112 §5).
pub fn field_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_has_a_reason_whatever_the_status() {
        for (status, line) in [
            (200, "HTTP/1.1 200 OK\r\n"),
            (404, "HTTP/1.1 404 Not Found\r\n"),
            (599, "HTTP/1.1 599 <none>\r\n"),
        ] {
            let mut out = Vec::new();
            status_line(&mut out, StatusCode::from_u16(status).unwrap());
            assert_eq!(String::from_utf8(out).unwrap(), line);
        }
    }
}
