//! HTTP/1.1 framing, written apart from the code under test: heads, chunks and lengths.
//!
//! Knows bytes and a reader. Strict: what is not plainly well formed is an error, so that a test
//! notices a malformed message.
//! Must not know: who sends and who receives.

use std::io::{self, BufRead, Read};

/// Header fields in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, String)>);

impl Fields {
    /// The first value of a field; `name` in any case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Every value of a field, in order.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let wanted = name.to_ascii_lowercase();
        self.0.iter().filter(move |(name, _)| name.to_ascii_lowercase() == wanted).map(|(_, v)| v.as_str())
    }

    /// Whether a list field contains this member, in any case.
    pub fn lists(&self, name: &str, member: &str) -> bool {
        self.all(name).flat_map(|v| v.split(',')).any(|part| part.trim().eq_ignore_ascii_case(member))
    }
}

/// First line and fields of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Request line or status line, without its CRLF.
    pub first: String,
    /// Fields.
    pub fields: Fields,
}

/// How the length of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunked.
    Chunked,
    /// Up to the end of the connection.
    Close,
}

/// A body as far as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// What came of it.
    pub bytes: Vec<u8>,
    /// Trailer fields.
    pub trailers: Fields,
    /// False where the connection ended, or fell silent, before the body did.
    pub complete: bool,
}

/// Reads a head; `None` where the peer closed before its first byte.
pub fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Head>> {
    let Some(first) = read_line(reader)? else { return Ok(None) };
    Ok(Some(Head { first, fields: read_fields(reader)? }))
}

/// The framing that a message's own fields state; `None` where they state none.
pub fn stated_framing(fields: &Fields) -> io::Result<Option<Framing>> {
    if fields.lists("transfer-encoding", "chunked") {
        return Ok(Some(Framing::Chunked));
    }
    let Some(text) = fields.get("content-length") else { return Ok(None) };
    text.parse().map(|n| Some(Framing::Length(n))).map_err(|_| bad(&format!("content-length {text:?}")))
}

/// Reads a body into `body`; on an error `body` holds what came before it.
pub fn read_body(reader: &mut impl BufRead, framing: Framing, body: &mut Body) -> io::Result<()> {
    match framing {
        Framing::Length(length) => read_exactly(reader, length, &mut body.bytes)?,
        Framing::Chunked => read_chunks(reader, body)?,
        Framing::Close => {
            reader.read_to_end(&mut body.bytes)?;
        }
    }
    body.complete = true;
    Ok(())
}

/// One chunk, framed; an empty one is refused because it would end the body.
pub fn chunk(bytes: &[u8]) -> Vec<u8> {
    assert!(!bytes.is_empty(), "an empty chunk is the last one: use wire::LAST_CHUNK");
    let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
    framed.extend_from_slice(bytes);
    framed.extend_from_slice(b"\r\n");
    framed
}

/// Ends a chunked body that has no trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// A line without its CRLF; `None` at the end of the stream before any byte.
pub fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    reader.take(128 * 1024).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    match line.strip_suffix(b"\r\n") {
        Some(text) => Ok(Some(String::from_utf8_lossy(text).into_owned())),
        None if line.ends_with(b"\n") => Err(bad("a bare line feed")),
        None => Err(ended("a line")),
    }
}

fn read_fields(reader: &mut impl BufRead) -> io::Result<Fields> {
    let mut fields = Fields::default();
    loop {
        let line = read_line(reader)?.ok_or_else(|| ended("a head"))?;
        if line.is_empty() {
            return Ok(fields);
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad(&format!("field line {line:?}")))?;
        fields.0.push((name.to_owned(), value.trim().to_owned()));
    }
}

fn read_exactly(reader: &mut impl BufRead, length: u64, into: &mut Vec<u8>) -> io::Result<()> {
    let wanted = usize::try_from(length).map_err(|_| bad("a length beyond memory"))?;
    let read = reader.take(length).read_to_end(into)?;
    if read == wanted { Ok(()) } else { Err(ended("a body")) }
}

fn read_chunks(reader: &mut impl BufRead, body: &mut Body) -> io::Result<()> {
    loop {
        let line = read_line(reader)?.ok_or_else(|| ended("a chunked body"))?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let length = u64::from_str_radix(digits, 16).map_err(|_| bad(&format!("chunk size {line:?}")))?;
        if length == 0 {
            body.trailers = read_fields(reader)?;
            return Ok(());
        }
        read_exactly(reader, length, &mut body.bytes)?;
        if read_line(reader)?.as_deref() != Some("") {
            return Err(bad("a chunk without its CRLF"));
        }
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn ended(inside: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("the connection ended inside {inside}"))
}
