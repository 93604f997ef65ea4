//! One replay: the cases in their order, against one memory tier, by the log's clock.
//!
//! Each fetch lands when the origin has taken as long as the log says; who asks for the same meanwhile waits for
//! it, as in a flight.
//! Must not know: lines, terminals.

use std::cell::OnceCell;
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
use crate::store::{Class, Marked, Memory, PER_CONNECTION, PURGES, Passing, Purges, Resource, STREAMING};
use crate::stored::{Born, CacheKey, Content, KeyPolicy, Received, Standing, StoredResponse, TagPolicy};

/// Cases between two times that somebody is told.
const STEP: u64 = 4096;
/// Further looks of a request that misses, each of which the tier takes for a use of what is there.
const LOOKS: usize = 3;
/// For how long an answer is taken to be on its way to its client: no log tells what of the time that it took was
/// before its head came.
const BODY: Duration = Duration::from_millis(2);
/// Cases in which the most answers that are on their way at once are looked for.
const LATELY: u32 = 16;
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

/// Replays the cases with each of these sizes of memory; gives what came of them, and the most bytes that memory held.
/// `boundless` is more than there is to hold.
///
/// Side by side, so that what is the same with each is made once: what fetches bring, and what is purged.
pub(super) fn replay(
    config: &Config,
    cases: &[Case],
    boundless: u64,
    sizes: &[u64],
    told: &(dyn Fn(u64) + Sync),
) -> Vec<(Outcomes, u64)> {
    let purges = Purges::new(PURGES);
    let mut models: Vec<Model<'_>> =
        sizes.iter().map(|size| Model::new(config, &purges, *size, boundless)).collect();
    let mut untold = 0;
    let (mut met, all) = (HashSet::new(), models.len() as u64);
    for case in cases {
        take(config, &purges, &mut models, &mut met, case);
        untold += all;
        if untold >= STEP {
            told(std::mem::take(&mut untold));
        }
    }
    told(untold);
    models.into_iter().map(Model::ended).collect()
}

fn take(config: &Config, purges: &Purges, models: &mut [Model<'_>], met: &mut HashSet<u128>, case: &Case) {
    let cache = case.route().and_then(|route| config.routes.get(route)?.cache.as_ref());
    models.iter_mut().for_each(|model| model.land(case.at()));
    let void = match (case.way, cache) {
        (Way::Ask, Some(cache)) => {
            let asked = Asked::new(config, purges, case, cache);
            let is_first = met.insert(case.url.key.hash());
            for model in models.iter_mut() {
                if let Some(before) = is_first.then(|| asked.before()).flatten() {
                    model.seed(&before, case);
                }
                let came = model.ask(&asked);
                model.count(case, &came);
            }
            voided(case, Some(cache))
        }
        (Way::Ask | Way::Pass, _) => {
            models.iter_mut().for_each(|model| model.count(case, &Came::Passed));
            voided(case, cache)
        }
        (Way::Purge, _) if (200..300).contains(&case.status) => vec![case.url.key.clone()],
        (Way::Purge | Way::Apart, _) => Vec::new(),
    };
    for key in void {
        purges.purge(key.url_hash(), case.at());
        models.iter_mut().for_each(|model| model.remove(&key));
    }
}

/// What a request has voided (RFC 9111 §4.4).
fn voided(case: &Case, cache: Option<&RouteCache>) -> Vec<CacheKey> {
    if !rules::invalidates(&case.asking.method, case.status) {
        return Vec::new();
    }
    // By the hash of its URL, which all keys of it share.
    let mut keys = vec![case.url.key.clone()];
    let head = case.answer.as_ref().map(|answer| answer.at(case.at())).unwrap_or_default();
    let plain = KeyPolicy::default();
    let policy = cache.map_or(&plain, |cache| &cache.key);
    let urls = rules::targets(case.url.scheme, &case.url.host, &case.url.target, &head);
    keys.extend(urls.iter().filter_map(|url| CacheKey::of_url(url, policy)));
    keys
}

/// A request that asks the cache, and what is the same of it whatever the cache holds.
struct Asked<'a> {
    config: &'a Config,
    purges: &'a Purges,
    case: &'a Case,
    cache: &'a RouteCache,
    selecting: OnceCell<SelectingFields>,
    brings: OnceCell<Brings>,
    before: OnceCell<Option<Arc<StoredResponse>>>,
}

/// What the origin's answer would be to the cache; or why it is nothing to it, and for how long that is remembered.
type Brings = Result<Arc<StoredResponse>, Option<(NotStored, Marked)>>;

impl<'a> Asked<'a> {
    fn new(config: &'a Config, purges: &'a Purges, case: &'a Case, cache: &'a RouteCache) -> Self {
        let (selecting, brings, before) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        Self { config, purges, case, cache, selecting, brings, before }
    }

    /// By which of its fields its answer is chosen, as the origin will say.
    fn selecting(&self) -> &SelectingFields {
        self.selecting.get_or_init(|| match &self.case.answer {
            Some(answer) => {
                let headers = &self.case.asking.headers;
                rules::selecting_fields(answer.vary(), headers, self.cache.policy.normalize)
            }
            None => SelectingFields::default(),
        })
    }

    fn took(&self) -> Duration {
        self.case.took.unwrap_or_default()
    }

    /// What a fetch brings that begins with it.
    fn brings(&self) -> Brings {
        match self.is_large() {
            true => self.brought(),
            false => self.brings.get_or_init(|| self.brought()).clone(),
        }
    }

    /// What a log's first word of a key shows to have been stored before it began.
    fn before(&self) -> Option<Arc<StoredResponse>> {
        match self.is_large() {
            true => self.stored_before(),
            false => self.before.get_or_init(|| self.stored_before()).clone(),
        }
    }

    /// A tier asks who else holds a large one: each has its own.
    fn is_large(&self) -> bool {
        self.case.length.is_some_and(|length| length > SHARED as u64)
    }

    fn brought(&self) -> Brings {
        let (asked, came) = (self.case.at(), self.case.at().saturating_add(self.took()));
        let answer = self.case.answer.as_ref().ok_or(None)?;
        let facts = answer.facts_at(asked, came);
        let permit = self.permit(&facts, &answer.headers).map_err(|why| {
            remembered(why, answer.status, self.case.asking.class.chooses()).map(|how| (why, how))
        })?;
        Ok(self.stored(permit, &answer.headers, facts))
    }

    fn stored_before(&self) -> Option<Arc<StoredResponse>> {
        let (age, answer) = (self.case.age?, self.case.answer.as_ref()?);
        let before = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let before = Timestamp::from_millis(self.case.at().as_millis().saturating_sub(before));
        let mut headers = answer.at(before);
        // The age that it was answered with has all of it.
        headers.remove(header::AGE);
        let facts = ResponseFacts::of(answer.status, &headers, before, before);
        let permit = self.permit(&facts, &headers).ok()?;
        Some(self.stored(permit, &headers, facts))
    }

    fn permit(&self, facts: &ResponseFacts, headers: &HeaderMap) -> Result<Storable, NotStored> {
        let (case, policy) = (self.case, &self.cache.policy);
        let permit = storing::judge(&case.asking.facts, facts, policy)?;
        let seen = Exchanged { target: &case.url.target, asked: &case.asking.headers, answer: headers };
        rules::guard(&seen, facts, policy)?;
        let large = case.length.is_some_and(|length| length > self.config.cache.max_object);
        if large { Err(NotStored::TooLarge) } else { Ok(permit) }
    }

    fn stored(&self, permit: Storable, headers: &HeaderMap, facts: ResponseFacts) -> Arc<StoredResponse> {
        let (case, plain) = (self.case, TagPolicy::default());
        let tags = case.route().and_then(|route| self.config.routes.get(route)).map_or(&plain, |r| &r.tags);
        let born = Born::Here(self.purges.seq());
        let selecting =
            rules::selecting_fields(&facts.vary, &case.asking.headers, self.cache.policy.normalize);
        let received = Received {
            status: StatusCode::from_u16(facts.status).unwrap_or(StatusCode::OK),
            headers,
            request_time: facts.request_time,
            response_time: facts.response_time,
            content: Content::Whole(body(case.length.unwrap_or(0))),
            selecting,
            key: case.url.key.clone(),
            standing: Arc::new(Standing::of(born, None, headers, &facts.groups, tags)),
        };
        // What is left out of it may have said something.
        Arc::new(match permit.without().is_empty() {
            true => StoredResponse::understood(permit, received, facts),
            false => StoredResponse::new(permit, received),
        })
    }
}

/// A memory tier, and what is on its way to it.
struct Model<'a> {
    config: &'a Config,
    purges: &'a Purges,
    memory: Memory,
    /// What a fleet shares, where it shares one: taken to hold all, and to answer always.
    shared: Option<Memory>,
    flights: HashMap<u128, Vec<Flight>>,
    due: BinaryHeap<Reverse<(Timestamp, u64)>>,
    landings: HashMap<u64, Landing>,
    fetches: u64,
    passing: OnTheirWay,
    outcomes: Outcomes,
    /// The most that memory held before something was removed.
    held: u64,
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
    key: CacheKey,
    class: Class,
    brings: Brings,
}

/// Answers on their way from the origin to clients: the tier yields to what they take of memory.
#[derive(Default)]
struct OnTheirWay {
    /// When each begins and ends; the next first.
    coming: BinaryHeap<Reverse<(Timestamp, Timestamp)>>,
    /// When each of those ends that have begun.
    ends: BinaryHeap<Reverse<Timestamp>>,
    held: Vec<Passing>,
    /// The most at once of so many cases.
    most: usize,
    cases: u32,
}

impl OnTheirWay {
    fn add(&mut self, case: &Case) {
        // Of a log that knows no durations: at once.
        let Some(took) = case.took else { return };
        let begin = case.at().saturating_add(took.saturating_sub(BODY));
        self.coming.push(Reverse((begin, case.at().saturating_add(took))));
    }

    /// It is `now`.
    ///
    /// As many count as were on their way at once not long ago: the tier would yield to each and take the room back,
    /// and what it has given up for the most of them is gone.
    fn move_on(&mut self, now: Timestamp, memory: &Memory) {
        while let Some(Reverse((_, end))) = self.coming.peek().copied().filter(|Reverse((at, _))| *at <= now)
        {
            self.coming.pop();
            self.ends.push(Reverse(end));
        }
        self.most = self.most.max(self.ends.len());
        while self.ends.peek().is_some_and(|Reverse(end)| *end <= now) {
            self.ends.pop();
        }
        self.cases = (self.cases + 1) % LATELY;
        if self.cases == 0 || self.held.len() < self.most {
            self.held.resize_with(self.most, || memory.in_flight().passing(STREAMING + PER_CONNECTION));
        }
        if self.cases == 0 {
            self.most = self.ends.len();
        }
    }
}

/// What came of a request.
enum Came {
    Cached { refreshes: u64 },
    Missed { asks: bool },
    StoodIn { asks: bool },
    Passed,
}

impl<'a> Model<'a> {
    fn new(config: &'a Config, purges: &'a Purges, memory: u64, boundless: u64) -> Self {
        let of = |memory| Memory::new(&config::Cache { memory, ..config.cache.clone() });
        Self {
            config,
            purges,
            memory: of(memory),
            shared: config.cache.redis.as_ref().map(|_| of(boundless)),
            flights: HashMap::new(),
            due: BinaryHeap::new(),
            landings: HashMap::new(),
            fetches: 0,
            passing: OnTheirWay::default(),
            outcomes: Outcomes { routes: vec![Part::default(); config.routes.len()], seeded: 0 },
            held: 0,
        }
    }

    /// What came of it all, and the most bytes that memory held: what is on its way when the log ends, too.
    fn ended(mut self) -> (Outcomes, u64) {
        self.land(Timestamp::from_millis(u64::MAX));
        (self.outcomes, self.memory.gauges().bytes.max(self.held))
    }

    fn count(&mut self, case: &Case, came: &Came) {
        if matches!(came, Came::Passed | Came::Missed { .. }) {
            self.passing.add(case);
        }
        let Some(part) = case.route().and_then(|route| self.outcomes.routes.get_mut(route)) else { return };
        match came {
            Came::Cached { refreshes } => {
                (part.cached, part.refreshes) = (part.cached + 1, part.refreshes + refreshes)
            }
            Came::StoodIn { asks } => {
                (part.cached, part.origin) = (part.cached + 1, part.origin + u64::from(*asks));
            }
            Came::Missed { asks } => {
                (part.missed, part.origin) = (part.missed + 1, part.origin + u64::from(*asks));
            }
            Came::Passed => part.origin += 1,
        }
    }

    /// Whether there was room for it on its way. No log tells who reads slowly, so nothing is pinned.
    fn has_room(&self, response: &StoredResponse) -> bool {
        let length = response.content.length();
        match length > SHARED as u64 {
            true => self.memory.room(length, false).is_some(),
            // None of these lingers, so there is.
            false => length <= self.config.cache.in_flight,
        }
    }

    /// What fetches have brought by now.
    fn land(&mut self, now: Timestamp) {
        self.passing.move_on(now, &self.memory);
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
                    if !self.has_room(&response) {
                        continue;
                    }
                    if let Some(shared) = &self.shared {
                        shared.keep(Arc::clone(&response), class, self.purges);
                    }
                    self.memory.keep(response, class, self.purges);
                }
                Err(Some((why, how))) => {
                    let until = at.saturating_add(self.config.cache.hit_for_miss);
                    self.memory.mark(&key, class, why, how, until);
                }
                Err(None) => {}
            }
        }
    }

    /// What stood in the cache before the log begins.
    fn seed(&mut self, stored: &Arc<StoredResponse>, case: &Case) {
        let class = case.asking.class;
        if let Some(shared) = &self.shared {
            shared.keep(Arc::clone(stored), class, self.purges);
        }
        self.memory.keep(Arc::clone(stored), class, self.purges);
        self.outcomes.seeded += 1;
    }

    fn ask(&mut self, asked: &Asked<'_>) -> Came {
        let Asked { case, cache, .. } = asked;
        let (asking, key, now) = (&case.asking, &case.url.key, case.at());
        let mut resource = self.memory.find(key);
        let mut stored = self.select(resource.as_ref(), asked);
        if stored.is_none()
            && let Some(found) = self.shared.as_ref().and_then(|shared| shared.find(key))
            && let Some(found) = self.select(Some(&found), asked)
        {
            self.memory.keep(Arc::clone(&found), asking.class, self.purges);
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
                    let refreshes = !marked && self.flight(asked).is_none() && self.fetch(asked);
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
                return Came::StoodIn { asks: case.asked_in_vain() };
            }
        }
        self.miss(asked, resource.as_ref())
    }

    fn miss(&mut self, asked: &Asked<'_>, resource: Option<&Resource>) -> Came {
        let (asking, now) = (&asked.case.asking, asked.case.at());
        if resource.is_some_and(|resource| resource.marked(asking.class, now).is_some())
            || self.goes_alone(asked)
        {
            return Came::Missed { asks: true };
        }
        // To wait for a fetch, to find room for it and to add to its key are looks of their own.
        if resource.is_some() {
            (0..LOOKS).for_each(|_| drop(self.memory.peek(&asked.case.url.key)));
        }
        match self.flight(asked) {
            // Of what is not for all each has to ask for itself.
            Some(flight) => Came::Missed { asks: !flight.lands },
            None => {
                self.fetch(asked);
                Came::Missed { asks: true }
            }
        }
    }

    /// What is fetched for one client, and not kept.
    fn goes_alone(&self, asked: &Asked<'_>) -> bool {
        let Asked { case, cache, .. } = asked;
        let small = case.length.is_some_and(|length| length <= self.config.cache.range_fill);
        let in_part = case.asking.facts.range && cache.policy.range != RangeFetch::Fill && !small;
        case.asking.method == Method::HEAD || in_part
    }

    /// The fetch that this request would wait for.
    fn flight(&self, asked: &Asked<'_>) -> Option<&Flight> {
        let flights = self.flights.get(&asked.case.url.key.hash())?;
        let (selecting, credentials) = (asked.selecting(), asked.case.asking.class.has_credentials());
        flights.iter().find(|flight| flight.selecting == *selecting && flight.credentials == credentials)
    }

    /// Fetches for all. True, since the origin is asked.
    fn fetch(&mut self, asked: &Asked<'_>) -> bool {
        let (asking, key) = (&asked.case.asking, asked.case.url.key.clone());
        let brings = asked.brings();
        self.fetches += 1;
        let id = self.fetches;
        self.flights.entry(key.hash()).or_default().push(Flight {
            id,
            selecting: asked.selecting().clone(),
            credentials: asking.class.has_credentials(),
            lands: brings.is_ok(),
        });
        self.due.push(Reverse((asked.case.at().saturating_add(asked.took()), id)));
        self.landings.insert(id, Landing { key, class: asking.class, brings });
        true
    }

    fn select(&self, found: Option<&Resource>, asked: &Asked<'_>) -> Option<Arc<StoredResponse>> {
        let stored = found?.select(&asked.case.asking.headers, asked.cache.policy.normalize)?;
        (!self.purges.is_purged(stored)).then(|| Arc::clone(stored))
    }

    fn remove(&mut self, key: &CacheKey) {
        if self.memory.again(key).is_some() {
            self.held = self.memory.gauges().bytes.max(self.held);
        }
        self.memory.remove(key);
        if let Some(shared) = &self.shared {
            shared.remove(key);
        }
    }
}

/// A body of so many bytes that takes next to no memory.
fn body(length: u64) -> Bytes {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    match ZEROS.get(..length) {
        Some(zeros) => Bytes::from_static(zeros),
        None => apart::blank(length),
    }
}
