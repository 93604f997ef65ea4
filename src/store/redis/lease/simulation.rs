//! A fleet's fetches in one thread, with a clock that is stepped and a network that loses what it likes: thousands of
//! seeds, each half a minute of nodes that ask for the same few keys, wait for each other, die, and are cut off,
//! while answers and words are lost, keys are purged, and Redis forgets.
//!
//! What decides is the real thing (`Election`); Redis is modelled after the scripts in `script.rs`, which `tests.rs`
//! holds against a real one. No lease may outlive its holder by more than its time, nobody may wait longer than they
//! may, nothing purged may be served to who asked later, and what cannot be stored is for the one who asked for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::election::{Election, Next, Turn, Woken};
use super::inbox::Word;
use super::*;

/// One step is 25 ms.
const LEASE: u64 = 40;
const EVERY: u64 = LEASE / 3;
const PATIENCE: u64 = 120;
/// The longest fetch.
const FETCH: u64 = 90;
const STEPS: u64 = 1_200;
const SEEDS: u64 = 3_000;
const KEYS: usize = 2;
const NODES: usize = 3;
/// Of what is stored: for how long it is fresh, and may be served without being so.
const FRESH: u64 = 60;
const GRACE: u64 = 120;
const STEP: Duration = Duration::from_millis(25);

fn steps(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap().div_ceil(25)
}

/// Splitmix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What stands in Redis for a key.
#[derive(Clone, Default)]
struct Place {
    /// Token, and when it ends.
    lease: Option<(u64, u64)>,
    waiters: BTreeSet<usize>,
    rest: u64,
    generation: u64,
    record: Option<Response>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Response {
    version: u64,
    /// Of a record, its generation and when it was stored.
    generation: u64,
    at: u64,
    /// The one who may have it, where it cannot be stored.
    only: Option<u64>,
}

/// The lease of the simulated: its token.
type Said = Turn<u64, usize>;

/// A fill.
struct Flight {
    election: Election<usize>,
    refresh: bool,
    owner: Option<u64>,
    guests: Vec<u64>,
    doing: Doing,
    waits_since: Option<u64>,
    listens: bool,
    generation: u64,
    /// What was stored when it last looked.
    seen: Option<Response>,
}

#[derive(Clone, Copy)]
enum Doing {
    Look,
    Wait { until: u64 },
    Fetch { ends: u64, lease: Option<u64>, version: u64 },
    Rest { until: u64 },
}

#[derive(Default)]
struct Simulated {
    flights: BTreeMap<usize, Flight>,
    /// Fetches of those who went alone: who, of what, and when it ends.
    alone: Vec<(u64, usize, u64, u64)>,
    held: BTreeMap<u64, usize>,
    cut_until: u64,
    dead_until: u64,
}

/// Rules that can be broken, to see that the simulation notices.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Broken {
    #[default]
    Nothing,
    /// What cannot be stored leaves the lease where it is, and it is prolonged.
    Kept,
    /// The guests of a fetch get what it brought, whatever it is.
    Shared,
    /// Who waits does so until there is a word.
    Patient,
    /// Redis takes what was fetched before a purge.
    Unjudged,
}

struct World {
    chance: Chance,
    broken: Broken,
    /// No faults: the network and all nodes are well.
    well: bool,
    now: u64,
    places: Vec<Place>,
    inboxes: Vec<VecDeque<(Word, usize)>>,
    nodes: Vec<Simulated>,
    version: [u64; KEYS],
    /// Requests that are not answered: where, of what, since when, and the version that a purge had then made the oldest.
    asked: BTreeMap<u64, (usize, usize, u64, u64)>,
    last: u64,
    fetches: u64,
    answered: u64,
    /// Leases whose holder is not there any more, and since when.
    orphans: BTreeMap<u64, u64>,
}

impl World {
    fn new(seed: u64, well: bool, broken: Broken) -> Self {
        Self {
            chance: Chance(seed),
            broken,
            well,
            now: 1,
            places: vec![Place::default(); KEYS],
            inboxes: vec![VecDeque::new(); NODES],
            nodes: (0..NODES).map(|_| Simulated::default()).collect(),
            version: [1; KEYS],
            asked: BTreeMap::new(),
            last: 0,
            fetches: 0,
            answered: 0,
            orphans: BTreeMap::new(),
        }
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn loses(&mut self, once_in: u64) -> bool {
        !self.well && self.chance.one_in(once_in)
    }

    fn reaches(&self, node: usize) -> bool {
        self.now >= self.nodes[node].cut_until
    }

    // Redis.

    fn take(&mut self, node: usize, key: usize, token: u64, seen: Option<Response>, refresh: bool) -> Said {
        let (now, place) = (self.now, &mut self.places[key]);
        if place.record != seen {
            return Turn::Changed;
        }
        if refresh && place.rest > now {
            return Turn::Resting(STEP * u32::try_from(place.rest - now).unwrap());
        }
        if let Some((_, until)) = place.lease.filter(|(_, until)| *until > now) {
            place.waiters.insert(node);
            return Turn::Theirs(key, STEP * u32::try_from(until - now).unwrap());
        }
        place.lease = Some((token, now + LEASE));
        Turn::Mine(token)
    }

    fn give_back(&mut self, node: usize, key: usize, token: u64, word: Word) {
        self.nodes[node].held.remove(&token);
        if !self.reaches(node) || self.loses(30) {
            return;
        }
        let (now, place) = (self.now, &mut self.places[key]);
        if place.lease.is_none_or(|(held, until)| held != token || until <= now) {
            return;
        }
        place.lease = None;
        if word == Word::Failed {
            place.rest = now + LEASE;
        }
        for waiter in std::mem::take(&mut place.waiters) {
            if !self.loses(20) {
                self.inboxes[waiter].push_back((word, key));
            }
        }
    }

    fn prolong(&mut self, node: usize) {
        let held: Vec<(u64, usize)> =
            self.nodes[node].held.iter().map(|(token, key)| (*token, *key)).collect();
        for (token, key) in held {
            if self.reaches(node) && !self.loses(10) {
                let (now, place) = (self.now, &mut self.places[key]);
                if let Some((held, until)) = &mut place.lease
                    && *held == token
                    && *until > now
                {
                    *until = now + LEASE;
                }
            }
        }
    }

    // Nodes.

    fn request(&mut self, node: usize, key: usize) {
        if self.now < self.nodes[node].dead_until {
            return;
        }
        let (id, now, purged) = (self.next(), self.now, self.version[key]);
        self.asked.insert(id, (node, key, now, purged));
        match self.nodes[node].flights.get_mut(&key) {
            Some(flight) if flight.owner.is_some() => flight.guests.push(id),
            // What is refreshed may be served meanwhile; else it goes alone.
            Some(flight) => {
                match flight.seen.filter(|seen| seen.version >= purged && now < seen.at + FRESH + GRACE) {
                    Some(seen) => self.answer(id, seen),
                    None => self.go_alone(id, node, key),
                }
            }
            None => {
                self.begin(node, key, Some(id));
            }
        }
    }

    fn begin(&mut self, node: usize, key: usize, owner: Option<u64>) {
        let flight = Flight {
            election: Election::default(),
            refresh: owner.is_none(),
            owner,
            guests: Vec::new(),
            doing: Doing::Look,
            waits_since: None,
            listens: false,
            generation: 0,
            seen: None,
        };
        self.nodes[node].flights.insert(key, flight);
    }

    fn go_alone(&mut self, id: u64, node: usize, key: usize) {
        self.fetches += 1;
        let ends = self.now + 1 + self.chance.below(FETCH);
        self.nodes[node].alone.push((id, key, self.version[key], ends));
    }

    fn answer(&mut self, id: u64, response: Response) {
        let Some((node, key, since, purged)) = self.asked.remove(&id) else { return };
        assert!(response.only.is_none_or(|only| only == id), "{node} gives {key} to another than its owner");
        assert!(response.version >= purged, "{node} serves a purged {key}");
        assert!(
            self.now - since <= PATIENCE + 2 * FETCH + 4 * LEASE,
            "{node} waited for {key} since {since}"
        );
        self.answered += 1;
    }

    /// All who wait for a flight are given this, or go alone.
    fn land(&mut self, node: usize, key: usize, response: Response) {
        let Some(flight) = self.nodes[node].flights.get_mut(&key) else { return };
        let (owner, guests) = (flight.owner.take(), std::mem::take(&mut flight.guests));
        owner.into_iter().for_each(|id| self.answer(id, response));
        for id in guests {
            let fits = self.asked.get(&id).is_some_and(|(.., purged)| response.version >= *purged);
            if fits && (response.only.is_none() || self.broken == Broken::Shared) {
                self.answer(id, response);
            } else {
                self.go_alone(id, node, key);
            }
        }
    }

    fn look(&mut self, node: usize, key: usize) {
        let token = self.next();
        let generation = self.places[key].generation;
        let Some(flight) = self.nodes[node].flights.get_mut(&key) else { return };
        (flight.refresh, flight.generation) = (flight.owner.is_none(), generation);
        let (refresh, now) = (flight.refresh, self.now);
        let turn = if !self.reaches(node) {
            Turn::Alone
        } else {
            let record = self.places[key].record.filter(|record| record.generation == generation);
            let seen = record.filter(|record| now < record.at + FRESH + GRACE);
            if let Some(found) = seen {
                if let Some(flight) = self.nodes[node].flights.get_mut(&key) {
                    flight.seen = seen;
                }
                self.land(node, key, found);
                if now < found.at + FRESH {
                    self.nodes[node].flights.remove(&key);
                    return;
                }
            }
            let refresh = refresh || seen.is_some();
            let turn = self.take(node, key, token, self.places[key].record, refresh);
            if self.loses(40) {
                // Redis has done it, and nobody hears so; the node tries to give it back.
                if matches!(turn, Turn::Mine(_)) {
                    self.nodes[node].held.insert(token, key);
                    self.give_back(node, key, token, Word::NotStored);
                }
                Turn::Alone
            } else {
                turn
            }
        };
        if let Turn::Mine(token) = turn {
            self.nodes[node].held.insert(token, key);
        }
        let Some(flight) = self.nodes[node].flights.get_mut(&key) else { return };
        let next = flight.election.looked(turn);
        self.go_on(node, key, next);
    }

    fn go_on(&mut self, node: usize, key: usize, next: Next<u64, usize>) {
        let (now, hears) = (self.now, self.reaches(node));
        let ends = now + 1 + self.chance.below(FETCH);
        let version = self.version[key];
        let Some(flight) = self.nodes[node].flights.get_mut(&key) else { return };
        flight.refresh = flight.owner.is_none();
        flight.doing = match next {
            Next::Look => Doing::Look,
            Next::Listen(_) if hears => {
                flight.listens = true;
                flight.waits_since.get_or_insert(now);
                Doing::Look
            }
            Next::Listen(_) => {
                let next = flight.election.deaf(flight.refresh);
                return self.go_on(node, key, next);
            }
            Next::Wait(longest) => Doing::Wait { until: now + steps(longest).min(LEASE) },
            Next::Fetch(lease) => {
                self.fetches += 1;
                Doing::Fetch { ends, lease, version }
            }
            Next::Rest(left) => Doing::Rest { until: now + steps(left).max(LEASE / 3) },
        };
    }

    fn wait(&mut self, node: usize, key: usize, until: u64, word: Option<Word>) {
        let (now, hears) = (self.now, self.reaches(node));
        let Some(flight) = self.nodes[node].flights.get_mut(&key) else { return };
        let waited = now - flight.waits_since.unwrap_or(now);
        let woken = match word {
            Some(word) => word.into(),
            None if self.broken == Broken::Patient => return,
            None if !hears => Woken::Deaf,
            None if waited >= PATIENCE => Woken::Late,
            None if now >= until => Woken::Expired,
            None => return,
        };
        flight.listens &= woken == Woken::Expired;
        let next = flight.election.woken(woken, flight.owner.is_none());
        self.go_on(node, key, next);
    }

    fn fetched(&mut self, node: usize, key: usize, lease: Option<u64>, version: u64) {
        let generation = match self.nodes[node].flights.get(&key) {
            Some(flight) => flight.generation,
            None => return,
        };
        let owner = self.nodes[node].flights.get(&key).and_then(|flight| flight.owner);
        let (at, kind) = (self.now, self.chance.below(10));
        let storable = Response { version, generation, at, only: None };
        let word = match kind {
            0 | 1 => {
                // Nobody has asked for it but the owner; of a refresh nobody.
                self.land(node, key, Response { only: owner.or(Some(0)), ..storable });
                Word::NotStored
            }
            2 => {
                self.land(node, key, Response { only: None, ..storable });
                Word::Failed
            }
            _ => {
                self.land(node, key, storable);
                let stands = self.places[key].generation == generation || self.broken == Broken::Unjudged;
                if self.reaches(node) && stands {
                    let generation = self.places[key].generation;
                    self.places[key].record = Some(Response { generation, ..storable });
                }
                if self.reaches(node) { Word::Look } else { Word::NotStored }
            }
        };
        match lease {
            Some(_) if self.broken == Broken::Kept && word == Word::NotStored => {}
            Some(token) => self.give_back(node, key, token, word),
            None => {}
        }
        self.nodes[node].flights.remove(&key);
    }

    fn step_node(&mut self, node: usize) {
        let now = self.now;
        if now < self.nodes[node].dead_until {
            return;
        }
        let words =
            if self.reaches(node) { std::mem::take(&mut self.inboxes[node]) } else { VecDeque::new() };
        for key in 0..KEYS {
            let Some(flight) = self.nodes[node].flights.get(&key) else { continue };
            let word =
                words.iter().find(|(_, of)| *of == key).map(|(word, _)| *word).filter(|_| flight.listens);
            match flight.doing {
                Doing::Look => self.look(node, key),
                Doing::Wait { until } => self.wait(node, key, until, word),
                Doing::Fetch { ends, lease, version } if now >= ends => {
                    self.fetched(node, key, lease, version)
                }
                Doing::Rest { until } if now >= until => {
                    self.nodes[node].flights.remove(&key);
                }
                Doing::Fetch { .. } | Doing::Rest { .. } => {}
            }
        }
        let (done, alone) =
            std::mem::take(&mut self.nodes[node].alone).into_iter().partition(|(.., ends)| *ends <= now);
        self.nodes[node].alone = alone;
        for (id, _, version, _) in Vec::from_iter::<Vec<(u64, usize, u64, u64)>>(done) {
            self.answer(id, Response { version, generation: 0, at: now, only: Some(id) });
        }
        if now.is_multiple_of(EVERY) {
            self.prolong(node);
        }
    }

    fn trouble(&mut self) {
        let node = usize::try_from(self.chance.below(3)).unwrap();
        let key = usize::try_from(self.chance.below(2)).unwrap();
        if self.chance.one_in(120) {
            self.version[key] += 1;
            let generation = self.next();
            (self.places[key].generation, self.places[key].record) = (generation, None);
        }
        if self.loses(150) {
            self.nodes[node].cut_until = self.now + self.chance.below(120);
        }
        if self.loses(200) {
            // Killed: whoever asked it is gone with it.
            let dead_until = self.now + self.chance.below(80);
            self.nodes[node] = Simulated { dead_until, ..Simulated::default() };
            self.asked.retain(|_, (at, ..)| *at != node);
        }
        if self.loses(400) {
            self.places = (0..KEYS).map(|_| Place { generation: 0, ..Place::default() }).collect();
            let generations: Vec<u64> = (0..KEYS).map(|_| self.next()).collect();
            self.places
                .iter_mut()
                .zip(generations)
                .for_each(|(place, generation)| place.generation = generation);
        }
    }

    /// No lease outlives its holder by more than its time.
    fn check(&mut self) {
        let now = self.now;
        let standing = self.places.iter().filter_map(|place| place.lease).filter(|(_, until)| *until > now);
        let standing: BTreeSet<u64> = standing.map(|(token, _)| token).collect();
        self.orphans.retain(|token, _| standing.contains(token));
        for token in standing {
            let is_fetched = self.nodes.iter().flat_map(|node| node.flights.values()).any(
                |flight| matches!(flight.doing, Doing::Fetch { lease: Some(lease), .. } if lease == token),
            );
            if is_fetched {
                self.orphans.remove(&token);
                continue;
            }
            let since = *self.orphans.entry(token).or_insert(now);
            assert!(now - since <= LEASE, "a lease is left since {since}");
        }
        for (node, key, since, _) in self.asked.values() {
            assert!(now - since <= PATIENCE + 2 * FETCH + 4 * LEASE, "{node} waits for {key} since {since}");
        }
    }

    fn step(&mut self, load: bool) {
        self.now += 1;
        for node in 0..NODES {
            self.step_node(node);
            for key in 0..KEYS {
                if load && self.chance.one_in(12) {
                    self.request(node, key);
                }
                let stale = !self.nodes[node].flights.contains_key(&key)
                    && self.places[key].record.is_some_and(|record| self.now >= record.at + FRESH);
                if load && stale && self.chance.one_in(6) && self.now >= self.nodes[node].dead_until {
                    self.begin(node, key, None);
                }
            }
        }
        if load {
            self.trouble();
        }
        self.check();
    }

    /// Half a minute, then all comes to rest.
    fn run(&mut self) {
        (0..STEPS).for_each(|_| self.step(true));
        (0..PATIENCE + 2 * FETCH + 6 * LEASE).for_each(|_| self.step(false));
        assert!(self.asked.is_empty(), "{} are not answered", self.asked.len());
        for node in &self.nodes {
            assert!(
                node.flights.is_empty() && node.alone.is_empty(),
                "{} flights are left",
                node.flights.len()
            );
        }
        for place in &self.places {
            assert!(place.lease.is_none_or(|(_, until)| until <= self.now), "a lease is left at the end");
        }
    }
}

#[test]
fn no_lease_leaks_nobody_waits_too_long_and_only_its_owner_has_what_cannot_be_stored() {
    let mut answered = 0;
    for seed in 0..SEEDS {
        let mut world = World::new(seed, false, Broken::Nothing);
        world.run();
        answered += world.answered;
    }
    // A fleet that answers nobody would pass, too.
    assert!(answered > SEEDS * 500, "{answered}");
}

/// While nothing goes wrong nobody fetches what another node is fetching.
#[test]
fn in_a_fleet_that_is_well_one_node_fetches() {
    for seed in 0..200 {
        let mut world = World::new(seed, true, Broken::Nothing);
        for _ in 0..STEPS {
            world.step(true);
            for key in 0..KEYS {
                let flights = world.nodes.iter().filter_map(|node| node.flights.get(&key));
                let leased =
                    flights.filter(|flight| matches!(flight.doing, Doing::Fetch { lease: Some(_), .. }));
                assert!(leased.count() <= 1, "seed {seed}, at {}", world.now);
            }
        }
    }
    // A cold key on all of them: one fetch, unless what it brings cannot be shared.
    let (mut one, seeds) = (0, 500);
    for seed in 0..seeds {
        let mut world = World::new(seed, true, Broken::Nothing);
        (0..NODES).for_each(|node| world.request(node, 0));
        (0..PATIENCE + 2 * FETCH).for_each(|_| world.step(false));
        assert_eq!(world.answered, NODES as u64);
        one += u64::from(world.fetches == 1);
    }
    assert!((seeds * 6 / 10..seeds).contains(&one), "{one} of {seeds}");
}

/// With each rule broken the simulation says so.
#[test]
fn the_simulation_sees_a_broken_rule() {
    for (broken, says) in [
        (Broken::Kept, "a lease is left"),
        (Broken::Shared, "another than its owner"),
        (Broken::Patient, "waits for"),
        (Broken::Unjudged, "serves a purged"),
    ] {
        let caught = std::panic::catch_unwind(|| {
            for seed in 0..SEEDS {
                World::new(seed, false, broken).run();
            }
        });
        let said = caught.expect_err(says);
        let said = said.downcast_ref::<String>().cloned().unwrap_or_default();
        assert!(said.contains(says), "{says}: {said}");
    }
}
