//! Larders in front of one origin that share a Redis, whatever that is made of; and clients that go on asking
//! while something is done to it.
//!
//! Knows which answers are right, and where Larder says that they came from. Every request must be answered
//! rightly, whatever happens.
//! Must not know: what a Redis is made of.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::client::{Connection, Response};
use super::{Larder, Origin, PATIENCE, Script, within};

const HOST: (&str, &str) = ("Host", "api.test");
/// Threads of each Larder.
pub const WORKERS: u64 = 2;
/// Clients that ask at once, of each Larder.
const CLIENTS: usize = 2;

/// Larders with nothing in memory but what they have been asked for.
pub struct Tier {
    pub larders: Vec<Larder>,
    pub origin: Origin,
}

impl Tier {
    /// So many Larders; `redis` is what stands in `[cache]`, or after it.
    pub fn start(count: usize, redis: &str) -> Self {
        let tier = Self::start_without(count, redis);
        tier.until_up();
        tier
    }

    /// The same, while there is no such Redis.
    pub fn start_without(count: usize, redis: &str) -> Self {
        let origin = Origin::start(|request| Script::ok(&request.target, &[]));
        let config = configuration(&origin, &format!("redis_deadline = \"500ms\"\n{redis}"), "");
        let larders = (0..count).map(|_| Larder::start(&config)).collect();
        Self { larders, origin }
    }

    /// Waits until every thread of every Larder reaches all of Redis.
    pub fn until_up(&self) {
        let up = |larder: &Larder| larder.stats()["tiers"]["redis"]["up"] == true;
        let all = within(PATIENCE, || self.larders.iter().all(up));
        assert!(all, "{:#}", self.larders[0].stats()["tiers"]);
    }

    /// A request to one of them, whose answer must be whole and right.
    pub fn ask(&self, larder: usize, path: &str) -> Response {
        ask(&mut Connection::open(self.larders[larder].proxy()), path)
    }

    /// Has the first Larder fetch and write so many paths; gives them.
    pub fn fill(&self, name: &str, count: usize) -> Vec<String> {
        let before = self.writes();
        let paths: Vec<String> = (0..count).map(|nth| format!("/{name}/{nth}")).collect();
        for path in &paths {
            self.ask(0, path);
        }
        let written = within(PATIENCE, || self.writes() >= before + count as u64);
        assert!(written, "{:#}", self.larders[0].stats()["tiers"]);
        paths
    }

    /// Another Larder finds all of them in Redis.
    pub fn found(&self, larder: usize, paths: &[String]) {
        for path in paths {
            let response = self.ask(larder, path);
            let status = response.header("cache-status");
            assert!(
                status.starts_with("larder; hit") && status.ends_with("detail=redis"),
                "{path}: {status}"
            );
        }
    }

    /// Clients ask every Larder for old and new paths until `fault` is over; gives how many were answered.
    pub fn under_load(&self, fault: impl FnOnce()) -> usize {
        let (asked, over) = (AtomicUsize::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            for (nth, larder) in self.larders.iter().enumerate() {
                for client in 0..CLIENTS {
                    let (asked, over) = (&asked, &over);
                    scope.spawn(move || {
                        let mut connection = Connection::open(larder.proxy());
                        for step in 0.. {
                            if over.load(Ordering::Acquire) {
                                return;
                            }
                            let path = match step % 4 {
                                0 => format!("/old/{}", step % 40),
                                1 => format!("/new/{}", step % 4000),
                                2 => format!("/query/{nth}/{client}?a={step}"),
                                _ => format!("/cold/{nth}/{client}/{step}"),
                            };
                            ask(&mut connection, &path);
                            if step % 20 == 0 {
                                let response = connection.request("POST", &path, &[HOST], b"{}");
                                assert_eq!((response.status, response.text()), (200, path));
                            }
                            asked.fetch_add(1, Ordering::AcqRel);
                            // Nobody asks without end: the origin notes every request.
                            thread::sleep(std::time::Duration::from_millis(2));
                        }
                    });
                }
            }
            let enough = within(PATIENCE, || asked.load(Ordering::Acquire) > 100);
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                assert!(enough, "the clients are not answered");
                fault();
            }));
            over.store(true, Ordering::Release);
            if let Err(failed) = done {
                std::panic::resume_unwind(failed);
            }
        });
        for larder in &self.larders {
            let stats = larder.stats();
            assert_eq!(stats["failed"], 0, "{stats:#}");
        }
        asked.into_inner()
    }

    fn writes(&self) -> u64 {
        self.larders[0].stats()["tiers"]["redis"]["writes"].as_u64().unwrap()
    }
}

fn ask(connection: &mut Connection, path: &str) -> Response {
    let response = connection.request("GET", path, &[HOST], b"");
    assert_eq!((response.status, response.text()), (200, path.to_owned()));
    assert!(response.complete, "{path}");
    response
}

/// Starts a Larder of a fleet, and waits until it reaches all of Redis and hears what the others say.
pub fn join(config: &str) -> Larder {
    let larder = Larder::start(config);
    let has_joined = || {
        let stats = larder.stats();
        let hears = stats["leases"]["hears"] == true && stats["fleet"]["coherence"] == "ok";
        hears && stats["tiers"]["redis"]["up"] == true
    };
    assert!(within(PATIENCE, has_joined), "{:#}", larder.stats());
    larder
}

/// A configuration in front of `origin`: `cache` stands in `[cache]` or after it, `route` in
/// `[route.cache]` of its only route.
pub fn configuration(origin: &Origin, cache: &str, route: &str) -> String {
    format!(
        r#"
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
workers = {WORKERS}
[cache]
{cache}
[upstream.o]
servers = ["{}"]
[[route]]
name = "all"
match = {{ path = "/*" }}
upstream = "o"
[route.cache]
ttl.default = "10m"
{route}
"#,
        origin.url()
    )
}
