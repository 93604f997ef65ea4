//! A request's way through the client side, with every step asked and none taken.
//!
//! Knows the order of the steps, as `receive`, `lookup`, `wait` and `fill` have it, and asks their own functions
//! what they would do.
//! Must not know: how what they say is shown.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode};

use crate::rules::{self, MustAsk, Reuse};
use crate::store::{Absent, Resource};
use crate::stored::{CacheKey, StoredResponse};
use crate::telemetry::{Bypass, Detail, Miss, Outcome, Source, Tier};
use crate::worker::{Asked, Content, Looked, Snapshot, Worker};

use super::super::exchange::Exchange;
use super::super::failure::Failure;
use super::super::lookup::{self, Asking, Decision};
use super::super::receive::{self, Taken, Unsaid};
use super::super::report::Report;
use super::super::wait::Wait;
use super::super::{content, purging, rate, transform};
use super::Thought;

/// What would become of a request, and what that was told from.
pub(super) struct Prediction {
    pub outcome: Outcome,
    /// What else may become of it, as the origin answers.
    pub or: Option<Source>,
    /// Larder's own answer, where it gives one.
    pub failure: Option<Failure>,
    pub asked: Option<Arc<Asked>>,
    pub route: Option<usize>,
    pub exchange: Option<Exchange>,
    /// What memory holds under the key.
    pub memory: Option<Resource>,
    /// What Redis holds, where it was asked.
    pub redis: Option<Result<Arc<StoredResponse>, Absent>>,
    /// The stored response that was judged.
    pub judged: Option<Arc<StoredResponse>>,
    /// Why the origin has to be asked although something is stored.
    pub because: Option<MustAsk>,
}

impl Prediction {
    fn of(source: Source) -> Self {
        Self {
            outcome: Outcome::new(source),
            or: None,
            failure: None,
            asked: None,
            route: None,
            exchange: None,
            memory: None,
            redis: None,
            judged: None,
            because: None,
        }
    }

    fn local(failure: Failure) -> Self {
        let outcome = Outcome { detail: Some(Detail::Word(failure.cause)), ..Outcome::new(Source::Local) };
        Self { outcome, failure: Some(failure), ..Self::of(Source::Local) }
    }

    pub fn key(&self) -> Option<&CacheKey> {
        self.exchange.as_ref().map(|exchange| &exchange.key)
    }

    pub fn is_hit(&self) -> bool {
        matches!(self.outcome.source, Source::Hit(_))
    }
}

/// What would become of a request; Redis is asked only if memory does not answer, and `with_redis`.
pub(super) async fn predict(
    worker: &Arc<Worker>,
    snapshot: &Arc<Snapshot>,
    thought: &Thought,
    with_redis: bool,
) -> Prediction {
    let exchange = match received(worker, snapshot, thought) {
        Ok(exchange) => exchange,
        Err(settled) => return *settled,
    };
    let (asked, route) = (Arc::clone(&exchange.asked), exchange.route);
    let told = looked_up(exchange, with_redis).await;
    Prediction { asked: Some(asked), route: Some(route), ..told }
}

/// What is settled before anything is looked up; else the request on its way.
pub(super) fn received(
    worker: &Arc<Worker>,
    snapshot: &Arc<Snapshot>,
    thought: &Thought,
) -> Result<Exchange, Box<Prediction>> {
    let Ok(request) = Request::builder().method(&thought.method).uri(&thought.target).body(()) else {
        let failure = Failure::local(StatusCode::BAD_REQUEST, "target", "there can be no such request");
        return Err(Box::new(Prediction::local(failure)));
    };
    let mut parts = request.into_parts().0;
    parts.headers = thought.headers.clone();
    let Taken { fault, asked, route, named, .. } = receive::take(worker, snapshot, parts, thought.from, None);
    let settled = |told: Prediction| Box::new(Prediction { asked: Some(Arc::clone(&asked)), route, ..told });
    if let Some(failure) = receive::refused(worker, snapshot, fault, &asked) {
        return Err(settled(Prediction::local(failure)));
    }
    if asked.method.as_str() == purging::PURGE {
        let failure = purging::refused(snapshot, &asked).unwrap_or_else(|| {
            let text = "a PURGE is for this cache alone: what is stored under this URL goes";
            Failure::local(StatusCode::OK, "purge", text)
        });
        return Err(settled(Prediction::local(failure)));
    }
    let Some(at) = route else { return Err(settled(Prediction::local(Failure::no_route(&asked)))) };
    if let Some(failure) = rate::would_be_over(worker, snapshot, at, &asked) {
        return Err(settled(Prediction::local(failure)));
    }
    let cache = snapshot.cache(at);
    let upgrades = receive::protocol_wanted(&asked.headers).is_some()
        && snapshot.route(at).is_some_and(|route| route.upgrade);
    let unsaid = Unsaid { upgrades, credential: named.credential, body: !thought.body.is_empty() };
    let bypass = receive::bypass(&asked, snapshot, at, &unsaid);
    let key = receive::key_of(&asked, cache.map(|cache| &cache.key));
    let mut exchange = Exchange {
        alike: None,
        worker: Arc::clone(worker),
        snapshot: Arc::clone(snapshot),
        route: at,
        key,
        seen: None,
        exact: None,
        body: None,
        content: None,
        report: Report::mute(worker, snapshot, &asked, route, worker.mono()),
        asked: Arc::clone(&asked),
        interim: None,
        attempts: 0,
        after: 0,
        names: None,
        own: None,
        waited: Duration::ZERO,
        detail: None,
    };
    if bypass.is_some_and(receive::is_kept_out) && asked.facts.directives.only_if_cached {
        return Err(settled(with(exchange, Prediction::local(Failure::only_if_cached()))));
    }
    let length = thought.body.len() as u64;
    if length > exchange.max_body() {
        let failure = Failure::large_content(exchange.max_body());
        return Err(settled(with(exchange, Prediction::local(failure))));
    }
    let read = (receive::keyed_on_content(&asked, cache) && bypass != Some(Bypass::Upgrade))
        .then(|| keyed(&mut exchange, thought, cache.map_or(0, |cache| cache.max_request_body)));
    if let Some(why) = read.flatten().or(bypass) {
        return Err(settled(with(exchange, Prediction::of(Source::Bypass(why)))));
    }
    exchange.search();
    Ok(exchange)
}

/// The content becomes part of the key, as `content` has it; or why it does not.
fn keyed(exchange: &mut Exchange, thought: &Thought, max: u64) -> Option<Bypass> {
    // Held for a moment, by nobody who waits: it takes nothing of the budget.
    let held = exchange.worker.shared.memory.in_flight().try_reserve(0);
    let Some(held) = held.filter(|_| thought.body.len() as u64 <= max) else {
        return Some(Bypass::LargeBody);
    };
    if !content::only_reads(&exchange.asked, &thought.body) {
        return Some(Bypass::MayChange);
    }
    let asked = &exchange.asked;
    exchange.key = exchange.key.with_content(&asked.method, &asked.headers, &thought.body);
    exchange.content = Some(Content { bytes: thought.body.clone(), held: Arc::new(held) });
    None
}

fn with(exchange: Exchange, told: Prediction) -> Prediction {
    // A look for whoever reads the answer: the request itself takes none.
    let memory = exchange.worker.shared.memory.peek(&exchange.key);
    Prediction { memory, exchange: Some(exchange), ..told }
}

async fn looked_up(mut exchange: Exchange, with_redis: bool) -> Prediction {
    let began = exchange.mono();
    let held = exchange.worker.shared.memory.peek(&exchange.key);
    let resource = lookup::led_to(&mut exchange, held);
    let because = judged_by_memory(&exchange, resource.as_ref());
    let told = match lookup::decide(&mut exchange, resource.as_ref(), began) {
        Decision::Fresh(stored, _, reusable) => {
            let (source, ttl) = (Source::Hit(Tier::Memory), reusable.ttl());
            answered(&exchange, stored, source, ttl)
        }
        Decision::InGrace(stored, _, reusable) => {
            let (source, ttl) = (Source::StaleWhileRevalidate(Tier::Memory), reusable.ttl());
            answered(&exchange, stored, source, ttl)
        }
        Decision::Alone(miss) => alone(&exchange, miss),
        Decision::Bypass(why) => match exchange.asked.facts.directives.only_if_cached {
            true => Prediction::local(Failure::only_if_cached()),
            false => Prediction::of(Source::Bypass(why)),
        },
        Decision::Ask(miss, stale) => {
            match lookup::asking(&exchange, stale.as_deref(), (resource.as_ref(), exchange.worker.now())) {
                Asking::Nobody => Prediction::local(Failure::only_if_cached()),
                Asking::Alone(why) => {
                    exchange.because(Detail::HitForMiss(why));
                    alone(&exchange, miss)
                }
                Asking::Wait => {
                    let wait = Wait { exchange, miss, stale };
                    let told = waited(wait, with_redis).await;
                    return Prediction { because: told.because.or(because.1), memory: resource, ..told };
                }
            }
        }
    };
    let judged = told.judged.clone().or(because.0);
    Prediction {
        memory: resource,
        judged,
        because: told.because.or(because.1),
        exchange: Some(exchange),
        ..told
    }
}

/// What of memory's is judged for the request, and why it may not answer: for people to read.
fn judged_by_memory(
    exchange: &Exchange,
    resource: Option<&Resource>,
) -> (Option<Arc<StoredResponse>>, Option<MustAsk>) {
    let stored = resource.and_then(|resource| resource.select(&exchange.asked.headers, exchange.normalize()));
    let (Some(stored), Some(cache)) = (stored, exchange.cache()) else { return (None, None) };
    if exchange.worker.shared.purges.is_purged(stored) {
        return (None, None);
    }
    let now = (exchange.worker.now(), exchange.mono());
    let because = match exchange.worker.reuse(stored, &exchange.asked.facts, &cache.policy, now) {
        Reuse::Fresh(_) | Reuse::Stale { grace: Some(_), .. } => None,
        Reuse::Stale { because, .. } | Reuse::Refused(because) => Some(because),
    };
    (Some(Arc::clone(stored)), because)
}

/// A stored response goes out, if its client reads it (`transform::deliver`).
fn answered(exchange: &Exchange, stored: Arc<StoredResponse>, source: Source, ttl: i64) -> Prediction {
    if !transform::can_read(exchange, &stored) {
        let told = match exchange.asked.facts.directives.only_if_cached {
            true => Prediction::local(Failure::only_if_cached()),
            false => {
                let miss = Outcome::new(Source::Miss(Miss::Request));
                let outcome = Outcome { detail: Some(transform::CODING), ..miss };
                Prediction { outcome, ..Prediction::of(outcome.source) }
            }
        };
        return Prediction { judged: Some(stored), because: Some(MustAsk::Coding), ..told };
    }
    let outcome = Outcome { ttl: Some(ttl), ..Outcome::new(source) };
    Prediction { outcome, judged: Some(stored), ..Prediction::of(source) }
}

/// To the origin alone, unless nothing is wanted from there.
fn alone(exchange: &Exchange, miss: Miss) -> Prediction {
    match exchange.asked.facts.directives.only_if_cached {
        true => Prediction::local(Failure::only_if_cached()),
        false => Prediction { outcome: exchange.missed(miss), ..Prediction::of(Source::Miss(miss)) },
    }
}

/// What a wait comes to: the shared tier answers, or the origin has to.
async fn waited(mut wait: Wait, with_redis: bool) -> Prediction {
    let redis = if with_redis { look_for(&wait.exchange).await } else { None };
    if matches!(redis, Some(Err(Absent::OtherVariant))) {
        wait.learn(Looked::OtherVariant);
    }
    let cannot = wait.cannot_fill();
    let found = redis.as_ref().and_then(|redis| redis.as_ref().ok()).cloned();
    let told = found.and_then(|found| from_redis(&mut wait, found, cannot.is_some()));
    let told = match told {
        Some(told) => told,
        None => {
            let detail = cannot.flatten();
            wait.exchange.because_of(detail);
            let told = alone(&wait.exchange, wait.miss);
            // §4.3: what is stored is confirmed, if the origin says so.
            let or = wait.stale.as_deref().filter(|stale| cannot.is_none() && can_be_confirmed(&wait, stale));
            let or = or.map(|_| Source::Revalidated(wait.miss));
            Prediction { or: told.or.or(or), ..told }
        }
    };
    let judged = told.judged.clone().or(wait.stale);
    Prediction { redis, judged, exchange: Some(wait.exchange), ..told }
}

/// Whether the origin is asked in a way that it can answer by 304.
fn can_be_confirmed(wait: &Wait, stale: &StoredResponse) -> bool {
    wait.exchange.asked.method != Method::POST
        && stale.content.whole().is_some()
        && !rules::origin_conditions(&stale.facts, &stale.headers.to_map()).is_empty()
}

/// What the shared tier's response comes to (`fill::ask_redis`, `wait::without_a_fill`); `None`: the origin is asked.
fn from_redis(wait: &mut Wait, found: Arc<StoredResponse>, alone_at_once: bool) -> Option<Prediction> {
    let exchange = &wait.exchange;
    let policy = &exchange.cache()?.policy;
    let now = (exchange.worker.now(), exchange.mono());
    let answers = found.cut(&exchange.asked.facts, &exchange.asked.headers).is_some();
    let (source, ttl) = match exchange.worker.reuse(&found, &exchange.asked.facts, policy, now) {
        Reuse::Fresh(reusable) if answers => (Source::Hit(Tier::Redis), reusable.ttl()),
        Reuse::Stale { grace: Some(reusable), .. } if answers => {
            (Source::StaleWhileRevalidate(Tier::Redis), reusable.ttl())
        }
        Reuse::Fresh(_) | Reuse::Stale { grace: Some(_), .. } if alone_at_once => {
            wait.exchange.because(lookup::RANGE);
            return None;
        }
        Reuse::Fresh(_) => {
            wait.learn(Looked::Partial);
            return None;
        }
        Reuse::Stale { because, .. } => {
            wait.learn(Looked::MustAsk(because));
            wait.stale.get_or_insert(found);
            return None;
        }
        Reuse::Refused(because) => {
            let first = wait.stale.is_none();
            wait.learn(Looked::Refused(because));
            let told = alone(&wait.exchange, wait.miss);
            // As `wait::landed_for_owner` has it: it is no request for this cache, unless what the origin says now may
            // be stored for all.
            let told = match first && !alone_at_once {
                true => {
                    let or = Some(told.outcome.source);
                    Prediction { or, ..Prediction::of(Source::Bypass(lookup::refused(because))) }
                }
                false => told,
            };
            return Some(Prediction { judged: Some(found), because: Some(because), ..told });
        }
    };
    Some(answered(&wait.exchange, found, source, ttl))
}

/// What the shared tier holds for a request, for whoever reads the answer.
pub(super) async fn look(
    worker: &Worker,
    predicted: &Prediction,
) -> Option<Result<Arc<StoredResponse>, Absent>> {
    // Of a request that no cache sees, nothing is looked for.
    worker.redis.as_ref()?;
    look_for(predicted.exchange.as_ref()?).await
}

async fn look_for(exchange: &Exchange) -> Option<Result<Arc<StoredResponse>, Absent>> {
    let (doubts, now) = (&exchange.worker.shared.doubts, exchange.worker.now());
    let redis = exchange.worker.redis.as_ref().filter(|_| !doubts.is_in_doubt(exchange.key.hash(), now))?;
    let found = redis.peek(&exchange.key, &exchange.asked.headers, exchange.normalize()).await;
    Some(found.and_then(|found| match exchange.is_led_to(&found.key, &found.facts) {
        true => Ok(found),
        false => Err(Absent::NotFound),
    }))
}

/// Whether a request of this method may be cached by some route.
pub(super) fn may_be_cached(method: &Method) -> bool {
    rules::Methods::ALL.contains(method)
}
