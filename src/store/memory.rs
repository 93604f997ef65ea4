//! The memory tier: moka, bounded by what everything in it weighs.
//!
//! Knows resources (a key with its variants and marks), how one is changed by several workers at
//! once, what it weighs, and which bodies outlive it. There is no expiry: freshness is decided when
//! a response is read, by the route's policy of that moment, and a stale one is still worth having
//! (to validate, or to serve while it is refreshed); the budget bounds them all, and TinyLFU gives
//! up first what is asked for least. What the tier keeps is advice: it may drop a resource at any
//! time, also one that was just put in.
//! Must not know: freshness, routes, Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moka::notification::RemovalCause;
use moka::ops::compute::Op;
use moka::sync::Cache;

use super::counter::Counter;
use super::doorkeeper::Doorkeeper;
use super::ghost::{Ghost, Left};
use super::lingering::Lingering;
use super::resource::{Class, Draft, Mark, Marked, Resource, weight};
use super::seed::Seed;
use super::slot::{self, Slot, Tier};
use super::yielding::{RENEW, Yielding};
use super::{InFlight, Purges, Reserved};
use crate::clock::Timestamp;
use crate::config;
use crate::rules::{NotStored, ResponseFacts, SelectingFields};
use crate::stored::{Born, CacheKey, Copies, Copy, Form, StoredResponse};
use crate::telemetry::{Cause, MemoryGauges};

/// The memory tier, shared by all workers.
#[derive(Debug)]
pub struct Memory {
    pub(super) cache: Tier,
    /// What the operator has given, and what of it is for what is stored.
    figure: u64,
    budget: u64,
    /// Variants per key.
    variants: usize,
    in_flight: InFlight,
    requests: InFlight,
    heads: InFlight,
    unsent: InFlight,
    lingering: Arc<Lingering>,
    yielding: Arc<Yielding>,
    ghost: Arc<Ghost>,
    doorkeeper: Doorkeeper,
    lookups: Counter,
    hits: Counter,
    inserts: AtomicU64,
    variants_capped: AtomicU64,
}

/// What has become of a response that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It stands in memory.
    Kept,
    /// It has been purged, or there is no place for it.
    Not,
    /// It stands in memory behind what is later, and varies by other fields: the shared tier has one `Vary` for a key.
    Behind,
    /// What stands in its place is later.
    Outdone,
}

/// Whether the origin has said one after the other: it was asked for it no earlier, and its head came no earlier. And it
/// was made no earlier, which a cache on the way may say that it was (`Age`): RFC 9111 §4, "as determined by the Date".
fn is_surely_later(one: &ResponseFacts, other: &ResponseFacts) -> bool {
    one.request_time >= other.request_time
        && one.response_time >= other.response_time
        && one.made() >= other.made()
}

/// The part of the budget from which on a response that is kept is weighed at once.
const AT_ONCE: u64 = 1024;
/// The part of the budget that is free in a tier that is not full.
const FREE: u64 = 64;
/// What the process takes before it holds anything: its program as far as it is read, and its tables; as measured.
const PROCESS: u64 = 10 * 1024 * 1024;
/// A tier up to here has all of its budget; of what is more, a part is for the process.
const SMALL_TIER: u64 = 16 * 1024 * 1024;

/// What of this figure is not for the tier but for the process around it, so that the figure says what is
/// resident.
fn beside(memory: u64) -> u64 {
    PROCESS.min(memory.saturating_sub(SMALL_TIER) / 4)
}

/// Room for large heads at least, however small the tier is.
const HEADS: u64 = 16 * 1024 * 1024;
/// The same for what the system holds for quick clients.
const UNSENT: u64 = 16 * 1024 * 1024;

impl Memory {
    /// An empty tier. `cfg.memory` is what the process may take, so a part of it is not the tier's.
    pub fn new(cfg: &config::Cache) -> Self {
        let budget = cfg.memory - beside(cfg.memory);
        let (lingering, yielding) =
            (Arc::new(Lingering::default()), Arc::new(Yielding::new(budget, cfg.in_flight)));
        let (noting, lost) = (Arc::clone(&lingering), yielding.lost());
        let ghost = Arc::new(Ghost::new());
        let left = Arc::clone(&ghost);
        let cache = Cache::builder()
            .name("larder")
            .max_capacity(budget)
            .eviction_listener(move |hash, slot: Slot, cause| {
                // What everybody has asked for since is used later than the tier's own entries.
                if cause == RemovalCause::Size && matches!(slot, Slot::Own(_)) {
                    lost.store(true, Ordering::Relaxed);
                }
                let Some(resource) = slot.empty() else { return };
                match cause {
                    // What was refused for want of use counts as given up, too.
                    RemovalCause::Size if !resource.variants.is_empty() => left.note(*hash, Left::Evicted),
                    RemovalCause::Explicit => left.note(*hash, Left::Purged),
                    _ => {}
                }
                // What is left out of a resource that is replaced has been noted where it was changed.
                if cause != RemovalCause::Replaced {
                    resource.variants.iter().flat_map(|left| left.content.bodies()).for_each(|body| {
                        noting.note(body);
                    });
                }
            })
            .weigher(|_, slot: &Slot| slot.weight())
            .build_with_hasher(Seed::default());
        // While there is room for everything: later, moka would not take what nobody has asked for.
        yielding.put(&cache, 0);
        cache.run_pending_tasks();
        let in_flight =
            InFlight::beside(cfg.in_flight, (budget / 4).max(cfg.in_flight), budget.max(cfg.in_flight));
        let (weak, tier, yields) = (in_flight.downgrade(), cache.clone(), Arc::clone(&yielding));
        in_flight.tell(move || {
            if let Some(beside) = weak.all()
                && yields.is_due(beside)
            {
                yields.yield_to(&tier, || weak.all().unwrap_or(0));
            }
        });
        Self {
            cache,
            figure: cfg.memory,
            budget,
            variants: cfg.variants.max(1),
            in_flight,
            yielding,
            ghost,
            doorkeeper: Doorkeeper::new(budget),
            requests: InFlight::new(cfg.in_flight / 2),
            heads: InFlight::new((cfg.memory / 4).max(HEADS)),
            unsent: InFlight::new((cfg.memory / 8).max(UNSENT)),
            lingering,
            lookups: Counter::default(),
            hits: Counter::default(),
            inserts: AtomicU64::new(0),
            variants_capped: AtomicU64::new(0),
        }
    }

    /// What is stored under the key. Compares the key's text: a resource with the same hash is not
    /// found. Whether a response has been purged is for the reader to ask ([`Purges::is_purged`]).
    pub fn find(&self, key: &CacheKey) -> Option<Resource> {
        self.lookups.add();
        self.peek(key)
    }

    /// Whether something is stored under the key's hash. To ask has no effect at all: not even on what stays.
    pub fn has(&self, key: &CacheKey) -> bool {
        self.cache.contains_key(&key.hash())
    }

    /// Counts a lookup that was none of [`Self::find`]'s.
    pub fn looked(&self) {
        self.lookups.add();
    }

    /// Counts a lookup whose find answered the request: whether it may is for the rules to say. Gives how many
    /// there were, of those that this thread's share a count with.
    pub fn answered(&self) -> u64 {
        self.hits.add()
    }

    /// Why nothing is stored under the key: it has left memory, or was never there as far as is known (`ghost.rs`
    /// says how far).
    pub fn why_absent(&self, key: &CacheKey) -> Cause {
        self.ghost.why(key.hash())
    }

    /// What is stored under a key with this hash.
    pub fn hashed(&self, hash: u128) -> Option<Resource> {
        slot::find(&self.cache, hash)
    }

    /// As [`find`](Self::find), for a look that counts as no lookup. moka takes it for a use all the same: for who
    /// answers with what is found, or looks on behalf of nobody.
    pub fn peek(&self, key: &CacheKey) -> Option<Resource> {
        let resource = slot::find(&self.cache, key.hash())?;
        if let Some(first) = resource.variants.first() {
            first.read_ahead();
        }
        (resource.key() == key).then_some(resource)
    }

    /// As [`find`](Self::find), for a second look on behalf of the same request. Of what is not there it leaves no trace:
    /// moka counts each look as a use, and what is asked for once would seem to be asked for as often as it is missed
    /// at, so that it drives out what is.
    pub fn again(&self, key: &CacheKey) -> Option<Resource> {
        self.has(key).then(|| self.peek(key)).flatten()
    }

    /// Whether a response with these selecting fields would be one variant more than the key may have,
    /// so that the oldest is given up for it. Counts as no lookup.
    pub fn is_crowded(&self, key: &CacheKey, selecting: &SelectingFields) -> bool {
        self.again(key).is_some_and(|resource| {
            let held = &resource.variants;
            held.len() >= self.variants && !held.iter().any(|held| held.selecting == *selecting)
        })
    }

    /// Whether this very response is stored. Counts as no lookup.
    pub fn holds(&self, response: &Arc<StoredResponse>) -> bool {
        let resource = self.again(&response.key);
        resource.is_some_and(|resource| resource.variants.iter().any(|held| Arc::ptr_eq(held, response)))
    }

    /// Adds a response to its key as the most recent variant, in place of one with the same
    /// selecting fields, and clears the mark of this class; gives whether it was kept. It is not
    /// kept when it has been purged, or weighs more than the whole tier may.
    ///
    /// May block for moments: other workers' changes of the same key wait for each other, and moka
    /// sleeps 50 µs at a time while its log of 384 writes is full.
    pub fn keep(&self, response: Arc<StoredResponse>, class: Class, purges: &Purges) -> bool {
        self.put(&response, class, purges, |_| false) == Kept::Kept
    }

    /// The same of one whose body has just come, which may have taken its time: not in place of what this process was
    /// told by the origin later, and had sooner. `known` is what its fetch set out to replace.
    pub fn keep_unless_outdone(
        &self,
        response: &Arc<StoredResponse>,
        known: Option<&Arc<StoredResponse>>,
        class: Class,
        purges: &Purges,
    ) -> Kept {
        let is_part = response.content.whole().is_none();
        self.put(response, class, purges, |held| {
            let is_known = known.is_some_and(|known| Arc::ptr_eq(known, held));
            // Of other nodes the clocks may differ; and a part serves fewer than the whole.
            let is_later = matches!(held.standing.born(), Born::Here(_))
                && is_surely_later(&held.facts, &response.facts)
                && (is_part || held.content.whole().is_some());
            is_later && !is_known && !held.standing.is_soft()
        })
    }

    /// Not where what stands in its place, and has not been purged, has outdone it.
    fn put(
        &self,
        response: &Arc<StoredResponse>,
        class: Class,
        purges: &Purges,
        outdoes: impl Fn(&Arc<StoredResponse>) -> bool,
    ) -> Kept {
        let alone = Draft { variants: vec![Arc::clone(response)], ..Draft::empty(&response.key) };
        let weight = alone.weight();
        // Whoever reads it holds it all the same.
        let lingers = || response.content.bodies().for_each(|body| self.lingering.note(body));
        let fits = weight <= self.largest() && !purges.is_purged(response);
        let refused = fits && !self.admits(&response.key, weight);
        if refused {
            self.ghost.note(response.key.hash(), Left::Evicted);
        }
        if !fits || refused {
            lingers();
            return Kept::Not;
        }
        let (mut is_outdone, mut is_behind) = (false, false);
        self.change(&response.key, |resource| {
            let same = |variant: &Arc<StoredResponse>| variant.selecting == response.selecting;
            resource.variants.retain(|variant| !purges.is_purged(variant));
            // Asked here, where no other change of this key can come in between, and again below. Who has purged it may
            // have set the mark, too.
            if purges.is_purged(response) {
                return;
            }
            resource.mark(class, None);
            is_outdone = resource.variants.iter().any(|held| same(held) && outdoes(held));
            if !is_outdone {
                resource.variants.retain(|variant| !same(variant));
                // RFC 9111 §4.1: of several that a request selects, as where the origin has another Vary by now, it is
                // given the most recent, which is the first.
                let later = resource.variants.iter().take_while(|held| outdoes(held));
                let by_others = |held: &Arc<StoredResponse>| held.facts.vary != response.facts.vary;
                is_behind = later.clone().any(by_others);
                let place = later.count();
                resource.variants.insert(place, Arc::clone(response));
            }
        });
        if is_outdone {
            lingers();
            return Kept::Outdone;
        }
        if purges.is_purged(response) {
            // A purge that came meanwhile has looked for it too early: what it missed goes now.
            self.change(&response.key, |resource| {
                resource.variants.retain(|variant| !purges.is_purged(variant))
            });
            return Kept::Not;
        }
        let nth = self.inserts.fetch_add(1, Ordering::Relaxed);
        if nth.is_multiple_of(RENEW) || self.is_large(weight) {
            self.yielding.renew(&self.cache);
        }
        self.settle(weight);
        self.hold_to_what_is_yielded();
        if is_behind { Kept::Behind } else { Kept::Kept }
    }

    /// Adds a response that was read from Redis without being asked for, as the oldest of its key's variants: what
    /// was kept meanwhile is newer, and stays. Gives whether it was kept.
    pub fn warm(&self, response: &Arc<StoredResponse>, purges: &Purges) -> bool {
        let mut kept = false;
        self.change(&response.key, |resource| {
            let same = |variant: &Arc<StoredResponse>| variant.selecting == response.selecting;
            kept = resource.variants.len() < self.variants
                && !resource.variants.iter().any(same)
                && !purges.is_purged(response);
            if kept {
                resource.variants.push(Arc::clone(response));
            }
        });
        if kept && purges.is_purged(response) {
            // As in `keep`: purged between the look and the keeping.
            self.change(&response.key, |resource| {
                resource.variants.retain(|variant| !purges.is_purged(variant))
            });
            return false;
        }
        self.settle(weight(response));
        kept
    }

    /// Whether a response under this key may come in, and moka takes it where it is large.
    ///
    /// In a full tier what is new has to have been fetched before (`doorkeeper.rs`); what was purged is not new.
    ///
    /// moka takes a new entry in place of old ones only if that has been asked for more often than all of them
    /// together, and counts to 15: what is as large as many small ones would never get in, however often it is
    /// asked for. So the key comes first, alone, and has to have been asked for more often than what has been
    /// unused for longest; what it then weighs is found as for any entry that grows.
    fn admits(&self, key: &CacheKey, weight: u64) -> bool {
        let is_full = self.cache.weighted_size().saturating_add(weight) > self.budget - self.budget / FREE;
        if !(is_full || self.is_large(weight)) || self.cache.contains_key(&key.hash()) {
            return true;
        }
        // What was purged has been in the tier, and is fetched anew for whoever still asks for it.
        let was_here = || self.ghost.why(key.hash()) == Cause::Purged;
        if is_full && !was_here() && !self.doorkeeper.has_seen(key.hash()) {
            return false;
        }
        if !self.is_large(weight) {
            return true;
        }
        // Not in place of what has come meanwhile, and so in line with each change of it: what moka inserts where there is
        // nothing waits for nobody who changes something.
        self.cache.entry(key.hash()).and_compute_with(|stored| match stored {
            Some(_) => Op::Nop,
            None => Op::Put(Slot::of(Draft::empty(key).done())),
        });
        self.cache.run_pending_tasks();
        self.cache.contains_key(&key.hash())
    }

    fn is_large(&self, weight: u64) -> bool {
        weight > self.budget / AT_ONCE
    }

    /// moka gives up what is too much only every 64 writes or so. Where each is large, that would be as
    /// much again as the tier may hold.
    fn settle(&self, weight: u64) {
        if self.is_large(weight) {
            self.cache.run_pending_tasks();
            self.look_at_what_lingers();
        }
    }

    /// Where moka has given up the tier's own entries for others.
    fn hold_to_what_is_yielded(&self) {
        if self.yielding.is_lost() {
            self.yielding.yield_to(&self.cache, || self.in_flight.all());
        }
    }

    /// What has been given up and is read makes the tier yield, which may give up more.
    fn look_at_what_lingers(&self) {
        self.in_flight.lingers(self.lingering.bytes());
        if self.yielding.is_due(self.in_flight.all()) {
            self.yielding.yield_to(&self.cache, || self.in_flight.all());
        }
    }

    /// Room for a body on its way in. What the tier has given up and slow clients still hold is in memory all
    /// the same: where it is much, room is scarce, and there is an end to it. What they hold of what is stored will be:
    /// it takes of this room, too, but where the body `is_wanted` by more than one.
    pub fn room(&self, bytes: u64, is_wanted: bool) -> Option<Reserved> {
        self.look_at_what_lingers();
        // None at all is room for nothing: what has no length grows.
        match is_wanted {
            true => self.in_flight.try_reserve(bytes.max(1)),
            false => self.in_flight.reserve_beside_pinned(bytes.max(1)),
        }
    }

    /// Keeps a copy of a stored body in another form, beside the body and weighed with it. Not kept
    /// when the body is not stored (any more), or the two would weigh more than the whole tier may.
    pub fn attach(&self, key: &CacheKey, copies: &Arc<Copies>, form: Form, copy: Copy) {
        let more = copy.weight() as u64;
        self.settle(more);
        self.change(key, |resource| {
            let held = resource.variants.iter().any(|variant| Arc::ptr_eq(variant.copies(), copies));
            if held && resource.weight().saturating_add(more) <= self.largest() {
                copies.keep(form, copy);
            }
        });
    }

    /// Remembers that requests of this class to this key are not cacheable, or not to wait for each other, and
    /// why. The variants stay.
    pub fn mark(&self, key: &CacheKey, class: Class, why: NotStored, how: Marked, until: Timestamp) {
        self.change(key, |resource| resource.mark(class, Some(Mark { why, how, until })));
    }

    /// Drops what is stored under the key, marks included. In line with each change of it: one that has looked before
    /// would put back what it saw.
    pub fn remove(&self, key: &CacheKey) {
        self.cache.entry(key.hash()).and_compute_with(|stored| match stored {
            Some(_) => Op::Remove,
            None => Op::Nop,
        });
    }

    /// All that is stored, in no order, for who has the time: what is stored meanwhile may be missing. Looks up a
    /// few at a time, and no lookup is counted or remembered for who stays.
    pub fn all(&self) -> impl Iterator<Item = Resource> {
        self.cache.iter().filter_map(|(_, slot)| slot.resource())
    }

    /// Drops what of this resource has been purged.
    pub(super) fn drop_purged(&self, resource: &Resource, purges: &Purges) {
        if resource.variants.iter().any(|variant| purges.is_purged(variant)) {
            self.change(resource.key(), |resource| {
                resource.variants.retain(|variant| !purges.is_purged(variant));
            });
        }
    }

    /// The budget of bodies on their way in.
    pub fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }

    /// Room for the bodies of requests, which comes out of [`Self::in_flight`] as well: half of it at most, so that
    /// those who send do not keep what is fetched out of the cache.
    pub fn requests(&self) -> &InFlight {
        &self.requests
    }

    /// Room for large heads that are on their way: as much as a quarter of the tier.
    pub fn heads(&self) -> &InFlight {
        &self.heads
    }

    /// Room for what the system may hold more than usual for clients that take large answers quickly: as much as an
    /// eighth of the tier, which yields nothing for it, since it is seldom held and soon gone.
    pub fn unsent(&self) -> &InFlight {
        &self.unsent
    }

    /// The tier's figures. Works off moka's log of writes first, which nothing else may do for a
    /// while where there is no traffic: figures that lag would be taken for wrong ones.
    pub fn gauges(&self) -> MemoryGauges {
        self.cache.run_pending_tasks();
        // What nobody reads any more is let go of, also where nothing new comes.
        self.look_at_what_lingers();
        self.cache.run_pending_tasks();
        let (own, yielded) = (self.yielding.entries(), self.yielding.bytes());
        MemoryGauges {
            entries: self.cache.entry_count().saturating_sub(u64::try_from(own).unwrap_or(0)),
            bytes: self.cache.weighted_size().saturating_sub(yielded),
            budget: self.figure,
            in_flight: self.in_flight.used(),
            lingering: self.in_flight.lingering(),
            lookups: self.lookups.sum(),
            hits: self.hits.sum(),
            inserts: self.inserts.load(Ordering::Relaxed),
            variants_capped: self.variants_capped.load(Ordering::Relaxed),
        }
    }

    /// Copies what is stored under the key (or an empty resource), changes the copy, and puts it in
    /// place of the other, all under moka's lock for this key, which covers nothing else.
    fn change(&self, key: &CacheKey, change: impl FnOnce(&mut Draft)) {
        self.cache.entry(key.hash()).and_compute_with(|entry| {
            let existed = entry.is_some();
            let stored =
                entry.and_then(|entry| entry.into_value().resource()).filter(|stored| *stored.key() == *key);
            let mut draft = stored.as_ref().map_or_else(|| Draft::empty(key), |stored| stored.draft());
            change(&mut draft);
            let resource = self.bounded(draft).done();
            let before: &[Arc<StoredResponse>] = stored.as_ref().map_or(&[], |stored| &stored.variants);
            self.lingering.left_out(before, &resource.variants);
            match (resource.is_void(), existed) {
                (false, _) => Op::Put(Slot::of(resource)),
                (true, true) => Op::Remove,
                (true, false) => Op::Nop,
            }
        });
    }

    /// Drops the oldest variants above the number, or above what the tier can hold of one key.
    fn bounded(&self, mut resource: Draft) -> Draft {
        let before = resource.variants.len();
        resource.variants.truncate(self.variants);
        while resource.weight() > self.largest() && resource.variants.pop().is_some() {}
        let dropped = before.saturating_sub(resource.variants.len());
        self.variants_capped.fetch_add(u64::try_from(dropped).unwrap_or(u64::MAX), Ordering::Relaxed);
        resource
    }

    /// The most that one resource may weigh: the whole tier, and what can be said in the 32 bits of
    /// moka's weigher, so that nothing weighs more than it seems.
    fn largest(&self) -> u64 {
        self.budget.min(u64::from(u32::MAX) - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;
    use std::time::Duration;

    use http::HeaderMap;

    use super::super::resource::ENTRY;
    use super::*;
    use crate::fields::content_coding::Coding;
    use crate::rules::Normalize;
    use crate::store::{PURGES, samples};
    use crate::stored::samples::{fields, key, plain, stored};

    const NOW: Timestamp = Timestamp::from_secs(1_000);
    const BORN: Born = Born::Here(0);
    const PLAIN: Normalize = Normalize { accept_language: false };

    fn memory(bytes: u64) -> (Memory, Purges) {
        let cfg = config::Cache { memory: bytes, variants: 3, ..samples::cache(None) };
        (Memory::new(&cfg), Purges::new(PURGES))
    }

    fn varying(path: &str, accept: &str, body: &[u8]) -> Arc<StoredResponse> {
        let response = [("cache-control", "max-age=60"), ("vary", "accept")];
        stored(&key(path), &[("accept", accept)], &response, body, BORN)
    }

    fn bodies(memory: &Memory, path: &str) -> Vec<String> {
        let resource = memory.find(&key(path));
        let variants = resource.iter().flat_map(|resource| &resource.variants);
        variants
            .map(|variant| String::from_utf8_lossy(variant.content.whole().unwrap()).into_owned())
            .collect()
    }

    #[test]
    fn large_bodies_are_given_up_as_soon_as_they_are_too_many() {
        let (memory, purges) = memory(4 << 20);
        for nth in 0..50 {
            memory.keep(plain(&format!("/{nth}"), &vec![b'x'; 1 << 20], BORN), Class::Plain, &purges);
            // Without asking for its figures, which would do the same.
            assert!(memory.cache.weighted_size() <= 4 << 20, "{nth}");
        }
    }

    #[test]
    fn a_large_response_gets_into_a_tier_full_of_small_ones_once_it_is_asked_for_more_often() {
        let (memory, purges) = memory(4 << 20);
        let asked = |path: &str, body: &[u8]| {
            let found = memory.find(&key(path)).is_some_and(|found| !found.variants.is_empty());
            if !found {
                memory.keep(plain(path, body, BORN), Class::Plain, &purges);
            }
            found
        };
        // Each of them a few times, so that together they are asked for more often than moka can count.
        for _ in 0..4 {
            for nth in 0..800 {
                asked(&format!("/{nth}"), &[b'x'; 5_000]);
            }
        }
        let large = vec![b'x'; 1 << 20];
        let nth = (0..30).position(|_| asked("/large", &large));
        assert!(nth.is_some_and(|nth| nth > 0), "{nth:?}");
    }

    #[test]
    fn what_is_kept_is_found_under_its_key_alone() {
        let (memory, purges) = memory(1 << 20);
        assert!(memory.keep(plain("/a", b"a", BORN), Class::Plain, &purges));
        assert_eq!(bodies(&memory, "/a"), ["a"]);
        memory.answered();
        assert!(memory.find(&key("/b")).is_none());
        memory.remove(&key("/a"));
        assert!(memory.find(&key("/a")).is_none() && memory.peek(&key("/a")).is_none());
        let gauges = memory.gauges();
        assert_eq!((gauges.lookups, gauges.hits, gauges.inserts), (3, 1, 1));
    }

    #[test]
    fn what_is_held_is_this_very_response() {
        let (memory, purges) = memory(1 << 20);
        let (one, two) = (plain("/", b"1", BORN), plain("/", b"1", BORN));
        memory.keep(Arc::clone(&one), Class::Plain, &purges);
        assert!(memory.holds(&one) && !memory.holds(&two));
        memory.remove(&key("/"));
        assert!(!memory.holds(&one));
        assert_eq!(memory.gauges().lookups, 0);
    }

    #[test]
    fn a_key_with_the_same_hash_is_a_miss() {
        let (memory, purges) = memory(1 << 20);
        let other = plain("/other", b"other", BORN);
        memory.cache.insert(
            key("/a").hash(),
            Slot::of(Draft { variants: vec![Arc::clone(&other)], ..Draft::empty(&other.key) }.done()),
        );
        assert!(memory.find(&key("/a")).is_none());
        memory.keep(plain("/a", b"a", BORN), Class::Plain, &purges);
        assert_eq!(bodies(&memory, "/a"), ["a"], "the other's variants are not taken over");
    }

    #[test]
    fn variants_stand_side_by_side_the_most_recent_first_up_to_the_cap() {
        let (memory, purges) = memory(1 << 20);
        for (accept, body) in [("a", "1"), ("b", "2"), ("a", "3")] {
            memory.keep(varying("/", accept, body.as_bytes()), Class::Plain, &purges);
        }
        assert_eq!(bodies(&memory, "/"), ["3", "2"], "§4.1: the same selecting fields replace");
        memory.keep(varying("/", "c", b"4"), Class::Plain, &purges);
        memory.keep(varying("/", "d", b"5"), Class::Plain, &purges);
        assert_eq!(bodies(&memory, "/"), ["5", "4", "3"]);
        assert_eq!(memory.gauges().variants_capped, 1);

        let resource = memory.find(&key("/")).unwrap();
        assert_eq!(resource.names().collect::<Vec<_>>(), ["accept"]);
        let select = |accept: &str| {
            resource
                .select(&fields(&[("accept", accept)]), PLAIN)
                .map(|found| found.content.whole().unwrap().clone())
        };
        assert_eq!(select("c").unwrap(), "4");
        assert_eq!(select("b"), None);
        assert!(resource.select(&HeaderMap::new(), PLAIN).is_none(), "§4.1: absence is a value");
    }

    #[test]
    fn to_look_again_for_what_is_not_there_is_no_use_of_it() {
        // How many of as many new ones come in. By chance some do: how often they are asked for is an estimate.
        const NEW: usize = 40;
        let come_in = |looks: &dyn Fn(&Memory, &str)| {
            // None of them is so large that its key comes first, alone: that may find room by chance.
            let (memory, purges) = memory(4 << 20);
            let keep = |path: &str| memory.keep(plain(path, &[b'x'; 2_000], BORN), Class::Plain, &purges);
            let each = |visit: &dyn Fn(&str)| {
                for nth in 0..2_000 {
                    visit(&format!("/{nth}"));
                    memory.cache.run_pending_tasks();
                }
            };
            // The second time to the very last of the room.
            (0..2).for_each(|_| each(&|path| assert!(keep(path) || !memory.has(&key(path)))));
            (0..3).for_each(|_| each(&|path| drop(memory.find(&key(path)))));
            let comes_in = |path: &String| {
                looks(&memory, path);
                memory.cache.run_pending_tasks();
                // The first time it is new to a full tier.
                let _kept = [keep(path), keep(path)];
                memory.cache.run_pending_tasks();
                memory.has(&key(path))
            };
            (0..NEW).map(|nth| format!("/new/{nth}")).filter(comes_in).count()
        };
        let ten = |look: &dyn Fn()| (0..10).for_each(|_| look());
        let used = come_in(&|memory, path| ten(&|| drop(memory.find(&key(path)))));
        // moka may have halved its counts just before, and then all come in: of some tiers the one with the fewest.
        let looked_for = || come_in(&|memory, path| ten(&|| drop(memory.again(&key(path)))));
        let looked_for = (0..8).map(|_| looked_for()).min().unwrap();
        assert!(used > NEW * 3 / 4 && looked_for < NEW * 3 / 4, "{used} and {looked_for} of {NEW}");
    }

    #[test]
    fn what_is_asked_for_once_does_not_drive_out_of_a_full_tier_what_is_asked_for_more() {
        let (memory, purges) = memory(1 << 20);
        let asked = |path: &str| {
            let found = memory.find(&key(path)).is_some();
            if !found {
                memory.keep(plain(path, &[b'x'; 4_000], BORN), Class::Plain, &purges);
            }
            found
        };
        let fill = || (0..400).filter(|nth| asked(&format!("/{nth}"))).count();
        fill();
        memory.cache.run_pending_tasks();
        let held: Vec<_> = memory.all().map(|resource| resource.key().clone()).collect();
        assert!(held.len() > 150, "{}", held.len());
        (0..1_000).for_each(|nth| assert!(!asked(&format!("/once/{nth}"))));
        memory.cache.run_pending_tasks();
        assert!(held.iter().all(|key| memory.peek(key).is_some()), "each of those was fetched once");
        // What is asked for again and again gets in.
        assert!((0..20).any(|_| asked("/often")));
        memory.cache.run_pending_tasks();
        assert!(memory.peek(&key("/often")).is_some());
        // And so does what was purged, at once.
        let purged = held[1].clone();
        memory.remove(&purged);
        memory.cache.run_pending_tasks();
        assert!(memory.keep(plain(purged.path(), &[b'x'; 4_000], BORN), Class::Plain, &purges));
        // And what is stored is renewed, however full the tier is.
        let held = &held[0];
        let new = plain(held.path(), b"new", BORN);
        assert!(memory.keep(Arc::clone(&new), Class::Plain, &purges) && memory.holds(&new));
    }

    #[test]
    fn a_part_of_the_figure_is_for_the_process_around_the_tier() {
        const MIB: u64 = 1 << 20;
        let tiers = [(0, 0), (4, 4), (16, 16), (32, 28), (64, 54), (1024, 1014)];
        assert!(tiers.iter().all(|(figure, tier)| figure * MIB - beside(figure * MIB) == tier * MIB));
        assert_eq!(memory(64 * MIB).0.gauges().budget, 64 * MIB);
    }

    #[test]
    fn what_is_larger_than_the_tier_is_not_kept() {
        let (memory, purges) = memory(4_000);
        // The first two with these fields weigh more: they pay for their names (`stored/fields.rs`).
        let _paid = [(); 2].map(|()| varying("/v", "a", b""));
        assert!(!memory.keep(plain("/", &[0; 4_000], BORN), Class::Plain, &purges));
        assert!(memory.find(&key("/")).is_none());
        // Each fits, but not both: the older goes.
        assert!(memory.keep(varying("/v", "a", &[b'1'; 1_500]), Class::Plain, &purges));
        assert!(memory.keep(varying("/v", "b", &[b'2'; 1_500]), Class::Plain, &purges));
        assert_eq!(bodies(&memory, "/v"), ["2".repeat(1_500)]);
    }

    #[test]
    fn the_tier_stays_within_its_budget() {
        let (memory, purges) = memory(200_000);
        for nth in 0..500 {
            memory.keep(plain(&format!("/{nth}"), &[0; 2_000], BORN), Class::Plain, &purges);
        }
        memory.cache.run_pending_tasks();
        let gauges = memory.gauges();
        assert!(gauges.bytes <= 200_000, "{gauges:?}");
        let found: Vec<_> = memory.all().collect();
        let held: u64 = found.iter().map(|resource| u64::from(resource.weight)).sum();
        assert!(held <= 200_000 && found.len() > 20, "{held} in {}", found.len());
        let bodies: u64 =
            found.iter().flat_map(|resource| &resource.variants).map(|v| v.content.held()).sum();
        assert!(held > bodies);
    }

    #[test]
    fn a_copy_is_kept_beside_its_body_and_weighed() {
        let (memory, purges) = memory(20_000);
        let response = plain("/", &[b'x'; 4_000], BORN);
        let attach = |form, bytes: usize| {
            let copy = Copy::Made(vec![0; bytes].into());
            memory.attach(&response.key, response.copies(), form, copy);
            response.copy(form).is_some()
        };
        assert!(!attach(Form::Decoded, 10), "not stored (yet)");
        memory.keep(Arc::clone(&response), Class::Plain, &purges);
        let weight = || u64::from(memory.peek(&response.key).unwrap().weight);
        let before = weight();
        assert!(attach(Form::Decoded, 5_000));
        let copies = response.copies().weight() as u64;
        assert!(copies > 5_000);
        assert_eq!(weight(), before + copies);
        memory.cache.run_pending_tasks();
        assert_eq!(memory.cache.weighted_size(), before + copies);
        assert!(!attach(Form::Encoded(Coding::Gzip), 15_000), "more than the tier may hold");
        assert_eq!(bodies(&memory, "/").len(), 1, "the body stays");
        memory.keep(plain("/", b"another", BORN), Class::Plain, &purges);
        assert!(!attach(Form::Encoded(Coding::Zstd), 10), "its body has been replaced");
        assert!(memory.peek(&response.key).unwrap().variants[0].copy(Form::Decoded).is_none());
    }

    #[test]
    fn marks_are_per_class_end_by_themselves_and_leave_the_variants() {
        let (memory, purges) = memory(1 << 20);
        let until = NOW.saturating_add(Duration::from_secs(10));
        memory.keep(plain("/", b"1", BORN), Class::Plain, &purges);
        memory.mark(&key("/"), Class::Credentialed, NotStored::Private, Marked::Uncacheable, until);
        memory.mark(&key("/"), Class::Plain, NotStored::NoStore, Marked::Uncacheable, until);
        let marked = |class, now| memory.find(&key("/")).unwrap().marked(class, now);
        assert_eq!(marked(Class::Credentialed, NOW), Some(NotStored::Private));
        assert_eq!(marked(Class::Plain, NOW), Some(NotStored::NoStore));
        assert_eq!(marked(Class::Plain, until), None, "over");
        assert_eq!(bodies(&memory, "/"), ["1"]);
        memory.keep(plain("/", b"2", BORN), Class::Plain, &purges);
        assert_eq!(marked(Class::Plain, NOW), None, "stored: no longer uncacheable");
        assert_eq!(marked(Class::Credentialed, NOW), Some(NotStored::Private), "the other class is");
    }

    #[test]
    fn a_mark_alone_has_weight() {
        let (memory, _) = memory(1 << 20);
        memory.mark(&key("/"), Class::Plain, NotStored::NoStore, Marked::Uncacheable, NOW);
        memory.cache.run_pending_tasks();
        assert!(memory.gauges().bytes >= ENTRY as u64);
    }

    #[test]
    fn what_was_purged_during_its_fetch_is_not_kept() {
        let (memory, purges) = memory(1 << 20);
        let before = Born::Here(purges.seq());
        let fetched = plain("/", b"old", before);
        purges.purge(key("/").url_hash(), NOW);
        assert!(!memory.keep(fetched, Class::Plain, &purges));
        assert!(memory.find(&key("/")).is_none());
        assert!(memory.keep(plain("/", b"new", Born::Here(purges.seq())), Class::Plain, &purges));
        assert_eq!(bodies(&memory, "/"), ["new"]);
    }

    #[test]
    fn keeping_a_variant_drops_the_purged_ones_beside_it() {
        let (memory, purges) = memory(1 << 20);
        memory.keep(varying("/", "a", b"old"), Class::Plain, &purges);
        let seq = purges.purge(key("/").url_hash(), NOW);
        let response = [("cache-control", "max-age=60"), ("vary", "accept")];
        let new = stored(&key("/"), &[("accept", "b")], &response, b"new", Born::Here(seq));
        memory.keep(new, Class::Plain, &purges);
        assert_eq!(bodies(&memory, "/"), ["new"]);
    }

    #[test]
    fn what_the_origin_has_said_later_stays_in_place_of_what_comes_to_its_end_later() {
        let purged_softly = |purges: &Purges| {
            let url = key("/").url().into();
            purges.apply(&crate::stored::Purge::soft(crate::stored::Scope::Url(url)), None, NOW);
        };
        let at = |secs, body: &[u8], born| {
            let mut response = plain("/", body, born);
            Arc::get_mut(&mut response).unwrap().facts.response_time = Timestamp::from_secs(secs);
            response
        };
        for (held, born, is_known, soft, kept) in [
            (1_002, BORN, false, false, Kept::Outdone),
            (1_001, BORN, false, false, Kept::Outdone),
            (1_000, BORN, false, false, Kept::Kept),
            (1_002, BORN, true, false, Kept::Kept),
            (1_002, BORN, false, true, Kept::Kept),
            (1_002, Born::Elsewhere(None), false, false, Kept::Kept),
        ] {
            let (memory, purges) = memory(1 << 20);
            let held = at(held, b"held", born);
            assert!(memory.keep(Arc::clone(&held), Class::Plain, &purges));
            if soft {
                purged_softly(&purges);
            }
            let response = at(1_001, b"slow", Born::Here(purges.seq()));
            let known = is_known.then_some(&held);
            let row = format!("{born:?} {is_known} {soft}");
            let found = memory.keep_unless_outdone(&response, known, Class::Plain, &purges);
            assert_eq!(found, kept, "{row}");
            let stays = if kept == Kept::Kept { "slow" } else { "held" };
            assert_eq!(bodies(&memory, "/"), [stays], "{row}");
        }
    }

    /// Each of the three times may say otherwise: of a slow answer to an early question, or from a cache on the way.
    #[test]
    fn what_is_not_surely_later_does_not_outdo_what_comes_to_its_end() {
        let at = |(asked, came, made): (u64, u64, u64), body: &[u8]| {
            let mut response = plain("/", body, BORN);
            let facts = &mut Arc::get_mut(&mut response).unwrap().facts;
            (facts.request_time, facts.response_time) =
                (Timestamp::from_secs(asked), Timestamp::from_secs(came));
            facts.date = Some(Timestamp::from_secs(made));
            response
        };
        let response = at((1_005, 1_006, 1_006), b"ends");
        for (held, kept) in [
            ((1_007, 1_008, 1_008), Kept::Outdone),
            ((1_000, 1_008, 1_008), Kept::Kept),
            ((1_007, 1_008, 700), Kept::Kept),
            ((1_000, 1_001, 1_001), Kept::Kept),
        ] {
            let (memory, purges) = memory(1 << 20);
            assert!(memory.keep(at(held, b"held"), Class::Plain, &purges));
            assert_eq!(memory.keep_unless_outdone(&response, None, Class::Plain, &purges), kept, "{held:?}");
        }
    }

    /// RFC 9111 §4.1: of several that are for a request it is given the most recent.
    #[test]
    fn what_comes_to_its_end_late_hides_no_later_response_with_another_vary() {
        let at = |secs, mut response: Arc<StoredResponse>| {
            Arc::get_mut(&mut response).unwrap().facts.response_time = Timestamp::from_secs(secs);
            response
        };
        for (slow, given, kept) in [(1_001, "held", Kept::Behind), (1_003, "slow", Kept::Kept)] {
            let (memory, purges) = memory(1 << 20);
            memory.keep(at(1_000, varying("/", "b", b"old")), Class::Plain, &purges);
            memory.keep(at(1_002, varying("/", "a", b"held")), Class::Plain, &purges);
            let response = at(slow, plain("/", b"slow", BORN));
            assert_eq!(memory.keep_unless_outdone(&response, None, Class::Plain, &purges), kept);
            let resource = memory.find(&key("/")).unwrap();
            let select = |accept| resource.select(&fields(&[("accept", accept)]), PLAIN).unwrap();
            let body = |accept| String::from_utf8_lossy(select(accept).content.whole().unwrap()).into_owned();
            assert_eq!(["a", "b", "c"].map(body), [given, "slow", "slow"]);
        }
    }

    /// Keeps it while it is purged, and its key let go of, by another.
    fn purged_while_kept(
        memory: &Memory,
        purges: &Purges,
        response: &Arc<StoredResponse>,
        then: impl FnOnce(),
    ) {
        let barrier = std::sync::Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                barrier.wait();
                memory.keep(Arc::clone(response), Class::Plain, purges);
            });
            barrier.wait();
            purges.purge(response.key.url_hash(), NOW);
            memory.remove(&response.key);
            then();
        });
    }

    #[test]
    fn a_racing_purge_wins_over_every_keep() {
        let (memory, purges) = memory(8 << 20);
        for round in 0..200 {
            let path = format!("/{round}");
            let old = plain(&path, b"old", Born::Here(purges.seq()));
            purged_while_kept(&memory, &purges, &old, || {});
            assert!(memory.find(&old.key).is_none(), "round {round}: it came back");
        }
    }

    /// What made a place for what is large once put nothing in the place of what another had just kept there.
    #[test]
    fn no_small_variant_is_lost_to_the_place_that_is_made_for_a_large_one() {
        let (memory, purges) = memory(8 << 20);
        let large = vec![b'x'; 16 * 1024];
        for round in 0..1_000 {
            let path = format!("/{}", round % 50);
            let barrier = std::sync::Barrier::new(2);
            thread::scope(|scope| {
                for (accept, body) in [("a", &large[..]), ("b", b"small")] {
                    let (memory, purges, barrier) = (&memory, &purges, &barrier);
                    let response = varying(&path, accept, body);
                    scope.spawn(move || {
                        barrier.wait();
                        assert!(memory.keep(response, Class::Plain, purges));
                    });
                }
            });
            assert_eq!(bodies(&memory, &path).len(), 2, "{round}");
            memory.remove(&key(&path));
        }
    }

    /// A key that is put into quarantine is purged and marked; what was on its way then took the mark with it.
    #[test]
    fn what_is_purged_while_it_is_kept_clears_no_mark() {
        let (memory, purges) = memory(8 << 20);
        let until = NOW.saturating_add(Duration::from_secs(60));
        for round in 0..10_000 {
            let old = plain("/", b"old", Born::Here(purges.seq()));
            purged_while_kept(&memory, &purges, &old, || {
                memory.mark(&old.key, Class::Plain, NotStored::Quarantined, Marked::Uncacheable, until);
            });
            let marked = memory.peek(&old.key).and_then(|found| found.marked(Class::Plain, NOW));
            assert_eq!(marked, Some(NotStored::Quarantined), "round {round}");
        }
    }

    #[test]
    fn no_variant_is_lost_between_workers() {
        let (memory, purges) = memory(1 << 20);
        thread::scope(|scope| {
            for accept in ["a", "b", "c"] {
                let (memory, purges) = (&memory, &purges);
                scope.spawn(move || {
                    for _ in 0..200 {
                        memory.keep(varying("/", accept, accept.as_bytes()), Class::Plain, purges);
                    }
                });
            }
        });
        assert_eq!(bodies(&memory, "/").into_iter().collect::<HashSet<_>>().len(), 3);
    }
}
