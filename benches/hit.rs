//! What a hit costs: its parts, and a client and an origin for a whole Larder.
//!
//! `cargo bench --bench hit` times the parts; `benches/instructions.sh` counts instructions, of the same work so many
//! times and more, so that starting up does not count. Knows a client that asks over a socket, and an origin.
//! Must not know: what is fast enough.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a bench: a surprise here ends it"
)]

mod parts;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use parts::PARTS;

const USAGE: &str = "\
hit PART TIMES              do a part of a hit; without words, time each of them
hit ask ADDRESS WORK TIMES  ask a Larder over one connection. WORK: hit, held (a 304), miss, fill, redis
hit housekeeping TIMES      look up and keep in a full tier, and say how long the longest took
hit origin                  be an origin, and print where";

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["--bench"] => time_all(),
        // A run of all tests has nothing to do here.
        [] => {}
        ["origin"] => origin(),
        ["ask", address, work, times] => ask(address, Work::of(work), times.parse().expect(USAGE)),
        ["housekeeping", times] => parts::tier::housekeeping(times.parse().expect(USAGE)),
        [name, times] => {
            let (_, _, part) = PARTS.iter().find(|(known, ..)| *known == name).expect(USAGE);
            part(times.parse().expect(USAGE));
        }
        _ => println!("{USAGE}"),
    }
}

/// The best of several rounds: whatever else the machine does makes it longer, never shorter.
fn time_all() {
    const TIMES: u32 = 200_000;
    for (name, what, part) in PARTS {
        let round = || {
            let begun = Instant::now();
            part(TIMES);
            begun.elapsed() / TIMES
        };
        let best = (0..5).map(|_| round()).min().unwrap_or_default();
        println!("{name:8} {:6} ns  {what}", best.as_nanos());
    }
}

/// What is asked for, and how the answer says where it came from.
struct Work {
    /// One path, or as many as there are requests.
    each: bool,
    path: &'static str,
    field: &'static str,
    status: &'static str,
    from: &'static str,
}

impl Work {
    fn of(name: &str) -> Self {
        let one = Self { each: false, path: "/kept/one", field: "", status: "200", from: "larder; hit;" };
        match name {
            "hit" => one,
            "held" => Self { field: "If-None-Match: \"a\"\r\n", status: "304", ..one },
            "redis" => Self { each: true, path: "/kept/", from: "detail=redis", ..one },
            "fill" => Self { each: true, path: "/kept/", from: "fwd=uri-miss", ..one },
            "miss" => Self { each: true, path: "/private/", from: "fwd=uri-miss", ..one },
            _ => panic!("{USAGE}"),
        }
    }
}

fn ask(address: &str, work: Work, times: u32) {
    let mut peer = BufReader::new(TcpStream::connect(address).unwrap());
    peer.get_ref().set_nodelay(true).unwrap();
    for nth in 0..times {
        let nth = if work.each { nth.to_string() } else { String::new() };
        let (path, field) = (work.path, work.field);
        let fields = "Host: api.test\r\nAccept: */*\r\nUser-Agent: bench\r\n";
        // In one piece, as clients send it: a head that comes in parts goes another way.
        let head = format!("GET {path}{nth} HTTP/1.1\r\n{fields}{field}\r\n");
        peer.get_mut().write_all(head.as_bytes()).unwrap();
        let (mut head, mut length) = (String::new(), 0);
        while !head.ends_with("\r\n\r\n") {
            let start = head.len();
            assert!(peer.read_line(&mut head).unwrap() > 0, "the connection ended");
            let lower = head[start..].to_ascii_lowercase();
            length = lower.strip_prefix("content-length:").map_or(length, |n| n.trim().parse().unwrap());
        }
        // Of what is asked for again and again the first is no hit.
        let first = !work.each && !head.contains(work.from);
        assert!(first || head.contains(work.from) && head.contains(work.status), "{head}");
        peer.read_exact(&mut vec![0; if head.starts_with("HTTP/1.1 304") { 0 } else { length }]).unwrap();
    }
}

/// Eight fields and 1 KiB: what is asked for below `/kept/` may be stored.
fn origin() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap());
    for stream in listener.incoming() {
        std::thread::spawn(move || {
            let mut peer = BufReader::new(stream.unwrap());
            let (mut head, body) = (String::new(), "x".repeat(1024));
            while peer.read_line(&mut head).is_ok_and(|read| read > 0) {
                if head.ends_with("\r\n\r\n") {
                    let may =
                        if head.starts_with("GET /kept/") { "public, max-age=3600" } else { "no-store" };
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Type: application/json\r\nCache-Control: \
                         {may}\r\nETag: \"a\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nX-Request-Cost: \
                         1\r\nContent-Length: 1024\r\n\r\n{body}"
                    );
                    peer.get_mut().write_all(answer.as_bytes()).unwrap();
                    head.clear();
                }
            }
        });
    }
}
