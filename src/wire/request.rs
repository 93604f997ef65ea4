//! Watches the bytes that a client sends, and judges each head as it goes by.
//!
//! Knows where requests begin and end. Must not know: hyper, sockets, what is done with a verdict.

use super::chunks::Chunks;
use super::head::{Fault, Framing, LONG, Lines, end_of_head};

/// Watches one connection's requests.
#[derive(Debug)]
pub struct Requests {
    at: At,
    /// What has come of a head that does not come in one piece.
    head: Partial,
    /// What has come of a head that may not be served, and after it; `None` where it is no head that comes.
    refused: Option<usize>,
    /// Bytes of a head at most.
    limit: usize,
    fine: u64,
    /// Empty lines have gone by, which hyper keeps until the next head has come.
    loose: bool,
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
        Self { at: At::Head, head: Partial::new(), refused: None, limit, fine: 0, loose: false }
    }

    /// How many heads have gone by that may be served.
    pub const fn fine(&self) -> u64 {
        self.fine
    }

    /// What is wrong with the head after those.
    pub const fn fault(&self) -> Option<Fault> {
        if let At::Over(fault) = self.at { Some(fault) } else { None }
    }

    /// Whether nothing has come of the next head, not even an empty line before it, and nothing is left of the message
    /// before.
    pub const fn is_at_rest(&self) -> bool {
        matches!(self.at, At::Head) && self.head.is_empty() && !self.loose
    }

    /// How much has come of a head that is not whole, as far as can be told: of one that may not be served nobody
    /// looks for the end here, and hyper holds all that comes until it has found it.
    pub fn partial(&self) -> usize {
        self.refused.unwrap_or(self.head.seen)
    }

    /// Watches no longer: what follows is not HTTP.
    pub fn stop(&mut self) {
        self.end(Fault::Lost);
        self.refused = None;
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
                At::Over(_) => {
                    if let Some(refused) = &mut self.refused {
                        *refused = refused.saturating_add(bytes.len());
                    }
                    break;
                }
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
            (bytes, self.loose) = (rest, true);
        }
        // Almost always a head comes in one piece, and is looked at where it lies.
        if self.head.is_empty()
            && let Some((framing, rest)) = served(bytes)
        {
            self.judged(Ok(framing));
            return rest;
        }
        if self.head.is_empty()
            && let Some(end) = end_of_head(bytes)
            && let Some((head, rest)) = bytes.split_at_checked(end)
        {
            self.judged(framing(head));
            return rest;
        }
        let room = self.limit.saturating_sub(self.head.seen);
        let (fits, over) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
        match self.head.watch(fits) {
            Ok(None) if over.is_empty() => {
                self.loose |= self.head.is_empty();
                &[]
            }
            Ok(None) => {
                self.end(Fault::Lost);
                &[]
            }
            Ok(Some((framing, left))) => {
                self.judged(Ok(framing));
                bytes.get(bytes.len().saturating_sub(left + over.len())..).unwrap_or_default()
            }
            Err(fault) => {
                self.end(fault);
                &[]
            }
        }
    }

    fn judged(&mut self, head: Result<Framing, Fault>) {
        (self.head, self.loose) = (Partial::new(), false);
        match head {
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
        (self.at, self.refused) = (At::Over(fault), Some(self.head.seen));
        self.head = Partial::new();
    }
}

/// The same of one that may be served, and what follows it, in one pass; `None` where it is not whole, or may not be.
fn served(bytes: &[u8]) -> Option<(Framing, &[u8])> {
    let mut lines = Lines::new(bytes);
    let mut request_line = RequestLine::default();
    request_line.watch(lines.next()?.ok()?);
    request_line.judge().ok()?;
    let mut framing = Framing::default();
    loop {
        match lines.next()?.ok()? {
            [] => return Some((framing.judged().ok()?, lines.rest())),
            line => framing.take(line.first().copied(), line, line.len()).ok()?,
        }
    }
}

/// How a request is framed that may be served.
fn framing(head: &[u8]) -> Result<Framing, Fault> {
    let mut lines = Lines::new(head.strip_suffix(b"\r\n").unwrap_or(head));
    let first = lines.next().unwrap_or(Err(Fault::Lost))?;
    let mut request_line = RequestLine::default();
    request_line.watch(first);
    request_line.judge()?;
    Framing::of(lines)
}

/// A request line as far as it has come. RFC 9112 §3: what is none, hyper refuses.
#[derive(Clone, Copy, Debug, Default)]
struct RequestLine {
    spaces: usize,
    /// A byte that no URI can hold stands in the target, or a space.
    bad: bool,
}

impl RequestLine {
    fn watch(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match (byte, self.spaces) {
                (b' ', _) => {
                    self.spaces = self.spaces.saturating_add(1);
                    self.bad |= self.spaces > 2;
                }
                (byte, 1) => self.bad |= !matches!(byte, b'!'..=b'~') || *byte == b'#',
                _ => {}
            }
        }
    }

    fn judge(self) -> Result<(), Fault> {
        if self.bad { Err(Fault::Target) } else { Ok(()) }
    }
}

/// A head that comes in pieces: what was seen of it, and not its bytes, which hyper holds already. A client that
/// never comes to the end would else have them held twice.
#[derive(Debug)]
struct Partial {
    /// Bytes of it that have gone by.
    seen: usize,
    /// The line that is coming is the first.
    first: bool,
    request_line: RequestLine,
    framing: Framing,
    /// Bytes of this line.
    len: usize,
    /// Its first byte.
    begins: Option<u8>,
    /// Its beginning, as long as it may be a field that frames.
    field: Vec<u8>,
    /// A CR has ended it, whose LF is yet to come.
    cr: bool,
}

impl Partial {
    const fn new() -> Self {
        Self {
            seen: 0,
            first: true,
            request_line: RequestLine { spaces: 0, bad: false },
            framing: Framing { chunked: false, length: None },
            len: 0,
            begins: None,
            field: Vec::new(),
            cr: false,
        }
    }

    const fn is_empty(&self) -> bool {
        self.seen == 0
    }

    /// Watches further bytes. Where the head ends in them, how it is framed, and how many of them follow it.
    fn watch(&mut self, mut bytes: &[u8]) -> Result<Option<(Framing, usize)>, Fault> {
        self.seen = self.seen.saturating_add(bytes.len());
        loop {
            if self.cr {
                let Some((&byte, rest)) = bytes.split_first() else { return Ok(None) };
                if byte != b'\n' {
                    return Err(Fault::Line);
                }
                bytes = rest;
                if self.line()? {
                    return self.framing.judged().map(|framing| Some((framing, bytes.len())));
                }
                if self.first {
                    // An empty line before the first has gone by: the head begins with what is left.
                    self.seen = bytes.len();
                }
                continue;
            }
            let end = memchr::memchr2(b'\r', b'\n', bytes).unwrap_or(bytes.len());
            let (piece, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
            self.piece(piece);
            let Some((&byte, rest)) = rest.split_first() else { return Ok(None) };
            if byte == b'\n' {
                return Err(Fault::Line);
            }
            (self.cr, bytes) = (true, rest);
        }
    }

    /// More of a line.
    fn piece(&mut self, piece: &[u8]) {
        if self.first {
            self.request_line.watch(piece);
        } else {
            self.begins = self.begins.or(piece.first().copied());
            let room = LONG.saturating_sub(self.field.len());
            if self.field.len() == self.len && Framing::may_frame(self.begins) {
                self.field.extend_from_slice(piece.get(..room.min(piece.len())).unwrap_or_default());
                if !Framing::may_be(&self.field) {
                    self.field = Vec::new();
                }
            }
        }
        self.len = self.len.saturating_add(piece.len());
    }

    /// A line has ended; `true` where it is the one after the last.
    fn line(&mut self) -> Result<bool, Fault> {
        let (first, len) = (self.first, self.len);
        if len == 0 && first {
            // The CR of an empty line before the first had come alone.
            *self = Self::new();
            return Ok(false);
        }
        if len == 0 {
            return Ok(true);
        }
        match first {
            true => self.request_line.judge()?,
            false => self.framing.take(self.begins, &self.field, len)?,
        }
        (self.first, self.len, self.begins, self.cr) = (false, 0, None, false);
        self.field.clear();
        Ok(false)
    }
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
    fn an_empty_line_in_pieces_before_a_head_swallows_nothing_of_it() {
        let mut requests = Requests::new(1024);
        for piece in ["\r", "\n\r\nPOST / HTTP/1.1", "\r\nTransfer-Encoding:chunked\r\n\r\n", "0\r\n\r\n"] {
            requests.watch(piece.as_bytes());
        }
        assert_eq!((requests.fine(), requests.fault()), (1, None), "the content is none of the next head");
        requests.watch(b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!((requests.fine(), requests.fault()), (2, None));
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
    fn it_is_at_rest_where_hyper_has_nothing_left_to_read() {
        for (bytes, is_at_rest) in [
            ("", true),
            ("GET / HTTP/1.1\r\n\r\n", true),
            ("G", false),
            ("\r", false),
            ("\r\n", false),
            ("\r\n\r\n", false),
            ("\r\nGET / HTTP/1.1\r\n\r\n", true),
            ("GET / HTTP/1.1\r\n\r\n\r\n", false),
            ("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\na", false),
            ("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab", true),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", false),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", true),
            ("GET /# HTTP/1.1\r\n\r\n", false),
        ] {
            for step in [1, 2, bytes.len().max(1)] {
                let mut requests = Requests::new(1024);
                bytes.as_bytes().chunks(step).for_each(|piece| _ = requests.watch(piece));
                assert_eq!(requests.is_at_rest(), is_at_rest, "{bytes:?} by {step}");
            }
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
        }
    }
    #[test]
    fn a_head_in_pieces_is_judged_as_one_that_comes_whole() {
        let long = format!("GET / HTTP/1.1\r\nContent-Length:{}5\r\n\r\n", " ".repeat(LONG));
        let zeros = format!("POST / HTTP/1.1\r\nContent-Length: {}5\r\n\r\n", "0".repeat(200));
        let codings = format!("GET / HTTP/1.1\r\nTransfer-Encoding: {}chunked\r\n\r\n", "a,".repeat(LONG));
        let heads = [
            "GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / / HTTP/1.1\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET /\r\n\r\n",
            "GET\r\n\r\n",
            "GET /# HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1é\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\ncontent-lengt: x\r\nC\r\nt:\r\nCookie: c=d\r\nContent-Length: 5\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            "GET / HTTP/1.1\r\nCONTENT-LENGTH:\t5 \r\nTransfer-encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\ntransfer-encodings: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n c: d\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\r\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\n\r\n\r\n",
            &long,
            &zeros,
            &codings,
        ];
        for head in heads {
            let whole = watched(head.as_bytes());
            for step in 1..head.len() {
                let mut requests = Requests::new(1024);
                head.as_bytes().chunks(step).for_each(|piece| {
                    requests.watch(piece);
                });
                assert_eq!((requests.fine(), requests.fault()), whole, "{head:?} by {step}");
            }
        }
        assert_eq!(watched(long.as_bytes()).1, Some(Fault::Length));
        assert_eq!(watched(codings.as_bytes()).1, Some(Fault::Coding));
        assert_eq!(watched(zeros.as_bytes()), (1, None));
    }

    #[test]
    fn nothing_is_held_of_a_head_that_does_not_end() {
        for line in ["X: ", "Content-Length: ", "Transfer-Encoding: ", "Cookie: ", ""] {
            let mut requests = Requests::new(1 << 20);
            requests.watch(b"GET / HTTP/1.1\r\n");
            requests.watch(line.as_bytes());
            for _ in 0..1_000 {
                requests.watch(&[b'a'; 100]);
                assert!(requests.head.field.capacity() <= 2 * LONG, "{line}");
            }
            assert_eq!(requests.fault(), None, "{line}");
        }
    }
}
