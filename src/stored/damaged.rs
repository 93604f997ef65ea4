//! What can be wrong with the bytes that the shared tier gave.
//!
//! Knows a word for each, for counters and logs.
//! Must not know: who damaged them, or what is done about it.

/// Why a value of the shared tier is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Damaged {
    /// It is there, and holds nothing.
    Empty,
    /// Too short for what should be there.
    TooShort,
    /// Longer than anything that is ever written.
    TooLarge,
    /// A list, a hash or a set.
    WrongType,
    /// It does not begin as Larder's values do.
    Foreign,
    /// Of another version.
    Version,
    /// Bytes have changed.
    Checksum,
    /// What belongs under another key.
    OtherKey,
    /// The bytes are as they were written, but not as this version writes them.
    Malformed,
    /// From a time that has not come yet.
    Future,
    /// Sealed, and this process has no secret.
    Sealed,
    /// In the clear, though this process has a secret.
    Unsealed,
    /// Sealed with a secret that this process does not have.
    OtherSecret,
    /// Sealed, and not as whoever has the secret would do it, or not for this key.
    Forged,
}

impl Damaged {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Empty,
        Self::TooShort,
        Self::TooLarge,
        Self::WrongType,
        Self::Foreign,
        Self::Version,
        Self::Checksum,
        Self::OtherKey,
        Self::Malformed,
        Self::Future,
        Self::Sealed,
        Self::Unsealed,
        Self::OtherSecret,
        Self::Forged,
    ];

    /// The word for labels and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooShort => "too-short",
            Self::TooLarge => "too-large",
            Self::WrongType => "wrong-type",
            Self::Foreign => "foreign",
            Self::Version => "version",
            Self::Checksum => "checksum",
            Self::OtherKey => "other-key",
            Self::Malformed => "malformed",
            Self::Future => "future",
            Self::Sealed => "sealed",
            Self::Unsealed => "unsealed",
            Self::OtherSecret => "other-secret",
            Self::Forged => "forged",
        }
    }

    /// Its place in [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_place_and_its_own_word() {
        for (nth, damaged) in Damaged::ALL.into_iter().enumerate() {
            assert_eq!(damaged.index(), nth, "{damaged:?}");
        }
        let words: std::collections::HashSet<_> = Damaged::ALL.map(Damaged::as_str).into_iter().collect();
        assert_eq!(words.len(), Damaged::ALL.len());
    }
}
