//! How large the memory tier has to be: the same replay at several sizes.
//!
//! Must not know: what a replay does.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::case::Case;
use super::replay::{Outcomes, replay};
use crate::config::Config;

/// What all that a log asks for weighs is divided by, for the sizes that are tried.
const PARTS: [u64; 5] = [32, 16, 8, 4, 2];
/// A smaller tier than that is tried nowhere.
const LEAST: u64 = 1024 * 1024;
/// Bytes of a response beside its content; most have less.
const BESIDE: u64 = 4096;
/// What holds all of a small log, however it is divided.
const LEAST_BOUNDLESS: u64 = 256 * 1024 * 1024;
/// A hit ratio that is lower by no more is as good.
const SAME: f64 = 0.001;

/// A size of the memory tier and what it comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    /// Bytes.
    pub bytes: u64,
    /// By the definition of `/stats`.
    pub hit_ratio: f64,
    /// It is what the configuration says.
    pub configured: bool,
}

pub(super) struct Swept {
    /// With the memory that is configured.
    pub then: Outcomes,
    pub sizes: Vec<Size>,
    pub enough: u64,
}

/// Replays at all sizes; `told` hears how many of how many steps are done.
pub(super) fn sweep(config: &Config, cases: &[Case], told: &(dyn Fn(u64, u64) + Sync)) -> Swept {
    let done = AtomicU64::new(0);
    let runs = u64::try_from(cases.len()).unwrap_or(u64::MAX).saturating_mul(PARTS.len() as u64 + 2);
    let step = |steps| told(done.fetch_add(steps, Ordering::Relaxed) + steps, runs);
    let (memory, boundless) = (config.cache.memory, boundless(cases));
    let run = |sizes: &[u64]| replay(config, cases, boundless, sizes, &step);
    let mut known = side_by_side(&[memory, boundless], run);
    let (boundless, all) = known.pop().unwrap_or_default();
    let (then, _) = known.pop().unwrap_or_default();
    let most = boundless.all().hit_ratio();
    let tried: Vec<u64> = PARTS.iter().map(|part| all / part).filter(|bytes| *bytes >= LEAST).collect();
    let found = side_by_side(&tried, run);
    let size = |bytes, hit_ratio| Size { bytes, hit_ratio, configured: false };
    let mut sizes: Vec<Size> =
        tried.iter().zip(found).map(|(bytes, (of, _))| size(*bytes, of.all().hit_ratio())).collect();
    sizes.push(size(all, most));
    sizes.push(Size { configured: true, ..size(memory, then.all().hit_ratio()) });
    sizes.sort_by_key(|size| size.bytes);
    let enough = sizes.iter().find(|size| size.hit_ratio + SAME >= most).map_or(all, |size| size.bytes);
    Swept { then, sizes, enough: enough.min(all) }
}

/// More than all that the log asks for weighs: the tier keeps books that grow with its size.
fn boundless(cases: &[Case]) -> u64 {
    let mut largest: HashMap<_, u64> = HashMap::new();
    for case in cases {
        let of = largest.entry((case.url.key.hash(), Arc::as_ptr(&case.asking))).or_default();
        *of = case.length.unwrap_or(0).saturating_add(BESIDE).max(*of);
    }
    let all = largest.values().fold(0, |all: u64, of| all.saturating_add(*of));
    all.saturating_mul(2).max(LEAST_BOUNDLESS)
}

/// The sizes dealt out to as many threads as there are cores; what came of each, in their order.
fn side_by_side(sizes: &[u64], run: impl Fn(&[u64]) -> Vec<(Outcomes, u64)> + Sync) -> Vec<(Outcomes, u64)> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let each = sizes.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let run = &run;
        let parts: Vec<_> =
            sizes.chunks(each).map(|part| (part.len(), scope.spawn(move || run(part)))).collect();
        // A thread that panicked has said so.
        let nothing = |count| (0..count).map(|_| Default::default()).collect();
        parts.into_iter().flat_map(|(count, part)| part.join().unwrap_or_else(|_| nothing(count))).collect()
    })
}
