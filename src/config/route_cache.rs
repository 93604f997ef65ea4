//! `[route.cache]`: lifetimes, grace, key, cookies, credentials.
//!
//! Knows these keys and their words, and that one `ttl` alone is ambiguous. The defaults are
//! [`Policy`]'s.
//! Must not know: the caching rules.

use http::HeaderName;
use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, COOKIE};

use super::problems::Found;
use super::reader::{Reader, Text, Value, Zero, one_of};
use super::route_dangers;
use super::section::{Section, with_article};
use super::{Edits, Lint, RouteCache};
use crate::rules::{
    Authorization, ClientCacheControl, Cookies, Heuristic, Methods, Normalize, Policy, RangeFetch, SetCookie,
    Ttl,
};
use crate::stored::{DotSegments, Glob, KeyPolicy, Slashes};

/// Reads a route's caching; `edits` are those of what the origin sees. Without a word about it, caching is on with
/// the defaults.
pub(super) fn read(route: &mut Section<'_>, edits: &Edits) -> Option<RouteCache> {
    let Some(value) = route.value("cache") else { return Some(RouteCache::default()) };
    if let Some(on) = value.get_ref().as_bool() {
        return on.then(RouteCache::default);
    }
    if value.get_ref().as_table().is_none() {
        route.reader.wrong_type(value, "false, or a table, [route.cache]");
        return None;
    }
    route.section_of("cache", value).map(|section| cache(section, edits))
}

fn cache(mut section: Section<'_>, edits: &Edits) -> RouteCache {
    let (s, d) = (&mut section, Policy::default());
    let mut key = s.section("key").map(key).unwrap_or_default();
    let cookies = cookies(s).unwrap_or(d.cookies);
    let authorization = authorization(s, d.authorization);
    if let Cookies::Key(names) = &cookies {
        key.cookies.clone_from(names);
    }
    key.per_credential = authorization == Authorization::PerCredential;
    let policy = Policy {
        ttl: s.value("ttl").map(|value| ttl(s, value)).unwrap_or(d.ttl),
        heuristic: s.value("heuristic").map_or(d.heuristic, |value| heuristic(s, value)),
        client_cache_control: client_cache_control(s, d.client_cache_control),
        stale_while_revalidate: s.optional_duration("stale_while_revalidate"),
        stale_if_error: s.optional_duration("stale_if_error"),
        stale_if_disconnected: s.optional_duration("stale_if_disconnected"),
        keep: s.duration("keep", d.keep, Zero::Fine),
        normalize: s.section("vary").map(normalize).unwrap_or(d.normalize),
        cookies,
        authorization,
        set_cookie: set_cookie(s, d.set_cookie),
        range: range(s, d.range),
        methods: methods(s).unwrap_or(d.methods),
        deception_guard: s.flag("deception_guard", d.deception_guard),
    };
    let max = RouteCache::default().max_request_body;
    let max_request_body = s.size("max_request_body", max, "leave QUERY and POST out of `methods` instead");
    let group_invalidation = s.flag("group_invalidation", RouteCache::default().group_invalidation);
    let no_vary_search = s.flag("no_vary_search", RouteCache::default().no_vary_search);
    let fleet_collapse = s.flag("fleet_collapse", RouteCache::default().fleet_collapse);
    route_dangers::check(s, &policy, edits);
    if policy.ttl.r#override.is_some()
        && let Some(ttl) = s.section("ttl")
    {
        route_dangers::check_override(s, &ttl, &policy, edits);
    }
    section.finish();
    RouteCache { key, policy, max_request_body, group_invalidation, no_vary_search, fleet_collapse }
}

fn ttl<'a>(section: &Section<'a>, value: &'a Value<'a>) -> Ttl {
    if value.get_ref().as_table().is_none() {
        section.reader.report(ambiguous_ttl(section.reader, value));
        return Ttl::default();
    }
    let Some(mut part) = section.section_of("ttl", value) else { return Ttl::default() };
    let ttl = Ttl {
        default: part.optional_duration("default"),
        r#override: part.optional_duration("override"),
        max: part.optional_duration("max"),
    };
    route_dangers::check_ttl(&part, &ttl);
    part.finish();
    ttl
}

fn ambiguous_ttl(reader: &Reader<'_>, value: &Value<'_>) -> Found {
    let wanted = reader.written(&value.span()).trim_matches(['"', '\'']);
    let wanted = match super::units::duration(wanted, "s") {
        Ok(_) => wanted.to_owned(),
        Err(_) => "60s".into(),
    };
    Found::new(value.span(), "`ttl` alone does not say which lifetime is meant")
        .help("name one of the three")
        .note(format!("ttl.default = \"{wanted}\"   is for responses of which the origin gives no lifetime"))
        .note(format!("ttl.override = \"{wanted}\"  is used in place of any lifetime that the origin gives"))
        .note(format!("ttl.max = \"{wanted}\"       shortens any lifetime that is longer"))
}

/// `"off"`, or a part of the time since the last change and the most that it may be.
fn heuristic<'a>(section: &Section<'a>, value: &'a Value<'a>) -> Option<Heuristic> {
    let default = Policy::default().heuristic?;
    if value.get_ref().as_table().is_none() {
        let text = section.reader.text(value)?;
        if text.value != "off" {
            let help = "write \"off\", or { percent = 10, max = \"1d\" }";
            section.reader.refuse(&text, "neither \"off\" nor a table", help);
        }
        return None;
    }
    let mut part = section.section_of("heuristic", value)?;
    let percent = part.count("percent", default.percent, 1..=100);
    let max = part.duration("max", default.max, Zero::Refused("write heuristic = \"off\" for none"));
    part.finish();
    Some(Heuristic { percent, max })
}

fn client_cache_control(section: &mut Section<'_>, default: ClientCacheControl) -> ClientCacheControl {
    let words = [("honour", ClientCacheControl::Honour), ("ignore", ClientCacheControl::Ignore)];
    section.word("client_cache_control", default, &words)
}

fn key(mut section: Section<'_>) -> KeyPolicy {
    let globs = section.texts("ignore_query").unwrap_or_default();
    let names = section.texts("headers").unwrap_or_default();
    let dots =
        [("bypass", DotSegments::Bypass), ("resolve", DotSegments::Resolve), ("keep", DotSegments::Keep)];
    let dot_segments = section.word("dot_segments", DotSegments::default(), &dots);
    let words = [("keep", Slashes::Keep), ("merge", Slashes::Merge)];
    let slashes = section.word("slashes", Slashes::default(), &words);
    let reader = section.reader;
    let mut headers: Vec<HeaderName> = Vec::new();
    for name in names.iter().filter_map(|text| key_header(reader, text)) {
        if !headers.contains(&name) {
            headers.push(name);
        }
    }
    section.finish();
    let ignore_query = globs.iter().filter_map(|text| glob(reader, text)).collect();
    KeyPolicy { ignore_query, headers, dot_segments, slashes, ..KeyPolicy::default() }
}

fn normalize(mut section: Section<'_>) -> Normalize {
    let names = section.texts("normalize").unwrap_or_default();
    let reader = section.reader;
    section.finish();
    let mut normalize = Normalize::default();
    for text in &names {
        if text.value.eq_ignore_ascii_case(ACCEPT_LANGUAGE.as_str()) {
            normalize.accept_language = true;
        } else if text.value.eq_ignore_ascii_case(ACCEPT_ENCODING.as_str()) {
            reader.refuse(text, "Accept-Encoding is always taken by its meaning", "leave it out");
        } else {
            reader.refuse(text, "not a field whose meaning is known", "write \"accept-language\"");
        }
    }
    normalize
}

fn glob(reader: &Reader<'_>, text: &Text) -> Option<Glob> {
    if text.value.is_empty() || text.value.contains(['&', '=']) {
        reader.refuse(text, "not the name of a query argument", "write such as \"utm_*\" or \"gclid\"");
        return None;
    }
    let glob = Glob::new(&text.value);
    if let Some((danger, help)) = route_dangers::merges_every_query(&glob) {
        reader.report(Found::warning(Lint::MergedQueries, text.span.clone(), danger).help(help));
    }
    Some(glob)
}

/// Cookies and credentials have settings of their own: as a whole, they would make a key of every
/// visitor without anything being decided about privacy.
fn key_header(reader: &Reader<'_>, text: &Text) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(text.value.as_bytes()).ok();
    let (message, help) = match &name {
        Some(name) if *name == COOKIE => {
            ("cookies have their own setting", "write cookies = [\"…\"] beside `key`")
        }
        Some(name) if *name == AUTHORIZATION => {
            ("credentials have their own setting", "write authorization = \"per-credential\" beside `key`")
        }
        Some(_) => return name,
        None => ("not a field name", "write such as \"Accept-Language\""),
    };
    reader.refuse(text, message, help);
    None
}

const COOKIE_WORDS: [&str; 3] = ["origin", "bypass", "ignore"];

fn cookies(section: &mut Section<'_>) -> Option<Cookies> {
    let value = section.value("cookies")?;
    if value.get_ref().as_array().is_some() {
        return cookie_list(section.reader, value);
    }
    if value.get_ref().as_str().is_none() {
        let kind = with_article(value.get_ref().type_str());
        let found = Found::new(value.span(), format!("expected a word or a list of names, found {kind}"));
        let words = COOKIE_WORDS.map(|word| format!("\"{word}\"")).join(" or ");
        section.reader.report(found.help(format!("write {words}, or a list such as [\"lang\"]")));
        return None;
    }
    let text = section.reader.text(value)?;
    match text.value.as_str() {
        "origin" => return Some(Cookies::Origin),
        "bypass" => return Some(Cookies::Bypass),
        "ignore" => return Some(Cookies::Ignore),
        _ => {}
    }
    let help = one_of(&text.value, COOKIE_WORDS.into_iter());
    let or_list = if help.starts_with("write") { " or a list of names" } else { "" };
    section.reader.refuse(&text, "unknown word", help + or_list);
    None
}

fn cookie_list(reader: &Reader<'_>, value: &Value<'_>) -> Option<Cookies> {
    let mut names: Vec<String> = Vec::new();
    for text in reader.texts(value) {
        // RFC 6265 §4.1.1: a cookie's name is a token, as a method is.
        if http::Method::from_bytes(text.value.as_bytes()).is_err() {
            reader.refuse(&text, "not the name of a cookie", "write such as \"lang\"");
        } else if !names.contains(&text.value) {
            names.push(text.value);
        }
    }
    if value.get_ref().as_array().is_some_and(|list| list.is_empty()) {
        reader.report(Found::new(value.span(), "an empty list of cookies").help("write \"ignore\""));
    }
    (!names.is_empty()).then_some(Cookies::Key(names))
}

/// Methods are case-sensitive (RFC 9110 §9.1).
fn methods(section: &mut Section<'_>) -> Option<Methods> {
    let texts = section.texts("methods")?;
    if let Some(span) = section.span_of("methods").filter(|_| section.is_empty_list("methods")) {
        let found = Found::new(span, "an empty list of methods");
        section.reader.report(found.help("write cache = false in place of [route.cache]"));
    }
    let mut methods = Methods::NONE;
    for text in &texts {
        match Methods::ALL.iter().find(|method| method.as_str() == text.value) {
            Some(method) => methods.insert(method),
            None => {
                let help = one_of(&text.value, Methods::ALL.iter().map(http::Method::as_str));
                section.reader.refuse(text, "not a method that can be cached", help);
            }
        }
    }
    Some(methods)
}

fn authorization(section: &mut Section<'_>, default: Authorization) -> Authorization {
    let words = [
        ("bypass", Authorization::Bypass),
        ("per-credential", Authorization::PerCredential),
        ("share", Authorization::Share),
    ];
    section.word("authorization", default, &words)
}

fn set_cookie(section: &mut Section<'_>, default: SetCookie) -> SetCookie {
    let words = [
        ("origin", SetCookie::Origin),
        ("never", SetCookie::Never),
        ("strip", SetCookie::Strip),
        ("keep", SetCookie::Keep),
    ];
    section.word("set_cookie", default, &words)
}

fn range(section: &mut Section<'_>, default: RangeFetch) -> RangeFetch {
    let words = [("auto", RangeFetch::Auto), ("fill", RangeFetch::Fill), ("part", RangeFetch::Part)];
    section.word("range", default, &words)
}
