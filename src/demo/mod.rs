//! The demo's parts: a sample API to stand in front of, free ports, its configuration, and what is printed at start
//! and at the end.
//!
//! Knows the sample users service, and how to say where everything listens.
//! Must not know: arguments and the environment, which `cli` reads and hands on.

pub mod api;
mod banner;
mod called;
mod ports;
mod written;

pub use banner::{Banner, Listening, RedisFound, banner, farewell};
pub use called::called;
pub use ports::bind;
pub use written::{OWN, written};
