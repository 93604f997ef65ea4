//! Redis behind Sentinel, and Redis over TLS: real servers, real sentinels, real failovers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use support::{Certificates, Larder, Origin, PATIENCE, RedisServer, Reply, Sentinels, Tier, within};

/// The longest that sentinels may take to agree, on a busy machine.
const FAILOVER: std::time::Duration = std::time::Duration::from_secs(30);

#[test]
fn a_killed_master_fails_nobody_and_the_replica_is_used_after_it() {
    let mut redis = Sentinels::start();
    let tier = Tier::start(2, &format!("redis = \"{}\"", redis.url()));
    let paths = tier.fill("old", 10);
    tier.found(1, &paths);
    assert!(!redis.master.keys_without("{fleet}").is_empty());

    let mut master = std::mem::replace(&mut redis.master, RedisServer::none());
    tier.under_load(|| {
        master.stop();
        assert!(within(FAILOVER, || redis.have_promoted()), "no failover");
        tier.until_up();
    });
    let before = redis.replica.keys_without("{fleet}").len();
    let paths = tier.fill("after", 10);
    assert!(redis.replica.keys_without("{fleet}").len() > before);
    tier.found(1, &paths);
}

/// The sentinels themselves move the master while it goes on answering: whoever is still connected to it
/// writes to a replica.
#[test]
fn a_master_that_became_a_replica_is_left() {
    let redis = Sentinels::start();
    let tier = Tier::start(2, &format!("redis = \"{}\"", redis.url()));
    let paths = tier.fill("old", 10);
    tier.found(1, &paths);
    tier.under_load(|| {
        redis.sentinels[0].command(&["SENTINEL", "FAILOVER", "mymaster"]);
        assert!(within(FAILOVER, || redis.have_promoted()), "no failover");
        tier.until_up();
    });
    let paths = tier.fill("after", 10);
    tier.found(1, &paths);
    assert_eq!(support::redis_fleet::info(&redis.replica, "replication", "role"), "master");
}

#[test]
fn sentinels_that_are_gone_or_know_another_master_do_not_matter_while_one_knows() {
    let mut redis = Sentinels::start();
    let stranger = RedisServer::sentinel("");
    let mut all: Vec<String> = vec![stranger.addr().to_string()];
    all.extend(redis.sentinels.iter().map(|sentinel| sentinel.addr().to_string()));
    redis.sentinels[0].stop();
    redis.sentinels[1].stop();
    let list: Vec<String> = all.iter().map(|address| format!("\"{address}\"")).collect();
    let tier =
        Tier::start(1, &format!("redis = {{ sentinels = [{}], master = \"mymaster\" }}", list.join(", ")));
    tier.fill("a", 3);
    assert!(redis.master.keys_without("{fleet}").len() >= 3);
}

#[test]
fn what_sentinels_name_and_is_no_master_is_not_used() {
    let redis = Sentinels::start();
    // A sentinel that is alone and was told that the replica is the master.
    let lines = format!(
        "sentinel monitor mymaster 127.0.0.1 {} 1\nsentinel down-after-milliseconds mymaster 60000\n",
        redis.replica.addr().port()
    );
    let mistaken = RedisServer::sentinel(&lines);
    let larder = alone(&format!("redis = \"redis+sentinel://{}/mymaster\"", mistaken.addr()));
    larder.err.wait_for_line(|line| line.contains("what the sentinels name is no master"), PATIENCE);
    assert_eq!(larder.get("/", &[]).status, 200);
    assert_eq!(larder.stats()["tiers"]["redis"]["up"], false);
    // Beside those that know better it does no harm, though it is asked first.
    let list: Vec<String> =
        [&mistaken].into_iter().chain(&redis.sentinels).map(|s| format!("\"{}\"", s.addr())).collect();
    let tier =
        Tier::start(1, &format!("redis = {{ sentinels = [{}], master = \"mymaster\" }}", list.join(", ")));
    tier.fill("a", 3);
    assert_eq!(redis.master.keys_without("{fleet}").len(), 3);
}

/// As where the network is cut in two, the old master and a sentinel on one side, and Larder sees both: that
/// sentinel and that master know of nothing. Whoever wrote there would purge what nobody hears of.
#[test]
fn a_sentinel_that_was_cut_off_with_the_old_master_is_not_believed() {
    let (redis, other) = (Sentinels::start(), RedisServer::start());
    let lines = format!("sentinel monitor mymaster 127.0.0.1 {} 1", other.addr().port());
    let alone = RedisServer::sentinel(&lines);
    let tier_of = |sentinels: &[&RedisServer]| {
        let list: Vec<String> = sentinels.iter().map(|s| format!("\"{}\"", s.addr())).collect();
        Tier::start(1, &format!("redis = {{ sentinels = [{}], master = \"mymaster\" }}", list.join(", ")))
    };
    let all: Vec<&RedisServer> = [&alone].into_iter().chain(&redis.sentinels).collect();
    tier_of(&all).fill("outvoted", 3);
    assert_eq!((other.keys(), redis.master.keys_without("{fleet}").len()), (vec![], 3));
    // After a failover one that has seen it is enough.
    redis.sentinels[0].command(&["SENTINEL", "FAILOVER", "mymaster"]);
    assert!(within(FAILOVER, || redis.have_promoted()), "no failover");
    let before = redis.replica.keys_without("{fleet}").len();
    tier_of(&[&alone, &redis.sentinels[0]]).fill("later", 3);
    assert_eq!((other.keys(), redis.replica.keys_without("{fleet}").len()), (vec![], before + 3));
}

/// Sentinels that were made anew count failovers from nothing. One from before them, that was forgotten somewhere, and
/// its master, who is one still: nobody else uses it.
#[test]
fn a_sentinel_that_is_left_over_does_not_outvote_all_others() {
    let (redis, old) = (Sentinels::start(), RedisServer::start());
    let lines = format!(
        "sentinel monitor mymaster 127.0.0.1 {} 1\nsentinel config-epoch mymaster 50\nsentinel current-epoch 50",
        old.addr().port()
    );
    let left_over = RedisServer::sentinel(&lines);
    let told = left_over.command(&["SENTINEL", "MASTER", "mymaster"]);
    let Reply::Array(told) = told else { panic!("{told:?}") };
    let told: Vec<String> = told.into_iter().map(Reply::text).collect();
    assert!(told.windows(2).any(|pair| pair == ["config-epoch", "50"]), "{told:?}");
    let list: Vec<String> =
        [&left_over].into_iter().chain(&redis.sentinels).map(|s| format!("\"{}\"", s.addr())).collect();
    let tier =
        Tier::start(1, &format!("redis = {{ sentinels = [{}], master = \"mymaster\" }}", list.join(", ")));
    tier.fill("a", 3);
    assert_eq!((old.keys(), redis.master.keys_without("{fleet}").len()), (vec![], 3));
}

/// A Larder that may not get at this Redis.
fn alone(redis: &str) -> Larder {
    let origin = Origin::ok("x", &[("Cache-Control", "max-age=60")]);
    let route = "[[route]]\nname = \"all\"\nmatch = { path = \"/*\" }\nupstream = \"api\"\n";
    let config = support::front::configuration(&origin, &format!("[cache]\n{redis}\n{route}"));
    // The origin may go: it is the memory tier that answers from here on.
    let larder = Larder::start(&config.replace("admin = \"off\"", "admin = \"127.0.0.1:0\""));
    assert_eq!(larder.get("/", &[]).status, 200);
    larder
}

/// A server that speaks TLS, and `[cache]` for it.
fn over_tls(certificates: &Certificates) -> (RedisServer, String) {
    let redis = RedisServer::start_with(|| certificates.args());
    let Reply::Array(pair) = redis.command(&["CONFIG", "GET", "tls-port"]) else { panic!() };
    (redis, format!("rediss://127.0.0.1:{}", pair[1].clone().text()))
}

#[test]
fn tls_is_spoken_where_it_is_asked_for_with_a_password_from_a_file() {
    let certificates = Certificates::make();
    let (redis, url) = over_tls(&certificates);
    redis.command(&["ACL", "SETUSER", "larder", "on", ">hunter two", "~larder:*", "+@all"]);
    let file = certificates.path("password");
    std::fs::write(&file, "hunter two\n").unwrap();
    let tier = Tier::start(
        2,
        &format!(
            "[cache.redis]\nurl = \"{url}\"\nuser = \"larder\"\npassword_file = {file:?}\nca_file = {:?}\n",
            certificates.path("ca.pem")
        ),
    );
    let paths = tier.fill("a", 5);
    tier.found(1, &paths);
    assert_eq!(redis.keys_without("{fleet}").len(), 5);
    for larder in &tier.larders {
        assert!(!larder.err.whole().contains("hunter"), "{}", larder.err.whole());
    }
}

/// As Redis is by default: whoever connects has to show a certificate of the same authority.
#[test]
fn a_server_that_asks_for_a_certificate_is_shown_one() {
    let certificates = Certificates::make();
    let (redis, url) = over_tls(&certificates);
    redis.command(&["CONFIG", "SET", "tls-auth-clients", "yes"]);
    let [ca, certificate, key] = ["ca.pem", "redis.pem", "redis.key"].map(|name| certificates.path(name));
    let without = alone(&format!("redis = {{ url = \"{url}\", ca_file = {ca:?} }}"));
    without.err.wait_for_line(|line| line.contains("redis does not answer"), PATIENCE);
    let own = format!("cert_file = {certificate:?}\nkey_file = {key:?}");
    let tier = Tier::start(1, &format!("[cache.redis]\nurl = \"{url}\"\nca_file = {ca:?}\n{own}\n"));
    tier.fill("a", 3);
    assert_eq!(redis.keys_without("{fleet}").len(), 3);
}

#[test]
fn a_server_that_nobody_vouches_for_is_not_spoken_to() {
    let (certificates, others) = (Certificates::make(), Certificates::make());
    let (redis, url) = over_tls(&certificates);
    // Another authority; none at all but the system's; and a name that the certificate does not say.
    for (url, ca) in [
        (url.clone(), Some(others.path("ca.pem"))),
        (url.clone(), None),
        (url.replace("127.0.0.1", "localhost"), Some(certificates.path("ca.pem"))),
    ] {
        let ca = ca.map(|ca| format!(", ca_file = {ca:?}")).unwrap_or_default();
        let larder = alone(&format!("redis = {{ url = \"{url}\"{ca} }}"));
        larder.err.wait_for_line(|line| line.contains("redis") && line.contains("certificate"), PATIENCE);
        assert_eq!(larder.stats()["tiers"]["redis"]["up"], false);
    }
    assert_eq!(redis.keys_without("{fleet}"), Vec::<String>::new());
}

#[test]
fn sentinels_and_what_they_name_are_spoken_to_by_tls_and_passwords() {
    let certificates = Certificates::make();
    let (redis, url) = over_tls(&certificates);
    let port = url.rsplit_once(':').unwrap().1.to_owned();
    redis.command(&["ACL", "SETUSER", "larder", "on", ">hunter2", "~larder:*", "+@all"]);
    let args = certificates.args();
    let tls: Vec<String> = args.chunks(2).map(|pair| format!("{} {}", &pair[0][2..], pair[1])).collect();
    let sentinel = RedisServer::sentinel(&format!(
        "{}\ntls-replication yes\nrequirepass sesame\nsentinel monitor mymaster 127.0.0.1 {port} 1",
        tls.join("\n")
    ));
    let tier = Tier::start(
        1,
        &format!(
            "[cache.redis]\nsentinels = [\"127.0.0.1:{}\"]\nmaster = \"mymaster\"\ntls = true\nuser = \"larder\"\n\
             password = \"hunter2\"\nsentinel_password = \"sesame\"\nca_file = {:?}\n",
            args[1],
            certificates.path("ca.pem")
        ),
    );
    tier.fill("a", 3);
    assert_eq!(redis.keys_without("{fleet}").len(), 3);
    drop(sentinel);
}
