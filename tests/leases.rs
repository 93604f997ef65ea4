//! One fetch for the fleet: what several Larders are asked for at once is fetched by one of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::thread;
use std::time::Duration;

use support::{
    Cluster, Connection, Gate, Larder, Mode, Origin, PATIENCE, RedisServer, Relay, Response, Script, client,
    tier, within,
};

/// What one node stored, the others must find, and their ports differ.
const HOST: (&str, &str) = ("Host", "api.test");
const NODES: usize = 3;

fn config(origin: &Origin, redis: &str, cache: &str, route: &str) -> String {
    tier::configuration(origin, &format!("redis = \"{redis}\"\nredis_deadline = \"2s\"\n{cache}"), route)
}

fn node(origin: &Origin, redis: &str, lease: &str, route: &str) -> Larder {
    node_with(origin, redis, &format!("redis_lease = \"{lease}\""), route)
}

fn node_with(origin: &Origin, redis: &str, cache: &str, route: &str) -> Larder {
    tier::join(&config(origin, redis, cache, route))
}

fn fleet(origin: &Origin, redis: &str, lease: &str, route: &str) -> Vec<Larder> {
    (0..NODES).map(|_| node(origin, redis, lease, route)).collect()
}

fn leases(larder: &Larder, what: &str) -> u64 {
    larder.stats()["leases"][what].as_u64().unwrap()
}

fn sum(nodes: &[Larder], what: &str) -> u64 {
    nodes.iter().map(|node| leases(node, what)).sum()
}

fn purge(node: &Larder, path: &str) {
    let body = format!("{{\"urls\":[\"http://api.test{path}\"],\"wait\":\"5s\"}}");
    let json = [("Content-Type", "application/json")];
    let purged = client::request(node.admin(), "POST", "/purge", &json, body.as_bytes());
    assert_eq!(purged.status, 200, "{}", purged.text());
}

fn served(response: &Response) -> &str {
    response.header("cache-status")
}

/// An origin that holds the first request for each target at a gate.
fn holding(gate: &Gate, answer: impl Fn(&support::Request) -> Script + Send + Sync + 'static) -> Origin {
    let gate = gate.clone();
    Origin::start(move |request| {
        let script = answer(request);
        if request.count == 1 { Script::new().wait(&gate).then(script) } else { script }
    })
}

fn numbered(request: &support::Request) -> Script {
    Script::ok(format!("#{}", request.count), &[("Cache-Control", "max-age=60")])
}

/// Asks every node `each` times at once; `meanwhile` runs while they wait. Gives the answers, those of the first
/// node first.
fn ask_all(nodes: &[Larder], each: usize, path: &str, meanwhile: impl FnOnce()) -> Vec<Response> {
    thread::scope(|scope| {
        let asked: Vec<_> = nodes
            .iter()
            .flat_map(|node| (0..each).map(move |_| node))
            .map(|node| scope.spawn(move || node.get(path, &[HOST])))
            .collect();
        meanwhile();
        asked.into_iter().map(|asking| asking.join().unwrap()).collect()
    })
}

/// Issue's fourth scene, the first half.
#[test]
fn three_hundred_at_once_over_three_nodes_are_one_fetch() {
    support::allow_many_files();
    let (redis, gate) = (RedisServer::start(), Gate::new());
    let origin = holding(&gate, numbered);
    let nodes = fleet(&origin, &redis.url(), "3s", "");
    let answers = ask_all(&nodes, 100, "/cold", || {
        assert!(within(PATIENCE, || sum(&nodes, "waiting") == 2), "one fetches, and the others wait for it");
        assert_eq!((sum(&nodes, "held"), origin.count("/cold")), (1, 1));
        gate.open();
    });
    assert_eq!(answers.len(), 300);
    for answer in &answers {
        assert_eq!((answer.status, answer.text()), (200, "#1".to_owned()), "{}", served(answer));
    }
    assert_eq!(origin.count("/cold"), 1);
    // Of those who waited, one on each node tells for how long.
    let waited = |answer: &&Response| answer.header("server-timing").contains("lease;dur=");
    assert_eq!(answers.iter().filter(waited).count(), 2);
    for (what, count) in
        [("taken", 1), ("waited", 2), ("stored", 2), ("not_stored", 0), ("expired", 0), ("alone", 0)]
    {
        assert_eq!(sum(&nodes, what), count, "{what}");
    }
    assert!(within(PATIENCE, || sum(&nodes, "held") == 0));
    let metrics: Vec<Option<f64>> =
        nodes.iter().map(|node| node.metric("larder_leases_total{result=\"taken\"}")).collect();
    assert_eq!(metrics.into_iter().map(Option::unwrap).sum::<f64>(), 1.0);
}

/// The second half: clients of the node that was killed ask another, as they would through a balancer.
#[test]
fn a_holder_that_is_killed_costs_one_more_fetch_and_everybody_is_answered() {
    support::allow_many_files();
    let (redis, gate) = (RedisServer::start(), Gate::new());
    let origin = holding(&gate, numbered);
    let mut nodes = fleet(&origin, &redis.url(), "1s", "");
    let addresses: Vec<_> = nodes.iter().map(Larder::proxy).collect();
    let answers: Vec<String> = thread::scope(|scope| {
        let asked: Vec<_> = (0..300)
            .map(|nth| {
                let addresses = &addresses;
                scope.spawn(move || {
                    let ask = |turn: usize| {
                        let mut connection = Connection::try_open(addresses[(nth + turn) % NODES])?;
                        connection.write_head("GET", "/cold", &[HOST]);
                        connection.try_response("GET")
                    };
                    let answer = (0..NODES).find_map(|turn| ask(turn).ok()).expect("one node answers");
                    assert!(answer.complete);
                    answer.text()
                })
            })
            .collect();
        assert!(within(PATIENCE, || sum(&nodes, "waiting") == 2 && origin.count("/cold") == 1));
        let holder = nodes.iter().position(|node| leases(node, "held") == 1).unwrap();
        nodes[holder].kill9();
        asked.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    assert_eq!(answers.len(), 300);
    assert!(answers.iter().all(|answer| answer == "#2"), "{answers:?}");
    assert_eq!(origin.count("/cold"), 2);
    gate.open();
}

/// Nobody but its owner gets what cannot be stored, and all others are let go at once.
#[test]
fn what_cannot_be_stored_lets_all_go_and_is_for_its_owner_alone() {
    let (redis, gate) = (RedisServer::start(), Gate::new());
    let origin = holding(&gate, |request| {
        Script::ok(format!("#{}", request.count), &[("Cache-Control", "private, max-age=60")])
    });
    let nodes = fleet(&origin, &redis.url(), "30s", "");
    let answers = ask_all(&nodes, 5, "/mine", || {
        assert!(within(PATIENCE, || sum(&nodes, "waiting") == 2));
        gate.open();
    });
    let mut seen: Vec<String> = answers.iter().map(Response::text).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 15, "each its own: {seen:?}");
    assert_eq!((origin.count("/mine"), sum(&nodes, "not_stored"), sum(&nodes, "expired")), (15, 2, 0));
    // It is known by now, so nobody asks for a lease.
    let taken = sum(&nodes, "taken");
    ask_all(&nodes, 1, "/mine", || {});
    assert_eq!(sum(&nodes, "taken"), taken);
}

/// Too large for Redis: known by its head, or only by its length.
#[test]
fn what_is_too_large_for_redis_lets_all_go_at_once() {
    for declared in [true, false] {
        let (redis, gate, end) = (RedisServer::start(), Gate::new(), Gate::new());
        let held = end.clone();
        let origin = holding(&gate, move |request| {
            let half = "x".repeat(900 << 10);
            let fields = [("Cache-Control", "max-age=60")];
            let script = match declared {
                true => Script::new()
                    .head(200, &[fields[0], ("Content-Length", &(2 * half.len()).to_string())])
                    .bytes(&half),
                false => Script::chunked(&fields).chunk(&half).chunk(&half),
            };
            // The first one's end comes only when the others have been answered.
            let script = if request.count == 1 { script.wait(&held) } else { script };
            if declared { script.bytes(&half) } else { script.last_chunk() }
        });
        let nodes = fleet(&origin, &redis.url(), "30s", "");
        thread::scope(|scope| {
            let first = scope.spawn(|| nodes[0].get("/large", &[HOST]));
            assert!(within(PATIENCE, || leases(&nodes[0], "held") == 1));
            let others: Vec<_> =
                nodes[1..].iter().map(|node| scope.spawn(move || node.get("/large", &[HOST]))).collect();
            assert!(within(PATIENCE, || sum(&nodes, "waiting") == 2));
            gate.open();
            others.into_iter().for_each(|other| assert_eq!(other.join().unwrap().body.len(), 1_800 << 10));
            end.open();
            assert!(first.join().unwrap().complete);
        });
        assert_eq!((sum(&nodes, "not_stored"), origin.count("/large")), (2, 3), "declared: {declared}");
    }
}

/// An origin that fails the holder is asked by the others for themselves; nobody waits for the lease's time.
#[test]
fn a_fetch_that_fails_lets_all_go() {
    let (redis, gate) = (RedisServer::start(), Gate::new());
    let held = gate.clone();
    let origin = Origin::start(move |request| match request.count {
        1 => Script::new().wait(&held).reset(),
        _ => numbered(request),
    });
    let nodes = fleet(&origin, &redis.url(), "30s", "");
    let mut answers = ask_all(&nodes, 1, "/x", || {
        assert!(within(PATIENCE, || sum(&nodes, "waiting") == 2));
        gate.open();
    });
    answers.retain(|answer| answer.status == 200);
    assert!(answers.len() >= 2, "all but the holder's own, at most");
    assert_eq!(sum(&nodes, "expired"), 0);
}

/// With Redis frozen in the middle of a wait, nobody waits for a word that cannot come.
#[test]
fn with_redis_frozen_in_the_middle_of_a_wait_each_node_fetches_for_itself() {
    let (redis, gate) = (RedisServer::start(), Gate::new());
    let origin = holding(&gate, numbered);
    let nodes = fleet(&origin, &redis.url(), "30s", "");
    let answers = ask_all(&nodes, 10, "/cold", || {
        assert!(within(PATIENCE, || sum(&nodes, "waiting") == 2));
        redis.pause();
        // The first one is still held: only the others' own fetches can answer them.
        assert!(within(PATIENCE, || origin.count("/cold") == 3), "{}", origin.count("/cold"));
        gate.open();
    });
    redis.resume();
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!((sum(&nodes, "alone"), origin.count("/cold")), (2, 3));
}

/// A node that is cut off, or whose Redis is down, fetches for itself at once.
#[test]
fn without_redis_each_node_fetches_once_and_waits_for_nobody() {
    let (mut redis, gate) = (RedisServer::start(), Gate::new());
    let relay = Relay::start(redis.addr());
    let origin = holding(&gate, numbered);
    let (a, b) = (node(&origin, &redis.url(), "30s", ""), node(&origin, &relay.url(), "30s", ""));
    thread::scope(|scope| {
        let first = scope.spawn(|| a.get("/x", &[HOST]));
        assert!(within(PATIENCE, || leases(&a, "held") == 1));
        relay.set(Mode::Stall);
        assert!(within(PATIENCE, || b.stats()["tiers"]["redis"]["up"] == false));
        assert_eq!(b.get("/x", &[HOST]).text(), "#2");
        assert_eq!(leases(&b, "waited"), 0);
        gate.open();
        assert_eq!(first.join().unwrap().text(), "#1");
    });
    redis.stop();
    assert!(within(PATIENCE, || a.stats()["tiers"]["redis"]["up"] == false));
    let nodes = [a, b];
    let answers = ask_all(&nodes, 20, "/y", || {});
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(origin.count("/y"), 2, "one for each node");
}

#[test]
fn a_route_may_have_each_node_fetch_for_itself() {
    let (redis, gate) = (RedisServer::start(), Gate::new());
    let origin = Origin::start({
        let gate = gate.clone();
        move |request| Script::new().wait(&gate).then(numbered(request))
    });
    let nodes = fleet(&origin, &redis.url(), "3s", "fleet_collapse = false");
    let answers = ask_all(&nodes, 10, "/cold", || {
        assert!(within(PATIENCE, || origin.count("/cold") == NODES));
        gate.open();
    });
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!((origin.count("/cold"), sum(&nodes, "taken"), sum(&nodes, "waited")), (NODES, 0, 0));
    assert!(
        redis.keys().iter().all(|key| !key.contains(":l:") && !key.contains(":w:")),
        "{:?}",
        redis.keys()
    );
}

/// Who waits looks by their own request: another variant is fetched on its own account.
#[test]
fn who_asks_for_another_variant_fetches_it() {
    let (redis, gate) = (RedisServer::start(), Gate::new());
    let origin = holding(&gate, |request| {
        let language = request.header("accept-language").to_owned();
        Script::ok(language, &[("Cache-Control", "max-age=60"), ("Vary", "Accept-Language")])
    });
    let nodes = fleet(&origin, &redis.url(), "30s", "");
    thread::scope(|scope| {
        let asked: Vec<_> = nodes
            .iter()
            .zip(["de", "de", "fr"])
            .map(|(node, language)| {
                let ask = move || node.get("/v", &[HOST, ("Accept-Language", language)]).text();
                let asking = scope.spawn(ask);
                // In this order.
                assert!(within(PATIENCE, || sum(&nodes, "held") + sum(&nodes, "waiting") > 0));
                (asking, language)
            })
            .collect();
        assert!(within(PATIENCE, || sum(&nodes, "waiting") == 2));
        gate.open();
        for (asking, language) in asked {
            assert_eq!(asking.join().unwrap(), language);
        }
    });
    assert_eq!((origin.count("/v"), sum(&nodes, "expired")), (2, 0), "each variant once");
}

/// What was fetched before a purge is not served to who asked after it, also where they have waited for it.
#[test]
fn who_asks_after_a_purge_does_not_get_what_another_node_began_to_fetch_before() {
    for purge in ["{\"urls\":[\"http://api.test/x\"],\"wait\":\"5s\"}", "{\"tags\":[\"t\"],\"wait\":\"5s\"}"]
    {
        let (redis, gate) = (RedisServer::start(), Gate::new());
        let origin = holding(&gate, |request| {
            let fields = [("Cache-Control", "max-age=60"), ("Surrogate-Key", "t")];
            Script::ok(format!("#{}", request.count), &fields)
        });
        let nodes = fleet(&origin, &redis.url(), "30s", "");
        thread::scope(|scope| {
            let first = scope.spawn(|| nodes[0].get("/x", &[HOST]));
            assert!(within(PATIENCE, || leases(&nodes[0], "held") == 1));
            let json = [("Content-Type", "application/json")];
            let purged = client::request(nodes[1].admin(), "POST", "/purge", &json, purge.as_bytes());
            assert_eq!(purged.status, 200, "{}", purged.text());
            let others: Vec<_> =
                nodes[1..].iter().map(|node| scope.spawn(|| node.get("/x", &[HOST]))).collect();
            assert!(within(PATIENCE, || sum(&nodes, "waiting") == 2));
            gate.open();
            assert_eq!(first.join().unwrap().text(), "#1", "who asked before it");
            for other in others {
                assert_eq!(other.join().unwrap().text(), "#2", "{purge}");
            }
        });
        assert_eq!(origin.count("/x"), 2, "one for all who came after it");
    }
}

/// Ten clients wait on a node for another's fetch, which cannot be stored: what is then fetched here is asked for
/// after a purge that came meanwhile, so it is as good for all of them.
#[test]
fn a_purge_while_a_node_waits_for_another_makes_its_own_fetch_void_for_nobody() {
    let (redis, gate) = (RedisServer::start(), Gate::new());
    let origin = holding(&gate, |request| match request.count {
        1 => Script::ok("#1", &[("Cache-Control", "private")]),
        _ => numbered(request),
    });
    let (a, b) = (node(&origin, &redis.url(), "30s", ""), node(&origin, &redis.url(), "30s", ""));
    thread::scope(|scope| {
        let first = scope.spawn(|| a.get("/x", &[HOST]));
        assert!(within(PATIENCE, || leases(&a, "held") == 1));
        let others: Vec<_> = (0..10).map(|_| scope.spawn(|| b.get("/x", &[HOST]))).collect();
        assert!(within(PATIENCE, || leases(&b, "waiting") == 1 && b.stats()["active"] == 10));
        purge(&b, "/x");
        gate.open();
        assert_eq!(first.join().unwrap().text(), "#1");
        others.into_iter().for_each(|other| assert_eq!(other.join().unwrap().text(), "#2"));
    });
    assert_eq!((origin.count("/x"), leases(&b, "not_stored")), (2, 1));
}

/// What a node holds and would have confirmed is purged while it waits for another's fetch: a 304 must not bring it
/// back.
#[test]
fn what_is_purged_while_a_node_waits_for_another_is_not_confirmed_afterwards() {
    let (redis, gate) = (RedisServer::start(), Gate::new());
    let held = gate.clone();
    let origin = Origin::start(move |request| {
        let number = request.count;
        let fields = |age| [("Cache-Control", age), ("ETag", "\"e\"")];
        match number {
            1 => Script::ok("#1", &fields("max-age=1")),
            2 => Script::new().wait(&held).then_ok("#2", &fields("max-age=60")),
            _ if request.header("if-none-match") == "\"e\"" => {
                Script::respond(304, &fields("max-age=60"), "")
            }
            _ => Script::ok(format!("#{number}"), &fields("max-age=60")),
        }
    });
    let (a, b) = (node(&origin, &redis.url(), "30s", ""), node(&origin, &redis.url(), "30s", ""));
    assert_eq!(a.get("/x", &[HOST]).text(), "#1");
    assert!(within(PATIENCE, || a.stats()["tiers"]["redis"]["writes"] == 1));
    assert_eq!(b.get("/x", &[HOST]).text(), "#1");
    thread::scope(|scope| {
        let first = scope.spawn(|| {
            loop {
                let answer = a.get("/x", &[HOST]).text();
                if answer != "#1" {
                    return answer;
                }
            }
        });
        assert!(within(PATIENCE, || leases(&a, "held") == 1 && origin.count("/x") == 2));
        let other = scope.spawn(|| b.get("/x", &[HOST]));
        assert!(within(PATIENCE, || leases(&b, "waiting") == 1));
        purge(&b, "/x");
        gate.open();
        assert_eq!(first.join().unwrap(), "#2");
        assert_eq!(other.join().unwrap().text(), "#3");
    });
    assert_eq!(origin.last().header("if-none-match"), "");
    assert_eq!(b.get("/x", &[HOST]).text(), "#3");
}

/// Stale in grace on all nodes: one refreshes, and all have what it brought.
#[test]
fn a_refresh_is_done_by_one_node() {
    let (redis, gate) = (RedisServer::start(), Gate::new());
    let held = gate.clone();
    let origin = Origin::start(move |request| {
        let fields = [("Cache-Control", "max-age=1, stale-while-revalidate=600")];
        let fresh = [("Cache-Control", "max-age=600")];
        match request.count {
            1 => Script::ok("#1", &fields),
            number => Script::new().wait(&held).then_ok(format!("#{number}"), &fresh),
        }
    });
    let nodes = fleet(&origin, &redis.url(), "30s", "");
    for node in &nodes {
        assert!(within(PATIENCE, || node.get("/x", &[HOST]).text() == "#1" && origin.count("/x") == 1));
        assert!(within(PATIENCE, || nodes[0].stats()["tiers"]["redis"]["writes"] == 1));
    }
    // Until it is stale: the first who is served so begins a refresh.
    let stale =
        |node: &Larder| served(&node.get("/x", &[HOST])).contains("fwd=stale") || origin.count("/x") == 2;
    assert!(within(PATIENCE, || nodes.iter().all(stale)));
    assert!(within(PATIENCE, || {
        nodes.iter().for_each(|node| assert_eq!(node.get("/x", &[HOST]).text(), "#1"));
        sum(&nodes, "waiting") == 2
    }));
    assert_eq!(origin.count("/x"), 2);
    gate.open();
    for node in &nodes {
        assert!(
            within(PATIENCE, || node.get("/x", &[HOST]).text() == "#2"),
            "{}",
            node.get("/x", &[HOST]).text()
        );
    }
    assert_eq!(origin.count("/x"), 2);
}

/// A refresh that failed is not tried again by any node while the origin wants to be left alone, and what is
/// stale is served on.
#[test]
fn a_refresh_that_failed_backs_off_for_the_fleet() {
    for (status, retry_after) in [(503, "30"), (429, "Fri, 31 Dec 2100 23:59:59 GMT")] {
        let redis = RedisServer::start();
        let origin = Origin::start(move |request| match request.count {
            1 => Script::ok("#1", &[("Cache-Control", "max-age=1, stale-while-revalidate=600")]),
            _ => Script::respond(status, &[("Retry-After", retry_after)], "no"),
        });
        let nodes = fleet(&origin, &redis.url(), "1s", "");
        for node in &nodes {
            assert_eq!(node.get("/x", &[HOST]).text(), "#1");
            assert!(within(PATIENCE, || nodes[0].stats()["tiers"]["redis"]["writes"] == 1));
        }
        let mark = || redis.keys().into_iter().find(|key| key.ends_with(":b"));
        let asked = || {
            nodes.iter().for_each(|node| assert_eq!(node.get("/x", &[HOST]).text(), "#1"));
            mark().is_some()
        };
        assert!(within(PATIENCE, asked), "{:?}", redis.keys());
        let left = redis.command(&["PTTL", &mark().unwrap()]).int();
        let most = if status == 503 { 30_000 } else { 60_000 };
        assert!((most - 10_000..=most).contains(&left), "{status}: {left}");
        let before = origin.count("/x");
        // More than a lease's time and the usual rest.
        let taken = sum(&nodes, "taken");
        let until = redis.command(&["PTTL", &mark().unwrap()]).int() - 2_500;
        assert!(within(PATIENCE, || {
            nodes.iter().for_each(|node| assert_eq!(node.get("/x", &[HOST]).text(), "#1"));
            redis.command(&["PTTL", &mark().unwrap()]).int() < until
        }));
        assert_eq!((origin.count("/x"), sum(&nodes, "taken")), (before, taken), "{status}");
        assert_eq!(before, 2, "one node has asked");
    }
}

/// While refreshes rest for the fleet, a client of a node that has had none of that itself, and that may not be given
/// what is stale, is not kept waiting for a refresh that will not come.
#[test]
fn a_refresh_that_rests_lets_go_who_may_not_have_what_is_stale() {
    let redis = RedisServer::start();
    let origin = Origin::start(|request| match request.count {
        1 => Script::ok("#1", &[("Cache-Control", "max-age=1, stale-while-revalidate=600")]),
        2 => Script::respond(503, &[("Retry-After", "60")], "no"),
        _ => numbered(request),
    });
    let (a, b) = (node(&origin, &redis.url(), "30s", ""), node(&origin, &redis.url(), "30s", ""));
    assert_eq!(a.get("/x", &[HOST]).text(), "#1");
    assert!(within(PATIENCE, || a.stats()["tiers"]["redis"]["writes"] == 1));
    assert_eq!(b.get("/x", &[HOST]).text(), "#1");
    let key = |end: &str| redis.keys().into_iter().find(|key| key.ends_with(end));
    assert!(within(PATIENCE, || {
        assert_eq!(a.get("/x", &[HOST]).text(), "#1");
        key(":b").is_some()
    }));
    // As one that is full may: so what the refresh finds there is nothing to tell anybody.
    assert_eq!(redis.command(&["DEL", &key("}:-").unwrap()]).int(), 1);
    let stale = b.get("/x", &[HOST]);
    assert!(stale.text() == "#1" && served(&stale).contains("ttl=-"), "{}", served(&stale));
    assert_eq!(b.get("/x", &[HOST, ("Cache-Control", "no-cache")]).text(), "#3");
    assert_eq!(b.get("/x", &[HOST]).text(), "#1", "the others have what is stale");
    assert!(key(":b").is_some());
}

/// In a cluster a lease stands with its record and inboxes elsewhere: the same.
#[test]
fn in_a_cluster_one_node_fetches_as_well() {
    let (cluster, gate) = (Cluster::start(), Gate::new());
    let origin = holding(&gate, numbered);
    let nodes = fleet(&origin, &cluster.url(), "30s", "");
    let paths: Vec<String> = (0..6).map(|nth| format!("/{nth}")).collect();
    thread::scope(|scope| {
        let nodes = &nodes;
        let asked: Vec<_> = paths
            .iter()
            .flat_map(|path| nodes.iter().map(move |node| (node, path)))
            .map(|(node, path)| scope.spawn(move || node.get(path, &[HOST]).text()))
            .collect();
        assert!(within(PATIENCE, || sum(nodes, "waiting") == 12), "{}", sum(nodes, "waiting"));
        gate.open();
        asked.into_iter().for_each(|asking| assert_eq!(asking.join().unwrap(), "#1"));
    });
    assert!(paths.iter().all(|path| origin.count(path) == 1));
    assert_eq!((sum(&nodes, "stored"), sum(&nodes, "expired")), (12, 0));
}

/// With keys hashed by a secret: the same, and every key of a lease expires.
#[test]
fn with_a_secret_it_is_the_same_and_every_key_of_a_lease_expires() {
    let (redis, gate) = (RedisServer::start(), Gate::new());
    let origin = holding(&gate, numbered);
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("redis.secret");
    std::fs::write(&secret, "0123456789abcdef".repeat(4)).unwrap();
    let cache = format!("redis_lease = \"30s\"\nredis_secret_file = \"{}\"", secret.display());
    let nodes: Vec<Larder> = (0..NODES).map(|_| node_with(&origin, &redis.url(), &cache, "")).collect();
    thread::scope(|scope| {
        let asked: Vec<_> = nodes.iter().map(|node| scope.spawn(|| node.get("/x", &[HOST]))).collect();
        assert!(within(PATIENCE, || sum(&nodes, "waiting") == 2));
        for key in redis.keys() {
            assert!(redis.command(&["PTTL", &key]).int() > 0, "{key} never expires");
        }
        let audit = redis.keys();
        assert!(audit.iter().any(|key| key.contains(":l:")) && audit.iter().any(|key| key.contains(":w:")));
        gate.open();
        asked.into_iter().for_each(|asking| assert_eq!(asking.join().unwrap().text(), "#1"));
    });
    assert_eq!(origin.count("/x"), 1);
    let left = || redis.keys().into_iter().filter(|key| key.contains(":l:") || key.contains(":w:")).count();
    assert!(within(Duration::from_secs(5), || left() == 0), "{:?}", redis.keys());
}
