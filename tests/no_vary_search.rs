//! `No-Vary-Search`: queries that mean the same by the response's own word share it.
//!
//! Over sockets: memory alone, and with a Redis after a restart.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::thread;

use support::front::{Front, HIT, HOST, STORED, cache_status, configuration, told};
use support::{Gate, Larder, Origin, PATIENCE, RedisServer, Request, Script, client, within};

const UTM: &str = "params=(\"utm\")";

/// Answers with its target, and the rule that the request names, fresh for ten minutes.
fn ruled(request: &Request) -> Script {
    let rule = request.headers.get("x-rule").map(|rule| ("No-Vary-Search", rule));
    let fields: Vec<_> = [Some(("Cache-Control", "max-age=600")), Some(("ETag", "\"e\"")), rule]
        .into_iter()
        .flatten()
        .collect();
    if request.headers.get("if-none-match").is_some() {
        return Script::respond(304, &fields, "");
    }
    Script::ok(format!("{} #{}", request.target, request.count), &fields)
}

fn front(cache: &str) -> Front {
    Front::new(cache, ruled)
}

/// What was told, and the body.
fn ask(front: &Front, path: &str, rule: &str) -> (String, String) {
    let fields: Vec<_> = Some(("X-Rule", rule)).filter(|_| !rule.is_empty()).into_iter().collect();
    let response = front.get(path, &fields);
    (told(&response), response.text())
}

#[test]
fn queries_that_mean_the_same_share_a_response() {
    for (rule, first, same, others) in [
        (
            UTM,
            "/?a=1&utm=x",
            &["/?a=1", "/?utm=y&a=1", "/?a=%31&utm", "/?a=1&utm=1&utm=2"][..],
            &["/?a=2", "/?a=1&b=2", "/"][..],
        ),
        ("params", "/?a=1", &["/?b=2", "/", "/?"], &["/x?a=1"]),
        ("params, except=(\"a\")", "/?a=1&b=2", &["/?a=1", "/?c=1&a=1"], &["/?a=2", "/", "/?a"]),
        ("params=(\"utm\")", "/", &["/?utm=1"], &["/?a=1"]),
        ("key-order", "/?b=1&a=2", &["/?a=2&b=1"], &["/?a=1&b=2"]),
    ] {
        let front = front("");
        assert_eq!(ask(&front, first, rule).0, STORED, "{rule} {first}");
        for path in same.iter().chain([&first]) {
            assert_eq!(ask(&front, path, rule), (HIT.into(), format!("{first} #1")), "{rule} {path}");
        }
        for path in others {
            assert_eq!(ask(&front, path, rule).0, STORED, "{rule} {path}");
        }
    }
}

#[test]
fn without_a_word_or_with_a_wrong_one_all_of_the_query_counts() {
    for rule in ["", "params=(utm)", "params=(\"a\"), except=(\"b\")", "params=()"] {
        let front = front("");
        assert_eq!(ask(&front, "/?a=1&utm=x", rule).0, STORED);
        assert_eq!(ask(&front, "/?a=1&utm=y", rule).0, STORED, "{rule}");
        assert_eq!(ask(&front, "/?a=1&utm=x", rule).0, HIT, "{rule}");
    }
    let front = front("no_vary_search = false");
    assert_eq!(ask(&front, "/?utm=x", UTM).0, STORED);
    assert_eq!(ask(&front, "/?utm=y", UTM).0, STORED);
    assert_eq!(ask(&front, "/?utm=y", UTM).0, HIT);
}

#[test]
fn responses_of_one_path_may_have_rules_of_their_own_or_none() {
    let front = front("");
    assert_eq!(ask(&front, "/?a=1&utm=x", UTM).0, STORED);
    // Of the same path, and silent: its query counts as it is.
    assert_eq!(ask(&front, "/?b=1&utm=x", "").0, STORED);
    assert_eq!(ask(&front, "/?b=1&utm=x", "").0, HIT);
    assert_eq!(ask(&front, "/?b=1&utm=y", "").0, STORED);
    // Another rule: only by its own word is a response the same for others.
    assert_eq!(ask(&front, "/?c=1&ref=x", "params=(\"ref\")").0, STORED);
    assert_eq!(ask(&front, "/?c=1&ref=y", "").0, HIT);
    assert_eq!(ask(&front, "/?c=1&utm=x", "").0, STORED);
    assert_eq!(ask(&front, "/?b=1&utm=x", "").0, HIT);
}

#[test]
fn a_rule_that_changes_holds_for_what_comes_with_it_alone() {
    let front = front("");
    assert_eq!(ask(&front, "/?a=1&x=1", "params=(\"x\")").0, STORED);
    assert_eq!(ask(&front, "/?z=1&y=1", "params=(\"y\")").0, STORED);
    // Under the newer rule this is what the older one's key looks like, but the older response says
    // nothing of `y`.
    assert_eq!(ask(&front, "/?a=1&y=2", "params=(\"y\")").0, STORED);
    assert_eq!(ask(&front, "/?a=1&y=3", "params=(\"y\")").0, HIT);
    assert_eq!(ask(&front, "/?a=1&x=2", "params=(\"y\")").0, STORED, "whose rule is the newer");
}

#[test]
fn a_write_or_a_purge_of_one_of_them_makes_all_invalid() {
    let front = front("");
    for written in ["/p?a=1", "/p?a=1&utm=z", "/p?a=2", "/p"] {
        assert_eq!(ask(&front, "/p?a=1&utm=x", UTM).0.split(';').next(), Some("MISS larder"));
        assert_eq!(ask(&front, "/p?a=1", UTM).0, HIT);
        front.request("DELETE", written, &[], b"");
    }
    assert_eq!(ask(&front, "/p?a=1&utm=x", UTM).0, "MISS larder; fwd=uri-miss; stored; detail=purged");
    front.request("DELETE", "/q?a=1", &[], b"");
    assert_eq!(ask(&front, "/p?a=1", UTM).0, HIT, "another path");
}

#[test]
fn a_first_response_that_was_under_way_when_something_was_purged_is_for_its_url_alone() {
    let gate = Gate::new();
    let front = {
        let gate = gate.clone();
        Front::new("", move |request| match (request.method.as_str(), request.count) {
            ("GET", 1) if request.target == "/?a=1&utm=slow" => {
                Script::new().wait(&gate).then(ruled(request))
            }
            _ => ruled(request),
        })
    };
    let proxy = front.larder.proxy();
    let fields = [("Host", HOST), ("X-Rule", UTM)];
    let first = thread::spawn(move || client::get(proxy, "/?a=1&utm=slow", &fields).text());
    front.origin.wait_for_requests(1);
    front.request("DELETE", "/?a=1", &[], b"");
    gate.open();
    assert_eq!(first.join().unwrap(), "/?a=1&utm=slow #1");
    assert_eq!(ask(&front, "/?a=1", UTM), (STORED.into(), "/?a=1 #2".into()), "the DELETE was #1");
}

#[test]
fn what_was_fetched_for_several_queries_and_is_for_one_is_void_by_a_write_to_that_one() {
    let gate = Gate::new();
    let front = {
        let gate = gate.clone();
        Front::new("", move |request| match (request.target.as_str(), request.count) {
            ("/p?id=5", 1) => Script::new().wait(&gate).then(ruled(request)),
            _ => ruled(request),
        })
    };
    // The path's rule is known; the answer that comes then names none.
    assert_eq!(ask(&front, "/p?id=1", UTM).0, STORED);
    let proxy = front.larder.proxy();
    let get = move || client::get(proxy, "/p?id=5", &[("Host", HOST)]).text();
    let old = thread::spawn(get);
    front.origin.wait_for_requests(2);
    front.request("PUT", "/p?id=5", &[], b"new");
    let guest = thread::spawn(get);
    gate.open();
    assert_eq!(old.join().unwrap(), "/p?id=5 #1");
    assert_eq!(guest.join().unwrap(), "/p?id=5 #3", "it asked after the PUT, which was #2");
    let body = ask(&front, "/p?id=5", "").1;
    assert_ne!(body, "/p?id=5 #1", "what was before the PUT");
}

#[test]
fn what_was_purged_of_several_queries_does_not_hide_what_is_of_one() {
    let front = front("");
    assert_eq!(ask(&front, "/p?a=1&utm=x", UTM).0, STORED);
    front.request("DELETE", "/p?a=1", &[], b"");
    let purged = "MISS larder; fwd=uri-miss; stored; detail=purged";
    assert_eq!(ask(&front, "/p?a=1", ""), (purged.into(), "/p?a=1 #2".into()));
    assert_eq!(ask(&front, "/p?a=1", ""), (HIT.into(), "/p?a=1 #2".into()));
    assert_eq!(ask(&front, "/p?a=1&utm=y", "").0, purged, "it is of that one alone");
}

#[test]
fn a_head_is_no_news_of_what_is_for_other_queries() {
    let front = Front::new("", |request| {
        let of = |name: &str| request.headers.get(name).unwrap_or_default();
        let mut fields = vec![("Cache-Control", "max-age=600"), ("ETag", "\"e\"")];
        fields.push(("No-Vary-Search", of("x-rule")));
        fields.push(if of("x-vary").is_empty() { ("X-Plain", "1") } else { ("Vary", of("x-vary")) });
        fields.extend(Some(("X-News", "1")).filter(|_| request.method == "HEAD"));
        Script::ok("same", &fields)
    });
    let (x, y) = ("params=(\"x\")", "params=(\"y\")");
    // By their rules they have the same key.
    front.get("/?a=1&y=1", &[("X-Rule", y)]);
    front.get("/?a=1&x=1", &[("X-Rule", x), ("X-Vary", "accept")]);
    front.request("HEAD", "/?a=1&x=2", &[("X-Rule", x), ("Cache-Control", "no-cache")], b"");
    let heard = front.get("/?a=1&x=3", &[]);
    assert_eq!((told(&heard).as_str(), heard.header("x-news")), (HIT, "1"));
    // The latest rule is the other again.
    front.get("/?b=1", &[("X-Rule", y)]);
    let other = front.get("/?a=1&y=2", &[("Accept", "text/plain")]);
    assert_eq!((told(&other).as_str(), other.header("x-plain")), (HIT, "1"));
    assert!(!other.text().is_empty() && !format!("{other:?}").contains("x-news"));
}

#[test]
fn a_304_that_brings_another_rule_confirms_nothing_of_several_queries() {
    let front = Front::new("", |request| {
        let rule = request.headers.get("x-rule").unwrap_or_default();
        let fields = [("Cache-Control", "max-age=0"), ("ETag", "\"e\""), ("No-Vary-Search", rule)];
        match request.headers.get("if-none-match") {
            Some(_) => Script::respond(304, &fields, ""),
            None => Script::ok(&request.target, &fields),
        }
    });
    assert_eq!(ask(&front, "/?a=1&x=1", "params=(\"x\")").0, STORED);
    let other = ask(&front, "/?a=1&x=2", "params=(\"y\")");
    assert_eq!(other, ("MISS larder; fwd=stale; stored".into(), "/?a=1&x=2".into()));
    assert_eq!(front.origin.requests().len(), 3, "asked again, as if nothing were stored");
}

#[test]
fn those_who_wait_for_one_query_get_what_is_for_theirs() {
    let gate = Gate::new();
    let front = {
        let gate = gate.clone();
        Front::new("", move |request| match request.target.as_str() {
            "/?a=1&utm=1" => Script::new().wait(&gate).then(ruled(request)),
            _ => ruled(request),
        })
    };
    // The path's rule is known.
    assert_eq!(ask(&front, "/", UTM).0, STORED);
    let proxy = front.larder.proxy();
    let get = move |path: &'static str, rule: &'static str| {
        thread::spawn(move || client::get(proxy, path, &[("Host", HOST), ("X-Rule", rule)]).text())
    };
    let owner = get("/?a=1&utm=1", UTM);
    front.origin.wait_for_requests(2);
    let guest = get("/?a=1&utm=2", UTM);
    let waiting = || front.origin.requests().len() == 2;
    assert!(waiting());
    gate.open();
    assert_eq!(owner.join().unwrap(), "/?a=1&utm=1 #1");
    assert_eq!(guest.join().unwrap(), "/?a=1&utm=1 #1");
    assert_eq!(front.origin.requests().len(), 2);
}

#[test]
fn the_origin_sees_the_query_as_it_came_and_the_key_is_told() {
    let front = front("");
    ask(&front, "/p?utm=1", UTM);
    let response = front.get("/p?b=1&utm=2&a=2", &[("X-Rule", UTM), ("Larder-Debug", "key")]);
    assert_eq!(front.origin.last().target, "/p?b=1&utm=2&a=2");
    assert!(cache_status(&response).ends_with("; key=\"http://api.test/p?# s:a=2&b=1;\""), "{response:?}");
}

#[test]
fn a_head_and_a_range_are_answered_from_it_too() {
    let front = front("");
    assert_eq!(ask(&front, "/?utm=1", UTM).0, STORED);
    let head = front.request("HEAD", "/?utm=2", &[], b"");
    assert_eq!((told(&head).as_str(), head.header("content-length")), (HIT, "10"));
    let part = front.get("/?utm=3", &[("Range", "bytes=1-2")]);
    assert_eq!((part.status, part.text().as_str()), (206, "?u"));
}

#[test]
fn a_shared_response_is_confirmed_like_any_other() {
    let front = Front::new("", |request| {
        let fields = [("Cache-Control", "max-age=0"), ("ETag", "\"e\""), ("No-Vary-Search", UTM)];
        match request.headers.get("if-none-match") {
            Some(_) => Script::respond(304, &fields, ""),
            None => Script::ok(&request.target, &fields),
        }
    });
    assert_eq!(ask(&front, "/?utm=1", "").0, STORED);
    let confirmed = "REVALIDATED larder; fwd=stale; fwd-status=304; stored";
    assert_eq!(ask(&front, "/?utm=2", ""), (confirmed.into(), "/?utm=1".into()));
    assert_eq!(ask(&front, "/", ""), (confirmed.into(), "/?utm=1".into()));
}

fn start(origin: &Origin, redis: &RedisServer) -> Larder {
    let more = format!(
        "[cache]\nredis = \"{}\"\nredis_deadline = \"2s\"\n[[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"api\"",
        redis.url()
    );
    let config = configuration(origin, &more).replace("admin = \"off\"", "admin = \"127.0.0.1:0\"");
    let larder = Larder::start(&config);
    assert!(within(PATIENCE, || larder.stats()["tiers"]["redis"]["up"] == true));
    larder
}

fn through(larder: &Larder, path: &str) -> (String, String) {
    let response = larder.get(path, &[("Host", HOST), ("X-Rule", UTM)]);
    (told(&response), response.text())
}

fn wait_until_written(larder: &Larder, writes: u64) {
    let written = || larder.stats()["tiers"]["redis"]["writes"].as_u64() >= Some(writes);
    assert!(within(PATIENCE, written), "{:#}", larder.stats()["tiers"]);
}

const FROM_REDIS: &str = "HIT larder; hit; detail=redis";

#[test]
fn another_process_finds_rule_and_response_in_redis() {
    let (redis, origin) = (RedisServer::start(), Origin::start(ruled));
    let first = start(&origin, &redis);
    assert_eq!(through(&first, "/p?a=1&utm=1").0, STORED);
    wait_until_written(&first, 1);
    drop(first);
    let second = start(&origin, &redis);
    assert_eq!(through(&second, "/p?a=1&utm=2"), (FROM_REDIS.into(), "/p?a=1&utm=1 #1".into()));
    assert_eq!(through(&second, "/p?a=1"), (HIT.into(), "/p?a=1&utm=1 #1".into()));
    assert_eq!(through(&second, "/p?a=2").0, STORED);
}

#[test]
fn a_write_through_one_process_voids_them_all_in_redis() {
    let (redis, origin) = (RedisServer::start(), Origin::start(ruled));
    let first = start(&origin, &redis);
    assert_eq!(through(&first, "/p?a=1&utm=1").0, STORED);
    wait_until_written(&first, 1);
    drop(first);
    // It has not learned the rule when it purges.
    let second = start(&origin, &redis);
    client::request(second.proxy(), "DELETE", "/p?a=1", &[("Host", HOST)], b"");
    drop(second);
    let third = start(&origin, &redis);
    assert_eq!(through(&third, "/p?a=1&utm=2"), (STORED.into(), "/p?a=1&utm=2 #1".into()));
    wait_until_written(&third, 1);
    assert_eq!(
        through(&start(&origin, &redis), "/p?a=1&utm=3"),
        (FROM_REDIS.into(), "/p?a=1&utm=2 #1".into())
    );
    // A marker stands for as long as what it voids, where there is a rule.
    let marker = redis.keys().into_iter().find(|key| key.contains(":G:")).unwrap();
    let ttl = format!("{:?}", redis.command(&["TTL", &marker]));
    let seconds: u64 = ttl.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap();
    assert!(seconds > 6 * 24 * 3600, "{ttl}");
}

#[test]
fn the_answer_to_a_post_is_for_its_very_url() {
    let front = Front::new("", |request| {
        let fields =
            [("Cache-Control", "max-age=600"), ("Content-Location", "/?utm=1"), ("No-Vary-Search", UTM)];
        Script::ok(&request.method, &fields)
    });
    let posted = front.request("POST", "/?utm=1", &[], b"x");
    assert_eq!(told(&posted), "BYPASS larder; fwd=method; stored");
    assert_eq!(ask(&front, "/?utm=1", ""), (HIT.into(), "POST".into()));
    assert_eq!(ask(&front, "/?utm=2", ""), (STORED.into(), "GET".into()));
}
