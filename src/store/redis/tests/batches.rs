//! Writes that wait are sent in one piece, and each is judged by itself.

use std::collections::BTreeSet;

use super::*;
use crate::store::redis_server::Liar;

/// Waits until the writer has taken all that was offered.
async fn taken(node: &Node) {
    let taken = async {
        while node.redis.0.queue.waiting_writes() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, taken).await.expect("the writer takes it");
}

fn place(path: &str) -> String {
    keys::plain(&CLEAR, key(path).url_hash())
}

/// What was written, failed, and was dropped.
fn counts(node: &Node) -> (u64, u64, u64) {
    let gauges = node.redis.gauges();
    (gauges.writes, gauges.write_errors, gauges.dropped_writes)
}

#[tokio::test]
async fn the_script_of_a_put_is_called_by_its_own_hash() {
    let server = RedisServer::start();
    assert_eq!(server.command(&["SCRIPT", "LOAD", script::PUT]), Reply::Bulk(Some(script::PUT_HASH.into())));
}

#[tokio::test]
async fn all_that_wait_at_once_arrive() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    let large = vec![b'x'; 300 << 10];
    for nth in 0..200 {
        let path = format!("/{nth}");
        match nth % 50 {
            7 => node.offer(varying(&path, "a", path.as_bytes()), 0, TTL),
            9 => node.offer(plain(&path, &large, local()), 0, TTL),
            _ => node.offer(plain(&path, path.as_bytes(), local()), 0, TTL),
        }
    }
    node.redis.flush(PATIENCE).await;
    assert_eq!((counts(&node), node.redis.gauges().queue_bytes), ((200, 0, 0), 0));
    for nth in 0..200 {
        let path = format!("/{nth}");
        let found = node.get(&path, &[("accept", "a")]).await.unwrap();
        assert_eq!(found, if nth % 50 == 9 { large.clone().into() } else { Bytes::from(path) });
    }
    let errors = server.command(&["INFO", "errorstats"]).text();
    assert!(!errors.contains("NOSCRIPT"), "the first of a piece brings the text: {errors}");
    let calls = server.command(&["INFO", "commandstats"]).text();
    let count = |name: &str| {
        let (_, rest) = calls.split_once(&format!("cmdstat_{name}:calls=")).unwrap_or(("", "0,"));
        rest.split_once(',').unwrap().0.parse::<u32>().unwrap()
    };
    assert_eq!(count("eval") + count("evalsha"), 200);
    assert!(count("eval") <= 20, "{} have the text", count("eval"));
}

#[tokio::test]
async fn two_of_one_url_keep_their_order() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    for (path, body) in [("/a", "old"), ("/b", "b"), ("/a", "newer"), ("/c", "c"), ("/a", "newest")] {
        node.offer(plain(path, body.as_bytes(), local()), 0, TTL);
    }
    node.redis.flush(PATIENCE).await;
    assert_eq!(counts(&node), (5, 0, 0));
    for (path, body) in [("/a", "newest"), ("/b", "b"), ("/c", "c")] {
        assert_eq!(node.get(path, &[]).await.unwrap(), body);
    }
}

#[tokio::test]
async fn what_is_purged_before_its_piece_is_sent_or_while_it_is_does_not_stay() {
    let server = RedisServer::start();
    let relay = Relay::start(server.addr());
    let node = Node::start(relay.url()).await;
    let paths: Vec<String> = (0..20).map(|nth| format!("/{nth}")).collect();
    relay.set(Mode::Stall);
    for path in &paths {
        node.offer(plain(path, b"old", local()), 0, TTL);
    }
    // Redis does not hear of either.
    let purge = |path: &str| node.purges.purge(key(path).url_hash(), Timestamp::from_secs(1_000));
    purge("/3");
    taken(&node).await;
    purge("/7");
    relay.set(Mode::Pass);
    node.redis.flush(PATIENCE).await;
    let left: BTreeSet<String> = server.keys().into_iter().collect();
    let others = paths.iter().filter(|path| !["/3", "/7"].contains(&path.as_str()));
    assert_eq!(left, others.map(|path| place(path)).collect());
    assert_eq!(counts(&node), (19, 0, 1), "the second was written, and undone");
}

#[tokio::test]
async fn what_another_node_has_purged_is_not_put_and_its_neighbours_are() {
    let server = RedisServer::start();
    let (node, other) = (Node::start(server.url()).await, Node::start(server.url()).await);
    other.redis.purge(key("/purged").url_hash()).await.unwrap();
    for path in ["/a", "/purged", "/b"] {
        node.offer(plain(path, b"x", local()), 0, TTL);
    }
    node.redis.flush(PATIENCE).await;
    assert_eq!(counts(&node), (2, 0, 1));
    assert!(!server.keys().contains(&place("/purged")));
}

#[tokio::test]
async fn one_that_is_too_long_or_refused_does_not_harm_the_others() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    // As for want of room, or of leave: the first, which brings the script's text, and one in the middle.
    let allowed = ["/a", "/b", "/c"].map(|path| format!("~larder:4:{{{:032x}}}:*", key(path).url_hash()));
    let [a, b, c] = allowed.each_ref().map(String::as_str);
    server.command(&["ACL", "SETUSER", "default", "resetkeys", a, b, c]);
    let long = "x".repeat(2 << 20);
    let response = [("cache-control", "max-age=60"), ("x-long", &long)];
    let long = stored(&key("/long"), &[], &response, b"", local());
    for path in ["/refused", "/a", "/b", "/refused-as-well"] {
        node.offer(plain(path, b"x", local()), 0, TTL);
    }
    node.offer(long, 0, TTL);
    node.offer(plain("/c", b"x", local()), 0, TTL);
    node.redis.flush(PATIENCE).await;
    assert_eq!((counts(&node), node.redis.gauges().queue_bytes), ((3, 2, 1), 0));
    let left: BTreeSet<String> = server.keys().into_iter().collect();
    assert_eq!(left, ["/a", "/b", "/c"].map(place).into());
}

#[tokio::test]
async fn a_redis_that_lets_nobody_call_a_script_by_its_hash_takes_all_the_same() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    server.command(&["ACL", "SETUSER", "default", "-evalsha"]);
    for path in ["/a", "/b", "/c"] {
        node.offer(plain(path, b"x", local()), 0, TTL);
    }
    node.redis.flush(PATIENCE).await;
    assert_eq!((counts(&node), server.keys().len()), ((3, 0, 0), 3));
}

#[tokio::test]
async fn a_redis_that_is_full_refuses_each_of_a_piece_and_is_written_to_again() {
    let server = RedisServer::start();
    let node = Node::start(server.url()).await;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]);
    for path in ["/a", "/b", "/c"] {
        node.offer(plain(path, b"x", local()), 0, TTL);
    }
    node.redis.flush(PATIENCE).await;
    assert_eq!((counts(&node), node.redis.state()), ((0, 3, 0), "closed"));
    server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    node.put(plain("/d", b"x", local()), 0).await;
    assert_eq!(counts(&node), (1, 3, 0));
}

#[tokio::test]
async fn a_connection_that_breaks_counts_for_all_that_were_on_their_way() {
    let server = RedisServer::start();
    let relay = Relay::start(server.addr());
    let node = Node::start(relay.url()).await;
    relay.set(Mode::Swallow);
    for nth in 0..5 {
        node.offer(plain(&format!("/{nth}"), b"x", local()), 0, TTL);
    }
    taken(&node).await;
    relay.set(Mode::Cut);
    node.redis.flush(PATIENCE).await;
    assert_eq!((counts(&node), node.redis.gauges().queue_bytes), ((0, 5, 0), 0));
    relay.set(Mode::Pass);
    node.until("closed").await;
    node.put(plain("/later", b"x", local()), 0).await;
    assert_eq!(node.get("/later", &[]).await.unwrap(), "x");
}

/// One with two masters, as whoever is asked first tells.
#[tokio::test]
async fn a_piece_goes_to_all_masters_of_its_keys_and_one_that_is_gone_harms_no_others() {
    let (one, mut two) = (RedisServer::start(), RedisServer::start());
    let line = |server: &RedisServer, slots: &str| {
        format!("id{slots} {}@1 master - 0 0 1 connected {slots}\n", server.addr())
    };
    let told = line(&one, "0-8191") + &line(&two, "8192-16383");
    let seed = Liar::start(move |_, _| format!("${}\r\n{told}\r\n", told.len()).into_bytes());
    let node = Node::start(format!("redis+cluster://{}", seed.addr())).await;
    let offer = |what: &str| {
        (0..60).for_each(|nth| node.offer(plain(&format!("/{what}/{nth}"), b"x", local()), 0, TTL));
    };
    let whole = async {
        while !node.redis.gauges().up {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, whole).await.expect("both are reached");
    offer("both");
    node.redis.flush(PATIENCE).await;
    let held = [one.keys().len(), two.keys().len()];
    assert_eq!((counts(&node), held[0] + held[1]), ((60, 0, 0), 60));
    assert!(held.iter().all(|held| *held > 5), "{held:?}");
    two.stop();
    offer("one");
    node.redis.flush(PATIENCE).await;
    let (writes, errors, dropped) = counts(&node);
    assert_eq!((writes, errors + dropped), (one.keys().len() as u64 + held[1] as u64, 120 - writes));
    assert!(one.keys().len() > held[0] + 5);
}

#[tokio::test]
async fn each_lease_is_given_back_with_its_own_word_also_by_a_writer_that_is_dropped() {
    let server = RedisServer::start();
    let relay = Relay::start(server.addr());
    let node = Node::start(relay.url()).await;
    let cfg = samples::cache(Some(server.url()));
    let start = |name| Leases::start(&cfg, Clock::system(), name, &Arc::default()).unwrap();
    let (holder, waiter) = (start("n-1"), start("n-2"));
    let look = async |redis: &Redis, leases: &Leases, path: &str| {
        let bid = Bid { leases, lane: 0, refresh: false };
        match redis.get_or_lease(&key(path), &HeaderMap::new(), PLAIN, Some(bid)).await.turn {
            Asked::Told(turn) => turn,
            Asked::Not(seen) => redis.lease(bid, seen).await,
        }
    };
    let other = Node::start(server.url()).await;
    let mut ears = Vec::new();
    let mut offer = async |path: &'static str| {
        let Turn::Mine(lease) = look(&node.redis, &holder, path).await else { panic!("{path}") };
        let Turn::Theirs(about, _) = look(&other.redis, &waiter, path).await else { panic!("{path}") };
        let heard = async {
            loop {
                match waiter.listen(&about) {
                    Some(heard) => return heard,
                    None => tokio::task::yield_now().await,
                }
            }
        };
        ears.push(timeout(PATIENCE, heard).await.expect("it hears"));
        lease
    };
    let paths = ["/a", "/refused", "/b", "/dropped", "/dropped-too"];
    // A Redis that does not know the script of a lease learns it by the first who asks.
    drop(look(&other.redis, &waiter, "/").await);
    let mut leases = Vec::new();
    for path in paths {
        leases.push(offer(path).await);
    }
    let mut put = paths.into_iter().zip(leases);
    let give = |node: &Node, (path, lease): (&str, Lease)| {
        let generation = Generation { number: 0, seen_at: node.clock.mono() };
        node.redis.put_and_give_back(plain(path, b"x", local()), generation, (TTL, PLAIN), Some(lease));
    };
    // What stands there is no mark: nothing is put until it is mended.
    server.command(&["SET", &keys::marker(&CLEAR, key("/refused").url_hash()), "damaged"]);
    put.by_ref().take(3).for_each(|each| give(&node, each));
    node.redis.flush(PATIENCE).await;
    relay.set(Mode::Swallow);
    put.for_each(|each| give(&node, each));
    taken(&node).await;
    drop(node);
    let mut words = Vec::new();
    for heard in &mut ears {
        words.push(timeout(PATIENCE, heard.wait(PATIENCE)).await.expect("a word comes"));
    }
    let (stored, not) = (Woken::Stored, Woken::NotStored);
    assert_eq!(words, [stored, stored, stored, not, not]);
    holder.flush(PATIENCE).await;
    assert_eq!(holder.gauges().held, 0);
}
