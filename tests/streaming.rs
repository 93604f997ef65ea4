//! Bodies on their way: they stream while they come, a broken one is never stored and never looks
//! whole, and one that is too large to store passes in bounded memory whatever its reader does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::time::Duration;

use support::wire::{self, Framing};
use support::{Connection, Gate, Larder, Origin, PATIENCE, Response, Script, within};

const STORABLE: &[(&str, &str)] = &[("Cache-Control", "max-age=60")];
const MIB: u64 = 1 << 20;
/// Larger than every buffer between an origin and a client together, several times.
const LARGE: u64 = 200 * MIB;
/// What Larder may grow by while a body of [`LARGE`] bytes passes or stands still.
const BOUND: u64 = 64 * MIB;

#[test]
fn owner_and_guests_read_what_has_come_while_the_rest_is_held() {
    for (what, script) in [
        ("chunked", (|| Script::chunked(STORABLE).chunk("first")) as fn() -> Script),
        ("length", || {
            Script::new()
                .head(200, &[("Content-Length", "11"), ("Cache-Control", "max-age=60")])
                .bytes("first")
        }),
    ] {
        let (gate, origin) = gated(move |gate| {
            let rest = if what == "chunked" { wire::chunk(b"second") } else { b"second".to_vec() };
            let script = script().wait(gate).bytes(rest);
            if what == "chunked" { script.last_chunk() } else { script }
        });
        let larder = Larder::start(&config(&origin, ""));
        let mut readers: Vec<_> = (0..5).map(|_| asking(&larder, "/")).collect();
        for (connection, response) in &mut readers {
            *response = connection.response_head("GET");
            let first = if what == "chunked" { connection.read_chunk() } else { connection.read_some(5) };
            assert_eq!(first, b"first", "{what}");
        }
        assert_eq!(origin.count("/"), 1, "{what}: all of them read one answer");
        gate.open();
        for (connection, response) in &mut readers {
            if what == "chunked" {
                connection.finish(response);
                assert_eq!((response.text().as_str(), response.complete), ("second", true));
            } else {
                assert_eq!(connection.read_some(6), b"second");
            }
        }
        assert!(within(PATIENCE, || larder.stats()["completed"] == 5), "{}", larder.stats());
        let stored = larder.get("/", &[]);
        assert_eq!((stored.text().as_str(), stored.header("x-cache")), ("firstsecond", "HIT"), "{what}");
    }
}

#[test]
fn what_is_not_stored_streams_too() {
    let (gate, origin) = gated(|gate| {
        Script::chunked(&[("Cache-Control", "no-store")])
            .chunk("first")
            .wait(gate)
            .chunk("second")
            .last_chunk()
    });
    let larder = Larder::start(&config(&origin, ""));
    let (mut connection, mut response) = asking(&larder, "/");
    response.framing = connection.response_head("GET").framing;
    assert_eq!(connection.read_chunk(), b"first");
    gate.open();
    connection.finish(&mut response);
    assert_eq!((response.text().as_str(), response.complete), ("second", true));
}

#[test]
fn a_body_that_ends_early_is_broken_for_its_clients_and_never_stored() {
    let short = |head: &[(&str, &str)]| Script::new().head(200, head).bytes("only half");
    let rows: Vec<(&str, Script)> = vec![
        ("short length", short(&[("Content-Length", "18"), ("Cache-Control", "max-age=60")]).close()),
        ("short length, reset", short(&[("Content-Length", "18"), ("Cache-Control", "max-age=60")]).reset()),
        ("chunked without an end", Script::chunked(STORABLE).chunk("only half").close()),
        ("chunked, reset", Script::chunked(STORABLE).chunk("only half").reset()),
        ("half a chunk", Script::chunked(STORABLE).chunk("only half").bytes("9\r\nonly").close()),
        ("not stored anyway", Script::chunked(&[("Cache-Control", "no-store")]).chunk("only half").close()),
        (
            "not stored anyway, length",
            short(&[("Content-Length", "18"), ("Cache-Control", "no-store")]).close(),
        ),
    ];
    for (what, broken) in rows {
        let gate = Gate::new();
        let held = gate.clone();
        let origin = Origin::start(move |request| match request.count {
            1 => Script::new().wait(&held).then(broken.clone()),
            _ => Script::ok("whole", STORABLE),
        });
        let larder = Larder::start(&config(&origin, ""));
        let (mut connection, _) = asking(&larder, "/");
        gate.open();
        let response = connection.response("GET");
        assert_eq!(response.status, 200, "{what}");
        assert!(!response.complete, "{what}: it looks whole: {response:?}");
        assert!(response.text().starts_with("only half"), "{what}: {:?}", response.text());
        assert!(within(PATIENCE, || larder.stats()["failed"] == 1), "{what}: {}", larder.stats());
        let again = larder.get("/", &[]);
        assert_eq!(again.text(), "whole", "{what}");
        assert_ne!(again.header("x-cache"), "HIT", "{what}");
    }
}

/// What comes together with its head is refused before anybody has seen that: see `tests/origins.rs`.
#[test]
fn a_body_whose_framing_breaks_on_its_way_is_broken_for_its_clients_and_never_stored() {
    for broken in ["zz\r\n", "2\r\nabcd\r\n0\r\n\r\n"] {
        let (late, held) = (Gate::new(), Gate::new());
        let gates = (late.clone(), held.clone());
        let origin = Origin::start(move |request| match request.count {
            1 => Script::new()
                .wait(&gates.1)
                .then(Script::chunked(STORABLE).chunk("only half").wait(&gates.0).bytes(broken)),
            _ => Script::ok("whole", STORABLE),
        });
        let larder = Larder::start(&config(&origin, ""));
        let (mut connection, _) = asking(&larder, "/");
        held.open();
        let mut response = connection.response_head("GET");
        late.open();
        connection.finish(&mut response);
        assert_eq!((response.status, response.complete), (200, false), "{broken:?}: it looks whole");
        assert_eq!(larder.get("/", &[]).text(), "whole", "{broken:?}");
        assert_eq!(origin.count("/"), 2, "{broken:?}");
    }
}

#[test]
fn a_body_that_breaks_breaks_for_everyone_who_reads_it() {
    let (gate, origin) = gated(|gate| Script::chunked(STORABLE).chunk("half").wait(gate).reset());
    let larder = Larder::start(&config(&origin, ""));
    let mut readers: Vec<_> = (0..10).map(|_| asking(&larder, "/")).collect();
    for (connection, response) in &mut readers {
        *response = connection.response_head("GET");
        assert_eq!(connection.read_chunk(), b"half");
    }
    gate.open();
    for (connection, response) in &mut readers {
        connection.finish(response);
        assert!(!response.complete);
    }
    assert_eq!(larder.stats()["tiers"]["memory"]["inserts"], 0);
    assert!(within(PATIENCE, || larder.stats()["failed"] == 10), "{}", larder.stats());
}

#[test]
fn a_body_too_large_to_store_of_known_length_streams_past_a_slow_reader_in_bounded_memory() {
    let origin = Origin::start(|_| {
        let head = [("Content-Length", (200 << 20).to_string())];
        Script::new()
            .head(200, &[(head[0].0, head[0].1.as_str()), ("Cache-Control", "max-age=60")])
            .repeat([b'x'; 65536], LARGE / 65536)
    });
    let larder = Larder::start(&config(&origin, "max_object = \"1MiB\""));
    stands_still_and_goes_on(&larder, &origin);
}

#[test]
fn a_body_that_outgrows_the_bound_streams_past_a_slow_reader_in_bounded_memory() {
    let origin = Origin::start(|_| {
        Script::chunked(STORABLE).repeat(wire::chunk(&[b'x'; 65536]), LARGE / 65536).last_chunk()
    });
    let larder = Larder::start(&config(&origin, "max_object = \"1MiB\"\nlag_timeout = \"200ms\""));
    stands_still_and_goes_on(&larder, &origin);
}

/// One reader takes the head, stands still, and then reads to the end.
fn stands_still_and_goes_on(larder: &Larder, origin: &Origin) {
    assert_eq!(larder.get("/no-route-for-this", &[]).status, 404);
    let start = resident(larder);
    let (mut connection, _) = asking(larder, "/large");
    let response = connection.response_head("GET");
    assert_eq!(response.status, 200);
    let taken = settled(|| origin.bytes_sent());
    assert!(taken < BOUND, "{} MiB have been taken from the origin for nobody", taken / MIB);
    let grown = resident(larder).saturating_sub(start);
    assert!(grown < BOUND, "{} MiB held for a reader who stands still", grown / MIB);
    let (bytes, peak) = read_watching(&mut connection, response.framing.unwrap(), larder);
    assert_eq!(bytes, LARGE);
    let grown = peak.saturating_sub(start);
    assert!(grown < BOUND, "{} MiB held while a body streams", grown / MIB);
    assert!(within(PATIENCE, || larder.stats()["completed"] == 2), "{}", larder.stats());
    assert_eq!(larder.stats()["tiers"]["memory"]["inserts"], 0);
}

#[test]
fn a_body_that_outgrows_the_bound_says_next_time_why_it_is_not_stored() {
    let body = vec![b'x'; 300 * 1024];
    let origin = Origin::start(move |_| {
        Script::chunked(STORABLE).chunk(&body[..200_000]).chunk(&body[200_000..]).last_chunk()
    });
    let larder = Larder::start(&config(&origin, "max_object = \"256KiB\""));
    let first = larder.get("/", &[]);
    assert_eq!((first.body.len(), first.complete), (300 * 1024, true));
    let again = larder.get("/", &[]);
    assert_eq!((again.body.len(), again.complete), (300 * 1024, true));
    assert_eq!(origin.count("/"), 2);
    assert!(again.header("cache-status").contains("too-large"), "{:?}", again.headers);
}

#[test]
fn known_to_be_too_large_it_is_never_shared_and_says_so() {
    let origin = Origin::ok(vec![b'x'; 300 * 1024], STORABLE);
    let larder = Larder::start(&config(&origin, "max_object = \"256KiB\""));
    for _ in 0..2 {
        let response = larder.get("/", &[]);
        assert_eq!((response.body.len(), response.complete), (300 * 1024, true));
        assert!(response.header("cache-status").contains("too-large"), "{:?}", response.headers);
        assert!(!response.header("cache-status").contains("stored"));
    }
    assert_eq!(origin.count("/"), 2);
}

#[test]
fn exactly_the_bound_is_stored_both_ways() {
    let body = vec![b'x'; 256 * 1024];
    let origin = Origin::start(move |request| match request.target.as_str() {
        "/length" => Script::ok(&body, STORABLE),
        _ => Script::chunked(STORABLE).chunk(&body).last_chunk(),
    });
    let larder = Larder::start(&config(&origin, "max_object = \"256KiB\""));
    for path in ["/length", "/chunked"] {
        assert_eq!(larder.get(path, &[]).body.len(), 256 * 1024);
        assert_eq!(larder.get(path, &[]).header("x-cache"), "HIT", "{path}");
    }
}

#[test]
fn a_reader_who_holds_up_the_others_is_cut_and_they_get_it_all() {
    let gate = Gate::new();
    let held = gate.clone();
    let size = 64 * MIB;
    let origin = Origin::start(move |_| {
        Script::chunked(STORABLE)
            .chunk("go")
            .wait(&held)
            .repeat(wire::chunk(&[b'x'; 65536]), size / 65536)
            .last_chunk()
    });
    let larder = Larder::start(&config(&origin, "max_object = \"1MiB\"\nlag_timeout = \"300ms\""));
    let (mut slow, mut slow_response) = asking(&larder, "/");
    slow_response.framing = slow.response_head("GET").framing;
    let (mut fast, _) = asking(&larder, "/");
    let fast_response = fast.response_head("GET");
    assert_eq!(origin.count("/"), 1);
    gate.open();
    let (bytes, _) = read_watching(&mut fast, fast_response.framing.unwrap(), &larder);
    assert_eq!(bytes, size + 2);
    slow.finish(&mut slow_response);
    assert!(!slow_response.complete, "it was cut off, and sees that");
    assert!(slow_response.body.len() < usize::try_from(size).unwrap());
}

#[test]
fn beyond_the_in_flight_limit_bodies_stream_unstored() {
    let gate = Gate::new();
    let held = gate.clone();
    let body = vec![b'x'; 200 * 1024];
    let origin = Origin::start(move |request| {
        let script =
            Script::new().head(200, &[("Content-Length", "204800"), ("Cache-Control", "max-age=60")]);
        match request.target.as_str() {
            "/holder" => script.bytes(&body[..1000]).wait(&held).bytes(&body[1000..]),
            "/length" => script.bytes(&body),
            _ => Script::chunked(STORABLE).chunk(&body).last_chunk(),
        }
    });
    let larder = Larder::start(&config(&origin, "max_object = \"256KiB\"\nin_flight = \"256KiB\""));
    let (mut holder, mut response) = asking(&larder, "/holder");
    response.framing = holder.response_head("GET").framing;
    for path in ["/length", "/chunked"] {
        let over = larder.get(path, &[]);
        assert_eq!((over.body.len(), over.complete), (200 * 1024, true), "{path}");
    }
    let said = larder.get("/length", &[]);
    assert!(said.header("cache-status").contains("detail=in-flight"), "{:?}", said.headers);
    assert_eq!(larder.stats()["tiers"]["memory"]["inserts"], 0);
    assert_eq!(larder.stats()["tiers"]["memory"]["in_flight"], 200 * 1024);
    gate.open();
    holder.finish(&mut response);
    assert_eq!((response.body.len(), response.complete), (200 * 1024, true));
    assert!(within(PATIENCE, || larder.stats()["tiers"]["memory"]["in_flight"] == 0), "{}", larder.stats());
    assert_eq!(larder.get("/holder", &[]).header("x-cache"), "HIT");
    larder.get("/length", &[]);
    assert_eq!(larder.get("/length", &[]).header("x-cache"), "HIT", "there is room again");
}

#[test]
fn a_broken_body_gives_its_room_back() {
    let origin = Origin::start(|request| match request.count {
        1..=5 => Script::chunked(STORABLE).chunk([b'x'; 200_000]).reset(),
        _ => Script::chunked(STORABLE).chunk([b'x'; 200_000]).last_chunk(),
    });
    let larder = Larder::start(&config(&origin, "max_object = \"256KiB\"\nin_flight = \"256KiB\""));
    for _ in 0..5 {
        assert!(!larder.get("/", &[]).complete);
    }
    assert!(within(PATIENCE, || larder.stats()["tiers"]["memory"]["in_flight"] == 0), "{}", larder.stats());
    larder.get("/", &[]);
    assert_eq!(larder.get("/", &[]).header("x-cache"), "HIT");
}

#[test]
fn an_origin_whose_only_client_left_is_let_go_when_nothing_can_be_kept() {
    let origin = Origin::start(|_| {
        Script::new()
            .head(200, &[("Content-Length", "209715200"), ("Cache-Control", "no-store")])
            .repeat([b'x'; 65536], LARGE / 65536)
    });
    let larder = Larder::start(&config(&origin, ""));
    let (mut connection, _) = asking(&larder, "/");
    assert_eq!(connection.response_head("GET").status, 200);
    connection.reset();
    origin.wait_for_open_connections(0);
    assert!(origin.bytes_sent() < LARGE);
    assert!(within(PATIENCE, || larder.stats()["client_closed"] == 1), "{}", larder.stats());
}

#[test]
fn an_empty_body_is_stored_and_stays_empty() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/length" => Script::ok("", STORABLE),
        "/chunked" => Script::chunked(STORABLE).last_chunk(),
        _ => Script::respond(204, STORABLE, ""),
    });
    let larder = Larder::start(&config(&origin, ""));
    for (path, status) in [("/length", 200), ("/chunked", 200), ("/none", 204)] {
        for cache in ["MISS", "HIT"] {
            let response = larder.get(path, &[]);
            assert_eq!(
                (response.status, response.complete, response.body.len()),
                (status, true, 0),
                "{path}"
            );
            assert_eq!(response.header("x-cache"), cache, "{path}");
        }
    }
}

fn config(origin: &Origin, cache: &str) -> String {
    format!(
        r#"
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
workers = 2
[cache]
{cache}
[upstream.api]
servers = ["{}"]
timeout = {{ total = "120s" }}
[[route]]
name = "none"
upstream = "api"
match = {{ path = "/never" }}
[[route]]
name = "all"
upstream = "api"
match = {{ regex = "^/(?:large|length|chunked|none|holder)?$" }}
[route.cache]
ttl.default = "60s"
"#,
        origin.url()
    )
}

fn gated(script: impl Fn(&Gate) -> Script + Send + Sync + 'static) -> (Gate, Origin) {
    let gate = Gate::new();
    let held = gate.clone();
    (gate, Origin::start(move |_| script(&held)))
}

/// A connection on which a GET has been sent, and a place for its answer.
fn asking(larder: &Larder, path: &str) -> (Connection, Response) {
    let mut connection = Connection::open(larder.proxy());
    connection.write_head("GET", path, &[]);
    let nothing = Response {
        status: 0,
        headers: wire::Fields::default(),
        body: Vec::new(),
        trailers: wire::Fields::default(),
        complete: false,
        framing: None,
        interim: Vec::new(),
        interim_headers: Vec::new(),
        version: String::new(),
    };
    (connection, nothing)
}

/// Bytes of memory that Larder has now.
fn resident(larder: &Larder) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", larder.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// A counter once it has stopped moving. What comes too early here is too small, never too large:
/// a test that asserts an upper bound cannot fail because of it.
fn settled(mut counter: impl FnMut() -> u64) -> u64 {
    let (mut last, mut same) = (0, 0);
    within(PATIENCE, || {
        std::thread::sleep(Duration::from_millis(20));
        let now = counter();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        same >= 10 && now > 0
    });
    last
}

/// Reads a body to its end; gives its length and the most memory that Larder had meanwhile.
fn read_watching(connection: &mut Connection, framing: Framing, larder: &Larder) -> (u64, u64) {
    let (mut bytes, mut peak, mut looked) = (0_u64, resident(larder), 0_u64);
    loop {
        let read = match framing {
            Framing::Length(length) => {
                let left = (length - bytes).min(65536);
                connection.read_some(usize::try_from(left).unwrap()).len()
            }
            _ => connection.read_chunk().len(),
        };
        bytes += read as u64;
        if bytes - looked > MIB {
            (peak, looked) = (peak.max(resident(larder)), bytes);
        }
        if read == 0 || matches!(framing, Framing::Length(length) if bytes == length) {
            return (bytes, peak.max(resident(larder)));
        }
    }
}
