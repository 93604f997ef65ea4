//! PURGE on a public listener: purges the URL that it is sent to.
//!
//! Knows who may (`purge_from`), and the field by which a soft purge is asked for.
//! Must not know: what a purge does.
//!
//! Cancellation: what this process holds is void before anything is waited for; a client that leaves while
//! Redis is told leaves the telling to a queue.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::stored::{Purge, Scope};
use crate::worker::{Asked, NotAUrl, Receipt, Snapshot, Worker};

use super::Step;
use super::deliver::Deliver;
use super::failure::Failure;
use super::report::Report;

/// The method: of no standard, and understood by most caches.
pub(super) const PURGE: &str = "PURGE";
/// The longest that telling the fleet may take, of all keys of the URL together.
const TELL: Duration = Duration::from_secs(1);
/// Fastly's word for a soft one.
const SOFT_PURGE: &str = "fastly-soft-purge";

/// A PURGE that is to be obeyed.
pub(super) struct Purging {
    worker: Arc<Worker>,
    snapshot: Arc<Snapshot>,
    asked: Arc<Asked>,
    report: Box<Report>,
}

/// What becomes of a PURGE.
pub(super) fn step(
    worker: Arc<Worker>,
    snapshot: Arc<Snapshot>,
    asked: Arc<Asked>,
    report: Box<Report>,
) -> Step {
    match refused(&snapshot, &asked) {
        None => Step::Purge(Box::new(Purging { worker, snapshot, asked, report })),
        Some(failure) => Step::Deliver(Box::new(Deliver::refusal(&worker, &snapshot, report, failure))),
    }
}

/// Why a PURGE is not obeyed: it comes from somebody who may not purge.
pub(super) fn refused(snapshot: &Snapshot, asked: &Asked) -> Option<Failure> {
    let text = "PURGE is not taken from this address; purge_from names those that may";
    let may = snapshot.config.may_purge(asked.client);
    (!may).then(|| Failure::local(StatusCode::METHOD_NOT_ALLOWED, "purge", text))
}

impl Purging {
    pub async fn run(self: Box<Self>) -> Step {
        let Self { worker, snapshot, asked, report } = *self;
        let failure = purge(&worker, &snapshot, &asked).await;
        Step::Deliver(Box::new(Deliver::refusal(&worker, &snapshot, report, failure)))
    }
}

/// Of both schemes: who may purge is behind whatever ends TLS, and does not say for whom it is.
async fn purge(worker: &Worker, snapshot: &Snapshot, asked: &Asked) -> Failure {
    let (soft, at) = (is_soft(&asked.headers), worker.now());
    let target = format!("{}{}", asked.authority, asked.target.as_str());
    let purges = ["http", "https"]
        .map(|scheme| Purge { scope: Scope::Url(format!("{scheme}://{target}").into()), soft });
    let memory = Receipt::of_memory(worker.holds_of(snapshot, &purges), soft);
    let begun: Result<Vec<_>, NotAUrl> = purges.iter().map(|purge| worker.purge(snapshot, purge)).collect();
    let Ok(begun) = begun else {
        let text = "the request names no URL that could be stored: it needs a Host";
        return Failure::local(StatusCode::BAD_REQUEST, "purge", text);
    };
    let (mut refused, mut telling) = (None, Vec::new());
    for purging in begun {
        // In a box: else each future of a request would be larger by it.
        let purged = Box::pin(purging).await;
        refused = purged.redis.and_then(Result::err).or(refused);
        telling.extend(purged.fleet);
    }
    if let Some(fleet) = worker.shared.fleet.get() {
        // The others apply it within the bound; whoever wants their word asks the admin listener.
        refused = Box::pin(fleet.tell(telling, TELL)).await.err().or(refused);
    }
    let redis = refused.map_or("told, or not needed", |why| why.as_str());
    tracing::info!(url = target, client = %asked.client, soft, redis, "purge");
    worker.shared.receipts.note(Receipt {
        at,
        by: format!("PURGE from {}", asked.client),
        status: if refused.is_none() { 200 } else { 503 },
        of: "url 1".to_owned(),
        first: target,
        soft,
        memory: memory.to_owned(),
        redis: if worker.redis.is_some() { redis } else { "not configured" }.into(),
        // The others apply it within the bound, and are not waited for.
        fleet: Value::Null,
    });
    match refused {
        None if soft => Failure::purged("it is validated before it is used again"),
        None => Failure::purged("it is gone"),
        Some(why) => {
            let text = format!(
                "purged on this node only; Redis did not take it ({}), and the others hear of it as soon as it is back",
                why.as_str()
            );
            Failure::local(StatusCode::SERVICE_UNAVAILABLE, "purge", &text)
        }
    }
}

fn is_soft(headers: &HeaderMap) -> bool {
    headers.get(SOFT_PURGE).is_some_and(|value| value.as_bytes().trim_ascii() == b"1")
}
