//! Unsafe methods: never answered from what is stored, and what they make invalid.
//!
//! Memory only, over sockets, with one route.

mod support;

use support::Script;
use support::front::{Front, HIT, Lines, STORED, told};

const PASSED: &str = "BYPASS larder; fwd=method";

/// GETs are fresh for a minute; all else answers with the status and the fields that its path and
/// query name: `/a?status=303&Location=/b`.
fn front(cache: &str) -> Front {
    Front::new(&format!("ttl.default = \"60s\"\n{cache}"), |request| {
        if request.method == "GET" {
            return Script::ok(request.count.to_string(), &[]);
        }
        let status = request.header("x-status").parse().unwrap_or(200);
        let fields: Vec<_> = [("Location", "x-location"), ("Content-Location", "x-content-location")]
            .into_iter()
            .filter_map(|(name, from)| Some((name, request.headers.get(from)?)))
            .collect();
        Script::respond(status, &fields, if status == 204 { "" } else { "done" })
    })
}

#[test]
fn an_unsafe_method_makes_its_target_invalid() {
    let front = front("");
    for method in ["POST", "PUT", "DELETE", "PATCH", "UNKNOWN"] {
        let path = format!("/{method}");
        assert_eq!(front.told(&path, &[], 2), [STORED, HIT]);
        assert_eq!(told(&front.request(method, &path, &[], b"x")), PASSED, "{method}");
        assert_eq!(front.told(&path, &[], 2), [STORED, HIT], "{method}");
    }
    for method in ["OPTIONS", "PROPFIND", "SEARCH"] {
        let path = format!("/{method}");
        assert_eq!(told(&front.get(&path, &[])), STORED);
        assert_eq!(told(&front.request(method, &path, &[], b"")), PASSED, "{method}");
        assert_eq!(told(&front.get(&path, &[])), HIT, "{method}");
    }
}

#[test]
fn success_and_redirection_make_invalid_and_errors_do_not() {
    let front = front("");
    for (status, expected) in [
        ("201", STORED),
        ("204", STORED),
        ("303", STORED),
        ("400", HIT),
        ("404", HIT),
        ("500", HIT),
        ("503", HIT),
    ] {
        let path = format!("/{status}");
        front.get(&path, &[]);
        let response = front.request("POST", &path, &[("X-Status", status)], b"x");
        assert_eq!(response.status.to_string(), status);
        assert_eq!(told(&front.get(&path, &[])), expected, "{status}");
    }
}

#[test]
fn location_and_content_location_are_made_invalid_on_the_same_origin_alone() {
    let rows = [
        ("/b", "/b", STORED),
        ("b", "/b", STORED),
        ("./b", "/b", STORED),
        ("../b", "/b", STORED),
        ("?x=1", "/target?x=1", STORED),
        ("http://api.test/b", "/b", STORED),
        ("HTTP://API.test:80/b", "/b", STORED),
        ("//api.test/b", "/b", STORED),
        ("/b#part", "/b", STORED),
        ("/c", "/b", HIT),
        // §4.4: "MUST NOT trigger an invalidation" elsewhere.
        ("https://api.test/b", "/b", HIT),
        ("http://api.test:8080/b", "/b", HIT),
        ("http://other.test/b", "/b", HIT),
    ];
    let front = front("");
    for field in ["X-Location", "X-Content-Location"] {
        for (value, path, expected) in rows {
            front.get(path, &[]);
            assert_eq!(told(&front.get(path, &[])), HIT);
            front.request("POST", "/target", &[(field, value), ("X-Status", "201")], b"x");
            assert_eq!(told(&front.get(path, &[])), expected, "{field}: {value}");
        }
        // An error's Location makes nothing invalid.
        front.get("/b", &[]);
        front.request("POST", "/target", &[(field, "/b"), ("X-Status", "500")], b"x");
        assert_eq!(told(&front.get("/b", &[])), HIT, "{field}");
    }
}

#[test]
fn one_host_cannot_empty_anothers_cache() {
    let front = front("");
    let other = [("Host", "other.test")];
    assert_eq!(told(&front.get("/b", &other)), STORED);
    for field in ["X-Location", "X-Content-Location"] {
        front.request("POST", "/a", &[(field, "http://other.test/b")], b"x");
        assert_eq!(told(&front.get("/b", &other)), HIT, "{field}");
    }
    front.request("POST", "/b", &[], b"x");
    assert_eq!(told(&front.get("/b", &other)), HIT);
    front.request("POST", "/b", &other, b"x");
    assert_eq!(told(&front.get("/b", &other)), STORED);
}

#[test]
fn all_that_is_stored_of_a_url_goes_at_once() {
    let front = front(
        "key.headers = [\"X-Tenant\"]\nkey.ignore_query = [\"utm_*\"]\nauthorization = \"per-credential\"",
    );
    let asked: [Lines; 4] = [
        &[],
        &[("X-Tenant", "a")],
        &[("X-Tenant", "b")],
        &[("X-Tenant", "b"), ("Authorization", "Basic c2VjcmV0")],
    ];
    for fields in asked {
        assert_eq!(front.told("/a?x=1&y=2", fields, 2), [STORED, HIT]);
    }
    front.request("DELETE", "/a?utm_source=z&y=2&x=1", &[("X-Tenant", "c")], b"");
    for fields in asked {
        let response = front.get("/a?x=1&y=2", fields);
        assert_eq!(response.header("x-cache"), "MISS", "{fields:?}: {:?}", response.headers);
        assert_eq!(told(&front.get("/a?x=1&y=2", fields)), HIT, "{fields:?}");
    }
    // Another query is another URL.
    assert_eq!(told(&front.get("/a?x=1", &[])), STORED);
    front.request("DELETE", "/a", &[], b"");
    assert_eq!(told(&front.get("/a?x=1", &[])), HIT);
}

#[test]
fn variants_go_with_their_url() {
    let front = Front::new("ttl.default = \"60s\"", |request| {
        Script::ok(request.header("accept"), &[("Vary", "Accept")])
    });
    for accept in ["a/a", "b/b"] {
        front.get("/", &[("Accept", accept)]);
        assert_eq!(told(&front.get("/", &[("Accept", accept)])), HIT);
    }
    front.request("PUT", "/", &[("Accept", "c/c")], b"x");
    for accept in ["a/a", "b/b"] {
        assert_eq!(front.get("/", &[("Accept", accept)]).header("x-cache"), "MISS", "{accept}");
    }
}

#[test]
fn a_post_is_never_stored_nor_answered_from_what_is() {
    let front = Front::new("", |request| {
        Script::ok(
            format!("{} {}", request.method, request.count),
            &[("Cache-Control", "max-age=60"), ("Content-Location", "/x")],
        )
    });
    for count in 1..=2 {
        let response = front.request("POST", "/a", &[], b"hello");
        assert_eq!((told(&response), response.text()), (PASSED.into(), format!("POST {count}")));
        assert_eq!(front.origin.last().body, b"hello");
    }
    let get = front.get("/a", &[]);
    assert_eq!((told(&get).as_str(), get.text().as_str()), (STORED, "GET 3"));
    assert_eq!(front.request("POST", "/a", &[], b"").text(), "POST 4");
}

#[test]
fn a_write_that_fails_on_the_way_leaves_what_is_stored() {
    let front = Front::new("ttl.default = \"60s\"", |request| match request.method.as_str() {
        "GET" => Script::ok("a", &[]),
        _ => Script::new().reset(),
    });
    front.get("/", &[]);
    assert_eq!(front.request("POST", "/", &[], b"x").status, 502);
    assert_eq!(told(&front.get("/", &[])), HIT);
}
