//! `GET /slow`: the last slow requests, and those that come while somebody waits for them.
//!
//! Knows how long one may wait, and how many may at once.
//! Must not know: which requests are slow.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::config::Config;
use crate::telemetry::{SlowRequest, SlowRequests};
use crate::worker::Worker;

use super::api::{Answer, error, json_answer};

/// The longest that an answer is held back: who follows asks again.
const WAIT: Duration = Duration::from_secs(5);
/// Who may wait at once; each holds one of the places of the admin listener.
const FOLLOWERS: usize = 8;

static PLACES: Semaphore = Semaphore::const_new(FOLLOWERS);

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wanted {
    /// Those with a higher number than this.
    since: u64,
    /// How long to wait for one where there is none.
    wait: Duration,
}

/// Says which requests were slow.
///
/// Cancellation: whoever leaves while waiting gives its place back with the future.
pub(super) async fn slow(worker: &Arc<Worker>, request: &Request<Incoming>) -> Answer {
    let wanted = match read(request.uri().query().unwrap_or_default()) {
        Ok(wanted) => wanted,
        Err(why) => return error(StatusCode::BAD_REQUEST, &why),
    };
    let slow = &worker.shared.slow;
    // A number that this process has not given is of the one before it.
    let since = if wanted.since > slow.last() { 0 } else { wanted.since };
    // An answer at `limits.admin_time` would be none.
    let most = WAIT.min(worker.shared.snapshot.load().config.limits.admin_time / 2);
    let waited = waited(slow, since, wanted.wait.min(most)).await;
    let process = worker.shared.started_at.as_millis();
    json_answer(StatusCode::OK, &answer(&slow.since(since), since, process, waited))
}

/// Waits for one that is newer; `false` where as many wait already as may.
async fn waited(slow: &SlowRequests, since: u64, wait: Duration) -> bool {
    if wait.is_zero() || slow.last() > since {
        return true;
    }
    let Ok(_place) = PLACES.try_acquire() else { return false };
    let _none_came = timeout(wait, slow.after(since)).await;
    true
}

fn answer(requests: &[Arc<SlowRequest>], since: u64, process: u64, waited: bool) -> Value {
    let lost = requests.first().map_or(0, |first| first.sequence.saturating_sub(since.saturating_add(1)));
    json!({
        // By which a follower sees that the numbers begin anew.
        "process": process,
        "last": requests.last().map_or(since, |last| last.sequence),
        "lost": lost,
        "waited": waited,
        "requests": requests.iter().map(|slow| json!(**slow)).collect::<Vec<Value>>(),
    })
}

fn read(query: &str) -> Result<Wanted, String> {
    let mut wanted = Wanted::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "since" => wanted.since = value.parse().map_err(|_| "since: write the `last` of an answer")?,
            "wait" => wanted.wait = Config::duration(&value).map_err(|why| format!("wait: {why}"))?,
            _ => return Err("there are `since` and `wait`".to_owned()),
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_asked_is_read_and_the_rest_is_told() {
        let rows = [
            ("", Ok((0, Duration::ZERO))),
            ("since=7", Ok((7, Duration::ZERO))),
            ("wait=5s&since=18446744073709551614", Ok((u64::MAX - 1, Duration::from_secs(5)))),
            ("since=-1", Err("since")),
            ("since=18446744073709551616", Err("since")),
            ("wait=5", Err("wait")),
            ("last=5", Err("there are")),
        ];
        for (query, expected) in rows {
            let read = read(query).map(|wanted| (wanted.since, wanted.wait));
            match (read, expected) {
                (Ok(read), Ok(expected)) => assert_eq!(read, expected, "{query}"),
                (Err(why), Err(begins)) => assert!(why.starts_with(begins), "{query}: {why}"),
                (read, _) => panic!("{query}: {read:?}"),
            }
        }
    }
}
