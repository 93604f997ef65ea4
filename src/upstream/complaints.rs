//! Failures of an upstream, told in the log.
//!
//! Knows which are the upstream's: one that is down fails every request, so not each is told.
//! Must not know: what clients are told.

use super::{ForwardError, Place};
use crate::clock::Mono;
use crate::telemetry::Paced;

/// What has been told, and what has not.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    failed: Paced,
    silent: Paced,
}

impl Complaints {
    /// Tells of a failure, unless one was told just now.
    pub(super) fn tell(&self, error: &ForwardError, now: Mono) {
        // A client's body that broke off is not the upstream's failure.
        if error.is_the_clients() {
            return;
        }
        if let Some(left_out) = self.failed.due(now) {
            let upstream = &*error.place().upstream;
            tracing::warn!(target: "larder::upstream", upstream, cause = error.as_str(), %error, left_out, "no answer");
        }
    }

    /// Tells of a server that answers nobody: no request may have failed by it, and yet somebody ought to know.
    pub(super) fn tell_silent(&self, server: &Place, now: Mono) {
        if let Some(left_out) = self.silent.due(now) {
            let upstream = &*server.upstream;
            tracing::warn!(target: "larder::upstream", upstream, cause = "silent", left_out,
                "{server} takes requests and answers none: others are asked in its place");
        }
    }
}
