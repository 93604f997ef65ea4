//! Who a client is: by its socket, by a header of the PROXY protocol, by what trusted proxies say; and
//! that nobody else has a say in it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::net::SocketAddr;

use support::{Connection, Larder, Origin, PATIENCE, Request, Script, within};

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 80\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2: command, family, and what follows the length.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[0x20 | command, family], &length, rest].concat()
}

const V4: [u8; 12] = [192, 0, 2, 2, 198, 51, 100, 1, 0x12, 0x67, 0, 80];

fn v6() -> Vec<u8> {
    let mut rest = [0; 36];
    rest[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    rest[15] = 1;
    rest.to_vec()
}

/// Larder with a listener that asks for the header and one that does not; `top` stands first.
fn front(top: &str, limits: &str) -> (Origin, Larder) {
    let origin = Origin::start(told);
    let larder = Larder::start(&format!(
        "listen = [{{ address = \"127.0.0.1:0\", proxy_protocol = true }}, \"127.0.0.1:0\"]\n\
         admin = \"127.0.0.1:0\"\nworkers = 2\n{top}\n[log]\naccess = \"json\"\n[limits]\n{limits}\n\
         [upstream.api]\nservers = [\"{}\"]\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"api\"\ncache = false\n",
        origin.url()
    ));
    assert!(within(PATIENCE, || larder.err.all().iter().any(|line| line.contains("admin on"))));
    (origin, larder)
}

/// Whom the origin was told that a request is from.
fn told(request: &Request) -> Script {
    let said = |name: &str| request.headers.all(name).collect::<Vec<_>>().join("|");
    Script::ok(format!("{} / {}", said("x-forwarded-for"), said("x-real-ip")), &[])
}

/// Sends a header, then a request; what the origin was told.
fn asked(addr: SocketAddr, header: &[u8], fields: &[(&str, &str)]) -> String {
    let mut connection = Connection::open(addr);
    connection.write(header);
    connection.write_head("GET", "/", fields);
    let first = connection.response("GET").text();
    assert_eq!(connection.request("GET", "/", fields, b"").text(), first, "the connection goes on");
    first
}

fn refused(larder: &Larder, why: &str) -> f64 {
    larder.metric(&format!("larder_proxy_headers_refused_total{{reason=\"{why}\"}}")).unwrap()
}

#[test]
fn a_header_names_the_client_to_the_origin_and_to_the_logs() {
    let (_origin, larder) = front("", "");
    let from = larder.out.position();
    let more = [&V4[..], &[0x04, 0, 1, 0]].concat();
    for (header, client) in [
        (V1.to_vec(), "192.0.2.1"),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 80\r\n".to_vec(), "2001:db8::1"),
        (b"PROXY TCP6 ::ffff:192.0.2.9 ::1 4711 80\r\n".to_vec(), "192.0.2.9"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (v2(1, 0x11, &V4), "192.0.2.2"),
        (v2(1, 0x11, &more), "192.0.2.2"),
        (v2(1, 0x21, &v6()), "2001:db8::1"),
        (v2(1, 0x11, &[&V4[..], &[0; 4084]].concat()), "192.0.2.2"),
        (v2(0, 0x00, &[]), "127.0.0.1"),
        (v2(0, 0x11, &V4), "127.0.0.1"),
        (v2(1, 0x00, &[]), "127.0.0.1"),
    ] {
        let forged = [("X-Forwarded-For", "10.9.9.9"), ("X-Real-IP", "10.9.9.9")];
        assert_eq!(asked(larder.proxy(), &header, &forged), format!("{client} / {client}"), "{header:?}");
        let logged = format!("\"{client}\"");
        larder.out.next_line(from, |line| line.contains(&logged), PATIENCE);
    }
    for line in larder.metrics().lines().filter(|line| line.starts_with("larder_proxy_headers")) {
        assert!(line.ends_with(" 0"), "{line}");
    }
}

#[test]
fn a_header_may_come_byte_by_byte_and_together_with_what_follows() {
    let (_origin, larder) = front("", "");
    for header in [V1.to_vec(), v2(1, 0x11, &V4)] {
        let request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
        let all = [&header[..], request].concat();
        let client = if header == V1 { "192.0.2.1" } else { "192.0.2.2" };
        let mut slow = Connection::open(larder.proxy());
        for byte in &all {
            slow.write(std::slice::from_ref(byte));
        }
        let mut at_once = Connection::open(larder.proxy());
        at_once.write(&all);
        for connection in [&mut slow, &mut at_once] {
            assert_eq!(connection.response("GET").text(), format!("{client} / {client}"));
        }
    }
}

#[test]
fn http_2_follows_a_header_as_well() {
    let (_origin, larder) = front("", "");
    let mut connection = Connection::open(larder.proxy());
    // The preface, an empty SETTINGS frame (RFC 9113 §3.4); the server's preface is one, too.
    connection.write(&[V1, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat());
    assert_eq!(connection.read_some(9)[3], 4, "a SETTINGS frame");
}

#[test]
fn without_a_good_header_the_connection_is_closed_and_counted() {
    let (origin, larder) = front("", "");
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec();
    let with = |header: &[u8]| [header, &request].concat();
    let mut counts = std::collections::BTreeMap::new();
    for (bytes, why) in [
        (request.clone(), "missing"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), "missing"),
        (b"\x16\x03\x01\x02\x00\x01".to_vec(), "missing"),
        (vec![0; 64], "missing"),
        (with(b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 80\n"), "malformed"),
        (with(b"PROXY TCP4 192.0.2.256 198.51.100.1 4711 80\r\n"), "malformed"),
        (with(b"PROXY TCP4 192.0.2.1 198.51.100.1 4711\r\n"), "malformed"),
        (with(b"PROXY TCP4 2001:db8::1 2001:db8::2 4711 80\r\n"), "malformed"),
        (with(b"PROXY UDP4 192.0.2.1 198.51.100.1 4711 80\r\n"), "family"),
        (with(&[b"PROXY UNKNOWN ", &[b'x'; 200][..], b"\r\n"].concat()), "too-long"),
        (with(&v2(1, 0x11, &V4[..11])), "malformed"),
        (with(&v2(2, 0x11, &V4)), "malformed"),
        (with(&v2(1, 0x12, &V4)), "family"),
        (with(&v2(1, 0x31, &[0; 216])), "family"),
        (with(&v2(1, 0x11, &[0; 5000])), "too-long"),
        (with(&v2(0, 0x00, &[0; 65_535])), "too-long"),
    ] {
        let mut connection = Connection::open(larder.proxy());
        // It may be closed before all has been written.
        let _ = connection.try_write(&bytes);
        assert!(connection.closes(), "{why}: {bytes:?}");
        *counts.entry(why).or_insert(0.0) += 1.0;
        assert!(within(PATIENCE, || refused(&larder, why) == counts[why]), "{why}: {bytes:?}");
    }
    // Who leaves in the middle of one.
    let mut leaving = Connection::open(larder.proxy());
    leaving.write(&V1[..20]);
    leaving.end_writing();
    assert!(leaving.closes());
    assert!(within(PATIENCE, || refused(&larder, "truncated") == 1.0));
    assert_eq!(origin.requests().len(), 0, "nothing of it has gone further");
    assert!(within(PATIENCE, || larder.stats()["connections"] == 0), "{}", larder.stats());
    assert_eq!(asked(larder.proxy(), V1, &[]), "192.0.2.1 / 192.0.2.1", "others are served");
}

#[test]
fn a_second_header_is_not_http() {
    let (origin, larder) = front("", "");
    for header in [V1.to_vec(), v2(1, 0x11, &V4)] {
        let mut connection = Connection::open(larder.proxy());
        connection.write(&[&header[..], &header, b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"].concat());
        let said = String::from_utf8_lossy(&connection.read_to_end()).into_owned();
        assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
    }
    assert_eq!(origin.requests().len(), 0);
}

#[test]
fn a_header_that_does_not_end_in_time_ends_the_connection() {
    let (_origin, larder) = front("", "header_time = \"300ms\"");
    for begun in [&b""[..], b"P", &V1[..V1.len() - 1], SIGNATURE] {
        let mut connection = Connection::open(larder.proxy());
        connection.write(begun);
        assert!(connection.closes(), "{begun:?}");
    }
    assert!(within(PATIENCE, || refused(&larder, "late") == 4.0), "{}", larder.metrics());
}

#[test]
fn a_listener_that_does_not_ask_for_it_takes_it_for_a_bad_request() {
    let (origin, larder) = front("", "");
    for header in [V1.to_vec(), v2(1, 0x11, &V4)] {
        let mut connection = Connection::open(larder.proxies()[1]);
        connection.write(&[&header[..], b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"].concat());
        let said = String::from_utf8_lossy(&connection.read_to_end()).into_owned();
        assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
    }
    assert_eq!(origin.requests().len(), 0);
    assert_eq!(asked(larder.proxies()[1], b"", &[]), "127.0.0.1 / 127.0.0.1");
}

#[test]
fn where_some_are_trusted_only_they_may_introduce_a_client() {
    let (_origin, larder) = front("trusted_proxies = [\"192.0.2.0/24\"]", "");
    let mut connection = Connection::open(larder.proxy());
    let _ = connection.try_write(V1);
    assert!(connection.closes());
    assert!(within(PATIENCE, || refused(&larder, "untrusted") == 1.0));
    // A balancer that is trusted names a proxy that is trusted, which names the client.
    let (_origin, larder) = front("trusted_proxies = [\"127.0.0.1\", \"192.0.2.1\"]", "");
    let chain = [("X-Forwarded-For", "203.0.113.5, 198.51.100.7")];
    let told = "203.0.113.5, 198.51.100.7, 192.0.2.1 / 198.51.100.7";
    assert_eq!(asked(larder.proxy(), V1, &chain), told);
    // One that names a stranger has no say in what the stranger says.
    assert_eq!(asked(larder.proxy(), &v2(1, 0x11, &V4), &chain), "192.0.2.2 / 192.0.2.2");
}

#[test]
fn connections_that_wait_for_a_header_hold_up_no_drain() {
    let (_origin, mut larder) = front("", "header_time = \"5m\"\ndrain = \"5m\"");
    let mut connection = Connection::open(larder.proxy());
    connection.write(&V1[..10]);
    assert!(within(PATIENCE, || larder.stats()["connections"] == 1), "{}", larder.stats());
    larder.terminate();
    assert!(connection.closes());
    assert_eq!(larder.wait_exit(PATIENCE), Some(0));
}

#[test]
fn a_header_that_is_refused_is_told_in_the_log() {
    let (_origin, larder) = front("", "");
    let from = larder.err.position();
    let mut connection = Connection::open(larder.proxy());
    connection.write(b"GET / HTTP/1.1\r\nHost: secret.test\r\n\r\n");
    assert!(connection.closes());
    let (line, _) = larder.err.next_line(from, |line| line.contains("PROXY protocol"), PATIENCE);
    assert!(line.contains("missing") && line.contains("127.0.0.1") && !line.contains("secret"), "{line}");
}

#[test]
fn who_is_introduced_has_nobody_evicted_before_its_address_is_judged() {
    let (_origin, larder) = front("", "connections = 2\nper_address = 1");
    let from = |client: &str| {
        let mut connection = Connection::open(larder.proxy());
        connection.write(format!("PROXY TCP4 {client} 192.0.2.9 4711 80\r\n").as_bytes());
        connection
    };
    let mut held = ["192.0.2.1", "192.0.2.2"].map(from);
    for connection in &mut held {
        assert_eq!(connection.request("GET", "/", &[], b"").status, 200);
    }
    let refused = from("192.0.2.1").request("GET", "/", &[], b"");
    assert_eq!((refused.status, refused.json()["cause"].as_str()), (503, Some("too-many-connections")));
    assert_eq!(larder.metric("larder_connections_ended_total{reason=\"made-room\"}"), Some(0.0));
    for connection in &mut held {
        assert_eq!(connection.request("GET", "/", &[], b"").status, 200, "its connection is still its own");
    }
    assert_eq!(from("192.0.2.3").request("GET", "/", &[], b"").status, 200);
    assert!(held[0].closes());
}

#[test]
fn the_client_is_the_nearest_that_no_trusted_proxy_vouches_for() {
    let (_origin, larder) = front("trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]", "");
    let from = larder.out.position();
    for (fields, client) in [
        (&[("X-Forwarded-For", "203.0.113.5, 198.51.100.7")][..], "198.51.100.7"),
        (&[("X-Forwarded-For", "203.0.113.6, 10.1.1.1")], "203.0.113.6"),
        (&[("X-Forwarded-For", "203.0.113.5, nonsense, 10.1.1.2")], "10.1.1.2"),
        (&[("Forwarded", "for=\"[2001:db8::5]:1\"")], "2001:db8::5"),
        (&[("X-Real-IP", "203.0.113.9")], "203.0.113.9"),
        (&[], "127.0.0.1"),
    ] {
        let told = asked(larder.proxies()[1], b"", fields);
        assert!(told.ends_with(&format!(" / {client}")), "{fields:?}: {told}");
        let logged = format!("\"{client}\"");
        larder.out.next_line(from, |line| line.contains(&logged), PATIENCE);
    }
}
