//! What a request has met that a setting decides, told in the log: the client reads the figure, the operator
//! the setting.
//!
//! Knows when one has been told lately: anybody can send such requests, and the log must stay readable. What
//! was left out is counted in the next line.
//! Must not know: what clients are told, or what a setting says.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Mono;

/// At most one line of each setting in this time.
const PAUSE: Duration = Duration::from_secs(10);
/// Bytes of a line's own words: some of them are a client's.
const LONGEST: usize = 256;

/// A setting that requests meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Setting {
    /// No `[[route]]` matches.
    Route,
    /// `max_body` of a route.
    MaxBody,
    /// `upgrade` of a route.
    Upgrade,
    /// `limits.target`
    Target,
    /// `limits.fields`
    Fields,
    /// `limits.tunnels_per_address`
    TunnelsPerAddress,
    /// `pool.max_tunnels` of an upstream.
    MaxTunnels,
}

impl Setting {
    /// Every one, for documentation.
    pub const ALL: [Self; 7] = [
        Self::Route,
        Self::MaxBody,
        Self::Upgrade,
        Self::Target,
        Self::Fields,
        Self::TunnelsPerAddress,
        Self::MaxTunnels,
    ];

    /// Its name in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route.match",
            Self::MaxBody => "route.max_body",
            Self::Upgrade => "route.upgrade",
            Self::Target => "limits.target",
            Self::Fields => "limits.fields",
            Self::TunnelsPerAddress => "limits.tunnels_per_address",
            Self::MaxTunnels => "upstream.pool.max_tunnels",
        }
    }
}

/// What has been told, and what has not.
#[derive(Debug, Default)]
pub struct Hints([State; Setting::ALL.len()]);

#[derive(Debug, Default)]
struct State {
    /// Nanoseconds from which on the next may be told.
    next: AtomicU64,
    left_out: AtomicU64,
}

impl Hints {
    /// Tells of a setting that a request has met, unless it was told just now. `route` is empty where none
    /// matches.
    pub fn met(&self, setting: Setting, route: &str, message: &str, now: Mono) {
        let Some(left_out) = self.due(setting, now) else { return };
        let setting = setting.as_str();
        let message = match message.char_indices().nth(LONGEST) {
            Some((end, _)) => message.get(..end).unwrap_or(""),
            None => message,
        };
        tracing::info!(target: "larder::hint", setting, route, left_out, "{message}");
    }

    /// How many were left out since the last line, if it is time for another. Without a lock: in a flood
    /// every thread asks.
    fn due(&self, setting: Setting, now: Mono) -> Option<u64> {
        let state = self.0.get(setting as usize)?;
        let (next, now) = (state.next.load(Ordering::Relaxed), nanos(now.since(Mono::default())));
        let is_mine = now >= next
            && state
                .next
                .compare_exchange(
                    next,
                    now.saturating_add(nanos(PAUSE)),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok();
        if is_mine {
            return Some(state.left_out.swap(0, Ordering::Relaxed));
        }
        state.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_each_setting_in_ten_seconds_and_a_count_of_the_rest() {
        let hints = Hints::default();
        let at = |seconds: u64| Mono::from_nanos(seconds * 1_000_000_000);
        assert_eq!(hints.due(Setting::Route, at(5)), Some(0));
        assert_eq!(hints.due(Setting::Upgrade, at(5)), Some(0), "each for itself");
        assert_eq!(hints.due(Setting::Route, at(5)), None);
        assert_eq!(hints.due(Setting::Route, at(14)), None);
        assert_eq!(hints.due(Setting::Route, at(15)), Some(2));
        assert_eq!(hints.due(Setting::Route, at(90)), Some(0));
    }

    #[test]
    fn each_has_a_place_and_a_name_of_its_own() {
        for (place, setting) in Setting::ALL.into_iter().enumerate() {
            assert_eq!(setting as usize, place);
            assert!(
                Setting::ALL.into_iter().all(|other| other == setting || other.as_str() != setting.as_str())
            );
        }
    }
}
