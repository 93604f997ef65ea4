//! One thread: its runtime, its listeners, its drain.
//!
//! Knows when a thread may end: when nobody is in flight on any of them, since a fill of one thread
//! may feed clients of another.
//! Must not know: what a connection carries.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{self, Handle};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::timeout;

use crate::admin;
use crate::store::Redis;
use crate::telemetry::supervise;
use crate::upstream::Upstream;
use crate::worker::{Shared, Worker};

use super::{Thread, connection, introduce};

/// How long the write-behind queue may take to empty itself at the end.
const LAST_WRITES: Duration = Duration::from_secs(5);
/// Pause after an accept that failed, as it does when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type Ready = mpsc::UnboundedSender<io::Result<()>>;

/// Runs a request thread to its end.
pub(super) fn run(thread: Thread, index: usize, sockets: Vec<StdListener>, ready: Ready) {
    run_on_own_runtime(&ready.clone(), async move {
        let worker = worker(&thread, index).await;
        let shared = Arc::clone(&thread.shared);
        tokio::spawn(supervise("upstreams", move || maintain(Arc::clone(&shared), index)));
        let places = thread.shared.snapshot.load().config.listen.clone();
        for (socket, place) in sockets.into_iter().zip(places) {
            let door = Door { listener: TcpListener::from_std(socket)?, introduced: place.proxy_protocol };
            // Taken here, not in the task: a drain must not find nobody before the task has begun.
            let busy = thread.busy.subscribe();
            tokio::spawn(listen(thread.clone(), Arc::clone(&worker), door, busy));
        }
        let _start_has_given_up = ready.send(Ok(()));
        drained(&thread).await;
        if let Some(redis) = &worker.redis {
            redis.flush(LAST_WRITES).await;
        }
        Ok(())
    });
}

/// Runs the control thread to its end: the admin listener stays open until everything is drained.
pub(super) fn run_admin(thread: Thread, socket: StdListener, ready: Ready) {
    let index = thread.shared.snapshot.load().config.workers;
    run_on_own_runtime(&ready.clone(), async move {
        let worker = worker(&thread, index).await;
        let listener = TcpListener::from_std(socket)?;
        let serving = Arc::clone(&worker);
        tokio::spawn(async move {
            supervise("admin listener", || admin::serve(Arc::clone(&serving), &listener)).await;
        });
        let _start_has_given_up = ready.send(Ok(()));
        drained(&thread).await;
        if let Some(redis) = &worker.redis {
            redis.flush(LAST_WRITES).await;
        }
        Ok(())
    });
}

fn run_on_own_runtime(ready: &Ready, body: impl Future<Output = io::Result<()>>) {
    let result = runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| {
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

/// Where connections come in.
struct Door {
    listener: TcpListener,
    /// Each must say first whose it is.
    introduced: bool,
}

/// Takes connections until Larder does not listen any more, and then those that the kernel has taken
/// for it: the last of them may have been told that they are connected.
async fn listen(thread: Thread, worker: Arc<Worker>, door: Door, busy: watch::Receiver<()>) {
    supervise("listener", || accept(&thread, &worker, &door, &busy)).await;
    let Door { listener, introduced } = door;
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, peer)) = listener.accept() {
        let taken = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        let (thread, worker, busy) = (thread.clone(), Arc::clone(&worker), busy.clone());
        tokio::spawn(async move {
            let (Ok(stream), Ok(place)) = (taken, Arc::clone(&thread.places).acquire_owned().await) else {
                return;
            };
            serve(&thread, &worker, (stream, peer), introduced, (place, busy));
        });
    }
}

/// Accepts connections until Larder does not listen any more.
async fn accept(thread: &Thread, worker: &Arc<Worker>, door: &Door, busy: &watch::Receiver<()>) {
    let mut stop = thread.stop.clone();
    loop {
        let accepted = tokio::select! {
            accepted = door.listener.accept() => accepted,
            () = stop.deaf() => return,
        };
        match accepted {
            Ok(accepted) => {
                // Beyond `limits.connections` this one waits, and others in the kernel's queue. Not asked
                // for before: a thread to which nobody connects would hold a place that another needs.
                let Ok(place) = Arc::clone(&thread.places).acquire_owned().await else { return };
                serve(thread, worker, accepted, door.introduced, (place, busy.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves a connection on a task of its own, which holds on to its place and keeps the process.
fn serve(
    thread: &Thread,
    worker: &Arc<Worker>,
    (mut stream, peer): (TcpStream, SocketAddr),
    introduced: bool,
    held: (OwnedSemaphorePermit, watch::Receiver<()>),
) {
    thread.accepted.fetch_add(1, Ordering::Relaxed);
    let (worker, stop, open) = (Arc::clone(worker), thread.stop.clone(), Open::count(&worker.shared));
    tokio::spawn(async move {
        let peer = peer.ip().to_canonical();
        let client = match introduced {
            true => introduce::client(&worker, &mut stream, peer, stop.clone()).await,
            false => Some(peer),
        };
        if let Some(client) = client {
            connection::serve(worker, stream, client, stop).await;
        }
        drop((held, open));
    });
}

/// An open connection, counted for as long as it lives.
struct Open(Arc<Shared>);

impl Open {
    fn count(shared: &Arc<Shared>) -> Self {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
