//! The latest purges: those that were asked for here, and what came of each, and those that other nodes made.
//!
//! Bounded in number and in bytes of each, however many names a purge has. The kinds are kept apart, so that what
//! there are many of (a URL that another node purges may be one that was written to there) hides nothing else.
//! Must not know: how anything is purged.

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::stored::{Purge, Scope};

/// Purges that were asked for here, and as many of other nodes.
const MOST: usize = 32;
/// URLs of other nodes that are remembered.
const URLS: usize = 4;
/// Bytes of what the fleet says, beyond which it is left out.
const FLEET: usize = 4096;
/// Characters of what is purged.
const SHOWN: usize = 640;

/// A purge, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Receipt {
    /// When it was made, or heard of.
    #[serde(rename = "at_ms", serialize_with = "millis")]
    pub at: Timestamp,
    /// Who asked for it.
    pub by: String,
    /// The answer to it.
    pub status: u16,
    /// How many of each kind.
    pub of: String,
    /// The first of them, by name.
    pub first: String,
    /// What it is of is validated, not gone.
    pub soft: bool,
    /// What this process did.
    pub memory: String,
    /// What Redis has heard of it; null where it had not to be told from here.
    pub redis: Value,
    /// Who else has heard of it; null where it had not to be told from here.
    pub fleet: Value,
}

impl Receipt {
    /// What becomes of what memory held of it: something, nothing, or what is not known without seeking.
    pub const fn of_memory(held: Option<bool>, soft: bool) -> &'static str {
        match (held, soft) {
            (Some(false), _) => "held nothing of it",
            (Some(true), true) => "to be validated",
            (Some(true), false) => "purged",
            // A purge of many seeks nothing: it is a note by which each is judged that is used again.
            (None, true) => "to be validated, whatever it holds of it",
            (None, false) => "purged, whatever it held of it",
        }
    }
}

fn millis<S: serde::Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(at.as_millis())
}

/// The latest purges.
#[derive(Debug, Default)]
pub struct Receipts(Mutex<Rings>);

/// The oldest of each first.
#[derive(Debug, Default)]
struct Rings {
    asked: VecDeque<Receipt>,
    heard: VecDeque<Receipt>,
    urls: VecDeque<Receipt>,
}

impl Receipts {
    /// Notes a purge that was asked for here.
    pub fn note(&self, receipt: Receipt) {
        push(&mut self.0.lock().asked, bounded(receipt), MOST);
    }

    /// Notes a purge that another node has told of. What has no name that anybody would know is left out: it comes
    /// beside what has one.
    pub(super) fn hear(&self, purge: &Purge, at: Timestamp) {
        let (name, is_url) = match &purge.scope {
            Scope::Url(name) => (name.to_string(), true),
            Scope::Tag(name) | Scope::Route(name) => (name.to_string(), false),
            Scope::Prefix(prefix) => (prefix.to_string(), false),
            Scope::All => (String::new(), false),
            Scope::Group(_) | Scope::Path(_) => return,
        };
        let receipt = bounded(Receipt {
            at,
            by: if is_url && !purge.soft { "another node, or a write there" } else { "another node" }
                .to_owned(),
            status: 200,
            of: purge.scope.kind().to_owned(),
            first: name,
            soft: purge.soft,
            memory: if purge.soft { "to be validated" } else { "purged" }.to_owned(),
            redis: Value::Null,
            fleet: Value::Null,
        });
        let mut rings = self.0.lock();
        let (ring, most) = if is_url { (&mut rings.urls, URLS) } else { (&mut rings.heard, MOST) };
        // Once for each key that it may have, and again where it was written to again.
        ring.retain(|known| {
            (known.soft, &known.of, &known.first) != (receipt.soft, &receipt.of, &receipt.first)
        });
        push(ring, receipt, most);
    }

    /// The latest first, `most` at most.
    pub fn latest(&self, most: usize) -> Value {
        let rings = self.0.lock();
        let mut all: Vec<&Receipt> =
            rings.urls.iter().chain(&rings.heard).chain(&rings.asked).rev().collect();
        all.sort_by_key(|receipt| std::cmp::Reverse(receipt.at));
        all.into_iter().take(most).map(|receipt| json!(receipt)).collect()
    }
}

fn push(ring: &mut VecDeque<Receipt>, receipt: Receipt, most: usize) {
    if ring.len() >= most {
        ring.pop_front();
    }
    ring.push_back(receipt);
}

fn bounded(mut receipt: Receipt) -> Receipt {
    if let Some((end, _)) = receipt.first.char_indices().nth(SHOWN) {
        receipt.first.truncate(end);
        receipt.first.push('…');
    }
    if receipt.fleet.to_string().len() > FLEET {
        receipt.fleet = Value::Null;
    }
    receipt
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(at: u64) -> Receipt {
        let many: Vec<String> = (0..1_000).map(|nth| format!("node-{nth}")).collect();
        Receipt {
            at: Timestamp::from_millis(at),
            by: "the admin listener".into(),
            status: 200,
            of: "url 1000".into(),
            first: "http://a/".repeat(1_000),
            soft: true,
            memory: "purged".into(),
            redis: json!("purged"),
            fleet: json!({ "acknowledged": many }),
        }
    }

    #[test]
    fn the_latest_are_remembered_and_no_more_of_them_than_is_shown() {
        let receipts = Receipts::default();
        (0..100).for_each(|at| receipts.note(receipt(1_000 + at)));
        let latest = receipts.latest(100);
        assert_eq!((latest.as_array().unwrap().len(), &latest[0]["at_ms"]), (MOST, &json!(1_099)));
        assert_eq!((&latest[0]["soft"], &latest[0]["fleet"]), (&json!(true), &Value::Null));
        assert!(latest.to_string().len() < MOST * 1_000);
    }

    #[test]
    fn what_other_nodes_write_to_hides_neither_their_purges_nor_those_of_this_node() {
        let receipts = Receipts::default();
        let at = Timestamp::from_millis;
        receipts.note(receipt(1));
        receipts.hear(&Purge::hard(Scope::tag("a").unwrap()), at(2));
        for nth in 0..100 {
            let url = Purge::hard(Scope::Url(format!("http://a/{}", nth % 10).into()));
            (0..4).for_each(|_| receipts.hear(&url, at(3 + nth)));
        }
        receipts.hear(&Purge::soft(Scope::All), at(200));
        let latest = receipts.latest(100);
        let latest = latest.as_array().unwrap();
        let of: Vec<&str> = latest.iter().map(|receipt| receipt["of"].as_str().unwrap()).collect();
        assert_eq!(of, ["all", "url", "url", "url", "url", "tag", "url 1000"]);
        assert_eq!((&latest[1]["first"], &latest[2]["first"]), (&json!("http://a/9"), &json!("http://a/8")));
    }
}
