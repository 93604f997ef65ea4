//! Content codings: encodes and decodes bodies (RFC 9110 §8.4.1).
//!
//! Knows gzip, deflate, brotli and zstd, whole and piece by piece, at levels fit for a proxy. What
//! is decoded has a bound, so that a few bytes cannot become more than memory holds.
//! Must not know: requests, responses, threads; how long the work may take is its caller's care.

mod decode;
mod encode;

pub use decode::{Undecodable, decode};
pub use encode::{Encoder, encode};
