//! What sentinels tell of a master, and which of them are believed.
//!
//! Knows their answers. Each sentinel is right but for the one that was cut off: it goes on naming the master of
//! before, which may be cut off with it, and then still takes itself for the master. So all are heard, and the
//! latest failover counts; where none is later than another, whom most of them name. Pure.
//! Must not know: how a sentinel is asked, or whether what is named is a master.

use redis::{Cmd, Value, cmd};

use crate::config::Node;

/// What one sentinel tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    node: Node,
    /// Of the failover that made it the master: later ones have higher. 0 where the sentinel does not say.
    epoch: u64,
}

/// Asks for the address that is named, and of which failover it is.
pub(super) fn question(master: &str) -> [Cmd; 2] {
    ["GET-MASTER-ADDR-BY-NAME", "MASTER"].map(|word| {
        let mut command = cmd("SENTINEL");
        command.arg(word).arg(master);
        command
    })
}

/// Reads the two answers.
pub(super) fn read(answers: Vec<Value>, master: &str) -> Result<Told, String> {
    let [named, described] = <[Value; 2]>::try_from(answers).map_err(|_| "that is no address".to_owned())?;
    let node = match named {
        Value::Array(parts) => match parts.as_slice() {
            [Value::BulkString(host), Value::BulkString(port)] => address(host, port),
            _ => None,
        }
        .ok_or_else(|| "that is no address".to_owned())?,
        Value::Nil => return Err(format!("it knows no master `{master}`")),
        _ => return Err("that is no address".to_owned()),
    };
    Ok(Told { node, epoch: epoch(&described).unwrap_or(0) })
}

/// Names and values in turn.
fn epoch(described: &Value) -> Option<u64> {
    let Value::Array(parts) = described else { return None };
    parts.chunks(2).find_map(|pair| match pair {
        [Value::BulkString(name), Value::BulkString(value)] if name == b"config-epoch" => {
            std::str::from_utf8(value).ok()?.parse().ok()
        }
        _ => None,
    })
}

/// Whom to believe, likeliest first: of the latest failover alone. What an earlier one has made is no master
/// any more, whatever it says itself.
pub(super) fn believed(told: &[Told]) -> Vec<Node> {
    let latest = told.iter().map(|told| told.epoch).max().unwrap_or(0);
    let mut named: Vec<(usize, &Node)> = Vec::new();
    for Told { node, .. } in told.iter().filter(|told| told.epoch == latest) {
        match named.iter_mut().find(|(_, known)| *known == node) {
            Some((votes, _)) => *votes = votes.saturating_add(1),
            None => named.push((1, node)),
        }
    }
    // Stable: of as many votes, in the order in which they came.
    named.sort_by_key(|(votes, _)| std::cmp::Reverse(*votes));
    named.into_iter().map(|(_, node)| node.clone()).collect()
}

/// Whether more than half of `all` tell the same: nobody else need be waited for.
pub(super) fn is_settled(told: &[Told], all: usize) -> bool {
    let alike = |one: &Told| told.iter().filter(|other| *other == one).count();
    told.last().is_some_and(|last| alike(last) > all / 2)
}

fn address(host: &[u8], port: &[u8]) -> Option<Node> {
    let host = std::str::from_utf8(host).ok()?.trim_matches(['[', ']']);
    let port = std::str::from_utf8(port).ok()?.parse().ok().filter(|port| *port > 0)?;
    let plausible = (1..=253).contains(&host.len()) && host.bytes().all(|b| b.is_ascii_graphic());
    plausible.then(|| Node { host: host.to_ascii_lowercase(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(port: u16, epoch: u64) -> Told {
        Told { node: Node { host: "a".into(), port }, epoch }
    }

    #[test]
    fn what_sentinels_name_is_an_address_or_nothing() {
        let node = |host: &str, port| Some(Node { host: host.into(), port });
        assert_eq!(address(b"127.0.0.1", b"6379"), node("127.0.0.1", 6379));
        assert_eq!(address(b"::1", b"1"), node("::1", 1));
        assert_eq!(address(b"DB.example", b"1"), node("db.example", 1));
        for (host, port) in [("", "1"), ("a b", "1"), ("a", "0"), ("a", "x"), ("a", "65536"), ("\u{e9}", "1")]
        {
            assert_eq!(address(host.as_bytes(), port.as_bytes()), None, "{host} {port}");
        }
    }

    #[test]
    fn the_latest_failover_counts_and_then_whom_most_name() {
        for (what, all, ports) in [
            ("nobody tells", vec![], vec![]),
            ("one", vec![told(1, 0)], vec![1]),
            ("one that was cut off is outvoted", vec![told(9, 0), told(1, 0), told(1, 0)], vec![1, 9]),
            ("and knows nothing of what came later", vec![told(9, 0), told(9, 0), told(1, 1)], vec![1]),
            ("as many of each: in the order in which they came", vec![told(2, 3), told(1, 3)], vec![2, 1]),
        ] {
            let believed: Vec<u16> = believed(&all).iter().map(|node| node.port).collect();
            assert_eq!(believed, ports, "{what}");
        }
    }

    #[test]
    fn more_than_half_of_all_settle_it() {
        for (all, of, settled) in [
            (vec![], 1, false),
            (vec![told(1, 0)], 1, true),
            (vec![told(1, 0)], 2, false),
            (vec![told(1, 0), told(1, 0)], 3, true),
            (vec![told(1, 0), told(1, 1)], 3, false),
            (vec![told(1, 0), told(2, 0), told(1, 0)], 3, true),
            (vec![told(1, 0), told(1, 0)], 4, false),
        ] {
            assert_eq!(is_settled(&all, of), settled, "{all:?} of {of}");
        }
    }

    #[test]
    fn any_answer_is_read_or_refused() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let named = || Value::Array(vec![text("A"), text("1")]);
        let described = |words: &[&str]| Value::Array(words.iter().map(|word| text(word)).collect());
        for (described, epoch) in [
            (described(&["name", "m", "config-epoch", "7"]), 7),
            (described(&["name", "config-epoch", "7"]), 0),
            (described(&["config-epoch"]), 0),
            (described(&["config-epoch", "-1"]), 0),
            (Value::Nil, 0),
            (Value::Int(7), 0),
        ] {
            assert_eq!(read(vec![named(), described], "m"), Ok(told(1, epoch)));
        }
        for bad in [Value::Nil, Value::Okay, Value::Array(vec![text("a")]), Value::Array(vec![named()])] {
            assert!(read(vec![bad, Value::Nil], "m").is_err());
        }
        assert!(read(vec![named()], "m").is_err());
    }
}
