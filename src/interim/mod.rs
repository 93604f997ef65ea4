//! Interim responses (1xx, RFC 9110 §15.2) on their way from an origin to an HTTP/1.1 client.
//!
//! hyper's client hands them over, its server has no way to send one. So they go around it:
//!
//! ```text
//! upstream ── Interim::pass ──► Line (mailbox) ── Answering::poll ──► Line (out) ── Socket ──► client
//! any task, any time            bounded           within hyper's poll of      before the next byte
//!                                                 the request's future        of hyper's own
//! ```
//!
//! Where a plain request is answered without hyper (`server/alone.rs`), whoever polls its future takes what waits
//! ([`Line::take_waiting`]) before it writes anything else; there is no [`Socket`].
//!
//! Why that is sound stands at the head of `socket.rs`. An interim response is advisory: whatever
//! does not fit is dropped, never waited for, and the final response is none the worse.
//! Knows hyper's order of reading and writing. Must not know: routes, caching, who is asked.

mod answering;
mod head;
mod line;
mod socket;
#[cfg(test)]
mod tests;

pub use answering::Answering;
pub use line::{Counts, Interim, Line, Turn};
pub use socket::Socket;
