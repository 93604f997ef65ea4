//! Waits for a fetch: as its owner, who starts it, or as a guest.
//!
//! Knows what each landing means for this request.
//! Must not know: how the fetch is made.
//!
//! Cancellation: dropping the future leaves the flight; the fetch goes on.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use tokio::sync::oneshot;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::fields::range::Ranges;
use crate::fields::vary::Vary;
use crate::fill::Want;
use crate::flight::{FlightKey, Guest, Owner, Seat};
use crate::rules::{self, NotStored, OriginFailure, RangeFetch, ResponseFacts, Reusable, Reuse};
use crate::store::{Absent, Class, Generation, Resource};
use crate::stored::{Born, CacheKey, Group, Standing, StoredResponse, Verdict};
use crate::telemetry::{Cause, Detail, Miss, Outcome, Phase, Source, Tier};
use crate::worker::{Fetched, FillTimes, ForOwner, Landing, Looked, Own, OwnerLanding};

use super::Step;
use super::adopting::Listening;
use super::deliver::Deliver;
use super::exchange::Exchange;
use super::failure::Failure;
use super::lookup;
use super::pass::Pass;
use super::transform;

/// How often a guest sits down again before it goes alone: once for a variant that it could not
/// know of, once for an owner that vanished or a purge.
const ATTEMPTS: u8 = 3;

/// A request that memory alone cannot answer.
pub(super) struct Wait {
    pub exchange: Exchange,
    pub miss: Miss,
    pub stale: Option<Arc<StoredResponse>>,
}

impl Wait {
    pub async fn run(mut self: Box<Self>) -> Step {
        if self.learns_from_redis().await {
            return Step::Lookup(Box::new(self.exchange));
        }
        if let Some(why) = self.cannot_fill() {
            return self.without_a_fill(why).await;
        }
        if self.exchange.attempts >= ATTEMPTS {
            return self.alone(None);
        }
        self.exchange.attempts += 1;
        let (variant, unshared) = {
            let known = self.exchange.worker.shared.memory.again(&self.exchange.key);
            (self.variant(known.as_ref()), self.unshared(known.as_ref()))
        };
        let want = self.want();
        let flights = Arc::clone(&self.exchange.worker.shared.flights);
        let lane = self.lane(variant, want);
        // What the last one brought could not be shared: nobody waits for the next.
        if let Some(why) = unshared {
            return match flights.join_if_free(lane) {
                Some(seat) => self.own(seat).await,
                None => self.alone(Some(Detail::HitForMiss(why))),
            };
        }
        // The whole may be on its way already, and the range with it.
        let whole = self.lane(variant, Want::Whole);
        if let Some(guest) = flights.visit(whole).filter(|_| want != Want::Whole) {
            return self.visit(guest).await;
        }
        // So may this very variant, by who asked before it was known that there are any.
        let before = variant.and_then(|_| flights.visit(self.unnamed(want)?));
        if let Some(guest) = before {
            return self.visit(guest).await;
        }
        match flights.join(lane) {
            Seat::Owner(seat) => self.own(seat).await,
            Seat::Guest(guest) => self.visit(guest).await,
        }
    }

    /// Whether the shared tier knows a rule for the path's query that this process did not: then the key
    /// is another. Asked once in a while for a path, and only where there is a query.
    async fn learns_from_redis(&mut self) -> bool {
        let exchange = &mut self.exchange;
        let wanted =
            exchange.exact.is_none() && exchange.is_searched() && exchange.asked.target.query().is_some();
        let (Some(redis), true) = (&exchange.worker.redis, wanted) else { return false };
        let (searches, path) = (&exchange.worker.shared.searches, Group::of_path(&exchange.key));
        if !searches.should_ask(path, exchange.worker.now()) {
            return false;
        }
        let began = exchange.mono();
        let rule = redis.rule(path).await;
        exchange.report.mark(Phase::Redis, began);
        if !rule.is_some_and(|rule| exchange.worker.shared.searches.learn(path, &rule)) {
            return false;
        }
        exchange.search();
        exchange.exact.is_some()
    }

    /// Why this request is none to fetch a whole response for, and the word for it.
    pub fn cannot_fill(&self) -> Option<Option<Detail>> {
        let facts = &self.exchange.asked.facts;
        if self.exchange.asked.method == Method::HEAD {
            Some(Some(Detail::NotStored(NotStored::Head)))
        } else if matches!(facts.ranges, Some(Ranges::Several(_))) && self.want_whole_of_nothing() {
            Some(Some(lookup::RANGE))
        } else {
            // RFC 9111 §5.2.1.7: a stored response or none; the origin is not asked.
            facts.directives.only_if_cached.then_some(None)
        }
    }

    /// Several ranges are not fetched as such. They are answered from a whole: one that the route asks
    /// for, or one that is stored and has to be confirmed.
    fn want_whole_of_nothing(&self) -> bool {
        let fills = self.exchange.cache().is_some_and(|cache| cache.policy.range == RangeFetch::Fill);
        let whole = self.stale.as_ref().is_some_and(|stale| stale.content.whole().is_some());
        !fills && !whole
    }

    /// The flight of who did not know that there are variants, where what it brings is for this request.
    fn unnamed(&self, want: Want) -> Option<FlightKey> {
        let lane = self.lane(None, want);
        let (headers, normalize) = (&self.exchange.asked.headers, self.exchange.normalize());
        match self.exchange.worker.shared.flights.told(lane)? {
            Landing::Fetched(fetched) => {
                fetched.selecting.matches(&fetched.facts, headers, normalize).then_some(lane)
            }
            _ => None,
        }
    }

    /// The flight that it may share; beside one that a purge has made useless, that of all who have found it so.
    fn lane(&self, variant: Option<u64>, want: Want) -> FlightKey {
        let of_all = lookup::lane(&self.exchange, self.exchange.class(), variant, want);
        let lane = match self.exchange.after {
            0 => of_all.lane,
            after => (xxh3_64_with_seed(&after.to_le_bytes(), of_all.lane) & !1) | (of_all.lane & 1),
        };
        FlightKey { lane, ..of_all }
    }

    /// Why those who ask for the key do not wait for each other, if so.
    fn unshared(&self, known: Option<&Resource>) -> Option<NotStored> {
        known?.unshared(self.exchange.class(), self.exchange.worker.now())
    }

    fn want(&self) -> Want {
        self.exchange.want(self.stale.as_deref())
    }

    /// The shared tier may still have the whole; else the request goes alone.
    ///
    /// What is promoted to memory was read under a seat, as in a fill: a purge that comes in between
    /// leaves its note standing only while it sees that something flies (`worker/forget`). One at a
    /// time does so for a key; it tells nobody anything.
    async fn without_a_fill(mut self: Box<Self>, why: Option<Detail>) -> Step {
        let seat = self.exchange.worker.shared.flights.join_if_free(lookup::look(&self.exchange));
        let (found, generation) = self.ask_redis().await;
        let Some(stored) = found else { return self.alone_and_listening(why, seat, generation, None) };
        let Some(cache) = self.exchange.cache() else { return self.alone(why) };
        let now = (self.exchange.worker.now(), self.exchange.mono());
        match self.exchange.worker.reuse(&stored, &self.exchange.asked.facts, &cache.policy, now) {
            Reuse::Fresh(_) | Reuse::Stale { grace: Some(_), .. } => {
                let shared = &self.exchange.worker.shared;
                if seat.is_some() {
                    shared.memory.keep(Arc::clone(&stored), self.exchange.class(), &shared.purges);
                }
                drop(seat);
                self.found(stored, false)
            }
            Reuse::Stale { grace: None, because } => {
                self.learn(Looked::MustAsk(because));
                self.stale.get_or_insert_with(|| Arc::clone(&stored));
                self.alone_and_listening(why, seat, generation, Some(stored))
            }
            Reuse::Refused(because) => {
                self.learn(Looked::Refused(because));
                self.alone(why)
            }
        }
    }

    async fn ask_redis(&mut self) -> (Option<Arc<StoredResponse>>, Option<Generation>) {
        let exchange = &mut self.exchange;
        let began = exchange.mono();
        let (doubts, now) = (&exchange.worker.shared.doubts, exchange.worker.now());
        let redis = exchange.worker.redis.as_ref().filter(|_| !doubts.is_in_doubt(exchange.key.hash(), now));
        let Some(redis) = redis else { return (None, None) };
        let normalize = exchange.normalize();
        let answer = redis.get(&exchange.key, &exchange.asked.headers, normalize).await;
        exchange.report.mark(Phase::Redis, began);
        exchange.worker.note_redis(&exchange.snapshot, &exchange.asked, began, &answer.found);
        let other = matches!(answer.found, Err(Absent::OtherVariant));
        let found = answer.found.ok().filter(|found| exchange.is_led_to(&found.key, &found.facts));
        let found = found.filter(|found| !exchange.worker.shared.purges.is_purged(found));
        if other {
            self.learn(Looked::OtherVariant);
        }
        (found, answer.generation)
    }

    /// Goes to the origin on its own account; what a HEAD brings is news of what is stored.
    fn alone_and_listening(
        self: Box<Self>,
        why: Option<Detail>,
        seat: Option<Owner<Landing>>,
        generation: Option<Generation>,
        stored: Option<Arc<StoredResponse>>,
    ) -> Step {
        // What one user is told says nothing of what all get.
        let listens = self.exchange.asked.method == Method::HEAD && self.exchange.class() == Class::Plain;
        let listening = seat.filter(|_| listens).map(|seat| Listening { seat, generation, stored });
        match self.alone(why) {
            Step::Pass(pass) => Step::Pass(Box::new(pass.listening(listening))),
            step => step,
        }
    }

    /// Which variant it is about, as far as anybody knows.
    fn variant(&self, known: Option<&Resource>) -> Option<u64> {
        if let Some(names) = &self.exchange.names {
            return self.variant_by(&Vary::Names(names.clone()));
        }
        if let Some(stale) = &self.stale {
            return lookup::variant(&stale.selecting);
        }
        let stored = known?.variants.first()?;
        self.variant_by(&stored.facts.vary)
    }

    fn variant_by(&self, vary: &Vary) -> Option<u64> {
        let headers = &self.exchange.asked.headers;
        lookup::variant(&rules::selecting_fields(vary, headers, self.exchange.normalize()))
    }

    /// Starts the fetch and waits for it.
    async fn own(mut self: Box<Self>, seat: Owner<Landing>) -> Step {
        // Somebody may have finished between our look into memory and our taking the seat, also when
        // it is the seat of a variant that was learned of only now. Bounded as attempts are.
        if self.filled_meanwhile() {
            drop(seat);
            return Step::Lookup(Box::new(self.exchange));
        }
        let (tell, told) = oneshot::channel();
        let fill = self.exchange.fill(self.want(), self.stale.clone(), seat, Some(tell));
        // Large, and moved several times on its way into a task.
        tokio::spawn(Box::pin(fill.run()));
        // The fetch has its time for all who come; an owner that has waited for another before has what is left of
        // its own. It leaves the fetch to the others then.
        let told = match self.exchange.waited.is_zero() {
            true => Ok(told.await),
            false => tokio::time::timeout(self.patience(), told).await,
        };
        match told {
            Ok(Ok(ForOwner { landing, times, looked })) => {
                self.note(times);
                self.learn(looked);
                self.landed_for_owner(landing, looked)
            }
            // The fill ended without a word, which only a panic in it can do.
            Ok(Err(_)) => self.fail(Failure::internal()),
            Err(_) => self.late(),
        }
    }

    /// Whether memory now holds something that it did not hold before.
    fn filled_meanwhile(&self) -> bool {
        let shared = &self.exchange.worker.shared;
        let Some(resource) = shared.memory.again(&self.exchange.key) else { return false };
        let now = self.exchange.worker.now();
        if self.stale.is_none() && lookup::known_uncacheable(&self.exchange, (&resource, now), None).is_some()
        {
            return true;
        }
        let normalize = self.exchange.normalize();
        let Some(stored) = resource.select(&self.exchange.asked.headers, normalize) else { return false };
        let Some(cache) = self.exchange.cache() else { return false };
        let new = self.stale.as_ref().is_none_or(|stale| !Arc::ptr_eq(stale, stored));
        new && !shared.purges.is_purged(stored) && self.exchange.is_led_to(&stored.key, &stored.facts) && {
            let now = (now, self.exchange.mono());
            let verdict = self.exchange.worker.reuse(stored, &self.exchange.asked.facts, &cache.policy, now);
            matches!(verdict, Reuse::Fresh(_) | Reuse::Stale { grace: Some(_), .. })
        }
    }

    fn note(&mut self, times: FillTimes) {
        let timeline = &mut self.exchange.report.timeline;
        let phases = [
            (Phase::Redis, times.redis),
            (Phase::Lease, times.lease),
            (Phase::Queue, times.queue),
            (Phase::Connect, times.connect),
            (Phase::Hedge, times.hedge),
            (Phase::FirstByte, times.first_byte),
        ];
        for (phase, time) in phases {
            if let Some(time) = time {
                timeline.add(phase, time);
            }
        }
    }

    /// Memory alone was looked into when the request set out; the shared tier may have known more of it.
    pub fn learn(&mut self, looked: Looked) {
        if self.stale.is_some() {
            return;
        }
        if looked != Looked::Nothing {
            self.exchange.report.cause = None;
        }
        match looked {
            Looked::Nothing => {}
            Looked::OtherVariant => self.miss = Miss::Vary,
            Looked::Partial => self.miss = Miss::Partial,
            Looked::Refused(_) => self.miss = Miss::Request,
            Looked::MustAsk(because) => {
                let (miss, detail) = lookup::asked(because);
                self.miss = miss;
                self.exchange.because_of(detail);
            }
        }
    }

    /// What had expired could have been confirmed, and the origin had another answer.
    fn confirmed_in_vain(&mut self) {
        let could_be = self.stale.as_ref().is_some_and(|stale| stale.facts.has_validator());
        if could_be && self.miss == Miss::Stale && self.exchange.report.cause.is_none() {
            self.exchange.report.cause = Some(Cause::Changed);
        }
    }

    fn landed_for_owner(mut self: Box<Self>, landing: OwnerLanding, looked: Looked) -> Step {
        match (landing, looked) {
            (OwnerLanding::Private(response, _), Looked::Refused(because)) if self.stale.is_none() => {
                let outcome = Outcome::new(Source::Bypass(lookup::refused(because)));
                Step::Deliver(Box::new(Deliver::private(self.exchange, *response, outcome)))
            }
            (OwnerLanding::Private(response, why), _) => {
                self.confirmed_in_vain();
                let outcome =
                    Outcome { detail: Some(Detail::NotStored(why)), ..self.exchange.missed(self.miss) };
                Step::Deliver(Box::new(Deliver::private(self.exchange, *response, outcome)))
            }
            (OwnerLanding::Shared(Landing::Fetched(fetched), Some(own)), _) => {
                self.fetched(fetched, own, false)
            }
            (OwnerLanding::Withdrawn(stored, own, why), _) => self.withdrawn(stored, own, why),
            (OwnerLanding::Revalidated(stored, own), _) => self.revalidated(stored, own),
            (OwnerLanding::Shared(landing, _), _) => self.landed(landing, false),
        }
    }

    async fn visit(mut self: Box<Self>, guest: Guest<Landing>) -> Step {
        let (began, waits) = (self.exchange.mono(), !guest.is_told());
        let landing = tokio::time::timeout(self.patience(), guest.wait()).await;
        self.exchange.report.mark(Phase::Wait, began);
        self.exchange.waited += self.exchange.mono().since(began);
        match landing {
            Ok(Ok(landing)) => self.landed_for_guest(landing, waits),
            Ok(Err(_)) => Step::Lookup(Box::new(self.exchange)),
            Err(_) => self.late(),
        }
    }

    /// What is left of the time that it may take, however many flights it waits for.
    fn patience(&self) -> Duration {
        let upstream = self.exchange.snapshot.upstream(self.exchange.route);
        upstream.map(|upstream| upstream.patience(self.exchange.waited)).unwrap_or_default()
    }

    /// No time is left to ask for itself: what is stored stands in, or it is told so.
    fn late(self: Box<Self>) -> Step {
        Box::new(Pass::missing(self.exchange, self.miss).or_stale(self.stale)).late()
    }

    /// `waited`: the fetch was under way when it sat down.
    fn landed_for_guest(mut self: Box<Self>, landing: Landing, waited: bool) -> Step {
        if !self.is_ours(&landing) {
            return self.alone(None);
        }
        match landing {
            Landing::Fetched(fetched) => {
                // A purge that came before this request and after the fetch began.
                if self.judged(&fetched.key, &fetched.facts, &fetched.standing) != Verdict::Stands {
                    return self.purged(&fetched.standing);
                }
                let (headers, normalize) = (&self.exchange.asked.headers, self.exchange.normalize());
                if !fetched.selecting.matches(&fetched.facts, headers, normalize) {
                    self.exchange.names = Some(fetched.selecting.names().cloned().collect());
                    return Step::Lookup(Box::new(self.exchange));
                }
                // §4: a response that is on its way may answer other requests only if it may be
                // reused for them; one that must be validated may not.
                if !self.reusable(&fetched.facts) {
                    return self.alone(None);
                }
                if fetched.status == StatusCode::PARTIAL_CONTENT && !self.wants_part(&fetched) {
                    return self.alone(Some(lookup::RANGE));
                }
                if !transform::reads(&self.exchange.asked, &fetched) {
                    return self.alone(Some(transform::CODING));
                }
                match fetched.body.reader() {
                    Some(reader) => self.fetched(fetched, Own { reader, withheld: HeaderMap::new() }, true),
                    None => self.alone(Some(Detail::NotStored(NotStored::TooLarge))),
                }
            }
            Landing::Found(stored) | Landing::Revalidated(stored) | Landing::StaleIfError(stored, _)
                if self.judged(&stored.key, &stored.facts, &stored.standing) == Verdict::Void =>
            {
                self.purged(&stored.standing)
            }
            // That the origin has failed is remembered for a moment (`fill/failing`): nobody asks it meanwhile.
            Landing::StaleIfError(stored, status) if !waited => {
                let outcome = Outcome::new(Source::StaleAfterError);
                self.stands_in(stored, OriginFailure::of(status), outcome)
            }
            landing => self.landed(landing, true),
        }
    }

    /// What landed began before a purge that came before this request: it waits for what begins now, with all others of
    /// whom that is true. Else a purge of what many ask for would send each of them to the origin, as long as one fetch of
    /// it took.
    fn purged(mut self: Box<Self>, standing: &Standing) -> Step {
        self.exchange.because(Detail::Purged);
        self.exchange.after = match standing.born() {
            Born::Here(seen) => seen.saturating_add(1),
            Born::Elsewhere(_) => u64::MAX,
        };
        Step::Lookup(Box::new(self.exchange))
    }

    /// Whether a part that another asked for is just what this request asks for: its range, and no other
    /// representation by its `If-Range` (RFC 9110 §13.1.5).
    fn wants_part(&self, fetched: &Fetched) -> bool {
        let asked = &self.exchange.asked;
        let same = matches!((&asked.facts.ranges, fetched.part), (Some(Ranges::One(a)), Some(b)) if *a == b);
        same && rules::if_range_holds(&asked.headers, &fetched.facts)
    }

    /// Flights are told apart by hashes; like what is stored, what lands is compared by the key's text.
    fn is_ours(&self, landing: &Landing) -> bool {
        let (key, facts) = match landing {
            Landing::Fetched(fetched) => (&fetched.key, &fetched.facts),
            Landing::Found(stored) | Landing::Revalidated(stored) | Landing::StaleIfError(stored, _) => {
                (&stored.key, &stored.facts)
            }
            Landing::NotStorable(_) | Landing::Failed(_) => return true,
        };
        self.exchange.is_led_to(key, facts)
    }

    /// By the key of what landed, which may be another than was asked for (`Filling::rekey`).
    fn judged(&self, key: &CacheKey, facts: &ResponseFacts, standing: &Standing) -> Verdict {
        self.exchange.worker.shared.purges.judge(key, facts, standing)
    }

    fn reusable(&self, facts: &ResponseFacts) -> bool {
        let now = self.exchange.worker.now();
        self.exchange.cache().is_some_and(|cache| {
            // As whoever comes a moment later is given it: by the route's word or the origin's it may be stale.
            matches!(
                rules::reuse::judge(&self.exchange.asked.facts, facts, &cache.policy, now),
                Reuse::Fresh(_) | Reuse::Stale { grace: Some(_), .. }
            )
        })
    }

    /// What owners and guests do alike.
    fn landed(self: Box<Self>, landing: Landing, collapsed: bool) -> Step {
        match landing {
            Landing::Found(stored) => self.found(stored, collapsed),
            Landing::Revalidated(stored) => {
                let source = Source::Revalidated(self.miss);
                self.reuse(stored, source, None, collapsed)
            }
            Landing::StaleIfError(stored, status) => {
                let outcome = Outcome { fwd_status: status, collapsed, ..Outcome::new(Source::StaleIfError) };
                self.stands_in(stored, OriginFailure::of(status), outcome)
            }
            Landing::NotStorable(why) => self.alone(Some(Detail::NotStored(why))),
            Landing::Failed(error) => {
                let max = self.exchange.max_body();
                self.fail(Failure::forward(&error, max))
            }
            // A body that nobody can read any more.
            Landing::Fetched(_) => self.alone(None),
        }
    }

    fn fetched(mut self: Box<Self>, fetched: Arc<Fetched>, own: Own, collapsed: bool) -> Step {
        self.confirmed_in_vain();
        let now = self.exchange.worker.now();
        let asked = &self.exchange.asked.facts;
        let ttl = self.exchange.cache().map(|cache| rules::ttl(asked, &fetched.facts, &cache.policy, now));
        let missed = self.exchange.missed(self.miss);
        let unkept = (!fetched.kept).then_some(Detail::NotStored(NotStored::InFlightLimit));
        let detail = unkept.or(missed.detail).or(fetched.displaces.then_some(Detail::VariantsCapped));
        let outcome = Outcome { stored: fetched.kept, collapsed, ttl, detail, ..missed };
        Step::Deliver(Box::new(Deliver::growing(self.exchange, fetched, own, outcome)))
    }

    /// The shared tier had it.
    fn found(self: Box<Self>, stored: Arc<StoredResponse>, collapsed: bool) -> Step {
        let grace = Some(Source::StaleWhileRevalidate(Tier::Redis));
        self.reuse(stored, Source::Hit(Tier::Redis), grace, collapsed)
    }

    /// Serves what landed if the rules allow it for this request: as `fresh`, or past its lifetime as
    /// `grace` where there is such a word.
    fn reuse(
        self: Box<Self>,
        stored: Arc<StoredResponse>,
        fresh: Source,
        grace: Option<Source>,
        collapsed: bool,
    ) -> Step {
        let now = self.exchange.worker.now();
        let Some(cache) = self.exchange.cache() else { return self.alone(None) };
        if !stored.is_for(&self.exchange.asked.headers, self.exchange.normalize()) {
            return Step::Lookup(Box::new(self.exchange));
        }
        // Whoever fetched it has asked whether it may have been purged.
        let verdict = stored.reuse(&self.exchange.asked.facts, &cache.policy, now);
        match (verdict, grace) {
            (Reuse::Fresh(reusable), _) => self.serve(stored, reusable, fresh, collapsed),
            (Reuse::Stale { grace: Some(reusable), .. }, Some(grace)) => {
                self.serve(stored, reusable, grace, collapsed)
            }
            _ => self.alone(None),
        }
    }

    /// Owner only: the same, and it is not kept any longer.
    fn withdrawn(mut self: Box<Self>, stored: Arc<StoredResponse>, own: HeaderMap, why: NotStored) -> Step {
        self.exchange.detail = Some(Detail::NotStored(why));
        self.revalidated(stored, own)
    }

    /// Owner only: the origin has just confirmed it for this very request, with fields for it alone.
    fn revalidated(mut self: Box<Self>, stored: Arc<StoredResponse>, own: HeaderMap) -> Step {
        self.exchange.own = (!own.is_empty()).then(|| Box::new(own));
        let now = self.exchange.worker.now();
        let Some(cache) = self.exchange.cache() else { return self.alone(None) };
        let reusable = rules::after_validation(&stored.facts, &cache.policy, now);
        let source = Source::Revalidated(self.miss);
        self.serve(stored, reusable, source, false)
    }

    /// Serves what is stored in place of an origin that has failed, where the rules allow it for this request.
    fn stands_in(
        self: Box<Self>,
        stored: Arc<StoredResponse>,
        failure: OriginFailure,
        outcome: Outcome,
    ) -> Step {
        let now = self.exchange.worker.now();
        let Some(cache) = self.exchange.cache() else { return self.alone(None) };
        let asked = &self.exchange.asked;
        let matches = stored.is_for(&asked.headers, self.exchange.normalize());
        let cut = stored.cut(&asked.facts, &asked.headers);
        match stored.on_error(&asked.facts, &cache.policy, now, failure).zip(cut) {
            Some((reusable, cut)) if matches => {
                let outcome = Outcome { ttl: Some(reusable.ttl()), ..outcome };
                transform::deliver(self.exchange, stored, cut, reusable, outcome)
            }
            _ => self.alone(None),
        }
    }

    fn serve(
        self: Box<Self>,
        stored: Arc<StoredResponse>,
        reusable: Reusable,
        source: Source,
        collapsed: bool,
    ) -> Step {
        let asked = &self.exchange.asked;
        // Not all that it asks for is there.
        let Some(cut) = stored.cut(&asked.facts, &asked.headers) else {
            return self.alone(Some(lookup::RANGE));
        };
        let forwarded = matches!(source, Source::Revalidated(_));
        let outcome = Outcome {
            ttl: Some(reusable.ttl()),
            // RFC 9211 §2.6: only a forwarded request can have been collapsed.
            collapsed: collapsed && forwarded,
            fwd_status: forwarded.then_some(304),
            stored: forwarded && !matches!(self.exchange.detail, Some(Detail::NotStored(_))),
            // Why the origin was asked; a tier that answers by itself has nothing to excuse.
            detail: self.exchange.detail.filter(|_| forwarded),
            ..Outcome::new(source)
        };
        transform::deliver(self.exchange, stored, cut, reusable, outcome)
    }

    /// Goes to the origin on its own account.
    fn alone(mut self: Box<Self>, detail: Option<Detail>) -> Step {
        if self.exchange.asked.facts.directives.only_if_cached {
            return lookup::only_if_cached(Box::new(self.exchange));
        }
        self.exchange.because_of(detail);
        Step::Pass(Box::new(Pass::missing(self.exchange, self.miss).or_stale(self.stale)))
    }

    fn fail(self: Box<Self>, failure: Failure) -> Step {
        let Exchange { worker, snapshot, report, .. } = self.exchange;
        Step::Deliver(Box::new(Deliver::failure(
            &worker,
            &snapshot,
            report,
            Source::Failed(self.miss),
            failure,
        )))
    }
}
