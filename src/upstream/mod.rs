//! The way to the origins: which server, which connection, and what may be sent twice.
//!
//! One [`Upstream`] per `[upstream.NAME]`, shared by all workers. Its limits are per server and
//! count all workers together; each connection is driven by the worker that opened it.
//!
//! ```text
//! forward ─ balance (pure) ─ pool: kept | slot → connect | line ─ send ─ head ─ OriginBody
//!    ├──────────────── once more, on a fresh connection, where safe ◄──┤          └► pool
//!    └─ hedge ──────── no head by `hedge_after`: a second server beside the first ◄─┘
//! ```
//!
//! Must not know: caching, clients, statuses of Larder's own, metrics.

mod answer;
mod balance;
mod beside;
mod body;
mod complaints;
mod connection;
mod direct;
mod due;
mod error;
mod forward;
mod health;
mod hedge;
mod pool;
mod socket;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod upload;
mod watch;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::clock::Clock;
use crate::config;
use crate::telemetry::UpstreamGauges;

pub use answer::Ready;
pub use body::{BoxError, Leave, OriginBody, RequestBody};
pub use error::{ForwardError, OriginError, Place};
pub use forward::{Again, ForwardTimes, Forwarded};
pub use upload::{Refused, Upload};

use complaints::Complaints;
use hedge::Hedging;
use pool::Pool;

/// Some servers that do the same, and the connections to them.
pub struct Upstream {
    name: Arc<str>,
    timeout: config::Timeouts,
    /// How often the kept connections are looked at.
    tick: Duration,
    pools: Vec<Arc<Pool>>,
    /// `pool.max_tunnels`
    max_tunnels: usize,
    /// Those that are open, also of former configurations.
    tunnels: Arc<AtomicUsize>,
    /// Answers that its servers have begun.
    answers: AtomicU64,
    hedging: Hedging,
    /// Counted up to take turns among servers equally busy.
    turn: AtomicUsize,
    workers: usize,
    clock: Clock,
    complaints: Complaints,
}

impl Upstream {
    /// Whether connections to one of its servers are so much in demand (a quarter of `pool.max_connections`) that none
    /// should go to a request that may be slow to send its body.
    pub fn is_in_demand(&self) -> bool {
        self.pools.iter().any(|pool| pool.is_in_demand())
    }

    /// The right to one tunnel, until it is dropped.
    ///
    /// # Errors
    /// There are as many as may be (`pool.max_tunnels`): how many that is.
    pub fn tunnel(&self) -> Result<Tunnel, usize> {
        let more = |open: usize| (open < self.max_tunnels).then(|| open + 1);
        let counted = self.tunnels.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        counted.map(|_| Tunnel(Arc::clone(&self.tunnels))).map_err(|_| self.max_tunnels)
    }

    /// An upstream without connections yet; `workers` threads will use it.
    pub fn new(cfg: &config::Upstream, clock: Clock, workers: usize) -> Arc<Self> {
        Self::in_place_of(None, cfg, clock, workers)
    }

    /// An upstream in place of another of its name. Servers that stay count on, and so do tunnels, which live on as long
    /// as they like; connections do not move, since they were made under other limits.
    pub fn in_place_of(
        before: Option<&Self>,
        cfg: &config::Upstream,
        clock: Clock,
        workers: usize,
    ) -> Arc<Self> {
        let pools = cfg.servers.iter().enumerate().map(|(at, server)| {
            // One that is listed twice has two pools.
            let nth = cfg.servers.iter().take(at).filter(|other| *other == server).count();
            let before =
                before.and_then(|before| before.pools.iter().filter(|pool| pool.is_of(server)).nth(nth));
            Pool::new(cfg, server, clock.clone(), before.map(|pool| pool.counts()))
        });
        Arc::new(Self {
            name: cfg.name.as_str().into(),
            timeout: cfg.timeout,
            tick: tick(&cfg.pool),
            pools: pools.collect(),
            max_tunnels: cfg.pool.max_tunnels,
            tunnels: before.map(|before| Arc::clone(&before.tunnels)).unwrap_or_default(),
            answers: AtomicU64::new(0),
            hedging: Hedging::new(),
            turn: AtomicUsize::new(0),
            workers,
            clock,
            complaints: Complaints::default(),
        })
    }

    /// Closes kept connections that are old or unused, and keeps `min_idle` warm, until nobody else
    /// holds the upstream any more or it is retired: each worker runs it as a task of its own, which may
    /// be dropped at any time.
    pub async fn maintain(this: Weak<Self>, worker: usize) {
        let Some(tick) = this.upgrade().map(|upstream| upstream.tick) else { return };
        let mut ticks = tokio::time::interval(tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(upstream) = this.upgrade() else { return };
            upstream.pools.iter().for_each(|pool| pool.reap());
            for pool in &upstream.pools {
                pool.warm(worker, upstream.workers).await;
            }
            if upstream.pools.iter().all(|pool| pool.is_retired()) {
                return;
            }
        }
    }

    /// No configuration has it any more: kept connections are closed, and those in use when their
    /// requests are done. Requests that are on their way to it get there all the same.
    pub fn retire(&self) {
        self.pools.iter().for_each(|pool| pool.retire());
    }

    /// What is open now and what was counted, per server.
    pub fn gauges(&self) -> Vec<UpstreamGauges> {
        self.pools.iter().map(|pool| pool.gauges()).collect()
    }

    fn place(&self, index: usize) -> Place {
        match self.pools.get(index) {
            Some(pool) => pool.place(),
            None => Place { upstream: Arc::clone(&self.name), server: "no server".into() },
        }
    }
}

/// The right to one tunnel; it counts until it is dropped.
pub struct Tunnel(Arc<AtomicUsize>);

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A quarter of the shortest limit, so that none is overrun by much.
fn tick(limits: &config::Pool) -> Duration {
    let shortest = limits.idle_timeout.min(limits.max_age);
    (shortest / 4).clamp(Duration::from_millis(250), Duration::from_secs(1))
}
