//! The tests' own tools, tested: scripted origin and raw client against each other, gates, and
//! processes. What is wrong here would make every other test lie.
#![allow(clippy::disallowed_methods, reason = "test code may read the clock")]

mod support;

use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use support::process::{Process, address_after};
use support::wire::{self, Framing};
use support::{Connection, Gate, Origin, PATIENCE, Script, get, send, unused_address, within};

#[test]
fn a_response_comes_back_as_scripted() {
    let origin = Origin::ok("hello", &[("X-Twice", "1"), ("x-twice", "2")]);
    let response = get(origin.addr(), "/a?b=c", &[("X-Asked", "yes")]);
    assert_eq!((response.status, response.text().as_str(), response.complete), (200, "hello", true));
    assert_eq!(response.headers.all("X-TWICE").collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(response.framing, Some(Framing::Length(5)));
    let request = origin.last();
    assert_eq!((request.method.as_str(), request.target.as_str()), ("GET", "/a?b=c"));
    assert_eq!(request.header("x-asked"), "yes");
    assert_eq!(request.header("host"), origin.addr().to_string());
}

#[test]
fn requests_are_counted_by_target_and_in_all() {
    let origin = Origin::start(|request| Script::ok(request.count.to_string(), &[]));
    assert_eq!(get(origin.addr(), "/a", &[]).text(), "1");
    assert_eq!(get(origin.addr(), "/b", &[]).text(), "1");
    assert_eq!(get(origin.addr(), "/a", &[]).text(), "2");
    assert_eq!((origin.count("/a"), origin.count("/b"), origin.count("/c")), (2, 1, 0));
    assert_eq!(origin.requests().len(), 3);
    origin.wait_for_requests(3);
}

#[test]
fn a_kept_connection_carries_several_requests() {
    let origin = Origin::start(|request| Script::ok(&request.body, &[]));
    let mut connection = Connection::open(origin.addr());
    assert_eq!(connection.request("POST", "/", &[], b"one").text(), "one");
    assert_eq!(connection.request("PUT", "/", &[], b"two").text(), "two");
    assert_eq!(connection.request("GET", "/", &[("Connection", "close")], b"").text(), "");
    assert!(connection.closes());
    assert_eq!(origin.connections(), 1);
    assert!(origin.requests().iter().all(|request| request.connection == 1));
}

#[test]
fn chunked_bodies_and_trailers_are_decoded_both_ways() {
    let origin = Origin::start(|request| {
        Script::chunked(&[]).chunk(&request.body).chunk("!").trailers(&[("X-Sum", request.header("x-none"))])
    });
    let body = [wire::chunk(b"he"), wire::chunk(b"llo"), b"0\r\nX-T: 7\r\n\r\n".to_vec()].concat();
    let mut bytes = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    bytes.extend_from_slice(&body);
    let response = send(origin.addr(), &bytes);
    assert_eq!((response.text().as_str(), response.complete), ("hello!", true));
    assert_eq!(response.trailers.get("x-sum"), Some(""));
    assert_eq!(origin.last().trailers.get("x-t"), Some("7"));
}

#[test]
fn bodies_that_end_early_are_seen_as_incomplete() {
    let rows: [(&str, Script, &str); 5] = [
        ("length", Script::new().head(200, &[("Content-Length", "10")]).bytes("short").close(), "short"),
        ("chunked", Script::chunked(&[]).chunk("part").close(), "part"),
        ("inside a chunk", Script::chunked(&[]).bytes("a\r\nhalf").close(), "half"),
        ("without last chunk's end", Script::chunked(&[]).chunk("part").bytes("0\r\n").close(), "part"),
        ("reset", Script::new().head(200, &[("Content-Length", "10")]).reset(), ""),
    ];
    for (name, script, expected) in rows {
        let origin = Origin::start(move |_| script.clone());
        let response = get(origin.addr(), "/", &[]);
        assert!(!response.complete, "{name}");
        assert_eq!(response.text(), expected, "{name}");
    }
}

#[test]
fn a_body_up_to_the_end_of_the_connection_is_complete_at_a_clean_close_only() {
    let clean = Origin::start(|_| Script::new().head(200, &[]).bytes("all of it").close());
    let response = get(clean.addr(), "/", &[]);
    assert_eq!((response.framing, response.complete), (Some(Framing::Close), true));
    assert_eq!(response.text(), "all of it");

    let (gate, broken) = gated(|gate| Script::new().head(200, &[]).bytes("some").wait(gate).reset());
    let mut connection = Connection::open(broken.addr());
    connection.write_head("GET", "/", &[]);
    let mut response = connection.response_head("GET");
    gate.open();
    connection.finish(&mut response);
    assert!(!response.complete);
}

#[test]
fn responses_without_a_body_by_definition_are_not_waited_for() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/304" => Script::respond(304, &[("ETag", "\"a\"")], ""),
        "/204" => Script::respond(204, &[], ""),
        _ => Script::ok("hello", &[]),
    });
    let mut connection = Connection::open(origin.addr());
    let head = connection.request("HEAD", "/", &[], b"");
    assert_eq!((head.header("content-length"), head.body.len(), head.framing), ("5", 0, None));
    for (path, status) in [("/304", 304), ("/204", 204)] {
        let response = connection.request("GET", path, &[], b"");
        assert_eq!((response.status, response.complete, response.framing), (status, true, None));
    }
    assert_eq!(connection.request("GET", "/", &[], b"").text(), "hello");
}

#[test]
fn a_gate_holds_the_origin_until_it_is_opened() {
    let (gate, origin) =
        gated(|gate| Script::chunked(&[]).chunk("first").wait(gate).chunk("second").last_chunk());
    let mut connection = Connection::open(origin.addr());
    connection.write_head("GET", "/", &[]);
    let mut response = connection.response_head("GET");
    assert_eq!(connection.read_chunk(), b"first");
    gate.wait_for_arrivals(1);
    connection.set_patience(Duration::from_millis(20));
    assert!(!connection.closes(), "nothing comes, and no end, while the gate is shut");
    connection.set_patience(PATIENCE);
    gate.open();
    connection.finish(&mut response);
    assert_eq!((response.text().as_str(), response.complete), ("second", true));
}

#[test]
fn one_gate_holds_many_and_counts_them() {
    let (gate, origin) = gated(|gate| Script::new().wait(gate).head(204, &[]));
    let addr = origin.addr();
    let clients: Vec<_> = (0..20).map(|_| std::thread::spawn(move || get(addr, "/", &[]).status)).collect();
    gate.wait_for_arrivals(20);
    origin.wait_for_open_connections(20);
    gate.open();
    assert!(clients.into_iter().all(|client| client.join().unwrap() == 204));
    origin.wait_for_open_connections(0);
    assert_eq!(gate.arrived(), 20);
}

#[test]
fn an_expectation_is_answered_before_the_body_and_seen_by_the_client() {
    let origin = Origin::start(|request| Script::ok(&request.body, &[]));
    let mut connection = Connection::open(origin.addr());
    connection.write_head("POST", "/", &[("Content-Length", "4"), ("Expect", "100-continue")]);
    assert_eq!(connection.interim(), 100);
    connection.write(b"body");
    assert_eq!(connection.response("POST").text(), "body");
}

#[test]
fn interim_responses_are_listed_with_the_final_one() {
    let origin = Origin::start(|_| Script::new().head(103, &[("Link", "</a>")]).bytes(OK));
    let response = get(origin.addr(), "/", &[]);
    assert_eq!((response.interim.as_slice(), response.status), ([103].as_slice(), 200));
}

#[test]
fn an_early_origin_answers_without_the_body() {
    let origin = Origin::early(|_| Script::respond(413, &[], "too large"));
    let mut connection = Connection::open(origin.addr());
    connection.write_head("POST", "/", &[("Content-Length", "1000000")]);
    assert_eq!(connection.response("POST").status, 413);
    assert!(connection.closes());
}

#[test]
fn an_upgraded_connection_echoes() {
    let origin =
        Origin::start(|_| Script::new().head(101, &[("Connection", "upgrade"), ("Upgrade", "echo")]).echo());
    let mut connection = Connection::open(origin.addr());
    connection.write_head("GET", "/", &[("Connection", "upgrade"), ("Upgrade", "echo")]);
    assert_eq!(connection.response_head("GET").status, 101);
    connection.write(b"ping");
    assert_eq!(connection.read_some(4), b"ping");
    connection.end_writing();
    assert!(connection.closes());
}

#[test]
fn a_stalled_origin_sees_its_client_leave() {
    let origin = Origin::start(|_| Script::new().stall());
    let mut connection = Connection::open(origin.addr());
    connection.write_head("GET", "/", &[]);
    origin.wait_for_requests(1);
    assert_eq!(origin.open_connections(), 1);
    connection.reset();
    origin.wait_for_open_connections(0);
}

#[test]
fn a_slow_reader_holds_the_origin_back() {
    let origin = Origin::start(|_| Script::new().head(200, &[]).repeat([b'x'; 65536], 16 * 1024));
    let mut stream = TcpStream::connect(origin.addr()).unwrap();
    std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut first = [0; 100];
    stream.read_exact(&mut first).unwrap();
    assert!(origin.bytes_sent() < 512 << 20, "a gigabyte does not fit into two socket buffers");
}

#[test]
fn a_stopped_origin_refuses_and_can_be_started_again() {
    let origin = Origin::ok("one", &[]);
    let addr = origin.addr();
    let mut kept = Connection::open(addr);
    assert_eq!(kept.request("GET", "/", &[], b"").text(), "one");
    origin.stop();
    assert!(kept.closes());
    assert!(Connection::try_open(addr).is_err());
    let again = Origin::start_on(addr, |_| Script::ok("two", &[]));
    assert_eq!(get(again.addr(), "/", &[]).text(), "two");
}

#[test]
fn dropped_connections_leave_the_listener_standing() {
    let origin = Origin::ok("one", &[]);
    let mut kept = Connection::open(origin.addr());
    assert_eq!(kept.request("GET", "/", &[], b"").status, 200);
    origin.drop_connections();
    assert!(kept.closes());
    assert_eq!(get(origin.addr(), "/", &[]).status, 200);
}

#[test]
fn malformed_responses_are_errors_and_not_guessed_at() {
    let rows = [
        "NOT HTTP\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1 200 OK\nA: b\n\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    ];
    for row in rows {
        let origin = Origin::start(move |_| Script::new().bytes(row).close());
        let mut connection = Connection::open(origin.addr());
        connection.write_head("GET", "/", &[]);
        assert!(connection.try_response("GET").is_err(), "{row:?}");
    }
    let origin = Origin::start(|_| Script::chunked(&[]).bytes("2\r\nabcd\r\n0\r\n\r\n").close());
    assert!(!get(origin.addr(), "/", &[]).complete, "a chunk longer than it says");
}

#[test]
fn an_unused_address_refuses() {
    assert!(Connection::try_open(unused_address()).is_err());
}

#[test]
fn within_stops_at_its_limit() {
    let mut tries = 0;
    assert!(within(PATIENCE, || {
        tries += 1;
        tries == 3
    }));
    assert!(!within(Duration::from_millis(15), || false));
}

#[test]
fn a_process_is_heard_on_both_streams_and_its_end_is_known() {
    let mut process = shell("echo one; echo two >&2; echo three; exit 7");
    assert_eq!(process.out.wait_for_line(|line| line.starts_with("th"), PATIENCE), "three");
    assert_eq!(process.err.wait_for_line(|line| line == "two", PATIENCE), "two");
    assert_eq!(process.wait_exit(PATIENCE), Some(7));
    assert_eq!(process.out.all(), ["one", "three"]);
    assert_eq!(process.out.next_line(1, |_| true, PATIENCE), ("three".to_owned(), 2));
    assert_eq!(process.out.position(), 2);
}

#[test]
#[should_panic(expected = "no such line")]
fn a_line_that_never_comes_is_not_waited_for_once_the_stream_has_ended() {
    shell("echo one").out.wait_for_line(|line| line == "two", Duration::from_secs(3600));
}

#[test]
fn a_process_can_be_asked_to_end_and_can_be_killed() {
    let mut asked = shell("trap 'exit 3' TERM; echo ready; while :; do :; done");
    asked.out.wait_for_line(|line| line == "ready", PATIENCE);
    asked.terminate();
    assert_eq!(asked.wait_exit(PATIENCE), Some(3));

    let mut killed = shell("trap '' TERM; echo ready; exec cat /dev/zero >/dev/null");
    killed.out.wait_for_line(|line| line == "ready", PATIENCE);
    assert!(killed.is_running());
    killed.kill9();
    assert_eq!(killed.wait_exit(PATIENCE), None);
}

#[test]
fn a_dropped_process_is_gone() {
    let process = shell("echo ready; exec cat /dev/zero >/dev/null");
    process.out.wait_for_line(|line| line == "ready", PATIENCE);
    let id = process.id();
    drop(process);
    assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
}

#[test]
fn the_announced_address_is_found_in_text_and_json_lines() {
    let rows = [
        ("INFO listening on http://127.0.0.1:8080", Some("127.0.0.1:8080")),
        ("listening on http://[::1]:8080, 2 workers", Some("[::1]:8080")),
        (r#"{"message":"listening on http://127.0.0.1:8080"}"#, Some("127.0.0.1:8080")),
        ("listening on http://127.0.0.1:8080.", Some("127.0.0.1:8080")),
        ("listening on http://somewhere", None),
        ("admin on http://127.0.0.1:1", None),
    ];
    for (line, expected) in rows {
        let found = address_after(line, "listening on http://").map(|addr| addr.to_string());
        assert_eq!(found.as_deref(), expected, "{line}");
    }
}

#[test]
fn the_built_binary_starts() {
    let finished = support::process::run_to_end(&["--version"], std::path::Path::new("."));
    assert_eq!((finished.code, finished.out), (Some(0), format!("larder {}", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn all_tests_at_once_have_passed_only_where_each_binary_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let script = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let ended = |word: &str, passed: u8, failed: u8, code: u8| {
        format!("echo 'test result: {word}. {passed} passed; {failed} failed; 0 ignored'\nexit {code}")
    };
    for (name, text) in [
        // Needs the program, as integration tests do.
        ("good", format!("[ -e \"$FOLDER/there\" ] || exit 1\n{}", ended("ok", 3, 0, 0))),
        ("unit", ended("ok", 3, 0, 0)),
        ("failed", ended("FAILED", 3, 1, 101)),
        ("failed-with-0", ended("FAILED", 3, 1, 0)),
        ("empty", ended("ok", 0, 0, 0)),
        ("silent", "exit 0".to_owned()),
        ("crashed", ended("ok", 3, 0, 1)),
    ] {
        script(name, &text);
    }
    // Instead of the compiler: tells of the binaries that are named, then how that ended.
    script(
        "cargo",
        r#"program() {
            sleep 0.3 # It takes its time.
            touch "$FOLDER/there"
            printf '{"reason":"compiler-artifact","target":{"kind":["bin"]},"profile":{"test":false},'
            printf '"executable":"there"}\n'
        }
        rm -f "$FOLDER/there"
        for each in $BINARIES; do
            if [ "$each" = program ]; then program; continue; fi
            printf '{"reason":"compiler-artifact","manifest_path":"%s/Cargo.toml",' "$FOLDER"
            printf '"target":{"name":"%s","kind":["%s"]},"profile":{"test":true},' "${each%:*}" "${each#*:}"
            printf '"executable":"%s/%s"}\n' "$FOLDER" "${each%:*}"
        done
        printf '{"reason":"build-finished","success":%s}\n' "$SUCCESS""#,
    );
    let path = std::env::var("PATH").unwrap();
    for (binaries, success, passes) in [
        ("program good:test", "true", true),
        ("good:test unit:lib empty:bin program good:test", "true", true),
        ("good:test", "true", false),
        ("program good:test", "false", false),
        ("program", "true", false),
        ("program empty:bin", "true", false),
        ("program good:test empty:test", "true", false),
        ("program good:test empty:lib", "true", false),
        ("program failed:test good:test", "true", false),
        ("program good:test failed-with-0:test", "true", false),
        ("program good:test silent:test", "true", false),
        ("program good:test crashed:test", "true", false),
        ("program good:test missing:test", "true", false),
    ] {
        let output = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/parallel.py"))
            .env("PATH", format!("{}:{path}", folder.path().display()))
            .env("FOLDER", folder.path())
            .env("BINARIES", binaries)
            .env("SUCCESS", success)
            .output()
            .unwrap();
        assert_eq!(output.status.success(), passes, "{binaries} {success}: {output:?}");
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn gated(script: impl Fn(&Gate) -> Script + Send + Sync + 'static) -> (Gate, Origin) {
    let gate = Gate::new();
    let held = gate.clone();
    (gate, Origin::start(move |_| script(&held)))
}

fn shell(script: &str) -> Process {
    let mut command = Command::new("sh");
    command.arg("-c").arg(script);
    Process::spawn(command)
}
