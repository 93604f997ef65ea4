//! Compression on the way to clients (`[route.compress]`): for whom, of what, once, and what the head
//! then says.
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

use std::io::Read;
use std::sync::Arc;

use support::front::{Front, HIT, HOST, Lines, STORED, told};
use support::wire::Framing;
use support::{Connection, Gate, Larder, Origin, PATIENCE, RedisServer, Request, Response, Script, within};

const LINE: &str = "{\"id\":17,\"name\":\"larder\",\"tags\":[\"cache\",\"proxy\"]}\n";

fn json(lines: usize) -> String {
    LINE.repeat(lines)
}

const MINUTE: (&str, &str) = ("Cache-Control", "max-age=60");
const JSON: (&str, &str) = ("Content-Type", "application/json");
const TAG: (&str, &str) = ("ETag", "\"v\"");

fn accept(value: &'static str) -> [(&'static str, &'static str); 1] {
    [("Accept-Encoding", value)]
}

/// One route that compresses; `more` are further lines of it.
fn route(more: &str) -> String {
    format!("[[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"api\"\n{more}\n")
}

fn front(behaviour: impl Fn(&Request) -> Script + Send + Sync + 'static) -> Front {
    Front::with(&route("compress = true"), behaviour)
}

/// With figures.
fn counted(origin: &Origin, cache: &str) -> Larder {
    Larder::start(&format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = 2\n[cache]\n{cache}\n\
         [upstream.api]\nservers = [\"{}\"]\n{}",
        origin.url(),
        route("compress = true")
    ))
}

fn encoded(larder: &Larder) -> u64 {
    larder.metric("larder_bodies_encoded_total").unwrap() as u64
}

fn ask(larder: &Larder, more: Lines) -> Response {
    larder.get("/", &[&[("Host", HOST)], more].concat())
}

/// The body without the coding that its head names.
fn plain(response: &Response) -> String {
    assert!(response.complete, "{:?}", response.headers);
    let (mut text, body) = (String::new(), &response.body[..]);
    match response.header("content-encoding") {
        "" => text = response.text(),
        "gzip" => flate2::read::GzDecoder::new(body).read_to_string(&mut text).map(drop).unwrap(),
        "deflate" => flate2::read::ZlibDecoder::new(body).read_to_string(&mut text).map(drop).unwrap(),
        "br" => brotli::Decompressor::new(body, 4096).read_to_string(&mut text).map(drop).unwrap(),
        "zstd" => text = String::from_utf8(zstd::decode_all(body).unwrap()).unwrap(),
        other => panic!("{other}"),
    }
    text
}

fn vary(response: &Response) -> Vec<&str> {
    response.headers.all("vary").collect()
}

#[test]
fn each_client_gets_what_it_likes_best_of_what_the_route_offers() {
    let front = front(|_| Script::ok(json(40), &[MINUTE, JSON, TAG, ("Accept-Ranges", "bytes")]));
    front.get("/", &[]);
    let rows = [
        ("gzip", "gzip"),
        ("br", "br"),
        ("zstd", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip, br;q=0.9", "gzip"),
        ("*", "zstd"),
        ("x-gzip", "gzip"),
    ];
    for (asked, coding) in rows {
        for round in 0..2 {
            let response = front.get("/", &accept(asked));
            assert_eq!(told(&response), HIT, "{asked}");
            assert_eq!(response.header("content-encoding"), coding, "{asked}");
            assert_eq!(plain(&response), json(40), "{asked} {round}");
            assert_eq!(response.header("content-length"), response.body.len().to_string());
            assert!(response.body.len() * 4 < json(40).len(), "{asked}: {}", response.body.len());
            assert_eq!((response.header("etag"), vary(&response)), ("W/\"v\"", vec!["Accept-Encoding"]));
            assert_eq!(response.header("accept-ranges"), "", "{asked}");
        }
    }
    for asked in ["", "identity", "deflate", "gzip;q=0", "identity, gzip;q=0.5", "*;q=0"] {
        let response = front.get("/", &accept(asked));
        assert_eq!((told(&response), response.text()), (HIT.into(), json(40)), "{asked}");
        assert_eq!(response.header("content-encoding"), "", "{asked}");
        assert_eq!((response.header("etag"), vary(&response)), ("\"v\"", vec!["Accept-Encoding"]), "{asked}");
        assert_eq!(response.header("accept-ranges"), "bytes", "{asked}");
    }
    assert_eq!(front.origin.count("/"), 1);
}

#[test]
fn only_what_is_worth_it_and_allows_it_is_compressed() {
    let compressed = |more: &str, status: u16, fields: &[(&str, &str)], body: &str| {
        let fields: Vec<(String, String)> = fields.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        let (body, expected) = (body.to_owned(), body);
        let front = Front::with(&route(more), move |_| {
            let fields: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            Script::respond(status, &fields, &body)
        });
        // On its way in, and from memory.
        let both = [0, 1].map(|_| {
            let response = front.get("/", &accept("gzip"));
            assert_eq!(plain(&response), expected, "{more} {status}");
            (response.header("content-encoding") == "gzip", vary(&response).contains(&"Accept-Encoding"))
        });
        assert_eq!(both[0], both[1], "{more} {status}");
        assert!(both[0].1 || !both[0].0, "{more} {status}");
        both[0].0
    };
    let (on, long) = ("compress = true", json(40));
    assert!(compressed(on, 200, &[MINUTE, JSON], &long));
    assert!(!compressed("", 200, &[MINUTE, JSON], &long), "off unless a route says so");
    assert!(!compressed("compress = false", 200, &[MINUTE, JSON], &long));
    assert!(!compressed(on, 200, &[MINUTE, JSON], &json(3)), "small");
    assert!(compressed("compress = { min_size = \"100B\" }", 200, &[MINUTE, JSON], &json(3)));
    assert!(!compressed("compress = { max_size = \"1KiB\" }", 200, &[MINUTE, JSON], &long));
    assert!(!compressed("compress = { codings = [\"br\"] }", 200, &[MINUTE, JSON], &long));
    assert!(!compressed(on, 200, &[MINUTE, ("Content-Type", "image/png")], &long));
    assert!(!compressed(on, 200, &[MINUTE], &long), "no type");
    assert!(compressed(
        "compress = { types = [\"image/*\"] }",
        200,
        &[MINUTE, ("Content-Type", "image/png")],
        &long
    ));
    assert!(!compressed(on, 404, &[MINUTE, JSON], &long));
    assert!(compressed(on, 203, &[MINUTE, JSON], &long));
    assert!(!compressed(on, 200, &[("Cache-Control", "max-age=60, no-transform"), JSON], &long));
    assert!(!compressed(on, 200, &[MINUTE, JSON, ("Content-Digest", "sha-256=:AA==:")], &long));
    assert!(!compressed(on, 200, &[("Cache-Control", "no-store, no-transform"), JSON], &long));
    assert!(compressed(on, 200, &[("Cache-Control", "no-store"), JSON], &long), "also what is not stored");
    let asked = [("Accept-Encoding", "gzip"), ("Cache-Control", "no-transform")];
    let front = front(|_| Script::ok(json(40), &[MINUTE, JSON]));
    assert_eq!(front.get("/", &asked).header("content-encoding"), "", "RFC 9111 §5.2.1.6");
}

#[test]
fn what_does_not_get_smaller_is_sent_as_it_is() {
    let mut state = 1_u64;
    let noise: Vec<u8> = (0..4000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    let body = noise.clone();
    let front = front(move |_| Script::ok(&body, &[MINUTE, ("Content-Type", "text/plain"), TAG]));
    front.get("/", &[]);
    for _ in 0..2 {
        let response = front.get("/", &accept("gzip"));
        assert_eq!((response.header("content-encoding"), &response.body), ("", &noise));
        assert_eq!((response.header("etag"), vary(&response)), ("\"v\"", vec!["Accept-Encoding"]));
    }
}

#[test]
fn the_vary_of_the_origin_is_added_to() {
    for (said, expected) in [
        ("Origin", vec!["Origin", "Accept-Encoding"]),
        ("origin, accept-encoding", vec!["origin, accept-encoding"]),
        ("*", vec!["*"]),
    ] {
        let front = front(move |_| Script::ok(json(40), &[MINUTE, JSON, ("Vary", said)]));
        for asked in ["gzip", "identity", "gzip"] {
            let response = front.get("/", &accept(asked));
            assert_eq!((vary(&response), plain(&response)), (expected.clone(), json(40)), "{asked}");
        }
    }
}

#[test]
fn the_first_client_gets_it_encoded_too_and_what_came_of_that_is_kept() {
    let origin = Origin::ok(json(2000), &[MINUTE, JSON, TAG]);
    let larder = counted(&origin, "");
    let first = ask(&larder, &accept("zstd"));
    assert_eq!((told(&first), first.header("content-encoding")), (STORED.into(), "zstd"));
    assert_eq!((first.header("etag"), vary(&first)), ("W/\"v\"", vec!["Accept-Encoding"]));
    assert_eq!((first.header("content-length"), first.framing), ("", Some(Framing::Chunked)));
    assert_eq!(plain(&first), json(2000));
    for _ in 0..3 {
        let again = ask(&larder, &accept("zstd"));
        assert_eq!((told(&again), &again.body), (HIT.into(), &first.body));
        assert_eq!(again.header("content-length"), first.body.len().to_string());
    }
    assert_eq!((encoded(&larder), origin.count("/")), (1, 1));
    assert!(larder.metric("larder_encoding_saved_bytes_total").unwrap() > 3.0 * 90_000.0);
}

#[test]
fn many_who_ask_at_once_have_it_encoded_once() {
    let origin = Origin::ok(json(10_000), &[MINUTE, JSON]);
    let larder = Arc::new(counted(&origin, ""));
    ask(&larder, &[]);
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let larder = Arc::clone(&larder);
            std::thread::spawn(move || {
                let response = ask(&larder, &accept("br"));
                (response.header("content-encoding").to_owned(), plain(&response))
            })
        })
        .collect();
    for client in clients {
        assert_eq!(client.join().unwrap(), ("br".into(), json(10_000)));
    }
    assert_eq!((encoded(&larder), origin.count("/")), (1, 1));
}

#[test]
fn who_waits_for_an_encoding_is_told_so() {
    let front = front(|_| Script::ok(json(10_000), &[MINUTE, JSON]));
    front.get("/", &[]);
    let timing = || front.get("/", &accept("br")).header("server-timing").to_owned();
    assert!(timing().contains("coding;dur="), "it is made now");
    assert!(!timing().contains("coding"), "it is there");
}

#[test]
fn when_all_encoders_are_taken_bodies_go_out_as_they_are() {
    let gate = Gate::new();
    let held = gate.clone();
    let fields = [("Cache-Control", "no-store"), JSON, TAG];
    let front = front(move |_| Script::chunked(&fields).chunk(json(9)).wait(&held).last_chunk());
    let mut clients: Vec<_> = (0..66)
        .map(|nth| {
            let mut connection = Connection::open(front.larder.proxy());
            let path = format!("/{nth}");
            connection.write_head("GET", &path, &[("Host", HOST), ("Accept-Encoding", "gzip")]);
            let head = connection.response_head("GET");
            (connection, head)
        })
        .collect();
    gate.open();
    let mut plain_ones = 0;
    for (connection, head) in &mut clients {
        connection.finish(head);
        assert_eq!((plain(head), vary(head)), (json(9), vec!["Accept-Encoding"]));
        if head.header("content-encoding").is_empty() {
            assert_eq!(head.header("etag"), "\"v\"");
            plain_ones += 1;
        }
    }
    assert_eq!(plain_ones, 2);
    let later = front.get("/later", &accept("gzip"));
    assert_eq!(later.header("content-encoding"), "gzip", "an encoder is free again");
}

#[test]
fn guests_of_a_fetch_share_its_encoding_and_each_gets_its_own_form() {
    let (gate, fields) = (Gate::new(), [MINUTE, JSON]);
    let held = gate.clone();
    let origin = Origin::start(move |_| {
        Script::chunked(&fields).chunk(json(100)).wait(&held).chunk(json(100)).last_chunk()
    });
    let larder = counted(&origin, "");
    let mut clients: Vec<_> = ["gzip", "gzip", "br", "identity", "gzip"]
        .map(|asked| {
            let mut connection = Connection::open(larder.proxy());
            connection.write_head("GET", "/", &[("Host", HOST), ("Accept-Encoding", asked)]);
            let head = connection.response_head("GET");
            (asked, connection, head)
        })
        .into();
    gate.open();
    for (asked, connection, head) in &mut clients {
        connection.finish(head);
        assert_eq!(head.header("content-encoding"), asked.trim_start_matches("identity"));
        assert_eq!((plain(head), vary(head)), (json(200), vec!["Accept-Encoding"]), "{asked}");
    }
    assert_eq!((encoded(&larder), origin.count("/")), (2, 1));
    for asked in ["gzip", "br"] {
        let response = ask(&larder, &[("Accept-Encoding", asked)]);
        assert_eq!((told(&response), plain(&response)), (HIT.into(), json(200)));
    }
    assert_eq!(encoded(&larder), 2);
}

#[test]
fn nothing_that_has_come_is_held_back_by_the_encoder() {
    for (fields, coding) in [
        ([MINUTE, JSON], "gzip"),
        ([MINUTE, JSON], "br"),
        ([MINUTE, JSON], "zstd"),
        ([("Cache-Control", "no-store"), JSON], "gzip"),
        ([("Cache-Control", "no-store"), JSON], "br"),
        ([("Cache-Control", "no-store"), JSON], "zstd"),
    ] {
        let gate = Gate::new();
        let held = gate.clone();
        let front = front(move |_| {
            Script::chunked(&fields).chunk("first\n").wait(&held).chunk("second\n").last_chunk()
        });
        let mut connection = Connection::open(front.larder.proxy());
        connection.write_head("GET", "/", &[("Host", HOST), ("Accept-Encoding", coding)]);
        let mut response = connection.response_head("GET");
        assert_eq!(response.header("content-encoding"), coding);
        let mut came = Vec::new();
        while !starts_with(coding, &came, b"first\n") {
            came.extend_from_slice(&connection.read_chunk());
        }
        gate.open();
        connection.finish(&mut response);
        response.body = [came, response.body].concat();
        assert_eq!(plain(&response), "first\nsecond\n", "{coding}");
    }
}

/// Whether what has come so far is enough to read these bytes.
fn starts_with(coding: &str, came: &[u8], wanted: &[u8]) -> bool {
    let mut seen = vec![0; wanted.len()];
    let read = match coding {
        "gzip" => flate2::read::GzDecoder::new(came).read_exact(&mut seen),
        "br" => brotli::Decompressor::new(came, 16).read_exact(&mut seen),
        _ => zstd::Decoder::new(came).and_then(|mut decoder| decoder.read_exact(&mut seen)),
    };
    read.is_ok() && seen == wanted
}

#[test]
fn events_are_left_alone() {
    let front = front(|_| {
        let fields = [("Cache-Control", "no-store"), ("Content-Type", "text/event-stream")];
        Script::chunked(&fields).chunk("data: 1\n\n").last_chunk()
    });
    let response = front.get("/", &accept("gzip"));
    assert_eq!((response.header("content-encoding"), response.text()), ("", "data: 1\n\n".into()));
    assert!(vary(&response).is_empty());
}

#[test]
fn a_body_that_breaks_off_is_broken_in_every_form() {
    for fields in [[MINUTE, JSON], [("Cache-Control", "no-store"), JSON]] {
        let front = front(move |_| Script::chunked(&fields).chunk(json(100)).close());
        for asked in ["gzip", "br", "zstd"] {
            let response = front.get("/", &[("Accept-Encoding", asked)]);
            assert_eq!(response.header("content-encoding"), asked);
            assert!(!response.complete, "{asked}");
        }
        assert_eq!(front.origin.count("/"), 3, "and is not kept");
    }
}

#[test]
fn conditions_work_with_both_forms() {
    let front = front(|_| Script::ok(json(40), &[MINUTE, JSON, TAG]));
    front.get("/", &[]);
    for held in ["\"v\"", "W/\"v\"", "\"x\", W/\"v\"", "*"] {
        for (asked, tag) in [("gzip", "W/\"v\""), ("identity", "\"v\"")] {
            let response = front.get("/", &[("Accept-Encoding", asked), ("If-None-Match", held)]);
            assert_eq!((response.status, response.header("etag")), (304, tag), "{asked} {held}");
            assert_eq!(vary(&response), ["Accept-Encoding"], "RFC 9110 §15.4.5");
            assert_eq!(response.header("content-encoding"), "");
        }
    }
    let other = [("Accept-Encoding", "gzip"), ("If-None-Match", "W/\"x\"")];
    assert_eq!(plain(&front.get("/", &other)), json(40));
    assert_eq!(front.origin.count("/"), 1);
}

#[test]
fn a_304_of_the_origin_names_the_tag_that_the_client_holds() {
    let front = front(|request| match request.header("if-none-match") {
        "" => Script::ok(json(40), &[("Cache-Control", "no-store"), JSON, TAG]),
        _ => Script::respond(304, &[TAG], ""),
    });
    let first = front.get("/", &accept("gzip"));
    assert_eq!((first.header("etag"), first.header("content-encoding")), ("W/\"v\"", "gzip"));
    for (held, tag) in [("W/\"v\"", "W/\"v\""), ("\"v\"", "\"v\"")] {
        let response = front.get("/", &[("Accept-Encoding", "gzip"), ("If-None-Match", held)]);
        assert_eq!((response.status, response.header("etag")), (304, tag));
    }
}

#[test]
fn a_range_is_one_of_the_bytes_as_they_are() {
    let front = front(|_| Script::ok(json(40), &[MINUTE, JSON, TAG]));
    front.get("/", &[]);
    let gzip = ("Accept-Encoding", "gzip");
    let response = front.get("/", &[gzip, ("Range", "bytes=0-9")]);
    assert_eq!((response.status, response.text()), (206, json(40)[..10].to_owned()));
    assert_eq!((response.header("etag"), vary(&response)), ("\"v\"", vec!["Accept-Encoding"]));
    // RFC 9110 §13.1.5: the weak tag of the encoded form is no ground to go on from.
    let response = front.get("/", &[gzip, ("Range", "bytes=0-9"), ("If-Range", "W/\"v\"")]);
    assert_eq!((response.status, plain(&response)), (200, json(40)));
}

#[test]
fn a_head_gets_the_head_of_the_get() {
    let front = front(|request| {
        let control = if request.target == "/" { MINUTE } else { ("Cache-Control", "no-store") };
        Script::ok(json(40), &[control, JSON, TAG])
    });
    front.get("/", &[]);
    let names = ["content-encoding", "etag", "vary", "content-type"];
    for path in ["/", "/unstored"] {
        for asked in [accept("br"), accept("gzip"), accept("identity")] {
            let of = |method| {
                let response = front.request(method, path, &asked, b"");
                let length = response.header("content-length").to_owned();
                (names.map(|name| response.header(name).to_owned()), length)
            };
            let (head, get) = (of("HEAD"), of("GET"));
            assert_eq!(head.0, get.0, "{path} {asked:?}");
            assert!(head.1.is_empty() || head.1 == get.1, "{path} {asked:?}: {head:?} {get:?}");
            if path == "/" {
                assert_eq!(head.1, get.1);
            }
        }
    }
}

#[test]
fn what_a_precondition_guards_stays_as_it_is() {
    let front = front(|_| Script::ok(json(40), &[("Cache-Control", "no-store"), JSON, TAG]));
    let response = front.get("/", &[("Accept-Encoding", "gzip"), ("If-Match", "\"v\"")]);
    assert_eq!((response.header("content-encoding"), response.header("etag")), ("", "\"v\""));
    assert_eq!(vary(&response), ["Accept-Encoding"]);
}

#[test]
fn answers_to_other_methods_are_compressed_as_they_pass() {
    let front = front(|_| Script::ok(json(40), &[JSON]));
    let response = front.request("POST", "/", &accept("br"), b"{}");
    assert_eq!((response.header("content-encoding"), plain(&response)), ("br", json(40)));
}

#[test]
fn a_body_that_a_304_freshened_keeps_its_copies_and_another_body_has_its_own() {
    let origin = Origin::start(|request| match (request.count, request.header("if-none-match")) {
        (1, _) => Script::ok(json(40), &[MINUTE, JSON, ("ETag", "\"1\"")]),
        (2, "\"1\"") => Script::respond(304, &[MINUTE, ("ETag", "\"1\"")], ""),
        _ => Script::ok(json(50), &[MINUTE, JSON, ("ETag", "\"2\"")]),
    });
    let larder = counted(&origin, "");
    ask(&larder, &[]);
    let size = |more: Lines| plain(&ask(&larder, &[&accept("gzip")[..], more].concat())).len() / LINE.len();
    assert_eq!((size(&[]), size(&[]), encoded(&larder)), (40, 40, 1));
    let anew = [("Cache-Control", "no-cache")];
    assert_eq!((size(&anew), size(&[]), encoded(&larder)), (40, 40, 1));
    assert_eq!((size(&anew), size(&[]), encoded(&larder)), (50, 50, 2));
}

#[test]
fn copies_are_weighed() {
    let origin = Origin::ok(json(4000), &[MINUTE, JSON]);
    let larder = counted(&origin, "");
    let weight = || larder.metric("larder_memory_bytes").unwrap();
    ask(&larder, &[]);
    let before = weight();
    let copies: usize = ["gzip", "br", "zstd"]
        .map(|asked| ask(&larder, &[("Accept-Encoding", asked)]).body.len())
        .iter()
        .sum();
    let grown = weight() - before;
    assert!((copies as f64..copies as f64 + 1000.0).contains(&grown), "{grown} for {copies}");
}

#[test]
fn redis_holds_what_the_origin_sent_and_a_restart_encodes_anew() {
    let redis = RedisServer::start();
    let origin = Origin::ok(json(40), &[MINUTE, JSON, TAG]);
    let cache = format!("redis = \"{}\"\nredis_deadline = \"2s\"\nredis_compress = false", redis.url());
    let up = |larder: &Larder| within(PATIENCE, || larder.stats()["tiers"]["redis"]["up"] == true);
    let bytes = {
        let larder = counted(&origin, &cache);
        assert!(up(&larder));
        let first = ask(&larder, &accept("gzip"));
        assert_eq!((told(&first), first.header("content-encoding")), (STORED.into(), "gzip"));
        assert_eq!(plain(&ask(&larder, &accept("br"))), json(40));
        let redis = || larder.stats()["tiers"]["redis"].clone();
        assert!(within(PATIENCE, || redis()["writes"] == 1), "{:#}", redis());
        redis()["written_bytes"].as_u64().unwrap()
    };
    assert!(bytes > json(40).len() as u64, "{bytes}");
    let larder = counted(&origin, &cache);
    assert!(up(&larder));
    let response = ask(&larder, &accept("gzip"));
    assert_eq!((told(&response), plain(&response)), ("HIT larder; hit; detail=redis".into(), json(40)));
    assert_eq!((response.header("etag"), vary(&response)), ("W/\"v\"", vec!["Accept-Encoding"]));
    let response = ask(&larder, &accept("identity"));
    assert_eq!((told(&response), response.header("etag")), (HIT.into(), "\"v\""));
    assert_eq!((encoded(&larder), origin.count("/")), (1, 1));
}
