//! What an answer of the origin means for the cache. Decides, does nothing.
//!
//! Must not know: tiers, waiters, bodies.

use std::sync::Arc;

use http::{HeaderMap, StatusCode, header};

use crate::clock::Timestamp;
use crate::fields::no_vary_search::NO_VARY_SEARCH;
use crate::fields::range::ContentRange;
use crate::rules::storing::{self, Blamed};
use crate::rules::{self, Exchanged, NotStored, OriginFailure, RequestFacts, ResponseFacts, Storable};
use crate::store::Marked;
use crate::stored::{Content, Parts, StoredResponse};

use super::{Answer, Filling, Gap};

/// What to do with an answer.
pub(super) enum Verdict {
    /// A 304 that confirms what is stored.
    Confirmed(Answer),
    /// A 304 that does not, or a part that does not fit: ask again, as if nothing were stored.
    Unfit,
    /// An error in whose place what is stored may stand (RFC 5861 §4).
    Stands(Arc<StoredResponse>, u16),
    /// To be kept. What the answer says has been read.
    Storable(Storable, Answer, Box<ResponseFacts>),
    /// The rest of what is stored in part.
    Completes(Box<Rest>),
    /// For the owner alone.
    NotStorable(NotStored, Answer),
}

/// An answer with what is missing, and what it makes of the parts that are stored.
pub(super) struct Rest {
    pub answer: Answer,
    pub stale: Arc<StoredResponse>,
    /// Its content.
    pub parts: Parts,
    pub gap: Gap,
    /// The fields of both (RFC 9110 §15.3.7.3).
    pub headers: HeaderMap,
    pub facts: ResponseFacts,
    pub permit: Storable,
}

pub(super) fn judge(filling: &Filling, answer: Answer) -> Verdict {
    let status = answer.response.status();
    if status == StatusCode::NOT_MODIFIED {
        return not_modified(filling, answer);
    }
    if is_failure(status.as_u16())
        && let Some(stale) = standing_in(filling, answer.response_time, OriginFailure::Error)
    {
        return Verdict::Stands(stale, status.as_u16());
    }
    if let Some(gap) = answer.gap {
        match status {
            StatusCode::PARTIAL_CONTENT => return rest(filling, answer, gap),
            // What is stored in part is longer than what there is.
            StatusCode::RANGE_NOT_SATISFIABLE => return Verdict::Unfit,
            _ => {}
        }
    }
    let facts = facts_of(&answer);
    let permit = may_keep(filling, &facts, answer.response.headers());
    let max = filling.fill.snapshot.config.cache.max_object;
    match permit {
        Err(why) => Verdict::NotStorable(why, answer),
        Ok(_) if facts.status == 206 && !(answer.ranged && holds_no_more_than_it_says(&facts, &answer)) => {
            Verdict::NotStorable(NotStored::Partial, answer)
        }
        Ok(_) if content_length(answer.response.headers()).is_some_and(|length| length > max) => {
            Verdict::NotStorable(NotStored::TooLarge, answer)
        }
        Ok(permit) => Verdict::Storable(permit, answer, Box::new(facts)),
    }
}

/// Whether a response with these fields and facts, which this request has brought, may be stored, by the rules
/// and by the guards.
pub(super) fn may_keep(
    filling: &Filling,
    facts: &ResponseFacts,
    headers: &HeaderMap,
) -> Result<Storable, NotStored> {
    let permit = storing::judge(&filling.fill.asked.facts, facts, &filling.cache.policy)?;
    guarded(filling, permit, facts, headers)
}

/// Whether a stored response may stay so with these fields and facts, by news that this request has brought.
pub(super) fn may_still_keep(
    filling: &Filling,
    asked: &RequestFacts,
    facts: &ResponseFacts,
    headers: &HeaderMap,
) -> Result<Storable, NotStored> {
    let permit = storing::judge_again(asked, facts, &filling.cache.policy)?;
    guarded(filling, permit, facts, headers)
}

fn guarded(
    filling: &Filling,
    permit: Storable,
    facts: &ResponseFacts,
    headers: &HeaderMap,
) -> Result<Storable, NotStored> {
    let (policy, sent) = (&filling.cache.policy, &filling.fill.asked);
    let seen = Exchanged { target: sent.target.as_str(), asked: &sent.headers, answer: headers };
    rules::guard(&seen, facts, policy)?;
    if filling.is_quarantined() { Err(NotStored::Quarantined) } else { Ok(permit) }
}

/// Whether an answer is an error in whose place what is stored may stand: RFC 5861 §4, "any situation
/// that would result in a 500, 502, 503, or 504".
pub fn is_failure(status: u16) -> bool {
    matches!(status, 500 | 502..=504)
}

/// What is stored, if it may stand in for an origin that failed.
pub(super) fn standing_in(
    filling: &Filling,
    now: Timestamp,
    failure: OriginFailure,
) -> Option<Arc<StoredResponse>> {
    let stale = filling.fill.stale.as_ref()?;
    if filling.fill.worker.shared.purges.is_purged(stale) {
        return None;
    }
    stale.on_error(&filling.fill.asked.facts, &filling.cache.policy, now, failure)?;
    stale.cut(&filling.fill.asked.facts, &filling.fill.asked.headers)?;
    Some(Arc::clone(stale))
}

/// What a response that is not stored says of the next one for the key.
///
/// One that will likely be refused for the same reason makes the key uncacheable for a while. What was due to
/// this one request must not: otherwise a client that sends nonsense now and then would keep the key from being
/// cached for all. But where that is a login that is missing, or the like, as many will come with the same; none
/// of them waits for another's. An error of the origin passes, and so does what it says to those who ask too
/// often (429): these are to wait, all of them, so that it is asked less.
///
/// Of a request that chose by a field that nobody else need have, nothing is concluded but that.
pub fn remembered(why: NotStored, status: u16, chooses: bool) -> Option<Marked> {
    let of_this_request = matches!(
        why,
        NotStored::RequestNoStore
            | NotStored::Range
            | NotStored::Head
            | NotStored::InFlightLimit
            | NotStored::OddRequest
    );
    if of_this_request || status >= 500 || status == 429 {
        return None;
    }
    let due_to_it = chooses || why == NotStored::Unvaried || storing::blamed(status) != Blamed::Other;
    Some(if due_to_it { Marked::Unshared } else { Marked::Uncacheable })
}

/// The length that a response declares.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What the rules need to know of an answer.
pub(super) fn facts_of(answer: &Answer) -> ResponseFacts {
    let (status, headers) = (answer.response.status().as_u16(), answer.response.headers());
    ResponseFacts::of(status, headers, answer.request_time, answer.response_time)
}

fn not_modified(filling: &Filling, answer: Answer) -> Verdict {
    let facts = facts_of(&answer);
    match &filling.fill.stale {
        Some(stale)
            if answer.conditional
                && rules::confirms(&stale.facts, &facts)
                && !changes_queries(stale, &answer, &facts) =>
        {
            Verdict::Confirmed(answer)
        }
        _ => Verdict::Unfit,
    }
}

/// Whether a 304 changes for which queries the stored response is, whose key was made by its old rule.
fn changes_queries(stale: &StoredResponse, answer: &Answer, facts: &ResponseFacts) -> bool {
    stale.key.is_searched()
        && answer.response.headers().contains_key(NO_VARY_SEARCH)
        && facts.no_vary_search != stale.facts.no_vary_search
}

/// A part that was asked for to be put together with those that are stored.
fn rest(filling: &Filling, answer: Answer, gap: Gap) -> Verdict {
    let came = facts_of(&answer);
    let Some(stale) = filling.fill.stale.clone() else { return Verdict::Unfit };
    let Content::Parts(parts) = stale.content.clone() else { return Verdict::Unfit };
    let length = stale.content.length();
    let expected = Some(ContentRange { span: Some(gap.missing), length: Some(length) });
    let fits = content_length(answer.response.headers()).is_none_or(|length| length == gap.missing.len());
    if !fits || came.content_range != expected || !rules::same_representation(&stale.facts, &came) {
        return Verdict::Unfit;
    }
    let headers = rules::freshen(&stale.headers.to_map(), answer.response.headers());
    let status = stale.status.as_u16();
    let facts = ResponseFacts::of(status, &headers, answer.request_time, answer.response_time);
    // The parts had a Content-Range each, and so has what comes.
    let judged = facts.clone().of_part(came.content_range);
    match may_keep(filling, &judged, &headers) {
        Ok(permit) => {
            Verdict::Completes(Box::new(Rest { answer, stale, parts: *parts, gap, headers, facts, permit }))
        }
        // Now it may not be kept, so there is nothing to put together.
        Err(_) => Verdict::Unfit,
    }
}

/// A part that is shorter than its range is a part all the same, up to where it ends; in one that is
/// longer, nobody knows what is what.
fn holds_no_more_than_it_says(facts: &ResponseFacts, answer: &Answer) -> bool {
    let span = facts.content_range.and_then(|said| said.span);
    let length = content_length(answer.response.headers());
    span.is_some_and(|span| length.is_none_or(|length| length <= span.len()))
}
