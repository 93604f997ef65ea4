//! How the key of a request comes about, step by step.
//!
//! Knows which of the key's own functions makes which step. Shows no value that may be a secret: of cookies and of
//! fields that prove something of their sender, the name alone.
//! Must not know: what is stored under a key.

use http::header;
use serde_json::{Value, json};

use crate::fields::claims;
use crate::stored::{CacheKey, KeyPolicy};
use crate::worker::Snapshot;

use super::Thought;
use super::predict::Prediction;

/// In place of a value that is nobody's business.
pub(super) const HIDDEN: &str = "…";

/// The steps from the target as it came to the key; null where there is none.
pub(super) fn steps(thought: &Thought, snapshot: &Snapshot, predicted: &Prediction) -> Value {
    let (Some(asked), Some(exchange)) = (&predicted.asked, &predicted.exchange) else { return Value::Null };
    let plain = KeyPolicy::default();
    let policy = snapshot.cache(exchange.route).map_or(&plain, |cache| &cache.key);
    let (path, query) = (asked.target.path(), asked.target.query());
    let of = |query| CacheKey::of(asked.scheme, &asked.authority, path, query, &asked.headers, policy);
    let host = thought.headers.get(header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes()));
    let host = thought.target.authority().map(|it| it.as_str().into()).or(host).unwrap_or_default();
    let mut steps = vec![
        json!({ "step": "as received", "key": format!("{}://{host}{}", asked.scheme, asked.target) }),
        json!({ "step": "scheme, host and path", "key": of(None).url() }),
    ];
    let exact = exchange.exact.as_ref().unwrap_or(&exchange.key);
    if let Some(query) = query {
        let dropped: Vec<&str> = query.split('&').filter(|argument| policy.ignores(argument)).collect();
        let kept: Vec<&str> = query.split('&').filter(|argument| !policy.ignores(argument)).collect();
        let url = of(Some(query));
        let now: Vec<&str> =
            url.url().split_once('?').map_or_else(Vec::new, |(_, query)| query.split('&').collect());
        let sorted = now != kept && kept != [""];
        steps.push(json!({ "step": "query", "key": url.url(), "dropped": dropped, "sorted": sorted }));
    }
    if !exact.extras().is_empty() {
        steps.push(json!({
            "step": if exchange.content.is_some() { "fields and content" } else { "fields" },
            "key": shown(exact),
        }));
    }
    if exchange.exact.is_some() {
        let note = "what is stored at this path says which of the query counts (No-Vary-Search)";
        steps.push(json!({ "step": "No-Vary-Search", "key": shown(&exchange.key), "note": note }));
    }
    json!({ "key": shown(&exchange.key), "steps": steps })
}

/// A key as people may see it.
pub(super) fn shown(key: &CacheKey) -> String {
    let extras: String = key.extras().split_inclusive(';').map(without_secrets).collect();
    if extras.is_empty() { key.url().to_owned() } else { format!("{} {extras}", key.url()) }
}

/// One item of a key's extras, `h:name=value;` or the like.
fn without_secrets(item: &str) -> String {
    let name = item.get(2..).unwrap_or_default().split(['=', ';']).next().unwrap_or_default();
    let secret = match item.get(..2) {
        Some("c:") => true,
        Some("a:") => return format!("a:{HIDDEN};"),
        Some("h:") => is_secret(name),
        _ => false,
    };
    match item.split_once('=') {
        Some((before, _)) if secret => format!("{before}={HIDDEN};"),
        _ => item.to_owned(),
    }
}

/// Whether the value of a field of this name may be somebody's secret.
pub(super) fn is_secret(name: &str) -> bool {
    name == header::COOKIE.as_str() || name == header::SET_COOKIE.as_str() || claims::may_be_secret(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_without_what_may_be_secret() {
        let extras = "h:accept-language=de;h:x-api-key=k1;h:x-none;c:session=s1;c:other;a:00ff;b:POST:12;";
        let key = CacheKey::from_parts("http://a/", extras);
        let expected =
            "http://a/ h:accept-language=de;h:x-api-key=…;h:x-none;c:session=…;c:other;a:…;b:POST:12;";
        assert_eq!(shown(&key), expected);
        let plain = CacheKey::from_parts("http://a/?b", "");
        assert_eq!(shown(&plain), "http://a/?b");
    }
}
