//! Networks as they are written, and which addresses belong to one.
//!
//! Knows prefixes and the two forms of an IPv4 address.
//! Must not know: where the text stands, or what a network is trusted with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address::mistake;
use super::units::Mistake;
use super::{Config, Network};

impl Network {
    /// Whether an address belongs to it. An IPv4 address that was written as IPv6
    /// (`::ffff:10.0.0.1`, as dual-stack sockets report it) is the IPv4 address.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.addr, ip.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                kept(u32::from(net).into(), 32, self.prefix) == kept(u32::from(ip).into(), 32, self.prefix)
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                kept(u128::from(net), 128, self.prefix) == kept(u128::from(ip), 128, self.prefix)
            }
            _ => false,
        }
    }
}

impl Network {
    /// Whether it is larger than any that one party has: `10.0.0.0/8` and `fc00::/7` are the largest of those
    /// that are anybody's own.
    pub(super) fn holds_strangers(&self) -> bool {
        self.prefix < if self.addr.is_ipv4() { 8 } else { 7 }
    }
}

impl Config {
    /// Whether a peer is believed about the way that its requests have come.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(peer))
    }

    /// Whether a client's PURGE is obeyed.
    pub fn may_purge(&self, client: IpAddr) -> bool {
        self.purge_from.iter().any(|network| network.contains(client))
    }
}

/// The first `prefix` of `bits` bits.
fn kept(address: u128, bits: u32, prefix: u8) -> u128 {
    let dropped = bits.saturating_sub(u32::from(prefix));
    address.checked_shr(dropped).and_then(|a| a.checked_shl(dropped)).unwrap_or(0)
}

/// Reads `ip` or `ip/bits`.
pub(super) fn read(text: &str) -> Result<Network, Mistake> {
    let (ip_text, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
    let Ok(ip) = ip_text.parse::<IpAddr>() else {
        return mistake("not a network", "write such as \"10.0.0.0/8\" or \"::1\"");
    };
    let most: u8 = if ip.is_ipv4() { 32 } else { 128 };
    let prefix = bits.map_or(Some(most), |b| b.parse().ok().filter(|p| *p <= most));
    let Some(prefix) = prefix else {
        return mistake("not a prefix length", format!("write 0 to {most} after the slash"));
    };
    let network = canonical(ip, prefix);
    let base = base_of(&network);
    if base == network.addr {
        return Ok(network);
    }
    let help = format!(
        "write \"{base}/{0}\" for the network, or \"{1}\" for the one address",
        network.prefix, network.addr
    );
    mistake("the address has bits beyond its prefix", help)
}

/// Networks of IPv4-mapped addresses are held as IPv4, as [`Network::contains`] compares.
fn canonical(ip: IpAddr, prefix: u8) -> Network {
    match (ip.to_canonical(), prefix.checked_sub(96)) {
        (IpAddr::V4(v4), Some(bits)) if ip.is_ipv6() => Network { addr: v4.into(), prefix: bits },
        _ => Network { addr: ip, prefix },
    }
}

fn base_of(network: &Network) -> IpAddr {
    match network.addr {
        IpAddr::V4(ip) => {
            let bits = u32::try_from(kept(u32::from(ip).into(), 32, network.prefix)).unwrap_or(0);
            Ipv4Addr::from(bits).into()
        }
        IpAddr::V6(ip) => Ipv6Addr::from(kept(ip.into(), 128, network.prefix)).into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_network_holds_its_addresses_in_either_form() {
        let rows = [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "10.9.9.9", true),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("::1", "::1", true),
            ("::1", "::2", false),
            ("fd00::/8", "fd12::1", true),
            ("::/0", "fe80::1", true),
            ("::/0", "10.0.0.1", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
        ];
        for (net, ip, want) in rows {
            assert_eq!(read(net).unwrap().contains(ip.parse().unwrap()), want, "{net} {ip}");
        }
    }

    #[test]
    fn a_wrong_network_says_what_to_write() {
        let rows = [
            ("10.1.2.3/8", "write \"10.0.0.0/8\" for the network, or \"10.1.2.3\" for the one address"),
            ("10.0.0.0/33", "write 0 to 32 after the slash"),
            ("::/129", "write 0 to 128 after the slash"),
            ("localhost", "write such as \"10.0.0.0/8\" or \"::1\""),
        ];
        for (text, want) in rows {
            assert_eq!(read(text).unwrap_err().help, want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a-f.:/]{0,20}|.{0,20}") {
            let _ = read(&text);
        }

        #[test]
        fn a_network_of_any_length_takes_no_strangers(net: u32, ip: u32, prefix in 0u8..=32) {
            let addr = base_of(&Network { addr: Ipv4Addr::from(net).into(), prefix });
            let network = Network { addr, prefix };
            let same = (0..u32::from(prefix)).all(|bit| (net ^ ip) >> (31 - bit) & 1 == 0);
            prop_assert_eq!(network.contains(Ipv4Addr::from(ip).into()), same);
        }
    }
}
