//! Where a request's time went: one mark per phase, and the two timing headers.
//!
//! Knows the phases and how durations are written. A mark is one array store, a header one pass
//! over ten numbers; nothing here allocates but the header's value.
//! Must not know: the clock (it is handed durations), or which headers are switched on.

use std::time::Duration;

use crate::clock::Mono;
use crate::fields::digits::{self, Text};

/// A part of a request's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Waiting for a free connection to the upstream.
    Queue,
    /// Looking into the memory tier.
    Memory,
    /// Asking Redis.
    Redis,
    /// Waiting for another node's fetch.
    Lease,
    /// Waiting for a fetch that another request began.
    Wait,
    /// Connecting to the origin.
    Connect,
    /// Waiting for a first server alone, before a second one was asked beside it, which has answered.
    Hedge,
    /// From the request's last byte sent to the response's first byte.
    FirstByte,
    /// Waiting for a stored body to be encoded or decoded.
    Coding,
    /// Delivering the body.
    Body,
}

impl Phase {
    /// Every phase, in the order in which logs show them.
    pub const ALL: [Self; 10] = [
        Self::Queue,
        Self::Memory,
        Self::Redis,
        Self::Lease,
        Self::Wait,
        Self::Connect,
        Self::Hedge,
        Self::FirstByte,
        Self::Coding,
        Self::Body,
    ];

    /// The word for labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Memory => "memory",
            Self::Redis => "redis",
            Self::Lease => "lease",
            Self::Wait => "wait",
            Self::Connect => "connect",
            Self::Hedge => "hedge",
            Self::FirstByte => "first_byte",
            Self::Coding => "coding",
            Self::Body => "body",
        }
    }
}

/// A phase that did not happen.
const NEVER: u64 = u64::MAX;

/// When a request began, and how long each phase took.
#[derive(Clone, Debug)]
pub struct Timeline {
    start: Mono,
    /// Nanoseconds, or [`NEVER`].
    spans: [u64; Phase::ALL.len()],
}

impl Timeline {
    /// A request that began at `start`.
    pub const fn new(start: Mono) -> Self {
        Self { start, spans: [NEVER; Phase::ALL.len()] }
    }

    /// When the request began.
    pub const fn start(&self) -> Mono {
        self.start
    }

    /// Adds to a phase; one that happens twice, such as a retried connect, takes the sum.
    pub fn add(&mut self, phase: Phase, took: Duration) {
        if let Some(span) = self.spans.get_mut(phase as usize) {
            let before = if *span == NEVER { 0 } else { *span };
            *span = before.saturating_add(nanos(took)).min(NEVER - 1);
        }
    }

    /// How long a phase took; none when it did not happen.
    pub fn get(&self, phase: Phase) -> Option<Duration> {
        self.nanos(phase).map(Duration::from_nanos)
    }

    fn nanos(&self, phase: Phase) -> Option<u64> {
        self.spans.get(phase as usize).copied().filter(|span| *span != NEVER)
    }

    /// Appends the value of `Server-Timing`: `memory;dur=0.012, redis;dur=0.610, lease;dur=…,
    /// wait;dur=…, origin;dur=…, coding;dur=…`, in milliseconds, only what happened. `origin` is queue, connect, hedge
    /// and first byte together. Appends nothing when nothing happened: an empty field is not sent.
    pub fn write_server_timing(&self, out: &mut impl Text) {
        let origin = [Phase::Queue, Phase::Connect, Phase::Hedge, Phase::FirstByte];
        let origin = origin.into_iter().filter_map(|phase| self.nanos(phase)).reduce(u64::saturating_add);
        let entries = [
            ("memory", self.nanos(Phase::Memory)),
            ("redis", self.nanos(Phase::Redis)),
            ("lease", self.nanos(Phase::Lease)),
            ("wait", self.nanos(Phase::Wait)),
            ("origin", origin),
            ("coding", self.nanos(Phase::Coding)),
        ];
        let mut separator = "";
        for (name, took) in entries {
            if let Some(nanos) = took {
                let micros = nanos.saturating_add(500) / 1000;
                out.put(separator);
                out.put(name);
                out.put(";dur=");
                digits::push(out, micros / 1000, 1);
                out.put(".");
                digits::push(out, micros % 1000, 3);
                separator = ", ";
            }
        }
    }
}

/// Appends the value of `X-Process-Time`: seconds with 6 decimals, such as `0.000812`.
pub fn write_process_time(took: Duration, out: &mut impl Text) {
    let below = u64::from(took.subsec_nanos().saturating_add(500) / 1000);
    let micros = took.as_secs().saturating_mul(1_000_000).saturating_add(below);
    digits::push(out, micros / 1_000_000, 1);
    out.put(".");
    digits::push(out, micros % 1_000_000, 6);
}

/// Nanoseconds; 584 years and more read as 584 years.
pub(super) fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn server_timing(marks: &[(Phase, u64)]) -> String {
        let mut timeline = Timeline::new(Mono::default());
        for (phase, micros) in marks {
            timeline.add(*phase, Duration::from_micros(*micros));
        }
        let mut out = String::new();
        timeline.write_server_timing(&mut out);
        out
    }

    #[test]
    fn server_timing_shows_what_happened_in_milliseconds() {
        let rows: [(&[(Phase, u64)], &str); 6] = [
            (&[], ""),
            (&[(Phase::Memory, 12)], "memory;dur=0.012"),
            (
                &[(Phase::FirstByte, 100_000), (Phase::Memory, 12), (Phase::Redis, 610)],
                "memory;dur=0.012, redis;dur=0.610, origin;dur=100.000",
            ),
            (&[(Phase::Queue, 1), (Phase::Connect, 20), (Phase::FirstByte, 300)], "origin;dur=0.321"),
            (&[(Phase::Wait, 1_500_000), (Phase::Body, 9)], "wait;dur=1500.000"),
            (&[(Phase::Coding, 70), (Phase::Memory, 2)], "memory;dur=0.002, coding;dur=0.070"),
        ];
        for (marks, expected) in rows {
            assert_eq!(server_timing(marks), expected);
        }
    }

    #[test]
    fn process_time_is_seconds_with_six_decimals() {
        let rows = [
            (Duration::ZERO, "0.000000"),
            (Duration::from_nanos(499), "0.000000"),
            (Duration::from_nanos(500), "0.000001"),
            (Duration::from_micros(812), "0.000812"),
            (Duration::from_millis(100), "0.100000"),
            (Duration::from_secs(90), "90.000000"),
            (Duration::MAX, "18446744073709.551615"),
        ];
        for (took, expected) in rows {
            let mut text = String::new();
            write_process_time(took, &mut text);
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_phase_that_happens_twice_takes_the_sum_and_zero_is_not_never() {
        let mut timeline = Timeline::new(Mono::default());
        assert_eq!(timeline.get(Phase::Connect), None);
        timeline.add(Phase::Connect, Duration::ZERO);
        assert_eq!(timeline.get(Phase::Connect), Some(Duration::ZERO));
        timeline.add(Phase::Connect, Duration::from_millis(2));
        timeline.add(Phase::Connect, Duration::from_millis(3));
        assert_eq!(timeline.get(Phase::Connect), Some(Duration::from_millis(5)));
        timeline.add(Phase::Connect, Duration::MAX);
        assert_eq!(timeline.get(Phase::Connect), Some(Duration::from_nanos(NEVER - 1)));
    }

    #[test]
    fn phases_are_listed_in_the_order_of_their_numbers() {
        assert!(Phase::ALL.iter().enumerate().all(|(i, x)| *x as usize == i));
    }

    proptest! {
        #[test]
        fn process_time_reads_back_as_the_duration_to_the_microsecond(micros in 0_u64..1 << 50) {
            let mut text = String::new();
            write_process_time(Duration::from_micros(micros), &mut text);
            let digits = text.replace('.', "");
            prop_assert_eq!(digits.parse::<u64>().unwrap(), micros);
        }
    }
}
