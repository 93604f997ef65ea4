//! `Cache-Control`, and `Pragma` in its stead (RFC 9111 §5.2, §5.4; RFC 5861; RFC 8246).
//!
//! Knows the directives' syntax and what counts where one is malformed or said twice: what
//! restricts is believed in any shape, what permits only as it is specified. Unknown directives
//! are passed over (§5.2.3).
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
        found
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

type Table<T> = [(&'static str, fn(&mut T, &Directive<'_>))];

// §4.2.1: of several values "either the first occurrence should be used or the response should be
// considered stale": the first is used, and a malformed first one is stale.
const RESPONSE: &Table<ResponseDirectives> = &[
    ("no-store", |r, _| r.no_store = true),
    ("no-cache", |r, d| r.no_cache.widen(d)),
    ("private", |r, d| r.private.widen(d)),
    ("public", |r, d| r.public |= d.argument.is_none()),
    ("must-revalidate", |r, _| r.must_revalidate = true),
    ("proxy-revalidate", |r, _| r.proxy_revalidate = true),
    ("must-understand", |r, d| r.must_understand |= d.argument.is_none()),
    ("no-transform", |r, _| r.no_transform = true),
    ("immutable", |r, d| r.immutable |= d.argument.is_none()),
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
}

fn directives(headers: &HeaderMap) -> impl Iterator<Item = Directive<'_>> {
    list::all(headers, &CACHE_CONTROL).map(Directive::of)
}

impl<'a> Directive<'a> {
    fn of(member: &'a [u8]) -> Self {
        let mut parts = member.splitn(2, |&b| b == b'=');
        // Trimmed, though no space is allowed here: `no-store =x` still restricts.
        let name = list::trim(parts.next().unwrap_or_default());
        Self { name, argument: parts.next() }
    }

    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// delta-seconds (§1.2.2), as a token or quoted (§5.2: "recipients ought to accept both").
    fn seconds(&self) -> Option<Seconds> {
        let argument = self.argument?;
        match list::unquote(argument) {
            Some(said) => delta_seconds(&said),
            None => delta_seconds(argument),
        }
    }

    /// The fields named (§5.2.2.4, §5.2.2.7); `None` where none are or one is no field name: then
    /// the directive reaches everything.
    fn names(&self) -> Option<Vec<HeaderName>> {
        let argument = list::trim(self.argument?);
        let said = list::unquote(argument).unwrap_or(argument.into());
        let names = list::members(&said).map(HeaderName::from_bytes).collect::<Result<Vec<_>, _>>();
        names.ok().filter(|names| !names.is_empty())
    }
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
