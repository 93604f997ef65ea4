//! How a Larder stops: who is told what, and when.
//!
//! Knows the order: it says that it leaves, serves on for a while, takes what has come meanwhile, and
//! ends. Must not know: what is served.
//!
//! ```text
//! signal ── readiness says 503; every answer of HTTP/1 says `Connection: close`; GOAWAY on HTTP/2
//!    │      listeners stay open for `limits.lame_duck`: who has not heard yet is served
//!    ├───── listeners take what the kernel holds for them, and close
//!    │      connections that have asked for nothing for `limits.lame_duck` are closed
//!    └───── nothing is left, or `limits.drain` is over since the signal: the end
//! ```
//!
//! A server that closes a connection of HTTP/1 on which a client is about to ask loses that request
//! (RFC 9112 §9.5 leaves it to the client to notice). Nothing can be said on a connection where nothing
//! was asked, so there is only to wait for the next request, and to say it then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;

use crate::worker::Shared;

/// How often it is looked whether anybody is there.
const LOOK: Duration = Duration::from_millis(20);
/// Nobody has been connected for so long: nobody is expected to come. Longer than the pause between two
/// requests of anybody who would notice that one of them failed.
const NOBODY: Duration = Duration::from_secs(1);

/// How long at least a connection on which nothing has come yet is kept.
const FIRST: Duration = Duration::from_secs(1);

/// Where a Larder stands on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// It serves.
    Serving,
    /// It says that it leaves, and serves on, listening for so long at most.
    Leaving(Duration),
    /// It does not listen any more.
    Deaf(Duration),
}

/// What a part is told of it.
#[derive(Clone, Debug)]
pub(super) struct Stop(pub(super) watch::Receiver<Phase>);

impl Stop {
    /// Returns when Larder begins to stop, with the time for which it serves on. Whoever could say so
    /// being gone means the same.
    pub(super) async fn leaving(&mut self) -> Duration {
        match self.0.wait_for(|phase| *phase != Phase::Serving).await.as_deref() {
            Ok(Phase::Leaving(lame_duck) | Phase::Deaf(lame_duck)) => *lame_duck,
            Ok(Phase::Serving) | Err(_) => Duration::ZERO,
        }
    }

    /// Returns when a connection on which nothing has come yet is to be closed. Whoever has just connected
    /// is about to ask.
    pub(super) async fn nothing_came(&mut self) {
        let lame_duck = self.leaving().await;
        tokio::time::sleep(lame_duck.max(FIRST)).await;
    }

    /// Returns when nothing new is to be taken.
    pub(super) async fn deaf(&mut self) {
        let _gone_means_the_same = self.0.wait_for(|phase| matches!(phase, Phase::Deaf(_))).await;
    }
}

/// Goes through the phases; returns when nothing new is taken. `accepted` counts connections.
pub(super) fn leave(shared: &Shared, phase: &watch::Sender<Phase>, accepted: &Arc<AtomicU64>) {
    shared.draining.store(true, Ordering::Release);
    let lame_duck = {
        let limits = &shared.snapshot.load().config.limits;
        limits.lame_duck.min(limits.drain)
    };
    phase.send_replace(Phase::Leaving(lame_duck));
    let began = shared.clock.mono();
    let (mut seen, mut alone) = (accepted.load(Ordering::Relaxed), began);
    loop {
        let now = shared.clock.mono();
        let came = accepted.load(Ordering::Relaxed);
        if came != seen || shared.connections.load(Ordering::Relaxed) > 0 {
            (seen, alone) = (came, now);
        }
        if now.since(began) >= lame_duck || now.since(alone) >= NOBODY {
            break;
        }
        thread::sleep(LOOK);
    }
    phase.send_replace(Phase::Deaf(lame_duck));
}
