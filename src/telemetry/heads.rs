//! Heads of requests that hyper itself refuses: nothing else here sees them, so they are in no access log.
//!
//! Knows the reasons, counts them, and tells of them in the log. Must not know: how a head is read.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::paced::Paced;
use crate::clock::Mono;

/// Why a head was refused before it was a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeadRefused {
    /// It is not written as HTTP/1 has it: 400.
    Malformed,
    /// It has more bytes or fields than may be, or a target beyond any limit: 431, 414.
    TooLong,
}

impl HeadRefused {
    /// Every reason, for metrics and documentation.
    pub const ALL: [Self; 2] = [Self::Malformed, Self::TooLong];

    /// The word for labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLong => "too-long",
        }
    }
}

/// How often each.
#[derive(Debug, Default)]
pub struct Heads {
    counts: [AtomicU64; HeadRefused::ALL.len()],
    told: Paced,
}

impl Heads {
    /// Counts one, and tells of it, unless one was told just now. `words` are hyper's, and hold nothing that came.
    pub fn refused(&self, why: HeadRefused, peer: IpAddr, words: &str, now: Mono) {
        if let Some(count) = self.counts.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(left_out) = self.told.due(now) {
            let reason = why.as_str();
            tracing::info!(target: "larder::server", %peer, reason, words, left_out, "a request's head was refused");
        }
    }

    /// The counts, in the order of [`HeadRefused::ALL`].
    pub fn counts(&self) -> [u64; HeadRefused::ALL.len()] {
        self.counts.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_in_its_place() {
        let (heads, peer) = (Heads::default(), IpAddr::from([192, 0, 2, 1]));
        for (times, why) in HeadRefused::ALL.into_iter().enumerate() {
            (0..=times).for_each(|_| heads.refused(why, peer, "", Mono::from_nanos(0)));
        }
        assert_eq!(heads.counts(), [1, 2]);
    }

    #[test]
    fn the_documents_name_every_reason() {
        let document = include_str!("../../docs/responses.md");
        for why in HeadRefused::ALL {
            assert!(document.contains(&format!("`{}`", why.as_str())), "{}", why.as_str());
        }
    }
}
