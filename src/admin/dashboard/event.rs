//! What the page is told: the figures, what the configuration says beside them, and the latest purges.
//!
//! Must not know: who is told.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::worker::{Snapshot, Worker};

use super::super::gauges;
use super::tune;

/// Slow requests that are shown, the last one first.
const SLOW: usize = 20;
/// Purges that are shown.
const PURGES: usize = 12;

/// One event, as it goes over the wire; `whole` is the first that a page is told.
pub(crate) fn event(worker: &Worker, whole: bool) -> Bytes {
    // Before the figures: where it stops, they are of no moment before that.
    let stopping = worker.shared.draining.load(Ordering::Acquire);
    let snapshot = worker.shared.snapshot.load_full();
    let mut live = snapshot.metrics.live(&gauges::gather(worker), whole);
    let rows = live.get_mut("routes").map(Value::take).unwrap_or_default();
    let mut rows = match rows {
        Value::Array(rows) => rows,
        _ => Vec::new(),
    };
    let tune = tune::next(&rows, &snapshot.config, |route| snapshot.metrics.missed_urls(route));
    rows.iter_mut().for_each(|row| configured(&snapshot, row));
    if let Some(live) = live.as_object_mut() {
        live.insert("at_ms".to_owned(), json!(worker.now().as_millis()));
        live.insert("version".to_owned(), json!(env!("CARGO_PKG_VERSION")));
        live.insert("stopping".to_owned(), json!(stopping));
        live.insert("routes".to_owned(), rows.into());
        live.insert("tune".to_owned(), tune.into());
        live.insert("purges".to_owned(), worker.shared.receipts.latest(PURGES));
        let slow = worker.shared.slow.since(0);
        live.insert("slow".to_owned(), slow.iter().rev().take(SLOW).map(|slow| json!(**slow)).collect());
        let limits = snapshot.config.routes.iter().map(|route| route.slow_request);
        let least = limits.chain([snapshot.config.timing.slow_request]).flatten().min();
        live.insert("slow_after_s".to_owned(), json!(least.map(|limit| limit.as_secs_f64())));
    }
    // JSON has no line feeds but those that are escaped, so it is one line of an event.
    let name = if whole { "whole" } else { "tick" };
    format!("event: {name}\ndata: {live}\n\n").into()
}

/// All of one route, as JSON; `None` where there is none of that name.
pub(crate) fn of_route(worker: &Worker, name: &str) -> Option<Value> {
    let snapshot = worker.shared.snapshot.load_full();
    let mut route = snapshot.metrics.of_route(name, &gauges::gather(worker))?;
    configured(&snapshot, &mut route);
    Some(route)
}

/// What the configuration says of a route.
fn configured(snapshot: &Snapshot, row: &mut Value) {
    let name = row.get("route").and_then(Value::as_str).unwrap_or_default();
    let route = snapshot.config.routes.iter().position(|route| route.name == name);
    let config = match route.and_then(|at| Some((snapshot.route(at)?, at))) {
        Some((route, at)) => json!({
            "line": route.line,
            "upstream": snapshot.upstream_name(at),
            "caches": route.cache.is_some(),
            "lifetime": tune::lifetime(route.cache.as_ref()),
        }),
        // Of a former configuration, or of what no route takes.
        None => Value::Null,
    };
    if let Some(row) = row.as_object_mut() {
        row.insert("config".to_owned(), config);
    }
}
