//! The chunked coding, only as far as to know where it ends (RFC 9112 §7.1).
//!
//! Knows chunk sizes, extensions and the trailer section's lines. Must not know: what is in them.

use super::head::LONGEST;

/// How far a chunked body has gone by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunks {
    at: At,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In the digits of a size; whether there was one.
    Size {
        so_far: u64,
        digits: bool,
    },
    /// In white space or an extension after the size.
    Extension {
        size: u64,
    },
    /// Before the LF of a size's line.
    SizeLf {
        size: u64,
    },
    /// In a chunk's data.
    Data {
        left: u64,
    },
    /// Before the CR, then the LF, that end a chunk.
    DataCr,
    DataLf,
    /// In a line of the trailer section; whether it has any byte yet.
    Trailer {
        empty: bool,
    },
    /// Before the LF of such a line.
    TrailerLf {
        empty: bool,
    },
    /// Past the last byte.
    End,
}

/// These bytes are not chunked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotChunked {
    /// How many of them, at their end, begin with the first that is wrong.
    pub left: usize,
}

impl Default for Chunks {
    fn default() -> Self {
        Self::new()
    }
}

impl Chunks {
    /// Before the first byte.
    pub const fn new() -> Self {
        Self { at: At::Size { so_far: 0, digits: false } }
    }

    /// Whether all has gone by.
    pub fn is_over(&self) -> bool {
        self.at == At::End
    }

    /// Watches further bytes; returns what follows the body's last byte, if that is among them.
    ///
    /// # Errors
    /// Where the coding is broken, and where it could be read in two ways: what ends in a lone LF.
    pub fn watch<'a>(&mut self, mut bytes: &'a [u8]) -> Result<&'a [u8], NotChunked> {
        while self.at != At::End {
            if let At::Data { left } = self.at {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                let Some(rest) = bytes.get(here..) else { return Ok(bytes) };
                let left = left.saturating_sub(u64::try_from(here).unwrap_or(u64::MAX));
                bytes = rest;
                self.at = if left == 0 { At::DataCr } else { At::Data { left } };
            }
            let Some((&byte, rest)) = bytes.split_first() else { return Ok(bytes) };
            self.at = self.at.after(byte).ok_or(NotChunked { left: bytes.len() })?;
            bytes = rest;
        }
        Ok(bytes)
    }
}

impl At {
    fn after(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Size { so_far, .. }, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                let so_far = so_far.checked_mul(16).and_then(|so_far| so_far.checked_add(digit));
                let so_far = so_far.filter(|size| *size <= LONGEST)?;
                Self::Size { so_far, digits: true }
            }
            (Self::Size { so_far: size, digits: true }, b'\r') => Self::SizeLf { size },
            (Self::Size { so_far: size, digits: true }, b' ' | b'\t' | b';') => Self::Extension { size },
            (Self::Extension { size }, b'\r') => Self::SizeLf { size },
            // A lone LF ends the line for some, and is part of the extension for others.
            (Self::Extension { size }, byte) if is_text(byte) => Self::Extension { size },
            (Self::SizeLf { size: 0 }, b'\n') => Self::Trailer { empty: true },
            (Self::SizeLf { size: left }, b'\n') => Self::Data { left },
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::Size { so_far: 0, digits: false },
            (Self::Trailer { empty }, b'\r') => Self::TrailerLf { empty },
            (Self::Trailer { .. }, byte) if is_text(byte) => Self::Trailer { empty: false },
            (Self::TrailerLf { empty: true }, b'\n') => Self::End,
            (Self::TrailerLf { empty: false }, b'\n') => Self::Trailer { empty: true },
            _ => return None,
        })
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunked_body_ends_where_rfc_9112_7_1_says() {
        type Row<'a> = (&'a [u8], Result<Option<&'a [u8]>, usize>);
        let rows: &[Row<'_>] = &[
            (b"0\r\n\r\nGET", Ok(Some(b"GET"))),
            (b"5\r\nhello\r\n0\r\n\r\n", Ok(Some(b""))),
            (b"5;a=b\r\nhello\r\n00\r\nX: y\r\n\r\nz", Ok(Some(b"z"))),
            (b"A \r\n0123456789\r\n0\r\n\r\n", Ok(Some(b""))),
            (b"5\r\nhel", Ok(None)),
            (b"0\r\nX: y\r\n", Ok(None)),
            (b"", Ok(None)),
            // Nothing before the size, and no other way to write it.
            (b"\r\n", Err(2)),
            (b" 5\r\n", Err(4)),
            (b"0x5\r\n", Err(4)),
            (b"-1\r\n", Err(4)),
            (b"+5\r\n", Err(4)),
            (b"FFFFFFFFFFFFFFFFF\r\n", Err(4)),
            (b"8000000000000000\r\n", Err(3)),
            (b"7fffffffffffffff\r\n", Ok(None)),
            (b"5;a\0b\r\n", Err(4)),
            (b"0\r\nX: \0\r\n", Err(3)),
            (b"0\r\n\n", Err(1)),
            // Each line ends in CRLF.
            (b"5\nhello", Err(6)),
            (b"5;a\nhello", Err(6)),
            (b"5\rhello", Err(5)),
            (b"5\r\nhelloX", Err(1)),
            (b"5\r\nhello\n0\r\n\r\n", Err(6)),
            (b"0\r\nX: y\n\r\n", Err(3)),
            (b"0\r\nX: y\rz\r\n", Err(3)),
        ];
        for (bytes, want) in rows {
            let mut chunks = Chunks::new();
            let got =
                chunks.watch(bytes).map(|rest| chunks.is_over().then_some(rest)).map_err(|not| not.left);
            assert_eq!(got, *want, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn it_does_not_matter_how_the_bytes_come() {
        let body = b"5;x\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\nA: b\r\nC: d\r\n\r\n";
        for at in 0..body.len() {
            let (first, second) = body.split_at(at);
            let mut chunks = Chunks::new();
            assert_eq!(chunks.watch(first), Ok(&b""[..]));
            assert!(!chunks.is_over());
            assert_eq!(chunks.watch(second), Ok(&b""[..]));
            assert!(chunks.is_over(), "cut at {at}");
        }
    }
}
