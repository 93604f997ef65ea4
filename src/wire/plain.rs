//! The plainest of requests, read where it lies: a GET of HTTP/1.1 that comes whole, in a head of ordinary bytes.
//!
//! It takes less than hyper does, and never refuses: whatever is not plain is for the scanner and hyper, which see
//! the same bytes. So there is no head that is plain and that any of the two would read otherwise, or refuse.
//! Knows the grammar of RFC 9112 §3 and §5 as far as nobody disputes it. Must not know: what a field means, or who
//! answers.

use super::grammar::{is_token, trimmed};
use super::head::{Lines, end_of_head};

/// Bytes of a plain head at most: others are not worth the copy that is made of one.
pub const LONGEST: usize = 4096;
/// Fields of one at most.
const FIELDS: usize = 64;

/// How a request line ends that goes with one.
const VERSION: &[u8] = b" HTTP/1.1\r\n";

/// The head of such a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain<'a> {
    target: &'a [u8],
    lines: &'a [u8],
    len: usize,
}

impl<'a> Plain<'a> {
    /// That with which these bytes begin; `None` where they begin with anything else, or it is not whole. Its fields
    /// have not been looked at: see [`Self::fields`].
    pub fn of(bytes: &'a [u8]) -> Option<Self> {
        let bytes = bytes.get(..bytes.len().min(LONGEST)).unwrap_or_default();
        let after = bytes.strip_prefix(b"GET ").filter(|after| after.first() == Some(&b'/'))?;
        // §3.2, RFC 3986: a fragment is none of a target's parts.
        let end = after.iter().position(|byte| !matches!(byte, b'!'..=b'~') || *byte == b'#')?;
        let (target, rest) = after.split_at_checked(end)?;
        let fields = rest.strip_prefix(VERSION)?;
        let end = end_of_head(fields)?;
        let lines = fields.get(..end.checked_sub(2)?)?;
        let len = bytes.len().checked_sub(fields.len())?.checked_add(end)?;
        Some(Self { target, lines, len })
    }

    /// The target, which begins with a slash.
    pub const fn target(&self) -> &'a [u8] {
        self.target
    }

    /// The lines of its fields, as they came: two heads with the same lines say the same but for their targets.
    pub const fn lines(&self) -> &'a [u8] {
        self.lines
    }

    /// Bytes that it has in all, with the empty line at its end.
    pub const fn size(&self) -> usize {
        self.len
    }

    /// Its fields, names as they came and values without white space around them; `None` where one is anything but a
    /// token, a colon and ordinary bytes.
    pub fn fields(&self) -> Option<Vec<(&'a [u8], &'a [u8])>> {
        let mut fields = Vec::with_capacity(16);
        for line in Lines::new(self.lines) {
            if fields.len() == FIELDS {
                return None;
            }
            fields.push(field(line.ok()?)?);
        }
        Some(fields)
    }
}

fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    // §5.1: no white space before the colon; nor before the name, which would be a folded line (§5.2).
    let colon = line.iter().position(|byte| !is_token(*byte)).filter(|at| *at > 0)?;
    let (name, rest) = line.split_at_checked(colon)?;
    let value = rest.strip_prefix(b":").map(trimmed)?;
    // RFC 9110 §5.5, without the bytes that are not ASCII.
    value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t')).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_head_is_read_as_it_stands() {
        let bytes = b"GET /a?b=c HTTP/1.1\r\nHost: a.test\r\nX-A:\t b  c \t\r\nX-Empty:\r\n\r\nGET /next";
        let plain = Plain::of(bytes).unwrap();
        assert_eq!((plain.target(), plain.size()), (&b"/a?b=c"[..], bytes.len() - 9));
        assert_eq!(plain.lines(), b"Host: a.test\r\nX-A:\t b  c \t\r\nX-Empty:\r\n");
        let fields: &[(&[u8], &[u8])] = &[(b"Host", b"a.test"), (b"X-A", b"b  c"), (b"X-Empty", b"")];
        assert_eq!(plain.fields().unwrap(), fields);
    }

    #[test]
    fn what_is_not_plain_is_left_to_others() {
        let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(LONGEST));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(FIELDS + 1));
        let rows: &[&str] = &[
            "",
            "GET / HTTP/1.1\r\nHost: a\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "get / HTTP/1.1\r\nHost: a\r\n\r\n",
            "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\t HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost\r\n\r\n",
            "GET / HTTP/1.1\r\nHo(st: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: \u{e9}\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            &long,
            &many,
        ];
        for row in rows {
            assert_eq!(Plain::of(row.as_bytes()).and_then(|plain| plain.fields()), None, "{row:?}");
        }
    }
}
