//! The way to the origins: which server, which connection, and what may be sent twice.
//!
//! One [`Upstream`] per `[upstream.NAME]`, shared by all workers. Its limits are per server and
//! count all workers together; each connection is driven by the worker that opened it.
//!
//! ```text
//! forward ─ balance (pure) ─ pool: kept | slot → connect | line ─ send ─ head ─ OriginBody
//!    └──────────────── once more, on a fresh connection, where safe ◄──┘          └► pool
//! ```
//!
//! Must not know: caching, clients, statuses of Larder's own, metrics.

mod balance;
mod body;
mod complaints;
mod connection;
mod due;
mod error;
mod forward;
mod pool;
mod socket;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::clock::Clock;
use crate::config;
use crate::telemetry::UpstreamGauges;

pub use body::{BoxError, OriginBody, RequestBody};
pub use error::{ForwardError, OriginError, Place};
pub use forward::{ForwardTimes, Forwarded};

use complaints::Complaints;
use pool::Pool;

/// Some servers that do the same, and the connections to them.
pub struct Upstream {
    name: Arc<str>,
    timeout: config::Timeouts,
    /// How often the kept connections are looked at.
    tick: Duration,
    pools: Vec<Arc<Pool>>,
    /// Counted up to take turns among servers equally busy.
    turn: AtomicUsize,
    workers: usize,
    clock: Clock,
    complaints: Complaints,
}

impl Upstream {
    /// An upstream without connections yet; `workers` threads will use it.
    pub fn new(cfg: &config::Upstream, clock: Clock, workers: usize) -> Arc<Self> {
        Arc::new(Self {
            name: cfg.name.as_str().into(),
            timeout: cfg.timeout,
            tick: tick(&cfg.pool),
            pools: cfg.servers.iter().map(|server| Pool::new(cfg, server, clock.clone())).collect(),
            turn: AtomicUsize::new(0),
            workers,
            clock,
            complaints: Complaints::default(),
        })
    }

    /// Closes kept connections that are old or unused, and keeps `min_idle` warm. Never returns:
    /// each worker runs it as a task of its own, which may be dropped at any time.
    pub async fn maintain(self: Arc<Self>, worker: usize) {
        let mut ticks = tokio::time::interval(self.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.pools.iter().for_each(|pool| pool.reap());
            for pool in &self.pools {
                pool.warm(worker, self.workers).await;
            }
        }
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

/// A quarter of the shortest limit, so that none is overrun by much.
fn tick(limits: &config::Pool) -> Duration {
    let shortest = limits.idle_timeout.min(limits.max_age);
    (shortest / 4).clamp(Duration::from_millis(250), Duration::from_secs(1))
}
