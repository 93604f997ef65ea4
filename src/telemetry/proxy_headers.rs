//! Connections that were closed since they did not begin with a good header of the PROXY protocol.
//!
//! Knows every reason, counts them, and tells of them in the log. Must not know: how a header is read, or by whom.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::paced::Paced;
use crate::clock::Mono;

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
pub struct ProxyHeaders {
    counts: [AtomicU64; HeaderRefused::ALL.len()],
    told: Paced,
}

impl ProxyHeaders {
    /// Counts one, and tells of it, unless one was told just now: a balancer that is set up wrongly has each of its
    /// connections refused.
    pub fn refused(&self, why: HeaderRefused, peer: IpAddr, now: Mono) {
        if let Some(count) = self.counts.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(left_out) = self.told.due(now) {
            let reason = why.as_str();
            tracing::warn!(target: "larder::server", %peer, reason, left_out, "no good header of the PROXY protocol");
        }
    }

    /// The counts, in the order of [`HeaderRefused::ALL`].
    pub fn counts(&self) -> [u64; HeaderRefused::ALL.len()] {
        self.counts.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_in_its_place() {
        let (headers, peer) = (ProxyHeaders::default(), IpAddr::from([192, 0, 2, 1]));
        for (times, why) in HeaderRefused::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| headers.refused(why, peer, Mono::from_nanos(0)));
        }
        assert_eq!(headers.counts(), [0, 1, 2, 3, 4, 5, 6]);
    }
}
