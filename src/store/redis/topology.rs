//! Which node of a cluster holds which key.
//!
//! Knows how keys fall into slots, and reads what a node tells of all others (`CLUSTER NODES`, which is one
//! string, hence bounded as any other answer). And which of two views is the later one of the same cluster. Pure.
//! Must not know: how a node is asked, or what stands under a key.

use std::collections::BTreeSet;

use crate::config::Node;

/// How many slots there are.
pub(super) const SLOTS: u16 = 16_384;
/// The most nodes that are believed of a cluster; Redis itself recommends no more than 1,000.
const MOST_NODES: usize = 2_000;

/// The nodes of a cluster and their slots, as one of them tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Topology {
    /// Those that are masters.
    masters: Vec<Member>,
    /// All others, those that are gone too.
    replicas: Vec<Node>,
    /// For each slot its master, by its place; [`NOBODY`] where there is none.
    slots: Box<[u16]>,
    /// The highest epoch of a master's claim to its slots: a later view has no lower one.
    epoch: u64,
    /// What the nodes call themselves, for as long as they live; of those that are in the cluster.
    ids: BTreeSet<Box<str>>,
}

const NOBODY: u16 = u16::MAX;

#[derive(Debug, PartialEq, Eq)]
struct Member {
    node: Node,
    /// What else the cluster may call it by, in redirections.
    alias: Option<Node>,
}

/// The slot of a key: by what stands in its first braces, where something does.
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|b| *b == b'{').and_then(|open| {
        let rest = key.get(open + 1..)?;
        let close = rest.iter().position(|b| *b == b'}').filter(|close| *close > 0)?;
        rest.get(..close)
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM, as the specification of Redis Cluster has it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

impl Topology {
    /// Reads what the node at `asked` tells. With TLS nodes go by their names, where they have any: a
    /// certificate says these. `None` where it is not such an answer, or nobody has any slot.
    pub(super) fn read(text: &str, asked: &Node, tls: bool) -> Option<Self> {
        let mut slots = vec![NOBODY; usize::from(SLOTS)].into_boxed_slice();
        let (mut masters, mut replicas, mut epoch) = (Vec::new(), Vec::new(), 0);
        let (mut unclaimed, mut ids) = (usize::from(SLOTS), BTreeSet::new());
        for line in text.lines().filter(|line| !line.is_empty()) {
            if masters.len().saturating_add(replicas.len()) >= MOST_NODES {
                return None;
            }
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let [id, address, flags, _master, _ping, _pong, claim, _state, claimed @ ..] = words.as_slice()
            else {
                return None;
            };
            let has = |flag: &str| flags.split(',').any(|f| f == flag);
            if has("noaddr") || has("handshake") {
                continue;
            }
            let member = member(address, asked, tls)?;
            ids.insert((*id).into());
            // A master of before that is gone, and whose slots another has taken over, is none.
            let is_gone = (has("fail") || has("fail?")) && claimed.is_empty();
            if !has("master") || is_gone {
                replicas.push(member.node);
                continue;
            }
            let index = u16::try_from(masters.len()).ok()?;
            masters.push(member);
            epoch = epoch.max(claim.parse().ok()?);
            // What is on its way from one to another stands in brackets, and still counts as here.
            for range in claimed.iter().filter(|range| !range.starts_with('[')) {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
                let range = slots.get_mut(first..=last)?;
                // A slot has one master. And whoever claims all of them thousands of times would take a while.
                unclaimed = unclaimed.checked_sub(range.len())?;
                range.fill(index);
            }
        }
        slots.iter().any(|slot| *slot != NOBODY).then_some(Self { masters, replicas, slots, epoch, ids })
    }

    /// Whether this may come after `known`: it has no lower epoch, and some node is in both. An address that was
    /// a node's may be one of another cluster by now, with an epoch as high as that likes.
    pub(super) fn continues(&self, known: &Self) -> bool {
        self.epoch >= known.epoch && !self.ids.is_disjoint(&known.ids)
    }

    /// The master that holds a slot.
    pub(super) fn owner(&self, slot: u16) -> Option<&Node> {
        let index = *self.slots.get(usize::from(slot))?;
        self.masters.get(usize::from(index)).map(|member| &member.node)
    }

    /// All masters, those without a slot too.
    pub(super) fn masters(&self) -> impl Iterator<Item = &Node> {
        self.masters.iter().map(|member| &member.node)
    }

    /// All nodes.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.masters().chain(&self.replicas)
    }

    /// The master that a redirection means, as we call it.
    pub(super) fn called(&self, name: &Node) -> Option<&Node> {
        let is = |member: &&Member| member.node == *name || member.alias.as_ref() == Some(name);
        self.masters.iter().find(is).map(|member| &member.node)
    }
}

/// `ip:port@port[,name]`; a node that does not know its own address yet leaves it out.
fn member(text: &str, asked: &Node, tls: bool) -> Option<Member> {
    let (address, rest) = text.split_once('@').unwrap_or((text, ""));
    let name = rest.split(',').nth(1).filter(|name| !name.is_empty());
    let node = address_of(address, asked)?;
    let named = name.map(|name| Node { host: name.to_ascii_lowercase(), port: node.port });
    Some(match named {
        Some(named) if tls => Member { node: named, alias: Some(node) },
        alias => Member { node, alias },
    })
}

/// `host:port`, where a missing host is that of the node that was asked.
fn address_of(text: &str, asked: &Node) -> Option<Node> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.trim_matches(['[', ']']);
    let host = if host.is_empty() || host == "?" { asked.host.clone() } else { host.to_ascii_lowercase() };
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let plausible = host.len() <= 253 && host.bytes().all(|b| b.is_ascii_graphic());
    plausible.then_some(Node { host, port })
}

/// Where a command has to go instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Redirection {
    /// For this once, and with `ASKING` before it: the slot is on its way.
    pub(super) once: bool,
    /// Where, as the cluster calls it.
    pub(super) to: Node,
}

impl Redirection {
    /// Reads `MOVED slot host:port` and `ASK slot host:port`, which `from` has said.
    pub(super) fn read(code: &str, details: &str, from: &Node) -> Option<Self> {
        let once = match code {
            "MOVED" => false,
            "ASK" => true,
            _ => return None,
        };
        let (_slot, address) = details.split_once(' ')?;
        Some(Self { once, to: address_of(address.split(' ').next()?, from)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(host: &str, port: u16) -> Node {
        Node { host: host.into(), port }
    }

    #[test]
    fn a_key_falls_into_the_slot_of_its_tag() {
        // Redis Cluster Specification, "Key distribution model" and "Hash tags".
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (key, slot) in [("foo", 12_182), ("bar", 5_061), ("", 0), ("hello", 866)] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        for (key, tag) in [
            ("{user1000}.following", "user1000"),
            ("larder:3:{foo}:-", "foo"),
            ("foo{}{bar}", "foo{}{bar}"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
            ("foo{bar", "foo{bar"),
        ] {
            assert_eq!(slot_of(key.as_bytes()), crc16(tag.as_bytes()) % SLOTS, "{key}");
        }
    }

    const TOLD: &str = "\
07c3 127.0.0.1:30004@31004,h4.example slave e7d1 0 1426238317239 4 connected
67ed 127.0.0.1:30002@31002,h2.example master - 0 1426238316232 2 connected 5461-10922 [93-<-e7d1]
292f 127.0.0.1:30003@31003,,shard-id=6fba master,fail? - 0 1426238318243 3 connected 10923-16382 16383
6ec2 127.0.0.1:0@0 master,noaddr - 0 0 0 disconnected
aaaa 127.0.0.1:30009@31009 master,fail - 0 1426238318243 3 disconnected
bbbb 127.0.0.1:30008@31008 master - 0 1426238318243 0 connected
e7d1 :30001@31001 myself,master - 0 0 1 connected 0-5460 [93->-67ed]
";

    #[test]
    fn what_a_node_tells_is_who_holds_which_slot() {
        let asked = at("10.0.0.1", 1);
        let topology = Topology::read(TOLD, &asked, false).unwrap();
        let owner = |slot| topology.owner(slot).unwrap().clone();
        assert_eq!((owner(0), owner(5460)), (at("10.0.0.1", 30001), at("10.0.0.1", 30001)));
        assert_eq!((owner(5461), owner(10922)), (at("127.0.0.1", 30002), at("127.0.0.1", 30002)));
        assert_eq!((owner(10923), owner(16383)), (at("127.0.0.1", 30003), at("127.0.0.1", 30003)));
        assert_eq!(topology.owner(SLOTS), None);
        assert_eq!((topology.masters().count(), topology.nodes().count(), topology.epoch), (4, 6, 3));
        assert_eq!(topology.called(&at("h2.example", 30002)), Some(&at("127.0.0.1", 30002)));
        assert_eq!(topology.called(&at("h9.example", 30002)), None);
        let over_tls = Topology::read(TOLD, &asked, true).unwrap();
        assert_eq!(over_tls.owner(5461), Some(&at("h2.example", 30002)), "a certificate says its name");
        assert_eq!(over_tls.called(&at("127.0.0.1", 30002)), Some(&at("h2.example", 30002)));
        assert_eq!(over_tls.owner(16383), Some(&at("127.0.0.1", 30003)), "it has no name");
    }

    #[test]
    fn a_view_of_another_cluster_is_no_later_one_however_high_its_epoch() {
        let view = |id: &str, epoch: u64| {
            let text = format!("{id} 127.0.0.1:1@2 master - 0 0 {epoch} connected 0-16383\n");
            Topology::read(&text, &at("h", 1), false).unwrap()
        };
        let known = view("e7d1", 5);
        for (id, epoch, continues) in
            [("e7d1", 5, true), ("e7d1", 6, true), ("e7d1", 4, false), ("beef", 9, false)]
        {
            assert_eq!(view(id, epoch).continues(&known), continues, "{id} {epoch}");
        }
    }

    #[test]
    fn what_is_no_such_answer_is_not_believed() {
        let line = |slots: &str| format!("e7d1 127.0.0.1:1@2 master - 0 0 1 connected {slots}\n");
        let many = [line("0-1"), line("").repeat(MOST_NODES)].concat();
        for text in [
            "",
            "ERR unknown command",
            "a b c",
            &line(""),
            &line("0-16384"),
            &line("0-7 7-16383"),
            &[line("0-16383"), line("1")].concat(),
            &line("7-3"),
            &line("x"),
            &line("0").replace(":1@", ":0@"),
            &line("0").replace(" 1 connected", " x connected"),
            &many,
        ] {
            assert_eq!(Topology::read(text, &at("h", 1), false), None, "{}", &text[..text.len().min(80)]);
        }
    }

    #[test]
    fn a_redirection_says_where_to_go() {
        let from = at("10.0.0.1", 1);
        let read = |code, details| Redirection::read(code, details, &from);
        let to = |once, to| Some(Redirection { once, to });
        assert_eq!(read("MOVED", "3999 127.0.0.1:6381"), to(false, at("127.0.0.1", 6381)));
        assert_eq!(read("ASK", "3999 H.example:6381"), to(true, at("h.example", 6381)));
        assert_eq!(read("MOVED", "3999 :6381"), to(false, at("10.0.0.1", 6381)));
        assert_eq!(read("MOVED", "3999 ::1:6381"), to(false, at("::1", 6381)));
        for (code, details) in [("MOVED", ""), ("MOVED", "3999"), ("MOVED", "3999 a:b"), ("ERR", "1 a:1")] {
            assert_eq!(read(code, details), None, "{code} {details}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(text in "([a-z0-9]{1,4} [a-z0-9.:@,]{0,12} (master|slave) - 0 0 [0-9]{0,3} connected [0-9-]{0,9}\n){0,4}|.{0,60}") {
            if let Some(topology) = Topology::read(&text, &at("h", 1), false) {
                prop_assert!((0..SLOTS).any(|slot| topology.owner(slot).is_some()));
            }
        }
    }
}
