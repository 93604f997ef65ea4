//! HTTP fields as typed values.
//!
//! Each file knows one field (or a small family): its syntax in RFC 9110, RFC 9111 or another RFC,
//! and nothing of what is then done with it. Every parser is total: any bytes go in, a value or
//! "there is none" comes out, in time linear in the bytes.
//! Must not know: caching decisions, clocks, I/O.

pub mod accept;
pub mod accept_encoding;
pub mod cache_control;
pub mod claims;
pub mod content_coding;
pub mod date;
pub mod digits;
pub mod forwarded;
pub mod groups;
pub mod hop;
pub mod host;
pub mod list;
mod names;
pub mod no_vary_search;
pub mod path;
pub mod present;
pub mod query;
pub mod range;
pub mod structured;
pub mod tags;
pub mod targeted;
pub mod trace;
pub mod trailers;
pub mod validator;
pub mod vary;
