//! The nearest change that would make a request a hit.
//!
//! Nothing is guessed: each change that fits the reason is made to a copy of the configuration, or of the request,
//! and the same prediction is asked again; what comes out is advice only if that says "hit", or where nothing is stored
//! yet, that such a request would bring what may be. Fewer changes come before more, and settings before other
//! requests. Bounded in changes and in predictions.
//! Must not know: why a change helps.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, header};
use serde_json::{Value, json};

use crate::config::{self, Config, RouteCache};
use crate::fields::query;
use crate::rules::{self, Authorization, ClientCacheControl, Cookies, Methods, MustAsk, NotStored};
use crate::stored::{DotSegments, Glob, Slashes};
use crate::telemetry::{Bypass, Detail, Miss, Source};
use crate::worker::{Snapshot, Worker};

use super::Thought;
use super::kept_out::KeptOut;
use super::key::is_secret;
use super::predict::{self, Prediction};

/// Changes in one piece of advice.
const CHANGES: usize = 3;
/// Predictions for one piece of advice.
const TRIES: usize = 24;
/// Arguments of a query that are tried one by one.
const ARGUMENTS: usize = 8;

/// Lifetimes as people write them, seconds; beyond, in days.
const ROUND: [u64; 13] = [60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, DAY, 2 * DAY];
const DAY: u64 = 86_400;

/// Something that could be otherwise.
#[derive(Clone, Debug, PartialEq)]
enum Change {
    CacheOn,
    IgnoreCookies,
    ShareAuthorized,
    IgnoreClient,
    Override(Duration),
    Max(Duration),
    IgnoreQuery(Vec<String>),
    ByLanguage,
    ResolveDots,
    MergeSlashes,
    Method(Method),
    LargerContent(u64),
    /// The request without these fields.
    Without(&'static [HeaderName]),
    /// The request with this field.
    With(HeaderName, HeaderValue),
}

/// The advice; null where the request is a hit, or nothing of this would make it one.
pub(super) async fn seek(
    worker: &Arc<Worker>,
    snapshot: &Arc<Snapshot>,
    thought: &Thought,
    predicted: &Prediction,
) -> Value {
    if predicted.is_hit() {
        return Value::Null;
    }
    // A Redis that does not answer is not asked again for each change.
    let with_redis = matches!(&predicted.redis, Some(found) if !is_down(found));
    let mut tries = 0;
    // What would be one once such a request has brought it; what is one at once is better advice.
    let brings_nothing = brings_nothing(predicted);
    let mut once_stored: Option<Vec<Change>> = None;
    let mut waiting: VecDeque<Vec<Change>> =
        candidates(thought, predicted).into_iter().map(|one| vec![one]).collect();
    while let Some(changes) = waiting.pop_front() {
        tries += 1;
        if tries > TRIES {
            break;
        }
        let Some((changed, thought)) = made(snapshot, thought, predicted.route, &changes) else { continue };
        // Others wait for this thread, too.
        tokio::task::yield_now().await;
        let then = predict::predict(worker, &changed, &thought, with_redis).await;
        if then.is_hit() {
            return told(snapshot, predicted.route, &changes, false);
        }
        if brings_nothing && once_stored.is_none() && would_bring(&then) {
            once_stored = Some(changes);
            continue;
        }
        if changes.len() < CHANGES {
            let further = candidates(&thought, &then).into_iter().filter(|change| !changes.contains(change));
            waiting.extend(further.map(|change| [changes.clone(), vec![change]].concat()));
        }
    }
    once_stored.map_or(Value::Null, |changes| told(snapshot, predicted.route, &changes, true))
}

/// Whether the request and its route decide that it neither gets anything from the cache nor brings anything there.
/// Requests that some other route might cache, and this one does not, are no matter of advice.
fn brings_nothing(predicted: &Prediction) -> bool {
    match predicted.outcome.source {
        Source::Bypass(why) => match why {
            Bypass::Off | Bypass::Cookie | Bypass::Authorization | Bypass::RequestNoStore | Bypass::Path => {
                true
            }
            Bypass::Method | Bypass::Upgrade | Bypass::Body | Bypass::LargeBody | Bypass::MayChange => false,
        },
        _ => KeptOut::of(predicted).is_some(),
    }
}

/// Whether it would bring what the origin lets be stored, and the next of its kind take it: nothing is known against it.
fn would_bring(predicted: &Prediction) -> bool {
    predicted.outcome.source == Source::Miss(Miss::Uri)
        && predicted.because.is_none()
        && matches!(predicted.outcome.detail, None | Some(Detail::Purged))
        && KeptOut::of(predicted).is_none()
        && !wants_the_origin(predicted)
}

/// Whether the client asks for the origin's word however fresh what is stored may be.
fn wants_the_origin(predicted: &Prediction) -> bool {
    let directives = predicted.exchange.as_ref().map(|exchange| &exchange.asked.facts.directives);
    directives.is_some_and(|said| said.no_cache || said.max_age.is_some() || said.min_fresh.is_some())
}

fn is_down(found: &Result<Arc<crate::stored::StoredResponse>, crate::store::Absent>) -> bool {
    use crate::store::Absent;
    matches!(found, Err(Absent::Open | Absent::Full | Absent::Deadline | Absent::Error))
}

/// What could be otherwise, by why it is no hit.
fn candidates(thought: &Thought, predicted: &Prediction) -> Vec<Change> {
    let said = || Change::Without(&[header::CACHE_CONTROL, header::PRAGMA]);
    match (predicted.outcome.source, predicted.because) {
        (Source::Bypass(why), _) => match why {
            Bypass::Off => vec![Change::CacheOn],
            Bypass::Method if predict::may_be_cached(&thought.method) => {
                vec![Change::Method(thought.method.clone())]
            }
            Bypass::Cookie => vec![Change::IgnoreCookies, Change::Without(&[header::COOKIE])],
            Bypass::Authorization => vec![Change::ShareAuthorized, Change::Without(&[header::AUTHORIZATION])],
            Bypass::RequestNoStore => vec![Change::IgnoreClient, said()],
            Bypass::Upgrade => vec![Change::Without(&[header::UPGRADE, header::CONNECTION])],
            Bypass::Path => vec![Change::ResolveDots, Change::MergeSlashes],
            Bypass::LargeBody => vec![Change::LargerContent(thought.body.len() as u64)],
            Bypass::Method | Bypass::Body | Bypass::MayChange => Vec::new(),
        },
        (Source::StaleWhileRevalidate(_), _) => longer(predicted),
        (Source::Miss(_), Some(because)) => match because {
            MustAsk::Stale => {
                let asks = thought.headers.contains_key(header::CACHE_CONTROL);
                longer(predicted).into_iter().chain(asks.then_some(Change::IgnoreClient)).collect()
            }
            MustAsk::RequestNoCache | MustAsk::RequestMaxAge | MustAsk::RequestMinFresh => {
                vec![Change::IgnoreClient, said()]
            }
            MustAsk::Cookie => vec![Change::IgnoreCookies, Change::Without(&[header::COOKIE])],
            MustAsk::Authorization => {
                vec![Change::ShareAuthorized, Change::Without(&[header::AUTHORIZATION])]
            }
            MustAsk::Coding => {
                let stored = predicted.judged.as_ref();
                let coding = stored.and_then(|stored| stored.headers.get(&header::CONTENT_ENCODING));
                coding.map(|coding| Change::With(header::ACCEPT_ENCODING, coding)).into_iter().collect()
            }
            MustAsk::NoCache | MustAsk::Purged | MustAsk::Unheard => Vec::new(),
        },
        (Source::Miss(Miss::Vary), _) => variants(thought, predicted),
        (Source::Miss(Miss::Partial), _) => vec![Change::Without(&[header::RANGE, header::IF_RANGE])],
        (Source::Miss(Miss::Request), _) => {
            vec![Change::Without(&[header::IF_MATCH, header::IF_UNMODIFIED_SINCE])]
        }
        (Source::Miss(Miss::Uri), _) => {
            let let_in = KeptOut::of(predicted).map(let_in).unwrap_or_default();
            let asks = wants_the_origin(predicted).then(|| [Change::IgnoreClient, said()]);
            let_in.into_iter().chain(asks.into_iter().flatten()).chain(urls(thought, predicted)).collect()
        }
        _ => Vec::new(),
    }
}

/// A request that brings something, in place of one that does not.
fn let_in(kept_out: KeptOut) -> Vec<Change> {
    match kept_out {
        KeptOut::Credentials(NotStored::Authorization) => {
            vec![Change::ShareAuthorized, Change::Without(&[header::AUTHORIZATION])]
        }
        KeptOut::Credentials(_) => vec![Change::IgnoreCookies, Change::Without(&[header::COOKIE])],
        KeptOut::Condition => vec![Change::Without(&[header::IF_MATCH, header::IF_UNMODIFIED_SINCE])],
        KeptOut::Chosen(_) | KeptOut::Head(_) | KeptOut::Ranges => Vec::new(),
    }
}

/// A lifetime that is not over yet.
fn longer(predicted: &Prediction) -> Vec<Change> {
    let (Some(stored), Some(exchange)) = (&predicted.judged, &predicted.exchange) else { return Vec::new() };
    let age = rules::current_age(&stored.facts, exchange.worker.now());
    // For as long again, and a minute: advice is read before it is followed.
    let enough = Duration::from_secs(age.as_secs().saturating_mul(2).saturating_add(60));
    let Some(policy) = exchange.cache().map(|cache| &cache.policy) else { return Vec::new() };
    match policy.ttl.max {
        Some(max) if max >= enough => vec![Change::Override(rounded(enough).min(max))],
        Some(_) => vec![Change::Max(rounded(enough)), Change::Override(rounded(enough))],
        None => vec![Change::Override(rounded(enough))],
    }
}

/// The next lifetime that people would write.
fn rounded(time: Duration) -> Duration {
    let seconds = time.as_secs();
    let days = seconds.div_ceil(DAY).saturating_mul(DAY);
    Duration::from_secs(ROUND.into_iter().find(|round| *round >= seconds).unwrap_or(days))
}

/// The same resource for another variant's request.
fn variants(thought: &Thought, predicted: &Prediction) -> Vec<Change> {
    let stored = predicted.memory.iter().flat_map(|resource| &resource.variants);
    let mut changes = Vec::new();
    if thought.headers.contains_key(header::ACCEPT_LANGUAGE) {
        changes.push(Change::ByLanguage);
    }
    for stored in stored.take(4) {
        for (name, value) in stored.selecting.parts().filter(|(name, _)| !is_secret(name.as_str())) {
            let value = value.and_then(|value| HeaderValue::from_bytes(value).ok());
            changes.extend(value.map(|value| Change::With(name.clone(), value)));
        }
    }
    changes
}

/// Another writing of the URL that may be stored.
fn urls(thought: &Thought, predicted: &Prediction) -> Vec<Change> {
    let cache = predicted.exchange.as_ref().and_then(|exchange| exchange.cache());
    let counts = |argument: &&str| !cache.is_some_and(|cache| cache.key.ignores(argument));
    let mut names: Vec<String> = Vec::new();
    for argument in thought.target.query().unwrap_or_default().split('&').filter(counts) {
        let name = query::name(argument).to_owned();
        if !names.contains(&name) && !name.is_empty() && !name.contains('*') {
            names.push(name);
        }
    }
    let mut changes: Vec<Change> =
        names.iter().take(ARGUMENTS).map(|name| Change::IgnoreQuery(vec![name.clone()])).collect();
    if names.len() > 1 && names.len() <= ARGUMENTS {
        changes.push(Change::IgnoreQuery(names));
    }
    if thought.target.path().contains("//") {
        changes.push(Change::MergeSlashes);
    }
    changes
}

/// The configuration and the request with all of the changes; `None` where they are of no route.
fn made(
    snapshot: &Arc<Snapshot>,
    thought: &Thought,
    route: Option<usize>,
    changes: &[Change],
) -> Option<(Arc<Snapshot>, Thought)> {
    let mut thought = thought.clone();
    if changes.iter().all(|change| change.request().is_some()) {
        changes.iter().for_each(|change| change.ask(&mut thought));
        return Some((Arc::clone(snapshot), thought));
    }
    let mut config: Config = snapshot.config.clone();
    let cache = &mut config.routes.get_mut(route?)?.cache;
    for change in changes {
        match cache {
            Some(cache) => change.set(cache),
            None => *cache = Some(RouteCache::default()),
        }
        change.ask(&mut thought);
    }
    Some((Arc::new(snapshot.only_to_ask(config)), thought))
}

impl Change {
    /// Its line under `[route.cache]`, given what stands there, and what that costs; `alone`: no other setting is
    /// changed with it.
    fn setting(&self, now: Option<&RouteCache>, alone: bool) -> Option<(String, &'static str)> {
        let told = match self {
            Self::CacheOn if alone => {
                ("cache = true".to_owned(), "what is said to be storable is then stored for all")
            }
            Self::CacheOn => (
                "[route.cache]".to_owned(),
                "in place of `cache = false`: what is said to be storable is then stored for all",
            ),
            Self::IgnoreCookies => {
                ("cookies = \"ignore\"".to_owned(), "only where no answer of this route depends on a cookie")
            }
            Self::ShareAuthorized => (
                "authorization = \"share\"".to_owned(),
                "only where every client may have what one of them was given",
            ),
            Self::IgnoreClient => (
                "client_cache_control = \"ignore\"".to_owned(),
                "clients can then no longer ask for the origin's word",
            ),
            Self::Override(ttl) => (
                format!("ttl.override = \"{}\"", config::written(*ttl)),
                "what changes at the origin is seen as much later",
            ),
            Self::Max(ttl) => (
                format!("ttl.max = \"{}\"", config::written(*ttl)),
                "what changes at the origin is seen as much later",
            ),
            Self::IgnoreQuery(names) => (
                format!(
                    "key.ignore_query = {:?}",
                    ignored(now).chain(names.iter().map(String::as_str)).collect::<Vec<_>>()
                ),
                "only where the origin's answer does not depend on these arguments",
            ),
            Self::ByLanguage => (
                "vary.normalize = [\"accept-language\"]".to_owned(),
                "only where the order of languages of equal weight means nothing to the origin",
            ),
            Self::ResolveDots => (
                "key.dot_segments = \"resolve\"".to_owned(),
                "only where the origin resolves them as RFC 3986 §5.2.4 has it",
            ),
            Self::MergeSlashes => {
                ("key.slashes = \"merge\"".to_owned(), "only where the origin takes slashes in a row for one")
            }
            Self::Method(method) => {
                (format!("methods = {:?}", methods(now, method)), "only where such requests change nothing")
            }
            Self::LargerContent(bytes) => {
                (format!("max_request_body = \"{bytes}B\""), "so much is read before anything is looked up")
            }
            Self::Without(_) | Self::With(..) => return None,
        };
        Some(told)
    }

    /// Says it to a route's cache, as `config` would have read it.
    fn set(&self, cache: &mut RouteCache) {
        let RouteCache { key, policy, max_request_body, .. } = cache;
        match self {
            Self::IgnoreCookies => {
                policy.cookies = Cookies::Ignore;
                key.cookies.clear();
            }
            Self::ShareAuthorized => {
                policy.authorization = Authorization::Share;
                key.per_credential = false;
            }
            Self::IgnoreClient => policy.client_cache_control = ClientCacheControl::Ignore,
            Self::Override(ttl) => policy.ttl.r#override = Some(*ttl),
            Self::Max(ttl) => policy.ttl.max = Some(*ttl),
            Self::IgnoreQuery(names) => key.ignore_query.extend(names.iter().map(|name| Glob::new(name))),
            Self::ByLanguage => policy.normalize.accept_language = true,
            Self::ResolveDots => key.dot_segments = DotSegments::Resolve,
            Self::MergeSlashes => key.slashes = Slashes::Merge,
            Self::Method(method) => policy.methods.insert(method),
            Self::LargerContent(bytes) => *max_request_body = *bytes,
            Self::CacheOn | Self::Without(_) | Self::With(..) => {}
        }
    }

    /// Says it in a request.
    fn ask(&self, thought: &mut Thought) {
        match self {
            Self::Without(names) => names.iter().for_each(|name| {
                thought.headers.remove(name);
            }),
            Self::With(name, value) => {
                thought.headers.insert(name.clone(), value.clone());
            }
            _ => {}
        }
    }

    /// What the request would be, in words.
    fn request(&self) -> Option<String> {
        match self {
            Self::Without(names) => {
                let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
                Some(format!("without {}", names.join(" and ")))
            }
            Self::With(name, value) => {
                Some(format!("with {name}: {}", String::from_utf8_lossy(value.as_bytes())))
            }
            _ => None,
        }
    }
}

/// What is left out of the key already.
fn ignored(now: Option<&RouteCache>) -> impl Iterator<Item = &str> {
    now.into_iter().flat_map(|cache| &cache.key.ignore_query).map(Glob::as_str)
}

/// The methods that use the cache, and one more.
fn methods(now: Option<&RouteCache>, more: &Method) -> Vec<String> {
    let mut all = now.map(|cache| cache.policy.methods).unwrap_or_default();
    all.insert(more);
    Methods::ALL.iter().filter(|method| all.contains(method)).map(Method::to_string).collect()
}

fn told(snapshot: &Snapshot, route: Option<usize>, changes: &[Change], once_stored: bool) -> Value {
    let line = route.and_then(|route| snapshot.route(route)).map(|route| route.line);
    let now = route.and_then(|route| snapshot.cache(route));
    let alone = changes.iter().filter(|change| change.request().is_none()).count() == 1;
    let settings: Vec<Value> = changes
        .iter()
        .filter_map(|change| {
            let (line, caution) = change.setting(now, alone)?;
            let table = if *change == Change::CacheOn { "[[route]]" } else { "[route.cache]" };
            Some(json!({ "line": line, "table": table, "caution": caution }))
        })
        .collect();
    let requests: Vec<String> = changes.iter().filter_map(Change::request).collect();
    json!({ "route_line": line, "settings": settings, "request": requests, "once_stored": once_stored })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advised_lifetime_is_one_that_people_would_write_and_no_shorter() {
        for (seconds, round) in
            [(60, "1m"), (66, "2m"), (301, "10m"), (4_000, "2h"), (90_000, "2d"), (172_801, "3d")]
        {
            let time = rounded(Duration::from_secs(seconds));
            assert_eq!(
                (config::written(time).as_str(), time.as_secs() >= seconds),
                (round, true),
                "{seconds}"
            );
        }
    }
}
