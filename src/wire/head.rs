//! The lines of a head, and what in them decides where the message ends.
//!
//! Knows what a line may not hold, and the two fields of framing (RFC 9112 §6.1, §6.2).
//! Must not know: any other field, whether the head is a request's.

use std::fmt;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::grammar::{is_token, trimmed};

/// The largest length that every recipient can hold.
pub(super) const LONGEST: u64 = i64::MAX as u64;

/// Bytes of a line that frames at most: what is longer is no honest length, and no list of codings.
pub(super) const LONG: usize = 256;

/// The fields that frame, in lower case.
const LENGTH: &[u8] = b"content-length:";
const CODING: &[u8] = b"transfer-encoding:";

/// Why nothing that such a head asks for may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A line does not end in CRLF, or CR stands within one (hyper itself sees to NUL). RFC 9112 §2.2: a recipient "MAY
    /// recognize a single LF as a line terminator", so some do and some do not.
    Line,
    /// A line begins with white space. RFC 9112 §5.2: "either reject the message ... or replace each
    /// received obs-fold"; §2.2: the same before the first field.
    Fold,
    /// A fragment, a control, or a byte that is not ASCII stands in the target (RFC 9112 §3.2, RFC 3986).
    Target,
    /// More than one Content-Length, a list of them, or what is no number up to 2^63-1 (RFC 9110 §8.6).
    Length,
    /// Both a Content-Length and a Transfer-Encoding. RFC 9112 §6.1: "ought to be handled as an error".
    LengthAndCoding,
    /// A Transfer-Encoding that is not one `chunked`: there is no second way to read that.
    Coding,
    /// Codings that are well-formed, but unknown here. RFC 9112 §6.1: a server "SHOULD respond with 501".
    UnknownCoding,
    /// A chunked body that is none (RFC 9112 §7.1): of the request before, whose end is not known.
    Chunks,
    /// The scanner did not see a head where hyper did.
    Lost,
}

impl Fault {
    /// Every fault, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Line,
        Self::Fold,
        Self::Target,
        Self::Length,
        Self::LengthAndCoding,
        Self::Coding,
        Self::UnknownCoding,
        Self::Chunks,
        Self::Lost,
    ];

    /// What is wrong, as a sentence.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Line => "each line of the head must end in CRLF and hold no CR or LF",
            Self::Fold => "a line of the head begins with white space",
            Self::Target => "the target holds a fragment or bytes that a URI cannot hold: encode them",
            Self::Length => "Content-Length must be one number, given once, up to 2^63-1",
            Self::LengthAndCoding => "Content-Length and Transfer-Encoding exclude each other",
            Self::Coding => "Transfer-Encoding must be chunked, once, and nothing else",
            Self::UnknownCoding => "no transfer coding is known here but chunked",
            Self::Chunks => "the chunked body is malformed",
            Self::Lost => "it is not clear where the head begins: each line must end in CRLF",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The lines of a head, each without its CRLF.
#[derive(Clone, Debug)]
pub struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    /// Of the bytes of a head.
    pub const fn new(head: &'a [u8]) -> Self {
        Self { rest: head }
    }

    /// What follows those that have been given.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let end = memchr::memchr2(b'\r', b'\n', self.rest).unwrap_or(self.rest.len());
        let (line, rest) = self.rest.split_at_checked(end)?;
        let after = rest.strip_prefix(b"\r\n");
        self.rest = after.unwrap_or_default();
        Some(after.map(|_| line).ok_or(Fault::Line))
    }
}

/// What a head says of where its message ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Framing {
    /// It says `Transfer-Encoding: chunked`.
    pub chunked: bool,
    /// Its Content-Length.
    pub length: Option<u64>,
}

impl Framing {
    /// From the field lines of a head.
    ///
    /// # Errors
    /// Where that could be read in more than one way.
    pub fn of(lines: Lines<'_>) -> Result<Self, Fault> {
        let mut framing = Self::default();
        for line in lines {
            let line = line?;
            framing.take(line.first().copied(), line, line.len())?;
        }
        framing.judged()
    }

    /// Whether a line that begins so may be one of the fields.
    pub(super) const fn may_frame(begins: Option<u8>) -> bool {
        matches!(begins, Some(b'c' | b'C' | b't' | b'T'))
    }

    /// Whether a line may be one of the fields by its beginning.
    pub(super) fn may_be(line: &[u8]) -> bool {
        [LENGTH, CODING].iter().any(|name| {
            let both = line.len().min(name.len());
            line.get(..both).zip(name.get(..both)).is_some_and(|(line, name)| line.eq_ignore_ascii_case(name))
        })
    }

    /// Takes a line of `len` bytes, of which only those need be given that say what they frame.
    pub(super) fn take(&mut self, begins: Option<u8>, line: &[u8], len: usize) -> Result<(), Fault> {
        match begins {
            Some(b' ' | b'\t') => Err(Fault::Fold),
            Some(b'c' | b'C') => self.take_length(line, len),
            Some(b't' | b'T') => self.take_coding(line, len),
            _ => Ok(()),
        }
    }

    /// What all lines come to.
    pub(super) const fn judged(self) -> Result<Self, Fault> {
        if self.chunked && self.length.is_some() {
            return Err(Fault::LengthAndCoding);
        }
        Ok(self)
    }

    fn take_length(&mut self, line: &[u8], len: usize) -> Result<(), Fault> {
        let Some(value) = value_of(line, LENGTH) else { return Ok(()) };
        if len > LONG {
            return Err(Fault::Length);
        }
        let digits = value.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
        let length = number.filter(|length| *length <= LONGEST).ok_or(Fault::Length)?;
        match self.length.replace(length) {
            None => Ok(()),
            Some(_) => Err(Fault::Length),
        }
    }

    fn take_coding(&mut self, line: &[u8], len: usize) -> Result<(), Fault> {
        let Some(value) = value_of(line, CODING) else { return Ok(()) };
        if len > LONG {
            return Err(Fault::Coding);
        }
        if value.eq_ignore_ascii_case(b"chunked") {
            return if std::mem::replace(&mut self.chunked, true) { Err(Fault::Coding) } else { Ok(()) };
        }
        let known: [&[u8]; 2] = [b"chunked", b"identity"];
        let mut codings = value.rsplitn(2, |byte| *byte == b',').map(<[u8]>::trim_ascii);
        let ends_chunked = codings.next().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
        let others = codings.next().unwrap_or_default().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let unknown = |coding: &[u8]| {
            !coding.is_empty()
                && coding.iter().all(|byte| is_token(*byte))
                && !known.iter().any(|known| known.eq_ignore_ascii_case(coding))
        };
        let clear = ends_chunked && !self.chunked && others.into_iter().all(unknown);
        Err(if clear { Fault::UnknownCoding } else { Fault::Coding })
    }
}

/// A field's value, if the line is one of this name; `name` is in lower case and ends in a colon.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    // RFC 9112 §5: white space around the value is SP and HTAB.
    start.eq_ignore_ascii_case(name).then(|| trimmed(value))
}

/// Made once: a search for four bytes costs less than its preparation.
static END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));

/// Where the first head ends, its empty line included.
pub(super) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    END.find(bytes).map(|at| at + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_way_to_read_the_framing_or_none() {
        let chunked = Ok(Framing { chunked: true, length: None });
        let of_length = |length| Ok(Framing { chunked: false, length: Some(length) });
        let rows: &[(&str, Result<Framing, Fault>)] = &[
            ("", Ok(Framing::default())),
            ("X: y\r\n", Ok(Framing::default())),
            ("Content-Length: 5\r\n", of_length(5)),
            ("content-length:\t 05 \r\n", of_length(5)),
            ("Content-Length: 9223372036854775807\r\n", of_length(LONGEST)),
            ("Transfer-Encoding: chunked\r\n", chunked),
            ("TRANSFER-ENCODING:ChUnKeD\t\r\n", chunked),
            // RFC 9110 §8.6.
            ("Content-Length: 9223372036854775808\r\n", Err(Fault::Length)),
            ("Content-Length: 99999999999999999999\r\n", Err(Fault::Length)),
            ("Content-Length: +5\r\n", Err(Fault::Length)),
            ("Content-Length: -5\r\n", Err(Fault::Length)),
            ("Content-Length: 0x5\r\n", Err(Fault::Length)),
            ("Content-Length: 5 5\r\n", Err(Fault::Length)),
            ("Content-Length: 5, 5\r\n", Err(Fault::Length)),
            ("Content-Length: \r\n", Err(Fault::Length)),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Err(Fault::Length)),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", Err(Fault::Length)),
            // RFC 9112 §6.1.
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Err(Fault::LengthAndCoding)),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Err(Fault::LengthAndCoding)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(Fault::Coding)),
            ("Transfer-Encoding: chunked, chunked\r\n", Err(Fault::Coding)),
            ("Transfer-Encoding: identity, chunked\r\n", Err(Fault::Coding)),
            ("Transfer-Encoding: ,chunked\r\n", Err(Fault::Coding)),
            ("Transfer-Encoding: chunked,\r\n", Err(Fault::Coding)),
            ("Transfer-Encoding: chunked, identity\r\n", Err(Fault::Coding)),
            ("Transfer-Encoding: identity\r\n", Err(Fault::Coding)),
            ("Transfer-Encoding: xchunked\r\n", Err(Fault::Coding)),
            ("Transfer-Encoding: \"chunked\"\r\n", Err(Fault::Coding)),
            ("Transfer-Encoding: chunked;q=1\r\n", Err(Fault::Coding)),
            ("Transfer-Encoding: \x0bchunked\r\n", Err(Fault::Coding)),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(Fault::UnknownCoding)),
            ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", Err(Fault::Coding)),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n", Err(Fault::Coding)),
            // §2.2, §5.2.
            ("X: y\n", Err(Fault::Line)),
            ("X: y", Err(Fault::Line)),
            ("X: y\rz\r\n", Err(Fault::Line)),
            ("X: y\r\r\n", Err(Fault::Line)),
            ("X: y\r\n z\r\n", Err(Fault::Fold)),
            ("\tX: y\r\n", Err(Fault::Fold)),
        ];
        for (head, want) in rows {
            assert_eq!(Framing::of(Lines::new(head.as_bytes())), *want, "{head:?}");
        }
    }

    #[test]
    fn all_faults_are_in_order() {
        for (number, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, number);
        }
    }
}
