//! Keys that are not trusted for a while: what was stored under them was not for all.
//!
//! Knows which keys may not be stored under until when, which are to be looked at again, and how many looks
//! may be taken at once. Bounded: of too many, those whose time ends first are given up.
//! Must not know: how anybody came to doubt a key, or what it stands for.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::Timestamp;

/// Keys at most. Whoever has more of them has a route whose key is wrong, and an event for each.
const MOST: usize = 1024;

/// Looks at once in the whole process: each holds a few bodies, and is one more request to the origin.
const LOOKS: usize = 2;

/// What is wrong with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// What comes next is to be looked at soon.
    Suspect,
    /// Nothing may be stored.
    Quarantined,
}

/// The keys in doubt, by their hash. Where two keys share one, both are in doubt.
#[derive(Debug)]
pub struct Doubts {
    /// How many there are, so that who finds none takes no lock.
    held: AtomicUsize,
    keys: Mutex<HashMap<u128, (Doubt, Timestamp)>>,
    looks: Arc<Semaphore>,
}

impl Default for Doubts {
    fn default() -> Self {
        let looks = Arc::new(Semaphore::new(LOOKS));
        Self { held: AtomicUsize::new(0), keys: Mutex::default(), looks }
    }
}

impl Doubts {
    /// Leave to take a look; `None` where enough are being taken. It ends when what is given is dropped.
    pub fn look(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.looks).try_acquire_owned().ok()
    }

    /// Whether nothing may be stored under the key.
    pub fn is_quarantined(&self, key: u128, now: Timestamp) -> bool {
        self.is(Doubt::Quarantined, key, now)
    }

    /// Whether what is stored under the key is to be looked at.
    pub fn is_suspect(&self, key: u128, now: Timestamp) -> bool {
        self.is(Doubt::Suspect, key, now)
    }

    /// Nothing may be stored under the key until then.
    pub fn quarantine(&self, key: u128, now: Timestamp, until: Timestamp) {
        self.put(key, Doubt::Quarantined, now, until);
    }

    /// What is stored under the key until then is to be looked at.
    pub fn suspect(&self, key: u128, now: Timestamp, until: Timestamp) {
        if !self.is_quarantined(key, now) {
            self.put(key, Doubt::Suspect, now, until);
        }
    }

    /// What is stored under the key has turned out well.
    pub fn clear(&self, key: u128) {
        if self.held.load(Ordering::Acquire) > 0 {
            let mut keys = self.keys.lock();
            if keys.get(&key).is_some_and(|(doubt, _)| *doubt == Doubt::Suspect) {
                keys.remove(&key);
            }
            self.held.store(keys.len(), Ordering::Release);
        }
    }

    fn is(&self, doubt: Doubt, key: u128, now: Timestamp) -> bool {
        self.held.load(Ordering::Acquire) > 0
            && self.keys.lock().get(&key).is_some_and(|(known, until)| *known == doubt && now < *until)
    }

    fn put(&self, key: u128, doubt: Doubt, now: Timestamp, until: Timestamp) {
        let mut keys = self.keys.lock();
        keys.retain(|_, (_, until)| now < *until);
        if keys.len() >= MOST && !keys.contains_key(&key) {
            // A suspect before any other: giving it up costs one look.
            let least = keys.iter().min_by_key(|(_, (doubt, until))| (*doubt == Doubt::Quarantined, *until));
            if let Some(least) = least.map(|(least, _)| *least) {
                keys.remove(&least);
            }
        }
        keys.insert(key, (doubt, until));
        self.held.store(keys.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn a_key_is_in_doubt_until_its_time_is_up() {
        let doubts = Doubts::default();
        assert!(!doubts.is_quarantined(1, at(0)) && !doubts.is_suspect(1, at(0)));
        doubts.suspect(1, at(0), at(10));
        doubts.quarantine(2, at(0), at(10));
        assert!(doubts.is_suspect(1, at(9)) && !doubts.is_quarantined(1, at(9)));
        assert!(doubts.is_quarantined(2, at(9)) && !doubts.is_suspect(2, at(9)));
        assert!(!doubts.is_suspect(1, at(10)) && !doubts.is_quarantined(2, at(10)));
    }

    #[test]
    fn a_suspect_can_be_cleared_or_made_worse_and_a_quarantine_lasts() {
        let doubts = Doubts::default();
        doubts.suspect(1, at(0), at(10));
        doubts.clear(1);
        assert!(!doubts.is_suspect(1, at(0)));
        doubts.suspect(1, at(0), at(10));
        doubts.quarantine(1, at(0), at(10));
        doubts.suspect(1, at(0), at(20));
        doubts.clear(1);
        assert!(doubts.is_quarantined(1, at(9)) && !doubts.is_suspect(1, at(9)));
    }

    #[test]
    fn of_too_many_the_suspects_go_first_and_then_those_that_end_first() {
        let doubts = Doubts::default();
        doubts.suspect(0, at(0), at(1_000_000));
        for key in 1..=MOST as u64 {
            doubts.quarantine(key.into(), at(0), at(100 + key));
        }
        assert!(!doubts.is_suspect(0, at(0)) && doubts.is_quarantined(1, at(0)));
        doubts.quarantine(9_999, at(0), at(100));
        assert!(!doubts.is_quarantined(1, at(0)) && doubts.is_quarantined(2, at(0)));
        assert_eq!(doubts.keys.lock().len(), MOST);
        // What is over makes room.
        doubts.quarantine(10_000, at(500), at(600));
        assert_eq!(doubts.keys.lock().len(), MOST - 400 + 1);
    }

    #[test]
    fn so_many_looks_are_taken_at_once_and_no_more() {
        let doubts = Doubts::default();
        let taken: Vec<_> = (0..LOOKS).map(|_| doubts.look().unwrap()).collect();
        assert!(doubts.look().is_none());
        drop(taken);
        assert!(doubts.look().is_some());
    }
}
