//! What some requests were like, by way of example: the keys that are asked for most.
//!
//! Knows that a hit must not pay for it: one in [`HITS`] is looked at, under a lock that nobody waits for, by a number
//! that counting it has raised anyway. All of it is bounded, in routes, keys and bytes of each; what `log.redact` names
//! stands here as little as in a log.
//! Must not know: who shows it.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use xxhash_rust::xxh3::Xxh3Default;

use super::finish::Finished;
use super::outcome::{Kind, Outcome};
use super::top_keys::{KEYS, TopKeys};

/// Of so many answers of a tier one is looked at, and of so many misses.
pub(super) const HITS: u64 = 64;
pub(super) const MISSES: u64 = 8;
/// Characters of a URL, or of anything else that comes from outside.
const LONGEST: usize = 300;
/// Seconds after which counts of keys fade.
const FADE: u64 = 60;

/// Whether a request is one of the sample; it is the `nth` of its kind on its route and thread. The multiples of the
/// golden ratio are spread evenly, whatever pattern keys come in; the first is taken.
pub(super) fn is_sampled(nth: u64, outcome: &Outcome) -> bool {
    let spread = nth.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    match outcome.kind() {
        Kind::Hit | Kind::Stale => spread <= u64::MAX / HITS,
        Kind::Miss | Kind::Revalidated => spread <= u64::MAX / MISSES,
        Kind::StaleIfError | Kind::Bypass | Kind::Local | Kind::Failed => false,
    }
}

/// All that is noted.
#[derive(Debug, Default)]
pub(super) struct Noted {
    keys: Mutex<Keys>,
}

#[derive(Debug, Default)]
struct Keys {
    /// When they faded last, in seconds since the start.
    faded: u64,
    routes: HashMap<String, OfRoute>,
}

/// What is asked for most on a route.
#[derive(Debug, Default)]
struct OfRoute {
    /// Of what a tier answered.
    hits: TopKeys,
    /// Of what it did not.
    misses: TopKeys,
}

impl Noted {
    /// A request of the sample.
    #[cold]
    pub(super) fn key(&self, r: &Finished) {
        // Whoever finds it locked lets this one go.
        let Some(mut keys) = self.keys.try_lock() else { return };
        let missed = r.outcome.missed().is_some();
        if !keys.routes.contains_key(r.route_name) {
            keys.routes.insert(r.route_name.to_owned(), OfRoute::default());
        }
        let Some(route) = keys.routes.get_mut(r.route_name) else { return };
        let path = r.shown_path();
        let mut hash = Xxh3Default::new();
        for part in [r.heads.scheme, "\0", r.host, &*path] {
            hash.update(part.as_bytes());
        }
        let of = if missed { &mut route.misses } else { &mut route.hits };
        of.count(hash.digest(), || clipped(&format!("{}://{}{path}", r.heads.scheme, r.host)));
    }

    /// Has counts fade, at most once a minute, and forgets what is not of a route that is `known`.
    pub(super) fn fade(&self, uptime: Duration, known: impl Fn(&str) -> bool) {
        let mut keys = self.keys.lock();
        keys.routes.retain(|name, _| known(name));
        if uptime.as_secs() >= keys.faded + FADE {
            keys.faded = uptime.as_secs();
            for route in keys.routes.values_mut() {
                route.hits.fade();
                route.misses.fade();
            }
        }
    }

    /// The URLs that are asked for most on a route, with the part of its sample that is surely theirs: of what a tier
    /// answered, and of what it did not.
    pub(super) fn top(&self, route: &str, most: usize) -> [Value; 2] {
        let keys = self.keys.lock();
        let Some(route) = keys.routes.get(route) else { return [json!([]), json!([])] };
        [&route.hits, &route.misses].map(|keys| {
            let shown = |(url, part): (&str, f64)| json!({ "url": url, "part": part });
            keys.top(most).into_iter().map(shown).collect()
        })
    }

    /// The URLs of a route that no tier answered.
    pub(super) fn missed(&self, route: &str) -> Vec<String> {
        let keys = self.keys.lock();
        let urls = keys.routes.get(route).map(|route| route.misses.top(KEYS));
        urls.into_iter().flatten().map(|(url, _)| url.to_owned()).collect()
    }
}

/// Its beginning, where it is long.
fn clipped(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finish::sample;
    use super::super::outcome::{Miss, Source, Tier};
    use super::*;

    const HIT: Source = Source::Hit(Tier::Memory);
    const MISS: Source = Source::Miss(Miss::Uri);

    #[test]
    fn one_in_so_many_is_looked_at_however_many_come_and_the_first_always() {
        for (source, one_in) in [(HIT, HITS), (MISS, MISSES)] {
            let outcome = Outcome::new(source);
            assert!(is_sampled(0, &outcome));
            let sampled = (0..100_000).filter(|nth| is_sampled(*nth, &outcome)).count() as u64;
            assert!(sampled.abs_diff(100_000 / one_in) <= 2, "{sampled}");
        }
        assert!(!is_sampled(0, &Outcome::new(Source::Local)));
    }

    #[test]
    fn no_secret_stands_among_the_keys_and_they_are_bounded() {
        let noted = Noted::default();
        let redact = ["token".to_owned()];
        let long = format!("/users/1?token=hunter2&b={}", "ü".repeat(5_000));
        sample::with(&Outcome::new(MISS), |r| {
            noted.key(&Finished { path: &long, redact: &redact, ..r });
        });
        sample::with(&Outcome::new(HIT), |r| noted.key(&r));
        let [hits, misses] = noted.top("users", 9);
        assert_eq!(hits, json!([{ "url": "http://example.com/users/1", "part": 1.0 }]));
        let all = misses.to_string();
        assert!(
            all.contains("http://example.com/users/1?token=redacted-") && !all.contains("hunter2"),
            "{all}"
        );
        assert!(all.chars().count() < LONGEST + 600, "{all}");
        noted.fade(Duration::from_secs(1), |name| name != "users");
        assert_eq!(noted.top("users", 9), [json!([]), json!([])]);
    }
}
