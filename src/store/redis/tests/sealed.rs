//! Redis written with a secret: all works as without one, nothing is to be read there, and nothing that was
//! not written with the secret is taken.

use super::tampered::{damaged, grouped, raw, set};
use super::*;
use crate::stored::{Secret, encode_response, encode_rule};

fn secret(digit: char) -> Secret {
    Secret::from_hex(&format!("{}{}", "01".repeat(31), digit.to_string().repeat(2))).unwrap()
}

async fn node(server: &RedisServer, secrets: &[Secret]) -> Node {
    let cfg = config::Cache { redis_secrets: secrets.to_vec(), ..samples::cache(Some(server.url())) };
    Node::with(cfg).await
}

fn base(seal: &Seal, path: &str) -> String {
    keys::base(seal, &key(path))
}

#[tokio::test]
async fn all_works_as_in_the_clear() {
    let server = RedisServer::start();
    let (one, two) = (node(&server, &[secret('a')]).await, node(&server, &[secret('a')]).await);
    one.put(plain("/", b"hello", local()), 0).await;
    one.put(varying("/v", "a", b"for a"), 0).await;
    one.put(varying("/v", "b", b"for b"), 0).await;
    let extras = CacheKey::from_parts(key("/x").url(), "h:accept=x;");
    one.put(stored(&extras, &[], &[("cache-control", "max-age=60")], b"extras", local()), 0).await;
    assert_eq!(two.get("/", &[]).await.unwrap(), "hello");
    assert_eq!(two.get("/v", &[("accept", "a")]).await.unwrap(), "for a");
    assert_eq!(two.get("/v", &[("accept", "b")]).await.unwrap(), "for b");
    assert_eq!(two.get("/v", &[("accept", "c")]).await, Err(Absent::OtherVariant));
    assert!(two.redis.get(&extras, &HeaderMap::new(), PLAIN).await.found.is_ok());

    for path in ["/", "/v", "/x"] {
        one.redis.purge(key(path).url_hash()).await.unwrap();
    }
    assert_eq!(two.get("/", &[]).await, Err(Absent::NotFound));
    assert_eq!(two.get("/v", &[("accept", "a")]).await, Err(Absent::NotFound));
    assert_eq!(two.redis.get(&extras, &HeaderMap::new(), PLAIN).await.found.err(), Some(Absent::NotFound));
    let now = two.redis.get(&key("/"), &HeaderMap::new(), PLAIN).await.generation.unwrap();
    two.redis.put(plain("/", b"new", local()), now, TTL, PLAIN);
    two.redis.flush(PATIENCE).await;
    assert_eq!(one.get("/", &[]).await.unwrap(), "new");

    one.put(grouped("/g", b"in a group"), 0).await;
    assert_eq!(two.get("/g", &[]).await.unwrap(), "in a group");
    let group = Group::of(&key("/g"), ["g"].into_iter()).next().unwrap();
    two.redis.purge_groups(Arc::new([group]), two.clock.now()).await.unwrap();
    assert_eq!(one.get("/g", &[]).await, Err(Absent::NotFound));
    let gauges = one.redis.gauges();
    assert_eq!((gauges.write_errors, gauges.errors, damaged(&one).len(), damaged(&two).len()), (0, 0, 0, 0));
}

#[tokio::test]
async fn nothing_of_it_is_to_be_seen_in_redis() {
    let server = RedisServer::start();
    let sealed = node(&server, &[secret('a')]).await;
    sealed.put(plain("/telling", b"a telling body", local()), 0).await;
    sealed.put(varying("/telling/variant", "a-telling-value", b"a telling body"), 0).await;
    sealed.redis.purge(key("/telling/purged").url_hash()).await.unwrap();
    let names = server.keys();
    assert_eq!(names.len(), 5, "{names:?}");
    // Without the secret nobody can tell by its key whether something is stored, even who knows its URL.
    for path in ["/telling", "/telling/variant", "/telling/purged"] {
        let hash = format!("{:032x}", key(path).url_hash());
        assert!(!names.iter().any(|name| name.contains(&hash)), "{path}: {names:?}");
    }
    for name in names {
        let value = raw(&server, &name);
        let seen = |part: &[u8]| value.windows(part.len()).any(|window| window == part);
        for part in [&b"telling"[..], b"test", b"accept", b"cache-control", b"max-age"] {
            assert!(!seen(part), "{name}: {}", value.escape_ascii());
        }
    }
    let clear = node(&server, &[]).await;
    assert_eq!(clear.get("/telling", &[]).await, Err(Absent::NotFound), "who has none looks elsewhere");
}

#[tokio::test]
async fn what_was_not_written_with_the_secret_is_not_taken() {
    let server = RedisServer::start();
    let sealed = node(&server, &[secret('a')]).await;
    let seal = Seal::new(&[secret('a')]);
    let (place, other) = (base(&seal, "/"), base(&seal, "/other"));
    for path in ["/", "/other"] {
        sealed.put(plain(path, path.as_bytes(), local()), 0).await;
    }
    let (good, moved) = (raw(&server, &place), raw(&server, &other));
    let record = encode_response(&plain("/", b"evil", local()), 0, &place);
    let by_another = Seal::new(&[secret('b')]).close(record.clone(), &place, || Some([1; 24])).unwrap();
    let changed = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    for (value, why) in [
        (record, "unsealed"),
        (b"whatever this is".to_vec(), "unsealed"),
        (moved, "forged"),
        (changed(20), "forged"),
        (changed(good.len() - 20), "forged"),
        (changed(good.len() - 1), "forged"),
        (good[..good.len() - 1].to_vec(), "forged"),
        ([&good[..], b"x"].concat(), "forged"),
        (good[..40].to_vec(), "too-short"),
        (changed(4), "version"),
        (Vec::new(), "empty"),
    ] {
        let before = damaged(&sealed).get(why).copied().unwrap_or(0);
        set(&server, &place, &value);
        assert_eq!(sealed.get("/", &[]).await.map_err(Absent::as_str), Err("damaged"), "{why}");
        assert_eq!(damaged(&sealed).get(why), Some(&(before + 1)), "{why}: {:?}", damaged(&sealed));
        sealed.redis.flush(PATIENCE).await;
        assert!(!server.keys().contains(&place), "{why}: removed");
    }
    // What another secret has sealed may be of use to others.
    set(&server, &place, &by_another);
    assert_eq!(sealed.get("/", &[]).await, Err(Absent::Damaged(Damaged::OtherSecret)));
    sealed.redis.flush(PATIENCE).await;
    assert_eq!(raw(&server, &place), by_another);
    set(&server, &place, &good);
    assert_eq!(sealed.get("/", &[]).await.unwrap(), "/");

    // Purges cannot be made up, nor taken from another URL.
    let marker = keys::marker(&seal, key("/").url_hash());
    sealed.redis.purge(key("/other").url_hash()).await.unwrap();
    let others = raw(&server, &keys::marker(&seal, key("/other").url_hash()));
    for (mark, why) in
        [(others, Damaged::Forged), (CLEAR.encode_mark(7, &marker).into_bytes(), Damaged::Unsealed)]
    {
        set(&server, &marker, &mark);
        assert_eq!(sealed.get("/", &[]).await, Err(Absent::Damaged(why)));
        sealed.redis.flush(PATIENCE).await;
        assert_ne!(raw(&server, &marker), mark, "made anew");
    }
    let path = Group::of_path(&key("/"));
    let rule = keys::rule(&seal, path);
    set(&server, &rule, &encode_rule(b"params", &rule));
    assert!(sealed.redis.rule(path).await.is_none());
    set(&server, &rule, &seal.close(encode_rule(b"params", &rule), &rule, || Some([2; 24])).unwrap());
    assert!(sealed.redis.rule(path).await.is_some());
}

#[tokio::test]
async fn a_secret_is_replaced_while_all_go_on() {
    let server = RedisServer::start();
    let (before, both) =
        (node(&server, &[secret('a')]).await, node(&server, &[secret('b'), secret('a')]).await);
    before.put(plain("/old", b"old", local()), 0).await;
    assert_eq!(both.get("/old", &[]).await.unwrap(), "old", "the former is still read");
    both.put(plain("/new", b"new", local()), 0).await;
    assert_eq!(both.get("/new", &[]).await.unwrap(), "new");
    assert_eq!(before.get("/new", &[]).await, Err(Absent::Damaged(Damaged::OtherSecret)));
    before.redis.flush(PATIENCE).await;
    assert_eq!(both.get("/new", &[]).await.unwrap(), "new", "and it stays");
    // A purge by either reaches both.
    before.redis.purge(key("/new").url_hash()).await.unwrap();
    assert_eq!(both.get("/new", &[]).await, Err(Absent::NotFound));
    both.redis.purge(key("/old").url_hash()).await.unwrap();
    assert!(before.get("/old", &[]).await.is_err());
    let after = node(&server, &[secret('b')]).await;
    assert_eq!(after.get("/new", &[]).await, Err(Absent::NotFound), "the last of them names the keys");
    after.put(plain("/new", b"newer", local()), 0).await;
    assert_eq!(after.get("/new", &[]).await.unwrap(), "newer");
}

#[tokio::test]
async fn what_is_compressed_comes_back_and_takes_less_sealed_or_not() {
    let body = "{\"id\":1,\"name\":\"somebody\"},".repeat(1_000);
    let server = RedisServer::start();
    for secrets in [vec![], vec![Secret::from_hex(&"0f".repeat(32)).unwrap()]] {
        let cfg = config::Cache {
            redis_secrets: secrets.clone(),
            redis_compress: Some(1024),
            ..samples::cache(Some(server.url()))
        };
        let node = Node::with(cfg.clone()).await;
        node.put(plain("/", body.as_bytes(), local()), 0).await;
        assert_eq!(node.get("/", &[]).await.unwrap(), body);
        let place = keys::plain(&Seal::new(&secrets), key("/").url_hash());
        let held = server.command(&["STRLEN", &place]).int();
        assert!((1..3_000).contains(&held), "{held} of {}", body.len());
        // One that compresses nothing reads it all the same.
        let other = Node::with(config::Cache { redis_compress: None, ..cfg }).await;
        assert_eq!(other.get("/", &[]).await.unwrap(), body);
    }
}
