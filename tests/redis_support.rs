//! The tests' own Redis and relay do what the other tests rely on.

#[path = "support/redis.rs"]
mod redis;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use redis::{Mode, RedisServer, Relay, Reply};

#[test]
fn the_server_starts_stops_and_starts_again_empty() {
    let mut server = RedisServer::start();
    assert_eq!(server.command(&["SET", "a", "1"]), Reply::Simple("OK".into()));
    assert_eq!(server.keys(), ["a"]);
    server.stop();
    assert!(TcpStream::connect(server.addr()).is_err());
    server.restart_on_same_port();
    assert_eq!(server.command(&["GET", "a"]), Reply::Bulk(None));
}

#[test]
fn a_paused_server_says_nothing_until_it_goes_on() {
    let server = RedisServer::start();
    let mut socket = TcpStream::connect(server.addr()).unwrap();
    server.pause();
    socket.write_all(b"PING\r\n").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(socket.read(&mut [0; 16]).is_err());
    server.resume();
    assert_eq!(read(&mut socket), b"+PONG\r\n");
}

#[test]
fn the_relay_passes_stalls_lies_and_cuts() {
    let server = RedisServer::start();
    let relay = Relay::start(server.addr());
    let mut socket = TcpStream::connect(relay.addr()).unwrap();
    socket.write_all(b"PING\r\n").unwrap();
    assert_eq!(read(&mut socket), b"+PONG\r\n");

    relay.set(Mode::Stall);
    socket.write_all(b"PING\r\n").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(socket.read(&mut [0; 16]).is_err());
    relay.set(Mode::Pass);
    assert_eq!(read(&mut socket), b"+PONG\r\n");

    relay.set(Mode::Garbage(b"what?"));
    socket.write_all(b"PING\r\n").unwrap();
    assert_eq!(read(&mut socket), b"what?");

    relay.set(Mode::Cut);
    assert_eq!(read(&mut socket), b"", "open connections are closed");
    let mut late = TcpStream::connect(relay.addr()).unwrap();
    assert_eq!(read(&mut late), b"", "and new ones too");
    assert_eq!(relay.accepted(), 2);
}

fn read(socket: &mut TcpStream) -> Vec<u8> {
    socket.set_read_timeout(Some(Duration::from_secs(10))).ok();
    let mut buffer = [0; 64];
    // A reset counts as an end.
    let count = socket.read(&mut buffer).unwrap_or(0);
    buffer.get(..count).unwrap_or_default().to_vec()
}
