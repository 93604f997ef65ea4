//! What a comparison needs beside the proxies: an origin, the least that a server and a proxy can do, and load.
//!
//! `benches/compare.sh` pins and drives these. Each runs on one thread and does no more than it must, so that what is
//! measured is the proxy. Knows HTTP/1.1 as far as these peers speak it to one another: heads that end in an empty
//! line, bodies with a Content-Length. Must not know: which proxy is asked.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a bench: a surprise here ends it"
)]

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use xxhash_rust::xxh3::xxh3_128;

const USAGE: &str = "\
load origin                         be an origin, and print where: /{c|n}{bytes}/{anything}?wait={milliseconds}
                                    (c: may be stored, n: no-store); GET /count tells how many it was asked for
load raw BYTES                      answer each request with the same bytes, and print where
load held BYTES                     the same, by what moka holds under the hash of each path: the least that a cache can do
load relay ORIGIN                   pass each request to ORIGIN over a connection of its own, and print where
load ask ADDRESS CONNECTIONS SECONDS PATHS [FIELD]
                                    ask as fast as answers come; prints a line of JSON. PATHS:
                                    one:/PATH  one path
                                    each:/PATH:N  N paths in turn, the number behind /PATH
                                    once:/PATH:N  the same, each once; ends when all have been asked for
                                    zipf:/PATH:N:EXPONENT  N paths by their rank
                                    fresh:/PATH  one path, each request over a new connection
load stampede ADDRESS CONNECTIONS /PATH
                                    ask once on each connection at the same moment; prints a line of JSON
load idle ADDRESS CONNECTIONS SECONDS
                                    ask once on each connection for /c1024/idle, and hold them all";

/// Bytes of a head at most.
const HEAD: usize = 16 * 1024;
/// Patience with a peer that says nothing.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    // A run of all benches has nothing to do here.
    if words.is_empty() {
        return;
    }
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<usize>().ok()).expect(USAGE);
    let seconds = |at: usize| {
        let seconds = words.get(at).and_then(|word| word.parse::<f64>().ok());
        seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).expect(USAGE)
    };
    let address = |at: usize| words.get(at).and_then(|word| word.parse::<SocketAddr>().ok()).expect(USAGE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        match words[0] {
            "origin" => serve(Role::Origin(Rc::default())).await,
            "raw" => serve(Role::Raw(Rc::new(canned(number(1))))).await,
            "held" => {
                serve(Role::Held(Held { bytes: number(1), by_path: moka::sync::Cache::new(2_000_000) })).await
            }
            "relay" => serve(Role::Relay(address(1))).await,
            "ask" => ask(address(1), number(2), seconds(3), words[4], words.get(5).copied()).await,
            "stampede" => stampede(address(1), number(2), words[3]).await,
            "idle" => idle(address(1), number(2), number(3)).await,
            _ => eprintln!("{USAGE}"),
        }
    });
}

/// What answers.
#[derive(Clone)]
enum Role {
    Origin(Rc<RefCell<u64>>),
    Raw(Rc<Vec<u8>>),
    Held(Held),
    Relay(SocketAddr),
}

async fn serve(role: Role) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(4096).unwrap();
    socket.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(socket.into()).unwrap();
    println!("{}", listener.local_addr().unwrap());
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        stream.set_nodelay(true).unwrap();
        let role = role.clone();
        tokio::task::spawn_local(async move {
            // A peer that goes away is no news.
            let _ended = match role {
                Role::Origin(count) => origin(stream, &count).await,
                Role::Raw(answer) => raw(stream, &answer).await,
                Role::Held(answers) => held(stream, answers).await,
                Role::Relay(origin) => relay(stream, origin).await,
            };
        });
    }
}

/// A head with the seven fields that an API sends, and a body.
fn answer(bytes: usize, storable: bool, tag: &str) -> Vec<u8> {
    let control = if storable { "public, max-age=3600" } else { "no-store" };
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nServer: origin\r\nDate: {}\r\nContent-Type: application/json\r\nContent-Length: \
         {bytes}\r\nCache-Control: {control}\r\nETag: \"{tag}\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 \
         GMT\r\nX-Request-Cost: 1\r\n\r\n",
        httpdate()
    )
    .into_bytes();
    let head = answer.len();
    answer.resize(head + bytes, b'x');
    answer
}

fn canned(bytes: usize) -> Vec<u8> {
    answer(bytes, true, "raw")
}

/// A date now, as far as a peer needs it to judge an answer as new.
fn httpdate() -> String {
    let now = larder::clock::Clock::system().now();
    String::from_utf8(larder::fields::date::format(now).to_vec()).unwrap()
}

/// The end of the first head in `bytes`.
fn head_end(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// Reads until `held` begins with a whole head; `None` at the end of the stream.
async fn head(stream: &mut TcpStream, held: &mut Vec<u8>) -> io::Result<Option<usize>> {
    loop {
        if let Some(end) = head_end(held) {
            return Ok(Some(end));
        }
        assert!(held.len() < HEAD, "a head without end");
        held.reserve(4096);
        if stream.read_buf(held).await? == 0 {
            return Ok(None);
        }
    }
}

/// The length that a head announces.
fn length(head: &[u8]) -> usize {
    let text = std::str::from_utf8(head).expect("a head of ASCII");
    text.split("\r\n")
        .find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
        })
        .unwrap_or(0)
}

async fn origin(mut stream: TcpStream, count: &RefCell<u64>) -> io::Result<()> {
    let mut held = Vec::with_capacity(4096);
    while let Some(end) = head(&mut stream, &mut held).await? {
        let path =
            std::str::from_utf8(&held[..end]).ok().and_then(|head| head.split(' ').nth(1)).unwrap_or("/");
        let answer = if path == "/count" {
            let count = count.borrow().to_string();
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\r\n{count}",
                count.len()
            )
            .into_bytes()
        } else {
            *count.borrow_mut() += 1;
            let kind = path.get(1..2).unwrap_or("c");
            let bytes = path.get(2..).and_then(|rest| rest.split('/').next()?.parse().ok()).unwrap_or(1024);
            if let Some(wait) = path.split_once("wait=").and_then(|(_, wait)| wait.parse().ok()) {
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
            answer(bytes, kind == "c", "1")
        };
        held.drain(..end);
        stream.write_all(&answer).await?;
    }
    Ok(())
}

async fn raw(mut stream: TcpStream, answer: &[u8]) -> io::Result<()> {
    let mut held = Vec::with_capacity(4096);
    while let Some(end) = head(&mut stream, &mut held).await? {
        held.drain(..end);
        stream.write_all(answer).await?;
    }
    Ok(())
}

/// Answers of so many bytes, made when they are first asked for.
#[derive(Clone)]
struct Held {
    bytes: usize,
    by_path: moka::sync::Cache<u128, Arc<Vec<u8>>>,
}

async fn held(mut stream: TcpStream, answers: Held) -> io::Result<()> {
    let mut held = Vec::with_capacity(4096);
    while let Some(end) = head(&mut stream, &mut held).await? {
        let path = held[..end].split(|byte| *byte == b' ').nth(1).expect("a path");
        let answer = answers.by_path.get_with(xxh3_128(path), || Arc::new(canned(answers.bytes)));
        held.drain(..end);
        stream.write_all(&answer).await?;
    }
    Ok(())
}

async fn relay(mut stream: TcpStream, origin: SocketAddr) -> io::Result<()> {
    let mut there = TcpStream::connect(origin).await?;
    there.set_nodelay(true)?;
    let (mut held, mut piece) = (Vec::with_capacity(4096), vec![0; 64 * 1024]);
    while let Some(end) = head(&mut stream, &mut held).await? {
        there.write_all(&held[..end]).await?;
        held.drain(..end);
        let mut came = Vec::with_capacity(4096);
        let Some(end) = head(&mut there, &mut came).await? else { return Ok(()) };
        let mut left = end + length(&came[..end]);
        left -= came.len();
        stream.write_all(&came).await?;
        while left > 0 {
            let most = piece.len().min(left);
            let read = there.read(&mut piece[..most]).await?;
            if read == 0 {
                return Ok(());
            }
            stream.write_all(&piece[..read]).await?;
            left -= read;
        }
    }
    Ok(())
}

/// Which path is next.
enum Paths {
    One(String),
    Each { path: String, of: u64, next: u64, once: bool },
    Zipf { path: String, shares: Vec<f64>, dice: u64 },
    Fresh(String),
}

impl Paths {
    fn of(words: &str) -> Self {
        let mut words = words.split(':');
        let kind = words.next().expect(USAGE);
        let path = words.next().expect(USAGE).to_owned();
        let mut number = || words.next().and_then(|word| word.parse::<f64>().ok()).expect(USAGE);
        match kind {
            "one" => Self::One(path),
            "fresh" => Self::Fresh(path),
            "each" | "once" => Self::Each { path, of: number() as u64, next: 0, once: kind == "once" },
            "zipf" => {
                let (of, exponent) = (number() as u32, number());
                let mut sum = 0.0;
                let shares: Vec<f64> = (1..=of)
                    .map(|rank| {
                        sum += f64::from(rank).powf(-exponent);
                        sum
                    })
                    .collect();
                Self::Zipf {
                    path,
                    shares: shares.iter().map(|share| share / sum).collect(),
                    dice: 88_172_645_463_325_252,
                }
            }
            _ => panic!("{USAGE}"),
        }
    }

    /// The next path; `false` when there is none.
    fn next(&mut self, into: &mut String) -> bool {
        use std::fmt::Write as _;
        into.clear();
        match self {
            Self::Each { of, next, once: true, .. } if *next >= *of => return false,
            Self::One(path) | Self::Fresh(path) => into.push_str(path),
            Self::Each { path, of, next, .. } => {
                write!(into, "{path}{}", *next % *of).unwrap();
                *next += 1;
            }
            Self::Zipf { path, shares, dice } => {
                *dice ^= *dice << 13;
                *dice ^= *dice >> 7;
                *dice ^= *dice << 17;
                let point = (*dice >> 11) as f64 / (1_u64 << 53) as f64;
                write!(into, "{path}{}", shares.partition_point(|share| *share < point)).unwrap();
            }
        }
        true
    }
}

/// What a load came to.
#[derive(Default)]
struct Tally {
    answers: u64,
    failed: u64,
    bytes: u64,
    micros: Vec<u32>,
}

struct Asking {
    stream: TcpStream,
    held: Vec<u8>,
    piece: Vec<u8>,
}

impl Asking {
    async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, held: Vec::with_capacity(4096), piece: vec![0; 64 * 1024] })
    }

    /// The status and the body's length.
    async fn ask(&mut self, request: &[u8]) -> io::Result<(u16, usize)> {
        self.stream.write_all(request).await?;
        self.held.clear();
        let end = head(&mut self.stream, &mut self.held).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = std::str::from_utf8(&self.held[9..12]).unwrap().parse().unwrap();
        let bytes = if status == 304 { 0 } else { length(&self.held[..end]) };
        let mut left = (end + bytes).checked_sub(self.held.len()).ok_or(io::ErrorKind::InvalidData)?;
        while left > 0 {
            let most = self.piece.len().min(left);
            match self.stream.read(&mut self.piece[..most]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => left -= read,
            }
        }
        Ok((status, bytes))
    }
}

fn request(path: &str, field: Option<&str>, close: bool) -> Vec<u8> {
    let field = field.map(|field| format!("{field}\r\n")).unwrap_or_default();
    let close = if close { "Connection: close\r\n" } else { "" };
    format!(
        "GET {path} HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: bench\r\nAccept: */*\r\n{field}{close}\r\n"
    )
    .into_bytes()
}

async fn ask(address: SocketAddr, connections: usize, time: Duration, paths: &str, field: Option<&str>) {
    let fresh = paths.starts_with("fresh:");
    let paths = Rc::new(RefCell::new(Paths::of(paths)));
    let tally = Rc::new(RefCell::new(Tally::default()));
    let field: Option<Rc<str>> = field.map(Rc::from);
    let begun = Instant::now();
    let until = begun + time;
    let mut all = JoinSet::new();
    for _ in 0..connections {
        let (paths, tally, field) = (paths.clone(), tally.clone(), field.clone());
        all.spawn_local(async move {
            let (mut path, mut asking) = (String::new(), None::<Asking>);
            while Instant::now() < until {
                if !paths.borrow_mut().next(&mut path) {
                    break;
                }
                let request = request(&path, field.as_deref(), fresh);
                let began = Instant::now();
                let came = tokio::time::timeout(PATIENCE, async {
                    let mut with = match asking.take() {
                        Some(with) => with,
                        None => Asking::open(address).await?,
                    };
                    let came = with.ask(&request).await?;
                    asking = (!fresh).then_some(with);
                    io::Result::Ok(came)
                });
                let came = came.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                let mut tally = tally.borrow_mut();
                match came {
                    Ok((200 | 304, bytes)) => {
                        tally.answers += 1;
                        tally.bytes += bytes as u64;
                        tally.micros.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
                    }
                    _ => tally.failed += 1,
                }
            }
        });
    }
    while all.join_next().await.is_some() {}
    let mut tally = tally.borrow_mut();
    tally.micros.sort_unstable();
    let at = |share: f64| {
        let last = tally.micros.len().saturating_sub(1);
        tally.micros.get((last as f64 * share) as usize).copied().unwrap_or_default()
    };
    println!(
        "{{\"answers\":{},\"failed\":{},\"bytes\":{},\"seconds\":{:.3},\"p50_us\":{},\"p99_us\":{},\"max_us\":{}}}",
        tally.answers,
        tally.failed,
        tally.bytes,
        begun.elapsed().as_secs_f64(),
        at(0.5),
        at(0.99),
        at(1.0),
    );
}

async fn stampede(address: SocketAddr, connections: usize, path: &str) {
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(Asking::open(address).await.unwrap());
    }
    let request: Rc<[u8]> = request(path, None, false).into();
    let begun = Instant::now();
    let mut all = JoinSet::new();
    for mut asking in open {
        let request = request.clone();
        all.spawn_local(async move {
            let came = asking.ask(&request).await;
            (came.is_ok_and(|(status, _)| status == 200), begun.elapsed())
        });
    }
    let (mut good, mut last) = (0, Duration::ZERO);
    while let Some(Ok((fine, after))) = all.join_next().await {
        good += usize::from(fine);
        last = last.max(after);
    }
    println!(
        "{{\"answers\":{good},\"failed\":{},\"last_ms\":{:.1}}}",
        connections - good,
        last.as_secs_f64() * 1e3
    );
}

async fn idle(address: SocketAddr, connections: usize, seconds: usize) {
    let request = request("/c1024/idle", None, false);
    let mut open = Vec::new();
    for _ in 0..connections {
        let mut asking = Asking::open(address).await.unwrap();
        asking.ask(&request).await.unwrap();
        (asking.held, asking.piece) = (Vec::new(), Vec::new());
        open.push(asking);
    }
    println!("{{\"open\":{}}}", open.len());
    tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
}
