//! Numbers as fields write them.
//!
//! Every answer has some, so they do not go through `core::fmt`, which takes several times as long.
//! Must not know: which field, or what is counted.

/// Digits of the largest number.
const MOST: usize = 20;

/// Digits that are few.
const FEW: usize = 8;

/// What fields are written into: a value that is being made, or a head as it goes out.
pub trait Text {
    /// Appends text.
    fn put(&mut self, text: &str);
    /// Appends what is digits alone.
    fn put_digits(&mut self, digits: &[u8]);
}

impl Text for String {
    fn put(&mut self, text: &str) {
        self.push_str(text);
    }

    fn put_digits(&mut self, digits: &[u8]) {
        // A few one by one: to see that they are UTF-8 would take longer.
        match digits.len() > FEW {
            true => self.push_str(std::str::from_utf8(digits).unwrap_or_default()),
            false => digits.iter().for_each(|digit| self.push(char::from(*digit))),
        }
    }
}

impl Text for Vec<u8> {
    fn put(&mut self, text: &str) {
        self.extend_from_slice(text.as_bytes());
    }

    fn put_digits(&mut self, digits: &[u8]) {
        self.extend_from_slice(digits);
    }
}

/// Appends a number, in `width` digits at least.
pub fn push(out: &mut impl Text, number: u64, width: usize) {
    let (mut digits, mut rest, mut used) = ([b'0'; MOST], number, 0);
    for digit in digits.iter_mut().rev() {
        if rest == 0 && used >= width.max(1) {
            break;
        }
        *digit = b'0' | (rest % 10) as u8;
        rest /= 10;
        used += 1;
    }
    out.put_digits(digits.get(MOST - used..).unwrap_or_default());
}

/// Appends the last `width` hexadecimal digits of a number, 32 at most, in lower case.
pub fn push_hex(out: &mut impl Text, number: u128, width: usize) {
    let mut digits = [b'0'; 32];
    for ([high, low], byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(number.to_be_bytes()) {
        (*high, *low) = (hex(byte >> 4), hex(byte & 0xf));
    }
    out.put_digits(digits.get(digits.len().saturating_sub(width)..).unwrap_or_default());
}

const fn hex(four: u8) -> u8 {
    if four < 10 { b'0' + four } else { b'a' + (four - 10) }
}

/// Whether a text is this number, as [`push`] writes it in the fewest digits.
pub fn is(text: &[u8], number: u64) -> bool {
    let plain = !text.is_empty() && (text.len() == 1 || !text.starts_with(b"0"));
    let read = text.iter().try_fold(0_u64, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(*digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    });
    plain && read == Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_are_those_of_core_fmt() {
        for number in [0, 9, 10, 0xfedc_ba98_7654_3210, u128::MAX, u128::from(u64::MAX) + 1] {
            let mut text = String::new();
            push_hex(&mut text, number, 32);
            assert_eq!(text, format!("{number:032x}"));
            text.clear();
            push_hex(&mut text, number, 16);
            assert_eq!(text, format!("{:016x}", number & u128::from(u64::MAX)));
        }
    }
    use proptest::prelude::*;

    #[test]
    fn a_number_is_never_shorter_than_it_is_to_be() {
        for (number, width, text) in [
            (0, 0, "0"),
            (0, 1, "0"),
            (0, 3, "000"),
            (7, 6, "000007"),
            (1000, 3, "1000"),
            (u64::MAX, 1, "18446744073709551615"),
            (1, 99, "00000000000000000001"),
        ] {
            let mut out = String::new();
            push(&mut out, number, width);
            assert_eq!(out, text);
        }
    }

    #[test]
    fn only_the_plain_writing_of_a_number_is_it() {
        assert!(is(b"0", 0) && is(b"1024", 1024) && is(b"18446744073709551615", u64::MAX));
        for text in [&b""[..], b"01024", b"+1024", b"1024 ", b"1025", b"18446744073709552640", b"1024,1024"] {
            assert!(!is(text, 1024), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_number_is_written_as_the_library_writes_it(number: u64, width in 0_usize..12) {
            let mut out = String::new();
            push(&mut out, number, width);
            prop_assert_eq!(&out, &format!("{number:0width$}"));
            prop_assert!(is(number.to_string().as_bytes(), number));
        }
    }
}
