//! What somebody may have done to the values in Redis: each is a miss with a reason, and is mended.

use std::collections::BTreeMap;

use http::HeaderName;

use super::*;
use crate::fields::no_vary_search::NO_VARY_SEARCH;
use crate::fields::vary::Vary;
use crate::rules::selecting_fields;
use crate::stored::{encode_names, encode_rule};

pub(super) fn damaged(node: &Node) -> BTreeMap<&'static str, u64> {
    let counts = node.redis.gauges().damaged;
    let each = Damaged::ALL.into_iter().map(|why| (why.as_str(), counts[why.index()]));
    each.filter(|(_, count)| *count > 0).collect()
}

pub(super) fn set(server: &RedisServer, key: &str, value: &[u8]) {
    server.command(&["DEL", key]);
    server.command(&[b"SET".as_slice(), key.as_bytes(), value]);
}

pub(super) fn raw(server: &RedisServer, key: &str) -> Vec<u8> {
    let Reply::Bulk(Some(bytes)) = server.command(&["GET", key]) else { panic!("{key} is gone") };
    bytes
}

/// A record whose checksum fits whatever was changed, as only somebody makes it who means to.
fn forged(mut record: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    record.truncate(record.len() - 8);
    change(&mut record);
    let checksum = xxhash_rust::xxh3::xxh3_64(&record);
    record.extend(checksum.to_le_bytes());
    record
}

/// Where the length of the content stands in a record with the content `hello`.
fn length_at(record: &[u8]) -> usize {
    record.len() - 8 - b"hello".len() - 8
}

#[tokio::test]
async fn whatever_was_done_to_a_record_it_is_a_miss_with_a_reason_and_is_removed() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    let base = keys::base(&CLEAR, &key("/"));
    let good = encode_response(&plain("/", b"hello", local()), 0, &base);
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut record = good.clone();
        change(&mut record);
        record
    };
    let times = 7 + 8 + 8 + (4 + "http://test/".len()) + 4;
    let rows: Vec<(&str, Vec<u8>, &str)> = vec![
        ("a bit in the head", changed(&|r| r[60] ^= 1), "checksum"),
        ("a bit in the body", changed(&|r| *r.iter_mut().nth_back(9).unwrap() ^= 1), "checksum"),
        ("a bit in the checksum", changed(&|r| *r.last_mut().unwrap() ^= 0x80), "checksum"),
        ("cut", good[..good.len() / 2].to_vec(), "checksum"),
        ("cut to nothing", Vec::new(), "empty"),
        ("cut to its name", good[..5].to_vec(), "too-short"),
        ("longer", [&good[..], b"tail"].concat(), "checksum"),
        ("foreign", b"what is this doing here?".to_vec(), "foreign"),
        ("of an older version", changed(&|r| r[4] = 2), "version"),
        ("of a newer version", changed(&|r| r[4] = 5), "version"),
        ("another URL's", encode_response(&plain("/other", b"other", local()), 0, "other"), "other-key"),
        ("of this URL, elsewhere", encode_response(&plain("/", b"hello", local()), 0, "other"), "other-key"),
        ("of another URL, here", encode_response(&plain("/b", b"hello", local()), 0, &base), "other-key"),
        ("a rule", encode_rule(b"params", &base), "malformed"),
        ("of an unknown kind", forged(good.clone(), |r| r[6] = 9), "malformed"),
        (
            "with a content of gigabytes",
            forged(good.clone(), |r| {
                let at = length_at(&good);
                r[at..at + 8].copy_from_slice(&(1u64 << 33).to_le_bytes());
            }),
            "malformed",
        ),
        (
            "with a URL of gigabytes",
            forged(good.clone(), |r| r[23..27].copy_from_slice(&u32::MAX.to_le_bytes())),
            "malformed",
        ),
        (
            "from the far future",
            forged(good.clone(), |r| r[times..times + 8].copy_from_slice(&u64::MAX.to_le_bytes())),
            "future",
        ),
        ("far too large", vec![b'x'; (1 << 20) + (512 << 10) + 1], "too-large"),
    ];
    let mut expected = BTreeMap::new();
    for (what, value, why) in rows {
        set(&server, &base, &value);
        let found = node.get("/", &[]).await;
        assert_eq!(found.map_err(Absent::as_str), Err("damaged"), "{what}");
        *expected.entry(why).or_insert(0) += 1;
        assert_eq!(damaged(&node), expected, "{what}");
        node.redis.flush(PATIENCE).await;
        assert_eq!(server.keys(), Vec::<String>::new(), "{what}: removed");
    }
    set(&server, &base, &good);
    assert_eq!(node.get("/", &[]).await.unwrap(), "hello", "and the record itself is read");
    let gauges = node.redis.gauges();
    assert_eq!((gauges.errors, gauges.up), (0, true), "nothing of it is the connection's fault");
}

#[tokio::test]
async fn a_record_from_long_ago_has_its_age() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    let base = keys::base(&CLEAR, &key("/"));
    let good = encode_response(&plain("/", b"hello", local()), 0, &base);
    let times = 7 + 8 + 8 + (4 + "http://test/".len()) + 4;
    set(&server, &base, &forged(good, |r| r[times..times + 16].fill(0)));
    let found = node.redis.get(&key("/"), &HeaderMap::new(), PLAIN).await.found.unwrap();
    assert_eq!(found.facts.request_time, Timestamp::from_millis(0), "so nobody takes it for fresh");
}

#[tokio::test]
async fn what_is_no_string_is_a_miss_and_is_removed() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    let base = keys::base(&CLEAR, &key("/"));
    for (nth, command) in [["LPUSH", &base, "a", ""], ["SADD", &base, "a", ""], ["HSET", &base, "a", "b"]]
        .into_iter()
        .enumerate()
    {
        let words: Vec<&str> = command.into_iter().filter(|word| !word.is_empty()).collect();
        server.command(&words);
        assert_eq!(node.get("/", &[]).await, Err(Absent::Damaged(Damaged::WrongType)), "{words:?}");
        assert_eq!(damaged(&node), BTreeMap::from([("wrong-type", nth as u64 + 1)]));
        node.redis.flush(PATIENCE).await;
        assert_eq!(server.keys(), Vec::<String>::new(), "{words:?}");
    }
    // And what comes next is kept, whatever stood there.
    server.command(&["LPUSH", &base, "a"]);
    node.put(plain("/", b"new", local()), 0).await;
    assert_eq!(node.get("/", &[]).await.unwrap(), "new");
}

#[tokio::test]
async fn what_was_written_anew_meanwhile_is_not_removed() {
    let server = RedisServer::start();
    let relay = Relay::start(server.addr());
    let node = Node::start(relay.url()).await;
    let base = keys::base(&CLEAR, &key("/"));
    let good = encode_response(&plain("/", b"hello", local()), 0, &base);
    set(&server, &base, b"what is this doing here?");
    let bad = Bad::new(Damaged::Foreign, &raw(&server, &base));
    set(&server, &base, &good);
    node.redis.0.queue.remove(base.clone(), bad.clone());
    node.redis.flush(PATIENCE).await;
    assert_eq!(raw(&server, &base), good);
    // Of the same length, too.
    let other: Vec<u8> = good.iter().map(|byte| byte ^ 1).collect();
    node.redis.0.queue.remove(base.clone(), Bad::new(Damaged::Foreign, &other));
    node.redis.flush(PATIENCE).await;
    assert_eq!(raw(&server, &base), good);
    // And if it went: for ever so many of them, no more wait than may.
    for nth in 0..1_000 {
        node.redis.0.queue.remove(format!("{base}{nth}"), bad.clone());
    }
    node.redis.flush(PATIENCE).await;
}

#[tokio::test]
async fn half_a_gigabyte_under_a_key_is_not_read() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    let base = keys::base(&CLEAR, &key("/"));
    // Redis makes room for it without being sent it.
    server.command(&["SETRANGE", &base, "268435456", "x"]);
    server.command(&["CONFIG", "RESETSTAT"]);
    assert_eq!(node.get("/", &[]).await, Err(Absent::Damaged(Damaged::TooLarge)));
    let stats = server.command(&["INFO", "stats"]).text();
    let sent = stats.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:")).unwrap();
    assert!(sent.parse::<u64>().unwrap() < 4 << 20, "{sent} bytes");
    node.redis.flush(PATIENCE).await;
    assert_eq!(server.keys(), Vec::<String>::new());
}

#[tokio::test]
async fn variants_that_were_swapped_or_put_where_their_index_was_are_misses() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    for accept in ["a", "b"] {
        node.put(varying("/", accept, accept.as_bytes()), 0).await;
    }
    let base = keys::base(&CLEAR, &key("/"));
    let of = |accept| keys::variant(&CLEAR, &base, varying("/", accept, b"").selecting.hash());
    let (a, b) = (of("a"), of("b"));
    let (record_a, record_b) = (raw(&server, &a), raw(&server, &b));
    set(&server, &a, &record_b);
    set(&server, &b, &record_a);
    for accept in ["a", "b"] {
        let found = node.get("/", &[("accept", accept)]).await;
        assert_eq!(found, Err(Absent::Damaged(Damaged::OtherKey)), "{accept}");
    }
    let names = raw(&server, &base);
    set(&server, &base, &record_a);
    assert_eq!(node.get("/", &[("accept", "a")]).await, Err(Absent::Damaged(Damaged::OtherKey)));
    set(&server, &base, &names);
    set(&server, &a, &names);
    assert_eq!(node.get("/", &[("accept", "a")]).await, Err(Absent::Damaged(Damaged::OtherKey)));
    node.redis.flush(PATIENCE).await;
    assert!(!server.keys().contains(&a) && !server.keys().contains(&b), "{:?}", server.keys());
}

#[tokio::test]
async fn an_index_of_somebody_elses_choice_leads_to_misses_alone() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    node.put(varying("/", "a", b"for a"), 0).await;
    let base = keys::base(&CLEAR, &key("/"));
    let thousands: Vec<HeaderName> =
        (0..5_000).map(|nth| HeaderName::from_bytes(format!("x-{nth}").as_bytes()).unwrap()).collect();
    let names = |names: &[HeaderName]| encode_names(&key("/"), names, 0, &base);
    set(&server, &base, &names(&thousands));
    assert_eq!(node.get("/", &[("accept", "a")]).await, Err(Absent::Damaged(Damaged::Malformed)));
    for own in [vec![], vec![http::header::COOKIE], thousands[..64].to_vec()] {
        set(&server, &base, &names(&own));
        assert_eq!(node.get("/", &[("accept", "a")]).await, Err(Absent::OtherVariant), "{own:?}");
    }
    // Even where a variant stands under the name that such an index leads to.
    set(&server, &base, &names(&[]));
    let none = selecting_fields(&Vary::Names(Vec::new()), &HeaderMap::new(), PLAIN).hash();
    let place = keys::variant(&CLEAR, &base, none);
    set(&server, &place, &encode_response(&varying("/", "a", b"for a"), 0, &place));
    assert_eq!(node.get("/", &[("accept", "b")]).await, Err(Absent::OtherVariant));
}

#[tokio::test]
async fn what_was_purged_and_put_back_is_a_miss() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    node.put(plain("/", b"old", local()), 0).await;
    let base = keys::base(&CLEAR, &key("/"));
    let old = raw(&server, &base);
    node.redis.purge(key("/").url_hash()).await.unwrap();
    set(&server, &base, &old);
    assert_eq!(node.get("/", &[]).await, Err(Absent::NotFound));
    let now = node.redis.get(&key("/"), &HeaderMap::new(), PLAIN).await.generation.unwrap();
    node.redis.put(plain("/", b"new", local()), now, TTL, PLAIN);
    node.redis.flush(PATIENCE).await;
    assert_eq!(node.get("/", &[]).await.unwrap(), "new");
    let marker = keys::marker(&CLEAR, key("/").url_hash());
    let other = keys::marker(&CLEAR, key("/other").url_hash());
    node.redis.purge(key("/other").url_hash()).await.unwrap();
    server.command(&["COPY", &other, &marker, "REPLACE"]);
    assert_eq!(node.get("/", &[]).await, Err(Absent::Damaged(Damaged::Checksum)), "another URL's purge");
}

#[tokio::test]
async fn a_marker_that_cannot_be_read_voids_its_url_until_it_is_made_anew() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    let marker = keys::marker(&CLEAR, key("/").url_hash());
    let far = "9".repeat(5_000);
    for (nth, value) in ["not a number", "1", far.as_str()].into_iter().enumerate() {
        let now = node.redis.get(&key("/"), &HeaderMap::new(), PLAIN).await.generation.unwrap();
        node.redis.put(plain("/", b"old", local()), now, TTL, PLAIN);
        node.redis.flush(PATIENCE).await;
        assert_eq!(node.get("/", &[]).await.unwrap(), "old", "{nth}");
        set(&server, &marker, value.as_bytes());
        let answer = node.redis.get(&key("/"), &HeaderMap::new(), PLAIN).await;
        assert_eq!(answer.found.err().map(Absent::as_str), Some("damaged"));
        assert_eq!(answer.generation, None, "nothing may be put then");
        node.redis.flush(PATIENCE).await;
        assert_eq!(node.get("/", &[]).await, Err(Absent::NotFound), "purged, to be sure");
    }
    // Nor can one of another type keep a purge, or a write, from Redis.
    server.command(&["DEL", &marker]);
    server.command(&["LPUSH", &marker, "a list"]);
    assert_eq!(node.redis.purge(key("/").url_hash()).await, Ok(None));
    let now = node.redis.get(&key("/"), &HeaderMap::new(), PLAIN).await.generation.unwrap();
    node.redis.put(plain("/", b"new", local()), now, TTL, PLAIN);
    node.redis.flush(PATIENCE).await;
    assert_eq!(node.get("/", &[]).await.unwrap(), "new");
    assert_eq!(node.redis.gauges().write_errors, 0);
}

#[tokio::test]
async fn a_marker_that_would_stand_for_ages_keeps_no_purge_from_redis() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    let (url, path) = (key("/").url_hash(), Group::of_path(&key("/")));
    let now = Clock::system().now();
    let for_ages = (i64::MAX - 1).to_string();
    for marker in [keys::marker(&CLEAR, url), keys::group(&CLEAR, path)] {
        set(&server, &marker, b"1.0123456789abcdef");
        assert_eq!(server.command(&["PEXPIREAT", &marker, &for_ages]).int(), 1);
    }
    assert_eq!(node.redis.purge(url).await, Ok(None));
    assert_eq!(node.redis.purge_path(path, now).await, Ok(()));
    let most = i64::try_from(keys::group_ttl()).unwrap();
    for marker in [keys::marker(&CLEAR, url), keys::group(&CLEAR, path)] {
        let left = server.command(&["PTTL", &marker]).int();
        assert!(left > 0 && left <= most, "{marker}: {left}");
    }
}

/// A response in the group `g`.
pub(super) fn grouped(path: &str, body: &[u8]) -> Arc<StoredResponse> {
    let response = [("cache-control", "max-age=60"), ("cache-groups", "\"g\"")];
    stored(&key(path), &[], &response, body, Born::Here(0))
}

#[tokio::test]
async fn a_groups_marker_that_cannot_be_believed_voids_the_group_until_it_is_made_anew() {
    let server = RedisServer::start();
    let (clock, stepper) = crate::clock::Clock::stepped(Timestamp::from_secs(1_002));
    let node = Node::with_clock(samples::cache(Some(server.url())), clock).await;
    let group = Group::of(&key("/"), ["g"].into_iter()).next().unwrap();
    let marker = keys::group(&CLEAR, group);
    let ahead = CLEAR.encode_mark(Timestamp::from_secs(1_002 + 301).as_millis(), &marker);
    for value in [ahead.as_str(), "1000", "999999999999999.0123456789abcdef", "a list"] {
        set(&server, &marker, value.as_bytes());
        if value == "a list" {
            server.command(&["DEL", &marker]);
            server.command(&["LPUSH", &marker, value]);
        }
        node.put(grouped("/", b"old"), 0).await;
        assert_eq!(node.get("/", &[]).await.map_err(Absent::as_str), Err("damaged"), "{value}");
        node.redis.flush(PATIENCE).await;
        assert_eq!(
            raw(&server, &marker),
            CLEAR.encode_mark(node.clock.now().as_millis(), &marker).as_bytes()
        );
        assert_eq!(node.get("/", &[]).await, Err(Absent::NotFound), "{value}: purged, to be sure");
        stepper.advance(Duration::from_secs(1));
    }
    // A clock that is a little ahead is believed.
    let purged = node.clock.now().saturating_add(Duration::from_secs(200));
    node.redis.purge_groups(Arc::new([group]), purged).await.unwrap();
    node.redis.purge_groups(Arc::new([group]), node.clock.now()).await.unwrap();
    assert_eq!(raw(&server, &marker), CLEAR.encode_mark(purged.as_millis(), &marker).as_bytes());
}

#[tokio::test]
async fn a_rule_that_was_tampered_with_is_none_and_is_removed() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    let path = Group::of_path(&key("/"));
    let place = keys::rule(&CLEAR, path);
    let good = encode_rule(b"params", &place);
    let long = encode_rule(&[b'a'; 9_000], &place);
    for (value, why) in [
        (&b"params"[..], "too-short"),
        (b"params, key-order", "foreign"),
        (&encode_rule(b"params", "elsewhere"), "other-key"),
        (&encode_names(&key("/"), &[], 0, &place), "malformed"),
        (&long, "too-large"),
        (b"", "empty"),
    ] {
        set(&server, &place, value);
        assert!(node.redis.rule(path).await.is_none(), "{why}");
        assert!(damaged(&node).contains_key(why), "{why}: {:?}", damaged(&node));
        node.redis.flush(PATIENCE).await;
        assert_eq!(server.keys(), Vec::<String>::new(), "{why}");
    }
    set(&server, &place, &good);
    let headers = HeaderMap::from_iter([(NO_VARY_SEARCH, HeaderValue::from_static("params"))]);
    assert_eq!(node.redis.rule(path).await, NoVarySearch::parse(&headers));
}
