//! `Cache-Control`, and `Pragma` in its stead (RFC 9111 §5.2, §5.4; RFC 5861; RFC 8246).
//!
//! Knows the directives' syntax and what counts where one is malformed or said twice: what
//! restricts is believed in any shape, what permits only as it is specified. Where readers disagree on
//! what a line says, for its quotes, whatever any of them finds that restricts is believed. Unknown
//! directives are passed over (§5.2.3).
//! Must not know: what a cache then does.

use http::header::{CACHE_CONTROL, PRAGMA};
use http::{HeaderMap, HeaderName};

use super::list;

/// Whole seconds, at most [`MAX_SECONDS`].
pub type Seconds = u32;

/// What every larger figure counts as (§1.2.2): 2^31 seconds, about 68 years.
pub const MAX_SECONDS: Seconds = 1 << 31;

/// How far a directive reaches that can name fields: `no-cache` (§5.2.2.4), `private` (§5.2.2.7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// The directive is absent.
    #[default]
    No,
    /// The whole response.
    All,
    /// Only these fields of it; never empty.
    Fields(Vec<HeaderName>),
}

/// How far `no-cache` reaches.
pub type NoCache = Reach;

/// How far `private` reaches.
pub type Private = Reach;

/// The directives of a response (§5.2.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    /// §5.2.2.5
    pub no_store: bool,
    /// §5.2.2.4
    pub no_cache: NoCache,
    /// §5.2.2.7
    pub private: Private,
    /// §5.2.2.9
    pub public: bool,
    /// §5.2.2.2
    pub must_revalidate: bool,
    /// §5.2.2.8
    pub proxy_revalidate: bool,
    /// §5.2.2.3
    pub must_understand: bool,
    /// §5.2.2.6
    pub no_transform: bool,
    /// RFC 8246
    pub immutable: bool,
    /// §5.2.2.1; malformed = 0, already stale (§4.2.1).
    pub max_age: Option<Seconds>,
    /// §5.2.2.10; malformed = 0, already stale (§4.2.1).
    pub s_maxage: Option<Seconds>,
    /// RFC 5861 §3; malformed = absent.
    pub stale_while_revalidate: Option<Seconds>,
    /// RFC 5861 §4; malformed = absent.
    pub stale_if_error: Option<Seconds>,
}

/// The directives of a request (§5.2.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// §5.2.1.5
    pub no_store: bool,
    /// §5.2.1.4
    pub no_cache: bool,
    /// §5.2.1.7
    pub only_if_cached: bool,
    /// §5.2.1.1; malformed = absent.
    pub max_age: Option<Seconds>,
    /// §5.2.1.3; malformed = absent.
    pub min_fresh: Option<Seconds>,
    /// §5.2.1.2; malformed = absent.
    pub max_stale: Option<MaxStale>,
}

/// How stale a response the client accepts (§5.2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxStale {
    /// However stale.
    Any,
    /// No longer past its lifetime than this.
    Upto(Seconds),
}

impl ResponseDirectives {
    /// From all `Cache-Control` lines of a response.
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for directive in directives(headers) {
            found.take(&directive);
        }
        for directive in doubtful(headers) {
            found.restrict(&directive);
        }
        found
    }

    /// Takes a directive that not every reader finds: only what restricts.
    fn restrict(&mut self, d: &Directive<'_>) {
        if RESTRICTING.iter().any(|name| d.is(name)) {
            self.take(d);
        }
    }

    fn take(&mut self, d: &Directive<'_>) {
        if let Some((_, take)) = RESPONSE.iter().find(|(name, _)| d.is(name)) {
            take(self, d);
        }
    }
}

impl RequestDirectives {
    /// From all `Cache-Control` lines of a request, or `Pragma` where there is none (§5.4).
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        if !headers.contains_key(CACHE_CONTROL) {
            found.no_cache = list::contains(headers, &PRAGMA, "no-cache");
            return found;
        }
        for directive in directives(headers) {
            found.take(&directive);
        }
        found
    }

    fn take(&mut self, d: &Directive<'_>) {
        if let Some((_, take)) = REQUEST.iter().find(|(name, _)| d.is(name)) {
            take(self, d);
        }
    }
}

/// Those that only ever forbid.
const RESTRICTING: [&str; 5] = ["no-store", "no-cache", "private", "must-revalidate", "proxy-revalidate"];

type Table<T> = [(&'static str, fn(&mut T, &Directive<'_>))];

// §4.2.1: of several values "either the first occurrence should be used or the response should be
// considered stale": the first is used, and a malformed first one is stale.
const RESPONSE: &Table<ResponseDirectives> = &[
    ("no-store", |r, _| r.no_store = true),
    ("no-cache", |r, d| r.no_cache.widen(d)),
    ("private", |r, d| r.private.widen(d)),
    ("public", |r, d| r.public |= d.permits()),
    ("must-revalidate", |r, _| r.must_revalidate = true),
    ("proxy-revalidate", |r, _| r.proxy_revalidate = true),
    ("must-understand", |r, d| r.must_understand |= d.permits()),
    ("no-transform", |r, _| r.no_transform = true),
    ("immutable", |r, d| r.immutable |= d.permits()),
    ("max-age", |r, d| r.max_age = r.max_age.or(Some(d.seconds().unwrap_or(0)))),
    ("s-maxage", |r, d| r.s_maxage = r.s_maxage.or(Some(d.seconds().unwrap_or(0)))),
    ("stale-while-revalidate", |r, d| {
        r.stale_while_revalidate = r.stale_while_revalidate.or(d.seconds());
    }),
    ("stale-if-error", |r, d| r.stale_if_error = r.stale_if_error.or(d.seconds())),
];

const REQUEST: &Table<RequestDirectives> = &[
    ("no-store", |r, _| r.no_store = true),
    ("no-cache", |r, _| r.no_cache = true),
    ("only-if-cached", |r, _| r.only_if_cached = true),
    ("max-age", |r, d| r.max_age = r.max_age.or(d.seconds())),
    ("min-fresh", |r, d| r.min_fresh = r.min_fresh.or(d.seconds())),
    ("max-stale", |r, d| {
        let value = match d.argument {
            None => Some(MaxStale::Any),
            Some(_) => d.seconds().map(MaxStale::Upto),
        };
        r.max_stale = r.max_stale.or(value);
    }),
];

impl Reach {
    /// Whether the directive reaches the whole response.
    pub fn is_all(&self) -> bool {
        *self == Self::All
    }

    /// The fields it names; none where it is absent or reaches everything.
    pub fn fields(&self) -> &[HeaderName] {
        match self {
            Self::Fields(names) => names,
            Self::No | Self::All => &[],
        }
    }

    /// Takes one more occurrence of the directive into account.
    fn widen(&mut self, directive: &Directive<'_>) {
        match (&mut *self, directive.names()) {
            (Self::All, _) => {}
            (_, None) => *self = Self::All,
            (Self::No, Some(names)) => *self = Self::Fields(names),
            (Self::Fields(known), Some(names)) => known.extend(names),
        }
    }
}

/// One directive as written; the argument with its quotes.
struct Directive<'a> {
    name: &'a [u8],
    argument: Option<&'a [u8]>,
    /// No quote of its line stands where none belongs.
    plain: bool,
}

fn directives(headers: &HeaderMap) -> impl Iterator<Item = Directive<'_>> {
    headers.get_all(CACHE_CONTROL).into_iter().flat_map(|line| {
        let line = line.as_bytes();
        let plain = list::is_well_quoted(line);
        list::members(line).map(move |member| Directive { plain, ..Directive::of(member) })
    })
}

/// What other readers may find in lines with quotes: one who divides at every comma where the quotes stand
/// wrong, and one who knows no `\` in quoted strings. `x=5", no-store, y="` is one member to who lets a
/// quote open a string anywhere, and three to who does not.
fn doubtful(headers: &HeaderMap) -> impl Iterator<Item = Directive<'_>> {
    let lines = headers.get_all(CACHE_CONTROL).into_iter().map(|line| line.as_bytes());
    lines.filter(|line| line.contains(&b'"')).flat_map(|line| {
        let divided = (!list::is_well_quoted(line)).then(|| line.split(|&b| b == b','));
        let escapes = line.contains(&b'\\').then(|| list::members_without_escapes(line));
        divided
            .into_iter()
            .flatten()
            .map(without_quotes)
            .chain(escapes.into_iter().flatten())
            .map(Directive::of)
    })
}

/// A piece of a line without the white space, quotes and escapes around it.
fn without_quotes(mut piece: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b'"' | b'\\', rest @ ..] | [rest @ .., b' ' | b'\t' | b'"' | b'\\'] = piece {
        piece = rest;
    }
    piece
}

impl<'a> Directive<'a> {
    fn of(member: &'a [u8]) -> Self {
        let mut parts = member.splitn(2, |&b| b == b'=');
        Self { name: parts.next().unwrap_or_default(), argument: parts.next(), plain: true }
    }

    fn is(&self, name: &str) -> bool {
        // No space is allowed before the "=", but `no-store =x` still restricts.
        list::trim(self.name).eq_ignore_ascii_case(name.as_bytes())
    }

    /// Whether it stands as a permission is specified: without an argument, and read so by everyone.
    fn permits(&self) -> bool {
        self.argument.is_none() && self.plain
    }

    /// delta-seconds (§1.2.2), as a token or quoted (§5.2: "recipients ought to accept both").
    fn seconds(&self) -> Option<Seconds> {
        let argument = self.argument.filter(|_| list::trim(self.name) == self.name)?;
        match list::unquote(argument) {
            Some(said) => delta_seconds(&said),
            None => delta_seconds(argument),
        }
    }

    /// The fields named (§5.2.2.4, §5.2.2.7); `None` where none are or one is no field name: then
    /// the directive reaches everything.
    fn names(&self) -> Option<Vec<HeaderName>> {
        let argument = list::trim(self.argument?);
        field_names(&list::unquote(argument).unwrap_or(argument.into()))
    }
}

/// The field names in a list; `None` where there are none or one is no field name.
pub(super) fn field_names(list: &[u8]) -> Option<Vec<HeaderName>> {
    let names = list::members(list).map(HeaderName::from_bytes).collect::<Result<Vec<_>, _>>();
    names.ok().filter(|names| !names.is_empty())
}

/// Digits only; larger than [`MAX_SECONDS`] counts as that (§1.2.2).
pub(crate) fn delta_seconds(digits: &[u8]) -> Option<Seconds> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0, |sum: Seconds, digit| {
        let digit = digit.is_ascii_digit().then(|| Seconds::from(digit - b'0'))?;
        Some(sum.saturating_mul(10).saturating_add(digit).min(MAX_SECONDS))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_CONTROL, line.parse().unwrap());
        }
        headers
    }

    fn response(lines: &[&str]) -> ResponseDirectives {
        ResponseDirectives::parse(&headers(lines))
    }

    fn request(lines: &[&str]) -> RequestDirectives {
        RequestDirectives::parse(&headers(lines))
    }

    fn fields(names: &[&'static str]) -> Reach {
        Reach::Fields(names.iter().map(|name| HeaderName::from_static(name)).collect())
    }

    #[test]
    fn every_response_directive_is_known() {
        let all = response(&[
            "no-store, no-cache, private, public, must-revalidate, proxy-revalidate, must-understand",
            "no-transform, immutable, max-age=1, s-maxage=2, stale-while-revalidate=3, stale-if-error=4",
        ]);
        let expected = ResponseDirectives {
            no_store: true,
            no_cache: Reach::All,
            private: Reach::All,
            public: true,
            must_revalidate: true,
            proxy_revalidate: true,
            must_understand: true,
            no_transform: true,
            immutable: true,
            max_age: Some(1),
            s_maxage: Some(2),
            stale_while_revalidate: Some(3),
            stale_if_error: Some(4),
        };
        assert_eq!(all, expected);
        assert_eq!(response(&[]), ResponseDirectives::default());
    }

    #[test]
    fn lifetimes_are_read_or_count_as_stale() {
        for (clause, lines, expected) in [
            ("§5.2.2.1", &["max-age=60"][..], Some(60)),
            ("§5.2 any case", &["MAX-Age=60"], Some(60)),
            ("§5.2 quoted", &["max-age=\"60\""], Some(60)),
            ("§1.2.2 leading zeros", &["max-age=0060"], Some(60)),
            ("§1.2.2 2^31 - 1", &["max-age=2147483647"], Some(2_147_483_647)),
            ("§1.2.2 2^31", &["max-age=2147483648"], Some(MAX_SECONDS)),
            ("§1.2.2 more", &["max-age=99999999999999999999"], Some(MAX_SECONDS)),
            ("§4.2.1 negative", &["max-age=-1"], Some(0)),
            ("§4.2.1 no number", &["max-age=abc"], Some(0)),
            ("§4.2.1 fraction", &["max-age=60.5"], Some(0)),
            ("§4.2.1 letters after", &["max-age=60s"], Some(0)),
            ("§4.2.1 single-quoted", &["max-age='60'"], Some(0)),
            ("§4.2.1 space before =", &["max-age =60"], Some(0)),
            ("§4.2.1 space after =", &["max-age= 60"], Some(0)),
            ("§4.2.1 no value", &["max-age"], Some(0)),
            ("§4.2.1 empty value", &["max-age="], Some(0)),
            ("§4.2.1 empty quoted value", &["max-age=\"\""], Some(0)),
            ("§4.2.1 the first, one line", &["max-age=1, max-age=60"], Some(1)),
            ("§4.2.1 the first, two lines", &["max-age=60", "max-age=1"], Some(60)),
            ("§4.2.1 the first is malformed", &["max-age=x, max-age=60"], Some(0)),
            ("§5.2.3 in a quoted string", &["x=\"max-age=60\""], None),
            ("§5.2.3 after a quoted comma", &["x=\"a, max-age=60, b\""], None),
            ("§5.2.3 after a quoted quote", &["x=\"a\\\", max-age=60\""], None),
            ("§5.2.3 another name", &["x-max-age=60"], None),
            ("absent", &["public"], None),
        ] {
            assert_eq!(response(lines).max_age, expected, "{clause}: {lines:?}");
        }
    }

    #[test]
    fn what_restricts_is_believed_in_any_shape_and_what_permits_only_as_specified() {
        for (clause, line, no_store, public) in [
            ("§5.2.2.5", "no-store", true, false),
            ("§5.2 any case", "No-Store", true, false),
            ("§5.2 with an argument", "no-store=1", true, false),
            ("§5.2 space", "no-store =1", true, false),
            ("§5.2.3 in a quoted string", "foo=\"no-store, max-age=0\"", false, false),
            ("an open quote hides nothing", "foo=\"bar, no-store", true, false),
            ("§5.2.3 another name", "no-stores", false, false),
            ("§5.2.2.9", "PUBLIC", false, true),
            ("§5.2 with an argument", "public=\"x\"", false, false),
            ("§5.6.1.2 empty members", ",, public,", false, true),
        ] {
            let found = response(&[line]);
            assert_eq!((found.no_store, found.public), (no_store, public), "{clause}: {line}");
        }
    }

    #[test]
    fn no_cache_and_private_reach_as_far_as_they_say() {
        for (clause, lines, expected) in [
            ("absent", &["public"][..], Reach::No),
            ("§5.2.2.4 unqualified", &["no-cache"], Reach::All),
            ("§5.2.2.4 qualified", &["no-cache=\"Set-Cookie\""], fields(&["set-cookie"])),
            ("§5.2.2.4 several", &["no-cache=\"a, B ,,c\""], fields(&["a", "b", "c"])),
            ("§5.2 token", &["no-cache=a"], fields(&["a"])),
            ("§5.2.2.4 twice", &["no-cache=\"a\"", "no-cache=\"b\""], fields(&["a", "b"])),
            ("§4.2.1 the most restrictive", &["no-cache=\"a\", no-cache"], Reach::All),
            ("§4.2.1 the most restrictive", &["no-cache, no-cache=\"a\""], Reach::All),
            ("names nothing", &["no-cache=\"\""], Reach::All),
            ("names nothing", &["no-cache="], Reach::All),
            ("no field name", &["no-cache=\"a b\""], Reach::All),
            ("an open quote", &["no-cache=\"a, b"], Reach::All),
        ] {
            assert_eq!(response(lines).no_cache, expected, "{clause}: {lines:?}");
            let private: Vec<_> = lines.iter().map(|l| l.replace("no-cache", "private")).collect();
            let private: Vec<_> = private.iter().map(String::as_str).collect();
            assert_eq!(response(&private).private, expected, "{clause}: {private:?}");
        }
    }

    #[test]
    fn every_request_directive_is_known() {
        let upto = |s| Some(MaxStale::Upto(s));
        let none = RequestDirectives::default();
        for (clause, line, expected) in [
            ("§5.2.1.1", "max-age=5", RequestDirectives { max_age: Some(5), ..none.clone() }),
            ("§5.2.1.1 malformed", "max-age=x", none.clone()),
            ("§5.2.1.2", "max-stale=5", RequestDirectives { max_stale: upto(5), ..none.clone() }),
            ("§5.2.1.2 quoted", "max-stale=\"5\"", RequestDirectives { max_stale: upto(5), ..none.clone() }),
            (
                "§5.2.1.2 any",
                "max-stale",
                RequestDirectives { max_stale: Some(MaxStale::Any), ..none.clone() },
            ),
            ("§5.2.1.2 malformed is not any", "max-stale=x", none.clone()),
            ("§5.2.1.2 empty is not any", "max-stale=", none.clone()),
            ("§5.2.1.3", "min-fresh=5", RequestDirectives { min_fresh: Some(5), ..none.clone() }),
            ("§5.2.1.4", "no-cache", RequestDirectives { no_cache: true, ..none.clone() }),
            ("§5.2.1.5", "no-store", RequestDirectives { no_store: true, ..none.clone() }),
            ("§5.2.1.7", "only-if-cached", RequestDirectives { only_if_cached: true, ..none.clone() }),
            ("§5.2.3 unknown", "x=\"no-cache\", y", none.clone()),
        ] {
            assert_eq!(request(&[line]), expected, "{clause}: {line}");
        }
    }

    #[test]
    fn pragma_counts_only_without_cache_control() {
        let mut both = HeaderMap::from_iter([(PRAGMA, HeaderValue::from_static("x, No-Cache"))]);
        assert!(RequestDirectives::parse(&both).no_cache, "§5.4");
        assert_eq!(
            ResponseDirectives::parse(&both),
            ResponseDirectives::default(),
            "§5.4 never of responses"
        );
        both.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=5"));
        assert!(!RequestDirectives::parse(&both).no_cache, "§5.4");
    }

    proptest! {
        #[test]
        fn any_lines_are_read(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..4)) {
            let mut headers = HeaderMap::new();
            for value in lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok()) {
                headers.append(CACHE_CONTROL, value);
            }
            let found = ResponseDirectives::parse(&headers);
            prop_assert!(found.max_age.unwrap_or(0) <= MAX_SECONDS);
            let _ = RequestDirectives::parse(&headers);
        }

        #[test]
        fn directives_are_found_wherever_they_stand(
            before in "[a-z]{1,8}(=\"[a-z ,=\\\\]{0,8}[a-z]\")?", seconds: u32, after in "[a-z]{1,8}=[0-9]{1,3}",
        ) {
            let found = response(&[&format!("{before},max-age={seconds}\t, {after}, no-store")]);
            prop_assert!(found.no_store);
            prop_assert_eq!(found.max_age, Some(seconds.min(MAX_SECONDS)));
        }

        #[test]
        fn what_a_quoted_string_says_is_no_directive(inside in "[a-z0-9,= -]{0,40}") {
            prop_assert_eq!(response(&[&format!("ext=\"{inside}\"")]), ResponseDirectives::default());
        }
    }
}
