//! One connection to Redis, with a breaker.
//!
//! Knows when a connection is good, how it is made anew, and how long anything may take. A link is
//! either connected or open (in the breaker's sense: no call passes). A lost connection, or an
//! answer that makes no sense, opens it at once; so do [`MISSES`] deadlines missed in a row, and
//! the connection is dropped then, since a black-holed one would miss for ever. While open, every
//! call is refused at once; one background task, the keeper, tries to connect again and closes the
//! breaker when a `PING` is answered. The keeper also pings a standing connection, so that a dead
//! one is mostly found before a request does.
//! A connection that has lost the order of its answers ([`question`](super::question)) is dropped at once.
//! Must not know: what is asked, or what a value means.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::{Value, cmd};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::client::Client;
pub(super) use super::question::{Fault, ask, ask_all, question};
use super::question::{Question, here, send};
use super::reach::Member;
use super::servers::{self, Target};
use crate::config::Node;
use crate::telemetry::supervise;

/// Deadlines missed in a row that open the breaker.
const MISSES: u32 = 3;
/// Calls under way on one link; more are refused.
const OUTSTANDING: usize = 256;
/// Calls given up by their callers with no answer since, after which the connection is dropped: the
/// client keeps a place for each answer still to come, and their number has to be bounded.
const ABANDONED: u32 = 64;
/// Places that the client has: for those that wait, and for answers to those that do not any more.
const PLACES: usize = OUTSTANDING + (ABANDONED + MISSES) as usize;
/// For saying who we are, once connected.
const INTRODUCE: Duration = Duration::from_secs(1);
/// Between two pings of a standing connection.
const PING_EVERY: Duration = Duration::from_millis(750);
/// Bounds of a ping, and how long none may be answered until the connection is given up. With the time
/// between two, a connection that swallows everything is found within 2 s.
const PING: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// How long a connection has to stand to be made anew at once when it breaks.
const STOOD: Duration = Duration::from_secs(1);
/// How long a connection to the one server that is configured stands until it is left because that has become
/// a replica: another may have taken over its name or address, and one that always was a replica is kept.
const LEAVE: Duration = Duration::from_secs(10);
/// Between two attempts to connect: at first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));

/// Where the breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The first attempt to connect is not over.
    Starting,
    /// Connected: calls pass.
    Closed,
    /// No call passes.
    Open,
    /// No call passes; an attempt is under way.
    HalfOpen,
}

impl Phase {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::Starting | Self::HalfOpen => "half-open",
        }
    }
}

/// A connection that mends itself. Its keeper ends when the link is dropped.
#[derive(Debug)]
pub(super) struct Link {
    shared: Arc<Shared>,
    _keeper: AbortOnDrop<()>,
}

#[derive(Debug)]
struct Shared {
    /// For log lines.
    name: &'static str,
    target: Target,
    /// Bytes of the longest string that an answer may hold.
    longest: u64,
    /// How long a `PING` may take.
    ping: Duration,
    line: Mutex<Option<Line>>,
    phase: watch::Sender<Phase>,
    outstanding: Semaphore,
    /// Wakes the keeper: the breaker was opened.
    opened: Notify,
    member: Member,
}

#[derive(Clone, Debug)]
struct Line {
    connection: Client,
    /// Which server it is; `None` for a local socket.
    node: Option<Node>,
    health: Arc<Health>,
    since: Instant,
    /// Moves the bytes; ends with the last who holds the line.
    _driver: Arc<AbortOnDrop<()>>,
}

#[derive(Debug, Default)]
struct Health {
    misses: AtomicU32,
    abandoned: AtomicU32,
    answered: AtomicBool,
    /// It ended by breaking, not by being slow.
    lost: AtomicBool,
}

/// How long to wait before a connection is made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// Not at all.
    None,
    /// As after the first attempt that fails.
    Short,
    /// As after one more that fails.
    Longer,
}

impl Health {
    /// A connection that was good and broke is made anew at once: Redis may only have restarted. One that was too
    /// slow, or broke as soon as it stood, is given a little time: else each question would bring a connection of
    /// its own. One that never answered is given more.
    fn rest(&self, stood: Duration) -> Rest {
        let broke = self.lost.load(Ordering::Relaxed) && stood >= STOOD;
        match (self.answered.load(Ordering::Relaxed), broke) {
            (true, true) => Rest::None,
            (true, false) => Rest::Short,
            (false, _) => Rest::Longer,
        }
    }
}

impl Link {
    /// Begins to connect to `target` in the background. `deadline` is the usual bound of a call, from
    /// which the bound of a `PING` is taken; no answer may hold a string longer than `longest`, bytes.
    pub(super) fn start(
        name: &'static str,
        target: Target,
        deadline: Duration,
        longest: u64,
        member: Member,
    ) -> Self {
        let shared = Arc::new(Shared {
            name,
            target,
            longest,
            ping: ping_bound(deadline),
            line: Mutex::new(None),
            phase: watch::Sender::new(Phase::Starting),
            outstanding: Semaphore::new(OUTSTANDING),
            opened: Notify::new(),
            member,
        });
        let kept = Arc::clone(&shared);
        let keeper = AbortOnDrop(tokio::spawn(supervise("redis link", move || keep(Arc::clone(&kept)))));
        Self { shared, _keeper: keeper }
    }

    /// Runs `calls` on the connection.
    #[cfg(test)]
    pub(super) async fn with<T, C, F>(&self, bound: Duration, calls: C) -> Result<T, Fault>
    where
        C: FnOnce(Client) -> F,
        F: Future<Output = Result<T, Fault>>,
    {
        self.shared.with(bound, calls).await
    }

    /// Sends a question, and gives all that is answered to it until `until`, errors among them.
    ///
    /// If the future is dropped, what was asked may still be carried out and its answer is thrown
    /// away when it comes, in its place in the order: the connection stays usable. So that a
    /// connection that answers no more does not gather such places, they are counted.
    pub(super) async fn send(&self, until: Instant, question: &Question) -> Result<Vec<Value>, Fault> {
        let sent = |connection: Client| async move { send(&connection, question).await };
        self.shared.with(until.saturating_duration_since(Instant::now()), sent).await
    }

    /// The same, where an error that says that another server is to be asked is a fault.
    pub(super) async fn ask(&self, until: Instant, question: &Question) -> Result<Vec<Value>, Fault> {
        let asked = |connection: Client| async move { send(&connection, question).await.and_then(here) };
        self.shared.with(until.saturating_duration_since(Instant::now()), asked).await
    }

    /// Waits for the first attempt to connect to be over, until `until` at most.
    pub(super) async fn tried(&self, until: Instant) {
        let mut phases = self.phases();
        let _ = timeout_at(until, phases.wait_for(|phase| *phase != Phase::Starting)).await;
    }

    /// Tells of every change of the breaker.
    pub(super) fn phases(&self) -> watch::Receiver<Phase> {
        self.shared.phase.subscribe()
    }
}

impl Shared {
    /// Runs `calls` on the connection, all of it within `bound`, and judges the connection by how that went.
    async fn with<T, C, F>(&self, bound: Duration, calls: C) -> Result<T, Fault>
    where
        C: FnOnce(Client) -> F,
        F: Future<Output = Result<T, Fault>>,
    {
        let line = self.line.lock().clone().ok_or(Fault::Open)?;
        if bound.is_zero() {
            // Another server has taken all of the time: that says nothing of this one.
            return Err(Fault::Deadline);
        }
        let _permit = self.outstanding.try_acquire().map_err(|_| Fault::Full)?;
        let mut call = Call { shared: self, line, over: false };
        let result = timeout(bound, calls(call.line.connection.clone())).await;
        let result = result.unwrap_or(Err(Fault::Deadline));
        call.judge(result.as_ref().err().copied());
        result
    }

    /// Opens the breaker, unless that line has been replaced already.
    fn open(&self, line: &Line, why: &'static str) {
        let dropped = {
            let mut current = self.line.lock();
            let same = current.as_ref().is_some_and(|current| Arc::ptr_eq(&current.health, &line.health));
            if same { current.take() } else { None }
        };
        if dropped.is_some() {
            self.turn(Phase::Open);
            self.opened.notify_one();
            tracing::debug!(target: "larder::redis", link = self.name, why, "breaker open");
            self.member.down(why);
        }
    }

    fn turn(&self, phase: Phase) {
        self.phase.send_replace(phase);
        self.member.turn(phase);
    }

    fn close(&self, (connection, driver): Spoken, node: Option<Node>) {
        tracing::debug!(target: "larder::redis", link = self.name, "connected");
        // Before anybody can find it open again: up and down are told in their order.
        self.member.up();
        let line = Line {
            connection,
            node,
            health: Arc::default(),
            since: Instant::now(),
            _driver: Arc::new(driver),
        };
        *self.line.lock() = Some(line);
        self.turn(Phase::Closed);
    }
}

/// A call under way; dropped before it was judged, it counts as abandoned.
struct Call<'a> {
    shared: &'a Shared,
    line: Line,
    over: bool,
}

impl Call<'_> {
    fn judge(&mut self, fault: Option<Fault>) {
        self.over = true;
        let health = &self.line.health;
        match fault {
            Some(Fault::NotHere) if self.shared.target.is_found() => {
                // It is another by now, or will be: found anew as if it had gone.
                health.lost.store(true, Ordering::Relaxed);
                self.shared.target.look_again();
                self.shared.open(&self.line, "another server is to be asked");
            }
            Some(Fault::NotHere) if self.line.since.elapsed() >= LEAVE => {
                health.lost.store(true, Ordering::Relaxed);
                self.shared.target.leave();
                self.shared.open(&self.line, "another server may have its address");
            }
            None | Some(Fault::Refused | Fault::NotHere) => {
                // Answers come in order, so this one proves that none is owed from before.
                health.misses.store(0, Ordering::Relaxed);
                health.abandoned.store(0, Ordering::Relaxed);
                health.answered.store(true, Ordering::Relaxed);
            }
            Some(Fault::Deadline) => {
                let misses = health.misses.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                if misses >= MISSES {
                    self.shared.open(&self.line, "too slow");
                }
            }
            Some(Fault::Lost | Fault::Nonsense) => {
                health.lost.store(true, Ordering::Relaxed);
                self.shared.open(&self.line, "connection lost");
            }
            Some(Fault::Open | Fault::Full) => {}
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let abandoned = self.line.health.abandoned.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if abandoned >= ABANDONED {
            self.shared.open(&self.line, "no answers");
        }
    }
}

/// The keeper: for ever connects, watches, and waits before it connects again.
async fn keep(shared: Arc<Shared>) {
    let mut chance = Chance::new();
    let mut backoff = BACKOFF.0;
    loop {
        if attempt(&shared).await {
            let since = Instant::now();
            let health = watch_over(&shared, &mut chance).await;
            match health.rest(since.elapsed()) {
                Rest::None => {
                    backoff = BACKOFF.0;
                    continue;
                }
                Rest::Short => backoff = BACKOFF.0,
                Rest::Longer => {}
            }
        }
        tokio::time::sleep(chance.around(backoff)).await;
        backoff = backoff.saturating_mul(2).min(BACKOFF.1);
    }
}

/// Tries once to connect, and closes the breaker if that went well.
async fn attempt(shared: &Arc<Shared>) -> bool {
    if *shared.phase.borrow() == Phase::Open {
        shared.turn(Phase::HalfOpen);
    }
    let (target, longest, bound) = (shared.target.clone(), shared.longest, shared.ping);
    // In a task of its own: should the client panic over what a stranger answers, the attempt has
    // failed and the keeper lives on.
    let connected = AbortOnDrop(tokio::spawn(async move { connect(&target, longest, bound).await })).await;
    match connected {
        Some(Ok((spoken, node))) => {
            shared.close(spoken, node);
            true
        }
        failed => {
            let why = failed.and_then(Result::err).unwrap_or_else(|| "the attempt was cut short".to_owned());
            tracing::debug!(target: "larder::redis", link = shared.name, why, "no connection");
            shared.target.look_again();
            shared.member.down(&why);
            shared.turn(Phase::Open);
            false
        }
    }
}

/// A client, and the task that moves its bytes.
type Spoken = (Client, AbortOnDrop<()>);

/// A connection that has answered a `PING`, by a master where sentinels have named it so.
async fn connect(target: &Target, longest: u64, bound: Duration) -> Result<(Spoken, Option<Node>), String> {
    let reached = target.reach(longest).await?;
    let introduced = timeout(INTRODUCE, servers::speak(&reached.hello, reached.line, PLACES)).await;
    let (connection, driver) = introduced.map_err(|_| "no connection in time".to_owned())??;
    match timeout(bound, ping(&connection)).await {
        Ok(Ok(())) => {}
        Ok(Err(Fault::Refused)) => return Err("it refuses a PING: it may want a password".to_owned()),
        Ok(Err(fault)) => return Err(format!("PING: {}", fault.as_str())),
        Err(_) => return Err("PING: no answer in time".to_owned()),
    }
    if target.is_named() {
        match timeout(bound, ask(&connection, cmd("ROLE"))).await {
            Ok(Ok(Value::Array(role))) if servers::leads(&role) => target.leads(reached.node.as_ref()),
            Ok(Ok(_)) => return Err("what the sentinels name is no master".to_owned()),
            Ok(Err(fault)) => return Err(format!("ROLE: {}", fault.as_str())),
            Err(_) => return Err("ROLE: no answer in time".to_owned()),
        }
    }
    Ok(((connection, driver), reached.node))
}

async fn ping(connection: &Client) -> Result<(), Fault> {
    ask_all(connection, []).await.map(drop)
}

/// Whether pings have been waited for so long that one more would be too much.
fn has_waited(waited: Duration, ping: Duration) -> bool {
    waited.saturating_add(ping) > PING.1
}

/// How long a `PING` may take on a link whose calls usually have this deadline.
fn ping_bound(deadline: Duration) -> Duration {
    deadline.saturating_mul(2).clamp(PING.0, PING.1)
}

/// Pings the standing connection until it is given up; gives its last state of health.
async fn watch_over(shared: &Shared, chance: &mut Chance) -> Arc<Health> {
    let mut last = Arc::default();
    let mut alarms = shared.member.alarms();
    loop {
        let Some(line) = shared.line.lock().clone() else { return last };
        last = Arc::clone(&line.health);
        let stands = tokio::select! {
            () = shared.opened.notified() => false,
            _ = alarms.changed() => true,
            () = tokio::time::sleep(chance.around(PING_EVERY)) => true,
        };
        let elsewhere = || line.node.as_ref().is_some_and(|node| shared.target.is_elsewhere(node));
        if stands && (elsewhere() || shared.target.was_left_since(line.since)) {
            line.health.lost.store(true, Ordering::Relaxed);
            shared.open(&line, "another server is to be asked");
        } else if stands {
            ping_until_answered(shared, &line).await;
        }
    }
}

/// Pings again at once while none is answered, until the connection is given up.
async fn ping_until_answered(shared: &Shared, line: &Line) {
    let mut waited = Duration::ZERO;
    loop {
        let ping = |connection: Client| async move { ping(&connection).await };
        if shared.with(shared.ping, ping).await != Err(Fault::Deadline) {
            return;
        }
        waited = waited.saturating_add(shared.ping);
        if has_waited(waited, shared.ping) {
            shared.open(line, "no answers");
            return;
        }
    }
}

/// Spreads waits by a fifth either way, so that the workers of a fleet do not all knock at once.
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        Self(RandomState::new().hash_one(0) | 1)
    }

    fn around(&mut self, wait: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let percent = u32::try_from(self.0 % 41).unwrap_or(20).saturating_add(80);
        wait.saturating_mul(percent) / 100
    }
}

/// A task that ends when this is dropped. Awaiting it gives `None` when the task was cut short.
#[derive(Debug)]
pub(super) struct AbortOnDrop<T>(pub(super) JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> Future for AbortOnDrop<T> {
    type Output = Option<T>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(context).map(Result::ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_breaks_off_again_and_again_is_given_time() {
        for (answered, lost, stood, rest) in [
            (true, true, STOOD, Rest::None),
            (true, true, STOOD / 2, Rest::Short),
            (true, false, STOOD, Rest::Short),
            (false, true, STOOD * 9, Rest::Longer),
            (false, false, Duration::ZERO, Rest::Longer),
        ] {
            let health = Health { answered: answered.into(), lost: lost.into(), ..Health::default() };
            assert_eq!(health.rest(stood), rest, "{answered} {lost} {stood:?}");
        }
    }

    #[test]
    fn a_connection_that_swallows_everything_is_found_within_two_seconds() {
        let mut chance = Chance::new();
        let longest = (0..1_000).map(|_| chance.around(PING_EVERY)).max().unwrap();
        for deadline in [1, 20, 60, 100, 166, 249, 250, 333, 500, 5_000].map(Duration::from_millis) {
            let ping = ping_bound(deadline);
            let pings = (1..).find(|pings| has_waited(ping * *pings, ping) || *pings >= MISSES).unwrap();
            assert!(longest + ping * pings <= Duration::from_secs(2), "{deadline:?}");
        }
    }
}
