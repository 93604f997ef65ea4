//! A number that stands in the shared tier, bound to its place: a URL's generation, or the time when a
//! group was purged.
//!
//! Knows its text, `number.checksum`: decimal, so that a script in Redis can compare two of them, and an
//! xxh3-64 over the place and the number. Whatever the bytes are, reading gives a number or says what is
//! wrong with them.
//! Must not know: what the number means.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Damaged;
use super::codec::hash_of;

/// Digits of a checksum.
pub(super) const CHECKSUM: usize = 16;
/// The longest text of a mark, bytes: with what a secret makes of it in the checksum's place.
pub const LONGEST_MARK: usize = 20 + 1 + 32;

/// The text of a number that is kept under the key `place`.
pub(super) fn encode(number: u64, place: &str) -> String {
    let checksum = xxh3_64_with_seed(&number.to_le_bytes(), hash_of(place));
    text(number, &format!("{checksum:016x}"))
}

/// Reads the text of what should be kept under the key `place`.
pub(super) fn decode(bytes: &[u8], place: &str) -> Result<u64, Damaged> {
    let (number, checksum) = split(bytes)?;
    match (checksum.len(), encode(number, place).as_bytes() == bytes) {
        (CHECKSUM, true) => Ok(number),
        (CHECKSUM, false) => Err(Damaged::Checksum),
        _ => Err(Damaged::Foreign),
    }
}

pub(super) fn text(number: u64, checksum: &str) -> String {
    format!("{number}.{checksum}")
}

/// The number, and what shows that it is right. A number has one text.
pub(super) fn split(bytes: &[u8]) -> Result<(u64, &str), Damaged> {
    if bytes.len() > LONGEST_MARK {
        return Err(Damaged::TooLarge);
    }
    let whole = std::str::from_utf8(bytes).map_err(|_| Damaged::Foreign)?;
    let (number, checksum) = whole.split_once('.').ok_or(Damaged::Foreign)?;
    let number: u64 = number.parse().map_err(|_| Damaged::Foreign)?;
    if text(number, checksum) == whole { Ok((number, checksum)) } else { Err(Damaged::Foreign) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mark_is_written_as_ever() {
        assert_eq!(encode(42, "larder:3:{0}:g"), GOLDEN);
        assert_eq!(decode(GOLDEN.as_bytes(), "larder:3:{0}:g"), Ok(42));
    }

    /// Never changed.
    const GOLDEN: &str = "42.348d515c07d58da1";

    #[test]
    fn only_its_own_text_at_its_own_place_is_read() {
        let text = encode(7, "a");
        for (bytes, place, want) in [
            (text.as_str(), "b", Damaged::Checksum),
            (&text.replace('7', "8"), "a", Damaged::Checksum),
            (&format!("0{text}"), "a", Damaged::Foreign),
            (&format!("+{text}"), "a", Damaged::Foreign),
            ("7", "a", Damaged::Foreign),
            ("", "a", Damaged::Foreign),
            ("7.", "a", Damaged::Foreign),
            ("-7.0123456789abcdef", "a", Damaged::Foreign),
            ("99999999999999999999.0123456789abcdef", "a", Damaged::Foreign),
            (&"1".repeat(54), "a", Damaged::TooLarge),
        ] {
            assert_eq!(decode(bytes.as_bytes(), place), Err(want), "{bytes} at {place}");
        }
        assert_eq!(decode(b"\xff.0123456789abcdef", "a"), Err(Damaged::Foreign));
        assert!(encode(u64::MAX, "a").len() <= LONGEST_MARK);
    }

    proptest! {
        #[test]
        fn any_number_comes_back_and_any_bytes_are_judged(number: u64, bytes: Vec<u8>, at in 0usize..37) {
            let mut text = encode(number, "a").into_bytes();
            prop_assert_eq!(decode(&text, "a"), Ok(number));
            prop_assert!(decode(&bytes, "a").is_err());
            let at = at % text.len();
            text[at] ^= 1;
            prop_assert!(decode(&text, "a").is_err());
        }
    }
}
