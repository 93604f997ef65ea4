//! Gathers what the lower floors know of themselves, for figures that are shown.
//!
//! Must not know: how they are shown.

use std::sync::atomic::Ordering;

use crate::store::{Fleet, Leases};
use crate::telemetry::{self, Gauges, RedisGauges, Spans};
use crate::worker::Worker;

/// The state of everything, now.
pub(super) fn gather(worker: &Worker) -> Gauges {
    let shared = &worker.shared;
    let snapshot = shared.snapshot.load();
    let redis = RedisGauges::sum(shared.tiers.lock().iter().map(|tier| tier.gauges()));
    Gauges {
        uptime: shared.clock.mono().since(shared.started),
        started: shared.started_at,
        resident: resident(),
        memory: shared.memory.gauges(),
        redis,
        fleet: shared.fleet.get().map(Fleet::gauges),
        leases: shared.leases.get().map(Leases::gauges),
        warm: shared.warming.gauges(),
        coding: shared.press.gauges(),
        upstreams: snapshot.upstreams.iter().flat_map(|upstream| upstream.gauges()).collect(),
        connections: shared.connections.load(Ordering::Relaxed),
        tunnels: shared.tunnels.count(),
        tunnels_ended: shared.tunnels.ended(),
        proxy_headers: shared.proxy_headers.counts(),
        heads: shared.heads.counts(),
        interim_passed: shared.interim.passed(),
        cuts: shared.cuts.counts(),
        interim_dropped: shared.interim.dropped(),
        fetches: shared.flights.len() as u64,
        tasks: shared.tasks(),
        panics: telemetry::panics(),
        reloads_done: shared.reloads.done(),
        reloads_refused: shared.reloads.refused(),
        spans: shared.spans.as_ref().map(Spans::gauges).unwrap_or_default(),
        access_dropped: shared.access.as_ref().map_or(0, |access| access.dropped()),
    }
}

/// Bytes of memory that the process has, where the system says so (`VmRSS` of Linux). The file is made when it is
/// read: no disk is asked.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_system_says_how_much_memory_the_process_has() {
        assert!(resident().is_some_and(|bytes| (100_000..1 << 40).contains(&bytes)), "{:?}", resident());
    }
}
