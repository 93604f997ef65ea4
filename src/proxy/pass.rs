//! Forwards one request for one client.
//!
//! Knows what to do around it: unsafe methods invalidate what is stored, upgrades become tunnels.
//! Must not know: why the request is passed; that stands in its outcome.
//!
//! Cancellation: dropping the future drops the exchange with the origin and closes its connection;
//! the origin may have acted on the request already.

use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use hyper::upgrade::OnUpgrade;

use crate::fields::groups::Groups;
use crate::fill::{is_failure, outbound};
use crate::rules::{self, OriginFailure, Reusable};
use crate::stored::{Born, Cut, StoredResponse};
use crate::telemetry::{Bypass, Miss, Outcome, Phase, Source};
use crate::upstream::{ForwardError, Forwarded, OriginBody, RequestBody};
use crate::wire::Flaw;
use crate::worker::{self, Forgotten, Landing, OwnerLanding};

use super::Step;
use super::adopting::{self, Adoptable, Listening, Sent};
use super::deliver::Deliver;
use super::exchange::Exchange;
use super::failure::Failure;
use super::gather;
use super::receive::protocol_wanted;
use super::transform;
use super::tunnel::{self, Permit, Upgrade};

/// A request that goes to the origin on its own account.
pub(super) struct Pass {
    exchange: Exchange,
    outcome: Outcome,
    upgrade: Option<Upgrade>,
    permit: Option<Permit>,
    /// What is stored, no longer fresh: it may stand in for an origin that fails.
    stale: Option<Arc<StoredResponse>>,
    /// What a HEAD brings is news of what is stored.
    listening: Option<Listening>,
}

impl Pass {
    /// Without having looked.
    pub fn bypassing(exchange: Exchange, why: Bypass, upgrade: Option<Upgrade>) -> Self {
        let upgrade = upgrade.filter(|_| why == Bypass::Upgrade || why == Bypass::Off);
        let outcome = Outcome::new(Source::Bypass(why));
        Self { exchange, outcome, upgrade, permit: None, stale: None, listening: None }
    }

    /// After having looked in vain.
    pub fn missing(exchange: Exchange, miss: Miss) -> Self {
        let outcome = exchange.missed(miss);
        Self { exchange, outcome, upgrade: None, permit: None, stale: None, listening: None }
    }

    /// With something stored that may stand in for an origin that fails.
    pub fn or_stale(self, stale: Option<Arc<StoredResponse>>) -> Self {
        Self { stale, ..self }
    }

    /// With an ear for what a HEAD says of what is stored.
    pub fn listening(self, listening: Option<Listening>) -> Self {
        Self { listening, ..self }
    }

    pub async fn run(mut self: Box<Self>) -> Step {
        if self.upgrade.is_some() && protocol_wanted(&self.exchange.asked.headers).is_some() {
            match Permit::ask(&self.exchange) {
                Ok(permit) => self.permit = Some(permit),
                Err(failure) => return self.fail(failure),
            }
        }
        // Before anything is taken that others may want: a seat, a connection.
        if let Err(failure) = gather::body(&mut self.exchange).await {
            return self.fail(failure);
        }
        let seat = adopting::seat(&self.exchange);
        // Of what can be news of what is stored.
        let sent = (seat.is_some() || self.listening.is_some()).then(|| Sent::now(&self.exchange));
        match self.forward().await {
            Ok(response) => {
                let status = response.status().as_u16();
                if let Some(standing_in) =
                    self.standing_in(OriginFailure::Error).filter(|_| is_failure(status))
                {
                    return self.stand_in(standing_in, Some(status));
                }
                if let Some((listening, sent)) = self.listening.take().zip(sent) {
                    // In a box, as all that few requests come to and that is large.
                    Box::pin(adopting::hear(&self.exchange, listening, &response, sent)).await;
                }
                let adoptable = sent.zip(adopting::adoptable(&self.exchange, &response, sent, seat));
                let forgotten = match self.invalidates(&response) {
                    true => Box::pin(self.invalidate(&response)).await,
                    false => Vec::new(),
                };
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    return self.switch(response);
                }
                match adoptable {
                    // In boxes, too.
                    Some((sent, adoptable)) => {
                        Box::pin(self.adopt(adoptable, *response, sent, &forgotten)).await
                    }
                    None => self.deliver(response),
                }
            }
            // What a client did wrong says nothing of the origin.
            Err(error) if error.is_the_clients() => {
                let max = self.exchange.max_body();
                self.fail(Failure::forward(&error, max))
            }
            Err(error) => self.unanswered(&error),
        }
    }

    /// Whoever has waited for others has no time left to ask: as if the origin had not answered.
    pub fn late(self: Box<Self>) -> Step {
        let Exchange { snapshot, route, waited, .. } = &self.exchange;
        let error = snapshot.upstream(*route).map_or_else(ForwardError::nowhere, |it| it.late(*waited));
        self.unanswered(&error)
    }

    /// What is stored stands in for an origin that does not answer, if it may.
    fn unanswered(self: Box<Self>, error: &ForwardError) -> Step {
        match self.standing_in(OriginFailure::NoAnswer) {
            Some(standing_in) => self.stand_in(standing_in, None),
            None => {
                let max = self.exchange.max_body();
                self.fail(Failure::forward(error, max))
            }
        }
    }

    fn deliver(self: Box<Self>, response: Box<Response<OriginBody>>) -> Step {
        Step::Deliver(Box::new(Deliver::passed(self.exchange, response, self.outcome)))
    }

    /// The answer to a POST goes out as it comes, and is kept for GETs.
    async fn adopt(
        self: Box<Self>,
        adoptable: Adoptable,
        response: Response<OriginBody>,
        sent: Sent,
        forgotten: &[Forgotten],
    ) -> Step {
        match adopting::adopt(&self.exchange, adoptable, response, sent, forgotten).await {
            Ok(OwnerLanding::Shared(Landing::Fetched(fetched), Some(own))) => {
                let outcome = Outcome { stored: true, ..self.outcome };
                Step::Deliver(Box::new(Deliver::growing(self.exchange, fetched, own, outcome)))
            }
            Ok(OwnerLanding::Private(response, _)) => self.deliver(response),
            Ok(OwnerLanding::Shared(..) | OwnerLanding::Revalidated(..) | OwnerLanding::Withdrawn(..)) => {
                self.fail(Failure::internal())
            }
            Err(response) => self.deliver(Box::new(response)),
        }
    }

    /// What is stored, if it may answer because the origin failed (RFC 5861 §4).
    fn standing_in(&self, failure: OriginFailure) -> Option<(Arc<StoredResponse>, Cut, Reusable)> {
        let (stale, cache) = self.stale.as_ref().zip(self.exchange.cache())?;
        let now = self.exchange.worker.now();
        // Who goes alone holds no seat, so a purge may have come and taken back its note: then what this
        // process had fetched is no longer held.
        let shared = &self.exchange.worker.shared;
        let gone = matches!(stale.standing.born(), Born::Here(_)) && !shared.memory.holds(stale);
        let purged = gone || shared.purges.is_purged(stale);
        let permit = stale.on_error(&self.exchange.asked.facts, &cache.policy, now, failure)?;
        let cut = stale.cut(&self.exchange.asked.facts, &self.exchange.asked.headers)?;
        let usable = !purged && transform::can_read(&self.exchange, stale);
        usable.then(|| (Arc::clone(stale), cut, permit))
    }

    fn stand_in(
        self: Box<Self>,
        (stale, cut, permit): (Arc<StoredResponse>, Cut, Reusable),
        status: Option<u16>,
    ) -> Step {
        let ttl = Some(permit.ttl());
        let outcome = Outcome { fwd_status: status, ttl, ..Outcome::new(Source::StaleIfError) };
        transform::deliver(self.exchange, stale, cut, permit, outcome)
    }

    async fn forward(&mut self) -> Result<Box<Response<OriginBody>>, ForwardError> {
        let body = self.exchange.body.take().unwrap_or_else(RequestBody::empty);
        let exchange = &self.exchange;
        let (worker, snapshot) = (&exchange.worker, &exchange.snapshot);
        let Some((route, upstream)) = exchange.route().zip(snapshot.upstream(exchange.route)) else {
            return Err(ForwardError::nowhere());
        };
        let protocol = self.upgrade.as_ref().and_then(|_| protocol_wanted(&exchange.asked.headers));
        let again =
            || outbound::pass(worker, &exchange.asked, route, protocol.clone(), exchange.alike.as_ref());
        let asked_at = worker.mono();
        let (interim, waited) = (exchange.interim(), exchange.waited);
        let alike = exchange.alike.as_ref().filter(|_| protocol.is_none() && body.is_end_stream());
        let ready = alike.and_then(|alike| outbound::ready(worker, &exchange.asked, route, alike));
        let request = ready.unwrap_or_else(|| with_body(again(), body));
        let forwarded = upstream.forward(worker.index, request, &again, interim.as_ref(), waited).await;
        let method = &exchange.asked.method;
        let sent = worker::Sent { route: exchange.route, method, at: asked_at, is_refresh: false };
        worker.note_origin(snapshot, &exchange.asked, &sent, &forwarded);
        let Forwarded { mut response, times, .. } = forwarded?;
        worker.shared.read_much(response.body_mut());
        let timeline = &mut self.exchange.report.timeline;
        timeline.add(Phase::Queue, times.queue);
        for (phase, time) in [(Phase::Connect, times.connect), (Phase::Hedge, times.hedge)] {
            if let Some(time) = time {
                timeline.add(phase, time);
            }
        }
        timeline.add(Phase::FirstByte, times.first_byte);
        Ok(response)
    }

    /// Whether the answer invalidates anything. A POST that only reads changes nothing.
    fn invalidates(&self, response: &Response<OriginBody>) -> bool {
        let Exchange { asked, content, .. } = &self.exchange;
        content.is_none() && rules::invalidates(&asked.method, response.status().as_u16())
    }

    /// RFC 9111 §4.4: a non-error answer to an unsafe method invalidates what is stored for its
    /// target, for the same-origin URLs that `Location` and `Content-Location` name, and for the groups
    /// that `Cache-Group-Invalidation` does (RFC 9875).
    ///
    /// Memory forgets at once, before the client hears of its success; Redis within its deadline,
    /// or later from a queue. Dropped while it waits for Redis (the client has left), that still holds.
    async fn invalidate(&self, response: &Response<OriginBody>) -> Vec<Forgotten> {
        let Exchange { worker, snapshot, asked, .. } = &self.exchange;
        let target = asked.target.as_str();
        let urls = rules::targets(asked.scheme, &asked.authority, target, response.headers());
        // All of them are begun before the first is waited for.
        let begun: Vec<_> = urls.iter().filter_map(|url| worker.forget(snapshot, url)).collect();
        // RFC 9875 §3: of a safe method it "MUST be ignored", and that does not come here.
        let groups = Groups::invalidated(response.headers());
        if !groups.is_empty() && self.exchange.cache().is_none_or(|cache| cache.group_invalidation) {
            worker.forget_groups(&self.exchange.key, &groups).await;
        }
        let mut forgotten = Vec::with_capacity(begun.len());
        for forgetting in begun {
            // What Redis did not take waits in a queue.
            forgotten.push(forgetting.await);
        }
        forgotten
    }

    /// The origin agreed to switch protocols: both connections become one tunnel.
    fn switch(self: Box<Self>, mut response: Box<Response<OriginBody>>) -> Step {
        let Self { exchange, outcome, upgrade, permit, stale, listening } = *self;
        let wanted = protocol_wanted(&exchange.asked.headers);
        let far = response.extensions_mut().remove::<OnUpgrade>();
        let far = far.filter(|_| wanted.is_some_and(|wanted| tunnel::is_one_of(&wanted, response.headers())));
        let (Some(near), Some(far), Some(permit)) = (upgrade, far, permit) else {
            // RFC 9110 §15.2.2: a 101 answers a request to upgrade, nothing else, and as that asked.
            let upstream = exchange.snapshot.upstream_name(exchange.route);
            let unasked = ForwardError::unasked(upstream, Flaw::UnaskedUpgrade);
            let max = exchange.max_body();
            return Box::new(Self { exchange, outcome, upgrade: None, permit: None, stale, listening })
                .fail(Failure::forward(&unasked, max));
        };
        let (idle, tunnels) = (exchange.snapshot.config.limits.tunnel_idle, &exchange.worker.shared.tunnels);
        tokio::spawn(tunnel::run(near, far, idle, tunnels, permit));
        Step::Deliver(Box::new(Deliver::passed(exchange, response, outcome)))
    }

    fn fail(self: Box<Self>, failure: Failure) -> Step {
        let Exchange { worker, snapshot, report, .. } = self.exchange;
        let source = match self.outcome.source {
            Source::Miss(miss) => Source::Failed(miss),
            Source::Bypass(why) => Source::FailedBypass(why),
            other => other,
        };
        Step::Deliver(Box::new(Deliver::failure(&Arc::clone(&worker), &snapshot, report, source, failure)))
    }
}

/// A request with its body, whose length is said.
fn with_body(mut request: Request<()>, body: RequestBody) -> Request<RequestBody> {
    if body.size_hint().exact().is_none() {
        // Said outright: of a GET that does not say so, hyper would drop the body.
        request.headers_mut().remove(header::CONTENT_LENGTH);
        request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    request.map(|()| body)
}
