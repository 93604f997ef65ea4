//! Failures of an upstream, told in the log.
//!
//! Knows when one has been told lately: an origin that is down fails every request, and the log must
//! stay readable. What was left out is counted in the next line.
//! Must not know: what clients are told.

use std::time::Duration;

use parking_lot::Mutex;

use super::ForwardError;
use crate::clock::Mono;

/// At most one line in this time.
const PAUSE: Duration = Duration::from_secs(1);

/// What has been told, and what has not.
#[derive(Debug, Default)]
pub(super) struct Complaints(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    told: Option<Mono>,
    left_out: u64,
}

impl Complaints {
    /// Tells of a failure, unless one was told just now.
    pub(super) fn tell(&self, error: &ForwardError, now: Mono) {
        // A client's body that broke off is not the upstream's failure.
        if error.is_the_clients() {
            return;
        }
        if let Some(left_out) = self.due(now) {
            let upstream = &*error.place().upstream;
            tracing::warn!(target: "larder::upstream", upstream, cause = error.as_str(), %error, left_out, "no answer");
        }
    }

    /// How many were left out since the last line, if it is time for another.
    fn due(&self, now: Mono) -> Option<u64> {
        let mut state = self.0.lock();
        if state.told.is_some_and(|told| now.since(told) < PAUSE) {
            state.left_out = state.left_out.saturating_add(1);
            return None;
        }
        state.told = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_and_a_count_of_the_rest() {
        let complaints = Complaints::default();
        let at = |millis: u64| Mono::from_nanos(millis * 1_000_000);
        assert_eq!(complaints.due(at(5)), Some(0));
        assert_eq!(complaints.due(at(5)), None);
        assert_eq!(complaints.due(at(1004)), None);
        assert_eq!(complaints.due(at(1005)), Some(2));
        assert_eq!(complaints.due(at(9000)), Some(0));
    }
}
