//! Forgetting, against real tiers.

use std::pin::pin;
use std::sync::Barrier;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use super::*;
use crate::flight::{FlightKey, Seat};
use crate::store::redis_server::RedisServer;
use crate::store::{Class, Hot};
use crate::stored::samples::{key, plain, stored};
use crate::stored::{Born, StoredResponse};

/// A worker as the server makes one; `cache` is added to its `[cache]`, `route` to `[route.cache]`.
pub(crate) async fn worker(cache: &str, route: &str) -> Worker {
    let text = format!(
        "listen = \"127.0.0.1:0\"\n[cache]\n{cache}\n[upstream.o]\nservers = [\"http://127.0.0.1:1\"]\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"o\"\n[route.cache]\n{route}\n"
    );
    let config = Config::parse(&text, "proxy.toml", &|_| None).unwrap();
    let clock = Clock::system();
    let (purges, reach) = (Arc::new(Purges::new(crate::store::PURGES)), Arc::default());
    let redis = Redis::start(&config.cache, clock.clone(), Arc::clone(&purges), &reach).await;
    let shared = Shared {
        hot: Hot::new(0),
        warming: Warming::new(true),
        coherence: None,
        fleet: Membership::default(),
        leases: std::sync::OnceLock::new(),
        memory: Memory::new(&config.cache),
        purges,
        flights: Flights::new(),
        searches: Searches::default(),
        access: None,
        spans: None,
        slow: crate::telemetry::SlowRequests::default(),
        receipts: crate::worker::Receipts::default(),
        pseudonym: "larder-test".into(),
        via: None,
        interim: Arc::default(),
        cuts: Arc::default(),
        proxy_headers: ProxyHeaders::default(),
        heads: Heads::default(),
        tunnels: Arc::default(),
        hints: Hints::default(),
        tunnels_held: Arc::default(),
        connections: AtomicU64::new(0),
        draining: AtomicBool::new(false),
        started: clock.mono(),
        started_at: clock.now(),
        tiers: Mutex::default(),
        reach,
        press: Press::new(1),
        doubts: Doubts::default(),
        reloads: Reloads::new(None),
        runtimes: Mutex::default(),
        snapshot: ArcSwap::from_pointee(Snapshot {
            metrics: Metrics::new(&["all".to_owned()], 1),
            upstreams: Vec::new(),
            rates: Vec::new(),
            withheld: Vec::new(),
            config,
        }),
        clock,
    };
    Worker { index: 0, shared: Arc::new(shared), redis, sampled: AtomicU64::new(0) }
}

fn with_redis(server: &RedisServer) -> String {
    format!("redis = \"{}\"\nredis_deadline = \"5s\"", server.url())
}

impl Worker {
    async fn forget_path(&self, path: &str) -> Forgotten {
        let snapshot = self.shared.snapshot.load_full();
        self.forget(&snapshot, &format!("http://test{path}")).unwrap().await
    }

    fn keep(&self, response: &Arc<StoredResponse>) -> bool {
        self.shared.memory.keep(Arc::clone(response), Class::Plain, &self.shared.purges)
    }

    /// Whether a request would be given this response.
    fn gives(&self, response: &Arc<StoredResponse>) -> bool {
        self.shared.memory.holds(response) && !self.shared.purges.is_purged(response)
    }

    fn notes(&self) -> usize {
        self.shared.purges.notes()
    }

    fn born(&self) -> Born {
        Born::Here(self.shared.purges.seq())
    }

    fn fly(&self, path: &str, lane: u64) -> crate::flight::Owner<Landing> {
        match self.shared.flights.join(FlightKey { key: key(path).hash(), lane }) {
            Seat::Owner(owner) => owner,
            Seat::Guest(_) => panic!("it flies already"),
        }
    }
}

#[tokio::test]
async fn a_thousand_urls_that_were_never_cached_leave_no_note_and_keys_of_minutes() {
    let server = RedisServer::start();
    let worker = worker(&with_redis(&server), "").await;
    let kept = plain("/kept", b"kept", worker.born());
    worker.keep(&kept);
    for nth in 0..1_000 {
        let forgotten = worker.forget_path(&format!("/{nth}")).await;
        assert!(forgotten.redis.is_some_and(|told| told.is_ok()));
        assert_eq!(worker.notes(), 0);
    }
    assert!(worker.gives(&kept));
    let keys = server.keys();
    // For each the URL's marker, and the path's.
    assert_eq!(keys.len(), 2_000);
    for key in keys.iter().step_by(50) {
        let left = server.command(&["PTTL", key]).int();
        let marker = key.ends_with(":g") || key.contains(":G:");
        assert!(marker && (1..=600_000).contains(&left), "{key}: {left}");
    }
}

#[tokio::test]
async fn what_memory_holds_is_forgotten_without_a_note() {
    let worker = worker("", "").await;
    let old = plain("/", b"old", worker.born());
    worker.keep(&old);
    assert!(worker.gives(&old));
    let forgotten = worker.forget_path("/").await;
    assert_eq!((forgotten.key.url(), forgotten.redis), ("http://test/", None));
    assert!(!worker.gives(&old) && !worker.shared.memory.holds(&old));
    assert_eq!(worker.notes(), 0);
    assert!(worker.forget(&worker.shared.snapshot.load_full(), "/no-host").is_none());
}

#[tokio::test]
async fn a_fetch_in_flight_keeps_the_note_and_what_it_brings_is_not_kept() {
    let server = RedisServer::start();
    let worker = worker(&with_redis(&server), "").await;
    for lane in [0, 1, 1 << 63] {
        let seat = worker.fly("/", lane);
        let old = plain("/", b"old", worker.born());
        worker.forget_path("/").await;
        assert_eq!(worker.notes(), 1, "lane {lane}");
        assert!(!worker.keep(&old), "lane {lane}");
        drop(seat);
        // The next one has nothing to fear any more, and takes both notes back.
        worker.forget_path("/").await;
        assert_eq!(worker.notes(), 0, "lane {lane}");
    }
    let _another = worker.fly("/other", 0);
    worker.forget_path("/").await;
    assert_eq!(worker.notes(), 0, "another key's flight");
}

#[tokio::test]
async fn where_request_fields_are_part_of_the_key_the_note_stays() {
    let worker = worker("", "key.headers = [\"X-Tenant\"]").await;
    let extras = CacheKey::from_parts(key("/").url(), "h:x-tenant=a;");
    let old = stored(&extras, &[], &[("cache-control", "max-age=60")], b"old", worker.born());
    worker.keep(&old);
    worker.forget_path("/").await;
    assert!(!worker.gives(&old));
    assert_eq!(worker.notes(), 1);
}

#[tokio::test]
async fn while_redis_does_not_take_the_purge_the_note_stays() {
    let mut server = RedisServer::start();
    let worker = worker(&with_redis(&server), "").await;
    server.stop();
    let forgotten = worker.forget_path("/").await;
    assert!(matches!(forgotten.redis, Some(Err(_))), "{forgotten:?}");
    assert_eq!(worker.notes(), 2, "the URL's, and the path's");
}

#[tokio::test]
async fn whoever_does_not_wait_has_it_forgotten_all_the_same() {
    let server = RedisServer::start();
    let worker = worker(&with_redis(&server), "").await;
    let old = plain("/", b"old", worker.born());
    worker.keep(&old);
    drop(worker.forget(&worker.shared.snapshot.load_full(), "http://test/"));
    assert!(!worker.gives(&old));
    assert_eq!(worker.notes(), 2);
    worker.redis.as_ref().unwrap().flush(Duration::from_secs(20)).await;
    assert_eq!(server.keys().len(), 2, "the markers");
}

#[tokio::test]
async fn where_no_rule_for_queries_is_listened_to_a_path_needs_no_marker() {
    let server = RedisServer::start();
    let worker = worker(&with_redis(&server), "no_vary_search = false").await;
    worker.forget_path("/").await;
    assert_eq!((server.keys().len(), worker.notes()), (1, 0));
}

#[tokio::test]
async fn a_path_with_a_rule_keeps_its_note() {
    let worker = worker("", "").await;
    let headers = [("cache-control", "max-age=60"), ("no-vary-search", "params")];
    let old = stored(&key("/"), &[], &headers, b"old", worker.born());
    let rule = old.facts.no_vary_search.clone().unwrap();
    let searched = key("/").searched(&rule);
    worker.shared.searches.learn(crate::stored::Group::of_path(&searched), &rule);
    let old = stored(&searched, &[], &headers, b"old", worker.born());
    assert!(worker.keep(&old) && worker.gives(&old));
    worker.forget_path("/").await;
    assert!(!worker.gives(&old));
    assert_eq!(worker.notes(), 2, "the path's, and the URL's: a fetch for both keeps as of either");
}

#[tokio::test]
async fn a_path_whose_rule_was_given_up_for_another_s_keeps_its_notes_too() {
    let worker = worker("", "").await;
    let headers = [("cache-control", "max-age=60"), ("no-vary-search", "params")];
    let rule = stored(&key("/"), &[], &headers, b"", worker.born()).facts.no_vary_search.clone().unwrap();
    let of = |path: &str| crate::stored::Group::of_path(&key(path));
    worker.shared.searches.learn(of("/"), &rule);
    let old = stored(&key("/").searched(&rule), &[], &headers, b"old", worker.born());
    assert!(worker.keep(&old));
    let mut others = (0..100_000).map(|nth| format!("/{nth}"));
    assert!(others.any(|other| {
        worker.shared.searches.learn(of(&other), &rule);
        worker.shared.searches.rule(of("/")).is_none()
    }));
    worker.forget_path("/").await;
    assert_eq!(worker.notes(), 2);
    worker.shared.searches.learn(of("/"), &rule);
    assert!(!worker.gives(&old), "what the rule leads to again was purged meanwhile");
}

#[tokio::test]
async fn a_racing_fetch_never_brings_back_what_was_before_the_write() {
    let worker = worker("", "").await;
    let snapshot = worker.shared.snapshot.load_full();
    for round in 0..500 {
        let path = format!("/{round}");
        let url = format!("http://test{path}");
        let (written, start) = (AtomicBool::new(false), Barrier::new(2));
        let fetched = thread::scope(|scope| {
            let fetch = scope.spawn(|| {
                start.wait();
                let _seat = worker.fly(&path, 0);
                let born = worker.born();
                let new = written.load(Ordering::SeqCst);
                let response = plain(&path, b"x", born);
                worker.keep(&response);
                (response, new)
            });
            start.wait();
            written.store(true, Ordering::SeqCst);
            let forgetting = pin!(worker.forget(&snapshot, &url).unwrap());
            let done = forgetting.poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(done, Poll::Ready(_)), "nothing to wait for without Redis");
            fetch.join().unwrap()
        });
        assert!(fetched.1 || !worker.gives(&fetched.0), "round {round}: it came back");
    }
}

/// What is read unasked is read under a seat on its flight, as a fill's is: a purge that another node marked in Redis
/// comes between the reading and the keeping, and finds its note left.
#[tokio::test]
async fn what_is_purged_while_it_is_read_for_a_warm_start_is_not_kept() {
    let server = RedisServer::start();
    let worker = worker(&with_redis(&server), "ttl.default = \"1h\"").await;
    let redis = worker.redis.clone().unwrap();
    let now = worker.now();
    let fresh = |path: &str| {
        let old = plain(path, b"kept", worker.born());
        let mut headers = old.headers.to_map();
        headers.insert(http::header::DATE, crate::fields::date::to_value(now));
        let facts = crate::rules::ResponseFacts::of(200, &headers, now, now);
        Arc::new(old.freshened(&headers, facts, old.selecting.clone(), Arc::clone(&old.standing)))
    };
    let (one, other) = (fresh("/one"), fresh("/other"));
    for response in [&one, &other] {
        let generation =
            redis.get(&response.key, &http::HeaderMap::new(), Default::default()).await.generation.unwrap();
        redis.put(Arc::clone(response), generation, Duration::from_secs(60), Default::default());
    }
    redis.flush(Duration::from_secs(5)).await;
    let names = [&one, &other].map(|response| crate::store::Name::of(response, 1).unwrap());
    let snapshot = worker.shared.snapshot.load_full();
    server.pause();
    let (mut room, mut reading) = (u64::MAX, None);
    let read = worker.read(&redis, &snapshot, &names, &mut room);
    let meanwhile = async {
        while !worker.shared.flights.any(one.key.hash()) {
            tokio::task::yield_now().await;
        }
        // As `hear` does, once Redis has the marker.
        let purge =
            crate::stored::Purge { scope: crate::stored::Scope::Url("http://test/one".into()), soft: false };
        worker.hear(&purge, crate::stored::Position { run: 1, n: 1 }, true);
        reading = Some(worker.notes());
        server.resume();
    };
    let (read, ()) = tokio::join!(read, meanwhile);
    assert_eq!((read, reading), (Ok(()), Some(1)));
    let held = |response: &StoredResponse| {
        worker.shared.memory.peek(&response.key).is_some_and(|held| !held.variants.is_empty())
    };
    let gauges = worker.shared.warming.gauges();
    assert_eq!((held(&one), held(&other)), (false, true), "{gauges:?} {:?}", server.keys());
    assert!(worker.shared.flights.is_empty(), "the seats are given up");
}
