//! The rules against an oracle: the `http-cache-semantics` crate judges the same random messages, and
//! wherever the two differ, a clause says who is right.
//!
//! Knows the grammar in which both claim to be right, and every known disagreement, as a named
//! exception ([`EXCEPTIONS`], listed in docs/caching.md too). A comparison to which no exception
//! applies has to come out the same; how many such there are is counted, so that the exceptions cannot
//! grow over everything, and each exception has to be met.
//! Must not know: how either of them comes to its verdict.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, Method, Request, Response};
use http_cache_semantics::{AfterResponse, CacheOptions, CachePolicy};
use larder::clock::Timestamp;
use larder::fields::date;
use larder::rules::{self, Policy, RequestFacts, ResponseFacts, Reuse, reuse, storing};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, TestRunner};

const AT: Timestamp = Timestamp::from_secs(784_111_777);

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Aspect {
    /// May it be stored?
    Stored,
    /// How old is it?
    Age,
    /// How long is it still fresh?
    Left,
    /// Does it answer the second request, unvalidated?
    Answers,
    /// Does the 304 speak of it?
    Confirms,
    /// Which fields has it then?
    Fields,
}
use Aspect::{Age, Answers, Confirms, Fields, Left, Stored};

/// A disagreement that the RFC settles: where it may show, and the clause.
struct Exception {
    name: &'static str,
    /// The clause that settles it for Larder; or that leaves a choice, which Larder makes otherwise.
    clause: &'static str,
    aspects: &'static [Aspect],
    applies: fn(&Case) -> bool,
}

const EXCEPTIONS: &[Exception] = &[
    // "the response status code is final": the oracle has a list of those that it understands.
    Exception {
        name: "any final status with an explicit lifetime",
        clause: "9111 §3",
        aspects: &[Stored, Left, Answers],
        applies: |case| !ORACLES_STATUSES.contains(&case.status),
    },
    // "SHOULD ignore the no-store directive if it understands": the oracle does not know it.
    Exception {
        name: "must-understand",
        clause: "9111 §5.2.2.3",
        aspects: &[Stored, Left, Answers],
        applies: |case| case.says("no-store, must-understand"),
    },
    // "then only the listed header fields are limited to a single user": the oracle, like many, takes it
    // for the unqualified form.
    Exception {
        name: "private for some fields",
        clause: "9111 §5.2.2.7",
        aspects: &[Stored, Left, Answers],
        applies: |case| case.says("private=\"x\""),
    },
    Exception {
        name: "no-cache for some fields",
        clause: "9111 §5.2.2.4",
        aspects: &[Stored, Left, Answers],
        applies: |case| case.says("no-cache=\"x\""),
    },
    // "always fails to match": the oracle stores it, and then never uses it.
    Exception {
        name: "Vary: * is not stored",
        clause: "9111 §4.1",
        aspects: &[Stored],
        applies: |case| case.has("vary: *"),
    },
    // A choice: the setting `set_cookie`. The oracle stores it and calls it stale.
    Exception {
        name: "Set-Cookie is not stored unless sharing is spoken of",
        clause: "9111 §7.3",
        aspects: &[Stored, Left, Answers],
        applies: |case| case.has("set-cookie: a=b"),
    },
    // A choice: `cookies`.
    Exception {
        name: "Cookie shares only what the origin gives a lifetime",
        clause: "9111 §7.3",
        aspects: &[Stored, Answers],
        applies: |case| case.asks_any("cookie: a=b"),
    },
    // "MUST NOT use … to satisfy any subsequent request": the oracle looks at the first request alone;
    // and must-revalidate and s-maxage permit only for as long as the origin said.
    Exception {
        name: "Authorization counts in each request",
        clause: "9111 §3.5",
        aspects: &[Stored, Answers],
        applies: |case| case.asks_any("authorization: a"),
    },
    // "many HTTP caches in common use today only cache GET responses".
    Exception {
        name: "the answer to HEAD is not stored",
        clause: "9111 §2",
        aspects: &[Stored, Left, Answers],
        applies: |case| case.method == Method::HEAD,
    },
    // "apparent_age": the oracle believes Age alone.
    Exception {
        name: "a Date in the past is an age",
        clause: "9111 §4.2.3",
        aspects: &[Age, Left, Answers, Stored],
        applies: |case| case.has("date: Sun, 06 Nov 1994 08:49:17 GMT"),
    },
    // "If the field value … is invalid …, ignore"; of a list, "the first member": the oracle reads none.
    Exception {
        name: "the first member of an Age list",
        clause: "9111 §5.1",
        aspects: &[Age, Left, Answers, Stored],
        applies: |case| case.has("age: 20, 30"),
    },
    // "once the response has become stale": the oracle takes it to be stale at once.
    Exception {
        name: "proxy-revalidate forbids stale, not fresh",
        clause: "9111 §5.2.2.8",
        aspects: &[Left, Answers],
        applies: |case| case.says("proxy-revalidate"),
    },
    // RFC 8246 speaks "during its freshness lifetime" and gives none.
    Exception {
        name: "immutable gives no lifetime",
        clause: "8246 §2",
        aspects: &[Stored, Left, Answers],
        applies: |case| case.says("immutable"),
    },
    // "consider the value to be 2147483648": for ever, in both.
    Exception {
        name: "2^31 is the longest lifetime",
        clause: "9111 §1.2.2",
        aspects: &[Left],
        applies: |case| case.says("max-age=3000000000"),
    },
    // "to be compared case-insensitively": the oracle does not.
    Exception {
        name: "directives in any case",
        clause: "9111 §5.2",
        aspects: &[Stored, Left, Answers],
        applies: |case| case.says("Max-Age=45"),
    },
    // A comma in a quoted string divides nothing (9110 §5.6.4); the oracle: "lame parsing".
    Exception {
        name: "no directive in a quoted string",
        clause: "9111 §5.2.3",
        aspects: &[Stored, Left, Answers],
        applies: |case| case.says("ext=\"a, max-age=7\""),
    },
    // "consider responses that have invalid freshness information … to be stale": the oracle passes a
    // directive without a value over.
    Exception {
        name: "max-age without a value is stale",
        clause: "9111 §4.2.1",
        aspects: &[Stored, Left, Answers],
        applies: |case| case.says("max-age"),
    },
    // "the meaning of Pragma: no-cache in responses was never specified".
    Exception {
        name: "Pragma in a response",
        clause: "9111 §5.4",
        aspects: &[Stored, Left, Answers],
        applies: |case| case.has("pragma: no-cache"),
    },
    // All three forms are dates (9110 §5.6.7); the oracle reads one.
    Exception {
        name: "the obsolete forms of a date",
        clause: "9110 §5.6.7",
        aspects: &[Stored, Left, Answers],
        applies: |case| case.has("expires: Sunday, 06-Nov-94 08:50:37 GMT"),
    },
    // "SHOULD consider a date with a zone abbreviation other than GMT to be invalid".
    Exception {
        name: "a zone other than GMT",
        clause: "9111 §4.2",
        aspects: &[Stored, Left, Answers],
        applies: |case| case.has("expires: Sun, 06 Nov 1994 08:50:37 +0000"),
    },
    // RFC 5861 §3: the oracle does not know it.
    Exception {
        name: "stale-while-revalidate",
        clause: "5861 §3",
        aspects: &[Stored, Answers],
        applies: |case| case.says("stale-while-revalidate=30"),
    },
    // "no more than the specified number of seconds": the oracle wants less.
    Exception {
        name: "max-stale includes its value",
        clause: "9111 §5.2.1.2",
        aspects: &[Answers],
        applies: |case| case.asks("max-stale=20") && case.staleness() == 20,
    },
    // "If no value is assigned": a malformed one is not none. The oracle takes any staleness then.
    Exception {
        name: "a malformed max-stale permits nothing",
        clause: "9111 §5.2.1.2",
        aspects: &[Answers],
        applies: |case| case.asks("max-stale=x"),
    },
    // "MUST NOT generate a stale response if it is prohibited …": the oracle looks at must-revalidate alone.
    Exception {
        name: "s-maxage and no-cache forbid stale, whatever the client accepts",
        clause: "9111 §4.2.4",
        aspects: &[Answers],
        applies: |case| case.asks_for("max-stale") && (case.says("no-cache") || case.count("s-maxage") > 0),
    },
    // A choice: a reload asks for the origin's word, though the age is still zero.
    Exception {
        name: "max-age=0 in a request asks the origin",
        clause: "9111 §5.2.1.1",
        aspects: &[Answers],
        applies: |case| case.asks("max-age=0"),
    },
    // "deprecates Pragma": it counts where there is no Cache-Control, as ever since RFC 7234 §5.4.
    Exception {
        name: "Pragma beside Cache-Control",
        clause: "9111 §5.4",
        aspects: &[Answers],
        applies: |case| case.later_has("pragma: no-cache") && !case.asked.is_empty(),
    },
    // RFC 9110 §5.3: lines are one list; the oracle looks at the first.
    Exception {
        name: "whitespace in a selecting field",
        clause: "9111 §4.1",
        aspects: &[Answers],
        applies: |case| case.later_has("accept: text/html,text/plain"),
    },
    // "those strong validators": a weak tag that is stored is none, though its letters be the same.
    Exception {
        name: "a strong tag confirms a strong one only",
        clause: "9111 §4.3.4",
        aspects: &[Confirms],
        applies: |case| case.has("etag: W/\"a\"") && case.confirmed_by("etag: \"a\""),
    },
    // A choice: our condition named one response; many servers leave out the ETag that they must repeat.
    Exception {
        name: "a 304 without validators",
        clause: "9111 §4.3.4",
        aspects: &[Confirms],
        applies: |case| !case.not_modified.iter().any(|line| is_validator(line)),
    },
];

/// Those the oracle stores.
const ORACLES_STATUSES: [u16; 14] = [200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 501];

fn is_validator(line: &str) -> bool {
    line.starts_with("etag") || line.starts_with("last-modified")
}

/// A request, its answer, a later request, and a 304.
#[derive(Clone, Debug)]
struct Case {
    method: Method,
    first: Vec<&'static str>,
    status: u16,
    said: Vec<&'static str>,
    fields: Vec<&'static str>,
    asked: Vec<&'static str>,
    later: Vec<&'static str>,
    not_modified: Vec<&'static str>,
    secs: u64,
}

fn lines(fields: &[&str], directives: &[&str]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in fields {
        let (name, value) = line.split_once(": ").unwrap();
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    if !directives.is_empty() {
        map.append("cache-control", directives.join(", ").parse().unwrap());
    }
    map
}

impl Case {
    fn says(&self, directive: &str) -> bool {
        self.said.contains(&directive)
    }

    /// How many times a directive of this name is said, in any case.
    fn count(&self, name: &str) -> usize {
        let named = |said: &&&str| said.split('=').next().unwrap().eq_ignore_ascii_case(name);
        self.said.iter().filter(named).count()
    }

    fn has(&self, line: &str) -> bool {
        self.fields.contains(&line)
    }

    fn asks(&self, directive: &str) -> bool {
        self.asked.contains(&directive)
    }

    fn asks_for(&self, name: &str) -> bool {
        self.asked.iter().any(|asked| asked.split('=').next() == Some(name))
    }

    fn later_has(&self, line: &str) -> bool {
        self.later.contains(&line)
    }

    fn asks_any(&self, line: &str) -> bool {
        self.first.contains(&line) || self.later_has(line)
    }

    fn confirmed_by(&self, line: &str) -> bool {
        self.not_modified.contains(&line)
    }

    fn request(&self) -> Request<()> {
        let mut request =
            Request::builder().method(self.method.clone()).uri("http://a.test/").body(()).unwrap();
        *request.headers_mut() = lines(&self.first, &[]);
        request
    }

    fn second(&self) -> Request<()> {
        let mut request = Request::builder().uri("http://a.test/").body(()).unwrap();
        *request.headers_mut() = lines(&self.later, &self.asked);
        request
    }

    fn answer(&self) -> HeaderMap {
        lines(&self.fields, &self.said)
    }

    fn facts(&self) -> ResponseFacts {
        ResponseFacts::of(self.status, &self.answer(), AT, AT)
    }

    fn why_not(&self) -> &'static str {
        let asked = RequestFacts::of(&self.method, self.request().headers());
        storing::judge(&asked, &self.facts(), &Policy::default()).map_or_else(|why| why.as_str(), |_| "")
    }

    fn now(&self) -> Timestamp {
        AT.saturating_add(Duration::from_secs(self.secs))
    }

    fn staleness(&self) -> u64 {
        let (facts, policy) = (self.facts(), Policy::default());
        rules::current_age(&facts, self.now())
            .saturating_sub(rules::lifetime(&facts, &policy).duration)
            .as_secs()
    }

    fn oracle(&self) -> CachePolicy {
        let mut response = Response::builder().status(self.status).body(()).unwrap();
        *response.headers_mut() = self.answer();
        CachePolicy::new_options(&self.request(), &response, moment(AT), CacheOptions::default())
    }
}

fn moment(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(at.as_millis())
}

fn seldom(of: Vec<&'static str>) -> impl Strategy<Value = Vec<&'static str>> {
    prop_oneof![7 => Just(Vec::new()), 1 => select(of).prop_map(|one| vec![one])]
}

fn joined(
    usual: impl Strategy<Value = Vec<&'static str>>,
    odd: Vec<&'static str>,
) -> impl Strategy<Value = Vec<&'static str>> {
    (usual, seldom(odd)).prop_map(|(usual, odd)| [usual, odd].concat())
}

fn case() -> impl Strategy<Value = Case> {
    (plain_case(), 0..40_u8).prop_map(|(case, nudge)| nudged(case, nudge))
}

fn plain_case() -> impl Strategy<Value = Case> {
    let said = prop_oneof![
        4 => subsequence(vec!["max-age=60", "s-maxage=90", "public", "must-revalidate"], 0..=3),
        1 => subsequence(vec!["no-store", "private", "no-cache", "max-age=0", "s-maxage=0", "max-age=x", "public"], 0..=2),
    ];
    let odd_said = vec![
        "no-store, must-understand",
        "private=\"x\"",
        "no-cache=\"x\"",
        "proxy-revalidate",
        "immutable",
        "max-age=3000000000",
        "Max-Age=45",
        "ext=\"a, max-age=7\"",
        "max-age",
        "stale-while-revalidate=30",
        "ext",
        "ext=7",
        "no-transform",
    ];
    let fields = subsequence(
        vec![
            "date: Sun, 06 Nov 1994 08:49:37 GMT",
            "age: 30",
            "expires: Sun, 06 Nov 1994 08:50:37 GMT",
            "etag: \"a\"",
            "vary: accept",
            "x-kept: 1",
            "link: <a>",
            "last-modified: Sun, 06 Nov 1994 07:09:37 GMT",
        ],
        0..=5,
    );
    let odd_fields = vec![
        "date: Sun, 06 Nov 1994 08:49:17 GMT",
        "age: x",
        "age: 20, 30",
        "expires: 0",
        "expires: Sun, 06 Nov 1994 08:48:37 GMT",
        "expires: Sunday, 06-Nov-94 08:50:37 GMT",
        "expires: Sun, 06 Nov 1994 08:50:37 +0000",
        "etag: W/\"a\"",
        "vary: *",
        "set-cookie: a=b",
        "pragma: no-cache",
    ];
    let status = prop_oneof![
        8 => select(vec![200_u16, 200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 410]),
        1 => select(vec![201_u16, 400, 403, 500, 503, 429, 304, 405, 414, 501]),
    ];
    let method = prop_oneof![30 => Just(Method::GET), 1 => Just(Method::HEAD), 1 => Just(Method::PUT)];
    let first = joined(Just(vec!["accept: text/html, text/plain"]), vec!["authorization: a", "cookie: a=b"]);
    let asked = joined(
        subsequence(vec!["max-age=45", "min-fresh=20", "max-stale=20", "no-cache", "no-store"], 0..=2),
        vec!["max-age=0", "max-stale", "max-stale=x", "min-fresh=x", "max-age=x", "ext"],
    );
    let accept = prop_oneof![
        8 => Just("accept: text/html, text/plain"),
        1 => Just("accept: text/html,text/plain"),
        2 => Just("accept: text/plain"),
    ];
    let later = (accept, seldom(vec!["authorization: a", "cookie: a=b", "pragma: no-cache"]))
        .prop_map(|(accept, more)| [vec![accept], more].concat());
    let not_modified = joined(
        subsequence(
            vec![
                "etag: \"a\"",
                "x-kept: 2",
                "link: <b>",
                "date: Sun, 06 Nov 1994 08:51:37 GMT",
                "content-length: 9",
                "last-modified: Sun, 06 Nov 1994 07:09:37 GMT",
            ],
            0..=5,
        ),
        vec![
            "etag: W/\"a\"",
            "etag: \"b\"",
            "etag: W/\"b\"",
            "content-encoding: br",
            "last-modified: Sun, 06 Nov 1994 08:09:37 GMT",
        ],
    );
    let ends = vec![0_u64, 0, 15, 29, 30, 44, 45, 59, 60, 61, 79, 80, 80, 89, 90, 110];
    let secs = prop_oneof![5 => select(ends), 1 => 0..200_u64];
    (
        method,
        first,
        status,
        joined(said, odd_said),
        joined(fields, odd_fields),
        asked,
        later,
        not_modified,
        secs,
    )
        .prop_map(|(method, first, status, said, fields, asked, later, not_modified, secs)| Case {
            method,
            first,
            status,
            said,
            fields: without_seconds(fields),
            asked,
            later,
            not_modified: without_seconds(not_modified),
            secs,
        })
}

/// Two exceptions show only where several things come together, which chance does too seldom.
fn nudged(mut case: Case, nudge: u8) -> Case {
    match nudge {
        0 => (case.asked, case.secs) = (vec!["max-age=0"], 0),
        1 => {
            (case.said, case.asked) = (vec!["max-age=60", "stale-while-revalidate=30"], vec![]);
            case.secs = 61;
        }
        _ => {}
    }
    case
}

/// The last of each field alone: what a field means that stands twice is another matter.
fn without_seconds(lines: Vec<&'static str>) -> Vec<&'static str> {
    let name = |line: &str| line.split(':').next().unwrap().to_owned();
    let last = |(at, line): (usize, &&'static str)| {
        let again = lines.iter().skip(at + 1).any(|other| name(other) == name(line));
        (!again).then_some(*line)
    };
    lines.iter().enumerate().filter_map(last).collect()
}

/// What Larder and the oracle say, for each aspect that can be compared.
fn verdicts(case: &Case) -> Vec<(Aspect, String, String)> {
    let (facts, policy, oracle) = (case.facts(), Policy::default(), case.oracle());
    let asked = RequestFacts::of(&case.method, case.request().headers());
    let stored = storing::judge(&asked, &facts, &policy).is_ok();
    // §3: "some caches will not store a response that has neither a cache validator nor an explicit
    // expiration time": what would be of no use is not stored, though it might be.
    let may = stored || case.why_not() == "no-lifetime";
    let mut verdicts = vec![(Stored, may.to_string(), oracle.is_storable().to_string())];
    let age = |age: Duration| age.as_secs().to_string();
    verdicts.push((Age, age(rules::current_age(&facts, case.now())), age(oracle.age(moment(case.now())))));
    if !may || !oracle.is_storable() {
        return verdicts;
    }
    verdicts.push((Left, left(&facts, case), oracle.time_to_live(moment(case.now())).as_secs().to_string()));
    if !stored {
        return verdicts;
    }
    verdicts.push((Answers, answers(&facts, case).to_string(), oracle_answers(&oracle, case).to_string()));
    let mut not_modified = Response::builder().status(304).body(()).unwrap();
    *not_modified.headers_mut() = lines(&case.not_modified, &[]);
    let later = ResponseFacts::of(304, not_modified.headers(), case.now(), case.now());
    let confirms = rules::confirms(&facts, &later);
    let after = oracle.after_response(&case.second(), &not_modified, moment(case.now()));
    let same = matches!(after, AfterResponse::NotModified(..));
    verdicts.push((Confirms, confirms.to_string(), same.to_string()));
    if let (true, AfterResponse::NotModified(_, parts)) = (confirms, after) {
        let fresh = rules::freshen(&case.answer(), not_modified.headers());
        verdicts.push((Fields, told(&fresh, &parts.headers), told(&parts.headers, &fresh)));
    }
    verdicts
}

fn left(facts: &ResponseFacts, case: &Case) -> String {
    // The oracle takes what says no-cache to have no lifetime; Larder keeps the two apart.
    if facts.directives.no_cache.is_all() {
        return "0".into();
    }
    let lifetime = rules::lifetime(facts, &Policy::default()).duration;
    lifetime.saturating_sub(rules::current_age(facts, case.now())).as_secs().to_string()
}

fn answers(facts: &ResponseFacts, case: &Case) -> bool {
    let second = case.second();
    let policy = Policy::default();
    let first = rules::selecting_fields(&facts.vary, case.request().headers(), policy.normalize);
    let asked = RequestFacts::of(&Method::GET, second.headers());
    let verdict = reuse::judge(&asked, facts, &policy, case.now());
    first.matches(facts, second.headers(), policy.normalize)
        && matches!(verdict, Reuse::Fresh(_) | Reuse::Stale { grace: Some(_), .. })
}

fn oracle_answers(oracle: &CachePolicy, case: &Case) -> bool {
    oracle.before_request(&case.second(), moment(case.now())).satisfies_without_revalidation()
}

/// The fields that both keep. The oracle passes over what is new in a 304, writes Date and Age anew,
/// and drops what is of the connection, which Larder did when storing; so those are left out.
fn told(fields: &HeaderMap, other: &HeaderMap) -> String {
    let skip = |name: &HeaderName| ["date", "age", "set-cookie"].contains(&name.as_str());
    let both = fields.iter().filter(|(name, _)| other.contains_key(*name) && !skip(name));
    let mut lines: Vec<_> =
        both.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort();
    lines.join("\n")
}

/// How a comparison went.
#[derive(Default)]
struct Tally {
    /// No exception applied: had to be the same, and was.
    held: usize,
    /// An exception applied.
    excepted: usize,
}

#[test]
fn wherever_the_oracle_differs_a_clause_settles_it() {
    let tallies: RefCell<BTreeMap<Aspect, Tally>> = RefCell::default();
    let met: RefCell<BTreeMap<&str, usize>> = RefCell::default();
    // The same cases each time: what is counted below must not depend on chance.
    let config = Config { cases: 6_000, failure_persistence: None, ..Config::default() };
    let rng = proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
    let outcome = TestRunner::new_with_rng(config, rng).run(&case(), |case| {
        for (aspect, ours, theirs) in verdicts(&case) {
            let applies = |e: &&Exception| e.aspects.contains(&aspect) && (e.applies)(&case);
            let exceptions: Vec<_> = EXCEPTIONS.iter().filter(applies).collect();
            let mut tallies = tallies.borrow_mut();
            let tally = tallies.entry(aspect).or_default();
            if exceptions.is_empty() {
                prop_assert_eq!(ours, theirs, "{:?}, Larder and the oracle: {:#?}", aspect, case);
                tally.held += 1;
                continue;
            }
            tally.excepted += 1;
            if ours != theirs
                && let [only] = exceptions[..]
            {
                *met.borrow_mut().entry(only.name).or_default() += 1;
            }
        }
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    for (aspect, tally) in tallies.borrow().iter() {
        let all = tally.held + tally.excepted;
        println!("{aspect:?}: {} of {all} compared without exception", tally.held);
        assert!(tally.held >= 500, "{aspect:?}: only {} comparisons hold anything", tally.held);
        assert!(tally.held * 2 >= all, "{aspect:?}: exceptions apply to {} of {all}", tally.excepted);
    }
    assert_eq!(tallies.borrow().len(), 6, "every aspect is compared");
    // An exception that makes no difference by itself is none.
    let met = met.borrow();
    let idle: Vec<_> = EXCEPTIONS.iter().map(|e| e.name).filter(|name| !met.contains_key(name)).collect();
    assert!(idle.is_empty(), "never needed: {idle:?}; met: {met:?}");
}

#[test]
fn the_documentation_lists_every_exception_with_its_clause() {
    let docs = include_str!("../docs/caching.md");
    for Exception { name, clause, .. } in EXCEPTIONS {
        let row = docs.lines().find(|line| line.contains(&format!("| {name} |")));
        assert!(row.is_some_and(|row| row.contains(clause)), "docs/caching.md: {name} ({clause})");
    }
}

#[test]
fn the_oracles_dates_are_ours() {
    // The cases above stand and fall with this moment.
    assert_eq!(&date::format(AT), b"Sun, 06 Nov 1994 08:49:37 GMT");
}
