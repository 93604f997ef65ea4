//! What memory answers is the same whichever way its request goes: the short one, on which hyper has not seen it, or
//! the long one, on which every other request goes.
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

use std::io::Read;

use support::front::{Front, HIT, told};
use support::{Connection, Larder, Origin, PATIENCE, Request, Response, Script, within};

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
fn asked(front: &Front, bytes: &str) -> (Response, bool) {
    let mut connection = Connection::open(front.larder.proxy());
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
            // They may be some seconds apart on a busy machine.
            "age" => ("age".into(), String::new()),
            "date" if !value.contains("1994") => ("date".into(), String::new()),
            name => (name.into(), value.clone()),
        })
        .collect();
    lines.sort();
    (response.status, lines, response.body.clone())
}

#[test]
fn a_hit_is_the_same_on_either_way() {
    let front = Front::new("", origin);
    let mut hits = 0;
    for path in PATHS {
        for fields in FIELDS {
            let request = format!("GET {path} HTTP/1.1\r\nHost: h.test\r\n{fields}\r\n");
            // Whatever it makes of the cache is made.
            asked(&front, &request);
            asked(&front, &request);
            let (short, short_ends) = asked(&front, &request);
            let (long, long_ends) = asked(&front, &format!("\r\n{request}"));
            assert_eq!(lasting(&short), lasting(&long), "{request}");
            assert_eq!(short_ends, long_ends, "{request}");
            hits += usize::from(short.header("x-cache") == "HIT");
        }
    }
    assert!(hits > 300, "{hits}");
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
    let ask = |before: &str, fields: &str| {
        let mut connection = Connection::open(larder.proxy());
        connection.write(format!("{before}GET /tagged HTTP/1.1\r\nHost: h.test\r\n{fields}\r\n").as_bytes());
        connection.response("GET")
    };
    ask("", "");
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
    assert!(within(PATIENCE, || requests(&figures()) == 1.0));
    let counted = |before: &str, fields: &str| {
        let first = figures();
        (0..10).for_each(|_| assert_eq!(told(&ask(before, fields)), HIT));
        let wanted = requests(&first) + 10.0;
        assert!(within(PATIENCE, || requests(&figures()) == wanted));
        let difference =
            |((name, before), (_, after)): (&(String, f64), &(String, f64))| (name.clone(), after - before);
        first.iter().zip(&figures()).map(difference).filter(|(_, more)| *more != 0.0).collect::<Vec<_>>()
    };
    for fields in ["", "If-None-Match: \"v1\"\r\n"] {
        assert_eq!(counted("", fields), counted("\r\n", fields), "{fields}");
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

#[test]
fn the_last_request_of_a_connection_is_told_so_also_where_all_are_hits() {
    let more =
        "[limits]\nrequests = 5\n[[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"api\"\n";
    let front = Front::with(more, |_| Script::ok("whole", &[("Cache-Control", "max-age=3600")]));
    front.get("/", &[]);
    let mut connection = Connection::open(front.larder.proxy());
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", support::front::HOST);
    connection.write(request.repeat(7).as_bytes());
    for number in 1..=5 {
        let response = connection.response("GET");
        assert_eq!(response.header("connection"), if number == 5 { "close" } else { "" }, "{number}");
    }
    assert!(connection.closes());
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
