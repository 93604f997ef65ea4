//! The log of purges against a real Redis.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::task::Poll;

use tokio::sync::watch;

use super::untold::UNTOLD_BYTES;
use super::*;
use crate::clock::Mono;
use crate::store::redis_server::{Mode, RedisServer, Relay, Reply};
use crate::store::samples;
use crate::stored::Secret;

/// Of the keys of the log.
const PREFIX: &str = "larder:4:";
/// Far longer than anything here takes: reached only when a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

fn key(name: &str) -> String {
    format!("{PREFIX}{{fleet}}:{name}")
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let looking = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, looking).await.is_ok(), "never: {what}");
}

/// What a node did about purges, in order.
#[derive(Clone, Debug, Default, PartialEq)]
struct Did {
    applied: Vec<(String, u64)>,
    distrusted: Vec<u64>,
    reached: Position,
}

struct Recorder(watch::Sender<Did>);

impl Apply for Recorder {
    fn apply(&self, purge: &[u8], _: Stream, at: Position, own: bool) {
        let purge = String::from_utf8_lossy(purge).into_owned();
        assert!(own || purge != "a bug", "a bug");
        self.0.send_modify(|did| did.applied.push((purge, at.n)));
    }

    fn distrust(&self, at: Position) {
        self.0.send_modify(|did| did.distrusted.push(at.n));
    }

    fn reached(&self, at: Position) {
        self.0.send_if_modified(|did| std::mem::replace(&mut did.reached, at) != at);
    }

    fn everything(&self) -> Bytes {
        Bytes::from_static(b"everything")
    }
}

struct One {
    fleet: Fleet,
    did: watch::Receiver<Did>,
    coherence: Arc<Coherence>,
    clock: Clock,
}

impl One {
    fn start(name: &str, cfg: &config::Cache) -> Self {
        let clock = Clock::system();
        let promise = Promise { bound: Duration::from_millis(400), when_lost: Some(Duration::from_secs(1)) };
        let coherence = Arc::new(Coherence::new(promise, clock.mono()));
        let (sender, did) = watch::channel(Did::default());
        let node = Node { name: name.to_owned(), address: "127.0.0.1:1".to_owned(), started: 7 };
        let (known, apply) = (Arc::clone(&coherence), Box::new(Recorder(sender)));
        let fleet = Fleet::start(cfg, clock.clone(), node, known, &Arc::default(), apply).unwrap();
        Self { fleet, did, coherence, clock }
    }

    async fn until(&self, what: &str, done: impl Fn(&Did) -> bool) -> Did {
        let mut did = self.did.clone();
        let waited = tokio::time::timeout(PATIENCE, did.wait_for(|did| done(did))).await;
        match waited {
            Ok(Ok(did)) => did.clone(),
            _ => panic!("never: {what}; {:?}, {:?}", self.did.borrow(), self.fleet.gauges()),
        }
    }

    async fn until_heard(&self, purge: &str) -> Did {
        self.until(purge, |did| did.applied.iter().any(|(applied, _)| applied == purge)).await
    }

    /// Until the node follows the log.
    async fn up(self) -> Self {
        self.until("up", |did| did.reached.run != 0).await;
        self.until_state(State::Ok).await;
        self
    }

    async fn until_state(&self, wanted: State) {
        let looking = async {
            while self.coherence.state(self.clock.mono()) != wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, looking).await;
        assert!(found.is_ok(), "never {wanted:?}: {:?}", self.fleet.gauges());
    }

    async fn tell(&self, purge: &str) -> Result<Position, Absent> {
        let telling = self.fleet.begin(Bytes::from(purge.to_owned()));
        self.fleet.tell(vec![telling], PATIENCE).await.map(Option::unwrap)
    }

    /// One that Redis has a marker of.
    async fn tell_marked(&self, purge: &str) {
        let mut telling = self.fleet.begin(Bytes::from(purge.to_owned()));
        telling.marked();
        self.fleet.tell(vec![telling], PATIENCE).await.unwrap();
    }

    fn asked(&self) -> u64 {
        self.fleet.inner.counters.asked.load(Ordering::Relaxed)
    }
}

fn cfg(url: String) -> config::Cache {
    samples::cache(Some(url))
}

#[tokio::test]
async fn a_purge_reaches_every_node_and_the_receipt_says_so() {
    let server = RedisServer::start();
    let cfg = cfg(server.url());
    let (a, b) = (One::start("a", &cfg).up().await, One::start("b", &cfg).up().await);
    let at = a.tell("x").await.unwrap();
    assert_eq!(at.n, 1);
    let receipt = a.fleet.receipt(at, PATIENCE).await.unwrap();
    let names = |receipt: &Receipt| {
        let mut names: Vec<String> = receipt.acknowledged.iter().map(|(peer, _)| peer.name.clone()).collect();
        names.sort();
        names
    };
    assert_eq!((names(&receipt), &receipt.missing[..]), (vec!["a".to_owned(), "b".to_owned()], &[][..]));
    assert_eq!(b.did.borrow().applied, [("x".to_owned(), 1)]);
    assert_eq!(a.did.borrow().applied, [("x".to_owned(), 1)], "its own but once");
    let peers = b.fleet.nodes().await.unwrap();
    let b_is = peers.iter().find(|peer| peer.name == "b").unwrap();
    assert_eq!((b_is.address.as_str(), b_is.started), ("127.0.0.1:1", 7));
    assert_eq!(b_is.version, env!("CARGO_PKG_VERSION"));
    b.fleet.leave().await;
    drop(b);
    let at = a.tell("y").await.unwrap();
    let receipt = a.fleet.receipt(at, PATIENCE).await.unwrap();
    assert_eq!(
        (names(&receipt), receipt.missing.len()),
        (vec!["a".to_owned()], 0),
        "who left is not waited for"
    );
}

#[tokio::test]
async fn a_node_that_cannot_hear_is_named_and_catches_up() {
    let server = RedisServer::start();
    let relay = Relay::start(server.addr());
    let a = One::start("a", &cfg(server.url())).up().await;
    let c = One::start("c", &cfg(relay.url())).up().await;
    relay.set(Mode::Stall);
    let at = a.tell("x").await.unwrap();
    let receipt = a.fleet.receipt(at, Duration::from_millis(300)).await.unwrap();
    assert_eq!(receipt.acknowledged.iter().map(|(peer, _)| peer.name.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(receipt.missing.iter().map(|peer| peer.name.as_str()).collect::<Vec<_>>(), ["c"]);
    c.until_state(State::Lost).await;
    assert!(c.did.borrow().applied.is_empty());
    relay.set(Mode::Pass);
    assert_eq!(c.until_heard("x").await.applied, [("x".to_owned(), 1)]);
    c.until_state(State::Ok).await;
    assert_eq!(c.did.borrow().applied, [("x".to_owned(), 1)], "made good before memory is trusted again");
}

#[tokio::test]
async fn what_cannot_be_told_fails_and_is_told_when_redis_is_back() {
    let mut server = RedisServer::start();
    let cfg = cfg(server.url());
    let (a, b) = (One::start("a", &cfg).up().await, One::start("b", &cfg).up().await);
    a.tell("before").await.unwrap();
    b.until_heard("before").await;
    server.stop();
    // Until the link has seen it.
    while a.tell("lost").await.is_ok() {}
    a.tell("x").await.unwrap_err();
    // Not even polled.
    drop(a.tell("dropped"));
    let mut telling = a.fleet.begin(Bytes::from_static(b"never polled"));
    telling.marked();
    drop(telling);
    server.restart_on_same_port();
    let did = b.until_heard("never polled").await;
    for purge in ["x", "never polled"] {
        assert_eq!(did.applied.iter().filter(|(applied, _)| applied == purge).count(), 1, "{did:?}");
    }
    assert_eq!(
        did.applied.iter().filter(|(applied, _)| applied == "before").count(),
        1,
        "known by its token"
    );
    a.until_state(State::Ok).await;
    assert_eq!(a.fleet.gauges().untold, 0);
}

#[tokio::test]
async fn an_empty_redis_is_told_again_what_the_nodes_know() {
    let mut server = RedisServer::start();
    let cfg = cfg(server.url());
    let (a, b) = (One::start("a", &cfg).up().await, One::start("b", &cfg).up().await);
    a.tell("x").await.unwrap();
    b.until_heard("x").await;
    let run = b.did.borrow().reached.run;
    server.restart_on_same_port();
    b.until("another run", |did| did.reached.run != run && did.reached.n > 0).await;
    // A new node hears of it, too.
    let c = One::start("c", &cfg).up().await;
    c.until_heard("x").await;
    assert_eq!(b.did.borrow().applied, [("x".to_owned(), 1)]);
}

#[tokio::test]
async fn a_log_that_was_set_back_gets_another_run() {
    let server = RedisServer::start();
    let cfg = cfg(server.url());
    let (a, b) = (One::start("a", &cfg).up().await, One::start("b", &cfg).up().await);
    for purge in ["x", "y"] {
        a.tell(purge).await.unwrap();
    }
    b.until_heard("y").await;
    let run = b.did.borrow().reached.run;
    // As a replica that lacks the last purge.
    let script = format!(
        "redis.call('XDEL', '{}', '2-0') return redis.call('HSET', '{}', 'n', 1, 'last named', 1)",
        key("named"),
        key("head")
    );
    server.command(&["EVAL", &script, "0"]);
    b.until("another run", |did| did.reached.run != run && did.reached.n > 0).await;
    let c = One::start("c", &cfg).up().await;
    c.until_heard("y").await;
    a.tell("z").await.unwrap();
    assert_eq!(
        b.until_heard("z").await.applied.iter().map(|(purge, _)| purge.as_str()).collect::<Vec<_>>(),
        ["x", "y", "z"]
    );
}

#[tokio::test]
async fn who_missed_more_than_the_log_holds_trusts_nothing_older() {
    let server = RedisServer::start();
    let relay = Relay::start(server.addr());
    let small = config::Cache { purge_record: 8, ..cfg(server.url()) };
    let a = One::start("a", &small).up().await;
    let c = One::start("c", &config::Cache { purge_record: 8, ..cfg(relay.url()) }).up().await;
    a.tell("0").await.unwrap();
    c.until_heard("0").await;
    relay.set(Mode::Stall);
    for nth in 1..=20 {
        a.tell(&nth.to_string()).await.unwrap();
    }
    relay.set(Mode::Pass);
    let did = c.until_heard("20").await;
    assert_eq!(did.distrusted, [13]);
    assert_eq!(did.applied.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [1, 14, 15, 16, 17, 18, 19, 20, 21]);
    // A new node holds nothing, but what it reads in Redis may be older.
    let d = One::start("d", &small).up().await;
    assert_eq!(d.until_heard("20").await.distrusted, [13]);
}

#[tokio::test]
async fn many_purges_come_in_pages_and_in_order_whatever_their_stream() {
    let server = RedisServer::start();
    let cfg = cfg(server.url());
    let a = One::start("a", &cfg).up().await;
    for nth in 0..400_u32 {
        match nth % 3 {
            0 => drop(a.tell(&nth.to_string()).await.unwrap()),
            _ => a.tell_marked(&nth.to_string()).await,
        }
    }
    let b = One::start("b", &cfg).up().await;
    let did = b.until_heard("399").await;
    let expected: Vec<(String, u64)> = (0..400).map(|nth| (nth.to_string(), nth + 1)).collect();
    assert_eq!(did.applied, expected);
}

#[tokio::test]
async fn whatever_stands_under_the_keys_a_purge_gets_through() {
    let server = RedisServer::start();
    let cfg = cfg(server.url());
    let (a, b) = (One::start("a", &cfg).up().await, One::start("b", &cfg).up().await);
    for (nth, name) in ["head", "named", "marked", "nodes"].into_iter().enumerate() {
        let key = key(name);
        for (kind, spoil) in [
            ("text", vec!["SET", key.as_str(), "x"]),
            ("list", vec!["LPUSH", &key, "x"]),
            ("hash", vec!["HSET", &key, "n", "nonsense"]),
            ("stream", vec!["XADD", &key, "18446744073709551615-1", "a", "b"]),
        ] {
            server.command(&["DEL", &key]);
            server.command(&spoil);
            let purge = format!("{nth} {kind}");
            a.tell(&purge).await.unwrap();
            b.until_heard(&purge).await;
        }
    }
}

#[tokio::test]
async fn a_full_redis_takes_a_purge() {
    let server = RedisServer::start();
    let cfg = cfg(server.url());
    let (a, b) = (One::start("a", &cfg).up().await, One::start("b", &cfg).up().await);
    server.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = server.command(&["SET", "a", "b"]);
    assert!(matches!(&refused, Reply::Error(text) if text.starts_with("OOM")), "{refused:?}");
    let at = a.tell("x").await.unwrap();
    b.until_heard("x").await;
    let receipt = a.fleet.receipt(at, PATIENCE).await.unwrap();
    assert_eq!((receipt.acknowledged.len(), receipt.missing.len()), (2, 0));
}

#[tokio::test]
async fn every_key_of_the_log_expires() {
    let server = RedisServer::start();
    let cfg = cfg(server.url());
    let a = One::start("a", &cfg).up().await;
    a.tell("x").await.unwrap();
    a.tell_marked("y").await;
    a.until_heard("y").await;
    let ttls: HashMap<String, Reply> =
        server.keys().into_iter().map(|key| (key.clone(), server.command(&["PTTL", &key]))).collect();
    assert_eq!(ttls.len(), 4, "{ttls:?}");
    assert!(ttls.values().all(|ttl| matches!(ttl, Reply::Int(1..))), "{ttls:?}");
}

#[tokio::test]
async fn a_purge_under_another_secret_makes_everything_doubtful() {
    let server = RedisServer::start();
    let secret = |digit: &str| vec![Secret::from_hex(&digit.repeat(64)).unwrap()];
    let sealed = |digit| config::Cache { redis_secrets: secret(digit), ..cfg(server.url()) };
    let (a, b) = (One::start("a", &sealed("1")).up().await, One::start("b", &sealed("1")).up().await);
    let other = One::start("c", &sealed("2")).up().await;
    a.tell("http://private/url").await.unwrap();
    b.until_heard("http://private/url").await;
    other.until("doubt", |did| did.distrusted == [1]).await;
    let Reply::Array(entries) = server.command(&["XRANGE", "larder:4:{fleet}:named", "-", "+"]) else {
        panic!()
    };
    assert!(!format!("{entries:?}").contains("private"));
}

#[tokio::test]
async fn a_receipt_that_is_given_up_loses_nothing() {
    let server = RedisServer::start();
    let a = One::start("a", &cfg(server.url())).up().await;
    let mut telling = Box::pin(a.tell("x"));
    // Sent, and given up while the answer is on its way.
    let _pending = poll_fn(|context| std::task::Poll::Ready(telling.as_mut().poll(context).is_ready())).await;
    drop(telling);
    a.until_heard("x").await;
}

#[tokio::test]
async fn a_stream_that_redis_has_evicted_is_noticed_by_who_has_not_heard_of_it() {
    let server = RedisServer::start();
    let relay = Relay::start(server.addr());
    let a = One::start("a", &cfg(server.url())).up().await;
    let c = One::start("c", &cfg(relay.url())).up().await;
    a.tell_marked("first").await;
    c.until_heard("first").await;
    relay.set(Mode::Stall);
    a.tell("tag").await.unwrap();
    a.tell_marked("last").await;
    server.command(&["UNLINK", &format!("{PREFIX}{{fleet}}:named")]);
    relay.set(Mode::Pass);
    let did = c.until_heard("last").await;
    let knows = did.applied.iter().any(|(applied, _)| applied == "tag");
    assert!(knows || !did.distrusted.is_empty(), "{did:?}");
}

#[tokio::test]
async fn a_link_that_breaks_and_is_back_between_two_questions_is_an_interruption() {
    let server = RedisServer::start();
    let a = One::start("a", &cfg(server.url())).up().await;
    // Its questions are put by hand from here on.
    a.fleet.following.0.abort();
    let inner = &a.fleet.inner;
    let far = Mono::from_nanos(u64::MAX);
    let heard = async || {
        let before = a.coherence.lag(far);
        inner.ask().await.unwrap();
        a.coherence.lag(far) < before
    };
    assert!(heard().await);
    server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    // Others use the link, too, and have it made anew.
    let used = async {
        while inner.link.breaks(inner.log.head()).1 == 0 || a.fleet.nodes().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, used).await.unwrap();
    assert!(!heard().await, "whoever knows what Redis may have lost meanwhile has not had the time to tell");
}

#[tokio::test]
async fn a_purge_is_told_again_where_its_log_is_no_more_before_the_answer_was_heard() {
    let server = RedisServer::start();
    let cfg = cfg(server.url());
    let (a, b) = (One::start("a", &cfg).up().await, One::start("b", &cfg).up().await);
    // Its questions are put by hand from here on.
    a.fleet.following.0.abort();
    let inner = &a.fleet.inner;
    let run = || inner.follower.lock().question().run;
    let was = run();
    // Not told at once, it is told in the background: here, by hand.
    drop(a.fleet.begin(Bytes::from_static(b"x")));
    let mut telling = Box::pin(inner.tell_again());
    // Sent, and not heard: the log takes it, and is then set back.
    let waits = poll_fn(|context| Poll::Ready(telling.as_mut().poll(context).is_pending()));
    assert!(waits.await);
    b.until_heard("x").await;
    server.command(&["HSET", &key("head"), "run", "0000000000000000"]);
    while run() == was {
        inner.ask().await.unwrap();
    }
    assert!(telling.await);
    assert_eq!(inner.untold.lock().count(), 1, "it waits to be told again");
    assert!(inner.tell_again().await);
    assert_eq!(inner.untold.lock().count(), 0, "once");
    let c = One::start("c", &cfg).up().await;
    c.until_heard("x").await;
}

#[tokio::test]
async fn a_head_that_says_anything_odd_heals() {
    let server = RedisServer::start();
    let cfg = cfg(server.url());
    let (a, b) = (One::start("a", &cfg).up().await, One::start("b", &cfg).up().await);
    let most = "9007199254740991";
    for (nth, (field, odd)) in [
        ("n", "1.5"),
        ("n", "9e300"),
        ("n", "-1"),
        ("n", "nan"),
        ("n", "007"),
        ("n", "0x10"),
        ("n", ""),
        ("n", "9007199254740992"),
        ("n", most),
        ("run", "0000000000000000"),
        ("run", "ABCDEF0123456789"),
        ("run", "123"),
        ("run", "a run with words"),
        ("named", "-1"),
        ("named", "1.5"),
        ("named", "9e300"),
        ("named", most),
        ("marked", "nan"),
        ("last named", "inf"),
        ("last named", most),
        ("last marked", "3"),
    ]
    .into_iter()
    .enumerate()
    {
        server.command(&["HSET", &key("head"), field, odd]);
        let purge = format!("{nth} {field}");
        a.tell(&purge).await.unwrap();
        b.until_heard(&purge).await;
    }
    for one in [&a, &b] {
        one.until_state(State::Ok).await;
    }
    let doubts = b.did.borrow().distrusted.len();
    a.tell("last").await.unwrap();
    b.until_heard("last").await;
    assert_eq!(b.did.borrow().distrusted.len(), doubts, "it heals, and does not doubt for ever");
}

#[tokio::test]
async fn an_entry_that_nobody_has_written_makes_its_stream_doubtful_and_no_more() {
    let server = RedisServer::start();
    let cfg = cfg(server.url());
    let (a, b) = (One::start("a", &cfg).up().await, One::start("b", &cfg).up().await);
    let token = "0123456789abcdef";
    let long = "x".repeat(200_000);
    for (nth, (sub, token, payload)) in
        [("1", token, "p"), ("0", "no token\nat all", "p"), ("0", "", "p"), ("0", token, &long)]
            .into_iter()
            .enumerate()
    {
        let before = b.did.borrow().distrusted.len();
        // As one that was added in its turn.
        let script = "local n = redis.call('HINCRBY', KEYS[1], 'n', 1) \
            redis.call('HSET', KEYS[1], 'last named', n) \
            return redis.call('XADD', KEYS[2], n .. '-' .. ARGV[1], 't', ARGV[2], 'p', ARGV[3])";
        let added = server.command(&["EVAL", script, "2", &key("head"), &key("named"), sub, token, payload]);
        assert!(matches!(added, Reply::Bulk(_)), "{added:?}");
        b.until("doubt", |did| did.distrusted.len() > before).await;
        let purge = format!("after {nth}");
        a.tell(&purge).await.unwrap();
        b.until_heard(&purge).await;
    }
}

#[tokio::test]
async fn the_longest_purges_come_in_pages_that_an_answer_may_have() {
    let server = RedisServer::start();
    let a = One::start("a", &cfg(server.url())).up().await;
    let long = |nth: u32| format!("{nth:03}{}", "x".repeat(crate::stored::LONGEST_URL));
    for nth in 0..100 {
        match nth % 2 {
            0 => drop(a.tell(&long(nth)).await.unwrap()),
            _ => a.tell_marked(&long(nth)).await,
        }
    }
    let b = One::start("b", &cfg(server.url())).up().await;
    let did = b.until_heard(&long(99)).await;
    assert_eq!(did.applied.iter().map(|(_, n)| *n).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_record_that_has_become_smaller_is_reached_by_and_by() {
    let server = RedisServer::start();
    let a = One::start("a", &cfg(server.url())).up().await;
    let many = (0..600).map(|nth: u32| a.fleet.begin(Bytes::from(nth.to_string()))).collect();
    a.fleet.tell(many, PATIENCE).await.unwrap();
    let small = config::Cache { purge_record: 8, ..cfg(server.url()) };
    let b = One::start("b", &small).up().await;
    for (nth, left) in [345, 90, 8, 8].into_iter().enumerate() {
        b.tell(&format!("small {nth}")).await.unwrap();
        assert_eq!(server.command(&["XLEN", &key("named")]).int(), left);
    }
    let c = One::start("c", &small).up().await;
    let did = c.until_heard("small 3").await;
    assert_eq!(did.distrusted, [596], "of 604 the last eight are left");
    assert_eq!(did.applied.len(), 8);
}

#[tokio::test]
async fn however_many_are_told_one_deadline_is_for_all() {
    let server = RedisServer::start();
    let relay = Relay::start(server.addr());
    let a = One::start("a", &cfg(relay.url())).up().await;
    let b = One::start("b", &cfg(server.url())).up().await;
    relay.set(Mode::Late(Duration::from_millis(300)));
    let many = (0..10 * AT_ONCE).map(|nth| a.fleet.begin(Bytes::from(nth.to_string()))).collect();
    assert_eq!(a.fleet.tell(many, Duration::from_secs(1)).await, Err(Absent::Deadline));
    relay.set(Mode::Pass);
    b.until_heard(&(10 * AT_ONCE - 1).to_string()).await;
}

#[tokio::test]
async fn what_does_not_fit_while_redis_is_down_makes_everything_doubtful_and_is_not_lost() {
    let mut server = RedisServer::start();
    let cfg = cfg(server.url());
    let (a, b) = (One::start("a", &cfg).up().await, One::start("b", &cfg).up().await);
    server.stop();
    let size = 16_000;
    for nth in 0..UNTOLD_BYTES / size + 10 {
        drop(a.fleet.begin(Bytes::from(format!("{nth:0size$}"))));
    }
    assert!(a.fleet.gauges().lost >= 9, "{:?}", a.fleet.gauges());
    server.restart_on_same_port();
    b.until_heard("everything").await;
    b.until_heard(&format!("{:0size$}", UNTOLD_BYTES / size + 9)).await;
    until("told", || a.fleet.gauges().untold == 0).await;
}

#[tokio::test]
async fn a_bug_in_the_middle_of_what_was_heard_makes_everything_doubtful() {
    let server = RedisServer::start();
    let cfg = cfg(server.url());
    let (a, b) = (One::start("a", &cfg).up().await, One::start("b", &cfg).up().await);
    let purges = ["a bug", "and one more"].map(|purge| a.fleet.begin(Bytes::from_static(purge.as_bytes())));
    a.fleet.tell(purges.into(), PATIENCE).await.unwrap();
    b.until("doubt", |did| !did.distrusted.is_empty()).await;
    a.tell("later").await.unwrap();
    b.until_heard("later").await;
}

#[tokio::test]
async fn who_leaves_tells_first_what_it_has_not_told() {
    let server = RedisServer::start();
    let cfg = cfg(server.url());
    let (a, b) = (One::start("a", &cfg).up().await, One::start("b", &cfg).up().await);
    // As if it were in the middle of its pause.
    a.fleet.following.0.abort();
    drop(a.fleet.begin(Bytes::from_static(b"the last write")));
    a.fleet.leave().await;
    b.until_heard("the last write").await;
    assert_eq!(a.fleet.gauges().untold, 0);
}

#[tokio::test]
async fn a_node_that_was_seen_by_a_clock_that_is_set_back_is_struck_off_in_its_time() {
    let server = RedisServer::start();
    let a = One::start("a", &cfg(server.url())).up().await;
    let says = "9000000000000 0000000000000001 7 ok 7 0.1.0 -";
    server.command(&["HSET", &key("nodes"), "ghost", says]);
    assert_eq!(a.fleet.nodes().await.unwrap().len(), 2);
    let seen = server.command(&["HGET", &key("nodes"), "ghost"]).text();
    let (seen, rest) = seen.split_once(' ').unwrap();
    assert!(seen.parse::<u64>().unwrap() < 9_000_000_000_000, "it would be waited for until the year 2255");
    assert!(says.ends_with(rest));
}

#[tokio::test]
async fn nodes_that_come_and_go_do_not_gather_though_nobody_asks_for_them() {
    let server = RedisServer::start();
    let a = One::start("a", &cfg(server.url())).up().await;
    let script = "for i = 1, 1100 do redis.call('HSET', KEYS[1], 'gone' .. i, '1 x') end return 1";
    server.command(&["EVAL", script, "1", &key("nodes")]);
    until("few", || server.command(&["HLEN", &key("nodes")]).int() == 1).await;
    drop(a);
}

#[tokio::test]
async fn a_fleet_whose_own_master_is_gone_does_not_ask_without_a_pause() {
    let server = RedisServer::start_with(|| {
        let port = crate::store::redis_server::free_port().to_string();
        ["--cluster-enabled", "yes", "--cluster-port", &port].map(str::to_owned).into()
    });
    let slot = server.command(&["CLUSTER", "KEYSLOT", "fleet"]).int();
    let range = |from: i64, to: i64| {
        let words = ["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()];
        assert_eq!(server.command(&words), Reply::Simple("OK".into()));
    };
    range(0, slot - 1);
    range(slot + 1, 16_383);
    let a = One::start("a", &cfg(format!("redis+cluster://{}", server.addr())));
    until("a link", || a.fleet.inner.link.phase() == Phase::Closed).await;
    let before = a.asked();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(a.asked() - before < 20, "{} questions in four pauses", a.asked() - before);
    range(slot, slot);
    a.up().await;
}

#[tokio::test]
async fn a_stream_of_news_is_asked_for_at_a_pace() {
    let server = RedisServer::start();
    let cfg = cfg(server.url());
    let (a, b) = (One::start("a", &cfg).up().await, One::start("b", &cfg).up().await);
    // Its questions are put by hand from here on.
    b.fleet.following.0.abort();
    let ask = async || b.fleet.inner.ask().await.unwrap();
    assert_eq!(ask().await, Next::InTurn);
    a.tell("news").await.unwrap();
    assert_eq!(ask().await, Next::Soon, "however often there are any");
    assert_eq!(ask().await, Next::InTurn);
    let many = (0..200).map(|nth: u32| a.fleet.begin(Bytes::from(nth.to_string()))).collect();
    a.fleet.tell(many, PATIENCE).await.unwrap();
    assert_eq!([ask().await, ask().await], [Next::AtOnce, Next::Soon], "a page was full");
}
