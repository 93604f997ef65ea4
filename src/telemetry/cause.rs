//! Why a request that looked into the cache was not answered by it, for who wants to change that.
//!
//! RFC 9211 has five words for it ([`Miss`], in headers and logs), by what the cache did. These are by what would
//! have spared the miss: more memory, a longer lifetime, fewer purges, another key.
//! Must not know: how a request is judged, or what is left of what memory has given up.

use super::outcome::{Detail, Miss};
use crate::rules::MustAsk;

/// What a miss is due to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Nothing was stored, and nothing is known to have been.
    Cold,
    /// Memory has given it up to make room, and Redis did not have it.
    Evicted,
    /// It was purged, or voided by a write.
    Purged,
    /// It was purged softly, and has to be confirmed.
    SoftPurged,
    /// Its lifetime was over.
    Expired,
    /// Its lifetime was over, the origin could have confirmed it, and had another answer.
    Changed,
    /// It says that it is to be confirmed each time.
    NoCache,
    /// What is stored is for other selecting fields.
    Vary,
    /// Not all of it is stored.
    Partial,
    /// The request wants the origin's word.
    Request,
    /// It is stored in a coding that the client does not accept.
    Coding,
    /// Its answers are known not to be cacheable.
    Uncacheable,
    /// Purges could not be heard, so it has to be confirmed.
    Unheard,
}

impl Cause {
    /// Every cause, for metrics and documentation.
    pub const ALL: [Self; 13] = [
        Self::Cold,
        Self::Evicted,
        Self::Purged,
        Self::SoftPurged,
        Self::Expired,
        Self::Changed,
        Self::NoCache,
        Self::Vary,
        Self::Partial,
        Self::Request,
        Self::Coding,
        Self::Uncacheable,
        Self::Unheard,
    ];

    /// The word for labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Evicted => "evicted",
            Self::Purged => "purged",
            Self::SoftPurged => "soft-purged",
            Self::Expired => "expired",
            Self::Changed => "changed",
            Self::NoCache => "no-cache",
            Self::Vary => "vary",
            Self::Partial => "partial",
            Self::Request => "request",
            Self::Coding => "coding",
            Self::Uncacheable => "uncacheable",
            Self::Unheard => "unheard",
        }
    }

    /// The cause that a detail names, where it names one.
    pub const fn of_detail(detail: Detail) -> Option<Self> {
        match detail {
            Detail::Purged => Some(Self::Purged),
            Detail::HitForMiss(_) => Some(Self::Uncacheable),
            Detail::MustAsk(why) => Some(Self::of_asking(why)),
            Detail::NotStored(_) | Detail::VariantsCapped | Detail::Word(_) => None,
        }
    }

    const fn of_asking(why: MustAsk) -> Self {
        match why {
            MustAsk::Stale => Self::Expired,
            MustAsk::NoCache => Self::NoCache,
            MustAsk::Purged => Self::SoftPurged,
            MustAsk::Unheard => Self::Unheard,
            MustAsk::Coding => Self::Coding,
            MustAsk::RequestNoCache
            | MustAsk::RequestMaxAge
            | MustAsk::RequestMinFresh
            | MustAsk::Cookie
            | MustAsk::Authorization => Self::Request,
        }
    }

    /// The cause of a miss of which no more is known.
    pub(super) const fn of_miss(miss: Miss) -> Self {
        match miss {
            Miss::Uri => Self::Cold,
            Miss::Vary => Self::Vary,
            Miss::Stale => Self::Expired,
            Miss::Partial => Self::Partial,
            Miss::Request => Self::Request,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_listed_in_the_order_of_their_numbers_and_no_word_is_there_twice() {
        assert!(Cause::ALL.iter().enumerate().all(|(i, x)| *x as usize == i));
        let words: std::collections::BTreeSet<_> = Cause::ALL.iter().map(|cause| cause.as_str()).collect();
        assert_eq!(words.len(), Cause::ALL.len());
    }
}
