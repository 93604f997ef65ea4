//! Records that are compressed in Redis, around the codec and inside of the seal.
//!
//! Knows when it is worth trying, by what the response says of itself, and keeps the result only where it
//! saves a tenth. What is read may come from anybody: a length is believed only up to the longest record, and
//! up to what such a block can hold at all. The record's own checksum says whether it is what was written.
//! Must not know: what a record holds.
//!
//! ```text
//! compressed   magic "LRDZ" | version u8 = 1 | length of the record u32 | LZ4 block of the record
//! ```

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use lz4_flex::block;

use crate::stored::{Damaged, StoredFields, StoredResponse};

const MAGIC: &[u8; 4] = b"LRDZ";
const VERSION: u8 = 1;
/// Magic, version and length.
const HEAD: usize = 4 + 1 + 4;
/// No byte of an LZ4 block stands for more bytes than so many.
const MOST: usize = 255;

/// Types whose contents are compressed already, by their beginnings.
const DENSE: [&str; 18] = [
    "image/",
    "audio/",
    "video/",
    "font/woff",
    "application/font-woff",
    "application/gzip",
    "application/pdf",
    "application/vnd.openxmlformats-",
    "application/vnd.rar",
    "application/x-7z-compressed",
    "application/x-bzip",
    "application/x-gzip",
    "application/x-rar",
    "application/x-xz",
    "application/zip",
    "application/zstd",
    "application/java-archive",
    "application/epub+zip",
];
/// And those among them that are not.
const PLAIN: [&str; 3] = ["image/svg", "image/bmp", "image/x-ms-bmp"];

/// The record of this response as it is to be kept: compressed, where the content is larger than `above` and
/// it pays.
pub(super) fn squeeze(record: Vec<u8>, response: &StoredResponse, above: Option<u64>) -> Vec<u8> {
    let large = above.is_some_and(|above| response.content.held() > above);
    if !large || is_dense(&response.headers) {
        return record;
    }
    compressed(&record).unwrap_or(record)
}

/// `None` where it would not save a tenth.
fn compressed(record: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(record.len()).ok()?;
    let mut out = vec![0; HEAD.checked_add(block::get_maximum_output_size(record.len()))?];
    let (head, room) = out.split_at_mut_checked(HEAD)?;
    let (magic, rest) = head.split_at_mut_checked(MAGIC.len())?;
    magic.copy_from_slice(MAGIC);
    let (version, told) = rest.split_first_mut()?;
    *version = VERSION;
    told.copy_from_slice(&length.to_le_bytes());
    let written = block::compress_into(record, room).ok()?;
    out.truncate(HEAD.checked_add(written)?);
    // Else each of its readers would pay for nothing.
    if out.len() > record.len() / 10 * 9 {
        return None;
    }
    // What is kept waits in a queue that counts bytes.
    out.shrink_to_fit();
    Some(out)
}

/// The record of what was kept; no more than `longest` bytes.
pub(super) fn expand(bytes: Bytes, longest: u64) -> Result<Bytes, Damaged> {
    let Some(rest) = bytes.strip_prefix(MAGIC) else { return Ok(bytes) };
    let (version, rest) = rest.split_first().ok_or(Damaged::TooShort)?;
    if *version != VERSION {
        return Err(Damaged::Version);
    }
    let (length, packed) = rest.split_first_chunk::<4>().ok_or(Damaged::TooShort)?;
    let length = u32::from_le_bytes(*length);
    if u64::from(length) > longest {
        return Err(Damaged::TooLarge);
    }
    let length = usize::try_from(length).map_err(|_| Damaged::TooLarge)?;
    if length > packed.len().saturating_mul(MOST) {
        return Err(Damaged::Malformed);
    }
    let mut record = vec![0; length];
    match block::decompress_into(packed, &mut record) {
        Ok(written) if written == length => Ok(Bytes::from(record)),
        _ => Err(Damaged::Malformed),
    }
}

/// Whether the response says that its content is compressed already.
fn is_dense(fields: &StoredFields) -> bool {
    if fields.lines(&CONTENT_ENCODING).any(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        return true;
    }
    let Some(Ok(said)) = fields.lines(&CONTENT_TYPE).next().map(str::from_utf8) else { return false };
    let begins = |start: &&str| said.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start));
    DENSE.iter().any(begins) && !PLAIN.iter().any(begins)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stored::samples::{key, stored};
    use crate::stored::{Born, decode, encode_response};

    const PLACE: &str = "larder:3:{0}:-";
    const LONGEST: u64 = 1 << 20;

    fn json(count: usize) -> Vec<u8> {
        let item =
            |nth: usize| format!("{{\"id\":{nth},\"name\":\"user {nth}\",\"email\":\"u{nth}@example.com\"}}");
        format!("[{}]", (0..count).map(item).collect::<Vec<_>>().join(",")).into_bytes()
    }

    /// Whether a response with these fields is compressed above 1 KiB.
    fn tried(fields: &[(&str, &str)], body: &[u8], above: Option<u64>) -> bool {
        let response = stored(&key("/"), &[], fields, body, Born::Here(0));
        let record = encode_response(&response, 7, PLACE);
        let kept = squeeze(record.clone(), &response, above);
        let opened = expand(Bytes::from(kept.clone()), LONGEST).unwrap();
        assert_eq!(opened, record);
        assert!(decode(opened, &key("/"), PLACE).is_ok());
        kept != record
    }

    #[test]
    fn what_is_large_and_plain_is_compressed_and_comes_back() {
        let above = Some(1024);
        type Fields = &'static [(&'static str, &'static str)];
        let rows: [(Fields, usize, bool); 12] = [
            (&[("content-type", "application/json")], 100, true),
            (&[], 100, true),
            (&[("content-type", "application/json")], 5, false),
            (&[("content-encoding", "gzip")], 100, false),
            (&[("content-encoding", "br"), ("content-type", "text/css")], 100, false),
            (&[("content-encoding", "identity")], 100, true),
            (&[("content-type", "image/png")], 100, false),
            (&[("content-type", "Image/SVG+xml")], 100, true),
            (&[("content-type", "VIDEO/mp4")], 100, false),
            (&[("content-type", "font/woff2")], 100, false),
            (&[("content-type", "application/zip")], 100, false),
            (&[("content-type", "x")], 100, true),
        ];
        for (fields, count, want) in rows {
            let fields = [&[("cache-control", "max-age=60")], fields].concat();
            assert_eq!(tried(&fields, &json(count), above), want, "{fields:?} {count}");
            assert!(!tried(&fields, &json(count), None), "it is off");
        }
    }

    #[test]
    fn what_does_not_shrink_by_a_tenth_is_kept_as_it_is() {
        let mut state = 1u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_le_bytes()[7]
        };
        let body: Vec<u8> = (0..20_000).map(|_| noise()).collect();
        assert!(!tried(&[("cache-control", "max-age=60")], &body, Some(1024)));
    }

    /// Never changed. Written by any encoder of LZ4, it is read.
    #[test]
    fn version_1_is_read_as_ever() {
        let kept = b"LRDZ\x01\x20\x00\x00\x00\x1fa\x01\x00\x07\x50aaaaa";
        assert_eq!(expand(Bytes::from_static(kept), 32).unwrap(), "a".repeat(32));
    }

    #[test]
    fn no_length_is_believed_that_cannot_be() {
        let kept = compressed(&json(50)).unwrap();
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut changed = kept.clone();
            change(&mut changed);
            expand(Bytes::from(changed), LONGEST).err()
        };
        assert_eq!(with(&|_| {}), None);
        assert_eq!(with(&|kept| kept[4] = 2), Some(Damaged::Version));
        assert_eq!(with(&|kept| kept.truncate(4)), Some(Damaged::TooShort));
        assert_eq!(with(&|kept| kept.truncate(7)), Some(Damaged::TooShort));
        assert_eq!(with(&|kept| kept[5..9].fill(0xff)), Some(Damaged::TooLarge));
        assert_eq!(
            with(&|kept| kept[5..9].copy_from_slice(&(1u32 << 20).to_le_bytes())),
            Some(Damaged::Malformed)
        );
        assert_eq!(with(&|kept| kept[5] ^= 1), Some(Damaged::Malformed));
        assert_eq!(with(&|kept| kept.truncate(kept.len() - 1)), Some(Damaged::Malformed));
        assert_eq!(with(&|kept| kept.truncate(HEAD)), Some(Damaged::Malformed));
        let bomb = [&b"LRDZ\x01\xff\xff\xff\x00"[..], &[0; 20]].concat();
        assert_eq!(expand(Bytes::from(bomb), u64::MAX), Err(Damaged::Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_expanded_or_refused(bytes: Vec<u8>, length in 0u32..3_000) {
            let _ = expand(Bytes::from([&b"LRDZ\x01"[..], &bytes].concat()), 2_000);
            let block = [&b"LRDZ\x01"[..], &length.to_le_bytes(), &bytes].concat();
            if let Ok(record) = expand(Bytes::from(block), 2_000) {
                prop_assert!(record.len() <= 2_000);
            }
        }
    }
}
