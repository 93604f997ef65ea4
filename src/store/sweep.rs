//! Frees in memory what has been purged by tag, prefix, route or as a whole.
//!
//! Such a purge makes void what is stored, and seeks none of it: it costs the same whatever the cache's size.
//! What nobody asks for again would lie in memory until something else takes its place, so once such a purge
//! has come, all that is stored is looked through: [`STEP`] keys, then a [`PAUSE`], on a thread that serves
//! nobody. A million keys take about 20 s, and of the purges that come meanwhile all but the first are one
//! look together. moka's own `invalidate_entries_if` would ask each of its closures on every hit.
//! Must not know: who purges, or what.

use std::time::Duration;

use super::{Memory, Purges};

/// Keys that are looked at in one go: some 20 µs, more where each has many tags.
const STEP: usize = 256;
/// Between two goes.
const PAUSE: Duration = Duration::from_millis(5);
/// After the last, so that purges that come one by one do not keep it going.
const REST: Duration = Duration::from_secs(1);

/// Never returns. Dropped at any point, what has been purged is void all the same.
pub async fn sweep(memory: &Memory, purges: &Purges) {
    let mut swept = 0;
    loop {
        purges.sweep_due(swept).await;
        swept = purges.seq();
        for (nth, resource) in memory.all().enumerate() {
            memory.drop_purged(&resource, purges);
            if nth % STEP == STEP - 1 {
                tokio::time::sleep(PAUSE).await;
            }
        }
        tokio::time::sleep(REST).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Timestamp;
    use crate::store::{Class, PURGES, samples};
    use crate::stored::samples::{key, stored};
    use crate::stored::{Born, Purge, Scope};

    #[tokio::test(start_paused = true)]
    async fn what_is_purged_is_freed_without_being_asked_for_and_nothing_else_is() {
        let cache = crate::config::Cache { memory: 64 << 20, ..samples::cache(None) };
        let (memory, purges) = (Memory::new(&cache), Purges::new(PURGES));
        let (memory, purges) = (Arc::new(memory), Arc::new(purges));
        let sweeping = {
            let (memory, purges) = (Arc::clone(&memory), Arc::clone(&purges));
            tokio::spawn(async move { sweep(&memory, &purges).await })
        };
        let keep = |path: &str, accept: &str, tag: &str| {
            let fields = [("cache-control", "max-age=60"), ("vary", "accept"), ("surrogate-key", tag)];
            let response = stored(&key(path), &[("accept", accept)], &fields, b"", Born::Here(purges.seq()));
            assert!(memory.keep(response, Class::Plain, &purges));
        };
        for nth in 0..600 {
            keep(&format!("/{nth}"), "x", if nth % 3 == 0 { "old" } else { "new" });
        }
        keep("/1", "y", "old");
        let held = || memory.all().map(|resource| resource.variants.len()).sum::<usize>();
        assert_eq!(held(), 601);
        for (purge, left) in [
            (Purge::soft(Scope::All), 601),
            (Purge::hard(Scope::tag("old").unwrap()), 400),
            (Purge::hard(Scope::All), 0),
        ] {
            purges.apply(&purge, None, Timestamp::from_secs(2_000));
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!(held(), left, "{purge:?}");
        }
        sweeping.abort();
    }
}
