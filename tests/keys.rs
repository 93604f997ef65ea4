//! What a request is stored under: paths as received or by a route's policy, and the key on request.
//!
//! Memory only, over sockets.

mod support;

use support::front::{Front, HIT, Lines, STORED, cache_status, told};
use support::{Request, Script};

const PATH: &str = "BYPASS larder; fwd=bypass; detail=path";

fn front(cache: &str) -> Front {
    Front::new(&format!("ttl.default = \"60s\"\n{cache}"), target)
}

fn target(request: &Request) -> Script {
    Script::ok(&request.target, &[])
}

#[test]
fn a_path_is_keyed_as_received() {
    let front = front("");
    for path in [
        "/a", "/A", "/%61", "/a/", "//a", "/a//", "/a;x", "/a%2Fb", "/a%2fb", "/a%5cb", "/a?x", "/a?x=",
        "/.a",
    ] {
        assert_eq!(told(&front.get(path, &[])), STORED, "{path}");
        let hit = front.get(path, &[]);
        assert_eq!((told(&hit).as_str(), hit.text().as_str()), (HIT, path));
    }
}

#[test]
fn a_path_with_dot_segments_does_not_use_the_cache_unless_the_route_says_so() {
    let front = front("");
    for path in
        ["/a/../b", "/a/./b", "/./b", "/%2e%2E/b", "/a/.%2e", "/a/..;x/b", "/a/..%2fb", "/a/..%5Cb", "/a/."]
    {
        assert_eq!(front.told(path, &[], 2), [PATH, PATH], "{path}");
        assert_eq!(front.origin.last().target, path);
    }
}

#[test]
fn dot_segments_are_resolved_in_the_key_where_the_route_says_so() {
    let front = front("key.dot_segments = \"resolve\"");
    assert_eq!(told(&front.get("/x/../a/b", &[])), STORED);
    assert_eq!(front.origin.last().target, "/x/../a/b", "the origin sees it as received");
    for path in ["/a/b", "/a/./b", "/../a/b", "/x/%2E%2e/a/b", "/a/c/.%2E/b"] {
        assert_eq!(told(&front.get(path, &[])), HIT, "{path}");
    }
    for path in ["/a//b", "/a/b/."] {
        assert_eq!(told(&front.get(path, &[])), STORED, "{path}");
    }
    // What not every origin resolves.
    for path in ["/x/..;/a/b", "/x/..%2fa/b", "/x/..%5ca/b", "/x%2f../a/b"] {
        assert_eq!(told(&front.get(path, &[])), PATH, "{path}");
    }
    // A write goes by the same key.
    front.request("DELETE", "/y/../a/b", &[], b"");
    assert_eq!(told(&front.get("/a/b", &[])), STORED);
}

#[test]
fn a_write_to_a_path_with_dot_segments_makes_what_it_means_invalid_too() {
    let front = front("");
    assert_eq!(front.told("/a/b?q", &[], 2), [STORED, HIT]);
    front.request("DELETE", "/a/x/../b?q", &[], b"");
    assert_eq!(told(&front.get("/a/b?q", &[])), STORED);
}

#[test]
fn dot_segments_are_part_of_the_key_where_the_route_says_so() {
    let front = front("key.dot_segments = \"keep\"");
    for path in ["/a/../b", "/b", "/a/./b", "/a/..%2fb"] {
        assert_eq!(front.told(path, &[], 2), [STORED, HIT], "{path}");
    }
}

#[test]
fn slashes_in_a_row_are_merged_in_the_key_where_the_route_says_so() {
    let front = front("key.slashes = \"merge\"");
    assert_eq!(told(&front.get("/a//b///", &[])), STORED);
    assert_eq!(front.origin.last().target, "/a//b///");
    assert_eq!(told(&front.get("//a/b/", &[])), HIT);
    assert_eq!(told(&front.get("/a/b", &[])), STORED);
}

#[test]
fn no_route_stores_what_an_origin_may_take_for_anothers() {
    let routes = "[[route]]\nname = \"account\"\nmatch = { path = [\"/account\", \"/account/*\"] }\nupstream = \"api\"\n\
                  cache = false\n[[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"api\"\n\
                  [route.cache]\nttl.default = \"60s\"\n";
    let front = Front::with(routes, target);
    for path in [
        "/%61ccount/me",
        "/account%2fme",
        "/account%2Fme",
        "//account/me",
        "/account;x/me",
        "/account%3bx/me",
        "/account%5cme",
        "/account%3fme",
        "/account%23me",
        "/account%00",
        "/;x/account",
    ] {
        assert_eq!(front.told(path, &[], 2), [PATH, PATH], "{path}");
        assert_eq!(front.origin.last().target, path, "as received");
    }
    for path in ["/a%2fb", "/a;x", "//a", "/a/account", "/accounts", "/account%20", "/Account"] {
        assert_eq!(front.told(path, &[], 2), [STORED, HIT], "{path}");
    }
}

#[test]
fn no_route_stores_under_the_key_of_another() {
    let route = |name, path, cache| {
        format!(
            "[[route]]\nname = \"{name}\"\nmatch = {{ path = \"{path}\" }}\nupstream = \"api\"\n\
             [route.cache]\nttl.default = \"60s\"\n{cache}\n"
        )
    };
    let merging = "key.dot_segments = \"resolve\"\nkey.slashes = \"merge\"\ncookies = \"ignore\"";
    let routes = route("static", "/static/*", merging) + &route("all", "/*", merging);
    let front = Front::with(&routes, target);
    for path in ["/static/../account", "/static/..", "//static/a", "/x/../static/a"] {
        assert_eq!(front.told(path, &[("Cookie", "session=1")], 2), [PATH, PATH], "{path}");
    }
    for (path, expected) in
        [("/static/x/../a", STORED), ("/static//a", HIT), ("/x/../account", STORED), ("/account", HIT)]
    {
        assert_eq!(told(&front.get(path, &[])), expected, "{path}");
    }
}

#[test]
fn a_client_that_asks_is_told_the_key_of_its_own_request() {
    let front = front(
        "key.headers = [\"X-Tenant\"]\nkey.ignore_query = [\"utm_*\"]\nauthorization = \"per-credential\"",
    );
    let asked: Lines =
        &[("X-Tenant", "a \"b\""), ("Authorization", "Basic c2VjcmV0"), ("Larder-Debug", "other, KEY")];
    let path = "/a%22?y=2&utm_x=1&x=1";
    let told_key = |response| {
        let status = cache_status(&response);
        let (before, key) = status.split_once("; key=\"").unwrap_or((&status, ""));
        (before.to_owned(), key.to_owned())
    };
    let (before, key) = told_key(front.get(path, asked));
    assert_eq!(before.split("; ttl").next(), Some("larder; fwd=uri-miss; stored"));
    let (url, digest) = key.split_at(key.find(";a:").map_or(0, |at| at + 3));
    assert_eq!(url, "http://api.test/a%22?x=1&y=2 h:x-tenant=a%20\\\"b\\\";a:");
    assert_eq!(digest.len(), 64 + 2, "256 bits in hex, and the end: {digest}");
    assert!(!key.contains("c2VjcmV0"));
    let sent = front.origin.last();
    assert_eq!(sent.headers.get("larder-debug"), None, "the origin does not get it");
    // It is no part of the key: who does not ask is answered from the same, and not told.
    let hit = front.get(path, &asked[..2]);
    assert_eq!(told(&hit), HIT);
    assert!(!cache_status(&hit).contains("key="));
    let (before, again) = told_key(front.get(path, asked));
    assert!(before.starts_with("larder; hit; ttl="), "{before}");
    assert_eq!(again, key);
    // No key was used.
    assert_eq!(cache_status(&front.request("POST", path, asked, b"x")), "larder; fwd=method");
    // Other words are none of ours.
    assert!(!cache_status(&front.get("/", &[("Larder-Debug", "keys")])).contains("key="));
}

#[test]
fn nobody_is_told_the_key_where_it_is_off() {
    let routes = "[cache]\nstatus_key = false\n[[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"api\"";
    let front = Front::with(routes, |_| Script::ok("a", &[("Cache-Control", "max-age=60")]));
    assert_eq!(front.told("/", &[("Larder-Debug", "key")], 2), [STORED, HIT]);
    assert_eq!(front.origin.last().headers.get("larder-debug"), None);
}

#[test]
fn a_response_that_varies_on_the_debug_field_varies_on_nothing_that_differs() {
    let front =
        Front::new("", |_| Script::ok("a", &[("Cache-Control", "max-age=60"), ("Vary", "Larder-Debug")]));
    assert_eq!(told(&front.get("/", &[])), STORED);
    assert!(cache_status(&front.get("/", &[("Larder-Debug", "key")])).starts_with("larder; hit"));
}
