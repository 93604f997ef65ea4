//! `[[route]]`: name, match, upstream, header edits.
//!
//! Knows these keys, that names are unique, that an upstream must exist, and that a route behind
//! one that takes everything is a mistake.
//! Must not know: what is done with a request.

use std::collections::HashMap;
use std::time::Duration;

use http::Method;
use toml::de::DeValue;

use super::problems::Found;
use super::reader::{Reader, Span, Text, Value, one_of};
use super::route_match::Earlier;
use super::section::Section;
use super::upstreams::check_name;
use super::{HostPattern, Match, PathPattern, Route, Upstream};
use super::{address, check, defaults, edits, route_cache, route_compress, route_rate, route_tags};

/// What is known of the routes that were read, for what they mean for each other.
#[derive(Default)]
struct Seen {
    /// Where each name stands first.
    names: HashMap<String, Span>,
    /// Name and place of each that is in `matchers`.
    list: Vec<(String, Span)>,
    /// Without those that have a mistake: they would give wrong answers about what shadows what.
    matchers: Earlier,
}

/// Reads every route, in the file's order. One with mistakes may be left out.
pub(super) fn read(
    top: &mut Section<'_>,
    upstreams: &[Upstream],
    slow_request: Option<Duration>,
) -> Vec<Route> {
    let (mut routes, mut seen) = (Vec::new(), Seen::default());
    let value = top.value("route");
    // Behind a slip in `[[route]]`, `[route.cache]` is a table of its own: the slip is told.
    let is_behind_a_slip = top.span_of("routes").is_some() && value.is_some_and(|v| v.get_ref().is_table());
    for value in value.filter(|_| !is_behind_a_slip).map(|v| tables(top.reader, v)).unwrap_or_default() {
        let Some(section) = top.section_of("route", value) else { continue };
        routes.extend(route(section, upstreams, slow_request, &mut seen));
    }
    if value.is_none() || value.is_some_and(|v| v.get_ref().as_array().is_some_and(|list| list.is_empty())) {
        top.missing("route", "write [[route]] with its name, match and upstream");
    }
    routes
}

fn tables<'a>(reader: &Reader<'_>, value: &'a Value<'a>) -> Vec<&'a Value<'a>> {
    match value.get_ref() {
        DeValue::Array(list) => list.iter().collect(),
        DeValue::Table(_) => {
            reader.report(
                Found::new(value.span(), "routes are a list").help("write [[route]], with two brackets"),
            );
            Vec::new()
        }
        _ => {
            reader.wrong_type(value, "a list of tables, such as [[route]]");
            Vec::new()
        }
    }
}

fn route(
    mut section: Section<'_>,
    upstreams: &[Upstream],
    slow_request: Option<Duration>,
    seen: &mut Seen,
) -> Option<Route> {
    let line = section.reader.line(&section.span);
    let name = name(&mut section, seen);
    let matcher = matcher(&mut section);
    let upstream = upstream(&mut section, upstreams);
    let max_body = max_body(&mut section);
    let request_buffer = section.size_or_none("request_buffer", defaults::REQUEST_BUFFER);
    let request_headers = edits::read(&mut section, "request_headers");
    let response_headers = edits::read(&mut section, "response_headers");
    let tags = route_tags::read(&mut section);
    let cache = route_cache::read(&mut section, &request_headers);
    let compress = route_compress::read(&mut section);
    let upgrade = section.flag("upgrade", false);
    let slow_request = check::slow_request(&mut section, slow_request);
    let rate_limits = route_rate::read(&mut section);
    let match_span = section.span_of("match");
    let reader = section.reader;
    section.finish();
    let (name, name_span) = name?;
    if let Some((matcher, span)) = matcher.clone().zip(match_span) {
        check_shadow(reader, (&name, &matcher, &span), seen);
        seen.matchers.add(matcher);
        seen.list.push((name.clone(), span));
    }
    seen.names.entry(name.clone()).or_insert(name_span);
    let (matcher, upstream) = (matcher?, upstream?);
    let tags = route_tags::of_route(tags, &name);
    Some(Route {
        name,
        matcher,
        upstream,
        max_body,
        request_buffer,
        request_headers,
        response_headers,
        tags,
        cache,
        compress,
        upgrade,
        slow_request,
        rate_limits,
        line,
    })
}

fn name(section: &mut Section<'_>, seen: &Seen) -> Option<(String, Span)> {
    let Some(text) = section.text("name") else {
        if section.span_of("name").is_none() {
            section.missing("name", "write name = \"…\": its label in metrics, logs and headers");
        }
        return None;
    };
    check_name(section.reader, text.span.clone(), &text.value);
    if let Some(first) = seen.names.get(&text.value) {
        let found = Found::new(text.span.clone(), format!("two routes are named `{}`", text.value));
        section.reader.report(found.help("write another name").also(first.clone(), "the first"));
    }
    Some((text.value, text.span))
}

/// A size, or "off".
fn max_body(section: &mut Section<'_>) -> u64 {
    match section.span_of("max_body").map(|span| section.reader.written(&span)) {
        Some("\"off\"") => {
            section.value("max_body");
            u64::MAX
        }
        _ => section.size(
            "max_body",
            defaults::MAX_BODY,
            "write \"off\" for no limit; to take no bodies, match methods",
        ),
    }
}

fn upstream(section: &mut Section<'_>, upstreams: &[Upstream]) -> Option<usize> {
    let Some(text) = section.text("upstream") else {
        if section.span_of("upstream").is_none() {
            section.missing("upstream", "write upstream = \"…\": the name of an [upstream.…]");
        }
        return None;
    };
    let index = upstreams.iter().position(|u| u.name == text.value);
    if index.is_none() {
        let help = match upstreams.is_empty() {
            true => format!("write [upstream.{}] with its servers", text.value),
            false => one_of(&text.value, upstreams.iter().map(|u| u.name.as_str())),
        };
        section.reader.refuse(&text, format!("there is no upstream `{}`", text.value), help);
    }
    index
}

/// Refuses a route that earlier ones leave nothing.
fn check_shadow(reader: &Reader<'_>, (name, matcher, span): (&str, &Match, &Span), seen: &Seen) {
    let Some(by) = seen.matchers.shadow(matcher) else { return };
    let by: Vec<_> = by.iter().filter_map(|i| seen.list.get(*i)).collect();
    let Some((first, first_span)) = by.first() else { return };
    let found = Found::new(span.clone(), format!("route `{name}` can never match"));
    let label = match by.len() {
        1 => format!("`{}` stands earlier and takes all that it would take", first),
        _ => format!("`{}` stands earlier and takes part of it", first),
    };
    let names: Vec<String> = by.iter().map(|(name, _)| format!("`{name}`")).collect();
    let found = found.help(format!("move it before {}", names.join(" and "))).also(first_span.clone(), label);
    reader.report(found.note("the first matching route wins"));
}

fn matcher(section: &mut Section<'_>) -> Option<Match> {
    let all = "write match = { path = \"/*\" } for everything";
    if section.span_of("match").is_none() {
        section.value("match");
        section.missing("match", all);
        return None;
    }
    let mut part = section.section("match")?;
    let (reader, span) = (part.reader, part.span.clone());
    let before = reader.count();
    let matcher = Match {
        paths: part.texts("path").map(|t| patterns(reader, &t, path)).unwrap_or_default(),
        regex: part.text("regex").and_then(|text| regex(reader, &text)),
        hosts: part.texts("host").map(|t| patterns(reader, &t, host)).unwrap_or_default(),
        methods: part.texts("method").map(|t| patterns(reader, &t, method)).unwrap_or_default(),
    };
    check_parts(&part);
    part.finish();
    let empty = matcher.paths.is_empty() && matcher.hosts.is_empty() && matcher.methods.is_empty();
    if empty && matcher.regex.is_none() && reader.count() == before {
        reader.report(Found::new(span, "`match` says nothing").help(all));
    }
    // A match with a mistake would give wrong answers about what shadows what.
    (reader.count() == before).then_some(matcher)
}

fn check_parts(part: &Section<'_>) {
    if let (Some(path), Some(regex)) = (part.span_of("path"), part.span_of("regex")) {
        let found = Found::new(regex, "a route has either `path` or `regex`");
        part.reader.report(found.help("leave out one of them").also(path, "here is `path`"));
    }
    for key in ["path", "host", "method"] {
        if let Some(span) = part.span_of(key).filter(|_| part.is_empty_list(key)) {
            let found = Found::new(span, format!("an empty `{key}` would match nothing"));
            part.reader.report(found.help("leave it out for any"));
        }
    }
}

fn patterns<T>(reader: &Reader<'_>, texts: &[Text], read: fn(&Reader<'_>, &Text) -> Option<T>) -> Vec<T> {
    texts.iter().filter_map(|text| read(reader, text)).collect()
}

fn path(reader: &Reader<'_>, text: &Text) -> Option<PathPattern> {
    let value = text.value.as_str();
    if let Some((message, help)) = path_mistake(value) {
        reader.refuse(text, message, help);
        return None;
    }
    Some(match value.strip_suffix('*') {
        Some(prefix) => PathPattern::Prefix(prefix.to_owned()),
        None => PathPattern::Exact(value.to_owned()),
    })
}

fn path_mistake(value: &str) -> Option<(&'static str, String)> {
    if !value.starts_with('/') {
        return Some(("a path starts with /", format!("write \"/{}\"", value.trim_start_matches('/'))));
    }
    if let Some((path, _)) = value.split_once(['?', '#']) {
        return Some(("only the path is matched, not the query", format!("write \"{path}\"")));
    }
    let body = value.strip_suffix("/*").unwrap_or(value);
    if body.contains('*') {
        let help = "* stands only in a final /*; for more write regex = \"…\" instead of path";
        return Some(("* cannot stand here", help.into()));
    }
    let plain = |b: u8| b.is_ascii_graphic();
    if !value.bytes().all(plain) {
        let encoded: String = value.bytes().map(percent_encoded).collect();
        return Some(("paths arrive percent-encoded", format!("write \"{encoded}\"")));
    }
    None
}

fn percent_encoded(byte: u8) -> String {
    match byte.is_ascii_graphic() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    }
}

fn regex(reader: &Reader<'_>, text: &Text) -> Option<regex_lite::Regex> {
    match regex_lite::Regex::new(&text.value) {
        Ok(regex) => Some(regex),
        Err(why) => {
            reader.refuse(text, "not a regular expression", why.to_string());
            None
        }
    }
}

fn host(reader: &Reader<'_>, text: &Text) -> Option<HostPattern> {
    let value = text.value.to_ascii_lowercase();
    let plain = value.strip_prefix('[').and_then(|v| v.strip_suffix(']')).unwrap_or(&value);
    if plain.parse::<std::net::IpAddr>().is_ok() {
        return Some(HostPattern::Exact(plain.to_owned()));
    }
    let name = plain.strip_prefix("*.").unwrap_or(plain);
    if !address::is_host_name(name) {
        reader.refuse(text, "not a host", host_help(name));
        return None;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    Some(match plain.starts_with("*.") {
        true => HostPattern::Suffix(format!(".{name}")),
        false => HostPattern::Exact(name.to_owned()),
    })
}

fn host_help(name: &str) -> String {
    let before_port = name.rsplit_once(':').map(|(host, _)| host).filter(|h| address::is_host_name(h));
    match before_port {
        Some(host) => format!("write \"{host}\"; the port plays no part"),
        None => "write a name such as \"api.example.com\" or \"*.example.com\"".into(),
    }
}

/// Methods are case-sensitive (RFC 9110 §9.1), and every registered one is in upper case.
fn method(reader: &Reader<'_>, text: &Text) -> Option<Method> {
    let upper = text.value.to_ascii_uppercase();
    let method = Method::from_bytes(upper.as_bytes()).ok();
    if method.is_none() {
        reader.refuse(text, "not a method", "write such as \"GET\"");
    } else if upper != text.value {
        reader.refuse(text, "methods are in upper case", format!("write \"{upper}\""));
    }
    method.filter(|_| upper == text.value)
}
