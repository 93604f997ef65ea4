//! Runs a case over HTTP/2 with prior knowledge: a client that sends frames as a case has them.
//!
//! Knows frames, field blocks without compression (RFC 7541 §6.2.2), and of answers their status and
//! content. Must not know: what a case is about.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::script::{Case, Frames, Outcome};
use super::support::PATIENCE;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// What one frame may hold unless a peer allows more (RFC 9113 §4.2), bytes.
const FRAME: usize = 16_384;

type Field = (Vec<u8>, Vec<u8>);

/// A client attacks; what comes of it is among the case's outcomes, or an error.
pub fn attack(case: &Case, addr: SocketAddr, frames: &[Frames]) -> Result<Outcome, String> {
    let mut client = Client::open(addr);
    let raw = frames.iter().any(|it| matches!(it, Frames::Raw(..)));
    let sent = if raw { client.raw(frames) } else { client.request(1, case.number, frames) };
    // A connection that was ended meanwhile shows by what comes back.
    let _what_comes_back_tells = sent;
    let came = client.until_over(1);
    // After an error of one stream alone, the others go on.
    if came != Came::Ended {
        let plain = [Frames::Set(b":path".to_vec(), format!("/c{}/after", case.number).into_bytes())];
        client.request(3, case.number, &plain).map_err(|error| format!("{error} after {came:?}"))?;
        let after = client.until_over(3);
        let own = Came::Answer(200, format!("GET /c{}/after", case.number).into_bytes());
        if after != own && after != Came::Ended {
            return Err(format!("the next request got {after:?} after {came:?}"));
        }
        if after == Came::Ended && matches!(came, Came::Answer(200, _)) {
            return Err("the connection ends after a good answer".to_owned());
        }
    }
    let fits = |outcome: &Outcome| match (outcome, &came) {
        (Outcome::Refused(_) | Outcome::Ended, Came::Ended | Came::Reset(_)) => true,
        (Outcome::Refused(statuses), Came::Answer(status, _)) => {
            if statuses.is_empty() {
                (400..500).contains(status) || *status == 501
            } else {
                statuses.contains(status)
            }
        }
        (Outcome::Passed(_), Came::Answer(200, _)) => true,
        (Outcome::Answered(statuses), Came::Answer(status, _)) => statuses.contains(status),
        _ => false,
    };
    let found = case.safe.iter().find(|it| fits(it)).cloned();
    found.ok_or_else(|| format!("{came:?}; safe: {:?}", case.safe))
}

/// What came of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Came {
    /// A whole response.
    Answer(u16, Vec<u8>),
    /// RST_STREAM with this code, before a whole response.
    Reset(u32),
    /// GOAWAY with an error, or the end of the connection.
    Ended,
    /// Nothing, for as long as a test waits.
    Silence,
}

struct Client {
    stream: TcpStream,
    answers: HashMap<u32, (u16, Vec<u8>)>,
}

impl Client {
    fn open(addr: SocketAddr) -> Self {
        let mut stream = TcpStream::connect_timeout(&addr, PATIENCE).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        // No table of fields: each block of the answer can then be read by itself.
        let no_table = frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]);
        stream.write_all(&[PREFACE, &no_table].concat()).unwrap();
        Self { stream, answers: HashMap::new() }
    }

    fn raw(&mut self, frames: &[Frames]) -> std::io::Result<()> {
        for it in frames {
            if let Frames::Raw(kind, flags, id, payload) = it {
                self.stream.write_all(&frame(*kind, *flags, *id, payload))?;
            }
        }
        Ok(())
    }

    /// A GET of the case's path with what the case changes of it.
    fn request(&mut self, id: u32, case: usize, frames: &[Frames]) -> std::io::Result<()> {
        let mut fields: Vec<Field> = vec![
            (b":method".to_vec(), b"GET".to_vec()),
            (b":scheme".to_vec(), b"http".to_vec()),
            (b":authority".to_vec(), format!("c{case}.test").into_bytes()),
            (b":path".to_vec(), format!("/c{case}").into_bytes()),
        ];
        let (mut content, mut trailers, mut block) = (Vec::new(), Vec::new(), None);
        for it in frames.iter().cloned() {
            match it {
                Frames::Set(name, value) => {
                    fields.iter_mut().filter(|it| it.0 == name).for_each(|it| it.1 = value.clone());
                }
                Frames::Drop(name) => fields.retain(|it| it.0 != name),
                Frames::Add(name, value) => fields.push((name, value)),
                Frames::First(name, value) => fields.insert(0, (name, value)),
                Frames::Data(bytes) => content.push(bytes),
                Frames::Trailer(name, value) => trailers.push((name, value)),
                Frames::Block(bytes) => block = Some(bytes),
                Frames::Raw(..) => {}
            }
        }
        let ends = content.is_empty() && trailers.is_empty();
        self.block(id, &block.unwrap_or_else(|| block_of(&fields)), ends)?;
        let last = content.len();
        for (index, bytes) in content.iter().enumerate() {
            let ends = trailers.is_empty() && index + 1 == last;
            self.stream.write_all(&frame(DATA, if ends { END_STREAM } else { 0 }, id, bytes))?;
        }
        if trailers.is_empty() { Ok(()) } else { self.block(id, &block_of(&trailers), true) }
    }

    fn block(&mut self, id: u32, block: &[u8], ends: bool) -> std::io::Result<()> {
        let pieces: Vec<&[u8]> = block.chunks(FRAME).collect();
        for (index, piece) in pieces.iter().enumerate() {
            let kind = if index == 0 { HEADERS } else { CONTINUATION };
            let end = if index == 0 && ends { END_STREAM } else { 0 };
            let last = if index + 1 == pieces.len() { END_HEADERS } else { 0 };
            self.stream.write_all(&frame(kind, end | last, id, piece))?;
        }
        Ok(())
    }

    /// Reads until this stream is over, or the connection.
    fn until_over(&mut self, id: u32) -> Came {
        loop {
            match self.read() {
                Ok((GOAWAY, _, _, payload)) if payload.get(4..8) != Some(&[0; 4]) => return Came::Ended,
                Ok((RST_STREAM, _, stream, payload)) if stream == id => {
                    return Came::Reset(u32::from_be_bytes(payload.try_into().unwrap_or_default()));
                }
                Ok((kind @ (HEADERS | DATA), flags, stream, payload)) => {
                    let answer = self.answers.entry(stream).or_default();
                    match kind {
                        HEADERS if answer.0 == 0 => answer.0 = status(&payload),
                        HEADERS => {}
                        _ => answer.1.extend(payload),
                    }
                    if flags & END_STREAM != 0 && stream == id {
                        let (status, body) = answer.clone();
                        return Came::Answer(status, body);
                    }
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Came::Silence,
                Err(_) => return Came::Ended,
            }
        }
    }

    /// The next frame; settings and pings are answered.
    fn read(&mut self) -> std::io::Result<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload)?;
        if [SETTINGS, PING].contains(&head[3]) && head[4] & ACK == 0 {
            let back: &[u8] = if head[3] == PING { &payload } else { &[] };
            self.stream.write_all(&frame(head[3], ACK, 0, back))?;
        }
        Ok((head[3], head[4], stream, payload))
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Literal fields without indexing, names and values as they are (RFC 7541 §6.2.2).
fn block_of(fields: &[Field]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(text.len(), &mut block);
            block.extend(text);
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541 §5.1).
fn length(mut value: usize, to: &mut Vec<u8>) {
    if value < 127 {
        to.push(u8::try_from(value).unwrap());
        return;
    }
    to.push(127);
    value -= 127;
    while value >= 128 {
        to.push(u8::try_from(value % 128).unwrap() | 128);
        value /= 128;
    }
    to.push(u8::try_from(value).unwrap());
}

/// The status of a response, whose field is the first of its block: one of the static table (RFC 7541
/// appendix A), or a literal of it, its digits as they are or in Huffman's code (appendix B).
fn status(block: &[u8]) -> u16 {
    let block = match block {
        // A table of another size.
        [0x20..=0x3f, rest @ ..] => rest,
        all => all,
    };
    match block {
        [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        [_, length, text @ ..] if length & 0x80 != 0 => huffman_digits(&text[..usize::from(length & 0x7f)]),
        [_, length, text @ ..] => {
            let digits = std::str::from_utf8(&text[..usize::from(*length)]).unwrap_or_default();
            digits.parse().unwrap_or(0)
        }
        _ => 0,
    }
}

/// Three digits: `0` to `2` have five bits, the others six.
fn huffman_digits(bytes: &[u8]) -> u16 {
    let mut bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)));
    let mut number = 0;
    for _ in 0..3 {
        let five = bits.by_ref().take(5).fold(0, |code, bit| code * 2 + bit);
        number = number * 10 + if five <= 2 { five } else { five * 2 + bits.next().unwrap_or(0) - 22 };
    }
    number
}
