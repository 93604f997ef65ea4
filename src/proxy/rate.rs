//! Whether a client asks more often than its route allows.
//!
//! Knows what tells clients apart. Must not know: how they are counted.
//!
//! A request counts before anything is looked up: what is stored is nobody's to take without measure
//! either, and a limit that held only for misses would depend on what others have asked for.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use http::header::HeaderName;

use crate::config::{RateBy, RateLimit};
use crate::rate::{Table, Verdict, party};
use crate::worker::{Asked, Snapshot, Worker};

use super::failure::Failure;

/// Counts the request against its route's limits; the answer where one of them is over. Each counts what
/// came to it: what the first lets pass and the second refuses has counted for the first.
pub(super) fn over(worker: &Worker, snapshot: &Snapshot, route: usize, asked: &Asked) -> Option<Failure> {
    for (limit, table) in snapshot.rates(route) {
        match table.take(&Who::of(&limit.by, asked), worker.mono()) {
            Verdict::Pass => {}
            Verdict::PassForAnother => snapshot.shard(worker).rate_forgotten(route),
            Verdict::Wait(wait) => {
                snapshot.shard(worker).rate_limited(route);
                return Some(Failure::rate_limited(wait));
            }
        }
    }
    None
}

/// The same of a request that is only thought of: it counts for nothing.
pub(super) fn would_be_over(
    worker: &Worker,
    snapshot: &Snapshot,
    route: usize,
    asked: &Asked,
) -> Option<Failure> {
    let wait =
        |(limit, table): (&RateLimit, &Arc<Table>)| table.wait(&Who::of(&limit.by, asked), worker.mono());
    snapshot.rates(route).find_map(wait).map(Failure::rate_limited)
}

/// Whom a request counts for.
#[derive(Clone, Copy)]
enum Who<'a> {
    Address(IpAddr),
    /// All lines of the field.
    Said(&'a HeaderMap, &'a HeaderName),
}

impl<'a> Who<'a> {
    fn of(by: &'a RateBy, asked: &'a Asked) -> Self {
        match by {
            RateBy::Header(name) if asked.headers.contains_key(name) => Self::Said(&asked.headers, name),
            // Who leaves the field out is not let off.
            RateBy::Header(_) | RateBy::Address => Self::Address(party(asked.client)),
        }
    }
}

impl Hash for Who<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Address(address) => (0_u8, address).hash(state),
            Self::Said(headers, name) => {
                1_u8.hash(state);
                headers.get_all(*name).iter().for_each(|line| line.as_bytes().hash(state));
            }
        }
    }
}
