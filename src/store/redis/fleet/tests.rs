//! The log of purges against a real Redis.

use std::collections::HashMap;
use std::future::poll_fn;

use tokio::sync::watch;

use super::*;
use crate::store::redis_server::{Mode, RedisServer, Relay, Reply};
use crate::store::samples;
use crate::stored::Secret;

/// Of the keys of the log.
const PREFIX: &str = "larder:4:";
/// Far longer than anything here takes: reached only when a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a node did about purges, in order.
#[derive(Clone, Debug, Default, PartialEq)]
struct Did {
    applied: Vec<(String, u64)>,
    distrusted: Vec<u64>,
    reached: Position,
}

struct Recorder(watch::Sender<Did>);

impl Apply for Recorder {
    fn apply(&self, purge: &[u8], _: Stream, at: Position, _: bool) {
        let purge = String::from_utf8_lossy(purge).into_owned();
        self.0.send_modify(|did| did.applied.push((purge, at.n)));
    }

    fn distrust(&self, at: Position) {
        self.0.send_modify(|did| did.distrusted.push(at.n));
    }

    fn reached(&self, at: Position) {
        self.0.send_if_modified(|did| std::mem::replace(&mut did.reached, at) != at);
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
        self.fleet.begin(Bytes::from(purge.to_owned())).told().await
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
    let key = |name: &str| format!("{PREFIX}{{fleet}}:{name}");
    // As a replica that lacks the last purge.
    let script = format!(
        "redis.call('XDEL', '{}', '2-0') return redis.call('HSET', '{}', 'n', 1)",
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
        let stream = if nth % 3 == 0 { Stream::Named } else { Stream::Marked };
        let mut telling = a.fleet.begin(Bytes::from(nth.to_string()));
        if stream == Stream::Marked {
            telling.marked();
        }
        telling.told().await.unwrap();
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
        let key = format!("{PREFIX}{{fleet}}:{name}");
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
    let mut telling = a.fleet.begin(Bytes::from_static(b"y"));
    telling.marked();
    telling.told().await.unwrap();
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
    let marked = async |purge: &'static str| {
        let mut telling = a.fleet.begin(Bytes::from_static(purge.as_bytes()));
        telling.marked();
        telling.told().await.unwrap();
    };
    marked("first").await;
    c.until_heard("first").await;
    relay.set(Mode::Stall);
    a.tell("tag").await.unwrap();
    marked("last").await;
    server.command(&["UNLINK", &format!("{PREFIX}{{fleet}}:named")]);
    relay.set(Mode::Pass);
    let did = c.until_heard("last").await;
    let knows = did.applied.iter().any(|(applied, _)| applied == "tag");
    assert!(knows || !did.distrusted.is_empty(), "{did:?}");
}
