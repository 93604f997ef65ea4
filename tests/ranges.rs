//! Ranges (RFC 9110 §14) on what is stored, on its way, or stored in part (RFC 9111 §3.3, §3.4).
//!
//! Over sockets, in memory and from a real Redis after a restart.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use support::front::{Front, HIT, HOST, Lines, STORED, told};
use support::{Connection, Gate, Larder, Origin, PATIENCE, RedisServer, Request, Script, within};

const BODY: &str = "0123456789abcdefghijklmnopqrstuvwxyz";
const TAG: (&str, &str) = ("ETag", "\"v1\"");
const HOUR: (&str, &str) = ("Cache-Control", "max-age=3600");
/// The whole was fetched, and a part of it delivered.
const CUT: &str = "MISS larder; fwd=uri-miss; fwd-status=200; stored";
/// A part was fetched, and with what was stored the whole delivered.
const COMPLETED: &str = "MISS larder; fwd=partial; fwd-status=206; stored";
const PARTIAL: &str = "MISS larder; fwd=partial; stored";

/// An origin that knows ranges of [`BODY`], with these fields on every answer.
fn ranged(request: &Request, fields: Lines<'_>) -> Script {
    let tag = fields.iter().find(|(name, _)| *name == "ETag").map_or("", |(_, value)| value);
    let of_another = !["", tag].contains(&request.header("if-range"));
    let range = request.header("range").strip_prefix("bytes=").filter(|_| !of_another);
    let Some((first, last)) = range.and_then(|range| range.split_once('-')) else {
        return Script::ok(BODY, fields);
    };
    let end = BODY.len() - 1;
    let (first, last) = match (first, last) {
        ("", count) => (BODY.len() - count.parse::<usize>().unwrap(), end),
        (first, "") => (first.parse().unwrap(), end),
        (first, last) => (first.parse().unwrap(), last.parse::<usize>().unwrap().min(end)),
    };
    let content_range = format!("bytes {first}-{last}/{}", BODY.len());
    let mut fields = fields.to_vec();
    fields.push(("Content-Range", &content_range));
    Script::respond(206, &fields, &BODY[first..=last])
}

fn front(cache: &str, fields: Lines<'static>) -> Front {
    Front::new(cache, move |request| ranged(request, fields))
}

fn range(spec: &'static str) -> [(&'static str, &'static str); 1] {
    [("Range", spec)]
}

/// What the origin was asked for: `Range` and `If-Range` of each request.
fn asked(origin: &Origin) -> Vec<String> {
    let words = |request: &Request| {
        format!("{} {}", request.header("range"), request.header("if-range")).trim().to_owned()
    };
    origin.requests().iter().map(words).collect()
}

#[test]
fn one_range_of_what_is_stored_is_a_part_and_several_are_a_multipart() {
    let body: String = BODY.repeat(40);
    let sent = body.clone();
    let front = Front::new("", move |_| Script::ok(&sent, &[HOUR, TAG, ("Content-Type", "text/plain")]));
    front.get("/", &[]);
    let one = front.get("/", &range("bytes=10-12"));
    assert_eq!(
        (one.status, one.text().as_str(), one.header("content-range")),
        (206, "abc", "bytes 10-12/1440")
    );
    assert_eq!((one.header("content-type"), one.header("etag")), ("text/plain", "\"v1\""));

    let several = front.get("/", &range("bytes=0-1,1000-1001,-1"));
    assert_eq!((several.status, several.header("content-range"), told(&several).as_str()), (206, "", HIT));
    let boundary = several.header("content-type").strip_prefix("multipart/byteranges; boundary=").unwrap();
    let part = |range: &str, text: &str| {
        format!(
            "--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes {range}/1440\r\n\r\n{text}\r\n"
        )
    };
    let expected = [
        part("0-1", "01"),
        part("1000-1001", &body[1000..=1001]),
        part("1439-1439", "z"),
        format!("--{boundary}--\r\n"),
    ];
    assert_eq!(several.text(), expected.concat());
    assert_eq!(several.header("content-length"), expected.concat().len().to_string());

    for (clause, spec, status, length) in [
        ("9110 §15.3.7.2 coalesced into one", "bytes=0-9,5-19", 206, 20),
        ("9110 §14.2 as much as the whole", "bytes=0-800,900-1439", 200, 1440),
        ("9110 §15.5.17", "bytes=2000-,3000-", 416, 0),
        ("9110 §14.2 malformed", "bytes=9-5", 200, 1440),
    ] {
        let response = front.get("/", &range(spec));
        assert_eq!((response.status, response.body.len()), (status, length), "{clause}: {spec}");
    }
    assert_eq!(front.origin.count("/"), 1);
}

/// A bug once: a cache behind this one could keep the 416 for as long as the response itself.
#[test]
fn a_416_says_nothing_of_how_long_it_may_be_kept() {
    let front = Front::new("", |_| {
        Script::ok(BODY, &[HOUR, TAG, ("Expires", "0"), ("CDN-Cache-Control", "max-age=60")])
    });
    front.get("/", &[]);
    let refused = front.get("/", &range("bytes=99-"));
    assert_eq!((refused.status, refused.header("cache-control")), (416, "no-store"));
    for name in ["expires", "cdn-cache-control", "etag", "age"] {
        assert_eq!(refused.headers.get(name), None, "{name}");
    }
}

#[test]
fn a_part_is_stored_and_answers_what_lies_within_it() {
    let front = front("", &[HOUR, TAG]);
    let first = front.get("/", &range("bytes=10-19"));
    assert_eq!((first.status, first.text().as_str(), told(&first).as_str()), (206, "abcdefghij", STORED));
    assert_eq!(first.header("content-range"), "bytes 10-19/36");
    for (spec, text, content_range) in [
        ("bytes=10-19", "abcdefghij", "bytes 10-19/36"),
        ("bytes=12-13", "cd", "bytes 12-13/36"),
        ("bytes=-20", "", ""),
    ] {
        let response = front.get("/", &range(spec));
        if text.is_empty() {
            continue;
        }
        assert_eq!(
            (response.status, response.text().as_str(), told(&response).as_str()),
            (206, text, HIT),
            "{spec}"
        );
        assert_eq!(response.header("content-range"), content_range, "{spec}");
        assert!(response.headers.get("age").is_some());
    }
}

#[test]
fn the_origin_is_asked_for_what_is_missing_and_for_nothing_else() {
    // `part` leaves it at the range; what is missing at its end is to the end of the whole.
    let front = front("range = \"part\"", &[HOUR, TAG]);
    front.get("/", &range("bytes=10-19"));
    let wider = front.get("/", &range("bytes=15-24"));
    assert_eq!((wider.status, wider.text().as_str(), told(&wider).as_str()), (206, &BODY[15..=24], PARTIAL));
    assert_eq!((wider.header("content-range"), wider.header("content-length")), ("bytes 15-24/36", "10"));
    let before = front.get("/", &range("bytes=8-24"));
    assert_eq!((before.text().as_str(), told(&before).as_str()), (&BODY[8..=24], PARTIAL));
    assert_eq!(told(&front.get("/", &range("bytes=8-24"))), HIT);
    let suffix = front.get("/", &range("bytes=-6"));
    assert_eq!(suffix.text(), &BODY[30..]);
    // Two gaps, 0-7 and 25-29, are asked for in one.
    let whole = front.get("/", &[]);
    assert_eq!((whole.status, whole.text().as_str(), told(&whole).as_str()), (200, BODY, COMPLETED));
    assert_eq!((whole.header("content-range"), whole.header("content-length")), ("", "36"));
    assert_eq!(told(&front.get("/", &[])), HIT);
    assert_eq!(front.get("/", &range("bytes=0-3")).text(), "0123");
    assert_eq!(
        asked(&front.origin),
        ["bytes=10-19", "bytes=20-24 \"v1\"", "bytes=8-9 \"v1\"", "bytes=30- \"v1\"", "bytes=0-29 \"v1\""]
    );
}

#[test]
fn a_small_representation_is_completed_at_the_second_range() {
    let front = front("", &[HOUR, TAG]);
    front.get("/", &range("bytes=0-4"));
    let second = front.get("/", &range("bytes=-2"));
    assert_eq!((second.status, second.text().as_str(), told(&second).as_str()), (206, "yz", PARTIAL));
    assert_eq!(second.header("content-range"), "bytes 34-35/36");
    let whole = front.get("/", &[]);
    assert_eq!((whole.status, whole.text().as_str(), told(&whole).as_str()), (200, BODY, HIT));
    assert_eq!(asked(&front.origin), ["bytes=0-4", "bytes=5- \"v1\""]);
}

#[test]
fn a_route_may_have_the_whole_fetched_for_a_range() {
    let front = front("range = \"fill\"", &[HOUR, TAG]);
    let part = front.get("/", &range("bytes=2-3"));
    assert_eq!((part.status, part.text().as_str(), told(&part).as_str()), (206, "23", CUT));
    assert_eq!(part.header("content-range"), "bytes 2-3/36");
    assert_eq!(told(&front.get("/", &range("bytes=-1"))), HIT);
    assert_eq!(asked(&front.origin), [""]);
}

#[test]
fn an_origin_without_ranges_answers_with_the_whole_which_is_cut() {
    let front = Front::new("", |_| Script::ok(BODY, &[HOUR]));
    let part = front.get("/", &range("bytes=2-3"));
    assert_eq!((part.status, part.text().as_str(), told(&part).as_str()), (206, "23", CUT));
    assert_eq!(told(&front.get("/", &range("bytes=-1"))), HIT);
    assert_eq!(asked(&front.origin), ["bytes=2-3"]);
    let beyond = front.get("/b", &range("bytes=99-"));
    assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */36"));
}

#[test]
fn parts_of_different_representations_are_never_put_together() {
    for (why, fields) in [
        ("another tag", [[HOUR, TAG], [HOUR, ("ETag", "\"v2\"")]]),
        ("a weak tag", [[HOUR, ("ETag", "W/\"v1\"")]; 2]),
        ("no validator", [[HOUR, ("X", "y")]; 2]),
    ] {
        let front = Front::new("range = \"part\"", move |request| {
            ranged(request, &fields[usize::from(request.count > 1)])
        });
        front.get("/", &range("bytes=0-4"));
        let whole = front.get("/", &[]);
        assert_eq!((whole.status, whole.text().as_str()), (200, BODY), "{why}");
        assert_eq!(told(&front.get("/", &[])), HIT, "{why}");
        let seen = asked(&front.origin);
        assert_eq!(seen.len(), 2, "{why}: {seen:?}");
    }
}

#[test]
fn a_rest_that_is_not_what_was_asked_for_is_asked_for_anew() {
    for (why, rest) in [
        ("another range", Script::respond(206, &[HOUR, TAG, ("Content-Range", "bytes 6-35/36")], &BODY[6..])),
        (
            "another length",
            Script::respond(206, &[HOUR, TAG, ("Content-Range", "bytes 5-35/37")], &BODY[5..]),
        ),
        (
            "another tag",
            Script::respond(206, &[HOUR, ("ETag", "\"v2\""), ("Content-Range", "bytes 5-35/36")], &BODY[5..]),
        ),
        (
            "shorter than its range",
            Script::respond(206, &[HOUR, TAG, ("Content-Range", "bytes 5-35/36")], &BODY[5..20]),
        ),
        ("not satisfiable", Script::respond(416, &[("Content-Range", "bytes */3")], "")),
        (
            "no longer to be kept",
            Script::respond(
                206,
                &[("Cache-Control", "no-store"), TAG, ("Content-Range", "bytes 5-35/36")],
                &BODY[5..],
            ),
        ),
    ] {
        let front = Front::new("", move |request| match request.header("if-range") {
            "" => ranged(request, &[HOUR, TAG]),
            _ => rest.clone(),
        });
        front.get("/", &range("bytes=0-4"));
        let whole = front.get("/", &[]);
        assert_eq!((whole.status, whole.text().as_str(), whole.complete), (200, BODY, true), "{why}");
        assert_eq!(asked(&front.origin), ["bytes=0-4", "bytes=5- \"v1\"", ""], "{why}");
    }
}

#[test]
fn a_rest_that_breaks_off_is_cut_off_and_the_parts_stay() {
    let front = Front::new("", move |request| match (request.header("if-range"), request.count) {
        (tag, 2) if !tag.is_empty() => {
            let fields = [HOUR, TAG, ("Content-Range", "bytes 5-35/36"), ("Content-Length", "31")];
            Script::new().head(206, &fields).bytes(&BODY[5..20]).close()
        }
        _ => ranged(request, &[HOUR, TAG]),
    });
    front.get("/", &range("bytes=0-4"));
    let mut connection = Connection::open(front.larder.proxy());
    connection.write_head("GET", "/", &[("Host", HOST)]);
    // The head may have been on its way when the body broke, or not.
    assert!(connection.try_response("GET").map_or(true, |broken| !broken.complete));
    assert_eq!(told(&front.get("/", &range("bytes=1-2"))), HIT);
    let whole = front.get("/", &[]);
    assert_eq!((whole.text().as_str(), whole.complete), (BODY, true));
}

#[test]
fn a_part_whose_range_does_not_fit_is_passed_on_and_not_stored_beyond_what_came() {
    let row = |content_range: &'static str, body: &'static str| {
        Front::new("range = \"part\"", move |_| {
            Script::respond(206, &[HOUR, TAG, ("Content-Range", content_range)], body)
        })
    };
    for (why, content_range, body) in [
        ("longer than its range", "bytes 4-5/10", "45678"),
        ("beyond its length", "bytes 4-12/10", "456789abc"),
        ("of unknown length", "bytes 4-5/*", "45"),
        ("no range at all", "bytes", "45"),
    ] {
        let front = row(content_range, body);
        let told = front.told("/", &range("bytes=4-5"), 2);
        assert_eq!(told, ["MISS larder; fwd=uri-miss; detail=partial-content"; 2], "{why}");
    }
    // Shorter: what came is held, from where it begins.
    let front = row("bytes 4-9/10", "45678");
    let first = front.get("/", &range("bytes=-6"));
    assert_eq!(
        (first.status, first.text().as_str(), first.header("content-range")),
        (206, "45678", "bytes 4-9/10")
    );
    let within = front.get("/", &range("bytes=5-8"));
    assert_eq!((within.text().as_str(), told(&within).as_str()), ("5678", HIT));
    assert_ne!(told(&front.get("/", &range("bytes=5-9"))), HIT);
}

#[test]
fn a_part_that_nobody_asked_for_is_passed_on_unstored() {
    let fields = &[HOUR, TAG, ("Content-Range", "bytes 0-4/36")];
    let front = Front::new("", move |_| Script::respond(206, fields, "01234"));
    let told = front.told("/", &[], 2);
    assert_eq!(told, ["MISS larder; fwd=uri-miss; detail=partial-content"; 2]);
}

#[test]
fn a_stale_part_is_confirmed_or_replaced() {
    let stale = |tag: &'static str| [("Cache-Control", "max-age=60"), ("Age", "60"), ("ETag", tag)];
    // Confirmed.
    let front = Front::new("range = \"part\"", move |request| match request.header("if-none-match") {
        "\"v1\"" => Script::respond(304, &[HOUR, TAG], ""),
        _ => ranged(request, &stale("\"v1\"")),
    });
    front.get("/", &range("bytes=5-9"));
    let confirmed = front.get("/", &range("bytes=6-8"));
    assert_eq!((confirmed.status, confirmed.text().as_str()), (206, "678"));
    assert_eq!(told(&confirmed), "REVALIDATED larder; fwd=stale; fwd-status=304; stored");
    assert_eq!(told(&front.get("/", &range("bytes=5-9"))), HIT);
    assert_eq!(front.origin.count("/"), 2);
    // Replaced.
    let front = Front::new("range = \"part\"", move |request| {
        ranged(request, &stale(if request.count == 1 { "\"v1\"" } else { "\"v2\"" }))
    });
    front.get("/", &range("bytes=5-9"));
    let replaced = front.get("/", &range("bytes=6-8"));
    assert_eq!((replaced.status, replaced.text().as_str(), replaced.header("etag")), (206, "678", "\"v2\""));
    assert_eq!(front.origin.last().header("range"), "bytes=6-8");
    // Stale, and more is wanted: the rest is proof enough that what is stored still holds.
    let front = Front::new("range = \"part\"", move |request| {
        let fields = if request.count == 1 { stale("\"v1\"") } else { [HOUR, TAG, ("X", "new")] };
        ranged(request, &fields)
    });
    front.get("/", &range("bytes=5-9"));
    let whole = front.get("/", &[]);
    assert_eq!((whole.status, whole.text().as_str(), whole.header("x")), (200, BODY, "new"));
    assert_eq!(
        whole.headers.all("cache-control").collect::<Vec<_>>(),
        ["max-age=3600"],
        "9110 §15.3.7.3: the newer fields"
    );
    assert_eq!(told(&front.get("/", &[])), HIT);
}

#[test]
fn if_range_asks_the_origin_where_nothing_is_stored_and_what_is_stored_where_something_is() {
    let front = front("range = \"part\"", &[HOUR, TAG]);
    let same = front.get("/", &[("Range", "bytes=0-4"), ("If-Range", "\"v1\"")]);
    assert_eq!((same.status, same.text().as_str()), (206, "01234"));
    let hit = front.get("/", &[("Range", "bytes=0-4"), ("If-Range", "\"v1\"")]);
    assert_eq!(told(&hit), HIT);
    let other = front.get("/", &[("Range", "bytes=0-4"), ("If-Range", "\"old\"")]);
    assert_eq!((other.status, other.text().as_str()), (200, BODY));
    let cold = front.get("/cold", &[("Range", "bytes=0-4"), ("If-Range", "\"old\"")]);
    assert_eq!((cold.status, cold.text().as_str(), told(&cold).as_str()), (200, BODY, STORED));
    assert_eq!(asked(&front.origin), ["bytes=0-4 \"v1\"", "bytes=5- \"v1\"", "bytes=0-4 \"old\""]);
}

#[test]
fn a_range_of_a_whole_that_is_on_its_way_comes_from_it() {
    let gate = Gate::new();
    let held = gate.clone();
    let front = Front::new("", move |_| {
        let fields = [HOUR, TAG, ("Content-Length", "36")];
        Script::new().head(200, &fields).bytes(&BODY[..10]).wait(&held).bytes(&BODY[10..])
    });
    let open = |headers: Lines<'_>| {
        let mut connection = Connection::open(front.larder.proxy());
        connection.write_head("GET", "/", &[&[("Host", HOST)], headers].concat());
        let head = connection.response_head("GET");
        (connection, head)
    };
    let (mut first, mut whole) = open(&[]);
    let (mut second, mut part) = open(&range("bytes=8-11"));
    assert_eq!((part.status, part.header("content-range")), (206, "bytes 8-11/36"));
    assert_eq!(told(&part), "MISS larder; fwd=uri-miss; fwd-status=200; stored; collapsed");
    gate.open();
    second.finish(&mut part);
    first.finish(&mut whole);
    assert_eq!((part.text().as_str(), part.complete), ("89ab", true));
    assert_eq!(whole.text(), BODY);
    assert_eq!(front.origin.count("/"), 1);
}

/// What ends last was not asked for last.
#[test]
fn a_part_that_ends_after_the_whole_does_not_take_its_place() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |request| match request.header("range") {
        "" => Script::ok(BODY, &[HOUR, TAG]),
        _ => {
            let fields = [HOUR, TAG, ("Content-Range", "bytes 0-9/36"), ("Content-Length", "10")];
            Script::new().head(206, &fields).bytes(&BODY[..5]).wait(&held).bytes(&BODY[5..10])
        }
    });
    let larder = Larder::start(&configuration(&origin, ""));
    let whole = || told(&support::get(larder.proxy(), "/", &[("Host", HOST)]));
    let mut slow = Connection::open(larder.proxy());
    slow.write_head("GET", "/", &[("Host", HOST), ("Range", "bytes=0-9")]);
    let mut part = slow.response_head("GET");
    assert_eq!(part.status, 206);
    assert_eq!([whole(), whole()], [STORED, HIT]);
    gate.open();
    slow.finish(&mut part);
    assert_eq!((part.text().as_str(), part.complete), (&BODY[..10], true));
    assert!(within(PATIENCE, || larder.metric("larder_fetches_in_flight") == Some(0.0)), "it is over");
    assert_eq!(whole(), HIT);
    assert_eq!(origin.count("/"), 2);
}

#[test]
fn many_who_ask_for_one_range_make_one_fetch() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |request| Script::new().wait(&held).then(ranged(request, &[HOUR, TAG])));
    let larder = Larder::start(&configuration(&origin, ""));
    let addr = larder.proxy();
    let ask = move || support::get(addr, "/", &[("Host", HOST), ("Range", "bytes=3-5")]);
    let clients: Vec<_> = (0..20).map(|_| std::thread::spawn(ask)).collect();
    assert!(within(PATIENCE, || larder.stats()["active"] == 20));
    gate.open();
    for client in clients {
        let response = client.join().unwrap();
        assert_eq!((response.status, response.text().as_str()), (206, "345"));
    }
    assert_eq!(origin.count("/"), 1);
}

/// One route in front of `origin`, with an admin listener, and `cache` in its `[cache]`.
fn configuration(origin: &Origin, cache: &str) -> String {
    format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n[cache]\n{cache}\n[upstream.o]\nservers = [\"{}\"]\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"o\"\n[route.cache]\nrange = \"part\"\n",
        origin.url()
    )
}

#[test]
fn parts_of_what_is_too_large_as_a_whole_are_kept() {
    let fields = "[cache]\nmax_object = \"20B\"\n[[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"api\"";
    let front = Front::with(fields, |request| ranged(request, &[HOUR, TAG]));
    assert_eq!(told(&front.get("/", &[])), "MISS larder; fwd=uri-miss; detail=too-large");
    assert_eq!(told(&front.get("/", &range("bytes=3-5"))), STORED);
    assert_eq!(told(&front.get("/", &range("bytes=4-4"))), HIT);
    // Together they would be too large: what is stored stays as it is.
    let rest = front.get("/", &range("bytes=3-30"));
    assert_eq!((rest.status, rest.text().as_str()), (206, &BODY[3..=30]));
    assert_eq!(told(&front.get("/", &range("bytes=3-5"))), HIT);
    assert_ne!(told(&front.get("/", &range("bytes=3-30"))), HIT);
}

/// A bug once: parts that Redis still had made a flight for the whole one for a range, and who waited for
/// the whole got the range.
#[test]
fn who_waits_for_the_whole_never_gets_a_part() {
    let (redis, gate) = (RedisServer::start(), Gate::new());
    let held = gate.clone();
    let origin = Origin::start(move |request| {
        let answer = ranged(request, &[("Cache-Control", "max-age=1"), TAG, ("Age", "1")]);
        if request.count > 2 { Script::new().wait(&held).then(answer) } else { answer }
    });
    let cache = format!("redis = \"{}\"\nredis_deadline = \"2s\"\nredis_max_object = \"20B\"", redis.url());
    let larder = Larder::start(&configuration(&origin, &cache));
    assert!(within(PATIENCE, || larder.stats()["tiers"]["redis"]["up"] == true));
    let addr = larder.proxy();
    let get = move |fields: Lines<'static>| support::get(addr, "/", &[&[("Host", HOST)], fields].concat());
    get(&[("Range", "bytes=0-4")]);
    // Too large for Redis, which keeps the part.
    assert_eq!(get(&[]).text(), BODY);
    let part = std::thread::spawn(move || get(&[("Range", "bytes=2-3")]));
    gate.wait_for_arrivals(1);
    let whole = std::thread::spawn(move || get(&[]));
    assert!(within(PATIENCE, || larder.stats()["active"] == 2));
    gate.open();
    let (part, whole) = (part.join().unwrap(), whole.join().unwrap());
    assert_eq!((part.status, part.text().as_str()), (206, "23"));
    assert_eq!((whole.status, whole.text().as_str()), (200, BODY));
}

/// A bug once: the client's `If-Range` gave way to our own conditions, and it got a part of another version.
#[test]
fn if_range_goes_along_when_a_part_has_to_be_confirmed() {
    let front = Front::new("range = \"part\"", |request| {
        let stale = ("Cache-Control", "max-age=0");
        ranged(request, &[stale, if request.count == 1 { TAG } else { ("ETag", "\"v2\"") }])
    });
    front.get("/", &range("bytes=0-9"));
    let resumed = front.get("/", &[("Range", "bytes=2-5"), ("If-Range", "\"v1\"")]);
    assert_eq!((resumed.status, resumed.text().as_str()), (200, BODY));
    let last = front.origin.last();
    assert_eq!((last.header("if-range"), last.header("if-none-match")), ("\"v1\"", "\"v1\""));
}

/// A bug once: without room to keep it, the missing part alone went out as the answer.
#[test]
fn a_rest_for_which_there_is_no_room_goes_out_put_together_and_is_not_kept() {
    let body = BODY.repeat(1000);
    let gate = Gate::new();
    let (held, sent) = (gate.clone(), body.clone());
    let route = "[cache]\nmax_object = \"64KiB\"\nin_flight = \"64KiB\"\n[[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"api\"";
    let front = Front::with(route, move |request| match request.target.as_str() {
        "/busy" => {
            Script::new().head(200, &[HOUR, ("Content-Length", "60000")]).wait(&held).repeat("x", 60000)
        }
        _ if request.header("range") == "bytes=0-9" => {
            Script::respond(206, &[HOUR, TAG, ("Content-Range", "bytes 0-9/36000")], &sent[..10])
        }
        _ => Script::respond(206, &[HOUR, TAG, ("Content-Range", "bytes 10-35999/36000")], &sent[10..]),
    });
    front.get("/", &range("bytes=0-9"));
    let mut busy = Connection::open(front.larder.proxy());
    busy.write_head("GET", "/busy", &[("Host", HOST)]);
    let mut slow = busy.response_head("GET");
    let whole = front.get("/", &[]);
    assert_eq!((whole.status, whole.text() == body), (200, true), "{:?}", whole.headers);
    assert_eq!(told(&whole), "MISS larder; fwd=partial; fwd-status=206; detail=in-flight-limit");
    gate.open();
    busy.finish(&mut slow);
    assert_eq!(told(&front.get("/", &range("bytes=3-4"))), HIT);
}

#[test]
fn several_ranges_of_what_is_not_stored_are_the_origins_to_answer() {
    let front = Front::new("", |request| {
        let several = request.header("range").contains(',');
        if several {
            Script::respond(206, &[HOUR, ("Content-Type", "multipart/byteranges; boundary=x")], "--x--")
        } else {
            Script::ok(BODY, &[HOUR])
        }
    });
    let told = front.told("/", &range("bytes=0-1,30-31"), 2);
    assert_eq!(told, ["MISS larder; fwd=uri-miss; detail=range"; 2]);
}

/// Stops it as a service manager does: what waits for Redis is written.
fn end(mut larder: Larder) {
    larder.terminate();
    assert_eq!(larder.wait_exit(PATIENCE), Some(0));
}

#[test]
fn parts_survive_a_restart_in_redis_and_are_completed_there() {
    let redis = RedisServer::start();
    let origin = Origin::start(|request| ranged(request, &[HOUR, TAG]));
    let cache = format!("redis = \"{}\"\nredis_deadline = \"2s\"", redis.url());
    let config = configuration(&origin, &cache);
    let fresh = || {
        let larder = Larder::start(&config);
        assert!(within(PATIENCE, || larder.stats()["tiers"]["redis"]["up"] == true));
        larder
    };
    let get = |larder: &Larder, headers: Lines<'_>| larder.get("/", &[&[("Host", HOST)], headers].concat());
    let larder = fresh();
    assert_eq!(get(&larder, &range("bytes=4-9")).text(), "456789");
    end(larder);
    let larder = fresh();
    let within_it = get(&larder, &range("bytes=5-6"));
    assert_eq!((within_it.status, within_it.text().as_str()), (206, "56"));
    assert_eq!(told(&within_it), "HIT larder; hit; detail=redis");
    end(larder);
    let larder = fresh();
    let whole = get(&larder, &[]);
    assert_eq!((whole.status, whole.text().as_str()), (200, BODY));
    end(larder);
    let larder = fresh();
    assert_eq!(told(&get(&larder, &[])), "HIT larder; hit; detail=redis");
    let several = get(&larder, &range("bytes=0-0,-1"));
    assert_eq!((several.status, several.text().as_str()), (206, BODY), "made one, since they are so near");
    assert_eq!(asked(&origin), ["bytes=4-9", "bytes=0- \"v1\""]);
}
