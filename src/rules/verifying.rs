//! What a second look at the origin says of a stored response.
//!
//! Knows which differences mean that somebody got what is not for all, and which only that time has passed.
//! Must not know: how the looks were taken, or what is done about it.

/// What came of looking twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finding {
    /// The origin gives what is stored.
    Same,
    /// It gives something else now, and that to everyone: it has changed.
    Changed,
    /// It gives something else each time.
    Unstable,
    /// It gives this request something else than one that says only what the key and `Vary` count.
    Unkeyed,
    /// It gives everyone the same but whoever brought what is stored; or it gives other bytes under the tag that
    /// these have.
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

/// How the answers compare: to the request at hand; to the one that had brought what is stored; and, one before
/// them and one after, to a request that says nothing but what the key and `Vary` count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    /// All that were asked first are answered as is stored.
    pub as_stored: bool,
    /// Both bare requests are answered alike.
    pub steady: bool,
    /// The request at hand is answered as the bare ones.
    pub as_bare: bool,
    /// So is the request that had brought what is stored, where anybody still knows it.
    pub brought_as_bare: Option<bool>,
    /// The answer has the strong entity tag of what is stored, which names its very bytes (RFC 9110
    /// §8.8.1).
    pub same_tag: bool,
}

/// What the answers mean. That something differs from what is stored is no sign of harm by itself, however young
/// that is: what an origin says may change at any moment. That it differs at one time between two requests that
/// share a key is.
pub fn finding(compared: Compared) -> Finding {
    let Compared { as_stored, steady, as_bare, brought_as_bare, same_tag } = compared;
    if as_stored {
        Finding::Same
    } else if !steady {
        // A clock or a number of the request in the body: nothing can be told by comparing.
        Finding::Unstable
    } else if !as_bare {
        Finding::Unkeyed
    } else if brought_as_bare == Some(false) || same_tag {
        Finding::Planted
    } else {
        Finding::Changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL_ALIKE: Compared =
        Compared { as_stored: false, steady: true, as_bare: true, brought_as_bare: None, same_tag: false };

    #[test]
    fn each_difference_means_what_it_can_mean() {
        let brought = |alike| Compared { brought_as_bare: Some(alike), ..ALL_ALIKE };
        for (compared, expected) in [
            (ALL_ALIKE, Finding::Changed),
            (brought(true), Finding::Changed),
            (brought(false), Finding::Planted),
            (Compared { as_stored: true, ..ALL_ALIKE }, Finding::Same),
            (Compared { as_stored: true, as_bare: false, ..ALL_ALIKE }, Finding::Same),
            (Compared { steady: false, ..ALL_ALIKE }, Finding::Unstable),
            (Compared { steady: false, ..brought(false) }, Finding::Unstable),
            (Compared { steady: false, as_bare: false, same_tag: true, ..ALL_ALIKE }, Finding::Unstable),
            (Compared { as_bare: false, ..ALL_ALIKE }, Finding::Unkeyed),
            (Compared { as_bare: false, ..brought(false) }, Finding::Unkeyed),
            (Compared { same_tag: true, ..ALL_ALIKE }, Finding::Planted),
            (Compared { same_tag: true, ..brought(true) }, Finding::Planted),
        ] {
            assert_eq!(finding(compared), expected, "{compared:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_given_as_stored_or_never_twice_alike_accuses_nobody(bits in 0..32_u8, known in any::<bool>()) {
            let bit = |n: u8| bits & (1 << n) != 0;
            let (as_stored, steady, as_bare, same_tag) = (bit(0), bit(1), bit(2), bit(3));
            let brought_as_bare = known.then(|| bit(4));
            let found = finding(Compared { as_stored, steady, as_bare, brought_as_bare, same_tag });
            prop_assert!(!found.is_mismatch() || (!as_stored && steady));
            prop_assert!(!as_stored || found == Finding::Same);
        }
    }
}
