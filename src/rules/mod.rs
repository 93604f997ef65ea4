//! RFC 9111 as total functions.
//!
//! One file per chapter; nothing here reads a clock or does I/O.

mod policy;
mod reasons;

pub use policy::{Authorization, Cookies, Policy, SetCookie, Ttl};
pub use reasons::{MustAsk, NotStored};
