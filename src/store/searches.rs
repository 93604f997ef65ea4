//! What is known of paths whose responses do not vary on all of the query (`No-Vary-Search`).
//!
//! Knows the latest rule of each such path, and of which paths the shared tier was lately asked in vain.
//! A rule is never given up for another path's: a purge that finds none takes it that nothing is stored
//! under one. When there is no room, responses are stored under their exact URL.
//! Must not know: the tiers, or what a rule means.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use crate::clock::Timestamp;
use crate::fields::no_vary_search::NoVarySearch;
use crate::stored::Group;

/// Paths whose rule is remembered.
const PATHS: usize = 16_384;
/// Bytes of a rule; a longer one is not remembered.
const RULE: usize = 4096;
/// How long it is remembered that the shared tier knows no rule of a path.
const ASKED_FOR: Duration = Duration::from_secs(60);

/// The rules of this process, shared by all workers.
#[derive(Debug, Default)]
pub struct Searches {
    /// There is one: until then nothing is looked up.
    any: AtomicBool,
    rules: RwLock<HashMap<Group, Arc<NoVarySearch>>>,
    /// Paths that the shared tier knows no rule of, and until when that is believed.
    asked: RwLock<HashMap<Group, Timestamp>>,
}

impl Searches {
    /// Whether any rule is known at all. Costs one load.
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// The latest rule of a path.
    pub fn rule(&self, path: Group) -> Option<Arc<NoVarySearch>> {
        self.rules.read().get(&path).cloned()
    }

    /// Remembers a path's rule, if there is room; gives whether it is known now.
    pub fn learn(&self, path: Group, rule: &NoVarySearch) -> bool {
        if self.rule(path).is_some_and(|known| *known == *rule) {
            return true;
        }
        if rule.heap() > RULE {
            return false;
        }
        let mut rules = self.rules.write();
        let room = rules.len() < PATHS || rules.contains_key(&path);
        if room {
            rules.insert(path, Arc::new(rule.clone()));
            self.any.store(true, Ordering::Release);
        }
        room
    }

    /// Whether it is worth asking the shared tier for a path's rule; it is not for a while after this.
    pub fn should_ask(&self, path: Group, now: Timestamp) -> bool {
        if self.any() && self.rules.read().contains_key(&path) {
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
    }

    #[test]
    fn no_more_paths_are_learned_than_there_is_room_for_and_none_is_forgotten() {
        let searches = Searches::default();
        let paths = u128::try_from(PATHS).unwrap();
        assert!((0..paths).all(|name| searches.learn(path(name), &rule("params"))));
        assert!(!searches.learn(path(paths), &rule("params")));
        assert!(searches.rule(path(paths)).is_none() && searches.rule(path(0)).is_some());
        assert!(searches.learn(path(0), &rule("key-order")), "one that is known may change");
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
