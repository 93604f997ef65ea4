//! Where each answer of Redis ends, in a stream of bytes.
//!
//! Knows the frame of an answer, and what one to our questions can be: a line, or a string of bounded
//! length, or where that is expected an array with so many members in all. All of an answer is kept in memory until
//! it has come to its end, so one that is too long, or of a kind that nobody asked for, is refused when its first bytes
//! come. Costs a few steps for each answer and each read, whatever their length.
//! Must not know: what is asked, or what an answer means.

use std::io;

/// Bytes of a line: a status, a number, or an error with its sentence.
const LINE: usize = 16 * 1024;

/// Tells frames apart in a stream of bytes that comes in pieces.
#[derive(Debug)]
pub(super) struct Frames {
    longest: u64,
    /// Members that a frame may have in all; none: it is no array.
    arrays: u64,
    at: At,
    /// Values that are still to come until this frame ends.
    due: u64,
    /// Members of this frame so far.
    members: u64,
    /// Bytes of the strings in this frame so far.
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
enum At {
    Start,
    /// In a line; `ending` after its CR.
    Line {
        kind: u8,
        length: usize,
        number: Number,
        ending: bool,
    },
    /// In a string of which so much is left, its line's end included.
    String {
        left: u64,
    },
}

/// What a line says, as far as it is a number.
#[derive(Clone, Copy, Debug)]
enum Number {
    None,
    Minus,
    Below,
    Is(u64),
    Never,
}

impl Number {
    fn then(self, byte: u8) -> Self {
        let digit = u64::from(byte.wrapping_sub(b'0'));
        match (self, byte) {
            (Self::None, b'-') => Self::Minus,
            (Self::Minus | Self::Below, b'0'..=b'9') => Self::Below,
            (Self::None, b'0'..=b'9') => Self::Is(digit),
            (Self::Is(number), b'0'..=b'9') => {
                number.checked_mul(10).and_then(|n| n.checked_add(digit)).map_or(Self::Never, Self::Is)
            }
            _ => Self::Never,
        }
    }
}

impl Frames {
    /// Strings may have `longest` bytes. A frame may be an array of so many members in all; then its strings have no
    /// more bytes together than one may have.
    pub(super) const fn new(longest: u64, arrays: u64) -> Self {
        Self { longest, arrays, at: At::Start, due: 0, members: 0, bytes: 0 }
    }

    /// Goes on with these bytes. Gives how many of them are up to the end of a frame, which is where the next begins;
    /// `None` where all are of one that goes on.
    ///
    /// # Errors
    /// They are no answer.
    pub(super) fn end_in(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let mut taken = 0;
        while let Some(&byte) = bytes.get(taken) {
            let has_ended = if let At::String { left } = self.at {
                let here = bytes.len() - taken;
                let skipped = here.min(usize::try_from(left).unwrap_or(here));
                taken += skipped;
                match left.saturating_sub(skipped as u64) {
                    0 => self.end(),
                    left => {
                        self.at = At::String { left };
                        false
                    }
                }
            } else {
                taken += 1;
                self.step(byte)?
            };
            if has_ended {
                return Ok(Some(taken));
            }
        }
        Ok(None)
    }

    /// Bytes that are still to come at least, where a string is under way.
    pub(super) const fn left(&self) -> u64 {
        if let At::String { left } = self.at { left } else { 0 }
    }

    /// Takes one byte, outside of strings; gives whether a frame ends with it.
    fn step(&mut self, byte: u8) -> io::Result<bool> {
        let At::Line { kind, length, number, ending } = self.at else { return self.begin(byte) };
        if length >= LINE {
            return Err(no_answer("a line without an end"));
        }
        let length = length.saturating_add(1);
        match (ending, byte) {
            (true, b'\n') => return self.line(kind, number),
            // A CR that ended nothing belongs to the line.
            (_, b'\r') => self.at = At::Line { kind, length, number, ending: true },
            _ => self.at = At::Line { kind, length, number: number.then(byte), ending: false },
        }
        Ok(false)
    }

    fn begin(&mut self, kind: u8) -> io::Result<bool> {
        let known = matches!(kind, b'+' | b'-' | b':' | b'$') || (kind == b'*' && self.arrays > 0);
        if !known {
            return Err(no_answer("an answer of a kind that nobody asked for"));
        }
        self.at = At::Line { kind, length: 0, number: Number::None, ending: false };
        Ok(false)
    }

    fn line(&mut self, kind: u8, number: Number) -> io::Result<bool> {
        Ok(match (kind, number) {
            (b'$', Number::Is(length)) if length <= self.longest.saturating_sub(self.bytes) => {
                self.bytes = self.bytes.saturating_add(length);
                self.at = At::String { left: length.saturating_add(2) };
                false
            }
            // Nothing is there.
            (b'$' | b'*', Number::Below) => self.end(),
            (b'$', _) => return Err(no_answer("a string that is too long")),
            (b'*', Number::Is(members)) if members <= self.arrays.saturating_sub(self.members) => {
                self.members = self.members.saturating_add(members);
                // The array itself was one of those that were due.
                self.due = self.due.max(1).saturating_add(members);
                self.end()
            }
            (b'*', _) => return Err(no_answer("an array that is too long")),
            _ => self.end(),
        })
    }

    /// A value has ended; gives whether the frame has.
    fn end(&mut self) -> bool {
        self.at = At::Start;
        self.due = self.due.saturating_sub(1);
        if self.due == 0 {
            (self.members, self.bytes) = (0, 0);
        }
        self.due == 0
    }
}

fn no_answer(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answers(bytes: &[u8], piece: usize) -> Result<u64, String> {
        answers_with(0, bytes, piece)
    }

    fn answers_with(arrays: u64, bytes: &[u8], piece: usize) -> Result<u64, String> {
        let (mut frames, mut ended) = (Frames::new(100, arrays), 0);
        for mut piece in bytes.chunks(piece) {
            while let Some(end) = frames.end_in(piece).map_err(|error| error.to_string())? {
                ended += 1;
                piece = &piece[end..];
            }
        }
        Ok(ended)
    }

    #[test]
    fn what_answers_a_question_passes_and_is_counted() {
        let all = b"+OK\r\n:12\r\n-ERR no\r\n$3\r\na\r\n\r\n$-1\r\n$0\r\n\r\n+a\rb\r\r\n";
        for piece in 1..=all.len() {
            assert_eq!(answers(all, piece), Ok(7), "in pieces of {piece}");
        }
        assert_eq!(answers(b"$100\r\n", 9), Ok(0), "not yet at its end");
    }

    #[test]
    fn what_answers_no_question_is_refused_at_its_first_bytes() {
        for (bytes, why) in [
            (&b"$101\r\n"[..], "too long"),
            (b"$536870912\r\n", "too long"),
            (b"$99999999999999999999999\r\n", "too long"),
            (b"$x\r\n", "too long"),
            (b"$\r\n", "too long"),
            (b"$1 \r\n", "too long"),
            (b"*1000000000\r\n", "nobody asked"),
            (b"*1\r\n$1\r\nx\r\n", "nobody asked"),
            (b"%1\r\n", "nobody asked"),
            (b"|1\r\n", "nobody asked"),
            (b">1\r\n", "nobody asked"),
            (b"=1\r\n", "nobody asked"),
            (b"HTTP/1.1 200 OK\r\n", "nobody asked"),
            (b"\r\n", "nobody asked"),
            (b"$1\r\nxyz\r\n", "nobody asked"),
        ] {
            let said = answers(bytes, 1).unwrap_err();
            assert!(said.contains(why), "{}: {said}", bytes.escape_ascii());
        }
        let endless = [b"+".to_vec(), vec![b'a'; LINE + 1]].concat();
        assert!(answers(&endless, 1000).unwrap_err().contains("without an end"));
    }

    #[test]
    fn arrays_are_counted_with_all_that_is_in_them() {
        let all = b"*3\r\n$1\r\na\r\n:1\r\n*2\r\n+x\r\n*0\r\n*-1\r\n*0\r\n*1\r\n*1\r\n$-1\r\n+OK\r\n";
        for piece in 1..=all.len() {
            assert_eq!(answers_with(5, all, piece), Ok(5), "in pieces of {piece}");
        }
        for (bytes, why) in [
            (&b"*6\r\n"[..], "array that is too long"),
            (b"*3\r\n*3\r\n", "array that is too long"),
            (b"*x\r\n", "array that is too long"),
            (
                b"*2\r\n$51\r\n012345678901234567890123456789012345678901234567890\r\n$50\r\n",
                "string that is too long",
            ),
        ] {
            let bytes = bytes.to_vec();
            let said = answers_with(5, &bytes, 1).unwrap_err();
            assert!(said.contains(why), "{}: {said}", bytes.escape_ascii());
        }
        assert_eq!(answers_with(5, b"*5\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n*5\r\n", 3), Ok(1), "anew for each");
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_are_judged_alike(bytes: Vec<u8>, pieces in 1usize..20) {
            prop_assert_eq!(answers(&bytes, pieces), answers(&bytes, usize::MAX));
        }

        #[test]
        fn any_arrays_in_any_pieces_are_judged_alike(
            words in prop::collection::vec("(\\*[0-9-]{0,2}|\\$[0-9]{1,2}|:1|[+]a|-b|xyz)\r\n", 0..12), pieces in 1usize..20,
        ) {
            let bytes = words.concat().into_bytes();
            prop_assert_eq!(answers_with(20, &bytes, pieces), answers_with(20, &bytes, usize::MAX));
        }
    }
}
