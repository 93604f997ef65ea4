//! `POST /purge`: any number of URLs, tags, prefixes and routes, or everything.
//!
//! Knows what may be asked for and what is answered. What is wrong with a request is told before any of it is
//! done.
//! Must not know: what a purge does.

use std::time::Duration;

use futures_util::future::join_all;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use crate::config::{self, Config};
use crate::fields::host;
use crate::store::Absent;
use crate::stored::{LONGEST_NAME, Prefix, Purge, Scope};
use crate::worker::{Purged, Receipt, Snapshot, Worker};

use super::api::{Answer, error, json_answer};
use super::{Admin, fleet};

/// Bytes of a request's body: the most names, each of 1 KiB.
const BODY: usize = 1 << 20;
/// Names in one request. For a Redis that is down eight times as many may wait: a URL has a key for each of four
/// methods, and each its path. As many prefixes are remembered one by one.
const MOST: usize = 1_024;
/// URLs that Redis is told of at a time.
const AT_ONCE: usize = 16;
/// Names that a line in the log shows, and characters of each.
const SHOWN: (usize, usize) = (3, 200);

/// What is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wanted {
    url: Option<String>,
    urls: Vec<String>,
    tag: Option<String>,
    tags: Vec<String>,
    prefix: Option<String>,
    prefixes: Vec<String>,
    route: Option<String>,
    routes: Vec<String>,
    all: bool,
    soft: bool,
    wait: Option<String>,
}

/// The same, checked.
struct Checked {
    purges: Vec<Purge>,
    soft: bool,
    /// The longest that the answer waits for who has to be told.
    wait: Option<Duration>,
}

/// Purges what a request names.
pub(super) async fn purge(admin: &Admin, request: Request<Incoming>) -> Answer {
    let worker = &admin.worker;
    let body = match Limited::new(request.into_body(), BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return error(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 1 MiB, or broke off"),
    };
    let snapshot = worker.shared.snapshot.load_full();
    let wanted = serde_json::from_slice(&body).map_err(|why| {
        format!("the body must be such as {{\"tags\": [\"a\"]}} or {{\"url\": \"http://host/path\"}}: {why}")
    });
    let checked = wanted.and_then(|wanted| check(wanted, &snapshot.config));
    match checked {
        Ok(checked) => carry_out(admin, &snapshot, checked).await,
        Err(why) => error(StatusCode::BAD_REQUEST, &why),
    }
}

/// Everything that is asked for, or what is wrong with it.
fn check(wanted: Wanted, config: &Config) -> Result<Checked, String> {
    let Wanted { url, urls, tag, tags, prefix, prefixes, route, routes, all, soft, wait } = wanted;
    let single = [&url, &tag, &prefix, &route].iter().filter(|one| one.is_some()).count();
    let named = single + [&urls, &tags, &prefixes, &routes].map(Vec::len).iter().sum::<usize>();
    if named > MOST {
        return Err(format!("{named} names in one request; there may be {MOST}: ask several times"));
    }
    let wait = wait.as_deref().map(Config::duration).transpose().map_err(|why| format!("wait: {why}"))?;
    let most = config.limits.admin_time;
    if wait.is_some_and(|wait| wait > most) {
        return Err(format!("wait: at most {}, which limits.admin_time says", config::written(most)));
    }
    let mut scopes = Vec::with_capacity(named.saturating_add(1));
    for url in url.into_iter().chain(urls) {
        is_url(&url).map_err(|why| format!("url {url:?} {why}"))?;
        if url.len() > LONGEST_NAME {
            return Err(format!("url: a name has at most {LONGEST_NAME} bytes"));
        }
        // A path may have a star; one at its end is hardly meant for itself, and is purged as a prefix all the same.
        let path = url.split(['?', '#']).next().unwrap_or_default();
        if path.ends_with('*') {
            return Err(format!(
                "url {url:?} is one URL, in which * stands for itself: write it in \"prefixes\" (larder purge --prefix) for \
                 all that begin so"
            ));
        }
        scopes.push(Scope::Url(url.into()));
    }
    for tag in tag.into_iter().chain(tags) {
        scopes.push(Scope::tag(&tag).map_err(|why| format!("tag: {why}"))?);
    }
    for prefix in prefix.into_iter().chain(prefixes) {
        let read = Prefix::parse(&prefix).map_err(|why| format!("prefix {prefix:?}: {why}"))?;
        scopes.push(Scope::Prefix(read));
    }
    for route in route.into_iter().chain(routes) {
        if !config.routes.iter().any(|known| known.name == route) {
            let known: Vec<&str> = config.routes.iter().map(|known| known.name.as_str()).collect();
            return Err(format!("there is no route {route:?}; there are: {}", known.join(", ")));
        }
        scopes.push(Scope::Route(route.into()));
    }
    scopes.extend(all.then_some(Scope::All));
    if scopes.is_empty() {
        let help = "nothing is named: write \"urls\" (http://host/path), \"tags\", \"prefixes\", \"routes\" or \"all\"";
        return Err(help.to_owned());
    }
    let purges: Vec<Purge> = scopes.into_iter().map(|scope| Purge { scope, soft }).collect();
    for purge in &purges {
        purge.encode().map_err(|why| format!("{}: {why}", purge.scope.kind()))?;
    }
    Ok(Checked { purges, soft, wait })
}

/// Whether there can be a request for it, else why not: nothing is stored under what nobody can ask for, and a purge of
/// that would seem to have gone well.
fn is_url(url: &str) -> Result<(), String> {
    let absolute = || "must be absolute, with the host as clients ask for it: http://host/path".to_owned();
    if !url.contains("://") {
        return Err(absolute());
    }
    // RFC 3986 §2.1: whatever else there is in a path is percent-encoded.
    if let Some(other) = url.chars().find(|char| !char.is_ascii_graphic()) {
        let bytes = other.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        return Err(format!("holds {other:?}, which no request does: in a path or query it is {bytes}"));
    }
    let uri: Uri = url.parse().map_err(|why| format!("is none: {why}"))?;
    let (scheme, authority) = uri.scheme_str().zip(uri.authority()).ok_or_else(absolute)?;
    let default = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return Err("is of another scheme than http and https".to_owned()),
    };
    match host::authority(authority.as_str(), default) {
        Some(_) => Ok(()),
        None if authority.as_str().contains('@') => {
            Err("holds what no request's host does: leave out all before its @".to_owned())
        }
        None => Err("holds no host that a request could be for".to_owned()),
    }
}

/// All of them are made before any of them is waited for.
async fn carry_out(admin: &Admin, snapshot: &Snapshot, checked: Checked) -> Answer {
    let (worker, at) = (&*admin.worker, admin.worker.now());
    let Checked { purges, soft, wait } = checked;
    let held = worker.holds_of(snapshot, &purges);
    let begun: Result<Vec<_>, _> = purges.iter().map(|purge| worker.purge(snapshot, purge)).collect();
    let Ok(begun) = begun else {
        return error(StatusCode::BAD_REQUEST, "a url names nothing that could be stored: http://host/path");
    };
    let mut purged = Vec::with_capacity(begun.len());
    let telling = async {
        let mut begun = begun.into_iter();
        loop {
            let some: Vec<_> = begun.by_ref().take(AT_ONCE).collect();
            if some.is_empty() {
                break;
            }
            purged.extend(join_all(some).await);
        }
    };
    let in_time = match wait {
        // What is left of it goes on in the background.
        Some(wait) => timeout(wait, telling).await.is_ok(),
        None => {
            telling.await;
            true
        }
    };
    let (mut status, mut receipt) = receipt(worker, &purged, in_time);
    let telling = purged.into_iter().flat_map(|purged| purged.fleet).collect();
    let wait = wait.unwrap_or(snapshot.config.cache.coherence_bound);
    if let Some((of_fleet, shown)) = fleet::tell(worker, telling, wait).await {
        receipt.insert("fleet".to_owned(), shown);
        status = if status == StatusCode::OK { of_fleet } else { status };
    }
    let (of, first) = (counted(&purges), shown(&purges));
    tracing::info!(of = &*of, first = &*first, soft, status = status.as_u16(), "purge");
    let mut answer = listed(&purges);
    answer.insert("purged".to_owned(), json!(status == StatusCode::OK));
    answer.insert("soft".to_owned(), json!(soft));
    let memory = Receipt::of_memory(held, soft);
    answer.insert("memory".to_owned(), json!(memory));
    answer.insert("was_in_memory".to_owned(), json!(held));
    answer.extend(receipt);
    let answer = answer.into();
    worker.shared.receipts.note(Receipt {
        at,
        by: "the admin listener".to_owned(),
        status: status.as_u16(),
        of,
        first,
        soft,
        memory: memory.to_owned(),
        redis: part(&answer, "redis"),
        fleet: part(&answer, "fleet"),
    });
    json_answer(status, &answer)
}

fn part(answer: &Value, name: &str) -> Value {
    answer.get(name).cloned().unwrap_or_default()
}

/// Whom it has reached beyond this process's memory: the status of the whole, and what of it is told.
fn receipt(worker: &Worker, purged: &[Purged], in_time: bool) -> (StatusCode, Map<String, Value>) {
    let redis = purged.iter().filter_map(|purged| purged.redis);
    let (status, redis) = match redis.reduce(Result::and) {
        _ if worker.redis.is_none() => (StatusCode::OK, "not configured".to_owned()),
        _ if !in_time => {
            let text = "not told within the wait; told in the background".to_owned();
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
        Some(Ok(())) => (StatusCode::OK, "purged".to_owned()),
        Some(Err(why)) => {
            let text = format!("unreachable ({}); tried again as soon as it is back", Absent::as_str(why));
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
        // By number alone: what stands there is judged when it is read.
        None => (StatusCode::OK, "judged when it is read".to_owned()),
    };
    (status, Map::from_iter([("redis".to_owned(), json!(redis))]))
}

/// What was purged, by kind; a single URL by its own name, too.
fn listed(purges: &[Purge]) -> Map<String, Value> {
    let mut listed = Map::new();
    for (kind, list) in [("url", "urls"), ("tag", "tags"), ("prefix", "prefixes"), ("route", "routes")] {
        let of_kind = purges.iter().filter(|purge| purge.scope.kind() == kind);
        let names: Vec<String> = of_kind.map(|purge| name(&purge.scope)).collect();
        if !names.is_empty() {
            listed.insert(list.to_owned(), json!(names));
        }
    }
    if purges.iter().any(|purge| purge.scope == Scope::All) {
        listed.insert("all".to_owned(), json!(true));
    }
    listed
}

/// How many of each kind, for the log.
fn counted(purges: &[Purge]) -> String {
    let kinds = ["url", "tag", "prefix", "route", "all"].map(|kind| {
        let count = purges.iter().filter(|purge| purge.scope.kind() == kind).count();
        (count > 0).then(|| format!("{kind} {count}"))
    });
    kinds.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The first of them, for the log: one line, however many there are.
fn shown(purges: &[Purge]) -> String {
    let names = purges.iter().map(|purge| name(&purge.scope)).filter(|name| !name.is_empty());
    let short = |name: String| name.chars().take(SHOWN.1).collect::<String>();
    names.take(SHOWN.0).map(short).collect::<Vec<_>>().join(", ")
}

fn name(scope: &Scope) -> String {
    match scope {
        Scope::Url(text) | Scope::Tag(text) | Scope::Route(text) => text.to_string(),
        Scope::Prefix(prefix) => prefix.to_string(),
        Scope::Group(_) | Scope::Path(_) | Scope::All => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_no_request_can_be_for_is_told_what_is_wrong_with_it() {
        for (url, says) in [
            ("http://a/b?c", ""),
            ("https://a.test:444/%C3%BC", ""),
            ("HTTP://[::1]:80", ""),
            ("http://a/products/ü", "holds 'ü', which no request does: in a path or query it is %C3%BC"),
            ("http://x/a b", "holds ' ', which no request does: in a path or query it is %20"),
            ("http://x/a\tb", "in a path or query it is %09"),
            ("http://[::1/", "is none: invalid"),
            ("/a/1", "must be absolute"),
            ("a", "must be absolute"),
            ("", "must be absolute"),
            ("api.test/a", "must be absolute"),
            ("no url", "must be absolute"),
            ("ftp://x/y", "is of another scheme than http and https"),
            ("http://user:pw@host/x", "leave out all before its @"),
            ("http://x:99999/", "holds no host that a request could be for"),
            ("http://x_!/", "holds no host that a request could be for"),
        ] {
            let said = is_url(url).err().unwrap_or_default();
            assert!(said.contains(says) && said.is_empty() == says.is_empty(), "{url}: {said}");
        }
    }

    #[test]
    fn a_request_of_many_names_is_one_short_line_in_the_log() {
        let url = |nth: u32| Purge::hard(Scope::Url(format!("http://a/{nth}/{}", "x".repeat(8_000)).into()));
        let mut purges: Vec<Purge> = (0..1_000).map(url).collect();
        purges.extend([Purge::hard(Scope::tag("a").unwrap()), Purge::hard(Scope::All)]);
        assert_eq!(counted(&purges), "url 1000, tag 1, all 1");
        let line = shown(&purges);
        assert!(line.starts_with("http://a/0/x") && line.contains(", http://a/2/x"), "{line}");
        assert!(line.len() < 700, "{}", line.len());
        assert_eq!(shown(&[Purge::hard(Scope::All)]), "");
    }
}
