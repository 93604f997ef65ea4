//! What a route asks of the caching rules.
//!
//! Plain data, made by `config` and read by every chapter of `rules`. It is applied when a stored
//! response is looked up, never written into one, so a change takes effect on what is stored.
//! Must not know: where the values were written, or who asks.

use std::time::Duration;

use http::Method;

/// A route's caching policy (`[route.cache]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The three named lifetimes.
    pub ttl: Ttl,
    /// What to make of `Last-Modified` where nobody names a lifetime (RFC 9111 §4.2.2); `None` = nothing.
    pub heuristic: Option<Heuristic>,
    /// What a request's own `Cache-Control` and `Pragma` do.
    pub client_cache_control: ClientCacheControl,
    /// How long past its lifetime a response may be served while it is refreshed behind the
    /// client's back (RFC 5861 §3); `None` leaves it to the response.
    pub stale_while_revalidate: Option<Duration>,
    /// How long past its lifetime a response may be served when the origin fails (RFC 5861 §4);
    /// `None` leaves it to the response.
    pub stale_if_error: Option<Duration>,
    /// The same when the origin cannot be reached or gives no answer (RFC 9111 §4.2.4, "disconnected"),
    /// where that is longer; see [`Policy::disconnected`].
    pub stale_if_disconnected: Option<Duration>,
    /// How long past its lifetime a response with a validator is kept only to be validated.
    pub keep: Duration,
    /// Which selecting fields are taken by their meaning.
    pub normalize: Normalize,
    /// What a request's `Cookie` means for the cache.
    pub cookies: Cookies,
    /// What a request's `Authorization` means for the cache.
    pub authorization: Authorization,
    /// What a response's `Set-Cookie` means for the cache.
    pub set_cookie: SetCookie,
    /// What is fetched for a request with `Range`.
    pub range: RangeFetch,
    /// The methods whose requests use the cache.
    pub methods: Methods,
    /// What has the name of a static file and is something else is not stored without the origin's own word
    /// that it is for all; see [`guard`](super::guard).
    pub deception_guard: bool,
}

/// The methods whose requests use the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Methods {
    /// GET.
    pub get: bool,
    /// HEAD, which is answered from what a GET brought.
    pub head: bool,
    /// QUERY (RFC 10008), keyed on its content.
    pub query: bool,
    /// POST, keyed on its content: the route's word that its POSTs only read.
    pub post: bool,
}

impl Methods {
    /// All that may be named.
    pub const ALL: [Method; 4] = [Method::GET, Method::HEAD, Method::QUERY, Method::POST];

    /// None of them.
    pub const NONE: Self = Self { get: false, head: false, query: false, post: false };

    /// Whether requests of this method use the cache.
    pub fn contains(&self, method: &Method) -> bool {
        match *method {
            Method::GET => self.get,
            Method::HEAD => self.head,
            Method::QUERY => self.query,
            Method::POST => self.post,
            _ => false,
        }
    }

    /// Adds one of [`ALL`](Self::ALL); another changes nothing.
    pub fn insert(&mut self, method: &Method) {
        match *method {
            Method::GET => self.get = true,
            Method::HEAD => self.head = true,
            Method::QUERY => self.query = true,
            Method::POST => self.post = true,
            _ => {}
        }
    }

    /// Whether there are any whose requests are keyed on their content.
    pub const fn with_content(&self) -> bool {
        self.query || self.post
    }
}

impl Default for Methods {
    fn default() -> Self {
        Self { get: true, head: true, ..Self::NONE }
    }
}

/// The three named lifetimes of a route; never one ambiguous `ttl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ttl {
    /// Where the origin says nothing about freshness.
    pub default: Option<Duration>,
    /// In place of what the origin says about freshness.
    pub r#override: Option<Duration>,
    /// No lifetime is longer than this.
    pub max: Option<Duration>,
}

/// A lifetime guessed from the time since a response was last changed (RFC 9111 §4.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heuristic {
    /// Of that time, in hundredths; 100 at most.
    pub percent: u8,
    /// And no longer than this.
    pub max: Duration,
}

/// What a request's directives (RFC 9111 §5.2.1, §5.4) do to the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCacheControl {
    /// What they ask for.
    #[default]
    Honour,
    /// Nothing; the origin gets them as they came.
    Ignore,
}

/// Which of a request's fields are taken by their meaning where `Vary` names them (RFC 9111 §4.1),
/// beyond `Accept-Encoding`, which always is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Normalize {
    /// `Accept-Language`: the order of equals does not count, and a response in the language
    /// that a request prefers to all others answers it.
    pub accept_language: bool,
}

/// What a request's `Cookie` field means for the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cookies {
    /// Such a request uses the cache only where the origin itself allows shared reuse.
    Origin,
    /// Such a request never uses the cache.
    Bypass,
    /// The cache pays no heed to cookies.
    Ignore,
    /// The values of these cookies are part of the key; the others are ignored.
    Key(Vec<String>),
}

/// What a request's `Authorization` field means for the cache (RFC 9111 §3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authorization {
    /// Only where the response allows it by `public`, `s-maxage` or `must-revalidate`.
    Bypass,
    /// The credentials are part of the key.
    PerCredential,
    /// The cache pays no heed to credentials.
    Share,
}

/// What a response's `Set-Cookie` field means for the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetCookie {
    /// Stored only where the origin says `public` or `s-maxage`.
    Origin,
    /// Never stored.
    Never,
    /// Stored without the field.
    Strip,
    /// Stored as any other response.
    Keep,
}

/// What is fetched for a request with `Range` that what is stored cannot answer (RFC 9111 §3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeFetch {
    /// What is missing of the range; of a representation known to be small, all that is missing.
    Auto,
    /// The whole, from which all further ranges are answered.
    Fill,
    /// What is missing of the range.
    Part,
}

/// Long enough for a restart of the origin or a switch to another, short enough that nobody takes what
/// was true for what is.
const DISCONNECTED: Duration = Duration::from_secs(60);

impl Policy {
    /// How long past its lifetime a response may be served when the origin cannot be reached or gives
    /// no answer: 60 s, unless the route says how long, for this or for any failure (`stale_if_error`), or
    /// the response does (`said`).
    pub fn disconnected(&self, said: bool) -> Duration {
        let default = if self.stale_if_error.is_some() || said { Duration::ZERO } else { DISCONNECTED };
        self.stale_if_disconnected.unwrap_or(default)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            ttl: Ttl::default(),
            // §4.2.2: "A typical setting of this fraction might be 10%". A day, so that a change of
            // what stood still for years is noticed by the next.
            heuristic: Some(Heuristic { percent: 10, max: Duration::from_secs(86_400) }),
            // What the RFC asks for, until somebody abuses it.
            client_cache_control: ClientCacheControl::Honour,
            stale_while_revalidate: None,
            stale_if_error: None,
            stale_if_disconnected: None,
            keep: Duration::from_secs(600),
            // Some origins take the order of equal languages for one of preference.
            normalize: Normalize { accept_language: false },
            cookies: Cookies::Origin,
            authorization: Authorization::Bypass,
            set_cookie: SetCookie::Origin,
            range: RangeFetch::Auto,
            methods: Methods::default(),
            // What it keeps from being stored is hardly ever worth it, and may be somebody's account.
            deception_guard: true,
        }
    }
}
