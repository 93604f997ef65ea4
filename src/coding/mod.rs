//! Content codings: encodes and decodes bodies (RFC 9110 §8.4.1).
//!
//! Knows gzip, deflate, brotli and zstd, whole and piece by piece, at levels fit for a proxy. What
//! is decoded has a bound, so that a few bytes cannot become more than memory holds. Knows also which
//! responses a route encodes, for whom, and what that changes in their heads.
//! Must not know: where bodies are kept, threads; how long the work may take is its caller's care.

mod decode;
mod encode;
pub mod head;
mod policy;

pub use decode::{Undecodable, decode};
pub use encode::{Encoder, encode};
pub use policy::{Compress, declared_length, no_transform};
