//! `GET /metrics`: the counters and gauges as Prometheus text, version 0.0.4, or as OpenMetrics, version 1.0.0.
//!
//! Knows the format and which value belongs to which declaration of [`families`]. A counter that
//! is still zero is shown: a series that first appears at 1 has no rate.
//! Must not know: how anything is counted, or HTTP.
//!
//! [`families`]: super::families

use std::fmt::{Display, Write};
use std::time::Duration;

use super::cuts::Cut;
use super::families::{self as f, Family};
use super::gauges::{
    BREAKER_STATES, CodingGauges, FLEET_STATES, FleetGauges, Gauges, LeaseGauges, MemoryGauges, RedisGauges,
    UpstreamGauges, WarmGauges, merged,
};
use super::heads::HeadRefused;
use super::histogram::Histogram;
use super::metrics::{ANSWERS, NONE, RouteCounts, Snapshot};
use super::openmetrics::Format;
use super::outcome::{Kind, Tier};
use super::proxy_headers::HeaderRefused;
use super::timeline::Phase;
use super::tunnels::TunnelEnd;
use super::windows::{Tally, Windows};
use crate::stored::Damaged;

pub(super) fn render(snapshot: &Snapshot, windows: &Windows, gauges: &Gauges, format: Format) -> String {
    let mut page = Page { text: String::new(), format };
    routes(&mut page, snapshot);
    ratios(&mut page, snapshot, windows, gauges.uptime);
    durations(&mut page, snapshot);
    process(&mut page, snapshot, gauges);
    tiers(&mut page, gauges);
    memory(&mut page, &gauges.memory);
    coding(&mut page, &gauges.coding);
    if let Some(redis) = &gauges.redis {
        self::redis(&mut page, redis);
    }
    if let Some(fleet) = &gauges.fleet {
        self::fleet(&mut page, fleet);
        warm(&mut page, &gauges.warm);
    }
    if let Some(leases) = &gauges.leases {
        self::leases(&mut page, leases);
    }
    upstreams(&mut page, &merged(&gauges.upstreams));
    page.one(&f::ACCESS_DROPPED, gauges.access_dropped);
    let mut spans = page.family(&f::SPANS);
    for (result, count) in gauges.spans.by_result() {
        spans.put(&[("result", result)], count);
    }
    page.one(&f::FETCHES, gauges.fetches);
    page.one(&f::TASKS, gauges.tasks);
    page.one(&f::PANICS, gauges.panics);
    let mut reloads = page.family(&f::RELOADS);
    for (result, count) in [("done", gauges.reloads_done), ("refused", gauges.reloads_refused)] {
        reloads.put(&[("result", result)], count);
    }
    page.one(&f::UPTIME, gauges.uptime.as_secs_f64());
    page.family(&f::BUILD).put(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    if let Some(bytes) = gauges.resident {
        page.one(&f::RESIDENT, bytes);
    }
    page.one(&f::STARTED, gauges.started.as_millis() as f64 / 1000.0);
    if format == Format::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

/// The same figures as in `/stats`.
fn ratios(page: &mut Page, snapshot: &Snapshot, windows: &Windows, uptime: Duration) {
    let of = |tally: Tally| [("requests", tally.of_requests()), ("bytes", tally.of_bytes())];
    let mut samples = page.family(&f::HIT_RATIO);
    for (route, counts) in &snapshot.routes {
        for (window, tally) in windows.tallies(Some(*route), counts.tally(), uptime) {
            for (what, ratio) in of(tally) {
                samples.put(&[("route", route), ("window", window.as_str()), ("of", what)], ratio);
            }
        }
    }
    let mut samples = page.family(&f::OVERALL_HIT_RATIO);
    for (window, tally) in windows.tallies(None, snapshot.total().tally(), uptime) {
        for (what, ratio) in of(tally) {
            samples.put(&[("window", window.as_str()), ("of", what)], ratio);
        }
    }
    let mut saved = page.family(&f::ORIGIN_SAVED);
    for (route, counts) in &snapshot.routes {
        saved.put(&[("route", route)], counts.origin_seconds_saved());
    }
}

fn routes(page: &mut Page, snapshot: &Snapshot) {
    let mut requests = page.family(&f::REQUESTS);
    for (route, counts) in &snapshot.routes {
        for (kind, tier) in ANSWERS {
            let tier_label = tier.map_or(NONE, Tier::as_str);
            let labels = [("route", *route), ("result", kind.as_str()), ("tier", tier_label)];
            requests.put(&labels, counts.answered(kind, tier));
        }
    }
    page.by_route(&f::MISSES, snapshot, "reason", |c| c.misses());
    page.by_route(&f::MISS_CAUSES, snapshot, "cause", |c| c.causes());
    page.by_route(&f::BYPASSES, snapshot, "reason", |c| c.bypasses());
    page.by_route(&f::NOT_STORED, snapshot, "reason", |c| c.not_stored());
    page.by_route(&f::VERIFIED, snapshot, "finding", |c| c.verified());
    page.per_route(&f::COLLAPSED, snapshot, |c| c.collapsed);
    let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
    page.by_route(&f::RESPONSES, snapshot, "status_class", |c| classes.into_iter().zip(c.status_classes));
    page.per_route(&f::RESPONSE_BYTES, snapshot, |c| c.bytes());
    page.by_route(&f::LOOKUP_BYTES, snapshot, "result", |c| {
        let tally = c.tally();
        [("cached", tally.cached_bytes), ("missed", tally.missed_bytes)].into_iter()
    });
    page.per_route(&f::ORIGIN_FETCHES, snapshot, |c| c.origin_fetches);
    page.per_route(&f::RATE_LIMITED, snapshot, |c| c.rate_limited);
    page.per_route(&f::RATE_FORGOTTEN, snapshot, |c| c.rate_forgotten);
}

fn durations(page: &mut Page, snapshot: &Snapshot) {
    let mut requests = page.family(&f::REQUEST_DURATION);
    for (kind, histogram) in Kind::ALL.iter().zip(&snapshot.total().durations) {
        requests.histogram(Some(("result", kind.as_str())), histogram);
    }
    let mut phases = page.family(&f::PHASE_DURATION);
    for (phase, histogram) in Phase::ALL.iter().zip(&snapshot.process.phases) {
        phases.histogram(Some(("phase", phase.as_str())), histogram);
    }
    page.family(&f::ORIGIN_DURATION).histogram(None, &snapshot.process.origin_fetches);
}

fn process(page: &mut Page, snapshot: &Snapshot, gauges: &Gauges) {
    let total = snapshot.total();
    page.one(&f::ACTIVE, snapshot.process.active(total.requests()));
    page.one(&f::FAILED, total.failed);
    page.one(&f::CLIENT_CLOSED, total.client_closed);
    page.one(&f::SLOW, snapshot.process.slow);
    page.one(&f::CONNECTIONS, gauges.connections);
    page.one(&f::TUNNELS, gauges.tunnels);
    let mut ended = page.family(&f::TUNNELS_ENDED);
    for (end, count) in TunnelEnd::ALL.iter().zip(gauges.tunnels_ended) {
        ended.put(&[("end", end.as_str())], count);
    }
    let mut refused = page.family(&f::PROXY_HEADERS);
    for (why, count) in HeaderRefused::ALL.iter().zip(gauges.proxy_headers) {
        refused.put(&[("reason", why.as_str())], count);
    }
    let mut heads = page.family(&f::HEADS);
    for (why, count) in HeadRefused::ALL.iter().zip(gauges.heads) {
        heads.put(&[("reason", why.as_str())], count);
    }
    let mut cuts = page.family(&f::CUTS);
    for (why, count) in Cut::ALL.iter().zip(gauges.cuts) {
        cuts.put(&[("reason", why.as_str())], count);
    }
    let mut interim = page.family(&f::INTERIM);
    for (result, count) in [("passed", gauges.interim_passed), ("dropped", gauges.interim_dropped)] {
        interim.put(&[("result", result)], count);
    }
}

fn tiers(page: &mut Page, gauges: &Gauges) {
    let memory = &gauges.memory;
    let mut rows = vec![(Tier::Memory, [memory.lookups, memory.hits, memory.misses()])];
    rows.extend(gauges.redis.map(|redis| (Tier::Redis, [redis.gets, redis.hits, redis.misses])));
    for (i, family) in [f::TIER_LOOKUPS, f::TIER_HITS, f::TIER_MISSES].iter().enumerate() {
        let mut samples = page.family(family);
        for (tier, values) in &rows {
            samples.put(&[("tier", tier.as_str())], values.get(i).copied().unwrap_or(0));
        }
    }
}

fn memory(page: &mut Page, memory: &MemoryGauges) {
    page.one(&f::MEMORY_ENTRIES, memory.entries);
    page.one(&f::MEMORY_BYTES, memory.bytes);
    page.one(&f::MEMORY_BUDGET, memory.budget);
    page.one(&f::MEMORY_IN_FLIGHT, memory.in_flight);
    page.one(&f::MEMORY_LINGERING, memory.lingering);
    page.one(&f::MEMORY_INSERTS, memory.inserts);
    page.one(&f::MEMORY_CAPPED, memory.variants_capped);
}

fn coding(page: &mut Page, coding: &CodingGauges) {
    page.one(&f::CODING_ENCODED, coding.encoded);
    page.one(&f::CODING_DECODED, coding.decoded);
    page.one(&f::CODING_SAVED, coding.saved);
}

fn redis(page: &mut Page, redis: &RedisGauges) {
    page.one(&f::REDIS_UP, u8::from(redis.up));
    let mut breaker = page.family(&f::REDIS_BREAKER);
    for state in BREAKER_STATES {
        breaker.put(&[("state", state)], u8::from(state == redis.breaker));
    }
    page.one(&f::REDIS_ERRORS, redis.errors);
    page.one(&f::REDIS_DEADLINE, redis.deadline_exceeded);
    page.one(&f::REDIS_REFUSED, redis.refused);
    let mut damaged = page.family(&f::REDIS_DAMAGED);
    for why in Damaged::ALL {
        damaged.put(&[("reason", why.as_str())], redis.damaged.get(why.index()).copied().unwrap_or(0));
    }
    page.one(&f::REDIS_WRITES, redis.writes);
    page.one(&f::REDIS_WRITTEN, redis.written_bytes);
    page.one(&f::REDIS_READ, redis.read_bytes);
    page.one(&f::REDIS_WRITE_ERRORS, redis.write_errors);
    page.one(&f::REDIS_DROPPED, redis.dropped_writes);
    page.one(&f::REDIS_QUEUE, redis.queue_bytes);
}

fn fleet(page: &mut Page, fleet: &FleetGauges) {
    let mut state = page.family(&f::FLEET_STATE);
    for known in FLEET_STATES {
        state.put(&[("state", known)], u8::from(known == fleet.state));
    }
    page.one(&f::FLEET_LAG, fleet.lag.as_secs_f64());
    page.one(&f::FLEET_BOUND, fleet.bound.as_secs_f64());
    page.one(&f::FLEET_POSITION, fleet.position);
    page.one(&f::FLEET_APPLIED, fleet.applied);
    page.one(&f::FLEET_TOLD, fleet.told);
    page.one(&f::FLEET_UNTOLD, fleet.untold);
    page.one(&f::FLEET_LOST, fleet.lost);
    page.one(&f::FLEET_RESUMED, fleet.resumed);
    page.one(&f::FLEET_HORIZONS, fleet.horizons);
}

fn leases(page: &mut Page, leases: &LeaseGauges) {
    page.one(&f::LEASES_HEARS, u8::from(leases.hears));
    page.one(&f::LEASES_HELD, leases.held);
    page.one(&f::LEASES_WAITING, leases.waiting);
    let mut came = page.family(&f::LEASES);
    for (result, count) in [("taken", leases.taken), ("waited", leases.waited), ("alone", leases.alone)] {
        came.put(&[("result", result)], count);
    }
    let ends = [("stored", leases.stored), ("not-stored", leases.not_stored), ("expired", leases.expired)];
    let mut woken = page.family(&f::LEASES_WOKEN);
    for (result, count) in ends {
        woken.put(&[("result", result)], count);
    }
}

fn warm(page: &mut Page, warm: &WarmGauges) {
    page.one(&f::WARM_LOADED, warm.loaded);
    page.one(&f::WARM_SKIPPED, warm.skipped);
    page.one(&f::WARM_SECONDS, warm.took.as_secs_f64());
    page.one(&f::WARM_NAMED, warm.named);
}

fn upstreams(page: &mut Page, upstreams: &[UpstreamGauges]) {
    if upstreams.is_empty() {
        return;
    }
    let mut connections = page.family(&f::UPSTREAM_CONNECTIONS);
    for up in upstreams {
        for (state, n) in [("idle", up.idle), ("busy", up.open.saturating_sub(up.idle))] {
            connections.put(&[("upstream", &up.upstream), ("server", &up.server), ("state", state)], n);
        }
    }
    page.per_server(&f::UPSTREAM_WAITING, upstreams, |up| up.waiting);
    page.per_server(&f::UPSTREAM_CONNECTS, upstreams, |up| up.connects);
    page.per_server(&f::UPSTREAM_CONNECT_ERRORS, upstreams, |up| up.connect_errors);
    page.per_server(&f::UPSTREAM_REUSED, upstreams, |up| up.reused);
    page.per_server(&f::UPSTREAM_RETRIES, upstreams, |up| up.retries);
    page.per_server(&f::UPSTREAM_HEDGES, upstreams, |up| up.hedges);
    page.per_server(&f::UPSTREAM_HEDGES_WON, upstreams, |up| up.hedges_won);
    let mut flaws = page.family(&f::UPSTREAM_FLAWS);
    for up in upstreams {
        for (flaw, n) in &up.flaws {
            flaws.put(&[("upstream", &up.upstream), ("server", &up.server), ("flaw", flaw)], *n);
        }
    }
}

/// The text as it grows. Writing to a String cannot fail, so results of `write!` are dropped.
struct Page {
    text: String,
    format: Format,
}

impl Page {
    /// Opens a family; its samples follow at once.
    fn family(&mut self, family: &Family) -> Samples<'_> {
        let Family { name, kind, help } = family;
        // In OpenMetrics a counter's family is called without what its samples end in.
        let called = match self.format {
            Format::Prometheus => name,
            Format::OpenMetrics => name.strip_suffix("_total").unwrap_or(name),
        };
        let _ = writeln!(self.text, "# HELP {called} {help}\n# TYPE {called} {}", kind.as_str());
        Samples { text: &mut self.text, name, format: self.format }
    }

    /// A family of a single sample.
    fn one(&mut self, family: &Family, value: impl Display) {
        self.family(family).put(&[], value);
    }

    /// A sample per route.
    fn per_route(&mut self, family: &Family, snapshot: &Snapshot, value: impl Fn(&RouteCounts<u64>) -> u64) {
        let mut samples = self.family(family);
        for (route, counts) in &snapshot.routes {
            samples.put(&[("route", route)], value(counts));
        }
    }

    /// A sample per server of each upstream.
    fn per_server(
        &mut self,
        family: &Family,
        upstreams: &[UpstreamGauges],
        value: impl Fn(&UpstreamGauges) -> u64,
    ) {
        let mut samples = self.family(family);
        for up in upstreams {
            samples.put(&[("upstream", &up.upstream), ("server", &up.server)], value(up));
        }
    }

    /// A sample per route and value of `label`.
    fn by_route<I: Iterator<Item = (&'static str, u64)>>(
        &mut self,
        family: &Family,
        snapshot: &Snapshot,
        label: &str,
        values: impl Fn(&RouteCounts<u64>) -> I,
    ) {
        let mut samples = self.family(family);
        for (route, counts) in &snapshot.routes {
            for (word, n) in values(counts) {
                samples.put(&[("route", route), (label, word)], n);
            }
        }
    }
}

struct Samples<'a> {
    text: &'a mut String,
    name: &'static str,
    format: Format,
}

impl Samples<'_> {
    fn put(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.line("", labels, value);
    }

    fn histogram(&mut self, label: Option<(&str, &str)>, histogram: &Histogram<u64>) {
        for (le, n) in histogram.cumulative() {
            // OpenMetrics writes bounds as floating-point numbers.
            let whole = self.format == Format::OpenMetrics && le.bytes().all(|b| b.is_ascii_digit());
            let float = if whole { format!("{le}.0") } else { String::new() };
            let le = if whole { float.as_str() } else { le };
            let labels: Vec<_> = label.into_iter().chain([("le", le)]).collect();
            self.line("_bucket", &labels, n);
        }
        self.line("_sum", label.as_slice(), histogram.sum().as_secs_f64());
        self.line("_count", label.as_slice(), histogram.count());
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        let mut before = '{';
        for (name, value) in labels {
            let _ = write!(self.text, "{before}{name}=\"");
            value.chars().for_each(|c| self.escaped(c));
            self.text.push('"');
            before = ',';
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// A character of a label's value, as the format asks.
    fn escaped(&mut self, c: char) {
        match c {
            '\\' => self.text.push_str(r"\\"),
            '"' => self.text.push_str(r#"\""#),
            '\n' => self.text.push_str(r"\n"),
            other => self.text.push(other),
        }
    }
}

#[cfg(test)]
mod tests;
