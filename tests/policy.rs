//! What a route makes of a request: its key, its variants, its credentials, its edits.
//!
//! Memory only, over sockets.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use support::front::{Front, HIT, HOST, Lines, STORED, told, ttl};
use support::{Connection, Gate, Request, Response, Script};

const VARY_STORED: &str = "MISS larder; fwd=vary-miss; stored";

/// Answers with the value of one request field, and these fields.
fn echo(name: &'static str, fields: &'static [(&str, &str)]) -> impl Fn(&Request) -> Script {
    move |request| Script::ok(format!("{}={}", name, request.headers.get(name).unwrap_or("none")), fields)
}

/// What was told, and the body.
fn story(response: &Response) -> (String, String) {
    (told(response), response.text())
}

#[test]
fn each_variant_is_kept_beside_the_others() {
    let front = Front::new(
        "",
        echo("accept-language", &[("Cache-Control", "max-age=60"), ("Vary", "Accept-Language")]),
    );
    let rows: [(Lines, &str); 4] = [
        (&[("Accept-Language", "de")], "accept-language=de"),
        (&[("Accept-Language", "en")], "accept-language=en"),
        // §4.1: absent matches absent alone.
        (&[], "accept-language=none"),
        (&[("Accept-Language", "")], "accept-language="),
    ];
    for (index, (fields, body)) in rows.iter().enumerate() {
        let expected = if index == 0 { STORED } else { VARY_STORED };
        assert_eq!(story(&front.get("/", fields)), (expected.into(), (*body).into()));
    }
    for (fields, body) in rows {
        let hit = front.get("/", fields);
        assert_eq!(story(&hit), (HIT.into(), body.into()));
        assert_eq!(hit.header("vary"), "Accept-Language");
    }
    assert_eq!(front.origin.count("/"), 4);
}

#[test]
fn selecting_fields_match_whatever_their_spacing_and_lines() {
    let front = Front::new(
        "",
        echo("accept", &[("Cache-Control", "max-age=60"), ("Vary", "Accept, Accept-Encoding")]),
    );
    front.get("/", &[("Accept", "a/a, b/b"), ("Accept-Encoding", "gzip")]);
    let same: [Lines; 3] = [
        &[("Accept", "a/a,b/b"), ("Accept-Encoding", "gzip")],
        &[("Accept", "a/a ,  b/b"), ("accept-encoding", "gzip")],
        &[("Accept", "a/a"), ("Accept-Encoding", "gzip"), ("Accept", "b/b"), ("X-Other", "1")],
    ];
    for fields in same {
        assert_eq!(told(&front.get("/", fields)), HIT, "{fields:?}");
    }
    let others: [Lines; 3] = [
        &[("Accept", "b/b, a/a"), ("Accept-Encoding", "gzip")],
        &[("Accept", "a/a, b/b"), ("Accept-Encoding", "br")],
        &[("Accept", "a/a, b/b")],
    ];
    for fields in others {
        assert_eq!(told(&front.get("/", fields)), VARY_STORED, "{fields:?}");
    }
}

#[test]
fn encodings_that_accept_the_same_share_a_variant() {
    let front = Front::new(
        "",
        echo("accept-encoding", &[("Cache-Control", "max-age=60"), ("Vary", "Accept-Encoding")]),
    );
    front.get("/", &[("Accept-Encoding", "gzip, br")]);
    for same in ["br;q=1.0,GZip", "x-gzip , br", "gzip, br, deflate;q=0"] {
        assert_eq!(told(&front.get("/", &[("Accept-Encoding", same)])), HIT, "RFC 9110 §12.5.3 {same}");
    }
    for other in ["gzip", "gzip, br;q=0.5", "gzip, br, identity;q=0"] {
        assert_eq!(told(&front.get("/", &[("Accept-Encoding", other)])), VARY_STORED, "{other}");
    }
}

#[test]
fn languages_are_taken_by_meaning_where_a_route_says_so() {
    let answer = |_: &Request| {
        let fields =
            [("Cache-Control", "max-age=60"), ("Vary", "Accept-Language"), ("Content-Language", "de")];
        Script::ok("hallo", &fields)
    };
    for (cache, told_of_others) in [("vary.normalize = [\"accept-language\"]", HIT), ("", VARY_STORED)] {
        let front = Front::new(cache, answer);
        front.get("/", &[("Accept-Language", "en, de")]);
        for same in ["DE, eN;q=1.0", "de, en", "fr;q=0.5, de;q=1.0"] {
            let found = told(&front.get("/", &[("Accept-Language", same)]));
            assert_eq!(found, told_of_others, "RFC 9110 §12.5.4 {same}");
        }
        assert_eq!(told(&front.get("/", &[("Accept-Language", "EN ,de")])), HIT, "RFC 9111 §4.1");
        assert_eq!(told(&front.get("/", &[("Accept-Language", "fr, de;q=0.5")])), VARY_STORED);
    }
}

#[test]
fn clients_direct_the_cache_unless_the_route_says_no() {
    let answer = |request: &Request| match request.target.as_str() {
        "/lasting" => Script::ok("a", &[("Cache-Control", "max-age=60")]),
        _ => Script::ok("a", &[("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")]),
    };
    let rows: [(Lines, &str); 4] = [
        (&[("Cache-Control", "no-store")], "BYPASS larder; fwd=bypass; detail=request-no-store"),
        (&[("Cache-Control", "max-age=0")], "MISS larder; fwd=request; stored; detail=request-max-age"),
        (&[("Pragma", "no-cache")], "MISS larder; fwd=request; stored; detail=request-no-cache"),
        (&[("Cache-Control", "only-if-cached")], HIT),
    ];
    for (cache, ignored) in [("", false), ("client_cache_control = \"ignore\"", true)] {
        let front = Front::new(cache, answer);
        front.get("/lasting", &[]);
        for (asked, honoured) in rows {
            let found = told(&front.get("/lasting", asked));
            assert_eq!(found, if ignored { HIT } else { honoured }, "§5.2.1 {asked:?}");
        }
        // Nor does a request keep an answer from being stored, or one that is not there from being fetched.
        let first = [("Cache-Control", "no-store, only-if-cached")];
        assert_eq!(told(&front.get("/guessed", &first)) == STORED, ignored, "§5.2.1.5, §5.2.1.7");
        front.get("/guessed", &[]);
        let guessed = front.get("/guessed", &[]);
        assert_eq!(told(&guessed), HIT, "§4.2.2");
        assert!((86_000..=86_400).contains(&ttl(&guessed)), "§4.2.2: a day at most");
        let sent = front.origin.requests();
        assert!(sent.iter().any(|sent| sent.headers.get("cache-control") == Some("no-store")) != ignored);
    }
}

#[test]
fn vary_on_everything_is_never_stored() {
    let front =
        Front::new("", |_| Script::ok("a", &[("Cache-Control", "max-age=60"), ("Vary", "Accept, *")]));
    assert_eq!(front.told("/", &[], 3), ["MISS larder; fwd=uri-miss; detail=vary-star"; 3]);
}

#[test]
fn so_many_variants_are_kept_and_no_more() {
    let routes =
        "[cache]\nvariants = 2\n[[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"api\"";
    let front = Front::with(routes, echo("x-v", &[("Cache-Control", "max-age=60"), ("Vary", "X-V")]));
    // The third is one too many: it says so, and the first goes.
    let capped = "MISS larder; fwd=vary-miss; stored; detail=variants-capped";
    for (variant, expected) in [("1", STORED), ("2", VARY_STORED), ("3", capped)] {
        assert_eq!(told(&front.get("/", &[("X-V", variant)])), expected, "{variant}");
    }
    for variant in ["2", "3"] {
        assert_eq!(told(&front.get("/", &[("X-V", variant)])), HIT, "{variant}");
    }
    assert_eq!(told(&front.get("/", &[("X-V", "1")])), capped);
}

#[test]
fn request_fields_in_the_key_keep_apart_and_show_in_vary() {
    let cache = "ttl.default = \"60s\"\nkey.headers = [\"X-Tenant\", \"Accept-Language\"]";
    let front = Front::new(cache, |request| {
        let tenant = request.headers.get("x-tenant").unwrap_or("none").to_owned();
        match request.target.as_str() {
            "/named" => Script::ok(tenant, &[("Vary", "accept-language, X-Tenant")]),
            "/other" => Script::ok(tenant, &[("Vary", "Accept")]),
            "/private" => Script::ok(tenant, &[("Cache-Control", "private")]),
            _ => Script::ok(tenant, &[("ETag", "\"v\"")]),
        }
    });
    for tenant in ["a", "b", ""] {
        let asked = [("X-Tenant", tenant), ("Accept-Language", "de, en")];
        assert_eq!(story(&front.get("/", &asked)), (STORED.into(), tenant.into()));
    }
    assert_eq!(story(&front.get("/", &[("Accept-Language", "de, en")])), (STORED.into(), "none".into()));
    let again = front.get("/", &[("X-Tenant", "b"), ("Accept-Language", "de,en")]);
    assert_eq!(story(&again), (HIT.into(), "b".into()));
    assert_eq!(told(&front.get("/", &[("X-Tenant", "b"), ("Accept-Language", "en")])), STORED);

    for (path, expected) in [
        ("/", "x-tenant, accept-language"),
        ("/named", "accept-language, x-tenant"),
        ("/other", "accept, x-tenant, accept-language"),
        // Nothing of it is stored here, but a cache in front of this one might key on it.
        ("/private", "x-tenant, accept-language"),
    ] {
        for _ in 0..2 {
            let response = front.get(path, &[]);
            let vary: Vec<_> = response.headers.all("vary").collect();
            assert_eq!(vary.join(", ").to_lowercase(), expected, "{path}");
        }
    }
    let held = front.get("/", &[("If-None-Match", "\"v\"")]);
    assert_eq!((held.status, held.header("vary")), (304, "x-tenant, accept-language"));
}

#[test]
fn query_arguments_that_are_ignored_still_reach_the_origin() {
    let cache = "ttl.default = \"60s\"\nkey.ignore_query = [\"utm_*\", \"gclid\"]";
    let front = Front::new(cache, |request| Script::ok(&request.target, &[]));
    let first = front.get("/a?utm_source=x&id=1&gclid=7", &[]);
    assert_eq!(story(&first), (STORED.into(), "/a?utm_source=x&id=1&gclid=7".into()));
    for same in ["/a?id=1", "/a?id=1&utm_medium=y", "/a?gclid=&id=1", "/a?utm_&id=1"] {
        assert_eq!(told(&front.get(same, &[])), HIT, "{same}");
    }
    for other in ["/a?id=2", "/a", "/a?id=1&utm=1", "/a?id=1&gclid2=1", "/a?id=1&UTM_x=1"] {
        assert_eq!(told(&front.get(other, &[])), STORED, "{other}");
    }
}

#[test]
fn the_order_of_the_query_does_not_matter_but_of_repeats_it_does() {
    let front = Front::new("ttl.default = \"60s\"", |request| Script::ok(&request.target, &[]));
    assert_eq!(story(&front.get("/a?b=2&a=1&c", &[])), (STORED.into(), "/a?b=2&a=1&c".into()));
    for same in ["/a?a=1&b=2&c", "/a?c&b=2&a=1"] {
        assert_eq!(told(&front.get(same, &[])), HIT, "{same}");
    }
    assert_eq!(told(&front.get("/a?x=1&x=2", &[])), STORED);
    assert_eq!(told(&front.get("/a?x=2&x=1", &[])), STORED);
    // An origin may answer an empty query with a redirect to none: as the answer to both, a loop.
    assert_eq!(story(&front.get("/b?", &[])), (STORED.into(), "/b?".into()));
    assert_eq!(story(&front.get("/b", &[])), (STORED.into(), "/b".into()));
    // The path is as it was sent, and the host tells sites apart.
    assert_eq!(told(&front.get("/B", &[])), STORED);
    assert_eq!(told(&front.get("/b", &[("Host", "other.test")])), STORED);
    assert_eq!(told(&front.get("/b", &[("Host", "API.test:80")])), HIT);
}

/// An origin whose answers by path are shared, shared by its own word, or not.
fn by_path(request: &Request) -> Script {
    let fields: &[(&str, &str)] = match request.target.as_str() {
        "/silent" => &[],
        "/max-age" => &[("Cache-Control", "max-age=60")],
        "/s-maxage" => &[("Cache-Control", "s-maxage=60")],
        "/must-revalidate" => &[("Cache-Control", "max-age=60, must-revalidate")],
        "/public" => &[("Cache-Control", "public")],
        "/validator" => &[("ETag", "\"v\"")],
        "/stale" => &[("Cache-Control", "max-age=0"), ("ETag", "\"v\"")],
        other => panic!("{other}"),
    };
    Script::ok(format!("{} {}", request.header("cookie"), request.header("authorization")), fields)
}

const COOKIE: &[(&str, &str)] = &[("Cookie", "sid=1; lang=de")];
const NOT_FOR_COOKIES: &str = "MISS larder; fwd=uri-miss; detail=cookie";

#[test]
fn by_default_a_cookie_leads_past_the_cache_unless_the_origin_itself_allows_sharing() {
    let front = Front::new("ttl.default = \"60s\"", by_path);
    for path in ["/s-maxage", "/must-revalidate", "/public"] {
        assert_eq!(front.told(path, COOKIE, 2), [STORED, HIT], "{path}");
        assert_eq!(told(&front.get(path, &[])), HIT, "{path}");
    }
    // A lifetime alone lets those with a cookie have what came without one, not the other way round.
    assert_eq!(front.told("/max-age", COOKIE, 2), [NOT_FOR_COOKIES; 2]);
    assert_eq!(front.told("/max-age", &[], 2), [STORED, HIT]);
    assert_eq!(told(&front.get("/max-age", COOKIE)), HIT);
    for path in ["/silent", "/validator", "/stale"] {
        assert_eq!(front.told(path, COOKIE, 2), [NOT_FOR_COOKIES; 2], "{path}");
    }
    // What came without a cookie is stored, and those who carry one get their own.
    assert_eq!(front.told("/silent", &[], 2), [STORED, HIT]);
    let own = front.get("/silent", COOKIE);
    assert_eq!(story(&own), ("BYPASS larder; fwd=bypass; detail=cookie".into(), "sid=1; lang=de ".into()));
    assert_eq!(told(&front.get("/silent", &[])), HIT);
}

#[test]
fn neither_does_an_override_share_between_cookies() {
    let front = Front::new("ttl.override = \"60s\"", by_path);
    for path in ["/silent", "/validator", "/stale"] {
        assert_eq!(front.told(path, COOKIE, 2), [NOT_FOR_COOKIES; 2], "{path}");
    }
}

#[test]
fn cookies_may_bypass_be_ignored_or_make_the_key() {
    let bypass = Front::new("cookies = \"bypass\"", by_path);
    let told_of = |front: &Front, cookie: &str| told(&front.get("/max-age", &[("Cookie", cookie)]));
    for path in ["/max-age", "/public"] {
        assert_eq!(bypass.told(path, COOKIE, 2), ["BYPASS larder; fwd=bypass; detail=cookie"; 2], "{path}");
    }
    assert_eq!(bypass.told("/max-age", &[], 2), [STORED, HIT]);
    assert_eq!(told_of(&bypass, "sid=1"), "BYPASS larder; fwd=bypass; detail=cookie");

    let ignore = Front::new("cookies = \"ignore\"\nttl.default = \"60s\"", by_path);
    assert_eq!(ignore.told("/silent", COOKIE, 2), [STORED, HIT]);
    assert_eq!(told(&ignore.get("/silent", &[("Cookie", "sid=2")])), HIT);
    assert_eq!(told(&ignore.get("/silent", &[])), HIT);

    let keyed = Front::new("cookies = [\"lang\"]\nttl.default = \"60s\"", by_path);
    for (cookie, expected) in [
        ("sid=1; lang=de", STORED),
        ("lang=de; sid=2", HIT),
        ("lang=de", HIT),
        ("lang=en; sid=1", STORED),
        ("sid=1", STORED),
        ("other=1", HIT),
    ] {
        let response = keyed.get("/silent", &[("Cookie", cookie)]);
        assert_eq!(told(&response), expected, "{cookie}");
        assert_eq!(response.header("vary"), "cookie");
    }
    assert_eq!(told(&keyed.get("/silent", &[])), HIT);
}

const ALICE: &[(&str, &str)] = &[("Authorization", "Bearer alice")];
const BOB: &[(&str, &str)] = &[("Authorization", "Bearer bob")];

#[test]
fn by_default_credentials_lead_past_the_cache_unless_the_response_allows_sharing() {
    let front = Front::new("ttl.default = \"60s\"", by_path);
    // §3.5: public, s-maxage and must-revalidate have such an effect.
    for path in ["/s-maxage", "/must-revalidate", "/public"] {
        assert_eq!(front.told(path, ALICE, 2), [STORED, HIT], "{path}");
        assert_eq!(told(&front.get(path, BOB)), HIT, "{path}");
    }
    for path in ["/silent", "/max-age", "/validator", "/stale"] {
        let expected = ["MISS larder; fwd=uri-miss; detail=authorization"; 2];
        assert_eq!(front.told(path, ALICE, 2), expected, "{path}");
    }
    assert_eq!(front.told("/max-age", &[], 2), [STORED, HIT]);
    let own = front.get("/max-age", BOB);
    assert_eq!(story(&own), ("BYPASS larder; fwd=bypass; detail=authorization".into(), " Bearer bob".into()));
    assert_eq!(told(&front.get("/max-age", &[])), HIT);
}

#[test]
fn credentials_may_make_the_key_or_be_shared() {
    let each = Front::new("authorization = \"per-credential\"\nttl.default = \"60s\"", by_path);
    for (who, body) in [(ALICE, " Bearer alice"), (BOB, " Bearer bob"), (&[][..], " ")] {
        assert_eq!(story(&each.get("/silent", who)), (STORED.into(), body.into()));
        assert_eq!(story(&each.get("/silent", who)), (HIT.into(), body.into()));
    }
    let share = Front::new("authorization = \"share\"\nttl.default = \"60s\"", by_path);
    assert_eq!(told(&share.get("/silent", ALICE)), STORED);
    for who in [BOB, &[]] {
        assert_eq!(story(&share.get("/silent", who)), (HIT.into(), " Bearer alice".into()));
    }
}

#[test]
fn a_response_that_sets_a_cookie_is_stored_as_the_route_says() {
    const REFUSED: &str = "MISS larder; fwd=uri-miss; detail=set-cookie";
    let rows = [
        ("origin", "max-age=60", REFUSED, 1),
        ("origin", "public, max-age=60", HIT, 1),
        ("origin", "s-maxage=60", HIT, 1),
        ("never", "public, max-age=60", REFUSED, 1),
        ("strip", "max-age=60", HIT, 0),
        ("keep", "max-age=60", HIT, 1),
        // §3.1, §5.2.2.4: the origin itself has the field left out of what is stored.
        ("origin", "max-age=60, no-cache=\"Set-Cookie\"", HIT, 0),
        ("origin", "max-age=60, private=\"set-cookie\"", HIT, 0),
    ];
    for (mode, cache_control, expected, cookies) in rows {
        let fields = [("Cache-Control", cache_control), ("Set-Cookie", "sid=1")];
        let front = Front::new(&format!("set_cookie = \"{mode}\""), move |_| Script::ok("a", &fields));
        // Whoever caused the fetch is the one whom the cookie is for.
        let first = front.get("/", &[]);
        assert_eq!(first.header("set-cookie"), "sid=1", "{mode} {cache_control}: first");
        let second = front.get("/", &[]);
        assert_eq!(told(&second), expected, "{mode} {cache_control}");
        assert_eq!(second.headers.all("set-cookie").count(), cookies, "{mode} {cache_control}: second");
    }
}

#[test]
fn a_field_for_one_user_reaches_the_owner_of_the_fetch_and_nobody_who_shares_it() {
    for (mode, cache_control) in [("strip", "max-age=60"), ("origin", "max-age=60, private=\"Set-Cookie\"")] {
        let gate = Gate::new();
        let held = gate.clone();
        let fields = [("Cache-Control", cache_control), ("Set-Cookie", "sid=1"), ("Set-Cookie", "b=2")];
        let front = Front::new(&format!("set_cookie = \"{mode}\""), move |_| {
            Script::chunked(&fields).chunk("a").wait(&held).last_chunk()
        });
        let ask = || {
            let mut connection = Connection::open(front.larder.proxy());
            connection.write_head("GET", "/", &[("Host", HOST)]);
            let head = connection.response_head("GET");
            (connection, head)
        };
        let (owner, guest) = (ask(), ask());
        assert_eq!(owner.1.headers.all("set-cookie").collect::<Vec<_>>(), ["sid=1", "b=2"], "{mode}");
        assert_eq!(told(&guest.1), format!("{STORED}; collapsed"), "{mode}");
        assert_eq!(guest.1.headers.get("set-cookie"), None, "{mode}");
        gate.open();
    }
}

#[test]
fn anonymous_requests_neither_wait_for_credentialed_ones_nor_learn_from_them() {
    let gate = Gate::new();
    let held = gate.clone();
    let front = Front::new("ttl.default = \"60s\"", move |request| match request.header("cookie") {
        "" => Script::ok("for all", &[]),
        _ => Script::new().wait(&held).head(200, &[("Content-Length", "4")]).bytes("mine"),
    });
    std::thread::scope(|scope| {
        let credentialed = scope.spawn(|| front.get("/", COOKIE));
        gate.wait_for_arrivals(1);
        // The gate is shut: this one has a flight of its own.
        assert_eq!(story(&front.get("/", &[])), (STORED.into(), "for all".into()));
        gate.open();
        assert_eq!(credentialed.join().unwrap().text(), "mine");
    });
    assert_eq!(told(&front.get("/", &[])), HIT);
    // Nor does the memory of an uncacheable answer to a cookie stand in their way.
    assert_eq!(front.told("/b", COOKIE, 2), [NOT_FOR_COOKIES; 2]);
    assert_eq!(front.told("/b", &[], 2), [STORED, HIT]);
}

#[test]
fn a_route_without_a_cache_passes_everything() {
    let routes = "[[route]]\nname = \"off\"\nmatch = { path = \"/off\" }\nupstream = \"api\"\ncache = false\n\
                  [[route]]\nname = \"all\"\nmatch = { path = \"/on/*\" }\nupstream = \"api\"";
    let front =
        Front::with(routes, |_| Script::ok("a", &[("Cache-Control", "max-age=60"), ("ETag", "\"v\"")]));
    assert_eq!(front.told("/off", &[], 3), ["BYPASS larder; fwd=bypass; detail=off"; 3]);
    assert_eq!(front.origin.count("/off"), 3);
    // Conditions are the origin's, which pays them no heed here.
    assert_eq!(front.get("/off", &[("If-None-Match", "\"v\"")]).status, 200);
    assert_eq!(front.origin.last().header("if-none-match"), "\"v\"");
    assert_eq!(front.told("/on/", &[], 2), [STORED, HIT]);
}

#[test]
fn what_no_route_takes_is_a_404_that_says_so() {
    let routes =
        "[[route]]\nname = \"one\"\nmatch = { path = \"/one\", method = \"GET\" }\nupstream = \"api\"";
    let front = Front::with(routes, |_| Script::ok("a", &[]));
    for (method, path) in [("GET", "/two"), ("POST", "/one"), ("GET", "/one/")] {
        let response = front.request(method, path, &[], b"");
        assert_eq!((response.status, response.header("content-type")), (404, "application/json"));
        assert_eq!(response.header("cache-status"), "larder; detail=no-route");
        assert_eq!(response.headers.get("x-cache"), None);
        let body = response.json();
        assert_eq!(body["cause"], "no-route");
        let message = body["message"].as_str().unwrap();
        assert!([method, path, HOST].iter().all(|word| message.contains(word)), "{message}");
    }
    assert!(front.origin.requests().is_empty());
}

#[test]
fn edits_are_applied_on_the_way_and_never_stored() {
    // Both routes share what is stored; a HEAD is answered from a stored GET.
    let routes = r#"
[[route]]
name = "get"
match = { path = "/*", method = "GET" }
upstream = "api"
request_headers = { set = { "X-Api-Version" = "2" }, remove = ["X-Debug"] }
response_headers = { set = { "X-Served-By" = "get" }, remove = ["Server", "Cache-Control"] }
[[route]]
name = "head"
match = { path = "/*", method = "HEAD" }
upstream = "api"
response_headers = { set = { "X-Served-By" = "head" } }
"#;
    let fields = [("Cache-Control", "max-age=60"), ("Server", "origin"), ("Vary", "X-Debug, X-Api-Version")];
    let front = Front::with(routes, move |_| Script::ok("a", &fields));
    let asked = [("X-Debug", "1"), ("X-Api-Version", "1"), ("X-Other", "3")];
    for expected in [STORED, HIT] {
        let response = front.get("/", &asked);
        assert_eq!((told(&response).as_str(), response.header("x-served-by")), (expected, "get"));
        assert_eq!((response.headers.get("server"), response.headers.get("cache-control")), (None, None));
    }
    let request = front.origin.last();
    assert_eq!(request.headers.all("x-api-version").collect::<Vec<_>>(), ["2"]);
    assert_eq!((request.headers.get("x-debug"), request.header("x-other")), (None, "3"));

    let head = front.request("HEAD", "/", &asked, b"");
    assert_eq!((told(&head).as_str(), head.header("x-served-by")), (HIT, "head"));
    assert_eq!((head.header("server"), head.header("cache-control")), ("origin", "max-age=60"));
}
