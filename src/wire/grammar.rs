//! The small words of the grammar: numbers, tokens, white space, chunk extensions.
//!
//! Must not know: what they are part of.

/// Digits and nothing else, up to 2^63-1: more than that, some readers take for less than nothing.
pub(super) fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(text, radix).ok().filter(|number| i64::try_from(*number).is_ok())
}

/// §7.1.1: `*( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )`, where white space that belongs
/// to no extension is none of it. What an extension says is not looked at.
pub(super) fn is_extensions(text: &[u8]) -> bool {
    if text.is_empty() {
        return true;
    }
    let name = trimmed(text).strip_prefix(b";").map(trimmed);
    name.and_then(<[u8]>::first).copied().is_some_and(is_token) && !has_controls(text)
}

pub(super) fn trimmed(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

pub(super) fn has_controls(text: &[u8]) -> bool {
    // Without a way out in between, so that many bytes are looked at in one step.
    text.iter().fold(false, |found, byte| found | (*byte < b' ') & (*byte != b'\t') | (*byte == 0x7f))
}

/// RFC 9110 §5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    TOKENS.get(usize::from(byte)).is_some_and(|is| *is)
}

/// For each byte whether it is one.
const TOKENS: [bool; 256] = {
    let mut all = [false; 256];
    let (mut rest, mut byte) = (all.as_mut_slice(), 0_u8);
    while let [is, more @ ..] = rest {
        *is = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        (rest, byte) = (more, byte.wrapping_add(1));
    }
    all
};
