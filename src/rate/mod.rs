//! Rate limits: how often each client may ask, and how many of something it may hold.
//!
//! Knows the arithmetic of one client's count, a table that holds the counts of many in a fixed space, and what of an
//! address tells one client from another.
//! Must not know: HTTP, what a client is told by, or what is done with who asks too often.

mod gcra;
mod holds;
mod table;

pub use gcra::Rate;
pub use holds::{Hold, Holds, party};
pub use table::{Table, Verdict};
