//! What the rules, the key and the stored bytes must keep to.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use larder::clock::Timestamp;
use larder::fields::query;
use larder::rules::{
    self, Authorization, ClientCacheControl, Cookies, Heuristic, Normalize, OriginFailure, Policy,
    RequestFacts, ResponseFacts, Reuse, SetCookie, Ttl, reuse, storing,
};
use larder::stored::{
    self, Born, CacheKey, Content, Damaged, DotSegments, Glob, KeyPolicy, Parts, Position, Received, Record,
    Seal, Secret, Slashes, Standing, StoredResponse, TagPolicy,
};

use super::dice::{Dice, value};

/// Sun, 06 Nov 1994 08:49:37 GMT
const AT: Timestamp = Timestamp::from_secs(784_111_777);

const RESPONSE: [(&str, &[&str]); 18] = [
    (
        "cache-control",
        &["max-age=60", "no-store", "private", "no-cache", "public", ", ", ", ", "s-maxage=9", "x"],
    ),
    (
        "cache-control",
        &["must-revalidate", "private=\"x\"", "no-cache=\"set-cookie\"", ", ", "must-understand"],
    ),
    ("cdn-cache-control", &["max-age=60", "no-store", "private", ", ", ", ", "no-store=?0", "&", "x"]),
    ("larder-cache-control", &["max-age=9", "s-maxage=0", "public", ", ", "no-cache", ";x"]),
    ("expires", &["Sun, 06 Nov 1994 08:50:37 GMT", "0", " ", "Sun, 06 Nov 1994 08:49:37 GMT"]),
    ("date", &["Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:48:37 GMT", "x"]),
    ("last-modified", &["Sun, 06 Nov 1994 08:39:37 GMT", "Sun, 06 Nov 1983 08:49:37 GMT", "x"]),
    ("age", &["5", "70", ", ", "x", "99999999999"]),
    ("etag", &["\"a\"", "W/", "x", "\""]),
    ("vary", &["accept", "accept-language", ", ", "*", "x"]),
    ("set-cookie", &["a=b", "; secure"]),
    ("content-language", &["de", "en", ", "]),
    ("cache-groups", &["\"a\"", ", ", "\"b\"", "x"]),
    ("no-vary-search", &["key-order", ", ", "params=(\"x\")", "params"]),
    ("connection", &["close", ", ", "x-hop", "keep-alive"]),
    ("content-range", &["bytes 0-4/9", "bytes */9", "x"]),
    ("x-hop", &["1", "\u{e9}"]),
    ("link", &["<a>", ", ", "<b>; rel=x"]),
];

const REQUEST: [(&str, &[&str]); 8] = [
    (
        "cache-control",
        &["no-store", "no-cache", "max-age=30", "max-stale", "max-stale=9", "min-fresh=9", ", ", ", "],
    ),
    ("pragma", &["no-cache"]),
    ("authorization", &["x"]),
    ("cookie", &["a=b"]),
    ("range", &["bytes=0-1", "bytes=9-"]),
    ("accept", &["a", ", ", "b"]),
    ("accept-language", &["de", "en", ", ", ";q=0.5"]),
    ("if-none-match", &["\"a\"", "*", ", "]),
];

const STATUSES: [u16; 16] = [200, 200, 200, 200, 203, 204, 206, 301, 302, 304, 404, 405, 410, 414, 500, 501];

fn message(dice: &mut Dice, fields: &[(&'static str, &[&str])]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, words) in fields {
        if dice.one_in(3) {
            for line in dice.lines(words, 2) {
                headers.append(HeaderName::from_static(name), line);
            }
        }
    }
    headers
}

fn span(dice: &mut Dice) -> Option<Duration> {
    dice.one_in(2).then(|| Duration::from_secs(dice.next() % 200))
}

fn policy(dice: &mut Dice) -> Policy {
    let heuristic = Heuristic { percent: dice.below(101) as u8, max: Duration::from_secs(dice.next() % 200) };
    let cookies = [Cookies::Origin, Cookies::Bypass, Cookies::Ignore];
    Policy {
        ttl: Ttl { default: span(dice), r#override: span(dice), max: span(dice) },
        heuristic: dice.one_in(2).then_some(heuristic),
        client_cache_control: *dice.pick(&[ClientCacheControl::Honour, ClientCacheControl::Ignore]),
        stale_while_revalidate: span(dice),
        stale_if_error: span(dice),
        stale_if_disconnected: span(dice),
        normalize: Normalize { accept_language: dice.one_in(2) },
        cookies: dice.pick(&cookies).clone(),
        authorization: *dice.pick(&[
            Authorization::Bypass,
            Authorization::PerCredential,
            Authorization::Share,
        ]),
        set_cookie: *dice.pick(&[SetCookie::Origin, SetCookie::Never, SetCookie::Strip, SetCookie::Keep]),
        ..Policy::default()
    }
}

/// How much a verdict allows.
fn ease(verdict: &Reuse) -> u8 {
    match verdict {
        Reuse::Fresh(_) => 2,
        Reuse::Stale { grace: Some(_), .. } => 1,
        Reuse::Stale { grace: None, .. } | Reuse::Refused(_) => 0,
    }
}

pub fn facts(dice: &mut Dice) {
    let (status, headers) = (*dice.pick(&STATUSES), message(dice, &RESPONSE));
    let (policy, request) = (policy(dice), message(dice, &REQUEST));
    let asked = RequestFacts::of(&Method::GET, &request).under(policy.client_cache_control);
    let held = ResponseFacts::of(status, &headers, AT, AT);
    let after = |secs| AT.saturating_add(Duration::from_secs(secs));
    let (early, later) = (dice.next() % 400, dice.next() % 400);

    // Permits cannot be forged: what the origin keeps for itself is neither stored nor reused.
    let d = &held.directives;
    let stored = storing::judge(&asked, &held, &policy);
    let kept_back = d.private.is_all() || (d.no_store && !d.must_understand);
    assert!(!kept_back || stored.is_err(), "§5.2.2.5, §5.2.2.7");
    assert!(!asked.directives.no_store || stored.is_err(), "§5.2.1.5");
    let verdict = |secs| ease(&reuse::judge(&asked, &held, &policy, after(secs)));
    assert!(!(kept_back || d.no_cache.is_all()) || verdict(early) == 0, "§4");
    let forbidden = d.must_revalidate || d.proxy_revalidate || d.s_maxage.is_some();
    assert!(!forbidden || verdict(early) != 1, "§4.2.4");

    // Older is never fresher, and time makes nothing easier.
    let age = |secs| rules::current_age(&held, after(secs));
    assert!(age(early) <= age(early + later), "§4.2.3");
    let mut aged = held.clone();
    aged.age = aged.age.saturating_add(1);
    assert!(rules::current_age(&aged, after(early)) >= age(early), "§4.2.3");
    assert!(rules::usable_for(&aged, &policy) <= rules::usable_for(&held, &policy));
    assert!(verdict(early + later) <= verdict(early), "waiting makes nothing easier");
    for failure in [OriginFailure::Error, OriginFailure::NoAnswer] {
        let covers = |secs| rules::on_error(&asked, &held, &policy, after(secs), failure).is_some();
        assert!(!covers(early + later) || covers(early), "RFC 5861 §4");
        assert!(!covers(early) || !kept_back, "§4.2.4");
    }

    // What a tier keeps means the same when it is read again.
    if let Ok(permit) = stored {
        let again = ResponseFacts::of(status, &rules::stored_fields(&headers, &permit), AT, AT);
        assert_eq!(again.directives, held.directives);
        assert_eq!(rules::lifetime(&again, &policy), rules::lifetime(&held, &policy));
        assert_eq!(rules::current_age(&again, after(early)), age(early));
        assert_eq!((&again.groups, &again.vary, &again.etag), (&held.groups, &held.vary, &held.etag));
        assert_eq!(again.no_vary_search, held.no_vary_search);
    }
    let _ = rules::client_condition(&request, &held);
    let _ = rules::freshen(&headers, &message(dice, &RESPONSE));
}

const PATHS: [&str; 20] = [
    "/",
    "/",
    "//",
    ".",
    "..",
    "a",
    "b",
    "%2e",
    "%2E%2e",
    "%2f",
    "%5c",
    ";",
    "x=1",
    "~",
    "%",
    "%c3%a9",
    "+",
    ":",
    "index.html",
    "%00",
];

const QUERIES: [&str; 16] =
    ["a", "b", "utm_source", "=", "=", "&", "&", "1", "2", "%20", "+", "%", "gclid", "x[]", "?", ";"];

const EXTRAS: [&str; 12] = ["de", "en", ",", ", ", "\"", "\\", ";", "=", " ", "a=b", "; ", "\u{e9}"];

pub fn key(dice: &mut Dice) {
    let policy = KeyPolicy {
        ignore_query: if dice.one_in(2) { vec![Glob::new("utm_*"), Glob::new("gclid")] } else { Vec::new() },
        headers: vec![HeaderName::from_static("accept-language")],
        cookies: if dice.one_in(2) { vec!["a".to_owned()] } else { Vec::new() },
        per_credential: dice.one_in(2),
        dot_segments: *dice.pick(&[DotSegments::Bypass, DotSegments::Resolve, DotSegments::Keep]),
        slashes: *dice.pick(&[Slashes::Keep, Slashes::Merge]),
    };
    let path = format!("/{}", printable(&dice.text(&PATHS, 8), b"?# "));
    let query = printable(&dice.text(&QUERIES, 10), b"# ");
    let mut request = HeaderMap::new();
    for name in ["accept-language", "cookie", "authorization"] {
        for line in dice.lines(&EXTRAS, 2) {
            request.append(name, line);
        }
    }
    let scheme = *dice.pick(&["http", "https"]);
    let host = *dice.pick(&["a.test", "A.test:80", "a.test:443", "[::1]", "a.test:8080", ""]);
    let of = |path: &str, query: &str, policy: &KeyPolicy| {
        CacheKey::of(scheme, host, path, Some(query), &request, policy)
    };
    let key = of(&path, &query, &policy);
    assert_eq!(CacheKey::from_parts(key.url(), key.extras()), key);
    assert!(!key.url().contains('\0') && !key.extras().contains('\0'), "its text stands for one pair");
    assert_eq!(of(&policy.path(&path), &query, &policy), key, "a path as the key has it stays so");

    // Arguments of different names have no order; those of names that an origin may take for one have, and
    // so has a query that origins divide in different ways.
    let mut turned: Vec<&str> = query.split('&').collect();
    let name = |argument: &str| query::folded(argument).collect::<Vec<_>>();
    let last = turned.len() - 1;
    let plain = !turned.iter().any(|argument| query::is_divided_otherwise(argument));
    if turned.len() > 1 && plain && name(turned[last]) != name(turned[last - 1]) {
        turned.swap(last, last - 1);
        assert_eq!(of(&path, &turned.join("&"), &policy), key, "{query}");
    }
    if !policy.ignore_query.is_empty() && !query.is_empty() {
        assert_eq!(of(&path, &format!("{query}&utm_x=1"), &policy), key, "what is ignored does not count");
    }
    if !query.is_empty() {
        assert_ne!(of(&path, &format!("{query}&zzz=1"), &policy).url(), key.url(), "what is not does");
    }
    if !host.is_empty()
        && let Some(purged) = CacheKey::of_url(key.url(), &policy)
    {
        assert_eq!(purged.url(), key.url(), "who purges by the key's URL names this one");
    }
    let (one, other) = (dice.text(&QUERIES, 3), dice.text(&QUERIES, 3));
    let with = |content: &[u8]| key.with_content(&Method::POST, &request, content);
    assert_eq!(with(&one) == with(&other), one == other, "RFC 10008: each content has a key");
    assert!(with(&one) != key && with(&one).url_hash() == key.url_hash());
}

/// Without what a request target cannot hold, and without these.
fn printable(bytes: &[u8], but: &[u8]) -> String {
    bytes
        .iter()
        .filter(|byte| byte.is_ascii_graphic() && !but.contains(byte))
        .map(|byte| char::from(*byte))
        .collect()
}

pub fn codec(dice: &mut Dice) {
    let policy = Policy { set_cookie: SetCookie::Keep, ..Policy::default() };
    let key = CacheKey::of("http", "a.test", "/", Some("a=1"), &HeaderMap::new(), &KeyPolicy::default());
    let mut headers = message(dice, &RESPONSE);
    headers.insert("cache-control", HeaderValue::from_static("max-age=60, public"));
    headers.remove("larder-cache-control");
    headers.remove("cdn-cache-control");
    headers.remove("age");
    headers.append("x-any", value(dice.text(&EXTRAS, 6)));
    let request = message(dice, &REQUEST);
    let Some(written) = stored_response(dice, &headers, &request, &policy, &key) else { return };
    let generation = dice.next();
    let record = stored::encode_response(&written, generation, PLACE);
    let Ok(Record::Response { generation: read_generation, response: read }) =
        stored::decode(Bytes::from(record.clone()), &key, PLACE)
    else {
        panic!("a record is not read as it was written");
    };
    assert_eq!((read_generation, read.status), (generation, written.status));
    assert_eq!(read.standing.born(), Born::Elsewhere(written.standing.position()));
    assert_eq!(
        (read.standing.tags(), read.standing.route()),
        (written.standing.tags(), written.standing.route())
    );
    assert!(read.headers.iter().eq(written.headers.iter()), "fields keep their order and repeats");
    assert_eq!(
        (&read.content, &read.selecting, &read.facts),
        (&written.content, &written.selecting, &written.facts)
    );

    // Bytes that have changed are noticed, wherever they are.
    let mut damaged = record.clone();
    dice.damage(&mut damaged, &EXTRAS);
    if damaged != record {
        assert!(
            stored::decode(Bytes::from(damaged.clone()), &key, PLACE).is_err(),
            "a changed record is read"
        );
    }
    // And where the checksum is made to fit, as nobody but an attacker with the tier in hand would:
    // whatever is then read is a response that can be written and read again.
    if damaged.len() > 8 {
        let end = damaged.len() - 8;
        let checksum = xxhash_rust::xxh3::xxh3_64(&damaged[..end]).to_le_bytes();
        damaged[end..].copy_from_slice(&checksum);
        let whole = damaged.len() as u64;
        match stored::decode(Bytes::from(damaged), &key, PLACE) {
            Ok(Record::Response { generation, response }) => {
                assert!(response.content.held() <= whole, "no more than there was");
                let again = stored::encode_response(&response, generation, PLACE);
                let again = stored::decode(Bytes::from(again), &key, PLACE);
                assert!(matches!(again, Ok(Record::Response { .. })), "{again:?}");
                let asked = RequestFacts::of(&Method::GET, &request);
                let _ = (response.weight(), reuse::judge(&asked, &response.facts, &policy, AT));
                let _ = response.is_for(&request, policy.normalize);
            }
            Ok(Record::Names { names, .. }) => assert!(names.len() <= stored::MOST_NAMES),
            Err(Damaged::Checksum) => panic!("the checksum was made to fit"),
            Err(_) => {}
        }
    }
    // The names of a resource that varies.
    let names: Vec<HeaderName> = written.selecting.names().cloned().collect();
    let record = stored::encode_names(&key, &names, generation, PLACE);
    let Ok(Record::Names { names: read, generation: number }) =
        stored::decode(Bytes::from(record.clone()), &key, PLACE)
    else {
        panic!("names are not read as they were written");
    };
    assert_eq!((&read, number), (&names, generation));

    // What was copied to another place is no record there, whatever it is.
    let elsewhere =
        stored::decode(Bytes::from(stored::encode_names(&key, &names, generation, PLACE)), &key, "elsewhere");
    assert!(matches!(elsewhere, Err(Damaged::OtherKey)), "{elsewhere:?}");
    // A path's rule, and marks: as they were written, or nothing.
    let text = dice.text(&EXTRAS, 6);
    let rule = stored::encode_rule(&text, PLACE);
    assert_eq!(stored::decode_rule(Bytes::from(rule.clone()), PLACE).as_deref(), Ok(&text[..]));
    let mut damaged = rule.clone();
    dice.damage(&mut damaged, &EXTRAS);
    assert!(damaged == rule || stored::decode_rule(Bytes::from(damaged), PLACE).is_err());
    // Ciphers take their time in a debug build.
    if dice.one_in(8) {
        sealed(dice, &record, generation);
    }
}

/// With a secret and without: what was written is read, at its own place alone; what was changed never is,
/// nor what was written without the secret.
fn sealed(dice: &mut Dice, record: &[u8], number: u64) {
    let secret = |digit: &str| Secret::from_hex(&format!("{}{}", "01".repeat(31), digit.repeat(2))).unwrap();
    let seals = [Seal::default(), Seal::new(&[secret("a")]), Seal::new(&[secret("b"), secret("a")])];
    let mut nonce = [0; 24];
    nonce.fill_with(|| dice.below(256) as u8);
    for seal in &seals {
        let closed = seal.close(record.to_vec(), PLACE, || Some(nonce)).unwrap();
        assert_eq!(seal.open(closed.clone(), PLACE).as_deref(), Ok(record));
        let clear = closed == record;
        let mut damaged = closed.clone();
        dice.damage(&mut damaged, &["LRDS", "LRDR", "\u{1}\0"]);
        assert!(clear || damaged == closed || seal.open(damaged, PLACE).is_err());
        assert!(clear || seal.open(closed, "elsewhere").is_err());
        assert!(clear || seal.open(record.to_vec(), PLACE).is_err());

        let mark = seal.encode_mark(number, PLACE);
        assert_eq!(seal.decode_mark(mark.as_bytes(), PLACE), Ok(number));
        assert!(seal.decode_mark(mark.as_bytes(), "elsewhere").is_err());
        let mut damaged = mark.clone().into_bytes();
        dice.damage(&mut damaged, &["0", ".", "+", "9"]);
        assert!(damaged == mark.as_bytes() || seal.decode_mark(&damaged, PLACE).is_err());
    }
    // The older of two secrets is read, and names the keys.
    let [_, before, both] = &seals;
    let closed = before.close(record.to_vec(), PLACE, || Some(nonce)).unwrap();
    assert_eq!(both.open(closed, PLACE).as_deref(), Ok(record));
    assert_eq!(both.name(u128::from(number)), before.name(u128::from(number)));
}

/// Where the records of this target stand.
const PLACE: &str = "larder:3:{0}:-";

fn stored_response(
    dice: &mut Dice,
    headers: &HeaderMap,
    request: &HeaderMap,
    policy: &Policy,
    key: &CacheKey,
) -> Option<StoredResponse> {
    let (body, parts) = (Bytes::from(dice.text(&EXTRAS, 8)), dice.one_in(3));
    // Of a part it is known where it lies.
    let status = if parts { 206 } else { *dice.pick(&[200, 203, 301, 404, 599]) };
    let mut headers = headers.clone();
    headers.remove("content-range");
    let content = if parts {
        let first = dice.next() % 1000;
        let length = first + body.len() as u64 + 1 + dice.next() % 10;
        let last = first + (body.len() as u64).checked_sub(1)?;
        let said = format!("bytes {first}-{last}/{length}");
        headers.insert("content-range", HeaderValue::from_str(&said).unwrap());
        Parts::of(length, first, body)?
    } else {
        Content::Whole(body)
    };
    let facts = ResponseFacts::of(status, &headers, AT, AT);
    let permit = storing::judge(&RequestFacts::of(&Method::GET, &HeaderMap::new()), &facts, policy).ok()?;
    let (born, tags) = (Born::Here(dice.next()), TagPolicy { route: dice.next(), ..TagPolicy::default() });
    let read = Some(Position { run: dice.next(), n: dice.next() }).filter(|position| position.n % 2 == 0);
    let received = Received {
        status: StatusCode::from_u16(status).unwrap(),
        headers: &headers,
        request_time: AT,
        response_time: AT,
        content,
        selecting: rules::selecting_fields(&facts.vary, request, policy.normalize),
        key: key.clone(),
        standing: Arc::new(Standing::of(born, read, &headers, &facts.groups, &tags)),
    };
    Some(StoredResponse::new(permit, received))
}
