//! What of a file is not for showing: tokens, passwords, and whatever stands where one is expected.
//!
//! Works on the text alone, since what is shown most needs it where it is no TOML. In doubt it hides.
//! Must not know: how a line is shown, or what any setting means.

use std::ops::Range;

use super::nearest::nearest;
use crate::fields::claims;

/// Bytes of a line that is looked at, each part of it up to its end; nobody reads a longer one, and it is hidden.
pub(super) const LONGEST: usize = 4096;

/// Stands before all else, and is no text.
pub(super) const BYTE_ORDER_MARK: char = '\u{feff}';

/// What `authorization` and `set_cookie` may say in `[route.cache]`. Anything else may be a field's value.
const WORDS: [&str; 7] = ["bypass", "per-credential", "share", "origin", "never", "strip", "keep"];

/// The stretches that are not shown, in order, none of them touching another.
pub(super) fn secrets(text: &str) -> Vec<Range<usize>> {
    let (mut parts, mut start) = (Vec::new(), 0);
    // Up to where a value hides what stands on the lines behind it; nothing in there is looked at again.
    let mut hidden = 0;
    let mut in_secret_table = false;
    for line in text.split_inclusive('\n') {
        let content = line.trim_end_matches(['\n', '\r']);
        let looked_at = content.get(..content.floor_char_boundary(LONGEST)).unwrap_or(content);
        if content.len() > LONGEST {
            parts.push(start..start + content.len());
        } else {
            parts.extend(user_parts(content).map(|part| start + part.start..start + part.end));
        }
        in_secret_table = header(looked_at).unwrap_or(in_secret_table);
        if in_secret_table && header(looked_at).is_none() {
            parts.push(start..start + content.len());
        }
        for path in paths(looked_at) {
            if start + path.start < hidden {
                continue;
            }
            let Some(part) = secret_of(text, start, content, &path) else { continue };
            hidden = hidden.max(part.end);
            parts.push(part);
        }
        start += line.len();
    }
    let literal = parts.into_iter().flat_map(|part| without_references(text, part)).collect();
    merged(literal)
}

fn merged(mut parts: Vec<Range<usize>>) -> Vec<Range<usize>> {
    parts.sort_by_key(|part| part.start);
    let mut merged: Vec<Range<usize>> = Vec::new();
    for part in parts {
        match merged.last_mut() {
            Some(last) if part.start <= last.end => last.end = last.end.max(part.end),
            _ => merged.push(part),
        }
    }
    merged
}

/// User and password of every URL of a line: what stands before the last `@`. In a Redis URL without one,
/// what stands where only a port may.
fn user_parts(line: &str) -> impl Iterator<Item = Range<usize>> {
    line.match_indices("://").filter_map(|(at, mark)| {
        let (before, rest) = (line.get(..at)?, line.get(at + mark.len()..)?);
        let url = match before.rfind(['"', '\'']).and_then(|at| before.get(at..)?.chars().next()) {
            Some(quote) => within(rest, quote, Place::List),
            None => rest,
        };
        let start = at + mark.len();
        if let Some(end) = url.rfind('@') {
            return Some(start..start + end);
        }
        let scheme = before.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '+').next()?;
        let address = url.split('/').next()?;
        let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
        let is_host =
            |host: &str| host.starts_with('[') || host.split_once(':').is_none_or(|(_, port)| is_port(port));
        let odd = !address.split(',').all(is_host);
        ((scheme.contains("redis") || scheme.contains("valkey")) && odd).then(|| start..start + url.len())
    })
}

/// Whether the table that a line begins is a secret's; `None` where it begins none.
fn header(line: &str) -> Option<bool> {
    let line = line.trim_start_matches([' ', '\t', BYTE_ORDER_MARK]).strip_prefix('[')?;
    let name = line.strip_prefix('[').unwrap_or(line).split(']').next()?;
    let is_name = |c: char| is_part(c) || matches!(c, '.' | '"' | '\'' | ' ');
    let path = paths(name).next().filter(|_| line.contains(']') && name.chars().all(is_name))?;
    Some(matches!(path.key, Some(Key::Secret)))
}

/// A key of a line, all parts of it: `set.Authorization`.
struct Path {
    start: usize,
    end: usize,
    is_quoted: bool,
    /// What of it is secret; `None` = nothing.
    key: Option<Key>,
}

fn is_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

/// What may be keys of a line: words, and strings where a key may be one. Other strings are values, and are not
/// looked into, unless it is doubtful where they end.
fn paths(line: &str) -> impl Iterator<Item = Path> {
    let (mut at, mut is_doubtful) = (0, false);
    std::iter::from_fn(move || {
        loop {
            at += line.get(at..)?.find(|c| is_part(c) || !is_doubtful && (c == '"' || c == '\''))?;
            let rest = line.get(at..)?;
            let Some((_, end)) = name(rest) else {
                is_doubtful = true;
                at += 1;
                continue;
            };
            match path(rest, at, line.get(..at).is_some_and(is_lead)) {
                Some(path) => {
                    at = path.end;
                    return Some(path);
                }
                None => at += end,
            }
        }
    })
}

/// What may stand before the first word of a line.
fn is_lead(before: &str) -> bool {
    before.chars().all(|c| matches!(c, ' ' | '\t' | '#' | '-' | BYTE_ORDER_MARK))
}

/// The name that a text begins with, without quotes, and where it ends with them.
fn name(text: &str) -> Option<(&str, usize)> {
    match text.chars().next()? {
        quote @ ('"' | '\'') => {
            let name = text.get(1..)?.split(quote).next()?;
            let end = 1 + name.len() + 1;
            // A string that is followed by more than may stand there may well be two, one of them broken off.
            let after = text.get(end..)?.trim_start();
            let is_whole = after.is_empty() || after.starts_with([',', '}', ']', '#', '=', ':', '.']);
            (is_whole && !name.ends_with('\\')).then_some((name, end))
        }
        _ => {
            text.split(|c| !is_part(c)).next().filter(|name| !name.is_empty()).map(|name| (name, name.len()))
        }
    }
}

/// The key that `text` begins with, which stands at `start` of its line.
fn path(text: &str, start: usize, is_first: bool) -> Option<Path> {
    let is_quoted = text.starts_with(['"', '\'']);
    let (mut end, mut key, mut names) = (0, None, 0);
    let mut is_of_upstream = false;
    loop {
        let (name, length) = name(text.get(end..)?)?;
        end += length;
        // The second name of `upstream.token.servers` is anybody's choice.
        is_of_upstream |= names == 0 && name == "upstream";
        let is_chosen = is_of_upstream && names == 1;
        key = match Key::of(name).filter(|_| !is_chosen) {
            Some(Key::Secret) => Some(Key::Secret),
            other => key.or(other),
        };
        names += 1;
        // A quote that stands over, behind a name of which it is doubtful whether it is in quotes.
        let rest = text.get(end..)?;
        let bare =
            rest.strip_prefix(['"', '\'']).filter(|rest| rest.trim_start().starts_with(['=', ':', '.']));
        end += usize::from(bare.is_some());
        let after = bare.unwrap_or(rest).trim_start();
        match after.strip_prefix('.').map(str::trim_start).filter(|more| self::name(more).is_some()) {
            Some(more) => end = text.len() - more.len(),
            None if is_quoted && !after.starts_with(['=', ':']) && !is_first => return None,
            None => return Some(Path { start, end: start + end, is_quoted, key }),
        }
    }
}

/// What is hidden behind a key of the line that begins at `start`.
fn secret_of(text: &str, start: usize, line: &str, path: &Path) -> Option<Range<usize>> {
    let key = path.key.as_ref()?;
    let before = line.get(..path.start)?;
    let at = start + path.end + value_at(line.get(path.end..)?, before, path.is_quoted)?;
    let place = if is_lead(before) { Place::Line } else { Place::Table };
    let value = value(text.get(at..)?, place)?;
    let part = at + value.start..at + value.end;
    key.hides(text.get(part.clone())?).then_some(part)
}

/// Where a key's value begins in what follows the key, which may be where the line ends: behind an equals sign,
/// or a colon as other formats have it; behind the first word of a line in any case.
fn value_at(after: &str, before: &str, is_quoted: bool) -> Option<usize> {
    // A comment tells of keys, too, and has more words than these.
    let is_bare_line = is_lead(before) && !before.contains('#');
    let is_sign = |c: char| c == '=' || c == ':' && (is_bare_line || is_quoted);
    let value = after.trim_start_matches(|c: char| is_sign(c) || c == ' ' || c == '\t');
    let skipped = after.get(..after.len() - value.len())?;
    let is_value = skipped.contains(is_sign)
        || !skipped.is_empty() && value.starts_with(['"', '\''])
        || is_bare_line && !value.starts_with([',', ']', '}']);
    is_value.then_some(skipped.len())
}

/// What a value stands in, which says what may follow it on its line, beside nothing and a comment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The whole line is its key's.
    Line,
    /// A table within a line: a bracket, or a comma and another key.
    Table,
    /// It may be a list: a bracket, or a comma.
    List,
}

impl Place {
    fn may_follow(self, after: &str) -> bool {
        let after = after.trim_start();
        let closed = after.trim_start_matches(['}', ']', ' ', '\t']);
        let rest = if self == Self::Line { after } else { closed };
        match rest.strip_prefix(',').filter(|_| self != Self::Line) {
            Some(next) if self == Self::Table => {
                let next = next.trim_start();
                let behind = name(next).and_then(|(_, end)| next.get(end..)).unwrap_or(next).trim_start();
                next.is_empty() || next.starts_with('#') || behind.starts_with(['=', '.', ':'])
            }
            Some(_) => true,
            None => rest.is_empty() || rest.starts_with('#'),
        }
    }

    /// Whether a value without quotes ends before this.
    fn ends(self, c: char) -> bool {
        c.is_whitespace() || self != Self::Line && matches!(c, ',' | '}' | ']')
    }
}

/// What a value holds: within its quotes or brackets, else up to what ends it. Where its line has none, it is the
/// next one, and whatever stands before it is hidden, too.
fn value(text: &str, place: Place) -> Option<Range<usize>> {
    for fence in ["\"\"\"", "'''"] {
        if let Some(rest) = text.strip_prefix(fence) {
            return Some(3..3 + fenced(rest, fence, place));
        }
    }
    let line = line_of(text);
    match line.chars().next() {
        None | Some('#' | '\\') => next_value(text, place),
        Some(quote @ ('"' | '\'')) => Some(1..1 + within(line.get(1..)?, quote, place).len()),
        Some('[' | '{') => Some(1..bracketed(text, place)),
        Some(_) => Some(0..bare(line, place)),
    }
}

fn line_of(text: &str) -> &str {
    text.split('\n').next().unwrap_or(text).trim_end_matches('\r')
}

/// The value of a line that has none: the first line behind it that says something.
fn next_value(text: &str, place: Place) -> Option<Range<usize>> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim_start_matches([' ', '\t']);
        let is_empty = content.trim_end().is_empty() || content.starts_with(['#', '\\']);
        if !is_empty {
            let begins = at + line.len() - content.len();
            let value = value(text.get(begins..)?, place)?;
            let has_said = !text.get(..begins)?.trim().is_empty();
            return Some(if has_said { 0 } else { begins + value.start }..begins + value.end);
        }
        at += line.len();
    }
    (!text.trim().is_empty()).then_some(0..text.len())
}

/// Bytes of a string of several lines, up to the fence that ends it.
fn fenced(rest: &str, fence: &str, place: Place) -> usize {
    let mut from = 0;
    while let Some(at) = rest.get(from..).and_then(|rest| rest.find(fence)) {
        let end = from + at;
        let after = rest.get(end + fence.len()..).unwrap_or("");
        // One or two quotes may stand before the fence.
        let quotes = after.len() - after.trim_start_matches(fence.get(..1).unwrap_or(fence)).len();
        let after = after.get(quotes..).unwrap_or("");
        if quotes <= 2 && place.may_follow(line_of(after)) {
            return end + quotes;
        }
        from = end + fence.len();
    }
    rest.len()
}

/// Bytes up to the bracket that closes the first; all of the text where it is doubtful which does.
fn bracketed(text: &str, place: Place) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(c) = text.get(at..).and_then(|rest| rest.chars().next()) {
        let rest = text.get(at..).unwrap_or("");
        let line = line_of(rest);
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' if depth <= 1 => {
                let is_end = place.may_follow(line.get(1..).unwrap_or(""));
                return if is_end { at } else { at + line.len() };
            }
            ']' | '}' => depth -= 1,
            '#' => at += line.len().saturating_sub(1),
            '"' | '\'' => match string(rest) {
                Some(length) => at += length - 1,
                None => return text.len(),
            },
            _ => {}
        }
        at += text.get(at..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8);
    }
    text.len()
}

/// Bytes of the string that a text begins with, quotes included.
fn string(text: &str) -> Option<usize> {
    for fence in ["\"\"\"", "'''"] {
        if let Some(rest) = text.strip_prefix(fence) {
            let length = fenced(rest, fence, Place::List);
            return (length < rest.len()).then_some(3 + length + 3);
        }
    }
    let quote = text.chars().next()?;
    let rest = line_of(text).get(1..)?;
    let content = within(rest, quote, Place::List);
    (content.len() < rest.len()).then_some(1 + content.len() + 1)
}

/// A value without quotes. What is none to TOML ends with its line, since nobody knows what belongs to it.
fn bare(line: &str, place: Place) -> usize {
    let end = line.find(|c| place.ends(c)).unwrap_or(line.len());
    let (word, after) = line.split_at_checked(end).unwrap_or((line, ""));
    let is_number = word.bytes().all(|b| b.is_ascii_digit() || b"+-_.:".contains(&b));
    let is_value =
        is_number || matches!(word, "true" | "false") || word.starts_with("${") && word.ends_with('}');
    if is_value && place.may_follow(after) { end } else { line.len() }
}

/// A string up to the quote that ends it. One that is followed by more than may stand there ends nothing, and
/// neither does one after which a quote has no other: then it is all that is left of the line.
fn within(rest: &str, quote: char, place: Place) -> &str {
    let mut escaped = false;
    let mut left = rest.matches(quote).count();
    for (at, c) in rest.char_indices() {
        if c == quote {
            left = left.saturating_sub(1);
            let after = rest.get(at + 1..).unwrap_or("");
            if !escaped && left.is_multiple_of(2) && place.may_follow(after) {
                return rest.get(..at).unwrap_or(rest);
            }
        }
        escaped = c == '\\' && quote == '"' && !escaped;
    }
    rest
}

/// The part without what takes its value from the environment, `${NAME}`: that says where a secret is, and
/// is none.
fn without_references(text: &str, part: Range<usize>) -> Vec<Range<usize>> {
    let (mut literal, mut from) = (Vec::new(), part.start);
    while let Some((before, rest)) = text.get(from..part.end).and_then(|rest| rest.split_once("${")) {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let Some((name, _)) = rest.split_once('}').filter(|(name, _)| name.chars().all(is_part)) else {
            break;
        };
        literal.push(from..from + before.len());
        from += before.len() + name.len() + "${}".len();
    }
    literal.push(from..part.end);
    let says_something = |part: &Range<usize>| {
        text.get(part.clone()).is_some_and(|part| part.contains(|c: char| c != ':' && !c.is_whitespace()))
    };
    literal.retain(says_something);
    literal
}

/// A key whose value may be secret.
enum Key {
    /// It is.
    Secret,
    /// A setting has this name, too: one of its words is no secret, nor what was meant to be one.
    Field,
    /// It should be a path, and a secret may stand there by mistake.
    Path,
    /// It should be a URL, in which `user_parts` finds the password; without a scheme it is none.
    Address,
}

impl Key {
    fn of(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let plain = name.replace('-', "_");
        match plain.as_str() {
            "redis_secret_file" | "password_file" => return Some(Self::Path),
            // A word of `authorization`.
            "per_credential" => return None,
            _ => {}
        }
        if plain.contains("authorization") || plain == "cookie" || plain == "set_cookie" {
            return Some(Self::Field);
        }
        let secret = ["token", "secret", "passw", "passphrase", "pwd", "credential", "api_key", "apikey"];
        // Mistyped, it is refused and shown; the other is what else that could be.
        let mistyped = nearest(&plain, ["admin_token", "admin_time"]) == Some("admin_token");
        let is_one = secret.iter().any(|part| plain.contains(part)) || claims::is_credential(&name);
        if is_one || mistyped {
            return Some(Self::Secret);
        }
        (plain.contains("redis") || plain.contains("valkey")).then_some(Self::Address)
    }

    fn hides(&self, value: &str) -> bool {
        match self {
            Self::Secret => !matches!(value, "true" | "false"),
            Self::Field => {
                let is_word = value.bytes().all(|b| b.is_ascii_lowercase() || b == b'-' || b == b'_');
                !is_word || nearest(value, WORDS).is_none()
            }
            Self::Path => !value.starts_with('/') && !value.contains('.'),
            Self::Address => value.contains('@') && !value.contains("://"),
        }
    }
}
