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

/// The longest text of a mark, bytes.
pub const LONGEST_MARK: usize = 20 + 1 + 16;

/// The text of a number that is kept under the key `place`.
pub fn encode_mark(number: u64, place: &str) -> String {
    let checksum = xxh3_64_with_seed(&number.to_le_bytes(), hash_of(place));
    format!("{number}.{checksum:016x}")
}

/// Reads the text of what should be kept under the key `place`.
pub fn decode_mark(bytes: &[u8], place: &str) -> Result<u64, Damaged> {
    if bytes.len() > LONGEST_MARK {
        return Err(Damaged::TooLarge);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Damaged::Foreign)?;
    let (number, checksum) = text.split_once('.').ok_or(Damaged::Foreign)?;
    let number: u64 = number.parse().map_err(|_| Damaged::Foreign)?;
    if checksum.len() != 16 {
        return Err(Damaged::Foreign);
    }
    if encode_mark(number, place) == text { Ok(number) } else { Err(Damaged::Checksum) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mark_is_written_as_ever() {
        assert_eq!(encode_mark(42, "larder:3:{0}:g"), GOLDEN);
        assert_eq!(decode_mark(GOLDEN.as_bytes(), "larder:3:{0}:g"), Ok(42));
    }

    /// Never changed.
    const GOLDEN: &str = "42.348d515c07d58da1";

    #[test]
    fn only_its_own_text_at_its_own_place_is_read() {
        let text = encode_mark(7, "a");
        for (bytes, place, want) in [
            (text.as_str(), "b", Damaged::Checksum),
            (&text.replace('7', "8"), "a", Damaged::Checksum),
            (&format!("0{text}"), "a", Damaged::Checksum),
            (&format!("+{text}"), "a", Damaged::Checksum),
            ("7", "a", Damaged::Foreign),
            ("", "a", Damaged::Foreign),
            ("7.", "a", Damaged::Foreign),
            ("-7.0123456789abcdef", "a", Damaged::Foreign),
            ("99999999999999999999.0123456789abcdef", "a", Damaged::Foreign),
            (&"1".repeat(38), "a", Damaged::TooLarge),
        ] {
            assert_eq!(decode_mark(bytes.as_bytes(), place), Err(want), "{bytes} at {place}");
        }
        assert_eq!(decode_mark(b"\xff.0123456789abcdef", "a"), Err(Damaged::Foreign));
        assert!(encode_mark(u64::MAX, "a").len() <= LONGEST_MARK);
    }

    proptest! {
        #[test]
        fn any_number_comes_back_and_any_bytes_are_judged(number: u64, bytes: Vec<u8>, at in 0usize..37) {
            let mut text = encode_mark(number, "a").into_bytes();
            prop_assert_eq!(decode_mark(&text, "a"), Ok(number));
            prop_assert!(decode_mark(&bytes, "a").is_err());
            let at = at % text.len();
            text[at] ^= 1;
            prop_assert!(decode_mark(&text, "a").is_err());
        }
    }
}
