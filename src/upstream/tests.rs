//! The room as a whole, over real sockets, against an origin that misbehaves as told.

mod cancelling;
mod connections;
mod direct;
mod failures;
mod hedging;
mod interim;
mod overdue;
mod queueing;
mod retrying;
mod threads;
