//! The far side: fetches on behalf of everyone who waits, as a task of its own.
//!
//! Asks the shared tier, then the origin, judges what comes, keeps it, and tells those who wait.
//! Must not know: clients, what they are sent, or whether any is left.
//!
//! ```text
//! ask Redis   fresh ......... promote, publish, done
//!             in grace ...... promote, publish, go on as a refresh
//!             else .......... go on (its validator is used)
//! elect       ours .......... go on, for the whole fleet
//!             another node .. wait for its word, ask Redis again
//!             nobody knows .. go on, for this node
//! ask origin  (conditional if a stale copy is held; for what is missing if parts are)
//! judge       304 ........... freshen both tiers, publish
//!             the rest ...... put it together with the parts, publish, keep
//!             storable ...... publish the head, grow the body, keep in both tiers
//!             not storable .. to the owner alone; mark the key; guests go alone
//!             error ......... stale if allowed, else the failure to all
//! ```
//!
//! Cancellation: nothing a client does ends a fill; its own time limits do. Should the task be
//! dropped, the seat frees the key, the writer breaks the body, and guests start over.

mod adopt;
mod ask;
mod elect;
mod failing;
mod judge;
mod keep;
pub mod outbound;
mod plan;
mod tell;
pub mod verify;

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use tokio::sync::oneshot;

use crate::clock::{Mono, Timestamp};
use crate::config::RouteCache;
use crate::flight::Owner;
use crate::interim::Interim;
use crate::rules::OriginFailure;
use crate::store::{Class, Generation, Lease};
use crate::stored::{Born, CacheKey, Position, StoredResponse};
use crate::upstream::{ForwardError, OriginBody};
use crate::worker::{Asked, Content, FillTimes, ForOwner, Landing, Looked, Snapshot, Worker};

pub use adopt::{Adopted, Heard, Hearing};
use elect::{Look, Turned};
use judge::Verdict;
pub use judge::{is_failure, remembered};
pub use keep::CHUNK;
use plan::{Gap, Plan};
pub use plan::{Want, want};

/// A fetch for a key.
pub struct Fill {
    /// The thread that runs it.
    pub worker: Arc<Worker>,
    /// The configuration it runs by, even if another comes into force meanwhile.
    pub snapshot: Arc<Snapshot>,
    /// The route, an index into the configuration's.
    pub route: usize,
    /// The request that caused it.
    pub asked: Arc<Asked>,
    /// The request's content, where it is part of the key.
    pub content: Option<Content>,
    /// What is fetched.
    pub key: CacheKey,
    /// The key of this very URL, where `key` is that of several queries (`No-Vary-Search`).
    pub exact: Option<CacheKey>,
    /// How much of it.
    pub want: Want,
    /// Whether the request carries credentials.
    pub class: Class,
    /// Which requests of other nodes could share it.
    pub lane: u64,
    /// Whether it may wait for another node's fetch, or have others wait for it: not beside one of this node that is of no
    /// use by now, and has the lease.
    pub bids: bool,
    /// What memory holds, no longer fresh or not all that is wanted.
    pub stale: Option<Arc<StoredResponse>>,
    /// The seat on the flight.
    pub seat: Owner<Landing>,
    /// Whoever waits first; `None` for a refresh.
    pub owner: Option<oneshot::Sender<ForOwner>>,
    /// The owner's way for interim responses, where it has one. Guests get none: until the final head
    /// has come, nobody knows whether they may see anything of this exchange.
    pub interim: Option<Interim>,
}

/// A fill under way, with what it has learned.
struct Filling {
    fill: Fill,
    cache: RouteCache,
    /// Purge number, and the shared tier's generation of the URL, from before the fetch.
    born: Born,
    /// How far the fleet's log had been read then.
    read: Option<Position>,
    generation: Option<Generation>,
    times: FillTimes,
    /// When the origin was first asked.
    began: Option<Mono>,
    looked: Looked,
    /// Nobody has ever waited for it.
    refresh: bool,
    /// Held while it is fetched for the whole fleet.
    lease: Option<Lease>,
    /// How long an origin that has failed is to be left alone.
    rest: Duration,
}

/// An answer of the origin, with the moments around it.
struct Answer {
    response: Response<OriginBody>,
    request_time: Timestamp,
    response_time: Timestamp,
    /// It may be a 304, by conditions of ours.
    conditional: bool,
    /// It was asked for a range.
    ranged: bool,
    /// What it is to be put together with.
    gap: Option<Gap>,
}

impl Fill {
    /// Runs to the end.
    pub async fn run(mut self) {
        let Some(cache) = self.snapshot.cache(self.route).cloned() else { return };
        let (born, read) =
            (Born::Here(self.worker.shared.purges.seq()), self.worker.shared.purges.position());
        // Looked up before the seat was taken: a purge in between found no flight, and may have left
        // no word of itself but that memory holds it no more.
        self.stale = self.stale.filter(|stale| self.worker.shared.holds(stale));
        #[cfg(test)]
        crate::telemetry::failpoint::at("fill", self.asked.target.path());
        let refresh = self.owner.is_none();
        let mut filling = Filling { refresh, ..Filling::new(self, cache, (born, read), None) };
        match filling.elect(Look::First).await {
            Turned::Settled => {}
            Turned::Fetch => filling.ask_origin().await,
            Turned::Rested => Box::pin(filling.rest_with_what_is_stored()).await,
        }
    }
}

impl Filling {
    /// One that has asked nobody yet, on behalf of somebody who waits.
    fn new(
        fill: Fill,
        cache: RouteCache,
        (born, read): (Born, Option<Position>),
        generation: Option<Generation>,
    ) -> Self {
        let (times, looked) = (FillTimes::default(), Looked::Nothing);
        let (began, refresh, lease, rest) = (None, false, None, failing::AFTER_ERROR);
        Self { fill, cache, born, read, generation, times, began, looked, refresh, lease, rest }
    }

    /// Asks until there is an answer for those who wait, or nobody asks any more.
    async fn ask_origin(mut self) {
        loop {
            let error = match self.question().await {
                // Each has a place of its own once it is taken: whoever starts a fill moves its future, with room for
                // all that it may come to.
                Ok(Verdict::Confirmed(answer)) => return Box::pin(keep::confirmed(self, answer)).await,
                Ok(Verdict::Storable(permit, answer, facts)) => {
                    return Box::pin(keep::storable(self, permit, answer, *facts)).await;
                }
                Ok(Verdict::Completes(rest)) => return Box::pin(keep::completing(self, *rest)).await,
                Ok(Verdict::NotStorable(why, answer)) => {
                    return Box::pin(self.private(answer.response, why)).await;
                }
                Ok(Verdict::Stands(stale, status)) => {
                    self.tell(Landing::StaleIfError(stale, Some(status)));
                    None
                }
                // Only an unconditional request leads here twice: the origin answers 304 unasked.
                Ok(Verdict::Unfit) => Some(self.unasked()),
                Err(error) => Some(error),
            };
            if let Some(error) = error {
                match judge::standing_in(&self, self.fill.worker.now(), OriginFailure::NoAnswer) {
                    Some(stale) => self.tell(Landing::StaleIfError(stale, None)),
                    None => return Box::pin(self.failed(error)).await,
                }
            }
            self.failed_for_all();
            loop {
                if !Box::pin(self.is_asked_for_still()).await {
                    return;
                }
                match Box::pin(self.elect(Look::Again)).await {
                    Turned::Settled => return,
                    Turned::Fetch => break,
                    // Another node asks, or has been failed just now.
                    Turned::Rested => {}
                }
            }
        }
    }

    /// What the origin says; asked anew, as if nothing were stored, where that fits nothing.
    async fn question(&mut self) -> Result<Verdict, ForwardError> {
        let plan = plan::plan(self.fill.want, &self.fill.asked, self.fill.stale.as_deref());
        let answer = ask::origin(self, plan).await?;
        let verdict = judge::judge(self, answer);
        if !matches!(verdict, Verdict::Unfit) {
            return Ok(verdict);
        }
        let plan = plan::anew(self.fill.want, &self.fill.asked);
        let answer = ask::origin(self, plan).await?;
        Ok(judge::judge(self, answer))
    }
}

#[cfg(test)]
mod tests {
    /// It is moved as it is made, and each waits for what it needs: what few fills come to has a place of its own.
    #[test]
    fn the_future_of_a_fill_is_small() {
        fn size<A, T>(_: impl Fn(A) -> T) -> usize {
            std::mem::size_of::<T>()
        }
        let size = size(super::Fill::run);
        assert!(size <= 7168, "{size} bytes");
    }
}
