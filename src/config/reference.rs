//! What the shipped `proxy.toml` says of each setting: where it stands, and a value that is right for it.
//!
//! So that help never knows less, or other, than the reference that people read.
//! Must not know: the file that is being read, or how a mistake is shown.

use std::sync::OnceLock;

use toml::de::{DeTable, DeValue};

use super::SHIPPED;

/// A setting of the shipped file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// Its full name, such as `upstream.NAME.timeout.total`.
    pub(super) path: String,
    /// What the file says for it; nothing for a table with a header of its own.
    pub(super) value: String,
}

impl Setting {
    fn is_table(&self) -> bool {
        self.value.is_empty() || self.value.starts_with('{')
    }
}

/// What the shipped file shows in words alone, or shows empty.
const FURTHER: [(&str, &str); 6] = [
    ("purge_from", "[\"10.0.0.0/8\"]"),
    ("trusted_proxies", "[\"10.0.0.0/8\"]"),
    ("route.compress", "true"),
    ("listen.address", "\"0.0.0.0:8081\""),
    ("listen.proxy_protocol", "true"),
    ("route.rate_limit.by.header", "\"X-Api-Key\""),
];

/// How a setting is turned off where that is not `false`; nothing where it is left out.
const OFF: [(&str, &str); 32] = [
    ("log.trace", "\"off\""),
    ("log.redact", "[]"),
    ("purge_from", "[]"),
    ("admin", "\"off\""),
    ("admin_token", ""),
    ("trusted_proxies", "[]"),
    ("log.level", "\"off\""),
    ("otlp.endpoint", ""),
    ("otlp.headers", ""),
    ("otlp.headers_file", ""),
    ("otlp.attributes", ""),
    ("cache.redis", ""),
    ("cache.redis_secret_file", ""),
    ("cache.verify", "\"off\""),
    ("cache.hit_for_miss", "\"0s\""),
    ("cache.warm_start.keys", "0"),
    ("cache.warm_start.time", "\"0s\""),
    ("timing.slow_request", "\"off\""),
    ("limits.lame_duck", "\"0s\""),
    ("limits.drain", "\"0s\""),
    ("upstream.NAME.timeout.hedge_after", "\"off\""),
    ("upstream.NAME.pool.min_idle", "0"),
    ("upstream.NAME.pool.max_idle", "0"),
    ("upstream.NAME.pool.queue", "0"),
    ("route.max_body", "\"off\""),
    ("route.request_buffer", "\"0B\""),
    ("route.slow_request", "\"off\""),
    ("route.rate_limit", ""),
    ("route.cache.heuristic", "\"off\""),
    ("route.cache.stale_while_revalidate", "\"0s\""),
    ("route.cache.stale_if_error", "\"0s\""),
    ("route.cache.stale_if_disconnected", "\"0s\""),
];

/// Tables that people write as the one value that counts most.
const CHIEF: [(&str, &str); 3] =
    [("route.match", "path"), ("route.rate_limit", "rate"), ("upstream.NAME.timeout", "total")];

/// The tables with a header of their own, the innermost first.
const HEADERS: [&str; 9] = [
    "upstream.NAME.timeout",
    "upstream.NAME.pool",
    "upstream.NAME",
    "route.cache",
    "route",
    "log",
    "cache",
    "timing",
    "limits",
];

/// Every setting, in the file's order.
pub(super) fn settings() -> &'static [Setting] {
    static SETTINGS: OnceLock<Vec<Setting>> = OnceLock::new();
    SETTINGS.get_or_init(read)
}

/// What to write in place of `written`, which is of the wrong type. `in_list`: it is a member of the value.
pub(super) fn instead(path: &str, written: &str, in_list: bool) -> Option<String> {
    let path = general(path);
    if written == "false"
        && let Some((_, off)) = OFF.iter().find(|(known, _)| *known == path)
    {
        return Some(if off.is_empty() { "leave it out".to_owned() } else { format!("write {off}") });
    }
    if written.starts_with('"')
        && let Some((_, chief)) = CHIEF.iter().find(|(known, _)| *known == path)
    {
        return Some(format!("write {{ {chief} = {written} }}"));
    }
    if ["log", "cache", "timing", "limits", "route.cache"].contains(&path.as_str()) {
        return Some(format!("write [{path}] on a line of its own, and what it sets below"));
    }
    let value = example(&path)?;
    let value = if in_list { first_member(&value).unwrap_or(value) } else { value };
    Some(format!("write {value}"))
}

/// A value that is right for a setting, and how to turn it off.
pub(super) fn example_or_off(path: &str) -> Option<String> {
    let path = general(path);
    let value = example(&path)?;
    match OFF.iter().find(|(known, off)| *known == path && off.starts_with('"') && *off != value) {
        Some((_, off)) => Some(format!("{value}, or {off}")),
        None => Some(value),
    }
}

/// Where a key belongs that is not known in the table at `path`, if it is known elsewhere. `is_table`: so its value is.
pub(super) fn belongs(key: &str, path: &str, is_table: bool) -> Option<String> {
    let here = general(path);
    let known = settings().iter().filter(|setting| {
        let (table, name) = setting.path.rsplit_once('.').unwrap_or(("", &setting.path));
        name == key && table != here
    });
    let known: Vec<&Setting> = known.collect();
    // `upstream` of a route is a name, the one beside it a table: whoever writes the one does not mean the other.
    let fits = |setting: &&Setting| setting.path == "route.cache" || setting.is_table() == is_table;
    let one_fits = known.iter().any(&fits);
    // Each table is named once, however many of its settings have such a name.
    let mut places: Vec<(String, Vec<String>)> = Vec::new();
    for setting in known.into_iter().filter(|setting| !one_fits || fits(setting)) {
        let (table, name) = place(setting, &here);
        let name = name.map(|name| format!("`{name}`"));
        match places.iter_mut().find(|(known, names)| *known == table && names.is_empty() == name.is_none()) {
            Some((_, names)) => names.extend(name.filter(|name| !names.contains(name))),
            None => places.push((table, name.into_iter().collect())),
        }
    }
    let told = places.iter().map(|(table, names)| match names.as_slice() {
        [] => table.clone(),
        names => format!("{table}, as {}", names.join(" or ")),
    });
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| format!("it belongs {}", told.join(", or ")))
}

/// Where a setting stands, as seen from the table at `here`; and what it is called there, where that is more than the
/// key.
fn place(setting: &Setting, here: &str) -> (String, Option<String>) {
    if !setting.path.contains('.') && setting.value.is_empty() {
        let header = match setting.path.as_str() {
            "route" => "[[route]]".to_owned(),
            "upstream" => "[upstream.NAME]".to_owned(),
            name => format!("[{name}]"),
        };
        return (format!("in a table of its own, {header}"), None);
    }
    let setting = setting.path.as_str();
    let inside = |table: &&&str| setting.strip_prefix(**table).is_some_and(|rest| rest.starts_with('.'));
    let Some(table) = HEADERS.iter().find(inside) else {
        return match setting.contains('.') {
            true => ("at the top of the file".to_owned(), Some(setting.to_owned())),
            false => ("at the top of the file, above the first [table]".to_owned(), None),
        };
    };
    let name = setting.strip_prefix(*table).map_or(setting, |name| name.trim_start_matches('.'));
    let header = match *table {
        // What follows [route.cache] is part of that.
        "route" if here.starts_with("route.") => "in the [[route]] itself, above any [route.…]".to_owned(),
        "route" => "in a [[route]]".to_owned(),
        table => format!("in [{table}]"),
    };
    (header, name.contains('.').then(|| name.to_owned()))
}

/// A value that is right for a setting; of a table with a header, the beginning of what it may hold.
fn example(path: &str) -> Option<String> {
    if let Some((_, value)) = FURTHER.iter().find(|(known, _)| *known == path) {
        return Some((*value).to_owned());
    }
    if let Some(setting) = settings().iter().find(|setting| setting.path == path && !setting.value.is_empty())
    {
        return Some(setting.value.clone());
    }
    let members = settings().iter().filter_map(|setting| {
        let name = setting.path.strip_prefix(path)?.strip_prefix('.')?;
        (!name.contains('.') && !setting.value.is_empty()).then(|| format!("{name} = {}", setting.value))
    });
    let members: Vec<String> = members.take(3).collect();
    (!members.is_empty()).then(|| format!("{{ {} }}", members.join(", ")))
}

/// The first member of a list as it is written.
fn first_member(list: &str) -> Option<String> {
    let text = format!("list = {list}");
    let table = DeTable::parse(&text).ok()?;
    let span = table.get_ref().get("list")?.get_ref().as_array()?.iter().next()?.span();
    text.get(span).map(str::to_owned)
}

/// A full name with `NAME` for that of an upstream, which may hold dots itself.
fn general(path: &str) -> String {
    let Some(rest) = path.strip_prefix("upstream.") else { return path.to_owned() };
    let ends = settings().iter().filter_map(|setting| setting.path.strip_prefix("upstream.NAME"));
    let end = ends.filter(|end| rest.ends_with(end)).max_by_key(|end| end.len());
    format!("upstream.NAME{}", end.unwrap_or(""))
}

fn read() -> Vec<Setting> {
    let text = uncommented();
    let mut settings = Vec::new();
    // That it can be read, a test holds.
    if let Ok(file) = DeTable::parse(&text) {
        walk(&text, file.get_ref(), "", &mut settings);
    }
    let further = FURTHER.iter().map(|(path, value)| ((*path).to_owned(), (*value).to_owned()));
    for (path, value) in further {
        if !settings.iter().any(|known: &Setting| known.path == path) {
            settings.push(Setting { path, value });
        }
    }
    settings
}

/// Every setting of a table, and of what is within; the first of each name.
fn walk(text: &str, table: &DeTable<'_>, path: &str, settings: &mut Vec<Setting>) {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        let name = if path == "upstream" { "NAME" } else { key.get_ref() };
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let written = text.get(value.span()).unwrap_or("");
        let is_list_of_tables =
            value.get_ref().as_array().is_some_and(|list| list.iter().any(|v| v.get_ref().is_table()));
        let is_header = value.get_ref().is_table() && !written.starts_with('{') || is_list_of_tables;
        let shown = if is_header { String::new() } else { written.to_owned() };
        if !settings.iter().any(|known| known.path == path) {
            settings.push(Setting { path: path.clone(), value: shown });
        }
        match value.get_ref() {
            // A table of field names is no table of settings.
            DeValue::Table(inner) if !["set", "headers", "attributes"].contains(&name) => {
                walk(text, inner, &path, settings)
            }
            DeValue::Array(list) => {
                list.iter()
                    .filter_map(|member| member.get_ref().as_table())
                    .for_each(|inner| walk(text, inner, &path, settings));
            }
            _ => {}
        }
    }
}

/// The shipped file with every setting that is commented out made active.
pub(super) fn uncommented() -> String {
    let setting = |line: &str| {
        let key = line.split(" = ").next().unwrap_or("");
        line.contains(" = ") && key.chars().all(|c| c.is_ascii_alphanumeric() || "_.".contains(c))
    };
    let line = |line: &str| match line.strip_prefix("# ") {
        Some(rest) if setting(rest) || rest.starts_with("[[") => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    SHIPPED.lines().map(line).collect()
}
