//! The end of the process: what is in flight is finished, nothing new is taken, and nobody who
//! merely holds a connection can hold it up.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::thread::JoinHandle;
use std::time::Duration;

use support::{Connection, Gate, Larder, Origin, PATIENCE, Response, Script, get, wire, within};

const STORABLE: &[(&str, &str)] = &[("Cache-Control", "max-age=60")];

#[test]
fn what_is_in_flight_is_finished_and_nothing_new_is_taken() {
    for signal in ["TERM", "INT"] {
        let gate = Gate::new();
        let held = gate.clone();
        let origin = Origin::start(move |_| Script::new().wait(&held).then_ok(b"finished", STORABLE));
        let mut larder = Larder::start(&config(&origin, "30s"));
        let clients: Vec<_> =
            (0..5).flat_map(|_| [client(&larder, "/cached"), client(&larder, "/off")]).collect();
        gate.wait_for_arrivals(6);
        assert!(within(PATIENCE, || larder.stats()["active"] == 10), "{}", larder.stats());
        stop(&larder, signal);
        assert!(within(PATIENCE, || Connection::try_open(larder.proxy()).is_err()), "it still listens");
        assert!(larder.is_running());
        gate.open();
        for client in clients {
            let response = client.join().unwrap();
            assert_eq!(
                (response.status, response.text().as_str(), response.complete),
                (200, "finished", true)
            );
        }
        assert_eq!(larder.wait_exit(PATIENCE), Some(0), "{signal}");
    }
}

#[test]
fn bodies_that_stream_are_finished() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |request| {
        let fields = if request.target == "/off" { &[][..] } else { STORABLE };
        Script::chunked(fields).chunk("one ").wait(&held).chunk("two").last_chunk()
    });
    let mut larder = Larder::start(&config(&origin, "30s"));
    let mut readers = Vec::new();
    for path in ["/cached", "/cached", "/cached", "/off"] {
        let mut connection = Connection::open(larder.proxy());
        connection.write_head("GET", path, &[]);
        let response = connection.response_head("GET");
        assert_eq!(connection.read_chunk(), b"one ");
        readers.push((connection, response));
    }
    assert_eq!(origin.requests().len(), 2);
    stop(&larder, "TERM");
    gate.open();
    for (connection, response) in &mut readers {
        connection.finish(response);
        assert_eq!((response.text().as_str(), response.complete), ("two", true));
        assert!(connection.closes());
    }
    assert_eq!(larder.wait_exit(PATIENCE), Some(0));
}

#[test]
fn a_body_on_its_way_to_the_origin_is_finished() {
    let origin = Origin::start(|request| Script::ok(&request.body, &[]));
    let mut larder = Larder::start(&config(&origin, "30s"));
    let mut connection = Connection::open(larder.proxy());
    connection.write_head("POST", "/off", &[("Transfer-Encoding", "chunked")]);
    connection.write(&wire::chunk(b"one "));
    origin.wait_for_open_connections(1);
    stop(&larder, "TERM");
    connection.write(&[wire::chunk(b"two"), wire::LAST_CHUNK.to_vec()].concat());
    assert_eq!(connection.response("POST").text(), "one two");
    assert!(connection.closes());
    assert_eq!(larder.wait_exit(PATIENCE), Some(0));
}

#[test]
fn a_stream_of_http_2_is_finished() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| Script::new().wait(&held).then_ok(b"finished", STORABLE));
    let mut larder = Larder::start(&config(&origin, "5m"));
    let url = format!("http://{}/cached", larder.proxy());
    let mut curl = std::process::Command::new("curl");
    curl.args(["-sS", "--max-time", "20", "--http2-prior-knowledge", &url]);
    let mut curl = support::Process::spawn(curl);
    gate.wait_for_arrivals(1);
    stop(&larder, "TERM");
    gate.open();
    assert_eq!(curl.wait_exit(PATIENCE), Some(0), "{}", curl.err.whole());
    assert_eq!(curl.out.whole(), "finished");
    assert_eq!(larder.wait_exit(PATIENCE), Some(0));
}

#[test]
fn connections_that_ask_for_nothing_are_closed_and_hold_up_nobody() {
    let origin = Origin::ok("x", STORABLE);
    // Far beyond anybody's patience: only closing them lets the process end in time.
    let mut larder = Larder::start(&config(&origin, "5m"));
    let mut used = Connection::open(larder.proxy());
    for path in ["/cached", "/cached", "/off"] {
        assert_eq!(used.request("GET", path, &[], b"").status, 200);
    }
    let mut unused = Connection::open(larder.proxy());
    let mut first_letter = Connection::open(larder.proxy());
    first_letter.write(b"P");
    assert!(within(PATIENCE, || larder.stats()["connections"] == 3), "{}", larder.stats());
    stop(&larder, "TERM");
    for (what, connection) in [("used", &mut used), ("unused", &mut unused), ("a letter", &mut first_letter)]
    {
        assert!(connection.closes(), "{what}");
    }
    assert_eq!(larder.wait_exit(PATIENCE), Some(0));
}

#[test]
fn a_tunnel_holds_up_nobody() {
    let origin = Origin::start(|_| {
        Script::new().head(101, &[("Connection", "Upgrade"), ("Upgrade", "websocket")]).echo()
    });
    let mut larder = Larder::start(&config(&origin, "5m"));
    let mut connection = Connection::open(larder.proxy());
    connection.write_head("GET", "/off", &[("Connection", "Upgrade"), ("Upgrade", "websocket")]);
    assert_eq!(connection.response_head("GET").status, 101);
    connection.write(b"ping");
    assert_eq!(connection.read_some(4), b"ping");
    stop(&larder, "TERM");
    assert!(connection.closes());
    assert_eq!(larder.wait_exit(PATIENCE), Some(0));
}

#[test]
fn a_fetch_that_nobody_waits_for_holds_up_nobody() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| Script::new().wait(&held).then_ok(b"late", STORABLE));
    let mut larder = Larder::start(&config(&origin, "5m"));
    let mut leaving = Connection::open(larder.proxy());
    leaving.write_head("GET", "/cached", &[]);
    gate.wait_for_arrivals(1);
    leaving.reset();
    assert!(within(PATIENCE, || larder.stats()["client_closed"] == 1), "{}", larder.stats());
    stop(&larder, "TERM");
    assert_eq!(larder.wait_exit(PATIENCE), Some(0));
    gate.open();
}

#[test]
fn when_the_time_to_finish_is_up_what_is_left_is_cut_off() {
    let origin = Origin::start(|_| Script::chunked(STORABLE).chunk("half").stall());
    let mut larder = Larder::start(&config(&origin, "300ms"));
    let mut readers = Vec::new();
    for path in ["/cached", "/cached", "/off"] {
        let mut connection = Connection::open(larder.proxy());
        connection.write_head("GET", path, &[]);
        let response = connection.response_head("GET");
        assert_eq!(connection.read_chunk(), b"half");
        readers.push((connection, response));
    }
    stop(&larder, "TERM");
    for (connection, response) in &mut readers {
        connection.finish(response);
        assert!(!response.complete, "cut off, not ended");
    }
    assert_eq!(larder.wait_exit(PATIENCE), Some(0));
    larder.err.wait_for_line(|line| line.contains("time to finish is up"), Duration::ZERO);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for signals in [["TERM", "TERM"], ["INT", "INT"], ["TERM", "INT"]] {
        let origin = Origin::start(|_| Script::new().stall());
        let mut larder = Larder::start(&config(&origin, "5m"));
        let mut connection = Connection::open(larder.proxy());
        connection.write_head("GET", "/off", &[]);
        origin.wait_for_requests(1);
        stop(&larder, signals[0]);
        assert!(larder.is_running());
        larder.signal(signals[1]);
        assert_eq!(larder.wait_exit(PATIENCE), Some(1), "{signals:?}");
        assert!(connection.try_response("GET").is_err());
        let says = |line: &str| line.contains("told to stop a second time: ending at once");
        larder.err.wait_for_line(says, PATIENCE);
    }
}

#[test]
fn the_admin_listener_answers_until_the_end_and_says_what_is_happening() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| Script::new().wait(&held).then_ok(b"x", STORABLE));
    let mut larder = Larder::start(&config(&origin, "30s"));
    assert_eq!(get(larder.admin(), "/readyz", &[]).status, 200);
    let waiting = client(&larder, "/cached");
    gate.wait_for_arrivals(1);
    stop(&larder, "TERM");
    let ready = || get(larder.admin(), "/readyz", &[]).status;
    assert!(within(PATIENCE, || ready() == 503), "nothing new should be sent here");
    assert_eq!(get(larder.admin(), "/livez", &[]).status, 200, "but it lives");
    assert_eq!(larder.stats()["active"], 1);
    gate.open();
    assert_eq!(waiting.join().unwrap().status, 200);
    assert_eq!(larder.wait_exit(PATIENCE), Some(0));
}

#[test]
fn told_to_stop_as_soon_as_it_listens_it_stops_cleanly() {
    let origin = Origin::ok("x", STORABLE);
    for _ in 0..10 {
        let mut larder = Larder::start(&config(&origin, "5m"));
        larder.terminate();
        assert_eq!(larder.wait_exit(PATIENCE), Some(0));
    }
}

#[test]
fn nothing_in_flight_ends_it_right_away() {
    let origin = Origin::ok("x", STORABLE);
    let mut larder = Larder::start(&config(&origin, "5m"));
    assert_eq!(larder.get("/cached", &[]).status, 200);
    stop(&larder, "TERM");
    assert_eq!(larder.wait_exit(PATIENCE), Some(0));
    // Its port is free again at once.
    let again = Larder::start(&config(&origin, "5m").replacen("127.0.0.1:0", &larder.proxy().to_string(), 1));
    assert_eq!(again.proxy(), larder.proxy());
}

/// How a request on a connection that is kept open ended.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    answered: u32,
    failed: u32,
}

/// Asks again and again, on a kept connection at times that have nothing to do with each other, until it
/// has been told to leave and can open no other. What is sent after that is nobody's fault.
fn restless(addr: std::net::SocketAddr, seed: u64) -> Told {
    let mut told = Told::default();
    let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while let Ok(mut connection) = Connection::try_open(addr) {
        loop {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            std::thread::sleep(Duration::from_micros(dice % 30_000));
            let path = if dice & 1 == 0 { "/cached".to_owned() } else { format!("/off?{dice}") };
            let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
            let response =
                connection.try_write(head.as_bytes()).and_then(|()| connection.try_response("GET"));
            match response {
                Ok(response) if response.status == 200 && response.complete => {
                    told.answered += 1;
                    if response.headers.lists("connection", "close") {
                        break;
                    }
                }
                _ => {
                    told.failed += 1;
                    break;
                }
            }
        }
    }
    told
}

#[test]
fn nobody_who_asks_while_it_stops_is_left_without_an_answer() {
    for signal in ["TERM", "INT"] {
        let origin = Origin::start(|request| {
            let fields = if request.target.starts_with("/off") { &[][..] } else { STORABLE };
            Script::ok("x", fields)
        });
        let mut larder = Larder::start(&config(&origin, "30s").replace("\"0s\"", "\"1500ms\""));
        let addr = larder.proxy();
        let clients: Vec<_> = (1..=20).map(|seed| std::thread::spawn(move || restless(addr, seed))).collect();
        assert!(within(PATIENCE, || larder.stats()["completed"].as_u64() > Some(200)), "{}", larder.stats());
        stop(&larder, signal);
        let told: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        assert!(told.iter().all(|told| told.failed == 0 && told.answered > 0), "{signal}: {told:?}");
        assert_eq!(larder.wait_exit(PATIENCE), Some(0), "{signal}");
    }
}

#[test]
fn a_connection_that_rested_is_told_in_the_next_answer_and_not_by_its_end() {
    let origin = Origin::ok("x", STORABLE);
    let mut larder = Larder::start(&config(&origin, "5m").replace("\"0s\"", "\"5m\""));
    let mut resting: Vec<_> = (0..20).map(|_| Connection::open(larder.proxy())).collect();
    for connection in &mut resting {
        assert!(!connection.request("GET", "/cached", &[], b"").headers.lists("connection", "close"));
    }
    stop(&larder, "TERM");
    assert!(within(PATIENCE, || get(larder.admin(), "/readyz", &[]).status == 503), "at once");
    // Who has not heard is still taken, and told.
    let response = larder.get("/cached", &[]);
    assert!(response.status == 200 && response.headers.lists("connection", "close"), "{response:?}");
    for connection in &mut resting {
        let response = connection.request("GET", "/cached", &[], b"");
        assert!(response.status == 200 && response.headers.lists("connection", "close"), "{response:?}");
        assert!(connection.closes());
    }
    // Nobody is left and nobody comes: it does not wait for the rest of its time.
    assert_eq!(larder.wait_exit(PATIENCE), Some(0));
}

#[test]
fn what_streams_and_was_not_told_may_be_asked_once_more() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |request| match request.target.as_str() {
        "/off" => Script::chunked(&[]).chunk("one ").wait(&held).chunk("two").last_chunk(),
        _ => Script::ok("x", STORABLE),
    });
    let mut larder = Larder::start(&config(&origin, "30s").replace("\"0s\"", "\"1s\""));
    let mut connection = Connection::open(larder.proxy());
    connection.write_head("GET", "/off", &[]);
    let mut response = connection.response_head("GET");
    assert_eq!(connection.read_chunk(), b"one ");
    stop(&larder, "TERM");
    assert!(within(PATIENCE, || Connection::try_open(larder.proxy()).is_err()), "it still listens");
    gate.open();
    connection.finish(&mut response);
    assert!(response.complete);
    let last = connection.request("GET", "/cached", &[], b"");
    assert!(last.status == 200 && last.headers.lists("connection", "close"), "{last:?}");
    assert_eq!(larder.wait_exit(PATIENCE), Some(0));
}

#[test]
fn what_the_kernel_has_taken_is_answered() {
    let origin = Origin::ok("x", STORABLE);
    let mut larder = Larder::start(&config(&origin, "30s").replace("workers = 2", "workers = 1"));
    assert_eq!(larder.get("/cached", &[]).status, 200);
    // It sleeps while they come; then it hears of its end and of them at once.
    larder.signal("STOP");
    let mut waiting: Vec<_> = (0..20).map(|_| Connection::open(larder.proxy())).collect();
    for connection in &mut waiting {
        connection.write_head("GET", "/cached", &[]);
    }
    larder.signal("TERM");
    larder.signal("CONT");
    for connection in &mut waiting {
        // Some may be answered before the signal is heard.
        assert_eq!(connection.response("GET").status, 200);
    }
    assert_eq!(larder.wait_exit(PATIENCE), Some(0));
}

fn config(origin: &Origin, drain: &str) -> String {
    format!(
        r#"
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
workers = 2
[limits]
lame_duck = "0s"
drain = "{drain}"
header_time = "5m"
first_byte_time = "5m"
idle_time = "5m"
[upstream.api]
servers = ["{}"]
timeout = {{ first_byte = "5m", total = "10m" }}
[[route]]
name = "off"
upstream = "api"
match = {{ path = "/off" }}
upgrade = true
cache = false
[[route]]
name = "all"
upstream = "api"
match = {{ path = "/*" }}
[route.cache]
ttl.default = "60s"
"#,
        origin.url()
    )
}

fn client(larder: &Larder, path: &'static str) -> JoinHandle<Response> {
    let addr = larder.proxy();
    std::thread::spawn(move || get(addr, path, &[]))
}

/// Sends a signal and waits until it has been heard.
fn stop(larder: &Larder, signal: &str) {
    larder.signal(signal);
    larder.err.wait_for_line(|line| line.contains("stopping"), PATIENCE);
}
