//! The Redis tier against a real server, and against one that misbehaves.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

mod batches;
mod named;
mod sealed;
mod tampered;

use super::*;
use crate::clock::Timestamp;
use crate::store::redis_server::{Mode, RedisServer, Relay, Reply};
use crate::store::{Name, PURGES, samples};
use crate::stored::samples::{fields, key, plain, stored};
use crate::stored::{Born, encode_response};

const TTL: Duration = Duration::from_secs(60);
const PLAIN: Normalize = Normalize { accept_language: false };
static CLEAR: LazyLock<Seal> = LazyLock::new(Seal::default);
/// Far longer than anything here takes: reached only when a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// One worker's view, with the purges of its process.
struct Node {
    redis: Redis,
    purges: Arc<Purges>,
    clock: Clock,
}

impl Node {
    async fn start(url: String) -> Self {
        Self::with(samples::cache(Some(url))).await
    }

    async fn with(cfg: config::Cache) -> Self {
        Self::with_clock(cfg, Clock::system()).await
    }

    async fn with_clock(cfg: config::Cache, clock: Clock) -> Self {
        let node = Self::begin(&cfg, clock).await.expect("a URL is given");
        node.until("closed").await;
        node
    }

    async fn begin(cfg: &config::Cache, clock: Clock) -> Option<Self> {
        let purges = Arc::new(Purges::new(PURGES));
        let redis = Redis::start(cfg, clock.clone(), Arc::clone(&purges), &Arc::default()).await?;
        Some(Self { redis, purges, clock })
    }

    /// Puts, as of a fetch that has just begun.
    fn offer(&self, response: Arc<StoredResponse>, number: u64, ttl: Duration) {
        self.redis.put(response, Generation { number, seen_at: self.clock.mono() }, ttl, PLAIN);
    }

    /// Puts and waits until it is written.
    async fn put(&self, response: Arc<StoredResponse>, generation: u64) {
        self.offer(response, generation, TTL);
        self.redis.flush(PATIENCE).await;
    }

    /// Calls until the breaker is found open; fails when a hundred calls do not open it.
    async fn until_refused(&self) {
        for _ in 0..100 {
            if self.get("/", &[]).await == Err(Absent::Open) {
                return;
            }
        }
        panic!("the breaker does not open: {:?}", self.redis.gauges());
    }

    /// For tests with a short deadline, which a busy machine may miss: until it is not missed.
    async fn get_in_time(&self, path: &str) -> Result<Bytes, Absent> {
        let answered = async {
            loop {
                match self.get(path, &[]).await {
                    Err(Absent::Deadline | Absent::Open) => tokio::task::yield_now().await,
                    answer => return answer,
                }
            }
        };
        timeout(PATIENCE, answered).await.expect("Redis is there")
    }

    async fn get(&self, path: &str, request: &[(&str, &str)]) -> Result<Bytes, Absent> {
        self.redis
            .get(&key(path), &fields(request), PLAIN)
            .await
            .found
            .map(|response| response.content.whole().unwrap().clone())
    }

    /// Waits for the breakers of both links; fails when that takes too long.
    async fn until(&self, state: &'static str) {
        for link in [&self.redis.0.reader, &self.redis.0.writer] {
            let mut phases = link.phases();
            let reached = timeout(PATIENCE, phases.wait_for(|phase| phase.as_str() == state)).await;
            assert!(reached.is_ok(), "the breaker does not get {state}: {:?}", self.redis.gauges());
        }
    }
}

fn varying(path: &str, accept: &str, body: &[u8]) -> Arc<StoredResponse> {
    let response = [("cache-control", "max-age=60"), ("vary", "accept")];
    stored(&key(path), &[("accept", accept)], &response, body, Born::Here(0))
}

/// Polls once, as far as it gets now.
async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

fn seen(answer: &Answer) -> Option<u64> {
    answer.generation.map(|generation| generation.number)
}

fn local() -> Born {
    Born::Here(0)
}

#[tokio::test]
async fn what_one_node_puts_another_finds() {
    let server = RedisServer::start();
    let (one, two) = (Node::start(server.url()).await, Node::start(server.url()).await);
    let answer = one.redis.get(&key("/"), &HeaderMap::new(), PLAIN).await;
    assert_eq!(seen(&answer), Some(0));
    assert_eq!(answer.found.err(), Some(Absent::NotFound));
    let written = plain("/", b"hello", local());
    one.put(Arc::clone(&written), 0).await;

    let found = two.redis.get(&key("/"), &HeaderMap::new(), PLAIN).await.found.unwrap();
    assert_eq!(
        (found.status, &found.content, found.standing.born()),
        (written.status, &written.content, Born::Elsewhere(None))
    );
    assert!(found.headers.iter().eq(written.headers.iter()));
    assert_eq!(found.facts, written.facts);
    assert_eq!(two.get("/other", &[]).await, Err(Absent::NotFound));

    let (one, two) = (one.redis.gauges(), two.redis.gauges());
    assert_eq!((one.gets, one.misses, one.hits, one.writes, one.queue_bytes), (1, 1, 0, 1, 0));
    assert_eq!((two.gets, two.misses, two.hits, two.writes), (2, 1, 1, 0));
    assert!(one.written_bytes > 5 && one.up && one.breaker == "closed", "{one:?}");
}

#[tokio::test]
async fn a_varying_response_is_found_by_its_names_and_then_by_the_variant() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    node.put(varying("/", "text/html", b"html"), 0).await;
    node.put(varying("/", "application/json", b"json"), 0).await;
    assert_eq!(node.get("/", &[("accept", "text/html")]).await.unwrap(), "html");
    assert_eq!(node.get("/", &[("accept", "application/json")]).await.unwrap(), "json");
    assert_eq!(node.get("/", &[("accept", "image/png")]).await, Err(Absent::OtherVariant));
    assert_eq!(node.get("/", &[]).await, Err(Absent::OtherVariant), "absence is a value");
    assert_eq!(server.keys().len(), 4, "the names and two variants, and the marker that outlives them");
}

#[tokio::test]
async fn a_variant_is_found_by_its_language_where_the_route_says_so() {
    let by_meaning = Normalize { accept_language: true };
    let response = [("cache-control", "max-age=60"), ("vary", "accept-language"), ("content-language", "de")];
    let german = stored(&key("/"), &[("accept-language", "de, en")], &response, b"hallo", local());
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    for normalize in [PLAIN, by_meaning] {
        let generation = Generation { number: 0, seen_at: node.clock.mono() };
        node.redis.put(Arc::clone(&german), generation, TTL, normalize);
        node.redis.flush(PATIENCE).await;
        for (asked, found) in [("fr;q=0.5, DE", normalize == by_meaning), ("fr, de", false), ("de, en", true)]
        {
            let asked = fields(&[("accept-language", asked)]);
            let answer = node.redis.get(&key("/"), &asked, normalize).await.found;
            assert_eq!(answer.is_ok(), found, "RFC 9110 §12.5.4 {asked:?} {normalize:?}");
        }
    }
    assert_eq!(node.get("/", &[("accept-language", "de")]).await, Err(Absent::OtherVariant), "another route");
}

#[tokio::test]
async fn a_variant_under_a_colliding_hash_is_a_miss() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    node.put(varying("/", "a", b"for a"), 0).await;
    // What was written under the name of b's hash is the variant of a.
    let base = keys::base(&CLEAR, &key("/"));
    let b = keys::variant(&CLEAR, &base, varying("/", "b", b"").selecting.hash());
    let record = encode_response(&varying("/", "a", b"for a"), 0, &b);
    server.command(&[b"SET".as_slice(), b.as_bytes(), &record]);
    assert_eq!(node.get("/", &[("accept", "b")]).await, Err(Absent::OtherVariant));
}

#[tokio::test]
async fn a_purge_voids_all_of_a_url_on_every_node_also_what_is_put_later() {
    let server = RedisServer::start();
    let (one, two) = (Node::start(server.url()).await, Node::start(server.url()).await);
    let extras = CacheKey::from_parts(key("/").url(), "h:accept-language=en;");
    let with_extras = stored(&extras, &[], &[("cache-control", "max-age=60")], b"extras", local());
    one.put(plain("/", b"plain", local()), 0).await;
    one.put(with_extras, 0).await;
    one.put(varying("/v", "a", b"variant"), 0).await;
    one.put(plain("/stays", b"stays", local()), 0).await;
    // Under way on the other node when the purge comes: it has learned the generation of before.
    let seen = two.redis.get(&key("/late"), &HeaderMap::new(), PLAIN).await.generation.unwrap().number;

    for path in ["/", "/v", "/late"] {
        one.redis.purge(key(path).url_hash()).await.unwrap();
    }
    two.put(plain("/late", b"from before", local()), seen).await;

    assert_eq!(two.get("/", &[]).await, Err(Absent::NotFound));
    assert_eq!(two.redis.get(&extras, &HeaderMap::new(), PLAIN).await.found.err(), Some(Absent::NotFound));
    assert_eq!(two.get("/v", &[("accept", "a")]).await, Err(Absent::NotFound));
    assert_eq!(
        two.get("/late", &[]).await,
        Err(Absent::NotFound),
        "written after the purge, asked for before"
    );
    assert_eq!(two.get("/stays", &[]).await.unwrap(), "stays");

    let now = two.redis.get(&key("/late"), &HeaderMap::new(), PLAIN).await.generation.unwrap().number;
    assert_ne!(now, seen);
    two.put(plain("/late", b"new", local()), now).await;
    assert_eq!(one.get("/late", &[]).await.unwrap(), "new");
    one.redis.purge(key("/late").url_hash()).await.unwrap();
    assert_eq!(one.get("/late", &[]).await, Err(Absent::NotFound), "and it can be purged again");
}

#[tokio::test]
async fn a_marker_that_has_ended_never_revives_what_it_voided() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    let marker = keys::marker(&CLEAR, key("/").url_hash());
    node.redis.purge(key("/").url_hash()).await.unwrap();
    let first = node.redis.get(&key("/"), &HeaderMap::new(), PLAIN).await.generation.unwrap().number;
    node.put(plain("/", b"old", local()), first).await;
    assert_eq!(node.get("/", &[]).await.unwrap(), "old");
    // As if its time were over: with a counted generation the next purge would reach the same.
    server.command(&["DEL", &marker]);
    assert_eq!(node.get("/", &[]).await, Err(Absent::NotFound));
    // A marker alone, of whatever number.
    server.command(&["SET", &marker, &CLEAR.encode_mark(1, &marker)]);
    assert_eq!(node.get("/", &[]).await, Err(Absent::NotFound));
    node.redis.purge(key("/").url_hash()).await.unwrap();
    assert_eq!(node.get("/", &[]).await, Err(Absent::NotFound));
}

/// Milliseconds that a key has to live; negative when it is not there or does not expire.
fn left(server: &RedisServer, key: &str) -> i64 {
    server.command(&["PTTL", key]).int()
}

const TEN_MINUTES: i64 = 600_000;

#[tokio::test]
async fn a_purge_of_what_is_not_stored_costs_a_key_for_minutes_however_often() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    for _ in 0..3 {
        for path in ["/a", "/b"] {
            node.redis.purge(key(path).url_hash()).await.unwrap();
        }
    }
    // Nor does a plain record, which the purge deletes, make it cost more.
    node.put(plain("/c", b"c", local()), 0).await;
    node.redis.purge(key("/c").url_hash()).await.unwrap();
    let keys = server.keys();
    assert_eq!(keys.len(), 3, "{keys:?}");
    for key in keys {
        assert!(key.ends_with(":g") && (1..=TEN_MINUTES).contains(&left(&server, &key)), "{key}");
    }
}

#[tokio::test]
async fn a_fetch_that_began_before_a_purge_is_not_put_after_it() {
    let server = RedisServer::start();
    // The purge comes from another node, so that no note of this process helps.
    let (node, other) = (Node::start(server.url()).await, Node::start(server.url()).await);
    let seen = node.redis.get(&key("/"), &HeaderMap::new(), PLAIN).await.generation.unwrap();
    other.redis.purge(key("/").url_hash()).await.unwrap();
    for late in [plain("/", b"old", local()), varying("/", "a", b"old")] {
        node.redis.put(late, seen, TTL, PLAIN);
        node.redis.flush(PATIENCE).await;
    }
    assert_eq!(server.keys(), [keys::marker(&CLEAR, key("/").url_hash())]);
    let gauges = node.redis.gauges();
    assert_eq!((gauges.writes, gauges.dropped_writes, gauges.write_errors), (0, 2, 0));
}

#[tokio::test]
async fn a_put_comes_while_a_purge_since_its_look_would_still_be_known_or_never() {
    let server = RedisServer::start();
    let (clock, stepper) = Clock::stepped(Timestamp::from_secs(1_000));
    let node = Node::with_clock(samples::cache(Some(server.url())), clock).await;
    let seen = node.redis.get(&key("/"), &HeaderMap::new(), PLAIN).await.generation.unwrap();
    let put = async || {
        node.redis.put(plain("/", b"x", local()), seen, TTL, PLAIN);
        node.redis.flush(PATIENCE).await;
        (node.redis.gauges().writes, node.redis.gauges().dropped_writes)
    };
    stepper.advance(keys::PUT_WITHIN);
    assert_eq!(put().await, (1, 0));
    stepper.advance(Duration::from_millis(1));
    assert_eq!(put().await, (1, 1), "too late");
}

#[tokio::test]
async fn a_purge_outlives_what_it_cannot_name_though_the_plain_record_be_gone() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    let long = Duration::from_secs(6 * 24 * 3600);
    let marker = keys::marker(&CLEAR, key("/").url_hash());
    let variant =
        keys::variant(&CLEAR, &keys::base(&CLEAR, &key("/")), varying("/", "a", b"").selecting.hash());
    node.offer(varying("/", "a", b"old"), 0, long);
    // A response that does not vary takes the place of the names, and ends soon.
    node.offer(plain("/", b"short", local()), 0, TTL);
    node.redis.flush(PATIENCE).await;
    server.command(&["DEL", &keys::plain(&CLEAR, key("/").url_hash())]);

    for _ in 0..2 {
        node.redis.purge(key("/").url_hash()).await.unwrap();
        assert!(left(&server, &marker) > left(&server, &variant), "{}", left(&server, &marker));
    }
    // And so it stays when there are names again, under which the old variant could be found.
    let now = node.redis.get(&key("/"), &HeaderMap::new(), PLAIN).await.generation.unwrap();
    node.redis.put(varying("/", "b", b"new"), now, TTL, PLAIN);
    node.redis.flush(PATIENCE).await;
    assert!(left(&server, &marker) > left(&server, &variant), "a marker is never made to live shorter");
    assert_eq!(node.get("/", &[("accept", "a")]).await, Err(Absent::OtherVariant));
    assert_eq!(node.get("/", &[("accept", "b")]).await.unwrap(), "new");
}

#[tokio::test]
async fn a_purge_outlives_what_is_keyed_on_request_fields() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    let extras = CacheKey::from_parts(key("/").url(), "h:accept=x;");
    let response = stored(&extras, &[], &[("cache-control", "max-age=60")], b"old", local());
    node.offer(response, 0, Duration::from_secs(6 * 24 * 3600));
    node.redis.flush(PATIENCE).await;
    node.redis.purge(key("/").url_hash()).await.unwrap();
    assert_eq!(node.redis.get(&extras, &HeaderMap::new(), PLAIN).await.found.err(), Some(Absent::NotFound));
    let marker = keys::marker(&CLEAR, key("/").url_hash());
    assert!(left(&server, &marker) > left(&server, &keys::base(&CLEAR, &extras)));
}

#[tokio::test]
async fn what_is_put_after_a_purge_is_not_lost_when_the_purge_ends() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    node.redis.purge(key("/").url_hash()).await.unwrap();
    let now = node.redis.get(&key("/"), &HeaderMap::new(), PLAIN).await.generation.unwrap();
    node.redis.put(plain("/", b"new", local()), now, Duration::from_secs(3600), PLAIN);
    node.redis.flush(PATIENCE).await;
    let url = key("/").url_hash();
    assert!(left(&server, &keys::marker(&CLEAR, url)) > left(&server, &keys::plain(&CLEAR, url)));
}

#[tokio::test]
async fn a_redis_that_is_full_still_takes_a_purge() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    node.put(plain("/", b"old", local()), 0).await;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    node.put(plain("/other", b"x", local()), 0).await;
    assert_eq!(node.redis.gauges().write_errors, 1, "it is full");
    node.redis.purge(key("/").url_hash()).await.unwrap();
    assert_eq!(node.get("/", &[]).await, Err(Absent::NotFound));
}

#[tokio::test]
async fn a_purge_that_is_given_up_before_it_began_reaches_redis_all_the_same() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    node.put(plain("/", b"old", local()), 0).await;
    drop(node.redis.purge(key("/").url_hash()));
    node.redis.flush(PATIENCE).await;
    assert_eq!(server.keys(), [keys::marker(&CLEAR, key("/").url_hash())]);
}

#[tokio::test]
async fn it_is_up_when_both_links_are() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    assert!(node.redis.gauges().up);
    let broken = node.redis.0.writer.only().unwrap().with(TTL, |_| async { Err::<(), _>(Fault::Lost) }).await;
    assert_eq!(broken, Err(Fault::Lost));
    let gauges = node.redis.gauges();
    assert_eq!((gauges.up, gauges.breaker), (false, "closed"), "lookups go on");
    node.until("closed").await;
    assert!(node.redis.gauges().up);
}

/// The node of a cluster that a redirection names is asked with what is left of the time.
#[tokio::test]
async fn a_call_whose_time_is_up_before_it_began_says_nothing_of_the_connection() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    let link = node.redis.0.reader.only().unwrap();
    for _ in 0..10 {
        let asked = link.ask(tokio::time::Instant::now(), &link::question::<redis::Cmd>([])).await;
        assert_eq!(asked, Err(Fault::Deadline));
    }
    assert_eq!(node.redis.state(), "closed");
    assert_eq!(node.get("/", &[]).await, Err(Absent::NotFound));
}

#[tokio::test]
async fn a_master_that_takes_no_writes_any_more_is_left_and_the_next_that_is_named_is_used() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let monitor = |server: &RedisServer| {
        ["MONITOR", "mymaster", "127.0.0.1", &server.addr().port().to_string(), "1"].map(str::to_owned)
    };
    let sentinel = RedisServer::sentinel(&format!("sentinel {}", monitor(&old).join(" ").to_lowercase()));
    let node = Node::start(format!("redis+sentinel://{}/mymaster", sentinel.addr())).await;
    node.put(plain("/", b"old", local()), 0).await;
    assert_eq!(old.keys().len(), 1);
    // As in the middle of a failover: connections stand, and writes are refused.
    old.command(&["REPLICAOF", "127.0.0.1", &new.addr().port().to_string()]);
    node.offer(plain("/refused", b"x", local()), 0, TTL);
    let mut phases = node.redis.0.writer.phases();
    let left = timeout(PATIENCE, phases.wait_for(|phase| *phase == Phase::Open)).await.is_ok();
    assert!(left, "it is still written to: {:?}", node.redis.gauges());
    sentinel.command(&["SENTINEL", "REMOVE", "mymaster"]);
    sentinel.command(&[&["SENTINEL".to_owned()], &monitor(&new)[..]].concat());
    node.until("closed").await;
    node.put(plain("/new", b"new", local()), 0).await;
    assert!(new.keys().contains(&keys::plain(&CLEAR, key("/new").url_hash())), "{:?}", new.keys());
}

/// As behind the name of a primary, which leads to another server after a failover while connections stand.
#[tokio::test]
async fn one_server_that_has_become_a_replica_is_connected_to_anew() {
    let (server, other) = (RedisServer::start(), RedisServer::start());
    let relay = Relay::start(server.addr());
    let node = Node::start(relay.url()).await;
    let before = relay.accepted();
    server.command(&["REPLICAOF", "127.0.0.1", &other.addr().port().to_string()]);
    node.put(plain("/", b"young", local()), 0).await;
    assert_eq!((node.redis.state(), node.redis.gauges().write_errors), ("closed", 1));
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(11)).await;
    tokio::time::resume();
    node.until("closed").await;
    let (mut reader, mut writer) = (node.redis.0.reader.phases(), node.redis.0.writer.phases());
    node.offer(plain("/", b"old", local()), 0, TTL);
    // What is borrowed of a channel keeps its sender waiting: dropped at once.
    let open = |phase: &Phase| *phase != Phase::Closed;
    let written = async { writer.wait_for(open).await.map(drop) };
    let read = async { reader.wait_for(open).await.map(drop) };
    let both = async { tokio::join!(written, read) };
    let left = timeout(PATIENCE, both).await.is_ok();
    assert!(left, "it is still connected to: {:?}", node.redis.gauges());
    node.until("closed").await;
    assert!(relay.accepted() >= before + 2, "{}", relay.accepted());
    // It still is a replica: what was made anew is kept.
    let accepted = relay.accepted();
    node.put(plain("/", b"again", local()), 0).await;
    assert_eq!((node.redis.state(), relay.accepted()), ("closed", accepted));
}

#[tokio::test]
async fn two_namespaces_of_one_redis_know_nothing_of_each_other() {
    let server = RedisServer::start();
    let of = |name: &str| config::Cache { namespace: name.into(), ..samples::cache(Some(server.url())) };
    let (one, two) = (Node::with(of("one")).await, Node::with(of("two")).await);
    one.put(plain("/", b"of one", local()), 0).await;
    assert_eq!(two.get("/", &[]).await, Err(Absent::NotFound));
    two.redis.purge(key("/").url_hash()).await.unwrap();
    assert_eq!(one.get("/", &[]).await.unwrap(), "of one");
    // Nor is what was copied from the one into the other believed.
    let [theirs, ..] = &server.keys()[..] else { panic!() };
    let copy = theirs.replacen("one:", "two:", 1);
    server.command(&["COPY", theirs, &copy]);
    server.command(&["DEL", &keys::marker(&CLEAR.clone().in_namespace("two"), key("/").url_hash())]);
    assert_eq!(two.get("/", &[]).await, Err(Absent::Damaged(Damaged::OtherKey)));
}

#[tokio::test]
async fn what_this_node_has_purged_is_not_read_back_nor_written() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    node.put(plain("/", b"old", local()), 0).await;
    // Only in this process, as when Redis could not be told. The sample's request was at 1,000 s.
    let seq = node.purges.purge(key("/").url_hash(), Timestamp::from_secs(1_000));
    assert_eq!(node.get("/", &[]).await, Err(Absent::NotFound));

    server.command(&["FLUSHALL"]);
    node.put(plain("/", b"fetched before the purge", local()), 0).await;
    assert_eq!(server.keys(), Vec::<String>::new());
    assert_eq!(node.redis.gauges().dropped_writes, 1);
    node.put(plain("/", b"fetched after it", Born::Here(seq)), 0).await;
    assert_eq!(server.keys().len(), 1);
}

#[tokio::test]
async fn a_purge_that_comes_during_the_write_undoes_it() {
    let server = RedisServer::start();
    let relay = Relay::start(server.addr());
    let node = Node::start(relay.url()).await;
    relay.set(Mode::Stall);
    node.offer(varying("/", "a", b"old"), 0, TTL);
    // The writer has taken it, and is held up by the relay.
    let taken = async {
        while node.redis.0.queue.waiting_writes() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, taken).await.expect("the writer takes it");
    node.purges.purge(key("/").url_hash(), Timestamp::from_secs(1_000));
    relay.set(Mode::Pass);
    node.redis.flush(PATIENCE).await;
    assert_eq!(server.keys(), [keys::marker(&CLEAR, key("/").url_hash())]);
}

#[tokio::test]
async fn every_key_expires_and_a_marker_last() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    let for_ever = Duration::from_secs(3600 * 24 * 365);
    node.offer(plain("/a", b"a", local()), 0, TTL);
    node.offer(varying("/b", "x", b"b"), 0, TTL);
    node.offer(plain("/c", b"c", local()), 0, for_ever);
    node.offer(varying("/d", "x", b"d"), 0, for_ever);
    node.offer(plain("/e", b"e", local()), 0, Duration::ZERO);
    node.redis.flush(PATIENCE).await;
    node.redis.purge(key("/f").url_hash()).await.unwrap();
    let keys = server.keys();
    assert_eq!(keys.len(), 9, "{keys:?}: /e is not worth writing");
    let mut longest = (0, String::new());
    for key in keys {
        let left = left(&server, &key);
        assert!(left > 0, "{key} does not expire");
        longest = longest.max((left, key));
    }
    assert!(longest.1.ends_with(":g"), "{longest:?}");
}

#[tokio::test]
async fn a_redis_that_stops_opens_the_breaker_and_is_used_again_when_it_is_back() {
    let mut server = RedisServer::start();
    let node = Node::start(server.url()).await;
    node.put(plain("/", b"1", local()), 0).await;
    server.stop();
    // By a call that finds the connection gone, or by the keeper, which pings.
    node.until_refused().await;
    let errors = node.redis.gauges();
    for _ in 0..1_000 {
        assert_eq!(node.get("/", &[]).await, Err(Absent::Open));
    }
    let gauges = node.redis.gauges();
    assert_eq!((gauges.errors, gauges.deadline_exceeded), (errors.errors, 0), "refused, not tried");
    assert_eq!(gauges.refused, errors.refused + 1_000);
    assert!(!gauges.up && gauges.breaker != "closed");
    assert_eq!(node.redis.get(&key("/"), &HeaderMap::new(), PLAIN).await.generation, None);

    node.offer(plain("/", b"2", local()), 0, TTL);
    assert_eq!(node.redis.purge(key("/p").url_hash()).await, Err(Absent::Open));
    node.redis.flush(PATIENCE).await;

    server.restart_on_same_port();
    node.until("closed").await;
    node.put(plain("/", b"3", local()), 0).await;
    assert_eq!(node.get("/", &[]).await.unwrap(), "3");
    let marker = keys::marker(&CLEAR, key("/p").url_hash());
    assert!(server.keys().contains(&marker), "the purge that failed has been made up for");
}

#[tokio::test]
async fn without_redis_a_start_waits_half_a_second_at_most_and_goes_on() {
    let mut server = RedisServer::start();
    server.stop();
    let cfg = samples::cache(Some(server.url()));
    let started = timeout(PATIENCE, Node::begin(&cfg, Clock::system())).await.unwrap();
    let node = started.expect("a handle, though there is no server");
    assert_eq!(node.get("/", &[]).await, Err(Absent::Open));
    server.restart_on_same_port();
    node.until("closed").await;
    assert_eq!(node.get("/", &[]).await, Err(Absent::NotFound));

    let none = Node::begin(&samples::cache(None), Clock::system()).await;
    assert!(none.is_none(), "none is configured");
}

#[tokio::test]
async fn a_stalled_redis_holds_nobody_up_beyond_the_deadline_and_opens_the_breaker() {
    let server = RedisServer::start();
    let relay = Relay::start(server.addr());
    let cfg =
        config::Cache { redis_deadline: Duration::from_millis(20), ..samples::cache(Some(relay.url())) };
    let node = Node::with(cfg).await;
    relay.set(Mode::Stall);
    let mut seen = Vec::new();
    while seen.last() != Some(&Absent::Open) {
        let call = timeout(PATIENCE, node.get("/", &[])).await.expect("the deadline is far shorter");
        seen.push(call.unwrap_err());
        assert!(seen.len() < 10, "{seen:?}");
    }
    // Three in a row; the keeper's own ping may have been one of them.
    let misses = seen.iter().filter(|absent| **absent == Absent::Deadline).count();
    assert!((2..=3).contains(&misses) && seen.len() == misses + 1, "{seen:?}");
    assert_eq!(node.redis.gauges().deadline_exceeded, misses as u64);
    // It stays open while the relay stalls: an attempt needs an answered PING.
    let accepted = relay.accepted();
    let mut phases = node.redis.0.reader.phases();
    timeout(PATIENCE, phases.wait_for(|phase| *phase == Phase::HalfOpen)).await.unwrap().unwrap();
    timeout(PATIENCE, phases.wait_for(|phase| *phase == Phase::Open)).await.unwrap().unwrap();
    assert!(relay.accepted() > accepted, "it has tried");
    assert_eq!(node.get("/", &[]).await, Err(Absent::Open));
    relay.set(Mode::Pass);
    node.until("closed").await;
    assert_eq!(node.get_in_time("/").await, Err(Absent::NotFound));
}

#[tokio::test]
async fn a_frozen_server_is_given_up_and_taken_back() {
    let server = RedisServer::start();
    let cfg =
        config::Cache { redis_deadline: Duration::from_millis(20), ..samples::cache(Some(server.url())) };
    let node = Node::with(cfg).await;
    server.pause();
    node.until_refused().await;
    server.resume();
    node.until("closed").await;
    assert_eq!(node.get_in_time("/").await, Err(Absent::NotFound));
}

#[tokio::test]
async fn nonsense_is_an_error_and_never_more() {
    for garbage in [
        b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(),
        b"\0\xff\xfe\r\n\r\n",
        b"$-7\r\n",
        b"*2\r\n:1\r\n:2\r\n",
        b"*1\r\n$1\r\nx\r\n",
        b"*1000000000000\r\n",
        b"$1000000000000\r\n",
        b"|-1\r\n",
        b"%-9\r\n:1\r\n",
        b"+OK\r\n",
    ] {
        let server = RedisServer::start();
        let relay = Relay::start(server.addr());
        let cfg =
            config::Cache { redis_deadline: Duration::from_millis(50), ..samples::cache(Some(relay.url())) };
        let node = Node::with(cfg).await;
        relay.set(Mode::Garbage(garbage));
        node.until_refused().await;
        let gauges = node.redis.gauges();
        assert_eq!(
            gauges.hits + gauges.misses + gauges.damaged.iter().sum::<u64>(),
            0,
            "{:?}",
            garbage.escape_ascii().to_string()
        );
        relay.set(Mode::Pass);
        node.until("closed").await;
        node.put(plain("/", b"1", local()), 0).await;
        assert_eq!(node.get_in_time("/").await.unwrap(), "1");
    }
}

#[tokio::test]
async fn a_full_queue_drops_and_counts_and_large_bodies_stay_out() {
    let server = RedisServer::start();
    let relay = Relay::start(server.addr());
    let cfg =
        config::Cache { redis_queue: 20_000, redis_max_object: 6_000, ..samples::cache(Some(relay.url())) };
    let node = Node::with(cfg).await;
    relay.set(Mode::Stall);
    for nth in 0..10 {
        node.offer(plain(&format!("/{nth}"), &[0; 5_000], local()), 0, TTL);
    }
    let gauges = node.redis.gauges();
    assert!((12_000..=20_000).contains(&gauges.queue_bytes), "{gauges:?}");
    assert_eq!(gauges.dropped_writes, 7, "{gauges:?}");
    node.offer(plain("/large", &[0; 6_001], local()), 0, TTL);
    assert_eq!(node.redis.gauges().dropped_writes, 8);
    relay.set(Mode::Pass);
    node.redis.flush(PATIENCE).await;
    let gauges = node.redis.gauges();
    assert_eq!((gauges.queue_bytes, server.keys().len()), (0, gauges.writes as usize));
    assert_eq!(gauges.writes + gauges.write_errors, 3);
}

#[tokio::test]
async fn a_flush_ends_when_its_time_is_up() {
    let server = RedisServer::start();
    let relay = Relay::start(server.addr());
    let node = Node::start(relay.url()).await;
    relay.set(Mode::Stall);
    node.offer(plain("/", b"1", local()), 0, TTL);
    timeout(PATIENCE, node.redis.flush(Duration::from_millis(10))).await.expect("within its own time");
    assert!(node.redis.gauges().queue_bytes > 0, "still waiting");
}

#[tokio::test]
async fn calls_that_are_given_up_leave_the_connection_in_order() {
    let server = RedisServer::start();
    let relay = Relay::start(server.addr());
    let node = Node::start(relay.url()).await;
    for path in ["/a", "/b"] {
        node.put(plain(path, path.as_bytes(), local()), 0).await;
    }
    relay.set(Mode::Stall);
    // Sent, and then dropped while the answer is outstanding.
    let (key_a, none) = (key("/a"), HeaderMap::new());
    let mut call = Box::pin(node.redis.get(&key_a, &none, PLAIN));
    for _ in 0..10 {
        assert!(poll_once(call.as_mut()).await.is_pending());
        tokio::task::yield_now().await;
    }
    drop(call);
    relay.set(Mode::Pass);
    assert_eq!(node.get("/b", &[]).await.unwrap(), "/b", "not the answer to the call before");
}

#[tokio::test]
async fn an_answer_too_many_never_becomes_anothers_answer() {
    let server = RedisServer::start();
    let relay = Relay::start(server.addr());
    let node = Node::start(relay.url()).await;
    node.put(plain("/", b"hello", local()), 0).await;
    node.redis.purge(key("/purged").url_hash()).await.unwrap();
    for extra in [&b"$-1\r\n"[..], b":0\r\n", b"+OK\r\n", b"$0\r\n\r\n", b":0\r\n$0\r\n\r\n$0\r\n\r\n"] {
        relay.set(Mode::Before(extra));
        // By a call, or by a ping of the keeper.
        for path in ["/purged", "/", "/purged", "/"] {
            let answer = node.redis.get(&key(path), &HeaderMap::new(), PLAIN).await;
            let absent = answer.found.err().unwrap();
            assert!(matches!(absent, Absent::Error | Absent::Open), "{absent:?} {}", extra.escape_ascii());
            assert_eq!(answer.generation, None, "not even a part of it is believed");
        }
        relay.set(Mode::Pass);
        node.until("closed").await;
        assert_eq!(node.get("/", &[]).await.unwrap(), "hello");
    }
    let damaged: u64 = node.redis.gauges().damaged.iter().sum();
    assert_eq!((damaged, server.keys().len()), (0, 2), "what stands in Redis is not blamed");
}

#[tokio::test]
async fn an_answer_that_is_lost_or_late_never_becomes_anothers_answer() {
    let server = RedisServer::start();
    let relay = Relay::start(server.addr());
    let cfg =
        config::Cache { redis_deadline: Duration::from_millis(20), ..samples::cache(Some(relay.url())) };
    let node = Node::with(cfg).await;
    let paths = ["/a", "/b", "/c"];
    for path in paths {
        node.put(plain(path, path.as_bytes(), local()), 0).await;
    }
    for mode in [Mode::Late(Duration::from_millis(30)), Mode::Swallow] {
        // Two deadlines are missed: not enough to give the connection up.
        relay.set(mode);
        for path in ["/a", "/b"] {
            let found = node.get(path, &[]).await;
            assert!(matches!(found, Err(Absent::Deadline | Absent::Open)), "{found:?}");
        }
        relay.set(Mode::Pass);
        for nth in 0..60 {
            let path = paths[nth % 3];
            match node.get(path, &[]).await {
                Ok(body) => assert_eq!(body, path),
                Err(absent) => {
                    assert!(!matches!(absent, Absent::NotFound | Absent::Damaged(_)), "{absent:?}")
                }
            }
        }
        node.until("closed").await;
        assert_eq!(node.get_in_time("/c").await.unwrap(), "/c");
    }
}

#[tokio::test]
async fn calls_under_way_and_given_up_are_bounded() {
    let server = RedisServer::start();
    let relay = Relay::start(server.addr());
    let node = Node::start(relay.url()).await;
    relay.set(Mode::Stall);
    let (key, none) = (key("/"), HeaderMap::new());
    let mut calls: Vec<_> = (0..400).map(|_| Box::pin(node.redis.get(&key, &none, PLAIN))).collect();
    let mut full = 0;
    for call in &mut calls {
        if let Poll::Ready(answer) = poll_once(call.as_mut()).await {
            assert_eq!(answer.found.err(), Some(Absent::Full));
            full += 1;
        }
    }
    assert_eq!(full, 400 - 256);
    drop(calls);
    assert_ne!(node.redis.state(), "closed", "so many given up: the connection is not trusted");
    assert_eq!(node.get("/", &[]).await, Err(Absent::Open));
}

#[tokio::test]
async fn a_handle_that_is_dropped_closes_its_connections() {
    let server = RedisServer::start();
    let clients = || {
        let Reply::Bulk(Some(list)) = server.command(&["CLIENT", "LIST"]) else { panic!() };
        list.iter().filter(|byte| **byte == b'\n').count()
    };
    let node = Node::start(server.url()).await;
    assert_eq!(clients(), 3, "two links, and the one that asks");
    let second = node.redis.clone();
    drop(node);
    assert_eq!(second.state(), "closed", "a clone is enough");
    drop(second);
    let closed = async {
        while clients() > 1 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, closed).await.expect("both links are closed");
}
