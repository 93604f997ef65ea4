//! What of a file is not for showing: tokens, passwords, and whatever stands where one is expected.
//!
//! Works on the text alone, since what is shown most needs it where it is no TOML. In doubt it hides.
//! Must not know: how a line is shown, or what any setting means.

use std::ops::Range;

use super::nearest::nearest;
use crate::fields::claims;

/// Bytes of a line that is looked at, each part of it up to its end; nobody reads a longer one, and it is hidden.
const LONGEST: usize = 4096;

/// The stretches that are not shown, in order, none of them touching another.
pub(super) fn secrets(text: &str) -> Vec<Range<usize>> {
    let (mut parts, mut start) = (Vec::new(), 0);
    for line in text.split_inclusive('\n') {
        let content = line.trim_end_matches(['\n', '\r']);
        if content.len() > LONGEST {
            parts.push(start..start + content.len());
            start += line.len();
            continue;
        }
        parts.extend(user_parts(content).map(|part| start + part.start..start + part.end));
        parts.extend(values(text, start, content));
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
            Some(quote) => within(rest, quote),
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

/// The values of a line's keys that name something secret.
fn values<'t>(text: &'t str, start: usize, line: &'t str) -> impl Iterator<Item = Range<usize>> + 't {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let mut rest = 0;
    let keys = std::iter::from_fn(move || {
        let from = rest + line.get(rest..)?.find(is_part)?;
        let key = line.get(from..)?;
        let key = key.split(|c: char| !is_part(c)).next()?;
        rest = from + key.len();
        Some((key, rest))
    });
    keys.filter_map(move |(name, end)| {
        // A colon, as other formats have it, only behind the first word of a line: text has colons, too.
        let is_first = line.get(..end)?.trim_start().trim_start_matches(['"', '\'']).len() == name.len();
        let at = end + value_at(line.get(end..)?, is_first)?;
        let key = Key::of(name)?;
        let value = value(text.get(start + at..)?)?;
        let part = start + at + value.start..start + at + value.end;
        key.hides(text.get(part.clone())?).then_some(part)
    })
}

/// Where a key's value begins in what follows the key: behind an equals sign, or at the quotes.
fn value_at(after: &str, is_first: bool) -> Option<usize> {
    let is_sign = |c: char| c == '=' || c == ':' && is_first;
    let unquoted = after.strip_prefix(['"', '\'']).filter(|rest| rest.trim_start().starts_with(is_sign));
    let rest = unquoted.unwrap_or(after);
    let value = rest.trim_start_matches(|c: char| is_sign(c) || c == ' ' || c == '\t');
    let skipped = rest.get(..rest.len() - value.len())?;
    let is_value = skipped.contains(is_sign) || !skipped.is_empty() && value.starts_with(['"', '\'']);
    (is_value && !value.is_empty()).then(|| after.len() - value.len())
}

/// What a value holds: within its quotes, else up to what ends it.
fn value(text: &str) -> Option<Range<usize>> {
    for fence in ["\"\"\"", "'''"] {
        if let Some(rest) = text.strip_prefix(fence) {
            return Some(3..3 + rest.find(fence).unwrap_or(rest.len()));
        }
    }
    let line = text.lines().next()?;
    let first = line.chars().next()?;
    Some(match first {
        '"' | '\'' => 1..1 + within(line.get(1..)?, first).len(),
        '[' | '{' => 1..line.len(),
        _ => 0..line.find([' ', '\t', ',', '}', ']', '#']).unwrap_or(line.len()),
    })
}

/// A string up to the quote that ends it. One that is followed by more than may stand there ends nothing:
/// then it is all that is left of the line.
fn within(rest: &str, quote: char) -> &str {
    let mut escaped = false;
    for (at, c) in rest.char_indices() {
        if c == quote && !escaped {
            let after = rest.get(at + 1..).unwrap_or("").trim_start();
            let ends = after.is_empty() || after.starts_with([',', '}', ']', '#']);
            return if ends { rest.get(..at).unwrap_or(rest) } else { rest };
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
    /// A setting has this name, too: a plain word is no secret.
    Field,
    /// It should be a path, and a secret may stand there by mistake.
    Path,
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
        let is_one = secret.iter().any(|part| plain.contains(part))
            || (claims::is_credential(&name) && name != "session");
        (is_one || mistyped).then_some(Self::Secret)
    }

    fn hides(&self, value: &str) -> bool {
        match self {
            Self::Secret => !matches!(value, "true" | "false"),
            Self::Field => !value.bytes().all(|b| b.is_ascii_lowercase() || b == b'-' || b == b'_'),
            Self::Path => !value.starts_with('/') && !value.contains('.'),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The text with each hidden stretch as `…`.
    fn shown(text: &str) -> String {
        let (mut out, mut at) = (String::new(), 0);
        for part in secrets(text) {
            out += &text[at..part.start];
            out.push('…');
            at = part.end;
        }
        out + &text[at..]
    }

    #[test]
    fn secrets_are_hidden_and_nothing_else() {
        let rows = [
            ("admin_token = \"hunter2\"", "admin_token = \"…\""),
            ("admin_token = \"hunter2\"  # old", "admin_token = \"…\"  # old"),
            ("admin_token = 'hunter2'", "admin_token = '…'"),
            ("\"admin_token\" = \"hunter2\"", "\"admin_token\" = \"…\""),
            (
                "admin_token = \"\"\"\nhunter2\n\"\"\"\nworkers = 1",
                "admin_token = \"\"\"…\"\"\"\nworkers = 1",
            ),
            ("admin_token = \"a\\\"hunter2\"", "admin_token = \"…\""),
            ("admin_token = 12345678", "admin_token = …"),
            ("admin_token = [\"hunter2\"]", "admin_token = […"),
            ("admin_token = true", "admin_token = true"),
            // No TOML at all.
            ("admin_token = hunter2 # old", "admin_token = … # old"),
            ("admin_token = \"hunter2", "admin_token = \"…"),
            ("admin_token = \"hunt\"er2\"", "admin_token = \"…"),
            ("admin_token: hunter2", "admin_token: …"),
            ("admin_token \"hunter2\"", "admin_token \"…\""),
            // Mistyped, or another's name for it.
            ("admin_tokn = \"hunter2\"", "admin_tokn = \"…\""),
            ("Token = \"hunter2\"", "Token = \"…\""),
            ("redis_password = \"hunter2\"", "redis_password = \"…\""),
            ("redis_secret = \"hunter2\"", "redis_secret = \"…\""),
            ("redis_secret_file = \"0123456789abcdef\"", "redis_secret_file = \"…\""),
            ("password_file = \"hunter2\"", "password_file = \"…\""),
            ("password_file = \"/etc/secret\"", "password_file = \"/etc/secret\""),
            ("redis = \"redis://hunter2:a,b:1\"", "redis = \"redis://…\""),
            ("redis = \"redis+sentinel://a:1,b:2/m\"", "redis = \"redis+sentinel://a:1,b:2/m\""),
            ("redis_secret_file = \"/etc/secret\"", "redis_secret_file = \"/etc/secret\""),
            // What the environment holds is not in the file.
            ("admin_token = \"${LARDER_TOKEN}\"", "admin_token = \"${LARDER_TOKEN}\""),
            ("admin_token = \"a${LARDER_TOKEN\"", "admin_token = \"…\""),
            ("redis = \"redis://:${PW}@db\"", "redis = \"redis://:${PW}@db\""),
            ("redis = \"redis://u:hunter2@db:1/2\"", "redis = \"redis://…@db:1/2\""),
            ("redis = \"redis://u:${A}x@db\"", "redis = \"redis://…${A}…@db\""),
            ("redis = \"redis://:p@ss@db\"", "redis = \"redis://…@db\""),
            ("redis = \"redis://:pa\"ss@db\"", "redis = \"redis://…@db\""),
            ("redis = \"redis://:hunter2", "redis = \"redis://…"),
            ("redis = redis://u:hunter2@db", "redis = redis://…@db"),
            ("redis = \"redis://db:6379/1\"", "redis = \"redis://db:6379/1\""),
            ("redis = \"redis://[::1]:6379\"", "redis = \"redis://[::1]:6379\""),
            ("servers = [\"http://a:1\", \"http://u:p@b\"]", "servers = [\"http://a:1\", \"http://…@b\"]"),
            // Fields that are set, and settings of the same name.
            ("set = { Authorization = \"Basic aHVudGVy\" }", "set = { Authorization = \"…\" }"),
            (
                "set = { authorization = \"Bearer a\", A = \"1\" }",
                "set = { authorization = \"…\", A = \"1\" }",
            ),
            ("set.Cookie = \"session=1\"", "set.Cookie = \"…\""),
            ("set.X-Api-Key = \"hunter2\"", "set.X-Api-Key = \"…\""),
            ("authorization = \"per-credential\"", "authorization = \"per-credential\""),
            ("set_cookie = \"keep\"", "set_cookie = \"keep\""),
            ("cookies = [\"lang\"]", "cookies = [\"lang\"]"),
            ("admin_time = \"10s\"", "admin_time = \"10s\""),
            ("key.headers = [\"X-Api-Key\"]", "key.headers = [\"X-Api-Key\"]"),
            ("by = { header = \"X-Api-Key\" }", "by = { header = \"X-Api-Key\" }"),
        ];
        for (text, want) in rows {
            assert_eq!(shown(text), want, "{text}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_to_look_at_is_hidden() {
        let fits = "a".repeat(LONGEST);
        assert_eq!(shown(&format!("{fits}\n{fits}b\nc = 1\n")), format!("{fits}\n…\nc = 1\n"));
        let long = "://".repeat(300_000);
        assert_eq!(shown(&format!("{long}\r\nadmin_token = 'x'")), "…\r\nadmin_token = '…'");
    }

    #[test]
    fn the_shipped_file_is_shown_as_it_is() {
        for (line, text) in shown(super::super::SHIPPED).lines().zip(super::super::SHIPPED.lines()) {
            assert_eq!(line, text);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_apart_at_its_characters(text in "(token|redis://|[\"'= @:é\\\\${}\n]|[a-z]){0,24}") {
            let parts = secrets(&text);
            prop_assert!(parts.windows(2).all(|two| two[0].end < two[1].start));
            prop_assert!(parts.iter().all(|part| text.get(part.clone()).is_some_and(|part| !part.is_empty())));
        }
    }
}
