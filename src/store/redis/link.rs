//! One connection to Redis, with a breaker.
//!
//! Knows when a connection is good, how it is made anew, and how long anything may take. A link is
//! either connected or open (in the breaker's sense: no call passes). A lost connection, or an
//! answer that makes no sense, opens it at once; so do [`MISSES`] deadlines missed in a row, and
//! the connection is dropped then, since a black-holed one would miss for ever. While open, every
//! call is refused at once; one background task, the keeper, tries to connect again and closes the
//! breaker when a `PING` is answered. The keeper also pings a standing connection, so that a dead
//! one is mostly found before a request does.
//!
//! Answers carry no sign of what they answer: they come in the order of the questions, and the client
//! keeps a place for each, also where nobody waits any more. Should a server ever send one too many or
//! too few, each would go to the next question. So every question ends with a `PING` of a number that was
//! never used before, and counts as answered only where that comes back in its place; a connection that
//! has lost the order is dropped at once.
//! Must not know: what is asked, or what a value means.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError, Value,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::reach::Member;
use super::watch::Watched;
use crate::telemetry::supervise;

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
    server: ConnectionInfo,
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
    connection: MultiplexedConnection,
    health: Arc<Health>,
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

impl Link {
    /// Begins to connect to `url` in the background. `deadline` is the usual bound of a call, from
    /// which the bound of a `PING` is taken; no answer may hold a string longer than `longest`, bytes.
    /// Errs only when the URL cannot be used at all.
    pub(super) fn start(
        name: &'static str,
        url: &str,
        deadline: Duration,
        longest: u64,
        member: Member,
    ) -> Result<Self, RedisError> {
        let shared = Arc::new(Shared {
            name,
            server: url.into_connection_info()?,
            longest,
            ping: deadline.saturating_mul(2).clamp(Duration::from_millis(100), CONNECT),
            line: Mutex::new(None),
            phase: watch::Sender::new(Phase::Starting),
            outstanding: Semaphore::new(OUTSTANDING),
            opened: Notify::new(),
            member,
        });
        let kept = Arc::clone(&shared);
        let keeper = AbortOnDrop(tokio::spawn(supervise("redis link", move || keep(Arc::clone(&kept)))));
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

/// Distinguishes each question of this process from all others.
static QUESTIONS: AtomicU64 = AtomicU64::new(1);

/// Sends commands in one piece and gives their answers in order, errors of Redis among them. The `PING`
/// behind them shows that they are the answers to these commands.
pub(super) async fn ask_all(
    connection: &mut MultiplexedConnection,
    commands: impl IntoIterator<Item = Cmd>,
) -> Result<Vec<Value>, Fault> {
    let number = QUESTIONS.fetch_add(1, Ordering::Relaxed);
    let mut question = redis::Pipeline::new();
    for command in commands {
        question.add_command(command);
    }
    question.cmd("PING").arg(number);
    let count = question.len();
    let mut answers =
        connection.send_packed_commands(&question, 0, count).await.map_err(|error| fault(&error))?;
    match answers.pop() {
        Some(Value::BulkString(echo)) if echo == number.to_string().as_bytes() => Ok(answers),
        // A Redis that wants a password, or loads its data, says so to everything.
        Some(Value::ServerError(_)) => Err(Fault::Refused),
        _ => Err(Fault::Nonsense),
    }
}

/// Sends one command and gives its answer; an error that Redis answers is a [`Fault::Refused`].
pub(super) async fn ask(connection: &mut MultiplexedConnection, command: Cmd) -> Result<Value, Fault> {
    let answers = ask_all(connection, [command]).await?;
    match <[Value; 1]>::try_from(answers) {
        Ok([Value::ServerError(_)]) => Err(Fault::Refused),
        Ok([answer]) => Ok(answer),
        Err(_) => Err(Fault::Nonsense),
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

    fn close(&self, connection: MultiplexedConnection, driver: AbortOnDrop<()>) {
        tracing::debug!(target: "larder::redis", link = self.name, "connected");
        // Before anybody can find it open again: up and down are told in their order.
        self.member.up();
        let line = Line { connection, health: Arc::default(), _driver: Arc::new(driver) };
        *self.line.lock() = Some(line);
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
    let (server, longest, bound) = (shared.server.clone(), shared.longest, shared.ping);
    // In a task of its own: should the client panic over what a stranger answers, the attempt has
    // failed and the keeper lives on.
    let connected = AbortOnDrop(tokio::spawn(async move { connect(&server, longest, bound).await })).await;
    match connected {
        Some(Ok((connection, driver))) => {
            shared.close(connection, driver);
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

/// A connection that has answered a `PING`, and the task that moves its bytes.
async fn connect(
    server: &ConnectionInfo,
    longest: u64,
    bound: Duration,
) -> Result<(MultiplexedConnection, AbortOnDrop<()>), String> {
    let connected = timeout(CONNECT, shake_hands(server, longest)).await;
    let (mut connection, driver) = connected.map_err(|_| "no connection in time".to_owned())??;
    match timeout(bound, ping(&mut connection)).await {
        Ok(Ok(())) => Ok((connection, driver)),
        Ok(Err(fault)) => Err(format!("PING: {fault:?}")),
        Err(_) => Err("PING: no answer in time".to_owned()),
    }
}

async fn shake_hands(
    server: &ConnectionInfo,
    longest: u64,
) -> Result<(MultiplexedConnection, AbortOnDrop<()>), String> {
    let said = |error: std::io::Error| error.to_string();
    match server.addr() {
        ConnectionAddr::Tcp(host, port) => {
            let socket = tcp(host, *port).await.map_err(said)?;
            speak(server, Watched::new(socket, longest)).await
        }
        ConnectionAddr::Unix(path) => {
            let socket = tokio::net::UnixStream::connect(path).await.map_err(said)?;
            speak(server, Watched::new(socket, longest)).await
        }
        _ => Err("not an address that Larder can connect to".to_owned()),
    }
}

async fn speak<S>(
    server: &ConnectionInfo,
    socket: S,
) -> Result<(MultiplexedConnection, AbortOnDrop<()>), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(Some(RESPONSE))
        .set_pipeline_buffer_size(OUTSTANDING);
    let made = MultiplexedConnection::new_with_config(server.redis_settings(), socket, config).await;
    let (connection, driver) = made.map_err(|error| error.to_string())?;
    Ok((connection, AbortOnDrop(tokio::spawn(driver))))
}

/// The kernel's part: addresses one after the other, each with its share of the time.
async fn tcp(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
    let each = CONNECT / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut failed = std::io::Error::new(std::io::ErrorKind::NotFound, "the host has no address");
    for address in addresses {
        match timeout(each, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => return Ok(with_settings(socket)),
            Ok(Err(error)) => failed = error,
            Err(_) => failed = std::io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failed)
}

/// What the kernel refuses of these it refuses: the connection works without.
fn with_settings(socket: TcpStream) -> TcpStream {
    // Nagle's algorithm holds up small commands.
    let _ = socket.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(&socket).set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    socket
}

async fn ping(connection: &mut MultiplexedConnection) -> Result<(), Fault> {
    ask_all(connection, []).await.map(drop)
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
