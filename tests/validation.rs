//! Conditions, ranges and HEAD: what a client is given of a stored response, and how Larder asks
//! the origin whether one still holds.
//!
//! Memory only, over sockets, with one route.

mod support;

use support::front::{Front, HIT, Lines, STORED, age, told, ttl};
use support::{PATIENCE, Request, Response, Script, within};

const BODY: &str = "abcdefghijklmnopqrstuvwxyz";
const MADE: &str = "Mon, 02 Feb 2015 12:00:00 GMT";
const EARLIER: &str = "Mon, 02 Feb 2015 11:59:59 GMT";
const LATER: &str = "Mon, 02 Feb 2015 12:00:01 GMT";

/// With both validators, fresh for a minute.
fn alphabet() -> Script {
    Script::ok(
        BODY,
        &[
            ("Cache-Control", "max-age=60"),
            ("ETag", "\"v1\""),
            ("Last-Modified", MADE),
            ("Content-Type", "text/plain"),
            ("Vary", "Accept"),
            ("X-Other", "1"),
        ],
    )
}

/// Older than its lifetime when it arrives, so that the next request has to ask.
fn stale(tag: &str, body: &str) -> Script {
    let fields = [
        ("Cache-Control", "max-age=50"),
        ("Age", "100"),
        ("ETag", tag),
        ("Last-Modified", MADE),
        ("X-Old", "1"),
    ];
    Script::ok(body, &fields)
}

#[test]
fn a_client_that_holds_the_stored_response_gets_a_304() {
    let rows: &[(Lines, u16)] = &[
        (&[("If-None-Match", "\"v1\"")], 304),
        (&[("If-None-Match", "W/\"v1\"")], 304),
        (&[("If-None-Match", "\"v0\", W/\"v1\"")], 304),
        (&[("If-None-Match", "\"v0\""), ("If-None-Match", "\"v1\"")], 304),
        (&[("If-None-Match", "*")], 304),
        (&[("If-None-Match", "\"v0\"")], 200),
        (&[("If-None-Match", "v1")], 200),
        (&[("If-Modified-Since", MADE)], 304),
        (&[("If-Modified-Since", LATER)], 304),
        (&[("If-Modified-Since", EARLIER)], 200),
        (&[("If-Modified-Since", "yesterday")], 200),
        // RFC 9110 §13.2.2: If-Modified-Since counts only where there is no If-None-Match.
        (&[("If-None-Match", "\"v0\""), ("If-Modified-Since", LATER)], 200),
        (&[("If-None-Match", "\"v1\""), ("If-Modified-Since", EARLIER)], 304),
    ];
    let front = Front::new("", |_| alphabet());
    assert_eq!(told(&front.get("/", &[])), STORED);
    for (conditions, status) in rows {
        let response = front.get("/", conditions);
        assert_eq!((response.status, told(&response).as_str()), (*status, HIT), "{conditions:?}");
        assert_eq!(response.text(), if *status == 304 { "" } else { BODY }, "{conditions:?}");
    }
    assert_eq!(front.origin.count("/"), 1);
}

#[test]
fn a_304_carries_what_a_cache_needs_and_nothing_of_the_representation() {
    let front = Front::new("", |_| alphabet());
    let whole = front.get("/", &[]);
    let response = front.get("/", &[("If-None-Match", "\"v1\"")]);
    for name in ["etag", "cache-control", "vary", "date"] {
        assert_eq!(response.headers.get(name), whole.headers.get(name), "{name}");
        assert!(response.headers.get(name).is_some(), "{name}");
    }
    assert!(age(&response) < 30);
    assert_eq!(
        response.headers.get("x-other"),
        whole.headers.get("x-other"),
        "it is not of the representation"
    );
    for name in ["content-type", "content-length", "transfer-encoding"] {
        assert_eq!(response.headers.get(name), None, "{name}");
    }
}

#[test]
fn on_a_miss_the_condition_is_ours_to_judge_and_the_whole_is_stored() {
    let front = Front::new("", |_| alphabet());
    let miss = front.get("/", &[("If-None-Match", "\"v1\""), ("If-Modified-Since", LATER)]);
    let from_a_200 = "MISS larder; fwd=uri-miss; fwd-status=200; stored";
    assert_eq!((miss.status, told(&miss).as_str(), miss.body.len()), (304, from_a_200, 0));
    let asked = front.origin.last();
    assert_eq!((asked.headers.get("if-none-match"), asked.headers.get("if-modified-since")), (None, None));
    // The 304 has no body to wait for, so it may have come before the whole was in memory.
    let mut hit = front.get("/", &[]);
    assert!(within(PATIENCE, || {
        hit = front.get("/", &[]);
        told(&hit) == HIT
    }));
    assert_eq!((hit.status, hit.text().as_str()), (200, BODY));
    assert_eq!(front.origin.count("/"), 1);

    let other = front.get("/other", &[("If-None-Match", "\"v0\"")]);
    assert_eq!((other.status, told(&other).as_str(), other.text().as_str()), (200, STORED, BODY));
}

#[test]
fn a_response_that_may_not_be_stored_answers_conditions_too() {
    let front = Front::new("", |_| Script::ok("mine", &[("Cache-Control", "no-store"), ("ETag", "\"v1\"")]));
    // The first is judged by Larder; the second, remembered as uncacheable, by the origin.
    for (status, text, forwarded) in [(304, "", " fwd-status=200;"), (200, "mine", "")] {
        let response = front.get("/", &[("If-None-Match", "\"v1\"")]);
        assert_eq!((response.status, response.text().as_str()), (status, text));
        assert_eq!(told(&response), format!("MISS larder; fwd=uri-miss;{forwarded} detail=no-store"));
    }
    assert_eq!(front.origin.last().header("if-none-match"), "\"v1\"");
}

#[test]
fn a_304_of_ours_does_not_swallow_the_clients_cookie() {
    let fields =
        [("Cache-Control", "max-age=60"), ("ETag", "\"v1\""), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")];
    let front = Front::new("", move |_| Script::ok("mine", &fields));
    let response = front.get("/", &[("If-None-Match", "\"v1\"")]);
    assert_eq!(
        (response.status, told(&response).as_str()),
        (304, "MISS larder; fwd=uri-miss; fwd-status=200; detail=set-cookie")
    );
    assert_eq!(response.headers.all("set-cookie").collect::<Vec<_>>(), ["a=1", "b=2"]);
}

/// A session that is renewed on each visit: the cookie of a 304 used to get lost.
#[test]
fn the_cookie_of_an_origins_304_is_for_the_client_that_asked_and_nobody_else() {
    let front = Front::new("", |request| match request.count {
        1 => stale("\"v1\"", BODY),
        n => {
            let (new, other) = (format!("session={n}"), format!("other={n}"));
            let life = if n == 2 { "max-age=60" } else { "no-store" };
            let fields =
                [("ETag", "\"v1\""), ("Cache-Control", life), ("Set-Cookie", &new), ("Set-Cookie", &other)];
            Script::respond(304, &fields, "")
        }
    });
    let cookies =
        |response: &Response| response.headers.all("set-cookie").map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(cookies(&front.get("/", &[])), [""; 0]);
    let renewed = front.get("/", &[]);
    assert_eq!((renewed.status, renewed.text().as_str()), (200, BODY));
    assert_eq!(cookies(&renewed), ["session=2", "other=2"]);
    for _ in 0..2 {
        let hit = front.get("/", &[]);
        assert_eq!((told(&hit).as_str(), cookies(&hit)), (HIT, vec![]));
    }
    // Also where the client holds it, and where the origin takes back its leave to keep it.
    let held = front.get("/", &[("If-None-Match", "\"v1\""), ("Cache-Control", "no-cache")]);
    assert_eq!((held.status, cookies(&held)), (304, vec!["session=3".to_owned(), "other=3".to_owned()]));
    assert_eq!(front.origin.count("/"), 3);
}

#[test]
fn the_cookie_of_a_304_that_nobody_waited_for_is_nobodys() {
    let front = Front::new("stale_while_revalidate = \"1h\"", |request| match request.count {
        1 => stale("\"v1\"", BODY),
        _ => Script::respond(
            304,
            &[("ETag", "\"v1\""), ("Cache-Control", "max-age=60"), ("Set-Cookie", "a=b")],
            "",
        ),
    });
    front.get("/", &[]);
    let all = || {
        let response = front.get("/", &[]);
        assert_eq!(response.headers.get("set-cookie"), None);
        told(&response) == HIT
    };
    assert!(within(PATIENCE, all));
    assert_eq!(front.origin.count("/"), 2);
}

#[test]
fn a_304_without_an_etag_says_when_it_was_modified() {
    let front = Front::new("ttl.default = \"60s\"", |_| Script::ok("a", &[("Last-Modified", MADE)]));
    front.get("/", &[]);
    let response = front.get("/", &[("If-Modified-Since", MADE)]);
    assert_eq!((response.status, response.header("last-modified")), (304, MADE));
}

#[test]
fn errors_never_become_a_304() {
    let front = Front::new("ttl.default = \"60s\"", |_| Script::respond(404, &[("ETag", "\"v1\"")], "gone"));
    for expected in [STORED, HIT] {
        let response = front.get("/", &[("If-None-Match", "\"v1\"")]);
        assert_eq!((response.status, told(&response).as_str()), (404, expected));
        assert_eq!(response.text(), "gone");
    }
}

#[test]
fn if_match_and_if_unmodified_since_are_the_origins_to_judge() {
    let front = Front::new("", |request| match request.header("if-match") {
        "\"v0\"" => Script::respond(412, &[], ""),
        _ => alphabet(),
    });
    assert_eq!(told(&front.get("/", &[])), STORED);
    let failed = front.get("/", &[("If-Match", "\"v0\"")]);
    assert_eq!((failed.status, told(&failed).as_str()), (412, "MISS larder; fwd=request"));
    front.get("/", &[("If-Unmodified-Since", LATER)]);
    assert_eq!(front.origin.last().header("if-unmodified-since"), LATER);
    assert_eq!(told(&front.get("/", &[])), HIT);
    assert_eq!(front.get("/cold", &[("If-Match", "\"v0\"")]).status, 412);
    assert_eq!(told(&front.get("/cold", &[])), STORED);
}

#[test]
fn ranges_are_cut_from_what_is_stored() {
    let rows: &[(&str, u16, &str, &str)] = &[
        ("bytes=0-4", 206, "bytes 0-4/26", "abcde"),
        ("bytes=5-5", 206, "bytes 5-5/26", "f"),
        ("bytes=20-", 206, "bytes 20-25/26", "uvwxyz"),
        ("bytes=20-1000", 206, "bytes 20-25/26", "uvwxyz"),
        ("bytes=-3", 206, "bytes 23-25/26", "xyz"),
        ("bytes=-1000", 206, "bytes 0-25/26", BODY),
        ("BYTES=0-0", 206, "bytes 0-0/26", "a"),
        ("bytes=26-", 416, "bytes */26", ""),
        ("bytes=99-100", 416, "bytes */26", ""),
        ("bytes=-0", 416, "bytes */26", ""),
        // RFC 9110 §15.3.7.2: several that are near each other are one. §14.2: nonsense is ignored.
        ("bytes=0-1,4-5", 206, "bytes 0-5/26", "abcdef"),
        ("bytes=5-4", 200, "", BODY),
        ("lines=0-4", 200, "", BODY),
        ("bytes=x", 200, "", BODY),
    ];
    let front = Front::new("", |_| alphabet());
    front.get("/", &[]);
    for (range, status, content_range, body) in rows {
        let response = front.get("/", &[("Range", range)]);
        assert_eq!((response.status, told(&response).as_str()), (*status, HIT), "{range}");
        assert_eq!(response.header("content-range"), *content_range, "{range}");
        assert_eq!(response.text(), *body, "{range}");
        assert_eq!(response.header("content-length"), body.len().to_string(), "{range}");
        if *status == 206 {
            assert_eq!((response.header("etag"), response.header("content-type")), ("\"v1\"", "text/plain"));
        }
    }
    assert_eq!(front.origin.count("/"), 1);
}

#[test]
fn a_range_counts_only_where_if_range_names_what_is_stored() {
    let rows = [
        ("\"v1\"", 206),
        ("\"v0\"", 200),
        // RFC 9110 §13.1.5: a weak tag never matches.
        ("W/\"v1\"", 200),
        (MADE, 206),
        (LATER, 200),
        (EARLIER, 200),
        ("nonsense", 200),
    ];
    let front = Front::new("", |_| alphabet());
    front.get("/", &[]);
    for (value, status) in rows {
        let response = front.get("/", &[("Range", "bytes=0-1"), ("If-Range", value)]);
        assert_eq!(response.status, status, "{value}");
        assert_eq!(response.text(), if status == 206 { "ab" } else { BODY }, "{value}");
    }
    // §13.2.2: If-None-Match comes first.
    let held = front.get("/", &[("Range", "bytes=0-1"), ("If-None-Match", "\"v1\"")]);
    assert_eq!(held.status, 304);
}

#[test]
fn a_part_that_nobody_asked_for_is_not_stored() {
    let front = Front::new("", |_| {
        Script::respond(206, &[("Content-Range", "bytes 0-1/26"), ("Cache-Control", "max-age=60")], "ab")
    });
    let told = front.told("/", &[], 2);
    assert_eq!(told, ["MISS larder; fwd=uri-miss; detail=partial-content"; 2]);
}

#[test]
fn ranges_are_for_stored_200s_alone() {
    let front = Front::new("ttl.default = \"60s\"", |_| Script::respond(404, &[], "not here"));
    front.get("/", &[]);
    let response = front.get("/", &[("Range", "bytes=0-1")]);
    assert_eq!((response.status, response.text().as_str()), (404, "not here"));
}

#[test]
fn head_is_answered_from_a_stored_get() {
    let front = Front::new("", |_| alphabet());
    front.get("/", &[]);
    let head = front.request("HEAD", "/", &[], b"");
    assert_eq!((head.status, told(&head).as_str(), head.body.len()), (200, HIT, 0));
    assert_eq!((head.header("content-length"), head.header("etag")), ("26", "\"v1\""));
    // RFC 9110 §14.2: Range is for GET.
    let ranged = front.request("HEAD", "/", &[("Range", "bytes=0-1")], b"");
    assert_eq!((ranged.status, ranged.header("content-length")), (200, "26"));
    let held = front.request("HEAD", "/", &[("If-None-Match", "\"v1\"")], b"");
    assert_eq!(held.status, 304);
    assert_eq!(front.origin.count("/"), 1);
}

#[test]
fn head_on_a_cold_key_passes_and_is_not_stored() {
    let front = Front::new("", |_| alphabet());
    for _ in 0..2 {
        let head = front.request("HEAD", "/", &[], b"");
        assert_eq!((head.status, head.body.len(), head.header("content-length")), (200, 0, "26"));
        assert_eq!(told(&head), "MISS larder; fwd=uri-miss; detail=head");
    }
    assert!(front.origin.requests().iter().all(|request| request.method == "HEAD"));
    let get = front.get("/", &[]);
    assert_eq!((told(&get).as_str(), get.text().as_str()), (STORED, BODY));
}

const CONFIRMED: &str = "REVALIDATED larder; fwd=stale; fwd-status=304; stored";

#[test]
fn a_304_freshens_what_is_stored() {
    let front = Front::new("", |request| match request.count {
        1 => stale("\"v1\"", BODY),
        _ => Script::respond(
            304,
            &[("ETag", "\"v1\""), ("Cache-Control", "max-age=1000"), ("X-Old", "2"), ("X-New", "3")],
            "",
        ),
    });
    assert_eq!(told(&front.get("/", &[])), STORED);
    let confirmed = front.get("/", &[]);
    assert_eq!((confirmed.status, told(&confirmed).as_str()), (200, CONFIRMED));
    let asked = front.origin.last();
    assert_eq!((asked.header("if-none-match"), asked.header("if-modified-since")), ("\"v1\"", MADE));
    let hit = front.get("/", &[]);
    assert_eq!(told(&hit), HIT);
    for response in [confirmed, hit] {
        assert_eq!(response.text(), BODY);
        assert_eq!(response.header("content-length"), "26");
        assert_eq!(response.header("cache-control"), "max-age=1000");
        assert_eq!(response.headers.all("x-old").collect::<Vec<_>>(), ["2"]);
        assert_eq!(response.header("x-new"), "3");
        assert!(age(&response) < 30 && ttl(&response) > 900, "{:?}", response.headers);
    }
    assert_eq!(front.origin.count("/"), 2);
}

#[test]
fn only_the_validator_that_there_is_is_sent() {
    let front = Front::new("ttl.max = \"0s\"", |request| match request.target.as_str() {
        "/tag" => Script::ok("a", &[("ETag", "W/\"w\"")]),
        "/date" => Script::ok("a", &[("Last-Modified", MADE)]),
        _ => Script::ok("a", &[]),
    });
    let conditions = |request: Request| {
        let named = |name: &str| request.headers.get(name).map(str::to_owned);
        (named("if-none-match"), named("if-modified-since"))
    };
    let rows = [("/tag", Some("W/\"w\""), None), ("/date", None, Some(MADE)), ("/none", None, None)];
    for (path, tag, date) in rows {
        front.get(path, &[]);
        front.get(path, &[]);
        let expected = (tag.map(str::to_owned), date.map(str::to_owned));
        assert_eq!(conditions(front.origin.last()), expected, "{path}");
        assert_eq!(front.origin.count(path), 2, "{path}");
    }
}

#[test]
fn a_200_in_answer_to_our_condition_replaces_what_is_stored() {
    let front = Front::new("", |request| match request.count {
        1 => stale("\"v1\"", "old"),
        _ => Script::ok("new", &[("ETag", "\"v2\""), ("Cache-Control", "max-age=60")]),
    });
    front.get("/", &[]);
    let replaced = front.get("/", &[]);
    assert_eq!(
        (told(&replaced).as_str(), replaced.text().as_str()),
        ("MISS larder; fwd=stale; stored", "new")
    );
    let hit = front.get("/", &[]);
    assert_eq!((told(&hit).as_str(), hit.text().as_str()), (HIT, "new"));
    assert_eq!((hit.header("etag"), hit.headers.get("x-old")), ("\"v2\"", None));
}

#[test]
fn a_304_that_speaks_of_something_else_is_not_believed() {
    let front = Front::new("", |request| match (request.count, request.header("if-none-match")) {
        (1, _) => stale("\"v1\"", "old"),
        (_, "") => Script::ok("new", &[("ETag", "\"v2\""), ("Cache-Control", "max-age=60")]),
        _ => Script::respond(304, &[("ETag", "\"v2\""), ("Cache-Control", "max-age=60")], ""),
    });
    front.get("/", &[]);
    let response = front.get("/", &[]);
    assert_eq!((response.status, response.text().as_str()), (200, "new"));
    assert_eq!(told(&response), "MISS larder; fwd=stale; stored");
    assert_eq!(front.origin.count("/"), 3);
    assert_eq!(told(&front.get("/", &[])), HIT);
}

#[test]
fn a_304_that_nobody_asked_for_is_a_failure_of_the_origin() {
    let front = Front::new("", |_| Script::respond(304, &[("ETag", "\"v1\"")], ""));
    let response = front.get("/", &[]);
    assert_eq!(response.status, 502);
    assert!(response.json()["cause"].is_string());
}

#[test]
fn a_304_may_take_back_the_leave_to_store() {
    let front = Front::new("", |request| match (request.count, request.header("if-none-match")) {
        (1, _) | (_, "") => stale("\"v1\"", "body"),
        _ => Script::respond(304, &[("ETag", "\"v1\""), ("Cache-Control", "no-store")], ""),
    });
    front.get("/", &[]);
    let last: Response = front.get("/", &[]);
    assert_eq!((last.status, last.text().as_str()), (200, "body"));
    // Nothing is left to ask about: the next request goes without a condition.
    front.get("/", &[]);
    assert_eq!(front.origin.last().headers.get("if-none-match"), None);
}

#[test]
fn a_clients_condition_meets_what_the_origin_confirms_or_replaces() {
    let front = Front::new("", |request| match (request.count, request.target.as_str()) {
        (1, _) => stale("\"v1\"", "old"),
        (_, "/same") => Script::respond(304, &[("ETag", "\"v1\""), ("Cache-Control", "max-age=60")], ""),
        _ => Script::ok("new", &[("ETag", "\"v2\""), ("Cache-Control", "max-age=60")]),
    });
    for path in ["/same", "/changed"] {
        front.get(path, &[]);
    }
    let same = front.get("/same", &[("If-None-Match", "\"v1\"")]);
    assert_eq!((same.status, told(&same).as_str()), (304, CONFIRMED));
    let changed = front.get("/changed", &[("If-None-Match", "\"v1\"")]);
    assert_eq!((changed.status, changed.text().as_str()), (200, "new"));
    // The client holds the new one, the cache the old: it asks with its own tag, not the client's.
    let ahead = Front::new("", |request| match request.count {
        1 => stale("\"v1\"", "old"),
        _ => Script::ok("new", &[("ETag", "\"v2\""), ("Cache-Control", "max-age=60")]),
    });
    ahead.get("/", &[]);
    let held = ahead.get("/", &[("If-None-Match", "\"v2\"")]);
    assert_eq!((held.status, ahead.origin.last().header("if-none-match")), (304, "\"v1\""));
}
