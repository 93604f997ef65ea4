//! Where each response on a connection ends, read from the raw bytes (RFC 9112 §6.3).
//!
//! Knows the grammar of heads, chunks and trailer sections as the RFC writes it, without the leniency that
//! parsers allow themselves, and which request waits for an answer. What two readers could take for two
//! different messages is a [`Flaw`], and so is every byte that belongs to no response at all.
//! Holds of what passes one line at most, and no body.
//! Must not know: sockets, who else reads the bytes, what a response is for.

#[cfg(test)]
mod tests;

use super::flaw::Flaw;
use super::grammar::{has_controls, is_extensions, is_token, number, trimmed};

/// A line that gives a chunk's size, with its extensions, bytes at most: nobody knows any extension, so
/// none needs room.
const SIZE_LINE: usize = 4 * 1024;

/// How much of a response, its content aside, is read at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head, and of a trailer section.
    pub section: usize,
    /// Fields of a head, and of a trailer section.
    pub fields: usize,
    /// Interim responses before one final.
    pub interims: usize,
}

/// What the answer to a request depends on beside itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// HEAD: no content, whatever the head says.
    Head,
    /// CONNECT: what follows a 2xx is a tunnel.
    Connect,
    /// It has offered to switch protocols (RFC 9110 §7.8): a 101 may come.
    Upgrade,
    /// Anything else.
    Other,
}

/// What some bytes of a response are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A head, or what frames a chunk.
    Frame,
    /// Content.
    Content,
    /// Of a trailer section, its empty line among it.
    Trailer,
}

/// Follows the responses on one connection, one request at a time.
#[derive(Clone, Debug)]
pub struct ResponseScanner {
    limits: Limits,
    state: State,
    /// The start of a line whose end has not come.
    line: Vec<u8>,
    /// Bytes and fields of the section so far.
    bytes: usize,
    fields: usize,
    head: Head,
    asked: Asked,
    interims: usize,
    finals: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No answer is due.
    Idle,
    /// Before or within a status line.
    Status,
    /// Within a head's fields.
    Fields,
    /// Within content of which so many bytes are left.
    Content(u64),
    /// Before or within the line of a chunk's size.
    Size,
    /// Within a chunk of which so many bytes are left.
    Chunk(u64),
    /// Before the CR, and the LF, after a chunk.
    ChunkCr,
    ChunkLf,
    /// Within a trailer section.
    Trailers,
    /// All that comes is content.
    UntilClose,
    /// The answer to a HEAD brought content; nobody asks for anything any more.
    Beyond,
    /// Nothing may come any more.
    Over(Flaw),
    /// What comes is no HTTP.
    Tunnel,
}

/// What a head's fields have said of its framing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Head {
    minor: u8,
    status: u16,
    length: Option<u64>,
    chunked: bool,
}

impl ResponseScanner {
    /// Of a connection on which nothing has been sent.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Idle,
            line: Vec::new(),
            bytes: 0,
            fields: 0,
            head: Head::default(),
            asked: Asked::Other,
            interims: 0,
            finals: 0,
        }
    }

    /// The first byte of a request goes out: from now on an answer may come.
    pub fn ask(&mut self, asked: Asked) {
        self.state = match self.state {
            State::Idle => State::Status,
            // Two requests at a time are not for this: whose answer would be whose?
            State::Over(flaw) => State::Over(flaw),
            _ => State::Over(Flaw::Unasked),
        };
        self.asked = asked;
        self.interims = 0;
        self.begin_section();
    }

    /// No answer is due: whatever comes now belongs to no request.
    pub fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// The last request was a HEAD.
    pub fn is_of_head(&self) -> bool {
        self.asked == Asked::Head
    }

    /// Heads of final responses so far.
    pub fn finals(&self) -> u64 {
        self.finals
    }

    /// More came than the answer to a HEAD: that has ended, and so has the connection.
    pub fn is_beyond(&self) -> bool {
        self.state == State::Beyond
    }

    /// Takes what came next; gives how many bytes of it belong to responses. That is all, but where the answer to a
    /// HEAD brought content with its head: many servers send it by mistake. The head is then whole and means what it
    /// says, so it counts; what follows belongs to nobody, and neither does anything after it.
    ///
    /// # Errors
    /// With the first flaw. The connection is then of no use any more, and every further call says so.
    pub fn read(&mut self, bytes: &[u8]) -> Result<usize, Flaw> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = bytes.len().saturating_sub(rest.len());
            if self.state == State::Idle && self.asked == Asked::Head && taken > 0 {
                self.state = State::Beyond;
                return Ok(taken);
            }
            rest = self.step(rest).inspect_err(|flaw| self.state = State::Over(*flaw))?;
        }
        Ok(bytes.len())
    }

    /// Takes the beginning of what came next, as far as it is of one kind; gives how many bytes that is, and the kind.
    /// Of no bytes it takes none.
    ///
    /// # Errors
    /// As [`read`](Self::read); but what comes with the answer to a HEAD and does not belong to it is not forgiven.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(usize, Part), Flaw> {
        let part = match self.state {
            State::Content(_) | State::Chunk(_) | State::UntilClose | State::Tunnel => Part::Content,
            State::Trailers => Part::Trailer,
            _ => Part::Frame,
        };
        if bytes.is_empty() {
            return Ok((0, part));
        }
        let rest = self.step(bytes).inspect_err(|flaw| self.state = State::Over(*flaw))?;
        Ok((bytes.len().saturating_sub(rest.len()), part))
    }

    /// Interim responses to the last request so far.
    pub fn interims(&self) -> usize {
        self.interims
    }

    /// Bytes of content that are to come, where the head has said how many.
    pub fn content_left(&self) -> Option<u64> {
        match self.state {
            State::Content(left) => Some(left),
            _ => None,
        }
    }

    /// Whether the response ends with its connection (RFC 9112 §6.3, last rule).
    pub fn ends_with_connection(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Takes at least one byte, and gives what is left.
    fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Flaw> {
        match self.state {
            State::Idle | State::Beyond => Err(Flaw::Unasked),
            State::Over(flaw) => Err(flaw),
            State::UntilClose | State::Tunnel => Ok(&[]),
            State::Status | State::Fields | State::Size | State::Trailers => self.step_line(bytes),
            State::Content(left) => {
                let (left, rest) = skip(bytes, left);
                self.state = if left == 0 { State::Idle } else { State::Content(left) };
                Ok(rest)
            }
            State::Chunk(left) => {
                let (left, rest) = skip(bytes, left);
                self.state = if left == 0 { State::ChunkCr } else { State::Chunk(left) };
                Ok(rest)
            }
            State::ChunkCr => self.step_byte(bytes, b'\r', State::ChunkLf),
            State::ChunkLf => self.step_byte(bytes, b'\n', State::Size),
        }
    }

    fn step_byte<'a>(&mut self, bytes: &'a [u8], wanted: u8, then: State) -> Result<&'a [u8], Flaw> {
        let rest = bytes.strip_prefix(&[wanted]).ok_or(Flaw::Chunk)?;
        self.state = then;
        Ok(rest)
    }

    fn step_line<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Flaw> {
        let end = memchr::memchr(b'\n', bytes);
        let (line, rest) = bytes.split_at(end.map_or(bytes.len(), |at| at + 1));
        // What begins with anything else is not waited for.
        let mut begun = self.line.iter().chain(line).zip(b"HTTP/1.");
        if self.state == State::Status && !begun.all(|(came, due)| came == due) {
            return Err(Flaw::StatusLine);
        }
        self.bytes += line.len();
        let most = if self.state == State::Size { SIZE_LINE } else { self.limits.section };
        if self.bytes > most {
            return Err(Flaw::TooLarge);
        }
        if end.is_none() {
            self.line.extend_from_slice(line);
        } else if self.line.is_empty() {
            self.take_line(line)?;
        } else {
            let mut whole = std::mem::take(&mut self.line);
            whole.extend_from_slice(line);
            self.take_line(&whole)?;
        }
        Ok(rest)
    }

    /// RFC 9112 §2.2: lines end with CRLF. That a recipient MAY take a lone LF for it, and a bare CR for a
    /// space, is how two of them come to see two different messages.
    fn take_line(&mut self, line: &[u8]) -> Result<(), Flaw> {
        let line = line.strip_suffix(b"\r\n").ok_or(Flaw::BareLf)?;
        // No line may hold a control, so none with a CR is taken; only what is wrong with it has a name of its own.
        self.take_text(line).map_err(|flaw| if line.contains(&b'\r') { Flaw::BareCr } else { flaw })
    }

    fn take_text(&mut self, line: &[u8]) -> Result<(), Flaw> {
        match self.state {
            State::Status => self.status_line(line),
            State::Fields if line.is_empty() => self.end_of_head(),
            State::Fields => self.field(line),
            State::Trailers if line.is_empty() => {
                self.state = State::Idle;
                Ok(())
            }
            State::Trailers => self.trailer(line),
            _ => self.size_line(line),
        }
    }

    /// RFC 9112 §4: `HTTP-version SP status-code SP [ reason-phrase ]`. The second space is often left out
    /// with the reason, which nobody can misread.
    fn status_line(&mut self, line: &[u8]) -> Result<(), Flaw> {
        let Some(&[b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ (b'0' | b'1'), b' ', a, b, c]) =
            line.first_chunk()
        else {
            return Err(Flaw::StatusLine);
        };
        let reason = line.get(12..).unwrap_or_default();
        let status = [a, b, c].iter().try_fold(0, |sum, digit| match digit {
            b'0'..=b'9' => Some(sum * 10 + u16::from(digit - b'0')),
            _ => None,
        });
        // §15: "The first digit of the status code defines the class of response", from 1.
        let status = status.filter(|status| *status >= 100).ok_or(Flaw::StatusLine)?;
        if !(reason.is_empty() || reason.starts_with(b" ")) || has_controls(reason) {
            return Err(Flaw::StatusLine);
        }
        self.head = Head { minor: minor - b'0', status, ..Head::default() };
        self.state = State::Fields;
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Flaw> {
        let (name, value) = self.name_and_value(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            return self.length(value);
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return self.coding(value);
        }
        Ok(())
    }

    /// RFC 9110 §6.5.1: "fields that are necessary for message framing" are not for a trailer section;
    /// whoever merged them would find another end.
    fn trailer(&mut self, line: &[u8]) -> Result<(), Flaw> {
        let (name, _) = self.name_and_value(line)?;
        let framing = [&b"content-length"[..], b"transfer-encoding"];
        if framing.iter().any(|framing| name.eq_ignore_ascii_case(framing)) {
            return Err(Flaw::Trailer);
        }
        Ok(())
    }

    /// RFC 9112 §5: `field-name ":" OWS field-value OWS`.
    fn name_and_value<'a>(&mut self, line: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Flaw> {
        self.fields += 1;
        if self.fields > self.limits.fields {
            return Err(Flaw::TooLarge);
        }
        // §5.2: a line that begins with white space goes on with the field before, or is one of its own.
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err(Flaw::Folded);
        }
        // §5.1: "No whitespace is allowed between the field name and colon."
        let end = line.iter().position(|byte| !is_token(*byte)).filter(|end| *end > 0);
        let (name, rest) = line.split_at(end.ok_or(Flaw::FieldName)?);
        let value = rest.strip_prefix(b":").ok_or(Flaw::FieldName)?;
        // RFC 9110 §5.5: "Field values containing CR, LF, or NUL characters are invalid and dangerous".
        if has_controls(value) {
            return Err(Flaw::FieldValue);
        }
        Ok((name, trimmed(value)))
    }

    /// RFC 9112 §6.3: "a list or several lines of the same number" may be taken for that number, or
    /// refused; an origin that says it twice has put two messages together.
    fn length(&mut self, value: &[u8]) -> Result<(), Flaw> {
        if self.head.length.is_some() || value.contains(&b',') {
            return Err(Flaw::DoubledLength);
        }
        let length = number(value, 10).ok_or(Flaw::Length)?;
        self.head.length = Some(length);
        Ok(())
    }

    /// RFC 9112 §6.1: `chunked`, once. No other coding is ever asked for (there is no `TE`), `identity` is
    /// none any more (§7), and HTTP/1.0 has none at all.
    fn coding(&mut self, value: &[u8]) -> Result<(), Flaw> {
        if self.head.chunked || self.head.minor == 0 || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Flaw::Coding);
        }
        self.head.chunked = true;
        Ok(())
    }

    /// RFC 9112 §6.3, in its order.
    fn end_of_head(&mut self) -> Result<(), Flaw> {
        let Head { status, length, chunked, .. } = self.head;
        // "Such a message might indicate an attempt to perform request smuggling or response splitting".
        if chunked && length.is_some() {
            return Err(Flaw::LengthAndCoding);
        }
        let promises_content = chunked || length.is_some_and(|length| length > 0);
        // §6.1, RFC 9110 §8.6: "MUST NOT" in 1xx and 204; §15.3.6: nor may a 205 have content.
        if promises_content && (status < 200 || status == 204) || status == 205 && length > Some(0) {
            return Err(Flaw::Contentless);
        }
        self.begin_section();
        match status {
            101 => return self.switch(),
            ..200 => return self.interim(),
            _ => self.finals += 1,
        }
        self.state = match (self.asked, status) {
            (Asked::Head, _) | (_, 204 | 304) => State::Idle,
            (Asked::Connect, 200..300) => State::Tunnel,
            _ if chunked => State::Size,
            (_, 205) if length.is_none() => State::Over(Flaw::Contentless),
            _ => match length {
                Some(0) => State::Idle,
                Some(length) => State::Content(length),
                None => State::UntilClose,
            },
        };
        Ok(())
    }

    fn interim(&mut self) -> Result<(), Flaw> {
        self.interims += 1;
        if self.interims > self.limits.interims {
            return Err(Flaw::Interims);
        }
        self.state = State::Status;
        Ok(())
    }

    /// RFC 9110 §15.2.2: nobody switches protocols unasked.
    fn switch(&mut self) -> Result<(), Flaw> {
        if self.asked != Asked::Upgrade {
            return Err(Flaw::UnaskedUpgrade);
        }
        self.finals += 1;
        self.state = State::Tunnel;
        Ok(())
    }

    /// RFC 9112 §7.1: `chunk-size [ chunk-ext ] CRLF`.
    fn size_line(&mut self, line: &[u8]) -> Result<(), Flaw> {
        let end = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
        let (digits, extensions) = line.split_at(end);
        let size = number(digits, 16).ok_or(Flaw::Chunk)?;
        if !is_extensions(extensions) {
            return Err(Flaw::Chunk);
        }
        if size > 0 && self.head.status == 205 {
            return Err(Flaw::Contentless);
        }
        self.begin_section();
        self.state = if size == 0 { State::Trailers } else { State::Chunk(size) };
        Ok(())
    }

    fn begin_section(&mut self) {
        (self.bytes, self.fields) = (0, 0);
    }
}

/// What is left of `left` bytes after `bytes`, and of `bytes` after them.
fn skip(bytes: &[u8], left: u64) -> (u64, &[u8]) {
    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    (left.saturating_sub(taken as u64), bytes.get(taken..).unwrap_or_default())
}
