//! What is told of what a request had others asked: to the counts, and to who collects traces.
//!
//! Knows that no span is to be made where nobody collects any.
//! Must not know: what spans look like, or when origins and Redis are asked.

use http::Method;

use super::{Asked, Snapshot, Worker};
use crate::clock::Mono;
use crate::fields::trace::TraceParent;
use crate::store::Absent;
use crate::telemetry::{Asking, OriginAsked, RedisAsked, Spans};
use crate::upstream::{ForwardError, Forwarded};

/// A request that an origin was sent, on behalf of another.
pub struct Sent<'a> {
    /// An index into the configuration's routes.
    pub route: usize,
    /// Its method.
    pub method: &'a Method,
    /// When.
    pub at: Mono,
    /// Nobody waits for it.
    pub is_refresh: bool,
}

impl Worker {
    /// An origin has been asked for `asked`: counted, and told to who collects traces.
    pub fn note_origin(
        &self,
        snapshot: &Snapshot,
        asked: &Asked,
        sent: &Sent<'_>,
        answer: &Result<Forwarded, ForwardError>,
    ) {
        let answered = answer.as_ref().map_or_else(|_| self.mono(), |forwarded| forwarded.came);
        let took = answered.since(sent.at);
        snapshot.shard(self).origin_fetch(Some(sent.route), took);
        let Some((spans, of)) = self.collects(snapshot, asked) else { return };
        let server = match answer {
            Ok(forwarded) => &*forwarded.server,
            Err(error) => &*error.place().server,
        };
        let asking = Asking { of, start: sent.at, took, server };
        let origin = OriginAsked {
            method: sent.method,
            path: asked.target.as_str(),
            redact: &snapshot.config.log.redact,
            upstream: snapshot.upstream_name(sent.route),
            answer: answer
                .as_ref()
                .map(|forwarded| forwarded.response.status().as_u16())
                .map_err(ForwardError::as_str),
            is_refresh: sent.is_refresh,
        };
        spans.origin(&asking, &origin);
    }

    /// The shared tier has been asked for `asked`, at `start`.
    pub fn note_redis<T>(&self, snapshot: &Snapshot, asked: &Asked, start: Mono, found: &Result<T, Absent>) {
        let Some((spans, of)) = self.collects(snapshot, asked) else { return };
        let found = match found {
            Ok(_) => RedisAsked::Said("found"),
            Err(why @ (Absent::NotFound | Absent::OtherVariant)) => RedisAsked::Said(why.as_str()),
            Err(why @ (Absent::Deadline | Absent::Error | Absent::Damaged(_))) => {
                RedisAsked::Failed(why.as_str())
            }
            // It was not asked.
            Err(Absent::Open | Absent::Full) => return,
        };
        spans.redis(&Asking { of, start, took: self.mono().since(start), server: "" }, &found);
    }

    fn collects(&self, snapshot: &Snapshot, asked: &Asked) -> Option<(&Spans, TraceParent)> {
        let spans = self.shared.spans.as_ref()?;
        let trace = asked.ids(snapshot.config.log.trace).trace?;
        Some((spans, trace))
    }
}
