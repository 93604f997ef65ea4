//! What many stored responses say alike, held once for all of them.
//!
//! Knows what was said lately. On each thread, so that nobody waits; what is in use on several is there as many times,
//! which costs nothing.
//! Must not know: what any of it means.

use std::cell::RefCell;
use std::sync::Arc;

use crate::lately::Lately;
use crate::rules::{ResponseFacts, Said};

/// What a thread has at hand.
const KNOWN: usize = 32;
/// Bytes beyond which it is held by each alone: nobody says the like twice.
const LONGEST: usize = 1024;

thread_local! {
    static SAID: RefCell<Lately<Arc<Said>>> = const { RefCell::new(Lately::new(KNOWN)) };
}

/// The same facts, sharing what others have said just so, and what that costs, bytes: all where they are the first.
pub(super) fn shared(facts: ResponseFacts) -> (ResponseFacts, usize) {
    let weight = facts.said.weight();
    if weight > LONGEST {
        return (facts, weight);
    }
    SAID.with_borrow_mut(|known| {
        if let Some(said) = known.find(|said| *said == facts.said) {
            return (ResponseFacts { said: Arc::clone(said), ..facts }, 0);
        }
        known.put(Arc::clone(&facts.said));
        (facts, weight)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::stored::samples::fields;

    fn facts(control: &str) -> ResponseFacts {
        let at = Timestamp::from_secs(1_000);
        ResponseFacts::of(200, &fields(&[("cache-control", control), ("etag", "\"a\"")]), at, at)
    }

    #[test]
    fn what_is_said_alike_is_held_once_and_the_first_pays() {
        let (one, paid) = shared(facts("max-age=60"));
        let (two, more) = shared(facts("max-age=60"));
        assert!(Arc::ptr_eq(&one.said, &two.said) && paid >= size_of::<Said>() && more == 0);
        assert_eq!(two, facts("max-age=60"));
        let (other, paid) = shared(facts("max-age=61"));
        assert!(!Arc::ptr_eq(&one.said, &other.said) && paid > 0);
    }

    #[test]
    fn few_are_at_hand_and_the_oldest_gives_way() {
        let first = shared(facts("max-age=1")).0;
        (2..50).for_each(|age| drop(shared(facts(&format!("max-age={age}")))));
        assert_eq!(SAID.with_borrow(Lately::len), KNOWN);
        assert!(!Arc::ptr_eq(&first.said, &shared(facts("max-age=1")).0.said));
    }
}
