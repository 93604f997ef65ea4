//! What must hold of whoever says whom a connection or a request is from.

use std::net::IpAddr;

use http::header::FORWARDED;
use http::{HeaderMap, HeaderValue};
use larder::fields::forwarded::{X_FORWARDED_FOR, X_FORWARDED_PROTO, X_REAL_IP, extend, told};
use larder::server::proxy_protocol::{MOST, Parsed, V1_MOST, V2_MOST, parse};

use super::dice::{Dice, value};

const LINE: [&str; 24] = [
    "PROXY ",
    "PROXY TCP4 ",
    "PROXY TCP6 ",
    "PROXY UNKNOWN",
    "TCP4",
    "TCP6",
    " ",
    " ",
    " ",
    "192.0.2.1 ",
    "198.51.100.1 ",
    "2001:db8::1 ",
    "::ffff:192.0.2.1 ",
    "0 ",
    "65535",
    "65536",
    "00",
    "\r\n",
    "\r\n",
    "\r",
    "\n",
    "\0",
    "\r\n\r\n\0\r\nQUIT\n",
    "GET / HTTP/1.1\r\n",
];

/// A header of version 2 whose every part may be wrong.
fn version_2(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.push(*dice.pick(&[0x20, 0x21, 0x21, 0x21, 0x22, 0x11]));
    bytes.push(*dice.pick(&[0x00, 0x11, 0x11, 0x21, 0x12, 0x31, 0xff]));
    let there = *dice.pick(&[0, 11, 12, 13, 35, 36, 37, 216, V2_MOST, V2_MOST + 1]);
    let said = if dice.one_in(3) { dice.number() as u16 } else { there as u16 };
    bytes.extend(said.to_be_bytes());
    bytes.extend((0..there).map(|_| dice.next() as u8));
    bytes
}

pub fn proxy_header(dice: &mut Dice) {
    let mut bytes = if dice.one_in(2) { dice.text(&LINE, 8) } else { version_2(dice) };
    if dice.one_in(2) {
        dice.damage(&mut bytes, &LINE);
    }
    let found = parse(&bytes);
    match found {
        Ok(Parsed::Header { length, client }) => {
            assert!(length <= bytes.len() && (15..=MOST).contains(&length));
            assert!(length <= V1_MOST || bytes.starts_with(b"\r\n"));
            // Only its own bytes count, and every beginning of it asks for more.
            assert_eq!(parse(&bytes[..length]), found);
            assert_eq!(parse(&bytes[..dice.below(length)]), Ok(Parsed::Partial));
            let more = [&bytes[..length], &dice.text(&LINE, 3)].concat();
            assert_eq!(parse(&more), found);
            assert_eq!(client, client.map(|client| client.to_canonical()));
        }
        Ok(Parsed::Partial) => assert!(bytes.len() < MOST, "what is held is bounded"),
        // Once refused, always refused: nothing that follows can mend it.
        Err(why) => {
            let more = [&bytes[..], &dice.text(&LINE, 3)].concat();
            assert_eq!(parse(&more), Err(why));
        }
    }
}

const CHAIN: [&str; 30] = [
    "198.51.100.1",
    "10.0.0.1",
    "10.0.0.2:80",
    "2001:db8::1",
    "[2001:db8::1]:80",
    "[fd00::1]",
    "::ffff:10.0.0.3",
    "0.0.0.0",
    "unknown",
    "_hidden",
    "for=",
    "for=10.0.0.1",
    "For=\"[fd00::1]:4711\"",
    "for=198.51.100.1",
    "proto=https",
    "proto=\"http\"",
    "proto=gopher",
    "by=_x",
    "host=a.test",
    ";",
    ";",
    ",",
    ", ",
    ", ",
    "\"",
    "\\",
    "=",
    " ",
    "https",
    "HTTP",
];

/// 10.x and fd00:: are proxies.
fn trusted(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[0] == 10,
        IpAddr::V6(ip) => ip.segments()[0] == 0xfd00,
    }
}

pub fn forwarded(dice: &mut Dice) {
    let mut headers = HeaderMap::new();
    for name in [X_FORWARDED_FOR, FORWARDED, X_REAL_IP, X_FORWARDED_PROTO] {
        if dice.one_in(2) {
            for line in dice.lines(&CHAIN, 2) {
                headers.append(&name, line);
            }
        }
    }
    let (proxy, stranger) = (IpAddr::from([10, 0, 0, 9]), IpAddr::from([192, 0, 2, 9]));
    // A stranger's word counts for nothing.
    let alone = told(&headers, stranger, trusted);
    assert_eq!((alone.client, alone.scheme), (stranger, "http"));
    let found = told(&headers, proxy, trusted);
    assert!(found.scheme == "http" || found.scheme == "https");
    assert_eq!(found.client, found.client.to_canonical());
    // Whatever stands there, whom a trusted proxy adds is the one.
    let (added, node) = match dice.one_in(2) {
        true => (IpAddr::from([203, 0, 113, 7]), "203.0.113.7"),
        false => ("2001:db8::7".parse().unwrap(), "[2001:db8::7]"),
    };
    let mut longer = headers.clone();
    let name = if headers.contains_key(X_FORWARDED_FOR) { X_FORWARDED_FOR } else { FORWARDED };
    let old = longer.get_all(&name).iter().next_back().map(|line| line.as_bytes().to_vec());
    let own = name == FORWARDED;
    let member = if own { format!("for=\"{node}\"") } else { node.to_owned() };
    match old.filter(|_| dice.one_in(2)) {
        // In the last line, as some do.
        Some(line) => {
            let lines: Vec<HeaderValue> = longer.get_all(&name).iter().cloned().collect();
            longer.remove(&name);
            for line in &lines[..lines.len() - 1] {
                longer.append(&name, line.clone());
            }
            longer.append(&name, value([&line[..], b", ", member.as_bytes()].concat()));
        }
        None => {
            longer.append(&name, value(member.into_bytes()));
        }
    }
    assert_eq!(told(&longer, proxy, trusted).client, added, "{longer:?}");
    // What Larder adds itself leads the next proxy back to the same client.
    if own {
        extend(&mut longer, proxy);
        assert_eq!(told(&longer, IpAddr::from([10, 0, 0, 8]), trusted).client, added, "{longer:?}");
    }
}
