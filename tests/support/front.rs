//! Larder in front of one scripted origin, with one route for every path: what most tests of
//! caching need.
//!
//! Knows the smallest configuration, and how to read the fields by which Larder says what it did.
//! Must not know: what it ought to have done.

use super::client::{self, Response};
use super::{Larder, Origin, Request, Script};

/// A Larder and the origin behind it. Everything goes through memory alone.
#[derive(Debug)]
pub struct Front {
    pub larder: Larder,
    pub origin: Origin,
}

impl Front {
    /// One route, `/*`, with these lines under `[route.cache]`.
    pub fn new(cache: &str, behaviour: impl Fn(&Request) -> Script + Send + Sync + 'static) -> Self {
        let route = "[[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"api\"\n";
        Self::with(&format!("{route}[route.cache]\n{cache}"), behaviour)
    }

    /// `more` follows the listeners and `[upstream.api]`: further tables, and the routes.
    pub fn with(more: &str, behaviour: impl Fn(&Request) -> Script + Send + Sync + 'static) -> Self {
        let origin = Origin::start(behaviour);
        let larder = Larder::start(&configuration(&origin, more));
        Self { larder, origin }
    }

    /// `GET path`, with a `Host` that stays the same from test to test.
    pub fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.request("GET", path, headers, b"")
    }

    /// Any request, with the same `Host` unless one is given.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let mut headers = headers.to_vec();
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            headers.push(("Host", HOST));
        }
        client::request(self.larder.proxy(), method, path, &headers, body)
    }

    /// `GET path` so many times; what Larder told of each, see [`told`].
    pub fn told(&self, path: &str, headers: &[(&str, &str)], times: usize) -> Vec<String> {
        (0..times).map(|_| told(&self.get(path, headers))).collect()
    }
}

/// Header fields as a test writes them down.
pub type Lines<'a> = &'a [(&'a str, &'a str)];

/// The host that requests name.
pub const HOST: &str = "api.test";

/// A configuration in front of `origin`; `more` as in [`Front::with`].
pub fn configuration(origin: &Origin, more: &str) -> String {
    format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"off\"\nworkers = 2\n\n[upstream.api]\nservers = [\"{}\"]\n\n{more}\n",
        origin.url()
    )
}

/// `X-Cache` and Larder's member of `Cache-Status` without its `ttl`, such as
/// `HIT larder; hit; detail=memory`.
pub fn told(response: &Response) -> String {
    let status = cache_status(response);
    let kept: Vec<&str> = status.split("; ").filter(|part| !part.starts_with("ttl=")).collect();
    format!("{} {}", response.header("x-cache"), kept.join("; ")).trim_start().to_owned()
}

/// Larder's member of `Cache-Status`: the last one.
pub fn cache_status(response: &Response) -> String {
    response.headers.all("cache-status").last().expect("every response has a Cache-Status").to_owned()
}

/// The `ttl` of `Cache-Status`; panics where there is none.
pub fn ttl(response: &Response) -> i64 {
    let status = cache_status(response);
    let text = status.split("; ").find_map(|part| part.strip_prefix("ttl="));
    text.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no ttl in {status:?}"))
}

/// `Age` in seconds; panics where there is none.
pub fn age(response: &Response) -> u64 {
    let text = response.header("age");
    text.parse().unwrap_or_else(|_| panic!("Age: {text:?}"))
}

/// What Larder tells of an answer from memory.
pub const HIT: &str = "HIT larder; hit; detail=memory";
/// Of one from memory past its lifetime, while it is refreshed.
pub const STALE: &str = "STALE larder; hit; detail=memory";
/// Of a cold key whose answer is stored.
pub const STORED: &str = "MISS larder; fwd=uri-miss; stored";
