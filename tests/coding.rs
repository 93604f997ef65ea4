//! Content codings that the origin chose: what is stored is given as it came to who reads it, decoded to
//! who does not, and what cannot be decoded is never given to a client that did not ask for it.
//!
//! Over sockets, in memory alone and, at the end, with Redis across a restart.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use support::front::{Front, HIT, HOST, Lines, STORED, told};
use support::{Gate, Larder, Origin, PATIENCE, RedisServer, Request, Response, Script, get, within};

const TEXT: &str = "the quick brown fox jumps over the lazy dog, and the lazy dog does not mind; ";

fn text() -> String {
    TEXT.repeat(20)
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn encode(coding: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match coding {
        "gzip" | "x-gzip" => out = gzip(body),
        "deflate" => {
            let level = flate2::Compression::default();
            flate2::read::ZlibEncoder::new(body, level).read_to_end(&mut out).map(drop).unwrap();
        }
        "br" => brotli::CompressorReader::new(body, 4096, 5, 20).read_to_end(&mut out).map(drop).unwrap(),
        "zstd" => out = zstd::encode_all(body, 3).unwrap(),
        other => panic!("{other}"),
    }
    out
}

/// An origin that answers in `coding` whatever is asked of it, with these fields besides.
fn coded(coding: &'static str, fields: &'static [(&str, &str)]) -> impl Fn(&Request) -> Script {
    let body = encode(coding, text().as_bytes());
    move |_| {
        let fixed = [("Content-Encoding", coding), ("Content-Type", "text/plain"), ("ETag", "\"v\"")];
        Script::ok(&body, &[&fixed, fields].concat())
    }
}

const MINUTE: (&str, &str) = ("Cache-Control", "max-age=60");

/// What the origin is asked for by a client that cannot read what is stored.
const UNREAD: &str = "MISS larder; fwd=request; detail=coding";

fn accept(value: &'static str) -> [(&'static str, &'static str); 1] {
    [("Accept-Encoding", value)]
}

/// Every `Vary` line.
fn vary(response: &Response) -> Vec<&str> {
    response.headers.all("vary").collect()
}

fn assert_decoded(response: &Response, why: &str) {
    assert_eq!((response.status, response.text()), (200, text()), "{why}: {:?}", response.headers);
    assert_eq!(response.header("content-encoding"), "", "{why}");
    assert_eq!(response.header("content-length"), text().len().to_string(), "{why}");
    assert_eq!(response.header("etag"), "W/\"v\"", "{why}: a form of its own");
    assert_eq!(vary(response), ["Accept-Encoding"], "{why}");
}

#[test]
fn who_does_not_accept_the_stored_coding_gets_a_decoded_copy() {
    for coding in ["gzip", "x-gzip", "deflate", "br", "zstd"] {
        let front = Front::new("", coded(coding, &[MINUTE]));
        let name = coding.trim_start_matches("x-");
        let first = front.get("/", &[("Accept-Encoding", name)]);
        assert_eq!((told(&first), first.header("content-encoding")), (STORED.into(), coding));
        let rows: [Lines; 5] = [
            &accept("identity"),
            &accept(""),
            &accept("gzip;q=0, deflate;q=0, br;q=0, zstd;q=0, *"),
            &accept("compress"),
            // Any coding is acceptable to who says nothing, but who says nothing often reads none.
            &[],
        ];
        for asked in rows {
            let response = front.get("/", asked);
            assert_eq!(told(&response), HIT, "{coding} {asked:?}");
            assert_decoded(&response, &format!("{coding} {asked:?}"));
        }
        // Who accepts it gets it as it came, and is told that others do not.
        for asked in [("Accept-Encoding", name), ("Accept-Encoding", "*;q=0.1")] {
            let response = front.get("/", &[asked]);
            assert_eq!((told(&response), response.body), (HIT.into(), encode(coding, text().as_bytes())));
            let again = front.get("/", &[asked]);
            assert_eq!(again.header("content-encoding"), coding);
            assert_eq!((again.header("etag"), vary(&again)), ("\"v\"", vec!["Accept-Encoding"]));
        }
        assert_eq!(front.origin.count("/"), 1, "{coding}");
    }
}

#[test]
fn the_first_client_gets_what_the_origin_chose_for_it() {
    let front = Front::new("", coded("gzip", &[MINUTE]));
    let response = front.get("/", &accept("identity"));
    assert_eq!((told(&response), response.header("content-encoding")), (STORED.into(), "gzip"));
    assert_eq!(vary(&response), ["Accept-Encoding"]);
    assert_decoded(&front.get("/", &accept("identity")), "from memory");
}

#[test]
fn what_the_origin_chose_for_clients_that_say_nothing_is_given_to_them() {
    let front = Front::new("", coded("gzip", &[MINUTE, ("Vary", "accept-encoding")]));
    front.get("/", &[]);
    let response = front.get("/", &[]);
    assert_eq!((told(&response), response.header("content-encoding")), (HIT.into(), "gzip"));
    assert_eq!(vary(&response), ["accept-encoding"]);
}

#[test]
fn a_coding_that_nobody_has_registered_is_between_the_origin_and_its_clients() {
    let front = Front::new("", |_| Script::ok("body", &[MINUTE, ("Content-Encoding", "foo")]));
    for asked in [&[][..], &accept("gzip, br"), &accept("foo")] {
        let response = front.get("/", asked);
        assert_eq!((response.text().as_str(), response.header("content-encoding")), ("body", "foo"));
    }
    assert_eq!(front.origin.requests().len(), 1);
    // One that is registered needs a client's consent also beside it.
    let front = Front::new("", |_| Script::ok("body", &[MINUTE, ("Content-Encoding", "gzip, utf-8")]));
    front.get("/", &accept("gzip"));
    assert_eq!(told(&front.get("/", &accept("gzip"))), HIT);
    assert_eq!(told(&front.get("/", &accept("identity"))), UNREAD);
}

#[test]
fn a_response_that_must_stay_as_it_is_is_asked_for_anew() {
    let plain_for_others = |fields: &'static [(&str, &str)]| {
        move |request: &Request| match request.header("accept-encoding") {
            "gzip" => Script::ok(gzip(b"coded"), fields),
            _ => Script::ok("plain", &[MINUTE]),
        }
    };
    let rows: [Lines; 4] = [
        // RFC 9111 §5.2.2.6
        &[("Content-Encoding", "gzip"), ("Cache-Control", "max-age=60, no-transform")],
        &[("Content-Encoding", "compress"), MINUTE],
        &[("Content-Encoding", "gzip, br"), MINUTE],
        // Not what it claims to be.
        &[("Content-Encoding", "br"), MINUTE],
    ];
    for fields in rows {
        let front = Front::new("", plain_for_others(fields));
        front.get("/", &accept("gzip"));
        for _ in 0..2 {
            let response = front.get("/", &accept("identity"));
            assert_eq!((told(&response), response.text()), (UNREAD.into(), "plain".into()), "{fields:?}");
        }
        // RFC 9110 §12.5.3: to who says nothing, anything is acceptable.
        let response = front.get("/", &[]);
        assert_eq!((told(&response), response.body), (HIT.into(), gzip(b"coded")), "{fields:?}");
        // §5.2.1.7: no stored response will do.
        let cached = [("Accept-Encoding", "identity"), ("Cache-Control", "only-if-cached")];
        assert_eq!(front.get("/", &cached).status, 504, "{fields:?}");
        let all = front.get("/", &accept("gzip, br, compress"));
        assert_eq!((told(&all), all.body), (HIT.into(), gzip(b"coded")), "{fields:?}");
    }
}

#[test]
fn a_client_may_forbid_changing_the_body() {
    // RFC 9111 §5.2.1.6
    let front = Front::new("", coded("gzip", &[MINUTE]));
    front.get("/", &accept("gzip"));
    let response = front.get("/", &[("Accept-Encoding", "identity"), ("Cache-Control", "no-transform")]);
    assert_eq!((told(&response), front.origin.count("/")), (UNREAD.into(), 2));
}

#[test]
fn a_bomb_is_not_decoded() {
    let bomb = gzip(&vec![0; 4 << 20]);
    let route = "[[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"api\"\n";
    let front =
        Front::with(&format!("[cache]\nmax_object = \"1MiB\"\n{route}"), move |request| {
            match request.header("accept-encoding") {
                "gzip" => Script::ok(&bomb, &[MINUTE, ("Content-Encoding", "gzip")]),
                _ => Script::ok("plain", &[]),
            }
        });
    front.get("/", &accept("gzip"));
    assert_eq!(told(&front.get("/", &accept("gzip"))), HIT);
    for _ in 0..2 {
        let response = front.get("/", &accept("identity"));
        assert_eq!((told(&response), response.text()), (UNREAD.into(), "plain".into()));
    }
}

#[test]
fn ranges_are_of_the_stored_bytes_and_of_nothing_else() {
    let front = Front::new("", coded("gzip", &[MINUTE, ("Accept-Ranges", "bytes")]));
    let whole = front.get("/", &accept("gzip")).body;
    let part = front.get("/", &[("Accept-Encoding", "gzip"), ("Range", "bytes=2-5")]);
    assert_eq!((part.status, &part.body[..]), (206, &whole[2..=5]));
    assert_eq!(part.header("content-encoding"), "gzip");
    for more in [&[][..], &[("If-Range", "\"v\"")], &[("If-Range", "W/\"v\"")]] {
        let asked = [&accept("identity")[..], &[("Range", "bytes=2-5")], more].concat();
        let response = front.get("/", &asked);
        assert_decoded(&response, "RFC 9110 §14.2: a Range may be ignored");
        assert_eq!(response.header("accept-ranges"), "");
    }
}

#[test]
fn conditions_are_judged_by_the_weak_comparison_in_every_form() {
    let front = Front::new("", coded("gzip", &[MINUTE]));
    front.get("/", &accept("gzip"));
    for held in ["\"v\"", "W/\"v\"", "\"x\", W/\"v\"", "*"] {
        let response = front.get("/", &[("Accept-Encoding", "identity"), ("If-None-Match", held)]);
        assert_eq!((response.status, response.header("etag")), (304, "W/\"v\""), "{held}");
        assert_eq!(vary(&response), ["Accept-Encoding"], "RFC 9110 §15.4.5");
        assert!(response.body.is_empty() && response.header("content-encoding").is_empty());
        let response = front.get("/", &[("Accept-Encoding", "gzip"), ("If-None-Match", held)]);
        assert_eq!((response.status, response.header("etag")), (304, "\"v\""), "{held}");
    }
    let other = front.get("/", &[("Accept-Encoding", "identity"), ("If-None-Match", "\"x\"")]);
    assert_decoded(&other, "another tag");
    assert_eq!(front.origin.count("/"), 1);
}

#[test]
fn a_head_gets_the_head_of_the_get() {
    let front = Front::new("", coded("br", &[MINUTE]));
    front.get("/", &accept("br"));
    for asked in [accept("identity"), accept("br")] {
        let names = ["content-encoding", "content-length", "etag", "vary", "content-type"];
        let of = |method| {
            let response = front.request(method, "/", &asked, b"");
            (response.status, names.map(|name| response.header(name).to_owned()))
        };
        assert_eq!(of("HEAD"), of("GET"), "{asked:?}");
    }
    assert_eq!(front.origin.count("/"), 1);
}

#[test]
fn a_body_that_a_304_freshened_keeps_its_copy_and_another_body_has_its_own() {
    let origin = Origin::start(|request| {
        let fields = |tag| {
            let fixed = [("Cache-Control", "max-age=60"), ("Content-Encoding", "gzip"), ("Vary", "x")];
            [&fixed[..], &[("ETag", tag)]].concat()
        };
        match (request.count, request.header("if-none-match")) {
            (1, _) => Script::ok(gzip(b"one"), &fields("\"1\"")),
            (2, "\"1\"") => Script::respond(304, &fields("\"1\""), ""),
            _ => Script::ok(gzip(b"two"), &fields("\"2\"")),
        }
    });
    let larder = Larder::start(&with_admin(&origin, ""));
    let ask = |more: Lines| {
        let host = ("Host", HOST);
        larder.get("/", &[&[host, ("Accept-Encoding", "identity")], more].concat()).text()
    };
    larder.get("/", &[("Host", HOST), ("Accept-Encoding", "gzip")]);
    assert_eq!((ask(&[]), ask(&[]), decoded(&larder)), ("one".into(), "one".into(), 1));
    let anew = [("Cache-Control", "no-cache")];
    assert_eq!((ask(&anew), ask(&[]), decoded(&larder)), ("one".into(), "one".into(), 1));
    ask(&anew);
    assert_eq!((ask(&[]), ask(&[]), decoded(&larder)), ("two".into(), "two".into(), 2));
}

#[test]
fn many_who_ask_at_once_have_it_decoded_once() {
    let body = gzip(text().repeat(500).as_bytes());
    let origin = Origin::ok(&body, &[MINUTE, ("Content-Encoding", "gzip")]);
    let larder = Arc::new(Larder::start(&with_admin(&origin, "")));
    larder.get("/", &[("Host", HOST), ("Accept-Encoding", "gzip")]);
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let larder = Arc::clone(&larder);
            std::thread::spawn(move || larder.get("/", &[("Host", HOST), ("Accept-Encoding", "br")]).text())
        })
        .collect();
    for client in clients {
        assert_eq!(client.join().unwrap(), text().repeat(500));
    }
    assert_eq!((decoded(&larder), origin.count("/")), (1, 1));
}

#[test]
fn a_guest_that_cannot_read_what_its_owners_fetch_brought_goes_alone() {
    let gate = Gate::new();
    let held = gate.clone();
    let front = Front::new("", move |request| match request.header("accept-encoding") {
        "gzip" => Script::new()
            .head(200, &[MINUTE, ("Content-Encoding", "gzip"), ("Content-Length", "100000")])
            .wait(&held)
            .bytes(vec![0; 100_000]),
        _ => Script::ok("plain", &[MINUTE]),
    });
    std::thread::scope(|scope| {
        let owner = scope.spawn(|| front.get("/", &accept("gzip")));
        gate.wait_for_arrivals(1);
        // Who says nothing would get a decoded copy, which there is none of yet.
        for asked in [&accept("identity")[..], &[]] {
            let guest = front.get("/", asked);
            let expected = "MISS larder; fwd=uri-miss; detail=coding";
            assert_eq!((told(&guest), guest.text()), (expected.into(), "plain".into()), "{asked:?}");
        }
        gate.open();
        assert!(owner.join().unwrap().complete);
    });
}

#[test]
fn what_has_another_form_says_so_to_whoever_gets_it() {
    let front = Front::new("", coded("gzip", &[MINUTE]));
    front.get("/", &accept("gzip"));
    for asked in [&accept("gzip")[..], &[("Accept-Encoding", "gzip"), ("Cache-Control", "no-transform")]] {
        let response = front.get("/", asked);
        assert_eq!((told(&response), vary(&response)), (HIT.into(), vec!["Accept-Encoding"]), "{asked:?}");
    }
}

#[test]
fn what_stands_in_for_a_dead_origin_is_readable_or_does_not_stand_in() {
    let answer = |coding: &'static str| {
        move |request: &Request| match request.count {
            1 => Script::ok(gzip(b"body"), &[("Cache-Control", "max-age=0"), ("Content-Encoding", coding)]),
            _ => Script::respond(503, &[], "down"),
        }
    };
    let front = Front::new("stale_if_error = \"10m\"", answer("gzip"));
    front.get("/", &accept("gzip"));
    assert_eq!(front.get("/", &accept("identity")).text(), "body");
    let front = Front::new("stale_if_error = \"10m\"", answer("compress"));
    front.get("/", &accept("compress"));
    assert_eq!(front.get("/", &accept("compress")).body, gzip(b"body"));
    let response = front.get("/", &accept("identity"));
    assert_eq!((response.status, response.text()), (503, "down".into()));
}

#[test]
fn after_a_restart_redis_gives_the_same_answers() {
    let redis = RedisServer::start();
    let body = gzip(text().as_bytes());
    let origin = Origin::ok(&body, &[MINUTE, ("Content-Encoding", "gzip"), ("ETag", "\"v\"")]);
    let config = with_admin(&origin, &format!("redis = \"{}\"\nredis_deadline = \"2s\"", redis.url()));
    let written = |larder: &Larder| larder.stats()["tiers"]["redis"]["writes"].as_u64().unwrap();
    let up = |larder: &Larder| within(PATIENCE, || larder.stats()["tiers"]["redis"]["up"] == true);
    {
        let larder = Larder::start(&config);
        assert!(up(&larder));
        get(larder.proxy(), "/", &[("Host", HOST), ("Accept-Encoding", "gzip")]);
        assert_decoded(&larder.get("/", &[("Host", HOST), ("Accept-Encoding", "br")]), "from memory");
        assert!(within(PATIENCE, || written(&larder) == 1), "{:#}", larder.stats()["tiers"]);
    }
    let larder = Larder::start(&config);
    assert!(up(&larder));
    let response = larder.get("/", &[("Host", HOST), ("Accept-Encoding", "identity")]);
    assert_decoded(&response, "from Redis");
    assert_eq!(told(&response), "HIT larder; hit; detail=redis");
    let response = larder.get("/", &[("Host", HOST), ("Accept-Encoding", "gzip")]);
    assert_eq!((told(&response), response.body), (HIT.into(), body));
    assert_eq!((decoded(&larder), origin.count("/")), (1, 1));
    assert!(within(Duration::from_secs(1), || written(&larder) == 0), "copies stay here");
}

fn with_admin(origin: &Origin, cache: &str) -> String {
    format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = 2\n[cache]\n{cache}\n\
         [upstream.api]\nservers = [\"{}\"]\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"api\"\n",
        origin.url()
    )
}

/// Bodies decoded so far.
fn decoded(larder: &Larder) -> u64 {
    larder.metric("larder_bodies_decoded_total").unwrap() as u64
}
