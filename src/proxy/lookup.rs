//! What memory holds for a request, and what that means.
//!
//! No await, no I/O: a memory hit goes from here straight to delivery.
//! Must not know: how a fetch is made, or what is sent.

use std::sync::Arc;

use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use crate::clock::{Mono, Timestamp};
use crate::fill::{Fill, Want, verify};
use crate::flight::FlightKey;
use crate::rules::{MustAsk, NotStored, Reusable, Reuse, SelectingFields};
use crate::store::{Class, Resource};
use crate::stored::{Cut, StoredResponse};
use crate::telemetry::{Bypass, Cause, Detail, Miss, Outcome, Phase, Source, Tier};
use crate::worker::Asked;

use super::Step;
use super::deliver::Deliver;
use super::exchange::Exchange;
use super::failure::Failure;
use super::pass::Pass;
use super::transform;
use super::wait::Wait;

/// Looks the request up in memory.
pub(super) fn lookup(mut exchange: Box<Exchange>) -> Step {
    // As of a hit that is answered where it is read: the look has begun with the request.
    let began = if exchange.seen.is_some() { exchange.report.timeline.start() } else { exchange.mono() };
    exchange.report.cause = None;
    let resource = resource(&mut exchange);
    let decision = decide(&mut exchange, resource.as_ref(), began);
    exchange.report.mark(Phase::Memory, began);
    let now = exchange.wall(began);
    act(exchange, decision, (resource.as_ref(), now))
}

/// What to do by what memory holds. To decide has no effect; [`act`] does it.
pub(super) enum Decision {
    /// It answers.
    Fresh(Arc<StoredResponse>, Cut, Reusable),
    /// It answers, and is refreshed.
    InGrace(Arc<StoredResponse>, Cut, Reusable),
    /// A fetch has to be waited for, unless none is worth it.
    Ask(Miss, Option<Arc<StoredResponse>>),
    /// The request goes on alone.
    Alone(Miss),
    /// It is none for this cache.
    Bypass(Bypass),
}

/// What memory holds under the request's key; or under its very URL, if nothing is there that is the
/// same for several queries.
fn resource(exchange: &mut Exchange) -> Option<Resource> {
    let memory = &exchange.worker.shared.memory;
    let again = exchange.attempts > 0;
    // Under another key nothing has been seen.
    let seen = exchange.seen.take().filter(|_| exchange.exact.is_none());
    let resource = match seen {
        Some(seen) => {
            memory.looked();
            seen
        }
        None if again => memory.peek(&exchange.key),
        None => memory.find(&exchange.key),
    };
    led_to(exchange, resource)
}

/// Of what memory holds under the request's key, what is for it; or what there is under its very URL.
pub(super) fn led_to(exchange: &mut Exchange, resource: Option<Resource>) -> Option<Resource> {
    let memory = &exchange.worker.shared.memory;
    let Some(exact) = &exchange.exact else { return resource };
    let (headers, normalize) = (&exchange.asked.headers, exchange.normalize());
    let of_this = |stored: &Arc<StoredResponse>| exchange.is_led_to(&stored.key, &stored.facts);
    let purges = &exchange.worker.shared.purges;
    let answers = |resource: &Resource| {
        let stored = resource.select(headers, normalize);
        stored.is_some_and(|stored| of_this(stored) && !purges.is_purged(stored))
    };
    if resource.as_ref().is_some_and(answers) {
        return resource;
    }
    let resource = resource.filter(|resource| resource.select(headers, normalize).is_none_or(of_this));
    let nothing = resource.as_ref().is_none_or(|resource| resource.variants.is_empty());
    // What was purged of several queries, or is another variant, does not hide what is of this URL alone.
    let of_the_url = memory.peek(exact).filter(|resource| !resource.variants.is_empty());
    match of_the_url.filter(|of_the_url| nothing || answers(of_the_url)) {
        Some(of_the_url) => {
            exchange.key = of_the_url.key().clone();
            exchange.exact = None;
            Some(of_the_url)
        }
        None => resource,
    }
}

/// What a look into memory gives.
enum Found {
    Stored(Arc<StoredResponse>),
    Nothing(Miss),
}

fn found(exchange: &mut Exchange, resource: Option<&Resource>) -> Found {
    let Some(resource) = resource else {
        // What it has waited for was purged, and never was here.
        let why_absent = || exchange.worker.shared.memory.why_absent(&exchange.key);
        exchange.report.cause = Some(if exchange.after > 0 { Cause::Purged } else { why_absent() });
        return Found::Nothing(Miss::Uri);
    };
    match resource.select(&exchange.asked.headers, exchange.normalize()) {
        Some(stored) if exchange.worker.shared.purges.is_purged(stored) => {
            exchange.because(Detail::Purged);
            Found::Nothing(Miss::Uri)
        }
        Some(stored) => Found::Stored(Arc::clone(stored)),
        None if resource.variants.is_empty() => Found::Nothing(Miss::Uri),
        None => Found::Nothing(Miss::Vary),
    }
}

/// What is to be done by what memory holds for the request, at `began`.
#[inline]
pub(super) fn decide(exchange: &mut Exchange, resource: Option<&Resource>, began: Mono) -> Decision {
    let stored = match found(exchange, resource) {
        Found::Stored(stored) => stored,
        Found::Nothing(miss) => return absent(exchange, miss),
    };
    let now = exchange.wall(began);
    let Some(cache) = exchange.cache() else { return absent(exchange, Miss::Uri) };
    let verdict = exchange.worker.reuse(&stored, &exchange.asked.facts, &cache.policy, (now, began));
    let cut = stored.cut(&exchange.asked.facts, &exchange.asked.headers);
    match (verdict, cut) {
        // If-Match and If-Unmodified-Since are the origin's to judge (RFC 9110 §13.1).
        _ if exchange.asked.facts.has_precondition() => Decision::Alone(Miss::Request),
        (Reuse::Fresh(reusable), Some(cut)) => Decision::Fresh(stored, cut, reusable),
        (Reuse::Stale { grace: Some(reusable), .. }, Some(cut)) => Decision::InGrace(stored, cut, reusable),
        // §3.3: what is missing has to be fetched first.
        (Reuse::Fresh(_) | Reuse::Stale { grace: Some(_), .. }, None) => {
            Decision::Ask(Miss::Partial, Some(stored))
        }
        (Reuse::Stale { grace: None, because }, _) => {
            let (miss, detail) = asked(because);
            exchange.because_of(detail);
            Decision::Ask(miss, Some(stored))
        }
        (Reuse::Refused(because), _) => Decision::Bypass(refused(because)),
    }
}

fn absent(exchange: &Exchange, miss: Miss) -> Decision {
    match exchange.asked.facts.has_precondition() {
        true => Decision::Alone(miss),
        false => Decision::Ask(miss, None),
    }
}

fn act(exchange: Box<Exchange>, decision: Decision, (resource, now): (Option<&Resource>, Timestamp)) -> Step {
    match decision {
        Decision::Fresh(stored, cut, reusable) => {
            let Exchange { worker, snapshot, route, asked, .. } = &*exchange;
            verify::sample(worker, snapshot, *route, asked, &stored);
            hit(exchange, stored, cut, reusable, Source::Hit(Tier::Memory))
        }
        Decision::InGrace(stored, cut, reusable) => {
            refresh(&exchange, &stored, resource);
            hit(exchange, stored, cut, reusable, Source::StaleWhileRevalidate(Tier::Memory))
        }
        Decision::Ask(miss, stale) => ask(exchange, miss, stale, (resource, now)),
        Decision::Alone(miss) => forward(exchange, |exchange| Pass::missing(exchange, miss)),
        Decision::Bypass(why) => forward(exchange, |exchange| Pass::bypassing(exchange, why, None)),
    }
}

/// What is stored is not for this request: it is as if the cache were not.
pub(super) fn refused(because: MustAsk) -> Bypass {
    if because == MustAsk::Cookie { Bypass::Cookie } else { Bypass::Authorization }
}

/// What it is called that the origin has to be asked, and the word for why where it is not plain.
pub(super) fn asked(because: MustAsk) -> (Miss, Option<Detail>) {
    let miss = match because {
        MustAsk::Stale | MustAsk::NoCache | MustAsk::Purged | MustAsk::Unheard => Miss::Stale,
        _ => Miss::Request,
    };
    (miss, (because != MustAsk::Stale).then_some(Detail::MustAsk(because)))
}

fn hit(
    exchange: Box<Exchange>,
    stored: Arc<StoredResponse>,
    cut: Cut,
    reusable: Reusable,
    source: Source,
) -> Step {
    if !transform::can_read(&exchange, &stored) {
        return transform::elsewhere(*exchange);
    }
    let shared = &exchange.worker.shared;
    shared.hot.hit(shared.memory.answered(), stored.key.hash());
    let outcome = Outcome { ttl: Some(reusable.ttl()), ..Outcome::new(source) };
    transform::deliver(*exchange, stored, cut, reusable, outcome)
}

/// What to do where memory alone cannot answer.
pub(super) enum Asking {
    /// Nobody may be asked: RFC 9111 §5.2.1.7.
    Nobody,
    /// Go alone: waiting is not worth it.
    Alone(NotStored),
    /// Wait for a fetch.
    Wait,
}

/// What to do where memory alone, which holds this now, cannot answer: to tell has no effect.
pub(super) fn asking(
    exchange: &Exchange,
    stale: Option<&StoredResponse>,
    (resource, now): (Option<&Resource>, Timestamp),
) -> Asking {
    if exchange.asked.facts.directives.only_if_cached && exchange.worker.redis.is_none() {
        return Asking::Nobody;
    }
    match resource.and_then(|resource| known_uncacheable(exchange, (resource, now), stale)) {
        Some(why) => Asking::Alone(why),
        None => Asking::Wait,
    }
}

fn ask(
    mut exchange: Box<Exchange>,
    miss: Miss,
    stale: Option<Arc<StoredResponse>>,
    resource: (Option<&Resource>, Timestamp),
) -> Step {
    match asking(&exchange, stale.as_deref(), resource) {
        Asking::Nobody => only_if_cached(exchange),
        Asking::Alone(why) => {
            exchange.because(Detail::HitForMiss(why));
            forward(exchange, |exchange| Pass::missing(exchange, miss))
        }
        Asking::Wait => Step::Wait(Box::new(Wait { exchange: *exchange, miss, stale })),
    }
}

/// Why it is known not to be worth a fetch for all.
pub(super) fn known_uncacheable(
    exchange: &Exchange,
    (resource, now): (&Resource, Timestamp),
    stale: Option<&StoredResponse>,
) -> Option<NotStored> {
    let marked = resource.marked(exchange.class(), now)?;
    // What is too large as a whole may be kept in parts.
    let in_parts = || matches!(exchange.want(stale), Want::Part(_));
    (marked != NotStored::TooLarge || !in_parts()).then_some(marked)
}

/// To the origin, for this client alone, unless the client wants nothing from there.
fn forward(exchange: Box<Exchange>, pass: impl FnOnce(Exchange) -> Pass) -> Step {
    if exchange.asked.facts.directives.only_if_cached {
        return only_if_cached(exchange);
    }
    Step::Pass(Box::new(pass(*exchange)))
}

/// RFC 9111 §5.2.1.7: a stored response, or a 504.
pub(super) fn only_if_cached(exchange: Box<Exchange>) -> Step {
    let Exchange { worker, snapshot, report, .. } = *exchange;
    Step::Deliver(Box::new(Deliver::refusal(&worker, &snapshot, report, Failure::only_if_cached())))
}

/// Starts a refresh behind the client's back, unless one flies or the key is known not to be worth it.
pub(super) fn refresh(exchange: &Exchange, stored: &Arc<StoredResponse>, resource: Option<&Resource>) {
    let (asked, class) = match exchange.for_all(stored) {
        Some((asked, class)) => (Arc::new(asked), class),
        None => (Arc::clone(&exchange.asked), exchange.class()),
    };
    let is_marked = |known: &Resource| known.marked(class, exchange.worker.now()).is_some();
    if resource.is_some_and(is_marked) {
        return;
    }
    let want = exchange.want(Some(stored));
    let flight = lane(exchange, class, variant(&stored.selecting), want);
    let Some(seat) = exchange.worker.shared.flights.join_if_free(flight) else { return };
    // One may have ended between the look into memory that found this and our taking the seat. What it brought is
    // for the next request to judge.
    let latest = exchange.worker.shared.memory.again(&exchange.key);
    if latest.is_some_and(|latest| is_marked(&latest) || is_succeeded(exchange, stored, &latest)) {
        return;
    }
    let lane = lane(exchange, class, None, want).lane;
    let fill = Fill { asked, class, lane, ..exchange.fill(want, Some(Arc::clone(stored)), seat, None) };
    tokio::spawn(Box::pin(fill.run()));
}

/// Whether something else than what was found for the request has taken its place.
fn is_succeeded(exchange: &Exchange, found: &Arc<StoredResponse>, latest: &Resource) -> bool {
    let held = latest.select(&exchange.asked.headers, exchange.normalize());
    held.is_some_and(|held| !Arc::ptr_eq(held, found))
}

/// The flight that this request may share: same key, same variant, same range, same kind of
/// credentials, and the same choices by fields that may not be among those that are known to select a variant: what
/// is fetched by one of them is likely not for those without.
pub(super) fn lane(exchange: &Exchange, class: Class, variant: Option<u64>, want: Want) -> FlightKey {
    let chosen = if class.chooses() { chosen(&exchange.asked) } else { 0 };
    let class = u64::from(class.has_credentials());
    let variant = variant.unwrap_or(0) ^ chosen;
    let lane = match want {
        Want::Whole => variant,
        Want::Part(range) => xxh3_64_with_seed(range.to_string().as_bytes(), variant),
    };
    FlightKey { key: exchange.key.hash(), lane: (lane & !1) | class }
}

/// What a request chose by fields of its own.
fn chosen(asked: &Asked) -> u64 {
    let mut hash = Xxh3::new();
    for name in &asked.facts.chosen_by {
        hash.update(name.as_str().as_bytes());
        for value in asked.headers.get_all(name) {
            hash.update(b"\0");
            hash.update(value.as_bytes());
        }
        hash.update(b"\n");
    }
    hash.digest()
}

/// A flight that nobody shares: a look into the shared tier by a request that cannot fill. Its lane is
/// one of many that variants may have by chance; who met it there would find it abandoned, and look
/// again.
pub(super) fn look(exchange: &Exchange) -> FlightKey {
    FlightKey { key: exchange.key.hash(), lane: u64::MAX }
}

/// The variant that selecting fields name; none where there are no such fields, as before the first
/// answer: both are the same flight.
pub(super) fn variant(selecting: &SelectingFields) -> Option<u64> {
    selecting.names().next().map(|_| selecting.hash())
}

/// Why a request with a range goes to the origin alone: what is fetched for all is the whole.
pub(super) const RANGE: Detail = Detail::NotStored(NotStored::Range);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use bytes::Bytes;
    use http::Method;

    use super::super::explain::{Thought, received};
    use super::*;
    use crate::store::Marked;
    use crate::stored::Born;
    use crate::stored::samples::{fields, key, plain};
    use crate::worker::tests::worker;

    #[tokio::test]
    async fn what_was_refreshed_between_the_look_and_the_seat_is_not_fetched_again() {
        let here = Arc::new(worker("", "").await);
        let (memory, purges) = (&here.shared.memory, &here.shared.purges);
        let thought = Thought {
            method: Method::GET,
            target: "/a".parse().unwrap(),
            headers: fields(&[("host", "test")]),
            body: Bytes::new(),
            from: Ipv4Addr::LOCALHOST.into(),
        };
        let snapshot = here.shared.snapshot.load_full();
        let asking = || received(&here, &snapshot, &thought).expect("it is looked up");
        // A task that has been started does not run before this one waits, so its seat is taken still.
        let refreshes = |found: &Arc<StoredResponse>| {
            let exchange = asking();
            let seen = memory.again(&exchange.key);
            let before = here.shared.flights.len();
            refresh(&exchange, found, seen.as_ref());
            here.shared.flights.len() > before
        };
        let born = Born::Here(purges.seq());
        let found = plain("/a", b"1", born);
        memory.keep(plain("/a", b"2", born), Class::Plain, purges);
        assert!(!refreshes(&found), "another has taken its place");
        memory.keep(Arc::clone(&found), Class::Plain, purges);
        let until = here.now().saturating_add(std::time::Duration::from_secs(60));
        let marked = asking();
        memory.mark(&key("/a"), Class::Plain, NotStored::NoStore, Marked::Uncacheable, until);
        refresh(&marked, &found, None);
        assert!(here.shared.flights.is_empty(), "it is known by now not to be worth it");
        memory.remove(&key("/a"));
        memory.keep(Arc::clone(&found), Class::Plain, purges);
        assert!(refreshes(&found), "nothing has changed");
        assert!(!refreshes(&found), "one flies");
    }
}
