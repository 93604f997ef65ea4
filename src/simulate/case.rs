//! A request of a log, as the serving code would take it: route, key, facts.
//!
//! Knows what keeps a request from the cache before anything is looked up, as `proxy/receive` does; what most
//! lines share is made once. What a line does not say is taken from others of the same URL.
//! Must not know: what is stored.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, header};
use xxhash_rust::xxh3::xxh3_128;

use super::Part;
use super::line::{Line, Outcome, Reason, Result as Found};
use crate::clock::Timestamp;
use crate::config::{Config, RouteCache};
use crate::fields::range::ContentRange;
use crate::fields::vary::Vary;
use crate::fields::{claims, date, path};
use crate::fill::is_failure;
use crate::rules::{Authorization, Cookies, Expires, RequestFacts, ResponseFacts};
use crate::store::Class;
use crate::stored::{CacheKey, KeyPolicy};

/// A request.
#[derive(Debug)]
pub(super) struct Case {
    at: Timestamp,
    route: Option<u32>,
    pub way: Way,
    pub url: Arc<Url>,
    pub asking: Arc<Asking>,
    outcome: Option<Outcome>,
    pub status: u16,
    /// The origin's answer, if it is asked; `None` where it gives none.
    pub answer: Option<Arc<Answer>>,
    /// Bytes of the whole representation.
    pub length: Option<u64>,
    /// How old what answered it was, where it was stored.
    pub age: Option<Duration>,
    /// How long the origin takes for it.
    pub took: Option<Duration>,
    /// The origin fails it.
    pub fails: bool,
}

/// Where a request goes before anything is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To the cache.
    Ask,
    /// To the origin.
    Pass,
    /// Nowhere: Larder's own to answer.
    Apart,
    /// It is a PURGE.
    Purge,
}

/// What is asked for.
#[derive(Debug)]
pub(super) struct Url {
    pub key: CacheKey,
    pub scheme: &'static str,
    pub host: Box<str>,
    pub target: Box<str>,
}

/// How it is asked for.
#[derive(Debug)]
pub(super) struct Asking {
    pub method: Method,
    pub headers: HeaderMap,
    pub facts: RequestFacts,
    pub class: Class,
    /// One of the fields says who the user is, and is not part of the key.
    credential: bool,
}

/// What the origin says.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    /// `Date` and `Expires` are of another moment.
    pub headers: HeaderMap,
    expires_after: Option<Duration>,
    /// What they say, likewise.
    facts: ResponseFacts,
}

impl Answer {
    /// What it says that it depends on.
    pub fn vary(&self) -> &Vary {
        &self.facts.vary
    }

    /// What it would have said, had it been asked for and come then.
    pub fn facts_at(&self, asked: Timestamp, came: Timestamp) -> ResponseFacts {
        let date = Timestamp::from_secs(came.as_secs());
        ResponseFacts {
            date: Some(date),
            expires: match self.expires_after {
                Some(after) => Some(Expires::At(Timestamp::from_secs(date.saturating_add(after).as_secs()))),
                None => self.facts.expires,
            },
            request_time: asked,
            response_time: came,
            ..self.facts.clone()
        }
    }

    /// The fields that it would have had then.
    pub fn at(&self, then: Timestamp) -> HeaderMap {
        let mut headers = self.headers.clone();
        set_moment(&mut headers, then, self.expires_after);
        headers
    }
}

fn set_moment(headers: &mut HeaderMap, then: Timestamp, expires_after: Option<Duration>) {
    headers.insert(header::DATE, date::to_value(then));
    if let Some(after) = expires_after {
        headers.insert(header::EXPIRES, date::to_value(then.saturating_add(after)));
    }
}

impl Case {
    pub const fn at(&self) -> Timestamp {
        self.at
    }

    pub fn route(&self) -> Option<usize> {
        self.route.and_then(|route| usize::try_from(route).ok())
    }

    /// It counts as a request of its route.
    pub fn is_forwarded(&self) -> bool {
        matches!(self.way, Way::Ask | Way::Pass)
    }

    /// What is stored stood in for the origin, which was asked for this very request: not for those who waited with
    /// another, nor for those who came while it was left alone, of which the log has no reason to go forward.
    pub fn asked_in_vain(&self) -> bool {
        self.outcome.is_none_or(|outcome| outcome.reason != Reason::None && !outcome.collapsed)
    }

    /// What the log says became of it.
    pub fn recorded(&self) -> Option<Part> {
        let Outcome { result, reason, collapsed } = self.outcome?;
        let mut part = Part::default();
        match result {
            Found::Cached => part.cached = 1,
            Found::StaleIfError => (part.cached, part.origin) = (1, u64::from(self.asked_in_vain())),
            Found::Missed => (part.missed, part.origin) = (1, u64::from(!collapsed)),
            Found::Bypassed => part.origin = 1,
            // With a reason, it had looked.
            Found::Failed => {
                (part.missed, part.origin) = (u64::from(reason != Reason::None), u64::from(!collapsed));
            }
            Found::Local => {}
        }
        Some(part)
    }
}

/// Makes cases of lines.
#[derive(Debug)]
pub(super) struct Maker<'a> {
    config: &'a Config,
    host: String,
    urls: HashMap<u128, Arc<Url>>,
    askings: HashMap<u128, Arc<Asking>>,
    answers: HashMap<u128, Arc<Answer>>,
}

impl<'a> Maker<'a> {
    pub fn new(config: &'a Config, host: &str) -> Self {
        let (urls, askings, answers) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { config, host: host.to_owned(), urls, askings, answers }
    }

    pub fn make(&mut self, line: Line<'_>) -> Case {
        let host = line.host.as_deref().unwrap_or(&self.host).to_owned();
        let path = line.target.split('?').next().unwrap_or_default();
        let route = self.config.route(&line.method, host_of(&host), path);
        let cache = route.and_then(|route| self.config.routes.get(route)?.cache.as_ref());
        let hash = hash_of(&line.method, route, &line.request);
        let asking = self
            .askings
            .entry(hash)
            .or_insert_with(|| Arc::new(asking(self.config, route, &line.method, &line.request)));
        let asking = Arc::clone(asking);
        let url = xxh3_128(format!("{hash} {} {host} {}", line.scheme, line.target).as_bytes());
        let url = self.urls.entry(url).or_insert_with(|| {
            let query = line.target.split_once('?').map(|(_, query)| query);
            let plain = KeyPolicy::default();
            let policy = cache.map_or(&plain, |cache| &cache.key);
            let key = CacheKey::of(line.scheme, &host, path, query, &asking.headers, policy);
            Arc::new(Url {
                key,
                scheme: line.scheme,
                host: host.clone().into(),
                target: (*line.target).into(),
            })
        });
        let url = Arc::clone(url);
        let result = line.outcome.map(|outcome| outcome.result);
        let way = if result == Some(Found::Local) && line.method.as_str() != "PURGE" {
            Way::Apart
        } else {
            way(self.config, route, &asking, &host, path, line.outcome)
        };
        let asked_origin = matches!(result, Some(Found::Missed | Found::Bypassed))
            && !line.outcome.is_some_and(|outcome| outcome.collapsed);
        let answered = !matches!(result, Some(Found::StaleIfError | Found::Failed | Found::Local));
        let length = length_of(&line);
        let answer = line.answer.as_ref().filter(|_| answered).map(|head| self.answer(&line, head));
        // Who does not know what the origin says knows the status at least.
        let answer = answer
            .or_else(|| (line.outcome.is_none() && answered).then(|| self.answer(&line, &HeaderMap::new())));
        Case {
            at: line.at,
            route: route.and_then(|route| u32::try_from(route).ok()),
            way,
            url,
            asking,
            outcome: line.outcome,
            status: line.status,
            answer,
            length,
            age: line.age.filter(|_| result == Some(Found::Cached)),
            took: line.took.filter(|_| asked_origin),
            fails: !answered || (asked_origin && is_failure(line.status)),
        }
    }

    fn answer(&mut self, line: &Line<'_>, head: &HeaderMap) -> Arc<Answer> {
        // What a client holds already, or wants a part of, is a 200 to who does not.
        let status = if matches!(line.status, 206 | 304 | 416) { 200 } else { line.status };
        let said = || ResponseFacts::of(status, head, line.at, line.at);
        let expires_after =
            head.contains_key(header::EXPIRES).then(said).and_then(|said| match said.expires {
                Some(Expires::At(then)) => Some(then.saturating_since(said.date.unwrap_or(line.at))),
                // Nonsense stays nonsense.
                _ => None,
            });
        let is_of_then = |name: &HeaderName| {
            *name == header::DATE || (*name == header::EXPIRES && expires_after.is_some())
        };
        let of_it = || head.iter().filter(|(name, _)| !is_of_then(name) && *name != header::CONTENT_RANGE);
        // Fields have no order that would mean anything; lines of one program have one.
        let mut text = format!("{status} {expires_after:?}");
        for (name, value) in of_it() {
            text.push_str(name.as_str());
            text.push_str(&String::from_utf8_lossy(value.as_bytes()));
            text.push('\n');
        }
        let hash = xxh3_128(text.as_bytes());
        let known = self.answers.entry(hash).or_insert_with(|| {
            let mut headers: HeaderMap = of_it().map(|(name, value)| (name.clone(), value.clone())).collect();
            let facts = ResponseFacts::of(status, &headers, line.at, line.at);
            set_moment(&mut headers, line.at, expires_after);
            Arc::new(Answer { status, headers, expires_after, facts })
        });
        Arc::clone(known)
    }

    /// What lines do not say, from others: of the URL before them, else of the URL after; how long the origin
    /// takes, from the route's mean.
    pub fn fill_in(&self, cases: &mut [Case]) {
        let mut known = HashMap::new();
        cases.iter_mut().for_each(|case| learn(&mut known, case));
        known.clear();
        cases.iter_mut().rev().for_each(|case| learn(&mut known, case));
        let mut means: HashMap<Option<u32>, (Duration, u32)> = HashMap::new();
        for (route, took) in cases.iter().filter_map(|case| Some((case.route, case.took?))) {
            let (sum, count) = means.entry(route).or_default();
            (*sum, *count) = (sum.saturating_add(took), count.saturating_add(1));
        }
        for case in cases.iter_mut().filter(|case| case.took.is_none()) {
            case.took = means.get(&case.route).map(|(sum, count)| *sum / (*count).max(1));
        }
    }
}

/// What is known of a URL so far.
type Known = HashMap<u128, (Option<u64>, Option<Arc<Answer>>)>;

fn learn(known: &mut Known, case: &mut Case) {
    let (length, answer) = known.entry(case.url.key.hash()).or_default();
    case.length = case.length.or(*length);
    *length = case.length;
    if case.answer.is_none() && !case.fails {
        case.answer.clone_from(answer);
    }
    if let Some(said) = case.answer.as_ref().filter(|_| case.asking.method == Method::GET) {
        *answer = Some(Arc::clone(said));
    }
}

fn length_of(line: &Line<'_>) -> Option<u64> {
    let whole = || {
        let whole = line.complete && line.method == Method::GET && !matches!(line.status, 206 | 304 | 416);
        whole.then_some(line.bytes)
    };
    let of_range = || {
        let value = line.answer.as_ref()?.get(header::CONTENT_RANGE)?;
        let ContentRange { length, .. } = crate::fields::range::parse_content_range(value.as_bytes())?;
        length
    };
    line.length.or_else(of_range).or_else(whole)
}

fn hash_of(method: &Method, route: Option<usize>, headers: &HeaderMap) -> u128 {
    let mut text = format!("{method} {route:?}\n");
    for (name, value) in headers {
        text.push_str(name.as_str());
        text.push(':');
        text.push_str(&String::from_utf8_lossy(value.as_bytes()));
        text.push('\n');
    }
    xxh3_128(text.as_bytes())
}

fn asking(config: &Config, route: Option<usize>, method: &Method, headers: &HeaderMap) -> Asking {
    let route = route.and_then(|route| config.routes.get(route));
    let cache = route.and_then(|route| route.cache.as_ref());
    let keyed = cache.map_or(&[][..], |cache| &cache.key.headers);
    let edited = |name: &HeaderName| {
        route.is_some_and(|route| {
            let edits = &route.request_headers;
            edits.remove.contains(name) || edits.set.iter().any(|(set, _)| set == name)
        })
    };
    let (mut credential, mut chosen_by) = (false, Vec::new());
    for name in headers.keys().filter(|name| !keyed.contains(name)) {
        let told = claims::told(name.as_str());
        credential |= told.credential;
        if told.chooses && !edited(name) {
            chosen_by.push(name.clone());
        }
    }
    let client = cache.map(|cache| cache.policy.client_cache_control).unwrap_or_default();
    let facts = RequestFacts { chosen_by, ..RequestFacts::of(method, headers) }.under(client);
    let class = cache.map_or(Class::Plain, |cache| class_of(&facts, cache));
    Asking { method: method.clone(), headers: headers.clone(), facts, class, credential }
}

fn class_of(facts: &RequestFacts, cache: &RouteCache) -> Class {
    let policy = &cache.policy;
    let cookie = facts.has_cookie && matches!(policy.cookies, Cookies::Origin | Cookies::Bypass);
    let authorization = facts.has_authorization && policy.authorization == Authorization::Bypass;
    Class::of(cookie || authorization, !facts.chosen_by.is_empty())
}

fn way(
    config: &Config,
    route: Option<usize>,
    asking: &Asking,
    host: &str,
    path: &str,
    outcome: Option<Outcome>,
) -> Way {
    if asking.method.as_str() == "PURGE" {
        return Way::Purge;
    }
    let Some(index) = route else { return Way::Apart };
    let Some(cache) = config.routes.get(index).and_then(|route| route.cache.as_ref()) else {
        return Way::Pass;
    };
    let policy = &cache.policy;
    // What a log does not tell of, but for what came of it.
    let recorded = outcome.is_some_and(|outcome| matches!(outcome.reason, Reason::Upgrade | Reason::Body));
    // The content is part of the key, and in no log.
    let with_content = asking.method == Method::POST || asking.method.as_str() == "QUERY";
    let passes = recorded
        || with_content
        || !policy.methods.contains(&asking.method)
        || asking.facts.directives.no_store
        || (asking.facts.has_cookie && policy.cookies == Cookies::Bypass)
        || (policy.authorization != Authorization::Share && asking.credential)
        || strays(config, index, &cache.key, &asking.method, host, path);
    if passes { Way::Pass } else { Way::Ask }
}

/// Whether the path may mean a resource of another route.
fn strays(
    config: &Config,
    route: usize,
    policy: &KeyPolicy,
    method: &Method,
    host: &str,
    target: &str,
) -> bool {
    let keyed = policy.path(target);
    let elsewhere = |path: &str| config.route(method, host_of(host), path) != Some(route);
    policy.refuses(&keyed)
        || keyed != target && elsewhere(&keyed)
        || path::as_some_read_it(target).is_some_and(|read| elsewhere(&read))
}

fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_would_have_said_then_is_what_its_fields_would_have_said() {
        let config = "[upstream.o]\nservers = [\"http://127.0.0.1:1\"]\n\
                      [[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"o\"\n";
        let config = Config::parse(config, "f", &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
        let heads = [
            r#"{"cache-control":"max-age=60, stale-while-revalidate=9","etag":"\"a\"","age":"7"}"#,
            r#"{"date":"Thu, 29 Feb 2024 12:34:50 GMT","expires":"Thu, 29 Feb 2024 12:44:50 GMT","vary":"accept, x"}"#,
            r#"{"expires":"0","last-modified":"Thu, 29 Feb 2024 12:00:00 GMT"}"#,
            r#"{"expires":"Thu, 29 Feb 2024 12:00:00 GMT","set-cookie":"redacted","content-language":"de"}"#,
            r#"{"content-range":"bytes 0-1/4","no-vary-search":"params","cdn-cache-control":"max-age=1"}"#,
            "{}",
        ];
        for head in heads {
            let line = format!(
                r#"{{"ts":"2024-02-29T12:34:56.789Z","method":"GET","host":"a","path":"/","status":206,"cache":"miss","dur_ms":1.0,"bytes_out":1,"end":"complete","response":{head}}}"#
            );
            let line = super::super::line::read(line.as_bytes()).unwrap();
            let answer = Maker::new(&config, "").make(line).answer.unwrap();
            for millis in [1_709_210_096_789, 1_700_000_000_000, 1_800_000_000_999] {
                let (asked, came) = (Timestamp::from_millis(millis), Timestamp::from_millis(millis + 300));
                let read = ResponseFacts::of(answer.status, &answer.at(came), asked, came);
                assert_eq!(answer.facts_at(asked, came), read, "{head}");
            }
        }
    }
}
