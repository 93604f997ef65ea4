//! A warm start: nodes name to each other what is asked for most, and one that starts reads that before it says that
//! it is ready.
//!
//! Knows what is worth naming and reading, and the bounds of both: so many names, so much time, a part of the memory
//! tier, and so many bytes at once, which come out of `cache.in_flight`. All of it is advice: whatever goes wrong,
//! the node is ready and fetches what it lacks. It serves meanwhile, too, whoever asks.
//!
//! What is read unasked is held to all that a lookup asks of it. Each batch is read under a seat on the flight of
//! each of its URLs, as fills hold one, so that a purge that comes in between leaves a note (`forget`).
//! Must not know: how lists are kept in Redis.
//!
//! Cancellation: dropped at any point, what was kept stays and what was not is not; the seats are given up.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, Method, Uri};
use tokio::time::{Instant, sleep, timeout_at};

use crate::config::WarmStart;
use crate::flight::FlightKey;
use crate::rules::{RequestFacts, Reuse};
use crate::store::{Absent, Name, Redis, Resource};
use crate::stored::StoredResponse;
use crate::telemetry::{WarmGauges, supervise};

use super::{Snapshot, Worker};

/// Names that Redis is asked about in one question.
const BATCH: usize = 256;
/// Bytes that are read in one, of more than one response.
const AT_ONCE: u64 = 2 << 20;
/// How often counts fade.
const FADE: Duration = Duration::from_secs(60);
/// Names that are gathered in one go, and the pause between two, as for the sweep: other work of this thread waits.
const STEP: usize = 256;
const PAUSE: Duration = Duration::from_millis(5);
/// The lane of the seats. Should a variant have the same by chance, who meets it there finds it abandoned, and looks again.
const LANE: u64 = u64::MAX - 1;

/// How far the warm start has come.
#[derive(Debug, Default)]
pub struct Warming {
    enabled: bool,
    over: AtomicBool,
    loaded: AtomicU64,
    skipped: AtomicU64,
    named: AtomicU64,
    millis: AtomicU64,
}

impl Warming {
    /// One that is yet to be; or over already, where there is to be `none`.
    pub fn new(none: bool) -> Self {
        Self { enabled: !none, over: AtomicBool::new(none), ..Self::default() }
    }

    /// Whether it is over, so that this node may say that it is ready.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Figures.
    pub fn gauges(&self) -> WarmGauges {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WarmGauges {
            enabled: self.enabled,
            over: self.is_over(),
            loaded: count(&self.loaded),
            skipped: count(&self.skipped),
            named: count(&self.named),
            took: Duration::from_millis(count(&self.millis)),
        }
    }
}

/// It is over, whatever became of it.
struct Over<'a>(&'a Warming, Instant);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        let took = u64::try_from(self.1.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.millis.store(took, Ordering::Relaxed);
        self.0.over.store(true, Ordering::Release);
    }
}

/// Why reading came to an end before all was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Redis(Absent),
    NoRoom,
}

/// Reads what others have named, then names what is asked for here, for ever; on the current runtime, where both a
/// Redis and a warm start are configured.
pub fn spawn(worker: &Arc<Worker>) {
    let warm_start = worker.shared.snapshot.load().config.cache.warm_start;
    let (Some(warm_start), true) = (warm_start, worker.redis.is_some()) else {
        // Redis could not be used after all.
        return worker.shared.warming.over.store(true, Ordering::Release);
    };
    let worker = Arc::clone(worker);
    let run = move || {
        let worker = Arc::clone(&worker);
        async move {
            let Some(redis) = &worker.redis else { return };
            // Should it panic, it is over, and is not begun anew.
            if !worker.shared.warming.is_over() {
                worker.start_warm(redis, warm_start).await;
            }
            worker.name_for_ever(redis, warm_start).await;
        }
    };
    tokio::spawn(supervise("warm start", run));
}

impl Worker {
    async fn start_warm(&self, redis: &Redis, warm_start: WarmStart) {
        let warming = &self.shared.warming;
        let began = Instant::now();
        let over = Over(warming, began);
        let reading = async {
            self.heard(redis, warm_start.time).await?;
            let names = redis.hot(warm_start.keys).await.map_err(Ended::Redis)?;
            self.read_all(redis, &names).await
        };
        let read = timeout_at(began + warm_start.time, reading).await;
        drop(over);
        let WarmGauges { loaded, skipped, took, .. } = warming.gauges();
        let why = match read {
            Ok(Ok(())) => "all was read",
            Ok(Err(Ended::Redis(why))) => why.as_str(),
            Ok(Err(Ended::NoRoom)) => "there is no room for more",
            Err(_) => "its time was over",
        };
        tracing::info!(target: "larder::fleet", loaded, skipped, took_s = took.as_secs_f64(), why, "warm start");
    }

    /// Waits until this node knows what was purged; not for a Redis that is not there.
    async fn heard(&self, redis: &Redis, within: Duration) -> Result<(), Ended> {
        let (Some(fleet), Some(coherence)) = (self.shared.fleet.get(), &self.shared.coherence) else {
            return Err(Ended::Redis(Absent::Error));
        };
        let until = Instant::now() + within;
        loop {
            if coherence.hears(self.mono()) {
                return Ok(());
            }
            if redis.state() != "closed" || Instant::now() >= until {
                return Err(Ended::Redis(Absent::Open));
            }
            // A look at the breaker now and then: whoever waits for the log alone waits also for a Redis that has gone.
            fleet.heard(Duration::from_millis(50)).await;
        }
    }

    async fn read_all(&self, redis: &Redis, names: &[Name]) -> Result<(), Ended> {
        let snapshot = self.shared.snapshot.load_full();
        // What is asked for here from now on has its part, too.
        let mut room = snapshot.config.cache.memory / 4 * 3;
        let longest = redis.longest();
        for batch in names.chunks(BATCH) {
            let lengths = redis.lengths(batch).await.map_err(Ended::Redis)?;
            let there: Vec<(Name, u64)> = batch
                .iter()
                .copied()
                .zip(lengths)
                .filter(|(_, length)| (1..=longest).contains(length))
                .collect();
            self.skip(batch.len().saturating_sub(there.len()));
            for part in parts(&there) {
                let bytes: u64 = part.iter().map(|(_, length)| *length).sum();
                let _reserved = self.shared.memory.room(bytes, true).ok_or(Ended::NoRoom)?;
                let part: Vec<Name> = part.iter().map(|(name, _)| *name).collect();
                self.read(redis, &snapshot, &part, &mut room).await?;
            }
        }
        Ok(())
    }

    /// Reads these, and keeps what is fresh as long as there is `room`.
    pub(super) async fn read(
        &self,
        redis: &Redis,
        snapshot: &Snapshot,
        names: &[Name],
        room: &mut u64,
    ) -> Result<(), Ended> {
        let flights = &self.shared.flights;
        let seats: Vec<_> = names
            .iter()
            .filter_map(|name| flights.join_if_free(FlightKey { key: name.url, lane: LANE }))
            .collect();
        let found = redis.named(names).await.map_err(Ended::Redis)?;
        let mut kept = 0;
        for response in found {
            if !self.is_worth_keeping(snapshot, &response) {
                continue;
            }
            let weight = u64::try_from(response.weight()).unwrap_or(u64::MAX);
            *room = room.checked_sub(weight).ok_or(Ended::NoRoom)?;
            if self.shared.memory.warm(&response, &self.shared.purges) {
                kept += 1;
                self.shared.warming.loaded.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.skip(names.len().saturating_sub(kept));
        drop(seats);
        Ok(())
    }

    fn skip(&self, count: usize) {
        self.shared.warming.skipped.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Whether a GET of its URL would be answered with it now, by the route that takes it.
    fn is_worth_keeping(&self, snapshot: &Snapshot, response: &StoredResponse) -> bool {
        let Ok(uri) = response.key.url().parse::<Uri>() else { return false };
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        let route = snapshot.config.route(&Method::GET, &host, uri.path());
        let Some(cache) = route.and_then(|route| snapshot.cache(route)) else { return false };
        if self.shared.doubts.is_in_doubt(response.key.hash(), self.now()) {
            return false;
        }
        let asked = RequestFacts::of(&Method::GET, &HeaderMap::new());
        let verdict = self.reuse(response, &asked, &cache.policy, (self.now(), self.mono()));
        matches!(verdict, Reuse::Fresh(_))
    }

    /// Tells others now and then what is asked for most here.
    async fn name_for_ever(&self, redis: &Redis, warm_start: WarmStart) {
        let (mut place, mut faded) = (None, Instant::now());
        loop {
            sleep(warm_start.every).await;
            if faded.elapsed() >= FADE {
                self.shared.hot.fade();
                faded = Instant::now();
            }
            let names = self.names(warm_start.keys).await;
            // Nobody is told by a node that holds nothing that nothing is asked for.
            if names.is_empty() {
                continue;
            }
            let at = match place {
                Some(at) => at,
                None => match redis.hot_place().await {
                    Ok(at) => *place.insert(at),
                    Err(_) => continue,
                },
            };
            // What Redis has not taken is named anew the next time.
            if redis.name_hot(at, &names).await.is_ok() {
                self.shared.warming.named.store(names.len() as u64, Ordering::Relaxed);
            }
        }
    }

    /// What is asked for most and, where that is less than `most`, what else memory holds.
    async fn names(&self, most: usize) -> Vec<Name> {
        let shared = &self.shared;
        let (mut names, mut seen) = (Vec::new(), HashSet::new());
        for (nth, (hash, count)) in shared.hot.top(most).into_iter().enumerate() {
            if let Some(resource) = shared.memory.hashed(hash) {
                seen.insert(hash);
                self.name(&resource, count, &mut names);
            }
            rest(nth).await;
        }
        if names.len() < most {
            for (nth, resource) in shared.memory.all().filter(holds_any).take(most).enumerate() {
                if names.len() >= most {
                    break;
                }
                if !seen.contains(&resource.key().hash()) {
                    self.name(&resource, 0, &mut names);
                }
                rest(nth).await;
            }
        }
        names.truncate(most);
        names
    }

    /// Each variant that others may find in Redis.
    fn name(&self, resource: &Resource, count: u32, names: &mut Vec<Name>) {
        let largest = self.shared.snapshot.load().config.cache.redis_max_object;
        let there = resource
            .variants
            .iter()
            .filter(|variant| variant.content.held() <= largest && !self.shared.purges.is_purged(variant));
        names.extend(there.filter_map(|variant| Name::of(variant, count)));
    }
}

fn holds_any(resource: &Resource) -> bool {
    !resource.variants.is_empty()
}

async fn rest(nth: usize) {
    if nth % STEP == STEP - 1 {
        sleep(PAUSE).await;
    }
}

/// In order, in parts of [`AT_ONCE`] bytes, or of one.
fn parts(names: &[(Name, u64)]) -> impl Iterator<Item = &[(Name, u64)]> {
    let mut left = names;
    std::iter::from_fn(move || {
        let mut bytes: u64 = 0;
        let fits = |(_, length): &&(Name, u64)| {
            let first = bytes == 0;
            bytes = bytes.saturating_add(*length);
            first || bytes <= AT_ONCE
        };
        let count = left.iter().take_while(fits).count();
        let (part, rest) = left.split_at_checked(count).filter(|_| count > 0)?;
        left = rest;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_at_once_is_bounded_in_bytes_and_nothing_is_left_out() {
        let name = Name { url: 1, extras: None, variant: None, weight: 0 };
        for (lengths, expected) in [
            (vec![], vec![]),
            (vec![1], vec![1]),
            (vec![AT_ONCE, 1], vec![1, 1]),
            (vec![AT_ONCE - 1, 1, 1], vec![2, 1]),
            (vec![AT_ONCE * 3, AT_ONCE * 3, 1, 1], vec![1, 1, 2]),
        ] {
            let names: Vec<_> = lengths.iter().map(|length| (name, *length)).collect();
            let counts: Vec<usize> = parts(&names).map(<[_]>::len).collect();
            assert_eq!(counts, expected, "{lengths:?}");
        }
    }
}
