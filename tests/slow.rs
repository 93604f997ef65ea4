//! Slow requests: which are, by route, and who is told of them.
//!
//! Must not know: how they are kept.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use serde_json::Value;
use support::client;
use support::process::{larder, run_to_end};
use support::{Larder, Origin, PATIENCE, Process, within};

/// Everything is slow on `/slow/*`, nothing on `/never/*`, and the rest as the file says for all.
fn config(origin: &Origin, timing: &str) -> String {
    let route = |name: &str, path: &str, more: &str| {
        format!("[[route]]\nname = \"{name}\"\nmatch = {{ path = \"{path}\" }}\nupstream = \"api\"\n{more}\n")
    };
    [
        format!("listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = 1\n[timing]\n{timing}\n"),
        format!("[upstream.api]\nservers = [\"{}\"]\n", origin.url()),
        route("slow", "/slow/*", "slow_request = \"0s\""),
        route("never", "/never/*", "slow_request = \"off\""),
        route("rest", "/*", ""),
    ]
    .concat()
}

fn slow(larder: &Larder, query: &str) -> Value {
    client::get(larder.admin(), &format!("/slow{query}"), &[]).json()
}

fn paths(page: &Value) -> Vec<&str> {
    page["requests"].as_array().unwrap().iter().map(|slow| slow["path"].as_str().unwrap()).collect()
}

/// A request's end is noted when its body has been taken, which its client may see a moment before.
fn wait_for_last(larder: &Larder, last: u64) {
    assert!(within(PATIENCE, || slow(larder, "")["last"] == last), "{}", slow(larder, ""));
}

#[test]
fn a_route_has_a_limit_of_its_own_or_none_and_a_reload_changes_it() {
    let origin = Origin::ok("x", &[]);
    let larder = Larder::start(&config(&origin, "slow_request = \"1h\""));
    for path in ["/slow/1", "/never/1", "/rest/1"] {
        assert_eq!(larder.get(path, &[]).status, 200);
    }
    wait_for_last(&larder, 1);
    let page = slow(&larder, "");
    assert_eq!((paths(&page), &page["requests"][0]["route"]), (vec!["/slow/1"], &"slow".into()));
    assert_eq!((&page["requests"][0]["limit_ms"], &larder.stats()["slow"]), (&0.0.into(), &1.into()));
    let changed = config(&origin, "slow_request = \"0s\"")
        .replace("slow_request = \"0s\"\n[[", "slow_request = \"1h\"\n[[");
    std::fs::write(larder.directory().join("proxy.toml"), changed).unwrap();
    let told = client::request(larder.admin(), "POST", "/reload", &[], b"");
    assert_eq!(told.status, 200, "{}", told.text());
    for path in ["/slow/2", "/never/2", "/rest/2"] {
        assert_eq!(larder.get(path, &[]).status, 200);
    }
    wait_for_last(&larder, 2);
    assert_eq!(paths(&slow(&larder, "?since=1")), ["/rest/2"]);
    // One that no route takes goes by what holds for all.
    assert_eq!(paths(&slow(&larder, "")), ["/slow/1", "/rest/2"]);
}

#[test]
fn who_asks_again_gets_what_is_new_and_who_waits_gets_it_when_it_comes() {
    let origin = Origin::ok("x", &[]);
    let larder = Larder::start(&config(&origin, ""));
    let page = slow(&larder, "?since=0&wait=1ms");
    assert_eq!((&page["last"], &page["waited"], paths(&page)), (&0.into(), &true.into(), vec![]));
    let admin = larder.admin();
    let waiting = std::thread::spawn(move || client::get(admin, "/slow?since=0&wait=5s", &[]).json());
    assert_eq!(larder.get("/slow/a?token=hunter2&b=1", &[]).status, 200);
    let page: Value = waiting.join().unwrap();
    let shown = paths(&page)[0];
    assert!(shown.starts_with("/slow/a?token=redacted-") && shown.ends_with("&b=1"), "{shown}");
    assert!(!page.to_string().contains("hunter2"), "{page}");
    assert_eq!((&page["last"], &page["lost"]), (&1.into(), &0.into()));
    assert!(page["requests"][0]["phases_ms"]["first_byte"].is_number(), "{page}");
    // A number of another process means: from the beginning.
    assert_eq!(slow(&larder, "?since=99&wait=5s")["requests"].as_array().unwrap().len(), 1);
    for (query, status) in [("?since=x", 400), ("?wait=1", 400), ("?what=1", 400)] {
        assert_eq!(client::get(admin, &format!("/slow{query}"), &[]).status, status, "{query}");
    }
    assert_eq!(client::request(admin, "POST", "/slow", &[], b"").status, 405);
}

#[test]
fn more_than_are_kept_are_told_as_lost() {
    let origin = Origin::ok("x", &[("cache-control", "max-age=60")]);
    let larder = Larder::start(&config(&origin, ""));
    for _ in 0..300 {
        assert_eq!(larder.get("/slow/a", &[]).status, 200);
    }
    wait_for_last(&larder, 300);
    let page = slow(&larder, "?since=10");
    assert_eq!((page["requests"].as_array().unwrap().len(), &page["lost"]), (256, &34.into()));
}

#[test]
fn nine_who_wait_at_once_do_not_all_wait() {
    let origin = Origin::ok("x", &[]);
    let larder = Larder::start(&config(&origin, ""));
    let admin = larder.admin();
    let (tell, told) = std::sync::mpsc::channel();
    let waiting: Vec<_> = (0..9)
        .map(|_| {
            let tell = tell.clone();
            std::thread::spawn(move || {
                let page: Value = client::get(admin, "/slow?since=0&wait=5s", &[]).json();
                tell.send(page["waited"].clone()).unwrap();
                page
            })
        })
        .collect();
    // The ninth, whichever that is, is answered while all others wait.
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), false);
    assert_eq!(larder.get("/slow/a", &[]).status, 200);
    let pages: Vec<Value> = waiting.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(pages.iter().filter(|page| page["waited"] == true).count(), 8, "{pages:?}");
    assert!(
        pages.iter().filter(|page| page["waited"] == true).all(|page| paths(page) == ["/slow/a"]),
        "{pages:?}"
    );
}

#[test]
fn at_a_terminal_the_last_are_shown_and_followed_and_programs_get_objects() {
    let origin = Origin::ok("x", &[]);
    let larder_ = Larder::start(&config(&origin, ""));
    let admin = larder_.admin().to_string();
    let ask = |args: &[&str]| run_to_end(&[&["slow", "--admin", &admin], args].concat(), larder_.directory());
    let finished = ask(&[]);
    assert_eq!((finished.code, finished.out.as_str()), (Some(0), "(no request has been slow so far)"));
    assert_eq!((ask(&["--json"]).out, ask(&["--json"]).code), (String::new(), Some(0)));
    for path in ["/slow/1", "/slow/2", "/slow/3"] {
        assert_eq!(larder_.get(path, &[]).status, 200);
    }
    wait_for_last(&larder_, 3);
    let shown = ask(&["-n", "2"]).out;
    let lines: Vec<&str> = shown.lines().collect();
    assert!(
        lines.len() == 2 && lines[0].contains("/slow/2  slow  miss") && lines[1].contains("/slow/3"),
        "{shown}"
    );
    let none = ask(&["-n", "0"]);
    assert_eq!((none.code, none.out.as_str()), (Some(2), ""), "{none:?}");
    assert!(none.err.contains("-n 0 shows nothing: ") && none.err.contains("(-n 0 --tail)"), "{none:?}");
    let objects = ask(&["--json"]).out;
    assert_eq!(objects.lines().count(), 3);
    let first: Value = serde_json::from_str(objects.lines().next().unwrap()).unwrap();
    assert_eq!((&first["path"], &first["sequence"]), (&"/slow/1".into(), &1.into()));
    // Followed.
    let mut command = larder();
    command.args(["slow", "--admin", &admin, "--tail"]).current_dir(larder_.directory());
    let following = Process::spawn(command);
    following.out.wait_for_line(|line| line.contains("/slow/3"), PATIENCE);
    assert_eq!(larder_.get("/slow/4", &[]).status, 200);
    following.out.wait_for_line(|line| line.contains("/slow/4"), PATIENCE);
    assert_eq!(following.out.all().len(), 4, "{}", following.out.whole());
    drop(following);
    // Of those that were there already, none is shown where none is asked for: what comes is the first line.
    let mut command = larder();
    command.args(["slow", "--admin", &admin, "--tail", "-n", "0"]).current_dir(larder_.directory());
    let following = Process::spawn(command);
    let next = || {
        assert_eq!(larder_.get("/slow/5", &[]).status, 200);
        following.out.all().first().cloned()
    };
    assert!(within(PATIENCE, || next().is_some()), "{}", following.out.whole());
    assert!(following.out.all()[0].contains("/slow/5"), "{}", following.out.whole());
    drop(following);
    let gone = run_to_end(&["slow", "-c", "absent.toml"], larder_.directory());
    assert_eq!(gone.code, Some(78));
    let nobody = support::unused_address().to_string();
    let gone = run_to_end(&["slow", "--admin", &nobody, "--tail"], larder_.directory());
    assert_eq!(gone.code, Some(69));
}
