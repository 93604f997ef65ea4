//! A request's body is gathered before a connection to the origin is taken for it, once connections are in demand.
//!
//! Else whoever sends a byte a second would hold a connection from the first byte on, and a few hundred of them
//! all that there are. Here such a client costs its own connection and what it has sent. While there are plenty,
//! bodies stream: an origin may answer before the end, and hears of a request at once.
//! Knows the bounds: the route's `request_buffer`, the room for requests' bodies, the pace that every body is held
//! to, `timeout.total`. Must not know: who the origin is, or whether anything is stored.
//!
//! Cancellation: dropping the future drops what was gathered; nothing has happened yet.

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::store::{Memory, Reserved};
use crate::upstream::{BoxError, RequestBody};

use super::beginning::Beginning;
use super::content::patience;
use super::exchange::Exchange;
use super::failure::Failure;

/// The least that memory grows by, bytes.
const STEP: usize = 1024;

/// Gathers the whole of the request's body, or its first `request_buffer` bytes. What is still to come when a
/// connection is taken keeps others from it, and is held to `body_rate_in_demand` from there on: else whoever sends the
/// beginning at once and the rest a few bytes at a time would hold it until `timeout.total`.
///
/// # Errors
/// The body broke off, was too slow, or is larger than its route takes.
pub(super) async fn body(exchange: &mut Exchange) -> Result<(), Failure> {
    let upstream = exchange.snapshot.upstream(exchange.route);
    let in_demand = upstream.is_some_and(|upstream| upstream.is_in_demand());
    let Some(mut body) = exchange.body.take_if(|body| in_demand && !body.is_at_hand()) else { return Ok(()) };
    let most = exchange.route().map_or(0, |route| route.request_buffer);
    if most > 0 {
        body = begun(exchange, body, most).await?;
    }
    exchange.body = Some(body.hurried(exchange.snapshot.config.limits.body_in_demand()));
    Ok(())
}

/// The body with its beginning at hand.
async fn begun(exchange: &Exchange, body: RequestBody, most: u64) -> Result<RequestBody, Failure> {
    let over = Instant::now() + patience(exchange);
    let room = Room::of(&exchange.worker.shared.memory);
    // In a box: most requests have no body, and all would pay for a larger future.
    let gathered = Box::pin(timeout_at(over, gather(body, most, room))).await;
    let gathered = gathered.map_err(|_| Failure::late_content())?;
    let max = exchange.max_body();
    gathered.map_err(|error| Failure::content(&error, max))
}

async fn gather(mut body: RequestBody, most: u64, room: Option<Room>) -> Result<RequestBody, BoxError> {
    let Some(room) = room else { return Ok(body) };
    let most = usize::try_from(body.size_hint().exact().unwrap_or(most).min(most)).unwrap_or(usize::MAX);
    let mut gathered = Gathered { read: Vec::new(), most, room };
    while !body.is_end_stream() && gathered.read.len() < most {
        let Some(frame) = body.frame().await.transpose()? else {
            return Ok(RequestBody::other(gathered.before(body).ended()));
        };
        // Of what does not fit, or is no data, nothing is lost: it is sent on as it is.
        if !frame.data_ref().is_some_and(|piece| gathered.add(piece)) {
            return Ok(RequestBody::other(gathered.before(body).then(frame)));
        }
    }
    Ok(RequestBody::other(gathered.before(body)))
}

/// The beginning of a body, in memory of its own: pieces are parts of a connection's read buffer, and would keep all
/// of it.
struct Gathered {
    read: Vec<u8>,
    most: usize,
    room: Room,
}

impl Gathered {
    /// `false`, and nothing is added, where that would be more than there may be.
    fn add(&mut self, piece: &[u8]) -> bool {
        let length = self.read.len() + piece.len();
        if length > self.most {
            return false;
        }
        let (now, twice) = (self.read.capacity(), self.read.capacity() * 2);
        if length > now {
            let wanted = length.max(twice).max(STEP).min(self.most);
            if !self.room.grow((wanted - now) as u64) {
                return false;
            }
            self.read.reserve_exact(wanted - self.read.len());
        }
        self.read.extend_from_slice(piece);
        true
    }

    fn before(self, rest: RequestBody) -> Beginning<RequestBody> {
        Beginning::of(Bytes::from(self.read), rest).holding(self.room)
    }
}

/// What a body takes of the room for those of requests, and so of that for all bodies.
struct Room {
    requests: Reserved,
    all: Reserved,
}

impl Room {
    fn of(memory: &Memory) -> Option<Self> {
        let (requests, all) = (memory.requests().try_reserve(0)?, memory.in_flight().try_reserve(0)?);
        Some(Self { requests, all })
    }

    /// Where the one has room and the other has none, what was taken is given back with the rest.
    fn grow(&mut self, more: u64) -> bool {
        self.requests.grow(more) && self.all.grow(more)
    }
}
