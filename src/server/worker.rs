//! One thread: its runtime, its listeners, its drain.
//!
//! Knows when a thread may end: when nobody is in flight on any of them, since a fill of one thread
//! may feed clients of another.
//! Must not know: what a connection carries.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{self, Handle};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::admin::Admin;
use crate::store::{Redis, sweep};
use crate::telemetry::supervise;
use crate::upstream::Upstream;
use crate::worker::{Shared, Worker, join_fleet, spawn_warm_start};

use super::Thread;
use super::door::{self, Door};

/// How long the write-behind queue may take to empty itself at the end.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// Turns of tasks after which a busy thread looks for what has come on its sockets. By default it is 61: where a few
/// connections always have more to do, everybody else would wait for as many of theirs.
const TASKS: u32 = 16;

/// How long a stop waits for leases to be given back.
const LAST_LEASES: Duration = Duration::from_millis(500);
/// How long a stop waits for pages that look on to be told so.
const LAST_LOOKS: Duration = Duration::from_millis(500);
/// How long a start waits for the first word of the fleet's log.
const FIRST_HEARD: Duration = Duration::from_millis(500);

type Ready = mpsc::UnboundedSender<io::Result<()>>;

/// Runs a request thread to its end.
pub(super) fn run(thread: Thread, index: usize, sockets: Vec<StdListener>, ready: Ready) {
    run_on_own_runtime(&ready.clone(), async move {
        let worker = worker(&thread, index).await;
        let shared = Arc::clone(&thread.shared);
        tokio::spawn(supervise("upstreams", move || maintain(Arc::clone(&shared), index)));
        let config = &thread.shared.snapshot.load_full().config;
        let places = config.listen.clone();
        for (socket, place) in sockets.into_iter().zip(places) {
            let door = Door { listener: TcpListener::from_std(socket)?, introduced: place.proxy_protocol };
            // Taken here, not in the task: a drain must not find nobody before the task has begun.
            let busy = thread.busy.subscribe();
            tokio::spawn(door::listen(thread.clone(), Arc::clone(&worker), door, busy));
        }
        let _start_has_given_up = ready.send(Ok(()));
        drained(&thread).await;
        if let Some(redis) = &worker.redis {
            redis.flush(LAST_WRITES).await;
        }
        Ok(())
    });
}

/// Runs the control thread to its end: the admin listener stays open until everything is drained, and until
/// then the node hears of purges, and frees what they void. `address` is what the fleet is told of where it is.
pub(super) fn run_control(
    thread: Thread,
    admin: Option<StdListener>,
    address: Option<SocketAddr>,
    ready: Ready,
) {
    let index = thread.shared.snapshot.load().config.workers;
    run_on_own_runtime(&ready.clone(), async move {
        let worker = worker(&thread, index).await;
        join_fleet(&worker, address);
        if let Some(fleet) = worker.shared.fleet.get() {
            fleet.heard(FIRST_HEARD).await;
        }
        spawn_warm_start(&worker);
        spawn_sweep(&thread.shared);
        spawn_memory_of_counts(&thread.shared);
        let door = Admin::new(Arc::clone(&worker));
        if let Some(socket) = admin {
            let listener = TcpListener::from_std(socket)?;
            let (serving, telling) = (Arc::clone(&door), Arc::clone(&door));
            tokio::spawn(async move {
                supervise("admin listener", || Arc::clone(&serving).serve(&listener)).await;
            });
            tokio::spawn(supervise("dashboard", move || Arc::clone(&telling).tell()));
        }
        let _start_has_given_up = ready.send(Ok(()));
        drained(&thread).await;
        if let Some(fleet) = worker.shared.fleet.get() {
            fleet.leave().await;
        }
        if let Some(redis) = &worker.redis {
            redis.flush(LAST_WRITES).await;
        }
        if let Some(leases) = worker.shared.leases.get() {
            leases.flush(LAST_LEASES).await;
        }
        door.end(LAST_LOOKS).await;
        Ok(())
    });
}

/// Frees what is purged, until the runtime ends.
fn spawn_sweep(shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    let run = move || {
        let shared = Arc::clone(&shared);
        async move { sweep(&shared.memory, &shared.purges).await }
    };
    tokio::spawn(supervise("sweep", run));
}

/// Remembers each second what has been counted, for ratios over the last minute and so on.
fn spawn_memory_of_counts(shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    let run = move || {
        let shared = Arc::clone(&shared);
        async move {
            let mut second = tokio::time::interval(Duration::from_secs(1));
            second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                second.tick().await;
                let uptime = shared.clock.mono().since(shared.started);
                shared.snapshot.load().metrics.remember(uptime);
            }
        }
    };
    tokio::spawn(supervise("figures", run));
}

fn run_on_own_runtime(ready: &Ready, body: impl Future<Output = io::Result<()>>) {
    let runtime = runtime::Builder::new_current_thread().enable_all().event_interval(TASKS).build();
    let result = runtime.and_then(|runtime| {
        let result = runtime.block_on(body);
        // Dropped, it would wait for name lookups under way, for as long as a dead DNS server takes.
        runtime.shutdown_background();
        result
    });
    if let Err(error) = result {
        let _start_has_given_up = ready.send(Err(error));
    }
}

async fn worker(thread: &Thread, index: usize) -> Arc<Worker> {
    let shared = Arc::clone(&thread.shared);
    shared.runtimes.lock().push(Handle::current());
    let snapshot = shared.snapshot.load_full();
    let (cache, clock) = (&snapshot.config.cache, shared.clock.clone());
    let redis = Redis::start(cache, clock, Arc::clone(&shared.purges), &shared.reach).await;
    if let Some(redis) = &redis {
        shared.tiers.lock().push(redis.clone());
    }
    Arc::new(Worker { index, shared, redis, sampled: AtomicU64::new(0) })
}

/// Keeps each upstream in order that a configuration brings into force. Never returns.
async fn maintain(shared: Arc<Shared>, index: usize) {
    let mut changes = shared.reloads.changes();
    let mut maintained: Vec<Weak<Upstream>> = Vec::new();
    loop {
        maintained.retain(|upstream| upstream.strong_count() > 0);
        for upstream in &shared.snapshot.load().upstreams {
            let upstream = Arc::downgrade(upstream);
            if !maintained.iter().any(|known| known.ptr_eq(&upstream)) {
                maintained.push(Weak::clone(&upstream));
                let maintain = move || Upstream::maintain(Weak::clone(&upstream), index);
                tokio::spawn(supervise("upstream", maintain));
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Returns when Larder stops and nothing is in flight on any thread, or the drain's time is up.
async fn drained(thread: &Thread) {
    thread.stop.clone().leaving().await;
    let limit = thread.shared.snapshot.load().config.limits.drain;
    if timeout(limit, thread.busy.closed()).await.is_err() {
        tracing::warn!(limit_s = limit.as_secs(), "time to finish is up; what is still in flight is cut off");
    }
}
