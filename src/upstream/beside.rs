//! The second attempt beside a first one that does not begin its answer: when it sets out, where to, which of the two
//! is taken, and what it says of the first server that it was waited for in vain.
//!
//! Knows servers by their health and room. Must not know: how an attempt is made.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Request;
use tokio::time::{Instant, Sleep};

use super::Upstream;
use super::balance::{Candidate, Standing, choose};
use super::body::RequestBody;
use super::error::ForwardError;
use super::forward::{Answer, Trip};
use super::hedge::{Race, Role};

/// How long after it has set out a hedge may keep a client from an error that the first server has answered; less where
/// less is slow (`timeout.hedge_after`).
const FOR_A_BETTER: Duration = Duration::from_secs(1);

impl Upstream {
    /// When another server is asked too, of a request that may be given to one and waits for longer than that. Who has
    /// waited for others' answers and has less left has no such moment: what is not yet slow is no reason to ask twice.
    pub(super) fn hedge_at(&self, race: &Race<'_>, patience: Duration) -> Option<Instant> {
        let after = self.timeout.hedge_after?;
        if self.pools.len() > 1 {
            self.hedging.earn();
        }
        (race.may_move() && after < patience).then(|| race.since + after)
    }

    /// The first attempt has not begun its answer: as soon as it may, a second one sets out beside it, to another
    /// server, for what is left of `timeout.first_byte`. The first to begin a good answer is taken.
    ///
    /// An answer of 5xx is kept in hand while the other attempt may still bring a better one: a hedge must not turn
    /// what would have been answered into an error, nor an error be given that a server which is well could have kept
    /// from the client. If the other brings none, or only its own error, the first's is given, then the hedge's.
    ///
    /// The hedge's waits as long as the first may take, which has all of its time. The first's waits for
    /// [`FOR_A_BETTER`] at most from when the hedge set out: without a hedge it would have been given, or what is stored
    /// in its place, at once, and it is for silence, not for errors, that another server is asked.
    ///
    /// The attempt that is not taken is dropped, as both are where the client leaves: its connection is closed, never
    /// used again, and its slot goes to the next in line.
    pub(super) async fn hedged<F>(
        &self,
        mut first: Pin<&mut F>,
        mut trip: Trip<'_>,
        mut over: Pin<&mut Sleep>,
    ) -> Result<Answer, ForwardError>
    where
        F: Future<Output = Result<Answer, ForwardError>>,
    {
        let race = trip.race;
        let request = tokio::select! {
            biased;
            answer = first.as_mut() => return answer,
            request = self.hedging.until(|| self.hedge(&mut trip)) => request,
            () = over.as_mut() => return Err(self.overdue(race)),
        };
        let Some(request) = request else {
            return tokio::select! {
                biased;
                answer = first.as_mut() => answer,
                () = over.as_mut() => Err(self.overdue(race)),
            };
        };
        let for_a_better = self.timeout.hedge_after.map_or(FOR_A_BETTER, |after| after.min(FOR_A_BETTER));
        let enough = Instant::now() + for_a_better;
        let mut second = pin!(self.exchange(&mut trip, request));
        let (mut one, mut two) = (None, None);
        loop {
            tokio::select! {
                biased;
                answer = first.as_mut(), if one.is_none() => one = Some(answer),
                answer = second.as_mut(), if two.is_none() => two = Some(answer),
                () = over.as_mut() => {
                    let overdue = self.overdue(race);
                    // Better what has been said than that nothing was.
                    let said = [one, two].into_iter().flatten().find_map(Result::ok);
                    return said.ok_or(overdue);
                }
            }
            // Where one has failed, the other may turn to its server.
            for (answer, role) in [(&one, Role::First), (&two, Role::Hedge)] {
                if matches!(answer, Some(Err(_))) {
                    race.left(role);
                }
            }
            match (one, two) {
                (Some(Ok(answer)), _) if !answer.failed() => return Ok(answer),
                // A refusal may be due to the first server's being at work on just that: what is used up once, or
                // begun and not ended. So it waits for that one, as an error does.
                (first, Some(Ok(answer))) if !answer.failed() && (first.is_some() || !answer.refuses()) => {
                    if first.is_none() {
                        self.lost(race);
                    }
                    answer.conn.count_hedge_won();
                    return Ok(answer);
                }
                (Some(Err(_)), Some(Ok(error))) => return Ok(error),
                (Some(answer), Some(_)) => return answer,
                (Some(Ok(error)), None) => {
                    if Instant::now() >= enough {
                        return Ok(error);
                    }
                    let end = over.deadline().min(enough);
                    over.as_mut().reset(end);
                    (one, two) = (Some(Ok(error)), None);
                }
                pending => (one, two) = pending,
            }
        }
    }

    /// Chooses the server of a hedge, if one may be sent now; `Some(None)` if never.
    fn hedge(&self, trip: &mut Trip<'_>) -> Option<Option<Box<Request<RequestBody>>>> {
        let race = trip.race;
        let index = self.pick_beside(race)?;
        let silent =
            race.first_at().and_then(|at| self.pools.get(at)).is_some_and(|at| at.health.is_silent());
        if !silent && !self.hedging.take() {
            return None;
        }
        let request = race.spare.as_ref().and_then(|spare| spare.request());
        if request.is_none() || !race.hedge() {
            return Some(None);
        }
        let gone = race.since.elapsed();
        (trip.first, trip.times.hedge) = (Some(index), Some(gone));
        trip.waited += gone;
        Some(request)
    }

    /// The first attempt was waited for in vain: for so long that a hedge has brought a good answer, or until
    /// `timeout.first_byte`. Where its server has said nothing to anybody meanwhile, and another has, that counts against it.
    pub(super) fn lost(&self, race: &Race<'_>) {
        race.in_vain();
        let Some(pool) = race.first_at().and_then(|at| self.pools.get(at)) else { return };
        let mut others = self.pools.iter().filter(|other| !Arc::ptr_eq(other, pool));
        if pool.health.spoke_since(race.begun) || !others.any(|other| other.health.spoke_since(race.begun)) {
            return;
        }
        let now = self.clock.mono();
        if pool.health.strike(now) {
            self.complaints.tell_silent(&pool.place(), now);
            self.hedging.tell_all();
        }
    }

    /// A server for a hedge: none that is set aside, doubted or at its limit, and one that has answered somebody
    /// meanwhile before one that may hang as well.
    fn pick_beside(&self, race: &Race<'_>) -> Option<usize> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let now = self.clock.mono();
        let mut candidates: Vec<_> = self
            .pools
            .iter()
            .zip(race.standings(Role::Hedge))
            .map(|(pool, standing)| {
                let candidate = pool.candidate(standing, false, now);
                let fit = standing == Standing::Untried && !candidate.aside && pool.is_free();
                if fit { candidate } else { Candidate { standing: Standing::Failed, ..candidate } }
            })
            .collect();
        for (candidate, pool) in candidates.iter_mut().zip(&self.pools) {
            candidate.aside = !pool.health.spoke_since(race.begun);
        }
        choose(&candidates, turn)
    }
}
