//! Another configuration while Larder runs: all of it or nothing, without a failed request, and
//! nothing of the former is left when its requests are done.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use support::process::{Finished, run_to_end};
use support::{
    Connection, Gate, Larder, Origin, PATIENCE, Process, Script, client, get, unused_address, within,
};

const STORABLE: &[(&str, &str)] = &[("Cache-Control", "max-age=600")];

/// A file with these upstreams, each with a route of its name; what is below `/off/` is not cached.
fn config(top: &str, upstreams: &[(&str, &Origin)]) -> String {
    let mut text = format!("listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = 2\n{top}\n");
    for (name, origin) in upstreams {
        text += &format!(
            "[upstream.{name}]\nservers = [\"{}\"]\n[[route]]\nname = \"{name}-off\"\n\
             match = {{ path = \"/{name}/off/*\" }}\nupstream = \"{name}\"\ncache = false\n[[route]]\n\
             name = \"{name}\"\nmatch = {{ path = \"/{name}/*\" }}\nupstream = \"{name}\"\n",
            origin.url()
        );
    }
    text
}

fn file(larder: &Larder) -> PathBuf {
    larder.directory().join("proxy.toml")
}

/// Writes the file and sends SIGHUP; gives what the log says of it, from the first line on.
fn hang_up(larder: &Larder, text: &str) -> String {
    fs::write(file(larder), text).unwrap();
    let from = larder.err.position();
    larder.signal("HUP");
    let told = |line: &str| line.contains("is in force") || line.contains("the configuration in force stays");
    larder.err.next_line(from, told, PATIENCE).0
}

/// The same with an admin listener that can be named ahead, for a file that is both what the Larder reads and
/// what leads to it.
fn reachable(admin: SocketAddr, top: &str, upstreams: &[(&str, &Origin)]) -> String {
    config(top, upstreams).replace("admin = \"127.0.0.1:0\"", &format!("admin = \"{admin}\""))
}

/// Writes the file and runs `larder reload` with it.
fn reload(larder: &Larder, text: &str) -> Finished {
    fs::write(file(larder), text).unwrap();
    run_to_end(&["reload", "-c", "proxy.toml"], larder.directory())
}

#[test]
fn under_load_no_request_fails() {
    let (a, b) = (Origin::ok("a", STORABLE), Origin::ok("b", STORABLE));
    let larder = Larder::start(&config("", &[("a", &a)]));
    let (proxy, over) = (larder.proxy(), Arc::new(AtomicBool::new(false)));
    let served = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (over, served) = (Arc::clone(&over), Arc::clone(&served));
            std::thread::spawn(move || {
                let mut connection = Connection::open(proxy);
                let mut nth = 0;
                while !over.load(Ordering::Relaxed) {
                    nth += 1;
                    // Hits, misses and what is not cached; each kept connection lives through reloads.
                    let path = match nth % 3 {
                        0 => "/a/hit".to_owned(),
                        1 => format!("/a/{client}/{nth}"),
                        _ => format!("/a/off/{nth}"),
                    };
                    let response = connection.request("GET", &path, &[], b"");
                    assert_eq!((response.status, response.text().as_str()), (200, "a"), "{path}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for nth in 0..30 {
        let before = served.load(Ordering::Relaxed);
        // The upstream stays, changes its limits, and has company, by turns.
        let changed = format!("{}timeout = {{ total = \"{}s\" }}\n", "", 50 + nth);
        let text = match nth % 3 {
            0 => config("", &[("a", &a), ("b", &b)]),
            1 => config("", &[("a", &a)]).replacen("[[route]]", &format!("{changed}[[route]]"), 1),
            _ => config("[timing]\nslow_request = \"off\"", &[("a", &a)]),
        };
        assert!(hang_up(&larder, &text).contains("is in force"), "{nth}");
        assert!(within(PATIENCE, || served.load(Ordering::Relaxed) >= before + 20), "it serves on");
    }
    over.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
    let stats = larder.stats();
    let served = served.load(Ordering::Relaxed);
    assert!(served >= 600, "{served}");
    assert_eq!((&stats["failed"], &stats["total"]), (&0.into(), &served.into()), "counted on: {stats}");
    assert_eq!(larder.metric("larder_reloads_total{result=\"done\"}"), Some(30.0));
    assert_eq!(a.count("/a/hit"), 1, "what is stored stays");
}

#[test]
fn a_route_comes_and_goes_and_what_is_stored_stays() {
    let (a, b) = (Origin::ok("a", STORABLE), Origin::ok("b", STORABLE));
    let larder = Larder::start(&config("", &[("a", &a)]));
    assert_eq!((larder.get("/a/x", &[]).status, larder.get("/b/x", &[]).status), (200, 404));
    assert!(hang_up(&larder, &config("", &[("b", &b)])).contains("is in force"));
    assert_eq!((larder.get("/a/x", &[]).status, larder.get("/b/x", &[]).text().as_str()), (404, "b"));
    // The former upstream's connections are closed.
    assert!(within(PATIENCE, || a.open_connections() == 0));
    assert!(hang_up(&larder, &config("", &[("b", &b), ("a", &a)])).contains("is in force"));
    assert_eq!(larder.get("/a/x", &[]).text(), "a");
    assert_eq!((a.count("/a/x"), b.connections()), (1, 1), "stored, and kept");
    let stats = larder.stats();
    assert_eq!(
        (&stats["routes"]["a"]["requests"], &stats["routes"]["b"]["requests"]),
        (&2.into(), &1.into())
    );
}

#[test]
fn what_is_in_flight_ends_under_the_configuration_that_it_began_with() {
    let gate = Gate::new();
    let held = gate.clone();
    let origin = Origin::start(move |_| Script::new().wait(&held).then_ok(b"late", STORABLE));
    let other = Origin::ok("other", STORABLE);
    let larder = Larder::start(&config("", &[("a", &origin)]));
    let addr = larder.proxy();
    let clients: Vec<_> = ["/a/x", "/a/x", "/a/off/x"]
        .map(|path| std::thread::spawn(move || get(addr, path, &[])))
        .into_iter()
        .collect();
    gate.wait_for_arrivals(2);
    assert!(hang_up(&larder, &config("", &[("a", &other)])).contains("is in force"));
    // Who comes now and wants the same is for the new origin, unless a fetch of it is on its way.
    assert_eq!(larder.get("/a/off/x", &[]).text(), "other");
    gate.open();
    for client in clients {
        let response = client.join().unwrap();
        assert_eq!((response.status, response.text().as_str(), response.complete), (200, "late", true));
    }
    assert!(within(PATIENCE, || origin.open_connections() == 0), "nothing is kept for the former");
    assert_eq!(larder.stats()["failed"], 0);
}

/// For as long as an origin wants to be left alone, nobody asks it; but another may be in its place by then.
#[test]
fn an_origin_is_not_left_alone_by_the_word_of_the_one_before() {
    let origin = Origin::start(|request| match request.count {
        1 => Script::ok("old", &[("Cache-Control", "max-age=50, stale-if-error=600"), ("Age", "60")]),
        _ => Script::respond(503, &[("Retry-After", "60")], "down"),
    });
    let other = Origin::ok("other", STORABLE);
    let larder = Larder::start(&config("", &[("a", &origin)]));
    for _ in 0..3 {
        assert_eq!(larder.get("/a/x", &[]).text(), "old");
    }
    assert!(hang_up(&larder, &config("", &[("a", &other)])).contains("is in force"));
    assert!(within(PATIENCE, || larder.get("/a/x", &[]).text() == "other"));
    assert_eq!((origin.count("/a/x"), other.count("/a/x")), (2, 1));
}

#[test]
fn a_bad_file_changes_nothing_and_says_why_with_line_and_caret() {
    let origin = Origin::ok("a", STORABLE);
    let good = reachable(unused_address(), "", &[("a", &origin)]);
    let larder = Larder::start(&good);
    let bad = good.replace("cache = false", "cahce = false");
    let line = 1 + good.lines().position(|line| line == "cache = false").unwrap();
    assert!(hang_up(&larder, &bad).contains("stays"));
    let said = larder.err.wait_for_line(|line| line.contains("unknown key `cahce`"), PATIENCE);
    for part in [&format!("proxy.toml:{line}:1"), "^^^^^", "did you mean `cache`?"] {
        assert!(said.contains(part), "one record has it all: {said}");
    }
    let answered = reload(&larder, &bad);
    assert_eq!(answered.code, Some(78), "{}", answered.err);
    for said in
        ["unknown key `cahce`", &format!("proxy.toml:{line}:1"), "^^^^^", "the configuration in force stays"]
    {
        assert!(answered.err.contains(said), "{said:?} is not in\n{}", answered.err);
    }
    fs::remove_file(file(&larder)).unwrap();
    larder.signal("HUP");
    larder.err.wait_for_line(|line| line.contains("cannot read") && line.contains("proxy.toml"), PATIENCE);
    assert_eq!((larder.get("/a/off/x", &[]).status, larder.stats()["failed"].as_u64()), (200, Some(0)));
    assert_eq!(larder.metric("larder_reloads_total{result=\"refused\"}"), Some(3.0));
}

#[test]
fn what_takes_a_restart_is_refused_by_name_and_nothing_of_the_file_comes_into_force() {
    let (a, b) = (Origin::ok("a", STORABLE), Origin::ok("b", STORABLE));
    let admin = unused_address();
    let larder = Larder::start(&reachable(admin, "", &[("a", &a)]));
    let text = reachable(admin, "[cache]\nmemory = \"9MiB\"\n[limits]\nconnections = 7", &[("b", &b)])
        .replace("workers = 2", "workers = 3");
    let answered = reload(&larder, &text);
    assert_eq!(answered.code, Some(78), "{}", answered.err);
    assert!(
        answered.err.contains("workers, cache.memory, limits.connections takes a restart"),
        "{}",
        answered.err
    );
    let by_address = run_to_end(&["reload", "--admin", &admin.to_string()], larder.directory());
    assert_eq!(
        (by_address.code, &by_address.err),
        (Some(78), &answered.err),
        "it is the running one that shows it"
    );
    // Each is shown where it stands, but what is not in the file.
    for (start, sign) in
        [("workers = 3", "^^^^^^^^^^^"), ("memory = \"9MiB\"", "^^^^^^^^^^^^^^^"), ("connections = 7", "^")]
    {
        let line = 1 + text.lines().position(|line| line == start).unwrap();
        let shown = format!("proxy.toml:{line}:1\n  |\n{line} | {start}\n  | {sign}");
        assert!(answered.err.contains(&shown), "{shown}\nis not in\n{}", answered.err);
    }
    assert!(
        answered
            .err
            .contains(&format!("3 problems in {}\nerror: what has changed in", file(&larder).display())),
        "{}",
        answered.err
    );
    assert_eq!((larder.get("/a/x", &[]).status, larder.get("/b/x", &[]).status), (200, 404));
    assert!(hang_up(&larder, &text).contains("stays"));
    let from = larder.err.position();
    larder.signal("HUP");
    let told =
        |line: &str| line.contains("workers, cache.memory, limits.connections") && line.contains("^^^");
    larder.err.next_line(from, told, PATIENCE);
    // What is taken out of the file has no line there.
    let admin = unused_address();
    let larder = Larder::start(&reachable(admin, "[cache]\nmemory = \"9MiB\"", &[("a", &a)]));
    let shorter = reload(&larder, &reachable(admin, "", &[("a", &a)]));
    assert_eq!(shorter.code, Some(78));
    assert!(
        shorter.err.ends_with("proxy.toml (any more): cache.memory")
            && shorter.err.contains("\n       not set in "),
        "{}",
        shorter.err
    );
}

#[test]
fn a_file_that_is_no_toml_or_gone_is_told_of_as_any_other_that_is_wrong() {
    let origin = Origin::ok("a", STORABLE);
    let (admin, top) = (unused_address(), "admin_token = \"s3cret-of-some-length\"");
    let good = reachable(admin, top, &[("a", &origin)]);
    let larder = Larder::start(&good);
    let by_address = || {
        let mut command = support::process::larder();
        command.args(["reload", "--admin", &larder.admin().to_string()]).current_dir(larder.directory());
        command.env("LARDER_ADMIN_TOKEN", "s3cret-of-some-length");
        let mut process = Process::spawn(command);
        let code = process.wait_exit(PATIENCE);
        (code, process.err.whole())
    };
    let twice = good.replace("workers = 2", "workers = 2\nworkers = 2");
    let texts = [
        good.replace("[upstream.a]", "[upstream.a"),
        twice,
        good.replace("admin_token =", "admin_token = 1 #"),
    ];
    for text in texts {
        let answered = reload(&larder, &text);
        // Whoever is named by its address reads the same.
        assert!(!answered.err.contains("--admin"), "{}", answered.err);
        assert!(answered.err.ends_with("mend it, and reload again"), "{}", answered.err);
        for (code, said) in [(answered.code, answered.err), by_address()] {
            assert_eq!(code, Some(78), "{said}");
            assert!(said.starts_with("error: ") && said.contains("--> "), "{said}");
            assert!(said.contains("the configuration in force stays"), "{said}");
        }
    }
    fs::remove_file(file(&larder)).unwrap();
    let (code, said) = by_address();
    assert_eq!(code, Some(78), "{said}");
    assert!(said.starts_with("error: cannot read "), "{said}");
    let own = run_to_end(&["reload", "proxy.toml"], larder.directory());
    assert_eq!(own.code, Some(78), "{}", own.err);
    assert!(own.err.contains("cannot read proxy.toml") && own.err.contains("in force stays"), "{}", own.err);
    assert!(said.contains("\nerror: the configuration in force stays"), "{said}");
}

#[test]
fn the_command_says_what_is_in_force_or_why_nobody_answers() {
    let origin = Origin::ok("a", STORABLE);
    let (admin, top) = (unused_address(), "admin_token = \"s3cret-of-some-length\"");
    let larder = Larder::start(&reachable(admin, top, &[("a", &origin)]));
    let done = reload(&larder, &reachable(admin, top, &[("a", &origin), ("b", &origin)]));
    let own = file(&larder).canonicalize().unwrap();
    let said = format!("{}: in force (4 routes, 2 upstreams)", own.display());
    assert_eq!((done.code, done.out, done.err), (Some(0), said, String::new()));
    let stranger = reload(&larder, &reachable(admin, "admin_token = \"another\"", &[("a", &origin)]));
    assert_eq!(stranger.code, Some(77), "{}", stranger.err);
    assert!(
        stranger.err.contains("another admin_token") && !stranger.err.contains("s3cret"),
        "{}",
        stranger.err
    );
    let nobody =
        config("", &[]).replacen("127.0.0.1:0\"\nworkers", &format!("{}\"\nworkers", unused_address()), 1);
    let text = nobody
        + "[upstream.a]\nservers = [\"http://127.0.0.1:1\"]\n[[route]]\nname = \"a\"\nmatch = { path = \"/*\" }\nupstream = \"a\"\n";
    fs::write(larder.directory().join("nobody.toml"), &text).unwrap();
    let alone = run_to_end(&["reload", "-c", "nobody.toml"], larder.directory());
    assert_eq!(alone.code, Some(69), "{}", alone.err);
    assert!(alone.err.contains("no Larder answers at 127.0.0.1:"), "{}", alone.err);
    fs::write(larder.directory().join("nobody.toml"), text.replace("upstream = \"a\"", "upstream = \"b\""))
        .unwrap();
    let wrong = run_to_end(&["reload", "-c", "nobody.toml"], larder.directory());
    assert_eq!(wrong.code, Some(78), "{}", wrong.err);
    assert!(wrong.err.contains("nobody.toml:") && wrong.err.contains('^'), "{}", wrong.err);
}

#[test]
fn another_file_than_the_running_larder_has_is_never_said_to_be_in_force() {
    let origin = Origin::ok("a", STORABLE);
    let admin = unused_address();
    let one = reachable(admin, "", &[("a", &origin)]);
    let larder = Larder::start(&one);
    let other = reachable(admin, "", &[("a", &origin), ("b", &origin)]);
    fs::write(larder.directory().join("other.toml"), &other).unwrap();
    let answered = run_to_end(&["reload", "-c", "other.toml"], larder.directory());
    let own = file(&larder).canonicalize().unwrap().display().to_string();
    assert_eq!(answered.code, Some(1), "{}", answered.err);
    assert_eq!(answered.out, format!("{own}: in force (2 routes, 1 upstream)"));
    for said in [&format!("was started with {own} and has read that"), "not other.toml"] {
        assert!(answered.err.contains(said), "{said:?} is not in\n{}", answered.err);
    }
    assert_eq!(larder.get("/b/x", &[]).status, 404, "nothing of the other has come into force");
    // What is wrong with its own file is not taken for what is wrong with the other.
    fs::write(file(&larder), one.replace("cache = false", "cahce = false")).unwrap();
    let answered = run_to_end(&["reload", "other.toml"], larder.directory());
    assert_eq!(answered.code, Some(78), "{}", answered.err);
    for said in ["proxy.toml:", "unknown key `cahce`", "not other.toml"] {
        assert!(answered.err.contains(said), "{said:?} is not in\n{}", answered.err);
    }
    // The same file by another name is the same.
    fs::write(file(&larder), one).unwrap();
    std::os::unix::fs::symlink(file(&larder), larder.directory().join("link.toml")).unwrap();
    let answered = run_to_end(&["reload", "-c", "link.toml"], larder.directory());
    assert_eq!((answered.code, answered.err.as_str()), (Some(0), ""));
    let text = client::request(larder.admin(), "POST", "/reload", &[], b"").json();
    assert_eq!(text["file"], own, "{text}");
}

#[test]
fn what_is_dangerous_comes_into_force_and_is_told_at_the_start_and_by_a_reload() {
    let origin = Origin::ok("a", STORABLE);
    let admin = unused_address();
    let text = reachable(admin, "trusted_proxies = [\"0.0.0.0/0\"]", &[("a", &origin)]);
    let larder = Larder::start(&text);
    let told = |from: usize| {
        // One record, with the carets in it, and not one for each of its lines.
        let (line, _) = larder.err.next_line(from, |line| line.contains("anyone may claim"), PATIENCE);
        assert!(line.contains("^^^^^^^^^^^") && line.contains("1 warning in"), "{line}");
    };
    told(0);
    let from = larder.err.position();
    let answered = reload(&larder, &text);
    assert_eq!(answered.code, Some(0), "{}", answered.err);
    for said in ["warning: anyone may claim any address", "proxy.toml:4:20", "^^^^^^^^^^^", "1 warning in"] {
        assert!(answered.err.contains(said), "{said:?} is not in\n{}", answered.err);
    }
    told(from);
}

#[test]
fn the_token_changes_with_the_file() {
    let origin = Origin::ok("a", STORABLE);
    let larder = Larder::start(&config("admin_token = \"old\"", &[("a", &origin)]));
    let with = |token: &str| {
        client::get(larder.admin(), "/stats", &[("Authorization", &format!("Bearer {token}"))]).status
    };
    assert_eq!((with("old"), with("new")), (200, 401));
    assert!(hang_up(&larder, &config("admin_token = \"new\"", &[("a", &origin)])).contains("is in force"));
    assert_eq!((with("old"), with("new")), (401, 200));
}

#[test]
fn without_a_file_there_is_nothing_to_reload_and_it_says_so() {
    let origin = Origin::ok("a", STORABLE);
    let url = origin.url();
    let args = ["run", "--to", &url, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let larder = Larder::start_with(&args, true);
    larder.signal("HUP");
    larder.err.wait_for_line(|line| line.contains("started without a file"), PATIENCE);
    let answered = client::request(larder.admin(), "POST", "/reload", &[], b"");
    assert_eq!(answered.status, 409, "{}", answered.text());
    assert_eq!(larder.get("/", &[]).status, 200);
}

#[test]
fn a_hundred_reloads_leave_no_descriptor_behind() {
    let (a, b) = (Origin::ok("a", STORABLE), Origin::ok("b", STORABLE));
    let larder = Larder::start(&config("", &[("a", &a)]));
    let open = || fs::read_dir(format!("/proc/{}/fd", larder.id())).unwrap().count();
    let turn = |origin: &Origin| {
        assert!(hang_up(&larder, &config("", &[("a", origin)])).contains("is in force"));
        assert_eq!(larder.get("/a/off/x", &[]).status, 200);
    };
    [&a, &b].into_iter().for_each(turn);
    let before = open();
    for nth in 0..100 {
        turn(if nth % 2 == 0 { &a } else { &b });
    }
    // Those of the upstream that was replaced last may yet be on their way out.
    assert!(within(PATIENCE, || open() <= before), "{} after {before}", open());
}
