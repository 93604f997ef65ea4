//! The end guard: whatever happens to a request, telemetry hears of it once.
//!
//! Steps note what they learn; dropping the report, at the end of the body or wherever the client
//! left, hands it in.
//! Must not know: how it is counted, logged or shown.

use std::sync::Arc;

use http::Method;

use crate::clock::Mono;
use crate::store::{Passing, STREAMING};
use crate::stored::CacheKey;
use crate::telemetry::{self, Cause, End, Finished, Outcome, Phase, Setting, Source, Timeline};
use crate::worker::{Asked, Snapshot, Worker};

/// Status that is noted when the client left before there was an answer.
const CLIENT_CLOSED: u16 = 499;

/// What will be told of a request.
pub(super) struct Report {
    worker: Arc<Worker>,
    snapshot: Arc<Snapshot>,
    asked: Arc<Asked>,
    route: Option<usize>,
    /// The key, where the client asks to be told.
    pub key: Option<Arc<CacheKey>>,
    pub timeline: Timeline,
    pub outcome: Outcome,
    /// What a miss was due to, where its word does not say it all.
    pub cause: Option<Cause>,
    pub status: u16,
    pub bytes: u64,
    pub end: End,
    /// When it ended, where that is known before this is dropped.
    pub ended: Option<Mono>,
    /// Nobody is told: there is no such request.
    mute: bool,
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
        })
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
        let config = &self.snapshot.config;
        let finished = Finished {
            route: self.route,
            route_name: self
                .route
                .and_then(|route| self.snapshot.route(route))
                .map_or("-", |route| &route.name),
            method: &self.asked.method,
            host: &self.asked.authority,
            path: self.asked.target.as_str(),
            version: self.asked.version,
            client: self.asked.client,
            at: self.asked.at,
            status: self.status,
            outcome: &self.outcome,
            cause: self.cause,
            timeline: &self.timeline,
            total: self.ended.unwrap_or_else(|| self.mono()).since(self.timeline.start()),
            bytes: self.bytes,
            end: self.end,
        };
        let shard = self.snapshot.shard(&self.worker);
        telemetry::finish(&finished, shard, self.worker.shared.access.as_ref(), config.timing.slow_request);
    }
}
