//! Leases against a real server: the scripts, and the words between nodes.

use std::time::Duration;

use http::HeaderMap;

use super::script::{self, TAKE, TAKE_HASH};
use super::*;
use crate::store::redis::link::Phase;
use crate::store::redis::lookup::Luck;
use crate::store::redis::topology::slot_of;
use crate::store::redis::{Absent, Asked, Generation, Redis};
use crate::store::redis_server::{Liar, Mode, RedisServer, Relay, Reply, free_port};
use crate::store::{PURGES, Purges, samples};
use crate::stored::samples::{fields, key, plain, stored};
use crate::stored::{Born, Damaged, StoredResponse};

/// Far longer than anything here takes: reached only when a test fails.
const PATIENCE: Duration = Duration::from_secs(20);
const PLAIN: crate::rules::Normalize = crate::rules::Normalize { accept_language: false };

/// A node: a worker's handle, and the process's leases.
struct Node {
    redis: Redis,
    leases: Leases,
}

impl Node {
    async fn start(url: &str, name: &str) -> Self {
        Self::with(url, name, |_| {}).await
    }

    async fn with(url: &str, name: &str, change: impl FnOnce(&mut config::Cache)) -> Self {
        let mut cfg = samples::cache(Some(url.to_owned()));
        change(&mut cfg);
        let (clock, reach) = (Clock::system(), Arc::default());
        let purges = Arc::new(Purges::new(PURGES));
        let redis = Redis::start(&cfg, clock.clone(), purges, &reach).await.unwrap();
        let leases = Leases::start(&cfg, clock, name, &reach).unwrap();
        let ears = async {
            let mut phases = leases.inner.inbox.phases();
            phases.wait_for(|phase| *phase == Phase::Closed).await.map(drop)
        };
        assert!(timeout(PATIENCE, ears).await.is_ok_and(|up| up.is_ok()), "it hears nothing");
        Self { redis, leases }
    }

    /// A look that asks for the lease.
    async fn look(&self, path: &str, refresh: bool) -> Turn<Lease, About> {
        let bid = Bid { leases: &self.leases, lane: 0, refresh };
        let answer = self.redis.get_or_lease(&key(path), &HeaderMap::new(), PLAIN, Some(bid)).await;
        match answer.turn {
            Asked::Told(turn) => turn,
            Asked::Not(seen) => self.redis.lease(bid, seen).await,
        }
    }

    async fn takes(&self, path: &str) -> Lease {
        match self.look(path, false).await {
            Turn::Mine(lease) => lease,
            turn => panic!("{path}: {turn:?}"),
        }
    }

    /// Listens for what another holds, and looks once more.
    async fn listens(&self, path: &str) -> Listening {
        let Turn::Theirs(about, left) = self.look(path, false).await else { panic!("nobody holds {path}") };
        assert!(left <= Duration::from_secs(3), "{left:?}");
        let ears = self.leases.listen(&about).unwrap();
        assert!(matches!(self.look(path, false).await, Turn::Theirs(again, _) if again == about));
        ears
    }

    fn put(&self, response: Arc<StoredResponse>, lease: Lease) {
        let generation = Generation { number: 0, seen_at: self.leases.inner.clock.mono() };
        let how = (Duration::from_secs(60), PLAIN);
        self.redis.put_and_give_back(response, generation, how, Some(lease));
    }
}

/// Who has found most of what it looked for asks for nothing but that, and what it then does not find it is told as
/// anybody is, in the same call.
#[tokio::test]
async fn who_hopes_asks_for_a_third_and_finds_the_same() {
    let server = RedisServer::start();
    let node = Node::start(&server.url(), "hopes").await;
    let hopes = || {
        (0..8).for_each(|_| node.redis.0.luck.note(true));
        node.redis.0.luck.took(Duration::ZERO, PATIENCE);
    };
    let look = async |path: &str, accept: &str| {
        let bid = Bid { leases: &node.leases, lane: 0, refresh: false };
        let headers = fields(&[("accept", accept)]);
        node.redis.get_or_lease(&key(path), &headers, PLAIN, Some(bid)).await
    };
    let calls = |command: &str| {
        let stats = server.command(&["INFO", "commandstats"]).text();
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.and_then(|rest| rest.split(',').next()).map_or(0, |count| count.parse::<u64>().unwrap())
    };
    let asked = || (calls("exists"), calls("evalsha"), calls("getrange"));
    let varying = |accept: &str| {
        let response = [("cache-control", "max-age=60"), ("vary", "accept")];
        stored(&key("/varies"), &[("accept", accept)], &response, accept.as_bytes(), Born::Here(0))
    };
    for response in [plain("/there", b"x", Born::Here(0)), varying("a"), varying("b")] {
        let generation = Generation { number: 0, seen_at: node.leases.inner.clock.mono() };
        node.redis.put(response, generation, Duration::from_secs(60), PLAIN);
        node.redis.flush(PATIENCE).await;
    }
    // From here on the server knows the script.
    drop(node.takes("/first").await);
    // What it is, path, Accept, what is found, and how many EXISTS, scripts and reads that takes.
    for (what, path, accept, found, asks) in [
        ("hit", "/there", "", Ok(&b"x"[..]), (0, 0, 2)),
        ("hit of a variant", "/varies", "b", Ok(b"b"), (0, 0, 3)),
        ("miss", "/not-there", "", Err(Absent::NotFound), (1, 1, 4)),
        ("no such variant", "/varies", "c", Err(Absent::OtherVariant), (2, 2, 6)),
    ] {
        hopes();
        let before = asked();
        let answer = look(path, accept).await;
        let (exists, scripts, reads) = asked();
        assert_eq!((exists - before.0, scripts - before.1, reads - before.2), asks, "{what}");
        assert_eq!(answer.generation.map(|known| known.number), Some(0), "{what}");
        let is_absent = answer.found.is_err();
        let read = answer.found.map(|response| response.content.whole().unwrap().clone());
        assert_eq!(read.as_deref(), found.as_ref().copied(), "{what}");
        let is_told = matches!(answer.turn, Asked::Told(Turn::Mine(_)));
        assert_eq!(is_told, is_absent, "{what}: {:?}", answer.turn);
    }
    // What is empty is damaged, and seen to be.
    let place = crate::store::redis::keys::base(&node.leases.inner.seal, &key("/empty"));
    server.command(&["SET", &place, "", "PX", "60000"]);
    hopes();
    assert_eq!(look("/empty", "").await.found.err(), Some(Absent::Damaged(Damaged::Empty)));
    // A purge that nobody has told this process of.
    hopes();
    let told = crate::store::redis::keys::marker(&node.leases.inner.seal, key("/there").url_hash());
    let mark = node.leases.inner.seal.encode_mark(7, &told);
    server.command(&["SET", &told, &mark, "PX", "60000"]);
    let answer = look("/there", "").await;
    assert_eq!(answer.found.err(), Some(Absent::NotFound));
    assert_eq!(answer.generation.map(|known| known.number), Some(7));
}

#[test]
fn two_misses_in_a_row_end_all_hope_and_a_few_finds_bring_it_back() {
    let luck = Luck::default();
    let took = |millis: u64| luck.took(Duration::from_millis(millis), Duration::from_millis(20));
    let finds = |found: bool, times: u32| (0..times).for_each(|_| luck.note(found));
    assert!(!luck.hopes(), "nothing is known yet");
    finds(true, 4);
    assert!(luck.hopes());
    finds(true, 1_000);
    finds(false, 1);
    assert!(luck.hopes());
    finds(false, 1);
    assert!(!luck.hopes());
    finds(true, 2);
    assert!(luck.hopes());
    took(5);
    assert!(!luck.hopes(), "there would hardly be time to ask twice");
    took(4);
    assert!(luck.hopes());
}

/// Between half of the deadline and all of it: who asked twice would be told nothing, and take Redis for ill.
#[tokio::test]
async fn who_hopes_in_vain_and_has_no_time_to_ask_once_more_does_not() {
    let server = RedisServer::start();
    let relay = Relay::start(server.addr());
    let node =
        Node::with(&relay.url(), "late", |cfg| cfg.redis_deadline = Duration::from_millis(1_300)).await;
    drop(node.takes("/first").await);
    (0..8).for_each(|_| node.redis.0.luck.note(true));
    node.redis.0.luck.took(Duration::ZERO, PATIENCE);
    relay.set(Mode::Late(Duration::from_millis(750)));
    let paths: Vec<String> = (0..8).map(|nth| format!("/{nth}")).collect();
    let turns = join_all(paths.iter().map(|path| node.look(path, false))).await;
    assert!(turns.iter().all(|turn| matches!(turn, Turn::Alone)), "{turns:?}");
    let gauges = node.redis.gauges();
    assert_eq!((gauges.breaker, gauges.misses, gauges.deadline_exceeded), ("closed", 9, 0));
    assert!(!node.redis.0.luck.hopes(), "from now on the lease is asked for at once");
}

async fn hears(ears: &mut Listening) -> Woken {
    timeout(PATIENCE, ears.wait(PATIENCE)).await.unwrap_or(Woken::Late)
}

fn leases(server: &RedisServer) -> Vec<String> {
    server
        .keys()
        .into_iter()
        .filter(|key| [":l:", ":w:", ":b", ":in:"].iter().any(|of| key.contains(of)))
        .collect()
}

#[tokio::test]
async fn the_script_is_called_by_its_own_hash() {
    let server = RedisServer::start();
    assert_eq!(server.command(&["SCRIPT", "LOAD", TAKE]), Reply::Bulk(Some(TAKE_HASH.into())));
}

#[tokio::test]
async fn one_of_all_who_look_has_the_lease_and_the_others_are_told_when_it_is_stored() {
    let server = RedisServer::start();
    let (one, two) = (Node::start(&server.url(), "n-1").await, Node::start(&server.url(), "n-2").await);
    // A Redis that does not know the script yet is asked with its text; then it knows it.
    for path in ["/a", "/b"] {
        let lease = one.takes(path).await;
        let mut ears = two.listens(path).await;
        assert_eq!(one.leases.gauges().held, 1);
        one.put(plain(path, b"x", Born::Here(0)), lease);
        assert_eq!(hears(&mut ears).await, Woken::Stored);
        let found = two.redis.get(&key(path), &HeaderMap::new(), PLAIN).await.found;
        assert!(found.is_ok(), "stored before anybody is told: {found:?}");
    }
    one.leases.flush(PATIENCE).await;
    assert_eq!((one.leases.gauges().held, one.leases.gauges().taken), (0, 2));
    assert!(leases(&server).iter().all(|key| key.contains(":in:")), "{:?}", leases(&server));
    let refused = server.command(&["INFO", "errorstats"]).text();
    assert!(refused.contains("errorstat_NOSCRIPT:count=1"), "{refused}");
}

#[tokio::test]
async fn whoever_drops_a_lease_gives_it_back_and_lets_all_others_go() {
    let server = RedisServer::start();
    let holder = Node::start(&server.url(), "n-0").await;
    let lease = holder.takes("/").await;
    let mut waiting = Vec::new();
    for name in ["n-1", "n-2", "n-3"] {
        let node = Node::start(&server.url(), name).await;
        let ears = node.listens("/").await;
        waiting.push((node, ears));
    }
    drop(lease);
    for (_, ears) in &mut waiting {
        assert_eq!(hears(ears).await, Woken::NotStored);
    }
    drop(holder.takes("/").await);
    // Too large for Redis, or for the queue: the same.
    let lease = holder.takes("/large").await;
    let mut ears = waiting[0].0.listens("/large").await;
    holder.put(plain("/large", &vec![b'x'; 2 << 20], Born::Here(0)), lease);
    assert_eq!(hears(&mut ears).await, Woken::NotStored);
}

#[tokio::test]
async fn what_expires_is_taken_by_the_first_who_looks_and_its_holder_cannot_give_it_back() {
    let server = RedisServer::start();
    let (one, two) = (Node::start(&server.url(), "n-1").await, Node::start(&server.url(), "n-2").await);
    let (lost, names) = {
        let lease = one.takes("/").await;
        let names = Arc::clone(&lease.names);
        (lease, names)
    };
    assert_eq!(server.command(&["DEL", &names.lease]).int(), 1, "its time is over");
    let lease = two.takes("/").await;
    drop(lost);
    one.leases.flush(PATIENCE).await;
    assert!(matches!(one.look("/", false).await, Turn::Theirs(..)), "it is the other's");
    drop(lease);
    two.leases.flush(PATIENCE).await;
    drop(one.takes("/").await);
}

#[tokio::test]
async fn a_lease_lives_as_long_as_its_holder_and_a_head_whose_body_does_not_come_lets_the_others_go() {
    let server = RedisServer::start();
    let quick = |cfg: &mut config::Cache| cfg.redis_lease = Duration::from_millis(300);
    let one = Node::with(&server.url(), "n-1", quick).await;
    let two = Node::with(&server.url(), "n-2", quick).await;
    let lease = one.takes("/").await;
    let mut ears = two.listens("/").await;
    for _ in 0..6 {
        assert_eq!(ears.wait(Duration::from_millis(100)).await, Woken::Expired, "nobody is told anything");
        assert!(matches!(two.look("/", false).await, Turn::Theirs(..)), "prolonged");
    }
    lease.head_has_come();
    assert_eq!(hears(&mut ears).await, Woken::NotStored);
    assert_eq!(one.leases.gauges().held, 0);
}

#[tokio::test]
async fn after_a_failure_no_node_refreshes_for_a_while_and_clients_are_fetched_for() {
    let server = RedisServer::start();
    let (one, two) = (Node::start(&server.url(), "n-1").await, Node::start(&server.url(), "n-2").await);
    let lease = one.takes("/").await;
    let mut ears = two.listens("/").await;
    lease.failed(Duration::from_secs(30));
    assert_eq!(hears(&mut ears).await, Woken::Failed);
    for node in [&one, &two] {
        let turn = node.look("/", true).await;
        assert!(matches!(turn, Turn::Resting(left) if left > Duration::from_secs(20)), "{turn:?}");
        drop(node.takes("/").await);
        node.leases.flush(PATIENCE).await;
    }
}

#[tokio::test]
async fn what_is_stale_is_leased_only_as_it_was_seen() {
    let server = RedisServer::start();
    let (one, two) = (Node::start(&server.url(), "n-1").await, Node::start(&server.url(), "n-2").await);
    one.put(plain("/", b"old", Born::Here(0)), one.takes("/").await);
    one.redis.flush(PATIENCE).await;
    let bid = Bid { leases: &two.leases, lane: 0, refresh: false };
    let (wanted, fields) = (key("/"), HeaderMap::new());
    let look = || two.redis.get_or_lease(&wanted, &fields, PLAIN, Some(bid));
    let (first, late) = (look().await, look().await);
    let (Asked::Not(first), Asked::Not(late)) = (first.turn, late.turn) else {
        panic!("nothing stands there")
    };
    let Turn::Mine(lease) = two.redis.lease(bid, first).await else { panic!("it is free") };
    two.put(plain("/", b"new", Born::Here(0)), lease);
    two.redis.flush(PATIENCE).await;
    two.leases.flush(PATIENCE).await;
    let turn = two.redis.lease(bid, late).await;
    assert!(matches!(turn, Turn::Changed), "it has been fetched meanwhile: {turn:?}");
}

#[tokio::test]
async fn lanes_do_not_wait_for_each_other() {
    let server = RedisServer::start();
    let node = Node::start(&server.url(), "n-1").await;
    let _held = node.takes("/").await;
    let bid = Bid { leases: &node.leases, lane: 1, refresh: false };
    let answer = node.redis.get_or_lease(&key("/"), &HeaderMap::new(), PLAIN, Some(bid)).await;
    assert!(matches!(answer.turn, Asked::Told(Turn::Mine(_))), "{:?}", answer.turn);
}

/// Whatever stands under the keys of a lease, it can be taken, told and given back, and expires.
#[tokio::test]
async fn what_others_left_under_the_keys_of_leases_is_in_nobodys_way() {
    let server = RedisServer::start();
    let (one, two) = (Node::start(&server.url(), "n-1").await, Node::start(&server.url(), "n-2").await);
    let seal = Seal::default();
    let names = keys::lease(&seal, &keys::base(&seal, &key("/")), 0);
    let inbox = keys::inbox(&seal, "n-2");
    for (wrong, ttl) in
        [(["HSET", "f", "v"], None), (["SET", "x", ""], None), (["SET", "x", ""], Some("9000000"))]
    {
        for place in [&names.lease, &names.waiters, &inbox] {
            let words: Vec<&str> =
                [wrong[0], place, wrong[1], wrong[2]].into_iter().filter(|word| !word.is_empty()).collect();
            server.command(&words);
            if let Some(ttl) = ttl {
                server.command(&["PEXPIRE", place, ttl]);
            }
        }
        let lease = one.takes("/").await;
        let mut ears = two.listens("/").await;
        drop(lease);
        assert_eq!(hears(&mut ears).await, Woken::NotStored, "{wrong:?}");
        one.leases.flush(PATIENCE).await;
    }
    server.command(&["HSET", &names.rest, "f", "v"]);
    drop(one.takes("/").await);
    one.leases.flush(PATIENCE).await;
    for key in leases(&server).iter().filter(|key| **key != names.rest) {
        assert!((1..=10_000).contains(&server.command(&["PTTL", key]).int()), "{key}");
    }
}

/// Words are of no worth but that one looks, or goes alone: any number of wrong ones is read, and forgotten.
#[tokio::test]
async fn an_inbox_full_of_nonsense_is_emptied_and_stays_bounded() {
    let server = RedisServer::start();
    let (one, two) = (Node::start(&server.url(), "n-1").await, Node::start(&server.url(), "n-2").await);
    let inbox = keys::inbox(&Seal::default(), "n-2");
    let long = "y".repeat(400);
    let nonsense: Vec<&str> = ["RPUSH", &inbox]
        .into_iter()
        .chain((0..5_000).map(|n| if n % 2 == 0 { "x" } else { &long }))
        .collect();
    server.command(&nonsense);
    let lease = one.takes("/").await;
    let mut ears = two.listens("/").await;
    drop(lease);
    assert_eq!(hears(&mut ears).await, Woken::NotStored);
    assert!(server.command(&["LLEN", &inbox]).int() <= 1024);
}

/// With the connection cut in the middle of a wait nobody waits on for a word that cannot come.
#[tokio::test]
async fn who_hears_nothing_any_more_is_told_so() {
    let server = RedisServer::start();
    let relay = Relay::start(server.addr());
    let one = Node::start(&server.url(), "n-1").await;
    let two = Node::start(&relay.url(), "n-2").await;
    let lease = one.takes("/").await;
    let mut ears = two.listens("/").await;
    relay.set(Mode::Stall);
    assert_eq!(hears(&mut ears).await, Woken::Deaf);
    let about = About(Arc::clone(&lease.names));
    assert!(two.leases.listen(&about).is_none(), "nor does anybody begin to");
    relay.set(Mode::Pass);
}

/// A cluster of two masters, real ones: the second has the slot of one key, nobody that of another, and the first all
/// others.
async fn cluster(of_the_second: &str, of_nobody: &str) -> [RedisServer; 2] {
    let args = || {
        let bus = free_port().to_string();
        let words =
            ["--cluster-enabled", "yes", "--cluster-require-full-coverage", "no", "--cluster-port", &bus];
        words.map(str::to_owned).to_vec()
    };
    let servers = [RedisServer::start_with(args), RedisServer::start_with(args)];
    let [second, nobody] = [of_the_second, of_nobody].map(|key| slot_of(key.as_bytes()));
    let others = (0..16_384).filter(|slot| *slot != second && *slot != nobody);
    for (server, slots) in servers.iter().zip([others.collect(), vec![second]]) {
        let mut words = vec!["CLUSTER".to_owned(), "ADDSLOTS".to_owned()];
        words.extend(slots.iter().map(u16::to_string));
        assert_eq!(server.command(&words), Reply::Simple("OK".into()));
    }
    let bus = servers[1].command(&["CONFIG", "GET", "cluster-port"]);
    let Reply::Array(bus) = bus else { panic!("{bus:?}") };
    let (port, bus) = (servers[1].addr().port().to_string(), bus[1].clone().text());
    servers[0].command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
    let agreed = async {
        let agrees = |server: &RedisServer| {
            let told = server.command(&["CLUSTER", "INFO"]).text();
            told.contains("cluster_state:ok") && told.contains("cluster_slots_assigned:16383")
        };
        while !servers.iter().all(agrees) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, agreed).await.expect("the cluster does not come up");
    servers
}

/// A batch of what is given back goes to all masters; one that is dead, or a slot that nobody has, costs the others
/// nothing, neither words nor time that their leases are to live.
#[tokio::test]
async fn a_master_that_is_dead_and_a_slot_that_nobody_has_cost_the_leases_of_the_others_nothing() {
    let seal = Seal::default();
    let names = |path: &str| keys::lease(&seal, &keys::base(&seal, &key(path)), 0);
    let (dead, nobodys) = (names("/dead"), names("/nobody's"));
    let mut servers = cluster(&dead.lease, &nobodys.lease).await;
    let url = format!("redis+cluster://{}", servers[0].addr());
    let (one, two) = (Node::start(&url, "n-1").await, Node::start(&url, "n-2").await);
    let held = [one.takes("/dead").await, one.takes("/good").await];
    let mut ears = two.listens("/good").await;
    servers[1].stop();
    let inner = &one.leases.inner;
    let since = inner.clock.mono();
    inner.held.lock().insert(0, Held { names: Arc::new(nobodys), since, head: None });
    let good = names("/good").lease;
    assert_eq!(servers[0].command(&["PEXPIRE", &good, "900"]).int(), 1);
    inner.prolong(Duration::ZERO).await;
    assert!(servers[0].command(&["PTTL", &good]).int() > 900, "prolonged");
    // As if each had been dropped just now.
    let mut all: Vec<(u64, Held)> = inner.held.lock().drain().collect();
    all.sort_by_key(|(_, held)| held.names.lease == good);
    let errand = |(token, held): (u64, Held)| Errand {
        token,
        names: held.names,
        word: Word::Look,
        rest: Duration::ZERO,
    };
    let errands: Vec<Errand> = all.into_iter().map(errand).collect();
    assert_eq!(errands.len(), 3);
    inner.give_back(&errands).await;
    assert_eq!(hears(&mut ears).await, Woken::Stored);
    drop(held);
}

/// A Redis that does not wait where it is to, or has words without end for nobody.
#[tokio::test]
async fn a_redis_that_answers_at_once_is_not_asked_for_words_in_a_circle() {
    for says in ["$-1\r\n", "$1\r\nx\r\n"] {
        let asked = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&asked);
        let liar = Liar::start(move |words, _| {
            counted.fetch_add(u64::from(words[0] == "BLMOVE"), Ordering::AcqRel);
            says.as_bytes().to_vec()
        });
        let cfg = samples::cache(Some(format!("redis://{}", liar.addr())));
        let leases = Leases::start(&cfg, Clock::system(), "n-1", &Arc::default()).unwrap();
        let mut phases = leases.inner.inbox.phases();
        timeout(PATIENCE, phases.wait_for(|phase| *phase == Phase::Closed)).await.unwrap().unwrap();
        let seal = Seal::default();
        let names = keys::lease(&seal, &keys::base(&seal, &key("/")), 0);
        let since = tokio::time::Instant::now();
        let mut ears = leases.listen(&About(Arc::new(names))).unwrap();
        assert_eq!(ears.wait(Duration::from_secs(2)).await, Woken::Expired);
        // Each time that passes allows for one; the slower all of this is, the more.
        let (asked, tenths) = (asked.load(Ordering::Acquire), since.elapsed().as_millis() / 100);
        assert!(asked > 1 && u128::from(asked) <= 12 + tenths, "{says:?}: {asked} in {tenths} tenths");
    }
}

#[test]
fn every_word_and_every_name_fits() {
    let seal = Seal::default().in_namespace(&"n".repeat(32));
    let extras = crate::stored::CacheKey::from_parts("http://a/", "h:accept=x;");
    let names = keys::lease(&seal, &keys::variant(&seal, &keys::base(&seal, &extras), 7), 0);
    let word = Word::Look.about(&names.lease);
    assert!(word.len() <= script::WORD, "{} {word}", word.len());
}
