//! HTTP fields as typed values.
//!
//! Each file knows one field (or a small family): its syntax in RFC 9110, RFC 9111 or RFC 5861,
//! and nothing of what is then done with it. Every parser is total: any bytes go in, a value or
//! "there is none" comes out, in time linear in the bytes.
//! Must not know: caching decisions, clocks, I/O.

pub mod cache_control;
pub mod date;
pub mod hop;
pub mod list;
pub mod path;
pub mod range;
pub mod validator;
pub mod vary;
