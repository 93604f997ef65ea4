//! What is kept of a response, what a request's own directives do, and the word for every response
//! that is not kept.
//!
//! Memory only, over sockets, with one route unless said.

mod support;

use support::front::{Front, HIT, Lines, STORED, cache_status, told};
use support::wire::Framing;
use support::{Connection, Gate, PATIENCE, Request, Response, Script, within};

/// Every answer is another body.
fn counting(fields: &'static [(&str, &str)]) -> impl Fn(&Request) -> Script {
    move |request| Script::ok(request.count.to_string(), fields)
}

fn story(response: &Response) -> (String, String) {
    (told(response), response.text())
}

#[test]
fn a_request_may_ask_for_the_origins_word() {
    let rows: &[(Lines, &str)] = &[
        (&[("Cache-Control", "no-cache")], "request-no-cache"),
        (&[("Pragma", "no-cache")], "request-no-cache"),
        (&[("Cache-Control", "max-age=0")], "request-max-age"),
        (&[("Cache-Control", "max-age=4")], "request-max-age"),
        (&[("Cache-Control", "min-fresh=60")], "request-min-fresh"),
    ];
    for (asked, word) in rows {
        // Age: that a request's max-age is exceeded does not hang on how fast this machine is.
        let front = Front::new("", counting(&[("Cache-Control", "max-age=60"), ("Age", "5")]));
        assert_eq!(told(&front.get("/", &[])), STORED);
        let response = front.get("/", asked);
        let expected = format!("MISS larder; fwd=request; stored; detail={word}");
        assert_eq!(story(&response), (expected, "2".into()), "{asked:?}");
        // What came is for everyone.
        assert_eq!(story(&front.get("/", &[])), (HIT.into(), "2".into()), "{asked:?}");
    }
    // What asks for no more than is there.
    let front = Front::new("", counting(&[("Cache-Control", "max-age=60")]));
    front.get("/", &[]);
    for value in ["max-age=60", "min-fresh=10", "max-stale", "no-transform", "nonsense"] {
        assert_eq!(told(&front.get("/", &[("Cache-Control", value)])), HIT, "{value}");
    }
    // §5.4: Pragma counts only where there is no Cache-Control.
    assert_eq!(told(&front.get("/", &[("Pragma", "no-cache"), ("Cache-Control", "max-age=60")])), HIT);
}

#[test]
fn the_origins_word_may_be_that_nothing_has_changed() {
    let front = Front::new("", |request| match request.header("if-none-match") {
        "" => Script::ok("body", &[("Cache-Control", "max-age=60"), ("ETag", "\"v\"")]),
        _ => Script::respond(304, &[("ETag", "\"v\"")], ""),
    });
    front.get("/", &[]);
    let response = front.get("/", &[("Cache-Control", "no-cache")]);
    let expected = "REVALIDATED larder; fwd=request; fwd-status=304; stored; detail=request-no-cache";
    assert_eq!(story(&response), (expected.into(), "body".into()));
}

#[test]
fn a_request_that_forbids_storing_leaves_the_cache_as_it_is() {
    let front = Front::new("", counting(&[("Cache-Control", "max-age=60")]));
    let asked = [("Cache-Control", "no-store")];
    let bypass = "BYPASS larder; fwd=bypass; detail=request-no-store";
    assert_eq!(story(&front.get("/", &asked)), (bypass.into(), "1".into()));
    assert_eq!(story(&front.get("/", &[])), (STORED.into(), "2".into()));
    assert_eq!(story(&front.get("/", &asked)), (bypass.into(), "3".into()));
    assert_eq!(story(&front.get("/", &[])), (HIT.into(), "2".into()));
}

#[test]
fn a_get_with_a_body_is_not_for_the_cache() {
    let front = Front::new("", counting(&[("Cache-Control", "max-age=60")]));
    assert_eq!(story(&front.get("/", &[])), (STORED.into(), "1".into()));
    for count in 2..4 {
        let response = front.request("GET", "/", &[], b"{\"query\":1}");
        assert_eq!(story(&response), ("BYPASS larder; fwd=bypass; detail=body".into(), count.to_string()));
        assert_eq!(front.origin.last().body, b"{\"query\":1}");
    }
    assert_eq!(story(&front.get("/", &[])), (HIT.into(), "1".into()));
}

#[test]
fn what_may_not_be_stored_is_remembered_so_that_nobody_waits_for_another() {
    let gate = Gate::new();
    let held = gate.clone();
    let front = Front::new("", move |request| {
        let head = Script::new();
        let head = if request.count == 1 { head } else { head.wait(&held) };
        head.head(200, &[("Cache-Control", "no-store"), ("Content-Length", "1")]).bytes("a")
    });
    let told_first = "MISS larder; fwd=uri-miss; detail=no-store";
    assert_eq!(told(&front.get("/", &[])), told_first);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(|| told(&front.get("/", &[])))).collect();
        // All at the origin at once: none waits for another's answer.
        gate.wait_for_arrivals(8);
        gate.open();
        for client in clients {
            assert_eq!(client.join().unwrap(), told_first);
        }
    });
    assert_eq!(front.origin.count("/"), 9);
}

#[test]
fn the_memory_of_an_uncacheable_answer_ends() {
    let routes = "[cache]\nhit_for_miss = \"200ms\"\n\
                  [[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"api\"";
    let front = Front::with(routes, |request| match request.count {
        1 => Script::ok("a", &[("Cache-Control", "no-store")]),
        _ => Script::ok("a", &[("Cache-Control", "max-age=60")]),
    });
    front.get("/", &[]);
    assert!(within(PATIENCE, || told(&front.get("/", &[])) == STORED));
    assert_eq!(told(&front.get("/", &[])), HIT);
}

#[test]
fn an_error_is_not_remembered() {
    let front = Front::new("ttl.default = \"60s\"", |request| match request.count {
        1 => Script::respond(500, &[], "error"),
        _ => Script::ok("good", &[]),
    });
    assert_eq!(front.get("/", &[]).status, 500);
    assert_eq!(front.told("/", &[], 2), [STORED, HIT]);
}

#[test]
fn fields_are_kept_with_their_order_and_repeats() {
    let fields = [
        ("X-First", "1"),
        ("Link", "</a>; rel=next"),
        ("X-Empty", ""),
        ("Link", "</b>; rel=prev, </c>"),
        ("Cache-Control", "max-age=60"),
        ("Cache-Control", "public"),
        ("Date", "Fri, 31 Dec 2100 23:59:59 GMT"),
        ("X-Odd", "a\tb  \"c\""),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("Link", "</d>"),
        ("X-Last", "9"),
    ];
    let front = Front::new("", move |_| Script::ok("a", &fields));
    for expected in [STORED, HIT] {
        let response = front.get("/", &[]);
        assert_eq!(told(&response), expected);
        for (name, _) in fields {
            let sent: Vec<_> = fields.iter().filter(|(other, _)| *other == name).map(|(_, v)| *v).collect();
            assert_eq!(response.headers.all(name).collect::<Vec<_>>(), sent, "{name}");
        }
        // Fields of different names: in the order of their first lines.
        let mut names: Vec<String> = Vec::new();
        for (name, _) in &response.headers.0 {
            let name = name.to_ascii_lowercase();
            if fields.iter().any(|(sent, _)| sent.eq_ignore_ascii_case(&name)) && !names.contains(&name) {
                names.push(name);
            }
        }
        let order = ["x-first", "link", "x-empty", "cache-control", "date", "x-odd", "set-cookie", "x-last"];
        assert_eq!(names, order, "{expected}");
    }
}

#[test]
fn fields_of_a_connection_are_neither_kept_nor_passed_on() {
    let front = Front::new("", |_| {
        Script::chunked(&[
            ("Cache-Control", "max-age=60"),
            ("Connection", "X-Private, keep-alive"),
            ("X-Private", "1"),
            ("Keep-Alive", "timeout=7"),
            ("Proxy-Connection", "keep-alive"),
            ("Upgrade", "h2c"),
            ("X-Public", "2"),
        ])
        .chunk("hel")
        .chunk("lo")
        .last_chunk()
    });
    for expected in [STORED, HIT] {
        let response = front.get("/", &[]);
        assert_eq!(story(&response), (expected.into(), "hello".into()));
        for name in ["x-private", "keep-alive", "proxy-connection", "upgrade"] {
            assert_eq!(response.headers.get(name), None, "{expected} {name}");
        }
        assert!(!response.header("connection").to_lowercase().contains("x-private"));
        assert_eq!(response.header("x-public"), "2");
        // What is complete has a length, however it came.
        let whole = expected == HIT;
        assert_eq!(response.framing, Some(if whole { Framing::Length(5) } else { Framing::Chunked }));
    }
}

#[test]
fn trailers_pass_while_a_response_is_on_its_way_into_the_cache() {
    let front = Front::new("", |_| {
        Script::chunked(&[("Cache-Control", "max-age=60"), ("Trailer", "X-Sum")])
            .chunk("hello")
            .trailers(&[("X-Sum", "42")])
    });
    let mut connection = Connection::open(front.larder.proxy());
    let miss = connection.request("GET", "/", &[("TE", "trailers")], b"");
    assert_eq!((story(&miss), miss.complete), ((STORED.into(), "hello".into()), true));
    assert_eq!((miss.header("trailer"), miss.trailers.get("x-sum")), ("X-Sum", Some("42")));
    // §3.1: a trailer section need not be kept; then none is announced.
    let hit = connection.request("GET", "/", &[("TE", "trailers")], b"");
    assert_eq!((story(&hit), hit.headers.get("trailer")), ((HIT.into(), "hello".into()), None));
}

#[test]
fn what_earlier_caches_told_stands_before_what_larder_tells() {
    let front = Front::new("", |_| {
        Script::ok("a", &[("Cache-Control", "max-age=60"), ("Cache-Status", "Far; hit"), ("X-Cache", "far")])
    });
    for expected in [STORED, HIT] {
        let response = front.get("/", &[]);
        let members: Vec<_> = response.headers.all("cache-status").collect();
        assert_eq!((members.len(), members[0]), (2, "Far; hit"), "{members:?}");
        assert_eq!(told(&response), expected);
        assert_eq!(response.headers.all("x-cache").count(), 1);
    }
}

#[test]
fn every_response_that_is_not_stored_says_why() {
    let fields = |word: &str| -> &'static [(&'static str, &'static str)] {
        match word {
            "no-store" => &[("Cache-Control", "no-store")],
            "private" => &[("Cache-Control", "private, max-age=60")],
            "set-cookie" => &[("Set-Cookie", "a=1"), ("Cache-Control", "max-age=60")],
            "vary-star" => &[("Vary", "*"), ("Cache-Control", "max-age=60")],
            "cookie" | "authorization" | "status" => &[("ETag", "\"v\"")],
            "no-lifetime" => &[],
            _ => &[("Cache-Control", "max-age=60")],
        }
    };
    let front = Front::new("", move |request| {
        let status = if request.target == "/status" { 201 } else { 200 };
        Script::respond(status, fields(&request.target[1..]), "body")
    });
    let rows: [(&str, &str, Lines); 10] = [
        ("GET", "no-store", &[]),
        ("GET", "private", &[]),
        ("GET", "set-cookie", &[]),
        ("GET", "cookie", &[("Cookie", "a=1")]),
        ("GET", "authorization", &[("Authorization", "Basic YTpi")]),
        ("GET", "vary-star", &[]),
        ("GET", "status", &[]),
        ("GET", "no-lifetime", &[]),
        ("GET", "range", &[("Range", "bytes=0-1,900-901")]),
        ("HEAD", "head", &[]),
    ];
    for (method, word, asked) in rows {
        // The second time it is what is remembered, in the same word.
        for _ in 0..2 {
            let response = front.request(method, &format!("/{word}"), asked, b"");
            assert_eq!(cache_status(&response), format!("larder; fwd=uri-miss; detail={word}"));
            assert_eq!(response.header("x-cache"), "MISS");
        }
    }
}

#[test]
fn what_is_too_large_passes_whole_and_unstored() {
    let routes = "[cache]\nmax_object = \"1KiB\"\n\
                  [[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"api\"";
    let front = Front::with(routes, |request| {
        let body = vec![b'x'; 1024];
        let fields = [("Cache-Control", "max-age=60")];
        match request.target.as_str() {
            "/fits" => Script::ok(body, &fields),
            "/declared" => Script::ok([&body[..], b"y"].concat(), &fields),
            _ => Script::chunked(&fields).chunk(body).chunk("y").last_chunk(),
        }
    });
    assert_eq!(front.told("/fits", &[], 2), [STORED, HIT]);
    let too_large = "MISS larder; fwd=uri-miss; detail=too-large";
    assert_eq!(front.told("/declared", &[], 2), [too_large; 2]);
    // Nobody can know from the head of this one; it is remembered.
    assert_eq!(front.told("/grown", &[], 2)[1], too_large);
    for path in ["/declared", "/grown"] {
        let response = front.get(path, &[]);
        assert_eq!((response.body.len(), response.complete), (1025, true), "{path}");
    }
}

#[test]
fn what_varies_on_a_field_that_larder_writes_itself_is_not_stored() {
    for field in ["X-Forwarded-For", "Via", "Accept, forwarded"] {
        let front = Front::new("", move |request| {
            let fields = [("Cache-Control", "max-age=60"), ("Vary", field)];
            Script::ok(request.count.to_string(), &fields)
        });
        for turn in 1..=2 {
            let response = front.get("/", &[]);
            assert_eq!(response.text(), turn.to_string(), "{field}");
            assert!(cache_status(&response).ends_with("detail=vary-star"), "{field}");
        }
    }
}

#[test]
fn a_request_of_http_1_0_without_host_is_answered() {
    let front = Front::new("", counting(&[("Cache-Control", "max-age=60")]));
    for word in ["; stored", "; hit"] {
        let response = support::send(front.larder.proxy(), b"GET / HTTP/1.0\r\n\r\n");
        assert_eq!((response.status, response.text().as_str()), (200, "1"));
        assert!(cache_status(&response).contains(word), "{}", cache_status(&response));
    }
}
