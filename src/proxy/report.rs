//! The end guard: whatever happens to a request, telemetry hears of it once.
//!
//! Steps note what they learn; dropping the report, at the end of the body or wherever the client
//! left, hands it in.
//! Must not know: how it is counted, logged or shown.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};

use crate::clock::Mono;
use crate::fields::trace::Ids;
use crate::store::{Passing, STREAMING};
use crate::stored::{CacheKey, StoredResponse};
use crate::telemetry::{
    self, Cause, End, Finished, FinishedHeads, Outcome, Phase, Setting, Source, Timeline,
};
use crate::worker::{Asked, Fetched, Snapshot, Worker};

/// Status that is noted when the client left before there was an answer.
const CLIENT_CLOSED: u16 = 499;

/// What will be told of a request.
pub(super) struct Report {
    worker: Arc<Worker>,
    snapshot: Arc<Snapshot>,
    asked: Arc<Asked>,
    route: Option<usize>,
    /// The key, where the client asks to be told.
    pub key: Option<CacheKey>,
    pub timeline: Timeline,
    pub outcome: Outcome,
    /// What a miss was due to, where its word does not say it all.
    pub cause: Option<Cause>,
    pub status: u16,
    pub bytes: u64,
    pub end: End,
    /// When it ended, where that is known before this is dropped.
    pub ended: Option<Mono>,
    /// What it was answered with, where a log asks for it.
    pub answer: Answer,
    /// Nobody is told: there is no such request.
    mute: bool,
}

/// The origin's answer, as the log tells of it.
#[derive(Default)]
pub(super) enum Answer {
    /// Nobody has asked, or there is none.
    #[default]
    Untold,
    /// From a tier, and how old it was.
    Stored(Arc<StoredResponse>, Duration),
    /// On its way into the cache.
    Fetched(Arc<Fetched>),
    /// For this client alone.
    Alone(Box<HeaderMap>),
}

impl Report {
    /// Tells the operator of a setting that the request has met.
    pub fn hint(&self, setting: Setting, message: &str) {
        let route = self.route.and_then(|route| self.snapshot.route(route)).map_or("", |route| &route.name);
        self.worker.shared.hints.met(setting, route, message, self.worker.mono());
    }

    /// Opens the report of a request that began at `start`.
    pub fn open(
        worker: &Arc<Worker>,
        snapshot: &Arc<Snapshot>,
        asked: &Arc<Asked>,
        route: Option<usize>,
        start: Mono,
    ) -> Box<Self> {
        snapshot.shard(worker).begin();
        let mut report = Self::mute(worker, snapshot, asked, route, start);
        report.mute = false;
        report
    }

    /// That of a request that is only thought of: it tells nobody anything, neither now nor at its end.
    pub fn mute(
        worker: &Arc<Worker>,
        snapshot: &Arc<Snapshot>,
        asked: &Arc<Asked>,
        route: Option<usize>,
        start: Mono,
    ) -> Box<Self> {
        // It goes through every step, and each would move it.
        Box::new(Self {
            mute: true,
            worker: Arc::clone(worker),
            snapshot: Arc::clone(snapshot),
            asked: Arc::clone(asked),
            route,
            key: None,
            timeline: Timeline::new(start),
            outcome: Outcome::new(Source::Local),
            cause: None,
            status: CLIENT_CLOSED,
            bytes: 0,
            end: End::ClientGone,
            ended: None,
            answer: Answer::Untold,
        })
    }

    /// Whether a log asks for the heads.
    pub fn tells_heads(&self) -> bool {
        tells_heads(&self.worker)
    }

    /// Whether the request is a HEAD, whose answer has no body whoever gives it.
    pub fn is_head(&self) -> bool {
        self.asked.method == Method::HEAD
    }

    /// For bugs to order.
    #[cfg(test)]
    pub fn path(&self) -> &str {
        self.asked.target.path()
    }

    /// Notes how long a phase took that began at `since`.
    pub fn mark(&mut self, phase: Phase, since: Mono) {
        self.timeline.add(phase, self.worker.mono().since(since));
    }

    /// What an answer that is not at hand takes of memory, for as long as it is on its way.
    pub fn passing(&self) -> Passing {
        self.worker.shared.memory.in_flight().passing(STREAMING)
    }

    /// The time for durations.
    pub fn mono(&self) -> Mono {
        self.worker.mono()
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if self.mute {
            return;
        }
        // A bug of ours is no client that left.
        if std::thread::panicking() {
            self.end = End::Broken;
            if self.status == CLIENT_CLOSED {
                self.status = 500;
            }
        }
        let total = self.ended.unwrap_or_else(|| self.mono()).since(self.timeline.start());
        let Self { worker, snapshot, asked, route, timeline, outcome, answer, .. } = &*self;
        let (cause, status, bytes, end) = (self.cause, self.status, self.bytes, self.end);
        let route = *route;
        // A refresh may go on that asks later what this request is called.
        let sole = Arc::strong_count(asked) == 1;
        Told {
            worker,
            snapshot,
            asked,
            route,
            timeline,
            outcome,
            cause,
            status,
            bytes,
            end,
            total,
            answer,
            sole,
        }
        .tell();
    }
}

/// Whether a log of this process asks for the heads.
pub(super) fn tells_heads(worker: &Worker) -> bool {
    worker.shared.access.as_ref().is_some_and(telemetry::AccessLog::tells_heads)
}

/// What a request has come to. For each that is told, its coming has to have been counted ([`Shard::begin`]).
///
/// [`Shard::begin`]: telemetry::Shard::begin
pub(super) struct Told<'a> {
    pub worker: &'a Worker,
    pub snapshot: &'a Snapshot,
    pub asked: &'a Asked,
    pub route: Option<usize>,
    pub timeline: &'a Timeline,
    pub outcome: &'a Outcome,
    pub cause: Option<Cause>,
    pub status: u16,
    pub bytes: u64,
    pub end: End,
    pub total: Duration,
    pub answer: &'a Answer,
    /// Nobody else knows of the request any more.
    pub sole: bool,
}

impl Told<'_> {
    /// Hands it in.
    pub fn tell(&self) {
        let Self { worker, snapshot, asked, route, total, .. } = *self;
        let config = &snapshot.config;
        let taken = route.and_then(|route| snapshot.route(route));
        let slow_after = taken.map_or(config.timing.slow_request, |route| route.slow_request);
        let fields = self.stored_fields();
        let finished = Finished {
            route,
            route_name: taken.map_or("-", |route| &route.name),
            method: &asked.method,
            host: &asked.authority,
            path: asked.target.as_str(),
            version: asked.version,
            client: asked.client,
            at: asked.at,
            status: self.status,
            outcome: self.outcome,
            cause: self.cause,
            timeline: self.timeline,
            total,
            bytes: self.bytes,
            end: self.end,
            heads: self.heads(&fields),
            ids: self.ids(slow_after),
            redact: &config.log.redact,
        };
        let (shard, shared) = (snapshot.shard(worker), &worker.shared);
        let logs = (shared.access.as_ref(), shared.spans.as_ref());
        telemetry::finish(&finished, shard, logs, (slow_after, &shared.slow));
    }

    /// What it is called, where a line will say so: else nothing is made, nor looked for.
    fn ids(&self, slow_after: Option<Duration>) -> Option<&Ids> {
        let (asked, tracing) = (self.asked, self.snapshot.config.log.trace);
        if tells_heads(self.worker) || slow_after.is_some_and(|limit| self.total > limit) {
            return Some(asked.ids(tracing));
        }
        self.worker.shared.spans.as_ref().and_then(|_| match self.sole {
            true => asked.ids_if_recorded(tracing),
            false => Some(asked.ids(tracing)),
        })
    }

    /// The fields of what is stored, where such a log is told of them.
    fn stored_fields(&self) -> Option<HeaderMap> {
        match self.answer {
            Answer::Stored(stored, _) if tells_heads(self.worker) => Some(stored.headers.to_map()),
            Answer::Stored(..) | Answer::Untold | Answer::Fetched(_) | Answer::Alone(_) => None,
        }
    }

    /// What such a log is told of them; `fields` of what is stored.
    fn heads<'a>(&'a self, fields: &'a Option<HeaderMap>) -> FinishedHeads<'a> {
        let untold = FinishedHeads { scheme: self.asked.scheme, ..FinishedHeads::default() };
        if !tells_heads(self.worker) {
            return untold;
        }
        let cache = self.route.and_then(|route| self.snapshot.cache(route));
        let keyed = cache.map_or(&[][..], |cache| &cache.key.headers);
        let heads = FinishedHeads { request: Some(&self.asked.headers), keyed, ..untold };
        match self.answer {
            Answer::Untold => heads,
            Answer::Stored(stored, age) => FinishedHeads {
                answer: fields.as_ref(),
                length: Some(stored.content.length()),
                age: Some(*age),
                ..heads
            },
            Answer::Fetched(fetched) => FinishedHeads { answer: Some(&fetched.headers), ..heads },
            Answer::Alone(headers) => FinishedHeads { answer: Some(headers), ..heads },
        }
    }
}
