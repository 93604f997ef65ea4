//! The fields of a stored response, in as little memory as they can be held in.
//!
//! A `HeaderMap` of seven fields takes some 1,500 bytes beside its values: more than many a body. Here all values are
//! one piece of memory, and the names, which most responses of an origin have in common, are shared by all that have
//! the same ones in the same order. A map is made of them for each client, who would get a copy of one either way.
//! Must not know: what a field means.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::mem::size_of;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The fields of a stored response: those of a map in its order, repeats together.
#[derive(Clone)]
pub struct StoredFields {
    names: Arc<Names>,
    /// What these cost it, bytes: little where others have them already.
    share: u32,
    /// Where each value ends (four bytes, little-endian, counted from the end of these), and then the values.
    values: Bytes,
}

/// The names of such fields.
#[derive(Debug)]
struct Names {
    /// One for each line.
    lines: Arc<[HeaderName]>,
    /// Once they are shared, a map of them without values, and an index that has room for [`ADDED`] more: to copy
    /// it costs a third of putting one name after the other into another.
    ready: OnceLock<HeaderMap>,
}

/// Fields that each client gets beside those that are stored, and one that its route may add.
const ADDED: usize = 7;

/// Bytes of an end.
const END: usize = size_of::<u32>();

/// Lists of names that a thread has at hand to be shared.
const SHARED: usize = 128;
/// Bytes of names, and how many, from which on a list is not shared: nobody sends the like twice.
const LONGEST: (usize, usize) = (1024, 64);

thread_local! {
    /// No more than [`SHARED`]. On each thread, so that nobody waits: as many copies of a list as there are threads
    /// cost nothing.
    static NAMES: RefCell<HashMap<Arc<[HeaderName]>, Arc<Names>>> = RefCell::default();
}

impl StoredFields {
    /// Those of a map, in memory of their own. As hyper gives them, values are parts of a connection's read buffer.
    pub fn of(headers: &HeaderMap) -> Self {
        let ends = headers.len().saturating_mul(END);
        let all: usize = headers.values().map(HeaderValue::len).sum();
        let mut values = Vec::with_capacity(ends.saturating_add(all));
        let mut end = 0_u32;
        for value in headers.values() {
            // A head is bounded by far less than four gigabytes (`limits.head_size`, `origin_head_size`).
            end = end.saturating_add(u32::try_from(value.len()).unwrap_or(u32::MAX));
            values.extend_from_slice(&end.to_le_bytes());
        }
        headers.values().for_each(|value| values.extend_from_slice(value.as_bytes()));
        let (names, share) = shared(headers.iter().map(|(name, _)| name.clone()).collect());
        Self { names, share: u32::try_from(share).unwrap_or(u32::MAX), values: values.into() }
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
        self.spans().map(|(name, from, to)| (name, self.values.get(from..to).unwrap_or_default()))
    }

    /// The lines of a field.
    pub fn lines<'a>(&'a self, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(each, _)| *each == name).map(|(_, value)| value)
    }

    /// The first line of a field.
    pub fn get(&self, name: &HeaderName) -> Option<HeaderValue> {
        self.spans().find(|(each, ..)| *each == name).and_then(|(_, from, to)| self.value(from, to))
    }

    /// Whether there is such a field.
    pub fn contains_key(&self, name: &HeaderName) -> bool {
        self.names.lines.contains(name)
    }

    /// A map of them, with room for what is added on the way to a client.
    pub fn to_map(&self) -> HeaderMap {
        let Some(ready) = self.names.ready.get() else {
            let mut map = HeaderMap::with_capacity(self.len().saturating_add(ADDED));
            for (name, from, to) in self.spans() {
                if let Some(value) = self.value(from, to) {
                    map.append(name, value);
                }
            }
            return map;
        };
        let mut map = ready.clone();
        for (place, (_, from, to)) in map.values_mut().zip(self.spans()) {
            if let Some(value) = self.value(from, to) {
                *place = value;
            }
        }
        map
    }

    /// Bytes of memory beside this itself: its values, and its share of the names. The first that has them pays for
    /// them, and the second for what they are kept ready in, so that all together weigh what they take.
    pub fn weight(&self) -> usize {
        self.values.len().saturating_add(self.share as usize)
    }

    /// What was a valid value stays one.
    fn value(&self, from: usize, to: usize) -> Option<HeaderValue> {
        HeaderValue::from_maybe_shared(self.values.slice(from.min(to)..to.min(self.values.len()))).ok()
    }

    /// Every name, and where its value begins and ends.
    fn spans(&self) -> impl Iterator<Item = (&HeaderName, usize, usize)> {
        let first = self.names.lines.len().saturating_mul(END);
        let (ends, _) = self.values.get(..first).unwrap_or_default().as_chunks::<END>();
        let mut from = first;
        self.names.lines.iter().zip(ends).map(move |(name, end)| {
            let to = first.saturating_add(u32::from_le_bytes(*end) as usize);
            (name, std::mem::replace(&mut from, to), to)
        })
    }
}

/// What one name of a list weighs that others have, too.
const SHARE: usize = 4;
/// What one takes beside its text, and a place in a map with its share of the index, bytes.
const NAME: usize = size_of::<HeaderName>() + 24;
const PLACE: usize = 112;

/// One list for all that are the same, and what it costs whoever asks for it, bytes.
///
/// Where there are more lists than are kept at hand, some have theirs alone, and pay for it.
fn shared(names: Vec<HeaderName>) -> (Arc<Names>, usize) {
    let bytes: usize = names.iter().map(|name| name.as_str().len()).sum();
    let (count, own) = (names.len(), bytes.saturating_add(names.len().saturating_mul(NAME)));
    let alone = |lines: Arc<[HeaderName]>| Arc::new(Names { lines, ready: OnceLock::new() });
    if bytes > LONGEST.0 || count > LONGEST.1 {
        return (alone(names.into()), own);
    }
    NAMES.with_borrow_mut(|known| {
        if let Some(known) = known.get(names.as_slice()) {
            let mut share = count.saturating_mul(SHARE);
            known.ready.get_or_init(|| {
                let mut ready = HeaderMap::with_capacity(count.saturating_add(ADDED));
                for name in &names {
                    ready.append(name, HeaderValue::from_static(""));
                }
                share = share.saturating_add(ready.capacity().saturating_mul(PLACE));
                ready
            });
            return (Arc::clone(known), share);
        }
        if known.len() >= SHARED {
            // Those that no response has any more make room.
            known.retain(|_, names| Arc::strong_count(names) > 1);
        }
        let names = alone(names.into());
        if known.len() < SHARED {
            known.insert(Arc::clone(&names.lines), Arc::clone(&names));
        }
        (names, own)
    })
}

impl PartialEq for StoredFields {
    fn eq(&self, other: &Self) -> bool {
        self.names.lines == other.names.lines && self.values == other.values
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
            let stored = StoredFields::of(&headers);
            prop_assert!(stored.to_map().iter().eq(headers.iter()));
            prop_assert!(stored.iter().eq(headers.iter().map(|(name, value)| (name, value.as_bytes()))));
            prop_assert_eq!(&stored, &StoredFields::of(&stored.to_map()));
        }
    }
}
