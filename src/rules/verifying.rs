//! What a second look at the origin says of a stored response.
//!
//! Knows which differences mean that somebody got what is not for all, and which only that time has passed.
//! Must not know: how the looks were taken, or what is done about it.

use std::time::Duration;

/// What came of looking twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finding {
    /// The origin gives what is stored.
    Same,
    /// It gives something else now, to everyone the same, and has had the time to change.
    Changed,
    /// It gives something else each time.
    Unstable,
    /// It gives this request something else than one that says only what the key and `Vary` count.
    Unkeyed,
    /// It gives everyone the same, and that is not what was stored a moment ago.
    Planted,
    /// It gave no answer that could be compared.
    Unanswered,
}

impl Finding {
    /// Every finding, for metrics and documentation.
    pub const ALL: [Self; 6] =
        [Self::Same, Self::Changed, Self::Unstable, Self::Unkeyed, Self::Planted, Self::Unanswered];

    /// The word for labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Changed => "changed",
            Self::Unstable => "unstable",
            Self::Unkeyed => "unkeyed",
            Self::Planted => "planted",
            Self::Unanswered => "unanswered",
        }
    }

    /// Whether a response was stored for all that was not for all.
    pub const fn is_mismatch(self) -> bool {
        matches!(self, Self::Unkeyed | Self::Planted)
    }
}

/// How the answers compare: to the request at hand, and, one before it and one after, to a request that
/// says nothing but what the key and `Vary` count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The request at hand is answered as is stored.
    pub as_stored: bool,
    /// Both bare requests are answered alike.
    pub steady: bool,
    /// The request at hand is answered as the bare ones.
    pub as_bare: bool,
    /// The answer has the strong entity tag of what is stored, which names its very bytes (RFC 9110
    /// §8.8.1).
    pub same_tag: bool,
    /// By its `Last-Modified` it has changed since what is stored was received.
    pub modified_since: bool,
    /// How long ago that was.
    pub age: Duration,
}

/// For how long after it was received a stored response is not taken to have changed at the origin. In ten
/// seconds a hit of what was just planted can be looked at; that something also changes in just these ten
/// is rare, and costs a while without the cache.
pub const YOUNG: Duration = Duration::from_secs(10);

/// What the answers mean.
pub fn finding(compared: Compared) -> Finding {
    let Compared { as_stored, steady, as_bare, same_tag, modified_since, age } = compared;
    if as_stored {
        Finding::Same
    } else if !steady {
        // A clock or a number of the request in the body: nothing can be told by comparing.
        Finding::Unstable
    } else if !as_bare {
        Finding::Unkeyed
    } else if same_tag || (age <= YOUNG && !modified_since) {
        Finding::Planted
    } else {
        Finding::Changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL_ALIKE: Compared = Compared {
        as_stored: false,
        steady: true,
        as_bare: true,
        same_tag: false,
        modified_since: false,
        age: Duration::from_secs(60),
    };

    #[test]
    fn each_difference_means_what_it_can_mean() {
        let young = Duration::from_secs(1);
        for (compared, expected) in [
            (ALL_ALIKE, Finding::Changed),
            (Compared { as_stored: true, ..ALL_ALIKE }, Finding::Same),
            (Compared { as_stored: true, as_bare: false, ..ALL_ALIKE }, Finding::Same),
            (Compared { steady: false, ..ALL_ALIKE }, Finding::Unstable),
            (Compared { steady: false, as_bare: false, same_tag: true, ..ALL_ALIKE }, Finding::Unstable),
            (Compared { as_bare: false, ..ALL_ALIKE }, Finding::Unkeyed),
            (Compared { as_bare: false, modified_since: true, ..ALL_ALIKE }, Finding::Unkeyed),
            (Compared { same_tag: true, ..ALL_ALIKE }, Finding::Planted),
            (Compared { age: young, ..ALL_ALIKE }, Finding::Planted),
            (Compared { age: young, modified_since: true, ..ALL_ALIKE }, Finding::Changed),
            (Compared { age: YOUNG, ..ALL_ALIKE }, Finding::Planted),
        ] {
            assert_eq!(finding(compared), expected, "{compared:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_given_as_stored_or_never_twice_alike_accuses_nobody(bits in 0..32_u8, secs in 0..100_u64) {
            let bit = |n: u8| bits & (1 << n) != 0;
            let (as_stored, steady, as_bare, same_tag) = (bit(0), bit(1), bit(2), bit(3));
            let age = Duration::from_secs(secs);
            let found = finding(Compared { as_stored, steady, as_bare, same_tag, modified_since: bit(4), age });
            prop_assert!(!found.is_mismatch() || (!as_stored && steady));
            prop_assert!(!as_stored || found == Finding::Same);
        }
    }
}
