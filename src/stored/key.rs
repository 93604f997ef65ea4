//! The cache key: one text per stored resource, and its hashes.
//!
//! Knows how a URL is normalised (RFC 9111 §2: "the primary cache key is composed from, at a
//! minimum, the request method and target URI"; a GET's method is left out, another's is part of it
//! with the content) and which request fields a route adds. The same request gives the same text and
//! the same hashes on every node of a fleet: nothing here is seeded.
//! Must not know: where a route's key policy was written, or how a tier uses the hashes. What the
//! origin sees is never changed by a key.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method, Uri, header};
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::{xxh3_128, xxh3_128_with_seed};

use super::Glob;
use crate::fields::no_vary_search::NoVarySearch;
use crate::fields::{accept, path, query};
use crate::pieces;

/// What a route adds to the key, and what it leaves out of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPolicy {
    /// Query arguments whose name matches any of these are left out of the key.
    pub ignore_query: Vec<Glob>,
    /// Request fields whose values are part of the key.
    pub headers: Vec<HeaderName>,
    /// Cookies whose values are part of the key.
    pub cookies: Vec<String>,
    /// The `Authorization` field is part of the key, as a digest.
    pub per_credential: bool,
    /// What `.` and `..` segments of a path mean.
    pub dot_segments: DotSegments,
    /// What slashes in a row mean.
    pub slashes: Slashes,
}

/// What `.` and `..` segments of a path mean. Origins differ: some resolve them, also where they are
/// written `%2e%2e%2f` or `..;`, some take them for names, some redirect. The origin always sees the
/// path as received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DotSegments {
    /// Such a request does not use the cache: which resource it means, and so which route's rules hold
    /// for it, is the origin's to say.
    #[default]
    Bypass,
    /// They are resolved in the key (RFC 3986 §5.2.4). In a writing that not every server resolves, the
    /// request does not use the cache. Where an origin does not resolve them, anybody can have its
    /// answer to `/x/../y` stored as that to `/y`.
    Resolve,
    /// They are part of the key as received. Where an origin resolves them, such a path passes by the
    /// rules of the route that is meant for the resource.
    Keep,
}

/// What slashes in a row mean. The origin always sees the path as received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slashes {
    /// They are part of the key as received (RFC 3986 §3.3: a segment may be empty).
    #[default]
    Keep,
    /// They count as one in the key. Where an origin tells them apart, anybody can have its answer to
    /// `//y` stored as that to `/y`.
    Merge,
}

/// The key of a stored resource: the normalised URL, and the request fields a route adds. A clone shares the text.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct CacheKey {
    /// The URL, and where there are extras, NUL and these. A URL holds no NUL, so the text stands for exactly one pair.
    text: Arc<str>,
    /// In halves: a `u128` would have all that holds a key lie at multiples of 16, for which allocators take longer.
    hash: [u64; 2],
}

thread_local! {
    /// Where a text is put together, so that a key takes one piece of memory and not two.
    static DRAFT: Cell<String> = const { Cell::new(String::new()) };
}

/// Bytes that a draft keeps for the next key.
const DRAFT_ROOM: usize = 16 * 1024;

impl KeyPolicy {
    /// Whether one URL may have several keys: request fields are part of them.
    pub fn has_extras(&self) -> bool {
        !self.headers.is_empty() || !self.cookies.is_empty() || self.per_credential
    }

    /// Whether the route leaves an argument of a query out. Not one in which an origin may find more than this
    /// one: `utm_source=x;id=1` is two arguments to some.
    pub fn ignores(&self, argument: &str) -> bool {
        let name = query::name(argument);
        self.ignore_query.iter().any(|glob| glob.matches(name)) && !query::is_divided_otherwise(argument)
    }

    /// A path as the key has it.
    pub fn path<'a>(&self, path: &'a str) -> Cow<'a, str> {
        let merged = match self.slashes {
            Slashes::Keep => Cow::Borrowed(path),
            Slashes::Merge => path::merge_slashes(path),
        };
        match (self.dot_segments, merged) {
            (DotSegments::Resolve, Cow::Borrowed(path)) => path::resolve(path),
            (DotSegments::Resolve, Cow::Owned(path)) => Cow::Owned(path::resolve(&path).into_owned()),
            (DotSegments::Bypass | DotSegments::Keep, merged) => merged,
        }
    }

    /// Whether a path, [as the key has it](Self::path), may mean another one to the origin, so that
    /// it must not use the cache.
    pub fn refuses(&self, path: &str) -> bool {
        self.dot_segments != DotSegments::Keep && path::has_dot_segment(path)
    }
}

impl CacheKey {
    /// The key of a request. `scheme` and `authority` are compared without case and the scheme's
    /// default port is dropped (RFC 9110 §4.2.3); the path stays as received, but for what the route
    /// makes of dot segments and slashes; query arguments are split at `&`, those that the route
    /// ignores are dropped and the rest is sorted by name. Arguments keep their order whose names any
    /// origin may take for one (`a`, `A`, `%61`, `a[]`), and so do all of a query that origins divide
    /// in different ways: then order may mean something. An empty query is not none: origins may tell
    /// the two apart.
    pub fn of(
        scheme: &str,
        authority: &str,
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
        policy: &KeyPolicy,
    ) -> Self {
        let mut text = DRAFT.take();
        text.clear();
        push_url(&mut text, scheme, authority, path, query, policy);
        let url = text.len();
        text.push('\0');
        push_extras(&mut text, headers, policy);
        if text.len() == url + 1 {
            text.truncate(url);
        }
        let key = Self::of_text(&text);
        if text.capacity() <= DRAFT_ROOM {
            DRAFT.set(text);
        }
        key
    }

    fn of_text(text: &str) -> Self {
        let hash = xxh3_128(text.as_bytes());
        Self { hash: [(hash >> 64) as u64, hash as u64], text: text.into() }
    }

    /// The key of an absolute URL with no extras, for purging; `None` when it is not one.
    pub fn of_url(url: &str, policy: &KeyPolicy) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?;
        let authority = uri.authority()?.as_str();
        let mut text = String::new();
        push_url(&mut text, scheme, authority, uri.path(), uri.query(), policy);
        Some(Self::of_text(&text))
    }

    /// The same, with the method, content and content fields of a request (RFC 10008), as a digest that
    /// nobody can make two contents have. The bytes are taken as they are: what means the same and is
    /// written otherwise has another key.
    pub fn with_content(&self, method: &Method, headers: &HeaderMap, content: &[u8]) -> Self {
        let mut digest = Sha256::new();
        for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE] {
            // A field value holds neither 0 nor 1: lines, fields and content stay apart.
            headers.get_all(name).iter().for_each(|line| {
                digest.update(line.as_bytes().trim_ascii());
                digest.update([1]);
            });
            digest.update([0]);
        }
        digest.update(content);
        let mut extras = format!("{}b:{method}:", self.extras());
        digest.finalize().iter().for_each(|byte| extras.push_str(&format!("{byte:02x}")));
        extras.push(';');
        Self::from_parts(self.url(), &extras)
    }

    /// From texts that [`url`](Self::url) and [`extras`](Self::extras) once gave.
    pub fn from_parts(url: &str, extras: &str) -> Self {
        if extras.is_empty() { Self::of_text(url) } else { Self::of_text(&format!("{url}\0{extras}")) }
    }

    /// The normalised URL.
    pub fn url(&self) -> &str {
        self.text.split_once('\0').map_or(&self.text, |(url, _)| url)
    }

    /// URL and extras in one.
    pub(super) fn text(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// The origin (RFC 9110 §4.3.1): scheme and authority, as the URL begins.
    pub fn origin(&self) -> &str {
        let url = self.url();
        let authority = url.find("://").map_or(0, |at| at + 3);
        let end = url.get(authority..).and_then(|rest| rest.find(['/', '?']));
        end.and_then(|end| url.get(..authority + end)).unwrap_or(url)
    }

    /// The key of everything at this path that is the same under a rule for its query
    /// (`No-Vary-Search`). It begins with what is no other key's URL: none has a fragment.
    pub fn searched(&self, rule: &NoVarySearch) -> Self {
        let (path, query) = self.url().split_once('?').unwrap_or((self.url(), ""));
        let mut extras = String::from(SEARCHED);
        rule.canonical(query).bytes().for_each(|byte| push_escaped(&mut extras, byte));
        extras.push(';');
        extras.push_str(self.extras());
        Self::from_parts(&format!("{path}?#"), &extras)
    }

    /// Whether what is stored under `key`, and has this rule, is for requests of this exact key.
    pub fn leads_to(&self, key: &Self, rule: Option<&NoVarySearch>) -> bool {
        match rule.filter(|_| key.is_searched()) {
            Some(rule) => self.searched(rule) == *key,
            None => self == key,
        }
    }

    /// Whether [`searched`](Self::searched) made it.
    pub fn is_searched(&self) -> bool {
        self.extras().starts_with(SEARCHED)
    }

    /// The path, without the origin before it and the query behind.
    pub fn path(&self) -> &str {
        let path = self.url().get(self.origin().len()..).unwrap_or_default();
        path.split('?').next().unwrap_or_default()
    }

    /// The request fields that the route adds, as text; empty where it adds none.
    pub fn extras(&self) -> &str {
        self.text.split_once('\0').map_or("", |(_, extras)| extras)
    }

    /// xxh3-128 of the URL alone: what a purge of the URL names.
    pub fn url_hash(&self) -> u128 {
        match self.url() {
            url if url.len() == self.text.len() => self.hash(),
            url => xxh3_128(url.as_bytes()),
        }
    }

    /// xxh3-128 of URL and extras. Not safe against somebody who seeks collisions, so whoever
    /// finds something by it compares the texts.
    pub fn hash(&self) -> u128 {
        let [high, low] = self.hash;
        u128::from(high) << 64 | u128::from(low)
    }

    /// Bytes of memory beside itself, shared by its clones.
    pub fn weight(&self) -> usize {
        pieces::of((2 * size_of::<usize>()).saturating_add(self.text.len()))
    }
}

impl PartialEq for CacheKey {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.text == other.text
    }
}

impl Eq for CacheKey {}

/// Into a text that is empty.
fn push_url(
    text: &mut String,
    scheme: &str,
    authority: &str,
    path: &str,
    query: Option<&str>,
    policy: &KeyPolicy,
) {
    let authority = without_default_port(scheme, authority);
    text.reserve(
        scheme.len() + 3 + authority.len() + path.len() + query.map_or(0, |query| query.len() + 1) + 1,
    );
    text.push_str(scheme);
    text.push_str("://");
    text.push_str(authority);
    text.make_ascii_lowercase();
    text.push_str(&policy.path(path));
    push_query(text, query, policy);
}

/// RFC 9110 §4.2.3: "a port that is the default for the scheme, or empty, is normally omitted".
fn without_default_port<'a>(scheme: &str, authority: &'a str) -> &'a str {
    let colon =
        authority.bytes().rposition(|byte| byte == b':').and_then(|at| authority.split_at_checked(at));
    let Some((host, port)) = colon.and_then(|(host, port)| Some((host, port.strip_prefix(':')?))) else {
        return authority;
    };
    let default = match port {
        "" => true,
        "80" => scheme.eq_ignore_ascii_case("http"),
        "443" => scheme.eq_ignore_ascii_case("https"),
        _ => false,
    };
    if default { host } else { authority }
}

fn push_query(text: &mut String, query: Option<&str>, policy: &KeyPolicy) {
    let Some(query) = query else { return };
    if policy.ignore_query.is_empty() && !query.contains('&') {
        text.push('?');
        text.push_str(query);
        return;
    }
    let mut arguments: Vec<_> = query.split('&').filter(|argument| !policy.ignores(argument)).collect();
    if !arguments.iter().copied().any(query::is_divided_otherwise) {
        // Stable: arguments of one name keep their order, which may mean something (`?sort=a&sort=b`).
        arguments.sort_by(|one, two| query::folded(one).cmp(query::folded(two)));
    }
    for (nth, argument) in arguments.into_iter().enumerate() {
        text.push(if nth == 0 { '?' } else { '&' });
        text.push_str(argument);
    }
}

/// One item per addition, each ended by `;`, which no escaped value holds, so that different
/// additions never give the same text.
fn push_extras(text: &mut String, headers: &HeaderMap, policy: &KeyPolicy) {
    for name in &policy.headers {
        push_header(text, name, headers);
    }
    for name in &policy.cookies {
        push_cookie(text, name, headers);
    }
    if policy.per_credential {
        push_credential(text, headers);
    }
}

/// `h:name=value;`, or `h:name;` where the request has no such field: absence is a value of its
/// own. Several lines count as one list (RFC 9110 §5.3). `Accept-Encoding` by what it means (§12.5.3),
/// where that can be told.
fn push_header(text: &mut String, name: &HeaderName, headers: &HeaderMap) {
    text.push_str("h:");
    text.push_str(name.as_str());
    if *name == header::ACCEPT_ENCODING
        && headers.contains_key(name)
        && let Some(codings) = accept::codings(headers)
    {
        text.push('=');
        codings.bytes().for_each(|byte| push_escaped(text, byte));
        return text.push(';');
    }
    let mut lines = headers.get_all(name).iter().peekable();
    if lines.peek().is_some() {
        text.push('=');
    }
    for (nth, line) in lines.enumerate() {
        if nth > 0 {
            text.push(',');
        }
        push_normalised(text, line.as_bytes());
    }
    text.push(';');
}

/// Drops the optional white space at both ends and around commas, outside quoted strings. Other white
/// space counts as it is: an origin may tell it apart.
fn push_normalised(text: &mut String, value: &[u8]) {
    let (mut quoted, mut escaped, mut gap, mut start) = (false, false, 0, true);
    for (at, &byte) in value.iter().enumerate() {
        if !quoted && matches!(byte, b' ' | b'\t') {
            gap += 1;
            continue;
        }
        if !start && byte != b',' {
            let gap = value.get(at - gap..at).unwrap_or_default();
            gap.iter().for_each(|byte| push_escaped(text, *byte));
        }
        (gap, start) = (0, byte == b',' && !quoted);
        quoted = if byte == b'"' && !escaped { !quoted } else { quoted };
        escaped = quoted && byte == b'\\' && !escaped;
        push_escaped(text, byte);
    }
}

/// `c:name=value;` for each such cookie in the order received, or `c:name;` where there is none.
fn push_cookie(text: &mut String, name: &str, headers: &HeaderMap) {
    let mut found = false;
    for line in headers.get_all(header::COOKIE) {
        for pair in line.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii) {
            let Some(value) = cookie_value(pair, name) else { continue };
            found = true;
            push_cookie_name(text, name);
            text.push('=');
            value.iter().for_each(|byte| push_escaped(text, *byte));
            text.push(';');
        }
    }
    if !found {
        push_cookie_name(text, name);
        text.push(';');
    }
}

fn push_cookie_name(text: &mut String, name: &str) {
    text.push_str("c:");
    name.bytes().for_each(|byte| push_escaped(text, byte));
}

fn cookie_value<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let rest = pair.strip_prefix(name.as_bytes())?;
    match rest.trim_ascii_start().split_first() {
        Some((b'=', value)) => Some(value.trim_ascii_start()),
        _ => None,
    }
}

/// `a:` and 256 bits of digest, or `a;` where the request carries no credentials. The digest keeps
/// the credentials themselves out of keys and logs and apart from each other; it is not a
/// cryptographic one, so whoever can read the keys in Redis must be trusted with them.
fn push_credential(text: &mut String, headers: &HeaderMap) {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter().peekable();
    if lines.peek().is_none() {
        text.push_str("a;");
        return;
    }
    // A field value holds no NUL: lines joined by it stay apart.
    let all = lines.map(|line| line.as_bytes().trim_ascii()).collect::<Vec<_>>().join(&0);
    let (one, two) =
        (xxh3_128_with_seed(&all, CREDENTIAL_SEEDS.0), xxh3_128_with_seed(&all, CREDENTIAL_SEEDS.1));
    text.push_str(&format!("a:{one:032x}{two:032x};"));
}

/// How the extras of a key begin that stands for several queries.
const SEARCHED: &str = "s:";

/// Fixed for ever: every node must come to the same text.
const CREDENTIAL_SEEDS: (u64, u64) = (0x6c61_7264_6572_2031, 0x6c61_7264_6572_2032);

/// Visible ASCII as it is, but for `%` and `;`; every other byte as `%XX`.
fn push_escaped(text: &mut String, byte: u8) {
    match byte {
        b'%' | b';' => text.push_str(&format!("%{byte:02X}")),
        0x21..=0x7e => text.push(char::from(byte)),
        _ => text.push_str(&format!("%{byte:02X}")),
    }
}

#[cfg(test)]
mod tests;
