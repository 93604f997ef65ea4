//! HTTP/1 as it stands on the wire: where messages begin and end, and what no head may hold.
//!
//! hyper parses what is read; a scanner here watches the same bytes go by. It sees what hyper takes
//! without a word (a fragment in a target, a lone LF, a Content-Length beside a Transfer-Encoding), and
//! it must agree with hyper about where each head begins. Where it loses the thread it says so, and
//! nothing more is served: it can refuse a message, never let one in.
//! Knows framing (RFC 9112 §2.2, §6, §7.1), where a head of HTTP/2 begins and ends, and what its `:path` may not hold. Must not know: sockets, what a message asks for, policy.

mod chunks;
mod flaw;
mod frames;
mod grammar;
mod head;
mod hpack;
mod plain;
mod request;
mod response;
mod written;

pub use chunks::Chunks;
pub use flaw::Flaw;
pub use frames::Frames;
pub use head::{Fault, Framing, Lines};
pub use plain::Plain;
pub use request::Requests;
pub use response::{Asked, Limits, Part, ResponseScanner};
pub use written::{field_line, status_line};
