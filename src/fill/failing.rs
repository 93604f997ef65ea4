//! What becomes of a fill whose origin fails it.
//!
//! Knows how long an origin is left alone, and that nobody waits for one that may be hanging where what is
//! stored stands in: while clients still ask, one fill at a time asks on, and they are given what is stored at
//! once.
//! Must not know: what may stand in, or for how long.

use std::sync::Arc;
use std::time::Duration;

use crate::stored::Born;
use crate::upstream::ForwardError;
use crate::wire::Flaw;
use crate::worker::Landing;

use super::Filling;

/// How long an origin that failed is left alone where something stored stands in for it.
const AFTER_ERROR: Duration = Duration::from_secs(1);

impl Filling {
    /// Holds the seat on for a moment, with what it has told: a dead origin is not asked again by each
    /// request. Then, whether to ask it again in the name of those who have come meanwhile; the seat is held
    /// all the while, so that none of them waits for an origin that may not answer.
    ///
    /// Not in the name of a configuration that is in force no more, nor for what memory has let go of: the
    /// next request begins anew.
    pub(super) async fn is_asked_for_still(&mut self) -> bool {
        let visits = self.fill.seat.visits();
        tokio::time::sleep(AFTER_ERROR).await;
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
        self.tell(Landing::Failed(Arc::new(error)));
        self.rest_after_refresh().await;
    }

    /// A refresh that failed is not begun anew by the very next request that is served stale.
    pub(super) async fn rest_after_refresh(&self) {
        if self.refresh {
            tokio::time::sleep(AFTER_ERROR).await;
        }
    }

    /// The origin has answered with a 304 to a request without conditions.
    pub(super) fn unasked(&self) -> ForwardError {
        let upstream = self.fill.snapshot.upstream_name(self.fill.route);
        ForwardError::unasked(upstream, Flaw::UnaskedNotModified)
    }
}
