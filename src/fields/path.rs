//! Paths: dot segments and slashes, in the writings that origins take for them.
//!
//! Knows RFC 3986 §5.2.4 and §6.2.2, and the writings beyond them that some servers resolve.
//! Must not know: what a path stands for, or what is done about such a path.

use std::borrow::Cow;

/// Whether a path holds a `.` or `..` segment in any writing that an origin may resolve: plain or as
/// `%2e`, between slashes, backslashes, `%2f` or `%5c`, with or without parameters behind a `;`.
pub fn has_dot_segment(path: &str) -> bool {
    if !path.bytes().any(|byte| byte == b'.' || byte == b'%') {
        return false;
    }
    // How many dots the segment has so far; none once it holds anything else.
    let (mut dots, mut parameters) = (Some(0_usize), false);
    for byte in Plain(path.as_bytes()) {
        match byte {
            b'/' if is_dots(dots) => return true,
            b'/' => (dots, parameters) = (Some(0), false),
            // Some servers end a segment at `;`.
            b';' => parameters = true,
            _ if parameters => {}
            b'.' => dots = dots.map(|dots| dots.saturating_add(1)),
            _ => dots = None,
        }
    }
    is_dots(dots)
}

/// Without `.` and `..` segments (RFC 3986 §5.2.4), a dot being `%2e` as well (§6.2.2.2: "equivalent");
/// never empty, never above the root.
pub fn resolve(path: &str) -> Cow<'_, str> {
    if !segments(path).any(|segment| dots(segment) > 0) {
        return Cow::Borrowed(path);
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut folder = false;
    for segment in segments(path) {
        let dots = dots(segment);
        folder = dots > 0;
        match dots {
            0 => kept.push(segment),
            1 => {}
            _ => drop(kept.pop()),
        }
    }
    if folder {
        kept.push("");
    }
    Cow::Owned(format!("/{}", kept.join("/")))
}

/// With one slash where several stand in a row.
pub fn merge_slashes(path: &str) -> Cow<'_, str> {
    if !path.contains("//") {
        return Cow::Borrowed(path);
    }
    let mut merged = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !merged.ends_with('/') {
            merged.push(c);
        }
    }
    Cow::Owned(merged)
}

/// The path as the most generous server reads it, where that is not just as it is written: decoded, up to a
/// `?`, `#` or NUL, with slashes for backslashes, one slash for several, and without the parameters of
/// segments (`;`).
pub fn as_some_read_it(path: &str) -> Option<String> {
    // In one pass, since every request comes this way; to search for `//` takes longer to begin than a path has bytes.
    let mut before = 0;
    let is_plain = path.bytes().all(|byte| {
        let is_second = byte == b'/' && before == b'/';
        before = byte;
        !is_second && !matches!(byte, b'%' | b';' | b'\\')
    });
    if is_plain {
        return None;
    }
    let (mut read, mut parameters) = (Vec::with_capacity(path.len()), false);
    for byte in Decoded(path.as_bytes()) {
        match byte {
            b'?' | b'#' | 0 => break,
            b'/' | b'\\' if read.last() != Some(&b'/') => {
                read.push(b'/');
                parameters = false;
            }
            b'/' | b'\\' => parameters = false,
            b';' => parameters = true,
            byte if !parameters => read.push(byte),
            _ => {}
        }
    }
    let read = String::from_utf8_lossy(&read).into_owned();
    (read != path).then_some(read)
}

/// Percent-decoded bytes, once; a `%` that begins no escape stands for itself.
pub(super) struct Decoded<'a>(pub(super) &'a [u8]);

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (byte, rest) = match self.0 {
            [b'%', high, low, rest @ ..] => match digit(*high).zip(digit(*low)) {
                Some((high, low)) => (high << 4 | low, rest),
                None => (b'%', self.0.get(1..).unwrap_or_default()),
            },
            [byte, rest @ ..] => (*byte, rest),
            [] => return None,
        };
        self.0 = rest;
        Some(byte)
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').unwrap_or(path).split('/')
}

/// 1 for a `.` segment, 2 for `..`, else 0.
fn dots(segment: &str) -> usize {
    let (mut rest, mut dots) = (segment.as_bytes(), 0);
    loop {
        rest = match rest {
            [] => return dots,
            [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] if dots < 2 => rest,
            _ => return 0,
        };
        dots += 1;
    }
}

fn is_dots(dots: Option<usize>) -> bool {
    matches!(dots, Some(1 | 2))
}

/// A path's bytes, with what some servers take for a dot, a slash or a semicolon as just that.
struct Plain<'a>(&'a [u8]);

impl Iterator for Plain<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (byte, rest) = match self.0 {
            [b'%', b'2', b'e' | b'E', rest @ ..] => (b'.', rest),
            [b'%', b'2', b'f' | b'F', rest @ ..] => (b'/', rest),
            [b'%', b'5', b'c' | b'C', rest @ ..] => (b'/', rest),
            [b'%', b'3', b'b' | b'B', rest @ ..] => (b';', rest),
            [b'\\', rest @ ..] => (b'/', rest),
            [byte, rest @ ..] => (*byte, rest),
            [] => return None,
        };
        self.0 = rest;
        Some(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_is_read_as_generously_as_any_server_does() {
        for (path, read) in [
            ("/a/b", None),
            ("/a%", None),
            ("/%61/b", Some("/a/b")),
            ("/a%2Fb", Some("/a/b")),
            ("/a%5cb\\c", Some("/a/b/c")),
            ("//a///b/", Some("/a/b/")),
            ("/a;x=1/b;y", Some("/a/b")),
            ("/a%3bx%2fb", Some("/a/b")),
            ("/;/a", Some("/a")),
            ("/a%3fb", Some("/a")),
            ("/a%23b", Some("/a")),
            ("/a%00.css", Some("/a")),
            ("/%2561", Some("/%61")),
            ("/%ff", Some("/\u{fffd}")),
        ] {
            assert_eq!(as_some_read_it(path).as_deref(), read, "{path}");
        }
    }

    #[test]
    fn a_dot_segment_is_found_in_any_writing() {
        for path in [
            "/..",
            "/.",
            "/a/../b",
            "/a/./b",
            "/a/%2e%2E/b",
            "/a/.%2e",
            "/a/%2E",
            "/a\\..\\b",
            "/a%2f..%2Fb",
            "/a%5C..",
            "/..;/b",
            "/..;x=1/b",
            "/..%3b/b",
            "/.;v/b",
            "..",
            "/a/..;",
            "\\..",
        ] {
            assert!(has_dot_segment(path), "{path}");
        }
        for path in [
            "/",
            "",
            "/a",
            "/a..b",
            "/...",
            "/a/.b",
            "/a./b",
            "/..a",
            "/a/b..;x",
            "/%2e%2ea",
            "/a;/b;..",
            "/%2",
            "/%252e%252e/",
            "/.well-known/x",
            "/;..",
        ] {
            assert!(!has_dot_segment(path), "{path}");
        }
    }

    #[test]
    fn dot_segments_are_resolved_as_rfc_3986_has_it() {
        for (path, expected) in [
            // §5.2.4's own example.
            ("/a/b/c/./../../g", "/a/g"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/a/./", "/a/"),
            ("/../../x", "/x"),
            ("/..", "/"),
            ("/.", "/"),
            ("/a//../b", "/a/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/.../b", "/a/.../b"),
            ("/a/..;x/b", "/a/..;x/b"),
            ("/a//b/", "/a//b/"),
            ("/", "/"),
            ("*", "*"),
        ] {
            assert_eq!(resolve(path), expected, "{path}");
        }
    }

    #[test]
    fn slashes_in_a_row_become_one() {
        for (path, expected) in [("/", "/"), ("//", "/"), ("///a//b/", "/a/b/"), ("/a%2f%2fb", "/a%2f%2fb")] {
            assert_eq!(merge_slashes(path), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_resolved_has_no_plain_dot_segment_and_changes_no_more(path in "/[a./%2eE\\\\;]{0,24}") {
            let resolved = resolve(&path).into_owned();
            prop_assert!(resolved.starts_with('/'));
            prop_assert_eq!(resolve(&resolved), resolved.as_str());
            prop_assert!(!resolved.split('/').any(|segment| segment == "." || segment == ".."));
            // Whatever resolving changes was to be found.
            prop_assert!(resolved == path || has_dot_segment(&path), "{}", path);
            let merged = merge_slashes(&path).into_owned();
            prop_assert!(!merged.contains("//"));
        }

        #[test]
        fn any_path_is_read(path: String) {
            let _ = (has_dot_segment(&path), resolve(&path), merge_slashes(&path));
        }
    }
}
