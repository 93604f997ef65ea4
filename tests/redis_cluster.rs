//! Redis as a cluster: three masters with a replica each, real servers, a real failover, and slots on the move.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: a surprise here is a failed test"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::{Cluster, Liar, RedisServer, Relay, Reply, Tier, redis_fleet, within};

/// The longest that the nodes may take to agree, on a busy machine.
const FAILOVER: Duration = Duration::from_secs(30);

fn tier(cluster: &Cluster, larders: usize) -> Tier {
    Tier::start(larders, &format!("redis = \"{}\"", cluster.url()))
}

fn slot(node: &RedisServer, key: &str) -> i64 {
    node.command(&["CLUSTER", "KEYSLOT", key]).int()
}

#[test]
fn a_killed_master_fails_nobody_and_its_slots_are_used_again_after_the_failover() {
    let mut cluster = Cluster::start();
    let tier = tier(&cluster, 2);
    let paths = tier.fill("old", 40);
    tier.found(1, &paths);
    for (nth, master) in cluster.masters.iter().enumerate() {
        let keys = master.keys_without("{fleet}");
        assert!(!keys.is_empty(), "master {nth} holds nothing");
        assert!(keys.iter().all(|key| key.starts_with("larder:")), "{keys:?}");
    }
    let file = tier.larders[0].directory().join("proxy.toml");
    let audit = ["redis", "audit", "-c", file.to_str().unwrap()];
    let counted = support::process::run_to_end(&audit, tier.larders[0].directory());
    assert_eq!(counted.code, Some(0), "{counted:?}");
    let total = counted.out.lines().find(|line| line.starts_with("  records ")).unwrap();
    assert_eq!(total.split_whitespace().nth(1), Some("40"), "every master is counted: {}", counted.out);

    let mut killed = std::mem::replace(&mut cluster.masters[0], RedisServer::none());
    let promoted = &cluster.replicas[0];
    tier.under_load(|| {
        killed.stop();
        let leads = || redis_fleet::info(promoted, "replication", "role") == "master";
        assert!(within(FAILOVER, leads), "no failover");
        tier.until_up();
    });
    let before = promoted.keys_without("{fleet}").len();
    let paths = tier.fill("after", 40);
    assert!(promoted.keys_without("{fleet}").len() > before, "the promoted node is not written to");
    tier.found(1, &paths);
}

/// It is not dead: its connections stand and say nothing. And it comes back, a replica.
#[test]
fn a_frozen_master_fails_nobody_and_is_left_for_its_replica() {
    let cluster = Cluster::start();
    let tier = tier(&cluster, 2);
    let paths = tier.fill("old", 20);
    tier.found(1, &paths);
    let (frozen, promoted) = (&cluster.masters[1], &cluster.replicas[1]);
    tier.under_load(|| {
        frozen.pause();
        let leads = || redis_fleet::info(promoted, "replication", "role") == "master";
        assert!(within(FAILOVER, leads), "no failover");
        tier.until_up();
        frozen.resume();
        let follows = || redis_fleet::info(frozen, "replication", "role") == "slave";
        assert!(within(FAILOVER, follows), "it does not follow");
    });
    tier.until_up();
    let paths = tier.fill("after", 20);
    tier.found(1, &paths);
}

#[test]
fn one_master_that_is_gone_for_good_makes_its_own_keys_absent_and_no_others() {
    let mut cluster = Cluster::start();
    let tier = tier(&cluster, 2);
    let paths = tier.fill("old", 40);
    let held: Vec<usize> =
        cluster.masters.iter().map(|master| master.keys_without("{fleet}").len()).collect();
    cluster.replicas[0].stop();
    cluster.masters[0].stop();
    // Without that a cluster that lacks a slot answers nothing at all.
    for master in &cluster.masters[1..] {
        master.command(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let state = || {
        let info = cluster.masters[1].command(&["CLUSTER", "INFO"]).text();
        info.contains("cluster_state:ok") && info.contains("cluster_slots_fail:5461")
    };
    assert!(within(FAILOVER, state), "the others do not go on");
    let mut hits = 0;
    for path in &paths {
        let response = tier.ask(1, path);
        hits += usize::from(response.header("cache-status").ends_with("detail=redis"));
    }
    assert_eq!(hits, held[1] + held[2], "of {held:?}");
    let stats = tier.larders[1].stats();
    assert_eq!((&stats["failed"], &stats["tiers"]["redis"]["up"]), (&0.into(), &false.into()));
}

/// Starts the move of a slot from one master to another, by hand as `redis-cli --cluster reshard` does it.
fn begin_to_move(cluster: &Cluster, slot: i64, from: usize, to: usize) -> (String, String) {
    let [source, target] = [from, to].map(|nth| cluster.masters[nth].command(&["CLUSTER", "MYID"]).text());
    let slot = slot.to_string();
    let done = |nth: usize, words: &[&str]| {
        let all = [&["CLUSTER", "SETSLOT", slot.as_str()], words].concat();
        assert_eq!(cluster.masters[nth].command(&all), Reply::Simple("OK".into()), "{all:?}");
    };
    done(to, &["IMPORTING", &source]);
    done(from, &["MIGRATING", &target]);
    (source, target)
}

#[test]
fn what_is_on_its_way_to_another_node_and_what_has_arrived_is_found() {
    let cluster = Cluster::start();
    let tier = tier(&cluster, 3);
    let [path] = &tier.fill("old", 1)[..] else { panic!() };
    let from = cluster.masters.iter().position(|master| !master.keys_without("{fleet}").is_empty()).unwrap();
    let to = (from + 1) % 3;
    let [key] = &cluster.masters[from].keys_without("{fleet}")[..] else { panic!() };
    let slot = slot(&cluster.masters[0], key);
    assert_eq!(cluster.master_of(slot), from);

    let (_, target) = begin_to_move(&cluster, slot, from, to);
    let port = cluster.masters[to].addr().port().to_string();
    let moved = cluster.masters[from].command(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
    assert_eq!(moved, Reply::Simple("OK".into()));
    // ASK: the node that it is on its way from has it no more.
    tier.found(1, std::slice::from_ref(path));

    for nth in [to, from] {
        cluster.masters[nth].command(&["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &target]);
    }
    // MOVED, for whoever has not looked anew yet.
    tier.found(2, std::slice::from_ref(path));
    assert!(
        cluster.masters[from].keys_without("{fleet}").is_empty()
            && cluster.masters[to].keys() == [key.clone()]
    );
}

#[test]
fn a_cluster_that_is_not_there_and_a_server_that_is_in_none_fail_nobody() {
    let seed = support::unused_address();
    let origin_only = {
        let tier = Tier::start_without(1, &format!("redis = \"redis+cluster://{seed}\""));
        tier.ask(0, "/a");
        let stats = tier.larders[0].stats();
        (stats["failed"].clone(), stats["tiers"]["redis"]["up"].clone())
    };
    assert_eq!(origin_only, (0.into(), false.into()));
    // A server that is no node of a cluster: nothing is asked of it, and nobody fails.
    let single = RedisServer::start();
    let tier = Tier::start_without(1, &format!("redis = \"redis+cluster://{}\"", single.addr()));
    tier.ask(0, "/a");
    assert_eq!(
        (single.keys_without("{fleet}"), tier.larders[0].stats()["tiers"]["redis"]["up"].clone()),
        (vec![], false.into())
    );
}

/// A node that leads elsewhere whatever it is asked: to itself, or to somebody who is in no list of nodes and only
/// waits for a password.
#[test]
fn a_redirection_in_a_circle_or_to_a_stranger_is_not_followed() {
    let stranger = Relay::start(support::unused_address());
    let elsewhere = stranger.addr();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let liar = Liar::start(move |words, own| match words[0].as_str() {
        "CLUSTER" => {
            let told = format!("e7d1 {own}@1 myself,master - 0 0 1 connected 0-16383\n");
            format!("${}\r\n{told}\r\n", told.len()).into_bytes()
        }
        _ => match counted.fetch_add(1, Ordering::AcqRel) % 3 {
            0 => format!("-MOVED 1 {own}\r\n"),
            1 => format!("-MOVED 1 {elsewhere}\r\n"),
            _ => format!("-ASK 1 {elsewhere}\r\n"),
        }
        .into_bytes(),
    });
    let tier = Tier::start(1, &format!("redis = \"redis+cluster://:hunter2@{}\"", liar.addr()));
    let before = asked.load(Ordering::Acquire);
    // Each of its three lies at least once; what waits for a stranger to be named waits for the deadline.
    for nth in 0..6 {
        tier.ask(0, &format!("/{nth}"));
    }
    assert!(asked.load(Ordering::Acquire) >= before + 6, "nobody asks the liar");
    assert_eq!(tier.larders[0].stats()["failed"], 0);
    assert_eq!(stranger.accepted(), 0, "a stranger was told the password");
}
