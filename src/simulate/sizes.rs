//! How large the memory tier has to be: the same replay at several sizes.
//!
//! Must not know: what a replay does.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;

use super::case::Case;
use super::replay::{BOUNDLESS, Outcomes, replay};
use crate::config::Config;

/// What all that a log asks for weighs is divided by, for the sizes that are tried.
const PARTS: [u64; 5] = [32, 16, 8, 4, 2];
/// A smaller tier than that is tried nowhere.
const LEAST: u64 = 1024 * 1024;
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
    let ((then, _), (boundless, all)) = thread::scope(|scope| {
        let boundless = scope.spawn(|| replay(config, cases, BOUNDLESS, &step));
        let configured = replay(config, cases, config.cache.memory, &step);
        // A thread that panicked has said so.
        (configured, boundless.join().unwrap_or_default())
    });
    let most = boundless.all().hit_ratio();
    let tried: Vec<u64> = PARTS.iter().map(|part| all / part).filter(|bytes| *bytes >= LEAST).collect();
    let mut sizes = side_by_side(&tried, |bytes| Size {
        bytes,
        hit_ratio: replay(config, cases, bytes, &step).0.all().hit_ratio(),
        configured: false,
    });
    sizes.push(Size { bytes: all, hit_ratio: most, configured: false });
    let memory = config.cache.memory;
    sizes.push(Size { bytes: memory, hit_ratio: then.all().hit_ratio(), configured: true });
    sizes.sort_by_key(|size| size.bytes);
    let enough = sizes.iter().find(|size| size.hit_ratio + SAME >= most).map_or(all, |size| size.bytes);
    Swept { then, sizes, enough: enough.min(all) }
}

/// As many at once as there are cores.
fn side_by_side(sizes: &[u64], run: impl Fn(u64) -> Size + Sync) -> Vec<Size> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = thread::available_parallelism().map_or(1, usize::from).min(sizes.len());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(bytes) = sizes.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let size = run(*bytes);
                    found.lock().push(size);
                }
            });
        }
    });
    found.into_inner()
}
