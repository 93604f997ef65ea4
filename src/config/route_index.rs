//! Which routes may take a request, found by its host and its path: to try ten thousand one after the other would take a
//! hundred times as long as the hit.
//!
//! Knows under which patterns each route stands, and those that fit a host and a path: a name itself and all that it
//! ends in, a path itself and all of its beginnings, as far as any pattern is long. What is found may take the request;
//! whoever asks tries it.
//! Must not know: methods, or what a route does.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::xxh3_64;

use super::{HostPattern, Match, PathPattern, Route};

/// Hosts times paths beyond which a route stands under its paths alone; and of all routes together.
const MOST_PLACES: usize = 4096;
const MOST_IN_ALL: usize = 1 << 20;

/// Routes by the patterns that they stand under.
#[derive(Clone, Debug, Default)]
pub struct RouteIndex {
    /// Those for any host.
    any: ByPath,
    exact: Table<ByPath>,
    suffix: Table<ByPath>,
    /// Bytes of the longest of `suffix`.
    longest: usize,
    /// Under how many hosts and paths there is something.
    places: usize,
}

#[derive(Clone, Debug, Default)]
struct ByPath {
    /// Those for any path, or for what a regex says.
    any: Vec<Place>,
    exact: Table<Vec<Place>>,
    /// Each ends in `/`.
    prefix: Table<Vec<Place>>,
    /// Bytes of the longest of `prefix`.
    longest: usize,
}

type Table<T> = HashMap<Box<str>, T, BuildHasherDefault<Quick>>;

/// A route under a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its index.
    pub(super) route: usize,
    /// By standing here its path, and its host, are known to fit.
    pub(super) path_fits: bool,
    pub(super) host_fits: bool,
}

impl RouteIndex {
    /// All of these.
    pub(super) fn of(routes: &[Route]) -> Self {
        let mut index = Self::default();
        routes.iter().enumerate().for_each(|(nth, route)| index.add(nth, &route.matcher));
        index
    }

    /// Adds a route behind all that are there.
    pub(super) fn add(&mut self, route: usize, matcher: &Match) {
        let places = matcher.hosts.len().saturating_mul(matcher.paths.len().max(1));
        let in_all = self.places.saturating_add(places);
        if matcher.hosts.is_empty() || places > MOST_PLACES || in_all > MOST_IN_ALL {
            self.any.add(route, matcher, matcher.hosts.is_empty());
            return;
        }
        self.places = in_all;
        for host in &matcher.hosts {
            let (table, name) = match host {
                HostPattern::Exact(name) => (&mut self.exact, name),
                HostPattern::Suffix(name) => {
                    self.longest = self.longest.max(name.len());
                    (&mut self.suffix, name)
                }
            };
            table.entry(name.as_str().into()).or_default().add(route, matcher, true);
        }
    }

    /// The first route that may take this host and path, and does, as `takes` says. `host` is in lower case, without
    /// port, brackets or a dot at its end.
    pub(super) fn first(&self, host: &str, path: &str, takes: impl Fn(Place) -> bool) -> Option<usize> {
        let mut first = None;
        self.any.first(path, &mut first, &takes);
        if let Some(named) = self.exact.get(host) {
            named.first(path, &mut first, &takes);
        }
        // More than what it ends in stands before it.
        self.suffixes(host, 1, |named| named.first(path, &mut first, &takes));
        first
    }

    /// All that stand under patterns which fit all that these patterns do, in order; `None` is any. What a regex takes
    /// is not worked out, so nothing but what takes any path fits it, which a path of `None` stands for.
    pub(super) fn wider(&self, host: Option<&HostPattern>, path: Option<&PathPattern>) -> Vec<usize> {
        let mut all = Vec::new();
        let mut take = |named: &ByPath| named.wider(path, &mut all);
        take(&self.any);
        match host {
            None => {}
            Some(HostPattern::Exact(name)) => {
                self.exact.get(name.as_str()).into_iter().for_each(&mut take);
                self.suffixes(name, 1, take);
            }
            Some(HostPattern::Suffix(name)) => self.suffixes(name, 0, take),
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// What stands under the ends of a name that begin with a dot, at `from` or later.
    fn suffixes<'a>(&'a self, name: &str, from: usize, mut take: impl FnMut(&'a ByPath)) {
        if self.suffix.is_empty() {
            return;
        }
        for (at, _) in name.rmatch_indices('.') {
            let end = name.get(at..).unwrap_or_default();
            if at < from || end.len() > self.longest {
                return;
            }
            self.suffix.get(end).into_iter().for_each(&mut take);
        }
    }
}

impl ByPath {
    fn add(&mut self, route: usize, matcher: &Match, host_fits: bool) {
        let place = Place { route, path_fits: true, host_fits };
        if matcher.regex.is_some() {
            self.any.push(Place { path_fits: false, ..place });
            return;
        }
        if matcher.paths.is_empty() {
            self.any.push(place);
        }
        for path in &matcher.paths {
            let list = match path {
                // Everything, also the `*` of `OPTIONS *`.
                PathPattern::Prefix(all) if all == "/" => &mut self.any,
                PathPattern::Exact(path) => self.exact.entry(path.as_str().into()).or_default(),
                PathPattern::Prefix(path) => {
                    self.longest = self.longest.max(path.len());
                    self.prefix.entry(path.as_str().into()).or_default()
                }
            };
            // Once, also where a route says the same twice.
            if list.last() != Some(&place) {
                list.push(place);
            }
        }
    }

    fn first(&self, path: &str, first: &mut Option<usize>, takes: &impl Fn(Place) -> bool) {
        let mut look = |list: &[Place]| {
            // Each is in order, so what comes behind the first that is known is not tried.
            let before = list.iter().take_while(|place| first.is_none_or(|first| place.route < first));
            if let Some(place) = before.copied().find(|place| takes(*place)) {
                *first = Some(place.route);
            }
        };
        if !self.any.is_empty() {
            look(&self.any);
        }
        if let Some(list) = (!self.exact.is_empty()).then(|| self.exact.get(path)).flatten() {
            look(list);
        }
        self.prefixes(path, look);
    }

    fn wider(&self, path: Option<&PathPattern>, all: &mut Vec<usize>) {
        let mut take = |list: &[Place]| all.extend(list.iter().map(|place| place.route));
        take(&self.any);
        match path {
            None => {}
            Some(PathPattern::Exact(path)) => {
                self.exact.get(path.as_str()).into_iter().for_each(|list| take(list));
                self.prefixes(path, take);
            }
            Some(PathPattern::Prefix(path)) => self.prefixes(path, take),
        }
    }

    /// What stands under the beginnings of a path that end in `/`. No more of it is looked at than any pattern has:
    /// whoever sends ten thousand slashes is not worth as many looks.
    fn prefixes(&self, path: &str, mut take: impl FnMut(&[Place])) {
        if self.prefix.is_empty() {
            return;
        }
        let most = path.as_bytes().get(..self.longest).unwrap_or(path.as_bytes());
        for at in memchr::memchr_iter(b'/', most) {
            if let Some(list) = path.get(..=at).and_then(|begins| self.prefix.get(begins)) {
                take(list);
            }
        }
    }
}

/// A hash of texts that a configuration says: no client can add any, so nobody can make them alike.
#[derive(Clone, Copy, Debug, Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = self.0.rotate_left(5) ^ xxh3_64(bytes);
    }

    /// The end of a text, which is the only one.
    fn write_u8(&mut self, _: u8) {}

    fn finish(&self) -> u64 {
        self.0
    }
}
