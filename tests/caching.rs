//! What is stored and for how long: lifetimes by the origin and by the route, what a response says
//! on its way, what of it is kept, and the word for every response that is not.
//!
//! Memory only, over sockets, with one route unless said.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use support::front::{Front, HIT, HOST, Lines, STORED, age, cache_status, told, ttl};
use support::{Connection, Gate, PATIENCE, Script, within};

/// A date that no clock of these tests will reach, and one long past.
const FUTURE: &str = "Fri, 31 Dec 2100 23:59:59 GMT";
const PAST: &str = "Thu, 01 Jan 2015 00:00:00 GMT";

#[test]
fn the_first_answer_is_a_stored_miss_and_the_second_a_hit() {
    let front = Front::new("", |_| Script::ok("hello", &[("Cache-Control", "max-age=60")]));
    let miss = front.get("/a", &[]);
    assert_eq!((miss.status, miss.text().as_str(), miss.header("x-cache")), (200, "hello", "MISS"));
    let given = ttl(&miss);
    assert_eq!(miss.header("cache-status"), format!("larder; fwd=uri-miss; stored; ttl={given}"));
    assert!((30..=60).contains(&given), "{given}");
    assert_eq!(miss.headers.get("age"), None);
    let phases = timing_phases(miss.header("server-timing"));
    assert!(phases.contains(&"memory") && phases.contains(&"origin"), "{phases:?}");

    let hit = front.get("/a", &[]);
    assert_eq!((hit.status, hit.text().as_str(), hit.header("x-cache")), (200, "hello", "HIT"));
    assert_eq!(hit.header("content-length"), "5");
    let left = ttl(&hit);
    assert_eq!(hit.header("cache-status"), format!("larder; hit; ttl={left}; detail=memory"));
    assert!((30..60).contains(&left) && age(&hit) < 30, "{:?}", hit.headers);
    assert_eq!(timing_phases(hit.header("server-timing")), ["memory"]);
    for response in [&miss, &hit] {
        assert!(is_process_time(response.header("x-process-time")), "{:?}", response.headers);
    }
    assert_eq!(front.origin.count("/a"), 1);
}

#[test]
fn whoever_comes_while_the_body_is_on_its_way_shares_the_fetch() {
    let gate = Gate::new();
    let held = gate.clone();
    let front = Front::new("", move |_| {
        Script::chunked(&[("Cache-Control", "max-age=60")]).chunk("hel").wait(&held).chunk("lo").last_chunk()
    });
    // With the head in hand, the fetch is in flight, and stays so until the gate opens.
    let ask = |expected: &str| {
        let mut connection = Connection::open(front.larder.proxy());
        connection.write_head("GET", "/", &[("Host", HOST)]);
        let head = connection.response_head("GET");
        assert_eq!(told(&head), expected);
        (connection, head)
    };
    let first = ask("MISS larder; fwd=uri-miss; stored");
    let second = ask("MISS larder; fwd=uri-miss; stored; collapsed");
    assert!(age(&second.1) < 30);
    gate.open();
    for (mut connection, mut response) in [first, second] {
        connection.finish(&mut response);
        assert_eq!((response.text().as_str(), response.complete), ("hello", true));
    }
    assert_eq!((told(&front.get("/", &[])).as_str(), front.origin.count("/")), (HIT, 1));
}

/// The metric names of a `Server-Timing`; panics where one is not `name;dur=1.234`.
fn timing_phases(value: &str) -> Vec<&str> {
    value
        .split(", ")
        .map(|metric| {
            let (name, millis) = metric.split_once(";dur=").unwrap_or_else(|| panic!("{value:?}"));
            let decimals = millis.split_once('.').map_or("", |(_, decimals)| decimals);
            assert!(millis.parse::<f64>().is_ok() && decimals.len() == 3, "{value:?}");
            name
        })
        .collect()
}

/// Seconds with six decimals.
fn is_process_time(value: &str) -> bool {
    let (whole, decimals) = value.split_once('.').unwrap_or_default();
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !whole.is_empty() && digits(whole) && decimals.len() == 6 && digits(decimals)
}

#[test]
fn timing_fields_are_left_out_where_the_configuration_says_so() {
    let route = "[timing]\nprocess_time = false\nserver_timing = false\n\
                 [[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"api\"";
    let front = Front::with(route, |_| Script::ok("a", &[]));
    let response = front.get("/", &[]);
    assert_eq!((response.headers.get("x-process-time"), response.headers.get("server-timing")), (None, None));
}

type Row = (&'static str, &'static [(&'static str, &'static str)], &'static str);

/// Asks each row's path twice: the origin answers with the row's fields, and the second answer's
/// story is the row's.
fn second_answers(cache: &str, status: u16, rows: &'static [Row]) {
    let front = Front::new(cache, move |request| {
        let (_, fields, _) = rows[request.target.trim_start_matches('/').parse::<usize>().unwrap()];
        Script::respond(status, fields, "body")
    });
    for (index, (name, _, expected)) in rows.iter().enumerate() {
        let path = format!("/{index}");
        let first = front.get(&path, &[]);
        let second = front.get(&path, &[]);
        assert_eq!(told(&second), *expected, "{name}; first: {}", told(&first));
        let asked = if *expected == HIT { 1 } else { 2 };
        assert_eq!(front.origin.count(&path), asked, "{name}");
        assert_eq!((second.status, second.text().as_str()), (status, "body"), "{name}");
    }
}

const NO_LIFETIME: &str = "MISS larder; fwd=uri-miss; detail=no-lifetime";

#[test]
fn the_origins_own_lifetime_decides() {
    second_answers(
        "",
        200,
        &[
            ("max-age", &[("Cache-Control", "max-age=60")], HIT),
            ("no lifetime at all", &[], NO_LIFETIME),
            ("§5.2.2.10: s-maxage", &[("Cache-Control", "s-maxage=60")], HIT),
            ("s-maxage before max-age", &[("Cache-Control", "max-age=0, s-maxage=60")], HIT),
            (
                "s-maxage before max-age, the other way",
                &[("Cache-Control", "max-age=60, s-maxage=0")],
                NO_LIFETIME,
            ),
            ("two lines", &[("Cache-Control", "public"), ("Cache-Control", "max-age=60")], HIT),
            ("case", &[("cache-control", "MAX-AGE=60")], HIT),
            ("must-revalidate while fresh", &[("Cache-Control", "max-age=60, must-revalidate")], HIT),
            ("max-age=0", &[("Cache-Control", "max-age=0")], NO_LIFETIME),
            ("§4.2.1: no number is stale", &[("Cache-Control", "max-age=soon")], NO_LIFETIME),
            ("§5.3: Expires", &[("Expires", FUTURE)], HIT),
            ("Expires in the past", &[("Expires", PAST)], NO_LIFETIME),
            ("Expires that is no date", &[("Expires", "0")], NO_LIFETIME),
            ("Expires measured from Date", &[("Date", FUTURE), ("Expires", FUTURE)], NO_LIFETIME),
            ("§5.3: max-age before Expires", &[("Expires", PAST), ("Cache-Control", "max-age=60")], HIT),
            (
                "§5.2.2.5: no-store",
                &[("Cache-Control", "no-store, max-age=60")],
                "MISS larder; fwd=uri-miss; detail=no-store",
            ),
            (
                "§5.2.2.7: private",
                &[("Cache-Control", "private, max-age=60")],
                "MISS larder; fwd=uri-miss; detail=private",
            ),
            (
                "private beside public",
                &[("Cache-Control", "public, private")],
                "MISS larder; fwd=uri-miss; detail=private",
            ),
            (
                "§5.1: older than its lifetime",
                &[("Cache-Control", "max-age=60"), ("Age", "100")],
                NO_LIFETIME,
            ),
            ("§4.2.3: made long ago", &[("Cache-Control", "max-age=60"), ("Date", PAST)], NO_LIFETIME),
        ],
    );
}

#[test]
fn a_route_default_counts_where_the_origin_says_nothing() {
    second_answers(
        "ttl.default = \"60s\"",
        200,
        &[
            ("nothing said", &[], HIT),
            ("said to be stale", &[("Cache-Control", "max-age=0")], NO_LIFETIME),
            ("no-store", &[("Cache-Control", "no-store")], "MISS larder; fwd=uri-miss; detail=no-store"),
            ("private", &[("Cache-Control", "private")], "MISS larder; fwd=uri-miss; detail=private"),
            ("no-cache, nothing to validate with", &[("Cache-Control", "no-cache")], NO_LIFETIME),
        ],
    );
}

#[test]
fn a_route_override_counts_in_place_of_the_origins_lifetime_alone() {
    second_answers(
        "ttl.override = \"60s\"",
        200,
        &[
            ("nothing said", &[], HIT),
            ("said to be stale", &[("Cache-Control", "max-age=0")], HIT),
            ("Expires in the past", &[("Expires", PAST)], HIT),
            (
                "no-store",
                &[("Cache-Control", "no-store, max-age=9")],
                "MISS larder; fwd=uri-miss; detail=no-store",
            ),
            ("private", &[("Cache-Control", "private")], "MISS larder; fwd=uri-miss; detail=private"),
            ("no-cache", &[("Cache-Control", "no-cache")], NO_LIFETIME),
        ],
    );
}

#[test]
fn a_targeted_field_counts_in_place_of_cache_control() {
    const LARDER: &str = "Larder-Cache-Control";
    const CDN: &str = "CDN-Cache-Control";
    type Row = (&'static [(&'static str, &'static str)], &'static str, Option<i64>);
    let rows: [Row; 5] = [
        (&[("Cache-Control", "no-store"), (LARDER, "max-age=1000")], HIT, Some(1000)),
        (&[("Cache-Control", "no-store"), (CDN, "max-age=1000"), ("Expires", "0")], HIT, Some(1000)),
        (&[("Cache-Control", "max-age=5"), (CDN, "max-age=7"), (LARDER, "max-age=1000")], HIT, Some(1000)),
        (&[("Cache-Control", "max-age=1000"), (LARDER, "max-age=7, &")], HIT, Some(1000)),
        (
            &[("Cache-Control", "max-age=60"), (LARDER, "no-store")],
            "MISS larder; fwd=uri-miss; detail=no-store",
            None,
        ),
    ];
    for (fields, expected, lifetime) in rows {
        let front = Front::new("", move |_| Script::ok("a", fields));
        for response in [front.get("/", &[]), front.get("/", &[])] {
            // RFC 9213 §3: the one may be of use downstream; the other is for Larder alone.
            for (name, value) in fields.iter().filter(|(name, _)| *name != LARDER) {
                assert_eq!(response.header(name), *value);
            }
            assert!(response.headers.get(LARDER).is_none());
        }
        let last = front.get("/", &[]);
        assert_eq!(told(&last), expected, "RFC 9213 §2.2 {fields:?}");
        let shown = lifetime.map(|_| ttl(&last));
        assert_eq!(shown.map(|ttl| ttl > 900), lifetime.map(|_| true), "RFC 9213 §2.2 {fields:?}");
    }
}

#[test]
fn lifetimes_show_in_ttl_and_age() {
    let rows: [(&str, Lines, i64, u64); 7] = [
        ("", &[("Cache-Control", "max-age=1000")], 1000, 0),
        ("", &[("Cache-Control", "max-age=1000"), ("Age", "300")], 700, 300),
        ("ttl.default = \"50m\"", &[], 3000, 0),
        ("ttl.default = \"50m\"", &[("Cache-Control", "max-age=1000")], 1000, 0),
        ("ttl.override = \"50m\"", &[("Cache-Control", "max-age=1000")], 3000, 0),
        ("ttl.max = \"500s\"", &[("Cache-Control", "max-age=1000")], 500, 0),
        ("ttl.max = \"500s\"\nttl.override = \"50m\"", &[], 500, 0),
    ];
    for (cache, fields, lifetime, born_at) in rows {
        let fields: Vec<_> = fields.to_vec();
        let front = Front::new(cache, move |_| Script::ok("a", &fields));
        front.get("/", &[]);
        let hit = front.get("/", &[]);
        assert_eq!(told(&hit), HIT, "{cache}");
        // Up to half a minute may have passed on a busy machine.
        assert!((lifetime - 30..=lifetime).contains(&ttl(&hit)), "{cache}: {}", cache_status(&hit));
        assert!((born_at..born_at + 30).contains(&age(&hit)), "{cache}: {}", age(&hit));
    }
}

#[test]
fn a_lifetime_ends() {
    let front = Front::new("", |request| {
        Script::ok(request.count.to_string(), &[("Cache-Control", "max-age=1"), ("ETag", "\"a\"")])
    });
    assert_eq!(told(&front.get("/", &[])), STORED);
    let mut last = String::new();
    let ended = within(PATIENCE, || {
        let response = front.get("/", &[]);
        last = told(&response);
        response.text() == "2"
    });
    assert!(ended, "{last}");
    assert_eq!(last, "MISS larder; fwd=stale; stored");
}

#[test]
fn a_no_cache_response_is_kept_and_confirmed_at_every_use() {
    let front = Front::new("", |request| match request.header("if-none-match") {
        "\"v\"" => Script::respond(304, &[("ETag", "\"v\"")], ""),
        _ => Script::ok("once", &[("ETag", "\"v\""), ("Cache-Control", "no-cache, max-age=60")]),
    });
    assert_eq!(told(&front.get("/", &[])), STORED);
    for asked in 2..5 {
        let response = front.get("/", &[]);
        assert_eq!(told(&response), "REVALIDATED larder; fwd=stale; fwd-status=304; stored; detail=no-cache");
        assert_eq!((response.status, response.text().as_str()), (200, "once"));
        assert_eq!(front.origin.count("/"), asked);
    }
}

#[test]
fn what_is_for_one_request_or_one_cache_alone_reaches_no_client_also_where_a_304_has_brought_it() {
    const ALONE: [(&str, &str); 2] = [("Larder-Cache-Control", "max-age=60"), ("Server-Timing", "db;dur=9")];
    for (stored, confirmed) in [(&ALONE[..], &[][..]), (&[][..], &ALONE[..])] {
        let front = Front::new("", move |request| match request.header("if-none-match") {
            "\"v\"" => Script::respond(304, &[&[("ETag", "\"v\"")], confirmed].concat(), ""),
            _ => {
                let fields = [("ETag", "\"v\""), ("Cache-Control", "no-cache")];
                Script::ok("once", &[&fields, stored].concat())
            }
        });
        front.get("/", &[]);
        front.get("/", &[]);
        let hit = front.get("/", &[]);
        assert_eq!(told(&hit), HIT, "RFC 9213 §2.2 {stored:?} {confirmed:?}");
        assert!(hit.headers.get("larder-cache-control").is_none(), "{:?}", hit.headers);
        assert_eq!(timing_phases(hit.header("server-timing")), ["memory"]);
    }
}

#[test]
fn errors_are_not_kept_on_a_route_default_but_absence_is() {
    let rows = [
        (200, true),
        (203, true),
        (301, true),
        (308, true),
        (404, true),
        (410, true),
        (201, false),
        (302, false),
        (307, false),
        (400, false),
        (403, false),
        (405, true),
        (414, true),
        (429, false),
        (500, false),
        (501, true),
        (502, false),
        (503, false),
    ];
    let front = Front::new("ttl.default = \"60s\"", |request| {
        Script::respond(request.target[1..].parse().unwrap(), &[], "body")
    });
    for (status, kept) in rows {
        let path = format!("/{status}");
        let expected = if kept { [STORED, HIT] } else { ["MISS larder; fwd=uri-miss; detail=status"; 2] };
        assert_eq!(front.told(&path, &[], 2), expected, "{status}");
        assert_eq!(front.get(&path, &[]).status, status);
    }
    let explicit = Front::new("", |request| {
        let status = request.target[1..].parse().unwrap();
        Script::respond(status, &[("Cache-Control", "max-age=60")], "body")
    });
    // §3: an explicit lifetime makes any final status storable, but for those that may never be.
    for status in [200, 201, 302, 307, 400, 402, 404, 405, 414, 500, 501, 502, 503] {
        assert_eq!(explicit.told(&format!("/{status}"), &[], 2), [STORED, HIT], "{status}");
    }
    for status in [401, 403, 406, 408, 411, 412, 413, 416, 417, 421, 422, 426, 428, 429, 431, 505, 511] {
        let told = explicit.told(&format!("/{status}"), &[], 2);
        assert_eq!(told, ["MISS larder; fwd=uri-miss; detail=status"; 2], "{status}");
    }
}

#[test]
fn an_empty_answer_is_kept_like_any_other() {
    let front = Front::new("ttl.default = \"60s\"", |request| match request.target.as_str() {
        "/204" => Script::respond(204, &[("X-A", "1")], ""),
        _ => Script::ok("", &[]),
    });
    assert_eq!(front.told("/204", &[], 2), [STORED, HIT]);
    let none = front.get("/204", &[]);
    assert_eq!((none.status, none.header("x-a"), none.headers.get("content-length")), (204, "1", None));
    assert_eq!(front.told("/empty", &[], 2), [STORED, HIT]);
    let empty = front.get("/empty", &[]);
    assert_eq!((empty.status, empty.header("content-length"), empty.complete), (200, "0", true));
}
