//! What becomes of a fill whose origin fails it.
//!
//! Knows how long an origin is left alone, and that nobody waits for one that may be hanging where what is
//! stored stands in: while clients still ask, one fill at a time asks on, and they are given what is stored at
//! once.
//! Must not know: what may stand in, or for how long.

use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode, header};

use crate::clock::Timestamp;
use crate::fields::date;
use crate::rules::{OriginFailure, Reuse};
use crate::stored::{Born, StoredResponse};
use crate::upstream::ForwardError;
use crate::wire::Flaw;
use crate::worker::{Landing, Shared};

use super::{Fill, Filling, judge};

/// How long an origin that failed is left alone where something stored stands in for it.
pub(super) const AFTER_ERROR: Duration = Duration::from_secs(1);
/// The longest that it is left alone by its own word: it may be well again long before, and nobody could tell.
const BY_ITS_WORD: Duration = Duration::from_secs(60);
/// Fetches in flight with which none is left alone for longer than usual: each that is, is one.
const MANY: usize = 4_096;

/// How long an origin that has answered so is to be left alone, if that is a failure: by its own word where it says
/// one (RFC 9110 §10.2.3, RFC 6585 §4), within bounds.
pub(super) fn rest_after<B>(response: &Response<B>, now: Timestamp) -> Duration {
    let may_say =
        matches!(response.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
    let said = response.headers().get(header::RETRY_AFTER).filter(|_| may_say);
    let said = said.and_then(|value| value.to_str().ok()).map(str::trim).and_then(|said| {
        if !said.is_empty() && said.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(Duration::from_secs(said.parse().unwrap_or(u64::MAX)));
        }
        let date = date::parse(said.as_bytes(), now)?;
        Some(Duration::from_secs(date.as_secs().saturating_sub(now.as_secs())))
    });
    said.unwrap_or(AFTER_ERROR).clamp(AFTER_ERROR, BY_ITS_WORD)
}

impl Filling {
    /// Holds the seat on for a moment, with what it has told: a dead origin is not asked again by each
    /// request. Then, whether to ask it again in the name of those who have come meanwhile; the seat is held
    /// all the while, so that none of them waits for an origin that may not answer.
    ///
    /// Not in the name of a configuration that is in force no more, nor for what memory has let go of: the
    /// next request begins anew.
    pub(super) async fn is_asked_for_still(&mut self) -> bool {
        let visits = self.fill.seat.visits();
        self.rest_while(|filling| {
            let now = filling.fill.worker.now();
            judge::standing_in(filling, now, OriginFailure::NoAnswer).is_some()
        })
        .await;
        let shared = &self.fill.worker.shared;
        // What is asked from now on is asked after every purge so far.
        (self.began, self.born) = (None, Born::Here(shared.purges.seq()));
        self.read = shared.purges.position();
        self.fill.seat.visits() != visits
            && Arc::ptr_eq(&shared.snapshot.load(), &self.fill.snapshot)
            && self.fill.stale.as_ref().is_some_and(|stale| shared.holds(stale))
    }

    /// Nothing stands in.
    pub(super) async fn failed(mut self, error: ForwardError) {
        self.failed_for_all();
        self.tell(Landing::Failed(Arc::new(error)));
        self.rest_after_refresh().await;
    }

    /// A refresh that failed is not begun anew by the very next request that is served stale.
    /// Whoever finds its seat taken is given nothing: where what is stored has gone, all of them would go alone.
    pub(super) async fn rest_after_refresh(&self) {
        if self.refresh {
            self.rest_on(Shared::holds).await;
        }
    }

    /// A refresh that is not to be made now. Whoever has found its seat taken, and could not be given what is
    /// stored, is told of that all the same, and goes on alone: nothing else comes of this seat. Where nothing is
    /// stored any more, it is given up.
    pub(super) async fn rest_with_what_is_stored(mut self) {
        let purges = &self.fill.worker.shared.purges;
        let Some(stale) = self.fill.stale.clone().filter(|stale| !purges.is_purged(stale)) else { return };
        self.tell(Landing::Found(stale));
        self.rest_on(|shared, stale| !shared.purges.is_purged(stale)).await;
    }

    /// Holds the seat on, so that no refresh begins, while what is stored `is_there` and may be served without one.
    async fn rest_on(&self, is_there: impl Fn(&Shared, &Arc<StoredResponse>) -> bool) {
        self.rest_while(|filling| {
            let Fill { worker, asked, stale, .. } = &filling.fill;
            let now = (worker.now(), worker.mono());
            stale.as_ref().filter(|stale| is_there(&worker.shared, stale)).is_some_and(|stale| {
                let verdict = worker.reuse(stale, &asked.facts, &filling.cache.policy, now);
                matches!(verdict, Reuse::Stale { grace: Some(_), .. })
            })
        })
        .await;
    }

    /// Rests for as long as the origin is to be left alone, and the seat is of no use to anybody who would wait: under
    /// another configuration it may be another origin.
    async fn rest_while(&self, still: impl Fn(&Self) -> bool) {
        let shared = &self.fill.worker.shared;
        let crowded = shared.flights.len() > MANY;
        let mut left = if crowded { AFTER_ERROR } else { self.rest };
        while !left.is_zero() {
            let step = left.min(AFTER_ERROR);
            tokio::time::sleep(step).await;
            left = left.saturating_sub(step);
            if !still(self) || !Arc::ptr_eq(&shared.snapshot.load(), &self.fill.snapshot) {
                return;
            }
        }
    }

    /// Gives the lease back: no node is to refresh this for as long as this one leaves the origin alone.
    pub(super) fn failed_for_all(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.failed(self.rest);
        }
    }

    /// The origin has answered with a 304 to a request without conditions.
    pub(super) fn unasked(&self) -> ForwardError {
        let upstream = self.fill.snapshot.upstream_name(self.fill.route);
        ForwardError::unasked(upstream, Flaw::UnaskedNotModified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9110 §10.2.3: seconds or a date, of a 503; RFC 6585 §4: of a 429, too.
    #[test]
    fn an_origin_is_left_alone_as_long_as_it_says_within_bounds() {
        let now = Timestamp::from_millis(784_111_777_000);
        for (status, said, seconds) in [
            (503, Some("30"), 30),
            (429, Some("30"), 30),
            (503, Some(" 7 "), 7),
            (503, Some("Sun, 06 Nov 1994 08:49:47 GMT"), 10),
            (503, Some("Sun, 06 Nov 1994 08:49:30 GMT"), 1),
            (503, Some("0"), 1),
            (503, Some("99999999999999999999999"), 60),
            (503, Some("3600"), 60),
            (503, Some("-5"), 1),
            (503, Some("soon"), 1),
            (503, Some(""), 1),
            (503, None, 1),
            // That is when it has moved, or is none of its business.
            (301, Some("30"), 1),
            (500, Some("30"), 1),
            (200, Some("30"), 1),
        ] {
            let mut response = Response::builder().status(status);
            if let Some(said) = said {
                response = response.header(header::RETRY_AFTER, said);
            }
            let rest = rest_after(&response.body(()).unwrap(), now);
            assert_eq!(rest, Duration::from_secs(seconds), "{status} {said:?}");
        }
    }
}
