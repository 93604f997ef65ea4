//! Large bodies in memory of their own, apart from the allocator's.
//!
//! Knows anonymous maps. What an allocator is given back it keeps for a while, and where one large body
//! comes after another that is as much again as is held. A map is the system's again the moment the last
//! who holds it lets go, and it takes what is written to it and not more, so that a body of unknown length
//! can grow in one.
//! Must not know: what a body is, who reads it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use memmap2::{Advice, MmapMut, MmapOptions};

/// Bodies from here on have memory of their own, bytes. A map costs a few system calls, and each of its
/// pages is the system's to clear: for what is smaller, the allocator does better.
pub const LARGE: usize = 128 * 1024;
/// What a map is a multiple of, bytes; on most systems.
pub const PAGE: usize = 4096;

/// Maps at once. Linux gives a process 65,530, and one that has no more cannot even give them back.
const MAPS: usize = 16 * 1024;
/// The maps there are, by where they begin.
static LIVE: Mutex<BTreeMap<usize, Weak<()>>> = Mutex::new(BTreeMap::new());

fn live() -> MutexGuard<'static, BTreeMap<usize, Weak<()>>> {
    // Nothing is done under the lock that could leave the table half changed.
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Knows whether a large body is still held by anybody, and does not hold it itself.
#[derive(Clone, Debug)]
pub struct Witness(Weak<()>);

impl Witness {
    /// Of a body in memory of its own, all of it; `None` where it lies with the allocator.
    pub fn of(body: &Bytes) -> Option<Self> {
        if body.len() < LARGE {
            return None;
        }
        live().get(&body.as_ptr().addr()).cloned().map(Self)
    }

    /// The body is held, whole or in part.
    pub fn is_held(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Both are of one body.
    pub fn is_of_same(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
    }
}

/// A body that grows in memory of its own.
#[derive(Debug)]
pub struct Apart {
    map: MmapMut,
    len: usize,
    /// As long as this is there, so is the map.
    _life: Arc<()>,
}

impl Apart {
    /// Room for `most` bytes; `exact` where so many are expected, and not only not more. `None` where the
    /// system has none, or too many such bodies are held: then the allocator has to do.
    pub fn new(most: usize, exact: bool) -> Option<Self> {
        if live().len() >= MAPS {
            return None;
        }
        let map = MmapOptions::new().len(most).no_reserve_swap().map_anon().ok()?;
        if !exact {
            // A huge page reaches far beyond what is written. Where there are none, there is nothing to refuse.
            let _refused = map.advise(Advice::NoHugePage);
        }
        let life = Arc::new(());
        live().insert(map.as_ptr().addr(), Arc::downgrade(&life));
        Some(Self { map, len: 0, _life: life })
    }

    /// Bytes that have come.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none have.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds bytes; `false`, and none are added, where there is no room for them.
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        let end = self.len.saturating_add(bytes.len());
        let Some(free) = self.map.get_mut(self.len..end) else { return false };
        free.copy_from_slice(bytes);
        self.len = end;
        true
    }

    /// A copy of the bytes from `from` to before `end`, as far as they have come.
    pub fn copy(&self, from: usize, end: usize) -> Bytes {
        Bytes::copy_from_slice(self.map.get(from..end.min(self.len)).unwrap_or_default())
    }

    /// All that has come, to be shared.
    pub fn finish(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // Before the map goes: the next may begin at the same place.
        live().remove(&self.map.as_ptr().addr());
    }
}

impl AsRef<[u8]> for Apart {
    fn as_ref(&self) -> &[u8] {
        self.map.get(..self.len).unwrap_or_default()
    }
}

/// One piece of memory, exactly as large as the chunks together. A chunk as it comes from a connection is a
/// part of a larger read buffer and would keep all of that alive.
pub fn gather(chunks: &[Bytes]) -> Bytes {
    let len = chunks.iter().map(Bytes::len).sum();
    if len >= LARGE
        && let Some(mut apart) = Apart::new(len, true)
    {
        // There is room: the map is as large as they are together.
        let fit = chunks.iter().all(|chunk| apart.push(chunk));
        debug_assert!(fit && apart.len() == len);
        return apart.finish();
    }
    let mut whole = Vec::with_capacity(len);
    chunks.iter().for_each(|chunk| whole.extend_from_slice(chunk));
    Bytes::from(whole)
}

/// A body of so many zeros. A large one takes no memory as long as nobody looks at it: for who only weighs it.
pub fn blank(len: usize) -> Bytes {
    match (len >= LARGE).then(|| Apart::new(len, false)).flatten() {
        Some(mut apart) => {
            apart.len = len;
            apart.finish()
        }
        None => Bytes::from(vec![0; len]),
    }
}

/// A copy of these, in memory of its own where they are many.
pub fn own(bytes: &[u8]) -> Bytes {
    if bytes.len() >= LARGE
        && let Some(mut apart) = Apart::new(bytes.len(), true)
        && apart.push(bytes)
    {
        return apart.finish();
    }
    Bytes::copy_from_slice(bytes)
}

/// The same body for those who read it: `held` is let go of when the last of them has let go of the last part.
pub fn held_with(body: Bytes, held: impl Send + 'static) -> Bytes {
    struct Read<T>(Bytes, T);
    impl<T> AsRef<[u8]> for Read<T> {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    Bytes::from_owner(Read(body, held))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_body_is_as_long_as_asked_for_and_apart_where_it_is_large() {
        for len in [0, 1, LARGE - 1, LARGE, 3 * LARGE + 1] {
            let body = blank(len);
            assert!(body.len() == len && body.iter().all(|byte| *byte == 0));
            assert_eq!(Witness::of(&body).is_some(), len >= LARGE);
        }
    }

    #[test]
    fn what_is_pushed_is_what_comes_of_it() {
        let mut apart = Apart::new(10, true).unwrap();
        assert!(apart.is_empty() && apart.push(b"0123") && apart.push(b"4567"));
        assert!(!apart.push(b"89a"), "no room");
        assert_eq!((apart.len(), apart.copy(2, 6), apart.copy(6, 99)), (8, "2345".into(), "67".into()));
        assert_eq!(apart.copy(9, 10), "", "not come yet");
        assert_eq!(apart.finish().slice(4..), "4567");
    }

    #[test]
    fn a_witness_knows_when_the_last_part_is_let_go_of() {
        let whole = gather(&[vec![b'x'; LARGE].into()]);
        let witness = Witness::of(&whole).unwrap();
        assert!(witness.is_of_same(&Witness::of(&whole.clone()).unwrap()));
        let other = gather(&[vec![b'y'; LARGE].into()]);
        assert!(!witness.is_of_same(&Witness::of(&other).unwrap()));
        let part = whole.slice(LARGE - 1..);
        drop(whole);
        assert!(witness.is_held());
        assert_eq!(part, "x");
        drop(part);
        assert!(!witness.is_held());
        assert!(Witness::of(&vec![0; LARGE].into()).is_none(), "the allocator's");
    }

    #[test]
    fn what_is_held_with_a_body_goes_with_the_last_part_of_it() {
        let (body, held) = (own(&[b'x'; LARGE]), Arc::new(()));
        let read = held_with(body.clone(), Arc::clone(&held));
        assert!(Witness::of(&read).unwrap().is_of_same(&Witness::of(&body).unwrap()), "no copy");
        let part = read.slice(..1);
        drop((read, body));
        assert_eq!((Arc::strong_count(&held), &part[..]), (2, &b"x"[..]));
        drop(part);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn chunks_of_any_size_are_gathered() {
        for len in [0, 1, 1000, LARGE, LARGE + 1, 3 * LARGE] {
            let bytes: Vec<u8> = (0..len).map(|nth| (nth % 251) as u8).collect();
            let chunks: Vec<Bytes> = bytes.chunks(777).map(Bytes::copy_from_slice).collect();
            assert_eq!(gather(&chunks), bytes);
        }
    }

    #[test]
    fn there_is_room_for_no_body_that_no_system_could_hold() {
        assert!(Apart::new(usize::MAX, false).is_none());
    }
}
