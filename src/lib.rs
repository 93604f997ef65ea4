//! Larder: a caching reverse proxy with two tiers, memory and a shared Redis.
//!
//! The map. A module may use only modules on lower floors, never its own floor, never a higher
//! one; `tests/floors.rs` holds this. Rooms marked pure know nothing of sockets, files, clocks or
//! runtimes.
//!
//! ```text
//! cli/ demo/       9      arguments, the demo
//! server/          8      threads, connections, drain
//! proxy/           7      client-side machine: receive lookup wait pass deliver
//! fill/            6      far-side machine: ask Redis, ask origin, judge, keep
//! worker.rs        5      what one thread owns, what all share
//! flight/          4      in-flight table, growing body
//! upstream/        4 IO   balance, pool, forward
//! store/           4 IO   two tiers as one: memory, redis, purge
//! telemetry/       3      timeline, outcome, metrics, slow and access log
//! config/          3      file -> check -> Config, or all problems with line and caret
//! stored/          2 pure the thing we keep: StoredResponse, key, codec
//! rules/           1 pure RFC 9111 as total functions
//! fields/          0 pure HTTP fields as typed values
//! clock.rs         0      the only reader of time
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub mod cli;
pub mod clock;
pub mod config;
pub mod fields;
pub mod rules;
pub mod store;
pub mod stored;
pub mod telemetry;
