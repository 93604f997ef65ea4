//! One fetch for many: the table of fetches in flight, and the body that grows while many read it.
//!
//! Knows who owns a fetch, who waits for it, and how a body passes from one writer to many readers
//! with bounded memory. Generic over what is published, so it cannot decide anything about it.
//! Must not know: HTTP caching, upstreams, tiers.

mod body;
mod table;

pub use body::{Broken, Growing, Reader, Room, Writer};
pub use table::{Abandoned, FlightKey, Flights, Guest, Owner, Seat};
