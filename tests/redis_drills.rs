//! Drills: Redis dies, freezes, is slow, talks nonsense, is full, comes back empty, and holds what somebody
//! has tampered with, while clients go on asking. Not one request may fail or be answered wrongly, whatever
//! Redis does; the settings are the defaults.
//!
//! No test here looks at the clock: that requests do not wait is told by the counters (a lookup that was
//! refused has not waited). Figures in milliseconds: `benches/redis_drills.py`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use support::tier::{self, WORKERS};
use support::{Connection, Larder, Mode, Origin, PATIENCE, RedisServer, Relay, Reply, Script, within};

const HOST: (&str, &str) = ("Host", "api.test");
/// Clients at once, and requests of each before and after the fault begins.
const CLIENTS: usize = 4;
const REQUESTS: usize = 60;

/// All settings of the cache at their defaults, unless `cache` says otherwise.
fn config(origin: &Origin, redis: &str, cache: &str) -> String {
    tier::configuration(origin, &format!("redis = \"{redis}\"\n{cache}"), "")
}

/// Answers each target with itself; below `/vary` by a field of the request.
fn echoing() -> Origin {
    Origin::start(|request| match request.target.starts_with("/vary") {
        true => Script::ok(format!("{} {}", request.target, request.header("x-for")), &[("Vary", "X-For")]),
        false => Script::ok(&request.target, &[]),
    })
}

struct Drill {
    redis: RedisServer,
    relay: Relay,
    larder: Larder,
    _origin: Origin,
}

impl Drill {
    fn begin() -> Self {
        let (redis, origin) = (RedisServer::start(), echoing());
        let relay = Relay::start(redis.addr());
        let larder = Larder::start(&config(&origin, &relay.url(), ""));
        assert!(within(PATIENCE, || is_up(&larder)));
        let drill = Self { redis, relay, larder, _origin: origin };
        for nth in 0..10 {
            drill.ask(&mut Connection::open(drill.larder.proxy()), &format!("/hot/{nth}"));
        }
        drill
    }

    /// One request, whose answer must be whole and right.
    fn ask(&self, connection: &mut Connection, path: &str) {
        let who = path.len().to_string();
        let response = connection.request("GET", path, &[HOST, ("X-For", &who)], b"");
        let right = if path.starts_with("/vary") { format!("{path} {who}") } else { path.to_owned() };
        assert_eq!((response.status, response.text()), (200, right), "{path}");
        assert!(response.complete, "{path}");
    }

    /// Memory hits, misses, variants, queries on unknown paths, and writes; `fault` comes in the middle.
    fn under_load(&mut self, fault: impl FnOnce(&mut RedisServer, &Relay) + Send) {
        let (before, go_on) = (AtomicUsize::new(0), AtomicUsize::new(0));
        // The server is borrowed by the fault alone, the rest by the clients.
        let mut redis = std::mem::replace(&mut self.redis, RedisServer::none());
        let drill = &*self;
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (before, go_on) = (&before, &go_on);
                scope.spawn(move || {
                    let mut connection = Connection::open(drill.larder.proxy());
                    for nth in 0..2 * REQUESTS {
                        if nth == REQUESTS {
                            before.fetch_add(1, Ordering::AcqRel);
                            assert!(within(PATIENCE, || go_on.load(Ordering::Acquire) == 1));
                        }
                        drill.one_of_many(&mut connection, client, nth);
                    }
                });
            }
            assert!(within(PATIENCE, || before.load(Ordering::Acquire) == CLIENTS));
            fault(&mut redis, &drill.relay);
            go_on.store(1, Ordering::Release);
        });
        self.redis = redis;
        let stats = self.larder.stats();
        assert_eq!(stats["failed"], 0, "{stats:#}");
        assert_eq!(stats["success_rate"], 1.0, "{stats:#}");
    }

    fn one_of_many(&self, connection: &mut Connection, client: usize, nth: usize) {
        match nth % 6 {
            0 | 1 => self.ask(connection, &format!("/hot/{}", nth % 10)),
            2 => self.ask(connection, &format!("/cold/{client}/{nth}")),
            3 => self.ask(connection, &format!("/vary/{client}/{nth}")),
            4 => self.ask(connection, &format!("/query/{client}/{nth}?a=1")),
            _ => {
                let path = format!("/write/{client}/{nth}");
                let response = connection.request("POST", &path, &[HOST], b"{}");
                assert_eq!((response.status, response.text()), (200, path));
            }
        }
    }

    fn figure(&self, name: &str) -> u64 {
        figure(&self.larder, name)
    }

    /// Lookups, and writes that tell Redis of a purge, as far as they had to wait: three in a row open
    /// the breaker of a thread, and as many as were under way at that moment wait with them.
    fn assert_few_waited(&self) {
        let waited = self.figure("deadline_exceeded");
        let under_way = 3 * CLIENTS as u64;
        assert!(waited <= WORKERS * (3 + under_way), "{:#}", self.larder.stats()["tiers"]["redis"]);
        assert!(self.figure("refused") > 2 * waited, "{:#}", self.larder.stats()["tiers"]["redis"]);
    }

    /// Redis is used again by itself, once the fault is over.
    fn mends(&self) {
        assert!(within(PATIENCE, || is_up(&self.larder)), "{:#}", self.larder.stats()["tiers"]);
        let before = self.figure("writes");
        let mut connection = Connection::open(self.larder.proxy());
        let mut paths = (0..).map(|nth| format!("/after/{nth}"));
        let written = within(PATIENCE, || {
            self.ask(&mut connection, &paths.next().unwrap());
            within(Duration::from_millis(100), || self.figure("writes") > before)
        });
        assert!(written, "{:#}", self.larder.stats()["tiers"]);
        assert_eq!(self.larder.stats()["failed"], 0);
    }
}

fn is_up(larder: &Larder) -> bool {
    larder.stats()["tiers"]["redis"]["up"] == true
}

fn figure(larder: &Larder, name: &str) -> u64 {
    larder.stats()["tiers"]["redis"][name].as_u64().unwrap()
}

#[test]
fn killed() {
    let mut drill = Drill::begin();
    drill.under_load(|redis, _| redis.stop());
    drill.assert_few_waited();
    drill.redis.restart_on_same_port();
    drill.mends();
}

#[test]
fn frozen() {
    let mut drill = Drill::begin();
    drill.under_load(|redis, _| redis.pause());
    drill.assert_few_waited();
    drill.redis.resume();
    drill.mends();
}

#[test]
fn slow_by_two_seconds() {
    let mut drill = Drill::begin();
    drill.under_load(|_, relay| relay.set(Mode::Late(Duration::from_secs(2))));
    drill.assert_few_waited();
    drill.relay.set(Mode::Pass);
    drill.mends();
}

/// Nobody asks for anything meanwhile: the links find it by themselves. How long that takes at most is told by
/// `store/redis/link::a_connection_that_swallows_everything_is_found_within_two_seconds`.
#[test]
fn a_black_hole_is_left_for_a_new_connection() {
    let drill = Drill::begin();
    let before = drill.relay.accepted();
    drill.relay.lose_open_connections();
    // One for lookups and one for writes, of each thread.
    let links = 2 * WORKERS as usize;
    assert!(within(PATIENCE, || drill.relay.accepted() >= before + links), "{}", drill.relay.accepted());
    drill.mends();
}

#[test]
fn silent() {
    let mut drill = Drill::begin();
    drill.under_load(|_, relay| relay.set(Mode::Swallow));
    drill.assert_few_waited();
    drill.relay.set(Mode::Pass);
    drill.mends();
}

fn nonsense(mode: Mode) {
    let mut drill = Drill::begin();
    drill.under_load(|_, relay| relay.set(mode));
    assert_eq!(drill.figure("damaged"), 0, "{mode:?}");
    drill.relay.set(Mode::Pass);
    drill.mends();
}

#[test]
fn speaking_another_protocol() {
    nonsense(Mode::Garbage(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
}

#[test]
fn announcing_half_a_gigabyte() {
    nonsense(Mode::Garbage(b"$536870912\r\nx"));
}

#[test]
fn answering_what_could_be_an_answer() {
    nonsense(Mode::Garbage(b":1\r\n$-1\r\n$-1\r\n$1\r\n7\r\n"));
}

#[test]
fn refusing_everything() {
    nonsense(Mode::Garbage(b"-ERR what\r\n-ERR what\r\n-ERR what\r\n-ERR what\r\n"));
}

#[test]
fn answering_once_too_often() {
    nonsense(Mode::Before(b"$0\r\n\r\n"));
}

#[test]
fn full() {
    let mut drill = Drill::begin();
    drill.under_load(|redis, _| {
        redis.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
        redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    });
    assert!(within(PATIENCE, || drill.figure("write_errors") > 0));
    assert!(is_up(&drill.larder), "it still answers");
    drill.redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    drill.mends();
}

#[test]
fn restarted_empty() {
    let mut drill = Drill::begin();
    drill.under_load(|redis, _| redis.restart_on_same_port());
    drill.mends();
    drill.under_load(|redis, _| {
        redis.command(&["FLUSHALL"]);
    });
    drill.mends();
}

/// What is done to a value: its key, another's key, and the server.
type Tampering = fn(&RedisServer, &str, &str);

fn value(redis: &RedisServer, key: &str) -> Vec<u8> {
    let Reply::Bulk(Some(bytes)) = redis.command(&["GET", key]) else { panic!("{key} is gone") };
    bytes
}

fn change(redis: &RedisServer, key: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = value(redis, key);
    change(&mut bytes);
    redis.command(&[b"SET", key.as_bytes(), &bytes, b"KEEPTTL"]);
}

const TAMPERING: [(&str, Tampering); 14] = [
    ("checksum", |redis, key, _| change(redis, key, |bytes| bytes[30] ^= 1)),
    ("checksum", |redis, key, _| change(redis, key, |bytes| *bytes.iter_mut().nth_back(9).unwrap() ^= 1)),
    ("checksum", |redis, key, _| change(redis, key, |bytes| *bytes.last_mut().unwrap() ^= 1)),
    ("checksum", |redis, key, _| change(redis, key, |bytes| bytes.truncate(bytes.len() / 2))),
    ("checksum", |redis, key, _| change(redis, key, |bytes| bytes.extend(b"more"))),
    ("other-key", |redis, key, other| {
        redis.command(&["COPY", other, key, "REPLACE"]);
    }),
    ("version", |redis, key, _| change(redis, key, |bytes| bytes[4] -= 1)),
    ("wrong-type", |redis, key, _| {
        redis.command(&["DEL", key]);
        redis.command(&["LPUSH", key, "x"]);
    }),
    ("wrong-type", |redis, key, _| {
        redis.command(&["DEL", key]);
        redis.command(&["HSET", key, "x", "y"]);
    }),
    ("wrong-type", |redis, key, _| {
        redis.command(&["DEL", key]);
        redis.command(&["SADD", key, "x"]);
    }),
    ("empty", |redis, key, _| {
        redis.command(&["SET", key, ""]);
    }),
    ("too-large", |redis, key, _| {
        redis.command(&["SETRANGE", key, "67108864", "x"]);
    }),
    ("foreign", |redis, key, _| {
        redis.command(&["SET", key, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"]);
    }),
    ("too-short", |redis, key, _| {
        redis.command(&["SET", key, "LRDR"]);
    }),
];

#[test]
fn whatever_was_tampered_with_is_a_miss_for_a_reason_and_is_replaced() {
    let (redis, origin) =
        (RedisServer::start(), Origin::start(|r| Script::ok(format!("{} #{}", r.target, r.count), &[])));
    // A busy machine may miss 20 ms, and then the reason is another.
    let config = config(&origin, &redis.url(), "redis_deadline = \"5s\"");
    let first = Larder::start(&config);
    assert!(within(PATIENCE, || is_up(&first)));
    let mut keys = Vec::new();
    for nth in 0..=TAMPERING.len() {
        let known = redis.keys_without("{fleet}");
        assert_eq!(first.get(&format!("/{nth}"), &[HOST]).text(), format!("/{nth} #1"));
        assert!(within(PATIENCE, || redis.keys_without("{fleet}").len() > known.len()));
        keys.extend(redis.keys_without("{fleet}").into_iter().filter(|key| !known.contains(key)));
    }
    let healthy = keys.pop().unwrap();
    for ((_, tampering), key) in TAMPERING.iter().zip(&keys) {
        tampering(&redis, key, &healthy);
    }
    drop(first);

    let mut second = Larder::start(&config);
    assert!(within(PATIENCE, || is_up(&second)));
    for (nth, ((why, _), key)) in TAMPERING.iter().zip(&keys).enumerate() {
        let before = second.stats()["tiers"]["redis"]["damaged_by"][why].as_u64().unwrap_or(0);
        let writes = figure(&second, "writes");
        let answer = second.get(&format!("/{nth}"), &[HOST]);
        assert_eq!((answer.status, answer.text()), (200, format!("/{nth} #2")), "{nth} {why}");
        assert!(
            answer.header("cache-status").starts_with("larder; fwd=uri-miss; stored"),
            "{:?}",
            answer.headers
        );
        let stats = second.stats()["tiers"]["redis"].clone();
        assert_eq!(stats["damaged_by"][why], before + 1, "{nth} {why}: {stats:#}");
        assert!(within(PATIENCE, || figure(&second, "writes") > writes), "{nth} {why}");
        assert!(value(&redis, key).starts_with(b"LRDR\x04"), "{nth} {why}: replaced");
    }
    let damaged = |why: &str| second.metric(&format!("larder_redis_damaged_total{{reason=\"{why}\"}}"));
    assert_eq!(
        (damaged("checksum"), damaged("wrong-type"), damaged("future")),
        (Some(5.0), Some(3.0), Some(0.0))
    );
    assert_eq!((second.stats()["failed"].as_u64(), figure(&second, "errors")), (Some(0), 0));
    second.terminate();
    assert_eq!(second.wait_exit(PATIENCE), Some(0));
    let told = second.err.all().iter().filter(|line| line.contains("damaged, or not Larder's")).count();
    assert!((1..=2 * WORKERS as usize).contains(&told), "an event, and not one for each: {told}");

    // And what replaced them is what all others get.
    let third = Larder::start(&config);
    assert!(within(PATIENCE, || is_up(&third)));
    for nth in 0..TAMPERING.len() {
        assert_eq!(third.get(&format!("/{nth}"), &[HOST]).text(), format!("/{nth} #2"));
    }
    assert_eq!(figure(&third, "hits"), TAMPERING.len() as u64);
}

#[test]
fn what_expired_and_is_put_back_is_asked_for_again() {
    let fields = [("Cache-Control", "max-age=10"), ("Age", "60"), ("ETag", "\"v1\"")];
    let origin = Origin::start(move |request| Script::ok(format!("#{}", request.count), &fields));
    let redis = RedisServer::start();
    let config = config(&origin, &redis.url(), "redis_deadline = \"5s\"") + "keep = \"10m\"\n";
    let first = Larder::start(&config);
    assert!(within(PATIENCE, || is_up(&first)));
    assert_eq!(first.get("/a", &[HOST]).text(), "#1");
    assert!(within(PATIENCE, || figure(&first, "writes") == 1));
    let key = redis.keys_without("{fleet}").remove(0);
    let old = value(&redis, &key);
    assert_eq!(first.get("/a", &[HOST]).text(), "#2", "it was stale when it came");
    assert!(within(PATIENCE, || figure(&first, "writes") == 2));
    redis.command(&[b"SET".as_slice(), key.as_bytes(), &old]);
    let second = Larder::start(&config);
    assert!(within(PATIENCE, || is_up(&second)));
    assert_eq!(second.get("/a", &[HOST]).text(), "#3");
    assert_eq!((second.stats()["failed"].as_u64(), figure(&second, "hits")), (Some(0), 1));
}
