//! The two questions of a fill: to the shared tier, and to the origin.
//!
//! Knows whom to ask and what to note about the answer's time.
//! Must not know: what the answers mean.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, header};

use crate::store::{Absent, Asked, Turn};
use crate::stored::StoredResponse;
use crate::upstream::{ForwardError, RequestBody};
use crate::worker::{Looked, Sent};

use super::{Answer, Filling, Plan, failing, outbound};

/// Asks the shared tier for a response to this request; notes the URL's generation.
///
/// Bounded by `redis_deadline`, and by nothing while the breaker is open: it answers at once.
pub(super) async fn redis(filling: &mut Filling, refresh: bool) -> (Option<Arc<StoredResponse>>, Asked) {
    let fill = &filling.fill;
    let redis = fill.worker.redis.as_ref().filter(|_| !filling.is_in_doubt());
    let Some(redis) = redis else { return (None, Asked::Told(Turn::Alone)) };
    let asked_at = fill.worker.mono();
    let (headers, normalize) = (&fill.asked.headers, filling.cache.policy.normalize);
    let answer = redis.get_or_lease(&fill.key, headers, normalize, filling.bid(refresh)).await;
    let took = fill.worker.mono().since(asked_at);
    fill.worker.note_redis(&fill.snapshot, &fill.asked, asked_at, &answer.found);
    filling.times.redis = Some(filling.times.redis.unwrap_or_default().saturating_add(took));
    filling.generation = answer.generation;
    if matches!(answer.found, Err(Absent::OtherVariant)) {
        filling.looked = Looked::OtherVariant;
    }
    let exact = fill.exact.as_ref().unwrap_or(&fill.key);
    let found = answer.found.ok().filter(|found| {
        exact.leads_to(&found.key, found.facts.no_vary_search.as_ref())
            && !fill.worker.shared.purges.is_purged(found)
    });
    (found, answer.turn)
}

/// Asks the origin as planned.
///
/// Bounded by the upstream's own limits.
pub(super) async fn origin(filling: &mut Filling, plan: Plan) -> Result<Answer, ForwardError> {
    let fill = &filling.fill;
    let Some((route, upstream)) = fill.snapshot.route(fill.route).zip(fill.snapshot.upstream(fill.route))
    else {
        return Err(ForwardError::nowhere());
    };
    let Plan { range, mut conditions, gap } = plan;
    // A client's own `If-Range` can bring no 304.
    let conditional = conditions.iter().any(|(name, _)| *name != header::IF_RANGE);
    let asked_range = range.and_then(|range| HeaderValue::from_str(&range.to_string()).ok());
    let ranged = asked_range.is_some();
    conditions.extend(asked_range.map(|value| (header::RANGE, value)));
    let content = fill.content.as_ref().map(|content| content.bytes.clone());
    let length = content.as_ref().map(Bytes::len);
    let again = || outbound::fill(&fill.worker, &fill.asked, route, &conditions, length);
    let request = again().map(|()| content.map_or_else(RequestBody::empty, RequestBody::whole));
    let (request_time, asked_at) = fill.worker.moment();
    // An owner that has been told is answered; what goes on then is a refresh.
    let interim = fill.owner.as_ref().and(fill.interim.as_ref());
    // A second question, where the answer to the first was none, has what is left of its time.
    let waited = asked_at.since(*filling.began.get_or_insert(asked_at));
    let forwarded = upstream.forward(fill.worker.index, request, &again, interim, waited).await;
    let method = if fill.content.is_some() { &fill.asked.method } else { &Method::GET };
    let sent = Sent { route: fill.route, method, at: asked_at, is_refresh: filling.refresh };
    fill.worker.note_origin(&fill.snapshot, &fill.asked, &sent, &forwarded);
    filling.rest = failing::AFTER_ERROR;
    let mut forwarded = forwarded?;
    fill.worker.shared.read_much(forwarded.response.body_mut());
    let response_time = fill.worker.now();
    filling.rest = failing::rest_after(&forwarded.response, response_time);
    if let Some(lease) = &filling.lease {
        lease.head_has_come();
    }
    filling.times.queue = Some(forwarded.times.queue);
    filling.times.connect = forwarded.times.connect;
    filling.times.hedge = forwarded.times.hedge;
    filling.times.first_byte = Some(forwarded.times.first_byte);
    Ok(Answer { response: *forwarded.response, request_time, response_time, conditional, ranged, gap })
}
