//! Several parts in one body: `multipart/byteranges` (RFC 9110 §14.6, §15.3.7.2).
//!
//! Knows the framing. Must not know: which parts, or why several.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use http::HeaderValue;

use crate::fields::range::Span;

/// A body of several parts.
pub(super) struct Multipart {
    /// Its `Content-Type`.
    pub content_type: String,
    /// Its bytes, in order.
    pub pieces: Vec<Bytes>,
}

/// Frames `parts` of a representation of `length` bytes; `content_type` is the representation's own.
pub(super) fn frame(
    parts: Vec<(Span, Vec<Bytes>)>,
    length: u64,
    content_type: Option<&HeaderValue>,
) -> Multipart {
    // Nobody can know it before, so no content holds it, but by a chance of 1 in 2^64.
    let boundary = format!("larder-{:016x}", RandomState::new().hash_one(length));
    let mut pieces = Vec::new();
    for (span, bytes) in parts {
        // The CRLF before a delimiter belongs to it (RFC 2046 §5.1.1); the first needs none.
        let start = if pieces.is_empty() { "--" } else { "\r\n--" };
        let mut head = format!("{start}{boundary}\r\n").into_bytes();
        if let Some(value) = content_type {
            head.extend_from_slice(b"Content-Type: ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(content_range(span, length).as_bytes());
        pieces.push(head.into());
        pieces.extend(bytes);
    }
    pieces.push(format!("\r\n--{boundary}--\r\n").into());
    Multipart { content_type: format!("multipart/byteranges; boundary={boundary}"), pieces }
}

fn content_range(span: Span, length: u64) -> String {
    format!("Content-Range: bytes {}-{}/{length}\r\n\r\n", span.first, span.last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_framed_as_the_clause_shows() {
        let part = |first, last, text: &'static str| {
            (Span { first, last }, vec![Bytes::from_static(text.as_bytes())])
        };
        let kind = HeaderValue::from_static("application/pdf");
        let parts = vec![part(500, 504, "first"), part(7000, 7005, "second")];
        let framed = frame(parts, 8000, Some(&kind));
        let boundary = framed.content_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
        let body = String::from_utf8(framed.pieces.concat()).unwrap();
        assert_eq!(
            body,
            format!(
                "--{boundary}\r\nContent-Type: application/pdf\r\nContent-Range: bytes 500-504/8000\r\n\r\nfirst\r\n\
                 --{boundary}\r\nContent-Type: application/pdf\r\nContent-Range: bytes 7000-7005/8000\r\n\r\nsecond\r\n\
                 --{boundary}--\r\n"
            )
        );
        let other = frame(vec![part(0, 0, "a"), part(2, 2, "c")], 3, None);
        assert_ne!(other.content_type, framed.content_type);
        assert!(!String::from_utf8(other.pieces.concat()).unwrap().contains("Content-Type"));
    }
}
