//! Which route takes a request, and whether one route takes all that another would.
//!
//! Knows patterns over path, host and method. The first matching route wins, so a route behind one
//! that covers it can never match.
//! Must not know: how patterns are written, or what a route does.

use http::Method;

use super::route_index::{Place, RouteIndex};
use super::{Config, HostPattern, Match, PathPattern};

impl Config {
    /// Index of the first route that takes the request. `host` is in lower case and without port;
    /// `path` is as received, without query.
    pub fn route(&self, method: &Method, host: &str, path: &str) -> Option<usize> {
        self.route_index.first(plain_host(host), path, |place| {
            self.routes.get(place.route).is_some_and(|route| route.matcher.takes(place, method, host, path))
        })
    }
}

impl Match {
    /// Whether it takes the request: every part that is given must agree. `host` is in lower case
    /// and without port; `path` is as received, without query.
    pub fn matches(&self, method: &Method, host: &str, path: &str) -> bool {
        self.takes_path(path) && self.takes_method(method) && self.takes_host(host)
    }

    /// The same, where it was found at this place of an index: what that says fits is not tried again.
    fn takes(&self, place: Place, method: &Method, host: &str, path: &str) -> bool {
        self.takes_method(method)
            && (place.host_fits || self.takes_host(host))
            && (place.path_fits || self.takes_path(path))
    }

    fn takes_path(&self, path: &str) -> bool {
        match &self.regex {
            Some(regex) => regex.is_match(path),
            None => self.paths.is_empty() || self.paths.iter().any(|p| p.matches(path)),
        }
    }

    fn takes_method(&self, method: &Method) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }

    fn takes_host(&self, host: &str) -> bool {
        if self.hosts.is_empty() {
            return true;
        }
        let host = plain_host(host);
        self.hosts.iter().any(|h| h.matches(host))
    }
}

/// `[::1]` is the host `::1`, and `example.com.` is `example.com`.
fn plain_host(host: &str) -> &str {
    let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    inner.unwrap_or_else(|| host.strip_suffix('.').unwrap_or(host))
}

impl PathPattern {
    /// Whether it takes the path.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == path,
            // `/*` is everything, also the `*` of `OPTIONS *`.
            Self::Prefix(prefix) => prefix == "/" || path.starts_with(prefix.as_str()),
        }
    }

    /// Whether it takes every path that `other` takes.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Exact(path)) => self.matches(path),
            (Self::Prefix(prefix), Self::Prefix(longer)) => longer.starts_with(prefix.as_str()),
            (Self::Exact(_), Self::Prefix(_)) => false,
        }
    }

    fn is_everything(&self) -> bool {
        *self == Self::Prefix("/".into())
    }
}

impl HostPattern {
    /// Whether it takes the host, which is in lower case and without port.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == host,
            Self::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Exact(host)) => self.matches(host),
            (Self::Suffix(suffix), Self::Suffix(longer)) => longer.ends_with(suffix.as_str()),
            (Self::Exact(_), Self::Suffix(_)) => false,
        }
    }
}

/// Matchers, in their order, for what they mean to a later one.
#[derive(Default)]
pub(super) struct Earlier {
    matchers: Vec<Match>,
    index: RouteIndex,
}

impl Earlier {
    /// Adds one behind the others.
    pub(super) fn add(&mut self, matcher: Match) {
        self.index.add(self.matchers.len(), &matcher);
        self.matchers.push(matcher);
    }

    /// Those that together take everything that `later` would take; `None` where something is left for it.
    pub(super) fn shadow(&self, later: &Match) -> Option<Vec<usize>> {
        let whole = Piece::whole(later);
        let of_first = whole.first().into_iter().flat_map(|piece| self.covering(piece));
        let all = |matcher: &Match| whole.iter().all(|piece| piece.covered_by(matcher));
        if let Some((one, _)) = of_first.into_iter().find(|(_, matcher)| all(matcher)) {
            return Some(vec![one]);
        }
        // Several may share the work, one each for some of its patterns. The number of pieces is the
        // product of three lists; past this many nobody writes such a route by hand.
        let pieces = Some(whole).filter(|w| w.len() <= 4096)?;
        let first = |piece: &Piece<'_>| self.covering(piece).next().map(|(nth, _)| nth);
        let mut by = pieces.iter().map(first).collect::<Option<Vec<usize>>>()?;
        by.sort_unstable();
        by.dedup();
        Some(by)
    }

    /// Those that take all that a piece would take, in their order.
    fn covering(&self, piece: &Piece<'_>) -> impl Iterator<Item = (usize, &Match)> {
        let path = piece.path.filter(|_| piece.regex.is_none());
        let wider = self.index.wider(piece.host, path).into_iter();
        let found = wider.filter_map(|nth| self.matchers.get(nth).map(|matcher| (nth, matcher)));
        found.filter(|(_, matcher)| piece.covered_by(matcher))
    }
}

/// One path pattern, one host pattern and one method of a matcher; `None` = any.
struct Piece<'m> {
    regex: Option<&'m str>,
    path: Option<&'m PathPattern>,
    host: Option<&'m HostPattern>,
    method: Option<&'m Method>,
}

impl<'m> Piece<'m> {
    fn whole(matcher: &'m Match) -> Vec<Self> {
        let regex = matcher.regex.as_ref().map(regex_lite::Regex::as_str);
        let mut pieces = Vec::new();
        for path in each(&matcher.paths) {
            for host in each(&matcher.hosts) {
                let with = |method| Piece { regex, path, host, method };
                pieces.extend(each(&matcher.methods).map(with));
            }
        }
        pieces
    }

    fn covered_by(&self, other: &Match) -> bool {
        self.path_covered_by(other)
            && covered(self.host, &other.hosts, HostPattern::covers)
            && covered(self.method, &other.methods, PartialEq::eq)
    }

    /// What a regex takes is not worked out: it is covered by the same regex or by any path.
    fn path_covered_by(&self, other: &Match) -> bool {
        match &other.regex {
            Some(regex) => self.regex == Some(regex.as_str()),
            None if other.paths.is_empty() || other.paths.iter().any(PathPattern::is_everything) => true,
            None => self.regex.is_none() && covered(self.path, &other.paths, PathPattern::covers),
        }
    }
}

/// Each of a list, or `None` once where it is empty, which stands for any.
fn each<T>(list: &[T]) -> impl Iterator<Item = Option<&T>> {
    let any = list.is_empty().then_some(None);
    list.iter().map(Some).chain(any)
}

/// Whether one of `by` covers `one`; an empty `by` covers all, and only that covers any.
fn covered<T>(one: Option<&T>, by: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
    by.is_empty() || one.is_some_and(|one| by.iter().any(|b| covers(b, one)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(matchers: impl IntoIterator<Item = Match>) -> Earlier {
        let mut earlier = Earlier::default();
        matchers.into_iter().for_each(|matcher| earlier.add(matcher));
        earlier
    }

    fn path(text: &str) -> PathPattern {
        match text.strip_suffix('*') {
            Some(prefix) => PathPattern::Prefix(prefix.into()),
            None => PathPattern::Exact(text.into()),
        }
    }

    fn host(text: &str) -> HostPattern {
        match text.strip_prefix('*') {
            Some(suffix) => HostPattern::Suffix(suffix.into()),
            None => HostPattern::Exact(text.into()),
        }
    }

    /// `"/a /b* ~regex @host @*.host GET"`
    fn matcher(text: &str) -> Match {
        let mut m = Match::default();
        for word in text.split_whitespace() {
            match word.split_at(1) {
                ("/", _) => m.paths.push(path(word)),
                ("~", regex) => m.regex = Some(regex_lite::Regex::new(regex).unwrap()),
                ("@", name) => m.hosts.push(host(name)),
                _ => m.methods.push(word.parse().unwrap()),
            }
        }
        m
    }

    #[test]
    fn every_part_that_is_given_must_agree() {
        let rows = [
            ("/users", "GET h /users", true),
            ("/users", "GET h /users/", false),
            ("/users", "GET h /users/1", false),
            ("/users/*", "GET h /users", false),
            ("/users/*", "GET h /users/", true),
            ("/users/*", "GET h /users/1/2", true),
            ("/users/*", "GET h /usersx", false),
            ("/*", "GET h /", true),
            ("/*", "OPTIONS h *", true),
            ("/a /b/*", "GET h /b/c", true),
            ("~^/v[0-9]+/", "GET h /v12/x", true),
            ("~^/v[0-9]+/", "GET h /x/v12/", false),
            ("", "GET h /x", true),
            ("@api.example.com", "GET api.example.com /", true),
            ("@api.example.com", "GET api.example.com. /", true),
            ("@api.example.com", "GET example.com /", false),
            ("@*.example.com", "GET a.b.example.com /", true),
            ("@*.example.com", "GET example.com /", false),
            ("@*.example.com", "GET .example.com /", false),
            ("@::1", "GET [::1] /", true),
            ("@a @b", "GET b /", true),
            ("POST PUT", "PUT h /", true),
            ("POST PUT", "GET h /", false),
            ("/a @h GET", "GET h /a", true),
            ("/a @h GET", "GET x /a", false),
            ("/a @h GET", "POST h /a", false),
        ];
        for (text, request, want) in rows {
            let parts: Vec<&str> = request.split(' ').collect();
            let method: Method = parts[0].parse().unwrap();
            assert_eq!(matcher(text).matches(&method, parts[1], parts[2]), want, "{text}: {request}");
        }
    }

    #[test]
    fn a_route_that_can_never_match_is_known_by_what_stands_before_it() {
        type Row = (&'static [&'static str], &'static str, Option<&'static [usize]>);
        let rows: [Row; 29] = [
            (&["/*"], "/users", Some(&[0])),
            (&[""], "~x", Some(&[0])),
            (&["/*"], "~x", Some(&[0])),
            (&["/*"], "", Some(&[0])),
            (&["/users/*"], "/users", None),
            (&["/users/*"], "/users/", Some(&[0])),
            (&["/users/*"], "/users/1", Some(&[0])),
            (&["/users/*"], "/users/a/*", Some(&[0])),
            (&["/users/a/*"], "/users/*", None),
            (&["/users"], "/users/*", None),
            (&["/users"], "/users", Some(&[0])),
            (&["/a /b"], "/b /a", Some(&[0])),
            (&["/a"], "/b /a", None),
            (&["/a/*"], "", None),
            (&["~x"], "~x", Some(&[0])),
            (&["~x"], "~y", None),
            (&["~x"], "/x", None),
            (&["/x/*"], "~^/x/", None),
            (&["/* @h"], "/a", None),
            (&["/*"], "/a @h", Some(&[0])),
            (&["/* @*.x.com"], "/a @b.x.com", Some(&[0])),
            (&["/* @*.x.com"], "/a @*.b.x.com", Some(&[0])),
            (&["/* @b.x.com"], "/a @*.x.com", None),
            (&["/* GET"], "/a GET", Some(&[0])),
            (&["/* GET"], "/a GET POST", None),
            (&["/* GET"], "/a", None),
            (&["/a", "/c", "/b GET", "/b POST"], "/a /b GET POST", Some(&[0, 2, 3])),
            (&["/a", "/b GET"], "/a /b GET POST", None),
            (&["/a", "/c", "/b/*"], "/b/1 /a", Some(&[0, 2])),
        ];
        for (earlier, later, want) in rows {
            let earlier = all(earlier.iter().map(|e| matcher(e)));
            assert_eq!(earlier.shadow(&matcher(later)).as_deref(), want, "{later}");
        }
    }

    #[test]
    fn methods_may_be_shared_out_between_earlier_routes() {
        let (get, post) = (matcher("/a GET"), matcher("/* POST"));
        assert_eq!(all([get, post]).shadow(&matcher("/a GET POST")), Some(vec![0, 1]));
    }

    fn any_match() -> impl Strategy<Value = Match> {
        let paths = prop::collection::vec("/|/\\*|/a|/a/\\*|/a/b|/a/b/\\*|/c", 0..3);
        let hosts = prop::collection::vec("x|y\\.x|\\*\\.x|\\*\\.y\\.x", 0..3);
        let methods = prop::collection::vec("GET|POST", 0..2);
        let regex = prop::option::of("\\^/a/|b\\$|c");
        (paths, hosts, methods, regex).prop_map(|(paths, hosts, methods, regex)| Match {
            regex: paths.is_empty().then(|| regex.map(|r| regex_lite::Regex::new(&r).unwrap())).flatten(),
            paths: paths.iter().map(|p| path(p)).collect(),
            hosts: hosts.iter().map(|h| host(h)).collect(),
            methods: methods.iter().map(|m| m.parse().unwrap()).collect(),
        })
    }

    proptest! {
        #[test]
        fn a_shadowed_route_takes_no_request_that_the_earlier_do_not(
            earlier in prop::collection::vec(any_match(), 0..4),
            later in any_match(),
            path in "/|/a|/a/|/a/b|/a/b/|/a/b/c|/c|/d",
            host in "x|y\\.x|z\\.y\\.x|w",
            method in "GET|POST|PUT",
        ) {
            let method: Method = method.parse().unwrap();
            let taken = |m: &Match| m.matches(&method, &host, &path);
            let by = all(earlier.iter().cloned()).shadow(&later);
            // As it is found by trying one after the other.
            let whole = Piece::whole(&later);
            let one = earlier.iter().position(|e| whole.iter().all(|piece| piece.covered_by(e)));
            let first = |piece: &Piece<'_>| earlier.iter().position(|e| piece.covered_by(e));
            let shared = || whole.iter().map(first).collect::<Option<std::collections::BTreeSet<_>>>();
            prop_assert_eq!(&by, &one.map(|one| vec![one]).or_else(|| Some(shared()?.into_iter().collect())));
            if let Some(by) = by {
                prop_assert!(!taken(&later) || by.iter().any(|i| taken(&earlier[*i])));
            }
        }

        /// The index finds what trying one after the other finds.
        #[test]
        fn the_first_route_that_takes_a_request_is_found(
            matchers in prop::collection::vec(any_match(), 0..8),
            path in "/|\\*|/a|/a/|/a/b|/a/b/|/a/b/c|/c|/d|//a//b/|/a/b/c/d/e/",
            host in "x|y\\.x|z\\.y\\.x|w|\\.x|x\\.|\\[::1\\]|",
            method in "GET|POST|PUT",
        ) {
            let method: Method = method.parse().unwrap();
            let mut index = RouteIndex::default();
            matchers.iter().enumerate().for_each(|(nth, matcher)| index.add(nth, matcher));
            let takes = |place: Place| matchers[place.route].takes(place, &method, &host, &path);
            let tried = matchers.iter().position(|m| m.matches(&method, &host, &path));
            prop_assert_eq!(index.first(plain_host(&host), &path, takes), tried);
        }
    }
}
