//! Settings of `[route.cache]` that are good, and dangerous, or that do nothing.
//!
//! Knows what each risks, and what to write instead. One is a warning where the file says it, never by default.
//! Must not know: the caching rules.

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE};

use super::problems::Found;
use super::section::Section;
use super::{Edits, KEPT_IN_REDIS, Lint};
use crate::rules::{Authorization, Cookies, Policy, SetCookie, Ttl};
use crate::stored::Glob;

/// Warns of what one user's answer could reach others by; not where `edits` keep from the origin who the user is.
pub(super) fn check(section: &Section<'_>, policy: &Policy, edits: &Edits) {
    let hidden =
        |name: HeaderName| edits.remove.contains(&name) || edits.set.iter().any(|(set, _)| *set == name);
    let warn = |lint: Lint, is_so: bool, key: &str, message: &str, help: &str| {
        if let Some(span) = section.span_of(key).filter(|_| is_so) {
            section.reader.report(Found::warning(lint, span, message).help(help));
        }
    };
    warn(
        Lint::SharedCredentials,
        policy.authorization == Authorization::Share && !hidden(AUTHORIZATION),
        "authorization",
        "what one user's credentials are answered is stored, and served to everybody, those without any included",
        "write \"per-credential\", or take `Authorization` out by request_headers.remove, if the origin needs none",
    );
    warn(
        Lint::IgnoredCookies,
        policy.cookies == Cookies::Ignore && !hidden(COOKIE),
        "cookies",
        "what a request with a cookie is answered, such as a page for one who is logged in, is served to everybody",
        "list those that matter, such as [\"lang\"], or take `Cookie` out by request_headers.remove",
    );
    warn(
        Lint::KeptCookies,
        policy.set_cookie == SetCookie::Keep,
        "set_cookie",
        "a cookie that the origin sets for one client, such as a session, is given to everybody",
        "write \"strip\" to store the answer without it",
    );
    warn(
        Lint::NoDeceptionGuard,
        !policy.deception_guard,
        "deception_guard",
        "a link to /account/x.css has one user's account stored, where the origin takes it for /account",
        "leave it out, unless files of such names truly have other types here",
    );
    warn(
        Lint::CachedPost,
        policy.methods.post,
        "methods",
        "a POST that is answered from the cache does not reach the origin: what it should change is not changed",
        "list POST only where every POST of this route only reads, such as a search",
    );
    warn(
        Lint::NeverStores,
        policy.methods.head && !policy.methods.get && !policy.methods.with_content(),
        "methods",
        "a HEAD is answered from what a GET has brought: without GET nothing is ever stored",
        "add \"GET\", or write cache = false in place of [route.cache]",
    );
    check_windows(section, policy);
    let windows = [
        ("stale_while_revalidate", policy.stale_while_revalidate),
        ("stale_if_error", policy.stale_if_error),
        ("stale_if_disconnected", policy.stale_if_disconnected),
    ];
    for (key, window) in windows {
        warn(
            Lint::BeyondRedis,
            section.reader.has_redis.get() && window.is_some_and(|window| window > KEPT_IN_REDIS),
            key,
            "Redis keeps nothing for longer than 7 days: past that, what is stale is in no node's reach but those \
             whose memory still holds it",
            "write at most \"7d\"",
        );
    }
}

/// Warns of a lifetime in place of one that the origin denies: `max-age=0` and the like are how most servers mark one
/// user's answer, and where such answers are shared, nothing else keeps them from everybody. Where the route pays heed
/// to credentials, the override does not hold for what they were answered.
pub(super) fn check_override(section: &Section<'_>, ttl: &Section<'_>, policy: &Policy, edits: &Edits) {
    let hidden =
        |name: HeaderName| edits.remove.contains(&name) || edits.set.iter().any(|(set, _)| *set == name);
    let shares = [
        ("authorization", policy.authorization == Authorization::Share && !hidden(AUTHORIZATION)),
        ("cookies", matches!(policy.cookies, Cookies::Ignore | Cookies::Key(_)) && !hidden(COOKIE)),
        ("set_cookie", matches!(policy.set_cookie, SetCookie::Keep | SetCookie::Strip)),
    ];
    let shared = shares.into_iter().find_map(|(key, is_so)| section.span_of(key).filter(|_| is_so));
    let (Some(span), Some(shared)) = (ttl.span_of("override"), shared) else { return };
    let what =
        "what the origin marks as one user's by max-age=0 and the like is stored, and served to everybody";
    let found =
        Found::warning(Lint::OverriddenPrivate, span, what).also(shared, "here such answers are shared");
    section.reader.report(found.help("write ttl.default, which leaves the origin its word, or share less"));
}

/// Windows for stale answers that lie within another: they never decide anything.
fn check_windows(section: &Section<'_>, policy: &Policy) {
    let windows = [
        (
            ("stale_if_error", policy.stale_if_error),
            ("stale_while_revalidate", policy.stale_while_revalidate),
            "a stale answer is given for that long anyway, while it is fetched anew",
        ),
        (
            ("stale_if_disconnected", policy.stale_if_disconnected),
            ("stale_if_error", policy.stale_if_error),
            "an origin that cannot be reached is an error, too, and for that this is as long or longer",
        ),
    ];
    for ((key, short), (other, long), why) in windows {
        let is_within = short.zip(long).is_some_and(|(short, long)| !short.is_zero() && short <= long);
        let (Some(span), Some(around)) = (section.span_of(key).filter(|_| is_within), section.span_of(other))
        else {
            continue;
        };
        let found = Found::warning(Lint::StaleNever, span, format!("`{key}` never applies: {why}"));
        let help = format!("write more than what `{other}` is, or leave this out");
        section.reader.report(found.help(help).also(around, "the one around it"));
    }
}

/// A default that is longer than the most: it never holds.
pub(super) fn check_ttl(section: &Section<'_>, ttl: &Ttl) {
    let Some(max) = ttl.max else { return };
    for (key, written) in [("default", ttl.default), ("override", ttl.r#override)] {
        let Some(span) = section.span_of(key).filter(|_| written.is_some_and(|written| written > max)) else {
            continue;
        };
        let found = Found::warning(
            Lint::TtlBeyondMax,
            span,
            format!("no lifetime is longer than `ttl.max`: `ttl.{key}` never holds"),
        );
        let found = found.help("write at most what `ttl.max` is, or raise that");
        section.reader.report(match section.span_of("max") {
            Some(max) => found.also(max, "the shorter one"),
            None => found,
        });
    }
}

/// A pattern of query arguments that leaves none in the key; `Some` with its danger.
pub(super) fn merges_every_query(glob: &Glob) -> Option<(&'static str, &'static str)> {
    glob.as_str().chars().all(|c| c == '*').then_some((
        "no argument of a query is part of the key: the answer to one query is served to all others of its path",
        "name those that change nothing, such as \"utm_*\"",
    ))
}
