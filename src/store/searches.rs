//! What is known of paths whose responses do not vary on all of the query (`No-Vary-Search`).
//!
//! Knows the latest rule of each such path, and of which paths the shared tier was lately asked in vain.
//! The rule that was learned first is given up for another path's: until it is learned anew, its path's
//! responses are stored under their exact URL. That a path may have had one is never forgotten: a purge
//! that finds it had none takes it that nothing is stored, or being fetched, under one.
//! Must not know: the tiers, or what a rule means.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::time::Duration;

use parking_lot::RwLock;

use crate::clock::Timestamp;
use crate::fields::no_vary_search::NoVarySearch;
use crate::stored::Group;

/// Paths whose rule is remembered.
const PATHS: usize = 16_384;
/// Words of 64 bits that tell which paths may have had a rule: 128 KiB.
const HAD: usize = 16_384;
/// Bytes of a rule; a longer one is not remembered.
const RULE: usize = 4096;
/// How long it is remembered that the shared tier knows no rule of a path.
const ASKED_FOR: Duration = Duration::from_secs(60);

/// The rules of this process, shared by all workers.
#[derive(Debug, Default)]
pub struct Searches {
    /// There is one: until then nothing is looked up.
    any: AtomicBool,
    rules: RwLock<Rules>,
    had: Had,
    /// Paths that the shared tier knows no rule of, and until when that is believed.
    asked: RwLock<HashMap<Group, Timestamp>>,
}

#[derive(Debug, Default)]
struct Rules {
    by_path: HashMap<Group, Arc<NoVarySearch>>,
    /// The same paths, in the order in which they were learned.
    order: VecDeque<Group>,
}

/// A bit for the paths of each hash, set once one of them has had a rule. Bits that others have set keep
/// notes of purges that could be taken back: that is the safe direction.
#[derive(Debug)]
struct Had(Box<[AtomicU64]>);

impl Default for Had {
    fn default() -> Self {
        Self((0..HAD).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Had {
    fn bit(&self, path: Group) -> Option<(&AtomicU64, u64)> {
        let hash = path.hash();
        let nth = usize::try_from((hash >> 6) % (HAD as u128)).ok()?;
        Some((self.0.get(nth)?, 1 << u32::try_from(hash % 64).ok()?))
    }
}

impl Searches {
    /// Whether any rule is known at all. Costs one load.
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// The latest rule of a path.
    pub fn rule(&self, path: Group) -> Option<Arc<NoVarySearch>> {
        self.rules.read().by_path.get(&path).cloned()
    }

    /// Whether a path may have, or have had, a rule: something may be stored or being fetched under one.
    /// A purge is numbered before it asks this; [`learn`](Self::learn) makes it so before its caller asks
    /// for the latest purge's number. So one of the two sees the other.
    pub fn may_have_had(&self, path: Group) -> bool {
        fence(Ordering::SeqCst);
        self.had.bit(path).is_none_or(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }

    /// Remembers a path's rule, unless it is too long; gives whether it is known now.
    pub fn learn(&self, path: Group, rule: &NoVarySearch) -> bool {
        if self.rule(path).is_some_and(|known| *known == *rule) {
            return true;
        }
        if rule.heap() > RULE {
            return false;
        }
        let mut rules = self.rules.write();
        let Some((word, bit)) = self.had.bit(path) else { return false };
        word.fetch_or(bit, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        if rules.by_path.insert(path, Arc::new(rule.clone())).is_none() {
            rules.order.push_back(path);
        }
        if rules.by_path.len() > PATHS
            && let Some(first) = rules.order.pop_front()
        {
            rules.by_path.remove(&first);
        }
        self.any.store(true, Ordering::Release);
        true
    }

    /// Whether it is worth asking the shared tier for a path's rule; it is not for a while after this.
    pub fn should_ask(&self, path: Group, now: Timestamp) -> bool {
        if self.any() && self.rules.read().by_path.contains_key(&path) {
            return false;
        }
        if self.asked.read().get(&path).is_some_and(|until| now < *until) {
            return false;
        }
        let mut asked = self.asked.write();
        if asked.len() >= PATHS {
            asked.clear();
        }
        asked.insert(path, now.saturating_add(ASKED_FOR)).is_none_or(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::no_vary_search::NO_VARY_SEARCH;
    use http::{HeaderMap, HeaderValue};

    fn rule(text: &'static str) -> NoVarySearch {
        let headers = HeaderMap::from_iter([(NO_VARY_SEARCH, HeaderValue::from_static(text))]);
        NoVarySearch::parse(&headers).unwrap()
    }

    const fn path(name: u128) -> Group {
        Group { origin: 1, name }
    }

    #[test]
    fn the_latest_rule_of_a_path_is_known() {
        let searches = Searches::default();
        assert!(!searches.any() && searches.rule(path(1)).is_none());
        for text in ["params", "key-order", "key-order"] {
            assert!(searches.learn(path(1), &rule(text)));
            assert_eq!(searches.rule(path(1)).as_deref(), Some(&rule(text)));
        }
        assert!(searches.any() && searches.rule(path(2)).is_none());
        assert!(searches.may_have_had(path(1)) && !searches.may_have_had(path(2)));
    }

    #[test]
    fn the_rule_that_was_learned_first_makes_room_and_that_there_was_one_is_not_forgotten() {
        let searches = Searches::default();
        let paths = u128::try_from(PATHS).unwrap();
        assert!((0..paths).all(|name| searches.learn(path(name), &rule("params"))));
        assert!(searches.learn(path(0), &rule("key-order")), "one that is known may change");
        assert!(searches.rule(path(1)).is_some(), "at nobody's cost");
        assert!(searches.learn(path(paths), &rule("params")));
        assert!(searches.rule(path(paths)).is_some() && searches.rule(path(1)).is_some());
        assert!(searches.rule(path(0)).is_none() && searches.may_have_had(path(0)));
        assert_eq!(searches.rules.read().by_path.len(), PATHS);
        assert_eq!(searches.rules.read().order.len(), PATHS);
        assert!(searches.learn(path(0), &rule("key-order")), "learned anew");
        assert!(searches.rule(path(1)).is_none());
        let names: Vec<_> = (0..500).map(|nth| format!("\"{nth}\"")).collect();
        let value = HeaderValue::from_str(&format!("params=({})", names.join(" "))).unwrap();
        let long = NoVarySearch::parse(&HeaderMap::from_iter([(NO_VARY_SEARCH, value)])).unwrap();
        assert!(!searches.learn(path(0), &long), "nor longer ones");
        assert_eq!(searches.rule(path(0)).as_deref(), Some(&rule("key-order")));
    }

    #[test]
    fn the_shared_tier_is_asked_once_in_a_while() {
        let (searches, now) = (Searches::default(), Timestamp::from_secs(1_000));
        assert!(searches.should_ask(path(1), now));
        assert!(!searches.should_ask(path(1), now));
        assert!(searches.should_ask(path(2), now));
        assert!(searches.should_ask(path(1), now.saturating_add(ASKED_FOR)));
        searches.learn(path(3), &rule("params"));
        assert!(!searches.should_ask(path(3), now));
        for name in 10..u128::try_from(PATHS).unwrap() + 20 {
            assert!(searches.should_ask(path(name), now), "bounded, and none is believed too long");
        }
    }
}
