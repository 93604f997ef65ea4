//! A fleet in one thread, with a clock that is stepped and a network that loses what it likes: thousands of
//! seeds, each some forty seconds of nodes that fetch, serve and purge, while answers are lost, nodes are cut
//! off, and Redis is set back or loses all it holds. Nothing purged may be served past the promise.
//!
//! What decides is the real thing (`Follower`, `Coherence`); the log is modelled after the scripts in
//! `log.rs`, which `tests.rs` holds against a real Redis. The promise is one of a single fault: a node that
//! has purged and is cut off at once, by a network that also made Redis lose that purge, is not simulated.

use std::collections::VecDeque;

use super::follower::Question;
use super::*;
use crate::clock::{Mono, Timestamp};

const TICK: Duration = Duration::from_millis(25);
const TICKS: u64 = 1_600;
const SEEDS: u64 = 2_000;
const KEYS: usize = 4;
const NODES: usize = 3;
/// What the log holds: little, so that nodes that were away miss some.
const RECORD: usize = 6;
const PROMISE: Promise =
    Promise { bound: Duration::from_millis(500), when_lost: Some(Duration::from_secs(2)) };
/// A link that broke tries again after this many ticks at the latest.
const RECONNECT: u64 = 96;

/// Splitmix64.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Once in `n`.
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// The log, as the scripts keep it.
#[derive(Clone, Default)]
struct Redis {
    run: u64,
    n: u64,
    dropped: u64,
    entries: VecDeque<Entry>,
}

impl Redis {
    fn begin(&mut self, offered: u64) {
        if self.run == 0 {
            *self = Self { run: offered, ..Self::default() };
        }
    }

    fn add(&mut self, token: u64, payload: &Bytes, offered: u64) -> u64 {
        self.begin(offered);
        self.n += 1;
        self.entries.push_back(Entry { n: self.n, token, stream: Stream::Named, payload: payload.clone() });
        while self.entries.len() > RECORD {
            self.dropped = self.entries.pop_front().map_or(0, |entry| entry.n);
        }
        self.n
    }

    fn follow(&mut self, question: Question, offered: u64) -> Told {
        self.begin(offered);
        let (mut from, mut known) = (0, true);
        if question.run == self.run {
            from = question.n;
            known = from <= self.n;
            if known && from > 0 {
                known = match self.entries.iter().find(|entry| entry.n == from) {
                    Some(entry) => question.token == 0 || entry.token == question.token,
                    None => from <= self.dropped,
                };
            }
        }
        let after = self.entries.iter().filter(|entry| known && entry.n > from);
        // Pages of four.
        let entries: Vec<Entry> = after.take(4).cloned().collect();
        let upto = if entries.len() == 4 { entries.last().map_or(0, |last| last.n) } else { self.n };
        let dropped = Dropped { named: self.dropped, marked: 0 };
        Told { run: self.run, head: self.n, dropped, known, entries, upto }
    }
}

#[derive(Clone, Copy)]
struct Held {
    version: u64,
    born: u64,
    confirmed: Timestamp,
    doubted: bool,
}

struct Simulated {
    follower: Follower,
    coherence: Coherence,
    /// The number of the latest purge applied here, and the latest per key.
    seq: u64,
    purged: [u64; KEYS],
    held: [Option<Held>; KEYS],
    /// A fetch under way: what it will bring, by what a purge judges it, and when it ends.
    fetching: [Option<(u64, u64, Timestamp, u64)>; KEYS],
    untold: Vec<Entry>,
    /// Nothing passes between it and Redis until then.
    cut_until: u64,
    broken_until: u64,
}

impl Simulated {
    fn new(now: Mono) -> Self {
        Self {
            follower: Follower::default(),
            coherence: Coherence::new(PROMISE, now),
            seq: 0,
            purged: [0; KEYS],
            held: [None; KEYS],
            fetching: [None; KEYS],
            untold: Vec::new(),
            cut_until: 0,
            broken_until: 0,
        }
    }

    fn purge(&mut self, key: usize) {
        self.seq += 1;
        self.purged[key] = self.seq;
    }

    fn apply(&mut self, entry: &Entry) {
        self.purge(usize::from(entry.payload[0]));
    }

    fn hear(&mut self, told: Told, asked: Mono, now: Mono) -> Option<u64> {
        let run = told.run;
        let heard = self.follower.hear(told, now);
        if heard.horizon.is_some() {
            self.held.iter_mut().flatten().for_each(|held| held.doubted = true);
            self.fetching.iter_mut().flatten().for_each(|fetching| fetching.1 = 0);
        }
        heard.apply.iter().for_each(|entry| self.apply(entry));
        if heard.complete {
            self.coherence.heard(asked);
        }
        self.untold.extend(heard.again);
        heard.renew.then_some(run)
    }
}

struct World {
    chance: Chance,
    now: u64,
    redis: Redis,
    snapshot: Redis,
    nodes: Vec<Simulated>,
    /// The origin's version of each key, and when a purge of the one before was told.
    version: [u64; KEYS],
    told: [Vec<(u64, u64)>; KEYS],
    served: u64,
    from_memory: u64,
    /// What has happened, for a failing seed.
    diary: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let nodes = (0..NODES).map(|_| Simulated::new(Mono::default())).collect();
        let (redis, snapshot) = (Redis::default(), Redis::default());
        Self {
            chance: Chance(seed),
            now: 1,
            redis,
            snapshot,
            nodes,
            version: [1; KEYS],
            told: Default::default(),
            served: 0,
            from_memory: 0,
            diary: Vec::new(),
        }
    }

    fn mono(&self) -> Mono {
        Mono::from_nanos(self.now * u64::try_from(TICK.as_nanos()).unwrap())
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(1_000_000 + self.now * u64::try_from(TICK.as_millis()).unwrap())
    }

    fn reaches(&self, node: usize) -> bool {
        self.now >= self.nodes[node].cut_until && self.now >= self.nodes[node].broken_until
    }

    /// One question of a node. Redis may carry it out though its answer is lost.
    fn ask(&mut self, node: usize) {
        let (asked, offered) = (self.mono(), self.chance.next().max(1));
        if !self.reaches(node) {
            self.nodes[node].follower.interrupted();
            return;
        }
        let question = self.nodes[node].follower.question();
        let told = self.redis.follow(question, offered);
        if self.chance.one_in(20) {
            self.nodes[node].follower.interrupted();
            return;
        }
        if let Some(run) = self.nodes[node].hear(told, asked, asked) {
            self.diary.push(format!("{}: {node} gives a new run", self.now));
            if self.redis.run == run {
                self.redis.run = self.chance.next().max(1);
            }
        }
        while let Some(entry) = self.nodes[node].untold.pop() {
            let n = self.redis.add(entry.token, &entry.payload, offered);
            self.diary.push(format!("{}: {node} tells again {n} {:x}", self.now, entry.token));
            if self.nodes[node].follower.takes(&entry, asked) {
                self.nodes[node].apply(&entry);
            }
        }
    }

    /// The origin has another version, and a node purges what was.
    fn purge(&mut self, node: usize, key: usize) {
        if !self.reaches(node) {
            return;
        }
        self.version[key] += 1;
        let (token, offered) = (self.chance.next().max(1), self.chance.next().max(1));
        let payload = Bytes::from(vec![u8::try_from(key).unwrap()]);
        let n = self.redis.add(token, &payload, offered);
        let entry = Entry { n, token, stream: Stream::Named, payload };
        self.diary.push(format!("{}: {node} purges {key} as {n}, version {}", self.now, self.version[key]));
        let now = self.mono();
        if self.nodes[node].follower.takes(&entry, now) {
            self.nodes[node].apply(&entry);
        }
        self.told[key].push((self.version[key], self.now));
    }

    fn request(&mut self, node: usize, key: usize) {
        let (now, mono, version) = (self.wall(), self.mono(), self.version[key]);
        let this = &self.nodes[node];
        let held = this.held[key].filter(|held| {
            held.born >= this.purged[key]
                && !held.doubted
                && (this.coherence.hears(mono) || !this.coherence.doubts(held.confirmed, now))
        });
        self.served += 1;
        match held {
            Some(held) => {
                self.from_memory += 1;
                self.check(node, key, held.version);
            }
            None if this.fetching[key].is_none() => {
                let ends = self.now + 1 + self.chance.below(40);
                self.nodes[node].fetching[key] = Some((version, self.nodes[node].seq, now, ends));
            }
            None => {}
        }
    }

    fn land(&mut self, node: usize, key: usize) {
        let this = &mut self.nodes[node];
        let Some((version, born, confirmed, ends)) = this.fetching[key] else { return };
        if ends <= self.now {
            this.fetching[key] = None;
            // What was purged meanwhile is void when it is looked up; kept here, so that it would be found.
            this.held[key] = Some(Held { version, born, confirmed, doubted: false });
        }
    }

    /// What is served was not purged longer ago than is promised.
    fn check(&self, node: usize, key: usize, version: u64) {
        let Some((_, at)) = self.told[key].iter().find(|(newer, _)| *newer > version) else { return };
        let late = TICK * u32::try_from(self.now - at).unwrap();
        let promised = PROMISE.when_lost.unwrap().max(PROMISE.bound) + TICK;
        assert!(
            late <= promised,
            "node {node} served version {version} of {key} {late:?} after it was purged; at {}:\n{}",
            self.now,
            self.diary.join("\n")
        );
    }

    fn step(&mut self, settled: &mut u64) {
        self.now += 1;
        for node in 0..NODES {
            // Eight questions in a bound of twenty ticks.
            if self.chance.one_in(3) {
                self.ask(node);
            }
            for key in 0..KEYS {
                self.land(node, key);
                if self.chance.one_in(4) {
                    self.request(node, key);
                }
            }
        }
        if self.chance.one_in(40) {
            let (node, key) = (self.chance.below(3), self.chance.below(4));
            self.purge(usize::try_from(node).unwrap(), usize::try_from(key).unwrap());
        }
        if self.chance.one_in(200) {
            self.snapshot = self.redis.clone();
        }
        self.trouble(settled);
    }

    fn trouble(&mut self, settled: &mut u64) {
        let all_reach = (0..NODES).all(|node| self.reaches(node));
        if self.chance.one_in(150) && self.now > *settled {
            let node = usize::try_from(self.chance.below(3)).unwrap();
            self.nodes[node].cut_until = self.now + self.chance.below(400);
            self.diary.push(format!("{}: {node} is cut off until {}", self.now, self.nodes[node].cut_until));
        }
        if self.chance.one_in(300) && all_reach {
            // All connections break, and are back each in its time.
            let set_back = self.chance.one_in(2);
            self.redis = if set_back { self.snapshot.clone() } else { Redis::default() };
            self.diary.push(format!("{}: redis loses {}", self.now, if set_back { "some" } else { "all" }));
            for node in 0..NODES {
                self.nodes[node].broken_until = self.now + 1 + self.chance.below(RECONNECT);
                self.nodes[node].follower.interrupted();
            }
            // Until everybody is back and has heard what the others know.
            *settled = self.now + 2 * RECONNECT;
        }
    }
}

#[test]
fn nothing_purged_is_served_past_the_promise_whatever_is_lost() {
    let (mut served, mut from_memory) = (0, 0);
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        let mut settled = 0;
        for _ in 0..TICKS {
            world.step(&mut settled);
        }
        (served, from_memory) = (served + world.served, from_memory + world.from_memory);
    }
    // A cache that serves nothing would pass, too.
    assert!(from_memory * 2 > served, "{from_memory} of {served} from memory");
}

/// The same with a node that believes itself complete as soon as it is answered: the promise is broken, so
/// the simulation can see it.
#[test]
fn the_simulation_sees_a_broken_promise() {
    let caught = std::panic::catch_unwind(|| {
        for seed in 0..SEEDS {
            let mut world = World::new(seed);
            let mut settled = 0;
            for _ in 0..TICKS {
                let now = world.mono();
                world.nodes.iter_mut().for_each(|node| node.coherence.heard(now));
                world.step(&mut settled);
            }
        }
    });
    assert!(caught.is_err());
}
