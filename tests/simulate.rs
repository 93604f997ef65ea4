//! `larder simulate`: what it says of logs that running Larders wrote, and of logs that are made up.
//!
//! Knows what was done to the Larder that wrote the log. Must not know: how anything is replayed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::process::{Finished, larder, run_to_end};
use support::{Connection, Larder, Origin, Process, Request, Script};

/// Long enough for a debug build on a machine that has other things to do.
const LONG: Duration = Duration::from_secs(120);

/// Runs `larder simulate` on this log by this configuration.
fn simulate(log: &str, config: &str, args: &[&str]) -> Finished {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (log, config) = (write("access.log", log), write("proxy.toml", config));
    let run = |log: &Path, config: &Path| {
        let mut command: Command = larder();
        command.arg("simulate").arg("--log").arg(log).arg("-c").arg(config).args(args);
        let mut process = Process::spawn(command);
        let code = process.wait_exit(LONG);
        Finished { code, out: process.out.whole(), err: process.err.whole() }
    };
    run(&log, &config)
}

fn forecast(log: &str, config: &str) -> Value {
    let done = simulate(log, config, &["--json"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert_eq!(done.err, "", "no bar where nobody looks");
    serde_json::from_str(&done.out).unwrap()
}

fn ratio(part: &Value) -> f64 {
    part["hit_ratio"].as_f64().unwrap()
}

/// A chance that is the same each time (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// One request of a mix: few things are asked for often, many now and then; some is for one user, some varies,
/// some is too large, some is written.
fn ask(client: &mut Connection, chance: &mut Chance) {
    let popular = |chance: &mut Chance, of: u64| {
        let at = chance.below(1_000_000) as f64 / 1_000_000.0;
        ((of as f64).powf(at) - 1.0) as u64
    };
    let (method, path, fields): (&str, String, Vec<(&str, &str)>) = match chance.below(100) {
        0..60 => ("GET", format!("/items/{}?b=2&a=1", popular(chance, 3000)), vec![]),
        60..75 => {
            let language = ["de", "en", "fr"][chance.below(3) as usize];
            ("GET", format!("/pages/{}", popular(chance, 300)), vec![("accept-language", language)])
        }
        75..85 => ("GET", format!("/brief/{}", popular(chance, 100)), vec![]),
        85..88 => ("GET", format!("/private/{}", chance.below(20)), vec![("authorization", "Bearer a")]),
        88..91 => ("GET", format!("/never/{}", chance.below(20)), vec![]),
        91..93 => ("HEAD", format!("/items/{}?a=1&b=2", popular(chance, 3000)), vec![]),
        93..95 => ("GET", format!("/items/{}?a=1&b=2", popular(chance, 3000)), vec![("range", "bytes=0-9")]),
        95..97 => ("GET", format!("/off/{}", chance.below(5)), vec![]),
        97..99 => ("POST", format!("/items/{}?a=1&b=2", popular(chance, 300)), vec![]),
        _ => ("GET", format!("/missing/{}", popular(chance, 50)), vec![]),
    };
    let answer = client.request(method, &path, &fields, b"");
    assert!(answer.status < 500, "{method} {path}: {}", answer.status);
}

fn origin() -> Origin {
    origin_with("max-age=1, stale-while-revalidate=1")
}

/// What is brief has this lifetime.
fn origin_with(brief: &'static str) -> Origin {
    Origin::start(move |request: &Request| {
        let number: usize = request.target.split(['/', '?']).nth(2).unwrap().parse().unwrap();
        let body = vec![b'x'; 500 + number * 7919 % 24000];
        let kept: &[(&str, &str)] = &[("cache-control", "max-age=600")];
        match request.target.split('/').nth(1).unwrap() {
            "items" => Script::ok(body, &[("cache-control", "max-age=600"), ("etag", "\"a\"")]),
            "pages" => Script::ok(body, &[("cache-control", "max-age=600"), ("vary", "accept-language")]),
            "brief" => Script::ok(body, &[("cache-control", brief)]),
            "private" => Script::ok(body, &[("cache-control", "private")]),
            "never" => Script::ok(body, &[("cache-control", "no-store")]),
            "missing" => Script::respond(404, kept, "none"),
            _ => Script::ok(body, kept),
        }
    })
}

fn configuration(origin: &Origin, memory: &str) -> String {
    let route = |name: &str, cache: &str| {
        format!(
            "[[route]]\nname = \"{name}\"\nmatch = {{ path = \"/{name}/*\" }}\nupstream = \"api\"\n{cache}\n"
        )
    };
    format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"off\"\nworkers = 1\n\
         [log]\naccess = \"json\"\naccess_queue = 1000000\nlevel = \"off\"\n\
         [cache]\nmemory = \"{memory}\"\n[upstream.api]\nservers = [\"{}\"]\n{}{}{}",
        origin.url(),
        route("pages", ""),
        route("off", "cache = false"),
        "[[route]]\nname = \"rest\"\nmatch = { path = \"/*\" }\nupstream = \"api\"\n",
    )
}

/// The log of a Larder with this configuration under so many requests.
fn record(config: &str, requests: usize, seed: u64) -> String {
    let mut larder = Larder::start(&config.replace("level = \"off\"", "level = \"info\""));
    let (clients, proxy) = (4, larder.proxy());
    std::thread::scope(|scope| {
        for nth in 0..clients {
            scope.spawn(move || {
                let mut chance = Chance(seed.wrapping_mul(nth as u64 + 1) | 1);
                let mut client = Connection::open(proxy);
                (0..requests / clients).for_each(|_| ask(&mut client, &mut chance));
            });
        }
    });
    larder.terminate();
    assert_eq!(larder.wait_exit(LONG), Some(0));
    let log = larder.out.whole();
    assert_eq!(log.lines().count(), requests);
    log
}

/// Show 3, on `requests`: what the log's own Larder did is foretold within a percentage point.
fn foretells(requests: usize) {
    let origin = origin();
    let config = configuration(&origin, "12MiB");
    let log = record(&config, requests, 7);
    let told = forecast(&log, &config);
    let all = &told["all"];
    let (now, then) = (ratio(&all["now"]), ratio(&all["then"]));
    for row in told["routes"].as_array().unwrap().iter().chain([all]) {
        eprintln!("{row}");
    }
    eprintln!("{}, enough {}", told["sizes"], told["enough"]);
    assert!((0.3..0.95).contains(&now), "a ratio that is no easy guess: {now}");
    assert!((now - then).abs() < 0.01, "{now} was, {then} foretold");
    let (asked, foretold) = (all["now"]["origin"].as_f64().unwrap(), all["then"]["origin"].as_f64().unwrap());
    assert!(
        (asked - foretold).abs() < requests as f64 / 100.0,
        "{asked} asked of the origin, {foretold} foretold"
    );
    for route in told["routes"].as_array().unwrap() {
        let (now, then) = (ratio(&route["now"]), ratio(&route["then"]));
        assert!((now - then).abs() < 0.02, "{}: {now} was, {then} foretold", route["route"]);
    }
    let sizes = told["sizes"].as_array().unwrap();
    assert!(ratio(&sizes[0]) < ratio(sizes.last().unwrap()), "{sizes:?}");
    assert_eq!((&told["bad_lines"], &told["apart"]), (&0.into(), &0.into()));
}

#[test]
fn it_foretells_the_hit_ratio_of_the_run_that_was_recorded_within_a_percentage_point() {
    foretells(20_000);
}

/// Of the release build: `cargo test --release --test simulate -- --ignored --nocapture`.
#[test]
#[ignore = "takes a minute"]
fn it_does_so_for_200_000_requests() {
    foretells(200_000);
}

#[test]
fn it_foretells_what_another_configuration_makes_of_the_same_requests() {
    // Two runs are compared, of which one may take twice as long on a busy machine: nothing is to depend on that.
    let origin = origin_with("max-age=600");
    let (small, large) = (configuration(&origin, "8MiB"), configuration(&origin, "256MiB"));
    // Another lifetime, too, and a route that was off.
    let large = large.replace("cache = false", "[route.cache.ttl]\noverride = \"1h\"\n");
    let told = forecast(&record(&small, 8_000, 11), &large);
    let real = forecast(&record(&large, 8_000, 11), &large);
    let (now, then, was) =
        (ratio(&told["all"]["now"]), ratio(&told["all"]["then"]), ratio(&real["all"]["now"]));
    assert!(was > now + 0.02, "they differ: {now} and {was}");
    assert!((then - was).abs() < 0.02, "{then} foretold, {was} came of it");
    let off = |told: &Value| told["routes"].as_array().unwrap().iter().find(|r| r["route"] == "off").cloned();
    assert_eq!(ratio(&off(&told).unwrap()["now"]), 0.0);
    assert!(ratio(&off(&told).unwrap()["then"]) > 0.9);
    assert!(told["enough"].as_u64().unwrap() < 256 << 20);
}

const PLAIN: &str = "[upstream.o]\nservers = [\"http://127.0.0.1:1\"]\n\
     [[route]]\nname = \"hosted\"\nmatch = { path = \"/*\", host = \"a.test\" }\nupstream = \"o\"\ncache.ttl.default = \"1h\"\n\
     [[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"o\"\ncache.ttl.default = \"60s\"\n";

fn combined(second: u64, request: &str, status: u16) -> String {
    let (minute, second) = (second / 60, second % 60);
    format!(
        "192.0.2.7 - - [10/Oct/2000:13:{minute:02}:{second:02} +0000] \"{request} HTTP/1.1\" {status} 500 \"-\" \"-\"\n"
    )
}

#[test]
fn a_log_of_nginx_is_judged_by_the_lifetimes_of_the_file() {
    // Not in their order, as logs are where requests take long.
    let log = [
        combined(0, "GET /a", 200),
        combined(59, "GET /a", 200),
        combined(30, "GET /a", 200),
        combined(61, "GET /a", 200),
        combined(62, "POST /a", 204),
        combined(63, "GET /a", 200),
        combined(64, "GET /b", 500),
        combined(65, "GET /b", 200),
    ]
    .concat();
    let told = forecast(&log, PLAIN);
    assert_eq!(told["all"]["now"], Value::Null, "nobody wrote down what a cache did");
    let all = &told["routes"][0];
    assert_eq!((&all["route"], &all["requests"]), (&"all".into(), &8.into()));
    // Cold, two hits, stale, voided by the write, and an error that is not kept.
    assert_eq!((&all["then"]["cached"], &all["then"]["missed"]), (&2.into(), &5.into()), "{told:#}");
    let hosted = simulate(&log, PLAIN, &["--json", "--host", "a.test"]);
    let hosted: Value = serde_json::from_str(&hosted.out).unwrap();
    assert_eq!(
        (&hosted["routes"][0]["route"], &hosted["routes"][0]["then"]["cached"]),
        (&"hosted".into(), &3.into())
    );
}

/// A route may have any name that is one, `all` among them.
#[test]
fn the_total_is_not_taken_for_a_route_and_a_small_log_has_sizes_that_say_something() {
    let log = [combined(0, "GET /a", 200), combined(1, "GET /a", 200)].concat();
    let done = simulate(&log, PLAIN, &[]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let rows: Vec<&str> = done.out.lines().filter(|line| line.starts_with("all")).collect();
    let [route, total] = rows[..] else { panic!("{}", done.out) };
    assert!(route.starts_with("all   ") && total.starts_with("all routes  "), "{}", done.out);
    assert!(!done.out.contains(" 0.0 MiB") && done.out.contains(" KiB"), "{}", done.out);
    let told = forecast(&log, PLAIN);
    assert_eq!((&told["all"]["route"], &told["routes"][0]["route"]), (&Value::Null, &"all".into()));
}

/// Their lines have no reason to go forward: the origin had failed another request a moment ago.
#[test]
fn who_was_served_while_the_origin_was_left_alone_did_not_ask_it() {
    let line = |second: u64, cache: &str, reason: &str, collapsed: bool| {
        format!(
            "{{\"ts\":\"2024-02-29T12:00:{second:02}.000Z\",\"method\":\"GET\",\"scheme\":\"http\",\"host\":\"b.test\",\
             \"path\":\"/a\",\"status\":200,\"cache\":\"{cache}\",\"reason\":{reason},\"collapsed\":{collapsed},\
             \"dur_ms\":1.0,\"bytes_out\":9,\"end\":\"complete\",\"length\":9,\"age_s\":null,\"request\":{{}},\
             \"response\":{{\"cache-control\":\"max-age=5\"}}}}\n"
        )
    };
    let log = [
        line(0, "miss", "\"uri-miss\"", false),
        line(20, "stale-if-error", "\"stale\"", false),
        line(20, "stale-if-error", "\"stale\"", true),
        line(21, "stale-if-error", "null", false),
    ]
    .concat();
    let told = forecast(&log, &format!("{PLAIN}cache.stale_if_error = \"10m\"\n"));
    for part in ["now", "then"] {
        let part = &told["all"][part];
        assert_eq!((&part["cached"], &part["origin"]), (&3.into(), &2.into()), "{told:#}");
    }
}

#[test]
fn bad_lines_are_counted_and_the_first_of_them_shown_with_their_numbers() {
    let mut log = combined(0, "GET /a", 200);
    log.push_str("\nnonsense\n{\"ts\":1}\n");
    (0..10).for_each(|_| log.push_str("more\n"));
    log.push_str(&combined(1, "GET /a", 200));
    let done = simulate(&log, PLAIN, &[]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(
        done.err.starts_with("12 lines not understood, and left out:\n  line 3 is neither JSON"),
        "{}",
        done.err
    );
    assert!(done.err.contains("\n  line 4 is none of an access log: invalid type"), "{}", done.err);
    assert_eq!(done.err.matches("\n  line ").count(), 5, "{}", done.err);
    assert!(done.err.ends_with("  …"), "{}", done.err);
    for words in ["2 requests in 1 s", "50.0 %", "as configured", "nothing is gained"] {
        assert!(done.out.contains(words), "{words}: {}", done.out);
    }
}

#[test]
fn what_was_invalidated_before_the_log_ends_has_taken_memory_too() {
    let weighed = |log: &str| {
        let done = simulate(log, PLAIN, &["--json"]);
        let told: Value = serde_json::from_str(&done.out).unwrap_or_else(|_| panic!("{}", done.err));
        told["sizes"][0]["bytes"].as_u64().unwrap()
    };
    let [get, post, other] =
        [combined(0, "GET /a", 200), combined(1, "POST /a", 200), combined(2, "GET /b", 200)];
    let one = weighed(&get);
    assert!(one > 0, "it is kept, though the log ends as it comes");
    assert_eq!(weighed(&(get.clone() + &post)), one);
    assert!(weighed(&(get + &other)) > one);
}

#[test]
fn what_cannot_be_replayed_is_an_error_that_says_so() {
    let none = simulate("nonsense\n", PLAIN, &[]);
    assert_eq!(none.code, Some(1));
    for words in ["has no request that is understood", "log.access = \"json\""] {
        assert!(none.err.contains(words), "{}", none.err);
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("proxy.toml"), PLAIN).unwrap();
    let absent = run_to_end(&["simulate", "--log", "absent.log", "-c", "proxy.toml"], directory.path());
    assert_eq!(absent.code, Some(1));
    assert!(absent.err.contains("cannot read the log absent.log"), "{}", absent.err);
    let wrong = simulate("", "[[rout]]", &[]);
    assert_eq!(wrong.code, Some(78));
}

#[test]
fn a_log_that_is_not_there_is_told_whatever_else_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("wrong.toml"), "[[rout]]").unwrap();
    for (log, file, told) in [
        ("absent.log", "absent.toml", "cannot read absent.toml"),
        ("absent.log", "wrong.toml", "--> wrong.toml:1:"),
        (".", "wrong.toml", "--> wrong.toml:1:"),
    ] {
        let both = run_to_end(&["simulate", "--log", log, "-c", file], directory.path());
        assert_eq!(both.code, Some(78), "{}", both.err);
        assert!(both.err.starts_with(&format!("error: cannot read the log {log}: ")), "{}", both.err);
        assert!(both.err.contains(told), "{}", both.err);
    }
}

#[test]
fn what_the_log_found_stored_when_it_begins_is_stored_in_the_replay() {
    let line = |second: u64, path: &str, cache: &str, age: &str| {
        format!(
            "{{\"ts\":\"2024-02-29T12:00:{second:02}.000Z\",\"method\":\"GET\",\"scheme\":\"http\",\"host\":\"b.test\",\
             \"path\":\"{path}\",\"status\":200,\"cache\":\"{cache}\",\"reason\":null,\"collapsed\":false,\"dur_ms\":1.0,\
             \"bytes_out\":9,\"end\":\"complete\",\"length\":9,\"age_s\":{age},\"request\":{{}},\
             \"response\":{{\"cache-control\":\"max-age=60\"}}}}\n"
        )
    };
    let log = [
        line(0, "/old", "hit", "50"),
        line(9, "/old", "hit", "59"),
        line(20, "/old", "miss", "null"),
        line(21, "/new", "miss", "null"),
        line(22, "/new", "hit", "1"),
    ]
    .concat();
    let told = forecast(&log, PLAIN);
    assert_eq!(told["seeded"], 1);
    assert_eq!(
        (&told["all"]["now"]["cached"], &told["all"]["then"]["cached"]),
        (&3.into(), &3.into()),
        "{told:#}"
    );
}
