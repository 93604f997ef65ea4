//! What the integration tests stand on: the built binary as a child process, an origin that does
//! whatever a test scripts, and a client that sees every byte.
//!
//! Knows sockets, threads and processes of the standard library; nothing of Larder's insides.
//! Must not know: how Larder does what it does. Every wait here ends by itself, so that a bug fails
//! a test instead of hanging it.
#![allow(dead_code, unused_imports, reason = "each test file uses a part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "test code: a surprise here is a failed test"
)]

pub mod client;
pub mod front;
pub mod gate;
pub mod origin;
pub mod process;
pub mod redis;
pub mod redis_fleet;
pub mod tier;
pub mod wire;

pub use client::{Connection, Response, get, send};
pub use gate::Gate;
pub use origin::{Origin, Request, Script};
pub use process::{Larder, Process};
pub use redis::{Liar, Mode, RedisServer, Relay, Reply};
pub use redis_fleet::{Certificates, Cluster, Sentinels};
pub use tier::Tier;

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

/// The longest that anything in these tests waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Polls `condition` until it holds, at most for `patience`; says whether it came to hold.
///
/// Only for what gives no event, such as a counter on another process's stats page. Where there is
/// a gate, a line or a count to wait for, wait for that.
pub fn within(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An address of this machine on which nobody listens.
pub fn unused_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Lets this process, and those that it starts from now on, open some thousand sockets.
///
/// The usual soft limit of 1024 is not enough for 500 clients and as many connections of an origin
/// in one process. Raising it up to the hard limit needs no rights.
pub fn allow_many_files() {
    let pid = std::process::id().to_string();
    // Where it is higher already, or cannot be raised, the test itself shows whether it suffices.
    let limits = std::process::Command::new("prlimit")
        .args(["--pid", &pid, "--nofile", "--raw", "--noheadings", "--output", "SOFT"])
        .output();
    let soft = limits.ok().and_then(|it| String::from_utf8_lossy(&it.stdout).trim().parse::<u64>().ok());
    if soft.is_some_and(|soft| soft < 8192) {
        let _ = std::process::Command::new("prlimit").args(["--pid", &pid, "--nofile=8192:"]).status();
    }
}
