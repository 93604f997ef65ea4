//! What moka holds for a key.
//!
//! moka lets go of what it has given up or replaced a good while later: of up to 64 entries on each thread when there
//! is traffic again. Of small ones that is nothing; of large bodies it would be more than the tier may hold. So what
//! moka holds of large ones can be emptied, and is as soon as it is given up: from then on a body is in memory only if
//! somebody reads it.
//! Must not know: why something is given up, or who reads it.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use moka::sync::Cache;

use super::resource::Resource;
use super::seed::Seed;

/// moka, by the hash of a key.
pub(super) type Tier = Cache<u128, Slot, Seed>;

/// A resource, until it is given up. Whoever has found it before has it still.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    /// It stands for what is beside the tier (`yielding.rs`), weighs so much, and never held anything.
    Own(u32),
    /// Small enough to stay where it is until moka lets go of it.
    Small(Resource),
    /// To be emptied, and what it is found to weigh: moka never asks again, also not where it is empty.
    Large(Arc<Emptied>),
}

/// What may be taken out.
#[derive(Debug)]
pub(super) struct Emptied {
    weight: u32,
    resource: ArcSwapOption<Resource>,
}

/// Times that a resource is looked for which is being replaced at this moment. A replacement takes longer than a look.
const LOOKS: usize = 8;
/// Bytes that a small one weighs at most: of 64 of them a mebibyte.
const SMALL: u32 = 16 * 1024;

impl Slot {
    /// Of this resource.
    pub(super) fn of(resource: Resource) -> Self {
        match resource.weight {
            ..=SMALL => Self::Small(resource),
            weight => {
                Self::Large(Arc::new(Emptied { weight, resource: ArcSwapOption::from_pointee(resource) }))
            }
        }
    }

    /// Bytes.
    pub(super) fn weight(&self) -> u32 {
        match self {
            Self::Own(weight) => *weight,
            Self::Small(resource) => resource.weight,
            Self::Large(large) => large.weight,
        }
    }

    /// What it holds.
    pub(super) fn resource(self) -> Option<Resource> {
        match self {
            Self::Own(_) => None,
            Self::Small(resource) => Some(resource),
            Self::Large(large) => large.resource.load_full().map(Arc::unwrap_or_clone),
        }
    }

    /// Takes out what it holds, when moka has given it up or has another in its place.
    pub(super) fn empty(self) -> Option<Resource> {
        match self {
            Self::Own(_) => None,
            Self::Small(resource) => Some(resource),
            Self::Large(large) => large.resource.swap(None).map(Arc::unwrap_or_clone),
        }
    }
}

/// What the tier holds under this hash. An empty slot has been replaced or given up just now, so a second look finds
/// the other, or nothing.
pub(super) fn find(tier: &Tier, hash: u128) -> Option<Resource> {
    (0..LOOKS).map_while(|_| tier.get(&hash)).find_map(Slot::resource)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;
    use crate::config;
    use crate::store::{Class, Memory, PURGES, Purges, samples};
    use crate::stored::Born;
    use crate::stored::samples::{key, plain};

    fn memory(bytes: u64) -> (Memory, Purges) {
        let cfg = config::Cache { memory: bytes, ..samples::cache(None) };
        (Memory::new(&cfg), Purges::new(PURGES))
    }

    #[test]
    fn a_body_that_is_given_up_is_out_of_memory_at_once() {
        let (memory, purges) = memory(4 << 20);
        let mut kept = Vec::new();
        for nth in 0..100 {
            // Given up for the next, replaced, or purged.
            let response = plain(&format!("/{}", nth % 40), &vec![b'x'; 1 << 20], Born::Here(0));
            kept.push(Arc::downgrade(&response));
            memory.keep(response, Class::Plain, &purges);
            if nth % 5 == 0 {
                memory.remove(&key(&format!("/{}", nth % 40)));
            }
            let held = kept.iter().filter(|response| response.strong_count() > 0).count();
            assert!(held <= 4, "{held} after {nth}");
        }
    }

    #[test]
    fn a_resource_that_is_replaced_is_found_at_any_moment() {
        let (memory, purges) = memory(4 << 20);
        let keep = || memory.keep(plain("/", b"x", Born::Here(0)), Class::Plain, &purges);
        keep();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let looking = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    assert!(memory.find(&key("/")).is_some());
                }
            });
            for _ in 0..20_000 {
                keep();
            }
            over.store(true, Ordering::Relaxed);
            looking.join().unwrap();
        });
    }
}
