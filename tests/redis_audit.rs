//! `larder redis audit`, against real servers: what it counts, and what it never looks at.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::path::Path;

use support::process::{Finished, run_to_end};
use support::{RedisServer, Tier};

fn audit(file: &Path) -> Finished {
    run_to_end(&["redis", "audit", "-c", file.to_str().unwrap()], file.parent().unwrap())
}

/// The figures of a row: keys and bytes.
fn row(text: &str, name: &str) -> Option<(u64, u64)> {
    let line =
        text.lines().find_map(|line| line.strip_prefix("  ")?.strip_prefix(name)?.strip_prefix("  "))?;
    let mut words = line.split_whitespace().map(|word| word.parse().unwrap());
    Some((words.next()?, words.next()?))
}

#[test]
fn it_counts_all_of_its_namespace_and_finds_what_never_expires() {
    let redis = RedisServer::start();
    let tier =
        Tier::start(1, &format!("redis = \"{}\"\nnamespace = \"mine\"\nwarm_start = false", redis.url()));
    tier.fill("a", 700);
    let file = tier.larders[0].directory().join("proxy.toml");
    // Another's, which never expires.
    redis.command(&["SET", "theirs:4:{a}:-", "x"]);
    redis.command(&["SET", "mine", "x"]);

    let good = audit(&file);
    assert_eq!(good.code, Some(0), "{good:?}");
    let (keys, bytes) = row(&good.out, "records").unwrap();
    let (log, of_log) = row(&good.out, "the log of purges").unwrap();
    assert_eq!((keys, row(&good.out, "all")), (700, Some((keys + log, bytes + of_log))), "{}", good.out);
    assert!(bytes > 700 * 100 && bytes < 700 * 2_000, "{}", good.out);
    assert_eq!(row(&good.out, "others"), None, "{}", good.out);
    let by_route = good.out.split_once("by route").unwrap().1;
    assert_eq!(row(by_route, "all").unwrap().0, 700, "every one is read of so few: {}", good.out);
    assert!(good.out.contains("every key expires"), "{}", good.out);

    redis.command(&["PERSIST", &redis.keys().into_iter().find(|key| key.ends_with(":-")).unwrap()]);
    redis.command(&["LPUSH", "mine:odd\u{1b}[31m", "x"]);
    let bad = audit(&file);
    assert_eq!(bad.code, Some(1), "{bad:?}");
    assert!(bad.err.contains("2 keys never expire") && bad.err.contains("mine:odd"), "{bad:?}");
    for advice in ["another cache.namespace than `mine`", "EXPIRE KEY", "UNLINK KEY"] {
        assert!(bad.err.contains(advice), "{advice}: {bad:?}");
    }
    assert!(!bad.err.contains('\u{1b}'), "a name is no command to the terminal: {bad:?}");
    assert_eq!(row(&bad.out, "others").map(|(keys, _)| keys), Some(1), "{bad:?}");
    assert!(!bad.err.contains("theirs"), "{bad:?}");
}

#[test]
fn the_redis_of_a_larder_without_a_file_is_named_itself() {
    let redis = RedisServer::start();
    let tier = Tier::start(1, &format!("redis = \"{}\"\nwarm_start = false", redis.url()));
    tier.fill("a", 10);
    let folder = tier.larders[0].directory();
    for args in [&["--redis", &redis.url()][..], &["proxy.toml"], &[]] {
        let good = run_to_end(&[&["redis", "audit"], args].concat(), folder);
        assert_eq!(
            (good.code, row(&good.out, "records").map(|(keys, _)| keys)),
            (Some(0), Some(10)),
            "{good:?}"
        );
    }
    let wrong = run_to_end(&["redis", "audit", "--redis", "redis://127.0.0.1/x"], folder);
    assert_eq!(wrong.code, Some(78), "{wrong:?}");
    assert!(wrong.err.contains("--> --redis:"), "{wrong:?}");
    // Somebody's machine may have the second place; then this says nothing.
    if !Path::new("/etc/larder/proxy.toml").exists() {
        let none = run_to_end(&["redis", "audit"], tempfile::tempdir().unwrap().path());
        assert!(
            none.code == Some(78) && none.err.contains("or the Redis itself: --redis redis://"),
            "{none:?}"
        );
    }
}

#[test]
fn what_is_no_redis_and_what_wants_a_password_is_told_with_what_to_check() {
    let tier = Tier::start_without(1, "");
    let folder = tier.larders[0].directory();
    let web = format!("redis://{}", tier.larders[0].proxy());
    let no_redis = run_to_end(&["redis", "audit", "--redis", &web], folder);
    assert_eq!(no_redis.code, Some(69), "{no_redis:?}");
    for words in ["does not speak the protocol of Redis", "check the address that --redis has", "6379"] {
        assert!(no_redis.err.contains(words), "{words}: {no_redis:?}");
    }
    let redis = RedisServer::start();
    let address = redis.url().replace("redis://", "");
    // A Redis takes the beginning of TLS for that of a command, and waits for the rest of it.
    for scheme in ["rediss://", "rediss+cluster://"] {
        let plain = run_to_end(&["redis", "audit", "--redis", &format!("{scheme}{address}")], folder);
        assert_eq!(plain.code, Some(69), "{plain:?}");
        let said = "or it speaks no TLS (redis:// in place of rediss://)";
        assert!(plain.err.contains("in time\n") && plain.err.contains(said), "{plain:?}");
    }
    let url = format!("redis+sentinel://{address}/main");
    let no_sentinel = run_to_end(&["redis", "audit", "--redis", &url], folder);
    assert_eq!(no_sentinel.code, Some(69), "{no_sentinel:?}");
    assert!(no_sentinel.err.contains("it may be no sentinel: check"), "{no_sentinel:?}");
    redis.command(&["CONFIG", "SET", "requirepass", "hunter2"]);
    let locked = run_to_end(&["redis", "audit", "--redis", &redis.url()], folder);
    assert_eq!(locked.code, Some(69), "{locked:?}");
    assert!(locked.err.contains("it may want a password"), "{locked:?}");
}

#[test]
fn what_cannot_be_audited_is_told() {
    let mut redis = RedisServer::start();
    let tier = Tier::start(1, &format!("redis = \"{}\"", redis.url()));
    let file = tier.larders[0].directory().join("proxy.toml");
    redis.stop();
    let gone = audit(&file);
    assert_eq!(gone.code, Some(69), "{gone:?}");
    assert!(gone.err.contains("redis cannot be audited"), "{gone:?}");
    let text = std::fs::read_to_string(&file).unwrap().replace("redis = ", "# redis = ");
    std::fs::write(&file, text).unwrap();
    let none = audit(&file);
    assert_eq!(none.code, Some(78), "{none:?}");
    assert!(none.err.contains("has no cache.redis"), "{none:?}");
}
