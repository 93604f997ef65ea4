//! The process: its threads, its listeners, its end.
//!
//! Knows how parts are put together and in which order they start and stop.
//! Must not know: what a request means.
//!
//! One OS thread for each worker, each with a runtime of its own and its own `SO_REUSEPORT`
//! listeners; one control thread for the admin listener and the fleet's purges.

mod alone;
mod answer;
mod client;
mod connection;
mod door;
mod introduce;
mod late;
mod life;
mod listen;
mod outgoing;
mod places;
pub mod proxy_protocol;
mod reply;
mod short;
mod stop;
mod streams;
#[cfg(test)]
mod tests;
mod unsent;
mod watched;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::Version;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::config::{Access, Config, Otlp};
use crate::fields::hop;
use crate::flight::Flights;
use crate::store::{Coherence, Hot, Memory, Promise, Purges, Searches};
use crate::telemetry::{AccessLog, Collector, Form, Heads, Hints, ProxyHeaders, SlowRequests, Spans};
use crate::worker::{
    Doubts, Membership, NotReloaded, Press, Receipts, Reloaded, Reloads, Reread, Shared, Snapshot, Warming,
};

pub use listen::StartError;

use places::Places;
use stop::{Phase, Stop};

/// How long the access log may take to empty itself at the end.
const LAST_LINES: Duration = Duration::from_secs(2);
/// How long the last spans may take on their way to the collector.
const LAST_SPANS: Duration = Duration::from_secs(3);
/// URLs whose purge is remembered one by one.
const PURGES: usize = 65_536;

/// A Larder that serves.
pub struct Running {
    /// Where it listens.
    pub proxy: Vec<SocketAddr>,
    /// Where its admin listener is.
    pub admin: Option<SocketAddr>,
    shared: Arc<Shared>,
    stop: watch::Sender<Phase>,
    accepted: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

/// What a thread needs to serve and to stop.
#[derive(Clone)]
struct Thread {
    shared: Arc<Shared>,
    stop: Stop,
    /// Connections accepted so far.
    accepted: Arc<AtomicU64>,
    /// Everything that must finish before the process may end holds a receiver of this.
    busy: Arc<watch::Sender<()>>,
    /// Who may be connected.
    places: Arc<Places>,
}

/// Starts Larder; returns once every listener is open and every thread runs. `reread` reads the
/// configuration anew for a reload.
///
/// # Errors
/// A listener that cannot be bound, or a thread that cannot be started.
pub fn start(
    config: Config,
    clock: Clock,
    colour: bool,
    reread: Option<Reread>,
) -> Result<Running, StartError> {
    let addresses: Vec<SocketAddr> = config.listen.iter().map(|listen| listen.address).collect();
    let listeners = listen::bind_all(&addresses, config.workers)?;
    let admin = config.admin.map(listen::bind_admin).transpose()?;
    let proxy = listeners.addresses.clone();
    let admin_address = match &admin {
        Some(listener) => Some(listener.local_addr().map_err(StartError::Thread)?),
        None => None,
    };
    let files = rlimit::getrlimit(rlimit::Resource::NOFILE).ok().map(|(files, _)| files);
    let places = Places::new(places::affordable(&config, files), config.workers);
    let shared = share(config, clock, colour, reread).map_err(StartError::Thread)?;
    let (stop, stopping) = watch::channel(Phase::Serving);
    let accepted = Arc::new(AtomicU64::new(0));
    let thread = Thread {
        shared: Arc::clone(&shared),
        stop: Stop(stopping),
        accepted: Arc::clone(&accepted),
        busy: Arc::new(watch::channel(()).0),
        places,
    };
    // Each thread reports once it serves; a bound on the wait is given by the tier's own.
    let (ready, mut started) = mpsc::unbounded_channel();
    let mut threads = Vec::new();
    for (index, sockets) in listeners.sockets.into_iter().enumerate() {
        let (thread, ready) = (thread.clone(), ready.clone());
        threads.push(spawn(format!("larder-{index}"), move || worker::run(thread, index, sockets, ready))?);
    }
    let address = admin_address.or_else(|| proxy.first().copied());
    let control = {
        let (thread, ready) = (thread.clone(), ready.clone());
        move || worker::run_control(thread, admin, address, ready)
    };
    threads.push(spawn("larder-control".to_owned(), control)?);
    drop(ready);
    for _ in 0..threads.len() {
        match started.blocking_recv() {
            Some(result) => result.map_err(StartError::Thread)?,
            None => return Err(StartError::Thread(io::Error::other("a thread ended while starting"))),
        }
    }
    Ok(Running { proxy, admin: admin_address, shared, stop, accepted, threads })
}

fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    thread::Builder::new().name(name).spawn(body).map_err(StartError::Thread)
}

fn share(config: Config, clock: Clock, colour: bool, reread: Option<Reread>) -> io::Result<Arc<Shared>> {
    let form = match config.log.access {
        Access::Off => None,
        Access::Text => Some(Form::Text { colour }),
        Access::Json => Some(Form::Json),
    };
    let access = form.map(|form| AccessLog::stdout(form, config.log.access_queue)).transpose()?;
    let promise =
        Promise { bound: config.cache.coherence_bound, when_lost: config.cache.coherence_when_lost };
    let coherence = config.cache.redis.is_some().then(|| Arc::new(Coherence::new(promise, clock.mono())));
    let warm_start = config.cache.warm_start.filter(|_| config.cache.redis.is_some());
    let pseudonym = pseudonym();
    let otlp = config.otlp.as_ref().filter(|_| cfg!(feature = "otlp"));
    let spans = otlp.map(|otlp| collected(otlp, &pseudonym, &clock));
    Ok(Arc::new(Shared {
        started: clock.mono(),
        coherence,
        fleet: Membership::default(),
        leases: OnceLock::new(),
        memory: Memory::new(&config.cache),
        hot: Hot::new(warm_start.map_or(0, |warm_start| warm_start.keys)),
        warming: Warming::new(warm_start.is_none()),
        purges: Arc::new(Purges::new(PURGES)),
        flights: Flights::new(),
        searches: Searches::default(),
        access,
        slow: SlowRequests::default(),
        receipts: Receipts::default(),
        spans: spans.transpose()?,
        via: hop::via(Version::HTTP_11, &pseudonym),
        pseudonym,
        interim: Arc::default(),
        cuts: Arc::default(),
        proxy_headers: ProxyHeaders::default(),
        heads: Heads::default(),
        tunnels: Arc::default(),
        hints: Hints::default(),
        tunnels_held: Arc::default(),
        connections: AtomicU64::new(0),
        draining: AtomicBool::new(false),
        tiers: Mutex::new(Vec::new()),
        reach: Arc::default(),
        press: Press::new(config.workers),
        doubts: Doubts::default(),
        reloads: Reloads::new(reread),
        runtimes: Mutex::default(),
        snapshot: ArcSwap::from_pointee(Snapshot::first(config, &clock)),
        started_at: clock.now(),
        clock,
    }))
}

/// The way to who collects traces.
fn collected(otlp: &Otlp, instance: &str, clock: &Clock) -> io::Result<Spans> {
    let Otlp { host, port, path, headers, timeout, .. } = otlp.clone();
    // Said in the file, they take the place of ours.
    let ours = [
        ("service.name", otlp.service_name.as_str()),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", instance),
    ];
    let ours = ours.iter().filter(|(name, _)| otlp.attributes.iter().all(|(known, _)| known != name));
    let ours = ours.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let attributes: Vec<(String, String)> = ours.chain(otlp.attributes.iter().cloned()).collect();
    Spans::new(Collector { host, port, path, headers, timeout }, &attributes, otlp.queue, clock.clone())
}

/// A name for `Via` that no other process has: chains of Larders are no loops.
fn pseudonym() -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let random = RandomState::new().build_hasher().finish();
    format!("larder-{:08x}", random & 0xffff_ffff)
}

impl Running {
    /// Reads the configuration anew and puts it in force, as a whole or not at all.
    ///
    /// # Errors
    /// Why the one in force has stayed. The log has been told.
    pub fn reload(&self) -> Result<Reloaded, NotReloaded> {
        self.shared.reload()
    }

    /// Stops: says so in every answer, listens on for `limits.lame_duck`, then finishes what is in flight,
    /// all within `limits.drain`; what waits to be written is written. Returns when all is done.
    pub fn stop(self) {
        stop::leave(&self.shared, &self.stop, &self.accepted);
        for thread in self.threads {
            // A thread that panicked has said so on stderr; the others still get their end.
            let _panicked = thread.join();
        }
        if let Some(access) = &self.shared.access {
            access.stop(LAST_LINES);
        }
        if self.shared.spans.as_ref().is_some_and(|spans| !spans.stop(LAST_SPANS)) {
            tracing::warn!("the collector of traces has not taken the last spans");
        }
    }

    /// Whether a shared tier is configured, and whether it answers.
    pub fn redis_up(&self) -> Option<bool> {
        let tiers = self.shared.tiers.lock();
        if tiers.is_empty() { None } else { Some(tiers.iter().any(|tier| tier.gauges().up)) }
    }
}
