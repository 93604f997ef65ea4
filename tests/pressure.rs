//! Memory under pressure: whatever large things are asked for, and however slowly they are taken, the
//! process stays within its budget, a quarter more, and a base.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use support::{Larder, Origin, PATIENCE, Script, client, within};

const MIB: usize = 1 << 20;

/// MiB of memory that the process has now.
fn rss(larder: &Larder) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", larder.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() / 1024
}

/// A client that asks and then reads nothing, with next to no room in its kernel.
fn lazy(addr: SocketAddr, path: &str) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect_timeout(&addr.into(), PATIENCE).unwrap();
    let mut stream = TcpStream::from(socket);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
    stream
}

#[test]
fn many_large_objects_and_slow_readers_stay_within_the_budget() {
    let origin = Origin::start(|request| {
        let fields: &[(&str, &str)] = if request.target.starts_with("/off") {
            &[("Cache-Control", "no-store")]
        } else {
            &[("Cache-Control", "max-age=600")]
        };
        Script::ok(vec![b'x'; MIB], fields)
    });
    let larder = Larder::start(&format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = 2\n[cache]\nmemory = \"16MiB\"\n\
         [limits]\nlame_duck = \"0s\"\n[upstream.o]\nservers = [\"{}\"]\n[[route]]\nname = \"all\"\n\
         match = {{ path = \"/*\" }}\nupstream = \"o\"\n",
        origin.url()
    ));
    let base = rss(&larder);
    // Each reads a body of its own, which the tier cannot keep for long.
    let readers: Vec<_> = (0..150).map(|nth| lazy(larder.proxy(), &format!("/{nth}"))).collect();
    let figure = |name: &str| larder.metric(name).unwrap();
    assert!(within(PATIENCE * 3, || figure("larder_origin_fetches_total{route=\"all\"}") >= 150.0));
    for nth in 0..100 {
        let path = if nth % 2 == 0 { format!("/more/{nth}") } else { format!("/off/{nth}") };
        let response = client::get(larder.proxy(), &path, &[]);
        assert_eq!((response.status, response.body.len(), response.complete), (200, MIB, true));
        assert!(figure("larder_memory_bytes") <= 16.0 * MIB as f64);
        let others = figure("larder_memory_in_flight_bytes") + figure("larder_memory_lingering_bytes");
        // Half of it is for what outgrows its room while it comes.
        assert!(others <= 32.0 * MIB as f64, "{others}");
    }
    // 1.25 times the budget, room for the largest object, and a base that grows with the connections.
    let (most, now) = (base + 20 + 16 + 64, rss(&larder));
    assert!(now <= most, "{now} MiB after {base}; {most} are allowed");
    drop(readers);
    assert!(within(PATIENCE, || figure("larder_memory_lingering_bytes") == 0.0), "they are gone");
    assert!(within(PATIENCE, || figure("larder_memory_in_flight_bytes") == 0.0));
}

#[test]
fn large_objects_one_after_the_other_are_held_once_and_given_back() {
    const SIZE: usize = 7 * MIB;
    let origin = Origin::start(|request| {
        let body = vec![b'x'; SIZE];
        let fields = [("Cache-Control", "max-age=600")];
        // Of a length that is known, or not.
        if request.target.starts_with("/chunked") {
            Script::chunked(&fields).chunk(body).last_chunk()
        } else {
            Script::ok(body, &fields)
        }
    });
    let larder = Larder::start(&format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = 2\n[cache]\nmemory = \"64MiB\"\n\
         [limits]\nlame_duck = \"0s\"\n[upstream.o]\nservers = [\"{}\"]\n[[route]]\nname = \"all\"\n\
         match = {{ path = \"/*\" }}\nupstream = \"o\"\n",
        origin.url()
    ));
    let small = client::get(larder.proxy(), "/first", &[]);
    assert_eq!(small.body.len(), SIZE);
    let base = rss(&larder) - SIZE / MIB;
    for nth in 0..40 {
        let path = if nth % 3 == 0 { format!("/chunked/{nth}") } else { format!("/{nth}") };
        let response = client::get(larder.proxy(), &path, &[]);
        assert_eq!((response.status, response.body.len(), response.complete), (200, SIZE, true));
        // The worker may let go of the last body a moment after its client has it. Beside the budget's quarter
        // stands the body that is on its way, which the base has not.
        let most = base + 64 + 64 / 4 + 2 * SIZE / MIB;
        let is_within = within(PATIENCE, || rss(&larder) <= most);
        assert!(is_within, "{} MiB after {nth} objects; {most} are allowed", rss(&larder));
    }
    let held = larder.metric("larder_memory_bytes").unwrap();
    assert!(held > 40.0 * MIB as f64, "{held}: they were stored");
    let lingering = || larder.metric("larder_memory_lingering_bytes");
    assert!(within(PATIENCE, || lingering() == Some(0.0)), "nobody reads any more");
}
