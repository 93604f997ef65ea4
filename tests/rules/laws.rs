//! Laws that hold for every request and response, across the chapters of the rules.
//!
//! Knows how to make any message, well formed or not. Must not know: single clauses; the cases do.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use larder::clock::Timestamp;
use larder::fields::date;
use larder::rules::{
    self, Normalize, OriginFailure, Policy, RequestFacts, ResponseFacts, Reuse, reuse, storing,
};
use larder::stored::{self, Born, CacheKey, Content, KeyPolicy, Received, Record, Standing, StoredResponse};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::corpus::AT;

const PLAIN: Normalize = Normalize { accept_language: false };

const DIRECTIVES: [&str; 20] = [
    "max-age=60",
    "max-age=0",
    "max-age=x",
    "s-maxage=120",
    "s-maxage=\"0\"",
    "public",
    "private",
    "private=\"x\"",
    "no-store",
    "no-cache",
    "no-cache=\"set-cookie, x\"",
    "must-revalidate",
    "proxy-revalidate",
    "must-understand",
    "immutable",
    "no-transform",
    "stale-while-revalidate=30",
    "stale-if-error=90",
    "ext=\"no-store, max-age=5\"",
    "ext2",
];

const FIELDS: [&str; 16] = [
    "age: 30",
    "age: x",
    "date: Sun, 06 Nov 1994 08:49:30 GMT",
    "date: yesterday",
    "expires: Sun, 06 Nov 1994 08:51:37 GMT",
    "expires: 0",
    "etag: \"a\"",
    "etag: W/\"a\"",
    "last-modified: Sun, 06 Nov 1994 08:00:00 GMT",
    "vary: accept",
    "vary: *",
    "set-cookie: a=b",
    "connection: x",
    "x: y",
    "x: z",
    "content-length: 4",
];

const ASKED: [&str; 13] = [
    "cache-control: no-cache",
    "cache-control: no-store",
    "cache-control: max-age=30",
    "cache-control: max-stale",
    "cache-control: max-stale=10",
    "cache-control: min-fresh=20",
    "pragma: no-cache",
    "authorization: a",
    "cookie: a=b",
    "range: bytes=0-1",
    "accept: text/html",
    "if-none-match: \"a\"",
    "if-modified-since: Sun, 06 Nov 1994 08:00:00 GMT",
];

const STATUSES: [u16; 14] = [100, 200, 203, 204, 206, 299, 301, 304, 404, 412, 416, 429, 500, 599];

fn fields(lines: &[&str]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    map
}

fn response() -> impl Strategy<Value = (u16, Vec<&'static str>, HeaderMap)> {
    let directives = subsequence(DIRECTIVES.to_vec(), 0..=5);
    let others = subsequence(FIELDS.to_vec(), 0..=8);
    (select(STATUSES.to_vec()), directives, others).prop_map(|(status, said, others)| {
        let mut map = fields(&others);
        if !said.is_empty() {
            map.append("cache-control", said.join(", ").parse().unwrap());
        }
        (status, said, map)
    })
}

fn asked() -> impl Strategy<Value = (Method, HeaderMap)> {
    let method = select(vec![Method::GET, Method::GET, Method::HEAD, Method::POST]);
    (method, subsequence(ASKED.to_vec(), 0..=3)).prop_map(|(method, lines)| (method, fields(&lines)))
}

fn policy() -> impl Strategy<Value = Policy> {
    let length = || proptest::option::of((0..200u64).prop_map(Duration::from_secs));
    (length(), length(), length(), length(), length()).prop_map(|(default, over, max, revalidate, error)| {
        let mut policy = Policy::default();
        (policy.ttl.default, policy.ttl.r#override, policy.ttl.max) = (default, over, max);
        (policy.stale_while_revalidate, policy.stale_if_error) = (revalidate, error);
        policy
    })
}

/// Any bytes in any field that the rules read.
fn garbage() -> impl Strategy<Value = HeaderMap> {
    const NAMES: [&str; 14] = [
        "cache-control",
        "age",
        "date",
        "expires",
        "etag",
        "last-modified",
        "vary",
        "pragma",
        "if-none-match",
        "if-modified-since",
        "if-range",
        "range",
        "connection",
        "set-cookie",
    ];
    let bytes =
        prop_oneof![vec(any::<u8>(), 0..24), "[-a-z0-9=,\"\\\\*/ ]{0,24}".prop_map(String::into_bytes)];
    vec((select(NAMES.to_vec()), bytes), 0..8).prop_map(|lines| {
        let mut map = HeaderMap::new();
        for (name, bytes) in lines {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                map.append(name, value);
            }
        }
        map
    })
}

fn moment(secs: u64) -> Timestamp {
    AT.saturating_add(Duration::from_secs(secs))
}

fn facts(status: u16, map: &HeaderMap) -> ResponseFacts {
    ResponseFacts::of(status, map, AT, AT)
}

/// How far the origin can be left unasked: 3 fresh, 2 in grace, 1 to be asked, 0 not at all.
fn ease(verdict: &Reuse) -> u8 {
    match verdict {
        Reuse::Fresh(_) => 3,
        Reuse::Stale { grace: Some(_), .. } => 2,
        Reuse::Stale { grace: None, .. } => 1,
        Reuse::Refused(_) => 0,
    }
}

fn kept(map: &HeaderMap, status: u16, policy: &Policy) -> Option<StoredResponse> {
    let (plain, facts) = (RequestFacts::of(&Method::GET, &HeaderMap::new()), facts(status, map));
    let permit = storing::judge(&plain, &facts, policy).ok()?;
    let key = CacheKey::of("http", "a.test", "/", None, &HeaderMap::new(), &KeyPolicy::default());
    let received = Received {
        status: StatusCode::from_u16(status).unwrap(),
        headers: map,
        request_time: AT,
        response_time: AT,
        content: Content::Whole(StoredResponse::compact(&[])),
        selecting: rules::selecting_fields(&facts.vary, &HeaderMap::new(), policy.normalize),
        key,
        standing: Arc::new(Standing::plain(Born::Here(0))),
    };
    Some(StoredResponse::new(permit, received))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_a_rule_panic(
        request in garbage(), answer in garbage(), later in garbage(), status: u16, policy in policy(), secs: u64,
    ) {
        let (asked, held) = (RequestFacts::of(&Method::GET, &request), facts(status, &answer));
        let now = Timestamp::from_secs(secs);
        if let Ok(permit) = storing::judge(&asked, &held, &policy) {
            let _ = rules::stored_fields(&answer, &permit);
        }
        let _ = (reuse::judge(&asked, &held, &policy, now), rules::on_error(&asked, &held, &policy, now, OriginFailure::NoAnswer));
        let _ = (rules::client_condition(&request, &held), rules::if_range_holds(&request, &held));
        let _ = (rules::confirms(&held, &facts(304, &later)), rules::freshen(&answer, &later));
        let _ = (rules::usable_for(&held, &policy), rules::origin_conditions(&held, &answer));
        let _ = rules::selecting_fields(&held.vary, &request, policy.normalize).matches(&held, &answer, policy.normalize);
        let _ = rules::targets("http", "a.test", "/", &answer);
    }

    #[test]
    fn what_the_origin_forbids_is_never_stored((status, said, map) in response(), policy in policy()) {
        let plain = RequestFacts::of(&Method::GET, &HeaderMap::new());
        let stored = storing::judge(&plain, &facts(status, &map), &policy).is_ok();
        prop_assert!(!stored || !said.contains(&"private"), "§5.2.2.7");
        let no_store = said.contains(&"no-store") && !said.contains(&"must-understand");
        prop_assert!(!stored || !no_store, "§5.2.2.5");
        prop_assert!(!stored || (200..600).contains(&status) && status != 304, "§3");
        prop_assert!(!stored || map.get_all("vary").iter().all(|line| line != "*"), "§4.1");
    }

    #[test]
    fn a_restricting_word_never_makes_reuse_easier(
        (status, _, map) in response(), (method, request) in asked(), policy in policy(), secs in 0..300u64,
        word in select(vec!["no-cache", "must-revalidate", "proxy-revalidate", "private", "no-store"]),
    ) {
        prop_assume!(!map.contains_key("authorization"));
        let asked = RequestFacts::of(&method, &request);
        // Where the request has credentials, must-revalidate is a permission too (§3.5).
        prop_assume!(!asked.has_authorization && !asked.has_cookie);
        let mut stricter = map.clone();
        stricter.append("cache-control", HeaderValue::from_static(word));
        let at = |map: &HeaderMap| reuse::judge(&asked, &facts(status, map), &policy, moment(secs));
        prop_assert!(ease(&at(&stricter)) <= ease(&at(&map)), "§4.2.1 {}", word);
        let stored = |map: &HeaderMap| storing::judge(&asked, &facts(status, map), &policy).is_ok();
        // A validator can make no-cache worth storing only where it was so before.
        prop_assert!(!stored(&stricter) || stored(&map), "§3 {}", word);
    }

    #[test]
    fn waiting_never_makes_reuse_easier(
        (status, _, map) in response(), (method, request) in asked(), policy in policy(),
        secs in 0..300u64, more in 0..300u64,
    ) {
        let asked = RequestFacts::of(&method, &request);
        let held = facts(status, &map);
        let at = |secs| ease(&reuse::judge(&asked, &held, &policy, moment(secs)));
        prop_assert!(at(secs) >= at(secs + more), "§4.2");
        let age = |secs| rules::current_age(&held, moment(secs));
        prop_assert!(age(secs) <= age(secs + more), "§4.2.3");
    }

    #[test]
    fn both_tiers_come_to_the_same_verdict(
        (status, _, map) in response(), (method, request) in asked(), policy in policy(), secs in 0..300u64,
    ) {
        let Some(stored) = kept(&map, status, &policy) else { return Ok(()) };
        let bytes = stored::encode_response(&stored, 7, "place");
        let record = stored::decode(bytes.into(), &stored.key, "place").unwrap();
        let Record::Response { response: again, .. } = record else { panic!("a response was written") };
        let asked = RequestFacts::of(&method, &request);
        let at = |held: &StoredResponse| reuse::judge(&asked, &held.facts, &policy, moment(secs));
        prop_assert_eq!(&again.facts, &stored.facts);
        prop_assert_eq!(at(&again), at(&stored));
        let normalize = policy.normalize;
        prop_assert_eq!(again.is_for(&request, normalize), stored.is_for(&request, normalize));
    }

    #[test]
    fn a_list_means_the_same_over_any_lines((status, said, map) in response(), cut in 0..6usize) {
        let mut lines = map.clone();
        lines.remove("cache-control");
        let cut = cut.min(said.len());
        for part in [&said[..cut], &said[cut..]] {
            lines.append("cache-control", format!(" ,\t{} , ", part.join(" ,, ").to_uppercase()).parse().unwrap());
        }
        // Names of fields and directives have no case; values here have none either.
        let (one, other) = (facts(status, &lines), facts(status, &map));
        prop_assert_eq!(&one.directives, &other.directives, "9110 §5.3, §5.6.1");
    }

    #[test]
    fn what_is_stored_has_no_field_of_the_connection((status, _, map) in response(), policy in policy()) {
        let Some(stored) = kept(&map, status, &policy) else { return Ok(()) };
        let headers = stored.headers.to_map();
        for name in ["connection", "keep-alive", "proxy-authenticate", "transfer-encoding", "upgrade", "te"] {
            prop_assert!(!headers.contains_key(name), "§3.1 {}", name);
        }
        prop_assert!(!map.contains_key("connection") || !headers.contains_key("x"), "§3.1 named");
        prop_assert!(headers.contains_key("date"), "9110 §6.6.1");
        for (name, value) in &headers {
            let came = map.get_all(name).iter().any(|line| line == value);
            prop_assert!(came || name == "date", "§3.1 {}: {:?}", name, value);
        }
    }

    #[test]
    fn freshening_once_more_changes_nothing((_, _, map) in response(), (_, _, later) in response()) {
        let once = rules::freshen(&map, &later);
        let sorted = |map: &HeaderMap| {
            let mut lines: Vec<_> = map.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
            lines.sort_by(|a, b| a.0.cmp(&b.0));
            lines
        };
        prop_assert_eq!(sorted(&rules::freshen(&once, &later)), sorted(&once), "§3.2");
        prop_assert_eq!(once.get("content-length"), map.get("content-length"), "§3.2");
        prop_assert!(!once.contains_key("connection") || map.contains_key("connection"), "§3.1");
    }

    #[test]
    fn every_moment_reads_back_from_what_is_written(secs in 0..253_402_300_800u64, now in 0..4_000_000_000u64) {
        let written = date::format(Timestamp::from_secs(secs));
        prop_assert_eq!(date::parse(&written, Timestamp::from_secs(now)), Some(Timestamp::from_secs(secs)));
        let lower = written.to_ascii_lowercase();
        prop_assert_eq!(date::parse(&lower, AT), Some(Timestamp::from_secs(secs)), "§4.2 case");
        let longer = [&written[..], b" "].concat();
        prop_assert_eq!(date::parse(&longer, AT), Some(Timestamp::from_secs(secs)), "9110 §5.5 whitespace");
        for cut in 0..written.len() {
            prop_assert_eq!(date::parse(&written[..cut], AT), None, "a part of a date is none");
        }
    }

    #[test]
    fn the_names_of_vary_have_no_order_and_no_case(
        names in subsequence(vec!["accept", "accept-language", "origin", "x-one", "x-two"], 0..=5).prop_shuffle(),
        one in vec("[a-c]{0,2}", 5), other in vec("[a-c]{0,2}", 5),
    ) {
        let request = |values: &[String]| {
            let names = ["accept", "accept-language", "origin", "x-one", "x-two"];
            let lines = names.iter().zip(values).filter(|(_, value)| !value.is_empty());
            HeaderMap::from_iter(lines.map(|(name, value)| {
                (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
            }))
        };
        let (one, other) = (request(&one), request(&other));
        let vary = |text: String| facts(200, &HeaderMap::from_iter([("vary".parse().unwrap(), text.parse().unwrap())])).vary.clone();
        let (written, turned) = (names.join(", "), names.iter().rev().copied().collect::<Vec<_>>().join(",").to_uppercase());
        let of = |text: &str, map: &HeaderMap| rules::selecting_fields(&vary(text.to_owned()), map, PLAIN);
        prop_assert_eq!(of(&written, &one), of(&turned, &one), "9110 §12.5.5");
        let same = names.iter().all(|name| one.get(*name) == other.get(*name));
        prop_assert_eq!(of(&written, &one).matches(&facts(200, &HeaderMap::new()), &other, PLAIN), same, "§4.1");
        prop_assert_eq!(of(&written, &one).hash() == of(&turned, &other).hash(), same, "§4.1");
    }

    #[test]
    fn nothing_but_the_origins_word_shares_an_answer_to_credentials(
        (status, said, map) in response(), policy in policy(), secs in 0..300u64,
    ) {
        let request = fields(&["authorization: Basic x"]);
        let asked = RequestFacts::of(&Method::GET, &request);
        let word = ["public", "must-revalidate"].iter().any(|word| said.contains(word))
            || said.iter().any(|directive| directive.starts_with("s-maxage"));
        let held = facts(status, &map);
        let served = ease(&reuse::judge(&asked, &held, &policy, moment(secs))) > 0
            || rules::on_error(&asked, &held, &policy, moment(secs), OriginFailure::NoAnswer).is_some();
        prop_assert!(!served || word, "§3.5");
        prop_assert!(storing::judge(&asked, &held, &policy).is_err() || word, "§3.5");
    }
}
