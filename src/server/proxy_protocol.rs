//! The PROXY protocol's header, versions 1 and 2: who a connection is from, told by a balancer that speaks
//! TCP alone.
//!
//! Knows the bytes of both, and how many of them a header has: not one byte behind it is looked at. Pure:
//! bytes go in, and each answer depends on them alone.
//! Must not know: sockets, who may be believed, or what follows the header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::telemetry::HeaderRefused;

/// The longest line of version 1, its CRLF included (section 2.1 of the protocol).
pub const V1_MOST: usize = 107;
/// How version 2 begins. No HTTP request, and no line of version 1, begins so.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length.
const V2_FIXED: usize = 16;
/// The most that may follow that: addresses, and what else a balancer has to say. Larger than anything
/// that is sent in practice, and small enough to be held for each of many connections.
pub const V2_MOST: usize = 4096;
/// The longest header.
pub const MOST: usize = V2_FIXED + V2_MOST;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header: all of the bytes belong to it, and more must come.
    Partial,
    /// A whole header.
    Header {
        /// Its bytes; what follows them is the client's.
        length: usize,
        /// Whom it names; `None` where it is the balancer itself that speaks (`LOCAL`), or does not know
        /// (`UNKNOWN`): then the connection's own other end counts.
        client: Option<IpAddr>,
    },
}

/// Reads the header at the beginning of `bytes`.
///
/// # Errors
/// Why it cannot be one, as soon as that shows. The protocol forbids to guess (section 2): a connection
/// that does not begin with a good header is no connection.
pub fn parse(bytes: &[u8]) -> Result<Parsed, HeaderRefused> {
    if begins(bytes, V2_SIGNATURE) {
        return version_2(bytes);
    }
    if begins(bytes, b"PROXY ") {
        return version_1(bytes);
    }
    Err(HeaderRefused::Missing)
}

/// Whether `bytes` begin with `start`, as far as they go.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(a, b)| a == b)
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 4711 80` and CRLF.
fn version_1(bytes: &[u8]) -> Result<Parsed, HeaderRefused> {
    let within = bytes.get(..V1_MOST).unwrap_or(bytes);
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() < V1_MOST { Ok(Parsed::Partial) } else { Err(HeaderRefused::TooLong) };
    };
    let line = within.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(HeaderRefused::Malformed)?;
    let client = line_names(line)?;
    Ok(Parsed::Header { length: end + 1, client })
}

fn line_names(line: &[u8]) -> Result<Option<IpAddr>, HeaderRefused> {
    let said = line.strip_prefix(b"PROXY ").ok_or(HeaderRefused::Malformed)?;
    // "the receiver must ignore anything presented before the CRLF is found"
    if said == b"UNKNOWN" || said.starts_with(b"UNKNOWN ") {
        return Ok(None);
    }
    let said = std::str::from_utf8(said).map_err(|_| HeaderRefused::Malformed)?;
    let mut words = said.split(' ');
    let mut word = || words.next().ok_or(HeaderRefused::Malformed);
    let (family, source, destination, ports) = (word()?, word()?, word()?, [word()?, word()?]);
    if words.next().is_some() || !ports.into_iter().all(is_port) {
        return Err(HeaderRefused::Malformed);
    }
    let address = match family {
        "TCP4" => v4(source).and(v4(destination)).and(v4(source)),
        "TCP6" => v6(source).and(v6(destination)).and(v6(source)),
        _ => return Err(HeaderRefused::Family),
    };
    address.map(Some).ok_or(HeaderRefused::Malformed)
}

fn v4(text: &str) -> Option<IpAddr> {
    text.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

fn v6(text: &str) -> Option<IpAddr> {
    text.parse::<Ipv6Addr>().ok().map(|address| IpAddr::V6(address).to_canonical())
}

/// A port in decimal, from 0 to 65535, without leading zeros.
fn is_port(text: &str) -> bool {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits && (text == "0" || !text.starts_with('0')) && text.parse::<u16>().is_ok()
}

fn version_2(bytes: &[u8]) -> Result<Parsed, HeaderRefused> {
    let Some([version_and_command, family, high, low]) = bytes.get(V2_SIGNATURE.len()..V2_FIXED) else {
        return early(bytes);
    };
    let command = command(*version_and_command)?;
    let rest = usize::from(u16::from_be_bytes([*high, *low]));
    if rest > V2_MOST {
        return Err(HeaderRefused::TooLong);
    }
    // A family that is not known, or too little room for it, shows before the addresses have come.
    let addresses = match (command, family) {
        // "discard the protocol block including the family which is ignored"
        (Command::Local, _) | (Command::Proxy, 0x00) => Addresses::None,
        (Command::Proxy, 0x11) => Addresses::V4,
        (Command::Proxy, 0x21) => Addresses::V6,
        // Datagrams, UNIX sockets, and what the protocol does not define: not from a client of ours.
        (Command::Proxy, _) => return Err(HeaderRefused::Family),
    };
    if rest < addresses.length() {
        return Err(HeaderRefused::Malformed);
    }
    let length = V2_FIXED + rest;
    let Some(block) = bytes.get(V2_FIXED..length) else { return Ok(Parsed::Partial) };
    // What follows the addresses says more of the connection (TLVs): nothing that Larder goes by.
    let client = match addresses {
        Addresses::None => None,
        Addresses::V4 => block.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        Addresses::V6 => block.first_chunk::<16>().map(|octets| IpAddr::from(*octets).to_canonical()),
    };
    Ok(Parsed::Header { length, client })
}

/// Less than the fixed part has come; what is there may be wrong already.
fn early(bytes: &[u8]) -> Result<Parsed, HeaderRefused> {
    match bytes.get(V2_SIGNATURE.len()) {
        Some(byte) => command(*byte).map(|_| Parsed::Partial),
        None => Ok(Parsed::Partial),
    }
}

#[derive(Clone, Copy)]
enum Command {
    Local,
    Proxy,
}

/// Only version 2 is one, and "receivers must drop connections presenting unexpected values" of the
/// command.
fn command(byte: u8) -> Result<Command, HeaderRefused> {
    match byte {
        0x20 => Ok(Command::Local),
        0x21 => Ok(Command::Proxy),
        _ => Err(HeaderRefused::Malformed),
    }
}

#[derive(Clone, Copy)]
enum Addresses {
    None,
    V4,
    V6,
}

impl Addresses {
    /// Bytes of two addresses and two ports.
    const fn length(self) -> usize {
        match self {
            Self::None => 0,
            Self::V4 => 12,
            Self::V6 => 36,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of version 2.
    fn v2(version_and_command: u8, family: u8, length: u16, rest: &[u8]) -> Vec<u8> {
        let mut bytes = V2_SIGNATURE.to_vec();
        bytes.extend([version_and_command, family]);
        bytes.extend(length.to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0x12, 0x67, 0, 80];

    fn v6() -> Vec<u8> {
        let octets = |ip: &str| ip.parse::<Ipv6Addr>().unwrap().octets();
        [&octets("2001:db8::1")[..], &octets("2001:db8::2"), &[0x12, 0x67, 0, 80]].concat()
    }

    fn good() -> Vec<(Vec<u8>, Option<&'static str>)> {
        let line = |text: &str| text.as_bytes().to_vec();
        let with_more = [&V4[..], &[0x04; 300]].concat();
        let unix = [0; 216];
        vec![
            (line("PROXY TCP4 192.0.2.1 198.51.100.1 4711 80\r\n"), Some("192.0.2.1")),
            (line("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"), Some("255.255.255.255")),
            (line("PROXY TCP4 192.0.2.1 198.51.100.1 0 0\r\n"), Some("192.0.2.1")),
            (line("PROXY TCP6 2001:db8::1 2001:db8::2 4711 80\r\n"), Some("2001:db8::1")),
            (line("PROXY TCP6 ::ffff:192.0.2.1 ::1 4711 80\r\n"), Some("192.0.2.1")),
            (line("PROXY UNKNOWN\r\n"), None),
            (line("PROXY UNKNOWN ffff::1 what\r ever 1\r\n"), None),
            (line(&format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_MOST - 16))), None),
            (v2(0x21, 0x11, 12, &V4), Some("192.0.2.1")),
            (v2(0x21, 0x21, 36, &v6()), Some("2001:db8::1")),
            (v2(0x21, 0x11, 312, &with_more), Some("192.0.2.1")),
            (v2(0x21, 0x00, 0, &[]), None),
            (v2(0x21, 0x00, 3, b"abc"), None),
            (v2(0x20, 0x00, 0, &[]), None),
            (v2(0x20, 0x11, 12, &V4), None),
            (v2(0x20, 0x31, 216, &unix), None),
            (v2(0x20, 0xff, 4096, &[7; 4096]), None),
        ]
    }

    #[test]
    fn a_header_names_its_client_and_ends_where_it_ends() {
        for (header, client) in good() {
            let client = client.map(|client| client.parse::<IpAddr>().unwrap());
            let whole = Ok(Parsed::Header { length: header.len(), client });
            assert_eq!(parse(&header), whole, "{header:?}");
            // Whatever follows, a second header too.
            for behind in [&b"GET / HTTP/1.1\r\n"[..], b"\n", &header, b"PRI * HTTP/2.0\r\n"] {
                assert_eq!(parse(&[&header[..], behind].concat()), whole, "{header:?} {behind:?}");
            }
        }
    }

    #[test]
    fn every_beginning_of_a_header_is_one_and_asks_for_more() {
        for (header, _) in good() {
            for end in 0..header.len() {
                assert_eq!(parse(&header[..end]), Ok(Parsed::Partial), "{end} of {header:?}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused_for_what_it_is() {
        use HeaderRefused::{Family, Malformed, Missing, TooLong};
        let line = |text: &str| text.as_bytes().to_vec();
        let rows: Vec<(Vec<u8>, HeaderRefused)> = vec![
            (line("GET / HTTP/1.1\r\n"), Missing),
            (line("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Missing),
            (line("proxy TCP4 192.0.2.1 198.51.100.1 1 2\r\n"), Missing),
            (line("PROXY\r\n"), Missing),
            (line(" PROXY TCP4 192.0.2.1 198.51.100.1 1 2\r\n"), Missing),
            (line("\r\nPROXY UNKNOWN\r\n"), Missing),
            (vec![0x16, 3, 1], Missing),
            (vec![0], Missing),
            // Version 1.
            (line("PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n"), Malformed),
            (line("PROXY UNKNOWN\n"), Malformed),
            (line("PROXY \r\n"), Malformed),
            (line("PROXY TCP4\r\n"), Malformed),
            (line("PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n"), Malformed),
            (line("PROXY TCP4 192.0.2.1 198.51.100.1 1 2 3\r\n"), Malformed),
            (line("PROXY TCP4 192.0.2.1 198.51.100.1 1 2 \r\n"), Malformed),
            (line("PROXY TCP4  192.0.2.1 198.51.100.1 1 2\r\n"), Malformed),
            (line("PROXY TCP4\t192.0.2.1 198.51.100.1 1 2\r\n"), Malformed),
            (line("PROXY TCP4 192.0.2 198.51.100.1 1 2\r\n"), Malformed),
            (line("PROXY TCP4 192.0.2.256 198.51.100.1 1 2\r\n"), Malformed),
            (line("PROXY TCP4 192.0.02.1 198.51.100.1 1 2\r\n"), Malformed),
            (line("PROXY TCP4 192.0.2.1 nowhere 1 2\r\n"), Malformed),
            (line("PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n"), Malformed),
            (line("PROXY TCP6 192.0.2.1 198.51.100.1 1 2\r\n"), Malformed),
            (line("PROXY TCP6 [2001:db8::1] 2001:db8::2 1 2\r\n"), Malformed),
            (line("PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n"), Malformed),
            (line("PROXY TCP4 192.0.2.1 198.51.100.1 65536 2\r\n"), Malformed),
            (line("PROXY TCP4 192.0.2.1 198.51.100.1 -1 2\r\n"), Malformed),
            (line("PROXY TCP4 192.0.2.1 198.51.100.1 +1 2\r\n"), Malformed),
            (line("PROXY TCP4 192.0.2.1 198.51.100.1 01 2\r\n"), Malformed),
            (line("PROXY TCP4 192.0.2.1 198.51.100.1 1 \r\n"), Malformed),
            (line("PROXY TCP4 192.0.2.1\0 198.51.100.1 1 2\r\n"), Malformed),
            (line("PROXY TCP4 192.0.2.1 198.51.100.1 1 2\r\r\n"), Malformed),
            (b"PROXY TCP4 \xff 198.51.100.1 1 2\r\n".to_vec(), Malformed),
            (line("PROXY UNKNOWNS\r\n"), Malformed),
            (line("PROXY UDP4 192.0.2.1 198.51.100.1 1 2\r\n"), Family),
            (line("PROXY UNIX /a /b 1 2\r\n"), Family),
            (line("PROXY tcp4 192.0.2.1 198.51.100.1 1 2\r\n"), Family),
            (line(&format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_MOST - 15))), TooLong),
            (line(&format!("PROXY UNKNOWN {}", "x".repeat(V1_MOST))), TooLong),
            // Version 2.
            (v2(0x11, 0x11, 12, &V4), Malformed),
            (v2(0x31, 0x11, 12, &V4), Malformed),
            (v2(0x22, 0x11, 12, &V4), Malformed),
            (v2(0x2f, 0x11, 12, &V4), Malformed),
            (v2(0x21, 0x11, 11, &V4), Malformed),
            (v2(0x21, 0x11, 0, &[]), Malformed),
            (v2(0x21, 0x21, 12, &V4), Malformed),
            (v2(0x21, 0x21, 35, &v6()), Malformed),
            (v2(0x21, 0x12, 12, &V4), Family),
            (v2(0x21, 0x22, 36, &v6()), Family),
            (v2(0x21, 0x31, 216, &[0; 216]), Family),
            (v2(0x21, 0x01, 12, &V4), Family),
            (v2(0x21, 0x10, 12, &V4), Family),
            (v2(0x21, 0x41, 12, &V4), Family),
            (v2(0x21, 0x11, 4097, &V4), TooLong),
            (v2(0x20, 0x00, u16::MAX, &[]), TooLong),
        ];
        for (bytes, why) in rows {
            assert_eq!(parse(&bytes), Err(why), "{:?}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn a_wrong_version_shows_before_the_length_has_come() {
        assert_eq!(parse(&[&V2_SIGNATURE[..], &[0x11]].concat()), Err(HeaderRefused::Malformed));
        assert_eq!(parse(&[&V2_SIGNATURE[..], &[0x21, 0x11]].concat()), Ok(Parsed::Partial));
    }
}
