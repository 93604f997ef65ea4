//! Where a setting decides what becomes of a request, the client reads the figure and the operator's log names
//! the setting, seldom enough for the log to stay readable.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use support::{Larder, Origin, PATIENCE, client, unused_address};

/// One route, `/all/*`, to the origin at `url`.
fn config(url: &str, limits: &str, route: &str) -> String {
    format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n[limits]\n{limits}\n\
         [upstream.backend-of-ours]\nservers = [\"{url}\"]\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/all/*\" }}\nupstream = \"backend-of-ours\"\n{route}\n"
    )
}

const SWITCH: &[(&str, &str)] = &[("Connection", "keep-alive, Upgrade"), ("Upgrade", "websocket")];

#[test]
fn a_websocket_that_no_route_lets_through_is_told_to_the_operator_and_not_each_time() {
    let origin = Origin::ok("plain", &[]);
    let larder = Larder::start(&config(&origin.url(), "", ""));
    for _ in 0..3 {
        assert_eq!(larder.get("/all/socket", SWITCH).text(), "plain", "it is forwarded without");
    }
    let line = larder.err.wait_for_line(|line| line.contains("route.upgrade"), PATIENCE);
    assert!(line.contains("\"all\"") && line.contains("WebSocket"), "{line}");
    // What is told later stands behind: nothing more of the first has been told by then.
    assert_eq!(larder.get("/none", &[]).status, 404);
    larder.err.wait_for_line(|line| line.contains("route.match"), PATIENCE);
    let told = larder.err.all().iter().filter(|line| line.contains("route.upgrade")).count();
    assert_eq!(told, 1, "{}", larder.err.whole());
}

#[test]
fn where_a_route_lets_it_through_or_nothing_is_asked_nothing_is_told() {
    let origin = Origin::ok("plain", &[]);
    let larder = Larder::start(&config(&origin.url(), "", "upgrade = true"));
    assert_eq!(larder.get("/all/socket", SWITCH).status, 200);
    let without = Larder::start(&config(&origin.url(), "", ""));
    // Neither h2c, which is never let through, nor a field that `Connection` does not name.
    for headers in [&[("Connection", "Upgrade"), ("Upgrade", "h2c")][..], &[("Upgrade", "websocket")], &[]] {
        assert_eq!(without.get("/all/socket", headers).status, 200);
    }
    for larder in [larder, without] {
        assert_eq!(larder.get("/none", &[]).status, 404);
        larder.err.wait_for_line(|line| line.contains("route.match"), PATIENCE);
        assert!(!larder.err.whole().contains("route.upgrade"), "{}", larder.err.whole());
    }
}

#[test]
fn the_client_reads_the_figure_and_the_log_names_the_setting() {
    let origin = Origin::ok("plain", &[]);
    let larder = Larder::start(&config(&origin.url(), "target = \"200B\"", "max_body = \"1KiB\""));
    let body = vec![b'a'; 2000];
    let long = format!("/all/{}", "a".repeat(300));
    let rows: [(_, _, &[u8], _, _, _); 3] = [
        ("POST", "/all/a", &body, 413, "the request's body is larger than 1 KiB", "route.max_body"),
        ("GET", &long, b"", 414, "the request's target is longer than 200 bytes", "limits.target"),
        ("GET", "/none", b"", 404, "no route of this Larder takes GET /none for host", "route.match"),
    ];
    for (method, path, body, status, message, setting) in rows {
        let response = client::request(larder.proxy(), method, path, &[], body);
        let text = response.text();
        assert_eq!(response.status, status, "{text}");
        assert!(text.contains(message), "{text}");
        for name in [setting, "max_body", "limits", "proxy.toml", "backend-of-ours"] {
            assert!(!text.contains(name), "{name} is in {text}");
        }
        larder.err.wait_for_line(|line| line.contains(setting) && line.contains(message), PATIENCE);
    }
}

#[test]
fn a_body_that_turns_out_too_large_on_its_way_is_told_so_too() {
    let origin = Origin::ok("plain", &[]);
    let larder = Larder::start(&config(&origin.url(), "", "max_body = \"1KiB\"\ncache = false"));
    let chunked = [("Transfer-Encoding", "chunked")];
    let body = format!("7d0\r\n{}\r\n0\r\n\r\n", "a".repeat(2000));
    let mut connection = support::Connection::open(larder.proxy());
    connection.write_head("POST", "/all/a", &[("Host", "a.test"), chunked[0]]);
    connection.write(body.as_bytes());
    let response = connection.response("POST");
    assert_eq!(response.status, 413, "{}", response.text());
    assert!(response.text().contains("larger than 1 KiB"), "{}", response.text());
    larder.err.wait_for_line(|line| line.contains("route.max_body"), PATIENCE);
}

#[test]
fn of_an_origin_that_fails_a_client_learns_no_name() {
    let nobody = unused_address();
    let larder = Larder::start(&config(&format!("http://{nobody}"), "", ""));
    let response = larder.get("/all/a", &[]);
    let text = response.text();
    assert_eq!(response.status, 502, "{text}");
    assert!(text.contains("no server could be connected to"), "{text}");
    for name in ["backend-of-ours", &nobody.to_string(), &nobody.port().to_string()] {
        assert!(!text.contains(name), "{name} is in {text}");
    }
    larder.err.wait_for_line(
        |line| line.contains("backend-of-ours") && line.contains(&nobody.port().to_string()),
        PATIENCE,
    );
}
