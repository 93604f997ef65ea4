//! `[upstream.NAME]`: servers, timeouts, pool.
//!
//! Knows these keys and how the pool's figures bound each other.
//! Must not know: how a connection is made.

use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use super::address;
use super::check::not_beyond;
use super::problems::Found;
use super::reader::{Reader, Text, Zero};
use super::section::Section;
use super::{Listen, Pool, Server, Timeouts, Upstream};

/// Reads every upstream, in the file's order. One with mistakes is in the list too, so that
/// routes find it by its name.
pub(super) fn read(top: &mut Section<'_>, listen: &[Listen]) -> Vec<Upstream> {
    let Some(all) = top.section("upstream") else { return Vec::new() };
    let mut upstreams = Vec::new();
    for (key, value) in all.entries() {
        let name: &str = key.get_ref();
        check_name(all.reader, key.span(), name);
        if let Some(section) = all.section_of(name, value) {
            upstreams.push(upstream(section, name, listen));
        }
    }
    upstreams
}

/// Names go into metrics, logs and headers, so they are plain words.
pub(super) fn check_name(reader: &Reader<'_>, span: Range<usize>, name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let fine = (1..=64).contains(&name.len()) && name.chars().all(plain);
    if !fine {
        let found = Found::new(span, "a name is 1 to 64 letters, digits, _, . or -");
        let better: String = name.chars().map(|c| if plain(c) { c } else { '-' }).take(64).collect();
        reader.report(match better.is_empty() {
            true => found,
            false => found.help(format!("write such as \"{better}\"")),
        });
    }
    fine
}

fn upstream(mut section: Section<'_>, name: &str, listen: &[Listen]) -> Upstream {
    let servers = servers(&mut section, listen);
    let timeout = section.section("timeout").map_or_else(Timeouts::default, timeouts);
    let pool = section.section("pool").map_or_else(Pool::default, pool);
    section.finish();
    Upstream { name: name.to_owned(), servers, timeout, pool }
}

fn servers(section: &mut Section<'_>, listen: &[Listen]) -> Vec<Server> {
    let example = "write servers = [\"http://127.0.0.1:3000\"]";
    let Some(value) = section.value("servers") else {
        section.missing("servers", example);
        return Vec::new();
    };
    if value.get_ref().as_array().is_some_and(|list| list.is_empty()) {
        section.reader.report(Found::new(value.span(), "an upstream has at least one server").help(example));
    }
    let mut servers = Vec::new();
    for text in section.reader.texts(value) {
        if let Some(server) = server(section.reader, &text, &servers, listen) {
            servers.push(server);
        }
    }
    servers
}

fn server(reader: &Reader<'_>, text: &Text, before: &[Server], listen: &[Listen]) -> Option<Server> {
    // With an @ in it, it may hold a password, which is not repeated.
    let shown = Text { from_env: text.from_env && !text.value.contains('@'), ..text.clone() };
    let read = address::server(&text.value);
    let server = read.map_err(|mistake| reader.refuse(&shown, mistake.message, mistake.help)).ok()?;
    if before.contains(&server) {
        reader.refuse(text, "this server is already listed", "leave it out");
    } else if is_own(&server, listen) {
        reader.refuse(text, "this is Larder's own `listen` address", "write where the API is");
    }
    Some(server)
}

/// Whether a server is plainly Larder itself; a loop by way of a name is found by `Via`.
fn is_own(server: &Server, listen: &[Listen]) -> bool {
    let same = |ip: IpAddr| server.host.parse::<IpAddr>().is_ok_and(|host| host == ip);
    listen.iter().map(|l| l.address).any(|l| l.port() == server.port && same(l.ip()))
}

fn timeouts(mut section: Section<'_>) -> Timeouts {
    let (s, d) = (&mut section, Timeouts::default());
    let never = Zero::Refused("a server that is given no time cannot answer");
    let first_byte = s.duration("first_byte", d.first_byte, never);
    let hedge_after = hedge_after(s, first_byte);
    let timeouts = Timeouts {
        connect: s.duration("connect", d.connect, never),
        first_byte,
        hedge_after,
        total: s.duration("total", d.total, never),
    };
    if let Some(after) = hedge_after {
        not_beyond(s, ("hedge_after", after), ("first_byte", first_byte));
    }
    section.finish();
    timeouts
}

/// `"off"`, or a time; half of `first_byte` where none is written.
fn hedge_after(section: &mut Section<'_>, first_byte: Duration) -> Option<Duration> {
    let default = Some(first_byte / 2);
    let Some(text) = section.measure("hedge_after") else { return default };
    if text.value == "off" {
        return None;
    }
    let never = Zero::Refused("to ask no second server, write \"off\"");
    section.reader.duration(&text, "s", never).or(default)
}

fn pool(mut section: Section<'_>) -> Pool {
    let (s, d) = (&mut section, Pool::default());
    // A default gives way to what was written; only two written values can contradict each other.
    let max_connections = s.count("max_connections", d.max_connections, 1..=65_535);
    let max_idle = s.count("max_idle", d.max_idle.min(max_connections), 0..=65_535);
    let max_tunnels = s.count("max_tunnels", d.max_tunnels.min(max_connections.div_ceil(2)), 1..=65_535);
    let min_idle = s.count("min_idle", d.min_idle, 0..=65_535);
    let unused = Zero::Refused("to keep no connections, write max_idle = 0");
    let pool = Pool {
        idle_timeout: s.duration("idle_timeout", d.idle_timeout, unused),
        max_age: s.duration("max_age", d.max_age, unused),
        queue_timeout: s.duration("queue_timeout", d.queue_timeout, Zero::Fine),
        queue: s.count("queue", d.queue, 0..=1_000_000),
        min_idle,
        max_idle,
        max_connections,
        max_tunnels,
    };
    not_beyond(s, ("max_idle", max_idle), ("max_connections", max_connections));
    not_beyond(s, ("max_tunnels", max_tunnels), ("max_connections", max_connections));
    not_beyond(s, ("min_idle", min_idle), ("max_idle", max_idle));
    section.finish();
    pool
}
