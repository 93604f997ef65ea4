//! What nodes name to each other, and what is read by name: the same as a lookup would have found, or nothing.

use super::tampered::set;
use super::*;
use crate::stored::encode_names;

fn of(response: &StoredResponse, weight: u32) -> Name {
    Name::of(response, weight).unwrap()
}

async fn found(node: &Node, names: &[Name]) -> Vec<Bytes> {
    let found = node.redis.named(names).await.unwrap();
    found.iter().map(|response| response.content.whole().unwrap().clone()).collect()
}

#[tokio::test]
async fn what_is_named_is_found_in_order_and_what_is_gone_is_left_out() {
    let server = RedisServer::start();
    let (node, other) = (Node::start(server.url()).await, Node::start(server.url()).await);
    let responses = [
        plain("/a", b"a", local()),
        varying("/v", "x", b"vx"),
        varying("/v", "y", b"vy"),
        plain("/b", b"b", local()),
    ];
    for response in &responses {
        other.put(Arc::clone(response), 0).await;
    }
    let names = responses.each_ref().map(|response| of(response, 1));
    assert_eq!(found(&node, &names).await, [&b"a"[..], b"vx", b"vy", b"b"]);
    let lengths = node.redis.lengths(&names).await.unwrap();
    assert!(lengths.iter().all(|length| *length > 50), "{lengths:?}");
    server.command(&["DEL", &keys::named(&CLEAR, &names[0])]);
    assert_eq!(found(&node, &names).await, [&b"vx"[..], b"vy", b"b"]);
    assert_eq!(node.redis.lengths(&names).await.unwrap()[0], 0);
    assert_eq!(node.redis.gauges().gets, 0, "nobody has looked anything up");
}

/// Each row changes one thing, and then nothing is found under the name.
#[tokio::test]
async fn whatever_a_lookup_would_not_take_is_not_taken_by_its_name() {
    let tagged = [("cache-control", "max-age=60"), ("vary", "accept"), ("cache-groups", "\"g\"")];
    let response = stored(&key("/v"), &[("accept", "x")], &tagged, b"hello", local());
    let name = of(&response, 3);
    let place = keys::named(&CLEAR, &name);
    let base = keys::base(&CLEAR, &key("/v"));
    let elsewhere = varying("/other", "x", b"of another URL");
    let variant = varying("/v", "y", b"of another variant");
    let unvaried = plain("/v", b"of none", local());
    let names = encode_names(&key("/v"), &[http::header::ACCEPT], 0, &place);
    let marker = keys::marker(&CLEAR, key("/v").url_hash());
    let group = keys::group(&CLEAR, Group::of(&key("/v"), ["g"].into_iter()).next().unwrap());
    let as_if_there = |other: &StoredResponse| encode_response(other, 0, &place);
    let rows: Vec<(&str, &str, Vec<u8>)> = vec![
        ("another URL's response", &place, as_if_there(&elsewhere)),
        ("another variant", &place, as_if_there(&variant)),
        ("one that varies on nothing", &place, as_if_there(&unvaried)),
        ("its own from another place", &place, encode_response(&response, 0, &base)),
        ("what it varies on", &place, names),
        ("no record", &place, b"what is this doing here?".to_vec()),
        ("nothing in it", &place, Vec::new()),
        ("far too large", &place, vec![b'x'; (1 << 20) + (512 << 10) + 1]),
        ("purged since", &marker, CLEAR.encode_mark(7, &marker).into_bytes()),
        ("a mark that is none", &marker, b"0".to_vec()),
        ("its group is purged", &group, CLEAR.encode_mark(1_000_000, &group).into_bytes()),
        ("its group's mark is none", &group, b"x".to_vec()),
    ];
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    for (what, key, value) in rows {
        server.command(&["FLUSHALL"]);
        node.put(Arc::clone(&response), 0).await;
        assert_eq!(found(&node, &[name]).await, [&b"hello"[..]], "{what}");
        set(&server, key, &value);
        assert_eq!(found(&node, &[name]).await, [&b""[..]; 0], "{what}");
    }
    server.command(&["DEL", &place]);
    server.command(&["LPUSH", &place, "x"]);
    assert_eq!((found(&node, &[name]).await.len(), node.redis.lengths(&[name]).await.unwrap()), (0, vec![0]));
    server.command(&["FLUSHALL"]);
    node.put(Arc::clone(&response), 0).await;
    node.purges.purge(response.key.url_hash(), node.clock.now());
    assert_eq!(found(&node, &[name]).await.len(), 0, "purged on this node");
}

#[tokio::test]
async fn lists_are_read_as_one_the_hottest_first() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    assert_eq!(node.redis.hot(10).await.unwrap(), []);
    let name = |url: u128, weight: u32| Name { url, extras: None, variant: None, weight };
    assert_eq!(node.redis.hot_place().await.unwrap(), 0);
    node.redis.name_hot(0, &[name(1, 50), name(2, 40), name(3, 0)]).await.unwrap();
    assert_eq!(node.redis.hot_place().await.unwrap(), 1, "the first is taken");
    node.redis.name_hot(1, &[name(2, 20), name(4, 55)]).await.unwrap();
    // Of seven hours ago, by its own word.
    let at = Timestamp::from_millis(node.clock.now().as_millis() - 7 * 3_600_000);
    let old = crate::store::hot::encode(&[name(5, 128 * 45), name(6, 1)], at);
    set(&server, &keys::hot(&CLEAR, 2, 0), &old);
    set(&server, &keys::hot(&CLEAR, 3, 0), b"no list");
    server.command(&["LPUSH", &keys::hot(&CLEAR, 4, 0), "x"]);
    let hot = node.redis.hot(10).await.unwrap();
    let told: Vec<(u128, u32)> = hot.iter().map(|name| (name.url, name.weight)).collect();
    assert_eq!(told[..4], [(2, 60), (4, 55), (1, 50), (5, 45)]);
    assert_eq!(told.len(), 6);
    assert_eq!(node.redis.hot(2).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_long_list_stands_in_parts_and_a_shorter_one_leaves_none_of_them() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    let names: Vec<Name> = (0..9_000)
        .map(|nth| Name { url: nth.into(), extras: None, variant: None, weight: 9_000 - nth })
        .collect();
    node.redis.name_hot(3, &names).await.unwrap();
    assert_eq!(server.keys().len(), 3);
    assert_eq!(node.redis.hot(9_000).await.unwrap(), names);
    assert_eq!(node.redis.hot(5_000).await.unwrap(), names[..5_000]);
    node.redis.name_hot(3, &names[..10]).await.unwrap();
    assert_eq!(server.keys(), [keys::hot(&CLEAR, 3, 0)]);
    // All places are taken: the one that was written longest ago is given.
    for place in 0..keys::HOT_PLACES {
        node.redis.name_hot(place, &names[..1]).await.unwrap();
    }
    server.command(&["PEXPIRE", &keys::hot(&CLEAR, 11, 0), "1000000"]);
    assert_eq!(node.redis.hot_place().await.unwrap(), 11);
}
