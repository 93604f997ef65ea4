//! What proxies say of the client: `X-Forwarded-For`, `Forwarded` (RFC 7239), `X-Real-IP`,
//! `X-Forwarded-Proto`.
//!
//! Knows how each writes addresses down, and that each hop's word is only as good as the hop that passed
//! it on: a chain is read from its near end, for as long as it names proxies that are trusted.
//! Must not know: which those are, or what the client's address is used for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{digits, list};

/// The chain of addresses, the client's first.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The scheme that the client used.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The client's address alone.
pub const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Hops of a chain that are looked at, from its near end. No honest way is longer, and each costs a
/// comparison with every trusted network.
pub const MAX_HOPS: usize = 32;

/// What is believed of a request's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whom the request is from: the nearest address that is no trusted proxy.
    pub client: IpAddr,
    /// `http` or `https`: how that client came.
    pub scheme: &'static str,
}

/// What is to be believed of a request that came from `peer`: all that `peer` says, if it is `trusted`.
///
/// Of the three ways to name a client, the first counts that is there at all: `X-Forwarded-For`, which
/// nearly every proxy adds to; `Forwarded`, which most pass on as clients sent it; `X-Real-IP`, which is
/// written alone where a proxy adds to neither.
pub fn told(headers: &HeaderMap, peer: IpAddr, trusted: impl Fn(IpAddr) -> bool) -> Told {
    let peer = peer.to_canonical();
    if !trusted(peer) {
        return Told { client: peer, scheme: "http" };
    }
    let near = Hop { address: peer, scheme: None };
    let client = if headers.contains_key(X_FORWARDED_FOR) {
        walk(near, addresses(headers), trusted)
    } else if headers.contains_key(header::FORWARDED) {
        walk(near, elements(headers), trusted)
    } else {
        walk(near, headers.get_all(X_REAL_IP).iter().rev().take(1).map(real), trusted)
    };
    let scheme = match headers.get(X_FORWARDED_PROTO) {
        Some(said) => scheme(said.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default()),
        None => client.scheme,
    };
    Told { client: client.address, scheme: scheme.unwrap_or("http") }
}

/// An address on the way, and the scheme by which it came to the next.
#[derive(Clone, Copy)]
struct Hop {
    address: IpAddr,
    scheme: Option<&'static str>,
}

/// From hop to hop, nearest first, to one that is not trusted. What cannot be read ends the way: who
/// passed it on is then the last that is known.
fn walk(near: Hop, hops: impl Iterator<Item = Option<Hop>>, trusted: impl Fn(IpAddr) -> bool) -> Hop {
    let mut last = near;
    for hop in hops.take(MAX_HOPS) {
        let Some(hop) = hop else { return last };
        last = hop;
        if !trusted(hop.address) {
            return last;
        }
    }
    last
}

/// The members of `X-Forwarded-For`, the last first.
fn addresses(headers: &HeaderMap) -> impl Iterator<Item = Option<Hop>> {
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let members = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    members
        .map(list::trim)
        .filter(|member| !member.is_empty())
        .map(|member| address(member).map(|address| Hop { address, scheme: None }))
}

fn real(value: &HeaderValue) -> Option<Hop> {
    address(list::trim(value.as_bytes())).map(|address| Hop { address, scheme: None })
}

/// The elements of `Forwarded`, the last first; no more than [`MAX_HOPS`] of a line are held.
fn elements(headers: &HeaderMap) -> impl Iterator<Item = Option<Hop>> {
    headers.get_all(header::FORWARDED).iter().rev().flat_map(|line| {
        let mut last: Vec<Option<Hop>> = Vec::new();
        for member in list::members(line.as_bytes()) {
            if last.len() == MAX_HOPS {
                last.remove(0);
            }
            last.push(element(member));
        }
        last.into_iter().rev()
    })
}

/// RFC 7239 §4: `forwarded-element = [ forwarded-pair ] *( ";" [ forwarded-pair ] )`. `None` where it
/// names no address, or not one alone: §6.2 and §6.3 let a proxy say `unknown` or a word of its own.
fn element(member: &[u8]) -> Option<Hop> {
    let (mut named, mut scheme_named) = (None, None);
    for pair in member.split(|byte| *byte == b';').map(list::trim).filter(|pair| !pair.is_empty()) {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = pair.split_at_checked(at)?;
        let value = value.get(1..)?;
        let plain = match value.strip_prefix(b"\"") {
            // No address and no scheme has anything in it that would have to be escaped.
            Some(rest) => rest.strip_suffix(b"\"")?,
            None => value,
        };
        // §4: "Note that as ":" and "[]" are not valid characters in token, IPv6 addresses are written
        // as quoted-string"; many write them plainly, and nothing else can be meant.
        if name.eq_ignore_ascii_case(b"for") {
            // §4: "Each parameter MUST NOT occur more than once per field-value".
            if named.replace(address(plain)?).is_some() {
                return None;
            }
        } else if name.eq_ignore_ascii_case(b"proto") {
            scheme_named = scheme(plain);
        }
    }
    named.map(|address| Hop { address, scheme: scheme_named })
}

/// The scheme of a word, WebSocket's included; any other word says nothing that a key could hold.
fn scheme(word: &[u8]) -> Option<&'static str> {
    let word = list::trim(word);
    let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    if is("https") || is("wss") {
        Some("https")
    } else if is("http") || is("ws") {
        Some("http")
    } else {
        None
    }
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
/// Not the unspecified one, from which nobody comes.
fn address(text: &[u8]) -> Option<IpAddr> {
    // The longest is an IPv6 address that ends in an IPv4 one, with brackets and port.
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= 53)?;
    let address = match text.strip_prefix('[') {
        Some(rest) => {
            let (inner, behind) = rest.split_once(']')?;
            if !behind.is_empty() {
                is_port(behind.strip_prefix(':')?).then_some(())?;
            }
            IpAddr::V6(inner.parse::<Ipv6Addr>().ok()?)
        }
        None => match text.parse::<IpAddr>() {
            Ok(address) => address,
            Err(_) => {
                let (inner, port) = text.split_once(':')?;
                is_port(port).then_some(())?;
                IpAddr::V4(inner.parse::<Ipv4Addr>().ok()?)
            }
        },
    };
    Some(address.to_canonical()).filter(|address| !address.is_unspecified())
}

/// RFC 7239 §6: `node-port = port / obfport`.
fn is_port(text: &str) -> bool {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let hidden = text.len() > 1
        && text.starts_with('_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    digits || hidden
}

/// An address as the fields of a request to an origin name it. Every such request has one, so the usual kind does not
/// go through `core::fmt`.
pub fn named(address: IpAddr) -> Option<HeaderValue> {
    let IpAddr::V4(address) = address else { return HeaderValue::try_from(address.to_string()).ok() };
    let mut text = String::with_capacity("255.255.255.255".len());
    for (at, octet) in address.octets().into_iter().enumerate() {
        if at > 0 {
            text.push('.');
        }
        digits::push(&mut text, u64::from(octet), 1);
    }
    HeaderValue::try_from(text).ok()
}

/// Adds `peer` to the elements of `Forwarded` (RFC 7239 §4), where there are any.
pub fn extend(headers: &mut HeaderMap, peer: IpAddr) {
    if !headers.contains_key(header::FORWARDED) {
        return;
    }
    let text = match peer.to_canonical() {
        IpAddr::V4(address) => format!("for={address}"),
        IpAddr::V6(address) => format!("for=\"[{address}]\""),
    };
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.append(header::FORWARDED, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 10.x and fd00:: are proxies.
    fn trusted(ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => ip.octets()[0] == 10,
            IpAddr::V6(ip) => ip.segments()[0] == 0xfd00,
        }
    }

    /// Fields as a request has them.
    type Sent<'a> = &'a [(&'a str, &'a str)];

    fn of(peer: &str, fields: Sent) -> Told {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        told(&headers, peer.parse().unwrap(), trusted)
    }

    proptest! {
        #[test]
        fn an_address_is_written_as_it_is_everywhere(ip: IpAddr) {
            prop_assert_eq!(named(ip).unwrap(), ip.to_string());
        }
    }

    #[test]
    fn the_client_is_the_nearest_address_that_is_no_trusted_proxy() {
        let rows: &[(&str, Sent, &str)] = &[
            // Whom nobody trusts speaks for itself alone.
            ("192.0.2.9", &[("x-forwarded-for", "198.51.100.1")], "192.0.2.9"),
            ("::ffff:192.0.2.9", &[], "192.0.2.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "198.51.100.1")], "198.51.100.1"),
            ("::ffff:10.0.0.1", &[("x-forwarded-for", "198.51.100.1")], "198.51.100.1"),
            // What the client itself had written stands further away.
            ("10.0.0.1", &[("x-forwarded-for", "10.9.9.9, 203.0.113.7, 198.51.100.1")], "198.51.100.1"),
            ("10.0.0.1", &[("x-forwarded-for", "203.0.113.7, 198.51.100.1, 10.0.0.2")], "198.51.100.1"),
            (
                "10.0.0.1",
                &[("x-forwarded-for", "203.0.113.7"), ("x-forwarded-for", "10.0.0.2")],
                "203.0.113.7",
            ),
            ("10.0.0.1", &[("x-forwarded-for", "10.0.0.3, 10.0.0.2")], "10.0.0.3"),
            // Ports, brackets, the other family.
            ("10.0.0.1", &[("x-forwarded-for", "198.51.100.1:4711")], "198.51.100.1"),
            ("10.0.0.1", &[("x-forwarded-for", "2001:db8::1")], "2001:db8::1"),
            ("10.0.0.1", &[("x-forwarded-for", "[2001:db8::1]:443")], "2001:db8::1"),
            ("10.0.0.1", &[("x-forwarded-for", "[2001:db8::1]")], "2001:db8::1"),
            ("10.0.0.1", &[("x-forwarded-for", "::ffff:198.51.100.1")], "198.51.100.1"),
            ("fd00::1", &[("x-forwarded-for", "198.51.100.1, fd00::2")], "198.51.100.1"),
            // Garbage ends the way at the last sane hop.
            ("10.0.0.1", &[("x-forwarded-for", "198.51.100.1, unknown")], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "198.51.100.1, evil, 10.0.0.2")], "10.0.0.2"),
            ("10.0.0.1", &[("x-forwarded-for", "198.51.100.1:port")], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "198.51.100.1:")], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "198.51.100.1:123456")], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "[198.51.100.1]")], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "[2001:db8::1]x")], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "fe80::1%eth0")], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "0.0.0.0")], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "198.51.100.01")], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "\"198.51.100.1\"")], "10.0.0.1"),
            // Empty members are none (RFC 9110 §5.6.1.2).
            ("10.0.0.1", &[("x-forwarded-for", "198.51.100.1, , ")], "198.51.100.1"),
            ("10.0.0.1", &[("x-forwarded-for", "")], "10.0.0.1"),
            // RFC 7239.
            ("10.0.0.1", &[("forwarded", "for=198.51.100.1")], "198.51.100.1"),
            ("10.0.0.1", &[("forwarded", "For=\"[2001:db8::1]:4711\"; proto=https;by=_x")], "2001:db8::1"),
            (
                "10.0.0.1",
                &[("forwarded", "for=203.0.113.7, for=\"198.51.100.1:_p\", for=10.0.0.2")],
                "198.51.100.1",
            ),
            ("10.0.0.1", &[("forwarded", "for=203.0.113.7"), ("forwarded", "for=10.0.0.2")], "203.0.113.7"),
            ("10.0.0.1", &[("forwarded", "for=198.51.100.1, for=unknown")], "10.0.0.1"),
            ("10.0.0.1", &[("forwarded", "for=198.51.100.1, for=_hidden")], "10.0.0.1"),
            ("10.0.0.1", &[("forwarded", "for=198.51.100.1, proto=https")], "10.0.0.1"),
            ("10.0.0.1", &[("forwarded", "for=198.51.100.1;for=203.0.113.7")], "10.0.0.1"),
            ("10.0.0.1", &[("forwarded", "for=\"198.51.100.1")], "10.0.0.1"),
            ("10.0.0.1", &[("forwarded", "for")], "10.0.0.1"),
            // Most proxies pass `Forwarded` on as the client wrote it.
            (
                "10.0.0.1",
                &[("forwarded", "for=203.0.113.7"), ("x-forwarded-for", "198.51.100.1")],
                "198.51.100.1",
            ),
            (
                "10.0.0.1",
                &[("x-real-ip", "203.0.113.7"), ("x-forwarded-for", "198.51.100.1")],
                "198.51.100.1",
            ),
            ("10.0.0.1", &[("x-real-ip", "203.0.113.7")], "203.0.113.7"),
            ("10.0.0.1", &[("x-real-ip", "nobody")], "10.0.0.1"),
        ];
        for (peer, fields, want) in rows {
            assert_eq!(of(peer, fields).client, want.parse::<IpAddr>().unwrap(), "{peer} {fields:?}");
        }
    }

    #[test]
    fn the_scheme_is_one_of_two_whatever_is_said() {
        let rows: &[(Sent, &str)] = &[
            (&[], "http"),
            (&[("x-forwarded-proto", "https")], "https"),
            (&[("x-forwarded-proto", " HTTPS ")], "https"),
            (&[("x-forwarded-proto", "wss")], "https"),
            (&[("x-forwarded-proto", "https, http")], "https"),
            (&[("x-forwarded-proto", "http, https")], "http"),
            (&[("x-forwarded-proto", "httpsx")], "http"),
            (&[("x-forwarded-proto", "gopher")], "http"),
            (&[("x-forwarded-proto", "")], "http"),
            (&[("forwarded", "for=198.51.100.1;proto=https")], "https"),
            (&[("forwarded", "for=198.51.100.1;proto=\"HTTPS\"")], "https"),
            (&[("forwarded", "for=203.0.113.7;proto=https, for=198.51.100.1;proto=http")], "http"),
            (&[("forwarded", "for=198.51.100.1;proto=https, for=10.0.0.2;proto=http")], "https"),
            (&[("forwarded", "for=198.51.100.1;proto=gopher")], "http"),
            (&[("forwarded", "for=198.51.100.1;proto=https"), ("x-forwarded-proto", "http")], "http"),
        ];
        for (fields, want) in rows {
            assert_eq!(of("10.0.0.1", fields).scheme, *want, "{fields:?}");
            assert_eq!(of("192.0.2.9", fields).scheme, "http", "a stranger's {fields:?}");
        }
    }

    #[test]
    fn a_chain_is_followed_so_far_and_no_further() {
        let chain = |proxies: usize| format!("198.51.100.1{}", ", 10.0.0.2".repeat(proxies));
        let client = |proxies| of("10.0.0.1", &[("x-forwarded-for", &chain(proxies))]).client.to_string();
        assert_eq!(client(MAX_HOPS - 1), "198.51.100.1");
        assert_eq!(client(MAX_HOPS), "10.0.0.2");
        let chain = |proxies: usize| format!("for=198.51.100.1{}", ", for=10.0.0.2".repeat(proxies));
        let client = |proxies| of("10.0.0.1", &[("forwarded", &chain(proxies))]).client.to_string();
        assert_eq!(client(MAX_HOPS - 1), "198.51.100.1");
        assert_eq!(client(MAX_HOPS), "10.0.0.2");
    }

    #[test]
    fn a_hop_is_added_where_there_are_elements() {
        let mut headers = HeaderMap::new();
        extend(&mut headers, "10.0.0.1".parse().unwrap());
        assert!(headers.is_empty());
        headers.insert(header::FORWARDED, HeaderValue::from_static("for=198.51.100.1"));
        extend(&mut headers, "10.0.0.1".parse().unwrap());
        extend(&mut headers, "fd00::1".parse().unwrap());
        let lines: Vec<_> = headers.get_all(header::FORWARDED).iter().collect();
        assert_eq!(lines, ["for=198.51.100.1", "for=10.0.0.1", "for=\"[fd00::1]\""]);
        assert_eq!(told(&headers, "10.0.0.2".parse().unwrap(), trusted).client.to_string(), "198.51.100.1");
    }

    proptest! {
        #[test]
        fn whatever_a_client_writes_stands_behind_what_the_proxy_adds(theirs in "[ -~]{0,60}") {
            let mut headers = HeaderMap::new();
            headers.append(X_FORWARDED_FOR, HeaderValue::from_str(&theirs).unwrap());
            headers.append(X_FORWARDED_FOR, HeaderValue::from_static("198.51.100.1"));
            let told = told(&headers, "10.0.0.1".parse().unwrap(), trusted);
            prop_assert_eq!(told.client.to_string(), "198.51.100.1");
        }
    }
}
