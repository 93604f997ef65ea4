//! `Host` and the authority of a target (RFC 9110 §7.2, RFC 3986 §3.2).
//!
//! Knows which hosts can be meant in one way only, and how to write each of them alike.
//! Must not know: where it came from, routes.

use std::net::Ipv6Addr;

/// An authority in its one writing: in lower case, without the scheme's own port `default`
/// (RFC 9110 §4.2.3). `None` where it is none.
///
/// Stricter than the grammar, whose `reg-name` takes `!$&'()*+,;=` and percent-encodings: no DNS name has
/// them, and servers differ in what they make of them. No userinfo either (RFC 9110 §4.2.4).
pub fn authority(text: &str, default: u16) -> Option<String> {
    let (host, port) = split(text)?;
    if !is_host(host) {
        return None;
    }
    let host = host.to_ascii_lowercase();
    match number(port)? {
        None => Some(host),
        Some(port) if port == default => Some(host),
        Some(port) => Some(format!("{host}:{port}")),
    }
}

/// The host, in brackets if it has them, and what follows its colon.
fn split(text: &str) -> Option<(&str, &str)> {
    let end = match text.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => text.bytes().position(|byte| byte == b':').unwrap_or(text.len()),
    };
    let (host, port) = text.split_at_checked(end)?;
    match port.strip_prefix(':') {
        Some(port) => Some((host, port)),
        None => port.is_empty().then_some((host, "")),
    }
}

/// RFC 3986 §3.2.3: `port = *DIGIT`; an empty one is the scheme's own.
fn number(port: &str) -> Option<Option<u16>> {
    if port.is_empty() {
        return Some(None);
    }
    let digits = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    port.parse().ok().filter(|port| digits && *port > 0).map(Some)
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    is_name(host)
}

/// Whether it is a name that DNS could know: labels of at most 63 bytes of its characters.
pub fn is_name(host: &str) -> bool {
    // A name may end in the dot of the root.
    let name = host.as_bytes().strip_suffix(b".").unwrap_or(host.as_bytes());
    let mut label = 0;
    for byte in name {
        match byte {
            b'.' if label == 0 => return false,
            b'.' => label = 0,
            b'-' | b'_' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' if label < 63 => label += 1,
            _ => return false,
        }
    }
    label > 0 && name.len() <= 253
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_writing_or_none() {
        let rows: &[(&str, Option<&str>)] = &[
            ("a.test", Some("a.test")),
            ("A.Test:80", Some("a.test")),
            ("a.test:", Some("a.test")),
            ("a.test:8080", Some("a.test:8080")),
            ("a.test:08080", Some("a.test:8080")),
            ("a.test.", Some("a.test.")),
            ("under_score.test", Some("under_score.test")),
            ("127.0.0.1", Some("127.0.0.1")),
            ("[::1]:80", Some("[::1]")),
            ("[2001:DB8::1]:81", Some("[2001:db8::1]:81")),
            ("", None),
            (".", None),
            (":80", None),
            ("a b", None),
            ("a.test:x", None),
            ("a.test:0", None),
            ("a.test:65536", None),
            ("a.test:+80", None),
            ("a.test:80:80", None),
            ("a..test", None),
            (".a.test", None),
            ("u@a.test", None),
            ("a.test@evil.test", None),
            ("a.test/x", None),
            ("a.test?x", None),
            ("a.test#x", None),
            ("a.test\\x", None),
            ("a.test,b.test", None),
            ("a.test;b", None),
            ("a%2etest", None),
            ("a.test\t", None),
            ("é.test", None),
            ("::1", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[::1%25eth0]", None),
            ("[v1.x]", None),
            ("[]", None),
            ("http://a.test", None),
        ];
        for (text, want) in rows {
            assert_eq!(authority(text, 80).as_deref(), *want, "{text:?}");
        }
        assert_eq!(authority("a.test:443", 443).as_deref(), Some("a.test"));
        assert_eq!(authority(&format!("{}.test", "a".repeat(64)), 80), None);
        assert_eq!(authority(&"a.".repeat(130), 80), None);
    }
}
