//! The memory tier: moka, bounded by what everything in it weighs.
//!
//! Knows resources (a key with its variants and marks), how one is changed by several workers at
//! once, what it weighs, and which bodies outlive it. There is no expiry: freshness is decided when
//! a response is read, by the route's policy of that moment, and a stale one is still worth having
//! (to validate, or to serve while it is refreshed); the budget bounds them all, and TinyLFU gives
//! up first what is asked for least. What the tier keeps is advice: it may drop a resource at any
//! time, also one that was just put in.
//! Must not know: freshness, routes, Redis.

use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use moka::notification::RemovalCause;
use moka::ops::compute::Op;
use moka::sync::Cache;
use parking_lot::Mutex;

use super::counter::Counter;
use super::seed::Seed;
use super::{InFlight, Purges, Reserved};
use crate::apart::Witness;
use crate::clock::Timestamp;
use crate::config;
use crate::rules::{Normalize, NotStored, SelectingFields};
use crate::stored::{CacheKey, Copies, Copy, Form, StoredResponse};
use crate::telemetry::MemoryGauges;

/// The memory tier, shared by all workers.
#[derive(Debug)]
pub struct Memory {
    cache: Tier,
    budget: u64,
    /// Variants per key.
    variants: usize,
    in_flight: InFlight,
    requests: InFlight,
    heads: InFlight,
    lingering: Arc<Lingering>,
    yielding: Arc<Yielding>,
    lookups: Counter,
    hits: Counter,
    inserts: AtomicU64,
    variants_capped: AtomicU64,
}

/// The part of the budget from which on a response that is kept is weighed at once.
const AT_ONCE: u64 = 1024;
/// Room for large heads at least, however small the tier is.
const HEADS: u64 = 16 * 1024 * 1024;
/// Smaller bodies that linger are not worth a note.
const LINGERS: usize = 64 * 1024;

/// What the tier leaves to the bodies that are in memory beside it: those on their way, those that linger, and
/// answers on their way to clients.
///
/// moka's bound cannot be changed, so an entry without content stands in the tier and weighs as much as there is
/// beside it, and moka gives up what is asked for least to make room. It is changed in steps, since each
/// change has moka look at all that it has put off.
#[derive(Debug)]
struct Yielding {
    step: u64,
    /// Most that the tier yields; what remains serves others whatever slow clients hold.
    most: u64,
    /// What the entries weigh.
    now: Mutex<u64>,
    /// The same, to be looked at without waiting.
    seen: AtomicU64,
    /// moka has given one of the entries up, or not taken it.
    lost: Arc<AtomicBool>,
}

/// Steps in which the tier yields, of its budget.
const STEPS: u64 = 128;
/// Most that one entry can weigh: moka's weigher has 32 bits.
const HEAVIEST: u64 = u32::MAX as u64;
/// Changes of the tier after which it is made sure that its own entries are not the ones longest unused.
const RENEW: u64 = 32;

impl Yielding {
    fn new(cfg: &config::Cache) -> Self {
        let most = (cfg.memory / 4 * 3).max(cfg.in_flight).min(cfg.memory);
        let step = (cfg.memory / STEPS).max(1);
        Self { step, most, now: Mutex::new(0), seen: AtomicU64::new(0), lost: Arc::default() }
    }

    /// How much it would be for so many bytes: whole steps.
    fn wanted(&self, beside: u64) -> u64 {
        (beside.div_ceil(self.step).saturating_mul(self.step)).min(self.most)
    }

    /// Whether that is another number than now, or moka does not hold to it.
    fn is_due(&self, beside: u64) -> bool {
        if self.lost.load(Ordering::Relaxed) {
            return true;
        }
        let (seen, wanted) = (self.seen.load(Ordering::Relaxed), self.wanted(beside));
        // What falls by a step may rise again at once.
        wanted > seen || seen.saturating_sub(wanted) > self.step
    }

    /// Has the tier yield to so many bytes.
    fn yield_to(&self, cache: &Tier, beside: u64) {
        let mut now = self.now.lock();
        let wanted = self.wanted(beside);
        let lost = self.lost.swap(false, Ordering::Relaxed);
        if wanted == *now && !lost {
            return;
        }
        let grows = wanted > *now || lost;
        if lost {
            self.come_back(cache);
        }
        self.put(cache, wanted);
        (*now, _) = (wanted, self.seen.store(wanted, Ordering::Relaxed));
        drop(now);
        if grows {
            cache.run_pending_tasks();
        }
    }

    /// Has its entries be there again. Of a new one that weighs nothing moka does not ask how often it was asked
    /// for, as long as it holds no more than it may; one that is there may weigh more by and by.
    fn come_back(&self, cache: &Tier) {
        cache.run_pending_tasks();
        self.put(cache, 0);
        cache.run_pending_tasks();
    }

    /// Has its entries be the ones used last, so that none is given up.
    fn renew(&self, cache: &Tier) {
        let now = self.now.lock();
        self.put(cache, *now);
    }

    fn put(&self, cache: &Tier, weight: u64) {
        let mut left = weight;
        for number in 0..self.entries() {
            let weight = left.min(HEAVIEST);
            left = left.saturating_sub(weight);
            cache.insert(OWN - number, Arc::new(Resource { weight, ..Resource::empty(&own_key()) }));
        }
    }

    /// How many entries it takes to say as much as may be yielded.
    fn entries(&self) -> u128 {
        u128::from(self.most / HEAVIEST + 1)
    }
}

type Tier = Cache<u128, Arc<Resource>, Seed>;

/// The key of the tier's own entry; further ones go down from it. A request whose key has this hash does not find
/// it, since the text is compared.
const OWN: u128 = u128::MAX;

fn own_key() -> Arc<CacheKey> {
    static KEY: std::sync::LazyLock<Arc<CacheKey>> = std::sync::LazyLock::new(|| {
        Arc::new(CacheKey::of("", "", "", None, &HeaderMap::new(), &crate::stored::KeyPolicy::default()))
    });
    Arc::clone(&KEY)
}

/// Bodies that the tier has given up and somebody still reads. Bounded by the connections that read them.
#[derive(Debug, Default)]
struct Lingering(Mutex<Vec<Noted>>);

/// A body that somebody reads, or did.
#[derive(Debug)]
enum Noted {
    /// Shared with the allocator's: held here, too, since it alone knows who else holds it.
    Held(Bytes),
    /// In memory of its own, and its length in bytes.
    Apart(Witness, usize),
}

impl Noted {
    /// `None` where nobody else holds it.
    fn of(body: &Bytes) -> Option<Self> {
        match Witness::of(body) {
            Some(witness) => Some(Self::Apart(witness, body.len())),
            None => (!body.is_unique()).then(|| Self::Held(body.clone())),
        }
    }

    fn is_read(&self) -> bool {
        match self {
            Self::Held(body) => !body.is_unique(),
            Self::Apart(witness, _) => witness.is_held(),
        }
    }

    fn is_of_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Held(one), Self::Held(other)) => one.as_ptr() == other.as_ptr(),
            (Self::Apart(one, _), Self::Apart(other, _)) => one.is_of_same(other),
            _ => false,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Held(body) => body.len(),
            Self::Apart(_, len) => *len,
        }
    }
}

impl Lingering {
    /// A body leaves the tier.
    fn note(&self, body: &Bytes) {
        if body.len() >= LINGERS
            && let Some(new) = Noted::of(body)
        {
            let mut bodies = self.0.lock();
            bodies.retain(Noted::is_read);
            // Noted twice, it would keep itself alive, or count twice.
            if !bodies.iter().any(|noted| noted.is_of_same(&new)) {
                bodies.push(new);
            }
        }
    }

    /// Responses give way to others under the same key. What the others share of their bodies stays.
    fn left_out(&self, before: &[Arc<StoredResponse>], after: &[Arc<StoredResponse>]) {
        let gone = before.iter().filter(|old| !after.iter().any(|new| Arc::ptr_eq(old, new)));
        for body in gone.flat_map(|old| old.content.bodies()) {
            let is_kept =
                after.iter().flat_map(|new| new.content.bodies()).any(|kept| kept.as_ptr() == body.as_ptr());
            if !is_kept {
                self.note(body);
            }
        }
    }

    /// What is still held.
    fn bytes(&self) -> u64 {
        let mut bodies = self.0.lock();
        bodies.retain(Noted::is_read);
        bodies.iter().map(|body| body.len() as u64).sum()
    }
}

/// What is stored under one key. Never changed: a change makes a new one that shares the responses.
#[derive(Clone, Debug)]
pub struct Resource {
    /// The key; its hash led here, its text is what counts.
    pub key: Arc<CacheKey>,
    /// The responses, the most recent first.
    pub variants: Vec<Arc<StoredResponse>>,
    marks: [Option<Mark>; Class::ALL.len()],
    weight: u64,
}

/// Which requests a mark is for: what makes a response uncacheable for one may not for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Without credentials.
    Plain,
    /// With `Authorization`, or with a `Cookie` that the route neither keys on nor ignores.
    Credentialed,
    /// With a field by which scripts choose what they want.
    Choosing,
    /// With both.
    CredentialedChoosing,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Credentialed, Self::Choosing, Self::CredentialedChoosing];

    /// The class of a request with or without these.
    pub const fn of(credentials: bool, choices: bool) -> Self {
        match (credentials, choices) {
            (false, false) => Self::Plain,
            (true, false) => Self::Credentialed,
            (false, true) => Self::Choosing,
            (true, true) => Self::CredentialedChoosing,
        }
    }

    /// Whether such a request carries credentials.
    pub const fn has_credentials(self) -> bool {
        matches!(self, Self::Credentialed | Self::CredentialedChoosing)
    }

    /// Whether such a request carries a field by which scripts choose.
    pub const fn chooses(self) -> bool {
        matches!(self, Self::Choosing | Self::CredentialedChoosing)
    }
}

/// What is remembered of a key until then, so that its requests do not wait in line for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    why: NotStored,
    how: Marked,
    until: Timestamp,
}

/// How far what is remembered of a key goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// Hit-for-miss: its requests are known not to bring anything that may be stored, and go alone.
    Uncacheable,
    /// What one of its requests brought could not be shared; another may bring what can. So each that finds nobody
    /// fetching fetches for all, and nobody waits for what is then perhaps not for them.
    Unshared,
}

impl Resource {
    /// The response for a request with these fields: the most recent whose selecting fields match
    /// (§4.1).
    pub fn select(&self, headers: &HeaderMap, normalize: Normalize) -> Option<&Arc<StoredResponse>> {
        self.variants.iter().find(|variant| variant.is_for(headers, normalize))
    }

    /// Why requests of this class are known not to be cacheable now, if they are.
    pub fn marked(&self, class: Class, now: Timestamp) -> Option<NotStored> {
        self.marked_as(Marked::Uncacheable, class, now)
    }

    /// Why requests of this class do not wait for each other now, if so.
    pub fn unshared(&self, class: Class, now: Timestamp) -> Option<NotStored> {
        self.marked_as(Marked::Unshared, class, now)
    }

    fn marked_as(&self, how: Marked, class: Class, now: Timestamp) -> Option<NotStored> {
        let mark = self.marks.get(class as usize).copied().flatten();
        mark.filter(|mark| mark.how == how && now < mark.until).map(|mark| mark.why)
    }

    /// The names by which the most recent response varies.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.variants.first().into_iter().flat_map(|variant| variant.selecting.names())
    }

    fn empty(key: &Arc<CacheKey>) -> Self {
        Self { key: Arc::clone(key), variants: Vec::new(), marks: [None; Class::ALL.len()], weight: 0 }
    }

    fn mark(&mut self, class: Class, new: Option<Mark>) {
        if let Some(mark) = self.marks.get_mut(class as usize) {
            *mark = new;
        }
    }

    fn is_void(&self) -> bool {
        self.variants.is_empty() && self.marks.iter().all(Option::is_none)
    }

    fn weighed(mut self) -> Self {
        let variants = self.variants.iter().map(|variant| weight(variant)).fold(0, u64::saturating_add);
        let own = size_of::<Self>() + ENTRY + self.key.heap() + size_of::<CacheKey>();
        self.weight = variants.saturating_add(u64::try_from(own).unwrap_or(u64::MAX));
        self
    }
}

/// What moka holds for an entry besides the value, from its sources: key, bucket, two queue nodes
/// and their counters; an estimate on the high side.
const ENTRY: usize = 320;

fn weight(response: &StoredResponse) -> u64 {
    u64::try_from(response.weight()).unwrap_or(u64::MAX)
}

impl Memory {
    /// An empty tier of `cfg.memory` bytes.
    pub fn new(cfg: &config::Cache) -> Self {
        let (lingering, yielding) = (Arc::new(Lingering::default()), Arc::new(Yielding::new(cfg)));
        let (noting, lost) = (Arc::clone(&lingering), Arc::clone(&yielding.lost));
        let cache = Cache::builder()
            .name("larder")
            .max_capacity(cfg.memory)
            // What is left out of a resource that is replaced has been noted where it was changed.
            .eviction_listener(move |_, resource: Arc<Resource>, cause| {
                // What everybody has asked for since is used later than the tier's own entries.
                if cause == RemovalCause::Size && *resource.key == *own_key() {
                    lost.store(true, Ordering::Relaxed);
                }
                if cause != RemovalCause::Replaced {
                    resource.variants.iter().flat_map(|left| left.content.bodies()).for_each(|body| {
                        noting.note(body);
                    });
                }
            })
            .weigher(|_, resource: &Arc<Resource>| u32::try_from(resource.weight).unwrap_or(u32::MAX))
            .build_with_hasher(Seed::new());
        // While there is room for everything: later, moka would not take what nobody has asked for.
        yielding.put(&cache, 0);
        cache.run_pending_tasks();
        let in_flight = InFlight::beside(
            cfg.in_flight,
            (cfg.memory / 4).max(cfg.in_flight),
            cfg.memory.max(cfg.in_flight),
        );
        let (weak, tier, yields) = (in_flight.downgrade(), cache.clone(), Arc::clone(&yielding));
        in_flight.tell(move || {
            if let Some(beside) = weak.all()
                && yields.is_due(beside)
            {
                yields.yield_to(&tier, beside);
            }
        });
        Self {
            cache,
            budget: cfg.memory,
            variants: cfg.variants.max(1),
            in_flight,
            yielding,
            requests: InFlight::new(cfg.in_flight / 2),
            heads: InFlight::new((cfg.memory / 4).max(HEADS)),
            lingering,
            lookups: Counter::default(),
            hits: Counter::default(),
            inserts: AtomicU64::new(0),
            variants_capped: AtomicU64::new(0),
        }
    }

    /// What is stored under the key. Compares the key's text: a resource with the same hash is not
    /// found. Whether a response has been purged is for the reader to ask ([`Purges::is_purged`]).
    pub fn find(&self, key: &CacheKey) -> Option<Arc<Resource>> {
        self.lookups.add();
        self.peek(key)
    }

    /// Counts a lookup whose find answered the request: whether it may is for the rules to say. Gives how many
    /// there were, of those that this thread's share a count with.
    pub fn answered(&self) -> u64 {
        self.hits.add()
    }

    /// What is stored under a key with this hash.
    pub fn hashed(&self, hash: u128) -> Option<Arc<Resource>> {
        self.cache.get(&hash)
    }

    /// As [`find`](Self::find), for a second look on behalf of the same request: not counted.
    pub fn peek(&self, key: &CacheKey) -> Option<Arc<Resource>> {
        self.cache.get(&key.hash()).filter(|resource| *resource.key == *key)
    }

    /// Whether a response with these selecting fields would be one variant more than the key may have,
    /// so that the oldest is given up for it. Counts as no lookup.
    pub fn is_crowded(&self, key: &CacheKey, selecting: &SelectingFields) -> bool {
        self.peek(key).is_some_and(|resource| {
            let held = &resource.variants;
            held.len() >= self.variants && !held.iter().any(|held| held.selecting == *selecting)
        })
    }

    /// Whether this very response is stored. Counts as no lookup.
    pub fn holds(&self, response: &Arc<StoredResponse>) -> bool {
        let resource = self.peek(&response.key);
        resource.is_some_and(|resource| resource.variants.iter().any(|held| Arc::ptr_eq(held, response)))
    }

    /// Adds a response to its key as the most recent variant, in place of one with the same
    /// selecting fields, and clears the mark of this class; gives whether it was kept. It is not
    /// kept when it has been purged, or weighs more than the whole tier may.
    ///
    /// May block for moments: other workers' changes of the same key wait for each other, and moka
    /// sleeps 50 µs at a time while its log of 384 writes is full.
    pub fn keep(&self, response: Arc<StoredResponse>, class: Class, purges: &Purges) -> bool {
        let alone = Resource { variants: vec![Arc::clone(&response)], ..Resource::empty(&response.key) };
        let weight = alone.weighed().weight;
        if weight > self.largest() || purges.is_purged(&response) || !self.admits(&response.key, weight) {
            // Whoever reads it holds it all the same.
            response.content.bodies().for_each(|body| self.lingering.note(body));
            return false;
        }
        self.change(&response.key, |resource| {
            resource.mark(class, None);
            let same = |variant: &Arc<StoredResponse>| variant.selecting == response.selecting;
            resource.variants.retain(|variant| !same(variant) && !purges.is_purged(variant));
            // Asked here, where no other change of this key can come in between, and again below.
            if !purges.is_purged(&response) {
                resource.variants.insert(0, Arc::clone(&response));
            }
        });
        if purges.is_purged(&response) {
            // A purge that came meanwhile has looked for it too early: what it missed goes now.
            self.change(&response.key, |resource| {
                resource.variants.retain(|variant| !purges.is_purged(variant))
            });
            return false;
        }
        let nth = self.inserts.fetch_add(1, Ordering::Relaxed);
        if nth.is_multiple_of(RENEW) || self.is_large(weight) {
            self.yielding.renew(&self.cache);
        }
        self.settle(weight);
        self.hold_to_what_is_yielded();
        true
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

    /// Whether moka takes a large response under this key.
    ///
    /// It takes a new entry in place of old ones only if that has been asked for more often than all of them
    /// together, and counts to 15: what is as large as many small ones would never get in, however often it is
    /// asked for. So the key comes first, alone, and has to have been asked for more often than what has been
    /// unused for longest; what it then weighs is found as for any entry that grows.
    fn admits(&self, key: &Arc<CacheKey>, weight: u64) -> bool {
        if !self.is_large(weight) || self.cache.contains_key(&key.hash()) {
            return true;
        }
        self.cache.insert(key.hash(), Arc::new(Resource::empty(key).weighed()));
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
        if self.yielding.lost.load(Ordering::Relaxed) {
            self.yielding.yield_to(&self.cache, self.in_flight.all());
        }
    }

    /// What has been given up and is read makes the tier yield, which may give up more.
    fn look_at_what_lingers(&self) {
        self.in_flight.lingers(self.lingering.bytes());
        if self.yielding.is_due(self.in_flight.all()) {
            self.yielding.yield_to(&self.cache, self.in_flight.all());
        }
    }

    /// Room for a body on its way in. What the tier has given up and slow clients still hold is in memory all
    /// the same: where it is much, room is scarce, and there is an end to it.
    pub fn room(&self, bytes: u64) -> Option<Reserved> {
        self.look_at_what_lingers();
        // None at all is room for nothing: what has no length grows.
        self.in_flight.try_reserve(bytes.max(1))
    }

    /// Keeps a copy of a stored body in another form, beside the body and weighed with it. Not kept
    /// when the body is not stored (any more), or the two would weigh more than the whole tier may.
    pub fn attach(&self, key: &Arc<CacheKey>, copies: &Arc<Copies>, form: Form, copy: Copy) {
        let more = copy.weight() as u64;
        self.settle(more);
        self.change(key, |resource| {
            let held = resource.variants.iter().any(|variant| Arc::ptr_eq(&variant.copies, copies));
            if held && resource.weight.saturating_add(more) <= self.largest() {
                copies.keep(form, copy);
            }
        });
    }

    /// Remembers that requests of this class to this key are not cacheable, or not to wait for each other, and
    /// why. The variants stay.
    pub fn mark(&self, key: &Arc<CacheKey>, class: Class, why: NotStored, how: Marked, until: Timestamp) {
        self.change(key, |resource| resource.mark(class, Some(Mark { why, how, until })));
    }

    /// Drops what is stored under the key, marks included.
    pub fn remove(&self, key: &CacheKey) {
        self.cache.invalidate(&key.hash());
    }

    /// All that is stored, in no order, for who has the time: what is stored meanwhile may be missing. Looks up a
    /// few at a time, and no lookup is counted or remembered for who stays.
    pub fn all(&self) -> impl Iterator<Item = Arc<Resource>> {
        self.cache.iter().map(|(_, resource)| resource)
    }

    /// Drops what of this resource has been purged.
    pub(super) fn drop_purged(&self, resource: &Resource, purges: &Purges) {
        if resource.variants.iter().any(|variant| purges.is_purged(variant)) {
            self.change(&resource.key, |resource| {
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

    /// The tier's figures. Works off moka's log of writes first, which nothing else may do for a
    /// while where there is no traffic: figures that lag would be taken for wrong ones.
    pub fn gauges(&self) -> MemoryGauges {
        self.cache.run_pending_tasks();
        // What nobody reads any more is let go of, also where nothing new comes.
        self.look_at_what_lingers();
        self.cache.run_pending_tasks();
        let (own, yielded) = (self.yielding.entries(), self.yielding.seen.load(Ordering::Relaxed));
        MemoryGauges {
            entries: self.cache.entry_count().saturating_sub(u64::try_from(own).unwrap_or(0)),
            bytes: self.cache.weighted_size().saturating_sub(yielded),
            budget: self.budget,
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
    fn change(&self, key: &Arc<CacheKey>, change: impl FnOnce(&mut Resource)) {
        self.cache.entry(key.hash()).and_compute_with(|entry| {
            let existed = entry.is_some();
            let stored = entry.map(|entry| entry.into_value()).filter(|stored| *stored.key == **key);
            let mut resource = stored.map_or_else(|| Resource::empty(key), |stored| (*stored).clone());
            let before = resource.variants.clone();
            change(&mut resource);
            let resource = self.bounded(resource);
            self.lingering.left_out(&before, &resource.variants);
            match (resource.is_void(), existed) {
                (false, _) => Op::Put(Arc::new(resource)),
                (true, true) => Op::Remove,
                (true, false) => Op::Nop,
            }
        });
    }

    /// Drops the oldest variants above the number, or above what the tier can hold of one key.
    fn bounded(&self, resource: Resource) -> Resource {
        let before = resource.variants.len();
        let mut resource = resource;
        resource.variants.truncate(self.variants);
        let mut resource = resource.weighed();
        while resource.weight > self.largest() && resource.variants.pop().is_some() {
            resource = resource.weighed();
        }
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

    use super::*;
    use crate::fields::content_coding::Coding;
    use crate::store::{PURGES, samples};
    use crate::stored::Born;
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

    /// Whether nothing lingers any more: moka lets go of what it has given up a little later, and later still
    /// where other threads use it.
    fn lets_go(memory: &Memory) -> bool {
        (0..10_000).any(|_| {
            thread::yield_now();
            memory.gauges().lingering == 0
        })
    }

    #[test]
    fn what_is_given_up_and_still_read_takes_of_the_room_for_what_comes() {
        let cfg = config::Cache { memory: 4 << 20, in_flight: 2 << 20, ..samples::cache(None) };
        let (memory, purges) = (Memory::new(&cfg), Purges::new(PURGES));
        let mut readers = Vec::new();
        for nth in 0..8 {
            let response = plain(&format!("/{nth}"), &vec![b'x'; 1 << 20], BORN);
            readers.extend(response.content.whole().cloned());
            memory.keep(response, Class::Plain, &purges);
        }
        let lingering = memory.gauges().lingering;
        assert!(lingering >= 4 << 20, "{lingering}");
        assert!(memory.room(1 << 20).is_none(), "all of it is taken");
        assert!(memory.room(1 << 10).is_some(), "of a small body nobody can hold much");
        readers.clear();
        assert!(lets_go(&memory));
        assert!(memory.room(2 << 20).is_some());
    }

    #[test]
    fn the_tier_yields_to_what_is_in_memory_beside_it_and_takes_the_room_back() {
        const MIB: u64 = 1 << 20;
        let cfg = config::Cache { memory: 64 * MIB, in_flight: 16 * MIB, ..samples::cache(None) };
        let (memory, purges) = (Memory::new(&cfg), Purges::new(PURGES));
        let fill = |memory: &Memory| {
            for nth in 0..64 {
                let body = vec![b'x'; 1 << 20];
                // Asked for more often than whatever is there.
                (0..3).for_each(|_| drop(memory.find(&key(&format!("/{nth}")))));
                memory.keep(plain(&format!("/{nth}"), &body, BORN), Class::Plain, &purges);
            }
        };
        fill(&memory);
        let held = memory.gauges();
        assert!(held.bytes > 60 * MIB && held.entries > 60, "{held:?}");
        let room = memory.room(10 * MIB).unwrap();
        let passing = memory.in_flight().passing(20 * MIB);
        let held = memory.gauges();
        // What moka has given up and not yet let go of counts, too: for a moment it may be less than is needed.
        assert!(held.bytes <= 34 * MIB && held.bytes > 13 * MIB, "{held:?}");
        // However much it is, a quarter serves others.
        let more = memory.in_flight().passing(1000 * MIB);
        let held = memory.gauges();
        assert!(held.bytes <= 16 * MIB && held.bytes > 13 * MIB, "{held:?}");
        drop((room, passing, more));
        // On a slow machine moka is still giving up, for a moment, when there is room again.
        let taken_back = (0..20).any(|_| {
            fill(&memory);
            memory.gauges().bytes > 60 * MIB
        });
        let held = memory.gauges();
        assert!(taken_back && held.bytes <= 64 * MIB, "{held:?}");
    }

    #[test]
    fn the_tier_yields_also_where_all_else_in_it_has_been_asked_for_since() {
        const MIB: u64 = 1 << 20;
        let cfg = config::Cache { memory: 16 * MIB, in_flight: 4 * MIB, ..samples::cache(None) };
        let (memory, purges) = (Memory::new(&cfg), Purges::new(PURGES));
        let ask = |nth: usize| {
            memory.find(&key(&format!("/{nth}"))).is_some_and(|found| !found.variants.is_empty())
        };
        let keep = |nth: usize| {
            memory.keep(plain(&format!("/{nth}"), &[b'x'; 10_000], BORN), Class::Plain, &purges);
            memory.cache.run_pending_tasks();
        };
        let _passing = memory.in_flight().passing(10 * MIB);
        for nth in 0..1_000_usize {
            for other in 0..nth.min(700) {
                ask(nth.saturating_sub(other));
            }
            (0..3).for_each(|_| assert!(!ask(nth)));
            keep(nth);
            let held: u64 =
                memory.cache.iter().filter(|(key, _)| **key != OWN).map(|(_, held)| held.weight).sum();
            assert!(held <= 7 * MIB, "{nth}: {held}");
        }
    }

    #[test]
    fn what_lingers_makes_the_tier_yield() {
        const MIB: u64 = 1 << 20;
        let cfg = config::Cache { memory: 64 * MIB, in_flight: 16 * MIB, ..samples::cache(None) };
        let (memory, purges) = (Memory::new(&cfg), Purges::new(PURGES));
        let mut readers = Vec::new();
        for nth in 0..200 {
            let response = plain(&format!("/{}", nth % 20), &vec![b'x'; 1 << 20], BORN);
            // Half of what is replaced is read for ever.
            readers.extend(response.content.whole().filter(|_| nth % 4 == 0).cloned());
            memory.keep(response, Class::Plain, &purges);
        }
        let held = memory.gauges();
        assert!(held.lingering > 40 * MIB, "{held:?}");
        assert!(held.bytes + held.lingering <= 65 * MIB, "{held:?}");
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
    fn what_is_replaced_and_still_read_lingers() {
        let (memory, purges) = memory(16 << 20);
        let mut readers = Vec::new();
        for _ in 0..3 {
            let response = plain("/one", &vec![b'x'; 1 << 20], BORN);
            readers.extend(response.content.whole().cloned());
            memory.keep(response, Class::Plain, &purges);
        }
        assert_eq!(memory.gauges().lingering, 2 << 20, "the last of them is in the tier");
        readers.clear();
        assert!(lets_go(&memory));
    }

    #[test]
    fn what_is_replaced_by_itself_does_not_linger() {
        let (memory, purges) = memory(4 << 20);
        let kept = plain("/kept", &vec![b'x'; 1 << 20], BORN);
        let reader = kept.content.whole().cloned();
        for _ in 0..3 {
            assert!(memory.keep(Arc::clone(&kept), Class::Plain, &purges));
        }
        assert_eq!(memory.gauges().lingering, 0);
        // Purged twice while somebody reads it: noted once, and let go of.
        memory.remove(&key("/kept"));
        memory.keep(Arc::clone(&kept), Class::Plain, &purges);
        memory.remove(&key("/kept"));
        assert_eq!(memory.gauges().lingering, 1 << 20);
        drop((kept, reader));
        assert!(lets_go(&memory));
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
            Arc::new(
                Resource { variants: vec![Arc::clone(&other)], ..Resource::empty(&other.key) }.weighed(),
            ),
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
    fn what_is_larger_than_the_tier_is_not_kept() {
        let (memory, purges) = memory(4_000);
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
        let found: Vec<_> = memory.cache.iter().collect();
        let held: u64 = found.iter().map(|(_, resource)| resource.weight).sum();
        assert!(held <= 200_000 && found.len() > 20, "{held} in {}", found.len());
        let bodies: u64 =
            found.iter().flat_map(|(_, resource)| &resource.variants).map(|v| v.content.held()).sum();
        assert!(held > bodies);
    }

    #[test]
    fn a_copy_is_kept_beside_its_body_and_weighed() {
        let (memory, purges) = memory(20_000);
        let response = plain("/", &[b'x'; 4_000], BORN);
        let attach = |form, bytes: usize| {
            let copy = Copy::Made(vec![0; bytes].into());
            memory.attach(&response.key, &response.copies, form, copy);
            response.copies.get(form).is_some()
        };
        assert!(!attach(Form::Decoded, 10), "not stored (yet)");
        memory.keep(Arc::clone(&response), Class::Plain, &purges);
        let weight = || memory.peek(&response.key).unwrap().weight;
        let before = weight();
        assert!(attach(Form::Decoded, 5_000));
        let copies = response.copies.weight() as u64;
        assert!(copies > 5_000);
        assert_eq!(weight(), before + copies);
        memory.cache.run_pending_tasks();
        assert_eq!(memory.cache.weighted_size(), before + copies);
        assert!(!attach(Form::Encoded(Coding::Gzip), 15_000), "more than the tier may hold");
        assert_eq!(bodies(&memory, "/").len(), 1, "the body stays");
        memory.keep(plain("/", b"another", BORN), Class::Plain, &purges);
        assert!(!attach(Form::Encoded(Coding::Zstd), 10), "its body has been replaced");
        assert!(memory.peek(&response.key).unwrap().variants[0].copies.get(Form::Decoded).is_none());
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
    fn a_racing_purge_wins_over_every_keep() {
        let (memory, purges) = memory(8 << 20);
        for round in 0..200 {
            let path = format!("/{round}");
            let old = plain(&path, b"old", Born::Here(purges.seq()));
            let barrier = std::sync::Barrier::new(2);
            thread::scope(|scope| {
                scope.spawn(|| {
                    barrier.wait();
                    memory.keep(Arc::clone(&old), Class::Plain, &purges);
                });
                barrier.wait();
                purges.purge(old.key.url_hash(), NOW);
                memory.remove(&old.key);
            });
            assert!(memory.find(&old.key).is_none(), "round {round}: it came back");
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
