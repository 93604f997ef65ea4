//! Counters: one block per worker, summed when somebody asks.
//!
//! The set of metrics and labels is closed, so a counter is a field and an event is one addition
//! to memory that no other worker writes; there is no map, no lock and no label on the
//! way. A scrape sums all blocks into one [`Snapshot`], from which `/stats` and `/metrics` are both
//! written.
//! Knows what is counted, and what "failed" and "missed" mean. Must not know: how it is shown.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::cause::Cause;
use super::finish::{End, Finished};
use super::gauges::Gauges;
use super::histogram::{Count, Histogram};
use super::noted::{self, Noted};
use super::openmetrics::Format;
use super::outcome::{Bypass, Kind, Miss, Outcome, Tier};
use super::timeline::{Phase, nanos};
use super::windows::{Tally, Windows};
use super::{exposition, live, stats};
use crate::rules::{Finding, NotStored};

/// The label `route` of what no route matched; also the label `tier` where no tier answered.
pub const NONE: &str = "-";

/// Routes that the configuration has no more whose counters are still shown.
const PAST_ROUTES: usize = 256;

/// All counters of the process, as one configuration writes them.
#[derive(Debug)]
pub struct Metrics {
    /// The routes' names, then [`NONE`].
    names: Vec<String>,
    /// Names of former configurations' routes, the one given up last at the end. They are still shown:
    /// their last requests may be on their way, and no count may be less than it was.
    past: Vec<String>,
    /// What was counted of routes given up so long ago that they are not shown by name any more.
    forgotten: RouteCounts<u64>,
    /// What the counters were a while ago.
    pub(super) windows: Arc<Windows>,
    /// What some requests were like, by way of example.
    pub(super) noted: Arc<Noted>,
    first: Shard,
    others: Box<[Shard]>,
}

impl Metrics {
    /// Counters for these routes, in the configuration's order, with one shard per worker.
    pub fn new(routes: &[String], shards: usize) -> Self {
        let names = with_none(routes);
        let noted = Arc::<Noted>::default();
        let shard = || Shard::new(&names, &[], Arc::default(), &noted, |_| None);
        let others = (1..shards).map(|_| shard()).collect();
        let (first, windows, forgotten) = (shard(), Arc::default(), RouteCounts::default());
        Self { first, others, names, past: Vec::new(), forgotten, windows, noted }
    }

    /// The counters for another configuration's routes. Where a route's name stays, or comes back, it
    /// counts on; those of this configuration, which ends later, are seen by the next.
    pub fn after(&self, routes: &[String]) -> Self {
        let names = with_none(routes);
        let mut past: Vec<String> = Vec::new();
        for name in self.past.iter().chain(&self.names) {
            if !names.contains(name) && !past.contains(name) {
                past.push(name.clone());
            }
        }
        let mut forgotten = RouteCounts::default();
        self.forgotten.add_to(&mut forgotten);
        for name in past.drain(..past.len().saturating_sub(PAST_ROUTES)) {
            for cell in self.shards().filter_map(|shard| self.cell(shard, &name)) {
                cell.0.add_to(&mut forgotten);
            }
        }
        let shard = |before: &Shard| {
            let process = Arc::clone(&before.process);
            Shard::new(&names, &past, process, &self.noted, |name| self.cell(before, name))
        };
        let (first, others) = (shard(&self.first), self.others.iter().map(shard).collect());
        let (windows, noted) = (Arc::clone(&self.windows), Arc::clone(&self.noted));
        Self { names, past, forgotten, first, others, windows, noted }
    }

    /// A name's counters in one of the shards.
    fn cell(&self, shard: &Shard, name: &str) -> Option<Cell> {
        let place = |names: &[String]| names.iter().position(|known| known == name);
        let now = place(&self.names).and_then(|at| shard.routes.get(at));
        now.or_else(|| place(&self.past).and_then(|at| shard.past.get(at))).cloned()
    }

    fn shards(&self) -> impl Iterator<Item = &Shard> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The shard that thread `worker` alone writes; numbers of more threads than there are shards wrap around, and may
    /// lose a count.
    pub fn shard(&self, worker: usize) -> &Shard {
        let i = worker % (self.others.len() + 1);
        i.checked_sub(1).and_then(|i| self.others.get(i)).unwrap_or(&self.first)
    }

    /// What `GET /stats` answers.
    pub fn stats(&self, gauges: &Gauges) -> serde_json::Value {
        stats::render(&self.snapshot(), &self.windows, gauges)
    }

    /// What `GET /metrics` answers, in Prometheus' own text or in OpenMetrics.
    pub fn exposition(&self, gauges: &Gauges, format: Format) -> String {
        exposition::render(&self.snapshot(), &self.windows, gauges, format)
    }

    /// What a page shows that looks on each second; `whole` adds what it keeps itself from then on.
    pub fn live(&self, gauges: &Gauges, whole: bool) -> serde_json::Value {
        live::render(&self.snapshot(), &self.windows, gauges, whole)
    }

    /// All that is known of one route; `None` where there is none of that name.
    pub fn of_route(&self, name: &str, gauges: &Gauges) -> Option<serde_json::Value> {
        live::of_route(&self.snapshot(), &self.windows, &self.noted, gauges, name)
    }

    /// Some URLs of a route that were missed most, with nothing in them that `log.redact` names.
    pub fn missed_urls(&self, route: &str) -> Vec<String> {
        self.noted.missed(route)
    }

    /// Remembers what the counters are, `uptime` after the start: to be called once a second, by one thread.
    pub fn remember(&self, uptime: Duration) {
        // Of a route that nobody has asked for there is nothing to be remembered, and thousands may be configured.
        let snapshot = self.sum_of(|nth| self.has_answered(nth));
        self.windows.remember(&snapshot, uptime);
        let shown = snapshot.names();
        self.noted.fade(uptime, |name| shown.contains(name));
    }

    /// The sum of all shards. Routes of one name are one, since names are what labels say.
    pub(super) fn snapshot(&self) -> Snapshot<'_> {
        self.sum_of(|_| true)
    }

    /// Whether anything was answered by the route of this name, by whichever configuration.
    fn has_answered(&self, nth: usize) -> bool {
        self.shards().filter_map(|shard| shard.at(nth)).any(|cell| cell.0.has_answered())
    }

    /// The same of those names alone that are `wanted`, and of what no route matched.
    fn sum_of(&self, wanted: impl Fn(usize) -> bool) -> Snapshot<'_> {
        let mut snapshot = Snapshot::default();
        let mut seen = HashSet::new();
        for (nth, name) in self.names.iter().chain(&self.past).enumerate() {
            if (name != NONE && !wanted(nth)) || !seen.insert(name) {
                continue;
            }
            let mut sum = RouteCounts::default();
            if name == NONE {
                self.forgotten.add_to(&mut sum);
            }
            // Finished requests are read before begun ones, so that a request which ends meanwhile
            // shows as active and not as begun less than it was finished.
            for cell in self.shards().filter_map(|shard| shard.at(nth)) {
                cell.0.add_to(&mut sum);
            }
            snapshot.routes.push((name, sum));
        }
        for shard in self.shards() {
            shard.process.0.add_to(&mut snapshot.process);
        }
        snapshot
    }
}

fn with_none(routes: &[String]) -> Vec<String> {
    routes.iter().cloned().chain([NONE.to_owned()]).collect()
}

/// Keeps what different workers write off one cache line; two lines, since processors fetch pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

/// A route's counters: shared by the configurations that have a route of its name.
type Cell = Arc<Padded<RouteCounts<AtomicU64>>>;

/// One worker's counters.
#[derive(Debug)]
pub struct Shard {
    process: Arc<Padded<ProcessCounts<AtomicU64>>>,
    /// One per route, and the last for what no route matched.
    routes: Box<[Cell]>,
    /// One per name of [`Metrics::past`].
    past: Box<[Cell]>,
    /// Shared by all.
    noted: Arc<Noted>,
}

impl Shard {
    /// Counters for these names; `known` has those that there are already.
    fn new(
        names: &[String],
        past: &[String],
        process: Arc<Padded<ProcessCounts<AtomicU64>>>,
        noted: &Arc<Noted>,
        known: impl Fn(&str) -> Option<Cell>,
    ) -> Self {
        let mut by_name: HashMap<&str, Cell> = HashMap::new();
        let mut cell =
            |name| Arc::clone(by_name.entry(name).or_insert_with(|| known(name).unwrap_or_default()));
        let routes = names.iter().map(|name| cell(name.as_str())).collect();
        let past = past.iter().map(|name| cell(name.as_str())).collect();
        Self { process, routes, past, noted: Arc::clone(noted) }
    }

    /// The counters of one of all names, those of the configuration first.
    fn at(&self, nth: usize) -> Option<&Cell> {
        self.routes.get(nth).or_else(|| self.past.get(nth.checked_sub(self.routes.len())?))
    }

    /// A request's head has arrived.
    pub fn begin(&self) {
        raise(&self.process.0.begun, 1);
    }

    /// A request is over: called once for each [`Shard::begin`], on any shard, by
    /// [`finish()`](super::finish()).
    pub fn finish(&self, r: &Finished) {
        if let Some(route) = self.route(r.route) {
            let nth = route.finish(r);
            if noted::is_sampled(nth, r.outcome) {
                self.noted.key(r);
            }
        }
        self.process.0.finish(r);
    }

    /// A request took longer than the configured limit.
    pub(super) fn slow(&self) {
        raise(&self.process.0.slow, 1);
    }

    /// The origin was asked on behalf of a route, in the foreground or behind a client's back;
    /// `took` is the time until its response's head, or until it failed.
    pub fn origin_fetch(&self, route: Option<usize>, took: Duration) {
        if let Some(route) = self.route(route) {
            raise(&route.origin_fetches, 1);
            raise(&route.origin_nanos, nanos(took));
        }
        self.process.0.origin_fetches.observe(took);
    }

    /// A hit on a route was fetched again and compared.
    pub fn verified(&self, route: Option<usize>, finding: Finding) {
        if let Some(route) = self.route(route) {
            bump(&route.verified, finding as usize);
        }
    }

    /// A request was refused by its route's rate limit.
    pub fn rate_limited(&self, route: usize) {
        if let Some(route) = self.route(Some(route)) {
            raise(&route.rate_limited, 1);
        }
    }

    /// A rate limit of a route gave up one client's count for another's.
    pub fn rate_forgotten(&self, route: usize) {
        if let Some(route) = self.route(Some(route)) {
            raise(&route.rate_forgotten, 1);
        }
    }

    fn route(&self, route: Option<usize>) -> Option<&RouteCounts<AtomicU64>> {
        let known = route.filter(|i| *i < self.routes.len());
        known.map_or(self.routes.last(), |i| self.routes.get(i)).map(|cell| &cell.0)
    }
}

/// All shards together, at one moment.
#[derive(Debug, Default)]
pub(super) struct Snapshot<'a> {
    /// In the configuration's order, then [`NONE`], then those of former configurations.
    pub(super) routes: Vec<(&'a str, RouteCounts<u64>)>,
    pub(super) process: ProcessCounts<u64>,
}

impl<'a> Snapshot<'a> {
    /// The names of the routes.
    pub(super) fn names(&self) -> HashSet<&'a str> {
        self.routes.iter().map(|(name, _)| *name).collect()
    }

    /// All routes together.
    pub(super) fn total(&self) -> RouteCounts<u64> {
        let mut total = RouteCounts::default();
        self.routes.iter().for_each(|(_, route)| route.add_to(&mut total));
        total
    }
}

/// What is counted of the process; `C` is `AtomicU64` where it is counted, `u64` where it is read.
#[derive(Debug, Default)]
pub(super) struct ProcessCounts<C> {
    begun: C,
    pub(super) slow: C,
    /// By [`Phase`].
    pub(super) phases: [Histogram<C>; Phase::ALL.len()],
    pub(super) origin_fetches: Histogram<C>,
}

impl ProcessCounts<AtomicU64> {
    fn finish(&self, r: &Finished) {
        for (phase, histogram) in Phase::ALL.into_iter().zip(&self.phases) {
            if let Some(took) = r.timeline.get(phase) {
                histogram.observe(took);
            }
        }
    }

    fn add_to(&self, sum: &mut ProcessCounts<u64>) {
        for (from, to) in self.phases.iter().zip(&mut sum.phases) {
            from.add_to(to);
        }
        self.origin_fetches.add_to(&mut sum.origin_fetches);
        sum.slow += self.slow.load(Relaxed);
        sum.begun += self.begun.load(Relaxed);
    }
}

impl ProcessCounts<u64> {
    /// Requests begun and not yet over, when so many are `finished`.
    pub(super) fn active(&self, finished: u64) -> u64 {
        self.begun.saturating_sub(finished)
    }
}

/// What is counted of one route; `C` is `AtomicU64` where it is counted, `u64` where it is read.
#[derive(Clone, Debug, Default)]
pub(super) struct RouteCounts<C> {
    /// By [`Kind`], then by tier: none, memory, Redis. See [`ANSWERS`].
    answers: [C; Kind::ALL.len() * TIERS],
    /// By [`Miss`].
    misses: [C; Miss::ALL.len()],
    /// By [`Cause`].
    causes: [C; Cause::ALL.len()],
    /// By [`Bypass`].
    bypasses: [C; Bypass::ALL.len()],
    /// By [`NotStored`].
    not_stored: [C; NotStored::ALL.len()],
    /// By [`Finding`].
    verified: [C; Finding::ALL.len()],
    /// By the status' first digit, 1 to 5.
    pub(super) status_classes: [C; 5],
    pub(super) collapsed: C,
    pub(super) failed: C,
    pub(super) client_closed: C,
    /// Bytes of bodies: of answers of the cache, of misses, and of all others.
    bytes: [C; 3],
    pub(super) origin_fetches: C,
    origin_nanos: C,
    pub(super) rate_limited: C,
    pub(super) rate_forgotten: C,
    /// By [`Kind`].
    pub(super) durations: [Histogram<C>; Kind::ALL.len()],
}

const TIERS: usize = Tier::ALL.len() + 1;

/// The pairs of result and tier that can come about.
pub(super) const ANSWERS: [(Kind, Option<Tier>); 10] = [
    (Kind::Hit, Some(Tier::Memory)),
    (Kind::Hit, Some(Tier::Redis)),
    (Kind::Stale, Some(Tier::Memory)),
    (Kind::Stale, Some(Tier::Redis)),
    (Kind::StaleIfError, None),
    (Kind::Revalidated, None),
    (Kind::Miss, None),
    (Kind::Bypass, None),
    (Kind::Local, None),
    (Kind::Failed, None),
];

const fn answer(kind: Kind, tier: Option<Tier>) -> usize {
    let tier = match tier {
        None => 0,
        Some(tier) => tier as usize + 1,
    };
    kind as usize * TIERS + tier
}

impl RouteCounts<AtomicU64> {
    /// Counts it, and says how many of its kind there were before.
    fn finish(&self, r: &Finished) -> u64 {
        let nth = self.count_outcome(r.outcome);
        if let Some(durations) = self.durations.get(r.outcome.kind() as usize) {
            durations.observe(r.total);
        }
        if let Some(miss) = r.outcome.missed() {
            bump(&self.causes, r.cause.unwrap_or(Cause::of_miss(miss)) as usize);
        }
        // RFC 9110 §15: an unknown class is treated as the fifth, and no final status is below 200.
        bump(&self.status_classes, usize::from(r.status / 100).clamp(1, 5) - 1);
        if let Some(bytes) = self.bytes.get(side(r.outcome)) {
            raise(bytes, r.bytes);
        }
        if r.failed() {
            raise(&self.failed, 1);
        } else if r.end == End::ClientGone {
            raise(&self.client_closed, 1);
        }
        nth
    }

    fn count_outcome(&self, outcome: &Outcome) -> u64 {
        let nth = bump(&self.answers, answer(outcome.kind(), outcome.tier()));
        if let Some(miss) = outcome.missed() {
            bump(&self.misses, miss as usize);
        }
        if let Some(bypass) = outcome.bypassed() {
            bump(&self.bypasses, bypass as usize);
        }
        if let Some(why) = outcome.not_stored() {
            bump(&self.not_stored, why as usize);
        }
        if outcome.collapsed {
            raise(&self.collapsed, 1);
        }
        nth
    }

    /// Whether any request has come to its end.
    fn has_answered(&self) -> bool {
        self.answers.iter().any(|count| count.load(Relaxed) != 0)
    }

    fn add_to(&self, sum: &mut RouteCounts<u64>) {
        sum.each(self, |to, from| *to = to.wrapping_add(from.load(Relaxed)));
    }
}

/// Which of [`RouteCounts::bytes`] an answer's are.
const fn side(outcome: &Outcome) -> usize {
    match (outcome.kind(), outcome.missed()) {
        (Kind::Hit | Kind::Stale | Kind::StaleIfError, _) => 0,
        (_, Some(_)) => 1,
        _ => 2,
    }
}

/// Adds one; says what was there before.
fn bump(cells: &[AtomicU64], i: usize) -> u64 {
    cells.get(i).map_or(0, |cell| {
        let before = cell.load(Relaxed);
        raise(cell, 1);
        before
    })
}

/// Adds to a counter that no other thread writes, as is every one of a worker's [`Shard`]: it need not be locked for
/// that, which takes ten times as long and would be done ten times for each request.
pub(super) fn raise(cell: &AtomicU64, by: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(by), Relaxed);
}

impl RouteCounts<u64> {
    fn add_to(&self, sum: &mut Self) {
        sum.each(self, |to, from| *to = to.wrapping_add(*from));
    }

    /// What has been counted since it was `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        let mut since = self.clone();
        since.each(before, |to, from| *to = to.saturating_sub(*from));
        since
    }

    /// Changes each counter by its like in another.
    fn each<C: Count>(&mut self, from: &RouteCounts<C>, change: impl Fn(&mut u64, &C)) {
        let all =
            |to: &mut [u64], from: &[C]| to.iter_mut().zip(from).for_each(|(to, from)| change(to, from));
        all(&mut self.answers, &from.answers);
        all(&mut self.misses, &from.misses);
        all(&mut self.causes, &from.causes);
        all(&mut self.bypasses, &from.bypasses);
        all(&mut self.not_stored, &from.not_stored);
        all(&mut self.verified, &from.verified);
        all(&mut self.status_classes, &from.status_classes);
        change(&mut self.collapsed, &from.collapsed);
        change(&mut self.failed, &from.failed);
        change(&mut self.client_closed, &from.client_closed);
        all(&mut self.bytes, &from.bytes);
        change(&mut self.origin_fetches, &from.origin_fetches);
        change(&mut self.origin_nanos, &from.origin_nanos);
        change(&mut self.rate_limited, &from.rate_limited);
        change(&mut self.rate_forgotten, &from.rate_forgotten);
        for (to, from) in self.durations.iter_mut().zip(&from.durations) {
            to.each(from, &change);
        }
    }

    /// Finished requests.
    pub(super) fn requests(&self) -> u64 {
        self.answers.iter().sum()
    }

    pub(super) fn answered(&self, kind: Kind, tier: Option<Tier>) -> u64 {
        self.answers.get(answer(kind, tier)).copied().unwrap_or(0)
    }

    /// Answers of a kind, from whichever tier.
    pub(super) fn of_kind(&self, kind: Kind) -> u64 {
        let tiers = Tier::ALL.into_iter().map(Some).chain([None]);
        tiers.map(|tier| self.answered(kind, tier)).sum()
    }

    /// Requests that looked into the cache and found nothing that could answer them, by reason.
    pub(super) fn misses(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        Miss::ALL.into_iter().map(Miss::as_str).zip(self.misses)
    }

    /// The same by what they were due to.
    pub(super) fn causes(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        Cause::ALL.into_iter().map(Cause::as_str).zip(self.causes)
    }

    /// Requests that did not look into the cache, by reason.
    pub(super) fn bypasses(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        Bypass::ALL.into_iter().map(Bypass::as_str).zip(self.bypasses)
    }

    /// Requests whose response was not stored, by reason.
    pub(super) fn not_stored(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        NotStored::ALL.into_iter().map(NotStored::as_str).zip(self.not_stored)
    }

    /// Hits that were looked at again, by what was found.
    pub(super) fn verified(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        Finding::ALL.into_iter().map(Finding::as_str).zip(self.verified)
    }

    /// Bytes of bodies delivered.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.iter().sum()
    }

    /// What the hit ratios are made of.
    pub(super) fn tally(&self) -> Tally {
        let cached = [Kind::Hit, Kind::Stale, Kind::StaleIfError].map(|kind| self.of_kind(kind));
        let [cached_bytes, missed_bytes, _] = self.bytes;
        Tally {
            cached: cached.iter().sum(),
            missed: self.misses.iter().sum(),
            cached_bytes,
            missed_bytes,
            requests: self.requests(),
            fetched: self.origin_fetches,
        }
    }

    /// The time that all finished requests took together, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.durations.iter().map(|histogram| histogram.sum().as_secs_f64()).sum()
    }

    /// How long requests of these kinds took.
    pub(super) fn took(&self, kinds: &[Kind]) -> Histogram<u64> {
        let mut took = Histogram::default();
        for histogram in kinds.iter().filter_map(|kind| self.durations.get(*kind as usize)) {
            took.each(histogram, |to, from| *to = to.wrapping_add(*from));
        }
        took
    }

    /// Requests that a tier answered by itself: the origin was spared each.
    pub(super) fn spared(&self) -> u64 {
        self.of_kind(Kind::Hit) + self.of_kind(Kind::Stale)
    }

    /// Seconds that the origin took to answer, until its heads; refreshes in the background included.
    pub(super) fn origin_seconds(&self) -> f64 {
        Duration::from_nanos(self.origin_nanos).as_secs_f64()
    }

    /// Seconds for which the origin did not have to work: each request that a tier answered by itself counts as
    /// long as a fetch of the route takes on average.
    pub(super) fn origin_seconds_saved(&self) -> f64 {
        match self.origin_fetches {
            0 => 0.0,
            fetches => self.spared() as f64 * (self.origin_seconds() / fetches as f64),
        }
    }
}

#[cfg(test)]
mod tests;
