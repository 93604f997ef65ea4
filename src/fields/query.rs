//! Queries: their arguments, and how origins differ over them.
//!
//! Knows that arguments stand between `&`, as `name=value`, and what some servers make of them beyond that:
//! divide at `;`, decode before they divide, take `a`, `A`, `%61`, `a[]` and `a.b` for one name.
//! Must not know: keys, routes, which arguments count.

use super::path::Decoded;

/// An argument's name, as written.
pub fn name(argument: &str) -> &str {
    argument.split_once('=').map_or(argument, |(name, _)| name)
}

/// Whether some server finds other arguments in it than this one: it holds a `;` or a `?`, or its name
/// holds a separator in disguise or bytes that servers decode in different ways.
pub fn is_divided_otherwise(argument: &str) -> bool {
    let disguised = |name: &str| {
        let mut rest = name.as_bytes();
        loop {
            rest = match rest {
                [] => return false,
                // & ; = ? # % and NUL
                [b'%', b'2', b'6' | b'3' | b'5', ..] => return true,
                [b'%', b'3', b'b' | b'B' | b'd' | b'D' | b'f' | b'F', ..] => return true,
                [b'%', b'0', b'0', ..] => return true,
                [b'%', one, two, rest @ ..] if one.is_ascii_hexdigit() && two.is_ascii_hexdigit() => rest,
                [b'%', ..] => return true,
                [byte, ..] if !byte.is_ascii_graphic() => return true,
                [_, rest @ ..] => rest,
            };
        }
    };
    argument.bytes().any(|byte| matches!(byte, b';' | b'?')) || disguised(name(argument))
}

/// An argument's name as the most generous server reads it: decoded, in lower case, up to a `[`, with a
/// space, a `+` and a `.` as `_`. What is different so is different to all of them.
pub fn folded(argument: &str) -> impl Iterator<Item = u8> {
    let name = Decoded(name(argument).as_bytes()).take_while(|byte| *byte != b'[');
    name.map(|byte| match byte {
        b' ' | b'+' | b'.' => b'_',
        byte => byte.to_ascii_lowercase(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_some_server_takes_for_one_are_folded_into_one() {
        for (one, two, same) in [
            ("a=1", "A=2", true),
            ("a", "%61=", true),
            ("a[]=1", "a=1", true),
            ("a%5b0%5d=1", "a[x]=1", true),
            ("a.b", "a_b", true),
            ("a+b", "a%20b", true),
            ("a", "ab", false),
            ("a", "b", false),
            ("", "=1", true),
            ("%zz", "%z", false),
        ] {
            assert_eq!(folded(one).eq(folded(two)), same, "{one} {two}");
        }
    }

    #[test]
    fn what_servers_divide_in_different_ways_is_known() {
        for argument in
            ["a;b", "a=1;b=2", "a=1?b", "a%26b=1", "a%3B=1", "a%3db", "a%00", "a%zz", "a%", "%2561", "\u{e9}"]
        {
            assert!(is_divided_otherwise(argument), "{argument}");
        }
        for argument in
            ["", "a", "a=", "a=1", "a=%26%3b=", "a[]=1", "a%5B%5D=1", "a=%zz", "a=\u{e9}", "=", "a+b=c d"]
        {
            assert!(!is_divided_otherwise(argument), "{argument}");
        }
    }

    proptest! {
        #[test]
        fn any_argument_is_read(argument in ".{0,20}") {
            prop_assert!(folded(&argument).count() <= argument.len());
            let _ = is_divided_otherwise(&argument);
        }
    }
}
