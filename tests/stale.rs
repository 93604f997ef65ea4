//! Past its lifetime: served while it is refreshed, served because the origin fails, or not at all.
//!
//! Memory only, over sockets, with one route. Nobody waits for a lifetime to end: the origin's
//! `Age` makes a response stale at birth, by 50 seconds where not said.

#![allow(clippy::disallowed_methods, reason = "test code may read the clock")]

mod support;

use std::time::Instant;

use support::front::{Front, HIT, Lines, STALE, STORED, age, configuration, told, ttl};
use support::{Gate, Larder, Origin, PATIENCE, Script, within};

/// 50 s past its lifetime when it arrives; `more` is added to its Cache-Control.
fn stale(more: &str, body: &str) -> Script {
    let cache_control = format!("max-age=50{more}");
    Script::ok(body, &[("Cache-Control", &cache_control), ("Age", "100"), ("ETag", "\"v1\"")])
}

fn fresh(body: &str) -> Script {
    Script::ok(body, &[("Cache-Control", "max-age=60"), ("ETag", "\"v2\"")])
}

const REPLACED: &str = "MISS larder; fwd=stale; stored";
const INSTEAD_OF_503: &str = "STALE larder; fwd=stale; fwd-status=503; detail=stale-if-error";
const WHILE_LEFT_ALONE: &str = "STALE larder; hit; detail=stale-if-error";
const INSTEAD_OF_NOTHING: &str = "STALE larder; fwd=stale; detail=stale-if-error";

#[test]
fn a_stale_response_is_served_at_once_while_one_refresh_replaces_it() {
    let rows = [
        ("", ", stale-while-revalidate=100"),
        ("stale_while_revalidate = \"100s\"", ""),
        // The route's word comes before the origin's.
        ("stale_while_revalidate = \"100s\"", ", stale-while-revalidate=0"),
    ];
    for (cache, more) in rows {
        let gate = Gate::new();
        let held = gate.clone();
        let front = Front::new(cache, move |request| match request.count {
            1 => stale(more, "old"),
            _ => Script::new()
                .wait(&held)
                .head(200, &[("Cache-Control", "max-age=60"), ("Content-Length", "3")])
                .bytes("new"),
        });
        assert_eq!(told(&front.get("/", &[])), STORED, "{cache}{more}");
        // The refresh stands at the gate, so none of these can have waited for it.
        for _ in 0..5 {
            let response = front.get("/", &[]);
            assert_eq!((told(&response).as_str(), response.text().as_str()), (STALE, "old"), "{cache}{more}");
            assert!((-80..=-50).contains(&ttl(&response)), "{}", ttl(&response));
            assert!((100..130).contains(&age(&response)), "{}", age(&response));
        }
        gate.wait_for_arrivals(1);
        assert_eq!(front.origin.count("/"), 2, "{cache}{more}");
        gate.open();
        // That a refresh has been kept gives no event.
        assert!(within(PATIENCE, || told(&front.get("/", &[])) == HIT), "{cache}{more}");
        assert_eq!(front.get("/", &[]).text(), "new");
        assert_eq!((front.origin.count("/"), gate.arrived()), (2, 1), "{cache}{more}");
    }
}

#[test]
fn a_refresh_asks_with_the_validator_and_is_not_tied_to_the_client() {
    let gate = Gate::new();
    let held = gate.clone();
    let front = Front::new("stale_while_revalidate = \"100s\"", move |request| match request.count {
        1 => stale("", "old"),
        _ => Script::new().wait(&held).head(304, &[("Cache-Control", "max-age=60"), ("ETag", "\"v1\"")]),
    });
    front.get("/", &[]);
    // This client has its answer and is gone before the origin has spoken.
    let response = front.get("/", &[("If-None-Match", "\"v1\""), ("Range", "bytes=0-0")]);
    assert_eq!((response.status, told(&response).as_str()), (304, STALE));
    gate.wait_for_arrivals(1);
    let asked = front.origin.last();
    assert_eq!((asked.header("if-none-match"), asked.headers.get("range")), ("\"v1\"", None));
    gate.open();
    assert!(within(PATIENCE, || told(&front.get("/", &[])) == HIT));
    let hit = front.get("/", &[]);
    assert_eq!((hit.text().as_str(), age(&hit) < 30), ("old", true));
}

#[test]
fn a_refresh_that_fails_leaves_the_stale_response_in_its_window() {
    let front = Front::new("stale_while_revalidate = \"100s\"", |request| match request.count {
        1 => stale("", "old"),
        2 => Script::respond(503, &[], "down"),
        _ => fresh("new"),
    });
    front.get("/", &[]);
    assert_eq!(told(&front.get("/", &[])), STALE);
    front.origin.wait_for_requests(2);
    let mut seen = Vec::new();
    assert!(within(PATIENCE, || {
        let response = front.get("/", &[]);
        seen.push((response.status, told(&response)));
        response.text() == "new"
    }));
    let last = seen.pop();
    assert_eq!(last, Some((200, HIT.to_owned())));
    assert!(seen.iter().all(|seen| *seen == (200, STALE.to_owned())), "{seen:?}");
}

#[test]
fn nobody_is_served_stale_where_the_origin_or_the_client_forbids_it() {
    let swr = "stale_while_revalidate = \"100s\"";
    let rows: [(&str, &str, Lines, &str); 9] = [
        (swr, ", must-revalidate", &[], REPLACED),
        (swr, ", proxy-revalidate", &[], REPLACED),
        (swr, ", s-maxage=50", &[], REPLACED),
        (swr, ", no-cache", &[], "MISS larder; fwd=stale; stored; detail=no-cache"),
        // Beyond the window of 40 s, and without one.
        ("stale_while_revalidate = \"40s\"", "", &[], REPLACED),
        ("", ", stale-while-revalidate=40", &[], REPLACED),
        ("", "", &[], REPLACED),
        (
            swr,
            "",
            &[("Cache-Control", "no-cache")],
            "MISS larder; fwd=request; stored; detail=request-no-cache",
        ),
        (
            swr,
            "",
            &[("Cache-Control", "max-age=10")],
            "MISS larder; fwd=request; stored; detail=request-max-age",
        ),
    ];
    for (cache, more, asked, expected) in rows {
        let front = Front::new(cache, move |request| match request.count {
            1 => stale(more, "old"),
            _ => fresh("new"),
        });
        assert_eq!(told(&front.get("/", &[])), STORED, "{cache}{more}");
        let response = front.get("/", asked);
        assert_eq!(
            (told(&response).as_str(), response.text().as_str()),
            (expected, "new"),
            "{cache}{more} {asked:?}"
        );
    }
}

#[test]
fn a_client_may_accept_what_is_stale() {
    let rows = [("max-stale", STALE), ("max-stale=90", STALE), ("max-stale=10", REPLACED)];
    for (directive, expected) in rows {
        let front =
            Front::new("", |request| if request.count == 1 { stale("", "old") } else { fresh("new") });
        front.get("/", &[]);
        assert_eq!(told(&front.get("/", &[("Cache-Control", directive)])), expected, "{directive}");
    }
}

#[test]
fn an_error_of_the_origin_is_covered_by_what_is_stored() {
    let rows = [
        ("", ", stale-if-error=1000"),
        ("stale_if_error = \"10m\"", ""),
        ("stale_if_error = \"10m\"", ", stale-if-error=0"),
    ];
    for (cache, more) in rows {
        let front = Front::new(cache, move |request| match request.count {
            1 => stale(more, "old"),
            _ => Script::respond(request.target[1..].parse().unwrap(), &[], "error"),
        });
        for status in [500, 502, 503, 504] {
            let path = format!("/{status}");
            front.get(&path, &[]);
            let response = front.get(&path, &[]);
            let expected = INSTEAD_OF_503.replace("503", &status.to_string());
            assert_eq!((response.status, told(&response)), (200, expected), "{cache}{more}");
            assert_eq!((response.text().as_str(), ttl(&response) < -49), ("old", true));
            assert!(age(&response) >= 100);
        }
        // RFC 5861 §4 names those four; these are answers.
        for status in [501, 404, 403, 429] {
            let path = format!("/{status}");
            front.get(&path, &[]);
            let response = front.get(&path, &[]);
            assert_eq!((response.status, response.text().as_str()), (status, "error"), "{cache}{more}");
        }
    }
}

#[test]
fn an_origin_that_cannot_be_reached_is_covered_too() {
    let front =
        Front::new("stale_if_error = \"10m\"", |request| match (request.count, request.target.as_str()) {
            (1, _) => stale("", "old"),
            (_, "/reset") => Script::new().reset(),
            (_, "/closed") => Script::new().close(),
            (_, "/nonsense") => Script::new().bytes("what?\r\n\r\n").close(),
            _ => fresh("new"),
        });
    let paths = ["/reset", "/closed", "/nonsense", "/refused"];
    for path in paths {
        assert_eq!(told(&front.get(path, &[])), STORED);
    }
    for path in &paths[..3] {
        let response = front.get(path, &[]);
        assert_eq!((response.status, told(&response).as_str()), (200, INSTEAD_OF_NOTHING), "{path}");
    }
    front.origin.stop();
    let response = front.get("/refused", &[]);
    assert_eq!((response.status, told(&response).as_str()), (200, INSTEAD_OF_NOTHING));
    assert_eq!(response.text(), "old");
    // What was never stored has nothing to stand in for it.
    let cold = front.get("/cold", &[]);
    assert_eq!((cold.status, cold.headers.get("x-cache")), (502, None));
    assert!(cold.header("cache-status").starts_with("larder; fwd=uri-miss; detail="), "{:?}", cold.headers);
    assert!(cold.json()["cause"].is_string() && cold.json()["message"].is_string());
}

#[test]
fn an_origin_that_is_too_slow_is_covered_too() {
    let origin = Origin::start(|request| match request.count {
        1 if request.target == "/" => stale("", "old"),
        _ => Script::new().stall(),
    });
    let route = "[[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"api\"\n\
                 cache = { stale_if_error = \"10m\" }";
    // The first answer has to come within it, on a busy machine too.
    let timeout = "[upstream.api.timeout]\nfirst_byte = \"1s\"\n";
    let larder = Larder::start(&configuration(&origin, &format!("{timeout}{route}")));
    assert_eq!(told(&larder.get("/", &[])), STORED);
    let response = larder.get("/", &[]);
    assert_eq!((response.status, told(&response).as_str()), (200, INSTEAD_OF_NOTHING));
    let cold = larder.get("/cold", &[]);
    assert_eq!((cold.status, cold.json()["cause"].as_str()), (504, Some("first-byte-timeout")));
}

#[test]
fn an_error_is_shown_where_staleness_is_forbidden() {
    let (sie, no_sid) = ("stale_if_error = \"10m\"", "stale_if_disconnected = \"0s\"");
    let rows: [(&str, &str, Lines); 8] = [
        (sie, ", must-revalidate", &[]),
        (sie, ", proxy-revalidate", &[]),
        (sie, ", s-maxage=50", &[]),
        (sie, ", no-cache", &[]),
        (sie, "", &[("Cache-Control", "no-cache")]),
        ("stale_if_error = \"40s\"", "", &[]),
        (no_sid, ", stale-if-error=40", &[]),
        (no_sid, "", &[]),
    ];
    for (cache, more, asked) in rows {
        let front = Front::new(cache, move |request| match request.count {
            1 => stale(more, "old"),
            _ => Script::respond(503, &[], "down"),
        });
        assert_eq!(told(&front.get("/", &[])), STORED, "{cache}{more}");
        let response = front.get("/", asked);
        assert_eq!((response.status, response.text().as_str()), (503, "down"), "{cache}{more} {asked:?}");
        assert_eq!(response.header("x-cache"), "MISS", "{cache}{more} {asked:?}");
        front.origin.stop();
        let refused = front.get("/", asked);
        assert_eq!((refused.status, refused.headers.get("x-cache")), (502, None), "{cache}{more} {asked:?}");
    }
}

#[test]
fn a_dead_origin_is_covered_for_a_minute_by_default() {
    let front = Front::new("", |request| match (request.count, request.target.as_str()) {
        (1, "/forbidden") => stale(", must-revalidate", "old"),
        (1, "/longer") => {
            Script::ok("old", &[("Cache-Control", "max-age=50"), ("Age", "111"), ("ETag", "\"v1\"")])
        }
        (1, _) => stale("", "old"),
        (_, "/error") => Script::respond(503, &[], "down"),
        _ => Script::new().close(),
    });
    let rows = [("/silent", 200), ("/error", 503), ("/forbidden", 502), ("/longer", 502)];
    for (path, _) in rows {
        assert_eq!(told(&front.get(path, &[])), STORED, "{path}");
    }
    for (path, status) in rows {
        let response = front.get(path, &[]);
        assert_eq!(response.status, status, "§4.2.4 {path}");
        assert_eq!(told(&response) == INSTEAD_OF_NOTHING, status == 200, "{path}");
    }
    assert_eq!(told(&front.get("/refused", &[])), STORED);
    front.origin.stop();
    assert_eq!(told(&front.get("/refused", &[])), INSTEAD_OF_NOTHING);
    assert_eq!(front.get("/forbidden", &[]).status, 502, "§4.2.4");
}

#[test]
fn an_origin_that_failed_is_left_alone_for_a_moment() {
    let front = Front::new("stale_if_error = \"10m\"", |request| match request.count {
        1 => stale("", "old"),
        _ => Script::respond(503, &[], "down"),
    });
    front.get("/", &[]);
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(front.get("/", &[]).text(), "old");
    }
    // Once, and once more for each second that has gone by.
    let most = 2 + usize::try_from(began.elapsed().as_secs()).unwrap();
    let asked = front.origin.count("/") - 1;
    assert!(asked <= most, "{asked} in {:?}", began.elapsed());
}

/// The refresh that was refused held its seat on for as long as the origin had said, also where what it was to refresh
/// had gone: whoever came then went alone, and nothing was stored.
#[test]
fn what_is_purged_while_a_refused_refresh_rests_is_fetched_once_for_all() {
    let front = Front::new("", |request| match (request.method.as_str(), request.count) {
        ("POST", _) => Script::ok("written", &[]),
        (_, 1) => stale(", stale-while-revalidate=600", "old"),
        (_, 2) => Script::respond(429, &[("Retry-After", "60")], "too often"),
        _ => fresh("new"),
    });
    assert_eq!(told(&front.get("/", &[])), STORED);
    assert_eq!(told(&front.get("/", &[])), STALE);
    front.origin.wait_for_requests(2);
    assert_eq!(front.request("POST", "/", &[], b"").status, 200);
    assert!(within(PATIENCE, || told(&front.get("/", &[])) == HIT), "it is stored again");
}

/// A dead origin refuses at once; one that hangs used to hold a client each time that it was asked again.
#[test]
fn nobody_waits_for_an_origin_that_hangs_while_something_stands_in() {
    let gate = Gate::new();
    let held = gate.clone();
    let front = Front::with(
        "timeout = { first_byte = \"1h\", total = \"1h\" }\n\
         [[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"api\"\n\
         [route.cache]\nstale_if_error = \"1h\"",
        move |request| match request.count {
            1 => stale("", "old"),
            2 => Script::respond(503, &[], "down"),
            _ => Script::new().wait(&held).then(fresh("new")),
        },
    );
    assert_eq!(front.get("/", &[]).text(), "old");
    // From the first failure on, everybody gets what is stored, and one fetch at a time asks again.
    assert_eq!(told(&front.get("/", &[])), INSTEAD_OF_503);
    for _ in 0..20 {
        assert_eq!(front.get("/", &[]).header("x-cache"), "STALE");
    }
    let asked_again = || {
        assert_eq!(front.get("/", &[]).text(), "old");
        gate.arrived() == 1
    };
    assert!(within(PATIENCE, asked_again));
    for _ in 0..20 {
        let response = front.get("/", &[]);
        assert_eq!(
            (told(&response).as_str(), response.text().as_str()),
            (WHILE_LEFT_ALONE, "old"),
            "it hangs"
        );
    }
    gate.open();
    assert!(within(PATIENCE, || front.get("/", &[]).text() == "new"));
    assert_eq!(front.origin.count("/"), 3);
}

#[test]
fn only_if_cached_asks_no_origin() {
    let front = Front::new("", |request| match request.target.as_str() {
        "/stale" => stale("", "old"),
        _ => fresh("body"),
    });
    let only = [("Cache-Control", "only-if-cached")];
    let none = front.get("/", &only);
    assert_eq!((none.status, none.header("content-type")), (504, "application/json"));
    assert_eq!(none.json()["cause"], "only-if-cached");
    assert_eq!(
        (none.header("cache-status"), none.headers.get("x-cache")),
        ("larder; detail=only-if-cached", None)
    );
    assert_eq!(front.request("HEAD", "/", &only, b"").status, 504);
    assert_eq!(front.get("/", &[only[0], ("Range", "bytes=0-0")]).status, 504);
    assert_eq!(front.get("/", &[only[0], ("If-Match", "\"v2\"")]).status, 504);
    assert!(front.origin.requests().is_empty());
    front.get("/", &[]);
    assert_eq!(told(&front.get("/", &only)), HIT);
    front.get("/stale", &[]);
    assert_eq!(front.get("/stale", &only).status, 504);
    assert_eq!(front.get("/", &[only[0], ("If-Match", "\"v2\"")]).status, 504);
    assert_eq!(told(&front.get("/stale", &[("Cache-Control", "only-if-cached, max-stale")])), STALE);
}

#[test]
fn only_if_cached_does_not_pass_by_a_cookie_or_a_remembered_no_either() {
    let front = Front::new("ttl.default = \"60s\"", |request| match request.target.as_str() {
        "/no" => Script::ok("a", &[("Cache-Control", "no-store")]),
        _ => Script::ok("a", &[]),
    });
    front.get("/", &[]);
    front.get("/no", &[]);
    let asked = front.origin.requests().len();
    for path in ["/", "/no"] {
        let only = [("Cache-Control", "only-if-cached"), ("Cookie", "sid=1")];
        assert_eq!(front.get(path, &only).status, 504, "{path}");
    }
    assert_eq!(front.get("/no", &[("Cache-Control", "only-if-cached")]).status, 504);
    assert_eq!(front.origin.requests().len(), asked);
}

/// A bug once: what never uses the cache went to the origin all the same.
#[test]
fn only_if_cached_asks_no_origin_whatever_else_keeps_it_from_the_cache() {
    let front = Front::new("cookies = \"bypass\"", |_| Script::ok("a", &[("Cache-Control", "max-age=60")]));
    front.get("/", &[]);
    for (path, fields) in [
        ("/", &[("Cache-Control", "no-store, only-if-cached")][..]),
        ("/", &[("Cache-Control", "only-if-cached"), ("Cookie", "sid=1")]),
        ("/a/../b", &[("Cache-Control", "only-if-cached")]),
    ] {
        assert_eq!(front.get(path, fields).status, 504, "{path} {fields:?}");
    }
    assert_eq!(front.origin.requests().len(), 1);
}

#[test]
fn a_head_or_a_range_is_covered_too_when_the_origin_fails() {
    let front = Front::new("stale_if_error = \"10m\"", |request| match request.count {
        1 => stale("", "old"),
        _ => Script::respond(503, &[], "down"),
    });
    let asked: [(&str, Lines); 2] = [("HEAD", &[]), ("GET", &[("Range", "bytes=0-1")])];
    for (method, fields) in asked {
        let path = format!("/{method}");
        assert_eq!(told(&front.get(&path, &[])), STORED);
        // For later: where an origin has just failed, it is not asked again for a second.
        assert_eq!(told(&front.get(&format!("{path}-2"), &[])), STORED);
        let response = front.request(method, &path, fields, b"");
        assert_eq!(told(&response), INSTEAD_OF_503, "{method}");
        assert_eq!(response.text(), if method == "HEAD" { "" } else { "ol" });
    }
    front.origin.stop();
    for (method, fields) in asked {
        let response = front.request(method, &format!("/{method}-2"), fields, b"");
        assert_eq!(told(&response), INSTEAD_OF_NOTHING, "{method}");
    }
}
