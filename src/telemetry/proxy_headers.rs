//! Connections that were closed since they did not begin with a good header of the PROXY protocol.
//!
//! Knows every reason, and counts them. Must not know: how a header is read, or by whom.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a connection to a listener with `proxy_protocol` was closed before anything was asked on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeaderRefused {
    /// It is not from a trusted proxy.
    Untrusted,
    /// It begins with something else.
    Missing,
    /// It is not written as the protocol has it.
    Malformed,
    /// It is of a family that is not TCP over IPv4 or IPv6.
    Family,
    /// It is longer than a header may be.
    TooLong,
    /// The peer left before its end.
    Truncated,
    /// Its end did not come in time.
    Late,
}

impl HeaderRefused {
    /// Every reason, for metrics and documentation.
    pub const ALL: [Self; 7] = [
        Self::Untrusted,
        Self::Missing,
        Self::Malformed,
        Self::Family,
        Self::TooLong,
        Self::Truncated,
        Self::Late,
    ];

    /// The word for labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Family => "family",
            Self::TooLong => "too-long",
            Self::Truncated => "truncated",
            Self::Late => "late",
        }
    }
}

/// How often each.
#[derive(Debug, Default)]
pub struct ProxyHeaders([AtomicU64; HeaderRefused::ALL.len()]);

impl ProxyHeaders {
    /// Counts one.
    pub fn refused(&self, why: HeaderRefused) {
        if let Some(count) = self.0.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counts, in the order of [`HeaderRefused::ALL`].
    pub fn counts(&self) -> [u64; HeaderRefused::ALL.len()] {
        self.0.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_in_its_place() {
        let headers = ProxyHeaders::default();
        for (times, why) in HeaderRefused::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| headers.refused(why));
        }
        assert_eq!(headers.counts(), [0, 1, 2, 3, 4, 5, 6]);
    }
}
