//! Hostile origins, byte by byte: whatever comes, a client gets a whole answer, an honest refusal, or a
//! connection that is cut; nothing broken is stored, and no connection that has carried it is used again.
//!
//! A row is what an origin sends in answer to `GET /row/N`, on a route that stores whatever may be stored.
//! Must not know: how Larder tells the good from the bad.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use support::front::{self, Front};
use support::{Connection, Gate, Response, Script};

/// What a client may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// Larder's own 502, and the cause it names.
    Refused(&'static str),
    /// The origin's head, and less than its whole body.
    Cut,
    /// The origin's response.
    Whole(u16, &'static str),
}
use Seen::{Cut, Refused, Whole};

/// What stays of the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Not stored; the connection is closed.
    Nothing,
    /// Stored; the connection is closed.
    Stored,
    /// Stored; the connection serves the next request.
    Kept,
    /// Not stored; the connection serves the next request.
    Reused,
}
use Then::{Kept, Nothing, Reused, Stored};

const PROTOCOL: Seen = Refused("protocol");

struct Row {
    clause: &'static str,
    method: &'static str,
    bytes: Vec<u8>,
    /// The origin closes then; else it waits for another request on the connection.
    closes: bool,
    seen: Seen,
    then: Then,
}

fn row(clause: &'static str, bytes: impl Into<Vec<u8>>, seen: Seen, then: Then) -> Row {
    Row { clause, method: "GET", bytes: bytes.into(), closes: false, seen, then }
}

/// A row whose head has these lines after `HTTP/1.1 200 OK`, and then this.
fn head(clause: &'static str, fields: &str, rest: &str, seen: Seen, then: Then) -> Row {
    row(clause, format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n{fields}\r\n{rest}"), seen, then)
}

fn refused(clause: &'static str, fields: &str, rest: &str) -> Row {
    head(clause, fields, rest, PROTOCOL, Nothing)
}

impl Row {
    fn closing(self) -> Self {
        Self { closes: true, ..self }
    }

    fn to(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    fn script(&self) -> Script {
        let script = Script::new().bytes(&self.bytes);
        if self.closes { script.close() } else { script }
    }
}

/// Whoever comes next gets the very connection that a row came on, unless it is closed.
const ONE_CONNECTION: &str = "pool = { max_connections = 1 }\n\
     [[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"api\"\n\
     request_buffer = \"0B\"\n[route.cache]\nttl.default = \"60s\"";

/// Plays each row twice, and asks for something else in between.
fn play(rows: Vec<Row>) {
    let scripts: Vec<_> = rows.iter().map(Row::script).collect();
    let front = Front::with(ONE_CONNECTION, move |request| {
        match request.target.strip_prefix("/row/").map(|number| number.parse::<usize>().unwrap()) {
            Some(number) => scripts[number].clone(),
            None => Script::ok(&request.target, &[("Cache-Control", "no-store")]),
        }
    });
    for (number, row) in rows.iter().enumerate() {
        let what = format!("row {number}, {}: {:?}", row.clause, String::from_utf8_lossy(&row.bytes));
        let target = format!("/row/{number}");
        check(row, ask(&front, row.method, &target), &what);
        let connection = front.origin.last().connection;
        for n in 0..2 {
            let after = format!("/after/{number}/{n}");
            assert_eq!(front.get(&after, &[]).text(), after, "{what}: another's answer");
            let again = front.origin.last().connection == connection;
            assert_eq!(
                again,
                matches!(row.then, Kept | Reused),
                "{what}: the connection is used again or not"
            );
        }
        check(row, ask(&front, row.method, &target), &what);
        let stored = matches!(row.then, Kept | Stored);
        assert_eq!(front.origin.count(&target) == 1, stored, "{what}: stored or not");
    }
}

/// The response, or none where the connection was cut before its head.
fn ask(front: &Front, method: &str, target: &str) -> Option<Response> {
    let mut connection = Connection::open(front.larder.proxy());
    connection.write_request(method, target, &[("Host", front::HOST)], b"");
    connection.try_response(method).ok()
}

fn check(row: &Row, response: Option<Response>, what: &str) {
    if row.seen == Cut {
        return assert!(response.is_none_or(|it| it.status == 200 && !it.complete), "{what}: not cut");
    }
    let response = response.unwrap_or_else(|| panic!("{what}: no answer"));
    let wanted = match row.seen {
        Refused(_) => 502,
        Cut => 200,
        Whole(status, _) => status,
    };
    assert_eq!((response.status, response.complete), (wanted, true), "{what}: {response:?}");
    match row.seen {
        Refused(cause) if row.method != "HEAD" => assert_eq!(response.json()["cause"], cause, "{what}"),
        Whole(_, text) => assert_eq!(response.text(), text, "{what}"),
        _ => {}
    }
}

const LENGTH: &str = "Content-Length: 2\r\n";
const CODING: &str = "Transfer-Encoding: chunked\r\n";
const CHUNKS: &str = "2\r\nok\r\n0\r\n\r\n";
/// What somebody would like the next client to get.
const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nCache-Control: max-age=60\r\n\r\nevil";

#[test]
fn what_is_well_formed_is_stored_and_its_connection_used_again() {
    let ok = Whole(200, "ok");
    play(vec![
        head("RFC 9112 §6.3", LENGTH, "ok", ok, Kept),
        head("RFC 9112 §7.1", CODING, CHUNKS, ok, Kept),
        head("RFC 9112 §7.1.1", CODING, "2;x=\"y\"\r\nok\r\n0;z\r\n\r\n", ok, Kept),
        head("RFC 9112 §7.1.2", CODING, "2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n", ok, Kept),
        head("RFC 9112 §6.3 (8)", "", "ok", ok, Stored).closing(),
        row("RFC 9112 §4", "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", ok, Kept),
        row("RFC 9112 §9.3", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", ok, Stored),
        row(
            "RFC 9112 §9.3",
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
            ok,
            Stored,
        ),
        row(
            "RFC 4559 §5",
            "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"a, b\", NTLM\r\nContent-Length: 2\r\n\r\nno",
            Whole(401, "no"),
            Nothing,
        ),
        head("RFC 4559 §5", "WWW-Authenticate: negotiate oRQw\r\nContent-Length: 2\r\n", "ok", ok, Stored),
        row(
            "RFC 9110 §11.6.1",
            "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"NTLM\"\r\nContent-Length: 2\r\n\r\nno",
            Whole(401, "no"),
            Reused,
        ),
        head("RFC 9112 §9.6", "Connection: close\r\nContent-Length: 2\r\n", "ok", ok, Stored),
        row("RFC 9110 §15.2", format!("HTTP/1.1 103 Early Hints\r\n\r\n{}", EVIL), Whole(200, "evil"), Kept),
        head("RFC 9112 §6.3 (1)", "Content-Length: 5\r\n", "", Whole(200, ""), Reused).to("HEAD"),
        row("RFC 9110 §15.3.5", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", Whole(204, ""), Kept),
        row(
            "RFC 9110 §15.3.6",
            "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
            Whole(205, ""),
            Reused,
        ),
    ]);
}

/// RFC 9112 §6.1: "the server MUST close the connection after responding".
#[test]
fn a_transfer_coding_other_than_one_chunked_is_refused() {
    let mut rows: Vec<_> = [
        "gzip, chunked",
        "chunked, chunked",
        "chunked, gzip",
        "identity",
        "identity, chunked",
        "xchunked",
        "chunked;x=1",
        ",chunked",
        "\"chunked\"",
        "chunked\x0b",
    ]
    .map(|coding| refused("RFC 9112 §6.1", &format!("Transfer-Encoding: {coding}\r\n"), CHUNKS))
    .into();
    rows.extend([
        refused("RFC 9112 §6.1", &[CODING, CODING].concat(), CHUNKS),
        refused("RFC 9112 §6.3 (3)", &[LENGTH, CODING].concat(), CHUNKS),
        refused("RFC 9112 §6.3 (3)", &[CODING, LENGTH].concat(), "ok"),
        refused("RFC 9112 §5.1", "Transfer-Encoding : chunked\r\n", CHUNKS),
        refused("RFC 9112 §5.2", "Transfer-Encoding:\r\n chunked\r\n", CHUNKS),
        row("RFC 9112 §6.1", format!("HTTP/1.0 200 OK\r\n{CODING}\r\n{CHUNKS}"), PROTOCOL, Nothing),
    ]);
    play(rows);
}

/// RFC 9112 §6.3 (5): "the recipient MUST treat it as an unrecoverable error".
#[test]
fn a_length_that_is_not_one_number_is_refused() {
    let mut rows: Vec<_> = [
        "-2",
        "+2",
        "0x2",
        "2 2",
        "2;",
        "",
        "two",
        "18446744073709551618",
        "9223372036854775808",
        "2, 2",
        "2,3",
        "2,",
    ]
    .map(|length| refused("RFC 9112 §6.3 (5)", &format!("Content-Length: {length}\r\n"), "ok"))
    .into();
    rows.extend([
        refused("RFC 9112 §6.3 (5)", &[LENGTH, LENGTH].concat(), "ok"),
        refused("RFC 9112 §6.3 (5)", &[LENGTH, "Content-Length: 3\r\n"].concat(), "ok"),
        refused("RFC 9112 §5.1", "Content-Length : 2\r\n", "ok"),
    ]);
    play(rows);
}

#[test]
fn a_status_line_or_field_that_is_none_is_refused() {
    let mut rows: Vec<_> = [
        "HTTP/2.0 200 OK",
        "HTTP/0.9 200 OK",
        "HTTP/1.2 200 OK",
        "HTTP/1.1 200OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 1000 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 two OK",
        "http/1.1 200 OK",
        "\r\nHTTP/1.1 200 OK",
        " HTTP/1.1 200 OK",
        "HTTP/1.1 200 O\x00K",
        "SSH-2.0-OpenSSH_9.6",
    ]
    .map(|line| row("RFC 9112 §4", format!("{line}\r\n{LENGTH}\r\nok"), PROTOCOL, Nothing))
    .into();
    rows.extend(
        [
            "X: a\x00b\r\n",
            "X: a\rb\r\n",
            "X: a\x7fb\r\n",
            "X: a\nY: b\r\n",
            "X: a\n",
            "X: a\r\n b\r\n",
            "X : a\r\n",
            "X\t: a\r\n",
            "X Y: a\r\n",
            ": a\r\n",
            "X\r\n",
            "X\x01: a\r\n",
            "X\u{e9}: a\r\n",
        ]
        .map(|line| refused("RFC 9112 §5", &[LENGTH, line].concat(), "ok")),
    );
    rows.push(row("RFC 9112 §2.2", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", PROTOCOL, Nothing));
    let long = format!("X: {}\r\n", "y".repeat(140_000));
    rows.push(refused("RFC 9112 §2.2", &[LENGTH, &long].concat(), "ok"));
    rows.push(refused("RFC 9112 §2.2", &[LENGTH, &"X: y\r\n".repeat(300)].concat(), "ok"));
    play(rows);
}

#[test]
fn chunks_and_trailers_that_make_no_sense_are_refused() {
    let mut rows: Vec<_> = [
        "0x2\r\nok\r\n0\r\n\r\n",
        "2 \r\nok\r\n0\r\n\r\n",
        "2 ;\r\nok\r\n0\r\n\r\n",
        " 2\r\nok\r\n0\r\n\r\n",
        "-1\r\nok\r\n0\r\n\r\n",
        "+2\r\nok\r\n0\r\n\r\n",
        "10000000000000000\r\nok\r\n0\r\n\r\n",
        "10000000000000002\r\nok\r\n0\r\n\r\n",
        "\r\nok\r\n0\r\n\r\n",
        "2\nok\r\n0\r\n\r\n",
        "2\r\nok0\r\n\r\n",
        "2\r\nok\n0\r\n\r\n",
        "2\r\nokay\r\n0\r\n\r\n",
        "2;x\ny\r\nok\r\n0\r\n\r\n",
        "2;x\x00\r\nok\r\n0\r\n\r\n",
        "2\r\nok\r\n0\r\nContent-Length: 9\r\n\r\n",
        "2\r\nok\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "2\r\nok\r\n0\r\nX : y\r\n\r\n",
        "2\r\nok\r\n0\r\nX: y\n\r\n",
    ]
    .map(|chunks| refused("RFC 9112 §7.1", CODING, chunks))
    .into();
    let trailers = format!("2\r\nok\r\n0\r\n{}\r\n", "X: y\r\n".repeat(300));
    rows.push(head("RFC 9112 §7.1.2", CODING, &trailers, PROTOCOL, Nothing));
    play(rows);
}

/// Many servers answer a HEAD as if it were a GET. Its head says what the client wants to know, and where it ends is
/// not in doubt; what follows is left out, and nobody else is asked for on that connection.
#[test]
fn the_answer_to_a_head_that_brings_content_is_its_head_alone() {
    let row = |fields, content: &str| {
        head("RFC 9112 §6.3 (1)", fields, content, Whole(200, ""), Nothing).to("HEAD")
    };
    play(vec![
        row(LENGTH, "ok"),
        row(LENGTH, "ok").closing(),
        row(CODING, CHUNKS),
        row("Content-Length: 0\r\n", "ok"),
        row("", "ok").closing(),
        row(LENGTH, EVIL),
    ]);
}

/// RFC 9112 §6.3 (1): "always terminated by the first empty line after the header fields".
#[test]
fn content_where_none_may_be_is_refused() {
    play(vec![
        row("RFC 9110 §8.6", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok", PROTOCOL, Nothing),
        row("RFC 9112 §6.1", format!("HTTP/1.1 204 No Content\r\n{CODING}\r\n{CHUNKS}"), PROTOCOL, Nothing),
        row("RFC 9112 §6.3 (1)", format!("HTTP/1.1 204 No Content\r\n\r\n{EVIL}"), PROTOCOL, Nothing),
        row(
            "RFC 9110 §15.4.5",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nok",
            PROTOCOL,
            Nothing,
        ),
        row("RFC 9110 §15.4.5", "HTTP/1.1 304 Not Modified\r\n\r\n", PROTOCOL, Reused),
        row(
            "RFC 9110 §15.3.6",
            "HTTP/1.1 205 Reset Content\r\nContent-Length: 2\r\n\r\nok",
            PROTOCOL,
            Nothing,
        ),
        row(
            "RFC 9110 §15.3.6",
            format!("HTTP/1.1 205 Reset Content\r\n{CODING}\r\n{CHUNKS}"),
            PROTOCOL,
            Nothing,
        ),
        row("RFC 9110 §15.2", format!("HTTP/1.1 103 Early Hints\r\n{LENGTH}\r\nok{EVIL}"), PROTOCOL, Nothing),
        row("RFC 9110 §15.2", format!("HTTP/1.1 100 Continue\r\n\r\nbody{EVIL}"), PROTOCOL, Nothing),
        row(
            "RFC 9110 §15.2.2",
            format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n{EVIL}"),
            PROTOCOL,
            Nothing,
        ),
        row(
            "RFC 9110 §15.2",
            format!("{}{EVIL}", "HTTP/1.1 102 Processing\r\n\r\n".repeat(5000)),
            PROTOCOL,
            Nothing,
        ),
    ]);
}

/// RFC 9112 §9.3 and response splitting: what follows the end of a response is for nobody.
#[test]
fn bytes_after_a_response_are_never_the_next_answer() {
    let mut rows = Vec::new();
    for more in [EVIL, "\r\n", "x", "\x00", "HTTP/1.1 100 Continue\r\n\r\n"] {
        rows.extend([
            refused("RFC 9112 §9.3", LENGTH, &["ok", more].concat()),
            refused("RFC 9112 §9.3", CODING, &[CHUNKS, more].concat()),
            refused("RFC 9112 §9.3", "Content-Length: 0\r\n", more),
            refused("RFC 9112 §9.3", "Content-Length: 2\r\nConnection: close\r\n", &["ok", more].concat()),
        ]);
    }
    play(rows);
}

#[test]
fn a_response_that_ends_too_soon_is_cut_wherever_it_ends() {
    for (fields, body) in [(LENGTH, "ok"), (CODING, "1\r\no\r\n1\r\nk\r\n0\r\nX-Sum: 1\r\n\r\n")] {
        let head_alone = format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n{fields}\r\n");
        let whole = [head_alone.as_str(), body].concat();
        let cut = |at: usize| match at {
            at if at < head_alone.len() => {
                row("RFC 9112 §8", &whole[..at], Refused("reset"), Nothing).closing()
            }
            at => row("RFC 9112 §8", &whole[..at], Cut, Nothing).closing(),
        };
        play((0..whole.len()).map(cut).collect());
    }
}

#[test]
fn an_origin_that_falls_silent_is_waited_for_no_longer_than_its_limits_wherever_it_does() {
    let mut places = Vec::new();
    for (fields, body) in [(LENGTH, "ok"), (CODING, CHUNKS)] {
        let head = format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n{fields}\r\n");
        let whole = [head.as_str(), body].concat();
        places.extend((0..whole.len()).map(|at| (whole[..at].to_owned(), at < head.len())));
    }
    let scripts: Vec<_> = places.iter().map(|(bytes, _)| Script::new().bytes(bytes).stall()).collect();
    let limits = "timeout = { first_byte = \"1s\", total = \"2s\" }\n\
         [[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"api\"\n\
         [route.cache]\nttl.default = \"60s\"";
    let front =
        Front::with(limits, move |request| scripts[request.target[1..].parse::<usize>().unwrap()].clone());
    std::thread::scope(|scope| {
        for (number, (bytes, in_head)) in places.iter().enumerate() {
            let front = &front;
            scope.spawn(move || {
                for _ in 0..2 {
                    let answer = response_is_a_timeout(ask(front, "GET", &format!("/{number}")));
                    assert!(answer == Some(true) || (answer == Some(false) && !in_head), "{bytes:?}");
                }
            });
        }
    });
    front.origin.wait_for_open_connections(0);
    let asked = front.origin.requests();
    assert_eq!(asked.len(), 2 * places.len(), "none is asked twice for one client, and nothing is stored");
    assert_eq!(front.origin.connections(), asked.len(), "and none on a connection that another hangs on");
}

/// Whether a response is Larder's own 504, in place of one that is cut; `None` where it is neither.
fn response_is_a_timeout(response: Option<Response>) -> Option<bool> {
    let Some(response) = response else { return Some(false) };
    if response.status == 504 && response.complete {
        return (response.json()["cause"] == "first-byte-timeout").then_some(true);
    }
    (response.status == 200 && !response.complete).then_some(false)
}

#[test]
fn what_comes_after_a_connection_went_back_to_the_pool_is_nobodys() {
    for more in [EVIL, "\r\n", "x"] {
        let gate = Gate::new();
        let held = gate.clone();
        let front = Front::with(ONE_CONNECTION, move |request| {
            let script = Script::ok(&request.target, &[("Cache-Control", "no-store")]);
            if request.target == "/first" { script.wait(&held).bytes(more) } else { script }
        });
        assert_eq!(front.get("/first", &[]).text(), "/first");
        gate.open();
        front.origin.wait_for_open_connections(0);
        for path in ["/second", "/third"] {
            assert_eq!(front.get(path, &[]).text(), path, "{more:?}");
        }
        assert_eq!(front.origin.connections(), 2);
    }
}

#[test]
fn an_answer_before_the_end_of_the_request_is_passed_on_and_the_connection_not_used_again() {
    let gate = Gate::new();
    let held = gate.clone();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Answers each head as soon as it has come, and takes what follows for more requests.
    let origin = std::thread::spawn(move || {
        let mut seen = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
            let mut bytes = [0; 4096];
            let read = std::io::Read::read(&mut stream, &mut bytes).unwrap();
            seen.push(String::from_utf8_lossy(&bytes[..read]).into_owned());
            std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").unwrap();
            if seen.len() == 1 {
                assert!(held.pass());
            }
            std::io::Write::write_all(&mut stream, b"early").unwrap();
            let mut rest = Vec::new();
            let _ = std::io::Read::read_to_end(&mut stream, &mut rest);
            seen.push(String::from_utf8_lossy(&rest).into_owned());
            drop(stream);
        }
        seen
    });
    let config = format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"off\"\nworkers = 1\n[upstream.api]\n\
         servers = [\"http://127.0.0.1:{port}\"]\n{ONE_CONNECTION}"
    );
    let larder = support::Larder::start(&config);
    let mut first = Connection::open(larder.proxy());
    first.write_head("POST", "/first", &[("Content-Length", "7")]);
    let mut response = first.response_head("POST");
    first.write(b"payload");
    gate.open();
    first.finish(&mut response);
    assert_eq!((response.text(), response.complete), ("early".to_owned(), true));
    assert_eq!(larder.get("/second", &[]).text(), "early");
    drop(larder);
    let seen = origin.join().unwrap();
    assert!(seen[0].starts_with("POST /first"), "{seen:?}");
    assert!(
        !seen[1].contains("GET"),
        "the next request went where another's body was still to come: {seen:?}"
    );
    assert!(seen[2].starts_with("GET /second"), "{seen:?}");
}
