//! Which server is meant: one by its address, the master that sentinels name, or a node of a cluster.
//!
//! Knows how sentinels and nodes are asked, each within a bound, and looks again every so often and whenever
//! a link says that something is amiss. Where it cannot be learned, what was learned last stands.
//! Must not know: what is asked of a server, or when a connection is good.
//!
//! A sentinel that is cut off names a master that is none any more. So all of them are heard
//! ([`sentinel`](super::sentinel)), and a server that was named is asked for its role before it is believed to be
//! the one ([`Target::is_elsewhere`]). A node that is cut off tells a cluster of before, and one that has left it
//! tells of another: a view with a lower epoch than the one that is known, or with none of its nodes, counts only
//! when nothing else is told for a while.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use redis::{Cmd, Value, cmd};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::client::{Bounds, Client};
use super::dial::{self, Dial, Socket};
use super::link::{AbortOnDrop, Fault, ask_all, question};
use super::sentinel;
use super::topology::{Topology, slot_of};
use crate::config::{Login, Node, Place, Redis};
use crate::telemetry::supervise;

/// For one sentinel or node to tell what it knows, connecting included.
const TELL: Duration = Duration::from_millis(300);
/// For all that are asked in one go.
const TELL_ALL: Duration = Duration::from_secs(1);
/// For name, TCP and TLS, once it is known where to.
const CONNECT: Duration = Duration::from_secs(1);
/// Between two looks, where nothing is amiss.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Between two looks, where something is: at first, and at most.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// Bytes of what a node may tell of its cluster: some 150 for each node.
const LONGEST_VIEW: u64 = 512 * 1024;
/// Bytes and members of what a sentinel tells, or a server of its role.
pub(super) const SHORT: (u64, u64) = (64 * 1024, 1024);
/// Views in a row that do not continue the one that is known, after which one is believed: somebody has made the
/// cluster anew.
const EARLIER: u32 = 8;

/// Where Redis is, for all links of a worker. Looks for it on the runtime that started it, until the last
/// clone and the last [`Target`] are gone.
#[derive(Clone, Debug)]
pub(super) struct Servers {
    inner: Arc<Inner>,
    _looking: Option<Arc<AbortOnDrop<()>>>,
}

#[derive(Debug)]
struct Inner {
    place: Place,
    dial: Dial,
    /// Who we are, for connections that are made from now on.
    logins: Mutex<Logins>,
    tls: bool,
    /// The node that is asked first.
    first: Mutex<usize>,
    /// When the one server was found to be a replica last.
    left: Mutex<Option<Instant>>,
    /// The master that sentinels named last, and that says itself that it is one.
    master: Mutex<Option<Node>>,
    view: watch::Sender<View>,
    amiss: Notify,
}

/// What is said first on a connection: who we are, and which database is meant.
#[derive(Clone, Debug)]
pub(super) struct Hello {
    login: Login,
    database: u32,
}

/// What is said first, to servers and to sentinels.
#[derive(Clone, Debug)]
struct Logins {
    server: Hello,
    sentinel: Hello,
}

impl Logins {
    fn of(redis: &Redis) -> Self {
        Self {
            server: Hello { login: redis.login.clone(), database: redis.database },
            sentinel: Hello { login: redis.sentinel_login.clone(), database: 0 },
        }
    }
}

/// What is known of a cluster.
#[derive(Clone, Debug)]
pub(super) enum View {
    /// No node has been asked yet.
    Unasked,
    /// No node tells: why.
    Unknown(String),
    /// This.
    Known(Arc<Topology>),
}

/// What a connection leads to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    servers: Servers,
    to: To,
    /// Members of an answer that is an array; none: there is no such answer.
    members: u64,
}

#[derive(Clone, Debug)]
enum To {
    /// The one server, or the master that sentinels name.
    Only,
    /// The node that holds a slot.
    Slot(u16),
    /// One node of a cluster.
    Node(Node),
}

/// A connection to a target, on which nothing has been said yet.
pub(super) struct Reached {
    /// Its bytes, and what answers may be.
    pub(super) line: (Socket, Bounds),
    /// What is said first.
    pub(super) hello: Hello,
    /// Which server it is; `None` for a local socket.
    pub(super) node: Option<Node>,
}

impl Servers {
    /// Begins to look, on the current runtime. A sentence where it cannot be used at all.
    pub(super) fn start(redis: &Redis) -> Result<Self, String> {
        let inner = Arc::new(Inner {
            place: redis.place.clone(),
            dial: Dial::new(redis)?,
            logins: Mutex::new(Logins::of(redis)),
            tls: redis.tls,
            first: Mutex::new(0),
            left: Mutex::new(None),
            master: Mutex::new(None),
            view: watch::Sender::new(View::Unasked),
            amiss: Notify::new(),
        });
        let kept = Arc::clone(&inner);
        let looking = match &inner.place {
            Place::Server(_) | Place::Socket(_) => None,
            Place::Sentinel { .. } | Place::Cluster(_) => {
                let look = move || look_for_ever(Arc::clone(&kept));
                Some(Arc::new(AbortOnDrop(tokio::spawn(supervise("redis servers", look)))))
            }
        };
        Ok(Self { inner, _looking: looking })
    }

    /// From now on we are who this says: connections that stand go on as they are, as Redis has it with passwords.
    pub(super) fn login_as(&self, redis: &Redis) {
        *self.inner.logins.lock() = Logins::of(redis);
    }

    /// Whether keys are spread over nodes.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.inner.place, Place::Cluster(_))
    }

    /// The server that holds this key, or any with the same tag: whichever it is when a connection is made.
    pub(super) fn for_key(&self, key: &str) -> Target {
        let to = if self.is_cluster() { To::Slot(slot_of(key.as_bytes())) } else { To::Only };
        Target { servers: self.clone(), to, members: 0 }
    }

    /// The one server, where there is one.
    pub(super) fn only(&self) -> Target {
        Target { servers: self.clone(), to: To::Only, members: 0 }
    }

    /// One node of a cluster.
    pub(super) fn node(&self, node: &Node) -> Target {
        Target { servers: self.clone(), to: To::Node(node.clone()), members: 0 }
    }

    /// What is known of the cluster.
    pub(super) fn views(&self) -> watch::Receiver<View> {
        self.inner.view.subscribe()
    }

    /// What is known of the cluster now.
    pub(super) fn topology(&self) -> Option<Arc<Topology>> {
        match &*self.inner.view.borrow() {
            View::Known(topology) => Some(Arc::clone(topology)),
            View::Unasked | View::Unknown(_) => None,
        }
    }

    /// Something is not where it was: look again soon.
    pub(super) fn look_again(&self) {
        self.inner.amiss.notify_one();
    }
}

impl Target {
    /// Answers may be arrays, of so many members in all.
    pub(super) fn with_arrays(self, members: u64) -> Self {
        Self { members, ..self }
    }

    /// Whether the server that is meant is told to us by others, and may be another at any time.
    pub(super) fn is_found(&self) -> bool {
        self.servers.is_cluster() || self.is_named()
    }

    /// Whether sentinels name the server.
    pub(super) fn is_named(&self) -> bool {
        matches!(self.servers.inner.place, Place::Sentinel { .. })
    }

    /// Whether by now it is known to be another than this.
    pub(super) fn is_elsewhere(&self, node: &Node) -> bool {
        match &self.to {
            To::Only => self.servers.inner.master.lock().as_ref().is_some_and(|master| master != node),
            To::Slot(slot) => {
                let topology = self.servers.topology();
                topology.is_some_and(|topology| topology.owner(*slot).is_some_and(|owner| owner != node))
            }
            To::Node(_) => false,
        }
    }

    /// The server could not be used: it may be another by now.
    pub(super) fn look_again(&self) {
        self.servers.look_again();
    }

    /// This, which sentinels name, says itself that it is a master. Else a connection to it would be left until the
    /// next look has told the same.
    pub(super) fn leads(&self, node: Option<&Node>) {
        if let Some(node) = node {
            *self.servers.inner.master.lock() = Some(node.clone());
        }
    }

    /// The one server has become a replica: all its connections are to be made anew.
    pub(super) fn leave(&self) {
        *self.servers.inner.left.lock() = Some(Instant::now());
    }

    /// Whether that was said of a connection of then.
    pub(super) fn was_left_since(&self, then: Instant) -> bool {
        self.servers.inner.left.lock().is_some_and(|left| left >= then)
    }

    /// Connects, in 2 s at most; no answer may hold a string longer than `longest`.
    pub(super) async fn reach(&self, longest: u64) -> Result<Reached, String> {
        let inner = &self.servers.inner;
        // A role has to fit.
        let (longest, members) = match self.is_named() {
            true => (longest.max(SHORT.0), self.members.max(SHORT.1)),
            false => (longest, self.members),
        };
        let said = |error: std::io::Error| error.to_string();
        let (node, socket) = if let (Place::Socket(path), To::Only) = (&inner.place, &self.to) {
            (None, timeout(CONNECT, dial::unix(path)).await)
        } else {
            let node = self.find().await?;
            let socket = timeout(CONNECT, inner.dial.tcp(&node)).await;
            (Some(node), socket)
        };
        let socket = socket.map_err(|_| "no connection in time".to_owned())?.map_err(said)?;
        Ok(Reached { line: (socket, Bounds { longest, members }), hello: inner.hello(), node })
    }

    async fn find(&self) -> Result<Node, String> {
        let inner = &self.servers.inner;
        match (&self.to, &inner.place) {
            (To::Node(node), _) | (To::Only, Place::Server(node)) => Ok(node.clone()),
            (To::Only, Place::Sentinel { .. }) => inner.ask_sentinels().await,
            (To::Slot(slot), _) => {
                // At a start nobody has told yet: that is no failure.
                let mut views = self.servers.views();
                let told = views.wait_for(|view| !matches!(view, View::Unasked));
                let _in_time = timeout(TELL_ALL, told).await.map(drop);
                let topology = self.servers.topology().ok_or("no node of the cluster tells who is in it")?;
                topology.owner(*slot).cloned().ok_or_else(|| format!("no node holds slot {slot}"))
            }
            (To::Only, Place::Cluster(_) | Place::Socket(_)) => Err("no one server is meant".to_owned()),
        }
    }
}

impl Inner {
    fn hello(&self) -> Hello {
        self.logins.lock().server.clone()
    }

    /// The master that sentinels name. All are asked at once; once most of them tell the same, the others are not
    /// waited for.
    async fn ask_sentinels(&self) -> Result<Node, String> {
        let Place::Sentinel { sentinels, master } = &self.place else {
            return Err("there are no sentinels".to_owned());
        };
        let ask = |sentinel| async move {
            let told = timeout(TELL, self.ask_sentinel(sentinel, master)).await;
            let told = told.unwrap_or_else(|_| Err("no answer in time".to_owned()));
            told.map_err(|why| format!("sentinel {sentinel}: {why}"))
        };
        let mut asked: FuturesUnordered<_> = sentinels.iter().map(ask).collect();
        let (mut all, mut why) = (Vec::new(), "there are no sentinels".to_owned());
        while let Some(told) = asked.next().await {
            match told {
                Ok(told) => all.push(told),
                Err(error) => why = error,
            }
            if sentinel::is_settled(&all, sentinels.len()) {
                break;
            }
        }
        let believed = sentinel::believed(&all);
        if let [one] = believed.as_slice() {
            return Ok(one.clone());
        }
        let leading = async {
            for node in &believed {
                if self.is_master(node).await {
                    return Some(node.clone());
                }
                why = format!("{node}, which sentinels name, is no master");
            }
            None
        };
        let told = timeout(TELL_ALL, leading).await.ok().flatten();
        told.ok_or(why)
    }

    /// Whether a server says that it is a master.
    async fn is_master(&self, node: &Node) -> bool {
        let asked = timeout(TELL, self.ask_once(node, &self.hello(), SHORT, [cmd("ROLE")])).await;
        matches!(asked.as_ref().map(|told| told.as_deref()), Ok(Ok([Value::Array(role)])) if leads(role))
    }

    async fn ask_sentinel(&self, sentinel: &Node, master: &str) -> Result<sentinel::Told, String> {
        let question = sentinel::question(master);
        let hello = self.logins.lock().sentinel.clone();
        let told = self.ask_once(sentinel, &hello, SHORT, question).await?;
        sentinel::read(told, master)
    }

    /// One question over a connection of its own.
    async fn ask_once(
        &self,
        node: &Node,
        hello: &Hello,
        (longest, members): (u64, u64),
        question: impl IntoIterator<Item = Cmd>,
    ) -> Result<Vec<Value>, String> {
        let socket = self.dial.tcp(node).await.map_err(|error| error.to_string())?;
        let (connection, _driver) = speak(hello, (socket, Bounds { longest, members }), 8).await?;
        ask_all(&connection, question).await.map_err(|fault| fault.as_str().to_owned())
    }

    /// What a node of the cluster tells: some that are known and that were configured are asked in turn.
    async fn ask_nodes(&self) -> Result<Topology, String> {
        let Place::Cluster(seeds) = &self.place else { return Err("there is no cluster".to_owned()) };
        let known = match &*self.view.borrow() {
            View::Known(topology) => topology.nodes().cloned().collect(),
            View::Unasked | View::Unknown(_) => Vec::new(),
        };
        let mut nodes: Vec<Node> = known;
        nodes.extend(seeds.iter().cloned());
        let mut why = "no node answers in time".to_owned();
        let asking = async {
            for _ in 0..nodes.len() {
                // Another one each time, whether or not it tells: one that is cut off must not be all we hear.
                let turn = {
                    let mut first = self.first.lock();
                    *first = first.wrapping_add(1);
                    *first % nodes.len().max(1)
                };
                let Some(node) = nodes.get(turn) else { continue };
                match timeout(TELL, self.ask_node(node)).await {
                    Ok(Ok(topology)) => return Some(topology),
                    Ok(Err(error)) => why = format!("{node}: {error}"),
                    Err(_) => why = format!("{node} does not answer in time"),
                }
            }
            None
        };
        let told = timeout(TELL_ALL, asking).await.ok().flatten();
        told.ok_or(why)
    }

    async fn ask_node(&self, node: &Node) -> Result<Topology, String> {
        let mut question = cmd("CLUSTER");
        question.arg("NODES");
        match self.ask_once(node, &self.hello(), (LONGEST_VIEW, 0), [question]).await?.as_slice() {
            [Value::BulkString(text)] => std::str::from_utf8(text)
                .ok()
                .and_then(|text| Topology::read(text, node, self.tls))
                .ok_or_else(|| "it tells no nodes that hold slots".to_owned()),
            _ => Err("it is no node of a cluster".to_owned()),
        }
    }

    /// Looks once; gives whether that told anything.
    async fn look(&self, earlier: &mut u32) -> bool {
        if let Place::Sentinel { .. } = self.place {
            let Ok(node) = self.ask_sentinels().await else { return false };
            let is_news = self.master.lock().as_ref() != Some(&node);
            if is_news && !self.is_master(&node).await {
                return false;
            }
            *self.master.lock() = Some(node);
            return true;
        }
        let told = match self.ask_nodes().await {
            Ok(told) => told,
            Err(why) => {
                self.view.send_if_modified(|view| {
                    let unknown = !matches!(view, View::Known(_));
                    if unknown {
                        *view = View::Unknown(why);
                    }
                    unknown
                });
                return false;
            }
        };
        let known = match &*self.view.borrow() {
            View::Known(topology) => Some(Arc::clone(topology)),
            View::Unasked | View::Unknown(_) => None,
        };
        if known.as_ref().is_some_and(|known| !told.continues(known)) {
            *earlier = earlier.saturating_add(1);
            if *earlier < EARLIER {
                return false;
            }
        }
        *earlier = 0;
        if known.as_deref() != Some(&told) {
            tracing::debug!(target: "larder::redis", nodes = told.nodes().count(), "the cluster has changed");
            self.view.send_replace(View::Known(Arc::new(told)));
        }
        true
    }
}

/// Looks for ever: every so often, and soon where something is amiss. Dropped at any point, what was learned
/// stands.
async fn look_for_ever(inner: Arc<Inner>) {
    let (mut wait, mut earlier) = (LOOK_AGAIN.0, 0);
    loop {
        let begun = Instant::now();
        if inner.look(&mut earlier).await {
            wait = LOOK_AGAIN.0;
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = inner.amiss.notified() => sleep_until(begun + LOOK_AGAIN.0).await,
            }
        } else {
            sleep(wait).await;
            wait = wait.saturating_mul(2).min(LOOK_AGAIN.1);
        }
    }
}

/// Whether what was answered to `ROLE` is that of a master.
pub(super) fn leads(role: &[Value]) -> bool {
    matches!(role.first(), Some(Value::BulkString(role)) if role == b"master")
}

/// Says who we are, and gives the client and the task that moves its bytes; with so many questions under way at
/// most.
pub(super) async fn speak(
    hello: &Hello,
    (socket, bounds): (Socket, Bounds),
    most: usize,
) -> Result<(Client, AbortOnDrop<()>), String> {
    let (client, driver) = Client::over(socket, bounds, most);
    let driver = AbortOnDrop(tokio::spawn(driver));
    hello.say(&client).await.map_err(|why| unshown(&why, hello))?;
    Ok((client, driver))
}

impl Hello {
    /// Says it; a sentence where the server does not want us. Nothing but what is needed: an ACL that allows no more
    /// notes whatever else is asked.
    async fn say(&self, client: &Client) -> Result<(), String> {
        if let Some(password) = &self.login.password {
            let user = self.login.user.as_deref();
            let mut said = answer(client, auth(user, password)).await?;
            // A Redis without users (before version 6) knows a password alone.
            if user.is_some() && error_of(&said).is_some_and(|why| why.contains("wrong number of arguments"))
            {
                said = answer(client, auth(None, password)).await?;
            }
            accepted("AUTH", &said)?;
        }
        if self.database != 0 {
            let mut select = cmd("SELECT");
            select.arg(self.database);
            accepted("SELECT", &answer(client, select).await?)?;
        }
        Ok(())
    }
}

fn auth(user: Option<&str>, password: &str) -> Cmd {
    let mut auth = cmd("AUTH");
    auth.arg(user).arg(password);
    auth
}

/// The answer to one command. What is answered to the `PING` behind it does not count yet: a server that wants to know
/// who we are refuses that as well.
async fn answer(client: &Client, command: Cmd) -> Result<Value, String> {
    let answers = client.exchange(&question([command])).await;
    let first = answers.map(|answers| answers.into_iter().next());
    first.and_then(|first| first.ok_or(Fault::Nonsense)).map_err(|fault| fault.as_str().to_owned())
}

fn error_of(said: &Value) -> Option<String> {
    match said {
        Value::ServerError(error) => {
            Some(format!("{} {}", error.code(), error.details().unwrap_or_default()))
        }
        _ => None,
    }
}

fn accepted(what: &str, said: &Value) -> Result<(), String> {
    match (said, error_of(said)) {
        (Value::Okay, _) => Ok(()),
        (_, Some(why)) => Err(format!("it refuses {what}: {why}")),
        _ => Err(format!("what it says to {what} is no answer to that")),
    }
}

/// Characters of what a server says that are repeated in the log.
const SAID: usize = 200;

/// What a server says of itself: the beginning, on one line, and never with the password in it. Some repeat what
/// they do not understand.
fn unshown(said: &str, hello: &Hello) -> String {
    let secret = hello.login.password.as_deref().filter(|password| !password.is_empty());
    let said = secret.map_or_else(|| said.to_owned(), |password| said.replace(password, "…"));
    said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SAID).collect()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_server_that_repeats_a_password_does_not_bring_it_into_the_log() {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let login = Login { user: None, password: Some("hunter2".into()) };
        let hello = Hello { login, database: 7 };
        let line = (Box::new(near) as Socket, Bounds { longest: 100, members: 0 });
        let server = async {
            let long = "x".repeat(8 * 1024);
            let second = format!("-ERR no \u{1b}[31m `SELECT` behind `hunter2`\n {long}\r\n$1\r\n2\r\n");
            for answers in ["+OK\r\n$1\r\n1\r\n", &second] {
                let _ = far.read(&mut [0; 1024]).await;
                let _ = far.write_all(answers.as_bytes()).await;
            }
            far
        };
        let (spoken, _far) = tokio::join!(speak(&hello, line, 8), server);
        let why = spoken.err().unwrap();
        assert!(why.contains("behind `…`"), "{why}");
        assert!(!why.contains("hunter2") && !why.contains(char::is_control), "{why}");
        assert!(why.chars().count() <= SAID, "{why}");
        assert!(!format!("{hello:?}").contains("hunter2"));
    }
}
