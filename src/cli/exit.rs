//! Exit codes, each with its meaning; the numbers beyond 2 are those of BSD's sysexits.
//!
//! Must not know: when they are used.

/// Done, or drained after being told to stop.
pub const DONE: u8 = 0;
/// Something failed while running.
pub const FAILURE: u8 = 1;
/// Wrong arguments; clap itself exits with this.
pub const USAGE: u8 = 2;
/// A listener cannot be bound (`EX_UNAVAILABLE`).
pub const UNAVAILABLE: u8 = 69;
/// The Larder that is to be asked does not take the token (`EX_NOPERM`).
pub const REFUSED: u8 = 77;
/// The configuration is missing or wrong (`EX_CONFIG`): starting again will not help.
pub const CONFIG: u8 = 78;
