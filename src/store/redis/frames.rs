//! The bytes of a connection to Redis, watched on their way.
//!
//! Knows the frame of each answer, and what one to our questions can be: a line, or a string of bounded
//! length, or where that is expected an array with so many members in all; and how many questions went out. The client under it keeps all of an answer in memory until it
//! has come to its end, so one that is too long, of a kind that nobody asked for, or that answers no
//! question breaks the connection when its first bytes come. Costs a few steps for each answer and each
//! read, whatever their length.
//! Must not know: what is asked, or what an answer means.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of a line: a status, a number, or an error with its sentence.
const LINE: usize = 16 * 1024;

/// A connection that ends with an error where what comes is no answer.
#[derive(Debug)]
pub(super) struct Watched<S> {
    inner: S,
    questions: Frames,
    answers: Frames,
}

impl<S> Watched<S> {
    /// Strings in answers may have `longest` bytes.
    pub(super) fn new(inner: S, longest: u64) -> Self {
        // What goes out is our own, and is only counted.
        let (questions, answers) = (Frames::new(u64::MAX, u64::MAX), Frames::new(longest, 0));
        Self { inner, questions, answers }
    }

    /// Answers may be arrays, of so many members in all; their strings have no more bytes together than one
    /// may have.
    pub(super) fn with_arrays(mut self, members: u64) -> Self {
        self.answers.arrays = members;
        self
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        self.answers.take(buffer.filled().get(before..).unwrap_or_default())?;
        if self.answers.ended > self.questions.ended {
            return Poll::Ready(Err(no_answer("an answer that nobody asked for")));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(context, bytes))?;
        self.questions.take(bytes.get(..written).unwrap_or_default())?;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// Counts whole frames in a stream of bytes that comes in pieces.
#[derive(Debug)]
struct Frames {
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
    /// Frames that have come to their end.
    ended: u64,
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
    const fn new(longest: u64, arrays: u64) -> Self {
        Self { longest, arrays, at: At::Start, due: 0, members: 0, bytes: 0, ended: 0 }
    }

    fn take(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some((&byte, rest)) = bytes.split_first() {
            if let At::String { left } = self.at {
                let skipped = left.min(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                bytes = bytes.get(usize::try_from(skipped).unwrap_or(bytes.len())..).unwrap_or_default();
                match left - skipped {
                    0 => self.end(),
                    left => self.at = At::String { left },
                }
                continue;
            }
            self.step(byte)?;
            bytes = rest;
        }
        Ok(())
    }

    /// Takes one byte, outside of strings.
    fn step(&mut self, byte: u8) -> io::Result<()> {
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
        Ok(())
    }

    fn begin(&mut self, kind: u8) -> io::Result<()> {
        let known = matches!(kind, b'+' | b'-' | b':' | b'$') || (kind == b'*' && self.arrays > 0);
        if !known {
            return Err(no_answer("an answer of a kind that nobody asked for"));
        }
        self.at = At::Line { kind, length: 0, number: Number::None, ending: false };
        Ok(())
    }

    fn line(&mut self, kind: u8, number: Number) -> io::Result<()> {
        match (kind, number) {
            (b'$', Number::Is(length)) if length <= self.longest.saturating_sub(self.bytes) => {
                self.bytes = self.bytes.saturating_add(length);
                self.at = At::String { left: length.saturating_add(2) };
            }
            // Nothing is there.
            (b'$' | b'*', Number::Below) => self.end(),
            (b'$', _) => return Err(no_answer("a string that is too long")),
            (b'*', Number::Is(members)) if members <= self.arrays.saturating_sub(self.members) => {
                self.members = self.members.saturating_add(members);
                // The array itself was one of those that were due.
                self.due = self.due.max(1).saturating_add(members);
                self.end();
            }
            (b'*', _) => return Err(no_answer("an array that is too long")),
            _ => self.end(),
        }
        Ok(())
    }

    /// A value has ended.
    fn end(&mut self) {
        self.at = At::Start;
        self.due = self.due.saturating_sub(1);
        if self.due == 0 {
            self.ended = self.ended.saturating_add(1);
            (self.members, self.bytes) = (0, 0);
        }
    }
}

fn no_answer(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn answers(bytes: &[u8], piece: usize) -> Result<u64, String> {
        answers_with(0, bytes, piece)
    }

    fn answers_with(arrays: u64, bytes: &[u8], piece: usize) -> Result<u64, String> {
        let mut frames = Frames::new(100, arrays);
        for piece in bytes.chunks(piece) {
            frames.take(piece).map_err(|error| error.to_string())?;
        }
        Ok(frames.ended)
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

    #[tokio::test]
    async fn more_answers_than_questions_break_the_connection() {
        let (near, mut far) = tokio::io::duplex(1024);
        let mut near = Watched::new(near, 100);
        near.write_all(b"*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nPING\r\n$1\r\n1\r\n").await.unwrap();
        assert_eq!(near.questions.ended, 2);
        far.write_all(b"+PONG\r\n$1\r\n1\r\n").await.unwrap();
        let mut buffer = [0; 64];
        assert_eq!(near.read(&mut buffer).await.unwrap(), 14);
        far.write_all(b"+PONG\r\n").await.unwrap();
        let error = near.read(&mut buffer).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
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

        #[test]
        fn whatever_is_asked_is_counted(words in prop::collection::vec(any::<Vec<u8>>(), 1..5), piece in 1usize..50) {
            let mut command = format!("*{}\r\n", words.len()).into_bytes();
            for word in &words {
                command.extend(format!("${}\r\n", word.len()).into_bytes());
                command.extend(word);
                command.extend(b"\r\n");
            }
            let mut frames = Frames::new(u64::MAX, u64::MAX);
            let twice = command.repeat(2);
            for piece in twice.chunks(piece) {
                frames.take(piece).unwrap();
            }
            prop_assert_eq!(frames.ended, 2);
        }
    }
}
