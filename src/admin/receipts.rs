//! The latest purges that were asked for here, and what came of each.
//!
//! Bounded in number and in bytes of each, however many names a purge has.
//! Must not know: how anything is purged.

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde_json::{Value, json};

/// Purges that are remembered.
const MOST: usize = 32;
/// Bytes of what the fleet says, beyond which it is left out.
const FLEET: usize = 4096;

/// The latest purges.
#[derive(Debug, Default)]
pub(super) struct Receipts(Mutex<VecDeque<Value>>);

impl Receipts {
    /// Notes the answer to a purge, which was made at `at` (milliseconds since 1970).
    pub(super) fn note(&self, at: u64, status: u16, of: &str, first: &str, answer: &Value) {
        let part = |name: &str| answer.get(name).cloned().unwrap_or_default();
        let fleet = part("fleet");
        let fleet = if fleet.to_string().len() <= FLEET { fleet } else { Value::Null };
        let receipt = json!({
            "at_ms": at,
            "status": status,
            "of": of,
            "first": first,
            "soft": part("soft"),
            "purged": part("purged"),
            "memory": part("memory"),
            "redis": part("redis"),
            "fleet": fleet,
        });
        let mut receipts = self.0.lock();
        if receipts.len() >= MOST {
            receipts.pop_front();
        }
        receipts.push_back(receipt);
    }

    /// The latest first, `most` at most.
    pub(super) fn latest(&self, most: usize) -> Value {
        self.0.lock().iter().rev().take(most).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered_and_no_more_of_them_than_is_shown() {
        let receipts = Receipts::default();
        let many: Vec<String> = (0..1_000).map(|nth| format!("node-{nth}")).collect();
        for at in 0..100 {
            let answer = json!({ "soft": true, "urls": many, "fleet": { "acknowledged": many } });
            receipts.note(at, 200, "url 1000", "http://a/", &answer);
        }
        let latest = receipts.latest(100);
        assert_eq!((latest.as_array().unwrap().len(), &latest[0]["at_ms"]), (MOST, &json!(99)));
        assert_eq!((&latest[0]["soft"], &latest[0]["fleet"]), (&json!(true), &Value::Null));
        assert!(latest.to_string().len() < MOST * 300);
    }
}
