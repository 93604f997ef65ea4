//! The command line as a user meets it: what is printed, where, and with which exit code.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;

use support::process::{Finished, larder, run_to_end};
use support::{
    Connection, Larder, Mode, Origin, PATIENCE, Process, Relay, client, get, unused_address, within,
};

fn in_empty(args: &[&str]) -> Finished {
    run_to_end(args, tempfile::tempdir().unwrap().path())
}

fn in_folder_with(name: &str, text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(name), text).unwrap();
    folder
}

/// A good file; `upstream` is where it leads.
fn good(upstream: &str) -> String {
    format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n\n[upstream.api]\nservers = [\"{upstream}\"]\n\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"api\"\n\n\
         [route.cache]\nttl.default = \"60s\"\n"
    )
}

/// Checks a text as a file; gives what is said.
fn check(text: &str) -> Finished {
    let folder = in_folder_with("proxy.toml", text);
    run_to_end(&["check", "-c", "proxy.toml"], folder.path())
}

/// The lines that say where problems are, such as `--> proxy.toml:3:1`.
fn places(finished: &Finished) -> Vec<&str> {
    finished.err.lines().filter_map(|line| line.trim_start().strip_prefix("--> ")).collect()
}

#[test]
fn check_shows_each_of_five_mistakes_in_its_place_and_exits_with_78() {
    let finished = check(
        r#"listen = "127.0.0.1:8080"
wrokers = 2

[cache]
redis_deadline = "20"

[upstream.api]
servers = ["http://127.0.0.1:3000"]

[[route]]
name = "users"
match = { path = "/users/*" }
upstream = "apo"

[route.cache]
ttl = "60s"

[[route]]
name = "everything"
match = { path = "/*" }
upstream = "api"

[[route]]
name = "never"
match = { path = "/late" }
upstream = "api"
"#,
    );
    assert_eq!(finished.code, Some(78), "{}", finished.err);
    let lines: Vec<&str> = places(&finished).iter().map(|place| place.rsplit_once(':').unwrap().0).collect();
    assert_eq!(
        lines,
        ["proxy.toml:2", "proxy.toml:5", "proxy.toml:13", "proxy.toml:16", "proxy.toml:25"],
        "{}",
        finished.err
    );
    // Each shows its line with carets below, and the likely mistypings what was meant.
    for expected in
        ["wrokers = 2", "^^^^^^^", "workers", "\"20\"", "\"apo\"", "api", "ttl = \"60s\"", "/late"]
    {
        assert!(finished.err.contains(expected), "{expected:?} is not in\n{}", finished.err);
    }
    assert!(finished.out.is_empty(), "{}", finished.out);
}

#[test]
fn a_bare_ttl_is_offered_the_three_names() {
    let finished = check(&good("http://127.0.0.1:3000").replace("ttl.default", "ttl"));
    assert_eq!(finished.code, Some(78));
    assert_eq!(places(&finished), ["proxy.toml:13:7"], "{}", finished.err);
    for name in ["ttl.default", "ttl.override", "ttl.max"] {
        assert!(finished.err.contains(name), "{name} is not in\n{}", finished.err);
    }
}

#[test]
fn each_mistake_is_placed_and_refused() {
    let base = good("http://127.0.0.1:3000");
    let rows = [
        // What is broken off, or no TOML at all.
        (base.replace("[upstream.api]", "[upstream.api"), 4),
        // A duration and a size without a unit, and of the wrong type.
        (base.replace("\"60s\"", "\"60\""), 13),
        (base.replace("\"60s\"", "60"), 13),
        (base.replace("[upstream.api]", "[cache]\nmemory = \"10\"\n[upstream.api]"), 5),
        // Duplicate and unknown keys.
        (base.replace("name = \"all\"", "name = \"all\"\nname = \"b\""), 9),
        (base.replace("name = \"all\"", "nmae = \"all\""), 8),
        // An upstream that is no plain HTTP.
        (base.replace("http://127.0.0.1:3000", "https://127.0.0.1:3000"), 5),
        // A variable that is not set.
        (base.replace("127.0.0.1:3000", "${LARDER_TEST_UNSET}"), 5),
        // A path that does not begin with a slash.
        (base.replace("\"/*\"", "\"users\""), 9),
    ];
    for (text, line) in rows {
        let finished = check(&text);
        assert_eq!(finished.code, Some(78), "{text}\n{}", finished.err);
        let place = format!("proxy.toml:{line}:");
        assert!(places(&finished).iter().any(|at| at.starts_with(&place)), "{place}\n{}", finished.err);
    }
}

#[test]
fn check_of_a_good_file_says_so_and_exits_with_0() {
    let finished = check(&good("http://127.0.0.1:3000"));
    assert_eq!((finished.code, finished.err.as_str()), (Some(0), ""));
    assert_eq!(finished.out, "proxy.toml: good (1 route, 1 upstream)");
}

#[test]
fn check_takes_a_file_without_its_option_and_shows_warnings_without_failing() {
    let text = good("http://127.0.0.1:3000").replace("listen = ", "trusted_proxies = [\"::/0\"]\nlisten = ");
    let folder = in_folder_with("mine.toml", &text);
    for args in [&["check", "mine.toml"][..], &["check", "-c", "mine.toml"]] {
        let finished = run_to_end(args, folder.path());
        assert_eq!(finished.code, Some(0), "{}", finished.err);
        assert_eq!(finished.out, "mine.toml: good (1 route, 1 upstream)");
        assert_eq!(places(&finished), ["mine.toml:1:20"], "{}", finished.err);
        for said in ["warning: anyone may claim any address", "^^^^^^", "1 warning in mine.toml"] {
            assert!(finished.err.contains(said), "{said:?} is not in\n{}", finished.err);
        }
    }
}

#[test]
fn check_fails_by_warnings_where_they_are_denied_and_only_there() {
    let good = good("http://127.0.0.1:3000");
    let shared = good.clone() + "authorization = \"share\"\n";
    let folder = in_folder_with("proxy.toml", &shared);
    let denied = run_to_end(&["check", "--deny", "warnings"], folder.path());
    assert_eq!((denied.code, denied.out.as_str()), (Some(78), ""), "{}", denied.err);
    for said in ["warning: what one user's credentials", "^^^^^^^", "error: warnings are denied"] {
        assert!(denied.err.contains(said), "{said:?} is not in\n{}", denied.err);
    }
    assert_eq!(run_to_end(&["check"], folder.path()).code, Some(0));
    // By its name, one is let pass, and another is not.
    let allowed = |name: &str| run_to_end(&["check", "--deny", "warnings", "--allow", name], folder.path());
    let passed = allowed("shared-credentials");
    assert_eq!((passed.code, passed.err.as_str()), (Some(0), ""));
    assert_eq!(allowed("kept-cookies").code, Some(78));
    assert_eq!(allowed("share").code, Some(2));
    fs::write(folder.path().join("proxy.toml"), good).unwrap();
    let finished = run_to_end(&["check", "proxy.toml", "--deny", "warnings"], folder.path());
    assert_eq!((finished.code, finished.err.as_str()), (Some(0), ""));
}

#[test]
fn a_key_that_is_written_twice_is_shown_in_both_places() {
    let text =
        good("http://127.0.0.1:3000").replace("name = \"all\"", "name = \"all\"\n# …\n# …\nname = \"b\"");
    let finished = check(&text);
    assert_eq!((finished.code, places(&finished)), (Some(78), vec!["proxy.toml:11:1"]), "{}", finished.err);
    for shown in [" 8 | name = \"all\"\n   | ---- the first", "11 | name = \"b\"\n   | ^^^^ leave one out"] {
        assert!(finished.err.contains(shown), "{shown:?} is not in\n{}", finished.err);
    }
}

#[test]
fn no_secret_of_a_file_reaches_the_terminal() {
    let text = good("http://127.0.0.1:3000")
        .replace("[upstream.api]", "[cache]\nredis = \"rediss://me:hunter2@db/x\"\n[upstream.api]");
    let on_the_next_line = format!("admin_token =\n  \"hunter2\" x\n{text}");
    let broken = format!("admin_token = \"hunter2\nredis = 1\n{text}");
    for text in [text.clone(), broken, on_the_next_line] {
        for command in ["check", "run"] {
            let folder = in_folder_with("proxy.toml", &text);
            let finished = run_to_end(&[command], folder.path());
            assert_eq!(finished.code, Some(78), "{}", finished.err);
            assert!(!finished.err.contains("hunter2") && finished.err.contains('^'), "{}", finished.err);
        }
    }
}

#[test]
fn the_shipped_file_is_good() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let finished = run_to_end(&["check"], root);
    assert_eq!((finished.code, finished.err.as_str()), (Some(0), ""));
}

#[test]
fn run_with_a_bad_file_serves_nothing_and_exits_with_78() {
    let folder = in_folder_with("proxy.toml", "listen = 1\n");
    let finished = run_to_end(&["run"], folder.path());
    assert_eq!(finished.code, Some(78));
    assert!(finished.err.contains("--> proxy.toml:1:10"), "{}", finished.err);
}

#[test]
fn the_one_line_form_prints_a_file_that_check_accepts_and_that_works() {
    let origin = Origin::ok("from the origin", &[]);
    let url = origin.url();
    let args = [
        "run",
        "--to",
        &url,
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--ttl",
        "60s",
        "--print-config",
    ];
    let printed = in_empty(&args);
    assert_eq!((printed.code, printed.err.as_str()), (Some(0), ""));
    let checked = check(&printed.out);
    assert_eq!(checked.code, Some(0), "{}", checked.err);

    let by_file = Larder::start(&printed.out);
    let by_arguments = Larder::start_with(&args[..args.len() - 1], true);
    for larder in [&by_file, &by_arguments] {
        for expected in ["MISS", "HIT"] {
            let response = larder.get("/a", &[]);
            assert_eq!((response.status, response.header("x-cache")), (200, expected));
            assert_eq!(response.text(), "from the origin");
        }
    }
    assert_eq!(origin.count("/a"), 2);
}

#[test]
fn the_one_line_form_with_everything_prints_what_check_accepts() {
    let printed = in_empty(&[
        "run",
        "--to",
        "http://localhost:3000/",
        "--redis",
        "redis://user:p%40ss@127.0.0.1:6379/2",
        "--ttl",
        "5m",
        "--print-config",
    ]);
    let checked = check(&printed.out);
    assert_eq!(checked.code, Some(0), "{}\n{}", printed.out, checked.err);
    assert!(printed.out.contains("redis://user:p%40ss@127.0.0.1:6379/2"), "{}", printed.out);
}

#[test]
fn an_open_admin_address_without_a_file_is_refused_and_the_file_that_is_advised_works() {
    let args = ["run", "--to", "http://127.0.0.1:3000", "--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0"];
    let refused = in_empty(&args);
    assert_eq!(refused.code, Some(78), "{}", refused.err);
    assert!(
        refused.err.contains("and that takes a file") && refused.err.contains("LARDER_TOKEN"),
        "{}",
        refused.err
    );
    let printed = in_empty(&[&args[..], &["--print-config"]].concat());
    let unset = check(&printed.out);
    assert!(unset.code == Some(78) && unset.err.contains("set LARDER_TOKEN"), "{}", unset.err);
    let checked = check(&printed.out.replace("${LARDER_TOKEN}", &"5a".repeat(32)));
    assert_eq!(checked.code, Some(0), "{}", checked.err);
}

#[test]
fn without_a_ttl_the_one_line_form_caches_what_the_origin_says_and_no_more() {
    let origin = Origin::start(|request| match request.target.as_str() {
        "/said" => support::Script::ok("x", &[("Cache-Control", "max-age=60")]),
        _ => support::Script::ok("x", &[]),
    });
    let url = origin.url();
    let args = ["run", "--to", &url, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let larder = Larder::start_with(&args, true);
    for (path, second) in [("/said", "HIT"), ("/silent", "MISS")] {
        assert_eq!(larder.get(path, &[]).header("x-cache"), "MISS");
        assert_eq!(larder.get(path, &[]).header("x-cache"), second, "{path}");
    }
}

#[test]
fn a_larder_without_a_file_is_asked_by_its_admin_address() {
    let origin = Origin::ok("x", &[]);
    let url = origin.url();
    let args = ["run", "--to", &url, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ttl", "60s"];
    let larder = Larder::start_with(&args, true);
    assert_eq!(larder.get("/a", &[]).status, 200);
    let (admin, host) = (larder.admin().to_string(), format!("Host: {}", larder.proxy()));
    let folder = tempfile::tempdir().unwrap();
    let ask = |args: &[&str]| run_to_end(&[args, &["--admin", &admin]].concat(), folder.path());
    for (args, words) in [
        (&["status"][..], "ready, up "),
        (&["top", "--once"], ", in the last second; "),
        (&["slow"], "(no request has been slow so far)"),
        (&["explain", "/a", "-H", &host], "verdict    HIT"),
        (
            &["explain", "/a", "-H", &host],
            "route      all  (line 8 of what `--print-config` prints, upstream api)",
        ),
        (&["purge", "--all"], "purged: everything"),
    ] {
        let told = ask(args);
        assert_eq!((told.code, told.err.as_str()), (Some(0), ""), "{args:?}");
        assert!(told.out.contains(words), "{args:?}: {}", told.out);
    }
    let told = ask(&["reload"]);
    assert_eq!(told.code, Some(78), "{}", told.err);
    assert!(told.err.contains("started without a file"), "{}", told.err);
    // Whoever has no file is told of it.
    for command in ["status", "top", "slow", "reload", "explain /", "purge --all"] {
        let told = run_to_end(&command.split(' ').collect::<Vec<_>>(), folder.path());
        // Somebody's machine may have the second place; then this says nothing.
        if !Path::new("/etc/larder/proxy.toml").exists() {
            assert_eq!(told.code, Some(78), "{command}");
            assert!(told.err.contains("by its admin address: --admin 127.0.0.1:9900"), "{}", told.err);
            assert!(!told.err.contains("larder run"), "{}", told.err);
        }
    }
    drop(larder);
    let told = ask(&["status"]);
    assert_eq!(told.code, Some(69));
    assert!(told.err.starts_with(&format!("error: no Larder answers at {admin}: ")), "{}", told.err);
}

#[test]
fn beside_an_admin_address_the_token_is_of_a_named_file_or_of_the_environment_and_of_no_other() {
    let text = format!("admin_token = \"s3cret-of-some-length\"\n{}", good("http://127.0.0.1:3000"));
    let larder = Larder::start(&text);
    let admin = larder.admin().to_string();
    // All else in it may be wrong.
    let folder = in_folder_with("proxy.toml", "admin_token = \"s3cret-of-some-length\"\nwrokers = 2\n");
    let ask = |args: &[&str], token: &str| {
        let mut command = support::process::larder();
        command.args(["status", "--admin", &admin]).args(args).current_dir(folder.path());
        command.env("LARDER_CONFIG", "proxy.toml").env("LARDER_ADMIN_TOKEN", token);
        let mut process = Process::spawn(command);
        let code = process.wait_exit(PATIENCE);
        (code, process.out.whole() + &process.err.whole())
    };
    let (code, said) = ask(&[], "");
    assert!(code == Some(77) && said.contains("wants its admin_token: set LARDER_ADMIN_TOKEN"), "{said}");
    let (code, said) = ask(&[], "another");
    assert!(code == Some(77) && said.contains("another admin_token than LARDER_ADMIN_TOKEN"), "{said}");
    assert_eq!(ask(&[], "s3cret-of-some-length").0, Some(0));
    assert_eq!(ask(&["-c", "proxy.toml"], "another").0, Some(0), "the nearer one counts");
    fs::write(folder.path().join("other.toml"), "admin_token = \"other\"\n").unwrap();
    let (code, said) = ask(&["-c", "other.toml"], "");
    assert!(code == Some(77) && said.contains("another admin_token than other.toml"), "{said}");
    assert!(!said.contains("s3cret"), "{said}");
}

#[test]
fn a_file_that_is_wrong_leads_to_no_larder_and_says_where_it_is() {
    let larder = Larder::start(&good("http://127.0.0.1:3000"));
    let admin = larder.admin().to_string();
    let right =
        good("http://127.0.0.1:3000").replace("admin = \"127.0.0.1:0\"", &format!("admin = \"{admin}\""));
    let folder = in_folder_with("right.toml", &format!("trusted_proxies = [\"::/0\"]\n{right}"));
    let warned = run_to_end(&["status", "right.toml"], folder.path());
    assert_eq!((warned.code, warned.err.as_str()), (Some(0), ""), "a warning is no error");
    fs::write(folder.path().join("proxy.toml"), right.replace("ttl.default", "ttl.defualt")).unwrap();
    // What would be read as the default address.
    fs::write(folder.path().join("slip.toml"), right.replace("admin =", "admn =")).unwrap();
    fs::write(folder.path().join("broken.toml"), right.replace("[upstream.api]", "[upstream.api")).unwrap();
    for args in [&["status"][..], &["top", "--once"], &["slow"], &["purge", "--all"], &["explain", "/"]] {
        for (file, place) in [("proxy", "13"), ("slip", "2"), ("broken", "4")] {
            let file = format!("{file}.toml");
            let mut command = support::process::larder();
            command.current_dir(folder.path());
            command.args(args).env("LARDER_CONFIG", &file);
            let mut process = Process::spawn(command);
            assert_eq!(process.wait_exit(PATIENCE), Some(78), "{args:?} {file}: {}", process.err.whole());
            let said = process.err.whole();
            let place = format!("--> {file}:{place}:");
            for words in [place.as_str(), " ^", "1 problem in", "\nerror: nobody was asked; ", "--admin ADDR"]
            {
                assert!(said.contains(words), "{args:?}: {words:?} is not in {said}");
            }
            assert!(said.starts_with("error: ") && !said.contains("error: error: "), "{said}");
        }
        let asked = run_to_end(&[args, &["--admin", &admin]].concat(), folder.path());
        assert_eq!(asked.code, Some(0), "{args:?}: {}", asked.err);
    }
    // One that is judged by is read with all that it names, and the running Larder has its say of its own.
    for args in [&["explain", "-c", "broken.toml", "/"][..], &["reload", "broken.toml"]] {
        let said = run_to_end(args, folder.path());
        assert_eq!(said.code, Some(78));
        assert!(said.err.starts_with("error: not TOML") && said.err.contains("^"), "{}", said.err);
    }
}

#[test]
fn a_variable_that_only_the_running_larder_has_keeps_nobody_from_asking_it() {
    let larder = Larder::start(&good("http://127.0.0.1:3000"));
    let file = |admin: &str, rest: &str| {
        good("http://${LARDER_TEST_UNSET}")
            .replace("admin = \"127.0.0.1:0\"", &format!("admin = \"{admin}\"\n{rest}"))
    };
    let admin = larder.admin().to_string();
    let folder = in_folder_with("proxy.toml", &file(&admin, ""));
    let told = run_to_end(&["status"], folder.path());
    assert_eq!((told.code, told.err.as_str()), (Some(0), ""));
    // But of what is needed to ask it, all is.
    for (admin, rest) in
        [("${LARDER_TEST_UNSET}", ""), (admin.as_str(), "admin_token = \"${LARDER_TEST_UNSET}\"")]
    {
        fs::write(folder.path().join("proxy.toml"), file(admin, rest)).unwrap();
        for command in ["status", "reload", "top", "slow"] {
            let told = run_to_end(&[command], folder.path());
            assert_eq!(told.code, Some(78), "{}", told.err);
            for words in ["the environment has no `LARDER_TEST_UNSET`", "nobody was asked", "--admin ADDR"] {
                assert!(told.err.contains(words), "{command}: {words:?} is not in {}", told.err);
            }
        }
    }
    // Beside an address a file has the token, or the environment.
    for args in [&["status"][..], &["reload"], &["purge", "--all"]] {
        let at = ["--admin", admin.as_str(), "-c", "proxy.toml"];
        let told = run_to_end(&[args, &at].concat(), folder.path());
        assert_eq!(told.code, Some(78), "{}", told.err);
        assert!(told.err.contains("the environment has no `LARDER_TEST_UNSET`"), "{}", told.err);
        assert!(told.err.contains("proxy.toml was named for its admin_token"), "{}", told.err);
        let mut command = support::process::larder();
        command.args(args).args(at).current_dir(folder.path()).env("LARDER_ADMIN_TOKEN", "any");
        assert_ne!(Process::spawn(command).wait_exit(PATIENCE), Some(69), "it is asked");
    }
}

#[test]
fn a_file_is_wrong_for_the_running_larder_too_only_where_no_variable_has_a_part_in_it() {
    let sure = "wrong for the running Larder, too";
    let text = |admin: &str, rest: &str| {
        good("http://127.0.0.1:3000")
            .replace("admin = \"127.0.0.1:0\"", &format!("admin = \"{admin}\"\n{rest}"))
    };
    let rows = [
        (text("bogus", ""), true),
        (text("bogus", "# admin_token = \"${ADM}\""), true),
        (text("$${ADM}", ""), true),
        (text("bogus", "=").replace("${ADM}", ""), true),
        (text("${ADM}", ""), false),
        (text("127.0.0.1:1", "admin_token = \"${EMPTY}\""), false),
        (text("${LARDER_TEST_UNSET}", ""), false),
    ];
    for (text, is_sure) in rows {
        let folder = in_folder_with("proxy.toml", &text);
        let mut command = support::process::larder();
        command.arg("reload").current_dir(folder.path()).env("ADM", "bogus").env("EMPTY", "");
        let mut told = Process::spawn(command);
        assert_eq!(told.wait_exit(PATIENCE), Some(78), "{text}");
        let said = told.err.whole();
        assert_eq!(said.contains(sure), is_sure, "{said}");
        assert_eq!(said.contains("an environment of its own"), !is_sure, "{said}");
    }
}

#[test]
fn where_nobody_answers_at_the_address_of_a_file_another_may_be_named() {
    let admin = unused_address();
    let text =
        good("http://127.0.0.1:3000").replace("admin = \"127.0.0.1:0\"", &format!("admin = \"{admin}\""));
    let folder = in_folder_with("proxy.toml", &text);
    for args in [&["status"][..], &["top"], &["slow"], &["purge", "--all"], &["reload"], &["explain", "/"]] {
        let told = run_to_end(args, folder.path());
        assert_eq!(told.code, Some(69), "{args:?}: {}", told.err);
        for words in
            [&format!("no Larder answers at {admin}, the admin address of proxy.toml"), "--admin ADDR"]
        {
            assert!(told.err.contains(words), "{args:?}: {words:?} is not in {}", told.err);
        }
    }
}

#[test]
fn what_answers_and_is_no_admin_listener_is_not_taken_for_a_larder_and_given_nothing() {
    let folder = in_folder_with("proxy.toml", &good("http://127.0.0.1:3000"));
    let commands: [&[&str]; 6] =
        [&["status"], &["top", "--once"], &["slow"], &["purge", "--all"], &["reload"], &["explain", "/"]];
    // An API, as behind an address that is another's; the last takes whatever it is sent.
    for (status, body) in [
        (404, "no such page"),
        (404, "{\"error\":\"not found\"}"),
        (401, "{}"),
        (200, ""),
        (200, "<html>"),
        (200, "[]"),
        (200, "{\"ok\":true}"),
    ] {
        let api = Origin::start(move |_| support::Script::respond(status, &[], body));
        let address = api.url().trim_start_matches("http://").to_owned();
        // Directly, and through the public listener of a Larder.
        let before = Larder::start(&good(&api.url()));
        for address in [address, before.proxy().to_string()] {
            for args in commands {
                let mut command = larder();
                command.args(args).args(["--admin", &address]).current_dir(folder.path());
                command.env("LARDER_ADMIN_TOKEN", "of-the-admin-listener");
                let mut process = Process::spawn(command);
                assert_eq!(process.wait_exit(PATIENCE), Some(69), "{args:?}: {body}");
                let (out, err) = (process.out.whole(), process.err.whole());
                let words =
                    [&format!("what is there answers {status} "), "and is no admin listener of a Larder"];
                assert!(words.iter().all(|words| err.contains(*words)), "{args:?} {body}: {err}");
                assert_eq!(out, "", "{args:?}");
            }
        }
        let asked = api.requests();
        assert!(!asked.is_empty() && asked.iter().all(|it| it.method == "GET"), "{asked:?}");
        assert!(asked.iter().all(|it| it.headers.get("authorization").is_none()), "no token: {asked:?}");
    }
}

/// An origin that would like to have the token.
#[test]
fn an_origin_that_poses_as_an_admin_listener_is_given_nothing_through_a_public_one() {
    let api = Origin::start(|_| support::Script::respond(200, &[("Larder-Admin", "1")], "{}"));
    let before = Larder::start(&good(&api.url()));
    let mut command = larder();
    command.args(["purge", "--all", "--admin", &before.proxy().to_string()]);
    command.env("LARDER_ADMIN_TOKEN", "of-the-admin-listener");
    let mut process = Process::spawn(command);
    assert_eq!(process.wait_exit(PATIENCE), Some(69));
    assert!(process.err.whole().contains("and is no admin listener of a Larder"), "{}", process.err.whole());
    let asked = api.requests();
    assert!(
        asked.iter().all(|it| it.method == "GET" && it.headers.get("authorization").is_none()),
        "{asked:?}"
    );
}

#[test]
fn what_shows_on_and_on_ends_with_whoever_reads_it() {
    let origin = Origin::ok("x", &[]);
    let running = Larder::start(&good(&origin.url()));
    for args in [&["top"][..], &["top", "--json"]] {
        let mut command = larder();
        command.args(args).args(["--admin", &running.admin().to_string()]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        // As in `| head -1`: the reader is gone.
        let mut ended = None;
        within(PATIENCE, || {
            ended = child.try_wait().unwrap();
            ended.is_some()
        });
        if ended.is_none() {
            child.kill().unwrap();
        }
        assert_eq!(ended.and_then(|ended| ended.code()), Some(0), "{args:?}");
    }
}

#[test]
fn without_arguments_run_takes_proxy_toml_of_the_working_directory() {
    let origin = Origin::ok("here", &[]);
    let folder = in_folder_with("proxy.toml", &good(&origin.url()));
    let mut command = larder();
    command.arg("run").current_dir(folder.path());
    let mut process = Process::spawn(command);
    let line = process.err.wait_for_line(|line| line.contains("listening on http://"), PATIENCE);
    let addr = support::process::address_after(&line, "listening on http://").unwrap();
    assert_eq!(get(addr, "/", &[]).text(), "here");
    process.terminate();
    assert_eq!(process.wait_exit(PATIENCE), Some(0));
    assert_eq!(run_to_end(&["check"], folder.path()).out, "proxy.toml: good (1 route, 1 upstream)");
}

#[test]
fn larder_config_names_the_file_and_an_argument_comes_before_it() {
    let folder = in_folder_with("named.toml", &good("http://127.0.0.1:3000"));
    fs::write(folder.path().join("proxy.toml"), "bad = 1\n").unwrap();
    let check_with = |variable: &str, args: &[&str]| {
        let mut command = larder();
        command.arg("check").args(args).current_dir(folder.path()).env("LARDER_CONFIG", variable);
        let mut process = Process::spawn(command);
        let code = process.wait_exit(PATIENCE);
        (code, process.out.whole() + &process.err.whole())
    };
    let (code, said) = check_with("named.toml", &[]);
    assert!(code == Some(0) && said.starts_with("named.toml: good"), "{said}");
    let (code, said) = check_with("named.toml", &["-c", "proxy.toml"]);
    assert!(code == Some(78) && said.contains("--> proxy.toml:1:1"), "{said}");
    let (code, said) = check_with("absent.toml", &[]);
    assert!(code == Some(78) && said.contains("absent.toml (from LARDER_CONFIG)"), "{said}");
}

#[test]
fn a_file_that_is_missing_exits_with_78_and_says_which() {
    for command in ["run", "check"] {
        let finished = in_empty(&[command, "-c", "nowhere.toml"]);
        assert_eq!(finished.code, Some(78));
        assert!(finished.err.starts_with("error: cannot read nowhere.toml"), "{}", finished.err);
    }
    // Somebody's machine may have the second place; then this says nothing.
    if !Path::new("/etc/larder/proxy.toml").exists() {
        let finished = in_empty(&["run"]);
        assert_eq!(finished.code, Some(78));
        for expected in ["./proxy.toml", "/etc/larder/proxy.toml", "larder run --to"] {
            assert!(finished.err.contains(expected), "{expected} is not in {}", finished.err);
        }
    }
}

#[test]
fn wrong_arguments_exit_with_2() {
    let rows: [&[&str]; 9] = [
        &[],
        &["serve"],
        &["run", "--nothing"],
        &["run", "--to", "127.0.0.1:3000"],
        &["run", "--to", "https://127.0.0.1:3000"],
        &["run", "--to", "http://127.0.0.1:3000", "--ttl", "60"],
        &["run", "--to", "http://127.0.0.1:3000", "-c", "proxy.toml"],
        &["run", "--listen", "127.0.0.1:0"],
        &["demo", "--listen", "8080"],
    ];
    for args in rows {
        let finished = in_empty(args);
        assert_eq!(finished.code, Some(2), "{args:?}: {}", finished.err);
        assert!(finished.out.is_empty() && !finished.err.is_empty(), "{args:?}: {}", finished.out);
    }
}

#[test]
fn a_busy_port_exits_with_69_and_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = taken.local_addr().unwrap().to_string();
    for place in ["listen", "admin"] {
        let text = good("http://127.0.0.1:3000")
            .replace(&format!("{place} = \"127.0.0.1:0\""), &format!("{place} = \"{busy}\""));
        let folder = in_folder_with("proxy.toml", &text);
        let finished = run_to_end(&["run"], folder.path());
        assert_eq!(finished.code, Some(69), "{place}: {}", finished.err);
        assert!(finished.err.contains(&busy), "{place}: {}", finished.err);
    }
}

#[test]
fn two_larders_do_not_share_a_port() {
    let origin = Origin::ok("x", &[]);
    let first = Larder::start(&good(&origin.url()));
    let text =
        good(&origin.url()).replace("listen = \"127.0.0.1:0\"", &format!("listen = \"{}\"", first.proxy()));
    let folder = in_folder_with("proxy.toml", &text);
    assert_eq!(run_to_end(&["run"], folder.path()).code, Some(69));
}

#[test]
fn version_and_help_are_printed_on_stdout() {
    let version = in_empty(&["--version"]);
    assert_eq!((version.code, version.out), (Some(0), format!("larder {}", env!("CARGO_PKG_VERSION"))));
    let rows: [(&[&str], &[&str]); 4] = [
        (&["--help"], &["run", "check", "demo", "Exit codes:", "69", "78", "larder demo"]),
        (
            &["run", "--help"],
            &["--config", "--to", "--ttl", "--redis", "--print-config", "$LARDER_CONFIG", "SIGTERM"],
        ),
        (&["check", "--help"], &["--config", "78"]),
        (&["demo", "--help"], &["--listen", "--admin", "--redis", "--print-config"]),
    ];
    for (args, expected) in rows {
        let help = in_empty(args);
        assert_eq!((help.code, help.err.as_str()), (Some(0), ""), "{args:?}");
        for word in expected {
            assert!(help.out.contains(word), "{args:?}: {word:?} is not in\n{}", help.out);
        }
        assert!(
            help.out.lines().all(|line| line.chars().count() <= 100),
            "{args:?}: long lines\n{}",
            help.out
        );
    }
}

#[test]
fn port_0_is_replaced_by_free_ones_which_are_told() {
    let origin = Origin::ok("x", &[]);
    let text =
        good(&origin.url()).replace("listen = \"127.0.0.1:0\"", "listen = [\"127.0.0.1:0\", \"[::1]:0\"]");
    let larder = Larder::start(&text);
    assert_eq!(larder.proxies().len(), 2, "{}", larder.err.whole());
    for addr in larder.proxies() {
        assert_ne!(addr.port(), 0);
        assert_eq!(get(*addr, "/", &[]).status, 200, "{addr}");
    }
    assert_ne!(larder.admin().port(), 0);
    assert_eq!(get(larder.admin(), "/livez", &[]).status, 200);
    assert!(larder.err.whole().contains("no redis is configured"), "{}", larder.err.whole());
}

#[test]
fn an_admin_listener_that_others_reach_is_refused_without_a_token() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        let text = good("http://127.0.0.1:3000")
            .replace("admin = \"127.0.0.1:0\"", &format!("admin = \"{address}\""));
        let finished = check(&text);
        assert_eq!(finished.code, Some(78), "{}", finished.err);
        assert!(places(&finished)[0].starts_with("proxy.toml:2:"), "{}", finished.err);
        assert!(finished.err.contains("admin_token"), "{}", finished.err);
        // The one-line form has no token to give.
        let args = ["run", "--to", "http://127.0.0.1:3000", "--listen", "127.0.0.1:0", "--admin", address];
        assert_eq!(in_empty(&args).code, Some(78));
    }
}

#[test]
fn an_admin_token_is_asked_for_everywhere_but_at_the_health_checks() {
    let origin = Origin::ok("x", &[]);
    let text = good(&origin.url())
        .replace("admin = \"127.0.0.1:0\"", "admin = \"0.0.0.0:0\"\nadmin_token = \"correct-horse\"");
    let larder = Larder::start(&text);
    let admin = std::net::SocketAddr::from(([127, 0, 0, 1], larder.admin().port()));
    let right = ("Authorization", "Bearer correct-horse");
    for page in ["/stats", "/metrics", "/", "/nothing"] {
        let refused = get(admin, page, &[]);
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Bearer"), "{page}");
        for wrong in ["Bearer correct", "Bearer correct-horse-battery", "Basic correct-horse", ""] {
            assert_eq!(get(admin, page, &[("Authorization", wrong)]).status, 401, "{page} {wrong:?}");
        }
        let expected = if page == "/nothing" { 404 } else { 200 };
        assert_eq!(get(admin, page, &[right]).status, expected, "{page}");
    }
    let body = br#"{"url":"http://api.test/a"}"#;
    assert_eq!(client::request(admin, "POST", "/purge", &[], body).status, 401);
    assert_eq!(client::request(admin, "POST", "/purge", &[right], body).status, 200);
    for open in ["/livez", "/readyz"] {
        assert_eq!(get(admin, open, &[]).status, 200, "{open}");
    }
}

#[test]
fn admin_off_listens_nowhere_and_the_public_listener_has_no_admin_pages() {
    let origin = Origin::ok("the origin's own", &[]);
    let text = good(&origin.url()).replace("admin = \"127.0.0.1:0\"", "admin = \"off\"");
    let larder = Larder::start(&text);
    assert!(!larder.err.whole().contains("admin on"), "{}", larder.err.whole());
    for page in ["/stats", "/metrics", "/livez"] {
        assert_eq!(larder.get(page, &[]).text(), "the origin's own");
    }
    assert_eq!(client::request(larder.proxy(), "POST", "/purge", &[], b"{}").text(), "the origin's own");
}

#[test]
fn sigterm_and_ctrl_c_both_end_it_with_0() {
    let origin = Origin::ok("x", &[]);
    for signal in ["TERM", "INT"] {
        let mut larder = Larder::start(&good(&origin.url()));
        // An idle kept-alive connection does not hold it up.
        let mut idle = Connection::open(larder.proxy());
        assert_eq!(idle.request("GET", "/", &[], b"").status, 200);
        larder.signal(signal);
        assert_eq!(larder.wait_exit(PATIENCE), Some(0), "{signal}");
        assert!(idle.closes(), "{signal}");
    }
}

#[test]
fn a_signal_that_comes_while_it_starts_ends_it_with_0() {
    let (origin, listen) = (Origin::ok("x", &[]), unused_address());
    // A Redis that says nothing is waited for, for half a second, with the listeners open already.
    let relay = Relay::start(origin.addr());
    relay.set(Mode::Stall);
    let text = good(&origin.url())
        .replace("listen = \"127.0.0.1:0\"", &format!("listen = \"{listen}\""))
        .replace("[upstream.api]", &format!("[cache]\nredis = \"{}\"\n[upstream.api]", relay.url()));
    let folder = in_folder_with("proxy.toml", &text);
    for args in [&["run"][..], &["demo", "--listen", &listen.to_string(), "--redis", &relay.url()]] {
        let mut command = larder();
        command.args(args).current_dir(folder.path());
        let mut process = Process::spawn(command);
        assert!(within(PATIENCE, || TcpStream::connect(listen).is_ok()), "{args:?}");
        process.terminate();
        assert_eq!(process.wait_exit(PATIENCE), Some(0), "{args:?}");
    }
}

#[test]
fn a_variable_in_the_file_takes_the_environments_value() {
    let folder = in_folder_with("proxy.toml", &good("http://${LARDER_TEST_API}"));
    for (value, code) in [("127.0.0.1:3000", 0), ("127.0.0.1:3000/path", 78)] {
        let mut command = larder();
        command.arg("check").current_dir(folder.path()).env("LARDER_TEST_API", value);
        assert_eq!(Process::spawn(command).wait_exit(PATIENCE), Some(code), "{value}");
    }
}

#[test]
fn an_upstream_that_nobody_is_at_does_not_keep_larder_from_starting() {
    let larder = Larder::start(&good(&format!("http://{}", unused_address())));
    let response = larder.get("/", &[]);
    assert_eq!(response.status, 502);
    assert!(
        response.json()["error"].is_string() || response.json()["cause"].is_string(),
        "{}",
        response.text()
    );
}
