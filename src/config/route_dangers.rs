//! Settings of `[route.cache]` that are good, and dangerous, or that do nothing.
//!
//! Knows what each risks, and what to write instead. One is a warning where the file says it, never by default.
//! Must not know: the caching rules.

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE};

use super::Edits;
use super::problems::Found;
use super::section::Section;
use crate::rules::{Authorization, Cookies, Policy, SetCookie, Ttl};
use crate::stored::Glob;

/// Warns of what one user's answer could reach others by; not where `edits` keep from the origin who the user is.
pub(super) fn check(section: &Section<'_>, policy: &Policy, edits: &Edits) {
    let hidden =
        |name: HeaderName| edits.remove.contains(&name) || edits.set.iter().any(|(set, _)| *set == name);
    let warn = |is_so: bool, key: &str, message: &str, help: &str| {
        if let Some(span) = section.span_of(key).filter(|_| is_so) {
            section.reader.report(Found::warning(span, message).help(help));
        }
    };
    warn(
        policy.authorization == Authorization::Share && !hidden(AUTHORIZATION),
        "authorization",
        "what one user's credentials are answered is stored, and served to everybody, those without any included",
        "write \"per-credential\", or take `Authorization` out by request_headers.remove, if the origin needs none",
    );
    warn(
        policy.cookies == Cookies::Ignore && !hidden(COOKIE),
        "cookies",
        "what a request with a cookie is answered, such as a page for one who is logged in, is served to everybody",
        "list those that matter, such as [\"lang\"], or take `Cookie` out by request_headers.remove",
    );
    warn(
        policy.set_cookie == SetCookie::Keep,
        "set_cookie",
        "a cookie that the origin sets for one client, such as a session, is given to everybody",
        "write \"strip\" to store the answer without it",
    );
    warn(
        !policy.deception_guard,
        "deception_guard",
        "a link to /account/x.css has one user's account stored, where the origin takes it for /account",
        "leave it out, unless files of such names truly have other types here",
    );
    warn(
        policy.methods.post,
        "methods",
        "a POST that is answered from the cache does not reach the origin: what it should change is not changed",
        "list POST only where every POST of this route only reads, such as a search",
    );
}

/// A default that is longer than the most: it never holds.
pub(super) fn check_ttl(section: &Section<'_>, ttl: &Ttl) {
    let Some(max) = ttl.max else { return };
    for (key, written) in [("default", ttl.default), ("override", ttl.r#override)] {
        let Some(span) = section.span_of(key).filter(|_| written.is_some_and(|written| written > max)) else {
            continue;
        };
        let found =
            Found::warning(span, format!("no lifetime is longer than `ttl.max`: `ttl.{key}` never holds"));
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
