//! Keys that are not trusted for a while: what was stored under them was not for all.
//!
//! Knows which keys may not be stored under until when, which are to be looked at again, which requests have
//! brought what was stored of late, and how many looks may be taken at once. Bounded: of too many keys, those whose
//! time ends first are given up; of too many requests, the oldest.
//! Must not know: how anybody came to doubt a key, or what it stands for.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Asked;
use crate::clock::Timestamp;
use crate::stored::StoredResponse;

/// Keys at most. Whoever has more of them has a route whose key is wrong, and an event for each.
const MOST: usize = 1024;

/// Looks at once in the whole process: each holds a few bodies, and is one more request to the origin.
const LOOKS: usize = 2;

/// Bytes of requests that are remembered with what they have brought, of keys that are suspect and of all others
/// each: some thousand of them.
const BROUGHT: usize = 2 << 20;

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
    /// When the last of them ends, in milliseconds, so that who comes later takes no lock; 0 where there is none.
    end: AtomicU64,
    keys: Mutex<HashMap<u128, (Doubt, Timestamp)>>,
    brought: Mutex<Brought>,
    looks: Arc<Semaphore>,
}

/// Who has brought what; those of suspect keys apart, so that nobody makes them be forgotten by what others bring.
#[derive(Debug, Default)]
struct Brought {
    suspect: Bringers,
    others: Bringers,
}

#[derive(Debug, Default)]
struct Bringers {
    requests: VecDeque<Bringer>,
    bytes: usize,
}

#[derive(Debug)]
struct Bringer {
    /// What it has brought, as long as anybody holds it.
    response: Weak<StoredResponse>,
    asked: Arc<Asked>,
    bytes: usize,
}

impl Bringers {
    fn add(&mut self, bringer: Bringer) {
        self.bytes = self.bytes.saturating_add(bringer.bytes);
        self.requests.push_back(bringer);
        while self.bytes > BROUGHT {
            let Some(oldest) = self.requests.pop_front() else { return };
            self.bytes = self.bytes.saturating_sub(oldest.bytes);
        }
    }

    /// The latest first: what is looked at is mostly young.
    fn of(&self, response: &Arc<StoredResponse>) -> Option<Arc<Asked>> {
        let by = |bringer: &&Bringer| std::ptr::eq(bringer.response.as_ptr(), Arc::as_ptr(response));
        self.requests.iter().rev().find(by).map(|bringer| Arc::clone(&bringer.asked))
    }
}

/// What a request takes, about, and what its response leaves behind as long as anybody may ask for it.
fn size(asked: &Asked) -> usize {
    let field =
        |(name, value): (&http::HeaderName, &http::HeaderValue)| name.as_str().len() + value.len() + 64;
    asked.headers.iter().map(field).fold(
        size_of::<Asked>() + size_of::<StoredResponse>() + asked.target.as_str().len(),
        usize::saturating_add,
    )
}

impl Default for Doubts {
    fn default() -> Self {
        let looks = Arc::new(Semaphore::new(LOOKS));
        Self { end: AtomicU64::new(0), keys: Mutex::default(), brought: Mutex::default(), looks }
    }
}

impl Doubts {
    /// Leave to take a look; `None` where enough are being taken. It ends when what is given is dropped.
    pub fn look(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.looks).try_acquire_owned().ok()
    }

    /// Remembers for a while that this request has brought this response.
    pub fn note_bringer(&self, response: &Arc<StoredResponse>, asked: Arc<Asked>, now: Timestamp) {
        let bringer = Bringer { response: Arc::downgrade(response), bytes: size(&asked), asked };
        let suspect = self.is_suspect(response.key.hash(), now);
        let mut brought = self.brought.lock();
        let place = if suspect { &mut brought.suspect } else { &mut brought.others };
        place.add(bringer);
    }

    /// The request that has brought this very response, as long as it is remembered.
    pub fn bringer(&self, response: &Arc<StoredResponse>) -> Option<Arc<Asked>> {
        let brought = self.brought.lock();
        brought.suspect.of(response).or_else(|| brought.others.of(response))
    }

    /// Whether nothing may be stored under the key.
    pub fn is_quarantined(&self, key: u128, now: Timestamp) -> bool {
        self.is(Doubt::Quarantined, key, now)
    }

    /// Whether what is stored under the key is to be looked at.
    pub fn is_suspect(&self, key: u128, now: Timestamp) -> bool {
        self.is(Doubt::Suspect, key, now)
    }

    /// Whether what others have put into the shared tier under the key is not to be taken: it may be what was just
    /// purged, planted anew by way of a process that does not doubt it; and nobody here would know who brought it.
    pub fn is_in_doubt(&self, key: u128, now: Timestamp) -> bool {
        self.is_quarantined(key, now) || self.is_suspect(key, now)
    }

    /// Nothing may be stored under the key until then.
    pub fn quarantine(&self, key: u128, now: Timestamp, until: Timestamp) {
        self.put(key, Doubt::Quarantined, now, until);
    }

    /// What is stored under the key until then is to be looked at. A quarantine stays one.
    pub fn suspect(&self, key: u128, now: Timestamp, until: Timestamp) {
        self.put(key, Doubt::Suspect, now, until);
    }

    /// What is stored under the key has turned out well.
    pub fn clear(&self, key: u128) {
        if self.end.load(Ordering::Acquire) > 0 {
            let mut keys = self.keys.lock();
            if keys.get(&key).is_some_and(|(doubt, _)| *doubt == Doubt::Suspect) {
                keys.remove(&key);
            }
            self.note_end(&keys);
        }
    }

    fn is(&self, doubt: Doubt, key: u128, now: Timestamp) -> bool {
        now.as_millis() < self.end.load(Ordering::Acquire)
            && self.keys.lock().get(&key).is_some_and(|(known, until)| *known == doubt && now < *until)
    }

    fn put(&self, key: u128, doubt: Doubt, now: Timestamp, until: Timestamp) {
        let mut keys = self.keys.lock();
        keys.retain(|_, (_, until)| now < *until);
        // Asked under the lock: two looks at one key may end at once.
        let is_quarantined = keys.get(&key).is_some_and(|(known, _)| *known == Doubt::Quarantined);
        if doubt == Doubt::Suspect && is_quarantined {
            return self.note_end(&keys);
        }
        if keys.len() >= MOST && !keys.contains_key(&key) {
            // A suspect before any other: giving it up costs one look.
            let least = keys.iter().min_by_key(|(_, (doubt, until))| (*doubt == Doubt::Quarantined, *until));
            if let Some(least) = least.map(|(least, _)| *least) {
                keys.remove(&least);
            }
        }
        keys.insert(key, (doubt, until));
        self.note_end(&keys);
    }

    /// Under the lock, so that it is always that of the keys that are held.
    fn note_end(&self, keys: &HashMap<u128, (Doubt, Timestamp)>) {
        let end = keys.values().map(|(_, until)| until.as_millis()).max().unwrap_or(0);
        self.end.store(end, Ordering::Release);
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
        assert!(
            doubts.is_suspect(1, at(9)) && !doubts.is_quarantined(1, at(9)) && doubts.is_in_doubt(1, at(9))
        );
        assert!(
            doubts.is_quarantined(2, at(9)) && !doubts.is_suspect(2, at(9)) && doubts.is_in_doubt(2, at(9))
        );
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

    /// Two looks at one key may end at once.
    #[test]
    fn a_quarantine_is_never_lost_to_a_suspicion_at_the_same_moment() {
        for round in 0..10_000 {
            let (doubts, barrier) = (Doubts::default(), std::sync::Barrier::new(2));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    barrier.wait();
                    doubts.suspect(1, at(0), at(10));
                });
                barrier.wait();
                doubts.quarantine(1, at(0), at(10));
            });
            assert!(doubts.is_quarantined(1, at(0)), "round {round}");
        }
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
    fn what_is_over_takes_no_lock_from_anybody() {
        let doubts = Doubts::default();
        doubts.suspect(1, at(0), at(10));
        doubts.quarantine(2, at(0), at(20));
        let held = doubts.keys.lock();
        assert!(!doubts.is_quarantined(2, at(20)) && !doubts.is_suspect(1, at(99)), "it waits for nobody");
        drop(held);
        assert!(doubts.is_quarantined(2, at(19)), "as long as one lasts, it is found");
        // A shorter one that comes later does not end the longer one, nor does one that is cleared.
        doubts.suspect(3, at(1), at(5));
        doubts.clear(3);
        assert!(doubts.is_quarantined(2, at(19)));
        doubts.clear(1);
        assert_eq!(doubts.end.load(Ordering::Relaxed), 20_000);
    }

    fn asked(value: usize) -> Arc<Asked> {
        let mut headers = http::HeaderMap::new();
        headers.insert("x-a", http::HeaderValue::from_str(&"a".repeat(value)).unwrap());
        Arc::new(Asked {
            ids: std::sync::OnceLock::new(),
            facts: crate::rules::RequestFacts::of(&http::Method::GET, &headers),
            method: http::Method::GET,
            target: http::uri::PathAndQuery::from_static("/"),
            scheme: "http",
            authority: "a.test".to_owned(),
            headers: headers.into(),
            version: http::Version::HTTP_11,
            peer: std::net::IpAddr::from([127, 0, 0, 1]),
            client: std::net::IpAddr::from([127, 0, 0, 1]),
            takes_trailers: false,
            at: at(0),
        })
    }

    #[test]
    fn who_brought_something_is_known_until_too_many_others_have() {
        let doubts = Doubts::default();
        let plain = |path: &str| crate::stored::samples::plain(path, b"x", crate::stored::Born::Here(0));
        let (first, suspect) = (plain("/first"), plain("/suspect"));
        doubts.suspect(suspect.key.hash(), at(0), at(10));
        doubts.note_bringer(&first, asked(1), at(0));
        doubts.note_bringer(&suspect, asked(2), at(0));
        assert_eq!(doubts.bringer(&first).unwrap().headers["x-a"], "a");
        assert!(doubts.bringer(&plain("/first")).is_none(), "only of this very response");
        for nth in 0..64 {
            doubts.note_bringer(&plain(&format!("/{nth}")), asked(60_000), at(0));
        }
        assert!(doubts.bringer(&first).is_none(), "bounded in bytes");
        assert!(doubts.brought.lock().others.bytes <= BROUGHT);
        assert_eq!(doubts.bringer(&suspect).unwrap().headers["x-a"], "aa", "nobody else's push it out");
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
