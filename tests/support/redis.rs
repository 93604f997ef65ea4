//! A real `redis-server` for tests, and a relay that can misbehave between it and Larder.
//!
//! Knows how to start, stop, pause and restart a server of its own on a free loopback port, and
//! speaks just enough of the protocol to look into it. Unit tests take this file in by `#[path]`.
//! A machine without `redis-server` fails the tests with a sentence; nothing is ever skipped.
//! Must not know: anything of Larder.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test support: each test uses a part of it, and a broken test should stop at once"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// A `redis-server` process; killed when dropped.
pub struct RedisServer {
    port: u16,
    dir: tempfile::TempDir,
    child: Option<Child>,
    /// Arguments beside the usual ones; a sentinel has none of these.
    args: Vec<String>,
    is_sentinel: bool,
}

impl RedisServer {
    /// Starts one on a free port and waits until it answers.
    pub fn start() -> Self {
        Self::start_with(Vec::new)
    }

    /// The same with further arguments, which are asked for anew for each attempt: they may name ports.
    pub fn start_with(args: impl Fn() -> Vec<String>) -> Self {
        Self::begin(args, false)
    }

    /// Starts a sentinel; `lines` is its configuration, beside its port.
    pub fn sentinel(lines: &str) -> Self {
        Self::begin(|| vec![lines.to_owned()], true)
    }

    fn begin(args: impl Fn() -> Vec<String>, is_sentinel: bool) -> Self {
        // Another process may take the port between our look and the server's bind: try anew.
        for _ in 0..5 {
            let (port, dir, args) = (free_port(), tempfile::tempdir().unwrap(), args());
            let mut server = Self { port, dir, child: None, args, is_sentinel };
            if server.launch() {
                return server;
            }
        }
        panic!("redis-server does not start: run it by hand to see why");
    }

    /// None that runs: it stands in while the real one is lent to another thread.
    pub fn none() -> Self {
        let (dir, args) = (tempfile::tempdir().unwrap(), Vec::new());
        Self { port: 0, dir, child: None, args, is_sentinel: false }
    }

    /// `redis://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr())
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Kills it at once, as `kill -9` does; its data is gone.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Starts it again, empty, on the same port.
    pub fn restart_on_same_port(&mut self) {
        self.stop();
        assert!(self.launch(), "redis-server does not start again on port {}", self.port);
    }

    /// Freezes the process: its sockets stay open and say nothing.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets a paused process go on.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    /// Sends one command on a connection of its own and gives the answer.
    pub fn command<A: AsRef<[u8]>>(&self, words: &[A]) -> Reply {
        let mut socket = BufReader::new(TcpStream::connect(self.addr()).expect("the server is up"));
        ask(&mut socket, words).expect("the server answers")
    }

    /// Every key, sorted.
    pub fn keys(&self) -> Vec<String> {
        let Reply::Array(keys) = self.command(&["KEYS", "*"]) else { panic!("KEYS gives an array") };
        let mut keys: Vec<String> = keys.into_iter().map(|key| key.text()).collect();
        keys.sort();
        keys
    }

    /// Every key whose name does not hold `part`, sorted; without those of leases, which come and go.
    pub fn keys_without(&self, part: &str) -> Vec<String> {
        let others = |key: &String| [part, ":l:", ":w:"].iter().all(|part| !key.contains(part));
        self.keys().into_iter().filter(others).collect()
    }

    fn launch(&mut self) -> bool {
        let mut command = Command::new("redis-server");
        if self.is_sentinel {
            // It writes its own file, where it notes what it has learned.
            let (file, lines) = (self.dir.path().join("sentinel.conf"), self.args.join("\n"));
            let dir = self.dir.path().display();
            std::fs::write(&file, format!("bind 127.0.0.1\nport {}\ndir {dir}\n{lines}\n", self.port))
                .unwrap();
            command.arg(file).arg("--sentinel");
        } else {
            command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"]);
            command.arg(self.port.to_string()).arg("--dir").arg(self.dir.path()).args(&self.args);
        }
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect(
                "the tests need redis-server: install it, for example with `apt-get install redis-server`",
            );
        // Another process starting up gives no event to wait for: ask until it answers.
        for _ in 0..1_000 {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            if answers(self.addr()) {
                self.child = Some(child);
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        child.kill().ok();
        child.wait().ok();
        false
    }

    fn signal(&self, signal: &str) {
        let child = self.child.as_ref().expect("the server runs");
        let done = Command::new("kill").arg(signal).arg(child.id().to_string()).status().unwrap();
        assert!(done.success(), "kill {signal} of the test's redis-server");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An answer of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Simple(String),
    Error(String),
    Int(i64),
    Bulk(Option<Vec<u8>>),
    Array(Vec<Reply>),
}

impl Reply {
    /// A string answer as text; panics on any other.
    pub fn text(self) -> String {
        match self {
            Self::Simple(text) => text,
            Self::Bulk(Some(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            other => panic!("not a string: {other:?}"),
        }
    }

    /// An integer answer; panics on any other.
    pub fn int(self) -> i64 {
        match self {
            Self::Int(int) => int,
            other => panic!("not an integer: {other:?}"),
        }
    }
}

/// A port on which nobody listens.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn answers(addr: SocketAddr) -> bool {
    let Ok(socket) = TcpStream::connect_timeout(&addr, Duration::from_secs(1)) else { return false };
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    // One that wants a password says so.
    let up = |reply: Reply| {
        reply == Reply::Simple("PONG".into())
            || matches!(&reply, Reply::Error(why) if why.starts_with("NOAUTH"))
    };
    ask(&mut BufReader::new(socket), &["PING"]).is_ok_and(up)
}

fn ask<A: AsRef<[u8]>>(socket: &mut BufReader<TcpStream>, words: &[A]) -> std::io::Result<Reply> {
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        let word = word.as_ref();
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
    socket.get_mut().write_all(&request)?;
    read_reply(socket)
}

fn read_reply(socket: &mut BufReader<TcpStream>) -> std::io::Result<Reply> {
    let mut line = String::new();
    if socket.read_line(&mut line)? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let (kind, rest) = line.trim_end().split_at(1);
    Ok(match kind {
        "+" => Reply::Simple(rest.to_owned()),
        "-" => Reply::Error(rest.to_owned()),
        ":" => Reply::Int(rest.parse().unwrap()),
        "$" if rest == "-1" => Reply::Bulk(None),
        "$" => {
            let mut bytes = vec![0; rest.parse::<usize>().unwrap() + 2];
            socket.read_exact(&mut bytes)?;
            bytes.truncate(bytes.len() - 2);
            Reply::Bulk(Some(bytes))
        }
        "*" => {
            let count = rest.parse::<usize>().unwrap();
            Reply::Array((0..count).map(|_| read_reply(socket)).collect::<Result<_, _>>()?)
        }
        _ => panic!("not an answer: {line:?}"),
    })
}

/// What a [`Relay`] does with the bytes that come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Passes them on.
    Pass,
    /// Accepts connections and says nothing; bytes are held until the mode changes.
    Stall,
    /// Closes every connection, also new ones.
    Cut,
    /// Answers these bytes to whatever the client sends.
    Garbage(&'static [u8]),
    /// Passes them on, with these bytes before each piece that the server sends.
    Before(&'static [u8]),
    /// Passes them on, each piece that the server sends so much later.
    Late(Duration),
    /// Passes them on, but for what the server sends: that is lost.
    Swallow,
}

/// A TCP relay in front of a server.
pub struct Relay {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    mode: Mutex<Mode>,
    changed: Condvar,
    sockets: Mutex<Vec<TcpStream>>,
    accepted: AtomicUsize,
    /// Connections with a lower number are black holes: all that comes on them is lost.
    lost_below: AtomicUsize,
    stopped: AtomicBool,
}

impl Relay {
    /// Starts one that passes everything to `target`.
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target,
            mode: Mutex::new(Mode::Pass),
            changed: Condvar::new(),
            sockets: Mutex::new(Vec::new()),
            accepted: AtomicUsize::new(0),
            lost_below: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&accepting, &listener));
        Self { addr, shared }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `redis://` and where it listens.
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Acquire)
    }

    /// From now on drops silently whatever comes on the connections that are open; new ones are as ever.
    pub fn lose_open_connections(&self) {
        self.shared.lost_below.store(self.accepted(), Ordering::Release);
    }

    /// Changes what it does, for open connections too.
    pub fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
        self.shared.changed.notify_all();
        if mode == Mode::Cut {
            self.shared.close_all();
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        self.set(Mode::Cut);
        // Wakes the accepting thread, which then sees that it is over.
        TcpStream::connect(self.addr).ok();
    }
}

impl Shared {
    fn close_all(&self) {
        for socket in self.sockets.lock().unwrap().drain(..) {
            socket.shutdown(Shutdown::Both).ok();
        }
    }

    /// The mode in force; waits while it is to stall.
    fn mode(&self) -> Mode {
        let mode = self.mode.lock().unwrap();
        *self.changed.wait_while(mode, |mode| *mode == Mode::Stall).unwrap()
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    for client in listener.incoming() {
        if shared.stopped.load(Ordering::Acquire) {
            return;
        }
        let Ok(client) = client else { continue };
        let number = shared.accepted.fetch_add(1, Ordering::AcqRel);
        let shared = Arc::clone(shared);
        thread::spawn(move || serve(&shared, &client, number));
    }
}

fn serve(shared: &Arc<Shared>, client: &TcpStream, number: usize) {
    client.set_nodelay(true).ok();
    let server = TcpStream::connect(shared.target).ok();
    {
        // Under the lock that `set` takes next, so that a cut misses no connection.
        let mut sockets = shared.sockets.lock().unwrap();
        sockets.push(client.try_clone().unwrap());
        sockets.extend(server.as_ref().map(|server| server.try_clone().unwrap()));
    }
    if *shared.mode.lock().unwrap() == Mode::Cut {
        shared.close_all();
    }
    let Some(server) = server else { return pump_without_server(shared, client) };
    server.set_nodelay(true).ok();
    let (back, from, to) = (Arc::clone(shared), server.try_clone().unwrap(), client.try_clone().unwrap());
    let backward = thread::spawn(move || pump(&back, &from, &to, number, false));
    pump(shared, client, &server, number, true);
    backward.join().ok();
}

/// The server is down: still say nothing, or garbage, for as long as that is the mode.
fn pump_without_server(shared: &Shared, client: &TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = (&mut &*client).read(&mut buffer) {
        let _ = read;
        match shared.mode() {
            Mode::Garbage(bytes) => (&mut &*client).write_all(bytes).ok(),
            _ => client.shutdown(Shutdown::Both).ok(),
        };
    }
    client.shutdown(Shutdown::Both).ok();
}

fn pump(shared: &Shared, from: &TcpStream, to: &TcpStream, number: usize, from_client: bool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = (&mut &*from).read(&mut buffer) {
        let done = match shared.mode() {
            _ if number < shared.lost_below.load(Ordering::Acquire) => Ok(()),
            Mode::Garbage(bytes) if from_client => (&mut &*from).write_all(bytes),
            Mode::Garbage(_) => Ok(()),
            Mode::Cut => break,
            Mode::Swallow if !from_client => Ok(()),
            Mode::Before(bytes) if !from_client => {
                (&mut &*to).write_all(bytes).and_then(|()| (&mut &*to).write_all(&buffer[..read]))
            }
            Mode::Late(by) if !from_client => {
                thread::sleep(by);
                (&mut &*to).write_all(&buffer[..read])
            }
            Mode::Pass | Mode::Stall | Mode::Before(_) | Mode::Late(_) | Mode::Swallow => {
                (&mut &*to).write_all(&buffer[..read])
            }
        };
        if done.is_err() {
            break;
        }
    }
    from.shutdown(Shutdown::Both).ok();
    to.shutdown(Shutdown::Both).ok();
}

/// What says of itself that it is a Redis, and answers as it likes.
pub struct Liar {
    addr: SocketAddr,
}

impl Liar {
    /// Starts one. `answer` is asked with the words of each command and its own address, and gives the bytes; but for
    /// `PING`, who we are and the like, which it answers as any other.
    pub fn start(answer: impl Fn(&[String], SocketAddr) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let answer = Arc::clone(&answer);
                thread::spawn(move || lie(client, |words| answer(words, addr)));
            }
        });
        Self { addr }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

fn lie(client: TcpStream, answer: impl Fn(&[String]) -> Vec<u8>) {
    let mut client = BufReader::new(client);
    while let Ok(Reply::Array(words)) = read_reply(&mut client) {
        let words: Vec<String> = words.into_iter().map(Reply::text).collect();
        let said = match words[0].as_str() {
            "PING" if words.len() > 1 => format!("${}\r\n{}\r\n", words[1].len(), words[1]).into_bytes(),
            "AUTH" | "SELECT" | "CLIENT" => b"+OK\r\n".to_vec(),
            _ => answer(&words),
        };
        if client.get_mut().write_all(&said).is_err() {
            return;
        }
    }
}
