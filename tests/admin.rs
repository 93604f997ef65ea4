//! The admin listener under attack: by web pages, by names that lead here, by clients that hang.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::time::Duration;

use support::{Connection, Larder, Origin, PATIENCE, Script, client, get, within};

const BODY: &[u8] = b"{\"url\": \"http://a.test/x\"}";

fn config(origin: &Origin, top: &str) -> String {
    format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n{top}\n[upstream.o]\nservers = [\"{}\"]\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"o\"\n",
        origin.url()
    )
}

fn origin() -> Origin {
    Origin::start(|request| Script::ok(format!("#{}", request.count), &[("Cache-Control", "max-age=60")]))
}

/// How many times the origin was asked for what is stored, one more look included.
fn fetched(larder: &Larder) -> String {
    larder.get("/x", &[("Host", "a.test")]).text()
}

#[test]
fn no_page_of_another_site_purges_or_reloads() {
    let origin = origin();
    let larder = Larder::start(&config(&origin, ""));
    assert_eq!(fetched(&larder), "#1");
    let own = format!("http://{}", larder.admin());
    let pages: [&[(&str, &str)]; 9] = [
        // A form, a simple request of a script, a beacon; an old browser; a sandboxed frame.
        &[("Origin", "http://evil.test"), ("Content-Type", "application/x-www-form-urlencoded")],
        &[("Origin", "http://evil.test"), ("Content-Type", "text/plain"), ("Sec-Fetch-Site", "cross-site")],
        &[("Content-Type", "text/plain;charset=UTF-8")],
        &[("Content-Type", "multipart/form-data; boundary=x")],
        &[("Content-Type", "application/x-www-form-urlencoded"), ("Referer", "http://evil.test/a")],
        &[("Content-Type", "application/x-www-form-urlencoded"), ("User-Agent", "Mozilla/4.0 (MSIE 6.0)")],
        &[("Origin", "null"), ("Content-Type", "application/json")],
        &[("Origin", &own), ("Content-Type", "application/json")],
        &[("Sec-Fetch-Site", "same-site"), ("Content-Type", "application/json")],
    ];
    for page in pages {
        for path in ["/purge", "/reload"] {
            let answer = client::request(larder.admin(), "POST", path, page, BODY);
            assert_eq!(answer.status, 403, "{path} {page:?}");
            assert!(answer.json()["error"].as_str().is_some_and(|text| text.len() > 20), "{}", answer.text());
        }
    }
    assert_eq!(fetched(&larder), "#1", "nothing was purged");
    assert_eq!(larder.metric("larder_reloads_total{result=\"done\"}"), Some(0.0));
    for program in [&[][..], &[("Content-Type", "application/json")], &[("User-Agent", "curl/8.5.0")]] {
        assert_eq!(
            client::request(larder.admin(), "POST", "/purge", program, BODY).status,
            200,
            "{program:?}"
        );
    }
    assert_eq!(fetched(&larder), "#2");
}

#[test]
fn a_page_that_asks_first_gets_no_leave() {
    let larder = Larder::start(&config(&origin(), ""));
    for path in ["/purge", "/reload", "/stats", "/"] {
        let asks = [("Origin", "http://evil.test"), ("Access-Control-Request-Method", "POST")];
        let answer = client::request(larder.admin(), "OPTIONS", path, &asks, b"");
        assert_eq!(answer.status, 403, "{path}");
        assert!(
            !answer.headers.0.iter().any(|(name, _)| name.to_ascii_lowercase().starts_with("access-control"))
        );
    }
    assert_eq!(client::request(larder.admin(), "OPTIONS", "/purge", &[], b"").status, 405);
}

#[test]
fn a_name_that_leads_here_is_not_enough() {
    let origin = origin();
    let larder = Larder::start(&config(&origin, ""));
    let port = larder.admin().port();
    for host in ["evil.test", &format!("evil.test:{port}"), "localhost.evil.test", "127.0.0.1.evil.test", ""]
    {
        for (method, path) in
            [("POST", "/purge"), ("POST", "/reload"), ("GET", "/stats"), ("GET", "/metrics")]
        {
            let answer = client::request(larder.admin(), method, path, &[("Host", host)], BODY);
            assert_eq!(answer.status, 403, "{host:?} {method} {path}");
        }
    }
    for host in ["localhost", &format!("localhost:{port}"), "127.0.0.1", &format!("[::1]:{port}")] {
        assert_eq!(
            client::request(larder.admin(), "POST", "/purge", &[("Host", host)], BODY).status,
            200,
            "{host}"
        );
    }
    // RFC 9112 §3.2.2: the target's name counts where it has one.
    for host in ["evil.test", &format!("127.0.0.1@evil.test:{port}")] {
        let (target, named) = (format!("http://{host}/purge"), [("Host", "localhost")]);
        assert_eq!(client::request(larder.admin(), "POST", &target, &named, BODY).status, 403, "{target}");
    }
    let target = format!("http://127.0.0.1:{port}/purge");
    assert_eq!(client::request(larder.admin(), "POST", &target, &[("Host", "localhost")], BODY).status, 200);
    // A second name behind a good one.
    let two = [("Host", "localhost"), ("Host", "evil.test")];
    assert_eq!(client::request(larder.admin(), "POST", "/purge", &two, BODY).status, 400);
}

#[test]
fn what_only_reads_changes_nothing() {
    let origin = origin();
    let larder = Larder::start(&config(&origin, ""));
    assert_eq!(fetched(&larder), "#1");
    for path in
        ["/purge?url=http://a.test/x", "/reload", "/purge", "/livez", "/readyz", "/stats", "/metrics", "/"]
    {
        for method in ["GET", "HEAD"] {
            client::request(larder.admin(), method, path, &[], b"");
        }
    }
    assert_eq!(fetched(&larder), "#1");
    assert_eq!(larder.metric("larder_reloads_total{result=\"done\"}"), Some(0.0));
    // With a token set, the probes alone are open, and only to who reads.
    let guarded = Larder::start(&config(&origin, "admin_token = \"s3cret\""));
    for (method, path, status) in [
        ("GET", "/livez", 200),
        ("HEAD", "/readyz", 200),
        ("POST", "/livez", 401),
        ("GET", "/", 401),
        ("POST", "/reload", 401),
    ] {
        assert_eq!(
            client::request(guarded.admin(), method, path, &[], b"").status,
            status,
            "{method} {path}"
        );
    }
}

#[test]
fn who_hangs_is_cut_off_and_others_are_served() {
    let origin = origin();
    let larder = Larder::start(&config(&origin, "[limits]\nadmin_time = \"500ms\""));
    // As many as it has places for: silent, half a head, half a body, and one that reads nothing.
    let mut hanging: Vec<Connection> = Vec::new();
    for nth in 0..64 {
        let mut connection = Connection::open(larder.admin());
        match nth % 3 {
            0 => {}
            1 => connection.write(b"GET /stats HTTP/1.1\r\nHost: local"),
            _ => connection.write_head("POST", "/purge", &[("Content-Length", "100")]),
        }
        hanging.push(connection);
    }
    let mut late = Connection::open(larder.admin());
    late.write_head("GET", "/livez", &[]);
    assert_eq!(late.response("GET").status, 200);
    for (nth, mut connection) in hanging.into_iter().enumerate() {
        if nth % 3 == 2 {
            assert_eq!(connection.response("POST").status, 408, "{nth}");
        } else {
            connection.read_to_end();
        }
    }
    assert!(within(PATIENCE, || get(larder.admin(), "/readyz", &[]).status == 200));
}

#[test]
fn it_says_that_it_lives_however_many_others_are_silent() {
    let larder = Larder::start(&config(&origin(), "[limits]\nadmin_time = \"5m\""));
    // More than it has places for, each time: with nothing said, with half a head, with half a body.
    let head: &[u8] = b"GET /stats HTTP/1.1\r\nHost: local";
    let body: &[u8] = b"POST /purge HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{";
    let mut hanging: Vec<Connection> = Vec::new();
    for said in [b"", head, body] {
        for _ in 0..100 {
            let mut connection = Connection::open(larder.admin());
            // Closed already, some are: for those who came later.
            let _ = connection.try_write(said);
            hanging.push(connection);
        }
        assert_eq!(get(larder.admin(), "/livez", &[]).status, 200);
    }
    // Who asks now and then keeps its connection beside them.
    let mut kept = Connection::open(larder.admin());
    for _ in 0..3 {
        assert_eq!(kept.request("GET", "/livez", &[], b"").status, 200);
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let larder = Larder::start(&config(&origin(), ""));
    let long = "x".repeat(20_000);
    let answer = client::request(larder.admin(), "GET", "/stats", &[("X-Long", &long)], b"");
    assert_eq!(answer.status, 431);
    let names: Vec<String> = (0..100).map(|nth| format!("X-{nth}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    assert_eq!(client::request(larder.admin(), "GET", "/stats", &many, b"").status, 431);
    let large = vec![b' '; 1_100_000];
    assert_eq!(client::request(larder.admin(), "POST", "/purge", &[], &large).status, 413);
}

#[test]
fn a_busy_connection_ends_too() {
    let larder = Larder::start(&config(&origin(), "[limits]\nadmin_time = \"50ms\""));
    let mut connection = Connection::open(larder.admin());
    let mut asked = 0;
    let ended = within(PATIENCE + Duration::from_secs(10), || {
        asked += 1;
        let head = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
        connection.try_write(head).and_then(|()| connection.try_response("GET")).is_err()
    });
    assert!(ended && asked > 1, "{asked}");
}
