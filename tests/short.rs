//! A plain request is answered the same whichever way it goes: without hyper, from memory or as soon as it can be, or
//! the long way, on which every other request goes.
//!
//! An empty line before a request (RFC 9112 §2.2) changes nothing of what it asks for, and is not plain: so the same
//! request with it and without it goes both ways.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use support::front::{Front, HIT, told};
use support::{
    Connection, Gate, Larder, Origin, PATIENCE, RedisServer, Request, Response, Script, tier, within,
};

/// Headers of the sample responses, and contents.
const TAGGED: &[(&str, &str)] = &[
    ("Cache-Control", "max-age=3600"),
    ("ETag", "\"v1\""),
    ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ("Content-Type", "text/plain"),
    ("Age", "5"),
    ("X-Cache", "HIT from elsewhere"),
    ("X-Process-Time", "7"),
    ("Link", "<a>"),
    ("Link", "<b>"),
    ("Set-Cookie-Not", "x"),
];

fn origin(request: &Request) -> Script {
    let hour = ("Cache-Control", "max-age=3600");
    match request.target.split('?').next().unwrap_or_default() {
        "/tagged" => Script::ok("tagged", TAGGED),
        "/dated" => Script::ok("dated", &[hour, ("Date", "Sun, 06 Nov 1994 08:49:37 GMT"), ("Expires", "0")]),
        "/modified" => Script::ok("m", &[hour, ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")]),
        "/large" => Script::ok("x".repeat(300_000), &[hour]),
        "/middling" => Script::ok("y".repeat(17_000), &[hour]),
        "/empty" => Script::ok("", &[hour]),
        "/nothing" => Script::respond(204, &[hour, ("Content-Length", "0")], ""),
        "/gone" => Script::respond(410, &[hour], "gone"),
        "/none" => Script::respond(404, &[hour, ("Content-Type", "text/html")], "not here"),
        "/moved" => Script::respond(301, &[hour, ("Location", "/tagged")], ""),
        "/odd" => Script::respond(200, &[hour, ("X-Obs", "caf\u{e9}"), ("X-Empty", "")], "odd"),
        "/chunked" => Script::chunked(&[hour]).chunk("a chunk").last_chunk(),
        "/timed" => Script::ok("timed", &[hour, ("Server-Timing", "db;dur=5"), ("Trailer", "X-Late")]),
        "/tags" => Script::ok("tags", &[hour, ("Cache-Tag", "a b"), ("Surrogate-Key", "c")]),
        "/varied" => {
            let body = format!("for {}", request.header("accept-language"));
            Script::ok(body, &[hour, ("Vary", "Accept-Language")])
        }
        "/gzip" => Script::ok(GZIP, &[hour, ("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")]),
        "/gzipped" => Script::ok(GZIP, &[hour, ("Content-Encoding", "gzip")]),
        "/private" => Script::ok("private", &[("Cache-Control", "private, max-age=3600")]),
        _ => Script::ok("other", &[("Cache-Control", "no-store")]),
    }
}

/// `a` in gzip.
const GZIP: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x4b, 4, 0, 0x43, 0xbe, 0xb7, 0xe8, 1, 0, 0, 0];

const PATHS: &[&str] = &[
    "/tagged",
    "/dated",
    "/modified",
    "/large",
    "/middling",
    "/empty",
    "/nothing",
    "/gone",
    "/none",
    "/moved",
    "/odd",
    "/chunked",
    "/timed",
    "/tags",
    "/varied",
    "/gzip",
    "/gzipped",
    "/private",
    "/other",
    "/tagged?a=1&b=2",
    "/tagged?b=2&a=1",
    "/./tagged",
    "/a/../tagged",
    "/%74agged",
    "//tagged",
    "/tagged/",
    "/tagged;x=1",
    "/tagged?",
];

/// What may be asked beside a path.
const FIELDS: &[&str] = &[
    "",
    "Accept: */*\r\nUser-Agent: x\r\n",
    "If-None-Match: \"v1\"\r\n",
    "If-None-Match: W/\"v1\", \"v2\"\r\n",
    "If-None-Match: *\r\n",
    "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
    "If-Match: \"v1\"\r\n",
    "Range: bytes=0-1\r\n",
    "Accept-Language: de\r\n",
    "Accept-Language: fr\r\n",
    "Accept-Encoding: gzip\r\n",
    "Accept-Encoding: br;q=1, identity\r\n",
    "Cache-Control: no-cache\r\n",
    "Cache-Control: max-age=0\r\n",
    "Cache-Control: only-if-cached\r\n",
    "Cache-Control: no-store\r\n",
    "Pragma: no-cache\r\n",
    "Authorization: Basic x\r\n",
    "Cookie: a=b\r\n",
    "Cookie: a=b\r\nCookie: c=d\r\n",
    "X-Api-Key: secret\r\n",
    "X-Forwarded-For: 192.0.2.1\r\n",
    "X-Forwarded-Host: evil.test\r\n",
    "X-HTTP-Method-Override: POST\r\n",
    "X-Original-URL: /private\r\n",
    "Forwarded: for=192.0.2.1\r\n",
    "Via: 1.1 elsewhere\r\n",
    "TE: trailers\r\nConnection: TE\r\n",
    "Connection: keep-alive\r\n",
    "Connection: close\r\n",
    "Connection: Keep-Alive, close\r\n",
    "Connection: X-Own\r\nX-Own: x\r\n",
    "Connection: Upgrade\r\nUpgrade: websocket\r\n",
    "Upgrade: h2c\r\n",
    "Expect: 100-continue\r\n",
    "Larder-Debug: key\r\n",
    "Content-Length: 0\r\n",
    "Host: two.test\r\n",
    "X-Odd: \u{e9}\r\n",
    "X-Tab: a\tb\r\n",
    "X_Under: x\r\n",
    "Bad Name: x\r\n",
];

/// A connection's answer to these bytes, and whether the connection lives on.
fn asked(larder: &Larder, bytes: &str) -> (Response, bool) {
    let mut connection = Connection::open(larder.proxy());
    connection.write(bytes.as_bytes());
    let response = connection.response("GET");
    let said = response.header("connection").eq_ignore_ascii_case("close");
    if said {
        assert!(connection.closes(), "it says so");
    }
    (response, said)
}

/// All that does not depend on the moment.
fn lasting(response: &Response) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let number =
        |text: &str| text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect::<String>();
    let mut lines: Vec<(String, String)> = response
        .headers
        .0
        .iter()
        .map(|(name, value)| match name.to_ascii_lowercase().as_str() {
            "server-timing" => ("server-timing".into(), number(value).replace("00", "0").replace("00", "0")),
            "x-process-time" => ("x-process-time".into(), number(value)),
            "cache-status" => ("cache-status".into(), value.split("; ttl=").next().unwrap().into()),
            // Each process has a name of its own.
            "via" => ("via".into(), value.split("larder-").next().unwrap().into()),
            // They may be some seconds apart on a busy machine.
            "age" => ("age".into(), String::new()),
            "date" if !value.contains("1994") => ("date".into(), String::new()),
            name => (name.into(), value.clone()),
        })
        .collect();
    lines.sort();
    (response.status, lines, response.body.clone())
}

/// Of a route that counts its clients, a hit is not answered at once.
const COUNTED: &str = "[[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"api\"\nrate_limit = { rate = \"1000000/s\" }\n";

#[test]
fn a_hit_is_the_same_on_either_way() {
    is_the_same_on_either_way(&Front::new("", origin));
    is_the_same_on_either_way(&Front::with(COUNTED, origin));
}

fn is_the_same_on_either_way(front: &Front) {
    let mut hits = 0;
    for path in PATHS {
        for fields in FIELDS {
            let request = format!("GET {path} HTTP/1.1\r\nHost: h.test\r\n{fields}\r\n");
            // Whatever it makes of the cache is made.
            asked(&front.larder, &request);
            asked(&front.larder, &request);
            let (short, short_ends) = asked(&front.larder, &request);
            let (long, long_ends) = asked(&front.larder, &format!("\r\n{request}"));
            assert_eq!(lasting(&short), lasting(&long), "{request}");
            assert_eq!(short_ends, long_ends, "{request}");
            hits += usize::from(short.header("x-cache") == "HIT");
        }
    }
    assert!(hits > 300, "{hits}");
}

#[test]
fn a_hit_in_redis_is_the_same_on_either_way() {
    let (redis, origin) = (RedisServer::start(), Origin::start(origin));
    let cache = format!("redis = \"{}\"\nredis_deadline = \"2s\"\nwarm_start = false", redis.url());
    let config = tier::configuration(&origin, &cache, "");
    let [writer, plain, other] = [(); 3].map(|()| Larder::start(&config));
    let redis_of = |larder: &Larder| larder.stats()["tiers"]["redis"].clone();
    for larder in [&writer, &plain, &other] {
        assert!(within(PATIENCE, || redis_of(larder)["up"] == true), "{:#}", larder.stats());
    }
    // Nothing of them is in memory where they are asked for the one time.
    let mut requests = Vec::new();
    for path in ["/tagged", "/modified", "/large", "/empty", "/nothing", "/none", "/odd", "/timed"] {
        for (nth, fields) in FIELDS.iter().enumerate() {
            let head = |fields: &str| format!("GET {path}?n={nth} HTTP/1.1\r\nHost: h.test\r\n{fields}\r\n");
            asked(&writer, &head(""));
            requests.push(head(fields));
        }
    }
    let written = || {
        redis_of(&writer)["queue_bytes"] == 0
            && redis_of(&writer)["writes"].as_u64() >= Some(requests.len() as u64)
    };
    assert!(within(PATIENCE, written), "{:#}", writer.stats());
    let mut hits = 0;
    for request in &requests {
        let (short, short_ends) = asked(&plain, request);
        let (long, long_ends) = asked(&other, &format!("\r\n{request}"));
        assert_eq!(lasting(&short), lasting(&long), "{request}");
        assert_eq!(short_ends, long_ends, "{request}");
        hits += usize::from(short.header("cache-status").ends_with("detail=redis"));
    }
    assert!(hits > 200, "{hits} of {}", requests.len());
}

#[test]
fn both_ways_count_the_same() {
    let origin = Origin::start(origin);
    let config = format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = 1\n[upstream.o]\nservers = [\"{}\"]\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"o\"\n",
        origin.url()
    );
    let larder = Larder::start(&config);
    let fresh = AtomicUsize::new(0);
    let ask = |before: &str, path: &str, fields: &str| {
        let path = path.replace("NEW", &fresh.fetch_add(1, Ordering::Relaxed).to_string());
        let mut connection = Connection::open(larder.proxy());
        connection.write(format!("{before}GET {path} HTTP/1.1\r\nHost: h.test\r\n{fields}\r\n").as_bytes());
        connection.response("GET")
    };
    ask("", "/tagged", "");
    ask("", "/other", "");
    let figures = || {
        let stats = larder.stats();
        let memory = &stats["tiers"]["memory"];
        let mut figures = numbers("", &stats["routes"]["all"]);
        figures.extend(numbers("memory.", &serde_json::json!([memory["lookups"], memory["hits"]])));
        figures.retain(|(name, _)| {
            !["seconds_saved", "durations", "hit_ratio"].iter().any(|of| name.contains(of))
        });
        figures
    };
    let requests = |figures: &[(String, f64)]| {
        figures.iter().find(|(name, _)| name == "requests").map_or(0.0, |(_, count)| *count)
    };
    assert!(within(PATIENCE, || requests(&figures()) == 2.0));
    let counted = |before: &str, path: &str, fields: &str| {
        let first = figures();
        let is_hit = path == "/tagged" && !fields.contains("no-store");
        (0..10).for_each(|_| assert_eq!(told(&ask(before, path, fields)) == HIT, is_hit, "{path} {fields}"));
        let wanted = requests(&first) + 10.0;
        assert!(within(PATIENCE, || requests(&figures()) == wanted));
        let difference =
            |((name, before), (_, after)): (&(String, f64), &(String, f64))| (name.clone(), after - before);
        first.iter().zip(&figures()).map(difference).filter(|(_, more)| *more != 0.0).collect::<Vec<_>>()
    };
    let rows = [
        ("/tagged", ""),
        ("/tagged", "If-None-Match: \"v1\"\r\n"),
        ("/tagged", "Cache-Control: no-store\r\n"),
        ("/other", ""),
        ("/other", "Connection: close\r\n"),
        ("/new/NEW", ""),
        ("/tagged?NEW", ""),
        ("/absent?NEW", "Cache-Control: only-if-cached\r\n"),
    ];
    for (path, fields) in rows {
        assert_eq!(counted("", path, fields), counted("\r\n", path, fields), "{path} {fields}");
    }
}

/// All numbers in a value, by where they stand.
fn numbers(name: &str, value: &serde_json::Value) -> Vec<(String, f64)> {
    use serde_json::Value;
    let below =
        |name: &str, key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match value {
        Value::Number(number) => vec![(name.to_owned(), number.as_f64().unwrap())],
        Value::Object(fields) => {
            fields.iter().flat_map(|(key, value)| numbers(&below(name, key), value)).collect()
        }
        Value::Array(values) => values
            .iter()
            .enumerate()
            .flat_map(|(nth, value)| numbers(&below(name, &nth.to_string()), value))
            .collect(),
        Value::Null | Value::Bool(_) | Value::String(_) => Vec::new(),
    }
}

#[test]
fn answers_come_in_the_order_of_their_requests_whichever_way_each_goes() {
    let front = Front::new("", |request| {
        let hour: &[(&str, &str)] = &[("Cache-Control", "max-age=3600")];
        let fields =
            if request.target.starts_with("/stored") { hour } else { &[("Cache-Control", "no-store")] };
        Script::ok(format!("{} {}", request.target, String::from_utf8_lossy(&request.body)), fields)
    });
    for number in 0..4 {
        front.get(&format!("/stored/{number}"), &[]);
    }
    let host = support::front::HOST;
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let post = |path: &str, body: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    // A request within the content of another is none.
    let hidden = ask("/stored/3");
    let rows: Vec<(String, String)> = vec![
        (ask("/stored/0"), "/stored/0 ".into()),
        (ask("/stored/1"), "/stored/1 ".into()),
        (ask("/passed/1"), "/passed/1 ".into()),
        (ask("/stored/2"), "/stored/2 ".into()),
        (post("/post/1", "content"), "/post/1 content".into()),
        (ask("/stored/0"), "/stored/0 ".into()),
        (post("/post/2", &hidden), format!("/post/2 {hidden}")),
        (ask("/stored/1"), "/stored/1 ".into()),
        (format!("\r\n{}", ask("/stored/2")), "/stored/2 ".into()),
        (ask("/stored/3"), "/stored/3 ".into()),
        (ask("/passed/2"), "/passed/2 ".into()),
        (ask("/stored/0"), "/stored/0 ".into()),
    ];
    let all: String = rows.iter().map(|(request, _)| request.as_str()).collect();
    for piece in [all.len(), 1, 7, 64, 100, 333] {
        let mut connection = Connection::open(front.larder.proxy());
        for bytes in all.as_bytes().chunks(piece) {
            connection.write(bytes);
        }
        for (request, body) in &rows {
            assert_eq!(connection.response("GET").text(), *body, "{request} by {piece}");
        }
    }
}

#[test]
fn a_client_that_reads_late_gets_all_of_many_large_hits() {
    let front = Front::new("", |_| Script::ok("z".repeat(1 << 20), &[("Cache-Control", "max-age=3600")]));
    front.get("/", &[]);
    let mut connection = Connection::open(front.larder.proxy());
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", support::front::HOST);
    // More than the system holds for it; then one that takes the long way.
    connection.write(request.repeat(20).as_bytes());
    connection.write(format!("GET /?new HTTP/1.1\r\nHost: {}\r\n\r\n", support::front::HOST).as_bytes());
    for nth in 0..20 {
        let response = connection.response("GET");
        assert_eq!((told(&response).as_str(), response.body.len()), (HIT, 1 << 20), "{nth}");
    }
    assert_eq!(connection.response("GET").body.len(), 1 << 20);
}

#[test]
fn whoever_ends_its_side_is_answered_and_the_connection_ends() {
    let front = Front::new("", |_| Script::ok("whole", &[("Cache-Control", "max-age=3600")]));
    front.get("/", &[]);
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", support::front::HOST);
    for more in ["", "GET /half HTTP/1.1\r\nHo"] {
        let connection = Connection::open(front.larder.proxy());
        let mut stream = connection.stream();
        std::io::Write::write_all(&mut stream, format!("{request}{request}{more}").as_bytes()).unwrap();
        connection.end_writing();
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        assert_eq!(all.matches("whole").count(), 2, "{all}");
    }
}

/// RFC 9112 §9.6: who has said `close` sends nothing more, so its own close need not be waited for. Where much may be on its
/// way, or more has come, it is: a reset would cost the client what it has not read.
#[test]
fn a_client_that_has_said_close_and_is_sent_little_is_not_waited_for() {
    let front = Front::new("", |request| match request.target.as_str() {
        "/large" => Script::ok("x".repeat(300_000), &[("Cache-Control", "max-age=3600")]),
        "/miss" => Script::ok("whole", &[("Cache-Control", "no-store")]),
        _ => Script::ok("whole", &[("Cache-Control", "max-age=3600")]),
    });
    for path in ["/hit", "/miss", "/large"] {
        front.get(path, &[]);
    }
    let asked = |path: &str, more: &str| {
        let connection = Connection::open(front.larder.proxy());
        let mut stream = connection.stream();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n{more}",
            support::front::HOST
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert!(all.starts_with(b"HTTP/1.1 200"), "{path}");
        connection
    };
    for path in ["/hit", "/miss"] {
        let connection = asked(path, "");
        let mut stream = connection.stream();
        assert!(within(PATIENCE, || stream.write_all(b"x").is_err()), "{path}: its socket is closed");
    }
    for (path, more) in [("/large", ""), ("/hit", "\r\n"), ("/miss", "GET / HTTP/1.1\r\n")] {
        let connection = asked(path, more);
        let mut stream = connection.stream();
        for _ in 0..3 {
            stream.write_all(b"x").unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 0, "{path}: it has ended its side alone");
        }
    }
}

#[test]
fn the_last_request_of_a_connection_is_told_so_whether_it_is_a_hit_or_not() {
    let route = "[[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"api\"\n";
    for route in [route, COUNTED] {
        the_last_request_is_told_so(&format!("[limits]\nrequests = 5\n{route}"));
    }
}

fn the_last_request_is_told_so(more: &str) {
    let front = Front::with(more, |request| {
        let fields = if request.target == "/hit" { "max-age=3600" } else { "no-store" };
        Script::ok("whole", &[("Cache-Control", fields)])
    });
    front.get("/hit", &[]);
    for paths in [["/hit"; 7], ["/miss"; 7], ["/hit", "/miss", "/hit", "/miss", "/hit", "/miss", "/hit"]] {
        let mut connection = Connection::open(front.larder.proxy());
        let request = |path: &&str| format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", support::front::HOST);
        connection.write(paths.iter().map(request).collect::<String>().as_bytes());
        for number in 1..=5 {
            let response = connection.response("GET");
            assert_eq!(response.header("connection"), if number == 5 { "close" } else { "" }, "{number}");
        }
        assert!(connection.closes());
    }
}

#[test]
fn half_a_head_behind_a_request_has_the_time_of_a_head_and_not_that_of_an_idle_connection() {
    let more = "[limits]\nheader_time = \"1s\"\nidle_time = \"10m\"\n[[route]]\nname = \"all\"\n\
                match = { path = \"/*\" }\nupstream = \"api\"\n";
    let front = Front::with(more, |request| {
        let fields = if request.target == "/hit" { "max-age=3600" } else { "no-store" };
        Script::ok("whole", &[("Cache-Control", fields)])
    });
    front.get("/hit", &[]);
    for path in ["/hit", "/miss"] {
        let mut connection = Connection::open(front.larder.proxy());
        let host = support::front::HOST;
        let bytes = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\nGET /half HTTP/1.1\r\nHo");
        connection.write(bytes.as_bytes());
        assert_eq!(connection.response("GET").status, 200, "{path}");
        assert_eq!(connection.response("GET").status, 408, "{path}");
        assert!(connection.closes(), "{path}");
    }
}

/// Answers of every kind that are not kept.
fn passing(request: &Request) -> Script {
    let kept_by_nobody = ("Cache-Control", "no-store");
    match request.target.as_str() {
        "/length" => Script::ok("of a known length", &[kept_by_nobody, ("X-A", "1"), ("X-A", "2")]),
        "/empty" => Script::ok("", &[kept_by_nobody]),
        "/large" => Script::ok("l".repeat(300_000), &[kept_by_nobody]),
        "/chunked" => Script::chunked(&[kept_by_nobody]).chunk("one").chunk("c".repeat(40_000)).last_chunk(),
        "/chunked/empty" => Script::chunked(&[kept_by_nobody]).last_chunk(),
        "/trailers" => {
            let script = Script::chunked(&[kept_by_nobody, ("Trailer", "X-Late")]).chunk("before");
            script.trailers(&[("X-Late", "1")])
        }
        "/unframed" => Script::new().head(200, &[kept_by_nobody]).bytes("to the end").close(),
        "/204" => Script::respond(204, &[kept_by_nobody], ""),
        "/205" => Script::respond(205, &[kept_by_nobody, ("Content-Length", "0")], ""),
        "/304" => Script::respond(304, &[kept_by_nobody, ("ETag", "\"a\"")], ""),
        "/404" => Script::respond(404, &[kept_by_nobody], "not here"),
        "/500" => Script::respond(500, &[kept_by_nobody, ("Retry-After", "1")], "broken"),
        "/599" => Script::respond(599, &[kept_by_nobody], "unheard of"),
        "/dated" => Script::ok("x", &[kept_by_nobody, ("Date", "Sun, 06 Nov 1994 08:49:37 GMT")]),
        "/hop" => Script::ok("x", &[kept_by_nobody, ("Connection", "keep-alive, X-Hop"), ("X-Hop", "1")]),
        "/hints" => Script::interim(103, &[("Link", "</a>")]).then_ok("hinted", &[kept_by_nobody]),
        "/reset" => Script::new().reset(),
        "/for-caches" => {
            let own = [("Larder-Cache-Control", "no-store"), ("X-Cache", "HIT"), ("X-Process-Time", "7")];
            let tags = [("Cache-Tag", "a"), ("Surrogate-Key", "b"), ("xkey", "c")];
            let others =
                [("CDN-Cache-Control", "no-store"), ("Cache-Status", "other; hit"), ("Via", "1.1 o")];
            Script::ok("x", &[&own[..], &tags, &others].concat())
        }
        _ => Script::ok("stored", &[("Cache-Control", "max-age=60"), ("ETag", "\"s\"")]),
    }
}

/// All that comes on a connection of its own, heads but for the moment, and the content that they frame. Lines of other
/// fields may come in another order (RFC 9110 §5.3), those of one may not.
fn whole(front: &Front, bytes: &str) -> (String, Vec<u8>) {
    let connection = Connection::open(front.larder.proxy());
    let (mut stream, mut all) = (connection.stream(), Vec::new());
    stream.write_all(bytes.as_bytes()).unwrap();
    stream.read_to_end(&mut all).unwrap();
    let mut heads = String::new();
    loop {
        let end = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let head = String::from_utf8(all.drain(..end).collect()).unwrap();
        let name = |line: &&str| line.split(':').next().unwrap().to_owned();
        let mut lines: Vec<_> = head.split_inclusive('\n').collect();
        lines[1..].sort_by_key(name);
        heads.extend(lines.into_iter().map(|line| match &*name(&line) {
            name @ ("server-timing" | "x-process-time" | "date" | "age") => format!("{name}\n"),
            _ => line.to_owned(),
        }));
        if !head.starts_with("HTTP/1.1 1") {
            break;
        }
    }
    if heads.contains("transfer-encoding: chunked") { (heads, joined(&all)) } else { (heads, all) }
}

/// The content of chunks, of which the last is there, and what comes after it.
fn joined(mut chunks: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let line = chunks.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&chunks[..line]).unwrap(), 16).unwrap();
        all.extend_from_slice(&chunks[line + 2..line + 2 + size]);
        chunks = &chunks[line + 2 + size..];
        if size == 0 {
            assert!(chunks.ends_with(b"\r\n"));
            return [&all, chunks].concat();
        }
        assert_eq!(&chunks[..2], b"\r\n");
        chunks = &chunks[2..];
    }
}

#[test]
fn what_memory_does_not_hold_is_answered_alike_on_either_way() {
    let front = Front::new("", passing);
    let paths = [
        "/length",
        "/empty",
        "/large",
        "/chunked",
        "/chunked/empty",
        "/trailers",
        "/unframed",
        "/204",
        "/205",
        "/304",
        "/404",
        "/500",
        "/599",
        "/dated",
        "/hop",
        "/hints",
        "/reset",
        "/for-caches",
        "/stored",
    ];
    let fields = [
        "",
        "TE: trailers\r\n",
        "Range: bytes=1-2\r\n",
        "If-None-Match: \"a\"\r\n",
        "Accept-Encoding: gzip\r\n",
        "Cache-Control: no-store\r\n",
    ];
    for path in paths {
        for fields in fields {
            let request = format!("GET {path} HTTP/1.1\r\nHost: h.test\r\nConnection: close\r\n{fields}\r\n");
            // Whatever it makes of the cache is made.
            whole(&front, &request);
            let both = || (whole(&front, &request), whole(&front, &format!("\r\n{request}")));
            let (mut one, mut other) = both();
            // What is told of how long it is good for yet (`ttl`) changes with each second, one of which may have begun.
            if one != other && one.0.contains("; ttl=") {
                (one, other) = both();
            }
            assert_eq!(one, other, "{request}");
        }
    }
}

#[test]
fn what_is_sent_behind_a_request_waits_for_it_and_is_not_read_without_end() {
    let gate = Gate::new();
    let held = gate.clone();
    let front = Front::new("", move |request| {
        let answer = Script::ok(request.target.clone(), &[("Cache-Control", "no-store")]);
        if request.target == "/first" { Script::new().wait(&held).then(answer) } else { answer }
    });
    let host = support::front::HOST;
    for before in ["", "\r\n"] {
        let mut connection = Connection::open(front.larder.proxy());
        connection.write(format!("{before}GET /first HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        gate.wait_for_arrivals(1);
        let next = format!("GET /next HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let some = next.repeat(100);
        let mut sender = connection.stream().try_clone().unwrap();
        sender.set_nonblocking(true).unwrap();
        // What the system holds for both sides, and no more.
        let mut sent = 0;
        while sent < 64 << 20 {
            match sender.write(&some.as_bytes()[sent % next.len()..]) {
                Ok(bytes) => sent += bytes,
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                    break;
                }
            }
        }
        assert!(sent < 64 << 20, "it has all been read");
        sender.set_nonblocking(false).unwrap();
        gate.open();
        assert_eq!(connection.response("GET").text(), "/first");
        // As much as shows the order: all of it takes long.
        for _ in 0..500 {
            assert_eq!(connection.response("GET").text(), "/next");
        }
    }
}

#[test]
fn whoever_leaves_is_let_go_of_at_once_on_either_way() {
    let front = Front::new("", |request| match request.target.as_str() {
        "/head" => Script::new().stall(),
        _ => Script::new()
            .head(200, &[("Content-Length", "10"), ("Cache-Control", "no-store")])
            .bytes("12345")
            .stall(),
    });
    // Forwarded alone: a fetch for all goes on without those who wait for it.
    let (host, alone) = (support::front::HOST, "Cache-Control: no-store\r\n");
    for before in ["", "\r\n"] {
        for path in ["/head", "/body"] {
            for resets in [true, false] {
                let mut connection = Connection::open(front.larder.proxy());
                connection
                    .write(format!("{before}GET {path} HTTP/1.1\r\nHost: {host}\r\n{alone}\r\n").as_bytes());
                assert!(within(PATIENCE, || front.origin.open_connections() == 1), "{path}");
                if path == "/body" {
                    assert_eq!(connection.response_head("GET").status, 200);
                }
                if resets {
                    connection.reset()
                } else {
                    connection.end_writing()
                }
                front.origin.wait_for_open_connections(0);
            }
        }
    }
}

#[test]
fn a_connection_goes_on_the_same_whatever_is_asked_on_it_before() {
    let front = Front::new("", passing);
    let host = support::front::HOST;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let paths = ["/length", "/stored", "/chunked", "/stored", "/204", "/large", "/hints", "/404", "/stored"];
    for change in 0..=paths.len() {
        // From there on it has a hyper.
        let ask =
            |(at, path): (usize, &&str)| if at == change { format!("\r\n{}", get(path)) } else { get(path) };
        let all: String = paths.iter().enumerate().map(ask).collect();
        let mut connection = Connection::open(front.larder.proxy());
        connection.write(all.as_bytes());
        for path in paths {
            let (status, length) = match path {
                "/204" => (204, 0),
                "/404" => (404, 8),
                "/chunked" => (200, 40_003),
                "/large" => (200, 300_000),
                "/length" => (200, 17),
                _ => (200, 6),
            };
            let response = connection.response("GET");
            assert_eq!((response.status, response.body.len()), (status, length), "{path} {change}");
        }
    }
}

/// What is made once for all that say the same holds nothing that is one request's own.
#[test]
fn an_origin_is_sent_the_same_whichever_way_a_request_goes_and_however_often_it_was_made() {
    for more in ["", "trusted_proxies = [\"127.0.0.1\"]\n", "log.trace = \"off\"\n"] {
        let origin = Origin::start(|_| Script::ok("own", &[("Cache-Control", "no-store")]));
        let route = "[[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"api\"\n";
        let larder = Larder::start(&format!("{more}{}", support::front::configuration(&origin, route)));
        let front = Front { larder, origin };
        let trace =
            "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a=b\r\n";
        let mut connection = Connection::open(front.larder.proxy());
        for fields in [
            "",
            "Accept: text/plain\r\n",
            "X-Request-Id: one\r\n",
            trace,
            "traceparent: 00-none\r\n",
            "Cookie: a=1\r\n",
            "Cookie: a=2\r\n",
            "Authorization: Bearer one\r\n",
            "Authorization: Bearer two\r\n",
            "X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-Proto: https\r\n",
            "X-Forwarded-For: 198.51.100.2\r\n",
            "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n",
            "Max-Forwards: 5\r\nTrailer: x\r\nProxy-Connection: keep-alive\r\n",
        ] {
            // From then on it is known that nothing of it can be kept.
            front.get(&format!("/own?{}", fields.len()), &[]);
            let mut parts = BTreeSet::new();
            let heads: Vec<String> = ["", "", "", "\r\n"]
                .iter()
                .map(|before| {
                    let mut fresh = Connection::open(front.larder.proxy());
                    let by = if before.is_empty() { &mut connection } else { &mut fresh };
                    by.write(
                        format!(
                            "{before}GET /own?{} HTTP/1.1\r\nHost: api.test\r\n{fields}\r\n",
                            fields.len()
                        )
                        .as_bytes(),
                    );
                    assert_eq!(by.response("GET").status, 200, "{fields}");
                    let head = format!("{:?}", front.origin.last().headers);
                    // Each is a part of the trace on its own.
                    match head.split_once("319c-").and_then(|(_, more)| more.split_once('-')) {
                        Some((part, _)) => {
                            parts.insert(part.to_owned());
                            head.replace(part, "part")
                        }
                        None => head,
                    }
                })
                .collect();
            assert!(heads.iter().all(|head| *head == heads[3]), "{more} {fields}: {heads:#?}");
            let is_part = fields == trace;
            let as_it_is = more.starts_with("log");
            assert_eq!(parts.len(), if as_it_is { 1 } else { 4 } * usize::from(is_part), "{more} {fields}");
        }
    }
}
