//! How many of something each client holds at once.
//!
//! Knows no more clients than hold something: a count that comes to nothing is forgotten.
//! Must not know: what is held, or how many are too many.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Tables of addresses, each with a lock of its own.
const SHARDS: usize = 16;
/// Bits of an IPv6 address that tell one party from another. Whoever has IPv6 at all has 2^64 addresses: a link has a
/// prefix of 64 bits (RFC 4291 §2.5.1), and providers give out no less (RFC 6177).
const PREFIX: u32 = 64;

/// The counts of all clients.
#[derive(Debug, Default)]
pub struct Holds([Mutex<HashMap<IpAddr, usize>>; SHARDS]);

/// One of those that a client holds, until it is dropped.
#[derive(Debug)]
pub struct Hold {
    holds: Arc<Holds>,
    party: IpAddr,
}

impl Holds {
    /// One of at most `most` of `client`. `None` where it has as many.
    pub fn take(self: &Arc<Self>, client: IpAddr, most: usize) -> Option<Hold> {
        let party = party(client);
        match self.shard(&party)?.lock().entry(party) {
            Entry::Occupied(count) if *count.get() >= most => return None,
            Entry::Occupied(mut count) => *count.get_mut() += 1,
            Entry::Vacant(_) if most == 0 => return None,
            Entry::Vacant(none) => drop(none.insert(1)),
        }
        Some(Hold { holds: Arc::clone(self), party })
    }

    fn shard(&self, party: &IpAddr) -> Option<&Mutex<HashMap<IpAddr, usize>>> {
        let last = match party {
            IpAddr::V4(address) => u32::from(*address) as usize,
            // The last bits of the part that counts.
            IpAddr::V6(address) => (u128::from(*address) >> (128 - PREFIX)) as usize,
        };
        self.0.get(last % SHARDS)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some(shard) = self.holds.shard(&self.party) else { return };
        if let Entry::Occupied(mut count) = shard.lock().entry(self.party) {
            match count.get().saturating_sub(1) {
                0 => drop(count.remove()),
                left => *count.get_mut() = left,
            }
        }
    }
}

/// What one party has of the address: the part that tells it from others.
pub fn party(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let kept = u128::MAX << (128 - PREFIX);
            IpAddr::V6(Ipv6Addr::from(u128::from(address) & kept))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_own_and_counts_for_itself() {
        let holds = Arc::new(Holds::default());
        let of = |text: &str| holds.take(text.parse().unwrap(), 2);
        let held =
            [of("192.0.2.1"), of("::ffff:192.0.2.1"), of("192.0.2.2"), of("2001:db8::1"), of("2001:db8::2")];
        assert!(held.iter().all(Option::is_some));
        assert!(of("192.0.2.1").is_none());
        assert!(of("2001:db8::ffff:3").is_none(), "the same network");
        assert!(of("2001:db8:0:1::1").is_some());
        drop(held);
        assert!(of("192.0.2.1").is_some() && of("2001:db8::3").is_some());
        assert!(holds.0.iter().all(|shard| shard.lock().is_empty()));
        assert!(holds.take("192.0.2.1".parse().unwrap(), 0).is_none());
    }

    #[test]
    fn an_ipv6_client_is_its_first_64_bits() {
        for (address, want) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:3::1", "2001:db8:1:3::"),
        ] {
            assert_eq!(party(address.parse().unwrap()), want.parse::<IpAddr>().unwrap(), "{address}");
        }
    }
}
