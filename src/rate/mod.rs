//! Rate limits: how often each client may ask.
//!
//! Knows the arithmetic of one client's count, and a table that holds the counts of many in a fixed space.
//! Must not know: HTTP, what a client is told by, or what is done with who asks too often.

mod gcra;
mod table;

pub use gcra::Rate;
pub use table::{Table, Verdict};
