//! What sentinels tell of a master, and which of them are believed.
//!
//! Knows their answers. A sentinel that was cut off goes on naming the master of before, which may be cut off with
//! it, and then still takes itself for the master. One that is left over, of a deployment that is no more or from before
//! the others were made anew, names whatever it knew, with the number of a failover that may be higher than any of
//! theirs. So all are heard, and more than half of those that answer decide.
//!
//! Why not the latest failover in any case, though each takes the leave of a majority and its number wins among
//! sentinels: it wins within seconds, since whoever has it says so to all others through every server that they
//! watch (each second or two). Until then more than half may name the master of before, which by then is down, or says itself that it
//! is a replica: that much longer memory alone answers. A number that the others do not take over for longer is of none
//! of their failovers, and to follow it would be to follow one sentinel against all, for ever. Where no more than half
//! agree, nothing but the number tells them apart. Pure.
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

/// Whom to believe, likeliest first: the one whom more than half of them name, and nobody beside it. Where there is no
/// such one, those of the latest failover alone: what an earlier one has made is no master any more, whatever it says
/// itself.
pub(super) fn believed(told: &[Told]) -> Vec<Node> {
    let votes = |node: &Node| told.iter().filter(|told| told.node == *node).count();
    if let Some(most) = told.iter().find(|one| votes(&one.node) > told.len() / 2) {
        return vec![most.node.clone()];
    }
    let latest = told.iter().map(|told| told.epoch).max().unwrap_or(0);
    let mut named: Vec<&Node> = Vec::new();
    for Told { node, .. } in told.iter().filter(|told| told.epoch == latest) {
        if !named.contains(&node) {
            named.push(node);
        }
    }
    // Stable: of as many votes, in the order in which they came.
    named.sort_by_key(|node| std::cmp::Reverse(votes(node)));
    named.into_iter().cloned().collect()
}

/// Whether more than half of `all` name the same: nobody else need be waited for.
pub(super) fn is_settled(told: &[Told], all: usize) -> bool {
    let alike = |one: &Told| told.iter().filter(|other| other.node == one.node).count();
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
    fn more_than_half_of_those_that_answer_decide_and_else_the_latest_failover() {
        for (what, all, ports) in [
            ("nobody tells", vec![], vec![]),
            ("one", vec![told(1, 0)], vec![1]),
            ("one that was cut off is outvoted", vec![told(9, 0), told(1, 1), told(1, 1)], vec![1]),
            ("in whatever order they answer", vec![told(1, 1), told(1, 1), told(9, 0)], vec![1]),
            ("also where nothing has failed yet", vec![told(9, 0), told(1, 0), told(1, 0)], vec![1]),
            ("so is one that is left over", vec![told(9, 50), told(1, 0), told(1, 0)], vec![1]),
            ("though it answers last", vec![told(1, 0), told(1, 0), told(9, 50)], vec![1]),
            ("a failover that one alone has heard of", vec![told(1, 4), told(1, 4), told(2, 5)], vec![1]),
            ("and that most have", vec![told(1, 4), told(2, 5), told(2, 5)], vec![2]),
            ("whom they name counts, not since when", vec![told(1, 3), told(9, 7), told(1, 4)], vec![1]),
            ("half is not most: the later", vec![told(9, 0), told(1, 1)], vec![1]),
            ("of four as well", vec![told(9, 0), told(1, 1), told(9, 0), told(1, 1)], vec![1]),
            ("three who each name another", vec![told(9, 0), told(1, 1), told(2, 2)], vec![2]),
            ("as many of each: in the order in which they came", vec![told(2, 3), told(1, 3)], vec![2, 1]),
            (
                "of the latest the one with more",
                vec![told(2, 3), told(1, 3), told(9, 1), told(1, 2)],
                vec![1, 2],
            ),
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
            (vec![told(1, 0), told(1, 1)], 3, true),
            (vec![told(1, 0), told(2, 1)], 3, false),
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
