//! The demo's parts: a sample API to stand in front of, free ports, and what is printed at start and at the end.
//!
//! Knows the sample users service, and how to say where everything listens.
//! Must not know: arguments and the environment, which `cli` reads and hands on.

pub mod api;
mod banner;
mod called;
mod ports;

pub use banner::{Banner, Listening, RedisFound, banner, farewell};
pub use called::called;
pub use ports::bind;
