//! Keeps what the origin sent: a new response, or the news that a stored one still holds.
//!
//! Knows the order in which tiers, waiters and body are served.
//! Must not know: why a response may be kept (it holds the permit).

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::Body;
use http_body_util::BodyExt;

use crate::clock::Timestamp;
use crate::fields::{date, hop};
use crate::flight::{Growing, Room, Writer};
use crate::rules::{self, NotStored, ResponseFacts, Storable};
use crate::store::Reserved;
use crate::stored::{Received, StoredResponse};
use crate::upstream::OriginBody;
use crate::worker::{Fetched, ForOwner, Landing, Own, OwnerLanding};

use super::judge::{content_length, facts_of};
use super::{Answer, Filling};

/// A 304: both tiers get the stored response with the fields that the 304 brought (§4.3.4).
///
/// It may also have brought a word that forbids keeping it. The owner, whose request was validated,
/// gets it all the same; nobody else does.
pub(super) fn confirmed(mut filling: Filling, answer: Answer) {
    let Some(stale) = filling.fill.stale.take() else { return };
    let mut headers = rules::freshen(&stale.headers, answer.response.headers());
    ensure_date(&mut headers, answer.response_time);
    let status = stale.status.as_u16();
    let facts = ResponseFacts::of(status, &headers, answer.request_time, answer.response_time);
    // The 304 may have named other fields in Vary.
    let selecting = rules::selecting_fields(&facts.vary, &filling.fill.asked.headers);
    match rules::storing::judge(&filling.fill.asked.facts, &facts, &filling.cache.policy) {
        Ok(permit) => {
            let headers = rules::stored_fields(&headers, &permit);
            let fresh = Arc::new(stale.freshened(&headers, facts, selecting, filling.born));
            filling.promote(&fresh);
            filling.write_behind(&fresh);
            filling.tell(Landing::Revalidated(fresh));
        }
        Err(why) => {
            let last = Arc::new(stale.freshened(&headers, facts, selecting, filling.born));
            filling.withdraw(last, why);
        }
    }
}

/// A storable response: its head goes to everyone now, its body as it comes, and when it is whole
/// it is kept.
pub(super) async fn storable(mut filling: Filling, permit: Storable, answer: Answer) {
    let config = &filling.fill.snapshot.config.cache;
    let declared = content_length(answer.response.headers());
    let Some(reserved) = filling.fill.worker.shared.memory.in_flight().try_reserve(declared.unwrap_or(0))
    else {
        return filling.private(answer.response, NotStored::InFlightLimit).await;
    };
    let facts = facts_of(&answer);
    let selecting = rules::selecting_fields(&facts.vary, &filling.fill.asked.headers);
    let (parts, body) = answer.response.into_parts();
    let headers = passing_fields(&parts.headers, &permit);
    let withheld = withheld_fields(&parts.headers, &permit);
    let (writer, growing) = Growing::new(config.lag, config.lag_timeout);
    // Seated before the first byte: a body that outgrows its bound cannot leave the owner behind.
    let own = growing.reader().map(|reader| Own { reader, withheld });
    let (status, born, key) = (parts.status, filling.born, Arc::clone(&filling.fill.key));
    let fetched = Arc::new(Fetched { status, headers, facts, selecting, key, born, body: growing });
    filling.tell_with(Landing::Fetched(Arc::clone(&fetched)), own);
    pump(filling, permit, fetched, writer, body, reserved).await;
}

/// What has come of a body so far.
struct Pump {
    writer: Writer,
    trailers: Option<HeaderMap>,
    /// `None` once the body has outgrown what may be kept.
    reserved: Option<Reserved>,
}

/// Moves the body from the origin to the readers, and into the cache at its end.
///
/// Returning early drops the writer: readers see a broken body, and nothing is kept.
async fn pump(
    mut filling: Filling,
    permit: Storable,
    fetched: Arc<Fetched>,
    writer: Writer,
    mut body: OriginBody,
    reserved: Reserved,
) {
    let mut pump = Pump { writer, trailers: None, reserved: Some(reserved) };
    while !body.is_end_stream() {
        match body.frame().await {
            None => break,
            Some(Err(_)) => return,
            Some(Ok(frame)) => match frame.into_data() {
                Ok(chunk) => {
                    if pump.take(&mut filling, chunk).await == Room::NoReaders {
                        return;
                    }
                }
                Err(other) => pump.trailers = other.into_trailers().ok(),
            },
        }
    }
    if pump.reserved.is_none() {
        return pump.writer.complete(None, pump.trailers);
    }
    let whole = StoredResponse::compact(&pump.writer.chunks());
    let response = stored(&filling, permit, &fetched, whole.clone());
    // Kept before the seat is given up: whoever finds no flight finds the response.
    filling.promote(&response);
    filling.write_behind(&response);
    pump.writer.complete(Some(whole), pump.trailers);
}

impl Pump {
    /// Takes a chunk; waits for the readers where the body is no longer kept.
    async fn take(&mut self, filling: &mut Filling, chunk: Bytes) -> Room {
        let max = filling.fill.snapshot.config.cache.max_object;
        let total = self.writer.written().saturating_add(chunk.len() as u64);
        if let Some(reserved) = &mut self.reserved {
            let why = if total > max {
                Some(NotStored::TooLarge)
            } else if !reserved.grow(total.saturating_sub(reserved.bytes())) {
                Some(NotStored::InFlightLimit)
            } else {
                None
            };
            if let Some(why) = why {
                self.reserved = None;
                filling.mark(why, 200);
                self.writer.stop_keeping();
            }
        }
        let room = self.writer.room().await;
        self.writer.push(chunk);
        room
    }
}

impl Filling {
    /// The origin took back its leave to keep a response while confirming it.
    fn withdraw(mut self, response: Arc<StoredResponse>, why: NotStored) {
        self.fill.worker.shared.memory.remove(&self.fill.key);
        self.mark(why, response.status.as_u16());
        self.fill.seat.publish(Landing::NotStorable(why));
        let landing = OwnerLanding::Shared(Landing::Revalidated(response), None);
        if let Some(owner) = self.fill.owner.take() {
            let _left = owner.send(ForOwner { landing, times: self.times });
        }
    }

    fn write_behind(&self, response: &Arc<StoredResponse>) {
        if let Some((redis, generation)) = self.fill.worker.redis.as_ref().zip(self.generation) {
            let ttl = rules::usable_for(&response.facts, &self.cache.policy);
            redis.put(Arc::clone(response), generation, ttl);
        }
    }
}

fn stored(filling: &Filling, permit: Storable, fetched: &Fetched, body: Bytes) -> Arc<StoredResponse> {
    let received = Received {
        status: fetched.status,
        headers: &fetched.headers,
        request_time: fetched.facts.request_time,
        response_time: fetched.facts.response_time,
        body,
        selecting: fetched.selecting.clone(),
        key: Arc::clone(&filling.fill.key),
        born: filling.born,
    };
    Arc::new(StoredResponse::new(permit, received))
}

/// What everyone who waits is given: what is stored, and `Trailer`. A trailer section is not stored,
/// but it passes, and only one that is announced can be written (RFC 9110 §6.6.2).
fn passing_fields(headers: &HeaderMap, permit: &Storable) -> HeaderMap {
    let mut passing = rules::stored_fields(headers, permit);
    for value in headers.get_all(header::TRAILER) {
        passing.append(header::TRAILER, value.clone());
    }
    passing
}

/// What may not be stored, for the one client whose request brought it.
fn withheld_fields(headers: &HeaderMap, permit: &Storable) -> HeaderMap {
    let mut withheld = HeaderMap::new();
    if permit.without().is_empty() {
        return withheld;
    }
    let options = hop::connection_options(headers);
    let of_connection = |name| hop::is_hop_by_hop(name) || options.contains(name);
    for (name, value) in headers.iter().filter(|(name, _)| permit.without().contains(name)) {
        if !of_connection(name) {
            withheld.append(name.clone(), value.clone());
        }
    }
    withheld
}

/// RFC 9110 §6.6.1: a recipient with a clock records when a message without `Date` came, and adds
/// the field if it is cached or forwarded.
fn ensure_date(headers: &mut HeaderMap, received: Timestamp) {
    if !headers.contains_key(header::DATE) {
        headers.insert(header::DATE, date::to_value(received));
    }
}
