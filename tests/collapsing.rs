//! Many clients, one fetch: who shares an answer of the origin, who must not, and what happens to
//! those who wait when somebody leaves.
//!
//! Everybody is known to wait because `/stats` counts them as active, and the origin is held at a
//! gate meanwhile; but for one of limits of time, no test here depends on how long anything takes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use support::front::told as without_ttl;
use support::{Connection, Gate, Larder, Origin, PATIENCE, Response, Script, client, get, within};

const STORABLE: &[(&str, &str)] = &[("Cache-Control", "max-age=60")];

#[test]
fn five_hundred_clients_on_a_cold_key_make_one_origin_request() {
    support::allow_many_files();
    let (gate, origin) = gated(|_, gate| Script::new().wait(gate).then_ok(body(), STORABLE));
    let larder = Larder::start(&config(&origin));
    let clients = clients(&larder, 500, "/slow", |_| vec![]);
    wait_for_active(&larder, 500);
    gate.open();
    let responses = join(clients);
    assert!(responses.iter().all(|response| response.status == 200 && response.complete));
    assert!(responses.iter().all(|response| response.body == body()));
    assert_eq!(origin.count("/slow"), 1);
    let collapsed = responses.iter().filter(|r| r.header("cache-status").contains("collapsed")).count();
    assert_eq!(collapsed, 499, "everyone but the owner says so");
    assert!(within(PATIENCE, || larder.stats()["completed"] == 500));
    let stats = larder.stats();
    assert_eq!((&stats["active"], &stats["failed"]), (&0.into(), &0.into()));
    let route = &stats["routes"]["all"];
    assert_eq!((&route["collapsed"], &route["origin_fetches"]), (&499.into(), &1.into()));
    assert_eq!(get(larder.proxy(), "/slow", &[]).header("x-cache"), "HIT");
}

/// RFC 9211 §2.1, §2.6: who is served while an origin that failed is left alone was neither forwarded nor collapsed with
/// anybody; who waited for the fetch that failed was.
#[test]
fn who_comes_after_a_fetch_has_failed_is_not_said_to_be_collapsed() {
    let (gate, origin) = gated(|request, gate| match request.count {
        1 => Script::ok("old", &[("Cache-Control", "max-age=50"), ("Age", "100")]),
        // Left alone for a minute: nobody asks it again as long as this runs.
        _ => Script::new().wait(gate).then(Script::respond(503, &[("Retry-After", "60")], "down")),
    });
    // Of one thread, whoever is active has sat down before anything else happens.
    let one = config(&origin).replace("workers = 2", "workers = 1") + "stale_if_error = \"10m\"\n";
    let larder = Larder::start(&one);
    get(larder.proxy(), "/", &[]);
    let clients = clients(&larder, 2, "/", |_| vec![]);
    wait_for_active(&larder, 2);
    gate.wait_for_arrivals(1);
    gate.open();
    let mut seen: Vec<String> = join(clients).iter().map(without_ttl).collect();
    seen.sort_unstable();
    let forwarded = "STALE larder; fwd=stale; fwd-status=503";
    let with_each_other = ["; collapsed; detail=stale-if-error", "; detail=stale-if-error"];
    assert_eq!(seen, with_each_other.map(|rest| format!("{forwarded}{rest}")));
    for _ in 0..3 {
        let response = get(larder.proxy(), "/", &[]);
        assert_eq!(without_ttl(&response), "STALE larder; hit; detail=stale-if-error");
        assert_eq!(response.text(), "old");
    }
    assert_eq!(origin.count("/"), 2);
    assert!(within(PATIENCE, || larder.stats()["completed"] == 6));
    let route = &larder.stats()["routes"]["all"];
    assert_eq!((&route["collapsed"], &route["stale_if_error"]), (&1.into(), &5.into()));
}

#[test]
fn five_hundred_clients_on_an_uncacheable_key_are_let_go_all_at_once() {
    support::allow_many_files();
    let (first, rest) = (Gate::new(), Gate::new());
    let (one, others) = (first.clone(), rest.clone());
    let origin = Origin::start(move |request| {
        let gate = if request.count == 1 { &one } else { &others };
        Script::new()
            .wait(gate)
            .then_ok(request.count.to_string().as_bytes(), &[("Cache-Control", "no-store")])
    });
    let larder = Larder::start(&config(&origin));
    let clients = clients(&larder, 500, "/private", |_| vec![]);
    wait_for_active(&larder, 500);
    // All are in the house; the one that goes to the origin may still be on its way there.
    origin.wait_for_requests(1);
    assert_eq!(origin.count("/private"), 1);
    first.open();
    // None of them is answered before all of them are there: they do not come one by one.
    rest.wait_for_arrivals(499);
    rest.open();
    let responses = join(clients);
    assert!(responses.iter().all(|response| response.status == 200 && response.complete));
    let bodies: HashSet<_> = responses.iter().map(Response::text).collect();
    assert_eq!(bodies.len(), 500, "each has an answer of its own");
    assert!(responses.iter().all(|response| response.header("cache-status").contains("detail=no-store")));
    assert!(responses.iter().all(|response| !response.header("cache-status").contains("stored;")));
}

#[test]
fn an_uncacheable_answer_is_remembered_so_that_nobody_waits_for_the_next() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |request| match request.count {
        1 => Script::ok("first", &[("Cache-Control", "no-store")]),
        _ => Script::new().wait(&held).then_ok(b"next", &[("Cache-Control", "no-store")]),
    });
    let larder = Larder::start(&config(&origin));
    assert_eq!(larder.get("/", &[]).text(), "first");
    let clients = clients(&larder, 20, "/", |_| vec![]);
    gate.wait_for_arrivals(20);
    gate.open();
    for response in join(clients) {
        assert_eq!(response.text(), "next");
        assert!(response.header("cache-status").contains("detail=no-store"), "{:?}", response.headers);
    }
}

#[test]
fn an_error_of_the_origin_is_shared_by_those_who_wait_and_not_remembered() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |request| match request.count {
        1 => Script::new().wait(&held).close(),
        _ => Script::ok("better", STORABLE),
    });
    let larder = Larder::start(&config(&origin));
    let clients = clients(&larder, 20, "/", |_| vec![]);
    wait_for_active(&larder, 20);
    gate.open();
    assert!(join(clients).iter().all(|response| response.status == 502));
    assert_eq!(origin.count("/"), 1);
    assert_eq!(larder.get("/", &[]).text(), "better");
    assert_eq!(larder.get("/", &[]).header("x-cache"), "HIT");
}

#[test]
fn the_first_clients_leaving_does_not_hurt_the_others() {
    let (gate, origin) = gated(|_, gate| Script::new().wait(gate).then_ok(body(), STORABLE));
    let larder = Larder::start(&config(&origin));
    let mut first = Connection::open(larder.proxy());
    first.write_head("GET", "/", &[]);
    gate.wait_for_arrivals(1);
    let clients = clients(&larder, 20, "/", |_| vec![]);
    wait_for_active(&larder, 21);
    first.reset();
    assert!(within(PATIENCE, || larder.stats()["client_closed"] == 1));
    gate.open();
    assert!(join(clients).iter().all(|response| response.body == body() && response.complete));
    assert_eq!(origin.count("/"), 1);
}

#[test]
fn the_first_clients_leaving_in_the_middle_of_the_body_does_not_hurt_the_others() {
    let (gate, origin) =
        gated(|_, gate| Script::chunked(STORABLE).chunk("one ").wait(gate).chunk("two").last_chunk());
    let larder = Larder::start(&config(&origin));
    let mut first = Connection::open(larder.proxy());
    first.write_head("GET", "/", &[]);
    assert_eq!(first.response_head("GET").status, 200);
    assert_eq!(first.read_chunk(), b"one ");
    let clients = clients(&larder, 20, "/", |_| vec![]);
    wait_for_active(&larder, 21);
    first.reset();
    assert!(within(PATIENCE, || larder.stats()["client_closed"] == 1));
    gate.open();
    assert!(join(clients).iter().all(|response| response.text() == "one two" && response.complete));
    assert_eq!(origin.count("/"), 1);
}

#[test]
fn a_fetch_that_everybody_has_left_is_still_kept() {
    let (gate, origin) = gated(|_, gate| Script::new().wait(gate).then_ok(b"kept", STORABLE));
    let larder = Larder::start(&config(&origin));
    let mut only = Connection::open(larder.proxy());
    only.write_head("GET", "/", &[]);
    gate.wait_for_arrivals(1);
    only.reset();
    assert!(within(PATIENCE, || larder.stats()["client_closed"] == 1));
    gate.open();
    assert!(within(PATIENCE, || larder.stats()["tiers"]["memory"]["inserts"] == 1));
    let response = larder.get("/", &[]);
    assert_eq!((response.text().as_str(), response.header("x-cache")), ("kept", "HIT"));
    assert_eq!(origin.count("/"), 1);
}

#[test]
fn each_variant_collapses_on_its_own() {
    let (gate, origin) = gated(|request, gate| {
        let language = request.header("accept-language").to_owned();
        Script::new()
            .wait(gate)
            .then_ok(language.as_bytes(), &[("Cache-Control", "max-age=60"), ("Vary", "Accept-Language")])
    });
    let larder = Larder::start(&config(&origin));
    let language = |n: usize| if n.is_multiple_of(2) { "en" } else { "de" };
    let clients = clients(&larder, 60, "/", move |n| vec![("Accept-Language", language(n))]);
    wait_for_active(&larder, 60);
    gate.open();
    for (n, response) in join(clients).iter().enumerate() {
        assert_eq!(response.text(), language(n));
        assert_eq!((response.status, response.complete), (200, true));
    }
    assert_eq!(origin.count("/"), 2, "one for each variant");
    assert_eq!(larder.get("/", &[("Accept-Language", "de")]).header("x-cache"), "HIT");
    assert_eq!(larder.get("/", &[("Accept-Language", "en")]).header("x-cache"), "HIT");
    assert_eq!(origin.count("/"), 2);
}

/// Whoever asks first does not know that there are variants; by the time that others do, it is one of them.
#[test]
fn a_variant_that_was_asked_for_before_any_was_known_is_not_fetched_again_while_it_comes() {
    let gate = Gate::new();
    let held = gate.clone();
    let fields = [("Cache-Control", "max-age=60"), ("Vary", "Accept-Language"), ("Content-Length", "2")];
    let origin = Origin::start(move |request| match request.header("accept-language") {
        "en" => Script::new().head(200, &fields).bytes("e").wait(&held).bytes("n"),
        other => Script::new().head(200, &fields).bytes(other),
    });
    let larder = Larder::start(&config(&origin));
    let ask = |language| {
        let mut connection = Connection::open(larder.proxy());
        connection.write_head("GET", "/", &[("Host", "a.test"), ("Accept-Language", language)]);
        let head = connection.response_head("GET");
        (connection, head)
    };
    let (mut first, mut english) = ask("en");
    let (mut other, mut french) = ask("fr");
    other.finish(&mut french);
    assert_eq!(french.text(), "fr");
    // Now that one is stored, it is known what they vary on.
    let french = || get(larder.proxy(), "/", &[("Host", "a.test"), ("Accept-Language", "fr")]);
    assert!(within(PATIENCE, || french().header("x-cache") == "HIT"));
    let (mut second, mut again) = ask("en");
    assert!(again.header("cache-status").contains("collapsed"), "{}", again.header("cache-status"));
    gate.open();
    first.finish(&mut english);
    second.finish(&mut again);
    assert_eq!((english.text().as_str(), again.text().as_str()), ("en", "en"));
    assert_eq!(origin.count("/"), 2);
}

/// RFC 5861 §3: what is in its grace when it comes may be given to all, as it is to whoever comes a moment later.
#[test]
fn what_may_be_served_stale_is_shared_by_those_who_wait_for_it() {
    for (field, fetches) in [("max-age=0, stale-while-revalidate=60", 1), ("max-age=0", 51)] {
        let (gate, origin) = gated(move |_, gate| {
            Script::new().wait(gate).then_ok(b"x", &[("Cache-Control", field), ("ETag", "\"1\"")])
        });
        // Of one thread, whoever is active has sat down before anything else happens.
        let larder = Larder::start(&config(&origin).replace("workers = 2", "workers = 1"));
        let clients = clients(&larder, 51, "/x", |_| vec![]);
        wait_for_active(&larder, 51);
        gate.wait_for_arrivals(1);
        gate.open();
        assert!(join(clients).iter().all(|response| response.status == 200 && response.text() == "x"));
        assert_eq!(origin.count("/x"), fetches, "{field}");
    }
}

/// Who comes after a purge is not for a fetch that began before it; that no longer means that each is for itself.
#[test]
fn those_who_come_after_a_purge_share_one_fetch_while_the_one_before_is_under_way() {
    let (first, rest, gets) = (Gate::new(), Gate::new(), AtomicUsize::new(0));
    let (one, others) = (first.clone(), rest.clone());
    let origin = Origin::start(move |request| match request.method.as_str() {
        "POST" => Script::ok("written", &[]),
        _ if gets.fetch_add(1, Ordering::Relaxed) == 0 => Script::new().wait(&one).then_ok(b"old", STORABLE),
        _ => Script::new().wait(&others).then_ok(b"new", STORABLE),
    });
    // Of one thread, whoever is active has sat down before anything else happens.
    let larder = Larder::start(&config(&origin).replace("workers = 2", "workers = 1"));
    let before = clients(&larder, 1, "/x", |_| vec![]);
    first.wait_for_arrivals(1);
    assert_eq!(client::request(larder.proxy(), "POST", "/x", &[], b"").status, 200);
    let after = clients(&larder, 50, "/x", |_| vec![]);
    wait_for_active(&larder, 51);
    first.open();
    assert_eq!(join(before)[0].text(), "old");
    rest.wait_for_arrivals(1);
    rest.open();
    assert!(join(after).iter().all(|response| response.status == 200 && response.text() == "new"));
    assert_eq!(origin.count("/x"), 3, "a write, and one fetch before it and one after it");
    assert_eq!(get(larder.proxy(), "/x", &[]).header("x-cache"), "HIT");
}

/// Also who comes after another purge yet, while fetches from before each of the two are under way.
#[test]
fn those_who_come_after_each_of_two_purges_share_one_fetch_and_none_has_what_is_older() {
    let (end, second, third) = (Gate::new(), Gate::new(), Gate::new());
    let (gates, gets) = ((end.clone(), second.clone(), third.clone()), AtomicUsize::new(0));
    let origin = Origin::start(move |request| match request.method.as_str() {
        "POST" => Script::ok("written", &[]),
        _ => match gets.fetch_add(1, Ordering::Relaxed) {
            0 => {
                let fields = [("Cache-Control", "max-age=60"), ("Content-Length", "3")];
                Script::new().head(200, &fields).bytes("o").wait(&gates.0).bytes("ld")
            }
            1 => Script::new().wait(&gates.1).then_ok(b"mid", STORABLE),
            _ => Script::new().wait(&gates.2).then_ok(b"new", STORABLE),
        },
    });
    // Of one thread, whoever is active has sat down before anything else happens.
    let larder = Larder::start(&config(&origin).replace("workers = 2", "workers = 1"));
    let write = || client::request(larder.proxy(), "POST", "/x", &[("Host", "a.test")], b"").status;
    let mut first = Connection::open(larder.proxy());
    first.write_head("GET", "/x", &[("Host", "a.test")]);
    let mut old = first.response_head("GET");
    assert_eq!(write(), 200);
    let of_a = |_| vec![("Host", "a.test")];
    let after_one = clients(&larder, 10, "/x", of_a);
    second.wait_for_arrivals(1);
    wait_for_active(&larder, 11);
    assert_eq!(write(), 200);
    let after_both = clients(&larder, 10, "/x", of_a);
    wait_for_active(&larder, 21);
    second.open();
    third.wait_for_arrivals(1);
    third.open();
    let bodies = |clients| join(clients).iter().map(Response::text).collect::<Vec<_>>();
    assert!(bodies(after_both).iter().all(|body| body == "new"));
    // Whoever has asked for it came before the second.
    let between = bodies(after_one);
    assert_eq!(between.iter().filter(|body| *body == "mid").count(), 1, "{between:?}");
    assert!(between.iter().all(|body| body == "mid" || body == "new"), "{between:?}");
    end.open();
    first.finish(&mut old);
    assert_eq!(old.text(), "old");
    assert_eq!(origin.count("/x"), 5, "two writes, and a fetch before, between and after them");
    let hit = get(larder.proxy(), "/x", &[("Host", "a.test")]);
    assert_eq!((hit.header("x-cache"), hit.text().as_str()), ("HIT", "new"));
}

#[test]
fn a_private_response_goes_to_its_owner_alone() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |request| {
        let script = if request.count == 1 { Script::new().wait(&held) } else { Script::new() };
        let user = request.header("x-user").to_owned();
        script.then_ok(user.as_bytes(), &[("Cache-Control", "private, max-age=60")])
    });
    let larder = Larder::start(&config(&origin));
    let clients = clients(&larder, 30, "/me", |n| vec![("X-User", USERS[n])]);
    wait_for_active(&larder, 30);
    gate.open();
    for (n, response) in join(clients).iter().enumerate() {
        assert_eq!(response.text(), USERS[n], "everyone has their own");
    }
    assert_eq!(origin.count("/me"), 30);
}

#[test]
fn a_client_with_a_cookie_never_waits_with_those_without() {
    let (gate, origin) = gated(|request, gate| {
        let cookie = request.header("cookie").to_owned();
        Script::new().wait(gate).then_ok(cookie.as_bytes(), &[])
    });
    let larder = Larder::start(&config(&origin));
    let plain = clients(&larder, 10, "/", |_| vec![]);
    wait_for_active(&larder, 10);
    let known = clients(&larder, 10, "/", |n| vec![("Cookie", USERS[n])]);
    wait_for_active(&larder, 20);
    gate.open();
    for (n, response) in join(known).iter().enumerate() {
        assert_eq!(response.text(), USERS[n]);
        assert!(!response.header("cache-status").contains("collapsed"));
    }
    assert!(join(plain).iter().all(|response| response.text().is_empty()));
    assert_eq!(origin.requests().iter().filter(|request| request.header("cookie").is_empty()).count(), 1);
}

#[test]
fn those_who_come_after_the_head_read_the_same_body_from_its_start() {
    let (gate, origin) =
        gated(|_, gate| Script::chunked(STORABLE).chunk("one ").wait(gate).chunk("two").last_chunk());
    let larder = Larder::start(&config(&origin));
    let mut first = Connection::open(larder.proxy());
    first.write_head("GET", "/", &[]);
    let mut head = first.response_head("GET");
    let late = clients(&larder, 10, "/", |_| vec![]);
    wait_for_active(&larder, 11);
    gate.open();
    first.finish(&mut head);
    assert_eq!(head.text(), "one two");
    assert!(join(late).iter().all(|response| response.text() == "one two" && response.complete));
    assert_eq!(origin.count("/"), 1);
}

#[test]
fn different_keys_do_not_wait_for_each_other() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |request| match request.target.as_str() {
        "/held" => Script::new().wait(&held).then_ok(b"held", STORABLE),
        _ => Script::ok("free", STORABLE),
    });
    let larder = Larder::start(&config(&origin));
    let held = clients(&larder, 5, "/held", |_| vec![]);
    wait_for_active(&larder, 5);
    for n in 0..5 {
        assert_eq!(larder.get(&format!("/free/{n}"), &[]).text(), "free");
    }
    assert_eq!(gate.arrived(), 1);
    gate.open();
    assert!(join(held).iter().all(|response| response.text() == "held"));
}

#[test]
fn nobody_waits_with_who_chose_by_a_field_of_their_own() {
    let (gate, origin) = gated(|request, gate| {
        Script::new().wait(gate).then_ok(format!("<{}>", request.header("rsc")), STORABLE)
    });
    let larder = Larder::start(&config(&origin));
    let choosing = clients(&larder, 1, "/", |_| vec![("RSC", "1")]);
    gate.wait_for_arrivals(1);
    let plain = clients(&larder, 10, "/", |_| vec![]);
    gate.wait_for_arrivals(2);
    let others = clients(&larder, 1, "/", |_| vec![("RSC", "2")]);
    gate.wait_for_arrivals(3);
    wait_for_active(&larder, 12);
    gate.open();
    for (clients, expected) in [(choosing, "<1>"), (plain, "<>"), (others, "<2>")] {
        assert!(join(clients).iter().all(|response| response.text() == expected), "{expected}");
    }
    assert_eq!(origin.count("/"), 3, "those who chose nothing shared one");
    assert_eq!(larder.get("/", &[]).header("x-cache"), "HIT");
}

#[test]
fn who_chose_the_same_share_what_says_that_it_varies() {
    let (gate, origin) = gated(|request, gate| {
        let fields = [("Cache-Control", "max-age=60"), ("Vary", "RSC")];
        Script::new().wait(gate).then_ok(format!("<{}>", request.header("rsc")), &fields)
    });
    let larder = Larder::start(&config(&origin));
    let choosing = clients(&larder, 10, "/", |n| vec![("RSC", if n < 5 { "1" } else { "2" })]);
    let plain = clients(&larder, 5, "/", |_| vec![]);
    wait_for_active(&larder, 15);
    gate.wait_for_arrivals(3);
    gate.open();
    for (n, response) in join(choosing).iter().enumerate() {
        assert_eq!(response.text(), if n < 5 { "<1>" } else { "<2>" });
    }
    assert!(join(plain).iter().all(|response| response.text() == "<>"));
    assert_eq!(origin.count("/"), 3);
}

/// 401 and 403 speak of one request, so nothing is concluded from them but that the next ones are not to wait.
#[test]
fn those_who_are_refused_are_so_all_at_once_after_the_first() {
    for status in [401, 403] {
        let gate = Gate::new();
        let held = gate.clone();
        let origin = Origin::start(move |request| match request.count {
            1 => Script::respond(status, &[], "first"),
            _ => Script::new().wait(&held).then(Script::respond(status, &[], "next")),
        });
        let larder = Larder::start(&config(&origin));
        assert_eq!(larder.get("/", &[]).status, status);
        let clients = clients(&larder, 20, "/", |_| vec![]);
        // None of them is answered before all of them are there.
        gate.wait_for_arrivals(20);
        gate.open();
        for response in join(clients) {
            assert_eq!((response.status, response.text().as_str()), (status, "next"));
            assert!(response.header("cache-status").contains("detail=status"), "{:?}", response.headers);
        }
    }
}

#[test]
fn one_clients_refusal_does_not_keep_anothers_answer_from_being_cached() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |request| match request.header("x-bad") {
        "" => Script::ok("good", STORABLE),
        "held" => Script::new().wait(&held).then(Script::respond(401, &[], "bad")),
        _ => Script::respond(401, &[], "bad"),
    });
    let larder = Larder::start(&config(&origin));
    assert_eq!(larder.get("/", &[("X-Bad", "1")]).status, 401);
    assert_eq!(larder.get("/", &[]).text(), "good", "at once");
    assert_eq!(larder.get("/", &[]).header("x-cache"), "HIT");
    // While one who is refused fetches, nobody waits for them, and what a later one brings is kept.
    assert_eq!(larder.get("/held", &[("X-Bad", "1")]).status, 401);
    let slow = clients(&larder, 1, "/held", |_| vec![("X-Bad", "held")]);
    gate.wait_for_arrivals(1);
    assert_eq!(larder.get("/held", &[]).text(), "good", "alone");
    gate.open();
    assert_eq!(join(slow)[0].status, 401);
    assert_eq!(larder.get("/held", &[]).text(), "good");
    assert_eq!(larder.get("/held", &[]).header("x-cache"), "HIT");
}

const USERS: [&str; 30] = [
    "u00", "u01", "u02", "u03", "u04", "u05", "u06", "u07", "u08", "u09", "u10", "u11", "u12", "u13", "u14",
    "u15", "u16", "u17", "u18", "u19", "u20", "u21", "u22", "u23", "u24", "u25", "u26", "u27", "u28", "u29",
];

/// Those who wait for an answer that turns out not to be for them are told of an origin that then hangs before
/// somebody who has come only now: the time that they have waited is part of their own.
#[test]
fn who_has_waited_in_vain_has_what_is_left_of_its_time() {
    for fields in [[("Cache-Control", "no-store"), ("X-A", "1")], [("Vary", "X-V"), ("X-A", "1")]] {
        let (gate, asked) = (Gate::new(), AtomicUsize::new(0));
        let held = gate.clone();
        let origin = Origin::start(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
            0 => Script::new().wait(&held).then_ok("first", &fields),
            _ => Script::new().stall(),
        });
        let larder = Larder::start(&config(&origin).replace("first_byte = \"60s\"", "first_byte = \"3s\""));
        let owner = clients(&larder, 1, "/", |_| vec![("X-V", "0")]);
        gate.wait_for_arrivals(1);
        let variant = |n: usize| ["1", "2", "3"][n % 3];
        let guests = clients(&larder, 12, "/", move |n| vec![("X-V", variant(n))]);
        wait_for_active(&larder, 13);
        // Two of their three seconds.
        std::thread::sleep(Duration::from_secs(2));
        let late = clients(&larder, 1, "/late", |_| vec![]);
        origin.wait_for_requests(2);
        gate.open();
        assert_eq!(join(owner)[0].text(), "first");
        for response in join(guests) {
            assert_eq!((response.status, &response.json()["cause"]), (504, &"first-byte-timeout".into()));
        }
        assert!(!late[0].is_finished(), "{fields:?}: they have waited for twice their time");
        assert_eq!(join(late)[0].status, 504);
    }
}

fn config(origin: &Origin) -> String {
    format!(
        r#"
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
workers = 2
[upstream.api]
servers = ["{}"]
timeout = {{ connect = "10s", first_byte = "60s" }}
pool = {{ max_connections = 1000, queue_timeout = "30s" }}
[[route]]
name = "all"
upstream = "api"
match = {{ path = "/*" }}
[route.cache]
ttl.default = "60s"
"#,
        origin.url()
    )
}

/// 40 kB that differ from place to place.
fn body() -> Vec<u8> {
    (0..10_000_u32).flat_map(u32::to_be_bytes).collect()
}

fn gated(script: impl Fn(&support::Request, &Gate) -> Script + Send + Sync + 'static) -> (Gate, Origin) {
    let gate = Gate::new();
    let held = gate.clone();
    (gate, Origin::start(move |request| script(request, &held)))
}

type Client = JoinHandle<Response>;

fn clients(
    larder: &Larder,
    count: usize,
    path: &'static str,
    headers: impl Fn(usize) -> Vec<(&'static str, &'static str)>,
) -> Vec<Client> {
    let addr = larder.proxy();
    (0..count)
        .map(|n| {
            let headers = headers(n);
            std::thread::spawn(move || get(addr, path, &headers))
        })
        .collect()
}

fn join(clients: Vec<Client>) -> Vec<Response> {
    clients.into_iter().map(|client| client.join().unwrap()).collect()
}

/// Everyone is inside: `active` counts a request from its head to its last byte.
fn wait_for_active(larder: &Larder, count: u64) {
    assert!(
        within(PATIENCE, || larder.stats()["active"] == count),
        "{count} should be active: {}",
        larder.stats()
    );
}
