//! Decoding a whole body, within a bound.
//!
//! Knows that a coded body may be damaged, cut short, or far larger than it looks.
//! Must not know: what is done with a body that cannot be decoded.

use std::fmt;
use std::io::{ErrorKind, Read};

use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use crate::fields::content_coding::Coding;

/// Why a body could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecodable {
    /// It is not in that coding, or not all of it.
    Damaged,
    /// Decoded it would be larger than the bound.
    TooLarge,
}

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damaged => "the body is not in the coding that it claims",
            Self::TooLarge => "decoded, the body would be larger than may be held",
        })
    }
}

impl std::error::Error for Undecodable {}

/// log2 of how far back a zstd body may refer: 8 MiB, all that RFC 9659 §3 allows in HTTP.
const ZSTD_WINDOW: u32 = 23;

/// Coded bytes are read in pieces of this size.
const BUFFER: usize = 16 * 1024;

/// The body without its coding, of at most `bound` bytes.
///
/// Holds at no time more than twice the bound and a window.
///
/// # Errors
/// Where it is damaged, cut short, or would be larger than the bound.
pub fn decode(coding: Coding, body: &[u8], bound: usize) -> Result<Bytes, Undecodable> {
    match coding {
        Coding::Gzip => read(MultiGzDecoder::new(body), body, bound),
        Coding::Deflate if is_zlib(body) => read(ZlibDecoder::new(body), body, bound),
        // §8.4.1.2: "Some non-conformant implementations send the "deflate" compressed data without
        // the zlib wrapper."
        Coding::Deflate => read(DeflateDecoder::new(body), body, bound),
        Coding::Brotli => read(brotli::Decompressor::new(body, BUFFER), body, bound),
        Coding::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(body).map_err(|_| Undecodable::Damaged)?;
            decoder.window_log_max(ZSTD_WINDOW).map_err(|_| Undecodable::Damaged)?;
            read(decoder, body, bound)
        }
    }
}

/// What text usually grows by; only a first guess.
const GROWTH: usize = 4;

fn read(decoder: impl Read, body: &[u8], bound: usize) -> Result<Bytes, Undecodable> {
    // One byte more than the bound tells what is just as large from what is larger.
    let most = bound.saturating_add(1);
    let mut decoded = Vec::with_capacity(body.len().saturating_mul(GROWTH).min(most));
    let mut decoder = decoder.take(u64::try_from(most).unwrap_or(u64::MAX));
    decoder.read_to_end(&mut decoded).map_err(|error| match error.kind() {
        ErrorKind::OutOfMemory => Undecodable::TooLarge,
        _ => Undecodable::Damaged,
    })?;
    if decoded.len() > bound {
        return Err(Undecodable::TooLarge);
    }
    decoded.shrink_to_fit();
    Ok(Bytes::from(decoded))
}

/// Whether a body begins as RFC 1950 §2.2 says: the method, and a check of two bytes.
fn is_zlib(body: &[u8]) -> bool {
    let [method, flags, ..] = body else { return true };
    let check = u16::from_be_bytes([*method, *flags]);
    method & 0x0f == 8 && check % 31 == 0
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::encode;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bomb_is_refused_at_the_bound() {
        let body = vec![0; 2 << 20];
        for coding in Coding::ALL {
            let bomb = encode(coding, &body).unwrap();
            assert!(bomb.len() < 20_000, "{coding:?}: {}", bomb.len());
            assert_eq!(decode(coding, &bomb, body.len() - 1), Err(Undecodable::TooLarge), "{coding:?}");
            assert_eq!(decode(coding, &bomb, 1000), Err(Undecodable::TooLarge), "{coding:?}");
            assert_eq!(decode(coding, &bomb, body.len()).unwrap().len(), body.len(), "{coding:?}");
        }
    }

    #[test]
    fn a_body_that_is_cut_short_is_damaged() {
        for coding in Coding::ALL {
            let whole = encode(coding, b"a body that is cut short, a body that is cut short").unwrap();
            for length in 1..whole.len() {
                let cut = decode(coding, &whole[..length], 1000);
                assert_eq!(cut, Err(Undecodable::Damaged), "{coding:?} after {length} of {}", whole.len());
            }
        }
    }

    #[test]
    fn another_coding_is_damage() {
        for coding in Coding::ALL {
            for other in Coding::ALL.into_iter().filter(|other| *other != coding) {
                let body = encode(other, &[7; 500]).unwrap();
                assert_ne!(
                    decode(coding, &body, 1000),
                    Ok(Bytes::from(vec![7; 500])),
                    "{coding:?} {other:?}"
                );
            }
            assert!(decode(coding, b"plain text", 1000).is_err(), "{coding:?}");
        }
    }

    #[test]
    fn a_zstd_body_that_refers_too_far_back_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.set_parameter(zstd::stream::raw::CParameter::WindowLog(ZSTD_WINDOW + 1)).unwrap();
        encoder.include_contentsize(false).unwrap();
        encoder.write_all(&[7; 100]).unwrap();
        let body = encoder.finish().unwrap();
        assert_eq!(decode(Coding::Zstd, &body, 1000), Err(Undecodable::Damaged));
    }

    #[test]
    fn deflate_is_read_with_and_without_its_wrapper() {
        let mut bare = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        bare.write_all(b"without a wrapper").unwrap();
        let bare = bare.finish().unwrap();
        assert_eq!(decode(Coding::Deflate, &bare, 100).unwrap(), "without a wrapper");
        let wrapped = encode(Coding::Deflate, b"with one").unwrap();
        assert_eq!(decode(Coding::Deflate, &wrapped, 100).unwrap(), "with one");
    }

    #[test]
    fn several_members_are_one_body() {
        // RFC 1952 §2.2, RFC 8878 §3.1: members (frames) follow each other.
        for coding in [Coding::Gzip, Coding::Zstd] {
            let both = [encode(coding, b"one ").unwrap(), encode(coding, b"two").unwrap()].concat();
            assert_eq!(decode(coding, &both, 100).unwrap(), "one two", "{coding:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_within_the_bound_or_refused(body: Vec<u8>, bound in 0..2000_usize) {
            for coding in Coding::ALL {
                if let Ok(decoded) = decode(coding, &body, bound) {
                    prop_assert!(decoded.len() <= bound);
                }
            }
        }

        #[test]
        fn a_damaged_body_is_decoded_within_the_bound_or_refused(
            body: Vec<u8>, at: prop::sample::Index, byte: u8, bound in 0..200_usize,
        ) {
            for coding in Coding::ALL {
                let mut encoded = encode(coding, &body).unwrap().to_vec();
                let at = at.index(encoded.len());
                encoded[at] = byte;
                if let Ok(decoded) = decode(coding, &encoded, bound) {
                    prop_assert!(decoded.len() <= bound);
                }
            }
        }
    }
}
