//! Connections that are opened by one thread and spoken on by others, each with a runtime of its own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use tokio::runtime;

use crate::clock::Clock;
use crate::config;
use crate::upstream::Upstream;
use crate::upstream::testing::*;

const THREADS: usize = 4;
/// Of each thread at a time, and one after the other.
const ASKERS: usize = 3;
const ROUNDS: usize = 40;

/// An origin that waits for nobody here: `/<bytes>/<what>` is answered by so many bytes.
fn origin() -> config::Server {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
    config::Server { host: "127.0.0.1".into(), port }
}

/// Ends where the other side has gone.
fn serve(mut stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let (mut came, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let is_post = came.starts_with(b"POST");
        if !came.ends_with(if is_post { b"data" } else { b"\r\n\r\n" }) {
            let read = stream.read(&mut piece).ok().filter(|read| *read > 0)?;
            came.extend_from_slice(&piece[..read]);
            continue;
        }
        let head = String::from_utf8(std::mem::take(&mut came)).ok()?;
        let (bytes, what) = head.split(' ').nth(1)?.strip_prefix('/')?.split_once('/')?;
        let bytes: usize = bytes.parse().ok()?;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n{}", "x".repeat(bytes));
        let said = if what == "stalls" { answer.len() - bytes / 2 } else { answer.len() };
        stream.write_all(&answer.as_bytes()[..said]).ok()?;
        match what {
            "stalls" => while stream.read(&mut piece).ok()? > 0 {},
            "ends" => return None,
            _ => {}
        }
    }
}

/// One after the other: what is answered as a whole, what ends a connection, what hyper has to have, and what is cut.
async fn asker(up: Arc<Upstream>, worker: usize, first: usize) {
    for round in first..first + ROUNDS {
        let bytes = [0, 2, 5000, 20_000, 100_000][round % 5];
        let (what, is_post) = match round % 13 {
            1 => ("stalls", false),
            2 | 7 => ("ends", false),
            4 | 9 => ("goes-on", true),
            _ => ("goes-on", false),
        };
        let bytes = if what == "stalls" { 40_000 } else { bytes };
        let path = format!("/{bytes}/{what}");
        // Of all the time there is, a moment is left.
        let waited = if what == "stalls" { Duration::from_millis(119_990) } else { Duration::ZERO };
        let again = || get(&path).map(drop);
        let request = if is_post { post(&path, "data") } else { get(&path) };
        let body = match soon(up.forward(worker, request, &again, None, waited)).await {
            Ok(forwarded) => whole(forwarded).await.map_err(|error| error.as_str()),
            Err(error) => Err(error.as_str()),
        };
        match (body, what) {
            (Ok(body), "goes-on" | "ends") => assert_eq!(body.len(), bytes, "{path}"),
            (Err(_), "stalls") => {}
            // Its connection had ended, and it may have been done.
            (Err("reset"), _) if is_post => {}
            (other, _) => panic!("{path}: {:?}", other.map(|body| body.len())),
        }
    }
}

#[test]
fn whoever_asks_on_a_connection_of_another_thread_is_woken_and_all_of_them_are_cut_in_time() {
    let mut cfg = settings(vec![origin()]);
    (cfg.pool.max_connections, cfg.pool.max_idle, cfg.pool.queue) = (5, 5, THREADS * ASKERS);
    let up = Upstream::new(&cfg, Clock::system(), THREADS);
    // A thread that has ended takes its connections with it, and one that only waits wakes nobody.
    let all = Arc::new(Barrier::new(THREADS));
    thread::scope(|scope| {
        for worker in 0..THREADS {
            let (up, all) = (Arc::clone(&up), Arc::clone(&all));
            scope.spawn(move || {
                let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let asker = |at| runtime.spawn(asker(Arc::clone(&up), worker, 7 * worker + 3 * at));
                let askers: Vec<_> = (0..ASKERS).map(asker).collect();
                let ended: Vec<_> = askers.into_iter().map(|asker| runtime.block_on(asker)).collect();
                runtime.block_on(runtime.spawn_blocking(move || all.wait())).unwrap();
                drop(runtime);
                ended.into_iter().for_each(|ended| ended.unwrap());
            });
        }
    });
    let gauges = gauges(&up);
    assert_eq!((gauges.open, gauges.waiting), (0, 0), "{gauges:?}");
    assert!(gauges.reused > 0, "{gauges:?}");
}
