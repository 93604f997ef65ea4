//! The bytes that a stored response becomes in the shared tier.
//!
//! Hand-laid and little-endian: `LRDR`, version, kind, then the fields in a fixed order, each text
//! after its length, and an xxh3-64 of everything before it. Each record names its *place*, the key that
//! it is kept under: what was copied under another key is no record there. The version is raised with any
//! change; another version is a clean miss and is never migrated. Whatever the bytes are, decoding gives
//! a record or says what is wrong with them, and nothing is reserved for a length that is not there.
//! Must not know: where the bytes are kept, or for how long.
//!
//! ```text
//! record    magic "LRDR" | version u16 = 4 | kind u8 | xxh3-64 of the place | rest | xxh3-64
//! response  kind 1: generation u64 | url | extras | request time u64 ms | response time u64 ms | status u16
//!           | position: 0 u8, or 1 u8, run u64, number u64 | route u64 | count u32, of tags, sorted: u64
//!           | count u16, of selecting fields: name, present u8, value | count u16, of fields: name, value
//!           | content
//! content   0 u8 | length u64, bytes: the whole
//!           1 u8 | length of the whole u64 | count u16, of pieces: first byte u64, length u64, bytes
//! names     kind 2: generation u64 | url | extras | count u16, of names
//! rule      kind 3: text, a rule for the query of a path as its field says it
//! text      length u32, bytes
//! ```

use std::sync::Arc;

use bytes::Bytes;
use http::header::TRAILER;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use xxhash_rust::xxh3::xxh3_64;

use super::fields::{Alike, Line, Lines};
use super::{Born, CacheKey, Content, Damaged, Parts, Position, Standing, StoredResponse};
use crate::clock::Timestamp;
use crate::fields::hop;
use crate::rules::SelectingFields;

const MAGIC: &[u8; 4] = b"LRDR";
const VERSION: u16 = 4;
const RESPONSE: u8 = 1;
const NAMES: u8 = 2;
const RULE: u8 = 3;
const WHOLE: u8 = 0;
const PARTS: u8 = 1;
/// Magic, version and checksum.
const SHORTEST: usize = 4 + 2 + 8;
/// The most request fields that a resource may vary by, to be kept in the shared tier. Far more than
/// anybody has; each costs every lookup.
pub const MOST_NAMES: usize = 64;
/// Fields of a record at most: four times those that an origin may send. A map has no room for some more than
/// twenty thousand, and who asks it for that is not answered but panics.
const MOST_FIELDS: usize = 1024;

/// What stands under a key of the shared tier.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most are responses, and none is kept")]
pub enum Record {
    /// A response.
    Response {
        /// The URL's generation when its fetch began.
        generation: u64,
        /// The response, [`Born::Elsewhere`](super::Born::Elsewhere).
        response: StoredResponse,
    },
    /// The resource varies: the fields by which, each variant standing under a key of its own.
    Names {
        /// The URL's generation when the fetch of the latest variant began.
        generation: u64,
        /// The request fields to select by.
        names: Vec<HeaderName>,
    },
}

impl Record {
    /// The URL's generation that it was written under.
    pub const fn generation(&self) -> u64 {
        let (Self::Response { generation, .. } | Self::Names { generation, .. }) = self;
        *generation
    }
}

/// A response's record, to be kept under the key `place`.
pub fn encode_response(response: &StoredResponse, generation: u64, place: &str) -> Vec<u8> {
    let content = usize::try_from(response.content.held()).unwrap_or(0) + 24 * response.content.pieces();
    let room = content + response.key.weight() + 256;
    let fields: usize =
        response.headers.iter().map(|(name, value)| 8 + name.as_str().len() + value.len()).sum();
    let tags = 8 * response.standing.tags().len();
    let mut out = begin(RESPONSE, place, room + fields + tags);
    put_key(&mut out, generation, &response.key);
    out.extend_from_slice(&response.facts.request_time.as_millis().to_le_bytes());
    out.extend_from_slice(&response.facts.response_time.as_millis().to_le_bytes());
    out.extend_from_slice(&response.status.as_u16().to_le_bytes());
    put_standing(&mut out, &response.standing);
    put_count(&mut out, response.selecting.parts().len());
    for (name, value) in response.selecting.parts() {
        put_text(&mut out, name.as_str().as_bytes());
        out.push(u8::from(value.is_some()));
        put_text(&mut out, value.unwrap_or_default());
    }
    put_count(&mut out, response.headers.len());
    for (name, value) in response.headers.iter() {
        put_text(&mut out, name.as_str().as_bytes());
        put_text(&mut out, value);
    }
    put_content(&mut out, &response.content);
    finish(out)
}

/// The record that says by which request fields a resource varies, to be kept under the key `place`.
pub fn encode_names(key: &CacheKey, names: &[HeaderName], generation: u64, place: &str) -> Vec<u8> {
    let mut out = begin(NAMES, place, key.weight() + 256);
    put_key(&mut out, generation, key);
    put_count(&mut out, names.len());
    names.iter().for_each(|name| put_text(&mut out, name.as_str().as_bytes()));
    finish(out)
}

/// The record of a rule for a path's query (`No-Vary-Search`), to be kept under the key `place`.
pub fn encode_rule(rule: &[u8], place: &str) -> Vec<u8> {
    let mut out = begin(RULE, place, rule.len() + 64);
    put_text(&mut out, rule);
    finish(out)
}

/// Reads a record of this key that was found under `place`. The response's body is a part of `bytes`, no copy.
pub fn decode(bytes: Bytes, key: &CacheKey, place: &str) -> Result<Record, Damaged> {
    let (kind, mut reader) = open(bytes, place)?;
    if kind != RESPONSE && kind != NAMES {
        return Err(Damaged::Malformed);
    }
    let generation = reader.u64()?;
    if reader.text()? != key.url().as_bytes() || reader.text()? != key.extras().as_bytes() {
        return Err(Damaged::OtherKey);
    }
    reader.record(kind, generation, key)
}

/// Reads a record that was found under `place`, whatever key it is of: whoever asks compares that with the place.
pub fn decode_unasked(bytes: Bytes, place: &str) -> Result<Record, Damaged> {
    let (kind, mut reader) = open(bytes, place)?;
    if kind != RESPONSE && kind != NAMES {
        return Err(Damaged::Malformed);
    }
    let generation = reader.u64()?;
    let (url, extras) = (reader.string()?, reader.string()?);
    reader.record(kind, generation, &CacheKey::from_parts(&url, &extras))
}

/// Reads no more of a record that was found under `place` than its URL.
pub fn decode_url(bytes: Bytes, place: &str) -> Result<String, Damaged> {
    let (kind, mut reader) = open(bytes, place)?;
    if kind != RESPONSE && kind != NAMES {
        return Err(Damaged::Malformed);
    }
    let _generation = reader.u64()?;
    reader.string().map(String::from)
}

/// Reads a rule that was found under `place`: the text of its field.
pub fn decode_rule(bytes: Bytes, place: &str) -> Result<Bytes, Damaged> {
    let (kind, mut reader) = open(bytes, place)?;
    if kind != RULE {
        return Err(Damaged::Malformed);
    }
    let length = reader.length()?;
    let text = reader.shared(length)?;
    reader.end().map(|()| text)
}

/// A place as records and marks name it. 64 bits suffice against what goes astray; whoever forges needs
/// no collision, since a checksum is no secret.
pub(super) fn hash_of(place: &str) -> u64 {
    xxh3_64(place.as_bytes())
}

/// What is common to all kinds of record: gives the kind, and a reader of the rest.
fn open(bytes: Bytes, place: &str) -> Result<(u8, Reader), Damaged> {
    let (head, checksum) = checked(&bytes)?;
    if xxh3_64(head) != checksum {
        return Err(Damaged::Checksum);
    }
    let end = head.len();
    let mut reader = Reader { bytes: bytes.slice(..end), at: MAGIC.len() + 2 };
    let kind = reader.u8()?;
    if reader.u64()? != hash_of(place) {
        return Err(Damaged::OtherKey);
    }
    Ok((kind, reader))
}

/// The bytes before the checksum, and the checksum.
fn checked(bytes: &[u8]) -> Result<(&[u8], u64), Damaged> {
    if bytes.len() < SHORTEST {
        return Err(Damaged::TooShort);
    }
    let Some(rest) = bytes.strip_prefix(MAGIC) else { return Err(Damaged::Foreign) };
    if !rest.starts_with(&VERSION.to_le_bytes()) {
        return Err(Damaged::Version);
    }
    let (head, checksum) = bytes.split_last_chunk::<8>().ok_or(Damaged::TooShort)?;
    Ok((head, u64::from_le_bytes(*checksum)))
}

fn begin(kind: u8, place: &str, room: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(room);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.push(kind);
    out.extend_from_slice(&hash_of(place).to_le_bytes());
    out
}

fn put_key(out: &mut Vec<u8>, generation: u64, key: &CacheKey) {
    out.extend_from_slice(&generation.to_le_bytes());
    put_text(out, key.url().as_bytes());
    put_text(out, key.extras().as_bytes());
}

fn finish(mut out: Vec<u8>) -> Vec<u8> {
    let checksum = xxh3_64(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// A count or length that does not fit (http allows 32,768 fields, and nobody holds a field of
/// 4 GiB) makes a record that is read as malformed: a miss, never a wrong response.
fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
}

/// How far its fetcher had read the fleet's log, its route and its tags.
fn put_standing(out: &mut Vec<u8>, standing: &Standing) {
    match standing.position() {
        None => out.push(0),
        Some(Position { run, n }) => {
            out.push(1);
            out.extend_from_slice(&run.to_le_bytes());
            out.extend_from_slice(&n.to_le_bytes());
        }
    }
    out.extend_from_slice(&standing.route().to_le_bytes());
    out.extend_from_slice(&u32::try_from(standing.tags().len()).unwrap_or(u32::MAX).to_le_bytes());
    standing.tags().iter().for_each(|tag| out.extend_from_slice(&tag.to_le_bytes()));
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(text);
}

fn put_content(out: &mut Vec<u8>, content: &Content) {
    match content {
        Content::Whole(bytes) => {
            out.push(WHOLE);
            put_bytes(out, bytes);
        }
        Content::Parts(parts) => {
            out.push(PARTS);
            out.extend_from_slice(&parts.length().to_le_bytes());
            put_count(out, parts.list().len());
            for (first, bytes) in parts.list() {
                out.extend_from_slice(&first.to_le_bytes());
                put_bytes(out, bytes);
            }
        }
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Whether a response with this status and so many bytes of content is ever stored. RFC 9111 §3: "the
/// response status code is final"; a 304 is news of another response. RFC 9110 §15.3.5: a 204 has no
/// content.
fn is_kept(status: StatusCode, content: u64) -> bool {
    match status {
        StatusCode::NOT_MODIFIED => false,
        StatusCode::NO_CONTENT => content == 0,
        status => (200..600).contains(&status.as_u16()),
    }
}

/// RFC 9111 §3.1: never stored. Whoever put it there means to say where a message ends.
fn is_never_stored(name: &HeaderName) -> bool {
    hop::is_hop_by_hop(name) || *name == TRAILER
}

/// The fields of a record in a map.
fn map(lines: &[Line<'_>]) -> Result<HeaderMap, Damaged> {
    let mut map = HeaderMap::try_with_capacity(lines.len()).map_err(|_| Damaged::Malformed)?;
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name).map_err(|_| Damaged::Malformed)?;
        if is_never_stored(&name) {
            return Err(Damaged::Malformed);
        }
        let value = HeaderValue::from_bytes(value).map_err(|_| Damaged::Malformed)?;
        map.try_append(name, value).map_err(|_| Damaged::Malformed)?;
    }
    Ok(map)
}

struct Reader {
    bytes: Bytes,
    at: usize,
}

impl Reader {
    /// What comes after the key.
    fn record(mut self, kind: u8, generation: u64, key: &CacheKey) -> Result<Record, Damaged> {
        let record = match kind {
            RESPONSE => Record::Response { generation, response: self.response(key)? },
            _ => Record::Names { generation, names: self.names()? },
        };
        self.end().map(|()| record)
    }

    fn string(&mut self) -> Result<Box<str>, Damaged> {
        let text = std::str::from_utf8(self.text()?).map_err(|_| Damaged::Malformed)?;
        Ok(text.into())
    }

    fn response(&mut self, key: &CacheKey) -> Result<StoredResponse, Damaged> {
        let times = (Timestamp::from_millis(self.u64()?), Timestamp::from_millis(self.u64()?));
        let status = StatusCode::from_u16(self.u16()?).map_err(|_| Damaged::Malformed)?;
        let standing = self.standing()?;
        let selecting = self.selecting()?;
        let bytes = self.bytes.clone();
        let lines = self.lines(&bytes)?;
        let content = self.content()?;
        if !is_kept(status, content.held()) {
            return Err(Damaged::Malformed);
        }
        let (key, standing) = (key.clone(), Arc::new(standing));
        // Most of what is read has had its like: no map is made of its fields.
        Ok(match Alike::of(&lines) {
            Some(alike) if alike.lines().any(|(name, _)| is_never_stored(name)) => {
                return Err(Damaged::Malformed);
            }
            Some(alike) => {
                StoredResponse::from_record(status, &alike, times, content, selecting, key, standing)
            }
            None => {
                let map = map(&lines)?;
                StoredResponse::from_record(status, &map, times, content, selecting, key, standing)
            }
        })
    }

    fn standing(&mut self) -> Result<Standing, Damaged> {
        let position = match self.u8()? {
            0 => None,
            1 => Some(Position { run: self.u64()?, n: self.u64()? }),
            _ => return Err(Damaged::Malformed),
        };
        let route = self.u64()?;
        let length = self.length()?.checked_mul(8).ok_or(Damaged::Malformed)?;
        // Taken as a whole: no room is made for what is not there.
        let (tags, _) = self.take(length)?.as_chunks::<8>();
        let tags: Box<[u64]> = tags.iter().map(|tag| u64::from_le_bytes(*tag)).collect();
        if !tags.is_sorted_by(|one, next| one < next) {
            return Err(Damaged::Malformed);
        }
        Ok(Standing::new(Born::Elsewhere(position), None, tags, route))
    }

    fn content(&mut self) -> Result<Content, Damaged> {
        match self.u8()? {
            WHOLE => Ok(Content::Whole(self.long()?)),
            PARTS => {
                let length = self.u64()?;
                let pieces = (0..self.u16()?).map(|_| Ok((self.u64()?, self.long()?)));
                let pieces = pieces.collect::<Result<Vec<_>, Damaged>>()?;
                Parts::from_list(length, pieces).map(Box::new).map(Content::Parts).ok_or(Damaged::Malformed)
            }
            _ => Err(Damaged::Malformed),
        }
    }

    /// Bytes after a length of 8 bytes: a part of the record itself, not a copy.
    fn long(&mut self) -> Result<Bytes, Damaged> {
        let length = usize::try_from(self.u64()?).map_err(|_| Damaged::Malformed)?;
        self.shared(length)
    }

    fn selecting(&mut self) -> Result<SelectingFields, Damaged> {
        let mut parts = Vec::new();
        for _ in 0..self.u16()? {
            let name = self.name()?;
            let present = self.u8()?;
            let value = self.text()?;
            match (present, value.is_empty()) {
                (0, true) => parts.push((name, None)),
                (1, _) => parts.push((name, Some(value.into()))),
                _ => return Err(Damaged::Malformed),
            }
        }
        Ok(SelectingFields::from_parts(parts))
    }

    /// The names and values of fields, in `bytes`, which are its own.
    fn lines<'a>(&mut self, bytes: &'a [u8]) -> Result<Vec<Line<'a>>, Damaged> {
        let count = usize::from(self.u16()?);
        if count > MOST_FIELDS {
            return Err(Damaged::Malformed);
        }
        // Each takes at least two lengths, so no more are made room for than there can be.
        let mut lines = Vec::with_capacity(count.min(self.left() / 8));
        for _ in 0..count {
            lines.push((self.text_in(bytes)?, self.text_in(bytes)?));
        }
        Ok(lines)
    }

    fn text_in<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Damaged> {
        let length = self.length()?;
        let start = self.at;
        self.take(length)?;
        bytes.get(start..self.at).ok_or(Damaged::Malformed)
    }

    fn names(&mut self) -> Result<Vec<HeaderName>, Damaged> {
        let count = self.u16()?;
        if usize::from(count) > MOST_NAMES {
            return Err(Damaged::Malformed);
        }
        (0..count).map(|_| self.name()).collect()
    }

    fn end(&self) -> Result<(), Damaged> {
        if self.left() == 0 { Ok(()) } else { Err(Damaged::Malformed) }
    }

    fn name(&mut self) -> Result<HeaderName, Damaged> {
        HeaderName::from_bytes(self.text()?).map_err(|_| Damaged::Malformed)
    }

    fn text(&mut self) -> Result<&[u8], Damaged> {
        let length = self.length()?;
        self.take(length)
    }

    fn length(&mut self) -> Result<usize, Damaged> {
        self.array()
            .map(u32::from_le_bytes)
            .and_then(|length| usize::try_from(length).map_err(|_| Damaged::Malformed))
    }

    /// A part of the record itself, not a copy.
    fn shared(&mut self, length: usize) -> Result<Bytes, Damaged> {
        let start = self.at;
        self.take(length)?;
        Ok(self.bytes.slice(start..self.at))
    }

    fn u8(&mut self) -> Result<u8, Damaged> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, Damaged> {
        self.array().map(u16::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Damaged> {
        self.array().map(u64::from_le_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        self.take(N)?.try_into().map_err(|_| Damaged::Malformed)
    }

    fn take(&mut self, length: usize) -> Result<&[u8], Damaged> {
        let end = self.at.checked_add(length).ok_or(Damaged::Malformed)?;
        let taken = self.bytes.get(self.at..end).ok_or(Damaged::Malformed)?;
        self.at = end;
        Ok(taken)
    }

    fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rules::Normalize;
    use crate::stored::StoredFields;
    use crate::stored::samples::{fields, stored};

    const PLACE: &str = "larder:3:{0}:-";

    fn sample_key() -> CacheKey {
        CacheKey::from_parts("http://example.com/users/1?a=1", "h:accept-language=en;")
    }

    fn sample() -> Arc<StoredResponse> {
        let response = [
            ("content-type", "application/json"),
            ("cache-control", "max-age=60"),
            ("link", "</a>; rel=next"),
            ("date", "Thu, 01 Jan 1970 00:16:41 GMT"),
            ("vary", "accept, x-tenant"),
            ("link", "</b>; rel=prev"),
        ];
        let request = [("accept", "application/json")];
        let mut sample = (*stored(&sample_key(), &request, &response, b"{\"id\":1}", Born::Here(7))).clone();
        sample.standing = Arc::new(standing(Some(Position { run: 5, n: 9 })));
        Arc::new(sample)
    }

    /// By a route, with two tags.
    fn standing(read: Option<Position>) -> Standing {
        Standing::new(Born::Here(7), read, [1, 2].into(), 3)
    }

    fn response(bytes: Vec<u8>, key: &CacheKey) -> (u64, StoredResponse) {
        match decode(Bytes::from(bytes), key, PLACE) {
            Ok(Record::Response { generation, response }) => (generation, response),
            other => panic!("not a response: {other:?}"),
        }
    }

    fn assert_same(read: &StoredResponse, written: &StoredResponse) {
        assert_eq!(
            (read.status, &read.content, &read.selecting),
            (written.status, &written.content, &written.selecting)
        );
        assert!(read.headers.iter().eq(written.headers.iter()), "order and repeats survive");
        assert_eq!((&read.facts, &read.key), (&written.facts, &written.key));
        let (read, written) = (&read.standing, &written.standing);
        assert_eq!(read.born(), Born::Elsewhere(written.position()));
        assert_eq!((read.tags(), read.route()), (written.tags(), written.route()));
    }

    /// Bytes 2 to 4 and 6 of 9.
    fn sample_of_parts() -> Arc<StoredResponse> {
        let mut response = (*sample()).clone();
        let Some(Content::Parts(parts)) = Parts::of(9, 2, Bytes::from_static(b"abc")) else { panic!() };
        response.content = parts.with(6, Bytes::from_static(b"d")).unwrap();
        Arc::new(response)
    }

    const GOLDEN_RESPONSE: &[u8] = include_bytes!("../../tests/golden/record-v4-response.bin");
    const GOLDEN_PARTS: &[u8] = include_bytes!("../../tests/golden/record-v4-parts.bin");
    const GOLDEN_NAMES: &[u8] = include_bytes!("../../tests/golden/record-v4-names.bin");
    const GOLDEN_RULE: &[u8] = include_bytes!("../../tests/golden/record-v4-rule.bin");

    #[test]
    fn earlier_versions_are_other_versions() {
        for record in [
            &include_bytes!("../../tests/golden/record-v1-response.bin")[..],
            include_bytes!("../../tests/golden/record-v1-names.bin"),
            include_bytes!("../../tests/golden/record-v2-response.bin"),
            include_bytes!("../../tests/golden/record-v2-parts.bin"),
            include_bytes!("../../tests/golden/record-v2-names.bin"),
            include_bytes!("../../tests/golden/record-v3-response.bin"),
            include_bytes!("../../tests/golden/record-v3-parts.bin"),
            include_bytes!("../../tests/golden/record-v3-names.bin"),
            include_bytes!("../../tests/golden/record-v3-rule.bin"),
        ] {
            let decoded = decode(Bytes::from_static(record), &sample_key(), PLACE);
            assert_eq!(decoded.err(), Some(Damaged::Version));
        }
    }

    /// These files are never changed. With a new version they stay, and the test above says that they
    /// are `Damaged::Version`.
    #[test]
    fn version_4_is_written_and_read_as_ever() {
        for (written, golden) in [(sample(), GOLDEN_RESPONSE), (sample_of_parts(), GOLDEN_PARTS)] {
            assert_eq!(encode_response(&written, 42, PLACE), golden);
            let (generation, read) = response(golden.to_vec(), &sample_key());
            assert_eq!(generation, 42);
            assert_same(&read, &written);
        }

        let names = [http::header::ACCEPT, HeaderName::from_static("x-tenant")];
        assert_eq!(encode_names(&sample_key(), &names, 42, PLACE), GOLDEN_NAMES);
        match decode(Bytes::from_static(GOLDEN_NAMES), &sample_key(), PLACE) {
            Ok(Record::Names { generation: 42, names: read }) => assert_eq!(read, names),
            other => panic!("{other:?}"),
        }
        let rule = &b"params=(\"a\")"[..];
        assert_eq!(encode_rule(rule, PLACE), GOLDEN_RULE);
        assert_eq!(decode_rule(Bytes::from_static(GOLDEN_RULE), PLACE).unwrap(), rule);
    }

    #[test]
    fn the_url_of_a_record_can_be_read_alone() {
        let of = |record: &'static [u8]| decode_url(Bytes::from_static(record), PLACE);
        for record in [GOLDEN_RESPONSE, GOLDEN_PARTS, GOLDEN_NAMES] {
            assert_eq!(of(record).unwrap(), sample_key().url());
        }
        assert_eq!(of(GOLDEN_RULE), Err(Damaged::Malformed));
    }

    #[test]
    fn the_body_is_a_part_of_the_record() {
        let record = Bytes::from(encode_response(&sample(), 0, PLACE));
        let whole = record.as_ptr_range();
        let Ok(Record::Response { response, .. }) = decode(record.clone(), &sample_key(), PLACE) else {
            panic!()
        };
        assert!(whole.contains(&response.content.whole().unwrap().as_ptr()));
    }

    /// With the right checksum, so that what is behind it is reached.
    fn resealed(mut record: Vec<u8>) -> Vec<u8> {
        record.truncate(record.len() - 8);
        finish(record)
    }

    #[test]
    fn each_kind_of_damage_has_its_name() {
        let record = encode_response(&sample(), 0, PLACE);
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut changed = record.clone();
            change(&mut changed);
            decode(Bytes::from(changed), &sample_key(), PLACE).err()
        };
        assert_eq!(with(&|record| record.truncate(13)), Some(Damaged::TooShort));
        assert_eq!(with(&|record| record[0] = b'X'), Some(Damaged::Foreign));
        assert_eq!(with(&|record| record[4] = 9), Some(Damaged::Version), "whatever its checksum");
        assert_eq!(with(&|record| record[20] ^= 1), Some(Damaged::Checksum));
        assert_eq!(with(&|record| record.truncate(record.len() - 1)), Some(Damaged::Checksum));
        assert_eq!(with(&|record| record.push(0)), Some(Damaged::Checksum));
        let resealing = |change: &dyn Fn(&mut Vec<u8>)| {
            with(&|record: &mut Vec<u8>| {
                change(record);
                *record = resealed(std::mem::take(record));
            })
        };
        assert_eq!(resealing(&|_| {}), None);
        assert_eq!(resealing(&|record| record[6] = 9), Some(Damaged::Malformed), "kind");
        let end_of_head = |record: &Vec<u8>| record.len() - 8;
        assert_eq!(
            resealing(&|record| record.insert(end_of_head(record), 0)),
            Some(Damaged::Malformed),
            "a byte too many"
        );
        assert_eq!(resealing(&|record| record.truncate(record.len() - 9)), Some(Damaged::Malformed));
        let other = CacheKey::from_parts("http://example.com/users/2", "");
        assert_eq!(decode(Bytes::from(record.clone()), &other, PLACE).err(), Some(Damaged::OtherKey));
        let other = CacheKey::from_parts(sample_key().url(), "");
        assert_eq!(
            decode(Bytes::from(record), &other, PLACE).err(),
            Some(Damaged::OtherKey),
            "extras count too"
        );
    }

    #[test]
    fn a_length_that_is_not_there_reserves_nothing() {
        let mut record = begin(RESPONSE, PLACE, 0);
        put_key(&mut record, 0, &sample_key());
        record.extend_from_slice(&[0; 16]);
        record.extend_from_slice(&200u16.to_le_bytes());
        let mut tags = record.clone();
        tags.extend_from_slice(&[0; 9]);
        tags.extend_from_slice(&[0xff; 4]);
        assert_eq!(decode(Bytes::from(finish(tags)), &sample_key(), PLACE).err(), Some(Damaged::Malformed));
        put_standing(&mut record, &Standing::plain(Born::Here(0)));
        put_count(&mut record, 0);
        put_count(&mut record, usize::MAX);
        assert_eq!(
            decode(Bytes::from(finish(record.clone())), &sample_key(), PLACE).err(),
            Some(Damaged::Malformed)
        );
        record.truncate(record.len() - 2);
        put_count(&mut record, 0);
        let mut parts = record.clone();
        parts.push(PARTS);
        parts.extend_from_slice(&[0xff; 10]);
        assert_eq!(decode(Bytes::from(finish(parts)), &sample_key(), PLACE).err(), Some(Damaged::Malformed));
        record.push(WHOLE);
        record.extend_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(decode(Bytes::from(finish(record)), &sample_key(), PLACE).err(), Some(Damaged::Malformed));
    }

    #[test]
    fn what_the_rules_never_store_is_not_read() {
        let with = |change: &dyn Fn(&mut StoredResponse)| {
            let mut response = (*sample()).clone();
            change(&mut response);
            decode(encode_response(&response, 0, PLACE).into(), &sample_key(), PLACE).err()
        };
        for status in [100, 101, 199, 204, 304, 600, 999] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(with(&|response| response.status = status), Some(Damaged::Malformed), "{status}");
        }
        for status in [200, 203, 404, 599] {
            assert_eq!(with(&|response| response.status = StatusCode::from_u16(status).unwrap()), None);
        }
        let nothing = |response: &mut StoredResponse| {
            response.status = StatusCode::NO_CONTENT;
            response.content = Content::Whole(Bytes::new());
        };
        assert_eq!(with(&nothing), None);
        for name in ["transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer"] {
            let name = HeaderName::from_static(name);
            let insert = |response: &mut StoredResponse| {
                let mut headers = response.headers.to_map();
                headers.insert(name.clone(), HeaderValue::from_static("chunked"));
                response.headers = StoredFields::of(&headers);
            };
            assert_eq!(with(&insert), Some(Damaged::Malformed), "{name}");
        }
    }

    #[test]
    fn a_record_of_more_fields_than_any_origin_sends_is_damaged() {
        for (count, fits) in [(MOST_FIELDS, true), (MOST_FIELDS + 1, false), (24_575, false)] {
            let mut headers = HeaderMap::new();
            for _ in 0..count {
                headers.append("x", HeaderValue::from_static(""));
            }
            let mut response = (*sample()).clone();
            response.headers = StoredFields::of(&headers);
            let read = decode(encode_response(&response, 0, PLACE).into(), &sample_key(), PLACE);
            assert_eq!(read.is_ok(), fits, "{count}");
        }
    }

    #[test]
    fn tags_stand_in_their_order_and_once_each() {
        for (tags, fits) in [([1, 2], true), ([2, 1], false), ([1, 1], false)] {
            let mut response = (*sample()).clone();
            response.standing = Arc::new(Standing::new(Born::Here(0), None, tags.into(), 0));
            let read = decode(encode_response(&response, 0, PLACE).into(), &sample_key(), PLACE);
            assert_eq!(read.is_ok(), fits, "{tags:?}");
        }
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        for record in [
            encode_response(&sample(), 42, PLACE),
            encode_response(&sample_of_parts(), 7, PLACE),
            encode_names(&sample_key(), &[http::header::ACCEPT], 1, PLACE),
        ] {
            for at in 0..record.len() {
                for flip in [1, 0x80, 0xff] {
                    let mut changed = record.clone();
                    changed[at] ^= flip;
                    assert!(decode(Bytes::from(changed), &sample_key(), PLACE).is_err(), "byte {at}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_response_comes_back_as_it_was(
            lines in prop::collection::vec(("x-[a-c]{1,3}", "[ -~]{0,20}"), 0..12),
            accept in prop::option::of("[ -~]{0,12}"),
            body in prop::collection::vec(any::<u8>(), 0..300),
            (path, extras) in ("/[ -~]{0,20}", "[!-~]{0,20}"),
            generation: u64,
        ) {
            let key = CacheKey::from_parts(&path, &extras);
            let mut pairs = vec![("cache-control", "max-age=60"), ("vary", "accept")];
            pairs.extend(lines.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            let request: Vec<_> = accept.iter().map(|value| ("accept", value.as_str())).collect();
            let written = stored(&key, &request, &pairs, &body, Born::Here(1));
            let (read_generation, read) = response(encode_response(&written, generation, PLACE), &key);
            prop_assert_eq!(read_generation, generation);
            assert_same(&read, &written);
            let again = fields(&request);
            prop_assert!(read.is_for(&again, Normalize::default()));
        }

        #[test]
        fn any_bytes_give_a_record_or_a_reason(bytes: Vec<u8>) {
            prop_assert!(decode(Bytes::from(bytes), &sample_key(), PLACE).is_err());
        }

        #[test]
        fn any_change_behind_a_right_checksum_is_safe(
            at in 0usize..400, value: u8, cut in 0usize..200, parts: bool,
        ) {
            let sample = if parts { sample_of_parts() } else { sample() };
            let mut record = encode_response(&sample, 42, PLACE);
            let at = at % (record.len() - 8);
            record[at] = value;
            let end = record.len() - 8;
            record.drain(end.saturating_sub(cut)..end);
            let _ = decode(Bytes::from(resealed(record)), &sample_key(), PLACE);
        }

        /// Whether a response of late had the same names makes no difference but the time that it takes.
        #[test]
        fn a_record_is_read_alike_whether_its_names_are_known_or_not(at in 0usize..400, value: u8, parts: bool) {
            let sample = if parts { sample_of_parts() } else { sample() };
            let mut record = encode_response(&sample, 42, PLACE);
            let at = at % (record.len() - 8);
            record[at] = value;
            let end = record.len() - 8;
            record.truncate(end);
            let record = Bytes::from(resealed(record));
            let read = || decode(record.clone(), &sample_key(), PLACE);
            super::super::fields::forget();
            let anew = read();
            // The second makes the names ready, the third finds them.
            (0..2).for_each(|_| drop(StoredFields::of(&sample.headers.to_map())));
            let known = read();
            match (anew, known) {
                (Ok(Record::Response { response: anew, .. }), Ok(Record::Response { response: known, .. })) => {
                    assert_same(&anew, &known);
                    prop_assert_eq!((anew.is_bare(), anew.says_length()), (known.is_bare(), known.says_length()));
                    prop_assert_eq!(anew.headers.to_map(), known.headers.to_map());
                }
                (anew, known) => prop_assert_eq!(anew.err(), known.err()),
            }
        }
    }

    #[test]
    fn what_is_never_stored_is_not_read_either_though_its_names_are_known() {
        for name in ["connection", "te", "trailer"] {
            let sample = sample();
            let mut response = (*sample).clone();
            response.headers = StoredFields::of(&fields(&[("cache-control", "max-age=60"), (name, "x")]));
            let record = Bytes::from(encode_response(&response, 42, PLACE));
            for _ in 0..3 {
                let read = decode(record.clone(), &sample_key(), PLACE);
                assert_eq!(read.err(), Some(Damaged::Malformed), "{name}");
                drop(StoredFields::of(&response.headers.to_map()));
            }
        }
    }
}
