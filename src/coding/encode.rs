//! Encoding: a whole body at once, or one on its way, piece by piece.
//!
//! Knows the levels and windows, and why they are what they are.
//! Must not know: when a stream should be flushed.

use std::io::{self, Write};

use brotli::CompressorWriter;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use zstd::stream::raw::CParameter;

use crate::fields::content_coding::Coding;

/// zstd's own default: five times as fast as gzip, and JSON becomes as small.
const ZSTD_LEVEL: i32 = 3;

/// Of a whole body, encoded once and served often: a seventh smaller than at level 4 for half as
/// much time again. Beyond it time doubles for a percent or two.
const BROTLI_LEVEL: u32 = 5;

/// Of a stream, which a request waits for and which may be served once.
const BROTLI_STREAM_LEVEL: u32 = 4;

/// Two thirds of the time of zlib's default, 6, for two percent more bytes.
const GZIP_LEVEL: u32 = 5;

/// log2 of how far back a brotli body may refer: 4 MiB, what every browser reads.
const BROTLI_WINDOW: u32 = 22;

/// log2 of how far back an encoder of a stream may refer: 256 KiB. There may be many at once, and
/// each holds a window and tables of about its size.
const STREAM_WINDOW: u32 = 18;

/// Output of brotli is handed on in pieces of this size.
const BROTLI_BUFFER: usize = 16 * 1024;

/// The whole body in this coding.
///
/// # Errors
/// Where the library fails, which it does for want of memory only.
pub fn encode(coding: Coding, body: &[u8]) -> io::Result<Bytes> {
    if coding == Coding::Zstd {
        return zstd::bulk::compress(body, ZSTD_LEVEL).map(Bytes::from);
    }
    let mut encoder = Encoder::with(coding, BROTLI_LEVEL, BROTLI_WINDOW)?;
    encoder.write(body)?;
    encoder.finish()
}

/// Encodes a body that comes in pieces. What comes out is complete only after [`Encoder::finish`];
/// after [`Encoder::flush`] it holds all that went in.
pub struct Encoder(Inner);

enum Inner {
    Gzip(Box<GzEncoder<Vec<u8>>>),
    Deflate(Box<ZlibEncoder<Vec<u8>>>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(Box<zstd::stream::write::Encoder<'static, Vec<u8>>>),
}

impl Encoder {
    /// An encoder that has been given nothing yet.
    ///
    /// # Errors
    /// Where there is no memory for its tables.
    pub fn new(coding: Coding) -> io::Result<Self> {
        Self::with(coding, BROTLI_STREAM_LEVEL, STREAM_WINDOW)
    }

    fn with(coding: Coding, brotli: u32, window: u32) -> io::Result<Self> {
        let level = Compression::new(GZIP_LEVEL);
        Ok(Self(match coding {
            Coding::Gzip => Inner::Gzip(Box::new(GzEncoder::new(Vec::new(), level))),
            Coding::Deflate => Inner::Deflate(Box::new(ZlibEncoder::new(Vec::new(), level))),
            Coding::Brotli => {
                Inner::Brotli(Box::new(CompressorWriter::new(Vec::new(), BROTLI_BUFFER, brotli, window)))
            }
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.set_parameter(CParameter::WindowLog(window))?;
                Inner::Zstd(Box::new(encoder))
            }
        }))
    }

    /// Takes bytes in.
    ///
    /// # Errors
    /// As for [`encode`]. The encoder is of no more use then.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.writer().write_all(bytes)
    }

    /// Brings out all that went in, so that a reader can decode as far as that. Costs a few bytes,
    /// and what is learned of the content stays.
    ///
    /// # Errors
    /// As for [`encode`].
    pub fn flush(&mut self) -> io::Result<()> {
        self.0.writer().flush()
    }

    /// What has come out since the last time; perhaps nothing.
    pub fn take(&mut self) -> Bytes {
        let out = match &mut self.0 {
            Inner::Gzip(encoder) => encoder.get_mut(),
            Inner::Deflate(encoder) => encoder.get_mut(),
            Inner::Brotli(encoder) => encoder.get_mut(),
            Inner::Zstd(encoder) => encoder.get_mut(),
        };
        Bytes::from(std::mem::take(out))
    }

    /// The rest, and the end.
    ///
    /// # Errors
    /// As for [`encode`].
    pub fn finish(self) -> io::Result<Bytes> {
        let out = match self.0 {
            Inner::Gzip(encoder) => encoder.finish()?,
            Inner::Deflate(encoder) => encoder.finish()?,
            Inner::Brotli(encoder) => encoder.into_inner(),
            Inner::Zstd(encoder) => encoder.finish()?,
        };
        Ok(Bytes::from(out))
    }
}

impl Inner {
    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Gzip(encoder) => encoder,
            Self::Deflate(encoder) => encoder,
            Self::Brotli(encoder) => encoder,
            Self::Zstd(encoder) => encoder,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::decode;
    use super::*;
    use proptest::prelude::*;

    const BOUND: usize = 1 << 20;

    fn text(bytes: usize) -> Vec<u8> {
        let words = ["{\"id\":", "\"name\":\"", "larder", "\"},", "1", "7", "42"];
        let mut text = Vec::new();
        let mut at = 1_usize;
        while text.len() < bytes {
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.extend_from_slice(words[(at >> 33) % words.len()].as_bytes());
        }
        text.truncate(bytes);
        text
    }

    #[test]
    fn text_becomes_much_smaller_and_comes_back() {
        let body = text(300_000);
        for coding in Coding::ALL {
            let encoded = encode(coding, &body).unwrap();
            assert!(encoded.len() * 3 < body.len(), "{coding:?}: {}", encoded.len());
            assert_eq!(decode(coding, &encoded, BOUND).unwrap(), body, "{coding:?}");
        }
    }

    #[test]
    fn what_was_flushed_can_be_read_before_the_end() {
        for coding in Coding::ALL {
            let mut encoder = Encoder::new(coding).unwrap();
            encoder.write(b"data: first\n\n").unwrap();
            encoder.flush().unwrap();
            let first = encoder.take();
            let mut seen = Vec::new();
            // A reader that has not been told of the end complains of it, after giving what it has.
            let _no_end_yet = match coding {
                Coding::Gzip => io::copy(&mut flate2::read::GzDecoder::new(&first[..]), &mut seen),
                Coding::Deflate => io::copy(&mut flate2::read::ZlibDecoder::new(&first[..]), &mut seen),
                Coding::Brotli => io::copy(&mut brotli::Decompressor::new(&first[..], 64), &mut seen),
                Coding::Zstd => {
                    io::copy(&mut zstd::stream::read::Decoder::new(&first[..]).unwrap(), &mut seen)
                }
            };
            assert_eq!(seen, b"data: first\n\n", "{coding:?}");
            encoder.write(b"data: second\n\n").unwrap();
            let whole = [first, encoder.finish().unwrap()].concat();
            assert_eq!(decode(coding, &whole, BOUND).unwrap(), "data: first\n\ndata: second\n\n");
        }
    }

    #[test]
    fn a_flush_with_nothing_new_does_no_harm() {
        for coding in Coding::ALL {
            let mut encoder = Encoder::new(coding).unwrap();
            let mut out = Vec::new();
            for part in [&b""[..], b"a", b"", b""] {
                encoder.write(part).unwrap();
                encoder.flush().unwrap();
                out.extend_from_slice(&encoder.take());
            }
            out.extend_from_slice(&encoder.finish().unwrap());
            assert_eq!(decode(coding, &out, BOUND).unwrap(), "a", "{coding:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_is_encoded_whole_comes_back(body: Vec<u8>) {
            for coding in Coding::ALL {
                let encoded = encode(coding, &body).unwrap();
                prop_assert_eq!(decode(coding, &encoded, body.len()).unwrap(), body.clone());
            }
        }

        #[test]
        fn what_is_encoded_in_pieces_comes_back(pieces: Vec<(Vec<u8>, bool, bool)>) {
            for coding in Coding::ALL {
                let mut encoder = Encoder::new(coding).unwrap();
                let (mut body, mut out) = (Vec::new(), Vec::new());
                for (piece, flush, take) in &pieces {
                    encoder.write(piece).unwrap();
                    body.extend_from_slice(piece);
                    if *flush {
                        encoder.flush().unwrap();
                    }
                    if *take {
                        out.extend_from_slice(&encoder.take());
                    }
                }
                out.extend_from_slice(&encoder.finish().unwrap());
                prop_assert_eq!(decode(coding, &out, BOUND).unwrap(), body);
            }
        }
    }
}
