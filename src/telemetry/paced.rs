//! When something that may happen very often is told in the log.
//!
//! Knows when it has been told lately: the log must stay readable whoever has a hand in it. What was left out is counted
//! in the next line.
//! Must not know: what is told.

use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Mono;

/// At most one line in this time.
const PAUSE: Duration = Duration::from_secs(1);

/// What has been told, and what has not.
#[derive(Debug, Default)]
pub struct Paced(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    told: Option<Mono>,
    left_out: u64,
}

impl Paced {
    /// How many were left out since the last line, if it is time for another.
    pub fn due(&self, now: Mono) -> Option<u64> {
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
        let paced = Paced::default();
        let at = |millis: u64| Mono::from_nanos(millis * 1_000_000);
        assert_eq!(paced.due(at(5)), Some(0));
        assert_eq!(paced.due(at(5)), None);
        assert_eq!(paced.due(at(1004)), None);
        assert_eq!(paced.due(at(1005)), Some(2));
        assert_eq!(paced.due(at(9000)), Some(0));
    }
}
