//! The fields of a stored response, in as little memory as they can be held in.
//!
//! A `HeaderMap` of seven fields takes some 1,500 bytes beside its values: more than many a body. Here the names, which
//! most responses of an origin have in common, are shared by all that have the same ones in the same order, and so are
//! the values that two such responses had in common. What is left, of most a `Date`, an `ETag` and a length, is one
//! piece of memory. A map is made of them for each client, who would get a copy of one either way.
//! Must not know: what a field means.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::mem::size_of;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::lately::Lately;
use crate::pieces;

/// The fields of a stored response: those of a map in its order, repeats together.
#[derive(Clone)]
pub struct StoredFields {
    names: Arc<Names>,
    /// Of the lines whose value is not common: where each but the last ends (four bytes, little-endian, counted from
    /// the end of these), and then the values. Of most only the date is, which so fits in 32 bytes.
    own: Box<[u8]>,
    /// A bit for each line whose value is the common one; lists that are shared have no more lines than bits.
    common: u32,
    /// What the names cost it, bytes: little where others have them already.
    share: u16,
}

/// The names of such fields.
#[derive(Debug)]
pub(super) struct Names {
    /// One for each line.
    lines: Arc<[HeaderName]>,
    /// Once they are shared, a map of them with the values that are common and nothing for the others, and an index
    /// that has room for [`ADDED`] more: to copy it costs a third of putting one name after the other into another.
    ready: OnceLock<HeaderMap>,
}

impl Names {
    /// What they cost whoever has the same as others, bytes.
    fn share(&self) -> usize {
        self.lines.len().saturating_mul(SHARE)
    }
}

/// Names at hand, and the values that came with them first, until it is known which are common.
#[derive(Debug)]
struct Known {
    names: Arc<Names>,
    first: Option<Box<[u8]>>,
}

/// Fields that each client gets beside those that are stored, and one that its route may add.
const ADDED: usize = 7;

/// Bytes of an end.
const END: usize = size_of::<u32>();

/// Lists of names that a thread has at hand to be shared.
const SHARED: usize = 128;
/// Bytes of names, and how many, from which on a list is not shared: nobody sends the like twice.
const LONGEST: (usize, usize) = (1024, u32::BITS as usize);
/// Bytes of the longest value that is common.
const COMMON: usize = 256;
/// So many values are copied one by one for a client; more are copied together.
const FEW: usize = 2;

thread_local! {
    /// No more than [`SHARED`]. On each thread, so that nobody waits: as many copies of a list as there are threads
    /// cost nothing.
    static NAMES: RefCell<HashMap<Arc<[HeaderName]>, Known>> = RefCell::default();
    /// The few that were asked for last and are kept ready, the latest first: most responses have these, and to compare
    /// a list with them is less than to hash it.
    static LATEST: RefCell<Lately<Arc<Names>>> = const { RefCell::new(Lately::new(FIRST)) };
}

/// How many of these there are.
const FIRST: usize = 4;

/// Fields that are to be stored, wherever they are.
pub(super) trait Lines {
    /// Every line, repeats of a field together.
    fn lines(&self) -> impl Iterator<Item = (&HeaderName, &[u8])>;

    /// Their names as they are kept, and what that costs, bytes.
    fn kept(&self) -> (Arc<Names>, usize);
}

impl Lines for HeaderMap {
    fn lines(&self) -> impl Iterator<Item = (&HeaderName, &[u8])> {
        self.iter().map(|(name, value)| (name, value.as_bytes()))
    }

    fn kept(&self) -> (Arc<Names>, usize) {
        shared(self)
    }
}

/// The name and the value of a field, as they stand in a record.
pub(super) type Line<'a> = (&'a [u8], &'a [u8]);

/// Fields whose names, in their order, are those of a response of late: as they stand in a record, no map is made.
pub(super) struct Alike<'a> {
    names: Arc<Names>,
    lines: &'a [Line<'a>],
}

impl<'a> Alike<'a> {
    /// These lines, where a response of late had the same names, and each value is one (RFC 9110 §5.5).
    pub(super) fn of(lines: &'a [Line<'a>]) -> Option<Self> {
        let is = |list: &[HeaderName]| {
            list.len() == lines.len()
                && lines.iter().zip(list).all(|((name, _), known)| *name == known.as_str().as_bytes())
        };
        let names = latest(is)?;
        lines.iter().all(|(_, value)| is_value(value)).then_some(Self { names, lines })
    }
}

impl Lines for Alike<'_> {
    fn lines(&self) -> impl Iterator<Item = (&HeaderName, &[u8])> {
        self.names.lines.iter().zip(self.lines.iter().map(|(_, value)| *value))
    }

    fn kept(&self) -> (Arc<Names>, usize) {
        (Arc::clone(&self.names), self.names.share())
    }
}

/// What `HeaderValue` takes: visible characters, spaces, tabs, and what is beyond ASCII.
fn is_value(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |fine, byte| fine & ((*byte >= b' ' && *byte != 0x7f) | (*byte == b'\t')))
}

impl StoredFields {
    /// Those of a map, in memory of their own. As hyper gives them, values are parts of a connection's read buffer.
    pub fn of(headers: &HeaderMap) -> Self {
        Self::of_lines(headers)
    }

    /// The same, wherever they are.
    pub(super) fn of_lines(headers: &impl Lines) -> Self {
        let (names, share) = headers.kept();
        let common = names.ready.get().map_or(0, |ready| common(headers, ready));
        let own = packed(headers, common);
        Self { names, own, common, share: u16::try_from(share).unwrap_or(u16::MAX) }
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.names.lines.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.lines.is_empty()
    }

    /// Every line.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &[u8])> {
        let mut ready = self.names.ready.get().map(HeaderMap::values);
        self.spans().map(move |(name, own)| {
            let common = ready.as_mut().and_then(Iterator::next);
            (name, own.map_or_else(|| common.map_or(&[][..], HeaderValue::as_bytes), |own| self.bytes(own)))
        })
    }

    /// The lines of a field.
    pub fn lines<'a>(&'a self, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(each, _)| *each == name).map(|(_, value)| value)
    }

    /// The first line of a field.
    pub fn get(&self, name: &HeaderName) -> Option<HeaderValue> {
        self.lines(name).next().and_then(|value| HeaderValue::from_bytes(value).ok())
    }

    /// Whether there is such a field.
    pub fn contains_key(&self, name: &HeaderName) -> bool {
        self.names.lines.contains(name)
    }

    /// A map of them, with room for what is added on the way to a client.
    pub fn to_map(&self) -> HeaderMap {
        let copied = Copied::of(self);
        let Some(ready) = self.names.ready.get() else {
            let mut map = HeaderMap::with_capacity(self.len().saturating_add(ADDED));
            for (name, own) in self.spans() {
                if let Some(value) = own.and_then(|own| copied.value(own)) {
                    map.append(name, value);
                }
            }
            return map;
        };
        let mut map = ready.clone();
        if self.owns() > 0 {
            for (place, (_, own)) in map.values_mut().zip(self.spans()) {
                if let Some(value) = own.and_then(|own| copied.value(own)) {
                    *place = value;
                }
            }
        }
        map
    }

    /// Bytes of memory beside this itself: its own values, and its share of what is shared. The first that has the
    /// names pays for them, and the second for what they are kept ready in, so that all together weigh what they take.
    pub fn weight(&self) -> usize {
        pieces::of(self.own.len()).saturating_add(self.share.into())
    }

    fn bytes(&self, (from, to): Span) -> &[u8] {
        self.own.get(from..to).unwrap_or_default()
    }

    /// Every name, and where its value stands among its own; `None` where it is the common one.
    fn spans(&self) -> impl Iterator<Item = (&HeaderName, Option<Span>)> {
        let mut own = unpacked(&self.own, self.owns());
        self.names.lines.iter().enumerate().map(move |(nth, name)| match is_in(self.common, nth) {
            true => (name, None),
            false => (name, Some(own.next().unwrap_or_default())),
        })
    }

    /// The memory in which its own values are.
    pub(super) fn own(&self) -> &[u8] {
        &self.own
    }

    /// How many values are its own.
    fn owns(&self) -> usize {
        self.len().saturating_sub(self.common.count_ones() as usize)
    }
}

/// Where a value begins, and where it ends.
type Span = (usize, usize);

/// Its own values on their way to a client.
enum Copied<'a> {
    OneByOne(&'a [u8]),
    Together(Bytes),
}

impl<'a> Copied<'a> {
    fn of(fields: &'a StoredFields) -> Self {
        if fields.owns() <= FEW {
            Self::OneByOne(&fields.own)
        } else {
            Self::Together(Bytes::copy_from_slice(&fields.own))
        }
    }

    /// What was a valid value stays one.
    fn value(&self, (from, to): Span) -> Option<HeaderValue> {
        match self {
            Self::OneByOne(own) => HeaderValue::from_bytes(own.get(from..to)?).ok(),
            Self::Together(own) if from <= to && to <= own.len() => {
                HeaderValue::from_maybe_shared(own.slice(from..to)).ok()
            }
            Self::Together(_) => None,
        }
    }
}

/// Whether the bit of this line is set.
fn is_in(common: u32, nth: usize) -> bool {
    u32::try_from(nth).ok().and_then(|nth| common.checked_shr(nth)).is_some_and(|bits| bits & 1 == 1)
}

/// Which lines have the value that is common.
fn common(headers: &impl Lines, ready: &HeaderMap) -> u32 {
    let lines = headers.lines().zip(ready.values()).enumerate();
    let same = lines.filter(|(_, ((_, one), other))| *one == other.as_bytes());
    let same = same.filter_map(|(nth, _)| u32::try_from(nth).ok());
    same.fold(0, |bits, nth| bits | 1_u32.checked_shl(nth).unwrap_or(0))
}

/// The values that are not common in one piece: where each ends, and then they.
fn packed(headers: &impl Lines, common: u32) -> Box<[u8]> {
    let lines = || headers.lines().map(|(_, value)| value).enumerate();
    let own = || lines().filter(|(nth, _)| !is_in(common, *nth)).map(|(_, value)| value);
    let (count, length) = own().fold((0, 0), |(count, length): (usize, usize), value| {
        (count.saturating_add(1), length.saturating_add(value.len()))
    });
    let ends = count.saturating_sub(1);
    let mut packed = Vec::with_capacity(length.saturating_add(ends.saturating_mul(END)));
    let mut end = 0_u32;
    for value in own().take(ends) {
        // A head is bounded by far less than four gigabytes (`limits.head_size`, `origin_head_size`).
        end = end.saturating_add(u32::try_from(value.len()).unwrap_or(u32::MAX));
        packed.extend_from_slice(&end.to_le_bytes());
    }
    own().for_each(|value| packed.extend_from_slice(value));
    packed.into()
}

/// Where each of so many values stands in what [`packed`] gave.
fn unpacked(packed: &[u8], count: usize) -> impl Iterator<Item = Span> {
    let first = count.saturating_sub(1).saturating_mul(END);
    let (ends, _) = packed.get(..first).unwrap_or_default().as_chunks::<END>();
    let mut from = first;
    (0..count).map(move |nth| {
        let end = |end: &[u8; END]| first.saturating_add(u32::from_le_bytes(*end) as usize);
        let to = ends.get(nth).map_or(packed.len(), end);
        (std::mem::replace(&mut from, to), to)
    })
}

/// What one name of a list weighs that others have, too.
const SHARE: usize = 4;
/// What one takes beside its text, and a place in a map with its share of the index, bytes.
const NAME: usize = size_of::<HeaderName>() + 24;
const PLACE: usize = 112;

/// One list for all that are the same, and what it costs whoever asks for it, bytes.
///
/// Where there are more lists than are kept at hand, some have theirs alone, and pay for it.
fn shared(headers: &HeaderMap) -> (Arc<Names>, usize) {
    let is = |list: &[HeaderName]| {
        list.len() == headers.len() && headers.iter().zip(list).all(|((name, _), known)| name == known)
    };
    if let Some(names) = latest(is) {
        let share = names.share();
        return (names, share);
    }
    let (names, share) = sought(headers);
    if names.ready.get().is_some() {
        LATEST.with_borrow_mut(|latest| latest.put(Arc::clone(&names)));
    }
    (names, share)
}

/// The list that is sought, where it is among the latest.
fn latest(is: impl Fn(&[HeaderName]) -> bool) -> Option<Arc<Names>> {
    LATEST.with_borrow_mut(|latest| latest.find(|names| is(&names.lines)).cloned())
}

/// The same by all that are at hand.
fn sought(headers: &HeaderMap) -> (Arc<Names>, usize) {
    let names: Vec<HeaderName> = headers.iter().map(|(name, _)| name.clone()).collect();
    let bytes: usize = names.iter().map(|name| name.as_str().len()).sum();
    let (count, own) = (names.len(), bytes.saturating_add(names.len().saturating_mul(NAME)));
    let alone = |lines: Arc<[HeaderName]>| Arc::new(Names { lines, ready: OnceLock::new() });
    if bytes > LONGEST.0 || count > LONGEST.1 {
        return (alone(names.into()), own);
    }
    NAMES.with_borrow_mut(|known| {
        if let Some(Known { names, first }) = known.get_mut(names.as_slice()) {
            let mut share = names.share();
            names.ready.get_or_init(|| {
                let ready = ready(headers, first.take().unwrap_or_default().as_ref());
                let values: usize = ready.values().map(|value| pieces::of(value.len())).sum();
                share = share.saturating_add(ready.capacity().saturating_mul(PLACE)).saturating_add(values);
                ready
            });
            return (Arc::clone(names), share);
        }
        if known.len() >= SHARED {
            // Those that no response has any more make room.
            known.retain(|_, known| Arc::strong_count(&known.names) > 1);
        }
        let names = alone(names.into());
        if known.len() < SHARED {
            let first = Some(packed(headers, 0));
            known.insert(Arc::clone(&names.lines), Known { names: Arc::clone(&names), first });
        }
        (names, own)
    })
}

/// A map of these names, with the values that the first who had them had, too.
fn ready(headers: &HeaderMap, first: &[u8]) -> HeaderMap {
    let mut ready = HeaderMap::with_capacity(headers.len().saturating_add(ADDED));
    for ((name, value), (from, to)) in headers.iter().zip(unpacked(first, headers.len())) {
        let before = first.get(from..to).unwrap_or_default();
        let same = value.as_bytes() == before && before.len() <= COMMON;
        // In memory of its own: as it is, it may be a part of a read buffer.
        let value = HeaderValue::from_bytes(if same { before } else { b"" });
        ready.append(name, value.unwrap_or(HeaderValue::from_static("")));
    }
    ready
}

impl PartialEq for StoredFields {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for StoredFields {}

impl fmt::Debug for StoredFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(name, value)| (name, value.escape_ascii().to_string())))
            .finish()
    }
}

/// Has this thread have nothing at hand.
#[cfg(test)]
pub(super) fn forget() {
    LATEST.with_borrow_mut(Lately::clear);
    NAMES.with_borrow_mut(HashMap::clear);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stored::samples::fields;

    #[test]
    fn a_map_stays_what_it_is_and_leaves_the_read_buffer() {
        let buffer = Bytes::from(b"max-age=60onetwoa,b".to_vec());
        let value = |range| HeaderValue::from_maybe_shared(buffer.slice(range)).unwrap();
        let mut headers = HeaderMap::new();
        headers.append("cache-control", value(0..10));
        headers.append("link", value(10..13));
        headers.append("x-other", value(16..19));
        headers.append("link", value(13..16));
        headers.append("x-empty", HeaderValue::from_static(""));
        let stored = StoredFields::of(&headers);
        assert!(stored.to_map().iter().eq(headers.iter()));
        let link = HeaderName::from_static("link");
        assert_eq!(stored.lines(&link).collect::<Vec<_>>(), [b"one", b"two"]);
        assert_eq!(stored.get(&link).unwrap(), "one");
        assert_eq!(stored.get(&HeaderName::from_static("x-empty")).unwrap(), "");
        assert_eq!(stored.get(&HeaderName::from_static("age")), None);
        assert_eq!((stored.len(), stored.is_empty()), (5, false));
        drop(headers);
        assert!(buffer.is_unique());
        assert!(StoredFields::of(&HeaderMap::new()).to_map().is_empty());
    }

    #[test]
    fn a_map_has_room_for_what_a_client_gets_beside_them() {
        for count in 0..80 {
            let mut headers = HeaderMap::new();
            for nth in 0..count {
                headers.append(HeaderName::try_from(format!("x-{nth}")).unwrap(), HeaderValue::from(nth));
            }
            let mut map = StoredFields::of(&headers).to_map();
            let room = map.capacity();
            map.reserve(ADDED);
            assert_eq!((map.len(), map.capacity()), (count, room));
        }
    }

    #[test]
    fn names_are_shared_by_those_that_have_the_same() {
        let of = |pairs: &[(&str, &str)]| StoredFields::of(&fields(pairs));
        let one = of(&[("etag", "1"), ("x-own", "2")]);
        assert!(Arc::ptr_eq(&one.names, &of(&[("etag", "3"), ("x-own", "")]).names));
        assert!(!Arc::ptr_eq(&one.names, &of(&[("x-own", "2"), ("etag", "1")]).names), "the order is theirs");
        let held: Vec<_> = (0..3 * SHARED).map(|n| of(&[(&format!("x-{n}"), "")])).collect();
        assert_eq!(NAMES.with_borrow(HashMap::len), SHARED);
        assert!(Arc::ptr_eq(&held[0].names, &of(&[("x-0", "")]).names), "those that are shared stay so");
        let last = 3 * SHARED - 1;
        assert!(!Arc::ptr_eq(&held[last].names, &of(&[(&format!("x-{last}"), "")]).names));
        drop(held);
        let new = of(&[("x-new", "")]);
        assert!(Arc::ptr_eq(&new.names, &of(&[("x-new", "")]).names), "those that nobody has make room");
        let long = "x".repeat(LONGEST.0 + 1);
        of(&[(&long, "")]);
        assert!(NAMES.with_borrow(|known| known.keys().all(|names| names[0].as_str() != long)));
    }

    #[test]
    fn values_are_shared_that_two_have_had() {
        let of = |age: &str, tag: &str| {
            StoredFields::of(&fields(&[("server", "origin"), ("cache-control", age), ("etag", tag)]))
        };
        let (first, second) = (of("max-age=60", "\"1\""), of("max-age=60", "\"2\""));
        let (third, other) = (of("max-age=60", "\"3\""), of("max-age=61", "\"4\""));
        // Its one value that is not common takes no room at all, and is not the common one for that.
        let empty = of("", "");
        assert_eq!([&first, &second, &third, &other, &empty].map(StoredFields::owns), [3, 1, 1, 2, 1]);
        for (stored, age, tag) in [
            (&first, "max-age=60", "\"1\""),
            (&second, "max-age=60", "\"2\""),
            (&third, "max-age=60", "\"3\""),
            (&other, "max-age=61", "\"4\""),
            (&empty, "", ""),
        ] {
            let map = fields(&[("server", "origin"), ("cache-control", age), ("etag", tag)]);
            assert!(stored.to_map().iter().eq(map.iter()), "{stored:?}");
            assert!(stored.iter().eq(map.iter().map(|(name, value)| (name, value.as_bytes()))));
            assert_eq!(stored.get(&HeaderName::from_static("cache-control")).unwrap(), age);
        }
        assert_ne!(third, other);
        assert!(third.own.len() < 10, "{}", third.own.len());
    }

    #[test]
    fn what_was_a_read_buffer_is_let_go_of_also_where_values_are_common() {
        let buffer = Bytes::from(b"max-age=60".to_vec());
        let mut headers = HeaderMap::new();
        headers.append("x-of-a-buffer", HeaderValue::from_maybe_shared(buffer.clone()).unwrap());
        let _stored = [(); 3].map(|()| StoredFields::of(&headers));
        drop(headers);
        assert!(buffer.is_unique());
    }

    /// Else a tier of so many bytes would take many times as much.
    #[test]
    fn names_that_a_response_has_alone_weigh_what_they_take() {
        for round in 0..2 * SHARED {
            let names: Vec<String> = (0..20).map(|n| format!("x-amz-meta-{round}-{n}")).collect();
            let pairs: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
            let text: usize = names.iter().map(String::len).sum();
            let [first, second, third] = [(); 3].map(|()| StoredFields::of(&fields(&pairs)));
            assert!(first.weight() >= text + 20 * size_of::<HeaderName>(), "{}", first.weight());
            if Arc::ptr_eq(&first.names, &second.names) {
                let ready = first.names.ready.get().unwrap().capacity();
                assert!(second.weight() >= ready * (size_of::<HeaderName>() + size_of::<HeaderValue>()));
                assert!(third.weight() < 20 * 10, "{}", third.weight());
            }
        }
        let long = "x".repeat(LONGEST.0 + 1);
        assert!(StoredFields::of(&fields(&[(&long, "")])).weight() > LONGEST.0);
    }

    proptest! {
        #[test]
        fn any_map_stays_what_it_is(lines in prop::collection::vec(("[a-c]{1,2}", prop::collection::vec(32_u8..127, 0..9)), 0..30)) {
            let mut headers = HeaderMap::new();
            for (name, value) in &lines {
                headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value).unwrap());
            }
            // The third shares what the first two had in common.
            for _ in 0..3 {
                let stored = StoredFields::of(&headers);
                prop_assert!(stored.to_map().iter().eq(headers.iter()));
                prop_assert!(stored.iter().eq(headers.iter().map(|(name, value)| (name, value.as_bytes()))));
                prop_assert_eq!(&stored, &StoredFields::of(&stored.to_map()));
            }
        }
    }
}
