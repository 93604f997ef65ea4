//! The thing that is kept: a response, its key, and the bytes it becomes for the shared tier.
//!
//! Pure: no sockets, no files, no clock, no runtime. What the origin said and when is stored, never
//! a computed expiry: the route's policy is applied when a response is read.

mod codec;
mod glob;
mod key;
mod response;

pub use codec::{Damaged, Record, decode, encode_names, encode_response};
pub use glob::Glob;
pub use key::{CacheKey, DotSegments, KeyPolicy, Slashes};
pub use response::{Born, Received, StoredResponse};

#[cfg(test)]
pub(crate) use response::samples;
