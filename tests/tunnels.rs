//! Connections that leave HTTP: they count as connections, end when nothing moves, when either side goes
//! and when Larder stops, and leave nothing behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use support::client::request;
use support::{Connection, Larder, PATIENCE, within};

const ASK: &[(&str, &str)] = &[("Host", "a.test"), ("Connection", "Upgrade"), ("Upgrade", "websocket")];

/// An origin of which a test holds the sockets, and a Larder before it.
struct Front {
    larder: Larder,
    origin: TcpListener,
}

impl Front {
    fn new(limits: &str) -> Self {
        Self::with_pool(limits, "{}")
    }

    fn with_pool(limits: &str, pool: &str) -> Self {
        let origin = TcpListener::bind("127.0.0.1:0").unwrap();
        let larder = Larder::start(&format!(
            "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = 2\n[limits]\n{limits}\n\
             [upstream.api]\nservers = [\"http://{}\"]\npool = {pool}\n\
             [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"api\"\nupgrade = true\n",
            origin.local_addr().unwrap()
        ));
        Self { larder, origin }
    }

    /// Both ends of a new tunnel.
    fn tunnel(&self) -> (Connection, TcpStream) {
        self.tunnel_of(Connection::open(self.larder.proxy()))
    }

    fn tunnel_of(&self, mut client: Connection) -> (Connection, TcpStream) {
        client.write_head("GET", "/", ASK);
        let origin = self.accept();
        (&origin)
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            )
            .unwrap();
        assert_eq!(client.response_head("GET").status, 101);
        (client, origin)
    }

    /// The next connection that the origin gets, and the head of its request taken.
    fn accept(&self) -> TcpStream {
        self.origin.set_nonblocking(true).unwrap();
        let mut stream = None;
        assert!(within(PATIENCE, || {
            stream = self.origin.accept().ok();
            stream.is_some()
        }));
        let (mut stream, _) = stream.unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream
    }

    fn count(&self, sample: &str) -> f64 {
        self.larder.metric(sample).unwrap()
    }

    /// Nothing is left of so many tunnels, all of which ended so.
    fn all_ended(&self, end: &str, times: f64) {
        let ended = format!("larder_tunnels_ended_total{{end=\"{end}\"}}");
        let gone = || {
            let connections =
                format!("larder_upstream_connections{{upstream=\"api\",server=\"{}\"", self.server());
            self.count(&ended) == times
                && self.count("larder_tunnels") == 0.0
                && self.count("larder_client_connections") == 0.0
                && self.count(&format!("{connections},state=\"busy\"}}")) == 0.0
        };
        assert!(within(PATIENCE, gone), "{}", self.larder.metrics());
    }

    fn server(&self) -> String {
        let metrics = self.larder.metrics();
        let line = metrics.lines().find(|line| line.starts_with("larder_upstream_connections{")).unwrap();
        line.split("server=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    }
}

fn ends(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0]), Ok(0)) || stream.take_error().is_ok_and(|error| error.is_some())
}

/// Asks for one more tunnel, and is told so: status, cause, when to come again.
fn refused(mut client: Connection) -> (u16, String, String) {
    client.write_head("GET", "/", ASK);
    let answer = client.response("GET");
    (
        answer.status,
        answer.json()["cause"].as_str().unwrap().to_owned(),
        answer.header("retry-after").to_owned(),
    )
}

#[test]
fn tunnels_leave_connections_to_the_origin_for_requests() {
    let front = Front::with_pool("", "{ max_connections = 4, max_tunnels = 2 }");
    let mut tunnels = vec![front.tunnel(), front.tunnel()];
    let of_all = (503, "too-many-tunnels".to_owned(), "10".to_owned());
    assert_eq!(refused(Connection::open(front.larder.proxy())), of_all);
    // A plain request finds a connection.
    let mut plain = Connection::open(front.larder.proxy());
    plain.write_head("GET", "/plain", &[]);
    front.accept().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").unwrap();
    assert_eq!(plain.response("GET").text(), "ok");
    // One that ends makes room for another.
    drop(tunnels.pop());
    assert!(within(PATIENCE, || front.count("larder_tunnels") == 1.0));
    tunnels.push(front.tunnel());
    // Who asked and was not granted one holds none.
    drop(tunnels.pop());
    assert!(within(PATIENCE, || front.count("larder_tunnels") == 1.0));
    let mut asking = Connection::open(front.larder.proxy());
    asking.write_head("GET", "/", ASK);
    front.accept().write_all(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!(asking.response("GET").status, 403);
    tunnels.push(front.tunnel());
}

/// They live on under the configuration that they began with, and the origin has them still.
#[test]
fn tunnels_count_on_over_a_reload_that_changes_their_upstream() {
    let front = Front::with_pool("", "{ max_connections = 8, max_tunnels = 2 }");
    let mut tunnels = vec![front.tunnel(), front.tunnel()];
    let path = front.larder.directory().join("proxy.toml");
    let changed =
        std::fs::read_to_string(&path).unwrap().replace("max_connections = 8", "max_connections = 9");
    std::fs::write(&path, changed).unwrap();
    assert_eq!(request(front.larder.admin(), "POST", "/reload", &[], b"").status, 200);
    let mut client = Connection::open(front.larder.proxy());
    client.write_head("GET", "/", ASK);
    let answer = client.response("GET");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["message"], "2 upgraded connections are open here, as many as there may be");
    drop(tunnels.pop());
    assert!(within(PATIENCE, || front.count("larder_tunnels") == 1.0));
    tunnels.push(front.tunnel());
}

#[test]
fn one_address_has_no_more_tunnels_than_it_may_and_others_have_theirs() {
    let front = Front::new("tunnels_per_address = 1");
    let held = front.tunnel();
    let of_one = (429, "too-many-tunnels".to_owned(), "10".to_owned());
    assert_eq!(refused(Connection::open(front.larder.proxy())), of_one);
    let _another = front.tunnel_of(Connection::open_from("127.0.0.2", front.larder.proxy()));
    drop(held);
    assert!(within(PATIENCE, || front.count("larder_tunnels") == 1.0));
    let _next = front.tunnel();
}

#[test]
fn a_tunnel_is_a_connection_for_as_long_as_it_lives() {
    let front = Front::new("connections = 1");
    let (mut client, origin) = front.tunnel();
    for _ in 0..3 {
        client.write(b"ping");
        let mut heard = [0; 4];
        (&origin).read_exact(&mut heard).unwrap();
        (&origin).write_all(b"pong").unwrap();
        assert_eq!(client.read_some(4), b"pong");
        assert_eq!((front.count("larder_tunnels"), front.count("larder_client_connections")), (1.0, 1.0));
    }
    // There is no place for another until it has ended.
    let mut next = Connection::open(front.larder.proxy());
    next.write_head("GET", "/", &[("Host", "a.test")]);
    client.write(b"last");
    (&origin).read_exact(&mut [0; 4]).unwrap();
    front.origin.set_nonblocking(true).unwrap();
    assert!(front.origin.accept().is_err(), "nobody else has got through");
    drop((client, origin));
    let mut origin = front.accept();
    origin.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!(next.response("GET").status, 200);
    drop((next, origin));
    front.all_ended("closed", 1.0);
}

#[test]
fn a_tunnel_in_which_nothing_moves_is_closed_on_both_sides() {
    let front = Front::new("tunnel_idle = \"300ms\"");
    let (mut client, mut origin) = front.tunnel();
    assert!(client.closes());
    assert!(ends(&mut origin));
    front.all_ended("idle", 1.0);
}

#[test]
fn either_side_may_be_done_before_the_other() {
    let front = Front::new("");
    let (mut client, mut origin) = front.tunnel();
    client.write(b"last words");
    client.end_writing();
    let mut heard = String::new();
    origin.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "last words");
    origin.write_all(b"answer").unwrap();
    drop(origin);
    assert_eq!(client.read_to_end(), b"answer");

    let (mut client, mut origin) = front.tunnel();
    origin.write_all(b"bye").unwrap();
    origin.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read_to_end(), b"bye");
    client.write(b"one more");
    client.end_writing();
    heard.clear();
    origin.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "one more");
    drop((client, origin));
    front.all_ended("closed", 2.0);
}

#[test]
fn a_side_that_vanishes_takes_the_other_with_it() {
    let front = Front::new("");
    let (client, mut origin) = front.tunnel();
    client.reset();
    assert!(ends(&mut origin));
    let (mut client, origin) = front.tunnel();
    socket2::SockRef::from(&origin).set_linger(Some(Duration::ZERO)).unwrap();
    drop(origin);
    assert!(client.closes());
    drop(client);
    front.all_ended("closed", 2.0);
}

#[test]
fn a_larder_that_stops_ends_tunnels_when_it_ceases_to_listen() {
    let mut front = Front::new("lame_duck = \"300ms\"\ndrain = \"5m\"\ntunnel_idle = \"5m\"");
    let (mut client, mut origin) = front.tunnel();
    client.write(b"x");
    origin.read_exact(&mut [0]).unwrap();
    front.larder.terminate();
    assert!(client.closes());
    assert!(ends(&mut origin));
    assert_eq!(front.larder.wait_exit(PATIENCE), Some(0));
}
