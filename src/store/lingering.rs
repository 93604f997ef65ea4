//! Bodies that the memory tier has given up, and somebody still reads.
//!
//! Knows who else holds a body. Must not know: why it was given up.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::apart::Witness;
use crate::stored::StoredResponse;

/// Smaller bodies that linger are not worth a note.
const LINGERS: usize = 64 * 1024;

/// Bodies that the tier has given up and somebody still reads. Bounded by the connections that read them.
#[derive(Debug, Default)]
pub(super) struct Lingering(Mutex<Vec<Noted>>);

/// A body that somebody reads, or did.
#[derive(Debug)]
enum Noted {
    /// Shared with the allocator's: held here, too, since it alone knows who else holds it.
    Held(Bytes),
    /// In memory of its own, and its length in bytes.
    Apart(Witness, usize),
}

impl Noted {
    /// `None` where nobody else holds it.
    fn of(body: &Bytes) -> Option<Self> {
        match Witness::of(body) {
            Some(witness) => Some(Self::Apart(witness, body.len())),
            None => (!body.is_unique()).then(|| Self::Held(body.clone())),
        }
    }

    fn is_read(&self) -> bool {
        match self {
            Self::Held(body) => !body.is_unique(),
            Self::Apart(witness, _) => witness.is_held(),
        }
    }

    fn is_of_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Held(one), Self::Held(other)) => one.as_ptr() == other.as_ptr(),
            (Self::Apart(one, _), Self::Apart(other, _)) => one.is_of_same(other),
            _ => false,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Held(body) => body.len(),
            Self::Apart(_, len) => *len,
        }
    }
}

impl Lingering {
    /// A body leaves the tier.
    pub(super) fn note(&self, body: &Bytes) {
        if body.len() >= LINGERS
            && let Some(new) = Noted::of(body)
        {
            let mut bodies = self.0.lock();
            bodies.retain(Noted::is_read);
            // Noted twice, it would keep itself alive, or count twice.
            if !bodies.iter().any(|noted| noted.is_of_same(&new)) {
                bodies.push(new);
            }
        }
    }

    /// Responses give way to others under the same key. What the others share of their bodies stays.
    pub(super) fn left_out(&self, before: &[Arc<StoredResponse>], after: &[Arc<StoredResponse>]) {
        let gone = before.iter().filter(|old| !after.iter().any(|new| Arc::ptr_eq(old, new)));
        for body in gone.flat_map(|old| old.content.bodies()) {
            let is_kept =
                after.iter().flat_map(|new| new.content.bodies()).any(|kept| kept.as_ptr() == body.as_ptr());
            if !is_kept {
                self.note(body);
            }
        }
    }

    /// What is still held.
    pub(super) fn bytes(&self) -> u64 {
        let mut bodies = self.0.lock();
        bodies.retain(Noted::is_read);
        bodies.iter().map(|body| body.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::store::{Class, Memory, PURGES, Purges, samples};
    use crate::stored::Born;
    use crate::stored::samples::{key, plain};

    const BORN: Born = Born::Here(0);

    fn memory(bytes: u64) -> (Memory, Purges) {
        let cfg = config::Cache { memory: bytes, variants: 3, ..samples::cache(None) };
        (Memory::new(&cfg), Purges::new(PURGES))
    }

    #[test]
    fn what_is_given_up_and_still_read_takes_of_the_room_for_what_comes() {
        let cfg = config::Cache { memory: 4 << 20, in_flight: 2 << 20, ..samples::cache(None) };
        let (memory, purges) = (Memory::new(&cfg), Purges::new(PURGES));
        let mut readers = Vec::new();
        for nth in 0..8 {
            let response = plain(&format!("/{nth}"), &vec![b'x'; 1 << 20], BORN);
            readers.extend(response.content.whole().cloned());
            memory.keep(response, Class::Plain, &purges);
        }
        let lingering = memory.gauges().lingering;
        assert!(lingering >= 4 << 20, "{lingering}");
        assert!(memory.room(1 << 20, false).is_none(), "all of it is taken");
        assert!(memory.room(1 << 10, false).is_some(), "of a small body nobody can hold much");
        readers.clear();
        assert_eq!(memory.gauges().lingering, 0);
        assert!(memory.room(2 << 20, false).is_some());
    }

    #[test]
    fn what_is_replaced_and_still_read_lingers() {
        let (memory, purges) = memory(16 << 20);
        let mut readers = Vec::new();
        for _ in 0..3 {
            let response = plain("/one", &vec![b'x'; 1 << 20], BORN);
            readers.extend(response.content.whole().cloned());
            memory.keep(response, Class::Plain, &purges);
        }
        assert_eq!(memory.gauges().lingering, 2 << 20, "the last of them is in the tier");
        readers.clear();
        assert_eq!(memory.gauges().lingering, 0);
    }

    #[test]
    fn what_is_replaced_by_itself_does_not_linger() {
        let (memory, purges) = memory(4 << 20);
        let kept = plain("/kept", &vec![b'x'; 1 << 20], BORN);
        let reader = kept.content.whole().cloned();
        for _ in 0..3 {
            assert!(memory.keep(Arc::clone(&kept), Class::Plain, &purges));
        }
        assert_eq!(memory.gauges().lingering, 0);
        // Purged twice while somebody reads it: noted once, and let go of.
        memory.remove(&key("/kept"));
        memory.keep(Arc::clone(&kept), Class::Plain, &purges);
        memory.remove(&key("/kept"));
        assert_eq!(memory.gauges().lingering, 1 << 20);
        drop((kept, reader));
        assert_eq!(memory.gauges().lingering, 0);
    }
}
