//! How often a client may ask: who is counted as one, what too many are told, and what a reload keeps.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use support::front::{HIT, HOST, STORED, told};
use support::{Connection, Larder, Origin, PATIENCE, Response, within};

const STORABLE: &[(&str, &str)] = &[("Cache-Control", "max-age=60")];

/// One route with this limit, one without; everybody here may name a client.
fn config(origin: &Origin, limit: &str) -> String {
    format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = 2\ntrusted_proxies = [\"127.0.0.1\"]\n\
         [upstream.api]\nservers = [\"{}\"]\n\
         [[route]]\nname = \"limited\"\nmatch = {{ path = \"/limited/*\" }}\nupstream = \"api\"\n{limit}\n\
         [[route]]\nname = \"rest\"\nmatch = {{ path = \"/*\" }}\nupstream = \"api\"\n",
        origin.url()
    )
}

fn front(limit: &str) -> (Origin, Larder) {
    let origin = Origin::ok("x", STORABLE);
    let larder = Larder::start(&config(&origin, limit));
    (origin, larder)
}

/// An hour's rate: whatever the machine does meanwhile, nothing is earned back.
const TWO_AN_HOUR: &str = "rate_limit = { rate = \"2/h\" }";

fn get(larder: &Larder, path: &str, fields: &[(&str, &str)]) -> Response {
    larder.get(path, &[&[("Host", HOST)], fields].concat())
}

/// The statuses of so many requests in a row.
fn statuses(larder: &Larder, fields: &[(&str, &str)], times: usize) -> Vec<u16> {
    (0..times).map(|_| get(larder, "/limited/a", fields).status).collect()
}

#[test]
fn too_many_are_told_when_to_come_again_hits_and_misses_alike() {
    let (origin, larder) = front(TWO_AN_HOUR);
    assert_eq!(told(&get(&larder, "/limited/a", &[])), STORED);
    assert_eq!(told(&get(&larder, "/limited/a", &[])), HIT);
    for path in ["/limited/a", "/limited/b"] {
        let refused = get(&larder, path, &[]);
        assert_eq!((refused.status, refused.complete), (429, true));
        let seconds: u64 = refused.header("retry-after").parse().unwrap();
        assert!((1700..=1800).contains(&seconds), "{seconds}");
        let body = refused.json();
        assert_eq!((&body["cause"], &body["error"]), (&"rate-limit".into(), &"Too Many Requests".into()));
        assert!(body["message"].as_str().unwrap().contains(&format!("in {seconds} s")), "{body}");
        assert_eq!(refused.header("cache-control"), "no-store");
        assert_eq!(told(&refused), "larder; detail=rate-limit");
    }
    assert_eq!(origin.requests().len(), 1);
    // Elsewhere nothing is counted.
    for _ in 0..5 {
        assert_eq!(get(&larder, "/other", &[]).status, 200);
    }
    assert_eq!(larder.metric("larder_rate_limited_total{route=\"limited\"}"), Some(2.0));
    assert_eq!(larder.metric("larder_rate_limited_total{route=\"rest\"}"), Some(0.0));
    assert_eq!(larder.stats()["routes"]["limited"]["rate_limited"], 2);
}

#[test]
fn a_connection_goes_on_after_a_refusal_and_one_more_does_not_help() {
    let (_origin, larder) = front(TWO_AN_HOUR);
    for _ in 0..2 {
        let mut connection = Connection::open(larder.proxy());
        let got: Vec<_> = (0..3).map(|_| connection.request("GET", "/limited/a", &[], b"").status).collect();
        assert_eq!(got.last(), Some(&429), "{got:?}");
        assert_eq!(connection.request("GET", "/other", &[], b"").status, 200);
        let posted = connection.request("POST", "/limited/a", &[], b"body");
        assert_eq!(posted.status, 429, "any method counts");
    }
}

#[test]
fn clients_are_told_apart_by_their_address() {
    let (_origin, larder) = front(TWO_AN_HOUR);
    let from = |address: &str| statuses(&larder, &[("X-Forwarded-For", address)], 3);
    assert_eq!(from("192.0.2.1"), [200, 200, 429]);
    assert_eq!(from("192.0.2.2"), [200, 200, 429]);
    assert_eq!(from("::ffff:192.0.2.1"), [429, 429, 429], "the same in another writing");
    assert_eq!(from("198.51.100.9, 192.0.2.1"), [429, 429, 429], "what the client wrote itself");
    // One who has IPv6 has a whole network.
    assert_eq!(from("2001:db8:0:1::1"), [200, 200, 429]);
    assert_eq!(from("2001:db8:0:1:ffff::2"), [429, 429, 429]);
    assert_eq!(from("2001:db8:0:2::1"), [200, 200, 429]);
}

#[test]
fn clients_are_told_apart_by_a_field() {
    let (_origin, larder) = front("rate_limit = { rate = \"2/h\", by = { header = \"X-Api-Key\" } }");
    let with = |fields: &[(&str, &str)]| statuses(&larder, fields, 3);
    assert_eq!(with(&[("X-Api-Key", "a")]), [200, 200, 429]);
    assert_eq!(with(&[("X-Api-Key", "b")]), [200, 200, 429]);
    assert_eq!(with(&[("X-Api-Key", "a"), ("X-Forwarded-For", "192.0.2.1")]), [429, 429, 429]);
    // Without it the address counts.
    assert_eq!(with(&[]), [200, 200, 429]);
    assert_eq!(with(&[("X-Forwarded-For", "192.0.2.1")]), [200, 200, 429]);
    assert_eq!(with(&[("Connection", "X-Api-Key"), ("X-Api-Key", "c")]), [429, 429, 429]);
}

#[test]
fn a_request_keeps_to_every_limit_of_its_route() {
    let by_key = "{ rate = \"2/h\", by = { header = \"X-Api-Key\" } }";
    let (_origin, larder) = front(&format!("rate_limit = [{{ rate = \"5/h\" }}, {by_key}]"));
    let with = |key: &str| statuses(&larder, &[("X-Api-Key", key)], 3);
    assert_eq!(with("a"), [200, 200, 429]);
    // Keys are free to make up; an address is not.
    assert_eq!(with("b"), [200, 200, 429]);
    assert_eq!(with("c"), [429, 429, 429]);
}

#[test]
fn all_threads_count_together() {
    let (_origin, larder) = front("rate_limit = { rate = \"20/h\" }");
    let answers: Vec<u16> = std::thread::scope(|scope| {
        let larder = &larder;
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(|| statuses(larder, &[], 5))).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(answers.iter().filter(|status| **status == 200).count(), 20, "{answers:?}");
    assert_eq!(answers.iter().filter(|status| **status == 429).count(), 20, "{answers:?}");
}

#[test]
fn a_reload_lets_nobody_off_where_the_limit_is_the_same() {
    let (origin, larder) = front(TWO_AN_HOUR);
    let file = larder.directory().join("proxy.toml");
    let reload = |limit: &str, times: f64| {
        std::fs::write(&file, config(&origin, limit)).unwrap();
        larder.signal("HUP");
        let done = || larder.metric("larder_reloads_total{result=\"done\"}") == Some(times);
        assert!(within(PATIENCE, done), "{}", larder.metrics());
    };
    assert_eq!(statuses(&larder, &[], 3), [200, 200, 429]);
    reload(&format!("response_headers = {{ set = {{ \"X-New\" = \"1\" }} }}\n{TWO_AN_HOUR}"), 1.0);
    assert_eq!(statuses(&larder, &[], 1), [429]);
    assert_eq!(get(&larder, "/limited/a", &[("X-Forwarded-For", "192.0.2.1")]).header("x-new"), "1");
    reload("rate_limit = { rate = \"3/h\" }", 2.0);
    assert_eq!(statuses(&larder, &[], 4), [200, 200, 200, 429]);
    reload("", 3.0);
    assert_eq!(statuses(&larder, &[], 4), [200; 4]);
}
