//! One replay: the cases in their order, against one memory tier, by the log's clock.
//!
//! Each fetch lands when the origin has taken as long as the log says; who asks for the same meanwhile waits for
//! it, as in a flight.
//! Must not know: lines, terminals.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};

use super::Part;
use super::case::{Case, Way};
use crate::apart;
use crate::clock::Timestamp;
use crate::config::{self, Config, RouteCache};
use crate::fill::remembered;
use crate::rules::{
    self, Exchanged, MustAsk, NotStored, OriginFailure, RangeFetch, ResponseFacts, Reuse, SelectingFields,
    Storable, storing,
};
use crate::store::{Class, Marked, Memory, PURGES, Purges, Resource, STREAMING};
use crate::stored::{Born, CacheKey, Content, Received, Standing, StoredResponse, TagPolicy};

/// More than any log holds.
pub(super) const BOUNDLESS: u64 = 1 << 40;
/// Cases between two times that somebody is told.
const STEP: u64 = 4096;
/// Smaller bodies share their bytes: nobody reads them, and the tier looks at who holds only larger ones.
const SHARED: usize = 64 * 1024 - 1;
static ZEROS: [u8; SHARED] = [0; SHARED];

/// What a replay comes to.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    /// One for each of the configuration's routes.
    pub routes: Vec<Part>,
    pub seeded: u64,
}

impl Outcomes {
    pub fn all(&self) -> Part {
        let mut all = Part::default();
        self.routes.iter().for_each(|part| all.add(part));
        all
    }
}

/// Replays the cases with so much memory; gives what came of them, and the bytes that memory held at the end.
pub(super) fn replay(
    config: &Config,
    cases: &[Case],
    memory: u64,
    told: &(dyn Fn(u64) + Sync),
) -> (Outcomes, u64) {
    let mut model = Model::new(config, memory);
    let mut untold = 0;
    for case in cases {
        model.take(case);
        untold += 1;
        if untold == STEP {
            told(std::mem::take(&mut untold));
        }
    }
    told(untold);
    (model.outcomes, model.memory.gauges().bytes)
}

struct Model<'a> {
    config: &'a Config,
    memory: Memory,
    /// What a fleet shares, where it shares one: taken to hold all, and to answer always.
    shared: Option<Memory>,
    purges: Purges,
    flights: HashMap<u128, Vec<Flight>>,
    due: BinaryHeap<Reverse<(Timestamp, u64)>>,
    landings: HashMap<u64, Landing>,
    fetches: u64,
    met: HashSet<u128>,
    outcomes: Outcomes,
}

/// A fetch that others may wait for.
struct Flight {
    id: u64,
    selecting: SelectingFields,
    credentials: bool,
    /// What it brings is for all.
    lands: bool,
}

/// What a fetch brings.
struct Landing {
    key: Arc<CacheKey>,
    class: Class,
    brings: Result<Arc<StoredResponse>, Option<(NotStored, Marked)>>,
}

/// What came of a request.
enum Came {
    Cached { refreshes: u64 },
    Missed { asks: bool },
    StoodIn,
    Passed,
}

impl<'a> Model<'a> {
    fn new(config: &'a Config, memory: u64) -> Self {
        let of = |memory| Memory::new(&config::Cache { memory, ..config.cache.clone() });
        Self {
            config,
            memory: of(memory),
            shared: config.cache.redis.as_ref().map(|_| of(BOUNDLESS)),
            purges: Purges::new(PURGES),
            flights: HashMap::new(),
            due: BinaryHeap::new(),
            landings: HashMap::new(),
            fetches: 0,
            met: HashSet::new(),
            outcomes: Outcomes { routes: vec![Part::default(); config.routes.len()], seeded: 0 },
        }
    }

    fn take(&mut self, case: &Case) {
        self.land(case.at());
        let cache = case.route().and_then(|route| self.config.routes.get(route)?.cache.as_ref());
        let came = match (case.way, cache) {
            (Way::Ask, Some(cache)) => self.ask(case, cache),
            (Way::Ask | Way::Pass, _) => Came::Passed,
            (Way::Purge, _) => {
                if (200..300).contains(&case.status) {
                    self.purge(&case.url.key, case.at());
                }
                return;
            }
            (Way::Apart, _) => return,
        };
        self.invalidate(case);
        if matches!(came, Came::Passed | Came::Missed { .. }) {
            drop(self.memory.in_flight().passing(STREAMING));
        }
        let Some(part) = case.route().and_then(|route| self.outcomes.routes.get_mut(route)) else { return };
        match came {
            Came::Cached { refreshes } => {
                (part.cached, part.refreshes) = (part.cached + 1, part.refreshes + refreshes)
            }
            Came::StoodIn => (part.cached, part.origin) = (part.cached + 1, part.origin + 1),
            Came::Missed { asks } => {
                (part.missed, part.origin) = (part.missed + 1, part.origin + u64::from(asks));
            }
            Came::Passed => part.origin += 1,
        }
    }

    /// What fetches have brought by now.
    fn land(&mut self, now: Timestamp) {
        while let Some(Reverse((at, id))) = self.due.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            self.due.pop();
            let Some(Landing { key, class, brings }) = self.landings.remove(&id) else { continue };
            if let Some(flights) = self.flights.get_mut(&key.hash()) {
                flights.retain(|flight| flight.id != id);
                if flights.is_empty() {
                    self.flights.remove(&key.hash());
                }
            }
            match brings {
                Ok(response) => {
                    // It is on its way to a client meanwhile; no log tells who reads slowly, so nothing is pinned.
                    let room = self.memory.room(response.content.length(), false);
                    let _passing = self.memory.in_flight().passing(STREAMING);
                    if room.is_none() {
                        continue;
                    }
                    drop(room);
                    if let Some(shared) = &self.shared {
                        shared.keep(Arc::clone(&response), class, &self.purges);
                    }
                    self.memory.keep(response, class, &self.purges);
                }
                Err(Some((why, how))) => {
                    let until = at.saturating_add(self.config.cache.hit_for_miss);
                    self.memory.mark(&key, class, why, how, until);
                }
                Err(None) => {}
            }
        }
    }

    fn ask(&mut self, case: &Case, cache: &RouteCache) -> Came {
        let (asking, key, now) = (&case.asking, &case.url.key, case.at());
        if self.met.insert(key.hash()) {
            self.seed(case, cache);
        }
        let mut resource = self.memory.find(key);
        let mut stored = self.select(resource.as_deref(), case, cache);
        if stored.is_none()
            && let Some(found) = self.shared.as_ref().and_then(|shared| shared.find(key))
            && let Some(found) = self.select(Some(&found), case, cache)
        {
            self.memory.keep(Arc::clone(&found), asking.class, &self.purges);
            resource = self.memory.peek(key);
            stored = Some(found);
        }
        // RFC 9110 §13.1: the origin's to judge.
        if asking.facts.has_precondition() {
            return Came::Missed { asks: true };
        }
        if let Some(stored) = &stored {
            let cut = stored.cut(&asking.facts, &asking.headers);
            match stored.reuse(&asking.facts, &cache.policy, now) {
                Reuse::Fresh(_) if cut.is_some() => return Came::Cached { refreshes: 0 },
                Reuse::Stale { grace: Some(_), .. } if cut.is_some() => {
                    let marked = resource.is_some_and(|found| found.marked(asking.class, now).is_some());
                    let refreshes = !marked && self.flight(case, cache).is_none() && self.fetch(case, cache);
                    return Came::Cached { refreshes: u64::from(refreshes) };
                }
                Reuse::Refused(MustAsk::Cookie | MustAsk::Authorization) => return Came::Passed,
                Reuse::Fresh(_) | Reuse::Stale { .. } | Reuse::Refused(_) => {}
            }
            let stands_in = || {
                let failure = OriginFailure::Error;
                stored.on_error(&asking.facts, &cache.policy, now, failure).is_some() && cut.is_some()
            };
            if case.fails && stands_in() {
                return Came::StoodIn;
            }
        }
        self.miss(case, cache, resource.as_deref())
    }

    fn miss(&mut self, case: &Case, cache: &RouteCache, resource: Option<&Resource>) -> Came {
        let (asking, now) = (&case.asking, case.at());
        if resource.is_some_and(|resource| resource.marked(asking.class, now).is_some())
            || self.goes_alone(case, cache)
        {
            return Came::Missed { asks: true };
        }
        match self.flight(case, cache) {
            // Of what is not for all each has to ask for itself.
            Some(flight) => Came::Missed { asks: !flight.lands },
            None => {
                self.fetch(case, cache);
                Came::Missed { asks: true }
            }
        }
    }

    /// What is fetched for one client, and not kept.
    fn goes_alone(&self, case: &Case, cache: &RouteCache) -> bool {
        let small = case.length.is_some_and(|length| length <= self.config.cache.range_fill);
        let in_part = case.asking.facts.range && cache.policy.range != RangeFetch::Fill && !small;
        case.asking.method == Method::HEAD || in_part
    }

    /// The fetch that this request would wait for.
    fn flight(&self, case: &Case, cache: &RouteCache) -> Option<&Flight> {
        let flights = self.flights.get(&case.url.key.hash())?;
        let (selecting, credentials) = (selecting(case, cache), case.asking.class.has_credentials());
        flights.iter().find(|flight| flight.selecting == selecting && flight.credentials == credentials)
    }

    /// Fetches for all. True, since the origin is asked.
    fn fetch(&mut self, case: &Case, cache: &RouteCache) -> bool {
        let (asking, key) = (&case.asking, Arc::clone(&case.url.key));
        let took = case.took.unwrap_or_default();
        let brings = self.brings(case, cache, case.at(), took);
        self.fetches += 1;
        let id = self.fetches;
        self.flights.entry(key.hash()).or_default().push(Flight {
            id,
            selecting: selecting(case, cache),
            credentials: asking.class.has_credentials(),
            lands: brings.is_ok(),
        });
        self.due.push(Reverse((case.at().saturating_add(took), id)));
        self.landings.insert(id, Landing { key, class: asking.class, brings });
        true
    }

    /// What the origin's answer would be to the cache.
    fn brings(
        &self,
        case: &Case,
        cache: &RouteCache,
        asked: Timestamp,
        took: Duration,
    ) -> Result<Arc<StoredResponse>, Option<(NotStored, Marked)>> {
        let came = asked.saturating_add(took);
        let answer = case.answer.as_ref().ok_or(None)?;
        let headers = answer.at(came);
        let facts = ResponseFacts::of(answer.status, &headers, asked, came);
        let permit = self.permit(case, cache, &facts, &headers).map_err(|why| {
            remembered(why, answer.status, case.asking.class.chooses()).map(|how| (why, how))
        })?;
        Ok(self.stored(case, cache, permit, &headers, facts))
    }

    fn permit(
        &self,
        case: &Case,
        cache: &RouteCache,
        facts: &ResponseFacts,
        headers: &HeaderMap,
    ) -> Result<Storable, NotStored> {
        let permit = storing::judge(&case.asking.facts, facts, &cache.policy)?;
        let seen = Exchanged { target: &case.url.target, asked: &case.asking.headers, answer: headers };
        rules::guard(&seen, facts, &cache.policy)?;
        let large = case.length.is_some_and(|length| length > self.config.cache.max_object);
        if large { Err(NotStored::TooLarge) } else { Ok(permit) }
    }

    fn stored(
        &self,
        case: &Case,
        cache: &RouteCache,
        permit: Storable,
        headers: &HeaderMap,
        facts: ResponseFacts,
    ) -> Arc<StoredResponse> {
        let plain = TagPolicy::default();
        let tags = case.route().and_then(|route| self.config.routes.get(route)).map_or(&plain, |r| &r.tags);
        let born = Born::Here(self.purges.seq());
        Arc::new(StoredResponse::new(
            permit,
            Received {
                status: StatusCode::from_u16(facts.status).unwrap_or(StatusCode::OK),
                headers,
                request_time: facts.request_time,
                response_time: facts.response_time,
                content: Content::Whole(body(case.length.unwrap_or(0))),
                selecting: rules::selecting_fields(&facts.vary, &case.asking.headers, cache.policy.normalize),
                key: Arc::clone(&case.url.key),
                standing: Arc::new(Standing::of(born, None, headers, &facts.groups, tags)),
            },
        ))
    }

    /// What a log's first word of a key shows to have been stored before it began.
    fn seed(&mut self, case: &Case, cache: &RouteCache) {
        let (Some(age), Some(answer)) = (case.age, &case.answer) else { return };
        let now = case.at();
        let before = Timestamp::from_millis(
            now.as_millis().saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        );
        let mut headers = answer.at(before);
        // The age that it was answered with has all of it.
        headers.remove(header::AGE);
        let facts = ResponseFacts::of(answer.status, &headers, before, before);
        if let Ok(permit) = self.permit(case, cache, &facts, &headers) {
            let stored = self.stored(case, cache, permit, &headers, facts);
            if let Some(shared) = &self.shared {
                shared.keep(Arc::clone(&stored), case.asking.class, &self.purges);
            }
            self.memory.keep(stored, case.asking.class, &self.purges);
            self.outcomes.seeded += 1;
        }
    }

    fn select(
        &self,
        found: Option<&Resource>,
        case: &Case,
        cache: &RouteCache,
    ) -> Option<Arc<StoredResponse>> {
        let stored = found?.select(&case.asking.headers, cache.policy.normalize)?;
        (!self.purges.is_purged(stored)).then(|| Arc::clone(stored))
    }

    /// RFC 9111 §4.4.
    fn invalidate(&self, case: &Case) {
        if !rules::invalidates(&case.asking.method, case.status) {
            return;
        }
        // By the hash of its URL, which all keys of it share.
        self.purge(&case.url.key, case.at());
        let head = case.answer.as_ref().map(|answer| answer.at(case.at())).unwrap_or_default();
        let cache = case.route().and_then(|route| self.config.routes.get(route)?.cache.as_ref());
        let policy = cache.map(|cache| cache.key.clone()).unwrap_or_default();
        for url in rules::targets(case.url.scheme, &case.url.host, &case.url.target, &head) {
            if let Some(key) = CacheKey::of_url(&url, &policy) {
                self.purge(&key, case.at());
            }
        }
    }

    fn purge(&self, key: &CacheKey, now: Timestamp) {
        self.purges.purge(key.url_hash(), now);
        self.memory.remove(key);
        if let Some(shared) = &self.shared {
            shared.remove(key);
        }
    }
}

/// By which of its fields a request's answer is chosen, as the origin will say.
fn selecting(case: &Case, cache: &RouteCache) -> SelectingFields {
    let Some(answer) = &case.answer else { return SelectingFields::default() };
    rules::selecting_fields(answer.vary(), &case.asking.headers, cache.policy.normalize)
}

/// A body of so many bytes that takes next to no memory.
fn body(length: u64) -> Bytes {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    match ZEROS.get(..length) {
        Some(zeros) => Bytes::from_static(zeros),
        None => apart::blank(length),
    }
}
