//! `larder status`, against running Larders: what it says, and how it ends.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use serde_json::Value;
use support::process::{Finished, run_to_end};
use support::{Larder, PATIENCE, RedisServer, Tier, within};

/// Asks the Larder that wrote its addresses into the log.
fn status(larder: &Larder, args: &[&str]) -> Finished {
    let admin = larder.admin().to_string();
    run_to_end(&[&["status", "--admin", &admin], args].concat(), tempfile::tempdir().unwrap().path())
}

/// A good file with this admin listener.
fn file_with(admin: &str) -> String {
    format!(
        "admin = \"{admin}\"\n[upstream.api]\nservers = [\"http://127.0.0.1:1\"]\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"api\"\n"
    )
}

#[test]
fn it_says_how_a_larder_and_its_fleet_are_and_whether_that_is_well() {
    let mut redis = RedisServer::start();
    let tier = Tier::start(2, &format!("redis = \"{}\"", redis.url()));
    tier.fill("a", 10);
    let [one, two] = [0, 1].map(|nth| tier.larders[nth].admin().to_string());
    let well = || status(&tier.larders[0], &[]).code == Some(0);
    assert!(within(PATIENCE, well), "{:?}", status(&tier.larders[0], &[]));
    let told = status(&tier.larders[0], &[]);
    for words in [
        &format!("Larder at {one}: ready, up "),
        "purges      ok: heard ",
        "redis       up, breaker closed",
        "memory      ",
        " of 256.0 MiB, 10 keys",
        "hit ratio   0.0 %, of 10 requests",
        "warm start  0 read",
        "2 nodes (* = this one)",
        &one,
        &two,
    ] {
        assert!(told.out.contains(words), "{words:?} is not in\n{}", told.out);
    }
    assert!(told.out.lines().all(|line| line.chars().count() <= 110), "{}", told.out);

    let json: Value = serde_json::from_str(&status(&tier.larders[0], &["--json"]).out).unwrap();
    assert_eq!((&json["ok"], &json["status"]), (&Value::from(true), &Value::from("ready")));
    assert_eq!(json["coherence"]["state"], "ok");
    assert_eq!(json["nodes"].as_array().map(Vec::len), Some(2), "{json:#}");
    assert_eq!((&json["memory"]["entries"], &json["looked"]), (&Value::from(10), &Value::from(10)));

    redis.stop();
    let ill = || status(&tier.larders[0], &[]).code == Some(1);
    assert!(within(PATIENCE, ill), "{:?}", status(&tier.larders[0], &[]));
    let told = status(&tier.larders[0], &[]);
    for words in ["redis       down", "degraded    redis is down", "nodes: redis does not say"] {
        assert!(told.out.contains(words), "{words:?} is not in\n{}", told.out);
    }
}

#[test]
fn the_hit_ratio_is_of_those_that_asked_the_cache() {
    let tier = Tier::start_without(1, "");
    let larder = &tier.larders[0];
    assert_eq!([larder.get("/a", &[]), larder.get("/a", &[])].map(|it| it.status), [200, 200]);
    // None for the cache.
    assert_eq!(support::client::request(larder.proxy(), "POST", "/x", &[], b"").status, 200);
    let told = status(larder, &[]);
    for words in [", 1 key\n", "hit ratio   50.0 %, of 2 requests that asked the cache (3 in all)"] {
        assert!(told.out.contains(words), "{words:?} is not in\n{}", told.out);
    }
}

#[test]
fn who_cannot_be_asked_is_told_of() {
    let mut tier = Tier::start_without(1, "");
    let alone = status(&tier.larders[0], &[]);
    assert_eq!(alone.code, Some(0), "{alone:?}");
    assert!(alone.out.contains("this Larder is alone"), "{}", alone.out);
    let file = tier.larders[0].directory().to_owned();
    let admin = tier.larders[0].admin();
    tier.larders[0].kill9();
    std::fs::write(file.join("proxy.toml"), file_with(&admin.to_string())).unwrap();
    let gone = run_to_end(&["status"], &file);
    assert_eq!(gone.code, Some(69), "{gone:?}");
    assert!(gone.err.contains(&format!("no Larder answers at {admin}")), "{gone:?}");
    std::fs::write(file.join("proxy.toml"), file_with("off")).unwrap();
    let off = run_to_end(&["status"], &file);
    assert_eq!(off.code, Some(78), "{off:?}");
}
