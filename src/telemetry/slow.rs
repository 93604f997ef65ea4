//! The last slow requests, for who asks later or follows them as they come.
//!
//! Knows how many are kept, and what is told of each: no more than a log may show. Each has a number, so that who asks
//! again gets what is new, and hears what was lost in between.
//! Must not know: which requests are slow, or who asks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::ser::{SerializeMap, SerializeStruct};
use serde::{Serialize, Serializer};
use tokio::sync::watch;

use super::access::clipped;
use super::finish::{End, Finished};
use super::logs::millis;
use super::outcome::{Outcome, Tier};
use super::stamp::Rfc3339;
use super::timeline::{Phase, Timeline};
use crate::clock::Timestamp;

/// Requests that are kept: with the longest of hosts and paths they take 1.2 MiB, as most come 100 KiB.
const KEPT: usize = 256;

/// A request that took longer than its limit.
#[derive(Clone, Debug)]
pub struct SlowRequest {
    /// Its number, from 1, in the order in which they ended.
    pub sequence: u64,
    /// When it arrived.
    pub at: Timestamp,
    /// Its method.
    pub method: String,
    /// Its authority, cut where it is long.
    pub host: String,
    /// Path and query as a log may show them, cut where they are long.
    pub path: String,
    /// The name of its route; `-` where none took it.
    pub route: String,
    /// The status delivered.
    pub status: u16,
    /// Where the answer came from, and why.
    pub outcome: Outcome,
    /// Where the time went.
    pub timeline: Timeline,
    /// From its head to the end of its answer.
    pub total: Duration,
    /// What it was slower than.
    pub limit: Duration,
    /// How its answer ended.
    pub end: End,
    /// Its trace, in hexadecimal, where it has one.
    pub trace_id: Option<String>,
    /// Its `X-Request-Id`, where it has one.
    pub request_id: Option<String>,
}

/// The last of them, in the order in which they ended.
#[derive(Debug)]
pub struct SlowRequests {
    kept: Mutex<Kept>,
    /// The number of the last.
    last: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    last: u64,
    requests: VecDeque<Arc<SlowRequest>>,
}

impl Default for SlowRequests {
    fn default() -> Self {
        Self { kept: Mutex::default(), last: watch::channel(0).0 }
    }
}

impl SlowRequests {
    /// Keeps one that was slower than `limit`, in place of the oldest where there are many.
    pub fn push(&self, r: &Finished, limit: Duration) {
        let mut slow = SlowRequest::of(r, limit);
        let mut kept = self.kept.lock();
        kept.last += 1;
        slow.sequence = kept.last;
        // Dropped after the lock is.
        let _oldest = (kept.requests.len() >= KEPT).then(|| kept.requests.pop_front());
        kept.requests.push_back(Arc::new(slow));
        // With the lock held, so that the numbers come in their order.
        self.last.send_replace(kept.last);
    }

    /// Those that are kept with a number above `sequence`; of 0 on, all.
    pub fn since(&self, sequence: u64) -> Vec<Arc<SlowRequest>> {
        let kept = self.kept.lock();
        // They have all numbers up to the last.
        let new = usize::try_from(kept.last.saturating_sub(sequence)).unwrap_or(usize::MAX);
        let skipped = kept.requests.len().saturating_sub(new);
        kept.requests.iter().skip(skipped).cloned().collect()
    }

    /// The number of the last; 0 where there was none.
    pub fn last(&self) -> u64 {
        *self.last.borrow()
    }

    /// Resolves when there is one with a number above `sequence`.
    pub async fn after(&self, sequence: u64) {
        // Its sender is `self`: it cannot be gone. A number that went by unseen is in what `last` says.
        let mut last = self.last.subscribe();
        let _gone = last.wait_for(|last| *last > sequence).await;
    }
}

impl SlowRequest {
    fn of(r: &Finished, limit: Duration) -> Self {
        let ids = r.ids;
        Self {
            sequence: 0,
            at: r.at,
            method: clipped(r.method.as_str()).to_owned(),
            host: clipped(r.host).to_owned(),
            path: clipped(&r.shown_path()).to_owned(),
            route: r.route_name.to_owned(),
            status: r.status,
            outcome: *r.outcome,
            timeline: r.timeline.clone(),
            total: r.total,
            limit,
            end: r.end,
            trace_id: ids.and_then(|ids| ids.trace).map(|trace| trace.trace_id()),
            request_id: ids.and_then(|ids| ids.request.as_ref()?.to_str().ok()).map(str::to_owned),
        }
    }
}

impl Serialize for SlowRequest {
    /// The names are those of the access log and of the slow log. What there is none of is null.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("SlowRequest", 17)?;
        object.serialize_field("sequence", &self.sequence)?;
        object.serialize_field("ts", &Rfc3339(self.at).to_string())?;
        object.serialize_field("method", &self.method)?;
        object.serialize_field("host", &self.host)?;
        object.serialize_field("path", &self.path)?;
        object.serialize_field("route", &self.route)?;
        object.serialize_field("status", &self.status)?;
        object.serialize_field("outcome", self.outcome.result())?;
        object.serialize_field("tier", &self.outcome.tier().map(Tier::as_str))?;
        object.serialize_field("reason", &self.outcome.reason())?;
        object.serialize_field("detail", &self.outcome.note())?;
        object.serialize_field("total_ms", &millis(self.total))?;
        object.serialize_field("limit_ms", &millis(self.limit))?;
        object.serialize_field("phases_ms", &Phases(&self.timeline))?;
        object.serialize_field("end", self.end.as_str())?;
        object.serialize_field("trace_id", &self.trace_id)?;
        object.serialize_field("request_id", &self.request_id)?;
        object.end()
    }
}

/// The phases that happened, in milliseconds.
struct Phases<'a>(&'a Timeline);

impl Serialize for Phases<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        for phase in Phase::ALL {
            if let Some(took) = self.0.get(phase) {
                object.serialize_entry(phase.as_str(), &millis(took))?;
            }
        }
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::super::finish::sample;
    use super::super::outcome::Source;
    use super::*;
    use crate::clock::Mono;

    const LIMIT: Duration = Duration::from_millis(500);

    fn push(slow: &SlowRequests, path: &str, redact: &[String]) {
        let mut timeline = Timeline::new(Mono::default());
        timeline.add(Phase::FirstByte, Duration::from_millis(1500));
        let outcome = Outcome::new(Source::Hit(Tier::Redis));
        sample::with(&outcome, |r| {
            slow.push(&Finished { path, redact, timeline: &timeline, ..r }, LIMIT);
        });
    }

    fn numbers(slow: &SlowRequests, sequence: u64) -> Vec<u64> {
        slow.since(sequence).iter().map(|slow| slow.sequence).collect()
    }

    #[test]
    fn who_asks_again_gets_what_is_new_and_the_oldest_give_way() {
        let slow = SlowRequests::default();
        assert_eq!((slow.last(), numbers(&slow, 0)), (0, vec![]));
        (0..3).for_each(|_| push(&slow, "/", &[]));
        assert_eq!((slow.last(), numbers(&slow, 0)), (3, vec![1, 2, 3]));
        for (sequence, new) in [(1, vec![2, 3]), (2, vec![3]), (3, vec![]), (u64::MAX, vec![])] {
            assert_eq!(numbers(&slow, sequence), new, "{sequence}");
        }
        (0..KEPT).for_each(|_| push(&slow, "/", &[]));
        let all = numbers(&slow, 0);
        assert_eq!((all.len(), all[0], all[KEPT - 1]), (KEPT, 4, KEPT as u64 + 3));
        assert_eq!(numbers(&slow, 1), all, "what is lost is not made up for");
    }

    #[test]
    fn who_follows_is_woken_by_the_next_and_by_one_that_has_come_already() {
        let slow = SlowRequests::default();
        let mut next = Box::pin(slow.after(0));
        assert!((&mut next).now_or_never().is_none());
        push(&slow, "/", &[]);
        assert!(next.now_or_never().is_some());
        assert!(slow.after(0).now_or_never().is_some());
        assert!(slow.after(1).now_or_never().is_none());
    }

    #[test]
    fn each_is_told_with_its_phases_and_without_secrets_and_is_bounded() {
        let slow = SlowRequests::default();
        push(&slow, "/slow?token=hunter2", &["token".to_owned()]);
        push(&slow, &format!("/{}", "a".repeat(100_000)), &[]);
        let [first, long] = slow.since(0).try_into().unwrap();
        let told = serde_json::to_value(&*first).unwrap();
        assert!(told["path"].as_str().unwrap().starts_with("/slow?token=redacted-"), "{told}");
        assert!(!told.to_string().contains("hunter2"), "{told}");
        assert_eq!(told["phases_ms"], serde_json::json!({ "first_byte": 1500.0 }));
        assert_eq!((&told["sequence"], &told["ts"]), (&1.into(), &"2024-02-29T12:34:56.789Z".into()));
        assert_eq!((&told["outcome"], &told["tier"]), (&"hit".into(), &"redis".into()));
        assert_eq!((&told["total_ms"], &told["limit_ms"]), (&0.812.into(), &500.0.into()));
        assert!(told["trace_id"].is_null() && told["request_id"].is_null(), "{told}");
        assert!(long.path.len() < 4096, "{}", long.path.len());
    }
}
