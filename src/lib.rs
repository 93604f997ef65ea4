//! Larder: a caching reverse proxy with two tiers, memory and a shared Redis.
//!
//! The map. A module may use only modules on lower floors, never its own floor, never a higher
//! one; `tests/floors.rs` holds this. Rooms marked pure know nothing of sockets, files, clocks or
//! runtimes.
//!
//! ```text
//! cli/             11      arguments, the environment, exit codes
//! demo/            10      the sample API
//! server/          9      threads, connections, drain
//! simulate/        8      what another configuration would have made of a log
//! admin/           8      own listener: health, figures, purging, explaining
//! proxy/           7      client-side machine: receive lookup wait pass deliver
//! fill/            6      far-side machine: ask Redis, ask origin, judge, keep
//! worker/          5      what one thread owns, what all share, what a fill publishes
//! flight/          4      in-flight table, growing body
//! upstream/        4 IO   balance, pool, forward
//! store/           4 IO   two tiers as one: memory, redis, purge
//! interim/         3      1xx responses on their way to a client
//! telemetry/       3      timeline, outcome, metrics, slow and access log
//! config/          3      file -> check -> Config, or all problems with line and caret
//! stored/          2 pure the thing we keep: StoredResponse, key, codec
//! rules/           1 pure RFC 9111 as total functions
//! coding/          1 pure content codings: encode, decode within a bound
//! rate/            1      rate limits: one client's count, a table of many
//! fields/          0 pure HTTP fields as typed values
//! wire/            0 pure where messages begin and end in the bytes of a connection
//! apart.rs         0 pure memory of their own for large bodies
//! pieces.rs        0 pure how much memory a piece of it takes
//! pace.rs          0 pure how slow a peer may be
//! lately.rs        0      the few things that were of use last
//! scratch.rs       0      bytes on their way through a scanner
//! clock.rs         0      the only reader of time
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod admin;
pub mod apart;
pub mod cli;
pub mod clock;
pub mod coding;
pub mod config;
pub mod demo;
pub mod fields;
pub mod fill;
pub mod flight;
pub mod interim;
pub mod lately;
pub mod pace;
pub mod pieces;
pub mod proxy;
pub mod rate;
pub mod rules;
pub mod scratch;
pub mod server;
pub mod simulate;
pub mod store;
pub mod stored;
pub mod telemetry;
pub mod upstream;
pub mod wire;
pub mod worker;
