//! The demo as a newcomer meets it: the banner, what it says to try, and the end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::net::{SocketAddr, TcpListener};

use serde_json::{Value, json};

use support::process::{address_after, larder, run_to_end};
use support::{Connection, PATIENCE, Process, RedisServer, Response, client, get, unused_address, within};

/// A running demo, and what its banner says.
struct Demo {
    process: Process,
    proxy: SocketAddr,
    admin: SocketAddr,
    api: SocketAddr,
    /// Position on stdout behind the banner.
    behind_banner: usize,
}

impl Demo {
    fn start(args: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", "127.0.0.1:0", args)
    }

    fn start_at(listen: &str, admin: &str, args: &[&str]) -> Self {
        let mut command = larder();
        command.args(["demo", "--listen", listen, "--admin", admin]).args(args);
        let process = Process::spawn(command);
        let is_last = |line: &str| line.contains("Ctrl-C");
        let (_, behind_banner) = process.out.next_line(0, is_last, PATIENCE);
        let said = process.out.all();
        let named = |name: &str| {
            let place = said.iter().find(|line| line.trim_start().starts_with(name)).unwrap();
            address_after(place, "http://").unwrap()
        };
        let (proxy, admin, api) = (named("proxy"), named("admin"), named("api"));
        Self { process, proxy, admin, api, behind_banner }
    }

    fn banner(&self) -> String {
        self.process.out.all()[..self.behind_banner].join("\n")
    }

    fn get(&self, path: &str) -> Response {
        get(self.proxy, path, &[])
    }

    fn post(&self, path: &str, body: &Value) -> Response {
        let json = [("Content-Type", "application/json")];
        client::request(self.proxy, "POST", path, &json, body.to_string().as_bytes())
    }
}

/// `Server-Timing`'s milliseconds of a metric.
fn server_timing(response: &Response, metric: &str) -> Option<f64> {
    let start = format!("{metric};dur=");
    response.header("server-timing").split(", ").find_map(|entry| entry.strip_prefix(&start)?.parse().ok())
}

#[test]
fn the_curl_line_of_the_banner_is_a_miss_and_then_a_hit() {
    let demo = Demo::start(&[]);
    let url = format!("http://{}/users/1", demo.proxy);
    assert!(demo.banner().contains(&format!("curl -si {url}\n")), "{}", demo.banner());

    let first = demo.get("/users/1");
    assert_eq!((first.status, first.header("x-cache")), (200, "MISS"));
    assert!(first.header("cache-status").starts_with("larder; fwd=uri-miss; stored; ttl="), "{first:?}");
    // The API takes 100 ms for it.
    let took: f64 = first.header("x-process-time").parse().unwrap();
    assert!(took >= 0.1, "{took}");
    assert!(server_timing(&first, "origin") >= Some(99.0), "{:?}", first.headers);

    let second = demo.get("/users/1");
    assert_eq!((second.status, second.header("x-cache")), (200, "HIT"));
    let status = second.header("cache-status");
    assert!(status.starts_with("larder; hit; ttl=") && status.ends_with("; detail=memory"), "{status}");
    assert!(second.header("age").parse::<u64>().is_ok(), "{:?}", second.headers);
    let took: f64 = second.header("x-process-time").parse().unwrap();
    assert!(took < 0.1, "{took}: a hit does not wait for the API");
    assert!(server_timing(&second, "memory").is_some(), "{:?}", second.headers);
    assert_eq!(server_timing(&second, "origin"), None, "{:?}", second.headers);
    for response in [&first, &second] {
        let decimals = response.header("x-process-time").split_once('.').unwrap().1.len();
        assert_eq!(decimals, 6, "{:?}", response.headers);
    }
    assert_eq!(first.json(), second.json());
    let user = first.json();
    assert!(
        ["name", "email", "created_at"].iter().all(|key| user[key].is_string()) && user["id"] == 1,
        "{user}"
    );
}

#[test]
fn each_request_is_a_line_on_stdout() {
    let demo = Demo::start(&[]);
    let rows = [("/users/1", "200", "MISS"), ("/users/1", "200", "HIT memory"), ("/nothing", "404", "MISS")];
    let mut from = demo.behind_banner;
    for (path, status, words) in rows {
        demo.get(path);
        let (line, next) = demo.process.out.next_line(from, |line| !line.trim().is_empty(), PATIENCE);
        from = next;
        for expected in ["GET", path, status, words, " ms"] {
            assert!(line.contains(expected), "{expected:?} is not in {line:?}");
        }
    }
}

#[test]
fn the_banner_says_where_everything_is_and_each_place_answers() {
    let demo = Demo::start(&[]);
    let banner = demo.banner();
    assert!(banner.contains("not configured: memory tier only"), "{banner}");
    assert!(!banner.contains('\u{1b}'), "no terminal, no colours: {banner}");
    assert_eq!(get(demo.api, "/users/1", &[]).json()["id"], 1);
    assert_eq!(get(demo.api, "/users/1", &[]).header("x-cache"), "");
    assert!(get(demo.admin, "/stats", &[]).json()["routes"]["user"].is_object());
    assert!(get(demo.admin, "/metrics", &[]).text().contains("larder_requests_total"));
    // Every path that it proposes to curl is one that the API has.
    for path in ["/slow?ms=1500", "/flaky", "/users/me"] {
        assert!(banner.contains(path), "{path} is not in {banner}");
        assert_ne!(demo.get(path).status, 404, "{path}");
    }
}

#[test]
fn busy_ports_are_replaced_and_that_is_said() {
    let [first, second] = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let [listen, admin] = [&first, &second].map(|taken| taken.local_addr().unwrap());
    let demo = Demo::start_at(&listen.to_string(), &admin.to_string(), &[]);
    for (port, now) in [(listen.port(), demo.proxy), (admin.port(), demo.admin)] {
        assert_ne!(now.port(), port);
        assert!(demo.banner().contains(&format!("(port {port} is busy)")), "{}", demo.banner());
    }
    assert_eq!(demo.get("/users/1").status, 200);
    assert_eq!(get(demo.admin, "/livez", &[]).status, 200);
}

#[test]
fn two_demos_run_side_by_side_each_with_an_api_of_its_own() {
    let (one, two) = (Demo::start(&[]), Demo::start(&[]));
    assert_ne!(one.api, two.api);
    let created = one.post("/users", &json!({ "name": "Ada", "email": "ada@example.test" }));
    let path = created.header("location");
    assert_eq!((one.get(path).status, two.get(path).status), (200, 404), "{path}");
}

#[test]
fn a_list_is_cached_by_its_query() {
    let demo = Demo::start(&[]);
    for (limit, count) in [(3, 3), (5, 5)] {
        let path = format!("/users?limit={limit}");
        let list = demo.get(&path);
        assert_eq!((list.status, list.header("x-cache")), (200, "MISS"), "{path}");
        assert_eq!(list.json()["count"], count);
        assert_eq!(list.json()["users"].as_array().unwrap().len(), count);
    }
    assert_eq!(demo.get("/users?limit=x").status, 400);
}

#[test]
fn a_created_user_is_there_and_voids_what_was_cached_of_the_list() {
    let demo = Demo::start(&[]);
    let before = demo.get("/users");
    assert_eq!(before.header("x-cache"), "MISS");
    let created = demo.post("/users", &json!({ "name": "Ada", "email": "ada@example.test" }));
    assert_eq!((created.status, created.header("x-cache")), (201, "BYPASS"), "{}", created.text());
    assert_eq!(created.header("cache-status"), "larder; fwd=method");
    let (location, user) = (created.header("location").to_owned(), created.json());
    assert_eq!(
        (user["name"].as_str(), location.as_str()),
        (Some("Ada"), format!("/users/{}", user["id"]).as_str())
    );
    // Fetched anew, within the five seconds that the list may otherwise be kept.
    assert_eq!(demo.get("/users").header("x-cache"), "MISS");
    let found = demo.get(&location);
    assert_eq!((found.status, found.json()), (200, user));
    assert_eq!(demo.post("/users", &json!({ "name": "No Address" })).status, 422);
}

#[test]
fn a_404_that_was_cached_is_voided_by_the_creation_of_what_was_not_there() {
    let demo = Demo::start(&[]);
    let created = demo.post("/users", &json!({ "name": "Ada", "email": "ada@example.test" }));
    let next = created.json()["id"].as_u64().unwrap() + 1;
    let path = format!("/users/{next}");
    assert_eq!(demo.get(&path).status, 404);
    let created = demo.post("/users", &json!({ "name": "Bob", "email": "bob@example.test" }));
    assert_eq!(created.header("location"), path);
    // RFC 9111 §4.4: Location names what a write has changed.
    assert_eq!(demo.get(&path).status, 200);
}

#[test]
fn a_batch_says_of_each_user_what_became_of_it() {
    let demo = Demo::start(&[]);
    let batch = json!([
        { "name": "Ada", "email": "ada@batch.test" },
        { "name": "", "email": "nobody@batch.test" },
        { "name": "Ada Again", "email": "ada@batch.test" },
        { "name": "Bob", "email": "bob@batch.test" },
    ]);
    let answer = demo.post("/users/batch-create", &batch);
    assert_eq!((answer.status, answer.header("x-cache")), (200, "BYPASS"));
    let said = answer.json();
    assert_eq!((&said["total"], &said["success_count"]), (&json!(4), &json!(2)), "{said}");
    assert_eq!(said["successful"].as_array().unwrap().len(), 2, "{said}");
    let indices: Vec<&Value> =
        said["errors"].as_array().unwrap().iter().map(|error| &error["index"]).collect();
    assert_eq!(indices, [1, 2], "{said}");
    let id = &said["successful"][1]["id"];
    assert_eq!(demo.get(&format!("/users/{id}")).json()["name"], "Bob");
}

#[test]
fn an_api_that_fails_every_third_time_never_shows_it_once_something_is_stored() {
    let demo = Demo::start(&[]);
    let mut seen = Vec::new();
    let stale = within(PATIENCE, || {
        let response = demo.get("/flaky");
        assert_eq!(response.status, 200, "after {seen:?}");
        seen.push(response.header("cache-status").to_owned());
        // As the banner says, to whoever looks at X-Cache.
        let is_stale = seen.last().unwrap().contains("fwd-status=503");
        assert_eq!(is_stale, response.header("x-cache") == "STALE", "{seen:?}");
        is_stale
    });
    assert!(stale, "{seen:?}");
    assert!(demo.banner().contains("repeat it, and see MISS, HIT, and STALE in place"), "{}", demo.banner());
    assert_eq!(seen[0], "larder; fwd=uri-miss; stored; ttl=0");
    let last = seen.last().unwrap();
    let told = last.strip_prefix("larder; fwd=stale; fwd-status=503; ttl=");
    let ttl = told.and_then(|told| told.strip_suffix("; detail=stale-if-error"));
    // 0 where it was asked for in the very millisecond in which its lifetime ended.
    assert!(ttl.is_some_and(|ttl| ttl.parse::<i64>().unwrap() <= 0), "{last}");
}

#[test]
fn every_third_request_that_reaches_the_flaky_resource_fails_and_a_hit_is_none() {
    let demo = Demo::start(&[]);
    let asked = || get(demo.api, "/flaky", &[]);
    assert_eq!([asked(), asked(), asked(), asked()].map(|answer| answer.status), [200, 200, 503, 200]);
    assert!(demo.banner().contains("every third time that it is asked"), "{}", demo.banner());
    // The fifth; the sixth goes by the API alone, whatever Larder has answered in between.
    assert_eq!(demo.get("/flaky").json()["attempt"], 5);
    assert_eq!(asked().json()["error"], "this fails every third time that it is asked");
}

#[test]
fn what_is_private_is_never_stored() {
    let demo = Demo::start(&[]);
    for _ in 0..2 {
        let response = demo.get("/users/me");
        assert_eq!((response.status, response.header("x-cache")), (200, "MISS"));
        assert!(response.header("cache-status").ends_with("detail=private"), "{:?}", response.headers);
    }
}

#[test]
fn a_slow_request_makes_one_event_with_its_phases() {
    let demo = Demo::start(&[]);
    assert_eq!(demo.get("/slow?ms=1500").json()["slept_ms"], 1500);
    let line = demo.process.err.wait_for_line(|line| line.contains("slow request"), PATIENCE);
    for expected in
        ["larder::slow", "/slow?ms=1500", "first_byte_ms", "queue_ms", "body_ms", "total_ms", "uri-miss"]
    {
        assert!(line.contains(expected), "{expected} is not in {line}");
    }
    assert_eq!(demo.get("/slow?ms=1500").header("x-cache"), "HIT");
    assert_eq!(get(demo.admin, "/stats", &[]).json()["slow"], 1);
    assert_eq!(demo.process.err.position(), 1, "{}", demo.process.err.whole());
}

/// Whoever has the demo before them may not have installed anything.
#[test]
fn the_command_that_is_printed_for_top_works_as_it_is_pasted() {
    let demo = Demo::start(&[]);
    let banner = demo.banner();
    let line = banner.lines().find(|line| line.contains(" top --admin")).unwrap().trim();
    let elsewhere = tempfile::tempdir().unwrap();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &format!("{line} --once")]).current_dir(elsewhere.path());
    let mut top = Process::spawn(shell);
    assert_eq!(top.wait_exit(PATIENCE), Some(0), "{line}: {}", top.err.whole());
}

#[test]
fn ctrl_c_is_answered_at_once_and_what_is_in_flight_is_finished() {
    let mut demo = Demo::start(&[]);
    // Half a content: the request is in flight until the rest of it comes.
    let content = json!({ "name": "Ada", "email": "ada@late.test" }).to_string();
    let (first, rest) = content.split_at(10);
    let mut client = Connection::open(demo.proxy);
    let length = content.len();
    client.write(format!(
        "POST /users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{first}"
    ).as_bytes());
    assert!(within(PATIENCE, || get(demo.admin, "/stats", &[]).json()["active"] == 1));
    demo.process.signal("INT");
    let line = demo.process.out.wait_for_line(|line| line.contains("Stopping"), PATIENCE);
    assert!(line.contains("finishing requests in flight, 30 s at most"), "{line}");
    client.write(rest.as_bytes());
    assert_eq!(client.response("POST").status, 201);
    assert_eq!(demo.process.wait_exit(PATIENCE), Some(0));
}

#[test]
fn a_second_ctrl_c_says_that_what_is_in_flight_is_cut_off() {
    let mut demo = Demo::start(&[]);
    let mut client = Connection::open(demo.proxy);
    client.write_head("GET", "/slow?ms=30000", &[]);
    assert!(within(PATIENCE, || get(demo.admin, "/stats", &[]).json()["active"] == 1));
    demo.process.signal("INT");
    demo.process.out.wait_for_line(|line| line.contains("Ctrl-C again"), PATIENCE);
    demo.process.signal("INT");
    assert_eq!(demo.process.wait_exit(PATIENCE), Some(1));
    let line = demo.process.err.wait_for_line(|line| line.contains("a second time"), PATIENCE);
    assert!(line.ends_with("ending at once, what is in flight is cut off"), "{line}");
}

#[test]
fn ctrl_c_and_sigterm_end_it_cleanly() {
    for signal in ["INT", "TERM"] {
        let mut demo = Demo::start(&[]);
        demo.get("/users/1");
        demo.process.signal(signal);
        assert_eq!(demo.process.wait_exit(PATIENCE), Some(0), "{signal}");
        // The line of the last request is out, and nothing was complained about.
        assert!(demo.process.out.whole().contains("/users/1  "), "{}", demo.process.out.whole());
        assert_eq!(demo.process.err.whole(), "", "{signal}");
    }
}

/// The lines of the shipped file that are otherwise in what is printed.
fn printed(args: &[&str]) -> Vec<(String, String)> {
    let folder = tempfile::tempdir().unwrap();
    let printed = run_to_end(&[&["demo", "--print-config"], args].concat(), folder.path());
    assert_eq!((printed.code, printed.err.as_str()), (Some(0), ""));
    let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/proxy.toml")).unwrap();
    // Larder explains routes by the lines of what is printed.
    assert_eq!(printed.out.lines().count(), shipped.trim_end().lines().count());
    let lines = shipped.lines().zip(printed.out.lines());
    let otherwise = lines.filter(|(shipped, printed)| shipped != printed);
    otherwise.map(|(shipped, printed)| (shipped.to_owned(), printed.to_owned())).collect()
}

#[test]
fn print_config_is_the_shipped_file_but_for_what_the_demo_does_otherwise() {
    let settings = |args: &[&str]| -> Vec<String> {
        let lines = printed(args).into_iter().map(|(_, printed)| printed);
        lines.map(|line| line.split_once(" # ").unwrap().0.trim_end().to_owned()).collect()
    };
    let own = ["level = \"warn\"", "format = \"text\"", "access = \"text\"", "lame_duck = \"0s\""];
    assert_eq!(settings(&[]), own);
    let args = ["--listen", "127.0.0.1:81", "--admin", "[::1]:82", "--redis", "redis://db"];
    let [level, format, access, lame_duck] = own;
    assert_eq!(
        settings(&args),
        [
            "listen = \"127.0.0.1:81\"",
            "admin = \"[::1]:82\"",
            level,
            format,
            access,
            "redis = \"redis://db\"",
            lame_duck
        ]
    );
    for (shipped, printed) in printed(&args) {
        let reason = shipped.split_once("  # ").unwrap().1;
        assert!(printed.contains(" # (by default ") && printed.ends_with(reason), "{printed}");
    }
    // The demo takes it as it is, so the file must not have the environment's in its place.
    let args = ["--redis", "redis://u:${HOME}$${X}@h"];
    assert!(settings(&args).contains(&"redis = \"redis://u:$${HOME}$$${X}@h\"".to_owned()));
}

#[test]
fn what_is_printed_and_what_runs_refuse_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (one, all) = ("127.0.0.1:18080", "0.0.0.0:18080");
    for (args, says) in [
        (["--listen", one, "--admin", one], "error: --admin 127.0.0.1:18080: the public listener has this"),
        (["--listen", all, "--admin", one], "error: --admin 127.0.0.1:18080: the public listener has this"),
        (["--listen", one, "--redis", "redis://u:hunter2@db/x"], "error: --redis: "),
    ] {
        let runs = run_to_end(&[&["demo"], &args[..]].concat(), folder.path());
        let printed = run_to_end(&[&["demo", "--print-config"], &args[..]].concat(), folder.path());
        assert_eq!((runs.code, &runs.err), (Some(2), &printed.err), "{printed:?}");
        assert!(printed.code == Some(2) && printed.out.is_empty(), "{printed:?}");
        assert!(runs.err.starts_with(says) && !runs.err.contains("hunter2"), "{runs:?}");
    }
}

#[test]
fn a_redis_that_is_there_is_found_and_shared() {
    let redis = RedisServer::start();
    let url = redis.url();
    let host = [("Host", "demo.test")];
    let mut one = Demo::start(&["--redis", &url]);
    let found = format!("found at {url}: both tiers are in use");
    assert!(one.banner().contains(&found), "{}", one.banner());
    assert_eq!(get(one.proxy, "/users/1", &host).header("x-cache"), "MISS");
    one.process.signal("INT");
    assert_eq!(one.process.wait_exit(PATIENCE), Some(0));

    let two = Demo::start(&["--redis", &url]);
    // The demo gives Redis 20 ms; on a busy machine that may be missed once, and then it is a miss.
    let hit = get(two.proxy, "/users/1", &host);
    let late = get(two.admin, "/stats", &[]).json()["tiers"]["redis"]["deadline_exceeded"] != 0;
    assert!(late || hit.header("cache-status").ends_with("detail=redis"), "{:?}", hit.headers);
}

#[test]
fn a_redis_that_is_not_there_is_said_and_is_no_failure() {
    let nobody = unused_address();
    let url = format!("redis://user:secret@{nobody}");
    let demo = Demo::start(&["--redis", &url]);
    let banner = demo.banner();
    let said = banner.lines().find(|line| line.contains("none to be used at redis://")).unwrap_or_default();
    assert!(said.contains(&nobody.to_string()) && said.contains("memory tier only"), "{banner}");
    assert!(!banner.contains("secret"), "{banner}");
    assert_eq!(
        [demo.get("/users/1"), demo.get("/users/1")].map(|r| r.header("x-cache").to_owned()),
        ["MISS", "HIT"]
    );
}

#[test]
fn a_redis_url_that_is_none_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for url in ["127.0.0.1:6379", "http://127.0.0.1:6379", "redis://"] {
        let args = ["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--redis", url];
        let finished = run_to_end(&args, folder.path());
        assert_eq!(finished.code, Some(2), "{url}: {}", finished.err);
    }
}

#[test]
fn an_admin_address_that_others_reach_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let finished = run_to_end(&["demo", "--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0"], folder.path());
    assert_eq!(finished.code, Some(2), "{}", finished.err);
    assert!(finished.err.contains("token"), "{}", finished.err);
}
