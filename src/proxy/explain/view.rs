//! What the route and each tier say of a request, for people.
//!
//! Must not know: what is decided by it.

use std::time::Duration;

use http::HeaderName;
use serde_json::{Map, Value, json};

use crate::clock::Timestamp;
use crate::fields::tags;
use crate::rules::{self, LifetimeSource, Policy};
use crate::stored::StoredResponse;
use crate::worker::{Snapshot, Worker};

use super::key::{HIDDEN, is_secret};
use super::predict::Prediction;

/// Variants that are shown of a key.
const VARIANTS: usize = 32;
/// Tags that are shown of a response.
const TAGS: usize = 64;

/// The route, and where it stands.
pub(super) fn route(snapshot: &Snapshot, route: Option<usize>, file: Option<&str>) -> Value {
    let Some((at, route)) = route.and_then(|at| Some((at, snapshot.route(at)?))) else { return Value::Null };
    json!({
        "name": route.name,
        "file": file,
        "line": route.line,
        "upstream": snapshot.upstream_name(at),
        "caches": route.cache.is_some(),
    })
}

/// What memory holds under the key.
pub(super) fn memory(worker: &Worker, snapshot: &Snapshot, predicted: &Prediction, now: Timestamp) -> Value {
    let Some(exchange) = &predicted.exchange else { return Value::Null };
    let Some(resource) = &predicted.memory else { return json!({ "variants": [] }) };
    let selected = resource.select(&exchange.asked.headers, exchange.normalize());
    let shown = resource.variants.iter().take(VARIANTS);
    let variants: Vec<Value> = shown
        .map(|stored| {
            let mut told = response(snapshot, exchange.route, stored, now);
            let is_selected = selected.is_some_and(|selected| std::sync::Arc::ptr_eq(selected, stored));
            told.insert("selected".to_owned(), is_selected.into());
            told.insert("purged".to_owned(), worker.shared.purges.is_purged(stored).into());
            Value::Object(told)
        })
        .collect();
    let marked = resource.marked(exchange.class(), now).map(|why| why.as_str());
    json!({ "variants": variants, "count": resource.variants.len(), "known_uncacheable": marked })
}

/// What Redis holds for the request.
pub(super) fn redis(worker: &Worker, snapshot: &Snapshot, predicted: &Prediction, now: Timestamp) -> Value {
    let Some(redis) = &worker.redis else { return Value::Null };
    let found = match (&predicted.redis, &predicted.exchange) {
        (Some(Ok(stored)), Some(exchange)) => {
            json!({ "response": response(snapshot, exchange.route, stored, now) })
        }
        (Some(Err(absent)), _) => json!({ "absent": absent.as_str() }),
        _ => json!({ "absent": "not-asked" }),
    };
    let mut told = found.as_object().cloned().unwrap_or_default();
    told.insert("breaker".to_owned(), redis.state().into());
    Value::Object(told)
}

fn response(
    snapshot: &Snapshot,
    route: usize,
    stored: &StoredResponse,
    now: Timestamp,
) -> Map<String, Value> {
    let plain = Policy::default();
    let policy = snapshot.cache(route).map_or(&plain, |cache| &cache.policy);
    let (age, lifetime) = (rules::current_age(&stored.facts, now), rules::lifetime(&stored.facts, policy));
    let vary: Map<String, Value> = stored
        .selecting
        .parts()
        .map(|(name, value)| (name.as_str().to_owned(), selecting(name, value)))
        .collect();
    let told = json!({
        "status": stored.status.as_u16(),
        "age": seconds(age),
        "lifetime": seconds(lifetime.duration),
        "lifetime_from": source(lifetime.source),
        "fresh": lifetime.duration > age,
        "vary": vary,
        "tags": tags_of(snapshot, route, stored),
        "groups": stored.facts.groups.iter().take(TAGS).collect::<Vec<_>>(),
        "length": stored.content.length(),
        "held": stored.content.held(),
        "weight": stored.weight(),
        "validator": stored.facts.has_validator(),
        "soft_purged": stored.standing.is_soft(),
    });
    told.as_object().cloned().unwrap_or_default()
}

fn selecting(name: &HeaderName, value: Option<&[u8]>) -> Value {
    match value {
        None => Value::Null,
        Some(_) if is_secret(name.as_str()) => HIDDEN.into(),
        Some(value) => String::from_utf8_lossy(value).into(),
    }
}

fn tags_of(snapshot: &Snapshot, route: usize, stored: &StoredResponse) -> Vec<String> {
    let also = snapshot.route(route).and_then(|route| route.tags.header.as_ref());
    let mut found: Vec<String> = Vec::new();
    tags::each(&stored.headers.to_map(), also, |tag| {
        if found.len() < TAGS {
            found.push(String::from_utf8_lossy(tag).into_owned());
        }
    });
    found
}

/// Seconds, to the millisecond.
fn seconds(time: Duration) -> f64 {
    time.as_millis() as f64 / 1000.0
}

/// Whose word a lifetime is, as users write it.
pub(super) const fn source(source: LifetimeSource) -> &'static str {
    match source {
        LifetimeSource::Override => "ttl.override",
        LifetimeSource::SMaxAge => "s-maxage",
        LifetimeSource::MaxAge => "max-age",
        LifetimeSource::Expires => "Expires",
        LifetimeSource::Default => "ttl.default",
        LifetimeSource::Heuristic => "heuristic",
        LifetimeSource::None => "nobody",
    }
}
