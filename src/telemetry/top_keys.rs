//! What comes most often among many, in a fixed space.
//!
//! The "space-saving" counters of Metwally, Agrawal and El Abbadi (2005): a newcomer takes the place of the least and
//! its count, which is from then on the error of its own. Whatever is more than one in [`KEYS`] of all is there.
//! Counts fade, so that what was asked for an hour ago is not in the way.
//! Must not know: what is counted.

/// Keys that are told apart.
pub(super) const KEYS: usize = 64;
/// Of a count, so much is taken away each time that it fades.
const FADES: u32 = 4;
/// What one sighting adds: more than 1, so that fading is gradual.
const ONE: u32 = 16;

/// Counts by key.
#[derive(Debug, Default)]
pub(super) struct TopKeys {
    /// 64 at most.
    keys: Vec<Key>,
    /// All that was counted, faded alike.
    total: u64,
}

#[derive(Debug)]
struct Key {
    hash: u64,
    name: Box<str>,
    count: u32,
    /// What of that may be others'.
    error: u32,
}

impl TopKeys {
    /// Counts one sighting of the key that has this hash; `name` is asked for where it is new.
    pub(super) fn count(&mut self, hash: u64, name: impl FnOnce() -> String) {
        self.total = self.total.saturating_add(u64::from(ONE));
        if let Some(key) = self.keys.iter_mut().find(|key| key.hash == hash) {
            key.count = key.count.saturating_add(ONE);
            return;
        }
        let new = |error: u32| Key { hash, name: name().into(), count: error.saturating_add(ONE), error };
        if self.keys.len() < KEYS {
            self.keys.push(new(0));
        } else if let Some(least) = self.keys.iter_mut().min_by_key(|key| key.count) {
            *least = new(least.count);
        }
    }

    /// Has all counts fade.
    pub(super) fn fade(&mut self) {
        for key in &mut self.keys {
            key.count -= key.count.div_ceil(FADES);
            key.error -= key.error.div_ceil(FADES).min(key.error);
        }
        self.keys.retain(|key| key.count > 0);
        self.total -= self.total.div_ceil(u64::from(FADES));
    }

    /// The keys with the part of all that is surely theirs, the largest first, `most` at most.
    pub(super) fn top(&self, most: usize) -> Vec<(&str, f64)> {
        let sure = |key: &Key| key.count.saturating_sub(key.error);
        let mut keys: Vec<&Key> = self.keys.iter().collect();
        // Those that are alike by their names, so that a list that is looked at each second stands still.
        keys.sort_unstable_by(|a, b| sure(b).cmp(&sure(a)).then_with(|| a.name.cmp(&b.name)));
        let part = |key: &Key| f64::from(sure(key)) / self.total.max(1) as f64;
        keys.into_iter().take(most).map(|key| (&*key.name, part(key).min(1.0))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counted(sightings: impl IntoIterator<Item = u64>) -> TopKeys {
        let mut keys = TopKeys::default();
        sightings.into_iter().for_each(|hash| keys.count(hash, || hash.to_string()));
        keys
    }

    #[test]
    fn what_is_seen_often_stays_among_thousands_that_are_seen_once() {
        let keys = counted((0..10_000).map(|nth| if nth % 4 == 0 { 7 } else { 1_000_000 + nth }));
        let top = keys.top(3);
        assert_eq!(top[0].0, "7");
        assert!((0.2..=0.25).contains(&top[0].1), "{top:?}");
        assert!(top[1].1 < 0.01, "{top:?}");
    }

    #[test]
    fn counts_fade_to_nothing() {
        let mut keys = counted([1, 1, 1, 2]);
        keys.fade();
        keys.count(2, || "2".to_owned());
        assert_eq!(keys.top(9).iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["1", "2"]);
        (0..40).for_each(|_| keys.fade());
        assert!(keys.top(9).is_empty() && keys.total == 0);
    }

    proptest! {
        #[test]
        fn no_more_are_kept_none_counts_more_than_it_came_and_whatever_came_often_is_there(
            sightings in prop::collection::vec(0_u64..200, 1..600),
        ) {
            let keys = counted(sightings.iter().copied());
            prop_assert!(keys.keys.len() <= KEYS);
            let came = |hash: u64| sightings.iter().filter(|seen| **seen == hash).count();
            for key in &keys.keys {
                let sure = (key.count - key.error) / ONE;
                prop_assert!(sure as usize <= came(key.hash));
                prop_assert!((key.count / ONE) as usize >= came(key.hash));
            }
            for hash in 0..200 {
                let often = came(hash) * KEYS > sightings.len();
                prop_assert!(!often || keys.keys.iter().any(|key| key.hash == hash));
            }
            let parts: f64 = keys.top(KEYS).iter().map(|(_, part)| part).sum();
            prop_assert!(parts <= 1.0 + 1e-9);
        }
    }
}
