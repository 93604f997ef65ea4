//! Memory under pressure: whatever large things are asked for, and however slowly they are taken, the
//! process stays within its budget, a quarter more, and a base.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::io::{ErrorKind, Read, Write};
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
#[cfg(target_os = "linux")]
fn the_system_gives_no_more_than_the_pages_that_are_written_to() {
    let origin = Origin::start(|_| Script::ok("x", &[]));
    let larder = with_memory(&origin, 16);
    let of = |file: &str, name: &str| {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", larder.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        line.unwrap().to_owned()
    };
    assert_eq!(of("status", "THP_enabled:"), "0");
}

#[test]
fn connections_on_which_nothing_is_asked_make_the_tier_yield() {
    let origin = Origin::start(|_| Script::ok(vec![b'x'; 60_000], &[("Cache-Control", "max-age=600")]));
    let larder = with_memory(&origin, 4);
    for nth in 0..60 {
        assert_eq!(client::get(larder.proxy(), &format!("/{nth}"), &[]).status, 200);
    }
    let held = || larder.metric("larder_memory_bytes").unwrap() as usize;
    assert!(held() > 3 * MIB, "{}", held());
    // 24 KiB each.
    let clients: Vec<_> = (0..60)
        .map(|_| {
            let mut stream = TcpStream::connect(larder.proxy()).unwrap();
            stream.write_all(b"GET /").unwrap();
            stream
        })
        .collect();
    assert!(within(PATIENCE, || held() < 4 * MIB - 60 * 24 * 1024), "{}", held());
    drop(clients);
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
         [limits]\nlame_duck = \"0s\"\nheader_time = \"60s\"\n[upstream.o]\nservers = [\"{}\"]\n[[route]]\nname = \"all\"\n\
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

/// A Larder with a tier of so many MiB.
fn with_memory(origin: &Origin, mib: usize) -> Larder {
    Larder::start(&format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = 2\n[cache]\nmemory = \"{mib}MiB\"\n\
         [limits]\nlame_duck = \"0s\"\n[upstream.o]\nservers = [\"{}\"]\n[[route]]\nname = \"all\"\n\
         match = {{ path = \"/*\" }}\nupstream = \"o\"\n",
        origin.url()
    ))
}

#[test]
fn slow_readers_of_bodies_of_their_own_are_within_the_budget_and_keep_no_others_out_of_the_cache() {
    const SIZE: usize = 4 * MIB;
    let origin = Origin::start(|request| {
        let size = if request.target.starts_with("/small") { 50_000 } else { SIZE };
        Script::ok(vec![b'x'; size], &[("Cache-Control", "max-age=600")])
    });
    let larder = with_memory(&origin, 64);
    let base = rss(&larder);
    let readers: Vec<_> = (0..100).map(|nth| lazy(larder.proxy(), &format!("/{nth}"))).collect();
    let figure = |name: &str| larder.metric(name).unwrap();
    assert!(within(PATIENCE * 3, || figure("larder_origin_fetches_total{route=\"all\"}") >= 100.0));
    // Nothing is on its way for ever: it is stored, or goes at its client's pace.
    assert!(within(PATIENCE, || figure("larder_memory_in_flight_bytes") == 0.0));
    let bodies = figure("larder_memory_bytes") + figure("larder_memory_lingering_bytes");
    assert!(bodies <= 64.0 * MIB as f64, "{bodies}");
    // Each may be fetched twice: what is asked for as rarely as all others does not get into a full tier.
    for nth in 0..10 {
        let path = format!("/small/{nth}");
        let is_hit = || {
            let response = client::get(larder.proxy(), &path, &[]);
            response.header("cache-status").contains("; hit")
        };
        assert!(within(PATIENCE, is_hit), "{path} is not kept");
    }
    // 1.25 times the budget, and what a build for tests takes for 200 connections.
    let (most, now) = (base + 64 + 16 + 40, rss(&larder));
    assert!(now <= most, "{now} MiB after {base}; {most} are allowed");
    drop(readers);
    assert!(within(PATIENCE, || figure("larder_memory_lingering_bytes") == 0.0), "they are gone");
}

#[test]
fn what_only_one_slow_client_asks_for_is_not_stored_where_much_is_read_slowly_already() {
    const SIZE: usize = 4 * MIB;
    let origin = Origin::start(|_| Script::ok(vec![b'x'; SIZE], &[("Cache-Control", "max-age=600")]));
    let larder = with_memory(&origin, 64);
    let figure = |name: &str| larder.metric(name).unwrap();
    let fetches = || figure("larder_origin_fetches_total{route=\"all\"}");
    // A client that has read the head has been judged.
    let slow = |path: &str| {
        let mut stream = lazy(larder.proxy(), path);
        let mut head = [0; 200];
        stream.read_exact(&mut head).unwrap();
        (String::from_utf8_lossy(&head).into_owned(), stream)
    };
    let readers: Vec<_> = (0..40).map(|nth| slow(&format!("/{nth}"))).collect();
    assert!(readers.iter().filter(|(head, _)| head.contains("in-flight-limit")).count() >= 35);
    // A quarter of the budget: the tier need never give up what they would then hold all the same.
    let bodies = || figure("larder_memory_bytes") + figure("larder_memory_lingering_bytes");
    let is_stored = |most: usize| bodies() > (most - MIB) as f64 && bodies() < (most + MIB) as f64;
    assert!(within(PATIENCE, || is_stored(16 * MIB)), "{}", bodies());
    // What another asks for is stored all the same, though the first still reads, and though that one is slow, too.
    let first = slow("/wanted");
    assert!(first.0.contains("in-flight-limit"), "{}", first.0);
    let second = slow("/wanted");
    assert!(second.0.contains("; stored"), "{}", second.0);
    assert!(within(PATIENCE, || is_stored(16 * MIB + SIZE)), "{}", bodies());
    let third = slow("/wanted");
    assert!(third.0.contains("; hit"), "{}", third.0);
    assert_eq!(fetches(), 42.0);
}

/// MiB that so many clients add who ask for large bodies that are not stored and take next to nothing of them.
fn taken_by_slow_clients(larder: &Larder, clients: usize) -> usize {
    let base = rss(larder);
    let readers: Vec<_> = (0..clients)
        .map(|nth| {
            let mut stream = lazy(larder.proxy(), &format!("/{nth}"));
            // Its body has begun.
            stream.read_exact(&mut [0; 2048]).unwrap();
            stream
        })
        .collect();
    // What is on its way to them comes meanwhile.
    let most = (0..100).map(|_| {
        assert_eq!(client::get(larder.proxy(), "/small", &[]).body.len(), 1);
        rss(larder)
    });
    let most = most.max().unwrap();
    drop(readers);
    most.saturating_sub(base)
}

#[test]
fn what_is_read_in_large_pieces_while_there_is_room_is_not_where_there_is_none() {
    const CLIENTS: usize = 200;
    let origin = Origin::start(|request| {
        let size = if request.target.starts_with("/small") { 1 } else { 4 * MIB };
        Script::ok(vec![b'x'; size], &[("Cache-Control", "no-store")])
    });
    let (ample, tight) = (with_memory(&origin, 2048), with_memory(&origin, 8));
    let (much, little) = (taken_by_slow_clients(&ample, CLIENTS), taken_by_slow_clients(&tight, CLIENTS));
    // What is counted for each, a quarter more, and what a build for tests takes beside it.
    let counted = CLIENTS * (128 + 24) / 1024;
    assert!(
        little <= counted + counted / 4 + 16,
        "{little} MiB of {counted}, and {much} where there is room"
    );
}

#[test]
fn large_heads_that_do_not_end_have_a_room_of_their_own() {
    let origin = Origin::start(|_| Script::ok("x", &[]));
    let larder = with_memory(&origin, 1);
    let head = [b"GET / HTTP/1.1\r\nHost: a.test\r\nX: ".as_slice(), &[b'a'; 60_000]].concat();
    // As many as there is room for (16 MiB), and some more, which are closed.
    let mut clients: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(larder.proxy()).unwrap();
            let _closed_meanwhile = stream.write_all(&head);
            stream
        })
        .collect();
    let mut ended = 0;
    for stream in &mut clients {
        stream.set_nonblocking(true).unwrap();
    }
    assert!(within(PATIENCE, || {
        clients.retain_mut(|stream| {
            let is_open =
                matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
            ended += usize::from(!is_open);
            is_open
        });
        ended >= 20
    }));
    assert!(clients.len() >= 100, "{}", clients.len());
    // Whoever's head is not large, or comes whole, is served.
    assert_eq!(client::get(larder.proxy(), "/", &[]).status, 200);
    // And when one has come to its end, its room is another's.
    let mut first = clients.remove(0);
    first.set_nonblocking(false).unwrap();
    first.write_all(b"\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    first.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn a_large_head_that_is_refused_already_takes_of_the_same_room() {
    let origin = Origin::start(|_| Script::ok("x", &[]));
    let larder = with_memory(&origin, 1);
    // A lone LF; hyper goes on reading for its end.
    let head = [b"GET / HTTP/1.1\r\nHost: a.test\nX: ".as_slice(), &[b'a'; 60_000]].concat();
    let mut clients: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(larder.proxy()).unwrap();
            let _closed_meanwhile = stream.write_all(&head);
            stream.set_nonblocking(true).unwrap();
            stream
        })
        .collect();
    assert!(within(PATIENCE, || {
        clients.retain_mut(
            |stream| matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock),
        );
        clients.len() <= 180
    }));
    assert!(clients.len() >= 100, "{}", clients.len());
    // Whoever comes to the end hears why.
    let mut first = clients.remove(0);
    first.set_nonblocking(false).unwrap();
    first.write_all(b"\r\n\r\n").unwrap();
    let mut answer = String::new();
    first.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}
