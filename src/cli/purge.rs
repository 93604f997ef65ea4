//! `larder purge`: has a running Larder purge what is named, and tells what it answers.
//!
//! Knows how purges are asked for.
//! Must not know: what a purge does.

use std::io;
use std::process::ExitCode;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::args::Purge;
use super::whom::{Asked, Named};
use super::{complain, exit, print};

/// What the admin listener says of a purge.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    error: String,
    redis: String,
    memory: String,
    fleet: Fleet,
}

/// What it says of the other nodes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fleet {
    error: String,
}

/// Has the Larder that is named purge what is named.
pub(super) fn purge(named: &Named, purge: &Purge) -> ExitCode {
    let larder = match named.asked() {
        Ok(larder) => larder,
        Err(code) => return code,
    };
    match ask(&larder, purge) {
        Ok((StatusCode::OK, answer)) => print(&format!("{}\n", done(purge, &answer))),
        Ok((StatusCode::UNAUTHORIZED, _)) => larder.unauthorized(""),
        Ok((_, answer)) if !answer.error.is_empty() => {
            complain(&format!("not purged: {}", answer.error), exit::FAILURE)
        }
        Ok((_, answer)) if !answer.redis.is_empty() => complain(&half_done(&answer), exit::FAILURE),
        Ok((status, _)) => larder.other(status),
        Err(error) => larder.no_answer(&error.to_string()),
    }
}

/// What has not been done, in words. Purges by tag, prefix and route are told to the other nodes alone: what stands in Redis
/// is judged by them when it is read.
fn half_done(answer: &Answer) -> String {
    let redis = format!("purged in this Larder's memory; Redis: {}", answer.redis);
    match &*answer.fleet.error {
        "" => redis,
        error => format!("{redis}; the other nodes: {error}"),
    }
}

/// What has been done, in words.
fn done(purge: &Purge, answer: &Answer) -> String {
    let counted = |count: usize, one: &str, many: &str| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        _ => Some(format!("{count} {many}")),
    };
    let all = purge.all.then(|| "everything".to_owned());
    let named = [
        all,
        counted(purge.tag.len(), "tag", "tags"),
        counted(purge.url.len(), "URL", "URLs"),
        counted(purge.prefix.len(), "prefix", "prefixes"),
        counted(purge.route.len(), "route", "routes"),
    ];
    let named: Vec<String> = named.into_iter().flatten().collect();
    let softly = if purge.soft { " softly" } else { "" };
    format!("purged{softly}: {} (memory: {}; redis: {})", named.join(", "), answer.memory, answer.redis)
}

fn ask(larder: &Asked, purge: &Purge) -> io::Result<(StatusCode, Answer)> {
    let body = serde_json::to_vec(&wanted(purge)).map_err(io::Error::other)?;
    let (status, body) = larder.post("/purge", body)?;
    // What is no answer of a Larder's has no words of its own.
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}

/// What is asked for: nothing that is not named.
fn wanted(purge: &Purge) -> Value {
    let lists =
        [("tags", &purge.tag), ("urls", &purge.url), ("prefixes", &purge.prefix), ("routes", &purge.route)];
    let mut wanted = Map::new();
    for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        wanted.insert(name.to_owned(), json!(list));
    }
    for (name, said) in [("all", purge.all), ("soft", purge.soft)] {
        if said {
            wanted.insert(name.to_owned(), json!(true));
        }
    }
    wanted.extend(purge.wait.as_ref().map(|wait| ("wait".to_owned(), json!(wait))));
    wanted.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_asked_for_and_told_in_words() {
        let one = Purge { tag: vec!["a".into()], ..Purge::default() };
        assert_eq!(wanted(&one), json!({ "tags": ["a"] }));
        let answer = Answer { memory: "purged".into(), redis: "not configured".into(), ..Answer::default() };
        assert_eq!(done(&one, &answer), "purged: 1 tag (memory: purged; redis: not configured)");
        let told =
            r#"{"redis": "judged when it is read", "fleet": {"error": "redis is unreachable (deadline)"}}"#;
        assert_eq!(
            half_done(&serde_json::from_str(told).unwrap()),
            "purged in this Larder's memory; Redis: judged when it is read; the other nodes: redis is unreachable (deadline)"
        );
        let many = Purge {
            url: vec!["u".into(), "v".into()],
            prefix: vec!["/a*".into()],
            route: vec!["r".into()],
            all: true,
            soft: true,
            wait: Some("1s".into()),
            ..Purge::default()
        };
        let json = json!({
            "urls": ["u", "v"], "prefixes": ["/a*"], "routes": ["r"], "all": true, "soft": true, "wait": "1s"
        });
        assert_eq!(wanted(&many), json);
        let told = done(&many, &answer);
        assert!(told.starts_with("purged softly: everything, 2 URLs, 1 prefix, 1 route ("), "{told}");
    }
}
