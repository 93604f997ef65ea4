//! Panics: counted, told in the log with their place, and never the end of a part that others need.
//!
//! A panic is a bug. Its words may hold what a client or an origin sent, so the log has its place
//! alone. The runtime ends the task that panicked and nothing else; what must go on is begun anew.
//! Must not know: what the tasks do.
//!
//! No lock is left poisoned (those of `parking_lot` are not), and none of ours is held while anything
//! is done that could panic but for a bug in the few lines under it.

use std::panic::{AssertUnwindSafe, PanicHookInfo};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;

/// Pause before what panicked is begun anew, so that one that does so at once costs no core.
const PAUSE: Duration = Duration::from_secs(1);

/// The hook is the process's, and so is this.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// Counts and tells panics from now on, in place of printing their words on stderr.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(note));
}

/// Panics so far.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Notes one.
pub(crate) fn note(info: &PanicHookInfo<'_>) {
    PANICS.fetch_add(1, Ordering::Relaxed);
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("-");
    match info.location() {
        Some(place) => {
            let place = format_args!("{}:{}:{}", place.file(), place.line(), place.column());
            tracing::error!(target: "larder::panic", %place, thread, "a bug of Larder's: please report it");
        }
        None => tracing::error!(target: "larder::panic", thread, "a bug of Larder's: please report it"),
    }
}

/// Runs what `make` makes to its end; if it panics, another is made after a pause. Dropped, it ends
/// with what it runs.
pub async fn supervise<F: Future<Output = ()>>(what: &'static str, mut make: impl FnMut() -> F) {
    while AssertUnwindSafe(async { make().await }).catch_unwind().await.is_err() {
        tracing::error!(target: "larder::panic", what, "it panicked and is begun anew");
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
pub(crate) mod failpoint {
    //! Bugs to order: in the library's own tests alone, and only where a test asks for one.

    /// Panics where the path of a request asks for a bug at this place.
    pub(crate) fn at(place: &str, path: &str) {
        if path.strip_prefix("/panic-").is_some_and(|wanted| wanted.split('/').next() == Some(place)) {
            panic!("a secret that was in {path}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_panics_is_begun_anew_and_what_ends_is_over() {
        let begun = Cell::new(0);
        supervise("a test", || async {
            begun.set(begun.get() + 1);
            assert!(begun.get() > 3, "a bug");
        })
        .await;
        assert_eq!(begun.get(), 4);
    }
}
