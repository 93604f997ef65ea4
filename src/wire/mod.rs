//! What passes on a connection, watched byte by byte beside hyper.
//!
//! Must not know: sockets, hyper, what messages are for.

mod flaw;
mod response;

pub use flaw::Flaw;
pub use response::{Asked, Limits, ResponseScanner};
