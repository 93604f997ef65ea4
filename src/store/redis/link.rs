//! One connection to Redis, with a breaker.
//!
//! Knows when a connection is good, how it is made anew, and how long anything may take. A link is
//! either connected or open (in the breaker's sense: no call passes). A lost connection, or an
//! answer that makes no sense, opens it at once; so do [`MISSES`] deadlines missed in a row, and
//! the connection is dropped then, since a black-holed one would miss for ever. While open, every
//! call is refused at once; one background task, the keeper, tries to connect again and closes the
//! breaker when a `PING` is answered. The keeper also pings a standing connection, so that a dead
//! one is mostly found before a request does.
//! Must not know: what is asked, or what a value means.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, Cmd, IntoConnectionInfo, RedisError, Value};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::reach::Member;

/// Deadlines missed in a row that open the breaker.
const MISSES: u32 = 3;
/// Calls under way on one link; more are refused.
const OUTSTANDING: usize = 256;
/// Calls given up by their callers with no answer since, after which the connection is dropped: the
/// client keeps a place for each answer still to come, and their number has to be bounded.
const ABANDONED: u32 = 64;
/// For name, TCP and handshake together.
const CONNECT: Duration = Duration::from_secs(1);
/// The client's own bound on an answer; ours are shorter, this one only backs them.
const RESPONSE: Duration = Duration::from_secs(5);
/// The kernel gives a connection up when sent bytes are not acknowledged for so long.
const UNACKNOWLEDGED: Duration = Duration::from_secs(2);
/// Between two pings of a standing connection.
const PING_EVERY: Duration = Duration::from_secs(1);
/// Between two attempts to connect: at first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));

/// Why a call gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The breaker is open: nothing was asked.
    Open,
    /// Too many calls are under way: nothing was asked.
    Full,
    /// No answer in time.
    Deadline,
    /// The connection broke.
    Lost,
    /// The answer is not one to this question; the connection is not trusted any more.
    Nonsense,
    /// Redis answered with an error.
    Refused,
}

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
    client: Client,
    config: AsyncConnectionConfig,
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
    connection: MultiplexedConnection,
    health: Arc<Health>,
}

#[derive(Debug, Default)]
struct Health {
    misses: AtomicU32,
    abandoned: AtomicU32,
    answered: AtomicBool,
    /// It ended by breaking, not by being slow.
    lost: AtomicBool,
}

impl Link {
    /// Begins to connect to `url` in the background. `deadline` is the usual bound of a call, from
    /// which the bound of a `PING` is taken. Errs only when the URL cannot be used at all.
    pub(super) fn start(
        name: &'static str,
        url: &str,
        deadline: Duration,
        member: Member,
    ) -> Result<Self, RedisError> {
        let shared = Arc::new(Shared {
            name,
            client: client(url)?,
            config: AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT))
                .set_response_timeout(Some(RESPONSE))
                .set_pipeline_buffer_size(OUTSTANDING),
            ping: deadline.saturating_mul(2).clamp(Duration::from_millis(100), CONNECT),
            line: Mutex::new(None),
            phase: watch::Sender::new(Phase::Starting),
            outstanding: Semaphore::new(OUTSTANDING),
            opened: Notify::new(),
            member,
        });
        let keeper = AbortOnDrop(tokio::spawn(keep(Arc::clone(&shared))));
        Ok(Self { shared, _keeper: keeper })
    }

    /// Runs `calls` on the connection, all of it within `bound`, and judges the connection by how
    /// that went.
    ///
    /// If the future is dropped, what was asked may still be carried out and its answer is thrown
    /// away when it comes, in its place in the order: the connection stays usable. So that a
    /// connection that answers no more does not gather such places, they are counted.
    pub(super) async fn with<T, C, F>(&self, bound: Duration, calls: C) -> Result<T, Fault>
    where
        C: FnOnce(MultiplexedConnection) -> F,
        F: Future<Output = Result<T, Fault>>,
    {
        self.shared.with(bound, calls).await
    }

    /// Where the breaker stands now.
    pub(super) fn phase(&self) -> Phase {
        *self.shared.phase.borrow()
    }

    /// Tells of every change of the breaker.
    pub(super) fn phases(&self) -> watch::Receiver<Phase> {
        self.shared.phase.subscribe()
    }
}

/// Sends one command and gives its answer; an error that Redis answers is a [`Fault::Refused`].
pub(super) async fn ask(connection: &mut MultiplexedConnection, command: &Cmd) -> Result<Value, Fault> {
    match connection.send_packed_command(command).await {
        Ok(Value::ServerError(_)) => Err(Fault::Refused),
        Ok(value) => Ok(value),
        Err(error) => Err(fault(&error)),
    }
}

/// Everything that is not an error which Redis itself answered puts the connection in doubt.
fn fault(error: &RedisError) -> Fault {
    match error.kind() {
        redis::ErrorKind::Server(_) | redis::ErrorKind::Extension => Fault::Refused,
        redis::ErrorKind::Parse | redis::ErrorKind::UnexpectedReturnType => Fault::Nonsense,
        _ => Fault::Lost,
    }
}

fn client(url: &str) -> Result<Client, RedisError> {
    // The crate leaves Nagle's algorithm on, which holds up small commands.
    let settings = TcpSettings::default().set_nodelay(true);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(UNACKNOWLEDGED);
    Client::open(url.into_connection_info()?.set_tcp_settings(settings))
}

impl Shared {
    async fn with<T, C, F>(&self, bound: Duration, calls: C) -> Result<T, Fault>
    where
        C: FnOnce(MultiplexedConnection) -> F,
        F: Future<Output = Result<T, Fault>>,
    {
        let line = self.line.lock().clone().ok_or(Fault::Open)?;
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
            self.phase.send_replace(Phase::Open);
            self.opened.notify_one();
            tracing::debug!(target: "larder::redis", link = self.name, why, "breaker open");
            self.member.down(why);
        }
    }

    fn close(&self, connection: MultiplexedConnection) {
        tracing::debug!(target: "larder::redis", link = self.name, "connected");
        // Before anybody can find it open again: up and down are told in their order.
        self.member.up();
        *self.line.lock() = Some(Line { connection, health: Arc::default() });
        self.phase.send_replace(Phase::Closed);
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
            None | Some(Fault::Refused) => {
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
            let health = watch_over(&shared, &mut chance).await;
            // A connection that was good and broke is made anew at once: Redis may only have
            // restarted. One that was too slow, or never answered, is given time.
            if health.answered.load(Ordering::Relaxed) {
                backoff = BACKOFF.0;
                if health.lost.load(Ordering::Relaxed) {
                    continue;
                }
            }
        }
        tokio::time::sleep(chance.around(backoff)).await;
        backoff = backoff.saturating_mul(2).min(BACKOFF.1);
    }
}

/// Tries once to connect, and closes the breaker if that went well.
async fn attempt(shared: &Arc<Shared>) -> bool {
    if *shared.phase.borrow() == Phase::Open {
        shared.phase.send_replace(Phase::HalfOpen);
    }
    let (client, config, bound) = (shared.client.clone(), shared.config.clone(), shared.ping);
    // In a task of its own: should the client panic over what a stranger answers, the attempt has
    // failed and the keeper lives on.
    let connected = AbortOnDrop(tokio::spawn(async move { connect(&client, &config, bound).await })).await;
    match connected {
        Some(Ok(connection)) => {
            shared.close(connection);
            true
        }
        failed => {
            let why = failed.and_then(Result::err).unwrap_or_else(|| "the attempt was cut short".to_owned());
            tracing::debug!(target: "larder::redis", link = shared.name, why, "no connection");
            shared.member.down(&why);
            shared.phase.send_replace(Phase::Open);
            false
        }
    }
}

async fn connect(
    client: &Client,
    config: &AsyncConnectionConfig,
    bound: Duration,
) -> Result<MultiplexedConnection, String> {
    let connected = client.get_multiplexed_async_connection_with_config(config).await;
    let mut connection = connected.map_err(|error| error.to_string())?;
    match timeout(bound, ping(&mut connection)).await {
        Ok(Ok(())) => Ok(connection),
        Ok(Err(fault)) => Err(format!("PING: {fault:?}")),
        Err(_) => Err("PING: no answer in time".to_owned()),
    }
}

async fn ping(connection: &mut MultiplexedConnection) -> Result<(), Fault> {
    match ask(connection, &redis::cmd("PING")).await? {
        Value::SimpleString(answer) if answer == "PONG" => Ok(()),
        _ => Err(Fault::Nonsense),
    }
}

/// Pings the standing connection until it is given up; gives its last state of health.
async fn watch_over(shared: &Shared, chance: &mut Chance) -> Arc<Health> {
    let mut last = Arc::default();
    let mut alarms = shared.member.alarms();
    loop {
        let Some(line) = shared.line.lock().clone() else { return last };
        last = line.health;
        let stands = tokio::select! {
            () = shared.opened.notified() => false,
            _ = alarms.changed() => true,
            () = tokio::time::sleep(chance.around(PING_EVERY)) => true,
        };
        if stands {
            let ping = |mut connection| async move { ping(&mut connection).await };
            let _judged = shared.with(shared.ping, ping).await;
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
