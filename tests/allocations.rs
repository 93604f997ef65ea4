//! Nothing in `rules/` allocates on the memory-hit path: which stored response a request gets
//! (RFC 9111 §4.1), and whether it may have it (§4), is found without a single allocation.
//!
//! Knows an allocator that counts what its own thread asks for. Must not know: how the rules do it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, StatusCode};
use larder::clock::Timestamp;
use larder::config::{Config, SHIPPED};
use larder::rules::{self, Policy, RequestFacts, ResponseFacts, Reuse, reuse, storing};
use larder::store::{Class, Memory, PURGES, Purges, Resource};
use larder::stored::{
    Born, CacheKey, Content, KeyPolicy, Prefix, Purge, Received, Scope, Standing, StoredResponse, TagPolicy,
};

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, and how often this thread has asked it for memory.
struct Counting;

// SAFETY: hands everything on to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        // SAFETY: as this function's own contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as this function's own contract.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        // SAFETY: as this function's own contract.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = ASKED.get();
    let result = work();
    (result, ASKED.get() - before)
}

const AT: Timestamp = Timestamp::from_secs(784_111_777);

fn fields(lines: &[&str]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    map
}

fn key() -> CacheKey {
    let policy = KeyPolicy::default();
    CacheKey::of("http", "a.test", "/a", Some("x=1"), &HeaderMap::new(), &policy)
}

/// What is stored of this answer to this request, alone under its key.
fn resource(request: &HeaderMap, answer: &HeaderMap) -> Resource {
    let facts = ResponseFacts::of(200, answer, AT, AT);
    let asked = RequestFacts::of(&Method::GET, request);
    let permit = storing::judge(&asked, &facts, &Policy::default()).expect("storable");
    let received = Received {
        status: StatusCode::OK,
        headers: answer,
        request_time: AT,
        response_time: AT,
        content: Content::Whole(StoredResponse::compact(&[])),
        selecting: rules::selecting_fields(&facts.vary, request, Policy::default().normalize),
        key: key(),
        standing: Arc::new(Standing::of(Born::Here(0), None, answer, &facts.groups, &TagPolicy::default())),
    };
    let memory = Memory::new(&Config::parse(SHIPPED, "proxy.toml", &|_| None).unwrap().cache);
    assert!(memory.keep(Arc::new(StoredResponse::new(permit, received)), Class::Plain, &Purges::new(PURGES)));
    memory.find(&key()).expect("kept")
}

#[test]
fn a_hit_is_judged_by_purges_without_an_allocation_and_its_tags_are_asked_about_once() {
    let tags: Vec<String> = (0..6_000).map(|nth| format!("tag-{nth}")).collect();
    let answer = fields(&["cache-control: max-age=60", &format!("surrogate-key: {}", tags.join(" "))]);
    let resource = resource(&HeaderMap::new(), &answer);
    let stored = &resource.variants[0];
    assert_eq!(stored.standing.tags().len(), 6_000);
    let purges = Purges::new(PURGES);
    let judged = |what: &str| {
        let (purged, count) = allocations(|| black_box(&purges).is_purged(black_box(stored)));
        assert_eq!(count, 0, "{what}");
        purged
    };
    assert!(!judged("nothing purged"));
    let purge = |scope| purges.apply(&Purge::hard(scope), None, AT);
    let seq = purge(Scope::tag("another").unwrap());
    assert!(!judged("asked about") && stored.standing.cleared() == seq);
    assert!(!judged("not asked again"));
    purge(Scope::Prefix(Prefix::parse("/b/*").unwrap()));
    assert!(!judged("a prefix"));
    purge(Scope::tag("tag-5999").unwrap());
    assert!(judged("purged"));
}

#[test]
fn the_counter_counts() {
    let (boxed, count) = allocations(|| black_box(Box::new([0_u8; 64])));
    assert_eq!((boxed.len(), count), (64, 1));
    let (_, count) = allocations(|| black_box(1 + 1));
    assert_eq!(count, 0);
}

#[test]
fn a_hit_is_selected_and_judged_without_an_allocation() {
    let public = "cache-control: public, max-age=60, stale-while-revalidate=30, stale-if-error=90";
    let vary = "vary: accept, accept-encoding, accept-language";
    let common = "accept-language: de, en;q=0.5";
    for (what, request, answer) in [
        ("plain", &["accept: */*"][..], &["cache-control: max-age=60"][..]),
        ("full", &["accept: */*"], &[public, "etag: \"a\"", "last-modified: Sun, 06 Nov 1994 08:00:00 GMT"]),
        ("expires", &["accept: */*"], &["expires: Sun, 06 Nov 1994 08:50:37 GMT"]),
        ("vary", &["accept: text/html, */*;q=0.1", "accept-encoding: gzip, br", common], &[public, vary]),
        ("vary, absent", &[], &[public, vary]),
        ("no-cache of fields", &["accept: */*"], &["cache-control: max-age=60, no-cache=\"x, y\"", "x: y"]),
        ("credentials", &["authorization: Basic x", "cookie: a=b"], &[public]),
        (
            "directives",
            &["cache-control: max-age=50, min-fresh=1, max-stale=5"],
            &["cache-control: max-age=60"],
        ),
    ] {
        let (request, answer) = (fields(request), fields(answer));
        let resource = resource(&request, &answer);
        let (asked, count) = allocations(|| RequestFacts::of(&Method::GET, &request));
        assert_eq!(count, 0, "{what}: reading the request");
        let policy = Policy::default();
        for secs in [0, 30, 59, 60, 75, 1000] {
            let now = AT.saturating_add(Duration::from_secs(secs));
            let (verdict, count) = allocations(|| {
                let stored =
                    black_box(&resource).select(black_box(&request), policy.normalize).expect("matches");
                (
                    reuse::judge(&asked, &stored.facts, &policy, now),
                    rules::client_condition(&request, &stored.facts),
                )
            });
            assert_eq!(count, 0, "{what} after {secs} s: {verdict:?}");
            assert_eq!(
                matches!(verdict.0, Reuse::Fresh(_)),
                secs < 50 || (secs == 59 && what != "directives"),
                "{what} after {secs} s: {verdict:?}"
            );
        }
    }
}

#[test]
fn however_a_selecting_field_is_written_comparing_it_costs_no_allocation() {
    let vary = "vary: accept, accept-encoding, authorization, cookie, user-agent, x-list";
    let answer = fields(&["cache-control: public, max-age=60", vary]);
    let stored = fields(&[
        "accept: text/html;q=0.5, */*",
        "accept-encoding: gzip, br",
        "authorization: Basic x",
        "cookie: a=b; c=d",
        "user-agent: x (a, b)",
        "x-list: a, b, c",
    ]);
    let resource = resource(&stored, &answer);
    let written = [
        "accept: text/html ; q=0.5 ,*/*",
        "accept-encoding: br,gzip;q=1.0",
        "authorization: Basic x",
        "cookie: a=b; c=d",
        "user-agent: x (a, b)",
        "x-list: a,b",
        "x-list: c",
    ];
    for at in 0..=written.len() {
        // With each of them changed in turn, it is another variant's request; the last round changes none.
        let other: Vec<String> = written
            .iter()
            .enumerate()
            .map(|(nth, line)| if nth == at { format!("{line}x") } else { (*line).to_owned() })
            .collect();
        let other = fields(&other.iter().map(String::as_str).collect::<Vec<_>>());
        let (found, count) = allocations(|| resource.select(&other, Policy::default().normalize).is_some());
        assert_eq!((found, count), (at == written.len(), 0), "{other:?}");
    }
}

#[test]
fn a_clients_conditions_are_judged_without_an_allocation() {
    let lines = ["cache-control: max-age=60", "etag: \"a\"", "last-modified: Sun, 06 Nov 1994 08:00:00 GMT"];
    let resource = resource(&HeaderMap::new(), &fields(&lines));
    let stored = resource.select(&HeaderMap::new(), Policy::default().normalize).unwrap();
    for (condition, not_modified) in [
        ("if-none-match: \"x\", W/\"a\"", true),
        ("if-none-match: \"x\", \"y\"", false),
        ("if-none-match: *", true),
        ("if-modified-since: Sun, 06 Nov 1994 08:00:00 GMT", true),
        ("if-modified-since: Sunday, 06-Nov-94 07:59:59 GMT", false),
    ] {
        let request = fields(&[condition]);
        let (found, count) = allocations(|| rules::client_condition(&request, &stored.facts));
        assert_eq!((found == rules::ClientCondition::NotModified, count), (not_modified, 0), "{condition}");
    }
    for (condition, holds) in
        [("if-range: \"a\"", true), ("if-range: \"b\"", false), ("if-range: W/\"a\"", false)]
    {
        let request = fields(&[condition, "range: bytes=0-1"]);
        let (asked, count) = allocations(|| RequestFacts::of(&Method::GET, &request));
        assert!(asked.ranges.is_some() && count == 0, "{condition}: {count}");
        let found = allocations(|| rules::if_range_holds(&request, &stored.facts));
        assert_eq!(found, (holds, 0), "{condition}");
    }
}
