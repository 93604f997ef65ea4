//! The key against the RFC and its own promises.

use http::HeaderValue;
use proptest::prelude::*;

use super::*;

fn key(authority: &str, path: &str, query: Option<&str>, policy: &KeyPolicy) -> CacheKey {
    CacheKey::of("http", authority, path, query, &HeaderMap::new(), policy)
}

fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
        .collect()
}

fn extras(pairs: &[(&'static str, &str)], policy: &KeyPolicy) -> String {
    let key = CacheKey::of("http", "a", "/", None, &fields(pairs), policy);
    key.extras().to_owned()
}

#[test]
fn urls_are_normalised() {
    let ignore = ["utm_*", "gclid"].map(Glob::new).to_vec();
    let policy = KeyPolicy { ignore_query: ignore, ..KeyPolicy::default() };
    for (authority, path, query, expected, why) in [
        ("Example.COM", "/A", None, "http://example.com/A", "9110 §4.2.3 host without case"),
        ("a:80", "/", None, "http://a/", "9110 §4.2.3 default port"),
        ("a:", "/", None, "http://a/", "9110 §4.2.3 empty port"),
        ("a:8080", "/", None, "http://a:8080/", "another port stays"),
        ("a:443", "/", None, "http://a:443/", "the default of another scheme stays"),
        ("[::1]:80", "/", None, "http://[::1]/", "IPv6 with port"),
        ("[::80]", "/", None, "http://[::80]/", "IPv6 without port"),
        ("a", "/%7Eu", None, "http://a/%7Eu", "path as received"),
        ("a", "/", Some(""), "http://a/?", "an empty query is not none"),
        ("a", "/", Some("b=2&a=1"), "http://a/?a=1&b=2", "order does not matter"),
        ("a", "/", Some("b&a=2&a=1&a"), "http://a/?a=2&a=1&a&b", "one name's own order stays"),
        ("a", "/", Some("ab=1&a=2"), "http://a/?a=2&ab=1", "the name ends at ="),
        ("a", "/", Some("utm_source=x&a=1"), "http://a/?a=1", "ignored argument"),
        ("a", "/", Some("gclid=x"), "http://a/", "nothing left"),
        ("a", "/", Some("&gclid=x"), "http://a/?", "nothing left but an empty argument"),
        ("a", "/", Some("gclid=x&"), "http://a/?", "nothing left but an empty argument"),
        ("a", "/", Some("b=1&a=2&A=1"), "http://a/?a=2&A=1&b=1", "one name to some: its order stays"),
        ("a", "/", Some("b&A=1&a=2"), "http://a/?A=1&a=2&b", "one name to some: its order stays"),
        ("a", "/", Some("%61=1&a=2"), "http://a/?%61=1&a=2", "one name to all: its order stays"),
        ("a", "/", Some("b&a[]=1&a=2"), "http://a/?a[]=1&a=2&b", "one name to some: its order stays"),
        ("a", "/", Some("b;c=1&a"), "http://a/?b;c=1&a", "some divide at ; too: all as received"),
        ("a", "/", Some("b?c=1&a"), "http://a/?b?c=1&a", "some divide at ? too: all as received"),
        ("a", "/", Some("b%26c=1&a"), "http://a/?b%26c=1&a", "some decode first: all as received"),
        ("a", "/", Some("%zz=1&a"), "http://a/?%zz=1&a", "nobody knows that name: all as received"),
        ("a", "/", Some("utm_a=1;b=2"), "http://a/?utm_a=1;b=2", "b is an argument to some"),
        ("a", "/", Some("utm_a=1?b=2"), "http://a/?utm_a=1?b=2", "b is an argument to some"),
        ("a", "/", Some("utm_a%26b=2"), "http://a/?utm_a%26b=2", "b is an argument to some"),
        ("a", "/", Some("utm_a=1%26b=2"), "http://a/", "but a value is a value"),
        ("a", "/", Some("utm%5Fa=1"), "http://a/?utm%5Fa=1", "as written, not as meant"),
        ("a", "/", Some("&"), "http://a/?&", "two of them are as received"),
        ("a", "/", Some("gclids=x"), "http://a/?gclids=x", "the glob is for the whole name"),
    ] {
        assert_eq!(key(authority, path, query, &policy).url(), expected, "{why}");
    }
}

#[test]
fn a_path_is_as_received_but_for_what_the_route_says_of_dots_and_slashes() {
    let (resolve, merge) = (DotSegments::Resolve, Slashes::Merge);
    for (dot_segments, slashes, path, expected, refused) in [
        (DotSegments::Bypass, Slashes::Keep, "/a/../b", "/a/../b", true),
        (DotSegments::Bypass, Slashes::Keep, "/a/./b", "/a/./b", true),
        (DotSegments::Bypass, Slashes::Keep, "/a/..%2fb", "/a/..%2fb", true),
        (DotSegments::Bypass, Slashes::Keep, "/a//b", "/a//b", false),
        (DotSegments::Bypass, merge, "//a//b/", "/a/b/", false),
        (DotSegments::Keep, Slashes::Keep, "/a/%2e%2e/b", "/a/%2e%2e/b", false),
        (resolve, Slashes::Keep, "/a/%2e%2e/b/.", "/b/", false),
        (resolve, Slashes::Keep, "/a//../b", "/a/b", false),
        (resolve, merge, "/a//../b", "/b", false),
        (resolve, merge, "/a/..\\b", "/a/..\\b", true),
        (resolve, merge, "/a/..;/b", "/a/..;/b", true),
        (resolve, merge, "/a%2F..%2Fb", "/a%2F..%2Fb", true),
        (resolve, merge, "/%41/b;c=.", "/%41/b;c=.", false),
    ] {
        let policy = KeyPolicy { dot_segments, slashes, ..KeyPolicy::default() };
        let keyed = policy.path(path);
        assert_eq!((keyed.as_ref(), policy.refuses(&keyed)), (expected, refused), "{policy:?} {path}");
        assert_eq!(key("a", path, None, &policy).url(), format!("http://a{expected}"));
        let purged = CacheKey::of_url(&format!("http://a{path}"), &policy).unwrap();
        assert_eq!(purged.url(), format!("http://a{expected}"), "a purge names the same");
    }
}

#[test]
fn the_ipv6_host_that_ends_like_a_port_keeps_its_end() {
    // "[::80]" has a colon, but what follows the last one is "80]".
    assert_eq!(without_default_port("http", "[fe80::80]"), "[fe80::80]");
}

#[test]
fn queries_that_are_the_same_under_a_rule_have_one_key() {
    let rule = |text: &str| NoVarySearch::parse(&fields(&[("no-vary-search", text)])).unwrap();
    let key = |query: Option<&str>| {
        let policy = KeyPolicy { headers: vec![header::ACCEPT], ..KeyPolicy::default() };
        CacheKey::of("http", "a", "/p", query, &HeaderMap::new(), &policy)
    };
    let utm = rule("params=(\"utm\")");
    let one = key(Some("b=1&utm=2&a=%33")).searched(&utm);
    assert_eq!((one.url(), one.extras()), ("http://a/p?#", "s:a=3&b=1;h:accept;"));
    assert!(one.is_searched() && !key(None).is_searched());
    assert_eq!((one.path(), one.origin()), ("/p", "http://a"));
    for query in ["a=3&b=1", "utm&a=3&b=1&utm", "b=1&a=3"] {
        assert_eq!(key(Some(query)).searched(&utm), one, "{query}");
    }
    for query in [Some("a=3"), Some("a=3&b=1&c"), None] {
        assert_ne!(key(query).searched(&utm), one, "{query:?}");
    }
    assert_eq!(key(None).searched(&utm), key(Some("utm=1")).searched(&utm));
    assert_ne!(key(None).searched(&utm).url_hash(), key(None).url_hash(), "no other key's URL");
}

#[test]
fn a_key_tells_its_origin() {
    for (url, origin) in [
        ("http://a/x/y?z=//", "http://a"),
        ("https://[::1]:8443/", "https://[::1]:8443"),
        ("http://a?q", "http://a"),
        ("http://a", "http://a"),
        ("nonsense", "nonsense"),
    ] {
        assert_eq!(CacheKey::from_parts(url, "").origin(), origin);
    }
}

#[test]
fn a_purge_names_the_url_of_the_request() {
    let policy = KeyPolicy { headers: vec![header::ACCEPT_LANGUAGE], ..KeyPolicy::default() };
    let request = CacheKey::of("http", "A:80", "/x", Some("b&a"), &HeaderMap::new(), &policy);
    let purged = CacheKey::of_url("http://a/x?a&b", &policy).unwrap();
    assert_eq!(purged.url_hash(), request.url_hash());
    assert_ne!(purged.hash(), request.hash(), "the request's key has extras");
    assert_eq!(CacheKey::of_url("http://a", &policy).unwrap().url(), "http://a/");
    for wrong in ["", "/x", "a/x", "http://", "http:// /"] {
        assert!(CacheKey::of_url(wrong, &policy).is_none(), "{wrong:?}");
    }
}

#[test]
fn a_policy_has_extras_where_a_key_without_fields_has_some() {
    let plain = KeyPolicy { ignore_query: vec![Glob::new("a")], ..KeyPolicy::default() };
    let header = KeyPolicy { headers: vec![header::ACCEPT], ..KeyPolicy::default() };
    let cookie = KeyPolicy { cookies: vec!["a".into()], ..KeyPolicy::default() };
    let credential = KeyPolicy { per_credential: true, ..KeyPolicy::default() };
    for policy in [plain, header, cookie, credential] {
        assert_eq!(policy.has_extras(), !extras(&[], &policy).is_empty(), "{policy:?}");
    }
}

#[test]
fn contents_that_differ_in_anything_have_keys_of_their_own_under_one_url() {
    let plain = key("a", "/", None, &KeyPolicy::default());
    let json = fields(&[("content-type", "application/json")]);
    let with = |method: &Method, headers: &HeaderMap, content: &[u8]| {
        let key = plain.with_content(method, headers, content);
        assert_eq!((key.url(), key.url_hash()), (plain.url(), plain.url_hash()), "a purge names them all");
        key.extras().to_owned()
    };
    let one = with(&Method::QUERY, &json, b"a");
    assert!(one.starts_with("b:QUERY:") && one.len() == 8 + 64 + 1, "{one}");
    assert_eq!(one, with(&Method::QUERY, &fields(&[("content-type", "application/json ")]), b"a"));
    for (method, headers, content) in [
        (Method::QUERY, json.clone(), &b"b"[..]),
        (Method::QUERY, json.clone(), b"a "),
        (Method::QUERY, json.clone(), b""),
        (Method::POST, json.clone(), b"a"),
        (Method::QUERY, HeaderMap::new(), b"a"),
        (Method::QUERY, fields(&[("content-type", "")]), b"a"),
        (Method::QUERY, fields(&[("content-type", "application/json"), ("content-encoding", "gzip")]), b"a"),
        (Method::QUERY, fields(&[("content-type", "application/json"), ("content-language", "de")]), b"a"),
        (Method::QUERY, fields(&[("content-encoding", "application/json")]), b"a"),
    ] {
        assert_ne!(with(&method, &headers, content), one, "{method} {headers:?} {content:?}");
    }
    assert_ne!(with(&Method::QUERY, &HeaderMap::new(), b""), "", "and none at all is not a GET");
}

#[test]
fn codings_are_part_of_a_key_by_what_they_mean() {
    let policy = KeyPolicy { headers: vec![header::ACCEPT_ENCODING], ..KeyPolicy::default() };
    let of = |value: &str| extras(&[("accept-encoding", value)], &policy);
    for same in ["br,gzip", "GZIP , br;q=1.0", "br;q=1, gzip"] {
        assert_eq!(of(same), of("gzip, br"), "{same}");
    }
    for other in ["gzip", "gzip, br;q=0", "gzip, br;q=0.5", "*", "", "identity", "\"gzip, br"] {
        assert_ne!(of(other), of("gzip, br"), "{other}");
    }
    assert_eq!(extras(&[], &policy), "h:accept-encoding;");
}

#[test]
fn added_fields_keep_requests_apart() {
    let policy = KeyPolicy {
        headers: vec![header::ACCEPT_LANGUAGE],
        cookies: vec!["lang".into()],
        per_credential: true,
        ..KeyPolicy::default()
    };
    let rows: [(&[(&'static str, &str)], &str); 9] = [
        (&[], "h:accept-language;c:lang;a;"),
        (&[("accept-language", "")], "h:accept-language=;c:lang;a;"),
        (&[("accept-language", " en ,\tfr;q=0.5")], "h:accept-language=en,fr%3Bq=0.5;c:lang;a;"),
        (&[("accept-language", "\"a , b\" , c")], "h:accept-language=\"a%20,%20b\",c;c:lang;a;"),
        (&[("accept-language", "a"), ("accept-language", "b")], "h:accept-language=a,b;c:lang;a;"),
        (&[("accept-language", "a  b%")], "h:accept-language=a%20%20b%25;c:lang;a;"),
        (&[("cookie", "x=1; lang=de;language=fr")], "h:accept-language;c:lang=de;a;"),
        (&[("cookie", "lang=")], "h:accept-language;c:lang=;a;"),
        (&[("cookie", "lang=a; lang=b")], "h:accept-language;c:lang=a;c:lang=b;a;"),
    ];
    for (pairs, expected) in rows {
        assert_eq!(extras(pairs, &policy), expected);
    }
}

#[test]
fn credentials_stay_out_of_the_text_and_apart() {
    let policy = KeyPolicy { per_credential: true, ..KeyPolicy::default() };
    let (one, two) = (
        extras(&[("authorization", "Bearer secret-one")], &policy),
        extras(&[("authorization", "Bearer secret-two")], &policy),
    );
    assert_ne!(one, two);
    assert!(!one.contains("secret"), "{one}");
    assert_eq!(one.len(), "a:".len() + 64 + 1);
    assert_eq!(one, extras(&[("authorization", " Bearer secret-one")], &policy));
}

#[test]
fn hashes_are_the_same_in_every_release() {
    let key = CacheKey::from_parts("http://a/x", "h:b=c;");
    assert_eq!(format!("{:032x}", key.url_hash()), GOLDEN_URL_HASH);
    assert_eq!(format!("{:032x}", key.hash()), GOLDEN_HASH);
}

const GOLDEN_URL_HASH: &str = "44fc3cc971165255eb904a0420e27a85";
const GOLDEN_HASH: &str = "925da47fff2a6547c6b753816d96817f";

/// Queries of the pieces that servers disagree on; often the same ones in another order.
/// Two queries of the pieces that servers disagree on: as often as not the same ones in another order.
fn queries() -> impl Strategy<Value = [Option<String>; 2]> {
    let piece = "(a|A|%61|a\\[\\]|b|u|u1|%75|%26|%3b|%zz|)(=|=1|=2|;b=1|\\?b=1|;|=%26b)?";
    let pieces = || prop::collection::vec(piece, 0..4);
    let shuffled = pieces().prop_flat_map(|one| (Just(one.clone()), Just(one).prop_shuffle()));
    prop_oneof![shuffled, (pieces(), pieces())].prop_flat_map(|(one, two)| {
        let query = |pieces: Vec<String>| prop_oneof![9 => Just(Some(pieces.join("&"))), 1 => Just(None)];
        [query(one), query(two)]
    })
}

/// What an origin finds that divides at these and pays no heed to the order of different names: for each
/// name, folded as far as any does, its arguments in order as written. Without those that are ignored.
fn meaning(query: &Option<String>, divide: &[char], ignore: bool) -> Option<Vec<(String, Vec<String>)>> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let arguments = query.as_deref()?.split(divide);
    for argument in arguments.filter(|argument| !(ignore && query::name(argument).starts_with('u'))) {
        let lower = query::name(argument).to_ascii_lowercase().replace("%61", "a").replace("%75", "u");
        let name = lower.split('[').next().unwrap_or_default().to_owned();
        match found.iter_mut().find(|(known, _)| *known == name) {
            Some((_, all)) => all.push(argument.to_owned()),
            None => found.push((name, vec![argument.to_owned()])),
        }
    }
    found.sort();
    (!found.is_empty()).then_some(found)
}

/// Keys are put together in one text of the thread's.
#[test]
fn a_key_has_nothing_of_the_one_before() {
    let policy = KeyPolicy { headers: vec![header::ACCEPT], ..KeyPolicy::default() };
    let (none, some) = (fields(&[]), fields(&[("accept", "text/html")]));
    let long = format!("/{}", "x".repeat(2 * DRAFT_ROOM));
    for path in ["/a/long/path/that/is/kept", "/", &long, "/b"] {
        let with = CacheKey::of("http", "a", path, None, &some, &policy);
        assert_eq!(
            with,
            CacheKey::from_parts(&format!("http://a{path}"), "h:accept=text/html;"),
            "{path:.20}"
        );
        let without = CacheKey::of("http", "a", path, None, &none, &KeyPolicy::default());
        assert_eq!(without, CacheKey::from_parts(&format!("http://a{path}"), ""), "{path:.20}");
        assert_eq!((without.extras(), without.hash()), ("", xxh3_128(format!("http://a{path}").as_bytes())));
    }
}

proptest! {
    #[test]
    fn the_order_of_names_never_matters(values in prop::collection::vec("(=[a-c%]{0,2})?", 1..6), seed: u64) {
        let mut arguments: Vec<_> = ["a", "ab", "b", "c", "cc"].iter().zip(values).map(|(name, value)| format!("{name}{value}")).collect();
        let policy = KeyPolicy::default();
        let before = key("a", "/", Some(&arguments.join("&")), &policy);
        let middle = usize::try_from(seed).unwrap_or(0) % arguments.len();
        arguments.rotate_left(middle);
        arguments.reverse();
        let after = key("a", "/", Some(&arguments.join("&")), &policy);
        prop_assert_eq!(before.url(), after.url());
    }

    #[test]
    fn one_key_means_one_request_but_for_the_order_of_different_names(
        [one, two] in queries(), ignore: bool,
    ) {
        let globs = if ignore { vec![Glob::new("u*")] } else { Vec::new() };
        let policy = KeyPolicy { ignore_query: globs, ..KeyPolicy::default() };
        let url = |query: &Option<String>| key("a", "/", query.as_deref(), &policy).url().to_owned();
        if url(&one) == url(&two) {
            // What any origin makes of it: whichever way it divides, decodes, and folds names.
            for divide in [&['&'][..], &['&', ';'], &['&', '?'], &['&', ';', '?']] {
                let (one, two) = (meaning(&one, divide, ignore), meaning(&two, divide, ignore));
                prop_assert_eq!(one, two, "divided at {:?}", divide);
            }
        }
    }

    #[test]
    fn any_field_value_makes_an_unambiguous_text(
        one in prop::collection::vec(any::<u8>(), 0..12),
        two in prop::collection::vec(any::<u8>(), 0..12),
    ) {
        let (Ok(one), Ok(two)) = (HeaderValue::from_bytes(&one), HeaderValue::from_bytes(&two)) else {
            return Ok(());
        };
        let policy = KeyPolicy {
            headers: vec![header::ACCEPT, header::ACCEPT_LANGUAGE], ..KeyPolicy::default()
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, one);
        let extras = |headers: &HeaderMap| {
            let mut text = String::new();
            push_extras(&mut text, headers, &policy);
            text
        };
        let only_one = extras(&headers);
        headers.insert(header::ACCEPT_LANGUAGE, two);
        let both = extras(&headers);
        prop_assert_ne!(&only_one, &both, "absence is a value");
        prop_assert_eq!(both.matches(';').count(), 2);
        prop_assert!(both.is_ascii());
    }

    #[test]
    fn any_text_is_safe_to_purge(url in ".{0,40}") {
        let _ = CacheKey::of_url(&url, &KeyPolicy::default());
    }
}
