//! The end of a request: the one place that feeds metrics, slow-request log and access log.
//!
//! Knows the facts of a finished request. Must not know: how any of the three is kept or written.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, Version};

use super::access::AccessLog;
use super::cause::Cause;
use super::logs;
use super::metrics::Shard;
use super::outcome::Outcome;
use super::redact;
use super::timeline::Timeline;
use crate::clock::Timestamp;
use crate::fields::trace::Ids;

/// How a response's body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// All of it was handed to the connection.
    Complete,
    /// The client left before the end.
    ClientGone,
    /// The body could not be completed, and the client was cut off.
    Broken,
}

impl End {
    /// The word for logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client-gone",
            Self::Broken => "broken",
        }
    }
}

/// All that is known of a request when it is over.
#[derive(Clone, Debug)]
pub struct Finished<'a> {
    /// The route's place in the configuration; `None` where no route matched.
    pub route: Option<usize>,
    /// The route's name, for logs; `-` where no route matched.
    pub route_name: &'a str,
    /// The request's method.
    pub method: &'a Method,
    /// The request's authority, as received.
    pub host: &'a str,
    /// Path and query, as received.
    pub path: &'a str,
    /// The request's protocol version.
    pub version: Version,
    /// The peer, or whom a trusted proxy named.
    pub client: IpAddr,
    /// When the request arrived.
    pub at: Timestamp,
    /// The status delivered.
    pub status: u16,
    /// Where the answer came from, and why.
    pub outcome: &'a Outcome,
    /// What a miss was due to, where its word does not say it all.
    pub cause: Option<Cause>,
    /// Where the time went.
    pub timeline: &'a Timeline,
    /// From the request's head to the body's end.
    pub total: Duration,
    /// Bytes of body delivered.
    pub bytes: u64,
    /// How the body ended.
    pub end: End,
    /// For a log that tells of them.
    pub heads: Heads<'a>,
    /// What it is called, where a line tells of it.
    pub ids: Option<&'a Ids>,
    /// Arguments of its query whose values no line shows, in lower case.
    pub redact: &'a [String],
}

/// The heads of a request and of what it was answered with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heads<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Those of the request; `None` where nobody has asked to be told.
    pub request: Option<&'a HeaderMap>,
    /// Which of them are part of the route's keys.
    pub keyed: &'a [HeaderName],
    /// Those of the origin's answer, as it came or as it is stored; `None` where there is none.
    pub answer: Option<&'a HeaderMap>,
    /// Bytes of the whole representation, of what is stored.
    pub length: Option<u64>,
    /// How old what was stored was.
    pub age: Option<Duration>,
}

impl Finished<'_> {
    /// Its path and query, as a log may show them.
    pub(super) fn shown_path(&self) -> Cow<'_, str> {
        redact::path(self.path, self.redact)
    }

    /// Whether the request counts as failed: a status of 500 or above, or a body that could not be
    /// completed. A client that leaves is no failure.
    pub const fn failed(&self) -> bool {
        self.status >= 500 || matches!(self.end, End::Broken)
    }
}

/// Counts a finished request, and logs it where asked. Called exactly once for each
/// [`Shard::begin`]. Never blocks on the access log.
pub fn finish(r: &Finished, shard: &Shard, access: Option<&AccessLog>, slow_after: Option<Duration>) {
    shard.finish(r);
    if slow_after.is_some_and(|limit| r.total > limit) {
        shard.slow(r);
        logs::slow(r);
    }
    if let Some(access) = access {
        access.record(r);
    }
}

#[cfg(test)]
pub(super) mod sample {
    //! A finished request to start a test from.

    use super::*;

    /// Calls `with` with an ordinary finished request of this outcome.
    pub(in crate::telemetry) fn with<T>(outcome: &Outcome, with: impl FnOnce(Finished) -> T) -> T {
        let timeline = Timeline::new(crate::clock::Mono::default());
        with(Finished {
            route: Some(0),
            route_name: "users",
            method: &Method::GET,
            host: "example.com",
            path: "/users/1",
            version: Version::HTTP_11,
            client: IpAddr::from([192, 0, 2, 7]),
            at: Timestamp::from_millis(1_709_210_096_789),
            status: 200,
            outcome,
            cause: None,
            timeline: &timeline,
            total: Duration::from_micros(812),
            bytes: 37,
            end: End::Complete,
            heads: Heads { scheme: "http", ..Heads::default() },
            ids: None,
            redact: &[],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::access::Form;
    use super::super::gauges::Gauges;
    use super::super::lines::sink::Sink;
    use super::super::metrics::Metrics;
    use super::super::outcome::{Source, Tier};
    use super::*;

    #[test]
    fn only_what_is_slower_than_the_limit_is_slow_and_every_request_reaches_the_access_log() {
        let metrics = Metrics::new(&["users".to_owned()], 1);
        let sink = Sink::default();
        let access = AccessLog::new(Box::new(sink.clone()), Form::Json, 10).unwrap();
        let second = Duration::from_secs(1);
        let rows = [(Some(second), second, 0), (Some(second), second * 2, 1), (None, second * 2, 1)];
        for (limit, total, slow_so_far) in rows {
            sample::with(&Outcome::new(Source::Hit(Tier::Memory)), |r| {
                let shard = metrics.shard(0);
                shard.begin();
                finish(&Finished { total, ..r }, shard, Some(&access), limit);
            });
            assert_eq!(metrics.stats(&Gauges::default())["slow"], slow_so_far);
        }
        assert!(access.stop(Duration::from_secs(10)));
        assert_eq!(sink.text().lines().count(), rows.len());
        assert_eq!(metrics.stats(&Gauges::default())["total"], rows.len());
    }
}
