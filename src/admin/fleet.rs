//! The fleet as the admin listener shows it: its nodes, and who has heard of a purge.
//!
//! Must not know: how nodes hear of each other.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use crate::store::{Fleet, Peer, Receipt, Telling};
use crate::worker::Worker;

use super::api::{Answer, error, json_answer};

/// The longest that telling may take in all: of the most names it is some 64 questions.
const TELL: Duration = Duration::from_secs(5);

/// `GET /fleet`: who is there, and how it stands between each and the log of purges.
pub(super) async fn nodes(worker: &Worker) -> Answer {
    let Some(fleet) = worker.shared.fleet.get() else {
        return error(StatusCode::NOT_FOUND, "no redis is configured: this Larder is alone");
    };
    match fleet.nodes().await {
        Ok(nodes) => {
            let nodes: Vec<Value> = nodes.iter().map(|peer| node(fleet, peer)).collect();
            json_answer(StatusCode::OK, &json!({ "this": fleet.name(), "nodes": nodes }))
        }
        Err(why) => {
            let text = format!("redis does not say which nodes there are ({})", why.as_str());
            error(StatusCode::SERVICE_UNAVAILABLE, &text)
        }
    }
}

fn node(fleet: &Fleet, peer: &Peer) -> Value {
    json!({
        "node": peer.name,
        "this": peer.name == fleet.name(),
        "address": peer.address,
        "version": peer.version,
        "started": peer.started,
        "last_seen_s": peer.silent.as_secs_f64(),
        "coherence": peer.state,
        "position": peer.at.n,
    })
}

/// Tells the other nodes, and waits for their word, `wait` at most; `None` where there is no fleet.
pub(super) async fn tell(
    worker: &Worker,
    telling: Vec<Telling>,
    wait: Duration,
) -> Option<(StatusCode, Value)> {
    let fleet = worker.shared.fleet.get()?;
    if telling.is_empty() {
        return None;
    }
    let last = match fleet.tell(telling, TELL).await {
        Ok(Some(last)) => last,
        Ok(None) => return None,
        Err(why) => {
            let text = format!(
                "redis is unreachable ({}): applied on this node only; the others hear of it as soon as it is back",
                why.as_str()
            );
            return Some((StatusCode::SERVICE_UNAVAILABLE, json!({ "error": text })));
        }
    };
    Some(match fleet.receipt(last, wait).await {
        Ok(receipt) => (StatusCode::OK, shown(&receipt, last.n, wait)),
        Err(why) => {
            let text =
                format!("told to all nodes; redis does not say who has heard of it ({})", why.as_str());
            (StatusCode::OK, json!({ "sequence": last.n, "error": text }))
        }
    })
}

fn shown(receipt: &Receipt, sequence: u64, wait: Duration) -> Value {
    let acknowledged: Vec<Value> = receipt
        .acknowledged
        .iter()
        .map(|(peer, after)| {
            json!({ "node": peer.name, "address": peer.address, "after_s": after.as_secs_f64() })
        })
        .collect();
    let slowest = receipt.acknowledged.iter().max_by_key(|(_, after)| *after);
    let missing: Vec<Value> = receipt
        .missing
        .iter()
        .map(|peer| {
            json!({
                "node": peer.name,
                "address": peer.address,
                "last_seen_s": peer.silent.as_secs_f64(),
                "coherence": peer.state,
            })
        })
        .collect();
    json!({
        "sequence": sequence,
        "waited_at_most_s": wait.as_secs_f64(),
        "acknowledged": acknowledged,
        "slowest": slowest.map(|(peer, after)| json!({ "node": peer.name, "after_s": after.as_secs_f64() })),
        "missing": missing,
    })
}
