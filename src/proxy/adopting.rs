//! What a pass brings for the cache: the answer to a POST that is a representation of its target, and
//! news by HEAD of what is stored.
//!
//! Knows when such an answer may be used. Purging is by numbers (`worker/forget`): both hold a seat from
//! before they are sent, so that every purge of the URL that comes meanwhile leaves its note, and a POST
//! is adopted only if there is none but its own.
//! Must not know: how anything is kept, or delivered.
//!
//! Cancellation: a client that leaves drops the future; what a POST brings is then not adopted, or is
//! kept by a task of its own.

use std::sync::Arc;

use http::{Method, Response, StatusCode};
use tokio::sync::oneshot;

use crate::clock::Timestamp;
use crate::fill::{Adopted, Heard, Hearing, Want};
use crate::flight::{FlightKey, Owner};
use crate::rules::{self, Cookies, Exchanged, NotStored, ResponseFacts, Storable};
use crate::store::Generation;
use crate::stored::{Born, Position, StoredResponse};
use crate::upstream::OriginBody;
use crate::worker::{ForOwner, Forgotten, Landing, OwnerLanding};

use super::exchange::Exchange;
use super::receive::{host_of, means_another, strays};

/// When a pass was sent, by the clock and by the purges.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub at: Timestamp,
    pub seq: u64,
    /// How far the fleet's log had been read.
    pub read: Option<Position>,
}

impl Sent {
    pub fn now(exchange: &Exchange) -> Self {
        let purges = &exchange.worker.shared.purges;
        Self { at: exchange.worker.now(), seq: purges.seq(), read: purges.position() }
    }
}

/// The seat that a POST holds while it is under way, if its answer may be kept; gone where another holds
/// it, whose answer is as good.
pub(super) fn seat(exchange: &Exchange) -> Option<Owner<Landing>> {
    if exchange.asked.method != Method::POST || exchange.content.is_some() {
        return None;
    }
    let policy = &exchange.cache()?.policy;
    let asked = &exchange.asked;
    // What would have led a GET past the cache leads a POST's answer past it, too.
    let bypasses = asked.facts.has_cookie && policy.cookies == Cookies::Bypass
        || strays(asked, &exchange.snapshot.config, exchange.route).is_some()
        // A GET would have come to the origin without it.
        || means_another(&asked.headers);
    if bypasses || is_other_route(exchange) {
        return None;
    }
    // A lane of its own: no GET waits for it.
    let lane = FlightKey { key: exchange.key.hash(), lane: u64::MAX - 2 };
    exchange.worker.shared.flights.join_if_free(lane)
}

/// What a HEAD needs to tell the cache what it brings.
pub(super) struct Listening {
    pub seat: Owner<Landing>,
    pub generation: Option<Generation>,
    /// What the shared tier has; memory may have it, too.
    pub stored: Option<Arc<StoredResponse>>,
}

/// A POST's answer that may be kept once what it makes void has been forgotten.
pub(super) struct Adoptable {
    permit: Storable,
    seat: Owner<Landing>,
    response_time: Timestamp,
}

/// RFC 9110 §9.3.3: whether the answer to a POST may serve later GETs. If not, its seat is given up here,
/// so that its own purge sees that nothing flies.
pub(super) fn adoptable(
    exchange: &Exchange,
    response: &Response<OriginBody>,
    sent: Option<Sent>,
    seat: Option<Owner<Landing>>,
) -> Option<Adoptable> {
    let (asked, (seat, sent)) = (&exchange.asked, seat.zip(sent)?);
    if response.status() != StatusCode::OK {
        return None;
    }
    let policy = &exchange.cache()?.policy;
    let target = asked.target.as_str();
    if !rules::names_itself(asked.scheme, &asked.authority, target, response.headers()) {
        return None;
    }
    let response_time = exchange.worker.now();
    let facts = ResponseFacts::of(200, response.headers(), sent.at, response_time);
    let permit = rules::storing::judge_post(&asked.facts, &facts, policy).ok()?;
    let seen = Exchanged { target, asked: &asked.headers, answer: response.headers() };
    rules::guard(&seen, &facts, policy).ok()?;
    if exchange.worker.shared.doubts.is_quarantined(exchange.key.hash(), response_time) {
        return None;
    }
    Some(Adoptable { permit, seat, response_time })
}

/// A GET of the same URL may be another route's, with another key.
fn is_other_route(exchange: &Exchange) -> bool {
    let asked = &exchange.asked;
    let host = host_of(&asked.authority);
    exchange.snapshot.config.route(&Method::GET, host, asked.target.path()) != Some(exchange.route)
}

/// Hands the answer over to be kept; gives it back as what is delivered, or as it came.
pub(super) async fn adopt(
    exchange: &Exchange,
    adoptable: Adoptable,
    response: Response<OriginBody>,
    sent: Sent,
    forgotten: &[Forgotten],
) -> Result<OwnerLanding, Response<OriginBody>> {
    let Adoptable { permit, seat, response_time } = adoptable;
    let is_own = |forgotten: &&Forgotten| forgotten.key.url_hash() == exchange.key.url_hash();
    // One that came between was a write's that may have been later than this one.
    let alone =
        |own: &&Forgotten| own.before <= sent.seq && !exchange.worker.shared.purges.others_since(sent.seq);
    let Some(own) = forgotten.iter().find(is_own).filter(alone) else { return Err(response) };
    let generation = own.redis.as_ref().and_then(|told| told.as_ref().ok().copied().flatten());
    let born = Born::Here(own.seq);
    let (tell, told) = oneshot::channel();
    let fill = exchange.fill(Want::Whole, None, seat, Some(tell));
    let request_time = sent.at;
    let adopted =
        Adopted { response, request_time, response_time, permit, born, read: sent.read, generation };
    tokio::spawn(Box::pin(fill.adopt(adopted)));
    match told.await {
        Ok(ForOwner { landing, .. }) => Ok(landing),
        // The task ended without a word, which only a panic in it can do.
        Err(_) => Ok(OwnerLanding::Shared(Landing::NotStorable(NotStored::Method), None)),
    }
}

/// RFC 9111 §4.3.5: a 200 to a HEAD freshens what is stored, or shows that it is another by now.
pub(super) async fn hear(
    exchange: &Exchange,
    listening: Listening,
    response: &Response<OriginBody>,
    sent: Sent,
) {
    if response.status() != StatusCode::OK {
        return;
    }
    let Listening { seat, generation, stored } = listening;
    let facts = ResponseFacts::of(200, response.headers(), sent.at, exchange.worker.now());
    let (shared, normalize) = (&exchange.worker.shared, exchange.normalize());
    let resource = shared.memory.peek(&exchange.key);
    let here: Vec<_> = resource.iter().flat_map(|resource| resource.variants.iter().cloned()).collect();
    // What both tiers have is freshened once.
    let there = stored.filter(|stored| !here.iter().any(|here| here.selecting == stored.selecting));
    // "each of its stored GET responses that could have been chosen for that request"
    let chosen: Vec<_> = here
        .into_iter()
        .chain(there)
        .filter(|stored| {
            stored.is_for(&exchange.asked.headers, normalize)
                && exchange.is_led_to(&stored.key, &stored.facts)
                && !shared.purges.is_purged(stored)
        })
        .filter(|stored| matches!(stored.facts.status, 200 | 206))
        .collect();
    let (born, read) = (Born::Here(sent.seq), sent.read);
    let heard = Heard { headers: response.headers(), facts: &facts, born, read, generation };
    let fill = exchange.fill(Want::Whole, None, seat, None);
    if fill.hear(&chosen, &heard) == Hearing::Differs {
        let url = exchange.key.url().to_owned();
        if let Some(forgetting) = exchange.worker.forget(&exchange.snapshot, &url) {
            let _queued_if_it_failed = forgetting.await;
        }
    }
}
