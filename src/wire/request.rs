//! Watches the bytes that a client sends, and judges each head as it goes by.
//!
//! Knows where requests begin and end. Must not know: hyper, sockets, what is done with a verdict.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::chunks::Chunks;
use super::head::{Fault, Framing, Lines};

/// Watches one connection's requests.
#[derive(Debug)]
pub struct Requests {
    at: At,
    /// The head that is coming, where it does not come in one piece.
    head: Vec<u8>,
    /// Bytes of a head at most.
    limit: usize,
    fine: u64,
}

#[derive(Clone, Copy, Debug)]
enum At {
    Head,
    Length(u64),
    Chunked(Chunks),
    /// What comes next is for nobody.
    Over(Fault),
}

impl Requests {
    /// Of a new connection; a longer head than `limit` bytes is not followed to its end.
    pub const fn new(limit: usize) -> Self {
        Self { at: At::Head, head: Vec::new(), limit, fine: 0 }
    }

    /// How many heads have gone by that may be served.
    pub const fn fine(&self) -> u64 {
        self.fine
    }

    /// What is wrong with the head after those.
    pub const fn fault(&self) -> Option<Fault> {
        if let At::Over(fault) = self.at { Some(fault) } else { None }
    }

    /// Watches no longer: what follows is not HTTP.
    pub fn stop(&mut self) {
        self.end(Fault::Lost);
    }

    /// Watches further bytes. Returns how many of them, from the first, hyper may have: all, but where a
    /// chunked body is none.
    pub fn watch(&mut self, all: &[u8]) -> usize {
        let mut bytes = all;
        while !bytes.is_empty() {
            bytes = match &mut self.at {
                At::Head => self.watch_head(bytes),
                At::Length(left) => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left = left.saturating_sub(u64::try_from(here).unwrap_or(u64::MAX));
                    if *left == 0 {
                        self.at = At::Head;
                    }
                    bytes.get(here..).unwrap_or_default()
                }
                At::Chunked(chunks) => match chunks.watch(bytes) {
                    Ok(rest) if chunks.is_over() => {
                        self.at = At::Head;
                        rest
                    }
                    Ok(_) => break,
                    Err(not) => {
                        self.end(Fault::Chunks);
                        return all.len().saturating_sub(not.left);
                    }
                },
                At::Over(_) => break,
            };
        }
        all.len()
    }

    /// Returns what follows the head, if it ends in these bytes.
    fn watch_head<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        // RFC 9112 §2.2: a server "SHOULD ignore at least one empty line (CRLF) received prior to the
        // request-line".
        while self.head.is_empty()
            && let Some(rest) = bytes.strip_prefix(b"\r\n")
        {
            bytes = rest;
        }
        if self.head.is_empty() && bytes.len() > 1 && bytes.starts_with(b"\r") {
            self.end(Fault::Line);
            return &[];
        }
        // The CR of such a line may have come alone.
        if self.head.as_slice() == b"\r" {
            self.head.clear();
            let Some(rest) = bytes.strip_prefix(b"\n") else {
                self.end(Fault::Line);
                return &[];
            };
            return rest;
        }
        // Almost always a head comes in one piece, and is looked at where it lies.
        if self.head.is_empty()
            && let Some(end) = end_of_head(bytes, 0)
            && let Some((head, rest)) = bytes.split_at_checked(end)
        {
            self.judge(head);
            return rest;
        }
        let seen = self.head.len();
        let room = self.limit.saturating_sub(seen);
        let (fits, over) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
        self.head.extend_from_slice(fits);
        let Some(end) = end_of_head(&self.head, seen.saturating_sub(3)) else {
            if !over.is_empty() {
                self.end(Fault::Lost);
            }
            return &[];
        };
        let head = std::mem::take(&mut self.head);
        self.judge(head.get(..end).unwrap_or_default());
        bytes.get(end.saturating_sub(seen)..).unwrap_or_default()
    }

    fn judge(&mut self, head: &[u8]) {
        match framing(head) {
            Ok(framing) => {
                self.fine += 1;
                self.at = match framing {
                    Framing { chunked: true, .. } => At::Chunked(Chunks::new()),
                    Framing { length: None | Some(0), .. } => At::Head,
                    Framing { length: Some(length), .. } => At::Length(length),
                };
            }
            Err(fault) => self.end(fault),
        }
    }

    fn end(&mut self, fault: Fault) {
        self.at = At::Over(fault);
        self.head = Vec::new();
    }
}

/// Made once: a search for four bytes costs less than its preparation.
static END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));

/// Where the first head ends, its empty line included.
fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let at = END.find(bytes.get(from..)?)?;
    Some(from + at + 4)
}

/// How a request is framed that may be served.
fn framing(head: &[u8]) -> Result<Framing, Fault> {
    let mut lines = Lines::new(head.strip_suffix(b"\r\n").unwrap_or(head));
    let first = lines.next().unwrap_or(Err(Fault::Lost))?;
    // RFC 9112 §3: what is no request line, hyper refuses.
    let mut parts = first.splitn(2, |byte| *byte == b' ');
    let after = parts.nth(1).unwrap_or_default();
    let end = memchr::memrchr(b' ', after).unwrap_or(after.len());
    let target = after.get(..end).unwrap_or_default();
    if !target.iter().all(|byte| matches!(byte, b'!'..=b'~') && *byte != b'#') {
        return Err(Fault::Target);
    }
    Framing::of(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(bytes: &[u8]) -> (u64, Option<Fault>) {
        let mut requests = Requests::new(1024);
        requests.watch(bytes);
        (requests.fine(), requests.fault())
    }

    #[test]
    fn each_head_is_judged_and_the_first_bad_one_is_the_last() {
        let rows: &[(&str, u64, Option<Fault>)] = &[
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1, None),
            ("\r\n\r\nGET / HTTP/1.1\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n", 2, None),
            ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n", 2, None),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n", 2, None),
            ("GET / HTTP/1.1\r\nHost: a\r\n", 0, None),
            // A request within a body is none.
            ("POST / HTTP/1.1\r\nContent-Length: 40\r\n\r\nGET /#x HTTP/1.1\r\n\r\n", 1, None),
            // RFC 9112 §3.2, RFC 3986.
            ("GET /#x HTTP/1.1\r\n\r\n", 0, Some(Fault::Target)),
            ("GET /\x01 HTTP/1.1\r\n\r\n", 0, Some(Fault::Target)),
            ("GET /\x7f HTTP/1.1\r\n\r\n", 0, Some(Fault::Target)),
            ("GET /é HTTP/1.1\r\n\r\n", 0, Some(Fault::Target)),
            ("GET / / HTTP/1.1\r\n\r\n", 0, Some(Fault::Target)),
            ("GET /\tHTTP/1.1\r\n\r\n", 0, Some(Fault::Target)),
            // §2.2.
            ("GET / HTTP/1.1\nHost: a\n\nGET / HTTP/1.1\r\n\r\n", 0, Some(Fault::Line)),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n\r\n", 0, Some(Fault::Line)),
            ("\nGET / HTTP/1.1\r\n\r\n", 0, Some(Fault::Line)),
            ("GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n", 0, Some(Fault::Line)),
            ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 0, Some(Fault::Fold)),
            // §7.1: who cannot tell where a body ends cannot tell where the next head begins.
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 1, Some(Fault::Chunks)),
            (
                "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                1,
                Some(Fault::LengthAndCoding),
            ),
        ];
        for (bytes, fine, fault) in rows {
            assert_eq!(watched(bytes.as_bytes()), (*fine, *fault), "{bytes:?}");
        }
    }

    #[test]
    fn it_does_not_matter_how_the_bytes_come() {
        let bytes = b"\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\
            POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nxy\r\n0\r\nA: b\r\n\r\nGET /# HTTP/1.1\r\n\r\n";
        for step in 1..bytes.len() {
            let mut requests = Requests::new(1024);
            for piece in bytes.chunks(step) {
                requests.watch(piece);
            }
            assert_eq!((requests.fine(), requests.fault()), (3, Some(Fault::Target)), "by {step}");
        }
    }

    #[test]
    fn hyper_gets_what_comes_before_a_broken_chunk() {
        let head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (body, good) in [(&b"1\r\nx\r\n0\r\n\r\n"[..], 11), (b"1\r\nxy", 4), (b"1;\0", 2), (b"x", 0)] {
            let mut requests = Requests::new(1024);
            assert_eq!(requests.watch(&[head, body].concat()), head.len() + good, "{body:?}");
        }
    }

    #[test]
    fn a_head_is_followed_as_far_as_it_may_be_long() {
        let head = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(100));
        for (limit, fine) in [(head.len(), 1), (head.len() - 1, 0)] {
            let mut requests = Requests::new(limit);
            for byte in head.as_bytes() {
                requests.watch(&[*byte]);
            }
            assert_eq!((requests.fine(), requests.fault().is_some()), (fine, fine == 0), "{limit}");
            assert!(requests.head.capacity() <= 2 * limit);
        }
    }
}
