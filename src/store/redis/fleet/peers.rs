//! The nodes of a fleet, as they say of themselves and as others see them.
//!
//! Must not know: where that is kept.

use std::time::Duration;

use super::follower::Question;
use super::{Node, log};
use crate::stored::Position;

/// Which nodes have applied a purge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Those that have, and within which time of the question that was found.
    pub acknowledged: Vec<(Peer, Duration)>,
    /// Those that have not within the wait.
    pub missing: Vec<Peer>,
}

/// A node as the others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// Its version.
    pub version: String,
    /// When it started, in seconds since the Unix epoch.
    pub started: u64,
    /// How long ago it was last heard of.
    pub silent: Duration,
    /// How it stands between it and the log, in its own words.
    pub state: String,
    /// What it has applied.
    pub at: Position,
}

/// What a node says of itself, in one line: run, number, state, start, version, address.
pub(super) fn says(node: &Node, question: Question, state: &str) -> String {
    let Node { address, started, .. } = node;
    let (run, version) = (log::hex(question.run), env!("CARGO_PKG_VERSION"));
    format!("{run} {} {state} {started} {version} {address}", question.n)
}

impl Peer {
    /// From what it says of itself; [`says`] has written it.
    pub(super) fn read(said: log::Said) -> Option<Self> {
        let mut words = said.says.splitn(6, ' ');
        let run = log::from_hex(words.next()?)?;
        let n = words.next()?.parse().ok()?;
        let state = words.next()?.to_owned();
        let started = words.next()?.parse().ok()?;
        let (version, address) = (words.next()?.to_owned(), words.next()?.to_owned());
        let (silent, at) = (Duration::from_millis(said.silent), Position { run, n });
        Some(Self { name: said.name, address, version, started, silent, state, at })
    }
}
