//! Whether this node is to ask the origin, or waits for another that does: the first part of a fill.
//!
//! Knows how a look at the shared tier, the lease that is asked for in the same step, and the words of other nodes
//! make a turn (`store/redis/lease/election.rs` decides). All of it is bounded: by the deadline of Redis for each
//! look, by the lease's time for each wait, and by `timeout.first_byte` for all of them.
//! Must not know: the origin, or how leases are kept.
//!
//! Cancellation: dropped at any point, what it listens to is left and a lease that it holds is given back.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Mono;
use crate::rules::{MustAsk, Reuse};
use crate::store::{About, Asked, Bid, Election, Lease, Listening, Next, Turn, Woken, Word};
use crate::stored::{Born, Content, StoredResponse};
use crate::worker::{Landing, Looked};

use super::failing::AFTER_ERROR;
use super::{Filling, ask};

/// The wait of whoever has just begun to: any time that is none.
const BEGUN: Duration = Duration::from_millis(1);

/// What became of the first part of a fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turned {
    /// The shared tier has answered.
    Settled,
    /// The origin is to be asked.
    Fetch,
    /// It is a refresh, and not the time for one.
    Rested,
}

/// What a look at the shared tier gave.
enum Sight {
    Settled,
    Turn(Turn<Lease, About>),
}

/// Whether a look may answer by what is stale, too: not where that has been told already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    First,
    Again,
}

impl Filling {
    /// Asks the shared tier, and for leave to ask the origin, until it is known what to do. Leaves a lease in
    /// `self.lease`, where there is one.
    pub(super) async fn elect(&mut self, look: Look) -> Turned {
        let mut election = Election::default();
        let mut ears: Option<Listening> = None;
        let mut waits_since: Option<Mono> = None;
        loop {
            // What is asked from now on is asked after every purge so far.
            self.begins_anew();
            let mut next = match self.look(look).await {
                Sight::Settled => return Turned::Settled,
                Sight::Turn(turn) => election.looked(turn),
            };
            // Until there is something to look at.
            loop {
                next = match next {
                    Next::Look => break,
                    Next::Fetch(lease) => {
                        if lease.is_none() && self.bid(false).is_some() {
                            self.count_alone();
                        }
                        self.lease = lease;
                        // Nothing is looked at between a word and a fetch for this node alone, and what was purged
                        // before that word is not to make the fetch void for all who wait for it.
                        if self.lease.is_none() {
                            self.begins_anew();
                        }
                        return Turned::Fetch;
                    }
                    Next::Rest(left) => {
                        self.rest = left.max(AFTER_ERROR);
                        return Turned::Rested;
                    }
                    Next::Listen(about) => {
                        waits_since.get_or_insert_with(|| self.begin_to_wait());
                        ears = self.fill.worker.shared.leases.get().and_then(|leases| leases.listen(&about));
                        if ears.is_some() { Next::Look } else { election.deaf(self.is_refresh()) }
                    }
                    Next::Wait(longest) => {
                        let woken = match &mut ears {
                            Some(ears) => self.wait(ears, longest, waits_since).await,
                            None => Woken::Deaf,
                        };
                        election.woken(woken, self.is_refresh())
                    }
                }
            }
        }
    }

    /// From here on it counts as begun now, after every purge so far: what was stored before one of them is no
    /// validator any more, since a 304 would give it a new birth. The seat is held all along, so the notes of all
    /// these purges stand (`worker/forget`).
    ///
    /// The shared tier's generation stays that of the latest look: what is fetched past a purge that came after
    /// it is kept in memory alone.
    fn begins_anew(&mut self) {
        let purges = &self.fill.worker.shared.purges;
        (self.born, self.read) = (Born::Here(purges.seq()), purges.position());
        self.fill.stale = self.fill.stale.take().filter(|stale| !purges.is_purged(stale));
    }

    /// Waits for a word, as long as this fill may.
    async fn wait(&mut self, ears: &mut Listening, longest: Duration, since: Option<Mono>) -> Woken {
        let now = self.fill.worker.mono();
        let waited = since.map(|since| now.since(since)).unwrap_or_default();
        let upstream = self.fill.snapshot.upstream(self.fill.route);
        let patience = upstream.map(|upstream| upstream.patience(BEGUN)).unwrap_or_default();
        let Some(left) = patience.checked_sub(waited).filter(|left| !left.is_zero()) else {
            return Woken::Late;
        };
        let woken = ears.wait(longest.min(left)).await;
        let took = self.fill.worker.mono().since(now);
        self.times.lease = Some(self.times.lease.unwrap_or_default().saturating_add(took));
        if let Some(leases) = self.fill.worker.shared.leases.get() {
            leases.count(woken);
        }
        woken
    }

    /// Another node is at it. What is waited for that is part of this fill's own time, where anybody waits for it.
    fn begin_to_wait(&mut self) -> Mono {
        let now = self.fill.worker.mono();
        if !self.is_refresh() {
            self.began.get_or_insert(now);
        }
        if let Some(leases) = self.fill.worker.shared.leases.get() {
            leases.waits();
        }
        now
    }

    fn count_alone(&self) {
        if let Some(leases) = self.fill.worker.shared.leases.get() {
            leases.goes_alone();
        }
    }

    /// Nobody waits for what it fetches, or no longer.
    pub(super) const fn is_refresh(&self) -> bool {
        self.fill.owner.is_none()
    }

    /// Looks into the shared tier, and asks for a lease in the same step; or, where something stands that does not
    /// answer, in one of its own.
    async fn look(&mut self, look: Look) -> Sight {
        let (found, asked) = ask::redis(self, self.is_refresh()).await;
        if let Some(found) = found {
            let has_answered = self.judge_found(found, look);
            if has_answered {
                // Taken in the same step by chance: it had expired, or stands under another name.
                if let Asked::Told(Turn::Mine(lease)) = asked {
                    lease.give_back(Word::Look);
                }
                return Sight::Settled;
            }
        }
        if self.is_for_itself() {
            return Sight::Turn(Turn::Alone);
        }
        let seen = match asked {
            Asked::Told(turn) => return Sight::Turn(turn),
            Asked::Not(seen) => seen,
        };
        // By now nobody may wait any more: what is stored was good enough.
        match self.bid(self.is_refresh()).zip(self.fill.worker.redis.as_ref()) {
            Some((bid, redis)) => Sight::Turn(redis.lease(bid, seen).await),
            None => Sight::Turn(Turn::Alone),
        }
    }

    /// Whether what another fetches would be of no use to it, nor what it fetches to others: what is stored has to be
    /// confirmed for each request, or is not for this one.
    const fn is_for_itself(&self) -> bool {
        match self.looked {
            Looked::Refused(_) => true,
            Looked::MustAsk(because) => {
                !matches!(because, MustAsk::Stale | MustAsk::Purged | MustAsk::Unheard)
            }
            Looked::Nothing | Looked::OtherVariant | Looked::Partial => false,
        }
    }

    /// What is stored is judged, and published where it answers; whether that settles it.
    fn judge_found(&mut self, found: Arc<StoredResponse>, look: Look) -> bool {
        let worker = &self.fill.worker;
        let now = (worker.now(), worker.mono());
        let answers = found.cut(&self.fill.asked.facts, &self.fill.asked.headers).is_some();
        match worker.reuse(&found, &self.fill.asked.facts, &self.cache.policy, now) {
            Reuse::Fresh(_) if answers => {
                self.promote(&found);
                self.tell(Landing::Found(found));
                return true;
            }
            _ if look == Look::Again => {}
            Reuse::Fresh(_) => {
                self.looked = Looked::Partial;
                self.begin_with(found);
            }
            Reuse::Stale { grace, because } => {
                self.looked = Looked::MustAsk(because);
                if grace.is_some() && answers {
                    self.promote(&found);
                    self.tell(Landing::Found(Arc::clone(&found)));
                }
                self.begin_with(found);
            }
            Reuse::Refused(because) => self.looked = Looked::Refused(because),
        }
        false
    }

    /// Something is stored after all, so more than thought may be wanted. Never less: whoever waits on this
    /// flight waits for what its seat was taken for.
    fn begin_with(&mut self, found: Arc<StoredResponse>) {
        let config = &self.fill.snapshot.config.cache;
        let want = super::plan::want(&self.fill.asked, Some(&found), &self.cache.policy, config);
        if want == super::Want::Whole {
            self.fill.want = want;
        }
        // What memory holds may stand in for an origin that fails; the same from elsewhere may not, for long.
        let is_held = |stale: &Arc<StoredResponse>| {
            let whole = |response: &StoredResponse| matches!(response.content, Content::Whole(_));
            whole(stale)
                && whole(&found)
                && stale.selecting == found.selecting
                && stale.facts.response_time >= found.facts.response_time
        };
        if !self.fill.stale.as_ref().is_some_and(is_held) {
            self.fill.stale = Some(found);
        }
    }

    /// Who asks for a lease for this fill; nobody where the route, or what is known of its key, is against it.
    pub(super) fn bid(&self, refresh: bool) -> Option<Bid<'_>> {
        let (fill, shared) = (&self.fill, &self.fill.worker.shared);
        let leases = shared.leases.get().filter(|_| self.cache.fleet_collapse && fill.bids)?;
        // The last one brought nothing that others could use: nobody waits for the next.
        let resource = shared.memory.again(&fill.key);
        let is_unshared =
            resource.is_some_and(|known| known.unshared(fill.class, fill.worker.now()).is_some());
        // It will likely not be in Redis again, so nobody is to wait for it.
        let most = fill.snapshot.config.cache.redis_max_object;
        let is_large = fill.stale.as_ref().is_some_and(|stale| stale.content.held() > most);
        (!is_unshared && !is_large).then_some(Bid { leases, lane: fill.lane, refresh })
    }
}
